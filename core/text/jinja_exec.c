/* Statements, variables and macros. Each block of its own variables pushes a scope; what it sets ends with
 * it, and a macro keeps the scope in which it was defined. */
#include <string.h>

#include "jinja.h"

/* ---- variables */

bool scope_push(struct render *r)
{
    struct scope *s = jv_alloc(r, sizeof *s);
    if (!s)
        return false;
    s->parent = r->scope;
    r->scope = s;
    return true;
}

bool scope_set(struct render *r, uint32_t name, struct jv value)
{
    struct scope *s = r->scope;
    if (!s) {
        r->root[name] = value;
        return true;
    }
    for (uint32_t i = 0; i < s->n; i++)
        if (s->vars[i].name == name) {
            s->vars[i].value = value;
            return true;
        }
    if (s->n == s->capacity) {
        uint32_t capacity = s->capacity ? s->capacity * 2 : 4;
        struct var *vars = jv_alloc(r, capacity * sizeof *vars);
        if (!vars)
            return false;
        if (s->n)
            memcpy(vars, s->vars, s->n * sizeof *vars);
        s->vars = vars;
        s->capacity = capacity;
    }
    s->vars[s->n++] = (struct var){.name = name, .value = value};
    return true;
}

static bool unpack(struct render *r, const struct node *target, struct jv value)
{
    if (!jv_iterable(value)) {
        jv_raise(r, "TypeError", "cannot unpack non-iterable %s object", jv_type_name(value));
        return false;
    }
    struct jseq *items = jv_items(r, value);
    if (!items)
        return false;
    if (items->n != target->n_list) {
        if (items->n < target->n_list)
            jv_raise(r, "ValueError", "not enough values to unpack (expected %zu, got %zu)", target->n_list,
                     items->n);
        else
            jv_raise(r, "ValueError", "too many values to unpack (expected %zu)", target->n_list);
        return false;
    }
    for (size_t i = 0; i < items->n; i++)
        if (!jinja_assign(r, target->list[i], items->items[i]))
            return false;
    return true;
}

static bool assign_attribute(struct render *r, const struct node *target, struct jv value)
{
    struct node name = {.kind = N_NAME, .name = target->name, .pos = target->pos};
    struct jv object = jinja_eval(r, &name);
    r->where = target;
    if (jv_is_error(object))
        return false;
    if (object.tag != JV_NAMESPACE) {
        jv_raise(r, "TemplateRuntimeError", "cannot assign attribute on non-namespace object");
        return false;
    }
    if (target->value.s->data[0] == '_') {
        jv_raise(r, "SecurityError", "a namespace can't have an attribute that begins with '_': '%.*s'",
                 (int)target->value.s->len, target->value.s->data);
        return false;
    }
    return jdict_set(r, object.dict, target->value, value);
}

bool jinja_assign(struct render *r, const struct node *target, struct jv value)
{
    switch (target->kind) {
    case N_NAME:
        return scope_set(r, target->name, value);
    case N_NSREF:
        return assign_attribute(r, target, value);
    default:
        r->where = target;
        return unpack(r, target, value);
    }
}

/* ---- macros */

static struct jv new_macro(struct render *r, const struct node *n)
{
    struct jmacro *m = jv_alloc(r, sizeof *m);
    if (!m)
        return jv_tagged(JV_ERROR);
    *m = (struct jmacro){.node = n, .scope = r->scope};
    return (struct jv){.tag = JV_MACRO, .macro = m};
}

static const struct jstr *macro_name(struct render *r, const struct jmacro *m)
{
    struct jv name = m->node->kind == N_MACRO ? jv_of_str(r->t->names.names[m->node->name]) : jv_none();
    return jv_repr(r, name);
}

static const struct kwarg *find_kwarg(const struct render *r, const struct call *c, uint32_t name)
{
    for (size_t i = 0; i < c->n_kw; i++)
        if (jstr_equal(c->kw[i].name, r->t->names.names[name]))
            return &c->kw[i];
    return NULL;
}

/* The parameter that a keyword may fill: one that no positional argument has filled. */
static bool is_open_param(const struct render *r, const struct jmacro *m, const struct call *c,
                          const struct kwarg *kw)
{
    const struct param_list *params = m->node->params;
    for (size_t i = c->n_pos; i < params->n; i++)
        if (jstr_equal(kw->name, r->t->names.names[params->items[i].name]))
            return true;
    return false;
}

static bool declares_caller(const struct render *r, const struct param_list *params)
{
    for (size_t i = 0; i < params->n; i++)
        if (params->items[i].name == r->t->known.caller)
            return true;
    return false;
}

/* Keywords that no parameter takes: kwargs has them, or they are an error. */
static bool bind_kwargs(struct render *r, const struct jmacro *m, const struct call *c)
{
    const struct param_list *params = m->node->params;
    bool takes_caller = params->wants_caller && !declares_caller(r, params);
    struct jdict *rest = jdict_new(r, 0);
    if (!rest)
        return false;
    for (size_t i = 0; i < c->n_kw; i++) {
        const struct kwarg *kw = &c->kw[i];
        bool is_caller = jstr_equal(kw->name, r->t->names.names[r->t->known.caller]);
        if (is_open_param(r, m, c, kw) || (is_caller && takes_caller))
            continue;
        if (!params->wants_kwargs) {
            const struct jstr *name = macro_name(r, m);
            if (name)
                jv_raise(r, "TypeError", "macro %.*s takes no keyword argument '%.*s'", (int)name->len,
                         name->data, (int)kw->name->len, kw->name->data);
            return false;
        }
        if (!jdict_set(r, rest, jv_of_str(kw->name), kw->value))
            return false;
    }
    return !params->wants_kwargs || scope_set(r, r->t->known.kwargs, jv_of_dict(rest));
}

static bool bind_caller(struct render *r, const struct jmacro *m, const struct call *c)
{
    const struct param_list *params = m->node->params;
    if (!params->wants_caller || declares_caller(r, params))
        return true;
    const struct kwarg *kw = find_kwarg(r, c, r->t->known.caller);
    struct jv caller = kw && kw->value.tag != JV_NONE ? kw->value : jv_undefined_hint(r, "No caller defined");
    return !jv_is_error(caller) && scope_set(r, r->t->known.caller, caller);
}

static bool bind_varargs(struct render *r, const struct jmacro *m, const struct call *c)
{
    const struct param_list *params = m->node->params;
    size_t n = c->n_pos > params->n ? c->n_pos - params->n : 0;
    if (!params->wants_varargs) {
        const struct jstr *name = n ? macro_name(r, m) : NULL;
        if (name)
            jv_raise(r, "TypeError", "macro %.*s takes not more than %zu argument(s)", (int)name->len,
                     name->data, params->n);
        return n == 0;
    }
    struct jv rest = jv_of_seq(JV_TUPLE, jseq_copy(r, c->pos + params->n * (n > 0), n));
    return !jv_is_error(rest) && scope_set(r, r->t->known.varargs, rest);
}

/* A parameter that got nothing: its default, which sees those before it, or undefined. */
static struct jv missing_argument(struct render *r, const struct param *param)
{
    const struct jstr *name = r->t->names.names[param->name];
    if (param->initial)
        return jinja_eval(r, param->initial);
    size_t mark = r->out.length;
    if (!jv_puts(r, "parameter ") || !jv_put_repr(r, jv_of_str(name)) || !jv_puts(r, " was not provided") ||
        !jv_put(r, "", 1))
        return jv_tagged(JV_ERROR);
    const struct jstr *hint = render_take(r, mark);
    return hint ? jv_undefined_hint(r, hint->data) : jv_tagged(JV_ERROR);
}

static bool bind_arguments(struct render *r, const struct jmacro *m, const struct call *c)
{
    const struct param_list *params = m->node->params;
    if (!bind_kwargs(r, m, c) || !bind_caller(r, m, c) || !bind_varargs(r, m, c))
        return false;
    for (size_t i = 0; i < params->n; i++) {
        const struct param *param = &params->items[i];
        const struct kwarg *kw = i < c->n_pos ? NULL : find_kwarg(r, c, param->name);
        struct jv v = i < c->n_pos ? c->pos[i] : kw ? kw->value : missing_argument(r, param);
        if (jv_is_error(v) || !scope_set(r, param->name, v))
            return false;
    }
    return true;
}

struct jv jinja_call_macro(struct render *r, const struct jmacro *m, const struct call *c)
{
    struct scope *saved = r->scope;
    size_t mark = r->out.length;
    if (!render_enter(r, "macro calls"))
        return jv_tagged(JV_ERROR);
    r->scope = m->scope;
    if (!scope_push(r) || !bind_arguments(r, m, c) || jinja_exec(r, m->node->c) == FLOW_ERROR)
        return jv_tagged(JV_ERROR);
    r->scope = saved;
    r->depth--;
    return jv_of_str(render_take(r, mark));
}

/* ---- statements */

static enum flow flow_of(bool ok)
{
    return ok ? FLOW_NEXT : FLOW_ERROR;
}

static enum flow exec_body(struct render *r, const struct node *n)
{
    enum flow flow = FLOW_NEXT;
    for (size_t i = 0; i < n->n_blank; i++)
        if (!scope_set(r, n->blank[i], jv_tagged(JV_MISSING)))
            return FLOW_ERROR;
    for (size_t i = 0; i < n->n_list && flow == FLOW_NEXT; i++)
        flow = jinja_exec(r, n->list[i]);
    return flow;
}

static enum flow exec_print(struct render *r, const struct node *n)
{
    struct jv v = jinja_eval(r, n->a);
    return flow_of(!jv_is_error(v) && jv_put_str(r, v));
}

static enum flow exec_if(struct render *r, const struct node *n)
{
    for (size_t i = 0; i + 1 < n->n_list; i += 2) {
        struct jv test = jinja_eval(r, n->list[i]);
        if (jv_is_error(test))
            return FLOW_ERROR;
        if (jv_truth(test))
            return jinja_exec(r, n->list[i + 1]);
    }
    return n->c ? jinja_exec(r, n->c) : FLOW_NEXT;
}

static enum flow exec_set(struct render *r, const struct node *n)
{
    struct jv v = jinja_eval(r, n->b);
    return flow_of(!jv_is_error(v) && jinja_assign(r, n->a, v));
}

static enum flow exec_scoped(struct render *r, const struct node *n)
{
    struct scope *saved = r->scope;
    if (!scope_push(r))
        return FLOW_ERROR;
    enum flow flow = jinja_exec(r, n->c);
    r->scope = saved;
    return flow;
}

/* The text of n's body, filtered; taken off the output also when the body ends with break or continue. */
static enum flow exec_captured(struct render *r, const struct node *n, struct jv *text)
{
    size_t mark = r->out.length;
    struct scope *saved = r->scope;
    if (!scope_push(r))
        return FLOW_ERROR;
    enum flow flow = jinja_exec(r, n->c);
    if (flow == FLOW_ERROR)
        return flow;
    *text = jv_of_str(render_take(r, mark));
    if (!jv_is_error(*text) && n->b && flow == FLOW_NEXT)
        *text = jinja_filter(r, n->b, *text);
    r->scope = saved;
    return jv_is_error(*text) ? FLOW_ERROR : flow;
}

static enum flow exec_set_block(struct render *r, const struct node *n)
{
    struct jv text;
    enum flow flow = exec_captured(r, n, &text);
    return flow == FLOW_NEXT ? flow_of(jinja_assign(r, n->a, text)) : flow;
}

static enum flow exec_filter_block(struct render *r, const struct node *n)
{
    struct jv text;
    enum flow flow = exec_captured(r, n, &text);
    if (flow != FLOW_NEXT)
        return flow;
    if (text.tag != JV_STR) {
        jv_raise(r, "TypeError", "a filter block's last filter must give a str, %s found",
                 jv_type_name(text));
        return FLOW_ERROR;
    }
    return flow_of(jv_put_str(r, text));
}

static enum flow exec_macro(struct render *r, const struct node *n)
{
    struct jv macro = new_macro(r, n);
    return flow_of(!jv_is_error(macro) && scope_set(r, n->name, macro));
}

static enum flow exec_call_block(struct render *r, const struct node *n)
{
    struct jv caller = new_macro(r, n);
    struct jv text = jv_is_error(caller) ? caller : jinja_call_node(r, n->a, caller);
    return flow_of(!jv_is_error(text) && jv_put_str(r, text));
}

static enum flow exec_generation(struct render *r, const struct node *n)
{
    struct jmacro macro = {.node = n, .scope = r->scope};
    struct jv text = jinja_call_macro(r, &macro, &(struct call){0});
    return flow_of(!jv_is_error(text) && jv_put_str(r, text));
}

static enum flow exec_with(struct render *r, const struct node *n)
{
    struct scope *saved = r->scope;
    struct jseq *values = jseq_new(r, n->n_list / 2);
    for (size_t i = 0; values && i < values->n; i++) {
        values->items[i] = jinja_eval(r, n->list[2 * i + 1]);
        if (jv_is_error(values->items[i]))
            return FLOW_ERROR;
    }
    if (!values || !scope_push(r))
        return FLOW_ERROR;
    for (size_t i = 0; i < values->n; i++)
        if (!jinja_assign(r, n->list[2 * i], values->items[i]))
            return FLOW_ERROR;
    enum flow flow = jinja_exec(r, n->c);
    r->scope = saved;
    return flow;
}

static enum flow exec_for(struct render *r, const struct node *n)
{
    struct jv iterable = jinja_eval(r, n->b);
    return jv_is_error(iterable) ? FLOW_ERROR : loop_exec(r, n, iterable, 0);
}

static enum flow exec_kind(struct render *r, const struct node *n)
{
    switch (n->kind) {
    case N_DATA:
        return flow_of(jv_put(r, n->value.s->data, n->value.s->len));
    case N_PRINT:
        return exec_print(r, n);
    case N_BODY:
        return exec_body(r, n);
    case N_IF:
        return exec_if(r, n);
    case N_FOR:
        return exec_for(r, n);
    case N_SET:
        return exec_set(r, n);
    case N_SET_BLOCK:
        return exec_set_block(r, n);
    case N_MACRO:
        return exec_macro(r, n);
    case N_CALL_BLOCK:
        return exec_call_block(r, n);
    case N_FILTER_BLOCK:
        return exec_filter_block(r, n);
    case N_WITH:
        return exec_with(r, n);
    case N_GENERATION:
        return exec_generation(r, n);
    case N_SCOPE:
        return exec_scoped(r, n);
    case N_BREAK:
        return FLOW_BREAK;
    case N_CONTINUE:
        return FLOW_CONTINUE;
    default:
        jv_raise(r, "RuntimeError", "an expression where a statement belongs");
        return FLOW_ERROR;
    }
}

enum flow jinja_exec(struct render *r, const struct node *n)
{
    if (r->nesting >= r->nesting_limit) {
        jv_too_large(r, "the template's calls and blocks nest too deep");
        return FLOW_ERROR;
    }
    if (!jv_steps(r, 1))
        return FLOW_ERROR;
    r->nesting++;
    r->where = n;
    enum flow flow = exec_kind(r, n);
    r->nesting--;
    return flow;
}
