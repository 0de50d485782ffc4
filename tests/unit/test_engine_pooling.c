/* Embeddings through the engine on the fake model, whose hidden states tell position, token and all that came
 * before: each is there once, in order, whatever chunks, pauses and company a prompt has. */
#include "../test.h"

#include "engine_rig.h"

#define N_PROMPTS 12U
#define N_LONG 150U

static int32_t prompts[N_PROMPTS][N_LONG];

static uint32_t length_of(uint32_t i)
{
    return 1 + i * (N_LONG - 1) / (N_PROMPTS - 1);
}

static struct generation pooled(uint32_t i, enum pooling pooling, double out[FAKE_HIDDEN])
{
    for (uint32_t k = 0; k < N_LONG; k++)
        prompts[i][k] = (int32_t)(32 + (i * 31 + k * 7) % 90);
    struct generation g = plain(prompts[i], length_of(i));
    memset(out, 0, FAKE_HIDDEN * sizeof *out);
    g.max_tokens = 0;
    g.pooling = pooling;
    g.pooled = out;
    return g;
}

static void adds_up_each_token_once(void **state)
{
    struct model m = fake_model();
    struct engine *e = engine_with(&m, (struct engine_options){.context = 256, .kv_bytes = 64 * PAGE});
    double out[FAKE_HIDDEN], last[FAKE_HIDDEN];
    (void)state;
    for (uint32_t i = 0; i < N_PROMPTS; i++) {
        struct generation g = pooled(i, POOLING_MEAN, out);
        struct record *r = run_one(e, &g);
        uint32_t n = g.n_prompt;
        double tokens = 0;
        for (uint32_t k = 0; k < n; k++)
            tokens += g.prompt[k];
        assert_int_equal(r->last.kind, EVENT_DONE);
        assert_int_equal(r->n_tokens + r->n_prompt_events + r->text.length, 0);
        assert_true(out[1] == n * (n - 1) / 2 && out[2] == tokens);
        record_free(r);
        g = pooled(i, POOLING_LAST, last);
        record_free(run_one(e, &g));
        assert_true(last[1] == n - 1 && last[2] == g.prompt[n - 1]);
        assert_true(n > 1 || last[0] == out[0]);
    }
    engine_destroy(e);
}

/* Few pages, small steps, and others that generate and are scored beside: the same sums to the last bit. */
static void company_does_not_show(void **state)
{
    struct model m = fake_model();
    struct engine *e = engine_with(&m, (struct engine_options){.context = 256, .kv_bytes = 64 * PAGE});
    static double alone[2][N_PROMPTS][FAKE_HIDDEN], crowd[2][N_PROMPTS][FAKE_HIDDEN];
    struct engine_stats stats;
    (void)state;
    for (uint32_t i = 0; i < 2 * N_PROMPTS; i++) {
        struct generation g = pooled(i / 2, i % 2 ? POOLING_LAST : POOLING_MEAN, alone[i % 2][i / 2]);
        record_free(run_one(e, &g));
    }
    engine_destroy(e);
    e = engine_with(&m, (struct engine_options){
                            .context = 256, .kv_bytes = 13 * PAGE, .n_sequences = 12, .step_tokens = 20});
    struct record *records = mem_array(3 * N_PROMPTS, sizeof *records);
    assert_non_null(records);
    for (uint32_t i = 0; i < 3 * N_PROMPTS; i++) {
        uint32_t at = i / 3;
        struct generation g = plain(prompts[at], length_of(at));
        g.max_tokens = 90;
        g.ignore_eos = true;
        if (at % 4 == 0 && length_of(at) > 1)
            g.n_prompt_logprobs = 2;
        if (i % 3 < 2)
            g = pooled(at, i % 3 ? POOLING_LAST : POOLING_MEAN, crowd[i % 3][at]);
        records[i].id = submit(e, &g);
    }
    gather(e, records, 3 * N_PROMPTS);
    for (uint32_t i = 0; i < 3 * N_PROMPTS; i++) {
        assert_int_equal(records[i].last.kind, EVENT_DONE);
        record_fini(&records[i]);
    }
    assert_memory_equal(alone, crowd, sizeof alone);
    engine_stats(e, &stats);
    assert_true(stats.n_preemptions > 0);
    assert_int_equal(stats.step_allocations, 0);
    mem_free(records);
    engine_destroy(e);
}

static void wrong_ones_are_refused(void **state)
{
    struct model m = fake_model();
    struct engine *e = engine_with(&m, (struct engine_options){.context = 256, .kv_bytes = 64 * PAGE});
    struct lora broken = {.refs = 1, .model = &m, .digest = {FAKE_BROKEN}};
    double out[FAKE_HIDDEN];
    struct error err;
    uint64_t id;
    (void)state;
    struct generation g = pooled(3, POOLING_MEAN, out);
    g.max_tokens = 1;
    assert_int_equal(engine_submit(e, &g, &id, &err), STATUS_INVALID);
    g = pooled(3, POOLING_MEAN, out);
    g.pooled = NULL;
    assert_int_equal(engine_submit(e, &g, &id, &err), STATUS_INVALID);
    g = pooled(3, POOLING_MEAN, out);
    g.lora = &broken;
    struct record *r = run_one(e, &g);
    assert_int_equal(r->last.kind, EVENT_FAILED);
    record_free(r);
    engine_destroy(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adds_up_each_token_once),
        cmocka_unit_test(company_does_not_show),
        cmocka_unit_test(wrong_ones_are_refused),
    };
    return cmocka_run_group_tests(tests, make_tokenizer, drop_tokenizer);
}
