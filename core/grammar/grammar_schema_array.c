/* Arrays of a schema. */
#include <stdio.h>
#include <string.h>

#include "grammar_json.h"

struct elements {
    const json_t *prefix; /* schemas of the first ones */
    size_t n_prefix;
    const json_t *schema;      /* of those behind, or NULL */
    const struct expr *others; /* of those behind; EXPR_NEVER: there are none */
    uint64_t least, most;
};

static void read_elements(struct schema *sc, const json_t *s, struct elements *e)
{
    const json_t *items = json_object_get(s, "items"), *others = items;
    if (!items)
        others = json_object_get(s, UNEVALUATED_ITEMS);
    e->prefix = json_object_get(s, "prefixItems");
    if (json_is_array(items)) { /* as draft 7 had it */
        e->prefix = items;
        others = json_object_get(s, "additionalItems");
    }
    e->schema = others;
    if (e->prefix && !json_is_array(e->prefix))
        schema_fail(sc, STATUS_INVALID, "\"prefixItems\" must be an array of schemas");
    e->n_prefix = json_array_size(e->prefix);
    e->most = UINT64_MAX;
    schema_count(sc, s, "minItems", &e->least);
    schema_count(sc, s, "maxItems", &e->most);
    size_t before = schema_enter(sc, "items", NULL);
    e->others = expr_never();
    if (others && e->most > e->n_prefix)
        e->others = schema_rule(sc, others);
    else if (!others && e->n_prefix == 0)
        e->others = jx_value(sc->m, &sc->json);
    schema_leave(sc, before);
    if (e->others->kind == EXPR_NEVER && e->most > e->n_prefix)
        e->most = e->n_prefix;
}

static uint64_t above(uint64_t n, uint64_t floor)
{
    return n > floor ? n - floor : 0;
}

/* Those behind the first n, each behind a comma. */
static const struct expr *others_behind(struct schema *sc, const struct elements *e, size_t n)
{
    uint32_t max = e->most == UINT64_MAX ? REPEAT_FOREVER : schema_repeats(above(e->most, n));
    const struct expr *one = expr_seq2(sc->m, jx_comma(sc->m, &sc->json), e->others);
    return expr_repeat(sc->m, one, schema_repeats(above(e->least, n)), max);
}

/* ---- contains */

#define GRID_MAX 4096U /* states of the two counters */

/* How many elements came, and how many of them match: each pair is a rule, and ends with a call of the next.
 * A count that nobody asks for further stays where it is. */
struct grid {
    struct schema *sc;
    const struct elements *e;
    const json_t *contains, *outside; /* outside: NULL where more matches than are counted may come */
    uint64_t least, most;             /* matches */
    size_t n_elements, n_matches;     /* where the counts stop */
    uint32_t *rules;                  /* [n_elements + 1, n_matches + 1] */
};

static uint32_t *cell(const struct grid *g, size_t i, size_t k)
{
    i = i < g->n_elements ? i : g->n_elements;
    k = k < g->n_matches ? k : g->n_matches;
    return &g->rules[i * (g->n_matches + 1) + k];
}

/* An element of number i that is `also`, too. */
static const struct expr *element(struct grid *g, size_t i, const json_t *also)
{
    const json_t *own = i < g->e->n_prefix ? json_array_get(g->e->prefix, i) : g->e->schema;
    if (own && also)
        also = schema_merge(g->sc, own, also);
    else if (own)
        also = own;
    return also ? schema_rule(g->sc, also) : jx_value(g->sc->m, &g->sc->json);
}

static const struct expr *cell_expr(struct grid *g, size_t i, size_t k)
{
    struct maker *m = g->sc->m;
    struct expr_list ways = {0};
    const struct expr *comma = i ? jx_comma(m, &g->sc->json) : expr_empty();
    if (i >= g->e->least && k >= g->least)
        list_add(m, &ways, expr_empty());
    if (i < g->e->most) {
        const struct expr *plain = element(g, i, g->outside), *match = element(g, i, g->contains);
        list_add(m, &ways, expr_seq2(m, comma, expr_seq2(m, plain, expr_call(m, *cell(g, i + 1, k)))));
        if (k < g->most)
            list_add(m, &ways,
                     expr_seq2(m, comma, expr_seq2(m, match, expr_call(m, *cell(g, i + 1, k + 1)))));
    }
    return expr_alt(m, &ways);
}

static bool read_grid(struct grid *g, const json_t *s)
{
    struct schema *sc = g->sc;
    g->contains = json_object_get(s, "contains");
    g->least = 1;
    g->most = UINT64_MAX;
    schema_count(sc, s, "minContains", &g->least);
    bool has_most = schema_count(sc, s, "maxContains", &g->most);
    if (json_object_get(s, UNEVALUATED_ITEMS) && !json_object_get(s, "items"))
        schema_fail(sc, STATUS_UNSUPPORTED, "\"unevaluatedItems\" beside \"contains\" is not supported");
    if (has_most)
        g->outside = schema_keep(sc, schema_opposite(sc, g->contains, "maxContains"));
    uint64_t n_elements = g->e->most != UINT64_MAX ? g->e->most : g->e->least;
    if (g->e->most == UINT64_MAX && n_elements < g->e->n_prefix)
        n_elements = g->e->n_prefix;
    uint64_t n_matches = has_most ? g->most : g->least;
    n_elements += n_elements == 0; /* the first one has no comma before it */
    if (n_elements > GRID_MAX || n_matches > GRID_MAX || (n_elements + 1) * (n_matches + 1) > GRID_MAX)
        schema_fail(sc, STATUS_TOO_LARGE, "\"contains\" counts too far beside minItems and maxItems");
    g->n_elements = (size_t)n_elements;
    g->n_matches = (size_t)n_matches;
    return sc->m->status == STATUS_OK;
}

static const struct expr *counted_items(struct schema *sc, const json_t *s, const struct elements *e)
{
    struct maker *m = sc->m;
    struct grid g = {.sc = sc, .e = e};
    if (m->status != STATUS_OK || !read_grid(&g, s))
        return expr_never();
    size_t n = (g.n_elements + 1) * (g.n_matches + 1);
    g.rules = maker_alloc(m, n * sizeof *g.rules);
    for (size_t i = 0; i < n && g.rules; i++)
        g.rules[i] = rule_new(m, NULL);
    for (size_t i = 0; i <= g.n_elements && maker_goes_on(m); i++)
        for (size_t k = 0; k <= g.n_matches; k++)
            rule_define(m, *cell(&g, i, k), cell_expr(&g, i, k));
    if (m->status != STATUS_OK)
        return expr_never();
    return jx_bracketed(m, &sc->json, "[", expr_call(m, *cell(&g, 0, 0)), "]");
}

/* ---- uniqueItems */

#define UNIQUE_MAX 10U /* different elements; each set of them is a rule */

static const json_t *constants_of(struct schema *sc, const json_t *s)
{
    const json_t *list = json_object_get(s, "enum"), *type = json_object_get(s, "type");
    const char *name = json_string_value(type);
    if (json_is_array(list))
        return list;
    if (name && strcmp(name, "boolean") == 0)
        return schema_keep(sc, json_pack("[b,b]", true, false));
    return NULL;
}

/* All sets of the constants that came, each a rule. */
static const struct expr *unique_sets(struct schema *sc, const struct elements *e, const struct expr **values,
                                      uint32_t n)
{
    struct maker *m = sc->m;
    uint32_t first = 0;
    for (uint32_t set = 0; set < 1U << n; set++) {
        uint32_t rule = rule_new(m, NULL);
        first = set ? first : rule;
    }
    for (uint32_t set = 0; set < 1U << n && maker_goes_on(m); set++) {
        struct expr_list ways = {0};
        uint32_t count = (uint32_t)__builtin_popcount(set);
        if (count >= e->least)
            list_add(m, &ways, expr_empty());
        for (uint32_t i = 0; i < n && count < e->most; i++) {
            const struct expr *next = set >> i & 1 ? expr_never() : expr_call(m, first + (set | 1U << i));
            const struct expr *comma = set ? jx_comma(m, &sc->json) : expr_empty();
            list_add(m, &ways, expr_seq2(m, comma, expr_seq2(m, values[i], next)));
        }
        rule_define(m, first + set, expr_alt(m, &ways));
    }
    return m->status == STATUS_OK ? expr_call(m, first) : expr_never();
}

static const struct expr *unique_items(struct schema *sc, const json_t *s, const struct elements *e)
{
    const struct expr *values[UNIQUE_MAX];
    const json_t *items = e->schema ? schema_resolve(sc, e->schema) : NULL;
    const json_t *list = items && !e->n_prefix ? constants_of(sc, items) : NULL;
    uint32_t n = 0;
    if (!list || json_array_size(list) > UNIQUE_MAX || json_object_get(s, "contains"))
        schema_fail(sc, STATUS_UNSUPPORTED,
                    "\"uniqueItems\" is supported where items is an enum of up to %u constants", UNIQUE_MAX);
    for (size_t i = 0; i < json_array_size(list) && sc->m->status == STATUS_OK; i++) {
        const json_t *v = json_array_get(list, i);
        bool again = !schema_fits(sc, items, v);
        for (size_t k = 0; k < i && !again; k++)
            again = schema_equal(json_array_get(list, k), v);
        if (!again)
            values[n++] = schema_constant(sc, v);
    }
    if (sc->m->status != STATUS_OK)
        return expr_never();
    return jx_bracketed(sc->m, &sc->json, "[", unique_sets(sc, e, values, n), "]");
}

/* ---- all */

const struct expr *schema_array(struct schema *sc, const json_t *s)
{
    struct maker *m = sc->m;
    struct elements e = {0};
    char number[24];
    read_elements(sc, s, &e);
    if (json_is_true(json_object_get(s, "uniqueItems")) && e.most > 1)
        return unique_items(sc, s, &e);
    if (json_object_get(s, "contains"))
        return counted_items(sc, s, &e);
    if (m->status != STATUS_OK || e.least > e.most)
        return expr_never();
    const struct expr *inner;
    if (e.n_prefix == 0) {
        inner = e.most ? expr_seq2(m, e.others, others_behind(sc, &e, 1)) : expr_empty();
        if (e.least == 0)
            inner = expr_repeat(m, inner, 0, 1);
        return jx_bracketed(m, &sc->json, "[", inner, "]");
    }
    inner = e.most > e.n_prefix ? others_behind(sc, &e, e.n_prefix) : expr_empty();
    for (size_t i = e.n_prefix; i-- > 0 && m->status == STATUS_OK;) {
        if (i >= e.most) {
            inner = expr_empty();
            continue;
        }
        snprintf(number, sizeof number, "%zu", i);
        size_t before = schema_enter(sc, "prefixItems", number);
        inner = expr_seq2(m, schema_rule(sc, json_array_get(e.prefix, i)), inner);
        schema_leave(sc, before);
        if (i > 0)
            inner = expr_seq2(m, jx_comma(m, &sc->json), inner);
        if (i >= e.least)
            inner = expr_repeat(m, inner, 0, 1);
    }
    return jx_bracketed(m, &sc->json, "[", inner, "]");
}
