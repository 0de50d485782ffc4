/* The split patterns that are matched by hand against PCRE2 on the same texts: every character between
 * letters, digits and spaces, and random strings of what the patterns speak of. And the words that a call
 * remembers. */
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "made_tokenizers.h"
#include "tokenizer_inner.h"
#include "utf8.h"

static const char *const patterns[] = {
    byte_level_pattern,
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
};
enum { N_PATTERNS = sizeof patterns / sizeof *patterns };

static void show(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        print_error(" %02x", (unsigned char)text[i]);
    print_error("\n");
}

/* Walks both ways over a text. */
static void compare(const struct pattern *by_hand, const char *text, size_t length)
{
    struct pattern compiled = *by_hand;
    struct text_ref ref = {text, (uint32_t)length};
    struct matcher a, b;
    struct span x = {0, 0}, y = {0, 0};
    int more, wanted;
    compiled.word_end = NULL;
    struct regex_state *state = regex_state_create();
    assert_non_null(state);
    regex_state_expect_newer(state);
    assert_true(matcher_init(&a, by_hand, ref, state));
    assert_true(matcher_init(&b, &compiled, ref, state));
    do {
        more = matcher_next(&a, &x);
        wanted = matcher_next(&b, &y);
        if (more != wanted || x.start != y.start || x.end != y.end) {
            print_error("%zu-%zu, expected %zu-%zu, in", x.start, x.end, y.start, y.end);
            show(text, length);
        }
        assert_int_equal(more, wanted);
        assert_int_equal(x.start, y.start);
        assert_int_equal(x.end, y.end);
    } while (more == 1);
    matcher_fini(&a);
    matcher_fini(&b);
    regex_state_destroy(state);
}

static void compile(struct pattern *p, struct arena *a, int i)
{
    struct error err = {.text = ""};
    assert_int_equal(pattern_regex(p, a, patterns[i], strlen(patterns[i]), &err), STATUS_OK);
    assert_non_null(p->word_end); /* it is known */
}

/* Sixty-four characters a text, each in the places where its kind shows. */
static void test_every_character(void **state)
{
    (void)state;
    struct arena *a = arena_create(0);
    for (int i = 0; i < N_PATTERNS; i++) {
        struct pattern p = {.regex = NULL};
        struct buf text;
        buf_init(&text, 0);
        compile(&p, a, i);
        for (uint32_t c = 0; c < 0x32400; c++) { /* above: nothing but private use and tags */
            char bytes[4];
            if (c >= 0xD800 && c <= 0xDFFF)
                continue;
            unsigned n = utf8_put(bytes, c);
            buf_puts(&text, "a");
            buf_append(&text, bytes, n);
            buf_puts(&text, "1 ");
            buf_append(&text, bytes, n);
            buf_puts(&text, "'");
            if (c % 64 == 63) {
                compare(&p, text.data, text.length);
                buf_clear(&text);
            }
        }
        buf_fini(&text);
    }
    arena_destroy(a);
}

static void test_random_strings(void **state)
{
    (void)state;
    static const char *const bits[] = {"a",
                                       "B",
                                       "xyz",
                                       "1",
                                       "23",
                                       "4567",
                                       " ",
                                       "  ",
                                       "\t",
                                       "\n",
                                       "\r",
                                       "\n",
                                       " \n",
                                       "\r\n",
                                       "'s",
                                       "'S",
                                       "'re",
                                       "'LL",
                                       "'d",
                                       "'v",
                                       "'",
                                       "''",
                                       "!",
                                       "...",
                                       "-",
                                       "_",
                                       "\xC2\xA0",
                                       "\xE3\x80\x80",
                                       "\xE2\x80\xA8",
                                       "\xC2\x85",
                                       "'\xC5\xBF",
                                       "\xC3\xA9",
                                       "e\xCC\x81",
                                       "\xE4\xB8\xAD",
                                       "\xD9\xA1",
                                       "\xC2\xBD",
                                       "\xE2\x85\xAB",
                                       "\xF0\x9F\x98\x80",
                                       "\xF0\x9F\x91\xA9\xE2\x80\x8D",
                                       "\xF0\xB1\x8D\x90",
                                       "\xEF\xBF\xBD",
                                       "\xE2\x96\x81"};
    uint32_t seed = 11;
    struct arena *a = arena_create(0);
    for (int i = 0; i < N_PATTERNS; i++) {
        struct pattern p = {.regex = NULL};
        compile(&p, a, i);
        for (int round = 0; round < 6000; round++) {
            char text[256] = "";
            size_t length = 0;
            for (int k = 0; k < 12; k++) {
                seed = seed * 1664525U + 1013904223U;
                const char *bit = bits[(seed >> 8) % (sizeof bits / sizeof *bits)];
                memcpy(text + length, bit, strlen(bit));
                length += strlen(bit);
            }
            compare(&p, text, length);
        }
    }
    arena_destroy(a);
}

/* Every pre-tokenizer that a GGUF file may name has patterns that compile. */
static void test_named_patterns(void **state)
{
    (void)state;
    char names[512];
    int n_names = 0, n_by_hand = 0;
    struct arena *a = arena_create(0);
    pre_tokenizer_names(names, sizeof names);
    assert_true(strlen(names) + 1 < sizeof names);
    for (char *name = strtok(names, " "); name; name = strtok(NULL, " ")) {
        const struct pre_tokenizer *pre = pre_tokenizer_find(name);
        assert_non_null(pre);
        assert_non_null(pre->patterns[0]);
        for (int i = 0; i < 6 && pre->patterns[i]; i++) {
            struct pattern p = {.regex = NULL};
            struct error err = {.text = ""};
            if (pattern_regex(&p, a, pre->patterns[i], strlen(pre->patterns[i]), &err) != STATUS_OK)
                print_error("%s: %s\n", name, err.text);
            assert_non_null(p.regex);
            n_by_hand += p.word_end != NULL;
        }
        n_names++;
    }
    assert_true(n_names > 25);
    assert_true(n_by_hand >= 5);
    assert_null(pre_tokenizer_find("llama"));
    assert_null(pre_tokenizer_find("afmoe"));
    assert_null(pre_tokenizer_find(""));
    arena_destroy(a);
}

/* NUL is a character like others. */
static void test_nul(void **state)
{
    (void)state;
    static const char text[] = "a\0b \0\0 '\0 1\0";
    struct arena *a = arena_create(0);
    for (int i = 0; i < N_PATTERNS; i++) {
        struct pattern p = {.regex = NULL};
        compile(&p, a, i);
        for (size_t length = 0; length < sizeof text; length++)
            compare(&p, text, length);
    }
    arena_destroy(a);
}

/* Words of up to 16 bytes that differ in one byte only, or in their length, are different words. */
static void test_remembered_words(void **state)
{
    (void)state;
    struct word_cache c = {.words = NULL};
    bool found;
    assert_true(word_cache_init(&c, 100));
    assert_null(word_cache_find(&c, (struct text_ref){"a", 1}, &found)); /* a short text has no table */
    assert_true(word_cache_init(&c, 1 << 20));
    for (uint32_t length = 1; length <= 16; length++) {
        char word[16], other[16];
        memset(word, 'x', sizeof word);
        struct cached_word *w = word_cache_find(&c, (struct text_ref){word, length}, &found);
        assert_non_null(w);
        assert_false(found);
        w->n_ids = 1;
        assert_ptr_equal(word_cache_find(&c, (struct text_ref){word, length}, &found), w);
        assert_true(found);
        for (uint32_t i = 0; i < length; i++) {
            memcpy(other, word, sizeof other);
            other[i] = '\0';
            struct cached_word *place = word_cache_find(&c, (struct text_ref){other, length}, &found);
            assert_false(found);
            place->n_ids = 1;
        }
    }
    assert_null(word_cache_find(&c, (struct text_ref){"0123456789abcdefg", 17}, &found));
    word_cache_fini(&c);
}

/* A long text of few words, some of them with more ids than are kept, is its words' ids in a row. */
static void test_long_text(void **state)
{
    (void)state;
    struct tokenizer *t = open_json(
        "{\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,"
        "\"b\":1,\"c\":2,\"ab\":3,\"abc\":4},\"merges\":[\"a b\",\"ab c\"]}}");
    static const char words[] = "abc ab cab abab acbab bbbbbbbbbbbbbbbbbbbbbbbbb ";
    struct token_list once = {.ids = NULL}, all = {.ids = NULL};
    struct encode_options o = {.parse_special = true};
    struct buf text;
    buf_init(&text, 0);
    for (int i = 0; i < 500; i++)
        buf_puts(&text, words);
    assert_int_equal(tokenizer_encode(t, words, strlen(words), &o, &once, NULL), STATUS_OK);
    assert_int_equal(tokenizer_encode(t, text.data, text.length, &o, &all, NULL), STATUS_OK);
    assert_int_equal(once.n_ids, 1 + 1 + 2 + 2 + 4 + 25);
    assert_int_equal(all.n_ids, 500 * once.n_ids);
    for (size_t i = 0; i < all.n_ids; i++)
        assert_int_equal(all.ids[i], once.ids[i % once.n_ids]);
    token_list_fini(&once);
    token_list_fini(&all);
    buf_fini(&text);
    tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_character),
        cmocka_unit_test(test_random_strings),
        cmocka_unit_test(test_nul),
        cmocka_unit_test(test_named_patterns),
        cmocka_unit_test(test_remembered_words),
        cmocka_unit_test(test_long_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
