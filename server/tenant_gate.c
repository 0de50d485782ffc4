#include "tenant_gate.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "server.h"
#include "tenant_keeper.h"

/* ---- who asks ---- */

/* The text after "Bearer", or x-api-key (Anthropic's clients); NULL: none. */
static const char *presented_key(const struct request *r)
{
    static const char scheme[] = "Bearer ";
    const char *text = r->authorization;
    if (text && strncasecmp(text, scheme, sizeof scheme - 1) == 0)
        return text + sizeof scheme - 1 + strspn(text + sizeof scheme - 1, " ");
    return r->api_key;
}

static void end_caller(void *data)
{
    struct request *r = data;
    struct caller *c = r->caller;
    gate_leave(r);
    tenant_spec_release(c->spec);
    tenant_release(c->all, c->tenant);
}

static bool make_caller(struct request *r, const struct tenant_key *k, struct tenant *t)
{
    struct caller *c = arena_alloc(r->arena, sizeof *c);
    if (!c || arena_on_end(r->arena, end_caller, r) != 0)
        return false;
    /* The settings are held as they are: a change is for requests that come later. */
    struct tenant_spec *spec = t->specs[FROM_FILE] ? t->specs[FROM_FILE] : t->specs[FROM_STATE];
    *c = (struct caller){.all = r->server->tenants, .tenant = tenant_hold(t), .spec = tenant_spec_hold(spec)};
    snprintf(c->key_id, sizeof c->key_id, "%s", k->id);
    snprintf(c->key_name, sizeof c->key_name, "%s", k->name);
    r->caller = c;
    return true;
}

/* The same answer for every key that isn't good, whatever the reason. */
static void refuse_key(struct request *r, bool any)
{
    if (any)
        tenant_keeper_refused(r->server->tenant_keeper, r->peer, clock_now_ns());
    reply_header(r, "WWW-Authenticate",
                 any ? "Bearer realm=\"lorikeet\", error=\"invalid_token\"" : "Bearer realm=\"lorikeet\"");
    reply_error(
        r, 401,
        any ? "Incorrect API key provided; ask your operator for one"
            : "You didn't provide an API key; send it as \"Authorization: Bearer KEY\" or \"x-api-key: KEY\"",
        NULL, "invalid_api_key");
}

bool gate_pass(struct request *r, bool is_open)
{
    const struct tenants *all = r->server->tenants;
    if (r->plane != PLANE_DATA || is_open || !tenants_closed(all))
        return true;
    const char *text = presented_key(r);
    struct tenant *t = NULL;
    const struct tenant_key *k = tenants_check(all, text ? text : "", &t);
    if (!k) {
        refuse_key(r, text != NULL);
        return false;
    }
    if (!make_caller(r, k, t)) {
        reply_error(r, 503, "no memory for the request", NULL, NULL);
        return false;
    }
    if (!tenant_spec_allows_path(r->caller->spec, r->path)) {
        reply_error(r, 403, "your key may not use this path", NULL, "endpoint_not_allowed");
        return false;
    }
    return true;
}

const struct tenant_spec *gate_spec(const struct request *r)
{
    return r->caller ? r->caller->spec : NULL;
}

const char *gate_name(const struct request *r)
{
    if (r->caller)
        return r->caller->tenant->name;
    return r->authorization ? r->authorization : r->api_key;
}

bool gate_may_use(const struct request *r, const char *name)
{
    return !r->caller || tenants_may_use(r->caller->all, r->caller->spec, name);
}

/* ---- limits ---- */

/* One of a tenant's limits as the headers name it. */
struct shown_limit {
    const char *policy, *what;
    struct window *window;
    unsigned span_s;
    bool tokens;
};

#define N_LIMITS 4
static void list_limits(struct tenant *t, struct shown_limit out[N_LIMITS])
{
    out[0] = (struct shown_limit){"requests-minute", "requests per minute", &t->requests_minute, 60, false};
    out[1] = (struct shown_limit){"requests-day", "requests per day", &t->requests_day, 86400, false};
    out[2] = (struct shown_limit){"tokens-minute", "tokens per minute", &t->tokens_minute, 60, true};
    out[3] = (struct shown_limit){"tokens-day", "tokens per day", &t->tokens_day, 86400, true};
}

static unsigned long long seconds_of(int64_t ns)
{
    return (unsigned long long)((ns + NS_PER_S - 1) / NS_PER_S);
}

/* OpenAI's names have room for one limit of each kind: the minute's, if there is one. */
static void put_openai(struct request *r, const struct shown_limit *l, int64_t now_ns)
{
    char name[48], value[32];
    const char *kind = l->tokens ? "tokens" : "requests";
    snprintf(name, sizeof name, "x-ratelimit-limit-%s", kind);
    snprintf(value, sizeof value, "%" PRIu64, l->window->limit);
    reply_header(r, name, value);
    snprintf(name, sizeof name, "x-ratelimit-remaining-%s", kind);
    snprintf(value, sizeof value, "%" PRIu64, window_room(l->window, now_ns));
    reply_header(r, name, value);
    snprintf(name, sizeof name, "x-ratelimit-reset-%s", kind);
    snprintf(value, sizeof value, "%llus", seconds_of(window_reset_ns(l->window, now_ns)));
    reply_header(r, name, value);
}

/* What is left, in both forms that clients know. RateLimit: draft-ietf-httpapi-ratelimit-headers-10. */
static void put_headers(struct request *r, int64_t now_ns)
{
    struct shown_limit all[N_LIMITS];
    char policy[240] = "", left[240] = "";
    size_t n = 0, m = 0;
    bool shown[2] = {false};
    list_limits(r->caller->tenant, all);
    for (int i = 0; i < N_LIMITS; i++) {
        const struct shown_limit *l = &all[i];
        if (l->window->limit == LIMIT_NONE)
            continue;
        if (!shown[l->tokens])
            put_openai(r, l, now_ns);
        shown[l->tokens] = true;
        n += (size_t)snprintf(policy + n, sizeof policy - n, "%s\"%s\";q=%" PRIu64 ";w=%u", n ? ", " : "",
                              l->policy, l->window->limit, l->span_s);
        m += (size_t)snprintf(left + m, sizeof left - m, "%s\"%s\";r=%" PRIu64 ";t=%llu", m ? ", " : "",
                              l->policy, window_room(l->window, now_ns),
                              seconds_of(window_reset_ns(l->window, now_ns)));
    }
    if (n) {
        reply_header(r, "RateLimit-Policy", policy);
        reply_header(r, "RateLimit", left);
    }
}

/* 429, and when it is worth while to come again. */
static enum status refuse(struct request *r, const char *what, uint64_t limit, uint64_t asked,
                          int64_t wait_ns, struct fault *f)
{
    struct caller *c = r->caller;
    char seconds[24];
    enum status s;
    if (limit == 0) /* as long as the operator wants it so */
        wait_ns = 60 * NS_PER_S;
    snprintf(seconds, sizeof seconds, "%llu", wait_ns > NS_PER_S ? seconds_of(wait_ns) : 1);
    c->tenant->n_limited++;
    put_headers(r, clock_now_ns());
    if (wait_ns >= 0) {
        reply_header(r, "Retry-After", seconds);
        s = fault_set(f, STATUS_LIMITED, NULL, "Rate limit reached: %" PRIu64 " %s; please try again in %s s",
                      limit, what, seconds);
    } else {
        reply_header(r, "Retry-After", "86400");
        s = fault_set(f, STATUS_LIMITED, NULL,
                      "Request too large: it may take %" PRIu64 " tokens, the limit is %" PRIu64
                      " %s; ask for fewer by max_tokens",
                      asked, limit, what);
    }
    snprintf(f->code, sizeof f->code, "rate_limit_exceeded");
    return s;
}

/* All limits of a kind have room for n, or what the first that lacks it says. */
static enum status take(struct request *r, bool tokens, uint64_t n, int64_t now_ns, struct fault *f)
{
    struct shown_limit all[N_LIMITS];
    list_limits(r->caller->tenant, all);
    for (int i = 0; i < N_LIMITS; i++) {
        struct window *w = all[i].window;
        if (all[i].tokens == tokens && w->limit != LIMIT_NONE && window_room(w, now_ns) < n)
            return refuse(r, all[i].what, w->limit, n, window_wait_ns(w, n, now_ns), f);
    }
    for (int i = 0; i < N_LIMITS; i++)
        if (all[i].tokens == tokens)
            window_take(all[i].window, n, now_ns);
    return STATUS_OK;
}

enum status gate_admit(struct request *r, struct fault *f)
{
    struct caller *c = r->caller;
    int64_t now_ns = clock_now_ns();
    if (!c || c->running)
        return STATUS_OK;
    if (c->tenant->n_running >= c->spec->concurrent)
        return refuse(r, "requests at the same time", c->spec->concurrent, 1, 0, f);
    enum status s = take(r, false, 1, now_ns, f);
    if (s != STATUS_OK)
        return s;
    c->running = true;
    c->tenant->n_running++;
    c->tenant->n_requests++;
    return STATUS_OK;
}

enum status gate_reserve(struct request *r, uint64_t n_tokens, struct fault *f)
{
    struct caller *c = r->caller;
    int64_t now_ns = clock_now_ns();
    if (!c)
        return STATUS_OK;
    require(c->n_reserved == 0);
    enum status s = take(r, true, n_tokens, now_ns, f);
    if (s != STATUS_OK)
        return s;
    c->n_reserved = n_tokens;
    c->reserved_ns = now_ns;
    put_headers(r, now_ns);
    return STATUS_OK;
}

enum status gate_load(struct request *r, struct fault *f)
{
    struct window *w = r->caller ? &r->caller->tenant->loads_minute : NULL;
    int64_t now_ns = clock_now_ns();
    if (!w)
        return STATUS_OK;
    if (w->limit != LIMIT_NONE && window_room(w, now_ns) < 1)
        return refuse(r, "loads of adapters per minute", w->limit, 1, window_wait_ns(w, 1, now_ns), f);
    window_take(w, 1, now_ns);
    return STATUS_OK;
}

static void give_back(struct caller *c, uint64_t n)
{
    int64_t now_ns = clock_now_ns();
    window_give(&c->tenant->tokens_minute, n, c->reserved_ns, now_ns);
    window_give(&c->tenant->tokens_day, n, c->reserved_ns, now_ns);
    c->n_reserved = 0;
}

void gate_settle(struct request *r, uint64_t n_in, uint64_t n_out, uint64_t n_cached)
{
    struct caller *c = r->caller;
    if (!c || !c->n_reserved)
        return;
    uint64_t used = n_in + n_out;
    give_back(c, used < c->n_reserved ? c->n_reserved - used : 0);
    c->tenant->n_tokens_in += n_in;
    c->tenant->n_tokens_out += n_out;
    c->tenant->n_tokens_cached += n_cached;
}

void gate_leave(struct request *r)
{
    struct caller *c = r->caller;
    if (!c)
        return;
    if (c->n_reserved)
        give_back(c, c->n_reserved);
    if (c->running)
        c->tenant->n_running--;
    c->running = false;
}
