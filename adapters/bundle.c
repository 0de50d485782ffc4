/* adapter.yaml: libcyaml gives texts and lists of texts by name; they become the JSON that requests are made
 * of, each checked here, so that a bad one is the adapter's fault when it is loaded and not a client's later.
 */
#include "bundle.h"

#include <cyaml/cyaml.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text.h"
#include "yaml_text.h"

#define LIST_MAX 64U
#define STOP_MAX 16U

/* T a text, L a list of texts. */
#define FIELDS(X)                                                                                            \
    X(T, description)                                                                                        \
    X(L, languages)                                                                                          \
    X(T, system_prompt)                                                                                      \
    X(L, stop)                                                                                               \
    X(T, chat_template)                                                                                      \
    X(T, tool_format)                                                                                        \
    X(T, context)                                                                                            \
    X(T, grammar)                                                                                            \
    X(T, regex)                                                                                              \
    X(T, json_schema)                                                                                        \
    X(L, locked)

/* Numbers, with the least and the largest that a request may have; the last: whole ones alone. */
#define SAMPLING(X)                                                                                          \
    X(temperature, 0, 100, 0)                                                                                \
    X(top_p, 0, 1, 0)                                                                                        \
    X(top_k, -1, 2147483647, 1)                                                                              \
    X(min_p, 0, 1, 0)                                                                                        \
    X(typical_p, 0, 1, 0)                                                                                    \
    X(repetition_penalty, 0.01, 100, 0)                                                                      \
    X(presence_penalty, -2, 2, 0)                                                                            \
    X(frequency_penalty, -2, 2, 0)                                                                           \
    X(seed, -9e15, 9e15, 1)                                                                                  \
    X(max_tokens, 1, 2147483647, 1)                                                                          \
    X(min_tokens, 0, 2147483647, 1)

struct yaml_sampling {
#define MEMBER(name, min, max, whole) char *name;
    SAMPLING(MEMBER)
#undef MEMBER
};

struct yaml_bundle {
#define MEMBER_T(f) char *f;
#define MEMBER_L(f)                                                                                          \
    char **f;                                                                                                \
    unsigned f##_count;
#define MEMBER(kind, f) MEMBER_##kind(f)
    FIELDS(MEMBER)
#undef MEMBER
    struct yaml_sampling *sampling;
};

static const cyaml_schema_value_t text_item = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, CYAML_UNLIMITED)};

static const cyaml_schema_field_t sampling_schema[] = {
#define FIELD(name, min, max, whole)                                                                         \
    CYAML_FIELD_STRING_PTR(#name, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct yaml_sampling, name, 0,   \
                           CYAML_UNLIMITED),
    SAMPLING(FIELD)
#undef FIELD
        CYAML_FIELD_END};

static const cyaml_schema_field_t bundle_schema[] = {
#define FIELD_T(f)                                                                                           \
    CYAML_FIELD_STRING_PTR(#f, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct yaml_bundle, f, 0,           \
                           CYAML_UNLIMITED),
#define FIELD_L(f)                                                                                           \
    CYAML_FIELD_SEQUENCE(#f, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct yaml_bundle, f, &text_item, 0, \
                         LIST_MAX),
#define FIELD(kind, f) FIELD_##kind(f)
    FIELDS(FIELD)
#undef FIELD
        CYAML_FIELD_MAPPING_PTR("sampling", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct yaml_bundle,
                                sampling, sampling_schema),
    CYAML_FIELD_END};
static const cyaml_schema_value_t top = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct yaml_bundle, bundle_schema)};

/* ---- texts to JSON */

struct number {
    const char *key, *text;
    double min, max;
    bool whole;
};

static enum status put_number(json_t *o, const struct number *n, struct error *err)
{
    char *end;
    if (!n->text)
        return STATUS_OK;
    double v = strtod(n->text, &end);
    bool good = end != n->text && !*end && v >= n->min && v <= n->max && (!n->whole || v == floor(v));
    if (!good)
        return fail(err, STATUS_INVALID, "%s: found \"%.40s\", expected a %snumber from %g to %g", n->key,
                    n->text, n->whole ? "whole " : "", n->min, n->max);
    json_object_set_new(o, n->key, n->whole ? json_integer((json_int_t)v) : json_real(v));
    return STATUS_OK;
}

static enum status put_sampling(json_t *defaults, const struct yaml_sampling *y, struct error *err)
{
    const struct number numbers[] = {
#define NUMBER(name, min, max, whole) {#name, y->name, min, max, whole},
        SAMPLING(NUMBER)
#undef NUMBER
    };
    enum status s = STATUS_OK;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && s == STATUS_OK; i++)
        s = put_number(defaults, &numbers[i], err);
    return s;
}

/* At most one of the three; what they mean is found out when a request has them. */
static enum status put_grammar(json_t *defaults, const struct yaml_bundle *y, struct error *err)
{
    json_error_t why;
    if (!!y->grammar + !!y->regex + !!y->json_schema > 1)
        return fail(err, STATUS_INVALID, "grammar, regex and json_schema: at most one of them can hold");
    yaml_text_put(defaults, "grammar", y->grammar);
    yaml_text_put(defaults, "guided_regex", y->regex);
    if (!y->json_schema)
        return STATUS_OK;
    json_t *schema = json_loads(y->json_schema, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(schema)) {
        json_decref(schema);
        return fail(err, STATUS_INVALID, "json_schema: not a JSON object: %s", why.text);
    }
    json_object_set_new(defaults, "json_schema", schema);
    return STATUS_OK;
}

static enum status put_stop(json_t *defaults, const struct yaml_bundle *y, struct error *err)
{
    if (y->stop_count > STOP_MAX)
        return fail(err, STATUS_INVALID, "stop: found %u strings, at most %u are taken", y->stop_count,
                    STOP_MAX);
    for (unsigned i = 0; i < y->stop_count; i++)
        if (!y->stop[i][0] || strlen(y->stop[i]) > 256)
            return fail(err, STATUS_INVALID, "stop: a string has %zu bytes, 1 to 256 are taken",
                        strlen(y->stop[i]));
    yaml_text_put_list(defaults, "stop", y->stop, y->stop_count);
    return STATUS_OK;
}

/* Only what is given can be locked. */
static enum status check_locked(const struct adapter_bundle *b, const struct yaml_bundle *y,
                                struct error *err)
{
    for (unsigned i = 0; i < y->locked_count; i++) {
        const char *name = y->locked[i];
        bool given = strcmp(name, "system_prompt") == 0 ? b->system_prompt != NULL
                                                        : json_object_get(b->defaults, name) != NULL;
        if (!given)
            return fail(err, STATUS_INVALID, "locked: \"%.40s\" is nothing that is given here", name);
    }
    return STATUS_OK;
}

static enum status fill(struct adapter_bundle *b, const struct yaml_bundle *y, struct error *err)
{
    struct number context = {"context", y->context, 1, 16777216, true};
#define PUT_T(f) yaml_text_put(b->json, #f, y->f);
#define PUT_L(f) yaml_text_put_list(b->json, #f, y->f, y->f##_count);
#define PUT(kind, f) PUT_##kind(f)
    FIELDS(PUT)
#undef PUT
    enum status s = put_number(b->json, &context, err);
    if (s == STATUS_OK && y->sampling)
        s = put_sampling(b->defaults, y->sampling, err);
    if (s == STATUS_OK && y->sampling)
        json_object_set_new(b->json, "sampling", json_deep_copy(b->defaults));
    if (s == STATUS_OK)
        s = put_stop(b->defaults, y, err);
    if (s == STATUS_OK)
        s = put_grammar(b->defaults, y, err);
    b->description = json_string_value(json_object_get(b->json, "description"));
    b->system_prompt = json_string_value(json_object_get(b->json, "system_prompt"));
    b->tool_format = json_string_value(json_object_get(b->json, "tool_format"));
    b->chat_template_source = json_string_value(json_object_get(b->json, "chat_template"));
    b->languages = json_object_get(b->json, "languages");
    b->locked = json_object_get(b->json, "locked");
    b->context = (uint32_t)json_integer_value(json_object_get(b->json, "context"));
    return s == STATUS_OK ? check_locked(b, y, err) : s;
}

static enum status load_yaml(const char *text, size_t n_bytes, struct yaml_bundle **out, struct error *err)
{
    struct yaml_complaint why;
    void *loaded;
    if (!yaml_text_load(text, n_bytes, &top, &loaded, &why))
        return fail(err, STATUS_FORMAT, "line %u: %s; docs/BUNDLES.md shows the form",
                    why.line ? why.line : 1, why.text);
    *out = loaded;
    return loaded ? STATUS_OK : fail(err, STATUS_FORMAT, "it is empty");
}

enum status bundle_parse(const char *text, size_t n_bytes, const char *shown, struct adapter_bundle **out,
                         struct error *err)
{
    struct yaml_bundle *y = NULL;
    struct adapter_bundle *b = mem_zalloc(sizeof *b);
    enum status s = b ? load_yaml(text, n_bytes, &y, err) : fail(err, STATUS_NO_MEMORY, "no memory");
    if (s == STATUS_OK) {
        b->json = json_object();
        b->defaults = json_object();
        s = b->json && b->defaults ? fill(b, y, err) : fail(err, STATUS_NO_MEMORY, "no memory");
    }
    yaml_text_free(&top, y);
    if (s == STATUS_OK && b->chat_template_source)
        s = chat_template_compile(b->chat_template_source, strlen(b->chat_template_source), "chat_template",
                                  &b->chat_template, err);
    if (s == STATUS_OK) {
        *out = b;
        return s;
    }
    bundle_free(b);
    return fail_within(err, "%s", shown);
}

void bundle_free(struct adapter_bundle *b)
{
    if (!b)
        return;
    if (b->chat_template)
        chat_template_destroy(b->chat_template);
    json_decref(b->json);
    json_decref(b->defaults);
    mem_free(b);
}
