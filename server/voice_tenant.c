#include "voice_tenant.h"

#include <stdio.h>

#include "adapter_ops.h"
#include "registry.h"
#include "server.h"
#include "tenant_gate.h"

enum status voice_unknown(struct fault *f, const char *text)
{
    enum status s = fault_set(f, STATUS_NOT_FOUND, "model",
                              "The model \"%.100s\" does not exist; GET /v1/models lists the voices", text);
    snprintf(f->code, sizeof f->code, "model_not_found");
    return s;
}

/* An operator's text of a voice. */
static enum status add_text(const struct request *r, const char *text, double weight, struct voice_expr *out,
                            struct fault *f)
{
    struct voice_expr sum;
    struct error err;
    enum status s = voice_expr_parse(text, r->server->base.name, &sum, &err);
    if (s == STATUS_OK)
        s = voice_expr_add_all(out, &sum, weight, &err);
    return s == STATUS_OK ? s : fault_set(f, s, "model", "%s", err.text);
}

static enum status add_term(const struct request *r, const struct voice_term *t, struct voice_expr *out,
                            struct fault *f)
{
    const char *alias = tenant_spec_alias(gate_spec(r), t->name);
    bool may = gate_may_use(r, t->name), exists = registry_find(r->server->registry, t->name) != NULL;
    struct error err;
    if (alias && t->pin[0])
        return fault_set(f, STATUS_INVALID, "model", "\"%s@%s\": \"%s\" has no versions of its own", t->name,
                         t->pin, t->name);
    if (alias)
        return add_text(r, alias, t->weight, out, f);
    if (!(may & exists))
        return voice_unknown(f, t->name);
    const struct voice_expr one = {.n = 1, .terms = {*t}};
    enum status s = voice_expr_add_all(out, &one, 1, &err);
    return s == STATUS_OK ? s : fault_set(f, s, "model", "%s", err.text);
}

/* Memory of a name's versions, and when one was used last. */
static uint64_t bytes_of(const struct adapter *a, int64_t *used_ns)
{
    uint64_t n = 0;
    *used_ns = 0;
    for (uint32_t i = 0; i < a->n_records; i++) {
        const struct version_record *v = &a->records[i];
        if (!v->version)
            continue;
        n += v->size_bytes;
        *used_ns = v->used_ns > *used_ns ? v->used_ns : *used_ns;
    }
    return n;
}

/* What a load of it will take: what it took before, or its files' size. */
static uint64_t bytes_wanted(const struct adapter *a)
{
    const struct version_record *v = registry_record(a, a->stable);
    return v && v->size_bytes ? v->size_bytes : a->file_bytes;
}

/* Memory of a tenant's own voices but `but`. *oldest: the one that nobody uses and was used least recently;
 * or NULL. */
static uint64_t sum_own(const struct server *s, const struct text_list *own, const struct adapter *but,
                        struct adapter **oldest)
{
    const struct registry *all = s->registry;
    uint64_t sum = 0;
    int64_t oldest_ns = INT64_MAX, used_ns;
    for (size_t i = 0; i < registry_count(all); i++) {
        struct adapter *a = registry_at(all, i);
        if (a == but || !text_list_matches(own, a->wish.name))
            continue;
        uint64_t n = bytes_of(a, &used_ns);
        bool comes = adapter_ops_loads(s->adapter_ops, a->wish.name);
        sum += comes && !n ? bytes_wanted(a) : n;
        if (n && used_ns < oldest_ns && !comes && !registry_in_use(a)) {
            *oldest = a;
            oldest_ns = used_ns;
        }
    }
    return sum;
}

/* Those in use leave no memory by leaving. */
static enum status no_own_room(struct request *r, const struct adapter *a, const struct tenant_spec *spec,
                               struct fault *f)
{
    reply_header(r, "Retry-After", "1");
    snprintf(f->code, sizeof f->code, "rate_limit_exceeded");
    return fail(&f->error, STATUS_LIMITED,
                "\"%s\" has to wait: your voices in use take the %llu bytes of memory that they may have",
                a->wish.name, (unsigned long long)spec->resident_bytes);
}

enum status voice_own_room(struct request *r, const struct adapter *a, struct fault *f)
{
    const struct tenant_spec *spec = gate_spec(r);
    struct registry *all = r->server->registry;
    if (!spec || spec->resident_bytes == LIMIT_NONE || !text_list_matches(&spec->own_voices, a->wish.name))
        return STATUS_OK;
    uint64_t wanted = bytes_wanted(a), sum = UINT64_MAX;
    if (wanted > spec->resident_bytes)
        return fault_set(f, STATUS_FORBIDDEN, "model",
                         "\"%s\" needs %llu bytes of memory, your voices may have %llu", a->wish.name,
                         (unsigned long long)wanted, (unsigned long long)spec->resident_bytes);
    while (sum > spec->resident_bytes - wanted) {
        struct adapter *oldest = NULL;
        sum = sum_own(r->server, &spec->own_voices, a, &oldest);
        if (sum <= spec->resident_bytes - wanted)
            break;
        if (!oldest)
            return no_own_room(r, a, spec, f);
        registry_evict(all, oldest);
    }
    return STATUS_OK;
}

bool voice_base_allowed(const struct request *r)
{
    bool by_word = gate_may_use(r, "base"), by_name = gate_may_use(r, r->server->base.name);
    return by_word | by_name;
}

enum status voice_single(const struct request *r, const char *text, const struct adapter **out,
                         const char **alias, struct fault *f)
{
    const struct tenant_spec *spec = gate_spec(r);
    struct voice_expr e;
    *out = NULL;
    *alias = NULL;
    if (voice_expr_parse(text, r->server->base.name, &e, NULL) != STATUS_OK)
        return voice_unknown(f, text);
    if (e.n == 0)
        return voice_base_allowed(r) ? STATUS_OK : voice_unknown(f, text);
    if (e.n > 1 || e.terms[0].weight != 1 || e.terms[0].pin[0])
        return voice_unknown(f, text);
    bool may = gate_may_use(r, e.terms[0].name);
    const struct adapter *a = registry_find(r->server->registry, e.terms[0].name);
    *alias = spec ? tenant_spec_alias(spec, e.terms[0].name) : NULL;
    *out = may && !*alias ? a : NULL;
    return *out || *alias ? STATUS_OK : voice_unknown(f, text);
}

enum status voice_of_tenant(const struct request *r, bool named, struct voice_expr *e, struct fault *f)
{
    const struct tenant_spec *spec = gate_spec(r);
    struct voice_expr out = {0};
    if (!spec)
        return STATUS_OK;
    if (!named && spec->default_voice) {
        e->n = 0;
        return add_text(r, spec->default_voice, 1, e, f);
    }
    enum status s = STATUS_OK;
    if (e->n == 0 && !voice_base_allowed(r))
        s = voice_unknown(f, r->server->base.name);
    for (uint32_t i = 0; i < e->n && s == STATUS_OK; i++)
        s = add_term(r, &e->terms[i], &out, f);
    if (s == STATUS_OK)
        *e = out;
    return s;
}
