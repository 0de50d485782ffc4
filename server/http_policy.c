/* Header rules. libmicrohttpd 0.9.75 takes any Transfer-Encoding, prefers it silently over Content-Length and
 * uses the first of several Content-Lengths (connection.c, parse_connection_headers); RFC 9112 section 6.3
 * calls each of them an error, so they are refused here. */
#include "http_policy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "request.h"

static void content_length(struct policy *p, const char *value)
{
    size_t n = strlen(value);
    p->n_content_length++;
    p->bad_length |= n == 0 || n > 18 || strspn(value, "0123456789") != n;
    if (!p->bad_length)
        p->content_length = strtoull(value, NULL, 10);
}

void policy_header(struct policy *p, const char *name, const char *value)
{
    p->n_headers++;
    p->header_bytes += strlen(name) + strlen(value) + 4;
    forward_header(&p->forwarded, name, value);
    if (!strcasecmp(name, "Transfer-Encoding")) {
        p->n_transfer_encoding++;
        p->chunked = !strcasecmp(value, "chunked");
    } else if (!strcasecmp(name, "Content-Length")) {
        content_length(p, value);
    } else if (!strcasecmp(name, "Host")) {
        p->n_host++;
    } else if (!strcasecmp(name, "Authorization")) {
        p->n_authorization++;
        p->authorization = value;
    } else if (!strcasecmp(name, "x-api-key")) {
        p->n_api_key++;
        p->api_key = value;
    } else if (!strcasecmp(name, "X-Adapter")) {
        p->n_adapter++;
        p->adapter = value;
    } else if (!strcasecmp(name, "Origin")) {
        p->origin = value;
    } else if (!strcasecmp(name, "X-Request-Id")) {
        p->request_id = value;
    } else if (!strcasecmp(name, "Accept")) {
        p->accept = value;
    } else if (!strcasecmp(name, "If-Match")) {
        p->if_match = value;
    } else if (!strcasecmp(name, "If-None-Match")) {
        p->if_none_match = value;
    } else if (!strcasecmp(name, "Last-Event-ID")) {
        p->last_event_id = value;
    } else if (!strcasecmp(name, "Expect")) {
        p->expects_continue = !strcasecmp(value, "100-continue");
    } else if (!strcasecmp(name, "Content-Encoding")) {
        p->encoded = strcasecmp(value, "identity") != 0;
    }
}

static const char *framing_fault(const struct policy *p, const char *version)
{
    if (p->n_transfer_encoding > 1 || (p->n_transfer_encoding && !p->chunked))
        return "Transfer-Encoding: the only one accepted is exactly \"chunked\", once";
    if (p->n_transfer_encoding && p->n_content_length)
        return "Transfer-Encoding and Content-Length together are ambiguous";
    if (p->n_content_length > 1)
        return "Content-Length is given more than once";
    if (p->bad_length)
        return "Content-Length is not a plain number";
    if (p->n_host > 1)
        return "Host is given more than once";
    if (p->n_host == 0 && !strcmp(version, "HTTP/1.1"))
        return "Host is missing";
    if (p->n_authorization > 1)
        return "Authorization is given more than once";
    if (p->n_api_key > 1)
        return "x-api-key is given more than once";
    if (p->n_adapter > 1)
        return "X-Adapter is given more than once";
    return NULL;
}

/* 0: they aren't too many. */
static int size_fault(const struct policy *p, char *message, size_t message_bytes)
{
    if (p->target_bytes > POLICY_TARGET_BYTES_MAX) {
        snprintf(message, message_bytes, "the URL has more than %u bytes", POLICY_TARGET_BYTES_MAX);
        return 414;
    }
    if (p->n_headers > POLICY_HEADERS_MAX) {
        snprintf(message, message_bytes, "the request has %u headers, at most %u are accepted", p->n_headers,
                 POLICY_HEADERS_MAX);
        return 431;
    }
    if (p->header_bytes > POLICY_HEADER_BYTES_MAX) {
        snprintf(message, message_bytes, "the headers have %zu bytes, at most %u are accepted",
                 p->header_bytes, POLICY_HEADER_BYTES_MAX);
        return 431;
    }
    return 0;
}

int policy_verdict(const struct policy *p, const char *version, uint64_t body_bytes_max, char *message,
                   size_t message_bytes)
{
    int status = size_fault(p, message, message_bytes);
    const char *fault = framing_fault(p, version);
    if (status)
        return status;
    if (fault) {
        snprintf(message, message_bytes, "%s", fault);
        return 400;
    }
    if (p->encoded) {
        snprintf(message, message_bytes, "Content-Encoding: compressed bodies are not accepted");
        return 415;
    }
    if (p->content_length > body_bytes_max) {
        snprintf(message, message_bytes, "the body has %llu bytes, at most %llu are accepted",
                 (unsigned long long)p->content_length, (unsigned long long)body_bytes_max);
        return 413;
    }
    return 0;
}

bool policy_request_id_ok(const char *id)
{
    size_t n = strlen(id);
    return n >= 1 && n <= REQUEST_ID_MAX &&
           strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == n;
}
