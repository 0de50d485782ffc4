/* Calls: arguments bound to a built-in function's parameters, and what happens to each callable value. */
#include <string.h>

#include "jinja.h"

#define MAX_PARAMS 8

const struct builtin *builtin_find(const struct builtin *table, const char *name, size_t len)
{
    for (; table->name; table++)
        if (strncmp(table->name, name, len) == 0 && table->name[len] == '\0')
            return table;
    return NULL;
}

/* The number of the parameter called name, or -1. */
static int param_index(const char *params, const struct jstr *name)
{
    int index = 0;
    for (const char *p = params; *p; index++) {
        size_t len = strcspn(p, " ");
        if (len == name->len && memcmp(p, name->data, len) == 0)
            return index;
        p += len + (p[len] == ' ');
    }
    return -1;
}

static size_t param_count(const char *params)
{
    size_t n = *params != '\0';
    for (const char *p = params; *p; p++)
        n += *p == ' ';
    return n;
}

static struct jv missing_param(struct render *r, const struct builtin *b, size_t index)
{
    const char *p = b->params;
    while (index--)
        p += strcspn(p, " ") + 1;
    return jv_raise(r, "TypeError", "%s() missing required argument '%.*s'", b->name, (int)strcspn(p, " "),
                    p);
}

struct jv builtin_call(struct render *r, const struct builtin *b, const struct call *c)
{
    struct jv bound[MAX_PARAMS] = {{0}};
    struct call call = *c;
    if (!jv_steps(r, 1))
        return jv_tagged(JV_ERROR);
    call.a = bound;
    if (!b->params)
        return b->fn(r, &call);
    size_t n = param_count(b->params);
    if (c->n_pos > n)
        return jv_raise(r, "TypeError", "%s() takes at most %zu arguments (%zu given)", b->name, n, c->n_pos);
    if (c->n_pos)
        memcpy(bound, c->pos, c->n_pos * sizeof *bound);
    for (size_t i = 0; i < c->n_kw; i++) {
        const struct jstr *name = c->kw[i].name;
        int index = param_index(b->params, name);
        if (index < 0)
            return jv_raise(r, "TypeError", "%s() got an unexpected keyword argument '%.*s'", b->name,
                            (int)name->len, name->data);
        if (bound[index].tag != JV_MISSING)
            return jv_raise(r, "TypeError", "%s() got multiple values for argument '%.*s'", b->name,
                            (int)name->len, name->data);
        bound[index] = c->kw[i].value;
    }
    for (size_t i = 0; i < b->n_required; i++)
        if (bound[i].tag == JV_MISSING)
            return missing_param(r, b, i);
    return b->fn(r, &call);
}

bool call_int(struct render *r, const struct call *c, int i, int64_t *out)
{
    struct jv v = c->a[i];
    if (v.tag == JV_MISSING)
        return true;
    if (jv_is_int(v)) {
        *out = jv_as_int(v);
        return true;
    }
    if (v.tag == JV_UNDEFINED)
        jv_raise_undefined(r, v);
    else
        jv_raise(r, "TypeError", "'%s' object cannot be interpreted as an integer", jv_type_name(v));
    return false;
}

bool call_str(struct render *r, const struct call *c, int i, const struct jstr **out)
{
    struct jv v = c->a[i];
    if (v.tag == JV_MISSING || v.tag == JV_NONE)
        return true;
    if (v.tag == JV_STR) {
        *out = v.s;
        return true;
    }
    jv_raise(r, "TypeError", "argument must be str, not %s", jv_type_name(v));
    return false;
}

struct jv jv_call(struct render *r, struct jv callee, const struct call *c)
{
    struct call bound = *c;
    switch (callee.tag) {
    case JV_UNDEFINED:
        return jv_raise_undefined(r, callee);
    case JV_BUILTIN:
        return builtin_call(r, callee.builtin, c);
    case JV_METHOD:
        bound.self = callee.method->self;
        return builtin_call(r, callee.method->fn, &bound);
    case JV_MACRO:
        return jinja_call_macro(r, callee.macro, c);
    case JV_LOOP:
        return jinja_call_loop(r, callee.loop, c);
    case JV_JOINER:
        if (callee.joiner->used)
            return callee.joiner->sep;
        callee.joiner->used = true;
        return jv_of_str(jstr_literal(r, ""));
    default:
        return jv_raise(r, "TypeError", "'%s' object is not callable", jv_type_name(callee));
    }
}
