/* How large what an adapter adds is against what is there: |scale * B A| and |W|, Frobenius.
 *
 *     |B A|^2 = trace((B' B) (A A'))      two r x r matrices, never the [out, in] one
 *
 * The base's norms are estimated once, from some rows of each matrix. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "effect_inner.h"
#include "kernels.h"

#define NORM_ROWS 32U
#define NORM_EXPERTS 4U /* of a layer: they are alike */

/* ---- the base ---- */

void base_norms_fini(struct base_norms *n)
{
    mem_free(n->site2);
    mem_free(n->expert2);
    *n = (struct base_norms){0};
}

static void note_norm(struct base_norms *n, const struct model_matrix *x, uint32_t n_experts, float *row)
{
    size_t at = (size_t)x->layer * LORA_SITE_COUNT + x->site;
    uint32_t measured = n_experts < NORM_EXPERTS ? n_experts : NORM_EXPERTS;
    if (x->kind == MATRIX_EXPERT && x->expert >= measured)
        return;
    double norm = matrix_norm(x->w, NORM_ROWS, row);
    if (x->kind == MATRIX_EMBED)
        n->embed2 = norm * norm;
    else if (x->kind == MATRIX_EXPERT)
        n->expert2[at] += norm * norm / measured;
    else
        n->site2[at] = norm * norm;
}

enum status base_norms_init(struct base_norms *n, const struct model *m, struct error *err)
{
    const struct model_config *c = model_config(m);
    struct model_matrix x;
    uint32_t cols = 0;
    *n = (struct base_norms){.site2 = mem_array((size_t)c->n_layers * LORA_SITE_COUNT, sizeof(double)),
                             .expert2 = mem_array((size_t)c->n_layers * LORA_SITE_COUNT, sizeof(double))};
    for (size_t i = 0; model_matrix_at(m, i, &x); i++)
        cols = x.w->cols > cols ? x.w->cols : cols;
    float *row = mem_array(cols, sizeof *row);
    if (!n->site2 || !n->expert2 || !row) {
        mem_free(row);
        base_norms_fini(n);
        return fail(err, STATUS_NO_MEMORY, "no memory for the norms of a base");
    }
    for (size_t i = 0; model_matrix_at(m, i, &x); i++)
        note_norm(n, &x, c->n_experts, row);
    if (n->site2[LORA_SITE_LM_HEAD] == 0) /* the embedding's memory */
        n->site2[LORA_SITE_LM_HEAD] = n->embed2;
    mem_free(row);
    return STATUS_OK;
}

/* ---- what is added ---- */

const struct lora *effect_single(const struct lora *l, float *weight)
{
    *weight = l->n_members == 1 ? l->members[0].weight : 1;
    return l->n_members == 1 ? l->members[0].lora : l;
}

/* Scratch for factors of up to `rank` by `n`. */
struct gram {
    float *rows, *turned, *a, *b; /* [n, rank] twice, [rank, rank] twice */
};

static enum status gram_init(struct gram *g, uint32_t rank, uint32_t n, struct error *err)
{
    size_t wide;
    bool fits = size_mul(n, rank, &wide);
    g->rows = fits ? mem_array(wide, sizeof(float)) : NULL;
    g->turned = fits ? mem_array(wide, sizeof(float)) : NULL;
    g->a = mem_array((size_t)rank * rank, sizeof(float));
    g->b = mem_array((size_t)rank * rank, sizeof(float));
    return g->rows && g->turned && g->a && g->b
               ? STATUS_OK
               : fail(err, STATUS_NO_MEMORY, "no memory for the norms of an adapter of rank %u", rank);
}

static void gram_fini(struct gram *g)
{
    mem_free(g->rows);
    mem_free(g->turned);
    mem_free(g->a);
    mem_free(g->b);
}

static void turn(const float *from, size_t rows, size_t cols, float *to)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < cols; k++)
            to[k * rows + r] = from[r * cols + k];
}

/* to = X X' of the rows [first, first + n) of w. */
static void gram_of_rows(struct gram *g, const struct packed *w, uint32_t first, uint32_t n, float *to)
{
    memset(to, 0, (size_t)n * n * sizeof *to);
    for (uint32_t r = 0; r < n; r++)
        packed_row_f32(w, first + r, g->rows + (size_t)r * w->cols);
    turn(g->rows, n, w->cols, g->turned);
    gemm_add_f32(n, n, w->cols, 1, g->rows, g->turned, to);
}

/* to = X' X of all of w. */
static void gram_of_columns(struct gram *g, const struct packed *w, float *to)
{
    memset(to, 0, (size_t)w->cols * w->cols * sizeof *to);
    for (uint32_t r = 0; r < w->rows; r++)
        packed_row_f32(w, r, g->rows + (size_t)r * w->cols);
    turn(g->rows, w->rows, w->cols, g->turned);
    gemm_add_f32(w->cols, w->cols, w->rows, 1, g->turned, g->rows, to);
}

static double trace_of_product(const struct gram *g, uint32_t rank)
{
    double sum = 0;
    for (size_t i = 0; i < (size_t)rank * rank; i++) /* both are symmetric */
        sum += (double)g->a[i] * g->b[i];
    return sum > 0 ? sum : 0; /* rounding of a sum that is 0 */
}

/* Where a group's parts belong. */
struct group_place {
    enum lora_site first;
    const double *base2; /* of the sites of its layer */
};

static void add_group(struct gram *g, const struct lora_group *group, const struct group_place *at,
                      double weight, struct effect_report *out)
{
    for (unsigned i = 0; group->a.data && i < 3; i++) {
        const struct lora_part *part = &group->part[i];
        if (!part->b.data)
            continue;
        struct effect_norm *n = &out->norm[at->first + i];
        double scale = weight * part->scale;
        gram_of_rows(g, &group->a, part->t_offset, part->rank, g->a);
        gram_of_columns(g, &part->b, g->b);
        n->delta += scale * scale * trace_of_product(g, part->rank);
        n->base += at->base2[at->first + i];
    }
}

static void add_embedding(struct gram *g, const struct lora_embedding *e, const struct base_norms *n,
                          double weight, struct effect_report *out)
{
    if (!e->b.data)
        return;
    double scale = weight * e->scale;
    gram_of_columns(g, &e->a, g->a); /* [vocab, rank] here */
    gram_of_columns(g, &e->b, g->b);
    out->embed.delta = scale * scale * trace_of_product(g, e->b.cols);
    out->embed.base = n->embed2;
}

static uint32_t longest_side(const struct lora *l, const struct model *m)
{
    struct model_matrix x;
    uint32_t n = l->embed.b.data || l->lm_head.a.data ? model_config(m)->vocab_size : 1;
    for (size_t i = 0; model_matrix_at(m, i, &x); i++) {
        if (x.kind == MATRIX_EMBED || x.kind == MATRIX_HEAD)
            continue;
        n = x.w->rows > n ? x.w->rows : n;
        n = x.w->cols > n ? x.w->cols : n;
    }
    return n;
}

static void finish(struct effect_norm *n)
{
    n->delta = sqrt(n->delta);
    n->base = sqrt(n->base);
}

static const enum lora_site first_site[LORA_GROUP_COUNT] = {LORA_SITE_Q, LORA_SITE_O, LORA_SITE_GATE,
                                                            LORA_SITE_DOWN, LORA_SITE_ROUTER};

static void add_layer(struct gram *g, const struct lora_layer *layer, const double *base2[2], double weight,
                      struct effect_report *out, uint32_t n_experts)
{
    for (unsigned i = 0; i < LORA_GROUP_COUNT; i++)
        add_group(g, &layer->group[i], &(struct group_place){first_site[i], base2[0]}, weight, out);
    for (uint32_t i = 0; layer->experts && i < 2 * n_experts; i++)
        add_group(g, &layer->experts[i],
                  &(struct group_place){i % 2 ? LORA_SITE_DOWN : LORA_SITE_GATE, base2[1]}, weight, out);
}

enum status effect_norms(const struct lora *lora, const struct model *m, const struct base_norms *n,
                         struct effect_report *out, struct error *err)
{
    float weight;
    const struct lora *l = effect_single(lora, &weight);
    struct gram g;
    enum status s = gram_init(&g, l->rank_max ? l->rank_max : 1, longest_side(l, m), err);
    for (uint32_t i = 0; i < l->n_layers && s == STATUS_OK; i++) {
        const double *base2[2] = {n->site2 + (size_t)i * LORA_SITE_COUNT,
                                  n->expert2 + (size_t)i * LORA_SITE_COUNT};
        add_layer(&g, &l->layers[i], base2, weight, out, model_config(m)->n_experts);
    }
    if (s == STATUS_OK) {
        add_group(&g, &l->lm_head, &(struct group_place){LORA_SITE_LM_HEAD, n->site2}, weight, out);
        add_embedding(&g, &l->embed, n, weight, out);
    }
    for (unsigned i = 0; i < LORA_SITE_COUNT; i++)
        finish(&out->norm[i]);
    finish(&out->embed);
    gram_fini(&g);
    return s;
}
