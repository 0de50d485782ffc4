/* What we demand of a request's headers before we look at its body. Pure; the table of refusals is the one
 * that keeps a proxy and us from reading one connection as two different sequences of requests (request
 * smuggling). */
#ifndef LK_HTTP_POLICY_H
#define LK_HTTP_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proxies.h"

/* Of a request: its headers, each counted with 4 bytes for ": " and the line's end; and its target. Of far
 * more (http.c, POOL_BYTES) the HTTP library itself says that they are too many. */
#define POLICY_HEADERS_MAX 100U
#define POLICY_HEADER_BYTES_MAX (16U << 10)
#define POLICY_TARGET_BYTES_MAX (8U << 10)

struct policy {
    unsigned n_headers;
    size_t header_bytes, target_bytes; /* the latter: path and arguments, decoded; the listener counts them */
    unsigned n_transfer_encoding, n_content_length, n_host, n_authorization, n_api_key, n_adapter;
    bool chunked;          /* the last Transfer-Encoding was exactly "chunked" */
    bool bad_length;       /* Content-Length is no plain number */
    bool expects_continue; /* Expect: 100-continue */
    bool encoded;          /* Content-Encoding other than identity */
    bool close;            /* the answer must close the connection */
    uint64_t content_length;
    struct forward_headers forwarded;
    /* borrowed from the library until its callback returns */
    const char *adapter, *origin, *request_id, *authorization, *api_key, *accept, *if_match, *if_none_match,
        *last_event_id;
};

void policy_header(struct policy *p, const char *name, const char *value);
/* 0: fine; else the HTTP status to refuse with, and why. */
int policy_verdict(const struct policy *p, const char *version, uint64_t body_bytes_max, char *message,
                   size_t message_bytes);
bool policy_request_id_ok(const char *id); /* [A-Za-z0-9_-]{1,128} */

#endif
