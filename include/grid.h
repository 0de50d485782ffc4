/* The grid that a stored weight lies on: which values its neighbours could have had. Says whether other
 * values could have been rounded to these. Thread: any. */
#ifndef LK_GRID_H
#define LK_GRID_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels.h"

#define GRID_VALUES 32U

struct grid {
    uint32_t n;               /* values: 32, or fewer at the end of a row of floats */
    float value[GRID_VALUES]; /* as packed_row_f32 has them */
    /* Distance to the neighbouring level, the wider one of the two: a value that was rounded to the nearest
     * is at most half of it away. */
    float step[GRID_VALUES];
    /* The largest or smallest value of its 16: what lies beyond a block's ends is cut, not rounded. Never set
     * for float types. */
    bool is_end[GRID_VALUES];
};
/* Values [32 * block, ...) of a row; block < ceil(cols / 32). */
void packed_grid(const struct packed *w, uint32_t row, uint32_t block, struct grid *out);

#endif
