/* Voices in words: what is read, what is refused, the one canonical text, and random texts. */
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "voice_expr.h"

#define BASE "tiny-llama"

static const char *canonical(const struct voice_expr *e)
{
    static char text[8192];
    struct buf b;
    buf_init(&b, 0);
    voice_expr_print(e, &b);
    snprintf(text, sizeof text, "%s", b.data);
    buf_fini(&b);
    return text;
}

static const char *read(const char *text)
{
    struct voice_expr e;
    struct error err;
    enum status s = voice_expr_parse(text, BASE, &e, &err);
    if (s != STATUS_OK)
        fail_msg("\"%s\": %s", text, err.text);
    return canonical(&e);
}

static void canonical_forms(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"", ""},
        {"base", ""},
        {"none", ""}, /* as X-Adapter says it */
        {BASE, ""},
        {"base:", ""},
        {BASE ":base", ""},
        {BASE ":pt", "pt"},
        {"base:" BASE ":pt", "pt"},
        {"pt", "pt"},
        {"1*pt", "pt"},
        {"1.0*pt", "pt"},
        {"0.5*pt", "0.5*pt"},
        {".5*pt", "0.5*pt"},
        {"2.*pt", "2*pt"},
        {"100*pt", "100*pt"},
        {"-100*pt", "-100*pt"},
        {"1e1*pt", "10*pt"},
        {"1e+1*pt", "1e+pt"}, /* the adapter "1e" */
        {"1E-3*pt", "0.001*pt"},
        {"0.1*pt", "0.1*pt"},
        {"0.333333333333*pt", "0.33333334*pt"}, /* what the arithmetic has */
        {"safety+pt", "pt+safety"},
        {"pt + 0.5 * safety", "pt+0.5*safety"},
        {"pt  +  safety", "pt+safety"},
        {"pt+-0.5*safety", "pt+-0.5*safety"},
        {"pt+pt", "2*pt"},
        {"pt+base", "pt"},
        {"base:0.5*pt+0.25*pt", "0.75*pt"},
        {"pt+-1*pt", ""},
        {"0*pt", ""},
        {"0*pt+b", "b"},
        {"1e-60*pt", ""}, /* no float */
        {"pt@3", "pt@3"},
        {"pt@003", "pt@3"},
        {"0.5*pt@3+pt@1F2E3D4C", "pt@1f2e3d4c+0.5*pt@3"},
        {"pt@3+pt", "pt+pt@3"},
        {"pt@3+pt@03", "2*pt@3"},
        {"pt@12345678", "pt@12345678"}, /* a digest's beginning or a generation: the registry knows */
        {"0.5", "0.5"},                 /* names */
        {"0.5*0.5", "0.5*0.5"},
        {"1e3+2", "1e3+2"},
        {"b+a+c+b", "a+2*b+c"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(read(rows[i][0]), rows[i][1]) != 0)
            fail_msg("\"%s\": \"%s\", expected \"%s\"", rows[i][0], read(rows[i][0]), rows[i][1]);
        assert_string_equal(read(rows[i][1]), rows[i][1]);
    }
    struct voice_expr e;
    assert_int_equal(voice_expr_parse(NULL, BASE, &e, NULL), STATUS_OK);
    assert_int_equal(e.n, 0);
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum status status;
        const char *says;
    } rows[] = {
        {"other:pt", STATUS_NOT_FOUND, "other:pt"},
        {"pt:base", STATUS_NOT_FOUND, "pt:base"},
        {"base:a:b", STATUS_NOT_FOUND, "a:b"},
        {"a/b", STATUS_NOT_FOUND, "a/b"},
        {"../x", STATUS_NOT_FOUND, "../x"},
        {" pt", STATUS_NOT_FOUND, " pt"},
        {"pt ", STATUS_NOT_FOUND, "pt "},
        {"-pt", STATUS_NOT_FOUND, "-pt"},
        {"a b", STATUS_NOT_FOUND, "a b"},
        {"pt@", STATUS_INVALID, "no version"},
        {"@3", STATUS_NOT_FOUND, "no name"},
        {"pt@0", STATUS_INVALID, "no version"},
        {"pt@x", STATUS_INVALID, "\"x\""},
        {"pt@1f2e3d4", STATUS_INVALID, "8 to 64"},
        {"pt@3@4", STATUS_INVALID, "3@4"},
        {"pt@-3", STATUS_INVALID, "-3"},
        {"pt@11112222333344445555666677778888111122223333444455556666777788889", STATUS_INVALID, "8 to 64"},
        {"+", STATUS_INVALID, "character 1"},
        {"pt+", STATUS_INVALID, "character 4"},
        {"+pt", STATUS_INVALID, "character 1"},
        {"pt++b", STATUS_INVALID, "character 4"},
        {"pt+ +b", STATUS_INVALID, "character 5"},
        {"0.5*", STATUS_INVALID, "missing"},
        {"*pt", STATUS_INVALID, "0.5*pt"},
        {"pt*0.5", STATUS_INVALID, "number before"},
        {"0.5*0.5*pt", STATUS_INVALID, "number before"},
        {"0x10*pt", STATUS_INVALID, "number before"},
        {"inf*pt", STATUS_INVALID, "number before"},
        {"nan*pt", STATUS_INVALID, "number before"},
        {"--1*pt", STATUS_INVALID, "number before"},
        {"1,5*pt", STATUS_INVALID, "number before"},
        {"100.1*pt", STATUS_INVALID, "-100 to 100"},
        {"1e999*pt", STATUS_INVALID, "-100 to 100"},
        {"60*pt+60*pt", STATUS_INVALID, "120"},
        {"2*base", STATUS_INVALID, "weight"},
        {"pt+0.5*" BASE, STATUS_INVALID, "weight"},
        {"base@3", STATUS_INVALID, "versions"},
        {"0123456789012345678901234567890123456789012345678901234567890123456789", STATUS_NOT_FOUND, "012"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct voice_expr e;
        struct error err = {0};
        enum status s = voice_expr_parse(rows[i].text, BASE, &e, &err);
        if (s != rows[i].status || !strstr(err.text, rows[i].says))
            fail_msg("\"%s\": %s \"%s\"", rows[i].text, status_name(s), s ? err.text : canonical(&e));
    }
}

static void counts(void **state)
{
    (void)state;
    char text[2048] = "a";
    struct voice_expr e;
    struct error err;
    for (int i = 0; i < 200; i++)
        strcat(text, "+a");
    assert_int_equal(voice_expr_parse(text, BASE, &e, &err), STATUS_INVALID); /* 201 * a */
    text[0] = '\0';
    for (unsigned i = 0; i <= VOICE_TERMS_MAX; i++) {
        sprintf(text + strlen(text), "%s0*a%u", i ? "+" : "", i);
        assert_int_equal(voice_expr_parse(text, BASE, &e, &err),
                         i < VOICE_TERMS_MAX ? STATUS_OK : STATUS_INVALID);
    }
    assert_int_equal(voice_expr_parse("a+b+0*c+d", BASE, &e, &err), STATUS_OK);
    assert_int_equal(e.n, 4); /* a name of weight 0 must exist, too: whoever looks names up drops it */
    assert_int_equal(voice_expr_finish(&e, 3, &err), STATUS_OK);
    assert_int_equal(e.n, 3);
    assert_int_equal(voice_expr_finish(&e, 2, &err), STATUS_INVALID);
}

static void equal_voices(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool equal;
    } rows[] = {
        {"", "base", true},         {"", "0*pt", true},
        {"pt", "base:1*pt", true},  {"a+b", "b+a", true},
        {"a+0*c+b", "b + a", true}, {"0.1*a", "0.10000000001*a", true},
        {"pt", "", false},          {"pt", "pt@3", false},
        {"pt", "0.5*pt", false},    {"a+b", "a", false},
        {"a", "a+b", false},        {"a+0*b", "a+b", false},
        {"pt@3", "pt@0003", true},  {"x@ABCDEF01", "x@abcdef01", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct voice_expr a, b;
        assert_int_equal(voice_expr_parse(rows[i].a, BASE, &a, NULL), STATUS_OK);
        assert_int_equal(voice_expr_parse(rows[i].b, BASE, &b, NULL), STATUS_OK);
        assert_int_equal(voice_expr_equal(&a, &b), rows[i].equal);
        assert_int_equal(voice_expr_equal(&b, &a), rows[i].equal);
    }
}

static void sums_of_sums(void **state)
{
    (void)state;
    struct voice_expr a, b;
    struct error err;
    assert_int_equal(voice_expr_parse("pt+0.5*safety", BASE, &a, &err), STATUS_OK);
    assert_int_equal(voice_expr_parse("0.25*safety+z@2", BASE, &b, &err), STATUS_OK);
    assert_int_equal(voice_expr_add_all(&a, &b, 2, &err), STATUS_OK);
    assert_string_equal(canonical(&a), "pt+safety+2*z@2");
    assert_int_equal(voice_expr_add_all(&a, &b, 100, &err), STATUS_INVALID);
}

static uint64_t next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005U + 1442695040888963407U;
    return *seed >> 33;
}

/* Whatever is read has a text that reads back as the same voice; nothing else may happen. */
static void random_texts(void **state)
{
    (void)state;
    static const char *const pieces[] = {"pt",       "a",   "base",  ":",    "@",  "+",        "*",
                                         " ",        "0.5", "-",     "1e",   "12", "abcdef01", ".",
                                         "\xc3\xa9", "\n",  "1e-3*", "+b@7", "0"};
    uint64_t seed = 7;
    unsigned n_read = 0;
    for (unsigned round = 0; round < 200000; round++) {
        char text[160] = "";
        for (uint64_t i = next(&seed) % 9; i > 0; i--)
            strcat(text, pieces[next(&seed) % (sizeof pieces / sizeof pieces[0])]);
        char *exact = strdup(text); /* so that a read behind the end is seen */
        struct voice_expr e, again;
        struct error err;
        enum status s = voice_expr_parse(exact, BASE, &e, &err);
        if (s == STATUS_OK) {
            n_read++;
            for (uint32_t i = 1; i < e.n; i++)
                assert_true(strcmp(e.terms[i - 1].name, e.terms[i].name) < 0 ||
                            strcmp(e.terms[i - 1].pin, e.terms[i].pin) < 0);
            char *shown = strdup(canonical(&e));
            assert_int_equal(voice_expr_parse(shown, BASE, &again, &err), STATUS_OK);
            if (!voice_expr_equal(&e, &again))
                fail_msg("\"%s\" is not \"%s\"", text, shown);
            assert_string_equal(canonical(&again), shown);
            free(shown);
        } else {
            assert_true(s == STATUS_INVALID || s == STATUS_NOT_FOUND);
        }
        free(exact);
    }
    assert_true(n_read > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canonical_forms), cmocka_unit_test(refusals),     cmocka_unit_test(counts),
        cmocka_unit_test(equal_voices),    cmocka_unit_test(sums_of_sums), cmocka_unit_test(random_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
