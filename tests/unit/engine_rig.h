/* Generations through an engine on the fake model, and what came of them; a crowd of all kinds. */
#ifndef LK_TESTS_ENGINE_RIG_H
#define LK_TESTS_ENGINE_RIG_H

#include <stdlib.h>

#include "base/clock.h"
#include "engine.h"
#include "fake_model.h"

#define PAGE 1024U /* bytes of the fake model's pages */
#define N_CROWD 28U

static struct text_model text_of_tests = {.bos_token = -1, .eos_token = FAKE_EOS_TEXT};

static inline int make_tokenizer(void **state)
{
    (void)state;
    text_of_tests.tokenizer = fake_tokenizer();
    return text_of_tests.tokenizer ? 0 : -1;
}

static inline int drop_tokenizer(void **state)
{
    (void)state;
    tokenizer_destroy(text_of_tests.tokenizer);
    return 0;
}

static inline struct engine *engine_with(const struct model *m, struct engine_options o)
{
    struct engine *e;
    struct error err;
    if (o.n_threads == 0)
        o.n_threads = 1;
    if (engine_create(m, &text_of_tests, &o, NULL, NULL, &e, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return e;
}

static inline struct generation plain(const int32_t *prompt, uint32_t n_prompt)
{
    return (struct generation){.prompt = prompt,
                               .n_prompt = n_prompt,
                               .sampling = {.top_p = 1, .repetition_penalty = 1, .penalty_last_n = -1},
                               .max_tokens = 10,
                               .skip_special_tokens = true,
                               .n_logprobs = -1,
                               .n_prompt_logprobs = -1};
}

static inline uint64_t submit(struct engine *e, const struct generation *g)
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

static inline void note(struct record *r, const struct event *v)
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

static inline void record_fini(struct record *r)
{
    buf_fini(&r->log);
    buf_fini(&r->text);
}

/* Drains the engine until all records are over. */
static inline void gather(struct engine *e, struct record *records, uint32_t n)
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

static inline struct record *run_one(struct engine *e, const struct generation *g)
{
    struct record *r = mem_zalloc(sizeof *r);
    r->id = submit(e, g);
    gather(e, r, 1);
    return r;
}

static inline void record_free(struct record *r)
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
static inline struct crowd *crowd_create(const struct model *m)
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

static inline struct engine_stats check_crowd(const struct model *m, struct crowd *c, struct record *alone,
                                              struct engine_options o, bool must_pause)
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
    return stats;
}

static const int32_t prompt_abc[] = {'a', 'b', 'c'};

/* Waits for the next event of a kind; others are dropped. Returns the event. */
static inline struct event await(struct engine *e, uint64_t id, enum event_kind kind)
{
    struct event v;
    do
        assert_true(engine_wait(e, &v, 20 * NS_PER_S));
    while (v.id != id || v.kind != kind);
    return v;
}

static inline bool logs_equal(const struct record *a, const struct record *b)
{
    return a->log.length == b->log.length && memcmp(a->log.data, b->log.data, a->log.length) == 0;
}

static inline void check_refused(struct engine *e, const struct generation *g, enum status status,
                                 const char *word)
{
    uint64_t id;
    struct error err = {0};
    enum status got = engine_submit(e, g, &id, &err);
    if (got != status || !strstr(err.text, word))
        fail_msg("expected %s naming \"%s\", got %s: %s", status_name(status), word, status_name(got),
                 err.text);
}

#endif
