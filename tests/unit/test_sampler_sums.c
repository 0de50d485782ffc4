/* Sums of weights that come with a row (include/model.h's step_sums): who will want them, and for which
 * factor, is known from the request; with them the same tokens come as without. */
#include "tests/test.h"

#include <math.h>

#include "base/mem.h"
#include "kernels.h"
#include "sampler.h"

enum { N = 3000 };

static const struct kernels *counted;
static int n_made;

static void counting_sums(const float *x, const float *peaks, float factor, uint32_t n, double *y)
{
    n_made++;
    counted->peak_sums(x, peaks, factor, n, y);
}

#define NOBODY (-1.0F)     /* sums up all weights */
#define OF_CHANGED (-2.0F) /* they are those of a changed row, or of a temperature not known before */
#define COMMON .repetition_penalty = 1, .penalty_last_n = -1
static const struct logit_bias bias = {.token = 5, .bias = 2};
static const struct sum_case {
    struct sampling p;
    float factor;
} cases[] = {
    {{.temperature = 1, .top_p = 1, COMMON}, 1},
    {{.temperature = 0.5F, .top_p = 1, COMMON}, 2},
    {{.temperature = 1, .top_p = 0.9F, COMMON}, 1},
    {{.temperature = 2, .top_p = 0.9F, .min_p = 0.01F, COMMON}, 0.5F},
    {{.temperature = 0.5F,
      .top_p = 0.9F,
      .order = {.is_set = true, .n = 2, .kinds = {SAMPLER_TOP_P, SAMPLER_TEMPERATURE}},
      COMMON},
     1},
    {{.temperature = 1, .top_p = 1, .xtc_probability = 1, .xtc_threshold = 0.1F, COMMON}, 1},
    {{.temperature = 0.25F, .top_p = 1, .mirostat = 2, .mirostat_tau = 5, .mirostat_eta = 0.1F, COMMON}, 4},
    {{.temperature = 0, .top_p = 0.9F, COMMON}, NOBODY},
    {{.temperature = 1e-4F, .top_p = 1, COMMON}, NOBODY},
    {{.temperature = 1, .top_k = 20, .top_p = 0.5F, COMMON}, NOBODY},
    {{.temperature = 1, .top_p = 1, .min_p = 0.1F, COMMON}, NOBODY},
    {{.temperature = 1, .top_p = 1, .typical_p = 0.5F, COMMON}, NOBODY},
    {{.temperature = 1, .top_p = 1, .top_n_sigma = 1, COMMON}, NOBODY},
    {{.temperature = 1, .top_p = 1, .n_logit_bias = 1, .logit_bias = &bias, COMMON}, OF_CHANGED},
    {{.temperature = 1, .top_p = 1, .presence_penalty = 1, COMMON}, OF_CHANGED},
    {{.temperature = 1, .top_p = 1, .dynatemp_range = 0.2F, .dynatemp_exponent = 1, COMMON}, OF_CHANGED},
    {{.temperature = 1, .top_p = 1, .mirostat = 2, .mirostat_tau = 5, .repetition_penalty = 2}, OF_CHANGED},
};

/* The sums of another factor are none: NaN would show. */
static void expect_same_tokens(const struct sum_case *c, const struct sampler_input *plain,
                               struct sampler_scratch *s)
{
    static double sums[STEP_SUMS][(N + PEAK_VALUES - 1) / PEAK_VALUES];
    float factor = sampler_sum_factor(&c->p), factors[STEP_SUMS] = {3, factor};
    assert_true(c->factor < 0 ? factor == 0 : factor == c->factor);
    for (uint32_t i = 0; i < n_peaks_of(N); i++)
        sums[0][i] = sums[1][i] = NAN;
    if (factor > 0)
        counted->peak_sums(plain->logits, plain->peaks, factor, N, sums[1]);
    for (uint64_t seed = 1; seed < 6; seed++) {
        struct rng a, b;
        double mu[2] = {NAN, NAN};
        struct sampler_input in = *plain;
        in.sampling = &c->p;
        in.mirostat_mu = &mu[0];
        rng_seed(&a, seed);
        b = a;
        n_made = 0;
        int32_t want = sampler_pick(&in, &a, s);
        assert_int_equal(n_made > 0, c->factor != NOBODY);
        n_made = 0;
        in.mirostat_mu = &mu[1];
        in.sums = sums[0];
        in.factors = factors;
        assert_int_equal(sampler_pick(&in, &b, s), want);
        assert_true(mu[0] == mu[1] || isnan(mu[0]));
        assert_int_equal(n_made > 0, c->factor == OF_CHANGED);
    }
}

static void sums_are_asked_for_where_they_are_used(void **state)
{
    (void)state;
    static float row[N], peaks[(N + PEAK_VALUES - 1) / PEAK_VALUES];
    static const int32_t tokens[] = {1, 2, 3, 4};
    struct sampler_scratch s;
    struct rng noise;
    assert_int_equal(kernels_select("auto", ACT_MODE_INT8, &counted, NULL), STATUS_OK);
    assert_int_equal(sampler_scratch_init(&s, N, counted->argmax, NULL), STATUS_OK);
    struct kernels counting = *counted;
    counting.peak_sums = counting_sums;
    s.kernels = &counting;
    rng_seed(&noise, 3);
    for (uint32_t i = 0; i < N; i++)
        row[i] = (float)(8 * rng_unit(&noise));
    counted->peaks(row, N, peaks);
    const struct sampler_input in = {
        .logits = row, .peaks = peaks, .tokens = tokens, .n_tokens = 4, .n_prompt = 2};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_same_tokens(&cases[i], &in, &s);
    sampler_scratch_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_asked_for_where_they_are_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
