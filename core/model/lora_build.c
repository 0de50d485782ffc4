/* An adapter from its description: everything is checked against the model, then packed into one block of
 * memory in the order in which a step reads it:
 *
 *   embedding            A, factors, B
 *   each layer's group   stacked A, then of each part DoRA's factors, B, bias
 *   each layer's experts stacked A of every expert's gate and up, then their parts; down likewise
 *   lm_head              like a group
 *
 * and behind that, in the order given, what stands in the place of the base's tensors: a step reads it among
 * the base's own. Every piece begins at a line of the cache.
 *
 *   stacked A of a group:   [q's A | k's A | v's A]   each padded with zero rows to a multiple of 4
 *
 * Parts of one group whose A have different types are all widened to f32, which is exact; where the base
 * meets rounded activations A and B may be whole numbers as well (lora_round.c). A fused module (phi3's
 * qkv_proj) is one A that its parts share and one B that is cut by rows. DoRA's factors go into B, which is
 * f32 then, and into the part's `magnitude`. Immutable afterwards. */
#include "lora_build.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

#define ALIGNMENT 64U
#define RANK_MAX 4096U
#define INVOCATION_MAX 4096U

/* Which group a site's A is stacked in, and as which part. */
static struct {
    enum lora_group_id group;
    uint8_t part;
} const place_of[LORA_SITE_COUNT] = {
    [LORA_SITE_Q] = {LORA_GROUP_QKV, 0},         [LORA_SITE_K] = {LORA_GROUP_QKV, 1},
    [LORA_SITE_V] = {LORA_GROUP_QKV, 2},         [LORA_SITE_O] = {LORA_GROUP_O, 0},
    [LORA_SITE_GATE] = {LORA_GROUP_GATE_UP, 0},  [LORA_SITE_UP] = {LORA_GROUP_GATE_UP, 1},
    [LORA_SITE_DOWN] = {LORA_GROUP_DOWN, 0},     [LORA_SITE_ROUTER] = {LORA_GROUP_ROUTER, 0},
    [LORA_SITE_LM_HEAD] = {LORA_GROUP_COUNT, 0},
};

void *lora_take(struct lora_builder *b, size_t n_bytes)
{
    void *at = b->memory ? b->memory + b->at : NULL;
    b->at += (n_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return at;
}

const struct packed *module_weights(const struct model *m, const struct model_module *module,
                                    enum lora_site site)
{
    if (module->expert >= 0)
        return &m->layers[module->layer].experts[3 * (size_t)module->expert + (site - LORA_SITE_GATE)];
    return site == LORA_SITE_LM_HEAD ? &m->head : &m->layers[module->layer].w[site];
}

uint32_t module_site_rows(const struct model *m, const struct model_module *module, enum lora_site site)
{
    return module_weights(m, module, site)->rows;
}

/* ---- checking ---- */

static enum status check_pair(const struct model *m, const struct lora_pair *p, struct error *err)
{
    char path[128];
    model_module_path(m, &p->module, path, sizeof path);
    if (p->module.kind != MODULE_LINEAR && p->module.kind != MODULE_EMBED)
        return fail(err, STATUS_UNSUPPORTED,
                    "%s: only linear modules and the embedding can have a low-rank pair", path);
    if (p->in != p->module.in || p->out != p->module.out)
        return fail(
            err, STATUS_MISMATCH,
            "%s: lora_A takes %u inputs and lora_B gives %u outputs, but the base's module is [%u, %u] (out, "
            "in): made for another base?",
            path, p->in, p->out, p->module.out, p->module.in);
    if (p->rank == 0 || p->rank > RANK_MAX)
        return fail(err, STATUS_MISMATCH, "%s: rank is %u, expected 1 to %u", path, p->rank, RANK_MAX);
    if (!dtype_is_float(p->a_type) || !dtype_is_float(p->b_type))
        return fail(err, STATUS_UNSUPPORTED, "%s: types %s and %s, expected f32, f16 or bf16", path,
                    dtype_name(p->a_type), dtype_name(p->b_type));
    if (!(p->scale - p->scale == 0)) /* NaN or infinite */
        return fail(err, STATUS_INVALID, "%s: scale is not a finite number", path);
    if (p->module.kind == MODULE_EMBED && p->b_bias)
        return fail(err, STATUS_UNSUPPORTED, "%s: an embedding's pair has no bias", path);
    return STATUS_OK;
}

static struct lora_slot *slot_of(const struct lora_builder *b, const struct model_module *module)
{
    if (module->site == LORA_SITE_LM_HEAD)
        return &b->slots[(size_t)b->m->config.n_layers * LORA_GROUP_COUNT];
    unsigned group = place_of[module->site].group;
    if (module->expert < 0)
        return &b->slots[(size_t)module->layer * LORA_GROUP_COUNT + group];
    size_t expert = (size_t)module->layer * b->m->config.n_experts + (uint32_t)module->expert;
    return &b->experts[expert * 2 + (group == LORA_GROUP_DOWN)];
}

static enum status place_pair(struct lora_builder *b, const struct lora_pair *p, struct error *err)
{
    const struct model_module *module = &p->module;
    bool taken = module->kind == MODULE_EMBED && b->embed;
    if (module->kind == MODULE_EMBED)
        b->embed = p;
    uint32_t row = 0;
    for (uint32_t i = 0; module->kind == MODULE_LINEAR && i < module->n_sites; i++) {
        enum lora_site site = module->site + i;
        struct lora_slot *slot = slot_of(b, module);
        uint8_t part = place_of[site].part;
        taken = taken || slot->pair[part];
        slot->pair[part] = p;
        slot->row[part] = row;
        row += module_site_rows(b->m, module, site);
    }
    if (taken) {
        char path[128];
        model_module_path(b->m, module, path, sizeof path);
        return fail(err, STATUS_MISMATCH, "%s: two pairs for one module", path);
    }
    b->l->n_parameters += (uint64_t)p->rank * ((uint64_t)p->in + p->out);
    b->l->rank_max = p->rank > b->l->rank_max ? p->rank : b->l->rank_max;
    return STATUS_OK;
}

static enum status place_pairs(struct lora_builder *b, struct error *err)
{
    for (size_t i = 0; i < b->spec->n_pairs; i++) {
        enum status status = check_pair(b->m, &b->spec->pairs[i], err);
        if (status == STATUS_OK)
            status = place_pair(b, &b->spec->pairs[i], err);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* ---- one group ---- */

static const uint8_t *row_at(enum dtype type, const void *rows, uint64_t row, uint32_t cols)
{
    return (const uint8_t *)rows + row * cols * dtype_info(type)->block_bytes;
}

/* Whether a group's A and B are to meet x and t as whole numbers: those of a module that its pairs are of. */
static bool is_rounded(const struct lora_builder *b, const struct lora_slot *s)
{
    bool rounded = b->spec->store != LORA_STORE_FILE;
    for (int i = 0; i < 3; i++)
        if (s->pair[i])
            rounded = rounded && lora_rounds(b->m, &s->pair[i]->module);
    return rounded;
}

static enum dtype stack_type(const struct lora_builder *b, const struct lora_slot *s)
{
    enum dtype type = DTYPE_COUNT;
    if (is_rounded(b, s))
        return DTYPE_Q8_0;
    if (b->spec->store == LORA_STORE_INT8)
        return DTYPE_I8;
    for (int i = 0; i < 3; i++)
        if (s->pair[i])
            type = type == DTYPE_COUNT || type == s->pair[i]->a_type ? s->pair[i]->a_type : DTYPE_F32;
    return type;
}

static enum dtype side_type(const struct lora_builder *b, enum dtype type)
{
    return b->spec->store == LORA_STORE_INT8 ? DTYPE_I8 : type;
}

static enum dtype b_type(const struct lora_builder *b, const struct lora_pair *p)
{
    return side_type(b, p->magnitude ? DTYPE_F32 : p->b_type);
}

/* Fills B from row `row` of the pair's on, as it is or times the factors. */
static enum status fill_b(const struct packed *w, const struct lora_pair *p, uint32_t row,
                          const float *factors, struct error *err)
{
    if (factors || w->type == DTYPE_I8)
        return lora_fill_rows(w, p->b_type, row_at(p->b_type, p->b, row, p->rank), factors, err);
    packed_fill(w, 0, w->rows, row_at(p->b_type, p->b, row, p->rank));
    return STATUS_OK;
}

static enum status fill_part(const struct lora_builder *b, const struct lora_part *part,
                             const struct lora_pair *p, enum lora_site site, uint32_t row, float *factors,
                             float *bias, struct error *err)
{
    for (uint32_t i = 0; bias && i < part->b.rows; i++)
        bias[i] = p->scale * p->b_bias[row + i];
    if (!factors)
        return fill_b(&part->b, p, row, NULL, err);
    enum status status =
        dora_factors(p, module_weights(b->m, &p->module, site), row, part->b.rows, factors, err);
    if (status != STATUS_OK) {
        char path[128];
        model_module_path(b->m, &p->module, path, sizeof path);
        return fail_within(err, "%s", path);
    }
    for (uint32_t i = 0; bias && i < part->b.rows; i++)
        bias[i] *= factors[i];
    return fill_b(&part->b, p, row, factors, err);
}

static enum status lay_part(struct lora_builder *b, struct lora_part *part, const struct lora_pair *p,
                            enum lora_site site, uint32_t row, struct error *err)
{
    size_t size_bytes;
    uint32_t n_rows = module_site_rows(b->m, &p->module, site);
    enum dtype type = part->rounds ? DTYPE_I8 : b_type(b, p);
    enum status status = packed_shape(type, n_rows, p->rank, &part->b, &size_bytes, err);
    if (status != STATUS_OK)
        return status;
    float *factors = p->magnitude ? lora_take(b, n_rows * sizeof *factors) : NULL;
    part->b.data = lora_take(b, size_bytes);
    float *bias = p->b_bias ? lora_take(b, n_rows * sizeof *bias) : NULL;
    part->magnitude = factors;
    part->bias = bias;
    part->rank = p->rank;
    part->scale = part->rounds && b->memory ? ldexpf(p->scale, -lora_a_shift(p)) : p->scale;
    return b->memory ? fill_part(b, part, p, site, row, factors, bias, err) : STATUS_OK;
}

/* Whole panels of the file's own type: no need to stack them first. */
static bool fill_a_in_place(const struct lora_slot *s, const struct lora_group *g)
{
    bool fits = dtype_is_float(g->a.type);
    for (int i = 0; i < 3; i++)
        if (s->pair[i])
            fits = fits && s->pair[i]->a_type == g->a.type && g->part[i].t_offset % PANEL_ROWS == 0;
    for (int i = 0; i < 3 && fits; i++)
        if (s->pair[i] && !(i > 0 && s->pair[i] == s->pair[i - 1]))
            packed_fill(&g->a, g->part[i].t_offset, g->part[i].t_offset + s->pair[i]->rank, s->pair[i]->a);
    return fits;
}

/* The parts' A below each other, zero rows between; parts of one pair share theirs. */
static enum status fill_a(const struct lora_slot *s, const struct lora_group *g, struct error *err)
{
    uint64_t row_bytes;
    if (fill_a_in_place(s, g))
        return STATUS_OK;
    enum dtype type = dtype_is_float(g->a.type) ? g->a.type : DTYPE_F32;
    enum status status = STATUS_OK;
    require(dtype_row_bytes(type, g->a.cols, &row_bytes));
    uint8_t *stack = mem_zalloc((size_t)g->a.rows * row_bytes);
    if (!stack)
        return fail(err, STATUS_NO_MEMORY, "a stacked A of %u rows", g->a.rows);
    for (int i = 0; i < 3; i++) {
        const struct lora_pair *p = s->pair[i];
        if (!p || (i > 0 && p == s->pair[i - 1]))
            continue;
        uint8_t *dst = stack + g->part[i].t_offset * row_bytes;
        int shift = g->part[i].rounds ? lora_a_shift(p) : 0;
        if (p->a_type == type)
            memcpy(dst, p->a, p->rank * row_bytes);
        else
            dequantize_row(p->a_type, p->a, (uint64_t)p->rank * p->in, (float *)(void *)dst);
        for (size_t k = 0; shift != 0 && k < (size_t)p->rank * p->in; k++)
            ((float *)(void *)dst)[k] = ldexpf(((float *)(void *)dst)[k], shift);
    }
    if (type == g->a.type)
        packed_fill(&g->a, 0, g->a.rows, stack);
    else
        status = lora_fill_rows(&g->a, type, stack, NULL, err);
    mem_free(stack);
    return status;
}

static enum status lay_a(struct lora_builder *b, const struct lora_slot *s, struct lora_group *g,
                         struct error *err)
{
    uint32_t n_rows = 0, in = 0;
    size_t size_bytes;
    for (int i = 0; i < 3; i++) {
        const struct lora_pair *p = s->pair[i];
        if (!p)
            continue;
        bool shared = i > 0 && p == s->pair[i - 1];
        g->part[i].t_offset = shared ? g->part[i - 1].t_offset : n_rows;
        g->part[i].rounds = is_rounded(b, s);
        n_rows += shared ? 0 : (p->rank + 3) / 4 * 4;
        in = p->in;
    }
    if (n_rows == 0)
        return STATUS_OK;
    b->l->t_max = n_rows > b->l->t_max ? n_rows : b->l->t_max;
    enum status status = packed_shape(stack_type(b, s), n_rows, in, &g->a, &size_bytes, err);
    if (status == STATUS_OK)
        g->a.data = lora_take(b, size_bytes);
    return status == STATUS_OK && b->memory ? fill_a(s, g, err) : status;
}

static enum status lay_parts(struct lora_builder *b, const struct lora_slot *s, struct lora_group *g,
                             enum lora_site first, struct error *err)
{
    enum status status = STATUS_OK;
    for (int i = 0; i < 3 && status == STATUS_OK; i++)
        if (s->pair[i])
            status = lay_part(b, &g->part[i], s->pair[i], first + i, s->row[i], err);
    return status;
}

static enum status lay_group(struct lora_builder *b, const struct lora_slot *s, struct lora_group *g,
                             enum lora_site first, struct error *err)
{
    enum status status = lay_a(b, s, g, err);
    return status == STATUS_OK ? lay_parts(b, s, g, first, err) : status;
}

/* ---- the embedding's pair ---- */

static enum status lay_embedding(struct lora_builder *b, struct error *err)
{
    const struct lora_pair *p = b->embed;
    struct lora_embedding *e = &b->l->embed;
    size_t a_bytes, b_bytes;
    if (!p)
        return STATUS_OK;
    enum status status = packed_shape(side_type(b, p->a_type), p->in, p->rank, &e->a, &a_bytes, err);
    if (status == STATUS_OK)
        status = packed_shape(b_type(b, p), p->out, p->rank, &e->b, &b_bytes, err);
    if (status != STATUS_OK)
        return status;
    e->a.data = lora_take(b, a_bytes);
    float *factors = p->magnitude ? lora_take(b, p->out * sizeof *factors) : NULL;
    e->b.data = lora_take(b, b_bytes);
    e->magnitude = factors;
    e->scale = p->scale;
    b->l->t_max = p->rank > b->l->t_max ? p->rank : b->l->t_max;
    if (!b->memory)
        return STATUS_OK;
    if (e->a.type == DTYPE_I8)
        status = lora_fill_rows(&e->a, p->a_type, p->a, NULL, err);
    else
        packed_fill(&e->a, 0, p->in, p->a);
    if (status == STATUS_OK && factors)
        status = dora_embedding_factors(p, &b->m->embed, factors, err);
    return status == STATUS_OK ? fill_b(&e->b, p, 0, factors, err) : status;
}

/* ---- the whole ---- */

/* Gate and up of all experts, or down of all: a step multiplies by every A before it comes to a B. */
static enum status lay_experts(struct lora_builder *b, uint32_t layer, enum lora_site first,
                               struct error *err)
{
    uint32_t n_experts = b->m->config.n_experts, at = first == LORA_SITE_DOWN;
    const struct lora_slot *s = b->experts + (size_t)layer * 2 * n_experts;
    struct lora_group *g = b->l->layers[layer].experts;
    enum status status = STATUS_OK;
    for (uint32_t i = at; i < 2 * n_experts && status == STATUS_OK; i += 2)
        status = lay_a(b, &s[i], &g[i], err);
    for (uint32_t i = at; i < 2 * n_experts && status == STATUS_OK; i += 2)
        status = lay_parts(b, &s[i], &g[i], first, err);
    return status;
}

/* A layer has gate, up and down, or a router and experts. */
static enum status lay_layer(struct lora_builder *b, uint32_t layer, struct error *err)
{
    static const enum lora_site first[LORA_GROUP_COUNT] = {LORA_SITE_Q, LORA_SITE_O, LORA_SITE_GATE,
                                                           LORA_SITE_DOWN, LORA_SITE_ROUTER};
    struct lora_layer *to = &b->l->layers[layer];
    enum status status = STATUS_OK;
    for (unsigned g = 0; g < LORA_GROUP_COUNT && status == STATUS_OK; g++)
        status = lay_group(b, &b->slots[(size_t)layer * LORA_GROUP_COUNT + g], &to->group[g], first[g], err);
    if (status == STATUS_OK && to->experts)
        status = lay_experts(b, layer, LORA_SITE_GATE, err);
    if (status == STATUS_OK && to->experts)
        status = lay_experts(b, layer, LORA_SITE_DOWN, err);
    return status;
}

static enum status lay_all(struct lora_builder *b, struct error *err)
{
    b->at = 0;
    enum status status = lay_embedding(b, err);
    for (uint32_t i = 0; i < b->l->n_layers && status == STATUS_OK; i++)
        status = lay_layer(b, i, err);
    if (status == STATUS_OK)
        status = lay_group(b, slot_of(b, &(struct model_module){.site = LORA_SITE_LM_HEAD}), &b->l->lm_head,
                           LORA_SITE_LM_HEAD, err);
    return status == STATUS_OK ? lora_lay_replaced(b, err) : status;
}

/* Tables for the experts of the layers that have a pair on one. */
static enum status make_expert_tables(struct lora_builder *b, struct error *err)
{
    uint32_t n_experts = b->m->config.n_experts;
    size_t n_slots = (size_t)b->l->n_layers * n_experts * 2;
    for (size_t i = 0; i < b->spec->n_pairs; i++) {
        const struct model_module *module = &b->spec->pairs[i].module;
        if (module->kind != MODULE_LINEAR || module->expert < 0)
            continue;
        require((uint32_t)module->expert < n_experts && module->layer < b->l->n_layers);
        struct lora_layer *to = &b->l->layers[module->layer];
        if (!to->experts)
            to->experts = mem_array((size_t)n_experts * 2, sizeof *to->experts);
        if (!b->experts)
            b->experts = mem_array(n_slots, sizeof *b->experts);
        if (!to->experts || !b->experts)
            return fail(err, STATUS_NO_MEMORY, "the table of %u experts", n_experts);
    }
    return STATUS_OK;
}

static enum status take_invocation(struct lora_builder *b, struct error *err)
{
    const struct lora_spec *spec = b->spec;
    if (spec->n_invocation == 0)
        return STATUS_OK;
    if (spec->n_invocation > INVOCATION_MAX)
        return fail(err, STATUS_TOO_LARGE, "%zu invocation tokens, at most %u", spec->n_invocation,
                    INVOCATION_MAX);
    for (size_t i = 0; i < spec->n_invocation; i++)
        if (spec->invocation[i] < 0 || (uint32_t)spec->invocation[i] >= b->m->config.vocab_size)
            return fail(err, STATUS_MISMATCH, "invocation token %d is outside the base's vocabulary of %u",
                        spec->invocation[i], b->m->config.vocab_size);
    b->l->invocation = mem_array(spec->n_invocation, sizeof *b->l->invocation);
    if (!b->l->invocation)
        return fail(err, STATUS_NO_MEMORY, "invocation tokens");
    memcpy(b->l->invocation, spec->invocation, spec->n_invocation * sizeof *spec->invocation);
    b->l->n_invocation = (uint32_t)spec->n_invocation;
    return STATUS_OK;
}

static enum status build(struct lora_builder *b, struct error *err)
{
    struct lora *l = b->l;
    b->slots = mem_array((size_t)l->n_layers * LORA_GROUP_COUNT + 1, sizeof *b->slots);
    l->layers = mem_array(l->n_layers, sizeof *l->layers);
    if (!b->slots || !l->layers)
        return fail(err, STATUS_NO_MEMORY, "adapter's table of layers");
    enum status status = make_expert_tables(b, err);
    if (status == STATUS_OK)
        status = take_invocation(b, err);
    if (status == STATUS_OK)
        status = place_pairs(b, err);
    if (status == STATUS_OK)
        status = lay_all(b, err);
    if (status != STATUS_OK)
        return status;
    size_t size_bytes = b->at;
    b->memory = l->memory = mem_aligned(ALIGNMENT, size_bytes);
    if (!l->memory)
        return fail(err, STATUS_NO_MEMORY, "adapter of %zu bytes", size_bytes);
    status = lay_all(b, err);
    require(status != STATUS_OK || b->at == size_bytes);
    l->size_bytes += sizeof *l + l->n_layers * sizeof *l->layers + size_bytes;
    return status;
}

enum status lora_build(const struct model *m, const struct lora_spec *spec, const uint8_t digest[32],
                       struct lora **out, struct error *err)
{
    *out = NULL;
    if (spec->n_pairs == 0 && spec->n_tensors == 0 && spec->n_rows == 0 && spec->n_head_rows == 0)
        return fail(err, STATUS_MISMATCH, "the adapter touches no module");
    struct lora_builder b = {.m = m, .spec = spec, .l = mem_zalloc(sizeof *b.l)};
    if (!b.l)
        return fail(err, STATUS_NO_MEMORY, "adapter");
    atomic_init(&b.l->refs, 1);
    b.l->model = m;
    b.l->n_layers = m->config.n_layers;
    memcpy(b.l->digest, digest, sizeof b.l->digest);
    enum status status = build(&b, err);
    mem_free(b.slots);
    mem_free(b.experts);
    if (status != STATUS_OK) {
        lora_release(b.l);
        return status;
    }
    *out = b.l;
    return STATUS_OK;
}
