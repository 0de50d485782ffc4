/* Desired state that survives a restart: which names exist, what operators wish of them, which version is
 * stable, how traffic is split, and how far the counters are; with a log of who changed what. Kept in one
 * SQLite file (write-ahead log, synchronous=FULL): a change is on the disk when state_apply returns
 * STATUS_OK, and after a crash at any moment each change is there whole or not at all.
 *
 * Plain blocking code for a worker. Thread: any, one call at a time (the caller serialises them). */
#ifndef LK_STATE_H
#define LK_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "registry.h"

#define STATE_SOURCE_MAX 4096U /* bytes of a source or blend */
#define STATE_AUDIT_MAX 10000U /* lines of the log of changes; older ones go */
/* Revisions of a run begin at a multiple of this: residency changes count revisions too and aren't kept, so a
 * later run must begin above whatever an earlier one may have shown. */
#define STATE_REVISIONS_A_RUN UINT64_C(1000000000)
/* Generations, too, are given out that no change keeps (a request loads changed files, the folder's names): a
 * run begins above a multiple of this that no earlier one has reached, and says so before it gives out any
 * beyond. */
#define STATE_GENERATIONS_A_RUN UINT64_C(1000)

struct state;

struct state_version {
    uint64_t generation;
    uint8_t digest[32];
    const char *source; /* where these bytes came from; "" or NULL in a change keeps what is known */
    double scale;       /* with which they were loaded */
    int64_t published_wall_ms;
};

/* A name as it is. Strings are borrowed. */
struct state_name {
    struct adapter_wish wish;
    uint64_t stable, previous, shadow; /* generations; 0: none */
    uint64_t revision;                 /* of the name's last change */
    /* What the server's command line had as the name's source when this was kept; "" or NULL: not there.
     * While it says the same, what was changed since wins over it. */
    const char *start_source;
    struct state_version versions[REGISTRY_VERSIONS_MAX];
    uint32_t n_versions;
    struct traffic_split splits[REGISTRY_SPLITS_MAX];
    uint32_t n_splits; /* 0: all to stable */
};

struct state_counters {
    uint64_t revision, generation; /* the highest that were given out */
};

/* One name's part of a change: put, or remove, or neither: then only its line in the log is written. */
struct state_change {
    const char *name;
    const struct state_name *put; /* the name is like this from now on, whatever was kept of it before */
    bool remove;                  /* this name is gone; fine if it was never there */

    /* The line: which generation was stable before, and which it is about now, with its digest, come from
     * what is kept and what is put. Texts longer than 1000 bytes are cut. */
    const char *operation; /* "load", "rollback" …; NULL: no line */
    const char *by;        /* who asked: "uid 1000", an address, "start" …; may be NULL */
    uint64_t generation;   /* what it is about; 0: the stable one */
    const char *outcome;   /* NULL: "ok"; or why it was refused */
};

/* A line of the log. */
struct state_audit {
    int64_t wall_ms;
    const char *operation, *name;
    uint64_t old_generation, new_generation; /* 0: none */
    const char *digest;                      /* hex, or "" */
    const char *outcome, *by;
};

/* Opens the file, or makes it (mode 0600), and holds FILE.lock until state_close or the process's end.
 * STATUS_CONFLICT: another server has it open; STATUS_FORMAT: damaged, or no state of ours (it is left as it
 * is); STATUS_UNSUPPORTED: written by a newer Lorikeet; STATUS_IO: can't be read or written. */
LK_MUST_USE enum status state_open(const char *path, struct state **out, struct error *err);
void state_close(struct state *s); /* NULL is fine */

/* What is kept: each name in order, then *counters, with which this run goes on. `each` may be NULL; it
 * borrows its name for the call, and anything but STATUS_OK ends the walk and is returned. Values are
 * checked: STATUS_FORMAT names table, name and column. */
LK_MUST_USE enum status state_load(struct state *s, struct state_counters *counters,
                                   enum status (*each)(const struct state_name *n, void *data,
                                                       struct error *err),
                                   void *data, struct error *err);

/* One transaction for one acknowledged operation, or for several that come at once: all changes with their
 * lines, and the counters (which never go down; NULL: as they are). On any failure nothing of it is kept, and
 * it may be tried again. STATUS_IO: disk full or failing; STATUS_INVALID: a value that state_load would
 * refuse. */
LK_MUST_USE enum status state_apply(struct state *s, const struct state_change *changes, size_t n,
                                    const struct state_counters *counters, struct error *err);

/* The log's last `limit` lines, newest first; texts are borrowed for the call. */
LK_MUST_USE enum status state_audit_each(struct state *s, uint32_t limit,
                                         void (*each)(const struct state_audit *a, void *data), void *data,
                                         struct error *err);

/* A copy of its own (strings included) of how a name is in the registry, to hand to a worker: the front
 * thread makes it, anyone frees it. NULL when memory is short. */
struct state_name *state_name_of(const struct adapter *a);
void state_name_destroy(struct state_name *n); /* NULL is fine */

#endif
