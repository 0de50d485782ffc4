/* Tenants, keys, usage and the log of changes in the state file (include/state.h), whose tables are all made
 * there. A change is on the disk when its call returns STATUS_OK, whole or not at all.
 *
 * Plain blocking code for a worker. Thread: any, one call at a time (tenant_keeper.c serialises them). It has
 * a connection of its own; SQLite makes its transactions and the adapters' wait for each other. */
#ifndef LK_TENANT_STORE_H
#define LK_TENANT_STORE_H

#include <stdint.h>

#include "base/error.h"
#include "request.h"
#include "tenants.h"

#define USAGE_VOICE_MAX 160U

struct tenant_store;

/* The file is there and of our form: state_open has seen to that. */
LK_MUST_USE enum status tenant_store_open(const char *path, struct tenant_store **out, struct error *err);
void tenant_store_close(struct tenant_store *s); /* NULL is fine */

/* What is kept. Texts are borrowed for the call; anything but STATUS_OK ends the walk and is returned. */
struct store_visitor {
    enum status (*tenant)(const char *name, const char *spec, int64_t created_ms, void *data,
                          struct error *err);
    enum status (*key)(const struct tenant_key *k, void *data, struct error *err);
    void *data;
};
LK_MUST_USE enum status tenant_store_load(struct tenant_store *s, const struct store_visitor *v,
                                          struct error *err);

/* One acknowledged change: of each part what isn't NULL. */
struct store_change {
    const char *tenant;           /* whose settings change */
    const char *spec;             /* as JSON; NULL: it goes, with its keys */
    const struct tenant_key *key; /* is added */
    const char *revoke;           /* this key's id */
    int64_t wall_ms;              /* of all of it */
    /* its line in the log of changes */
    const char *operation, *object, *by;
};
LK_MUST_USE enum status tenant_store_apply(struct tenant_store *s, const struct store_change *c,
                                           struct error *err);

/* ---- usage ---- */

/* What a key has used of a voice in an hour. */
struct usage_row {
    int64_t hour_ms; /* wall clock; begins at a full hour */
    char tenant[TENANT_NAME_MAX + 1], key[KEY_ID_LENGTH + 1];
    char voice[USAGE_VOICE_MAX + 1], version[USAGE_VOICE_MAX + 1];
    uint64_t n_requests, n_in, n_out, n_cached;
};
/* Which version served a request. Lines are added and, at the far end, forgotten; nothing changes one. */
#define SERVED_DIGEST_MAX 64U
struct served_row {
    int64_t id;    /* given by the store, rising */
    int64_t at_ms; /* wall clock, at its end */
    char request[REQUEST_ID_MAX + 1], client[PEER_TEXT_MAX];
    char tenant[TENANT_NAME_MAX + 1], key[KEY_ID_LENGTH + 1]; /* "": there are no tenants */
    char voice[USAGE_VOICE_MAX + 1], version[USAGE_VOICE_MAX + 1];
    char digest[SERVED_DIGEST_MAX + 1]; /* of the version, or of the sum: X-Adapter-Digest is its beginning */
    int64_t status;                     /* the answer's; 499: the client left */
    uint64_t n_in, n_out;
};

/* Adds all of it to what is there, or nothing. */
struct store_batch {
    const struct usage_row *usage;
    size_t n_usage;
    const struct served_row *served;
    size_t n_served;
    uint64_t served_rows_max; /* that are kept */
    int64_t served_from_ms;   /* older ones go */
};
LK_MUST_USE enum status tenant_store_add(struct tenant_store *s, const struct store_batch *b,
                                         struct error *err);
/* Forgets hours that began before. */
LK_MUST_USE enum status tenant_store_forget_usage(struct tenant_store *s, int64_t before_ms,
                                                  struct error *err);
/* Rows of hours that begin in [from_ms, to_ms), of one tenant or (NULL) all, in order; at most `limit`. */
struct usage_query {
    const char *tenant;
    int64_t from_ms, to_ms;
    uint32_t limit;
};
LK_MUST_USE enum status tenant_store_usage(struct tenant_store *s, const struct usage_query *q,
                                           void (*each)(const struct usage_row *row, void *data), void *data,
                                           struct error *err);

/* The last `limit` lines with an id below `before`, of [from_ms, to_ms), newest first; texts that aren't NULL
 * must be equal. */
struct served_query {
    const char *tenant, *key, *voice, *version, *request;
    int64_t from_ms, to_ms, before;
    uint32_t limit;
};
LK_MUST_USE enum status tenant_store_served(struct tenant_store *s, const struct served_query *q,
                                            void (*each)(const struct served_row *row, void *data),
                                            void *data, struct error *err);

/* ---- the log of changes, adapters' too ---- */

struct change_line {
    int64_t id, wall_ms;
    const char *operation, *object, *outcome, *by; /* borrowed for the call */
};
/* The last `limit` lines with an id below `before`, newest first. */
LK_MUST_USE enum status tenant_store_changes(struct tenant_store *s, int64_t before, uint32_t limit,
                                             void (*each)(const struct change_line *l, void *data),
                                             void *data, struct error *err);

#endif
