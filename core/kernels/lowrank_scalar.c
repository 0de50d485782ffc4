/* B's half of the low-rank part with whole numbers on both sides, the definition. A row's t is rounded as
 * quantize_rows rounds a block, but with one step for the whole row: d = amax/127; near zero it becomes all
 * zeros, with an infinity or a NaN inside d is NaN. Products are summed as integers within B's groups of 128
 * columns, which have a scale each; groups are added in ascending order, each by one fused multiply-add:
 *
 *     y = fma((float)dot, scale_b * (d * scale), y) */
#include <float.h>
#include <math.h>

#include "kernels_inner.h"
#include "panel.h"

static float round_row(const float *t, uint32_t n, int8_t *q)
{
    float amax = 0;
    bool finite = true;
    for (uint32_t k = 0; k < n; k++) {
        float magnitude = fabsf(t[k]);
        finite = finite && magnitude <= FLT_MAX;
        amax = magnitude > amax ? magnitude : amax;
    }
    float d = amax / 127.0f;
    bool usable = finite && d >= FLT_MIN;
    float inverse = usable ? 1.0f / d : 0;
    for (uint32_t k = 0; k < n; k++)
        q[k] = usable ? (int8_t)roundf(t[k] * inverse) : 0;
    return usable ? d : finite ? 0 : NAN;
}

void expand_scalar(const struct expand_args *a)
{
    int8_t q[EXPAND_COLS_MAX];
    require(a->b->cols <= EXPAND_COLS_MAX);
    for (uint32_t row = a->row_begin; row < a->row_end; row++) {
        float factor = round_row(a->t + (size_t)row * a->t_stride, a->b->cols, q) * a->scale;
        for (uint32_t p = a->panel_begin; p < a->panel_end; p++) {
            const uint8_t *panel = a->b->data + (size_t)p * a->b->panel_bytes;
            float *y = a->y + (size_t)row * a->y_stride + (size_t)p * PANEL_ROWS;
            for (uint32_t lane = 0; lane < panel_rows_left(a->b, p); lane++)
                for (uint32_t k = 0; k < a->b->cols; k += I8_GROUP) {
                    uint32_t left = a->b->cols - k, n = left < I8_GROUP ? left : I8_GROUP;
                    int32_t dot = 0;
                    for (uint32_t i = 0; i < n; i++)
                        dot += panel_i8_whole(panel, k + i, lane) * q[k + i];
                    y[lane] = fmaf((float)dot, panel_i8_scale(panel, k, lane) * factor, y[lane]);
                }
        }
    }
}
