#include "tenant_room.h"

#include <string.h>

#include "adapter_ops.h"
#include "registry.h"
#include "server.h"
#include "tenant_gate.h"
#include "voices.h"

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

/* Those in use leave no memory by leaving; bytes of several versions, of which the source has one at most,
 * don't come back. */
static bool must_stay(const struct adapter *a)
{
    return registry_in_use(a) || a->wish.pinned || a->n_splits || a->shadow;
}

/* Memory of a tenant's own voices. */
struct own_memory {
    uint64_t in_use, idle;  /* must stay; may leave */
    struct adapter *oldest; /* of the idle ones the one that was used least recently; or NULL */
};

/* kept (or NULL): a name that isn't to leave. */
static struct own_memory sum_own(const struct registry *all, const struct text_list *own, const char *kept)
{
    struct own_memory m = {0};
    int64_t oldest_ns = INT64_MAX, used_ns;
    for (size_t i = 0; i < registry_count(all); i++) {
        struct adapter *a = registry_at(all, i);
        uint64_t n = bytes_of(a, &used_ns);
        if (!n || !text_list_matches(own, a->wish.name))
            continue;
        if (must_stay(a) || (kept && strcmp(a->wish.name, kept) == 0)) {
            m.in_use += n;
            continue;
        }
        m.idle += n;
        if (used_ns < oldest_ns) {
            m.oldest = a;
            oldest_ns = used_ns;
        }
    }
    return m;
}

/* The limit on the memory of own voices, if `name` is one of them; or LIMIT_NONE. */
static uint64_t own_limit(const struct tenant_spec *spec, const char *name)
{
    return spec && spec->resident_bytes != LIMIT_NONE && text_list_matches(&spec->own_voices, name)
               ? spec->resident_bytes
               : LIMIT_NONE;
}

static enum status too_large(const char *name, uint64_t bytes, uint64_t limit, struct error *err)
{
    return fail(err, STATUS_FORBIDDEN, "\"%.100s\" needs %llu bytes of memory, your own voices may have %llu",
                name, (unsigned long long)bytes, (unsigned long long)limit);
}

static enum status no_room(const char *name, uint64_t limit, struct error *err)
{
    return fail(err, STATUS_LIMITED,
                "\"%.100s\" has to wait: your voices in use take the %llu bytes of memory that they may have",
                name, (unsigned long long)limit);
}

/* Of a sum: its own voices have to be in memory together. */
static uint64_t bytes_of_voice(const struct request *r, const struct voice *v)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < v->n_members; i++) {
        const struct voice_member *m = &v->members[i];
        const struct adapter *a = registry_find(r->server->registry, m->term.name);
        if (a && own_limit(gate_spec(r), m->term.name) != LIMIT_NONE)
            sum += adapter_ops_bytes(a, m->generation ? m->generation : a->stable); /* not chosen yet */
    }
    return sum;
}

enum status tenant_room_fits(const struct request *r, const struct voice *v, struct error *err)
{
    const struct tenant_spec *spec = gate_spec(r);
    const char *name = v->missing->term.name;
    uint64_t limit = own_limit(spec, name);
    const struct adapter *a = registry_find(r->server->registry, name);
    if (limit == LIMIT_NONE || !a)
        return STATUS_OK;
    uint64_t together = bytes_of_voice(r, v);
    uint64_t taken = sum_own(r->server->registry, &spec->own_voices, NULL).in_use +
                     adapter_ops_coming(r->server->adapter_ops, &spec->own_voices);
    if (together > limit)
        return too_large(v->adapter ? v->adapter : name, together, limit, err);
    if (taken + adapter_ops_bytes(a, v->missing->generation) > limit)
        return no_room(name, limit, err);
    return STATUS_OK;
}

/* Among one tenant's. */
static enum status take(struct server *s, const struct tenant_spec *spec, const char *name, uint64_t bytes,
                        enum room_rule rule, struct error *err)
{
    uint64_t limit = own_limit(spec, name);
    if (limit == LIMIT_NONE)
        return STATUS_OK;
    const struct text_list *own = &spec->own_voices;
    const char *kept = rule == ROOM_OPERATOR ? name : NULL; /* it speaks until its next version is there */
    uint64_t loading = adapter_ops_reserved(s->adapter_ops, own, name) + bytes;
    struct own_memory m = sum_own(s->registry, own, kept);
    uint64_t staying = m.in_use + (rule == ROOM_START ? m.idle : 0);
    if (rule != ROOM_OPERATOR && bytes > limit)
        return too_large(name, bytes, limit, err);
    if (rule != ROOM_OPERATOR && staying + loading > limit)
        return no_room(name, limit, err);
    while (m.in_use + m.idle + loading > limit && m.oldest) {
        registry_evict(s->registry, m.oldest);
        m = sum_own(s->registry, own, kept);
    }
    return STATUS_OK;
}

enum status tenant_room_take(struct server *s, const char *name, uint64_t bytes, enum room_rule rule,
                             struct error *err)
{
    for (size_t i = 0; i < tenants_count(s->tenants); i++) {
        enum status st = take(s, tenant_spec_of(tenants_at(s->tenants, i)), name, bytes, rule, err);
        if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}
