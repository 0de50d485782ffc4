/* Strings: UTF-8 with Python's idea of length and index (code points). Pure ASCII is indexed directly.
 * Adding to the end of a string that was itself made by adding extends the block it lies in, so that
 * s = s + x in a loop stays linear; the older, shorter string still sees only its own part. */
#include <string.h>

#include "jinja.h"

#define SHORTEST_GROWN 64U

struct jstr_tail {
    char *used_to; /* end of the newest string in the block */
    size_t room;   /* free behind it */
};

size_t jstr_count_chars(const char *data, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)data[i] & 0xc0) != 0x80;
    return n;
}

static struct jstr *str_alloc(struct render *r, size_t len)
{
    if (len > INT32_MAX) {
        jv_too_large(r, "a string of %zu bytes", len);
        return NULL;
    }
    struct jstr *s = jv_alloc(r, sizeof *s);
    if (s)
        *s = (struct jstr){.data = "", .len = (uint32_t)len};
    return s;
}

const struct jstr *jstr_borrow(struct render *r, const char *data, size_t len)
{
    struct jstr *s = jv_step_bytes(r, len) ? str_alloc(r, len) : NULL;
    if (!s)
        return NULL;
    if (len)
        s->data = data;
    s->n_chars = (uint32_t)jstr_count_chars(s->data, len);
    return s;
}

const struct jstr *jstr_literal(struct render *r, const char *text)
{
    return jstr_borrow(r, text, strlen(text));
}

const struct jstr *jstr_new(struct render *r, const char *data, size_t len)
{
    char *copy = len ? jv_alloc(r, len) : NULL;
    if (len && !copy)
        return NULL;
    if (len)
        memcpy(copy, data, len);
    return jstr_borrow(r, copy, len);
}

const struct jstr *jstr_mark(struct render *r, const struct jstr *s, bool safe)
{
    if (s->safe == safe)
        return s;
    struct jstr *marked = jv_alloc(r, sizeof *marked);
    if (!marked)
        return NULL;
    *marked = *s;
    marked->safe = safe;
    return marked;
}

const struct jstr *jstr_part(struct render *r, const struct jstr *s, size_t from, size_t to)
{
    if (from == 0 && to == s->len)
        return s;
    struct jstr *part = jv_step_bytes(r, to - from) ? str_alloc(r, to - from) : NULL;
    if (!part)
        return NULL;
    part->data = s->data + from;
    part->n_chars = s->n_chars == s->len ? part->len : (uint32_t)jstr_count_chars(part->data, part->len);
    part->safe = s->safe;
    return part;
}

/* Makes a block that holds a and has room for as much again. */
static bool str_make_growable(struct render *r, struct jstr *s, const struct jstr *a, size_t extra)
{
    size_t capacity = (size_t)a->len + extra;
    capacity += capacity < SHORTEST_GROWN ? 0 : capacity;
    char *data = jv_alloc(r, capacity ? capacity : 1);
    struct jstr_tail *tail = data ? jv_alloc(r, sizeof *tail) : NULL;
    if (!tail || !jv_step_bytes(r, a->len))
        return false;
    memcpy(data, a->data, a->len);
    *tail = (struct jstr_tail){.used_to = data + a->len, .room = capacity - a->len};
    s->data = data;
    s->tail = tail;
    return true;
}

const struct jstr *jstr_cat(struct render *r, const struct jstr *a, const struct jstr *b)
{
    if (a->safe != b->safe) { /* Markup escapes what is added to it, on either side */
        a = jstr_escape(r, a);
        b = a ? jstr_escape(r, b) : NULL;
        if (!b)
            return NULL;
    }
    if (!a->len || !b->len)
        return a->len ? a : b;
    struct jstr *s = jv_step_bytes(r, b->len) ? str_alloc(r, (size_t)a->len + b->len) : NULL;
    if (!s)
        return NULL;
    s->data = a->data;
    s->tail = a->tail;
    bool last = s->tail && s->tail->used_to == a->data + a->len && s->tail->room >= b->len;
    if (!last && !str_make_growable(r, s, a, b->len))
        return NULL;
    memcpy(s->tail->used_to, b->data, b->len);
    s->tail->used_to += b->len;
    s->tail->room -= b->len;
    s->n_chars = a->n_chars + b->n_chars;
    s->safe = a->safe;
    return s;
}

const struct jstr *jstr_repeat(struct render *r, const struct jstr *s, int64_t times)
{
    size_t len;
    if (times <= 0 || !s->len)
        return jstr_part(r, s, 0, 0);
    if (times > INT32_MAX || !size_mul(s->len, (size_t)times, &len) || len > r->memory_limit) {
        jv_too_large(r, "a string of %u bytes repeated %lld times", s->len, (long long)times);
        return NULL;
    }
    char *data = jv_step_bytes(r, len) ? jv_alloc(r, len) : NULL;
    if (!data)
        return NULL;
    for (size_t at = 0; at < len; at += s->len)
        memcpy(data + at, s->data, s->len);
    const struct jstr *result = jstr_borrow(r, data, len);
    return result ? jstr_mark(r, result, s->safe) : NULL;
}

const struct jstr *jstr_escape(struct render *r, const struct jstr *s)
{
    if (s->safe)
        return s;
    size_t mark = r->out.length, plain = 0;
    for (size_t i = 0; i < s->len; i++) {
        const char *entity = s->data[i] == '&'    ? "&amp;"
                             : s->data[i] == '<'  ? "&lt;"
                             : s->data[i] == '>'  ? "&gt;"
                             : s->data[i] == '\'' ? "&#39;"
                             : s->data[i] == '"'  ? "&#34;"
                                                  : NULL;
        if (!entity)
            continue;
        if (!jv_put(r, s->data + plain, i - plain) || !jv_puts(r, entity))
            return NULL;
        plain = i + 1;
    }
    if (!plain)
        return jstr_mark(r, s, true);
    if (!jv_put(r, s->data + plain, s->len - plain))
        return NULL;
    const struct jstr *escaped = render_take(r, mark);
    return escaped ? jstr_mark(r, escaped, true) : NULL;
}

size_t jstr_offset(const struct jstr *s, size_t char_index)
{
    if (char_index >= s->n_chars)
        return s->len;
    if (s->n_chars == s->len)
        return char_index;
    size_t at = 0;
    while (char_index > 0)
        char_index -= ++at >= s->len || ((unsigned char)s->data[at] & 0xc0) != 0x80;
    return at;
}

size_t jstr_find(const struct jstr *s, size_t from, const struct jstr *what)
{
    if (from > s->len)
        return JSTR_NONE;
    if (!what->len)
        return from;
    const char *found = memmem(s->data + from, s->len - from, what->data, what->len);
    return found ? (size_t)(found - s->data) : JSTR_NONE;
}

static char *reversed_copy(struct render *r, const char *data, size_t len)
{
    char *copy = jv_alloc(r, len);
    for (size_t i = 0; copy && i < len; i++)
        copy[i] = data[len - 1 - i];
    return copy;
}

/* Long texts are searched reversed, in linear time. */
static size_t rfind_long(struct render *r, const struct jstr *s, size_t to, const struct jstr *what)
{
    char *text = jv_step_bytes(r, to) ? reversed_copy(r, s->data, to) : NULL;
    char *wanted = text ? reversed_copy(r, what->data, what->len) : NULL;
    const char *found = wanted ? memmem(text, to, wanted, what->len) : NULL;
    return found ? to - (size_t)(found - text) - what->len : JSTR_NONE;
}

size_t jstr_rfind(struct render *r, const struct jstr *s, size_t to, const struct jstr *what)
{
    if (to > s->len)
        to = s->len;
    if (what->len > to)
        return JSTR_NONE;
    if (what->len > 32)
        return rfind_long(r, s, to, what);
    for (size_t at = to - what->len;; at--) {
        if (memcmp(s->data + at, what->data, what->len) == 0)
            return at;
        if (at == 0)
            return JSTR_NONE;
    }
}

static bool has_char(const struct jstr *chars, const char *c, size_t n)
{
    return memmem(chars->data, chars->len, c, n) != NULL;
}

const struct jstr *jstr_strip(struct render *r, const struct jstr *s, const struct jstr *chars, int sides)
{
    size_t from = 0, to = s->len, n;
    if (!chars) {
        if (sides & STRIP_LEFT)
            from = jchar_space_prefix(s->data, s->len);
        if (sides & STRIP_RIGHT)
            to -= jchar_space_suffix(s->data + from, s->len - from);
        return jstr_part(r, s, from, to);
    }
    while ((sides & STRIP_LEFT) && from < to) {
        jchar_decode(s->data + from, to - from, &n);
        if (!has_char(chars, s->data + from, n))
            break;
        if (!jv_step_bytes(r, chars->len))
            return NULL;
        from += n;
    }
    while ((sides & STRIP_RIGHT) && to > from) {
        size_t at = to - 1;
        while (at > from && ((unsigned char)s->data[at] & 0xc0) == 0x80)
            at--;
        if (!has_char(chars, s->data + at, to - at))
            break;
        if (!jv_step_bytes(r, chars->len))
            return NULL;
        to = at;
    }
    return jstr_part(r, s, from, to);
}

static const struct jstr *replace_between(struct render *r, const struct jstr *s, const struct jstr *with,
                                          int64_t count)
{
    size_t mark = r->out.length, at = 0, n = 0;
    for (; count != 0; count--) {
        if (!jv_put(r, with->data, with->len))
            return NULL;
        if (at >= s->len)
            return render_take(r, mark);
        jchar_decode(s->data + at, s->len - at, &n);
        if (!jv_put(r, s->data + at, n))
            return NULL;
        at += n;
    }
    return jv_put(r, s->data + at, s->len - at) ? render_take(r, mark) : NULL;
}

/* pair[0] is replaced by pair[1], at most count times (negative: all). */
const struct jstr *jstr_replace(struct render *r, const struct jstr *s, const struct jstr *const pair[2],
                                int64_t count)
{
    size_t mark = r->out.length, at = 0;
    if (!jv_step_bytes(r, s->len))
        return NULL;
    if (!pair[0]->len)
        return replace_between(r, s, pair[1], count);
    if (count == 0 || jstr_find(s, 0, pair[0]) == JSTR_NONE)
        return s;
    for (; count != 0; count--) {
        size_t found = jstr_find(s, at, pair[0]);
        if (found == JSTR_NONE)
            break;
        if (!jv_put(r, s->data + at, found - at) || !jv_put(r, pair[1]->data, pair[1]->len))
            return NULL;
        at = found + pair[0]->len;
    }
    return jv_put(r, s->data + at, s->len - at) ? render_take(r, mark) : NULL;
}

/* Length of the line end at s[at], or 0. */
static size_t line_end(const struct jstr *s, size_t at)
{
    size_t n;
    uint32_t c = jchar_decode(s->data + at, s->len - at, &n);
    if (c == '\r')
        return at + 1 < s->len && s->data[at + 1] == '\n' ? 2 : 1;
    bool ends =
        (c >= '\n' && c <= '\f') || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
    return ends ? n : 0;
}

struct jseq *jstr_splitlines(struct render *r, const struct jstr *s, bool keep_ends)
{
    struct jseq *lines = jseq_new(r, 0);
    size_t from = 0;
    for (size_t at = 0, n; lines && at < s->len; at += n) {
        size_t end = line_end(s, at);
        jchar_decode(s->data + at, s->len - at, &n);
        if (!end)
            continue;
        n = end;
        const struct jstr *line = jstr_part(r, s, from, keep_ends ? at + end : at);
        if (!line || !jseq_push(r, lines, jv_of_str(line)))
            return NULL;
        from = at + end;
    }
    if (!lines || from >= s->len)
        return lines;
    const struct jstr *last = jstr_part(r, s, from, s->len);
    return last && jseq_push(r, lines, jv_of_str(last)) ? lines : NULL;
}
