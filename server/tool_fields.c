/* Arguments in notations that aren't JSON: each property of the schema is a field, and its value what the
 * notation has for it. A plain string is free text up to its end, a choice of strings their list, true and
 * false have the language's words; all else is JSON, which the reply takes in any notation.
 *
 * Fields come in the schema's order, as members of an object do in grammars of JSON. What can't be said so,
 * such as a pattern where strings aren't quoted, makes the whole call one with JSON. */
#include <string.h>

#include "tool_grammar_inner.h"

#define FIELDS_MAX 64U
#define FIRST_MAX 8U /* fields that may be the first one */
#define SINGLE_QUOTED "'([^'\\\\\\x00-\\x1F]|\\\\['\"\\\\nrt])*'"
#define ANY_KEY "[A-Za-z_][A-Za-z0-9_]*"
#define ANNOTATIONS "title", "description", "default", "example", "examples", "deprecated", "readOnly"

struct notation {
    const char *before, *between, *line, *value, *behind; /* line: may be a line break between two tags */
    const char *separator;
    const char *end, *never; /* of a text that isn't quoted; what isn't in it */
    const char *cdata_end;   /* of one behind CDATA, where that may stand in front */
    bool joined;             /* no line breaks between fields */
};

static const struct notation notations[] = {
    [CALLS_PYTHON] = {.before = "", .between = "=", .separator = ","},
    [CALLS_BRACED] = {.before = "", .between = ":", .separator = ","},
    [CALLS_TAGGED] = {.before = "<arg_key>",
                      .between = "</arg_key>",
                      .line = "\\n?",
                      .value = "<arg_value>",
                      .behind = "</arg_value>",
                      .end = "</arg_value>"},
    [CALLS_CODER] = {.before = "<parameter=",
                     .between = ">\n",
                     .behind = "\n</parameter>",
                     .end = "\n</parameter>",
                     .never = "</parameter>"},
    [CALLS_PARAM] = {.before = "<param name=\"",
                     .between = "\">",
                     .behind = "</param>",
                     .end = "</param>",
                     .never = CDATA,
                     .cdata_end = "]]></param>",
                     .joined = true},
};

struct fields {
    struct builder *b;
    const struct notation *how;
    enum call_style style;
    const json_t *root; /* the parameters' schema */
};

static bool is_among(const char *key, const char *const *keys, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(keys[i], key) == 0)
            return true;
    return false;
}

/* Says nothing but these, and what says nothing about values. */
static bool has_only(const json_t *schema, const char *const *keys, size_t n)
{
    static const char *const annotations[] = {ANNOTATIONS};
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)schema, key, v)
    {
        if (!is_among(key, keys, n) &&
            !is_among(key, annotations, sizeof annotations / sizeof annotations[0]))
            return false;
    }
    return true;
}

/* The reply keeps such values as they are (reply_function.c). */
static bool is_text(const json_t *schema)
{
    const json_t *type = json_object_get(schema, "type");
    if (json_array_size(type) == 1)
        type = json_array_get(type, 0);
    return json_is_string(type) && strcmp(json_string_value(type), "string") == 0;
}

static bool is_boolean(const json_t *schema)
{
    static const char *const keys[] = {"type"};
    const char *type = json_string_value(json_object_get(schema, "type"));
    return type && strcmp(type, "boolean") == 0 && has_only(schema, keys, 1);
}

/* The strings of an enum or a const, as a new array; NULL: it is another schema. */
static json_t *choices_of(const json_t *schema)
{
    static const char *const keys[] = {"type", "enum", "const"};
    json_t *list = json_object_get(schema, "enum"), *one = json_object_get(schema, "const");
    const json_t *type = json_object_get(schema, "type");
    if ((list != NULL) == (one != NULL) || (type && !is_text(schema)) || !has_only(schema, keys, 3))
        return NULL;
    json_t *all = one ? json_pack("[O]", one) : json_copy(list);
    bool fine = json_array_size(all) > 0;
    for (size_t i = 0; fine && i < json_array_size(all); i++)
        fine = json_is_string(json_array_get(all, i));
    if (fine)
        return all;
    json_decref(all);
    return NULL;
}

/* References to other places than definitions mean another thing in a part of the schema. */
static bool refers_elsewhere(const char *text)
{
    static const char key[] = "\"$ref\":\"";
    for (const char *at = text; (at = strstr(at, key)); at++)
        if (strncmp(at + sizeof key - 1, "#/$defs/", 8) != 0 &&
            strncmp(at + sizeof key - 1, "#/definitions/", 14) != 0)
            return true;
    return false;
}

/* A value as JSON; false: it needs the rest of the schema. */
static bool put_json(const struct fields *f, struct parts *out, const json_t *schema)
{
    static const char *const shared[] = {"$defs", "definitions"};
    json_t *copy = json_copy((json_t *)(uintptr_t)schema);
    for (size_t i = 0; i < sizeof shared / sizeof shared[0]; i++) {
        json_t *defs = json_object_get(f->root, shared[i]);
        if (defs && !json_object_get(copy, shared[i]))
            json_object_set(copy, shared[i], defs);
    }
    const char *text = json_text(f->b, copy);
    json_decref(copy);
    put(out, part_of(GRAMMAR_JSON_SCHEMA, text));
    return text && !refers_elsewhere(text);
}

/* ---- values */

/* The choices between single quotes, those that need no escapes; an array of texts. */
static json_t *single_quoted(const json_t *choices)
{
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(choices); i++) {
        const char *s = json_string_value(json_array_get(choices, i));
        size_t n = json_string_length(json_array_get(choices, i)), k = 0;
        while (k < n && (unsigned char)s[k] >= ' ' && s[k] != '\'' && s[k] != '\\')
            k++;
        if (k == n)
            json_array_append_new(out, json_sprintf("'%s'", s));
    }
    return out;
}

static struct grammar_part choice_part(struct builder *b, const json_t *list)
{
    return part_of(GRAMMAR_CHOICE, json_text(b, list));
}

/* Python's own way beside JSON's. */
static bool put_python(const struct fields *f, struct parts *out, const json_t *schema, json_t *choices)
{
    static const char *const keys[] = {"type"};
    struct builder *b = f->b;
    struct parts ways[2] = {parts_new(b, 1), parts_new(b, 1)};
    json_t *own = NULL;
    if (choices)
        own = single_quoted(choices);
    else if (is_boolean(schema))
        own = json_pack("[s, s]", "True", "False");
    if (json_array_size(own))
        put(&ways[1], choice_part(b, own));
    else if (is_text(schema) && has_only(schema, keys, 1))
        put(&ways[1], part_of(GRAMMAR_REGEX, SINGLE_QUOTED));
    json_decref(own);
    bool fine = put_json(f, &ways[0], schema);
    put(out, either(b, ways, ways[1].n ? 2 : 1));
    return fine;
}

static bool put_braced(const struct fields *f, struct parts *out, const json_t *schema, const json_t *choices)
{
    static const char *const keys[] = {"type"};
    const char *quote = f->b->g->format->calls->quote;
    bool fine = true;
    for (size_t i = 0; i < json_array_size(choices); i++)
        fine = fine && !strstr(json_string_value(json_array_get(choices, i)), quote);
    if (choices && fine) {
        put(out, part_of(GRAMMAR_TOKEN, quote));
        put(out, choice_part(f->b, choices));
        put(out, part_of(GRAMMAR_TOKEN, quote));
        return true;
    }
    if (!is_text(schema) || !has_only(schema, keys, 1))
        return put_json(f, out, schema);
    put(out, part_of(GRAMMAR_TOKEN, quote));
    put(out, text_until(f->b, quote, NULL, true));
    return true;
}

/* A text between tags, and the closing one. */
static void put_text_of(const struct fields *f, struct parts *out)
{
    const struct notation *how = f->how;
    struct parts ways[2] = {parts_new(f->b, 1), parts_new(f->b, 2)};
    put(&ways[0], text_until(f->b, how->end, how->never, true));
    if (how->cdata_end) {
        put(&ways[1], part_of(GRAMMAR_LITERAL, CDATA));
        put(&ways[1], text_until(f->b, how->cdata_end, NULL, true));
    }
    put(out, either(f->b, ways, how->cdata_end ? 2 : 1));
}

/* A text between tags has no quotes, so what it must be besides can't be said. */
static bool put_tagged(const struct fields *f, struct parts *out, const json_t *schema, const json_t *choices)
{
    static const char *const keys[] = {"type"};
    const struct notation *how = f->how;
    if (!is_text(schema)) {
        bool fine = put_json(f, out, schema);
        put(out, part_of(GRAMMAR_LITERAL, how->behind));
        return fine;
    }
    for (size_t i = 0; i < json_array_size(choices); i++)
        if (strstr(json_string_value(json_array_get(choices, i)), how->end) ||
            (how->never && strstr(json_string_value(json_array_get(choices, i)), how->never)))
            return false;
    if (choices) {
        put(out, choice_part(f->b, choices));
        put(out, part_of(GRAMMAR_LITERAL, how->behind));
        return true;
    }
    put_text_of(f, out);
    return has_only(schema, keys, 1);
}

static bool put_value(const struct fields *f, struct parts *out, const json_t *schema)
{
    json_t *choices = choices_of(schema);
    bool fine = f->style == CALLS_PYTHON   ? put_python(f, out, schema, choices)
                : f->style == CALLS_BRACED ? put_braced(f, out, schema, choices)
                                           : put_tagged(f, out, schema, choices);
    json_decref(choices);
    return fine;
}

/* ---- fields */

static void put_key(const struct fields *f, struct parts *out, struct grammar_part key)
{
    const struct notation *how = f->how;
    put(out, part_of(GRAMMAR_LITERAL, how->before));
    put(out, key);
    put(out, part_of(GRAMMAR_LITERAL, how->between));
    if (how->line)
        put(out, part_of(GRAMMAR_REGEX, how->line));
    if (how->value)
        put(out, part_of(GRAMMAR_LITERAL, how->value));
}

/* Behind a field whose tags may stand in lines. */
static void put_line_end(const struct fields *f, struct parts *out)
{
    if (!f->how->separator && !f->how->joined)
        put(out, part_of(f->how->line ? GRAMMAR_REGEX : GRAMMAR_LITERAL, f->how->line ? f->how->line : "\n"));
}

/* A field, as one part named after it. False: it can't be written so. */
static bool field_of(const struct fields *f, const char *key, const json_t *schema, struct grammar_part *out)
{
    struct parts p = parts_new(f->b, 12);
    bool fine = key[0] && strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") ==
                              strlen(key);
    if (!fine || !json_is_object(schema))
        return false;
    put_key(f, &p, part_of(GRAMMAR_LITERAL, key));
    fine = put_value(f, &p, schema);
    put_line_end(f, &p);
    struct grammar_sequence *q = arena_alloc(f->b->arena, sizeof *q);
    f->b->failed |= !q;
    if (q)
        *q = (struct grammar_sequence){p.items, p.n};
    *out = group_of(f->b, (struct grammar_spec){.alternatives = q, .n_alternatives = 1, .name = key});
    return fine;
}

static void put_separator(const struct fields *f, struct parts *out)
{
    bool forced = tool_grammar_forces(f->b->g), blank = f->style == CALLS_PYTHON;
    if (f->how->separator)
        put(out, part_of(GRAMMAR_LITERAL, f->how->separator));
    if (f->how->separator && !forced)
        put(out, part_of(GRAMMAR_REGEX, "[ \\n]?"));
    else if (f->how->separator && blank)
        put(out, part_of(GRAMMAR_LITERAL, " "));
}

struct field_list {
    struct grammar_part items[FIELDS_MAX];
    bool required[FIELDS_MAX];
    uint32_t n;
};

/* Fields from `first` on, that one without a separator in front of it. */
static struct parts fields_from(const struct fields *f, const struct field_list *list, uint32_t first)
{
    struct parts all = parts_new(f->b, list->n - first + 1);
    for (uint32_t i = first; i < list->n; i++) {
        bool is_first = i == first && f->how->separator;
        struct parts one = parts_new(f->b, 4);
        if (!is_first)
            put_separator(f, &one);
        put(&one, list->items[i]);
        put(&all, repeat(f->b, one, is_first || list->required[i], 1));
    }
    return all;
}

static bool put_list(const struct fields *f, struct parts *out, const struct field_list *list)
{
    struct parts ways[FIRST_MAX + 1];
    uint32_t n = 0;
    bool may_be_empty = true;
    if (!f->how->separator) {
        put(out, repeat(f->b, fields_from(f, list, 0), 1, 1));
        return true;
    }
    for (uint32_t i = 0; i < list->n && may_be_empty; i++) {
        if (n == FIRST_MAX)
            return false;
        ways[n++] = fields_from(f, list, i);
        may_be_empty = !list->required[i];
    }
    if (may_be_empty)
        ways[n++] = parts_new(f->b, 1);
    put(out, either(f->b, ways, n));
    return true;
}

/* The schema's properties; false: it says more than that. */
static bool read_properties(const struct fields *f, struct field_list *list)
{
    static const char *const keys[] = {"type",  "properties",  "required", "additionalProperties",
                                       "$defs", "definitions", "$schema",  "$id"};
    const json_t *properties = json_object_get(f->root, "properties"),
                 *required = json_object_get(f->root, "required"), *type = json_object_get(f->root, "type");
    const char *key;
    json_t *v;
    size_t n_required = 0;
    if (!has_only(f->root, keys, sizeof keys / sizeof keys[0]) || json_object_size(properties) > FIELDS_MAX ||
        (type && strcmp(json_is_string(type) ? json_string_value(type) : "", "object") != 0))
        return false;
    json_object_foreach((json_t *)(uintptr_t)properties, key, v)
    {
        for (size_t i = 0; i < json_array_size(required); i++) {
            const char *name = json_string_value(json_array_get(required, i));
            list->required[list->n] |= name && strcmp(name, key) == 0;
        }
        n_required += list->required[list->n];
        if (!field_of(f, key, v, &list->items[list->n++]))
            return false;
    }
    return n_required == json_array_size(required);
}

/* Any fields, for tools whose arguments may be anything. */
static void put_any(const struct fields *f, struct parts *out)
{
    static const char *const any_words = "[\"True\",\"False\",\"None\"]";
    struct builder *b = f->b;
    struct parts one = parts_new(b, 12), more = parts_new(b, 4), all = parts_new(b, 2), ways[3];
    put_key(f, &one, part_of(GRAMMAR_REGEX, ANY_KEY));
    for (size_t i = 0; i < 3; i++)
        ways[i] = parts_new(b, 2);
    put(&ways[0], part_of(GRAMMAR_JSON_SCHEMA, "{}"));
    if (f->style == CALLS_PYTHON) {
        put(&ways[1], part_of(GRAMMAR_REGEX, SINGLE_QUOTED));
        put(&ways[2], part_of(GRAMMAR_CHOICE, any_words));
    } else if (f->style == CALLS_BRACED) {
        put(&ways[1], part_of(GRAMMAR_TOKEN, b->g->format->calls->quote));
        put(&ways[1], text_until(b, b->g->format->calls->quote, NULL, true));
    }
    if (f->how->end)
        put_text_of(f, &one);
    else
        put(&one, either(b, ways, f->style == CALLS_PYTHON ? 3 : 2));
    put_line_end(f, &one);
    struct grammar_part field = repeat(b, one, 1, 1);
    if (f->how->separator) {
        put_separator(f, &more);
        put(&more, field);
        put(&all, field);
        put(&all, repeat(b, more, 0, GRAMMAR_FOREVER));
        put(out, repeat(b, all, 0, 1));
    } else {
        put(out, repeat(b, one, 0, GRAMMAR_FOREVER));
    }
}

bool put_fields(struct builder *b, struct parts *out, const json_t *tool)
{
    const json_t *root = json_object_get(json_object_get(tool, "function"), "parameters");
    enum call_style style = b->g->format->calls->style;
    struct fields f = {.b = b, .how = &notations[style], .style = style, .root = root};
    if (!tool_grammar_forces(b->g) && !tool_is_strict(tool)) {
        put_any(&f, out);
        return true;
    }
    if (!json_is_object(root))
        return true; /* none */
    struct field_list *list = arena_alloc(b->arena, sizeof *list);
    b->failed |= !list;
    return list && read_properties(&f, list) && put_list(&f, out, list);
}
