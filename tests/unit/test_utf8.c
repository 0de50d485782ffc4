/* UTF-8 steps, repairs and the two questions of the door, on well-formed, ill-formed and cut text. */
#include "tests/test.h"

#include <string.h>

#include "text.h"
#include "utf8.h"

struct step {
    const char *bytes;
    unsigned taken;
    uint32_t code_point;
};

static void test_step(void **state)
{
    (void)state;
    static const struct step steps[] = {
        {"a", 1, 'a'},
        {"\xC3\xA9", 2, 0xE9},
        {"\xE2\x96\x81x", 3, 0x2581},
        {"\xF0\x9F\x98\x80", 4, 0x1F600},
        {"\xF4\x8F\xBF\xBF", 4, 0x10FFFF},
        {"\x80", 1, UTF8_BAD},             /* a continuation alone */
        {"\xC0\x80", 1, UTF8_BAD},         /* overlong */
        {"\xE0\x9F\xBF", 1, UTF8_BAD},     /* overlong */
        {"\xED\xA0\x80", 1, UTF8_BAD},     /* surrogate */
        {"\xF4\x90\x80\x80", 1, UTF8_BAD}, /* above U+10FFFF */
        {"\xF5", 1, UTF8_BAD},
        {"\xE2\x82!", 2, UTF8_BAD}, /* the good beginning is one piece */
        {"\xF0\x9F\x98!", 3, UTF8_BAD},
        {"\xC3", 1, UTF8_CUT},
        {"\xE2\x82", 2, UTF8_CUT},
        {"\xF0\x9F\x98", 3, UTF8_CUT},
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        uint32_t c = 0;
        assert_int_equal(utf8_step(steps[i].bytes, strlen(steps[i].bytes), &c), steps[i].taken);
        assert_int_equal(c, steps[i].code_point);
    }
}

static void test_every_code_point(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        char bytes[4];
        uint32_t back = 0;
        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        unsigned n = utf8_put(bytes, c);
        assert_int_equal(n, utf8_size((unsigned char)bytes[0]));
        assert_int_equal(utf8_step(bytes, n, &back), n);
        assert_int_equal(back, c);
    }
}

static void test_valid_prefix(void **state)
{
    (void)state;
    assert_int_equal(utf8_valid_prefix("", 0), 0);
    assert_int_equal(utf8_valid_prefix("plain text, long enough", 23), 23);
    assert_int_equal(utf8_valid_prefix("12345678\xC3\xA9z\xE2\x82", 13), 11); /* never half a character */
    assert_int_equal(utf8_valid_prefix("12345678\xFFzz", 11), 8);
    assert_true(utf8_is_valid("\0\0", 2));
    assert_false(utf8_is_valid("ab\xC3", 3));
}

static void check_repair(const char *bytes, size_t n, const char *want)
{
    struct buf out;
    buf_init(&out, 0);
    assert_true(utf8_append_repaired(&out, bytes, n));
    assert_string_equal(out.data, want);
    buf_fini(&out);
}

static void test_repair(void **state)
{
    (void)state;
    /* as Python's bytes.decode("utf-8", "replace") */
    check_repair("a\xFF\xFE z", 5, "a\xEF\xBF\xBD\xEF\xBF\xBD z");
    check_repair("\xF0\x9F\x98 x", 5, "\xEF\xBF\xBD x");
    check_repair("\xED\xA0\x80", 3, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    check_repair("ok\xE2\x82", 4, "ok\xEF\xBF\xBD");
    check_repair("", 0, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step),
        cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_valid_prefix),
        cmocka_unit_test(test_repair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
