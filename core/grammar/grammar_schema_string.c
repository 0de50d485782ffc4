/* Strings of a schema: lengths, patterns and formats, alone or all at once, and strings that are left out.
 * What alone is plain is made as it is; what meets something else is cut out of it (grammar_sets.c), for
 * which every character has one spelling. */
#include <string.h>

#include "grammar_json.h"

#define NAME_BYTES_MAX 256U /* of a string that is left out */

/* All that a string schema asks for. */
struct text {
    struct schema *sc;
    const struct expr *inner; /* between the quotes; NULL: nothing but the lengths is asked */
    uint64_t least, most;
    bool has_length; /* which the inner one doesn't keep to by itself */
};

static void cut(struct text *t, const struct expr *other, bool without, const char *keyword)
{
    struct maker *m = t->sc->m;
    const struct expr *x = without ? expr_without(m, t->inner, other) : expr_both(m, t->inner, other);
    if (!x)
        schema_fail(t->sc, STATUS_TOO_LARGE,
                    "\"%s\" beside what else is asked of a string needs too many states", keyword);
    t->inner = x ? x : expr_never();
}

const struct expr *schema_pattern(struct schema *sc, const char *pattern, size_t length, const char *name,
                                  uint64_t n[2])
{
    char quoted[40];
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    struct regex_options o = {.spelling = SPELL_JSON, .search = true, .name = quoted};
    return regex_parse(sc->m, pattern, length, &o, &n[0], &n[1]);
}

static void add_pattern(struct text *t, const char *pattern, size_t length, const char *keyword)
{
    uint64_t n[2] = {0, 0};
    const struct expr *x = schema_pattern(t->sc, pattern, length, keyword, n);
    if (t->sc->m->status != STATUS_OK)
        return;
    if (n[0] >= t->least && n[1] <= t->most)
        t->has_length = false;
    if (t->inner)
        cut(t, x, false, keyword);
    else
        t->inner = x;
}

static void add_patterns(struct text *t, const json_t *s)
{
    const json_t *pattern = json_object_get(s, "pattern"), *format = json_object_get(s, "format"),
                 *more = json_object_get(s, JOINED_PATTERNS);
    if ((pattern && !json_is_string(pattern)) || (format && !json_is_string(format)))
        schema_fail(t->sc, STATUS_INVALID, "\"%s\" must be a string",
                    json_is_string(format) || !format ? "pattern" : "format");
    if (pattern)
        add_pattern(t, json_string_value(pattern), json_string_length(pattern), "pattern");
    for (size_t i = 0; i < json_array_size(more); i++)
        if (json_is_string(json_array_get(more, i)))
            add_pattern(t, json_string_value(json_array_get(more, i)),
                        json_string_length(json_array_get(more, i)), "pattern");
    if (!format || t->sc->m->status != STATUS_OK)
        return;
    const char *known = schema_format_pattern(json_string_value(format));
    if (known)
        add_pattern(t, known, strlen(known), "format");
    else
        schema_fail(t->sc, STATUS_UNSUPPORTED, "the format \"%.60s\" is not supported",
                    json_string_value(format));
}

/* ---- strings that are left out */

/* Characters and the closing quote of what is none of the names: those that begin with the same `at` bytes,
 * sorted. */
static const struct expr *other_rest(struct schema *sc, const struct text_slice *names, size_t n, size_t at)
{
    struct maker *m = sc->m;
    struct expr_list ways = {0};
    struct ranges rest = {0};
    size_t i = 0;
    if (n && names[0].length == at)
        i++;
    else
        list_add(m, &ways, expr_text(m, "\""));
    ranges_add(m, &rest, 0, 0); /* never in a string */
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
                 expr_seq2(m, expr_code_point(m, c, SPELL_JSON), other_rest(sc, names + i, end - i, next)));
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

const struct expr *schema_other_string(struct schema *sc, struct text_slice *names, size_t n)
{
    size_t n_kept = 0;
    for (size_t i = 0; i < n; i++) {
        struct text_slice name = names[i];
        size_t at = n_kept;
        if (name.length > NAME_BYTES_MAX)
            schema_fail(sc, STATUS_TOO_LARGE, "a name that is left out has more than %u bytes",
                        NAME_BYTES_MAX);
        while (at > 0 && compare_names(&name, &names[at - 1]) < 0)
            at--;
        if (at > 0 && compare_names(&name, &names[at - 1]) == 0)
            continue; /* again */
        memmove(names + at + 1, names + at, (n_kept - at) * sizeof *names);
        names[at] = name;
        n_kept++;
    }
    if (sc->m->status != STATUS_OK)
        return expr_never();
    return expr_seq2(sc->m, expr_text(sc->m, "\""), other_rest(sc, names, n_kept, 0));
}

/* Any string but these constants. */
static const struct expr *other_constants(struct schema *sc, const json_t *list)
{
    struct text_slice *names = maker_alloc(sc->m, (json_array_size(list) + 1) * sizeof *names);
    for (size_t i = 0; i < json_array_size(list) && names; i++) {
        const json_t *v = json_array_get(list, i);
        names[i] = (struct text_slice){json_string_value(v), json_string_length(v)};
    }
    return names ? schema_other_string(sc, names, json_array_size(list)) : expr_never();
}

/* \\d, \\w, \\s and . mean more or less beyond these characters, depending on who reads them. */
static bool is_read_alike(const char *pattern, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (pattern[i] == '.')
            return false;
        if (pattern[i] == '\\' && ++i < length && strchr("dDwWsS", pattern[i]))
            return false;
    }
    return true;
}

const struct expr *schema_cut_pattern(struct schema *sc, const struct expr *strings, const char *pattern,
                                      size_t length, const struct expr *matches)
{
    struct maker *m = sc->m;
    struct ranges sure = {0};
    if (is_read_alike(pattern, length))
        return expr_without(m, strings, matches);
    ranges_add(m, &sure, '\t', '\n');
    ranges_add(m, &sure, ' ', '~');
    const struct expr *some = expr_repeat(m, expr_ranges(m, &sure, SPELL_JSON), 0, REPEAT_FOREVER);
    const struct expr *quoted = jx_quoted(m, some);
    const struct expr *both = expr_both(m, strings, expr_alt2(m, some, quoted));
    return both ? expr_without(m, both, matches) : NULL;
}

static void cut_out_pattern(struct text *t, const char *pattern, size_t length)
{
    uint64_t n[2];
    const struct expr *x = schema_pattern(t->sc, pattern, length, "pattern", n);
    x = t->sc->m->status == STATUS_OK ? schema_cut_pattern(t->sc, t->inner, pattern, length, x)
                                      : expr_never();
    if (!x)
        schema_fail(t->sc, STATUS_TOO_LARGE, "\"not\" of this \"pattern\" needs too many states");
    t->inner = x ? x : expr_never();
}

static void cut_out(struct text *t, const json_t * not )
{
    const json_t *list = json_object_get(not, "enum"), *pattern = json_object_get(not, "pattern"),
                 *ways = json_object_get(not, "anyOf");
    struct maker *m = t->sc->m;
    struct expr_list values = {0};
    for (size_t i = 0; i < json_array_size(ways) && m->status == STATUS_OK; i++)
        cut_out(t, json_array_get(ways, i));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        list_add(m, &values, expr_spelled(m, json_string_value(v), json_string_length(v), SPELL_JSON));
    }
    if (values.n && m->status == STATUS_OK)
        cut(t, expr_alt(m, &values), true, "not");
    if (pattern && m->status == STATUS_OK)
        cut_out_pattern(t, json_string_value(pattern), json_string_length(pattern));
}

bool schema_is_string_not(const json_t * not )
{
    const json_t *list = json_object_get(not, "enum"), *ways = json_object_get(not, "anyOf");
    bool plain =
        json_object_size(not ) == 1 && (list || ways || json_is_string(json_object_get(not, "pattern")));
    for (size_t i = 0; i < json_array_size(list) && plain; i++)
        plain = json_is_string(json_array_get(list, i));
    for (size_t i = 0; i < json_array_size(ways) && plain; i++)
        plain = schema_is_string_not(json_array_get(ways, i));
    return plain;
}

/* ---- all */

const struct expr *schema_string(struct schema *sc, const json_t *s)
{
    struct maker *m = sc->m;
    struct text t = {.sc = sc, .most = UINT64_MAX};
    const json_t *not = json_object_get(s, "not");
    bool has_least = schema_count(sc, s, "minLength", &t.least),
         has_most = schema_count(sc, s, "maxLength", &t.most);
    t.has_length = has_least || has_most;
    add_patterns(&t, s);
    if (m->status != STATUS_OK || t.least > t.most)
        return expr_never();
    if (!t.inner && !t.has_length && !not )
        return jx_string(m, &sc->json);
    if (!t.inner && !t.has_length && json_object_get(not, "enum"))
        return other_constants(sc, json_object_get(not, "enum"));
    const struct expr *lengths = expr_repeat(m, jx_char(m, &sc->json), schema_repeats(t.least),
                                             t.most != UINT64_MAX ? schema_repeats(t.most) : REPEAT_FOREVER);
    if (!t.inner)
        t.inner = lengths;
    else if (t.has_length)
        cut(&t, lengths, false, has_least ? "minLength" : "maxLength");
    if (not &&m->status == STATUS_OK)
        cut_out(&t, not );
    return m->status == STATUS_OK ? jx_quoted(m, t.inner) : expr_never();
}
