/* An answer that takes long to make: a worker makes it, the front sends it. */
#ifndef LK_REPLY_JOB_H
#define LK_REPLY_JOB_H

#include "api_render.h"

/* The first member of a handler's own struct. */
struct reply_job {
    struct request *r;
    void (*work)(struct reply_job *job); /* fills `out`, a JSON value, or `fault`; a worker's */
    struct fault fault;
    struct buf out;
};

/* A zeroed struct of `bytes` in the request's arena; NULL: memory was short, and that is answered. */
void *reply_job_create(struct request *r, size_t bytes, void (*work)(struct reply_job *job));
/* Does the work, by a worker if it takes long, and answers. A fault that is there already is the answer. */
void reply_job_run(struct reply_job *job, bool takes_long);

#endif
