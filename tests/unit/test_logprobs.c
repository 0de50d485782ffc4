/* KL of two rows of logits: against the definition, at its ends, and steady for large logits. A row's numbers
 * with its peaks are those without. */
#include "tests/test.h"

#include <math.h>

#include "kernels.h"
#include "logprobs.h"

enum { N = 300 };

static void fill(float *row, uint32_t seed, float spread, float shift)
{
    for (uint32_t i = 0; i < N; i++)
        row[i] = shift + spread * sinf((float)(i * i + 7 * seed + 1) * 0.37F);
}

/* The definition in long double, without any shift. */
static double kl_by_definition(const float *p, const float *q)
{
    long double sum_p = 0, sum_q = 0, kl = 0;
    for (int i = 0; i < N; i++) {
        sum_p += expl(p[i]);
        sum_q += expl(q[i]);
    }
    for (int i = 0; i < N; i++) {
        long double a = expl(p[i]) / sum_p, b = expl(q[i]) / sum_q;
        kl += a * (logl(a) - logl(b));
    }
    return (double)kl;
}

static void kl_is_as_defined(void **state)
{
    (void)state;
    float p[N], q[N], moved[N];
    for (uint32_t seed = 0; seed < 20; seed++) {
        fill(p, seed, 1.0F + (float)seed, 0);
        fill(q, seed + 50, 9.0F, -3);
        double kl = logprobs_kl(p, q, N);
        assert_true(kl > 0.1 && fabs(kl - kl_by_definition(p, q)) < 1e-12 * (1 + kl));
        assert_true(logprobs_kl(p, p, N) == 0);
        for (int i = 0; i < N; i++)
            moved[i] = p[i] + 4096.0F; /* a constant on all logits changes nothing but their rounding */
        double same = logprobs_kl(p, moved, N);
        assert_true(same >= 0 && same < 1e-6);
    }
}

static void kl_of_far_rows_is_finite(void **state)
{
    (void)state;
    float p[N], q[N];
    fill(p, 1, 3e4F, 1e5F);
    fill(q, 2, 3e4F, -1e5F);
    double kl = logprobs_kl(p, q, N);
    assert_true(isfinite(kl) && kl > 1);
}

static void a_rank_counts_what_is_better(void **state)
{
    (void)state;
    float row[N];
    struct logprobs l;
    fill(row, 3, 5, 0);
    row[20] = row[10]; /* of equals the lower id is better, as among the best */
    for (int32_t token = 0; token < N; token++) {
        uint32_t better = 0;
        for (int32_t i = 0; i < N; i++)
            better += row[i] > row[token] || (row[i] == row[token] && i < token);
        logprobs_row(&(struct logits){row, NULL, N}, token, 5, &l);
        assert_int_equal(l.rank, better + 1);
        if (l.rank <= 5)
            assert_int_equal(l.top[l.rank - 1].token, token);
    }
}

static void rows_are_finite_or_not(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    float row[N];
    fill(row, 3, 5, 0);
    assert_true(row_is_finite(row, N));
    for (int i = 0; i < 3; i++) {
        fill(row, 3, 5, 0);
        row[i * (N - 1) / 2] = bad[i];
        assert_false(row_is_finite(row, N));
    }
}

/* Coarse values, so that there are equals; some rows with what is no number, or none at all. */
static void fill_odd(float *row, uint32_t n, uint32_t round)
{
    static const float odd[] = {NAN, -INFINITY, INFINITY, 0, -0.0F};
    uint32_t seed = round + 1;
    for (uint32_t i = 0; i < n; i++) {
        seed = seed * 1664525U + 1013904223U;
        row[i] = (float)(seed >> 24) * (round % 4 == 0 ? 0.01F : 0.4F) - 50;
        if (round % 3 == 1 && seed >> 8 & 1)
            row[i] = odd[(seed >> 10) % (round % 2 ? 5 : 2)];
    }
    for (uint32_t i = 0; i < n && round % 5 == 4; i++) /* whole pieces without a candidate, or far below */
        if (i / PEAK_VALUES % 2)
            row[i] = i / PEAK_VALUES % 4 == 1 ? -INFINITY : -1000;
}

static void peaks_change_no_number(void **state)
{
    (void)state;
    enum { LARGE = 5000 };
    static float row[LARGE], peaks[LARGE / PEAK_VALUES + 1];
    static const uint32_t tops[] = {0, 1, 5, LOGPROBS_MAX}, sizes[] = {1, 255, 256, 257, 4096, LARGE};
    const struct kernels *k;
    struct error err;
    assert_int_equal(kernels_select("auto", ACT_MODE_F32, &k, &err), STATUS_OK);
    for (uint32_t round = 0; round < 40; round++)
        for (unsigned i = 0; i < 6 * 4; i++) {
            uint32_t n = sizes[i / 4], n_top = tops[i % 4];
            struct logits plain = {row, NULL, n}, with = {row, peaks, n};
            struct logprobs one = {0}, other = {0};
            fill_odd(row, n, round);
            k->peaks(row, n, peaks);
            logprobs_row(&plain, (int32_t)(round * 131 % n), n_top, &one);
            logprobs_row(&with, (int32_t)(round * 131 % n), n_top, &other);
            assert_true(one.n_top <= n_top && (n_top == 0 || one.n_top > 0 || round % 3 == 1));
            assert_memory_equal(&one, &other, sizeof one);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kl_is_as_defined),
        cmocka_unit_test(kl_of_far_rows_is_finite),
        cmocka_unit_test(a_rank_counts_what_is_better),
        cmocka_unit_test(rows_are_finite_or_not),
        cmocka_unit_test(peaks_change_no_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
