/* The sampling chain against probabilities worked out by hand or by a plain full sort, and log-probabilities.
 */
#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels.h"
#include "logprobs.h"
#include "sampler.h"

#define N_BIG 20000U

static uint32_t plain_argmax(const float *x, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static struct sampling neutral(void)
{
    return (struct sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .penalty_last_n = -1};
}

static struct sampler_scratch scratch_for(uint32_t n)
{
    struct sampler_scratch s;
    assert_int_equal(sampler_scratch_init(&s, n, plain_argmax, NULL), STATUS_OK);
    return s;
}

/* ---- the definition: sort everything, then cut ---- */

struct ranked {
    double w;
    float logit;
    int32_t id;
};

static int by_rank(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->logit != y->logit ? (x->logit < y->logit) - (x->logit > y->logit) : x->id - y->id;
}

/* Candidates with their probabilities, best first; returns how many are kept. */
static uint32_t define(const struct sampling *p, const float *row, uint32_t n, struct ranked *c)
{
    double total = 0, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        c[i] = (struct ranked){.logit = row[i], .id = (int32_t)i};
    qsort(c, n, sizeof *c, by_rank);
    uint32_t k = p->top_k > 0 && (uint32_t)p->top_k < n ? (uint32_t)p->top_k : n, kept = 0;
    for (uint32_t i = 0; i < k; i++)
        total += c[i].w = exp(((double)c[i].logit - (double)c[0].logit) / (double)p->temperature);
    while (kept < k && (kept == 0 ||
                        ((p->top_p >= 1 || sum < (double)p->top_p * total) && c[kept].w >= (double)p->min_p)))
        sum += c[kept++].w;
    for (uint32_t i = 0; i < kept; i++)
        c[i].w /= sum;
    return kept;
}

static int32_t pick(const struct sampling *p, const float *row, struct rng *r, struct sampler_scratch *s)
{
    const int32_t prompt = 0;
    const struct sampler_input in = {
        .sampling = p, .logits = row, .tokens = &prompt, .n_tokens = 1, .n_prompt = 1};
    return sampler_pick(&in, r, s);
}

/* Pearson's statistic of 40000 draws against the definition, within four and a half standard deviations. */
static void check_distribution(const struct sampling *p, const float *row, uint32_t n)
{
    enum { N_DRAWS = 40000 };
    struct ranked c[64];
    uint32_t kept = define(p, row, n, c), seen[64] = {0}, n_cells = 0;
    struct sampler_scratch s = scratch_for(n);
    struct rng r;
    rng_seed(&r, 12345);
    for (int i = 0; i < N_DRAWS; i++) {
        int32_t t = pick(p, row, &r, &s);
        assert_in_range(t, 0, n - 1);
        seen[t]++;
    }
    double chi2 = 0, rest_expected = 0, rest_seen = 0;
    uint32_t n_inside = 0;
    for (uint32_t i = 0; i < kept; i++) {
        double expected = c[i].w * N_DRAWS, got = seen[c[i].id];
        n_inside += seen[c[i].id];
        if (expected < 5) { /* rare ones share a cell */
            rest_expected += expected;
            rest_seen += got;
            continue;
        }
        chi2 += (got - expected) * (got - expected) / expected;
        n_cells++;
    }
    assert_int_equal(n_inside, N_DRAWS); /* nothing outside of what is kept */
    if (rest_expected > 0)
        chi2 += (rest_seen - rest_expected) * (rest_seen - rest_expected) /
                (rest_expected > 1 ? rest_expected : 1);
    double df = n_cells;
    if (chi2 > df + 4.5 * sqrt(2 * df) + 4)
        fail_msg("chi-square %g with %g cells", chi2, df);
    sampler_scratch_fini(&s);
}

static void draws_follow_the_probabilities(void **state)
{
    (void)state;
    float row[40];
    for (uint32_t i = 0; i < 40; i++)
        row[i] = (float)((i * 37 % 40) * 0.13 - 2);
    struct sampling p = neutral();
    check_distribution(&p, row, 40);
    const float temperatures[] = {0.2F, 0.7F, 1.5F, 30};
    for (int i = 0; i < 4; i++) {
        p = neutral();
        p.temperature = temperatures[i];
        check_distribution(&p, row, 40);
        p.top_k = 7;
        check_distribution(&p, row, 40);
        p.top_p = 0.8F;
        check_distribution(&p, row, 40);
        p.min_p = 0.3F;
        check_distribution(&p, row, 40);
        p = neutral();
        p.temperature = temperatures[i];
        p.min_p = 0.2F;
        check_distribution(&p, row, 40);
        p = neutral();
        p.temperature = temperatures[i];
        p.top_p = 0.5F;
        check_distribution(&p, row, 40);
    }
}

/* Whatever the parameters, the lazily sorted draw is the same as sorting everything. */
static void draws_equal_a_full_sort(void **state)
{
    (void)state;
    float *row = mem_array(N_BIG, sizeof *row);
    struct ranked *c = mem_array(N_BIG, sizeof *c);
    struct sampler_scratch s = scratch_for(N_BIG);
    struct rng noise, r;
    rng_seed(&noise, 7);
    for (int round = 0; round < 120; round++) {
        double spread = 1 + 3 * rng_unit(&noise);
        for (uint32_t i = 0; i < N_BIG; i++) { /* with ties, and some banned */
            row[i] = (float)(floor(rng_unit(&noise) * 400) / 100 * spread);
            if (rng_unit(&noise) < 0.05)
                row[i] = -INFINITY;
        }
        struct sampling p = neutral();
        p.temperature = round % 7 == 1 ? 50 : (float)(0.1 + 2 * rng_unit(&noise));
        p.top_k = round % 3 == 0 ? (int32_t)(rng_unit(&noise) * 9000) : 0;
        p.top_p = round % 4 < 2 ? (float)(0.05 + 0.95 * rng_unit(&noise)) : 1;
        p.min_p = round % 5 == 0 ? (float)rng_unit(&noise) : 0;
        uint32_t kept = define(&p, row, N_BIG, c);
        rng_seed(&r, (uint64_t)round);
        double u = rng_unit(&r), sum = 0;
        uint32_t at = 0;
        for (; at < kept && (sum += c[at].w) <= u; at++) {
        }
        rng_seed(&r, (uint64_t)round);
        assert_int_equal(pick(&p, row, &r, &s), c[at < kept ? at : kept - 1].id);
    }
    sampler_scratch_fini(&s);
    mem_free(c);
    mem_free(row);
}

/* By distance from the mean, equals by rank: with a = logit / temperature, |-log p - entropy| = |mean of a -
 * a|. */
struct far {
    double distance;
    uint32_t rank;
};

static int by_distance(const void *a, const void *b)
{
    const struct far *x = a, *y = b;
    return x->distance != y->distance ? (x->distance > y->distance) - (x->distance < y->distance)
                                      : (int)x->rank - (int)y->rank;
}

/* Of `kept` candidates, best first, those that typ_p leaves, in the same order; returns how many. */
static uint32_t define_typical(double p, double temperature, struct ranked *c, uint32_t kept, struct far *f)
{
    double mean = 0, sum = 0;
    uint32_t n = 0, out = 0;
    for (uint32_t i = 0; i < kept; i++)
        mean += c[i].w * ((double)c[i].logit / temperature);
    for (uint32_t i = 0; i < kept; i++)
        f[i] = (struct far){fabs(mean - (double)c[i].logit / temperature), i};
    qsort(f, kept, sizeof *f, by_distance);
    while (n < kept && sum < p)
        sum += c[f[n++].rank].w;
    for (uint32_t i = 0; i < n; i++)
        c[f[i].rank].w += 2; /* marked */
    for (uint32_t i = 0; i < kept; i++)
        if (c[i].w >= 2) {
            c[out] = c[i];
            c[out++].w = (c[i].w - 2) / sum;
        }
    return out;
}

static void typical_sets_equal_a_full_sort(void **state)
{
    (void)state;
    float *row = mem_array(N_BIG, sizeof *row);
    struct ranked *c = mem_array(N_BIG, sizeof *c);
    struct far *f = mem_array(N_BIG, sizeof *f);
    struct sampler_scratch s = scratch_for(N_BIG);
    struct rng noise, r;
    rng_seed(&noise, 8);
    for (int round = 0; round < 16; round++) {
        double spread = round % 2 ? 1 : 4;
        for (uint32_t i = 0; i < N_BIG; i++) /* with ties */
            row[i] = (float)(floor(rng_unit(&noise) * 900) / 300 * spread);
        for (uint32_t i = 0; i < 30 && round % 3; i++)
            row[i * 601] = (float)(8 + round % 5 + 0.37 * i);
        struct sampling p = neutral();
        p.temperature = (float)(0.3 + 2 * rng_unit(&noise));
        p.top_k = round % 4 == 3 ? 700 : 0;
        uint32_t kept = define(&p, row, N_BIG, c);
        p.typical_p = (float)(0.02 + 0.97 * rng_unit(&noise));
        kept = define_typical((double)p.typical_p, (double)p.temperature, c, kept, f);
        rng_seed(&r, (uint64_t)round);
        double u = rng_unit(&r), sum = 0;
        uint32_t at = 0;
        for (; at < kept && (sum += c[at].w) <= u; at++) {
        }
        float drawn = c[at < kept ? at : kept - 1].logit;
        rng_seed(&r, (uint64_t)round);
        assert_true(row[pick(&p, row, &r, &s)] == drawn);
    }
    sampler_scratch_fini(&s);
    mem_free(f);
    mem_free(c);
    mem_free(row);
}

static void greedy_takes_the_lowest_of_equals(void **state)
{
    (void)state;
    const float row[6] = {1, 3, -INFINITY, 3, 2, 3};
    struct sampling p = neutral();
    struct sampler_scratch s = scratch_for(6);
    struct rng r, before;
    rng_seed(&r, 1);
    before = r;
    p.temperature = 0;
    assert_int_equal(pick(&p, row, &r, &s), 1);
    assert_memory_equal(&r, &before, sizeof r); /* draws nothing */
    p.temperature = 1;
    p.top_k = 1;
    assert_int_equal(pick(&p, row, &r, &s), 1);
    p.top_k = 0;
    p.top_p = FLT_MIN;
    assert_int_equal(pick(&p, row, &r, &s), 1);
    p = neutral();
    p.min_p = 1; /* all that equal the best */
    for (int i = 0; i < 50; i++) {
        int32_t t = pick(&p, row, &r, &s);
        assert_true(t == 1 || t == 3 || t == 5);
    }
    sampler_scratch_fini(&s);
}

static void extreme_temperatures_stay_sane(void **state)
{
    (void)state;
    float row[50];
    for (int i = 0; i < 50; i++)
        row[i] = (float)i;
    row[10] = NAN;
    struct sampling p = neutral();
    struct sampler_scratch s = scratch_for(50);
    struct rng r;
    rng_seed(&r, 3);
    p.temperature = FLT_MIN;
    for (int i = 0; i < 20; i++)
        assert_int_equal(pick(&p, row, &r, &s), 49);
    p.temperature = FLT_MAX;
    uint32_t low = 0;
    for (int i = 0; i < 2000; i++) {
        int32_t t = pick(&p, row, &r, &s);
        assert_true(t != 10);
        low += t < 25;
    }
    assert_in_range(low, 850, 1100);
    sampler_scratch_fini(&s);
}

/* ---- what changes logits ---- */

static int32_t pick_with(const struct sampling *p, const float *row, const int32_t *tokens, uint32_t n_tokens,
                         uint32_t n_prompt, struct sampler_scratch *s)
{
    struct rng r;
    rng_seed(&r, 5);
    const struct sampler_input in = {
        .sampling = p, .logits = row, .tokens = tokens, .n_tokens = n_tokens, .n_prompt = n_prompt};
    int32_t t = sampler_pick(&in, &r, s);
    for (uint32_t i = 0; i < s->n_vocab; i++)
        assert_int_equal(s->counts[i], 0);
    return t;
}

static void bias_moves_and_bans(void **state)
{
    (void)state;
    const float row[4] = {1, 2, 3, 4};
    const struct logit_bias bias[] = {{3, -INFINITY}, {0, 2.5F}};
    struct sampling p = neutral();
    struct sampler_scratch s = scratch_for(4);
    const int32_t none = 0;
    p.temperature = 0;
    p.logit_bias = bias;
    p.n_logit_bias = 1;
    assert_int_equal(pick_with(&p, row, &none, 1, 1, &s), 2);
    p.n_logit_bias = 2;
    assert_int_equal(pick_with(&p, row, &none, 1, 1, &s), 0);
    const struct logit_bias huge[] = {{1, FLT_MAX}, {2, FLT_MAX}};
    p.logit_bias = huge;
    p.temperature = 1;
    int32_t t = pick_with(&p, row, &none, 1, 1, &s);
    assert_true(t == 1 || t == 2);
    const struct logit_bias all[] = {{0, -INFINITY}, {1, -INFINITY}, {2, -INFINITY}, {3, -INFINITY}};
    p.logit_bias = all;
    p.n_logit_bias = 4;
    assert_int_equal(pick_with(&p, row, &none, 1, 1, &s), -1);
    p.temperature = 0;
    assert_int_equal(pick_with(&p, row, &none, 1, 1, &s), -1);
    sampler_scratch_fini(&s);
}

static void penalties_follow_their_definitions(void **state)
{
    (void)state;
    const float row[4] = {4, 3.5F, 3, -1};
    const int32_t tokens[] = {0, 1, 0, 0, 1}; /* prompt 0 1, output 0 0 1 */
    struct sampling p = neutral();
    struct sampler_scratch s = scratch_for(4);
    p.temperature = 0;
    assert_int_equal(pick_with(&p, row, tokens, 5, 2, &s), 0);
    p.repetition_penalty = 1.3F; /* 4/1.3 = 3.08, 3.5/1.3 = 2.7: each once, however often it occurred */
    assert_int_equal(pick_with(&p, row, tokens, 5, 2, &s), 0);
    p.repetition_penalty = 1.4F; /* 2.86, 2.5 */
    assert_int_equal(pick_with(&p, row, tokens, 5, 2, &s), 2);
    p.penalty_last_n = 1; /* sees the last token only: 4, 2.5 */
    assert_int_equal(pick_with(&p, row, tokens, 5, 2, &s), 0);
    p.penalty_last_n = 0;
    p.repetition_penalty = 100;
    assert_int_equal(pick_with(&p, row, tokens, 5, 2, &s), 0);
    p = neutral();
    p.temperature = 0;
    p.presence_penalty = 0.6F; /* once for each: 3.4, 2.9, 3 */
    assert_int_equal(pick_with(&p, row, tokens, 5, 2, &s), 0);
    assert_int_equal(pick_with(&p, row, tokens, 3, 2, &s), 1); /* output is just 0: 3.4, 3.5 */
    p.presence_penalty = 0;
    p.frequency_penalty = 0.3F; /* 4 - 2*0.3 = 3.4, 3.5 - 0.3 = 3.2 */
    assert_int_equal(pick_with(&p, row, tokens, 5, 2, &s), 0);
    p.frequency_penalty = 0.45F; /* 3.1, 3.05, 3 */
    assert_int_equal(pick_with(&p, row, tokens, 5, 2, &s), 0);
    p.frequency_penalty = 0.55F; /* 2.9, 2.95, 3 */
    assert_int_equal(pick_with(&p, row, tokens, 5, 2, &s), 2);
    p.frequency_penalty = -1; /* rewards repetition */
    assert_int_equal(pick_with(&p, row, tokens, 5, 2, &s), 0);
    const float below[2] = {-1, -1.2F}; /* a negative logit is multiplied */
    struct sampler_scratch two = scratch_for(2);
    p = neutral();
    p.temperature = 0;
    p.repetition_penalty = 1.3F;
    const int32_t zero = 0;
    assert_int_equal(pick_with(&p, below, &zero, 1, 1, &two), 1);
    sampler_scratch_fini(&two);
    sampler_scratch_fini(&s);
}

/* ---- the chain ---- */

static struct sampling ordered(uint8_t n, const enum sampler_kind *kinds)
{
    struct sampling p = neutral();
    p.order.is_set = true;
    p.order.n = n;
    for (uint8_t i = 0; i < n; i++)
        p.order.kinds[i] = (uint8_t)kinds[i];
    return p;
}
#define ORDER(...)                                                                                           \
    ordered(sizeof((enum sampler_kind[]){__VA_ARGS__}) / sizeof(enum sampler_kind),                          \
            (enum sampler_kind[]){__VA_ARGS__})

/* Which of up to 32 tokens are ever drawn, as bits. */
static uint32_t support(const struct sampling *p, const float *row, uint32_t n)
{
    struct sampler_scratch s = scratch_for(n);
    struct rng r;
    uint32_t seen = 0;
    const int32_t tokens[] = {0, 1, 1}; /* prompt 0, output 1 1 */
    const struct sampler_input in = {
        .sampling = p, .logits = row, .tokens = tokens, .n_tokens = 3, .n_prompt = 1};
    rng_seed(&r, 77);
    for (int i = 0; i < 3000; i++)
        seen |= 1U << sampler_pick(&in, &r, &s);
    sampler_scratch_fini(&s);
    return seen;
}

static void cuts_follow_their_definitions(void **state)
{
    (void)state;
    const float row[4] = {logf(0.1F), logf(0.4F), logf(0.2F), logf(0.3F)}; /* order 1 3 2 0 */
    struct sampling p = neutral();
    p.top_k = 2;
    assert_int_equal(support(&p, row, 4), 1U << 1 | 1U << 3);
    p = neutral();
    p.top_p = 0.65F; /* .4, .7 */
    assert_int_equal(support(&p, row, 4), 1U << 1 | 1U << 3);
    p.top_p = 0.75F; /* .4, .7, .9 */
    assert_int_equal(support(&p, row, 4), 1U << 1 | 1U << 3 | 1U << 2);
    p = neutral();
    p.min_p = 0.6F; /* .24 */
    assert_int_equal(support(&p, row, 4), 1U << 1 | 1U << 3);
    p.min_keep = 3;
    assert_int_equal(support(&p, row, 4), 1U << 1 | 1U << 3 | 1U << 2);
    p = neutral();
    p.typical_p = 0.2F; /* entropy 1.280; surprise .916 1.204 1.609 2.303: distances .364 .076 .329 1.023 */
    assert_int_equal(support(&p, row, 4), 1U << 3);
    p.typical_p = 0.4F;
    assert_int_equal(support(&p, row, 4), 1U << 3 | 1U << 2);
    p.typical_p = 0.6F;
    assert_int_equal(support(&p, row, 4), 1U << 3 | 1U << 2 | 1U << 1);
    p.typical_p = 0.95F;
    assert_int_equal(support(&p, row, 4), 15);
    p.typical_p = FLT_MIN;
    assert_int_equal(support(&p, row, 4), 1U << 3);
    p.min_keep = 2;
    assert_int_equal(support(&p, row, 4), 1U << 3 | 1U << 2);
    p = neutral();
    p.min_keep = 4; /* not top_k's */
    p.top_k = 1;
    assert_int_equal(support(&p, row, 4), 1U << 1);
}

static void equals_at_a_border_stay_by_lower_id(void **state)
{
    (void)state;
    const float flat[6] = {2, 2, 2, 2, 2, 2}, steps[6] = {1, 1, 3, 1, 1, 0};
    struct sampling p = neutral();
    p.top_k = 3;
    assert_int_equal(support(&p, flat, 6), 7);
    assert_int_equal(support(&p, steps, 6), 4 | 1 | 2);
    p = neutral();
    p.top_p = 0.5F;
    assert_int_equal(support(&p, flat, 6), 7);
    p = neutral();
    p.typical_p = 0.5F;
    assert_int_equal(support(&p, flat, 6), 7);
    p.typical_p = 0.1F; /* steps: of 3 and the ones, the ones' surprise is further from the entropy */
    assert_int_equal(support(&p, steps, 6), 4);
    const float above[6] = {1, 1, 1, 1, -9, -9}; /* all ones are more likely than the mean */
    assert_int_equal(support(&p, above, 6), 1);
    p.typical_p = 0.6F;
    assert_int_equal(support(&p, above, 6), 7);
    p = ORDER(SAMPLER_TYP_P, SAMPLER_TOP_K);
    p.typical_p = 0.6F;
    p.top_k = 2; /* the kept ones are in order again */
    assert_int_equal(support(&p, above, 6), 3);
}

static void the_order_decides(void **state)
{
    (void)state;
    const float row[4] = {logf(0.5F), logf(0.25F), logf(0.15F), logf(0.1F)};
    struct sampling p = neutral();
    p.temperature = 10;
    p.top_p = 0.7F; /* of the tempered, nearly flat distribution: .272 .254 .241 */
    assert_int_equal(support(&p, row, 4), 7);
    p.order = ORDER(SAMPLER_TOP_P, SAMPLER_TEMPERATURE).order; /* of the raw one: .75 */
    assert_int_equal(support(&p, row, 4), 3);
    p = ORDER(SAMPLER_MIN_P, SAMPLER_TEMPERATURE);
    p.temperature = 10;
    p.min_p = 0.28F;
    assert_int_equal(support(&p, row, 4), 7);
    p.order = ORDER(SAMPLER_TEMPERATURE, SAMPLER_MIN_P).order;
    assert_int_equal(support(&p, row, 4), 15);
    p = ORDER(SAMPLER_TOP_K, SAMPLER_TOP_P); /* .5 / .75 is .667 */
    p.top_k = 2;
    p.top_p = 0.6F;
    assert_int_equal(support(&p, row, 4), 1);
    p.order = ORDER(SAMPLER_TOP_P, SAMPLER_TOP_K).order;
    assert_int_equal(support(&p, row, 4), 3);
    p = ORDER(SAMPLER_TOP_K); /* what isn't named isn't applied */
    p.temperature = 0;
    p.top_p = 0.1F;
    p.repetition_penalty = 100;
    p.top_k = 3;
    assert_int_equal(support(&p, row, 4), 7);
    p.order.n = 0;
    assert_int_equal(support(&p, row, 4), 15);
    p = ORDER(SAMPLER_DRY, SAMPLER_TOP_N_SIGMA, SAMPLER_XTC); /* nothing yet */
    assert_int_equal(support(&p, row, 4), 15);
}

static void penalties_work_anywhere(void **state)
{
    (void)state;
    const float row[4] = {4, 3.9F, 3, 2.9F};
    struct sampling p = ORDER(SAMPLER_TOP_K, SAMPLER_PENALTIES, SAMPLER_TEMPERATURE);
    p.top_k = 3;
    p.repetition_penalty = 2; /* 0 and 1 occurred: 2, 1.95, 3; the cut one doesn't come back */
    assert_int_equal(support(&p, row, 4), 7);
    p.temperature = 0;
    assert_int_equal(support(&p, row, 4), 4);
    p = ORDER(SAMPLER_TEMPERATURE, SAMPLER_PENALTIES, SAMPLER_TOP_K);
    p.temperature = 0.5F; /* 8, 7.8, 6, 5.8; then 8, 7.8 - 2 * 1, … */
    p.frequency_penalty = 1;
    p.top_k = 2;
    assert_int_equal(support(&p, row, 4), 1 | 4);
    p.frequency_penalty = 0.85F; /* 6.1 */
    assert_int_equal(support(&p, row, 4), 3);
    p.penalty_last_n = 1; /* one of the two */
    p.frequency_penalty = 1.7F;
    assert_int_equal(support(&p, row, 4), 3);
    p.penalty_last_n = 0;
    p.frequency_penalty = 2;
    p.repetition_penalty = 9;
    assert_int_equal(support(&p, row, 4), 3);
    p = ORDER(SAMPLER_TYP_P, SAMPLER_PENALTIES);
    p.typical_p = FLT_MIN;
    p.repetition_penalty = 1.5F;
    uint32_t one = support(&p, row, 4);
    assert_true(one && !(one & (one - 1)));
}

static void zero_temperature_takes_the_best_that_is_left(void **state)
{
    (void)state;
    const float row[4] = {logf(0.1F), logf(0.4F), logf(0.2F), logf(0.3F)};
    struct sampling p = neutral();
    struct sampler_scratch s = scratch_for(4);
    struct rng r, before;
    rng_seed(&r, 1);
    before = r;
    p.temperature = 0;
    p.typical_p = 0.2F; /* token 3 alone, but temperature comes first */
    assert_int_equal(pick(&p, row, &r, &s), 1);
    p.order = ORDER(SAMPLER_TYP_P, SAMPLER_TEMPERATURE).order;
    assert_int_equal(pick(&p, row, &r, &s), 3);
    p.order = ORDER(SAMPLER_TOP_K, SAMPLER_MIN_P, SAMPLER_TEMPERATURE, SAMPLER_TOP_P).order;
    p.top_k = 3;
    p.min_p = 0.1F;
    assert_int_equal(pick(&p, row, &r, &s), 1);
    assert_memory_equal(&r, &before, sizeof r); /* draws nothing */
    sampler_scratch_fini(&s);
}

static void banned_tokens_are_never_taken(void **state)
{
    (void)state;
    const float row[4] = {1, 9, 3, 9};
    const int32_t banned[] = {1, 3}, prompt = 0;
    struct sampling p = neutral();
    struct sampler_scratch s = scratch_for(4);
    struct rng r;
    rng_seed(&r, 9);
    const struct sampler_input in = {.sampling = &p,
                                     .logits = row,
                                     .tokens = &prompt,
                                     .n_tokens = 1,
                                     .n_prompt = 1,
                                     .banned = banned,
                                     .n_banned = 2};
    for (int i = 0; i < 200; i++) {
        int32_t t = sampler_pick(&in, &r, &s);
        assert_true(t == 0 || t == 2);
    }
    p.temperature = 0;
    assert_int_equal(sampler_pick(&in, &r, &s), 2);
    assert_true(row[1] == 9); /* the model's row is left alone */
    sampler_scratch_fini(&s);
}

static void seeds_reproduce(void **state)
{
    (void)state;
    float row[32];
    for (int i = 0; i < 32; i++)
        row[i] = (float)(i % 5);
    struct sampling p = neutral();
    struct sampler_scratch s = scratch_for(32);
    struct rng a, b, c;
    rng_seed(&a, 42);
    rng_seed(&b, 42);
    rng_seed(&c, 43);
    int n_same = 0;
    for (int i = 0; i < 100; i++) {
        int32_t t = pick(&p, row, &a, &s);
        assert_int_equal(t, pick(&p, row, &b, &s));
        n_same += t == pick(&p, row, &c, &s);
    }
    assert_in_range(n_same, 0, 30);
    /* the published generator: state 1 2 3 4 gives these first numbers */
    struct rng known = {{1, 2, 3, 4}};
    const uint64_t expected[] = {11520, 0, 1509978240, 1215971899390074240U};
    for (int i = 0; i < 4; i++)
        assert_true(rng_next(&known) == expected[i]);
    for (int i = 0; i < 1000; i++) {
        double u = rng_unit(&a);
        assert_true(u >= 0 && u < 1);
    }
    sampler_scratch_fini(&s);
}

/* ---- log-probabilities ---- */

static void logprobs_are_of_the_raw_row(void **state)
{
    (void)state;
    const float row[5] = {logf(1), logf(4), logf(2), logf(4), -INFINITY};
    struct logprobs l;
    logprobs_row(&(struct logits){row, NULL, NULL, 5}, 2, 3, &l);
    assert_int_equal(l.n_top, 3);
    assert_float_equal(l.logprob, logf(2.0F / 11), 1e-6);
    const int32_t order[] = {1, 3, 2}; /* equals by lower id */
    for (int i = 0; i < 3; i++)
        assert_int_equal(l.top[i].token, order[i]);
    assert_float_equal(l.top[0].logprob, logf(4.0F / 11), 1e-6);
    assert_float_equal(l.top[2].logprob, logf(2.0F / 11), 1e-6);
    logprobs_row(&(struct logits){row, NULL, NULL, 5}, 4, 0, &l);
    assert_int_equal(l.n_top, 0);
    assert_true(l.logprob == -9999.0F);
    logprobs_row(&(struct logits){row, NULL, NULL, 5}, 0, LOGPROBS_MAX, &l);
    assert_int_equal(l.n_top, 4); /* an impossible token isn't listed */
    float big[100];
    for (int i = 0; i < 100; i++)
        big[i] = (float)(i * 61 % 100);
    logprobs_row(&(struct logits){big, NULL, NULL, 100}, 0, LOGPROBS_MAX, &l);
    assert_int_equal(l.n_top, LOGPROBS_MAX);
    for (uint32_t i = 0; i < LOGPROBS_MAX; i++)
        assert_int_equal(l.top[i].token * 61 % 100, 99 - i);
}

/* Over a whole vocabulary the probabilities sum to 1, and the list agrees with each token's own number. */
static void logprobs_sum_to_one(void **state)
{
    (void)state;
    enum { N = 3000 };
    float *row = mem_array(N, sizeof *row);
    struct logprobs l, one;
    struct rng noise;
    rng_seed(&noise, 11);
    for (int round = 0; round < 6; round++) {
        double sum = 0, spread = (double[]){0.01, 1, 4, 30, 300, 1e6}[round];
        for (uint32_t i = 0; i < N; i++)
            row[i] = (float)(floor(rng_unit(&noise) * 500) / 500 * spread); /* with equals */
        row[7] = -INFINITY;
        logprobs_row(&(struct logits){row, NULL, NULL, N}, 0, LOGPROBS_MAX, &l);
        for (int32_t i = 0; i < N; i++) {
            logprobs_row(&(struct logits){row, NULL, NULL, N}, i, 0, &one);
            sum += exp((double)one.logprob);
            for (uint32_t k = 0; k < l.n_top; k++)
                if (l.top[k].token == i)
                    assert_true(l.top[k].logprob == one.logprob);
        }
        assert_float_equal(sum, 1, 1e-5);
        for (uint32_t k = 1; k < l.n_top; k++)
            assert_true(
                row[l.top[k].token] < row[l.top[k - 1].token] ||
                (row[l.top[k].token] == row[l.top[k - 1].token] && l.top[k].token > l.top[k - 1].token));
    }
    mem_free(row);
}

/* With peaks and the kernels' sums the same tokens come as without, whatever the row and the parameters. */
static void peaks_change_no_token(void **state)
{
    (void)state;
    enum { N = 70000 + 123 };
    float *row = mem_array(N, sizeof *row), *peaks = mem_array(n_peaks_of(N), sizeof *peaks);
    struct sampler_scratch plain = scratch_for(N), fast = scratch_for(N);
    const struct kernels *k;
    struct rng noise, r[2];
    assert_int_equal(kernels_select("auto", ACT_MODE_INT8, &k, NULL), STATUS_OK);
    fast.kernels = k;
    rng_seed(&noise, 11);
    for (int round = 0; round < 60; round++) {
        double spread = round % 4 == 0 ? 0.2 : 1 + 6 * rng_unit(&noise);
        for (uint32_t i = 0; i < N; i++) { /* a bell, with ties in some rounds, and some banned */
            double x = (rng_unit(&noise) + rng_unit(&noise) + rng_unit(&noise)) * spread;
            row[i] = (float)(round % 3 ? x : floor(x * 20) / 20);
            if (rng_unit(&noise) < 0.01)
                row[i] = round % 5 ? -INFINITY : NAN;
        }
        k->peaks(row, N, peaks);
        struct sampling p = neutral();
        p.temperature = round % 6 == 5 ? 0 : (float)(0.02 + 2 * rng_unit(&noise));
        p.top_k = round % 3 == 1 ? (int32_t)(rng_unit(&noise) * 500) : 0;
        p.top_p = round % 4 < 2 ? (float)(0.05 + 0.95 * rng_unit(&noise)) : 1;
        p.min_p = round % 5 == 0 ? (float)(0.2 * rng_unit(&noise)) : 0;
        struct sampler_input in = {.sampling = &p, .logits = row};
        rng_seed(&r[0], (uint64_t)round);
        r[1] = r[0];
        for (int draw = 0; draw < 5; draw++) {
            in.peaks = NULL;
            int32_t want = sampler_pick(&in, &r[0], &plain);
            in.peaks = peaks;
            assert_int_equal(sampler_pick(&in, &r[1], &fast), want);
        }
    }
    sampler_scratch_fini(&plain);
    sampler_scratch_fini(&fast);
    mem_free(peaks);
    mem_free(row);
}

static void scratch_survives_short_memory(void **state)
{
    (void)state;
    struct sampler_scratch s;
    struct error err;
    enum status status = STATUS_NO_MEMORY;
    for (uint64_t n = 1; status != STATUS_OK; n++) {
        mem_fail_at(n);
        status = sampler_scratch_init(&s, 100, plain_argmax, &err);
        mem_fail_at(0);
        assert_true(n < 10);
    }
    sampler_scratch_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(draws_equal_a_full_sort),
        cmocka_unit_test(typical_sets_equal_a_full_sort),
        cmocka_unit_test(greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(extreme_temperatures_stay_sane),
        cmocka_unit_test(bias_moves_and_bans),
        cmocka_unit_test(penalties_follow_their_definitions),
        cmocka_unit_test(cuts_follow_their_definitions),
        cmocka_unit_test(equals_at_a_border_stay_by_lower_id),
        cmocka_unit_test(the_order_decides),
        cmocka_unit_test(penalties_work_anywhere),
        cmocka_unit_test(zero_temperature_takes_the_best_that_is_left),
        cmocka_unit_test(banned_tokens_are_never_taken),
        cmocka_unit_test(seeds_reproduce),
        cmocka_unit_test(logprobs_are_of_the_raw_row),
        cmocka_unit_test(logprobs_sum_to_one),
        cmocka_unit_test(peaks_change_no_token),
        cmocka_unit_test(scratch_survives_short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
