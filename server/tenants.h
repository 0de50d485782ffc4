/* Tenants and their keys in memory: who is behind a key, and which voices are whose. Pure bookkeeping: no
 * files, no requests. Owner: front thread.
 *
 * A tenant's settings come from the tenants file, or else from the state file; keys from both. A tenant
 * without settings is a name only (its file was changed, its keys are still kept): none of its keys is good
 * for anything.
 *
 * A key is a text "lk_" + id + "_" + 64 hex digits of 256 random bits. Only the SHA-256 of the text is kept;
 * it is what keys are found by, so that looking one up takes the same steps whoever it belongs to, or nobody.
 */
#ifndef LK_TENANTS_H
#define LK_TENANTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tenant_spec.h"
#include "tenant_window.h"

#define TENANTS_MAX 4096U
#define TENANT_KEYS_MAX 8192U /* of all tenants, revoked ones too */
#define KEYS_ACTIVE_MAX 2U    /* of one name of one tenant */
#define KEY_ID_LENGTH 12U
#define KEY_TEXT_LENGTH (3U + KEY_ID_LENGTH + 1U + 64U)

enum tenant_origin { FROM_STATE, FROM_FILE };

struct tenant {
    uint32_t refs; /* the table's, and each request's */
    char name[TENANT_NAME_MAX + 1];
    struct tenant_spec *specs[2]; /* by origin; or NULL */
    int64_t created_ms;           /* wall clock */
    uint32_t number; /* from 1; nobody else has it while the tenant or a request of it is there */
    /* what is used now */
    struct window requests_minute, requests_day, tokens_minute, tokens_day, loads_minute;
    uint64_t n_running;
    uint32_t n_keys[2];     /* by origin */
    uint32_t n_active_keys; /* of both */
    /* since the start */
    uint64_t n_requests, n_limited, n_tokens_in, n_tokens_out, n_tokens_cached;
    uint64_t waited_max_ns; /* the longest wait of a generation for its first step */
};

struct tenant_key {
    char id[KEY_ID_LENGTH + 1];
    char name[TENANT_NAME_MAX + 1]; /* what it is for; keys of one name replace each other */
    char tenant[TENANT_NAME_MAX + 1];
    uint8_t digest[32];
    int64_t created_ms, revoked_ms; /* wall clock; revoked_ms 0: active */
    enum tenant_origin origin;
};

/* What a tenants file says. */
struct tenants_file {
    struct tenant_spec **specs; /* [n] one reference each, in the order of names, none twice */
    size_t n;
    struct tenant_key *keys; /* [n_keys] */
    size_t n_keys;
};

struct tenants;

struct tenants *tenants_create(void); /* NULL: no memory */
void tenants_destroy(struct tenants *t);

/* Whether requests need a key: there is a tenant, or a key, or tenants_close was called. */
bool tenants_closed(const struct tenants *t);
void tenants_close(struct tenants *t);

size_t tenants_count(const struct tenants *t);
struct tenant *tenants_at(const struct tenants *t, size_t index); /* in the order of names */
struct tenant *tenants_find(const struct tenants *t, const char *name);
const struct tenant_spec *tenant_spec_of(const struct tenant *t); /* those in force, or NULL */
struct tenant *tenant_hold(struct tenant *t);
void tenant_release(struct tenants *all, struct tenant *t);

/* Sets (takes `spec`), or with NULL removes, what `origin` says of a tenant. created_ms: of a new one.
 * STATUS_FULL, STATUS_NO_MEMORY: nothing changed, and the spec is the caller's. */
LK_MUST_USE enum status tenants_put(struct tenants *t, const char *name, enum tenant_origin origin,
                                    struct tenant_spec *spec, int64_t created_ms, struct error *err);
/* How many tenants there are when tenants_put_file has put these in force; those that are gone but have
 * requests count. */
size_t tenants_with_file(const struct tenants *t, struct tenant_spec *const *specs, size_t n);
/* All that FROM_FILE says is this from now on. Every key's tenant is among those of the specs; there is room
 * for all (TENANTS_MAX, TENANT_KEYS_MAX), and no id or digest is another origin's. Takes the specs, leaving
 * NULL. STATUS_NO_MEMORY: nothing changed. */
LK_MUST_USE enum status tenants_put_file(struct tenants *t, struct tenants_file *f, int64_t created_ms,
                                         struct error *err);

/* ---- keys ---- */

/* A new text and its id: both random. False: the machine gives no random bytes. */
bool key_make(char text[KEY_TEXT_LENGTH + 1], char id[KEY_ID_LENGTH + 1]);
void key_digest(const char *text, uint8_t digest[32]);

size_t tenants_n_keys(const struct tenants *t);
const struct tenant_key *tenants_key_at(const struct tenants *t, size_t index); /* in no order */
const struct tenant_key *tenants_key(const struct tenants *t, const char *id);
/* The key of that origin with this one's id or digest, or NULL. */
const struct tenant_key *tenants_clash(const struct tenants *t, const struct tenant_key *k,
                                       enum tenant_origin origin);
uint32_t tenants_n_active(const struct tenants *t, const char *tenant, const char *name);
/* The oldest active key of a name that isn't the tenants file's, or NULL. */
const struct tenant_key *tenants_oldest(const struct tenants *t, const char *tenant, const char *name);
/* Adds a copy. STATUS_EXISTS: its id or digest is there; STATUS_FULL, STATUS_NO_MEMORY. */
LK_MUST_USE enum status tenants_add_key(struct tenants *t, const struct tenant_key *k, struct error *err);
void tenants_revoke(struct tenants *t, const char *id, int64_t wall_ms);
/* Forgets all keys of an origin, of one tenant or (NULL) of all. */
void tenants_drop_keys(struct tenants *t, enum tenant_origin origin, const char *tenant);

/* Who presents this text: its active key, of a tenant that has settings; or NULL. */
const struct tenant_key *tenants_check(const struct tenants *t, const char *text, struct tenant **tenant);

/* ---- voices ---- */

/* Whether `spec`'s tenant may use the voice of this name ("base": the base), which nobody need have. */
bool tenants_may_use(const struct tenants *t, const struct tenant_spec *spec, const char *name);

#endif
