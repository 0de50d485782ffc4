/* Before the first render: every filter and test gets its function. An unknown one is an error here, unless
 * it stands directly inside an if or a conditional expression: there Jinja allows a template to ask for what
 * only some environments have, and it is an error when it is reached. */
#include "jinja.h"

struct checker {
    const struct chat_template *t;
    struct error *err;
};

static enum status check(const struct checker *c, struct node *n, bool soft);

static enum status check_list(const struct checker *c, struct node **list, size_t n, bool soft)
{
    for (size_t i = 0; i < n; i++) {
        enum status status = check(c, list[i], soft);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static enum status check_args(const struct checker *c, const struct arg_nodes *args, bool soft)
{
    enum status status = args ? check_list(c, args->pos, args->n_pos, soft) : STATUS_OK;
    for (size_t i = 0; args && status == STATUS_OK && i < args->n_kw; i++)
        status = check(c, args->kw[i].value, soft);
    if (args && status == STATUS_OK)
        status = check(c, args->star, soft);
    return args && status == STATUS_OK ? check(c, args->star_star, soft) : status;
}

static enum status check_def(const struct checker *c, struct node *n, bool soft)
{
    const struct jstr *name = n->value.s;
    bool filter = n->kind == N_FILTER;
    n->def = filter ? filter_find(name->data, name->len) : test_find(name->data, name->len);
    if (n->def || soft)
        return STATUS_OK;
    return jinja_fail_at(c->t, n->pos, c->err, STATUS_UNSUPPORTED, "No %s named '%.*s'.",
                         filter ? "filter" : "test", (int)name->len, name->data);
}

static enum status check(const struct checker *c, struct node *n, bool soft)
{
    enum status status = STATUS_OK;
    if (!n)
        return status;
    if (n->kind == N_FILTER || n->kind == N_TEST)
        status = check_def(c, n, soft);
    bool is_if = n->kind == N_IF || n->kind == N_COND;
    /* A new frame of Jinja's: what is inside no longer stands directly inside the if. */
    bool new_frame = n->kind == N_FOR || n->kind == N_MACRO || n->kind == N_CALL_BLOCK ||
                     n->kind == N_SET_BLOCK || n->kind == N_FILTER_BLOCK || n->kind == N_WITH ||
                     n->kind == N_SCOPE || n->kind == N_GENERATION;
    bool filter_inside = n->kind == N_SET_BLOCK || n->kind == N_FILTER_BLOCK;
    soft |= is_if;
    if (status == STATUS_OK)
        status = check(c, n->a, soft);
    if (status == STATUS_OK)
        status = check(c, n->b, soft && !filter_inside);
    if (status == STATUS_OK)
        status = check(c, n->c, soft && !new_frame);
    if (status == STATUS_OK)
        status =
            n->kind == N_FOR ? check_list(c, n->list, 2, false) : check_list(c, n->list, n->n_list, soft);
    if (status == STATUS_OK)
        status = check_args(c, n->args, soft);
    for (size_t i = 0; status == STATUS_OK && n->params && i < n->params->n; i++)
        status = check(c, n->params->items[i].initial, false);
    return status;
}

enum status jinja_check(const struct chat_template *t, struct error *err)
{
    struct checker c = {.t = t, .err = err};
    return check(&c, t->root, false);
}
