/* Activations to int8 per 32 values, the definition: d = amax/127; q = x*(1/d) rounded half away from zero,
 * as ggml's quantize_row_q8_0_ref. A block whose d is not a normal number has no usable reciprocal: near zero
 * it becomes all zeros (the values are below 2^-119); with an infinity or a NaN inside, d is NaN, so that the
 * fault reaches the output. */
#include <float.h>
#include <math.h>

#include "kernels_inner.h"

static void quantize_block(const float *x, uint32_t n, struct act_block *out)
{
    float amax = 0, d = 0;
    bool finite = true;
    for (uint32_t i = 0; i < n; i++) {
        float magnitude = fabsf(x[i]);
        finite = finite && magnitude <= FLT_MAX;
        amax = magnitude > amax ? magnitude : amax;
    }
    d = amax / 127.0f;
    bool usable = finite && d >= FLT_MIN;
    float inverse = usable ? 1.0f / d : 0;
    out->half[0] = out->half[1] = 0;
    for (uint32_t i = 0; i < ACT_BLOCK; i++) {
        out->q[i] = (int8_t)roundf(usable && i < n ? x[i] * inverse : 0);
        out->half[i / 16] = (int16_t)(out->half[i / 16] + out->q[i]);
    }
    out->sum = out->half[0] + out->half[1];
    out->d = usable ? d : finite ? 0 : NAN;
    out->d_sum = out->d * (float)out->sum;
}

void quantize_rows_scalar(const struct acts *a, uint32_t row_begin, uint32_t row_end)
{
    for (uint32_t row = row_begin; row < row_end; row++) {
        const float *x = a->x + (size_t)row * a->x_stride;
        struct act_block *block = acts_row(a, row);
        for (uint32_t k = 0; k < a->cols; k += ACT_BLOCK)
            quantize_block(x + k, a->cols - k < ACT_BLOCK ? a->cols - k : ACT_BLOCK, block++);
    }
}
