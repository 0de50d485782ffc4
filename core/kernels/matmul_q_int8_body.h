/* Products of quantised weights with int8 activations; matmul_q_scalar.c is the definition. A tile is one
 * panel by up to TILE_ROWS rows: each line of weights is loaded once and meets every row's 4 values in a
 * 4-wide integer dot product; each block's integers join the float sums once. Include a vec_*.h first. */
#include "matmul_q_body.h"

VEC int32_t four(const int8_t *q)
{
    int32_t v;
    memcpy(&v, q, sizeof v);
    return v;
}

/* dot[r] += one half of the block times row r's 16 values. */
VEC void dot_half(const struct panel_layout *l, const uint8_t *block, uint32_t half,
                  const struct act_block *const *x, uint32_t n_rows, struct v16i *dot)
{
    bool is_signed = dot_is_signed(l->offset);
    UNROLL(4)
    for (uint32_t kq = 0; kq < 4; kq++) {
        struct line w = line_centre(block_line(l, block, kq, half), l->offset);
        size_t at = 16 * half + 4 * kq;
        UNROLL(8)
        for (uint32_t r = 0; r < n_rows; r++)
            dot[r] = dot4(dot[r], w, four(x[r]->q + at), is_signed);
    }
}

/* Where dots of weights with their offset begin. */
VEC struct v16i dot_start(const struct panel_layout *l, int32_t sum_q)
{
    return v16i_set1(dot_is_signed(l->offset) || l->offset == 0 ? 0 : -l->offset * sum_q);
}

/* A whole block, one scale a row. */
VEC void block_plain(const struct panel_layout *l, const uint8_t *unit, uint32_t i,
                     const struct act_block *const *x, uint32_t n_rows, struct v16 *sum)
{
    struct v16i dot[TILE_ROWS];
    const uint8_t *block = unit + (size_t)i * l->block_bytes;
    UNROLL(8)
    for (uint32_t r = 0; r < n_rows; r++)
        dot[r] = dot_start(l, x[r]->sum);
    dot_half(l, block, 0, x, n_rows, dot);
    dot_half(l, block, 1, x, n_rows, dot);
    struct v16 scales = block_scales(l, unit, i, 0);
    UNROLL(8)
    for (uint32_t r = 0; r < n_rows; r++)
        sum[r] = v16_fma(v16i_float(dot[r]), v16_mul(scales, v16_set1(x[r]->d)), sum[r]);
    if (l->min_at == 0)
        return;
    struct v16 mins = block_mins(l, unit, i, 0);
    UNROLL(8)
    for (uint32_t r = 0; r < n_rows; r++)
        sum[r] = v16_fma(mins, v16_set1(x[r]->d_sum), sum[r]);
}

/* A block of two halves with a scale (and a min) each. */
VEC void block_halves(const struct panel_layout *l, const uint8_t *unit, uint32_t i,
                      const struct act_block *const *x, uint32_t n_rows, struct v16 *sum)
{
    const uint8_t *block = unit + (size_t)i * l->block_bytes;
    struct v16i dot[TILE_ROWS];
    UNROLL(2)
    for (uint32_t half = 0; half < 2; half++) {
        struct v16 scales = block_scales(l, unit, i, half);
        UNROLL(8)
        for (uint32_t r = 0; r < n_rows; r++)
            dot[r] = dot_start(l, x[r]->half[half]);
        dot_half(l, block, half, x, n_rows, dot);
        UNROLL(8)
        for (uint32_t r = 0; r < n_rows; r++)
            sum[r] = v16_fma(v16i_float(dot[r]), v16_mul(scales, v16_set1(x[r]->d)), sum[r]);
        if (l->min_at == 0)
            continue;
        struct v16 mins = block_mins(l, unit, i, half);
        UNROLL(8)
        for (uint32_t r = 0; r < n_rows; r++)
            sum[r] = v16_fma(mins, v16_set1(x[r]->d * (float)x[r]->half[half]), sum[r]);
    }
}

/* l and n_rows are constants in each instantiation. */
VEC void tile(const struct matmul_args *a, const struct panel_layout *l, uint32_t panel, uint32_t row,
              uint32_t n_rows)
{
    const uint8_t *data = panel_at(a, panel);
    uint32_t n_blocks = a->w->cols / ACT_BLOCK;
    const struct act_block *x[TILE_ROWS];
    struct v16 sum[TILE_ROWS];
    UNROLL(8)
    for (uint32_t r = 0; r < n_rows; r++) {
        x[r] = acts_row(a->x, row + r);
        sum[r] = v16_set1(0);
    }
    for (uint32_t b = 0; b < n_blocks; b++) {
        const uint8_t *unit = panel_unit(l, data, b);
        if (row == a->row_begin) /* later tiles find the panel in the cache */
            prefetch_lines(a, unit + (size_t)(b % l->unit_blocks) * l->block_bytes, l->block_bytes);
        if (panel_has_halves(l))
            block_halves(l, unit, b % l->unit_blocks, x, n_rows, sum);
        else
            block_plain(l, unit, b % l->unit_blocks, x, n_rows, sum);
        UNROLL(8)
        for (uint32_t r = 0; r < n_rows; r++)
            x[r]++;
    }
    UNROLL(8)
    for (uint32_t r = 0; r < n_rows; r++)
        matmul_store(a, row + r, panel, sum[r]);
}

/* Every tile is long code: the types that fewer files have make do with tiles of 1, 2, 4 … rows. */
VEC bool has_tile(const struct panel_layout *l, uint32_t n_rows)
{
    bool rare = l->book || l->bits < 4;
    return !rare || (n_rows & (n_rows - 1)) == 0;
}

VEC uint32_t next_tile(const struct panel_layout *l, uint32_t left)
{
    uint32_t rows = tile_rows(left, TILE_ROWS);
    while (!has_tile(l, rows))
        rows--;
    return rows;
}

VEC void matmul_int8(const struct matmul_args *a, const struct panel_layout *l)
{
    for (uint32_t p = a->panel_begin; p < a->panel_end; p++) {
        for (uint32_t row = a->row_begin; row < a->row_end;) {
            uint32_t rows = next_tile(l, a->row_end - row);
            switch (rows) {
#define TILE_CASE(n)                                                                                         \
    case n:                                                                                                  \
        if (has_tile(l, n))                                                                                  \
            tile(a, l, p, row, n);                                                                           \
        break;
                TILE_CASES(TILE_CASE)
#undef TILE_CASE
            default:
                require(!"a tile size");
            }
            row += rows;
        }
    }
}

#define DEFINE(type, ...)                                                                                    \
    void ISA_NAME(matmul_##type##_int8)(const struct matmul_args *a)                                         \
    {                                                                                                        \
        matmul_int8(a, &layout_##type);                                                                      \
    }
PANEL_LIST(DEFINE)
#undef DEFINE
