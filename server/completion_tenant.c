/* What a completion costs its tenant: the most it can be before it runs, and what it was at its end. */
#include "completion.h"

#include <stdio.h>
#include <string.h>

#include "adapter_ops.h"
#include "server.h"
#include "tenant_gate.h"
#include "tenant_keeper.h"
#include "tenant_room.h"

static uint64_t n_prompt_tokens(const struct completion *c)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < c->n_prompts; i++)
        n += c->prompts[i].ids.n_ids;
    return n;
}

enum status completion_reserve(struct completion *c)
{
    uint64_t n = n_prompt_tokens(c);
    if (!c->r->caller || c->dialect->counts) /* nothing is computed */
        return STATUS_OK;
    for (uint32_t i = 0; i < c->n_prompts; i++) {
        const struct prompt *p = &c->prompts[i];
        if (p->ids.n_ids >= c->context) {
            enum status s =
                fault_set(&c->fault, STATUS_TOO_LARGE, "prompt",
                          "the prompt has %zu tokens, your context has %u", p->ids.n_ids, c->context);
            snprintf(c->fault.code, sizeof c->fault.code, "context_length_exceeded");
            return s;
        }
        n += (uint64_t)completion_max_tokens(c, p) * c->params.n_made;
    }
    return gate_reserve(c->r, n, &c->fault);
}

void completion_limited(struct completion *c, const struct error *err)
{
    fault_set(&c->fault, err->status, "model", "%s", err->text);
    if (err->status != STATUS_LIMITED)
        return;
    snprintf(c->fault.code, sizeof c->fault.code, "rate_limit_exceeded");
    reply_header(c->r, "Retry-After", "1");
    if (c->r->caller)
        c->r->caller->tenant->n_limited++;
}

enum status completion_may_load(struct completion *c)
{
    const struct voice_member *m = c->voice.missing;
    struct error err;
    if (adapter_ops_joins(c->server->adapter_ops, m->term.name, m->generation)) /* another's load */
        return STATUS_OK;
    if (tenant_room_fits(c->r, &c->voice, &err) == STATUS_OK)
        return gate_load(c->r, &c->fault);
    completion_limited(c, &err);
    return c->fault.error.status;
}

static void count_usage(const struct completion *c, const struct usage_row *counts)
{
    struct usage_row row = *counts;
    const struct caller *who = c->r->caller;
    const char *label = c->voice.label && c->voice.label[0] ? c->voice.label : c->server->base.name;
    snprintf(row.tenant, sizeof row.tenant, "%s", who->tenant->name);
    snprintf(row.key, sizeof row.key, "%s", who->key_id);
    snprintf(row.voice, sizeof row.voice, "%s", label);
    snprintf(row.version, sizeof row.version, "%s", c->voice.generations);
    tenant_keeper_count(c->server->tenant_keeper, &row);
}

static void log_served(const struct completion *c, const struct usage_row *counts)
{
    const struct request *r = c->r;
    const struct voice *v = &c->voice;
    struct served_row row = {.n_in = counts->n_in,
                             .n_out = counts->n_out,
                             .status = r->gone                 ? 499
                                       : c->fault.error.status ? http_status_of(c->fault.error.status)
                                                               : r->status};
    const uint8_t *bytes = voice_digest(v);
    snprintf(row.request, sizeof row.request, "%s", r->id);
    snprintf(row.client, sizeof row.client, "%s", r->peer);
    snprintf(row.tenant, sizeof row.tenant, "%s", r->caller ? r->caller->tenant->name : "");
    snprintf(row.key, sizeof row.key, "%s", r->caller ? r->caller->key_id : "");
    snprintf(row.voice, sizeof row.voice, "%s", v->adapter ? v->adapter : c->server->base.name);
    snprintf(row.version, sizeof row.version, "%s", v->generations);
    for (int i = 0; bytes && i < 32; i++)
        snprintf(row.digest + 2 * i, 3, "%02x", bytes[i]);
    tenant_keeper_served(c->server->tenant_keeper, &row);
}

/* Prompts are counted as usage counts them, once whatever their number of choices; those that never ran
 * aren't. */
void completion_settle(struct completion *c)
{
    struct usage_row counts = {.n_requests = 1};
    bool ran = false;
    for (uint32_t i = 0; i < c->n_choices; i++) {
        const struct choice *h = &c->choices[i];
        counts.n_out += h->n_generated;
        ran |= h->started;
        if (i % c->params.n_made || !h->started)
            continue;
        counts.n_in += h->prompt->ids.n_ids;
        counts.n_cached += h->n_cached;
    }
    if (ran && tenant_keeper_wants_served(c->server->tenant_keeper))
        log_served(c, &counts);
    if (!c->r->caller)
        return;
    gate_settle(c->r, counts.n_in, counts.n_out, counts.n_cached);
    if (ran)
        count_usage(c, &counts);
    gate_leave(c->r);
}

/* Beside a product with W of the base, of which a row costs hidden * hidden, one with A and B costs 2 * rank
 * * hidden.
 */
static float relative_cost(const struct completion *c)
{
    uint32_t hidden = model_config(c->server->base.model)->hidden_size;
    return c->voice.lora && hidden ? 1 + 2 * (float)c->voice.lora->t_max / (float)hidden : 1;
}

struct generation_caller completion_caller(const struct completion *c)
{
    const struct caller *who = c->r->caller;
    if (!who)
        return (struct generation_caller){0};
    return (struct generation_caller){.number = who->tenant->number,
                                      .weight = (float)who->spec->weight,
                                      .cost = relative_cost(c),
                                      .batch = who->spec->batch,
                                      .kv_share = (float)who->spec->kv_share};
}

void completion_waited(struct completion *c, int64_t ns)
{
    struct tenant *t = c->r->caller ? c->r->caller->tenant : NULL;
    if (t && ns > 0 && (uint64_t)ns > t->waited_max_ns)
        t->waited_max_ns = (uint64_t)ns;
}

const char *completion_cache_owner(const struct completion *c)
{
    const struct tenant_spec *spec = gate_spec(c->r);
    if (strcmp(c->server->conf->prefix_cache, "shared") == 0)
        return NULL;
    if (!spec)
        return gate_name(c->r);
    /* A group's name is no tenant's: the arena ends with the request. */
    return spec->cache_group ? arena_printf(c->r->arena, "group %s", spec->cache_group)
                             : arena_printf(c->r->arena, "tenant %s", spec->name);
}
