/* The stream against the whole: characters in pieces, bytes that never become one, leading spaces, special
 * tokens, for each kind of decoder; random ids too. */
#include "tests/test.h"

#include <stdlib.h>

#include "made_tokenizers.h"

/* All output of a stream; each push must be whole characters. */
static const char *stream(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip, struct buf *out)
{
    struct detokenizer d;
    char *room = malloc(detokenizer_bound(t));
    buf_clear(out);
    detokenizer_init(&d, t, skip);
    for (size_t i = 0; i <= n; i++) {
        size_t made = i < n ? detokenizer_push(&d, ids[i], room) : detokenizer_end(&d, room);
        assert_true(made <= detokenizer_bound(t));
        assert_true(utf8_is_valid(room, made));
        assert_true(buf_append(out, room, made));
    }
    free(room);
    return out->data;
}

static void check(const struct tokenizer *t, const int32_t *ids, size_t n, const char *want)
{
    struct buf whole, parts;
    buf_init(&whole, 0);
    buf_init(&parts, 0);
    assert_int_equal(tokenizer_decode(t, ids, n, false, &whole, NULL), STATUS_OK);
    assert_string_equal(whole.data, want);
    assert_string_equal(stream(t, ids, n, false, &parts), want);
    buf_fini(&whole);
    buf_fini(&parts);
}

#define CHECK(t, want, ...)                                                                                  \
    check(t, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t), want)

/* One token for each byte, in GPT-2's alphabet: the id is the byte; then "<|end|>" (special) and "wo rd". */
static struct tokenizer *open_byte_level(void)
{
    struct buf b;
    buf_init(&b, 0);
    buf_puts(&b, "{\"decoder\":{\"type\":\"ByteLevel\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_"
                 "prefix_space\":false},"
                 "\"added_tokens\":[{\"id\":256,\"content\":\"<|end|>\",\"special\":true},"
                 "{\"id\":257,\"content\":\"wo rd\",\"special\":false}],"
                 "\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    unsigned next = 0x100;
    for (unsigned i = 0; i < 256; i++) {
        bool printable = (i > 0x20 && i < 0x7F) || (i >= 0xA1 && i != 0xAD);
        buf_printf(&b, "%s\"\\u%04x\":%u", i ? "," : "", printable ? i : next++, i);
    }
    buf_puts(&b, "}}}");
    struct tokenizer *t = open_json(b.data);
    buf_fini(&b);
    return t;
}

static struct tokenizer *open_fallback(const char *decoder)
{
    struct buf b;
    buf_init(&b, 0);
    buf_puts(&b, "{\"added_tokens\":[{\"id\":260,\"content\":\"<s>\",\"special\":true}],"
                 "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"merges\":[],\"vocab\":{");
    put_byte_tokens(&b);
    buf_printf(&b, ",\"" MARK "\":256,\"" MARK "a\":257,\"b\":258,\"" MARK MARK "\":259}},\"decoder\":%s}",
               decoder);
    struct tokenizer *t = open_json(b.data);
    buf_fini(&b);
    return t;
}

#define LLAMA                                                                                                \
    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"" MARK             \
    "\"},\"content\":\" \"},"                                                                                \
    "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" "                    \
    "\",\"start\":1,\"stop\":0}]}"

static void test_byte_level(void **state)
{
    (void)state;
    struct tokenizer *t = open_byte_level();
    CHECK(t, "h\xC3\xA9", 'h', 0xC3, 0xA9);
    CHECK(t, "\xF0\x9F\x98\x80!", 0xF0, 0x9F, 0x98, 0x80, '!');
    CHECK(t, "a\xEF\xBF\xBD", 'a', 0xE2, 0x82); /* cut: one piece, one U+FFFD */
    CHECK(t, "\xEF\xBF\xBDz\xEF\xBF\xBD", 0xF0, 0x9F, 'z', 0xFF);
    CHECK(t, "\xEF\xBF\xBD<|end|>\xEF\xBF\xBD", 0xE2, 256, 0x82);
    CHECK(t, "wo rd", 257); /* a character outside the alphabet: the token is its own text */
    tokenizer_destroy(t);
}

static void test_unfinished_waits(void **state)
{
    (void)state;
    struct tokenizer *t = open_byte_level();
    struct detokenizer d;
    char *room = malloc(detokenizer_bound(t));
    detokenizer_init(&d, t, false);
    assert_int_equal(detokenizer_push(&d, 0xF0, room), 0);
    assert_int_equal(detokenizer_push(&d, 0x9F, room), 0);
    assert_int_equal(detokenizer_push(&d, 0x98, room), 0);
    assert_int_equal(detokenizer_push(&d, 0x80, room), 4);
    assert_memory_equal(room, "\xF0\x9F\x98\x80", 4);
    assert_int_equal(detokenizer_push(&d, 999, room), 0); /* no such token: nothing */
    assert_int_equal(detokenizer_end(&d, room), 0);
    free(room);
    tokenizer_destroy(t);
}

static void test_kept_tokens_are_shown(void **state)
{
    (void)state;
    struct tokenizer *t = open_byte_level();
    struct detokenizer d;
    const int32_t kept[] = {300, 256};
    char *room = malloc(detokenizer_bound(t));
    detokenizer_init(&d, t, true);
    assert_int_equal(detokenizer_push(&d, 256, room), 0);
    d.kept = kept;
    d.n_kept = 1;
    assert_int_equal(detokenizer_push(&d, 256, room), 0);
    d.n_kept = 2;
    assert_int_equal(detokenizer_push(&d, 256, room), 7);
    assert_memory_equal(room, "<|end|>", 7);
    free(room);
    tokenizer_destroy(t);
}

static void test_fallback(void **state)
{
    (void)state;
    struct tokenizer *t = open_fallback(LLAMA);
    size_t n;
    CHECK(t, "a ab", 257, 257, 258);
    CHECK(t, "", 256);
    CHECK(t, " ", 259);
    CHECK(t, "b a", 258, 257); /* only a space at the very start is stripped */
    CHECK(t, "\xC3\xA9", 256, 0xC3, 0xA9);
    CHECK(t,
          "\xEF\xBF\xBD\xEF\xBF\xBD"
          "b",
          0xE2, 0x82, 258); /* a run that is no text: U+FFFD for each byte */
    CHECK(t, "<s> a", 260, 257);
    assert_memory_equal(tokenizer_piece(t, 257, &n), " a", 2);
    assert_int_equal(n, 2);
    assert_memory_equal(tokenizer_piece(t, 0xC3, &n), "\xC3", 1);
    tokenizer_destroy(t);
}

static void test_skip_special(void **state)
{
    (void)state;
    struct tokenizer *t = open_fallback(LLAMA);
    const int32_t ids[] = {260, 257, 260, 258};
    struct buf whole, parts;
    buf_init(&whole, 0);
    buf_init(&parts, 0);
    assert_int_equal(tokenizer_decode(t, ids, 4, true, &whole, NULL), STATUS_OK);
    assert_string_equal(whole.data, "ab");
    assert_string_equal(stream(t, ids, 4, true, &parts), "ab");
    buf_fini(&whole);
    buf_fini(&parts);
    tokenizer_destroy(t);
}

/* A normalised special token has the text that normalising made, and is hidden only if that is special too.
 */
static void test_normalised_special(void **state)
{
    (void)state;
    struct tokenizer *t = open_json(
        "{\"normalizer\":{\"type\":\"Lowercase\"},\"decoder\":{\"type\":\"Fuse\"},\"added_tokens\":["
        "{\"id\":1,\"content\":\"<S>\",\"special\":true,\"normalized\":true},"
        "{\"id\":2,\"content\":\"<t>\",\"special\":true,\"normalized\":true}],"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}");
    const int32_t ids[] = {1, 0, 2};
    struct buf whole, parts;
    buf_init(&whole, 0);
    buf_init(&parts, 0);
    assert_int_equal(tokenizer_decode(t, ids, 3, true, &whole, NULL), STATUS_OK);
    assert_string_equal(whole.data, "<s>a");
    assert_string_equal(stream(t, ids, 3, true, &parts), "<s>a");
    assert_true(tokenizer_is_special(t, 1));
    buf_fini(&whole);
    buf_fini(&parts);
    tokenizer_destroy(t);
}

static void test_metaspace(void **state)
{
    (void)state;
    struct tokenizer *t =
        open_fallback("{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",\"prepend_scheme\":\"always\"}");
    CHECK(t, "a ab", 257, 257, 258);
    CHECK(t, " a", 256, 257); /* the first token loses its marks, even if nothing is left of it */
    tokenizer_destroy(t);
    t = open_fallback("{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",\"prepend_scheme\":\"never\"}");
    CHECK(t, " ab", 257, 258);
    tokenizer_destroy(t);
}

static void test_no_decoder(void **state)
{
    (void)state;
    struct tokenizer *t = open_fallback("null");
    CHECK(t, "b " MARK "a <s>", 258, 257, 260);
    tokenizer_destroy(t);
}

static void test_out_of_range(void **state)
{
    (void)state;
    struct tokenizer *t = open_fallback(LLAMA);
    struct buf out;
    struct error err;
    buf_init(&out, 0);
    assert_int_equal(tokenizer_decode(t, (const int32_t[]){1, 261}, 2, false, &out, &err), STATUS_INVALID);
    assert_string_equal(err.text, "token id 261 is out of range; ids go from 0 to 260");
    assert_int_equal(tokenizer_decode(t, (const int32_t[]){-1}, 1, false, &out, &err), STATUS_INVALID);
    assert_int_equal(out.length, 0);
    buf_init(&out, 3);
    assert_int_equal(tokenizer_decode(t, (const int32_t[]){258, 258, 258, 258}, 4, false, &out, &err),
                     STATUS_TOO_LARGE);
    buf_fini(&out);
    tokenizer_destroy(t);
}

static void test_random_ids(void **state)
{
    (void)state;
    struct tokenizer *t = open_byte_level();
    struct buf whole, parts;
    uint32_t seed = 7;
    buf_init(&whole, 0);
    buf_init(&parts, 0);
    for (int round = 0; round < 2000; round++) {
        int32_t ids[24];
        for (int i = 0; i < 24; i++) {
            seed = seed * 1664525U + 1013904223U;
            uint32_t r = seed >> 8;
            ids[i] = (int32_t)(r % 4 == 0 ? r / 4 % 258 : r % 4 == 1 ? 0xC0 + r / 4 % 64 : 0x80 + r / 4 % 64);
        }
        buf_clear(&whole);
        assert_int_equal(tokenizer_decode(t, ids, 24, false, &whole, NULL), STATUS_OK);
        assert_string_equal(stream(t, ids, 24, false, &parts), whole.data);
    }
    buf_fini(&whole);
    buf_fini(&parts);
    tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_byte_level),
        cmocka_unit_test(test_unfinished_waits),
        cmocka_unit_test(test_kept_tokens_are_shown),
        cmocka_unit_test(test_fallback),
        cmocka_unit_test(test_skip_special),
        cmocka_unit_test(test_metaspace),
        cmocka_unit_test(test_no_decoder),
        cmocka_unit_test(test_out_of_range),
        cmocka_unit_test(test_random_ids),
        cmocka_unit_test(test_normalised_special),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
