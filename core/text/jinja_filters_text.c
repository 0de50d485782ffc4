/* Filters that make text of text. Those that Python's Jinja applies to str(value) give plain text; those that
 * call the string's own method keep what |safe has marked. */
#include <stdio.h>
#include <string.h>

#include "jinja.h"

static struct jv case_filter(struct render *r, const struct call *c, enum jcase how)
{
    const struct jstr *s = jv_to_str(r, c->self);
    return jv_of_str(s ? jstr_case(r, s, how) : NULL);
}

static struct jv filter_upper(struct render *r, const struct call *c)
{
    return case_filter(r, c, JCASE_UPPER);
}

static struct jv filter_lower(struct render *r, const struct call *c)
{
    return case_filter(r, c, JCASE_LOWER);
}

static struct jv filter_capitalize(struct render *r, const struct call *c)
{
    return case_filter(r, c, JCASE_CAPITAL);
}

static bool title_separator(uint32_t c)
{
    return jchar_is_space(c) || (c < 0x80 && c && strchr("-({[<", (int)c));
}

static bool put_case(struct render *r, const struct jstr *s, enum jcase how)
{
    const struct jstr *changed = jstr_case(r, s, how);
    return changed && jv_put(r, changed->data, changed->len);
}

/* Words are what stands between white space and - ( { [ <, so "it's" is one. */
static struct jv filter_title(struct render *r, const struct call *c)
{
    const struct jstr *s = jv_to_str(r, c->self);
    size_t mark = r->out.length;
    if (!s)
        return jv_tagged(JV_ERROR);
    for (size_t at = 0, n; at < s->len;) {
        bool separators = title_separator(jchar_decode(s->data + at, s->len - at, &n));
        size_t end = at + n, bytes;
        while (end < s->len &&
               title_separator(jchar_decode(s->data + end, s->len - end, &bytes)) == separators)
            end += bytes;
        const struct jstr *first = jstr_part(r, s, at, at + n), *rest = jstr_part(r, s, at + n, end);
        if (!first || !rest || !put_case(r, first, JCASE_UPPER) || !put_case(r, rest, JCASE_LOWER))
            return jv_tagged(JV_ERROR);
        at = end;
    }
    return jv_of_str(render_take(r, mark));
}

static struct jv filter_trim(struct render *r, const struct call *c)
{
    const struct jstr *s = jv_to_str(r, c->self), *chars = NULL;
    if (!s || !call_str(r, c, 0, &chars))
        return jv_tagged(JV_ERROR);
    return jv_of_str(jstr_strip(r, s, chars, STRIP_LEFT | STRIP_RIGHT));
}

static struct jv filter_string(struct render *r, const struct call *c)
{
    return jv_of_str(jv_to_str(r, c->self));
}

static struct jv filter_safe(struct render *r, const struct call *c)
{
    const struct jstr *s = jv_to_str(r, c->self);
    return jv_of_str(s ? jstr_mark(r, s, true) : NULL);
}

static struct jv filter_escape(struct render *r, const struct call *c)
{
    const struct jstr *s = jv_to_str(r, c->self);
    return jv_of_str(s ? jstr_escape(r, s) : NULL);
}

static struct jv filter_forceescape(struct render *r, const struct call *c)
{
    const struct jstr *s = jv_to_str(r, c->self);
    s = s ? jstr_mark(r, s, false) : NULL;
    return jv_of_str(s ? jstr_escape(r, s) : NULL);
}

static struct jv filter_replace(struct render *r, const struct call *c)
{
    const struct jstr *s = jv_to_str(r, c->self), *pair[2] = {jv_to_str(r, c->a[0]), jv_to_str(r, c->a[1])};
    int64_t count = -1;
    if (!s || !pair[0] || !pair[1] || (c->a[2].tag != JV_NONE && !call_int(r, c, 2, &count)))
        return jv_tagged(JV_ERROR);
    const struct jstr *result = jstr_replace(r, s, pair, count);
    return jv_of_str(result ? jstr_mark(r, result, false) : NULL);
}

static struct jv filter_center(struct render *r, const struct call *c)
{
    const struct jstr *s = jv_to_str(r, c->self);
    int64_t width = 80;
    if (!s || !call_int(r, c, 0, &width))
        return jv_tagged(JV_ERROR);
    struct jv pos = jv_int(width);
    const struct builtin *center = builtin_find(methods_str_make, "center", 6);
    return builtin_call(r, center, &(struct call){.self = jv_of_str(s), .pos = &pos, .n_pos = 1});
}

static struct jv filter_format(struct render *r, const struct call *c)
{
    const struct jstr *s = jv_to_str(r, c->self);
    if (!s)
        return jv_tagged(JV_ERROR);
    if (c->n_pos && c->n_kw)
        return jv_raise(r, "FilterArgumentError",
                        "can't handle positional and keyword arguments at the same time");
    if (!c->n_kw)
        return jv_format_percent(r, s, jv_of_seq(JV_TUPLE, jseq_copy(r, c->pos, c->n_pos)));
    struct jdict *d = jdict_new(r, c->n_kw);
    for (size_t i = 0; d && i < c->n_kw; i++)
        if (!jdict_set(r, d, jv_of_str(c->kw[i].name), c->kw[i].value))
            return jv_tagged(JV_ERROR);
    return d ? jv_format_percent(r, s, jv_of_dict(d)) : jv_tagged(JV_ERROR);
}

/* ---- lines and words */

static const struct jstr *indention(struct render *r, struct jv width)
{
    if (width.tag == JV_STR)
        return width.s;
    int64_t n = 4;
    struct call c = {.a = &width};
    const struct jstr *blank = jstr_literal(r, " ");
    if (!blank || !call_int(r, &c, 0, &n))
        return NULL;
    if (n > JINJA_MAX_WIDTH) {
        jv_too_large(r, "an indent of %lld", (long long)n);
        return NULL;
    }
    return jstr_repeat(r, blank, n);
}

static struct jv filter_indent(struct render *r, const struct call *c)
{
    bool first = call_bool(c, 1), blank = call_bool(c, 2);
    const struct jstr *indent = indention(r, c->a[0]), *newline = jstr_literal(r, "\n");
    if (c->self.tag == JV_UNDEFINED)
        return jv_raise_undefined(r, c->self);
    if (c->self.tag != JV_STR)
        return jv_raise(r, "TypeError", "unsupported operand type(s) for +=: '%s' and 'str'",
                        jv_type_name(c->self));
    const struct jstr *s = indent && newline ? jstr_cat(r, jstr_mark(r, c->self.s, false), newline) : NULL;
    struct jseq *lines = s ? jstr_splitlines(r, s, false) : NULL;
    size_t mark = r->out.length;
    for (size_t i = 0; lines && i < lines->n; i++) {
        const struct jstr *line = lines->items[i].s;
        bool indented = i == 0 ? first : blank || line->len > 0;
        if ((i && !jv_puts(r, "\n")) || (indented && !jv_put(r, indent->data, indent->len)) ||
            !jv_put(r, line->data, line->len))
            return jv_tagged(JV_ERROR);
    }
    const struct jstr *result = lines ? render_take(r, mark) : NULL;
    return jv_of_str(result ? jstr_mark(r, result, c->self.s->safe) : NULL);
}

static struct jv filter_truncate(struct render *r, const struct call *c)
{
    int64_t length = 255, leeway = 5;
    const struct jstr *end = NULL, *blank = jstr_literal(r, " ");
    if (!call_int(r, c, 0, &length) || !call_str(r, c, 2, &end) ||
        (c->a[3].tag != JV_NONE && !call_int(r, c, 3, &leeway)))
        return jv_tagged(JV_ERROR);
    if (!end)
        end = jstr_literal(r, "...");
    if (!end || !blank)
        return jv_tagged(JV_ERROR);
    if (length < end->n_chars || leeway < 0)
        return jv_raise(r, "AssertionError", "expected length >= %u, got %lld, and leeway >= 0, got %lld",
                        end->n_chars, (long long)length, (long long)leeway);
    struct jv size = jv_len(r, c->self);
    if (jv_is_error(size) || size.i <= length || size.i - length <= leeway)
        return jv_is_error(size) ? size : c->self;
    if (c->self.tag != JV_STR)
        return jv_raise(r, "TypeError", "truncate needs a string, not %s", jv_type_name(c->self));
    const struct jstr *s =
        jstr_part(r, c->self.s, 0, jstr_offset(c->self.s, (size_t)(length - end->n_chars)));
    size_t last = s ? jstr_rfind(r, s, s->len, blank) : JSTR_NONE;
    if (s && !call_bool(c, 1) && last != JSTR_NONE)
        s = jstr_part(r, s, 0, last);
    return jv_of_str(s ? jstr_cat(r, s, end) : NULL);
}

static struct jv filter_wordcount(struct render *r, const struct call *c)
{
    const struct jstr *s = jv_to_str(r, c->self);
    int64_t words = 0;
    bool in_word = false;
    if (!s || !jv_step_bytes(r, s->len))
        return jv_tagged(JV_ERROR);
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t ch = jchar_decode(s->data + at, s->len - at, &n);
        bool word = ch == '_' || jchar_is_alpha(ch) || jchar_is_numeric(ch) || jchar_is_digit(ch);
        words += word && !in_word;
        in_word = word;
    }
    return jv_int(words);
}

/* ---- for other formats */

static bool put_url(struct render *r, struct jv v, bool form)
{
    const struct jstr *s = jv_to_str(r, v);
    char text[8];
    for (size_t i = 0; s && i < s->len; i++) {
        unsigned char ch = (unsigned char)s->data[i];
        bool plain = (ch >= '0' && ch <= '9') || ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'z') ||
                     (ch && strchr("_.-~", ch)) || (ch == '/' && !form);
        if (plain)
            snprintf(text, sizeof text, "%c", ch);
        else if (ch == ' ' && form)
            snprintf(text, sizeof text, "+");
        else
            snprintf(text, sizeof text, "%%%02X", ch);
        if (!jv_puts(r, text))
            return false;
    }
    return s != NULL;
}

static struct jv filter_urlencode(struct render *r, const struct call *c)
{
    size_t mark = r->out.length;
    if (c->self.tag == JV_STR || !jv_iterable(c->self))
        return put_url(r, c->self, false) ? jv_of_str(render_take(r, mark)) : jv_tagged(JV_ERROR);
    struct jv source = c->self;
    if (source.tag == JV_DICT) {
        source.tag = JV_VIEW;
        source.kind = JVIEW_ITEMS;
    }
    struct jseq *pairs = jv_items(r, source);
    for (size_t i = 0; pairs && i < pairs->n; i++) {
        struct jseq *pair = jv_items(r, pairs->items[i]);
        if (!pair)
            return jv_tagged(JV_ERROR);
        if (pair->n != 2)
            return jv_raise(r, "ValueError", "urlencode needs pairs, got %zu values", pair->n);
        if ((i && !jv_puts(r, "&")) || !put_url(r, pair->items[0], true) || !jv_puts(r, "=") ||
            !put_url(r, pair->items[1], true))
            return jv_tagged(JV_ERROR);
    }
    return pairs ? jv_of_str(render_take(r, mark)) : jv_tagged(JV_ERROR);
}

static bool put_xml_attribute(struct render *r, const struct jentry *e, bool space)
{
    const struct jstr *key = jv_to_str(r, e->key), *value = jv_to_str(r, e->value);
    for (size_t i = 0; key && i < key->len; i++)
        if (strchr(" \t\n\r\f\v/>=", key->data[i]) && key->data[i]) {
            jv_raise(r, "ValueError", "Invalid character in attribute name: '%.*s'", (int)key->len,
                     key->data);
            return false;
        }
    key = key ? jstr_escape(r, key) : NULL;
    value = value && key ? jstr_escape(r, value) : NULL;
    return value && (!space || jv_puts(r, " ")) && jv_put(r, key->data, key->len) && jv_puts(r, "=\"") &&
           jv_put(r, value->data, value->len) && jv_puts(r, "\"");
}

static struct jv filter_xmlattr(struct render *r, const struct call *c)
{
    bool space = c->a[0].tag == JV_MISSING || call_bool(c, 0);
    size_t mark = r->out.length;
    if (c->self.tag != JV_DICT)
        return jv_raise(r, "AttributeError", "'%s' object has no attribute 'items'", jv_type_name(c->self));
    for (size_t i = 0; i < c->self.dict->n; i++) {
        const struct jentry *e = &c->self.dict->entries[i];
        if (e->value.tag == JV_NONE || e->value.tag == JV_UNDEFINED)
            continue;
        if (!put_xml_attribute(r, e, space))
            return jv_tagged(JV_ERROR);
        space = true;
    }
    return jv_of_str(render_take(r, mark));
}

const struct builtin filters_text[] = {
    {"capitalize", "", 0, filter_capitalize},
    {"center", "width", 0, filter_center},
    {"e", "", 0, filter_escape},
    {"escape", "", 0, filter_escape},
    {"forceescape", "", 0, filter_forceescape},
    {"format", NULL, 0, filter_format},
    {"indent", "width first blank", 0, filter_indent},
    {"lower", "", 0, filter_lower},
    {"replace", "old new count", 2, filter_replace},
    {"safe", "", 0, filter_safe},
    {"string", "", 0, filter_string},
    {"title", "", 0, filter_title},
    {"trim", "chars", 0, filter_trim},
    {"truncate", "length killwords end leeway", 0, filter_truncate},
    {"upper", "", 0, filter_upper},
    {"urlencode", "", 0, filter_urlencode},
    {"wordcount", "", 0, filter_wordcount},
    {"wordwrap", "width break_long_words wrapstring break_on_hyphens", 0, filter_wordwrap},
    {"xmlattr", "autospace", 0, filter_xmlattr},
    {NULL, NULL, 0, NULL},
};
