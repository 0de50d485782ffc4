/* What both products with quantised weights share: lines and scales out of a block of a panel.
 * Include a vec_*.h first. */
#ifndef LK_KERNELS_MATMUL_Q_BODY_H
#define LK_KERNELS_MATMUL_Q_BODY_H

#include "matmul_body.h"

/* u of k = 16*half + 4*kq ..., kq 0-3: bytes [16 rows][4]. */
VEC struct line block_line(const struct panel_layout *l, const uint8_t *block, uint32_t kq, uint32_t half)
{
    uint32_t low_bits = panel_low_bits(l), high_bits = panel_high_bits(l), at = 4 * half + kq;
    struct line line = line_load(block + (size_t)plane_line(low_bits, at) * 64);
    if (low_bits < 8)
        line = line_bits(line, plane_shift(low_bits, at), low_bits == 4 ? 15 : 3);
    if (high_bits) {
        struct line high = line_load(block + panel_high_at(l) + (size_t)plane_line(high_bits, at) * 64);
        high = line_bits(high, plane_shift(high_bits, at), high_bits == 2 ? 3 : 1);
        line = line_with_high(line, high, low_bits);
    }
    return l->book ? line_lookup(line, l->book) : line;
}

/* Scales of a block's half (which matters where halves have their own). */
VEC struct v16 block_scales(const struct panel_layout *l, const uint8_t *unit, uint32_t i, uint32_t half)
{
    const uint8_t *at = unit + l->scale_at, *of_half = at + (size_t)(2 * i + half) * 16;
    if (l->kind == PANEL_PLAIN)
        return v16_load_f16(at + (size_t)i * 32);
    if (l->kind == PANEL_E8M0)
        return v16_load_e8m0(at + (size_t)i * 16);
    struct v16 d = v16_load_f16(unit + l->d_at);
    if (l->kind == PANEL_K)
        return v16_mul(d, v16_load_u8(at + (size_t)i * 16));
    if (l->kind == PANEL_K_SIGNED)
        return v16_mul(d, v16_load_i8(at + (size_t)i * 16));
    return v16_mul(d, l->kind == PANEL_K16 ? v16_load_i8(of_half) : v16_load_u4(of_half, false));
}

VEC struct v16 block_mins(const struct panel_layout *l, const uint8_t *unit, uint32_t i, uint32_t half)
{
    const uint8_t *at = unit + l->min_at;
    if (l->kind == PANEL_PLAIN)
        return v16_load_f16(at + (size_t)i * 32);
    struct v16 dmin = v16_mul(v16_load_f16(unit + l->d_at + 32), v16_set1(-1.0f));
    if (l->kind == PANEL_K)
        return v16_mul(dmin, v16_load_u8(at + (size_t)i * 16));
    return v16_mul(dmin, v16_load_u4(at + (size_t)(2 * i + half) * 16, true));
}

#endif
