/* The scheduler by tables: who gets how many tokens, who starts, who is paused. */
#include "tests/test.h"

#include <stdio.h>
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
    uint32_t step_tokens, chunk_tokens, score_rows, n_slots_free, n_pages_free;
    struct row rows[N_MAX];
};

/* Pages of 4 tokens. Rows are in order of arrival. */
static const struct table tables[] = {
    {"one prompt, whole", 64, 64, 8, 1, 100, {{'W', 0, 10, 0, 0, false, 10, 's'}}},
    {"one prompt, in chunks", 64, 4, 8, 1, 100, {{'W', 0, 10, 0, 0, false, 4, 's'}}},
    {"budget is shared in order of arrival",
     10,
     10,
     8,
     2,
     100,
     {{'R', 0, 20, 14, 4, false, 6, 0}, {'W', 0, 9, 0, 0, false, 4, 's'}, {'W', 0, 9, 0, 0, false, 0, 0}}},
    {"decoding rows come before an older prompt",
     6,
     6,
     8,
     0,
     100,
     {{'R', 0, 50, 0, 0, false, 3, 0},
      {'R', 0, 9, 8, 2, false, 1, 0},
      {'R', 0, 9, 8, 2, false, 1, 0},
      {'R', 0, 9, 8, 2, false, 1, 0}}},
    {"a short chunk leaves room for the next prompt",
     10,
     4,
     8,
     3,
     100,
     {{'W', 0, 9, 0, 0, false, 4, 's'}, {'W', 0, 9, 0, 0, false, 4, 's'}, {'W', 0, 9, 0, 0, false, 2, 's'}}},
    {"lower priority values first",
     8,
     8,
     8,
     2,
     100,
     {{'W', 1, 8, 0, 0, false, 0, 0}, {'W', -1, 8, 0, 0, false, 8, 's'}}},
    {"no slot: waits, but a paused one behind it resumes",
     64,
     64,
     8,
     0,
     100,
     {{'W', -5, 8, 0, 0, false, 0, 0}, {'P', 0, 8, 0, 0, false, 8, 's'}}},
    {"a paused one comes before a younger waiting one, and blocks it",
     64,
     64,
     8,
     1,
     3,
     {{'R', 0, 9, 8, 3, false, 1, 0}, {'P', 0, 12, 0, 0, false, 0, 0}, {'W', 0, 1, 0, 0, false, 0, 0}}},
    {"the youngest gives its pages to an older one",
     64,
     64,
     8,
     0,
     0,
     {{'R', 0, 9, 8, 2, false, 1, 0}, {'R', 0, 6, 5, 2, false, 1, 0}, {'R', 0, 7, 6, 2, false, 0, 'p'}}},
    {"by priority the older may be the youngest in service",
     64,
     64,
     8,
     0,
     0,
     {{'R', 3, 6, 5, 2, false, 0, 'p'}, {'R', 0, 9, 8, 2, false, 1, 0}}},
    {"the youngest in need of a page pauses itself",
     64,
     64,
     8,
     0,
     0,
     {{'R', 0, 6, 5, 2, false, 1, 0}, {'R', 0, 9, 8, 2, false, 0, 'p'}}},
    {"alone at the end of the cache it goes on", 64, 64, 8, 0, 1, {{'R', 0, 9, 8, 2, false, 1, 0}}},
    {"two need the last page: the older one has it",
     64,
     64,
     8,
     0,
     1,
     {{'R', 0, 5, 4, 1, false, 1, 0}, {'R', 0, 5, 4, 1, false, 0, 'p'}}},
    {"a prompt takes a shorter chunk rather than a page of another",
     64,
     64,
     8,
     0,
     1,
     {{'R', 0, 20, 4, 1, false, 4, 0}, {'R', 0, 6, 5, 2, false, 1, 0}}},
    {"an older prompt without any page left pauses the youngest",
     64,
     64,
     8,
     0,
     0,
     {{'R', 0, 20, 4, 1, false, 8, 0}, {'R', 0, 6, 5, 2, false, 0, 'p'}}},
    {"who starts leaves each running one a page to grow",
     64,
     64,
     8,
     1,
     3,
     {{'R', 0, 7, 6, 2, false, 1, 0}, {'W', 0, 8, 0, 0, false, 0, 0}}},
    {"with that page it starts",
     64,
     64,
     8,
     1,
     4,
     {{'R', 0, 7, 6, 2, false, 1, 0}, {'W', 0, 8, 0, 0, false, 8, 's'}}},
    {"pages that a running prompt will need are not given away",
     4,
     4,
     8,
     1,
     10,
     {{'R', 0, 40, 0, 0, false, 4, 0}, {'W', 0, 8, 0, 0, false, 0, 0}}},
    {"rows of logits bound a scored prompt's chunk", 64, 64, 8, 1, 100, {{'W', 0, 30, 0, 0, true, 8, 's'}}},
    {"who lacks rows of logits holds up nobody",
     64,
     64,
     8,
     3,
     100,
     {{'W', 0, 30, 0, 0, true, 8, 's'}, {'W', 0, 30, 0, 0, true, 0, 0}, {'W', 0, 5, 0, 0, false, 5, 's'}}},
};

static enum schedule_state state_of(char c)
{
    return c == 'W' ? SCHEDULE_WAITING : c == 'P' ? SCHEDULE_PAUSED : SCHEDULE_RUNNING;
}

static void check_table(const struct table *t)
{
    struct schedule_entry entries[N_MAX];
    struct schedule s = {t->step_tokens,
                         t->chunk_tokens,
                         t->score_rows,
                         4,
                         t->n_slots_free,
                         t->n_pages_free,
                         entries,
                         0,
                         NULL};
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
    struct schedule s = {10, 6, 3, 4, 0, 100, entries, 3, NULL};
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
    struct schedule_entry entries[3] = {{.state = SCHEDULE_RUNNING,
                                         .arrival = 1,
                                         .n_known = 9,
                                         .n_computed = 8,
                                         .n_pages = 2,
                                         .logits_from = 8},
                                        {.state = SCHEDULE_RUNNING,
                                         .arrival = 2,
                                         .n_known = 10,
                                         .n_computed = 9,
                                         .n_pages = 3,
                                         .logits_from = 9},
                                        {.state = SCHEDULE_RUNNING,
                                         .arrival = 3,
                                         .n_known = 10,
                                         .n_computed = 9,
                                         .n_pages = 3,
                                         .logits_from = 9}};
    static const uint32_t own[] = {4, 5};
    entries[0].pages = own;
    entries[1].pages = a;
    entries[2].pages = b;
    struct schedule s = {8, 8, 3, 4, 0, 0, entries, 3, users};
    schedule_plan(&s);
    assert_true(entries[0].n_tokens == 1 && entries[1].n_tokens == 1 && entries[2].pause);
    assert_true(users[0] == 1 && users[3] == 0 && s.n_pages_free == 0);
    struct schedule_entry more[2] = {{.state = SCHEDULE_RUNNING,
                                      .arrival = 1,
                                      .n_known = 10,
                                      .n_computed = 9,
                                      .n_pages = 3,
                                      .logits_from = 9},
                                     {.state = SCHEDULE_WAITING,
                                      .arrival = 2,
                                      .n_known = 10,
                                      .n_computed = 8,
                                      .n_pages = 2,
                                      .logits_from = 9}};
    uint32_t shared[6] = {1, 1, 1};
    more[0].pages = a;
    more[1].pages = found;
    s = (struct schedule){8, 8, 3, 4, 1, 2, more, 2, shared};
    schedule_plan(&s);
    assert_true(more[1].start && more[1].n_tokens == 2);
    assert_true(shared[0] == 2 && s.n_pages_free == 1);
    shared[0] = shared[1] = shared[2] =
        0; /* the same, but the two rest: they are among those that are free */
    more[1] = (struct schedule_entry){.state = SCHEDULE_WAITING,
                                      .arrival = 2,
                                      .n_known = 10,
                                      .n_computed = 8,
                                      .n_pages = 2,
                                      .logits_from = 9};
    more[1].pages = found;
    s = (struct schedule){8, 8, 3, 4, 1, 2, &more[1], 1, shared};
    schedule_plan(&s);
    assert_true(!more[1].start && shared[0] == 0 && s.n_pages_free == 2);
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
    bool over;
};

static void obey(struct life *l, const struct schedule_entry *p, uint32_t page_tokens)
{
    l->e.state = p->state;
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

/* Random sequences in small caches: budgets are kept, pages never run negative, everybody ends. */
static void everybody_ends_within_all_bounds(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 200; seed++) {
        uint32_t x = seed, n_pages = 8 + next_random(&x) % 20, n_slots = 1 + next_random(&x) % 6;
        struct life lives[12] = {0};
        for (uint32_t i = 0; i < 12; i++) {
            uint32_t goal = 2 + next_random(&x) % (n_pages * 4 - 2), known = 1 + next_random(&x) % (goal - 1);
            lives[i] = (struct life){.n_goal = goal,
                                     .e = {.priority = (int32_t)(next_random(&x) % 3),
                                           .arrival = i,
                                           .n_known = known,
                                           .logits_from = next_random(&x) % 4 ? known - 1 : 0}};
        }
        uint32_t n_left = 12, n_steps = 0;
        while (n_left) {
            struct schedule_entry entries[12];
            struct schedule s = {8, 1 + next_random(&x) % 8, 3, 4, n_slots, n_pages, entries, 0, NULL};
            for (uint32_t i = 0; i < 12; i++) {
                s.n_pages_free -= lives[i].over ? 0 : lives[i].e.n_pages;
                s.n_slots_free -= !lives[i].over && lives[i].e.state != SCHEDULE_WAITING;
                lives[i].e.index = i;
                if (!lives[i].over)
                    entries[s.n_entries++] = lives[i].e;
            }
            schedule_plan(&s);
            uint32_t n_tokens = 0, pages = 0, running = 0;
            for (uint32_t i = 0; i < s.n_entries; i++) {
                struct life *l = &lives[entries[i].index];
                obey(l, &entries[i], 4);
                n_tokens += entries[i].n_tokens;
                pages += l->e.n_pages;
                running += l->e.state != SCHEDULE_WAITING;
                n_left -= l->over;
            }
            assert_in_range(n_tokens, 1, 8);
            assert_in_range(pages, 0, n_pages);
            assert_in_range(running, 0, n_slots);
            assert_true(++n_steps < 20000);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_are_as_in_the_tables),
        cmocka_unit_test(held_prompts_wait),
        cmocka_unit_test(shared_pages_are_free_without_users),
        cmocka_unit_test(everybody_ends_within_all_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
