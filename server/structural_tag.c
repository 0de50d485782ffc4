/* Structural tags as groups of a grammar. Free text has no trigger in it, so behind each trigger that comes
 * there is one of the tags that begin with it. */
#include "structural_tag.h"

#include <string.h>

#define DEPTH_MAX 6U /* of formats; each makes up to six groups in each other (GRAMMAR_GROUPS_MAX) */
#define LIST_MAX 64U /* elements, tags, triggers */
#define BUILT_BYTES_MAX ((size_t)4 << 20) /* tags are built for each trigger: they multiply */

struct builder {
    struct reader *r;
    struct arena *arena;
    const char *field;
    size_t n_built; /* bytes */
};

static void refuse(struct builder *b, enum status s, const char *what, const json_t *found)
{
    char text[96];
    read_fail(b->r, s, b->field, "%s: %s: found %s", b->field, what,
              found ? describe_json(found, text, sizeof text) : "none");
}

static void *take(struct builder *b, size_t n, size_t bytes)
{
    b->n_built += n * bytes;
    if (b->n_built > BUILT_BYTES_MAX) {
        read_fail(b->r, STATUS_TOO_LARGE, b->field, "%s: its tags and triggers make more than %zu bytes",
                  b->field, BUILT_BYTES_MAX);
        return NULL;
    }
    void *p = arena_array(b->arena, n, bytes);
    if (!p)
        read_fail(b->r, STATUS_NO_MEMORY, NULL, "no memory for the request");
    return p;
}

/* ---- parts and groups */

static struct grammar_part part_of(enum grammar_kind kind, const char *text)
{
    return (struct grammar_part){kind, text, text ? strlen(text) : 0};
}

static struct grammar_part json_part(struct builder *b, enum grammar_kind kind, const json_t *v)
{
    const size_t flags = JSON_COMPACT | JSON_ENCODE_ANY;
    size_t n = json_dumpb(v, NULL, 0, flags);
    char *text = n <= GRAMMAR_SOURCE_BYTES_MAX ? take(b, n + 1, 1) : NULL;
    if (n > GRAMMAR_SOURCE_BYTES_MAX)
        read_fail(b->r, STATUS_TOO_LARGE, b->field, "%s: has %zu bytes, at most %u are taken", b->field, n,
                  GRAMMAR_SOURCE_BYTES_MAX);
    if (text)
        json_dumpb(v, text, n, flags);
    return (struct grammar_part){kind, text, text ? n : 0};
}

/* n alternatives of one part each, or with `in_a_row` one sequence of them. */
static struct grammar_part group_of(struct builder *b, const struct grammar_part *parts, uint32_t n,
                                    bool in_a_row)
{
    struct grammar_spec *spec = take(b, 1, sizeof *spec);
    struct grammar_sequence *ways = take(b, n + 1U, sizeof *ways);
    struct grammar_part *copy = take(b, n + 1U, sizeof *copy);
    if (!spec || !ways || !copy)
        return (struct grammar_part){0};
    memcpy(copy, parts, n * sizeof *parts);
    for (uint32_t i = 0; i < n; i++)
        ways[i] = (struct grammar_sequence){&copy[i], 1};
    if (in_a_row)
        ways[0] = (struct grammar_sequence){copy, n};
    *spec = (struct grammar_spec){.alternatives = ways, .n_alternatives = in_a_row ? 1 : n};
    return (struct grammar_part){GRAMMAR_GROUP, spec, 0};
}

static struct grammar_part repeat(struct builder *b, struct grammar_part part, uint32_t n_min, uint32_t n_max,
                                  const char *separator)
{
    struct grammar_part group = group_of(b, &part, 1, true);
    struct grammar_spec *spec = (struct grammar_spec *)(uintptr_t)group.text;
    if (spec) {
        spec->n_min = n_min;
        spec->n_max = n_max;
        spec->separator = separator;
    }
    return group;
}

/* Free text with none of the strings (an array, or NULL) in it; up to `until`, if that isn't NULL. */
static struct grammar_part free_text(struct builder *b, const json_t *without, const char *until)
{
    json_t *said = json_object(), *list = json_array();
    bool whole = true;
    if (without && !json_is_array(without))
        refuse(b, STATUS_INVALID, "excludes: expected an array of texts", without);
    for (size_t i = 0; i < json_array_size(without); i++) {
        const char *s = json_string_value(json_array_get(without, i));
        if (!s || !s[0])
            refuse(b, STATUS_INVALID, "expected texts that aren't empty", json_array_get(without, i));
        else if (!until || strcmp(s, until) != 0)
            whole &= json_array_append(list, json_array_get(without, i)) == 0;
    }
    whole &= json_object_set_new(said, "without", list) == 0;
    if (until)
        whole &= json_object_set_new(said, "until", json_string(until)) == 0;
    if (!whole) /* what is left out of it would be allowed */
        read_fail(b->r, STATUS_NO_MEMORY, NULL, "no memory for the request");
    struct grammar_part part = json_part(b, GRAMMAR_FREE_TEXT, said);
    json_decref(said);
    return part;
}

/* ---- formats */

static const char *text_of(struct builder *b, const json_t *object, const char *key, bool may_be_empty)
{
    const json_t *v = json_object_get(object, key);
    if (json_is_string(v) && (may_be_empty || json_string_length(v)))
        return json_string_value(v);
    refuse(b, STATUS_INVALID, key, v);
    return NULL;
}

static const json_t *list_of(struct builder *b, const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    if (!json_is_array(v) || json_array_size(v) == 0 || json_array_size(v) > LIST_MAX)
        refuse(b, STATUS_INVALID, key, v);
    return b->r->status == STATUS_OK ? v : NULL;
}

static struct grammar_part read_format(struct builder *b, const json_t *format, unsigned depth);

/* begin, content, end; the first n bytes of its begin have come. */
static struct grammar_part read_tag(struct builder *b, const json_t *tag, size_t n, unsigned depth)
{
    const char *begin = text_of(b, tag, "begin", false), *end = text_of(b, tag, "end", true);
    const json_t *schema = json_object_get(tag, "schema"), *content = json_object_get(tag, "content");
    const char *type = json_string_value(json_object_get(content, "type"));
    struct grammar_part parts[3];
    uint32_t k = 0;
    if (b->r->status != STATUS_OK)
        return (struct grammar_part){0};
    if (begin[n])
        parts[k++] = part_of(n ? GRAMMAR_LITERAL : GRAMMAR_TOKEN, begin + n);
    if (type && strcmp(type, "any_text") == 0 && end[0]) {
        parts[k++] = free_text(b, json_object_get(content, "excludes"), end);
    } else {
        parts[k++] = schema ? json_part(b, GRAMMAR_JSON_SCHEMA, schema) : read_format(b, content, depth + 1);
        if (end[0])
            parts[k++] = part_of(GRAMMAR_TOKEN, end);
    }
    return group_of(b, parts, k, true);
}

/* Free text up to a trigger, and one of the tags that begin with it. */
static struct grammar_part read_triggered(struct builder *b, const json_t *triggers, const json_t *tags,
                                          size_t which, unsigned depth)
{
    struct grammar_part ways[LIST_MAX], both[2] = {{0}};
    const char *trigger = json_string_value(json_array_get(triggers, which));
    uint32_t n = 0;
    if (!trigger || !trigger[0]) {
        refuse(b, STATUS_INVALID, "triggers", json_array_get(triggers, which));
        return both[0];
    }
    for (size_t i = 0; i < json_array_size(tags) && b->r->status == STATUS_OK; i++) {
        const json_t *tag = json_array_get(tags, i);
        const char *begin = json_string_value(json_object_get(tag, "begin"));
        if (begin && strncmp(begin, trigger, strlen(trigger)) == 0)
            ways[n++] = read_tag(b, tag, strlen(trigger), depth);
    }
    both[0] = free_text(b, triggers, trigger);
    both[1] = group_of(b, ways, n, false);
    return group_of(b, both, 2, true);
}

/* A tag without a trigger would never come. */
static void check_begins(struct builder *b, const json_t *triggers, const json_t *tags)
{
    for (size_t i = 0; i < json_array_size(tags); i++) {
        const json_t *begin = json_object_get(json_array_get(tags, i), "begin");
        bool found = false;
        for (size_t k = 0; k < json_array_size(triggers); k++) {
            const char *t = json_string_value(json_array_get(triggers, k));
            found |= t && json_is_string(begin) && strncmp(json_string_value(begin), t, strlen(t)) == 0;
        }
        if (!found)
            refuse(b, STATUS_INVALID, "begin: expected a text that begins with one of the triggers", begin);
    }
}

static struct grammar_part read_triggers(struct builder *b, const json_t *format, const json_t *tags,
                                         unsigned depth)
{
    const json_t *triggers = list_of(b, format, "triggers");
    struct grammar_part ways[LIST_MAX], all[2];
    bool one = json_is_true(json_object_get(format, "stop_after_first"));
    uint32_t n = 0;
    check_begins(b, triggers, tags);
    for (size_t i = 0; i < json_array_size(triggers) && b->r->status == STATUS_OK; i++)
        ways[n++] = read_triggered(b, triggers, tags, i, depth);
    if (b->r->status != STATUS_OK)
        return (struct grammar_part){0};
    uint32_t least = json_is_true(json_object_get(format, "at_least_one"));
    all[0] = repeat(b, group_of(b, ways, n, false), least, one ? 1 : GRAMMAR_FOREVER, NULL);
    all[1] = free_text(b, triggers, NULL);
    if (!one)
        return group_of(b, all, 2, true);
    if (least)
        return all[0];
    all[0] = group_of(b, ways, n, false); /* one of the tags, or none */
    return group_of(b, all, 2, false);
}

static struct grammar_part read_list(struct builder *b, const json_t *format, const char *type,
                                     unsigned depth)
{
    bool tags = strcmp(type, "tags_with_separator") == 0;
    const json_t *list = list_of(b, format, tags ? "tags" : "elements");
    struct grammar_part parts[LIST_MAX];
    uint32_t n = 0;
    for (size_t i = 0; i < json_array_size(list) && b->r->status == STATUS_OK; i++)
        parts[n++] = tags ? read_tag(b, json_array_get(list, i), 0, depth)
                          : read_format(b, json_array_get(list, i), depth + 1);
    if (!tags)
        return group_of(b, parts, n, strcmp(type, "sequence") == 0);
    const char *separator = text_of(b, format, "separator", true);
    bool one = json_is_true(json_object_get(format, "stop_after_first"));
    return repeat(b, group_of(b, parts, n, false), json_is_true(json_object_get(format, "at_least_one")),
                  one ? 1 : GRAMMAR_FOREVER, separator);
}

static struct grammar_part read_format(struct builder *b, const json_t *format, unsigned depth)
{
    const char *type = json_string_value(json_object_get(format, "type"));
    const json_t *schema = json_object_get(format, "json_schema");
    if (!type || depth > DEPTH_MAX)
        refuse(b, STATUS_INVALID,
               depth > DEPTH_MAX ? "formats are nested too deep" : "expected a format with a type", format);
    else if (strcmp(type, "const_string") == 0)
        return part_of(GRAMMAR_TOKEN, text_of(b, format, "value", true));
    else if (strcmp(type, "json_schema") == 0 && json_is_object(schema))
        return json_part(b, GRAMMAR_JSON_SCHEMA, schema);
    else if (strcmp(type, "json_schema") == 0)
        refuse(b, STATUS_INVALID, "json_schema", schema);
    else if (strcmp(type, "regex") == 0)
        return part_of(GRAMMAR_REGEX, text_of(b, format, "pattern", true));
    else if (strcmp(type, "grammar") == 0)
        return part_of(GRAMMAR_GBNF, text_of(b, format, "grammar", true));
    else if (strcmp(type, "any_text") == 0)
        return free_text(b, json_object_get(format, "excludes"), NULL);
    else if (strcmp(type, "tag") == 0)
        return read_tag(b, format, 0, depth);
    else if (strcmp(type, "triggered_tags") == 0)
        return read_triggers(b, format, list_of(b, format, "tags"), depth);
    else if (strcmp(type, "sequence") == 0 || strcmp(type, "or") == 0 ||
             strcmp(type, "tags_with_separator") == 0)
        return read_list(b, format, type, depth);
    else
        refuse(b, STATUS_UNSUPPORTED, "this type of format is not supported",
               json_object_get(format, "type"));
    return (struct grammar_part){0};
}

void read_structural_tag(struct reader *r, struct arena *arena, const char *field, const json_t *value,
                         struct grammar_part *out)
{
    struct builder b = {r, arena, field, 0};
    const json_t *format = json_object_get(value, "format");
    *out = (struct grammar_part){0};
    if (format)
        *out = read_format(&b, format, 0);
    else
        *out = read_triggers(&b, value, list_of(&b, value, "structures"), 0);
}
