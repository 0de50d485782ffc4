/* Products of quantised weights with f32 activations; matmul_q_scalar.c is the definition. Weights become
 * floats in registers, the very ones of packed_row_f32, and each output is one chain over ascending k: the
 * same bits as the F32 product of the dequantised matrix. Include a vec_*.h first. */
#include "matmul_q_body.h"

/* rows and panels are constants in each instantiation, l too: loops unroll and sums live in registers. */
struct tile {
    const struct panel_layout *l;
    uint32_t rows, panels;
};

struct q_panels {
    const uint8_t *unit[4];
    struct v16 scales[4], mins[4];
};

/* Lines of 4 k's each for one half of block i, against all rows of the tile. x points at the half's values.
 */
VEC void half_f32(struct tile t, const struct q_panels *w, uint32_t i, uint32_t half, const float *const *x,
                  struct v16 sum[TILE_ROWS][4])
{
    struct v16 offset = v16_set1((float)t.l->offset);
    for (uint32_t kq = 0; kq < 4; kq++) {
        struct line line[4];
        UNROLL(4)
        for (uint32_t p = 0; p < t.panels; p++)
            line[p] = block_line(t.l, w->unit[p] + (size_t)i * t.l->block_bytes, kq, half);
        UNROLL(4)
        for (uint32_t j = 0; j < 4; j++) {
            struct v16 value[4];
            UNROLL(4)
            for (uint32_t p = 0; p < t.panels; p++) {
                value[p] = v16_mul(w->scales[p], v16_sub(line_floats(line[p], j), offset));
                if (t.l->min_at)
                    value[p] = v16_add(value[p], w->mins[p]);
            }
            UNROLL(8)
            for (uint32_t r = 0; r < t.rows; r++) {
                struct v16 activation = v16_set1(x[r][16 * half + 4 * kq + j]);
                UNROLL(4)
                for (uint32_t p = 0; p < t.panels; p++)
                    sum[r][p] = v16_fma(value[p], activation, sum[r][p]);
            }
        }
    }
}

VEC void block_f32(struct tile t, const uint8_t *const *data, uint32_t b, const float *const *x,
                   struct v16 sum[TILE_ROWS][4])
{
    struct q_panels w;
    uint32_t i = b % t.l->unit_blocks;
    UNROLL(2)
    for (uint32_t half = 0; half < 2; half++) {
        UNROLL(4)
        for (uint32_t p = 0; p < t.panels; p++) {
            w.unit[p] = panel_unit(t.l, data[p], b);
            w.scales[p] = block_scales(t.l, w.unit[p], i, half);
            if (t.l->min_at)
                w.mins[p] = block_mins(t.l, w.unit[p], i, half);
        }
        half_f32(t, &w, i, half, x, sum);
    }
}

VEC void tile(const struct matmul_args *a, uint32_t panel, uint32_t row, struct tile t)
{
    const uint8_t *data[4];
    const float *x[TILE_ROWS];
    struct v16 sum[TILE_ROWS][4];
    UNROLL(4)
    for (uint32_t p = 0; p < t.panels; p++)
        data[p] = panel_at(a, panel + p);
    UNROLL(8)
    for (uint32_t r = 0; r < t.rows; r++) {
        x[r] = a->x->x + (size_t)(row + r) * a->x->x_stride;
        UNROLL(4)
        for (uint32_t p = 0; p < t.panels; p++)
            sum[r][p] = v16_set1(0);
    }
    for (uint32_t b = 0; b < a->w->cols / ACT_BLOCK; b++) {
        for (uint32_t p = 0; row == a->row_begin && p < t.panels; p++)
            prefetch_lines(a, panel_unit(t.l, data[p], b) + (size_t)(b % t.l->unit_blocks) * t.l->block_bytes,
                           t.l->block_bytes);
        block_f32(t, data, b, x, sum);
        UNROLL(8)
        for (uint32_t r = 0; r < t.rows; r++)
            x[r] += ACT_BLOCK;
    }
    UNROLL(8)
    for (uint32_t r = 0; r < t.rows; r++) {
        UNROLL(4)
        for (uint32_t p = 0; p < t.panels; p++)
            matmul_store(a, row + r, panel + p, sum[r][p]);
    }
}

/* Tiles of few shapes: so many types would make a longer list long code. */
VEC void rows_f32(const struct matmul_args *a, const struct panel_layout *l, uint32_t panel,
                  uint32_t n_panels)
{
    uint32_t row = a->row_begin;
    for (; a->row_end - row >= F32_ROWS; row += F32_ROWS) {
        uint32_t p = 0;
        for (; p + F32_PANELS <= n_panels; p += F32_PANELS)
            tile(a, panel + p, row, (struct tile){l, F32_ROWS, F32_PANELS});
        for (; p < n_panels && F32_PANELS > 1; p++)
            tile(a, panel + p, row, (struct tile){l, F32_ROWS, 1});
    }
    for (; row < a->row_end; row++) {
        uint32_t p = 0;
        for (; p + F32_ONE_ROW_PANELS <= n_panels; p += F32_ONE_ROW_PANELS)
            tile(a, panel + p, row, (struct tile){l, 1, F32_ONE_ROW_PANELS});
        for (; p < n_panels; p++)
            tile(a, panel + p, row, (struct tile){l, 1, 1});
    }
}

VEC void matmul_dequantized(const struct matmul_args *a, const struct panel_layout *l)
{
    for (uint32_t p = a->panel_begin; p < a->panel_end;) {
        uint32_t left = a->panel_end - p, n = left < F32_ONE_ROW_PANELS ? left : F32_ONE_ROW_PANELS;
        rows_f32(a, l, p, n);
        p += n;
    }
}

#define DEFINE(type, ...)                                                                                    \
    void ISA_NAME(matmul_##type##_f32)(const struct matmul_args *a)                                          \
    {                                                                                                        \
        matmul_dequantized(a, &layout_##type);                                                               \
    }
PANEL_LIST(DEFINE)
#undef DEFINE
