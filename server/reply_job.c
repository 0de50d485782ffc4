#include "reply_job.h"

#include "server.h"

static void free_out(void *data)
{
    struct reply_job *job = data;
    buf_fini(&job->out);
}

static void do_work(void *data)
{
    struct reply_job *job = data;
    job->work(job);
}

static void answer(void *data)
{
    struct reply_job *job = data;
    struct request *r = job->r;
    if (job->fault.error.status == STATUS_OK)
        reply_json(r, 200, &job->out);
    else
        reply_fault(r, &job->fault);
    request_release(r);
}

void *reply_job_create(struct request *r, size_t bytes, void (*work)(struct reply_job *job))
{
    struct reply_job *job = arena_alloc(r->arena, bytes);
    if (!job || arena_on_end(r->arena, free_out, job) != 0) {
        reply_error(r, 503, "no memory for the request", NULL, NULL);
        return NULL;
    }
    job->r = r;
    job->work = work;
    buf_init(&job->out, 0);
    return job;
}

void reply_job_run(struct reply_job *job, bool takes_long)
{
    request_hold(job->r);
    if (job->fault.error.status == STATUS_OK) {
        if (takes_long && server_work(job->r->server, do_work, answer, job))
            return;
        job->work(job);
    }
    answer(job);
}
