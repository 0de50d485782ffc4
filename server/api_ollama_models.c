/* Ollama's list of models and what is said of one: the base, the adapters and the named blends, each under
 * its name with the tag "latest". What changes models there is the operator's here, and answered by 501. */
#include <ctype.h>
#include <string.h>

#include "api.h"
#include "api_parse.h"
#include "auto.h"
#include "base/clock.h"
#include "ollama_json.h"
#include "registry.h"
#include "server.h"
#include "tenant_gate.h"
#include "voice_tenant.h"

/* The API that is spoken here: clients ask for a least version before they use a feature. */
#define OLLAMA_API_VERSION "0.13.0"
#define FOREVER_MS (INT64_C(100) * 365 * 86400 * 1000)

/* ---- one model; a NULL: the base; name: as a tenant calls it, or NULL */

static void put_name(struct jw *w, const struct server *s, const struct adapter *a, const char *name)
{
    static const char *const keys[] = {"name", "model"};
    char text[ADAPTER_NAME_MAX + 16];
    snprintf(text, sizeof text, "%s:latest", name ? name : a ? a->wish.name : s->base.name);
    for (size_t i = 0; i < 2; i++)
        jw_key_text(w, keys[i], text);
}

static void put_digest(struct jw *w, const struct server *s, const struct version_record *v)
{
    const uint8_t *bytes = v ? v->digest : model_info(s->base.model)->digest;
    char hex[65];
    for (size_t i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    jw_key_text(w, "digest", hex);
}

static void put_details(struct jw *w, const struct server *s, const struct adapter *a)
{
    const struct model_info *info = model_info(s->base.model);
    char size[32], type[16];
    double n = (double)info->n_parameters;
    if (n >= 1e9)
        snprintf(size, sizeof size, "%.1fB", n / 1e9);
    else if (n >= 1e6)
        snprintf(size, sizeof size, "%.2fM", n / 1e6);
    else
        snprintf(size, sizeof size, "%.2fK", n / 1e3);
    snprintf(type, sizeof type, "%s", dtype_name(info->weight_type));
    for (char *c = type; *c; c++)
        *c = (char)toupper((unsigned char)*c);
    jw_key(w, "details");
    jw_begin(w, '{');
    jw_key_text(w, "parent_model", a ? s->base.name : "");
    jw_key_text(w, "format", model_config(s->base.model)->from_gguf ? "gguf" : "safetensors");
    jw_key_text(w, "family", info->family);
    jw_key(w, "families");
    jw_begin(w, '[');
    jw_text(w, info->family);
    jw_end(w, ']');
    jw_key_text(w, "parameter_size", size);
    jw_key_text(w, "quantization_level", type);
    jw_end(w, '}');
}

static const struct version_record *record_of(const struct adapter *a)
{
    return a ? registry_record(a, a->stable) : NULL;
}

static int64_t size_of(const struct server *s, const struct adapter *a)
{
    const struct version_record *v = record_of(a);
    return (int64_t)(!a ? model_info(s->base.model)->size_bytes : v ? v->size_bytes : a->file_bytes);
}

static void put_model(struct jw *w, const struct server *s, const struct adapter *a, const char *name)
{
    const struct version_record *v = record_of(a);
    put_name(w, s, a, name);
    if (a && !v) /* nothing of it was read yet */
        jw_key_text(w, "digest", "");
    else
        put_digest(w, s, v);
    jw_key_int(w, "size", size_of(s, a));
    put_details(w, s, a);
}

/* ---- lists */

static void put_installed(struct jw *w, const struct server *s, const struct adapter *a, const char *name)
{
    const struct version_record *v = record_of(a);
    jw_begin(w, '{');
    put_model(w, s, a, name);
    jw_key_time(w, "modified_at", v ? v->published_wall_ms : s->started_wall_ms);
    jw_end(w, '}');
}

static bool is_resident(const struct adapter *a)
{
    for (uint32_t i = 0; a && i < a->n_records; i++)
        if (a->records[i].version)
            return true;
    return !a;
}

static void put_running(struct jw *w, const struct server *s, const struct adapter *a, const char *name)
{
    if (!is_resident(a))
        return;
    jw_begin(w, '{');
    put_model(w, s, a, name);
    jw_key_time(w, "expires_at", clock_wall_ms() + FOREVER_MS);
    jw_key_int(w, "size_vram", 0);
    jw_key_int(w, "context_length", s->context);
    jw_end(w, '}');
}

/* The adapter that a tenant's own name stands for; NULL: the base, or a sum. */
static const struct adapter *adapter_of(const struct request *r, const char *voice)
{
    struct voice_expr e;
    bool one = voice_expr_parse(voice, r->server->base.name, &e, NULL) == STATUS_OK && e.n == 1;
    return one ? registry_find(r->server->registry, e.terms[0].name) : NULL;
}

/* Rules may choose the voice, under a name that is no adapter's; what is said of it is the base's. */
static bool has_auto(const struct request *r)
{
    return r->server->conf->n_auto_rules && gate_may_use(r, AUTO_NAME);
}

typedef void put_one(struct jw *w, const struct server *s, const struct adapter *a, const char *name);

/* Those that this request may name; a tenant's own names first. */
static void put_all(struct jw *w, const struct request *r, put_one *put)
{
    const struct server *s = r->server;
    const struct tenant_spec *spec = gate_spec(r);
    for (uint32_t i = 0; spec && i < spec->n_aliases; i++)
        put(w, s, adapter_of(r, spec->aliases[i].voice), spec->aliases[i].name);
    if (voice_base_allowed(r))
        put(w, s, NULL, NULL);
    if (has_auto(r))
        put(w, s, NULL, AUTO_NAME);
    for (size_t i = 0; i < registry_count(s->registry); i++) {
        const struct adapter *a = registry_at(s->registry, i);
        bool hidden = spec && tenant_spec_alias(spec, a->wish.name);
        if (gate_may_use(r, a->wish.name) && !hidden)
            put(w, s, a, NULL);
    }
}

static void reply_list(struct request *r, put_one *put)
{
    const struct server *s = r->server;
    struct fault f = {0};
    struct buf out;
    struct jw w = {.out = &out};
    if (server_serving(s, &f.error) != STATUS_OK) {
        reply_fault(r, &f);
        return;
    }
    buf_init(&out, 0);
    jw_begin(&w, '{');
    jw_key(&w, "models");
    jw_begin(&w, '[');
    put_all(&w, r, put);
    jw_end(&w, ']');
    jw_end(&w, '}');
    reply_json(r, 200, &out);
    buf_fini(&out);
}

void api_ollama_tags(struct request *r)
{
    reply_list(r, put_installed);
}

void api_ollama_ps(struct request *r)
{
    reply_list(r, put_running);
}

/* ---- show */

static void put_count(struct jw *w, const char *family, const char *key, uint32_t n)
{
    char text[96];
    snprintf(text, sizeof text, "%s.%s", family, key);
    jw_key_int(w, text, n);
}

static void put_model_info(struct jw *w, const struct server *s)
{
    const struct model_info *info = model_info(s->base.model);
    const struct model_config *m = model_config(s->base.model);
    jw_key(w, "model_info");
    jw_begin(w, '{');
    jw_key_text(w, "general.architecture", info->family);
    jw_key_text(w, "general.basename", s->base.name);
    jw_key_int(w, "general.parameter_count", (int64_t)info->n_parameters);
    put_count(w, info->family, "context_length", s->context);
    put_count(w, info->family, "embedding_length", m->hidden_size);
    put_count(w, info->family, "block_count", m->n_layers);
    put_count(w, info->family, "feed_forward_length", m->intermediate_size);
    put_count(w, info->family, "attention.head_count", m->n_heads);
    put_count(w, info->family, "attention.head_count_kv", m->n_kv_heads);
    put_count(w, info->family, "vocab_size", m->vocab_size);
    jw_end(w, '}');
}

/* What a template that was written for it mentions. */
static void put_capabilities(struct jw *w, const struct text_model *t)
{
    const char *source = t->chat_template_source ? t->chat_template_source : "";
    jw_key(w, "capabilities");
    jw_begin(w, '[');
    jw_text(w, "completion");
    if (t->tool_template || strstr(source, "tools"))
        jw_text(w, "tools");
    if (strstr(source, "enable_thinking") || strstr(source, "<think>"))
        jw_text(w, "thinking");
    jw_end(w, ']');
}

static void put_shown(struct jw *w, const struct server *s, const struct adapter *a)
{
    const struct version_record *v = record_of(a);
    char file[2 * ADAPTER_NAME_MAX + 32];
    snprintf(file, sizeof file, a ? "FROM %s\nADAPTER %s\n" : "FROM %s\n", s->base.name,
             a ? a->wish.name : "");
    jw_begin(w, '{');
    jw_key_text(w, "modelfile", file);
    jw_key_text(w, "parameters", "");
    jw_key_text(w, "template", s->base.text->chat_template_source ? s->base.text->chat_template_source : "");
    put_details(w, s, a);
    put_model_info(w, s);
    put_capabilities(w, s->base.text);
    jw_key_time(w, "modified_at", v ? v->published_wall_ms : s->started_wall_ms);
    jw_end(w, '}');
}

static enum status find_model(struct request *r, const struct adapter **a, struct fault *f)
{
    json_t *body = NULL;
    const char *name = NULL, *alias = NULL;
    enum status s = server_serving(r->server, &f->error);
    if (s == STATUS_OK)
        s = parse_body(r->body, r->n_body, &body, f);
    struct reader in = {.object = body, .fault = f, .status = s};
    if (s == STATUS_OK && !read_text(&in, "model", &name) && !read_text(&in, "name", &name))
        read_fail(&in, STATUS_INVALID, "model", "model: missing; expected a name");
    size_t n = name ? strlen(name) : 0;
    if (n > 7 && strcmp(name + n - 7, ":latest") == 0)
        n -= 7;
    const char *plain = name ? arena_strndup(r->arena, name, n) : NULL;
    s = in.status;
    if (s == STATUS_OK && !(plain && strcmp(plain, AUTO_NAME) == 0 && has_auto(r)))
        s = plain ? voice_single(r, plain, a, &alias, f) : fault_set(f, STATUS_NO_MEMORY, NULL, "no memory");
    if (s == STATUS_OK && alias)
        *a = adapter_of(r, alias);
    json_decref(body);
    return s;
}

void api_ollama_show(struct request *r)
{
    const struct adapter *a = NULL;
    struct fault f = {0};
    struct buf out;
    struct jw w = {.out = &out};
    if (find_model(r, &a, &f) != STATUS_OK) {
        reply_fault(r, &f);
        return;
    }
    buf_init(&out, 0);
    put_shown(&w, r->server, a);
    reply_json(r, 200, &out);
    buf_fini(&out);
}

/* ---- the rest */

void api_ollama_version(struct request *r)
{
    static const char text[] =
        "{\"version\":\"" OLLAMA_API_VERSION "\",\"lorikeet\":\"" LORIKEET_VERSION "\"}";
    reply_send(r, 200, "application/json", text, sizeof text - 1);
}

void api_ollama_refused(struct request *r)
{
    char text[240];
    bool is_cloud = strncmp(r->path, "/api/web_", 9) == 0 || strcmp(r->path, "/api/me") == 0 ||
                    strcmp(r->path, "/api/signout") == 0;
    snprintf(text, sizeof text, "%.60s is not implemented: %s", r->path,
             is_cloud ? "this server has no accounts elsewhere and asks nobody else"
                      : "this server has one base model; voices are added and removed by its operator (PUT "
                        "and DELETE /admin/v1/adapters/NAME on the admin listener)");
    reply_error(r, 501, text, NULL, "not_implemented");
}

void api_root(struct request *r)
{
    static const char text[] = "Lorikeet is running";
    reply_send(r, 200, "text/plain; charset=utf-8", text, sizeof text - 1);
}
