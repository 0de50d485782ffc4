/* Filters over sequences. Where Jinja gives a generator, so do we: it can be read once and is always true. */
#include <string.h>

#include "jinja.h"

static struct jv lower_if(struct render *r, struct jv v, bool case_sensitive)
{
    return v.tag == JV_STR && !case_sensitive ? jv_of_str(jstr_case(r, v.s, JCASE_LOWER)) : v;
}

/* item.attribute, in lower case unless case matters: what sort, unique, min, max and groupby compare. */
static struct jv key_of(struct render *r, struct jv item, struct jv attribute, bool case_sensitive)
{
    struct jv v = jv_path(r, item, attribute);
    return jv_is_error(v) ? v : lower_if(r, v, case_sensitive);
}

static struct jv filter_first(struct render *r, const struct call *c)
{
    struct jcursor cursor;
    struct jv item;
    if (!jcursor_begin(r, &cursor, c->self))
        return jv_tagged(JV_ERROR);
    int more = jcursor_next(r, &cursor, &item);
    if (more < 0)
        return jv_tagged(JV_ERROR);
    return more ? item : jv_undefined_hint(r, "No first item, sequence was empty.");
}

static struct jv filter_last(struct render *r, const struct call *c)
{
    struct jv reversed = jv_reversed(r, c->self);
    if (jv_is_error(reversed))
        return reversed;
    const struct jseq *items = reversed.iter->items;
    return items->n ? items->items[0] : jv_undefined_hint(r, "No last item, sequence was empty.");
}

static struct jv filter_list(struct render *r, const struct call *c)
{
    return jv_of_seq(JV_LIST, jv_items(r, c->self));
}

static struct jv filter_join(struct render *r, const struct call *c)
{
    const struct jstr *separator = c->a[0].tag == JV_MISSING ? NULL : jv_to_str(r, c->a[0]);
    struct jcursor cursor;
    struct jv item;
    bool first = true;
    int more;
    if ((c->a[0].tag != JV_MISSING && !separator) || !jcursor_begin(r, &cursor, c->self))
        return jv_tagged(JV_ERROR);
    size_t mark = r->out.length;
    while ((more = jcursor_next(r, &cursor, &item)) > 0) {
        item = jv_path(r, item, c->a[1]);
        if (jv_is_error(item) || (!first && separator && !jv_put(r, separator->data, separator->len)) ||
            !jv_put_str(r, item))
            return jv_tagged(JV_ERROR);
        first = false;
    }
    return more < 0 ? jv_tagged(JV_ERROR) : jv_of_str(render_take(r, mark));
}

static struct jv filter_reverse(struct render *r, const struct call *c)
{
    if (c->self.tag == JV_STR) {
        struct jv bounds[3] = {jv_none(), jv_none(), jv_int(-1)};
        return jv_slice(r, c->self, bounds);
    }
    if (!jv_iterable(c->self))
        return jv_raise(r, "FilterArgumentError", "argument must be iterable");
    if (c->self.tag != JV_ITER)
        return jv_reversed(r, c->self);
    struct jseq *items = jv_items(r, c->self);
    struct jv reversed = items ? jv_reversed(r, jv_of_seq(JV_LIST, items)) : jv_tagged(JV_ERROR);
    return jv_is_error(reversed) ? reversed : jv_of_seq(JV_LIST, reversed.iter->items);
}

/* ---- order */

/* "a,b.c": one key per attribute. */
static struct jv multi_key(struct render *r, struct jv item, const struct jstr *attributes,
                           bool case_sensitive)
{
    struct jseq *keys = jseq_new(r, 0);
    for (size_t at = 0; keys && at <= attributes->len;) {
        const char *comma = memchr(attributes->data + at, ',', attributes->len - at);
        size_t end = comma ? (size_t)(comma - attributes->data) : attributes->len;
        const struct jstr *one = jstr_part(r, attributes, at, end);
        struct jv key = one ? key_of(r, item, jv_of_str(one), case_sensitive) : jv_tagged(JV_ERROR);
        if (jv_is_error(key) || !jseq_push(r, keys, key))
            return jv_tagged(JV_ERROR);
        at = end + 1;
    }
    return jv_of_seq(JV_LIST, keys);
}

/* Python compares lists of keys, of which equal ones need no order: two dicts may be equal. */
static struct jv sort_key(struct render *r, struct jv item, struct jv attribute, bool case_sensitive)
{
    if (attribute.tag == JV_STR)
        return multi_key(r, item, attribute.s, case_sensitive);
    struct jv key = key_of(r, item, attribute, case_sensitive);
    return jv_is_error(key) ? key : jv_of_seq(JV_LIST, jseq_copy(r, &key, 1));
}

static struct jv filter_sort(struct render *r, const struct call *c)
{
    int64_t reverse = 0;
    struct jseq *items = jv_items(r, c->self), *keys = NULL;
    if (!call_int(r, c, 0, &reverse))
        return jv_tagged(JV_ERROR);
    items = items ? jseq_copy(r, items->items, items->n) : NULL;
    keys = items ? jseq_new(r, items->n) : NULL;
    for (size_t i = 0; keys && i < items->n; i++) {
        keys->items[i] = sort_key(r, items->items[i], c->a[2], call_bool(c, 1));
        if (jv_is_error(keys->items[i]))
            return keys->items[i];
    }
    if (!keys || !jv_sort(r, items->items, keys->items, items->n, reverse != 0))
        return jv_tagged(JV_ERROR);
    return jv_of_seq(JV_LIST, items);
}

static struct jv extreme(struct render *r, const struct call *c, bool maximum)
{
    struct jcursor cursor;
    struct jv item, best = {0}, best_key = {0};
    int more;
    if (!jcursor_begin(r, &cursor, c->self))
        return jv_tagged(JV_ERROR);
    while ((more = jcursor_next(r, &cursor, &item)) > 0) {
        struct jv key = key_of(r, item, c->a[1], call_bool(c, 0));
        if (jv_is_error(key))
            return key;
        struct jv better = jv_bool(true);
        if (best.tag != JV_MISSING)
            better = jv_compare(r, maximum ? T_GT : T_LT, key, best_key);
        if (jv_is_error(better))
            return better;
        if (better.b) {
            best = item;
            best_key = key;
        }
    }
    if (more < 0)
        return jv_tagged(JV_ERROR);
    return best.tag != JV_MISSING ? best : jv_undefined_hint(r, "No aggregated item, sequence was empty.");
}

static struct jv filter_min(struct render *r, const struct call *c)
{
    return extreme(r, c, false);
}

static struct jv filter_max(struct render *r, const struct call *c)
{
    return extreme(r, c, true);
}

static struct jv filter_unique(struct render *r, const struct call *c)
{
    struct deferral d = defer_begin(r);
    struct jdict *seen = jdict_new(r, 0);
    struct jseq *unique = seen ? jseq_new(r, 0) : NULL;
    struct jcursor cursor;
    struct jv item, known;
    int more = -1;
    if (!unique || !jcursor_begin(r, &cursor, c->self))
        return defer_end(r, &d, unique, false);
    while ((more = jcursor_next(r, &cursor, &item)) > 0) {
        struct jv key = key_of(r, item, c->a[1], call_bool(c, 0));
        int found = jv_is_error(key) ? -1 : jdict_get(r, seen, key, &known);
        if (found < 0 || (!found && (!jdict_set(r, seen, key, jv_none()) || !jseq_push(r, unique, item))))
            return defer_end(r, &d, unique, false);
    }
    return defer_end(r, &d, unique, more == 0);
}

/* ---- groups */

static struct jv group_new(struct render *r, struct jv key)
{
    struct jseq *members = jseq_new(r, 0);
    struct jseq *group = members ? jseq_pair(r, key, jv_of_seq(JV_LIST, members)) : NULL;
    if (group)
        group->group = true;
    return jv_of_seq(JV_TUPLE, group);
}

static struct jv group_key(struct render *r, const struct call *c, struct jv item, bool case_sensitive)
{
    struct jv v = jv_path(r, item, c->a[0]);
    bool has_default = c->a[1].tag != JV_MISSING && c->a[1].tag != JV_NONE;
    if (v.tag == JV_UNDEFINED && has_default)
        v = c->a[1];
    return jv_is_error(v) ? v : lower_if(r, v, case_sensitive);
}

static struct jv filter_groupby(struct render *r, const struct call *c)
{
    bool case_sensitive = call_bool(c, 2);
    struct jseq *items = jv_items(r, c->self);
    items = items ? jseq_copy(r, items->items, items->n) : NULL;
    struct jseq *keys = items ? jseq_new(r, items->n) : NULL, *groups = keys ? jseq_new(r, 0) : NULL;
    for (size_t i = 0; groups && i < items->n; i++) {
        keys->items[i] = group_key(r, c, items->items[i], case_sensitive);
        if (jv_is_error(keys->items[i]))
            return keys->items[i];
    }
    if (!groups || !jv_sort(r, items->items, keys->items, items->n, false))
        return jv_tagged(JV_ERROR);
    struct jv last_key = {0}, group = {0};
    for (size_t i = 0; i < items->n; i++) {
        struct jv key = group_key(r, c, items->items[i], case_sensitive);
        struct jv same = i && !jv_is_error(key) ? jv_equal(r, key, last_key) : jv_bool(false);
        if (jv_is_error(key) || jv_is_error(same))
            return jv_tagged(JV_ERROR);
        if (!same.b) {
            struct jv shown = group_key(r, c, items->items[i], true);
            group = jv_is_error(shown) ? shown : group_new(r, shown);
            if (jv_is_error(group) || !jseq_push(r, groups, group))
                return jv_tagged(JV_ERROR);
        }
        if (!jseq_push(r, group.seq->items[1].seq, items->items[i]))
            return jv_tagged(JV_ERROR);
        last_key = key;
    }
    return jv_of_seq(JV_LIST, groups);
}

static bool fill(struct render *r, struct jseq *row, size_t n, struct jv with)
{
    while (with.tag != JV_MISSING && with.tag != JV_NONE && row->n < n)
        if (!jv_steps(r, 1) || !jseq_push(r, row, with))
            return false;
    return true;
}

static struct jv filter_batch(struct render *r, const struct call *c)
{
    struct deferral d = defer_begin(r);
    struct jseq *rows = jseq_new(r, 0), *row = rows ? jseq_new(r, 0) : NULL;
    struct jcursor cursor;
    struct jv item;
    int64_t width = 0;
    int more = -1;
    if (!row || !call_int(r, c, 0, &width) || !jcursor_begin(r, &cursor, c->self))
        return defer_end(r, &d, rows, false);
    while ((more = jcursor_next(r, &cursor, &item)) > 0) {
        if ((int64_t)row->n == width) {
            bool pushed = jseq_push(r, rows, jv_of_seq(JV_LIST, row));
            row = pushed ? jseq_new(r, 0) : NULL;
        }
        if (!row || !jseq_push(r, row, item))
            return jv_tagged(JV_ERROR);
    }
    if (more < 0 || !row->n)
        return defer_end(r, &d, rows, more == 0);
    if ((width > 0 && !fill(r, row, (size_t)width, c->a[1])) || !jseq_push(r, rows, jv_of_seq(JV_LIST, row)))
        return jv_tagged(JV_ERROR);
    return defer_end(r, &d, rows, true);
}

static struct jv filter_slice(struct render *r, const struct call *c)
{
    struct deferral d = defer_begin(r);
    struct jseq *items = jv_items(r, c->self), *rows = jseq_new(r, 0);
    int64_t n_slices = 0;
    if (!items || !call_int(r, c, 0, &n_slices))
        return defer_end(r, &d, rows, false);
    if (n_slices == 0) {
        jv_raise(r, "ZeroDivisionError", "integer division or modulo by zero");
        return defer_end(r, &d, rows, false);
    }
    size_t n = n_slices > 0 ? (size_t)n_slices : 0, at = 0;
    for (size_t i = 0; rows && i < n; i++) {
        size_t length = items->n / n + (i < items->n % n);
        struct jseq *row = jseq_copy(r, items->items + at, length);
        if (!row || (i >= items->n % n && !fill(r, row, length + 1, c->a[1])) ||
            !jseq_push(r, rows, jv_of_seq(JV_LIST, row)))
            return jv_tagged(JV_ERROR);
        at += length;
    }
    return defer_end(r, &d, rows, true);
}

static struct jv filter_sum(struct render *r, const struct call *c)
{
    struct jcursor cursor;
    struct jv item, sum = c->a[1].tag == JV_MISSING ? jv_int(0) : c->a[1];
    int more;
    if (sum.tag == JV_STR)
        return jv_raise(r, "TypeError", "sum() can't sum strings [use ''.join(seq) instead]");
    if (!jcursor_begin(r, &cursor, c->self))
        return jv_tagged(JV_ERROR);
    while ((more = jcursor_next(r, &cursor, &item)) > 0) {
        item = jv_path(r, item, c->a[0]);
        sum = jv_is_error(item) ? item : jv_binary(r, T_ADD, sum, item);
        if (jv_is_error(sum))
            return sum;
    }
    return more < 0 ? jv_tagged(JV_ERROR) : sum;
}

const struct builtin filters_sequence[] = {
    {"batch", "linecount fill_with", 1, filter_batch},
    {"first", "", 0, filter_first},
    {"groupby", "attribute default case_sensitive", 1, filter_groupby},
    {"join", "d attribute", 0, filter_join},
    {"last", "", 0, filter_last},
    {"list", "", 0, filter_list},
    {"max", "case_sensitive attribute", 0, filter_max},
    {"min", "case_sensitive attribute", 0, filter_min},
    {"reverse", "", 0, filter_reverse},
    {"slice", "slices fill_with", 1, filter_slice},
    {"sort", "reverse case_sensitive attribute", 0, filter_sort},
    {"sum", "attribute start", 0, filter_sum},
    {"unique", "case_sensitive attribute", 0, filter_unique},
    {NULL, NULL, 0, NULL},
};
