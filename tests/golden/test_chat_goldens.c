/* Chat templates of many models against what transformers renders: ../shared/goldens/chat, byte for byte, and
 * the reason where the template or Python refuses. Skipped where that folder is absent. */
#include "tests/test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "base/buf.h"
#include "text.h"

#define FOLDER "../shared/goldens/chat"

struct tally {
    unsigned n_cases, n_failed;
};

static json_t *load(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", FOLDER, name);
    return json_load_file(path, 0, NULL);
}

/* "2025-03-09T12:34:56" as milliseconds. */
static int64_t clock_of(const json_t *index)
{
    struct tm tm = {0};
    const char *now = json_string_value(json_object_get(index, "now"));
    assert_non_null(strptime(now, "%Y-%m-%dT%H:%M:%S", &tm));
    return (int64_t)timegm(&tm) * 1000;
}

/* What apply_chat_template passes: the conversation, and null for tools and documents that aren't there. */
static json_t *variables_of(json_t *golden, json_t *test, json_t *index)
{
    const char *name = json_string_value(json_object_get(test, "conv"));
    json_t *conversation = json_object_get(json_object_get(index, "conversations"), name);
    json_t *tools = json_object_get(conversation, "tools");
    json_t *v = json_object();
    json_object_update(v, json_object_get(golden, "special_tokens"));
    json_object_set(v, "messages", json_object_get(conversation, "messages"));
    json_object_set(v, "tools", tools ? tools : json_null());
    json_object_set_new(v, "documents", json_null());
    json_object_set(v, "add_generation_prompt", json_object_get(test, "gen"));
    json_object_update(v, json_object_get(test, "kwargs"));
    return v;
}

/* The golden's "TypeError: text": our error has place and class before the text, raise_exception's nothing.
 */
static bool same_error(const char *ours, const char *golden)
{
    const char *colon = strstr(golden, ": ");
    const char *text = colon ? colon + 2 : golden;
    if (strncmp(golden, "TemplateError: ", 15) == 0)
        return strcmp(ours, text) == 0;
    return strstr(ours, text) != NULL;
}

static bool case_holds(const struct chat_template *t, json_t *test, json_t *variables, int64_t now)
{
    const char *out = json_string_value(json_object_get(test, "out"));
    const char *error = json_string_value(json_object_get(test, "error"));
    struct error err = {0};
    struct buf text;
    buf_init(&text, 0);
    enum status status = chat_template_render(t, variables, now, NULL, &text, &err);
    bool ok = error ? status == STATUS_INVALID && same_error(err.text, error)
                    : status == STATUS_OK && strcmp(text.data, out) == 0;
    if (!ok)
        print_message("conv %s: expected %s, got %s [%s]\n", json_string_value(json_object_get(test, "conv")),
                      error ? error : out, text.data, err.text);
    buf_fini(&text);
    return ok;
}

static void run_file(const char *name, json_t *index, struct tally *tally)
{
    json_t *golden = load(name), *test;
    assert_non_null(golden);
    const char *source = json_string_value(json_object_get(golden, "template"));
    struct chat_template *t = NULL;
    struct error err = {0};
    size_t i;
    if (chat_template_compile(source, strlen(source), name, &t, &err) != STATUS_OK)
        print_message("%s\n", err.text);
    json_array_foreach(json_object_get(golden, "cases"), i, test)
    {
        json_t *variables = variables_of(golden, test, index);
        bool ok = t && case_holds(t, test, variables, clock_of(index));
        if (!ok)
            print_message("%s, case %zu differs\n", name, i);
        tally->n_cases++;
        tally->n_failed += !ok;
        json_decref(variables);
    }
    chat_template_destroy(t);
    json_decref(golden);
}

static void templates_render_as_transformers_does(void **state)
{
    (void)state;
    DIR *folder = opendir(FOLDER);
    if (!folder) {
        print_message("no %s: skipped\n", FOLDER);
        skip();
    }
    json_t *index = load("index.json");
    assert_non_null(index);
    struct tally tally = {0};
    for (struct dirent *e; (e = readdir(folder));)
        if (strstr(e->d_name, ".json") && strcmp(e->d_name, "index.json") != 0)
            run_file(e->d_name, index, &tally);
    closedir(folder);
    json_decref(index);
    print_message("%u cases, %u differ\n", tally.n_cases, tally.n_failed);
    assert_true(tally.n_cases > 0);
    assert_int_equal(tally.n_failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(templates_render_as_transformers_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
