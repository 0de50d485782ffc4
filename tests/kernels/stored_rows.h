/* Stored rows of every weight type for check.c. */
#ifndef LK_TESTS_KERNELS_STORED_ROWS_H
#define LK_TESTS_KERNELS_STORED_ROWS_H

#include "lab.h"

/* Where the f16 scale and min of a stored block lie; -1: it has none. */
struct scale_place {
    int d, min;
};
static inline struct scale_place scale_place(enum dtype type)
{
    switch (type) {
    case DTYPE_Q5_0:
    case DTYPE_IQ4_NL:
    case DTYPE_IQ4_XS:
        return (struct scale_place){0, -1};
    case DTYPE_Q2_K:
        return (struct scale_place){80, 82};
    case DTYPE_Q3_K:
        return (struct scale_place){108, -1};
    case DTYPE_Q6_K:
        return (struct scale_place){208, -1};
    case DTYPE_MXFP4:
    case DTYPE_F8_E4M3:
    case DTYPE_I8:
        return (struct scale_place){-1, -1};
    default:
        return (struct scale_place){0, 2};
    }
}

/* A stored row: real rounding where we have it, else random bytes with scales that are no infinities. */
static inline void make_stored_row(struct lab *lab, enum dtype type, const float *x, uint32_t cols,
                                   uint8_t *dst)
{
    const struct dtype_info *info = dtype_info(type);
    struct scale_place at = scale_place(type);
    if (quantize_row(type, x, cols, dst))
        return;
    for (uint32_t i = 0; i < cols; i += info->block_size, dst += info->block_bytes) {
        uint16_t d = f32_to_f16(0.01f * random_float(lab)), m = f32_to_f16(0.02f * random_float(lab));
        for (uint32_t j = 0; j < info->block_bytes; j++)
            dst[j] = (uint8_t)random_u64(lab);
        if (at.d >= 0)
            memcpy(dst + at.d, &d, 2);
        if (at.min >= 0)
            memcpy(dst + at.min, &m, 2);
        if (type == DTYPE_MXFP4) /* denormal scales too */
            dst[0] = i % 96 == 0 ? (uint8_t)(i / 96 % 3) : (uint8_t)(118 + dst[0] % 8);
        if (type == DTYPE_F8_E4M3 && (dst[0] & 0x7f) == 0x7f && i % 7) /* NaN is rare */
            dst[0] &= 0xf7;
    }
}

/* F8 rows have scales of their own: the packed row gets them, the plain one is multiplied. */
static inline void scale_f8_row(struct lab *lab, const struct packed *w, uint32_t row, float *plain)
{
    float scales[64];
    uint32_t n = (w->cols + 127) / 128;
    require(n <= sizeof scales / sizeof *scales);
    for (uint32_t i = 0; i < n; i++)
        scales[i] = i % 5 == 4 ? 1e-20f : 0.02f * random_float(lab);
    packed_set_scales(w, row, scales);
    for (uint32_t k = 0; k < w->cols; k++)
        plain[k] *= scales[k / 128];
}

#endif
