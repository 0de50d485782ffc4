/* What the products share: the way through panels and rows, and the store. Include a vec_*.h first. */
#ifndef LK_KERNELS_MATMUL_BODY_H
#define LK_KERNELS_MATMUL_BODY_H

#include "kernels_inner.h"
#include "panel.h"
#include "vec_body.h"

/* Loops over a tile's rows and panels are unrolled, so that its sums live in registers. Sanitizers make such
 * code very slow to compile: their builds keep the loops and use small tiles. Results don't depend on tiles.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#undef TILE_ROWS
#undef TILE_PANELS
#undef TILE_CASES
#undef F32_PANELS
#define TILE_ROWS 2
#define TILE_PANELS(rows) 2
#define TILE_CASES(X) X(1) X(2)
#define F32_PANELS 1
#define F32_ROWS 2
#define F32_ONE_ROW_PANELS 2
#define UNROLL(n)
#else
#define F32_ROWS 4 /* of a dequantising tile, by F32_PANELS; or one row by more panels */
#define F32_ONE_ROW_PANELS 4
#define UNROLL_PRAGMA(text) _Pragma(#text)
#define UNROLL(n) UNROLL_PRAGMA(GCC unroll n)
#endif

/* y = sum, or y += scale * sum, for the columns of the panel that exist. */
VEC void matmul_store(const struct matmul_args *a, uint32_t row, uint32_t panel, struct v16 sum)
{
    float *y = a->y + (size_t)row * a->y_stride + (size_t)panel * PANEL_ROWS;
    uint32_t n = panel_rows_left(a->w, panel);
    if (a->accumulate)
        sum = v16_fma(v16_set1(a->scale), sum, v16_load_n(y, n));
    v16_store_n(y, sum, n);
}

VEC const uint8_t *panel_at(const struct matmul_args *a, uint32_t panel)
{
    return a->w->data + (size_t)panel * a->w->panel_bytes;
}

/* At p in a walk through panels: asks for the n_bytes that lie a->prefetch_bytes further, in the second-level
 * cache. May point behind the matrix: a prefetch never faults. */
VEC void prefetch_lines(const struct matmul_args *a, const uint8_t *p, uint32_t n_bytes)
{
    uintptr_t at = (uintptr_t)p + a->prefetch_bytes;
    for (uint32_t i = 0; a->prefetch_bytes && i < n_bytes; i += 64)
        __builtin_prefetch((const void *)(at + i), 0, 2);
}

/* Rows of the next tile: tiles of a batch are as even as can be, none larger than max. */
VEC uint32_t tile_rows(uint32_t left, uint32_t max)
{
    uint32_t n_tiles = (left + max - 1) / max;
    return (left + n_tiles - 1) / n_tiles;
}

#endif
