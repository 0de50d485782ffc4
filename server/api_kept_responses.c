/* GET and DELETE /v1/responses/ID, GET /v1/responses/ID/input_items: what `store` has kept. A worker asks the
 * store, which may wait for the disk. */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "api_responses.h"
#include "body_defaults.h"
#include "reply_job.h"
#include "response_store.h"
#include "server.h"

struct kept_job {
    struct reply_job reply;
    const char *id;
    uint8_t owner[32];
};

static void begin(struct request *r, void (*work)(struct reply_job *job))
{
    const char *id = r->path + strlen("/v1/responses/");
    struct kept_job *job = reply_job_create(r, sizeof *job, work);
    if (!job)
        return;
    job->id = arena_strndup(r->arena, id, strcspn(id, "/"));
    if (!job->id || !kept_owner(r, job->owner))
        fault_set(&job->reply.fault, STATUS_NO_MEMORY, NULL, "no memory for the request");
    reply_job_run(&job->reply, true);
}

static json_t *find(struct kept_job *job)
{
    json_t *kept = NULL;
    enum status s = kept_response(job->reply.r->server, job->owner, job->id, &kept, &job->reply.fault);
    job->reply.fault.error.status = s;
    return kept;
}

static void write_json(struct kept_job *job, const json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT);
    if (text)
        buf_puts(&job->reply.out, text);
    else
        job->reply.out.failed = true;
    free(text);
}

static void get(struct reply_job *reply)
{
    struct kept_job *job = (struct kept_job *)reply;
    json_t *kept = find(job);
    if (kept)
        write_json(job, json_object_get(kept, "response"));
    json_decref(kept);
}

/* ---- what was read */

#define ITEMS_LIMIT 100U
#define ITEMS_USUAL 20U

/* A text as the parts that it stands for. */
static json_t *parts_of(json_t *text, bool said)
{
    return said ? json_pack("[{s:s, s:O, s:[], s:[]}]", "type", "output_text", "text", text, "annotations",
                            "logprobs")
                : json_pack("[{s:s, s:O}]", "type", "input_text", "text", text);
}

/* The item as the API has it, whatever was left out when it came. New. */
static json_t *shown_item(const char *response, const json_t *item, size_t index)
{
    static const char *const kinds[][2] = {
        {"function_call", "fc"}, {"function_call_output", "fco"}, {"reasoning", "rs"}};
    json_t *out = json_deep_copy(item);
    const char *type = json_string_value(json_object_get(item, "type")), *prefix = "msg";
    json_t *content = json_object_get(item, "content");
    for (size_t i = 0; type && i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(type, kinds[i][0]) == 0)
            prefix = kinds[i][1];
    if (!json_is_string(json_object_get(item, "id")))
        json_object_set_new(
            out, "id", json_sprintf("%s_%s" INPUT_ITEM "%zu", prefix, response + strlen("resp_"), index));
    if (!type)
        json_object_set_new(out, "type", json_string("message"));
    if (json_is_string(content))
        json_object_set_new(out, "content", parts_of(content, message_has_role(item, "assistant")));
    if (!json_object_get(item, "status"))
        json_object_set_new(out, "status", json_string("completed"));
    return out;
}

struct page {
    bool oldest_first;
    size_t limit;
    const char *after; /* or NULL */
};

static enum status read_page(const struct request *r, struct page *p, struct fault *f)
{
    const char *order = request_arg(r, "order"), *limit = request_arg(r, "limit");
    char *end = NULL;
    unsigned long n = limit ? strtoul(limit, &end, 10) : ITEMS_USUAL;
    *p = (struct page){.after = request_arg(r, "after"), .limit = n};
    p->oldest_first = order && strcmp(order, "asc") == 0;
    if (order && !p->oldest_first && strcmp(order, "desc") != 0)
        return fault_set(f, STATUS_INVALID, "order", "order: found \"%.40s\", expected asc or desc", order);
    if (limit && (*limit < '0' || *limit > '9' || *end || n == 0 || n > ITEMS_LIMIT))
        return fault_set(f, STATUS_INVALID, "limit", "limit: found \"%.40s\", expected 1 to %u", limit,
                         ITEMS_LIMIT);
    return STATUS_OK;
}

/* The page's items; *more: others follow. New, or NULL after a fault. */
static json_t *page_of(const struct kept_job *job, const json_t *items, const struct page *p, bool *more,
                       struct fault *f)
{
    size_t n = json_array_size(items);
    bool begun = !p->after;
    json_t *out = json_array();
    *more = false;
    for (size_t i = 0; i < n && !*more; i++) {
        size_t index = p->oldest_first ? i : n - 1 - i;
        json_t *item = shown_item(job->id, json_array_get(items, index), index);
        const char *id = json_string_value(json_object_get(item, "id"));
        *more = begun && json_array_size(out) == p->limit;
        if (begun && !*more)
            json_array_append(out, item);
        begun = begun || (id && strcmp(id, p->after) == 0);
        json_decref(item);
    }
    if (begun)
        return out;
    json_decref(out);
    fault_set(f, STATUS_INVALID, "after", "after: found \"%.80s\", expected the id of an item of this list",
              p->after);
    return NULL;
}

static const char *id_of(const json_t *items, size_t index)
{
    return json_string_value(json_object_get(json_array_get(items, index), "id"));
}

static void get_input(struct reply_job *reply)
{
    struct kept_job *job = (struct kept_job *)reply;
    struct page page;
    bool more = false;
    json_t *kept = find(job), *items = NULL;
    if (kept && read_page(reply->r, &page, &reply->fault) == STATUS_OK)
        items = page_of(job, json_object_get(kept, "input"), &page, &more, &reply->fault);
    struct jw w = {.out = &job->reply.out};
    if (items) {
        jw_begin(&w, '{');
        jw_key_text(&w, "object", "list");
        jw_key(&w, "data");
        write_json(job, items);
        w.comma = true;
        jw_key_text(&w, "first_id", id_of(items, 0));
        jw_key_text(&w, "last_id", id_of(items, json_array_size(items) - 1));
        jw_key_bool(&w, "has_more", more);
        jw_end(&w, '}');
    }
    json_decref(items);
    json_decref(kept);
}

static void delete (struct reply_job *reply)
{
    const struct kept_job *job = (const struct kept_job *)reply;
    struct error err;
    enum status s = response_store_delete(job->reply.r->server->response_store, job->owner, job->id, &err);
    if (s != STATUS_OK) {
        fault_set(&reply->fault, s, "id",
                  s == STATUS_NOT_FOUND ? "Response with id '%.60s' not found."
                                        : "the response '%.60s' can't be removed now",
                  job->id);
        return;
    }
    struct jw w = {.out = &reply->out};
    jw_begin(&w, '{');
    jw_key_text(&w, "id", job->id);
    jw_key_text(&w, "object", "response");
    jw_key_bool(&w, "deleted", true);
    jw_end(&w, '}');
}

void api_response_get(struct request *r)
{
    begin(r, get);
}

void api_response_input(struct request *r)
{
    begin(r, get_input);
}

void api_response_delete(struct request *r)
{
    begin(r, delete);
}
