/* Products with F32, F16, BF16, F8 and I8 weights, the definition: each output is one chain of fused
 * multiply-adds over ascending k. Nothing else takes part, so batch, panel range and instruction set don't
 * matter: every instruction set gives these very bits. */
#include <math.h>

#include "kernels_inner.h"
#include "panel.h"

static void store(const struct matmul_args *a, uint32_t row, uint32_t panel, const float *sum)
{
    float *y = a->y + (size_t)row * a->y_stride + (size_t)panel * PANEL_ROWS;
    for (uint32_t lane = 0; lane < panel_rows_left(a->w, panel); lane++)
        y[lane] = a->accumulate ? fmaf(a->scale, sum[lane], y[lane]) : sum[lane];
}

typedef float weight_fn(const uint8_t *panel, uint32_t k, uint32_t lane);

static float weight_f32(const uint8_t *panel, uint32_t k, uint32_t lane)
{
    float f;
    memcpy(&f, panel + ((size_t)k * PANEL_ROWS + lane) * 4, 4);
    return f;
}

static float weight_f16(const uint8_t *panel, uint32_t k, uint32_t lane)
{
    return f16_to_f32(panel_u16(panel + ((size_t)k * PANEL_ROWS + lane) * 2));
}

static float weight_bf16(const uint8_t *panel, uint32_t k, uint32_t lane)
{
    return bf16_to_f32(panel_u16(panel + ((size_t)(k / 2) * PANEL_ROWS + lane) * 4 + (k % 2) * 2));
}

static float weight_f8(const uint8_t *panel, uint32_t k, uint32_t lane)
{
    return panel_f8_value(panel, k, lane);
}

static float weight_i8(const uint8_t *panel, uint32_t k, uint32_t lane)
{
    return panel_i8_value(panel, k, lane);
}

static void matmul_float(const struct matmul_args *a, weight_fn *weight)
{
    for (uint32_t p = a->panel_begin; p < a->panel_end; p++) {
        const uint8_t *panel = a->w->data + (size_t)p * a->w->panel_bytes;
        for (uint32_t row = a->row_begin; row < a->row_end; row++) {
            const float *x = a->x->x + (size_t)row * a->x->x_stride;
            float sum[PANEL_ROWS] = {0};
            for (uint32_t k = 0; k < a->w->cols; k++) {
                for (uint32_t lane = 0; lane < PANEL_ROWS; lane++)
                    sum[lane] = fmaf(weight(panel, k, lane), x[k], sum[lane]);
            }
            store(a, row, p, sum);
        }
    }
}

void matmul_f32_scalar(const struct matmul_args *a)
{
    matmul_float(a, weight_f32);
}

void matmul_f16_scalar(const struct matmul_args *a)
{
    matmul_float(a, weight_f16);
}

void matmul_bf16_scalar(const struct matmul_args *a)
{
    matmul_float(a, weight_bf16);
}

void matmul_f8_scalar(const struct matmul_args *a)
{
    matmul_float(a, weight_f8);
}

void matmul_i8_scalar(const struct matmul_args *a)
{
    matmul_float(a, weight_i8);
}
