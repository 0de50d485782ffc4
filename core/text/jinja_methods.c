/* The methods of dicts, lists, tuples, numbers and cyclers. Those that would change a list or dict are not
 * here: the sandbox refuses them (jinja_attr.c). */
#include <math.h>

#include "jinja_methods.h"

/* ---- dict */

static struct jv dict_get(struct render *r, const struct call *c)
{
    struct jv value;
    int found = jdict_get(r, c->self.dict, c->a[0], &value);
    if (found)
        return found < 0 ? jv_tagged(JV_ERROR) : value;
    return c->a[1].tag == JV_MISSING ? jv_none() : c->a[1];
}

static struct jv view(const struct call *c, enum jview_kind kind)
{
    return (struct jv){.tag = JV_VIEW, .kind = kind, .dict = c->self.dict};
}

static struct jv dict_keys(struct render *r, const struct call *c)
{
    (void)r;
    return view(c, JVIEW_KEYS);
}

static struct jv dict_values(struct render *r, const struct call *c)
{
    (void)r;
    return view(c, JVIEW_VALUES);
}

static struct jv dict_items(struct render *r, const struct call *c)
{
    (void)r;
    return view(c, JVIEW_ITEMS);
}

static struct jv self_copy(struct render *r, const struct call *c)
{
    (void)r; /* what can't change needs no copy */
    return c->self;
}

static struct jv dict_fromkeys(struct render *r, const struct call *c)
{
    struct jdict *d = jdict_new(r, 0);
    struct jcursor cursor;
    struct jv key;
    int more;
    if (!d || !jcursor_begin(r, &cursor, c->a[0]))
        return jv_tagged(JV_ERROR);
    while ((more = jcursor_next(r, &cursor, &key)) > 0)
        if (!jdict_set(r, d, key, c->a[1].tag == JV_MISSING ? jv_none() : c->a[1]))
            return jv_tagged(JV_ERROR);
    return more < 0 ? jv_tagged(JV_ERROR) : jv_of_dict(d);
}

const struct builtin methods_dict[] = {
    {"copy", "", 0, self_copy},
    {"fromkeys", "iterable value", 1, dict_fromkeys},
    {"get", "key default", 1, dict_get},
    {"items", "", 0, dict_items},
    {"keys", "", 0, dict_keys},
    {"values", "", 0, dict_values},
    {NULL, NULL, 0, NULL},
};

/* ---- list and tuple */

static struct jv seq_count(struct render *r, const struct call *c)
{
    int64_t n = 0;
    for (size_t i = 0; i < c->self.seq->n; i++) {
        struct jv e = jv_steps(r, 1) ? jv_equal(r, c->self.seq->items[i], c->a[0]) : jv_tagged(JV_ERROR);
        if (jv_is_error(e))
            return e;
        n += e.b;
    }
    return jv_int(n);
}

static struct jv seq_index(struct render *r, const struct call *c)
{
    int64_t n = (int64_t)c->self.seq->n, from = 0, to = n;
    if (!call_int(r, c, 1, &from) || !call_int(r, c, 2, &to))
        return jv_tagged(JV_ERROR);
    from = from < 0 ? (from + n < 0 ? 0 : from + n) : from;
    to = to < 0 ? to + n : to > n ? n : to;
    for (int64_t i = from; i < to; i++) {
        struct jv e = jv_steps(r, 1) ? jv_equal(r, c->self.seq->items[i], c->a[0]) : jv_tagged(JV_ERROR);
        if (jv_is_error(e) || e.b)
            return jv_is_error(e) ? e : jv_int(i);
    }
    const struct jstr *shown = jv_repr(r, c->a[0]);
    if (!shown)
        return jv_tagged(JV_ERROR);
    return jv_raise(r, "ValueError", "%.*s is not in list", (int)shown->len, shown->data);
}

const struct builtin methods_list[] = {
    {"copy", "", 0, self_copy},
    {"count", "value", 1, seq_count},
    {"index", "value start stop", 1, seq_index},
    {NULL, NULL, 0, NULL},
};

const struct builtin methods_tuple[] = {
    {"count", "value", 1, seq_count},
    {"index", "value start stop", 1, seq_index},
    {NULL, NULL, 0, NULL},
};

/* ---- range */

static struct jv range_count(struct render *r, const struct call *c)
{
    struct jv found = jv_contains(r, c->self, c->a[0]);
    return jv_is_error(found) ? found : jv_int(found.b);
}

static struct jv range_index(struct render *r, const struct call *c)
{
    struct jseq *items = jv_items(r, c->self);
    struct call on_list = {.self = jv_of_seq(JV_LIST, items), .a = c->a};
    return items ? seq_index(r, &on_list) : jv_tagged(JV_ERROR);
}

const struct builtin methods_range[] = {
    {"count", "value", 1, range_count}, {"index", "value", 1, range_index}, {NULL, NULL, 0, NULL}};

/* ---- numbers */

static struct jv float_is_integer(struct render *r, const struct call *c)
{
    (void)r;
    return jv_bool(!isinf(c->self.f) && c->self.f == floor(c->self.f));
}

static struct jv int_is_integer(struct render *r, const struct call *c)
{
    (void)r;
    (void)c;
    return jv_bool(true);
}

static uint64_t magnitude(struct jv v)
{
    int64_t i = jv_as_int(v);
    return i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
}

static struct jv int_bit_length(struct render *r, const struct call *c)
{
    int64_t n = 0;
    (void)r;
    for (uint64_t m = magnitude(c->self); m; m >>= 1)
        n++;
    return jv_int(n);
}

static struct jv int_bit_count(struct render *r, const struct call *c)
{
    (void)r;
    return jv_int(__builtin_popcountll(magnitude(c->self)));
}

static struct jv int_ratio(struct render *r, const struct call *c)
{
    return jv_of_seq(JV_TUPLE, jseq_pair(r, jv_int(jv_as_int(c->self)), jv_int(1)));
}

static struct jv int_conjugate(struct render *r, const struct call *c)
{
    (void)r;
    return jv_int(jv_as_int(c->self));
}

/* The fraction that the float is, in lowest terms. */
static struct jv float_ratio(struct render *r, const struct call *c)
{
    double f = c->self.f;
    if (isnan(f) || isinf(f))
        return jv_raise(r, isnan(f) ? "ValueError" : "OverflowError", "cannot convert %s to integer ratio",
                        isnan(f) ? "NaN" : "Infinity");
    int64_t denominator = 1;
    while (f != floor(f)) {
        f *= 2;
        if (__builtin_mul_overflow(denominator, 2, &denominator))
            return jv_raise(r, "OverflowError", "the ratio doesn't fit into 64 bits");
    }
    if (fabs(f) >= 9223372036854775808.0)
        return jv_raise(r, "OverflowError", "the ratio doesn't fit into 64 bits");
    return jv_of_seq(JV_TUPLE, jseq_pair(r, jv_int((int64_t)f), jv_int(denominator)));
}

const struct builtin methods_int[] = {
    {"as_integer_ratio", "", 0, int_ratio}, {"bit_count", "", 0, int_bit_count},
    {"bit_length", "", 0, int_bit_length},  {"conjugate", "", 0, int_conjugate},
    {"is_integer", "", 0, int_is_integer},  {NULL, NULL, 0, NULL},
};

const struct builtin methods_float[] = {
    {"as_integer_ratio", "", 0, float_ratio},
    {"conjugate", "", 0, self_copy},
    {"is_integer", "", 0, float_is_integer},
    {NULL, NULL, 0, NULL},
};

/* ---- cycler */

static struct jv cycler_next(struct render *r, const struct call *c)
{
    struct jcycler *cycler = c->self.cycler;
    struct jv v = cycler->items->items[cycler->at];
    (void)r;
    cycler->at = (cycler->at + 1) % cycler->items->n;
    return v;
}

static struct jv cycler_reset(struct render *r, const struct call *c)
{
    (void)r;
    c->self.cycler->at = 0;
    return jv_none();
}

const struct builtin methods_cycler[] = {
    {"next", "", 0, cycler_next},
    {"reset", "", 0, cycler_reset},
    {NULL, NULL, 0, NULL},
};
