/* Products of quantised weights with f32 activations; matmul_q_scalar.c is the definition. Weights become
 * floats in registers, the very ones of packed_row_f32, and each output is one chain over ascending k: the
 * same bits as the F32 product of the dequantised matrix. Include a vec_*.h first. */
#include "matmul_q_body.h"

/* l and n_rows are constants in each instantiation. */
VEC void block_f32(const struct panel_layout *l, const uint8_t *unit, uint32_t i, const float *const *x,
                   uint32_t b, uint32_t n_rows, struct v16 *sum)
{
    const uint8_t *block = unit + (size_t)i * l->block_bytes;
    struct v16 offset = v16_set1((float)l->offset), mins = v16_set1(0);
    if (l->min_at)
        mins = block_mins(l, unit, i);
#pragma GCC unroll 8
    for (uint32_t kq = 0; kq < 8; kq++) {
        struct line line = block_line(l, block, kq);
        struct v16 scales = block_scales(l, unit, i, kq / 4);
#pragma GCC unroll 4
        for (uint32_t j = 0; j < 4; j++) {
            struct v16 value = v16_mul(scales, v16_sub(line_floats(line, j), offset));
            if (l->min_at)
                value = v16_add(value, mins);
#pragma GCC unroll 8
            for (uint32_t r = 0; r < n_rows; r++)
                sum[r] = v16_fma(value, v16_set1(x[r][(size_t)b * ACT_BLOCK + 4 * kq + j]), sum[r]);
        }
    }
}

VEC void tile(const struct matmul_args *a, const struct panel_layout *l, uint32_t panel, uint32_t row,
              uint32_t n_rows)
{
    const uint8_t *data = panel_at(a, panel);
    const float *x[TILE_ROWS];
    struct v16 sum[TILE_ROWS];
#pragma GCC unroll 8
    for (uint32_t r = 0; r < n_rows; r++) {
        x[r] = a->x->x + (size_t)(row + r) * a->x->x_stride;
        sum[r] = v16_set1(0);
    }
    for (uint32_t b = 0; b < a->w->cols / ACT_BLOCK; b++)
        block_f32(l, panel_unit(l, data, b), b % l->unit_blocks, x, b, n_rows, sum);
#pragma GCC unroll 8
    for (uint32_t r = 0; r < n_rows; r++)
        matmul_store(a, row + r, panel, sum[r]);
}

/* Tiles of 1, 2 and 4 rows: one code for each would be long for eight types. */
VEC void matmul_dequantized(const struct matmul_args *a, const struct panel_layout *l)
{
    for (uint32_t p = a->panel_begin; p < a->panel_end; p++) {
        for (uint32_t row = a->row_begin; row < a->row_end;) {
            uint32_t left = a->row_end - row, rows = left >= 4 ? 4 : left >= 2 ? 2 : 1;
            if (rows == 4)
                tile(a, l, p, row, 4);
            else if (rows == 2)
                tile(a, l, p, row, 2);
            else
                tile(a, l, p, row, 1);
            row += rows;
        }
    }
}

#define DEFINE(type, ...)                                                                                    \
    void ISA_NAME(matmul_##type##_f32)(const struct matmul_args *a)                                          \
    {                                                                                                        \
        matmul_dequantized(a, &layout_##type);                                                               \
    }
PANEL_LIST(DEFINE)
#undef DEFINE
