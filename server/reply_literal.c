/* Calls whose arguments are literals of another language, made JSON as they come:
 *
 *   NAME(KEY=VALUE, …)         values as Python writes them: 'text', True, None, [1, 2], {'a': 1}
 *   NAME(**{…})                the same, all of them as one dictionary
 *   NAME.call(KEY=VALUE, …)    Llama's, of tools that it knows by itself
 *   call:NAME{KEY:VALUE,…}     Gemma's: strings stand between markers, keys are bare
 *
 * JSON's own spelling is taken in both. What isn't a literal, such as a variable, is no call. */
#include "reply_inner.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api_render.h"

#define KEY_BYTES_MAX 1024U
#define WORD_BYTES_MAX 256U
#define CALL_PREFIX "call:"

enum literal_state {
    LITERAL_NAME,
    LITERAL_ITEM, /* an item, or the end of what has items */
    LITERAL_KEY,  /* bare */
    LITERAL_COLON,
    LITERAL_VALUE,
    LITERAL_STRING,
    LITERAL_WORD,
    LITERAL_AFTER /* behind a value */
};

enum level_kind { LEVEL_ARGUMENTS, LEVEL_SPREAD, LEVEL_OBJECT, LEVEL_LIST, LEVEL_TUPLE };
#define HAS_ITEMS 0x80U

static size_t broken(struct reply *p)
{
    p->outcome = CALL_BROKEN;
    return 0;
}

static bool is_python(const struct reply *p)
{
    return p->format.calls->style == CALLS_PYTHON || p->format.calls->builtin;
}

static struct buf *out_of(struct reply *p)
{
    return &reply_call_now(p)->arguments;
}

static enum level_kind kind_of(const struct call_reader *c)
{
    return (enum level_kind)(c->levels[c->depth - 1] & ~HAS_ITEMS);
}

static bool has_keys(const struct call_reader *c)
{
    return kind_of(c) <= LEVEL_OBJECT;
}

/* False: nested too deep. */
static bool push(struct reply *p, enum level_kind kind, const char *written)
{
    struct call_reader *c = &p->call;
    if (c->depth == LITERAL_DEPTH_MAX)
        return false;
    c->levels[c->depth++] = (uint8_t)kind;
    buf_puts(out_of(p), written);
    c->state = LITERAL_ITEM;
    return true;
}

static char closing_of(const struct reply *p)
{
    static const char closing[] = {[LEVEL_ARGUMENTS] = '}',
                                   [LEVEL_SPREAD] = '}',
                                   [LEVEL_OBJECT] = '}',
                                   [LEVEL_LIST] = ']',
                                   [LEVEL_TUPLE] = ')'};
    enum level_kind kind = kind_of(&p->call);
    return kind == LEVEL_ARGUMENTS && is_python(p) ? ')' : closing[kind];
}

static size_t close_level(struct reply *p)
{
    struct call_reader *c = &p->call;
    enum level_kind kind = kind_of(c);
    uint8_t items = c->levels[--c->depth] & HAS_ITEMS;
    c->state = LITERAL_AFTER;
    if (kind == LEVEL_SPREAD)
        c->levels[c->depth - 1] |= items;
    else
        buf_putc(out_of(p), kind >= LEVEL_LIST ? ']' : '}');
    if (kind == LEVEL_ARGUMENTS)
        p->outcome = CALL_DONE;
    return 1;
}

/* ---- names and keys */

static size_t read_name(struct reply *p, struct span at)
{
    struct call_reader *c = &p->call;
    size_t i = 0;
    while (i < at.n && (isalnum((unsigned char)at.s[i]) || strchr("_-.:/", at.s[i])) && at.s[i] != '\0')
        i++;
    buf_append(&c->token, at.s, i);
    if (c->token.length > REPLY_NAME_MAX + strlen(CALL_PREFIX))
        return broken(p);
    if (i == at.n)
        return i;
    if (at.s[i] != (is_python(p) ? '(' : '{'))
        return broken(p) + i;
    const char *name = c->token.data ? c->token.data : "", *builtin = p->format.calls->builtin;
    size_t n = c->token.length, n_behind = builtin ? strlen(builtin) : 0;
    bool known = true;
    if (builtin) {
        if (n <= n_behind || memcmp(name + n - n_behind, builtin, n_behind) != 0)
            return broken(p) + i;
        n -= n_behind;
        (void)tool_parameters(p->format.tools, name, n, &known); /* else it is any code */
    }
    size_t prefix = is_python(p) ? 0 : strlen(CALL_PREFIX);
    if (!known || n < prefix || strncmp(name, CALL_PREFIX, prefix) != 0 ||
        !reply_call_named(p, name + prefix, n - prefix))
        return broken(p) + i;
    push(p, LEVEL_ARGUMENTS, "{");
    return i + 1;
}

static bool is_key_byte(char byte)
{
    return isalnum((unsigned char)byte) || (unsigned char)byte >= 0x80 || (byte && strchr("_-.$@/", byte));
}

static size_t read_key(struct reply *p, struct span at)
{
    struct call_reader *c = &p->call;
    size_t i = 0;
    while (i < at.n && is_key_byte(at.s[i]))
        i++;
    buf_append(&c->token, at.s, i);
    if (c->token.length > KEY_BYTES_MAX || (i < at.n && c->token.length == 0))
        return broken(p);
    if (i == at.n)
        return i;
    struct buf *out = out_of(p);
    buf_putc(out, '"');
    json_escape(out, c->token.data, c->token.length);
    buf_putc(out, '"');
    c->state = LITERAL_COLON;
    return i;
}

static size_t read_colon(struct reply *p, struct span at)
{
    struct call_reader *c = &p->call;
    bool equals = is_python(p) && kind_of(c) == LEVEL_ARGUMENTS;
    if (at.n && !is_json_space(at.s[0])) {
        if (at.s[0] != (equals ? '=' : ':'))
            return broken(p);
        buf_puts(out_of(p), ": ");
        c->state = LITERAL_VALUE;
    }
    return at.n != 0;
}

/* ---- strings */

/* Which marker a string stands between, if one begins here. */
static enum match begin_string(const struct reply *p, struct span at, struct call_reader *c)
{
    const char *quote = p->format.calls->quote;
    enum match m = quote ? match_marker(at, quote) : MATCH_NONE;
    c->quote = '\0';
    c->is_triple = false;
    if (m != MATCH_NONE || at.n == 0 || (at.s[0] != '"' && (at.s[0] != '\'' || !is_python(p))))
        return m;
    c->quote = at.s[0];
    if (!is_python(p))
        return MATCH_WHOLE;
    size_t n = 1;
    while (n < at.n && n < 3 && at.s[n] == c->quote)
        n++;
    c->is_triple = n == 3;
    return n == at.n && n < 3 && !at.final ? MATCH_PART : MATCH_WHOLE;
}

static size_t quote_length(const struct reply *p)
{
    return p->call.quote ? (p->call.is_triple ? 3 : 1) : strlen(p->format.calls->quote);
}

static void put_code(struct buf *out, uint32_t code)
{
    if (code > 0xFFFF)
        buf_printf(out, "\\u%04x\\u%04x", 0xD800U + ((code - 0x10000U) >> 10), 0xDC00U + (code & 0x3FFU));
    else
        buf_printf(out, "\\u%04x", code);
}

/* "\xNN" and the like, of n digits. */
static size_t hex_escape(struct reply *p, struct span at, size_t n)
{
    char digits[9] = "";
    if (at.n < 2 + n)
        return at.final ? broken(p) : 0;
    memcpy(digits, at.s + 2, n);
    if (strspn(digits, "0123456789abcdefABCDEF") != n)
        return broken(p);
    unsigned long code = strtoul(digits, NULL, 16);
    if (code > 0x10FFFF)
        return broken(p);
    put_code(out_of(p), (uint32_t)code);
    return 2 + n;
}

static size_t octal_escape(struct reply *p, struct span at)
{
    uint32_t code = 0;
    size_t n = 1;
    while (n < at.n && n < 4 && at.s[n] >= '0' && at.s[n] <= '7')
        code = code * 8 + (uint32_t)(at.s[n++] - '0');
    if (n == at.n && n < 4 && !at.final)
        return 0;
    put_code(out_of(p), code);
    return n;
}

/* Behind a backslash; 0 with no outcome: it needs more. */
static size_t read_escape(struct reply *p, struct span at)
{
    static const char from[] = "ntrbf\\\"/'av", *const to[] = {"\\n", "\\t",     "\\r",    "\\b",
                                                               "\\f", "\\\\",    "\\\"",   "/",
                                                               "'",   "\\u0007", "\\u000b"};
    struct buf *out = out_of(p);
    if (at.n < 2)
        return at.final ? broken(p) : 0;
    const char *plain = at.s[1] ? strchr(from, at.s[1]) : NULL;
    if (plain)
        buf_puts(out, to[plain - from]);
    if (plain || at.s[1] == '\n')
        return 2;
    if (at.s[1] == 'x' || at.s[1] == 'u' || at.s[1] == 'U')
        return hex_escape(p, at, at.s[1] == 'x' ? 2 : at.s[1] == 'u' ? 4 : 8);
    if (at.s[1] >= '0' && at.s[1] <= '7')
        return octal_escape(p, at);
    buf_puts(out, "\\\\"); /* no escape: the backslash stands for itself */
    return 1;
}

static size_t read_string(struct reply *p, struct span at)
{
    struct call_reader *c = &p->call;
    char marker[4] = {c->quote, c->is_triple ? c->quote : '\0', c->quote, '\0'};
    const char *end = c->quote ? marker : p->format.calls->quote;
    size_t i = 0;
    enum match m = MATCH_NONE;
    while (i < at.n && !(c->quote && at.s[i] == '\\')) {
        m = at.s[i] == end[0] ? match_marker((struct span){at.s + i, at.n - i, at.final}, end) : MATCH_NONE;
        if (m != MATCH_NONE)
            break;
        i++;
    }
    if (i) {
        json_escape(out_of(p), at.s, i);
        return i;
    }
    if (m == MATCH_NONE)
        return at.n ? read_escape(p, at) : 0;
    if (m == MATCH_PART)
        return 0;
    buf_putc(out_of(p), '"');
    c->state = c->is_key ? LITERAL_COLON : LITERAL_AFTER;
    return strlen(end);
}

/* ---- numbers and words */

/* Python's ways to write a number that aren't JSON's; false: it is none. */
static bool put_odd_number(struct buf *out, const char *word)
{
    char plain[WORD_BYTES_MAX + 1], *end;
    size_t n = 0;
    for (const char *s = word; *s; s++)
        if (*s != '_' && n < WORD_BYTES_MAX)
            plain[n++] = *s;
    plain[n] = '\0';
    bool prefixed = plain[0] == '0' && plain[1] && strchr("xXoObB", plain[1]);
    int base = !prefixed                                 ? 10
               : tolower((unsigned char)plain[1]) == 'x' ? 16
               : tolower((unsigned char)plain[1]) == 'o' ? 8
                                                         : 2;
    if (prefixed) {
        unsigned long long value = strtoull(plain + 2, &end, base);
        if (!isxdigit((unsigned char)plain[2]) || *end || n > 18)
            return false;
        buf_printf(out, "%llu", value);
        return true;
    }
    const char *digits = plain + (plain[0] == '+');
    json_t *v = json_loadb(digits, strlen(digits), JSON_DECODE_ANY, NULL);
    bool is_json = json_is_number(v);
    json_decref(v);
    if (is_json) {
        buf_puts(out, digits);
        return true;
    }
    double value = strtod(digits, &end);
    if (n == 0 || *end || !isfinite(value) || strspn(plain, "+-.0123456789eE") != n || !strchr(plain, '.'))
        return false;
    buf_printf(out, "%.17g", value);
    return true;
}

/* What the word means, as JSON. Python has nothing but these; in Gemma's calls anything else is a string. */
static bool put_word(struct reply *p, struct buf *out)
{
    static const char *const words[][2] = {{"True", "true"},   {"true", "true"}, {"False", "false"},
                                           {"false", "false"}, {"None", "null"}, {"null", "null"}};
    const char *word = p->call.token.data ? p->call.token.data : "";
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(word, words[i][0]) == 0) {
            buf_puts(out, words[i][1]);
            return true;
        }
    if (put_odd_number(out, word))
        return true;
    if (is_python(p))
        return false;
    buf_putc(out, '"');
    json_escape(out, word, p->call.token.length);
    buf_putc(out, '"');
    return true;
}

static bool is_word_byte(const struct reply *p, char byte)
{
    if (is_python(p))
        return isalnum((unsigned char)byte) || (byte && strchr("_+-.", byte));
    return byte && !strchr(",:{}[]()\"'", byte) && (unsigned char)byte >= ' ';
}

static size_t read_word(struct reply *p, struct span at)
{
    struct call_reader *c = &p->call;
    struct buf text;
    size_t i = 0;
    while (i < at.n && is_word_byte(p, at.s[i]))
        i++;
    buf_append(&c->token, at.s, i);
    if (c->token.length > WORD_BYTES_MAX || (i < at.n && c->token.length == 0))
        return broken(p);
    if (i == at.n)
        return i;
    while (c->token.length && c->token.data[c->token.length - 1] == ' ')
        c->token.data[--c->token.length] = '\0';
    buf_init(&text, 0);
    bool fine = put_word(p, &text);
    bool quoted = fine && text.data && text.data[0] == '"';
    if (fine)
        buf_printf(out_of(p), c->is_key && !quoted ? "\"%s\"" : "%s", text.data ? text.data : "");
    p->failed |= text.failed;
    buf_fini(&text);
    c->state = c->is_key ? LITERAL_COLON : LITERAL_AFTER;
    return fine ? i : broken(p) + i;
}

/* ---- items */

/* A value, or with is_key what Python takes for a key. */
static size_t begin_value(struct reply *p, struct span at)
{
    struct call_reader *c = &p->call;
    enum match m = begin_string(p, at, c);
    if (m == MATCH_PART)
        return 0;
    if (m == MATCH_WHOLE) {
        buf_putc(out_of(p), '"');
        c->state = LITERAL_STRING;
        return quote_length(p);
    }
    bool fine = true;
    if (at.s[0] == '[' && !c->is_key)
        fine = push(p, LEVEL_LIST, "[");
    else if (at.s[0] == '(' && !c->is_key && is_python(p))
        fine = push(p, LEVEL_TUPLE, "[");
    else if (at.s[0] == '{' && !c->is_key)
        fine = push(p, LEVEL_OBJECT, "{");
    else {
        buf_clear(&c->token);
        c->state = LITERAL_WORD;
        return 0;
    }
    return fine ? 1 : broken(p);
}

/* Arguments as one dictionary. */
static enum match read_spread(struct reply *p, struct span at)
{
    struct call_reader *c = &p->call;
    bool may = is_python(p) && kind_of(c) == LEVEL_ARGUMENTS;
    enum match m = may ? match_marker(at, "**{") : MATCH_NONE;
    uint8_t items = c->levels[c->depth - 1] & HAS_ITEMS;
    if (m != MATCH_WHOLE)
        return m;
    if (!push(p, LEVEL_SPREAD, ""))
        return MATCH_NONE;
    c->levels[c->depth - 1] |= items;
    return m;
}

static size_t begin_item(struct reply *p, struct span at)
{
    struct call_reader *c = &p->call;
    if (at.n == 0 || is_json_space(at.s[0]))
        return at.n != 0;
    if (at.s[0] == closing_of(p))
        return close_level(p);
    enum match m = read_spread(p, at);
    if (m != MATCH_NONE)
        return m == MATCH_WHOLE ? 3 : 0;
    bool keyed = has_keys(c), bare = keyed && (!is_python(p) || kind_of(c) == LEVEL_ARGUMENTS);
    if (bare && begin_string(p, at, c) == MATCH_PART)
        return 0;
    if (c->levels[c->depth - 1] & HAS_ITEMS)
        buf_puts(out_of(p), ", ");
    c->levels[c->depth - 1] |= HAS_ITEMS;
    c->is_key = keyed;
    buf_clear(&c->token);
    if (bare && (is_python(p) || begin_string(p, at, c) == MATCH_NONE))
        c->state = LITERAL_KEY;
    else
        c->state = LITERAL_VALUE;
    return 0;
}

static size_t read_value(struct reply *p, struct span at)
{
    if (at.n == 0 || is_json_space(at.s[0]))
        return at.n != 0;
    return begin_value(p, at);
}

static size_t read_after(struct reply *p, struct span at)
{
    struct call_reader *c = &p->call;
    if (at.n == 0 || is_json_space(at.s[0]))
        return at.n != 0;
    if (at.s[0] == ',') {
        c->state = LITERAL_ITEM;
        return 1;
    }
    return at.s[0] == closing_of(p) ? close_level(p) : broken(p);
}

static size_t step(struct reply *p, struct span at)
{
    switch ((enum literal_state)p->call.state) {
    case LITERAL_NAME:
        return read_name(p, at);
    case LITERAL_ITEM:
        return begin_item(p, at);
    case LITERAL_KEY:
        return read_key(p, at);
    case LITERAL_COLON:
        p->call.is_key = false;
        return read_colon(p, at);
    case LITERAL_VALUE:
        return read_value(p, at);
    case LITERAL_STRING:
        return read_string(p, at);
    case LITERAL_WORD:
        return read_word(p, at);
    case LITERAL_AFTER:
        break;
    }
    return read_after(p, at);
}

size_t reply_read_literal(struct reply *p, struct span at)
{
    size_t i = 0, n;
    uint8_t before;
    do {
        before = p->call.state;
        n = step(p, (struct span){at.s + i, at.n - i, at.final});
        i += n;
    } while (p->outcome == CALL_GOES_ON && (n || before != p->call.state));
    return i;
}
