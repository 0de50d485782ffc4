/* Compiled grammars that are kept: found again, and nobody's within his share pushed out by another. */
#include "grammar_rig.h"

#include "api_grammar.h"

#define MANY 24

static struct grammar *get(struct grammar_store *s, const char *caller, unsigned number)
{
    const struct grammar_scope scope = {s, rig_tokenizer, N_MADE, caller};
    char text[32];
    struct grammar *g;
    struct error err;
    snprintf(text, sizeof text, "[a-z]%02u", number);
    const struct grammar_part part = {GRAMMAR_REGEX, text, strlen(text)};
    const struct grammar_sequence alone = {&part, 1};
    const struct grammar_spec spec = {.alternatives = &alone, .n_alternatives = 1};
    if (grammar_store_get(&scope, &spec, &g, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return g;
}

/* Whether it is what was got before. */
static bool is_kept(struct grammar_store *s, const char *caller, unsigned number,
                    const struct grammar *before)
{
    struct grammar *g = get(s, caller, number);
    bool same = g == before;
    grammar_release(g);
    return same;
}

/* Room for about n of these grammars. */
static struct grammar_store *store_for(size_t n)
{
    struct grammar_store *s = grammar_store_create(1);
    struct grammar *g = get(s, NULL, MANY);
    size_t n_bytes = grammar_bytes(g);
    grammar_release(g);
    grammar_store_destroy(s);
    return grammar_store_create(n * n_bytes + n_bytes / 2);
}

static void the_last_used_ones_stay(void **state)
{
    (void)state;
    struct grammar_store *s = store_for(4);
    struct grammar *kept[6];
    for (unsigned i = 0; i < 4; i++)
        kept[i] = get(s, "a", i);
    for (unsigned i = 0; i < 4; i++)
        assert_true(is_kept(s, "a", i, kept[i]));
    assert_true(is_kept(s, "a", 0, kept[0])); /* used last, now */
    for (unsigned i = 4; i < 6; i++)
        kept[i] = get(s, "a", i);
    assert_true(is_kept(s, "a", 0, kept[0]));
    assert_true(is_kept(s, "a", 5, kept[5]));
    assert_false(is_kept(s, "a", 1, kept[1]));
    for (unsigned i = 0; i < 6; i++)
        grammar_release(kept[i]);
    grammar_store_destroy(s);
}

static void callers_are_told_apart(void **state)
{
    (void)state;
    struct grammar_store *s = store_for(8);
    struct grammar *g = get(s, "a", 3);
    assert_true(is_kept(s, "a", 3, g));
    assert_false(is_kept(s, "b", 3, g));
    assert_false(is_kept(s, NULL, 3, g));
    assert_false(is_kept(s, "", 3, g));
    grammar_release(g);
    grammar_store_destroy(s);
}

/* One who compiles without end, two with less than a share, before and after. */
static void nobody_pushes_out_another(void **state)
{
    (void)state;
    struct grammar_store *s = store_for(9);
    struct grammar *a[3], *b[2], *crowd[MANY];
    for (unsigned i = 0; i < 3; i++)
        a[i] = get(s, "a", i);
    for (unsigned i = 0; i < MANY; i++) {
        crowd[i] = get(s, "crowd", i);
        if (i == MANY / 2) /* the store is full: what comes now takes of the crowd's */
            for (unsigned k = 0; k < 2; k++)
                b[k] = get(s, "b", k);
    }
    for (unsigned i = 0; i < 3; i++)
        assert_true(is_kept(s, "a", i, a[i]));
    for (unsigned i = 0; i < 2; i++)
        assert_true(is_kept(s, "b", i, b[i]));
    for (unsigned i = MANY - 3; i < MANY; i++)
        assert_true(is_kept(s, "crowd", i, crowd[i]));
    assert_false(is_kept(s, "crowd", 0, crowd[0]));
    for (unsigned i = 0; i < MANY; i++)
        grammar_release(crowd[i]);
    for (unsigned i = 0; i < 3; i++)
        grammar_release(a[i]);
    for (unsigned i = 0; i < 2; i++)
        grammar_release(b[i]);
    grammar_store_destroy(s);
}

/* Room that nobody else needs is anybody's, and is given back when somebody does. */
static void shares_follow_the_callers(void **state)
{
    (void)state;
    struct grammar_store *s = store_for(6);
    struct grammar *a[6], *b[3];
    for (unsigned i = 0; i < 6; i++)
        a[i] = get(s, "a", i);
    assert_true(is_kept(s, "a", 0, a[0]));
    for (unsigned i = 0; i < 3; i++)
        b[i] = get(s, "b", i);
    for (unsigned i = 0; i < 3; i++)
        assert_true(is_kept(s, "b", i, b[i]));
    assert_true(is_kept(s, "a", 0, a[0]));
    assert_false(is_kept(s, "a", 1, a[1]));
    for (unsigned i = 0; i < 6; i++)
        grammar_release(a[i]);
    for (unsigned i = 0; i < 3; i++)
        grammar_release(b[i]);
    grammar_store_destroy(s);
}

static void what_fits_nowhere_is_used_once(void **state)
{
    (void)state;
    struct grammar_store *s = grammar_store_create(1);
    struct grammar *g = get(s, "a", 0);
    assert_true(grammar_accepts(g, "x00", 3));
    assert_false(is_kept(s, "a", 0, g));
    grammar_release(g);
    grammar_store_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_used_ones_stay),        cmocka_unit_test(callers_are_told_apart),
        cmocka_unit_test(nobody_pushes_out_another),      cmocka_unit_test(shares_follow_the_callers),
        cmocka_unit_test(what_fits_nowhere_is_used_once),
    };
    return cmocka_run_group_tests(tests, rig_begin, rig_end);
}
