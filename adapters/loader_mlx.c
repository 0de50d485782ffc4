/* An adapter of mlx-lm: adapters.safetensors, and an adapter_config.json of its own form.
 *
 *     {"fine_tune_type": "lora" | "dora", "num_layers": …, "lora_parameters": {"rank", "scale", "dropout",
 * "keys"}}
 *
 *     model.layers.N.self_attn.q_proj.lora_a   [in, r]       ….lora_b   [r, out]     y += scale * (x a) b
 *     model.embed_tokens.lora_a                [vocab, r]    ….lora_b   [r, hidden]  a tied head has it as
 * well ….switch_mlp.gate_proj.lora_a            [experts, r, in]    ….lora_b   [experts, out, r] ….q_proj.m
 * [out] DoRA's magnitude
 *
 * The scale is the factor itself, not divided by the rank. (mlx-lm: tuner/lora.py, dora.py, utils.py.) */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "loader.h"

struct mlx {
    struct content *c;
    double scale, rank; /* rank 0: not said */
    bool dora;
};

bool mlx_is_config(const struct json_t *config)
{
    return json_is_object(config) && !json_object_get(config, "peft_type") &&
           (json_object_get(config, "fine_tune_type") || json_object_get(config, "lora_parameters"));
}

/* ---- the configuration */

static enum status read_kind(const json_t *config, const char *shown, struct mlx *m, struct error *err)
{
    const json_t *v = json_object_get(config, "fine_tune_type");
    const char *kind = v ? json_string_value(v) : "lora";
    m->dora = kind && strcmp(kind, "dora") == 0;
    if (kind && strcmp(kind, "full") == 0)
        return fail(
            err, STATUS_UNSUPPORTED,
            "%s: fine_tune_type is 'full': these are whole weights, not an adapter; fuse them (mlx_lm.fuse) "
            "and serve the result as a base",
            shown);
    if (!kind || (!m->dora && strcmp(kind, "lora") != 0))
        return fail(err, STATUS_UNSUPPORTED, "%s: fine_tune_type is '%.40s', expected lora or dora", shown,
                    kind ? kind : "no string");
    return STATUS_OK;
}

static enum status read_parameters(const json_t *config, const char *shown, struct mlx *m, struct error *err)
{
    const json_t *p = json_object_get(config, "lora_parameters");
    const json_t *scale = json_object_get(p, "scale"), *rank = json_object_get(p, "rank");
    if (!json_is_object(p) || !json_is_number(scale))
        return fail(err, STATUS_FORMAT,
                    "%s: lora_parameters has no number 'scale', which every LoRA of MLX needs", shown);
    m->scale = json_number_value(scale);
    m->rank = rank ? json_number_value(rank) : 0;
    if (!isfinite(m->scale) || fabs(m->scale) > 1e6 ||
        (rank && !(m->rank >= 1 && m->rank <= ADAPTER_RANK_MAX)))
        return fail(err, STATUS_FORMAT, "%s: lora_parameters: scale or rank is not a sensible number", shown);
    /* mlx-lm once had y += scale * alpha / rank * …; today's passes over alpha, and so would give other
     * numbers than the trained ones. */
    if (json_object_get(p, "alpha"))
        return fail(
            err, STATUS_UNSUPPORTED,
            "%s: lora_parameters has 'alpha', of an older mlx-lm that scaled by scale * alpha / rank: set "
            "scale to that product and remove alpha",
            shown);
    return STATUS_OK;
}

/* ---- tensors */

static enum status place_tensor(struct content *c, const struct tensor *t, struct error *err)
{
    static const struct {
        const char *text;
        enum part part;
    } suffixes[] = {{".lora_a", PART_A}, {".lora_b", PART_B}, {".m", PART_MAGNITUDE}};
    char path[512];
    size_t n = strlen(t->name);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes && n < sizeof path; i++) {
        size_t m = strlen(suffixes[i].text);
        if (n <= m || strcmp(t->name + n - m, suffixes[i].text) != 0)
            continue;
        snprintf(path, sizeof path, "%.*s", (int)(n - m), t->name);
        return content_put(c, path, suffixes[i].part, t, err);
    }
    return fail(
        err, STATUS_UNSUPPORTED,
        "%s: tensor '%.200s' is no .lora_a, .lora_b or .m: quantised LoRA and whole weights of MLX are not "
        "supported",
        c->shown, t->name);
}

static enum status check_rank(const struct mlx *m, const struct tensor *t, uint64_t rank, struct error *err)
{
    if (rank == 0 || rank > ADAPTER_RANK_MAX)
        return fail(err, STATUS_FORMAT, "%s: tensor '%s' has rank %" PRIu64 ", expected 1 to %d", m->c->shown,
                    t->name, rank, ADAPTER_RANK_MAX);
    if (m->rank != 0 && (double)rank != m->rank)
        return fail(err, STATUS_MISMATCH,
                    "%s: tensor '%s' has rank %" PRIu64
                    ", adapter_config.json says rank = %g: files of two adapters?",
                    m->c->shown, t->name, rank, m->rank);
    return STATUS_OK;
}

static enum status check_magnitude(const struct mlx *m, const struct entry *e, struct error *err)
{
    bool has = e->part[PART_MAGNITUDE] != NULL;
    if (has == m->dora)
        return STATUS_OK;
    return fail(err, STATUS_FORMAT, "%s: module '%s' has %s .m, but fine_tune_type is %s", m->c->shown,
                e->path, has ? "a" : "no", m->dora ? "dora" : "lora");
}

static enum status check_halves(const struct mlx *m, const struct entry *e, struct error *err)
{
    const struct tensor *a = e->part[PART_A], *b = e->part[PART_B];
    const struct content *c = m->c;
    if (!a && !b)
        return fail(err, STATUS_FORMAT, "%s: tensor '%s' is there, but its lora_a and lora_b are missing",
                    c->shown, entry_tensor_name(e));
    if (!a || !b)
        return fail(err, STATUS_FORMAT, "%s: module '%s' has %s, but the other half is missing", c->shown,
                    e->path, a ? a->name : b->name);
    return check_magnitude(m, e, err);
}

/* A tied embedding is the head as well: y += scale * a (b^T … x), the same two turned round. */
static enum status add_tied_head(struct mlx *m, const struct lora_pair *pair, const struct pair_values *v,
                                 struct error *err)
{
    struct content *c = m->c;
    struct lora_pair head = *pair;
    struct pair_values turned = {.a_name = v->b_name, .b_name = v->a_name, .a = v->b, .b = v->a};
    if (!model_config(c->model)->tie_word_embeddings ||
        !model_module_parse(c->model, "lm_head", &head.module))
        return STATUS_OK;
    enum status s = content_transpose(c, &turned.a, err); /* v->b is [hidden, r] by now */
    return s == STATUS_OK ? content_add_pair(c, &head, &turned, err) : s;
}

static bool is_embedding(const char *path)
{
    const char *dot = strrchr(path, '.');
    return strcmp(dot ? dot + 1 : path, "embed_tokens") == 0;
}

/* The two halves turned round, as tools want them. */
static enum status keep_plain(struct mlx *m, const struct entry *e, const struct pair_values *v,
                              const float *magnitude, struct error *err)
{
    struct file_pair pair = {.path = e->path,
                             .kind = is_embedding(e->path) ? FILE_PAIR_EMBED : FILE_PAIR_LINEAR,
                             .a_tensor = e->part[PART_A],
                             .b_tensor = e->part[PART_B],
                             .a = v->a,
                             .b = v->b,
                             .n = 1,
                             .rank = v->a.cols,
                             .scale = (float)m->scale,
                             .magnitude = magnitude};
    enum status s = content_transpose(m->c, &pair.a, err);
    if (s == STATUS_OK)
        s = content_transpose(m->c, &pair.b, err);
    return s == STATUS_OK ? content_keep_pair(m->c, &pair, err) : s;
}

static enum status keep_switch(struct mlx *m, const struct entry *e, const struct pair_values *v, uint32_t n,
                               struct error *err)
{
    struct file_pair pair = {.path = e->path,
                             .kind = FILE_PAIR_EXPERTS,
                             .a_tensor = e->part[PART_A],
                             .b_tensor = e->part[PART_B],
                             .a = v->a,
                             .b = v->b,
                             .n = n,
                             .rank = v->b.cols,
                             .scale = (float)m->scale};
    return content_keep_pair(m->c, &pair, err);
}

static enum status add_plain(struct mlx *m, const struct entry *e, struct error *err)
{
    const struct tensor *a = e->part[PART_A], *b = e->part[PART_B];
    struct content *c = m->c;
    struct lora_pair pair = {.scale = (float)m->scale};
    struct pair_values v = {.a_name = a->name, .b_name = b->name};
    if (a->n_dims != 2 || b->n_dims != 2 || a->shape[1] != b->shape[0])
        return fail(err, STATUS_FORMAT, "%s: tensors '%s' and '%s': expected [in, r] and [r, out]", c->shown,
                    a->name, b->name);
    enum status s = check_rank(m, a, a->shape[1], err);
    if (s == STATUS_OK && c->model)
        s = content_module(c, e, &pair.module, err);
    if (s == STATUS_OK)
        s = content_matrix(c, a, &v.a, err);
    if (s == STATUS_OK)
        s = content_matrix(c, b, &v.b, err);
    if (s == STATUS_OK)
        s = content_vector(c, e->part[PART_MAGNITUDE], 0, &pair.magnitude, err);
    if (s != STATUS_OK)
        return s;
    content_count(c, e, a->shape[1]);
    content_kind(c, m->dora ? "dora" : "lora");
    if (!c->model)
        return keep_plain(m, e, &v, pair.magnitude, err);
    bool embed = pair.module.kind == MODULE_EMBED;
    if (pair.module.kind != MODULE_LINEAR && !embed)
        return fail(err, STATUS_MISMATCH, "%s: tensor '%s': '%s' is no linear module", c->shown, a->name,
                    e->path);
    if (embed && m->dora)
        return fail(err, STATUS_UNSUPPORTED,
                    "%s: tensor '%s': MLX's DoRA on embeddings has a magnitude for each token, which is not "
                    "supported; train lora, or leave embed_tokens out of the keys",
                    c->shown, a->name);
    if (pair.magnitude && e->part[PART_MAGNITUDE]->n_values != pair.module.out)
        return fail(err, STATUS_MISMATCH, "%s: tensor '%s' has %" PRIu64 " values, its module has %u outputs",
                    c->shown, e->part[PART_MAGNITUDE]->name, e->part[PART_MAGNITUDE]->n_values,
                    pair.module.out);
    s = embed ? STATUS_OK : content_transpose(c, &v.a, err);
    if (s == STATUS_OK)
        s = content_transpose(c, &v.b, err);
    if (s == STATUS_OK)
        s = content_add_pair(c, &pair, &v, err);
    if (s == STATUS_OK && embed) {
        content_kind(c, "embedding");
        s = add_tied_head(m, &pair, &v, err);
    }
    return s;
}

/* ---- experts: one pair of stacked tensors for all of a layer */

struct switch_name {
    char parent[512]; /* path of the module that holds the experts, ends with '.' */
    enum lora_site site;
};

static bool parse_switch(const char *path, struct switch_name *out)
{
    static const char middle[] = ".switch_mlp.";
    const char *at = strstr(path, middle);
    if (!at)
        return false;
    snprintf(out->parent, sizeof out->parent, "%.*s.", (int)(at - path), path);
    return lora_site_find(at + sizeof middle - 1, &out->site) &&
           (out->site == LORA_SITE_GATE || out->site == LORA_SITE_UP || out->site == LORA_SITE_DOWN);
}

static enum status check_switch(const struct mlx *m, const struct entry *e, const struct switch_name *name,
                                struct lora_pair *pair, struct error *err)
{
    const struct model_config *config = model_config(m->c->model);
    const struct tensor *b = e->part[PART_B];
    struct model_module module;
    char path[600];
    /* transformers 5 calls them mlp.experts in every family; older files of mixtral block_sparse_moe.experts.
     */
    snprintf(path, sizeof path, "%sexperts", name->parent);
    bool found = model_module_parse(m->c->model, path, &module) && module.kind == MODULE_EXPERTS;
    size_t n = strlen(name->parent), k = strlen("block_sparse_moe.");
    if (!found && n > k && strcmp(name->parent + n - k, "block_sparse_moe.") == 0) {
        snprintf(path, sizeof path, "%.*smlp.experts", (int)(n - k), name->parent);
        found = model_module_parse(m->c->model, path, &module) && module.kind == MODULE_EXPERTS;
    }
    if (!found || b->shape[0] != config->n_experts)
        return fail(err, STATUS_MISMATCH, "%s: tensor '%s': this base has no %" PRIu64 " experts there",
                    m->c->shown, b->name, b->shape[0]);
    pair->module = content_expert(&module, name->site, 1);
    return STATUS_OK;
}

static enum status add_switch(struct mlx *m, const struct entry *e, const struct switch_name *name,
                              struct error *err)
{
    const struct tensor *a = e->part[PART_A], *b = e->part[PART_B];
    struct content *c = m->c;
    struct lora_pair pair = {.scale = (float)m->scale};
    struct pair_values v = {.a_name = a->name, .b_name = b->name};
    if (m->dora)
        return fail(err, STATUS_UNSUPPORTED, "%s: tensor '%s': DoRA on experts is not supported", c->shown,
                    a->name);
    /* a is [experts, r, in], in older files [experts * r, in]. */
    uint64_t n = b->shape[0], rank = b->n_dims == 3 ? b->shape[2] : 0;
    if (b->n_dims != 3 || a->n_dims < 2 || a->n_dims > 3 || n == 0 ||
        (a->n_dims == 3 ? a->shape[0] != n || a->shape[1] != rank : a->shape[0] != n * rank))
        return fail(err, STATUS_FORMAT,
                    "%s: tensors '%s' and '%s': expected [experts, r, in] and [experts, out, r]", c->shown,
                    a->name, b->name);
    enum status s = check_rank(m, b, rank, err);
    if (s == STATUS_OK)
        s = content_matrix(c, a, &v.a, err);
    if (s == STATUS_OK)
        s = content_matrix(c, b, &v.b, err);
    if (s != STATUS_OK)
        return s;
    content_count(c, e, rank);
    content_kind(c, "lora");
    content_kind(c, "experts");
    if (!c->model)
        return keep_switch(m, e, &v, (uint32_t)n, err);
    s = check_switch(m, e, name, &pair, err);
    return s == STATUS_OK ? content_add_experts(c, &pair, &v, (uint32_t)n, err) : s;
}

static enum status add_all(struct mlx *m, struct error *err)
{
    struct content *c = m->c;
    enum status s = STATUS_OK;
    for (size_t i = 0; i < tensors_count(c->tensors) && s == STATUS_OK; i++)
        s = place_tensor(c, tensors_at(c->tensors, i), err);
    for (size_t i = 0; i < c->n_entries && s == STATUS_OK; i++) {
        const struct entry *e = &c->entries[i];
        struct switch_name name;
        s = check_halves(m, e, err);
        if (s == STATUS_OK)
            s = parse_switch(e->path, &name) ? add_switch(m, e, &name, err) : add_plain(m, e, err);
    }
    if (s == STATUS_OK && c->n_entries == 0)
        s = fail(err, STATUS_FORMAT, "%s: no lora_a and lora_b in it", c->shown);
    return s;
}

enum status mlx_load(const struct opened *o, struct json_t *config, struct content *c, struct tensors **keep,
                     struct error *err)
{
    struct mlx m = {.c = c};
    char shown[600];
    snprintf(shown, sizeof shown, "%s/adapter_config.json", o->folder);
    snprintf(c->report->format, sizeof c->report->format, "mlx");
    const char *base = json_string_value(json_object_get(config, "model"));
    snprintf(c->report->base_model, sizeof c->report->base_model, "%s", base ? base : "");
    enum status s = read_kind(config, shown, &m, err);
    if (s == STATUS_OK)
        s = read_parameters(config, shown, &m, err);
    if (s == STATUS_OK)
        s = folder_tensors(o, "adapters", c, keep, err);
    if (s == STATUS_OK)
        s = add_all(&m, err);
    c->report->alpha = m.scale * m.rank; /* what PEFT would call alpha */
    return s;
}
