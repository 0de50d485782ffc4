#include "cors.h"

#include <string.h>

#include "server.h"

#define ASKED_BYTES_MAX 1024U

enum verdict { ORIGIN_REFUSED, ORIGIN_OF_ANY, ORIGIN_NAMED };

static enum verdict verdict_of(const struct request *r)
{
    const struct conf *c = r->server->conf;
    bool any = false, named = false;
    for (size_t i = 0; i < c->n_cors_origins && r->plane == PLANE_DATA && r->origin; i++) {
        any |= strcmp(c->cors_origins[i], "*") == 0;
        named |= strcmp(c->cors_origins[i], r->origin) == 0;
    }
    return named ? ORIGIN_NAMED : any ? ORIGIN_OF_ANY : ORIGIN_REFUSED;
}

static bool has_rules(const struct request *r)
{
    return r->plane == PLANE_DATA && r->server->conf->n_cors_origins > 0;
}

/* An answer for "*" alone is the same for all; any other depends on who asks, and caches must know. */
static bool is_for_all(const struct request *r)
{
    const struct conf *c = r->server->conf;
    return c->n_cors_origins == 1 && strcmp(c->cors_origins[0], "*") == 0;
}

void cors_answer(struct request *r)
{
    enum verdict v = verdict_of(r);
    if (!has_rules(r))
        return;
    if (!is_for_all(r))
        reply_header(r, "Vary", "Origin"); /* also where it is refused */
    if (v == ORIGIN_REFUSED)
        return;
    reply_header(r, "Access-Control-Allow-Origin", v == ORIGIN_NAMED ? r->origin : "*");
    /* Keys come in a header of the page's own; but a proxy in front may know people by cookies. "null" is
     * the origin of any page in a sandbox. */
    if (v == ORIGIN_NAMED && strcmp(r->origin, "null") != 0)
        reply_header(r, "Access-Control-Allow-Credentials", "true");
    reply_header(
        r, "Access-Control-Expose-Headers",
        "X-Request-Id, X-Adapter, X-Adapter-Generation, X-Adapter-Digest, X-Adapter-Always, "
        "X-Adapter-Path, X-Adapter-Rule, X-Adapter-Locked, Retry-After, RateLimit, RateLimit-Policy, "
        "X-RateLimit-Limit-Requests, X-RateLimit-Remaining-Requests, X-RateLimit-Reset-Requests, "
        "X-RateLimit-Limit-Tokens, X-RateLimit-Remaining-Tokens, X-RateLimit-Reset-Tokens");
}

/* Names of headers with commas between. */
static bool is_list_of_names(const char *text)
{
    size_t n = strlen(text);
    return n > 0 && n <= ASKED_BYTES_MAX &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_, ") == n;
}

void cors_preflight(struct request *r, const char *methods)
{
    if (!has_rules(r) || verdict_of(r) == ORIGIN_REFUSED)
        return;
    /* No header is a danger to us, and clients have many (x-stainless-…): what is asked for may come. "*"
     * wouldn't do: it means no Authorization, and nothing at all where there are credentials. */
    const char *asked = request_header(r, "Access-Control-Request-Headers");
    reply_header(r, "Access-Control-Allow-Headers",
                 asked && is_list_of_names(asked)
                     ? asked
                     : "Content-Type, Authorization, X-Api-Key, X-Adapter, X-Request-Id, Anthropic-Version, "
                       "Anthropic-Beta, Anthropic-Dangerous-Direct-Browser-Access");
    reply_header(r, "Vary", "Access-Control-Request-Headers");
    reply_header(r, "Access-Control-Allow-Methods", methods);
    reply_header(r, "Access-Control-Max-Age", "600");
    /* A page of the Internet that asks a server of the local network (Private Network Access). */
    const char *private = request_header(r, "Access-Control-Request-Private-Network");
    if (private && strcmp(private, "true") == 0)
        reply_header(r, "Access-Control-Allow-Private-Network", "true");
}
