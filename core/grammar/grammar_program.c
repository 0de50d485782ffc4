/* Expressions into nodes. A node is made after the one that follows it, so each knows where it leads; loops
 * alone are closed afterwards.
 *
 *   BYTE set ─▶ next      reads a byte of the set
 *   SPLIT a, b            goes both ways
 *   CALL rule ─▶ next     the rule, then next; where next is END nothing is left to come back to, so that
 *                         rules which end in themselves need no frames
 *   END                   of the rule
 *
 * Repetitions are copies: of one node where the part is one, else of a call to a rule of its own. */
#include <string.h>

#include "base/mem.h"
#include "grammar_inner.h"

struct emitter {
    struct maker *m;
    struct program *p;
};

static uint32_t fail_node(struct emitter *e, const char *what, uint32_t limit)
{
    maker_fail(e->m, STATUS_TOO_LARGE,
               "the grammar needs more than %u %s: repeat less, or ask for a smaller maximum", limit, what);
    return FAIL_NODE;
}

static uint32_t node_new(struct emitter *e, enum node_kind kind, uint32_t a, uint32_t b)
{
    struct program *p = e->p;
    if (p->n_nodes == NODES_MAX)
        return fail_node(e, "automaton nodes", NODES_MAX);
    if (p->n_nodes == p->nodes_capacity) {
        uint32_t capacity = p->nodes_capacity ? 2 * p->nodes_capacity : 256;
        struct node *nodes = mem_realloc(p->nodes, capacity * sizeof *nodes);
        if (!nodes) {
            maker_fail(e->m, STATUS_NO_MEMORY, "no memory for a grammar");
            return FAIL_NODE;
        }
        p->nodes = nodes;
        p->nodes_capacity = capacity;
    }
    if (p->n_nodes % 1024 == 0 && !maker_goes_on(e->m))
        return FAIL_NODE;
    p->nodes[p->n_nodes] = (struct node){.kind = kind, .a = a, .b = b};
    return p->n_nodes++;
}

static uint32_t set_of(struct emitter *e, const struct byte_set *set)
{
    struct program *p = e->p;
    uint32_t from = p->n_sets > 512 ? p->n_sets - 512 : 0; /* far back ones may be there twice: no harm */
    for (uint32_t i = p->n_sets; i-- > from;)
        if (memcmp(&p->sets[i], set, sizeof *set) == 0)
            return i;
    if (p->n_sets == p->sets_capacity) {
        uint32_t capacity = p->sets_capacity ? 2 * p->sets_capacity : 64;
        struct byte_set *sets = mem_realloc(p->sets, capacity * sizeof *sets);
        if (!sets) {
            maker_fail(e->m, STATUS_NO_MEMORY, "no memory for a grammar");
            return 0;
        }
        p->sets = sets;
        p->sets_capacity = capacity;
    }
    p->sets[p->n_sets] = *set;
    return p->n_sets++;
}

static uint32_t emit(struct emitter *e, const struct expr *x, uint32_t next);

static uint32_t emit_bytes(struct emitter *e, const struct expr *x, uint32_t next)
{
    for (uint32_t i = x->n; i-- > 0;) {
        struct byte_set set = {{0}};
        set_add_range(&set, x->bytes[i], x->bytes[i]);
        next = node_new(e, NODE_BYTE, set_of(e, &set), next);
    }
    return next;
}

static uint32_t emit_alt(struct emitter *e, const struct expr *x, uint32_t next)
{
    uint32_t ways = FAIL_NODE;
    for (uint32_t i = x->n; i-- > 0;) {
        uint32_t way = emit(e, x->items[i], next);
        ways = ways == FAIL_NODE ? way : node_new(e, NODE_SPLIT, way, ways);
    }
    return ways;
}

static bool is_one_node(const struct expr *x)
{
    return x->kind == EXPR_SET || x->kind == EXPR_CALL || (x->kind == EXPR_BYTES && x->n <= 1);
}

static uint32_t emit_repeat(struct emitter *e, const struct expr *x, uint32_t next)
{
    const struct expr *part = x->child;
    bool forever = x->max == REPEAT_FOREVER;
    uint32_t n_copies = forever ? x->min : x->max, at = next;
    if (n_copies > NODES_MAX)
        return fail_node(e, "automaton nodes", NODES_MAX);
    if (n_copies > 1 && !is_one_node(part))
        part = expr_call(e->m, rule_new(e->m, part));
    if (forever) {
        at = node_new(e, NODE_SPLIT, FAIL_NODE, next);
        uint32_t body = emit(e, part, at);
        if (at != FAIL_NODE)
            e->p->nodes[at].a = body;
    }
    for (uint32_t i = forever ? 0 : x->max - x->min; i > 0 && e->m->status == STATUS_OK; i--)
        at = node_new(e, NODE_SPLIT, emit(e, part, at), next);
    for (uint32_t i = 0; i < x->min && e->m->status == STATUS_OK; i++)
        at = emit(e, part, at);
    return at;
}

static uint32_t emit(struct emitter *e, const struct expr *x, uint32_t next)
{
    if (e->m->status != STATUS_OK)
        return FAIL_NODE;
    switch (x->kind) {
    case EXPR_NEVER:
        return FAIL_NODE;
    case EXPR_BYTES:
        return emit_bytes(e, x, next);
    case EXPR_SET:
        return node_new(e, NODE_BYTE, set_of(e, &x->set), next);
    case EXPR_SEQ:
        for (uint32_t i = x->n; i-- > 0;)
            next = emit(e, x->items[i], next);
        return next;
    case EXPR_ALT:
        return emit_alt(e, x, next);
    case EXPR_REPEAT:
        return emit_repeat(e, x, next);
    case EXPR_CALL:
        return node_new(e, NODE_CALL, x->rule, next);
    }
    return FAIL_NODE;
}

/* Bytes that no set tells apart are one class: rows of states are that much shorter. */
static void find_classes(struct program *p)
{
    memset(p->class_of, 0, sizeof p->class_of);
    p->n_classes = 1;
    for (uint32_t s = 0; s < p->n_sets; s++) {
        int16_t with[256], n_with[256] = {0}, n_all[256] = {0};
        for (unsigned b = 0; b < 256; b++) {
            n_all[p->class_of[b]]++;
            n_with[p->class_of[b]] += set_has(&p->sets[s], b);
        }
        uint32_t n = p->n_classes;
        for (unsigned c = 0; c < n; c++)
            with[c] = (int16_t)(n_with[c] && n_with[c] < n_all[c] ? p->n_classes++ : c);
        for (unsigned b = 0; b < 256; b++)
            if (set_has(&p->sets[s], b))
                p->class_of[b] = (uint8_t)with[p->class_of[b]];
    }
    for (unsigned b = 256; b-- > 0;)
        p->class_byte[p->class_of[b]] = (uint8_t)b;
}

static bool grow(uint32_t **numbers, uint32_t capacity)
{
    uint32_t *more = mem_realloc(*numbers, capacity * sizeof *more);
    if (more)
        *numbers = more;
    return more != NULL;
}

enum status program_create(struct maker *m, uint32_t root, struct program *p)
{
    struct emitter e = {m, p};
    struct expr calls_root = {.kind = EXPR_CALL, .rule = root};
    *p = (struct program){0};
    node_new(&e, NODE_END, 0, 0);
    node_new(&e, NODE_FAIL, 0, 0);
    /* Rules may be added while others are emitted. Number 0 of the program calls the root. */
    uint32_t capacity = 0;
    for (uint32_t r = 0; m->status == STATUS_OK && r <= m->n_rules; r++) {
        if (r == capacity) {
            capacity = capacity ? 2 * capacity : m->n_rules + 1;
            if (!grow(&p->starts, capacity) || !grow(&p->ends, capacity)) {
                maker_fail(m, STATUS_NO_MEMORY, "no memory for a grammar");
                break;
            }
        }
        const struct expr *body = r ? m->rules[r - 1].body : &calls_root;
        p->starts[r] = emit(&e, body ? body : expr_never(), END_NODE);
        p->ends[r] = p->n_nodes;
        p->n_rules = r + 1;
    }
    for (uint32_t i = 0; i < p->n_nodes; i++)
        if (p->nodes[i].kind == NODE_CALL)
            p->nodes[i].a++;
    if (m->status == STATUS_OK) {
        find_classes(p);
        program_check(m, p);
    }
    if (m->status != STATUS_OK)
        program_fini(p);
    return m->status;
}

void program_fini(struct program *p)
{
    mem_free(p->nodes);
    mem_free(p->depths);
    mem_free(p->sets);
    mem_free(p->starts);
    mem_free(p->ends);
    *p = (struct program){0};
}

size_t program_bytes(const struct program *p)
{
    return p->nodes_capacity * sizeof *p->nodes + p->n_nodes * sizeof *p->depths +
           p->sets_capacity * sizeof *p->sets + 2 * p->n_rules * sizeof *p->starts;
}
