/* not, if, dependentRequired, dependentSchemas, and oneOf whose schemas overlap: each says that one of some
 * plainer schemas holds, so it becomes alternatives that are joined with what stands beside it.
 *
 * What isn't allowed is made from a schema keyword by keyword: a value is outside of it if one of its
 * keywords refuses it. Every alternative that comes of that is outside for certain; values that are left out
 * (objects unlike a constant one) can't come, and keywords that have no opposite here are named. */
#include <stdio.h>
#include <string.h>

#include "grammar_json.h"

#define OPPOSITES_MAX 2048U
#define GAPS_MAX 32U /* numbers that are left out */

/* The schemas that are refused, with what asks for that in front of errors. */
struct opposite {
    struct schema *sc;
    const char *asks; /* "not", "if", "oneOf" */
    json_t *ways;     /* alternatives */
};

/* Takes the reference. */
static void add_way(struct opposite *o, json_t *way)
{
    if (!way || json_array_append_new(o->ways, way) != 0)
        schema_fail(o->sc, STATUS_NO_MEMORY, "no memory for the schema");
}

/* {"type": type, key: value}; takes the value's reference. */
static void add_typed(struct opposite *o, const char *type, const char *key, json_t *value)
{
    add_way(o, json_pack("{s:s, s:o}", "type", type, key, value));
}

static void refuse(struct opposite *o, const char *keyword)
{
    schema_fail(o->sc, STATUS_UNSUPPORTED, "\"%s\" of a schema with \"%.60s\" is not supported", o->asks,
                keyword);
}

/* ---- types and constants */

static void add_types(struct opposite *o, unsigned types)
{
    if (types)
        add_way(o, json_pack("{s:o}", "type", schema_type_names(types)));
}

static void add_fractions(struct opposite *o)
{
    add_way(o, json_pack("{s:s, s:{s:i}}", "type", "number", "not", "multipleOf", 1));
}

static void outside_types(struct opposite *o, const json_t *type)
{
    unsigned types = schema_named_types(o->sc, type);
    bool whole = (types & TYPE_INTEGER) && !(types & TYPE_NUMBER);
    add_types(o, TYPE_ANY & ~types & ~(whole ? (unsigned)TYPE_NUMBER : 0));
    if (whole)
        add_fractions(o);
}

static void sort_numbers(const json_t **list, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        const json_t *x = list[i];
        size_t at = i;
        for (; at > 0 && json_number_value(list[at - 1]) > json_number_value(x); at--)
            list[at] = list[at - 1];
        list[at] = x;
    }
}

/* Below the first, between two, above the last. */
static void add_gaps(struct opposite *o, const json_t *values)
{
    const json_t *numbers[GAPS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(values); i++) {
        const json_t *v = json_array_get(values, i);
        if (json_is_number(v) && n < GAPS_MAX)
            numbers[n++] = v;
    }
    if (n == GAPS_MAX)
        refuse(o, "enum");
    sort_numbers(numbers, n);
    for (size_t i = 0; n && i <= n; i++) {
        json_t *gap = json_pack("{s:s}", "type", "number");
        if (i > 0)
            json_object_set(gap, "exclusiveMinimum", (json_t *)(uintptr_t)numbers[i - 1]);
        if (i < n)
            json_object_set(gap, "exclusiveMaximum", (json_t *)(uintptr_t)numbers[i]);
        add_way(o, gap);
    }
}

static void outside_values(struct opposite *o, const json_t *values)
{
    unsigned types = 0;
    json_t *strings = json_array();
    bool has[2] = {false, false};
    for (size_t i = 0; i < json_array_size(values); i++) {
        json_t *v = json_array_get(values, i);
        types |= schema_types_of_value(v);
        if (json_is_string(v))
            json_array_append(strings, v);
        if (json_is_boolean(v))
            has[json_is_true(v)] = true;
    }
    if (types & TYPE_INTEGER)
        types |= TYPE_NUMBER;
    if (types & TYPE_NUMBER)
        types |= TYPE_INTEGER;
    add_types(o, TYPE_ANY & ~types);
    add_gaps(o, values);
    if (has[0] != has[1])
        add_way(o, json_pack("{s:b}", "const", has[0]));
    if (json_array_size(strings))
        add_way(o, json_pack("{s:s, s:{s:O}}", "type", "string", "not", "enum", strings));
    json_decref(strings);
}

/* ---- keywords */

static void outside_count(struct opposite *o, const json_t *s, const char *type, const char *keys[2])
{
    uint64_t n;
    if (schema_count(o->sc, s, keys[0], &n) && n > 0)
        add_typed(o, type, keys[1], json_integer((json_int_t)n - 1));
    if (schema_count(o->sc, s, keys[1], &n))
        add_typed(o, type, keys[0], json_integer((json_int_t)n + 1));
}

static void outside_bounds(struct opposite *o, const json_t *s)
{
    static const char *const opposites[][2] = {{"minimum", "exclusiveMaximum"},
                                               {"maximum", "exclusiveMinimum"},
                                               {"exclusiveMinimum", "maximum"},
                                               {"exclusiveMaximum", "minimum"}};
    for (size_t i = 0; i < sizeof opposites / sizeof *opposites; i++) {
        json_t *bound = json_object_get(s, opposites[i][0]);
        if (bound && !json_is_number(bound))
            refuse(o, opposites[i][0]);
        else if (bound)
            add_typed(o, "number", opposites[i][1], json_incref(bound));
    }
}

static void outside_members(struct opposite *o, const json_t *s)
{
    const json_t *required = json_object_get(s, "required"), *properties = json_object_get(s, "properties");
    const char *key;
    json_t *value;
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (name)
            add_typed(o, "object", "properties", json_pack("{s:b}", name, false));
    }
    json_object_foreach((json_t *)(uintptr_t)properties, key, value)
    {
        json_t *other = schema_opposite(o->sc, value, o->asks);
        if (json_is_false(other) || !other)
            json_decref(other);
        else
            add_way(o, json_pack("{s:s, s:{s:o}, s:[s]}", "type", "object", "properties", key, other,
                                 "required", key));
    }
}

static void outside_items(struct opposite *o, const json_t *s)
{
    const json_t *items = json_object_get(s, "items"), *contains = json_object_get(s, "contains");
    if (json_object_get(s, "prefixItems") || json_is_array(items))
        refuse(o, "prefixItems");
    if (json_object_get(s, "minContains") || json_object_get(s, "maxContains"))
        refuse(o, "minContains");
    if (items)
        add_typed(o, "array", "contains", schema_opposite(o->sc, items, o->asks));
    if (contains)
        add_typed(o, "array", "items", schema_opposite(o->sc, contains, o->asks));
}

/* Outside of all of them; or of one. */
static void outside_list(struct opposite *o, const json_t *list, bool of_all)
{
    json_t *all = json_array();
    for (size_t i = 0; i < json_array_size(list); i++)
        json_array_append_new(all, schema_opposite(o->sc, json_array_get(list, i), o->asks));
    add_way(o, json_pack("{s:o}", of_all ? "allOf" : "anyOf", all));
}

static void outside_keyword(struct opposite *o, const char *key, json_t *value)
{
    static const char *const elsewhere[] = {
        "minLength",     "maxLength", "minItems", "maxItems",         "minProperties",
        "maxProperties", "minimum",   "maximum",  "exclusiveMinimum", "exclusiveMaximum",
        "properties",    "required",  "items",    "contains",         "then",
        "else",          NULL};
    if (strcmp(key, "type") == 0) {
        outside_types(o, value);
    } else if (strcmp(key, "enum") == 0) {
        outside_values(o, value);
    } else if (strcmp(key, "const") == 0) {
        json_t *list = json_pack("[O]", value);
        outside_values(o, list);
        json_decref(list);
    } else if (strcmp(key, "anyOf") == 0 || strcmp(key, "allOf") == 0) {
        outside_list(o, value, key[1] == 'n');
    } else if (strcmp(key, "pattern") == 0) {
        add_way(o, json_pack("{s:s, s:{s:O}}", "type", "string", "not", "pattern", value));
    } else if (strcmp(key, "multipleOf") == 0 && json_number_value(value) == 1.0) {
        add_fractions(o);
    } else if (strcmp(key, "not") == 0) {
        add_way(o, json_incref(value));
    } else if (strcmp(key, "$ref") == 0) {
        const json_t *target = schema_target(o->sc, json_is_string(value) ? json_string_value(value) : "");
        if (target)
            add_way(o, schema_opposite(o->sc, target, o->asks));
    } else if (!schema_is_listed(key, elsewhere) && !schema_is_annotation(key)) {
        refuse(o, key);
    }
}

/* What doesn't match `s`, or some of it; a new reference, NULL after a failure. */
json_t *schema_opposite(struct schema *sc, const json_t *s, const char *asks)
{
    static const char *lengths[] = {"minLength", "maxLength"}, *items[] = {"minItems", "maxItems"},
                      *members[] = {"minProperties", "maxProperties"};
    struct opposite o = {.sc = sc, .asks = asks};
    const char *key;
    json_t *value;
    if (json_is_boolean(s))
        return json_boolean(json_is_false(s));
    if (!json_is_object(s)) {
        schema_fail(sc, STATUS_INVALID, "a schema must be an object, true or false");
        return NULL;
    }
    if (sc->depth >= GRAMMAR_DEPTH_MAX || ++sc->n_opposites > OPPOSITES_MAX)
        schema_fail(sc, STATUS_TOO_LARGE, "\"%s\" of too many schemas, or of one that contains itself", asks);
    if (!maker_goes_on(sc->m))
        return NULL;
    sc->depth++;
    o.ways = json_array();
    json_object_foreach((json_t *)(uintptr_t)s, key, value) if (sc->m->status == STATUS_OK)
        outside_keyword(&o, key, value);
    outside_count(&o, s, "string", lengths);
    outside_count(&o, s, "array", items);
    outside_count(&o, s, "object", members);
    outside_bounds(&o, s);
    outside_members(&o, s);
    outside_items(&o, s);
    sc->depth--;
    if (sc->m->status != STATUS_OK) {
        json_decref(o.ways);
        return NULL;
    }
    if (json_array_size(o.ways) == 0) {
        json_decref(o.ways);
        return json_false();
    }
    return json_pack("{s:o}", "anyOf", o.ways);
}

/* ---- alternatives */

/* Whether a property may come because of `way` alone. */
static bool brings_members(const json_t *way, const json_t *beside)
{
    const char *const lists[] = {"anyOf", "allOf"};
    const char *key;
    json_t *value;
    bool brings = false;
    json_object_foreach(json_object_get(way, "properties"), key, value) brings =
        brings || (!json_is_false(value) && !json_object_get(json_object_get(beside, "properties"), key));
    for (size_t i = 0; i < 2; i++) {
        const json_t *list = json_object_get(way, lists[i]);
        for (size_t k = 0; k < json_array_size(list) && !brings; k++)
            brings = brings_members(json_array_get(list, k), beside);
    }
    static const char *const others[] = {
        "contains",         "items", "prefixItems", "additionalProperties", "patternProperties", "$ref", "if",
        "dependentSchemas", "not",   "oneOf"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        brings = brings || json_object_get(way, others[i]);
    return brings;
}

/* The opposite of a schema evaluates nothing, so what isn't evaluated can't be told from it. */
static const json_t *outside_beside(struct schema *sc, const json_t *s, const json_t *beside,
                                    const char *asks)
{
    const json_t *way = schema_keep(sc, schema_opposite(sc, s, asks));
    bool members = json_object_get(beside, UNEVALUATED_PROPERTIES);
    if (way && (members || json_object_get(beside, UNEVALUATED_ITEMS)) && brings_members(way, beside))
        schema_fail(sc, STATUS_UNSUPPORTED, "\"%s\" of such a schema beside \"%s\" is not supported", asks,
                    members ? "unevaluatedProperties" : "unevaluatedItems");
    return way;
}

/* Where nothing was said of an object's keys, an alternative that speaks of some leaves the others free. */
static const json_t *left_open(struct schema *sc, const json_t *beside, const json_t *way)
{
    bool said = json_object_get(beside, "properties") || json_object_get(beside, "required") ||
                json_object_get(beside, "additionalProperties") ||
                json_object_get(beside, UNEVALUATED_PROPERTIES) ||
                json_object_get(beside, "patternProperties") || json_object_get(beside, "propertyNames");
    if (said || !json_is_object(way) || json_object_get(way, "additionalProperties") ||
        json_object_get(way, "patternProperties") || json_object_get(way, "propertyNames"))
        return way;
    if (!json_object_get(way, "properties") && !json_object_get(way, "required"))
        return way;
    json_t *open = schema_without(way, "");
    if (open)
        json_object_set_new(open, "additionalProperties", json_true());
    return schema_keep(sc, open);
}

/* Joins `beside`, `a` and `b` (NULL: not there), and adds it. */
static void add_joined(struct schema *sc, struct expr_list *l, const json_t *beside, const json_t *a,
                       const json_t *b)
{
    const json_t *way = a && b ? schema_merge(sc, a, b) : a ? a : b;
    way = way ? schema_merge(sc, beside, way) : beside;
    if (way && sc->m->status == STATUS_OK)
        way = left_open(sc, beside, way);
    if (way && sc->m->status == STATUS_OK)
        list_add(sc->m, l, schema_expr(sc, way));
}

/* What stands beside these keywords, of the types that it speaks of. */
static const json_t *beside(struct schema *sc, const json_t *s, const char *const *keys)
{
    json_t *rest = schema_without(s, keys[0]);
    for (size_t i = 1; keys[i] && rest; i++)
        json_object_del(rest, keys[i]);
    unsigned types = rest ? schema_implied_types(rest) : 0;
    if (rest && types != TYPE_ANY && !json_object_get(rest, "type"))
        json_object_set_new(rest, "type", schema_type_names(types));
    return schema_keep(sc, rest);
}

static const struct expr *not_one(struct schema *sc, const json_t *s)
{
    struct expr_list l = {0};
    const json_t *rest = beside(sc, s, (const char *const[]){"not", NULL});
    const json_t *way = outside_beside(sc, json_object_get(s, "not"), rest, "not");
    if (rest && way)
        add_joined(sc, &l, rest, way, NULL);
    return expr_alt(sc->m, &l);
}

static const struct expr *if_then(struct schema *sc, const json_t *s)
{
    struct expr_list l = {0};
    const json_t *rest = beside(sc, s, (const char *const[]){"if", "then", "else", NULL});
    const json_t *condition = json_object_get(s, "if");
    const json_t *then = json_object_get(s, "then"), *other = json_object_get(s, "else");
    if (!rest)
        return expr_never();
    if (!condition || (!then && !other))
        return schema_expr(sc, rest); /* it says nothing */
    add_joined(sc, &l, rest, condition, then);
    const json_t *outside = outside_beside(sc, condition, rest, "if");
    if (outside)
        add_joined(sc, &l, rest, outside, other);
    return expr_alt(sc->m, &l);
}

/* The first name of dependentRequired, dependentSchemas or draft 7's dependencies: without it, or with it and
 * what it asks for. The others stay beside. */
static const struct expr *dependent(struct schema *sc, const json_t *s, const char *key)
{
    struct expr_list l = {0};
    json_t *all = json_object_get(s, key);
    const json_t *rest = beside(sc, s, (const char *const[]){key, NULL});
    if (!json_is_object(all))
        schema_fail(sc, STATUS_INVALID, "\"%s\" must be an object", key);
    void *first = json_object_iter(all);
    if (!rest || !first || sc->m->status != STATUS_OK)
        return rest && sc->m->status == STATUS_OK ? schema_expr(sc, rest) : expr_never();
    const char *name = json_object_iter_key(first);
    json_t *asked = json_object_iter_value(first), *others = json_copy(all);
    json_object_del(others, name);
    if (!others)
        schema_fail(sc, STATUS_NO_MEMORY, "no memory for \"%s\"", key);
    if (json_object_size(others)) {
        json_t *more = schema_without(rest, "");
        json_object_set(more, key, others);
        rest = schema_keep(sc, more);
    }
    json_decref(others);
    json_t *there = json_is_array(asked) ? json_pack("{s:O}", "required", asked) : json_incref(asked);
    const json_t *with = schema_keep(sc, there);
    const json_t *has = schema_keep(sc, json_pack("{s:s, s:[s]}", "type", "object", "required", name));
    const json_t *lacks =
        schema_keep(sc, json_pack("{s:s, s:{s:b}}", "type", "object", "properties", name, false));
    if (rest && with && has && lacks) {
        add_joined(sc, &l, rest, lacks, NULL);
        add_joined(sc, &l, rest, has, with);
    }
    unsigned types = schema_types_beside(sc, rest) & ~(unsigned)TYPE_OBJECT;
    if (rest && types) /* it speaks of objects alone */
        add_joined(sc, &l, schema_keep(sc, schema_without(rest, key)),
                   schema_keep(sc, json_pack("{s:o}", "type", schema_type_names(types))), NULL);
    return expr_alt(sc->m, &l);
}

const struct expr *schema_exactly_one(struct schema *sc, const json_t *s)
{
    struct expr_list l = {0};
    const json_t *list = json_object_get(s, "oneOf");
    const json_t *rest = beside(sc, s, (const char *const[]){"oneOf", NULL});
    for (size_t i = 0; i < json_array_size(list) && rest && sc->m->status == STATUS_OK; i++) {
        const json_t *way = json_array_get(list, i);
        for (size_t k = 0; k < json_array_size(list) && way; k++) {
            if (k == i || schema_disjoint(sc, json_array_get(list, i), json_array_get(list, k), 0))
                continue;
            const json_t *outside = outside_beside(sc, json_array_get(list, k), rest, "oneOf");
            way = outside ? schema_merge(sc, way, outside) : NULL;
        }
        if (way)
            add_joined(sc, &l, rest, way, NULL);
    }
    return expr_alt(sc->m, &l);
}

/* Strings without some, and numbers that aren't whole, are made as such. */
static bool is_plain_not(const json_t *s)
{
    const json_t *type = json_object_get(s, "type"), *not = json_object_get(s, "not");
    if (json_is_array(type) && json_array_size(type) == 1)
        type = json_array_get(type, 0);
    const char *name = json_is_string(type) ? json_string_value(type) : "";
    if (json_object_size(not ) != 1)
        return false;
    if (strcmp(name, "number") == 0 || strcmp(name, "integer") == 0)
        return json_number_value(json_object_get(not, "multipleOf")) == 1.0;
    return strcmp(name, "string") == 0 && schema_is_string_not(not );
}

const struct expr *schema_logic(struct schema *sc, const json_t *s)
{
    static const char *const dependents[] = {"dependentRequired", "dependentSchemas", "dependencies"};
    if (json_object_get(s, "if") || json_object_get(s, "then") || json_object_get(s, "else"))
        return if_then(sc, s);
    for (size_t i = 0; i < sizeof dependents / sizeof *dependents; i++)
        if (json_object_get(s, dependents[i]))
            return dependent(sc, s, dependents[i]);
    bool constant = json_object_get(s, "enum") || json_object_get(s, "const");
    if (json_object_get(s, "not") && !constant && !is_plain_not(s))
        return not_one(sc, s);
    return NULL;
}
