/* GET and DELETE /v1/responses/ID, GET /v1/responses/ID/input_items: what `store` has kept. A worker asks the
 * store, which may wait for the disk. */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "api_responses.h"
#include "body_defaults.h"
#include "reply_job.h"
#include "response_store.h"
#include "responses_json.h"
#include "server.h"

#define KEPT_BYTES_MAX ((size_t)64 << 20)

static bool kept_ok(const char *id)
{
    return strncmp(id, "resp_", 5) == 0 && strlen(id) < RESPONSE_ID_BYTES;
}

enum status kept_response(struct server *s, const uint8_t owner[32], const char *id, json_t **out,
                          struct fault *f)
{
    struct buf text;
    struct error err;
    *out = NULL;
    buf_init(&text, KEPT_BYTES_MAX);
    enum status st =
        kept_ok(id) ? response_store_get(s->response_store, owner, id, &text, &err) : STATUS_NOT_FOUND;
    if (st == STATUS_OK) {
        *out = json_loadb(text.data, text.length, JSON_ALLOW_NUL, NULL);
        st = *out ? STATUS_OK : STATUS_NO_MEMORY;
    }
    buf_fini(&text);
    if (st == STATUS_OK)
        return st;
    return fault_set(f, st, "id",
                     st == STATUS_NOT_FOUND ? "Response with id '%.60s' not found."
                                            : "the response '%.60s' can't be read now",
                     id);
}

json_t *read_item_id(const char *response, const json_t *item, size_t index)
{
    static const char *const kinds[][2] = {
        {"function_call", "fc"}, {"function_call_output", "fco"}, {"reasoning", "rs"}};
    json_t *own = json_object_get(item, "id");
    const char *type = json_string_value(json_object_get(item, "type")), *prefix = "msg";
    for (size_t i = 0; type && i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(type, kinds[i][0]) == 0)
            prefix = kinds[i][1];
    return json_is_string(own)
               ? json_incref(own)
               : json_sprintf("%s_%s" INPUT_ITEM "%zu", prefix, response + strlen("resp_"), index);
}

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

/* The item as the API has it, whatever was left out when it came. New; NULL: no memory. */
static json_t *shown_item(const char *response, const json_t *item, size_t index)
{
    json_t *out = json_deep_copy(item), *content = json_object_get(item, "content");
    bool ok = out && json_object_set_new(out, "id", read_item_id(response, item, index)) == 0;
    if (ok && !json_is_string(json_object_get(item, "type")))
        ok = json_object_set_new(out, "type", json_string("message")) == 0;
    if (ok && json_is_string(content))
        ok = json_object_set_new(out, "content", parts_of(content, message_has_role(item, "assistant"))) == 0;
    if (ok && !json_object_get(item, "status"))
        ok = json_object_set_new(out, "status", json_string("completed")) == 0;
    if (ok)
        return out;
    json_decref(out);
    return NULL;
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

static size_t place_of(const struct page *p, size_t n, size_t i)
{
    return p->oldest_first ? i : n - 1 - i;
}

/* Where the page begins in its order; SIZE_MAX: behind no item that is there. */
static size_t begin_of(const struct kept_job *job, const json_t *items, const struct page *p)
{
    size_t n = json_array_size(items), begin = p->after ? SIZE_MAX : 0;
    for (size_t i = 0; i < n && begin == SIZE_MAX; i++) {
        size_t index = place_of(p, n, i);
        json_t *id = read_item_id(job->id, json_array_get(items, index), index);
        if (id && strcmp(json_string_value(id), p->after) == 0)
            begin = i + 1;
        json_decref(id);
    }
    return begin;
}

/* The page's items; *more: others follow. New, or NULL after a fault. */
static json_t *page_of(const struct kept_job *job, const json_t *items, const struct page *p, bool *more,
                       struct fault *f)
{
    size_t n = json_array_size(items), begin = begin_of(job, items, p);
    if (begin == SIZE_MAX) {
        fault_set(f, STATUS_INVALID, "after",
                  "after: found \"%.80s\", expected the id of an item of this list", p->after);
        return NULL;
    }
    size_t end = p->limit < n - begin ? begin + p->limit : n;
    json_t *out = json_array();
    bool ok = out != NULL;
    *more = end < n;
    for (size_t i = begin; i < end && ok; i++) {
        size_t index = place_of(p, n, i);
        ok = json_array_append_new(out, shown_item(job->id, json_array_get(items, index), index)) == 0;
    }
    if (ok)
        return out;
    json_decref(out);
    fault_set(f, STATUS_NO_MEMORY, NULL, "no memory for the answer");
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
