/* Made tokenizers, one for each kind of step, against what the reference tokenizer made of the same texts:
 * tokenizer_cases.py writes the file. Another file of that form may be named: test_tokenizer_cases FILE. */
#include "tests/test.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "text.h"
#include "token_stream.h"

static const char *cases_path = "tests/golden/data/tokenizer_cases.json";

/* The file of one case: its model and its steps. */
static struct tokenizer *open_case(const json_t *models, const json_t *c)
{
    struct tokenizer *t = NULL;
    struct error err = {.text = ""};
    json_t *file = json_copy(json_object_get(c, "steps"));
    json_object_set(file, "model", json_object_get(models, json_string_value(json_object_get(c, "model"))));
    char *text = json_dumps(file, JSON_COMPACT);
    assert_non_null(text);
    if (tokenizer_from_json(text, strlen(text), "case", &t, &err) != STATUS_OK)
        print_error("%s\n", err.text);
    free(text);
    json_decref(file);
    return t;
}

static bool same_ids(const struct token_list *got, const json_t *want)
{
    bool same = got->n_ids == json_array_size(want);
    for (size_t i = 0; i < got->n_ids && same; i++)
        same = got->ids[i] == json_integer_value(json_array_get(want, i));
    return same;
}

static bool encodes(const struct tokenizer *t, const json_t *text, bool special, const json_t *want,
                    struct token_list *ids)
{
    struct encode_options o = {.parse_special = true, .add_special = special};
    ids->n_ids = 0;
    return tokenizer_encode(t, json_string_value(text), json_string_length(text), &o, ids, NULL) ==
               STATUS_OK &&
           same_ids(ids, want);
}

static bool decodes(const struct tokenizer *t, const struct token_list *ids, bool skip, const json_t *want)
{
    struct buf whole, parts;
    buf_init(&whole, 0);
    buf_init(&parts, 0);
    bool same =
        tokenizer_decode(t, ids->ids, ids->n_ids, skip, &whole, NULL) == STATUS_OK && same_text(&whole, want);
    stream(t, ids, skip, &parts);
    /* half characters of byte tokens are shown by a stream in its own way (text.h) */
    if (same && !strstr(json_string_value(want), "\xEF\xBF\xBD"))
        same = parts.length == whole.length && memcmp(parts.data, whole.data, whole.length) == 0;
    buf_fini(&whole);
    buf_fini(&parts);
    return same;
}

static int check_text(const struct tokenizer *t, const json_t *line)
{
    const json_t *text = json_object_get(line, "s"), *ids = json_object_get(line, "ids"),
                 *special = json_object_get(line, "sp"), *shown = json_object_get(line, "dec"),
                 *hidden = json_object_get(line, "skip");
    struct token_list got = {.ids = NULL};
    const char *wrong = NULL;
    if (!encodes(t, text, false, ids, &got))
        wrong = "ids";
    else if (!encodes(t, text, true, special ? special : ids, &got))
        wrong = "ids with special tokens";
    else if (!decodes(t, &got, false, shown))
        wrong = "decoding";
    else if (!decodes(t, &got, true, hidden ? hidden : shown))
        wrong = "decoding without special tokens";
    if (wrong)
        print_error("%s of \"%s\"\n", wrong, json_string_value(text));
    token_list_fini(&got);
    return wrong != NULL;
}

static void test_cases(void **state)
{
    (void)state;
    json_error_t where;
    json_t *root = json_load_file(cases_path, JSON_ALLOW_NUL, &where);
    const json_t *cases = json_object_get(root, "cases"), *c, *line;
    size_t i, k, n_texts = 0;
    int n_wrong = 0;
    assert_non_null(root);
    json_array_foreach(cases, i, c)
    {
        struct tokenizer *t = open_case(json_object_get(root, "models"), c);
        int before = n_wrong;
        n_wrong += t == NULL;
        json_array_foreach(json_object_get(c, "texts"), k, line)
        {
            n_wrong += t ? check_text(t, line) : 0;
            n_texts++;
        }
        if (n_wrong > before) {
            char *steps = json_dumps(json_object_get(c, "steps"), JSON_COMPACT | JSON_ENSURE_ASCII);
            print_error("  case %zu: %s, %s\n", i, json_string_value(json_object_get(c, "model")), steps);
            free(steps);
        }
        tokenizer_destroy(t);
    }
    print_message("%zu tokenizers, %zu texts, %d wrong\n", i, n_texts, n_wrong);
    assert_true(n_texts > 0);
    assert_int_equal(n_wrong, 0);
    json_decref(root);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases)};
    if (argc > 1)
        cases_path = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
