/* A tenant's settings out of JSON, and what they say of a name or a path. Every field is known and checked
 * here; what isn't known is refused, since a limit that is misspelt would be no limit. */
#include "tenant_spec.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "adapters.h"
#include "api_parse.h"
#include "body_defaults.h"
#include "voice_expr.h"

/* Fields of `sampling`. */
static const char *const sampling_fields[] = {"temperature",
                                              "top_p",
                                              "top_k",
                                              "min_p",
                                              "typical_p",
                                              "repetition_penalty",
                                              "presence_penalty",
                                              "frequency_penalty",
                                              "seed",
                                              "max_tokens",
                                              "min_tokens",
                                              "stop",
                                              "n"};
#define N_SAMPLING (sizeof sampling_fields / sizeof sampling_fields[0])

static bool is_sampling_field(const char *text)
{
    for (size_t i = 0; i < N_SAMPLING; i++)
        if (strcmp(sampling_fields[i], text) == 0)
            return true;
    return false;
}

/* ---- reading ---- */

static bool is_pattern(const char *text)
{
    size_t n = strlen(text), stars = 0;
    for (const char *p = text; *p; p++)
        stars += *p == '*';
    return n >= 1 && n <= TENANT_PATTERN_MAX && stars <= 4 &&
           strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-*/{}") == n;
}

static bool is_path(const char *text)
{
    return text[0] == '/' && is_pattern(text);
}

/* A list of texts that `fine` accepts. */
static void read_list(struct reader *r, struct arena *a, const char *key, bool (*fine)(const char *text),
                      const char *expected, struct text_list *out)
{
    const json_t *array = NULL;
    if (!read_array(r, key, &array))
        return;
    size_t n = json_array_size(array);
    if (n > TENANT_LIST_MAX) {
        read_fail(r, STATUS_INVALID, key, "%s: found %zu entries, at most %u are accepted", key, n,
                  TENANT_LIST_MAX);
        return;
    }
    out->items = arena_array(a, n + 1, sizeof *out->items);
    for (size_t i = 0; i < n && r->status == STATUS_OK; i++) {
        char shown[96];
        const json_t *item = json_array_get(array, i);
        if (!json_is_string(item) || !fine(json_string_value(item)))
            read_fail(r, STATUS_INVALID, key, "%s[%zu]: found %s, expected %s", key, i,
                      describe_json(item, shown, sizeof shown), expected);
        else if (!out->items)
            read_fail(r, STATUS_NO_MEMORY, key, "no memory for the tenant");
        else
            out->items[out->n++] = json_string_value(item);
    }
}

/* The form alone: voices come and go. */
static void check_voice(struct reader *r, const char *key, const char *text)
{
    struct voice_expr e;
    struct error err;
    if (voice_expr_parse(text, "base", &e, &err) != STATUS_OK)
        read_fail(r, STATUS_INVALID, key, "%s: %s", key, err.text);
}

static void read_voice(struct reader *r, const char *key, const char **out)
{
    if (read_text(r, key, out))
        check_voice(r, key, *out);
}

static void read_aliases(struct reader *r, struct tenant_spec *s)
{
    const json_t *object = NULL;
    const char *name;
    json_t *voice;
    if (!read_object(r, "aliases", &object))
        return;
    size_t n = json_object_size(object);
    s->aliases = n <= TENANT_LIST_MAX ? arena_array(s->arena, n + 1, sizeof *s->aliases) : NULL;
    if (!s->aliases) {
        read_fail(r, STATUS_INVALID, "aliases", "aliases: found %zu, at most %u are accepted", n,
                  TENANT_LIST_MAX);
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)object, name, voice)
    {
        if (!adapter_name_is_valid(name) || strcmp(name, "base") == 0 || !json_is_string(voice))
            read_fail(
                r, STATUS_INVALID, "aliases",
                "aliases: \"%.80s\": expected NAME: VOICE, a name of at most 64 letters, digits, '.', '_' "
                "and '-' that isn't \"base\", and a text as \"pt+0.5*polite\"",
                name);
        if (r->status != STATUS_OK)
            return;
        check_voice(r, "aliases", json_string_value(voice));
        s->aliases[s->n_aliases++] = (struct tenant_alias){name, json_string_value(voice)};
    }
}

/* Their values go through the parser of requests. */
static void read_sampling_defaults(struct reader *r, struct tenant_spec *s)
{
    const json_t *object = NULL;
    const char *key;
    json_t *value;
    if (!read_object(r, "sampling", &object))
        return;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (!is_sampling_field(key))
            read_fail(r, STATUS_INVALID, "sampling", "sampling: unknown field \"%.60s\"", key);
    }
    const struct parse_limits limits = {.n_max = 1024, .n_vocab = INT32_MAX};
    struct gen_params ignored;
    if (r->status == STATUS_OK &&
        parse_gen_params(object, API_COMPLETIONS, &limits, s->arena, &ignored, r->fault) != STATUS_OK) {
        fail_within(&r->fault->error, "sampling");
        snprintf(r->fault->param, sizeof r->fault->param, "sampling");
        r->status = r->fault->error.status;
    }
    s->sampling = object;
}

static void read_limit(struct reader *r, const char *key, uint64_t *out)
{
    int64_t n;
    *out = LIMIT_NONE;
    if (read_int(r, key, 0, INT64_MAX / 4, &n))
        *out = (uint64_t)n;
}

static void read_limits(struct reader *r, struct tenant_spec *s)
{
    int64_t context = UINT32_MAX;
    read_limit(r, "requests_per_minute", &s->requests_minute);
    read_limit(r, "requests_per_day", &s->requests_day);
    read_limit(r, "tokens_per_minute", &s->tokens_minute);
    read_limit(r, "tokens_per_day", &s->tokens_day);
    read_limit(r, "concurrent_requests", &s->concurrent);
    read_limit(r, "loads_per_minute", &s->loads_minute);
    read_limit(r, "resident_bytes", &s->resident_bytes);
    s->kv_share = 1;
    read_float(r, "kv_share", 0.001, 1, &s->kv_share);
    read_int(r, "context", 2, INT32_MAX, &context);
    s->context = (uint32_t)context;
    s->weight = 1;
    read_float(r, "weight", 0.01, 1000, &s->weight);
}

static void refuse_unknown(struct reader *r)
{
    static const char *const known[] = {"name",
                                        "description",
                                        "voices",
                                        "own_voices",
                                        "default_voice",
                                        "aliases",
                                        "always",
                                        "system_prompt",
                                        "sampling",
                                        "locked",
                                        "endpoints",
                                        "priority",
                                        "weight",
                                        "requests_per_minute",
                                        "requests_per_day",
                                        "tokens_per_minute",
                                        "tokens_per_day",
                                        "concurrent_requests",
                                        "loads_per_minute",
                                        "resident_bytes",
                                        "kv_share",
                                        "context",
                                        "cache_group"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)r->object, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            found = found || strcmp(known[i], key) == 0;
        if (!found)
            read_fail(r, STATUS_INVALID, key, "unknown field \"%.60s\"; docs/TENANTS.md lists them", key);
    }
}

static void read_all(struct reader *r, struct tenant_spec *s)
{
    const char *text = NULL, *priority = NULL, *name = NULL;
    refuse_unknown(r);
    if (read_text(r, "name", &name) && strcmp(name, s->name) != 0)
        read_fail(r, STATUS_INVALID, "name", "name: found \"%.60s\", expected \"%s\"", name, s->name);
    read_text(r, "description", &text);
    read_list(r, s->arena, "voices", is_pattern, "a name of a voice, in which * stands for any characters",
              &s->voices);
    s->names_voices = s->voices.items != NULL;
    read_list(r, s->arena, "own_voices", is_pattern,
              "a name of a voice, in which * stands for any characters", &s->own_voices);
    read_list(r, s->arena, "locked", is_sampling_field, "a field of sampling", &s->locked);
    read_list(r, s->arena, "endpoints", is_path, "a path as \"/v1/chat/completions\" or \"/v1/*\"",
              &s->endpoints);
    read_voice(r, "default_voice", &s->default_voice);
    read_voice(r, "always", &s->always);
    read_text(r, "cache_group", &s->cache_group);
    if (read_text(r, "system_prompt", &s->system_prompt) && strlen(s->system_prompt) > TENANT_TEXT_MAX)
        read_fail(r, STATUS_TOO_LARGE, "system_prompt", "system_prompt: longer than %u bytes",
                  TENANT_TEXT_MAX);
    if (s->system_prompt && !s->system_prompt[0])
        s->system_prompt = NULL;
    if (read_text(r, "priority", &priority) && strcmp(priority, "interactive") != 0 &&
        strcmp(priority, "batch") != 0)
        read_fail(r, STATUS_INVALID, "priority", "priority: found \"%.40s\", expected interactive or batch",
                  priority);
    s->batch = priority && strcmp(priority, "batch") == 0;
    read_aliases(r, s);
    read_sampling_defaults(r, s);
    read_limits(r, s);
}

static void free_json(void *data)
{
    struct tenant_spec *s = data;
    json_decref(s->json);
}

/* A copy of the JSON, and its text, in the arena. */
static enum status keep_json(struct tenant_spec *s, const json_t *json, struct fault *f)
{
    s->json = json_deep_copy(json);
    if (!s->json || arena_on_end(s->arena, free_json, s) != 0)
        return fault_set(f, STATUS_NO_MEMORY, NULL, "no memory for the tenant");
    char *text = json_dumps(s->json, JSON_COMPACT | JSON_SORT_KEYS);
    size_t n = text ? strlen(text) : 0;
    s->text = n && n <= TENANT_SPEC_MAX ? arena_strdup(s->arena, text) : NULL;
    free(text);
    if (s->text)
        return STATUS_OK;
    return n > TENANT_SPEC_MAX
               ? fault_set(f, STATUS_TOO_LARGE, NULL, "the tenant has %zu bytes, at most %u are kept", n,
                           TENANT_SPEC_MAX)
               : fault_set(f, STATUS_NO_MEMORY, NULL, "no memory for the tenant");
}

enum status tenant_spec_parse(const char *name, const json_t *json, struct tenant_spec **out, struct fault *f)
{
    *out = NULL;
    if (!adapter_name_is_valid(name))
        return fault_set(
            f, STATUS_INVALID, "name",
            "tenant \"%.80s\": expected a name that begins with a letter or digit and holds at most "
            "64 letters, digits, '.', '_' and '-'",
            name);
    if (!json_is_object(json))
        return fault_set(f, STATUS_INVALID, NULL, "tenant \"%s\": expected an object", name);
    struct arena *a = arena_create(0);
    struct tenant_spec *s = a ? arena_alloc(a, sizeof *s) : NULL;
    const char *own_name = s ? arena_strdup(a, name) : NULL;
    if (!own_name) {
        arena_destroy(a);
        return fault_set(f, STATUS_NO_MEMORY, NULL, "no memory for the tenant");
    }
    *s = (struct tenant_spec){.refs = 1, .arena = a, .name = own_name};
    enum status st = keep_json(s, json, f);
    if (st == STATUS_OK) {
        struct reader r = {.object = s->json, .fault = f};
        read_all(&r, s);
        st = r.status;
    }
    if (st != STATUS_OK) {
        fail_within(&f->error, "tenant \"%s\"", name);
        tenant_spec_release(s);
        return st;
    }
    *out = s;
    return STATUS_OK;
}

struct tenant_spec *tenant_spec_hold(struct tenant_spec *s)
{
    s->refs++;
    return s;
}

void tenant_spec_release(struct tenant_spec *s)
{
    if (s && --s->refs == 0)
        arena_destroy(s->arena);
}

/* ---- what they say ---- */

bool text_list_has(const struct text_list *l, const char *text)
{
    bool found = false;
    for (uint32_t i = 0; i < l->n; i++)
        found |= strcmp(l->items[i], text) == 0;
    return found;
}

/* All are looked at, so that the time says little of which one it was. Most differ in what stands before the
 * first
 * '*', which is seen fifty times faster. */
bool text_list_matches(const struct text_list *l, const char *text)
{
    bool found = false;
    for (uint32_t i = 0; i < l->n; i++) {
        const char *item = l->items[i];
        size_t n = 0;
        while (item[n] && item[n] != '*' && item[n] == text[n])
            n++;
        if (item[n] == '*' || item[n] == text[n])
            found |= fnmatch(item, text, FNM_NOESCAPE) == 0;
    }
    return found;
}

const char *tenant_spec_alias(const struct tenant_spec *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_aliases; i++)
        if (strcmp(s->aliases[i].name, name) == 0)
            return s->aliases[i].voice;
    return NULL;
}

bool tenant_spec_allows_path(const struct tenant_spec *s, const char *path)
{
    return s->endpoints.n == 0 || text_list_matches(&s->endpoints, path);
}

/* ---- into a request ---- */

static bool same_value(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return a && b && json_equal(a, b);
}

enum status tenant_spec_apply(const struct tenant_spec *s, json_t *body, struct fault *f)
{
    for (size_t i = 0; i < N_SAMPLING; i++) {
        const char *field = sampling_fields[i];
        const json_t *theirs = body_says(body, field), *ours = json_object_get(s->sampling, field);
        bool locked = text_list_has(&s->locked, field);
        if (theirs && locked && !same_value(theirs, ours)) {
            enum status st =
                fault_set(f, STATUS_INVALID, field, "%s: your operator has locked it; leave it out", field);
            snprintf(f->code, sizeof f->code, "locked");
            return st;
        }
        /* A locked one takes the place of all of the field's names: the first said may not be the last read.
         */
        if ((!theirs || locked) && ours && !body_put(body, field, ours))
            return fault_set(f, STATUS_NO_MEMORY, NULL, "no memory for the request");
    }
    return STATUS_OK;
}

enum status tenant_spec_apply_system(const struct tenant_spec *s, json_t *body, struct fault *f)
{
    if (!s->system_prompt || body_put_system(body, s->system_prompt))
        return STATUS_OK;
    return fault_set(f, STATUS_NO_MEMORY, NULL, "no memory for the request");
}
