/* The way through a matrix where a block's weights, unpacked into registers once, meet many rows: a chunk of
 * rows, panel after panel, block after block. The chunk's float sums wait in the nearest cache and its
 * activations in the next one. The includer defines add_block. Include a vec_*.h first. */
#include "matmul_q_body.h"

#define CHUNK_ROWS 32U             /* at most */
#define CHUNK_BYTES (256U * 1024U) /* of their activations */

struct chunk {
    const struct act_block *x; /* of the block at hand; row r's is r*stride further */
    size_t stride;
    uint32_t n_rows;
    float (*sum)[PANEL_ROWS];
};

/* Adds block i of a unit to all rows' sums. */
VEC void add_block(const struct panel_layout *l, const uint8_t *unit, uint32_t i, struct chunk c);

VEC int32_t four(const int8_t *q)
{
    int32_t v;
    memcpy(&v, q, sizeof v);
    return v;
}

VEC void panel_rows(const struct matmul_args *a, const struct panel_layout *l, uint32_t panel, uint32_t row,
                    uint32_t n_rows)
{
    float sums[CHUNK_ROWS][PANEL_ROWS] __attribute__((aligned(64)));
    const uint8_t *data = panel_at(a, panel);
    uint32_t n_blocks = a->w->cols / ACT_BLOCK;
    struct chunk c = {acts_row(a->x, row), acts_stride(a->x->cols), n_rows, sums};
    memset(sums, 0, n_rows * sizeof *sums);
    for (uint32_t b = 0; b < n_blocks; b++, c.x++) {
        const uint8_t *unit = panel_unit(l, data, b);
        uint32_t i = b % l->unit_blocks;
        prefetch_lines(a, unit + (size_t)i * l->block_bytes, l->block_bytes);
        add_block(l, unit, i, c);
    }
    for (uint32_t r = 0; r < n_rows; r++)
        matmul_store(a, row + r, panel, v16_load(sums[r]));
}

VEC void matmul_int8(const struct matmul_args *a, const struct panel_layout *l)
{
    for (uint32_t row = a->row_begin; row < a->row_end;) {
        uint32_t n_rows = acts_chunk(a->x->cols, a->row_end - row, CHUNK_ROWS, CHUNK_BYTES);
        for (uint32_t p = a->panel_begin; p < a->panel_end; p++)
            panel_rows(a, l, p, row, n_rows);
        row += n_rows;
    }
}

#define DEFINE(type, ...)                                                                                    \
    void ISA_NAME(matmul_##type##_int8)(const struct matmul_args *a)                                         \
    {                                                                                                        \
        matmul_int8(a, &layout_##type);                                                                      \
    }
PANEL_LIST(DEFINE)
#undef DEFINE
