/* An adapter built from its A/B pairs: shapes checked against the model, then packed into one block of memory
 * in the order in which a step reads it: layer by layer, group by group, the stacked A and then each B.
 *
 *   stacked A of a group:   [q's A | k's A | v's A]   each padded with zero rows to a multiple of 4
 *
 * Parts of one group whose A have different types are all widened to f32, which is exact. Immutable
 * afterwards, and freed by the last release. */
#include "lora.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model_inner.h"

#define ALIGNMENT 64U
#define RANK_MAX 4096U

const char *lora_site_name(enum lora_site s)
{
    static const char *const names[] = {
#define SITE_NAME(name, text) text,
        LORA_SITE_LIST(SITE_NAME)
#undef SITE_NAME
    };
    return (unsigned)s < LORA_SITE_COUNT ? names[s] : "?";
}

bool lora_site_find(const char *name, enum lora_site *out)
{
    for (unsigned s = 0; s < LORA_SITE_COUNT; s++)
        if (strcmp(lora_site_name((enum lora_site)s), name) == 0) {
            *out = (enum lora_site)s;
            return true;
        }
    return false;
}

/* Which group a site's A is stacked in, and as which part. */
static struct {
    enum lora_group_id group;
    uint8_t part;
} const place_of[LORA_SITE_LM_HEAD] = {
    [LORA_SITE_Q] = {LORA_GROUP_QKV, 0},        [LORA_SITE_K] = {LORA_GROUP_QKV, 1},
    [LORA_SITE_V] = {LORA_GROUP_QKV, 2},        [LORA_SITE_O] = {LORA_GROUP_O, 0},
    [LORA_SITE_GATE] = {LORA_GROUP_GATE_UP, 0}, [LORA_SITE_UP] = {LORA_GROUP_GATE_UP, 1},
    [LORA_SITE_DOWN] = {LORA_GROUP_DOWN, 0},    [LORA_SITE_ROUTER] = {LORA_GROUP_ROUTER, 0},
};

/* The pairs of a group, NULL where a part is untouched. */
struct slot {
    const struct lora_pair *pair[3];
};

struct builder {
    const struct model *m;
    struct lora *l;
    struct slot *slots; /* [n_layers * LORA_GROUP_COUNT + 1], the last one is the head's */
    size_t n_slots;
    size_t memory_bytes;
    size_t stack_bytes; /* largest stacked A as plain rows */
};

static struct lora_group *group_of(struct lora *l, size_t slot)
{
    size_t layer = slot / LORA_GROUP_COUNT;
    return layer < l->n_layers ? &l->layers[layer].group[slot % LORA_GROUP_COUNT] : &l->lm_head;
}

static size_t aligned(size_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static uint32_t padded_rank(uint32_t rank)
{
    return (rank + 3) / 4 * 4;
}

static bool is_float_type(enum dtype t)
{
    return t == DTYPE_F32 || t == DTYPE_F16 || t == DTYPE_BF16;
}

/* ---- checking ---- */

static enum status check_pair(const struct model *m, const struct lora_pair *p, struct error *err)
{
    char path[128];
    uint32_t out, in;
    out = p->module.out;
    in = p->module.in;
    model_module_path(m, &p->module, path, sizeof path);
    if (p->module.kind != MODULE_LINEAR || p->module.n_sites != 1 || p->module.expert >= 0)
        return fail(err, STATUS_UNSUPPORTED, "%s: only plain linear modules can be adapted yet", path);
    if (p->in != in || p->out != out)
        return fail(
            err, STATUS_MISMATCH,
            "%s: lora_A takes %u inputs and lora_B gives %u outputs, but the base's module is [%u, %u] (out, "
            "in): made for another base?",
            path, p->in, p->out, out, in);
    if (p->rank == 0 || p->rank > RANK_MAX)
        return fail(err, STATUS_MISMATCH, "%s: rank is %u, expected 1 to %u", path, p->rank, RANK_MAX);
    if (!is_float_type(p->a_type) || !is_float_type(p->b_type))
        return fail(err, STATUS_UNSUPPORTED, "%s: types %s and %s, expected f32, f16 or bf16", path,
                    dtype_name(p->a_type), dtype_name(p->b_type));
    if (!(p->scale - p->scale == 0)) /* NaN or infinite */
        return fail(err, STATUS_INVALID, "%s: scale is not a finite number", path);
    return STATUS_OK;
}

static enum status place_pairs(struct builder *b, const struct lora_pair *pairs, size_t n_pairs,
                               struct error *err)
{
    for (size_t i = 0; i < n_pairs; i++) {
        const struct lora_pair *p = &pairs[i];
        enum status status = check_pair(b->m, p, err);
        if (status != STATUS_OK)
            return status;
        bool head = p->module.site == LORA_SITE_LM_HEAD;
        size_t slot = head ? b->n_slots - 1
                           : (size_t)p->module.layer * LORA_GROUP_COUNT + place_of[p->module.site].group;
        const struct lora_pair **at = &b->slots[slot].pair[head ? 0 : place_of[p->module.site].part];
        if (*at) {
            char path[128];
            model_module_path(b->m, &p->module, path, sizeof path);
            return fail(err, STATUS_MISMATCH, "%s: two pairs for one module", path);
        }
        *at = p;
        b->l->n_parameters += (uint64_t)p->rank * ((uint64_t)p->in + p->out);
        b->l->rank_max = p->rank > b->l->rank_max ? p->rank : b->l->rank_max;
    }
    return STATUS_OK;
}

/* ---- packing: first the geometry of everything, then one block, then the contents ---- */

static enum dtype stack_type(const struct slot *s)
{
    enum dtype type = DTYPE_COUNT;
    for (int i = 0; i < 3; i++)
        if (s->pair[i])
            type = type == DTYPE_COUNT || type == s->pair[i]->a_type ? s->pair[i]->a_type : DTYPE_F32;
    return type;
}

static enum status shape_group(struct builder *b, size_t slot, struct error *err)
{
    const struct slot *s = &b->slots[slot];
    struct lora_group *g = group_of(b->l, slot);
    uint32_t n_rows = 0, in = 0;
    size_t size_bytes;
    for (int i = 0; i < 3; i++) {
        const struct lora_pair *p = s->pair[i];
        if (!p)
            continue;
        g->part[i] = (struct lora_part){.t_offset = n_rows, .rank = p->rank, .scale = p->scale};
        n_rows += padded_rank(p->rank);
        in = p->in;
        enum status status = packed_shape(p->b_type, p->out, p->rank, &g->part[i].b, &size_bytes, err);
        if (status != STATUS_OK)
            return status;
        b->memory_bytes += aligned(size_bytes);
    }
    if (n_rows == 0)
        return STATUS_OK;
    enum status status = packed_shape(stack_type(s), n_rows, in, &g->a, &size_bytes, err);
    if (status != STATUS_OK)
        return status;
    b->memory_bytes += aligned(size_bytes);
    b->l->t_max = n_rows > b->l->t_max ? n_rows : b->l->t_max;
    size_t stack_bytes = (size_t)n_rows * in * sizeof(float);
    b->stack_bytes = stack_bytes > b->stack_bytes ? stack_bytes : b->stack_bytes;
    return STATUS_OK;
}

static uint8_t *take(struct packed *w, uint8_t *at)
{
    w->data = at;
    return at + aligned((size_t)w->n_panels * w->panel_bytes);
}

/* The parts' A below each other, zero rows between; `stack` holds b->stack_bytes. */
static void stack_a(const struct slot *s, const struct lora_group *g, void *stack)
{
    uint64_t row_bytes;
    require(dtype_row_bytes(g->a.type, g->a.cols, &row_bytes));
    memset(stack, 0, (size_t)g->a.rows * row_bytes);
    for (int i = 0; i < 3; i++) {
        const struct lora_pair *p = s->pair[i];
        if (!p)
            continue;
        uint8_t *dst = (uint8_t *)stack + g->part[i].t_offset * row_bytes;
        if (p->a_type == g->a.type)
            memcpy(dst, p->a, p->rank * row_bytes);
        else
            dequantize_row(p->a_type, p->a, (uint64_t)p->rank * p->in, (float *)(void *)dst);
    }
}

static uint8_t *fill_group(const struct builder *b, size_t slot, void *stack, uint8_t *at)
{
    const struct slot *s = &b->slots[slot];
    struct lora_group *g = group_of(b->l, slot);
    if (g->a.rows == 0)
        return at;
    at = take(&g->a, at);
    stack_a(s, g, stack);
    packed_fill(&g->a, 0, g->a.rows, stack);
    for (int i = 0; i < 3; i++) {
        const struct lora_pair *p = s->pair[i];
        if (!p)
            continue;
        at = take(&g->part[i].b, at);
        packed_fill(&g->part[i].b, 0, p->out, p->b);
    }
    return at;
}

static enum status build(struct builder *b, const struct lora_pair *pairs, size_t n_pairs, struct error *err)
{
    struct lora *l = b->l;
    enum status status = place_pairs(b, pairs, n_pairs, err);
    for (size_t i = 0; i < b->n_slots && status == STATUS_OK; i++)
        status = shape_group(b, i, err);
    if (status != STATUS_OK)
        return status;
    l->memory = mem_aligned(ALIGNMENT, b->memory_bytes);
    void *stack = mem_alloc(b->stack_bytes);
    if (l->memory && stack) {
        uint8_t *at = l->memory;
        for (size_t i = 0; i < b->n_slots; i++)
            at = fill_group(b, i, stack, at);
        require(at == (uint8_t *)l->memory + b->memory_bytes);
        l->size_bytes = sizeof *l + l->n_layers * sizeof *l->layers + b->memory_bytes;
    } else {
        status = fail(err, STATUS_NO_MEMORY, "adapter of %zu bytes", b->memory_bytes);
    }
    mem_free(stack);
    return status;
}

enum status lora_build(const struct model *m, const struct lora_spec *spec, const uint8_t digest[32],
                       struct lora **out, struct error *err)
{
    const struct lora_pair *pairs = spec->pairs;
    size_t n_pairs = spec->n_pairs;
    *out = NULL;
    if (n_pairs == 0)
        return fail(err, STATUS_MISMATCH, "the adapter touches no module");
    struct builder b = {.m = m, .n_slots = (size_t)m->config.n_layers * LORA_GROUP_COUNT + 1};
    b.l = mem_zalloc(sizeof *b.l);
    if (!b.l)
        return fail(err, STATUS_NO_MEMORY, "adapter");
    atomic_init(&b.l->refs, 1);
    b.l->model = m;
    b.l->n_layers = m->config.n_layers;
    memcpy(b.l->digest, digest, sizeof b.l->digest);
    b.l->layers = mem_array(b.l->n_layers, sizeof *b.l->layers);
    b.slots = mem_array(b.n_slots, sizeof *b.slots);
    enum status status = b.l->layers && b.slots ? build(&b, pairs, n_pairs, err)
                                                : fail(err, STATUS_NO_MEMORY, "adapter's table of layers");
    mem_free(b.slots);
    if (status != STATUS_OK) {
        lora_release(b.l);
        return status;
    }
    *out = b.l;
    return STATUS_OK;
}

struct lora *lora_acquire(struct lora *l)
{
    if (l) /* relaxed: who acquires holds a reference already */
        atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
    return l;
}

void lora_release(struct lora *l)
{
    /* release: our reads are over before the count falls; acquire: the one who frees sees all others' reads
     * over. */
    if (!l || atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) != 1)
        return;
    mem_free(l->memory);
    mem_free(l->layers);
    mem_free(l);
}

uint32_t lora_begin(const struct lora *l, const int32_t *prompt, uint32_t n_prompt)
{
    if (l->n_invocation == 0)
        return 0;
    for (uint32_t at = n_prompt; at >= l->n_invocation; at--)
        if (memcmp(prompt + (at - l->n_invocation), l->invocation, l->n_invocation * sizeof *prompt) == 0)
            return at - l->n_invocation;
    return UINT32_MAX;
}
