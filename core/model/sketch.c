/* Sketches of bases and their comparison. Places are drawn from the matrix's index by a fixed generator, so a
 * sketch that is kept in a file needs no list of them; to change how they are drawn is another version of
 * that file. */
#include "sketch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "matrices.h"
#include "model_inner.h"

#define SPOTS_OF_MATRIX 2U
#define MATRICES_MAX (SKETCH_SPOTS_MAX / SPOTS_OF_MATRIX)

/* Outside what rounding explains: measured 0 for copies, so these leave room for formats' oddities alone. */
#define OUTSIDE_MIN 3U
#define OUTSIDE_SHARE 0.005
#define OTHER_RELATIVE 0.5

void base_sketch_fini(struct base_sketch *s)
{
    mem_free(s->spots);
    *s = (struct base_sketch){.n_spots = 0};
}

enum status sketch_alloc(struct base_sketch *s, uint32_t n_spots, struct error *err)
{
    require(n_spots <= SKETCH_SPOTS_MAX);
    s->n_spots = n_spots;
    s->spots = mem_array(n_spots, sizeof *s->spots);
    return s->spots ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "no memory for a sketch of the base");
}

/* SplitMix64's output function (Steele, Lea, Flood: Fast splittable pseudorandom number generators). */
static uint64_t scramble(uint64_t x)
{
    x += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
}

/* One expert of each layer; which one goes round. */
static bool is_wanted(const struct model_matrix *x, uint32_t n_experts)
{
    return x->kind != MATRIX_EXPERT || x->expert == x->layer % n_experts;
}

static size_t count_wanted(const struct model *m)
{
    struct model_matrix x;
    size_t n = 0;
    for (size_t i = 0; model_matrix_at(m, i, &x); i++)
        n += is_wanted(&x, m->config.n_experts);
    return n;
}

static void take_spots(struct base_sketch *s, const struct model_matrix *x, size_t index)
{
    uint32_t n_blocks = (x->w->cols + GRID_VALUES - 1) / GRID_VALUES;
    for (uint32_t i = 0; i < SPOTS_OF_MATRIX; i++) {
        struct sketch_spot *spot = &s->spots[s->n_spots++];
        uint64_t a = scramble(2 * index + i), b = scramble(a);
        spot->kind = (uint8_t)(x->kind == MATRIX_EMBED ? 0 : 1 + x->site);
        packed_grid(x->w, (uint32_t)(a % x->w->rows), (uint32_t)(b % n_blocks), &spot->grid);
    }
}

static void take_shape(const struct model *m, struct base_sketch *s)
{
    const struct model_config *c = &m->config;
    s->shape = (struct base_shape){.n_layers = c->n_layers,
                                   .hidden_size = c->hidden_size,
                                   .intermediate_size = c->intermediate_size,
                                   .n_heads = c->n_heads,
                                   .n_kv_heads = c->n_kv_heads,
                                   .head_dim = c->head_dim,
                                   .vocab_size = c->vocab_size,
                                   .n_experts = c->n_experts};
    snprintf(s->shape.model_type, sizeof s->shape.model_type, "%s", c->model_type);
    snprintf(s->name, sizeof s->name, "%s", c->name);
    snprintf(s->weight_type, sizeof s->weight_type, "%s", dtype_name(m->info.weight_type));
    memcpy(s->digest, m->info.digest, sizeof s->digest);
}

enum status model_sketch(const struct model *m, struct base_sketch *out, struct error *err)
{
    size_t n = count_wanted(m), seen = 0;
    size_t n_taken = n < MATRICES_MAX ? n : MATRICES_MAX, taken = 0;
    struct model_matrix x;
    *out = (struct base_sketch){.n_spots = 0};
    enum status s = sketch_alloc(out, (uint32_t)n_taken * SPOTS_OF_MATRIX, err);
    if (s != STATUS_OK)
        return s;
    take_shape(m, out);
    out->n_spots = 0;
    for (size_t i = 0; model_matrix_at(m, i, &x); i++) {
        if (!is_wanted(&x, m->config.n_experts))
            continue;
        /* evenly spread: as many are taken of the first k as k * n_taken / n, rounded up */
        if (taken * n <= seen * n_taken && taken < n_taken) {
            take_spots(out, &x, seen);
            taken++;
        }
        seen++;
    }
    return STATUS_OK;
}

/* ---- comparing ---- */

struct tally {
    uint32_t n[SKETCH_KINDS], outside[SKETCH_KINDS];
    double squares, difference;
    bool equal;
};

/* Half a step of either grid, what the f16 of a block's scale rounds (2^-11 of the value), and a little. */
static double reach(const struct grid *a, const struct grid *b, uint32_t k)
{
    double value = fmax(fabs((double)a->value[k]), fabs((double)b->value[k]));
    return (a->step[k] + (double)b->step[k]) * 0.5 * 1.001 + value * 0x1p-10;
}

/* Floats tell more than their grids: there is no scale that was rounded. */
static double reach_of_floats(const struct grid *a, const struct grid *b, uint32_t k)
{
    return (a->step[k] + (double)b->step[k]) * 0.5 * 1.001;
}

static bool is_quantized(const struct grid *g)
{
    bool any = false;
    for (uint32_t k = 0; k < g->n; k++)
        any = any || g->is_end[k];
    return any;
}

static void compare_spot(struct tally *t, const struct sketch_spot *a, const struct sketch_spot *b)
{
    bool floats = !is_quantized(&a->grid) && !is_quantized(&b->grid);
    for (uint32_t k = 0; k < a->grid.n; k++) {
        double x = a->grid.value[k], d = x - b->grid.value[k];
        t->equal = t->equal && d == 0;
        t->squares += x * x;
        t->difference += d * d;
        if (a->grid.is_end[k] || b->grid.is_end[k])
            continue;
        double most = floats ? reach_of_floats(&a->grid, &b->grid, k) : reach(&a->grid, &b->grid, k);
        t->n[a->kind]++;
        t->outside[a->kind] += !(fabs(d) <= most); /* NaN is outside */
    }
}

static bool is_same_layout(const struct base_sketch *a, const struct base_sketch *b)
{
    bool same = a->n_spots == b->n_spots && a->n_spots > 0 &&
                strcmp(a->shape.model_type, b->shape.model_type) == 0 &&
                memcmp(&a->shape.n_layers, &b->shape.n_layers,
                       sizeof a->shape - offsetof(struct base_shape, n_layers)) == 0;
    for (uint32_t i = 0; same && i < a->n_spots; i++)
        same = a->spots[i].kind == b->spots[i].kind && a->spots[i].grid.n == b->spots[i].grid.n;
    return same;
}

static const char *kind_name(unsigned kind)
{
    return kind == 0 ? "embedding" : lora_site_name((enum lora_site)(kind - 1));
}

/* Whether any kind of matrix, or all together, has more outside than rounding explains. */
static bool find_outside(const struct tally *t, struct sketch_distance *out)
{
    uint32_t n = 0, outside = 0;
    bool any = false;
    for (unsigned i = 0; i < SKETCH_KINDS; i++) {
        n += t->n[i];
        outside += t->outside[i];
        double share = t->n[i] ? (double)t->outside[i] / t->n[i] : 0;
        any = any || (t->outside[i] >= OUTSIDE_MIN && share > OUTSIDE_SHARE);
        if (share > out->outside) {
            out->outside = share;
            snprintf(out->where, sizeof out->where, "%s", kind_name(i));
        }
    }
    out->n_values = n;
    return any || (outside >= OUTSIDE_MIN && outside > OUTSIDE_SHARE / 2 * n);
}

void sketch_compare(const struct base_sketch *a, const struct base_sketch *b, struct sketch_distance *out)
{
    struct tally t = {.equal = true};
    *out = (struct sketch_distance){.relation = SKETCH_SHAPES};
    if (!is_same_layout(a, b))
        return;
    for (uint32_t i = 0; i < a->n_spots; i++)
        compare_spot(&t, &a->spots[i], &b->spots[i]);
    bool differ = find_outside(&t, out);
    out->relative = t.squares > 0 ? sqrt(t.difference / t.squares) : 0;
    if (t.equal || memcmp(a->digest, b->digest, sizeof a->digest) == 0)
        out->relation = SKETCH_EQUAL;
    else if (!differ)
        out->relation = SKETCH_COPY;
    else
        out->relation = out->relative < OTHER_RELATIVE ? SKETCH_SIBLING : SKETCH_OTHER;
}
