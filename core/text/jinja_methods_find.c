/* The methods of str that look into it: where something is, and what kind of characters it has. */
#include <string.h>

#include "jinja_methods.h"

/* The part of self between the arguments i and i + 1, taken as a slice's bounds; *start: its first character.
 */
static const struct jstr *window(struct render *r, const struct call *c, int i, size_t *start)
{
    const struct jstr *s = c->self.s;
    int64_t n = s->n_chars, from = 0, to = n;
    if ((c->a[i].tag != JV_NONE && !call_int(r, c, i, &from)) ||
        (c->a[i + 1].tag != JV_NONE && !call_int(r, c, i + 1, &to)))
        return NULL;
    from = from < 0 ? (from + n < 0 ? 0 : from + n) : from;
    to = to < 0 ? (to + n < 0 ? 0 : to + n) : to > n ? n : to;
    *start = (size_t)from;
    if (from > to) /* nothing is there, not even the empty string */
        return NULL;
    return jstr_part(r, s, jstr_offset(s, (size_t)from), jstr_offset(s, (size_t)to));
}

static bool has_prefix(const struct jstr *s, const struct jstr *prefix, bool at_end)
{
    return prefix->len <= s->len &&
           memcmp(s->data + (at_end ? s->len - prefix->len : 0), prefix->data, prefix->len) == 0;
}

static struct jv affix(struct render *r, const struct call *c, bool at_end)
{
    size_t start;
    const char *name = at_end ? "endswith" : "startswith";
    struct jv affixes = c->a[0];
    const struct jstr *s = window(r, c, 1, &start);
    if (!s)
        return r->err.status == STATUS_OK ? jv_bool(false) : jv_tagged(JV_ERROR);
    if (affixes.tag == JV_STR)
        return jv_bool(has_prefix(s, affixes.s, at_end));
    if (affixes.tag != JV_TUPLE)
        return jv_raise(r, "TypeError", "%s first arg must be str or a tuple of str, not %s", name,
                        jv_type_name(affixes));
    for (size_t i = 0; i < affixes.seq->n; i++) {
        struct jv one = affixes.seq->items[i];
        if (one.tag != JV_STR)
            return jv_raise(r, "TypeError", "tuple for %s must only contain str, not %s", name,
                            jv_type_name(one));
        if (has_prefix(s, one.s, at_end))
            return jv_bool(true);
    }
    return jv_bool(false);
}

static struct jv str_startswith(struct render *r, const struct call *c)
{
    return affix(r, c, false);
}

static struct jv str_endswith(struct render *r, const struct call *c)
{
    return affix(r, c, true);
}

static struct jv search(struct render *r, const struct call *c, bool from_right, bool must)
{
    size_t start = 0, found = JSTR_NONE;
    const struct jstr *what, *s;
    if (!need_str(r, c, 0, &what))
        return jv_tagged(JV_ERROR);
    s = window(r, c, 1, &start);
    if (s && !jv_step_bytes(r, s->len))
        return jv_tagged(JV_ERROR);
    if (s)
        found = from_right ? jstr_rfind(r, s, s->len, what) : jstr_find(s, 0, what);
    if (r->err.status != STATUS_OK)
        return jv_tagged(JV_ERROR);
    if (found != JSTR_NONE)
        return jv_int((int64_t)(start + jstr_count_chars(s->data, found)));
    return must ? jv_raise(r, "ValueError", "substring not found") : jv_int(-1);
}

static struct jv str_find(struct render *r, const struct call *c)
{
    return search(r, c, false, false);
}

static struct jv str_rfind(struct render *r, const struct call *c)
{
    return search(r, c, true, false);
}

static struct jv str_index(struct render *r, const struct call *c)
{
    return search(r, c, false, true);
}

static struct jv str_rindex(struct render *r, const struct call *c)
{
    return search(r, c, true, true);
}

static struct jv str_count(struct render *r, const struct call *c)
{
    size_t start;
    int64_t n = 0;
    const struct jstr *what, *s;
    if (!need_str(r, c, 0, &what))
        return jv_tagged(JV_ERROR);
    s = window(r, c, 1, &start);
    if (!s || !jv_step_bytes(r, s->len))
        return r->err.status == STATUS_OK ? jv_int(0) : jv_tagged(JV_ERROR);
    if (!what->len)
        return jv_int((int64_t)s->n_chars + 1);
    for (size_t at = 0; (at = jstr_find(s, at, what)) != JSTR_NONE; at += what->len)
        n++;
    return jv_int(n);
}

/* ---- what kind of characters */

static struct jv all_chars(const struct call *c, bool (*is)(uint32_t c), bool when_empty)
{
    const struct jstr *s = c->self.s;
    for (size_t at = 0, n; at < s->len; at += n)
        if (!is(jchar_decode(s->data + at, s->len - at, &n)))
            return jv_bool(false);
    return jv_bool(s->len > 0 || when_empty);
}

static bool is_alnum(uint32_t c)
{
    return jchar_is_alpha(c) || jchar_is_digit(c) || jchar_is_numeric(c);
}

static bool is_ascii(uint32_t c)
{
    return c < 0x80;
}

static struct jv str_isalnum(struct render *r, const struct call *c)
{
    (void)r;
    return all_chars(c, is_alnum, false);
}

static struct jv str_isalpha(struct render *r, const struct call *c)
{
    (void)r;
    return all_chars(c, jchar_is_alpha, false);
}

static struct jv str_isascii(struct render *r, const struct call *c)
{
    (void)r;
    return all_chars(c, is_ascii, true);
}

static struct jv str_isdecimal(struct render *r, const struct call *c)
{
    (void)r;
    return all_chars(c, jchar_is_decimal, false);
}

static struct jv str_isdigit(struct render *r, const struct call *c)
{
    (void)r;
    return all_chars(c, jchar_is_digit, false);
}

static struct jv str_isnumeric(struct render *r, const struct call *c)
{
    (void)r;
    return all_chars(c, jchar_is_numeric, false);
}

static struct jv str_isprintable(struct render *r, const struct call *c)
{
    (void)r;
    return all_chars(c, jchar_is_printable, true);
}

static struct jv str_isspace(struct render *r, const struct call *c)
{
    (void)r;
    return all_chars(c, jchar_is_space, false);
}

static struct jv str_isidentifier(struct render *r, const struct call *c)
{
    const struct jstr *s = c->self.s;
    (void)r;
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t ch = jchar_decode(s->data + at, s->len - at, &n);
        if (ch != '_' && !jchar_is_alpha(ch) && (at == 0 || !jchar_is_decimal(ch)))
            return jv_bool(false);
    }
    return jv_bool(s->len > 0);
}

/* Some cased character, and none of the other case. */
static struct jv one_case(const struct call *c, bool (*wanted)(uint32_t c), bool (*other)(uint32_t c))
{
    const struct jstr *s = c->self.s;
    bool any = false;
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t ch = jchar_decode(s->data + at, s->len - at, &n);
        if (other(ch) || jchar_is_title(ch))
            return jv_bool(false);
        any |= wanted(ch);
    }
    return jv_bool(any);
}

static struct jv str_islower(struct render *r, const struct call *c)
{
    (void)r;
    return one_case(c, jchar_is_lower, jchar_is_upper);
}

static struct jv str_isupper(struct render *r, const struct call *c)
{
    (void)r;
    return one_case(c, jchar_is_upper, jchar_is_lower);
}

static struct jv str_istitle(struct render *r, const struct call *c)
{
    const struct jstr *s = c->self.s;
    bool in_word = false, any = false;
    (void)r;
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t ch = jchar_decode(s->data + at, s->len - at, &n);
        bool upper = jchar_is_upper(ch) || jchar_is_title(ch), lower = jchar_is_lower(ch);
        if ((upper && in_word) || (lower && !in_word))
            return jv_bool(false);
        in_word = upper || lower;
        any |= in_word;
    }
    return jv_bool(any);
}

const struct builtin methods_str_find[] = {
    {"count", "sub start end", 1, str_count},
    {"endswith", "suffix start end", 1, str_endswith},
    {"find", "sub start end", 1, str_find},
    {"index", "sub start end", 1, str_index},
    {"isalnum", "", 0, str_isalnum},
    {"isalpha", "", 0, str_isalpha},
    {"isascii", "", 0, str_isascii},
    {"isdecimal", "", 0, str_isdecimal},
    {"isdigit", "", 0, str_isdigit},
    {"isidentifier", "", 0, str_isidentifier},
    {"islower", "", 0, str_islower},
    {"isnumeric", "", 0, str_isnumeric},
    {"isprintable", "", 0, str_isprintable},
    {"isspace", "", 0, str_isspace},
    {"istitle", "", 0, str_istitle},
    {"isupper", "", 0, str_isupper},
    {"rfind", "sub start end", 1, str_rfind},
    {"rindex", "sub start end", 1, str_rindex},
    {"startswith", "prefix start end", 1, str_startswith},
    {NULL, NULL, 0, NULL},
};
