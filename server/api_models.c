/* GET /v1/models, /v1/models/NAME: the base and the adapters, as vLLM lists them. No paths: `root` is a name.
 */
#include <string.h>

#include "api.h"
#include "server.h"
#include "voices.h"

static void put_model(struct jw *w, const struct server *s, const struct adapter_version *v)
{
    const char *base = s->base.name;
    jw_begin(w, '{');
    jw_key_text(w, "id", v ? v->name : base);
    jw_key_text(w, "object", "model");
    jw_key_int(w, "created", (v ? v->loaded_wall_ms : s->started_wall_ms) / 1000);
    jw_key_text(w, "owned_by", "lorikeet");
    jw_key_text(w, "root", v ? v->name : base);
    jw_key_text(w, "parent", v ? base : NULL);
    jw_key_int(w, "max_model_len", s->context);
    if (v) {
        jw_key_int(w, "generation", (int64_t)v->generation);
        jw_key_text(w, "digest", v->digest_hex);
    }
    jw_end(w, '}');
}

void api_models(struct request *r)
{
    const struct server *s = r->server;
    struct fault f = {0};
    if (server_serving(s, &f.error) != STATUS_OK) {
        reply_fault(r, &f);
        return;
    }
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    jw_begin(&w, '{');
    jw_key_text(&w, "object", "list");
    jw_key(&w, "data");
    jw_begin(&w, '[');
    put_model(&w, s, NULL);
    for (size_t i = 0; i < registry_count(s->registry); i++) {
        const struct adapter *a = registry_at(s->registry, i);
        const struct version_record *v = registry_record(a, a->stable);
        if (v && v->version)
            put_model(&w, s, v->version);
    }
    jw_end(&w, ']');
    jw_end(&w, '}');
    reply_json(r, 200, &out);
    buf_fini(&out);
}

void api_model(struct request *r)
{
    const char *name = r->path + strlen("/v1/models/");
    struct fault f = {0};
    struct voice v = {0};
    enum status s = server_serving(r->server, &f.error);
    r->adapter_header = NULL; /* the path alone says which */
    if (s == STATUS_OK)
        s = voice_resolve(r, name, &v, &f);
    if (s != STATUS_OK) {
        reply_fault(r, &f);
        return;
    }
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    put_model(&w, r->server, v.version);
    reply_json(r, 200, &out);
    buf_fini(&out);
    voice_release(&v);
}
