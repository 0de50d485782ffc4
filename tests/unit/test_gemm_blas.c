/* core/kernels/gemm_blas.c: against sums in double, and from several threads at once. */
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/team.h"
#include "kernels.h"

/* Numbers of both signs and several magnitudes, the same in every run. */
static float *numbers(size_t n, uint32_t seed)
{
    float *x = malloc((n ? n : 1) * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525U + 1013904223U;
        x[i] = ldexpf((float)(int32_t)seed, -31 - (int)(seed >> 7 & 3));
    }
    return x;
}

static void is_the_sum(void **state)
{
    (void)state;
    static const uint32_t shapes[][3] = {{1, 1, 1},    {16, 32, 4}, {3, 17, 5},    {64, 640, 8},
                                         {33, 100, 1}, {5, 7, 300}, {128, 129, 64}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        uint32_t rows = shapes[i][0], cols = shapes[i][1], k = shapes[i][2];
        size_t n = (size_t)rows * cols;
        float scale = i % 2 ? -0.75f : 2;
        float *b = numbers((size_t)rows * k, 1), *a = numbers((size_t)k * cols, 2);
        float *y = numbers(n, 3), *before = numbers(n, 3);
        gemm_add_f32(rows, cols, k, scale, b, a, y);
        for (size_t at = 0; at < n; at++) {
            double sum = 0, size = fabs((double)before[at]);
            for (uint32_t r = 0; r < k; r++) {
                double product = (double)b[at / cols * k + r] * a[(size_t)r * cols + at % cols] * scale;
                sum += product;
                size += fabs(product);
            }
            assert_true(fabs(before[at] + sum - y[at]) <= (k + 4) * 0x1p-24 * size);
        }
        free(b);
        free(a);
        free(y);
        free(before);
    }
}

static void nothing_of_size_zero(void **state)
{
    (void)state;
    float y[2] = {1, 2}, one[2] = {1, 1};
    gemm_add_f32(0, 2, 1, 1, one, one, y);
    gemm_add_f32(2, 0, 1, 1, one, one, y);
    gemm_add_f32(1, 2, 0, 1, one, one, y);
    assert_true(y[0] == 1 && y[1] == 2);
}

enum { ROWS = 48, COLS = 200, RANK = 16, ROUNDS = 20, THREADS = 4 };

struct crowd {
    const float *b, *a;
    float *y[THREADS];
};

static void one_of_many(void *arg, unsigned worker, unsigned n_workers)
{
    struct crowd *c = arg;
    (void)n_workers;
    for (int i = 0; i < ROUNDS; i++)
        gemm_add_f32(ROWS, COLS, RANK, 0.5f, c->b, c->a, c->y[worker]);
}

static void callers_at_once_get_the_same_bits(void **state)
{
    (void)state;
    struct team *team = team_create(THREADS);
    assert_non_null(team);
    float *b = numbers((size_t)ROWS * RANK, 4), *a = numbers((size_t)RANK * COLS, 5);
    struct crowd c = {.b = b, .a = a}, alone = c;
    for (int i = 0; i < THREADS; i++)
        c.y[i] = numbers((size_t)ROWS * COLS, 6);
    alone.y[0] = numbers((size_t)ROWS * COLS, 6);
    team_run(team, one_of_many, &c);
    one_of_many(&alone, 0, 1);
    for (int i = 0; i < THREADS; i++) {
        assert_memory_equal(c.y[i], alone.y[0], (size_t)ROWS * COLS * sizeof(float));
        free(c.y[i]);
    }
    free(alone.y[0]);
    free(b);
    free(a);
    team_destroy(team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_the_sum),
        cmocka_unit_test(nothing_of_size_zero),
        cmocka_unit_test(callers_at_once_get_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
