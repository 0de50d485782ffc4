/* How quantised weights lie in 16-row panels. Every value is an unsigned number u with a scale:
 *
 *     w = scale * (u - offset) + min
 *
 * K runs in blocks of 32; blocks come in units whose parts are whole 64-byte lines:
 *
 *     unit = [block 0 | block 1 | … | scales (| mins)]
 * A block is one or two planes of lines [16 rows][4], k = 4*kq + j:
 *
 *     8 bits: 8 lines, kq's values are line kq
 *     4 bits: 4 lines, kq's values are line kq%4, low nibbles for kq 0-3, high nibbles for kq 4-7
 *     2 bits: 2 lines, kq's values are line kq/4, bits 2*(kq%4) and up
 *     1 bit:  1 line, bit kq
 *
 * Values of 3, 5 and 6 bits are a plane of 2 or 4 with their upper bits in a second one of 1 or 2 behind it.
 * Types with a code book store its index: u = book[index].
 *
 * Scales by kind, of each block or of each half of one (16 k), [16 rows] a time:
 *     PLAIN     f16 scales, then f16 mins
 *     E8M0      u8 x: scale = 2^(x - 128)
 *     K         u8 scales, then u8 mins;  d [16] f16, dmin [16] f16: scale = d*sub, min = -dmin*sub
 *     K_SIGNED  i8 scales; d, (unused)
 *     K16       i8 scales of halves; d, (unused)
 *     K16_MIN   u8 of halves: low nibble the scale, high nibble the min; d, dmin
 *
 * All products here are exact in f32 (11 + 7 + 5 bits at most), so w is rounded once, by the addition of min:
 * the same value whatever instruction makes it. Where K is no whole number of units, the blocks behind its
 * end in the last unit are never read. Sizes are the file's, but that sub-scales take a byte each and d has
 * room for dmin: Q4_K and IQ4_XS +3 %, Q5_K +2 %, Q6_K +1 %, Q3_K +5.5 %; MXFP4 rounds rows up to 128 values.
 *
 * F8_E4M3 has f32 scales for each row and 128 values: unit = [16 scales f32 | 128 lines [16 rows] u8], the
 * last one cut short where K ends: 3 % above the file.
 *
 * I8 (whole numbers, adapters') has such scales too, but lines as the quantised types have them, so that they
 * meet int8 activations as well as floats: unit = [16 scales f32 | 32 lines [16 rows][4] of number + 128],
 * the last one cut short behind the 4 values where K ends. */
#ifndef LK_KERNELS_PANEL_H
#define LK_KERNELS_PANEL_H

#include <string.h>

#include "kernels.h"

enum panel_kind { PANEL_PLAIN, PANEL_E8M0, PANEL_K, PANEL_K_SIGNED, PANEL_K16, PANEL_K16_MIN };

struct panel_layout {
    enum panel_kind kind;
    uint32_t bits; /* of a value */
    uint32_t unit_blocks, unit_bytes, block_bytes;
    int32_t offset;
    uint32_t scale_at, min_at; /* byte offsets in the unit; min_at 0: no mins */
    uint32_t d_at;             /* K types: f16 d[16], dmin[16] */
    const uint8_t *book;       /* [16] or NULL */
};

/* Code books, the offset added: IQ4_NL's and IQ4_XS's -127 … 113, MXFP4's twice 0 to 6 and 0 to -6 (e2m1). */
static const uint8_t panel_book_iq4[16]
    __attribute__((unused)) = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
static const uint8_t panel_book_e2m1[16]
    __attribute__((unused)) = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

/* type, kind, bits, blocks a unit, bytes a unit, bytes a block, offset, scale_at, min_at, d_at, book */
#define PANEL_LIST(X)                                                                                        \
    X(Q8_0, PANEL_PLAIN, 8, 2, 1088, 512, 128, 1024, 0, 0, NULL)                                             \
    X(Q4_0, PANEL_PLAIN, 4, 2, 576, 256, 8, 512, 0, 0, NULL)                                                 \
    X(Q4_1, PANEL_PLAIN, 4, 2, 640, 256, 0, 512, 576, 0, NULL)                                               \
    X(Q5_0, PANEL_PLAIN, 5, 2, 704, 320, 16, 640, 0, 0, NULL)                                                \
    X(Q5_1, PANEL_PLAIN, 5, 2, 768, 320, 0, 640, 704, 0, NULL)                                               \
    X(Q2_K, PANEL_K16_MIN, 2, 8, 1344, 128, 0, 1024, 1024, 1280, NULL)                                       \
    X(Q3_K, PANEL_K16, 3, 8, 1856, 192, 4, 1536, 0, 1792, NULL)                                              \
    X(Q4_K, PANEL_K, 4, 8, 2368, 256, 0, 2048, 2176, 2304, NULL)                                             \
    X(Q5_K, PANEL_K, 5, 8, 2880, 320, 0, 2560, 2688, 2816, NULL)                                             \
    X(Q6_K, PANEL_K16, 6, 8, 3392, 384, 32, 3072, 0, 3328, NULL)                                             \
    X(IQ4_NL, PANEL_PLAIN, 4, 2, 576, 256, 128, 512, 0, 0, panel_book_iq4)                                   \
    X(IQ4_XS, PANEL_K_SIGNED, 4, 8, 2240, 256, 128, 2048, 0, 2176, panel_book_iq4)                           \
    X(MXFP4, PANEL_E8M0, 4, 4, 1088, 256, 12, 1024, 0, 0, panel_book_e2m1)

/* layout_Q8_0 and so on: constants that fold away where a function is instantiated for one type. */
#define PANEL_CONST(name, kind, bits, blocks, bytes, block_bytes, offset, scale_at, min_at, d_at, book)      \
    static const struct panel_layout layout_##name __attribute__((unused)) = {                               \
        kind, bits, blocks, bytes, block_bytes, offset, scale_at, min_at, d_at, book};
PANEL_LIST(PANEL_CONST)
#undef PANEL_CONST

static inline bool panel_has_halves(const struct panel_layout *l) /* scales of 16 values */
{
    return l->kind == PANEL_K16 || l->kind == PANEL_K16_MIN;
}

/* Bits of a value in the first and the second plane. */
static inline uint32_t panel_low_bits(const struct panel_layout *l)
{
    return l->bits >= 8 ? 8 : l->bits >= 4 ? 4 : 2;
}
static inline uint32_t panel_high_bits(const struct panel_layout *l)
{
    return l->bits - panel_low_bits(l);
}
/* Where kq's values lie in a plane of `bits` bits: line and shift. */
static inline uint32_t plane_line(uint32_t bits, uint32_t kq)
{
    return bits == 8 ? kq : bits == 4 ? kq % 4 : bits == 2 ? kq / 4 : 0;
}
static inline uint32_t plane_shift(uint32_t bits, uint32_t kq)
{
    return bits == 8 ? 0 : bits == 4 ? kq / 4 * 4 : bits == 2 ? kq % 4 * 2 : kq;
}
/* Byte offset of the second plane in a block. */
static inline uint32_t panel_high_at(const struct panel_layout *l)
{
    return panel_low_bits(l) * 64;
}

/* 2^(x - 128): half of what E8M0's byte says, because the book's values are doubled. */
static inline float panel_e8m0(uint8_t x)
{
    uint32_t bits = x < 2 ? 0x00200000U << x : (x - 1U) << 23;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* NULL for types that are not quantised. */
const struct panel_layout *panel_layout_of(enum dtype type);

static inline const uint8_t *panel_unit(const struct panel_layout *l, const uint8_t *panel, uint32_t block)
{
    return panel + (size_t)(block / l->unit_blocks) * l->unit_bytes;
}

/* Bytes of one panel of a quantised type with `cols` values a row. */
static inline size_t panel_q_bytes(const struct panel_layout *l, uint32_t cols)
{
    uint32_t n_blocks = cols / ACT_BLOCK;
    return (size_t)((n_blocks + l->unit_blocks - 1) / l->unit_blocks) * l->unit_bytes;
}

/* F8_E4M3: 128 values of a row share a scale. */
#define F8_GROUP 128U
#define F8_UNIT_BYTES (PANEL_ROWS * (4 + F8_GROUP))
static inline size_t panel_f8_bytes(uint32_t cols)
{
    size_t n_groups = ((size_t)cols + F8_GROUP - 1) / F8_GROUP;
    return (n_groups * 4 * PANEL_ROWS + (size_t)cols * PANEL_ROWS + 63) / 64 * 64;
}

static inline float panel_f8_value(const uint8_t *panel, uint32_t k, uint32_t lane)
{
    const uint8_t *unit = panel + (size_t)(k / F8_GROUP) * F8_UNIT_BYTES;
    float scale;
    memcpy(&scale, unit + (size_t)lane * 4, 4);
    return f8_e4m3_to_f32(unit[((size_t)4 + k % F8_GROUP) * PANEL_ROWS + lane]) * scale;
}

/* I8: 128 values of a row share a scale. */
#define I8_GROUP 128U
#define I8_OFFSET 128
#define I8_SCALES_BYTES (PANEL_ROWS * 4)
#define I8_UNIT_BYTES (I8_SCALES_BYTES + PANEL_ROWS * I8_GROUP)
static inline size_t panel_i8_bytes(uint32_t cols)
{
    size_t n_groups = ((size_t)cols + I8_GROUP - 1) / I8_GROUP;
    return n_groups * I8_SCALES_BYTES + ((size_t)cols + 3) / 4 * 4 * PANEL_ROWS;
}
/* Where value k of a row is. */
static inline size_t panel_i8_at(uint32_t k, uint32_t lane)
{
    return (size_t)(k / I8_GROUP) * I8_UNIT_BYTES + I8_SCALES_BYTES + (size_t)(k % I8_GROUP / 4) * 64 +
           (size_t)lane * 4 + k % 4;
}
static inline int32_t panel_i8_whole(const uint8_t *panel, uint32_t k, uint32_t lane)
{
    return (int32_t)panel[panel_i8_at(k, lane)] - I8_OFFSET;
}
static inline float panel_i8_scale(const uint8_t *panel, uint32_t k, uint32_t lane)
{
    float scale;
    memcpy(&scale, panel + (size_t)(k / I8_GROUP) * I8_UNIT_BYTES + (size_t)lane * 4, 4);
    return scale;
}
static inline float panel_i8_value(const uint8_t *panel, uint32_t k, uint32_t lane)
{
    return (float)panel_i8_whole(panel, k, lane) * panel_i8_scale(panel, k, lane);
}

static inline uint16_t panel_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* The output columns of a panel that exist, and where they go. */
static inline uint32_t panel_rows_left(const struct packed *w, uint32_t panel)
{
    uint32_t left = w->rows - panel * PANEL_ROWS;
    return left < PANEL_ROWS ? left : PANEL_ROWS;
}

/* 32 values of one row of a panel as plain numbers. */
struct panel_lane {
    uint8_t u[ACT_BLOCK];
    float scale[2]; /* for k 0-15 and 16-31 */
    float min[2];   /* 0 without mins */
};
void panel_lane_read(const struct panel_layout *l, const uint8_t *panel, uint32_t block, uint32_t lane,
                     struct panel_lane *out);

static inline float panel_lane_value(const struct panel_layout *l, const struct panel_lane *b, uint32_t k)
{
    float v = b->scale[k / 16] * (float)((int32_t)b->u[k] - l->offset);
    return l->min_at ? v + b->min[k / 16] : v;
}

#endif
