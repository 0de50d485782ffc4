/* B's half of the low-rank part with whole numbers on both sides. */
#ifndef LK_TESTS_KERNELS_EXPAND_CASE_H
#define LK_TESTS_KERNELS_EXPAND_CASE_H

#include <math.h>

#include "lab.h"
#include "stored_rows.h"

#define EXPAND_ROWS_MAX 13U

struct expand_case {
    struct packed b;
    struct guarded weights, t, y;
    float *plain; /* [out, rank] */
    uint32_t rank, out, n_rows;
};

static inline void expand_create(struct lab *lab, struct expand_case *c, enum fill fill)
{
    size_t size, row_bytes = c->rank;
    struct error err;
    require(packed_shape(DTYPE_I8, c->out, c->rank, &c->b, &size, &err) == STATUS_OK);
    c->weights = guarded_create(size, 64, true);
    c->t = guarded_create((size_t)c->n_rows * c->rank * 4, 4, true);
    c->y = guarded_create((size_t)c->n_rows * c->out * 4, 4, true);
    c->b.data = c->weights.p;
    c->plain = malloc((size_t)c->out * c->rank * sizeof *c->plain);
    uint8_t *stored = malloc(c->out * row_bytes);
    require(c->plain && stored);
    for (uint32_t r = 0; r < c->out; r++)
        make_stored_row(lab, DTYPE_I8, NULL, c->rank, stored + r * row_bytes);
    packed_fill(&c->b, 0, c->out, stored);
    for (uint32_t r = 0; r < c->out; r++) {
        dequantize_row(DTYPE_I8, stored + r * row_bytes, c->rank, c->plain + (size_t)r * c->rank);
        scale_f8_row(lab, &c->b, r, c->plain + (size_t)r * c->rank);
    }
    fill_floats(lab, fill, c->t.p, (size_t)c->n_rows * c->rank);
    if (fill == FILL_EXTREMES)
        ((float *)c->t.p)[random_u64(lab) % c->rank] = random_u64(lab) % 2 ? NAN : INFINITY;
    free(stored);
}

static inline void expand_destroy(struct expand_case *c)
{
    guarded_destroy(&c->weights);
    guarded_destroy(&c->t);
    guarded_destroy(&c->y);
    free(c->plain);
}

/* In tiles of so many rows and panels; y is 0.5 before. */
static inline void expand_run(const struct kernels *k, const struct expand_case *c, const uint32_t steps[2],
                              float *y)
{
    struct expand_args a = {.b = &c->b,
                            .t = c->t.p,
                            .t_stride = c->rank,
                            .y = c->y.p,
                            .y_stride = c->out,
                            .scale = -0.75f,
                            .next = c->b.data,
                            .next_bytes = steps[0] * 64};
    size_t n = (size_t)c->n_rows * c->out;
    for (size_t i = 0; i < n; i++)
        a.y[i] = 0.5f;
    for (a.row_begin = 0; a.row_begin < c->n_rows; a.row_begin = a.row_end) {
        a.row_end = c->n_rows - a.row_begin < steps[0] ? c->n_rows : a.row_begin + steps[0];
        for (a.panel_begin = 0; a.panel_begin < c->b.n_panels; a.panel_begin = a.panel_end) {
            uint32_t left = c->b.n_panels - a.panel_begin;
            a.panel_end = left < steps[1] ? c->b.n_panels : a.panel_begin + steps[1];
            k->expand(&a);
        }
    }
    memcpy(y, c->y.p, n * sizeof *y);
}

/* The definition against B t in double: off by t's rounding, half a step of its row, and f32's own. */
static inline void expand_in_double(struct lab *lab, const struct expand_case *c, const float *y)
{
    bool fine = true;
    for (uint32_t row = 0; row < c->n_rows; row++) {
        const float *t = (const float *)c->t.p + (size_t)row * c->rank;
        double amax = 0;
        for (uint32_t k = 0; k < c->rank; k++)
            amax = fmax(amax, fabs((double)t[k]));
        for (uint32_t o = 0; o < c->out; o++) {
            double sum = 0.5, bound = 1e-30, size = 0.5;
            for (uint32_t k = 0; k < c->rank; k++) {
                double w = -0.75 * (double)c->plain[(size_t)o * c->rank + k];
                sum += w * (double)t[k];
                bound += fabs(w) * amax / 253;
                size += fabs(w) * amax;
            }
            fine = fine && fabs((double)y[(size_t)row * c->out + o] - sum) <= bound + size * 1e-6;
        }
    }
    expect(lab, fine, "scalar", "expand", "differs from B t by more than t's rounding");
}

static inline void expand_check_one(struct lab *lab, struct expand_case *c, enum fill fill)
{
    static const uint32_t steps[][2] = {{1, UINT32_MAX}, {UINT32_MAX, UINT32_MAX}, {1, 1}, {3, 2}, {5, 3}};
    size_t n = (size_t)c->n_rows * c->out;
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    require(want && got);
    expand_create(lab, c, fill);
    expand_run(lab->isa[0][0], c, steps[0], want);
    if (fill == FILL_RANDOM)
        expand_in_double(lab, c, want);
    for (unsigned i = 0; i < lab->n_isas; i++)
        for (unsigned s = 0; s < sizeof steps / sizeof *steps; s++) {
            char text[100];
            snprintf(text, sizeof text, "%s, rank %u, %u outputs, %u rows by %u", fill_names[fill], c->rank,
                     c->out, c->n_rows, steps[s][0]);
            const char *where[3] = {lab->isa[0][i]->isa, "expand", text};
            expand_run(lab->isa[0][i], c, steps[s], got);
            expect_same(lab, got, want, n, where);
        }
    expand_destroy(c);
    free(want);
    free(got);
}

static inline void check_expand(struct lab *lab)
{
    static const uint32_t ranks[] = {1, 3, 4, 8, 16, 17, 64, 127, 128, 129, 300, 4096};
    for (unsigned i = 0; i < sizeof ranks / sizeof *ranks; i++)
        for (unsigned fill = 0; fill < FILL_COUNT; fill++) {
            struct expand_case c = {
                .rank = ranks[i], .out = i % 2 ? 37 : 64, .n_rows = 1 + (i * 5 + fill * 3) % EXPAND_ROWS_MAX};
            expand_check_one(lab, &c, (enum fill)fill);
        }
}

#endif
