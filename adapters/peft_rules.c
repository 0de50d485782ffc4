/* PEFT's matching of module names. Names in lists are sorted once, so that a path is looked up by each of its
 * dotted ends: lists of ten thousands of full paths occur (all-linear on a model with experts). */
#include "peft_rules.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/mem.h"

#define NAMES_MAX 262144U
#define PATTERNS_MAX 2048U
#define PATTERN_BYTES_MAX 1024U
#define MATCH_STEPS_MAX 100000U
#define MATCH_HEAP_KIB 1024U

struct names {
    const char **items; /* [n] sorted; borrowed from the JSON */
    size_t n;
};

struct pattern {
    pcre2_code *code;
    const char *text;
    const char *key; /* of the configuration, for messages */
    double value;
};
struct patterns {
    struct pattern *items;
    size_t n;
};

struct peft_rules {
    json_t *config; /* keeps all texts alive */
    pcre2_match_context *match;
    bool has_targets, all_linear;
    struct names targets, excluded, saved, parameters;
    struct patterns target_regex, excluded_regex; /* 0 or 1 each */
    struct patterns saved_regex;                  /* one for each of `saved` */
    struct patterns layer_regex;                  /* of layers_pattern, or the one for any */
    struct patterns rank, alpha;
    int64_t *layers; /* [n_layers] of layers_to_transform; n_layers 0: no such rule */
    size_t n_layers;
};

/* ---- reading */

static bool is_absent(const json_t *v)
{
    return !v || json_is_null(v);
}

static enum status compile(struct pattern *p, const char *before, const char *after, uint32_t options)
{
    char text[PATTERN_BYTES_MAX + 64];
    int code;
    PCRE2_SIZE at;
    if (strlen(p->text) > PATTERN_BYTES_MAX)
        return STATUS_TOO_LARGE;
    snprintf(text, sizeof text, "%s%s%s", before, p->text, after);
    p->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
                            PCRE2_ANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C | options, &code, &at, NULL);
    return p->code ? STATUS_OK : STATUS_FORMAT;
}

struct pattern_form {
    const char *key, *before, *after;
    uint32_t options;
};

static enum status add_pattern(const struct pattern_form *f, const char *text, struct patterns *out,
                               struct error *err)
{
    if (out->n >= PATTERNS_MAX)
        return fail(err, STATUS_TOO_LARGE, "%s has more than %u patterns", f->key, PATTERNS_MAX);
    struct pattern *items = mem_realloc(out->items, (out->n + 1) * sizeof *items);
    if (!items)
        return fail(err, STATUS_NO_MEMORY, "no memory for %s", f->key);
    out->items = items;
    struct pattern *p = &items[out->n];
    *p = (struct pattern){.text = text, .key = f->key};
    enum status s = compile(p, f->before, f->after, f->options);
    if (s == STATUS_TOO_LARGE)
        return fail(err, s, "%s: a pattern of %zu bytes, at most %u", f->key, strlen(text),
                    PATTERN_BYTES_MAX);
    if (s != STATUS_OK)
        return fail(err, s, "%s '%.100s': no regular expression that we understand", f->key, text);
    out->n++;
    return STATUS_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum status read_names(const json_t *list, const char *key, struct names *out, struct error *err)
{
    size_t n = json_array_size(list);
    if (n > NAMES_MAX)
        return fail(err, STATUS_TOO_LARGE, "%s has %zu names, at most %u", key, n, NAMES_MAX);
    out->items = mem_array(n, sizeof *out->items);
    if (!out->items)
        return fail(err, STATUS_NO_MEMORY, "no memory for %s", key);
    for (size_t i = 0; i < n; i++) {
        out->items[i] = json_string_value(json_array_get(list, i));
        if (!out->items[i])
            return fail(err, STATUS_FORMAT, "%s: item %zu is no string", key, i);
    }
    out->n = n;
    if (n)
        qsort(out->items, n, sizeof *out->items, compare_names);
    return STATUS_OK;
}

/* A list of names, or one regular expression. */
static enum status read_choice(struct peft_rules *r, const char *key, struct names *names,
                               struct patterns *regex, struct error *err)
{
    const json_t *v = json_object_get(r->config, key);
    const struct pattern_form full = {key, "(?:", ")", PCRE2_ENDANCHORED};
    if (json_is_string(v))
        return add_pattern(&full, json_string_value(v), regex, err);
    if (json_is_array(v))
        return read_names(v, key, names, err);
    return is_absent(v) ? STATUS_OK : fail(err, STATUS_FORMAT, "%s is neither a list nor a string", key);
}

static enum status read_targets(struct peft_rules *r, struct error *err)
{
    const json_t *v = json_object_get(r->config, "target_modules");
    r->has_targets = !is_absent(v) || peft_rules_have_parameters(r);
    r->all_linear = json_is_string(v) && strcasecmp(json_string_value(v), "all-linear") == 0;
    if (r->all_linear)
        return STATUS_OK;
    return read_choice(r, "target_modules", &r->targets, &r->target_regex, err);
}

static enum status read_list(struct peft_rules *r, const char *key, struct names *out, struct error *err)
{
    const json_t *v = json_object_get(r->config, key);
    if (is_absent(v))
        return STATUS_OK;
    return json_is_array(v) ? read_names(v, key, out, err)
                            : fail(err, STATUS_FORMAT, "%s is no list of names", key);
}

static enum status read_saved(struct peft_rules *r, struct error *err)
{
    const struct pattern_form form = {"modules_to_save", "(^|.*\\.)", "($|\\..*)", 0};
    enum status s = read_list(r, "modules_to_save", &r->saved, err);
    for (size_t i = 0; i < r->saved.n && s == STATUS_OK; i++)
        s = add_pattern(&form, r->saved.items[i], &r->saved_regex, err);
    return s;
}

static enum status read_layer_patterns(struct peft_rules *r, struct error *err)
{
    static const struct pattern_form named = {"layers_pattern", "(?:^|.*?\\.)", "\\.(\\d+)\\.", 0};
    static const struct pattern_form any = {"layers_to_transform", ".*?\\.[^.]*", "\\.(\\d+)\\.", 0};
    const json_t *v = json_object_get(r->config, "layers_pattern");
    enum status s = STATUS_OK;
    if (json_is_string(v) && json_string_length(v))
        return add_pattern(&named, json_string_value(v), &r->layer_regex, err);
    if (!is_absent(v) && !json_is_array(v) && !json_is_string(v))
        return fail(err, STATUS_FORMAT, "layers_pattern is neither a list nor a string");
    for (size_t i = 0; i < json_array_size(v) && s == STATUS_OK; i++) {
        const char *text = json_string_value(json_array_get(v, i));
        s = text ? add_pattern(&named, text, &r->layer_regex, err)
                 : fail(err, STATUS_FORMAT, "layers_pattern: item %zu is no string", i);
    }
    return s == STATUS_OK && r->layer_regex.n == 0 ? add_pattern(&any, "", &r->layer_regex, err) : s;
}

static enum status read_layers(struct peft_rules *r, struct error *err)
{
    const json_t *v = json_object_get(r->config, "layers_to_transform");
    bool one = json_is_integer(v);
    size_t n = one ? 1 : json_array_size(v);
    if (!is_absent(v) && !one && !json_is_array(v))
        return fail(err, STATUS_FORMAT, "layers_to_transform is neither a number nor a list");
    if (n == 0)
        return STATUS_OK;
    if (n > NAMES_MAX)
        return fail(err, STATUS_TOO_LARGE, "layers_to_transform has %zu items, at most %u", n, NAMES_MAX);
    r->layers = mem_array(n, sizeof *r->layers);
    if (!r->layers)
        return fail(err, STATUS_NO_MEMORY, "no memory for layers_to_transform");
    for (size_t i = 0; i < n; i++) {
        const json_t *item = one ? v : json_array_get(v, i);
        if (!json_is_integer(item))
            return fail(err, STATUS_FORMAT, "layers_to_transform: item %zu is no whole number", i);
        r->layers[i] = json_integer_value(item);
    }
    r->n_layers = n;
    return read_layer_patterns(r, err);
}

static enum status read_patterns(struct peft_rules *r, const char *key, struct patterns *out,
                                 struct error *err)
{
    const struct pattern_form form = {key, "(.*\\.)?(", ")$", 0};
    json_t *object = json_object_get(r->config, key), *value;
    const char *text;
    if (is_absent(object))
        return STATUS_OK;
    if (!json_is_object(object))
        return fail(err, STATUS_FORMAT, "%s is not an object", key);
    json_object_foreach(object, text, value) /* jansson keeps the file's order */
    {
        double number = json_number_value(value);
        if (!json_is_number(value) || !isfinite(number))
            return fail(err, STATUS_FORMAT, "%s: the value of '%.100s' is not a number", key, text);
        enum status s = add_pattern(&form, text, out, err);
        if (s != STATUS_OK)
            return s;
        out->items[out->n - 1].value = number;
    }
    return STATUS_OK;
}

static enum status read_all(struct peft_rules *r, struct error *err)
{
    enum status s = read_list(r, "target_parameters", &r->parameters, err);
    if (s == STATUS_OK)
        s = read_targets(r, err);
    if (s == STATUS_OK)
        s = read_choice(r, "exclude_modules", &r->excluded, &r->excluded_regex, err);
    if (s == STATUS_OK)
        s = read_saved(r, err);
    if (s == STATUS_OK)
        s = read_layers(r, err);
    if (s == STATUS_OK)
        s = read_patterns(r, "rank_pattern", &r->rank, err);
    if (s == STATUS_OK)
        s = read_patterns(r, "alpha_pattern", &r->alpha, err);
    return s;
}

enum status peft_rules_create(struct json_t *config, const char *shown, struct peft_rules **out,
                              struct error *err)
{
    *out = NULL;
    struct peft_rules *r = mem_zalloc(sizeof *r);
    if (!r)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", shown);
    r->config = json_incref(config);
    r->match = pcre2_match_context_create(NULL);
    if (!r->match) {
        peft_rules_destroy(r);
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", shown);
    }
    pcre2_set_match_limit(r->match, MATCH_STEPS_MAX);
    pcre2_set_depth_limit(r->match, MATCH_STEPS_MAX);
    pcre2_set_heap_limit(r->match, MATCH_HEAP_KIB);
    enum status s = read_all(r, err);
    if (s != STATUS_OK) {
        peft_rules_destroy(r);
        return fail_within(err, "%s", shown);
    }
    *out = r;
    return STATUS_OK;
}

static void patterns_fini(struct patterns *p)
{
    for (size_t i = 0; i < p->n; i++)
        pcre2_code_free(p->items[i].code);
    mem_free(p->items);
}

void peft_rules_destroy(struct peft_rules *r)
{
    if (!r)
        return;
    patterns_fini(&r->target_regex);
    patterns_fini(&r->excluded_regex);
    patterns_fini(&r->saved_regex);
    patterns_fini(&r->layer_regex);
    patterns_fini(&r->rank);
    patterns_fini(&r->alpha);
    mem_free(r->targets.items);
    mem_free(r->excluded.items);
    mem_free(r->saved.items);
    mem_free(r->parameters.items);
    mem_free(r->layers);
    pcre2_match_context_free(r->match);
    json_decref(r->config);
    mem_free(r);
}

bool peft_rules_have_targets(const struct peft_rules *r)
{
    return r->has_targets;
}

bool peft_rules_have_parameters(const struct peft_rules *r)
{
    return r->parameters.n > 0;
}

/* ---- matching */

static bool names_have(const struct names *names, const char *name)
{
    return names->n && bsearch(&name, names->items, names->n, sizeof *names->items, compare_names);
}

/* The path itself, or a name that stands behind one of its dots. */
static bool names_end(const struct names *names, const char *path)
{
    if (names_have(names, path))
        return true;
    for (const char *dot = strchr(path, '.'); names->n && dot; dot = strchr(dot + 1, '.'))
        if (names_have(names, dot + 1))
            return true;
    return false;
}

static enum status match(const struct peft_rules *r, const struct pattern *p, const char *path, bool *found,
                         struct error *err)
{
    *found = false;
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    if (!data)
        return fail(err, STATUS_NO_MEMORY, "no memory to match %s", p->key);
    int n = pcre2_match(p->code, (PCRE2_SPTR)path, PCRE2_ZERO_TERMINATED, 0, 0, data, r->match);
    pcre2_match_data_free(data);
    *found = n >= 0;
    if (n >= 0 || n == PCRE2_ERROR_NOMATCH)
        return STATUS_OK;
    return fail(err, STATUS_UNSUPPORTED, "%s '%.100s' takes too long to match (or fails: %d)", p->key,
                p->text, n);
}

/* The layer's number by a layer pattern; *found false: none in it. */
static enum status match_layer(const struct peft_rules *r, const struct pattern *p, const char *path,
                               int64_t *layer, bool *found)
{
    *found = false;
    pcre2_match_data *data = pcre2_match_data_create_from_pattern(p->code, NULL);
    if (!data)
        return STATUS_NO_MEMORY;
    int n = pcre2_match(p->code, (PCRE2_SPTR)path, PCRE2_ZERO_TERMINATED, 0, 0, data, r->match);
    if (n > 1) {
        /* The last group is ours; the pattern's own come before it. */
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(data) + 2 * ((size_t)n - 1);
        *layer = strtoll(path + at[0], NULL, 10);
        *found = true;
    }
    pcre2_match_data_free(data);
    return n >= 0 || n == PCRE2_ERROR_NOMATCH ? STATUS_OK : STATUS_UNSUPPORTED;
}

static enum status layer_is_meant(const struct peft_rules *r, const char *path, bool *meant,
                                  struct error *err)
{
    int64_t layer = 0;
    bool found = false;
    *meant = false;
    for (size_t i = 0; i < r->layer_regex.n && !found; i++) {
        enum status s = match_layer(r, &r->layer_regex.items[i], path, &layer, &found);
        if (s != STATUS_OK)
            return fail(err, s, "layers_pattern '%.100s' can't be matched", r->layer_regex.items[i].text);
    }
    for (size_t i = 0; found && i < r->n_layers; i++)
        *meant = *meant || r->layers[i] == layer;
    return STATUS_OK;
}

static enum status is_excluded(const struct peft_rules *r, const char *path, bool *excluded,
                               struct error *err)
{
    *excluded = names_end(&r->excluded, path);
    enum status s = STATUS_OK;
    if (r->excluded_regex.n)
        s = match(r, &r->excluded_regex.items[0], path, excluded, err);
    for (size_t i = 0; i < r->saved_regex.n && s == STATUS_OK && !*excluded; i++)
        s = match(r, &r->saved_regex.items[i], path, excluded, err);
    return s;
}

enum status peft_is_targeted(const struct peft_rules *r, const char *path, bool is_head, bool *targeted,
                             struct error *err)
{
    bool excluded;
    *targeted = false;
    enum status s = is_excluded(r, path, &excluded, err);
    if (s != STATUS_OK || excluded)
        return s;
    if (r->all_linear)
        *targeted = !is_head;
    else if (r->target_regex.n)
        return match(r, &r->target_regex.items[0], path, targeted, err);
    else
        *targeted = names_end(&r->targets, path);
    /* A module that is named by its whole path is not asked for its layer. */
    if (*targeted && r->n_layers && !names_have(&r->targets, path))
        return layer_is_meant(r, path, targeted, err);
    return STATUS_OK;
}

bool peft_is_parameter(const struct peft_rules *r, const char *key)
{
    return names_end(&r->parameters, key);
}

/* PEFT's rule for modules_to_save is a plain end of the path, dot or no dot. */
bool peft_is_saved(const struct peft_rules *r, const char *path)
{
    for (size_t n = strlen(path); n; n--) {
        if (path[n] && path[n] != '.')
            continue;
        for (size_t i = 0; i < r->saved.n; i++) {
            size_t m = strlen(r->saved.items[i]);
            if (m && m <= n && memcmp(path + n - m, r->saved.items[i], m) == 0)
                return true;
        }
    }
    return false;
}

static bool is_embedding_name(const char *name)
{
    const char *dot = strrchr(name, '.');
    name = dot ? dot + 1 : name;
    return strcmp(name, "embed_tokens") == 0 || strcmp(name, "lm_head") == 0;
}

enum status peft_names_embedding(const struct peft_rules *r, bool *saved, bool *targeted, struct error *err)
{
    static const char *const embeddings[] = {"embed_tokens", "lm_head"};
    *saved = *targeted = false;
    for (size_t i = 0; i < r->saved.n; i++)
        *saved = *saved || is_embedding_name(r->saved.items[i]);
    for (size_t i = 0; i < r->targets.n; i++)
        *targeted = *targeted || is_embedding_name(r->targets.items[i]);
    for (size_t i = 0; r->target_regex.n && i < 2 && !*targeted; i++) {
        enum status s = match(r, &r->target_regex.items[0], embeddings[i], targeted, err);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

enum status peft_pattern_alpha(const struct peft_rules *r, const char *path, double *out, struct error *err)
{
    for (size_t i = 0; i < r->alpha.n; i++) {
        bool found;
        enum status s = match(r, &r->alpha.items[i], path, &found, err);
        if (s != STATUS_OK)
            return s;
        if (found) {
            *out = r->alpha.items[i].value;
            return STATUS_OK;
        }
    }
    return STATUS_OK;
}

enum status peft_pattern_rank(const struct peft_rules *r, const char *path, double rank,
                              struct peft_rank_found *out, struct error *err)
{
    *out = (struct peft_rank_found){false, false, 0};
    for (size_t i = 0; i < r->rank.n; i++) {
        bool found;
        enum status s = match(r, &r->rank.items[i], path, &found, err);
        if (s != STATUS_OK)
            return s;
        if (!found)
            continue;
        if (!out->any)
            out->first = r->rank.items[i].value;
        out->any = true;
        out->fits = out->fits || r->rank.items[i].value == rank;
    }
    return STATUS_OK;
}
