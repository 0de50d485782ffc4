/* A model with an adapter inside it: the base's struct copied, and every matrix and vector that the adapter
 * touches replaced by one of its own. The order of operations is that of lora_apply.c: replaced tensor, token
 * rows, DoRA's factor, then the sum of the low-rank products. What is here says which tensor becomes what;
 * the arithmetic is in merge_matrix.c. */
#include "merge.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

/* What a merged copy owns. */
struct merged {
    struct lora *lora; /* a reference: replaced weights are its memory */
    void **blocks;
    size_t n_blocks, capacity;
    struct merge_report report;
    double squares[2];
};

struct merging {
    const struct model *base;
    const struct lora *lora;
    enum dtype type;
    struct model *m; /* the result */
    struct merge_scratch scratch;
};

/* ---- the adapter ---- */

static uint32_t n_members(const struct lora *l)
{
    return l->n_members ? l->n_members : 1;
}

static const struct lora *member(const struct lora *l, uint32_t i, float *weight)
{
    *weight = l->n_members ? l->members[i].weight : 1;
    return l->n_members ? l->members[i].lora : l;
}

/* The one whose tensors stand in the place of the base's: only a member that is alone can have some. */
static const struct lora *replacing(const struct lora *l)
{
    float weight;
    const struct lora *alone = n_members(l) == 1 ? member(l, 0, &weight) : NULL;
    return alone && weight == 1 ? alone : NULL;
}

struct spot {
    uint32_t layer;
    enum lora_site site;
    int32_t expert; /* GATE, UP or DOWN of this one; -1: none */
};

static const struct lora_group *group_at(const struct lora *l, const struct spot *s)
{
    static const enum lora_group_id groups[] = {
        [LORA_SITE_Q] = LORA_GROUP_QKV,        [LORA_SITE_K] = LORA_GROUP_QKV,
        [LORA_SITE_V] = LORA_GROUP_QKV,        [LORA_SITE_O] = LORA_GROUP_O,
        [LORA_SITE_GATE] = LORA_GROUP_GATE_UP, [LORA_SITE_UP] = LORA_GROUP_GATE_UP,
        [LORA_SITE_DOWN] = LORA_GROUP_DOWN,    [LORA_SITE_ROUTER] = LORA_GROUP_ROUTER,
    };
    const struct lora_layer *layer = &l->layers[s->layer];
    if (s->site == LORA_SITE_LM_HEAD)
        return &l->lm_head;
    if (s->expert < 0)
        return &layer->group[groups[s->site]];
    return layer->experts ? &layer->experts[2 * s->expert + (s->site == LORA_SITE_DOWN)] : NULL;
}

static const struct lora_part *part_at(const struct lora *l, const struct spot *s)
{
    static const uint8_t parts[LORA_SITE_COUNT] = {[LORA_SITE_K] = 1, [LORA_SITE_V] = 2, [LORA_SITE_UP] = 1};
    const struct lora_group *group = group_at(l, s);
    return group && group->part[parts[s->site]].b.data ? &group->part[parts[s->site]] : NULL;
}

/* 1 + sum of weight * (factor - 1); a single adapter's factors as they are. False if none has factors. */
static void add_factor(float *factor, const float *magnitude, float weight, bool alone, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        factor[i] = alone ? magnitude[i] : factor[i] + weight * (magnitude[i] - 1);
}

/* ---- memory of the result ---- */

static void *own(struct merging *g, size_t count, size_t item_bytes, struct error *err)
{
    struct merged *o = g->m->merged;
    size_t n_bytes;
    if (o->n_blocks == o->capacity) {
        size_t more = o->capacity ? 2 * o->capacity : 64;
        void **blocks = mem_realloc(o->blocks, more * sizeof *blocks);
        if (blocks) {
            o->blocks = blocks;
            o->capacity = more;
        }
    }
    void *block = o->n_blocks < o->capacity && size_mul(count, item_bytes, &n_bytes)
                      ? mem_aligned(64, n_bytes ? n_bytes : 1)
                      : NULL;
    if (!block) {
        fail(err, STATUS_NO_MEMORY, "merged copy: %zu values of %zu bytes", count, item_bytes);
        return NULL;
    }
    o->blocks[o->n_blocks++] = block;
    o->report.size_bytes += n_bytes;
    return block;
}

/* *at becomes a copy of n floats; nothing to do where `from` is NULL. */
static enum status own_vector(struct merging *g, const float *from, uint32_t n, float **at, struct error *err)
{
    if (!from)
        return STATUS_OK;
    float *copy = own(g, n, sizeof *copy, err);
    if (!copy)
        return STATUS_NO_MEMORY;
    memcpy(copy, from, n * sizeof *copy);
    *at = copy;
    return STATUS_OK;
}

/* ---- matrices ---- */

/* The job's matrix, stored anew into *w, which is its source now. */
static enum status store(struct merging *g, const struct merge_matrix *what, struct packed *w,
                         struct error *err)
{
    struct packed from = *w;
    struct merge_matrix job = *what;
    bool blocks = from.cols % dtype_info(g->type)->block_size == 0;
    size_t size_bytes;
    enum status s = packed_shape(blocks ? g->type : from.type, from.rows, from.cols, w, &size_bytes, err);
    if (s != STATUS_OK)
        return s;
    w->data = own(g, 1, size_bytes, err);
    if (!w->data)
        return STATUS_NO_MEMORY;
    job.from = &from;
    job.to = w;
    merge_matrix_run(&job, &g->scratch, g->m->merged->squares);
    g->m->merged->report.n_matrices++;
    return STATUS_OK;
}

/* The low-rank products of all members at a spot into *w; token_rows (or NULL) replace rows first. */
static enum status merge_linear(struct merging *g, const struct spot *at, const struct lora_rows *rows,
                                struct packed *w, struct error *err)
{
    struct merge_matrix job = {.token_rows = rows};
    float *right = g->scratch.right, weight;
    for (uint32_t i = 0; i < n_members(g->lora); i++) {
        const struct lora *l = member(g->lora, i, &weight);
        const struct lora_part *part = part_at(l, at);
        if (!part)
            continue;
        const struct packed *a = &group_at(l, at)->a;
        job.deltas[job.n_deltas++] = (struct merge_delta){&part->b, right, part->rank, weight * part->scale};
        for (uint32_t r = 0; r < part->rank; r++, right += w->cols)
            packed_row_f32(a, part->t_offset + r, right);
        if (!part->magnitude)
            continue;
        for (uint32_t r = 0; !job.row_factor && r < w->rows; r++)
            g->scratch.row_factor[r] = 1;
        job.row_factor = g->scratch.row_factor;
        add_factor(g->scratch.row_factor, part->magnitude, weight, g->lora->n_members == 0, w->rows);
    }
    return job.n_deltas > 0 || rows ? store(g, &job, w, err) : STATUS_OK;
}

/* The transpose of an embedding's B: [rank, hidden]. */
static void transpose(const struct packed *b, float *row, float *right)
{
    for (uint32_t i = 0; i < b->rows; i++) {
        packed_row_f32(b, i, row);
        for (uint32_t r = 0; r < b->cols; r++)
            right[(size_t)r * b->rows + i] = row[r];
    }
}

static enum status merge_embedding(struct merging *g, struct error *err)
{
    struct packed *w = &g->m->embed;
    const struct lora *r = replacing(g->lora);
    struct merge_matrix job = {.token_rows = r && r->embed.rows.n ? &r->embed.rows : NULL};
    float *right = g->scratch.right, weight;
    if (r && r->embed.table.data)
        *w = r->embed.table;
    for (uint32_t i = 0; i < n_members(g->lora); i++) {
        const struct lora_embedding *e = &member(g->lora, i, &weight)->embed;
        if (!e->b.data)
            continue;
        transpose(&e->b, (float *)(void *)g->scratch.slices, right);
        job.deltas[job.n_deltas++] = (struct merge_delta){&e->a, right, e->b.cols, weight * e->scale};
        right += (size_t)e->b.cols * w->cols;
        if (!e->magnitude)
            continue;
        for (uint32_t k = 0; !job.col_factor && k < w->cols; k++)
            g->scratch.col_factor[k] = 1;
        job.col_factor = g->scratch.col_factor;
        add_factor(g->scratch.col_factor, e->magnitude, weight, g->lora->n_members == 0, w->cols);
    }
    return job.n_deltas > 0 || job.token_rows ? store(g, &job, w, err) : STATUS_OK;
}

/* ---- vectors ---- */

/* The bias of a site with what the members add to it. */
static enum status merge_bias(struct merging *g, const struct spot *at, float **bias, struct error *err)
{
    float *sum = NULL, weight;
    uint32_t n = g->m->layers[at->layer].w[at->site].rows;
    for (uint32_t i = 0; i < n_members(g->lora); i++) {
        const struct lora_part *part = part_at(member(g->lora, i, &weight), at);
        if (!part || !part->bias)
            continue;
        if (!sum) {
            sum = own(g, n, sizeof *sum, err);
            if (!sum)
                return STATUS_NO_MEMORY;
            for (uint32_t k = 0; *bias && k < n; k++)
                sum[k] = (*bias)[k];
        }
        for (uint32_t k = 0; k < n; k++)
            sum[k] += weight * part->bias[k];
    }
    *bias = sum ? sum : *bias;
    return STATUS_OK;
}

static enum status merge_norms(struct merging *g, struct model_layer *to, const struct lora_replaced *r,
                               struct error *err)
{
    enum status s = STATUS_OK;
    for (unsigned n = 0; n < NORM_LAYER_COUNT && s == STATUS_OK; n++) {
        s = own_vector(g, r->norm[n], norm_length(g->base, n), &to->norm[n], err);
        if (s == STATUS_OK)
            s = own_vector(g, r->norm_bias[n], norm_length(g->base, n), &to->norm_bias[n], err);
    }
    return s;
}

/* ---- the whole ---- */

static bool touches_experts(const struct lora *l, uint32_t layer)
{
    float weight;
    for (uint32_t i = 0; i < n_members(l); i++)
        if (member(l, i, &weight)->layers[layer].experts)
            return true;
    return false;
}

static enum status merge_experts(struct merging *g, uint32_t layer, struct error *err)
{
    struct model_layer *to = &g->m->layers[layer];
    uint32_t n = g->base->config.n_experts;
    if (!to->experts || !touches_experts(g->lora, layer))
        return STATUS_OK;
    struct packed *experts = own(g, (size_t)3 * n, sizeof *experts, err);
    if (!experts)
        return STATUS_NO_MEMORY;
    memcpy(experts, to->experts, (size_t)3 * n * sizeof *experts);
    to->experts = experts;
    enum status s = STATUS_OK;
    for (uint32_t i = 0; i < 3 * n && s == STATUS_OK; i++) {
        struct spot at = {layer, LORA_SITE_GATE + i % 3, (int32_t)(i / 3)};
        s = merge_linear(g, &at, NULL, &experts[i], err);
    }
    return s;
}

static enum status merge_layer(struct merging *g, uint32_t layer, struct error *err)
{
    const struct lora *l = replacing(g->lora);
    const struct lora_replaced *r = l ? l->layers[layer].replaced : NULL;
    struct model_layer *to = &g->m->layers[layer];
    enum status s = r ? merge_norms(g, to, r, err) : STATUS_OK;
    for (unsigned site = 0; site < N_LAYER_SITES && s == STATUS_OK; site++) {
        struct spot at = {layer, site, -1};
        if (r && r->w[site].data)
            to->w[site] = r->w[site];
        s = merge_linear(g, &at, NULL, &to->w[site], err);
        if (s == STATUS_OK && r)
            s = own_vector(g, r->bias[site], to->w[site].rows, &to->bias[site], err);
        if (s == STATUS_OK)
            s = merge_bias(g, &at, &to->bias[site], err);
    }
    return s == STATUS_OK ? merge_experts(g, layer, err) : s;
}

static enum status merge_ends(struct merging *g, struct error *err)
{
    const struct lora *l = replacing(g->lora);
    const struct lora_replaced *r = l ? l->ends : NULL;
    struct model *m = g->m;
    enum status s = STATUS_OK;
    if (r && r->w[LORA_SITE_LM_HEAD].data)
        m->head = r->w[LORA_SITE_LM_HEAD];
    if (r)
        s = own_vector(g, r->norm[NORM_FINAL], m->config.hidden_size, &m->final_norm, err);
    if (s == STATUS_OK && r)
        s = own_vector(g, r->norm_bias[NORM_FINAL], m->config.hidden_size, &m->final_norm_bias, err);
    if (s == STATUS_OK)
        s = merge_linear(g, &(struct spot){0, LORA_SITE_LM_HEAD, -1},
                         l && l->head_rows.n ? &l->head_rows : NULL, &m->head, err);
    if (s == STATUS_OK)
        s = merge_embedding(g, err);
    m->tied = m->tied && m->head.data == m->embed.data;
    return s;
}

/* Where the pass adds no bias, one of lora_B has no place. */
static enum status check_bias(const struct lora *l, const struct spot *at, struct error *err)
{
    const struct lora_part *part = part_at(l, at);
    if (!part || !part->bias)
        return STATUS_OK;
    return fail(err, STATUS_UNSUPPORTED,
                "%s%s: a bias of lora_B can't be merged there; use the adapter unmerged",
                at->expert < 0 ? "" : "expert's ", lora_site_name(at->site));
}

static enum status check_biases(const struct merging *g, const struct lora *l, struct error *err)
{
    uint32_t n_experts = g->base->config.n_experts;
    enum status s = check_bias(l, &(struct spot){0, LORA_SITE_LM_HEAD, -1}, err);
    for (uint32_t layer = 0; layer < g->base->config.n_layers && s == STATUS_OK; layer++) {
        s = check_bias(l, &(struct spot){layer, LORA_SITE_ROUTER, -1}, err);
        for (uint32_t i = 0; i < 3 * n_experts && s == STATUS_OK; i++)
            s = check_bias(l, &(struct spot){layer, LORA_SITE_GATE + i % 3, (int32_t)(i / 3)}, err);
    }
    return s;
}

static enum status check(const struct merging *g, struct error *err)
{
    float weight;
    enum status s = STATUS_OK;
    require(g->lora->model == g->base);
    if (g->type != DTYPE_F32 && g->type != DTYPE_BF16 && g->type != DTYPE_Q8_0)
        return fail(
            err, STATUS_UNSUPPORTED,
            "merging into %s is not offered: found %s, expected f32, bf16 or q8_0 (coarser steps lose "
            "the adapter)",
            dtype_name(g->type), dtype_name(g->type));
    for (uint32_t i = 0; i < n_members(g->lora) && s == STATUS_OK; i++) {
        const struct lora *l = member(g->lora, i, &weight);
        if (l->n_invocation > 0)
            return fail(err, STATUS_UNSUPPORTED,
                        "alora_invocation_tokens: the adapter acts from them on, a merged copy would act "
                        "everywhere; use it unmerged");
        s = check_biases(g, l, err);
    }
    return s;
}

static void measure_matrix(struct merge_scratch *s, const struct packed *b, uint32_t rows, uint32_t cols)
{
    if (!b->data)
        return;
    s->rows_max = rows > s->rows_max ? rows : s->rows_max;
    s->cols_max = cols > s->cols_max ? cols : s->cols_max;
}

static void measure_groups(struct merge_scratch *s, const struct lora_group *groups, size_t n)
{
    for (size_t i = 0; groups && i < n; i++)
        for (int part = 0; part < 3; part++)
            measure_matrix(s, &groups[i].part[part].b, groups[i].part[part].b.rows, groups[i].a.cols);
}

/* The largest matrices that are to be merged. */
static void measure(struct merging *g)
{
    struct merge_scratch *s = &g->scratch;
    const struct model_config *c = &g->base->config;
    float weight;
    for (uint32_t i = 0; i < n_members(g->lora); i++) {
        const struct lora *l = member(g->lora, i, &weight);
        s->rank_max += l->rank_max;
        for (uint32_t layer = 0; layer < l->n_layers; layer++) {
            measure_groups(s, l->layers[layer].group, LORA_GROUP_COUNT);
            measure_groups(s, l->layers[layer].experts, (size_t)2 * c->n_experts);
        }
        measure_matrix(s, &l->lm_head.part[0].b, c->vocab_size, c->hidden_size);
        measure_matrix(s, &l->embed.b, c->vocab_size, c->hidden_size);
        measure_matrix(s, &l->embed.rows.w, c->vocab_size, c->hidden_size);
        measure_matrix(s, &l->head_rows.w, c->vocab_size, c->hidden_size);
    }
}

static enum status merge_all(struct merging *g, struct error *err)
{
    struct model *m = g->m;
    size_t n = m->config.n_layers;
    struct model_layer *layers = own(g, n, sizeof *layers, err);
    if (!layers)
        return STATUS_NO_MEMORY;
    memcpy(layers, g->base->layers, n * sizeof *layers);
    m->layers = layers;
    measure(g);
    enum status s = merge_scratch_init(&g->scratch, err);
    for (uint32_t layer = 0; layer < n && s == STATUS_OK; layer++)
        s = merge_layer(g, layer, err);
    if (s == STATUS_OK)
        s = merge_ends(g, err);
    if (s == STATUS_OK)
        s = merged_digest(g->base, g->lora, g->type, m->info.digest, err);
    m->info.size_bytes = m->merged->report.size_bytes;
    m->merged->report.delta_norm = sqrt(m->merged->squares[0]);
    m->merged->report.error_norm = sqrt(m->merged->squares[1]);
    return s;
}

enum status model_merge(const struct model *base, struct lora *l, enum dtype type, struct team *team,
                        struct model **out, struct error *err)
{
    struct merging g = {.base = base, .lora = l, .type = type, .scratch = {.team = team}};
    *out = NULL;
    enum status s = check(&g, err);
    if (s != STATUS_OK)
        return s;
    g.m = mem_alloc(sizeof *g.m);
    struct merged *merged = mem_zalloc(sizeof *merged);
    if (!g.m || !merged) {
        mem_free(g.m);
        mem_free(merged);
        return fail(err, STATUS_NO_MEMORY, "merged copy");
    }
    *g.m = *base;
    g.m->merged = merged;
    g.m->base = base;
    merged->lora = lora_acquire(l);
    s = merge_all(&g, err);
    merge_scratch_fini(&g.scratch);
    if (s != STATUS_OK) {
        model_close(g.m);
        return s;
    }
    *out = g.m;
    return STATUS_OK;
}

void merged_close(struct model *m)
{
    struct merged *o = m->merged;
    for (size_t i = 0; i < o->n_blocks; i++)
        mem_free(o->blocks[i]);
    mem_free(o->blocks);
    lora_release(o->lora);
    mem_free(o);
    mem_free(m);
}

const struct merge_report *model_merge_report(const struct model *m)
{
    return m->merged ? &m->merged->report : NULL;
}
