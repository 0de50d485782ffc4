/* Plans with entries that have waited beyond the bound: who yields a place and pages to them. */
#include "tests/test.h"

#include <string.h>

#include "schedule_rig.h"

static const char voices[10]; /* a voice is an address */

static struct schedule_entry yields(uint64_t arrival, uint32_t caller, uint32_t voice, float weight)
{
    struct schedule_entry e = runs(arrival, 8, 3, false);
    e.caller = caller;
    e.voice = &voices[voice];
    e.weight = weight;
    e.n_need = 10;
    e.yields = true;
    return e;
}

static struct schedule_entry overdue(uint64_t arrival, uint32_t n_known, uint32_t caller, uint32_t voice)
{
    struct schedule_entry e = waits(arrival, n_known, false);
    e.lent = false;
    e.overdue = true;
    e.caller = caller;
    e.voice = &voices[voice];
    e.priority = INT32_MAX;
    return e;
}

/* Which of the first n is paused, and put aside; they have kept their order. -1: none; -2: another number. */
static int who_yields(const struct schedule_entry *e, uint32_t n)
{
    int found = -1;
    for (uint32_t i = 0; i < n; i++)
        if (e[i].pause)
            found = found == -1 && e[i].aside && !e[i].n_tokens ? (int)i : -2;
    return found;
}

static void who_is_softest_yields(void **state)
{
    (void)state;
    /* By class, then what runs of the caller, then of its voice, then age. */
    struct schedule_entry e[6] = {yields(1, 0, 0, 1), yields(2, 1, 0, 1), yields(3, 1, 2, 1),
                                  yields(4, 1, 2, 1), yields(5, 3, 0, 1), overdue(6, 3, 9, 0)};
    struct schedule_entry again[6];
    static const int order[] = {0, 3, 2, 1, 4};
    e[0].batch = true;
    for (uint32_t k = 0; k < 5; k++) {
        memcpy(again, e, sizeof e);
        for (uint32_t i = 0; i < k; i++)
            again[order[i]].yields = false;
        struct schedule s = plan_of(again, 6, 0, 20, 1);
        schedule_plan(&s);
        assert_int_equal(who_yields(again, 5), order[k]);
        assert_true(again[5].start && again[5].n_tokens == 3);
        assert_int_equal(s.n_slots_free, 0);
        assert_int_equal(schedule_tokens(&s), 4 + 3);
    }
    /* No room for who would be put aside; a place is free; nobody yields: nobody is paused. */
    memcpy(again, e, sizeof e);
    struct schedule s = plan_of(again, 6, 0, 20, 0);
    schedule_plan(&s);
    assert_true(who_yields(again, 5) == -1 && !again[5].start);
    memcpy(again, e, sizeof e);
    s = plan_of(again, 6, 1, 20, 1);
    schedule_plan(&s);
    assert_true(who_yields(again, 5) == -1 && again[5].start);
    memcpy(again, e, sizeof e);
    for (uint32_t i = 0; i < 5; i++)
        again[i].yields = false;
    s = plan_of(again, 6, 0, 20, 1);
    schedule_plan(&s);
    assert_true(who_yields(again, 5) == -1 && !again[5].start);
}

/* Of seven that run, two callers' of the same weight, three yield in one plan: no caller is left with two
 * less than the other. */
static void loads_fall_with_each_that_yields(void **state)
{
    (void)state;
    struct schedule_entry e[10];
    for (uint32_t i = 0; i < 7; i++)
        e[i] = yields(1 + i, i < 4 ? 1 : 2, i, 1);
    for (uint32_t i = 7; i < 10; i++)
        e[i] = overdue(1 + i, 3, 3 + i, 0);
    struct schedule s = plan_of(e, 10, 0, 40, 10);
    schedule_plan(&s);
    uint32_t n_left[2] = {0};
    for (uint32_t i = 0; i < 7; i++)
        n_left[i >= 4] += !e[i].pause;
    assert_true(n_left[0] == 2 && n_left[1] == 2);
    assert_true(e[7].start && e[8].start && e[9].start);
}

/* Nobody is counted where nobody must yield; and callers whose voices are the same don't mix. */
static void who_runs_is_counted_when_somebody_must_yield(void **state)
{
    (void)state;
    for (uint32_t n_slots = 0; n_slots < 2; n_slots++) {
        struct schedule_entry e[4] = {yields(1, 1, 5, 1), yields(2, 2, 5, 1), yields(3, 2, 5, 1),
                                      overdue(4, 3, 1, 5)};
        struct schedule s = plan_of(e, 4, n_slots, 40, 10);
        schedule_plan(&s);
        assert_int_equal(s.grouped, n_slots == 0);
        assert_int_equal(who_yields(e, 3), n_slots ? -1 : 2);
        assert_true(e[3].start);
    }
}

static void its_own_yield_later(void **state)
{
    (void)state;
    for (int later = 0; later < 2; later++) {
        struct schedule_entry e[3] = {yields(1, 7, 2, 1), yields(2, 7, 2, 1), overdue(3, 3, 7, 2)};
        e[0].yields_to_own = later;
        struct schedule s = plan_of(e, 3, 0, 20, 4);
        schedule_plan(&s);
        assert_int_equal(who_yields(e, 2), later ? 0 : -1);
        assert_int_equal(e[2].start, later);
    }
}

/* Pages are made room for, too: as many yield as need be, or none; not those whose own the pages are. The
 * budget that they leave is enough where all of it was theirs. */
static void pages_are_yielded(void **state)
{
    (void)state;
    struct schedule_entry e[4] = {yields(1, 0, 0, 1), yields(2, 1, 0, 0.5F), yields(3, 2, 0, 0.3F),
                                  overdue(4, 22, 9, 0)};
    struct schedule_entry again[4];
    static const struct {
        uint32_t n_slots, n_pages, owner;
        bool yields[3];
    } cases[] = {{1, 9, 3, {false, false, true}}, {0, 9, 3, {false, false, true}},
                 {1, 3, 3, {false, true, true}},  {0, 3, 2, {true, true, false}},
                 {0, 9, 2, {false, false, true}}, {1, 0, 2, {false, false, false}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memcpy(again, e, sizeof e);
        for (uint32_t k = 0; k < 3; k++)
            again[k].owns = k == cases[i].owner;
        struct schedule s = plan_of(again, 4, cases[i].n_slots, cases[i].n_pages, 3);
        s.step_tokens = s.chunk_tokens = 3;
        schedule_plan(&s);
        for (uint32_t k = 0; k < 3; k++)
            if (again[k].pause != cases[i].yields[k])
                fail_msg("case %zu: entry %u", i, k);
        bool any = cases[i].yields[0] || cases[i].yields[1] || cases[i].yields[2];
        assert_true(again[3].start == any && schedule_tokens(&s) == 3);
    }
}

/* What all that yield share goes back once: together it isn't enough, however many they are. One look says
 * so, nobody is counted and nothing is changed; with as much as they hold in all it is enough. */
static void shared_pages_are_yielded_once(void **state)
{
    (void)state;
    static const uint32_t shared[2] = {0, 1}, own[4][3] = {{2, 3, 4}, {5, 6, 7}, {8, 9, 10}, {11, 12, 13}};
    for (int apart = 0; apart < 2; apart++) {
        struct schedule_entry e[5] = {yields(1, 1, 0, 1), yields(2, 2, 0, 1), yields(3, 3, 0, 1),
                                      yields(4, 4, 0, 1), overdue(5, 27, 9, 0)};
        uint32_t users[14] = {0}, table[4][3];
        for (uint32_t i = 0; i < 4; i++) {
            memcpy(table[i], own[i], sizeof own[i]);
            memcpy(table[i], shared, apart ? 0 : sizeof shared);
            e[i].n_known = 12;
            e[i].n_computed = 11;
            e[i].pages = table[i];
            for (uint32_t k = 0; k < 3; k++)
                users[table[i][k]]++;
        }
        uint32_t before[14];
        memcpy(before, users, sizeof users);
        struct schedule s = plan_of(e, 5, 1, 0, 4);
        s.users = users;
        schedule_plan(&s);
        assert_int_equal(s.grouped, apart);
        assert_int_equal(e[4].start, apart);
        assert_true(apart || memcmp(before, users, sizeof users) == 0);
        assert_true(apart || (who_yields(e, 4) == -1 && schedule_tokens(&s) == 4));
    }
}

/* Two would be enough, and one looks no further where only one more may be put aside. */
static void as_many_yield_as_may_be_aside(void **state)
{
    (void)state;
    for (uint32_t n = 1; n < 3; n++) {
        struct schedule_entry e[4] = {yields(1, 1, 0, 1), yields(2, 2, 0, 1), yields(3, 3, 0, 1),
                                      overdue(4, 22, 9, 0)};
        struct schedule s = plan_of(e, 4, 1, 3, n);
        schedule_plan(&s);
        assert_int_equal(s.grouped, n == 2);
        assert_int_equal(e[3].start, n == 2);
        assert_int_equal(e[0].pause + e[1].pause + e[2].pause, n == 2 ? 2 : 0);
    }
}

/* One that was put aside goes on in a free place only, or when it is overdue itself; and is blocked by nobody
 * then. */
static void who_is_aside_comes_back(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++)
        for (uint32_t n_slots = 0; n_slots < 2; n_slots++) {
            struct schedule_entry e[3] = {runs(1, 8, 3, false), yields(2, 1, 0, 1), runs(3, 8, 0, false)};
            e[2].state = SCHEDULE_PAUSED;
            e[2].aside = true;
            e[2].n_computed = 0;
            e[2].overdue = late;
            struct schedule s = plan_of(e, 3, n_slots, 20, 1);
            schedule_plan(&s);
            assert_int_equal(e[2].start, late || n_slots);
            assert_int_equal(who_yields(e, 2), late && !n_slots ? 1 : -1);
        }
    struct schedule_entry e[3] = {yields(1, 8, 0, 1), waits(2, 40, false), overdue(3, 3, 9, 0)};
    struct schedule s = plan_of(e, 3, 2, 4, 1);
    schedule_plan(&s);
    assert_true(!e[1].start && e[2].start && who_yields(e, 1) == -1);
}

/* Its caller's share of the pages is full: others of that caller yield, as many as hold what it lacks of it.
 */
static void a_share_is_yielded_by_its_own(void **state)
{
    (void)state;
    for (uint32_t n_lacks = 0; n_lacks < 40; n_lacks += 10) {
        struct schedule_entry e[4] = {yields(1, 7, 0, 1), yields(2, 7, 1, 1), yields(3, 2, 0, 0.1F),
                                      overdue(4, 3, 7, 3)};
        e[0].owns = true;
        e[3].n_lacks = n_lacks;
        struct schedule s = plan_of(e, 4, 1, 20, 4);
        schedule_plan(&s);
        assert_true(e[1].pause == (n_lacks == 10 || n_lacks == 20) && e[0].pause == (n_lacks == 20));
        assert_true(!e[2].pause && e[3].start == (n_lacks < 30));
    }
}

/* An old prompt that takes all of the budget leaves a token, so that it can start. */
static void a_token_is_kept_for_it(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        struct schedule_entry e[2] = {yields(1, 0, 0, 1), overdue(2, 5, 9, 0)};
        e[0].n_known = 300;
        e[0].logits_from = 299;
        e[1].overdue = late;
        struct schedule s = plan_of(e, 2, 1, 200, 1);
        s.step_tokens = s.chunk_tokens = 16;
        schedule_plan(&s);
        assert_true(who_yields(e, 1) == -1 && e[1].start == late);
        assert_true(e[0].n_tokens == (late ? 15U : 16U) && e[1].n_tokens == (late ? 1U : 0U));
    }
}

/* Where nobody yields, what was kept for those that are overdue goes to prompts, the first one's first. */
static void what_is_kept_in_vain_is_given(void **state)
{
    (void)state;
    for (uint32_t n = 1; n < 4; n++) {
        struct schedule_entry e[7] = {runs(1, 8, 3, false), runs(2, 30, 0, false), runs(3, 300, 0, false)};
        e[1].n_computed = e[2].n_computed = 0;
        for (uint32_t i = 3; i < 3 + n; i++)
            e[i] = overdue(1 + i, 5, 9, i);
        struct schedule s = plan_of(e, 3 + n, 0, 200, 4);
        s.step_tokens = n == 3 ? 4 : 40;
        schedule_plan(&s);
        assert_int_equal(schedule_tokens(&s), s.step_tokens);
        assert_true(e[0].n_tokens == 1 && e[1].n_tokens == (n == 3 ? 3 : 30) && !e[3].start);
    }
}

/* As many as the budget has tokens are overdue and can't start, their callers' shares are full: another one
 * starts, whether something runs or nothing does, and has all that the budget has. */
static void what_is_kept_in_vain_keeps_none_from_starting(void **state)
{
    (void)state;
    for (uint32_t n_tokens = 1; n_tokens < 4; n_tokens++)
        for (int any_runs = 0; any_runs < 2; any_runs++) {
            struct schedule_entry e[7] = {waits(1, 9, false)};
            for (uint32_t i = 1; i < 6; i++) {
                e[i] = overdue(1 + i, 3, 7, i);
                e[i].n_lacks = 1;
            }
            e[6] = runs(0, 8, 3, false);
            struct schedule s = plan_of(e, any_runs ? 7 : 6, 1, 20, 4);
            s.step_tokens = s.chunk_tokens = n_tokens + any_runs;
            schedule_plan(&s);
            const struct schedule_entry *first = &e[any_runs];
            assert_true(first->arrival == 1 && first->start && first->n_tokens == n_tokens);
        }
}

/* One that can't go on since its caller's share is full, and nobody of that caller yields, holds up nobody.
 */
static void a_full_share_holds_up_nobody(void **state)
{
    (void)state;
    for (uint32_t n_lacks = 0; n_lacks < 2; n_lacks++) {
        struct schedule_entry e[3] = {runs(1, 8, 3, false), overdue(2, n_lacks ? 3 : 400, 7, 0),
                                      waits(3, 4, false)};
        e[1].state = SCHEDULE_PAUSED;
        e[1].aside = true;
        e[1].n_lacks = n_lacks;
        e[1].priority = 0;
        e[1].turn = 0;
        struct schedule s = plan_of(e, 3, 1, 20, 4);
        schedule_plan(&s);
        assert_true(!e[1].start && e[2].start == n_lacks);
    }
}

/* As many are aside as may be: one of those that is overdue changes places with one that runs, one that waits
 * doesn't. */
static void who_is_aside_changes_places(void **state)
{
    (void)state;
    for (int aside = 0; aside < 2; aside++) {
        struct schedule_entry e[3] = {yields(1, 0, 0, 1), yields(2, 1, 0, 1), overdue(3, 3, 9, 0)};
        e[2].state = aside ? SCHEDULE_PAUSED : SCHEDULE_WAITING;
        e[2].aside = aside;
        struct schedule s = plan_of(e, 3, 0, 20, 0);
        schedule_plan(&s);
        assert_int_equal(who_yields(e, 2), aside ? 1 : -1);
        assert_int_equal(e[2].start, aside);
        assert_true(s.n_aside_most == 0 && s.n_slots_free == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_softest_yields),
        cmocka_unit_test(loads_fall_with_each_that_yields),
        cmocka_unit_test(who_runs_is_counted_when_somebody_must_yield),
        cmocka_unit_test(its_own_yield_later),
        cmocka_unit_test(pages_are_yielded),
        cmocka_unit_test(shared_pages_are_yielded_once),
        cmocka_unit_test(as_many_yield_as_may_be_aside),
        cmocka_unit_test(who_is_aside_comes_back),
        cmocka_unit_test(a_share_is_yielded_by_its_own),
        cmocka_unit_test(a_token_is_kept_for_it),
        cmocka_unit_test(what_is_kept_in_vain_is_given),
        cmocka_unit_test(what_is_kept_in_vain_keeps_none_from_starting),
        cmocka_unit_test(a_full_share_holds_up_nobody),
        cmocka_unit_test(who_is_aside_changes_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
