/* Defaults in a request's body. */
#include "body_defaults.h"

#include <string.h>

#include "bundle.h"

#define ALIASES_MAX 13U

/* Names that mean the same; a field that isn't here has one name. */
static const char *const same[][ALIASES_MAX] = {
    {"max_tokens", "max_completion_tokens", "n_predict"},
    {"repetition_penalty", "repeat_penalty"},
    {"stop", "stop_sequences"},
    {"n", "n_cmpl"},
    {"grammar", "regex", "ebnf", "guided_regex", "json_schema", "guided_json", "guided_choice",
     "guided_grammar", "guided_json_object", "structured_outputs", "response_format", "tools", "functions"},
};

/* ALIASES_MAX names, or fewer and a NULL. */
static const char *const *names_of(const char *key, const char *const fallback[ALIASES_MAX])
{
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        for (size_t k = 0; k < ALIASES_MAX && same[i][k]; k++)
            if (strcmp(same[i][k], key) == 0)
                return same[i];
    return fallback;
}

/* A response_format that asks for plain text constrains nothing. */
static bool says_something(const char *key, const json_t *v)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    bool is_text = strcmp(key, "response_format") == 0 && type && strcmp(type, "text") == 0;
    return v && !json_is_null(v) && !is_text;
}

const json_t *body_says(const json_t *body, const char *key)
{
    const char *const alone[ALIASES_MAX] = {key}, *const *names = names_of(key, alone);
    for (size_t i = 0; i < ALIASES_MAX && names[i]; i++) {
        const json_t *v = json_object_get(body, names[i]);
        if (says_something(names[i], v))
            return v;
    }
    return NULL;
}

bool body_put(json_t *body, const char *key, const json_t *value)
{
    const char *const alone[ALIASES_MAX] = {key}, *const *names = names_of(key, alone);
    for (size_t i = 0; i < ALIASES_MAX && names[i]; i++)
        json_object_del(body, names[i]);
    return json_object_set_new(body, key, json_deep_copy(value)) == 0;
}

bool body_apply_numbers(json_t *body, const struct body_default *list)
{
    bool ok = true;
    for (const struct body_default *d = list; d->key; d++)
        if (!body_says(body, d->key))
            ok &= json_object_set_new(body, d->key, json_real(d->value)) == 0;
    return ok;
}

/* ---- the system prompt */

bool message_has_role(const json_t *message, const char *role)
{
    const char *is = json_string_value(json_object_get(message, "role"));
    return is && strcmp(is, role) == 0;
}

bool message_is_system(const json_t *message)
{
    return message_has_role(message, "system") || message_has_role(message, "developer");
}

bool body_has_system(const json_t *body)
{
    return message_is_system(json_array_get(json_object_get(body, "messages"), 0));
}

static json_t *joined(const char *text, const json_t *theirs)
{
    const json_t *content = json_object_get(theirs, "content");
    json_t *copy = json_copy((json_t *)(uintptr_t)theirs), *both = NULL;
    if (json_is_string(content)) {
        both = json_sprintf("%s\n\n%s", text, json_string_value(content));
    } else if (json_is_array(content)) {
        both = json_copy((json_t *)(uintptr_t)content);
        json_array_insert_new(both, 0, json_pack("{s:s,s:s}", "type", "text", "text", text));
    }
    if (both)
        json_object_set_new(copy, "content", both);
    return copy;
}

bool body_put_system(json_t *body, const char *text)
{
    const json_t *messages = json_object_get(body, "messages");
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return true;
    json_t *copy = json_copy((json_t *)(uintptr_t)messages);
    int failed =
        body_has_system(body)
            ? json_array_set_new(copy, 0, joined(text, json_array_get(copy, 0)))
            : json_array_insert_new(copy, 0, json_pack("{s:s,s:s}", "role", "system", "content", text));
    return json_object_set_new(body, "messages", copy) == 0 && !failed;
}

/* ---- a bundle */

static bool is_locked(const struct adapter_bundle *b, const char *key)
{
    size_t i;
    const json_t *name;
    json_array_foreach((json_t *)(uintptr_t)b->locked, i,
                       name) if (strcmp(json_string_value(name), key) == 0) return true;
    return false;
}

enum status body_apply_bundle(json_t *body, const struct adapter_bundle *bundle, struct buf *overruled,
                              struct fault *f)
{
    const char *key;
    json_t *ours;
    bool ok = true;
    json_object_foreach(bundle->defaults, key, ours)
    {
        const json_t *theirs = body_says(body, key);
        bool locked = is_locked(bundle, key);
        if (theirs && (!locked || json_equal((json_t *)(uintptr_t)theirs, ours)))
            continue;
        if (theirs)
            buf_printf(overruled, "%s%s", overruled->length ? ", " : "", key);
        ok &= body_put(body, key, ours);
    }
    if (bundle->system_prompt && (!body_has_system(body) || is_locked(bundle, "system_prompt")))
        ok &= body_put_system(body, bundle->system_prompt);
    return ok ? STATUS_OK : fault_set(f, STATUS_NO_MEMORY, NULL, "no memory for the request");
}
