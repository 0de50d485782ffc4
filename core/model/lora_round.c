/* A and B as whole numbers. Where the base's weights meet activations rounded to int8, A is Q8_0 like a
 * matrix of the base's, and B is I8 and meets t = A x rounded once more: so the low-rank part reads half of
 * bf16's bytes and multiplies as fast as the base does. docs/ADAPTERS.md has what that costs in exactness. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "lora_build.h"

#define I8_GROUP 128U  /* values of a row that share a scale, as packed_set_scales has it */
#define Q8_0_BLOCK 32U /* and in Q8_0 */
#define Q8_0_BYTES 34U /* of a block: f16 scale, 32 numbers */
#define A_TARGET_LOG2                                                                                        \
    7 /* 2^6 <= largest |A| < 2^7 as it is stored: then scales are between 1/2 and 1 at most */

/* ---- where ---- */

static bool any_quantized(const struct packed *w, uint32_t n)
{
    bool any = false;
    for (uint32_t i = 0; i < n; i++)
        any = any || dtype_is_quantized(w[i].type);
    return any;
}

/* What the step asks before it rounds the activations that this module reads (wants_int8 in forward.c). */
bool lora_rounds(const struct model *m, const struct model_module *module)
{
    if (module->kind != MODULE_LINEAR || m->kernels->act_mode != ACT_MODE_INT8 || module->in % ACT_BLOCK != 0)
        return false;
    if (module->site == LORA_SITE_LM_HEAD)
        return dtype_is_quantized(m->head.type);
    const struct model_layer *l = &m->layers[module->layer];
    if (module->expert >= 0)
        return any_quantized(l->experts, 3 * m->config.n_experts);
    switch (module->site) {
    case LORA_SITE_Q:
    case LORA_SITE_K:
    case LORA_SITE_V:
        return any_quantized(&l->w[LORA_SITE_Q], 3);
    case LORA_SITE_GATE:
    case LORA_SITE_UP:
        return any_quantized(&l->w[LORA_SITE_GATE], 2);
    default:
        return dtype_is_quantized(l->w[module->site].type);
    }
}

int lora_a_shift(const struct lora_pair *p)
{
    float most = 0, row[256];
    uint64_t n = (uint64_t)p->rank * p->in;
    for (uint64_t at = 0; at < n; at += 256) {
        uint64_t some = n - at < 256 ? n - at : 256;
        const uint8_t *from = (const uint8_t *)p->a + at * dtype_info(p->a_type)->block_bytes;
        dequantize_row(p->a_type, from, some, row);
        for (uint64_t i = 0; i < some; i++)
            most = fabsf(row[i]) > most ? fabsf(row[i]) : most;
    }
    int exponent = 0;
    if (most > 0 && most - most == 0)
        frexpf(most, &exponent); /* most < 2^exponent */
    else
        return 0;
    return A_TARGET_LOG2 - exponent;
}

/* ---- rounding ---- */

/* The next rows of a panel. */
struct panel_rows {
    float *x;        /* [PANEL_ROWS, cols] */
    uint8_t *stored; /* the same as i8 or Q8_0 */
    float *scales;   /* [PANEL_ROWS, n_scales] of i8 */
    uint32_t n_scales;
};

static enum status panel_rows_init(struct panel_rows *p, uint32_t cols, struct error *err)
{
    size_t n = (size_t)PANEL_ROWS * cols;
    *p = (struct panel_rows){.n_scales = (cols + I8_GROUP - 1) / I8_GROUP};
    p->x = mem_array(n, sizeof *p->x);
    p->stored = mem_alloc(n + n / Q8_0_BLOCK * 2);
    p->scales = mem_array((size_t)PANEL_ROWS * p->n_scales, sizeof *p->scales);
    return p->x && p->stored && p->scales ? STATUS_OK
                                          : fail(err, STATUS_NO_MEMORY, "a panel of %u columns", cols);
}

static void panel_rows_fini(struct panel_rows *p)
{
    mem_free(p->x);
    mem_free(p->stored);
    mem_free(p->scales);
}

/* The scale of n numbers: NaN if one of them is no finite number. */
static float scale_of(const float *x, uint32_t n)
{
    float most = 0;
    for (uint32_t k = 0; k < n; k++) {
        if (!(x[k] - x[k] == 0))
            return NAN;
        most = fabsf(x[k]) > most ? fabsf(x[k]) : most;
    }
    return most / 127;
}

static float round_group(const float *x, uint32_t n, uint8_t *to)
{
    float scale = scale_of(x, n);
    for (uint32_t k = 0; k < n; k++)
        to[k] = (uint8_t)(int8_t)(scale > 0 ? lrintf(x[k] / scale) : 0);
    return scale;
}

static void put_i8(const struct packed *w, uint32_t row, uint32_t n, struct panel_rows *p)
{
    for (uint32_t r = 0; r < n; r++)
        for (uint32_t g = 0; g < p->n_scales; g++) {
            uint32_t at = g * I8_GROUP, left = w->cols - at;
            size_t from = (size_t)r * w->cols + at;
            p->scales[r * p->n_scales + g] =
                round_group(p->x + from, left < I8_GROUP ? left : I8_GROUP, p->stored + from);
        }
    packed_fill(w, row, row + n, p->stored);
    for (uint32_t r = 0; r < n; r++)
        packed_set_scales(w, row + r, p->scales + (size_t)r * p->n_scales);
}

static void put_q8_0(const struct packed *w, uint32_t row, uint32_t n, struct panel_rows *p)
{
    size_t n_blocks = (size_t)n * w->cols / Q8_0_BLOCK;
    require(quantize_row(DTYPE_Q8_0, p->x, n_blocks * Q8_0_BLOCK, p->stored));
    for (size_t i = 0; i < n_blocks; i++) {
        const uint16_t nan = 0x7e00;
        if (!(scale_of(p->x + i * Q8_0_BLOCK, Q8_0_BLOCK) >= 0))
            memcpy(p->stored + i * Q8_0_BYTES, &nan, sizeof nan);
    }
    packed_fill(w, row, row + n, p->stored);
}

/* A panel at a time. */
enum status lora_fill_rows(const struct packed *w, enum dtype type, const void *rows, const float *factors,
                           struct error *err)
{
    struct panel_rows p;
    enum status status = panel_rows_init(&p, w->cols, err);
    size_t row_bytes = (size_t)w->cols * dtype_info(type)->block_bytes;
    for (uint32_t r = 0; r < w->rows && status == STATUS_OK; r += PANEL_ROWS) {
        uint32_t n = w->rows - r < PANEL_ROWS ? w->rows - r : PANEL_ROWS;
        dequantize_row(type, (const uint8_t *)rows + r * row_bytes, (uint64_t)n * w->cols, p.x);
        for (uint32_t i = 0; factors && i < n * w->cols; i++)
            p.x[i] *= factors[r + i / w->cols];
        if (w->type == DTYPE_I8)
            put_i8(w, r, n, &p);
        else if (w->type == DTYPE_Q8_0)
            put_q8_0(w, r, n, &p);
        else
            packed_fill(w, r, r + n, p.x);
    }
    panel_rows_fini(&p);
    return status;
}
