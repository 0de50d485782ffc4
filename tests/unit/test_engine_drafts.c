/* Drafts in an engine on the fake model, here one that repeats itself: whatever is guessed, right or wrong,
 * no byte of any output changes, and ends, counts, pauses, shadows and copies stay what they are. Run under
 * ThreadSanitizer too. */
#include "tests/test.h"

#include "engine_rig.h"
#include "speculation.h"

static struct model repeating_model(void)
{
    struct model m = fake_model();
    m.has_habits = true;
    return m;
}

static struct record *run_crowd_alone(const struct model *m, const struct crowd *c)
{
    struct record *alone = mem_array(N_CROWD, sizeof *alone);
    struct engine *e = engine_with(m, (struct engine_options){.n_sequences = 1, .context = 512});
    struct engine_stats stats;
    for (uint32_t i = 0; i < N_CROWD; i++) {
        alone[i].id = submit(e, &c->g[i]);
        gather(e, &alone[i], 1);
    }
    engine_stats(e, &stats);
    assert_true(stats.n_drafted == 0 && stats.n_drafts_right == 0); /* nobody asked for it */
    engine_destroy(e);
    return alone;
}

static void free_crowd(struct crowd *c, struct record *alone)
{
    for (uint32_t i = 0; i < N_CROWD; i++)
        record_fini(&alone[i]);
    mem_free(alone);
    mem_free(c);
}

static void a_crowd_says_the_same(void **state)
{
    (void)state;
    for (int habits = 0; habits < 2; habits++) {
        struct model m = habits ? repeating_model() : fake_model();
        struct crowd *c = crowd_create(&m);
        struct record *alone = run_crowd_alone(&m, c);
        const struct {
            struct engine_options o;
            bool must_pause;
        } ways[] = {
            {{.context = 512, .n_threads = 1, .n_sequences = 1}, false},
            {{.context = 512, .n_threads = 2}, false},
            {{.context = 512, .n_threads = 3, .chunk_tokens = 7, .n_sequences = 3}, false},
            {{.context = 512, .n_threads = 2, .step_tokens = 9, .n_sequences = 8}, false},
            {{.context = 512, .n_threads = 2, .kv_bytes = 20 * PAGE}, true},
            {{.context = 512, .n_threads = 1, .kv_bytes = 17 * PAGE, .chunk_tokens = 7, .n_sequences = 8},
             true},
        };
        uint64_t n_drafted = 0, n_right = 0;
        for (size_t i = 0; i < 2 * sizeof ways / sizeof *ways; i++) {
            struct engine_options o = ways[i / 2].o;
            o.speculation = i % 2 ? SPECULATION_ALWAYS : SPECULATION_AUTO;
            struct engine_stats stats = check_crowd(&m, c, alone, o, ways[i / 2].must_pause);
            assert_int_equal(stats.step_allocations, 0);
            assert_true(stats.n_drafts_right <= stats.n_drafted);
            if (!habits && o.speculation == SPECULATION_AUTO) /* what is never right is soon left */
                assert_true(stats.n_drafted < stats.n_generated_tokens / 20);
            n_drafted += stats.n_drafted;
            n_right += stats.n_drafts_right;
        }
        assert_true(n_drafted > n_right);
        assert_true(!habits || n_right > 2000);
        free_crowd(c, alone);
    }
}

/* Generations of any kind, small ones above all, so that every end falls into a draft somewhere. */
static struct generation any_generation(int32_t *prompt, uint64_t seed)
{
    static const char *const stops[] = {"a", "ee", "bc", "\xc3\xa9", "t t", "xyz"};
    static const int32_t stop_tokens[] = {'q', 'e', 60};
    uint64_t h = fake_mix(7, seed);
    uint32_t n = 1 + (uint32_t)(h % 40);
    for (uint32_t t = 0; t < n; t++)
        prompt[t] = (int32_t)((h = fake_mix(h, t)) % (seed % 3 ? 256 : 5));
    struct generation g = plain(prompt, n);
    h = fake_mix(h, 1);
    g.max_tokens = 1 + (uint32_t)(h % (seed % 4 ? 20 : 150));
    g.min_tokens = seed % 5 == 1 ? (uint32_t)(h >> 8) % g.max_tokens : 0;
    g.sampling.seed = seed;
    g.sampling.temperature = seed % 2 ? 0 : 0.5F + (float)(h >> 16 & 3) / 4;
    g.sampling.top_k = seed % 7 == 2 ? 5 : 0;
    g.sampling.repetition_penalty = seed % 11 == 3 ? 1.02F : 1;
    g.sampling.frequency_penalty = seed % 13 == 4 ? 0.1F : 0;
    g.sampling.penalty_last_n = seed % 3 ? -1 : 4;
    g.n_logprobs = (int32_t)(seed % 4) - 1;
    g.n_prompt_logprobs = seed % 9 == 5 ? 1 : -1;
    g.ignore_eos = seed % 3 > 0;
    g.stop_strings = stops + h % 4;
    g.n_stop_strings = seed % 3;
    g.include_stop = seed % 2;
    g.stop_tokens = stop_tokens;
    g.n_stop_tokens = seed % 6 == 4 ? 3 : 0;
    return g;
}

static void any_generation_ends_the_same(void **state)
{
    (void)state;
    struct model m = repeating_model();
    const struct engine_options o = {.context = 256, .speculation = SPECULATION_ALWAYS};
    struct engine *plainly = engine_with(&m, (struct engine_options){.context = 256});
    struct engine *drafting = engine_with(&m, o);
    struct engine_stats with, without;
    int32_t prompt[64];
    uint32_t n_drafted = 0, n_right = 0;
    for (uint64_t seed = 0; seed < 600; seed++) {
        struct generation g = any_generation(prompt, seed);
        struct record *a = run_one(plainly, &g), *b = run_one(drafting, &g);
        if (!logs_equal(a, b))
            fail_msg("generation %u differs", (unsigned)seed);
        assert_true(a->last.n_drafted == 0 && b->last.n_drafts_right <= b->last.n_drafted);
        assert_int_equal(a->last.n_unmerged_tokens, b->last.n_unmerged_tokens);
        n_drafted += b->last.n_drafted;
        n_right += b->last.n_drafts_right;
        record_free(a);
        record_free(b);
    }
    engine_stats(plainly, &without);
    engine_stats(drafting, &with);
    assert_true(n_right > 3000 && n_drafted > n_right);
    assert_int_equal(with.n_generated_tokens, without.n_generated_tokens);
    assert_int_equal(with.kv_pages_free, with.kv_pages);
    assert_int_equal(with.step_allocations, 0);
    engine_destroy(plainly);
    engine_destroy(drafting);
}

/* A loop of one token: a step gives a whole draft and one more, and the counts say so. */
static void a_right_draft_saves_steps(void **state)
{
    (void)state;
    struct model m = fake_model();
    const struct logit_bias x = {'x', 100};
    struct engine *e =
        engine_with(&m, (struct engine_options){.context = 256, .speculation = SPECULATION_ALWAYS});
    struct generation g = plain(prompt_abc, 3);
    g.sampling.logit_bias = &x;
    g.sampling.n_logit_bias = 1;
    g.max_tokens = 100;
    struct record *r = run_one(e, &g);
    assert_int_equal(r->n_tokens, 100);
    assert_true(r->last.n_drafts_right > 80 && r->last.n_drafted >= r->last.n_drafts_right);
    assert_int_equal(r->last.n_unmerged_tokens, 102);
    record_free(r);
    struct engine_stats s = {0};
    for (int i = 0; i < 2000 && s.n_steps < 10; i++) { /* the last step's counts come after its events */
        struct timespec t = {.tv_nsec = 1000000};
        nanosleep(&t, NULL);
        engine_stats(e, &s);
    }
    assert_true(s.n_steps < 20);
    assert_true(s.n_drafts_right > 80);
    engine_destroy(e);
}

static uint32_t n_right_with(struct engine *e, struct generation g)
{
    g.max_tokens = 200;
    g.ignore_eos = true;
    struct record *r = run_one(e, &g);
    uint32_t n = r->last.n_drafts_right;
    record_free(r);
    return n;
}

/* How many guesses of a run were right. The model never repeats itself, so only a table can know. */
static uint32_t n_right_of(struct engine *e, struct lora *lora, uint8_t salt)
{
    struct generation g = plain(prompt_abc, 3);
    g.lora = lora;
    g.cache_salt[0] = salt;
    return n_right_with(e, g);
}

static void tables_are_an_adapters_and_a_callers(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct lora a = {.refs = 1, .model = &m, .digest = {1}}, same = a,
                b = {.refs = 1, .model = &m, .digest = {2}};
    struct engine *e =
        engine_with(&m, (struct engine_options){.context = 256, .speculation = SPECULATION_ALWAYS});
    assert_true(n_right_of(e, &a, 5) < 10);
    assert_true(n_right_of(e, &a, 5) > 100);
    assert_true(n_right_of(e, &same, 5) > 100);
    assert_true(n_right_of(e, &a, 6) < 10);
    assert_true(n_right_of(e, &a, 0) < 10);
    assert_true(n_right_of(e, &b, 5) < 10);
    assert_true(n_right_of(e, NULL, 5) < 10);
    assert_true(n_right_of(e, NULL, 5) > 100);
    struct generation g = plain(prompt_abc, 3);
    g.cache_off = true; /* who wants nothing kept gives nothing, and gets nothing */
    g.cache_salt[0] = 77;
    assert_true(n_right_with(e, g) < 10);
    g.cache_off = false;
    assert_true(n_right_with(e, g) < 10);
    assert_true(n_right_with(e, g) > 100);
    g.cache_off = true;
    assert_true(n_right_with(e, g) < 10);
    for (uint8_t i = 0; i < DRAFT_TABLES; i++)
        n_right_of(e, &a, 100 + i);
    assert_true(n_right_of(e, &a, 5) < 10); /* others have taken its place */
    engine_destroy(e);
    assert_int_equal(a.refs, 1);
}

/* Where all K and V are computed anew, no draft stands across the border. */
static void a_draft_ends_where_positions_change(void **state)
{
    (void)state;
    struct model m = repeating_model();
    m.config.rope.type = ROPE_LONGROPE;
    for (uint32_t limit = 20; limit < 60; limit++) {
        m.config.rope.original_max_position = limit;
        struct engine *plainly = engine_with(&m, (struct engine_options){.context = 256});
        struct engine *drafting =
            engine_with(&m, (struct engine_options){.context = 256, .speculation = SPECULATION_ALWAYS});
        struct generation g = plain(prompt_abc, 3);
        g.max_tokens = 100;
        g.ignore_eos = true;
        struct record *a = run_one(plainly, &g), *b = run_one(drafting, &g);
        assert_true(logs_equal(a, b));
        assert_true(b->last.n_drafts_right > 20);
        record_free(a);
        record_free(b);
        engine_destroy(plainly);
        engine_destroy(drafting);
    }
}

/* What was computed as drafts is what the prefix cache gives to the next turn of a chat. */
static void kept_pages_hold_what_was_said(void **state)
{
    (void)state;
    struct model m = repeating_model();
    struct engine *plainly =
        engine_with(&m, (struct engine_options){.context = 1024, .prefix_cache_off = true});
    struct engine *drafting =
        engine_with(&m, (struct engine_options){.context = 1024, .speculation = SPECULATION_ALWAYS});
    int32_t chat[1024] = {'a', 'b', 'c'};
    uint32_t n = 3;
    for (uint32_t turn = 0; turn < 12; turn++) {
        struct generation g = plain(chat, n);
        g.max_tokens = 70;
        g.ignore_eos = true;
        g.n_logprobs = 2;
        g.sampling.temperature = turn % 2 ? 0.5F : 0;
        struct record *a = run_one(plainly, &g), *b = run_one(drafting, &g);
        assert_true(logs_equal(a, b));
        assert_true(turn == 0 || b->last.n_cached + KV_PAGE_TOKENS > n - 2);
        assert_true(b->last.n_drafts_right > 0);
        memcpy(chat + n, b->tokens, b->n_tokens * sizeof *chat);
        n += b->n_tokens;
        chat[n++] = '?';
        record_free(a);
        record_free(b);
    }
    engine_destroy(plainly);
    engine_destroy(drafting);
}

static void shadows_and_copies_come_along(void **state)
{
    (void)state;
    struct model m = repeating_model();
    struct crowd *c = crowd_create(&m);
    struct record *alone = run_crowd_alone(&m, c);
    const struct engine_options o = {.context = 512, .n_threads = 2, .speculation = SPECULATION_ALWAYS};
    struct merged_copy copy = fake_copy(&c->loras[1]);
    struct error err;
    for (uint32_t i = 0; i < N_CROWD; i++)
        c->g[i].shadow_lora = i % 3 ? NULL : &c->loras[i % 2];
    assert_true(check_crowd(&m, c, alone, o, false).n_drafts_right > 0);
    struct engine *e = engine_with(&m, o);
    struct engine *plainly = engine_with(&m, (struct engine_options){.context = 512});
    assert_int_equal(engine_set_merged(e, &copy, MERGED_ALWAYS, &err), STATUS_OK);
    assert_int_equal(engine_set_merged(plainly, &copy, MERGED_ALWAYS, &err), STATUS_OK);
    for (uint32_t i = 0; i < N_CROWD; i++) {
        struct record *r = run_one(e, &c->g[i]), *p = run_one(plainly, &c->g[i]);
        const struct event *last = &r->last;
        bool merged = c->g[i].lora == &c->loras[1];
        uint32_t n_computed = c->g[i].n_prompt + last->n_generated - 1;
        assert_true(logs_equal(r, &alone[i]));
        assert_int_equal(last->n_merged_tokens, merged ? n_computed : 0);
        assert_int_equal(last->n_unmerged_tokens, merged ? 0 : n_computed);
        assert_int_equal(last->shadow.n_tokens, p->last.shadow.n_tokens);
        assert_true(last->shadow.kl_sum == p->last.shadow.kl_sum);
        assert_true(!c->g[i].shadow_lora || last->n_drafted == 0); /* it is fed token by token */
        record_free(p);
        record_free(r);
    }
    engine_destroy(e);
    engine_destroy(plainly);
    assert_int_equal(copy.refs, 1);
    for (uint32_t i = 0; i < N_CROWD; i++)
        c->g[i].shadow_lora = NULL;
    free_crowd(c, alone);
}

static void without_numbers_a_generation_fails(void **state)
{
    (void)state;
    struct model m = fake_model();
    struct lora broken = {.refs = 1, .model = &m, .digest = {FAKE_BROKEN}};
    struct engine *e =
        engine_with(&m, (struct engine_options){.context = 64, .speculation = SPECULATION_ALWAYS});
    struct generation g = plain(prompt_abc, 3);
    g.lora = &broken;
    for (int i = 0; i < 3; i++) {
        struct record *r = run_one(e, &g);
        assert_true(r->last.kind == EVENT_FAILED && r->last.non_finite && r->last.n_drafted == 0);
        record_free(r);
    }
    engine_destroy(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crowd_says_the_same),
        cmocka_unit_test(any_generation_ends_the_same),
        cmocka_unit_test(a_right_draft_saves_steps),
        cmocka_unit_test(tables_are_an_adapters_and_a_callers),
        cmocka_unit_test(a_draft_ends_where_positions_change),
        cmocka_unit_test(kept_pages_hold_what_was_said),
        cmocka_unit_test(shadows_and_copies_come_along),
        cmocka_unit_test(without_numbers_a_generation_fails),
    };
    return cmocka_run_group_tests(tests, make_tokenizer, drop_tokenizer);
}
