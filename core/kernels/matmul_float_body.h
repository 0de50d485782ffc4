/* Products with F32, F16, BF16, F8 and I8 weights in register tiles of rows x panels; matmul_float_scalar.c
 * is the definition: one chain of fused multiply-adds over ascending k for each output, whatever the tile.
 * The chains of a tile are independent and hide each other's latency. Include a vec_*.h first. */
#include "matmul_body.h"

VEC struct v16 weights(enum dtype type, const uint8_t *panel, uint32_t k)
{
    if (type == DTYPE_F32)
        return v16_load((const float *)(const void *)panel + (size_t)k * PANEL_ROWS);
    if (type == DTYPE_F16)
        return v16_load_f16(panel + (size_t)k * PANEL_ROWS * 2);
    if (type == DTYPE_F8_E4M3) {
        const uint8_t *unit = panel + (size_t)(k / F8_GROUP) * F8_UNIT_BYTES;
        const uint8_t *line = unit + ((size_t)4 + k % F8_GROUP) * PANEL_ROWS;
        return v16_mul(v16_load_f8(line), v16_load((const float *)(const void *)unit));
    }
    if (type == DTYPE_I8) {
        const uint8_t *unit = panel + (size_t)(k / I8_GROUP) * I8_UNIT_BYTES;
        struct line line = line_load(unit + I8_SCALES_BYTES + (size_t)(k % I8_GROUP / 4) * 64);
        struct v16 value = v16_sub(line_floats(line, k % 4), v16_set1((float)I8_OFFSET));
        return v16_mul(value, v16_load((const float *)(const void *)unit));
    }
    const uint8_t *pair = panel + (size_t)(k / 2) * PANEL_ROWS * 4;
    return k % 2 ? v16_bf16_odd(pair) : v16_bf16_even(pair);
}

/* The weights of k and k + 1, k even, are at hand: asks for some further on. Lines of bytes hold 4 k's; the
 * scales of a group are asked for with its first line. */
VEC void ask_ahead(const struct matmul_args *a, enum dtype type, const uint8_t *panel, uint32_t k)
{
    if (type == DTYPE_F32)
        prefetch_lines(a, panel + (size_t)k * PANEL_ROWS * 4, 128);
    else if (type == DTYPE_F16 || type == DTYPE_BF16)
        prefetch_lines(a, panel + (size_t)k * PANEL_ROWS * 2, 64);
    else if (k % I8_GROUP == 0)
        prefetch_lines(a, panel + (size_t)(k / I8_GROUP) * I8_UNIT_BYTES, I8_SCALES_BYTES + 64);
    else if (k % 4 == 0)
        prefetch_lines(a,
                       panel + (size_t)(k / I8_GROUP) * I8_UNIT_BYTES + I8_SCALES_BYTES +
                           (size_t)(k % I8_GROUP) * PANEL_ROWS,
                       64);
}
_Static_assert(F8_GROUP == I8_GROUP && F8_UNIT_BYTES == I8_UNIT_BYTES, "both are walked through alike");

struct tile {
    enum dtype type;
    uint32_t rows, panels;
};

VEC void tile_step(struct tile t, const uint8_t *const *w, const float *const *x, uint32_t k,
                   struct v16 sum[TILE_ROWS][4])
{
    struct v16 value[4];
    UNROLL(4)
    for (uint32_t p = 0; p < t.panels; p++)
        value[p] = weights(t.type, w[p], k);
    UNROLL(8)
    for (uint32_t r = 0; r < t.rows; r++) {
        struct v16 activation = v16_set1(x[r][k]);
        UNROLL(4)
        for (uint32_t p = 0; p < t.panels; p++)
            sum[r][p] = v16_fma(value[p], activation, sum[r][p]);
    }
}

/* t's members are constants in each instantiation, so the loops unroll and sums live in registers. */
VEC void tile(const struct matmul_args *a, uint32_t panel, uint32_t row, struct tile t)
{
    struct v16 sum[TILE_ROWS][4];
    const uint8_t *w[4];
    const float *x[TILE_ROWS];
    UNROLL(4)
    for (uint32_t p = 0; p < t.panels; p++)
        w[p] = panel_at(a, panel + p);
    UNROLL(8)
    for (uint32_t r = 0; r < t.rows; r++) {
        x[r] = a->x->x + (size_t)(row + r) * a->x->x_stride;
        UNROLL(4)
        for (uint32_t p = 0; p < t.panels; p++)
            sum[r][p] = v16_set1(0);
    }
    uint32_t cols = a->w->cols, even = cols & ~1U;
    for (uint32_t k = 0; k < even; k += 2) {
        if (a->prefetch_bytes && row == a->row_begin) {
            UNROLL(4)
            for (uint32_t p = 0; p < t.panels; p++)
                ask_ahead(a, t.type, w[p], k);
        }
        tile_step(t, w, x, k, sum);
        tile_step(t, w, x, k + 1, sum);
    }
    if (even < cols)
        tile_step(t, w, x, even, sum);
    UNROLL(8)
    for (uint32_t r = 0; r < t.rows; r++) {
        UNROLL(4)
        for (uint32_t p = 0; p < t.panels; p++)
            matmul_store(a, row + r, panel + p, sum[r][p]);
    }
}

/* One set of panels against all rows; wide: TILE_PANELS panels at once, else one. */
VEC void panels_float(const struct matmul_args *a, enum dtype type, uint32_t panel, uint32_t n_panels)
{
    for (uint32_t row = a->row_begin; row < a->row_end;) {
        uint32_t rows = tile_rows(a->row_end - row, TILE_ROWS);
        switch (rows) {
#define TILE_CASE(n)                                                                                         \
    case n:                                                                                                  \
        if (n_panels == TILE_PANELS(n))                                                                      \
            tile(a, panel, row, (struct tile){type, n, TILE_PANELS(n)});                                     \
        else                                                                                                 \
            for (uint32_t p = 0; p < n_panels; p++)                                                          \
                tile(a, panel + p, row, (struct tile){type, n, 1});                                          \
        break;
            TILE_CASES(TILE_CASE)
#undef TILE_CASE
        default:
            require(!"a tile size");
        }
        row += rows;
    }
}

VEC void matmul_float(const struct matmul_args *a, enum dtype type)
{
    uint32_t n_rows = a->row_end - a->row_begin;
    if (n_rows == 0)
        return;
    uint32_t at_once = TILE_PANELS(tile_rows(n_rows, TILE_ROWS));
    for (uint32_t p = a->panel_begin; p < a->panel_end;) {
        uint32_t left = a->panel_end - p, n = left < at_once ? left : at_once;
        panels_float(a, type, p, n);
        p += n;
    }
}

void ISA_NAME(matmul_f32)(const struct matmul_args *a)
{
    matmul_float(a, DTYPE_F32);
}

void ISA_NAME(matmul_f16)(const struct matmul_args *a)
{
    matmul_float(a, DTYPE_F16);
}

void ISA_NAME(matmul_bf16)(const struct matmul_args *a)
{
    matmul_float(a, DTYPE_BF16);
}

void ISA_NAME(matmul_f8)(const struct matmul_args *a)
{
    matmul_float(a, DTYPE_F8_E4M3);
}

void ISA_NAME(matmul_i8)(const struct matmul_args *a)
{
    matmul_float(a, DTYPE_I8);
}
