/* "text %s" % values, as Python's printf-style formatting does it. */
#include <math.h>
#include <string.h>

#include "jinja.h"
#include "jinja_number.h"

struct percent {
    struct render *r;
    const struct jstr *format;
    size_t at;
    struct jv args;
    size_t next;     /* of a tuple; for a single value: 0 or 1 */
    struct jv keyed; /* the value of the %(key) being formatted, or JV_MISSING */
    bool used_key;
};

static bool next_value(struct percent *p, struct jv *out)
{
    if (p->keyed.tag != JV_MISSING) {
        *out = p->keyed;
        return true;
    }
    size_t n = p->args.tag == JV_TUPLE ? p->args.seq->n : 1;
    if (p->next >= n || (p->used_key && p->args.tag == JV_DICT)) {
        jv_raise(p->r, "TypeError", "not enough arguments for format string");
        return false;
    }
    *out = p->args.tag == JV_TUPLE ? p->args.seq->items[p->next] : p->args;
    p->next++;
    return true;
}

/* The next character of the directive; 0 with an error at the end of the format. */
static char take(struct percent *p)
{
    if (p->at < p->format->len)
        return p->format->data[p->at++];
    jv_raise(p->r, "ValueError", "incomplete format");
    return 0;
}

static bool read_key(struct percent *p)
{
    size_t start = p->at, depth = 1;
    while (depth) {
        char c = take(p);
        if (!c && p->r->err.status != STATUS_OK)
            return false;
        depth += c == '(' ? 1 : c == ')' ? (size_t)-1 : 0;
    }
    if (p->args.tag != JV_DICT) {
        jv_raise(p->r, "TypeError", "format requires a mapping");
        return false;
    }
    const struct jstr *key = jstr_part(p->r, p->format, start, p->at - 1);
    int found = key ? jdict_get(p->r, p->args.dict, jv_of_str(key), &p->keyed) : -1;
    if (found == 0)
        jv_raise(p->r, "KeyError", "'%.*s'", (int)key->len, key->data);
    p->used_key = true;
    return found == 1;
}

/* digits or *, at the current character c; *value -1 stays if there are none. */
static bool read_count(struct percent *p, char *c, int64_t *value)
{
    if (*c == '*') {
        struct jv v;
        struct jv saved = p->keyed;
        p->keyed = jv_tagged(JV_MISSING);
        if (!next_value(p, &v))
            return false;
        p->keyed = saved;
        if (!jv_is_int(v)) {
            jv_raise(p->r, "TypeError", "* wants int");
            return false;
        }
        *value = jv_as_int(v);
        return (*c = take(p)) != 0;
    }
    for (; *c >= '0' && *c <= '9'; *c = take(p)) {
        *value = (*value < 0 ? 0 : *value) * 10 + (*c - '0');
        if (*value > JINJA_MAX_WIDTH) {
            jv_too_large(p->r, "a formatted field wider than %d", JINJA_MAX_WIDTH);
            return false;
        }
    }
    return *c != 0;
}

static bool put_integer(struct percent *p, struct field *f, struct jv v)
{
    bool real = f->type == 'd' || f->type == 'i' || f->type == 'u';
    if (v.tag == JV_UNDEFINED) {
        jv_raise_undefined(p->r, v);
        return false;
    }
    if (v.tag == JV_FLOAT && real && fabs(v.f) < 9.2e18)
        v = jv_int((int64_t)v.f);
    if (!jv_is_int(v)) {
        jv_raise(p->r, "TypeError", "%%%c format: %s is required, not %s", f->type,
                 real ? "a real number" : "an integer", jv_type_name(v));
        return false;
    }
    return field_put_int(p->r, f, jv_as_int(v));
}

static bool put_char(struct percent *p, struct field *f, struct jv v)
{
    char bytes[4];
    const struct jstr *s = v.tag == JV_STR && v.s->n_chars == 1 ? v.s : NULL;
    f->precision = -1;
    if (jv_is_int(v) && jv_as_int(v) >= 0 && jv_as_int(v) < 0x110000 &&
        !(jv_as_int(v) >= 0xd800 && jv_as_int(v) < 0xe000))
        s = jstr_new(p->r, bytes, jchar_encode((uint32_t)jv_as_int(v), bytes));
    if (!s)
        jv_raise(p->r, "TypeError", "%%c requires int or char");
    return s && field_put_text(p->r, f, s);
}

static bool put_directive(struct percent *p, struct field *f)
{
    struct jv v;
    if (!next_value(p, &v))
        return false;
    switch (f->type) {
    case 's':
    case 'r':
    case 'a': {
        const struct jstr *s = f->type == 's'   ? jv_to_str(p->r, v)
                               : f->type == 'r' ? jv_repr(p->r, v)
                                                : jv_ascii(p->r, v);
        s = s && p->format->safe ? jstr_escape(p->r, s) : s;
        f->fill_len = 0;
        return s && field_put_text(p->r, f, s);
    }
    case 'd':
    case 'i':
    case 'u':
    case 'o':
    case 'x':
    case 'X':
        return put_integer(p, f, v);
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        if (jv_is_number(v))
            return field_put_float(p->r, f, jv_as_float(v));
        if (v.tag == JV_UNDEFINED)
            jv_raise_undefined(p->r, v);
        else
            jv_raise(p->r, "TypeError", "must be real number, not %s", jv_type_name(v));
        return false;
    case 'c':
        return put_char(p, f, v);
    default:
        jv_raise(p->r, "ValueError", "unsupported format character '%c' (0x%x) at index %zu", f->type,
                 (unsigned char)f->type, p->at - 1);
        return false;
    }
}

static bool read_directive(struct percent *p)
{
    struct field f = {.align = '>', .precision = -1};
    bool zero = false, left = false;
    char c = take(p);
    p->keyed = jv_tagged(JV_MISSING);
    if (c == '%')
        return jv_puts(p->r, "%");
    if (c == '(') {
        if (!read_key(p))
            return false;
        c = take(p);
    }
    for (; c && strchr("#0- +", c); c = take(p)) {
        f.alternate |= c == '#';
        zero |= c == '0';
        left |= c == '-';
        if (c == '+' || (c == ' ' && f.sign != '+'))
            f.sign = c;
    }
    if (!c || !read_count(p, &c, &f.width))
        return false;
    if (c == '.') {
        f.precision = 0;
        c = take(p);
        if (!c || !read_count(p, &c, &f.precision))
            return false;
    }
    while (c == 'h' || c == 'l' || c == 'L')
        c = take(p);
    if (f.width < 0) {
        left = true;
        f.width = -f.width;
    }
    f.type = c;
    if (left || zero)
        f.align = left ? '<' : '=';
    if (zero && !left && c != 's' && c != 'r' && c != 'a' && c != 'c') {
        f.fill[0] = '0';
        f.fill_len = 1;
    } else if (zero && !left) {
        f.align = '>';
    }
    return c && field_check(p->r, &f) && put_directive(p, &f);
}

struct jv jv_format_percent(struct render *r, const struct jstr *format, struct jv args)
{
    struct percent p = {.r = r, .format = format, .args = args};
    size_t mark = r->out.length;
    while (p.at < format->len) {
        const char *sign = memchr(format->data + p.at, '%', format->len - p.at);
        size_t end = sign ? (size_t)(sign - format->data) : format->len;
        if (!jv_put(r, format->data + p.at, end - p.at))
            return jv_tagged(JV_ERROR);
        p.at = end + 1;
        if (sign && !read_directive(&p))
            return jv_tagged(JV_ERROR);
    }
    /* What could be asked for keys may be left over; a tuple or any other value may not. */
    bool keyed =
        args.tag == JV_DICT || args.tag == JV_LIST || args.tag == JV_RANGE || args.tag == JV_UNDEFINED;
    if (args.tag == JV_TUPLE ? p.next < args.seq->n : !keyed && p.next == 0)
        return jv_raise(r, "TypeError", "not all arguments converted during string formatting");
    const struct jstr *result = render_take(r, mark);
    return jv_of_str(result ? jstr_mark(r, result, format->safe) : NULL);
}
