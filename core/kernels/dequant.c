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

/* Value = scale * (u - offset) + min, see panel.h. */
static void dequantize_block(enum dtype type, const uint8_t *p, float *y)
{
    const struct panel_layout *l = panel_layout_of(type);
    struct q_block b;
    q_block_split(type, p, &b);
    float d = f16_to_f32(b.d), dmin = f16_to_f32(b.dmin);
    for (unsigned k = 0; k < dtype_info(type)->block_size; k++) {
        float scale = d, min = dmin;
        unsigned block = k / 32, half = k / 16;
        if (l->kind == PANEL_K) {
            scale = d * (float)b.scale[block];
            min = -(dmin * (float)b.min[block]);
        } else if (l->kind == PANEL_K16) {
            scale = d * (float)(int8_t)b.scale[half];
        }
        float v = scale * (float)((int32_t)b.u[k] - l->offset);
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
    default:
        require(panel_layout_of(type) != NULL);
        for (uint64_t i = 0; i < n_values; i += info->block_size, p += info->block_bytes)
            dequantize_block(type, p, y + i);
    }
}
