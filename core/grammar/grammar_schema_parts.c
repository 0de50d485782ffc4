/* Objects of a schema. */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "grammar_json.h"

#define PATTERNS_MAX 4U /* of patternProperties: all sets of them are told apart */
#define GRID_MAX 4096U  /* states of members and their count */

struct member {
    const char *name;
    const struct expr *pair; /* "name": value; EXPR_NEVER: it can't be there */
    bool required;
};

struct members {
    struct member *list;
    size_t n, n_required;
    const struct expr *others; /* any further pair; EXPR_NEVER: none */
    uint64_t least, most;
    uint32_t at_least_one; /* 1: some member must come */
};

static const struct expr *pair_of(struct schema *sc, const struct expr *key, const struct expr *value)
{
    struct maker *m = sc->m;
    const struct expr *colon = expr_seq2(m, expr_text(m, ":"), jx_space(m, &sc->json));
    return expr_seq2(m, key, expr_seq2(m, colon, value));
}

static const struct expr *other_key_of(struct schema *sc, const struct members *all)
{
    struct text_slice *names = maker_alloc(sc->m, (all->n + 1) * sizeof *names);
    for (size_t i = 0; i < all->n && names; i++)
        names[i] = (struct text_slice){all->list[i].name, strlen(all->list[i].name)};
    return names ? schema_other_string(sc, names, all->n) : expr_never();
}

/* ---- keys by pattern and by propertyNames */

struct keys {
    const json_t *names; /* propertyNames, or NULL */
    uint32_t n;
    const struct expr *patterns[PATTERNS_MAX]; /* strings with their quotes */
    const char *texts[PATTERNS_MAX];
    const json_t *schemas[PATTERNS_MAX];
};

static const struct expr *key_text(struct maker *m, const char *name)
{
    struct buf quoted;
    const struct expr *x = expr_spelled(m, name, strlen(name), SPELL_JSON);
    if (x->kind != EXPR_BYTES)
        return expr_never();
    buf_init(&quoted, 0);
    buf_putc(&quoted, '"');
    if (x->n)
        buf_append(&quoted, (const char *)x->bytes, x->n);
    buf_putc(&quoted, '"');
    x = quoted.failed ? expr_never() : expr_bytes(m, quoted.data, quoted.length);
    buf_fini(&quoted);
    return x;
}

static void read_keys(struct schema *sc, const json_t *s, struct keys *keys)
{
    const json_t *patterns = json_object_get(s, "patternProperties");
    const char *pattern;
    json_t *value;
    uint64_t n[2];
    keys->names = json_object_get(s, "propertyNames");
    if (patterns && !json_is_object(patterns))
        schema_fail(sc, STATUS_INVALID, "\"patternProperties\" must be an object of schemas");
    if (json_object_size(patterns) > PATTERNS_MAX)
        schema_fail(sc, STATUS_UNSUPPORTED, "\"patternProperties\" is supported with up to %u patterns",
                    PATTERNS_MAX);
    json_object_foreach((json_t *)(uintptr_t)patterns, pattern, value)
    {
        if (sc->m->status != STATUS_OK)
            return;
        keys->schemas[keys->n] = value;
        keys->texts[keys->n] = pattern;
        keys->patterns[keys->n++] =
            jx_quoted(sc->m, schema_pattern(sc, pattern, strlen(pattern), "patternProperties", n));
    }
}

/* `own` (NULL: nothing) and what the patterns say of this name, or `others` where none does. False: a name
 * that can't be there. */
static const json_t *named_schema(struct schema *sc, const struct keys *keys, const char *name,
                                  const json_t *own, const json_t *others)
{
    const struct expr *text = key_text(sc->m, name);
    json_t *value = json_string(name);
    bool fits = !keys->names || schema_fits(sc, keys->names, value), known = true;
    json_decref(value);
    for (uint32_t i = 0; i < keys->n && own != json_false() && sc->m->status == STATUS_OK; i++) {
        if (!expr_matches(sc->m, keys->patterns[i], text, &known))
            continue;
        own = own ? schema_merge(sc, own, keys->schemas[i]) : keys->schemas[i];
        others = NULL;
    }
    if (!known)
        schema_fail(sc, STATUS_TOO_LARGE, "a pattern of \"patternProperties\" needs too many states");
    return !fits ? json_false() : own ? own : others ? others : json_true();
}

static const struct expr *checked_keys(struct schema *sc, const struct expr *x)
{
    if (!x)
        schema_fail(sc, STATUS_TOO_LARGE, "the names of properties need too many states");
    return x ? x : expr_never();
}

/* Pairs whose keys match just the patterns of `set`; of none: what others are. */
static const struct expr *pairs_of_set(struct schema *sc, const struct keys *keys, const struct expr *free,
                                       uint32_t set, const json_t *others)
{
    const json_t *value = set ? json_true() : others;
    for (uint32_t i = 0; i < keys->n && sc->m->status == STATUS_OK; i++) {
        bool has = set >> i & 1;
        free = checked_keys(sc, has ? expr_both(sc->m, free, keys->patterns[i])
                                    : schema_cut_pattern(sc, free, keys->texts[i], strlen(keys->texts[i]),
                                                         keys->patterns[i]));
        if (has && value)
            value = schema_merge(sc, value, keys->schemas[i]);
    }
    if (!value || sc->m->status != STATUS_OK)
        return expr_never();
    return pair_of(sc, free, schema_rule(sc, value));
}

/* Any further pair. `open`: others come though nothing is said of them. */
static const struct expr *other_pairs(struct schema *sc, const struct keys *keys, const struct members *all,
                                      const json_t *others)
{
    struct maker *m = sc->m;
    struct expr_list ways = {0}, listed = {0};
    const struct expr *free = jx_quoted(m, expr_repeat(m, jx_char(m, &sc->json), 0, REPEAT_FOREVER));
    if (keys->names) {
        const json_t *text = schema_keep(sc, json_pack("{s:s}", "type", "string"));
        const json_t *both = text ? schema_merge(sc, text, keys->names) : NULL;
        free = both ? checked_keys(sc, expr_both(m, free, schema_expr(sc, both))) : expr_never();
    }
    for (size_t i = 0; i < all->n; i++)
        list_add(m, &listed, key_text(m, all->list[i].name));
    if (listed.n && m->status == STATUS_OK)
        free = checked_keys(sc, expr_without(m, free, expr_alt(m, &listed)));
    if (!others && !keys->n && all->n == 0)
        others = json_true();
    for (uint32_t set = 0; set < 1U << keys->n && m->status == STATUS_OK; set++)
        if (set || (others && !json_is_false(others)))
            list_add(m, &ways, pairs_of_set(sc, keys, free, set, others));
    return expr_alt(m, &ways);
}

/* ---- members */

static void add_member(struct schema *sc, struct members *all, const char *name, const json_t *s)
{
    struct maker *m = sc->m;
    size_t before = schema_enter(sc, "properties", name);
    const struct expr *value = s ? schema_rule(sc, s) : expr_never();
    const struct expr *key = jx_quoted(m, expr_spelled(m, name, strlen(name), SPELL_JSON));
    const struct expr *pair = pair_of(sc, key, value);
    schema_leave(sc, before);
    if (pair->kind != EXPR_NEVER)
        pair = expr_call(m, rule_new(m, pair));
    all->list[all->n++] = (struct member){.name = name, .pair = pair};
}

static bool has_member(const struct members *all, const char *name, size_t *at)
{
    for (*at = 0; *at < all->n; ++*at)
        if (strcmp(all->list[*at].name, name) == 0)
            return true;
    return false;
}

/* Names that are required but not described are what others are. */
static void read_required(struct schema *sc, const json_t *s, const struct keys *keys, struct members *all,
                          const json_t *others)
{
    const json_t *required = json_object_get(s, "required");
    if (required && !json_is_array(required))
        schema_fail(sc, STATUS_INVALID, "\"required\" must be an array of names");
    for (size_t i = 0; i < json_array_size(required) && sc->m->status == STATUS_OK; i++) {
        const char *name = json_string_value(json_array_get(required, i));
        size_t at;
        if (!name) {
            schema_fail(sc, STATUS_INVALID, "\"required\" must be an array of names");
            return;
        }
        if (!has_member(all, name, &at))
            add_member(sc, all, name, named_schema(sc, keys, name, NULL, others));
        all->n_required += !all->list[at].required;
        all->list[at].required = true;
    }
}

/* The key and value of members that are not listed. */
static void read_others(struct schema *sc, const struct keys *keys, struct members *all, const json_t *others)
{
    struct maker *m = sc->m;
    const struct expr *key = NULL, *pair = expr_never();
    size_t before = schema_enter(sc, "additionalProperties", NULL);
    if (keys->names || keys->n)
        pair = other_pairs(sc, keys, all, others);
    else if (!json_is_false(others) && (others || all->n == 0))
        key = all->n ? other_key_of(sc, all) : jx_string(m, &sc->json);
    if (key && m->status == STATUS_OK)
        pair = pair_of(sc, key, others ? schema_rule(sc, others) : jx_value(m, &sc->json));
    schema_leave(sc, before);
    all->others = pair->kind == EXPR_NEVER ? pair : expr_call(m, rule_new(m, pair));
}

/* True: they must be counted one by one. */
static bool check_counts(struct schema *sc, const json_t *s, struct members *all)
{
    bool open = all->others->kind != EXPR_NEVER;
    all->most = UINT64_MAX;
    bool has_least = schema_count(sc, s, "minProperties", &all->least);
    bool has_most = schema_count(sc, s, "maxProperties", &all->most);
    if (has_least && open && all->least > all->n + 1)
        schema_fail(sc, STATUS_UNSUPPORTED,
                    "\"minProperties\" above the named ones and one more is not supported: two of the others "
                    "may have "
                    "the same name");
    all->at_least_one = has_least && all->least == 1 && all->n_required == 0;
    return (has_least && all->least > all->n_required && all->least > 1) ||
           (has_most && all->n > 0 && (open || all->most < all->n));
}

/* ---- counted members
 *
 * A rule for each member and number of members before it, and for each number of others behind the listed
 * ones. Of others only one counts for minProperties: a second may have the same name. */
struct member_grid {
    struct schema *sc;
    const struct members *all;
    size_t n_counts; /* counts stop there */
    uint32_t first;
};

static const struct expr *grid_call(const struct member_grid *g, size_t row, size_t count)
{
    count = count < g->n_counts ? count : g->n_counts;
    return expr_call(g->sc->m, g->first + (uint32_t)(row * (g->n_counts + 1) + count));
}

/* `pair` behind `count` others, then the rest. */
static const struct expr *counted_pair(const struct member_grid *g, const struct expr *pair, size_t count,
                                       const struct expr *rest)
{
    struct maker *m = g->sc->m;
    const struct expr *whole = expr_seq2(m, pair, rest);
    return count ? expr_seq2(m, jx_comma(m, &g->sc->json), whole) : whole;
}

/* Rows: the members; the end of these; behind one other. */
static const struct expr *grid_expr(const struct member_grid *g, size_t row, size_t count)
{
    const struct members *all = g->all;
    struct maker *m = g->sc->m;
    struct expr_list ways = {0};
    if (row < all->n) {
        const struct member *x = &all->list[row];
        if (count < all->most)
            list_add(m, &ways, counted_pair(g, x->pair, count, grid_call(g, row + 1, count + 1)));
        if (!x->required)
            list_add(m, &ways, grid_call(g, row + 1, count));
        return expr_alt(m, &ways);
    }
    if (count >= all->least)
        list_add(m, &ways, expr_empty());
    if (count < all->most && all->others->kind != EXPR_NEVER) {
        bool counts = row == all->n || all->most != UINT64_MAX;
        bool enough = row == all->n || count >= all->least;
        if (enough)
            list_add(m, &ways,
                     counted_pair(g, all->others, count, grid_call(g, all->n + 1, count + (counts ? 1 : 0))));
    }
    return expr_alt(m, &ways);
}

static const struct expr *counted_members(struct schema *sc, const struct members *all)
{
    struct maker *m = sc->m;
    struct member_grid g = {.sc = sc, .all = all};
    uint64_t n = all->most != UINT64_MAX ? all->most : all->least, rows = all->n + 2;
    if (n >= GRID_MAX || rows > GRID_MAX || rows * (n + 1) > GRID_MAX) {
        schema_fail(sc, STATUS_TOO_LARGE,
                    "\"minProperties\" or \"maxProperties\" counts too far beside the properties");
        return expr_never();
    }
    g.n_counts = (size_t)n;
    for (uint64_t i = 0; i < rows * (n + 1); i++) {
        uint32_t rule = rule_new(m, NULL);
        g.first = i ? g.first : rule;
    }
    for (size_t row = 0; row < rows && maker_goes_on(m); row++)
        for (size_t count = 0; count <= g.n_counts; count++)
            rule_define(m, g.first + (uint32_t)(row * (g.n_counts + 1) + count), grid_expr(&g, row, count));
    return m->status == STATUS_OK ? grid_call(&g, 0, 0) : expr_never();
}

/* From member i on; `any`: one came already, so that a comma stands before the next. Each is a rule, as two
 * ways lead to it. */
static const struct expr *chain(struct schema *sc, const struct members *all)
{
    struct maker *m = sc->m;
    const struct expr *comma = jx_comma(m, &sc->json), *others = all->others;
    bool open = others->kind != EXPR_NEVER;
    uint32_t max = all->most == UINT64_MAX ? REPEAT_FOREVER : schema_repeats(all->most);
    const struct expr *more = expr_seq2(m, comma, others), *after = expr_empty(), *first = expr_empty();
    if (open)
        after = expr_call(m, rule_new(m, expr_repeat(m, more, 0, REPEAT_FOREVER)));
    if (open && max > 0) {
        uint32_t behind = max == REPEAT_FOREVER ? REPEAT_FOREVER : max - 1;
        first = expr_seq2(m, others, expr_repeat(m, more, 0, behind));
        if (!all->at_least_one)
            first = expr_repeat(m, first, 0, 1);
    } else if (all->at_least_one) {
        first = expr_never();
    }
    for (size_t i = all->n; i-- > 0 && m->status == STATUS_OK;) {
        const struct member *x = &all->list[i];
        const struct expr *alone = expr_seq2(m, x->pair, after);
        const struct expr *next = expr_seq2(m, comma, alone);
        first = x->required ? alone : expr_alt2(m, alone, first);
        after = x->required ? next : expr_alt2(m, next, after);
        if (first->kind != EXPR_NEVER)
            first = expr_call(m, rule_new(m, first));
        if (after->kind != EXPR_NEVER)
            after = expr_call(m, rule_new(m, after));
    }
    return first;
}

const struct expr *schema_object(struct schema *sc, const json_t *s)
{
    struct maker *m = sc->m;
    const json_t *properties = json_object_get(s, "properties"), *others;
    struct members all = {0};
    struct keys keys = {0};
    const char *name;
    json_t *value;
    if (properties && !json_is_object(properties))
        schema_fail(sc, STATUS_INVALID, "\"properties\" must be an object of schemas");
    others = json_object_get(s, "additionalProperties");
    if (!others)
        others = json_object_get(s, UNEVALUATED_PROPERTIES);
    all.list =
        maker_alloc(m, (json_object_size(properties) + json_array_size(json_object_get(s, "required")) + 1) *
                           sizeof *all.list);
    if (!all.list)
        return expr_never();
    read_keys(sc, s, &keys);
    json_object_foreach((json_t *)(uintptr_t)properties, name, value)
        add_member(sc, &all, name, named_schema(sc, &keys, name, value, NULL));
    read_required(sc, s, &keys, &all, others);
    read_others(sc, &keys, &all, others);
    bool counted = check_counts(sc, s, &all);
    if (m->status != STATUS_OK)
        return expr_never();
    const struct expr *inner = counted ? counted_members(sc, &all) : chain(sc, &all);
    return jx_bracketed(m, &sc->json, "{", inner, "}");
}
