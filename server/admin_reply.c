/* Answers of the operators' API. */
#include "admin_reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter_ops.h"
#include "api_parse.h"
#include "server.h"

const char *admin_name(struct request *r)
{
    const char *name = r->path + strlen(ADMIN_ADAPTERS);
    return arena_printf(r->arena, "%.*s", (int)strcspn(name, "/"), name);
}

void admin_fail(struct request *r, enum status s, const char *message, const char *param, const char *code)
{
    int http_status = admin_http_status(s, code);
    if (http_status == 503)
        reply_header(r, "Retry-After", "1");
    reply_error(r, http_status, message, param, code && code[0] ? code : admin_code(s));
}

void admin_fail_fault(struct request *r, const struct fault *f)
{
    admin_fail(r, f->error.status, f->error.text, f->param, f->code);
}

struct adapter *admin_find(struct request *r)
{
    const char *name = admin_name(r);
    struct error err;
    struct adapter *a = name ? registry_find(r->server->registry, name) : NULL;
    if (server_serving(r->server, &err) != STATUS_OK) {
        admin_fail(r, err.status, err.text, NULL, NULL);
        return NULL;
    }
    if (!a) {
        char message[160];
        snprintf(message, sizeof message, "adapter \"%.80s\" does not exist", name ? name : "");
        admin_fail(r, STATUS_NOT_FOUND, message, NULL, "unknown_adapter");
    }
    return a;
}

enum status admin_wanted_revision(const struct request *r, bool *has, uint64_t *revision, struct error *err)
{
    const char *text = r->if_match;
    *has = false;
    if (r->if_none_match) {
        if (strcmp(r->if_none_match, "*") != 0)
            return fail(err, STATUS_INVALID, "If-None-Match: found %.60s, only * is understood here",
                        r->if_none_match);
        *has = true;
        *revision = 0;
        return STATUS_OK;
    }
    if (!text || strcmp(text, "*") == 0)
        return STATUS_OK;
    char *end;
    bool quoted = text[0] == '"';
    unsigned long long v = strtoull(text + quoted, &end, 10);
    if (end == text + quoted || strcmp(end, quoted ? "\"" : "") != 0)
        return fail(err, STATUS_INVALID,
                    "If-Match: found %.60s, expected the ETag of an answer, as \"12\", or *", text);
    *has = true;
    *revision = v;
    return STATUS_OK;
}

enum status admin_check_revision(const struct request *r, const struct adapter *a, struct error *err)
{
    bool has;
    uint64_t wanted, now = a ? a->revision : 0;
    enum status s = admin_wanted_revision(r, &has, &wanted, err);
    if (s != STATUS_OK || !has || wanted == now)
        return s;
    return fail(err, STATUS_CONFLICT,
                "the adapter is at revision %llu, not %llu: somebody else changed it; look, then decide",
                (unsigned long long)now, (unsigned long long)wanted);
}

enum status admin_body(const struct request *r, json_t **out, struct fault *f)
{
    if (r->n_body)
        return parse_body(r->body, r->n_body, out, f);
    *out = json_object();
    return *out ? STATUS_OK : fault_set(f, STATUS_NO_MEMORY, NULL, "no memory for the request");
}

void admin_etag(struct request *r, uint64_t revision)
{
    char text[32];
    snprintf(text, sizeof text, "\"%llu\"", (unsigned long long)revision);
    reply_header(r, "ETag", text);
}

void admin_reply_adapter(struct request *r, const struct adapter *a)
{
    struct buf out;
    if (!a) {
        admin_fail(r, STATUS_NOT_FOUND, "the adapter was removed meanwhile", NULL, "unknown_adapter");
        return;
    }
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    put_adapter(&w, r->server, a);
    admin_etag(r, a->revision);
    reply_json(r, 200, &out);
    buf_fini(&out);
}

static void kept(enum status s, const struct error *err, void *data)
{
    struct request *r = data;
    const char *name = admin_name(r);
    if (s != STATUS_OK)
        admin_fail(r, s, err->text, NULL, "not_persisted");
    else
        admin_reply_adapter(r, name ? registry_find(r->server->registry, name) : NULL);
    request_release(r);
}

/* For the log of changes: what stands behind the name in the path. */
static const char *operation_of(const struct request *r)
{
    const char *tail = strchr(r->path + strlen(ADMIN_ADAPTERS), '/');
    if (!tail)
        return "settings";
    return strcmp(tail, "/load") == 0 ? NULL : tail + 1; /* bytes into memory are no change */
}

void admin_keep_and_reply(struct request *r, const struct adapter *a)
{
    const struct keep_note note = {.operation = operation_of(r), .by = r->peer};
    request_hold(r);
    adapter_ops_keep(r->server->adapter_ops, a->wish.name, &note, kept, r);
}

/* ---- shared with other servers' forms */

void admin_read_modes(struct reader *rd, struct adapter_wish *w)
{
    const char *text = NULL;
    read_bool(rd, "pinned", &w->pinned);
    if (read_text(rd, "merge", &text) && !merge_mode_find(text, &w->merge))
        read_fail(rd, STATUS_INVALID, "merge", "merge: found \"%.40s\", expected never, auto or always",
                  text);
    if (read_text(rd, "effect_test", &text) && !effect_mode_find(text, &w->effect))
        read_fail(rd, STATUS_INVALID, "effect_test",
                  "effect_test: found \"%.40s\", expected off, warn or enforce", text);
}

struct load_order admin_order(struct request *r, const char *name,
                              void (*done)(struct load_order *o, void *data))
{
    const struct adapter *a = name ? registry_find(r->server->registry, name) : NULL;
    struct load_order o = {
        .wish = {.name = name, .source = "", .blend = "", .scale = 1, .effect = r->server->conf->effect},
        .as = PUBLISH_STABLE,
        .by = "api",
        .done = done,
        .data = r};
    if (a)
        o.wish = a->wish;
    o.wish.name = name; /* the caller's: the registry's goes with the name */
    snprintf(o.who, sizeof o.who, "%s", r->peer);
    return o;
}

enum status admin_load(struct request *r, const struct load_order *o, struct error *err)
{
    request_hold(r);
    enum status s = adapter_ops_load(r->server->adapter_ops, o, err);
    if (s != STATUS_OK)
        request_release(r);
    return s;
}

enum status admin_remove(struct request *r, const char *name, uint64_t *revision,
                         void (*done)(enum status s, const struct error *err, void *data), struct error *err)
{
    enum status s = registry_remove(r->server->registry, name, err);
    if (s == STATUS_EXISTS)
        return fail(err, STATUS_UNAVAILABLE, "adapter '%s' is being loaded; try again in a moment", name);
    if (s != STATUS_OK)
        return s;
    if (revision)
        *revision = registry_revision(r->server->registry);
    LOG_EVENT(&r->server->log, LOG_INFO, "adapter removed", LOG_TEXT("adapter", name));
    request_hold(r);
    adapter_ops_keep(r->server->adapter_ops, name, &(struct keep_note){.operation = "remove", .by = r->peer},
                     done, r);
    return STATUS_OK;
}

void admin_with_body(struct request *r,
                     enum status (*what)(struct request *r, const json_t *body, struct fault *f),
                     void (*refuse)(struct request *r, enum status s, const char *message))
{
    struct fault f = {0};
    json_t *body = NULL;
    enum status s = server_serving(r->server, &f.error);
    if (s == STATUS_OK)
        s = parse_body(r->body, r->n_body, &body, &f);
    if (s == STATUS_OK)
        s = what(r, body, &f);
    if (s != STATUS_OK)
        refuse(r, s, f.error.text);
    json_decref(body);
}
