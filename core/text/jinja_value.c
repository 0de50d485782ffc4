/* The render's memory, its bounds and its errors; and what all values have: type name, truth, length. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "jinja.h"

void *jv_alloc(struct render *r, size_t size)
{
    void *p = arena_alloc(r->arena, size);
    if (p)
        return p;
    size_t total;
    if (!size_add(arena_bytes(r->arena), size, &total) || total > r->memory_limit)
        jv_too_large(r, "the template's values need more than %zu bytes of memory", r->memory_limit);
    else if (r->err.status == STATUS_OK) {
        r->fatal = true;
        fail(&r->err, STATUS_NO_MEMORY, "out of memory while rendering the chat template");
    }
    return NULL;
}

static void put_place(struct render *r, char *text, size_t size)
{
    unsigned line = 0, column = 0;
    if (r->where)
        jinja_position(r->t, r->where->pos, &line, &column);
    snprintf(text, size, "%s: line %u, column %u: ", r->t->shown, line, column);
}

static void write_error(struct render *r, enum status status, const char *class, const char *format,
                        va_list args)
{
    char place[160] = "", text[sizeof r->err.text];
    if (r->err.status != STATUS_OK)
        return;
    vsnprintf(text, sizeof text, format, args);
    if (class)
        put_place(r, place, sizeof place);
    fail(&r->err, status, "%s%s%s%s", place, class ? class : "", class && *class ? ": " : "", text);
}

struct jv jv_raise(struct render *r, const char *class, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    write_error(r, STATUS_INVALID, class, format, args);
    va_end(args);
    return jv_tagged(JV_ERROR);
}

struct jv jv_too_large(struct render *r, const char *format, ...)
{
    va_list args;
    r->fatal = true;
    va_start(args, format);
    write_error(r, STATUS_TOO_LARGE, "", format, args);
    va_end(args);
    return jv_tagged(JV_ERROR);
}

bool jv_steps(struct render *r, uint64_t n)
{
    if (n > r->step_limit - r->n_steps) {
        jv_too_large(r, "the template takes more than %llu steps", (unsigned long long)r->step_limit);
        return false;
    }
    r->n_steps += n;
    return true;
}

/* Work that is proportional to text costs a step per 64 bytes, so that few steps can't hide much work. */
bool jv_step_bytes(struct render *r, size_t n_bytes)
{
    return jv_steps(r, 1 + n_bytes / 64);
}

bool render_enter(struct render *r, const char *what)
{
    if (r->depth >= r->depth_limit) {
        jv_too_large(r, "%s nest deeper than %u", what, r->depth_limit);
        return false;
    }
    r->depth++;
    return true;
}

const char *jv_type_name(struct jv v)
{
    static const char *const names[] = {
        [JV_MISSING] = "missing",
        [JV_ERROR] = "error",
        [JV_UNDEFINED] = "Undefined",
        [JV_NONE] = "NoneType",
        [JV_BOOL] = "bool",
        [JV_INT] = "int",
        [JV_FLOAT] = "float",
        [JV_STR] = "str",
        [JV_LIST] = "list",
        [JV_TUPLE] = "tuple",
        [JV_DICT] = "dict",
        [JV_VIEW] = "dict_keys",
        [JV_RANGE] = "range",
        [JV_ITER] = "generator",
        [JV_NAMESPACE] = "Namespace",
        [JV_LOOP] = "LoopContext",
        [JV_MACRO] = "Macro",
        [JV_BUILTIN] = "function",
        [JV_METHOD] = "builtin_function_or_method",
        [JV_CYCLER] = "Cycler",
        [JV_JOINER] = "Joiner",
        [JV_SELF] = "TemplateReference",
    };
    if (v.tag == JV_STR && v.s->safe)
        return "Markup";
    if (v.tag == JV_VIEW)
        return v.kind == JVIEW_KEYS ? "dict_keys" : v.kind == JVIEW_VALUES ? "dict_values" : "dict_items";
    if (v.tag == JV_ITER)
        return v.iter->type_name;
    return names[v.tag];
}

struct jv jv_undefined(struct render *r, struct jv obj, struct jv name)
{
    struct jundef *u = jv_alloc(r, sizeof *u);
    if (!u)
        return jv_tagged(JV_ERROR);
    *u = (struct jundef){.obj = obj, .name = name};
    return (struct jv){.tag = JV_UNDEFINED, .undef = u};
}

struct jv jv_undefined_hint(struct render *r, const char *hint)
{
    struct jundef *u = jv_alloc(r, sizeof *u);
    if (!u)
        return jv_tagged(JV_ERROR);
    u->hint = hint;
    return (struct jv){.tag = JV_UNDEFINED, .undef = u};
}

struct jv jv_raise_undefined(struct render *r, struct jv undefined)
{
    const struct jundef *u = undefined.undef;
    if (u->hint)
        return jv_raise(r, "UndefinedError", "%s", u->hint);
    if (u->condition) {
        unsigned line, column;
        jinja_position(r->t, u->condition->pos, &line, &column);
        return jv_raise(
            r, "UndefinedError",
            "the inline if-expression on line %u evaluated to false and no else section was defined.", line);
    }
    if (u->unsafe)
        return jv_raise(r, "SecurityError", "access to attribute '%.*s' of '%s' object is unsafe.",
                        (int)u->name.s->len, u->name.s->data, jv_type_name(u->obj));
    const struct jstr *name = jv_repr(r, u->name);
    if (!name)
        return jv_tagged(JV_ERROR);
    if (u->obj.tag == JV_MISSING)
        return jv_raise(r, "UndefinedError", "%.*s is undefined", (int)name->len, name->data);
    const char *type = u->obj.tag == JV_NONE ? "None" : jv_type_name(u->obj);
    const char *object = u->obj.tag == JV_NONE ? "" : " object";
    if (u->name.tag == JV_STR)
        return jv_raise(r, "UndefinedError", "'%s%s' has no attribute %.*s", type, object, (int)name->len,
                        name->data);
    return jv_raise(r, "UndefinedError", "%s%s has no element %.*s", type, object, (int)name->len,
                    name->data);
}

bool jv_truth(struct jv v)
{
    switch (v.tag) {
    case JV_MISSING:
    case JV_ERROR:
    case JV_UNDEFINED:
    case JV_NONE:
        return false;
    case JV_BOOL:
        return v.b;
    case JV_INT:
        return v.i != 0;
    case JV_FLOAT:
        return v.f != 0;
    case JV_STR:
        return v.s->len > 0;
    case JV_LIST:
    case JV_TUPLE:
        return v.seq->n > 0;
    case JV_DICT:
    case JV_VIEW:
        return v.dict->n > 0;
    case JV_RANGE:
        return v.range->n > 0;
    default:
        return true;
    }
}

struct jv jv_len(struct render *r, struct jv v)
{
    switch (v.tag) {
    case JV_UNDEFINED:
        return jv_int(0);
    case JV_STR:
        return jv_int(v.s->n_chars);
    case JV_LIST:
    case JV_TUPLE:
        return jv_int((int64_t)v.seq->n);
    case JV_DICT:
    case JV_VIEW:
        return jv_int((int64_t)v.dict->n);
    case JV_RANGE:
        return jv_int(v.range->n);
    case JV_LOOP: {
        const struct jstr *length = jstr_literal(r, "length");
        return length ? loop_attr(r, v.loop, length) : jv_tagged(JV_ERROR);
    }
    default:
        return jv_raise(r, "TypeError", "object of type '%s' has no len()", jv_type_name(v));
    }
}

/* ---- sequences. A list made by adding to another shares its block while it is the first to grow there, so
 * that a loop of list = list + [x] stays linear. */

struct jseq_tail {
    size_t used, capacity;
};

struct jseq *jseq_new(struct render *r, size_t n)
{
    struct jseq *s = jv_alloc(r, sizeof *s);
    size_t size;
    if (!s || !jv_steps(r, 1 + n / 8))
        return NULL;
    if (!size_mul(n, sizeof *s->items, &size)) {
        jv_too_large(r, "a list of %zu items", n);
        return NULL;
    }
    s->items = n ? jv_alloc(r, size) : NULL;
    s->n = n;
    return n && !s->items ? NULL : s;
}

struct jseq *jseq_copy(struct render *r, const struct jv *items, size_t n)
{
    struct jseq *s = jseq_new(r, n);
    if (s && n)
        memcpy(s->items, items, n * sizeof *items);
    return s;
}

struct jseq *jseq_pair(struct render *r, struct jv a, struct jv b)
{
    struct jv items[2] = {a, b};
    return jseq_copy(r, items, 2);
}

static bool jseq_grow(struct render *r, struct jseq *s, size_t capacity)
{
    struct jseq_tail *tail = jv_alloc(r, sizeof *tail);
    struct jv *items = tail ? jv_alloc(r, capacity * sizeof *items) : NULL;
    if (!items)
        return false;
    if (s->n)
        memcpy(items, s->items, s->n * sizeof *items);
    *tail = (struct jseq_tail){.used = s->n, .capacity = capacity};
    s->items = items;
    s->tail = tail;
    return true;
}

bool jseq_push(struct render *r, struct jseq *s, struct jv v)
{
    if (!s->tail || s->tail->used != s->n || s->n == s->tail->capacity) {
        if (s->n > SIZE_MAX / 64 || !jseq_grow(r, s, s->n < 8 ? 8 : s->n * 2))
            return false;
    }
    s->items[s->n++] = v;
    s->tail->used = s->n;
    return true;
}

struct jseq *jseq_cat(struct render *r, const struct jseq *a, const struct jseq *b)
{
    struct jseq *s = jv_alloc(r, sizeof *s);
    if (!s || !jv_steps(r, 1 + b->n / 8))
        return NULL;
    *s = (struct jseq){.items = a->items, .n = a->n, .tail = a->tail};
    size_t total;
    if (!size_add(a->n, b->n, &total) || total > SIZE_MAX / 64) {
        jv_too_large(r, "a list of that many items");
        return NULL;
    }
    if (!s->tail || s->tail->used != s->n || s->tail->capacity - s->n < b->n) {
        if (!jv_steps(r, a->n / 8) || !jseq_grow(r, s, total < 8 ? 8 : total * 2))
            return NULL;
    }
    if (b->n)
        memcpy(s->items + s->n, b->items, b->n * sizeof *b->items);
    s->n = total;
    s->tail->used = total;
    return s;
}

struct jv jiter_new(struct render *r, const char *type_name, struct jseq *items)
{
    struct jiter *it = items ? jv_alloc(r, sizeof *it) : NULL;
    if (!it)
        return jv_tagged(JV_ERROR);
    *it = (struct jiter){.type_name = type_name, .items = items};
    return (struct jv){.tag = JV_ITER, .iter = it};
}

struct jv defer_end(struct render *r, const struct deferral *d, struct jseq *items, bool ok)
{
    if (!items || r->fatal)
        return jv_tagged(JV_ERROR);
    const char *text = NULL;
    if (!ok) {
        text = arena_strdup(r->arena, r->err.text);
        r->err = (struct error){0};
        r->depth = d->depth;
        render_cut(r, d->out_length);
        if (!text)
            return jv_too_large(r, "the template's values need more than %zu bytes of memory",
                                r->memory_limit);
    }
    struct jv it = jiter_new(r, "generator", items);
    if (!jv_is_error(it))
        it.iter->error = text;
    return it;
}
