/* Stored rows to floats: the definition of each type. Block layouts are GGUF's (ggml-common.h of llama.cpp).
 * Scalar on purpose: it runs at load time and in tests; the step loop reads packed panels instead. */
#include <string.h>

#include "kernels_inner.h"
#include "panel.h"

static uint16_t u16_at(const uint8_t *p)
{
    return panel_u16(p);
}

static float f16_at(const uint8_t *p)
{
    return f16_to_f32(panel_u16(p));
}

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)u16_at(p) | (uint32_t)u16_at(p + 2) << 16;
}

/* Nibbles of 16 bytes: value j is the low one of byte j, value j+16 the high one. */
static void nibbles16(const uint8_t *p, uint8_t u[32])
{
    for (unsigned j = 0; j < 16; j++) {
        u[j] = p[j] & 15;
        u[j + 16] = p[j] >> 4;
    }
}

static void fifth_bits(uint32_t high, uint8_t u[32])
{
    for (unsigned j = 0; j < 32; j++)
        u[j] = (uint8_t)(u[j] | ((high >> j) & 1U) << 4);
}

/* The eight 6-bit (scale, min) pairs in the 12 bytes of Q4_K and Q5_K: pairs 0-3 lie in the low 6 bits of
 * bytes 0-3 and 4-7; pairs 4-7 have their low nibbles in bytes 8-11, high 2 bits on top of bytes 0-7. */
static void k_scales(const uint8_t *p, uint8_t scale[8], uint8_t min[8])
{
    for (unsigned j = 0; j < 4; j++) {
        scale[j] = p[j] & 63;
        min[j] = p[j + 4] & 63;
        scale[j + 4] = (uint8_t)((p[j + 8] & 15) | (p[j] >> 6) << 4);
        min[j + 4] = (uint8_t)(p[j + 8] >> 4 | (p[j + 4] >> 6) << 4);
    }
}

/* 64 bytes of bit pairs: 128 values in 32 bytes, the pairs of a byte 32 values apart. */
static void pairs256(const uint8_t *p, uint8_t u[256])
{
    for (unsigned i = 0; i < 256; i++)
        u[i] = p[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}

static void split_q2k(const uint8_t *p, struct q_block *out)
{
    for (unsigned i = 0; i < 16; i++) {
        out->scale[i] = p[i] & 15;
        out->min[i] = p[i] >> 4;
    }
    pairs256(p + 16, out->u);
    out->d = u16_at(p + 80);
    out->dmin = u16_at(p + 82);
}

static void split_q3k(const uint8_t *p, struct q_block *out)
{
    const uint8_t *scales = p + 96;
    pairs256(p + 32, out->u);
    for (unsigned i = 0; i < 256; i++) /* bit i/32 of 32 bytes is the third */
        out->u[i] = (uint8_t)(out->u[i] | (p[i % 32] >> i / 32 & 1) << 2);
    for (unsigned i = 0; i < 16; i++) { /* 6 bits: nibbles in 8 bytes, then pairs in 4 */
        unsigned low = i < 8 ? scales[i] & 15U : scales[i - 8] >> 4,
                 high = scales[8 + i % 4] >> i / 4 * 2 & 3;
        out->scale[i] = (uint8_t)((low | high << 4) - 32);
    }
    out->d = u16_at(p + 108);
}

static void split_iq4xs(const uint8_t *p, struct q_block *out)
{
    unsigned high = u16_at(p + 2);
    out->d = u16_at(p);
    for (unsigned i = 0; i < 8; i++) { /* 6 bits: nibbles in 4 bytes, pairs in the u16 */
        unsigned low = p[4 + i / 2] >> i % 2 * 4 & 15;
        out->scale[i] = (uint8_t)((low | (high >> 2 * i & 3) << 4) - 32);
        nibbles16(p + 8 + (size_t)16 * i, out->u + (size_t)32 * i);
    }
}

static void split_q4k(const uint8_t *p, struct q_block *out)
{
    out->d = u16_at(p);
    out->dmin = u16_at(p + 2);
    k_scales(p + 4, out->scale, out->min);
    for (unsigned i = 0; i < 4; i++) { /* 32 bytes hold two blocks: low nibbles, then high */
        for (unsigned j = 0; j < 32; j++) {
            out->u[64 * i + j] = p[16 + 32 * i + j] & 15;
            out->u[64 * i + 32 + j] = p[16 + 32 * i + j] >> 4;
        }
    }
}

static void split_q5k(const uint8_t *p, struct q_block *out)
{
    const uint8_t *high = p + 16;
    out->d = u16_at(p);
    out->dmin = u16_at(p + 2);
    k_scales(p + 4, out->scale, out->min);
    for (unsigned i = 0; i < 8; i++) { /* bit i of high[j] is the fifth bit of value j of block i */
        const uint8_t *low = p + 48 + 32 * (i / 2);
        for (unsigned j = 0; j < 32; j++) {
            unsigned nibble = i % 2 ? low[j] >> 4 : low[j] & 15;
            out->u[32 * i + j] = (uint8_t)(nibble | ((high[j] >> i) & 1U) << 4);
        }
    }
}

static void split_q6k(const uint8_t *p, struct q_block *out)
{
    for (unsigned half = 0; half < 2; half++) { /* 128 values: 64 bytes of nibbles, 32 of bit pairs */
        const uint8_t *low = p + 64 * half, *high = p + 128 + 32 * half;
        for (unsigned i = 0; i < 4; i++) {
            for (unsigned j = 0; j < 32; j++) {
                unsigned byte = low[32 * (i % 2) + j];
                unsigned nibble = i < 2 ? byte & 15 : byte >> 4;
                out->u[128 * half + 32 * i + j] = (uint8_t)(nibble | ((high[j] >> 2 * i) & 3U) << 4);
            }
        }
    }
    memcpy(out->scale, p + 192, 16);
    out->d = u16_at(p + 208);
    out->dmin = 0;
}

void q_block_split(enum dtype type, const uint8_t *p, struct q_block *out)
{
    memset(out, 0, sizeof *out);
    switch (type) {
    case DTYPE_Q2_K:
        split_q2k(p, out);
        return;
    case DTYPE_Q3_K:
        split_q3k(p, out);
        return;
    case DTYPE_IQ4_XS:
        split_iq4xs(p, out);
        return;
    case DTYPE_MXFP4:
        out->d = p[0];
        nibbles16(p + 1, out->u);
        return;
    case DTYPE_Q4_K:
        split_q4k(p, out);
        return;
    case DTYPE_Q5_K:
        split_q5k(p, out);
        return;
    case DTYPE_Q6_K:
        split_q6k(p, out);
        return;
    case DTYPE_Q8_0:
        for (unsigned j = 0; j < 32; j++)
            out->u[j] = (uint8_t)(p[2 + j] ^ 0x80);
        break;
    case DTYPE_Q4_0:
    case DTYPE_IQ4_NL:
        nibbles16(p + 2, out->u);
        break;
    case DTYPE_Q4_1:
        nibbles16(p + 4, out->u);
        out->dmin = u16_at(p + 2);
        break;
    case DTYPE_Q5_0:
        nibbles16(p + 6, out->u);
        fifth_bits(u32_at(p + 2), out->u);
        break;
    case DTYPE_Q5_1:
        nibbles16(p + 8, out->u);
        fifth_bits(u32_at(p + 4), out->u);
        out->dmin = u16_at(p + 2);
        break;
    default:
        require(!"a quantised type");
    }
    out->d = u16_at(p);
}

/* Scale and min of the 16 values k/16, see panel.h. */
static void block_scale(const struct panel_layout *l, const struct q_block *b, unsigned half, float *scale,
                        float *min)
{
    float d = l->kind == PANEL_E8M0 ? panel_e8m0((uint8_t)b->d) : f16_to_f32(b->d);
    float dmin = f16_to_f32(b->dmin);
    unsigned i = panel_has_halves(l) ? half : half / 2;
    bool is_signed = l->kind == PANEL_K_SIGNED || l->kind == PANEL_K16;
    if (l->kind == PANEL_PLAIN || l->kind == PANEL_E8M0) {
        *scale = d;
        *min = dmin;
        return;
    }
    *scale = d * (is_signed ? (float)(int8_t)b->scale[i] : (float)b->scale[i]);
    *min = -(dmin * (float)b->min[i]);
}

/* Value = scale * (u - offset) + min, see panel.h. */
static void dequantize_block(enum dtype type, const uint8_t *p, float *y)
{
    const struct panel_layout *l = panel_layout_of(type);
    struct q_block b;
    float scale = 0, min = 0;
    q_block_split(type, p, &b);
    for (unsigned k = 0; k < dtype_info(type)->block_size; k++) {
        uint8_t u = l->book ? l->book[b.u[k]] : b.u[k];
        if (k % 16 == 0)
            block_scale(l, &b, k / 16, &scale, &min);
        float v = scale * (float)((int32_t)u - l->offset);
        y[k] = l->min_at ? v + min : v;
    }
}

void dequantize_row(enum dtype type, const void *src, uint64_t n_values, float *y)
{
    const uint8_t *p = src;
    const struct dtype_info *info = dtype_info(type);
    require(n_values % info->block_size == 0);
    switch (type) {
    case DTYPE_F32:
        memcpy(y, p, n_values * 4);
        return;
    case DTYPE_F16:
        for (uint64_t i = 0; i < n_values; i++)
            y[i] = f16_at(p + 2 * i);
        return;
    case DTYPE_BF16:
        for (uint64_t i = 0; i < n_values; i++)
            y[i] = bf16_to_f32(u16_at(p + 2 * i));
        return;
    case DTYPE_F8_E4M3:
        for (uint64_t i = 0; i < n_values; i++)
            y[i] = f8_e4m3_to_f32(p[i]);
        return;
    case DTYPE_I8: /* its scales are elsewhere */
        for (uint64_t i = 0; i < n_values; i++)
            y[i] = (float)(int8_t)p[i];
        return;
    default:
        require(panel_layout_of(type) != NULL);
        for (uint64_t i = 0; i < n_values; i += info->block_size, p += info->block_bytes)
            dequantize_block(type, p, y + i);
    }
}
