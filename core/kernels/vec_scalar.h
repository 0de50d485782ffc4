/* exp in plain C, the definition that all instruction sets repeat operation by operation:
 * e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2, e^r by Taylor's series to r^7 (remainder below 6e-9,
 * a tenth of a unit in the last place). Below -104 the result is 0, above 89 infinite; NaN stays NaN. */
#ifndef LK_KERNELS_VEC_SCALAR_H
#define LK_KERNELS_VEC_SCALAR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define EXP_LOW (-104.0f)
#define EXP_HIGH 89.0f
#define EXP_LOG2E 1.44269504088896341f
#define EXP_LN2_HIGH 0.693359375f /* 9 bits: n * EXP_LN2_HIGH is exact */
#define EXP_LN2_LOW (-2.12194440e-4f)
#define EXP_C7 (1.0f / 5040.0f)
#define EXP_C6 (1.0f / 720.0f)
#define EXP_C5 (1.0f / 120.0f)
#define EXP_C4 (1.0f / 24.0f)
#define EXP_C3 (1.0f / 6.0f)
#define EXP_C2 0.5f

static inline float pow2_scalar(int32_t n)
{
    uint32_t bits = (uint32_t)(n + 127) << 23;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline float exp_scalar(float x)
{
    if (x != x)
        return x;
    x = EXP_HIGH < x ? EXP_HIGH : x;
    x = EXP_LOW > x ? EXP_LOW : x;
    float n = nearbyintf(x * EXP_LOG2E);
    float r = fmaf(n, -EXP_LN2_HIGH, x);
    r = fmaf(n, -EXP_LN2_LOW, r);
    float p = EXP_C7;
    p = fmaf(p, r, EXP_C6);
    p = fmaf(p, r, EXP_C5);
    p = fmaf(p, r, EXP_C4);
    p = fmaf(p, r, EXP_C3);
    p = fmaf(p, r, EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    int32_t whole = (int32_t)n, half = whole >> 1; /* two factors: 2^n itself may be no normal number */
    return p * pow2_scalar(half) * pow2_scalar(whole - half);
}

/* cap * tanh(x / cap); tanh(u) = (1 - e) / (1 + e) with e = exp(-2|u|). */
static inline float softcap_scalar(float x, float cap)
{
    float u = x / cap;
    float e = exp_scalar(-2.0f * fabsf(u));
    return cap * copysignf((1.0f - e) / (1.0f + e), u);
}

#endif
