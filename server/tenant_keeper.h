/* Brings tenants from the disk and back: the state file's at the start, the tenants file at the start and at
 * SIGHUP, changes and usage to the state file. Jobs run one at a time on a worker, in order; the front thread
 * goes on.
 *
 * Owner: front thread. */
#ifndef LK_TENANT_KEEPER_H
#define LK_TENANT_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "tenant_store.h"

struct completion;
struct server;
struct tenant_keeper;

/* One thing to do with the store. In the caller's memory until `done` has been called. */
struct keep_job {
    struct keep_job *next;
    /* Front, when its turn has come: what must hold now; may be NULL. */
    enum status (*prepare)(struct keep_job *j, struct error *err);
    /* Worker. */
    enum status (*work)(struct keep_job *j, struct tenant_store *store, struct error *err);
    /* Front; err is NULL if all went well. */
    void (*done)(struct keep_job *j, const struct error *err);
    enum status status;
    struct error err;
};

/* Reads what there is; before any listener is open. What can't be read is a reason not to start: nobody may
 * find an open server where tenants were meant. */
LK_MUST_USE enum status tenant_keeper_create(struct server *s, struct tenant_keeper **out, struct error *err);
void tenant_keeper_destroy(struct tenant_keeper *k); /* NULL is fine */

/* Whether there is a state file; without one every job ends with STATUS_UNSUPPORTED. */
bool tenant_keeper_keeps(const struct tenant_keeper *k);
void tenant_keeper_do(struct tenant_keeper *k, struct keep_job *j);
/* The tenants file again; a bad one leaves the one before in force, and the log says why. */
void tenant_keeper_reload(struct tenant_keeper *k);
/* Something is being written, or waits for it. */
bool tenant_keeper_busy(const struct tenant_keeper *k);
/* Once a second: usage goes to the disk every few seconds. `last`: at once. */
void tenant_keeper_tick(struct tenant_keeper *k, int64_t now_ns, bool last);

/* Adds to what `row`'s hour, tenant, key, voice and version have used; hour_ms is filled in here. Without a
 * state file it stays in memory, the newest USAGE_ROWS_MAX rows of it. */
#define USAGE_ROWS_MAX 4096U
void tenant_keeper_count(struct tenant_keeper *k, const struct usage_row *row);
/* The same as tenant_store_usage, of what is in memory where nothing is kept. */
LK_MUST_USE enum status tenant_keeper_usage(const struct tenant_keeper *k, const struct usage_query *q,
                                            void (*each)(const struct usage_row *row, void *data), void *data,
                                            struct error *err);

/* A request was served, for those who keep who served it (--served-log); at_ms is filled in here. */
void tenant_keeper_served(struct tenant_keeper *k, const struct served_row *row);
bool tenant_keeper_wants_served(const struct tenant_keeper *k);

/* A key that isn't good was shown by this client: a line in the log, one a second at most, with how many. */
void tenant_keeper_refused(struct tenant_keeper *k, const char *client, int64_t now_ns);
uint64_t tenant_keeper_n_refused(const struct tenant_keeper *k); /* since the start */

#endif
