/* Iteration, `in`, subscription, slices, reversal and sorting, with Python's rules. */
#include <string.h>

#include "jinja.h"

bool jv_iterable(struct jv v)
{
    switch (v.tag) {
    case JV_UNDEFINED:
    case JV_STR:
    case JV_LIST:
    case JV_TUPLE:
    case JV_DICT:
    case JV_VIEW:
    case JV_RANGE:
    case JV_ITER:
    case JV_LOOP:
        return true;
    default:
        return false;
    }
}

bool jcursor_begin(struct render *r, struct jcursor *c, struct jv v)
{
    *c = (struct jcursor){.source = v};
    if (!jv_iterable(v) || v.tag == JV_LOOP) {
        jv_raise(r, "TypeError", "'%s' object is not iterable", jv_type_name(v));
        return false;
    }
    return true;
}

static int next_char(struct render *r, struct jcursor *c, struct jv *item)
{
    const struct jstr *s = c->source.s;
    size_t n;
    if (c->at >= s->len)
        return 0;
    jchar_decode(s->data + c->at, s->len - c->at, &n);
    const struct jstr *one = jstr_part(r, s, c->at, c->at + n);
    *item = jv_of_str(one ? jstr_mark(r, one, false) : NULL); /* iterating Markup gives plain characters */
    c->at += n;
    return jv_is_error(*item) ? -1 : 1;
}

static int next_entry(struct render *r, struct jcursor *c, struct jv *item)
{
    const struct jdict *d = c->source.dict;
    if (c->at >= d->n)
        return 0;
    const struct jentry *e = &d->entries[c->at++];
    if (c->source.tag == JV_DICT || c->source.kind == JVIEW_KEYS)
        *item = e->key;
    else if (c->source.kind == JVIEW_VALUES)
        *item = e->value;
    else
        *item = jv_of_seq(JV_TUPLE, jseq_pair(r, e->key, e->value));
    return jv_is_error(*item) ? -1 : 1;
}

static int next_generated(struct render *r, struct jiter *it, struct jv *item)
{
    if (it->at < it->items->n) {
        *item = it->items->items[it->at++];
        return 1;
    }
    if (!it->error)
        return 0;
    jv_raise(r, NULL, "%s", it->error);
    return -1;
}

int jcursor_next(struct render *r, struct jcursor *c, struct jv *item)
{
    if (!jv_steps(r, 1))
        return -1;
    switch (c->source.tag) {
    case JV_STR:
        return next_char(r, c, item);
    case JV_LIST:
    case JV_TUPLE:
        if (c->at >= c->source.seq->n)
            return 0;
        *item = c->source.seq->items[c->at++];
        return 1;
    case JV_DICT:
    case JV_VIEW:
        return next_entry(r, c, item);
    case JV_RANGE:
        if ((int64_t)c->at >= c->source.range->n)
            return 0;
        *item = jv_int(c->source.range->start + (int64_t)c->at++ * c->source.range->step);
        return 1;
    case JV_ITER:
        return next_generated(r, c->source.iter, item);
    default:
        return 0;
    }
}

struct jseq *jv_items(struct render *r, struct jv v)
{
    if (jv_is_seq(v))
        return v.seq;
    struct jcursor c;
    struct jseq *items = jcursor_begin(r, &c, v) ? jseq_new(r, 0) : NULL;
    struct jv item;
    int more = 0;
    while (items && (more = jcursor_next(r, &c, &item)) > 0)
        if (!jseq_push(r, items, item))
            return NULL;
    return more < 0 ? NULL : items;
}

static struct jv contained_in_str(struct render *r, const struct jstr *s, struct jv item)
{
    if (item.tag != JV_STR)
        return jv_raise(r, "TypeError", "'in <string>' requires string as left operand, not %s",
                        jv_type_name(item));
    if (!jv_step_bytes(r, s->len))
        return jv_tagged(JV_ERROR);
    return jv_bool(jstr_find(s, 0, item.s) != JSTR_NONE);
}

struct jv jv_contains(struct render *r, struct jv container, struct jv item)
{
    if (container.tag == JV_STR)
        return contained_in_str(r, container.s, item);
    if (container.tag == JV_DICT || (container.tag == JV_VIEW && container.kind == JVIEW_KEYS)) {
        struct jv value;
        int found = jdict_get(r, container.dict, item, &value);
        return found < 0 ? jv_tagged(JV_ERROR) : jv_bool(found);
    }
    if (!jv_iterable(container) || container.tag == JV_LOOP)
        return jv_raise(r, "TypeError", "argument of type '%s' is not iterable", jv_type_name(container));
    struct jcursor c;
    struct jv other;
    int more = -1;
    if (!jcursor_begin(r, &c, container))
        return jv_tagged(JV_ERROR);
    while ((more = jcursor_next(r, &c, &other)) > 0) {
        struct jv e = jv_equal(r, other, item);
        if (jv_is_error(e) || e.b)
            return e;
    }
    return more < 0 ? jv_tagged(JV_ERROR) : jv_bool(false);
}

/* Python's index: negative counts from the end. False: out of range. */
static bool normal_index(int64_t i, int64_t n, int64_t *at)
{
    *at = i < 0 ? i + n : i;
    return *at >= 0 && *at < n;
}

struct jv jv_item(struct render *r, struct jv v, struct jv key)
{
    int64_t at;
    struct jv value;
    switch (v.tag) {
    case JV_DICT: {
        int found = jdict_get(r, v.dict, key, &value);
        return found < 0 ? jv_tagged(JV_ERROR) : found ? value : jv_tagged(JV_MISSING);
    }
    case JV_LIST:
    case JV_TUPLE:
        if (!jv_is_int(key) || !normal_index(jv_as_int(key), (int64_t)v.seq->n, &at))
            return jv_tagged(JV_MISSING);
        return v.seq->items[at];
    case JV_STR: {
        if (!jv_is_int(key) || !normal_index(jv_as_int(key), v.s->n_chars, &at))
            return jv_tagged(JV_MISSING);
        size_t n, from = jstr_offset(v.s, (size_t)at);
        if (v.s->n_chars != v.s->len && !jv_step_bytes(r, from))
            return jv_tagged(JV_ERROR);
        jchar_decode(v.s->data + from, v.s->len - from, &n);
        return jv_of_str(jstr_part(r, v.s, from, from + n));
    }
    case JV_RANGE:
        if (!jv_is_int(key) || !normal_index(jv_as_int(key), v.range->n, &at))
            return jv_tagged(JV_MISSING);
        return jv_int(v.range->start + at * v.range->step);
    default:
        return jv_tagged(JV_MISSING);
    }
}

/* ---- slices */

struct slice {
    int64_t start, step, n;
};

static int64_t clamp(int64_t i, int64_t low, int64_t high)
{
    return i < low ? low : i > high ? high : i;
}

static bool slice_bound(struct render *r, struct jv v, int64_t *out)
{
    if (v.tag == JV_NONE || v.tag == JV_MISSING)
        return true;
    if (!jv_is_int(v)) {
        if (v.tag == JV_UNDEFINED)
            jv_raise_undefined(r, v);
        else
            jv_raise(r, "TypeError", "slice indices must be integers or None or have an __index__ method");
        return false;
    }
    *out = jv_as_int(v);
    return true;
}

static bool slice_resolve(struct render *r, const struct jv bounds[3], int64_t length, struct slice *s)
{
    int64_t step = 1;
    if (!slice_bound(r, bounds[2], &step))
        return false;
    if (step == 0) {
        jv_raise(r, "ValueError", "slice step cannot be zero");
        return false;
    }
    step = clamp(step, -INT32_MAX, INT32_MAX);
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? length - 1 : length;
    int64_t start = INT64_MIN, stop = INT64_MIN;
    if (!slice_bound(r, bounds[0], &start) || !slice_bound(r, bounds[1], &stop))
        return false;
    bool has_start = bounds[0].tag != JV_NONE && bounds[0].tag != JV_MISSING;
    bool has_stop = bounds[1].tag != JV_NONE && bounds[1].tag != JV_MISSING;
    start = !has_start ? (step < 0 ? high : low) : clamp(start < 0 ? start + length : start, low, high);
    stop = !has_stop ? (step < 0 ? low : high) : clamp(stop < 0 ? stop + length : stop, low, high);
    int64_t distance = step > 0 ? stop - start : start - stop, stride = step > 0 ? step : -step;
    *s = (struct slice){.start = start, .step = step, .n = distance <= 0 ? 0 : (distance - 1) / stride + 1};
    return true;
}

static struct jv slice_str(struct render *r, const struct jstr *s, const struct slice *k)
{
    if (k->step == 1 || k->n <= 0) {
        size_t from = k->n > 0 ? jstr_offset(s, (size_t)k->start) : 0;
        size_t to = k->n > 0 ? jstr_offset(s, (size_t)(k->start + k->n)) : 0;
        return jv_step_bytes(r, to) ? jv_of_str(jstr_part(r, s, from, to)) : jv_tagged(JV_ERROR);
    }
    size_t mark = r->out.length;
    struct jseq *chars = jv_items(r, jv_of_str(s));
    if (!chars)
        return jv_tagged(JV_ERROR);
    for (int64_t i = 0; i < k->n; i++) {
        const struct jstr *c = chars->items[k->start + i * k->step].s;
        if (!jv_put(r, c->data, c->len))
            return jv_tagged(JV_ERROR);
    }
    const struct jstr *part = render_take(r, mark);
    return part ? jv_of_str(jstr_mark(r, part, s->safe)) : jv_tagged(JV_ERROR);
}

static struct jv slice_seq(struct render *r, struct jv v, const struct slice *k)
{
    struct jseq *part = jseq_new(r, (size_t)k->n);
    for (int64_t i = 0; part && i < k->n; i++)
        part->items[i] = v.seq->items[k->start + i * k->step];
    return jv_of_seq(v.tag, part);
}

static struct jv slice_range(struct render *r, const struct jrange *v, const struct slice *k)
{
    struct jrange *part = jv_alloc(r, sizeof *part);
    if (!part)
        return jv_tagged(JV_ERROR);
    part->start = v->start + k->start * v->step;
    part->step = k->n > 1 ? v->step * k->step : 1; /* inside v, so nothing overflows */
    part->n = k->n > 0 ? k->n : 0;
    if (__builtin_add_overflow(part->start, part->n * part->step, &part->stop))
        part->stop = part->step > 0 ? INT64_MAX : INT64_MIN;
    return (struct jv){.tag = JV_RANGE, .range = part};
}

struct jv jv_slice(struct render *r, struct jv v, const struct jv bounds[3])
{
    if (v.tag == JV_UNDEFINED)
        return jv_raise_undefined(r, v);
    if (v.tag == JV_DICT)
        return jv_raise(r, "TypeError", "unhashable type: 'slice'");
    if (v.tag != JV_STR && !jv_is_seq(v) && v.tag != JV_RANGE)
        return jv_raise(r, "TypeError", "'%s' object is not subscriptable", jv_type_name(v));
    struct jv length = jv_len(r, v);
    struct slice k;
    if (jv_is_error(length) || !slice_resolve(r, bounds, length.i, &k))
        return jv_tagged(JV_ERROR);
    if (v.tag == JV_STR)
        return slice_str(r, v.s, &k);
    return v.tag == JV_RANGE ? slice_range(r, v.range, &k) : slice_seq(r, v, &k);
}

struct jv jv_reversed(struct render *r, struct jv v)
{
    if (v.tag == JV_ITER || !jv_iterable(v) || v.tag == JV_LOOP)
        return jv_raise(r, "TypeError", "'%s' object is not reversible", jv_type_name(v));
    struct jseq *items = jv_items(r, v);
    struct jseq *reversed = items ? jseq_new(r, items->n) : NULL;
    for (size_t i = 0; reversed && i < items->n; i++)
        reversed->items[i] = items->items[items->n - 1 - i];
    return jiter_new(r, v.tag == JV_LIST ? "list_reverseiterator" : "reversed", reversed);
}

/* ---- a stable merge sort; items move with their keys */

struct sorter {
    struct render *r;
    struct jv *items, *keys, *items_to, *keys_to;
    bool reverse;
};

static bool merge(struct sorter *s, size_t from, size_t middle, size_t to)
{
    size_t a = from, b = middle;
    for (size_t at = from; at < to; at++) {
        bool take_b = a >= middle;
        if (a < middle && b < to) {
            struct jv less = s->reverse ? jv_less(s->r, s->keys[a], s->keys[b], "<")
                                        : jv_less(s->r, s->keys[b], s->keys[a], "<");
            if (jv_is_error(less))
                return false;
            take_b = less.b;
        }
        size_t source = take_b ? b++ : a++;
        s->items_to[at] = s->items[source];
        s->keys_to[at] = s->keys[source];
    }
    return true;
}

bool jv_sort(struct render *r, struct jv *items, struct jv *keys, size_t n, bool reverse)
{
    if (n < 2)
        return true;
    struct sorter s = {.r = r, .items = items, .keys = keys, .reverse = reverse};
    s.items_to = jv_alloc(r, n * sizeof *items);
    s.keys_to = s.items_to ? jv_alloc(r, n * sizeof *items) : NULL;
    if (!s.keys_to)
        return false;
    for (size_t width = 1; width < n; width *= 2) {
        if (!jv_steps(r, n))
            return false;
        for (size_t from = 0; from < n; from += 2 * width) {
            size_t middle = from + width < n ? from + width : n, to = middle + width < n ? middle + width : n;
            if (!merge(&s, from, middle, to))
                return false;
        }
        struct jv *swap = s.items;
        s.items = s.items_to;
        s.items_to = swap;
        swap = s.keys;
        s.keys = s.keys_to;
        s.keys_to = swap;
    }
    if (s.items != items)
        memcpy(items, s.items, n * sizeof *items);
    return true;
}
