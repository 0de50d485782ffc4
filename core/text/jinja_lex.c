/* From source to tokens: text between tags, and what stands inside tags. White space around tags follows
 * trim_blocks and lstrip_blocks, both on, and the signs - and +:
 *
 *   text {%- …   all white space before goes          … -%} text   all white space after goes
 *   text {%  …   blanks go if alone on their line     …  %} text   one line end goes
 *   text {%+ …   nothing goes                         … +%} text   nothing goes
 *
 * {{ }} takes white space only with -. One line end at the end of the source goes. The whole source becomes
 * one array of tokens. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "jinja.h"

#define MAX_BRACKETS JINJA_MAX_NESTING * 2

struct lexer {
    struct chat_template *t;
    const char *s;
    size_t n, at;
    struct buf *tokens;
    struct error *err;
    bool line_starting; /* what was read last ends with a line end */
    char brackets[MAX_BRACKETS];
    size_t n_brackets;
};

static enum status lex_fail(const struct lexer *l, size_t pos, const char *message)
{
    return jinja_fail_at(l->t, pos, l->err, STATUS_FORMAT, "%s", message);
}

static enum status no_memory(const struct lexer *l)
{
    return fail(l->err, STATUS_NO_MEMORY, "%s: out of memory", l->t->shown);
}

static enum status add_token(struct lexer *l, enum token_type type, size_t pos, struct jv value)
{
    struct token token = {.type = type, .pos = (uint32_t)pos, .value = value};
    return buf_append(l->tokens, &token, sizeof token) ? STATUS_OK : no_memory(l);
}

static enum status add_text(struct lexer *l, enum token_type type, size_t pos, const char *s, size_t n)
{
    const struct jstr *text = jinja_const_str(l->t->arena, s, n);
    return text ? add_token(l, type, pos, jv_of_str(text)) : no_memory(l);
}

static bool at_text(const struct lexer *l, size_t at, const char *what)
{
    size_t n = strlen(what);
    return at + n <= l->n && memcmp(l->s + at, what, n) == 0;
}

static size_t skip_space(const struct lexer *l, size_t at)
{
    return at + jchar_space_prefix(l->s + at, l->n - at);
}

/* Bytes of text before a tag that stay. */
static size_t strip_before(const struct lexer *l, const char *text, size_t n, char sign, bool variable)
{
    if (sign == '-')
        return n - jchar_space_suffix(text, n);
    if (sign == '+' || variable)
        return n;
    const char *newline = memrchr(text, '\n', n);
    size_t line = newline ? (size_t)(newline - text) + 1 : 0;
    if (line == 0 && !l->line_starting)
        return n;
    return jchar_space_prefix(text + line, n - line) == n - line ? line : n;
}

/* The end of a tag: closer is "%}" or "#}". Moves behind it and what it takes; false if it isn't here. */
static bool tag_end(struct lexer *l, size_t *at, const char *closer)
{
    size_t p = *at;
    char sign = p < l->n && (l->s[p] == '-' || l->s[p] == '+') ? l->s[p++] : 0;
    if (!at_text(l, p, closer))
        return false;
    p += 2;
    if (sign == '-')
        p = skip_space(l, p);
    else if (!sign && p < l->n && l->s[p] == '\n')
        p++;
    *at = p;
    return true;
}

static void advance(struct lexer *l, size_t to)
{
    l->line_starting = to > 0 && l->s[to - 1] == '\n';
    l->at = to;
}

/* ---- inside tags */

static size_t digits(const struct lexer *l, size_t at, const char *allowed)
{
    size_t p = at;
    while (p < l->n) {
        size_t q = p + (p > at && l->s[p] == '_');
        if (q >= l->n || !l->s[q] || !strchr(allowed, l->s[q]))
            break;
        p = q + 1;
    }
    return p;
}

#define DECIMAL "0123456789"

/* The end of a float that begins at `at`, or at: none does. */
static size_t float_end(const struct lexer *l, size_t at)
{
    size_t p = digits(l, at, DECIMAL), whole = p;
    bool fraction = false;
    if (at > 0 && l->s[at - 1] == '.')
        return at;
    if (p < l->n && l->s[p] == '.') {
        size_t q = digits(l, p + 1, DECIMAL);
        fraction = q > p + 1;
        p = fraction ? q : whole;
    }
    if (p < l->n && (l->s[p] == 'e' || l->s[p] == 'E')) {
        size_t q = p + 1;
        q += q < l->n && (l->s[q] == '+' || l->s[q] == '-');
        size_t end = digits(l, q, DECIMAL);
        if (end > q)
            return end;
    }
    return fraction ? p : at;
}

static size_t integer_end(const struct lexer *l, size_t at, int *base)
{
    static const struct {
        char letter;
        int base;
        const char *digits;
    } prefixes[] = {{'b', 2, "01"}, {'o', 8, "01234567"}, {'x', 16, "0123456789abcdefABCDEF"}};
    *base = 10;
    if (l->s[at] != '0')
        return digits(l, at, DECIMAL);
    for (size_t i = 0; at + 2 < l->n && i < sizeof prefixes / sizeof prefixes[0]; i++) {
        if ((l->s[at + 1] | 0x20) != prefixes[i].letter)
            continue;
        size_t from = at + 2 + (l->s[at + 2] == '_'), end = digits(l, from, prefixes[i].digits);
        if (end > from) {
            *base = prefixes[i].base;
            return end;
        }
    }
    return digits(l, at, "0");
}

static enum status lex_number(struct lexer *l)
{
    char text[128];
    int base = 10;
    size_t start = l->at, end = float_end(l, start), n = 0;
    bool is_float = end > start;
    if (!is_float)
        end = integer_end(l, start, &base);
    for (size_t i = is_float || base == 10 ? start : start + 2; i < end; i++) {
        if (n + 1 >= sizeof text)
            return lex_fail(l, start, "a number of more than 127 digits");
        if (l->s[i] != '_')
            text[n++] = l->s[i];
    }
    text[n] = '\0';
    advance(l, end);
    if (is_float)
        return add_token(l, T_FLOAT, start, jv_float(strtod(text, NULL)));
    errno = 0;
    long long value = strtoll(text, NULL, base);
    if (errno)
        return lex_fail(l, start, "an integer that doesn't fit into 64 bits");
    return add_token(l, T_INTEGER, start, jv_int(value));
}

static enum status lex_string(struct lexer *l)
{
    size_t start = l->at, p = start + 1;
    while (p < l->n && l->s[p] != l->s[start])
        p += l->s[p] == '\\' ? 2 : 1;
    if (p >= l->n)
        return lex_fail(l, start, "a string that doesn't end");
    struct buf text;
    const char *message = NULL;
    buf_init(&text, 0);
    enum status status;
    if (jinja_unescape(l->s + start + 1, p - start - 1, &text, &message))
        status = add_text(l, T_STRING, start, text.data, text.length);
    else
        status = text.failed ? no_memory(l) : lex_fail(l, start, message);
    buf_fini(&text);
    advance(l, p + 1);
    return status;
}

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           (unsigned char)c >= 0x80;
}

static enum status lex_name(struct lexer *l)
{
    size_t start = l->at, p = start;
    while (p < l->n && name_char(l->s[p]))
        p++;
    for (size_t i = start, n; i < p; i += n) {
        uint32_t c = jchar_decode(l->s + i, p - i, &n);
        if (c >= 0x80 && !jchar_is_alpha(c) && (i == start || !jchar_is_decimal(c)))
            return lex_fail(l, i, "a character that can't be in a name");
    }
    advance(l, p);
    return add_text(l, T_NAME, start, l->s + start, p - start);
}

static enum status balance(struct lexer *l, char c)
{
    static const char closers[] = ")]}";
    const char *opener = strchr("([{", c);
    if (opener) {
        if (l->n_brackets == MAX_BRACKETS)
            return jinja_fail_at(l->t, l->at, l->err, STATUS_TOO_LARGE, "brackets nest deeper than %d",
                                 MAX_BRACKETS);
        l->brackets[l->n_brackets++] = closers[opener - "([{"];
        return STATUS_OK;
    }
    if (!strchr(closers, c))
        return STATUS_OK;
    if (!l->n_brackets)
        return jinja_fail_at(l->t, l->at, l->err, STATUS_FORMAT, "unexpected '%c'", c);
    char expected = l->brackets[--l->n_brackets];
    if (expected != c)
        return jinja_fail_at(l->t, l->at, l->err, STATUS_FORMAT, "unexpected '%c', expected '%c'", c,
                             expected);
    return STATUS_OK;
}

static enum status lex_operator(struct lexer *l)
{
    static const struct {
        char text[3];
        enum token_type type;
    } operators[] = {
        {"//", T_FLOORDIV}, {"**", T_POW},   {"==", T_EQ},      {"!=", T_NE},      {">=", T_GE},
        {"<=", T_LE},       {"+", T_ADD},    {"-", T_SUB},      {"/", T_DIV},      {"*", T_MUL},
        {"%", T_MOD},       {"~", T_TILDE},  {"[", T_LBRACKET}, {"]", T_RBRACKET}, {"(", T_LPAREN},
        {")", T_RPAREN},    {"{", T_LBRACE}, {"}", T_RBRACE},   {">", T_GT},       {"<", T_LT},
        {"=", T_ASSIGN},    {".", T_DOT},    {":", T_COLON},    {"|", T_PIPE},     {",", T_COMMA},
        {";", T_SEMICOLON},
    };
    for (size_t i = 0; i < sizeof operators / sizeof operators[0]; i++) {
        if (!at_text(l, l->at, operators[i].text))
            continue;
        enum status status = balance(l, l->s[l->at]);
        if (status == STATUS_OK)
            status = add_token(l, operators[i].type, l->at, jv_none());
        advance(l, l->at + strlen(operators[i].text));
        return status;
    }
    return jinja_fail_at(l->t, l->at, l->err, STATUS_FORMAT, "unexpected character '%c'", l->s[l->at]);
}

static enum status lex_inside(struct lexer *l, bool variable)
{
    size_t open = l->at;
    l->n_brackets = 0;
    for (;;) {
        size_t end = l->at;
        if (end >= l->n)
            return lex_fail(l, open, variable ? "'{{' is never closed" : "'{%' is never closed");
        bool closes = false;
        if (!l->n_brackets && variable) {
            closes = at_text(l, end, "}}") || at_text(l, end, "-}}");
            if (closes)
                end = l->s[end] == '-' ? skip_space(l, end + 3) : end + 2;
        } else if (!l->n_brackets) {
            closes = tag_end(l, &end, "%}");
        }
        if (closes) {
            enum status status = add_token(l, variable ? T_VAR_END : T_BLOCK_END, l->at, jv_none());
            advance(l, end);
            return status;
        }
        enum status status = STATUS_OK;
        size_t space = skip_space(l, l->at);
        char c = l->s[l->at];
        if (space > l->at)
            advance(l, space);
        else if (c >= '0' && c <= '9')
            status = lex_number(l);
        else if (c == '\'' || c == '"')
            status = lex_string(l);
        else if (name_char(c))
            status = lex_name(l);
        else
            status = lex_operator(l);
        if (status != STATUS_OK)
            return status;
    }
}

/* ---- between tags */

static enum status lex_comment(struct lexer *l, size_t from)
{
    const char *end = from < l->n ? memmem(l->s + from, l->n - from, "#}", 2) : NULL;
    if (!end)
        return lex_fail(l, l->at, "missing end of comment");
    size_t at = (size_t)(end - l->s);
    if (at > from && (l->s[at - 1] == '-' || l->s[at - 1] == '+'))
        at--;
    tag_end(l, &at, "#}");
    advance(l, at);
    return STATUS_OK;
}

/* Where the text of a raw block begins if `at` is behind "{%" and its sign and this is one; 0: it isn't. */
static size_t raw_begin(const struct lexer *l, size_t at)
{
    size_t p = skip_space(l, at);
    if (!at_text(l, p, "raw"))
        return 0;
    p = skip_space(l, p + 3);
    if (at_text(l, p, "-%}"))
        return skip_space(l, p + 3);
    return at_text(l, p, "%}") ? p + 2 : 0;
}

static enum status lex_raw(struct lexer *l, size_t from)
{
    size_t open = l->at;
    advance(l, from);
    for (size_t p = from; p < l->n; p++) {
        if (!at_text(l, p, "{%"))
            continue;
        size_t q = p + 2;
        char sign = q < l->n && (l->s[q] == '-' || l->s[q] == '+') ? l->s[q++] : 0;
        q = skip_space(l, q);
        if (!at_text(l, q, "endraw"))
            continue;
        q = skip_space(l, q + 6);
        if (!tag_end(l, &q, "%}"))
            continue;
        size_t n = strip_before(l, l->s + from, p - from, sign, false);
        enum status status = n ? add_text(l, T_DATA, from, l->s + from, n) : STATUS_OK;
        advance(l, q);
        return status;
    }
    return lex_fail(l, open, "missing end of raw block");
}

/* Text up to the next tag, and the tag's beginning. */
static enum status lex_outside(struct lexer *l)
{
    size_t tag = l->at;
    while (tag < l->n &&
           !(l->s[tag] == '{' && tag + 1 < l->n && strchr("{%#", l->s[tag + 1]) && l->s[tag + 1]))
        tag++;
    size_t n = tag - l->at, p = tag + 2;
    bool variable = tag < l->n && l->s[tag + 1] == '{';
    char sign = p < l->n && (l->s[p] == '-' || l->s[p] == '+') ? l->s[p++] : 0;
    if (tag < l->n)
        n = strip_before(l, l->s + l->at, n, sign, variable);
    enum status status = n ? add_text(l, T_DATA, l->at, l->s + l->at, n) : STATUS_OK;
    if (status != STATUS_OK || tag >= l->n) {
        l->at = tag;
        return status;
    }
    l->at = tag;
    if (l->s[tag + 1] == '#')
        return lex_comment(l, p);
    size_t raw = variable ? 0 : raw_begin(l, p);
    if (raw)
        return lex_raw(l, raw);
    status = add_token(l, variable ? T_VAR_BEGIN : T_BLOCK_BEGIN, tag, jv_none());
    advance(l, p);
    return status == STATUS_OK ? lex_inside(l, variable) : status;
}

enum status jinja_lex(struct chat_template *t, struct buf *tokens, struct error *err)
{
    struct lexer l = {.t = t, .s = t->source, .n = t->length, .tokens = tokens, .err = err};
    l.line_starting = true;
    while (l.at < l.n) {
        enum status status = lex_outside(&l);
        if (status != STATUS_OK)
            return status;
    }
    return add_token(&l, T_EOF, l.n, jv_none());
}
