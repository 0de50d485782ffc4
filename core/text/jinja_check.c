/* Before the first render: every filter and test gets its function, and what no value of a request could make
 * work is an error here: unknown filters, tests, functions and methods. Unknown filters and tests directly
 * inside an if or a conditional expression are let through, as Jinja does, so that a template may ask for
 * what only some environments have; unknown functions and methods behind any condition are, too. These are
 * errors when they are reached. */
#include <stdlib.h>
#include <string.h>

#include "jinja.h"

struct checker {
    const struct chat_template *t;
    struct error *err;
    bool *assigned;      /* [names.n]: the template gives this name a value somewhere */
    struct buf *strings; /* uint64_t, sorted: hashes of the keys and attributes that it may give to values */
};

/* ---- what the template itself makes: names, and strings that may become attributes */

static uint64_t hash_of(const struct jstr *s)
{
    uint64_t h = 14695981039346656037ULL; /* FNV-1a */
    for (size_t i = 0; i < s->len; i++)
        h = (h ^ (unsigned char)s->data[i]) * 1099511628211ULL;
    return h;
}

static int compare_hashes(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void note_string(struct checker *c, const struct jstr *s)
{
    uint64_t h = hash_of(s);
    buf_append(c->strings, &h, sizeof h);
}

static void note_target(struct checker *c, const struct node *target)
{
    if (target->kind == N_NSREF)
        note_string(c, target->value.s);
    else if (target->kind == N_NAME)
        c->assigned[target->name] = true;
    for (size_t i = 0; i < target->n_list; i++)
        note_target(c, target->list[i]);
}

static void note(struct checker *c, const struct node *n);

static void note_params(struct checker *c, const struct param_list *params)
{
    for (size_t i = 0; i < params->n; i++) {
        c->assigned[params->items[i].name] = true;
        note(c, params->items[i].initial);
    }
}

static void note_args(struct checker *c, const struct arg_nodes *args)
{
    for (size_t i = 0; i < args->n_pos; i++)
        note(c, args->pos[i]);
    for (size_t i = 0; i < args->n_kw; i++) {
        note_string(c, args->kw[i].name);
        note(c, args->kw[i].value);
    }
    note(c, args->star);
    note(c, args->star_star);
}

static void note(struct checker *c, const struct node *n)
{
    if (!n)
        return;
    if (n->kind == N_CONST && n->value.tag == JV_STR)
        note_string(c, n->value.s);
    if (n->kind == N_MACRO)
        c->assigned[n->name] = true;
    if (n->kind == N_SET || n->kind == N_SET_BLOCK || n->kind == N_FOR)
        note_target(c, n->a);
    else
        note(c, n->a);
    note(c, n->b);
    note(c, n->c);
    for (size_t i = 0; i < n->n_list; i++) {
        if (n->kind == N_WITH && i % 2 == 0)
            note_target(c, n->list[i]);
        else
            note(c, n->list[i]);
    }
    for (size_t i = 0; n->kind == N_FOR && i < 2; i++)
        note(c, n->list[i]);
    if (n->params)
        note_params(c, n->params);
    if (n->args)
        note_args(c, n->args);
}

static bool may_be_made(const struct checker *c, const struct jstr *name)
{
    uint64_t h = hash_of(name);
    const struct buf *s = c->strings;
    return s->length && bsearch(&h, s->data, s->length / sizeof h, sizeof h, compare_hashes);
}

/* ---- the check */

/* Where a node stands. soft: directly inside an if. guarded: it may never be reached. */
struct place {
    bool soft, guarded;
};

static enum status check(const struct checker *c, struct node *n, struct place at);

static enum status check_args(const struct checker *c, const struct arg_nodes *args, struct place at)
{
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < args->n_pos; i++)
        status = check(c, args->pos[i], at);
    for (size_t i = 0; status == STATUS_OK && i < args->n_kw; i++)
        status = check(c, args->kw[i].value, at);
    if (status == STATUS_OK)
        status = check(c, args->star, at);
    return status == STATUS_OK ? check(c, args->star_star, at) : status;
}

static enum status check_def(const struct checker *c, struct node *n, struct place at)
{
    const struct jstr *name = n->value.s;
    bool filter = n->kind == N_FILTER;
    n->def = filter ? filter_find(name->data, name->len) : test_find(name->data, name->len);
    if (n->def || at.soft)
        return STATUS_OK;
    return jinja_fail_at(c->t, n->pos, c->err, STATUS_UNSUPPORTED, "No %s named '%.*s'.",
                         filter ? "filter" : "test", (int)name->len, name->data);
}

/* A function that is neither global nor the template's own: a request's variables are never functions. */
static enum status check_function(const struct checker *c, const struct node *callee)
{
    const struct jstr *name = c->t->names.names[callee->name];
    const struct known_names *k = &c->t->known;
    if (c->assigned[callee->name] || global_find(name->data, name->len) || callee->name == k->loop ||
        callee->name == k->caller || callee->name == k->varargs || callee->name == k->kwargs)
        return STATUS_OK;
    return jinja_fail_at(
        c->t, callee->pos, c->err, STATUS_UNSUPPORTED,
        "no function or macro named '%.*s'; expected one of the template's macros, range, dict, "
        "namespace, cycler, joiner, raise_exception or strftime_now",
        (int)name->len, name->data);
}

static enum status check_method(const struct checker *c, const struct node *callee)
{
    const struct jstr *name = callee->value.s;
    if (method_exists(name) || may_be_made(c, name))
        return STATUS_OK;
    return jinja_fail_at(
        c->t, callee->pos, c->err, STATUS_UNSUPPORTED,
        "no kind of value has a method '%.*s'; expected one of Python's str, list, dict, tuple, "
        "int or float",
        (int)name->len, name->data);
}

static enum status check_call(const struct checker *c, const struct node *n, struct place at)
{
    if (at.guarded || n->kind != N_CALL)
        return STATUS_OK;
    if (n->a->kind == N_NAME)
        return check_function(c, n->a);
    return n->a->kind == N_GETATTR ? check_method(c, n->a) : STATUS_OK;
}

/* The node's list: of an if and of and/or only the first is always reached; of a for it is filter and else.
 */
static enum status check_list(const struct checker *c, const struct node *n, struct place at)
{
    bool chain = n->kind == N_IF || n->kind == N_AND || n->kind == N_OR || n->kind == N_COMPARE;
    size_t count = n->kind == N_FOR ? 2 : n->n_list, n_sure = n->kind == N_COMPARE ? 2 : 1;
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < count; i++) {
        struct place inside = at;
        if (n->kind == N_FOR)
            inside = (struct place){.guarded = true};
        inside.guarded |= chain && i >= n_sure;
        status = check(c, n->list[i], inside);
    }
    return status;
}

static enum status check(const struct checker *c, struct node *n, struct place at)
{
    enum status status = STATUS_OK;
    if (!n)
        return status;
    if (n->kind == N_FILTER || n->kind == N_TEST)
        status = check_def(c, n, at);
    bool is_if = n->kind == N_IF || n->kind == N_COND;
    /* A new frame of Jinja's: what is inside no longer stands directly inside the if. */
    bool new_frame = n->kind == N_FOR || n->kind == N_MACRO || n->kind == N_CALL_BLOCK ||
                     n->kind == N_SET_BLOCK || n->kind == N_FILTER_BLOCK || n->kind == N_WITH ||
                     n->kind == N_SCOPE || n->kind == N_GENERATION;
    bool filter_inside = n->kind == N_SET_BLOCK || n->kind == N_FILTER_BLOCK;
    at.soft |= is_if;
    struct place b = {at.soft && !filter_inside, at.guarded || n->kind == N_COND};
    struct place body = {at.soft && !new_frame, at.guarded || is_if};
    struct place initial = {.guarded = true};
    if (status == STATUS_OK)
        status = check_call(c, n, at);
    if (status == STATUS_OK)
        status = check(c, n->a, at);
    if (status == STATUS_OK)
        status = check(c, n->b, b);
    if (status == STATUS_OK)
        status = check(c, n->c, body);
    if (status == STATUS_OK)
        status = check_list(c, n, at);
    if (status == STATUS_OK && n->args)
        status = check_args(c, n->args, at);
    for (size_t i = 0; status == STATUS_OK && n->params && i < n->params->n; i++)
        status = check(c, n->params->items[i].initial, initial);
    return status;
}

enum status jinja_check(const struct chat_template *t, struct error *err)
{
    struct buf strings;
    struct checker c = {.t = t, .err = err, .strings = &strings};
    c.assigned = arena_alloc(t->arena, t->names.n * sizeof *c.assigned);
    if (!c.assigned)
        return fail(err, STATUS_NO_MEMORY, "%s: out of memory", t->shown);
    buf_init(&strings, 0);
    note(&c, t->root);
    enum status status = STATUS_OK;
    if (strings.failed)
        status = fail(err, STATUS_NO_MEMORY, "%s: out of memory", t->shown);
    else if (strings.length)
        qsort(strings.data, strings.length / sizeof(uint64_t), sizeof(uint64_t), compare_hashes);
    if (status == STATUS_OK)
        status = check(&c, t->root, (struct place){0});
    buf_fini(&strings);
    return status;
}
