/* Whether a constant matches a schema: for enum and const, which leave those that do. */
#include <math.h>
#include <string.h>

#include "grammar_json.h"

static uint64_t n_characters(const json_t *text)
{
    const char *s = json_string_value(text);
    size_t at = 0;
    uint64_t n = 0;
    uint32_t c;
    while (next_code_point(s, json_string_length(text), &at, &c))
        n++;
    return n;
}

static bool is_among(const json_t *list, const json_t *v)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (schema_equal(json_array_get(list, i), v))
            return true;
    return false;
}

/* 1 and 1.0 are one number. */
bool schema_equal(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return json_is_integer(a) && json_is_integer(b) ? json_integer_value(a) == json_integer_value(b)
                                                        : json_number_value(a) == json_number_value(b);
    if (json_typeof(a) != json_typeof(b))
        return false;
    if (json_is_array(a)) {
        bool equal = json_array_size(a) == json_array_size(b);
        for (size_t i = 0; i < json_array_size(a) && equal; i++)
            equal = schema_equal(json_array_get(a, i), json_array_get(b, i));
        return equal;
    }
    if (!json_is_object(a))
        return json_equal(a, b);
    bool equal = json_object_size(a) == json_object_size(b);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)a, key, value)
    {
        const json_t *other = json_object_get(b, key);
        equal = equal && other && schema_equal(value, other);
    }
    return equal;
}

/* ---- keywords, each for the values that it speaks of */

static bool fits_number(const json_t *v, const char *key, const json_t *bound)
{
    double x = json_number_value(v), y = json_number_value(bound);
    if (!json_is_number(v) || !json_is_number(bound))
        return true;
    if (strcmp(key, "minimum") == 0)
        return x >= y;
    if (strcmp(key, "maximum") == 0)
        return x <= y;
    if (strcmp(key, "exclusiveMinimum") == 0)
        return x > y;
    return x < y;
}

static bool fits_count(const json_t *v, const char *key, const json_t *bound)
{
    bool least = key[1] == 'i';
    uint64_t n, y = json_number_value(bound) >= 0 ? (uint64_t)json_number_value(bound) : 0;
    if (json_is_string(v) && strcmp(key + 3, "Length") == 0)
        n = n_characters(v);
    else if (json_is_array(v) && strcmp(key + 3, "Items") == 0)
        n = json_array_size(v);
    else if (json_is_object(v) && strcmp(key + 3, "Properties") == 0)
        n = json_object_size(v);
    else
        return true;
    return least ? n >= y : n <= y;
}

static bool fits_properties(struct schema *sc, const json_t *s, const json_t *v)
{
    const json_t *properties = json_object_get(s, "properties"),
                 *more = json_object_get(s, "additionalProperties");
    const char *key;
    json_t *value;
    bool fits = true;
    json_object_foreach((json_t *)(uintptr_t)v, key, value)
    {
        const json_t *own = json_object_get(properties, key);
        own = own ? own : more;
        fits = fits && (!own || schema_fits(sc, own, value));
    }
    return fits;
}

static bool fits_required(const json_t *required, const json_t *v)
{
    bool fits = true;
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        fits = fits && (!name || json_object_get(v, name));
    }
    return fits;
}

static bool fits_items(struct schema *sc, const json_t *s, const json_t *v)
{
    const json_t *items = json_object_get(s, "items"), *prefix = json_object_get(s, "prefixItems");
    bool fits = true;
    if (json_is_array(items)) {
        prefix = items;
        items = json_object_get(s, "additionalItems");
    }
    for (size_t i = 0; i < json_array_size(v) && fits; i++) {
        const json_t *own = i < json_array_size(prefix) ? json_array_get(prefix, i) : items;
        fits = !own || schema_fits(sc, own, json_array_get(v, i));
    }
    return fits;
}

static bool fits_list(struct schema *sc, const char *key, const json_t *list, const json_t *v)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(list); i++)
        n += schema_fits(sc, json_array_get(list, i), v);
    return key[1] == 'l' ? n == json_array_size(list) : key[1] == 'n' && key[0] == 'a' ? n > 0 : n == 1;
}

static bool fits_pattern(struct schema *sc, const json_t *pattern, const json_t *v)
{
    uint64_t n[2];
    bool known = false;
    const struct expr *text = expr_spelled(sc->m, json_string_value(v), json_string_length(v), SPELL_JSON);
    const struct expr *x =
        schema_pattern(sc, json_string_value(pattern), json_string_length(pattern), "pattern", n);
    bool fits = sc->m->status == STATUS_OK && expr_matches(sc->m, x, text, &known);
    if (!known)
        schema_fail(sc, STATUS_TOO_LARGE, "\"pattern\" needs too many states to check a constant");
    return fits;
}

static bool fits_keyword(struct schema *sc, const json_t *s, const char *key, const json_t *asked,
                         const json_t *v)
{
    static const char *const bounds[] = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", NULL};
    static const char *const counts[] = {"minLength",     "maxLength",     "minItems", "maxItems",
                                         "minProperties", "maxProperties", NULL};
    static const char *const lists[] = {"anyOf", "allOf", "oneOf", NULL};
    static const char *const members[] = {"properties", "additionalProperties", NULL};
    static const char *const items[] = {"items", "prefixItems", "additionalItems", NULL};
    if (strcmp(key, "type") == 0)
        return (schema_types_of_value(v) & schema_named_types(sc, asked)) != 0;
    if (strcmp(key, "enum") == 0)
        return is_among(asked, v);
    if (strcmp(key, "const") == 0)
        return schema_equal(asked, v);
    if (strcmp(key, "not") == 0)
        return !schema_fits(sc, asked, v);
    if (schema_is_listed(key, bounds))
        return fits_number(v, key, asked);
    if (schema_is_listed(key, counts))
        return fits_count(v, key, asked);
    if (schema_is_listed(key, lists))
        return fits_list(sc, key, asked, v);
    if (strcmp(key, "multipleOf") == 0 && (!json_is_number(v) || json_number_value(asked) == 1.0))
        return !json_is_number(v) || (schema_types_of_value(v) & TYPE_INTEGER);
    if (strcmp(key, "required") == 0)
        return !json_is_object(v) || fits_required(asked, v);
    if (schema_is_listed(key, members))
        return !json_is_object(v) || fits_properties(sc, s, v);
    if (schema_is_listed(key, items))
        return !json_is_array(v) || fits_items(sc, s, v);
    if (schema_is_annotation(key) || strcmp(key, "nullable") == 0)
        return true;
    if (json_is_string(v) && json_is_string(asked) && strcmp(key, "pattern") == 0)
        return fits_pattern(sc, asked, v);
    if (!json_is_string(v) && (strcmp(key, "pattern") == 0 || strcmp(key, "format") == 0))
        return true;
    schema_fail(sc, STATUS_UNSUPPORTED, "the keyword \"%.60s\" beside \"enum\" or \"const\" is not supported",
                key);
    return false;
}

bool schema_fits(struct schema *sc, const json_t *s, const json_t *v)
{
    const char *key;
    json_t *asked;
    bool fits = true;
    if (json_is_boolean(s) || !maker_goes_on(sc->m))
        return json_is_true(s);
    if (sc->depth >= GRAMMAR_DEPTH_MAX || !json_is_object(s)) {
        schema_fail(sc, STATUS_UNSUPPORTED, "a constant can't be checked against what stands beside it");
        return false;
    }
    sc->depth++;
    json_object_foreach((json_t *)(uintptr_t)s, key, asked)
    {
        const json_t *target = NULL;
        if (strcmp(key, "$ref") == 0)
            target = schema_target(sc, json_is_string(asked) ? json_string_value(asked) : "");
        fits = fits && (target ? schema_fits(sc, target, v) : fits_keyword(sc, s, key, asked, v));
    }
    sc->depth--;
    return fits && sc->m->status == STATUS_OK;
}
