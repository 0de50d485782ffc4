/* The engine on a model made of arithmetic: that outputs depend on the generation alone, that every id ends
 * exactly once, that pauses, cancellations and limits do what the door says. Run under ThreadSanitizer too.
 */
#include "tests/test.h"

#include "engine_rig.h"

static void alone_equals_crowd_however_it_runs(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct crowd *c = crowd_create(&m);
    struct record *alone = mem_array(N_CROWD, sizeof *alone);
    struct engine *e = engine_with(&m, (struct engine_options){.n_sequences = 1, .context = 512});
    for (uint32_t i = 0; i < N_CROWD; i++) {
        alone[i].id = submit(e, &c->g[i]);
        gather(e, &alone[i], 1);
    }
    engine_destroy(e);
    const struct engine_options ways[] = {
        {.context = 512, .n_threads = 1},
        {.context = 512, .n_threads = 2, .chunk_tokens = 7},
        {.context = 512, .n_threads = 3, .chunk_tokens = 1, .n_sequences = 5},
        {.context = 512, .n_threads = 2, .step_tokens = 512, .chunk_tokens = 512},
        {.context = 512, .n_threads = 2, .step_tokens = 16, .n_sequences = 16},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        check_crowd(&m, c, alone, ways[i], false);
    const struct engine_options tight[] = {
        {.context = 512, .n_threads = 2, .kv_bytes = 20 * PAGE},
        {.context = 512, .n_threads = 1, .kv_bytes = 17 * PAGE, .chunk_tokens = 7, .n_sequences = 8},
    };
    for (size_t i = 0; i < sizeof tight / sizeof *tight; i++)
        check_crowd(&m, c, alone, tight[i], true);
    for (uint32_t i = 0; i < N_CROWD; i++)
        record_fini(&alone[i]);
    mem_free(alone);
    mem_free(c);
}

/* The text of the events is the text of the tokens, when nothing stops. */
static void texts_are_those_of_the_tokens(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, (struct engine_options){.context = 1024});
    const int32_t prompt[] = {1, 2, 3};
    for (uint32_t i = 0; i < 6; i++) {
        struct generation g = plain(prompt, 3);
        g.max_tokens = 300;
        g.ignore_eos = true;
        g.skip_special_tokens = i % 2;
        g.sampling.temperature = 3; /* bytes of all kinds */
        g.sampling.seed = i;
        const char *const never[] = {"never, never ever"};
        g.stop_strings = never;
        g.n_stop_strings = i % 3 == 0;
        struct record *r = run_one(e, &g);
        struct buf whole;
        buf_init(&whole, 0);
        assert_int_equal(r->n_tokens, 300);
        assert_int_equal(r->last.reason, FINISH_LENGTH);
        assert_int_equal(
            tokenizer_decode(text_of_tests.tokenizer, r->tokens, r->n_tokens, i % 2, &whole, NULL),
            STATUS_OK);
        assert_int_equal(r->text.length, whole.length);
        assert_memory_equal(r->text.data, whole.data, whole.length);
        buf_fini(&whole);
        record_free(r);
    }
    engine_destroy(e);
}

/* ---- ends ---- */

/* Forces the output: the n-th generated token by a bias can't be, so one token for ever. */
static struct generation always(const struct logit_bias *bias)
{
    struct generation g = plain(prompt_abc, 3);
    g.sampling.logit_bias = bias;
    g.sampling.n_logit_bias = 1;
    return g;
}

static void check_end(struct engine *e, const struct generation *g, enum finish_reason reason,
                      uint32_t n_tokens, const char *text)
{
    struct record *r = run_one(e, g);
    assert_int_equal(r->last.kind, EVENT_DONE);
    assert_int_equal(r->last.reason, reason);
    assert_int_equal(r->n_tokens, n_tokens);
    assert_int_equal(r->last.n_generated, n_tokens);
    assert_int_equal(r->last.n_prompt, g->n_prompt);
    assert_int_equal(r->last.n_cached, 0);
    assert_string_equal(r->text.length ? r->text.data : "", text);
    record_free(r);
}

static void each_end_has_its_reason(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, (struct engine_options){.context = 64});
    const struct logit_bias x = {'x', 100}, eos = {FAKE_EOS, 100}, eos_text = {FAKE_EOS_TEXT, 100};
    struct generation g = always(&x);
    check_end(e, &g, FINISH_LENGTH, 10, "xxxxxxxxxx");
    g.max_tokens = 0xffffffffU; /* clipped to the context */
    g.min_tokens = 50;
    struct record *r = run_one(e, &g);
    assert_int_equal(r->n_tokens, 61);
    record_free(r);

    g = always(&eos);
    check_end(e, &g, FINISH_STOP, 1, "");
    g = always(&eos_text); /* the tokenizer's end counts too */
    check_end(e, &g, FINISH_STOP, 1, "");
    g.skip_special_tokens = false;
    check_end(e, &g, FINISH_STOP, 1, "");
    g.include_stop = true;
    check_end(e, &g, FINISH_STOP, 1, "<s1>");
    g = always(&eos);
    g.ignore_eos = true;
    check_end(e, &g, FINISH_LENGTH, 10, "");
    g = always(&eos);
    g.min_tokens = 4; /* banned for four tokens, then taken */
    r = run_one(e, &g);
    assert_int_equal(r->n_tokens, 5);
    assert_int_equal(r->tokens[4], FAKE_EOS);
    assert_int_equal(r->last.stop_token, FAKE_EOS);
    record_free(r);

    const int32_t stop_x[] = {'y', 'x'};
    g = always(&x);
    g.stop_tokens = stop_x;
    g.n_stop_tokens = 2;
    check_end(e, &g, FINISH_STOP, 1, "");
    g.include_stop = true;
    check_end(e, &g, FINISH_STOP, 1, "x");
    const char *const stops[] = {"nothing", "xxx"};
    g = always(&x);
    g.stop_strings = stops;
    g.n_stop_strings = 2;
    check_end(e, &g, FINISH_STOP, 3, "");
    g.include_stop = true;
    check_end(e, &g, FINISH_STOP, 3, "xxx");
    g.include_stop = false;
    g.min_tokens = 5; /* the search begins behind them */
    check_end(e, &g, FINISH_STOP, 8, "xxxxx");
    g.min_tokens = 0;
    g.max_tokens = 2; /* what was held back comes out */
    check_end(e, &g, FINISH_LENGTH, 2, "xx");
    r = run_one(e, &g);
    assert_int_equal(r->last.stop_string_index, -1);
    record_free(r);
    const struct logit_bias half = {0xc3, 100};
    g = always(&half);
    g.max_tokens = 1;
    check_end(e, &g, FINISH_LENGTH, 1, "\xef\xbf\xbd"); /* half a character ends as U+FFFD */
    engine_destroy(e);
}

static void nothing_to_choose_from_fails(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct logit_bias ban[FAKE_VOCAB];
    for (int32_t i = 0; i < (int32_t)FAKE_VOCAB; i++)
        ban[i] = (struct logit_bias){i, -INFINITY};
    struct engine *e = engine_with(&m, (struct engine_options){.context = 64});
    struct generation g = plain(prompt_abc, 3);
    g.sampling.logit_bias = ban;
    g.sampling.n_logit_bias = FAKE_VOCAB;
    struct record *r = run_one(e, &g);
    assert_int_equal(r->last.kind, EVENT_FAILED);
    assert_int_equal(r->last.error.status, STATUS_INVALID);
    assert_non_null(strstr(r->last.error.text, "logit_bias"));
    assert_false(r->last.non_finite);
    record_free(r);
    engine_destroy(e);
    m.all_nan = true;
    e = engine_with(&m, (struct engine_options){.context = 64});
    g = plain(prompt_abc, 3);
    r = run_one(e, &g);
    assert_int_equal(r->last.error.status, STATUS_INTERNAL);
    assert_true(r->last.non_finite);
    record_free(r);
    g.sampling.logit_bias = ban; /* bans don't hide that the model is at fault */
    g.sampling.n_logit_bias = 3;
    r = run_one(e, &g);
    assert_true(r->last.non_finite);
    record_free(r);
    g.sampling.n_logit_bias = 0;
    struct lora heavy = {.refs = 1, .model = &m, .t_max = 5000};
    g.lora = &heavy;
    r = run_one(e, &g);
    assert_int_equal(r->last.error.status, STATUS_NO_MEMORY);
    assert_int_equal(heavy.refs, 1);
    record_free(r);
    engine_destroy(e);
}

static void prompts_are_scored(void **state)
{
    (void)state;
    struct model m = fake_model();
    int32_t prompt[200];
    for (int32_t i = 0; i < 200; i++)
        prompt[i] = (i * 7) % 256;
    struct engine *e = engine_with(&m, (struct engine_options){.context = 512, .chunk_tokens = 64});
    struct generation g = plain(prompt, 200);
    g.n_prompt_logprobs = 2;
    g.max_tokens = 0;
    struct record *r = run_one(e, &g);
    assert_int_equal(r->n_prompt_events, 200);
    assert_int_equal(r->n_tokens, 0);
    assert_int_equal(r->last.reason, FINISH_LENGTH);
    size_t n_scored = r->log.length;
    record_free(r);
    g.max_tokens = 3; /* the same, and tokens behind */
    r = run_one(e, &g);
    assert_int_equal(r->n_prompt_events, 200);
    assert_int_equal(r->n_tokens, 3);
    assert_true(r->log.length > n_scored);
    record_free(r);
    for (int32_t n = -1; n < 2; n++) { /* nothing to compute */
        g.n_prompt = n == 1 ? 1 : 200;
        g.n_prompt_logprobs = n == 1 ? 0 : -1;
        g.max_tokens = 0;
        r = run_one(e, &g);
        assert_int_equal(r->n_prompt_events, n == 1);
        assert_int_equal(r->last.reason, FINISH_LENGTH);
        record_free(r);
    }
    engine_destroy(e);
}

/* ---- cancelling, destroying ---- */

static void cancelling_ends_at_every_phase(void **state)
{
    (void)state;
    struct model m = fake_model();
    m.step_time.tv_nsec = 200 * 1000;
    struct lora lora = {.refs = 1, .model = &m};
    static int32_t prompt[4000];
    struct engine *e = engine_with(&m, (struct engine_options){.n_sequences = 1, .step_tokens = 2});
    struct generation g = plain(prompt, 2), prefill = plain(prompt, 4000);
    g.lora = prefill.lora = &lora;
    g.max_tokens = 4000;
    g.ignore_eos = true;
    uint64_t decoding = submit(e, &g), waiting = submit(e, &g), at_once = submit(e, &g);
    engine_cancel(e, at_once);
    assert_int_equal(await(e, at_once, EVENT_DONE).reason, FINISH_CANCELLED);
    await(e, decoding, EVENT_TOKEN);
    engine_cancel(e, waiting);
    struct event v = await(e, waiting, EVENT_DONE);
    assert_int_equal(v.reason, FINISH_CANCELLED);
    assert_int_equal(v.n_generated, 0);
    engine_cancel(e, decoding);
    engine_cancel(e, decoding); /* twice is once */
    v = await(e, decoding, EVENT_DONE);
    assert_int_equal(v.reason, FINISH_CANCELLED);
    assert_true(v.n_generated > 0 && v.n_generated < 4000);
    uint64_t filling = submit(e, &prefill);
    await(e, filling, EVENT_STARTED);
    engine_cancel(e, filling);
    assert_int_equal(await(e, filling, EVENT_DONE).n_generated, 0);
    engine_cancel(e, filling); /* over, unknown, nothing */
    engine_cancel(e, 0);
    engine_cancel(e, ~(uint64_t)0);
    assert_int_equal(lora.refs, 1);
    g.max_tokens = 3;
    uint64_t after = submit(e, &g);
    assert_int_equal(await(e, after, EVENT_DONE).reason, FINISH_LENGTH);
    assert_false(engine_wait(e, &v, 5 * NS_PER_MS));
    engine_destroy(e);
}

/* Destroyed with work in all phases and an outbox that nobody reads: it must neither hang nor leak. */
static void destroying_while_busy_ends_everything(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct lora lora = {.refs = 1, .model = &m};
    static int32_t prompt[3000];
    for (int round = 0; round < 6; round++) {
        struct engine *e = engine_with(&m, (struct engine_options){.n_sequences = 4, .n_threads = 2});
        struct generation g = plain(prompt, round % 2 ? 3000 : 5);
        g.lora = &lora;
        g.max_tokens = 1000;
        g.ignore_eos = true;
        g.n_prompt_logprobs = round % 2 ? 1 : -1; /* floods the outbox */
        for (int i = 0; i < 50; i++)
            submit(e, &g);
        struct timespec t = {.tv_nsec = round * 3000000L};
        nanosleep(&t, NULL);
        engine_destroy(e);
        assert_int_equal(lora.refs, 1);
    }
    engine_destroy(NULL);
}

/* Events wait for a slow reader, none is lost. */
static void a_slow_reader_loses_nothing(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, (struct engine_options){.n_sequences = 8});
    struct record *all = mem_array(8, sizeof *all);
    for (uint32_t i = 0; i < 8; i++) {
        struct generation g = plain(prompt_abc, 3);
        g.max_tokens = 500;
        g.ignore_eos = true;
        g.sampling.temperature = 1;
        g.sampling.seed = i;
        all[i].id = submit(e, &g);
    }
    struct timespec t = {.tv_nsec = 50000000L};
    nanosleep(&t, NULL);
    gather(e, all, 8);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(all[i].n_tokens, 500);
        record_fini(&all[i]);
    }
    mem_free(all);
    engine_destroy(e);
}

/* ---- limits and checks ---- */

static void a_full_queue_refuses(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, (struct engine_options){.n_sequences = 2, .queue_limit = 3});
    struct generation g = plain(prompt_abc, 3);
    uint64_t ids[5], id;
    struct error err;
    g.max_tokens = 4000;
    g.ignore_eos = true;
    for (int i = 0; i < 5; i++)
        ids[i] = submit(e, &g);
    assert_int_equal(engine_submit(e, &g, &id, &err), STATUS_FULL);
    assert_non_null(strstr(err.text, "2 running and 3 waiting"));
    struct engine_stats s;
    engine_stats(e, &s);
    assert_int_equal(s.n_running + s.n_waiting, 5);
    engine_cancel(e, ids[4]);
    await(e, ids[4], EVENT_DONE);
    ids[4] = submit(e, &g); /* room again */
    for (int i = 0; i < 5; i++)
        engine_cancel(e, ids[i]);
    for (int n = 0; n < 5;) {
        struct event v;
        assert_true(engine_wait(e, &v, 20 * NS_PER_S));
        n += v.kind == EVENT_DONE;
    }
    engine_stats(e, &s);
    assert_int_equal(s.n_running + s.n_waiting + s.n_paused, 0);
    engine_destroy(e);
}

static void lower_priority_values_run_first(void **state)
{
    (void)state;
    struct model m = fake_model();
    m.step_time.tv_nsec = 1000000;
    struct engine *e = engine_with(&m, (struct engine_options){.n_sequences = 1});
    struct generation g = plain(prompt_abc, 3);
    uint64_t first = submit(e, &g), ids[3];
    const int32_t priorities[] = {5, 0, -5};
    await(e, first, EVENT_STARTED);
    for (int i = 0; i < 3; i++) {
        g.priority = priorities[i];
        g.max_tokens = 2;
        ids[i] = submit(e, &g);
    }
    for (int i = 3; i-- > 0;) {
        struct event v;
        do
            assert_true(engine_wait(e, &v, 20 * NS_PER_S));
        while (v.kind != EVENT_STARTED);
        assert_true(v.id == ids[i]);
    }
    engine_destroy(e);
}

static void bad_parameters_are_named(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, (struct engine_options){.context = 100});
    struct generation g;
#define REFUSED(field, value, status, word)                                                                  \
    g = plain(prompt_abc, 3);                                                                                \
    g.field = value;                                                                                         \
    check_refused(e, &g, status, word)
    REFUSED(sampling.temperature, NAN, STATUS_INVALID, "temperature");
    REFUSED(sampling.temperature, -0.5F, STATUS_INVALID, "temperature");
    REFUSED(sampling.temperature, INFINITY, STATUS_INVALID, "temperature");
    REFUSED(sampling.top_p, 0, STATUS_INVALID, "top_p");
    REFUSED(sampling.top_p, 1.5F, STATUS_INVALID, "top_p");
    REFUSED(sampling.top_p, NAN, STATUS_INVALID, "top_p");
    REFUSED(sampling.min_p, -0.1F, STATUS_INVALID, "min_p");
    REFUSED(sampling.min_p, NAN, STATUS_INVALID, "min_p");
    REFUSED(sampling.typical_p, 1.1F, STATUS_INVALID, "typical_p");
    REFUSED(sampling.typical_p, NAN, STATUS_INVALID, "typical_p");
    const struct sampler_order twice = {.is_set = true, .n = 2, .kinds = {SAMPLER_TOP_K, SAMPLER_TOP_K}};
    const struct sampler_order unknown = {.is_set = true, .n = 1, .kinds = {SAMPLER_KINDS}};
    const struct sampler_order many = {.is_set = true, .n = SAMPLER_KINDS + 1};
    REFUSED(sampling.order, twice, STATUS_INVALID, "names top_k twice");
    REFUSED(sampling.order, unknown, STATUS_INVALID, "samplers[0] is 9");
    REFUSED(sampling.order, many, STATUS_INVALID, "samplers has 10 entries");
    REFUSED(sampling.repetition_penalty, 0, STATUS_INVALID, "repetition_penalty");
    REFUSED(sampling.repetition_penalty, NAN, STATUS_INVALID, "repetition_penalty");
    REFUSED(sampling.presence_penalty, INFINITY, STATUS_INVALID, "presence_penalty");
    REFUSED(sampling.frequency_penalty, NAN, STATUS_INVALID, "frequency_penalty");
    REFUSED(sampling.n_logit_bias, LOGIT_BIAS_MAX + 1, STATUS_TOO_LARGE, "logit_bias");
    REFUSED(n_prompt, 0, STATUS_INVALID, "prompt");
    REFUSED(n_logprobs, 21, STATUS_INVALID, "logprobs");
    REFUSED(n_logprobs, -2, STATUS_INVALID, "logprobs");
    REFUSED(n_prompt_logprobs, 21, STATUS_INVALID, "prompt_logprobs");
    REFUSED(min_tokens, 11, STATUS_INVALID, "min_tokens");
    REFUSED(n_stop_tokens, STOP_TOKENS_MAX + 1, STATUS_TOO_LARGE, "stop_token_ids");
    REFUSED(n_stop_strings, STOP_STRINGS_MAX + 1, STATUS_TOO_LARGE, "stop");
#undef REFUSED
    const int32_t bad_prompt[] = {1, 2, FAKE_VOCAB}, negative[] = {-1};
    g = plain(bad_prompt, 3);
    check_refused(e, &g, STATUS_INVALID, "prompt[2] is 260");
    g = plain(negative, 1);
    check_refused(e, &g, STATUS_INVALID, "prompt[0] is -1");
    const struct logit_bias bad_bias[] = {{3, NAN}, {FAKE_VOCAB, 1}, {3, INFINITY}};
    for (int i = 0; i < 3; i++) {
        g = always(&bad_bias[i]);
        check_refused(e, &g, STATUS_INVALID, "logit_bias");
    }
    char longest[STOP_STRING_BYTES_MAX + 2];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    const char *const strings[] = {"", "\xc3", longest};
    for (int i = 0; i < 3; i++) {
        g = plain(prompt_abc, 3);
        g.stop_strings = &strings[i];
        g.n_stop_strings = 1;
        check_refused(e, &g, i == 2 ? STATUS_TOO_LARGE : STATUS_INVALID, "stop[0]");
    }
    g = plain(prompt_abc, 3);
    g.stop_tokens = negative;
    g.n_stop_tokens = 1;
    check_refused(e, &g, STATUS_INVALID, "stop_token_ids[0]");
    struct model other = m;
    struct lora stranger = {.refs = 1, .model = &other};
    g = plain(prompt_abc, 3);
    g.lora = &stranger;
    check_refused(e, &g, STATUS_MISMATCH, "another base");
    engine_destroy(e);
}

static void prompts_beyond_the_context_are_refused(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, (struct engine_options){.context = 100});
    static int32_t prompt[100];
    struct generation g = plain(prompt, 100);
    check_refused(e, &g, STATUS_TOO_LARGE, "context length is 100");
    g.n_prompt = 99;
    struct record *r = run_one(e, &g);
    assert_int_equal(r->n_tokens, 1);
    record_free(r);
    engine_destroy(e);
    e = engine_with(&m, (struct engine_options){.context = 100, .kv_bytes = 2 * PAGE});
    g = plain(prompt, 64);
    check_refused(e, &g, STATUS_TOO_LARGE, "KV memory holds 64");
    engine_destroy(e);
}

static void bad_options_are_named(void **state)
{
    (void)state;
    const struct {
        struct engine_options o;
        const char *word;
    } rows[] = {
        {{.n_sequences = 5000}, "n_sequences"},
        {{.queue_limit = 1U << 30}, "queue_limit"},
        {{.step_tokens = 1U << 20}, "step_tokens"},
        {{.context = 5000}, "context"},
        {{.context = 1}, "context"},
        {{.kv_bytes = 10}, "kv_bytes"},
        {{.kv_type = "q4"}, "kv_type"},
    };
    struct model m = fake_model();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct engine *e;
        struct error err = {0};
        assert_int_not_equal(engine_create(&m, &text_of_tests, &rows[i].o, NULL, NULL, &e, &err), STATUS_OK);
        assert_null(e);
        if (!strstr(err.text, rows[i].word))
            fail_msg("expected \"%s\" in: %s", rows[i].word, err.text);
    }
}

static void short_memory_is_an_error(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = NULL;
    struct error err;
    const struct engine_options o = {.n_threads = 2, .context = 64};
    enum status s = STATUS_NO_MEMORY;
    for (uint64_t n = 1; s != STATUS_OK; n++) {
        mem_fail_at(n);
        s = engine_create(&m, &text_of_tests, &o, NULL, NULL, &e, &err);
        mem_fail_at(0);
        assert_true(s == STATUS_OK || s == STATUS_NO_MEMORY);
        assert_true(n < 100);
    }
    struct generation g = plain(prompt_abc, 3);
    uint64_t id;
    mem_fail_at(1);
    assert_int_equal(engine_submit(e, &g, &id, &err), STATUS_NO_MEMORY);
    mem_fail_at(0);
    record_free(run_one(e, &g));
    engine_destroy(e);
}

static void count_wake(void *data)
{
    atomic_fetch_add((atomic_uint *)data, 1);
}

/* Once there were n steps and no more; the last one's counts come after its events. */
static struct engine_stats stats_of_steps(const struct engine *e, uint64_t n)
{
    struct engine_stats s = {0};
    for (int i = 0; i < 2000 && s.n_steps < n; i++) {
        struct timespec t = {.tv_nsec = 1000000};
        nanosleep(&t, NULL);
        engine_stats(e, &s);
    }
    assert_int_equal(s.n_steps, n);
    return s;
}

static void prompts_take_64_tokens_a_step(void **state)
{
    (void)state;
    struct model m = fake_model();
    static int32_t prompt[200];
    const struct {
        uint32_t step_tokens, n_sequences, n_steps;
    } cases[] = {{0, 1, 4}, {0, 64, 4}, {100, 1, 2}, {200, 64, 1}, {199, 64, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct engine *e = engine_with(&m, (struct engine_options){.context = 512,
                                                                   .step_tokens = cases[i].step_tokens,
                                                                   .n_sequences = cases[i].n_sequences});
        struct generation g = plain(prompt, 200);
        g.max_tokens = 1;
        record_free(run_one(e, &g));
        struct engine_stats s = stats_of_steps(e, cases[i].n_steps);
        assert_int_equal(s.n_prompt_tokens, 200);
        engine_destroy(e);
    }
}

static void statistics_add_up(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e;
    struct error err;
    atomic_uint n_wakes = 0;
    const struct engine_options o = {.n_threads = 2, .context = 128, .n_sequences = 3, .kv_bytes = 40 * PAGE};
    assert_int_equal(engine_create(&m, &text_of_tests, &o, count_wake, &n_wakes, &e, &err), STATUS_OK);
    struct generation g = plain(prompt_abc, 3);
    const char *const stops[] = {"never here"};
    g.ignore_eos = true;
    g.n_logprobs = 5;
    g.sampling.temperature = 1;
    g.sampling.repetition_penalty = 1.1F;
    g.stop_strings = stops;
    g.n_stop_strings = 1;
    struct record *r = run_one(e, &g);
    assert_true(r->last.queued_ns >= 0 && r->last.prefill_ns > 0 && r->last.decode_ns > 0);
    record_free(r);
    struct engine_stats s = stats_of_steps(e, 10);
    assert_true(n_wakes > 0);
    assert_int_equal(s.n_prompt_tokens, 3);
    assert_int_equal(s.n_generated_tokens, 10);
    assert_int_equal(s.sum_batch_rows, 12);
    assert_int_equal(s.batch_rows, 1);
    assert_int_equal(s.kv_pages, 40);
    assert_int_equal(s.kv_pages_free, 40);
    assert_int_equal(s.context, 128);
    assert_int_equal(s.step_allocations, 0);
    assert_int_equal(kv_bytes_in_use(e), 0);
    assert_true(s.step_ns > 0);
    engine_destroy(e);
}

/* What an adapter with invocation tokens does depends on its whole prompt, not on the chunk that holds them.
 */
static void acts_from_its_invocation_on(void **state)
{
    (void)state;
    struct model m = fake_model();
    int32_t invocation = 'X';
    struct lora lora = {.refs = 1, .model = &m, .digest = {7}, .invocation = &invocation, .n_invocation = 1};
    static const char *const prompts[] = {"no such token in here", "one X in the middle",
                                          "X and X at the end X"};
    const uint32_t chunks[] = {1, 3, 64};
    for (size_t i = 0; i < 3; i++) {
        int32_t prompt[64];
        struct record *base = NULL, *first = NULL;
        uint32_t n = (uint32_t)strlen(prompts[i]);
        for (uint32_t k = 0; k < n; k++)
            prompt[k] = prompts[i][k];
        for (size_t k = 0; k < 3; k++) {
            struct engine *e =
                engine_with(&m, (struct engine_options){.kv_bytes = 64 * PAGE, .chunk_tokens = chunks[k]});
            struct generation g = plain(prompt, n);
            struct record *without = run_one(e, &g);
            g.lora = &lora;
            struct record *with = run_one(e, &g);
            assert_int_equal(logs_equal(without, with), i == 0);
            if (first)
                assert_true(logs_equal(first, with) && logs_equal(base, without));
            engine_destroy(e);
            if (first) {
                record_free(with);
                record_free(without);
            } else {
                first = with;
                base = without;
            }
        }
        record_free(first);
        record_free(base);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acts_from_its_invocation_on),
        cmocka_unit_test(alone_equals_crowd_however_it_runs),
        cmocka_unit_test(texts_are_those_of_the_tokens),
        cmocka_unit_test(each_end_has_its_reason),
        cmocka_unit_test(nothing_to_choose_from_fails),
        cmocka_unit_test(prompts_are_scored),
        cmocka_unit_test(cancelling_ends_at_every_phase),
        cmocka_unit_test(destroying_while_busy_ends_everything),
        cmocka_unit_test(a_slow_reader_loses_nothing),
        cmocka_unit_test(a_full_queue_refuses),
        cmocka_unit_test(lower_priority_values_run_first),
        cmocka_unit_test(bad_parameters_are_named),
        cmocka_unit_test(prompts_beyond_the_context_are_refused),
        cmocka_unit_test(bad_options_are_named),
        cmocka_unit_test(short_memory_is_an_error),
        cmocka_unit_test(statistics_add_up),
        cmocka_unit_test(prompts_take_64_tokens_a_step),
    };
    return cmocka_run_group_tests(tests, make_tokenizer, drop_tokenizer);
}
