/* Grammars: which tokens may come next so that the whole text follows a JSON schema, a regular expression, a
 * list of choices or a GBNF grammar.
 *
 * All of these compile into one automaton over bytes: rules that may call each other, so that nested JSON has
 * its brackets. While it is used, its states are made and kept as they are met, with the mask of the
 * vocabulary that belongs to each. What is supported, and the bounds: docs/GRAMMAR.md. */
#ifndef LK_GRAMMAR_H
#define LK_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct tokenizer;

/* ---- a model's vocabulary as a tree of bytes */

/* Immutable once made; about 12 bytes for each byte that tokens don't share. */
struct grammar_vocab;
/* n_vocab: length of the model's rows of logits. `t` is borrowed for the call. STATUS_UNSUPPORTED: a
 * tokenizer whose tokens' texts don't simply follow each other (those that put spaces between words). Takes
 * about 0.1 s for 128k tokens. Thread: any. */
LK_MUST_USE enum status grammar_vocab_create(const struct tokenizer *t, uint32_t n_vocab,
                                             struct grammar_vocab **out, struct error *err);
void grammar_vocab_destroy(struct grammar_vocab *v); /* NULL is fine */
size_t grammar_vocab_bytes(const struct grammar_vocab *v);

/* ---- what a text must follow */

#define GRAMMAR_SOURCE_BYTES_MAX 65536U /* of all parts together */
#define GRAMMAR_DEPTH_MAX 64U           /* nesting of schemas, groups and parentheses */
#define GRAMMAR_FRAMES_MAX 256U         /* nesting of rules in a text; deeper is not allowed by the masks */

enum grammar_kind {
    GRAMMAR_LITERAL,        /* these bytes, UTF-8 */
    GRAMMAR_TOKEN,          /* one special token, by its exact content ("<tool_call>"); as plain text if the
                               vocabulary has no special token of that content */
    GRAMMAR_JSON_OBJECT,    /* any JSON object; text is ignored */
    GRAMMAR_JSON_SCHEMA,    /* text: the schema, as JSON */
    GRAMMAR_COMPACT_OBJECT, /* the same without white space between JSON's tokens */
    GRAMMAR_COMPACT_SCHEMA,
    GRAMMAR_REGEX,     /* the whole text must match */
    GRAMMAR_CHOICE,    /* text: a JSON array of strings */
    GRAMMAR_GBNF,      /* llama.cpp's notation; starts with the rule `root` */
    GRAMMAR_FREE_TEXT, /* any text, special tokens too; `text` says which, as a JSON object of these:
                          "until": a string that ends it, and stands nowhere else in it
                          "without": strings that aren't in it
                          "plain": true: UTF-8 without U+0000, no special token but one that ends it
                          "not_first": strings that it doesn't begin with; white space in front of them and
                          behind [ and { doesn't count, and escapes are taken for what they may stand for */
    GRAMMAR_GROUP      /* text: a struct grammar_spec, instead */
};
struct grammar_part {
    enum grammar_kind kind;
    const void *text;
    size_t length;
};
#define GRAMMAR_FOREVER UINT32_MAX
#define GRAMMAR_GROUPS_MAX 64U /* groups in groups: more is a bug */
/* Parts one behind the other. */
struct grammar_sequence {
    const struct grammar_part *parts;
    uint32_t n_parts;
};
/* One of the alternatives, n_min to n_max times (GRAMMAR_FOREVER: as often as it likes) with `separator`
 * between; zeroed counts mean once. So a part alone is {.alternatives = &(struct grammar_sequence){&part, 1},
 * .n_alternatives = 1}, and tool calls are sequences of a literal, a schema and a literal. */
struct grammar_spec {
    const struct grammar_sequence *alternatives;
    uint32_t n_alternatives;
    uint32_t n_min, n_max;
    const char *separator; /* NULL: none */
    const char *name;      /* stands in front of errors in it; NULL: nothing does */
};

/* Immutable and reference-counted; what it learns while in use lies behind a lock of its own. */
struct grammar;
/* Everything is borrowed for the call, but `vocab`, which must outlive the grammar. Takes at most about 2 s,
 * usually below 1 ms: call it on a worker. Errors: STATUS_INVALID / STATUS_FORMAT: no grammar, named where;
 * STATUS_UNSUPPORTED: something in it isn't done, named; STATUS_TOO_LARGE: a bound. The first mask is made
 * too, so a vocabulary that can't begin is refused here. Thread: any. */
LK_MUST_USE enum status grammar_compile(const struct grammar_vocab *vocab, const struct grammar_spec *spec,
                                        struct grammar **out, struct error *err);
/* The same for a single part. */
LK_MUST_USE enum status grammar_compile_part(const struct grammar_vocab *vocab, enum grammar_kind kind,
                                             const char *text, size_t length, struct grammar **out,
                                             struct error *err);
struct grammar *grammar_acquire(struct grammar *g); /* NULL is fine; returns g */
void grammar_release(struct grammar *g);            /* NULL is fine */
size_t grammar_bytes(struct grammar *g);            /* now: it grows while it is used, up to a bound */
/* Whether the whole text follows the grammar: for tests. Thread: any. */
bool grammar_accepts(struct grammar *g, const char *text, size_t length);

/* ---- while tokens come */

/* Where a text stands in its grammar: a plain value. Everything in it can be found again from the tokens. */
struct grammar_matcher {
    uint64_t epoch;  /* of the grammar's states */
    uint32_t state;  /* 0: not begun */
    uint32_t n_read; /* tokens */
};

enum grammar_answer {
    GRAMMAR_GOES_ON,  /* some token may come; the end, too, if `may_end` */
    GRAMMAR_COMPLETE, /* only the end may come */
    GRAMMAR_STUCK,    /* nothing may come: no token of the vocabulary fits, or tokens came that don't */
    GRAMMAR_TOO_LARGE /* its states need more memory or work than a grammar has */
};
/* What may follow tokens[0 .. n), which came from the first generated one on. The matcher must have been
 * zeroed before its first use and has read a prefix of the same tokens. `mask`: [grammar_mask_words(n_vocab)]
 * bit t % 64 of word t / 64 is token t; end-of-text tokens are not in it, they may come where `may_end`.
 * NULL: only the answer is wanted, and GOES_ON may then turn out to be STUCK. Allocates nothing. Thread: any;
 * waits for others that use the same grammar. */
enum grammar_answer grammar_next(struct grammar *g, struct grammar_matcher *m, const int32_t *tokens,
                                 uint32_t n, uint64_t *mask, bool *may_end);
static inline size_t grammar_mask_words(uint32_t n_vocab)
{
    return ((size_t)n_vocab + 63) / 64;
}
uint32_t grammar_n_vocab(const struct grammar *g);

#endif
