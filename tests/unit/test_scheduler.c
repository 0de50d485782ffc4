/* The scheduler by tables: who gets how many tokens, who starts, who is paused. */
#include "tests/test.h"

#include "schedule_rig.h"

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

/* Now and then one that doesn't run is overdue, and what runs yields, a few times each. Others that have
 * places may have its share of the pages. */
static void make_overdue(struct life *l, uint32_t random, bool in_place)
{
    bool runs = l->e.state == SCHEDULE_RUNNING;
    l->e.overdue = !runs && random % 4 == 0;
    l->e.n_lacks = l->e.overdue && in_place ? random / 4 % 2 : 0;
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
                s.n_pages_free -= lives[i].over ? 0 : lives[i].e.n_pages;
                s.n_slots_free -= !lives[i].over && lives[i].e.state != SCHEDULE_WAITING && !lives[i].e.aside;
                s.n_aside_most -= !lives[i].over && lives[i].e.aside;
                lives[i].e.index = i;
            }
            for (uint32_t i = 0; i < 12; i++) {
                bool has_place = lives[i].e.state != SCHEDULE_WAITING && !lives[i].e.aside;
                if (seed % 2)
                    make_overdue(&lives[i], next_random(&x), s.n_slots_free + has_place < n_slots);
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
        cmocka_unit_test(those_that_are_due_pass_by),
        cmocka_unit_test(who_grows_pauses_those_that_are_lent_to),
        cmocka_unit_test(shared_pages_are_taken_back_together),
        cmocka_unit_test(everybody_ends_within_all_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
