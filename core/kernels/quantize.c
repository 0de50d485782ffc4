/* Floats to stored rows, with ggml's reference rounding (quantize_row_q8_0_ref, quantize_row_q4_0_ref): the
 * same bytes as its tools write. */
#include <math.h>
#include <string.h>

#include "kernels.h"

static void put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* NaN becomes lo: a cast out of range is undefined in C. */
static int clamped(float v, int lo, int hi)
{
    if (!(v > (float)lo))
        return lo;
    return v < (float)hi ? (int)v : hi;
}

static void quantize_q8_0(const float *x, uint8_t *p)
{
    float amax = 0;
    for (unsigned j = 0; j < 32; j++)
        amax = fabsf(x[j]) > amax ? fabsf(x[j]) : amax;
    float d = amax / 127.0f, inverse = d != 0 ? 1.0f / d : 0;
    put_u16(p, f32_to_f16(d));
    for (unsigned j = 0; j < 32; j++)
        p[2 + j] = (uint8_t)clamped(roundf(x[j] * inverse), -128, 127);
}

static void quantize_q4_0(const float *x, uint8_t *p)
{
    float amax = 0, max = 0; /* max: the value of largest magnitude, with its sign; it becomes -8 */
    for (unsigned j = 0; j < 32; j++) {
        if (fabsf(x[j]) > amax) {
            amax = fabsf(x[j]);
            max = x[j];
        }
    }
    float d = max / -8.0f, inverse = d != 0 ? 1.0f / d : 0;
    put_u16(p, f32_to_f16(d));
    for (unsigned j = 0; j < 16; j++) {
        int low = clamped(x[j] * inverse + 8.5f, 0, 15);
        int high = clamped(x[j + 16] * inverse + 8.5f, 0, 15);
        p[2 + j] = (uint8_t)(low | high << 4);
    }
}

bool quantize_row(enum dtype type, const float *x, uint64_t n_values, void *dst)
{
    uint8_t *p = dst;
    require(n_values % dtype_info(type)->block_size == 0);
    switch (type) {
    case DTYPE_F32:
        memcpy(p, x, n_values * 4);
        return true;
    case DTYPE_F16:
        for (uint64_t i = 0; i < n_values; i++)
            put_u16(p + 2 * i, f32_to_f16(x[i]));
        return true;
    case DTYPE_BF16:
        for (uint64_t i = 0; i < n_values; i++)
            put_u16(p + 2 * i, f32_to_bf16(x[i]));
        return true;
    case DTYPE_Q8_0:
        for (uint64_t i = 0; i < n_values; i += 32, p += 34)
            quantize_q8_0(x + i, p);
        return true;
    case DTYPE_Q4_0:
        for (uint64_t i = 0; i < n_values; i += 32, p += 18)
            quantize_q4_0(x + i, p);
        return true;
    default:
        return false;
    }
}
