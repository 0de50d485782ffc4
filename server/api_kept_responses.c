/* GET and DELETE /v1/responses/ID, GET /v1/responses/ID/input_items: what `store` has kept. A worker asks the
 * store, which may wait for the disk. */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "api_responses.h"
#include "response_store.h"
#include "server.h"

struct kept_job {
    struct request *r;
    void (*work)(struct kept_job *job);
    const char *id;
    uint8_t owner[32];
    struct fault fault;
    struct buf out;
};

static void free_out(void *data)
{
    struct kept_job *job = data;
    buf_fini(&job->out);
}

static void do_work(void *data)
{
    struct kept_job *job = data;
    job->work(job);
}

static void answer(void *data)
{
    struct kept_job *job = data;
    struct request *r = job->r;
    if (job->fault.error.status == STATUS_OK)
        reply_json(r, 200, &job->out);
    else
        reply_fault(r, &job->fault);
    request_release(r);
}

static void begin(struct request *r, void (*work)(struct kept_job *job))
{
    const char *id = r->path + strlen("/v1/responses/");
    struct kept_job *job = arena_alloc(r->arena, sizeof *job);
    if (!job || arena_on_end(r->arena, free_out, job) != 0 || !kept_owner(r, job->owner)) {
        reply_error(r, 503, "no memory for the request", NULL, NULL);
        return;
    }
    job->r = r;
    job->work = work;
    job->id = arena_strndup(r->arena, id, strcspn(id, "/"));
    buf_init(&job->out, 0);
    request_hold(r);
    if (!job->id || !server_work(r->server, do_work, answer, job)) {
        fault_set(&job->fault, STATUS_NO_MEMORY, NULL, "no memory for the request");
        answer(job);
    }
}

static json_t *find(struct kept_job *job)
{
    json_t *kept = NULL;
    enum status s = kept_response(job->r->server, job->owner, job->id, &kept, &job->fault);
    job->fault.error.status = s;
    return kept;
}

static void write_json(struct kept_job *job, const json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT);
    if (text)
        buf_puts(&job->out, text);
    else
        job->out.failed = true;
    free(text);
}

static void get(struct kept_job *job)
{
    json_t *kept = find(job);
    if (kept)
        write_json(job, json_object_get(kept, "response"));
    json_decref(kept);
}

static void get_input(struct kept_job *job)
{
    json_t *kept = find(job), *items = json_object_get(kept, "input");
    struct jw w = {.out = &job->out};
    if (kept) {
        jw_begin(&w, '{');
        jw_key_text(&w, "object", "list");
        jw_key(&w, "data");
        write_json(job, items);
        w.comma = true;
        jw_key_text(&w, "first_id", NULL);
        jw_key_text(&w, "last_id", NULL);
        jw_key_bool(&w, "has_more", false);
        jw_end(&w, '}');
    }
    json_decref(kept);
}

static void delete (struct kept_job *job)
{
    struct error err;
    enum status s = response_store_delete(job->r->server->response_store, job->owner, job->id, &err);
    if (s != STATUS_OK) {
        fault_set(&job->fault, s, "id",
                  s == STATUS_NOT_FOUND ? "Response with id '%.60s' not found."
                                        : "the response '%.60s' can't be removed now",
                  job->id);
        return;
    }
    struct jw w = {.out = &job->out};
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
