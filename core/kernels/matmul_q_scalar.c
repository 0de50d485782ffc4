/* Products with quantised weights, the definition.
 *
 * int8: within a block of 32 (where halves have scales: each half) the products of weight and rounded
 * activation are summed as integers, exact in any order and within 2^21; blocks are added in ascending order,
 * each by one fused multiply-add:
 *
 *     sum = fma((float)dot, scale * d, sum);   with mins then   sum = fma(min, d * (float)sum_q, sum)
 *
 * f32: the weight as packed_row_f32 gives it, one fused multiply-add a value over ascending k: exactly what
 * the F32 product of the dequantised matrix gives. */
#include <math.h>

#include "kernels_inner.h"
#include "panel.h"

#define ROWS_AT_ONCE 8U /* rows that share one unpacking of a block; results don't depend on it */

static void store(const struct matmul_args *a, uint32_t row, uint32_t column, float sum)
{
    float *y = a->y + (size_t)row * a->y_stride + column;
    *y = a->accumulate ? fmaf(a->scale, sum, *y) : sum;
}

static int32_t dot(const struct panel_layout *l, const uint8_t *u, const int8_t *q, uint32_t n)
{
    int32_t sum = 0;
    for (uint32_t k = 0; k < n; k++)
        sum += ((int32_t)u[k] - l->offset) * q[k];
    return sum;
}

static float add_block_int8(const struct panel_layout *l, const struct panel_lane *v,
                            const struct act_block *x, float sum)
{
    if (!panel_has_halves(l)) {
        sum = fmaf((float)dot(l, v->u, x->q, 32), v->scale[0] * x->d, sum);
        return l->min_at ? fmaf(v->min[0], x->d_sum, sum) : sum;
    }
    for (uint32_t half = 0; half < 2; half++) {
        size_t at = 16 * (size_t)half;
        sum = fmaf((float)dot(l, v->u + at, x->q + at, 16), v->scale[half] * x->d, sum);
        if (l->min_at)
            sum = fmaf(v->min[half], x->d * (float)x->half[half], sum);
    }
    return sum;
}

static float add_block_f32(const struct panel_layout *l, const struct panel_lane *v, const float *x,
                           float sum)
{
    for (uint32_t k = 0; k < ACT_BLOCK; k++)
        sum = fmaf(panel_lane_value(l, v, k), x[k], sum);
    return sum;
}

static void matmul_lane(const struct matmul_args *a, bool int8, uint32_t column, uint32_t row,
                        uint32_t row_end)
{
    const struct panel_layout *l = panel_layout_of(a->w->type);
    const uint8_t *panel = a->w->data + (size_t)(column / PANEL_ROWS) * a->w->panel_bytes;
    uint32_t n_blocks = a->w->cols / ACT_BLOCK;
    float sum[ROWS_AT_ONCE] = {0};
    for (uint32_t b = 0; b < n_blocks; b++) {
        struct panel_lane v;
        panel_lane_read(l, panel, b, column % PANEL_ROWS, &v);
        for (uint32_t r = row; r < row_end; r++) {
            const float *x = a->x->x + (size_t)r * a->x->x_stride + (size_t)b * ACT_BLOCK;
            sum[r - row] = int8 ? add_block_int8(l, &v, acts_row(a->x, r) + b, sum[r - row])
                                : add_block_f32(l, &v, x, sum[r - row]);
        }
    }
    for (uint32_t r = row; r < row_end; r++)
        store(a, r, column, sum[r - row]);
}

static void matmul_quantized(const struct matmul_args *a, bool int8)
{
    uint32_t end = a->panel_end * PANEL_ROWS < a->w->rows ? a->panel_end * PANEL_ROWS : a->w->rows;
    for (uint32_t column = a->panel_begin * PANEL_ROWS; column < end; column++) {
        for (uint32_t row = a->row_begin; row < a->row_end; row += ROWS_AT_ONCE) {
            uint32_t left = a->row_end - row;
            matmul_lane(a, int8, column, row, row + (left < ROWS_AT_ONCE ? left : ROWS_AT_ONCE));
        }
    }
}

#define DEFINE(type, ...)                                                                                    \
    void matmul_##type##_int8_scalar(const struct matmul_args *a)                                            \
    {                                                                                                        \
        matmul_quantized(a, true);                                                                           \
    }                                                                                                        \
    void matmul_##type##_f32_scalar(const struct matmul_args *a)                                             \
    {                                                                                                        \
        matmul_quantized(a, false);                                                                          \
    }
PANEL_LIST(DEFINE)
