/* Expressions. Recursion follows the tree, whose height is bounded, and calls, whose depth is: the sum is
 * counted in nesting, so that the C stack is bounded too. */
#include <string.h>

#include "jinja.h"

static struct jv eval_name(struct render *r, const struct node *n)
{
    struct jv value = r->root[n->name];
    bool found = false;
    for (const struct scope *s = r->scope; s && !found; s = s->parent)
        for (uint32_t i = 0; i < s->n && !found; i++) {
            found = s->vars[i].name == n->name;
            value = found ? s->vars[i].value : value;
        }
    if (value.tag != JV_MISSING)
        return value;
    return jv_undefined(r, jv_tagged(JV_MISSING), jv_of_str(r->t->names.names[n->name]));
}

static struct jv eval_seq(struct render *r, const struct node *n)
{
    struct jseq *s = jseq_new(r, n->n_list);
    for (size_t i = 0; s && i < n->n_list; i++) {
        s->items[i] = jinja_eval(r, n->list[i]);
        if (jv_is_error(s->items[i]))
            return s->items[i];
    }
    return jv_of_seq(n->kind == N_LIST ? JV_LIST : JV_TUPLE, s);
}

static struct jv eval_dict(struct render *r, const struct node *n)
{
    struct jdict *d = jdict_new(r, n->n_list / 2);
    for (size_t i = 0; d && i + 1 < n->n_list; i += 2) {
        struct jv key = jinja_eval(r, n->list[i]);
        struct jv value = jv_is_error(key) ? key : jinja_eval(r, n->list[i + 1]);
        if (jv_is_error(value) || !jdict_set(r, d, key, value))
            return jv_tagged(JV_ERROR);
    }
    return jv_of_dict(d);
}

static struct jv eval_chain(struct render *r, const struct node *n)
{
    struct jv left = jinja_eval(r, n->list[0]);
    for (size_t i = 1; i < n->n_list && !jv_is_error(left); i++) {
        struct jv right = jinja_eval(r, n->list[i]);
        if (jv_is_error(right))
            return right;
        r->where = n->list[i];
        left = jv_binary(r, n->ops[i - 1], left, right);
    }
    return left;
}

/* a ~ b ~ c: the text of each, never escaped. */
static struct jv eval_concat(struct render *r, const struct node *n)
{
    struct jv v = jinja_eval(r, n->list[0]);
    const struct jstr *first = jv_is_error(v) ? NULL : jv_to_str(r, v);
    first = first ? jstr_mark(r, first, false) : NULL;
    if (!first)
        return jv_tagged(JV_ERROR);
    size_t mark = r->out.length;
    for (size_t i = 1; i < n->n_list; i++) {
        v = jinja_eval(r, n->list[i]);
        if (jv_is_error(v) || !jv_put_str(r, v))
            return jv_tagged(JV_ERROR);
    }
    const struct jstr *rest = render_take(r, mark);
    return jv_of_str(rest ? jstr_cat(r, first, rest) : NULL);
}

static struct jv eval_compare(struct render *r, const struct node *n)
{
    struct jv left = jinja_eval(r, n->list[0]), result = jv_bool(true);
    for (size_t i = 1; i < n->n_list && !jv_is_error(left); i++) {
        struct jv right = jinja_eval(r, n->list[i]);
        if (jv_is_error(right))
            return right;
        r->where = n->list[i];
        result = jv_compare(r, n->ops[i - 1], left, right);
        if (jv_is_error(result) || !jv_truth(result))
            return result;
        left = right;
    }
    return jv_is_error(left) ? left : result;
}

static struct jv eval_logic(struct render *r, const struct node *n)
{
    struct jv v = jv_none();
    for (size_t i = 0; i < n->n_list; i++) {
        v = jinja_eval(r, n->list[i]);
        if (jv_is_error(v) || jv_truth(v) == (n->kind == N_OR))
            break;
    }
    return v;
}

static struct jv eval_condition(struct render *r, const struct node *n)
{
    struct jv test = jinja_eval(r, n->a);
    if (jv_is_error(test))
        return test;
    if (jv_truth(test))
        return jinja_eval(r, n->b);
    if (n->c)
        return jinja_eval(r, n->c);
    struct jundef *u = jv_alloc(r, sizeof *u);
    if (!u)
        return jv_tagged(JV_ERROR);
    u->condition = n;
    return (struct jv){.tag = JV_UNDEFINED, .undef = u};
}

static struct jv eval_slice(struct render *r, const struct node *n)
{
    struct jv object = jinja_eval(r, n->a), bounds[3] = {jv_none(), jv_none(), jv_none()};
    const struct node *const parts[3] = {n->b->a, n->b->b, n->b->c};
    for (int i = 0; i < 3 && !jv_is_error(object); i++) {
        if (parts[i])
            bounds[i] = jinja_eval(r, parts[i]);
        if (jv_is_error(bounds[i]))
            return bounds[i];
    }
    r->where = n;
    return jv_is_error(object) ? object : jv_slice(r, object, bounds);
}

static struct jv eval_subscript(struct render *r, const struct node *n)
{
    if (n->kind == N_GETITEM && n->b->kind == N_SLICE)
        return eval_slice(r, n);
    struct jv object = jinja_eval(r, n->a);
    if (jv_is_error(object))
        return object;
    struct jv key = n->kind == N_GETATTR ? n->value : jinja_eval(r, n->b);
    if (jv_is_error(key))
        return key;
    r->where = n;
    return n->kind == N_GETATTR ? jv_getattr(r, object, key.s) : jv_getitem(r, object, key);
}

/* ---- arguments */

static bool eval_star(struct render *r, const struct node *star, struct jseq *pos)
{
    struct jv v = jinja_eval(r, star);
    struct jcursor c;
    struct jv item;
    int more;
    if (jv_is_error(v) || !jcursor_begin(r, &c, v))
        return false;
    while ((more = jcursor_next(r, &c, &item)) > 0)
        if (!jseq_push(r, pos, item))
            return false;
    return more == 0;
}

static bool add_kwarg(struct render *r, struct call *c, struct kwarg *kw, struct kwarg one)
{
    for (size_t i = 0; i < c->n_kw; i++)
        if (jstr_equal(kw[i].name, one.name)) {
            jv_raise(r, "TypeError", "got multiple values for keyword argument '%.*s'", (int)one.name->len,
                     one.name->data);
            return false;
        }
    kw[c->n_kw++] = one;
    return jv_steps(r, 1 + c->n_kw / 8);
}

static bool eval_kwargs(struct render *r, const struct arg_nodes *args, struct call *c)
{
    struct jv extra = args->star_star ? jinja_eval(r, args->star_star) : jv_none();
    if (jv_is_error(extra))
        return false;
    if (args->star_star && extra.tag != JV_DICT) {
        jv_raise(r, "TypeError", "argument after ** must be a mapping, not %s", jv_type_name(extra));
        return false;
    }
    size_t n = args->n_kw + (extra.tag == JV_DICT ? extra.dict->n : 0);
    struct kwarg *kw = jv_alloc(r, n * sizeof *kw);
    if (!kw)
        return false;
    c->kw = kw;
    for (size_t i = 0; i < args->n_kw; i++) {
        struct jv v = jinja_eval(r, args->kw[i].value);
        if (jv_is_error(v) || !add_kwarg(r, c, kw, (struct kwarg){args->kw[i].name, v}))
            return false;
    }
    for (size_t i = 0; extra.tag == JV_DICT && i < extra.dict->n; i++) {
        const struct jentry *e = &extra.dict->entries[i];
        if (e->key.tag != JV_STR) {
            jv_raise(r, "TypeError", "keywords must be strings");
            return false;
        }
        if (!add_kwarg(r, c, kw, (struct kwarg){e->key.s, e->value}))
            return false;
    }
    return true;
}

static bool eval_args(struct render *r, const struct arg_nodes *args, struct call *c)
{
    struct jseq *pos = jseq_new(r, args->n_pos);
    if (!pos)
        return false;
    for (size_t i = 0; i < args->n_pos; i++) {
        pos->items[i] = jinja_eval(r, args->pos[i]);
        if (jv_is_error(pos->items[i]))
            return false;
    }
    if (args->star && !eval_star(r, args->star, pos))
        return false;
    c->pos = pos->items;
    c->n_pos = pos->n;
    return (!args->n_kw && !args->star_star) || eval_kwargs(r, args, c);
}

struct jv jinja_call_node(struct render *r, const struct node *n, struct jv caller)
{
    struct call c = {0};
    struct jv callee = jinja_eval(r, n->a);
    if (jv_is_error(callee) || !eval_args(r, n->args, &c))
        return jv_tagged(JV_ERROR);
    if (caller.tag != JV_MISSING) {
        struct kwarg *kw = jv_alloc(r, (c.n_kw + 1) * sizeof *kw);
        const struct jstr *name = kw ? jstr_literal(r, "caller") : NULL;
        if (!name)
            return jv_tagged(JV_ERROR);
        if (c.n_kw)
            memcpy(kw, c.kw, c.n_kw * sizeof *kw);
        kw[c.n_kw++] = (struct kwarg){name, caller};
        c.kw = kw;
    }
    r->where = n;
    return jv_call(r, callee, &c);
}

struct jv jinja_filter(struct render *r, const struct node *n, struct jv input)
{
    struct call c = {0};
    c.self = n->a ? (n->a->kind == N_FILTER ? jinja_filter(r, n->a, input) : jinja_eval(r, n->a)) : input;
    if (jv_is_error(c.self) || !eval_args(r, n->args, &c))
        return jv_tagged(JV_ERROR);
    r->where = n;
    if (!n->def)
        return jv_raise(r, "TemplateRuntimeError", "No %s named '%.*s' found.",
                        n->kind == N_FILTER ? "filter" : "test", (int)n->value.s->len, n->value.s->data);
    return builtin_call(r, n->def, &c);
}

static struct jv eval_unary(struct render *r, const struct node *n)
{
    struct jv v = jinja_eval(r, n->a);
    if (jv_is_error(v))
        return v;
    r->where = n;
    if (n->kind == N_NOT)
        return jv_bool(!jv_truth(v));
    if (n->kind == N_NEG)
        return jv_negate(r, v);
    if (v.tag == JV_UNDEFINED)
        return jv_raise_undefined(r, v);
    if (!jv_is_number(v))
        return jv_raise(r, "TypeError", "bad operand type for unary +: '%s'", jv_type_name(v));
    return v.tag == JV_BOOL ? jv_int(v.b) : v;
}

static struct jv eval_kind(struct render *r, const struct node *n)
{
    switch (n->kind) {
    case N_CONST:
        return n->value;
    case N_NAME:
        return eval_name(r, n);
    case N_LIST:
    case N_TUPLE:
        return eval_seq(r, n);
    case N_DICT:
        return eval_dict(r, n);
    case N_CHAIN:
        return eval_chain(r, n);
    case N_CONCAT:
        return eval_concat(r, n);
    case N_COMPARE:
        return eval_compare(r, n);
    case N_AND:
    case N_OR:
        return eval_logic(r, n);
    case N_NOT:
    case N_NEG:
    case N_POS:
        return eval_unary(r, n);
    case N_COND:
        return eval_condition(r, n);
    case N_GETATTR:
    case N_GETITEM:
        return eval_subscript(r, n);
    case N_CALL:
        return jinja_call_node(r, n, jv_tagged(JV_MISSING));
    case N_FILTER:
    case N_TEST:
        return jinja_filter(r, n, jv_none());
    default:
        r->where = n;
        return jv_raise(r, "TypeError", "a slice can only stand in brackets");
    }
}

struct jv jinja_eval(struct render *r, const struct node *n)
{
    if (r->nesting >= r->nesting_limit)
        return jv_too_large(r, "the template's calls and expressions nest too deep");
    if (!jv_steps(r, 1))
        return jv_tagged(JV_ERROR);
    r->nesting++;
    r->where = n;
    struct jv v = eval_kind(r, n);
    r->nesting--;
    return v;
}
