/* Regular expressions, the part that Python's re, ECMAScript and PCRE agree upon: classes, groups,
 * alternatives, quantifiers (lazy ones match the same texts), anchors at the ends. What needs more than an
 * automaton (backreferences, lookaround, word borders) is refused by name.
 *
 * Where dialects differ in which characters \d, \w and \s take beyond ASCII, a class takes only what all of
 * them take, and a negated one only what none of them leaves out: whatever comes matches in each dialect. */
#include <stdio.h>
#include <string.h>

#include "grammar_inner.h"

struct regex {
    struct maker *m;
    const struct regex_options *o;
    const char *text;
    size_t length, at;
    uint32_t depth;
};

/* An expression and how many characters it matches; most UINT64_MAX: any number. */
struct piece {
    const struct expr *x;
    uint64_t least, most;
};
#define MANY UINT64_MAX

static struct piece parse_alternatives(struct regex *r);

static void refuse(struct regex *r, enum status s, const char *what)
{
    int shown = r->length < 80 ? (int)r->length : 80;
    maker_fail(r->m, s, "%s: %s, at byte %zu of \"%.*s\"", r->o->name, what, r->at, shown, r->text);
}

static bool ended(const struct regex *r)
{
    return r->m->status != STATUS_OK || r->at >= r->length;
}

static bool looking_at(const struct regex *r, const char *s)
{
    size_t n = strlen(s);
    return r->length - r->at >= n && memcmp(r->text + r->at, s, n) == 0;
}

static bool take(struct regex *r, const char *s)
{
    if (!looking_at(r, s))
        return false;
    r->at += strlen(s);
    return true;
}

static uint64_t plus(uint64_t a, uint64_t b)
{
    return a > MANY - b ? MANY : a + b;
}

static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t product;
    return a == 0 || b == 0 ? 0 : __builtin_mul_overflow(a, b, &product) ? MANY : product;
}

/* ---- characters */

static const struct range digits[] = {{'0', '9'}};
static const struct range words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
static const struct range spaces[] = {{'\t', '\r'}, {' ', ' '}};
/* Supersets: Unicode's decimal digits, letters and numbers, white space lie within. */
static const struct range wide_digits[] = {
    {'0', '9'}, {0x660, 0x1FFF}, {0xA620, 0xABFF}, {0xD7A4, 0x1EFFF}, {0x1FB00, CODE_POINT_MAX}};
static const struct range wide_words[] = {
    {'0', '9'},       {'A', 'Z'},       {'_', '_'},       {'a', 'z'},        {0x80, 0x200F},
    {0x2060, 0x209F}, {0x20D0, 0x218F}, {0x2400, 0x2FFF}, {0x3004, 0x1EFFF}, {0x1FB00, CODE_POINT_MAX}};
static const struct range wide_spaces[] = {{'\t', '\r'},     {0x1C, ' '},      {0x85, 0x85},
                                           {0xA0, 0xA0},     {0x1680, 0x1680}, {0x180E, 0x180E},
                                           {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                                           {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
#define COUNT(list) ((uint32_t)(sizeof(list) / sizeof *(list)))

static void add_list(struct maker *m, struct ranges *r, const struct range *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        ranges_add(m, r, list[i].lo, list[i].hi);
}

/* \d and its kind. `wide`: whatever any dialect takes. */
static bool add_named(struct maker *m, struct ranges *out, char name, bool wide)
{
    struct ranges r = {0};
    bool negated = name == 'D' || name == 'W' || name == 'S';
    bool from_wide = wide != negated;
    switch (name) {
    case 'd':
    case 'D':
        add_list(m, &r, from_wide ? wide_digits : digits, from_wide ? COUNT(wide_digits) : COUNT(digits));
        break;
    case 'w':
    case 'W':
        add_list(m, &r, from_wide ? wide_words : words, from_wide ? COUNT(wide_words) : COUNT(words));
        break;
    case 's':
    case 'S':
        add_list(m, &r, from_wide ? wide_spaces : spaces, from_wide ? COUNT(wide_spaces) : COUNT(spaces));
        break;
    default:
        return false;
    }
    if (negated)
        ranges_invert(m, &r);
    ranges_add_all(m, out, &r);
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* n hex digits at the place. */
static uint32_t take_hex(struct regex *r, unsigned n)
{
    uint32_t v = 0;
    for (unsigned i = 0; i < n; i++) {
        int d = r->at < r->length ? hex_digit(r->text[r->at]) : -1;
        if (d < 0) {
            refuse(r, STATUS_FORMAT, "an escape lacks hex digits");
            return 0;
        }
        v = v * 16 + (uint32_t)d;
        r->at++;
    }
    return v;
}

static uint32_t take_unicode(struct regex *r)
{
    uint32_t v = 0;
    if (!take(r, "{")) {
        v = take_hex(r, 4);
        if (v >= 0xD800 && v < 0xDC00 && take(r, "\\u")) { /* the two halves of one character */
            uint32_t low = take_hex(r, 4);
            v = low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((v - 0xD800) << 10) + (low - 0xDC00) : v;
        }
        return v;
    }
    size_t begin = r->at;
    while (r->at < r->length && hex_digit(r->text[r->at]) >= 0 && v <= CODE_POINT_MAX)
        v = v * 16 + (uint32_t)hex_digit(r->text[r->at++]);
    if (begin == r->at || v > CODE_POINT_MAX || !take(r, "}"))
        refuse(r, STATUS_FORMAT, "an escape lacks hex digits");
    return v;
}

/* Behind a backslash: one character; what needs more is refused. */
static uint32_t take_escape(struct regex *r, bool in_class)
{
    static const char letters[] = "nrtfv0", meant[] = "\n\r\t\f\v";
    if (r->at >= r->length) {
        refuse(r, STATUS_FORMAT, "it ends in a backslash");
        return 0;
    }
    char c = r->text[r->at++];
    const char *found = strchr(letters, c);
    if (c == 'b' && in_class)
        return '\b';
    if (c == 'a')
        return '\a';
    if (found && (c != '0' || ended(r) || r->text[r->at] < '0' || r->text[r->at] > '9'))
        return (uint32_t)(unsigned char)meant[found - letters];
    if (c == 'x')
        return take_hex(r, 2);
    if (c == 'u')
        return take_unicode(r);
    if (c == 'U')
        return take_hex(r, 8);
    if (c == 'c' && r->at < r->length)
        return (uint32_t)r->text[r->at++] & 31;
    if ((c >= '0' && c <= '9') || c == 'k' || c == 'g')
        refuse(r, STATUS_UNSUPPORTED, "backreferences are not supported");
    else if (c == 'b' || c == 'B')
        refuse(r, STATUS_UNSUPPORTED, "word borders (\\b, \\B) are not supported");
    else if (c == 'p' || c == 'P')
        refuse(r, STATUS_UNSUPPORTED, "Unicode properties (\\p) are not supported");
    else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        refuse(r, STATUS_UNSUPPORTED, "this escape is not supported");
    if ((unsigned char)c < 0x80)
        return (uint32_t)c;
    uint32_t v = 0;
    r->at--;
    if (!next_code_point(r->text, r->length, &r->at, &v))
        refuse(r, STATUS_FORMAT, "it is not valid UTF-8");
    return v;
}

static bool is_named(const struct regex *r)
{
    return r->length - r->at >= 2 && r->text[r->at] == '\\' && strchr("dDwWsS", r->text[r->at + 1]);
}

static uint32_t take_character(struct regex *r, bool in_class)
{
    uint32_t c = 0;
    if (take(r, "\\"))
        return take_escape(r, in_class);
    if (!next_code_point(r->text, r->length, &r->at, &c))
        refuse(r, STATUS_FORMAT, "it is not valid UTF-8");
    return c;
}

/* Behind the '['. */
static const struct expr *parse_class(struct regex *r)
{
    struct ranges set = {0};
    bool negated = take(r, "^"), first = true;
    for (; !ended(r) && (first || r->text[r->at] != ']'); first = false) {
        if (first && r->text[r->at] == ']' && !negated && r->at + 1 < r->length &&
            !memchr(r->text + r->at + 1, ']', r->length - r->at - 1))
            break; /* "[]" with nothing behind it: ECMAScript's empty class */
        if (is_named(r)) {
            add_named(r->m, &set, r->text[r->at + 1], negated);
            r->at += 2;
            continue;
        }
        if (looking_at(r, "[:"))
            refuse(r, STATUS_UNSUPPORTED, "POSIX classes are not supported");
        uint32_t lo = take_character(r, true), hi = lo;
        if (looking_at(r, "-") && r->at + 1 < r->length && r->text[r->at + 1] != ']') {
            r->at++;
            if (is_named(r))
                refuse(r, STATUS_FORMAT, "a range ends in a class");
            hi = take_character(r, true);
        }
        if (lo > hi)
            refuse(r, STATUS_FORMAT, "a range runs backwards");
        ranges_add(r->m, &set, lo, hi);
    }
    if (!take(r, "]"))
        refuse(r, STATUS_FORMAT, "a class is not closed");
    if (negated)
        ranges_invert(r->m, &set);
    return expr_ranges(r->m, &set, r->o->spelling);
}

static const struct expr *any_character(struct regex *r, bool lines_too)
{
    static const struct range lines[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
    struct ranges set = {0};
    if (!lines_too)
        add_list(r->m, &set, lines, r->o->search ? COUNT(lines) : 1);
    ranges_invert(r->m, &set);
    return expr_ranges(r->m, &set, r->o->spelling);
}

/* ---- structure */

static struct piece parse_group(struct regex *r)
{
    struct piece p = {expr_never(), 0, 0};
    if (take(r, "?")) {
        bool named = take(r, "P<") || (looking_at(r, "<") && !looking_at(r, "<=") && !looking_at(r, "<!"));
        if (named) {
            while (!ended(r) && r->text[r->at] != '>')
                r->at++;
            take(r, ">");
        } else if (looking_at(r, "=") || looking_at(r, "!") || looking_at(r, "<")) {
            refuse(r, STATUS_UNSUPPORTED, "lookahead and lookbehind are not supported");
        } else if (looking_at(r, "P=") || looking_at(r, "P>") || looking_at(r, "(")) {
            refuse(r, STATUS_UNSUPPORTED, "backreferences and conditions are not supported");
        } else if (!take(r, ":")) {
            refuse(r, STATUS_UNSUPPORTED, "flags and special groups are not supported");
        }
    }
    if (++r->depth > GRAMMAR_DEPTH_MAX)
        maker_fail(r->m, STATUS_TOO_LARGE, "%s: groups are nested deeper than %u", r->o->name,
                   GRAMMAR_DEPTH_MAX);
    if (r->m->status == STATUS_OK)
        p = parse_alternatives(r);
    r->depth--;
    if (!take(r, ")"))
        refuse(r, STATUS_FORMAT, "a group is not closed");
    return p;
}

static struct piece parse_atom(struct regex *r)
{
    const struct expr *x;
    if (take(r, "("))
        return parse_group(r);
    if (take(r, "[")) {
        x = parse_class(r);
    } else if (take(r, ".")) {
        x = any_character(r, false);
    } else if (is_named(r)) {
        struct ranges set = {0};
        add_named(r->m, &set, r->text[r->at + 1], false);
        r->at += 2;
        x = expr_ranges(r->m, &set, r->o->spelling);
    } else if (looking_at(r, "*") || looking_at(r, "+") || looking_at(r, "?")) {
        refuse(r, STATUS_FORMAT, "a quantifier has nothing before it");
        x = expr_never();
    } else if (looking_at(r, "^") || looking_at(r, "$") || looking_at(r, "\\A") || looking_at(r, "\\Z") ||
               looking_at(r, "\\z")) {
        refuse(r, STATUS_UNSUPPORTED, "an anchor may only stand at the ends of an outermost alternative");
        x = expr_never();
    } else {
        x = expr_code_point(r->m, take_character(r, false), r->o->spelling);
    }
    return (struct piece){x, 1, 1};
}

/* A number at the place; false: none. */
static bool take_number(struct regex *r, uint32_t *out)
{
    size_t begin = r->at;
    uint64_t v = 0;
    while (r->at < r->length && r->text[r->at] >= '0' && r->text[r->at] <= '9') {
        v = v * 10 + (uint64_t)(r->text[r->at++] - '0');
        v = v < REPEAT_FOREVER ? v : REPEAT_FOREVER - 1;
    }
    *out = (uint32_t)v;
    return r->at > begin;
}

/* {m}, {m,}, {,n}, {m,n}; false and nothing taken where the brace is a character. */
static bool take_counts(struct regex *r, uint32_t *min, uint32_t *max)
{
    size_t begin = r->at;
    *min = 0;
    *max = REPEAT_FOREVER;
    bool has_min = take(r, "{") && take_number(r, min), comma = take(r, ",");
    bool has_max = comma && take_number(r, max);
    if ((has_min || has_max) && take(r, "}")) {
        *max = has_max ? *max : comma ? REPEAT_FOREVER : *min;
        if (*min > *max)
            refuse(r, STATUS_FORMAT, "a quantifier's minimum is above its maximum");
        return true;
    }
    r->at = begin;
    return false;
}

static struct piece parse_repeated(struct regex *r)
{
    struct piece p = parse_atom(r);
    uint32_t min = 0, max = 0;
    bool repeated = true;
    if (r->m->status != STATUS_OK)
        return p;
    if (take(r, "*"))
        max = REPEAT_FOREVER;
    else if (take(r, "+"))
        min = 1, max = REPEAT_FOREVER;
    else if (take(r, "?"))
        max = 1;
    else
        repeated = looking_at(r, "{") && take_counts(r, &min, &max);
    if (!repeated)
        return p;
    if (looking_at(r, "+"))
        refuse(r, STATUS_UNSUPPORTED, "possessive quantifiers are not supported");
    take(r, "?"); /* lazy: the same texts */
    if (looking_at(r, "*") || looking_at(r, "?"))
        refuse(r, STATUS_FORMAT, "two quantifiers stand behind each other");
    p.x = expr_repeat(r->m, p.x, min, max);
    p.least = times(p.least, min);
    p.most = max == REPEAT_FOREVER ? (p.most ? MANY : 0) : times(p.most, max);
    return p;
}

static bool at_end_anchor(const struct regex *r)
{
    return looking_at(r, "$") || looking_at(r, "\\Z") || looking_at(r, "\\z");
}

/* One alternative. Anchors are looked for at its ends where it is an outermost one. */
static struct piece parse_sequence(struct regex *r, bool outermost)
{
    struct expr_list l = {0};
    struct piece all = {NULL, 0, 0};
    bool begins = outermost && (take(r, "^") || take(r, "\\A")), ends = false;
    while (!ended(r) && !looking_at(r, "|") && !looking_at(r, ")") && !ends) {
        if (outermost && at_end_anchor(r)) {
            ends = true;
            r->at += looking_at(r, "$") ? 1 : 2;
            if (!ended(r) && !looking_at(r, "|"))
                refuse(r, STATUS_UNSUPPORTED, "an anchor is followed by more");
            continue;
        }
        struct piece p = parse_repeated(r);
        list_add(r->m, &l, p.x);
        all.least = plus(all.least, p.least);
        all.most = plus(all.most, p.most);
    }
    all.x = expr_seq(r->m, &l);
    if (!outermost || !r->o->search)
        return all;
    const struct expr *any = expr_repeat(r->m, any_character(r, true), 0, REPEAT_FOREVER);
    if (!begins)
        all.x = expr_seq2(r->m, any, all.x);
    if (!ends)
        all.x = expr_seq2(r->m, all.x, any);
    if (!begins || !ends)
        all.most = MANY;
    return all;
}

static struct piece parse_alternatives(struct regex *r)
{
    struct expr_list l = {0};
    struct piece all = {NULL, MANY, 0};
    bool outermost = r->depth == 0;
    do {
        struct piece p = parse_sequence(r, outermost);
        list_add(r->m, &l, p.x);
        all.least = p.least < all.least ? p.least : all.least;
        all.most = p.most > all.most ? p.most : all.most;
    } while (r->m->status == STATUS_OK && take(r, "|"));
    all.x = expr_alt(r->m, &l);
    return all;
}

const struct expr *regex_parse(struct maker *m, const char *text, size_t length,
                               const struct regex_options *o, uint64_t *n_min, uint64_t *n_max)
{
    struct regex r = {.m = m, .o = o, .text = text, .length = length};
    struct piece p = parse_alternatives(&r);
    if (m->status == STATUS_OK && r.at < length)
        refuse(&r, STATUS_FORMAT, "a bracket closes that was not opened");
    if (n_min)
        *n_min = p.least;
    if (n_max)
        *n_max = p.most;
    return m->status == STATUS_OK ? p.x : expr_never();
}
