/* GBNF, as llama.cpp writes it:
 *
 *   root  ::= item ("," item)*      rules of alternatives (|) of sequences
 *   item  ::= "text" | [a-z0-9] | [^\n] | . | other | ( … )      each with * + ? {m} {m,} {m,n} behind
 *   # a comment
 *
 * A rule goes on in the next line unless that begins another one. Names are declared when first met; what was
 * never defined is an error with its name. */
#include <string.h>

#include "grammar_inner.h"

#define NAME_BYTES_MAX 128U

struct gbnf_name {
    const char *text;
    size_t length;
    uint32_t rule;
    bool is_defined;
};

struct gbnf {
    struct maker *m;
    const char *text;
    size_t length, at;
    uint32_t depth;
    struct gbnf_name *names; /* in the arena */
    uint32_t n_names, capacity;
};

static void refuse(struct gbnf *g, enum status s, const char *what)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < g->at && i < g->length; i++) {
        column = g->text[i] == '\n' ? 1 : column + 1;
        line += g->text[i] == '\n';
    }
    maker_fail(g->m, s, "grammar, line %zu, column %zu: %s", line, column, what);
}

static bool goes_on(const struct gbnf *g)
{
    return g->m->status == STATUS_OK && g->at < g->length;
}

static char look(const struct gbnf *g)
{
    return g->at < g->length ? g->text[g->at] : '\0';
}

static bool take(struct gbnf *g, char c)
{
    bool found = g->at < g->length && g->text[g->at] == c;
    g->at += found;
    return found;
}

static void skip_space(struct gbnf *g)
{
    while (g->at < g->length && strchr(" \t\r\n#", g->text[g->at]) && g->text[g->at]) {
        if (g->text[g->at++] != '#')
            continue;
        while (g->at < g->length && g->text[g->at] != '\n')
            g->at++;
    }
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static size_t name_length(const struct gbnf *g)
{
    size_t n = 0;
    while (g->at + n < g->length && is_name(g->text[g->at + n]))
        n++;
    return n;
}

/* Whether here begins "name ::=". */
static bool at_rule(struct gbnf *g)
{
    size_t n = name_length(g), before = g->at;
    if (n == 0)
        return false;
    g->at += n;
    while (g->at < g->length && (g->text[g->at] == ' ' || g->text[g->at] == '\t'))
        g->at++;
    bool found = g->length - g->at >= 3 && memcmp(g->text + g->at, "::=", 3) == 0;
    g->at = before;
    return found;
}

static struct gbnf_name *name_of(struct gbnf *g, const char *text, size_t length)
{
    for (uint32_t i = 0; i < g->n_names; i++)
        if (g->names[i].length == length && memcmp(g->names[i].text, text, length) == 0)
            return &g->names[i];
    if (length > NAME_BYTES_MAX)
        refuse(g, STATUS_TOO_LARGE, "a rule's name is longer than 128 bytes");
    if (g->n_names == g->capacity) {
        uint32_t capacity = g->capacity ? 2 * g->capacity : 32;
        struct gbnf_name *names = maker_alloc(g->m, capacity * sizeof *names);
        if (!names)
            return NULL;
        if (g->n_names)
            memcpy(names, g->names, g->n_names * sizeof *names);
        g->names = names;
        g->capacity = capacity;
    }
    g->names[g->n_names] = (struct gbnf_name){text, length, rule_new(g->m, NULL), false};
    return g->m->status == STATUS_OK ? &g->names[g->n_names++] : NULL;
}

/* ---- characters */

static uint32_t take_hex(struct gbnf *g, unsigned n)
{
    uint32_t v = 0;
    for (unsigned i = 0; i < n; i++) {
        char c = look(g);
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0) {
            refuse(g, STATUS_FORMAT, "an escape lacks hex digits");
            return 0;
        }
        v = v * 16 + (uint32_t)d;
        g->at++;
    }
    if (v > CODE_POINT_MAX || (v >= 0xD800 && v <= 0xDFFF))
        refuse(g, STATUS_INVALID, "an escape is no character");
    return v;
}

static uint32_t take_character(struct gbnf *g)
{
    uint32_t c = 0;
    if (!take(g, '\\')) {
        if (!next_code_point(g->text, g->length, &g->at, &c))
            refuse(g, STATUS_FORMAT, "a text or class is not closed, or is no valid UTF-8");
        return c;
    }
    char e = look(g);
    g->at++;
    switch (e) {
    case 'x':
        return take_hex(g, 2);
    case 'u':
        return take_hex(g, 4);
    case 'U':
        return take_hex(g, 8);
    case 't':
        return '\t';
    case 'r':
        return '\r';
    case 'n':
        return '\n';
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^':
    case '\'':
    case '/':
        return (uint32_t)e;
    default:
        refuse(g, STATUS_FORMAT, "an unknown escape");
        return 0;
    }
}

static const struct expr *parse_text(struct gbnf *g)
{
    struct expr_list l = {0};
    while (goes_on(g) && look(g) != '"')
        list_add(g->m, &l, expr_code_point(g->m, take_character(g), SPELL_UTF8));
    if (!take(g, '"'))
        refuse(g, STATUS_FORMAT, "a text is not closed");
    return expr_seq(g->m, &l);
}

static const struct expr *parse_class(struct gbnf *g)
{
    struct ranges set = {0};
    bool negated = take(g, '^');
    while (goes_on(g) && look(g) != ']') {
        uint32_t lo = take_character(g), hi = lo;
        if (look(g) == '-' && g->at + 1 < g->length && g->text[g->at + 1] != ']') {
            g->at++;
            hi = take_character(g);
        }
        if (lo > hi)
            refuse(g, STATUS_INVALID, "a range runs backwards");
        ranges_add(g->m, &set, lo, hi);
    }
    if (!take(g, ']'))
        refuse(g, STATUS_FORMAT, "a class is not closed");
    if (negated)
        ranges_invert(g->m, &set);
    return expr_ranges(g->m, &set, SPELL_UTF8);
}

/* ---- structure */

static const struct expr *parse_alternatives(struct gbnf *g);

static const struct expr *parse_atom(struct gbnf *g)
{
    struct ranges all = {0};
    if (take(g, '"'))
        return parse_text(g);
    if (take(g, '['))
        return parse_class(g);
    if (take(g, '.')) {
        ranges_add(g->m, &all, 0, CODE_POINT_MAX);
        return expr_ranges(g->m, &all, SPELL_UTF8);
    }
    if (take(g, '(')) {
        if (++g->depth > GRAMMAR_DEPTH_MAX)
            refuse(g, STATUS_TOO_LARGE, "parentheses are nested deeper than 64");
        const struct expr *x = g->m->status == STATUS_OK ? parse_alternatives(g) : expr_never();
        g->depth--;
        skip_space(g);
        if (!take(g, ')'))
            refuse(g, STATUS_FORMAT, "a parenthesis is not closed");
        return x;
    }
    size_t n = name_length(g);
    if (n == 0) {
        refuse(g, look(g) == '<' ? STATUS_UNSUPPORTED : STATUS_FORMAT,
               look(g) == '<' ? "tokens in angle brackets are not supported"
                              : "expected a text, a class, a rule's name or a parenthesis");
        return expr_never();
    }
    const struct gbnf_name *name = name_of(g, g->text + g->at, n);
    g->at += n;
    return name ? expr_call(g->m, name->rule) : expr_never();
}

static bool take_number(struct gbnf *g, uint32_t *out)
{
    size_t begin = g->at;
    uint64_t v = 0;
    while (look(g) >= '0' && look(g) <= '9') {
        v = v * 10 + (uint64_t)(g->text[g->at++] - '0');
        v = v < REPEAT_FOREVER ? v : REPEAT_FOREVER - 1;
    }
    *out = (uint32_t)v;
    return g->at > begin;
}

/* Behind the '{'. */
static const struct expr *parse_counts(struct gbnf *g, const struct expr *x)
{
    uint32_t min = 0, max = 0;
    skip_space(g);
    bool has_min = take_number(g, &min);
    skip_space(g);
    bool comma = take(g, ',');
    skip_space(g);
    bool has_max = comma && take_number(g, &max);
    skip_space(g);
    if (!take(g, '}') || !(has_min || has_max))
        refuse(g, STATUS_FORMAT, "expected {m}, {m,} or {m,n}");
    if (!has_max)
        max = comma ? REPEAT_FOREVER : min;
    if (min > max)
        refuse(g, STATUS_INVALID, "a repetition's minimum is above its maximum");
    return expr_repeat(g->m, x, min, max);
}

static const struct expr *parse_repeated(struct gbnf *g)
{
    const struct expr *x = parse_atom(g);
    for (bool more = true; more && g->m->status == STATUS_OK;) {
        if (take(g, '*'))
            x = expr_repeat(g->m, x, 0, REPEAT_FOREVER);
        else if (take(g, '+'))
            x = expr_repeat(g->m, x, 1, REPEAT_FOREVER);
        else if (take(g, '?'))
            x = expr_repeat(g->m, x, 0, 1);
        else if (take(g, '{'))
            x = parse_counts(g, x);
        else
            more = false;
    }
    return x;
}

static const struct expr *parse_sequence(struct gbnf *g)
{
    struct expr_list l = {0};
    skip_space(g);
    while (goes_on(g) && look(g) != '|' && look(g) != ')' && (g->depth > 0 || !at_rule(g))) {
        list_add(g->m, &l, parse_repeated(g));
        skip_space(g);
    }
    return expr_seq(g->m, &l);
}

static const struct expr *parse_alternatives(struct gbnf *g)
{
    struct expr_list l = {0};
    do
        list_add(g->m, &l, parse_sequence(g));
    while (g->m->status == STATUS_OK && take(g, '|'));
    return expr_alt(g->m, &l);
}

static void parse_rule(struct gbnf *g)
{
    size_t n = name_length(g);
    if (!at_rule(g)) {
        refuse(g, STATUS_FORMAT, "expected a rule: name ::= …");
        return;
    }
    struct gbnf_name *name = name_of(g, g->text + g->at, n);
    if (!name)
        return;
    if (name->is_defined)
        refuse(g, STATUS_INVALID, "this rule is defined twice");
    name->is_defined = true;
    uint32_t rule = name->rule;
    g->at += n;
    skip_space(g);
    g->at += 3; /* ::= */
    rule_define(g->m, rule, parse_alternatives(g));
    if (look(g) == ')')
        refuse(g, STATUS_FORMAT, "a parenthesis closes that was not opened");
}

const struct expr *gbnf_parse(struct maker *m, const char *text, size_t length)
{
    struct gbnf g = {.m = m, .text = text, .length = length};
    skip_space(&g);
    while (goes_on(&g)) {
        parse_rule(&g);
        skip_space(&g);
    }
    const struct gbnf_name *root = NULL;
    for (uint32_t i = 0; i < g.n_names && m->status == STATUS_OK; i++) {
        const struct gbnf_name *name = &g.names[i];
        if (!name->is_defined)
            maker_fail(m, STATUS_INVALID, "grammar: the rule \"%.*s\" is used, but not defined",
                       (int)name->length, name->text);
        if (name->length == 4 && memcmp(name->text, "root", 4) == 0)
            root = name;
    }
    if (!root)
        maker_fail(m, STATUS_INVALID, "grammar: there is no rule named \"root\"");
    return root && m->status == STATUS_OK ? expr_call(m, root->rule) : expr_never();
}
