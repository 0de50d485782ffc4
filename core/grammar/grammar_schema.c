/* JSON schemas (2020-12, and what draft 7 wrote otherwise) as expressions. A schema says what is allowed, a
 * grammar what comes next; so some things are decided here:
 *
 *   order       properties come in the schema's order, those that aren't required may be left out
 *   more keys   only where additionalProperties says so, or nothing is said of properties at all
 *   type        where none is named, the one that the other keywords speak of
 *   spelling    one for each value: constants compact, strings with the escapes that are needed
 *
 * A keyword that isn't done is refused with its place. A $ref is a rule of its own, so schemas may nest in
 * themselves. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "grammar_json.h"

#define MERGES_MAX 4096U

/* ---- places and failures */

void schema_fail(struct schema *sc, enum status s, const char *format, ...)
{
    struct error why;
    va_list args;
    va_start(args, format);
    vfail(&why, s, format, args);
    va_end(args);
    maker_fail(sc->m, s, "%s: %s", sc->path, why.text);
}

size_t schema_enter(struct schema *sc, const char *keyword, const char *name)
{
    size_t before = sc->n_path;
    int n = snprintf(sc->path + before, sizeof sc->path - before, "/%s%s%s", keyword, name ? "/" : "",
                     name ? name : "");
    sc->n_path = before + (n > 0 ? (size_t)n : 0);
    if (sc->n_path >= sizeof sc->path) { /* cut: the beginning will do */
        sc->n_path = sizeof sc->path - 1;
        while (sc->n_path > before && ((unsigned char)sc->path[sc->n_path - 1] & 0xC0U) == 0x80U)
            sc->n_path--;
        sc->path[sc->n_path] = '\0';
    }
    return before;
}

void schema_leave(struct schema *sc, size_t before)
{
    sc->n_path = before;
    sc->path[before] = '\0';
}

/* ---- keywords */

bool schema_is_listed(const char *key, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(key, *list) == 0)
            return true;
    return false;
}

bool schema_is_annotation(const char *key)
{
    static const char *const keys[] = {"title",
                                       "description",
                                       "default",
                                       "example",
                                       "examples",
                                       "deprecated",
                                       "readOnly",
                                       "writeOnly",
                                       "$schema",
                                       "$id",
                                       "id",
                                       "$comment",
                                       "$defs",
                                       "definitions",
                                       "discriminator",
                                       "xml",
                                       "externalDocs",
                                       "$anchor",
                                       "$dynamicAnchor",
                                       "$vocabulary",
                                       "propertyOrdering",
                                       "contentEncoding",
                                       "contentMediaType",
                                       "contentSchema",
                                       NULL};
    return strncmp(key, "x-", 2) == 0 || schema_is_listed(key, keys);
}

static const char *const known_keys[] = {"type",
                                         "enum",
                                         "const",
                                         "$ref",
                                         "allOf",
                                         "anyOf",
                                         "oneOf",
                                         "nullable",
                                         "properties",
                                         "required",
                                         "additionalProperties",
                                         "patternProperties",
                                         "propertyNames",
                                         "minProperties",
                                         "maxProperties",
                                         "items",
                                         "prefixItems",
                                         "additionalItems",
                                         "minItems",
                                         "maxItems",
                                         "uniqueItems",
                                         "minLength",
                                         "maxLength",
                                         "pattern",
                                         "format",
                                         "minimum",
                                         "maximum",
                                         "exclusiveMinimum",
                                         "exclusiveMaximum",
                                         "multipleOf",
                                         "contains",
                                         "minContains",
                                         "maxContains",
                                         UNEVALUATED_PROPERTIES,
                                         JOINED_PATTERNS,
                                         UNEVALUATED_ITEMS,
                                         "not",
                                         "if",
                                         "then",
                                         "else",
                                         "dependentRequired",
                                         "dependentSchemas",
                                         "dependencies",
                                         NULL};

static void check_keys(struct schema *sc, const json_t *s)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)s, key, value)
    {
        if (schema_is_annotation(key) || schema_is_listed(key, known_keys))
            continue;
        schema_fail(sc, STATUS_UNSUPPORTED, "the keyword \"%.60s\" is not supported", key);
    }
}

/* Whether the schema asserts something by keywords other than these. */
static const char *other_assertion(const json_t *s, const char *const *but)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)s, key,
                        value) if (!schema_is_annotation(key) && !schema_is_listed(key, but)) return key;
    return NULL;
}

bool schema_count(struct schema *sc, const json_t *s, const char *key, uint64_t *out)
{
    const json_t *v = json_object_get(s, key);
    double d = json_number_value(v);
    if (!v)
        return false;
    if (!json_is_number(v) || d < 0 || d > 1e15 || d != (double)(uint64_t)d) {
        schema_fail(sc, STATUS_INVALID, "\"%s\" must be a whole number from 0 on", key);
        return false;
    }
    *out = (uint64_t)d;
    return true;
}

/* ---- types */

static const struct {
    const char *name;
    unsigned bit;
} type_names[] = {{"null", TYPE_NULL},     {"boolean", TYPE_BOOLEAN}, {"integer", TYPE_INTEGER},
                  {"number", TYPE_NUMBER}, {"string", TYPE_STRING},   {"array", TYPE_ARRAY},
                  {"object", TYPE_OBJECT}};

unsigned schema_type_bit(const char *name)
{
    for (size_t i = 0; i < sizeof type_names / sizeof *type_names; i++)
        if (strcmp(name, type_names[i].name) == 0)
            return type_names[i].bit | (type_names[i].bit == TYPE_NUMBER ? (unsigned)TYPE_INTEGER : 0);
    return 0;
}

json_t *schema_type_names(unsigned types)
{
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof type_names / sizeof *type_names; i++) {
        unsigned bits = schema_type_bit(type_names[i].name);
        bool in_number = bits == TYPE_INTEGER && (types & TYPE_NUMBER);
        if ((types & bits) == bits && !in_number)
            json_array_append_new(list, json_string(type_names[i].name));
    }
    return list;
}

unsigned schema_types_of_value(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_NULL:
        return TYPE_NULL;
    case JSON_TRUE:
    case JSON_FALSE:
        return TYPE_BOOLEAN;
    case JSON_STRING:
        return TYPE_STRING;
    case JSON_ARRAY:
        return TYPE_ARRAY;
    case JSON_OBJECT:
        return TYPE_OBJECT;
    case JSON_INTEGER:
        return TYPE_INTEGER;
    case JSON_REAL:
        break;
    }
    double d = json_real_value(v);
    return d > -1e15 && d < 1e15 && d == (double)(int64_t)d ? TYPE_INTEGER : TYPE_NUMBER;
}

unsigned schema_named_types(struct schema *sc, const json_t *type)
{
    unsigned types = 0;
    size_t n = json_is_array(type) ? json_array_size(type) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *t = json_is_array(type) ? json_array_get(type, i) : type;
        unsigned bit = json_is_string(t) ? schema_type_bit(json_string_value(t)) : 0;
        if (!bit)
            schema_fail(sc, STATUS_INVALID,
                        "\"type\" must be null, boolean, integer, number, string, array or object, or a list "
                        "of these");
        types |= bit;
    }
    return types;
}

/* What the other keywords speak of. */
unsigned schema_implied_types(const json_t *s)
{
    static const struct {
        const char *key;
        unsigned type;
    } implied[] = {{"properties", TYPE_OBJECT},
                   {"required", TYPE_OBJECT},
                   {"additionalProperties", TYPE_OBJECT},
                   {"patternProperties", TYPE_OBJECT},
                   {"propertyNames", TYPE_OBJECT},
                   {"minProperties", TYPE_OBJECT},
                   {"maxProperties", TYPE_OBJECT},
                   {"items", TYPE_ARRAY},
                   {"prefixItems", TYPE_ARRAY},
                   {"contains", TYPE_ARRAY},
                   {"uniqueItems", TYPE_ARRAY},
                   {UNEVALUATED_ITEMS, TYPE_ARRAY},
                   {UNEVALUATED_PROPERTIES, TYPE_OBJECT},
                   {"minItems", TYPE_ARRAY},
                   {"maxItems", TYPE_ARRAY},
                   {"pattern", TYPE_STRING},
                   {JOINED_PATTERNS, TYPE_STRING},
                   {"format", TYPE_STRING},
                   {"minLength", TYPE_STRING},
                   {"maxLength", TYPE_STRING},
                   {"minimum", TYPE_NUMBER | TYPE_INTEGER},
                   {"maximum", TYPE_NUMBER | TYPE_INTEGER},
                   {"exclusiveMinimum", TYPE_NUMBER | TYPE_INTEGER},
                   {"exclusiveMaximum", TYPE_NUMBER | TYPE_INTEGER},
                   {"multipleOf", TYPE_NUMBER | TYPE_INTEGER}};
    unsigned types = 0;
    for (size_t i = 0; i < sizeof implied / sizeof *implied; i++)
        if (json_object_get(s, implied[i].key))
            types |= implied[i].type;
    return types ? types : TYPE_ANY;
}

unsigned schema_types_beside(struct schema *sc, const json_t *s)
{
    const json_t *type = json_object_get(s, "type");
    return !s ? 0 : type ? schema_named_types(sc, type) : schema_implied_types(s);
}

static const struct expr *expr_of_types(struct schema *sc, const json_t *s, unsigned types)
{
    struct maker *m = sc->m;
    struct expr_list l = {0};
    bool any = other_assertion(s, (const char *const[]){"type", "nullable", NULL}) == NULL;
    if (any && types == TYPE_ANY)
        return jx_value(m, &sc->json);
    if (types & TYPE_OBJECT)
        list_add(m, &l, schema_object(sc, s));
    if (types & TYPE_ARRAY)
        list_add(m, &l, schema_array(sc, s));
    if (types & TYPE_STRING)
        list_add(m, &l, schema_string(sc, s));
    if (types & (TYPE_NUMBER | TYPE_INTEGER))
        list_add(m, &l, schema_number(sc, s, !(types & TYPE_NUMBER)));
    if (types & TYPE_BOOLEAN)
        list_add(m, &l, expr_alt2(m, expr_text(m, "true"), expr_text(m, "false")));
    if (types & TYPE_NULL)
        list_add(m, &l, expr_text(m, "null"));
    return expr_alt(m, &l);
}

/* ---- constants */

static const struct expr *array_value(struct schema *sc, const json_t *v)
{
    struct expr_list l = {0};
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (i)
            list_add(sc->m, &l, jx_comma(sc->m, &sc->json));
        list_add(sc->m, &l, schema_constant(sc, json_array_get(v, i)));
    }
    return jx_bracketed(sc->m, &sc->json, "[", expr_seq(sc->m, &l), "]");
}

static const struct expr *object_value(struct schema *sc, const json_t *v)
{
    struct maker *m = sc->m;
    struct expr_list l = {0};
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)(uintptr_t)v, key, item)
    {
        if (l.n)
            list_add(m, &l, jx_comma(m, &sc->json));
        list_add(m, &l, jx_quoted(m, expr_spelled(m, key, strlen(key), SPELL_JSON)));
        list_add(m, &l, expr_text(m, ":"));
        list_add(m, &l, jx_space(m, &sc->json));
        list_add(m, &l, schema_constant(sc, item));
    }
    return jx_bracketed(m, &sc->json, "{", expr_seq(m, &l), "}");
}

/* The shortest of the usual spellings that gives the number again. */
void schema_shortest_real(double d, char text[40])
{
    for (int digits = 15; digits <= 17; digits++) {
        double again = 0;
        snprintf(text, 40, "%.*g", digits, d);
        if (sscanf(text, "%lf", &again) == 1 && again == d)
            break;
    }
}

const struct expr *schema_constant(struct schema *sc, const json_t *v)
{
    char number[40];
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return object_value(sc, v);
    case JSON_ARRAY:
        return array_value(sc, v);
    case JSON_STRING:
        return jx_quoted(sc->m, expr_spelled(sc->m, json_string_value(v), json_string_length(v), SPELL_JSON));
    case JSON_INTEGER:
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(v));
        return expr_text(sc->m, number);
    case JSON_REAL:
        schema_shortest_real(json_real_value(v), number);
        return expr_text(sc->m, number);
    case JSON_TRUE:
        return expr_text(sc->m, "true");
    case JSON_FALSE:
        return expr_text(sc->m, "false");
    case JSON_NULL:
        break;
    }
    return expr_text(sc->m, "null");
}

/* Strings share their beginnings, so that long lists stay small while they are matched. */
static const struct expr *values_expr(struct schema *sc, const json_t *const *values, size_t n)
{
    struct maker *m = sc->m;
    struct expr_list l = {0};
    struct text_slice *texts = maker_alloc(m, (n + 1) * sizeof *texts);
    uint32_t n_texts = 0;
    for (size_t i = 0; i < n && texts && m->status == STATUS_OK; i++) {
        const json_t *v = values[i];
        if (!json_is_string(v)) {
            list_add(m, &l, schema_constant(sc, v));
            continue;
        }
        const struct expr *x = expr_spelled(m, json_string_value(v), json_string_length(v), SPELL_JSON);
        if (x->kind == EXPR_BYTES)
            texts[n_texts++] = (struct text_slice){(const char *)x->bytes, x->n};
    }
    if (m->status == STATUS_OK && n_texts)
        list_add(m, &l, jx_quoted(m, expr_any_text(m, texts, n_texts)));
    return expr_alt(m, &l);
}

/* Those of the constants that match all that stands beside them. */
static const struct expr *enum_expr(struct schema *sc, const json_t *s)
{
    const json_t *list = json_object_get(s, "enum"), *one = json_object_get(s, "const");
    if (list && !json_is_array(list))
        schema_fail(sc, STATUS_INVALID, "\"enum\" must be an array");
    size_t n = one ? 1 : json_array_size(list), n_kept = 0;
    const json_t **kept = maker_alloc(sc->m, (n + 1) * sizeof *kept);
    for (size_t i = 0; i < n && kept && sc->m->status == STATUS_OK; i++) {
        const json_t *v = one ? one : json_array_get(list, i);
        if (schema_fits(sc, s, v))
            kept[n_kept++] = v;
    }
    return sc->m->status == STATUS_OK ? values_expr(sc, kept, n_kept) : expr_never();
}

/* ---- references */

static const json_t *step_down(const json_t *at, const char *name, size_t length)
{
    char key[256], *end;
    size_t n = 0;
    for (size_t i = 0; i < length && n + 1 < sizeof key; i++) {
        char c = name[i];
        unsigned hex;
        if (c == '%' && i + 2 < length && sscanf(name + i + 1, "%2x", &hex) == 1) {
            c = (char)hex;
            i += 2;
        }
        if (c == '~' && i + 1 < length && (name[i + 1] == '0' || name[i + 1] == '1'))
            c = name[++i] == '0' ? '~' : '/';
        key[n++] = c;
    }
    key[n] = '\0';
    if (!json_is_array(at))
        return json_object_get(at, key);
    unsigned long index = strtoul(key, &end, 10);
    return *end || end == key ? NULL : json_array_get(at, index);
}

const json_t *schema_at(const json_t *from, const char *pointer)
{
    for (const char *p = pointer; *p == '/' && from;) {
        size_t n = strcspn(p + 1, "/");
        from = step_down(from, p + 1, n);
        p += 1 + n;
    }
    return from;
}

uint32_t schema_add_target(struct schema *sc, const json_t *schema, const char *ref)
{
    if (sc->n_targets == sc->targets_capacity) {
        uint32_t capacity = sc->targets_capacity ? 2 * sc->targets_capacity : 16;
        struct schema_target *more = maker_alloc(sc->m, capacity * sizeof *more);
        if (!more)
            return 0;
        if (sc->n_targets)
            memcpy(more, sc->targets, sc->n_targets * sizeof *more);
        sc->targets = more;
        sc->targets_capacity = capacity;
    }
    size_t n = strlen(ref) + 1;
    char *copy = maker_alloc(sc->m, n);
    sc->targets[sc->n_targets] = (struct schema_target){schema, copy ? memcpy(copy, ref, n) : ""};
    return sc->n_targets++;
}

/* The one that schema_find_refs has put down; NULL: it hasn't. */
static const struct schema_target *found_target(const struct schema *sc, const char *ref)
{
    char *end;
    unsigned long id = ref[0] == '\x01' ? strtoul(ref + 1, &end, 10) : ULONG_MAX;
    return id < sc->n_targets ? &sc->targets[id] : NULL;
}

const json_t *schema_target(struct schema *sc, const char *ref)
{
    const struct schema_target *found = found_target(sc, ref);
    if (found)
        return found->schema;
    if (ref[0] != '#' || (ref[1] && ref[1] != '/')) {
        schema_fail(
            sc, STATUS_UNSUPPORTED,
            "\"$ref\" is \"%.80s\"; only what is in this schema (\"#/...\", anchors, ids) is supported", ref);
        return NULL;
    }
    const json_t *at = schema_at(sc->root, ref + 1);
    if (!at || !(json_is_object(at) || json_is_boolean(at))) {
        schema_fail(sc, STATUS_INVALID, "\"$ref\" is \"%.80s\", but there is no schema at that place", ref);
        return NULL;
    }
    return at;
}

static const char *ref_of(struct schema *sc, const json_t *s)
{
    const json_t *ref = json_object_get(s, "$ref");
    if (ref && !json_is_string(ref))
        schema_fail(sc, STATUS_INVALID, "\"$ref\" must be a string");
    return json_string_value(ref);
}

const json_t *schema_resolve(struct schema *sc, const json_t *s)
{
    static const char *const alone[] = {"$ref", NULL};
    for (unsigned i = 0; i < GRAMMAR_DEPTH_MAX && s && json_object_get(s, "$ref"); i++) {
        if (other_assertion(s, alone))
            return s;
        const char *ref = ref_of(sc, s);
        s = ref ? schema_target(sc, ref) : NULL;
    }
    return s;
}

/* A call of the target's rule, which is made once; what is new waits, so that long chains aren't deep. */
static const struct expr *call_target(struct schema *sc, const json_t *target, const char *path)
{
    struct maker *m = sc->m;
    for (uint32_t i = 0; i < sc->n_refs; i++)
        if (sc->refs[i].target == target)
            return expr_call(m, sc->refs[i].rule);
    if (sc->n_refs == sc->refs_capacity) {
        uint32_t capacity = sc->refs_capacity ? 2 * sc->refs_capacity : 16;
        struct schema_ref *refs = maker_alloc(m, capacity * sizeof *refs);
        if (!refs)
            return expr_never();
        if (sc->n_refs)
            memcpy(refs, sc->refs, sc->n_refs * sizeof *refs);
        sc->refs = refs;
        sc->refs_capacity = capacity;
    }
    struct schema_ref *r = &sc->refs[sc->n_refs++];
    r->target = target;
    r->rule = rule_new(m, NULL);
    snprintf(r->path, sizeof r->path, "%s", path);
    return expr_call(m, r->rule);
}

/* ---- combinations */

/* Without the keyword; a new reference. */
json_t *schema_without(const json_t *s, const char *key)
{
    json_t *copy = json_copy((json_t *)(uintptr_t)s);
    if (copy)
        json_object_del(copy, key);
    return copy;
}

const json_t *schema_keep(struct schema *sc, json_t *made)
{
    if (!made || json_array_append_new(sc->made, made) != 0) {
        schema_fail(sc, STATUS_NO_MEMORY, "no memory for the schema");
        return NULL;
    }
    return made;
}

static const struct expr *all_of(struct schema *sc, const json_t *s)
{
    const json_t *list = json_object_get(s, "allOf"), *all = schema_keep(sc, schema_without(s, "allOf"));
    if (!json_is_array(list) || json_array_size(list) == 0)
        schema_fail(sc, STATUS_INVALID, "\"allOf\" must be an array of schemas");
    for (size_t i = 0; i < json_array_size(list) && all && sc->m->status == STATUS_OK; i++)
        all = schema_merge(sc, all, json_array_get(list, i));
    return all && sc->m->status == STATUS_OK ? schema_expr(sc, all) : expr_never();
}

static bool are_disjoint(struct schema *sc, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        for (size_t k = i + 1; k < json_array_size(list) && sc->m->status == STATUS_OK; k++)
            if (!schema_disjoint(sc, json_array_get(list, i), json_array_get(list, k), 0))
                return false;
    return true;
}

static const struct expr *one_of(struct schema *sc, const json_t *s, const char *key)
{
    static const char *const nothing[] = {NULL};
    const json_t *list = json_object_get(s, key), *rest = schema_keep(sc, schema_without(s, key));
    struct expr_list l = {0};
    char number[24];
    if (!json_is_array(list) || json_array_size(list) == 0)
        schema_fail(sc, STATUS_INVALID, "\"%s\" must be an array of schemas", key);
    if (strcmp(key, "oneOf") == 0 && !are_disjoint(sc, list))
        return schema_exactly_one(sc, s);
    bool alone = !rest || !other_assertion(rest, nothing);
    for (size_t i = 0; i < json_array_size(list) && sc->m->status == STATUS_OK; i++) {
        const json_t *way = json_array_get(list, i);
        snprintf(number, sizeof number, "%zu", i);
        size_t before = schema_enter(sc, key, number);
        if (!alone)
            way = schema_merge(sc, rest, way);
        if (way)
            list_add(sc->m, &l, schema_expr(sc, way));
        schema_leave(sc, before);
    }
    return expr_alt(sc->m, &l);
}

static const struct expr *referred(struct schema *sc, const json_t *s)
{
    static const char *const alone[] = {"$ref", NULL};
    const char *ref = ref_of(sc, s);
    const json_t *target = ref ? schema_target(sc, ref) : NULL;
    if (!target)
        return expr_never();
    if (!other_assertion(s, alone))
        return call_target(sc, target, found_target(sc, ref) ? found_target(sc, ref)->ref : ref);
    const json_t *rest = schema_keep(sc, schema_without(s, "$ref"));
    const json_t *both = rest ? schema_merge(sc, target, rest) : NULL;
    return both ? schema_expr(sc, both) : expr_never();
}

static const struct expr *object_schema(struct schema *sc, const json_t *s)
{
    const struct expr *x;
    s = schema_scoped(sc, s);
    if (!s)
        return expr_never();
    check_keys(sc, s);
    if (json_object_get(s, "$ref"))
        return referred(sc, s);
    if (json_object_get(s, "allOf"))
        return all_of(sc, s);
    if ((x = schema_logic(sc, s)) != NULL)
        return x;
    if (json_object_get(s, "anyOf"))
        return one_of(sc, s, "anyOf");
    if (json_object_get(s, "oneOf"))
        return one_of(sc, s, "oneOf");
    if (json_object_get(s, "enum") || json_object_get(s, "const"))
        x = enum_expr(sc, s);
    else
        x = expr_of_types(sc, s, schema_types_beside(sc, s));
    return json_is_true(json_object_get(s, "nullable")) ? expr_alt2(sc->m, x, expr_text(sc->m, "null")) : x;
}

const struct expr *schema_expr(struct schema *sc, const json_t *s)
{
    const struct expr *x = expr_never();
    if (!maker_goes_on(sc->m))
        return x;
    if (json_is_true(s))
        return jx_value(sc->m, &sc->json);
    if (json_is_false(s))
        return x;
    if (!json_is_object(s)) {
        schema_fail(sc, STATUS_INVALID, "a schema must be an object, true or false");
        return x;
    }
    if (++sc->depth > GRAMMAR_DEPTH_MAX)
        schema_fail(sc, STATUS_TOO_LARGE, "schemas are nested deeper than %u", GRAMMAR_DEPTH_MAX);
    else
        x = object_schema(sc, s);
    sc->depth--;
    return x;
}

const struct expr *schema_rule(struct schema *sc, const json_t *s)
{
    const struct expr *x = schema_expr(sc, s);
    return x->kind == EXPR_CALL || x->kind == EXPR_NEVER ? x : expr_call(sc->m, rule_new(sc->m, x));
}

const struct expr *schema_parse(struct maker *m, const char *text, size_t length)
{
    struct schema sc = {.m = m, .path = "#", .n_path = 1};
    struct error err;
    const struct expr *x = expr_never();
    json_rules_init(&sc.json);
    sc.made = json_array();
    if (json_parse(text, length, "schema", 2 * GRAMMAR_DEPTH_MAX, &sc.root, &err) != STATUS_OK)
        maker_fail(m, err.status, "%s", err.text);
    else if (!json_is_object(sc.root))
        maker_fail(m, STATUS_INVALID, "schema: expected an object");
    else
        schema_find_refs(&sc);
    if (m->status == STATUS_OK)
        x = call_target(&sc, sc.root, "#");
    for (uint32_t i = 0; i < sc.n_refs && maker_goes_on(m); i++) { /* the list grows meanwhile */
        uint32_t rule = sc.refs[i].rule;
        sc.n_path = (size_t)snprintf(sc.path, sizeof sc.path, "%s", sc.refs[i].path);
        sc.depth = 0;
        rule_define(m, rule, schema_expr(&sc, sc.refs[i].target));
    }
    json_decref(sc.root);
    json_decref(sc.made);
    return x;
}
