/* Grammars in an engine on the fake model: texts follow them, alone and in any crowd, with drafts, pauses and
 * chunks; ends, bans and failures are what engine.h says. Run under ThreadSanitizer too. */
#include "tests/test.h"

#include "engine_rig.h"
#include "grammar.h"

static struct grammar_vocab *vocab;

static int begin(void **state)
{
    struct error err;
    if (make_tokenizer(state) != 0 ||
        grammar_vocab_create(text_of_tests.tokenizer, FAKE_VOCAB, &vocab, &err) != STATUS_OK)
        return -1;
    return 0;
}

static int end(void **state)
{
    grammar_vocab_destroy(vocab);
    return drop_tokenizer(state);
}

static struct grammar *compile(enum grammar_kind kind, const char *source)
{
    struct grammar *g;
    struct error err;
    if (grammar_compile_part(vocab, kind, source, strlen(source), &g, &err) != STATUS_OK)
        fail_msg("%s: %s", source, err.text);
    return g;
}

static bool follows(struct grammar *g, const struct record *r)
{
    return grammar_accepts(g, r->text.data ? r->text.data : "", r->text.length);
}

static const struct {
    enum grammar_kind kind;
    const char *source;
} all_kinds[] = {
    {GRAMMAR_REGEX, "([a-f]{2,4} ){3,6}\xC3\xA9?"},
    {GRAMMAR_JSON_SCHEMA, "{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\"},\"t\":{\"type\":"
                          "\"string\",\"maxLength\":20},"
                          "\"l\":{\"type\":\"array\",\"items\":{\"enum\":[\"ab\",\"ac\",true]},\"maxItems\":"
                          "4}},\"required\":[\"n\",\"t\"]}"},
    {GRAMMAR_GBNF, "root ::= x{2,9}\nx ::= \"(\" x? \")\" | [0-9]{1,3}"},
    {GRAMMAR_CHOICE, "[\"yes\",\"no\",\"maybe\"]"},
};
#define N_KINDS (sizeof all_kinds / sizeof *all_kinds)

/* Generations of all kinds, each third one without a grammar. */
static struct crowd *bound_crowd(const struct model *m, struct grammar *grammars[N_KINDS])
{
    struct crowd *c = crowd_create(m);
    for (uint32_t i = 0; i < N_CROWD; i++) {
        struct generation *g = &c->g[i];
        g->sampling.logit_bias = NULL;
        g->sampling.n_logit_bias = 0;
        g->grammar = i % 3 == 2 ? NULL : grammars[i % N_KINDS];
    }
    return c;
}

static void a_crowd_says_the_same(void **state)
{
    (void)state;
    struct grammar *grammars[N_KINDS];
    for (size_t k = 0; k < N_KINDS; k++)
        grammars[k] = compile(all_kinds[k].kind, all_kinds[k].source);
    for (int habits = 0; habits < 2; habits++) {
        struct model m = fake_model();
        m.has_habits = habits;
        struct crowd *c = bound_crowd(&m, grammars);
        struct record *alone = mem_array(N_CROWD, sizeof *alone);
        struct engine *e = engine_with(&m, (struct engine_options){.n_sequences = 1, .context = 512});
        uint32_t n_whole = 0;
        for (uint32_t i = 0; i < N_CROWD; i++) {
            alone[i].id = submit(e, &c->g[i]);
            gather(e, &alone[i], 1);
            const struct event *last = &alone[i].last;
            assert_int_equal(last->kind, EVENT_DONE);
            if (!c->g[i].grammar || last->reason != FINISH_STOP || last->stop_string_index >= 0 ||
                c->g[i].n_stop_tokens)
                continue;
            if (!follows(c->g[i].grammar, &alone[i]))
                fail_msg("%u: \"%s\" doesn't follow its grammar", i, alone[i].text.data);
            n_whole++;
        }
        assert_true(n_whole > 8);
        engine_destroy(e);
        const struct engine_options ways[] = {
            {.context = 512, .n_threads = 3, .chunk_tokens = 7, .n_sequences = 3},
            {.context = 512, .n_threads = 2, .speculation = SPECULATION_ALWAYS},
            {.context = 512, .n_threads = 2, .kv_bytes = 17 * PAGE, .speculation = SPECULATION_ALWAYS},
        };
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
            struct engine_stats stats = check_crowd(&m, c, alone, ways[i], false);
            assert_int_equal(stats.step_allocations, 0);
            assert_true(i == 0 || stats.n_drafted > 0);
        }
        for (uint32_t i = 0; i < N_CROWD; i++)
            record_fini(&alone[i]);
        mem_free(alone);
        mem_free(c);
    }
    for (size_t k = 0; k < N_KINDS; k++)
        grammar_release(grammars[k]);
}

static struct generation bound(struct grammar *g)
{
    struct generation x = plain(prompt_abc, 3);
    x.grammar = g;
    x.max_tokens = 50;
    return x;
}

static void the_end_is_the_grammars(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, (struct engine_options){.context = 256});
    struct grammar *only = compile(GRAMMAR_CHOICE, "[\"abc\"]"), *open = compile(GRAMMAR_REGEX, "a*");
    const struct logit_bias ends[] = {{FAKE_EOS, 1000}};
    struct generation g = bound(only);
    g.ignore_eos = true;
    g.min_tokens = 40;
    struct record *r = run_one(e, &g);
    assert_string_equal(r->text.data, "abc");
    assert_true(r->last.kind == EVENT_DONE && r->last.reason == FINISH_STOP && r->last.stop_token == -1);
    assert_int_equal(r->last.n_generated, 3);
    record_free(r);
    g = bound(only); /* a stop token can't come before the end, however likely */
    g.sampling.logit_bias = ends;
    g.sampling.n_logit_bias = 1;
    r = run_one(e, &g);
    assert_string_equal(r->text.data, "abc");
    record_free(r);
    g = bound(open); /* and may where it can */
    g.sampling.logit_bias = ends;
    g.sampling.n_logit_bias = 1;
    r = run_one(e, &g);
    assert_true(r->text.length == 0 && r->last.reason == FINISH_STOP && r->last.stop_token == FAKE_EOS);
    record_free(r);
    g.min_tokens = 5;
    r = run_one(e, &g);
    assert_string_equal(r->text.data, "aaaaa");
    assert_int_equal(r->last.stop_token, FAKE_EOS);
    record_free(r);
    g = bound(open);
    g.ignore_eos = true;
    g.max_tokens = 7;
    r = run_one(e, &g);
    assert_string_equal(r->text.data, "aaaaaaa");
    assert_int_equal(r->last.reason, FINISH_LENGTH);
    record_free(r);
    engine_destroy(e);
    grammar_release(only);
    grammar_release(open);
}

/* Log-probabilities are the row's, whatever the grammar takes out of it. */
static void logprobs_are_of_the_raw_row(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, (struct engine_options){.context = 256});
    struct grammar *x = compile(GRAMMAR_CHOICE, "[\"x\",\"y\"]");
    struct generation g = bound(NULL);
    g.max_tokens = 1;
    g.n_logprobs = 5;
    struct event v, w;
    uint64_t id = submit(e, &g);
    v = await(e, id, EVENT_TOKEN);
    await(e, id, EVENT_DONE);
    g.grammar = x;
    id = submit(e, &g);
    w = await(e, id, EVENT_TOKEN);
    await(e, id, EVENT_DONE);
    assert_true(w.token == 'x' || w.token == 'y');
    assert_memory_equal(v.top, w.top, 5 * sizeof *v.top);
    assert_true(w.logprob < v.top[0].logprob);
    engine_destroy(e);
    grammar_release(x);
}

static void failures_are_one_generations(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e =
        engine_with(&m, (struct engine_options){.context = 512, .speculation = SPECULATION_ALWAYS});
    struct grammar *abc = compile(GRAMMAR_CHOICE, "[\"abc\"]");
    const struct logit_bias bans[] = {{'b', -INFINITY}};
    struct generation g = bound(abc);
    g.sampling.logit_bias = bans;
    g.sampling.n_logit_bias = 1;
    struct record *r = run_one(e, &g);
    assert_true(r->last.kind == EVENT_FAILED && !r->last.non_finite);
    assert_non_null(strstr(r->last.error.text, "the grammar allows"));
    record_free(r);
    g = bound(abc);
    r = run_one(e, &g);
    assert_string_equal(r->text.data, "abc");
    record_free(r);
    /* A grammar for another vocabulary. */
    struct grammar_vocab *small;
    struct grammar *foreign;
    struct error err;
    assert_int_equal(grammar_vocab_create(text_of_tests.tokenizer, 200, &small, &err), STATUS_OK);
    assert_int_equal(grammar_compile_part(small, GRAMMAR_REGEX, "a", 1, &foreign, &err), STATUS_OK);
    g = bound(foreign);
    check_refused(e, &g, STATUS_MISMATCH, "vocabulary");
    /* Ambiguous, but its sets of places stay small. */
    struct grammar *vast = compile(GRAMMAR_REGEX, "([ab]|[ac]|[ad]){0,400}");
    g = bound(vast);
    g.max_tokens = 20;
    r = run_one(e, &g);
    assert_true(r->last.kind == EVENT_DONE && strspn(r->text.data, "abcd") == r->text.length);
    record_free(r);
    engine_destroy(e);
    grammar_release(abc);
    grammar_release(foreign);
    grammar_release(vast);
    grammar_vocab_destroy(small);
}

/* A vocabulary without some bytes: refused where nothing can begin, failed where nothing can go on. */
static void a_text_that_no_token_can_spell(void **state)
{
    (void)state;
    struct grammar_vocab *few;
    struct grammar *g = NULL;
    struct error err;
    assert_int_equal(grammar_vocab_create(text_of_tests.tokenizer, 'm', &few, &err), STATUS_OK);
    assert_int_equal(grammar_compile_part(few, GRAMMAR_REGEX, "z", 1, &g, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "vocabulary"));
    assert_int_equal(grammar_compile_part(few, GRAMMAR_REGEX, "az", 2, &g, &err), STATUS_OK);
    struct grammar_matcher matcher = {0};
    int32_t tokens[] = {'a'};
    uint64_t mask[4];
    bool may_end;
    assert_int_equal(grammar_next(g, &matcher, tokens, 1, mask, &may_end), GRAMMAR_STUCK);
    grammar_release(g);
    grammar_vocab_destroy(few);
}

/* References are given back with the final event. */
static void references_end(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, (struct engine_options){.context = 256, .n_sequences = 2});
    for (int i = 0; i < 20; i++) {
        struct grammar *g = compile(GRAMMAR_JSON_OBJECT, "");
        struct generation x = bound(g);
        uint64_t id = submit(e, &x);
        grammar_release(g); /* the engine's is left */
        if (i % 3 == 0)
            engine_cancel(e, id);
        await(e, id, EVENT_DONE);
    }
    engine_destroy(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crowd_says_the_same),          cmocka_unit_test(the_end_is_the_grammars),
        cmocka_unit_test(logprobs_are_of_the_raw_row),    cmocka_unit_test(failures_are_one_generations),
        cmocka_unit_test(a_text_that_no_token_can_spell), cmocka_unit_test(references_end),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
