/* HTTP/1.1 on the loop: one listener, its connections, their time limits. The only room that knows the HTTP
 * library. Owner: front thread. */
#ifndef LK_HTTP_H
#define LK_HTTP_H

#include <uv.h>

#include "base/error.h"
#include "base/log.h"
#include "proxies.h"
#include "request.h"

struct http;

struct http_options {
    enum plane plane;
    struct server *server;
    const struct log *log;
    void (*handle)(struct request *r);   /* the whole request is here */
    void (*finished)(struct request *r); /* its connection is through with it, well or not; may be NULL */
    enum error_form (*form_of)(const char *path); /* whose errors its clients read; NULL: OpenAI's */
    const struct proxies *trusted;                /* whose word on the client counts; NULL: nobody's */
    size_t body_bytes_max;
    uint32_t connections_max;
    uint32_t header_timeout_ms, body_timeout_ms, idle_timeout_ms, write_timeout_ms;
    size_t output_bytes_soft, output_bytes_hard;
    const char *tls_cert, *tls_key; /* PEM; borrowed for the call that gets them. NULL: plain HTTP */
};

/* A bound and listening socket for "HOST:PORT", "[IPv6]:PORT", ":PORT" (all addresses) or "unix:PATH" (mode
 * 0600; a stale socket is replaced, a living one is an error). `shown` gets the address with its real port.
 */
LK_MUST_USE enum status http_listen(const char *address, int *fd, char *shown, size_t shown_bytes,
                                    struct error *err);

/* Serves `fd` (taken) on the loop. */
LK_MUST_USE enum status http_open(uv_loop_t *loop, int fd, const struct http_options *options,
                                  struct http **out, struct error *err);
/* From now on new connections get this certificate; those that are there go on as they are. STATUS_IO: the
 * library doesn't take it, nothing has changed. */
LK_MUST_USE enum status http_renew(struct http *h, const char *cert, const char *key, struct error *err);
bool http_is_secure(const struct http *h);
/* From now on answers close their connection. */
void http_set_closing(struct http *h);
size_t http_n_connections(const struct http *h);
size_t http_n_requests(const struct http *h); /* connections with a request that isn't fully answered */
/* Ends all connections (open requests become gone) and closes the listener. The memory goes when the loop has
 * closed the handles: run it until it is empty. */
void http_close(struct http *h);

#endif
