/* Names, their versions, and what of them is in memory. Pure bookkeeping: it reads no file, starts no thread,
 * asks no clock (callers give `now_ns`, monotonic), so a simulation can drive it. Owner: front thread, no
 * locks.
 *
 *   registered   a name and where its files are: metadata only          registry_register
 *   loading      bytes are reserved, a worker reads                     registry_reserve
 *   resident     a version's packed A/B are in memory                   registry_publish
 *
 * A version is immutable: generation, digest, bytes. Its record (struct version_record) stays when its bytes
 * leave, and a later load of the same bytes is the same generation again. Whoever uses a version holds a
 * reference from registry_acquire and gives it back by registry_release, the one function for that, on every
 * path. What was replaced or removed stays held and counted until its last user is gone. */
#ifndef LK_REGISTRY_H
#define LK_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapters.h"
#include "base/error.h"

/* Records of a name; the oldest that is neither resident nor routed goes. */
#define REGISTRY_VERSIONS_MAX 16U
#define REGISTRY_SPLITS_MAX 4U
#define REGISTRY_CHANGES_MAX 4096U /* remembered for registry_changes */

enum merge_mode { MERGE_NEVER, MERGE_AUTO, MERGE_ALWAYS };

/* What an operator wishes of a name: where its files are and how they are treated. Plain data, which is what
 * is kept across restarts. Strings are borrowed by the functions that take it and copied. */
struct adapter_wish {
    const char *name;
    const char *source; /* path or URL; "" for a blend */
    const char *blend;  /* "pt+0.5*safety": an alias that has no files of its own; or "" */
    double scale;       /* user scale of the files, 1 by default */
    bool pinned;        /* never evicted */
    bool from_folder;   /* found in the watched folder: goes when it goes there */
    enum merge_mode merge;
    enum effect_mode effect;
};

/* What a shadow made of the tokens that were served: sums over replies. */
struct shadow_totals {
    uint64_t n_tokens, n_agree, n_served, n_failed; /* as in engine.h's shadow_score */
    uint64_t n_replies, n_dropped;
    double kl_sum;
};

/* A version, in memory or not. */
struct version_record {
    uint64_t generation; /* 1, 2, 3 … over all names; unique and rising */
    uint8_t digest[32];  /* of the files; with `scale` it is what makes the version */
    char digest_hex[65];
    uint64_t size_bytes; /* resident */
    uint32_t rank_max;
    int64_t published_wall_ms;
    char *source;    /* where its bytes came from */
    double scale;    /* with which they were loaded */
    int64_t used_ns; /* last acquired */
    /* One that isn't routed leaves memory then; INT64_MAX: a candidate, with the next publication. 0: routed.
     */
    int64_t keep_until_ns;
    uint64_t n_requests, n_failures; /* in this run */
    struct shadow_totals shadow;     /* the same */
    struct effect_report *effect;    /* of the test before it was published; NULL: none, or of another run */
    struct adapter_version *version; /* the registry's own reference; NULL: not resident */
};

/* The share of a name's requests that a generation gets; percents of a name sum to 100. */
struct traffic_split {
    uint64_t generation;
    uint32_t percent;
};

/* A name. Read-only outside the registry; borrowed until the name is removed. A version is routed if a
 * request that pins none may get it: the stable one, those of `splits`, the shadow. */
struct adapter {
    struct adapter_wish wish;       /* strings are the registry's */
    struct version_record *records; /* [n_records], newest first */
    uint32_t n_records;
    uint64_t stable;   /* current generation; 0: never loaded */
    uint64_t previous; /* the last good one, for rollback; 0: none */
    uint64_t shadow;   /* scores along with the stable one; 0: none */
    struct traffic_split splits[REGISTRY_SPLITS_MAX];
    uint32_t n_splits;       /* 0: all to stable */
    uint64_t revision;       /* of the name's last change but residency and failed loads: its ETag */
    uint64_t file_bytes;     /* of the source, as last seen; the estimate of a load; 0: unknown */
    uint64_t load_bytes;     /* what a load of such files was found to take; 0: unknown */
    bool loading;            /* one load at a time */
    enum status last_status; /* of the last load */
    char *last_error;        /* its text, or NULL */
    int64_t last_error_wall_ms;
};

struct registry;

enum change_kind {
    CHANGE_REGISTERED,
    CHANGE_PUBLISHED,
    CHANGE_LOADED_AGAIN, /* residency alone */
    CHANGE_EVICTED,      /* residency alone */
    CHANGE_FAILED,       /* a load; nothing else changed */
    CHANGE_ROLLED_BACK,
    CHANGE_TRAFFIC,
    CHANGE_SETTINGS, /* pinned, merge, effect, source, scale */
    CHANGE_REMOVED,
};
struct registry_change {
    uint64_t revision; /* 1, 2, 3 … over all names */
    enum change_kind kind;
    char name[ADAPTER_NAME_MAX + 1];
    uint64_t generation;
    char digest_hex[17]; /* first 8 bytes, or "" */
};

struct registry_options {
    uint32_t n_names_max;
    uint64_t resident_bytes; /* budget: versions (replaced ones in use too) and reservations; 0: no limit */
    int64_t keep_ns;         /* the last good version stays resident so long after its replacement */
    /* After each change; may be NULL. Must not change the registry. */
    void (*changed)(const struct registry_change *change, void *data);
    void *data;
};
struct registry *registry_create(const struct registry_options *o);
void registry_destroy(struct registry *r); /* every reference has been given back */

/* ---- names ---- */

/* Adds a name, or changes what is wished of it (its versions stay). A source or scale that differs takes
 * effect with the next load. *out may be NULL. STATUS_INVALID: no adapter name; STATUS_FULL: n_names_max. */
LK_MUST_USE enum status registry_register(struct registry *r, const struct adapter_wish *w,
                                          struct adapter **out, struct error *err);
struct adapter *registry_find(const struct registry *r, const char *name);
size_t registry_count(const struct registry *r);
struct adapter *registry_at(const struct registry *r,
                            size_t index); /* in order of names; NULL past the end */
/* Removes the name; its versions go when their last user is gone. STATUS_NOT_FOUND if absent;
 * STATUS_EXISTS while it is being loaded (the load ends first). */
LK_MUST_USE enum status registry_remove(struct registry *r, const char *name, struct error *err);
void registry_set_file_bytes(struct adapter *a, uint64_t file_bytes);
/* A load has found it to take so much: known until the files' size is another one. */
void registry_set_load_bytes(struct adapter *a, uint64_t load_bytes);

/* ---- which version ---- */

struct version_record *registry_record(const struct adapter *a, uint64_t generation); /* or NULL */
/* The generation that a request gets. pin: "" (follow the alias: stable, or by traffic: sticky_hash modulo
 * 10000 picks the share), "12" (a generation), or 8 to 64 hex digits (a digest's beginning); digits alone
 * that name a known generation are one. *generation 0: nothing was ever loaded, load first.
 * STATUS_NOT_FOUND: no such version; STATUS_INVALID: an ambiguous or malformed pin. Pure, a few dozen
 * steps. */
LK_MUST_USE enum status registry_choose(const struct adapter *a, const char *pin, uint64_t sticky_hash,
                                        uint64_t *generation, struct error *err);
/* A reference to the version if it is resident, else NULL: load it. */
struct adapter_version *registry_acquire(struct registry *r, struct adapter *a, uint64_t generation,
                                         int64_t now_ns);
/* The one way to give back what registry_acquire gave. `failed`: the version itself was at fault
 * (non-finite logits): counted. NULL is fine. */
void registry_release(struct registry *r, struct adapter_version *v, bool failed);

/* ---- loads ---- */

/* Takes `bytes` of the budget for a load of `a` and marks it as loading. Makes room as needed, all of it or
 * none, from versions that nobody uses, least recently used first: those whose time is over, then routed ones
 * and candidates, then last good ones. Never evicted for room are versions in use, the routed ones of pinned
 * names and of names with traffic or a shadow (their source has the bytes of one of them at most), and those
 * that `a` itself would serve should the load fail.
 *
 * `tenant` (0: the operator) is charged with what its requests load. While a tenant has loaded more than its
 * share (budget / tenants with charges, it among them), it evicts its own first, and never those of a tenant
 * that hasn't. STATUS_FULL: no room now (try again after a release); STATUS_TOO_LARGE: more than the whole
 * budget; STATUS_EXISTS: it is loading already (wait for that one). */
LK_MUST_USE enum status registry_reserve(struct registry *r, struct adapter *a, uint64_t bytes,
                                         uint64_t tenant, int64_t now_ns, struct error *err);
/* The load came to nothing: the reservation ends, the reason is kept and shown, nothing else changes. */
void registry_load_failed(struct registry *r, struct adapter *a, const struct error *why, int64_t wall_ms);

/* Nobody wants the load any more: the reservation ends, nothing else changes. */
void registry_load_dropped(struct registry *r, struct adapter *a);

enum publish_as {
    PUBLISH_STABLE, /* current from now on; the one before is the last good one */
    PUBLISH_CANARY, /* resident; gets traffic as registry_set_traffic says */
    PUBLISH_SHADOW, /* resident; scores along */
    /* Bytes of a known version come back. Other bytes than the stable one's become stable; other bytes than
     * an older one's are refused: asking for an old version must not publish a new one. */
    PUBLISH_AGAIN,
};
struct publication {
    enum publish_as as;
    uint64_t generation; /* AGAIN: the wanted one (0: the stable, or the first); out: what it has */
    const char *source;  /* where the bytes came from; NULL: as wished */
    bool unchanged;      /* out: these bytes were there in this role; `v` was released */
    struct adapter_version *version; /* out: the resident one; borrowed until the next change */
};
/* Ends a load that went well: takes v's reference (on success and on failure) and makes it resident in the
 * place of the reservation. Content that the name has already (digest and scale) keeps its generation. The
 * first version of a name is stable, whatever was asked for. A new stable version ends the traffic; the one
 * before is the last good one, and what was replaced earlier leaves at once. On failure v counts as a failed
 * load. STATUS_FULL: v is larger than estimated and there is no room; STATUS_TOO_LARGE: larger than the whole
 * budget; STATUS_UNAVAILABLE: AGAIN found other bytes. */
LK_MUST_USE enum status registry_publish(struct registry *r, struct adapter *a, struct adapter_version *v,
                                         struct publication *p, int64_t now_ns, struct error *err);

/* ---- an earlier run's ---- */

struct version_restored {
    uint64_t generation;
    const char *source; /* NULL: as wished */
    double scale;
    int64_t published_wall_ms;
};
/* A version from the kept state, without bytes; the counter of generations rises above it. Tells no change.
 */
LK_MUST_USE enum status registry_restore(struct registry *r, struct adapter *a,
                                         const struct version_restored *v, const uint8_t digest[32],
                                         struct error *err);
/* Roles of restored versions; an unknown generation counts as none. */
void registry_restore_roles(struct adapter *a, uint64_t stable, uint64_t previous, uint64_t shadow);
/* The highest numbers given out so far. */
void registry_counters(const struct registry *r, uint64_t *revision, uint64_t *generation);
/* After restoring: both go on above these. Earlier changes are forgotten, and names that have changed since
 * the start count as changed now: no revision of an earlier run is said again. */
void registry_set_counters(struct registry *r, uint64_t revision, uint64_t generation);

/* ---- operators ---- */

/* The previous version is stable again and the one that was becomes `previous`; traffic and shadow end.
 * STATUS_NOT_FOUND: none is known; STATUS_UNAVAILABLE: its bytes have left (AGAIN may bring them back). */
LK_MUST_USE enum status registry_rollback(struct registry *r, struct adapter *a, int64_t now_ns,
                                          struct error *err);
/* Percents sum to 100, generations are known and differ; n 0: all to stable. STATUS_INVALID,
 * STATUS_NOT_FOUND say which isn't. */
LK_MUST_USE enum status registry_set_traffic(struct registry *r, struct adapter *a,
                                             const struct traffic_split *splits, uint32_t n,
                                             struct error *err);
/* A canary or shadow becomes stable and traffic ends; the stable one itself: traffic ends. STATUS_NOT_FOUND,
 * STATUS_UNAVAILABLE as with rollback. */
LK_MUST_USE enum status registry_promote(struct registry *r, struct adapter *a, uint64_t generation,
                                         int64_t now_ns, struct error *err);
/* Adds to a version's account as a shadow; rows that weren't finite count as its failures. */
void registry_note_shadow(struct adapter *a, uint64_t generation, const struct shadow_totals *more);
void registry_end_shadow(struct registry *r, struct adapter *a);
void registry_set_pinned(struct registry *r, struct adapter *a, bool pinned);
/* Drops the name's bytes, pinned or not (in use: held until their users are gone, but nobody else gets them);
 * the name stays registered. */
void registry_evict(struct registry *r, struct adapter *a);
/* It is being loaded, or requests use its bytes: dropping them frees no memory yet. */
bool registry_in_use(const struct adapter *a);
/* Drops what was kept until now. Call once a second; registry_reserve does it too. */
void registry_sweep(struct registry *r, int64_t now_ns);

struct registry_usage {
    uint64_t resident_bytes, reserved_bytes, budget_bytes;
    uint32_t n_names;
    uint32_t n_resident; /* versions that requests may get */
    uint32_t n_retired;  /* dropped, but still in use: their bytes count */
    uint64_t n_evictions, n_loads, n_failed_loads;
};
void registry_usage(const struct registry *r, struct registry_usage *out);

/* ---- changes ---- */

const char *change_name(enum change_kind kind); /* "published" … */
uint64_t registry_revision(const struct registry *r);
/* Calls `each` for the remembered changes after revision `since`, oldest first; false if changes between were
 * forgotten, or `since` is no revision of this run: the caller should list everything again. */
bool registry_changes(const struct registry *r, uint64_t since,
                      void (*each)(const struct registry_change *c, void *data), void *data);

#endif
