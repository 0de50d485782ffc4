/* One HTTP request from its headers to the last byte of its answer, and how handlers answer it.
 *
 * Owner: front thread. A request outlives its connection on purpose: it lives until the connection has let go
 * of it and every holder has released it (the engine may still be working for it).
 *
 * A handler is called when the whole body is here. It answers at once, or keeps the request (request_hold)
 * and answers later: with one reply, or with a stream of pieces. Exactly one answer is begun for each
 * request. */
#ifndef LK_REQUEST_H
#define LK_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"

/* Whose errors an answer has; the router knows by the path. */
enum error_form { ERRORS_OPENAI, ERRORS_ANTHROPIC, ERRORS_OLLAMA };

/* Bits: a route has a mask of them, with PLANE_OPEN where clients need no key. */
enum plane { PLANE_DATA = 1, PLANE_ADMIN = 2, PLANE_OPEN = 4 };

#define REQUEST_ID_MAX 128U
#define PEER_TEXT_MAX 64U

struct server;
struct caller;

/* ?name=value */
struct request_arg {
    struct request_arg *next;
    const char *name, *value;
};

struct request {
    struct arena *arena; /* ends with the request */
    struct server *server;
    enum plane plane;
    enum error_form error_form;
    const char *method, *path;  /* path: percent-decoded, without the query */
    const char *adapter_header; /* X-Adapter, or NULL */
    const char *path_voice;     /* NAME of /v1/m/NAME/…, or NULL */
    const char *origin;         /* or NULL, as the next ones */
    const char *authorization, *api_key, *accept, *if_match, *if_none_match, *last_event_id;
    struct caller *caller;       /* who asks, where tenants are configured (tenant_gate.h); or NULL */
    struct request_arg *args;    /* of the query */
    char id[REQUEST_ID_MAX + 1]; /* X-Request-Id: the client's or ours */
    char peer[PEER_TEXT_MAX];    /* who asks: "uid 0, pid 7", an address (behind trusted proxies: theirs) */
    bool is_secure;              /* it comes by TLS, by what those proxies say */
    const char *body;            /* NUL-terminated; never NULL */
    size_t n_body;
    int64_t started_ns;                 /* headers complete */
    int status;                         /* of the answer; 0 before */
    bool gone;                          /* nobody reads any more; answers are dropped */
    void (*on_gone)(struct request *r); /* called once, if that happens before the answer is complete */
    void *state;                        /* the handler's own */
};

/* A query argument's value, percent-decoded ("" if it has none); NULL if it isn't given. */
const char *request_arg(const struct request *r, const char *name);

/* A header's value, or NULL: also when the connection is gone. Valid until the answer begins. */
const char *request_header(const struct request *r, const char *name);

void request_hold(struct request *r);
void request_release(struct request *r);

/* A header of the answer; before it is begun. Both strings are copied; a value with control characters is
 * left out. */
void reply_header(struct request *r, const char *name, const char *value);

/* The whole answer. `type` NULL: no body. The bytes are copied. */
void reply_send(struct request *r, int status, const char *type, const char *body, size_t length);
/* The same, taking the buffer's memory; `body` is empty afterwards. */
void reply_take(struct request *r, int status, const char *type, struct buf *body);

/* An answer in pieces. */
void stream_begin(struct request *r, int status, const char *type);
/* False when nobody reads any more, or when the reader is so far behind that it is being cut off. */
bool stream_write(struct request *r, const void *data, size_t length);
void stream_end(struct request *r);
size_t stream_backlog(const struct request *r); /* bytes that the client hasn't taken yet */

#endif
