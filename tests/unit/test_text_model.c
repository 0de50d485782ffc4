/* All of a model's text, from folders and GGUF files made here: which file wins, what is said when one is
 * missing or wrong, and tokenizers from GGUF metadata. */
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "format.h"
#include "made_files.h"
#include "made_tokenizers.h"

static const char tokenizer_json[] =
    "{\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true},{\"id\":4,\"content\":\"</"
    "s>\",\"special\":true}],"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
    "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<s>\":{\"ids\":[3]}}},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}";

static enum status open_folder(const struct folder *f, struct text_model **m, struct error *err)
{
    struct model_files files = {.dir_fd = f->fd};
    snprintf(files.path, sizeof files.path, "%s", f->path);
    files.config.bos_token = 3;
    files.config.n_eos = 1;
    files.config.eos_tokens[0] = 4;
    *m = NULL;
    err->text[0] = '\0';
    return text_model_open(&files, m, err);
}

static struct text_model *open_good(const struct folder *f)
{
    struct text_model *m;
    struct error err;
    if (open_folder(f, &m, &err) != STATUS_OK)
        print_error("%s\n", err.text);
    assert_non_null(m);
    return m;
}

static void check_bad(const struct folder *f, enum status status, const char *said)
{
    struct text_model *m;
    struct error err;
    assert_int_equal(open_folder(f, &m, &err), status);
    if (!strstr(err.text, said))
        print_error("%s\n", err.text);
    assert_non_null(strstr(err.text, said));
    assert_null(m);
}

static void test_folder(void **state)
{
    (void)state;
    struct folder f = folder_make();
    put_text(f.path, "tokenizer.json", tokenizer_json);
    struct text_model *m = open_good(&f); /* nothing else there: config.json's ids */
    assert_string_equal(m->bos_text, "<s>");
    assert_string_equal(m->eos_text, "</s>");
    assert_int_equal(m->bos_token, 3);
    assert_int_equal(m->eos_token, 4);
    assert_true(m->add_bos);
    assert_null(m->chat_template);
    assert_string_equal(ENCODE_SPECIAL(m->tokenizer, "ab"), "3 2");
    text_model_close(m);

    put_text(f.path, "special_tokens_map.json", "{\"bos_token\":\"b\",\"eos_token\":{\"content\":\"ab\"}}");
    m = open_good(&f);
    assert_int_equal(m->bos_token, 1);
    assert_int_equal(m->eos_token, 2);
    assert_false(m->add_bos);
    text_model_close(m);

    put_text(f.path, "tokenizer_config.json",
             "{\"bos_token\":null,\"eos_token\":{\"content\":\"</s>\",\"special\":true}}");
    m = open_good(&f);
    assert_string_equal(m->bos_text, "");
    assert_int_equal(m->bos_token, -1);
    assert_int_equal(m->eos_token, 4);
    text_model_close(m);
    folder_remove(&f);
}

/* A file of the folder's additional_chat_templates. */
static void put_more(const struct folder *f, const char *name, const char *text)
{
    char path[600];
    snprintf(path, sizeof path, "%s/additional_chat_templates", f->path);
    mkdir(path, 0700);
    put_text(path, name, text);
}

static void test_templates(void **state)
{
    (void)state;
    struct folder f = folder_make();
    put_text(f.path, "tokenizer.json", tokenizer_json);
    put_text(f.path, "tokenizer_config.json", "{\"chat_template\":\"config {{ bos_token }}\"}");
    struct text_model *m = open_good(&f);
    assert_non_null(m->chat_template);
    assert_string_equal(m->chat_template_source, "config {{ bos_token }}");
    text_model_close(m);
    put_text(f.path, "tokenizer_config.json",
             "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"t\"},{\"name\":\"default\","
             "\"template\":\"d\"}]}");
    m = open_good(&f);
    assert_string_equal(m->chat_template_source, "d");
    assert_non_null(m->tool_template);
    assert_ptr_equal(text_model_template(m, true), m->tool_template);
    assert_ptr_equal(text_model_template(m, false), m->chat_template);
    text_model_close(m);
    put_text(f.path, "tokenizer_config.json",
             "{\"chat_template\":[{\"name\":\"default\",\"template\":\"d\"},{\"name\":\"rag\",\"template\":"
             "\"{% if "
             "%}\"},{\"name\":\"default\",\"template\":\"later\"}]}");
    m = open_good(&f);
    assert_string_equal(m->chat_template_source, "later");
    assert_ptr_equal(text_model_template(m, true), m->chat_template);
    text_model_close(m);
    put_text(f.path, "tokenizer_config.json",
             "{\"chat_template\":[{\"name\":\"default\",\"template\":\"d\"},{\"name\":\"tool_use\","
             "\"template\":\"{{ "
             "x|nope }}\"}]}");
    check_bad(&f, STATUS_UNSUPPORTED, "tool_use: line 1, column 6: No filter named 'nope'");
    put_text(f.path, "tokenizer_config.json", "{\"chat_template\":[{\"name\":\"default\"}]}");
    check_bad(&f, STATUS_FORMAT, "entry 0: expected {name, template}");
    put_text(f.path, "chat_template.json", "{\"chat_template\":\"own json\"}");
    m = open_good(&f);
    assert_string_equal(m->chat_template_source, "own json");
    text_model_close(m);
    put_text(f.path, "chat_template.jinja", "own jinja");
    m = open_good(&f);
    assert_string_equal(m->chat_template_source, "own jinja");
    assert_null(m->tool_template);
    text_model_close(m);
    put_more(&f, "tool_use.jinja", "with tools");
    m = open_good(&f);
    assert_string_equal(m->chat_template_source, "own jinja");
    assert_ptr_equal(text_model_template(m, true), m->tool_template);
    assert_non_null(m->tool_template);
    text_model_close(m);
    put_more(&f, "tool_use.jinja", "{{ 1 + }}");
    check_bad(&f, STATUS_FORMAT, "tool_use.jinja: line 1, column 8");
    put_text(f.path, "chat_template.jinja", "{% if %}");
    check_bad(&f, STATUS_FORMAT, "chat_template.jinja");
    folder_remove(&f);
}

static void test_bad_folders(void **state)
{
    (void)state;
    struct folder f = folder_make();
    check_bad(&f, STATUS_NOT_FOUND, "no tokenizer.json; expected one beside config.json");
    put_text(f.path, "tokenizer.model", "\n");
    check_bad(&f, STATUS_NOT_FOUND, "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)");
    put_text(f.path, "tokenizer.json", "{}");
    check_bad(&f, STATUS_FORMAT, "tokenizer.json: model: expected an object");
    put_text(f.path, "tokenizer.json", tokenizer_json);
    put_text(f.path, "tokenizer_config.json", "{");
    check_bad(&f, STATUS_FORMAT, "tokenizer_config.json");
    put_text(f.path, "tokenizer_config.json", "{\"chat_template\":7}");
    check_bad(&f, STATUS_FORMAT, "chat_template: expected a text");
    put_text(f.path, "tokenizer_config.json", "{\"chat_template\":[{\"name\":\"x\",\"template\":\"t\"}]}");
    check_bad(&f, STATUS_FORMAT, "without one named \"default\"");
    put_text(f.path, "tokenizer_config.json",
             "{\"bos_token\":\"0123456789012345678901234567890123456789012345678901234567890123\"}");
    check_bad(&f, STATUS_TOO_LARGE, "bos_token: 64 bytes");
    folder_remove(&f);
}

/* ---- GGUF */

static void put_texts(struct buf *b, const char *key, const char *const *texts, uint64_t n)
{
    put_gguf_key(b, key, 9);
    put_u32(b, 8);
    put_u64(b, n);
    for (uint64_t i = 0; i < n; i++)
        put_gguf_string(b, texts[i]);
}

static void put_words(struct buf *b, const char *key, uint32_t type, const void *values, uint64_t n)
{
    put_gguf_key(b, key, 9);
    put_u32(b, type);
    put_u64(b, n);
    assert_true(buf_append(b, values, n * 4));
}

#define KEY "tokenizer.ggml."
static const char *const level_tokens[] = {"a", "b", "ab", "\xC4\xA0", "<end>", "<u>"};
static const int32_t level_types[] = {1, 1, 1, 1, 3, 4};
static const char *const level_merges[] = {"a b"};

static void put_level(struct buf *b, const char *pre)
{
    put_gguf_text(b, KEY "model", "gpt2");
    put_gguf_text(b, KEY "pre", pre);
    put_texts(b, KEY "tokens", level_tokens, 6);
    put_words(b, KEY "token_type", 5, level_types, 6);
    put_texts(b, KEY "merges", level_merges, 1);
    put_gguf_u32(b, KEY "bos_token_id", 4);
}

/* Opens the metadata in b, written behind a front of `n_pairs`. */
static struct gguf *open_gguf(const struct folder *f, const struct buf *pairs, uint64_t n_pairs)
{
    struct buf b;
    struct gguf *g = NULL;
    struct error err = {.text = ""};
    buf_init(&b, 0);
    put_gguf_front(&b, 3, 0, n_pairs);
    assert_true(buf_append(&b, pairs->data, pairs->length));
    put_gguf_padding(&b, 32);
    put_file(f->path, "t.gguf", b.data, b.length);
    if (gguf_open_at(f->fd, f->path, "t.gguf", NULL, &g, &err) != STATUS_OK)
        print_error("%s\n", err.text);
    assert_non_null(g);
    buf_fini(&b);
    return g;
}

static void test_gguf_level(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct buf b;
    buf_init(&b, 0);
    put_level(&b, "llama-bpe");
    put_gguf_text(&b, "tokenizer.chat_template", "hi");
    put_gguf_text(&b, "tokenizer.chat_template.tool_use", "tools");
    struct gguf *g = open_gguf(&f, &b, 8);
    struct model_files files = {.path = "t.gguf", .gguf = g, .dir_fd = -1};
    struct text_model *m = NULL;
    struct error err = {.text = ""};
    assert_int_equal(text_model_open(&files, &m, &err), STATUS_OK);
    assert_string_equal(ENCODE_SPECIAL(m->tokenizer, "ab<u> a<end>"), "4 2 5 3 0 4");
    assert_true(m->add_bos); /* llama-bpe's own rule */
    assert_int_equal(m->bos_token, 4);
    assert_string_equal(m->bos_text, "<end>");
    assert_int_equal(m->eos_token, -1);
    assert_string_equal(m->chat_template_source, "hi");
    assert_non_null(m->tool_template);
    assert_true(tokenizer_is_special(m->tokenizer, 4));
    assert_false(tokenizer_is_special(m->tokenizer, 5));
    text_model_close(m);
    gguf_close(g);
    buf_fini(&b);
    folder_remove(&f);
}

static void put_sentencepiece(struct buf *b, const float *scores)
{
    static const char *const tokens[] = {"<unk>", "<s>",    "</s>", MARK,     "a", "b",
                                         "ab",    MARK "a", "ba",   "<0x21>", "  "};
    static const int32_t types[] = {2, 3, 3, 1, 1, 1, 1, 1, 1, 6, 4};
    put_gguf_text(b, KEY "model", "llama");
    put_texts(b, KEY "tokens", tokens, 11);
    put_words(b, KEY "token_type", 5, types, 11);
    put_words(b, KEY "scores", 6, scores, 11);
}

static void test_gguf_scores(void **state)
{
    (void)state;
    /* ab before ba before _a */
    static const float scores[] = {0, 0, 0, -9, -9, -9, -1, -3, -2, 0, -1000};
    struct folder f = folder_make();
    struct buf b, out;
    struct tokenizer *t = NULL;
    buf_init(&b, 0);
    buf_init(&out, 0);
    put_sentencepiece(&b, scores);
    struct gguf *g = open_gguf(&f, &b, 4);
    assert_int_equal(tokenizer_from_gguf(g, &t, NULL), STATUS_OK);
    assert_string_equal(ENCODE(t, "ab"), "3 6");
    assert_string_equal(ENCODE(t, "aba"), "3 6 4");
    assert_string_equal(ENCODE(t, "a ba"), "7 3 8");
    assert_string_equal(ENCODE(t, "a!"), "7 9");
    assert_string_equal(ENCODE(t, "a?"), "7 0");        /* no byte for it */
    assert_string_equal(ENCODE(t, "b  b"), "3 5 10 5"); /* two spaces are a token of their own */
    assert_string_equal(ENCODE_SPECIAL(t, "a</s>a"), "1 7 2 7");
    assert_string_equal(round_trip(t, "ab  a b!", &out), "ab  a b!");
    tokenizer_destroy(t);
    gguf_close(g);
    buf_fini(&b);
    buf_fini(&out);
    folder_remove(&f);
}

struct bad_gguf {
    enum status status;
    const char *said;
    void (*put)(struct buf *b, uint64_t *n_pairs);
};

static void put_nothing(struct buf *b, uint64_t *n)
{
    put_gguf_text(b, "general.name", "x");
    *n = 1;
}
static void put_bert(struct buf *b, uint64_t *n)
{
    put_gguf_text(b, KEY "model", "bert");
    *n = 1;
}
static void put_unknown_pre(struct buf *b, uint64_t *n)
{
    put_level(b, "klingon");
    *n = 6;
}
static void put_bad_bos(struct buf *b, uint64_t *n)
{
    put_level(b, "gpt-2");
    put_gguf_u32(b, KEY "eos_token_id", 6);
    *n = 7;
}
static void put_twice(struct buf *b, uint64_t *n)
{
    static const char *const tokens[] = {"a", "a"};
    put_gguf_text(b, KEY "model", "gpt2");
    put_texts(b, KEY "tokens", tokens, 2);
    *n = 2;
}
static void put_few_types(struct buf *b, uint64_t *n)
{
    put_gguf_text(b, KEY "model", "gpt2");
    put_texts(b, KEY "tokens", level_tokens, 6);
    put_words(b, KEY "token_type", 5, level_types, 5);
    *n = 3;
}
static void put_no_scores(struct buf *b, uint64_t *n)
{
    put_gguf_text(b, KEY "model", "llama");
    put_texts(b, KEY "tokens", level_tokens, 6);
    *n = 2;
}
static void put_not_finite(struct buf *b, uint64_t *n)
{
    static const float scores[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, INFINITY};
    put_sentencepiece(b, scores);
    *n = 4;
}
static void put_bad_merge(struct buf *b, uint64_t *n)
{
    static const char *const merges[] = {"b a"};
    put_gguf_text(b, KEY "model", "gpt2");
    put_texts(b, KEY "tokens", level_tokens, 6);
    put_texts(b, KEY "merges", merges, 1);
    *n = 3;
}
static void put_half_character(struct buf *b, uint64_t *n)
{
    static const char *const tokens[] = {"\xC4"};
    put_gguf_text(b, KEY "model", "gpt2");
    put_texts(b, KEY "tokens", tokens, 1);
    *n = 2;
}

static void test_bad_gguf(void **state)
{
    (void)state;
    static const struct bad_gguf bad[] = {
        {STATUS_NOT_FOUND, KEY "model", put_nothing},
        {STATUS_UNSUPPORTED, "\"bert\" is not supported", put_bert},
        {STATUS_UNSUPPORTED, "the pre-tokenizer \"klingon\" is not known", put_unknown_pre},
        {STATUS_UNSUPPORTED, " gpt-2 starcoder tekken ", put_unknown_pre}, /* what is known */
        {STATUS_FORMAT, KEY "eos_token_id: id 6 is out of range", put_bad_bos},
        {STATUS_FORMAT, "\"a\" has two ids, 0 and 1", put_twice},
        {STATUS_FORMAT, KEY "token_type: 5 values for 6 tokens", put_few_types},
        {STATUS_NOT_FOUND, KEY "scores", put_no_scores},
        {STATUS_FORMAT, KEY "scores[10]: expected a finite number", put_not_finite},
        {STATUS_FORMAT, KEY "merges[0]: the token \"ba\" is not in", put_bad_merge},
        {STATUS_FORMAT, KEY "tokens[0]: it is not UTF-8", put_half_character},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct folder f = folder_make();
        struct buf b;
        uint64_t n = 0;
        struct error err = {.text = ""};
        struct tokenizer *t = NULL;
        buf_init(&b, 0);
        bad[i].put(&b, &n);
        struct gguf *g = open_gguf(&f, &b, n);
        enum status s = tokenizer_from_gguf(g, &t, &err);
        if (s != bad[i].status || !strstr(err.text, bad[i].said))
            print_error("%s: %s\n  expected %s\n", status_name(s), err.text, bad[i].said);
        assert_int_equal(s, bad[i].status);
        assert_non_null(strstr(err.text, bad[i].said));
        assert_null(t);
        gguf_close(g);
        buf_fini(&b);
        folder_remove(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folder),      cmocka_unit_test(test_templates),
        cmocka_unit_test(test_bad_folders), cmocka_unit_test(test_gguf_level),
        cmocka_unit_test(test_gguf_scores), cmocka_unit_test(test_bad_gguf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
