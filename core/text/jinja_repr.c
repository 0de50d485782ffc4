/* str() and repr() of values, as Python prints them, appended to the render's output. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jinja.h"

bool jv_put(struct render *r, const char *data, size_t len)
{
    if (buf_append(&r->out, data, len))
        return true;
    if (r->out.limit_bytes && len > r->out.limit_bytes - r->out.length)
        jv_too_large(r, "the rendered text is larger than %zu bytes", r->out.limit_bytes);
    else if (r->err.status == STATUS_OK) {
        r->fatal = true;
        fail(&r->err, STATUS_NO_MEMORY, "out of memory while rendering the chat template");
    }
    return false;
}

bool jv_puts(struct render *r, const char *text)
{
    return jv_put(r, text, strlen(text));
}

void render_cut(struct render *r, size_t mark)
{
    r->out.length = mark;
    r->out.data[mark] = '\0';
}

const struct jstr *render_take(struct render *r, size_t mark)
{
    const struct jstr *s = jstr_new(r, r->out.data + mark, r->out.length - mark);
    render_cut(r, mark);
    return s;
}

/* The shortest digits that read back as f, in Python's layout. */
bool jv_put_float(struct render *r, double f)
{
    char digits[40], text[64];
    if (isnan(f) || isinf(f))
        return jv_puts(r, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
    int precision = 1;
    do
        snprintf(digits, sizeof digits, "%.*e", precision - 1, f);
    while (strtod(digits, NULL) != f && ++precision <= 17);
    int exponent = atoi(strchr(digits, 'e') + 1);
    if (exponent >= -4 && exponent < 16) {
        int decimals = precision - 1 - exponent;
        snprintf(text, sizeof text, "%.*f", decimals > 0 ? decimals : 1, f);
        return jv_puts(r, text);
    }
    *strchr(digits, 'e') = '\0';
    snprintf(text, sizeof text, "%se%c%02d", digits, exponent < 0 ? '-' : '+', abs(exponent));
    return jv_puts(r, text);
}

static bool put_int(struct render *r, int64_t i)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)i);
    return jv_puts(r, text);
}

static bool put_escaped_char(struct render *r, uint32_t c)
{
    char text[16];
    if (c == '\n' || c == '\r' || c == '\t')
        return jv_puts(r, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
    snprintf(text, sizeof text, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    return jv_puts(r, text);
}

static bool put_quoted(struct render *r, const struct jstr *s)
{
    bool single = memchr(s->data, '\'', s->len), twice = memchr(s->data, '"', s->len);
    char quote = single && !twice ? '"' : '\'';
    if (!jv_step_bytes(r, s->len) || !jv_put(r, &quote, 1))
        return false;
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t c = jchar_decode(s->data + at, s->len - at, &n);
        bool ok;
        if (c == (uint32_t)quote || c == '\\')
            ok = jv_puts(r, "\\") && jv_put(r, s->data + at, n);
        else if (jchar_is_printable(c))
            ok = jv_put(r, s->data + at, n);
        else
            ok = put_escaped_char(r, c);
        if (!ok)
            return false;
    }
    return jv_put(r, &quote, 1);
}

static bool put_seq(struct render *r, struct jv v)
{
    if (!jv_puts(r, v.tag == JV_LIST ? "[" : "("))
        return false;
    for (size_t i = 0; i < v.seq->n; i++)
        if ((i && !jv_puts(r, ", ")) || !jv_put_repr(r, v.seq->items[i]))
            return false;
    if (v.tag == JV_TUPLE && v.seq->n == 1 && !jv_puts(r, ","))
        return false;
    return jv_puts(r, v.tag == JV_LIST ? "]" : ")");
}

static bool put_dict(struct render *r, const struct jdict *d)
{
    if (!jv_puts(r, "{"))
        return false;
    for (size_t i = 0; i < d->n; i++)
        if ((i && !jv_puts(r, ", ")) || !jv_put_repr(r, d->entries[i].key) || !jv_puts(r, ": ") ||
            !jv_put_repr(r, d->entries[i].value))
            return false;
    return jv_puts(r, "}");
}

static bool put_view(struct render *r, struct jv v)
{
    struct jseq *items = jv_items(r, v);
    return items && jv_puts(r, jv_type_name(v)) && jv_puts(r, "(") && put_seq(r, jv_of_seq(JV_LIST, items)) &&
           jv_puts(r, ")");
}

static bool put_range(struct render *r, const struct jrange *v)
{
    char text[96];
    int n = snprintf(text, sizeof text, "range(%lld, %lld", (long long)v->start, (long long)v->stop);
    if (v->step != 1)
        snprintf(text + n, sizeof text - (size_t)n, ", %lld", (long long)v->step);
    return jv_puts(r, text) && jv_puts(r, ")");
}

static bool put_macro(struct render *r, const struct jmacro *m)
{
    if (m->node->kind != N_MACRO)
        return jv_puts(r, "<Macro anonymous>");
    return jv_puts(r, "<Macro ") && put_quoted(r, r->t->names.names[m->node->name]) && jv_puts(r, ">");
}

static bool put_nested(struct render *r, struct jv v)
{
    if (!jv_steps(r, 1) || !render_enter(r, "printed values"))
        return false;
    bool ok;
    if (v.tag == JV_DICT)
        ok = put_dict(r, v.dict);
    else if (v.tag == JV_NAMESPACE)
        ok = jv_puts(r, "<Namespace ") && put_dict(r, v.dict) && jv_puts(r, ">");
    else if (v.tag == JV_VIEW)
        ok = put_view(r, v);
    else
        ok = put_seq(r, v);
    r->depth--;
    return ok;
}

bool jv_put_repr(struct render *r, struct jv v)
{
    switch (v.tag) {
    case JV_UNDEFINED:
        return jv_puts(r, "Undefined");
    case JV_NONE:
        return jv_puts(r, "None");
    case JV_BOOL:
        return jv_puts(r, v.b ? "True" : "False");
    case JV_INT:
        return put_int(r, v.i);
    case JV_FLOAT:
        return jv_put_float(r, v.f);
    case JV_STR:
        if (v.s->safe)
            return jv_puts(r, "Markup(") && put_quoted(r, v.s) && jv_puts(r, ")");
        return put_quoted(r, v.s);
    case JV_LIST:
    case JV_TUPLE:
    case JV_DICT:
    case JV_VIEW:
    case JV_NAMESPACE:
        return put_nested(r, v);
    case JV_RANGE:
        return put_range(r, v.range);
    case JV_MACRO:
        return put_macro(r, v.macro);
    case JV_SELF:
        return jv_puts(r, "<TemplateReference None>");
    default: /* Python would show an address */
        return jv_puts(r, "<") && jv_puts(r, jv_type_name(v)) && jv_puts(r, " object>");
    }
}

bool jv_put_str(struct render *r, struct jv v)
{
    if (v.tag == JV_STR)
        return jv_put(r, v.s->data, v.s->len);
    if (v.tag == JV_UNDEFINED)
        return true;
    return jv_put_repr(r, v);
}

const struct jstr *jv_to_str(struct render *r, struct jv v)
{
    if (v.tag == JV_STR)
        return v.s;
    size_t mark = r->out.length;
    return jv_put_str(r, v) ? render_take(r, mark) : NULL;
}

const struct jstr *jv_repr(struct render *r, struct jv v)
{
    size_t mark = r->out.length;
    return jv_put_repr(r, v) ? render_take(r, mark) : NULL;
}

const struct jstr *jv_ascii(struct render *r, struct jv v)
{
    const struct jstr *s = jv_repr(r, v);
    size_t mark = r->out.length;
    if (!s || s->len == s->n_chars)
        return s;
    for (size_t at = 0, n; at < s->len; at += n) {
        uint32_t c = jchar_decode(s->data + at, s->len - at, &n);
        if (!(c < 0x80 ? jv_put(r, s->data + at, n) : put_escaped_char(r, c)))
            return NULL;
    }
    return render_take(r, mark);
}
