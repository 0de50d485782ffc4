/* Activations to int8 per 32 values; quantize_rows_scalar.c is the definition. Include a vec_*.h first. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels_inner.h"

/* 16 values in steps: their high digits to q, the low ones behind the block's high ones; the sum of both. */
VEC int32_t store_digits(struct v16 in_steps, int8_t *q)
{
    struct v16 high = v16_round_away(in_steps);
    struct v16 low = v16_round_away(v16_mul(v16_sub(in_steps, high), v16_set1(256.0f)));
    low = v16_max(v16_min(low, v16_set1(127.0f)), v16_set1(-127.0f));
    int32_t sum = 256 * v16_store_i8(q, high);
    return sum + v16_store_i8(q + ACT_BLOCK, low);
}

VEC void quantize_block(struct v16 x0, struct v16 x1, int8_t *q, float *d_out, int32_t *sums)
{
    struct v16 m0 = v16_abs(x0), m1 = v16_abs(x1);
    bool finite = v16_all_at_most(m0, FLT_MAX) && v16_all_at_most(m1, FLT_MAX);
    float d = finite ? v16_lanes_max(v16_max(m0, m1)) / 127.0f : 0;
    if (!(d >= FLT_MIN)) {
        memset(q, 0, (size_t)ACT_DIGITS * ACT_BLOCK);
        *d_out = finite ? 0 : NAN;
        sums[0] = sums[1] = 0;
        return;
    }
    struct v16 inverse = v16_set1(1.0f / d);
    *d_out = d / 256.0f;
    sums[0] = store_digits(v16_mul(x0, inverse), q);
    sums[1] = store_digits(v16_mul(x1, inverse), q + 16);
}

static void quantize_last_block(const float *x, uint32_t n, int8_t *q, float *d, int32_t *sum)
{
    float whole[ACT_BLOCK] = {0};
    memcpy(whole, x, n * sizeof *x);
    quantize_block(v16_load(whole), v16_load(whole + 16), q, d, sum);
}

void ISA_NAME(quantize_rows)(const struct acts *a, uint32_t row_begin, uint32_t row_end)
{
    uint32_t n_whole = a->cols / ACT_BLOCK, rest = a->cols % ACT_BLOCK;
    size_t n_blocks = n_whole + (rest != 0);
    for (size_t row = row_begin; row < row_end; row++) {
        const float *x = a->x + row * a->x_stride;
        int8_t *q = a->q + row * n_blocks * ACT_DIGITS * ACT_BLOCK;
        float *d = a->d + row * n_blocks;
        int32_t *sum = a->sum + 2 * row * n_blocks;
        for (uint32_t b = 0; b < n_whole; b++, x += ACT_BLOCK, q += ACT_DIGITS * ACT_BLOCK)
            quantize_block(v16_load(x), v16_load(x + 16), q, &d[b], &sum[(size_t)2 * b]);
        if (rest)
            quantize_last_block(x, rest, q, &d[n_whole], &sum[(size_t)2 * n_whole]);
    }
}
