/* A table of tokenizer.json files that must not load, and a word of the sentence that each gets: malformed
 * ones, and those that ask for what we don't do. */
#include "tests/test.h"

#include <string.h>

#include "made_tokenizers.h"

struct bad_file {
    enum status status;
    const char *json, *said; /* part of the message */
};

#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"
#define WITH(part) "{" part "," MODEL "}"
#define BPE(part) "{\"model\":{\"type\":\"BPE\"," part "}}"
#define NEST10(s) s s s s s s s s s s

static const struct bad_file files[] = {
    {STATUS_FORMAT, "", "test:"},
    {STATUS_FORMAT, "[]", "model: expected an object"},
    {STATUS_FORMAT, "{\"model\":[]}", "model: expected an object"},
    {STATUS_FORMAT, "{\"model\":{},\"model\":{}}", "model"},
    {STATUS_FORMAT, "{\"a\":" NEST10("[[[[[") NEST10("]]]]]") "," MODEL "}", "nested deeper than 24"},
    {STATUS_UNSUPPORTED, "{\"version\":\"2.0\"," MODEL "}", "version: \"2.0\" is not known"},
    {STATUS_UNSUPPORTED, "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}",
     "model.type: \"WordPiece\" is not supported"},
    {STATUS_FORMAT, "{\"model\":{\"type\":\"BPE\",\"vocab\":[]}}", "model.vocab: expected an object"},
    {STATUS_FORMAT, "{\"model\":{\"type\":\"Unigram\",\"vocab\":{}}}", "model.vocab: expected a list"},
    /* ids */
    {STATUS_FORMAT, BPE("\"vocab\":{\"a\":\"0\"},\"merges\":[]"), "model.vocab: expected an id"},
    {STATUS_FORMAT, BPE("\"vocab\":{\"a\":1.5},\"merges\":[]"), "model.vocab: expected an id"},
    {STATUS_FORMAT, BPE("\"vocab\":{\"a\":-1},\"merges\":[]"), "id -1 is out of range"},
    {STATUS_FORMAT, BPE("\"vocab\":{\"a\":2147483648},\"merges\":[]"), "id 2147483648 is out of range"},
    {STATUS_FORMAT, BPE("\"vocab\":{\"a\":3,\"b\":3},\"merges\":[]"), "id 3 belongs to both \"a\" and \"b\""},
    {STATUS_FORMAT, WITH("\"added_tokens\":[{\"id\":1,\"content\":\"x\"}]"),
     "id 1 belongs to both \"b\" and \"x\""},
    {STATUS_FORMAT, WITH("\"added_tokens\":[{\"content\":\"x\"}]"), "added_tokens[0].id: expected an id"},
    {STATUS_FORMAT, WITH("\"added_tokens\":[{\"id\":3}]"), "added_tokens[0].content: expected a text"},
    {STATUS_FORMAT, WITH("\"added_tokens\":[{\"id\":3,\"content\":\"x\"},{\"id\":3,\"content\":\"x\"}]"),
     "is added twice"},
    {STATUS_FORMAT, WITH("\"added_tokens\":{}"), "added_tokens: expected a list"},
    /* merges */
    {STATUS_FORMAT, BPE("\"vocab\":{\"a\":0}"), "model.merges: expected a list"},
    {STATUS_FORMAT, BPE("\"vocab\":{\"a\":0},\"merges\":[\"a x\"]"),
     "model.merges[0]: the token \"x\" is not in model.vocab"},
    {STATUS_FORMAT, BPE("\"vocab\":{\"a\":0,\"b\":1},\"merges\":[[\"a\",\"b\"]]"),
     "model.merges[0]: the token \"ab\" is not in model.vocab"},
    {STATUS_FORMAT, BPE("\"vocab\":{\"a\":0},\"merges\":[\"a\"]"),
     "expected two tokens with one space between them"},
    {STATUS_FORMAT, BPE("\"vocab\":{\"a\":0},\"merges\":[\"a b c\"]"),
     "expected two tokens with one space between them"},
    {STATUS_FORMAT, BPE("\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]"),
     "model.merges[0]: expected \"left right\""},
    {STATUS_FORMAT, BPE("\"vocab\":{\"a\":0},\"merges\":[7]"), "model.merges[0]: expected \"left right\""},
    /* settings */
    {STATUS_FORMAT, BPE("\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"?\""),
     "model.unk_token: \"?\" is not in model.vocab"},
    {STATUS_FORMAT, BPE("\"vocab\":{\"a\":0},\"merges\":[],\"byte_fallback\":1"),
     "model.byte_fallback: expected true"},
    {STATUS_UNSUPPORTED, BPE("\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1"), "model.dropout"},
    {STATUS_FORMAT, "{\"model\":{\"type\":\"Unigram\",\"unk_id\":5,\"vocab\":[[\"a\",-1]]}}",
     "model.unk_id: 5 is no token"},
    {STATUS_FORMAT, "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}",
     "model.vocab[0]: expected [text, score]"},
    {STATUS_FORMAT, "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1],[\"a\",-2]]}}",
     "\"a\" has two ids, 0 and 1"},
    /* steps */
    {STATUS_UNSUPPORTED, WITH("\"normalizer\":{\"type\":\"Precompiled\"}"),
     "normalizer: type \"Precompiled\" is not supported"},
    {STATUS_FORMAT, WITH("\"normalizer\":{}"), "normalizer.type: expected a text"},
    {STATUS_FORMAT, WITH("\"normalizer\":[]"), "normalizer.type: expected a text"},
    {STATUS_FORMAT, WITH("\"normalizer\":{\"type\":\"Sequence\"}"),
     "normalizer.normalizers: expected a list"},
    {STATUS_UNSUPPORTED,
     WITH("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":"
          "\"Precompiled\"}]}"),
     "normalizer.normalizers[1]: type \"Precompiled\""},
    {STATUS_FORMAT, WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":\"a\",\"content\":\"\"}"),
     "normalizer.pattern: expected {\"String\": text}"},
    {STATUS_FORMAT,
     WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}"),
     "not empty"},
    {STATUS_FORMAT, WITH("\"normalizer\":{\"type\":\"Strip\",\"strip_left\":\"yes\"}"),
     "normalizer.strip_left: expected true or false"},
    {STATUS_UNSUPPORTED, WITH("\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}"),
     "pre_tokenizer: type \"UnicodeScripts\""},
    {STATUS_FORMAT,
     WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Merged\"}"),
     "pre_tokenizer.behavior: expected Isolated"},
    {STATUS_FORMAT, WITH("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}"),
     "replacement: expected one character"},
    {STATUS_FORMAT,
     WITH("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\","
          "\"add_prefix_space\":false}"),
     "prepend_scheme: expected never"},
    {STATUS_FORMAT,
     WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"},\"behavior\":\"Isolated\"}"),
     "pre_tokenizer: pattern, character 3: a group without its closing parenthesis"},
    {STATUS_UNSUPPORTED,
     WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?<n>a)\\\\k<n>\"},\"behavior\":"
          "\"Isolated\"}"),
     "this kind of group is not supported"},
    {STATUS_FORMAT,
     WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{Klingon}\"},\"behavior\":"
          "\"Isolated\"}"),
     "unknown property"},
    {STATUS_UNSUPPORTED, WITH("\"post_processor\":{\"type\":\"Mystery\"}"),
     "post_processor: type \"Mystery\""},
    {STATUS_FORMAT, WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}"),
     "around one Sequence A"},
    {STATUS_FORMAT,
     WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}]"
          "}"),
     "special_tokens: expected each SpecialToken"},
    {STATUS_FORMAT,
     WITH(
         "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}],"
         "\"special_tokens\":{\"x\":{\"ids\":[9]}}}"),
     "expected the id of a token"},
    {STATUS_UNSUPPORTED, WITH("\"decoder\":{\"type\":\"WordPiece\"}"), "decoder: type \"WordPiece\""},
    {STATUS_UNSUPPORTED,
     WITH("\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"ByteFallback\"}]"
          "}"),
     "decoder.decoders[1]: ByteFallback behind"},
    {STATUS_UNSUPPORTED,
     WITH("\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Strip\","
          "\"content\":\" \","
          "\"start\":0,\"stop\":1}]}"),
     "Strip at the end of the whole text"},
    {STATUS_FORMAT, WITH("\"decoder\":{\"type\":\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0}"),
     "start: expected a number"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct tokenizer *t = NULL;
        struct error err = {.text = ""};
        enum status s = tokenizer_from_json(files[i].json, strlen(files[i].json), "test", &t, &err);
        if (s != files[i].status || !strstr(err.text, files[i].said))
            print_error("%s\n  %s: %s\n  expected %s: …%s…\n", files[i].json, status_name(s), err.text,
                        status_name(files[i].status), files[i].said);
        assert_int_equal(s, files[i].status);
        assert_non_null(strstr(err.text, files[i].said));
        assert_true(strncmp(err.text, "test", 4) == 0); /* the file is named first */
        assert_null(t);
    }
}

static void test_deep_sequences(void **state)
{
    (void)state;
    struct buf b;
    struct error err;
    struct tokenizer *t = NULL;
    buf_init(&b, 0);
    buf_puts(&b, "{" MODEL ",\"normalizer\":");
    for (int i = 0; i < 10; i++)
        buf_puts(&b, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 10; i++)
        buf_puts(&b, "]}");
    buf_puts(&b, "}");
    assert_int_equal(tokenizer_from_json(b.data, b.length, "test", &t, &err), STATUS_TOO_LARGE);
    assert_non_null(strstr(err.text, "Sequence in Sequence"));
    buf_clear(&b);
    buf_puts(&b, "{" MODEL ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}");
    for (int i = 0; i < 40; i++)
        buf_puts(&b, ",{\"type\":\"NFC\"}");
    buf_puts(&b, "]}}");
    assert_int_equal(tokenizer_from_json(b.data, b.length, "test", &t, &err), STATUS_TOO_LARGE);
    assert_non_null(strstr(err.text, "more than 24 steps"));
    buf_fini(&b);
}

/* A good file, cut at every place and with each byte changed, must load or be refused, never crash. */
static void test_damaged(void **state)
{
    (void)state;
    static const char good[] =
        WITH("\"added_tokens\":[{\"id\":3,\"content\":\"<x>\",\"special\":true}],"
             "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[a&&[^b]]+\"},\"content\":\"\"},"
             "\"decoder\":{\"type\":\"ByteLevel\"}");
    char copy[sizeof good];
    for (size_t i = 0; i < sizeof good - 1; i++) {
        struct tokenizer *t = NULL;
        assert_true(tokenizer_from_json(good, i, "test", &t, NULL) != STATUS_OK);
        for (int c = 1; c < 128; c += 7) {
            memcpy(copy, good, sizeof good);
            copy[i] = (char)(copy[i] ^ c);
            t = NULL;
            if (tokenizer_from_json(copy, sizeof good - 1, "test", &t, NULL) == STATUS_OK)
                tokenizer_destroy(t);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_deep_sequences),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
