/* Stop strings over streamed text: whatever the pieces, the result is that of the whole text. */
#include "tests/test.h"

#include <string.h>

#include "stop.h"

struct table {
    const char *text;
    const char *stops[4];
    bool include;
    const char *shown; /* expected */
    int32_t match;
};

static const struct table tables[] = {
    {"hello world", {"wor"}, false, "hello ", 0},
    {"hello world", {"wor"}, true, "hello wor", 0},
    {"hello world", {"xyz", "lo"}, false, "hel", 1},
    {"hello wo", {"world"}, false, "hello wo", -1},
    {"aaab", {"aab"}, false, "a", 0}, /* the search goes on inside a failed beginning */
    {"abababc", {"ababc"}, false, "ab", 0},
    {"say ab", {"b", "ab"}, false, "say ", 1},    /* ending together: the longest */
    {"say abc", {"abc", "b"}, false, "say a", 1}, /* what ends first */
    {"a\n\nb", {"\n\n"}, false, "a", 0},
    {"gr\xc3\xbc\xc3\x9f dich", {"\xc3\x9f"}, false, "gr\xc3\xbc", 0},
    {"\xf0\x9f\x9a\xb2\xf0\x9f\x9a\xb4", {"\xf0\x9f\x9a\xb4"}, true, "\xf0\x9f\x9a\xb2\xf0\x9f\x9a\xb4", 0},
    {"stop", {"stop"}, false, "", 0},
    {"", {"stop"}, false, "", -1},
    {"<|im_e<|im_end|>x", {"<|im_end|>"}, false, "<|im_e", 0},
};

static struct stop_strings strings_of(const struct table *t)
{
    struct stop_strings s = {t->stops, 0, t->include};
    while (s.n_strings < 4 && t->stops[s.n_strings])
        s.n_strings++;
    return s;
}

/* Feeds the text in pieces; the bits of `cuts` say after which bytes to cut (characters stay whole). */
static void check_pieces(const struct table *t, uint32_t cuts)
{
    struct stop_strings s = strings_of(t);
    struct stop_hold hold = {0};
    char shown[512], *at = shown;
    int32_t match = -1;
    size_t n = strlen(t->text), begin = 0;
    for (size_t end = 1; end <= n && match < 0; end++) {
        bool boundary = ((unsigned char)t->text[end] & 0xC0U) != 0x80U;
        if (end < n && (!boundary || !(cuts >> (end % 31) & 1U)))
            continue;
        struct stop_found found = stop_push(&hold, &s, t->text + begin, end - begin, at);
        at += found.n_shown;
        match = found.match;
        assert_true(hold.n_bytes < 16);
        begin = end;
    }
    assert_true(match < 0 || hold.n_bytes == 0);
    at += stop_end(&hold, at);
    assert_int_equal(hold.n_bytes, 0);
    *at = '\0';
    assert_string_equal(shown, t->shown);
    assert_int_equal(match, t->match);
}

static void pieces_make_no_difference(void **state)
{
    (void)state;
    uint32_t x = 1;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        check_pieces(&tables[i], 0);
        check_pieces(&tables[i], 0xffffffffU);
        for (int round = 0; round < 200; round++)
            check_pieces(&tables[i], (x = x * 1664525U + 1013904223U) >> 1);
    }
}

static void nothing_is_held_longer_than_needed(void **state)
{
    (void)state;
    const char *const stops[] = {"END"};
    const struct stop_strings s = {stops, 1, false};
    struct stop_hold hold = {0};
    char out[600];
    assert_int_equal(stop_push(&hold, &s, "xE", 2, out).n_shown, 1);
    assert_int_equal(stop_push(&hold, &s, "N", 1, out).n_shown, 0);
    assert_int_equal(stop_push(&hold, &s, "x", 1, out).n_shown, 3); /* "ENx" */
    assert_memory_equal(out, "ENx", 3);
    assert_int_equal(hold.n_bytes, 0);
}

static void the_longest_string_fits(void **state)
{
    (void)state;
    char longest[STOP_STRING_BYTES_MAX + 1], out[2 * STOP_STRING_BYTES_MAX];
    memset(longest, 'a', STOP_STRING_BYTES_MAX);
    longest[STOP_STRING_BYTES_MAX] = '\0';
    const char *const stops[] = {longest};
    const struct stop_strings s = {stops, 1, false};
    struct stop_hold hold = {0};
    for (uint32_t i = 0; i + 1 < STOP_STRING_BYTES_MAX; i++) {
        assert_int_equal(stop_push(&hold, &s, "a", 1, out).n_shown, 0);
        assert_int_equal(hold.n_bytes, i + 1);
    }
    struct stop_found found = stop_push(&hold, &s, "a", 1, out);
    assert_int_equal(found.n_shown, 0);
    assert_int_equal(found.match, 0);
    memset(out, 'b', sizeof out);
    hold.n_bytes = 0;
    assert_int_equal(stop_push(&hold, &s, longest, STOP_STRING_BYTES_MAX - 1, out).n_shown, 0);
    assert_int_equal(stop_push(&hold, &s, "b", 1, out).n_shown, STOP_STRING_BYTES_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_make_no_difference),
        cmocka_unit_test(nothing_is_held_longer_than_needed),
        cmocka_unit_test(the_longest_string_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
