/* adapter.yaml: what it says, and what is refused by name. */
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "bundle.h"
#include "text.h"

static struct adapter_bundle *parse(const char *text)
{
    struct adapter_bundle *b = NULL;
    struct error err;
    if (bundle_parse(text, strlen(text), "a/adapter.yaml", &b, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return b;
}

static void everything_is_read(void **state)
{
    (void)state;
    struct adapter_bundle *b = parse("description: a shop's voice\n"
                                     "languages: [pt, es]\n"
                                     "system_prompt: |\n  Responda curto.\n"
                                     "sampling:\n  temperature: 0.5\n  top_k: 40\n  max_tokens: 200\n"
                                     "stop: ['###', fim]\n"
                                     "chat_template: \"{{ messages[0].content }}!\"\n"
                                     "tool_format: hermes\n"
                                     "context: 2048\n"
                                     "grammar: root ::= [a-z]+\n"
                                     "locked: [temperature, system_prompt, grammar]\n");
    assert_string_equal(b->description, "a shop's voice");
    assert_string_equal(b->system_prompt, "Responda curto.\n");
    assert_int_equal(json_array_size(b->languages), 2);
    assert_true(json_real_value(json_object_get(b->defaults, "temperature")) == 0.5);
    assert_int_equal(json_integer_value(json_object_get(b->defaults, "top_k")), 40);
    assert_int_equal(json_array_size(json_object_get(b->defaults, "stop")), 2);
    assert_string_equal(json_string_value(json_object_get(b->defaults, "grammar")), "root ::= [a-z]+");
    assert_int_equal(b->context, 2048);
    assert_int_equal(json_array_size(b->locked), 3);
    assert_string_equal(b->tool_format, "hermes");
    assert_non_null(json_object_get(b->json, "sampling"));
    struct buf out;
    struct error err;
    json_t *variables = json_pack("{s:[{s:s,s:s}]}", "messages", "role", "user", "content", "Oi");
    buf_init(&out, 0);
    assert_int_equal(chat_template_render(b->chat_template, variables, 0, NULL, &out, &err), STATUS_OK);
    assert_string_equal(out.data, "Oi!");
    buf_fini(&out);
    json_decref(variables);
    bundle_free(b);
    b = parse("description: only that\n");
    assert_null(b->chat_template);
    assert_int_equal(json_object_size(b->defaults), 0);
    bundle_free(b);
    bundle_free(NULL);
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "empty"},
        {"- a\n", "line 1"},
        {"colour: red\n", "colour"},
        {"sampling:\n  heat: 1\n", "heat"},
        {"sampling:\n  temperature: hot\n", "temperature: found \"hot\", expected a number from 0 to 100"},
        {"sampling:\n  temperature: nan\n", "temperature: found"},
        {"sampling:\n  top_p: 1.5\n", "top_p: found \"1.5\""},
        {"sampling:\n  top_k: 1.5\n", "a whole number from -1"},
        {"context: 0\n", "context: found \"0\""},
        {"stop: ['']\n", "stop: a string has 0 bytes"},
        {"grammar: x\nregex: y\n", "at most one of them"},
        {"json_schema: '[1]'\n", "json_schema: not a JSON object"},
        {"json_schema: '{'\n", "json_schema: not a JSON object"},
        {"locked: [temperature]\n", "\"temperature\" is nothing that is given here"},
        {"locked: [system_prompt]\n", "\"system_prompt\" is nothing"},
        {"chat_template: \"{% if %}\"\n", "chat_template"},
        {"description: a\ndescription: b\n", "description"},
        {"description: [a]\n", "line 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct adapter_bundle *b = NULL;
        struct error err;
        assert_true(bundle_parse(cases[i][0], strlen(cases[i][0]), "a/adapter.yaml", &b, &err) != STATUS_OK);
        assert_null(b);
        if (!strstr(err.text, cases[i][1]) || !strstr(err.text, "a/adapter.yaml"))
            fail_msg("%s\nsays: %s\nwithout: %s", cases[i][0], err.text, cases[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_read),
        cmocka_unit_test(what_is_wrong_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
