/* Steps of stored types, from the scales that lie beside the values. */
#include "grid.h"

#include <math.h>

#include "panel.h"

/* Distance to the next level of a code book, the wider side. */
static float book_gap(const uint8_t *book, uint8_t u)
{
    int below = -1, above = 256;
    for (int i = 0; i < 16; i++) {
        if (book[i] < u && book[i] > below)
            below = book[i];
        if (book[i] > u && book[i] < above)
            above = book[i];
    }
    int down = below < 0 ? 0 : u - below, up = above > 255 ? 0 : above - u;
    return (float)(down > up ? down : up);
}

static void mark_ends(struct grid *g)
{
    for (uint32_t half = 0; half < g->n; half += 16) {
        float low = g->value[half], high = g->value[half];
        for (uint32_t k = half; k < half + 16; k++) {
            low = fminf(low, g->value[k]);
            high = fmaxf(high, g->value[k]);
        }
        for (uint32_t k = half; k < half + 16; k++)
            g->is_end[k] = g->value[k] == low || g->value[k] == high;
    }
}

static void quantized(const struct packed *w, const uint8_t *panel, uint32_t lane, uint32_t block,
                      struct grid *g)
{
    const struct panel_layout *l = panel_layout_of(w->type);
    struct panel_lane v;
    panel_lane_read(l, panel, block, lane, &v);
    for (uint32_t k = 0; k < GRID_VALUES; k++) {
        g->value[k] = panel_lane_value(l, &v, k);
        g->step[k] = fabsf(v.scale[k / 16]) * (l->book ? book_gap(l->book, v.u[k]) : 1);
    }
    mark_ends(g);
}

/* A unit in the last place of a float with `bits` bits behind the point and this smallest exponent. */
static float ulp(float value, int bits, int exponent_min)
{
    int e = exponent_min;
    if (value != 0 && ilogbf(value) > e)
        e = ilogbf(value);
    return ldexpf(1, e - bits);
}

static void f8(const uint8_t *panel, uint32_t lane, uint32_t k, float *value, float *step)
{
    float scale;
    memcpy(&scale, panel + (size_t)(k / F8_GROUP) * F8_UNIT_BYTES + (size_t)lane * 4, 4);
    *value = panel_f8_value(panel, k, lane);
    *step = scale != 0 ? fabsf(scale) * ulp(*value / scale, 3, -6) : 0;
}

static void floats(const struct packed *w, const uint8_t *panel, uint32_t lane, uint32_t k, float *value,
                   float *step)
{
    if (w->type == DTYPE_F32) {
        memcpy(value, panel + ((size_t)k * PANEL_ROWS + lane) * 4, 4);
        *step = ulp(*value, 23, -126);
    } else if (w->type == DTYPE_F16) {
        *value = f16_to_f32(panel_u16(panel + ((size_t)k * PANEL_ROWS + lane) * 2));
        *step = ulp(*value, 10, -14);
    } else if (w->type == DTYPE_F8_E4M3) {
        f8(panel, lane, k, value, step);
    } else {
        *value = bf16_to_f32(panel_u16(panel + ((size_t)(k / 2) * PANEL_ROWS + lane) * 4 + (k % 2) * 2));
        *step = ulp(*value, 7, -126);
    }
}

void packed_grid(const struct packed *w, uint32_t row, uint32_t block, struct grid *out)
{
    require(row < w->rows && (uint64_t)block * GRID_VALUES < w->cols);
    const uint8_t *panel = w->data + (size_t)(row / PANEL_ROWS) * w->panel_bytes;
    uint32_t lane = row % PANEL_ROWS, first = block * GRID_VALUES, left = w->cols - first;
    *out = (struct grid){.n = left < GRID_VALUES ? left : GRID_VALUES};
    if (dtype_is_quantized(w->type)) {
        quantized(w, panel, lane, block, out);
        return;
    }
    for (uint32_t k = 0; k < out->n; k++)
        floats(w, panel, lane, first + k, &out->value[k], &out->step[k]);
}
