/* The split patterns that nearly every byte-level model has, by hand: GPT-2's, Llama 3's (cl100k) and Qwen
 * 2's. They are known by their text; each of their alternatives is a few lines here, in the pattern's order,
 * and together they leave no character out. What another pattern says, PCRE2 matches.
 *
 * Each character is a letter, a number, white space or something else; ASCII by a table, the rest by
 * utf8proc. Characters that are newer than PCRE2 have their stand-ins already, as for PCRE2. No state. */
#include <string.h>
#include <utf8proc.h>

#include "tokenizer_inner.h"
#include "utf8.h"

enum kind { OTHER, SPACE, LETTER, NUMBER };

#define TEN(kind) kind, kind, kind, kind, kind, kind, kind, kind, kind, kind
#define TWENTY_SIX(kind) TEN(kind), TEN(kind), kind, kind, kind, kind, kind, kind
static const uint8_t ascii_kinds[128] = {
    [9] = SPACE,
    [10] = SPACE,
    [11] = SPACE,
    [12] = SPACE,
    [13] = SPACE,
    [' '] = SPACE,
    ['0'] = TEN(NUMBER),
    ['A'] = TWENTY_SIX(LETTER),
    ['a'] = TWENTY_SIX(LETTER),
};

static enum kind wide_kind(uint32_t c)
{
    if (char_is_space(c))
        return SPACE;
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    if (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO)
        return LETTER;
    return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO ? NUMBER : OTHER;
}

/* The kind of the character at text[at], at < length, and where it ends. */
static inline enum kind kind_at(struct text_ref text, size_t at, size_t *end)
{
    unsigned char lead = (unsigned char)text.text[at];
    uint32_t c;
    if (lead < 0x80) {
        *end = at + 1;
        return (enum kind)ascii_kinds[lead];
    }
    *end = at + utf8_step(text.text + at, text.length - at, &c);
    return wide_kind(c);
}

/* Where a run of characters of one kind ends, at most `most` of them. */
static size_t run_end(struct text_ref text, size_t at, enum kind kind, size_t most)
{
    size_t end = at;
    for (; most > 0 && at < text.length && kind_at(text, at, &end) == kind; most--)
        at = end;
    return at;
}

static bool is_newline(char c)
{
    return c == '\n' || c == '\r';
}

/* Behind the apostrophe at text[at]: where a contraction ends, or 0. The long s folds to s. */
static size_t contraction_end(struct text_ref text, size_t at, bool any_case)
{
    char c[2] = {0, 0};
    for (size_t i = 0; i < 2 && at + 1 + i < text.length; i++) {
        c[i] = text.text[at + 1 + i];
        if (any_case && c[i] >= 'A' && c[i] <= 'Z')
            c[i] = (char)(c[i] + 'a' - 'A');
    }
    if (c[0] && strchr("stmd", c[0]))
        return at + 2;
    if ((c[1] == 'e' && (c[0] == 'r' || c[0] == 'v')) || (c[0] == 'l' && c[1] == 'l'))
        return at + 3;
    return any_case && memcmp(c, "\xC5\xBF", 2) == 0 ? at + 3 : 0;
}

/* \s+(?!\S)|\s+ : the white space of text[at, end), but for its last character if a word follows. */
static size_t space_end(struct text_ref text, size_t at, size_t end)
{
    size_t last = end - 1;
    if (end == text.length)
        return end;
    while (last > at && ((unsigned char)text.text[last] & 0xC0) == 0x80)
        last--;
    return last > at ? last : end;
}

static size_t gpt2_end(struct text_ref text, size_t at)
{
    size_t next, end, contraction;
    enum kind kind = kind_at(text, at, &next);
    if (text.text[at] == '\'' && (contraction = contraction_end(text, at, false)) > 0)
        return contraction;
    if (kind != SPACE)
        return run_end(text, next, kind, SIZE_MAX);
    if (text.text[at] == ' ' && next < text.length && (kind = kind_at(text, next, &end)) != SPACE)
        return run_end(text, end, kind, SIZE_MAX);
    return space_end(text, at, run_end(text, next, SPACE, SIZE_MAX));
}

/* A run of white space that holds a line's end goes up to its last one. */
static size_t lines_end(struct text_ref text, size_t at)
{
    size_t end = run_end(text, at, SPACE, SIZE_MAX), last = end;
    while (last > at && !is_newline(text.text[last - 1]))
        last--;
    return last > at ? last : space_end(text, at, end);
}

static size_t others_end(struct text_ref text, size_t at)
{
    at = run_end(text, at, OTHER, SIZE_MAX);
    while (at < text.length && is_newline(text.text[at]))
        at++;
    return at;
}

static size_t cl100k_end(struct text_ref text, size_t at, size_t most_digits)
{
    size_t next, end = 0, contraction;
    enum kind kind = kind_at(text, at, &next), then = SPACE;
    if (text.text[at] == '\'' && (contraction = contraction_end(text, at, true)) > 0)
        return contraction;
    if (kind == LETTER)
        return run_end(text, next, LETTER, SIZE_MAX);
    if (kind == NUMBER)
        return run_end(text, next, NUMBER, most_digits - 1);
    if (next < text.length)
        then = kind_at(text, next, &end);
    if (then == LETTER && !is_newline(text.text[at]))
        return run_end(text, end, LETTER, SIZE_MAX);
    if (kind == OTHER)
        return others_end(text, next);
    if (text.text[at] == ' ' && then == OTHER)
        return others_end(text, end);
    return lines_end(text, at);
}

static size_t llama3_end(struct text_ref text, size_t at)
{
    return cl100k_end(text, at, 3);
}

static size_t qwen2_end(struct text_ref text, size_t at)
{
    return cl100k_end(text, at, 1);
}

#define CL100K(digits)                                                                                       \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits                               \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

word_end_fn *words_find(const char *onig, size_t length)
{
    static const struct {
        const char *pattern;
        word_end_fn *end;
    } known[] = {
        {byte_level_pattern, gpt2_end},
        {CL100K("{1,3}"), llama3_end},
        {CL100K(""), qwen2_end},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].pattern) == length && memcmp(known[i].pattern, onig, length) == 0)
            return known[i].end;
    return NULL;
}
