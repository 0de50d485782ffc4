/* HTTP to a running server, for the commands: one call at a time over a unix socket or TCP, and streams of
 * events (server-sent events). Blocks. Thread: main of a command. */
#ifndef LK_SERVER_CLIENT_H
#define LK_SERVER_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

struct client;

/* An event of a stream. Texts are borrowed for the call. */
struct client_event {
    const char *kind; /* "message" if the stream names none */
    const char *id;   /* the last one seen, or "" */
    const char *data;
};
typedef void client_on_event(const struct client_event *e, void *data);

/* Takes bytes as they come and calls on_event for each event that they end. Pure. */
struct event_parser {
    struct buf line, kind, id, data;
    bool has_data;
};
void event_parser_init(struct event_parser *p);
void event_parser_fini(struct event_parser *p);
/* false when a line or an event is longer than 1 MiB. */
bool event_parser_feed(struct event_parser *p, const char *bytes, size_t n, client_on_event *on_event,
                       void *data);

struct client_call {
    const char *method;      /* "GET" … */
    const char *path;        /* with its query */
    const char *body;        /* JSON, or NULL */
    const char *headers[3];  /* "Name: value" */
    uint32_t timeout_ms;     /* 0: as long as it takes */
    const char *events_path; /* while the call runs, events from here go to on_event; or NULL */
    client_on_event *on_event;
    void (*tick)(void *data); /* about ten times a second while the call runs; or NULL */
    void *data;               /* of both */
};
struct client_reply {
    long http_status;
    struct buf body; /* at most 64 MiB; buf_fini by the caller */
};

/* address: unix:PATH, HOST:PORT, [IPv6]:PORT, :PORT, http://HOST:PORT or, over TLS, tls:HOST:PORT.
 * STATUS_INVALID: none of these. */
LK_MUST_USE enum status client_open(const char *address, struct client **out, struct error *err);
void client_close(struct client *c); /* NULL is fine */
const char *client_address(const struct client *c);
bool client_is_local(const struct client *c); /* a unix socket: its paths are ours */

/* One request and its whole answer. STATUS_UNAVAILABLE: no answer came (not reached, broken off, timed out);
 * any HTTP status is STATUS_OK. *reply is initialised in any case. */
LK_MUST_USE enum status client_request(struct client *c, const struct client_call *call,
                                       struct client_reply *reply, struct error *err);
/* GETs a stream of events until it ends: STATUS_OK if the server ended it, STATUS_UNAVAILABLE as above (a
 * minute without a byte counts). An answer other than 200 is in *reply. */
LK_MUST_USE enum status client_events(struct client *c, const struct client_call *call,
                                      struct client_reply *reply, struct error *err);

/* The one admin socket $XDG_RUNTIME_DIR/lorikeet-*.sock that a server answers on, as "unix:PATH" into
 * address. STATUS_NOT_FOUND: none; STATUS_CONFLICT: several, which the text names. */
LK_MUST_USE enum status client_find(char *address, size_t n, struct error *err);

#endif
