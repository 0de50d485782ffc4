/* Numbers and text in fields: sign, prefix, digits, groups of thousands, fill and alignment. */
#include "jinja_number.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jinja.h"

#define FLOAT_ROOM 400 /* digits before the point, sign, exponent */

bool field_check(struct render *r, const struct field *f)
{
    if (f->width <= JINJA_MAX_WIDTH && f->precision <= JINJA_MAX_WIDTH)
        return true;
    jv_too_large(r, "a formatted field wider than %d", JINJA_MAX_WIDTH);
    return false;
}

static bool put_fill(struct render *r, const struct field *f, int64_t n)
{
    for (; n > 0; n--)
        if (!jv_put(r, f->fill_len ? f->fill : " ", f->fill_len ? f->fill_len : 1))
            return false;
    return true;
}

/* head (sign and prefix) and body, n_chars together, in the field. */
static bool put_aligned(struct render *r, const struct field *f, const char *head, const struct jstr *body)
{
    int64_t room = f->width - (int64_t)(strlen(head) + body->n_chars), left = 0;
    if (room < 0)
        room = 0;
    if (!jv_step_bytes(r, (size_t)room))
        return false;
    if (f->align == '>' || f->align == '=')
        left = room;
    else if (f->align == '^')
        left = room / 2;
    bool inside = f->align == '=';
    return (inside || put_fill(r, f, left)) && jv_puts(r, head) && (!inside || put_fill(r, f, left)) &&
           jv_put(r, body->data, body->len) && put_fill(r, f, room - left);
}

bool field_put_text(struct render *r, const struct field *f, const struct jstr *s)
{
    struct field own = *f;
    if (!own.align)
        own.align = '<';
    if (f->precision >= 0 && (int64_t)s->n_chars > f->precision)
        s = jstr_part(r, s, 0, jstr_offset(s, (size_t)f->precision));
    return s && put_aligned(r, &own, "", s);
}

/* Digits with a separator before every third (in other bases: fourth) from the right of the whole part. Where
 * zeros fill the field, they are grouped too. */
static const struct jstr *grouped(struct render *r, const struct field *f, const char *head,
                                  const char *digits)
{
    int64_t every = f->type && strchr("xXob", f->type) ? 4 : 3, zeros = 0;
    int64_t n_whole = (int64_t)strspn(digits, every == 4 ? "0123456789abcdefABCDEF" : "0123456789");
    int64_t room = f->width - (int64_t)strlen(head) - (int64_t)strlen(digits + n_whole);
    size_t mark = r->out.length;
    if (!f->group)
        return jstr_new(r, digits, strlen(digits));
    if (f->align == '=' && f->fill_len == 1 && f->fill[0] == '0')
        while (n_whole && n_whole + zeros + (n_whole + zeros - 1) / every < room)
            zeros++;
    for (int64_t i = -zeros; i < n_whole; i++) {
        bool separate = i > -zeros && (n_whole - i) % every == 0;
        if ((separate && !jv_put(r, &f->group, 1)) || !jv_put(r, i < 0 ? "0" : digits + i, 1))
            return NULL;
    }
    return jv_puts(r, digits + n_whole) ? render_take(r, mark) : NULL;
}

static bool put_number(struct render *r, const struct field *f, const char *head, const struct jstr *digits)
{
    struct field own = *f;
    if (!own.align)
        own.align = '>';
    return digits && put_aligned(r, &own, head, digits);
}

static const char *sign_of(const struct field *f, bool negative)
{
    return negative ? "-" : f->sign == '+' ? "+" : f->sign == ' ' ? " " : "";
}

bool field_put_int(struct render *r, const struct field *f, int64_t v)
{
    char digits[80], head[8];
    uint64_t magnitude = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    int base = f->type == 'x' || f->type == 'X' ? 16 : f->type == 'o' ? 8 : f->type == 'b' ? 2 : 10;
    const char *letters = f->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    size_t at = sizeof digits - 1;
    digits[at] = '\0';
    do
        digits[--at] = letters[magnitude % (uint64_t)base];
    while (magnitude /= (uint64_t)base);
    const char *prefix = !f->alternate || base == 10 ? ""
                         : base == 8                 ? "0o"
                         : base == 2                 ? "0b"
                         : f->type == 'X'            ? "0X"
                                                     : "0x";
    snprintf(head, sizeof head, "%s%s", sign_of(f, v < 0), prefix);
    const struct jstr *body = grouped(r, f, head, digits + at);
    if (body && f->precision > (int64_t)body->len) { /* %.5d: zeros in front */
        const struct jstr *zero = jstr_literal(r, "0");
        zero = zero ? jstr_repeat(r, zero, f->precision - body->len) : NULL;
        body = zero ? jstr_cat(r, zero, body) : NULL;
    }
    return put_number(r, f, head, body);
}

/* Without type but with precision: as g, but a whole number keeps one decimal, and what has as many digits
 * before the point as the precision is written with an exponent. */
static void plain_precise(const struct field *f, double v, char *text, size_t size)
{
    int precision = f->precision ? (int)f->precision : 1;
    snprintf(text, size, "%.*e", precision - 1, v);
    char *e = strchr(text, 'e');
    if (atoi(e + 1) + 1 != precision) {
        snprintf(text, size, f->alternate ? "%#.*g" : "%.*g", precision, v);
        if (!strpbrk(text, ".e"))
            snprintf(text + strlen(text), size - strlen(text), ".0");
        return;
    }
    if (f->alternate) {
        snprintf(text, size, "%#.*e", precision - 1, v);
        return;
    }
    char *end = e;
    if (memchr(text, '.', (size_t)(e - text))) {
        while (end[-1] == '0')
            end--;
        end -= end[-1] == '.';
    }
    memmove(end, e, strlen(e) + 1);
}

/* Without either: the shortest digits that read back. */
static bool plain_float(struct render *r, const struct field *f, double v, char *text, size_t size)
{
    size_t mark = r->out.length;
    if (f->precision >= 0) {
        plain_precise(f, v, text, size);
        return true;
    }
    if (!jv_put_float(r, v))
        return false;
    snprintf(text, size, "%s", r->out.data + mark);
    render_cut(r, mark);
    return true;
}

bool field_put_float(struct render *r, const struct field *f, double v)
{
    size_t size = FLOAT_ROOM + (f->precision > 0 ? (size_t)f->precision : 0);
    char *text = jv_alloc(r, size), format[8];
    bool percent = f->type == '%', negative = signbit(v) && !isnan(v);
    int precision = f->precision < 0 ? 6 : (int)f->precision;
    if (!text || !jv_step_bytes(r, size))
        return false;
    double magnitude = fabs(percent ? v * 100 : v);
    if (isnan(v) || isinf(v)) {
        snprintf(text, size, "%s", isnan(v) ? "nan" : "inf");
        if (f->type && isupper((unsigned char)f->type))
            snprintf(text, size, "%s", isnan(v) ? "NAN" : "INF");
    } else if (!f->type) {
        if (!plain_float(r, f, magnitude, text, size))
            return false;
    } else {
        snprintf(format, sizeof format, f->alternate ? "%%#.*%c" : "%%.*%c", percent ? 'f' : f->type);
        snprintf(text, size, format, precision, magnitude);
    }
    if (percent)
        snprintf(text + strlen(text), size - strlen(text), "%%");
    if (f->no_minus_zero && !strpbrk(text, "123456789in")) /* 0 after rounding; not inf, nan */
        negative = false;
    const char *sign = sign_of(f, negative);
    return put_number(r, f, sign, grouped(r, f, sign, text));
}
