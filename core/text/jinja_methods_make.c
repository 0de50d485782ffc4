/* The methods of str that make new strings and lists of strings. */
#include <string.h>

#include "jinja_methods.h"
#include "jinja_number.h"

static struct jv str_upper(struct render *r, const struct call *c)
{
    return jv_of_str(jstr_case(r, c->self.s, JCASE_UPPER));
}

static struct jv str_lower(struct render *r, const struct call *c)
{
    return jv_of_str(jstr_case(r, c->self.s, JCASE_LOWER));
}

static struct jv str_title(struct render *r, const struct call *c)
{
    return jv_of_str(jstr_case(r, c->self.s, JCASE_TITLE));
}

static struct jv str_capitalize(struct render *r, const struct call *c)
{
    return jv_of_str(jstr_case(r, c->self.s, JCASE_CAPITAL));
}

static struct jv str_casefold(struct render *r, const struct call *c)
{
    return jv_of_str(jstr_case(r, c->self.s, JCASE_FOLD));
}

static struct jv str_swapcase(struct render *r, const struct call *c)
{
    return jv_of_str(jstr_case(r, c->self.s, JCASE_SWAP));
}

static struct jv strip(struct render *r, const struct call *c, int sides)
{
    const struct jstr *chars = NULL;
    return call_str(r, c, 0, &chars) ? jv_of_str(jstr_strip(r, c->self.s, chars, sides))
                                     : jv_tagged(JV_ERROR);
}

static struct jv str_strip(struct render *r, const struct call *c)
{
    return strip(r, c, STRIP_LEFT | STRIP_RIGHT);
}

static struct jv str_lstrip(struct render *r, const struct call *c)
{
    return strip(r, c, STRIP_LEFT);
}

static struct jv str_rstrip(struct render *r, const struct call *c)
{
    return strip(r, c, STRIP_RIGHT);
}

static struct jv str_replace(struct render *r, const struct call *c)
{
    const struct jstr *pair[2];
    int64_t count = -1;
    if (!need_str(r, c, 0, &pair[0]) || !need_str(r, c, 1, &pair[1]) || !call_int(r, c, 2, &count))
        return jv_tagged(JV_ERROR);
    if (c->self.s->safe)
        pair[1] = jstr_escape(r, pair[1]);
    const struct jstr *result = pair[1] ? jstr_replace(r, c->self.s, pair, count) : NULL;
    return jv_of_str(result ? jstr_mark(r, result, c->self.s->safe) : NULL);
}

static struct jv str_removeprefix(struct render *r, const struct call *c)
{
    const struct jstr *s = c->self.s, *prefix;
    if (!need_str(r, c, 0, &prefix))
        return jv_tagged(JV_ERROR);
    bool has = prefix->len <= s->len && memcmp(s->data, prefix->data, prefix->len) == 0;
    return jv_of_str(jstr_part(r, s, has ? prefix->len : 0, s->len));
}

static struct jv str_removesuffix(struct render *r, const struct call *c)
{
    const struct jstr *s = c->self.s, *suffix;
    if (!need_str(r, c, 0, &suffix))
        return jv_tagged(JV_ERROR);
    bool has =
        suffix->len <= s->len && memcmp(s->data + s->len - suffix->len, suffix->data, suffix->len) == 0;
    return jv_of_str(jstr_part(r, s, 0, has ? s->len - suffix->len : s->len));
}

/* ---- splitting */

static bool push_part(struct render *r, struct jseq *parts, const struct jstr *s, size_t from, size_t to)
{
    const struct jstr *part = jstr_part(r, s, from, to);
    return part && jseq_push(r, parts, jv_of_str(part));
}

static bool split_space(struct render *r, const struct jstr *s, int64_t most, struct jseq *parts)
{
    size_t at = jchar_space_prefix(s->data, s->len);
    while (at < s->len) {
        size_t end = at, n;
        if (most-- == 0)
            return push_part(r, parts, s, at, s->len);
        while (end < s->len && !jchar_is_space(jchar_decode(s->data + end, s->len - end, &n)))
            end += n;
        if (!push_part(r, parts, s, at, end))
            return false;
        at = end + jchar_space_prefix(s->data + end, s->len - end);
    }
    return true;
}

/* From the right; parts come out last first. */
static bool rsplit_space(struct render *r, const struct jstr *s, int64_t most, struct jseq *parts)
{
    size_t end = s->len - jchar_space_suffix(s->data, s->len);
    while (end > 0) {
        size_t at = end;
        if (most-- == 0)
            return push_part(r, parts, s, 0, end);
        while (at > 0) {
            size_t start = at - 1, n;
            while (start > 0 && ((unsigned char)s->data[start] & 0xc0) == 0x80)
                start--;
            if (jchar_is_space(jchar_decode(s->data + start, at - start, &n)))
                break;
            at = start;
        }
        if (!push_part(r, parts, s, at, end))
            return false;
        end = at - jchar_space_suffix(s->data, at);
    }
    return true;
}

static bool split_at(struct render *r, const struct jstr *s, const struct jstr *separator, int64_t most,
                     struct jseq *parts)
{
    size_t at = 0, found;
    while (most-- != 0 && (found = jstr_find(s, at, separator)) != JSTR_NONE) {
        if (!push_part(r, parts, s, at, found))
            return false;
        at = found + separator->len;
    }
    return push_part(r, parts, s, at, s->len);
}

static bool rsplit_at(struct render *r, const struct jstr *s, const struct jstr *separator, int64_t most,
                      struct jseq *parts)
{
    size_t end = s->len, found;
    while (most-- != 0 && (found = jstr_rfind(r, s, end, separator)) != JSTR_NONE) {
        if (!push_part(r, parts, s, found + separator->len, end))
            return false;
        end = found;
    }
    return r->err.status == STATUS_OK && push_part(r, parts, s, 0, end);
}

static struct jv split(struct render *r, const struct call *c, bool from_right)
{
    const struct jstr *s = c->self.s, *separator = NULL;
    int64_t most = -1;
    struct jseq *parts = jseq_new(r, 0);
    if (!parts || !call_str(r, c, 0, &separator) || !call_int(r, c, 1, &most) || !jv_step_bytes(r, s->len))
        return jv_tagged(JV_ERROR);
    if (separator && !separator->len)
        return jv_raise(r, "ValueError", "empty separator");
    bool ok;
    if (separator)
        ok = from_right ? rsplit_at(r, s, separator, most, parts) : split_at(r, s, separator, most, parts);
    else
        ok = from_right ? rsplit_space(r, s, most, parts) : split_space(r, s, most, parts);
    for (size_t i = 0; ok && from_right && i < parts->n / 2; i++) {
        struct jv swap = parts->items[i];
        parts->items[i] = parts->items[parts->n - 1 - i];
        parts->items[parts->n - 1 - i] = swap;
    }
    return ok ? jv_of_seq(JV_LIST, parts) : jv_tagged(JV_ERROR);
}

static struct jv str_split(struct render *r, const struct call *c)
{
    return split(r, c, false);
}

static struct jv str_rsplit(struct render *r, const struct call *c)
{
    return split(r, c, true);
}

static struct jv str_splitlines(struct render *r, const struct call *c)
{
    return jv_of_seq(JV_LIST, jstr_splitlines(r, c->self.s, call_bool(c, 0)));
}

static struct jv partition(struct render *r, const struct call *c, bool from_right)
{
    const struct jstr *s = c->self.s, *separator;
    if (!need_str(r, c, 0, &separator))
        return jv_tagged(JV_ERROR);
    if (!separator->len)
        return jv_raise(r, "ValueError", "empty separator");
    size_t found = from_right ? jstr_rfind(r, s, s->len, separator) : jstr_find(s, 0, separator);
    struct jseq *parts = jseq_new(r, 0);
    bool ok = parts != NULL && r->err.status == STATUS_OK;
    if (found == JSTR_NONE)
        ok = ok && push_part(r, parts, s, 0, from_right ? 0 : s->len) && push_part(r, parts, s, 0, 0) &&
             push_part(r, parts, s, from_right ? 0 : s->len, s->len);
    else
        ok = ok && push_part(r, parts, s, 0, found) &&
             push_part(r, parts, s, found, found + separator->len) &&
             push_part(r, parts, s, found + separator->len, s->len);
    return ok ? jv_of_seq(JV_TUPLE, parts) : jv_tagged(JV_ERROR);
}

static struct jv str_partition(struct render *r, const struct call *c)
{
    return partition(r, c, false);
}

static struct jv str_rpartition(struct render *r, const struct call *c)
{
    return partition(r, c, true);
}

static struct jv str_join(struct render *r, const struct call *c)
{
    const struct jstr *s = c->self.s;
    struct jcursor cursor;
    struct jv item;
    size_t mark = r->out.length, i = 0;
    int more;
    if (!jv_iterable(c->a[0]))
        return jv_raise(r, "TypeError", "can only join an iterable");
    if (!jcursor_begin(r, &cursor, c->a[0]))
        return jv_tagged(JV_ERROR);
    for (; (more = jcursor_next(r, &cursor, &item)) > 0; i++) {
        if (item.tag != JV_STR && !s->safe)
            return jv_raise(r, "TypeError", "sequence item %zu: expected str instance, %s found", i,
                            jv_type_name(item));
        const struct jstr *text = jv_to_str(r, item);
        text = text && s->safe ? jstr_escape(r, text) : text;
        if (!text || (i && !jv_put(r, s->data, s->len)) || !jv_put(r, text->data, text->len))
            return jv_tagged(JV_ERROR);
    }
    const struct jstr *result = more < 0 ? NULL : render_take(r, mark);
    return jv_of_str(result ? jstr_mark(r, result, s->safe) : NULL);
}

/* ---- widths */

static struct jv pad(struct render *r, const struct call *c, char align)
{
    struct field f = {.precision = -1, .align = align};
    const struct jstr *fill = NULL, *s = c->self.s;
    size_t mark = r->out.length;
    if (!call_int(r, c, 0, &f.width) || !call_str(r, c, 1, &fill) || !field_check(r, &f))
        return jv_tagged(JV_ERROR);
    if (fill && fill->n_chars != 1)
        return jv_raise(r, "TypeError", "The fill character must be exactly one character long");
    if (fill) {
        memcpy(f.fill, fill->data, fill->len);
        f.fill_len = fill->len;
    }
    /* str.center puts the odd blank left when the width is odd, format right: one more on the left then. */
    int64_t room = f.width - (int64_t)s->n_chars;
    if (align == '^' && room > 0 && (room & 1) && (f.width & 1)) {
        struct field one = f;
        one.width = 1;
        one.align = '<';
        const struct jstr *empty = jstr_literal(r, "");
        if (!empty || !field_put_text(r, &one, empty))
            return jv_tagged(JV_ERROR);
        f.width--;
    }
    if (!field_put_text(r, &f, s))
        return jv_tagged(JV_ERROR);
    const struct jstr *result = render_take(r, mark);
    return jv_of_str(result ? jstr_mark(r, result, s->safe) : NULL);
}

static struct jv str_center(struct render *r, const struct call *c)
{
    return pad(r, c, '^');
}

static struct jv str_ljust(struct render *r, const struct call *c)
{
    return pad(r, c, '<');
}

static struct jv str_rjust(struct render *r, const struct call *c)
{
    return pad(r, c, '>');
}

static struct jv str_zfill(struct render *r, const struct call *c)
{
    const struct jstr *s = c->self.s;
    struct field f = {.precision = -1, .align = '>', .fill = "0", .fill_len = 1};
    size_t mark = r->out.length, sign = s->len && (s->data[0] == '+' || s->data[0] == '-');
    if (!call_int(r, c, 0, &f.width) || !field_check(r, &f))
        return jv_tagged(JV_ERROR);
    const struct jstr *digits = jstr_part(r, s, sign, s->len);
    f.width -= (int64_t)sign;
    if (!digits || !jv_put(r, s->data, sign) || !field_put_text(r, &f, digits))
        return jv_tagged(JV_ERROR);
    const struct jstr *result = render_take(r, mark);
    return jv_of_str(result ? jstr_mark(r, result, s->safe) : NULL);
}

static struct jv str_expandtabs(struct render *r, const struct call *c)
{
    const struct jstr *s = c->self.s;
    int64_t size = 8, column = 0;
    size_t mark = r->out.length;
    if (!call_int(r, c, 0, &size))
        return jv_tagged(JV_ERROR);
    if (size > JINJA_MAX_WIDTH)
        return jv_too_large(r, "a tab of %lld columns", (long long)size);
    for (size_t i = 0; i < s->len; i++) {
        char ch = s->data[i];
        bool ok = true;
        if (ch != '\t')
            ok = jv_put(r, &ch, 1);
        int64_t blanks = ch != '\t' || size <= 0 ? 0 : size - column % size;
        for (int64_t k = 0; k < blanks && ok; k++)
            ok = jv_puts(r, " ");
        if (!ok)
            return jv_tagged(JV_ERROR);
        column += ch == '\t' ? blanks : ((unsigned char)ch & 0xc0) != 0x80;
        if (ch == '\n' || ch == '\r')
            column = 0;
    }
    const struct jstr *result = render_take(r, mark);
    return jv_of_str(result ? jstr_mark(r, result, s->safe) : NULL);
}

const struct builtin methods_str_make[] = {
    {"capitalize", "", 0, str_capitalize},
    {"casefold", "", 0, str_casefold},
    {"center", "width fillchar", 1, str_center},
    {"expandtabs", "tabsize", 0, str_expandtabs},
    {"format", NULL, 0, jstr_format},
    {"format_map", NULL, 0, jstr_format_map},
    {"join", "iterable", 1, str_join},
    {"ljust", "width fillchar", 1, str_ljust},
    {"lower", "", 0, str_lower},
    {"lstrip", "chars", 0, str_lstrip},
    {"partition", "sep", 1, str_partition},
    {"removeprefix", "prefix", 1, str_removeprefix},
    {"removesuffix", "suffix", 1, str_removesuffix},
    {"replace", "old new count", 2, str_replace},
    {"rjust", "width fillchar", 1, str_rjust},
    {"rpartition", "sep", 1, str_rpartition},
    {"rsplit", "sep maxsplit", 0, str_rsplit},
    {"rstrip", "chars", 0, str_rstrip},
    {"split", "sep maxsplit", 0, str_split},
    {"splitlines", "keepends", 0, str_splitlines},
    {"strip", "chars", 0, str_strip},
    {"swapcase", "", 0, str_swapcase},
    {"title", "", 0, str_title},
    {"upper", "", 0, str_upper},
    {"zfill", "width", 1, str_zfill},
    {NULL, NULL, 0, NULL},
};
