/* GET /v1/models, /v1/models/NAME: the base, the adapters and the named blends, as vLLM lists them. No paths:
 * `root` is a name. */
#include <string.h>

#include "api.h"
#include "registry.h"
#include "server.h"
#include "tenant_gate.h"
#include "voice_tenant.h"

static uint32_t context_of(const struct request *r)
{
    const struct tenant_spec *spec = gate_spec(r);
    return spec && spec->context < r->server->context ? spec->context : r->server->context;
}

/* What begins each: OpenAI's fields, and those that Anthropic's clients read in the same list. */
static void begin_model(struct jw *w, const char *id, int64_t created_ms)
{
    jw_begin(w, '{');
    jw_key_text(w, "id", id);
    jw_key_text(w, "object", "model");
    jw_key_int(w, "created", created_ms / 1000);
    jw_key_text(w, "owned_by", "lorikeet");
    jw_key_text(w, "type", "model");
    jw_key_text(w, "display_name", id);
    jw_key_time(w, "created_at", created_ms);
}

/* What a tenant calls `voice`. */
static void put_alias(struct jw *w, const struct request *r, const char *name, const char *voice)
{
    const struct server *s = r->server;
    begin_model(w, name, s->started_wall_ms);
    jw_key_text(w, "root", voice);
    jw_key_text(w, "parent", s->base.name);
    jw_key_int(w, "max_model_len", context_of(r));
    jw_end(w, '}');
}

/* What llama-server's clients look for. */
static void put_meta(struct jw *w, const struct server *s)
{
    const struct model_info *info = model_info(s->base.model);
    const struct model_config *m = model_config(s->base.model);
    jw_key(w, "meta");
    jw_begin(w, '{');
    jw_key_int(w, "n_vocab", m->vocab_size);
    jw_key_int(w, "n_ctx_train", m->max_position);
    jw_key_int(w, "n_embd", m->hidden_size);
    jw_key_int(w, "n_params", (int64_t)info->n_parameters);
    jw_key_int(w, "size", (int64_t)info->size_bytes);
    jw_end(w, '}');
}

/* a NULL: the base. An adapter without a generation was never loaded; the first request for it does that. */
static void put_model(struct jw *w, const struct request *r, const struct adapter *a)
{
    const struct server *s = r->server;
    const char *base = s->base.name;
    const struct version_record *v = a ? registry_record(a, a->stable) : NULL;
    begin_model(w, a ? a->wish.name : base, v ? v->published_wall_ms : s->started_wall_ms);
    jw_key_text(w, "root", a ? a->wish.name : base);
    jw_key_text(w, "parent", a ? base : NULL);
    jw_key_int(w, "max_model_len", context_of(r));
    if (v) {
        jw_key_int(w, "generation", (int64_t)v->generation);
        jw_key_text(w, "digest", v->digest_hex);
    }
    if (a && a->wish.blend && a->wish.blend[0])
        jw_key_text(w, "blend", a->wish.blend);
    if (!a)
        put_meta(w, s);
    jw_end(w, '}');
}

/* The voice that rules choose. */
static void put_auto(struct jw *w, const struct server *s)
{
    begin_model(w, AUTO_NAME, s->started_wall_ms);
    jw_key_text(w, "root", s->base.name);
    jw_key_text(w, "parent", s->base.name);
    jw_key_int(w, "max_model_len", s->context);
    jw_end(w, '}');
}

/* Those that this request may name; a tenant's own names first. */
static void put_all(struct jw *w, const struct request *r)
{
    const struct tenant_spec *spec = gate_spec(r);
    for (uint32_t i = 0; spec && i < spec->n_aliases; i++)
        put_alias(w, r, spec->aliases[i].name, spec->aliases[i].voice);
    if (voice_base_allowed(r))
        put_model(w, r, NULL);
    if (r->server->conf->n_auto_rules && gate_may_use(r, AUTO_NAME))
        put_auto(w, r->server);
    for (size_t i = 0; i < registry_count(r->server->registry); i++) {
        const struct adapter *a = registry_at(r->server->registry, i);
        bool hidden = spec && tenant_spec_alias(spec, a->wish.name);
        if (gate_may_use(r, a->wish.name) && !hidden)
            put_model(w, r, a);
    }
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
    put_all(&w, r);
    jw_end(&w, ']');
    jw_key_bool(&w, "has_more", false); /* Anthropic's pages */
    jw_key_text(&w, "first_id", NULL);
    jw_key_text(&w, "last_id", NULL);
    jw_end(&w, '}');
    reply_json(r, 200, &out);
    buf_fini(&out);
}

void api_model(struct request *r)
{
    const char *name = r->path + strlen("/v1/models/");
    const struct adapter *a = NULL;
    const char *alias = NULL;
    struct fault f = {0};
    enum status s = server_serving(r->server, &f.error);
    if (s == STATUS_OK)
        s = voice_single(r, name, &a, &alias, &f);
    if (s != STATUS_OK) {
        reply_fault(r, &f);
        return;
    }
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    if (alias)
        put_alias(&w, r, name, alias);
    else
        put_model(&w, r, a);
    reply_json(r, 200, &out);
    buf_fini(&out);
}
