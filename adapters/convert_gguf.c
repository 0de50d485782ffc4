/* A specification as a GGUF LoRA (loader_gguf.c draws the file). Its scale is alpha / r for one alpha: where
 * a module's is another (rsLoRA, patterns, ranks that differ), B is multiplied by what is missing. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert.h"

/* ---- what the format can't hold ---- */

static enum status refuse(const struct conversion *c, const struct model_module *m, const char *what,
                          struct error *err)
{
    char path[128] = "";
    if (m)
        model_module_path(c->options->base, m, path, sizeof path);
    return fail(err, STATUS_UNSUPPORTED,
                "%s: %s%s%s: a GGUF LoRA has no place for it; serve the PEFT folder, or write a model with "
                "it inside: "
                "lorikeet merge",
                c->shown, path, m ? " has " : "", what);
}

static enum status check(const struct conversion *c, struct error *err)
{
    const struct lora_spec *s = c->spec;
    for (size_t i = 0; i < s->n_pairs; i++) {
        if (s->pairs[i].magnitude)
            return refuse(c, &s->pairs[i].module, "a magnitude vector (DoRA)", err);
        if (s->pairs[i].b_bias)
            return refuse(c, &s->pairs[i].module, "a bias of lora_B (lora_bias)", err);
    }
    if (s->n_tensors)
        return refuse(c, &s->tensors[0].module,
                      s->tensors[0].is_bias ? "a trained bias" : "a whole weight (modules_to_save)", err);
    if (s->n_rows || s->n_head_rows)
        return refuse(c, NULL, "trained token rows (trainable_token_indices)", err);
    return s->n_pairs ? STATUS_OK : refuse(c, NULL, "nothing but tensors that are no products", err);
}

/* ---- products ---- */

/* A's and B's that become one pair of tensors: of one module, or of a layer's experts. */
struct product {
    const char *name;              /* without ".weight" */
    uint32_t n;                    /* experts; 0: a module of its own */
    const struct lora_pair *one;   /* n 0 */
    const struct lora_pair **many; /* [n], NULL where an expert has none */
    uint32_t row;                  /* first of B's rows that belong here */
    uint32_t out, in, rank;        /* rank: the largest */
};

static const struct lora_pair *part_of(const struct product *p, uint32_t i)
{
    return p->n ? p->many[i] : p->one;
}

/* What B must be multiplied by so that alpha / rank is the pair's scale; 1 within a float's rounding. */
static double fold_of(const struct conversion *c, const struct product *p, const struct lora_pair *pair)
{
    double fold = (double)pair->scale * p->rank / c->alpha;
    return fabs(fold - 1) <= 0x1p-22 ? 1 : fold;
}

static enum dtype type_of(const struct conversion *c, const struct product *p, bool *folded)
{
    enum dtype type = DTYPE_COUNT;
    bool mixed = false;
    *folded = false;
    for (uint32_t i = 0; i < (p->n ? p->n : 1); i++) {
        const struct lora_pair *pair = part_of(p, i);
        if (!pair)
            continue;
        mixed = mixed || pair->a_type != pair->b_type || (type != DTYPE_COUNT && type != pair->a_type);
        type = pair->a_type;
        *folded = *folded || fold_of(c, p, pair) != 1;
    }
    if (c->options->type != DTYPE_COUNT)
        return c->options->type;
    return mixed || *folded ? DTYPE_F32 : type;
}

/* [rank, in], zeros below the pair's own rank; the embedding's is [in, rank]. */
static void fill_a(const struct product *p, const struct lora_pair *pair, float *a)
{
    convert_floats(pair->a_type, pair->a, 0, (size_t)pair->rank * p->in, a);
}

static void fill_b(const struct conversion *c, const struct product *p, const struct lora_pair *pair,
                   float *b)
{
    double fold = fold_of(c, p, pair);
    for (size_t r = 0; r < p->out; r++) {
        float *row = b + r * p->rank;
        convert_floats(pair->b_type, pair->b, (p->row + r) * pair->rank, pair->rank, row);
        for (uint32_t k = 0; k < pair->rank && fold != 1; k++)
            row[k] = (float)(fold * (double)row[k]);
    }
}

/* Rows of q's or k's B as GGUF has them. */
static enum status permute(const struct conversion *c, const struct product *p, float *b, struct error *err)
{
    const struct model_config *config = model_config(c->options->base);
    const struct model_module *m = p->one ? &p->one->module : NULL;
    const char *arch;
    bool permuted;
    if (!m || m->kind != MODULE_LINEAR || m->n_sites != 1 ||
        (m->site != LORA_SITE_Q && m->site != LORA_SITE_K) ||
        !gguf_architecture(config->model_type, &arch, &permuted) || !permuted)
        return STATUS_OK;
    uint32_t n_heads = m->site == LORA_SITE_Q ? config->n_heads : config->n_kv_heads;
    size_t n = (size_t)p->out * p->rank;
    float *rows = mem_array(n, sizeof *rows);
    if (!rows)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    memcpy(rows, b, n * sizeof *rows);
    for (uint32_t r = 0; r < p->out; r++)
        memcpy(b + gguf_rope_row(r, n_heads, config->head_dim) * p->rank, rows + (size_t)r * p->rank,
               p->rank * sizeof *b);
    mem_free(rows);
    return STATUS_OK;
}

static enum status add_tensors(struct conversion *c, const struct product *p, const float *a, const float *b,
                               struct error *err)
{
    bool folded, embed = p->one && p->one->module.kind == MODULE_EMBED;
    enum dtype type = type_of(c, p, &folded);
    uint64_t n = p->n ? p->n : 1;
    struct outgoing_shape as = {type, 3, {n, p->rank, p->in}}, bs = {type, 3, {n, p->out, p->rank}};
    const void *a_bytes = NULL, *b_bytes = NULL;
    char name[80];
    if (p->n == 0) {
        as = (struct outgoing_shape){type, 2, {embed ? p->in : p->rank, embed ? p->rank : p->in}};
        bs = (struct outgoing_shape){type, 2, {p->out, p->rank}};
    }
    enum status s = convert_store(c, type, a, (size_t)n * p->rank * p->in, &a_bytes, err);
    if (s == STATUS_OK)
        s = convert_store(c, type, b, (size_t)n * p->rank * p->out, &b_bytes, err);
    snprintf(name, sizeof name, "%s.weight.lora_a", p->name);
    if (s == STATUS_OK)
        s = outgoing_add(&c->out, name, &as, a_bytes, err);
    snprintf(name, sizeof name, "%s.weight.lora_b", p->name);
    if (s == STATUS_OK)
        s = outgoing_add(&c->out, name, &bs, b_bytes, err);
    c->report->n_products++;
    c->report->n_folded += folded;
    return s;
}

static enum status add_product(struct conversion *c, struct product *p, struct error *err)
{
    uint32_t n = p->n ? p->n : 1;
    for (uint32_t i = 0; i < n; i++)
        if (part_of(p, i) && part_of(p, i)->rank > p->rank)
            p->rank = part_of(p, i)->rank;
    size_t a_size = (size_t)p->rank * p->in, b_size = (size_t)p->rank * p->out;
    float *a = mem_array(n * a_size, sizeof *a), *b = mem_array(n * b_size, sizeof *b);
    enum status s = a && b ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    for (uint32_t i = 0; i < n && s == STATUS_OK; i++) {
        const struct lora_pair *pair = part_of(p, i);
        if (!pair)
            continue;
        fill_a(p, pair, a + i * a_size);
        fill_b(c, p, pair, b + i * b_size);
    }
    if (s == STATUS_OK)
        s = permute(c, p, b, err);
    if (s == STATUS_OK)
        s = add_tensors(c, p, a, b, err);
    mem_free(a);
    mem_free(b);
    return s;
}

static enum status add_module(struct conversion *c, const struct lora_pair *pair, struct error *err)
{
    char name[64];
    struct product p = {.name = name, .one = pair, .out = pair->out, .in = pair->in};
    if (!gguf_module_name(&pair->module, name, sizeof name))
        return refuse(c, &pair->module, "a module that GGUF has no name for", err);
    return add_product(c, &p, err);
}

/* gate, up or down of a layer's experts. A pair for gate and up together gives each its half of B. */
static enum status add_experts(struct conversion *c, uint32_t layer, enum lora_site site,
                               const struct lora_pair **pairs, struct error *err)
{
    char name[64];
    uint32_t n = model_config(c->options->base)->n_experts;
    const struct lora_pair *first = NULL;
    if (!convert_find_experts(c, layer, site, pairs))
        return STATUS_OK;
    for (uint32_t e = 0; e < n && !first; e++)
        first = pairs[e];
    require(first); /* one was found */
    for (uint32_t e = 0; e < n; e++)
        if (pairs[e] && pairs[e]->module.n_sites != first->module.n_sites)
            return refuse(c, &pairs[e]->module, "experts that are adapted in two ways", err);
    struct product p = {.name = name, .n = n, .many = pairs, .in = first->in, .out = first->out};
    if (first->module.n_sites == 2) {
        p.out = first->out / 2;
        p.row = site == LORA_SITE_UP ? p.out : 0;
    }
    struct model_module m = {.kind = MODULE_LINEAR, .layer = layer, .expert = 0, .site = site, .n_sites = 1};
    require(gguf_module_name(&m, name, sizeof name));
    return add_product(c, &p, err);
}

static enum status add_all_experts(struct conversion *c, struct error *err)
{
    static const enum lora_site sites[] = {LORA_SITE_GATE, LORA_SITE_UP, LORA_SITE_DOWN};
    const struct model_config *config = model_config(c->options->base);
    enum status s = STATUS_OK;
    if (config->n_experts == 0)
        return STATUS_OK;
    const struct lora_pair **pairs = mem_array(config->n_experts, sizeof *pairs);
    if (!pairs)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    for (uint32_t layer = 0; layer < config->n_layers; layer++)
        for (size_t i = 0; i < 3 && s == STATUS_OK; i++)
            s = add_experts(c, layer, sites[i], pairs, err);
    mem_free((void *)pairs);
    return s;
}

/* ---- the file ---- */

/* The alpha of most modules, so that few must change: the first pair's that has one. */
static double choose_alpha(const struct lora_spec *s)
{
    for (size_t i = 0; i < s->n_pairs; i++)
        if (s->pairs[i].scale != 0)
            return (double)(float)tidy_number((double)s->pairs[i].scale * s->pairs[i].rank);
    return 1;
}

static enum status write(struct conversion *c, const struct out_place *place, const char *name,
                         struct error *err)
{
    const struct model_config *config = model_config(c->options->base);
    const char *arch = "", *base = c->report->from.base_model[0] ? c->report->from.base_model : config->name;
    bool permuted;
    if (!gguf_architecture(config->model_type, &arch, &permuted))
        return fail(err, STATUS_UNSUPPORTED, "%s: GGUF adapters for a %s base are not supported", c->shown,
                    config->model_type);
    struct gguf_pair pairs[] = {
        {.key = "general.architecture", .type = GGUF_PAIR_TEXT, .text = arch},
        {.key = "general.type", .type = GGUF_PAIR_TEXT, .text = "adapter"},
        {.key = "adapter.type", .type = GGUF_PAIR_TEXT, .text = "lora"},
        {.key = "adapter.lora.alpha", .type = GGUF_PAIR_F32, .f32 = (float)c->alpha},
        {.key = "general.base_model.count", .type = GGUF_PAIR_U32, .u32 = 1},
        {.key = "general.base_model.0.name", .type = GGUF_PAIR_TEXT, .text = base},
        {.key = "adapter.alora.invocation_tokens",
         .type = GGUF_PAIR_IDS,
         .ids = c->spec->invocation,
         .n_ids = c->spec->n_invocation},
    };
    size_t n = sizeof pairs / sizeof pairs[0] - (c->spec->n_invocation == 0);
    return outgoing_write_gguf(&c->out, place, name, pairs, n, err);
}

enum status convert_to_gguf(struct conversion *c, const struct out_place *place, const char *name,
                            struct error *err)
{
    enum status s = check(c, err);
    c->alpha = c->report->alpha = choose_alpha(c->spec);
    for (size_t i = 0; i < c->spec->n_pairs && s == STATUS_OK; i++)
        if (c->spec->pairs[i].module.kind != MODULE_LINEAR || c->spec->pairs[i].module.expert < 0)
            s = add_module(c, &c->spec->pairs[i], err);
    if (s == STATUS_OK)
        s = add_all_experts(c, err);
    return s == STATUS_OK ? write(c, place, name, err) : s;
}
