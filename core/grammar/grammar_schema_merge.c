/* Two schemas that must both hold, as one: for allOf, and for what stands beside a $ref or an anyOf. Where a
 * keyword can't be joined, or would mean something else in the joined schema, that is said. */
#include <string.h>

#include "grammar_json.h"

#define MERGES_MAX 1024U
#define DISJOINT_DEPTH 6U

static bool is_one_of(const char *key, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(key, *list) == 0)
            return true;
    return false;
}

static json_t *both_types(const json_t *a, const json_t *b)
{
    static const char *const names[] = {"null", "boolean", "number", "string", "array", "object"};
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
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((types & schema_type_bit(names[i])) == schema_type_bit(names[i]))
            json_array_append_new(list, json_string(names[i]));
    if ((types & TYPE_INTEGER) && !(types & TYPE_NUMBER))
        json_array_append_new(list, json_string("integer"));
    return list;
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

/* The keys of one that the other doesn't have. */
static const char *first_other(const json_t *of, const json_t *other)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)of, key, value) if (!json_object_get(other, key)) return key;
    return NULL;
}

/* additionalProperties speaks of the properties beside it: another side's would change what it means. */
static void check_closed(struct schema *sc, const json_t *a, const json_t *b)
{
    const json_t *closed = json_object_get(a, "additionalProperties");
    const char *more = first_other(json_object_get(b, "properties"), json_object_get(a, "properties"));
    if (closed && !json_is_true(closed) && more)
        schema_fail(sc, STATUS_UNSUPPORTED,
                    "\"additionalProperties\" in one of the joined schemas and the property \"%.60s\" in "
                    "another are not supported",
                    more);
    if (json_object_get(a, "items") && json_object_get(b, "prefixItems"))
        schema_fail(
            sc, STATUS_UNSUPPORTED,
            "\"items\" in one of the joined schemas and \"prefixItems\" in another are not supported");
}

static json_t *both_properties(struct schema *sc, const json_t *a, const json_t *b)
{
    json_t *out = json_copy((json_t *)(uintptr_t)a);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)b, key, value)
    {
        const json_t *mine = json_object_get(a, key);
        const json_t *both = mine ? schema_merge(sc, mine, value) : value;
        if (both)
            json_object_set(out, key, (json_t *)(uintptr_t)both);
    }
    return out;
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
    static const char *const schemas[] = {"items", "additionalProperties", "propertyNames", NULL};
    if (schema_is_annotation(key) || json_equal(a, b))
        return json_incref((json_t *)(uintptr_t)a);
    if (strcmp(key, "type") == 0)
        return both_types(a, b);
    if (strcmp(key, "required") == 0 || strcmp(key, "enum") == 0)
        return both_lists(a, b, key[0] == 'r');
    if (strcmp(key, "properties") == 0 && json_is_object(a) && json_is_object(b))
        return both_properties(sc, a, b);
    if (json_is_number(a) && json_is_number(b) && (is_one_of(key, least) || is_one_of(key, most)))
        return larger(a, b, is_one_of(key, least));
    if (is_one_of(key, schemas)) {
        const json_t *both = schema_merge(sc, a, b);
        return json_incref((json_t *)(uintptr_t)both);
    }
    if (strcmp(key, "nullable") == 0)
        return json_false();
    schema_fail(sc, STATUS_UNSUPPORTED, "\"%.60s\" in two joined schemas is not supported", key);
    return NULL;
}

/* Without a $ref or allOf at its top: those are joined in first. */
static const json_t *unfolded(struct schema *sc, const json_t *s)
{
    const char *ref = json_string_value(json_object_get(s, "$ref"));
    const json_t *all = json_object_get(s, "allOf"), *out = s;
    if (!ref && !json_is_array(all))
        return s;
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

static json_t *merge_objects(struct schema *sc, const json_t *a, const json_t *b)
{
    json_t *out = json_copy((json_t *)(uintptr_t)a), *value;
    const char *key;
    check_closed(sc, a, b);
    check_closed(sc, b, a);
    json_object_foreach((json_t *)(uintptr_t)b, key, value)
    {
        const json_t *mine = json_object_get(a, key);
        json_t *both = mine ? both_of(sc, key, mine, value) : json_incref(value);
        if (!both || sc->m->status != STATUS_OK) {
            json_decref(both);
            break;
        }
        json_object_set_new(out, key, both);
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
