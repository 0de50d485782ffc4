/* Activations to int8 per 32 values; quantize_rows_scalar.c is the definition. Include a vec_*.h first. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels_inner.h"

VEC void quantize_block(struct v16 x0, struct v16 x1, struct act_block *out)
{
    struct v16 m0 = v16_abs(x0), m1 = v16_abs(x1);
    bool finite = v16_all_at_most(m0, FLT_MAX) && v16_all_at_most(m1, FLT_MAX);
    float d = finite ? v16_lanes_max(v16_max(m0, m1)) / 127.0f : 0;
    if (!(d >= FLT_MIN)) {
        memset(out, 0, sizeof *out);
        out->d = out->d_sum = finite ? 0 : NAN;
        return;
    }
    struct v16 inverse = v16_set1(1.0f / d);
    int32_t half0 = v16_store_i8(out->q, v16_round_away(v16_mul(x0, inverse)));
    int32_t half1 = v16_store_i8(out->q + 16, v16_round_away(v16_mul(x1, inverse)));
    out->half[0] = (int16_t)half0;
    out->half[1] = (int16_t)half1;
    out->sum = half0 + half1;
    out->d = d;
    out->d_sum = d * (float)out->sum;
}

static void quantize_last_block(const float *x, uint32_t n, struct act_block *out)
{
    float whole[ACT_BLOCK] = {0};
    memcpy(whole, x, n * sizeof *x);
    quantize_block(v16_load(whole), v16_load(whole + 16), out);
}

void ISA_NAME(quantize_rows)(const struct acts *a, uint32_t row_begin, uint32_t row_end)
{
    uint32_t n_whole = a->cols / ACT_BLOCK, rest = a->cols % ACT_BLOCK;
    for (uint32_t row = row_begin; row < row_end; row++) {
        const float *x = a->x + (size_t)row * a->x_stride;
        struct act_block *block = acts_row(a, row);
        for (uint32_t b = 0; b < n_whole; b++, x += ACT_BLOCK)
            quantize_block(v16_load(x), v16_load(x + 16), block++);
        if (rest)
            quantize_last_block(x, rest, block);
    }
}
