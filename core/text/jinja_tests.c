/* The tests behind `is`. */
#include "jinja.h"

static struct jv test_defined(struct render *r, const struct call *c)
{
    (void)r;
    return jv_bool(c->self.tag != JV_UNDEFINED);
}

static struct jv test_undefined(struct render *r, const struct call *c)
{
    (void)r;
    return jv_bool(c->self.tag == JV_UNDEFINED);
}

static struct jv test_none(struct render *r, const struct call *c)
{
    (void)r;
    return jv_bool(c->self.tag == JV_NONE);
}

static struct jv test_boolean(struct render *r, const struct call *c)
{
    (void)r;
    return jv_bool(c->self.tag == JV_BOOL);
}

static struct jv test_true(struct render *r, const struct call *c)
{
    (void)r;
    return jv_bool(c->self.tag == JV_BOOL && c->self.b);
}

static struct jv test_false(struct render *r, const struct call *c)
{
    (void)r;
    return jv_bool(c->self.tag == JV_BOOL && !c->self.b);
}

static struct jv test_integer(struct render *r, const struct call *c)
{
    (void)r;
    return jv_bool(c->self.tag == JV_INT);
}

static struct jv test_float(struct render *r, const struct call *c)
{
    (void)r;
    return jv_bool(c->self.tag == JV_FLOAT);
}

static struct jv test_number(struct render *r, const struct call *c)
{
    (void)r;
    return jv_bool(jv_is_number(c->self));
}

static struct jv test_string(struct render *r, const struct call *c)
{
    (void)r;
    return jv_bool(c->self.tag == JV_STR);
}

static struct jv test_mapping(struct render *r, const struct call *c)
{
    (void)r;
    return jv_bool(c->self.tag == JV_DICT);
}

static struct jv test_iterable(struct render *r, const struct call *c)
{
    (void)r;
    return jv_bool(jv_iterable(c->self));
}

/* Has a length and takes an index. */
static struct jv test_sequence(struct render *r, const struct call *c)
{
    (void)r;
    enum jv_tag tag = c->self.tag;
    return jv_bool(tag == JV_STR || tag == JV_LIST || tag == JV_TUPLE || tag == JV_DICT || tag == JV_RANGE ||
                   tag == JV_UNDEFINED);
}

static struct jv test_callable(struct render *r, const struct call *c)
{
    (void)r;
    enum jv_tag tag = c->self.tag;
    return jv_bool(tag == JV_MACRO || tag == JV_BUILTIN || tag == JV_METHOD || tag == JV_LOOP ||
                   tag == JV_JOINER || tag == JV_UNDEFINED);
}

static struct jv test_escaped(struct render *r, const struct call *c)
{
    (void)r;
    return jv_bool(c->self.tag == JV_STR && c->self.s->safe);
}

static struct jv test_sameas(struct render *r, const struct call *c)
{
    (void)r;
    return jv_bool(jv_same(c->self, c->a[0]));
}

static struct jv test_in(struct render *r, const struct call *c)
{
    return jv_contains(r, c->a[0], c->self);
}

static struct jv remainder_is(struct render *r, struct jv value, struct jv divisor, int64_t rest)
{
    struct jv m = jv_binary(r, T_MOD, value, divisor);
    return jv_is_error(m) ? m : jv_equal(r, m, jv_int(rest));
}

static struct jv test_odd(struct render *r, const struct call *c)
{
    return remainder_is(r, c->self, jv_int(2), 1);
}

static struct jv test_even(struct render *r, const struct call *c)
{
    return remainder_is(r, c->self, jv_int(2), 0);
}

static struct jv test_divisibleby(struct render *r, const struct call *c)
{
    return remainder_is(r, c->self, c->a[0], 0);
}

static struct jv call_is_method(struct render *r, const struct call *c, const char *method)
{
    const struct jstr *s = jv_to_str(r, c->self);
    if (!s)
        return jv_tagged(JV_ERROR);
    return builtin_call(r, builtin_find(methods_str_find, method, 7), &(struct call){.self = jv_of_str(s)});
}

static struct jv test_lower(struct render *r, const struct call *c)
{
    return call_is_method(r, c, "islower");
}

static struct jv test_upper(struct render *r, const struct call *c)
{
    return call_is_method(r, c, "isupper");
}

static bool is_hashable(struct render *r, struct jv v)
{
    if (v.tag == JV_LIST || v.tag == JV_DICT)
        jv_raise(r, "TypeError", "unhashable type: '%s'", jv_type_name(v));
    return v.tag != JV_LIST && v.tag != JV_DICT;
}

static struct jv test_filter(struct render *r, const struct call *c)
{
    if (!is_hashable(r, c->self))
        return jv_tagged(JV_ERROR);
    return jv_bool(c->self.tag == JV_STR && filter_find(c->self.s->data, c->self.s->len));
}

static struct jv test_test(struct render *r, const struct call *c)
{
    if (!is_hashable(r, c->self))
        return jv_tagged(JV_ERROR);
    return jv_bool(c->self.tag == JV_STR && test_find(c->self.s->data, c->self.s->len));
}

static struct jv test_eq(struct render *r, const struct call *c)
{
    return jv_compare(r, T_EQ, c->self, c->a[0]);
}

static struct jv test_ne(struct render *r, const struct call *c)
{
    return jv_compare(r, T_NE, c->self, c->a[0]);
}

static struct jv test_lt(struct render *r, const struct call *c)
{
    return jv_compare(r, T_LT, c->self, c->a[0]);
}

static struct jv test_le(struct render *r, const struct call *c)
{
    return jv_compare(r, T_LE, c->self, c->a[0]);
}

static struct jv test_gt(struct render *r, const struct call *c)
{
    return jv_compare(r, T_GT, c->self, c->a[0]);
}

static struct jv test_ge(struct render *r, const struct call *c)
{
    return jv_compare(r, T_GE, c->self, c->a[0]);
}

static const struct builtin tests[] = {
    {"!=", "other", 1, test_ne},
    {"<", "other", 1, test_lt},
    {"<=", "other", 1, test_le},
    {"==", "other", 1, test_eq},
    {">", "other", 1, test_gt},
    {">=", "other", 1, test_ge},
    {"boolean", "", 0, test_boolean},
    {"callable", "", 0, test_callable},
    {"defined", "", 0, test_defined},
    {"divisibleby", "num", 1, test_divisibleby},
    {"eq", "other", 1, test_eq},
    {"equalto", "other", 1, test_eq},
    {"escaped", "", 0, test_escaped},
    {"even", "", 0, test_even},
    {"false", "", 0, test_false},
    {"filter", "", 0, test_filter},
    {"float", "", 0, test_float},
    {"ge", "other", 1, test_ge},
    {"greaterthan", "other", 1, test_gt},
    {"gt", "other", 1, test_gt},
    {"in", "seq", 1, test_in},
    {"integer", "", 0, test_integer},
    {"iterable", "", 0, test_iterable},
    {"le", "other", 1, test_le},
    {"lessthan", "other", 1, test_lt},
    {"lower", "", 0, test_lower},
    {"lt", "other", 1, test_lt},
    {"mapping", "", 0, test_mapping},
    {"ne", "other", 1, test_ne},
    {"none", "", 0, test_none},
    {"number", "", 0, test_number},
    {"odd", "", 0, test_odd},
    {"sameas", "other", 1, test_sameas},
    {"sequence", "", 0, test_sequence},
    {"string", "", 0, test_string},
    {"test", "", 0, test_test},
    {"true", "", 0, test_true},
    {"undefined", "", 0, test_undefined},
    {"upper", "", 0, test_upper},
    {NULL, NULL, 0, NULL},
};

const struct builtin *test_find(const char *name, size_t len)
{
    return builtin_find(tests, name, len);
}
