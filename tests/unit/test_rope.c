/* core/model/rope.c against transformers' LlamaRotaryEmbedding: frequencies and angles of each kind of
 * scaling. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "model_inner.h"

/* Reference values: inv_freq[0, 1, n/2, n-2, n-1], then cos and sin at `position` of pairs 0, n/2, n-1, as
 * transformers 5.23 gives them. */
struct expectation {
    const char *name;
    struct rope_config config;
    uint32_t head_dim, max_position, position;
    double scale, frequency[5], cos_sin[3][2];
};

static const struct expectation table[] = {
    {"default",
     {.type = ROPE_DEFAULT, .theta = 10000},
     64,
     2048,
     999,
     1,
     {1, 0.7498942017555237, 0.009999999776482582, 0.00017782794020604342, 0.0001333521504420787},
     {{0.9996498227119446, -0.02646075189113617},
      {-0.8444697856903076, -0.5356031656265259},
      {0.9911394715309143, 0.13282510638237}}},
    {"linear",
     {.type = ROPE_LINEAR, .theta = 1e6, .factor = 8},
     32,
     2048,
     999,
     1,
     {0.125, 0.05271206423640251, 0.0001250000059371814, 7.029266839708725e-07, 2.964217173939687e-07},
     {{0.7047638297080994, -0.7094420194625854},
      {0.992213249206543, 0.1245507150888443},
      {0.9999999403953552, 0.0002961253048852086}}},
    {"llama3",
     {.type = ROPE_LLAMA3,
      .theta = 500000,
      .factor = 8,
      .low_freq_factor = 1,
      .high_freq_factor = 4,
      .original_max_position = 8192},
     128,
     131072,
     999,
     1,
     {1, 0.8146172165870667, 0.0005248460220173001, 3.76732259610435e-07, 3.068925877869333e-07},
     {{0.9996498227119446, -0.02646075189113617},
      {0.8656639456748962, 0.500625491142273},
      {0.9999999403953552, 0.000306585687212646}}},
    {"yarn",
     {.type = ROPE_YARN, .theta = 1e6, .factor = 4, .original_max_position = 32768, .truncate = true},
     128,
     131072,
     999,
     1.138629436111989,
     {1, 0.8058422207832336, 0.0006029411451891065, 3.8498163235090033e-07, 3.102344408034696e-07},
     {{1.1382306814193726, -0.03012899123132229},
      {0.9382455945014954, 0.6451140642166138},
      {1.1386293172836304, 0.0003528888337314129}}},
    {"yarn with betas and mscales",
     {.type = ROPE_YARN,
      .theta = 10000,
      .factor = 16,
      .original_max_position = 4096,
      .beta_fast = 16,
      .beta_slow = 2,
      .mscale = 0.707,
      .mscale_all_dim = 1,
      .truncate = true},
     64,
     65536,
     999,
     0.9363975061530204,
     {1, 0.7498942017555237, 0.005833333358168602, 1.1114246262877714e-05, 8.33450940262992e-06},
     {{0.9360696077346802, -0.02477778121829033},
      {0.8408471345901489, -0.4120878577232361},
      {0.9363650679588318, 0.007796519435942173}}},
    {"yarn, not truncated, with a factor of its own",
     {.type = ROPE_YARN,
      .theta = 10000,
      .factor = 16,
      .original_max_position = 4096,
      .attention_factor = 1.25},
     64,
     65536,
     999,
     1.25,
     {1, 0.7498942017555237, 0.0056962138041853905, 1.1114246262877714e-05, 8.33450940262992e-06},
     {{1.2495622634887695, -0.03307593986392021},
      {1.0368167161941528, -0.6982198357582092},
      {1.249956727027893, 0.010407598689198494}}},
    {"dynamic, within the trained length",
     {.type = ROPE_DYNAMIC, .theta = 10000, .factor = 2},
     64,
     2048,
     1499,
     1,
     {1, 0.7498942017555237, 0.009999999776482582, 0.00017782794020604342, 0.0001333521504420787},
     {{-0.8959174156188965, -0.4442206919193268},
      {-0.7531470060348511, 0.6578522324562073},
      {0.9800874590873718, 0.19856630265712738}}},
    {"dynamic, beyond it",
     {.type = ROPE_DYNAMIC, .theta = 10000, .factor = 2},
     64,
     2048,
     4999,
     1,
     {1, 0.7498942017555237, 0.009999999776482582, 0.00017782794020604342, 0.0001333521504420787},
     {{-0.7477774024009705, -0.6639495491981506},
      {0.95159512758255, -0.3073543608188629},
      {0.9852979779243469, 0.17084452509880066}}},
};

static void equals_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const struct expectation *e = &table[i];
        struct rope r;
        struct error err;
        float c[ROPE_HALF_MAX], s[ROPE_HALF_MAX];
        assert_int_equal(rope_init(&r, &e->config, e->head_dim, e->max_position, &err), STATUS_OK);
        assert_int_equal(r.n_half, e->head_dim / 2);
        assert_true(fabs(r.scale - e->scale) < 1e-6);
        uint32_t n = r.n_half, at[5] = {0, 1, n / 2, n - 2, n - 1}, pairs[3] = {0, n / 2, n - 1};
        for (int k = 0; k < 5; k++)
            assert_true(fabs(r.inv_freq[at[k]] / e->frequency[k] - 1) < 3e-7);
        rope_row(&r, e->position, (struct rope_length){0, e->position + 1}, c, s);
        for (int k = 0; k < 3; k++) {
            /* a frequency that is one unit off in the last place turns the angle by position * 2^-24 *
             * frequency */
            double bound = 1e-6 + e->position * r.inv_freq[pairs[k]] * 2.4e-7 * r.scale;
            if (fabs(c[pairs[k]] - e->cos_sin[k][0]) > bound || fabs(s[pairs[k]] - e->cos_sin[k][1]) > bound)
                print_message("%s: pair %u: %g %g\n", e->name, pairs[k], (double)c[pairs[k]],
                              (double)s[pairs[k]]);
            assert_true(fabs(c[pairs[k]] - e->cos_sin[k][0]) <= bound);
            assert_true(fabs(s[pairs[k]] - e->cos_sin[k][1]) <= bound);
        }
    }
}

/* GGUF files spell Llama 3's scaling out as divisors: both ways give the same frequencies. */
static void divisors_equal_the_formula(void **state)
{
    (void)state;
    struct rope plain, formula, spelled;
    struct rope_config c = table[2].config, p = {.type = ROPE_DEFAULT, .theta = c.theta};
    struct rope_config d = {.type = ROPE_LLAMA3, .theta = c.theta, .n_factors = 64};
    struct error err;
    assert_int_equal(rope_init(&plain, &p, 128, 131072, &err), STATUS_OK);
    assert_int_equal(rope_init(&formula, &c, 128, 131072, &err), STATUS_OK);
    for (int i = 0; i < 64; i++)
        d.long_factors[i] = plain.inv_freq[i] / formula.inv_freq[i];
    assert_true(d.long_factors[0] == 1 && d.long_factors[63] == 8);
    assert_int_equal(rope_init(&spelled, &d, 128, 131072, &err), STATUS_OK);
    for (int i = 0; i < 64; i++)
        assert_true(fabsf(spelled.inv_freq[i] / formula.inv_freq[i] - 1) < 3e-7F);
}

/* transformers' _compute_longrope_parameters: which factors hold is decided by the sequence's length, one
 * factor scales both. */
static void longrope_looks_at_the_length(void **state)
{
    (void)state;
    struct rope r;
    struct error err;
    struct rope_config c = {.type = ROPE_LONGROPE,
                            .theta = 10000,
                            .factor = 4,
                            .original_max_position = 32,
                            .n_factors = 2,
                            .short_factors = {1, 2},
                            .long_factors = {4, 8}};
    float s[2][2], l[2][2], again[2][2];
    assert_int_equal(rope_init(&r, &c, 4, 128, &err), STATUS_OK);
    double scale = sqrt(1 + log(4.0) / log(32.0));
    assert_true(fabs((double)r.scale - scale) < 1e-6);
    rope_row(&r, 9, (struct rope_length){32, 32}, s[0], s[1]);
    rope_row(&r, 9, (struct rope_length){33, 33}, l[0], l[1]);
    rope_row(&r, 9, (struct rope_length){4, 70}, again[0], again[1]);
    assert_memory_equal(l, again, sizeof l);
    const double divisors[2][2] = {{1, 200}, {4, 800}};
    for (int i = 0; i < 2; i++) {
        assert_true(fabs((double)s[0][i] - scale * cos(9 / divisors[0][i])) < 1e-6);
        assert_true(fabs((double)l[1][i] - scale * sin(9 / divisors[1][i])) < 1e-6);
    }
    c.attention_factor = 1.5;
    assert_int_equal(rope_init(&r, &c, 4, 128, &err), STATUS_OK);
    assert_true(r.scale == 1.5F);
}

/* Beyond the trained length a prompt has the frequencies of its whole length, wherever it is cut. */
static void dynamic_looks_at_the_prompt(void **state)
{
    (void)state;
    struct rope r;
    struct error err;
    struct rope_config c = {.type = ROPE_DYNAMIC, .theta = 10000, .factor = 2};
    float whole[2][8], end[2][8], early[2][8];
    assert_int_equal(rope_init(&r, &c, 16, 64, &err), STATUS_OK);
    rope_row(&r, 30, (struct rope_length){100, 40}, whole[0], whole[1]);
    rope_row(&r, 30, (struct rope_length){100, 110}, end[0], end[1]);
    rope_row(&r, 30, (struct rope_length){20, 110}, early[0], early[1]);
    assert_memory_equal(whole, end, sizeof whole);
    assert_memory_not_equal(whole, early, sizeof whole);
    float base = 10000.0F * powf(2.0F * 100 / 64 - 1, 16.0F / 14);
    assert_true(fabsf(whole[0][1] - cosf(30 / powf(base, 2.0F / 16))) < 1e-4F);
}

static void partial_rotation(void **state)
{
    (void)state;
    struct rope r;
    struct error err;
    struct rope_config c = {.type = ROPE_DEFAULT, .theta = 10000, .partial_factor = 0.75};
    assert_int_equal(rope_init(&r, &c, 16, 512, &err), STATUS_OK);
    assert_int_equal(r.n_half, 6);
    assert_true(fabsf(r.inv_freq[1] - powf(10000, -2.0F / 12)) < 1e-7F);
}

static void refuses(void **state)
{
    (void)state;
    static const struct {
        struct rope_config config;
        uint32_t head_dim;
        const char *text;
    } bad[] = {
        {{.type = ROPE_DEFAULT, .theta = 0}, 64, "rope_theta is 0"},
        {{.type = ROPE_DEFAULT, .theta = NAN}, 64, "rope_theta is"},
        {{.type = ROPE_LINEAR, .theta = 1e4}, 64, "factor is 0"},
        {{.type = ROPE_LLAMA3, .theta = 1e4, .factor = 8}, 64, "original_max_position_embeddings is missing"},
        {{.type = ROPE_LLAMA3, .theta = 1e4, .factor = 8, .original_max_position = 8, .low_freq_factor = 4},
         64,
         "expected 0 < low < high"},
        {{.type = ROPE_LONGROPE, .theta = 1e4, .factor = 8, .original_max_position = 64},
         64,
         "longrope has no"},
        {{.type = ROPE_DEFAULT, .theta = 1e4}, 1024, "1024 of 1024 values of a head"},
        {{.type = ROPE_DEFAULT, .theta = 1e4, .n_factors = 3}, 64, "3 frequency factors, expected 32"},
        {{.type = ROPE_LLAMA3, .theta = 1e4, .n_factors = 2, .long_factors = {1, -1}},
         4,
         "frequency factor 1 is -1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct rope r;
        struct error err;
        assert_int_not_equal(rope_init(&r, &bad[i].config, bad[i].head_dim, 512, &err), STATUS_OK);
        if (!strstr(err.text, bad[i].text))
            print_message("%s, expected: %s\n", err.text, bad[i].text);
        assert_non_null(strstr(err.text, bad[i].text));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_transformers),
        cmocka_unit_test(divisors_equal_the_formula),
        cmocka_unit_test(longrope_looks_at_the_length),
        cmocka_unit_test(dynamic_looks_at_the_prompt),
        cmocka_unit_test(partial_rotation),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
