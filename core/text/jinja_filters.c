/* The table of filters, and those that look at one value of any type. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jinja.h"

const struct builtin *filter_find(const char *name, size_t len)
{
    static const struct builtin *const tables[] = {filters_text, filters_sequence, filters_value,
                                                   filters_select};
    const struct builtin *found = NULL;
    for (size_t i = 0; !found && i < sizeof tables / sizeof tables[0]; i++)
        found = builtin_find(tables[i], name, len);
    return found;
}

static struct jv filter_default(struct render *r, const struct call *c)
{
    if (c->self.tag != JV_UNDEFINED && !(call_bool(c, 1) && !jv_truth(c->self)))
        return c->self;
    return c->a[0].tag == JV_MISSING ? jv_of_str(jstr_literal(r, "")) : c->a[0];
}

static struct jv filter_length(struct render *r, const struct call *c)
{
    return jv_len(r, c->self);
}

static struct jv filter_abs(struct render *r, const struct call *c)
{
    struct jv v = c->self;
    if (v.tag == JV_FLOAT)
        return jv_float(fabs(v.f));
    if (!jv_is_int(v))
        return jv_raise(r, "TypeError", "bad operand type for abs(): '%s'", jv_type_name(v));
    return jv_as_int(v) < 0 ? jv_negate(r, v) : jv_int(jv_as_int(v));
}

static struct jv filter_attr(struct render *r, const struct call *c)
{
    const struct jstr *name = NULL;
    if (!call_str(r, c, 0, &name))
        return jv_tagged(JV_ERROR);
    if (!name)
        return jv_raise(r, "TypeError", "attr() needs the name of an attribute");
    return jv_attr_only(r, c->self, name);
}

/* ---- numbers from text */

/* The text without white space around, underscores between digits and with ASCII digits; false: can't be a
 * number. */
static bool number_text(const struct jstr *s, char *out, size_t size)
{
    size_t from = jchar_space_prefix(s->data, s->len), n = 0;
    size_t to = s->len - (from < s->len ? jchar_space_suffix(s->data + from, s->len - from) : 0);
    bool digit_before = false;
    for (size_t at = from, bytes; at < to; at += bytes) {
        uint32_t c = jchar_decode(s->data + at, to - at, &bytes);
        int digit = jchar_decimal_value(c);
        bool underscore = c == '_';
        if (underscore && (!digit_before || at + 1 >= to))
            return false;
        if (!underscore) {
            if (n + 1 >= size || (digit < 0 && c >= 0x80))
                return false;
            out[n++] = digit >= 0 ? (char)('0' + digit) : (char)c;
        }
        digit_before = digit >= 0 || (c < 0x80 && strchr("abcdefABCDEF", (int)c) && c);
    }
    out[n] = '\0';
    return n > 0;
}

/* 1: read, 0: not an integer, -1: too large for 64 bits. */
static int parse_int(const struct jstr *s, int64_t base, int64_t *out)
{
    char text[512], *end;
    if (!number_text(s, text, sizeof text))
        return 0;
    const char *p = text + (text[0] == '+' || text[0] == '-');
    char letter = p[0] == '0' ? (char)(p[1] | 0x20) : 0;
    int64_t prefix_base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    bool prefixed = prefix_base && (base == prefix_base || base == 0);
    if (prefixed) {
        base = prefix_base;
        p += 2;
    }
    if (base == 0)
        base = 10;
    if (base < 2 || base > 36 || !*p || strchr("+- \t\n", *p) ||
        (base == 16 && p[0] == '0' && letter == 'x' && !prefixed))
        return 0;
    errno = 0;
    long long value = strtoll(p, &end, (int)base);
    if (*end)
        return 0;
    if (errno || (text[0] == '-' && value == INT64_MIN))
        return -1;
    *out = text[0] == '-' ? -value : value;
    return 1;
}

static bool parse_float(const struct jstr *s, double *out)
{
    char text[512], *end;
    if (!number_text(s, text, sizeof text))
        return false;
    const char *p = text + (text[0] == '+' || text[0] == '-');
    bool word = strcasecmp(p, "inf") == 0 || strcasecmp(p, "infinity") == 0 || strcasecmp(p, "nan") == 0;
    if (!word && strspn(p, "0123456789.eE+-") != strlen(p))
        return false;
    *out = strtod(text, &end);
    return *end == '\0' && *p && !strchr("+-", *p);
}

static struct jv int_of_float(struct render *r, double f)
{
    if (f >= -9223372036854775808.0 && f < 9223372036854775808.0)
        return jv_int((int64_t)f);
    return jv_raise(r, "OverflowError", "the number %g doesn't fit into 64 bits", f);
}

static struct jv filter_int(struct render *r, const struct call *c)
{
    struct jv initial = c->a[0].tag == JV_MISSING ? jv_int(0) : c->a[0];
    int64_t base = 10, value;
    double f;
    if (!call_int(r, c, 1, &base))
        return jv_tagged(JV_ERROR);
    switch (c->self.tag) {
    case JV_BOOL:
    case JV_INT:
        return jv_int(jv_as_int(c->self));
    case JV_FLOAT:
        return isnan(c->self.f) ? initial : int_of_float(r, c->self.f);
    case JV_UNDEFINED:
        return jv_raise_undefined(r, c->self);
    case JV_STR: {
        int read = parse_int(c->self.s, base, &value);
        if (read < 0)
            return jv_raise(r, "OverflowError", "the number doesn't fit into 64 bits");
        if (read)
            return jv_int(value);
        return parse_float(c->self.s, &f) && !isnan(f) && !isinf(f) ? int_of_float(r, f) : initial;
    }
    default:
        return initial;
    }
}

static struct jv filter_float(struct render *r, const struct call *c)
{
    struct jv initial = c->a[0].tag == JV_MISSING ? jv_float(0) : c->a[0];
    double f;
    if (c->self.tag == JV_UNDEFINED)
        return jv_raise_undefined(r, c->self);
    if (jv_is_number(c->self))
        return jv_float(jv_as_float(c->self));
    return c->self.tag == JV_STR && parse_float(c->self.s, &f) ? jv_float(f) : initial;
}

static struct jv filter_round(struct render *r, const struct call *c)
{
    int64_t digits = 0;
    const struct jstr *method = NULL;
    if (!call_int(r, c, 0, &digits) || !call_str(r, c, 1, &method))
        return jv_tagged(JV_ERROR);
    bool ceiling = method && method->len == 4 && memcmp(method->data, "ceil", 4) == 0;
    bool down = method && method->len == 5 && memcmp(method->data, "floor", 5) == 0;
    if (!method || (method->len == 6 && memcmp(method->data, "common", 6) == 0))
        return jv_round(r, c->self, digits);
    if (!ceiling && !down)
        return jv_raise(r, "FilterArgumentError", "method must be common, ceil or floor");
    if (!jv_is_number(c->self) || digits < -300 || digits > 300)
        return jv_raise(r, "TypeError", "must be real number, not %s", jv_type_name(c->self));
    double unit = pow(10, (double)digits), scaled = jv_as_float(c->self) * unit;
    return jv_float(((ceiling ? ceil(scaled) : floor(scaled)) + 0.0) / unit); /* Python's are ints: no -0 */
}

static struct jv filter_filesizeformat(struct render *r, const struct call *c)
{
    static const char *const units[2][8] = {{"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"},
                                            {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"}};
    bool binary = call_bool(c, 0);
    double bytes, base = binary ? 1024 : 1000;
    if (jv_is_number(c->self))
        bytes = jv_as_float(c->self);
    else if (c->self.tag != JV_STR || !parse_float(c->self.s, &bytes))
        return jv_raise(r, "ValueError", "could not convert the value to a size");
    char text[400];
    if (bytes == 1)
        return jv_of_str(jstr_literal(r, "1 Byte"));
    if (bytes < base) {
        snprintf(text, sizeof text, "%.0f Bytes", trunc(bytes) + 0.0);
        return jv_of_str(jstr_new(r, text, strlen(text)));
    }
    int i = 0;
    double unit = base * base;
    for (; i < 7 && bytes >= unit; i++)
        unit *= base;
    snprintf(text, sizeof text, "%.1f %s", base * bytes / unit, units[binary][i]);
    return jv_of_str(jstr_new(r, text, strlen(text)));
}

/* ---- tojson */

static bool json_indent(struct render *r, struct jv v, struct json_style *style)
{
    if (v.tag == JV_MISSING || v.tag == JV_NONE)
        return true;
    if (v.tag == JV_STR) {
        style->indent = v.s;
        return true;
    }
    if (!jv_is_int(v)) {
        jv_raise(r, "TypeError", "indent must be an integer or a string, not %s", jv_type_name(v));
        return false;
    }
    const struct jstr *blank = jstr_literal(r, " ");
    if (jv_as_int(v) > JINJA_MAX_WIDTH) {
        jv_too_large(r, "an indent of %lld", (long long)jv_as_int(v));
        return false;
    }
    style->indent = blank ? jstr_repeat(r, blank, jv_as_int(v)) : NULL;
    return style->indent != NULL;
}

static bool json_separators(struct render *r, struct jv v, struct json_style *style)
{
    if (v.tag == JV_MISSING || v.tag == JV_NONE) {
        style->item_separator = jstr_literal(r, style->indent ? "," : ", ");
        style->key_separator = jstr_literal(r, ": ");
        return style->item_separator && style->key_separator;
    }
    if (!jv_is_seq(v) || v.seq->n != 2 || v.seq->items[0].tag != JV_STR || v.seq->items[1].tag != JV_STR) {
        jv_raise(r, "TypeError", "separators must be two strings");
        return false;
    }
    style->item_separator = v.seq->items[0].s;
    style->key_separator = v.seq->items[1].s;
    return true;
}

static struct jv filter_tojson(struct render *r, const struct call *c)
{
    struct json_style style = {.ascii = call_bool(c, 0), .sort = call_bool(c, 3)};
    size_t mark = r->out.length;
    if (!json_indent(r, c->a[1], &style) || !json_separators(r, c->a[2], &style) ||
        !jv_put_json(r, c->self, &style))
        return jv_tagged(JV_ERROR);
    return jv_of_str(render_take(r, mark));
}

/* ---- dicts */

static struct jv filter_items(struct render *r, const struct call *c)
{
    struct deferral d = defer_begin(r);
    struct jv view = c->self;
    if (view.tag == JV_UNDEFINED)
        return jiter_new(r, "generator", jseq_new(r, 0));
    if (view.tag != JV_DICT) {
        jv_raise(r, "TypeError", "Can only get item pairs from a mapping.");
        return defer_end(r, &d, jseq_new(r, 0), false);
    }
    view.tag = JV_VIEW;
    view.kind = JVIEW_ITEMS;
    return jiter_new(r, "generator", jv_items(r, view));
}

static struct jv fold_case(struct render *r, struct jv v, bool case_sensitive)
{
    return v.tag == JV_STR && !case_sensitive ? jv_of_str(jstr_case(r, v.s, JCASE_LOWER)) : v;
}

static struct jv filter_dictsort(struct render *r, const struct call *c)
{
    const struct jstr *by = NULL;
    if (!call_str(r, c, 1, &by))
        return jv_tagged(JV_ERROR);
    bool by_value = by && by->len == 5 && memcmp(by->data, "value", 5) == 0;
    if (by && !by_value && !(by->len == 3 && memcmp(by->data, "key", 3) == 0))
        return jv_raise(r, "FilterArgumentError", "You can only sort by either \"key\" or \"value\"");
    if (c->self.tag == JV_UNDEFINED)
        return jv_raise_undefined(r, c->self);
    if (c->self.tag != JV_DICT)
        return jv_raise(r, "AttributeError", "'%s' object has no attribute 'items'", jv_type_name(c->self));
    struct jv view = {.tag = JV_VIEW, .kind = JVIEW_ITEMS, .dict = c->self.dict};
    struct jseq *pairs = jv_items(r, view), *keys = pairs ? jseq_new(r, pairs->n) : NULL;
    for (size_t i = 0; keys && i < keys->n; i++) {
        keys->items[i] = fold_case(r, pairs->items[i].seq->items[by_value], call_bool(c, 0));
        if (jv_is_error(keys->items[i]))
            return keys->items[i];
    }
    if (!keys || !jv_sort(r, pairs->items, keys->items, pairs->n, call_bool(c, 2)))
        return jv_tagged(JV_ERROR);
    return jv_of_seq(JV_LIST, pairs);
}

const struct builtin filters_value[] = {
    {"abs", "", 0, filter_abs},
    {"attr", "name", 1, filter_attr},
    {"count", "", 0, filter_length},
    {"d", "default_value boolean", 0, filter_default},
    {"default", "default_value boolean", 0, filter_default},
    {"dictsort", "case_sensitive by reverse", 0, filter_dictsort},
    {"filesizeformat", "binary", 0, filter_filesizeformat},
    {"float", "default", 0, filter_float},
    {"int", "default base", 0, filter_int},
    {"items", "", 0, filter_items},
    {"length", "", 0, filter_length},
    {"round", "precision method", 0, filter_round},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, filter_tojson},
    {NULL, NULL, 0, NULL},
};
