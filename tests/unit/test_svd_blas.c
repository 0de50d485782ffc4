/* core/kernels/svd_blas.c: decompositions against the dense product that they stand for. */
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "linalg.h"

static float *numbers(size_t n, uint32_t seed)
{
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525U + 1013904223U;
        x[i] = ldexpf((float)(int32_t)seed, -31 - (int)(seed >> 7 & 3));
    }
    return x;
}

struct made {
    struct low_rank x;
    float *a, *b;
};

static struct made make(uint32_t out, uint32_t in, uint32_t rank, uint32_t seed)
{
    struct made m = {.a = numbers((size_t)rank * in, seed), .b = numbers((size_t)out * rank, seed + 1)};
    m.x = (struct low_rank){.a = m.a, .b = m.b, .out = out, .in = in, .rank = rank, .scale = -1.5};
    return m;
}

static void made_free(struct made *m)
{
    free(m->a);
    free(m->b);
}

static double dense(const struct low_rank *x, uint32_t r, uint32_t c)
{
    double sum = 0;
    for (uint32_t k = 0; k < x->rank; k++)
        sum += (double)x->b[(size_t)r * x->rank + k] * x->a[(size_t)k * x->in + c];
    return x->scale * sum;
}

static double norm_of(const struct low_rank *x, const struct low_rank *y)
{
    double sum = 0;
    for (uint32_t r = 0; r < x->out; r++)
        for (uint32_t c = 0; c < x->in; c++)
            sum += pow(dense(x, r, c) - (y ? dense(y, r, c) : 0), 2);
    return sqrt(sum);
}

static void must_decompose(const struct low_rank *x, bool vectors, struct low_rank_svd *s)
{
    struct error err;
    if (low_rank_svd(x, vectors, s, &err) != STATUS_OK)
        fail_msg("%s", err.text);
}

static void check_orthonormal(const double *rows, uint32_t n, uint32_t length)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k <= i; k++) {
            double dot = 0;
            for (uint32_t c = 0; c < length; c++)
                dot += rows[(size_t)i * length + c] * rows[(size_t)k * length + c];
            assert_true(fabs(dot - (i == k)) < 1e-12);
        }
}

/* Wide, tall, square, rank above either side, rank 1. */
static const uint32_t shapes[][3] = {{40, 70, 5}, {90, 30, 8}, {16, 16, 16}, {6, 50, 9},
                                     {50, 6, 9},  {5, 4, 20},  {33, 21, 1},  {1, 1, 1}};
#define N_SHAPES (sizeof shapes / sizeof shapes[0])

static void gives_the_product_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct made m = make(shapes[i][0], shapes[i][1], shapes[i][2], 7);
        struct low_rank_svd s, alone;
        must_decompose(&m.x, true, &s);
        must_decompose(&m.x, false, &alone);
        assert_true(s.n <= m.x.rank && s.n <= m.x.out && s.n <= m.x.in && alone.n == s.n);
        assert_true(!alone.u && !alone.v);
        check_orthonormal(s.u, s.n, m.x.out);
        check_orthonormal(s.v, s.n, m.x.in);
        double squares = 0, norm = norm_of(&m.x, NULL);
        for (uint32_t k = 0; k < s.n; k++) {
            assert_true(s.sigma[k] >= 0 && (k == 0 || s.sigma[k] <= s.sigma[k - 1]));
            assert_true(fabs(s.sigma[k] - alone.sigma[k]) <= 1e-13 * s.sigma[0]);
            squares += s.sigma[k] * s.sigma[k];
        }
        assert_true(fabs(sqrt(squares) - norm) <= 1e-13 * norm);
        for (uint32_t r = 0; r < m.x.out; r++)
            for (uint32_t c = 0; c < m.x.in; c++) {
                double sum = 0;
                for (uint32_t k = 0; k < s.n; k++)
                    sum += s.sigma[k] * s.u[(size_t)k * m.x.out + r] * s.v[(size_t)k * m.x.in + c];
                assert_true(fabs(sum - dense(&m.x, r, c)) <= 1e-13 * norm);
            }
        low_rank_svd_fini(&s);
        low_rank_svd_fini(&alone);
        made_free(&m);
    }
}

/* Two equal columns, a zero one and a zero product. */
static void sees_the_true_rank(void **state)
{
    (void)state;
    struct made m = make(30, 20, 4, 3);
    struct low_rank_svd s;
    for (uint32_t r = 0; r < 30; r++) {
        m.b[4 * r + 1] = m.b[4 * r];
        m.b[4 * r + 2] = 0;
    }
    must_decompose(&m.x, true, &s);
    assert_true(s.sigma[1] > 0.01 * s.sigma[0] && s.sigma[2] < 1e-14 * s.sigma[0]);
    low_rank_svd_fini(&s);
    memset(m.b, 0, 30 * 4 * sizeof *m.b);
    must_decompose(&m.x, true, &s);
    assert_true(s.sigma[0] == 0);
    check_orthonormal(s.u, s.n, 30);
    low_rank_svd_fini(&s);
    made_free(&m);
}

static void distances_are_frobenius(void **state)
{
    (void)state;
    struct error err;
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct made x = make(shapes[i][0], shapes[i][1], shapes[i][2], 11);
        struct made y = make(shapes[i][0], shapes[i][1], shapes[i][2] + 2, 12);
        double norm, length = norm_of(&x.x, NULL), apart = norm_of(&x.x, &y.x);
        assert_int_equal(low_rank_distance(&x.x, NULL, &norm, &err), STATUS_OK);
        assert_true(fabs(norm - length) <= 1e-13 * length);
        assert_int_equal(low_rank_distance(&x.x, &y.x, &norm, &err), STATUS_OK);
        assert_true(fabs(norm - apart) <= 1e-13 * (length + apart));
        assert_int_equal(low_rank_distance(&x.x, &x.x, &norm, &err), STATUS_OK);
        assert_true(norm <= 1e-14 * length);
        made_free(&x);
        made_free(&y);
    }
}

static void memory_may_fail_anywhere(void **state)
{
    (void)state;
    struct made m = make(9, 8, 3, 5);
    struct low_rank_svd s;
    struct error err;
    enum status st;
    uint64_t n = 0;
    double norm;
    do {
        mem_fail_at(++n);
        st = low_rank_svd(&m.x, true, &s, &err);
        mem_fail_at(0);
        assert_true(st == STATUS_NO_MEMORY || (st == STATUS_OK && n > 10));
        low_rank_svd_fini(&s);
    } while (st != STATUS_OK);
    for (n = 0, st = STATUS_NO_MEMORY; st != STATUS_OK;) {
        mem_fail_at(++n);
        st = low_rank_distance(&m.x, &m.x, &norm, &err);
        mem_fail_at(0);
        assert_true(st == STATUS_NO_MEMORY || (st == STATUS_OK && n > 6));
    }
    made_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_product_back),
        cmocka_unit_test(sees_the_true_rank),
        cmocka_unit_test(distances_are_frobenius),
        cmocka_unit_test(memory_may_fail_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
