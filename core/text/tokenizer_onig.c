/* Patterns of a tokenizer.json are written for Oniguruma (Ruby syntax, Unicode); we match with PCRE2 (UTF,
 * UCP, multi-line). This file rewrites one into the other so that both match the same text, and refuses by
 * name what has no exact counterpart. Where they differ:
 *
 *   \s is White_Space (PCRE2 counts U+180E in) · \w is Alphabetic, M, Nd, Pc, and outside brackets ²³¹¼½¾ too
 *   (PCRE2 10.42: L, N, _) · \h is a hex digit · \v is one control character · \p{Han} is the script (PCRE2:
 * its extensions) · X{1,3}+ repeats the interval (PCRE2: possessive) · [a[bc]] and [a&&[^b]] are sets (PCRE2:
 *   literal brackets).
 *
 * Source: Oniguruma doc/RE and doc/SYNTAX.md; pcre2pattern(3). No state beyond one call. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "tokenizer_inner.h"
#include "utf8.h"

#define DEPTH_MAX 40
#define WORD_SET "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define WORD_ALONE WORD_SET "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define HEX_SET "0-9A-Fa-f"

struct translator {
    const char *in;
    size_t length, at;
    struct buf *out;
    unsigned depth;
    struct error *err;
};

/* A bracket expression: the members of one set, as PCRE2 writes them between brackets, or a whole item. */
struct char_class {
    struct buf members;
    bool negated;
    bool item; /* `members` is an item of its own, brackets included (an intersection) */
};

static enum status refuse(struct translator *t, const char *what)
{
    return fail(t->err, STATUS_UNSUPPORTED, "pattern, character %zu: %s is not supported", t->at + 1, what);
}

static enum status malformed(struct translator *t, const char *what)
{
    return fail(t->err, STATUS_FORMAT, "pattern, character %zu: %s", t->at + 1, what);
}

static bool at_text(const struct translator *t, const char *s)
{
    size_t n = strlen(s);
    return t->length - t->at >= n && memcmp(t->in + t->at, s, n) == 0;
}

/* ---- properties */

struct property {
    const char *name; /* as Oniguruma knows it, lower case, without spaces, _ and - */
    const char *set;  /* members for a PCRE2 class; \p{X} alone can be turned into \P{X} */
};
static const struct property properties[] = {
    {"letter", "\\p{L}"},
    {"casedletter", "\\p{L&}"},
    {"lc", "\\p{L&}"},
    {"uppercaseletter", "\\p{Lu}"},
    {"lowercaseletter", "\\p{Ll}"},
    {"titlecaseletter", "\\p{Lt}"},
    {"modifierletter", "\\p{Lm}"},
    {"otherletter", "\\p{Lo}"},
    {"mark", "\\p{M}"},
    {"combiningmark", "\\p{M}"},
    {"nonspacingmark", "\\p{Mn}"},
    {"spacingmark", "\\p{Mc}"},
    {"enclosingmark", "\\p{Me}"},
    {"number", "\\p{N}"},
    {"decimalnumber", "\\p{Nd}"},
    {"digit", "\\p{Nd}"},
    {"letternumber", "\\p{Nl}"},
    {"othernumber", "\\p{No}"},
    {"punctuation", "\\p{P}"},
    {"punct", "\\p{P}"},
    {"connectorpunctuation", "\\p{Pc}"},
    {"dashpunctuation", "\\p{Pd}"},
    {"openpunctuation", "\\p{Ps}"},
    {"closepunctuation", "\\p{Pe}"},
    {"initialpunctuation", "\\p{Pi}"},
    {"finalpunctuation", "\\p{Pf}"},
    {"otherpunctuation", "\\p{Po}"},
    {"symbol", "\\p{S}"},
    {"mathsymbol", "\\p{Sm}"},
    {"currencysymbol", "\\p{Sc}"},
    {"modifiersymbol", "\\p{Sk}"},
    {"othersymbol", "\\p{So}"},
    {"separator", "\\p{Z}"},
    {"spaceseparator", "\\p{Zs}"},
    {"lineseparator", "\\p{Zl}"},
    {"paragraphseparator", "\\p{Zp}"},
    {"other", "\\p{C}"},
    {"control", "\\p{Cc}"},
    {"cntrl", "\\p{Cc}"},
    {"format", "\\p{Cf}"},
    {"unassigned", "\\p{Cn}"},
    {"privateuse", "\\p{Co}"},
    {"alpha", "\\p{Alphabetic}"},
    {"alphabetic", "\\p{Alphabetic}"},
    {"upper", "\\p{Uppercase}"},
    {"uppercase", "\\p{Uppercase}"},
    {"lower", "\\p{Lowercase}"},
    {"lowercase", "\\p{Lowercase}"},
    {"space", "\\p{White_Space}"},
    {"whitespace", "\\p{White_Space}"},
    {"any", "\\p{Any}"},
    {"ascii", "\\p{ASCII}"},
    {"emoji", "\\p{Emoji}"},
    {"emojipresentation", "\\p{Emoji_Presentation}"},
    {"emojimodifier", "\\p{Emoji_Modifier}"},
    {"emojimodifierbase", "\\p{Emoji_Modifier_Base}"},
    {"emojicomponent", "\\p{Emoji_Component}"},
    {"extendedpictographic", "\\p{Extended_Pictographic}"},
    {"ideographic", "\\p{Ideographic}"},
    {"unifiedideograph", "\\p{Unified_Ideograph}"},
    {"math", "\\p{Math}"},
    {"dash", "\\p{Dash}"},
    {"diacritic", "\\p{Diacritic}"},
    {"cased", "\\p{Cased}"},
    {"idstart", "\\p{ID_Start}"},
    {"idcontinue", "\\p{ID_Continue}"},
    {"xdigit", HEX_SET},
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"word", WORD_SET},
};
static const char *const categories[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me",
                                         "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi",
                                         "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl",
                                         "Zp", "C",  "Cc", "Cf", "Cn", "Co", "Cs"};

/* The class members that a property name stands for, in `set`; a name that we don't know is a script's, and
 * PCRE2 refuses it later if it is none. */
static bool property_set(const char *name, size_t length, char *set, size_t set_bytes)
{
    char plain[48];
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        if (name[i] == ' ' || name[i] == '_' || name[i] == '-')
            continue;
        if (!isalnum((unsigned char)name[i]) || n + 1 >= sizeof plain)
            return false;
        plain[n++] = (char)tolower((unsigned char)name[i]);
    }
    plain[n] = '\0';
    for (size_t i = 0; i < sizeof categories / sizeof *categories; i++)
        if (strcasecmp(categories[i], plain) == 0)
            return snprintf(set, set_bytes, "\\p{%s}", categories[i]) > 0;
    for (size_t i = 0; i < sizeof properties / sizeof *properties; i++)
        if (strcmp(properties[i].name, plain) == 0)
            return snprintf(set, set_bytes, "%s", properties[i].set) > 0;
    return n > 0 && snprintf(set, set_bytes, "\\p{sc:%s}", plain) > 0;
}

/* Is the set one \p{X}, which may stand without brackets and be negated as \P{X}? */
static bool set_is_single(const char *set)
{
    const char *end = strchr(set, '}');
    return strncmp(set, "\\p{", 3) == 0 && end && !end[1];
}

static bool set_negate(char *set)
{
    if (!set_is_single(set))
        return false;
    set[1] = 'P';
    return true;
}

/* ---- escapes */

/* What a backslash escape means: members of a class, or one character. */
struct escape {
    char set[96];
    bool negated;  /* the class of all others */
    uint32_t code; /* a character when set is empty */
};

static int hex_digits(const struct translator *t, size_t from, size_t most, uint32_t *value)
{
    int n = 0;
    *value = 0;
    while ((size_t)n < most && from + (size_t)n < t->length &&
           isxdigit((unsigned char)t->in[from + (size_t)n])) {
        int c = tolower((unsigned char)t->in[from + (size_t)n]);
        *value = *value * 16 + (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
        n++;
    }
    return n;
}

static enum status escape_property(struct translator *t, struct escape *e, bool negated)
{
    const char *close = at_text(t, "{") ? memchr(t->in + t->at, '}', t->length - t->at) : NULL;
    if (!close)
        return malformed(t, "\\p without {name}");
    const char *name = t->in + t->at + 1;
    if (*name == '^') {
        negated = !negated;
        name++;
    }
    if (!property_set(name, (size_t)(close - name), e->set, sizeof e->set))
        return refuse(t, "this \\p{name}");
    e->negated = negated;
    t->at = (size_t)(close - t->in) + 1;
    return STATUS_OK;
}

static enum status escape_hex(struct translator *t, struct escape *e, char kind)
{
    int n;
    if (kind == 'u') {
        n = hex_digits(t, t->at, 4, &e->code);
        if (n != 4)
            return malformed(t, "\\u without four hex digits");
    } else if (at_text(t, "{")) {
        n = hex_digits(t, t->at + 1, 6, &e->code);
        if (n == 0 || t->at + 1 + (size_t)n >= t->length || t->in[t->at + 1 + (size_t)n] != '}')
            return malformed(t, "a \\x{…} that is no hex number");
        n += 2;
    } else {
        n = hex_digits(t, t->at, 2, &e->code);
        if (n == 0 || e->code >= 0x80)
            return refuse(t, "\\xHH that is no ASCII character");
    }
    if (e->code > 0x10FFFF || (e->code >= 0xD800 && e->code <= 0xDFFF))
        return refuse(t, "an escape above U+10FFFF or a surrogate");
    t->at += (size_t)n;
    return STATUS_OK;
}

/* t->at is behind the backslash. Anchors and the like are the caller's. */
static enum status parse_escape(struct translator *t, struct escape *e)
{
    static const char from[] = "ntrfvae";
    static const char to[] = "\n\t\r\f\v\a\033";
    *e = (struct escape){.code = 0};
    if (t->at >= t->length)
        return malformed(t, "a backslash at the end");
    char c = t->in[t->at];
    const char *control = memchr(from, c, sizeof from - 1);
    if ((unsigned char)c >= 0x80 || ispunct((unsigned char)c) || c == ' ') {
        t->at += utf8_step(t->in + t->at, t->length - t->at, &e->code);
        return STATUS_OK;
    }
    t->at++;
    if (control) {
        e->code = (unsigned char)to[control - from];
        return STATUS_OK;
    }
    const char *set = NULL;
    switch (c) {
    case 's':
    case 'S':
        set = "\\p{White_Space}";
        break;
    case 'd':
    case 'D':
        set = "\\p{Nd}";
        break;
    case 'w':
    case 'W':
        set = WORD_SET;
        break;
    case 'h':
    case 'H':
        set = HEX_SET;
        break;
    case 'p':
    case 'P':
        return escape_property(t, e, c == 'P');
    case 'x':
    case 'u':
        return escape_hex(t, e, c);
    default:
        t->at--;
        return refuse(t, "this escape");
    }
    snprintf(e->set, sizeof e->set, "%s", set);
    e->negated = isupper((unsigned char)c) != 0;
    return STATUS_OK;
}

/* One character, escaped where PCRE2 would read it as something else. */
static void put_literal(struct buf *out, uint32_t code)
{
    char c[4];
    if (code < 0x20 || code == 0x7F) {
        buf_printf(out, "\\x{%x}", code);
        return;
    }
    if (code < 0x80 && ispunct((int)code))
        buf_putc(out, '\\');
    buf_append(out, c, utf8_put(c, code));
}

/* ---- bracket expressions */

static enum status parse_class(struct translator *t, struct char_class *c);

/* [:name:] inside brackets. */
static enum status class_posix(struct translator *t, struct buf *members)
{
    size_t start = t->at + 2;
    bool negated = start < t->length && t->in[start] == '^';
    size_t end = start += negated;
    while (end < t->length && isalpha((unsigned char)t->in[end]))
        end++;
    char set[96];
    if (end + 1 >= t->length || t->in[end] != ':' || t->in[end + 1] != ']')
        return refuse(t, "this [:name:]");
    bool known = end - start == 5 && memcmp(t->in + start, "punct", 5) == 0
                     ? snprintf(set, sizeof set, "\\p{P}\\p{S}") > 0
                     : property_set(t->in + start, end - start, set, sizeof set) && !strstr(set, "sc:");
    if (!known || (negated && !set_negate(set)))
        return refuse(t, "this [:name:]");
    buf_puts(members, set);
    t->at = end + 2;
    return STATUS_OK;
}

/* [..] inside brackets: its members join ours; alone in its operand it may be negated. */
static enum status class_nested(struct translator *t, struct char_class *c, bool alone)
{
    struct char_class inner = {.negated = false};
    enum status s = parse_class(t, &inner);
    if (s == STATUS_OK && !inner.item && !inner.negated) {
        buf_append(&c->members, inner.members.data, inner.members.length);
    } else if (s == STATUS_OK && !inner.item && alone && (at_text(t, "]") || at_text(t, "&&"))) {
        buf_append(&c->members, inner.members.data, inner.members.length);
        c->negated = true;
    } else if (s == STATUS_OK) {
        s = refuse(t, "a negated set inside another");
    }
    buf_fini(&inner.members);
    return s;
}

/* One member: a character, a range, or an escape that stands for a set. */
static enum status class_member(struct translator *t, struct buf *members)
{
    struct escape e = {.code = 0};
    for (int end = 0;; end++) {
        enum status s = STATUS_OK;
        e = (struct escape){.code = 0};
        if (at_text(t, "\\b")) {
            e.code = 8;
            t->at += 2;
        } else if (at_text(t, "\\")) {
            t->at++;
            s = parse_escape(t, &e);
        } else {
            t->at += utf8_step(t->in + t->at, t->length - t->at, &e.code);
        }
        if (s != STATUS_OK)
            return s;
        if (e.set[0]) {
            if (end || (e.negated && !set_negate(e.set)))
                return refuse(t, end ? "a range that ends in a set" : "this negated set inside brackets");
            buf_puts(members, e.set);
            return STATUS_OK;
        }
        put_literal(members, e.code);
        bool range =
            !end && at_text(t, "-") && t->at + 1 < t->length && t->in[t->at + 1] != ']' && !at_text(t, "-[");
        if (!range)
            return STATUS_OK;
        buf_putc(members, '-');
        t->at++;
    }
}

/* Adds one operand of && to `item` as a look-ahead, or as the set itself when it is the last. */
static void put_operand(struct buf *item, const struct char_class *c, bool last)
{
    buf_printf(item, "%s[%s%s]%s", last ? "" : "(?=", c->negated ? "^" : "", c->members.data,
               last ? "" : ")");
}

/* t->at is at the opening bracket. */
static enum status parse_class(struct translator *t, struct char_class *c)
{
    if (++t->depth > DEPTH_MAX)
        return refuse(t, "nesting this deep");
    buf_init(&c->members, 1 << 16);
    struct buf item;
    buf_init(&item, 1 << 16);
    t->at++;
    bool negated = at_text(t, "^");
    t->at += negated;
    enum status s = STATUS_OK;
    while (s == STATUS_OK && t->at < t->length && t->in[t->at] != ']') {
        bool alone = c->members.length == 0;
        if (at_text(t, "&&") && alone) {
            s = malformed(t, "&& without a set before it");
        } else if (at_text(t, "&&")) {
            put_operand(&item, c, false);
            buf_clear(&c->members);
            c->negated = false;
            t->at += 2;
        } else if (at_text(t, "[:")) {
            s = class_posix(t, &c->members);
        } else if (at_text(t, "[")) {
            s = class_nested(t, c, alone);
        } else {
            s = class_member(t, &c->members);
        }
    }
    if (s == STATUS_OK && t->at >= t->length)
        s = malformed(t, "a set without its closing bracket");
    if (s == STATUS_OK && c->members.length == 0)
        s = malformed(t, "an empty set");
    if (s == STATUS_OK && item.length > 0) {
        put_operand(&item, c, true);
        buf_clear(&c->members);
        buf_printf(&c->members, negated ? "(?!%s)(?s:.)" : "%s", item.data);
        c->item = true;
        c->negated = false;
    } else if (negated) {
        c->negated = !c->negated;
    }
    buf_fini(&item);
    t->at++;
    t->depth--;
    return s;
}

/* ---- everything outside brackets */

static enum status translate_escape(struct translator *t)
{
    static const char *const same[] = {"\\A", "\\z", "\\Z", "\\R", "\\N"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        if (at_text(t, same[i])) {
            buf_puts(t->out, same[i]);
            t->at += 2;
            return STATUS_OK;
        }
    }
    if (at_text(t, "\\b") || at_text(t, "\\B")) {
        char yes = t->in[t->at + 1] == 'B' ? '=' : '!', no = yes == '=' ? '!' : '=';
        buf_printf(t->out, "(?:(?<=[%s])(?%c[%s])|(?<![%s])(?%c[%s]))", WORD_ALONE, yes, WORD_ALONE,
                   WORD_ALONE, no, WORD_ALONE);
        t->at += 2;
        return STATUS_OK;
    }
    if (at_text(t, "\\O")) {
        buf_puts(t->out, "(?s:.)");
        t->at += 2;
        return STATUS_OK;
    }
    t->at++;
    struct escape e;
    enum status s = parse_escape(t, &e);
    if (s != STATUS_OK)
        return s;
    if (!e.set[0])
        put_literal(t->out, e.code);
    else if (set_is_single(e.set) && (!e.negated || set_negate(e.set)))
        buf_puts(t->out, e.set);
    else
        buf_printf(t->out, "[%s%s]", e.negated ? "^" : "", strcmp(e.set, WORD_SET) == 0 ? WORD_ALONE : e.set);
    return STATUS_OK;
}

/* {n}, {n,}, {n,m} or {,m} at t->at: its length, 0 if this is none. */
static size_t interval_length(const struct translator *t)
{
    size_t i = t->at + 1, digits = 0, commas = 0;
    for (; i < t->length && (isdigit((unsigned char)t->in[i]) || (t->in[i] == ',' && commas == 0)); i++) {
        digits += t->in[i] != ',';
        commas += t->in[i] == ',';
    }
    return digits > 0 && i < t->length && t->in[i] == '}' ? i + 1 - t->at : 0;
}

static bool wrap_atom(struct buf *out, size_t atom)
{
    if (!buf_puts(out, "(?:)"))
        return false;
    memmove(out->data + atom + 3, out->data + atom, out->length - 4 - atom);
    memcpy(out->data + atom, "(?:", 3);
    out->data[out->length - 1] = ')';
    return true;
}

/* The quantifiers behind an atom that begins at `atom` of the output. */
static enum status translate_quantifiers(struct translator *t, size_t atom)
{
    for (bool repeated = false; t->at < t->length; repeated = true) {
        char c = t->in[t->at];
        size_t n = c == '{' ? interval_length(t) : strchr("*+?", c) && c ? 1 : 0;
        if (n == 0)
            return STATUS_OK;
        if (repeated && !wrap_atom(t->out, atom))
            return fail(t->err, STATUS_NO_MEMORY, "pattern: not enough memory");
        if (c == '{' && t->in[t->at + 1] == ',')
            buf_printf(t->out, "{0%.*s", (int)(n - 1), t->in + t->at + 1);
        else
            buf_append(t->out, t->in + t->at, n);
        bool exact = c == '{' && !memchr(t->in + t->at, ',', n);
        t->at += n;
        if (at_text(t, "?") && exact)
            return refuse(t, "{n}?");
        if (at_text(t, "?") || (at_text(t, "+") && c != '{')) {
            buf_putc(t->out, t->in[t->at]);
            t->at++;
        }
    }
    return STATUS_OK;
}

static enum status translate_sequence(struct translator *t);

static enum status translate_group(struct translator *t, bool first)
{
    static const char *const heads[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"};
    if (at_text(t, "(?i)")) {
        if (!first)
            return refuse(t, "(?i) in the middle");
        buf_puts(t->out, "(?i)");
        t->at += 4;
        return STATUS_OK;
    }
    const char *head = "(?:"; /* a capture is never looked at */
    size_t skip = 1;
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        if (at_text(t, heads[i])) {
            head = heads[i];
            skip = strlen(head);
        }
    }
    if (skip == 1 && at_text(t, "(?"))
        return refuse(t, "this kind of group");
    buf_puts(t->out, head);
    t->at += skip;
    if (++t->depth > DEPTH_MAX)
        return refuse(t, "nesting this deep");
    enum status s = translate_sequence(t);
    t->depth--;
    if (s != STATUS_OK)
        return s;
    if (!at_text(t, ")"))
        return malformed(t, "a group without its closing parenthesis");
    t->at++;
    buf_putc(t->out, ')');
    return STATUS_OK;
}

static enum status translate_class(struct translator *t)
{
    struct char_class c = {.negated = false};
    enum status s = parse_class(t, &c);
    if (s == STATUS_OK)
        buf_printf(t->out, c.item ? "(?:%s%s)" : "[%s%s]", c.negated ? "^" : "", c.members.data);
    buf_fini(&c.members);
    return s;
}

/* Up to the end or a closing parenthesis. */
static enum status translate_sequence(struct translator *t)
{
    size_t begin = t->at;
    while (t->at < t->length && t->in[t->at] != ')') {
        size_t atom = t->out->length;
        char c = t->in[t->at];
        enum status s = STATUS_OK;
        if (c == '(') {
            s = translate_group(t, t->at == begin);
        } else if (c == '[') {
            s = translate_class(t);
        } else if (c == '\\') {
            s = translate_escape(t);
        } else if (strchr(".^$|", c) && c) {
            buf_putc(t->out, c);
            t->at++;
        } else if ((strchr("*+?", c) && c) || (c == '{' && interval_length(t))) {
            s = malformed(t, "a quantifier without something to repeat");
        } else {
            uint32_t code;
            t->at += utf8_step(t->in + t->at, t->length - t->at, &code);
            put_literal(t->out, code);
        }
        if (s == STATUS_OK && c != '|')
            s = translate_quantifiers(t, atom);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

enum status onig_translate(const char *onig, size_t length, struct buf *out, struct error *err)
{
    struct translator t = {.in = onig, .length = length, .out = out, .err = err};
    if (!utf8_is_valid(onig, length))
        return fail(err, STATUS_FORMAT, "pattern: it is not UTF-8");
    enum status s = translate_sequence(&t);
    if (s == STATUS_OK && t.at < length)
        s = malformed(&t, "a closing parenthesis without its group");
    if (s == STATUS_OK && out->failed)
        s = fail(err, STATUS_NO_MEMORY, "pattern: not enough memory");
    return s;
}
