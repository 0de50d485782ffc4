/* What all vector files share. v16_exp: vec_scalar.h's formula, operation by operation. Include a vec_*.h
 * first. */
#ifndef LK_KERNELS_VEC_BODY_H
#define LK_KERNELS_VEC_BODY_H

#include "vec_scalar.h"

/* n values, 1 to 16 */
VEC struct v16 v16_load_n(const float *p, uint32_t n)
{
    return n == 16 ? v16_load(p) : v16_load_part(p, n);
}
VEC void v16_store_n(float *p, struct v16 a, uint32_t n)
{
    if (n == 16)
        v16_store(p, a);
    else
        v16_store_part(p, a, n);
}

VEC struct v16 v16_exp(struct v16 x)
{
    x = v16_min(v16_set1(EXP_HIGH), x);
    x = v16_max(x, v16_set1(EXP_LOW));
    struct v16 n = v16_round_even(v16_mul(x, v16_set1(EXP_LOG2E)));
    struct v16 r = v16_fma(n, v16_set1(-EXP_LN2_HIGH), x);
    r = v16_fma(n, v16_set1(-EXP_LN2_LOW), r);
    struct v16 p = v16_set1(EXP_C7);
    p = v16_fma(p, r, v16_set1(EXP_C6));
    p = v16_fma(p, r, v16_set1(EXP_C5));
    p = v16_fma(p, r, v16_set1(EXP_C4));
    p = v16_fma(p, r, v16_set1(EXP_C3));
    p = v16_fma(p, r, v16_set1(EXP_C2));
    p = v16_fma(p, r, v16_set1(1.0f));
    p = v16_fma(p, r, v16_set1(1.0f));
    return v16_scale2(p, n);
}

#endif
