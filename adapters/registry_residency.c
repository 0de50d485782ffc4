/* What is in memory, who may be evicted for whom, and who is charged. Each version in memory has a `holding`,
 * which outlives its record's interest in it while requests use it. Those that may be evicted stand in one of
 * two queues, longest unused first, so that making room looks at nothing else; those in use or pinned stand
 * in none. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "registry_inner.h"

#define BYTES_LIMIT (UINT64_C(1) << 60) /* sums of a few don't overflow */

/* ---- queues */

static void leave(struct registry *r, struct holding *h)
{
    if (h->place == PLACE_NONE)
        return;
    struct holding_queue *q = &r->queues[h->place];
    *(h->before ? &h->before->next : &q->first) = h->next;
    *(h->next ? &h->next->before : &q->last) = h->before;
    h->next = h->before = NULL;
    h->place = PLACE_NONE;
}

static void join(struct registry *r, struct holding *h, enum holding_place place)
{
    struct holding_queue *q = &r->queues[place];
    leave(r, h);
    if (place == PLACE_NONE)
        return;
    h->place = place;
    h->before = q->last;
    *(q->last ? &q->last->next : &q->first) = h;
    q->last = h;
}

/* While a name's traffic is split or shadowed its versions stay: its source has the bytes of one of them at
 * most, and a share of the requests would fail. */
static bool is_protected(const struct adapter *a)
{
    return a->wish.pinned || a->n_splits > 0 || a->shadow != 0;
}

static enum holding_place place_of(const struct holding *h, const struct version_record *v)
{
    if (v->keep_until_ns != 0 && v->keep_until_ns != INT64_MAX)
        return PLACE_KEPT;
    return h->n_users == 0 && !is_protected(&h->entry->a) ? PLACE_IDLE : PLACE_NONE;
}

/* Who stays in a queue keeps its place there. */
static void settle(struct registry *r, struct holding *h, const struct version_record *v)
{
    enum holding_place place = place_of(h, v);
    if (place != h->place)
        join(r, h, place);
    if (place == PLACE_KEPT && v->keep_until_ns < r->keep_min_ns)
        r->keep_min_ns = v->keep_until_ns;
}

void entry_settle(struct registry *r, struct entry *e)
{
    for (uint32_t i = 0; i < e->a.n_records; i++) {
        struct version_record *v = &e->a.records[i];
        if (!v->version)
            continue;
        if (version_is_routed(&e->a, v->generation))
            v->keep_until_ns = 0;
        else if (v->keep_until_ns == 0)
            v->keep_until_ns = registry_time_after(r, r->o.keep_ns);
        settle(r, v->version->holding, v);
    }
}

/* ---- charges: an array in order of tenants; who has nothing isn't in it */

static size_t find_tenant(const struct registry *r, uint64_t tenant)
{
    size_t low = 0, high = r->n_tenants;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->tenants[middle].tenant < tenant)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct tenant_charge *charge_of(const struct registry *r, uint64_t tenant)
{
    size_t i = find_tenant(r, tenant);
    return i < r->n_tenants && r->tenants[i].tenant == tenant ? &r->tenants[i] : NULL;
}

/* False: no memory. The operator (0) isn't charged. */
static bool charge(struct registry *r, uint64_t tenant, uint64_t bytes)
{
    struct tenant_charge *c = charge_of(r, tenant);
    if (tenant == 0 || bytes == 0)
        return true;
    if (!c) {
        size_t i = find_tenant(r, tenant);
        if (r->n_tenants == r->tenants_capacity) {
            size_t capacity = r->tenants_capacity ? r->tenants_capacity * 2 : 16;
            struct tenant_charge *more = mem_realloc(r->tenants, capacity * sizeof *more);
            if (!more)
                return false;
            r->tenants = more;
            r->tenants_capacity = capacity;
        }
        memmove(&r->tenants[i + 1], &r->tenants[i], (r->n_tenants - i) * sizeof *r->tenants);
        r->n_tenants++;
        c = &r->tenants[i];
        *c = (struct tenant_charge){.tenant = tenant};
    }
    c->bytes += bytes;
    return true;
}

static void discharge(struct registry *r, uint64_t tenant, uint64_t bytes)
{
    struct tenant_charge *c = charge_of(r, tenant);
    if (tenant == 0 || bytes == 0)
        return;
    require(c && c->bytes >= bytes);
    c->bytes -= bytes;
    if (c->bytes)
        return;
    r->n_tenants--;
    size_t i = (size_t)(c - r->tenants);
    memmove(c, c + 1, (r->n_tenants - i) * sizeof *c);
}

/* ---- holdings */

bool holding_create(struct registry *r, struct entry *e, struct version_record *record,
                    struct adapter_version *v)
{
    struct holding *h = mem_zalloc(sizeof *h);
    uint64_t bytes = v->lora ? v->lora->size_bytes : 0, tenant = e->reserved_tenant;
    if (!h || !charge(r, tenant, bytes)) {
        mem_free(h);
        return false;
    }
    *h = (struct holding){
        .entry = e, .generation = record->generation, .version = v, .bytes = bytes, .tenant = tenant};
    v->holding = h;
    v->generation = record->generation;
    snprintf(v->name, sizeof v->name, "%s", e->name);
    record->version = v;
    record->size_bytes = bytes;
    record->rank_max = v->report.rank_max;
    record->keep_until_ns = 0;
    if (record->published_wall_ms == 0)
        record->published_wall_ms = v->loaded_wall_ms;
    r->resident_bytes += bytes;
    r->n_resident++;
    return true;
}

static void holding_free(struct registry *r, struct holding *h)
{
    r->resident_bytes -= h->bytes;
    discharge(r, h->tenant, h->bytes);
    h->version->holding = NULL;
    adapter_release(h->version);
    mem_free(h);
}

void holding_drop(struct registry *r, struct version_record *v)
{
    struct holding *h = v->version->holding;
    leave(r, h);
    v->version = NULL;
    v->keep_until_ns = 0;
    h->entry = NULL;
    r->n_resident--;
    if (h->n_users)
        r->n_retired++;
    else
        holding_free(r, h);
}

struct adapter_version *registry_acquire(struct registry *r, struct adapter *a, uint64_t generation,
                                         int64_t now_ns)
{
    struct version_record *v = registry_record(a, generation);
    registry_tick(r, now_ns);
    if (!v || !v->version)
        return NULL;
    struct holding *h = v->version->holding;
    h->n_users++;
    v->used_ns = now_ns;
    v->n_requests++;
    if (h->place == PLACE_KEPT) { /* somebody wants this old one: its time begins again */
        int64_t until = registry_time_after(r, r->o.keep_ns);
        v->keep_until_ns = v->keep_until_ns < until ? until : v->keep_until_ns;
        leave(r, h);
    }
    settle(r, h, v);
    return adapter_acquire(v->version);
}

void registry_release(struct registry *r, struct adapter_version *v, bool failed)
{
    if (!v)
        return;
    struct holding *h = v->holding;
    require(h && h->n_users > 0);
    struct adapter *a = h->entry ? &h->entry->a : registry_find(r, v->name);
    struct version_record *record = a ? registry_record(a, h->generation) : NULL;
    if (failed && record)
        record->n_failures++;
    bool is_last = --h->n_users == 0;
    adapter_release(v);
    if (is_last && h->entry) {
        require(record);
        settle(r, h, record);
    } else if (is_last) {
        r->n_retired--;
        holding_free(r, h);
    }
}

bool registry_in_use(const struct adapter *a)
{
    bool used = a->loading;
    for (uint32_t i = 0; i < a->n_records && !used; i++)
        used = a->records[i].version && a->records[i].version->holding->n_users > 0;
    return used;
}

/* ---- room */

static void evict(struct registry *r, struct entry *e, struct version_record *v)
{
    uint64_t generation = v->generation;
    holding_drop(r, v);
    registry_tell(r, e, CHANGE_EVICTED, generation);
}

void registry_evict(struct registry *r, struct adapter *a)
{
    for (uint32_t i = 0; i < a->n_records; i++)
        if (a->records[i].version) {
            r->n_evictions++;
            evict(r, entry_of(a), &a->records[i]);
        }
}

void registry_sweep(struct registry *r, int64_t now_ns)
{
    registry_tick(r, now_ns);
    if (r->now_ns < r->keep_min_ns)
        return;
    r->keep_min_ns = INT64_MAX;
    for (struct holding *h = r->queues[PLACE_KEPT].first, *next; h; h = next) {
        struct version_record *v = registry_record(&h->entry->a, h->generation);
        next = h->next;
        if (v->keep_until_ns <= r->now_ns)
            evict(r, h->entry, v);
        else if (v->keep_until_ns < r->keep_min_ns)
            r->keep_min_ns = v->keep_until_ns;
    }
}

/* Evictions that are planned, not yet done. */
struct plan {
    struct registry *r;
    const struct entry *loading; /* what it would serve if the load failed stays */
    uint64_t tenant, share;
    bool is_above; /* the tenant has more than its share */
    uint64_t missing;
    struct holding *victims, **last;
};

static bool is_above_share(const struct plan *p, uint64_t tenant)
{
    const struct tenant_charge *c = charge_of(p->r, tenant);
    return c && c->bytes - c->planned > p->share;
}

static bool may_take(const struct plan *p, const struct holding *h, bool own_only)
{
    if (h->n_users || h->is_victim || (h->place == PLACE_IDLE && h->entry == p->loading))
        return false;
    if (!p->is_above || h->tenant == p->tenant)
        return !own_only || h->tenant == p->tenant;
    return !own_only && (h->tenant == 0 || is_above_share(p, h->tenant));
}

static void plan_queue(struct plan *p, enum holding_place place, bool own_only)
{
    for (struct holding *h = p->r->queues[place].first; h && p->missing; h = h->next) {
        struct tenant_charge *c = charge_of(p->r, h->tenant);
        if (!may_take(p, h, own_only))
            continue;
        h->is_victim = true;
        *p->last = h;
        p->last = &h->next_victim;
        p->missing -= h->bytes < p->missing ? h->bytes : p->missing;
        if (c)
            c->planned += h->bytes;
    }
}

static void end_plan(struct plan *p, bool execute)
{
    struct registry *r = p->r;
    *p->last = NULL;
    for (struct holding *h = p->victims, *next; h; h = next) {
        struct tenant_charge *c = charge_of(r, h->tenant);
        next = h->next_victim;
        h->is_victim = false;
        h->next_victim = NULL;
        if (c)
            c->planned -= h->bytes;
        if (!execute)
            continue;
        r->n_evictions++;
        evict(r, h->entry, registry_record(&h->entry->a, h->generation));
    }
}

/* Its own version in service counts as in use: that is for the operator to know who replaces one. */
static enum status no_room(const struct plan *p, uint64_t bytes, uint64_t used, struct error *err)
{
    const struct adapter *a = &p->loading->a;
    const struct version_record *own = registry_record(a, a->stable);
    char beside[64] = "";
    if (own && own->version)
        snprintf(beside, sizeof beside, " beside the %llu of the version in service",
                 (unsigned long long)own->size_bytes);
    return fail(
        err, STATUS_FULL,
        "no room for adapter '%s' now: it takes %llu bytes%s, %llu of %llu are taken, and what could go "
        "is in use, pinned%s",
        a->wish.name, (unsigned long long)bytes, beside, (unsigned long long)used,
        (unsigned long long)p->r->o.resident_bytes, p->is_above ? " or within another tenant's share" : "");
}

enum status residency_make_room(struct registry *r, struct entry *e, uint64_t bytes, uint64_t tenant,
                                struct error *err)
{
    uint64_t budget = r->o.resident_bytes;
    if (bytes > BYTES_LIMIT || (budget && (bytes > budget || bytes + e->reserved_bytes > budget)))
        return fail(err, STATUS_TOO_LARGE,
                    "adapter '%s' takes %llu bytes of memory, more than all of the %llu for adapters "
                    "(--resident-memory)",
                    e->name, (unsigned long long)(bytes + e->reserved_bytes), (unsigned long long)budget);
    registry_sweep(r, r->now_ns);
    uint64_t used = r->resident_bytes + r->reserved_bytes;
    if (budget == 0 || used + bytes <= budget)
        return STATUS_OK;
    const struct tenant_charge *c = tenant ? charge_of(r, tenant) : NULL;
    size_t n_tenants = r->n_tenants + (tenant && !c);
    struct plan p = {.r = r,
                     .loading = e,
                     .tenant = tenant,
                     .share = n_tenants ? budget / n_tenants : budget,
                     .missing = used + bytes - budget,
                     .last = &p.victims};
    p.is_above = tenant && is_above_share(&p, tenant);
    if (p.is_above) {
        plan_queue(&p, PLACE_IDLE, true);
        plan_queue(&p, PLACE_KEPT, true);
    }
    plan_queue(&p, PLACE_IDLE, false);
    plan_queue(&p, PLACE_KEPT, false);
    bool enough = p.missing == 0;
    end_plan(&p, enough);
    return enough ? STATUS_OK : no_room(&p, bytes, used, err);
}

enum status registry_reserve(struct registry *r, struct adapter *a, uint64_t bytes, uint64_t tenant,
                             int64_t now_ns, struct error *err)
{
    struct entry *e = entry_of(a);
    registry_tick(r, now_ns);
    if (a->loading)
        return fail(err, STATUS_EXISTS, "adapter '%s' is being loaded already", e->name);
    enum status s = residency_make_room(r, e, bytes, tenant, err);
    if (s != STATUS_OK)
        return s;
    if (!charge(r, tenant, bytes))
        return fail(err, STATUS_NO_MEMORY, "adapter '%s': no memory for its load", e->name);
    a->loading = true;
    e->reserved_bytes = bytes;
    e->reserved_tenant = tenant;
    r->reserved_bytes += bytes;
    return STATUS_OK;
}

void reservation_end(struct registry *r, struct entry *e)
{
    r->reserved_bytes -= e->reserved_bytes;
    discharge(r, e->reserved_tenant, e->reserved_bytes);
    e->reserved_bytes = e->reserved_tenant = 0;
    e->a.loading = false;
}

void registry_usage(const struct registry *r, struct registry_usage *out)
{
    *out = (struct registry_usage){.resident_bytes = r->resident_bytes,
                                   .reserved_bytes = r->reserved_bytes,
                                   .budget_bytes = r->o.resident_bytes,
                                   .n_names = (uint32_t)r->n,
                                   .n_resident = r->n_resident,
                                   .n_retired = r->n_retired,
                                   .n_evictions = r->n_evictions,
                                   .n_loads = r->n_loads,
                                   .n_failed_loads = r->n_failed_loads};
}
