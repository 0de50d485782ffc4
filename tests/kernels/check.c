/* Every operation on every instruction set of this machine, against the scalar definition bit by bit, and the
 * definition against plain sums in double. Buffers end (or begin) at pages that must not be touched.
 *
 *   check                   all checks; exit code 1 and one line each if something differs
 *   check --bench [TYPE]    speed of the products: GB/s of packed weights, GMAC/s, share of a loop that only
 *                           multiplies
 *
 * The promise of kernels.h is checked as it is written: same bits alone, in a batch, and for any split of
 * panels. The idea of such a program is dav1d's checkasm. */
#include <math.h>

#include "attention_case.h"
#include "emulated.h"
#include "expand_case.h"
#include "lab.h"
#include "panel.h"
#include "speed.h"
#include "stored_rows.h"

#if __has_include(<cblas.h>)
#include <cblas.h>
#define HAVE_BLAS 1
#endif

/* ---- products ---- */

struct product {
    enum dtype type;
    enum fill fill;
    uint32_t rows, cols, n_x; /* weights, activations */
    uint32_t prefetch_bytes;
    struct packed w;
    struct acts x;
    struct guarded weights, x_mem, block_mem;
    float *plain;  /* [rows, cols] what packed_row_f32 gives */
    double *parts; /* [rows, cols] the size of what is added up for it by int8 products */
};

/* Sizes of what an int8 product adds up for each weight: scale * u and min, which may cancel in w. */
static void product_parts(struct product *p)
{
    const struct panel_layout *l = panel_layout_of(p->type);
    p->parts = malloc((size_t)p->rows * p->cols * sizeof *p->parts);
    require(p->parts);
    for (size_t i = 0; i < (size_t)p->rows * p->cols; i++) {
        uint32_t r = (uint32_t)(i / p->cols), k = (uint32_t)(i % p->cols);
        struct panel_lane v;
        p->parts[i] = fabs((double)p->plain[i]);
        if (!l || l->min_at == 0)
            continue;
        panel_lane_read(l, p->w.data + (size_t)(r / PANEL_ROWS) * p->w.panel_bytes, k / ACT_BLOCK,
                        r % PANEL_ROWS, &v);
        double u = fabs((double)v.scale[k % 32 / 16] * ((double)v.u[k % 32] - l->offset));
        p->parts[i] = u + fabs((double)v.min[k % 32 / 16]);
    }
}

static void product_weights(struct lab *lab, struct product *p)
{
    size_t size;
    uint64_t row_bytes;
    struct error err;
    if (packed_shape(p->type, p->rows, p->cols, &p->w, &size, &err) != STATUS_OK ||
        !dtype_row_bytes(p->type, p->cols, &row_bytes)) {
        printf("packed_shape: %s\n", err.text);
        exit(1);
    }
    p->weights = guarded_create(size, 64, true);
    p->w.data = p->weights.p;
    memset(p->w.data, 0xff, size); /* packing must not rely on zeros */
    float *row = malloc(p->cols * sizeof *row);
    uint8_t *stored = malloc(p->rows * row_bytes);
    p->plain = malloc((size_t)p->rows * p->cols * sizeof *p->plain);
    require(row && stored && p->plain);
    for (uint32_t r = 0; r < p->rows; r++) {
        fill_floats(lab, p->fill, row, p->cols);
        make_stored_row(lab, p->type, row, p->cols, stored + r * row_bytes);
    }
    uint32_t first = p->rows / 32 * 16; /* in two parts */
    packed_fill(&p->w, 0, first, stored);
    packed_fill(&p->w, first, p->rows, stored + first * row_bytes);
    for (uint32_t r = 0; r < p->rows; r++) {
        float *plain = p->plain + (size_t)r * p->cols;
        dequantize_row(p->type, stored + r * row_bytes, p->cols, row);
        if ((p->type == DTYPE_F8_E4M3 || p->type == DTYPE_I8) &&
            r != 1) /* row 1 keeps what packed_fill gives: 1 */
            scale_f8_row(lab, &p->w, r, row);
        packed_row_f32(&p->w, r, plain);
        const char *where[3] = {"-", "pack", dtype_name(p->type)};
        expect_same(lab, plain, row, p->cols, where);
    }
    free(row);
    free(stored);
    product_parts(p);
}

static void product_create(struct lab *lab, struct product *p)
{
    size_t n = (size_t)p->n_x * p->cols, n_blocks = p->n_x * acts_stride(p->cols);
    product_weights(lab, p);
    p->x_mem = guarded_create(n * 4, 4, true);
    p->block_mem = guarded_create(n_blocks * sizeof(struct act_block), 4, true);
    fill_floats(lab, p->fill, p->x_mem.p, n);
    p->x = (struct acts){
        .x = p->x_mem.p, .x_stride = p->cols, .n_rows = p->n_x, .cols = p->cols, .blocks = p->block_mem.p};
    lab->isa[0][0]->quantize_rows(&p->x, 0, p->n_x);
}

static void product_destroy(struct product *p)
{
    struct guarded *all[] = {&p->weights, &p->x_mem, &p->block_mem};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        guarded_destroy(all[i]);
    free(p->plain);
    free(p->parts);
}

/* One product into y (n_x rows of `rows` values, filled with 7 before), in tiles given by the splits. */
static void multiply(const struct kernels *k, struct product *p, float *y, uint32_t row_step,
                     uint32_t panel_step)
{
    struct matmul_args a = {
        .w = &p->w, .x = &p->x, .y = y, .y_stride = p->rows, .prefetch_bytes = p->prefetch_bytes};
    for (size_t i = 0; i < (size_t)p->n_x * p->rows; i++)
        y[i] = 7;
    a.accumulate = row_step % 2 == 0;
    a.scale = -0.75f;
    for (a.row_begin = 0; a.row_begin < p->n_x; a.row_begin = a.row_end) {
        a.row_end = p->n_x - a.row_begin < row_step ? p->n_x : a.row_begin + row_step;
        for (a.panel_begin = 0; a.panel_begin < p->w.n_panels; a.panel_begin = a.panel_end) {
            a.panel_end =
                p->w.n_panels - a.panel_begin < panel_step ? p->w.n_panels : a.panel_begin + panel_step;
            k->matmul[p->type](&a);
        }
    }
}

/* The definition against sums in double, of the numbers that it multiplies. */
static void check_against_double(struct lab *lab, struct product *p, enum act_mode mode, const float *y)
{
    bool int8 = mode == ACT_MODE_INT8 && dtype_is_quantized(p->type);
    lab->n_checks++;
    for (uint32_t row = 0; row < p->n_x; row++) {
        for (uint32_t c = 0; c < p->rows; c++) {
            double sum = 0, size = 0;
            for (uint32_t k = 0; k < p->cols; k++) {
                const struct act_block *block = acts_row(&p->x, row) + k / 32;
                double x =
                    int8 ? (double)block->d * block->q[k % 32] : (double)p->x.x[(size_t)row * p->cols + k];
                size_t at = (size_t)c * p->cols + k;
                sum += (double)p->plain[at] * x;
                size += (int8 ? p->parts[at] : fabs((double)p->plain[at])) * fabs(x);
            }
            double got = (double)y[(size_t)row * p->rows + c];
            if (size < 1e36 && !(fabs(got - sum) <= kernel_tolerance(p->cols, size))) {
                char text[200];
                snprintf(text, sizeof text, "%s %ux%u row %u column %u: %.9g, in double %.9g (sizes %.3g)",
                         fill_names[p->fill], p->rows, p->cols, row, c, got, sum, size);
                wrong(lab, "scalar", dtype_name(p->type), text);
                return;
            }
        }
    }
}

static void check_product(struct lab *lab, struct product *p)
{
    size_t n = (size_t)p->n_x * p->rows;
    struct guarded want = guarded_create(n * 4, 4, true), got = guarded_create(n * 4, 4, p->n_x % 2);
    product_create(lab, p);
    for (unsigned mode = 0; mode < 2; mode++) {
        multiply(lab->isa[mode][0], p, want.p, 1, UINT32_MAX);
        check_against_double(lab, p, (enum act_mode)mode, want.p);
        for (unsigned i = 0; i < lab->n_isas; i++) {
            const struct kernels *k = lab->isa[mode][i];
            /* odd steps overwrite, even ones accumulate: compare each with scalar alone */
            const uint32_t steps[][2] = {{UINT32_MAX, UINT32_MAX}, {1, 1}, {3, 2}, {5, 3}, {7, UINT32_MAX}};
            /* the definition asks for nothing; the last one asks far behind the matrix and its guard page */
            static const uint32_t ahead[] = {8704, 0, 2304, 64, 1U << 24};
            char text[160];
            for (unsigned s = 0; s < 5; s++) {
                snprintf(text, sizeof text, "%s %ux%u, %u rows by %u, panels by %u, %s acts, %u ahead",
                         fill_names[p->fill], p->rows, p->cols, p->n_x, steps[s][0], steps[s][1],
                         mode ? "f32" : "int8", ahead[s]);
                p->prefetch_bytes = i > 0 ? ahead[s] : 0;
                const char *where[3] = {k->isa, dtype_name(p->type), text};
                multiply(k, p, got.p, steps[s][0], steps[s][1]);
                expect_same(lab, got.p, want.p, n, where);
            }
        }
        multiply(lab->isa[mode][0], p, want.p, 2, UINT32_MAX);
        for (unsigned i = 1; i < lab->n_isas; i++) {
            const char *where[3] = {lab->isa[mode][i]->isa, dtype_name(p->type), "accumulate"};
            multiply(lab->isa[mode][i], p, got.p, 4, 3);
            expect_same(lab, got.p, want.p, n, where);
        }
    }
    guarded_destroy(&want);
    guarded_destroy(&got);
    product_destroy(p);
}

static void check_products(struct lab *lab)
{
    static const uint32_t sizes[][3] = {/* rows, blocks, activation rows */
                                        {1, 1, 1},  {16, 1, 17}, {17, 2, 3},
                                        {33, 3, 9}, {80, 5, 17}, {100, 4, 8}};
    for (size_t t = 0; t < N_WEIGHT_TYPES; t++) {
        uint32_t block = dtype_info(weight_types[t])->block_size;
        for (unsigned fill = 0; fill < FILL_COUNT; fill++) {
            for (unsigned s = 0; s < 6; s++) {
                struct product p = {.type = weight_types[t],
                                    .fill = (enum fill)fill,
                                    .rows = sizes[s][0],
                                    .cols = sizes[s][1] * (block == 1    ? 37
                                                           : block == 32 ? block
                                                                         : 256),
                                    .n_x = sizes[s][2]};
                if (block == 256 && s > 3)
                    p.cols = 512;
                if ((p.type == DTYPE_F8_E4M3 || p.type == DTYPE_I8) &&
                    s > 1) /* groups of 128: whole ones, and one cut short */
                    p.cols = s % 2 ? 256 : 300;
                check_product(lab, &p);
            }
        }
    }
}

/* Every batch size from 1 to 17 gives each row what it gets alone. */
static void check_batches(struct lab *lab)
{
    for (size_t t = 0; t < N_WEIGHT_TYPES; t++) {
        for (uint32_t n = 1; n <= 17; n++) {
            struct product p = {.type = weight_types[t], .rows = 70, .cols = 256, .n_x = n};
            float *alone = malloc((size_t)n * 70 * 4), *together = malloc((size_t)n * 70 * 4);
            require(alone && together);
            product_create(lab, &p);
            for (unsigned i = 0; i < 2 * lab->n_isas; i++) {
                const struct kernels *k = lab->isa[i % 2][i / 2];
                const char *where[3] = {k->isa, dtype_name(p.type), "a row in a batch differs from it alone"};
                p.prefetch_bytes = 0;
                multiply(k, &p, alone, 1, UINT32_MAX);
                p.prefetch_bytes = 2304 * (n % 3);
                multiply(k, &p, together, 17, 1 + n % 5);
                expect_same(lab, together, alone, (size_t)n * 70, where);
            }
            free(alone);
            free(together);
            product_destroy(&p);
        }
    }
}

#ifdef HAVE_BLAS

/* The definition against OpenBLAS: two summation orders of the same product. */
static void check_blas(struct lab *lab)
{
    static const uint32_t cols[] = {1, 300, 2048};
    for (unsigned i = 0; i < 3; i++) {
        struct product p = {.type = DTYPE_F32, .rows = 83, .cols = cols[i], .n_x = 9};
        float got[9 * 83], want[9 * 83], size[9 * 83];
        product_create(lab, &p);
        multiply(lab->isa[0][0], &p, got, 1, UINT32_MAX);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, 9, 83, (int)p.cols, 1, p.x.x, (int)p.cols,
                    p.plain, (int)p.cols, 0, want, 83);
        for (size_t j = 0; j < 9UL * p.cols; j++)
            ((float *)p.x_mem.p)[j] = fabsf(p.x.x[j]);
        for (size_t j = 0; j < 83UL * p.cols; j++)
            p.plain[j] = fabsf(p.plain[j]);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, 9, 83, (int)p.cols, 1, p.x.x, (int)p.cols,
                    p.plain, (int)p.cols, 0, size, 83);
        bool fine = true;
        for (size_t j = 0; j < 9UL * 83; j++)
            fine = fine &&
                   fabs((double)got[j] - (double)want[j]) <= 2 * kernel_tolerance(p.cols, (double)size[j]);
        expect(lab, fine, "scalar", "f32", "differs from OpenBLAS by more than rounding");
        product_destroy(&p);
    }
}

#else

static void check_blas(struct lab *lab)
{
    (void)lab;
    printf("skipped: no OpenBLAS for this target\n");
}

#endif

/* ---- rounding of activations ---- */

static bool same_block(const struct act_block *a, const struct act_block *b)
{
    return memcmp(a->q, b->q, sizeof a->q) == 0 && same_bits(a->d, b->d) && same_bits(a->d_sum, b->d_sum) &&
           memcmp(a->half, b->half, sizeof a->half) == 0 && a->sum == b->sum;
}

static void check_quantize_one(struct lab *lab, enum fill fill, uint32_t cols)
{
    uint32_t n_rows = 3;
    size_t stride = acts_stride(cols), n_blocks = (cols + 31) / 32;
    struct guarded x = guarded_create((size_t)n_rows * cols * 4, 4, true), blocks[2];
    float *values = x.p;
    fill_floats(lab, fill, values, (size_t)n_rows * cols);
    for (uint32_t i = 0; i < cols && fill == FILL_RANDOM; i++) /* row 1: exact ties, scale 1 */
        values[cols + i] = i % 32 ? (float)(int)(random_u64(lab) % 254) - 126.5f : 127.0f;
    if (fill == FILL_EXTREMES)
        values[random_u64(lab) % cols] = random_u64(lab) % 2 ? NAN : -INFINITY;
    for (unsigned i = 0; i < 2; i++) {
        blocks[i] = guarded_create(n_rows * stride * sizeof(struct act_block), 4, true);
    }
    for (unsigned isa = 0; isa < lab->n_isas; isa++) {
        struct acts a = {.x = values, .x_stride = cols, .n_rows = n_rows, .cols = cols};
        const char *where[3] = {lab->isa[0][isa]->isa, "quantize_rows", fill_names[fill]};
        unsigned to = isa != 0;
        a.blocks = blocks[to].p;
        lab->isa[0][isa]->quantize_rows(&a, 0, 1);
        lab->isa[0][isa]->quantize_rows(&a, 1, n_rows);
        if (isa == 0)
            continue;
        for (uint32_t row = 0; row < n_rows; row++) {
            const struct act_block *want = (const struct act_block *)blocks[0].p + row * stride;
            for (size_t b = 0; b < n_blocks; b++)
                expect(lab, same_block(&acts_row(&a, row)[b], &want[b]), where[0], where[1],
                       "a block differs from scalar");
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        guarded_destroy(&blocks[i]);
    }
    guarded_destroy(&x);
}

static void check_quantize(struct lab *lab)
{
    static const uint32_t cols[] = {1, 31, 32, 33, 64, 100, 576};
    for (unsigned fill = 0; fill < FILL_COUNT; fill++) {
        for (unsigned i = 0; i < 7; i++)
            check_quantize_one(lab, (enum fill)fill, cols[i]);
    }
}

/* ---- vectors ---- */

enum vector_op {
    OP_NORM,
    OP_LAYER_NORM,
    OP_ROPE,
    OP_SILU,
    OP_SILU_ALONE,
    OP_GELU,
    OP_GELU_ALONE,
    OP_GELU_ERF,
    OP_RELU,
    OP_SOFTMAX,
    OP_ADD,
    OP_SCALE,
    OP_F16,
    OP_COUNT
};
static const char *const op_names[OP_COUNT] = {
    "rms_norm", "layer_norm", "rope",    "silu_mul", "silu",  "gelu_tanh_mul", "gelu_tanh",
    "gelu_mul", "relu_mul",   "softmax", "add",      "scale", "to_f16"};

static void run_vector(const struct kernels *k, enum vector_op op, const float *a, const float *b, uint32_t n,
                       float *y)
{
    switch (op) {
    case OP_NORM:
        k->rms_norm(a, b, 1.0f, 1e-6f, n, y);
        break;
    case OP_LAYER_NORM:
        k->layer_norm(a, b, a, 1e-6f, n, y);
        break;
    case OP_SILU_ALONE:
        k->silu_mul(a, NULL, n, y);
        break;
    case OP_GELU_ALONE:
        k->gelu_tanh_mul(a, NULL, n, y);
        break;
    case OP_GELU_ERF:
        k->gelu_mul(a, b, n, y);
        break;
    case OP_RELU:
        k->relu_mul(a, b, n, y);
        break;
    case OP_SOFTMAX:
        memcpy(y, a, n * sizeof *y);
        k->softmax(y, n);
        break;
    case OP_ROPE:
        memcpy(y, a, n * sizeof *y);
        k->rope(y, 1, n, n / 2 * 2, b, b + n / 2);
        break;
    case OP_SILU:
        k->silu_mul(a, b, n, y);
        break;
    case OP_GELU:
        k->gelu_tanh_mul(a, b, n, y);
        break;
    case OP_ADD:
        k->add(a, b, n, y);
        break;
    case OP_SCALE:
        k->scale(a, 0.3f, n, y);
        break;
    default:
        memset(y, 0, n * sizeof *y);
        k->to_f16(a, n, (uint16_t *)y + n); /* its end is the buffer's */
    }
}

/* What value i should be, in double, and how far off is fine. */
static double vector_reference(enum vector_op op, const float *a, const float *b, uint32_t n, uint32_t i)
{
    double x = a[i], squares = 0, mean = 0, max = a[0],
           u = 0.79788456080286535588 * (x + 0.044715 * x * x * x);
    switch (op) {
    case OP_NORM:
        for (uint32_t j = 0; j < n; j++)
            squares += (double)a[j] * (double)a[j];
        return x / sqrt(squares / n + 1e-6) * ((double)b[i] + 1);
    case OP_LAYER_NORM:
        for (uint32_t j = 0; j < n; j++)
            mean += (double)a[j] / n;
        for (uint32_t j = 0; j < n; j++)
            squares += ((double)a[j] - mean) * ((double)a[j] - mean);
        return (x - mean) / sqrt(squares / n + 1e-6) * (double)b[i] + x;
    case OP_SILU_ALONE:
        return x / (1 + exp(-x));
    case OP_GELU_ALONE:
        return 0.5 * x * (1 + tanh(u));
    case OP_GELU_ERF:
        return 0.5 * x * (1 + erf(x * 0.70710678118654752440)) * (double)b[i];
    case OP_RELU:
        return x > 0 ? x * (double)b[i] : 0;
    case OP_SOFTMAX:
        for (uint32_t j = 0; j < n; j++)
            max = fmax(max, (double)a[j]);
        for (uint32_t j = 0; j < n; j++)
            squares += exp((double)a[j] - max);
        return exp(x - max) / squares;
    case OP_ROPE:
        if (i >= n / 2 * 2)
            return x;
        return i < n / 2 ? x * (double)b[i] - (double)a[i + n / 2] * (double)b[i + n / 2]
                         : x * (double)b[i - n / 2] + (double)a[i - n / 2] * (double)b[i];
    case OP_SILU:
        return x / (1 + exp(-x)) * (double)b[i];
    case OP_GELU:
        return 0.5 * x * (1 + tanh(u)) * (double)b[i];
    case OP_ADD:
        return x + (double)b[i];
    case OP_SCALE:
        return x * (double)0.3f;
    default:
        return 0;
    }
}

static void check_vector_one(struct lab *lab, enum vector_op op, enum fill fill, uint32_t n)
{
    struct guarded a = guarded_create(n * 4UL, 4, true), b = guarded_create(n * 4UL, 4, true);
    struct guarded want = guarded_create(n * 4UL, 4, true), got = guarded_create(n * 4UL, 4, true);
    const float *x = a.p, *z = b.p, *y = want.p;
    fill_floats(lab, fill, a.p, n);
    fill_floats(lab, fill, b.p, n);
    for (uint32_t i = 0; i < n && fill == FILL_RANDOM && op >= OP_SILU && op <= OP_SOFTMAX; i++)
        ((float *)a.p)[i] *= i % 3 ? 8.0f : 100.0f;
    run_vector(lab->isa[0][0], op, x, z, n, want.p);
    for (uint32_t i = 0; i < n && fill == FILL_RANDOM && op != OP_F16; i++) {
        double reference = vector_reference(op, x, z, n, i), off = fabs((double)y[i] - reference);
        char text[120];
        snprintf(text, sizeof text, "value %u of %u: %.9g, in double %.9g", i, n, (double)y[i], reference);
        expect(lab, off <= 2e-6 * fabs(reference) + 2e-7, "scalar", op_names[op], text);
    }
    for (unsigned i = 1; i < lab->n_isas; i++) {
        const char *where[3] = {lab->isa[0][i]->isa, op_names[op], fill_names[fill]};
        run_vector(lab->isa[0][i], op, x, z, n, got.p);
        if (op == OP_F16)
            expect(lab, memcmp(want.p, got.p, n * 4UL) == 0, where[0], where[1], where[2]);
        else
            expect_same(lab, got.p, want.p, n, where);
    }
    guarded_destroy(&a);
    guarded_destroy(&b);
    guarded_destroy(&want);
    guarded_destroy(&got);
}

static void check_argmax(struct lab *lab)
{
    static const uint32_t sizes[] = {1, 15, 16, 17, 40, 1000};
    for (unsigned s = 0; s < 6 * 8; s++) {
        uint32_t n = sizes[s % 6];
        struct guarded mem = guarded_create(n * 4UL, 4, true);
        float *x = mem.p;
        for (uint32_t i = 0; i < n; i++) /* few values: many equals */
            x[i] = s / 6 == 0 ? NAN : s / 6 == 1 ? -INFINITY : (float)(int)(random_u64(lab) % 7);
        for (uint32_t i = 0; i < n && s / 6 > 2; i += 3)
            x[i] = s / 6 == 3 ? NAN : x[i] - 3;
        for (unsigned i = 1; i < lab->n_isas; i++)
            expect(lab, lab->isa[0][0]->argmax(x, n) == lab->isa[0][i]->argmax(x, n), lab->isa[0][i]->isa,
                   "argmax", "another index than scalar");
        guarded_destroy(&mem);
    }
}

/* As if the others were -INFINITY. */
static void check_masked_sum(struct lab *lab, const float *x, uint32_t n)
{
    uint64_t mask[16], all[16];
    double reference = 0;
    float without[1024];
    bool has_nan = false;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t bit = i % 40 < 20 ? random_u64(lab) & 1 : i % 40 < 30;
        mask[i / 64] = (i % 64 ? mask[i / 64] : 0) | bit << i % 64;
        without[i] = bit ? x[i] : -INFINITY;
        has_nan = has_nan || without[i] != without[i];
        reference += exp(((double)without[i] - 10) * 0.7);
        all[i / 64] = (i % 64 ? all[i / 64] : 0) | (uint64_t)1 << i % 64;
    }
    for (unsigned i = 0; i < lab->n_isas; i++) {
        double sum = lab->isa[0][i]->sum_exp_masked(x, mask, 10.0f, 0.7f, n);
        double want = lab->isa[0][0]->sum_exp_masked(without, all, 10.0f, 0.7f, n);
        expect(lab, has_nan ? sum != sum : sum == want, lab->isa[0][i]->isa, "sum_exp_masked",
               "another sum than without the others");
        expect(lab, has_nan || fabs(sum - reference) <= 2e-6 * reference, lab->isa[0][i]->isa,
               "sum_exp_masked", "not the sum in double");
    }
}

/* Whether a sum of rounded exps is that of x less p, times 0.7: NaN where one of these is, exactly 0 where
 * all are -INFINITY. What small values add to a peak's own 1 counts as much as they do. */
static bool is_peak_sum(const float *x, uint32_t n, float p, double sum)
{
    double reference = 0;
    for (uint32_t i = 0; i < n; i++)
        reference += exp(((double)x[i] - (double)p) * 0.7);
    if (p == -INFINITY)
        return sum == 0;
    return reference != reference
               ? sum != sum
               : fabs(sum - reference) <= 1e-6 * fmin(reference, fabs(reference - 1) + 1e-7);
}

static void check_peak_sums(struct lab *lab, const float *x, const float *peaks, uint32_t n)
{
    double want[8], got[8];
    lab->isa[0][0]->peak_sums(x, peaks, 0.7f, n, want);
    for (uint32_t i = 0; i < n_peaks_of(n); i++)
        expect(lab,
               is_peak_sum(x + (size_t)i * PEAK_VALUES,
                           n - i * PEAK_VALUES < PEAK_VALUES ? n % PEAK_VALUES : PEAK_VALUES, peaks[i],
                           want[i]),
               "scalar", "peak_sums", "not the sum in double");
    for (unsigned k = 1; k < lab->n_isas; k++) {
        lab->isa[0][k]->peak_sums(x, peaks, 0.7f, n, got);
        for (uint32_t i = 0; i < n_peaks_of(n); i++)
            expect(lab, want[i] != want[i] ? got[i] != got[i] : got[i] == want[i], lab->isa[0][k]->isa,
                   "peak_sums", "another sum than scalar");
    }
}

/* With NaN, infinities and lengths around whole peaks. */
static void check_peaks(struct lab *lab)
{
    static const uint32_t sizes[] = {1, 17, 255, 256, 257, 1000};
    float want[8], got[8];
    for (unsigned s = 0; s < 6 * 4; s++) {
        uint32_t n = sizes[s % 6];
        struct guarded mem = guarded_create(n * 4UL, 4, true);
        float *x = mem.p;
        for (uint32_t i = 0; i < n; i++)
            x[i] = (float)(random_u64(lab) % 4000) / 100.0f - 30.0f;
        for (uint32_t i = 0; i < n && s / 6 > 1; i += 5)
            x[i] = s / 6 == 2 ? -INFINITY : NAN;
        lab->isa[0][0]->peaks(x, n, want);
        check_peak_sums(lab, x, want, n);
        for (unsigned i = 1; i < lab->n_isas; i++) {
            lab->isa[0][i]->peaks(x, n, got);
            expect(lab, memcmp(got, want, n_peaks_of(n) * sizeof *got) == 0, lab->isa[0][i]->isa, "peaks",
                   "others than scalar");
        }
        check_masked_sum(lab, x, n);
        guarded_destroy(&mem);
    }
}

static void check_vectors(struct lab *lab)
{
    static const uint32_t sizes[] = {1, 7, 15, 16, 17, 32, 33, 64, 100, 641};
    for (unsigned op = 0; op < OP_COUNT; op++) {
        for (unsigned fill = 0; fill < FILL_COUNT; fill++) {
            for (unsigned s = 0; s < 10; s++)
                check_vector_one(lab, (enum vector_op)op, (enum fill)fill, sizes[s]);
        }
    }
    check_argmax(lab);
    check_peaks(lab);
}

/* ---- speed ---- */

#define PREFETCH_BYTES 8704 /* what most models use */

static double time_of(const struct kernels *k, struct product *p, float *y)
{
    struct matmul_args a = {.w = &p->w,
                            .x = &p->x,
                            .row_end = p->n_x,
                            .panel_end = p->w.n_panels,
                            .y = y,
                            .y_stride = p->rows,
                            .prefetch_bytes = PREFETCH_BYTES};
    double best = 1e9, began = seconds();
    for (unsigned i = 0; i < 50 && (i < 1 || seconds() - began < 0.1); i++) {
        double start = seconds();
        k->matmul[p->type](&a);
        best = fmin(best, seconds() - start);
    }
    return best;
}

static void bench_product(struct lab *lab, struct product *p, float *y)
{
    for (unsigned i = 0; i < 2 * lab->n_isas; i++) {
        const struct kernels *k = lab->isa[i % 2][i / 2];
        if (i / 2 == 0 && lab->n_isas > 1) /* the definition would take minutes */
            continue;
        double best = peak(), s = time_of(k, p, y), bytes = (double)p->w.panel_bytes * p->w.n_panels;
        double macs = (double)p->rows * p->cols * p->n_x / s;
        printf("%-6s %-5s %-7s %5u %8.1f %9.2f %9.0f\n", dtype_name(p->type), i % 2 ? "f32" : "int8", k->isa,
               p->n_x, bytes / s * 1e-9, macs * 1e-9, best > 0 ? 100 * macs / best : 0);
    }
    fflush(stdout);
}

/* Few rows meet copies of the matrix that no cache holds, so that they show the memory's speed. */
static void bench(struct lab *lab, const char *only)
{
    static const uint32_t batches[] = {1, 2, 4, 8, 16, 64, 256};
    printf("%-6s %-5s %-7s %5s %8s %9s %9s\n", "type", "acts", "isa", "rows", "GB/s", "GMAC/s", "% of peak");
    for (size_t t = 0; t < N_WEIGHT_TYPES; t++) {
        for (unsigned b = 0; b < 7 && (!only || strcmp(only, dtype_name(weight_types[t])) == 0); b++) {
            struct product p = {.type = weight_types[t], .rows = 2048, .cols = 2048, .n_x = batches[b]};
            product_create(lab, &p);
            size_t bytes = p.w.panel_bytes * p.w.n_panels,
                   copies = p.n_x <= 16 ? (256U << 20) / bytes + 1 : 1;
            uint8_t *cold = aligned_alloc(64, copies * bytes);
            float *y = malloc((size_t)p.n_x * p.rows * copies * sizeof *y);
            require(cold && y);
            for (size_t c = 0; c < copies; c++)
                memcpy(cold + c * bytes, p.w.data, bytes);
            p.rows = p.w.rows = (uint32_t)(p.rows * copies);
            p.w.n_panels = p.rows / PANEL_ROWS;
            p.w.data = cold;
            bench_product(lab, &p, y);
            product_destroy(&p);
            free(cold);
            free(y);
        }
    }
}

/* The products of AVX-VNNI join where only AVX2 is here. */
static void join_emulated(struct lab *lab, struct kernels *copy)
{
#if defined(__x86_64__)
    const struct kernels *k;
    if (kernels_select("avxvnni", ACT_MODE_INT8, &k, NULL) == STATUS_OK ||
        kernels_select("avx2", ACT_MODE_INT8, &k, NULL) != STATUS_OK)
        return;
    *copy = *k;
    emulate_avxvnni(copy);
    printf("%s: its products are checked\n", copy->isa);
    lab->isa[ACT_MODE_INT8][lab->n_isas] = copy;
    if (kernels_select("avx2", ACT_MODE_F32, &lab->isa[ACT_MODE_F32][lab->n_isas], NULL) == STATUS_OK)
        lab->n_isas++;
#else
    (void)lab, (void)copy;
#endif
}

int main(int argc, char **argv)
{
    static const char *const names[MAX_ISAS] = {"scalar", "avx2", "avxvnni", "avx512", "neon"};
    struct lab lab = {.random = 20240611};
    for (unsigned i = 0; i < MAX_ISAS; i++) {
        struct error err;
        if (kernels_select(names[i], ACT_MODE_INT8, &lab.isa[ACT_MODE_INT8][lab.n_isas], &err) != STATUS_OK ||
            kernels_select(names[i], ACT_MODE_F32, &lab.isa[ACT_MODE_F32][lab.n_isas], &err) != STATUS_OK) {
            printf("not here: %s\n", err.text);
            continue;
        }
        lab.n_isas++;
    }
    if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
        bench(&lab, argc > 2 ? argv[2] : NULL);
        return 0;
    }
    check_vectors(&lab);
    check_expand(&lab);
    check_quantize(&lab);
    check_attention(&lab);
    struct kernels emulated;
    join_emulated(&lab, &emulated);
    check_products(&lab);
    check_batches(&lab);
    check_blas(&lab);
    printf("%u passed, %u failed, 0 skipped\n", lab.n_checks - lab.n_wrong, lab.n_wrong);
    return lab.n_wrong != 0;
}
