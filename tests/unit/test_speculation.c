/* Guessing tokens, and when guesses are worth their rows. */
#include "tests/test.h"

#include <string.h>

#include "base/mem.h"
#include "speculation.h"

/* ---- copy ---- */

static void check_copy(const char *text, uint32_t n_max, const char *guesses, enum draft_source source)
{
    int32_t tokens[256];
    uint32_t n = (uint32_t)strlen(text);
    struct prediction p;
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = text[i];
    draft_copy(tokens, n, n_max, &p);
    if (p.n != strlen(guesses))
        fail_msg("\"%s\": %u guesses, expected \"%s\"", text, p.n, guesses);
    for (uint32_t i = 0; i < p.n; i++)
        if (p.tokens[i] != guesses[i])
            fail_msg("\"%s\": guess %u is '%c', expected \"%s\"", text, i, p.tokens[i], guesses);
    assert_true(p.n == 0 || p.sources[0] == source);
}

static void what_stood_behind_the_same_words_is_guessed(void **state)
{
    (void)state;
    check_copy("abcdefgh, ab", 7, "cdefgh,", DRAFT_COPY_2);
    check_copy("abcdefgh, abc", 3, "def", DRAFT_COPY_3);
    check_copy("abcdefgh, abcd", 2, "ef", DRAFT_COPY_4);
    check_copy("abcdefghijklmno, abcdefgh", 7, "ijklmno", DRAFT_COPY_8);
    check_copy("xab1 yab2 zab", 2, "2 ", DRAFT_COPY_2); /* the latest */
    check_copy("xab1 yab2 xab", 2, "1 ", DRAFT_COPY_3); /* the longest */
    check_copy("ababab", 7, "abababa", DRAFT_COPY_4);   /* a loop goes on */
    check_copy("xaaaa", 5, "aaaaa", DRAFT_COPY_3);      /* of one token */
    check_copy("qabcabc", 7, "abcabca", DRAFT_COPY_3);  /* and behind its own guesses */
    check_copy("abcdef", 7, "", DRAFT_COPY_2);          /* nothing again */
    check_copy("abcdef b", 7, "", DRAFT_COPY_2);        /* one word says too little */
    check_copy("ab ab", 0, "", DRAFT_COPY_2);           /* no room */
    check_copy("aa", 7, "", DRAFT_COPY_2);              /* too short, */
    check_copy("a", 7, "", DRAFT_COPY_2);               /* and shorter */
    check_copy("", 7, "", DRAFT_COPY_2);
    check_copy("aaa", 2, "aa", DRAFT_COPY_2);
}

/* Each guess is the likelier the more stands before it: the sources rise along a draft. */
static void a_match_grows_with_its_guesses(void **state)
{
    (void)state;
    const int32_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2};
    const uint8_t sources[] = {DRAFT_COPY_2, DRAFT_COPY_3, DRAFT_COPY_4, DRAFT_COPY_4,
                               DRAFT_COPY_4, DRAFT_COPY_4, DRAFT_COPY_8};
    struct prediction p;
    draft_copy(tokens, sizeof tokens / sizeof *tokens, 100, &p);
    assert_int_equal(p.n, DRAFT_TOKENS_MAX);
    assert_memory_equal(p.sources, sources, sizeof sources);
}

/* ---- tables ---- */

static void check_guesses(const struct draft_table *t, const int32_t *tokens, uint32_t n, uint32_t n_max,
                          uint32_t n_expected, enum draft_source source)
{
    struct prediction p;
    draft_table_predict(t, tokens, n, n_max, &p);
    assert_int_equal(p.n, n_expected);
    for (uint32_t i = 0; i < p.n; i++) {
        assert_int_equal(p.tokens[i], tokens[n + i]);
        assert_int_equal(p.sources[i], source);
    }
}

static void a_table_says_what_it_has_heard(void **state)
{
    (void)state;
    const int32_t tokens[] = {100, 7, 8, 9, 3, 1, 4, 1, 5, 9, 2, 6}, other[] = {7, 8, 9, 77};
    const struct draft_key key = {.salt = {1}};
    struct draft_tables *tables;
    struct error err;
    struct prediction p;
    assert_int_equal(draft_tables_create(&tables, &err), STATUS_OK);
    assert_null(draft_tables_find(tables, &key));
    struct draft_table *t = draft_tables_take(tables, &key);
    assert_true(t == draft_tables_find(tables, &key) && t == draft_tables_take(tables, &key));
    check_guesses(t, tokens, 4, 7, 0, DRAFT_TABLE_ONCE);
    draft_table_learn(t, tokens, 4, 12);
    check_guesses(t, tokens, 3, 7, 0, DRAFT_TABLE_ONCE); /* what was asked isn't learnt */
    check_guesses(t, tokens, 4, 7, 7, DRAFT_TABLE_ONCE);
    check_guesses(t, tokens, 4, 3, 3, DRAFT_TABLE_ONCE);
    check_guesses(t, tokens + 2, 8, 7, 2, DRAFT_TABLE_ONCE); /* the end of what is known */
    check_guesses(t, tokens, 2, 7, 0, DRAFT_TABLE_ONCE);     /* too little before */
    draft_table_learn(t, tokens, 4, 12);
    check_guesses(t, tokens, 4, 7, 7, DRAFT_TABLE_OFTEN);
    draft_table_learn(t, other, 0, 4); /* one exception */
    draft_table_predict(t, other, 3, 1, &p);
    assert_true(p.n == 1 && p.tokens[0] == 3);
    draft_table_learn(t, other, 0, 4); /* a new habit */
    draft_table_predict(t, other, 3, 1, &p);
    assert_true(p.n == 1 && p.tokens[0] == 77);
    draft_tables_destroy(tables);
    draft_tables_destroy(NULL);
}

static void tables_are_kept_apart_and_bounded(void **state)
{
    (void)state;
    const int32_t tokens[] = {1, 2, 3, 4};
    struct draft_tables *tables;
    struct error err;
    struct draft_key key = {{0}, {0}};
    assert_int_equal(draft_tables_create(&tables, &err), STATUS_OK);
    for (uint32_t i = 0; i < DRAFT_TABLES; i++) {
        key.salt[3] = i % 2;
        key.digest[31] = (uint8_t)i;
        struct draft_table *t = draft_tables_take(tables, &key);
        check_guesses(t, tokens, 3, 7, 0, DRAFT_TABLE_ONCE);
        draft_table_learn(t, tokens, 3, 4);
        acceptance_note(draft_table_acceptance(t), DRAFT_COPY_2, true, 1);
    }
    key.digest[31] = 0;
    key.salt[3] = 0;
    assert_non_null(draft_tables_find(tables, &key)); /* used just now */
    key.salt[3] = 1;
    assert_null(draft_tables_find(tables, &key));
    key.digest[31] = 200;
    struct draft_table *t = draft_tables_take(tables, &key); /* in the place of number 1 */
    check_guesses(t, tokens, 3, 7, 0, DRAFT_TABLE_ONCE);
    assert_true(draft_table_acceptance(t)->rates[DRAFT_COPY_2] == acceptance_prior().rates[DRAFT_COPY_2]);
    key.digest[31] = 1;
    assert_null(draft_tables_find(tables, &key));
    key = (struct draft_key){{0}, {0}};
    assert_non_null(draft_tables_find(tables, &key));
    draft_tables_destroy(tables);
}

/* Far more than a table holds: it stays whole, and what was heard last is there. */
static void a_table_forgets_the_oldest(void **state)
{
    (void)state;
    static int32_t tokens[8 * DRAFT_TABLE_GRAMS];
    const uint32_t n = sizeof tokens / sizeof *tokens;
    struct draft_tables *tables;
    struct error err;
    assert_int_equal(draft_tables_create(&tables, &err), STATUS_OK);
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)(i * 2654435761U >> 8);
    struct draft_table *t = draft_tables_take(tables, &(struct draft_key){.salt = {3}});
    draft_table_learn(t, tokens, 0, n);
    uint32_t n_early = 0, n_late = 0;
    for (uint32_t i = 3; i < 1003; i++) {
        struct prediction p;
        draft_table_predict(t, tokens, i, 1, &p);
        n_early += p.n && p.tokens[0] == tokens[i];
        draft_table_predict(t, tokens, n - i, 1, &p);
        n_late += p.n && p.tokens[0] == tokens[n - i];
    }
    assert_true(n_early < 50 && n_late > 900);
    draft_tables_destroy(tables);
}

static void short_memory_is_said(void **state)
{
    (void)state;
    struct draft_tables *tables;
    struct error err;
    mem_fail_at(1);
    assert_int_equal(draft_tables_create(&tables, &err), STATUS_NO_MEMORY);
    mem_fail_at(0);
    assert_null(tables);
}

/* ---- rates ---- */

static void rates_follow_what_was_right(void **state)
{
    (void)state;
    struct acceptance a = acceptance_prior();
    for (int i = 0; i < 100; i++) {
        acceptance_note(&a, DRAFT_COPY_2, false, ACCEPTANCE_SPEED_SEQUENCE);
        acceptance_note(&a, DRAFT_COPY_3, i % 2, ACCEPTANCE_SPEED_SEQUENCE);
        acceptance_note(&a, DRAFT_COPY_8, true, ACCEPTANCE_SPEED_SEQUENCE);
    }
    assert_true(a.rates[DRAFT_COPY_2] < 0.01F && a.rates[DRAFT_COPY_2] >= 0);
    assert_true(a.rates[DRAFT_COPY_3] > 0.4F && a.rates[DRAFT_COPY_3] < 0.6F);
    assert_true(a.rates[DRAFT_COPY_8] > 0.99F && a.rates[DRAFT_COPY_8] <= 1);
    const struct prediction p = {.n = 2, .sources = {DRAFT_COPY_3, DRAFT_COPY_8}};
    double chance = draft_chance(&p, &a, 2);
    assert_true(chance > 0.39 && chance < 0.6 && draft_chance(&p, &a, 0) == 1);
}

/* ---- the choice ---- */

#define N_OPTIONS 3U
struct choice {
    struct prediction predictions[N_OPTIONS];
    struct acceptance acceptances[N_OPTIONS];
    struct draft_option options[N_OPTIONS];
};

static void make_choice(struct choice *c, const float rates[N_OPTIONS])
{
    *c = (struct choice){0};
    for (uint32_t i = 0; i < N_OPTIONS; i++) {
        c->predictions[i].n = DRAFT_TOKENS_MAX;
        c->acceptances[i].rates[DRAFT_COPY_2] = rates[i];
        c->options[i] = (struct draft_option){.prediction = &c->predictions[i],
                                              .acceptance = &c->acceptances[i],
                                              .n_max = DRAFT_TOKENS_MAX,
                                              .n = 9};
    }
}

static uint32_t n_chosen(const struct draft_costs *costs, struct draft_step step,
                         const float rates[N_OPTIONS], struct choice *c)
{
    uint32_t n = 0;
    make_choice(c, rates);
    drafts_choose(costs, &step, c->options, N_OPTIONS);
    for (uint32_t i = 0; i < N_OPTIONS; i++) {
        assert_true(c->options[i].n <= c->options[i].n_max);
        n += c->options[i].n;
    }
    return n;
}

static void drafts_must_pay(void **state)
{
    (void)state;
    const struct cost_curve flat = {{100, 101, 102, 103, 104, 105}},
                            steep = {{100, 200, 400, 800, 1600, 3200}},
                            stairs = {{100, 180, 190, 200, 400, 800}};
    const float sure[] = {1, 1, 1}, never[] = {0, 0, 0}, mixed[] = {0.1F, 0.9F, 0.5F}, fair[] = {0.7F, 0, 0};
    const struct draft_step alone = {.n_rows = 3, .n_sampled = 3, .n_drafts_max = 1000};
    struct draft_costs costs;
    struct choice c;
    draft_costs_init(&costs, &flat);
    assert_int_equal(n_chosen(&costs, alone, sure, &c), N_OPTIONS * DRAFT_TOKENS_MAX);
    assert_int_equal(n_chosen(&costs, alone, never, &c), 0);
    n_chosen(&costs, alone, mixed, &c);
    assert_true(c.options[1].n >= c.options[2].n && c.options[2].n > c.options[0].n);
    struct draft_step few = alone;
    few.n_drafts_max = 5;
    assert_int_equal(n_chosen(&costs, few, sure, &c), 5);
    few.n_drafts_max = 0;
    assert_int_equal(n_chosen(&costs, few, sure, &c), 0);
    few = (struct draft_step){.n_rows = DRAFT_ROWS_MAX - 2, .n_sampled = 20, .n_drafts_max = 1000};
    assert_true(n_chosen(&costs, few, sure, &c) <= 2);
    few.n_rows = DRAFT_ROWS_MAX + 5;
    assert_int_equal(n_chosen(&costs, few, sure, &c), 0);
    draft_costs_init(&costs, &steep); /* rows cost what they give */
    assert_int_equal(n_chosen(&costs, alone, sure, &c), 0);
    draft_costs_init(&costs, &stairs); /* one more row doesn't pay, seven do */
    few = (struct draft_step){.n_rows = 1, .n_sampled = 1, .n_drafts_max = 1};
    assert_int_equal(n_chosen(&costs, few, fair, &c), 0);
    few.n_drafts_max = 7;
    assert_true(n_chosen(&costs, few, fair, &c) > 3);
    draft_costs_init(&costs, NULL);
    assert_true(n_chosen(&costs, alone, sure, &c) > 3);
    c.options[0].prediction = NULL; /* who has nothing to guess */
    c.options[0].n_max = 0;
    c.options[2].n_max = 1;
    drafts_choose(&costs, &alone, c.options, N_OPTIONS);
    assert_true(c.options[0].n == 0 && c.options[1].n > 1 && c.options[2].n == 1);
}

static void what_was_measured_counts(void **state)
{
    (void)state;
    const struct cost_curve curve = {{100, 110, 120, 140, 200, 400}};
    const float sure[] = {1, 1, 1}, rare[] = {0.01F, 0, 0};
    const struct draft_step alone = {.n_rows = 3, .n_sampled = 3, .n_drafts_max = 7};
    struct draft_costs costs;
    struct choice c;
    draft_costs_init(&costs, &curve);
    for (int i = 0; i < 50; i++) {
        draft_costs_note(&costs, 1, 0, 100);
        draft_costs_note(&costs, 8, 7, 1400); /* ten times dearer than predicted */
    }
    assert_int_equal(n_chosen(&costs, alone, sure, &c), 0);
    for (int i = 0; i < 3000; i++) /* which is forgotten some time */
        draft_costs_note(&costs, 1, 0, 100);
    assert_true(n_chosen(&costs, alone, sure, &c) > 0);
    draft_costs_note(&costs, 1, 0, 1e9); /* one interrupted step */
    assert_true(costs.plain < 1.2);
    for (int i = 0; i < 50; i++)
        draft_costs_note(&costs, 8, 7, 10); /* faster with drafts than without: can't be */
    assert_int_equal(n_chosen(&costs, alone, rare, &c), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_stood_behind_the_same_words_is_guessed),
        cmocka_unit_test(a_match_grows_with_its_guesses),
        cmocka_unit_test(a_table_says_what_it_has_heard),
        cmocka_unit_test(tables_are_kept_apart_and_bounded),
        cmocka_unit_test(a_table_forgets_the_oldest),
        cmocka_unit_test(short_memory_is_said),
        cmocka_unit_test(rates_follow_what_was_right),
        cmocka_unit_test(drafts_must_pay),
        cmocka_unit_test(what_was_measured_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
