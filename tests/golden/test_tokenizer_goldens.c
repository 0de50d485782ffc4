/* Real vocabularies against what the reference tokenizer made of the same texts: ids, ids with special
 * tokens, decoded text with and without special tokens; and the stream against the whole. Every NAME.json of
 * ../shared/goldens/tokenizers is taken, with tokenizer_files/NAME/tokenizer.json.xz or tiny_tokenizers/.
 * Skips without ../shared. */
#include "tests/test.h"

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "format.h"
#include "text.h"
#include "token_stream.h"

#define GOLDENS "../shared/goldens"

static const struct encode_options plain = {.parse_special = true};
static const struct encode_options special = {.parse_special = true, .add_special = true};

static bool unpack(const char *path, struct buf *out)
{
    char command[512], chunk[65536];
    size_t n;
    snprintf(command, sizeof command, "xz -dc %s 2>/dev/null", path);
    FILE *f = popen(command, "r");
    if (!f)
        return false;
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        buf_append(out, chunk, n);
    return pclose(f) == 0 && out->length > 0;
}

static bool read_vocabulary(const char *name, struct buf *out)
{
    char path[256];
    if (strncmp(name, "tiny_", 5) == 0) {
        snprintf(path, sizeof path, GOLDENS "/tiny_tokenizers/%s/tokenizer.json", name + 5);
        return file_read_all(path, 1 << 26, out, NULL) == STATUS_OK;
    }
    snprintf(path, sizeof path, GOLDENS "/tokenizer_files/%s/tokenizer.json.xz", name);
    return unpack(path, out);
}

/* One text's outcome, collected so that a failure shows the text and both results. */
struct outcome {
    const char *tokenizer;
    const json_t *text;
    int n_wrong;
};

static void report(struct outcome *o, const char *what)
{
    o->n_wrong++;
    print_error("%s: %s of \"%s\"\n", o->tokenizer, what, json_string_value(o->text));
}

/* `want` holds the ids, "..." standing for those without special tokens. */
static bool same_ids(const struct token_list *got, const json_t *want, const json_t *inner)
{
    size_t at = 0;
    for (size_t i = 0; i < json_array_size(want); i++) {
        const json_t *v = json_array_get(want, i);
        size_t n = json_is_string(v) ? json_array_size(inner) : 1;
        for (size_t k = 0; k < n; k++, at++) {
            const json_t *id = json_is_string(v) ? json_array_get(inner, k) : v;
            if (at >= got->n_ids || got->ids[at] != json_integer_value(id))
                return false;
        }
    }
    return at == got->n_ids;
}

static void check_decoding(struct outcome *o, const struct tokenizer *t, const struct token_list *ids,
                           bool skip, const json_t *want)
{
    struct buf whole, streamed;
    struct error err = {.text = ""};
    buf_init(&whole, 0);
    buf_init(&streamed, 0);
    if (tokenizer_decode(t, ids->ids, ids->n_ids, skip, &whole, &err) != STATUS_OK ||
        !same_text(&whole, want)) {
        report(o, skip ? "decoding without special tokens" : "decoding");
        print_error("  got \"%s\" %s\n", whole.data, err.text);
    }
    stream(t, ids, skip, &streamed);
    if (streamed.length != whole.length || memcmp(streamed.data, whole.data, whole.length) != 0)
        report(o, "streaming");
    buf_fini(&whole);
    buf_fini(&streamed);
}

static void check_case(struct outcome *o, const struct tokenizer *t, const json_t *c)
{
    const json_t *ids = json_object_get(c, "ids"), *sp = json_object_get(c, "sp"),
                 *dec = json_object_get(c, "dec");
    const json_t *skip = json_object_get(c, "dec_skip");
    const char *text = json_string_value(json_object_get(c, "s"));
    size_t length = json_string_length(json_object_get(c, "s"));
    struct token_list got = {.ids = NULL}, with = {.ids = NULL};
    struct error err = {.text = ""};
    o->text = json_object_get(c, "s");
    if (tokenizer_encode(t, text, length, &plain, &got, &err) != STATUS_OK || !same_ids(&got, ids, NULL)) {
        report(o, "ids");
        for (size_t i = 0; i < got.n_ids; i++)
            print_error(" %d", got.ids[i]);
        print_error("\n  %s\n", err.text);
    }
    if (tokenizer_encode(t, text, length, &special, &with, &err) != STATUS_OK ||
        !same_ids(&with, sp ? sp : ids, ids))
        report(o, "ids with special tokens");
    dec = dec ? dec : o->text;
    check_decoding(o, t, &got, false, dec);
    check_decoding(o, t, &got, true, skip ? skip : dec);
    token_list_fini(&got);
    token_list_fini(&with);
}

static int check_file(const char *name, const char *path)
{
    struct buf json;
    struct tokenizer *t = NULL;
    struct error err = {.text = ""};
    json_t *golden = json_load_file(path, JSON_ALLOW_NUL, NULL);
    const json_t *cases = json_object_get(golden, "cases");
    struct outcome o = {.tokenizer = name};
    buf_init(&json, 1 << 27);
    assert_non_null(golden);
    assert_true(json_array_size(cases) > 0);
    if (!read_vocabulary(name, &json)) {
        print_message("%s: no vocabulary (is xz there?), left out\n", name);
    } else if (tokenizer_from_json(json.data, json.length, name, &t, &err) != STATUS_OK) {
        print_error("%s\n", err.text);
        o.n_wrong++;
    } else {
        int64_t size = json_integer_value(json_object_get(golden, "vocab_size"));
        assert_int_equal(tokenizer_n_tokens(t), size);
        for (size_t i = 0; i < json_array_size(cases); i++)
            check_case(&o, t, json_array_get(cases, i));
        print_message("%s: %zu texts, %d wrong\n", name, json_array_size(cases), o.n_wrong);
    }
    tokenizer_destroy(t);
    buf_fini(&json);
    json_decref(golden);
    return o.n_wrong;
}

static void test_reference(void **state)
{
    (void)state;
    DIR *dir = opendir(GOLDENS "/tokenizers");
    const struct dirent *e;
    int n_wrong = 0;
    if (!dir) {
        print_message("no " GOLDENS ", skipped\n");
        skip();
    }
    while ((e = readdir(dir)) != NULL) {
        char name[64], path[512];
        size_t length = strlen(e->d_name);
        if (length < 6 || length > 60 || strcmp(e->d_name + length - 5, ".json") != 0)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)length - 5, e->d_name);
        snprintf(path, sizeof path, GOLDENS "/tokenizers/%s", e->d_name);
        n_wrong += check_file(name, path);
    }
    closedir(dir);
    assert_int_equal(n_wrong, 0);
}

/* The same vocabularies as GGUF metadata give the same ids. Qwen 2's has none of the tokens that Qwen 3
 * added. */
static struct tokenizer *open_packed_gguf(const char *name)
{
    struct tokenizer *t = NULL;
    struct gguf *g = NULL;
    struct error err = {.text = ""};
    struct buf bytes;
    char path[256], made[] = "/tmp/lorikeet-vocab-XXXXXX";
    buf_init(&bytes, 1 << 28);
    snprintf(path, sizeof path, "../shared/bench/vocab/%s.gguf.xz", name);
    int fd = unpack(path, &bytes) ? mkstemp(made) : -1;
    if (fd >= 0) {
        assert_int_equal(write(fd, bytes.data, bytes.length), (ssize_t)bytes.length);
        close(fd);
        if (gguf_open(made, NULL, &g, &err) != STATUS_OK || tokenizer_from_gguf(g, &t, &err) != STATUS_OK)
            print_error("%s\n", err.text);
        assert_non_null(t);
        gguf_close(g);
        unlink(made);
    }
    buf_fini(&bytes);
    return t;
}

static void check_gguf(const char *vocabulary, const char *golden)
{
    char path[256];
    size_t n_same = 0, n_cases = 0;
    snprintf(path, sizeof path, GOLDENS "/tokenizers/%s.json", golden);
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, NULL);
    struct tokenizer *t = root ? open_packed_gguf(vocabulary) : NULL;
    const json_t *cases = json_object_get(root, "cases");
    for (size_t i = 0; t && i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        const char *text = json_string_value(json_object_get(c, "s"));
        struct token_list got = {.ids = NULL};
        if (strstr(text, "<think>") || strstr(text, "<tool_"))
            continue;
        assert_int_equal(
            tokenizer_encode(t, text, json_string_length(json_object_get(c, "s")), &plain, &got, NULL),
            STATUS_OK);
        n_cases++;
        n_same += same_ids(&got, json_object_get(c, "ids"), NULL);
        token_list_fini(&got);
    }
    if (t)
        print_message("%s.gguf: %zu of %zu texts\n", vocabulary, n_same, n_cases);
    tokenizer_destroy(t);
    json_decref(root);
    assert_int_equal(n_same, n_cases);
}

static void test_gguf(void **state)
{
    (void)state;
    check_gguf("llama-bpe", "llama3_1");
    check_gguf("qwen2", "qwen3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reference), cmocka_unit_test(test_gguf)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
