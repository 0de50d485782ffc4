/* Callers share the engine by their weights, whatever each has waiting; nobody waits for ever. */
#include "tests/test.h"

#include "engine_rig.h"

#define N_CALLERS_MAX 8U
#define STEP_NS 50000 /* so that queues are filled faster than they are served */

struct stream {
    uint32_t number;
    float weight, cost;
    bool batch;
    uint32_t n_prompt, n_out; /* of each generation */
    uint32_t n_waiting;       /* kept at so many */
};

struct share {
    uint64_t cost, n_tokens;
    uint64_t n_done;
};

static struct generation_caller caller_of(const struct stream *s)
{
    return (struct generation_caller){
        .number = s->number, .weight = s->weight, .cost = s->cost, .batch = s->batch};
}

/* Every stream keeps its queue full until n_done generations are over; what each was served then. */
static void serve(struct engine *e, const struct stream *streams, uint32_t n, uint32_t n_done,
                  struct share *shares)
{
    static int32_t prompt[300];
    uint64_t ids[1024];
    uint32_t owners[1024], n_open = 0;
    struct event v;
    memset(shares, 0, n * sizeof *shares);
    for (uint32_t t = 0; t < 300; t++)
        prompt[t] = (int32_t)(t * 7 % 200 + 20);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < streams[i].n_waiting; k++) {
            struct generation g = plain(prompt, streams[i].n_prompt);
            g.max_tokens = streams[i].n_out;
            g.ignore_eos = true;
            g.cache_off = true;
            g.caller = caller_of(&streams[i]);
            owners[n_open] = i;
            ids[n_open++] = submit(e, &g);
        }
    for (uint32_t over = 0; over < n_done;) {
        assert_true(engine_wait(e, &v, 20 * NS_PER_S));
        uint32_t k = 0;
        while (k < n_open && ids[k] != v.id)
            k++;
        assert_true(k < n_open);
        const struct stream *s = &streams[owners[k]];
        if (v.kind == EVENT_STARTED)
            shares[owners[k]].cost += s->n_prompt;
        if (v.kind == EVENT_TOKEN) {
            shares[owners[k]].cost += 2;
            shares[owners[k]].n_tokens++;
        }
        if (v.kind != EVENT_DONE)
            continue;
        over++;
        shares[owners[k]].n_done++;
        struct generation g = plain(prompt, s->n_prompt);
        g.max_tokens = s->n_out;
        g.ignore_eos = true;
        g.cache_off = true;
        g.caller = caller_of(s);
        ids[k] = submit(e, &g);
    }
}

static void weights_are_shares(void **state)
{
    (void)state;
    struct model m = fake_model();
    m.step_time.tv_nsec = STEP_NS;
    static const struct {
        struct stream streams[N_CALLERS_MAX];
        uint32_t n;
    } cases[] = {
        {{{1, 1, 1, false, 10, 10, 400}, {2, 3, 1, false, 10, 10, 400}}, 2},
        /* short ones against long ones, and one with few against many */
        {{{1, 1, 1, false, 100, 5, 400}, {2, 1, 1, false, 5, 40, 400}}, 2},
        {{{1, 1, 1, false, 10, 10, 200}, {2, 1, 1, false, 10, 10, 500}, {3, 2, 1, false, 10, 10, 200}}, 3},
        {{{7, 0.5F, 1, true, 10, 20, 400}, {9, 1.5F, 1, true, 20, 10, 400}}, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct share shares[N_CALLERS_MAX];
        struct engine *e =
            engine_with(&m, (struct engine_options){.n_sequences = 4, .context = 256, .queue_limit = 1000});
        serve(e, cases[i].streams, cases[i].n, 1000, shares);
        double sum = 0, weights = 0;
        for (uint32_t k = 0; k < cases[i].n; k++) {
            sum += (double)shares[k].cost;
            weights += (double)cases[i].streams[k].weight;
        }
        for (uint32_t k = 0; k < cases[i].n; k++) {
            double share = (double)shares[k].cost / sum, due = (double)cases[i].streams[k].weight / weights;
            if (fabs(share / due - 1) > 0.05)
                fail_msg("case %zu: caller %u has %.3f of all, %.3f is due", i, k, share, due);
        }
        engine_destroy(e);
    }
}

/* An adapter that makes tokens twice as dear gets half of them. */
static void dear_tokens_count_more(void **state)
{
    (void)state;
    struct model m = fake_model();
    const struct stream streams[] = {{1, 1, 2, false, 10, 10, 400}, {2, 1, 1, false, 10, 10, 400}};
    struct share shares[2];
    m.step_time.tv_nsec = STEP_NS;
    struct engine *e = engine_with(&m, (struct engine_options){.n_sequences = 4, .context = 256});
    serve(e, streams, 2, 1000, shares);
    double ratio = (double)shares[1].n_tokens / (double)shares[0].n_tokens;
    if (ratio < 1.9 || ratio > 2.1)
        fail_msg("%.3f", ratio);
    engine_destroy(e);
}

/* A caller that comes late to a crowd is served at once, and saves nothing up while it is away. */
static void a_newcomer_does_not_wait_for_the_crowd(void **state)
{
    (void)state;
    struct model m = fake_model();
    static const int32_t prompt[] = {1, 2, 3, 4};
    struct engine *e = engine_with(&m, (struct engine_options){.n_sequences = 2, .context = 256});
    struct event v;
    uint64_t last = 0, late = 0;
    uint32_t n_over = 0, n_before = 0;
    struct generation g = plain(prompt, 4);
    g.max_tokens = 20;
    g.ignore_eos = true;
    g.caller = (struct generation_caller){.number = 1, .weight = 1};
    for (int i = 0; i < 200; i++)
        last = submit(e, &g);
    g.caller.number = 2;
    bool sent = false, over = false;
    while (!over) {
        assert_true(engine_wait(e, &v, 20 * NS_PER_S));
        n_over += v.kind == EVENT_DONE;
        if (n_over == 20 && !sent) {
            late = submit(e, &g);
            sent = true;
        }
        if (sent && v.id != late && v.kind == EVENT_DONE)
            n_before++;
        over = sent && v.kind == EVENT_DONE && v.id == late;
    }
    assert_true(n_before < 60); /* the engine runs on while we look; behind all it would be 180 */
    assert_true(last > 0);
    struct engine_stats stats;
    engine_stats(e, &stats);
    assert_true(stats.wait_max_ns > 0);
    engine_destroy(e);
}

/* A caller's own priorities order its own alone. */
static void priority_is_within_a_caller(void **state)
{
    (void)state;
    struct model m = fake_model();
    static const int32_t prompt[] = {1, 2, 3, 4};
    m.step_time.tv_nsec = 200000;
    struct engine *e = engine_with(&m, (struct engine_options){.n_sequences = 1, .context = 256});
    struct event v;
    uint64_t ids[40], order[40];
    uint32_t n = 0;
    struct generation g = plain(prompt, 4);
    g.max_tokens = 10;
    g.ignore_eos = true;
    for (uint32_t i = 0; i < 40; i++) {
        g.caller = (struct generation_caller){.number = 1 + i % 2, .weight = 1};
        g.priority = i % 2 ? -1000 - (int32_t)i : (int32_t)i; /* the second one pushes */
        ids[i] = submit(e, &g);
    }
    while (n < 40) {
        assert_true(engine_wait(e, &v, 20 * NS_PER_S));
        if (v.kind == EVENT_DONE)
            order[n++] = v.id;
    }
    uint32_t n_first = 0; /* of the first caller, among the first half */
    for (uint32_t k = 0; k < 20; k++)
        for (uint32_t i = 0; i < 40; i += 2)
            n_first += order[k] == ids[i];
    assert_true(n_first >= 9 && n_first <= 11);
    /* The second's come from the last to the first, but for those that began before. */
    uint32_t turned = 0, before = 0;
    for (uint32_t k = 0; k < 40; k++)
        for (uint32_t i = 1; i < 40; i += 2)
            if (order[k] == ids[i]) {
                turned += before && i < before;
                before = i;
            }
    assert_true(turned >= 16);
    engine_destroy(e);
}

/* Batch callers stand back while others wait, and get what nobody else wants. */
static void batch_stands_back(void **state)
{
    (void)state;
    struct model m = fake_model();
    const struct stream streams[] = {{1, 1, 1, false, 10, 10, 400}, {2, 1, 1, true, 10, 10, 400}};
    struct share shares[2];
    m.step_time.tv_nsec = STEP_NS;
    struct engine *e = engine_with(&m, (struct engine_options){.n_sequences = 2, .context = 256});
    serve(e, streams, 2, 1000, shares);
    if (shares[1].n_done > 20)
        fail_msg("%llu", (unsigned long long)shares[1].n_done);
    engine_destroy(e);
    e = engine_with(&m, (struct engine_options){.n_sequences = 2, .context = 256});
    serve(e, &streams[1], 1, 100, shares);
    assert_int_equal(shares[0].n_done, 100);
    engine_destroy(e);
}

/* What a caller has running may never come to need more than its share of the pages; others have the rest. */
static void pages_are_shared(void **state)
{
    (void)state;
    struct model m = fake_model();
    static int32_t prompt[64];
    m.step_time.tv_nsec = STEP_NS;
    struct engine *e =
        engine_with(&m, (struct engine_options){.n_sequences = 16, .context = 256, .kv_bytes = 40 * PAGE});
    struct engine_stats stats;
    engine_stats(e, &stats);
    uint32_t n_pages = stats.kv_pages, running[2] = {0, 0}, most[2] = {0, 0}, n_over = 0;
    struct event v;
    uint64_t ids[2][40];
    struct generation g = plain(prompt, 64);
    g.max_tokens = 64;
    g.ignore_eos = true;
    g.cache_off = true;
    uint32_t each = (64 + 64 + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
    for (uint32_t i = 0; i < 40; i++)
        for (uint32_t k = 0; k < 2; k++) {
            g.caller = (struct generation_caller){.number = k + 1, .weight = 1, .kv_share = k ? 1 : 0.25F};
            ids[k][i] = submit(e, &g);
        }
    while (n_over < 80) {
        assert_true(engine_wait(e, &v, 20 * NS_PER_S));
        uint32_t k = 1;
        for (uint32_t i = 0; i < 40; i++)
            k = ids[0][i] == v.id ? 0 : k;
        running[k] += v.kind == EVENT_STARTED;
        running[k] -= v.kind == EVENT_DONE;
        n_over += v.kind == EVENT_DONE;
        most[k] = running[k] > most[k] ? running[k] : most[k];
    }
    assert_true(most[0] >= 1 && (most[0] == 1 || most[0] * each <= n_pages / 4));
    assert_true(most[1] > most[0]);
    engine_destroy(e);
    /* One that is larger than its share runs alone. */
    e = engine_with(&m, (struct engine_options){.n_sequences = 16, .context = 256, .kv_bytes = 40 * PAGE});
    g.caller = (struct generation_caller){.number = 1, .weight = 1, .kv_share = 0.001F};
    for (uint32_t i = 0; i < 5; i++)
        submit(e, &g);
    for (n_over = 0; n_over < 5; n_over += v.kind == EVENT_DONE)
        assert_true(engine_wait(e, &v, 20 * NS_PER_S));
    engine_destroy(e);
}

/* A crowd without a share has filled the memory when another caller comes: with a share it starts at once and
 * is never paused, without one it waits for somebody's end. Who was paused for it says the same as ever. */
static void a_share_can_be_had_at_any_time(void **state)
{
    (void)state;
    struct model m = fake_model();
    static int32_t prompt[64];
    m.step_time.tv_nsec = 2000000;
    for (int with = 0; with < 2; with++) {
        struct engine *e = engine_with(
            &m, (struct engine_options){.n_sequences = 16, .context = 256, .kv_bytes = 40 * PAGE});
        struct engine_stats stats = {0};
        struct event v = {0};
        uint64_t one = 0;
        uint32_t n_over = 0, n_before = 0, n_tokens = 0;
        struct generation g = plain(prompt, 64);
        g.ignore_eos = g.cache_off = true;
        for (uint32_t i = 0; i < 8; i++) {
            g.max_tokens = 180;
            g.caller = (struct generation_caller){.number = 1, .weight = 1};
            submit(e, &g);
        }
        while (stats.n_preemptions == 0) { /* no more fits */
            assert_true(engine_wait(e, &v, 20 * NS_PER_S));
            n_tokens += v.kind == EVENT_TOKEN;
            n_over += v.kind == EVENT_DONE;
            engine_stats(e, &stats);
        }
        g.max_tokens = 150;
        g.caller = (struct generation_caller){.number = 2, .weight = 1, .kv_share = with ? 0.5F : 0};
        one = submit(e, &g);
        for (bool started = false; n_over < 9;) {
            assert_true(engine_wait(e, &v, 20 * NS_PER_S));
            started |= v.kind == EVENT_STARTED && v.id == one;
            n_tokens += v.kind == EVENT_TOKEN;
            n_over += v.kind == EVENT_DONE;
            n_before += v.kind == EVENT_DONE && !started;
        }
        assert_true(with ? n_before == 0 : n_before > 0);
        assert_int_equal(n_tokens, 8 * 180 + 150);
        engine_destroy(e);
    }
}

/* A voice behind a crowd, and a caller of hardly any weight: something of either is started after the bound.
 */
static void nobody_waits_beyond_the_bound(void **state)
{
    (void)state;
    struct model m = fake_model();
    static const int32_t prompt[] = {1, 2, 3, 4};
    m.step_time.tv_nsec = 500000;
    for (int many = 0; many < 2; many++) {
        struct engine *e = engine_with(
            &m, (struct engine_options){.n_sequences = 1, .context = 256, .wait_bound_ns = 100 * NS_PER_MS});
        struct generation g = plain(prompt, 4);
        struct event v;
        uint32_t n_before = 0;
        g.max_tokens = 20;
        g.ignore_eos = true;
        for (uint32_t i = 0; i < 200; i++) {
            g.caller = (struct generation_caller){.number = many, .weight = 1};
            submit(e, &g);
        }
        g.priority = 5; /* of its own caller it would be the last one */
        g.caller = (struct generation_caller){.number = many ? 2 : 0, .weight = 0.001F, .batch = many};
        struct lora other = {.refs = 1, .model = &m};
        g.lora = many ? NULL : &other;
        uint64_t one = submit(e, &g);
        for (v = (struct event){0}; v.id != one || v.kind != EVENT_DONE;) {
            assert_true(engine_wait(e, &v, 20 * NS_PER_S));
            n_before += v.kind == EVENT_DONE && v.id != one;
        }
        assert_true(n_before < 150);
        struct engine_stats stats;
        engine_stats(e, &stats);
        assert_true(stats.wait_bound_ns == 100 * NS_PER_MS && stats.n_late >= 1);
        assert_true(stats.voice_wait_max_ns[many] >= 100 * NS_PER_MS);
        engine_destroy(e);
        assert_int_equal(other.refs, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_shares),
        cmocka_unit_test(dear_tokens_count_more),
        cmocka_unit_test(a_newcomer_does_not_wait_for_the_crowd),
        cmocka_unit_test(priority_is_within_a_caller),
        cmocka_unit_test(batch_stands_back),
        cmocka_unit_test(pages_are_shared),
        cmocka_unit_test(a_share_can_be_had_at_any_time),
        cmocka_unit_test(nobody_waits_beyond_the_bound),
    };
    return cmocka_run_group_tests(tests, make_tokenizer, drop_tokenizer);
}
