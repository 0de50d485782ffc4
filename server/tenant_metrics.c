/* Numbers by tenant, for the operators' listener alone. Prometheus exposition format 0.0.4. */
#include "tenant_metrics.h"

#include <stddef.h>

#include "server.h"
#include "tenant_keeper.h"
#include "tenants.h"

static const struct row {
    const char *name, *type, *help;
    size_t offset; /* of a uint64_t in struct tenant */
    double unit;
} rows[] = {
    {"lorikeet_tenant_requests_total", "counter", "Requests admitted.", offsetof(struct tenant, n_requests),
     1},
    {"lorikeet_tenant_limited_total", "counter", "Requests refused by a limit (429).",
     offsetof(struct tenant, n_limited), 1},
    {"lorikeet_tenant_requests_running", "gauge", "Requests that run or wait.",
     offsetof(struct tenant, n_running), 1},
    {"lorikeet_tenant_prompt_tokens_total", "counter", "Prompt tokens.", offsetof(struct tenant, n_tokens_in),
     1},
    {"lorikeet_tenant_generated_tokens_total", "counter", "Tokens generated.",
     offsetof(struct tenant, n_tokens_out), 1},
    {"lorikeet_tenant_cached_tokens_total", "counter", "Prompt tokens that needed no computing.",
     offsetof(struct tenant, n_tokens_cached), 1},
    {"lorikeet_tenant_wait_max_seconds", "gauge",
     "The longest that a generation has waited for its first step.", offsetof(struct tenant, waited_max_ns),
     1e9},
};

void tenant_metrics_render(const struct server *s, struct buf *out)
{
    const struct tenants *all = s->tenants;
    if (tenants_closed(all))
        buf_printf(out,
                   "# HELP lorikeet_keys_refused_total Requests with a key that isn't good.\n"
                   "# TYPE lorikeet_keys_refused_total counter\nlorikeet_keys_refused_total %llu\n",
                   (unsigned long long)tenant_keeper_n_refused(s->tenant_keeper));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && tenants_count(all); i++) {
        const struct row *row = &rows[i];
        buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", row->name, row->help, row->name, row->type);
        for (size_t k = 0; k < tenants_count(all); k++) {
            const struct tenant *t = tenants_at(all, k);
            uint64_t n = *(const uint64_t *)(const void *)((const char *)t + row->offset);
            buf_printf(out, "%s{tenant=\"%s\"} %.15g\n", row->name, t->name, (double)n / row->unit);
        }
    }
}
