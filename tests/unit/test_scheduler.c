/* The scheduler by tables: who gets how many tokens, who starts, who is paused. */
#include "tests/test.h"

#include <string.h>

#include "scheduler.h"

#define N_MAX 6

struct row {
    char state; /* W, P, R; 0 ends the table */
    int priority;
    uint32_t n_known, n_computed, n_pages;
    bool scores; /* wants the logits of all positions */
    /* expected */
    uint32_t n_tokens;
    char change; /* s started, p paused, 0 none */
};

struct table {
    const char *name;
    struct limits {
        uint32_t step_tokens, chunk_tokens, score_rows, n_slots_free, n_pages_free;
    } has;
    struct row rows[N_MAX];
};

/* Pages of 4 tokens. Rows are in order of arrival. */
static const struct table tables[] = {
    {"one prompt, whole", {64, 64, 8, 1, 100}, {{'W', 0, 10, 0, 0, false, 10, 's'}}},
    {"one prompt, in chunks", {64, 4, 8, 1, 100}, {{'W', 0, 10, 0, 0, false, 4, 's'}}},
    {"budget is shared in order of arrival",
     {10, 10, 8, 2, 100},
     {{'R', 0, 20, 14, 4, false, 6, 0}, {'W', 0, 9, 0, 0, false, 4, 's'}, {'W', 0, 9, 0, 0, false, 0, 0}}},
    {"decoding rows come before an older prompt",
     {6, 6, 8, 0, 100},
     {{'R', 0, 50, 0, 0, false, 3, 0},
      {'R', 0, 9, 8, 2, false, 1, 0},
      {'R', 0, 9, 8, 2, false, 1, 0},
      {'R', 0, 9, 8, 2, false, 1, 0}}},
    {"a short chunk leaves room for the next prompt",
     {10, 4, 8, 3, 100},
     {{'W', 0, 9, 0, 0, false, 4, 's'}, {'W', 0, 9, 0, 0, false, 4, 's'}, {'W', 0, 9, 0, 0, false, 2, 's'}}},
    {"lower priority values first",
     {8, 8, 8, 2, 100},
     {{'W', 1, 8, 0, 0, false, 0, 0}, {'W', -1, 8, 0, 0, false, 8, 's'}}},
    {"no slot: waits, but a paused one behind it resumes",
     {64, 64, 8, 0, 100},
     {{'W', -5, 8, 0, 0, false, 0, 0}, {'P', 0, 8, 0, 0, false, 8, 's'}}},
    {"a paused one comes before a younger waiting one, and blocks it",
     {64, 64, 8, 1, 3},
     {{'R', 0, 9, 8, 3, false, 1, 0}, {'P', 0, 12, 0, 0, false, 0, 0}, {'W', 0, 1, 0, 0, false, 0, 0}}},
    {"the youngest gives its pages to an older one",
     {64, 64, 8, 0, 0},
     {{'R', 0, 9, 8, 2, false, 1, 0}, {'R', 0, 6, 5, 2, false, 1, 0}, {'R', 0, 7, 6, 2, false, 0, 'p'}}},
    {"by priority the older may be the youngest in service",
     {64, 64, 8, 0, 0},
     {{'R', 3, 6, 5, 2, false, 0, 'p'}, {'R', 0, 9, 8, 2, false, 1, 0}}},
    {"the youngest in need of a page pauses itself",
     {64, 64, 8, 0, 0},
     {{'R', 0, 6, 5, 2, false, 1, 0}, {'R', 0, 9, 8, 2, false, 0, 'p'}}},
    {"alone at the end of the cache it goes on", {64, 64, 8, 0, 1}, {{'R', 0, 9, 8, 2, false, 1, 0}}},
    {"two need the last page: the older one has it",
     {64, 64, 8, 0, 1},
     {{'R', 0, 5, 4, 1, false, 1, 0}, {'R', 0, 5, 4, 1, false, 0, 'p'}}},
    {"a prompt takes a shorter chunk rather than a page of another",
     {64, 64, 8, 0, 1},
     {{'R', 0, 20, 4, 1, false, 4, 0}, {'R', 0, 6, 5, 2, false, 1, 0}}},
    {"an older prompt without any page left pauses the youngest",
     {64, 64, 8, 0, 0},
     {{'R', 0, 20, 4, 1, false, 8, 0}, {'R', 0, 6, 5, 2, false, 0, 'p'}}},
    {"who starts leaves each running one a page to grow",
     {64, 64, 8, 1, 3},
     {{'R', 0, 7, 6, 2, false, 1, 0}, {'W', 0, 8, 0, 0, false, 0, 0}}},
    {"with that page it starts",
     {64, 64, 8, 1, 4},
     {{'R', 0, 7, 6, 2, false, 1, 0}, {'W', 0, 8, 0, 0, false, 8, 's'}}},
    {"pages that a running prompt will need are not given away",
     {4, 4, 8, 1, 10},
     {{'R', 0, 40, 0, 0, false, 4, 0}, {'W', 0, 8, 0, 0, false, 0, 0}}},
    {"rows of logits bound a scored prompt's chunk", {64, 64, 8, 1, 100}, {{'W', 0, 30, 0, 0, true, 8, 's'}}},
    {"who lacks rows of logits holds up nobody",
     {64, 64, 8, 3, 100},
     {{'W', 0, 30, 0, 0, true, 8, 's'}, {'W', 0, 30, 0, 0, true, 0, 0}, {'W', 0, 5, 0, 0, false, 5, 's'}}},
};

/* Budgets that are no bound, pages of 4 tokens. */
static struct schedule plan_of(struct schedule_entry *entries, uint32_t n, uint32_t n_slots, uint32_t n_pages,
                               uint32_t n_aside_most)
{
    return (struct schedule){.step_tokens = 64,
                             .chunk_tokens = 64,
                             .score_rows = 8,
                             .page_tokens = 4,
                             .n_slots_free = n_slots,
                             .n_pages_free = n_pages,
                             .n_aside_most = n_aside_most,
                             .entries = entries,
                             .n_entries = n};
}

static enum schedule_state state_of(char c)
{
    return c == 'W' ? SCHEDULE_WAITING : c == 'P' ? SCHEDULE_PAUSED : SCHEDULE_RUNNING;
}

static void check_table(const struct table *t)
{
    struct schedule_entry entries[N_MAX];
    struct schedule s = plan_of(entries, 0, t->has.n_slots_free, t->has.n_pages_free, 0);
    s.step_tokens = t->has.step_tokens;
    s.chunk_tokens = t->has.chunk_tokens;
    s.score_rows = t->has.score_rows;
    for (; s.n_entries < N_MAX && t->rows[s.n_entries].state; s.n_entries++) {
        const struct row *r = &t->rows[s.n_entries];
        entries[s.n_entries] = (struct schedule_entry){.state = state_of(r->state),
                                                       .priority = r->priority,
                                                       .arrival = 100 + s.n_entries,
                                                       .n_known = r->n_known,
                                                       .n_computed = r->n_computed,
                                                       .n_pages = r->n_pages,
                                                       .logits_from = r->scores ? 0 : r->n_known - 1,
                                                       .index = s.n_entries};
    }
    schedule_plan(&s);
    for (uint32_t i = 0; i < s.n_entries; i++) {
        const struct schedule_entry *e = &entries[i];
        const struct row *r = &t->rows[e->index];
        char change = (char)(e->start ? 's' : e->pause ? 'p' : 0);
        if (e->n_tokens != r->n_tokens || change != r->change)
            fail_msg("%s: entry %u gets %u tokens and '%c', expected %u and '%c'", t->name, e->index,
                     e->n_tokens, change ? change : '-', r->n_tokens, r->change ? r->change : '-');
    }
}

static void plans_are_as_in_the_tables(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        check_table(&tables[i]);
}

static struct schedule_entry runs(uint64_t arrival, uint32_t n_known, uint32_t n_pages, bool lent)
{
    return (struct schedule_entry){.state = SCHEDULE_RUNNING,
                                   .arrival = arrival,
                                   .n_known = n_known,
                                   .n_computed = n_known - 1,
                                   .n_pages = n_pages,
                                   .logits_from = n_known - 1,
                                   .lent = lent};
}

static struct schedule_entry waits(uint64_t arrival, uint32_t n_known, bool due)
{
    return (struct schedule_entry){.state = SCHEDULE_WAITING,
                                   .arrival = arrival,
                                   .turn = (uint32_t)arrival,
                                   .n_known = n_known,
                                   .logits_from = n_known - 1,
                                   .due = due,
                                   .lent = !due};
}

/* One that is held gets nothing of its prompt, and what it leaves goes to those behind. */
static void held_prompts_wait(void **state)
{
    (void)state;
    struct schedule_entry entries[3] = {
        {.state = SCHEDULE_RUNNING, .arrival = 1, .n_known = 20, .logits_from = 19},
        {.state = SCHEDULE_RUNNING, .arrival = 2, .n_known = 20, .logits_from = 19, .hold = true},
        {.state = SCHEDULE_RUNNING, .arrival = 3, .n_known = 20, .logits_from = 19}};
    struct schedule s = plan_of(entries, 3, 0, 100, 0);
    s.step_tokens = 10;
    s.chunk_tokens = 6;
    schedule_plan(&s);
    assert_int_equal(entries[0].n_tokens, 6);
    assert_int_equal(entries[1].n_tokens, 0);
    assert_false(entries[1].pause);
    assert_int_equal(entries[2].n_tokens, 4);
}

/* Two that share their first two pages: pausing one frees its own alone, pausing both all; and one that found
 * them in use needs room only for the rest. */
static void shared_pages_are_free_without_users(void **state)
{
    (void)state;
    static const uint32_t a[] = {0, 1, 2}, b[] = {0, 1, 3}, found[] = {0, 1};
    uint32_t users[6] = {2, 2, 1, 1, 1, 1};
    struct schedule_entry entries[3] = {runs(1, 9, 2, false), runs(2, 10, 3, false), runs(3, 10, 3, false)};
    static const uint32_t own[] = {4, 5};
    entries[0].pages = own;
    entries[1].pages = a;
    entries[2].pages = b;
    struct schedule s = plan_of(entries, 3, 0, 0, 0);
    s.step_tokens = s.chunk_tokens = 8;
    s.users = users;
    schedule_plan(&s);
    assert_true(entries[0].n_tokens == 1 && entries[1].n_tokens == 1 && entries[2].pause);
    assert_true(users[0] == 1 && users[3] == 0 && s.n_pages_free == 0);
    struct schedule_entry more[2] = {runs(1, 10, 3, false), waits(2, 10, false)};
    uint32_t shared[6] = {1, 1, 1};
    more[0].pages = a;
    more[1].n_computed = 8;
    more[1].n_pages = 2;
    more[1].pages = found;
    struct schedule_entry again = more[1];
    s = plan_of(more, 2, 1, 2, 0);
    s.step_tokens = s.chunk_tokens = 8;
    s.users = shared;
    schedule_plan(&s);
    assert_true(more[1].start && more[1].n_tokens == 2);
    assert_true(shared[0] == 2 && s.n_pages_free == 1);
    /* The same, but the two rest: they are among those that are free. */
    shared[0] = shared[1] = shared[2] = 0;
    s = plan_of(&again, 1, 1, 2, 0);
    s.step_tokens = s.chunk_tokens = 8;
    s.users = shared;
    schedule_plan(&s);
    assert_true(!again.start && shared[0] == 0 && s.n_pages_free == 2);
}

/* ---- pages that are due to some and lent to others ---- */

static void what_is_lent_is_taken_back(void **state)
{
    (void)state;
    /* One of three lent ones is enough: the youngest. Who isn't lent to stays, though it is younger. */
    struct schedule_entry e[5] = {runs(1, 8, 3, true), runs(2, 8, 3, true), runs(3, 8, 3, true),
                                  runs(4, 8, 3, false), waits(5, 7, true)};
    struct schedule s = plan_of(e, 5, 1, 3, 0);
    schedule_plan(&s);
    assert_true(!e[0].pause && !e[1].pause && e[2].pause && !e[3].pause);
    assert_true(e[4].start && e[4].n_tokens == 7);
    /* All of them wouldn't be enough: none. */
    struct schedule_entry few[3] = {runs(1, 8, 3, true), runs(2, 8, 2, false), waits(3, 25, true)};
    s = plan_of(few, 3, 1, 1, 0);
    schedule_plan(&s);
    assert_true(!few[0].pause && !few[1].pause && !few[2].start);
    /* It isn't due: none, either. */
    struct schedule_entry not_due[2] = {runs(1, 8, 3, true), waits(2, 4, false)};
    s = plan_of(not_due, 2, 1, 1, 0);
    schedule_plan(&s);
    assert_true(!not_due[0].pause && !not_due[1].start);
    /* Without a place to run nobody is paused in vain. */
    struct schedule_entry no_slot[2] = {runs(1, 8, 3, true), waits(2, 4, true)};
    s = plan_of(no_slot, 2, 0, 1, 0);
    schedule_plan(&s);
    assert_true(!no_slot[0].pause && !no_slot[1].start);
}

/* ---- those that are overdue ---- */

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

static void those_that_are_due_pass_by(void **state)
{
    (void)state;
    /* One that was lent to and waits for more than there is blocks its like alone. */
    struct schedule_entry e[4] = {runs(1, 8, 2, false), waits(2, 40, false), waits(3, 4, false),
                                  waits(4, 4, true)};
    e[1].state = SCHEDULE_PAUSED;
    e[1].turn = 0;
    struct schedule s = plan_of(e, 4, 3, 8, 0);
    schedule_plan(&s);
    assert_true(!e[1].start && !e[2].start && e[3].start);
    /* One that isn't lent to blocks all. */
    struct schedule_entry b[4] = {runs(1, 8, 2, false), waits(2, 40, false), waits(3, 4, false),
                                  waits(4, 4, true)};
    b[1].lent = false;
    s = plan_of(b, 4, 3, 8, 0);
    schedule_plan(&s);
    assert_true(!b[1].start && !b[2].start && !b[3].start);
}

static void who_grows_pauses_those_that_are_lent_to(void **state)
{
    (void)state;
    /* The older one is lent to: it goes for the younger one's page, and not the other way round. */
    struct schedule_entry e[2] = {runs(1, 9, 3, true), runs(2, 9, 2, false)};
    struct schedule s = plan_of(e, 2, 0, 0, 0);
    schedule_plan(&s);
    assert_true(e[0].pause && e[0].n_tokens == 0 && e[1].n_tokens == 1);
    struct schedule_entry f[2] = {runs(1, 9, 2, true), runs(2, 8, 2, false)};
    s = plan_of(f, 2, 0, 0, 0);
    schedule_plan(&s);
    assert_true(f[0].pause && f[1].n_tokens == 1);
    /* The last one is held, and whom it waits for must go: it computes by itself. */
    struct schedule_entry g[2] = {runs(1, 20, 2, true), runs(2, 20, 2, false)};
    g[0].n_computed = g[1].n_computed = 8;
    g[1].hold = true;
    s = plan_of(g, 2, 0, 0, 0);
    schedule_plan(&s);
    assert_true(g[0].pause && g[1].n_tokens > 0);
}

/* Two that are lent to share pages: both must go before those are free. */
static void shared_pages_are_taken_back_together(void **state)
{
    (void)state;
    static const uint32_t a[] = {0, 1, 2}, b[] = {0, 1, 3};
    for (uint32_t more = 0; more < 2; more++) {
        uint32_t users[5] = {2, 2, 1, 1, 0};
        struct schedule_entry e[3] = {runs(1, 10, 3, true), runs(2, 10, 3, true),
                                      waits(3, more ? 20 : 12, true)};
        e[0].pages = a;
        e[1].pages = b;
        struct schedule s = plan_of(e, 3, 1, 1, 0);
        s.users = users;
        schedule_plan(&s);
        if (more) { /* 6 pages are needed, there are 5 */
            assert_true(!e[0].pause && !e[1].pause && !e[2].start);
            assert_true(users[0] == 2 && users[1] == 2 && users[2] == 1 && users[3] == 1);
            continue;
        }
        assert_true(e[0].pause && e[1].pause && e[2].start && e[2].n_tokens == 12);
        assert_true(users[0] == 0 && users[1] == 0 && users[2] == 0 && users[3] == 0 && s.n_pages_free == 2);
    }
}

/* ---- a world of sequences that live by the plans ---- */

static uint32_t next_random(uint32_t *x)
{
    *x = *x * 1664525U + 1013904223U;
    return *x >> 8;
}

struct life {
    struct schedule_entry e;
    uint32_t n_goal; /* tokens at which it ends */
    uint32_t n_yields;
    bool over;
};

static void obey(struct life *l, const struct schedule_entry *p, uint32_t page_tokens)
{
    l->e.state = p->state;
    l->e.aside = p->aside && p->state == SCHEDULE_PAUSED;
    l->n_yields += p->pause && p->aside;
    if (p->pause)
        l->e.n_computed = l->e.n_pages = 0;
    if (!p->n_tokens)
        return;
    l->e.n_computed += p->n_tokens;
    uint32_t pages = (l->e.n_computed + page_tokens - 1) / page_tokens;
    l->e.n_pages = pages > l->e.n_pages ? pages : l->e.n_pages;
    if (l->e.n_computed == l->e.n_known) {
        l->e.n_known++;
        l->e.logits_from = l->e.n_known - 1;
        l->over = l->e.n_known >= l->n_goal;
    }
}

/* Now and then one that doesn't run is overdue, and what runs yields, a few times each. */
static void make_overdue(struct life *l, uint32_t random)
{
    bool runs = l->e.state == SCHEDULE_RUNNING;
    l->e.overdue = !runs && random % 4 == 0;
    l->e.yields = l->e.yields_to_own = runs && l->n_yields < 3;
}

/* Random sequences in small caches: budgets are kept, pages never run negative, everybody ends. */
static void everybody_ends_within_all_bounds(void **state)
{
    uint32_t n_yields = 0;
    (void)state;
    for (uint32_t seed = 1; seed <= 200; seed++) {
        uint32_t x = seed, n_pages = 8 + next_random(&x) % 20, n_slots = 1 + next_random(&x) % 6;
        struct life lives[12] = {0};
        for (uint32_t i = 0; i < 12; i++) {
            uint32_t goal = 2 + next_random(&x) % (n_pages * 4 - 2), known = 1 + next_random(&x) % (goal - 1);
            lives[i] = (struct life){.n_goal = goal,
                                     .e = {.priority = (int32_t)(next_random(&x) % 3),
                                           .lent = seed > 100 && i % 3 == 0,
                                           .due = seed > 100 && i % 3 == 1,
                                           .caller = i % 4,
                                           .arrival = i,
                                           .n_known = known,
                                           .logits_from = next_random(&x) % 4 ? known - 1 : 0}};
        }
        uint32_t n_left = 12, n_steps = 0;
        while (n_left) {
            struct schedule_entry entries[12];
            struct schedule s = plan_of(entries, 0, n_slots, n_pages, 4);
            s.step_tokens = 8;
            s.chunk_tokens = 1 + next_random(&x) % 8;
            s.score_rows = 3;
            for (uint32_t i = 0; i < 12; i++) {
                if (seed % 2)
                    make_overdue(&lives[i], next_random(&x));
                s.n_pages_free -= lives[i].over ? 0 : lives[i].e.n_pages;
                s.n_slots_free -= !lives[i].over && lives[i].e.state != SCHEDULE_WAITING && !lives[i].e.aside;
                s.n_aside_most -= !lives[i].over && lives[i].e.aside;
                lives[i].e.index = i;
                if (!lives[i].over)
                    entries[s.n_entries++] = lives[i].e;
            }
            schedule_plan(&s);
            uint32_t n_tokens = 0, pages = 0, running = 0, aside = 0;
            for (uint32_t i = 0; i < s.n_entries; i++) {
                struct life *l = &lives[entries[i].index];
                obey(l, &entries[i], 4);
                n_tokens += entries[i].n_tokens;
                pages += l->e.n_pages;
                running += l->e.state != SCHEDULE_WAITING && !l->e.aside;
                n_yields += l->n_yields && l->over;
                aside += l->e.aside;
                n_left -= l->over;
            }
            assert_in_range(n_tokens, 1, 8);
            assert_in_range(pages, 0, n_pages);
            assert_in_range(running, 0, n_slots);
            assert_in_range(aside, 0, 4);
            assert_true(++n_steps < 20000);
        }
    }
    assert_true(n_yields > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_are_as_in_the_tables),
        cmocka_unit_test(held_prompts_wait),
        cmocka_unit_test(shared_pages_are_free_without_users),
        cmocka_unit_test(what_is_lent_is_taken_back),
        cmocka_unit_test(who_is_softest_yields),
        cmocka_unit_test(loads_fall_with_each_that_yields),
        cmocka_unit_test(who_runs_is_counted_when_somebody_must_yield),
        cmocka_unit_test(its_own_yield_later),
        cmocka_unit_test(pages_are_yielded),
        cmocka_unit_test(who_is_aside_comes_back),
        cmocka_unit_test(a_token_is_kept_for_it),
        cmocka_unit_test(a_share_is_yielded_by_its_own),
        cmocka_unit_test(what_is_kept_in_vain_is_given),
        cmocka_unit_test(a_full_share_holds_up_nobody),
        cmocka_unit_test(who_is_aside_changes_places),
        cmocka_unit_test(those_that_are_due_pass_by),
        cmocka_unit_test(who_grows_pauses_those_that_are_lent_to),
        cmocka_unit_test(shared_pages_are_taken_back_together),
        cmocka_unit_test(everybody_ends_within_all_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
