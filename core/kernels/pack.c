/* Stored rows into 16-row panels, and back. Lossless: a panel holds the same numbers in another order
 * (panel.h), so packed_row_f32 gives what dequantize_row gives. Sizes are nearly the file's. */
#include <string.h>

#include "base/mem.h"
#include "kernels_inner.h"
#include "panel.h"

#define LINE_BYTES 64U

const struct panel_layout *panel_layout_of(enum dtype type)
{
    switch (type) {
#define PANEL_CASE(name, ...)                                                                                \
    case DTYPE_##name:                                                                                       \
        return &layout_##name;
        PANEL_LIST(PANEL_CASE)
#undef PANEL_CASE
    default:
        return NULL;
    }
}

enum status packed_shape(enum dtype type, uint32_t rows, uint32_t cols, struct packed *out,
                         size_t *size_bytes, struct error *err)
{
    const struct panel_layout *l = panel_layout_of(type);
    const struct dtype_info *info = dtype_info(type);
    size_t panel_bytes;
    if (rows == 0 || cols == 0 || rows > UINT32_MAX - PANEL_ROWS)
        return fail(err, STATUS_MISMATCH, "a weight matrix of %u x %u has nothing to multiply", rows, cols);
    if (cols % info->block_size != 0)
        return fail(err, STATUS_MISMATCH, "%u columns are not whole %s blocks of %u values", cols, info->name,
                    info->block_size);
    if (type == DTYPE_F32)
        panel_bytes = (size_t)cols * PANEL_ROWS * 4;
    else if (type == DTYPE_F16 || type == DTYPE_BF16)
        panel_bytes = ((size_t)cols + 1) / 2 * PANEL_ROWS * 4;
    else if (type == DTYPE_F8_E4M3)
        panel_bytes = panel_f8_bytes(cols);
    else if (type == DTYPE_I8)
        panel_bytes = panel_i8_bytes(cols);
    else if (l)
        panel_bytes = panel_q_bytes(l, cols);
    else
        return fail(err, STATUS_UNSUPPORTED, "no kernel multiplies weights of type %s", info->name);
    *out = (struct packed){.type = type,
                           .rows = rows,
                           .cols = cols,
                           .n_panels = (rows + PANEL_ROWS - 1) / PANEL_ROWS,
                           .panel_bytes = panel_bytes};
    if (!size_mul(out->n_panels, panel_bytes, size_bytes))
        return fail(err, STATUS_TOO_LARGE, "a %s matrix of %u x %u does not fit the address space",
                    info->name, rows, cols);
    return STATUS_OK;
}

static void fill_f32(uint8_t *panel, uint32_t lane, const uint8_t *src, uint32_t cols)
{
    for (uint32_t k = 0; k < cols; k++)
        memcpy(panel + ((size_t)k * PANEL_ROWS + lane) * 4, src + (size_t)k * 4, 4);
}

static void fill_f16(uint8_t *panel, uint32_t lane, const uint8_t *src, uint32_t cols)
{
    for (uint32_t k = 0; k < cols; k++)
        memcpy(panel + ((size_t)k * PANEL_ROWS + lane) * 2, src + (size_t)k * 2, 2);
}

static void fill_bf16(uint8_t *panel, uint32_t lane, const uint8_t *src, uint32_t cols)
{
    for (uint32_t k = 0; k < cols; k++) {
        size_t pair = (size_t)(k / 2) * PANEL_ROWS + lane;
        memcpy(panel + pair * 4 + (k % 2) * 2, src + (size_t)k * 2, 2);
    }
}

static uint8_t *f8_group(uint8_t *panel, uint32_t k)
{
    return panel + (size_t)(k / F8_GROUP) * F8_UNIT_BYTES;
}

static void put_f8_scale(uint8_t *panel, uint32_t lane, uint32_t k, float scale)
{
    memcpy(f8_group(panel, k) + (size_t)lane * 4, &scale, 4);
}

/* Scales are 1 until packed_set_scales says otherwise. */
static void fill_f8(uint8_t *panel, uint32_t lane, const uint8_t *src, uint32_t cols)
{
    for (uint32_t k = 0; k < cols; k += F8_GROUP)
        put_f8_scale(panel, lane, k, 1.0f);
    for (uint32_t k = 0; k < cols; k++)
        f8_group(panel, k)[((size_t)4 + k % F8_GROUP) * PANEL_ROWS + lane] = src[k];
}

static void put_i8_scale(uint8_t *panel, uint32_t lane, uint32_t k, float scale)
{
    memcpy(panel + (size_t)(k / I8_GROUP) * I8_UNIT_BYTES + (size_t)lane * 4, &scale, 4);
}

static void fill_i8(uint8_t *panel, uint32_t lane, const uint8_t *src, uint32_t cols)
{
    for (uint32_t k = 0; k < cols; k += I8_GROUP)
        put_i8_scale(panel, lane, k, 1.0f);
    for (uint32_t k = 0; k < cols; k++)
        panel[panel_i8_at(k, lane)] = (uint8_t)(src[k] + I8_OFFSET);
}

void packed_set_scales(const struct packed *w, uint32_t row, const float *scales)
{
    require((w->type == DTYPE_F8_E4M3 || w->type == DTYPE_I8) && row < w->rows);
    uint8_t *panel = w->data + (size_t)(row / PANEL_ROWS) * w->panel_bytes;
    _Static_assert(I8_GROUP == F8_GROUP, "one loop for both");
    for (uint32_t k = 0; k < w->cols; k += F8_GROUP) {
        if (w->type == DTYPE_I8)
            put_i8_scale(panel, row % PANEL_ROWS, k, scales[k / I8_GROUP]);
        else
            put_f8_scale(panel, row % PANEL_ROWS, k, scales[k / F8_GROUP]);
    }
}

/* Writes 32 values of one row into a panel block, which is zero there. */
static void put_block(const struct panel_layout *l, uint8_t *block, uint32_t lane, const uint8_t *u)
{
    uint32_t low = panel_low_bits(l), high = panel_high_bits(l);
    for (uint32_t k = 0; k < ACT_BLOCK; k++) {
        uint32_t kq = k / 4, at = lane * 4 + k % 4;
        uint8_t *to = &block[plane_line(low, kq) * 64 + at];
        *to = (uint8_t)(*to | (u[k] & ((1U << low) - 1)) << plane_shift(low, kq));
        if (high) {
            to = &block[panel_high_at(l) + plane_line(high, kq) * 64 + at];
            *to = (uint8_t)(*to | (uint32_t)(u[k] >> low) << plane_shift(high, kq));
        }
    }
}

static void put_u16(uint8_t *p, uint32_t lane, uint16_t v)
{
    memcpy(p + (size_t)lane * 2, &v, 2);
}

/* Scales and mins of a stored block that begins at block `first` of the unit. */
static void put_scales(const struct panel_layout *l, uint8_t *unit, uint32_t first, uint32_t lane,
                       const struct q_block *q)
{
    uint32_t n = panel_has_halves(l) ? 16 : 8;
    if (l->kind == PANEL_E8M0) {
        unit[l->scale_at + first * PANEL_ROWS + lane] = (uint8_t)q->d;
        return;
    }
    if (l->kind == PANEL_PLAIN) {
        put_u16(unit + l->scale_at + (size_t)first * 32, lane, q->d);
        if (l->min_at)
            put_u16(unit + l->min_at + (size_t)first * 32, lane, q->dmin);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint8_t scale = q->scale[i];
        if (l->kind == PANEL_K16_MIN)
            scale = (uint8_t)(scale | q->min[i] << 4);
        unit[l->scale_at + i * PANEL_ROWS + lane] = scale;
        if (l->kind == PANEL_K)
            unit[l->min_at + i * PANEL_ROWS + lane] = q->min[i];
    }
    put_u16(unit + l->d_at, lane, q->d);
    put_u16(unit + l->d_at + 32, lane, q->dmin);
}

static void fill_quantized(enum dtype type, uint8_t *panel, uint32_t lane, const uint8_t *src, uint32_t cols)
{
    const struct panel_layout *l = panel_layout_of(type);
    const struct dtype_info *info = dtype_info(type);
    uint32_t per_stored = info->block_size / ACT_BLOCK;
    for (uint32_t b = 0; b < cols / ACT_BLOCK; b += per_stored, src += info->block_bytes) {
        struct q_block q;
        q_block_split(type, src, &q);
        uint8_t *unit = panel + (size_t)(b / l->unit_blocks) * l->unit_bytes;
        uint32_t first = b % l->unit_blocks;
        for (uint32_t i = 0; i < per_stored; i++)
            put_block(l, unit + (size_t)(first + i) * l->block_bytes, lane, q.u + (size_t)i * ACT_BLOCK);
        put_scales(l, unit, first, lane, &q);
    }
}

/* n_units of each row of a panel, stored lane by lane: a value each, or a pair of bf16. Sizes are constants
 * of the calls, so that copies become loads and stores. */
__attribute__((always_inline)) static inline void turn(uint8_t *panel, const uint8_t *src, size_t row_bytes,
                                                       size_t n_units, size_t unit)
{
    uint8_t lines[PANEL_ROWS][LINE_BYTES];
    for (uint32_t lane = 0; lane < PANEL_ROWS; lane++)
        memcpy(lines[lane], src + lane * row_bytes, n_units * unit);
    for (size_t k = 0; k < n_units; k++)
        for (uint32_t lane = 0; lane < PANEL_ROWS; lane++)
            memcpy(panel + (k * PANEL_ROWS + lane) * unit, lines[lane] + k * unit, unit);
}

/* A cache line of each row at a time: the rows' distance is often a multiple of 4 KiB, and sixteen of them
 * would push each other out of the nearest cache. */
__attribute__((always_inline)) static inline void turn_panel(uint8_t *panel, const uint8_t *src,
                                                             size_t row_bytes, size_t n_units, size_t unit)
{
    size_t k = 0;
    for (; k + LINE_BYTES / unit <= n_units; k += LINE_BYTES / unit)
        turn(panel + k * PANEL_ROWS * unit, src + k * unit, row_bytes, LINE_BYTES / unit, unit);
    for (; k + 16 / unit <= n_units; k += 16 / unit)
        turn(panel + k * PANEL_ROWS * unit, src + k * unit, row_bytes, 16 / unit, unit);
    for (; k < n_units; k++)
        turn(panel + k * PANEL_ROWS * unit, src + k * unit, row_bytes, 1, unit);
}

/* A whole panel of floats; false: not of such a type, or with half a pair at the end. */
static bool fill_panel(const struct packed *w, uint8_t *panel, const uint8_t *src, size_t row_bytes)
{
    bool even = w->cols % 2 == 0;
    if (w->type == DTYPE_F16 && even)
        turn_panel(panel, src, row_bytes, w->cols, 2);
    else if (w->type == DTYPE_F32 || (w->type == DTYPE_BF16 && even))
        turn_panel(panel, src, row_bytes, row_bytes / 4, 4);
    else
        return false;
    return true;
}

void packed_fill(const struct packed *w, uint32_t row_begin, uint32_t row_end, const void *src)
{
    uint64_t row_bytes = 0;
    require(row_begin % PANEL_ROWS == 0 && row_begin <= row_end && row_end <= w->rows);
    require(dtype_row_bytes(w->type, w->cols, &row_bytes));
    const uint8_t *p = src;
    uint32_t row = row_begin;
    for (; row_end - row >= PANEL_ROWS; row += PANEL_ROWS, p += PANEL_ROWS * row_bytes)
        if (!fill_panel(w, w->data + (size_t)(row / PANEL_ROWS) * w->panel_bytes, p, row_bytes))
            break;
    for (; row < row_end; row++, p += row_bytes) {
        uint8_t *panel = w->data + (size_t)(row / PANEL_ROWS) * w->panel_bytes;
        uint32_t lane = row % PANEL_ROWS;
        if (lane == 0)
            memset(panel, 0, w->panel_bytes);
        if (w->type == DTYPE_F32)
            fill_f32(panel, lane, p, w->cols);
        else if (w->type == DTYPE_F16)
            fill_f16(panel, lane, p, w->cols);
        else if (w->type == DTYPE_BF16)
            fill_bf16(panel, lane, p, w->cols);
        else if (w->type == DTYPE_F8_E4M3)
            fill_f8(panel, lane, p, w->cols);
        else if (w->type == DTYPE_I8)
            fill_i8(panel, lane, p, w->cols);
        else
            fill_quantized(w->type, panel, lane, p, w->cols);
    }
}

static float f16_lane(const uint8_t *p, uint32_t lane)
{
    return f16_to_f32(panel_u16(p + (size_t)lane * 2));
}

static void lane_values(const struct panel_layout *l, const uint8_t *block, uint32_t lane, uint8_t *u)
{
    uint32_t low = panel_low_bits(l), high = panel_high_bits(l);
    for (uint32_t k = 0; k < ACT_BLOCK; k++) {
        uint32_t kq = k / 4, at = lane * 4 + k % 4;
        uint32_t value = block[plane_line(low, kq) * 64 + at] >> plane_shift(low, kq) & ((1U << low) - 1);
        if (high) {
            uint32_t upper = block[panel_high_at(l) + plane_line(high, kq) * 64 + at];
            value |= (upper >> plane_shift(high, kq) & ((1U << high) - 1)) << low;
        }
        u[k] = l->book ? l->book[value] : (uint8_t)value;
    }
}

void panel_lane_read(const struct panel_layout *l, const uint8_t *panel, uint32_t block, uint32_t lane,
                     struct panel_lane *out)
{
    const uint8_t *unit = panel_unit(l, panel, block);
    uint32_t i = block % l->unit_blocks;
    const uint8_t *scales = unit + l->scale_at, *mins = unit + l->min_at;
    lane_values(l, unit + (size_t)i * l->block_bytes, lane, out->u);
    out->min[0] = out->min[1] = 0;
    if (l->kind == PANEL_E8M0) {
        out->scale[0] = out->scale[1] = panel_e8m0(scales[i * PANEL_ROWS + lane]);
        return;
    }
    if (l->kind == PANEL_PLAIN) {
        out->scale[0] = out->scale[1] = f16_lane(scales + (size_t)i * 32, lane);
        if (l->min_at)
            out->min[0] = out->min[1] = f16_lane(mins + (size_t)i * 32, lane);
        return;
    }
    float d = f16_lane(unit + l->d_at, lane), dmin = f16_lane(unit + l->d_at + 32, lane);
    for (uint32_t half = 0; half < 2; half++) {
        uint32_t at = (panel_has_halves(l) ? 2 * i + half : i) * PANEL_ROWS + lane;
        bool is_signed = l->kind == PANEL_K_SIGNED || l->kind == PANEL_K16;
        uint8_t scale = scales[at], min = mins[at];
        if (l->kind == PANEL_K16_MIN) {
            min = scale >> 4;
            scale &= 15;
        }
        out->scale[half] = d * (is_signed ? (float)(int8_t)scale : (float)scale);
        if (l->min_at)
            out->min[half] = -(dmin * (float)min);
    }
}

static void row_quantized(const struct packed *w, const uint8_t *panel, uint32_t lane, float *y)
{
    const struct panel_layout *l = panel_layout_of(w->type);
    for (uint32_t b = 0; b < w->cols / ACT_BLOCK; b++, y += ACT_BLOCK) {
        struct panel_lane v;
        panel_lane_read(l, panel, b, lane, &v);
        for (uint32_t k = 0; k < ACT_BLOCK; k++)
            y[k] = panel_lane_value(l, &v, k);
    }
}

void packed_row_f32(const struct packed *w, uint32_t row, float *y)
{
    require(row < w->rows);
    const uint8_t *panel = w->data + (size_t)(row / PANEL_ROWS) * w->panel_bytes;
    uint32_t lane = row % PANEL_ROWS;
    if (dtype_is_quantized(w->type)) {
        row_quantized(w, panel, lane, y);
        return;
    }
    for (uint32_t k = 0; k < w->cols; k++) {
        if (w->type == DTYPE_F32)
            memcpy(&y[k], panel + ((size_t)k * PANEL_ROWS + lane) * 4, 4);
        else if (w->type == DTYPE_F16)
            y[k] = f16_to_f32(panel_u16(panel + ((size_t)k * PANEL_ROWS + lane) * 2));
        else if (w->type == DTYPE_F8_E4M3)
            y[k] = panel_f8_value(panel, k, lane);
        else if (w->type == DTYPE_I8)
            y[k] = panel_i8_value(panel, k, lane);
        else
            y[k] = bf16_to_f32(panel_u16(panel + ((size_t)(k / 2) * PANEL_ROWS + lane) * 4 + (k % 2) * 2));
    }
}
