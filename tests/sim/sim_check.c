/* What must hold after each step. The registry's numbers are counted again from its records and from who uses
 * what; evictions are judged by what the simulation knows of users, pins, shares and the order of use. */
#include <string.h>

#include "registry_inner.h"
#include "sim.h"

/* ---- versions that live: resident, or used by a request */

static void count_users(struct world *w)
{
    for (uint32_t i = 0; i < w->n_live; i++)
        w->live[i].resident = false, w->live[i].n_users = 0;
    for (uint32_t i = 0; i < w->n_live; i++) {
        struct live *x = &w->live[i];
        const struct adapter *a = registry_find(w->registry, sim_name(x->name));
        const struct version_record *v = a ? registry_record(a, x->generation) : NULL;
        x->resident = v && v->version == x->v;
    }
    for (const struct request *r = w->requests; r < w->requests + REQUESTS_MAX; r++) {
        uint32_t found = !r->version + !r->other;
        for (uint32_t i = 0; i < w->n_live && found < 2; i++) {
            uint32_t n = (w->live[i].v == r->version) + (w->live[i].v == r->other);
            w->live[i].n_users += n;
            found += n;
        }
        CHECK(w, found == 2, "request %llu uses a version that isn't there", (unsigned long long)r->arrival);
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->n_live; i++)
        if (w->live[i].resident || w->live[i].n_users)
            w->live[n++] = w->live[i];
    w->n_live = n;
}

static bool is_protected(const struct name_model *m)
{
    return m->pinned || m->n_splits || m->shadow;
}

static bool is_kept(const struct version_record *v)
{
    return v->keep_until_ns != 0 && v->keep_until_ns != INT64_MAX;
}

/* Since when each may be evicted; those that came to it in one step have no order among them. */
static void note_evictable(struct world *w)
{
    w->evictable_clock++;
    for (uint32_t i = 0; i < w->n_live; i++) {
        struct live *x = &w->live[i];
        const struct name_model *m = &w->models[x->name];
        const struct version_record *v =
            x->resident ? registry_record(sim_find(w, x->name), x->generation) : NULL;
        bool may = v && x->n_users == 0 && !is_kept(v) && !is_protected(m);
        if (may && (!x->evictable || v->n_requests != x->n_requests_seen))
            x->evictable_since = w->evictable_clock;
        x->evictable = may;
        x->n_requests_seen = v ? v->n_requests : 0;
    }
}

/* ---- who had to make room */

void check_before_room(struct world *w, struct room_check *c, uint64_t tenant)
{
    uint32_t n_tenants = 0;
    memset(c->charges, 0, sizeof c->charges);
    count_users(w);
    note_evictable(w);
    memcpy(c->before, w->live, w->n_live * sizeof w->live[0]);
    c->n_before = w->n_live;
    for (uint32_t i = 0; i < w->n_live; i++) {
        const struct live *x = &w->live[i];
        const struct name_model *m = &w->models[x->name];
        const struct version_record *v =
            x->resident ? registry_record(sim_find(w, x->name), x->generation) : NULL;
        c->how[i].resident = x->resident;
        c->how[i].routed = v && model_is_routed(m, x->generation);
        c->how[i].kept = v && is_kept(v);
        c->how[i].protected_ = v && is_protected(m) && !c->how[i].kept;
        c->how[i].expired = c->how[i].kept && v->keep_until_ns <= w->now_ns;
        if (!c->how[i].expired || x->n_users)
            c->charges[x->tenant] += x->bytes;
    }
    for (const struct load *l = w->loads; l < w->loads + LOADS_MAX; l++)
        c->charges[l->tenant] += l->reserved;
    for (uint32_t t = 1; t <= TENANTS_MAX; t++)
        n_tenants += c->charges[t] || t == tenant;
    c->share = n_tenants ? w->budget / n_tenants : w->budget;
    c->is_above = tenant && c->charges[tenant] > c->share;
}

static bool is_lost(struct world *w, const struct live *x)
{
    const struct version_record *v = registry_record(sim_find(w, x->name), x->generation);
    return !v || v->version != x->v;
}

static void judge(struct world *w, const struct room_check *c, uint32_t i, const struct load *l,
                  enum status s, bool is_publish)
{
    const struct live *x = &c->before[i];
    const struct name_model *m = &w->models[x->name];
    unsigned long long g = x->generation;
    bool own = x->name == l->name;
    if (c->how[i].expired)
        return;
    CHECK(w, s == STATUS_OK, "%s: no room was made, yet generation %llu left", sim_name(x->name), g);
    if (own && is_publish && !model_is_routed(m, g) && g != m->previous)
        return; /* the new publication has taken its place */
    CHECK(w, x->n_users == 0, "%s: generation %llu was evicted in use", sim_name(x->name), g);
    CHECK(w, !c->how[i].protected_, "%s: generation %llu was evicted though pinned or with traffic",
          sim_name(x->name), g);
    CHECK(w, !own || !c->how[i].routed, "%s: its load evicted its own generation %llu", sim_name(x->name), g);
    CHECK(w, !c->is_above || x->tenant == l->tenant || x->tenant == 0 || c->charges[x->tenant] > c->share,
          "%s: tenant %llu (%llu of %llu bytes) lost generation %llu to tenant %llu above its share",
          sim_name(x->name), (unsigned long long)x->tenant, (unsigned long long)c->charges[x->tenant],
          (unsigned long long)c->share, g, (unsigned long long)l->tenant);
}

/* Nobody left for nothing: without the last one there wasn't room. */
static void check_frugal(struct world *w, uint64_t largest)
{
    struct registry_usage u;
    registry_usage(w->registry, &u);
    CHECK(w, largest == 0 || u.resident_bytes + u.reserved_bytes + largest > w->budget,
          "more was evicted than there was need for");
}

static void check_full(struct world *w, const struct load *l, uint64_t could_go)
{
    struct registry_usage u;
    registry_usage(w->registry, &u);
    CHECK(w, u.resident_bytes + u.reserved_bytes + l->asked > w->budget + could_go,
          "%s: told that there is no room, but there was", sim_name(l->name));
}

void check_after_room(struct world *w, const struct room_check *c, const struct load *l, enum status s,
                      bool is_publish)
{
    uint64_t latest = 0, earliest = UINT64_MAX, could_go = 0, largest = 0;
    bool kept_went = false;
    for (uint32_t i = 0; i < c->n_before; i++) {
        const struct live *x = &c->before[i];
        if (!c->how[i].resident)
            continue;
        bool lost = is_lost(w, x), own = x->name == l->name, kept = c->how[i].kept;
        if (lost)
            judge(w, c, i, l, s, is_publish);
        if (lost && !c->how[i].expired && x->bytes > largest)
            largest = x->bytes;
        if (own && !kept)
            continue;
        if (x->evictable && lost && x->evictable_since > latest)
            latest = x->evictable_since;
        if (x->evictable && !lost && x->evictable_since < earliest)
            earliest = x->evictable_since;
        kept_went |= lost && kept && !own && !c->how[i].expired;
        if (!lost && (!c->is_above || x->tenant == l->tenant) && (x->evictable || (kept && x->n_users == 0)))
            could_go += x->bytes;
    }
    if (!is_publish && s == STATUS_OK)
        check_frugal(w, largest);
    if (!is_publish && s == STATUS_FULL)
        check_full(w, l, could_go);
    if (c->is_above)
        return;
    CHECK(w, latest <= earliest, "%s: room was made by one that was used later than another",
          sim_name(l->name));
    CHECK(w, !kept_went || earliest == UINT64_MAX, "%s: a last good version went before an unused one",
          sim_name(l->name));
}

/* ---- after each step */

uint64_t check_routable(struct world *w)
{
    uint64_t h = 1;
    for (uint32_t i = 0; i < w->n_names; i++) {
        const struct adapter *a = sim_find(w, i);
        if (!a)
            continue;
        h = sim_mix(sim_mix(sim_mix(h, a->stable), a->previous), sim_mix(a->shadow, a->revision));
        h = sim_mix(sim_mix(h, a->n_records), a->wish.pinned + 2U * a->n_splits);
        for (uint32_t j = 0; j < a->n_splits; j++)
            h = sim_mix(sim_mix(h, a->splits[j].generation), a->splits[j].percent);
        for (uint32_t j = 0; j < a->n_records; j++)
            h = sim_mix(sim_mix(h, a->records[j].generation), a->records[j].digest[0]);
    }
    return h;
}

static void check_sums(struct world *w)
{
    struct registry_usage u;
    uint64_t bytes = 0, reserved = 0, charges[TENANTS_MAX + 1] = {0};
    uint32_t n_resident = 0, n_retired = 0;
    registry_usage(w->registry, &u);
    for (const struct live *x = w->live; x < w->live + w->n_live; x++) {
        bytes += x->bytes;
        charges[x->tenant] += x->bytes;
        n_resident += x->resident;
        n_retired += !x->resident;
    }
    for (const struct load *l = w->loads; l < w->loads + LOADS_MAX; l++) {
        reserved += l->reserved;
        charges[l->tenant] += l->reserved;
    }
    CHECK(w, u.resident_bytes == bytes, "%llu bytes are counted, %llu are there",
          (unsigned long long)u.resident_bytes, (unsigned long long)bytes);
    CHECK(w, u.reserved_bytes == reserved, "%llu bytes are reserved, loads have %llu",
          (unsigned long long)u.reserved_bytes, (unsigned long long)reserved);
    CHECK(w, u.n_resident == n_resident && u.n_retired == n_retired,
          "%u resident and %u retired are counted, %u and %u are there", u.n_resident, u.n_retired,
          n_resident, n_retired);
    CHECK(w, w->budget == 0 || bytes + reserved <= w->budget, "%llu bytes of a budget of %llu",
          (unsigned long long)(bytes + reserved), (unsigned long long)w->budget);
    uint32_t n_charged = 0;
    for (uint32_t t = 1; t <= TENANTS_MAX; t++) {
        uint64_t known = 0;
        for (size_t i = 0; i < w->registry->n_tenants; i++)
            if (w->registry->tenants[i].tenant == t)
                known = w->registry->tenants[i].bytes;
        CHECK(w, known == charges[t], "tenant %u is charged with %llu bytes, has %llu", t,
              (unsigned long long)known, (unsigned long long)charges[t]);
        n_charged += known > 0;
    }
    CHECK(w, n_charged == w->registry->n_tenants, "charges of tenants that have nothing");
}

static void check_references(struct world *w)
{
    for (const struct live *x = w->live; x < w->live + w->n_live; x++) {
        uint32_t n_engine = 0;
        CHECK(w, atomic_load(&x->v->refs) == 1 + x->n_users,
              "%s: generation %llu has %u references, %u users", sim_name(x->name),
              (unsigned long long)x->generation, atomic_load(&x->v->refs), x->n_users);
        for (const struct request *r = w->requests; r < w->requests + REQUESTS_MAX; r++)
            n_engine += r->in_engine && r->lora == x->v->lora;
        CHECK(w, atomic_load(&x->v->lora->refs) == 1 + n_engine, "%s: its low-rank data has %u references",
              sim_name(x->name), atomic_load(&x->v->lora->refs));
    }
}

static void check_names(struct world *w)
{
    CHECK(w, w->last_revision == registry_revision(w->registry), "a change wasn't told");
    for (uint32_t i = 0; i < w->n_names; i++) {
        const struct adapter *a = sim_find(w, i);
        const struct name_model *m = &w->models[i];
        if (!a)
            continue;
        CHECK(w, a->stable == m->stable && a->previous == m->previous && a->shadow == m->shadow,
              "%s: stable %llu, previous %llu, shadow %llu; expected %llu, %llu, %llu", sim_name(i),
              (unsigned long long)a->stable, (unsigned long long)a->previous, (unsigned long long)a->shadow,
              (unsigned long long)m->stable, (unsigned long long)m->previous, (unsigned long long)m->shadow);
        CHECK(w, a->n_splits == m->n_splits && a->wish.pinned == m->pinned, "%s: traffic or pin",
              sim_name(i));
        for (uint32_t j = 0; j < m->n_splits; j++)
            CHECK(w,
                  a->splits[j].generation == m->splits[j].generation &&
                      a->splits[j].percent == m->splits[j].percent,
                  "%s: shares of traffic", sim_name(i));
        bool roles = a->stable == 0 || registry_record(a, a->stable);
        roles = roles && (a->previous == 0 || registry_record(a, a->previous));
        CHECK(w, roles && (a->shadow == 0 || registry_record(a, a->shadow)), "%s: a role without a record",
              sim_name(i));
        for (uint32_t j = 0; j < a->n_records; j++) {
            const struct version_record *v = &a->records[j];
            const struct generation_info *g = &w->generations[v->generation];
            CHECK(w, g->n_requests == v->n_requests && g->n_failures == v->n_failures,
                  "%s: generation %llu counts %llu requests and %llu failures", sim_name(i),
                  (unsigned long long)v->generation, (unsigned long long)v->n_requests,
                  (unsigned long long)v->n_failures);
        }
    }
}

static void check_pages(struct world *w)
{
    uint32_t users[SIM_PAGES_MAX] = {0}, n_free = 0, n_unused = 0, n_cached = 0;
    for (const struct request *r = w->requests; r < w->requests + REQUESTS_MAX; r++)
        for (uint32_t i = 0; i < r->n_pages; i++)
            users[r->pages[i]]++;
    for (uint32_t i = 0; i < kv_cache_n_pages(w->kv); i++) {
        uint32_t refs = kv_page_refs(w->kv, i);
        CHECK(w, prefix_cache_users(w->prefix)[i] == users[i], "page %u has %u users, %u holders", i,
              prefix_cache_users(w->prefix)[i], users[i]);
        CHECK(w, refs == users[i] || refs == users[i] + 1, "page %u has %u references, %u holders", i, refs,
              users[i]);
        n_cached += refs - users[i];
        n_unused += users[i] == 0;
        n_free += refs == 0;
    }
    CHECK(w,
          kv_cache_n_free(w->kv) == n_free && prefix_cache_n_pages(w->prefix) == n_cached &&
              prefix_cache_n_free(w->prefix) == n_unused,
          "pages got lost");
}

void check_all(struct world *w)
{
    count_users(w);
    note_evictable(w);
    check_sums(w);
    check_references(w);
    check_names(w);
    check_pages(w);
}

void check_rest(struct world *w)
{
    engine_flush_cache(w);
    check_all(w);
    for (const struct request *r = w->requests; r < w->requests + REQUESTS_MAX; r++)
        CHECK(w, r->state == REQUEST_NONE, "request %llu never ends", (unsigned long long)r->arrival);
    for (const struct live *x = w->live; x < w->live + w->n_live; x++)
        CHECK(w, x->n_users == 0 && x->resident, "%s: in use at rest", sim_name(x->name));
    CHECK(w, kv_cache_n_free(w->kv) == kv_cache_n_pages(w->kv), "pages are held at rest");
    w->n_rests++;
}
