/* Objects and strings of a schema. */
#include <stdio.h>
#include <string.h>

#include "grammar_json.h"

#define KEY_BYTES_MAX 256U /* of a property's name where other names are allowed, too */

/* ---- strings */

static const struct expr *pattern_string(struct schema *sc, const char *pattern, size_t length,
                                         const char *name, uint64_t least, uint64_t most)
{
    struct regex_options o = {.spelling = SPELL_JSON, .search = true, .name = name};
    uint64_t n_min = 0, n_max = 0;
    const struct expr *x = regex_parse(sc->m, pattern, length, &o, &n_min, &n_max);
    if (sc->m->status == STATUS_OK && (n_min < least || n_max > most))
        schema_fail(sc, STATUS_UNSUPPORTED,
                    "\"minLength\" or \"maxLength\" beside %s is supported where that keeps to it by itself",
                    name);
    return jx_quoted(sc->m, x);
}

static const struct expr *other_string(struct schema *sc, const json_t *list, bool has_length);

const struct expr *schema_string(struct schema *sc, const json_t *s)
{
    const json_t *pattern = json_object_get(s, "pattern"), *format = json_object_get(s, "format");
    uint64_t least = 0, most = UINT64_MAX;
    bool has_least = schema_count(sc, s, "minLength", &least),
         has_most = schema_count(sc, s, "maxLength", &most);
    if ((pattern && !json_is_string(pattern)) || (format && !json_is_string(format)))
        schema_fail(sc, STATUS_INVALID, "\"%s\" must be a string",
                    json_is_string(format) ? "pattern" : "format");
    else if (pattern && format)
        schema_fail(sc, STATUS_UNSUPPORTED, "\"pattern\" and \"format\" together are not supported");
    if (sc->m->status != STATUS_OK || least > most)
        return expr_never();
    if (pattern)
        return pattern_string(sc, json_string_value(pattern), json_string_length(pattern), "\"pattern\"",
                              least, most);
    if (format) {
        const char *known = schema_format_pattern(json_string_value(format));
        if (known)
            return pattern_string(sc, known, strlen(known), "\"format\"", least, most);
        schema_fail(sc, STATUS_UNSUPPORTED, "the format \"%.60s\" is not supported",
                    json_string_value(format));
    }
    if (json_object_get(s, "not"))
        return other_string(sc, json_object_get(json_object_get(s, "not"), "enum"), has_least || has_most);
    if (!has_least && !has_most)
        return jx_string(sc->m, &sc->json);
    return jx_quoted(sc->m, expr_repeat(sc->m, jx_char(sc->m, &sc->json), schema_repeats(least),
                                        has_most ? schema_repeats(most) : REPEAT_FOREVER));
}

/* ---- objects */

struct member {
    const char *name;
    const struct expr *pair; /* "name": value; EXPR_NEVER: it can't be there */
    bool required;
};

struct members {
    struct member *list;
    size_t n, n_required;
    const struct expr *others; /* any further pair; EXPR_NEVER: none */
    uint64_t least, most;
    uint32_t at_least_one; /* 1: some member must come */
};

static const struct expr *pair_of(struct schema *sc, const struct expr *key, const struct expr *value)
{
    struct maker *m = sc->m;
    const struct expr *colon = expr_seq2(m, expr_text(m, ":"), jx_space(m, &sc->json));
    return expr_seq2(m, key, expr_seq2(m, colon, value));
}

/* A key's characters and its closing quote, where it is none of the names: those that begin with the same
 * `at` bytes, sorted. */
static const struct expr *other_key(struct schema *sc, const struct text_slice *names, size_t n, size_t at)
{
    struct maker *m = sc->m;
    struct expr_list ways = {0};
    struct ranges rest = {0};
    size_t i = 0;
    if (n && names[0].length == at)
        i++;
    else
        list_add(m, &ways, expr_text(m, "\""));
    ranges_add(m, &rest, 0, 0); /* never in a key */
    while (i < n && m->status == STATUS_OK) {
        size_t next = at, end = i;
        uint32_t c = 0;
        if (!next_code_point(names[i].text, names[i].length, &next, &c))
            break;
        while (end < n && names[end].length >= next &&
               memcmp(names[end].text + at, names[i].text + at, next - at) == 0)
            end++;
        ranges_add(m, &rest, c, c);
        list_add(m, &ways,
                 expr_seq2(m, expr_code_point(m, c, SPELL_JSON), other_key(sc, names + i, end - i, next)));
        i = end;
    }
    ranges_invert(m, &rest);
    list_add(m, &ways, expr_seq2(m, expr_ranges(m, &rest, SPELL_JSON), jx_key_rest(m, &sc->json)));
    return expr_alt(m, &ways);
}

static int compare_names(const struct text_slice *a, const struct text_slice *b)
{
    size_t n = a->length < b->length ? a->length : b->length;
    int c = n ? memcmp(a->text, b->text, n) : 0;
    return c ? c : (a->length > b->length) - (a->length < b->length);
}

/* Puts a name in its place among the n that are sorted. */
static void add_name(struct schema *sc, struct text_slice *names, size_t n, struct text_slice name)
{
    size_t at = n;
    if (name.length > KEY_BYTES_MAX)
        schema_fail(sc, STATUS_TOO_LARGE, "a name that is left out has more than %u bytes", KEY_BYTES_MAX);
    for (; at > 0 && compare_names(&name, &names[at - 1]) < 0; at--)
        names[at] = names[at - 1];
    names[at] = name;
}

static const struct expr *other_key_of(struct schema *sc, const struct members *all)
{
    struct text_slice *names = maker_alloc(sc->m, (all->n + 1) * sizeof *names);
    for (size_t i = 0; i < all->n && names; i++)
        add_name(sc, names, i, (struct text_slice){all->list[i].name, strlen(all->list[i].name)});
    if (!names || sc->m->status != STATUS_OK)
        return expr_never();
    return expr_seq2(sc->m, expr_text(sc->m, "\""), other_key(sc, names, all->n, 0));
}

/* Any string but these. */
static const struct expr *other_string(struct schema *sc, const json_t *list, bool has_length)
{
    struct text_slice *names = maker_alloc(sc->m, (json_array_size(list) + 1) * sizeof *names);
    size_t n = 0;
    if (has_length)
        schema_fail(sc, STATUS_UNSUPPORTED, "a length beside strings that are left out is not supported");
    for (size_t i = 0; i < json_array_size(list) && names; i++) {
        const json_t *v = json_array_get(list, i);
        bool again = false;
        for (size_t k = 0; k < i && !again; k++)
            again = json_equal(json_array_get(list, k), v);
        if (!again)
            add_name(sc, names, n++, (struct text_slice){json_string_value(v), json_string_length(v)});
    }
    if (!names || sc->m->status != STATUS_OK)
        return expr_never();
    return expr_seq2(sc->m, expr_text(sc->m, "\""), other_key(sc, names, n, 0));
}

static void add_member(struct schema *sc, struct members *all, const char *name, const json_t *s)
{
    struct maker *m = sc->m;
    size_t before = schema_enter(sc, "properties", name);
    const struct expr *value = schema_rule(sc, s);
    const struct expr *key = jx_quoted(m, expr_spelled(m, name, strlen(name), SPELL_JSON));
    const struct expr *pair = pair_of(sc, key, value);
    schema_leave(sc, before);
    if (pair->kind != EXPR_NEVER)
        pair = expr_call(m, rule_new(m, pair));
    all->list[all->n++] = (struct member){.name = name, .pair = pair};
}

static bool has_member(const struct members *all, const char *name, size_t *at)
{
    for (*at = 0; *at < all->n; ++*at)
        if (strcmp(all->list[*at].name, name) == 0)
            return true;
    return false;
}

/* Names that are required but not described are what others are. */
static void read_required(struct schema *sc, const json_t *s, struct members *all, const json_t *others)
{
    const json_t *required = json_object_get(s, "required");
    if (required && !json_is_array(required))
        schema_fail(sc, STATUS_INVALID, "\"required\" must be an array of names");
    for (size_t i = 0; i < json_array_size(required) && sc->m->status == STATUS_OK; i++) {
        const char *name = json_string_value(json_array_get(required, i));
        size_t at;
        if (!name) {
            schema_fail(sc, STATUS_INVALID, "\"required\" must be an array of names");
            return;
        }
        if (!has_member(all, name, &at)) {
            json_t *any = json_true();
            add_member(sc, all, name, others ? others : any);
        }
        all->n_required += !all->list[at].required;
        all->list[at].required = true;
    }
}

/* The key and value of members that are not listed. */
static void read_others(struct schema *sc, const json_t *s, struct members *all, const json_t *others)
{
    struct maker *m = sc->m;
    const json_t *names = json_object_get(s, "propertyNames"),
                 *patterns = json_object_get(s, "patternProperties");
    const struct expr *key = NULL, *value;
    all->others = expr_never();
    if ((names || json_object_size(patterns)) && (all->n || (names && json_object_size(patterns)))) {
        schema_fail(sc, STATUS_UNSUPPORTED, "\"%s\" beside other properties is not supported",
                    names ? "propertyNames" : "patternProperties");
    } else if (json_object_size(patterns)) {
        const char *pattern = json_object_iter_key(json_object_iter((json_t *)(uintptr_t)patterns));
        if (json_object_size(patterns) > 1 || (others && !json_is_false(others)))
            schema_fail(sc, STATUS_UNSUPPORTED,
                        "\"patternProperties\" is supported with one pattern, and without others beside it");
        key = pattern_string(sc, pattern, strlen(pattern), "\"patternProperties\"", 0, UINT64_MAX);
        others = json_object_get(patterns, pattern);
    } else if (names && !json_is_false(others)) {
        json_t *text = json_pack("{s:s}", "type", "string");
        const json_t *both = schema_merge(sc, text, names);
        key = both ? schema_expr(sc, both) : expr_never();
        json_decref(text);
    } else if (!json_is_false(others) && (others || all->n == 0)) {
        key = all->n ? other_key_of(sc, all) : jx_string(m, &sc->json);
    }
    if (!key || m->status != STATUS_OK)
        return;
    size_t before = schema_enter(sc, "additionalProperties", NULL);
    value = others ? schema_rule(sc, others) : jx_value(m, &sc->json);
    schema_leave(sc, before);
    const struct expr *pair = pair_of(sc, key, value);
    all->others = pair->kind == EXPR_NEVER ? pair : expr_call(m, rule_new(m, pair));
}

static void check_counts(struct schema *sc, const json_t *s, struct members *all)
{
    bool open = all->others->kind != EXPR_NEVER;
    all->most = UINT64_MAX;
    bool has_least = schema_count(sc, s, "minProperties", &all->least);
    bool has_most = schema_count(sc, s, "maxProperties", &all->most);
    if (has_least && all->least > all->n_required && all->least > 1)
        schema_fail(sc, STATUS_UNSUPPORTED,
                    "\"minProperties\" above 1 and the required ones is not supported");
    if (has_most && all->n > 0 && (open || all->most < all->n))
        schema_fail(sc, STATUS_UNSUPPORTED,
                    "\"maxProperties\" is supported where only additionalProperties are described");
    all->at_least_one = has_least && all->least == 1 && all->n_required == 0;
}

/* From member i on; `any`: one came already, so that a comma stands before the next. Each is a rule, as two
 * ways lead to it. */
static const struct expr *chain(struct schema *sc, const struct members *all)
{
    struct maker *m = sc->m;
    const struct expr *comma = jx_comma(m, &sc->json), *others = all->others;
    bool open = others->kind != EXPR_NEVER;
    uint32_t max = all->most == UINT64_MAX ? REPEAT_FOREVER : schema_repeats(all->most);
    const struct expr *more = expr_seq2(m, comma, others), *after = expr_empty(), *first = expr_empty();
    if (open)
        after = expr_call(m, rule_new(m, expr_repeat(m, more, 0, REPEAT_FOREVER)));
    if (open && max > 0) {
        uint32_t behind = max == REPEAT_FOREVER ? REPEAT_FOREVER : max - 1;
        first = expr_seq2(m, others, expr_repeat(m, more, 0, behind));
        if (!all->at_least_one)
            first = expr_repeat(m, first, 0, 1);
    } else if (all->at_least_one) {
        first = expr_never();
    }
    for (size_t i = all->n; i-- > 0 && m->status == STATUS_OK;) {
        const struct member *x = &all->list[i];
        const struct expr *alone = expr_seq2(m, x->pair, after);
        const struct expr *next = expr_seq2(m, comma, alone);
        first = x->required ? alone : expr_alt2(m, alone, first);
        after = x->required ? next : expr_alt2(m, next, after);
        if (first->kind != EXPR_NEVER)
            first = expr_call(m, rule_new(m, first));
        if (after->kind != EXPR_NEVER)
            after = expr_call(m, rule_new(m, after));
    }
    return first;
}

const struct expr *schema_object(struct schema *sc, const json_t *s)
{
    struct maker *m = sc->m;
    const json_t *properties = json_object_get(s, "properties"), *others;
    struct members all = {0};
    const char *name;
    json_t *value;
    if (properties && !json_is_object(properties))
        schema_fail(sc, STATUS_INVALID, "\"properties\" must be an object of schemas");
    others = json_object_get(s, "additionalProperties");
    if (!others)
        others = json_object_get(s, UNEVALUATED_PROPERTIES);
    all.list =
        maker_alloc(m, (json_object_size(properties) + json_array_size(json_object_get(s, "required")) + 1) *
                           sizeof *all.list);
    if (!all.list)
        return expr_never();
    json_object_foreach((json_t *)(uintptr_t)properties, name, value) add_member(sc, &all, name, value);
    read_required(sc, s, &all, others);
    read_others(sc, s, &all, others);
    check_counts(sc, s, &all);
    if (m->status != STATUS_OK)
        return expr_never();
    return jx_bracketed(m, &sc->json, "{", chain(sc, &all), "}");
}
