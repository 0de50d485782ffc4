/* Element types: the table of names and block sizes, and conversions of single values.
 * The 16-bit conversions agree bit by bit with the hardware's (F16C, NEON), NaN payloads included. */
#include "base/dtype.h"

#include <string.h>

#include "base/error.h"
#include "base/mem.h"

static const struct dtype_info infos[DTYPE_COUNT] = {
#define DTYPE_ROW(name, text, ggml, size, bytes) [DTYPE_##name] = {text, ggml, size, bytes},
    DTYPE_LIST(DTYPE_ROW)
#undef DTYPE_ROW
};

const struct dtype_info *dtype_info(enum dtype t)
{
    require((unsigned)t < DTYPE_COUNT);
    return &infos[t];
}

const char *dtype_name(enum dtype t)
{
    return dtype_info(t)->name;
}

bool dtype_is_quantized(enum dtype t)
{
    return dtype_info(t)->block_size > 1;
}

bool dtype_is_float(enum dtype t)
{
    return t == DTYPE_F32 || t == DTYPE_F16 || t == DTYPE_BF16;
}

bool dtype_from_ggml(uint32_t ggml_type, enum dtype *out)
{
    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        if (infos[i].ggml_type >= 0 && (uint32_t)infos[i].ggml_type == ggml_type) {
            *out = (enum dtype)i;
            return true;
        }
    }
    return false;
}

bool dtype_from_name(const char *name, enum dtype *out)
{
    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        if (strcmp(infos[i].name, name) == 0) {
            *out = (enum dtype)i;
            return true;
        }
    }
    return false;
}

bool dtype_row_bytes(enum dtype t, uint64_t n_values, uint64_t *out_bytes)
{
    const struct dtype_info *info = dtype_info(t);
    if (n_values % info->block_size != 0)
        return false;
    return u64_mul(n_values / info->block_size, info->block_bytes, out_bytes);
}

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000U) << 16;
    uint32_t exponent = (h >> 10) & 31U, mantissa = h & 1023U;
    if (exponent == 31)
        return of_bits(sign | 0x7f800000U | (mantissa ? 0x400000U | mantissa << 13 : 0));
    if (exponent != 0)
        return of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float small = (float)mantissa * 0x1p-24f; /* exact: denormal halves are multiples of 2^-24 */
    return sign ? -small : small;
}

uint16_t f32_to_f16(float f)
{
    uint32_t u = bits_of(f), sign = (u >> 16) & 0x8000U, a = u & 0x7fffffffU;
    if (a > 0x7f800000U)
        return (uint16_t)(sign | 0x7e00U | ((a >> 13) & 0x1ffU));
    if (a >= 0x477ff000U) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00U);
    if (a < 0x38800000U) { /* below 2^-14: adding 0.5 lets the FPU round to a multiple of 2^-24 */
        float rounded = of_bits(a) + 0.5f;
        return (uint16_t)(sign | (bits_of(rounded) - 0x3f000000U));
    }
    uint32_t odd = (a >> 13) & 1U;
    return (uint16_t)(sign | ((a - 0x38000000U + 0xfffU + odd) >> 13));
}

uint16_t f32_to_bf16(float f)
{
    uint32_t u = bits_of(f);
    if ((u & 0x7fffffffU) > 0x7f800000U)
        return (uint16_t)(u >> 16 | 0x40U);
    return (uint16_t)((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
}

float f8_e4m3_to_f32(uint8_t b)
{
    uint32_t magnitude = b & 0x7fU;
    if (magnitude == 0x7f)
        return of_bits((uint32_t)(b & 0x80U) << 24 | 0x7fc00000U);
    float f = of_bits(magnitude << 20) * 0x1p120f; /* exact: also denormals only change their exponent */
    return b & 0x80U ? -f : f;
}
