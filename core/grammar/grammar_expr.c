/* Expressions: what all front ends build. They share parts freely, since nothing changes once it is made; all
 * memory is the arena's, with a limit, and their number has one too. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "grammar_inner.h"

#define ARENA_BYTES_MAX ((size_t)64 << 20)
#define COMPILE_NS (2 * NS_PER_S)
#define CLOCK_EVERY 256U

enum status maker_init(struct maker *m, struct error *err)
{
    *m = (struct maker){
        .arena = arena_create(ARENA_BYTES_MAX), .deadline_ns = clock_now_ns() + COMPILE_NS, .err = err};
    if (!m->arena)
        maker_fail(m, STATUS_NO_MEMORY, "no memory to compile a grammar");
    return m->status;
}

void maker_fini(struct maker *m)
{
    arena_destroy(m->arena);
    m->arena = NULL;
}

void maker_fail(struct maker *m, enum status s, const char *format, ...)
{
    va_list args;
    if (m->status != STATUS_OK)
        return;
    va_start(args, format);
    m->status = vfail(m->err, s, format, args);
    va_end(args);
}

bool maker_goes_on(struct maker *m)
{
    if (m->status == STATUS_OK && clock_now_ns() > m->deadline_ns)
        maker_fail(m, STATUS_TOO_LARGE, "the grammar takes longer than %d s to compile",
                   (int)(COMPILE_NS / NS_PER_S));
    return m->status == STATUS_OK;
}

void *maker_alloc(struct maker *m, size_t size_bytes)
{
    void *p = m->status == STATUS_OK ? arena_alloc(m->arena, size_bytes) : NULL;
    if (!p)
        maker_fail(m, STATUS_TOO_LARGE, "the grammar needs more than %zu MiB while it is compiled",
                   ARENA_BYTES_MAX >> 20);
    return p;
}

const struct expr *expr_never(void)
{
    static const struct expr never = {.kind = EXPR_NEVER};
    return &never;
}

const struct expr *expr_empty(void)
{
    static const struct expr empty = {.kind = EXPR_BYTES};
    return &empty;
}

/* NULL after a failure. */
static struct expr *expr_new(struct maker *m, enum expr_kind kind)
{
    if (++m->n_exprs > EXPRS_MAX)
        maker_fail(m, STATUS_TOO_LARGE, "the grammar has more than %u parts", EXPRS_MAX);
    if (m->n_exprs % CLOCK_EVERY == 0 && !maker_goes_on(m))
        return NULL;
    struct expr *x = maker_alloc(m, sizeof *x);
    if (x)
        x->kind = kind;
    return x;
}

const struct expr *expr_bytes(struct maker *m, const void *bytes, size_t n)
{
    if (n == 0)
        return expr_empty();
    struct expr *x = expr_new(m, EXPR_BYTES);
    uint8_t *copy = maker_alloc(m, n);
    if (!x || !copy)
        return expr_never();
    memcpy(copy, bytes, n);
    x->bytes = copy;
    x->n = (uint32_t)n;
    return x;
}

const struct expr *expr_text(struct maker *m, const char *text)
{
    return expr_bytes(m, text, strlen(text));
}

const struct expr *expr_set(struct maker *m, const struct byte_set *set)
{
    if (!(set->bits[0] | set->bits[1] | set->bits[2] | set->bits[3]))
        return expr_never();
    struct expr *x = expr_new(m, EXPR_SET);
    if (!x)
        return expr_never();
    x->set = *set;
    return x;
}

const struct expr *expr_call(struct maker *m, uint32_t rule)
{
    struct expr *x = expr_new(m, EXPR_CALL);
    if (!x)
        return expr_never();
    x->rule = rule;
    return x;
}

const struct expr *expr_repeat(struct maker *m, const struct expr *x, uint32_t min, uint32_t max)
{
    if (max == 0 || (x->kind == EXPR_NEVER && min == 0))
        return expr_empty();
    if ((min == 1 && max == 1) || x->kind == EXPR_NEVER)
        return x;
    struct expr *r = expr_new(m, EXPR_REPEAT);
    if (!r)
        return expr_never();
    r->child = x;
    r->min = min;
    r->max = max;
    return r;
}

void list_add(struct maker *m, struct expr_list *l, const struct expr *x)
{
    if (l->n == l->capacity) {
        uint32_t capacity = l->capacity ? 2 * l->capacity : 4;
        const struct expr **items = maker_alloc(m, capacity * sizeof(struct expr *));
        if (!items)
            return;
        if (l->n)
            memcpy(items, l->items, l->n * sizeof(struct expr *));
        l->items = items;
        l->capacity = capacity;
    }
    l->items[l->n++] = x;
}

static const struct expr *expr_of_list(struct maker *m, const struct expr_list *l, enum expr_kind kind)
{
    struct expr *x = expr_new(m, kind);
    if (!x)
        return expr_never();
    x->items = l->items;
    x->n = l->n;
    return x;
}

const struct expr *expr_seq(struct maker *m, const struct expr_list *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (l->items[i]->kind == EXPR_NEVER)
            return expr_never();
    return l->n == 0 ? expr_empty() : l->n == 1 ? l->items[0] : expr_of_list(m, l, EXPR_SEQ);
}

const struct expr *expr_alt(struct maker *m, const struct expr_list *l)
{
    struct expr_list some = {0};
    for (uint32_t i = 0; i < l->n; i++)
        if (l->items[i]->kind != EXPR_NEVER)
            list_add(m, &some, l->items[i]);
    return some.n == 0 ? expr_never() : some.n == 1 ? some.items[0] : expr_of_list(m, &some, EXPR_ALT);
}

const struct expr *expr_seq2(struct maker *m, const struct expr *a, const struct expr *b)
{
    struct expr_list l = {0};
    list_add(m, &l, a);
    list_add(m, &l, b);
    return expr_seq(m, &l);
}

const struct expr *expr_alt2(struct maker *m, const struct expr *a, const struct expr *b)
{
    struct expr_list l = {0};
    list_add(m, &l, a);
    list_add(m, &l, b);
    return expr_alt(m, &l);
}

/* ---- one of many texts */

static int compare_texts(const void *a, const void *b)
{
    const struct text_slice *x = a, *y = b;
    size_t n = x->length < y->length ? x->length : y->length;
    int c = n ? memcmp(x->text, y->text, n) : 0;
    return c ? c : (x->length > y->length) - (x->length < y->length);
}

/* Sorted texts that begin alike for `from` bytes. One level of recursion a branching; n levels need texts of
 * n * n / 2 bytes, so the bound on the source bounds it (362). */
static const struct expr *tree_of(struct maker *m, const struct text_slice *texts, uint32_t n, size_t from)
{
    if (n == 1)
        return expr_bytes(m, texts[0].text + from, texts[0].length - from);
    size_t shared = from;
    while (shared < texts[0].length && shared < texts[n - 1].length &&
           texts[0].text[shared] == texts[n - 1].text[shared])
        shared++;
    struct expr_list ways = {0};
    uint32_t i = 0;
    for (; i < n && texts[i].length == shared; i++)
        if (ways.n == 0)
            list_add(m, &ways, expr_empty());
    while (i < n && m->status == STATUS_OK) {
        uint32_t end = i + 1;
        while (end < n && texts[end].text[shared] == texts[i].text[shared])
            end++;
        list_add(m, &ways, tree_of(m, texts + i, end - i, shared));
        i = end;
    }
    const struct expr *rest = expr_alt(m, &ways);
    return shared == from ? rest : expr_seq2(m, expr_bytes(m, texts[0].text + from, shared - from), rest);
}

const struct expr *expr_any_text(struct maker *m, struct text_slice *texts, uint32_t n)
{
    if (n == 0)
        return expr_never();
    qsort(texts, n, sizeof *texts, compare_texts);
    return tree_of(m, texts, n, 0);
}

/* ---- rules */

uint32_t rule_new(struct maker *m, const struct expr *body)
{
    if (m->n_rules == RULES_MAX)
        maker_fail(m, STATUS_TOO_LARGE, "the grammar has more than %u rules", RULES_MAX);
    if (m->n_rules == m->rules_capacity) {
        uint32_t capacity = m->rules_capacity ? 2 * m->rules_capacity : 64;
        struct rule *rules = maker_alloc(m, capacity * sizeof *rules);
        if (!rules)
            return 0;
        if (m->n_rules)
            memcpy(rules, m->rules, m->n_rules * sizeof *rules);
        m->rules = rules;
        m->rules_capacity = capacity;
    }
    m->rules[m->n_rules].body = body;
    return m->n_rules++;
}

void rule_define(struct maker *m, uint32_t rule, const struct expr *body)
{
    if (m->status == STATUS_OK)
        m->rules[rule].body = body;
}
