/* What a start leaves for later. One worker, one thing after another; each may fail without harm: who needs
 * costs or probes makes them then, and the next start packs again. */
#include "settle.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "pack_cache.h"
#include "server.h"

#define MEASURING_NICE 5 /* time on the processor is counted, not time */
#define WRITING_NICE 19
#define IOPRIO_WHO_PROCESS 1
#define IOPRIO_IDLE (3 << 13) /* ioprio_set(2): served when nobody else asks */

struct settling {
    struct server *server;
    const struct cost_model *costs;
    struct pack_cache_result pack;
};

static bool is_stopping(void *data)
{
    struct server *s = data;
    return atomic_load(&s->settle_stop);
}

/* The thread is our own: it can't be made less nice again. */
static void *settle_gently(void *data)
{
    struct settling *t = data;
    const struct server *s = t->server;
    const struct conf *c = s->conf;
    const struct effect_probes *probes;
    struct error ignored;
    setpriority(PRIO_PROCESS, 0, MEASURING_NICE); /* of this thread alone, on Linux */
    if (base_costs(&s->base, c->n_threads, &t->costs, &ignored) != STATUS_OK)
        t->costs = NULL;
    bool adapters_may_come = c->n_admin_listen || c->adapters_dir || c->n_adapters;
    if (adapters_may_come && c->effect != EFFECT_OFF && !is_stopping(t->server))
        (void)!base_probes(&s->base, &probes, &ignored);
    setpriority(PRIO_PROCESS, 0, WRITING_NICE);
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE);
    pack_cache_write(c, s->base.model, is_stopping, t->server, &t->pack);
    return NULL;
}

static void run(void *data)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, settle_gently, data) == 0)
        pthread_join(thread, NULL);
}

static void settled(void *data)
{
    struct settling *t = data;
    struct server *s = t->server;
    const struct pack_cache_result *p = &t->pack;
    s->settling = false;
    if (t->costs && s->engine)
        engine_set_costs(s->engine, t->costs);
    if (p->size_bytes)
        LOG_EVENT(&s->log, LOG_INFO, "packed weights kept for the next start", LOG_TEXT("file", p->path),
                  LOG_NUMBER("bytes", p->size_bytes), LOG_NUMBER("ms", (double)(p->spent_ns / NS_PER_MS)));
    else if (p->err.status == STATUS_CONFLICT)
        LOG_EVENT(&s->log, LOG_INFO, "packed weights are kept by another process",
                  LOG_TEXT("why", p->err.text));
    else if (p->err.status != STATUS_OK && p->err.status != STATUS_CANCELLED)
        LOG_EVENT(&s->log, LOG_WARN, "packed weights are not kept: the next start packs them again",
                  LOG_TEXT("why", p->err.text));
    mem_free(t);
}

void settle_begin(struct server *s)
{
    struct settling *t = mem_zalloc(sizeof *t);
    if (t)
        t->server = s;
    s->settling = t && server_work(s, run, settled, t);
    if (!s->settling)
        mem_free(t);
}
