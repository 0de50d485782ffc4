/* A masked row gives the same token as a row in which the others are -INFINITY, on every way there. */
#include "../test.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernels.h"
#include "sampler.h"

#define N 5003U
#define N_WORDS ((N + 63) / 64)
#define N_PEAKS ((N + PEAK_VALUES - 1) / PEAK_VALUES)

struct rows {
    float row[N], masked[N], peaks[N_PEAKS];
    uint64_t mask[N_WORDS];
    uint32_t n_allowed;
};

static void fill(struct rows *x, struct rng *r, double density, int kind)
{
    x->n_allowed = 0;
    memset(x->mask, 0, sizeof x->mask);
    for (uint32_t i = 0; i < N_PEAKS; i++)
        x->peaks[i] = -INFINITY;
    for (uint32_t i = 0; i < N; i++) {
        double u = rng_unit(r);
        x->row[i] = kind == 0   ? (float)(-1.5 * log(u + 1e-9))
                    : kind == 1 ? (float)(int)(u * 8)
                                : (float)(u * 20);
        if (kind == 2 && rng_unit(r) < 0.1)
            x->row[i] = -INFINITY;
        bool allowed = rng_unit(r) < density;
        x->mask[i / 64] |= (uint64_t)allowed << i % 64;
        x->n_allowed += allowed;
        x->masked[i] = allowed ? x->row[i] : -INFINITY;
        if (x->row[i] > x->peaks[i / PEAK_VALUES])
            x->peaks[i / PEAK_VALUES] = x->row[i];
    }
}

static void masked_is_as_if_they_were_not_there(void **state)
{
    (void)state;
    static const double densities[] = {0, 0.0002, 0.01, 0.2, 0.7, 0.97, 1};
    static const int32_t tokens[] = {1, 2, 3, 3, 700, 4000};
    static const struct logit_bias bias[] = {{3, 4}, {700, -INFINITY}};
    const struct sampling ways[] = {
        {.temperature = 0, .top_p = 1, .repetition_penalty = 1},
        {.temperature = 0, .top_p = 1, .repetition_penalty = 1.3F, .penalty_last_n = -1},
        {.temperature = 0, .top_p = 1, .repetition_penalty = 1, .logit_bias = bias, .n_logit_bias = 2},
        {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
        {.temperature = 0.7F, .top_p = 0.9F, .top_k = 40, .repetition_penalty = 1},
        {.temperature = 1.3F, .top_p = 1, .min_p = 0.1F, .typical_p = 0.8F, .repetition_penalty = 1},
        {.temperature = 1,
         .top_p = 1,
         .repetition_penalty = 1,
         .frequency_penalty = 0.5F,
         .penalty_last_n = -1},
        {.temperature = 1, .top_p = 1, .top_n_sigma = 2, .repetition_penalty = 1},
        {.temperature = 1,
         .top_p = 0.95F,
         .repetition_penalty = 1,
         .xtc_probability = 0.5F,
         .xtc_threshold = 0.1F},
    };
    const struct kernels *k;
    struct error err;
    struct sampler_scratch s;
    struct rng r;
    struct rows *x = mem_alloc(sizeof *x);
    assert_int_equal(kernels_select("auto", ACT_MODE_F32, &k, &err), STATUS_OK);
    assert_int_equal(sampler_scratch_init(&s, N, k->argmax, &err), STATUS_OK);
    s.kernels = k;
    rng_seed(&r, 5);
    for (int round = 0; round < 12; round++)
        for (size_t d = 0; d < sizeof densities / sizeof *densities; d++) {
            fill(x, &r, densities[d], round % 3);
            for (size_t w = 0; w < 2 * sizeof ways / sizeof *ways; w++) {
                struct rng a, b;
                struct sampler_input in = {.sampling = &ways[w / 2],
                                           .logits = x->masked,
                                           .tokens = tokens,
                                           .n_tokens = 6,
                                           .n_prompt = 2};
                rng_seed(&a, (uint64_t)round);
                b = a;
                int32_t expected = sampler_pick(&in, &a, &s);
                in.logits = x->row;
                in.mask = x->mask;
                in.peaks = w % 2 ? x->peaks : NULL;
                assert_int_equal(sampler_pick(&in, &b, &s), expected);
                assert_memory_equal(&a, &b, sizeof a);
                assert_true(expected >= 0 || x->n_allowed < 8);
            }
        }
    sampler_scratch_fini(&s);
    mem_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(masked_is_as_if_they_were_not_there)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
