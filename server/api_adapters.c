/* Adapters at run time, on the admin listener: vLLM's /v1/load_lora_adapter and /v1/unload_lora_adapter with
 * its texts and its form of errors (`code` is the HTTP status), and a list of our own. */
#include <string.h>

#include "admin_reply.h"
#include "api.h"
#include "api_parse.h"
#include "server.h"
#include "voice_expr.h"

static void reply_admin_error(struct request *r, int http_status, const char *message)
{
    const char *type = http_status == 404   ? "NotFoundError"
                       : http_status == 400 ? "InvalidUserInput"
                       : http_status == 503 ? "ServiceUnavailableError"
                                            : "InternalServerError";
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    jw_key(&w, "error");
    jw_begin(&w, '{');
    jw_key_text(&w, "message", message);
    jw_key_text(&w, "type", type);
    jw_key_text(&w, "param", NULL);
    jw_key_int(&w, "code", http_status);
    jw_end(&w, '}');
    jw_end(&w, '}');
    if (http_status == 503)
        reply_header(r, "Retry-After", "1");
    reply_json(r, http_status, &out);
    buf_fini(&out);
}

static void reply_success(struct request *r, const char *name, const char *what)
{
    char text[160];
    int n = snprintf(text, sizeof text, "Success: LoRA adapter '%s' %s successfully.", name, what);
    reply_send(r, 200, "text/plain; charset=utf-8", text, (size_t)n);
}

static void load_done(struct load_order *o, void *data)
{
    struct request *r = data;
    char message[600];
    if (o->status == STATUS_OK) {
        char generation[24];
        snprintf(generation, sizeof generation, "%llu", (unsigned long long)o->generation_now);
        reply_header(r, "X-Adapter", o->wish.name);
        reply_header(r, "X-Adapter-Generation", generation);
        reply_success(r, o->wish.name, "added");
    } else {
        int status = http_status_of(o->status);
        snprintf(message, sizeof message, "Loading lora '%s' failed: %s", o->wish.name, o->err.text);
        reply_admin_error(r, status, message);
    }
    request_release(r);
}

struct load_body {
    const char *name, *path;
    bool in_place;
    double scale;
};

/* Checks that need no file. */
static enum status check_load(struct server *s, const struct load_body *b, struct fault *f)
{
    if (!b->name || !b->name[0] || !b->path || !b->path[0])
        return fault_set(f, STATUS_INVALID, NULL, "Both 'lora_name' and 'lora_path' must be provided.");
    if (!adapter_name_is_valid(b->name))
        return fault_set(
            f, STATUS_INVALID, NULL,
            "lora_name: '%.80s' must begin with a letter or digit and hold at most 64 letters, digits, "
            "'.', '_' and '-'",
            b->name);
    if (voice_is_base(b->name, s->base.name))
        return fault_set(f, STATUS_INVALID, NULL, "lora_name: '%s' means the base model itself", b->name);
    if (registry_find(s->registry, b->name) && !b->in_place)
        return fault_set(
            f, STATUS_EXISTS, NULL,
            "The lora adapter '%s' has already been loaded. If you want to load the adapter in place, "
            "set 'load_inplace' to True.",
            b->name);
    return adapter_ops_check_source(s->adapter_ops, b->path, &(const char *){NULL}, &f->error);
}

static enum status begin_load(struct request *r, const json_t *body, struct fault *f)
{
    struct reader rd = {.object = body, .fault = f};
    struct load_body b = {.scale = 1};
    read_text(&rd, "lora_name", &b.name);
    read_text(&rd, "lora_path", &b.path);
    read_bool(&rd, "load_inplace", &b.in_place);
    read_float(&rd, "scale", -1000, 1000, &b.scale);
    enum status s = rd.status == STATUS_OK ? check_load(r->server, &b, f) : rd.status;
    if (s != STATUS_OK)
        return s;
    struct load_order o = admin_order(r, b.name, load_done);
    o.must_be_new = !b.in_place;
    o.wish.source = b.path;
    o.wish.blend = "";
    o.wish.scale = b.scale;
    o.wish.from_folder = false;
    return admin_load(r, &o, &f->error);
}

static void unloaded(enum status s, const struct error *err, void *data)
{
    struct request *r = data;
    if (s == STATUS_OK)
        reply_success(r, r->state, "removed");
    else
        reply_admin_error(r, http_status_of(s), err->text);
    request_release(r);
}

static enum status unload(struct request *r, const json_t *body, struct fault *f)
{
    struct reader rd = {.object = body, .fault = f};
    const char *name = NULL;
    read_text(&rd, "lora_name", &name);
    if (rd.status != STATUS_OK)
        return rd.status;
    if (!name || !name[0])
        return fault_set(f, STATUS_INVALID, NULL,
                         "'lora_name' needs to be provided to unload a LoRA adapter.");
    r->state = arena_strdup(r->arena, name);
    if (!r->state)
        return fault_set(f, STATUS_NO_MEMORY, NULL, "no memory for the request");
    enum status s = admin_remove(r, name, NULL, unloaded, &f->error);
    if (s == STATUS_NOT_FOUND)
        return fault_set(f, s, NULL, "The lora adapter '%.80s' cannot be found.", name);
    return s;
}

static void refuse(struct request *r, enum status s, const char *message)
{
    reply_admin_error(r, http_status_of(s), message);
}

void api_adapter_load(struct request *r)
{
    admin_with_body(r, begin_load, refuse);
}

void api_adapter_unload(struct request *r)
{
    admin_with_body(r, unload, refuse);
}

static void put_row(struct jw *w, const struct adapter *a)
{
    const struct version_record *record = registry_record(a, a->stable);
    const struct adapter_version *v = record ? record->version : NULL;
    jw_begin(w, '{');
    jw_key_text(w, "lora_name", a->wish.name);
    jw_key_int(w, "generation", (int64_t)a->stable);
    jw_key_text(w, "digest", record ? record->digest_hex : NULL);
    jw_key_text(w, "source", a->wish.source);
    jw_key_float(w, "scale", a->wish.scale);
    jw_key_bool(w, "resident", v != NULL);
    if (v)
        put_report_fields(w, v);
    jw_end(w, '}');
}

void api_adapter_list(struct request *r)
{
    const struct server *s = r->server;
    struct error err;
    if (server_serving(s, &err) != STATUS_OK) {
        reply_admin_error(r, 503, err.text);
        return;
    }
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    jw_key_text(&w, "object", "list");
    jw_key_text(&w, "base", s->base.name);
    jw_key(&w, "data");
    jw_begin(&w, '[');
    for (size_t i = 0; i < registry_count(s->registry); i++)
        put_row(&w, registry_at(s->registry, i));
    jw_end(&w, ']');
    jw_end(&w, '}');
    reply_json(r, 200, &out);
    buf_fini(&out);
}
