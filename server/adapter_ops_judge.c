/* Automatic rollback: a version that gives no finite numbers is taken out of the way by itself. */
#include "adapter_ops_inner.h"
#include "base/clock.h"
#include "server.h"

#define FAILURES_MIN 3U /* a single one may be the prompt's */

static bool fails_too_often(const struct server *s, const struct version_record *v)
{
    uint32_t percent = s->conf->rollback_percent;
    return percent && v && v->n_failures >= FAILURES_MIN && v->n_failures * 100 >= v->n_requests * percent;
}

static void log_verdict(const struct server *s, const struct adapter *a, const struct version_record *v,
                        const char *what)
{
    LOG_EVENT(&s->log, LOG_ERROR, what, LOG_TEXT("adapter", a->wish.name),
              LOG_NUMBER("generation", v->generation), LOG_NUMBER("failures", v->n_failures),
              LOG_NUMBER("requests", v->n_requests));
}

static void judge_stable(struct server *s, struct adapter *a)
{
    const struct version_record *v = registry_record(a, a->stable);
    const struct version_record *before = registry_record(a, a->previous);
    struct error err;
    if (!fails_too_often(s, v) || !before || fails_too_often(s, before))
        return;
    log_verdict(s, a, v, "adapter fails too often: rolled back");
    if (registry_rollback(s->registry, a, clock_now_ns(), &err) != STATUS_OK)
        LOG_EVENT(&s->log, LOG_ERROR, "adapter not rolled back", LOG_TEXT("adapter", a->wish.name),
                  LOG_TEXT("why", err.text));
}

void adapter_ops_judge(struct adapter_ops *o, const char *name)
{
    struct server *s = o->server;
    struct adapter *a = registry_find(s->registry, name);
    struct error err;
    if (!a)
        return;
    uint64_t revision = a->revision;
    for (uint32_t i = 0; i < a->n_splits; i++) {
        const struct version_record *v = registry_record(a, a->splits[i].generation);
        if (a->splits[i].generation == a->stable || !fails_too_often(s, v))
            continue;
        log_verdict(s, a, v, "canary fails too often: its traffic goes to the stable version");
        if (registry_set_traffic(s->registry, a, NULL, 0, &err) != STATUS_OK)
            LOG_EVENT(&s->log, LOG_ERROR, "traffic not changed", LOG_TEXT("why", err.text));
        break;
    }
    const struct version_record *shadow = registry_record(a, a->shadow);
    if (fails_too_often(s, shadow)) {
        log_verdict(s, a, shadow, "shadow fails too often: ended");
        registry_end_shadow(s->registry, a);
    }
    judge_stable(s, a);
    if (a->revision != revision)
        adapter_ops_keep(o, a->wish.name,
                         &(struct keep_note){.operation = "rollback", .by = "too many failures"}, NULL, NULL);
}
