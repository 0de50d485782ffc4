/* The tiles of the int8 products in registers of 32 bytes; matmul_q_scalar.c is the definition. What bounds
 * them is the number of instructions. A tile is one panel by up to 8 rows: a few lines of weights, unpacked
 * into registers, meet each row's 4 values, which a load spreads over a register for nothing; the block's
 * dots live in registers, the float sums in the nearest cache. How values are multiplied, and the functions'
 * names (ISA_NAME), are up to the file that includes this one behind vec_avx2.h. */
#include "matmul_q_body.h"

#undef TILE_ROWS
#define TILE_ROWS 8U

/* A tile's rows at one block. */
struct tile {
    const struct act_block *x; /* row r's is r*stride further */
    size_t stride;
    uint32_t n_rows; /* a constant */
    float (*sum)[PANEL_ROWS];
};

VEC const struct act_block *tile_row(const struct tile *t, uint32_t r)
{
    return t->x + r * t->stride;
}

/* 4 values over the whole register. */
VEC __m256i four(const struct act_block *x, uint32_t kq)
{
    int32_t v;
    memcpy(&v, x->q + (size_t)4 * kq, sizeof v);
    return _mm256_set1_epi32(v);
}

/* Here and now: compilers like to make all products of a tile before they add any, and run out of registers.
 */
VEC __m256i in_register(__m256i x)
{
    __asm__ volatile("" : "+x"(x));
    return x;
}

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

/* offset (of either sign) * the sum of the values of a block or of its half; both fit 16 bits. */
VEC __m256i offset_part(int32_t offset, const struct act_block *x, bool whole, uint32_t half)
{
    __m256i sum = whole ? _mm256_set1_epi32(x->sum) : _mm256_set1_epi16(x->half[half]);
    return _mm256_madd_epi16(sum, _mm256_set1_epi32(offset & 0xffff)); /* the upper halves meet 0 */
}

/* ---- what each file that includes this one brings ---- */

/* dot[r] = the products of groups [begin, end), which share a scale, of a block. */
VEC void block_dots(const struct panel_layout *l, const uint8_t *block, uint32_t begin, uint32_t end,
                    uint32_t side, struct tile t, __m256i *dot);
/* Whether its dots are those of u - offset; else those of u. */
VEC bool dots_are_centred(const struct panel_layout *l);

/* ---- scales of 8 output rows ---- */

VEC __m256 load8_f16(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
VEC __m128i load8_u8(const uint8_t *p)
{
    return _mm_loadl_epi64((const __m128i *)p);
}
VEC __m256 u8_floats(__m128i u)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(u));
}
VEC __m256 i8_floats(__m128i u)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(u));
}

/* As block_scales and block_mins. */
VEC __m256 part_scales(const struct panel_layout *l, const uint8_t *unit, uint32_t i, uint32_t half,
                       uint32_t side)
{
    const uint8_t *at = unit + l->scale_at, *of_half = at + (size_t)(2 * i + half) * 16 + (size_t)8 * side;
    const uint8_t *of_block = at + (size_t)i * 16 + (size_t)8 * side;
    if (l->kind == PANEL_PLAIN)
        return load8_f16(at + (size_t)i * 32 + (size_t)16 * side);
    if (l->kind == PANEL_E8M0)
        return v8_e8m0(load8_u8(of_block));
    __m256 d = load8_f16(unit + l->d_at + (size_t)16 * side);
    if (l->kind == PANEL_K)
        return _mm256_mul_ps(d, u8_floats(load8_u8(of_block)));
    if (l->kind == PANEL_K_SIGNED)
        return _mm256_mul_ps(d, i8_floats(load8_u8(of_block)));
    if (l->kind == PANEL_K16)
        return _mm256_mul_ps(d, i8_floats(load8_u8(of_half)));
    return _mm256_mul_ps(d, u8_floats(_mm_and_si128(load8_u8(of_half), _mm_set1_epi8(15))));
}
VEC __m256 part_mins(const struct panel_layout *l, const uint8_t *unit, uint32_t i, uint32_t half,
                     uint32_t side)
{
    const uint8_t *at = unit + l->min_at + (size_t)8 * side;
    if (l->kind == PANEL_PLAIN)
        return load8_f16(unit + l->min_at + (size_t)i * 32 + (size_t)16 * side);
    __m256 dmin = load8_f16(unit + l->d_at + 32 + (size_t)16 * side);
    dmin = _mm256_mul_ps(dmin, _mm256_set1_ps(-1.0f));
    if (l->kind == PANEL_K)
        return _mm256_mul_ps(dmin, u8_floats(load8_u8(at + (size_t)i * 16)));
    __m128i high = _mm_srli_epi16(load8_u8(at + (size_t)(2 * i + half) * 16), 4);
    return _mm256_mul_ps(dmin, u8_floats(_mm_and_si128(high, _mm_set1_epi8(15))));
}

/* Groups [begin, end) of block i of a unit, which share a scale, join the sums of 8 output rows. */
VEC void add_groups(const struct panel_layout *l, const uint8_t *unit, uint32_t i, uint32_t begin,
                    uint32_t end, uint32_t side, struct tile t)
{
    const uint8_t *block = unit + (size_t)i * l->block_bytes;
    bool whole = end - begin == 8;
    __m256i dot[TILE_ROWS];
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    memset(dot, 0, sizeof dot); /* loops that are not unrolled hide that all are set */
#endif
    block_dots(l, block, begin, end, side, t, dot);
    __m256 scales = part_scales(l, unit, i, begin / 4, side), mins = scales;
    if (l->min_at)
        mins = part_mins(l, unit, i, begin / 4, side);
    UNROLL(8)
    for (uint32_t r = 0; r < t.n_rows; r++) {
        const struct act_block *x = tile_row(&t, r);
        float *at = t.sum[r] + (size_t)8 * side;
        if (l->offset && !dots_are_centred(l))
            dot[r] = _mm256_sub_epi32(dot[r], offset_part(l->offset, x, whole, begin / 4));
        __m256 sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r]), _mm256_mul_ps(scales, _mm256_set1_ps(x->d)),
                                     _mm256_load_ps(at));
        if (l->min_at) {
            float d_sum = whole ? x->d_sum : x->d * (float)x->half[begin / 4];
            sum = _mm256_fmadd_ps(mins, _mm256_set1_ps(d_sum), sum);
        }
        _mm256_store_ps(at, sum);
    }
}

VEC void multiply(const struct matmul_args *a, const struct panel_layout *l, uint32_t panel, uint32_t row,
                  uint32_t n_rows)
{
    float sums[TILE_ROWS][PANEL_ROWS] __attribute__((aligned(64)));
    const uint8_t *data = panel_at(a, panel);
    struct tile t = {acts_row(a->x, row), acts_stride(a->x->cols), n_rows, sums};
    memset(sums, 0, n_rows * sizeof *sums);
    for (uint32_t b = 0; b < a->w->cols / ACT_BLOCK; b++, t.x++) {
        const uint8_t *unit = panel_unit(l, data, b);
        uint32_t i = b % l->unit_blocks;
        if (row == a->row_begin) /* later tiles find the panel in the cache */
            prefetch_lines(a, unit + (size_t)i * l->block_bytes, l->block_bytes);
        UNROLL(1)
        for (uint32_t side = 0; side < 2; side++) {
            __asm__("" : "+r"(t.x)); /* or the compiler spreads all values out once and saves them */
            if (panel_has_halves(l)) {
                add_groups(l, unit, i, 0, 4, side, t);
                add_groups(l, unit, i, 4, 8, side, t);
            } else {
                add_groups(l, unit, i, 0, 8, side, t);
            }
        }
    }
    for (uint32_t r = 0; r < n_rows; r++)
        matmul_store(a, row + r, panel, v16_load(sums[r]));
}

/* tiles[n]: of n rows. Each is a function of its own, which compiles faster; the types that fewer files have
 * make do with 1, 2, 4 and 8 rows. */
typedef void tile_fn(const struct matmul_args *a, uint32_t panel, uint32_t row);

/* Rows [begin, end), a few of them, of all panels. */
static void panels(const struct matmul_args *a, tile_fn *const *tiles, uint32_t begin, uint32_t end)
{
    for (uint32_t p = a->panel_begin; p < a->panel_end; p++) {
        for (uint32_t row = begin, n; row < end; row += n) {
            n = tile_rows(end - row, TILE_ROWS);
            while (!tiles[n])
                n--;
            tiles[n](a, p, row);
        }
    }
}

/* Rows whose activations stay in the second-level cache while panels pass by. */
#define CHUNK_BYTES (192U * 1024U)

static void matmul_int8(const struct matmul_args *a, tile_fn *const *tiles)
{
    size_t row_bytes = acts_stride(a->x->cols) * sizeof(struct act_block), max = CHUNK_BYTES / row_bytes;
    max = max < TILE_ROWS ? TILE_ROWS : max / TILE_ROWS * TILE_ROWS;
    for (uint32_t row = a->row_begin, n; row < a->row_end; row += n) {
        n = tile_rows(a->row_end - row, (uint32_t)max);
        n = n < a->row_end - row ? (n + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS : n;
        panels(a, tiles, row, row + n);
    }
}

#define TILE(type, n)                                                                                        \
    static void tile_##type##_##n(const struct matmul_args *a, uint32_t panel, uint32_t row)                 \
    {                                                                                                        \
        multiply(a, &layout_##type, panel, row, n);                                                          \
    }
#define FEW_TILES(type) TILE(type, 1) TILE(type, 2) TILE(type, 4) TILE(type, 8)
#define MORE_TILES(type) TILE(type, 3) TILE(type, 5) TILE(type, 6) TILE(type, 7)
#define FEW(type) [1] = tile_##type##_1, [2] = tile_##type##_2, [4] = tile_##type##_4, [8] = tile_##type##_8
#define MORE(type) [3] = tile_##type##_3, [5] = tile_##type##_5, [6] = tile_##type##_6, [7] = tile_##type##_7

#define DEFINE(type, ...)                                                                                    \
    void ISA_NAME(matmul_##type##_int8)(const struct matmul_args *a)                                         \
    {                                                                                                        \
        static tile_fn *const tiles[TILE_ROWS + 1] = {__VA_ARGS__};                                          \
        matmul_int8(a, tiles);                                                                               \
    }
#define DEFINE_COMMON(type) FEW_TILES(type) MORE_TILES(type) DEFINE(type, FEW(type), MORE(type))
#define DEFINE_RARE(type) FEW_TILES(type) DEFINE(type, FEW(type))

DEFINE_COMMON(Q8_0)
DEFINE_COMMON(Q4_0)
DEFINE_COMMON(Q4_1)
DEFINE_COMMON(Q5_0)
DEFINE_COMMON(Q5_1)
DEFINE_COMMON(Q4_K)
DEFINE_COMMON(Q5_K)
DEFINE_COMMON(Q6_K)
DEFINE_RARE(Q2_K)
DEFINE_RARE(Q3_K)
DEFINE_RARE(IQ4_NL)
DEFINE_RARE(IQ4_XS)
DEFINE_RARE(MXFP4)
