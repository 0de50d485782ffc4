/* DoRA's factors: the trained magnitude of each output row over the norm of W + scale * B A, W as the base
 * stores it (possibly quantised). Liu et al., arXiv 2402.09353, eq. 5; PEFT's dora.py for the scale inside
 * the norm. Slices of rows, so no second copy of W. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "lora_build.h"

#define SLICE_ROWS 64U

/* Scratch of one call. */
struct slices {
    float *w;     /* [SLICE_ROWS, cols] */
    float *left;  /* [SLICE_ROWS, rank] */
    float *right; /* [rank, cols] */
    double *sum;  /* [cols] */
    uint32_t rank, cols;
};

static enum status slices_init(struct slices *s, uint32_t rank, uint32_t cols, struct error *err)
{
    *s = (struct slices){.rank = rank, .cols = cols};
    size_t n;
    if (size_mul(SLICE_ROWS, cols, &n))
        s->w = mem_array(n, sizeof *s->w);
    s->left = mem_array((size_t)SLICE_ROWS * rank, sizeof *s->left);
    if (size_mul(rank, cols, &n))
        s->right = mem_array(n, sizeof *s->right);
    s->sum = mem_array(cols, sizeof *s->sum);
    return s->w && s->left && s->right && s->sum ? STATUS_OK
                                                 : fail(err, STATUS_NO_MEMORY, "slices of %u columns", cols);
}

static void slices_fini(struct slices *s)
{
    mem_free(s->w);
    mem_free(s->left);
    mem_free(s->right);
    mem_free(s->sum);
}

/* s->w = rows [row, row + n) of w + scale * left right */
static void adapted_rows(struct slices *s, const struct packed *w, uint32_t row, uint32_t n, float scale)
{
    for (uint32_t i = 0; i < n; i++)
        packed_row_f32(w, row + i, s->w + (size_t)i * s->cols);
    gemm_add_f32(n, s->cols, s->rank, scale, s->left, s->right, s->w);
}

static enum status factor_of(float magnitude, double squares, uint32_t at, float *factor, struct error *err)
{
    *factor = magnitude / (float)sqrt(squares);
    if (isfinite(*factor))
        return STATUS_OK;
    return fail(err, STATUS_INVALID, "DoRA: magnitude %g over a norm of %g in row %u is no finite number",
                (double)magnitude, sqrt(squares), at);
}

enum status dora_factors(const struct lora_pair *p, const struct packed *w, uint32_t row, uint32_t n_rows,
                         float *factors, struct error *err)
{
    struct slices s;
    enum status status = slices_init(&s, p->rank, p->in, err);
    require(w->rows == n_rows && w->cols == p->in);
    if (status == STATUS_OK)
        dequantize_row(p->a_type, p->a, (uint64_t)p->rank * p->in, s.right);
    for (uint32_t r = 0; r < n_rows && status == STATUS_OK; r += SLICE_ROWS) {
        uint32_t n = n_rows - r < SLICE_ROWS ? n_rows - r : SLICE_ROWS;
        uint64_t at = (uint64_t)(row + r) * p->rank * dtype_info(p->b_type)->block_bytes;
        dequantize_row(p->b_type, (const uint8_t *)p->b + at, (uint64_t)n * p->rank, s.left);
        adapted_rows(&s, w, r, n, p->scale);
        for (uint32_t i = 0; i < n && status == STATUS_OK; i++) {
            double squares = 0;
            for (uint32_t k = 0; k < p->in; k++)
                squares += (double)s.w[(size_t)i * p->in + k] * s.w[(size_t)i * p->in + k];
            status = factor_of(p->magnitude[row + r + i], squares, row + r + i, &factors[r + i], err);
        }
    }
    slices_fini(&s);
    return status;
}

/* [out, rank] to [rank, out] */
static void transpose_b(const struct lora_pair *p, float *row, float *right)
{
    size_t row_bytes = (size_t)p->rank * dtype_info(p->b_type)->block_bytes;
    for (uint32_t r = 0; r < p->out; r++) {
        dequantize_row(p->b_type, (const uint8_t *)p->b + r * row_bytes, p->rank, row);
        for (uint32_t k = 0; k < p->rank; k++)
            right[(size_t)k * p->out + r] = row[k];
    }
}

enum status dora_embedding_factors(const struct lora_pair *p, const struct packed *table, float *factors,
                                   struct error *err)
{
    struct slices s;
    enum status status = slices_init(&s, p->rank, p->out, err);
    require(table->rows == p->in && table->cols == p->out);
    if (status == STATUS_OK)
        transpose_b(p, s.left, s.right);
    for (uint32_t r = 0; r < p->in && status == STATUS_OK; r += SLICE_ROWS) {
        uint32_t n = p->in - r < SLICE_ROWS ? p->in - r : SLICE_ROWS;
        uint64_t at = (uint64_t)r * p->rank * dtype_info(p->a_type)->block_bytes;
        dequantize_row(p->a_type, (const uint8_t *)p->a + at, (uint64_t)n * p->rank, s.left);
        adapted_rows(&s, table, r, n, p->scale);
        for (size_t i = 0; i < (size_t)n * p->out; i++)
            s.sum[i % p->out] += (double)s.w[i] * s.w[i];
    }
    for (uint32_t k = 0; k < p->out && status == STATUS_OK; k++)
        status = factor_of(p->magnitude[k], s.sum[k], k, &factors[k], err);
    slices_fini(&s);
    return status;
}
