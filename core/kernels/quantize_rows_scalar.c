/* Activations to two int8 digits per 32 values, the definition: step = amax/127; high = x*(1/step) rounded
 * half away from zero, as ggml's quantize_row_q8_0_ref; low = the rest in 256ths, rounded likewise; d =
 * step/256 in f32. A block whose d is not a normal number has no usable reciprocal: near zero it becomes all
 * zeros (the values are below 2^-119); with an infinity or a NaN inside, d is NaN, so that the fault reaches
 * the output. */
#include <float.h>
#include <math.h>

#include "kernels_inner.h"

static void quantize_block(const float *x, uint32_t n, int8_t *q, float *d_out, int32_t *sums)
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
    sums[0] = sums[1] = 0;
    for (uint32_t i = 0; i < ACT_BLOCK; i++) {
        float in_steps = usable && i < n ? x[i] * inverse : 0, high = roundf(in_steps);
        float low = roundf((in_steps - high) * 256.0f); /* both exact: the difference and the power of two */
        low = low > 127.0f ? 127.0f : low < -127.0f ? -127.0f : low;
        q[i] = (int8_t)high;
        q[ACT_BLOCK + i] = (int8_t)low;
        sums[i / 16] += 256 * (int32_t)high + (int32_t)low;
    }
    *d_out = usable ? d / 256.0f : finite ? 0 : NAN;
}

void quantize_rows_scalar(const struct acts *a, uint32_t row_begin, uint32_t row_end)
{
    uint32_t n_blocks = (a->cols + ACT_BLOCK - 1) / ACT_BLOCK;
    for (uint32_t row = row_begin; row < row_end; row++) {
        for (uint32_t b = 0; b < n_blocks; b++) {
            size_t at = (size_t)row * n_blocks + b;
            uint32_t left = a->cols - b * ACT_BLOCK;
            quantize_block(a->x + (size_t)row * a->x_stride + (size_t)b * ACT_BLOCK,
                           left < ACT_BLOCK ? left : ACT_BLOCK, a->q + at * ACT_DIGITS * ACT_BLOCK, &a->d[at],
                           &a->sum[2 * at]);
        }
    }
}
