/* B's half of the low-rank part with whole numbers on both sides; lowrank_scalar.c is the definition. A tile
 * is up to TILE_ROWS rows, rounded once and then met by every panel: each line of B is loaded once for all of
 * them. While a tile's panels are read, those of `next` are asked for. Include a vec_*.h first. */
#include <float.h>
#include <math.h>

#include "matmul_body.h"

struct rounded {
    int8_t q[TILE_ROWS][EXPAND_COLS_MAX];
    int32_t offset[TILE_ROWS][EXPAND_COLS_MAX / I8_GROUP]; /* where a group's dot begins */
    float factor[TILE_ROWS];
};

VEC float largest(const float *t, uint32_t n, bool *finite)
{
    struct v16 most = v16_set1(0);
    *finite = true;
    for (uint32_t k = 0; k < n; k += 16) {
        struct v16 m = v16_abs(v16_load_n(t + k, n - k < 16 ? n - k : 16));
        *finite = *finite && v16_all_at_most(m, FLT_MAX);
        most = v16_max(most, m);
    }
    return v16_lanes_max(most);
}

/* Row r of the tile: whole numbers behind t's end are zeros up to the next 16. */
VEC void round_row(const float *t, uint32_t n, float scale, struct rounded *to, uint32_t r)
{
    bool finite;
    float d = largest(t, n, &finite) / 127.0f;
    bool usable = finite && d >= FLT_MIN;
    struct v16 inverse = v16_set1(usable ? 1.0f / d : 0);
    to->factor[r] = (usable ? d : finite ? 0 : NAN) * scale;
    for (uint32_t k = 0; k < n; k += I8_GROUP) {
        uint32_t end = n - k < I8_GROUP ? n : k + I8_GROUP;
        int32_t sum = 0;
        for (uint32_t i = k; i < end; i += 16) {
            struct v16 x = usable ? v16_load_n(t + i, end - i < 16 ? end - i : 16) : v16_set1(0);
            sum += v16_store_i8(to->q[r] + i, v16_round_away(v16_mul(x, inverse)));
        }
        to->offset[r][k / I8_GROUP] = dot_is_signed(I8_OFFSET) ? 0 : -I8_OFFSET * sum;
    }
}

VEC int32_t four(const int8_t *q)
{
    int32_t v;
    memcpy(&v, q, sizeof v);
    return v;
}

/* n_rows is a constant in each instantiation. */
VEC void expand_panel(const struct expand_args *a, const struct rounded *t, uint32_t panel, uint32_t row,
                      uint32_t n_rows)
{
    const uint8_t *data = a->b->data + (size_t)panel * a->b->panel_bytes;
    uint32_t cols = a->b->cols, n = panel_rows_left(a->b, panel);
    struct v16 sum[TILE_ROWS];
    UNROLL(8)
    for (uint32_t r = 0; r < n_rows; r++)
        sum[r] = v16_load_n(a->y + (size_t)(row + r) * a->y_stride + (size_t)panel * PANEL_ROWS, n);
    for (uint32_t k = 0; k < cols; k += I8_GROUP) {
        uint32_t end = cols - k < I8_GROUP ? cols : k + I8_GROUP;
        struct v16i dot[TILE_ROWS];
        UNROLL(8)
        for (uint32_t r = 0; r < n_rows; r++)
            dot[r] = v16i_set1(t->offset[r][k / I8_GROUP]);
        struct v16 scales = v16_load((const float *)(const void *)data);
        data += I8_SCALES_BYTES;
        for (uint32_t i = k; i < end; i += 4, data += 64) {
            struct line w = line_centre(line_load(data), I8_OFFSET);
            UNROLL(8)
            for (uint32_t r = 0; r < n_rows; r++)
                dot[r] = dot4(dot[r], w, four(t->q[r] + i), dot_is_signed(I8_OFFSET));
        }
        UNROLL(8)
        for (uint32_t r = 0; r < n_rows; r++)
            sum[r] = v16_fma(v16i_float(dot[r]), v16_mul(scales, v16_set1(t->factor[r])), sum[r]);
    }
    UNROLL(8)
    for (uint32_t r = 0; r < n_rows; r++)
        v16_store_n(a->y + (size_t)(row + r) * a->y_stride + (size_t)panel * PANEL_ROWS, sum[r], n);
}

/* The lines of `next` that lie where this panel's do among a's. */
VEC void ask_for_next(const struct expand_args *a, uint32_t panel)
{
    size_t at = (size_t)(panel - a->panel_begin) * a->b->panel_bytes;
    for (size_t i = at; i < at + a->b->panel_bytes && i < a->next_bytes; i += 64)
        __builtin_prefetch(a->next + i, 0, 2);
}

VEC void expand_tile(const struct expand_args *a, struct rounded *t, uint32_t row, uint32_t n_rows)
{
    UNROLL(8)
    for (uint32_t r = 0; r < n_rows; r++)
        round_row(a->t + (size_t)(row + r) * a->t_stride, a->b->cols, a->scale, t, r);
    bool first = row == a->row_begin;
    for (uint32_t p = a->panel_begin; p < a->panel_end; p++) {
        if (first)
            ask_for_next(a, p);
        expand_panel(a, t, p, row, n_rows);
    }
}

void ISA_NAME(expand)(const struct expand_args *a)
{
    struct rounded t;
    require(a->b->cols <= EXPAND_COLS_MAX);
    for (uint32_t row = a->row_begin, rows; row < a->row_end; row += rows) {
        rows = tile_rows(a->row_end - row, TILE_ROWS);
        switch (rows) {
#define TILE_CASE(n)                                                                                         \
    case n:                                                                                                  \
        expand_tile(a, &t, row, n);                                                                          \
        break;
            TILE_CASES(TILE_CASE)
#undef TILE_CASE
        default:
            require(!"a tile size");
        }
    }
}
