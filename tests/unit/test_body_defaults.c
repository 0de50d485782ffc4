/* Fields that have several names: each is found, none is looked for beyond the last one. */
#include "../test.h"

#include <string.h>

#include "api_grammar.h"
#include "body_defaults.h"

static void each_name_says_it(void **state)
{
    static const char *const same[][2] = {
        {"max_tokens", "n_predict"},    {"max_tokens", "max_completion_tokens"},
        {"stop", "stop_sequences"},     {"n", "n_cmpl"},
        {"grammar", "grammar"},         {"grammar", "regex"},
        {"grammar", "response_format"}, {"grammar", "functions"},
        {"temperature", "temperature"}};
    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        json_t *body = json_pack("{s:i}", same[i][1], 5);
        assert_int_equal(json_integer_value(body_says(body, same[i][0])), 5);
        json_t *seven = json_integer(7);
        assert_true(body_put(body, same[i][0], seven));
        assert_int_equal(json_object_size(body), 1);
        assert_int_equal(json_integer_value(json_object_get(body, same[i][0])), 7);
        json_decref(seven);
        json_decref(body);
    }
}

/* The field with the most names, too: what stands behind its table is no name. */
static void nothing_is_said_by_an_empty_body(void **state)
{
    static const char *const keys[] = {"max_tokens", "repetition_penalty", "stop", "n", "grammar", "seed"};
    (void)state;
    json_t *body = json_pack("{s:{s:s}}", "response_format", "type", "text");
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_null(body_says(body, keys[i]));
    json_decref(body);
}

/* A default grammar must not stand beside one that a request brings under another name. */
static void each_field_of_a_grammar_says_one(void **state)
{
    size_t n = 0;
    (void)state;
    for (const char *field; (field = grammar_field(n)) != NULL; n++) {
        json_t *body = json_pack("{s:i}", field, 5);
        if (!body_says(body, "grammar"))
            fail_msg("%s is no name of a grammar in body_defaults.c", field);
        json_decref(body);
    }
    assert_true(n >= 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_name_says_it),
                                       cmocka_unit_test(nothing_is_said_by_an_empty_body),
                                       cmocka_unit_test(each_field_of_a_grammar_says_one)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
