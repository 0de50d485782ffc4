/* PUT /admin/v1/adapters/{name} and …/reload: a version from files, or a name for a blend. */
#include <string.h>

#include "adapter_ops.h"
#include "admin_reply.h"
#include "api.h"
#include "api_parse.h"
#include "server.h"
#include "voices.h"

static void reply_loaded(struct request *r, const struct load_order *o)
{
    struct registry *registry = r->server->registry;
    const struct adapter *a = registry_find(registry, o->wish.name);
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    jw_key_bool(&w, "dry_run", o->dry_run);
    jw_key_bool(&w, "unchanged", o->unchanged);
    jw_key_bool(&w, "created", o->created);
    jw_key_int(&w, "generation", (int64_t)o->generation_now);
    jw_key(&w, "report");
    if (o->version)
        put_report(&w, o->version);
    else
        jw_null(&w);
    jw_key(&w, "adapter");
    if (a)
        put_adapter(&w, r->server, a);
    else
        jw_null(&w);
    jw_end(&w, '}');
    if (a)
        admin_etag(r, a->revision);
    reply_json(r, o->created && !o->dry_run ? 201 : 200, &out);
    buf_fini(&out);
}

static void load_done(struct load_order *o, void *data)
{
    struct request *r = data;
    if (o->status == STATUS_OK)
        reply_loaded(r, o);
    else
        admin_fail(r, o->status, o->err.text, NULL, o->code);
    request_release(r);
}

static void registered(enum status s, const struct error *err, void *data)
{
    struct load_order *o = data;
    struct request *r = o->data;
    o->status = s;
    o->code = s == STATUS_OK ? NULL : "not_persisted";
    if (err)
        o->err = *err;
    load_done(o, r);
}

/* A name without bytes: a blend, or an adapter for later. */
static enum status register_name(struct request *r, struct load_order *o, struct fault *f)
{
    struct registry *registry = r->server->registry;
    struct load_order *kept = arena_alloc(r->arena, sizeof *kept);
    const struct adapter *before = registry_find(registry, o->wish.name);
    struct adapter *a;
    enum status s = admin_check_revision(r, before, &f->error);
    if (s != STATUS_OK)
        return s;
    if (!kept)
        return fault_set(f, STATUS_NO_MEMORY, NULL, "no memory for the request");
    /* The name may be gone, and the body is, when the answer is written. */
    *kept = *o;
    kept->wish = (struct adapter_wish){.name = o->wish.name};
    kept->created = before == NULL;
    kept->data = r;
    if (o->dry_run) {
        reply_loaded(r, kept);
        return STATUS_OK;
    }
    s = registry_register(registry, &o->wish, &a, &f->error);
    if (s != STATUS_OK)
        return s;
    kept->generation_now = a->stable;
    request_hold(r);
    adapter_ops_keep(r->server->adapter_ops, a->wish.name,
                     &(struct keep_note){.operation = "register", .by = r->peer}, registered, kept);
    return STATUS_OK;
}

static enum status check_name(const struct server *s, const char *name, struct fault *f)
{
    if (!adapter_name_is_valid(name)) {
        fault_set(f, STATUS_INVALID, "name",
                  "name: '%.80s' must begin with a letter or digit and hold at most 64 letters, digits, '.', "
                  "'_' and '-'",
                  name);
        snprintf(f->code, sizeof f->code, "name_invalid");
        return STATUS_INVALID;
    }
    if (voice_is_base(name, s->base.name))
        return fault_set(f, STATUS_EXISTS, "name", "name: '%s' means the base model itself", name);
    return STATUS_OK;
}

static void read_publish(struct reader *rd, struct load_order *o)
{
    const char *text = NULL;
    bool load = true;
    read_bool(rd, "load", &load);
    o->register_only = !load;
    if (!read_text(rd, "publish", &text))
        return;
    if (strcmp(text, "stable") == 0)
        o->as = PUBLISH_STABLE;
    else if (strcmp(text, "canary") == 0)
        o->as = PUBLISH_CANARY;
    else if (strcmp(text, "shadow") == 0)
        o->as = PUBLISH_SHADOW;
    else if (strcmp(text, "none") == 0)
        o->register_only = true;
    else
        read_fail(rd, STATUS_INVALID, "publish",
                  "publish: found \"%.40s\", expected stable, canary, shadow or none", text);
}

/* Only what is known: a misspelt wish must not be taken for granted. */
static void refuse_unknown(struct reader *rd, json_t *body)
{
    static const char known[] = " source scale pinned merge effect_test publish sha256 load blend ";
    const char *key;
    json_t *value;
    json_object_foreach(body, key, value)
    {
        char padded[40];
        (void)value;
        snprintf(padded, sizeof padded, " %.30s ", key);
        if (!strstr(known, padded))
            read_fail(rd, STATUS_INVALID, key, "%.40s: unknown field; known are%s", key, known);
    }
}

static void read_order(struct reader *rd, json_t *body, struct load_order *o)
{
    const char *text = NULL;
    refuse_unknown(rd, body);
    read_text(rd, "source", &o->wish.source);
    read_text(rd, "blend", &o->wish.blend);
    admin_read_modes(rd, &o->wish);
    read_float(rd, "scale", -1000, 1000, &o->wish.scale);
    read_publish(rd, o);
    if (read_text(rd, "sha256", &text)) {
        if (strlen(text) != 64 || strspn(text, "0123456789abcdef") != 64)
            read_fail(rd, STATUS_INVALID, "sha256", "sha256: expected 64 lower-case hex digits");
        else
            memcpy(o->sha256, text, 65);
    }
    if (json_is_string(json_object_get(rd->object, "source")) && !json_object_get(rd->object, "blend"))
        o->wish.blend = ""; /* a name that was a blend gets files */
    if (o->wish.blend[0] && json_object_get(rd->object, "source"))
        read_fail(rd, STATUS_INVALID, "blend", "blend: a blend has no source of its own");
}

static enum status begin(struct request *r, struct load_order *o, struct fault *f)
{
    struct server *s = r->server;
    const char *code = NULL;
    enum status st = STATUS_OK;
    if (o->wish.blend[0]) {
        o->wish.source = "";
        st = voice_blend_check(s, o->wish.name, o->wish.blend, &f->error);
        return st == STATUS_OK ? register_name(r, o, f) : st;
    }
    if (!o->wish.source[0])
        return fault_set(f, STATUS_INVALID, "source", "source: a path below an adapter root, or a URL");
    if (!o->wish.from_folder)
        st = adapter_ops_check_source(s->adapter_ops, o->wish.source, &code, &f->error);
    if (st != STATUS_OK) {
        snprintf(f->param, sizeof f->param, "source");
        snprintf(f->code, sizeof f->code, "%s", code ? code : "");
        return st;
    }
    if (o->register_only)
        return register_name(r, o, f);
    snprintf(o->who, sizeof o->who, "%s", r->peer);
    request_hold(r);
    st = adapter_ops_load(s->adapter_ops, o, &f->error);
    if (st != STATUS_OK)
        request_release(r);
    return st;
}

/* A new version of the name: from the body, or (reload) as before. */
static void put(struct request *r, bool reload)
{
    struct fault f = {0};
    json_t *body = NULL;
    const char *name = admin_name(r), *dry = request_arg(r, "dry_run");
    enum status s = server_serving(r->server, &f.error);
    const struct adapter *a = name ? registry_find(r->server->registry, name) : NULL;
    struct load_order o = admin_order(r, name, load_done);
    o.must_be_same = reload;
    o.dry_run = dry && strcmp(dry, "0") != 0 && strcmp(dry, "false") != 0;
    if (s == STATUS_OK && !name)
        s = fault_set(&f, STATUS_NO_MEMORY, NULL, "no memory for the request");
    if (s == STATUS_OK)
        s = check_name(r->server, name, &f);
    if (s == STATUS_OK && reload && !a) {
        s = fault_set(&f, STATUS_NOT_FOUND, NULL, "adapter \"%s\" does not exist", name);
        snprintf(f.code, sizeof f.code, "unknown_adapter");
    }
    if (s == STATUS_OK)
        s = admin_body(r, &body, &f);
    if (s == STATUS_OK) {
        struct reader rd = {.object = body, .fault = &f};
        if (!reload)
            read_order(&rd, body, &o);
        s = rd.status;
    }
    if (s == STATUS_OK && a && strcmp(o.wish.source, a->wish.source) != 0)
        o.wish.from_folder = false;
    if (s == STATUS_OK)
        s = admin_wanted_revision(r, &o.has_revision, &o.revision, &f.error);
    if (s == STATUS_OK)
        s = begin(r, &o, &f);
    if (s != STATUS_OK)
        admin_fail_fault(r, &f);
    json_decref(body);
}

void api_admin_put(struct request *r)
{
    put(r, false);
}

void api_admin_reload(struct request *r)
{
    put(r, true);
}
