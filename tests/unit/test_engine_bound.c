/* No voice waits beyond the bound, whoever runs: others are paused for it, a few times each, and say the same
 * as ever. */
#include "tests/test.h"

#include "engine_rig.h"

#define BOUND_NS (60 * NS_PER_MS)
#define N_MAX 24U

static const int32_t prompt_of_tests[] = {40, 41, 42, 43};

/* What a bound of BOUND_NS meets: generations of 250 tokens, a millisecond each. */
static struct generation lengthy(struct lora *lora, uint32_t caller, bool batch)
{
    struct generation g = plain(prompt_of_tests, 4);
    g.max_tokens = 250;
    g.ignore_eos = true;
    g.lora = lora;
    g.caller = (struct generation_caller){.number = caller, .weight = 1, .batch = batch};
    return g;
}

static struct model slow_model(void)
{
    struct model m = fake_model();
    m.step_time.tv_nsec = 1000000;
    return m;
}

/* Order of first events: which of the n ids are started, and which are over, when `last` has its first token.
 */
static void until_token_of(struct engine *e, const uint64_t *ids, uint32_t n, uint32_t last, bool *started,
                           bool *over)
{
    struct event v = {0};
    while (v.id != ids[last] || v.kind != EVENT_TOKEN) {
        assert_true(engine_wait(e, &v, 20 * NS_PER_S));
        for (uint32_t i = 0; i < n; i++) {
            started[i] |= v.id == ids[i] && v.kind == EVENT_STARTED;
            over[i] |= v.id == ids[i] && v.kind == EVENT_DONE;
        }
    }
}

static struct engine_stats rest_of(struct engine *e, uint32_t n_over, uint32_t n)
{
    struct engine_stats stats;
    struct event v;
    while (n_over < n) {
        assert_true(engine_wait(e, &v, 20 * NS_PER_S));
        assert_true(v.kind != EVENT_FAILED);
        n_over += v.kind == EVENT_DONE;
    }
    engine_stats(e, &stats);
    assert_int_equal(stats.kv_pages_free, stats.kv_pages);
    assert_int_equal(stats.n_running + stats.n_waiting + stats.n_paused, 0);
    assert_int_equal(stats.step_allocations, 0);
    return stats;
}

/* All places are taken by one voice's, of everybody or of one tenant; another voice's, of everybody, of the
 * same tenant or of another one, has its first token before any of them ends. */
static void a_place_is_made(void **state)
{
    (void)state;
    struct model m = slow_model();
    for (uint32_t mode = 0; mode < 3; mode++) {
        struct lora a = {.refs = 1, .model = &m}, b = {.refs = 1, .model = &m};
        a.digest[0] = 1;
        b.digest[0] = 2;
        struct engine *e = engine_with(
            &m, (struct engine_options){.n_sequences = 3, .context = 512, .wait_bound_ns = BOUND_NS});
        uint64_t ids[5];
        bool started[5] = {0}, over[5] = {0};
        struct engine_stats stats;
        struct generation g = lengthy(&a, mode > 0, false);
        for (uint32_t i = 0; i < 4; i++) /* the fourth one waits */
            ids[i] = submit(e, &g);
        g = lengthy(&b, mode, true);
        ids[4] = submit(e, &g);
        until_token_of(e, ids, 5, 4, started, over);
        engine_stats(e, &stats);
        assert_false(over[0] || over[1] || over[2] || over[3]);
        assert_true(stats.n_yields >= 1 && stats.n_late >= 1);
        assert_true(stats.voice_wait_max_ns[1] >= (uint64_t)BOUND_NS / 2);
        stats = rest_of(e, 0, 5);
        assert_true(stats.n_yields <= 5 * 3);
        engine_destroy(e);
        assert_true(a.refs == 1 && b.refs == 1);
    }
}

/* The places are free, the pages aren't. */
static void pages_are_made_free(void **state)
{
    (void)state;
    struct model m = slow_model();
    struct lora b = {.refs = 1, .model = &m};
    b.digest[0] = 2;
    static int32_t prompt[150];
    struct engine *e = engine_with(
        &m, (struct engine_options){
                .n_sequences = 8, .context = 512, .kv_bytes = 24 * PAGE, .wait_bound_ns = BOUND_NS});
    uint64_t ids[4];
    bool started[4] = {0}, over[4] = {0};
    struct generation g = lengthy(NULL, 0, false);
    g.prompt = prompt;
    g.n_prompt = 150;
    g.cache_off = true;
    for (uint32_t i = 0; i < 2; i++)
        ids[i] = submit(e, &g);
    await(e, ids[1], EVENT_TOKEN);
    g.lora = &b;
    ids[2] = submit(e, &g);
    until_token_of(e, ids, 3, 2, started, over);
    assert_false(over[0] || over[1]);
    struct engine_stats stats = rest_of(e, 0, 3);
    assert_true(stats.n_yields >= 1 && stats.n_yields <= 9);
    engine_destroy(e);
}

/* The places and pages are free, the caller's share of them is full: of its own voices another yields. */
static void a_full_share_is_no_reason(void **state)
{
    (void)state;
    struct model m = slow_model();
    struct lora b = {.refs = 1, .model = &m};
    b.digest[0] = 2;
    for (int many = 0; many < 2; many++) {
        struct engine *e = engine_with(
            &m, (struct engine_options){
                    .n_sequences = 8, .context = 512, .kv_bytes = 60 * PAGE, .wait_bound_ns = BOUND_NS});
        uint64_t ids[6];
        bool started[6] = {0}, over[6] = {0};
        struct generation g = lengthy(NULL, 1, false);
        g.caller.kv_share = many ? 0.5F : 0.01F;
        for (uint32_t i = 0; i < 5; i++)
            ids[i] = submit(e, &g);
        await(e, ids[many ? 1 : 0], EVENT_TOKEN);
        g.lora = &b;
        ids[5] = submit(e, &g);
        until_token_of(e, ids, 6, 5, started, over);
        for (uint32_t i = 0; i < 5; i++)
            assert_false(over[i]);
        struct engine_stats stats = rest_of(e, 0, 6);
        assert_true(stats.n_yields >= 1 && stats.n_yields <= 6 * 3);
        engine_destroy(e);
    }
}

/* One crowd: between two starts there is the bound, not a whole generation; nobody is paused often. */
static void a_crowd_moves_on(void **state)
{
    (void)state;
    struct model m = slow_model();
    for (uint32_t n = 1; n < 5; n += 3) {
        struct engine *e = engine_with(
            &m, (struct engine_options){.n_sequences = n, .context = 512, .wait_bound_ns = BOUND_NS});
        uint64_t ids[N_MAX];
        bool started[N_MAX] = {0}, over[N_MAX] = {0};
        struct generation g = lengthy(NULL, 0, false);
        for (uint32_t i = 0; i < n + 3; i++)
            ids[i] = submit(e, &g);
        until_token_of(e, ids, n + 3, n + 1, started, over);
        for (uint32_t i = 0; i < n + 3; i++) {
            assert_false(over[i]);
            assert_true(i > n + 1 || started[i]); /* by arrival */
        }
        struct engine_stats stats = rest_of(e, 0, n + 3);
        assert_true(stats.n_yields >= 1 && stats.n_yields <= (n + 3) * 3);
        engine_destroy(e);
    }
}

/* Of two interactive ones and a batch one, which all have run for long enough, the latter yields, though the
 * others' caller has more running; and it gives no token while it is aside. */
static void the_class_yields_first(void **state)
{
    (void)state;
    struct model m = slow_model();
    struct engine *e = engine_with(
        &m, (struct engine_options){.n_sequences = 3, .context = 512, .wait_bound_ns = 3 * BOUND_NS});
    struct generation g = lengthy(NULL, 1, false);
    g.max_tokens = 500;
    uint64_t one = submit(e, &g), two = submit(e, &g), last;
    g = lengthy(NULL, 2, true);
    g.max_tokens = 500;
    uint64_t third = submit(e, &g);
    await(e, third, EVENT_TOKEN);
    g = lengthy(NULL, 3, false);
    g.max_tokens = 10;
    last = submit(e, &g);
    uint32_t n_one = 0, n_two = 0, n_third = 0;
    struct event v = {0};
    while (v.id != last || v.kind != EVENT_DONE) {
        assert_true(engine_wait(e, &v, 20 * NS_PER_S));
        if (v.id == last && v.kind == EVENT_STARTED)
            n_one = n_two = n_third = 0;
        n_one += v.id == one && v.kind == EVENT_TOKEN;
        n_two += v.id == two && v.kind == EVENT_TOKEN;
        n_third += v.id == third && v.kind == EVENT_TOKEN;
    }
    assert_true(n_third == 0 && n_one > 5 && n_two > 5);
    struct engine_stats stats = rest_of(e, 1, 4);
    assert_true(stats.n_yields >= 1 && stats.n_yields <= 4 * 3);
    engine_destroy(e);
}

/* A cancelled one that was put aside is gone, and what it had. */
static void who_is_aside_can_be_cancelled(void **state)
{
    (void)state;
    struct model m = slow_model();
    struct lora b = {.refs = 1, .model = &m};
    b.digest[0] = 2;
    struct engine *e =
        engine_with(&m, (struct engine_options){.n_sequences = 1, .context = 512, .wait_bound_ns = BOUND_NS});
    struct generation g = lengthy(NULL, 0, false);
    uint64_t one = submit(e, &g);
    g.lora = &b;
    uint64_t two = submit(e, &g);
    await(e, two, EVENT_TOKEN);
    struct engine_stats stats;
    engine_stats(e, &stats);
    assert_true(stats.n_paused == 1 && stats.n_running == 1);
    engine_cancel(e, one);
    struct event v = await(e, one, EVENT_DONE);
    assert_true(v.reason == FINISH_CANCELLED && v.n_generated > 10);
    v = await(e, two, EVENT_DONE);
    assert_int_equal(v.n_generated, 250);
    engine_stats(e, &stats);
    assert_int_equal(stats.kv_pages_free, stats.kv_pages);
    engine_destroy(e);
    assert_int_equal(b.refs, 1);
}

/* Generations of all kinds (seeds, penalties, stop strings, logprobs): the same as alone. */
static void who_yields_says_the_same(void **state)
{
    (void)state;
    struct model m = slow_model();
    struct crowd *c = crowd_create(&m);
    struct record *alone = mem_array(N_CROWD, sizeof *alone);
    m.step_time.tv_nsec = 0;
    struct engine *e = engine_with(&m, (struct engine_options){.n_sequences = 1, .context = 512});
    for (uint32_t i = 0; i < N_CROWD; i++) {
        struct record *r = run_one(e, &c->g[i]);
        alone[i] = *r;
        mem_free(r);
    }
    engine_destroy(e);
    m.step_time.tv_nsec = 200000;
    static const struct engine_options options[] = {
        {.context = 512, .n_threads = 2, .n_sequences = 3, .wait_bound_ns = 10 * NS_PER_MS},
        {.context = 512, .n_threads = 1, .n_sequences = 1, .wait_bound_ns = 20 * NS_PER_MS},
        {.context = 512,
         .n_threads = 1,
         .n_sequences = 5,
         .kv_bytes = 40 * PAGE,
         .wait_bound_ns = 10 * NS_PER_MS,
         .speculation = SPECULATION_ALWAYS},
        {.context = 512,
         .n_threads = 1,
         .n_sequences = 4,
         .chunk_tokens = 7,
         .prefix_cache_off = true,
         .wait_bound_ns = 10 * NS_PER_MS},
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        for (uint32_t k = 0; k < N_CROWD; k++)
            c->g[k].caller = (struct generation_caller){
                .number = i % 2 ? k % 3 : 0, .batch = k % 2, .kv_share = i == 3 && k % 3 == 1 ? 0.3F : 0};
        struct engine_stats stats = check_crowd(&m, c, alone, options[i], false);
        if (stats.n_yields < 3 || stats.n_yields > 3 * N_CROWD)
            fail_msg("%zu: %llu", i, (unsigned long long)stats.n_yields);
    }
    for (uint32_t i = 0; i < N_CROWD; i++)
        record_fini(&alone[i]);
    mem_free(alone);
    mem_free(c);
}

/* More tenants than a plan has places wait, each with more than its share of the pages: one at a time. */
static void many_have_small_shares(void **state)
{
    (void)state;
    enum { N = 48 };
    struct model m = fake_model();
    struct engine *e = engine_with(&m, (struct engine_options){.n_sequences = 2, .context = 512});
    for (uint32_t i = 0; i < N; i++) {
        struct generation g = lengthy(NULL, i + 1, false);
        g.caller.kv_share = 0.001F;
        g.max_tokens = 40;
        submit(e, &g);
    }
    rest_of(e, 0, N);
    engine_destroy(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_place_is_made),           cmocka_unit_test(pages_are_made_free),
        cmocka_unit_test(a_full_share_is_no_reason), cmocka_unit_test(a_crowd_moves_on),
        cmocka_unit_test(the_class_yields_first),    cmocka_unit_test(who_is_aside_can_be_cancelled),
        cmocka_unit_test(who_yields_says_the_same),  cmocka_unit_test(many_have_small_shares),
    };
    return cmocka_run_group_tests(tests, make_tokenizer, drop_tokenizer);
}
