/* SGLang's /load_lora_adapter and /unload_lora_adapter, in its wire form: 200 or 400 with `success`,
 * `error_message` and the names that are loaded now. */
#include <stdio.h>
#include <string.h>

#include "adapter_ops.h"
#include "api.h"
#include "api_parse.h"
#include "server.h"
#include "voice_expr.h"

static void reply_result(struct request *r, enum status st, const char *message)
{
    const struct server *s = r->server;
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    jw_key_bool(&w, "success", st == STATUS_OK);
    jw_key_text(&w, "error_message", message ? message : "");
    jw_key(&w, "loaded_adapters");
    jw_begin(&w, '{');
    for (size_t i = 0; i < registry_count(s->registry); i++) {
        const struct adapter *a = registry_at(s->registry, i);
        jw_key_text(&w, a->wish.name, a->wish.source);
    }
    jw_end(&w, '}');
    jw_end(&w, '}');
    reply_json(r, st == STATUS_OK ? 200 : 400, &out);
    buf_fini(&out);
}

static void load_done(struct load_order *o, void *data)
{
    struct request *r = data;
    reply_result(r, o->status, o->err.text);
    request_release(r);
}

static enum status begin_load(struct request *r, const json_t *body, struct fault *f)
{
    struct reader rd = {.object = body, .fault = f};
    struct load_order o = {.wish = {.source = "", .blend = "", .scale = 1, .effect = r->server->conf->effect},
                           .as = PUBLISH_STABLE,
                           .must_be_new = true,
                           .by = "api",
                           .done = load_done,
                           .data = r};
    read_text(&rd, "lora_name", &o.wish.name);
    read_text(&rd, "lora_path", &o.wish.source);
    read_bool(&rd, "pinned", &o.wish.pinned);
    if (rd.status != STATUS_OK)
        return rd.status;
    if (!o.wish.name || !adapter_name_is_valid(o.wish.name) ||
        voice_is_base(o.wish.name, r->server->base.name))
        return fault_set(f, STATUS_INVALID, "lora_name",
                         "lora_name: a name of at most 64 letters, digits, '.', '_' and '-' is needed, other "
                         "than the base's");
    enum status s =
        adapter_ops_check_source(r->server->adapter_ops, o.wish.source, &(const char *){NULL}, &f->error);
    if (s != STATUS_OK)
        return s;
    snprintf(o.who, sizeof o.who, "%s", r->peer);
    request_hold(r);
    s = adapter_ops_load(r->server->adapter_ops, &o, &f->error);
    if (s != STATUS_OK)
        request_release(r);
    return s;
}

static void unloaded(enum status s, const struct error *err, void *data)
{
    struct request *r = data;
    reply_result(r, s, s == STATUS_OK ? NULL : err->text);
    request_release(r);
}

static enum status unload(struct request *r, const json_t *body, struct fault *f)
{
    struct reader rd = {.object = body, .fault = f};
    const char *name = NULL;
    read_text(&rd, "lora_name", &name);
    if (rd.status != STATUS_OK)
        return rd.status;
    enum status s = registry_remove(r->server->registry, name ? name : "", &f->error);
    if (s != STATUS_OK)
        return s;
    LOG_EVENT(&r->server->log, LOG_INFO, "adapter unloaded", LOG_TEXT("adapter", name));
    request_hold(r);
    adapter_ops_keep(r->server->adapter_ops, name, &(struct keep_note){"remove", r->peer, 0}, unloaded, r);
    return STATUS_OK;
}

static void with_body(struct request *r,
                      enum status (*what)(struct request *r, const json_t *body, struct fault *f))
{
    struct fault f = {0};
    json_t *body = NULL;
    enum status s = server_serving(r->server, &f.error);
    if (s == STATUS_OK)
        s = parse_body(r->body, r->n_body, &body, &f);
    if (s == STATUS_OK)
        s = what(r, body, &f);
    if (s != STATUS_OK)
        reply_result(r, s, f.error.text);
    json_decref(body);
}

void api_sglang_load(struct request *r)
{
    with_body(r, begin_load);
}

void api_sglang_unload(struct request *r)
{
    with_body(r, unload);
}
