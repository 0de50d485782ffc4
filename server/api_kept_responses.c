/* GET and DELETE /v1/responses/ID, GET /v1/responses/ID/input_items: what `store` has kept. A worker asks the
 * store, which may wait for the disk. */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "api_responses.h"
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

static void get_input(struct reply_job *reply)
{
    struct kept_job *job = (struct kept_job *)reply;
    json_t *kept = find(job), *items = json_object_get(kept, "input");
    struct jw w = {.out = &job->reply.out};
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
