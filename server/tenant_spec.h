/* What an operator has decided for a tenant, read from one JSON object: the body of the operators' API, a row
 * of the state file and an entry of the tenants file are all of this form, and checked by this file alone.
 *
 * Immutable once made; its memory is one arena. Counted by its users on the front thread; a worker may read
 * it while the front thread holds a reference. */
#ifndef LK_TENANT_SPEC_H
#define LK_TENANT_SPEC_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "api_render.h"
#include "base/arena.h"
#include "base/error.h"

#define TENANT_NAME_MAX 64U     /* as adapters' names: adapter_name_is_valid */
#define TENANT_LIST_MAX 256U    /* entries of one list */
#define TENANT_TEXT_MAX 16384U  /* bytes of a system prompt */
#define TENANT_PATTERN_MAX 128U /* bytes of a pattern, in which at most 4 '*' stand for any characters */
#define TENANT_SPEC_MAX 65536U  /* bytes of the whole as JSON */
#define LIMIT_NONE UINT64_MAX

struct text_list {
    const char **items;
    uint32_t n;
};

struct tenant_alias {
    const char *name, *voice; /* voice: an expression (voice_expr.h) */
};

struct tenant_spec {
    uint32_t refs;
    uint32_t tenant; /* its number (tenants.h), from when it is in force on; 0 before */
    struct arena *arena;
    const char *name;
    json_t *json;      /* as it was given */
    const char *text;  /* the same, written out */
    bool names_voices; /* `voices` is given: no others */
    struct text_list voices, own_voices, locked, endpoints;
    const char *default_voice, *always, *system_prompt, *cache_group; /* or NULL */
    struct tenant_alias *aliases;
    uint32_t n_aliases;
    const json_t *sampling; /* defaults; NULL: none */
    bool batch;             /* served behind those who wait for an answer */
    double weight;          /* of its share, 1 by default */
    uint64_t requests_minute, requests_day, tokens_minute, tokens_day; /* LIMIT_NONE: no limit */
    uint64_t concurrent, loads_minute;
    uint64_t resident_bytes; /* of own voices in memory */
    double kv_share;         /* of the KV memory, for what runs; 1: all */
    uint32_t context;        /* tokens of a sequence; UINT32_MAX: the server's */
};

/* STATUS_INVALID and others name the field in `f`. *out has one reference. Thread: any. */
LK_MUST_USE enum status tenant_spec_parse(const char *name, const json_t *json, struct tenant_spec **out,
                                          struct fault *f);
struct tenant_spec *tenant_spec_hold(struct tenant_spec *s);
void tenant_spec_release(struct tenant_spec *s); /* NULL is fine */

bool text_list_has(const struct text_list *l, const char *text);
bool text_list_matches(const struct text_list *l, const char *text); /* one of its patterns does */
/* What the tenant calls so, or NULL. */
const char *tenant_spec_alias(const struct tenant_spec *s, const char *name);
bool tenant_spec_allows_path(const struct tenant_spec *s, const char *path);

/* Brings the tenant's own into a request's body, before anything of it is read: sampling defaults where the
 * caller says nothing. STATUS_INVALID, code "locked": the caller says another value of a field that is
 * locked. Thread: any that alone has `body`. */
LK_MUST_USE enum status tenant_spec_apply(const struct tenant_spec *s, json_t *body, struct fault *f);
/* The system prompt, in front of a chat's. */
LK_MUST_USE enum status tenant_spec_apply_system(const struct tenant_spec *s, json_t *body, struct fault *f);

#endif
