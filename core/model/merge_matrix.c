/* The arithmetic of merging, in slices of 64 rows: dequantise, add the low-rank products with OpenBLAS,
 * store. A slice begins at a multiple of 64 whatever the number of workers, so the result doesn't depend on
 * it. */
#include "merge.h"

#include <string.h>

#include "base/mem.h"

#define SLICE_ROWS 64U

/* One worker's memory. */
struct slice {
    float *base, *w, *left, *row; /* [SLICE_ROWS, cols], the same, [SLICE_ROWS, rank], [cols] */
    uint8_t *stored;              /* [SLICE_ROWS] rows of at most 4 bytes a value */
};

static unsigned n_workers_of(const struct merge_scratch *s)
{
    return s->team ? team_size(s->team) : 1;
}

enum status merge_scratch_init(struct merge_scratch *s, struct error *err)
{
    size_t cols = s->cols_max, rank = s->rank_max, right, slices;
    bool fits = size_mul(SLICE_ROWS * (3 * cols + rank) + cols, sizeof(float), &s->slice_bytes) &&
                size_mul(rank, cols, &right) && size_mul(n_workers_of(s), s->slice_bytes, &slices);
    if (fits) {
        s->right = mem_array(right, sizeof *s->right);
        s->row_factor = mem_array(s->rows_max, sizeof *s->row_factor);
        s->col_factor = mem_array(cols, sizeof *s->col_factor);
        s->slices = mem_alloc(slices);
        s->squares = mem_array(n_workers_of(s), 2 * sizeof *s->squares);
    }
    if (s->right && s->row_factor && s->col_factor && s->slices && s->squares)
        return STATUS_OK;
    return fail(err, STATUS_NO_MEMORY, "slices of %u columns for merging", s->cols_max);
}

void merge_scratch_fini(struct merge_scratch *s)
{
    mem_free(s->right);
    mem_free(s->row_factor);
    mem_free(s->col_factor);
    mem_free(s->slices);
    mem_free(s->squares);
}

struct run {
    const struct merge_matrix *m;
    const struct merge_scratch *s;
};

static struct slice slice_of(const struct merge_scratch *s, unsigned worker)
{
    size_t n = (size_t)SLICE_ROWS * s->cols_max;
    float *at = (float *)(void *)(s->slices + worker * s->slice_bytes);
    return (struct slice){.base = at,
                          .w = at + n,
                          .stored = (uint8_t *)(at + 2 * n),
                          .left = at + 3 * n,
                          .row = at + 3 * n + (size_t)SLICE_ROWS * s->rank_max};
}

/* The first of the token rows, which ascend, that is not before `row`. */
static uint32_t token_row_from(const struct lora_rows *e, uint32_t row)
{
    uint32_t low = 0, high = e->n;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if ((uint32_t)e->ids[mid] < row)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static void read_rows(const struct merge_matrix *m, uint32_t begin, uint32_t n, float *dst)
{
    const struct lora_rows *e = m->token_rows;
    for (uint32_t i = 0; i < n; i++)
        packed_row_f32(m->from, begin + i, dst + (size_t)i * m->from->cols);
    for (uint32_t i = e ? token_row_from(e, begin) : 0; e && i < e->n; i++) {
        uint32_t row = (uint32_t)e->ids[i];
        if (row >= begin + n)
            break;
        packed_row_f32(&e->w, i, dst + (size_t)(row - begin) * m->from->cols);
    }
}

static void multiply(const struct merge_matrix *m, uint32_t begin, uint32_t n, float *w)
{
    uint32_t cols = m->from->cols;
    for (uint32_t i = 0; m->row_factor && i < n; i++)
        for (uint32_t k = 0; k < cols; k++)
            w[(size_t)i * cols + k] *= m->row_factor[begin + i];
    for (uint32_t i = 0; m->col_factor && i < n; i++)
        for (uint32_t k = 0; k < cols; k++)
            w[(size_t)i * cols + k] *= m->col_factor[k];
}

static void add_deltas(const struct merge_matrix *m, uint32_t begin, uint32_t n, const struct slice *s)
{
    for (uint32_t d = 0; d < m->n_deltas; d++) {
        const struct merge_delta *delta = &m->deltas[d];
        for (uint32_t i = 0; i < n; i++)
            packed_row_f32(delta->left, begin + i, s->left + (size_t)i * delta->rank);
        gemm_add_f32(n, m->from->cols, delta->rank, delta->scale, s->left, delta->right, s->w);
    }
}

/* Stores the slice, and adds up what it changed and what rounding took. */
static void store_rows(const struct merge_matrix *m, uint32_t begin, uint32_t n, const struct slice *s,
                       double squares[2])
{
    uint32_t cols = m->to->cols;
    uint64_t row_bytes = 0;
    require(dtype_row_bytes(m->to->type, cols, &row_bytes));
    for (uint32_t i = 0; i < n; i++) {
        const float *w = s->w + (size_t)i * cols, *base = s->base + (size_t)i * cols;
        uint8_t *stored = s->stored + i * row_bytes;
        require(quantize_row(m->to->type, w, cols, stored));
        dequantize_row(m->to->type, stored, cols, s->row);
        for (uint32_t k = 0; k < cols; k++) {
            double delta = (double)w[k] - base[k], error = (double)s->row[k] - w[k];
            squares[0] += delta * delta;
            squares[1] += error * error;
        }
    }
    packed_fill(m->to, begin, begin + n, s->stored);
}

static void run_task(void *arg, unsigned worker, unsigned n_workers)
{
    const struct run *r = arg;
    const struct merge_matrix *m = r->m;
    struct slice s = slice_of(r->s, worker);
    uint64_t begin, end;
    team_share(m->from->rows, SLICE_ROWS, worker, n_workers, &begin, &end);
    for (uint64_t row = begin; row < end; row += SLICE_ROWS) {
        uint32_t n = end - row < SLICE_ROWS ? (uint32_t)(end - row) : SLICE_ROWS;
        read_rows(m, (uint32_t)row, n, s.base);
        memcpy(s.w, s.base, (size_t)n * m->from->cols * sizeof *s.w);
        multiply(m, (uint32_t)row, n, s.w);
        add_deltas(m, (uint32_t)row, n, &s);
        store_rows(m, (uint32_t)row, n, &s, r->s->squares + (size_t)2 * worker);
    }
}

void merge_matrix_run(const struct merge_matrix *m, const struct merge_scratch *s, double squares[2])
{
    struct run r = {m, s};
    require(m->from->rows == m->to->rows && m->from->cols == m->to->cols && m->from->cols <= s->cols_max);
    memset(s->squares, 0, n_workers_of(s) * 2 * sizeof *s->squares);
    if (s->team)
        team_run(s->team, run_task, &r);
    else
        run_task(&r, 0, 1);
    for (unsigned i = 0; i < n_workers_of(s); i++) {
        squares[0] += s->squares[2 * i];
        squares[1] += s->squares[2 * i + 1];
    }
}
