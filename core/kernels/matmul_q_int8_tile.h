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

/* u of k = 4*kq ... for 8 output rows (side 0 or 1): bytes [8 rows][4]. */
VEC __m256i block_part(const struct panel_layout *l, const uint8_t *block, uint32_t kq, uint32_t side)
{
    return block_line(l, block + (size_t)32 * side, kq % 4, kq / 4).a;
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

/* A block's scales and mins, [half][output row], as floats: the sides come to them one after the other. */
struct block_floats {
    float scales[2][PANEL_ROWS], mins[2][PANEL_ROWS];
} __attribute__((aligned(64)));

VEC void block_half_init(const struct panel_layout *l, const uint8_t *unit, uint32_t i, uint32_t half,
                         struct block_floats *to)
{
    v16_store(to->scales[half], block_scales(l, unit, i, half));
    if (l->min_at)
        v16_store(to->mins[half], block_mins(l, unit, i, half));
}

/* A block's groups from `begin` on that share a scale join the sums of 8 output rows. */
VEC void add_groups(const struct panel_layout *l, const uint8_t *block, const struct block_floats *f,
                    uint32_t begin, uint32_t side, struct tile t)
{
    bool whole = !panel_has_halves(l);
    uint32_t half = begin / 4;
    __m256i dot[TILE_ROWS] = {{0}};
    block_dots(l, block, begin, whole ? 8 : begin + 4, side, t, dot);
    __m256 scales = _mm256_load_ps(f->scales[half] + (size_t)8 * side), mins = scales;
    if (l->min_at)
        mins = _mm256_load_ps(f->mins[half] + (size_t)8 * side);
    UNROLL(8)
    for (uint32_t r = 0; r < t.n_rows; r++) {
        const struct act_block *x = tile_row(&t, r);
        float *at = t.sum[r] + (size_t)8 * side;
        if (l->offset && !dots_are_centred(l))
            dot[r] = _mm256_sub_epi32(dot[r], offset_part(l->offset, x, whole, half));
        __m256 sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r]), _mm256_mul_ps(scales, _mm256_set1_ps(x->d)),
                                     _mm256_load_ps(at));
        if (l->min_at) {
            float d_sum = whole ? x->d_sum : x->d * (float)x->half[half];
            sum = _mm256_fmadd_ps(mins, _mm256_set1_ps(d_sum), sum);
        }
        _mm256_store_ps(at, sum);
    }
}

VEC void multiply(const struct matmul_args *a, const struct panel_layout *l, uint32_t panel, uint32_t row,
                  uint32_t n_rows)
{
    float sums[TILE_ROWS][PANEL_ROWS] __attribute__((aligned(64)));
    struct block_floats f;
    const uint8_t *data = panel_at(a, panel);
    struct tile t = {acts_row(a->x, row), acts_stride(a->x->cols), n_rows, sums};
    memset(sums, 0, n_rows * sizeof *sums);
    for (uint32_t b = 0; b < a->w->cols / ACT_BLOCK; b++, t.x++) {
        uint32_t i = b % l->unit_blocks;
        const uint8_t *unit = panel_unit(l, data, b), *block = unit + (size_t)i * l->block_bytes;
        if (row == a->row_begin) /* later tiles find the panel in the cache */
            prefetch_lines(a, block, l->block_bytes);
        block_half_init(l, unit, i, 0, &f);
        if (panel_has_halves(l))
            block_half_init(l, unit, i, 1, &f);
        UNROLL(1)
        for (uint32_t side = 0; side < 2; side++) {
            __asm__("" : "+r"(t.x)); /* or the compiler spreads all values out once and saves them */
            add_groups(l, block, &f, 0, side, t);
            if (panel_has_halves(l))
                add_groups(l, block, &f, 4, side, t);
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

static void matmul_int8(const struct matmul_args *a, tile_fn *const *tiles)
{
    for (uint32_t row = a->row_begin, n; row < a->row_end; row += n) {
        n = acts_chunk(a->x->cols, a->row_end - row, UINT32_MAX, ACTS_CHUNK_BYTES);
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
