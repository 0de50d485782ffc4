/* The engine on a model made of arithmetic: that outputs depend on the generation alone, that every id ends
 * exactly once, that pauses, cancellations and limits do what the door says. Run under ThreadSanitizer too.
 */
#include "tests/test.h"

#include <stdlib.h>

#include "base/clock.h"
#include "engine.h"
#include "fake_model.h"

#define PAGE 1024U /* bytes of the fake model's pages */
#define N_CROWD 28U

static struct text_model text_of_tests = {.bos_token = -1, .eos_token = FAKE_EOS_TEXT};

static int make_tokenizer(void **state)
{
    (void)state;
    text_of_tests.tokenizer = fake_tokenizer();
    return text_of_tests.tokenizer ? 0 : -1;
}

static int drop_tokenizer(void **state)
{
    (void)state;
    tokenizer_destroy(text_of_tests.tokenizer);
    return 0;
}

static struct engine *engine_with(const struct model *m, struct engine_options o)
{
    struct engine *e;
    struct error err;
    if (o.n_threads == 0)
        o.n_threads = 1;
    if (engine_create(m, &text_of_tests, &o, NULL, NULL, &e, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return e;
}

static struct generation plain(const int32_t *prompt, uint32_t n_prompt)
{
    return (struct generation){.prompt = prompt,
                               .n_prompt = n_prompt,
                               .sampling = {.top_p = 1, .repetition_penalty = 1, .penalty_last_n = -1},
                               .max_tokens = 10,
                               .skip_special_tokens = true,
                               .n_logprobs = -1,
                               .n_prompt_logprobs = -1};
}

static uint64_t submit(struct engine *e, const struct generation *g)
{
    uint64_t id = 0;
    struct error err;
    if (engine_submit(e, g, &id, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_true(id != 0);
    return id;
}

/* What came of one generation. */
struct record {
    uint64_t id;
    struct buf log;  /* all that must be the same in every run, as bytes */
    struct buf text; /* generated */
    int32_t tokens[4096];
    uint32_t n_tokens, n_prompt_events, n_started;
    struct event last; /* the final event */
    bool over;
};

static void note(struct record *r, const struct event *v)
{
    assert_false(r->over);
    assert_true(r->n_started || v->kind == EVENT_STARTED || v->kind == EVENT_DONE || v->kind == EVENT_FAILED);
    assert_true(v->n_text <= EVENT_TEXT_BYTES && utf8_is_valid(v->text, v->n_text));
    switch (v->kind) {
    case EVENT_STARTED:
        assert_int_equal(r->n_started++, 0);
        return;
    case EVENT_PROMPT:
        assert_int_equal(r->n_tokens, 0);
        r->n_prompt_events++;
        break;
    case EVENT_TOKEN:
        r->tokens[r->n_tokens++] = v->token;
        break;
    case EVENT_TEXT:
        assert_true(v->n_text > 0);
        break;
    case EVENT_DONE:
    case EVENT_FAILED:
        r->over = true;
        r->last = *v;
        break;
    }
    uint32_t bits;
    memcpy(&bits, &v->logprob, sizeof bits);
    buf_printf(&r->log, "%d %d %08x %d %d %d %u|", v->kind, v->token, bits, v->reason, v->stop_token,
               v->stop_string_index, v->n_generated);
    buf_append(&r->log, v->top, v->n_top * sizeof *v->top);
    buf_append(&r->log, v->text, v->n_text);
    buf_append(&r->text, v->text, v->n_text);
}

static void record_fini(struct record *r)
{
    buf_fini(&r->log);
    buf_fini(&r->text);
}

/* Drains the engine until all records are over. */
static void gather(struct engine *e, struct record *records, uint32_t n)
{
    struct event v;
    for (uint32_t n_over = 0; n_over < n;) {
        assert_true(engine_wait(e, &v, 20 * NS_PER_S));
        uint32_t i = 0;
        while (i < n && records[i].id != v.id)
            i++;
        assert_true(i < n);
        note(&records[i], &v);
        n_over += records[i].over;
    }
    assert_false(engine_poll(e, &v)); /* nothing behind the last final event */
}

static struct record *run_one(struct engine *e, const struct generation *g)
{
    struct record *r = mem_zalloc(sizeof *r);
    r->id = submit(e, g);
    gather(e, r, 1);
    return r;
}

static void record_free(struct record *r)
{
    record_fini(r);
    mem_free(r);
}

/* ---- the same alone and in any crowd ---- */

struct crowd {
    int32_t prompts[N_CROWD][300];
    struct generation g[N_CROWD];
    struct lora loras[3];
};

static const struct logit_bias crowd_bias[] = {{'e', 2.0F}, {' ', 3.0F}, {'a', -INFINITY}};
static const char *const crowd_stops[] = {"ee", "\xc3\xa9", " e "};
static const int32_t crowd_stop_tokens[] = {'q', 'z'};

/* Generations of all kinds, with prompts of 1 to 300 tokens. */
static struct crowd *crowd_create(const struct model *m)
{
    struct crowd *c = mem_zalloc(sizeof *c);
    uint64_t h = 1;
    for (uint32_t i = 0; i < 3; i++) {
        c->loras[i].digest[0] = (uint8_t)(i + 1);
        c->loras[i].refs = 1;
        c->loras[i].model = m;
        c->loras[i].t_max = 8 * i;
    }
    for (uint32_t i = 0; i < N_CROWD; i++) {
        uint32_t n = i % 7 == 0 ? 1 + i : i % 5 == 0 ? 300 - i : 10 + 3 * i;
        for (uint32_t t = 0; t < n; t++)
            c->prompts[i][t] = (int32_t)((h = fake_mix(h, t)) % 256);
        struct generation *g = &c->g[i];
        *g = plain(c->prompts[i], n);
        g->lora = i % 4 == 3 ? NULL : &c->loras[i % 4];
        g->max_tokens = 60 + i * 37 % 140;
        g->sampling.seed = 1000 + i;
        g->sampling.temperature = i % 3 == 0 ? 0 : 0.4F * (float)(i % 5 + 1);
        g->sampling.top_k = i % 4 == 1 ? 20 : 0;
        g->sampling.top_p = i % 5 == 2 ? 0.7F : 1;
        g->sampling.min_p = i % 6 == 3 ? 0.05F : 0;
        g->sampling.repetition_penalty = i % 7 == 4 ? 1.2F : 1;
        g->sampling.penalty_last_n = i % 2 ? 16 : -1;
        g->sampling.frequency_penalty = i % 8 == 5 ? 0.4F : 0;
        g->sampling.presence_penalty = i % 9 == 6 ? 0.6F : 0;
        g->sampling.logit_bias = crowd_bias;
        g->sampling.n_logit_bias = i % 3;
        g->n_logprobs = (int32_t)(i % 5) - 1;
        g->n_prompt_logprobs = i % 6 == 1 ? 3 : -1;
        g->ignore_eos = i % 4 != 0;
        g->min_tokens = i % 4 == 2 ? 12 : 0;
        g->stop_strings = crowd_stops;
        g->n_stop_strings = i % 4 > 1 ? i % 4 : 0;
        g->include_stop = i % 8 > 4;
        g->stop_tokens = crowd_stop_tokens;
        g->n_stop_tokens = i % 5 == 4 ? 2 : 0;
        g->skip_special_tokens = i % 3 != 1;
    }
    return c;
}

static void check_crowd(const struct model *m, struct crowd *c, struct record *alone, struct engine_options o,
                        bool must_pause)
{
    struct engine *e = engine_with(m, o);
    struct record *all = mem_array(N_CROWD, sizeof *all);
    for (uint32_t i = 0; i < N_CROWD; i++)
        all[i].id = submit(e, &c->g[i]);
    gather(e, all, N_CROWD);
    for (uint32_t i = 0; i < N_CROWD; i++) {
        assert_int_equal(all[i].log.length, alone[i].log.length);
        assert_memory_equal(all[i].log.data, alone[i].log.data, alone[i].log.length);
        record_fini(&all[i]);
    }
    struct engine_stats stats;
    engine_stats(e, &stats);
    assert_int_equal(stats.kv_pages_free, stats.kv_pages);
    assert_int_equal(stats.n_running + stats.n_waiting + stats.n_paused, 0);
    assert_true(!must_pause || stats.n_preemptions > 3);
    mem_free(all);
    engine_destroy(e);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(c->loras[i].refs, 1);
}

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

static const int32_t prompt_abc[] = {'a', 'b', 'c'};

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
    record_free(r);
    engine_destroy(e);
    m.all_nan = true;
    e = engine_with(&m, (struct engine_options){.context = 64});
    g = plain(prompt_abc, 3);
    r = run_one(e, &g);
    assert_int_equal(r->last.error.status, STATUS_INTERNAL);
    record_free(r);
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

/* Waits for the next event of a kind; others are dropped. Returns the event. */
static struct event await(struct engine *e, uint64_t id, enum event_kind kind)
{
    struct event v;
    do
        assert_true(engine_wait(e, &v, 20 * NS_PER_S));
    while (v.id != id || v.kind != kind);
    return v;
}

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

static void check_refused(struct engine *e, const struct generation *g, enum status status, const char *word)
{
    uint64_t id;
    struct error err = {0};
    enum status got = engine_submit(e, g, &id, &err);
    if (got != status || !strstr(err.text, word))
        fail_msg("expected %s naming \"%s\", got %s: %s", status_name(status), word, status_name(got),
                 err.text);
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
    struct engine_stats s = {0};
    for (int i = 0; i < 2000 && s.n_steps < 10; i++) { /* the last step's counts come after its events */
        struct timespec t = {.tv_nsec = 1000000};
        nanosleep(&t, NULL);
        engine_stats(e, &s);
    }
    assert_true(n_wakes > 0);
    assert_int_equal(s.n_steps, 10);
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

static bool logs_equal(const struct record *a, const struct record *b)
{
    return a->log.length == b->log.length && memcmp(a->log.data, b->log.data, a->log.length) == 0;
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

/* ---- merged copies ---- */

static void set_merged(struct engine *e, struct merged_copy *copy)
{
    struct error err;
    if (engine_set_merged(e, copy, MERGED_ALWAYS, &err) != STATUS_OK)
        fail_msg("%s", err.text);
}

/* The engine lets go soon after it was told, also when it sleeps. */
static void await_refs(const struct merged_copy *copy, unsigned refs)
{
    struct timespec t = {.tv_nsec = 1000000};
    for (int i = 0; i < 5000 && atomic_load(&copy->refs) != refs; i++)
        nanosleep(&t, NULL);
    assert_int_equal(copy->refs, refs);
}

static struct generation endless(struct lora *lora)
{
    struct generation g = plain(prompt_abc, 3);
    g.lora = lora;
    g.max_tokens = 4000;
    g.ignore_eos = true;
    return g;
}

/* Whether the next TOKEN of this id came from a merged step. */
static bool next_is_merged(struct engine *e, uint64_t id)
{
    return await(e, id, EVENT_TOKEN).merged;
}

static void await_path(struct engine *e, uint64_t id, bool merged)
{
    for (int i = 0; i < 1000; i++)
        if (next_is_merged(e, id) == merged)
            return;
    fail_msg("no step was %s", merged ? "merged" : "unmerged");
}

/* Others come and go, the copy too; the sequence crosses each time and says the same. */
static void a_sequence_crosses_to_the_copy_and_back(void **state)
{
    (void)state;
    struct model m = fake_model();
    m.step_time.tv_nsec = 200 * 1000;
    struct lora a = {.refs = 1, .model = &m, .digest = {1}}, same = a,
                b = {.refs = 1, .model = &m, .digest = {2}};
    struct merged_copy copy = fake_copy(&a);
    struct engine *e = engine_with(&m, (struct engine_options){.n_sequences = 4, .n_threads = 2});
    struct generation g = endless(&a), other = endless(&b), twin = endless(&same);
    uint64_t id = submit(e, &g);
    assert_false(await(e, id, EVENT_STARTED).merged);
    assert_false(next_is_merged(e, id));
    set_merged(e, &copy);
    await_path(e, id, true);
    uint64_t twin_id = submit(e, &twin); /* the same bytes at another address */
    assert_true(await(e, twin_id, EVENT_STARTED).merged);
    assert_true(next_is_merged(e, id));
    uint64_t other_id = submit(e, &other);
    assert_false(await(e, other_id, EVENT_STARTED).merged);
    assert_false(next_is_merged(e, id));
    engine_cancel(e, other_id);
    struct event v = await(e, other_id, EVENT_DONE);
    assert_true(v.n_merged_tokens == 0 && v.n_unmerged_tokens >= 3);
    await_path(e, id, true);
    engine_drop_merged(e, b.digest); /* none: nothing happens */
    engine_drop_merged(e, a.digest);
    await_refs(&copy, 1);
    await_path(e, id, false);
    engine_cancel(e, twin_id);
    engine_cancel(e, id);
    v = await(e, id, EVENT_DONE);
    assert_true(v.n_merged_tokens > 0 && v.n_unmerged_tokens > 3);
    assert_int_equal(v.n_merged_tokens + v.n_unmerged_tokens, 3 + v.n_generated - 1);
    engine_destroy(e);
    assert_int_equal(a.refs, 1);
    assert_int_equal(same.refs, 1);
    assert_int_equal(copy.refs, 1);
}

/* A copy changes who computes, never what the fake model says: the crowd's bytes are the same. */
static void the_crowd_is_the_same_with_copies_coming_and_going(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct crowd *c = crowd_create(&m);
    struct record *alone = mem_array(N_CROWD, sizeof *alone), *all = mem_array(N_CROWD, sizeof *all);
    struct engine *e = engine_with(&m, (struct engine_options){.n_sequences = 1, .context = 512});
    struct merged_copy copies[3];
    for (uint32_t i = 0; i < 3; i++)
        copies[i] = fake_copy(&c->loras[i]);
    for (uint32_t i = 0; i < N_CROWD; i++) {
        alone[i].id = submit(e, &c->g[i]);
        gather(e, &alone[i], 1);
    }
    engine_destroy(e);
    e = engine_with(&m, (struct engine_options){.context = 512, .n_threads = 2, .n_sequences = 2});
    for (uint32_t i = 0; i < N_CROWD; i++)
        all[i].id = submit(e, &c->g[i]);
    struct event v;
    for (uint32_t n = 0, n_over = 0; n_over < N_CROWD; n++) {
        assert_true(engine_wait(e, &v, 20 * NS_PER_S));
        uint32_t i = 0;
        while (all[i].id != v.id)
            i++;
        note(&all[i], &v);
        n_over += all[i].over;
        if (n % 8 < 4)
            set_merged(e, &copies[n % 3]);
        else
            engine_drop_merged(e, c->loras[n % 3].digest);
    }
    for (uint32_t i = 0; i < N_CROWD; i++) {
        assert_true(logs_equal(&all[i], &alone[i]));
        record_fini(&all[i]);
        record_fini(&alone[i]);
    }
    struct engine_stats stats;
    engine_stats(e, &stats);
    assert_true(stats.n_merged_steps > 0 && stats.n_merged_steps < stats.n_steps);
    assert_true(stats.n_merged_tokens >= stats.n_merged_steps);
    assert_int_equal(stats.step_allocations, 0);
    engine_destroy(e);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(copies[i].refs, 1);
        assert_int_equal(c->loras[i].refs, 1);
    }
    mem_free(alone);
    mem_free(all);
    mem_free(c);
}

static void copies_are_counted_and_bounded(void **state)
{
    (void)state;
    struct model m = fake_model(), other = m;
    struct engine *e = engine_with(&m, (struct engine_options){.context = 64});
    struct lora loras[MERGED_COPIES_MAX + 1], stranger = {.refs = 1, .model = &other};
    struct merged_copy copies[MERGED_COPIES_MAX + 1], strange = fake_copy(&stranger);
    struct error err;
    for (uint32_t i = 0; i <= MERGED_COPIES_MAX; i++) {
        loras[i] = (struct lora){.refs = 1, .model = &m, .digest = {(uint8_t)i, 1}};
        copies[i] = fake_copy(&loras[i]);
        if (i < MERGED_COPIES_MAX)
            set_merged(e, &copies[i]);
    }
    struct merged_copy *last = &copies[MERGED_COPIES_MAX];
    assert_int_equal(engine_set_merged(e, last, MERGED_ALWAYS, &err), STATUS_FULL);
    assert_int_equal(last->refs, 1);
    assert_int_equal(engine_set_merged(e, &strange, MERGED_ALWAYS, &err), STATUS_MISMATCH);
    assert_int_equal(strange.refs, 1);
    struct merged_copy newer = fake_copy(&loras[5]); /* in the place of an older one */
    set_merged(e, &newer);
    await_refs(&copies[5], 1);
    engine_drop_merged(e, loras[7].digest);
    await_refs(&copies[7], 1);
    set_merged(e, last);
    engine_destroy(e);
    for (uint32_t i = 0; i <= MERGED_COPIES_MAX; i++)
        assert_int_equal(copies[i].refs, 1);
    assert_int_equal(newer.refs, 1);
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
        cmocka_unit_test(a_sequence_crosses_to_the_copy_and_back),
        cmocka_unit_test(the_crowd_is_the_same_with_copies_coming_and_going),
        cmocka_unit_test(copies_are_counted_and_bounded),
    };
    return cmocka_run_group_tests(tests, make_tokenizer, drop_tokenizer);
}
