/* SGLang's /load_lora_adapter and /unload_lora_adapter, in its wire form: 200 or 400 with `success`,
 * `error_message` and the names that are loaded now. */
#include <stdio.h>
#include <string.h>

#include "admin_reply.h"
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
    const char *name = NULL;
    read_text(&rd, "lora_name", &name);
    struct load_order o = admin_order(r, name, load_done);
    o.must_be_new = true;
    o.wish.blend = "";
    o.wish.scale = 1;
    o.wish.from_folder = false;
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
    return admin_load(r, &o, &f->error);
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
    return admin_remove(r, name ? name : "", NULL, unloaded, &f->error);
}

void api_sglang_load(struct request *r)
{
    admin_with_body(r, begin_load, reply_result);
}

void api_sglang_unload(struct request *r)
{
    admin_with_body(r, unload, reply_result);
}
