/* The prefix cache in the engine, on the fake model, whose pages say what they were computed from: what is
 * found, who shares with whom, and that nothing else changes. Run under ThreadSanitizer too. */
#include "tests/test.h"

#include "engine_rig.h"

#define N_TEXT 160U

static const struct engine_options roomy = {.context = 1024, .n_threads = 1};

static const int32_t *letters(void)
{
    static int32_t text[N_TEXT];
    for (uint32_t i = 0; i < N_TEXT; i++)
        text[i] = (int32_t)('a' + fake_mix(3, i) % 20);
    return text;
}

static struct generation of(const int32_t *prompt, uint32_t n, struct lora *lora)
{
    struct generation g = plain(prompt, n);
    g.lora = lora;
    g.ignore_eos = true;
    return g;
}

/* Runs it; how many of its prompt's tokens were found. */
static uint32_t found(struct engine *e, const struct generation *g)
{
    struct record *r = run_one(e, g);
    uint32_t n = r->last.n_cached;
    assert_int_equal(r->last.kind, EVENT_DONE);
    record_free(r);
    return n;
}

static struct lora lora_of(const struct model *m, uint8_t digest)
{
    return (struct lora){.refs = 1, .model = m, .digest = {digest}};
}

static void a_prompt_is_found_again(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, roomy);
    int32_t other[N_TEXT];
    struct generation g = of(letters(), 100, NULL);
    struct record *first = run_one(e, &g), *second = run_one(e, &g);
    assert_int_equal(first->last.n_cached, 0);
    assert_int_equal(second->last.n_cached, 96);
    assert_true(logs_equal(first, second));
    memcpy(other, letters(), sizeof other);
    other[70]++;
    g = of(other, 130, NULL);
    assert_int_equal(found(e, &g), 64);
    g = of(letters(), 96, NULL);
    assert_int_equal(found(e, &g), 64); /* the last token's logits are needed */
    g = of(letters(), 97, NULL);
    assert_int_equal(found(e, &g), 96);
    g = of(letters(), 32, NULL);
    assert_int_equal(found(e, &g), 0);
    struct engine_stats s;
    engine_stats(e, &s);
    assert_int_equal(s.n_prefix_hits, 4);
    assert_int_equal(s.n_prefix_tokens, 96 + 64 + 64 + 96);
    assert_int_equal(s.n_prompt_tokens, 100 + 4 + 66 + 32 + 1 + 32);
    assert_int_equal(s.kv_pages_free, s.kv_pages);
    assert_true(s.prefix_pages >= 5 && s.n_prefix_evictions == 0);
    record_free(first);
    record_free(second);
    engine_destroy(e);
}

/* The next turn of a conversation begins with the last one's answer. */
static void an_answer_is_found_again(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, roomy);
    int32_t turn[300];
    struct generation g = of(letters(), 50, NULL);
    g.max_tokens = 90;
    struct record *r = run_one(e, &g);
    memcpy(turn, letters(), 50 * sizeof *turn);
    memcpy(turn + 50, r->tokens, 90 * sizeof *turn);
    memcpy(turn + 140, letters(), 40 * sizeof *turn);
    g = of(turn, 180, NULL);
    assert_int_equal(found(e, &g), 139 / 32 * 32); /* the last token was never computed */
    record_free(r);
    engine_destroy(e);
}

static void who_shares_with_whom(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, roomy);
    struct lora a = lora_of(&m, 1), b = lora_of(&m, 2), a_again = lora_of(&m, 1);
    struct generation g = of(letters(), 100, &a);
    assert_int_equal(found(e, &g), 0);
    g.lora = &b;
    assert_int_equal(found(e, &g), 0);
    g.lora = NULL;
    assert_int_equal(found(e, &g), 0);
    g.lora = &a_again; /* the same content */
    assert_int_equal(found(e, &g), 96);
    g.cache_salt[5] = 1;
    assert_int_equal(found(e, &g), 0);
    assert_int_equal(found(e, &g), 96);
    g.cache_salt[5] = 2;
    g.cache_off = true;
    assert_int_equal(found(e, &g), 0);
    g.cache_off = false;
    assert_int_equal(found(e, &g), 0); /* the one before left nothing */
    g.cache_off = true;
    assert_int_equal(found(e, &g), 0);
    engine_destroy(e);
    struct engine_options off = roomy;
    off.prefix_cache_off = true;
    e = engine_with(&m, off);
    g = of(letters(), 100, &a);
    assert_int_equal(found(e, &g) + found(e, &g), 0);
    engine_destroy(e);
}

/* An activated adapter's prompt is the base's up to the page with its invocation. */
static void before_its_invocation_an_adapter_is_the_base(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, roomy);
    int32_t x = 'X', prompt[N_TEXT], n = 120;
    struct lora a = lora_of(&m, 1), b = lora_of(&m, 2), whole = lora_of(&m, 3);
    a.invocation = b.invocation = &x;
    a.n_invocation = b.n_invocation = 1;
    memcpy(prompt, letters(), sizeof prompt);
    prompt[70] = 'X';
    struct generation g = of(prompt, (uint32_t)n, NULL);
    assert_int_equal(found(e, &g), 0);
    g.lora = &a;
    assert_int_equal(found(e, &g), 64);
    assert_int_equal(found(e, &g), 96);
    g.lora = &b;
    assert_int_equal(found(e, &g), 64);
    g.lora = &whole;
    assert_int_equal(found(e, &g), 0);
    /* A later invocation: what was the adapter's is the base's in this prompt. */
    prompt[101] = 'X';
    g.lora = &a;
    assert_int_equal(found(e, &g), 96);
    prompt[101] = letters()[101];
    /* None: all of it is the base's. */
    prompt[70] = letters()[70];
    assert_int_equal(found(e, &g), 64);
    g.lora = NULL;
    assert_int_equal(found(e, &g), 96);
    engine_destroy(e);
}

static void wanted_rows_are_computed(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, roomy);
    struct generation g = of(letters(), 100, NULL);
    g.n_prompt_logprobs = 2;
    struct record *first = run_one(e, &g), *second = run_one(e, &g);
    assert_int_equal(second->last.n_cached, 0);
    assert_int_equal(second->n_prompt_events, 100);
    assert_true(logs_equal(first, second));
    g.n_prompt_logprobs = -1;
    assert_int_equal(found(e, &g), 96);
    record_free(first);
    record_free(second);
    engine_destroy(e);
}

/* Those that begin alike wait for the first, each for the pages that it needs, and find them. */
static void those_that_run_along_share(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine_options o = roomy;
    o.step_tokens = 128;
    o.chunk_tokens = 64;
    struct engine *e = engine_with(&m, o);
    struct record *r = mem_array(6, sizeof *r);
    int32_t other[N_TEXT];
    memcpy(other, letters(), sizeof other);
    other[100]++;
    struct generation g[2] = {of(letters(), 150, NULL), of(other, 150, NULL)};
    g[0].max_tokens = g[1].max_tokens = 60;
    for (int i = 0; i < 6; i++)
        r[i].id = submit(e, &g[i % 2]);
    gather(e, r, 6);
    struct engine_stats s;
    engine_stats(e, &s);
    assert_int_equal(s.n_prompt_tokens, 150 + 54 + 4 * 22);
    assert_int_equal(s.n_prefix_tokens, 96 + 4 * 128);
    for (int i = 2; i < 6; i++)
        assert_true(logs_equal(&r[i % 2], &r[i]));
    for (int i = 0; i < 6; i++)
        record_fini(&r[i]);
    mem_free(r);
    engine_destroy(e);
}

/* Longrope: a sequence that outgrows the short factors computes all K and V anew; neither kind is the
 * other's. */
static void lengths_are_kept_apart(void **state)
{
    (void)state;
    struct model m = fake_model();
    m.config.rope.type = ROPE_LONGROPE;
    m.config.rope.original_max_position = 110;
    struct engine *e = engine_with(&m, roomy);
    struct generation g = of(letters(), 100, NULL);
    g.max_tokens = 40;
    struct record *first = run_one(e, &g), *second = run_one(e, &g);
    assert_int_equal(second->last.n_cached, 96);
    assert_true(logs_equal(first, second));
    g = of(letters(), 112, NULL);
    assert_int_equal(found(e, &g), 96); /* from those that became long */
    g.cache_salt[0] = 1;
    assert_int_equal(found(e, &g), 0);
    record_free(first);
    record_free(second);
    engine_destroy(e);
}

/* A merged copy rounds differently: its pages are nobody else's. */
static void pages_of_a_merged_copy_are_not_shared(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, roomy);
    struct lora a = lora_of(&m, 1);
    struct merged_copy copy = fake_copy(&a);
    struct error err;
    struct generation g = of(letters(), 100, &a);
    assert_int_equal(engine_set_merged(e, &copy, MERGED_ALWAYS, &err), STATUS_OK);
    assert_int_equal(found(e, &g), 0);
    assert_int_equal(found(e, &g), 0);
    engine_drop_merged(e, a.digest);
    assert_int_equal(found(e, &g), 0);
    assert_int_equal(found(e, &g), 96);
    engine_destroy(e);
    assert_true(copy.refs == 1 && a.refs == 1);
}

/* ---- nothing else changes ---- */

#define N_MIX 40U

/* Few texts, cut and continued at random; adapters, some activated; salts. */
struct mix {
    int32_t prompts[N_MIX][240];
    struct generation g[N_MIX];
    struct lora loras[4];
    int32_t invocation;
};

static struct mix *mix_create(const struct model *m)
{
    struct mix *x = mem_zalloc(sizeof *x);
    uint64_t h = 11;
    x->invocation = 'q';
    for (uint32_t i = 0; i < 4; i++)
        x->loras[i] = lora_of(m, (uint8_t)(i + 1));
    x->loras[2].invocation = x->loras[3].invocation = &x->invocation;
    x->loras[2].n_invocation = x->loras[3].n_invocation = 1;
    for (uint32_t i = 0; i < N_MIX; i++) {
        h = fake_mix(h, i);
        uint32_t text = (uint32_t)(h >> 33) % 3, n = 20 + (uint32_t)(h >> 40) % 200,
                 same = (uint32_t)(h >> 20) % 240;
        for (uint32_t t = 0; t < n; t++)
            x->prompts[i][t] = (int32_t)('a' + fake_mix(t < same ? text : h, t) % 24);
        struct generation *g = &x->g[i];
        *g = of(x->prompts[i], n, i % 5 == 4 ? NULL : &x->loras[i % 5]);
        g->max_tokens = 10 + (uint32_t)(h >> 50) % 80;
        g->sampling.seed = i;
        g->sampling.temperature = i % 2 ? 0.8F : 0;
        g->n_prompt_logprobs = i % 9 == 8 ? 1 : -1;
        g->cache_salt[0] = i % 7 == 6;
        g->cache_off = i % 11 == 10;
    }
    return x;
}

/* All at once, and once more when everything may be found. Returns how many tokens were. */
static uint64_t check_mix(const struct model *m, struct mix *x, struct record *alone, struct engine_options o)
{
    struct engine *e = engine_with(m, o);
    struct record *all = mem_array(N_MIX, sizeof *all);
    for (uint32_t round = 0; round < 2; round++) {
        memset(all, 0, N_MIX * sizeof *all);
        for (uint32_t i = 0; i < N_MIX; i++)
            all[i].id = submit(e, &x->g[(i * 7 + round * 13) % N_MIX]);
        gather(e, all, N_MIX);
        for (uint32_t i = 0; i < N_MIX; i++) {
            assert_true(logs_equal(&all[i], &alone[(i * 7 + round * 13) % N_MIX]));
            record_fini(&all[i]);
        }
    }
    struct engine_stats s;
    engine_stats(e, &s);
    assert_int_equal(s.kv_pages_free, s.kv_pages);
    assert_int_equal(s.step_allocations, 0);
    engine_destroy(e);
    mem_free(all);
    return s.n_prefix_tokens;
}

static void nothing_else_changes(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct mix *x = mix_create(&m);
    struct record *alone = mem_array(N_MIX, sizeof *alone);
    struct engine_options o = {.context = 512, .n_sequences = 1, .n_threads = 1, .prefix_cache_off = true};
    struct engine *e = engine_with(&m, o);
    for (uint32_t i = 0; i < N_MIX; i++) {
        alone[i].id = submit(e, &x->g[i]);
        gather(e, &alone[i], 1);
        assert_int_equal(alone[i].last.n_cached, 0);
    }
    engine_destroy(e);
    const struct engine_options ways[] = {
        {.context = 512, .n_sequences = 1},
        {.context = 512, .n_threads = 2},
        {.context = 512, .chunk_tokens = 7},
        {.context = 320, .chunk_tokens = 32, .step_tokens = 64, .n_sequences = 8, .kv_bytes = 12 * PAGE},
        {.context = 320, .n_sequences = 24, .kv_bytes = 11 * PAGE},
        {.context = 320, .chunk_tokens = 40, .n_sequences = 6, .kv_bytes = 30 * PAGE},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        assert_true(check_mix(&m, x, alone, ways[i]) > 100);
    for (uint32_t i = 0; i < N_MIX; i++)
        record_fini(&alone[i]);
    mem_free(alone);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(x->loras[i].refs, 1);
    mem_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_is_found_again),
        cmocka_unit_test(an_answer_is_found_again),
        cmocka_unit_test(who_shares_with_whom),
        cmocka_unit_test(before_its_invocation_an_adapter_is_the_base),
        cmocka_unit_test(wanted_rows_are_computed),
        cmocka_unit_test(those_that_run_along_share),
        cmocka_unit_test(lengths_are_kept_apart),
        cmocka_unit_test(pages_of_a_merged_copy_are_not_shared),
        cmocka_unit_test(nothing_else_changes),
    };
    return cmocka_run_group_tests(tests, make_tokenizer, drop_tokenizer);
}
