/* Grammars on a small vocabulary: every byte, some longer tokens, some special ones. */
#ifndef LK_TESTS_GRAMMAR_RIG_H
#define LK_TESTS_GRAMMAR_RIG_H

#include "../test.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "grammar.h"
#include "made_tokenizers.h"

/* Longer tokens follow the bytes from id 256 on; then come the special ones. */
static const char *const made_pieces[] = {"{\\\"",     "\\\":", "\\\",", "true", "false", "null",
                                          " \\\"",     "}}",    "]}",    "abc",  "12",    ", ",
                                          "\xC3\xA9t", "name",  "  ",    "\\n"};
#define N_MADE_PIECES (sizeof made_pieces / sizeof *made_pieces)
#define MADE_EOS (256 + (int32_t)N_MADE_PIECES)
#define MADE_CALL (MADE_EOS + 1)
#define N_MADE ((uint32_t)MADE_CALL + 1)

static inline struct tokenizer *made_tokenizer(void)
{
    struct buf b;
    buf_init(&b, 0);
    buf_printf(
        &b,
        "{\"added_tokens\":[{\"id\":%d,\"content\":\"<eos>\",\"special\":true},{\"id\":%d,\"content\":"
        "\"<call>\",\"special\":true}],\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"merges\":[],"
        "\"vocab\":{",
        MADE_EOS, MADE_CALL);
    put_byte_tokens(&b);
    for (size_t i = 0; i < N_MADE_PIECES; i++)
        buf_printf(&b, ",\"%s\":%zu", made_pieces[i], 256 + i);
    return open_byte_tokenizer(&b, "null", "null");
}

static struct tokenizer *rig_tokenizer;
static struct grammar_vocab *rig_vocab;

static inline int rig_begin(void **state)
{
    (void)state;
    struct error err;
    rig_tokenizer = made_tokenizer();
    if (grammar_vocab_create(rig_tokenizer, N_MADE, &rig_vocab, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return 0;
}

static inline int rig_end(void **state)
{
    (void)state;
    grammar_vocab_destroy(rig_vocab);
    tokenizer_destroy(rig_tokenizer);
    return 0;
}

static inline struct grammar *compile(enum grammar_kind kind, const char *source)
{
    struct grammar *g;
    struct error err;
    if (grammar_compile_part(rig_vocab, kind, source, strlen(source), &g, &err) != STATUS_OK)
        fail_msg("%s: %s", source, err.text);
    return g;
}

/* Texts separated by '\x01': all must be accepted, or none. */
static inline void check_texts(struct grammar *g, const char *source, const char *texts, bool accepted)
{
    while (texts) {
        const char *end = strchr(texts, '\x01');
        size_t n = end ? (size_t)(end - texts) : strlen(texts);
        if (grammar_accepts(g, texts, n) != accepted)
            fail_msg("%s: \"%.*s\" should%s be accepted", source, (int)n, texts, accepted ? "" : " not");
        texts = end ? end + 1 : NULL;
    }
}

static inline void check(enum grammar_kind kind, const char *source, const char *good, const char *bad)
{
    struct grammar *g = compile(kind, source);
    check_texts(g, source, good, true);
    check_texts(g, source, bad, false);
    grammar_release(g);
}

/* The refusal has the status and names `word`. */
static inline void check_refused(enum grammar_kind kind, const char *source, enum status s, const char *word)
{
    struct grammar *g;
    struct error err = {.text = ""};
    enum status found = grammar_compile_part(rig_vocab, kind, source, strlen(source), &g, &err);
    if (found != s || !strstr(err.text, word))
        fail_msg("%.200s: %s \"%s\", expected %s with \"%s\"", source, status_name(found), err.text,
                 status_name(s), word);
    assert_null(g);
}

#endif
