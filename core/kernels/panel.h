/* How quantised weights lie in 16-row panels. Every value is an unsigned number u with a scale:
 *
 *     w = scale * (u - offset) + min
 *
 * K runs in blocks of 32; blocks come in units whose parts are whole 64-byte lines:
 *
 *     unit = [block 0 | block 1 | … | scales (| mins)]
 *     block, 8 bits a value: 8 lines [kq][16 rows][4], k = 4*kq + j
 *     block, 4 bits a value: 4 lines [kq][16 rows][4], low nibbles are kq 0-3, high nibbles kq 4-7
 *     block, 5 bits: the same, then 1 line [16 rows][4] whose bit kq is the fifth
 *     block, 6 bits: the same, then 2 lines: bits 2*(kq%4) and up of line kq/4 are the fifth and sixth
 *
 * Plain types (2 blocks a unit): scales and mins are f16 [block][16 rows].
 * K types (8 blocks a unit): scales [block][16] u8, mins [block][16] u8, then d [16] f16, dmin [16] f16;
 *     scale = d*sub, min = -dmin*sub. Q6_K has two scales a block: i8 [block][half][16], each for 16 k.
 *
 * All products here are exact in f32 (11 + 7 + 5 bits at most), so w is rounded once, by the addition of min:
 * the same value whatever instruction makes it. When K is an odd number of blocks, the last plain unit's
 * second half is never read. */
#ifndef LK_KERNELS_PANEL_H
#define LK_KERNELS_PANEL_H

#include <string.h>

#include "kernels.h"

enum panel_kind { PANEL_PLAIN, PANEL_K, PANEL_K16 };

struct panel_layout {
    enum panel_kind kind;
    uint32_t bits; /* of a value */
    uint32_t unit_blocks, unit_bytes, block_bytes;
    int32_t offset;
    uint32_t scale_at, min_at; /* byte offsets in the unit; min_at 0: no mins */
    uint32_t d_at;             /* K types: f16 d[16], dmin[16] */
};

/* type, kind, bits, blocks a unit, bytes a unit, bytes a block, offset, scale_at, min_at, d_at */
#define PANEL_LIST(X)                                                                                        \
    X(Q8_0, PANEL_PLAIN, 8, 2, 1088, 512, 128, 1024, 0, 0)                                                   \
    X(Q4_0, PANEL_PLAIN, 4, 2, 576, 256, 8, 512, 0, 0)                                                       \
    X(Q4_1, PANEL_PLAIN, 4, 2, 640, 256, 0, 512, 576, 0)                                                     \
    X(Q5_0, PANEL_PLAIN, 5, 2, 704, 320, 16, 640, 0, 0)                                                      \
    X(Q5_1, PANEL_PLAIN, 5, 2, 768, 320, 0, 640, 704, 0)                                                     \
    X(Q4_K, PANEL_K, 4, 8, 2368, 256, 0, 2048, 2176, 2304)                                                   \
    X(Q5_K, PANEL_K, 5, 8, 2880, 320, 0, 2560, 2688, 2816)                                                   \
    X(Q6_K, PANEL_K16, 6, 8, 3392, 384, 32, 3072, 0, 3328)

/* layout_Q8_0 and so on: constants that fold away where a function is instantiated for one type. */
#define PANEL_CONST(name, kind, bits, blocks, bytes, block_bytes, offset, scale_at, min_at, d_at)            \
    static const struct panel_layout layout_##name                                                           \
        __attribute__((unused)) = {kind, bits, blocks, bytes, block_bytes, offset, scale_at, min_at, d_at};
PANEL_LIST(PANEL_CONST)
#undef PANEL_CONST

/* Where the bits above the fourth of the values of kq lie: line (of those behind the nibbles) and shift. */
static inline uint32_t panel_high_line(const struct panel_layout *l, uint32_t kq)
{
    return l->bits == 5 ? 0 : kq / 4;
}
static inline uint32_t panel_high_shift(const struct panel_layout *l, uint32_t kq)
{
    return l->bits == 5 ? kq : kq % 4 * 2;
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
    float scale[2]; /* for k 0-15 and 16-31: the same but for Q6_K */
    float min;      /* 0 without mins */
};
void panel_lane_read(const struct panel_layout *l, const uint8_t *panel, uint32_t block, uint32_t lane,
                     struct panel_lane *out);

static inline float panel_lane_value(const struct panel_layout *l, const struct panel_lane *b, uint32_t k)
{
    float v = b->scale[k / 16] * (float)((int32_t)b->u[k] - l->offset);
    return l->min_at ? v + b->min : v;
}

#endif
