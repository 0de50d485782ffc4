/* GET /v1/models, /v1/models/NAME: the base, the adapters and the named blends, as vLLM lists them. No paths:
 * `root` is a name. */
#include <string.h>

#include "api.h"
#include "registry.h"
#include "server.h"
#include "voices.h"

/* a NULL: the base. An adapter without a generation was never loaded; the first request for it does that. */
static void put_model(struct jw *w, const struct server *s, const struct adapter *a)
{
    const char *base = s->base.name;
    const struct version_record *v = a ? registry_record(a, a->stable) : NULL;
    jw_begin(w, '{');
    jw_key_text(w, "id", a ? a->wish.name : base);
    jw_key_text(w, "object", "model");
    jw_key_int(w, "created", (v ? v->published_wall_ms : s->started_wall_ms) / 1000);
    jw_key_text(w, "owned_by", "lorikeet");
    jw_key_text(w, "root", a ? a->wish.name : base);
    jw_key_text(w, "parent", a ? base : NULL);
    jw_key_int(w, "max_model_len", s->context);
    if (v) {
        jw_key_int(w, "generation", (int64_t)v->generation);
        jw_key_text(w, "digest", v->digest_hex);
    }
    if (a && a->wish.blend && a->wish.blend[0])
        jw_key_text(w, "blend", a->wish.blend);
    jw_end(w, '}');
}

/* The voice that rules choose. */
static void put_auto(struct jw *w, const struct server *s)
{
    jw_begin(w, '{');
    jw_key_text(w, "id", AUTO_NAME);
    jw_key_text(w, "object", "model");
    jw_key_int(w, "created", s->started_wall_ms / 1000);
    jw_key_text(w, "owned_by", "lorikeet");
    jw_key_text(w, "root", s->base.name);
    jw_key_text(w, "parent", s->base.name);
    jw_key_int(w, "max_model_len", s->context);
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
    if (s->conf->n_auto_rules)
        put_auto(&w, s);
    for (size_t i = 0; i < registry_count(s->registry); i++)
        put_model(&w, s, registry_at(s->registry, i));
    jw_end(&w, ']');
    jw_end(&w, '}');
    reply_json(r, 200, &out);
    buf_fini(&out);
}

void api_model(struct request *r)
{
    const char *name = r->path + strlen("/v1/models/");
    const struct adapter *a = NULL;
    struct fault f = {0};
    enum status s = server_serving(r->server, &f.error);
    if (s == STATUS_OK)
        s = voice_single(r->server, name, &a, &f);
    if (s != STATUS_OK) {
        reply_fault(r, &f);
        return;
    }
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    put_model(&w, r->server, a);
    reply_json(r, 200, &out);
    buf_fini(&out);
}
