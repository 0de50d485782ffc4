/* The steps of a tokenizer.json: normalizer, pre_tokenizer, post_processor and decoder become the tokenizer's
 * own lists. A type or setting that we don't have is refused by its name: left out, it would change ids
 * silently. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "tokenizer_inner.h"
#include "utf8.h"

#define NESTING_MAX 8
#define FIELD_BYTES 160

/* One of the four lists, and what to do with one of its members. */
struct section {
    struct tokenizer *t;
    const char *members; /* the key of a Sequence's list */
    enum status (*one)(struct section *s, const char *type, const json_t *value);
    char field[FIELD_BYTES]; /* where we are, for messages */
    struct error *err;
    bool fused, fallback; /* decoders: what has been seen */
};

static enum status wrong(const struct section *s, const char *key, const char *expected)
{
    return fail(s->err, STATUS_FORMAT, "%s.%s: expected %s", s->field, key, expected);
}

static enum status unsupported(const struct section *s, const char *type)
{
    return fail(s->err, STATUS_UNSUPPORTED, "%s: type \"%.60s\" is not supported", s->field, type);
}

static enum status no_memory(const struct section *s)
{
    return fail(s->err, STATUS_NO_MEMORY, "%s: not enough memory", s->field);
}

static enum status too_many(const struct section *s)
{
    return fail(s->err, STATUS_TOO_LARGE, "%s: more than %d steps in a row", s->field, STEPS_MAX);
}

/* ---- values */

static enum status get_bool(const struct section *s, const json_t *o, const char *key, bool *value)
{
    const json_t *v = json_object_get(o, key);
    if (v && !json_is_null(v)) {
        if (!json_is_boolean(v))
            return wrong(s, key, "true or false");
        *value = json_is_true(v);
    }
    return STATUS_OK;
}

static enum status get_count(const struct section *s, const json_t *o, const char *key, uint32_t *value)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > 1000)
        return wrong(s, key, "a number from 0 to 1000");
    *value = (uint32_t)json_integer_value(v);
    return STATUS_OK;
}

static enum status get_text(const struct section *s, const json_t *o, const char *key, struct text_ref *value)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_string(v))
        return wrong(s, key, "a text");
    if (json_string_length(v) > TOKEN_BYTES_MAX)
        return wrong(s, key, "a text of at most 65536 bytes");
    value->text = arena_strndup(s->t->arena, json_string_value(v), json_string_length(v));
    value->length = (uint32_t)json_string_length(v);
    return value->text ? STATUS_OK : no_memory(s);
}

static enum status get_character(const struct section *s, const json_t *o, const char *key,
                                 struct text_ref *value)
{
    enum status status = get_text(s, o, key, value);
    uint32_t c;
    if (status == STATUS_OK &&
        (value->length == 0 || utf8_step(value->text, value->length, &c) != value->length))
        return wrong(s, key, "one character");
    return status;
}

/* {"String": "…"} or {"Regex": "…"} */
static enum status get_pattern(const struct section *s, const json_t *o, struct pattern *p)
{
    const json_t *v = json_object_get(o, "pattern");
    struct text_ref text = {NULL, 0};
    bool regex = json_object_get(v, "Regex") != NULL;
    if (json_object_size(v) != 1 || (!regex && !json_object_get(v, "String")))
        return wrong(s, "pattern", "{\"String\": text} or {\"Regex\": pattern}");
    enum status status = get_text(s, v, regex ? "Regex" : "String", &text);
    if (status != STATUS_OK)
        return status;
    if (text.length == 0)
        return wrong(s, "pattern", "a pattern that is not empty");
    if (!regex) {
        p->literal = text;
        return STATUS_OK;
    }
    status = pattern_regex(p, s->t->arena, text.text, text.length, s->err);
    return status == STATUS_OK ? status : fail_within(s->err, "%s", s->field);
}

/* The index of `text` in names, or -1. */
static int find_name(const char *const *names, int n_names, const char *text)
{
    for (int i = 0; i < n_names; i++)
        if (strcmp(names[i], text) == 0)
            return i;
    return -1;
}

/* One member, or all of a Sequence. */
static enum status walk(struct section *s, const json_t *value, int depth)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    if (!type)
        return wrong(s, "type", "a text");
    if (strcmp(type, "Sequence") != 0)
        return s->one(s, type, value);
    const json_t *list = json_object_get(value, s->members);
    if (!json_is_array(list))
        return wrong(s, s->members, "a list");
    if (depth == NESTING_MAX)
        return fail(s->err, STATUS_TOO_LARGE, "%s: Sequence in Sequence, more than %d deep", s->field,
                    NESTING_MAX);
    size_t length = strlen(s->field);
    for (size_t i = 0; i < json_array_size(list); i++) {
        snprintf(s->field + length, sizeof s->field - length, ".%s[%zu]", s->members, i);
        enum status status = walk(s, json_array_get(list, i), depth + 1);
        if (status != STATUS_OK)
            return status;
        s->field[length] = '\0';
    }
    return STATUS_OK;
}

/* ---- normalizer */

static enum status one_normalizer(struct section *s, const char *type, const json_t *value)
{
    static const char *const names[] = {
        "Prepend",   "Replace", "NFC",          "NFD",       "NFKC", "NFKD",
        "Lowercase", "Strip",   "StripAccents", "ByteLevel", "Nmt"}; /* as normal_kind */
    int kind = find_name(names, sizeof names / sizeof *names, type);
    struct normalizer *n = &s->t->normalizer;
    if (kind < 0)
        return unsupported(s, type);
    if (n->n_steps == STEPS_MAX)
        return too_many(s);
    struct normal_step *step = &n->steps[n->n_steps++];
    *step = (struct normal_step){.kind = (enum normal_kind)kind, .left = true, .right = true};
    enum status status = STATUS_OK;
    if (step->kind == NORMAL_PREPEND)
        status = get_text(s, value, "prepend", &step->text);
    if (step->kind == NORMAL_REPLACE) {
        status = get_pattern(s, value, &step->pattern);
        if (status == STATUS_OK)
            status = get_text(s, value, "content", &step->text);
    }
    if (step->kind == NORMAL_STRIP) {
        status = get_bool(s, value, "strip_left", &step->left);
        if (status == STATUS_OK)
            status = get_bool(s, value, "strip_right", &step->right);
    }
    return status;
}

/* ---- pre_tokenizer */

static enum status get_behavior(struct section *s, const json_t *value, bool needed,
                                enum split_behavior *behavior)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext",
                                        "Contiguous"};
    const json_t *v = json_object_get(value, "behavior");
    int found = json_is_string(v) ? find_name(names, 5, json_string_value(v)) : -1;
    if (found < 0 && (needed || v))
        return wrong(s, "behavior", "Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
    if (found >= 0)
        *behavior = (enum split_behavior)found;
    return STATUS_OK;
}

static enum status add_pattern(struct section *s, const char *onig, enum split_behavior behavior, bool invert)
{
    struct split_step *step = splitter_add(&s->t->splitter, SPLIT_PATTERN);
    if (!step)
        return too_many(s);
    step->behavior = behavior;
    step->invert = invert;
    return pattern_regex(&step->pattern, s->t->arena, onig, strlen(onig), s->err);
}

/* Each character that is one is a match. */
static enum status add_characters(struct section *s, bool (*accepts)(uint32_t c),
                                  enum split_behavior behavior)
{
    struct split_step *step = splitter_add(&s->t->splitter, SPLIT_PATTERN);
    if (!step)
        return too_many(s);
    step->behavior = behavior;
    step->pattern.accepts = accepts;
    return STATUS_OK;
}

static enum status pre_fixed_length(struct section *s, const json_t *value)
{
    struct split_step *step = splitter_add(&s->t->splitter, SPLIT_FIXED_LENGTH);
    if (!step)
        return too_many(s);
    step->n_characters = 5;
    enum status status =
        json_object_get(value, "length") ? get_count(s, value, "length", &step->n_characters) : STATUS_OK;
    return status == STATUS_OK && step->n_characters == 0 ? wrong(s, "length", "at least 1") : status;
}

static enum status pre_byte_level(struct section *s, const json_t *value)
{
    bool prefix_space = true, use_regex = true;
    enum status status = get_bool(s, value, "add_prefix_space", &prefix_space);
    if (status == STATUS_OK)
        status = get_bool(s, value, "use_regex", &use_regex);
    if (status == STATUS_OK && prefix_space && !splitter_add(&s->t->splitter, SPLIT_PREFIX_SPACE))
        return too_many(s);
    if (status == STATUS_OK && use_regex)
        status = add_pattern(s, byte_level_pattern, BEHAVIOR_ISOLATED, false);
    if (status == STATUS_OK && !splitter_add(&s->t->splitter, SPLIT_BYTE_LEVEL))
        return too_many(s);
    return status;
}

static enum status get_prepend(struct section *s, const json_t *value, enum prepend_scheme *scheme)
{
    static const char *const names[] = {"always", "first", "never"};
    const json_t *v = json_object_get(value, "prepend_scheme");
    const json_t *add = json_object_get(value, "add_prefix_space");
    int found = json_is_string(v) ? find_name(names, 3, json_string_value(v)) : -1;
    *scheme = json_is_false(add) ? PREPEND_NEVER : PREPEND_ALWAYS; /* before prepend_scheme there was this */
    if (v && found < 0)
        return wrong(s, "prepend_scheme", "always, first or never");
    if (v && json_is_false(add) && found != PREPEND_NEVER)
        return wrong(s, "prepend_scheme", "never, because add_prefix_space is false");
    if (v)
        *scheme = (enum prepend_scheme)found;
    return STATUS_OK;
}

static enum status pre_metaspace(struct section *s, const json_t *value)
{
    struct split_step *step = splitter_add(&s->t->splitter, SPLIT_METASPACE);
    bool split = true;
    if (!step)
        return too_many(s);
    enum status status = get_character(s, value, "replacement", &step->replacement);
    if (status == STATUS_OK)
        status = get_prepend(s, value, &step->prepend);
    if (status == STATUS_OK)
        status = get_bool(s, value, "split", &split);
    if (status != STATUS_OK || !split)
        return status;
    struct split_step *cut = splitter_add(&s->t->splitter, SPLIT_PATTERN);
    if (!cut)
        return too_many(s);
    cut->pattern.literal = step->replacement;
    cut->behavior = BEHAVIOR_MERGED_WITH_NEXT;
    return STATUS_OK;
}

static enum status pre_split(struct section *s, const json_t *value)
{
    struct split_step *step = splitter_add(&s->t->splitter, SPLIT_PATTERN);
    if (!step)
        return too_many(s);
    enum status status = get_pattern(s, value, &step->pattern);
    if (status == STATUS_OK)
        status = get_behavior(s, value, true, &step->behavior);
    if (status == STATUS_OK)
        status = get_bool(s, value, "invert", &step->invert);
    return status;
}

static enum status pre_delimiter(struct section *s, const json_t *value)
{
    struct split_step *step = splitter_add(&s->t->splitter, SPLIT_PATTERN);
    if (!step)
        return too_many(s);
    step->behavior = BEHAVIOR_REMOVED;
    return get_character(s, value, "delimiter", &step->pattern.literal);
}

static enum status one_pre_tokenizer(struct section *s, const char *type, const json_t *value)
{
    enum status status = STATUS_OK;
    if (strcmp(type, "ByteLevel") == 0)
        return pre_byte_level(s, value);
    if (strcmp(type, "Metaspace") == 0)
        return pre_metaspace(s, value);
    if (strcmp(type, "Split") == 0)
        return pre_split(s, value);
    if (strcmp(type, "CharDelimiterSplit") == 0)
        return pre_delimiter(s, value);
    if (strcmp(type, "Digits") == 0) {
        bool single = false;
        status = get_bool(s, value, "individual_digits", &single);
        return status == STATUS_OK
                   ? add_characters(s, char_is_number, single ? BEHAVIOR_ISOLATED : BEHAVIOR_CONTIGUOUS)
                   : status;
    }
    if (strcmp(type, "Punctuation") == 0) {
        enum split_behavior behavior = BEHAVIOR_ISOLATED;
        status = get_behavior(s, value, false, &behavior);
        return status == STATUS_OK ? add_characters(s, char_is_punctuation, behavior) : status;
    }
    if (strcmp(type, "Whitespace") == 0) /* \w as the crate regex has it: with the two joiners */
        return add_pattern(s, "[\\w\\u200c\\u200d]+|[^\\w\\u200c\\u200d\\s]+", BEHAVIOR_REMOVED, true);
    if (strcmp(type, "WhitespaceSplit") == 0)
        return add_characters(s, char_is_space, BEHAVIOR_REMOVED);
    if (strcmp(type, "BertPreTokenizer") == 0) {
        status = add_characters(s, char_is_space, BEHAVIOR_REMOVED);
        return status == STATUS_OK ? add_characters(s, char_is_punctuation, BEHAVIOR_ISOLATED) : status;
    }
    if (strcmp(type, "FixedLength") == 0)
        return pre_fixed_length(s, value);
    return unsupported(s, type);
}

/* ---- post_processor */

static enum status check_id(const struct section *s, const json_t *v, const char *key, uint32_t *id)
{
    const struct vocab *vocab = &s->t->vocab;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= vocab->n_ids ||
        !vocab->texts[json_integer_value(v)].text)
        return fail(s->err, STATUS_FORMAT, "%s.%s: expected the id of a token of the vocabulary", s->field,
                    key);
    *id = (uint32_t)json_integer_value(v);
    return STATUS_OK;
}

static enum status append_special(struct section *s, uint32_t *list, uint32_t *n, uint32_t id)
{
    if (*n == SPECIAL_MAX)
        return fail(s->err, STATUS_TOO_LARGE, "%s: more than %d special tokens", s->field, SPECIAL_MAX);
    list[(*n)++] = id;
    return STATUS_OK;
}

/* What one processor adds goes around what those before it added. */
static enum status wrap(struct section *s, const uint32_t *before, uint32_t n_before, const uint32_t *behind,
                        uint32_t n_behind)
{
    struct tokenizer *t = s->t;
    if (t->n_before + n_before > SPECIAL_MAX || t->n_behind + n_behind > SPECIAL_MAX)
        return fail(s->err, STATUS_TOO_LARGE, "%s: more than %d special tokens", s->field, SPECIAL_MAX);
    memmove(t->before + n_before, t->before, t->n_before * sizeof *t->before);
    memcpy(t->before, before, n_before * sizeof *before);
    memcpy(t->behind + t->n_behind, behind, n_behind * sizeof *behind);
    t->n_before += n_before;
    t->n_behind += n_behind;
    return STATUS_OK;
}

static enum status template_token(struct section *s, const json_t *value, const json_t *piece, uint32_t *list,
                                  uint32_t *n)
{
    const char *name = json_string_value(json_object_get(piece, "id"));
    const json_t *ids =
        name ? json_object_get(json_object_get(json_object_get(value, "special_tokens"), name), "ids") : NULL;
    if (!json_is_array(ids))
        return wrong(s, "special_tokens", "each SpecialToken of `single`, with its ids");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        uint32_t id = 0;
        enum status status = check_id(s, json_array_get(ids, i), "special_tokens", &id);
        if (status == STATUS_OK)
            status = append_special(s, list, n, id);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static enum status post_template(struct section *s, const json_t *value)
{
    uint32_t lists[2][SPECIAL_MAX], n[2] = {0, 0};
    bool seen = false;
    const json_t *single = json_object_get(value, "single");
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i);
        const json_t *sequence = json_object_get(piece, "Sequence"),
                     *token = json_object_get(piece, "SpecialToken");
        const char *id = json_string_value(json_object_get(sequence, "id"));
        enum status status = STATUS_OK;
        if (token)
            status = template_token(s, value, token, lists[seen], &n[seen]);
        else if (!id || strcmp(id, "A") != 0 || seen)
            status = wrong(s, "single", "SpecialTokens around one Sequence A");
        else
            seen = true;
        if (status != STATUS_OK)
            return status;
    }
    if (!seen)
        return wrong(s, "single", "SpecialTokens around one Sequence A");
    return wrap(s, lists[0], n[0], lists[1], n[1]);
}

static enum status one_post_processor(struct section *s, const char *type, const json_t *value)
{
    if (strcmp(type, "ByteLevel") == 0)
        return STATUS_OK; /* it moves offsets only */
    if (strcmp(type, "TemplateProcessing") == 0)
        return post_template(s, value);
    if (strcmp(type, "RobertaProcessing") != 0 && strcmp(type, "BertProcessing") != 0)
        return unsupported(s, type);
    uint32_t cls = 0, sep = 0;
    enum status status = check_id(s, json_array_get(json_object_get(value, "cls"), 1), "cls", &cls);
    if (status == STATUS_OK)
        status = check_id(s, json_array_get(json_object_get(value, "sep"), 1), "sep", &sep);
    return status == STATUS_OK ? wrap(s, &cls, 1, &sep, 1) : status;
}

/* ---- decoder */

static struct decode_step *add_step(struct section *s, enum decode_kind kind)
{
    struct decoder *d = &s->t->decoder;
    if (d->n_steps == STEPS_MAX)
        return NULL;
    struct decode_step *step = &d->steps[d->n_steps++];
    *step = (struct decode_step){.kind = kind};
    return step;
}

static enum status decode_strip(struct section *s, const json_t *value)
{
    struct decode_step strip = {.kind = DECODE_STRIP};
    enum status status = get_character(s, value, "content", &strip.text);
    if (status == STATUS_OK)
        status = get_count(s, value, "start", &strip.start);
    if (status == STATUS_OK)
        status = get_count(s, value, "stop", &strip.stop);
    if (status != STATUS_OK)
        return status;
    struct decoder *d = &s->t->decoder;
    if (s->fused && (strip.stop > 0 || d->strip_count > 0))
        return fail(s->err, STATUS_UNSUPPORTED,
                    "%s: Strip at the end of the whole text, or twice, is not supported", s->field);
    if (s->fallback && !s->fused)
        return fail(s->err, STATUS_UNSUPPORTED, "%s: Strip between ByteFallback and Fuse is not supported",
                    s->field);
    if (s->fused) {
        d->strip = strip.text;
        d->strip_count = strip.start;
        return STATUS_OK;
    }
    struct decode_step *step = add_step(s, DECODE_STRIP);
    if (!step)
        return too_many(s);
    *step = strip;
    return STATUS_OK;
}

static enum status decode_replace(struct section *s, const json_t *value)
{
    struct decode_step *step = add_step(s, DECODE_REPLACE);
    if (!step)
        return too_many(s);
    enum status status = get_pattern(s, value, &step->pattern);
    if (status == STATUS_OK)
        status = get_text(s, value, "content", &step->text);
    if (status != STATUS_OK)
        return status;
    /* On the fused text a single character can be replaced in each token just as well. */
    const struct text_ref *l = &step->pattern.literal;
    bool single = !step->pattern.regex && utf8_size((unsigned char)l->text[0]) == l->length;
    if (s->fused && (!single || s->t->decoder.bytes == BYTES_LEVEL || s->t->decoder.strip_count > 0))
        return fail(s->err, STATUS_UNSUPPORTED,
                    "%s: Replace of this kind behind Fuse or ByteLevel is not supported", s->field);
    return STATUS_OK;
}

static enum status decode_metaspace(struct section *s, const json_t *value)
{
    struct decode_step *step = add_step(s, DECODE_METASPACE);
    enum prepend_scheme scheme;
    if (!step)
        return too_many(s);
    if (s->fused)
        return fail(s->err, STATUS_UNSUPPORTED, "%s: Metaspace behind Fuse or ByteLevel is not supported",
                    s->field);
    enum status status = get_character(s, value, "replacement", &step->text);
    if (status == STATUS_OK)
        status = get_prepend(s, value, &scheme);
    if (status == STATUS_OK)
        step->drop_at_start = scheme != PREPEND_NEVER;
    return status;
}

static enum status one_decoder(struct section *s, const char *type, const json_t *value)
{
    struct decoder *d = &s->t->decoder;
    bool level = strcmp(type, "ByteLevel") == 0, fallback = strcmp(type, "ByteFallback") == 0;
    if (strcmp(type, "Strip") == 0)
        return decode_strip(s, value);
    if (strcmp(type, "Replace") == 0)
        return decode_replace(s, value);
    if (strcmp(type, "Metaspace") == 0)
        return decode_metaspace(s, value);
    if (level || fallback) {
        if (d->bytes != BYTES_PLAIN || s->fused)
            return fail(s->err, STATUS_UNSUPPORTED,
                        "%s: %s behind another decoder of bytes or Fuse is not supported", s->field, type);
        d->bytes = level ? BYTES_LEVEL : BYTES_FALLBACK;
        s->fused = level;
        s->fallback = fallback;
        return STATUS_OK;
    }
    if (strcmp(type, "Fuse") != 0)
        return unsupported(s, type);
    s->fused = true;
    return STATUS_OK;
}

/* ---- the four */

static enum status run(struct section *s, const json_t *value)
{
    return value && !json_is_null(value) ? walk(s, value, 0) : STATUS_OK;
}

enum status json_normalizer(struct tokenizer *t, const struct json_t *value, struct error *err)
{
    struct section s = {
        .t = t, .members = "normalizers", .one = one_normalizer, .field = "normalizer", .err = err};
    return run(&s, value);
}

enum status json_pre_tokenizer(struct tokenizer *t, const struct json_t *value, struct error *err)
{
    struct section s = {
        .t = t, .members = "pretokenizers", .one = one_pre_tokenizer, .field = "pre_tokenizer", .err = err};
    return run(&s, value);
}

enum status json_post_processor(struct tokenizer *t, const struct json_t *value, struct error *err)
{
    struct section s = {
        .t = t, .members = "processors", .one = one_post_processor, .field = "post_processor", .err = err};
    return run(&s, value);
}

enum status json_decoder(struct tokenizer *t, const struct json_t *value, struct error *err)
{
    struct section s = {.t = t, .members = "decoders", .one = one_decoder, .field = "decoder", .err = err};
    t->decoder.join_with_space = !value || json_is_null(value);
    return run(&s, value);
}
