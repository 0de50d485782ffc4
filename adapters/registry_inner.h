/* What the files of the registry share: registry.c (names, pins, changes), registry_versions.c (records and
 * roles), registry_residency.c (bytes: who is in memory, who makes room, who is charged). */
#ifndef LK_REGISTRY_INNER_H
#define LK_REGISTRY_INNER_H

#include "registry.h"

struct holding;

struct entry {
    struct adapter a; /* first: an adapter's address is its entry's */
    char name[ADAPTER_NAME_MAX + 1];
    char *texts; /* source and blend, one block */
    uint32_t records_capacity;
    uint64_t reserved_bytes, reserved_tenant; /* of the load that runs */
};

/* On which queue a version in memory waits for its end. */
enum holding_place {
    PLACE_NONE, /* in use, pinned, or dropped */
    PLACE_IDLE, /* may go when room is needed: least recently used first */
    PLACE_KEPT, /* isn't routed: goes at its time, or when nothing else makes room */
    PLACE_COUNT,
};

/* A version in memory, from its publication to the last use of it: what is counted. */
struct holding {
    struct holding *next, *before; /* in its queue */
    struct holding *next_victim;   /* while room is planned */
    bool is_victim;
    enum holding_place place;
    struct entry *entry; /* NULL: dropped; its record has other bytes, none, or is gone */
    uint64_t generation;
    struct adapter_version *version; /* a reference */
    uint64_t bytes, tenant;
    uint32_t n_users;
};

struct holding_queue {
    struct holding *first, *last; /* first: longest here */
};

struct tenant_charge {
    uint64_t tenant;
    uint64_t bytes;   /* resident, held and reserved */
    uint64_t planned; /* of them are to be evicted */
};

struct registry {
    struct registry_options o;
    struct entry **entries; /* [n] in order of names */
    size_t n, capacity;
    uint64_t generation, revision; /* the last ones given out */
    int64_t now_ns;                /* the latest that a caller gave */
    /* residency */
    struct holding_queue queues[PLACE_COUNT];
    int64_t keep_min_ns; /* no kept version's time is over before */
    struct tenant_charge *tenants;
    size_t n_tenants, tenants_capacity;
    uint64_t resident_bytes, reserved_bytes;
    uint32_t n_resident, n_retired;
    uint64_t n_evictions, n_loads, n_failed_loads;
    /* the last changes: the one with revision n is at n modulo REGISTRY_CHANGES_MAX */
    uint64_t forgotten; /* the newest revision that isn't there any more */
    struct registry_change changes[REGISTRY_CHANGES_MAX];
};

static inline struct entry *entry_of(struct adapter *a)
{
    return (struct entry *)a;
}

/* ---- registry.c */

/* Counts a change and tells it; the name's own revision moves unless only its residency changed or a load
 * failed. Call when the registry is whole again. */
void registry_tell(struct registry *r, struct entry *e, enum change_kind kind, uint64_t generation);
/* Time doesn't go back. */
void registry_tick(struct registry *r, int64_t now_ns);
/* A version's keep_until_ns: neither 0 nor INT64_MAX, which mean something else. */
int64_t registry_time_after(const struct registry *r, int64_t ns);

/* ---- registry_versions.c */

bool version_is_routed(const struct adapter *a, uint64_t generation);
void records_free(struct entry *e);

/* ---- registry_residency.c */

/* The record's bytes are in memory from now on: takes v's reference, and the reservation's tenant is charged.
 * False: no memory, nothing was taken. Call entry_settle next. */
bool holding_create(struct registry *r, struct entry *e, struct version_record *record,
                    struct adapter_version *v);
/* Nobody gets this record's bytes from now on; they go when their last user does. Tells nothing. */
void holding_drop(struct registry *r, struct version_record *v);
/* Puts the name's versions into the queues where its pins, traffic and roles want them, and gives those that
 * have just lost their role a time to go. */
void entry_settle(struct registry *r, struct entry *e);
/* Room for `bytes` more, by evictions; all or nothing. */
LK_MUST_USE enum status residency_make_room(struct registry *r, struct entry *e, uint64_t bytes,
                                            uint64_t tenant, struct error *err);
/* Ends the reservation of e's load, whatever came of it. */
void reservation_end(struct registry *r, struct entry *e);

#endif
