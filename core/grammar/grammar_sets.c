/* Texts that two expressions have in common, or that one has and another hasn't. Both are read side by side:
 *
 *   expression ─▶ nodes (no calls that end in themselves) ─▶ sets of nodes, made when met ─▶ pairs of sets
 *
 * Each pair is a rule that ends with a call of the next, so nothing nests while the text is read. Sets and
 * pairs are bounded; what needs more is refused by whoever asked. */
#include <string.h>

#include "grammar_inner.h"

#define SET_NODES_MAX 20000U
#define SETS_MAX 4096U
#define PAIRS_MAX 4096U
#define CALLS_DEEP 24U
#define NO_SET UINT32_MAX

enum set_node_kind { SET_END, SET_BYTE, SET_SPLIT };
struct set_node {
    enum set_node_kind kind;
    uint32_t a, b; /* BYTE: a follows; SPLIT: both */
    struct byte_set set;
};

struct node_set {
    const uint32_t *nodes; /* BYTE and END nodes, sorted */
    uint32_t n;
    uint32_t *next; /* [n_classes] NO_SET: not made yet */
    bool accepts;
};

/* One side. Set 0 is the empty one, from which nothing is accepted. */
struct side {
    struct maker *m;
    struct set_node *nodes;
    uint32_t n_nodes, nodes_capacity;
    uint32_t *ends;    /* [n_rules] the node of a call behind which the text ends, or 0 */
    uint32_t *pending; /* [n_rules] of these, those whose body isn't there yet */
    uint32_t n_pending;
    struct node_set *sets;
    uint32_t n_sets, sets_capacity;
    uint32_t *seen, *todo, *found; /* [n_nodes] of one closure */
    uint32_t stamp;
    const uint8_t *class_byte;
    uint32_t n_classes;
    bool full;
};

/* ---- nodes */

/* Room for one more; doubled when full. NULL after a failure. */
static void *grown(struct maker *m, void *items, uint32_t n, uint32_t *capacity, size_t item_bytes)
{
    if (n < *capacity)
        return items;
    *capacity = *capacity ? 2 * *capacity : 64;
    void *more = maker_alloc(m, *capacity * item_bytes);
    if (more && n)
        memcpy(more, items, n * item_bytes);
    return more;
}

static uint32_t add_node(struct side *s, struct set_node node)
{
    if (!s->full)
        s->nodes = grown(s->m, s->nodes, s->n_nodes, &s->nodes_capacity, sizeof *s->nodes);
    if (s->full || !s->nodes || s->n_nodes == SET_NODES_MAX || !maker_goes_on(s->m)) {
        s->full = true;
        return 0;
    }
    s->nodes[s->n_nodes] = node;
    return s->n_nodes++;
}

/* The first node of x, behind which `then` comes. */
static uint32_t nodes_of(struct side *s, const struct expr *x, uint32_t then, unsigned depth);

static uint32_t nodes_of_bytes(struct side *s, const struct expr *x, uint32_t then)
{
    for (uint32_t i = x->n; i-- > 0 && !s->full;) {
        struct set_node node = {.kind = SET_BYTE, .a = then};
        set_add_range(&node.set, x->bytes[i], x->bytes[i]);
        then = add_node(s, node);
    }
    return then;
}

/* No way on: a byte that none is. */
static uint32_t nowhere(struct side *s)
{
    return add_node(s, (struct set_node){.kind = SET_BYTE});
}

/* A call behind which nothing comes: one node for each rule, so that rules may go round. */
static uint32_t last_call(struct side *s, uint32_t rule)
{
    if (s->ends[rule])
        return s->ends[rule];
    s->ends[rule] = add_node(s, (struct set_node){.kind = SET_SPLIT});
    s->pending[s->n_pending++] = rule;
    return s->ends[rule];
}

static uint32_t nodes_of_repeat(struct side *s, const struct expr *x, uint32_t then, unsigned depth)
{
    uint32_t at = then;
    if (x->max == REPEAT_FOREVER) {
        at = add_node(s, (struct set_node){.kind = SET_SPLIT, .b = then});
        uint32_t first = nodes_of(s, x->child, at, depth);
        if (!s->full)
            s->nodes[at].a = first;
    } else {
        for (uint32_t i = x->min; i < x->max && !s->full; i++)
            at = add_node(
                s, (struct set_node){.kind = SET_SPLIT, .a = nodes_of(s, x->child, at, depth), .b = then});
    }
    for (uint32_t i = 0; i < x->min && !s->full; i++)
        at = nodes_of(s, x->child, at, depth);
    return at;
}

static uint32_t nodes_of(struct side *s, const struct expr *x, uint32_t then, unsigned depth)
{
    uint32_t at = then;
    if (s->full)
        return 0;
    switch (x->kind) {
    case EXPR_NEVER:
        return nowhere(s);
    case EXPR_BYTES:
        return nodes_of_bytes(s, x, then);
    case EXPR_SET:
        return add_node(s, (struct set_node){.kind = SET_BYTE, .a = then, .set = x->set});
    case EXPR_SEQ:
        for (uint32_t i = x->n; i-- > 0;)
            at = nodes_of(s, x->items[i], at, depth);
        return at;
    case EXPR_ALT:
        at = nowhere(s);
        for (uint32_t i = 0; i < x->n; i++)
            at = add_node(
                s, (struct set_node){.kind = SET_SPLIT, .a = nodes_of(s, x->items[i], then, depth), .b = at});
        return at;
    case EXPR_REPEAT:
        return nodes_of_repeat(s, x, then, depth);
    case EXPR_CALL:
        break;
    }
    if (then == 0)
        return last_call(s, x->rule);
    const struct expr *body = s->m->rules[x->rule].body;
    s->full = s->full || !body || depth == CALLS_DEEP;
    return s->full ? 0 : nodes_of(s, body, then, depth + 1);
}

/* ---- sets */

static void see_node(struct side *s, uint32_t node, uint32_t *n_todo)
{
    if (s->seen[node] == s->stamp)
        return;
    s->seen[node] = s->stamp;
    s->todo[(*n_todo)++] = node;
}

/* What the nodes in `todo` lead to without a byte, as a set: found, or made. */
static uint32_t close_set(struct side *s, uint32_t n_todo)
{
    uint32_t n = 0;
    bool accepts = false;
    while (n_todo) {
        uint32_t at = s->todo[--n_todo];
        const struct set_node *x = &s->nodes[at];
        if (x->kind == SET_SPLIT) {
            see_node(s, x->a, &n_todo);
            see_node(s, x->b, &n_todo);
            continue;
        }
        accepts |= x->kind == SET_END;
        uint32_t to = n++;
        for (; to > 0 && s->found[to - 1] > at; to--)
            s->found[to] = s->found[to - 1];
        s->found[to] = at;
    }
    for (uint32_t i = 0; i < s->n_sets; i++)
        if (s->sets[i].n == n && (!n || memcmp(s->sets[i].nodes, s->found, n * sizeof *s->found) == 0))
            return i;
    uint32_t *nodes = maker_alloc(s->m, (n + 1) * sizeof *nodes);
    uint32_t *next = maker_alloc(s->m, s->n_classes * sizeof *next);
    s->sets = grown(s->m, s->sets, s->n_sets, &s->sets_capacity, sizeof *s->sets);
    s->full = s->full || s->n_sets == SETS_MAX || !nodes || !next || !s->sets || !maker_goes_on(s->m);
    if (s->full)
        return 0;
    if (n)
        memcpy(nodes, s->found, n * sizeof *nodes);
    memset(next, 0xff, s->n_classes * sizeof *next);
    s->sets[s->n_sets] = (struct node_set){nodes, n, next, accepts};
    return s->n_sets++;
}

static uint32_t next_set(struct side *s, uint32_t set, uint32_t class)
{
    uint32_t n_todo = 0;
    if (!s->sets) /* after a failure */
        return 0;
    if (s->sets[set].next[class] != NO_SET)
        return s->sets[set].next[class];
    s->stamp++;
    for (uint32_t i = 0; i < s->sets[set].n; i++) {
        const struct set_node *x = &s->nodes[s->sets[set].nodes[i]];
        if (x->kind == SET_BYTE && set_has(&x->set, s->class_byte[class]))
            see_node(s, x->a, &n_todo);
    }
    uint32_t next = close_set(s, n_todo);
    if (!s->full)
        s->sets[set].next[class] = next;
    return next;
}

/* Node 0 is the end. */
static uint32_t read_side(struct side *s, struct maker *m, const struct expr *x)
{
    size_t bytes = (m->n_rules + 1) * sizeof(uint32_t);
    *s = (struct side){.m = m, .ends = maker_alloc(m, bytes), .pending = maker_alloc(m, bytes)};
    s->full = !s->ends || !s->pending;
    if (s->full)
        return 0;
    memset(s->ends, 0, bytes);
    add_node(s, (struct set_node){.kind = SET_END});
    uint32_t first = nodes_of(s, x, 0, 0);
    while (s->n_pending && !s->full) {
        uint32_t rule = s->pending[--s->n_pending];
        const struct expr *body = m->rules[rule].body;
        uint32_t begin = body ? nodes_of(s, body, 0, 0) : 0;
        s->full = s->full || !body;
        if (!s->full)
            s->nodes[s->ends[rule]].a = s->nodes[s->ends[rule]].b = begin;
    }
    return first;
}

/* The set of the first node. */
static uint32_t begin_sets(struct side *s, uint32_t first, const uint8_t *class_byte, uint32_t n_classes)
{
    size_t bytes = (s->n_nodes + 1) * sizeof(uint32_t);
    s->seen = maker_alloc(s->m, bytes);
    s->todo = maker_alloc(s->m, bytes);
    s->found = maker_alloc(s->m, bytes);
    s->full = s->full || !s->seen || !s->todo || !s->found;
    if (s->full)
        return 0;
    memset(s->seen, 0, bytes);
    s->class_byte = class_byte;
    s->n_classes = n_classes;
    (void)close_set(s, 0);
    s->stamp = 1;
    uint32_t n_todo = 0;
    see_node(s, first, &n_todo);
    return close_set(s, n_todo);
}

/* ---- pairs */

struct pair {
    uint32_t a, b, rule;
};
struct pairs {
    struct maker *m;
    struct side a, b;
    bool without; /* what b has isn't wanted */
    uint8_t class_of[256], class_byte[256];
    uint32_t n_classes;
    struct pair *list;
    uint32_t n, capacity;
};

static void split_classes(struct pairs *p, const struct side *s)
{
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        const struct byte_set *set = &s->nodes[i].set;
        uint32_t twin[512], n = p->n_classes;
        if (s->nodes[i].kind != SET_BYTE)
            continue;
        memset(twin, 0xff, sizeof twin);
        for (unsigned byte = 0; byte < 256; byte++) {
            uint32_t key = p->class_of[byte] * 2U + set_has(set, byte);
            bool moves = set_has(set, byte) != set_has(set, p->class_byte[p->class_of[byte]]);
            if (moves && twin[key] == UINT32_MAX) {
                twin[key] = n;
                p->class_byte[n++] = (uint8_t)byte;
            }
            if (moves)
                p->class_of[byte] = (uint8_t)twin[key];
        }
        p->n_classes = n;
    }
}

static uint32_t pair_of(struct pairs *p, uint32_t a, uint32_t b)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (p->list[i].a == a && p->list[i].b == b)
            return i;
    p->list = grown(p->m, p->list, p->n, &p->capacity, sizeof *p->list);
    if (p->n == PAIRS_MAX || !p->list) {
        p->a.full = true;
        return 0;
    }
    p->list[p->n] = (struct pair){a, b, rule_new(p->m, NULL)};
    return p->n++;
}

static const struct expr *pair_expr(struct pairs *p, struct pair at)
{
    struct expr_list ways = {0};
    uint32_t to[256];
    for (uint32_t c = 0; c < p->n_classes; c++) {
        uint32_t a = next_set(&p->a, at.a, c), b = next_set(&p->b, at.b, c);
        bool dead = a == 0 || (b == 0 && !p->without) || p->a.full || p->b.full;
        to[c] = dead ? NO_SET : pair_of(p, a, b);
    }
    for (uint32_t c = 0; c < p->n_classes && maker_goes_on(p->m); c++) {
        struct byte_set set = {{0}};
        bool first = to[c] != NO_SET;
        for (uint32_t k = 0; k < c; k++)
            first = first && to[k] != to[c];
        for (unsigned byte = 0; byte < 256 && first; byte++)
            if (to[p->class_of[byte]] == to[c])
                set_add_range(&set, byte, byte);
        if (first)
            list_add(p->m, &ways,
                     expr_seq2(p->m, expr_set(p->m, &set), expr_call(p->m, p->list[to[c]].rule)));
    }
    if (p->a.sets[at.a].accepts && p->b.sets[at.b].accepts != p->without)
        list_add(p->m, &ways, expr_empty());
    return expr_alt(p->m, &ways);
}

static const struct expr *combine(struct maker *m, const struct expr *a, const struct expr *b, bool without)
{
    struct pairs *p = maker_alloc(m, sizeof *p);
    if (!p)
        return NULL;
    *p = (struct pairs){.m = m, .without = without, .n_classes = 1};
    uint32_t first_a = read_side(&p->a, m, a), first_b = read_side(&p->b, m, b);
    if (p->a.full || p->b.full)
        return NULL;
    split_classes(p, &p->a);
    split_classes(p, &p->b);
    first_a = begin_sets(&p->a, first_a, p->class_byte, p->n_classes);
    first_b = begin_sets(&p->b, first_b, p->class_byte, p->n_classes);
    if (m->status == STATUS_OK && !p->a.full && !p->b.full)
        (void)pair_of(p, first_a, first_b);
    for (uint32_t i = 0; i < p->n && maker_goes_on(m) && !p->a.full && !p->b.full;
         i++) /* the list grows meanwhile */
        rule_define(m, p->list[i].rule, pair_expr(p, p->list[i]));
    if (m->status != STATUS_OK || p->a.full || p->b.full)
        return NULL;
    return expr_call(m, p->list[0].rule);
}

const struct expr *expr_both(struct maker *m, const struct expr *a, const struct expr *b)
{
    return combine(m, a, b, false);
}

const struct expr *expr_without(struct maker *m, const struct expr *a, const struct expr *b)
{
    return combine(m, a, b, true);
}

bool expr_matches(struct maker *m, const struct expr *x, const struct expr *text, bool *known)
{
    struct pairs *p = maker_alloc(m, sizeof *p);
    bool matches = false;
    *known = false;
    if (!p)
        return false;
    *p = (struct pairs){.m = m, .n_classes = 1};
    uint32_t first = read_side(&p->a, m, x), set;
    if (p->a.full || text->kind != EXPR_BYTES)
        return false;
    split_classes(p, &p->a);
    set = begin_sets(&p->a, first, p->class_byte, p->n_classes);
    for (uint32_t i = 0; i < text->n && !p->a.full && m->status == STATUS_OK; i++)
        set = next_set(&p->a, set, p->class_of[text->bytes[i]]);
    *known = !p->a.full && m->status == STATUS_OK;
    if (*known && p->a.sets)
        matches = p->a.sets[set].accepts;
    return matches;
}
