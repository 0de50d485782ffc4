/* Two schemas that must both hold, as one: for allOf, and for what stands beside a $ref or an anyOf. Where a
 * keyword can't be joined, or would mean something else in the joined schema, that is said. */
#include <string.h>

#include "grammar_json.h"

#define MERGES_MAX 1024U
#define JOINED_MAX ((size_t)1 << 17)
#define DISJOINT_DEPTH 6U

static json_t *both_types(const json_t *a, const json_t *b)
{
    unsigned types = TYPE_ANY, mine;
    const json_t *sides[] = {a, b};
    for (int i = 0; i < 2; i++) {
        mine = 0;
        if (json_is_string(sides[i]))
            mine = schema_type_bit(json_string_value(sides[i]));
        for (size_t k = 0; k < json_array_size(sides[i]); k++) {
            const char *name = json_string_value(json_array_get(sides[i], k));
            mine |= name ? schema_type_bit(name) : 0;
        }
        types &= mine;
    }
    return schema_type_names(types);
}

static json_t *both_lists(const json_t *a, const json_t *b, bool all)
{
    json_t *out = json_array(), *item;
    size_t i, k;
    const json_t *from = a;
    json_array_foreach((json_t *)(uintptr_t)from, i, item)
    {
        bool found = all;
        for (k = 0; k < json_array_size(b) && !found; k++)
            found = json_equal(item, json_array_get(b, k));
        if (found)
            json_array_append(out, item);
    }
    for (i = 0; all && i < json_array_size(b); i++) {
        bool found = false;
        item = json_array_get(b, i);
        for (k = 0; k < json_array_size(a) && !found; k++)
            found = json_equal(item, json_array_get(a, k));
        if (!found)
            json_array_append(out, item);
    }
    return out;
}

/* Alternatives, whose properties aren't seen yet. */
static bool has_ways(const json_t *s)
{
    static const char *const keys[] = {"anyOf", "oneOf", "if", "dependentSchemas", "dependencies"};
    bool has = false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        has = has || json_object_get(s, keys[i]);
    return has;
}

/* The keys of one that the other doesn't have. */
static const char *first_other(const json_t *of, const json_t *other)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)of, key, value) if (!json_object_get(other, key)) return key;
    return NULL;
}

/* The schema of a member of this name, or NULL; additionalProperties speaks of those that aren't beside it.
 */
static const json_t *member_of(const json_t *s, const char *name)
{
    const json_t *own = json_object_get(json_object_get(s, "properties"), name);
    return own ? own : json_object_get(s, "additionalProperties");
}

/* Where patterns stand beside additionalProperties, what another side brings may be none of what that speaks
 * of: only names that nobody may have can be joined. */
static void check_patterns(struct schema *sc, const json_t *a, const json_t *b)
{
    const json_t *patterns = json_object_get(a, "patternProperties"),
                 *more = json_object_get(a, "additionalProperties");
    const json_t *own = json_object_get(a, "properties");
    const char *name;
    json_t *value;
    bool fine = !more || !json_object_get(b, "patternProperties");
    json_object_foreach(json_object_get(b, "properties"), name, value) fine =
        fine && (!more || !patterns || json_is_false(value) || json_object_get(own, name));
    if (patterns && json_object_get(b, "additionalProperties"))
        fine = false;
    if (!fine)
        schema_fail(
            sc, STATUS_UNSUPPORTED,
            "\"additionalProperties\" beside \"patternProperties\" in one of the joined schemas and more "
            "properties in another are not supported");
}

static void join_named(struct schema *sc, const json_t *a, const json_t *b, const char *name, json_t *out)
{
    const json_t *x = member_of(a, name), *y = member_of(b, name);
    const json_t *both = x && y ? schema_merge(sc, x, y) : x ? x : y;
    if (both)
        json_object_set(out, name, (json_t *)(uintptr_t)both);
}

/* properties of both sides. */
static void join_members(struct schema *sc, const json_t *a, const json_t *b, json_t *out)
{
    const json_t *sides[] = {json_object_get(a, "properties"), json_object_get(b, "properties")};
    json_t *joined = json_object(), *value;
    const char *key;
    for (size_t i = 0; i < 2; i++)
        if (sides[i] && !json_is_object(sides[i]))
            schema_fail(sc, STATUS_INVALID, "\"properties\" must be an object of schemas");
    for (size_t i = 0; i < 2; i++)
        json_object_foreach((json_t *)(uintptr_t)sides[i], key,
                            value) if (!json_object_get(joined, key) && sc->m->status == STATUS_OK)
            join_named(sc, a, b, key, joined);
    json_object_set_new(out, "properties", joined);
}

/* unevaluated… speaks of all that is joined into its own schema, and no other's. */
static void check_unevaluated(struct schema *sc, const json_t *a, const json_t *b)
{
    const json_t *properties = json_object_get(a, "unevaluatedProperties"),
                 *items = json_object_get(a, "unevaluatedItems");
    bool more = first_other(json_object_get(b, "properties"), json_object_get(a, "properties")) ||
                json_object_get(b, "additionalProperties") || json_object_get(b, "patternProperties") ||
                has_ways(b);
    bool longer = json_object_get(b, "items") || json_object_get(b, "contains") || has_ways(b) ||
                  json_array_size(json_object_get(b, "prefixItems")) >
                      json_array_size(json_object_get(a, "prefixItems"));
    if (properties && !json_is_true(properties) && more)
        schema_fail(
            sc, STATUS_UNSUPPORTED,
            "\"unevaluatedProperties\" in one of the joined schemas and more properties in another are "
            "not supported");
    if (items && !json_is_true(items) && longer)
        schema_fail(sc, STATUS_UNSUPPORTED,
                    "\"unevaluatedItems\" in one of the joined schemas and more items in another are not "
                    "supported");
}

/* The schema of element i, or NULL. */
static const json_t *element_of(const json_t *s, size_t i)
{
    const json_t *prefix = json_object_get(s, "prefixItems");
    return i < json_array_size(prefix) ? json_array_get(prefix, i) : json_object_get(s, "items");
}

/* items and prefixItems together, where one of them has the latter. */
static void join_elements(struct schema *sc, const json_t *a, const json_t *b, json_t *out)
{
    size_t n_a = json_array_size(json_object_get(a, "prefixItems")),
           n_b = json_array_size(json_object_get(b, "prefixItems")), n = n_a > n_b ? n_a : n_b;
    json_t *prefix = json_array();
    if (json_is_array(json_object_get(a, "items")) || json_is_array(json_object_get(b, "items")))
        schema_fail(sc, STATUS_UNSUPPORTED, "\"items\" as an array in two joined schemas is not supported");
    for (size_t i = 0; i <= n && sc->m->status == STATUS_OK; i++) {
        const json_t *x = element_of(a, i), *y = element_of(b, i);
        const json_t *both = x && y ? schema_merge(sc, x, y) : x ? x : y;
        if (both && i < n)
            json_array_append(prefix, (json_t *)(uintptr_t)both);
        else if (both)
            json_object_set(out, "items", (json_t *)(uintptr_t)both);
    }
    json_object_set_new(out, "prefixItems", prefix);
}

/* Neither this nor that. */
static json_t *both_nots(const json_t *a, const json_t *b)
{
    const json_t *x = json_object_get(a, "enum"), *y = json_object_get(b, "enum");
    if (x && y && json_object_size(a) == 1 && json_object_size(b) == 1)
        return json_pack("{s:o}", "enum", both_lists(x, y, true));
    return json_pack("{s:[O,O]}", "anyOf", a, b);
}

/* One of these and one of those. */
static json_t *both_ways(struct schema *sc, const json_t *a, const json_t *b)
{
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(a); i++)
        for (size_t k = 0; k < json_array_size(b) && sc->m->status == STATUS_OK; k++) {
            const json_t *both = schema_merge(sc, json_array_get(a, i), json_array_get(b, k));
            if (both && !json_is_false(both))
                json_array_append(out, (json_t *)(uintptr_t)both);
        }
    if (json_array_size(out) == 0)
        json_array_append_new(out, json_false());
    return out;
}

static json_t *both_dependents(struct schema *sc, const json_t *a, const json_t *b)
{
    json_t *out = json_copy((json_t *)(uintptr_t)a), *value;
    const char *key;
    json_object_foreach((json_t *)(uintptr_t)b, key, value)
    {
        const json_t *mine = json_object_get(a, key);
        if (json_is_array(mine) && json_is_array(value)) {
            json_object_set_new(out, key, both_lists(mine, value, true));
            continue;
        }
        const json_t *both = mine ? schema_merge(sc, mine, value) : value;
        if (both)
            json_object_set(out, key, (json_t *)(uintptr_t)both);
    }
    return out;
}

/* Of both; what doesn't fit is larger than what is supported. */
static json_t *least_multiple(json_int_t a, json_int_t b)
{
    json_int_t x = a, y = b, product;
    while (y > 0 && x > 0) {
        json_int_t rest = x % y;
        x = y;
        y = rest;
    }
    if (x <= 0 || __builtin_mul_overflow(a / x, b, &product))
        product = INT64_MAX;
    return json_integer(product);
}

static json_t *larger(const json_t *a, const json_t *b, bool want_larger)
{
    bool a_is = json_number_value(a) > json_number_value(b);
    return json_incref((json_t *)(uintptr_t)(a_is == want_larger ? a : b));
}

/* What both say of one keyword; a new reference, or NULL after a failure. */
static json_t *both_of(struct schema *sc, const char *key, const json_t *a, const json_t *b)
{
    static const char *const least[] = {"minimum",  "exclusiveMinimum", "minLength",
                                        "minItems", "minProperties",    NULL};
    static const char *const most[] = {"maximum",  "exclusiveMaximum", "maxLength",
                                       "maxItems", "maxProperties",    NULL};
    static const char *const schemas[] = {
        "items", "additionalProperties", "propertyNames", UNEVALUATED_PROPERTIES, UNEVALUATED_ITEMS, NULL};
    if (schema_is_annotation(key) || json_equal(a, b))
        return json_incref((json_t *)(uintptr_t)a);
    if (strcmp(key, "type") == 0)
        return both_types(a, b);
    if (strcmp(key, "required") == 0 || strcmp(key, "enum") == 0)
        return both_lists(a, b, key[0] == 'r');
    if (json_is_number(a) && json_is_number(b) &&
        (schema_is_listed(key, least) || schema_is_listed(key, most)))
        return larger(a, b, schema_is_listed(key, least));
    if (strcmp(key, "patternProperties") == 0 && json_is_object(a) && json_is_object(b))
        return both_dependents(sc, a, b);
    if (schema_is_listed(key, schemas)) {
        const json_t *both = schema_merge(sc, a, b);
        return json_incref((json_t *)(uintptr_t)both);
    }
    if (strcmp(key, "nullable") == 0)
        return json_false();
    if (strcmp(key, "multipleOf") == 0 && json_is_integer(a) && json_is_integer(b))
        return least_multiple(json_integer_value(a), json_integer_value(b));
    if (strcmp(key, "not") == 0)
        return both_nots(a, b);
    if (strcmp(key, "anyOf") == 0 && json_is_array(a) && json_is_array(b))
        return both_ways(sc, a, b);
    if (strncmp(key, "dependent", 9) == 0 && json_is_object(a) && json_is_object(b))
        return both_dependents(sc, a, b);
    schema_fail(sc, STATUS_UNSUPPORTED, "\"%.60s\" in two joined schemas is not supported", key);
    return NULL;
}

const json_t *schema_scoped(struct schema *sc, const json_t *s)
{
    static const char *const keys[][2] = {{"unevaluatedProperties", UNEVALUATED_PROPERTIES},
                                          {"unevaluatedItems", UNEVALUATED_ITEMS}};
    for (size_t i = 0; i < 2 && s; i++) {
        json_t *own = json_object_get(s, keys[i][0]), *outer = json_object_get(s, keys[i][1]);
        if (!own)
            continue;
        json_t *out = schema_without(s, keys[i][0]);
        const json_t *both = outer ? schema_merge(sc, own, outer) : own;
        if (out && both && !json_is_true(both)) /* true says nothing */
            json_object_set(out, keys[i][1], (json_t *)(uintptr_t)both);
        s = schema_keep(sc, out);
    }
    return s;
}

/* Without a $ref or allOf at its top: those are joined in first. */
static const json_t *unfolded(struct schema *sc, const json_t *s)
{
    const char *ref = json_string_value(json_object_get(s, "$ref"));
    const json_t *all = json_object_get(s, "allOf"), *out = s;
    if (!ref && !json_is_array(all))
        return s;
    s = schema_scoped(sc, s);
    if (!s)
        return NULL;
    json_t *rest = json_copy((json_t *)(uintptr_t)s);
    if (!rest || json_array_append_new(sc->made, rest) != 0)
        return NULL;
    json_object_del(rest, "$ref");
    json_object_del(rest, "allOf");
    out = rest;
    if (ref) {
        const json_t *target = schema_target(sc, ref);
        out = target ? schema_merge(sc, out, target) : NULL;
    }
    for (size_t i = 0; i < json_array_size(all) && out; i++)
        out = schema_merge(sc, out, json_array_get(all, i));
    return out;
}

/* Where two patterns must match, the one of `b` stands beside. */
static void join_patterns(struct schema *sc, const json_t *a, const json_t *b, json_t *out)
{
    json_t *x = json_object_get(a, "pattern"), *y = json_object_get(b, "pattern");
    const json_t *lists[] = {json_object_get(a, JOINED_PATTERNS), json_object_get(b, JOINED_PATTERNS)};
    bool two = x && y && !json_equal(x, y);
    if (!two && !lists[0] && !lists[1])
        return;
    if (two && (!json_is_string(x) || !json_is_string(y)))
        schema_fail(sc, STATUS_INVALID, "\"pattern\" must be a string");
    json_t *all = json_array();
    for (size_t i = 0; i < 2; i++)
        json_array_extend(all, (json_t *)(uintptr_t)lists[i]);
    if (two)
        json_array_append(all, y);
    json_object_set_new(out, JOINED_PATTERNS, all);
}

static json_t *merge_objects(struct schema *sc, const json_t *a, const json_t *b)
{
    const json_t *one = json_object_get(a, "const"), *other = json_object_get(b, "const");
    if (one && other && !schema_equal(one, other))
        return json_false();
    json_t *out = json_copy((json_t *)(uintptr_t)a), *value;
    const char *key;
    check_patterns(sc, a, b);
    check_patterns(sc, b, a);
    check_unevaluated(sc, a, b);
    check_unevaluated(sc, b, a);
    bool prefix = json_object_get(a, "prefixItems") || json_object_get(b, "prefixItems");
    if (prefix && out)
        join_elements(sc, a, b, out);
    bool members = json_object_get(a, "properties") || json_object_get(b, "properties");
    if (members && out)
        join_members(sc, a, b, out);
    json_object_foreach((json_t *)(uintptr_t)b, key, value)
    {
        const json_t *mine = json_object_get(a, key);
        if (prefix && (strcmp(key, "items") == 0 || strcmp(key, "prefixItems") == 0))
            continue;
        if ((members && strcmp(key, "properties") == 0) || strcmp(key, JOINED_PATTERNS) == 0 ||
            (mine && strcmp(key, "pattern") == 0))
            continue;
        json_t *both = mine ? both_of(sc, key, mine, value) : json_incref(value);
        if (!both || sc->m->status != STATUS_OK) {
            json_decref(both);
            break;
        }
        json_object_set_new(out, key, both);
    }
    join_patterns(sc, a, b, out);
    sc->n_joined += json_object_size(out) + json_object_size(json_object_get(out, "properties"));
    if (sc->n_joined > JOINED_MAX)
        schema_fail(sc, STATUS_TOO_LARGE, "too many properties are joined with others");
    const json_t *type = json_object_get(out, "type");
    if (json_is_array(type) && json_array_size(type) == 0) {
        json_decref(out);
        return json_false();
    }
    return out;
}

const json_t *schema_merge(struct schema *sc, const json_t *a, const json_t *b)
{
    if (++sc->n_merges > MERGES_MAX || ++sc->depth > GRAMMAR_DEPTH_MAX) {
        schema_fail(sc, STATUS_TOO_LARGE, "too many schemas are joined here, or they contain each other");
        return NULL;
    }
    const json_t *out = NULL;
    a = unfolded(sc, a);
    b = a ? unfolded(sc, b) : NULL;
    if (json_is_true(a) || json_is_false(b))
        out = b;
    else if (json_is_true(b) || json_is_false(a))
        out = a;
    else if (json_is_object(a) && json_is_object(b))
        out = merge_objects(sc, a, b);
    else if (sc->m->status == STATUS_OK)
        schema_fail(sc, STATUS_INVALID, "a schema must be an object, true or false");
    if (json_is_object(out) && json_array_append_new(sc->made, (json_t *)(uintptr_t)out) != 0)
        out = NULL;
    sc->depth--;
    return sc->m->status == STATUS_OK ? out : NULL;
}

/* ---- schemas that exclude each other */

/* Types that are named, or that its constants have; where neither is there, any. */
static unsigned types_of(const json_t *s)
{
    const json_t *type = json_object_get(s, "type"), *list = json_object_get(s, "enum");
    const json_t *one = json_object_get(s, "const");
    unsigned types = 0;
    if (json_is_boolean(s))
        return json_is_true(s) ? TYPE_ANY : 0;
    if (one)
        return schema_types_of_value(one);
    for (size_t i = 0; i < json_array_size(list); i++)
        types |= schema_types_of_value(json_array_get(list, i));
    if (json_is_string(type))
        types = schema_type_bit(json_string_value(type));
    for (size_t i = 0; i < json_array_size(type); i++) {
        const char *name = json_string_value(json_array_get(type, i));
        types |= name ? schema_type_bit(name) : 0;
    }
    if (json_is_true(json_object_get(s, "nullable")))
        types |= TYPE_NULL;
    return types ? types : TYPE_ANY;
}

static size_t n_constants(const json_t *s)
{
    return json_object_get(s, "const") ? 1 : json_array_size(json_object_get(s, "enum"));
}

static const json_t *constant(const json_t *s, size_t i)
{
    const json_t *one = json_object_get(s, "const");
    return one ? one : json_array_get(json_object_get(s, "enum"), i);
}

static bool constants_disjoint(const json_t *a, const json_t *b)
{
    size_t n_a = n_constants(a), n_b = n_constants(b);
    bool disjoint = n_a > 0 && n_b > 0;
    for (size_t i = 0; i < n_a && disjoint; i++)
        for (size_t k = 0; k < n_b && disjoint; k++)
            disjoint = !json_equal(constant(a, i), constant(b, k));
    return disjoint;
}

static bool requires(const json_t *s, const char *name)
{
    const json_t *list = json_object_get(s, "required");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (text && strcmp(text, name) == 0)
            return true;
    }
    return false;
}

static bool properties_disjoint(struct schema *sc, const json_t *a, const json_t *b, unsigned depth)
{
    const json_t *of_b = json_object_get(b, "properties");
    const char *key;
    json_t *mine;
    json_object_foreach(json_object_get(a, "properties"), key, mine)
    {
        const json_t *other = json_object_get(of_b, key);
        if (other && requires(a, key) && requires(b, key) && schema_disjoint(sc, mine, other, depth + 1))
            return true;
    }
    return false;
}

bool schema_disjoint(struct schema *sc, const json_t *a, const json_t *b, unsigned depth)
{
    a = schema_resolve(sc, a);
    b = schema_resolve(sc, b);
    if (!a || !b || depth > DISJOINT_DEPTH)
        return false;
    unsigned types = types_of(a) & types_of(b);
    if (!types || constants_disjoint(a, b))
        return true;
    return types == TYPE_OBJECT && properties_disjoint(sc, a, b, depth);
}
