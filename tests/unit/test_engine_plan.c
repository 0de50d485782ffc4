/* What the plan sees of those that run, are paused or wait, of an engine without a thread: sequences are put
 * into its slots by hand. */
#include "tests/test.h"

#include "engine_inner.h"
#include "engine_rig.h"

#define BOUND_NS (30 * NS_PER_S)
#define N_PAGES 20U
#define N_SLOTS (2 + FAIR_ASIDE_MIN)
#define CONTEXT (N_PAGES * KV_PAGE_TOKENS)
#define QUEUE_LIMIT 8U

struct rig {
    struct engine e;
    struct model model;
    struct submission submissions[N_SLOTS + QUEUE_LIMIT];
    uint32_t n_submissions;
};

static struct rig *rig_create(void)
{
    struct rig *r = mem_zalloc(sizeof *r);
    struct engine *e = &r->e;
    struct error err;
    const struct kv_shape shape = {.n_layers = 1, .n_kv_heads = 1, .head_dim = 4, .type = DTYPE_F32};
    r->model = fake_model();
    e->model = e->step_model = &r->model;
    e->n_sequences = 2;
    e->n_slots = N_SLOTS;
    e->n_pages = N_PAGES;
    e->pages_of_context = N_PAGES;
    e->prompt_tokens = e->chunk_tokens = 64;
    e->step_tokens = 66;
    e->wait_bound_ns = BOUND_NS;
    e->prefix_off = true;
    e->sequences = mem_array(N_SLOTS, sizeof *e->sequences);
    e->users = mem_array(N_PAGES, sizeof *e->users);
    e->entries = mem_array(N_SLOTS + CHOSEN_MAX, sizeof *e->entries);
    e->nexts = mem_array(e->n_sequences + CHOSEN_MAX, sizeof *e->nexts);
    e->waiting = mem_array(QUEUE_LIMIT, sizeof(struct submission *));
    e->found_table = mem_array((size_t)CHOSEN_MAX * N_PAGES, sizeof *e->found_table);
    e->page_table = mem_array((size_t)N_SLOTS * N_PAGES, sizeof *e->page_table);
    for (uint32_t i = 0; i < N_SLOTS; i++)
        e->sequences[i].pages = e->page_table + (size_t)i * N_PAGES;
    assert_true(fair_init(&e->fair, ENGINE_CALLERS_MAX, QUEUE_LIMIT, BOUND_NS, e->n_sequences));
    assert_int_equal(kv_cache_create(&shape, N_PAGES, &e->kv, &err), STATUS_OK);
    assert_int_equal(prefix_cache_create(e->kv, 1, &e->prefix, &err), STATUS_OK);
    return r;
}

static void rig_destroy(struct rig *r)
{
    struct engine *e = &r->e;
    for (uint32_t i = 0; i < N_SLOTS; i++)
        sequence_give_pages(&e->sequences[i], e->prefix);
    prefix_cache_destroy(e->prefix);
    kv_cache_destroy(e->kv);
    fair_fini(&e->fair);
    mem_free(e->sequences);
    mem_free(e->users);
    mem_free(e->entries);
    mem_free(e->nexts);
    mem_free(e->waiting);
    mem_free(e->found_table);
    mem_free(e->page_table);
    mem_free(r);
}

/* Of a caller with half of the pages, and in need of so many. */
static struct submission *submission_of(struct rig *r, uint32_t caller, uint32_t n_need)
{
    static const int32_t prompt[CONTEXT];
    struct submission *s = &r->submissions[r->n_submissions];
    s->id = ++r->n_submissions;
    s->g = plain(prompt, KV_PAGE_TOKENS);
    s->g.max_tokens = (n_need - 1) * KV_PAGE_TOKENS;
    s->g.caller = (struct generation_caller){.number = caller, .weight = 1, .kv_share = 0.5F};
    return s;
}

/* Into the slot: it runs with its first page, or was put aside a while ago. */
static void place(struct rig *r, uint32_t slot, struct submission *s, bool aside, int64_t ago_ns)
{
    struct engine *e = &r->e;
    struct sequence *q = &e->sequences[slot];
    int64_t now_ns = clock_now_ns();
    fair_arrives(&e->fair, &s->g, now_ns);
    fair_starts(&e->fair, &s->g, 0, 0, now_ns);
    q->submission = s;
    q->state = aside ? SEQUENCE_PAUSED : SEQUENCE_RUNNING;
    q->aside = aside;
    q->n_tokens = s->g.n_prompt;
    q->paused_ns = q->resumed_ns = now_ns - ago_ns;
    if (aside) {
        fair_ends(&e->fair, &s->g);
        return;
    }
    sequence_take_pages(q, e->prefix, s->g.n_prompt);
    q->n_computed = s->g.n_prompt - 1;
}

/* It has waited for so long. */
static void wait_for(struct rig *r, struct submission *s, int64_t ago_ns)
{
    fair_arrives(&r->e.fair, &s->g, clock_now_ns() - ago_ns);
    r->e.waiting[r->e.n_waiting++] = s;
}

/* What runs in the slot has had its turn, but hasn't run for the bound. */
static void end_turn(struct rig *r, uint32_t slot)
{
    r->e.sequences[slot].resumed_ns -= BOUND_NS / 4;
    r->e.sequences[slot].n_generated++;
}

static uint32_t place_in(const struct schedule *s, uint32_t slot)
{
    uint32_t i = 0;
    while (i < s->n_entries && s->entries[i].index != slot)
        i++;
    return i;
}

static const struct schedule_entry *entry_in(const struct schedule *s, uint32_t slot)
{
    uint32_t i = place_in(s, slot);
    assert_true(i < s->n_entries);
    return &s->entries[i];
}

/* One that runs within its caller's share, and one that is aside and doesn't fit beside it: whichever slot
 * each has, the pages of the one that runs are its own, and the other one isn't due to anything. */
static void shares_are_of_what_runs(void **state)
{
    (void)state;
    for (uint32_t running = 0; running < 2; running++) {
        struct rig *r = rig_create();
        place(r, running, submission_of(r, 1, 6), false, 0);
        place(r, 1 - running, submission_of(r, 1, 6), true, BOUND_NS);
        struct schedule s = engine_plan(&r->e);
        const struct schedule_entry *runs = entry_in(&s, running), *aside = entry_in(&s, 1 - running);
        assert_true(runs->owns && !runs->lent && runs->n_tokens == 1);
        assert_true(!aside->due && aside->n_lacks == 2 && !aside->start);
        rig_destroy(r);
    }
}

/* Alone, but above its caller's share: it goes on, and has more than was due to it. */
static void above_its_share_nothing_is_due(void **state)
{
    (void)state;
    for (uint32_t n_need = 10; n_need < 14; n_need += 2) {
        struct rig *r = rig_create();
        place(r, 0, submission_of(r, 1, n_need), true, 0);
        struct schedule s = engine_plan(&r->e);
        const struct schedule_entry *aside = entry_in(&s, 0);
        assert_true(aside->start && aside->n_lacks == 0);
        assert_true(aside->due == (n_need == 10) && aside->lent == (n_need != 10));
        rig_destroy(r);
    }
}

/* Of two that are aside their caller's share has room for one: the older one, whichever slot it has. */
static void the_older_one_goes_on(void **state)
{
    (void)state;
    for (uint32_t older = 0; older < 2; older++) {
        struct rig *r = rig_create();
        struct submission *first = submission_of(r, 1, 6);
        place(r, older, first, true, 0);
        place(r, 1 - older, submission_of(r, 1, 6), true, 0);
        struct schedule s = engine_plan(&r->e);
        const struct schedule_entry *entry = entry_in(&s, older);
        assert_true(entry->start && entry->due && place_in(&s, 1 - older) == s.n_entries);
        assert_int_equal(r->e.fair.callers[1].n_pages, 6);
        rig_destroy(r);
    }
}

/* One that lost its pages and its turn for longer than the bound still has its caller's share due to it. */
static void who_was_paused_for_long_is_due(void **state)
{
    (void)state;
    for (int keeps = 0; keeps < 2; keeps++) {
        struct rig *r = rig_create();
        place(r, 0, submission_of(r, 1, 6), false, 0);
        struct sequence *q = &r->e.sequences[0];
        sequence_give_pages(q, r->e.prefix);
        q->state = SEQUENCE_PAUSED;
        q->keeps = keeps;
        struct schedule s = engine_plan(&r->e);
        assert_true(entry_in(&s, 0)->due && !entry_in(&s, 0)->lent && entry_in(&s, 0)->start);
        rig_destroy(r);
    }
}

/* Both places are taken, one yields, but not yet to its own voice, which has waited longest: another voice
 * that is overdue has the place. */
static void who_waits_longest_holds_up_no_other(void **state)
{
    (void)state;
    struct rig *r = rig_create();
    struct submission *s[4];
    for (uint32_t i = 0; i < 4; i++) {
        s[i] = submission_of(r, i == 3 ? 2 : 1, 2);
        s[i]->g.caller.kv_share = 0;
    }
    place(r, 0, s[0], false, 0);
    place(r, 1, s[1], false, 0);
    end_turn(r, 0);
    wait_for(r, s[2], BOUND_NS + 2 * NS_PER_S);
    wait_for(r, s[3], BOUND_NS + NS_PER_S);
    struct schedule plan = engine_plan(&r->e);
    assert_true(entry_in(&plan, N_SLOTS + 1)->start && entry_in(&plan, 0)->pause &&
                !entry_in(&plan, 1)->pause);
    rig_destroy(r);
}

/* Two that begin alike: the first in turn lacks memory, which nobody yields to it. The other one is overdue,
 * so it is yielded to it, and starts. If the first can start, the other waits for its pages. */
static void who_lacks_memory_holds_up_none_that_begins_alike(void **state)
{
    (void)state;
    for (int lacks = 0; lacks < 2; lacks++) {
        struct rig *r = rig_create();
        r->e.prefix_off = false;
        r->e.fair.n_since = 0; /* somebody was just started out of turn */
        struct submission *s[3];
        for (uint32_t i = 0; i < 3; i++) {
            s[i] = submission_of(r, i + 1, 3);
            s[i]->g.caller.kv_share = 0;
            s[i]->g.n_prompt = (i ? 2 : lacks ? N_PAGES - 2 : 2) * KV_PAGE_TOKENS;
        }
        s[0]->g.cache_off = true;
        place(r, 0, s[0], false, 0);
        end_turn(r, 0);
        wait_for(r, s[1], 0);
        wait_for(r, s[2], BOUND_NS + NS_PER_S);
        struct schedule plan = engine_plan(&r->e);
        assert_int_equal(entry_in(&plan, N_SLOTS)->start, !lacks);
        assert_int_equal(entry_in(&plan, N_SLOTS + 1)->start, lacks);
        assert_int_equal(entry_in(&plan, 0)->pause, lacks);
        rig_destroy(r);
    }
}

/* One that is aside, overdue, and lacks its caller's own share, of which nobody yields: a free place is for
 * who waits of another caller. */
static void a_full_share_keeps_no_place(void **state)
{
    (void)state;
    struct rig *r = rig_create();
    place(r, 0, submission_of(r, 1, 6), false, 0);
    place(r, 1, submission_of(r, 1, 6), true, BOUND_NS);
    wait_for(r, submission_of(r, 2, 6), 0);
    struct schedule s = engine_plan(&r->e);
    assert_true(!entry_in(&s, 1)->start && entry_in(&s, N_SLOTS)->start && !entry_in(&s, 0)->pause);
    rig_destroy(r);
}

/* Of three callers, in places or aside, for a while or beyond the bound: what the plan says of each is the
 * same whichever slot it has, and somebody gets on. */
static void slots_have_no_say(void **state)
{
    enum { N = 6, N_WORLDS = 500 };
    (void)state;
    for (uint32_t seed = 1; seed <= N_WORLDS; seed++) {
        struct schedule_entry seen[2][N];
        for (uint32_t turned = 0; turned < 2; turned++) {
            struct rig *r = rig_create();
            uint64_t h = seed;
            uint32_t n_placed = 0;
            for (uint32_t i = 0; i < N; i++) {
                h = fake_mix(h, i);
                struct submission *s = submission_of(r, 1 + h % 3, 2 + (h >> 8) % 11);
                s->g.caller.kv_share = h % 3 ? 0.4F : 0;
                bool aside = n_placed == r->e.n_sequences || h >> 16 & 1;
                n_placed += !aside;
                uint32_t slot = turned ? N - 1 - i : i;
                place(r, slot, s, aside, (h >> 17 & 3) * BOUND_NS / 2);
                r->e.sequences[slot].n_generated = h >> 19 & 1;
                if (!aside && h >> 20 & 1) {
                    sequence_give_pages(&r->e.sequences[slot], r->e.prefix);
                    r->e.sequences[slot].state = SEQUENCE_PAUSED;
                }
            }
            struct schedule plan = engine_plan(&r->e);
            assert_true(schedule_tokens(&plan) > 0);
            for (uint32_t i = 0; i < N; i++) {
                uint32_t at = place_in(&plan, turned ? N - 1 - i : i);
                seen[turned][i] = at < plan.n_entries ? plan.entries[at] : (struct schedule_entry){0};
            }
            rig_destroy(r);
        }
        for (uint32_t i = 0; i < N; i++) {
            const struct schedule_entry *a = &seen[0][i], *b = &seen[1][i];
            if (a->arrival != b->arrival || a->due != b->due || a->lent != b->lent || a->owns != b->owns ||
                a->n_lacks != b->n_lacks || a->start != b->start || a->pause != b->pause ||
                a->aside != b->aside || a->n_tokens != b->n_tokens)
                fail_msg("world %u: number %u", seed, i);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_of_what_runs),
        cmocka_unit_test(above_its_share_nothing_is_due),
        cmocka_unit_test(the_older_one_goes_on),
        cmocka_unit_test(who_was_paused_for_long_is_due),
        cmocka_unit_test(who_waits_longest_holds_up_no_other),
        cmocka_unit_test(who_lacks_memory_holds_up_none_that_begins_alike),
        cmocka_unit_test(a_full_share_keeps_no_place),
        cmocka_unit_test(slots_have_no_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
