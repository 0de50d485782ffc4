/* map, select, reject, selectattr and rejectattr: filters that apply a filter or test to every item. */
#include <string.h>

#include "jinja.h"

/* What is applied to each item, taken from the filter's arguments. */
struct applied {
    const struct builtin *fn; /* NULL: the item's (or attribute's) truth, or the attribute itself */
    struct call call;
    struct jv attribute, initial; /* JV_MISSING: none */
};

static bool find_applied(struct render *r, const struct call *c, size_t n_before, bool filter,
                         struct applied *a)
{
    struct jv name = c->pos[n_before];
    if (name.tag == JV_STR)
        a->fn = filter ? filter_find(name.s->data, name.s->len) : test_find(name.s->data, name.s->len);
    const struct jstr *shown = a->fn ? NULL : jv_repr(r, name);
    if (shown)
        jv_raise(r, "TemplateRuntimeError", "No %s named %.*s.", filter ? "filter" : "test", (int)shown->len,
                 shown->data);
    a->call = (struct call){
        .pos = c->pos + n_before + 1, .n_pos = c->n_pos - n_before - 1, .kw = c->kw, .n_kw = c->n_kw};
    return a->fn != NULL;
}

static bool kwarg_is(const struct kwarg *kw, const char *name)
{
    return kw->name->len == strlen(name) && memcmp(kw->name->data, name, kw->name->len) == 0;
}

static bool prepare_map(struct render *r, const struct call *c, struct applied *a)
{
    const struct kwarg *other = NULL;
    if (c->n_pos)
        return find_applied(r, c, 0, true, a);
    for (size_t i = 0; i < c->n_kw; i++) {
        if (kwarg_is(&c->kw[i], "attribute"))
            a->attribute = c->kw[i].value;
        else if (kwarg_is(&c->kw[i], "default"))
            a->initial = c->kw[i].value;
        else
            other = &c->kw[i];
    }
    if (a->attribute.tag == JV_MISSING)
        jv_raise(r, "FilterArgumentError", "map requires a filter argument");
    else if (other)
        jv_raise(r, "FilterArgumentError", "Unexpected keyword argument '%.*s'", (int)other->name->len,
                 other->name->data);
    return a->attribute.tag != JV_MISSING && !other;
}

static struct jv map_one(struct render *r, struct applied *a, struct jv item)
{
    if (a->fn) {
        a->call.self = item;
        return builtin_call(r, a->fn, &a->call);
    }
    struct jv v = jv_path(r, item, a->attribute);
    bool has_default = a->initial.tag != JV_MISSING && a->initial.tag != JV_NONE;
    return v.tag == JV_UNDEFINED && has_default ? a->initial : v;
}

static struct jv filter_map(struct render *r, const struct call *c)
{
    struct deferral d = defer_begin(r);
    struct applied a = {0};
    struct jseq *mapped = jseq_new(r, 0);
    struct jcursor cursor;
    struct jv item;
    int more;
    if (!mapped || !jv_truth(c->self))
        return defer_end(r, &d, mapped, mapped != NULL);
    if (!prepare_map(r, c, &a) || !jcursor_begin(r, &cursor, c->self))
        return defer_end(r, &d, mapped, false);
    while ((more = jcursor_next(r, &cursor, &item)) > 0) {
        struct jv v = map_one(r, &a, item);
        if (jv_is_error(v) || !jseq_push(r, mapped, v))
            return defer_end(r, &d, mapped, false);
    }
    return defer_end(r, &d, mapped, more == 0);
}

static bool prepare_select(struct render *r, const struct call *c, bool by_attribute, struct applied *a)
{
    if (by_attribute) {
        if (!c->n_pos) {
            jv_raise(r, "FilterArgumentError", "Missing parameter for attribute name");
            return false;
        }
        a->attribute = c->pos[0];
    }
    return c->n_pos <= by_attribute || find_applied(r, c, by_attribute, false, a);
}

static struct jv passes(struct render *r, struct applied *a, struct jv item)
{
    struct jv v = jv_path(r, item, a->attribute);
    if (jv_is_error(v) || !a->fn)
        return v;
    a->call.self = v;
    return builtin_call(r, a->fn, &a->call);
}

static struct jv select_items(struct render *r, const struct call *c, bool keep, bool by_attribute)
{
    struct deferral d = defer_begin(r);
    struct applied a = {0};
    struct jseq *selected = jseq_new(r, 0);
    struct jcursor cursor;
    struct jv item;
    int more;
    if (!selected || !jv_truth(c->self))
        return defer_end(r, &d, selected, selected != NULL);
    if (!prepare_select(r, c, by_attribute, &a) || !jcursor_begin(r, &cursor, c->self))
        return defer_end(r, &d, selected, false);
    while ((more = jcursor_next(r, &cursor, &item)) > 0) {
        struct jv v = passes(r, &a, item);
        if (jv_is_error(v) || (jv_truth(v) == keep && !jseq_push(r, selected, item)))
            return defer_end(r, &d, selected, false);
    }
    return defer_end(r, &d, selected, more == 0);
}

static struct jv filter_select(struct render *r, const struct call *c)
{
    return select_items(r, c, true, false);
}

static struct jv filter_reject(struct render *r, const struct call *c)
{
    return select_items(r, c, false, false);
}

static struct jv filter_selectattr(struct render *r, const struct call *c)
{
    return select_items(r, c, true, true);
}

static struct jv filter_rejectattr(struct render *r, const struct call *c)
{
    return select_items(r, c, false, true);
}

const struct builtin filters_select[] = {
    {"map", NULL, 0, filter_map},
    {"reject", NULL, 0, filter_reject},
    {"rejectattr", NULL, 0, filter_rejectattr},
    {"select", NULL, 0, filter_select},
    {"selectattr", NULL, 0, filter_selectattr},
    {NULL, NULL, 0, NULL},
};
