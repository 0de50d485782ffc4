/* The operators' API for tenants and keys: /admin/v1/tenants, /admin/v1/keys. A change is answered when it is
 * on the disk, and in force from then on. A key's text is in one answer, the one to its making, and nowhere
 * else. */
#include <stdio.h>
#include <string.h>

#include <gnutls/gnutls.h>

#include "adapters.h"
#include "admin_reply.h"
#include "api.h"
#include "base/clock.h"
#include "server.h"
#include "tenant_keeper.h"
#include "tenants.h"

#define TENANTS_PATH "/admin/v1/tenants/"
#define KEYS_PATH "/admin/v1/keys/"

/* One change on its way; in the request's memory, which it holds. */
struct change {
    struct keep_job job; /* first */
    struct request *r;
    struct store_change store;
    const char *name; /* of the tenant, or a key's id */
    struct tenant_spec *spec;
    struct tenant_key key;
    char text[KEY_TEXT_LENGTH + 1]; /* of a new key */
    const char *code;               /* of a refusal, or NULL */
};

/* ---- answers ---- */

static void put_window(struct jw *w, const char *key, struct window *window)
{
    if (window->limit == LIMIT_NONE)
        return;
    uint64_t room = window_room(window, clock_now_ns());
    jw_key(w, key);
    jw_begin(w, '{');
    jw_key_int(w, "limit", (int64_t)window->limit);
    jw_key_int(w, "used", (int64_t)(window->limit - room));
    jw_end(w, '}');
}

static void put_tenant(struct jw *w, struct tenant *t)
{
    const struct tenant_spec *spec = tenant_spec_of(t);
    jw_begin(w, '{');
    jw_key_text(w, "name", t->name);
    jw_key_text(w, "origin", t->specs[FROM_FILE] ? "file" : spec ? "state" : "none");
    jw_key_int(w, "created", t->created_ms / 1000);
    jw_key_int(w, "active_keys", t->n_active_keys);
    jw_key(w, "settings");
    if (spec)
        jw_raw(w, spec->text, strlen(spec->text));
    else
        jw_null(w);
    jw_key(w, "now");
    jw_begin(w, '{');
    jw_key_int(w, "running", (int64_t)t->n_running);
    put_window(w, "requests_per_minute", &t->requests_minute);
    put_window(w, "requests_per_day", &t->requests_day);
    put_window(w, "tokens_per_minute", &t->tokens_minute);
    put_window(w, "tokens_per_day", &t->tokens_day);
    jw_end(w, '}');
    jw_end(w, '}');
}

/* text NULL: one that was made before. */
static void put_key(struct jw *w, const struct tenant_key *k, const char *text)
{
    jw_begin(w, '{');
    jw_key_text(w, "id", k->id);
    jw_key_text(w, "tenant", k->tenant);
    jw_key_text(w, "name", k->name);
    jw_key_text(w, "origin", k->origin == FROM_FILE ? "file" : "state");
    jw_key_bool(w, "active", k->revoked_ms == 0);
    jw_key_int(w, "created", k->created_ms / 1000);
    if (k->revoked_ms)
        jw_key_int(w, "revoked", k->revoked_ms / 1000);
    if (text)
        jw_key_text(w, "key", text);
    jw_end(w, '}');
}

static void begin_list(struct jw *w, struct buf *out)
{
    buf_init(out, 0);
    *w = (struct jw){.out = out};
    jw_begin(w, '{');
    jw_key_text(w, "object", "list");
    jw_key(w, "data");
    jw_begin(w, '[');
}

static void send_list(struct request *r, struct jw *w)
{
    jw_end(w, ']');
    jw_end(w, '}');
    reply_json(r, 200, w->out);
    buf_fini(w->out);
}

static void reply_key(struct request *r, int http_status, const struct tenant_key *k, const char *text)
{
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    put_key(&w, k, text);
    if (text)
        reply_header(r, "Cache-Control", "no-store");
    reply_json(r, http_status, &out);
    buf_fini(&out);
}

static void reply_tenant(struct request *r, int http_status, struct tenant *t)
{
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    put_tenant(&w, t);
    reply_json(r, http_status, &out);
    buf_fini(&out);
}

static void reply_removed(struct request *r, const char *what, const char *name)
{
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    jw_key_text(&w, what, name);
    jw_end(&w, '}');
    reply_json(r, 200, &out);
    buf_fini(&out);
}

/* ---- the path ---- */

/* The segment behind `prefix`, in the request's memory; NULL after a refusal. */
static const char *path_name(struct request *r, const char *prefix)
{
    const char *from = r->path + strlen(prefix);
    const char *name = arena_strndup(r->arena, from, strcspn(from, "/"));
    if (!name)
        admin_fail(r, STATUS_NO_MEMORY, "no memory for the request", NULL, NULL);
    return name;
}

static void no_tenant(struct request *r, const char *name)
{
    char message[160];
    snprintf(message, sizeof message, "there is no tenant \"%.80s\"", name);
    admin_fail(r, STATUS_NOT_FOUND, message, NULL, "unknown_tenant");
}

static struct tenant *path_tenant(struct request *r)
{
    const char *name = path_name(r, TENANTS_PATH);
    struct tenant *t = name ? tenants_find(r->server->tenants, name) : NULL;
    if (name && !t)
        no_tenant(r, name);
    return t;
}

/* ---- lists ---- */

void api_tenants_list(struct request *r)
{
    const struct tenants *all = r->server->tenants;
    struct buf out;
    struct jw w;
    begin_list(&w, &out);
    for (size_t i = 0; i < tenants_count(all); i++)
        put_tenant(&w, tenants_at(all, i));
    send_list(r, &w);
}

void api_tenants_get(struct request *r)
{
    struct tenant *t = path_tenant(r);
    if (t)
        reply_tenant(r, 200, t);
}

void api_keys_list(struct request *r)
{
    const struct tenants *all = r->server->tenants;
    const char *tenant = request_arg(r, "tenant");
    struct buf out;
    struct jw w;
    if (tenant && !tenants_find(all, tenant)) {
        no_tenant(r, tenant);
        return;
    }
    begin_list(&w, &out);
    for (size_t i = 0; i < tenants_n_keys(all); i++) {
        const struct tenant_key *k = tenants_key_at(all, i);
        if (!tenant || strcmp(k->tenant, tenant) == 0)
            put_key(&w, k, NULL);
    }
    send_list(r, &w);
}

/* ---- changes ---- */

static struct change *make_change(struct request *r, const char *name, const char *operation)
{
    struct change *c = arena_alloc(r->arena, sizeof *c);
    if (!c) {
        admin_fail(r, STATUS_NO_MEMORY, "no memory for the request", NULL, NULL);
        return NULL;
    }
    *c = (struct change){.r = r, .name = name};
    c->store = (struct store_change){
        .wall_ms = clock_wall_ms(), .operation = operation, .object = name, .by = r->peer};
    return c;
}

static enum status write_change(struct keep_job *j, struct tenant_store *store, struct error *err)
{
    return tenant_store_apply(store, &((struct change *)j)->store, err);
}

static void begin_change(struct change *c, enum status (*prepare)(struct keep_job *j, struct error *err),
                         void (*done)(struct keep_job *j, const struct error *err))
{
    c->job = (struct keep_job){.prepare = prepare, .work = write_change, .done = done};
    request_hold(c->r);
    tenant_keeper_do(c->r->server->tenant_keeper, &c->job);
}

/* True: it failed, which has been answered. */
static bool failed(struct change *c, const struct error *err)
{
    if (!err)
        return false;
    bool ours = c->code || err->status == STATUS_UNSUPPORTED;
    admin_fail(c->r, err->status, err->text, NULL, c->code ? c->code : ours ? "no_state" : "not_persisted");
    return true;
}

static void log_change(const struct change *c)
{
    LOG_EVENT(&c->r->server->log, LOG_INFO, c->store.operation, LOG_TEXT("object", c->store.object),
              LOG_TEXT("by", c->r->peer));
}

static enum status refuse(struct change *c, struct error *err, enum status s, const char *code,
                          const char *text)
{
    c->code = code;
    return fail(err, s, "%s", text);
}

static bool is_file_tenant(const struct change *c)
{
    const struct tenant *t = tenants_find(c->r->server->tenants, c->name);
    return t && t->specs[FROM_FILE];
}

static enum status check_not_file(struct keep_job *j, struct error *err)
{
    struct change *c = (struct change *)j;
    return is_file_tenant(c) ? refuse(c, err, STATUS_CONFLICT, "in_file",
                                      "this tenant is in the tenants file; change it there, then send SIGHUP")
                             : STATUS_OK;
}

static void tenant_written(struct keep_job *j, const struct error *err)
{
    struct change *c = (struct change *)j;
    struct request *r = c->r;
    struct tenants *all = r->server->tenants;
    struct error e;
    if (!failed(c, err)) {
        bool is_new = tenants_find(all, c->name) == NULL;
        enum status s = tenants_put(all, c->name, FROM_STATE, c->spec, c->store.wall_ms, &e);
        if (s == STATUS_OK) {
            c->spec = NULL;
            log_change(c);
            reply_tenant(r, is_new ? 201 : 200, tenants_find(all, c->name));
        } else {
            admin_fail(r, s, e.text, NULL, NULL);
        }
    }
    tenant_spec_release(c->spec);
    request_release(r);
}

static enum status check_put(struct keep_job *j, struct error *err)
{
    struct change *c = (struct change *)j;
    const struct tenants *all = c->r->server->tenants;
    enum status s = check_not_file(j, err);
    if (s == STATUS_OK && !tenants_find(all, c->name) && tenants_count(all) >= TENANTS_MAX)
        s = refuse(c, err, STATUS_FULL, "too_many", "there are as many tenants as may be");
    return s;
}

void api_tenants_put(struct request *r)
{
    const char *name = path_name(r, TENANTS_PATH);
    struct change *c = name ? make_change(r, name, "tenant") : NULL;
    struct fault f = {0};
    json_t *body = NULL;
    if (!c)
        return;
    enum status s = admin_body(r, &body, &f);
    if (s == STATUS_OK)
        s = tenant_spec_parse(name, body, &c->spec, &f);
    json_decref(body);
    if (s != STATUS_OK) {
        reply_fault(r, &f);
        return;
    }
    c->store.tenant = name;
    c->store.spec = c->spec->text;
    begin_change(c, check_put, tenant_written);
}

static void tenant_removed(struct keep_job *j, const struct error *err)
{
    struct change *c = (struct change *)j;
    struct tenants *all = c->r->server->tenants;
    struct error e;
    if (!failed(c, err)) {
        /* To take away needs no memory: both always succeed. */
        enum status s = tenants_put(all, c->name, FROM_STATE, NULL, 0, &e);
        require(s == STATUS_OK);
        tenants_drop_keys(all, FROM_STATE, c->name);
        log_change(c);
        reply_removed(c->r, "removed", c->name);
    }
    request_release(c->r);
}

void api_tenants_delete(struct request *r)
{
    struct tenant *t = path_tenant(r);
    const char *name = t ? arena_strdup(r->arena, t->name) : NULL;
    struct change *c = name ? make_change(r, name, "tenant removed") : NULL;
    if (!c)
        return;
    c->store.tenant = name;
    begin_change(c, check_not_file, tenant_removed);
}

/* ---- keys ---- */

static void key_written(struct keep_job *j, const struct error *err)
{
    struct change *c = (struct change *)j;
    struct tenants *all = c->r->server->tenants;
    struct error e;
    if (!failed(c, err)) {
        if (c->store.revoke)
            tenants_revoke(all, c->store.revoke, c->store.wall_ms);
        enum status s = tenants_add_key(all, &c->key, &e);
        if (s == STATUS_OK) {
            log_change(c);
            reply_key(c->r, 201, &c->key, c->text);
        } else {
            admin_fail(c->r, s, e.text, NULL, NULL);
        }
    }
    gnutls_memset(c->text, 0, sizeof c->text);
    request_release(c->r);
}

static enum status check_key(struct keep_job *j, struct error *err)
{
    struct change *c = (struct change *)j;
    const struct tenants *all = c->r->server->tenants;
    const struct tenant *t = tenants_find(all, c->key.tenant);
    if (!t || !tenant_spec_of(t))
        return refuse(c, err, STATUS_NOT_FOUND, "unknown_tenant", "the tenant was removed meanwhile");
    if (tenants_n_keys(all) >= TENANT_KEYS_MAX)
        return refuse(c, err, STATUS_FULL, "too_many", "there are as many keys as may be");
    if (tenants_n_active(all, c->key.tenant, c->key.name) >= KEYS_ACTIVE_MAX)
        return refuse(c, err, STATUS_CONFLICT, "two_active",
                      "two keys of this name are active; revoke one, or rotate: that revokes the older one");
    return STATUS_OK;
}

static enum status check_rotate(struct keep_job *j, struct error *err)
{
    struct change *c = (struct change *)j;
    const struct tenants *all = c->r->server->tenants;
    const struct tenant_key *oldest = tenants_oldest(all, c->key.tenant, c->key.name);
    bool two = tenants_n_active(all, c->key.tenant, c->key.name) >= KEYS_ACTIVE_MAX;
    if (!two || !oldest)
        return check_key(j, err);
    c->store.revoke = arena_strdup(c->r->arena, oldest->id);
    return c->store.revoke ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "no memory for the request");
}

/* A new key for a tenant's name. */
static void make_key(struct request *r, const char *tenant, const char *name, const char *operation,
                     enum status (*prepare)(struct keep_job *j, struct error *err))
{
    struct change *c = make_change(r, tenant, operation);
    if (!c)
        return;
    if (!key_make(c->text, c->key.id)) {
        admin_fail(r, STATUS_INTERNAL, "the machine gives no random bytes", NULL, NULL);
        return;
    }
    key_digest(c->text, c->key.digest);
    c->key.origin = FROM_STATE;
    c->key.created_ms = c->store.wall_ms;
    snprintf(c->key.tenant, sizeof c->key.tenant, "%s", tenant);
    snprintf(c->key.name, sizeof c->key.name, "%s", name);
    c->store.key = &c->key;
    c->store.object = arena_printf(r->arena, "%s/%s", tenant, c->key.id);
    begin_change(c, prepare, key_written);
}

void api_keys_make(struct request *r)
{
    struct fault f = {0};
    json_t *body = NULL;
    const char *tenant = NULL, *name = "default";
    enum status s = admin_body(r, &body, &f);
    if (s == STATUS_OK) {
        struct reader rd = {.object = body, .fault = &f};
        if (!read_text(&rd, "tenant", &tenant))
            read_fail(&rd, STATUS_INVALID, "tenant", "tenant: missing");
        if (read_text(&rd, "name", &name) && !adapter_name_is_valid(name))
            read_fail(
                &rd, STATUS_INVALID, "name",
                "name: \"%.80s\" must begin with a letter or digit and hold at most 64 letters, digits, "
                "'.', '_' and '-'",
                name);
        s = rd.status;
    }
    const struct tenant *t = s == STATUS_OK ? tenants_find(r->server->tenants, tenant) : NULL;
    if (s != STATUS_OK)
        reply_fault(r, &f);
    else if (!t || !tenant_spec_of(t))
        no_tenant(r, tenant);
    else
        make_key(r, t->name, name, "key", check_key);
    json_decref(body);
}

/* The key of the path, or NULL after a refusal. */
static const struct tenant_key *path_key(struct request *r)
{
    const char *id = path_name(r, KEYS_PATH);
    const struct tenant_key *k = id ? tenants_key(r->server->tenants, id) : NULL;
    if (id && !k)
        admin_fail(r, STATUS_NOT_FOUND, "there is no such key", NULL, "unknown_key");
    return k;
}

void api_keys_rotate(struct request *r)
{
    const struct tenant_key *k = path_key(r);
    if (k)
        make_key(r, k->tenant, k->name, "key rotated", check_rotate);
}

static void key_revoked(struct keep_job *j, const struct error *err)
{
    struct change *c = (struct change *)j;
    struct tenants *all = c->r->server->tenants;
    const struct tenant_key *k;
    if (!failed(c, err)) {
        tenants_revoke(all, c->name, c->store.wall_ms);
        log_change(c);
        k = tenants_key(all, c->name);
        if (k)
            reply_key(c->r, 200, k, NULL);
        else
            reply_removed(c->r, "revoked", c->name);
    }
    request_release(c->r);
}

void api_keys_revoke(struct request *r)
{
    const struct tenant_key *k = path_key(r);
    const char *id = k ? arena_strdup(r->arena, k->id) : NULL;
    if (!id)
        return;
    if (k->origin == FROM_FILE) {
        admin_fail(r, STATUS_CONFLICT, "this key is in the tenants file; take it out there, then send SIGHUP",
                   NULL, "in_file");
        return;
    }
    struct change *c = make_change(r, id, "key revoked");
    if (!c)
        return;
    c->store.revoke = id;
    c->store.object = arena_printf(r->arena, "%s/%s", k->tenant, id);
    begin_change(c, NULL, key_revoked);
}
