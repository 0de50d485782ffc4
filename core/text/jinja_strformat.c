/* "text {}".format(values), with Python's format specifications and the sandbox's attribute rules. */
#include <string.h>

#include "jinja.h"
#include "jinja_number.h"

/* ---- format(value, spec): [[fill]align][sign][z][#][0][width][group][.precision][type] */

static const char *read_align(const char *p, const char *end, struct field *f)
{
    size_t n = 0;
    if (p < end)
        jchar_decode(p, (size_t)(end - p), &n);
    if (n && p + n < end && strchr("<>=^", p[n])) {
        memcpy(f->fill, p, n);
        f->fill_len = n;
        f->align = p[n];
        return p + n + 1;
    }
    if (p < end && strchr("<>=^", *p))
        f->align = *p++;
    return p;
}

static const char *read_number(const char *p, const char *end, int64_t *out)
{
    for (; p < end && *p >= '0' && *p <= '9'; p++)
        if (*out <= JINJA_MAX_WIDTH)
            *out = *out * 10 + (*p - '0');
    return p;
}

static bool read_spec(struct render *r, const char *spec, size_t len, struct field *f)
{
    const char *end = spec + len, *p = read_align(spec, end, f);
    if (p < end && strchr("+- ", *p))
        f->sign = *p++;
    if (p < end && *p == 'z') {
        f->no_minus_zero = true;
        p++;
    }
    if (p < end && *p == '#') {
        f->alternate = true;
        p++;
    }
    if (p < end && *p == '0') {
        if (!f->fill_len) {
            f->fill[0] = '0';
            f->fill_len = 1;
        }
        if (!f->align) {
            f->align = '=';
            f->zero = true;
        }
        p++;
    }
    p = read_number(p, end, &f->width);
    if (p < end && (*p == ',' || *p == '_'))
        f->group = *p++;
    if (p < end && *p == '.') {
        f->precision = 0;
        const char *digits = ++p;
        p = read_number(p, end, &f->precision);
        if (p == digits) {
            jv_raise(r, "ValueError", "Format specifier missing precision");
            return false;
        }
    }
    if (p < end)
        f->type = *p++;
    if (p < end) {
        jv_raise(r, "ValueError", "Invalid format specifier '%.*s'", (int)len, spec);
        return false;
    }
    return field_check(r, f);
}

static bool bad_code(struct render *r, const struct field *f, struct jv v)
{
    jv_raise(r, "ValueError", "Unknown format code '%c' for object of type '%s'", f->type, jv_type_name(v));
    return false;
}

static bool put_int_field(struct render *r, struct field *f, struct jv v)
{
    if (f->type && strchr("eEfFgG%", f->type))
        return field_put_float(r, f, jv_as_float(v));
    if (f->type && !strchr("bdoxXnc", f->type))
        return bad_code(r, f, v);
    if (f->precision >= 0 || f->no_minus_zero) {
        jv_raise(r, "ValueError", "%s not allowed in integer format specifier",
                 f->precision >= 0 ? "Precision" : "Negative zero coercion (z)");
        return false;
    }
    if (f->group == ',' && f->type && strchr("bdoxXnc", f->type) && f->type != 'd') {
        jv_raise(r, "ValueError", "Cannot specify ',' with '%c'.", f->type);
        return false;
    }
    if (f->type != 'c')
        return field_put_int(r, f, jv_as_int(v));
    char bytes[4];
    int64_t c = jv_as_int(v);
    if (c < 0 || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        jv_raise(r, "OverflowError", "%%c arg not in range(0x110000)");
        return false;
    }
    const struct jstr *s = jstr_new(r, bytes, jchar_encode((uint32_t)c, bytes));
    return s && field_put_text(r, f, s);
}

bool jv_put_formatted(struct render *r, struct jv v, const char *spec, size_t len)
{
    struct field f = {.precision = -1};
    if (!len)
        return jv_put_str(r, v);
    if (v.tag != JV_STR && !jv_is_number(v)) {
        jv_raise(r, "TypeError", "unsupported format string passed to %s.__format__", jv_type_name(v));
        return false;
    }
    if (!read_spec(r, spec, len, &f))
        return false;
    if (v.tag == JV_STR) {
        if (f.zero)
            f.align = '<';
        if (f.type && f.type != 's')
            return bad_code(r, &f, v);
        if (f.sign || f.no_minus_zero || f.align == '=' || f.alternate || f.group) {
            jv_raise(r, "ValueError", "%s not allowed in string format specifier",
                     f.sign            ? "Sign"
                     : f.no_minus_zero ? "Negative zero coercion (z)"
                     : f.align == '='  ? "'=' alignment"
                     : f.alternate     ? "Alternate form (#)"
                                       : "Grouping");
            return false;
        }
        return field_put_text(r, &f, v.s);
    }
    if (jv_is_int(v))
        return put_int_field(r, &f, v);
    if (f.type && !strchr("eEfFgGn%", f.type))
        return bad_code(r, &f, v);
    if (f.type == 'n')
        f.type = 'g';
    return field_put_float(r, &f, v.f);
}

/* ---- the format string: {field!conversion:spec} */

struct formatter {
    struct render *r;
    const struct call *c;
    const struct jdict *mapping; /* format_map */
    bool safe, automatic, numbered;
    size_t next;
};

static struct jv value_by_number(struct formatter *f, size_t i)
{
    if (i < f->c->n_pos)
        return f->c->pos[i];
    return jv_raise(f->r, "IndexError", "tuple index out of range");
}

static struct jv value_by_name(struct formatter *f, const struct jstr *name)
{
    struct jv v;
    for (size_t i = 0; !f->mapping && i < f->c->n_kw; i++)
        if (jstr_equal(f->c->kw[i].name, name))
            return f->c->kw[i].value;
    int found = f->mapping ? jdict_get(f->r, f->mapping, jv_of_str(name), &v) : 0;
    if (found)
        return found < 0 ? jv_tagged(JV_ERROR) : v;
    return jv_raise(f->r, "KeyError", "'%.*s'", (int)name->len, name->data);
}

static bool all_digits(const struct jstr *s)
{
    for (size_t i = 0; i < s->len; i++)
        if (s->data[i] < '0' || s->data[i] > '9')
            return false;
    return s->len > 0 && s->len < 10;
}

static struct jv digits_or_text(const struct jstr *s)
{
    int64_t n = 0;
    if (!all_digits(s))
        return jv_of_str(s);
    for (size_t i = 0; i < s->len; i++)
        n = n * 10 + (s->data[i] - '0');
    return jv_int(n);
}

static struct jv first_value(struct formatter *f, const struct jstr *name)
{
    struct jv key = digits_or_text(name);
    bool automatic = !name->len;
    if (automatic ? f->numbered : key.tag == JV_INT && f->automatic)
        return jv_raise(f->r, "ValueError", "cannot switch between manual and automatic field numbering");
    if (automatic) {
        f->automatic = true;
        return value_by_number(f, f->next++);
    }
    if (key.tag != JV_INT)
        return value_by_name(f, name);
    f->numbered = true;
    return value_by_number(f, (size_t)key.i);
}

/* name.attribute[key]… */
static struct jv field_value(struct formatter *f, const struct jstr *path)
{
    struct render *r = f->r;
    size_t at = 0;
    while (at < path->len && path->data[at] != '.' && path->data[at] != '[')
        at++;
    const struct jstr *name = jstr_part(r, path, 0, at);
    struct jv v = name ? first_value(f, name) : jv_tagged(JV_ERROR);
    while (at < path->len && !jv_is_error(v)) {
        bool bracket = path->data[at++] == '[';
        size_t start = at;
        while (at < path->len &&
               (bracket ? path->data[at] != ']' : path->data[at] != '.' && path->data[at] != '['))
            at++;
        const struct jstr *part = jstr_part(r, path, start, at);
        if (!part)
            return jv_tagged(JV_ERROR);
        if (!part->len || (bracket && at >= path->len))
            return jv_raise(r, "ValueError", "Empty attribute in format string");
        v = bracket ? jv_getitem(r, v, digits_or_text(part)) : jv_getattr(r, v, part);
        at += bracket;
    }
    return v;
}

static bool put_format(struct formatter *f, const struct jstr *s, int depth);

static struct jv convert(struct formatter *f, struct jv v, const struct jstr *conversion)
{
    if (!conversion)
        return v;
    if (conversion->len == 1 && conversion->data[0] == 's')
        return jv_of_str(jv_to_str(f->r, v));
    if (conversion->len == 1 && conversion->data[0] == 'r')
        return jv_of_str(jv_repr(f->r, v));
    if (conversion->len == 1 && conversion->data[0] == 'a')
        return jv_of_str(jv_ascii(f->r, v));
    return jv_raise(f->r, "ValueError", "Unknown conversion specifier %.*s", (int)conversion->len,
                    conversion->data);
}

static bool put_field(struct formatter *f, const struct jstr *field, int depth)
{
    struct render *r = f->r;
    size_t name_end = 0, conversion_end;
    for (int brackets = 0; name_end < field->len; name_end++) {
        char c = field->data[name_end];
        brackets += c == '[' ? 1 : c == ']' ? -1 : 0;
        if (brackets <= 0 && (c == '!' || c == ':'))
            break;
    }
    conversion_end = name_end;
    while (conversion_end < field->len && field->data[conversion_end] != ':')
        conversion_end++;
    const struct jstr *name = jstr_part(r, field, 0, name_end), *conversion = NULL, *spec = NULL;
    if (conversion_end > name_end)
        conversion = jstr_part(r, field, name_end + 1, conversion_end);
    struct jv v = name ? field_value(f, name) : jv_tagged(JV_ERROR);
    v = jv_is_error(v) ? v : convert(f, v, conversion);
    size_t mark = r->out.length;
    if (jv_is_error(v))
        return false;
    if (conversion_end < field->len) {
        spec = jstr_part(r, field, conversion_end + 1, field->len);
        if (!spec || !put_format(f, spec, depth + 1))
            return false;
        spec = render_take(r, mark);
        if (!spec)
            return false;
    }
    if (!jv_put_formatted(r, v, spec ? spec->data : "", spec ? spec->len : 0))
        return false;
    if (!f->safe)
        return true;
    const struct jstr *text = render_take(r, mark);
    text = text ? jstr_escape(r, jstr_mark(r, text, v.tag == JV_STR && v.s->safe)) : NULL;
    return text && jv_put(r, text->data, text->len);
}

/* The end of the field that begins at `at`, behind its brace; or JSTR_NONE. */
static size_t field_end(const struct jstr *s, size_t at)
{
    for (int braces = 1; at < s->len; at++) {
        braces += s->data[at] == '{' ? 1 : s->data[at] == '}' ? -1 : 0;
        if (!braces)
            return at;
    }
    return JSTR_NONE;
}

static bool put_format(struct formatter *f, const struct jstr *s, int depth)
{
    struct render *r = f->r;
    if (depth > 1) {
        jv_raise(r, "ValueError", "Max string recursion exceeded");
        return false;
    }
    for (size_t at = 0; at < s->len; at++) {
        char c = s->data[at];
        bool twice = at + 1 < s->len && s->data[at + 1] == c && depth == 0;
        if (c != '{' && c != '}') {
            if (!jv_put(r, &c, 1))
                return false;
            continue;
        }
        if (twice) {
            if (!jv_put(r, &c, 1))
                return false;
            at++;
            continue;
        }
        size_t end = c == '{' ? field_end(s, at + 1) : JSTR_NONE;
        if (end == JSTR_NONE) {
            jv_raise(r, "ValueError",
                     c == '{' ? "expected '}' before end of string"
                              : "Single '}' encountered in format string");
            return false;
        }
        const struct jstr *field = jstr_part(r, s, at + 1, end);
        if (!field || !put_field(f, field, depth))
            return false;
        at = end;
    }
    return true;
}

static struct jv run_formatter(struct formatter *f)
{
    const struct jstr *s = f->c->self.s;
    size_t mark = f->r->out.length;
    f->safe = s->safe;
    if (!jv_step_bytes(f->r, s->len) || !put_format(f, s, 0))
        return jv_tagged(JV_ERROR);
    const struct jstr *result = render_take(f->r, mark);
    return jv_of_str(result ? jstr_mark(f->r, result, s->safe) : NULL);
}

struct jv jstr_format(struct render *r, const struct call *c)
{
    struct formatter f = {.r = r, .c = c};
    return run_formatter(&f);
}

struct jv jstr_format_map(struct render *r, const struct call *c)
{
    if (c->n_pos != 1 || c->n_kw)
        return jv_raise(r, "TypeError", "format_map() takes exactly one argument (%zu given)", c->n_pos);
    if (c->pos[0].tag != JV_DICT)
        return jv_raise(r, "TypeError", "format_map() needs a mapping, not %s", jv_type_name(c->pos[0]));
    struct call none = {.self = c->self};
    struct formatter f = {.r = r, .c = &none, .mapping = c->pos[0].dict};
    return run_formatter(&f);
}
