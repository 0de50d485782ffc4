/* JSON of the operators' API. */
#include "admin_json.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter_ops.h"
#include "merges.h"
#include "server.h"

static const char *const merge_names[] = {"never", "auto", "always"};
static const char *const effect_names[] = {"off", "warn", "enforce"};

const char *merge_mode_name(enum merge_mode m)
{
    return merge_names[m];
}

const char *effect_mode_name(enum effect_mode m)
{
    return effect_names[m];
}

static bool find_word(const char *const words[3], const char *name, int *out)
{
    for (int i = 0; i < 3; i++)
        if (strcmp(words[i], name) == 0) {
            *out = i;
            return true;
        }
    return false;
}

bool merge_mode_find(const char *name, enum merge_mode *out)
{
    int i;
    bool found = find_word(merge_names, name, &i);
    if (found)
        *out = (enum merge_mode)i;
    return found;
}

bool effect_mode_find(const char *name, enum effect_mode *out)
{
    int i;
    bool found = find_word(effect_names, name, &i);
    if (found)
        *out = (enum effect_mode)i;
    return found;
}

/* ---- errors */

static const struct {
    int http_status;
    const char *code;
} errors[STATUS_COUNT] = {
    [STATUS_OK] = {200, ""},
    [STATUS_INVALID] = {400, "invalid_request"},
    [STATUS_NOT_FOUND] = {404, "not_found"},
    [STATUS_EXISTS] = {409, "name_taken"},
    [STATUS_CONFLICT] = {409, "conflict"},
    [STATUS_FULL] = {503, "no_room"},
    [STATUS_TOO_LARGE] = {413, "too_large"},
    [STATUS_FORMAT] = {422, "format"},
    [STATUS_UNSUPPORTED] = {422, "unsupported"},
    [STATUS_MISMATCH] = {422, "mismatch"},
    [STATUS_NO_MEMORY] = {503, "no_memory"},
    [STATUS_IO] = {500, "io"},
    [STATUS_TIMEOUT] = {504, "timeout"},
    [STATUS_CANCELLED] = {503, "cancelled"},
    [STATUS_UNAVAILABLE] = {503, "unavailable"},
    [STATUS_INTERNAL] = {500, "internal"},
};

/* What says more than its status. */
static const struct {
    const char *code;
    int http_status;
} special[] = {{"no_effect", 422},    {"non_finite", 422},         {"sha256_differs", 422},
               {"version_gone", 410}, {"source_not_allowed", 403}, {"source_unreachable", 502},
               {"busy", 503},         {"not_persisted", 500}};

int admin_http_status(enum status s, const char *code)
{
    for (size_t i = 0; code && i < sizeof special / sizeof special[0]; i++)
        if (strcmp(special[i].code, code) == 0)
            return special[i].http_status;
    return errors[s].http_status ? errors[s].http_status : 500;
}

const char *admin_code(enum status s)
{
    return errors[s].code ? errors[s].code : "internal";
}

/* The registry keeps a status and a text; effect.h says how the texts of its refusals begin. */
const char *admin_last_code(const struct adapter *a)
{
    if (a->last_status == STATUS_INVALID && strstr(a->last_error, "no effect: "))
        return "no_effect";
    if (a->last_status == STATUS_INVALID &&
        (strstr(a->last_error, "non-finite ") || strstr(a->last_error, "exploding ")))
        return "non_finite";
    return admin_code(a->last_status);
}

/* ---- versions */

void put_shadow(struct jw *w, const struct version_record *v)
{
    const struct shadow_totals *s = &v->shadow;
    double n = s->n_tokens ? (double)s->n_tokens : NAN;
    jw_begin(w, '{');
    jw_key_int(w, "generation", (int64_t)v->generation);
    jw_key_int(w, "n_replies", (int64_t)s->n_replies);
    jw_key_int(w, "n_tokens", (int64_t)s->n_tokens);
    jw_key_int(w, "n_agree", (int64_t)s->n_agree);
    jw_key_float(w, "agreement", (double)s->n_agree / n);
    jw_key_float(w, "served", (double)s->n_served / n);
    jw_key_float(w, "mean_kl", s->kl_sum / n);
    jw_key_int(w, "n_failed", (int64_t)s->n_failed);
    jw_key_int(w, "n_dropped", (int64_t)s->n_dropped);
    jw_end(w, '}');
}

static const char *role_of(const struct adapter *a, uint64_t generation)
{
    if (generation == a->stable)
        return "stable";
    if (generation == a->shadow)
        return "shadow";
    for (uint32_t i = 0; i < a->n_splits; i++)
        if (a->splits[i].generation == generation)
            return "canary";
    return generation == a->previous ? "previous" : "old";
}

void put_version(struct jw *w, const struct adapter *a, const struct version_record *v)
{
    jw_begin(w, '{');
    jw_key_int(w, "generation", (int64_t)v->generation);
    jw_key_text(w, "digest", v->digest_hex);
    jw_key_text(w, "role", role_of(a, v->generation));
    jw_key_bool(w, "resident", v->version != NULL);
    jw_key_int(w, "bytes", (int64_t)v->size_bytes);
    jw_key_int(w, "rank_max", v->rank_max);
    jw_key_int(w, "published_at", v->published_wall_ms / 1000);
    jw_key_int(w, "requests", (int64_t)v->n_requests);
    jw_key_int(w, "failures", (int64_t)v->n_failures);
    jw_key_text(w, "source", v->source);
    jw_key_float(w, "scale", v->scale);
    if (v->shadow.n_replies) {
        jw_key(w, "shadow");
        put_shadow(w, v);
    }
    if (v->version) {
        jw_key_float(w, "load_ms", (double)v->version->load_ns / 1e6);
    }
    jw_end(w, '}');
}

static void put_norm(struct jw *w, const char *key, const struct effect_norm *n)
{
    if (n->base <= 0)
        return;
    jw_key(w, key);
    jw_begin(w, '{');
    jw_key_float(w, "delta", n->delta);
    jw_key_float(w, "base", n->base);
    jw_key_float(w, "ratio", n->delta / n->base);
    jw_end(w, '}');
}

void put_effect(struct jw *w, const struct effect_report *e)
{
    if (e->outcome == EFFECT_UNTESTED) {
        jw_null(w);
        return;
    }
    jw_begin(w, '{');
    jw_key_text(w, "outcome", effect_outcome_name(e->outcome));
    jw_key_text(w, "what", e->what);
    jw_key_bool(w, "own_probes", e->own_probes);
    jw_key_int(w, "n_prompts", e->n_prompts);
    jw_key_int(w, "n_positions", e->n_positions);
    jw_key_float(w, "mean_kl", e->mean_kl);
    jw_key_float(w, "max_kl", e->max_kl);
    jw_key_float(w, "agreement", e->agreement);
    jw_key_float(w, "max_logit", e->max_logit);
    jw_key_float(w, "base_max_logit", e->base_max_logit);
    jw_key(w, "norms");
    jw_begin(w, '{');
    for (int i = 0; i < LORA_SITE_COUNT; i++)
        put_norm(w, lora_site_name((enum lora_site)i), &e->norm[i]);
    put_norm(w, "embed_tokens", &e->embed);
    jw_end(w, '}');
    jw_end(w, '}');
}

/* Smallest and largest rank of a site's parts over all layers, experts included. */
struct rank_range {
    uint32_t min, max;
};

static void widen(struct rank_range *r, const struct lora_part *p)
{
    if (!p->b.data)
        return;
    r->min = r->max == 0 || p->rank < r->min ? p->rank : r->min;
    r->max = p->rank > r->max ? p->rank : r->max;
}

static void widen_layer(struct rank_range r[LORA_SITE_COUNT], const struct lora_layer *l, uint32_t n_experts)
{
    for (int i = 0; i < 3; i++)
        widen(&r[LORA_SITE_Q + i], &l->group[LORA_GROUP_QKV].part[i]);
    widen(&r[LORA_SITE_O], &l->group[LORA_GROUP_O].part[0]);
    widen(&r[LORA_SITE_GATE], &l->group[LORA_GROUP_GATE_UP].part[0]);
    widen(&r[LORA_SITE_UP], &l->group[LORA_GROUP_GATE_UP].part[1]);
    widen(&r[LORA_SITE_DOWN], &l->group[LORA_GROUP_DOWN].part[0]);
    widen(&r[LORA_SITE_ROUTER], &l->group[LORA_GROUP_ROUTER].part[0]);
    for (uint32_t e = 0; l->experts && e < n_experts; e++) {
        widen(&r[LORA_SITE_GATE], &l->experts[2 * e].part[0]);
        widen(&r[LORA_SITE_UP], &l->experts[2 * e].part[1]);
        widen(&r[LORA_SITE_DOWN], &l->experts[2 * e + 1].part[0]);
    }
}

static void put_ranks(struct jw *w, const struct lora *l)
{
    struct rank_range r[LORA_SITE_COUNT] = {{0}};
    const struct lora *own = l->n_members ? l->members[0].lora : l; /* a scaled one is a sum of one */
    for (uint32_t i = 0; i < own->n_layers; i++)
        widen_layer(r, &own->layers[i], model_config(own->model)->n_experts);
    widen(&r[LORA_SITE_LM_HEAD], &own->lm_head.part[0]);
    jw_begin(w, '{');
    for (int i = 0; i < LORA_SITE_COUNT; i++) {
        if (r[i].max == 0)
            continue;
        jw_key(w, lora_site_name((enum lora_site)i));
        if (r[i].min == r[i].max) {
            jw_int(w, r[i].max);
            continue;
        }
        jw_begin(w, '[');
        jw_int(w, r[i].min);
        jw_int(w, r[i].max);
        jw_end(w, ']');
    }
    if (own->embed.b.data)
        jw_key_int(w, "embed_tokens", own->embed.b.cols);
    jw_end(w, '}');
}

void put_report_fields(struct jw *w, const struct adapter_version *v)
{
    const struct adapter_report *r = &v->report;
    jw_key_text(w, "format", r->format);
    jw_key_text(w, "base_model", r->base_model);
    jw_key_int(w, "rank_min", r->rank_min);
    jw_key_int(w, "rank_max", r->rank_max);
    jw_key(w, "ranks");
    if (v->lora)
        put_ranks(w, v->lora);
    else
        jw_null(w);
    jw_key_float(w, "alpha", r->alpha);
    jw_key_bool(w, "rslora", r->rslora);
    jw_key_text(w, "kinds", r->kinds);
    jw_key_text(w, "modules", r->modules);
    jw_key_int(w, "n_modules", r->n_modules);
    jw_key_int(w, "n_parameters", (int64_t)r->n_parameters);
    jw_key_int(w, "file_bytes", (int64_t)r->file_bytes);
    jw_key_int(w, "bytes", v->lora ? (int64_t)v->lora->size_bytes : 0);
    jw_key_int(w, "loaded_at", v->loaded_wall_ms / 1000);
    jw_key_float(w, "load_ms", (double)v->load_ns / 1e6);
    jw_key_text(w, "stored", r->stored);
    if (v->bundle) {
        char *text = json_dumps(v->bundle->json, JSON_COMPACT);
        jw_key(w, "behaviour");
        if (text)
            jw_raw(w, text, strlen(text));
        else
            jw_null(w);
        free(text);
    }
    jw_key(w, "base_match");
    jw_begin(w, '{');
    jw_key_text(w, "outcome", base_outcome_name(r->base.outcome));
    jw_key_text(w, "how", r->base.how);
    jw_key_bool(w, "stamped", r->base.stamped);
    jw_end(w, '}');
    jw_key(w, "effect");
    put_effect(w, &v->effect);
}

void put_report(struct jw *w, const struct adapter_version *v)
{
    jw_begin(w, '{');
    jw_key_text(w, "digest", v->digest_hex);
    put_report_fields(w, v);
    jw_end(w, '}');
}

/* ---- names */

static void put_traffic(struct jw *w, const struct adapter *a)
{
    jw_begin(w, '{');
    for (uint32_t i = 0; i < a->n_splits; i++) {
        char generation[24];
        snprintf(generation, sizeof generation, "%llu", (unsigned long long)a->splits[i].generation);
        jw_key_int(w, generation, a->splits[i].percent);
    }
    jw_end(w, '}');
}

static void put_last_error(struct jw *w, const struct adapter *a)
{
    jw_key(w, "last_error");
    if (!a->last_error) {
        jw_null(w);
        return;
    }
    jw_begin(w, '{');
    jw_key_text(w, "code", admin_last_code(a));
    jw_key_text(w, "message", a->last_error);
    jw_key_int(w, "at", a->last_error_wall_ms / 1000);
    jw_end(w, '}');
}

void put_adapter(struct jw *w, const struct server *s, const struct adapter *a)
{
    const struct version_record *v = registry_record(a, a->stable);
    const struct adapter_version *resident = v ? v->version : NULL;
    jw_begin(w, '{');
    jw_key_text(w, "name", a->wish.name);
    jw_key_text(w, "state",
                a->wish.blend[0] ? "blend"
                : resident       ? "resident"
                : a->loading     ? "loading"
                                 : "registered");
    jw_key_bool(w, "loading", a->loading);
    jw_key_text(w, "source", a->wish.source);
    jw_key_text(w, "blend", a->wish.blend[0] ? a->wish.blend : NULL);
    jw_key_bool(w, "from_folder", a->wish.from_folder);
    jw_key_float(w, "scale", a->wish.scale);
    jw_key_bool(w, "persisted", adapter_ops_keeps(s->adapter_ops) || a->wish.from_folder);
    jw_key_bool(w, "pinned", a->wish.pinned);
    jw_key_text(w, "merge", merge_mode_name(a->wish.merge));
    jw_key(w, "merged");
    merges_put(w, s->merges, a);
    jw_key_text(w, "effect_test", effect_mode_name(a->wish.effect));
    jw_key_int(w, "generation", (int64_t)a->stable);
    jw_key_text(w, "digest", v ? v->digest_hex : NULL);
    jw_key_int(w, "previous", (int64_t)a->previous);
    jw_key_int(w, "shadow", (int64_t)a->shadow);
    jw_key(w, "traffic");
    put_traffic(w, a);
    jw_key_int(w, "versions", a->n_records);
    if (resident)
        put_report_fields(w, resident);
    else
        jw_key_int(w, "file_bytes", (int64_t)a->file_bytes);
    jw_key_int(w, "revision", (int64_t)a->revision);
    put_last_error(w, a);
    jw_end(w, '}');
}

void put_change(struct jw *w, const struct registry_change *c)
{
    jw_begin(w, '{');
    jw_key_int(w, "revision", (int64_t)c->revision);
    jw_key_text(w, "kind", change_name(c->kind));
    jw_key_text(w, "name", c->name);
    jw_key_int(w, "generation", (int64_t)c->generation);
    jw_key_text(w, "digest", c->digest_hex);
    jw_end(w, '}');
}
