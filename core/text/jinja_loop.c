/* The for statement and its loop variable. Items and the for's own `if` are taken one at a time, as late as
 * Python would; asking loop for its length or its next item reads ahead. */
#include <string.h>

#include "jinja.h"

/* The for's `if`, with the item in the target's names. -1: error. */
static int passes_filter(struct render *r, const struct loop *l, struct jv item)
{
    struct scope *saved = r->scope;
    const struct node *saved_where = r->where;
    r->scope = l->outer;
    if (!scope_push(r) || !jinja_assign(r, l->node->a, item))
        return -1;
    struct jv test = jinja_eval(r, l->node->list[0]);
    r->scope = saved;
    r->where = saved_where;
    return jv_is_error(test) ? -1 : jv_truth(test);
}

/* The next item that the loop will see: 1, 0 at the end, -1 on error. */
static int fetch(struct render *r, struct loop *l, struct jv *item)
{
    int passes = 0;
    while (!passes) {
        int more = l->ended ? 0 : jcursor_next(r, &l->cursor, item);
        l->ended |= more == 0;
        if (more <= 0)
            return more;
        passes = l->filtered ? passes_filter(r, l, *item) : 1;
    }
    return passes;
}

static int peek_next(struct render *r, struct loop *l)
{
    struct jv item;
    if (l->after.tag != JV_MISSING)
        return 1;
    int more = fetch(r, l, &item);
    if (more > 0)
        l->after = item;
    return more;
}

static int advance(struct render *r, struct loop *l)
{
    struct jv item = l->after;
    int more = item.tag != JV_MISSING ? 1 : fetch(r, l, &item);
    if (more <= 0)
        return more;
    l->after = jv_tagged(JV_MISSING);
    l->before = l->current;
    l->current = item;
    l->index0++;
    return 1;
}

/* Without len(), what is left is read into a list. */
static bool know_length(struct render *r, struct loop *l)
{
    if (l->length >= 0)
        return true;
    if (!l->filtered && l->cursor.source.tag != JV_ITER) {
        struct jv length = jv_len(r, l->cursor.source);
        l->length = jv_is_error(length) ? -1 : length.i;
        return !jv_is_error(length);
    }
    struct jseq *rest = jseq_new(r, 0);
    struct jv item;
    int more = -1;
    while (rest && (more = fetch(r, l, &item)) > 0)
        if (!jseq_push(r, rest, item))
            return false;
    if (!rest || more < 0)
        return false;
    l->cursor = (struct jcursor){.source = jv_of_seq(JV_LIST, rest)};
    l->filtered = false;
    l->ended = false;
    l->length = (int64_t)rest->n + l->index0 + 1 + (l->after.tag != JV_MISSING);
    return true;
}

/* ---- loop.changed, loop.cycle */

static struct jv loop_changed(struct render *r, const struct call *c)
{
    struct loop *l = c->self.loop;
    struct jv value = jv_of_seq(JV_TUPLE, jseq_copy(r, c->pos, c->n_pos));
    if (jv_is_error(value))
        return value;
    struct jv same = l->changed.tag == JV_MISSING ? jv_bool(false) : jv_equal(r, l->changed, value);
    if (!jv_is_error(same) && !same.b)
        l->changed = value;
    return jv_is_error(same) ? same : jv_bool(!same.b);
}

static struct jv loop_cycle(struct render *r, const struct call *c)
{
    if (!c->n_pos)
        return jv_raise(r, "TypeError", "no items for cycling given");
    return c->pos[(size_t)c->self.loop->index0 % c->n_pos];
}

const struct builtin methods_loop[] = {
    {"changed", NULL, 0, loop_changed}, {"cycle", NULL, 0, loop_cycle}, {NULL, NULL, 0, NULL}};

/* ---- the loop's attributes */

enum loop_field {
    FIRST,
    LAST,
    INDEX,
    INDEX0,
    LENGTH,
    REVINDEX,
    REVINDEX0,
    DEPTH,
    DEPTH0,
    PREVITEM,
    NEXTITEM
};

static struct jv loop_neighbour(struct render *r, struct loop *l, enum loop_field field)
{
    if (field == PREVITEM)
        return l->index0 == 0 ? jv_undefined_hint(r, "there is no previous item") : l->before;
    int more = peek_next(r, l);
    if (more < 0)
        return jv_tagged(JV_ERROR);
    if (field == LAST)
        return jv_bool(!more);
    return more ? l->after : jv_undefined_hint(r, "there is no next item");
}

static struct jv loop_field_value(struct render *r, struct loop *l, enum loop_field field)
{
    switch (field) {
    case FIRST:
        return jv_bool(l->index0 == 0);
    case INDEX:
        return jv_int(l->index0 + 1);
    case INDEX0:
        return jv_int(l->index0);
    case DEPTH:
        return jv_int((int64_t)l->depth0 + 1);
    case DEPTH0:
        return jv_int(l->depth0);
    case LENGTH:
    case REVINDEX:
    case REVINDEX0:
        if (!know_length(r, l))
            return jv_tagged(JV_ERROR);
        return jv_int(field == LENGTH     ? l->length
                      : field == REVINDEX ? l->length - l->index0
                                          : l->length - l->index0 - 1);
    default:
        return loop_neighbour(r, l, field);
    }
}

struct jv loop_attr(struct render *r, struct loop *l, const struct jstr *name)
{
    static const char *const fields[] = {"first",     "last",  "index",  "index0",   "length",  "revindex",
                                         "revindex0", "depth", "depth0", "previtem", "nextitem"};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (strlen(fields[i]) == name->len && memcmp(fields[i], name->data, name->len) == 0)
            return loop_field_value(r, l, (enum loop_field)i);
    const struct builtin *fn = builtin_find(methods_loop, name->data, name->len);
    if (!fn)
        return jv_tagged(JV_MISSING);
    struct jmethod *m = jv_alloc(r, sizeof *m);
    if (!m)
        return jv_tagged(JV_ERROR);
    *m = (struct jmethod){.self = {.tag = JV_LOOP, .loop = l}, .fn = fn};
    return (struct jv){.tag = JV_METHOD, .method = m};
}

/* ---- the statement */

static enum flow run_body(struct render *r, struct loop *l)
{
    struct jv self = {.tag = JV_LOOP, .loop = l};
    r->scope = l->outer;
    if (!scope_push(r) || !jinja_assign(r, l->node->a, l->current) || !scope_set(r, r->t->known.loop, self))
        return FLOW_ERROR;
    enum flow flow = jinja_exec(r, l->node->c);
    r->scope = l->outer;
    return flow;
}

static enum flow run_else(struct render *r, const struct loop *l)
{
    if (!l->node->list[1])
        return FLOW_NEXT;
    if (!scope_push(r))
        return FLOW_ERROR;
    enum flow flow = jinja_exec(r, l->node->list[1]);
    r->scope = l->outer;
    return flow;
}

enum flow loop_exec(struct render *r, const struct node *n, struct jv iterable, uint32_t depth0)
{
    struct loop *l = jv_alloc(r, sizeof *l);
    if (!l || !render_enter(r, "loops"))
        return FLOW_ERROR;
    *l = (struct loop){.node = n,
                       .outer = r->scope,
                       .filtered = n->list[0] != NULL,
                       .index0 = -1,
                       .length = -1,
                       .depth0 = depth0};
    r->where = n->b;
    if (!jcursor_begin(r, &l->cursor, iterable))
        return FLOW_ERROR;
    /* As in Jinja, a turn that ends with continue or break doesn't count for else. */
    bool completed = false;
    enum flow flow = FLOW_NEXT;
    int more;
    while (flow != FLOW_BREAK && (more = advance(r, l)) != 0) {
        flow = more < 0 ? FLOW_ERROR : run_body(r, l);
        if (flow == FLOW_ERROR)
            return flow;
        completed |= flow == FLOW_NEXT;
    }
    flow = completed ? FLOW_NEXT : run_else(r, l);
    r->depth--;
    return flow;
}

struct jv jinja_call_loop(struct render *r, struct loop *l, const struct call *c)
{
    if (!l->node->flag)
        return jv_raise(r, "TypeError",
                        "The loop must have the 'recursive' marker to be called recursively.");
    if (c->n_pos != 1 || c->n_kw)
        return jv_raise(r, "TypeError", "loop() takes one argument");
    struct scope *saved = r->scope;
    size_t mark = r->out.length;
    r->scope = l->outer;
    if (loop_exec(r, l->node, c->pos[0], l->depth0 + 1) == FLOW_ERROR)
        return jv_tagged(JV_ERROR);
    r->scope = saved;
    return jv_of_str(render_take(r, mark));
}
