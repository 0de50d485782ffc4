/* Products of quantised weights with int8 activations for AVX2 without VNNI; matmul_q_scalar.c is the
 * definition. What bounds them is the number of instructions, so a block's activations are spread out once
 * for several panels, each 4 values over a whole register in memory, where a multiplication takes them from
 * without a further instruction; and a block of a panel, unpacked once, meets all rows of a chunk. The float
 * sums wait in the nearest cache.
 *
 * vpmaddubsw multiplies bytes and adds pairs in 16 bits, which small weights don't fill: products of
 * unsigned weights u are added up in 16 bits as long as they fit (u <= 15: all 8 groups of a block; u <= 31:
 * 4 groups; u <= 63: 2), and only then widened. Weights of 8 bits don't fit even once (2*255*127): they and
 * the activations are widened first and meet in vpmaddwd, unless rows are few. */
#include "vec_avx2.h"

#include "matmul_q_body.h"

#define CHUNK_ROWS 16U  /* rows that meet a block at once */
#define CHUNK_PANELS 4U /* panels that share spread activations */

/* A block of one row's activations, spread. */
struct spread {
    __m256i q[16]; /* 4 values each; where weights are wide, of each 4 first and third, second and fourth */
    __m256i offset[2]; /* the weights' offset times the sum; where halves have scales, of each half */
    __m256 d, d_sum[2];
};

#define FEW_ROWS 4U
VEC bool is_wide(const struct panel_layout *l, uint32_t n_rows)
{
    return l->offset == 128 && n_rows > FEW_ROWS;
}

struct chunk {
    const struct spread *x; /* [n_rows] */
    uint32_t n_rows;
    float (*sum)[PANEL_ROWS];
};

/* 8 output rows' part of a line; side 0 or 1. */
VEC __m256i part_load(const uint8_t *line, uint32_t side)
{
    return _mm256_loadu_si256((const __m256i *)(line + 32 * (size_t)side));
}
VEC __m256i part_bits(__m256i x, uint32_t shift, uint32_t bits)
{
    __m256i mask = _mm256_set1_epi8((char)((1U << bits) - 1));
    return _mm256_and_si256(shift ? _mm256_srli_epi16(x, (int)shift) : x, mask);
}

/* u of k = 4*kq ... for 8 output rows: bytes [8 rows][4]. */
VEC __m256i block_part(const struct panel_layout *l, const uint8_t *block, uint32_t kq, uint32_t side)
{
    uint32_t low_bits = panel_low_bits(l), high_bits = panel_high_bits(l);
    __m256i u = part_load(block + (size_t)plane_line(low_bits, kq) * 64, side);
    if (low_bits < 8)
        u = part_bits(u, plane_shift(low_bits, kq), low_bits);
    if (high_bits) {
        __m256i high = part_load(block + panel_high_at(l) + (size_t)plane_line(high_bits, kq) * 64, side);
        high = part_bits(high, plane_shift(high_bits, kq), high_bits);
        u = _mm256_or_si256(u, _mm256_slli_epi16(high, (int)low_bits));
    }
    if (l->book)
        u = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)l->book)), u);
    return u;
}

/* Groups of 4 values whose products fit 16 bits together. */
VEC uint32_t groups_at_once(const struct panel_layout *l)
{
    return l->book ? 4 : l->bits <= 4 ? 8 : l->bits == 5 ? 4 : 2;
}

/* Unsigned weights of groups [begin, end) times one row's values. */
VEC __m256i dot_unsigned(const struct panel_layout *l, const __m256i *w, const __m256i *q, uint32_t begin,
                         uint32_t end)
{
    uint32_t at_once = groups_at_once(l) < end - begin ? groups_at_once(l) : end - begin;
    __m256i dot = _mm256_setzero_si256();
    UNROLL(4)
    for (uint32_t g = begin; g < end; g += at_once) {
        __m256i acc = _mm256_maddubs_epi16(w[g], q[g]);
        UNROLL(8)
        for (uint32_t i = 1; i < at_once; i++)
            acc = _mm256_add_epi16(acc, _mm256_maddubs_epi16(w[g + i], q[g + i]));
        acc = _mm256_madd_epi16(acc, _mm256_set1_epi16(1));
        dot = g == begin ? acc : _mm256_add_epi32(dot, acc);
    }
    return dot;
}

VEC __m256 add_scaled(__m256 sum, __m256i dot, __m256 scales, const struct spread *x)
{
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(scales, x->d), sum);
}

VEC __m256 side_of(struct v16 v, uint32_t side)
{
    return side ? v.b : v.a;
}

/* ---- weights below 64 ---- */

VEC void block_plain(const struct panel_layout *l, const uint8_t *unit, uint32_t i, struct chunk c)
{
    const uint8_t *block = unit + (size_t)i * l->block_bytes;
    struct v16 scales = block_scales(l, unit, i, 0), mins = scales;
    if (l->min_at)
        mins = block_mins(l, unit, i, 0);
    UNROLL(2)
    for (uint32_t side = 0; side < 2; side++) {
        const struct spread *x = c.x;
        __m256i w[8];
        UNROLL(8)
        for (uint32_t kq = 0; kq < 8; kq++)
            w[kq] = block_part(l, block, kq, side);
        for (uint32_t r = 0; r < c.n_rows; r++, x++) {
            float *at = c.sum[r] + 8 * (size_t)side;
            __m256i dot = dot_unsigned(l, w, x->q, 0, 8);
            if (l->offset)
                dot = _mm256_sub_epi32(dot, x->offset[0]);
            __m256 sum = add_scaled(_mm256_load_ps(at), dot, side_of(scales, side), x);
            if (l->min_at)
                sum = _mm256_fmadd_ps(side_of(mins, side), x->d_sum[0], sum);
            _mm256_store_ps(at, sum);
        }
    }
}

VEC void block_halves(const struct panel_layout *l, const uint8_t *unit, uint32_t i, struct chunk c)
{
    const uint8_t *block = unit + (size_t)i * l->block_bytes;
    struct v16 scales[2], mins[2];
    UNROLL(2)
    for (uint32_t half = 0; half < 2; half++) {
        scales[half] = mins[half] = block_scales(l, unit, i, half);
        if (l->min_at)
            mins[half] = block_mins(l, unit, i, half);
    }
    UNROLL(2)
    for (uint32_t side = 0; side < 2; side++) {
        const struct spread *x = c.x;
        __m256i w[8];
        UNROLL(8)
        for (uint32_t kq = 0; kq < 8; kq++)
            w[kq] = block_part(l, block, kq, side);
        for (uint32_t r = 0; r < c.n_rows; r++, x++) {
            float *at = c.sum[r] + 8 * (size_t)side;
            __m256 sum = _mm256_load_ps(at);
            UNROLL(2)
            for (uint32_t half = 0; half < 2; half++) {
                __m256i dot = dot_unsigned(l, w, x->q, 4 * half, 4 * half + 4);
                if (l->offset)
                    dot = _mm256_sub_epi32(dot, x->offset[half]);
                sum = add_scaled(sum, dot, side_of(scales[half], side), x);
                if (l->min_at)
                    sum = _mm256_fmadd_ps(side_of(mins[half], side), x->d_sum[half], sum);
            }
            _mm256_store_ps(at, sum);
        }
    }
}

/* ---- weights of 8 bits ---- */

VEC void widen(__m256i x, __m256i *to)
{
    to[0] = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8);
    to[1] = _mm256_srai_epi16(x, 8);
}

/* Here and now: compilers like to make all products of a tile before they add any, and run out of registers.
 */
VEC __m256i in_register(__m256i x)
{
    __asm__ volatile("" : "+x"(x));
    return x;
}

/* n rows, a constant, whose dots live in registers while the block's weights pass by. */
VEC void tile_wide(const __m256i *w, struct chunk c, uint32_t n, __m256 scales, uint32_t side)
{
    __m256i dot[8];
    UNROLL(16)
    for (uint32_t k = 0; k < 16; k++) {
        __m256i now = in_register(w[k]);
        UNROLL(8)
        for (uint32_t r = 0; r < n; r++) {
            __m256i product = _mm256_madd_epi16(now, c.x[r].q[k]);
            dot[r] = in_register(k == 0 ? product : _mm256_add_epi32(dot[r], product));
        }
    }
    UNROLL(8)
    for (uint32_t r = 0; r < n; r++) {
        float *at = c.sum[r] + 8 * (size_t)side;
        _mm256_store_ps(at, add_scaled(_mm256_load_ps(at), dot[r], scales, c.x + r));
    }
}

/* Few rows don't pay for widening: |w| times q with w's sign (2*128*127 fits 16 bits, once). */
VEC void tile_signed(const struct panel_layout *l, const uint8_t *block, struct chunk c, uint32_t n,
                     __m256 scales, uint32_t side)
{
    __m256i dot[FEW_ROWS], offset = _mm256_set1_epi8((char)l->offset);
    UNROLL(8)
    for (uint32_t kq = 0; kq < 8; kq++) {
        __m256i w = in_register(_mm256_sub_epi8(block_part(l, block, kq, side), offset));
        __m256i size = in_register(_mm256_abs_epi8(w));
        UNROLL(4)
        for (uint32_t r = 0; r < n; r++) {
            __m256i product = _mm256_maddubs_epi16(size, _mm256_sign_epi8(c.x[r].q[kq], w));
            product = _mm256_madd_epi16(product, _mm256_set1_epi16(1));
            dot[r] = in_register(kq == 0 ? product : _mm256_add_epi32(dot[r], product));
        }
    }
    UNROLL(4)
    for (uint32_t r = 0; r < n; r++) {
        float *at = c.sum[r] + 8 * (size_t)side;
        _mm256_store_ps(at, add_scaled(_mm256_load_ps(at), dot[r], scales, c.x + r));
    }
}

VEC void block_signed(const struct panel_layout *l, const uint8_t *unit, uint32_t i, struct chunk c)
{
    const uint8_t *block = unit + (size_t)i * l->block_bytes;
    struct v16 scales = block_scales(l, unit, i, 0);
    UNROLL(2)
    for (uint32_t side = 0; side < 2; side++) {
        if (c.n_rows == 1)
            tile_signed(l, block, c, 1, side_of(scales, side), side);
        else if (c.n_rows == 2)
            tile_signed(l, block, c, 2, side_of(scales, side), side);
        else if (c.n_rows == 3)
            tile_signed(l, block, c, 3, side_of(scales, side), side);
        else
            tile_signed(l, block, c, FEW_ROWS, side_of(scales, side), side);
    }
}

VEC struct chunk rows_from(struct chunk c, uint32_t row)
{
    return (struct chunk){c.x + row, c.n_rows - row, c.sum + row};
}

VEC void block_wide(const struct panel_layout *l, const uint8_t *unit, uint32_t i, struct chunk c)
{
    const uint8_t *block = unit + (size_t)i * l->block_bytes;
    struct v16 scales = block_scales(l, unit, i, 0);
    __m256i offset = _mm256_set1_epi8((char)l->offset), w[16];
    UNROLL(2)
    for (uint32_t side = 0; side < 2; side++) {
        uint32_t row = 0;
        UNROLL(8)
        for (uint32_t kq = 0; kq < 8; kq++)
            widen(_mm256_sub_epi8(block_part(l, block, kq, side), offset), w + (size_t)2 * kq);
        for (; c.n_rows - row >= 8; row += 8)
            tile_wide(w, rows_from(c, row), 8, side_of(scales, side), side);
        if (c.n_rows & 4)
            tile_wide(w, rows_from(c, row), 4, side_of(scales, side), side);
        row += c.n_rows & 4;
        if (c.n_rows & 2)
            tile_wide(w, rows_from(c, row), 2, side_of(scales, side), side);
        row += c.n_rows & 2;
        if (c.n_rows & 1)
            tile_wide(w, rows_from(c, row), 1, side_of(scales, side), side);
    }
}

VEC void add_block(const struct panel_layout *l, const uint8_t *unit, uint32_t i, struct chunk c)
{
    if (is_wide(l, c.n_rows))
        block_wide(l, unit, i, c);
    else if (l->offset == 128)
        block_signed(l, unit, i, c);
    else if (panel_has_halves(l))
        block_halves(l, unit, i, c);
    else
        block_plain(l, unit, i, c);
}

/* ---- the way through a matrix ---- */

VEC void spread_values(bool wide, const struct act_block *x, struct spread *to)
{
    int32_t four[16] __attribute__((aligned(32)));
    if (!wide) {
        memcpy(four, x->q, sizeof x->q);
        UNROLL(8)
        for (uint32_t k = 0; k < 8; k++)
            to->q[k] = _mm256_set1_epi32(four[k]);
        return;
    }
    widen(_mm256_loadu_si256((const __m256i *)x->q), (__m256i *)four);
    UNROLL(16)
    for (uint32_t k = 0; k < 16; k++)
        to->q[k] = _mm256_set1_epi32(four[k % 2 * 8 + k / 2]);
}

VEC void spread_block(const struct panel_layout *l, bool wide, const struct act_block *x, struct spread *to)
{
    spread_values(wide, x, to);
    to->d = _mm256_set1_ps(x->d);
    if (panel_has_halves(l)) {
        UNROLL(2)
        for (uint32_t half = 0; half < 2; half++) {
            to->offset[half] = _mm256_set1_epi32(l->offset * x->half[half]);
            to->d_sum[half] = _mm256_set1_ps(x->d * (float)x->half[half]);
        }
        return;
    }
    if (l->offset && l->offset != 128)
        to->offset[0] = _mm256_set1_epi32(l->offset * x->sum);
    if (l->min_at)
        to->d_sum[0] = _mm256_set1_ps(x->d_sum);
}

/* Asks for what a walk through several panels at once will want soon: further on in the panel, or in the one
 * that comes after those. */
#define AHEAD_BYTES 2048U
VEC void prefetch_block(const struct matmul_args *a, const uint8_t *panel, const uint8_t *block,
                        uint32_t n_bytes)
{
    size_t at = (size_t)(block - panel) + AHEAD_BYTES;
    if (at >= a->w->panel_bytes)
        at += (CHUNK_PANELS - 1) * a->w->panel_bytes;
    for (uint32_t i = 0; i < n_bytes; i += 64)
        __builtin_prefetch((const void *)((uintptr_t)panel + at + i), 0, 2);
}

struct place {
    uint32_t panel, n_panels, row, n_rows;
};

VEC void multiply(const struct matmul_args *a, const struct panel_layout *l, struct place at)
{
    float sums[CHUNK_PANELS][CHUNK_ROWS][PANEL_ROWS] __attribute__((aligned(64)));
    struct spread x[CHUNK_ROWS];
    memset(sums, 0, at.n_panels * sizeof *sums);
    for (uint32_t b = 0; b < a->w->cols / ACT_BLOCK; b++) {
        uint32_t i = b % l->unit_blocks;
        for (uint32_t r = 0; r < at.n_rows; r++)
            spread_block(l, is_wide(l, at.n_rows), acts_row(a->x, at.row + r) + b, &x[r]);
        for (uint32_t p = 0; p < at.n_panels; p++) {
            const uint8_t *panel = panel_at(a, at.panel + p), *unit = panel_unit(l, panel, b);
            prefetch_block(a, panel, unit + (size_t)i * l->block_bytes, l->block_bytes);
            add_block(l, unit, i, (struct chunk){x, at.n_rows, sums[p]});
        }
    }
    for (uint32_t p = 0; p < at.n_panels; p++)
        for (uint32_t r = 0; r < at.n_rows; r++)
            matmul_store(a, at.row + r, at.panel + p, v16_load(sums[p][r]));
}

VEC void matmul_int8(const struct matmul_args *a, const struct panel_layout *l)
{
    struct place at = {.row = a->row_begin};
    for (; at.row < a->row_end; at.row += at.n_rows) {
        at.n_rows = tile_rows(a->row_end - at.row, CHUNK_ROWS);
        for (at.panel = a->panel_begin; at.panel < a->panel_end; at.panel += at.n_panels) {
            uint32_t left = a->panel_end - at.panel;
            at.n_panels = left < CHUNK_PANELS ? left : CHUNK_PANELS;
            multiply(a, l, at);
        }
    }
}

#define DEFINE(type, ...)                                                                                    \
    void matmul_##type##_int8_avx2(const struct matmul_args *a)                                              \
    {                                                                                                        \
        matmul_int8(a, &layout_##type);                                                                      \
    }
PANEL_LIST(DEFINE)
#undef DEFINE
