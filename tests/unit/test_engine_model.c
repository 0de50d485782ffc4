/* The engine on real tiny models: all golden cases of a family, base and adapters, as one mixed crowd against
 * PEFT's greedy tokens and log-probabilities; and that crowd against itself, to the bit, for any number of
 * threads, any chunks, and a KV cache so small that sequences are paused. Run under ThreadSanitizer too. */
#include "tests/test.h"

#include "engine_family.h"

/* ---- against PEFT ---- */

/* The golden logit of a token, NAN if it isn't among those listed. */
static double golden_logit(const json_t *last, int32_t token)
{
    const json_t *ids = json_object_get(last, "top_ids"), *values = json_object_get(last, "top_logits");
    for (size_t i = 0; i < json_array_size(ids); i++)
        if (json_integer_value(json_array_get(ids, i)) == token)
            return json_number_value(json_array_get(values, i));
    return NAN;
}

/* logit - logprob is the logarithm of the softmax' sum, the same for all alternatives, and it lies between
 * what the listed logits sum to and what they would if all others equalled the last of them. */
static void check_sum(const struct golden_case *c, const json_t *last, uint32_t n_vocab, double log_sum)
{
    const json_t *values = json_object_get(last, "top_logits");
    size_t n = json_array_size(values);
    double sum = 0, least = json_number_value(json_array_get(values, n - 1));
    for (size_t i = 0; i < n; i++)
        sum += exp(json_number_value(json_array_get(values, i)));
    if (log_sum < log(sum) - 1e-3 || log_sum > log(sum + (double)(n_vocab - n) * exp(least)) + 1e-3)
        fail_msg("%s: the softmax' sum is e^%g, the listed logits make e^%g", c->what, log_sum, log(sum));
}

/* The alternatives of the first generated token: golden order and differences; never rising; the chosen one's
 * number is its own entry's. */
static void check_top(const struct golden_case *c, const struct outcome *r, uint32_t n_vocab)
{
    const json_t *last = json_object_get(c->golden, "last");
    const struct token_logprob *top = r->top[0];
    double before = INFINITY, log_sum = golden_logit(last, top[0].token) - (double)top[0].logprob;
    for (uint32_t k = 0; k < N_TOP; k++) {
        double logit = golden_logit(last, top[k].token);
        if (!(logit <= before + 2e-3) || fabs(logit - (double)top[k].logprob - log_sum) > 2e-3)
            fail_msg("%s: alternative %u is token %d at %g, its logit %g", c->what, k, top[k].token,
                     (double)top[k].logprob, logit);
        assert_true(k == 0 || top[k].logprob <= top[k - 1].logprob);
        before = logit;
    }
    check_sum(c, last, n_vocab, log_sum);
    for (uint32_t i = 0; i < r->n_tokens; i++) /* greedy: always the first */
        assert_true(r->tokens[i] == r->top[i][0].token && r->logprobs[i] == r->top[i][0].logprob);
}

static void check_family(const char *name)
{
    struct golden_family *f = open_family(name);
    struct engine *e = engine_with(f, &(struct engine_options){.n_threads = 2, .context = 256});
    struct outcome *r = mem_array(f->n_cases, sizeof *r);
    for (uint32_t i = 0; i < f->n_cases; i++) {
        const json_t *greedy = json_object_get(f->cases[i].golden, "greedy");
        struct generation g = generation_of(&f->cases[i], (uint32_t)json_array_size(greedy));
        submit(e, &g, &r[i]);
    }
    gather(e, r, f->n_cases);
    for (uint32_t i = 0; i < f->n_cases; i++) {
        check_golden(&f->cases[i], &r[i]);
        check_top(&f->cases[i], &r[i], model_config(f->model)->vocab_size);
    }
    struct engine_stats s;
    engine_stats(e, &s);
    assert_int_equal(s.step_allocations, 0);
    engine_destroy(e);
    outcomes_free(r, f->n_cases);
    close_family(f);
}

static void llama_speaks_as_peft_in_one_crowd(void **state)
{
    (void)state;
    check_family("llama");
}

static void qwen2_speaks_as_peft_in_one_crowd(void **state)
{
    (void)state;
    check_family("qwen2");
}

static void qwen3_speaks_as_peft_in_one_crowd(void **state)
{
    (void)state;
    check_family("qwen3");
}

static void gemma3_speaks_as_peft_in_one_crowd(void **state)
{
    (void)state;
    check_family("gemma3");
}

/* ---- against itself ---- */

static struct generation sampled(const struct golden_family *f, uint32_t i)
{
    struct generation g = generation_of(&f->cases[i], 40 + i * 11 % 80);
    g.sampling.temperature = i % 3 ? 0.3F * (float)(i % 4 + 1) : 0;
    g.sampling.seed = i;
    g.sampling.top_p = i % 4 == 1 ? 0.8F : 1;
    g.sampling.top_k = i % 4 == 2 ? 12 : 0;
    g.sampling.repetition_penalty = i % 5 == 3 ? 1.2F : 1;
    return g;
}

static void check_crowd(const struct golden_family *f, struct outcome *alone, const struct engine_options *o,
                        bool pauses)
{
    struct engine *e = engine_with(f, o);
    struct outcome *r = mem_array(f->n_cases, sizeof *r);
    for (uint32_t i = 0; i < f->n_cases; i++) {
        struct generation g = sampled(f, i);
        submit(e, &g, &r[i]);
    }
    gather(e, r, f->n_cases);
    for (uint32_t i = 0; i < f->n_cases; i++) {
        assert_int_equal(r[i].n_tokens, alone[i].n_tokens);
        assert_memory_equal(r[i].tokens, alone[i].tokens, sizeof r[i].tokens);
        assert_memory_equal(r[i].logprobs, alone[i].logprobs, sizeof r[i].logprobs);
        assert_memory_equal(r[i].prompt_logprobs, alone[i].prompt_logprobs, sizeof r[i].prompt_logprobs);
        assert_memory_equal(r[i].top, alone[i].top, sizeof r[i].top);
        assert_int_equal(r[i].text.length, alone[i].text.length);
        if (r[i].text.length)
            assert_memory_equal(r[i].text.data, alone[i].text.data, r[i].text.length);
    }
    struct engine_stats s;
    engine_stats(e, &s);
    assert_true(!pauses || s.n_preemptions > 0);
    assert_true(o->speculation != SPECULATION_ALWAYS ||
                (s.n_drafts_right > 50 && s.n_drafted > s.n_drafts_right));
    engine_destroy(e);
    outcomes_free(r, f->n_cases);
}

static void alone_equals_crowd_to_the_bit(void **state)
{
    (void)state;
    struct golden_family *f = open_family("llama");
    struct kv_shape shape = model_kv_shape(f->model, model_kv_type(f->model, "auto"));
    uint64_t page = kv_page_bytes(&shape);
    struct outcome *alone = mem_array(f->n_cases, sizeof *alone);
    struct engine *e = engine_with(
        f,
        &(struct engine_options){.n_threads = 1, .n_sequences = 1, .context = 256, .prefix_cache_off = true});
    for (uint32_t i = 0; i < f->n_cases; i++) {
        struct generation g = sampled(f, i);
        submit(e, &g, &alone[i]);
        gather(e, &alone[i], 1);
    }
    engine_destroy(e);
    const struct engine_options ways[] = {
        {.n_threads = 1, .context = 256, .chunk_tokens = 7},
        {.n_threads = 2, .context = 256, .step_tokens = 512, .chunk_tokens = 512},
        {.n_threads = 2, .context = 256, .chunk_tokens = 1, .n_sequences = 6},
        {.n_threads = 2, .context = 256, .kv_bytes = 9 * page},
        {.n_threads = 1, .context = 256, .kv_bytes = 14 * page, .chunk_tokens = 7},
        {.n_threads = 2, .context = 256, .speculation = SPECULATION_ALWAYS},
        {.n_threads = 2, .context = 256, .kv_bytes = 9 * page, .speculation = SPECULATION_ALWAYS},
        {.n_threads = 1, .context = 256, .n_sequences = 2, .speculation = SPECULATION_AUTO},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        check_crowd(f, alone, &ways[i], ways[i].kv_bytes > 0);
    outcomes_free(alone, f->n_cases);
    close_family(f);
}

/* ---- what is found against what is computed ---- */

#define N_LONG 160U

/* Case i's adapter behind one of two beginnings, which are other cases' prompts one behind another. */
static struct generation longer(const struct golden_family *f, uint32_t i, int32_t prompt[N_LONG])
{
    uint32_t n = 0, n_same = 60 + i * 13 % 80;
    struct generation g = sampled(f, i);
    for (uint32_t c = 0; n < N_LONG; c++) {
        const struct golden_case *from = &f->cases[((n < n_same ? i % 2 : i) + c) % f->n_cases];
        for (uint32_t t = 0; t < from->n_prompt && n < N_LONG; t++)
            prompt[n++] = from->prompt[t];
    }
    g.prompt = prompt;
    g.n_prompt = N_LONG - i % 30;
    g.max_tokens = 8 + i % 40;
    g.n_prompt_logprobs = -1;
    return g;
}

static void expect_same(const struct outcome *a, const struct outcome *b)
{
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_memory_equal(a->tokens, b->tokens, sizeof a->tokens);
    assert_memory_equal(a->logprobs, b->logprobs, sizeof a->logprobs);
    assert_memory_equal(a->top, b->top, sizeof a->top);
}

/* Twice in one engine: what the first round leaves the second finds, and both say what was computed. */
static void check_found(const struct golden_family *f, const struct outcome *computed,
                        const struct engine_options *o)
{
    struct engine *e = engine_with(f, o);
    int32_t prompt[N_LONG];
    uint32_t n_cached = 0, n = f->n_cases;
    for (uint32_t round = 0; round < 2; round++) {
        struct outcome *r = mem_array(n, sizeof *r);
        for (uint32_t i = 0; i < n; i++) {
            struct generation g = longer(f, i, prompt);
            submit(e, &g, &r[i]);
        }
        gather(e, r, n);
        for (uint32_t i = 0; i < n; i++) {
            expect_same(&r[i], &computed[i]);
            n_cached += r[i].last.n_cached;
        }
        outcomes_free(r, n);
    }
    assert_true(n_cached > n * 20);
    struct engine_stats s;
    engine_stats(e, &s);
    assert_int_equal(s.kv_pages_free, s.kv_pages);
    assert_int_equal(s.step_allocations, 0);
    engine_destroy(e);
}

static void check_found_in(const char *name)
{
    struct golden_family *f = open_family(name);
    struct kv_shape shape = model_kv_shape(f->model, model_kv_type(f->model, "auto"));
    struct outcome *computed = mem_array(f->n_cases, sizeof *computed);
    struct engine *e = engine_with(
        f,
        &(struct engine_options){.n_threads = 1, .n_sequences = 1, .context = 256, .prefix_cache_off = true});
    int32_t prompt[N_LONG];
    for (uint32_t i = 0; i < f->n_cases; i++) {
        struct generation g = longer(f, i, prompt);
        submit(e, &g, &computed[i]);
        gather(e, &computed[i], 1);
        assert_int_equal(computed[i].last.n_cached, 0);
    }
    engine_destroy(e);
    check_found(f, computed, &(struct engine_options){.n_threads = 2, .context = 256});
    check_found(f, computed,
                &(struct engine_options){.n_threads = 2,
                                         .context = 256,
                                         .n_sequences = 5,
                                         .chunk_tokens = 40,
                                         .kv_bytes = 26 * (uint64_t)kv_page_bytes(&shape)});
    outcomes_free(computed, f->n_cases);
    close_family(f);
}

static void found_equals_computed_to_the_bit(void **state)
{
    (void)state;
    check_found_in("llama");
    check_found_in("gemma3"); /* sliding windows */
}

/* ---- shadows ---- */

/* Half of the cases have their own adapter as a shadow, half another one. */
static void shadows_score_real_adapters(void **state)
{
    (void)state;
    struct golden_family *f = open_family("llama");
    struct outcome *r = mem_array(f->n_cases, sizeof *r);
    struct engine *e =
        engine_with(f, &(struct engine_options){.n_threads = 2, .context = 256, .step_tokens = 1024});
    double kl_self = 0, kl_other = 0;
    uint32_t n_other = 0, n_agree = 0;
    for (uint32_t i = 0; i < f->n_cases; i++) {
        const struct golden_case *c = &f->cases[i];
        struct generation g =
            generation_of(c, (uint32_t)json_array_size(json_object_get(c->golden, "greedy")));
        g.shadow_lora = i % 2 ? c->lora : f->adapters[i % f->n_adapters]->lora;
        submit(e, &g, &r[i]);
        if (i % SHADOWS_MAX == SHADOWS_MAX - 1 || i + 1 == f->n_cases)
            gather(e, &r[i / SHADOWS_MAX * SHADOWS_MAX], i % SHADOWS_MAX + 1);
    }
    for (uint32_t i = 0; i < f->n_cases; i++) {
        const struct shadow_score *s = &r[i].last.shadow;
        check_golden(&f->cases[i], &r[i]); /* whoever scores along */
        if (i % 2 && !f->cases[i].lora)
            continue; /* the base has no shadow here */
        assert_true(!s->dropped && s->n_failed == 0 && s->n_tokens == r[i].n_tokens);
        assert_true(s->n_served == s->n_agree); /* greedy */
        if (i % 2 || f->adapters[i % f->n_adapters]->lora == f->cases[i].lora) {
            kl_self += s->kl_sum;
            assert_int_equal(s->n_agree, s->n_tokens);
        } else {
            kl_other += s->kl_sum;
            n_other += s->n_tokens;
            n_agree += s->n_agree;
        }
    }
    assert_true(kl_self == 0); /* the same adapter gives the same bits, in whatever company */
    assert_true(n_other > 100 && n_agree < n_other && kl_other / n_other > 0.01);
    struct engine_stats stats;
    engine_stats(e, &stats);
    assert_int_equal(stats.step_allocations, 0);
    engine_destroy(e);
    outcomes_free(r, f->n_cases);
    close_family(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_speaks_as_peft_in_one_crowd),
        cmocka_unit_test(qwen2_speaks_as_peft_in_one_crowd),
        cmocka_unit_test(qwen3_speaks_as_peft_in_one_crowd),
        cmocka_unit_test(gemma3_speaks_as_peft_in_one_crowd),
        cmocka_unit_test(alone_equals_crowd_to_the_bit),
        cmocka_unit_test(found_equals_computed_to_the_bit),
        cmocka_unit_test(shadows_score_real_adapters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
