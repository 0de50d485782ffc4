/* What the files of adapter_ops share. */
#ifndef LK_ADAPTER_OPS_INNER_H
#define LK_ADAPTER_OPS_INNER_H

#include <uv.h>

#include "adapter_ops.h"
#include "adapter_roots.h"
#include "sources.h"

enum task_kind { TASK_LOAD, TASK_SCAN };
enum task_phase {
    PHASE_QUEUED, /* behind another task of its name, or for a worker */
    PHASE_LOOK,   /* a worker fetches it and sums up its files */
    PHASE_ROOM,   /* the budget has no room yet */
    PHASE_LOAD,   /* a worker reads, checks, packs */
    PHASE_KEEP,   /* published; the state file has it next */
};

/* Names found in the folder. */
struct found {
    struct found *next;
    char name[ADAPTER_NAME_MAX + 1];
    uint64_t file_bytes;
    uint64_t signature; /* changes when a file does */
    char path[];
};

struct task {
    struct task *next;
    struct adapter_ops *ops;
    enum task_kind kind;
    enum task_phase phase;
    struct load_order o; /* its strings are these: */
    char *name, *source, *blend;
    struct adapter_wish before; /* the name's settings when it came; its strings aren't looked at */
    bool registered;            /* it made the name, which nobody has changed: a failure takes it away */
    bool reserved;              /* the registry counts on registry_publish or registry_load_failed */
    int root_fd;                /* of the path */
    const char *path;           /* points into the source or fetched */
    struct fetched fetched;     /* local copy of a remote one */
    uint64_t file_bytes;        /* the worker's that looks */
    uint64_t bytes;             /* to be reserved: of its files, or what it took once; 0: not known yet */
    char published_sha256[65];  /* such bytes were published before and need no other test; or "" */
    int64_t room_deadline_ns;
    struct adapter_version *version; /* of the worker's; moves into the registry */
    struct load_waiter *waiters;
    struct found *found; /* of a scan */
    size_t n_found;
};

struct adapter_ops {
    struct server *server;
    struct adapter_roots *roots;
    struct task *first, **last; /* all tasks, in order of arrival */
    size_t n_tasks, n_working, n_fetching;
    bool stopping;
    uv_timer_t kick;       /* the queue is looked at */
    struct found *folder;  /* what the last scan found, in order of names */
    struct keeper *keeper; /* adapter_ops_keep.c */
    bool *edited; /* [conf->n_adapters]: the command line says something else than when it was kept */
};

/* adapter_ops.c */
struct task *ops_append(struct adapter_ops *o, enum task_kind kind); /* NULL: no memory */
void ops_next(struct adapter_ops *o);
void ops_remove_task(struct adapter_ops *o, struct task *t);
struct task *ops_append_order(struct adapter_ops *o, const struct load_order *order, struct error *err);

/* adapter_ops_wait.c */
bool ops_is_for_request(const struct task *t);

/* adapter_ops_publish.c */
/* Somebody has changed, or removed, a name: what a load has made of it isn't the load's any more. */
void ops_disown(struct adapter_ops *o, const char *name);
/* The order's condition still holds, or STATUS_EXISTS, STATUS_CONFLICT. a: the name, or NULL. */
LK_MUST_USE enum status ops_check_revision(const struct task *t, const struct adapter *a, struct error *err);
/* What the server loads by itself follows the wish, and an operator has another one by now: true, the load is
 * forgotten, whatever came of it, and its status is set. Requests that wait for a name's first version find
 * STATUS_OK and look again. */
bool ops_is_overtaken(struct task *t);
/* Ends the reservation; what a worker has loaded is the registry's, or gone. STATUS_FULL: it took more bytes
 * than were reserved, which are in t->bytes now. */
LK_MUST_USE enum status ops_publish(struct task *t);

/* adapter_ops_scan.c */
void ops_run_scan(struct task *t); /* thread: worker */
void ops_scanned(struct task *t);  /* thread: front */
void ops_free_found(struct found *list);
/* The operator's own path of this name: not confined to the roots. */
bool ops_is_own_source(const struct adapter_ops *o, const struct adapter_wish *w);

/* adapter_ops_keep.c */
LK_MUST_USE enum status ops_keeper_open(struct adapter_ops *o, struct error *err);
void ops_keeper_close(struct adapter_ops *o);
bool ops_is_keeping(const struct adapter_ops *o);
void ops_keeper_tick(struct adapter_ops *o); /* once a second */
/* Names of the state file into the registry. */
LK_MUST_USE enum status ops_restore(struct adapter_ops *o, struct error *err);

#endif
