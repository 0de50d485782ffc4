/* Products of quantised weights with int8 activations; matmul_q_scalar.c is the definition. A tile is one
 * panel by up to TILE_ROWS rows: each line of weights is loaded once and meets every row's 4 values in a
 * 4-wide integer dot product; each block's integers join the float sums once. Include a vec_*.h first. */
#include "matmul_q_body.h"

struct q_rows {
    const int8_t *q[TILE_ROWS];
    const float *d[TILE_ROWS];
    const int32_t *sum[TILE_ROWS]; /* of halves */
};

VEC int32_t four(const int8_t *q)
{
    int32_t v;
    memcpy(&v, q, sizeof v);
    return v;
}

/* dot[r] += one half of the block times one digit of row r's 16 values. */
VEC void dot_half(const struct panel_layout *l, const uint8_t *block, uint32_t half, const struct q_rows *x,
                  size_t digits, uint32_t n_rows, struct v16i *dot)
{
    bool is_signed = dot_is_signed(l->offset);
    UNROLL(4)
    for (uint32_t kq = 0; kq < 4; kq++) {
        struct line w = line_centre(block_line(l, block, kq, half), l->offset);
        size_t at = digits + 16 * half + 4 * kq;
        UNROLL(8)
        for (uint32_t r = 0; r < n_rows; r++)
            dot[r] = dot4(dot[r], w, four(x->q[r] + at), is_signed);
    }
}

VEC int32_t block_sum(const struct q_rows *x, uint32_t r, uint32_t b)
{
    return x->sum[r][2 * b] + x->sum[r][2 * b + 1];
}

/* A whole block, one scale a row. */
VEC void block_plain(const struct panel_layout *l, const uint8_t *unit, uint32_t i, const struct q_rows *x,
                     uint32_t b, uint32_t n_rows, struct v16 *sum)
{
    struct v16i dot[TILE_ROWS];
    const uint8_t *block = unit + (size_t)i * l->block_bytes;
    size_t high = (size_t)b * ACT_DIGITS * ACT_BLOCK, low = high + ACT_BLOCK;
    UNROLL(8)
    for (uint32_t r = 0; r < n_rows; r++)
        dot[r] = v16i_set1(0);
    dot_half(l, block, 0, x, high, n_rows, dot);
    dot_half(l, block, 1, x, high, n_rows, dot);
    UNROLL(8)
    for (uint32_t r = 0; r < n_rows; r++)
        dot[r] = v16i_add(v16i_times256(dot[r]),
                          v16i_set1(dot_is_signed(l->offset) ? 0 : -l->offset * block_sum(x, r, b)));
    dot_half(l, block, 0, x, low, n_rows, dot);
    dot_half(l, block, 1, x, low, n_rows, dot);
    struct v16 scales = block_scales(l, unit, i, 0);
    UNROLL(8)
    for (uint32_t r = 0; r < n_rows; r++)
        sum[r] = v16_fma(v16i_float(dot[r]), v16_mul(scales, v16_set1(x->d[r][b])), sum[r]);
    if (l->min_at == 0)
        return;
    struct v16 mins = block_mins(l, unit, i, 0);
    UNROLL(8)
    for (uint32_t r = 0; r < n_rows; r++)
        sum[r] = v16_fma(mins, v16_set1(x->d[r][b] * (float)block_sum(x, r, b)), sum[r]);
}

/* A block of two halves with a scale (and a min) each. */
VEC void block_halves(const struct panel_layout *l, const uint8_t *unit, uint32_t i, const struct q_rows *x,
                      uint32_t b, uint32_t n_rows, struct v16 *sum)
{
    const uint8_t *block = unit + (size_t)i * l->block_bytes;
    struct v16i dot[TILE_ROWS];
    size_t high = (size_t)b * ACT_DIGITS * ACT_BLOCK, low = high + ACT_BLOCK;
    UNROLL(2)
    for (uint32_t half = 0; half < 2; half++) {
        struct v16 scales = block_scales(l, unit, i, half);
        UNROLL(8)
        for (uint32_t r = 0; r < n_rows; r++)
            dot[r] = v16i_set1(0);
        dot_half(l, block, half, x, high, n_rows, dot);
        UNROLL(8)
        for (uint32_t r = 0; r < n_rows; r++)
            dot[r] = v16i_add(v16i_times256(dot[r]),
                              v16i_set1(dot_is_signed(l->offset) ? 0 : -l->offset * x->sum[r][2 * b + half]));
        dot_half(l, block, half, x, low, n_rows, dot);
        UNROLL(8)
        for (uint32_t r = 0; r < n_rows; r++)
            sum[r] = v16_fma(v16i_float(dot[r]), v16_mul(scales, v16_set1(x->d[r][b])), sum[r]);
        if (l->min_at == 0)
            continue;
        struct v16 mins = block_mins(l, unit, i, half);
        UNROLL(8)
        for (uint32_t r = 0; r < n_rows; r++)
            sum[r] = v16_fma(mins, v16_set1(x->d[r][b] * (float)x->sum[r][2 * b + half]), sum[r]);
    }
}

/* l and n_rows are constants in each instantiation. */
VEC void tile(const struct matmul_args *a, const struct panel_layout *l, uint32_t panel, uint32_t row,
              uint32_t n_rows)
{
    const uint8_t *data = panel_at(a, panel);
    uint32_t n_blocks = a->w->cols / ACT_BLOCK;
    struct q_rows x;
    struct v16 sum[TILE_ROWS];
    UNROLL(8)
    for (uint32_t r = 0; r < n_rows; r++) {
        size_t at = (size_t)(row + r) * n_blocks;
        x.q[r] = a->x->q + at * ACT_DIGITS * ACT_BLOCK;
        x.d[r] = a->x->d + at;
        x.sum[r] = a->x->sum + 2 * at;
        sum[r] = v16_set1(0);
    }
    for (uint32_t b = 0; b < n_blocks; b++) {
        const uint8_t *unit = panel_unit(l, data, b);
        if (row == a->row_begin) /* later tiles find the panel in the cache */
            prefetch_lines(unit + (size_t)(b % l->unit_blocks) * l->block_bytes, l->block_bytes);
        if (panel_has_halves(l))
            block_halves(l, unit, b % l->unit_blocks, &x, b, n_rows, sum);
        else
            block_plain(l, unit, b % l->unit_blocks, &x, b, n_rows, sum);
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
