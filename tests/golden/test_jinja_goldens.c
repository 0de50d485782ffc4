/* Single rules of the template language against transformers' environment: tests/golden/data/jinja.json,
 * which tests/fuzz/jinja_diff.py writes. With --lines the program renders the cases that it reads, for that
 * script. */
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/buf.h"
#include "text.h"

#define GOLDENS "tests/golden/data/jinja.json"
#define NOW INT64_C(1741523696789) /* 2025-03-09 12:34:56.789, as in jinja_diff.py */

/* "ok" with the text in out, or the stage that failed: "load" or "render", with the reason in out. */
static const char *render(const char *source, size_t length, const json_t *variables, struct buf *out,
                          struct error *err)
{
    struct chat_template *t;
    buf_init(out, 0);
    enum status status = chat_template_compile(source, length, "T", &t, err);
    if (status == STATUS_OK) {
        status = chat_template_render(t, variables, NOW, NULL, out, err);
        chat_template_destroy(t);
        if (status == STATUS_OK)
            return "ok";
        out->length = 0;
        buf_append(out, err->text, strlen(err->text));
        return status == STATUS_INVALID ? "render" : "bound";
    }
    buf_append(out, err->text, strlen(err->text));
    return status == STATUS_TOO_LARGE ? "bound" : "load";
}

/* ["template", {variables}] → ["stage", "text"] for each line. */
static int answer_lines(void)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    while ((n = getline(&line, &capacity, stdin)) > 0) {
        json_t *test = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL);
        const json_t *source = json_array_get(test, 0);
        struct buf out;
        struct error err = {0};
        if (!json_is_string(source))
            return 1;
        const char *stage = render(json_string_value(source), json_string_length(source),
                                   json_array_get(test, 1), &out, &err);
        json_t *answer = json_pack("[s, s%]", stage, out.data ? out.data : "", out.length);
        if (!answer || json_dumpf(answer, stdout, JSON_COMPACT | JSON_ENSURE_ASCII) != 0)
            return 1;
        putchar('\n');
        fflush(stdout);
        json_decref(answer);
        json_decref(test);
        buf_fini(&out);
    }
    free(line);
    return 0;
}

/* [template, text or null where it must be refused] */
static bool case_holds(const json_t *test, const json_t *variables)
{
    const json_t *source = json_array_get(test, 0), *expected = json_array_get(test, 1);
    struct buf out;
    struct error err = {0};
    const char *stage = render(json_string_value(source), json_string_length(source), variables, &out, &err);
    bool ok = strcmp(stage, "ok") == 0;
    bool holds = json_is_string(expected) ? ok && out.length == json_string_length(expected) &&
                                                memcmp(out.data, json_string_value(expected), out.length) == 0
                                          : !ok;
    if (!holds)
        print_message("%s\n  expected %s\n  got      %s: %.*s\n", json_string_value(source),
                      json_is_string(expected) ? json_string_value(expected) : "a refusal", stage,
                      (int)out.length, out.data ? out.data : "");
    buf_fini(&out);
    return holds;
}

static void single_rules_render_as_transformers_does(void **state)
{
    (void)state;
    json_error_t where;
    json_t *goldens = json_load_file(GOLDENS, JSON_ALLOW_NUL, &where), *test;
    unsigned n_failed = 0;
    size_t i;
    if (!goldens)
        print_message("%s: line %d: %s\n", GOLDENS, where.line, where.text);
    assert_non_null(goldens);
    assert_true(json_array_size(json_object_get(goldens, "cases")) > 100);
    json_array_foreach(json_object_get(goldens, "cases"), i, test) n_failed +=
        !case_holds(test, json_object_get(goldens, "variables"));
    json_decref(goldens);
    assert_int_equal(n_failed, 0);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--lines") == 0)
        return answer_lines();
    const struct CMUnitTest tests[] = {cmocka_unit_test(single_rules_render_as_transformers_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
