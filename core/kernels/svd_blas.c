/* Singular values of low-rank products; see linalg.h. The only file that knows LAPACK's names: OpenBLAS has
 * its routines inside, but no header of Debian's libopenblas-dev declares them, so that is done here.
 * Matrices are LAPACK's, column by column; a row-major [n, rows] array is the same memory. No state. */
#include <cblas.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "linalg.h"

/* Fortran: everything by reference; a character argument's length comes last. */
void dgeqrf_(const int *m, const int *n, double *a, const int *lda, double *tau, double *work,
             const int *lwork, int *info);
void dorgqr_(const int *m, const int *n, const int *k, double *a, const int *lda, const double *tau,
             double *work, const int *lwork, int *info);
void dgesdd_(const char *jobz, const int *m, const int *n, double *a, const int *lda, double *s, double *u,
             const int *ldu, double *vt, const int *ldvt, double *work, const int *lwork, int *iwork,
             int *info, size_t jobz_length);

/* A tall matrix on its way to Q R. */
struct factor {
    int rows, k, n; /* n: min(rows, k) */
    double *q;      /* [k, rows] the matrix; then its first n columns are Q */
    double *r;      /* [k, n] column by column, zeros below the diagonal */
};

static enum status no_memory(struct error *err)
{
    return fail(err, STATUS_NO_MEMORY, "no memory for a decomposition");
}

static enum status lapack_failed(const char *routine, int info, struct error *err)
{
    return fail(err, STATUS_INTERNAL, "LAPACK's %s failed (info %d)", routine, info);
}

static void factor_fini(struct factor *f)
{
    mem_free(f->q);
    mem_free(f->r);
}

static enum status factor_init(struct factor *f, uint32_t rows, uint32_t k, struct error *err)
{
    require(rows > 0 && k > 0 && rows <= INT32_MAX && k <= INT32_MAX);
    *f = (struct factor){.rows = (int)rows, .k = (int)k, .n = (int)(rows < k ? rows : k)};
    size_t n;
    if (size_mul(rows, k, &n))
        f->q = mem_array(n, sizeof *f->q);
    if (size_mul((size_t)f->n, k, &n))
        f->r = mem_array(n, sizeof *f->r);
    return f->q && f->r ? STATUS_OK : no_memory(err);
}

/* A's rows as columns of A^T, from column `at` on. */
static void put_a(struct factor *f, uint32_t at, const struct low_rank *x)
{
    size_t n = (size_t)x->rank * x->in;
    double *to = f->q + (size_t)at * x->in;
    for (size_t i = 0; i < n; i++)
        to[i] = x->a[i];
}

static void put_b(struct factor *f, uint32_t at, const struct low_rank *x, double scale)
{
    double *to = f->q + (size_t)at * x->out;
    for (size_t i = 0; i < x->out; i++)
        for (size_t k = 0; k < x->rank; k++)
            to[k * x->out + i] = scale * x->b[i * x->rank + k];
}

/* One of the two routines of a QR decomposition, with the workspace that it asks for. tau: [n]. */
static enum status run_qr(struct factor *f, double *tau, bool to_q, struct error *err)
{
    double wanted = 0, *work = &wanted;
    int lwork = -1, info = 0;
    for (int pass = 0; pass < 2 && info == 0; pass++) {
        if (to_q)
            dorgqr_(&f->rows, &f->n, &f->n, f->q, &f->rows, tau, work, &lwork, &info);
        else
            dgeqrf_(&f->rows, &f->k, f->q, &f->rows, tau, work, &lwork, &info);
        if (pass == 1 || info != 0)
            break;
        lwork = wanted >= 1 && wanted < INT32_MAX ? (int)wanted : f->k;
        work = mem_array((size_t)lwork, sizeof *work);
        if (!work)
            return no_memory(err);
    }
    if (work != &wanted)
        mem_free(work);
    return info == 0 ? STATUS_OK : lapack_failed(to_q ? "dorgqr" : "dgeqrf", info, err);
}

/* q becomes Q if that is wanted, else garbage. */
static enum status factorise(struct factor *f, bool wants_q, struct error *err)
{
    double *tau = mem_array((size_t)f->n, sizeof *tau);
    if (!tau)
        return no_memory(err);
    enum status s = run_qr(f, tau, false, err);
    for (int c = 0; c < f->k && s == STATUS_OK; c++)
        memcpy(f->r + (size_t)c * f->n, f->q + (size_t)c * f->rows,
               (size_t)(c < f->n ? c + 1 : f->n) * sizeof *f->r);
    if (s == STATUS_OK && wants_q)
        s = run_qr(f, tau, true, err);
    mem_free(tau);
    return s;
}

/* R_b R_a^T: [nb, na] column by column. */
static double *middle_of(const struct factor *b, const struct factor *a)
{
    double *middle = mem_array((size_t)b->n * (size_t)a->n, sizeof *middle);
    if (middle)
        cblas_dgemm(CblasColMajor, CblasNoTrans, CblasTrans, b->n, a->n, a->k, 1, b->r, b->n, a->r, a->n, 0,
                    middle, b->n);
    return middle;
}

static enum status factors_of(const struct low_rank *x, const struct low_rank *y, struct factor *b,
                              struct factor *a, struct error *err)
{
    uint32_t k = x->rank;
    *a = *b = (struct factor){0};
    if (openblas_get_num_threads() != 1) /* as in gemm_blas.c: our threads are the callers' */
        openblas_set_num_threads(1);
    require(!y || (y->out == x->out && y->in == x->in));
    if (y && __builtin_add_overflow(k, y->rank, &k))
        return no_memory(err);
    enum status s = factor_init(b, x->out, k, err);
    if (s == STATUS_OK)
        s = factor_init(a, x->in, k, err);
    if (s != STATUS_OK)
        return s;
    put_a(a, 0, x);
    put_b(b, 0, x, x->scale);
    if (y) {
        put_a(a, x->rank, y);
        put_b(b, x->rank, y, -y->scale);
    }
    return STATUS_OK;
}

/* ---- the decomposition of the middle ---- */

struct middle_svd {
    int m, n, least; /* the middle is [m, n] */
    double *u, *vt;  /* [m, least], [least, n] column by column; NULL: not wanted */
    int *iwork;
};

static enum status run_svd(const struct middle_svd *s, double *middle, double *sigma, struct error *err)
{
    double wanted = 0, *work = &wanted, none = 0;
    int lwork = -1, info = 0, one = 1;
    const char *job = s->u ? "S" : "N";
    for (int pass = 0; pass < 2 && info == 0; pass++) {
        dgesdd_(job, &s->m, &s->n, middle, &s->m, sigma, s->u ? s->u : &none, s->u ? &s->m : &one,
                s->vt ? s->vt : &none, s->vt ? &s->least : &one, work, &lwork, s->iwork, &info, 1);
        if (pass == 1 || info != 0)
            break;
        lwork = wanted >= 1 && wanted < INT32_MAX ? (int)wanted : 1;
        work = mem_array((size_t)lwork, sizeof *work);
        if (!work)
            return no_memory(err);
    }
    if (work != &wanted)
        mem_free(work);
    return info == 0 ? STATUS_OK : lapack_failed("dgesdd", info, err);
}

/* u [n, out] = Q_b U, v [n, in] = Q_a V, row by row. */
static enum status take_vectors(const struct factor *b, const struct factor *a, const struct middle_svd *m,
                                struct low_rank_svd *out, struct error *err)
{
    int n = m->least;
    out->u = mem_array((size_t)n * (size_t)b->rows, sizeof *out->u);
    out->v = mem_array((size_t)n * (size_t)a->rows, sizeof *out->v);
    if (!out->u || !out->v)
        return no_memory(err);
    cblas_dgemm(CblasColMajor, CblasNoTrans, CblasNoTrans, b->rows, n, b->n, 1, b->q, b->rows, m->u, m->m, 0,
                out->u, b->rows);
    cblas_dgemm(CblasColMajor, CblasNoTrans, CblasTrans, a->rows, n, a->n, 1, a->q, a->rows, m->vt, n, 0,
                out->v, a->rows);
    return STATUS_OK;
}

static enum status decompose(const struct factor *b, const struct factor *a, bool vectors,
                             struct low_rank_svd *out, struct error *err)
{
    struct middle_svd m = {.m = b->n, .n = a->n, .least = b->n < a->n ? b->n : a->n};
    size_t least = (size_t)m.least;
    double *middle = middle_of(b, a);
    out->n = (uint32_t)m.least;
    out->sigma = mem_array(least, sizeof *out->sigma);
    m.iwork = mem_array(8 * least, sizeof *m.iwork);
    if (vectors) {
        m.u = mem_array((size_t)m.m * least, sizeof *m.u);
        m.vt = mem_array(least * (size_t)m.n, sizeof *m.vt);
    }
    enum status s = STATUS_OK;
    if (!middle || !out->sigma || !m.iwork || (vectors && (!m.u || !m.vt)))
        s = no_memory(err);
    if (s == STATUS_OK)
        s = run_svd(&m, middle, out->sigma, err);
    if (s == STATUS_OK && vectors)
        s = take_vectors(b, a, &m, out, err);
    mem_free(middle);
    mem_free(m.iwork);
    mem_free(m.u);
    mem_free(m.vt);
    return s;
}

enum status low_rank_svd(const struct low_rank *x, bool vectors, struct low_rank_svd *out, struct error *err)
{
    struct factor b, a;
    *out = (struct low_rank_svd){0};
    enum status s = factors_of(x, NULL, &b, &a, err);
    if (s == STATUS_OK)
        s = factorise(&b, vectors, err);
    if (s == STATUS_OK)
        s = factorise(&a, vectors, err);
    if (s == STATUS_OK)
        s = decompose(&b, &a, vectors, out, err);
    factor_fini(&b);
    factor_fini(&a);
    if (s != STATUS_OK)
        low_rank_svd_fini(out);
    return s;
}

void low_rank_svd_fini(struct low_rank_svd *s)
{
    mem_free(s->sigma);
    mem_free(s->u);
    mem_free(s->v);
    *s = (struct low_rank_svd){0};
}

enum status low_rank_distance(const struct low_rank *x, const struct low_rank *y, double *norm,
                              struct error *err)
{
    struct factor b, a;
    double *middle = NULL;
    *norm = 0;
    enum status s = factors_of(x, y, &b, &a, err);
    if (s == STATUS_OK)
        s = factorise(&b, false, err);
    if (s == STATUS_OK)
        s = factorise(&a, false, err);
    if (s == STATUS_OK && !(middle = middle_of(&b, &a)))
        s = no_memory(err);
    if (s == STATUS_OK)
        *norm = cblas_dnrm2(b.n * a.n, middle, 1);
    mem_free(middle);
    factor_fini(&b);
    factor_fini(&a);
    return s;
}
