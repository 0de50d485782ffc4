/* What changes adapters, and who waits for it: loads at start, from the watched folder, by the API and by
 * requests for a voice that isn't in memory. Owner: front thread; workers read, check and pack.
 *
 *   asked ─▶ waits its turn ─▶ look (worker: download, sizes) ─▶ room reserved ─▶ load (worker: read, check,
 *            (one at a time        │                             (waits, bounded)    pack, test the effect)
 *             for a name)          └─ a known local one skips it                        │
 *   answered ◀─ kept in the state file (worker) ◀─ published: one pointer ◀─────────────┘
 *
 * A failure at any point leaves the current version as it is, and the answer, the log, the metrics and the
 * adapter's last_error say why in the same words. */
#ifndef LK_ADAPTER_OPS_H
#define LK_ADAPTER_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapters.h"
#include "base/error.h"
#include "registry.h"

struct text_list;

struct server;
struct adapter_ops;

struct load_order {
    /* asked for; strings are copied */
    struct adapter_wish wish;
    enum publish_as as;
    uint64_t generation; /* AGAIN: this one, whose bytes must be what they were; 0: whatever is there */
    bool must_be_new;    /* refuse a name that exists */
    bool must_be_same;   /* refuse one that is gone by then, or is wished otherwise */
    bool has_revision;   /* the name's revision must be `revision` (0: it must not exist) */
    uint64_t revision;
    bool register_only; /* the name alone: its handler doesn't call adapter_ops_load */
    bool dry_run;       /* everything but publishing */
    bool required;      /* the server doesn't start without it */
    char sha256[65];    /* expected digest, or "" */
    uint64_t tenant;    /* is charged; 0: the operator */

    const char *by;                                 /* for the log: "start", "folder", "api", "request" */
    char who[64];                                   /* of the API: for the log of changes */
    void (*done)(struct load_order *o, void *data); /* may be NULL */
    void *data;
    /* what came of it */
    enum status status;
    struct error err;
    const char *code; /* of docs/ADMIN.md, where the status alone doesn't tell; or NULL */
    struct effect_report effect;
    bool unchanged, created, replaced;
    uint64_t generation_now;
    struct adapter_version *version; /* borrowed during `done`; or NULL */
};

LK_MUST_USE enum status adapter_ops_create(struct server *s, struct adapter_ops **out, struct error *err);
void adapter_ops_close(struct adapter_ops *o); /* its handle */
void adapter_ops_destroy(
    struct adapter_ops *o); /* when nothing is active and the loop has closed the handle */
bool adapter_ops_busy(const struct adapter_ops *o);
/* Forgets what waits, telling who asked; what a worker is at now still comes to its end. */
void adapter_ops_stop(struct adapter_ops *o);
/* Once a second: waits that are over, versions kept long enough. */
void adapter_ops_tick(struct adapter_ops *o, int64_t now_ns);

/* Registers the base's own adapters: the command line's, the kept state's, the folder's. */
LK_MUST_USE enum status adapter_ops_start(struct adapter_ops *o, struct error *err);

/* Copies the order into the queue; `done` follows exactly once after STATUS_OK. STATUS_FULL beyond the
 * configured number (unless it is the server's own). */
LK_MUST_USE enum status adapter_ops_load(struct adapter_ops *o, const struct load_order *order,
                                         struct error *err);

/* A request that waits for a version's bytes. Embedded in its owner; `ready` is called once, with STATUS_OK
 * when the version is (or was a moment ago) resident: ask again. */
struct load_waiter {
    struct load_waiter *next;
    char name[ADAPTER_NAME_MAX + 1];
    void (*ready)(struct load_waiter *w, const struct error *err);
};
/* Joins the load of a name's generation (0: the first), or begins it. Concurrent waiters share one load. */
LK_MUST_USE enum status adapter_ops_wait(struct adapter_ops *o, struct load_waiter *w, const char *name,
                                         uint64_t generation, uint64_t tenant, struct error *err);

/* adapter_ops_wait would join a load, and begin none. */
bool adapter_ops_joins(const struct adapter_ops *o, const char *name, uint64_t generation);

/* Memory that a load of its generation (0: a new one) takes: what it took before, or its files' size; 0:
 * nobody has looked yet. */
uint64_t adapter_ops_bytes(const struct adapter *a, uint64_t generation);
/* The same of all loads that are on their way, whoever asked for them, of names that match. */
uint64_t adapter_ops_coming(const struct adapter_ops *o, const struct text_list *names);
/* Of those the ones whose memory is reserved, but the one of `but`. */
uint64_t adapter_ops_reserved(const struct adapter_ops *o, const struct text_list *names, const char *but);

/* Looks at the adapters folder: registers what is new, loads again what changed and is in memory, takes away
 * what came from it and is gone. Names that were made otherwise are left alone. */
void adapter_ops_scan(struct adapter_ops *o);

/* A line of the state file's log of changes. */
struct keep_note {
    const char *operation; /* "load", "rollback" …, there until it's done; NULL: no line */
    const char *by;        /* who asked; copied */
    uint64_t generation;   /* what it is about; 0: the stable one */
    /* Copied. The line alone, which says this: of what was refused, or is no change of the name's. NULL: a
     * change. */
    const char *outcome;
};
/* Keeps what the registry now says of a name (or that it is gone) in the state file, then calls done (NULL:
 * nobody waits, and the server's log tells a failure). Without a state file at once. */
void adapter_ops_keep(struct adapter_ops *o, const char *name, const struct keep_note *note,
                      void (*done)(enum status s, const struct error *err, void *data), void *data);
bool adapter_ops_keeps(const struct adapter_ops *o); /* there is a state file */

/* After a version of the name was at fault for a reply: a stable one that fails too often gives way to the
 * previous one, a canary loses its traffic, a shadow ends. */
void adapter_ops_judge(struct adapter_ops *o, const char *name);

/* After a release, room may have come free for those who wait. */
void adapter_ops_room(struct adapter_ops *o);

/* Whether an operator may name this source over the API: inside a root, or an allowed URL. *code as in
 * load_order. */
LK_MUST_USE enum status adapter_ops_check_source(const struct adapter_ops *o, const char *source,
                                                 const char **code, struct error *err);

#endif
