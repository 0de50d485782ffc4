/* obj.name and obj[key] as the immutable sandbox of transformers resolves them: a Python attribute first for
 * the dot, an item first for the brackets; what would change a list or dict is undefined ("unsafe"). */
#include <string.h>

#include "jinja.h"

static bool is_name(const struct jstr *s, const char *name)
{
    return s->len == strlen(name) && memcmp(s->data, name, s->len) == 0;
}

static bool any_name(const struct jstr *s, const char *const *names)
{
    for (; *names; names++)
        if (is_name(s, *names))
            return true;
    return false;
}

static const char *const changing_dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
static const char *const changing_list[] = {"append", "clear",  "pop",    "reverse", "insert",
                                            "sort",   "extend", "remove", NULL};

bool method_exists(const struct jstr *name)
{
    static const struct builtin *const tables[] = {
        methods_str_find, methods_str_make, methods_dict,  methods_list, methods_tuple,
        methods_range,    methods_int,      methods_float, methods_loop, methods_cycler};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        if (builtin_find(tables[i], name->data, name->len))
            return true;
    return any_name(name, changing_dict) || any_name(name, changing_list);
}

static struct jv unsafe(struct render *r, struct jv obj, const struct jstr *name)
{
    struct jundef *u = jv_alloc(r, sizeof *u);
    if (!u)
        return jv_tagged(JV_ERROR);
    *u = (struct jundef){.obj = obj, .name = jv_of_str(name), .unsafe = true};
    return (struct jv){.tag = JV_UNDEFINED, .undef = u};
}

static struct jv bind(struct render *r, struct jv obj, const struct builtin *table, const struct jstr *name)
{
    const struct builtin *fn = builtin_find(table, name->data, name->len);
    if (!fn)
        return jv_tagged(JV_MISSING);
    struct jmethod *m = jv_alloc(r, sizeof *m);
    if (!m)
        return jv_tagged(JV_ERROR);
    *m = (struct jmethod){.self = obj, .fn = fn};
    return (struct jv){.tag = JV_METHOD, .method = m};
}

static struct jv str_attr(struct render *r, struct jv obj, const struct jstr *name)
{
    struct jv m = bind(r, obj, methods_str_find, name);
    return m.tag == JV_MISSING ? bind(r, obj, methods_str_make, name) : m;
}

static struct jv dict_attr(struct render *r, struct jv obj, const struct jstr *name)
{
    return any_name(name, changing_dict) ? unsafe(r, obj, name) : bind(r, obj, methods_dict, name);
}

static struct jv list_attr(struct render *r, struct jv obj, const struct jstr *name)
{
    return any_name(name, changing_list) ? unsafe(r, obj, name) : bind(r, obj, methods_list, name);
}

static struct jv tuple_attr(struct render *r, struct jv obj, const struct jstr *name)
{
    if (obj.seq->group && (is_name(name, "grouper") || is_name(name, "list")))
        return obj.seq->items[is_name(name, "list")];
    return bind(r, obj, methods_tuple, name);
}

static struct jv number_attr(struct render *r, struct jv obj, const struct jstr *name)
{
    if (is_name(name, "real") || (jv_is_int(obj) && is_name(name, "numerator")))
        return obj.tag == JV_BOOL ? jv_int(obj.b) : obj;
    if (is_name(name, "imag"))
        return obj.tag == JV_FLOAT ? jv_float(0) : jv_int(0);
    if (jv_is_int(obj) && is_name(name, "denominator"))
        return jv_int(1);
    return bind(r, obj, obj.tag == JV_FLOAT ? methods_float : methods_int, name);
}

static struct jv range_attr(struct render *r, struct jv obj, const struct jstr *name)
{
    if (is_name(name, "start"))
        return jv_int(obj.range->start);
    if (is_name(name, "stop"))
        return jv_int(obj.range->stop);
    return is_name(name, "step") ? jv_int(obj.range->step) : bind(r, obj, methods_range, name);
}

/* The global dict is a function with one method of its own. */
static struct jv builtin_attr(struct render *r, struct jv obj, const struct jstr *name)
{
    bool is_dict = strcmp(obj.builtin->name, "dict") == 0 && is_name(name, "fromkeys");
    return is_dict ? bind(r, obj, methods_dict, name) : jv_tagged(JV_MISSING);
}

static struct jv macro_attr(struct render *r, const struct jmacro *m, const struct jstr *name)
{
    const struct param_list *params = m->node->params;
    if (is_name(name, "name"))
        return m->node->kind == N_MACRO ? jv_of_str(r->t->names.names[m->node->name]) : jv_none();
    if (is_name(name, "catch_kwargs"))
        return jv_bool(params->wants_kwargs);
    if (is_name(name, "catch_varargs"))
        return jv_bool(params->wants_varargs);
    if (is_name(name, "caller"))
        return jv_bool(params->wants_caller);
    if (!is_name(name, "arguments"))
        return jv_tagged(JV_MISSING);
    struct jseq *names = jseq_new(r, params->n);
    for (size_t i = 0; names && i < params->n; i++)
        names->items[i] = jv_of_str(r->t->names.names[params->items[i].name]);
    return jv_of_seq(JV_TUPLE, names);
}

static struct jv cycler_attr(struct render *r, struct jv obj, const struct jstr *name)
{
    if (is_name(name, "current"))
        return obj.cycler->items->items[obj.cycler->at];
    if (is_name(name, "items"))
        return jv_of_seq(JV_TUPLE, obj.cycler->items);
    return is_name(name, "pos") ? jv_int((int64_t)obj.cycler->at) : bind(r, obj, methods_cycler, name);
}

/* Python's getattr: JV_MISSING where it would raise AttributeError. */
static struct jv attribute(struct render *r, struct jv obj, const struct jstr *name)
{
    struct jv value;
    if (name->len > 4 && memcmp(name->data, "__", 2) == 0 && memcmp(name->data + name->len - 2, "__", 2) == 0)
        return unsafe(r, obj, name);
    switch (obj.tag) {
    case JV_STR:
        return str_attr(r, obj, name);
    case JV_DICT:
        return dict_attr(r, obj, name);
    case JV_LIST:
        return list_attr(r, obj, name);
    case JV_TUPLE:
        return tuple_attr(r, obj, name);
    case JV_BOOL:
    case JV_INT:
    case JV_FLOAT:
        return number_attr(r, obj, name);
    case JV_NAMESPACE: {
        int found = jdict_get(r, obj.dict, jv_of_str(name), &value);
        return found < 0 ? jv_tagged(JV_ERROR) : found ? value : jv_tagged(JV_MISSING);
    }
    case JV_RANGE:
        return range_attr(r, obj, name);
    case JV_BUILTIN:
        return builtin_attr(r, obj, name);
    case JV_LOOP:
        return loop_attr(r, obj.loop, name);
    case JV_MACRO:
        return macro_attr(r, obj.macro, name);
    case JV_CYCLER:
        return cycler_attr(r, obj, name);
    case JV_JOINER:
        return is_name(name, "sep")    ? obj.joiner->sep
               : is_name(name, "used") ? jv_bool(obj.joiner->used)
                                       : jv_tagged(JV_MISSING);
    default:
        return jv_tagged(JV_MISSING);
    }
}

static struct jv item_or_missing(struct render *r, struct jv obj, struct jv key)
{
    bool unhashable = key.tag == JV_LIST || key.tag == JV_DICT || key.tag == JV_VIEW;
    return obj.tag == JV_DICT && unhashable ? jv_tagged(JV_MISSING) : jv_item(r, obj, key);
}

struct jv jv_getattr(struct render *r, struct jv obj, const struct jstr *name)
{
    if (obj.tag == JV_UNDEFINED)
        return jv_raise_undefined(r, obj);
    struct jv v = attribute(r, obj, name);
    if (v.tag == JV_MISSING)
        v = item_or_missing(r, obj, jv_of_str(name));
    return v.tag == JV_MISSING ? jv_undefined(r, obj, jv_of_str(name)) : v;
}

struct jv jv_getitem(struct render *r, struct jv obj, struct jv key)
{
    if (obj.tag == JV_UNDEFINED)
        return jv_raise_undefined(r, obj);
    struct jv v = item_or_missing(r, obj, key);
    if (v.tag == JV_MISSING && key.tag == JV_STR)
        v = attribute(r, obj, key.s);
    return v.tag == JV_MISSING ? jv_undefined(r, obj, key) : v;
}

struct jv jv_attr_only(struct render *r, struct jv obj, const struct jstr *name)
{
    if (obj.tag == JV_UNDEFINED)
        return jv_raise_undefined(r, obj);
    struct jv v = attribute(r, obj, name);
    return v.tag == JV_MISSING ? jv_undefined(r, obj, jv_of_str(name)) : v;
}

static struct jv path_part(struct render *r, struct jv obj, const struct jstr *part)
{
    int64_t index = 0;
    for (size_t i = 0; i < part->len; i++) {
        int digit = part->data[i] >= '0' && part->data[i] <= '9' ? part->data[i] - '0' : -1;
        if (digit < 0 || __builtin_mul_overflow(index, 10, &index) ||
            __builtin_add_overflow(index, digit, &index))
            return jv_getitem(r, obj, jv_of_str(part));
    }
    return jv_getitem(r, obj, part->len ? jv_int(index) : jv_of_str(part));
}

struct jv jv_path(struct render *r, struct jv obj, struct jv path)
{
    if (path.tag == JV_NONE || path.tag == JV_MISSING)
        return obj;
    if (path.tag != JV_STR)
        return jv_getitem(r, obj, path);
    for (size_t at = 0; at <= path.s->len && !jv_is_error(obj);) {
        const char *dot = memchr(path.s->data + at, '.', path.s->len - at);
        size_t end = dot ? (size_t)(dot - path.s->data) : path.s->len;
        const struct jstr *part = jstr_part(r, path.s, at, end);
        obj = part ? path_part(r, obj, part) : jv_tagged(JV_ERROR);
        at = end + 1;
    }
    return obj;
}
