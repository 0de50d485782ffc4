/* What a single draw can't show (tests/sampling compares distributions): breakers of dry, words that must not
 * come, and how mirostat steers. */
#include "tests/test.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "sampler.h"

static uint32_t plain_argmax(const float *x, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static int32_t greedy(const struct sampling *p, const float *row, uint32_t n_vocab,
                      const struct sampler_input *more)
{
    struct sampler_scratch s;
    struct rng r;
    struct sampling greedy_p = *p;
    struct sampler_input in = *more;
    greedy_p.temperature = 0;
    in.sampling = &greedy_p;
    in.logits = row;
    rng_seed(&r, 1);
    assert_int_equal(sampler_scratch_init(&s, n_vocab, plain_argmax, NULL), STATUS_OK);
    int32_t t = sampler_pick(&in, &r, &s);
    for (uint32_t i = 0; i < n_vocab; i++)
        assert_int_equal(s.counts[i], 0); /* as the next call needs them */
    sampler_scratch_fini(&s);
    return t;
}

static struct sampling neutral(void)
{
    return (struct sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .penalty_last_n = -1};
}

static bool is_9(const void *data, int32_t token)
{
    return token == *(const int32_t *)data;
}

/* 1 2 3 was followed by 4; the text ends with 1 2 3 again, so 4 pays for a length of 3. */
static void dry_stops_at_breakers(void **state)
{
    (void)state;
    const int32_t tokens[] = {1, 2, 3, 4, 7, 1, 2, 3}, broken[] = {1, 9, 3, 4, 7, 1, 9, 3}, nine = 9;
    float row[10] = {0};
    struct sampling p = neutral();
    struct sampler_input in = {
        .tokens = tokens, .n_tokens = 8, .n_prompt = 2, .breaks = is_9, .breaks_data = &nine};
    row[4] = 5;
    row[5] = 3.5F;
    p.dry_multiplier = 1;
    p.dry_base = 2;
    p.dry_allowed_length = 2;
    p.dry_last_n = -1;
    assert_int_equal(greedy(&p, row, 10, &in), 5); /* 4 has 5 - 1 * 2^(3-2) */
    p.dry_allowed_length = 3;
    assert_int_equal(greedy(&p, row, 10, &in), 4); /* 5 - 1 */
    p.dry_allowed_length = 4;
    assert_int_equal(greedy(&p, row, 10, &in), 4);
    p.dry_allowed_length = 2;
    p.dry_last_n = 4; /* 7 1 2 3: nothing is repeated */
    assert_int_equal(greedy(&p, row, 10, &in), 4);
    p.dry_last_n = -1;
    in.tokens = broken; /* behind the 9 one token is repeated */
    assert_int_equal(greedy(&p, row, 10, &in), 4);
    in.breaks = NULL;
    assert_int_equal(greedy(&p, row, 10, &in), 5);
}

static void bad_words_never_become_whole(void **state)
{
    (void)state;
    const int32_t words[] = {3, -1, 1, 2, 4, -1, 5, 6, -1}, tokens[] = {1, 2, 1, 2}, none[] = {8, 1, 2};
    const float row[10] = {0, 0, 0, 9, 8, 7, 6, 0, 0, 0};
    struct sampling p = neutral();
    struct sampler_input in = {.tokens = tokens, .n_tokens = 4, .n_prompt = 2};
    p.bad_words = words;
    p.n_bad_words = 9;
    assert_int_equal(greedy(&p, row, 10, &in), 5); /* 3 alone, and 4 behind 1 2; 5 begins a word, and may */
    in.tokens = none;
    in.n_tokens = 3;
    assert_int_equal(greedy(&p, row, 10, &in), 4); /* the output is 2: 1 was the prompt's */
    p.n_bad_words = 0;
    assert_int_equal(greedy(&p, row, 10, &in), 3);
}

/* The mean surprise of what is drawn, in bits. */
static double mean_surprise(uint32_t version, double tau)
{
    enum { N_VOCAB = 400, N_DRAWS = 4000 };
    static float row[N_VOCAB];
    const int32_t prompt = 0;
    struct sampling p = neutral();
    struct sampler_scratch s;
    struct rng r;
    double mu = NAN, total = 0, sum = 0;
    p.mirostat = version;
    p.mirostat_tau = (float)tau;
    p.mirostat_eta = 0.1F;
    for (int i = 0; i < N_VOCAB; i++) {
        row[i] = -1.1F * logf((float)i + 1);
        total += exp((double)row[i]);
    }
    struct sampler_input in = {
        .sampling = &p, .logits = row, .tokens = &prompt, .n_tokens = 1, .n_prompt = 1, .mirostat_mu = &mu};
    rng_seed(&r, 5);
    assert_int_equal(sampler_scratch_init(&s, N_VOCAB, plain_argmax, NULL), STATUS_OK);
    for (int i = 0; i < N_DRAWS; i++)
        sum -= log2(exp((double)row[sampler_pick(&in, &r, &s)]) / total);
    sampler_scratch_fini(&s);
    assert_false(isnan(mu));
    return sum / N_DRAWS;
}

/* Cut off, a token is less surprising than in the whole distribution, which this measures: so the mean lies
 * above tau by the mass that was cut, and rises with it. The whole distribution has 6.1 bits. */
static void mirostat_steers_the_surprise(void **state)
{
    (void)state;
    for (uint32_t version = 1; version <= 2; version++) {
        double low = mean_surprise(version, 1.5), high = mean_surprise(version, 3.5),
               all = mean_surprise(version, 50);
        assert_true(low > 1.5 && low < 3.4);
        assert_true(high > 3.5 && high < 4.8 && high > low + 1);
        assert_true(all > 5.9 && all < 6.3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dry_stops_at_breakers),
        cmocka_unit_test(bad_words_never_become_whole),
        cmocka_unit_test(mirostat_steers_the_surprise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
