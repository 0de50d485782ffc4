/* Values of an adapter's tensors: checked, aligned, turned over, widened. Their bytes are the private copy
 * that the loader made; only what has to change is copied once more. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "content.h"
#include "kernels.h"

/* Infinity and NaN have all of the exponent's bits set: only then does one more at its lowest bit carry into
 * the sign's place, which was masked away. Eight bytes at a time; memcpy: they are aligned to nothing. */
static bool all_finite(enum dtype type, const unsigned char *p, uint64_t n)
{
    uint64_t lanes = type == DTYPE_F32 ? 0x0000000100000001U : 0x0001000100010001U;
    uint64_t mask = lanes * (type == DTYPE_F32 ? 0x7f800000U : type == DTYPE_F16 ? 0x7c00U : 0x7f80U);
    uint64_t lowest = lanes * (type == DTYPE_F32 ? 0x00800000U : type == DTYPE_F16 ? 0x0400U : 0x0080U);
    uint64_t sign = lanes * (type == DTYPE_F32 ? 0x80000000U : 0x8000U);
    uint64_t n_bytes = n * (type == DTYPE_F32 ? 4 : 2), found = 0, word;
    for (; n_bytes >= sizeof word; n_bytes -= sizeof word, p += sizeof word) {
        memcpy(&word, p, sizeof word);
        found |= (word & mask) + lowest;
    }
    word = 0;
    memcpy(&word, p, n_bytes);
    found |= (word & mask) + lowest;
    return (found & sign) == 0;
}

static enum status no_memory(const struct content *c, struct error *err)
{
    return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
}

/* Plain floats of a quantised tensor. */
static enum status widen(struct content *c, const struct tensor *t, const void **data, struct error *err)
{
    float *values = arena_array(c->arena, t->n_values, sizeof *values);
    if (!values)
        return no_memory(c, err);
    dequantize_row(t->dtype, *data, t->n_values, values);
    *data = values;
    return STATUS_OK;
}

static enum status take_values(struct content *c, const struct tensor *t, enum dtype *type, const void **data,
                               struct error *err)
{
    const void *p = tensor_data(c->tensors, t);
    require(p != NULL); /* loaders open with a private copy */
    *type = t->dtype;
    if (dtype_is_quantized(t->dtype)) {
        enum status s = widen(c, t, &p, err);
        if (s != STATUS_OK)
            return s;
        *type = DTYPE_F32;
    } else if (!dtype_is_float(t->dtype)) {
        return fail(err, STATUS_UNSUPPORTED, "%s: tensor '%s' is %s, expected f32, f16 or bf16", c->shown,
                    t->name, dtype_name(t->dtype));
    }
    if (!all_finite(*type, p, t->n_values))
        return fail(err, STATUS_FORMAT, "%s: tensor '%s' has an infinite value or NaN", c->shown, t->name);
    if ((uintptr_t)p % dtype_info(*type)->block_bytes) {
        void *aligned = arena_alloc(c->arena, (size_t)t->size_bytes);
        if (!aligned)
            return no_memory(c, err);
        memcpy(aligned, p, (size_t)t->size_bytes);
        p = aligned;
    }
    *data = p;
    return STATUS_OK;
}

enum status content_matrix(struct content *c, const struct tensor *t, struct matrix *out, struct error *err)
{
    if (t->n_dims < 2 || t->n_dims > 3)
        return fail(err, STATUS_FORMAT, "%s: tensor '%s' has %u dimensions, expected 2", c->shown, t->name,
                    t->n_dims);
    uint64_t cols = t->shape[t->n_dims - 1], rows = cols ? t->n_values / cols : 0;
    if (rows == 0 || cols == 0 || rows > UINT32_MAX || cols > UINT32_MAX)
        return fail(err, STATUS_FORMAT, "%s: tensor '%s': a dimension is zero or too large", c->shown,
                    t->name);
    *out = (struct matrix){.rows = (uint32_t)rows, .cols = (uint32_t)cols};
    return take_values(c, t, &out->type, &out->data, err);
}

enum status content_transpose(struct content *c, struct matrix *m, struct error *err)
{
    size_t bytes = dtype_info(m->type)->block_bytes;
    char *out = arena_array(c->arena, (size_t)m->rows * m->cols, bytes);
    if (!out)
        return no_memory(c, err);
    const char *in = m->data;
    for (size_t r = 0; r < m->rows; r++)
        for (size_t k = 0; k < m->cols; k++)
            memcpy(out + (k * m->rows + r) * bytes, in + (r * m->cols + k) * bytes, bytes);
    *m = (struct matrix){.type = m->type, .data = out, .rows = m->cols, .cols = m->rows};
    return STATUS_OK;
}

enum status content_floats(struct content *c, const struct matrix *m, const float **out, struct error *err)
{
    size_t n = (size_t)m->rows * m->cols;
    *out = m->data;
    if (m->type == DTYPE_F32)
        return STATUS_OK;
    float *values = arena_array(c->arena, n, sizeof *values);
    if (!values)
        return no_memory(c, err);
    dequantize_row(m->type, m->data, n, values);
    *out = values;
    return STATUS_OK;
}

enum status content_vector(struct content *c, const struct tensor *t, uint32_t n, const float **out,
                           struct error *err)
{
    struct matrix m = {.rows = 1};
    *out = NULL;
    if (!t)
        return STATUS_OK;
    /* [1, n] and [n, 1] occur: old DoRA files have them. */
    if (t->n_values == 0 || t->n_values > UINT32_MAX ||
        (t->n_dims != 1 && !(t->n_dims == 2 && (t->shape[0] == 1 || t->shape[1] == 1))))
        return fail(err, STATUS_FORMAT, "%s: tensor '%s' is no vector", c->shown, t->name);
    if (n && t->n_values != n)
        return fail(err, STATUS_MISMATCH,
                    "%s: tensor '%s' has %" PRIu64 " values, its module has %u outputs: it was trained on "
                    "another base",
                    c->shown, t->name, t->n_values, n);
    m.cols = (uint32_t)t->n_values;
    enum status s = take_values(c, t, &m.type, &m.data, err);
    return s == STATUS_OK ? content_floats(c, &m, out, err) : s;
}

enum status content_module(const struct content *c, const struct entry *e, struct model_module *out,
                           struct error *err)
{
    if (model_module_parse(c->model, e->path, out))
        return STATUS_OK;
    return fail(err, STATUS_MISMATCH, "%s: tensor '%s': this base has no module '%s' that can be adapted",
                c->shown, entry_tensor_name(e), e->path);
}

enum status content_check_halves(const struct content *c, const struct entry *e, const struct tensor *a,
                                 const struct tensor *b, struct error *err)
{
    if (!a || !b)
        return fail(err, STATUS_FORMAT, "%s: module '%s' has %s, but the other half is missing", c->shown,
                    e->path, a ? a->name : b->name);
    if (a->n_dims != 2 || b->n_dims != 2)
        return fail(err, STATUS_FORMAT, "%s: tensor '%s' has %u dimensions, expected 2", c->shown,
                    a->n_dims != 2 ? a->name : b->name, a->n_dims != 2 ? a->n_dims : b->n_dims);
    if (b->shape[1] != a->shape[0])
        return fail(err, STATUS_FORMAT,
                    "%s: tensor '%s' is [%" PRIu64 ", %" PRIu64 "], its partner has rank %" PRIu64, c->shown,
                    b->name, b->shape[0], b->shape[1], a->shape[0]);
    return STATUS_OK;
}
