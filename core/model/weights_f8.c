/* Scales of F8_E4M3 weights in safetensors: W = value * scale, in f32, rounded once.
 *
 *   X.weight_scale      one number, or one a row: [], [1], [rows], [rows, 1]; blocks where the configuration
 *                       has a block size (compressed-tensors)
 *   X.weight_scale_inv  the same, blocks of 128 x 128 unless the configuration says otherwise:
 *                       [ceil(rows/128), ceil(cols/128)]. In spite of the name it multiplies.
 *
 * A weight without either has scale 1. Scales of activations and of the KV cache stand beside them in such
 * files; they tell how to round what we don't round. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "weights_f8.h"

#define NAME_BYTES 320
#define DEFAULT_BLOCK 128U

static bool ends_with(const char *s, const char *end, size_t *stem)
{
    size_t n = strlen(s), m = strlen(end);
    if (n < m || strcmp(s + n - m, end) != 0)
        return false;
    *stem = n - m;
    return true;
}

const char *foreign_type(const struct tensors *tensors, const char *name)
{
    const char *found, *type;
    for (size_t i = 0; tensors_foreign_at(tensors, i, &found, &type); i++)
        if (strcmp(found, name) == 0)
            return type;
    return NULL;
}

/* The tensor NAME + suffix, if the file has it in a type that scales can have. */
static enum status find_scale(const struct tensors *tensors, const char *name, const char *suffix,
                              const struct tensor **out, struct error *err)
{
    char scale[NAME_BYTES];
    *out = NULL;
    if (snprintf(scale, sizeof scale, "%s%s", name, suffix) >= (int)sizeof scale)
        return STATUS_OK; /* longer than any tensor's name */
    const struct tensor *t = tensors_find(tensors, scale);
    const char *type = t ? dtype_name(t->dtype) : foreign_type(tensors, scale);
    if (type && (!t || !dtype_is_float(t->dtype)))
        return fail(err, STATUS_UNSUPPORTED, "%s: type %s, expected f32, bf16 or f16", scale, type);
    *out = t;
    return STATUS_OK;
}

static uint64_t ceil_div(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}

/* Which values share a scale, from its shape. False: the shape fits nothing. */
static bool fit_shape(struct f8_scales *s, const struct tensor *weight, uint32_t block_rows,
                      uint32_t block_cols)
{
    const struct tensor *t = s->tensor;
    uint64_t rows = weight->shape[0], cols = weight->shape[1];
    if (t->n_values == 1) {
        s->block_rows = rows;
        s->block_cols = cols;
    } else if (t->shape[0] == rows && t->n_values == rows && t->n_dims <= 2) {
        s->block_rows = 1;
        s->block_cols = cols;
    } else if (block_rows && t->n_dims == 2 && t->shape[0] == ceil_div(rows, block_rows) &&
               t->shape[1] == ceil_div(cols, block_cols)) {
        s->block_rows = block_rows;
        s->block_cols = block_cols;
    } else {
        return false;
    }
    s->n_cols = ceil_div(cols, s->block_cols);
    return true;
}

static enum status fail_shape(const struct f8_scales *s, const struct tensor *weight, uint32_t block_rows,
                              uint32_t block_cols, struct error *err)
{
    char blocks[80] = "", found[100] = "";
    unsigned long long rows = weight->shape[0], cols = weight->shape[1];
    size_t at = 0;
    for (uint32_t i = 0; i < s->tensor->n_dims; i++)
        at += (size_t)snprintf(found + at, sizeof found - at, "%s%llu", i ? ", " : "",
                               (unsigned long long)s->tensor->shape[i]);
    if (block_rows)
        snprintf(blocks, sizeof blocks, " or [%llu, %llu] (blocks of %u x %u)",
                 (unsigned long long)ceil_div(rows, block_rows),
                 (unsigned long long)ceil_div(cols, block_cols), block_rows, block_cols);
    return fail(err, STATUS_FORMAT,
                "%s: shape [%s] fits no scales of a weight [%llu, %llu], expected one value, [%llu, 1]%s",
                s->tensor->name, found, rows, cols, rows, blocks);
}

enum status f8_scales_find(struct f8_scales *s, const struct model_config *c, const struct tensors *tensors,
                           const struct tensor *weight, struct error *err)
{
    const struct tensor *plain, *inverse;
    *s = (struct f8_scales){0};
    if (weight->dtype != DTYPE_F8_E4M3)
        return STATUS_OK;
    if (weight->n_dims != 2)
        return fail(err, STATUS_UNSUPPORTED, "%s: type f8_e4m3 with %u dimensions, expected a matrix",
                    weight->name, weight->n_dims);
    enum status status = find_scale(tensors, weight->name, "_scale", &plain, err);
    if (status == STATUS_OK)
        status = find_scale(tensors, weight->name, "_scale_inv", &inverse, err);
    if (status != STATUS_OK)
        return status;
    if (plain && inverse)
        return fail(err, STATUS_FORMAT, "%s: has both %s and %s: which one scales it?", weight->name,
                    plain->name, inverse->name);
    s->tensor = plain ? plain : inverse;
    if (!s->tensor)
        return STATUS_OK;
    uint32_t rows = c->f8_block_rows, cols = c->f8_block_cols;
    if (inverse && !rows)
        rows = cols = DEFAULT_BLOCK;
    return fit_shape(s, weight, rows, cols) ? STATUS_OK : fail_shape(s, weight, rows, cols, err);
}

static enum status check_values(const struct f8_scales *s, struct error *err)
{
    for (uint64_t i = 0; i < s->tensor->n_values; i++)
        if (!isfinite(s->values[i]) || s->values[i] <= 0)
            return fail(err, STATUS_FORMAT, "%s: scale %llu is %g, expected a positive number",
                        s->tensor->name, (unsigned long long)i, (double)s->values[i]);
    return STATUS_OK;
}

enum status f8_scales_read(struct f8_scales *s, const struct tensors *tensors, struct error *err)
{
    const struct tensor *t = s->tensor;
    if (!t)
        return STATUS_OK;
    void *raw = mem_alloc(t->size_bytes);
    s->values = mem_array(t->n_values, sizeof *s->values);
    if (!raw || !s->values) {
        mem_free(raw);
        return fail(err, STATUS_NO_MEMORY, "%s: %llu scales", t->name, (unsigned long long)t->n_values);
    }
    enum status status = tensor_read(tensors, t, 0, t->size_bytes, raw, err);
    if (status == STATUS_OK) {
        dequantize_row(t->dtype, raw, t->n_values, s->values);
        status = check_values(s, err);
    }
    mem_free(raw);
    return status;
}

void f8_scales_fini(struct f8_scales *s)
{
    mem_free(s->values);
    s->values = NULL;
}

static float scale_of(const struct f8_scales *s, uint64_t row, uint64_t col)
{
    return s->values[row / s->block_rows * s->n_cols + col / s->block_cols];
}

void f8_scales_pack(const struct f8_scales *s, uint64_t row, const struct packed *w, uint32_t packed_row,
                    float *scratch)
{
    if (!s->values)
        return;
    for (uint64_t col = 0; col < w->cols; col += F8_SCALE_COLS)
        scratch[col / F8_SCALE_COLS] = scale_of(s, row, col);
    packed_set_scales(w, packed_row, scratch);
}

void f8_scales_multiply(const struct f8_scales *s, uint64_t row, uint32_t cols, float *values)
{
    for (uint32_t col = 0; s->values && col < cols; col++)
        values[col] *= scale_of(s, row, col);
}

static bool is_f8_weight(const struct tensors *tensors, const char *name, size_t stem)
{
    char weight[NAME_BYTES];
    if (stem + sizeof ".weight" > sizeof weight)
        return false;
    snprintf(weight, sizeof weight, "%.*s.weight", (int)stem, name);
    const struct tensor *t = tensors_find(tensors, weight);
    return t && t->dtype == DTYPE_F8_E4M3;
}

/* Some files have no quantization_config (modelopt's first ones have a file of their own instead). */
static bool has_f8(const struct model_config *c, const struct tensors *tensors)
{
    bool found = c->f8;
    for (size_t i = 0; !found && i < tensors_count(tensors); i++)
        found = tensors_at(tensors, i)->dtype == DTYPE_F8_E4M3;
    return found;
}

enum status f8_check_companion(const struct model_config *c, const struct tensors *tensors, const char *name,
                               struct error *err)
{
    static const char *const unused[] = {".output_scale", ".q_scale", ".k_scale", ".v_scale", ".prob_scale"};
    size_t stem;
    for (size_t i = 0; i < sizeof unused / sizeof *unused; i++)
        if (ends_with(name, unused[i], &stem))
            return has_f8(c, tensors) ? STATUS_OK : STATUS_NOT_FOUND;
    bool scales_weight =
        ends_with(name, ".weight_scale", &stem) || ends_with(name, ".weight_scale_inv", &stem);
    if (!scales_weight && !ends_with(name, ".input_scale", &stem))
        return STATUS_NOT_FOUND;
    if (is_f8_weight(tensors, name, stem))
        return STATUS_OK;
    return fail(err, STATUS_UNSUPPORTED,
                "%s: scales a weight, but the file has no %.*s.weight of type F8_E4M3", name, (int)stem,
                name);
}
