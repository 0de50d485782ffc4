/* core/format: JSON by our rules. */
#include "tests/test.h"

#include <jansson.h>

#include "format.h"
#include "tests/unit/made_files.h"

static void malformed_json_gets_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t depth;
        const char *error;
    } cases[] = {
        {"", 8, "f.json:1:"},
        {"3", 8, "f.json:1:1: '[' or '{' expected"},
        {"{\"a\":1,\n \"a\":2}", 8, "f.json:2:"},
        {"{\"a\":1,}", 8, "f.json:1:"},
        {"{\"a\":1} x", 8, "f.json:1:9: end of file expected"},
        {"{\"a\":\"\xff\"}", 8, "unable to decode byte 0xff"},
        {"{\"a\":\"\\u0000\"}", 8, "\\u0000"},
        {"{\"a\":1e400}", 8, "real number overflow"},
        {"{\"a\":99999999999999999999}", 8, "too big integer"},
        {"[[[[1]]]]", 3, "f.json:1:4: nested deeper than 3 levels"},
        {"{\"a\":\n [{\"b\":[1]}]}", 3, "f.json:2:8: nested deeper than 3"},
        {"[1", 8, "f.json:1:"},
        {"\"[[[[\\\"[[[\"", 1, "f.json:1:"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err = {0};
        json_t *j = (json_t *)1;
        enum status s = json_parse(cases[i].text, strlen(cases[i].text), "f.json", cases[i].depth, &j, &err);
        if (s != STATUS_FORMAT || j || !strstr(err.text, cases[i].error))
            fail_msg("%s: got %s '%s', expected '%s'", cases[i].text, status_name(s), err.text,
                     cases[i].error);
    }
}

static void brackets_in_strings_have_no_depth(void **state)
{
    (void)state;
    static const char text[] = "{\"[[[\\\"[[\\\\\":[\"]]{{{\"]}";
    json_t *j;
    struct error err;
    assert_int_equal(json_parse(text, sizeof text - 1, "f", 2, &j, &err), STATUS_OK);
    assert_string_equal(json_string_value(json_array_get(json_object_get(j, "[[[\"[[\\"), 0)), "]]{{{");
    json_decref(j);
}

static void a_very_deep_text_costs_no_stack(void **state)
{
    (void)state;
    size_t n = 4U << 20;
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, '[', n);
    json_t *j;
    struct error err;
    assert_int_equal(json_parse(text, n, "f", 64, &j, &err), STATUS_FORMAT);
    assert_string_equal(err.text, "f:1:65: nested deeper than 64 levels");
    free(text);
}

static void files_are_bounded(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct error err;
    json_t *j;
    put_text(f.path, "c.json", "{\"k\": [1, 2]}");
    assert_int_equal(json_read_at(f.fd, f.path, "c.json", 100, &j, &err), STATUS_OK);
    assert_int_equal(json_array_size(json_object_get(j, "k")), 2);
    json_decref(j);
    assert_int_equal(json_read_at(f.fd, f.path, "c.json", 5, &j, &err), STATUS_TOO_LARGE);
    assert_null(j);
    assert_int_equal(json_read_at(f.fd, f.path, "absent.json", 5, &j, &err), STATUS_NOT_FOUND);
    put_text(f.path, "c.json", "{\"k\": }");
    assert_int_equal(json_read_at(f.fd, f.path, "c.json", 100, &j, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.text, "/c.json:1:"));
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_json_gets_its_place),
        cmocka_unit_test(brackets_in_strings_have_no_depth),
        cmocka_unit_test(a_very_deep_text_costs_no_stack),
        cmocka_unit_test(files_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
