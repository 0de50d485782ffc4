/* Requests for voices whose bytes aren't in memory: they begin a load, or join one, and wait for its end. */
#include <string.h>

#include "adapter_ops_inner.h"
#include "base/clock.h"
#include "server.h"
#include "tenant_spec.h"

#define RETRY_MS 5000 /* before a name that never loaded is tried again for a request */

bool ops_is_for_request(const struct task *t)
{
    return t->kind == TASK_LOAD && t->o.as == PUBLISH_AGAIN;
}

static struct task *find_load(const struct adapter_ops *o, const char *name, uint64_t generation)
{
    for (struct task *t = o->first; t; t = t->next)
        if (t->kind == TASK_LOAD && ops_is_for_request(t) && t->phase != PHASE_KEEP &&
            t->o.generation == generation && strcmp(t->o.wish.name, name) == 0)
            return t;
    return NULL;
}

bool adapter_ops_joins(const struct adapter_ops *o, const char *name, uint64_t generation)
{
    return find_load(o, name, generation) != NULL;
}

uint64_t adapter_ops_bytes(const struct adapter *a, uint64_t generation)
{
    const struct version_record *v = registry_record(a, generation);
    uint64_t of_source = a->load_bytes ? a->load_bytes : a->file_bytes;
    return v && v->size_bytes ? v->size_bytes : of_source;
}

uint64_t adapter_ops_coming(const struct adapter_ops *o, const struct text_list *names)
{
    uint64_t sum = 0;
    for (const struct task *t = o->first; t; t = t->next) {
        if (t->kind != TASK_LOAD || t->o.dry_run || t->phase == PHASE_KEEP ||
            !text_list_matches(names, t->o.wish.name))
            continue;
        const struct adapter *a = registry_find(o->server->registry, t->o.wish.name);
        sum += t->bytes ? t->bytes : a ? adapter_ops_bytes(a, t->o.generation) : 0;
    }
    return sum;
}

uint64_t adapter_ops_reserved(const struct adapter_ops *o, const struct text_list *names, const char *but)
{
    uint64_t sum = 0;
    for (const struct task *t = o->first; t; t = t->next)
        if (t->reserved && strcmp(t->o.wish.name, but) != 0 && text_list_matches(names, t->o.wish.name))
            sum += t->bytes;
    return sum;
}

enum status adapter_ops_wait(struct adapter_ops *o, struct load_waiter *w, const char *name,
                             uint64_t generation, uint64_t tenant, struct error *err)
{
    struct task *t = find_load(o, name, generation);
    const struct adapter *a = registry_find(o->server->registry, name);
    snprintf(w->name, sizeof w->name, "%s", name);
    if (!a)
        return fail(err, STATUS_NOT_FOUND, "adapter '%.80s' does not exist", name);
    bool failed_just_now =
        a->stable == 0 && a->last_error && clock_wall_ms() - a->last_error_wall_ms < RETRY_MS;
    if (!t && failed_just_now) /* what was broken a moment ago still is */
        return fail(err, a->last_status, "%s", a->last_error);
    if (!t) {
        struct load_order order = {.wish = a->wish,
                                   .as = PUBLISH_AGAIN,
                                   .generation = generation,
                                   .tenant = tenant,
                                   .by = "request"};
        const struct version_record *v = registry_record(a, generation);
        if (v) {
            order.wish.source = v->source;
            order.wish.scale = v->scale;
        }
        if (v && generation != a->stable) /* an old version is these bytes or none */
            memcpy(order.sha256, v->digest_hex, sizeof order.sha256);
        if (o->stopping || o->n_tasks >= o->server->conf->adapter_jobs_max)
            return fail(err, STATUS_FULL, "%zu adapters wait to be loaded already; try again later",
                        o->n_tasks);
        t = ops_append_order(o, &order, err);
        if (!t)
            return STATUS_NO_MEMORY;
    }
    w->next = t->waiters;
    t->waiters = w;
    ops_next(o);
    return STATUS_OK;
}
