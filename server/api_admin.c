/* The operators' own API, /admin/v1/adapters: names, their versions, and what may be done to them. Each
 * operation is the registry's or adapter_ops'; here are its words. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter_ops.h"
#include "admin_reply.h"
#include "api.h"
#include "api_parse.h"
#include "base/clock.h"
#include "server.h"
#include "voices.h"

/* ---- lists */

static void put_usage(struct jw *w, const struct server *s)
{
    struct registry_usage u;
    registry_usage(s->registry, &u);
    jw_begin(w, '{');
    jw_key_int(w, "resident_bytes", (int64_t)u.resident_bytes);
    jw_key_int(w, "reserved_bytes", (int64_t)u.reserved_bytes);
    jw_key_int(w, "budget_bytes", (int64_t)u.budget_bytes);
    jw_key_int(w, "n_names", u.n_names);
    jw_key_int(w, "n_resident", u.n_resident);
    jw_key_int(w, "n_retired", u.n_retired);
    jw_key_int(w, "n_loads", (int64_t)u.n_loads);
    jw_key_int(w, "n_failed_loads", (int64_t)u.n_failed_loads);
    jw_key_int(w, "n_evictions", (int64_t)u.n_evictions);
    jw_end(w, '}');
}

static void each_change(const struct registry_change *c, void *data)
{
    put_change(data, c);
}

static bool number_arg(struct request *r, const char *name, uint64_t *out)
{
    const char *text = request_arg(r, name);
    char *end;
    if (!text)
        return true;
    *out = strtoull(text, &end, 10);
    if (text[0] >= '0' && text[0] <= '9' && !*end)
        return true;
    char message[160];
    snprintf(message, sizeof message, "%s: found \"%.60s\", expected a whole number", name, text);
    admin_fail(r, STATUS_INVALID, message, name, NULL);
    return false;
}

static void reply_changes(struct request *r, uint64_t since)
{
    struct registry *registry = r->server->registry;
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    jw_key_int(&w, "revision", (int64_t)registry_revision(registry));
    jw_key(&w, "changes");
    jw_begin(&w, '[');
    bool complete = registry_changes(registry, since, each_change, &w);
    jw_end(&w, ']');
    jw_key_bool(&w, "complete", complete);
    jw_end(&w, '}');
    reply_json(r, 200, &out);
    buf_fini(&out);
}

void api_admin_list(struct request *r)
{
    const struct server *s = r->server;
    uint64_t since = UINT64_MAX, limit = UINT64_MAX;
    const char *after = request_arg(r, "after");
    struct error err;
    if (server_serving(s, &err) != STATUS_OK) {
        admin_fail(r, err.status, err.text, NULL, NULL);
        return;
    }
    if (!number_arg(r, "since", &since) || !number_arg(r, "limit", &limit))
        return;
    if (since != UINT64_MAX) {
        reply_changes(r, since);
        return;
    }
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    jw_key_text(&w, "object", "list");
    jw_key_int(&w, "revision", (int64_t)registry_revision(s->registry));
    jw_key_text(&w, "base", s->base.name);
    jw_key(&w, "usage");
    put_usage(&w, s);
    jw_key(&w, "data");
    jw_begin(&w, '[');
    bool more = false;
    for (size_t i = 0; i < registry_count(s->registry); i++) {
        const struct adapter *a = registry_at(s->registry, i);
        if (after && strcmp(a->wish.name, after) <= 0)
            continue;
        if (limit == 0) {
            more = true;
            break;
        }
        limit--;
        put_adapter(&w, s, a);
    }
    jw_end(&w, ']');
    jw_key_bool(&w, "more", more);
    jw_end(&w, '}');
    admin_etag(r, registry_revision(s->registry));
    reply_json(r, 200, &out);
    buf_fini(&out);
}

void api_admin_get(struct request *r)
{
    const struct adapter *a = admin_find(r);
    if (a)
        admin_reply_adapter(r, a);
}

void api_admin_versions(struct request *r)
{
    const struct adapter *a = admin_find(r);
    if (!a)
        return;
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    jw_key_text(&w, "object", "list");
    jw_key(&w, "data");
    jw_begin(&w, '[');
    for (uint32_t i = 0; i < a->n_records; i++)
        put_version(&w, a, &a->records[i]);
    jw_end(&w, ']');
    jw_end(&w, '}');
    admin_etag(r, a->revision);
    reply_json(r, 200, &out);
    buf_fini(&out);
}

void api_admin_effect(struct request *r)
{
    const struct adapter *a = admin_find(r);
    if (!a)
        return;
    const struct version_record *v = registry_record(a, a->stable);
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    jw_key_int(&w, "generation", (int64_t)a->stable);
    jw_key_text(&w, "effect_test", effect_mode_name(a->wish.effect));
    jw_key(&w, "effect");
    if (v && v->effect)
        put_effect(&w, v->effect);
    else
        jw_null(&w);
    jw_end(&w, '}');
    reply_json(r, 200, &out);
    buf_fini(&out);
}

/* Of the shadow that there is, or of the last one. */
void api_admin_shadow(struct request *r)
{
    const struct adapter *a = admin_find(r);
    if (!a)
        return;
    const struct version_record *v = registry_record(a, a->shadow);
    for (uint32_t i = 0; i < a->n_records && !v; i++)
        if (a->records[i].shadow.n_replies)
            v = &a->records[i];
    if (!v) {
        admin_fail(r, STATUS_NOT_FOUND,
                   "no version of it has been a shadow; PUT with \"publish\": \"shadow\"", NULL,
                   "unknown_version");
        return;
    }
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    put_shadow(&w, v);
    reply_json(r, 200, &out);
    buf_fini(&out);
}

/* ---- small changes */

/* The adapter of the path, when the request's condition holds; else the answer has been sent. */
static struct adapter *find_to_change(struct request *r)
{
    struct adapter *a = admin_find(r);
    struct error err;
    if (!a || admin_check_revision(r, a, &err) == STATUS_OK)
        return a;
    admin_fail(r, err.status, err.text, NULL, NULL);
    return NULL;
}

/* PATCH, and PUT of a part: what is named changes. */
static void change_settings(struct request *r)
{
    struct adapter *a = find_to_change(r);
    struct fault f = {0};
    json_t *body = NULL;
    if (!a)
        return;
    enum status s = admin_body(r, &body, &f);
    if (s == STATUS_OK) {
        struct adapter_wish w = a->wish;
        struct reader rd = {.object = body, .fault = &f};
        admin_read_modes(&rd, &w);
        if (json_object_get(body, "source") || json_object_get(body, "scale") ||
            json_object_get(body, "blend"))
            read_fail(&rd, STATUS_INVALID, "source", "source, scale and blend make a new version: use PUT");
        s = rd.status;
        if (s == STATUS_OK)
            s = registry_register(r->server->registry, &w, &a, &f.error);
    }
    json_decref(body);
    if (s == STATUS_OK)
        admin_keep_and_reply(r, a);
    else
        admin_fail_fault(r, &f);
}

void api_admin_patch(struct request *r)
{
    change_settings(r);
}

void api_admin_pin(struct request *r)
{
    change_settings(r);
}

void api_admin_merge(struct request *r)
{
    change_settings(r);
}

static void removed(enum status s, const struct error *err, void *data)
{
    struct request *r = data;
    const uint64_t *revision = r->state;
    if (s != STATUS_OK) {
        admin_fail(r, s, err->text, NULL, "not_persisted");
    } else {
        struct buf out;
        buf_init(&out, 0);
        struct jw w = {.out = &out};
        jw_begin(&w, '{');
        jw_key_text(&w, "removed", admin_name(r));
        jw_key_int(&w, "revision", (int64_t)*revision);
        jw_end(&w, '}');
        reply_json(r, 200, &out);
        buf_fini(&out);
    }
    request_release(r);
}

void api_admin_delete(struct request *r)
{
    struct adapter *a = find_to_change(r);
    const char *name = a ? admin_name(r) : NULL;
    struct error err;
    if (!name)
        return;
    uint64_t *revision = r->state = arena_alloc(r->arena, sizeof *revision);
    enum status s = revision ? admin_remove(r, name, revision, removed, &err)
                             : fail(&err, STATUS_NO_MEMORY, "no memory for the request");
    if (s != STATUS_OK)
        admin_fail(r, s, err.text, NULL, s == STATUS_UNAVAILABLE ? "busy" : NULL);
}

/* ---- traffic, rollback, promotion */

void api_admin_get_traffic(struct request *r)
{
    const struct adapter *a = admin_find(r);
    if (!a)
        return;
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    for (uint32_t i = 0; i < a->n_splits; i++) {
        char generation[24];
        snprintf(generation, sizeof generation, "%llu", (unsigned long long)a->splits[i].generation);
        jw_key_int(&w, generation, a->splits[i].percent);
    }
    if (a->n_splits == 0)
        jw_key_int(&w, "stable", 100);
    jw_end(&w, '}');
    admin_etag(r, a->revision);
    reply_json(r, 200, &out);
    buf_fini(&out);
}

/* The newest resident version that is neither stable nor the last good one. */
static uint64_t candidate_of(const struct adapter *a)
{
    if (a->shadow)
        return a->shadow;
    for (uint32_t i = 0; i < a->n_splits; i++)
        if (a->splits[i].generation != a->stable)
            return a->splits[i].generation;
    for (uint32_t i = 0; i < a->n_records; i++)
        if (a->records[i].generation > a->stable)
            return a->records[i].generation;
    return 0;
}

static enum status read_splits(json_t *body, const struct adapter *a, struct traffic_split *splits,
                               uint32_t *n, struct fault *f)
{
    const char *key;
    json_t *value;
    *n = 0;
    json_object_foreach(body, key, value)
    {
        char *end;
        uint64_t generation = strcmp(key, "stable") == 0   ? a->stable
                              : strcmp(key, "canary") == 0 ? candidate_of(a)
                                                           : strtoull(key, &end, 10);
        if (!generation || !registry_record(a, generation))
            return fault_set(f, STATUS_NOT_FOUND, key,
                             "%.40s: there is no such version; GET …/versions lists them", key);
        if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > 100)
            return fault_set(f, STATUS_INVALID, key, "%.40s: expected a percentage from 0 to 100", key);
        if (*n == REGISTRY_SPLITS_MAX)
            return fault_set(f, STATUS_INVALID, NULL, "at most %u versions share the traffic",
                             REGISTRY_SPLITS_MAX);
        if (json_integer_value(value))
            splits[(*n)++] = (struct traffic_split){.generation = generation,
                                                    .percent = (uint32_t)json_integer_value(value)};
    }
    return STATUS_OK;
}

void api_admin_put_traffic(struct request *r)
{
    struct adapter *a = find_to_change(r);
    struct fault f = {0};
    json_t *body = NULL;
    struct traffic_split splits[REGISTRY_SPLITS_MAX];
    uint32_t n = 0;
    if (!a)
        return;
    enum status s = admin_body(r, &body, &f);
    if (s == STATUS_OK)
        s = read_splits(body, a, splits, &n, &f);
    json_decref(body);
    if (s == STATUS_OK) {
        bool all_stable = n == 1 && splits[0].generation == a->stable && splits[0].percent == 100;
        s = registry_set_traffic(r->server->registry, a, splits, all_stable ? 0 : n, &f.error);
    }
    if (s == STATUS_OK)
        admin_keep_and_reply(r, a);
    else
        admin_fail_fault(r, &f);
}

/* A change that may need a version's bytes back first. */
struct versioned {
    struct load_waiter waiter; /* first */
    struct request *r;
    enum status (*change)(struct request *r, struct adapter *a, struct error *err);
};

static void version_ready(struct load_waiter *w, const struct error *err)
{
    struct versioned *v = (struct versioned *)w;
    struct request *r = v->r;
    struct adapter *a = registry_find(r->server->registry, w->name);
    struct error e;
    enum status s = STATUS_OK;
    if (err) {
        e = *err;
        s = err->status;
    } else if (!a) {
        s = fail(&e, STATUS_NOT_FOUND, "the adapter was removed meanwhile");
    } else {
        s = admin_check_revision(r, a, &e); /* time has passed */
        if (s == STATUS_OK)
            s = v->change(r, a, &e);
    }
    if (s != STATUS_OK)
        admin_fail(r, s, e.text, NULL, s == STATUS_MISMATCH ? "version_gone" : NULL);
    else
        admin_keep_and_reply(r, a);
    request_release(r);
}

/* Does it, or brings `generation`'s bytes back and does it then. */
static void change_version(struct request *r, struct adapter *a, uint64_t generation,
                           enum status (*change)(struct request *r, struct adapter *a, struct error *err))
{
    struct error err;
    enum status s = change(r, a, &err);
    if (s == STATUS_OK) {
        admin_keep_and_reply(r, a);
        return;
    }
    struct versioned *v = s == STATUS_UNAVAILABLE ? arena_alloc(r->arena, sizeof *v) : NULL;
    if (v) {
        *v = (struct versioned){.waiter = {.ready = version_ready}, .r = r, .change = change};
        request_hold(r);
        s = adapter_ops_wait(r->server->adapter_ops, &v->waiter, a->wish.name, generation, 0, &err);
        if (s == STATUS_OK)
            return;
        request_release(r);
    }
    admin_fail(r, s, err.text, NULL, s == STATUS_NOT_FOUND ? "unknown_version" : NULL);
}

static enum status roll_back(struct request *r, struct adapter *a, struct error *err)
{
    uint64_t before = a->stable;
    enum status s = registry_rollback(r->server->registry, a, clock_now_ns(), err);
    if (s == STATUS_OK)
        LOG_EVENT(&r->server->log, LOG_WARN, "adapter rolled back", LOG_TEXT("adapter", a->wish.name),
                  LOG_NUMBER("from", before), LOG_NUMBER("to", a->stable));
    return s;
}

void api_admin_rollback(struct request *r)
{
    struct adapter *a = find_to_change(r);
    if (a)
        change_version(r, a, a->previous, roll_back);
}

static enum status promote(struct request *r, struct adapter *a, struct error *err)
{
    const uint64_t *generation = r->state;
    return registry_promote(r->server->registry, a, *generation, clock_now_ns(), err);
}

void api_admin_promote(struct request *r)
{
    struct adapter *a = find_to_change(r);
    struct fault f = {0};
    json_t *body = NULL;
    if (!a)
        return;
    int64_t generation = (int64_t)candidate_of(a);
    enum status s = admin_body(r, &body, &f);
    if (s == STATUS_OK) {
        struct reader rd = {.object = body, .fault = &f};
        read_int(&rd, "generation", 1, INT64_MAX, &generation);
        s = rd.status;
    }
    json_decref(body);
    uint64_t *kept = arena_alloc(r->arena, sizeof *kept);
    if (s == STATUS_OK && !generation)
        s = fault_set(&f, STATUS_NOT_FOUND, "generation", "there is no canary and no shadow to promote");
    if (s != STATUS_OK || !kept) {
        admin_fail_fault(r, &f);
        return;
    }
    *kept = (uint64_t)generation;
    r->state = kept;
    change_version(r, a, *kept, promote);
}

/* ---- bytes into memory and out of it */

static enum status is_there(struct request *r, struct adapter *a, struct error *err)
{
    const struct version_record *v = registry_record(a, a->stable);
    (void)r;
    return v && v->version ? STATUS_OK : fail(err, STATUS_UNAVAILABLE, "its bytes have left");
}

void api_admin_load(struct request *r)
{
    struct adapter *a = find_to_change(r);
    if (a)
        change_version(r, a, a->stable, is_there);
}

void api_admin_unload(struct request *r)
{
    struct adapter *a = find_to_change(r);
    if (!a)
        return;
    registry_evict(r->server->registry, a);
    admin_reply_adapter(r, a);
}

void api_admin_rescan(struct request *r)
{
    struct buf out;
    buf_init(&out, 0);
    adapter_ops_scan(r->server->adapter_ops);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    jw_key_int(&w, "revision", (int64_t)registry_revision(r->server->registry));
    jw_end(&w, '}');
    reply_json(r, 202, &out);
    buf_fini(&out);
}
