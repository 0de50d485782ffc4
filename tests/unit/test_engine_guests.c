/* What may come and go beside the sequences of an engine on the fake model: merged copies, which change who
 * computes, and shadows, which score along. Neither changes a byte. Run under ThreadSanitizer too. */
#include "tests/test.h"

#include "engine_rig.h"

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

/* The crowd once more while copies come and go with its events. Returns the merged steps' number, or 0 if all
 * of them were. */
static uint64_t run_changing_crowd(const struct model *m, struct crowd *c, const struct record *alone)
{
    struct engine *e =
        engine_with(m, (struct engine_options){.context = 512, .n_threads = 2, .n_sequences = 2});
    struct record *all = mem_array(N_CROWD, sizeof *all);
    struct merged_copy copies[3];
    struct engine_stats stats;
    struct event v;
    for (uint32_t i = 0; i < 3; i++)
        copies[i] = fake_copy(&c->loras[i]);
    for (uint32_t i = 0; i < N_CROWD; i++)
        all[i].id = submit(e, &c->g[i]);
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
    }
    engine_stats(e, &stats);
    assert_true(stats.n_merged_tokens >= stats.n_merged_steps);
    assert_int_equal(stats.step_allocations, 0);
    engine_destroy(e);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(copies[i].refs, 1);
    mem_free(all);
    return stats.n_merged_steps < stats.n_steps ? stats.n_merged_steps : 0;
}

/* A copy changes who computes, never what the fake model says. */
static void the_crowd_is_the_same_with_copies_coming_and_going(void **state)
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
    uint64_t n_merged = 0;
    for (int i = 0; i < 50 && n_merged == 0; i++) /* a reader that lost its core may have come too late */
        n_merged = run_changing_crowd(&m, c, alone);
    assert_true(n_merged > 0);
    for (uint32_t i = 0; i < N_CROWD; i++)
        record_fini(&alone[i]);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(c->loras[i].refs, 1);
    mem_free(alone);
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

/* With costs a step takes the faster way for its number of rows; without, auto never merges. */
static void auto_follows_the_costs(void **state)
{
    (void)state;
    struct model m = fake_model();
    m.step_time.tv_nsec = 200 * 1000;
    const struct cost_model costs = {.n_workers = 1};
    struct error err;
    for (int with = 0; with < 2; with++) {
        struct lora a = {.refs = 1, .model = &m, .digest = {1}};
        struct merged_copy copy = fake_copy(&a);
        struct engine *e = engine_with(&m, (struct engine_options){.costs = with ? &costs : NULL});
        struct generation g = endless(&a);
        assert_int_equal(engine_set_merged(e, &copy, MERGED_AUTO, &err), STATUS_OK);
        uint64_t first = submit(e, &g);
        assert_int_equal(await(e, first, EVENT_STARTED).merged, with); /* three rows of a prompt */
        await_path(e, first, false);
        for (int i = 0; i < 10; i++)
            assert_false(next_is_merged(e, first));
        uint64_t second = submit(e, &g);
        assert_int_equal(await(e, second, EVENT_STARTED).merged, with);
        for (int i = 0; i < 10; i++)
            assert_int_equal(next_is_merged(e, second), with);
        engine_cancel(e, second);
        await(e, second, EVENT_DONE);
        await_path(e, first, false);
        engine_cancel(e, first);
        await(e, first, EVENT_DONE);
        engine_destroy(e);
        assert_true(copy.refs == 1 && a.refs == 1);
    }
}

/* n steps of n_rows rows that all want `lora`: a prompt in one chunk, all of it computed, and a token behind
 * it. */
static void run_steps(struct engine *e, struct lora *lora, uint32_t n, uint32_t n_rows)
{
    static const int32_t prompt[64];
    struct generation g = plain(prompt, n_rows);
    g.lora = lora;
    g.max_tokens = 1;
    g.cache_off = true;
    for (uint32_t i = 0; i < n; i++)
        record_free(run_one(e, &g));
}

static void traffic_is_shares_of_steps(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct engine *e = engine_with(&m, (struct engine_options){.context = 128, .n_threads = 1});
    struct lora a = {.refs = 1, .model = &m, .digest = {1}}, b = {.refs = 1, .model = &m, .digest = {2}};
    assert_true(engine_traffic(e, a.digest).share == 0);
    run_steps(e, &a, 3 * TRAFFIC_STEPS, 1);
    struct cost_load load = engine_traffic(e, a.digest);
    assert_true(load.share > 0.94 && load.share < 0.96 && load.n_rows == 1);
    run_steps(e, NULL, TRAFFIC_STEPS, 1); /* the base's steps are nobody's */
    load = engine_traffic(e, a.digest);
    assert_true(load.share > 0.34 && load.share < 0.36);
    run_steps(e, &b, TRAFFIC_STEPS, 40);
    load = engine_traffic(e, b.digest);
    assert_true(load.share > 0.62 && load.share < 0.64 && load.n_rows == 40);
    run_steps(e, &b, TRAFFIC_STEPS, 8);
    load = engine_traffic(e, b.digest);
    assert_true(load.share > 0.85 && load.n_rows > 8 && load.n_rows < 8.1);
    for (uint32_t i = 0; i < 2 * MERGED_COPIES_MAX; i++) { /* more than are remembered */
        struct lora l = {.refs = 1, .model = &m, .digest = {(uint8_t)i, 1}};
        run_steps(e, &l, 1, 1);
    }
    assert_true(engine_traffic(e, b.digest).share > 0.6);
    engine_destroy(e);
}

/* ---- shadows ---- */

static void shadows_change_nothing(void **state)
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
    for (uint32_t i = 0; i < N_CROWD; i++)
        c->g[i].shadow_lora = i % 5 == 4 ? NULL : &c->loras[i % 3];
    const struct {
        struct engine_options o;
        bool must_pause;
    } ways[] = {
        {{.context = 512, .n_threads = 2}, false},
        {{.context = 512, .n_threads = 2, .chunk_tokens = 7, .n_sequences = 3}, false},
        {{.context = 512, .n_threads = 2, .step_tokens = 16, .n_sequences = 16}, false},
        {{.context = 512, .n_threads = 2, .kv_bytes = 20 * PAGE}, true},
        {{.context = 512, .n_threads = 1, .kv_bytes = 17 * PAGE, .chunk_tokens = 7, .n_sequences = 8}, true},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        check_crowd(&m, c, alone, ways[i].o, ways[i].must_pause);
    for (uint32_t i = 0; i < N_CROWD; i++)
        record_fini(&alone[i]);
    mem_free(alone);
    mem_free(c);
}

/* One generation with a shadow, and with a merged copy if there is one; its bytes are `expected`'s. */
static struct shadow_score score_of(const struct model *m, struct engine_options o,
                                    const struct generation *g, struct merged_copy *copy,
                                    const struct record *expected)
{
    struct engine *e = engine_with(m, o);
    if (copy)
        set_merged(e, copy);
    struct record *r = run_one(e, g);
    assert_int_equal(r->last.kind, EVENT_DONE);
    assert_true(logs_equal(r, expected));
    assert_true(copy ? r->last.n_unmerged_tokens == 0 : r->last.n_merged_tokens == 0);
    struct shadow_score score = r->last.shadow;
    engine_destroy(e);
    record_free(r);
    return score;
}

static void a_shadow_scores_what_is_served(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct lora a = {.refs = 1, .model = &m, .digest = {1}}, b = {.refs = 1, .model = &m, .digest = {2}};
    struct lora broken = {.refs = 1, .model = &m, .digest = {FAKE_BROKEN}};
    struct merged_copy copy = fake_copy(&a);
    static int32_t prompt[100];
    struct generation g = plain(prompt, 100);
    g.lora = &a;
    g.max_tokens = 60;
    g.ignore_eos = true;
    const struct engine_options wide = {.context = 512, .n_threads = 2};
    struct engine *e = engine_with(&m, wide);
    struct record *expected = run_one(e, &g);
    engine_destroy(e);
    for (int merged = 0; merged < 2; merged++) {
        struct merged_copy *use = merged ? &copy : NULL;
        g.shadow_lora = &a; /* agrees with itself */
        struct shadow_score s = score_of(&m, wide, &g, use, expected);
        assert_true(s.n_tokens == 60 && s.n_agree == 60 && s.n_served == 60 && s.n_failed == 0);
        assert_true(s.kl_sum == 0 && !s.dropped);
        g.shadow_lora = &b;
        s = score_of(&m, wide, &g, use, expected);
        assert_true(s.n_tokens == 60 && s.n_agree < 20 && s.n_served == s.n_agree && s.kl_sum > 10);
        assert_true(!s.dropped && s.n_failed == 0);
        g.shadow_lora = &broken; /* its fault alone */
        s = score_of(&m, wide, &g, use, expected);
        assert_true(s.n_tokens == 0 && s.n_failed == 60 && s.kl_sum == 0 && !s.dropped);
        g.shadow_lora = &a; /* prompts leave it no budget: it lags, and catches up later */
        s = score_of(&m, (struct engine_options){.context = 512, .step_tokens = 8, .n_sequences = 8}, &g, use,
                     expected);
        assert_true(s.n_tokens > 30 && s.n_tokens < 60 && s.n_agree == s.n_tokens && !s.dropped);
        /* 5 pages: those of the sequence alone */
        s = score_of(&m, (struct engine_options){.context = 512, .kv_bytes = 5 * PAGE}, &g, use, expected);
        assert_true(s.dropped && s.n_tokens < 60);
    }
    record_free(expected);
    assert_true(a.refs == 1 && b.refs == 1 && broken.refs == 1 && copy.refs == 1);
}

/* Sampled tokens are those of the primary; who agrees is judged by the likeliest of both. */
static void a_shadow_has_bounds(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct lora a = {.refs = 1, .model = &m, .digest = {1}}, heavy = {.refs = 1, .model = &m, .t_max = 5000};
    struct engine *e = engine_with(
        &m, (struct engine_options){.context = 512, .n_sequences = 2 * SHADOWS_MAX, .kv_bytes = 400 * PAGE});
    struct record *all = mem_array(2 * SHADOWS_MAX, sizeof *all);
    struct generation g = plain(prompt_abc, 3);
    uint32_t n_dropped = 0;
    g.lora = g.shadow_lora = &a;
    g.ignore_eos = true;
    g.max_tokens = 400;
    g.sampling.temperature = 1;
    for (uint32_t i = 0; i < 2 * SHADOWS_MAX; i++) {
        g.sampling.seed = i;
        all[i].id = submit(e, &g);
    }
    gather(e, all, 2 * SHADOWS_MAX);
    for (uint32_t i = 0; i < 2 * SHADOWS_MAX; i++) {
        const struct shadow_score *s = &all[i].last.shadow;
        n_dropped += s->dropped;
        assert_int_equal(s->n_tokens, s->dropped ? 0 : 400);
        assert_int_equal(s->n_agree, s->n_tokens);
        assert_true(s->dropped || (s->n_served > 0 && s->n_served < 400));
        record_fini(&all[i]);
    }
    assert_int_equal(n_dropped, SHADOWS_MAX);
    struct engine_stats stats;
    engine_stats(e, &stats);
    assert_int_equal(stats.n_shadow_drops, SHADOWS_MAX);
    assert_true(stats.n_shadow_rows == SHADOWS_MAX * 402);
    assert_int_equal(stats.step_allocations, 0);
    g.shadow_lora = &heavy; /* no scratch for it */
    struct record *r = run_one(e, &g);
    assert_true(r->last.kind == EVENT_DONE && r->last.shadow.dropped);
    assert_int_equal(heavy.refs, 1);
    record_free(r);
    g.shadow_lora = &a;
    g.max_tokens = 0; /* nothing is sampled, so nothing is scored */
    g.n_prompt_logprobs = 1;
    r = run_one(e, &g);
    assert_false(r->last.shadow.dropped);
    assert_int_equal(r->last.shadow.n_tokens, 0);
    record_free(r);
    struct model other = m;
    struct lora stranger = {.refs = 1, .model = &other};
    g.shadow_lora = &stranger;
    check_refused(e, &g, STATUS_MISMATCH, "another base");
    engine_destroy(e);
    assert_int_equal(a.refs, 1);
    mem_free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sequence_crosses_to_the_copy_and_back),
        cmocka_unit_test(the_crowd_is_the_same_with_copies_coming_and_going),
        cmocka_unit_test(copies_are_counted_and_bounded),
        cmocka_unit_test(auto_follows_the_costs),
        cmocka_unit_test(traffic_is_shares_of_steps),
        cmocka_unit_test(shadows_change_nothing),
        cmocka_unit_test(a_shadow_scores_what_is_served),
        cmocka_unit_test(a_shadow_has_bounds),
    };
    return cmocka_run_group_tests(tests, make_tokenizer, drop_tokenizer);
}
