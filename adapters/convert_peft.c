/* A specification, read from GGUF or MLX, as a PEFT folder: transformers' names, [r, in] and [out, r], and a
 * configuration that gives each module its scale. Experts become the two pairs that PEFT has for their fused
 * weights (peft_experts.c draws them). */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert.h"

#define PATH_BYTES 160

/* A pair of tensors of the result. */
struct module {
    char path[PATH_BYTES]; /* as patterns are matched with it */
    bool parameter;        /* of target_parameters, not of target_modules */
    uint32_t rank;
    double alpha;
};

struct peft_out {
    struct conversion *c;
    struct module *modules;
    size_t n, room;
    bool dora;
};

static enum status no_memory(const struct peft_out *o, struct error *err)
{
    return fail(err, STATUS_NO_MEMORY, "%s: no memory", o->c->shown);
}

static enum status add_record(struct peft_out *o, const char *path, bool parameter, uint32_t rank,
                              double scale, struct error *err)
{
    if (o->n == o->room) {
        size_t room = o->room ? 2 * o->room : 64;
        struct module *modules = mem_realloc(o->modules, room * sizeof *modules);
        if (!modules)
            return no_memory(o, err);
        o->modules = modules;
        o->room = room;
    }
    struct module *m = &o->modules[o->n++];
    *m = (struct module){.parameter = parameter, .rank = rank, .alpha = tidy_number(scale * rank)};
    snprintf(m->path, sizeof m->path, "%s", path);
    return STATUS_OK;
}

/* ---- tensors ---- */

struct half {
    const char *path, *suffix;
    enum dtype type;
    uint32_t rows, cols;
};

/* As it is, or as the type that was asked for. */
static enum status add_matrix(struct peft_out *o, const struct half *h, const void *data, struct error *err)
{
    enum dtype type = o->c->options->type == DTYPE_COUNT ? h->type : o->c->options->type;
    const struct outgoing_shape shape = {type, h->cols ? 2 : 1, {h->rows, h->cols}};
    size_t n = (size_t)h->rows * (h->cols ? h->cols : 1);
    char name[PATH_BYTES + 64];
    enum status s = STATUS_OK;
    snprintf(name, sizeof name, "base_model.model.%s%s", h->path, h->suffix);
    if (type != h->type) {
        float *values = mem_array(n, sizeof *values);
        if (!values)
            return no_memory(o, err);
        convert_floats(h->type, data, 0, n, values);
        s = convert_store(o->c, type, values, n, &data, err);
        mem_free(values);
    }
    return s == STATUS_OK ? outgoing_add(&o->c->out, name, &shape, data, err) : s;
}

/* [rows, cols] turned over, in the arena. */
static const void *turned(struct peft_out *o, enum dtype type, const void *data, uint32_t rows, uint32_t cols)
{
    size_t bytes = dtype_info(type)->block_bytes;
    char *out = arena_array(o->c->arena, (size_t)rows * cols, bytes);
    for (size_t r = 0; out && r < rows; r++)
        for (size_t k = 0; k < cols; k++)
            memcpy(out + (k * rows + r) * bytes, (const char *)data + (r * cols + k) * bytes, bytes);
    return out;
}

static enum status add_embedding(struct peft_out *o, const struct lora_pair *p, const char *path,
                                 struct error *err)
{
    const void *a = turned(o, p->a_type, p->a, p->in, p->rank);
    const struct half ah = {path, ".lora_embedding_A", p->a_type, p->rank, p->in},
                      bh = {path, ".lora_embedding_B", p->b_type, p->out, p->rank};
    enum status s = a ? add_matrix(o, &ah, a, err) : no_memory(o, err);
    return s == STATUS_OK ? add_matrix(o, &bh, p->b, err) : s;
}

static enum status add_linear(struct peft_out *o, const struct lora_pair *p, const char *path,
                              struct error *err)
{
    const struct half a = {path, ".lora_A.weight", p->a_type, p->rank, p->in},
                      b = {path, ".lora_B.weight", p->b_type, p->out, p->rank};
    enum status s = add_matrix(o, &a, p->a, err);
    return s == STATUS_OK ? add_matrix(o, &b, p->b, err) : s;
}

static enum status add_magnitude(struct peft_out *o, const struct lora_pair *p, const char *path,
                                 struct error *err)
{
    char name[PATH_BYTES + 64];
    const struct outgoing_shape shape = {DTYPE_F32, 1, {p->out}};
    if (!p->magnitude)
        return STATUS_OK;
    o->dora = true;
    snprintf(name, sizeof name, "base_model.model.%s.lora_magnitude_vector", path);
    return outgoing_add(&o->c->out, name, &shape, p->magnitude, err);
}

static enum status add_pair(struct peft_out *o, const struct lora_pair *p, struct error *err)
{
    char path[PATH_BYTES], record[PATH_BYTES + 8];
    bool embed = p->module.kind == MODULE_EMBED;
    /* transformers' router holds a bare weight: PEFT adapts the parameter. */
    bool parameter = !embed && p->module.site == LORA_SITE_ROUTER;
    model_module_path(o->c->options->base, &p->module, path, sizeof path);
    snprintf(record, sizeof record, "%s%s", path, parameter ? ".weight" : "");
    enum status s = embed ? add_embedding(o, p, path, err) : add_linear(o, p, path, err);
    if (s == STATUS_OK)
        s = add_magnitude(o, p, path, err);
    return s == STATUS_OK ? add_record(o, record, parameter, p->rank, (double)p->scale, err) : s;
}

/* ---- experts ---- */

/* Pairs of all experts for one fused weight: gate and up side by side, or down alone. */
struct fused {
    const struct lora_pair **parts[2]; /* [n_experts] each; NULL: that half is not adapted */
    uint32_t n, rank[2], out, in;      /* out: of one half */
    double scale;
    bool shared_a; /* both halves have the same A: it stands there once */
};

static const struct lora_pair *any_of(const struct fused *f, int half)
{
    for (uint32_t e = 0; f->parts[half] && e < f->n; e++)
        if (f->parts[half][e])
            return f->parts[half][e];
    return NULL;
}

static bool same_a(const struct lora_pair *x, const struct lora_pair *y)
{
    if (!x || !y)
        return x == y;
    size_t n = (size_t)x->rank * x->in * dtype_info(x->a_type)->block_bytes;
    return x->rank == y->rank && x->a_type == y->a_type && memcmp(x->a, y->a, n) == 0;
}

static void measure(struct fused *f)
{
    f->shared_a = f->parts[0] && f->parts[1];
    for (int half = 0; half < 2; half++)
        for (uint32_t e = 0; f->parts[half] && e < f->n; e++) {
            const struct lora_pair *p = f->parts[half][e];
            if (!p)
                continue;
            f->rank[half] = p->rank > f->rank[half] ? p->rank : f->rank[half];
            f->scale = f->scale != 0 ? f->scale : (double)p->scale;
            f->out = p->out;
            f->in = p->in;
        }
    for (uint32_t e = 0; e < f->n && f->shared_a; e++)
        f->shared_a = same_a(f->parts[0][e], f->parts[1][e]);
    f->scale = f->scale != 0 ? f->scale : 1;
}

/* One expert's half into A [n * R, in] and B [n_halves * out, R * n] (columns by rank, then by expert). */
static enum status place_half(const struct fused *f, int half, uint32_t e, float *a, float *b,
                              struct error *err)
{
    const struct lora_pair *p = f->parts[half] ? f->parts[half][e] : NULL;
    uint32_t total = f->shared_a ? f->rank[0] : f->rank[0] + f->rank[1];
    size_t first = half && !f->shared_a ? f->rank[0] : 0, row0 = half ? f->out : 0;
    if (!p)
        return STATUS_OK;
    float *row = mem_array(p->rank, sizeof *row);
    if (!row)
        return fail(err, STATUS_NO_MEMORY, "no memory for a row");
    convert_floats(p->a_type, p->a, 0, (size_t)p->rank * p->in, a + ((size_t)e * total + first) * f->in);
    double factor = (double)p->scale / f->scale;
    for (size_t r = 0; r < p->out; r++) {
        convert_floats(p->b_type, p->b, r * p->rank, p->rank, row);
        for (size_t k = 0; k < p->rank; k++)
            b[((row0 + r) * total + first + k) * f->n + e] = (float)(factor * (double)row[k]);
    }
    mem_free(row);
    return STATUS_OK;
}

static enum status add_fused(struct peft_out *o, struct fused *f, const char *path, const char *parameter,
                             struct error *err)
{
    char record[PATH_BYTES];
    measure(f);
    uint32_t rank = f->shared_a ? f->rank[0] : f->rank[0] + f->rank[1], halves = f->parts[1] ? 2 : 1;
    size_t n_a = (size_t)f->n * rank * f->in, n_b = (size_t)halves * f->out * rank * f->n;
    float *a = arena_array(o->c->arena, n_a, sizeof *a), *b = arena_array(o->c->arena, n_b, sizeof *b);
    enum status s = a && b ? STATUS_OK : no_memory(o, err);
    for (uint32_t e = 0; e < f->n && s == STATUS_OK; e++) {
        s = place_half(f, 0, e, a, b, err);
        if (s == STATUS_OK)
            s = place_half(f, 1, e, a, b, err);
    }
    const struct half ah = {path, ".lora_A.weight", DTYPE_F32, f->n * rank, f->in},
                      bh = {path, ".lora_B.weight", DTYPE_F32, halves * f->out, rank * f->n};
    if (s == STATUS_OK)
        s = add_matrix(o, &ah, a, err);
    if (s == STATUS_OK)
        s = add_matrix(o, &bh, b, err);
    snprintf(record, sizeof record, "%s", parameter);
    return s == STATUS_OK ? add_record(o, record, true, rank, f->scale, err) : s;
}

/* gate_up_proj inside, if down_proj is adapted as well. */
static enum status add_layer_experts(struct peft_out *o, uint32_t layer, const struct lora_pair **pairs,
                                     struct error *err)
{
    uint32_t n = model_config(o->c->options->base)->n_experts;
    struct fused gate_up = {.parts = {pairs, pairs + n}, .n = n},
                 down = {.parts = {pairs + 2 * (size_t)n, NULL}, .n = n};
    struct model_module m = {.kind = MODULE_EXPERTS, .layer = layer, .expert = -1};
    char path[PATH_BYTES], inner[PATH_BYTES], parameter[PATH_BYTES];
    bool has_gate = convert_find_experts(o->c, layer, LORA_SITE_GATE, pairs);
    bool has_up = convert_find_experts(o->c, layer, LORA_SITE_UP, pairs + n);
    bool has_down = convert_find_experts(o->c, layer, LORA_SITE_DOWN, pairs + 2 * (size_t)n);
    enum status s = STATUS_OK;
    model_module_path(o->c->options->base, &m, path, sizeof path);
    snprintf(inner, sizeof inner, "%s%s", path, has_down ? ".base_layer" : "");
    if (has_gate || has_up) {
        require(any_of(&gate_up, has_gate ? 0 : 1)->module.n_sites == 1);
        snprintf(parameter, sizeof parameter, "%s.gate_up_proj", path);
        s = add_fused(o, &gate_up, inner, parameter, err);
    }
    snprintf(parameter, sizeof parameter, "%s.down_proj", path);
    return s == STATUS_OK && has_down ? add_fused(o, &down, path, parameter, err) : s;
}

static enum status add_experts(struct peft_out *o, struct error *err)
{
    const struct model_config *config = model_config(o->c->options->base);
    enum status s = STATUS_OK;
    if (config->n_experts == 0)
        return STATUS_OK;
    const struct lora_pair **pairs = mem_array(3 * (size_t)config->n_experts, sizeof *pairs);
    if (!pairs)
        return no_memory(o, err);
    for (uint32_t layer = 0; layer < config->n_layers && s == STATUS_OK; layer++)
        s = add_layer_experts(o, layer, pairs, err);
    mem_free((void *)pairs);
    return s;
}

/* ---- the configuration ---- */

static const char *last_name(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot ? dot + 1 : path;
}

/* How many linear modules outside experts the base has under this last name, the head among them. */
static size_t count_in_base(const struct model *m, const char *name)
{
    size_t n = 0;
    char path[PATH_BYTES];
    struct model_module module;
    for (unsigned site = 0; site < LORA_SITE_COUNT; site++)
        for (uint32_t layer = 0; layer < model_config(m)->n_layers; layer++) {
            if (!model_module_of(m, (enum lora_site)site, layer, &module) ||
                module.site != (enum lora_site)site)
                continue;
            model_module_path(m, &module, path, sizeof path);
            n += strcmp(last_name(path), name) == 0;
        }
    return n;
}

static size_t count_in_adapter(const struct peft_out *o, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < o->n; i++)
        n += !o->modules[i].parameter && strcmp(last_name(o->modules[i].path), name) == 0;
    return n;
}

static bool contains(const json_t *list, const char *text)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_string_value(json_array_get(list, i)), text) == 0)
            return true;
    return false;
}

/* "q_proj" where all modules of that name are adapted; else their whole paths. */
static void list_targets(const struct peft_out *o, json_t *modules, json_t *parameters)
{
    for (size_t i = 0; i < o->n; i++) {
        const struct module *m = &o->modules[i];
        const char *name = m->path;
        if (!m->parameter) {
            const char *last = last_name(m->path);
            size_t n = count_in_base(o->c->options->base, last);
            name = n > 0 && n == count_in_adapter(o, last) ? last : m->path;
        }
        json_t *list = m->parameter ? parameters : modules;
        if (!contains(list, name))
            json_array_append_new(list, json_string(name));
    }
}

/* The rank and alpha that the configuration says once: those of most modules. */
static const struct module *common_of(const struct peft_out *o)
{
    size_t best = 0, most = 0;
    for (size_t i = 0; i < o->n; i++) {
        size_t n = 0;
        for (size_t k = i; k < o->n && most < o->n - i; k++)
            n += o->modules[k].rank == o->modules[i].rank && o->modules[k].alpha == o->modules[i].alpha;
        best = n > most ? i : best;
        most = n > most ? n : most;
    }
    return &o->modules[best];
}

static json_t *invocation_of(const struct lora_spec *s)
{
    json_t *ids = s->n_invocation ? json_array() : json_null();
    for (size_t i = 0; i < s->n_invocation; i++)
        json_array_append_new(ids, json_integer(s->invocation[i]));
    return ids;
}

static enum status write_config(const struct peft_out *o, const struct out_place *place, struct error *err)
{
    const struct model_config *config = model_config(o->c->options->base);
    const struct module *common = common_of(o);
    const char *base = o->c->report->from.base_model[0] ? o->c->report->from.base_model : config->name;
    json_t *name = json_string(base); /* NULL: cut inside a character */
    json_t *ranks = json_object(), *alphas = json_object(), *modules = json_array(),
           *parameters = json_array();
    for (size_t i = 0; i < o->n; i++) {
        if (o->modules[i].rank != common->rank)
            json_object_set_new(ranks, o->modules[i].path, json_integer(o->modules[i].rank));
        if (o->modules[i].alpha != common->alpha)
            json_object_set_new(alphas, o->modules[i].path, json_number(o->modules[i].alpha));
    }
    list_targets(o, modules, parameters);
    o->c->report->alpha = common->alpha;
    bool conv1d = strcmp(config->model_type, "gpt2") == 0;
    json_t *v = json_pack(
        "{s:s, s:s, s:o, s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:b, s:b, s:b, s:f, s:b, s:b, s:n, s:b}",
        "peft_type", "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path",
        name ? name : json_string(""), "bias", "none", "r", (int)common->rank, "lora_alpha",
        json_number(common->alpha), "rank_pattern", ranks, "alpha_pattern", alphas, "target_modules", modules,
        "target_parameters", json_array_size(parameters) ? json_incref(parameters) : json_null(),
        "use_rslora", 0, "use_dora", (int)o->dora, "lora_bias", 0, "lora_dropout", 0.0, "fan_in_fan_out",
        (int)conv1d, "inference_mode", 1, "modules_to_save", "init_lora_weights", 1);
    json_decref(parameters);
    json_object_set_new(v, "alora_invocation_tokens", invocation_of(o->c->spec));
    enum status s = v ? out_put_json(place, "adapter_config.json", v, err) : no_memory(o, err);
    json_decref(v);
    return s;
}

enum status convert_to_peft(struct conversion *c, const struct out_place *place, struct error *err)
{
    struct peft_out o = {.c = c};
    enum status s = STATUS_OK;
    for (size_t i = 0; i < c->spec->n_pairs && s == STATUS_OK; i++)
        if (c->spec->pairs[i].module.kind != MODULE_LINEAR || c->spec->pairs[i].module.expert < 0)
            s = add_pair(&o, &c->spec->pairs[i], err);
    if (s == STATUS_OK)
        s = add_experts(&o, err);
    require(s != STATUS_OK || o.n > 0); /* GGUF and MLX adapters have products only, and at least one */
    if (s == STATUS_OK)
        s = write_config(&o, place, err);
    if (s == STATUS_OK)
        s = outgoing_write_peft(&c->out, place, err);
    c->report->n_products = (uint32_t)o.n;
    mem_free(o.modules);
    return s;
}
