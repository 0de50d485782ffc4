/* The fields that say what an answer must look like: OpenAI's response_format, llama-server's json_schema and
 * grammar, vLLM's guided_* and structured_outputs. One of them at most. Pure; any thread, a worker's as a
 * rule. */
#include "api_grammar.h"

#include <string.h>

#include "format.h"
#include "structural_tag.h"

#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
#define NAME_MAX_BYTES 64U
#define TAGS_DEPTH_MAX 64U

struct found {
    struct reader *r;
    struct arena *arena;
    const char *field; /* the first one that asks; NULL: none */
    struct grammar_part part;
};

static void drop_json(void *v)
{
    json_decref(v);
}

/* Absent, or said to be nothing. */
static bool asks(const json_t *v)
{
    return v && !json_is_null(v) && !json_is_false(v) && !(json_is_string(v) && !json_string_length(v));
}

static bool is_first(struct found *f, const char *field)
{
    if (f->r->status != STATUS_OK)
        return false;
    if (f->field)
        read_fail(f->r, STATUS_INVALID, field, "%s and %s: found both, expected one of them", f->field,
                  field);
    f->field = field;
    return f->r->status == STATUS_OK;
}

static void take_text(struct found *f, const char *field, enum grammar_kind kind, const json_t *v)
{
    char text[96];
    if (!is_first(f, field))
        return;
    if (!json_is_string(v))
        read_fail(f->r, STATUS_INVALID, field, "%s: found %s, expected a string", field,
                  describe_json(v, text, sizeof text));
    f->part = (struct grammar_part){kind, json_string_value(v), json_string_length(v)};
}

/* A value as its text, whose size is seen before it is written. */
static void take_json(struct found *f, const char *field, enum grammar_kind kind, const json_t *v)
{
    const size_t flags = JSON_COMPACT | JSON_ENCODE_ANY;
    if (!is_first(f, field))
        return;
    size_t n = json_dumpb(v, NULL, 0, flags);
    if (n > GRAMMAR_SOURCE_BYTES_MAX) {
        read_fail(f->r, STATUS_TOO_LARGE, field, "%s: has %zu bytes, at most %u are taken", field, n,
                  GRAMMAR_SOURCE_BYTES_MAX);
        return;
    }
    char *text = arena_alloc(f->arena, n + 1);
    if (!text || json_dumpb(v, text, n, flags) != n)
        read_fail(f->r, STATUS_NO_MEMORY, NULL, "no memory for the request");
    f->part = (struct grammar_part){kind, text, n};
}

/* An object, or its text where `as_text`. */
static void take_schema(struct found *f, const char *field, const json_t *v, bool as_text)
{
    char text[96];
    if (json_is_object(v))
        take_json(f, field, GRAMMAR_JSON_SCHEMA, v);
    else if (as_text && json_is_string(v))
        take_text(f, field, GRAMMAR_JSON_SCHEMA, v);
    else
        read_fail(f->r, STATUS_INVALID, field, "%s: found %s, expected a JSON schema", field,
                  describe_json(v, text, sizeof text));
}

static void take_choice(struct found *f, const char *field, const json_t *v)
{
    char text[96];
    if (json_is_array(v) && json_array_size(v) > 0)
        take_json(f, field, GRAMMAR_CHOICE, v);
    else
        read_fail(f->r, STATUS_INVALID, field, "%s: found %s, expected an array of strings", field,
                  describe_json(v, text, sizeof text));
}

/* Structural tags, or their JSON in a string. */
static void take_tags(struct found *f, const char *field, const json_t *v)
{
    json_t *read = NULL;
    if (!is_first(f, field))
        return;
    if (json_is_string(v)) {
        struct error err;
        if (json_parse(json_string_value(v), json_string_length(v), field, TAGS_DEPTH_MAX, &read, &err) !=
            STATUS_OK)
            read_fail(f->r, STATUS_INVALID, field, "%s", err.text);
        else if (arena_on_end(f->arena, drop_json, read) != 0) {
            json_decref(read);
            read_fail(f->r, STATUS_NO_MEMORY, NULL, "no memory for the request");
        }
    }
    if (f->r->status == STATUS_OK)
        read_structural_tag(f->r, f->arena, field, read ? read : v, &f->part);
}

/* ---- OpenAI's */

static void check_schema_name(struct reader *r, const json_t *name)
{
    static const char param[] = "response_format.json_schema.name";
    char text[96];
    const char *s = json_string_value(name);
    if (!s || !s[0] || strlen(s) > NAME_MAX_BYTES || strspn(s, NAME_CHARACTERS) != strlen(s))
        read_fail(r, STATUS_INVALID, param,
                  "%s: found %s, expected 1 to %u letters, digits, underscores and dashes", param,
                  name ? describe_json(name, text, sizeof text) : "none", NAME_MAX_BYTES);
}

static void take_named_schema(struct found *f, const json_t *wrapper)
{
    static const char param[] = "response_format.json_schema";
    char text[96];
    bool strict;
    if (!json_is_object(wrapper)) {
        read_fail(f->r, STATUS_INVALID, param, "%s: found %s, expected an object with name and schema", param,
                  wrapper ? describe_json(wrapper, text, sizeof text) : "none");
        return;
    }
    struct reader r = {.object = wrapper, .fault = f->r->fault, .status = f->r->status};
    read_bool(&r, "strict", &strict); /* a schema is kept to in any case */
    check_schema_name(&r, json_object_get(wrapper, "name"));
    f->r->status = r.status;
    const json_t *schema = json_object_get(wrapper, "schema");
    if (r.status == STATUS_OK && !schema)
        read_fail(f->r, STATUS_INVALID, "response_format.json_schema.schema",
                  "response_format.json_schema.schema: missing; expected a JSON schema");
    else if (r.status == STATUS_OK)
        take_schema(f, "response_format", schema, false);
}

static void take_format(struct found *f, const json_t *format)
{
    char text[96];
    const json_t *type = json_object_get(format, "type"), *schema = json_object_get(format, "schema");
    const char *name = json_string_value(type);
    if (!json_is_object(format) || !name) {
        read_fail(f->r, STATUS_INVALID, "response_format",
                  "response_format: found %s, expected an object with a type",
                  describe_json(format, text, sizeof text));
    } else if (asks(schema) &&
               (strcmp(name, "json_object") == 0 ||
                (strcmp(name, "json_schema") == 0 && !json_object_get(format, "json_schema")))) {
        /* llama-server's */
        take_schema(f, "response_format", schema, false);
    } else if (strcmp(name, "json_object") == 0) {
        if (is_first(f, "response_format"))
            f->part = (struct grammar_part){GRAMMAR_JSON_OBJECT, NULL, 0};
    } else if (strcmp(name, "json_schema") == 0) {
        take_named_schema(f, json_object_get(format, "json_schema"));
    } else if (strcmp(name, "structural_tag") == 0) { /* vLLM's */
        take_tags(f, "response_format.structural_tag", format);
    } else if (strcmp(name, "text") != 0) {
        read_fail(f->r, STATUS_UNSUPPORTED, "response_format.type",
                  "response_format.type: found %s, expected \"text\", \"json_object\", \"json_schema\" or "
                  "\"structural_tag\"",
                  describe_json(type, text, sizeof text));
    }
}

/* ---- vLLM's */

/* As vLLM, which puts a response_format into structured_outputs: no other field's JSON gets compact by one of
 * these. */
static void make_compact(struct found *f)
{
    static const char format[] = "response_format", structured[] = "structured_outputs";
    if (!f->field || (strncmp(f->field, format, sizeof format - 1) != 0 &&
                      strncmp(f->field, structured, sizeof structured - 1) != 0))
        return;
    if (f->part.kind == GRAMMAR_JSON_SCHEMA)
        f->part.kind = GRAMMAR_COMPACT_SCHEMA;
    else if (f->part.kind == GRAMMAR_JSON_OBJECT)
        f->part.kind = GRAMMAR_COMPACT_OBJECT;
}

/* json_object, which isn't false. */
static void take_any_object(struct found *f, struct reader *own)
{
    bool wanted;
    if (read_bool(own, "json_object", &wanted) && is_first(f, "structured_outputs.json_object"))
        f->part = (struct grammar_part){GRAMMAR_JSON_OBJECT, NULL, 0};
}

static void take_structured(struct found *f, const json_t *all)
{
    static const char *const harmless[] = {"disable_fallback", "disable_additional_properties"};
    struct reader own = {.object = all, .fault = f->r->fault};
    bool compact = false;
    char text[96];
    const char *key;
    json_t *v;
    if (!json_is_object(all)) {
        read_fail(f->r, STATUS_INVALID, "structured_outputs",
                  "structured_outputs: found %s, expected an object", describe_json(all, text, sizeof text));
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)all, key, v)
    {
        bool ignored = !asks(v);
        for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
            ignored = ignored || strcmp(key, harmless[i]) == 0;
        if (ignored)
            continue;
        if (strcmp(key, "json") == 0)
            take_schema(f, "structured_outputs.json", v, true);
        else if (strcmp(key, "regex") == 0)
            take_text(f, "structured_outputs.regex", GRAMMAR_REGEX, v);
        else if (strcmp(key, "choice") == 0)
            take_choice(f, "structured_outputs.choice", v);
        else if (strcmp(key, "grammar") == 0)
            take_text(f, "structured_outputs.grammar", GRAMMAR_GBNF, v);
        else if (strcmp(key, "structural_tag") == 0)
            take_tags(f, "structured_outputs.structural_tag", v);
        else if (strcmp(key, "json_object") == 0)
            take_any_object(f, &own);
        else if (strcmp(key, "disable_any_whitespace") == 0)
            read_bool(&own, key, &compact);
        else if (f->r->status == STATUS_OK)
            read_fail(f->r, STATUS_UNSUPPORTED, "structured_outputs",
                      "structured_outputs.%.40s is not supported; leave it out", key);
    }
    if (own.status != STATUS_OK)
        f->r->status = own.status;
    else if (compact)
        make_compact(f);
}

/* ---- all */

/* In the order in which they are named where there are two. */
static const struct {
    const char *key;
    enum { FORMAT, SCHEMA, SCHEMA_OR_TEXT, CHOICE, STRUCTURED, TEXT } way;
    enum grammar_kind kind; /* of a text */
} fields[] = {{"response_format", FORMAT, 0},
              {"json_schema", SCHEMA, 0},
              {"guided_json", SCHEMA_OR_TEXT, 0},
              {"guided_choice", CHOICE, 0},
              {"structured_outputs", STRUCTURED, 0},
              {"grammar", TEXT, GRAMMAR_GBNF},
              {"guided_grammar", TEXT, GRAMMAR_GBNF},
              {"guided_regex", TEXT, GRAMMAR_REGEX},
              {"regex", TEXT, GRAMMAR_REGEX}, /* this and the next are SGLang's */
              {"ebnf", TEXT, GRAMMAR_GBNF}};
#define N_FIELDS (sizeof fields / sizeof fields[0])

const char *grammar_field(size_t index)
{
    return index < N_FIELDS ? fields[index].key : NULL;
}

static void take_field(struct found *f, size_t i, const json_t *v)
{
    const char *key = fields[i].key;
    switch (fields[i].way) {
    case FORMAT:
        take_format(f, v);
        break;
    case SCHEMA:
    case SCHEMA_OR_TEXT:
        take_schema(f, key, v, fields[i].way == SCHEMA_OR_TEXT);
        break;
    case CHOICE:
        take_choice(f, key, v);
        break;
    case STRUCTURED:
        take_structured(f, v);
        break;
    case TEXT:
        take_text(f, key, fields[i].kind, v);
        break;
    }
}

static void take_all(struct found *f)
{
    for (size_t i = 0; i < N_FIELDS; i++) {
        const json_t *v = json_object_get(f->r->object, fields[i].key);
        if (asks(v))
            take_field(f, i, v);
    }
    if (json_is_true(json_object_get(f->r->object, "grammar_lazy")))
        read_fail(f->r, STATUS_UNSUPPORTED, "grammar_lazy", "grammar_lazy is not supported; leave it out");
}

const char *read_grammar_part(struct reader *r, struct arena *arena, struct grammar_part *out)
{
    struct found f = {.r = r, .arena = arena};
    if (r->status == STATUS_OK)
        take_all(&f);
    *out = f.part;
    return r->status == STATUS_OK ? f.field : NULL;
}

static void release(void *grammar)
{
    grammar_release(grammar);
}

void read_grammar(struct reader *r, const struct grammar_scope *scope, struct arena *arena,
                  struct grammar **out)
{
    struct grammar_part part;
    struct error err;
    *out = NULL;
    const char *field = read_grammar_part(r, arena, &part);
    if (!field)
        return;
    const struct grammar_sequence alone = {&part, 1};
    const struct grammar_spec spec = {.alternatives = &alone, .n_alternatives = 1};
    enum status s = grammar_store_get(scope, &spec, out, &err);
    if (s != STATUS_OK) {
        read_fail(r, s, field, "%s: %s", field, err.text);
    } else if (arena_on_end(arena, release, *out) != 0) {
        grammar_release(*out);
        *out = NULL;
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the request");
    }
}
