/* What must hold of a program before it may run: that it can match something, that every way in it can be
 * finished with so many frames, and that no rule comes back to itself without having read a byte. */
#include <string.h>

#include "base/mem.h"
#include "grammar_inner.h"

struct check {
    struct maker *m;
    struct program *p;
    uint8_t *empties;   /* [n_nodes] from here the rule's end is reached without a byte */
    uint32_t *begins;   /* [n_rules + 1] where each rule's nodes begin */
    uint32_t *calls;    /* callers of each rule, grouped: [n_calls] */
    uint32_t *first;    /* [n_rules + 1] into calls */
    uint32_t *queue;    /* rules to look at; a ring of n_rules */
    uint8_t *is_queued; /* [n_rules] */
};

static uint16_t depth_of(const struct check *c, const struct node *n)
{
    const struct program *p = c->p;
    uint16_t a, b;
    switch ((enum node_kind)n->kind) {
    case NODE_END:
        return 0;
    case NODE_BYTE:
        return p->depths[n->b];
    case NODE_SPLIT:
        a = p->depths[n->a];
        b = p->depths[n->b];
        return a < b ? a : b;
    case NODE_CALL:
        a = p->depths[p->starts[n->a]];
        b = p->depths[n->b];
        if (a == UNREACHABLE || b == UNREACHABLE || n->b == END_NODE)
            return n->b == END_NODE ? a : UNREACHABLE;
        a = a + 1 < UNREACHABLE ? (uint16_t)(a + 1) : UNREACHABLE;
        return a > b ? a : b;
    case NODE_FAIL:
        break;
    }
    return UNREACHABLE;
}

static bool empty_of(const struct check *c, const struct node *n)
{
    switch ((enum node_kind)n->kind) {
    case NODE_END:
        return true;
    case NODE_SPLIT:
        return c->empties[n->a] || c->empties[n->b];
    case NODE_CALL:
        return c->empties[c->p->starts[n->a]] && c->empties[n->b];
    case NODE_BYTE:
    case NODE_FAIL:
        break;
    }
    return false;
}

/* Until nothing changes inside the rule; true if its start has changed. */
static bool settle_rule(struct check *c, uint32_t rule)
{
    struct program *p = c->p;
    uint32_t start = p->starts[rule];
    uint16_t before = p->depths[start];
    bool was_empty = c->empties[start], changed = true;
    while (changed) {
        changed = false;
        for (uint32_t i = c->begins[rule]; i < c->begins[rule + 1]; i++) {
            uint16_t depth = depth_of(c, &p->nodes[i]);
            bool empty = empty_of(c, &p->nodes[i]);
            changed |= depth != p->depths[i] || empty != c->empties[i];
            p->depths[i] = depth;
            c->empties[i] = empty;
        }
    }
    return p->depths[start] != before || c->empties[start] != was_empty;
}

/* Every rule, and again those that call one whose start has changed. */
static void settle(struct check *c)
{
    uint32_t n_rules = c->p->n_rules, head = 0, n = n_rules;
    for (uint32_t r = 0; r < n_rules; r++) {
        c->queue[r] = n_rules - 1 - r;
        c->is_queued[r] = 1;
    }
    while (n && maker_goes_on(c->m)) {
        uint32_t rule = c->queue[head];
        head = (head + 1) % n_rules;
        n--;
        c->is_queued[rule] = 0;
        if (!settle_rule(c, rule))
            continue;
        for (uint32_t i = c->first[rule]; i < c->first[rule + 1]; i++) {
            uint32_t caller = c->calls[i];
            if (c->is_queued[caller])
                continue;
            c->is_queued[caller] = 1;
            c->queue[(head + n++) % n_rules] = caller;
        }
    }
}

static void group_calls(struct check *c)
{
    const struct program *p = c->p;
    for (uint32_t i = 0; i < p->n_nodes; i++)
        if (p->nodes[i].kind == NODE_CALL)
            c->first[p->nodes[i].a + 1]++;
    for (uint32_t r = 0; r < p->n_rules; r++)
        c->first[r + 1] += c->first[r];
    for (uint32_t r = p->n_rules; r-- > 0;)
        for (uint32_t i = c->begins[r]; i < c->begins[r + 1]; i++)
            if (p->nodes[i].kind == NODE_CALL)
                c->calls[c->first[p->nodes[i].a]++] = r;
    for (uint32_t r = p->n_rules; r > 0; r--) /* they have moved on by their counts */
        c->first[r] = c->first[r - 1];
    c->first[0] = 0;
}

/* ---- rules that begin with themselves */

/* A walk over what a rule can call first, as a stack of its own: rules may be nested by the thousand. */
struct left {
    const struct check *c;
    uint8_t *colours;            /* [n_rules] 0: new, 1: on the way, 2: done */
    uint32_t *seen;              /* [n_nodes] by which rule's walk, + 1 */
    uint32_t *nodes;             /* [n_nodes] to look at */
    uint32_t *callees, *n_first; /* found, a stack; [n_rules] where each open rule's begin */
    uint32_t *open;              /* [n_rules] the way */
    uint32_t n_callees, callees_capacity;
};

/* The rules that `rule` can call before a byte. */
static bool push_callees(struct left *l, uint32_t rule)
{
    const struct program *p = l->c->p;
    uint32_t n = 0;
    l->nodes[n++] = p->starts[rule];
    l->seen[p->starts[rule]] = rule + 1;
    while (n) {
        const struct node *x = &p->nodes[l->nodes[--n]];
        uint32_t ways[2], n_ways = 0;
        if (x->kind == NODE_SPLIT) {
            ways[n_ways++] = x->a;
            ways[n_ways++] = x->b;
        } else if (x->kind == NODE_CALL) {
            if (l->n_callees == l->callees_capacity)
                return false;
            l->callees[l->n_callees++] = x->a;
            if (l->c->empties[p->starts[x->a]])
                ways[n_ways++] = x->b;
        }
        for (uint32_t i = 0; i < n_ways; i++) {
            if (l->seen[ways[i]] == rule + 1)
                continue;
            l->seen[ways[i]] = rule + 1;
            l->nodes[n++] = ways[i];
        }
    }
    return true;
}

static void walk_left(struct left *l, uint32_t root)
{
    struct maker *m = l->c->m;
    uint32_t n_open = 0;
    l->open[n_open++] = root;
    l->colours[root] = 1;
    l->n_first[0] = l->n_callees = 0;
    bool fine = push_callees(l, root);
    while (n_open && fine) {
        if (l->n_callees == l->n_first[n_open - 1]) {
            l->colours[l->open[--n_open]] = 2;
            continue;
        }
        uint32_t next = l->callees[--l->n_callees];
        if (l->colours[next] == 1)
            maker_fail(m, STATUS_UNSUPPORTED,
                       "a rule begins with itself (left recursion), in GBNF or as a $ref: let it read "
                       "something first");
        if (l->colours[next] != 0)
            fine = m->status == STATUS_OK;
        if (l->colours[next] != 0)
            continue;
        l->colours[next] = 1;
        l->n_first[n_open] = l->n_callees;
        l->open[n_open++] = next;
        fine = push_callees(l, next);
    }
    if (!fine && m->status == STATUS_OK)
        maker_fail(m, STATUS_TOO_LARGE, "the grammar's rules call each other in too many ways");
}

static void check_left(const struct check *c)
{
    const struct program *p = c->p;
    struct left l = {.c = c,
                     .colours = mem_array(p->n_rules, 1),
                     .seen = mem_array(p->n_nodes, sizeof(uint32_t)),
                     .nodes = mem_array(p->n_nodes, sizeof(uint32_t)),
                     .callees_capacity = p->n_nodes,
                     .callees = mem_array(p->n_nodes, sizeof(uint32_t)),
                     .n_first = mem_array(p->n_rules + 1, sizeof(uint32_t)),
                     .open = mem_array(p->n_rules + 1, sizeof(uint32_t))};
    bool whole = l.colours && l.seen && l.nodes && l.callees && l.n_first && l.open;
    if (!whole)
        maker_fail(c->m, STATUS_NO_MEMORY, "no memory for a grammar");
    for (uint32_t r = 0; whole && r < p->n_rules && maker_goes_on(c->m); r++)
        if (!l.colours[r])
            walk_left(&l, r);
    mem_free(l.colours);
    mem_free(l.seen);
    mem_free(l.nodes);
    mem_free(l.callees);
    mem_free(l.n_first);
    mem_free(l.open);
}

/* ---- all */

void program_check(struct maker *m, struct program *p)
{
    uint32_t n_calls = 0;
    for (uint32_t i = 0; i < p->n_nodes; i++)
        n_calls += p->nodes[i].kind == NODE_CALL;
    struct check c = {.m = m,
                      .p = p,
                      .empties = mem_array(p->n_nodes, 1),
                      .begins = mem_array(p->n_rules + 1, sizeof(uint32_t)),
                      .calls = mem_array(n_calls + 1, sizeof(uint32_t)),
                      .first = mem_array(p->n_rules + 1, sizeof(uint32_t)),
                      .queue = mem_array(p->n_rules, sizeof(uint32_t)),
                      .is_queued = mem_array(p->n_rules, 1)};
    p->depths = mem_array(p->n_nodes, sizeof *p->depths);
    if (!c.empties || !c.begins || !c.calls || !c.first || !c.queue || !c.is_queued || !p->depths) {
        maker_fail(m, STATUS_NO_MEMORY, "no memory for a grammar");
    } else {
        memcpy(c.begins + 1, p->ends, p->n_rules * sizeof *p->ends);
        memset(p->depths, 0xff, p->n_nodes * sizeof *p->depths);
        p->depths[END_NODE] = 0; /* a rule may begin with these two, which are rule 0's */
        c.empties[END_NODE] = 1;
        group_calls(&c);
        settle(&c);
    }
    if (m->status == STATUS_OK && p->depths && p->depths[p->starts[0]] > GRAMMAR_FRAMES_MAX)
        maker_fail(m, STATUS_INVALID,
                   p->depths[p->starts[0]] == UNREACHABLE ? "nothing matches: no text can follow it"
                                                          : "its rules are nested deeper than a text may be");
    if (m->status == STATUS_OK)
        check_left(&c);
    mem_free(c.empties);
    mem_free(c.begins);
    mem_free(c.calls);
    mem_free(c.first);
    mem_free(c.queue);
    mem_free(c.is_queued);
}
