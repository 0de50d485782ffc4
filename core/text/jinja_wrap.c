/* The wordwrap filter: paragraphs broken into lines as Python's textwrap does it. A paragraph is cut into
 * chunks (words, parts of hyphenated words, white space), and each line takes as many chunks as fit. */
#include <string.h>

#include "jinja.h"

struct wrapper {
    struct render *r;
    const struct jstr *text; /* the paragraph */
    uint32_t *chars;         /* [n] */
    size_t *offsets;         /* [n + 1], bytes */
    size_t n;
    size_t *ends; /* [n_chunks]: where each chunk ends */
    size_t n_chunks;
    size_t width;
    bool break_words, split_hyphens, break_at_hyphens;
    const struct jstr *newline;
};

static bool is_blank(uint32_t c) /* textwrap's own list */
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_word(uint32_t c)
{
    return c == '_' || jchar_is_alpha(c) || jchar_is_decimal(c) || jchar_is_digit(c) || jchar_is_numeric(c);
}

static bool letter_at(const struct wrapper *w, size_t at)
{
    return at < w->n && is_word(w->chars[at]) && !jchar_is_decimal(w->chars[at]);
}

static bool hyphen_at(const struct wrapper *w, size_t at)
{
    return at < w->n && w->chars[at] == '-';
}

/* A dash of two or more hyphens between words begins here; its end, or `at`. */
static size_t dash_end(const struct wrapper *w, size_t at)
{
    size_t end = at;
    bool behind_word = at > 0 && (is_word(w->chars[at - 1]) ||
                                  (w->chars[at - 1] < 0x80 && strchr("!\"'&.,?", (int)w->chars[at - 1])));
    while (hyphen_at(w, end))
        end++;
    return behind_word && end - at >= 2 && end < w->n && is_word(w->chars[end]) ? end : at;
}

/* A word may be broken behind the hyphen here: two letters (or letter, hyphen, letter) before it, two after.
 */
static bool breaks_word(const struct wrapper *w, size_t at)
{
    if (!hyphen_at(w, at) || at < 2 || !letter_at(w, at - 1) || !letter_at(w, at + 1))
        return false;
    bool before = letter_at(w, at - 2) || (at >= 3 && hyphen_at(w, at - 2) && letter_at(w, at - 3));
    return before && (letter_at(w, at + 2) || (hyphen_at(w, at + 2) && letter_at(w, at + 3)));
}

static size_t chunk_end(const struct wrapper *w, size_t at)
{
    size_t end = at;
    while (end < w->n && is_blank(w->chars[end]))
        end++;
    if (end > at)
        return end;
    if (w->split_hyphens && dash_end(w, at) > at)
        return dash_end(w, at);
    for (end = at + 1; end < w->n && !is_blank(w->chars[end]); end++) {
        if (w->split_hyphens && breaks_word(w, end))
            return end + 1;
        if (w->split_hyphens && dash_end(w, end) > end)
            return end;
    }
    return end;
}

static bool read_chunks(struct wrapper *w)
{
    const struct jstr *s = w->text;
    w->n = s->n_chars;
    w->n_chunks = 0;
    w->chars = jv_alloc(w->r, (w->n + 1) * sizeof *w->chars);
    w->offsets = w->chars ? jv_alloc(w->r, (w->n + 1) * sizeof *w->offsets) : NULL;
    w->ends = w->offsets ? jv_alloc(w->r, (w->n + 1) * sizeof *w->ends) : NULL;
    if (!w->ends || !jv_step_bytes(w->r, s->len))
        return false;
    for (size_t i = 0, at = 0, bytes; i < w->n; i++, at += bytes) {
        w->chars[i] = jchar_decode(s->data + at, s->len - at, &bytes);
        w->offsets[i] = at;
    }
    w->offsets[w->n] = s->len;
    for (size_t at = 0; at < w->n; at = w->ends[w->n_chunks++])
        w->ends[w->n_chunks] = chunk_end(w, at);
    return true;
}

static bool all_space(const struct wrapper *w, size_t from, size_t to)
{
    while (from < to && jchar_is_space(w->chars[from]))
        from++;
    return from == to;
}

/* How much of a chunk that fits on no line goes on this one, which has room for so many characters. */
static size_t part_of_long(const struct wrapper *w, size_t from, size_t room)
{
    size_t end = from + room;
    while (w->break_at_hyphens && end > from && w->chars[end - 1] != '-')
        end--;
    size_t other = from;
    while (other + 1 < end && w->chars[other] == '-')
        other++;
    return w->break_at_hyphens && end > from + 1 && other + 1 < end ? end - from : room;
}

static bool put_line(struct wrapper *w, size_t from, size_t to, bool first)
{
    const struct jstr *s = w->text;
    return (first || jv_put(w->r, w->newline->data, w->newline->len)) &&
           jv_put(w->r, s->data + w->offsets[from], w->offsets[to] - w->offsets[from]);
}

static bool wrap_paragraph(struct wrapper *w)
{
    bool first = true;
    for (size_t at = 0, chunk = 0; chunk < w->n_chunks;) {
        if (!first && all_space(w, at, w->ends[chunk]))
            at = w->ends[chunk++];
        size_t from = at, last = at, n_pieces = 0;
        for (; chunk < w->n_chunks && w->ends[chunk] - from <= w->width; n_pieces++) {
            last = at;
            at = w->ends[chunk++];
        }
        bool too_long = chunk < w->n_chunks && w->ends[chunk] - at > w->width;
        if (too_long && (w->break_words || !n_pieces)) {
            last = at;
            at = w->break_words ? at + part_of_long(w, at, w->width - (at - from)) : w->ends[chunk++];
            n_pieces++;
        }
        size_t to = at;
        if (n_pieces && all_space(w, last, at)) {
            to = last;
            n_pieces--;
        }
        if (n_pieces && !put_line(w, from, to, first))
            return false;
        first &= n_pieces == 0;
    }
    return true;
}

struct jv filter_wordwrap(struct render *r, const struct call *c)
{
    int64_t width = 79;
    struct wrapper w = {.r = r};
    w.break_words = c->a[1].tag == JV_MISSING || call_bool(c, 1);
    w.break_at_hyphens = c->a[3].tag == JV_MISSING || call_bool(c, 3);
    w.split_hyphens = c->a[3].tag == JV_MISSING || (c->a[3].tag == JV_BOOL && c->a[3].b);
    w.newline = jstr_literal(r, "\n");
    if (c->self.tag == JV_UNDEFINED)
        return jv_raise_undefined(r, c->self);
    if (c->self.tag != JV_STR)
        return jv_raise(r, "AttributeError", "'%s' object has no attribute 'splitlines'",
                        jv_type_name(c->self));
    if (!w.newline || !call_int(r, c, 0, &width) || !call_str(r, c, 2, &w.newline))
        return jv_tagged(JV_ERROR);
    struct jseq *lines = jstr_splitlines(r, c->self.s, false);
    if (lines && lines->n && width <= 0)
        return jv_raise(r, "ValueError", "invalid width %lld (must be > 0)", (long long)width);
    w.width = (size_t)width;
    size_t mark = r->out.length;
    for (size_t i = 0; lines && i < lines->n; i++) {
        w.text = lines->items[i].s;
        if ((i && !jv_put(r, w.newline->data, w.newline->len)) || !read_chunks(&w) || !wrap_paragraph(&w))
            return jv_tagged(JV_ERROR);
    }
    return lines ? jv_of_str(render_take(r, mark)) : jv_tagged(JV_ERROR);
}
