/* What both products with quantised weights share: lines and scales out of a block of a panel.
 * Include a vec_*.h first. */
#ifndef LK_KERNELS_MATMUL_Q_BODY_H
#define LK_KERNELS_MATMUL_Q_BODY_H

#include "matmul_body.h"

/* Line kq (0-3) of a block's half: bytes [16 rows][4] of k = 16*half + 4*kq ... */
VEC struct line block_line(const struct panel_layout *l, const uint8_t *block, uint32_t kq, uint32_t half)
{
    if (l->bits == 8)
        return line_load(block + (size_t)(4 * half + kq) * 64);
    struct line both = line_load(block + (size_t)kq * 64);
    struct line low = half == 0 ? line_low(both) : line_high(both);
    if (l->bits == 4)
        return low;
    uint32_t shift = panel_high_shift(l, 4 * half + kq);
    struct line high = line_load(block + 256 + (size_t)panel_high_line(l, 4 * half) * 64);
    return line_with_high(low, high, shift, l->bits == 5 ? 1 : 3);
}

/* Scales of a block's half (which matters for Q6_K alone). */
VEC struct v16 block_scales(const struct panel_layout *l, const uint8_t *unit, uint32_t i, uint32_t half)
{
    const uint8_t *at = unit + l->scale_at;
    if (l->kind == PANEL_PLAIN)
        return v16_load_f16(at + (size_t)i * 32);
    struct v16 d = v16_load_f16(unit + l->d_at);
    if (l->kind == PANEL_K)
        return v16_mul(d, v16_load_u8(at + (size_t)i * 16));
    return v16_mul(d, v16_load_i8(at + (size_t)(2 * i + half) * 16));
}

VEC struct v16 block_mins(const struct panel_layout *l, const uint8_t *unit, uint32_t i)
{
    const uint8_t *at = unit + l->min_at;
    if (l->kind == PANEL_PLAIN)
        return v16_load_f16(at + (size_t)i * 32);
    struct v16 dmin = v16_mul(v16_load_f16(unit + l->d_at + 32), v16_set1(-1.0f));
    return v16_mul(dmin, v16_load_u8(at + (size_t)i * 16));
}

#endif
