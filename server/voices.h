/* Voices: how a request's words for "who shall speak" become the base, a version of an adapter, or a weighted
 * sum of several. Names are looked up once, when a request is admitted; from then on it holds versions and no
 * name matters any more. An unknown name is never answered by the base.
 *
 *   words → terms (name, pin, weight) → versions, a reference to each → one lora
 *
 * Owner: front thread. */
#ifndef LK_VOICES_H
#define LK_VOICES_H

#include "adapters.h"
#include "api_render.h"
#include "voice_expr.h"
#include "voice_params.h"

struct request;
struct server;
struct voices;
struct adapter;

/* One adapter of a voice. */
struct voice_member {
    struct voice_term term;
    bool always;                     /* the server's own, beside what was asked for */
    uint64_t generation;             /* 0: not chosen yet, or nothing was ever loaded */
    struct adapter_version *version; /* a reference; NULL: not bound yet */
};

struct voice {
    const char *shown;       /* `model` of the answer: as the client named it */
    const char *adapter;     /* what was asked for, canonical ("pt+0.5*safety"); NULL: the base */
    const char *always;      /* what the server adds to it; NULL: nothing */
    const char *generations; /* of the members, with commas; "0" for the base */
    const char *label;       /* for metrics: a name, "" for the base, "(blend)" for a sum that has no name */
    uint64_t tenant;         /* the tenant, or without any of the Authorization header; 0: none */
    uint64_t sticky;         /* what traffic shares are picked by, but for the adapter's name */
    uint32_t n_members;      /* in the order of their names, the server's own last */
    struct voice_member members[LORA_MEMBERS_MAX];
    const struct voice_member *missing; /* with STATUS_UNAVAILABLE: whose bytes must be loaded first */
    struct lora *lora;                  /* a reference; NULL: the base */
    struct adapter_version *shadow;     /* scores along; a reference, or NULL */
    struct lora *shadow_lora;           /* the voice with it; a reference, or NULL */
    char fingerprint[24];               /* system_fingerprint: base, adapters and arithmetic */
};

/* `always`: what is added to every voice, or NULL; checked by voices_start. NULL: no memory. */
struct voices *voices_create(void);
void voices_destroy(struct voices *v);
/* When the adapters of the start are registered: registers the configuration's blends, checks that what is
 * always added exists, numbers the adapters. An error is a reason not to start. */
LK_MUST_USE enum status voices_start(struct server *s, struct error *err);

/* The voice of a request: its body's words together with the header X-Adapter; they must agree. Whether it
 * succeeds or not, voice_release ends it. Strings live as long as the request.
 * STATUS_NOT_FOUND: an unknown name or version, code model_not_found. STATUS_INVALID: malformed, ambiguous,
 * or against the server's policy. STATUS_UNSUPPORTED: adapters that can't be summed. STATUS_UNAVAILABLE with
 * out->missing: a member isn't in memory; load it, then voice_bind. */
LK_MUST_USE enum status voice_resolve(struct request *r, const struct voice_words *words, struct voice *out,
                                      struct fault *f);
/* Goes on where voice_resolve or the last voice_bind met a member without bytes; answers as voice_resolve.
 * What is bound already stays as it is. */
LK_MUST_USE enum status voice_bind(struct request *r, struct voice *v, struct fault *f);
/* The behaviour of the one adapter that was asked for with weight 1, or NULL: sums have none. Valid until
 * voice_release. */
const struct adapter_bundle *voice_bundle(const struct voice *v);
/* Gives all of it back, on every path. failed: the model gave no finite numbers with it, which
 * is held against an adapter that was asked for alone, with weight 1. */
void voice_release(struct server *s, struct voice *v, bool failed);
/* 32 bytes: of an adapter alone the digest that /v1/models shows, which its files and its scale make, else of
 * the sum; NULL: the base. */
const uint8_t *voice_digest(const struct voice *v);
/* X-Adapter, X-Adapter-Generation, X-Adapter-Digest, X-Adapter-Always. */
void voice_headers(struct request *r, const struct voice *v);

/* A name for `text` ("pt+0.5*safety"), to be registered: STATUS_INVALID if it can't be read, names itself in
 * a circle or goes too deep; STATUS_NOT_FOUND: it names an adapter that isn't registered. */
LK_MUST_USE enum status voice_blend_check(const struct server *s, const char *name, const char *text,
                                          struct error *err);

/* ---- llama-server's numbers ---- */

struct voice_number {
    uint32_t id;
    const char *name;
    float scale; /* in the voice of requests that name none */
};
/* The index-th adapter in the order of ids, false past the end. An adapter keeps its id while it is
 * registered, and no other one gets it. The name is borrowed until the next call. */
bool voice_number_at(struct server *s, size_t index, struct voice_number *out);
/* The voice that requests get which name none: those numbered, the others not. STATUS_INVALID: an unknown
 * id, or too many; nothing has changed then. */
LK_MUST_USE enum status voices_set_default(struct server *s, const struct voice_words *numbered,
                                           struct fault *f);
/* That voice in words, in `a` or the base's name; NULL: no memory. */
const char *voices_default(const struct server *s, struct arena *a);

#endif
