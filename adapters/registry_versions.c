/* Records of versions and their roles: stable, the last good one, shares of traffic, shadow. A publication,
 * rollback or promotion is a number that changes; bytes follow by entry_settle (registry_residency.c). */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "registry_inner.h"

/* Whoever asks for an old version by its number finds it a while later, whatever keep_ns says. */
#define AGAIN_KEEP_NS 10000000000LL

struct version_record *registry_record(const struct adapter *a, uint64_t generation)
{
    for (uint32_t i = 0; i < a->n_records; i++)
        if (a->records[i].generation == generation)
            return &a->records[i];
    return NULL;
}

bool version_is_routed(const struct adapter *a, uint64_t generation)
{
    bool routed = generation == a->stable || generation == a->shadow;
    for (uint32_t i = 0; i < a->n_splits; i++)
        routed |= generation == a->splits[i].generation;
    return routed;
}

static void record_fini(struct version_record *v)
{
    mem_free(v->source);
    mem_free(v->effect);
}

void records_free(struct entry *e)
{
    for (uint32_t i = 0; i < e->a.n_records; i++)
        record_fini(&e->a.records[i]);
    mem_free(e->a.records);
    e->a.records = NULL;
    e->a.n_records = e->records_capacity = 0;
}

/* ---- records */

static void remove_record(struct registry *r, struct entry *e, uint32_t index)
{
    struct version_record *v = &e->a.records[index];
    uint64_t generation = v->generation;
    if (v->version) {
        holding_drop(r, v);
        registry_tell(r, e, CHANGE_EVICTED, generation);
    }
    record_fini(v);
    e->a.n_records--;
    memmove(v, v + 1, (e->a.n_records - index) * sizeof *v);
}

/* The record that goes when there are too many: the oldest without bytes and role, else the oldest without a
 * role. There is one: roles are fewer than records. */
static uint32_t least_record(const struct adapter *a)
{
    uint32_t least = UINT32_MAX, with_bytes = UINT32_MAX;
    for (uint32_t i = 0; i < a->n_records; i++) {
        const struct version_record *v = &a->records[i];
        if (version_is_routed(a, v->generation) || v->generation == a->previous)
            continue;
        if (v->version)
            with_bytes = i;
        else
            least = i;
    }
    return least != UINT32_MAX ? least : with_bytes;
}
_Static_assert(REGISTRY_SPLITS_MAX + 3 < REGISTRY_VERSIONS_MAX, "a record without a role");

static enum status reserve_record(struct registry *r, struct entry *e, struct error *err)
{
    struct adapter *a = &e->a;
    if (a->n_records == REGISTRY_VERSIONS_MAX)
        remove_record(r, e, least_record(a));
    if (a->n_records < e->records_capacity)
        return STATUS_OK;
    uint32_t capacity = e->records_capacity ? e->records_capacity * 2 : 1;
    struct version_record *more = mem_realloc(a->records, capacity * sizeof *more);
    if (!more)
        return fail(err, STATUS_NO_MEMORY, "adapter '%s': no memory for a version's record", e->name);
    a->records = more;
    e->records_capacity = capacity;
    return STATUS_OK;
}

/* In its place by age; NULL: no memory (the place was reserved, its text wasn't). */
static struct version_record *insert_record(struct entry *e, uint64_t generation, const uint8_t digest[32],
                                            double scale, const char *source)
{
    struct adapter *a = &e->a;
    char *text = mem_strdup(source ? source : a->wish.source);
    if (!text)
        return NULL;
    uint32_t i = 0;
    while (i < a->n_records && a->records[i].generation > generation)
        i++;
    struct version_record *v = &a->records[i];
    memmove(v + 1, v, (a->n_records - i) * sizeof *v);
    a->n_records++;
    *v = (struct version_record){.generation = generation, .source = text, .scale = scale};
    memcpy(v->digest, digest, sizeof v->digest);
    for (size_t j = 0; j < sizeof v->digest; j++)
        snprintf(v->digest_hex + 2 * j, 3, "%02x", digest[j]);
    return v;
}

/* The record of this content: of these files, read with this scale. */
static struct version_record *find_content(const struct adapter *a, const uint8_t digest[32], double scale)
{
    for (uint32_t i = 0; i < a->n_records; i++)
        if (memcmp(a->records[i].digest, digest, sizeof a->records[i].digest) == 0 &&
            a->records[i].scale == scale)
            return &a->records[i];
    return NULL;
}

/* ---- roles */

static void keep(struct registry *r, struct adapter *a, uint64_t generation)
{
    struct version_record *v = registry_record(a, generation);
    if (v && v->version)
        v->keep_until_ns = registry_time_after(r, r->o.keep_ns);
}

/* False if it is stable already. */
static bool set_stable(struct registry *r, struct adapter *a, uint64_t generation)
{
    uint64_t old = a->stable;
    if (old == generation)
        return false;
    a->stable = generation;
    a->previous = old;
    a->n_splits = 0;
    if (a->shadow == generation)
        a->shadow = 0;
    keep(r, a, old);
    return true;
}

/* What earlier publications left: all that has neither a role now nor is the last good one or `generation`.
 */
static void drop_older(struct registry *r, struct entry *e, uint64_t generation)
{
    for (uint32_t i = 0; i < e->a.n_records; i++) {
        struct version_record *v = &e->a.records[i];
        if (!v->version || v->generation == generation || v->generation == e->a.previous ||
            version_is_routed(&e->a, v->generation))
            continue;
        holding_drop(r, v);
        registry_tell(r, e, CHANGE_EVICTED, v->generation);
    }
}

/* Gives the version the role that its publication asks for. False if it has that already. */
static bool set_role(struct registry *r, struct adapter *a, const struct publication *p, uint64_t generation)
{
    struct version_record *v = registry_record(a, generation);
    if (a->stable == 0 || p->as == PUBLISH_STABLE)
        return set_stable(r, a, generation);
    if (p->as == PUBLISH_AGAIN) {
        bool follows = p->generation == a->stable; /* it was the stable one's bytes that were wanted */
        if (!version_is_routed(a, generation) && !follows)
            v->keep_until_ns =
                registry_time_after(r, r->o.keep_ns > AGAIN_KEEP_NS ? r->o.keep_ns : AGAIN_KEEP_NS);
        return follows && set_stable(r, a, generation);
    }
    if (p->as == PUBLISH_CANARY) {
        bool is_new = !version_is_routed(a, generation) && v->keep_until_ns != INT64_MAX;
        if (is_new)
            v->keep_until_ns = INT64_MAX;
        return is_new;
    }
    if (generation == a->stable || generation == a->shadow)
        return false;
    a->shadow = generation;
    return true;
}

/* ---- publications */

static uint64_t version_bytes(const struct adapter_version *v)
{
    return v->lora ? v->lora->size_bytes : 0;
}

/* Asking for one old version must not publish the new bytes that are in its place now, nor asking for the
 * stable one make a canary of it. */
static enum status check_again(const struct adapter *a, const struct publication *p,
                               const struct version_record *known, struct error *err)
{
    bool may_differ = p->generation == a->stable && a->n_splits == 0 && a->shadow == 0;
    if (p->as != PUBLISH_AGAIN || may_differ || (known && known->generation == p->generation))
        return STATUS_OK;
    return fail(err, STATUS_UNAVAILABLE,
                "adapter '%s': the bytes of generation %llu are gone, its source has others now",
                a->wish.name, (unsigned long long)p->generation);
}

static enum status room_beyond_reservation(struct registry *r, struct entry *e, uint64_t bytes,
                                           struct error *err)
{
    if (bytes <= e->reserved_bytes)
        return STATUS_OK;
    enum status s = residency_make_room(r, e, bytes - e->reserved_bytes, e->reserved_tenant, err);
    if (s != STATUS_OK)
        fail_within(err, "loaded with %llu bytes instead of the %llu that its files promised",
                    (unsigned long long)bytes, (unsigned long long)e->reserved_bytes);
    return s;
}

/* The record of bytes that aren't in memory yet. */
static enum status make_record(struct registry *r, struct entry *e, const struct adapter_version *v,
                               const char *source, struct version_record **out, struct error *err)
{
    enum status s = reserve_record(r, e, err);
    if (s != STATUS_OK)
        return s;
    *out = insert_record(e, r->generation + 1, v->digest, v->user_scale, source);
    return *out ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "adapter '%s': no memory for its record", e->name);
}

/* Takes v on success. `known`: its bytes have a generation already. */
static enum status add_bytes(struct registry *r, struct entry *e, struct adapter_version *v,
                             struct version_record *known, const char *source, struct error *err)
{
    struct version_record *record = known;
    enum status s = room_beyond_reservation(r, e, version_bytes(v), err);
    if (s == STATUS_OK && !known)
        s = make_record(r, e, v, source, &record, err);
    if (s != STATUS_OK)
        return s;
    if (!holding_create(r, e, record, v)) {
        if (!known)
            remove_record(r, e, (uint32_t)(record - e->a.records));
        return fail(err, STATUS_NO_MEMORY, "adapter '%s': no memory for its version", e->name);
    }
    if (!known)
        r->generation++;
    return STATUS_OK;
}

/* The same bytes from another place: the newer one is where to look for them again. */
static void note_source(struct version_record *v, const char *source)
{
    char *text = source && strcmp(source, v->source) != 0 ? mem_strdup(source) : NULL;
    if (!text)
        return;
    mem_free(v->source);
    v->source = text;
}

/* What the effect test found outlives the bytes: when they come back, they aren't tested again. v is still
 * the caller's alone. */
static void note_effect(struct version_record *record, struct adapter_version *v)
{
    bool tested = v->effect.outcome != EFFECT_UNTESTED;
    if (tested && !record->effect)
        record->effect =
            mem_zalloc(sizeof *record->effect); /* without memory the numbers go with the bytes */
    if (tested && record->effect)
        *record->effect = v->effect;
    else if (!tested && record->effect)
        v->effect = *record->effect;
}

static void end_load(struct registry *r, struct entry *e, enum status status, const char *text,
                     int64_t wall_ms)
{
    struct adapter *a = &e->a;
    reservation_end(r, e);
    mem_free(a->last_error);
    a->last_error = text ? mem_strdup(text) : NULL;
    a->last_status = status;
    a->last_error_wall_ms = text ? wall_ms : 0;
}

void registry_load_failed(struct registry *r, struct adapter *a, const struct error *why, int64_t wall_ms)
{
    end_load(r, entry_of(a), why->status, why->text, wall_ms);
    r->n_failed_loads++;
    registry_tell(r, entry_of(a), CHANGE_FAILED, a->stable);
}

void registry_load_dropped(struct registry *r, struct adapter *a)
{
    reservation_end(r, entry_of(a));
}

enum status registry_publish(struct registry *r, struct adapter *a, struct adapter_version *v,
                             struct publication *p, int64_t now_ns, struct error *err)
{
    struct entry *e = entry_of(a);
    struct error own;
    struct version_record *known = find_content(a, v->digest, v->user_scale);
    bool resident = known && known->version;
    require(!v->holding);
    registry_tick(r, now_ns);
    if (p->as == PUBLISH_AGAIN && p->generation == 0)
        p->generation = a->stable;
    enum status s = check_again(a, p, known, &own);
    if (s == STATUS_OK && !resident)
        s = add_bytes(r, e, v, known, p->source, &own);
    if (s != STATUS_OK) {
        registry_load_failed(r, a, &own, v->loaded_wall_ms);
        adapter_release(v);
        return fail(err, s, "%s", own.text);
    }
    known = find_content(a, v->digest, v->user_scale);
    note_effect(known, v);
    if (resident)
        adapter_release(v);
    note_source(known, p->source);
    end_load(r, e, STATUS_OK, NULL, 0);
    r->n_loads++;
    uint64_t generation = known->generation;
    bool has_role = set_role(r, a, p, generation);
    entry_settle(r, e);
    if (has_role)
        registry_tell(r, e, CHANGE_PUBLISHED, generation);
    else if (!resident)
        registry_tell(r, e, CHANGE_LOADED_AGAIN, generation);
    if (has_role)
        drop_older(r, e, generation);
    p->generation = generation;
    p->unchanged = resident && !has_role;
    p->version = registry_record(a, generation)->version;
    return STATUS_OK;
}

/* ---- operators */

static enum status check_resident(const struct adapter *a, uint64_t generation, struct error *err)
{
    const struct version_record *v = registry_record(a, generation);
    if (!v)
        return fail(err, STATUS_NOT_FOUND, "adapter '%s' has no generation %llu", a->wish.name,
                    (unsigned long long)generation);
    if (!v->version)
        return fail(err, STATUS_UNAVAILABLE,
                    "adapter '%s': generation %llu is no longer in memory; load it again first", a->wish.name,
                    (unsigned long long)generation);
    return STATUS_OK;
}

enum status registry_rollback(struct registry *r, struct adapter *a, int64_t now_ns, struct error *err)
{
    registry_tick(r, now_ns);
    if (a->previous == 0)
        return fail(err, STATUS_NOT_FOUND, "adapter '%s' has no earlier version to go back to", a->wish.name);
    enum status s = check_resident(a, a->previous, err);
    if (s != STATUS_OK)
        return s;
    a->shadow = 0;
    set_stable(r, a, a->previous);
    entry_settle(r, entry_of(a));
    registry_tell(r, entry_of(a), CHANGE_ROLLED_BACK, a->stable);
    return STATUS_OK;
}

enum status registry_promote(struct registry *r, struct adapter *a, uint64_t generation, int64_t now_ns,
                             struct error *err)
{
    registry_tick(r, now_ns);
    enum status s = check_resident(a, generation, err);
    if (s != STATUS_OK)
        return s;
    if (!set_stable(r, a, generation) && a->n_splits == 0)
        return STATUS_OK;
    a->n_splits = 0;
    entry_settle(r, entry_of(a));
    registry_tell(r, entry_of(a), CHANGE_PUBLISHED, generation);
    return STATUS_OK;
}

static enum status check_splits(const struct adapter *a, const struct traffic_split *splits, uint32_t n,
                                struct error *err)
{
    uint64_t sum = 0;
    if (n > REGISTRY_SPLITS_MAX)
        return fail(err, STATUS_INVALID, "adapter '%s': traffic for %u versions, expected at most %u",
                    a->wish.name, n, REGISTRY_SPLITS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        unsigned long long generation = splits[i].generation;
        sum += splits[i].percent;
        if (!registry_record(a, generation))
            return fail(err, STATUS_NOT_FOUND, "adapter '%s' has no generation %llu", a->wish.name,
                        generation);
        for (uint32_t j = 0; j < i; j++)
            if (splits[j].generation == generation)
                return fail(err, STATUS_INVALID, "adapter '%s': generation %llu has two shares of traffic",
                            a->wish.name, generation);
    }
    if (n && sum != 100)
        return fail(err, STATUS_INVALID, "adapter '%s': shares of traffic sum to %llu, expected 100",
                    a->wish.name, (unsigned long long)sum);
    return STATUS_OK;
}

enum status registry_set_traffic(struct registry *r, struct adapter *a, const struct traffic_split *splits,
                                 uint32_t n, struct error *err)
{
    enum status s = check_splits(a, splits, n, err);
    if (s != STATUS_OK)
        return s;
    bool all_stable = n == 1 && splits[0].generation == a->stable;
    n = all_stable ? 0 : n;
    bool same = n == a->n_splits;
    for (uint32_t i = 0; same && i < n; i++)
        same = a->splits[i].generation == splits[i].generation && a->splits[i].percent == splits[i].percent;
    if (same)
        return STATUS_OK;
    for (uint32_t i = 0; i < n; i++)
        a->splits[i] = splits[i];
    a->n_splits = n;
    entry_settle(r, entry_of(a));
    registry_tell(r, entry_of(a), CHANGE_TRAFFIC, a->stable);
    return STATUS_OK;
}

void registry_end_shadow(struct registry *r, struct adapter *a)
{
    uint64_t generation = a->shadow;
    if (generation == 0)
        return;
    a->shadow = 0;
    entry_settle(r, entry_of(a));
    registry_tell(r, entry_of(a), CHANGE_TRAFFIC, generation);
}

/* ---- an earlier run's */

enum status registry_restore(struct registry *r, struct adapter *a, const struct version_restored *v,
                             const uint8_t digest[32], struct error *err)
{
    struct entry *e = entry_of(a);
    unsigned long long generation = v->generation;
    if (generation == 0 || generation > INT64_MAX)
        return fail(err, STATUS_INVALID, "adapter '%s': %llu is no generation", e->name, generation);
    if (registry_record(a, generation) || find_content(a, digest, v->scale))
        return fail(err, STATUS_EXISTS, "adapter '%s' has generation %llu or its digest already", e->name,
                    generation);
    enum status s = reserve_record(r, e, err);
    struct version_record *record =
        s == STATUS_OK ? insert_record(e, generation, digest, v->scale, v->source) : NULL;
    if (s == STATUS_OK && !record)
        s = fail(err, STATUS_NO_MEMORY, "adapter '%s': no memory for its record", e->name);
    if (s != STATUS_OK)
        return s;
    record->published_wall_ms = v->published_wall_ms;
    if (generation > r->generation)
        r->generation = generation;
    return STATUS_OK;
}

void registry_restore_roles(struct adapter *a, uint64_t stable, uint64_t previous, uint64_t shadow)
{
    a->stable = registry_record(a, stable) ? stable : 0;
    a->previous = registry_record(a, previous) && previous != stable ? previous : 0;
    a->shadow = registry_record(a, shadow) && shadow != stable ? shadow : 0;
}
