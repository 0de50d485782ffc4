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
        logprobs_row(&(struct logits){row, NULL, NULL, N}, token, 5, &l);
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
            struct logits plain = {row, NULL, NULL, n}, with = {row, peaks, NULL, n};
            struct logprobs one = {0}, other = {0};
            fill_odd(row, n, round);
            k->peaks(row, n, peaks);
            logprobs_row(&plain, (int32_t)(round * 131 % n), n_top, &one);
            logprobs_row(&with, (int32_t)(round * 131 % n), n_top, &other);
            assert_true(one.n_top <= n_top && (n_top == 0 || one.n_top > 0 || round % 3 == 1));
            assert_memory_equal(&one, &other, sizeof one);
        }
}

/* The plain way is the oracle: same ranks, same tokens, and numbers that are a rounding away, also where a
 * token is all but certain. (Of each addition the oracle loses 2^-53 itself.) */
static void expect_rounding(const struct logprobs *want, const struct logprobs *got, uint32_t n)
{
    assert_int_equal(want->rank, got->rank);
    assert_int_equal(want->n_top, got->n_top);
    for (uint32_t i = 0; i <= want->n_top; i++) {
        const struct token_logprob *a = &want->top[i ? i - 1 : 0], *b = &got->top[i ? i - 1 : 0];
        double x = (double)(i ? a->logprob : want->logprob), y = (double)(i ? b->logprob : got->logprob);
        double most = 1.2e-7 * fabs(x) + 1e-5 * fmin(fabs(x), 0.02) + n * 0x1p-53;
        assert_true(i == 0 || a->token == b->token);
        assert_true(isfinite(x) ? y <= 0 && fabs(x - y) <= most : x == y || (isnan(x) && isnan(y)));
    }
}

/* Spreads from nearly even to all but certain. */
static void fill_spread(float *row, uint32_t n, uint32_t round)
{
    uint32_t seed = 77 * round + 5;
    for (uint32_t i = 0; i < n; i++) {
        seed = seed * 1664525U + 1013904223U;
        row[i] = (float)(seed >> 8) * 0x1p-24F * (float)(1 + round % 9 * 4);
        if (round % 7 == 6 && i % 3 == 0)
            row[i] = -INFINITY;
    }
    row[seed % n] += (float)(round % 5 * 9);
}

static void sums_are_a_rounding_away(void **state)
{
    (void)state;
    enum { LARGE = 40000 };
    static float row[LARGE], peaks[LARGE / PEAK_VALUES + 1];
    static double sums[LARGE / PEAK_VALUES + 1];
    static const uint32_t sizes[] = {1, 255, 256, 257, 4096, LARGE};
    const struct kernels *k;
    struct error err;
    assert_int_equal(kernels_select("auto", ACT_MODE_F32, &k, &err), STATUS_OK);
    for (uint32_t round = 0; round < 80; round++)
        for (unsigned i = 0; i < 6; i++) {
            uint32_t n = sizes[i], token = round * 131 % n;
            struct logits plain = {row, NULL, NULL, n}, with = {row, peaks, sums, n};
            struct logprobs want = {0}, got = {0};
            if (round % 2)
                fill_odd(row, n, round);
            else
                fill_spread(row, n, round / 2);
            k->peaks(row, n, peaks);
            k->peak_sums(row, peaks, 1, n, sums);
            logprobs_row(&plain, (int32_t)token, LOGPROBS_MAX, &want);
            logprobs_row(&with, (int32_t)token, LOGPROBS_MAX, &got);
            expect_rounding(&want, &got, n);
        }
}

/* Made by the step or here, for any factor: the same bits; and the sum in double. */
static void a_mass_is_the_same_however_made(void **state)
{
    (void)state;
    enum { LARGE = 40000 };
    static float row[LARGE], peaks[LARGE / PEAK_VALUES + 1];
    static double sums[LARGE / PEAK_VALUES + 1];
    const struct kernels *k[2];
    struct error err;
    assert_int_equal(kernels_select("auto", ACT_MODE_F32, &k[0], &err), STATUS_OK);
    assert_int_equal(kernels_select("scalar", ACT_MODE_F32, &k[1], &err), STATUS_OK);
    for (uint32_t round = 0; round < 30; round++) {
        uint32_t n = round % 3 == 0 ? 300 : LARGE;
        float factor = 0.3F + 0.4F * (float)(round % 8), top = -INFINITY;
        fill_spread(row, n, round);
        k[0]->peaks(row, n, peaks);
        k[0]->peak_sums(row, peaks, factor, n, sums);
        double want = 0, mass;
        for (uint32_t i = 0; i < n; i++)
            top = row[i] > top ? row[i] : top;
        for (uint32_t i = 0; i < n; i++)
            want += exp(((double)row[i] - (double)top) * (double)factor);
        mass = row_mass(&(struct logits){row, peaks, sums, n}, top, factor, NULL);
        assert_true(mass >= 1 && fabs(mass - want) <= 1e-5 * (want - 1) + n * 0x1p-53);
        for (int i = 0; i < 2; i++) {
            assert_true(row_mass(&(struct logits){row, peaks, NULL, n}, top, factor, k[i]) == mass);
            assert_true(row_mass(&(struct logits){row, NULL, NULL, n}, top, factor, k[i]) == mass);
        }
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
        cmocka_unit_test(sums_are_a_rounding_away),
        cmocka_unit_test(a_mass_is_the_same_however_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
