/* tokenizer.json (Hugging Face tokenizers, version 1.0): vocabulary, merges, added tokens; its four lists of
 * steps are read in tokenizer_json_steps.c. Ids, counts and texts are checked here, before tables are sized
 * by them. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "format.h"
#include "tokenizer_inner.h"

#define JSON_DEPTH_MAX 24
#define FIELD_BYTES 96

static enum status check_id(const json_t *value, const char *field, uint32_t *id, struct error *err)
{
    if (!json_is_integer(value))
        return fail(err, STATUS_FORMAT, "%s: expected an id, a whole number", field);
    if (json_integer_value(value) < 0 || json_integer_value(value) >= TOKEN_IDS_MAX)
        return fail(err, STATUS_FORMAT, "%s: id %lld is out of range; ids go from 0 to %u", field,
                    (long long)json_integer_value(value), TOKEN_IDS_MAX - 1);
    *id = (uint32_t)json_integer_value(value);
    return STATUS_OK;
}

/* ---- the vocabulary */

/* Highest id + 1 of model.vocab and added_tokens. */
static enum status count_ids(const json_t *vocab, const json_t *added, uint32_t *n_ids, struct error *err)
{
    json_t *v = (json_t *)(uintptr_t)vocab; /* jansson iterates over non-const objects only */
    uint32_t id = 0, highest = 0;
    enum status s = STATUS_OK;
    for (void *i = json_object_iter(v); i && s == STATUS_OK; i = json_object_iter_next(v, i)) {
        s = check_id(json_object_iter_value(i), "model.vocab", &id, err);
        if (s == STATUS_OK && id > highest)
            highest = id;
    }
    if (json_is_array(vocab) && json_array_size(vocab) > 0)
        highest =
            json_array_size(vocab) < TOKEN_IDS_MAX ? (uint32_t)json_array_size(vocab) - 1 : TOKEN_IDS_MAX;
    for (size_t i = 0; i < json_array_size(added) && s == STATUS_OK; i++) {
        char field[FIELD_BYTES];
        snprintf(field, sizeof field, "added_tokens[%zu].id", i);
        s = check_id(json_object_get(json_array_get(added, i), "id"), field, &id, err);
        if (s == STATUS_OK && id > highest)
            highest = id;
    }
    if (s == STATUS_OK && highest >= TOKEN_IDS_MAX)
        s = fail(err, STATUS_TOO_LARGE, "model.vocab: more than %u tokens", TOKEN_IDS_MAX);
    *n_ids = highest + 1;
    return s;
}

/* {"text": id, …} */
static enum status read_vocab(struct tokenizer *t, const json_t *vocab, struct error *err)
{
    json_t *v = (json_t *)(uintptr_t)vocab;
    enum status s = STATUS_OK;
    for (void *i = json_object_iter(v); i && s == STATUS_OK; i = json_object_iter_next(v, i)) {
        size_t length = json_object_iter_key_len(i);
        struct text_ref text = {json_object_iter_key(i),
                                length <= TOKEN_BYTES_MAX ? (uint32_t)length : TOKEN_BYTES_MAX + 1};
        s = vocab_add(&t->vocab, (uint32_t)json_integer_value(json_object_iter_value(i)), text, "model.vocab",
                      err);
    }
    return s;
}

/* ---- BPE */

static enum status get_text(struct tokenizer *t, const json_t *model, const char *key, uint32_t longest,
                            struct text_ref *text, struct error *err)
{
    const json_t *v = json_object_get(model, key);
    *text = (struct text_ref){NULL, 0};
    if (!v || json_is_null(v))
        return STATUS_OK;
    if (!json_is_string(v) || json_string_length(v) > longest)
        return fail(err, STATUS_FORMAT, "model.%s: expected a text of at most %u bytes or null", key,
                    longest);
    text->length = (uint32_t)json_string_length(v);
    text->text = arena_strndup(t->arena, json_string_value(v), text->length);
    return text->text ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "model.%s: not enough memory", key);
}

static enum status get_bool(const json_t *model, const char *key, bool *value, struct error *err)
{
    const json_t *v = json_object_get(model, key);
    if (v && !json_is_null(v) && !json_is_boolean(v))
        return fail(err, STATUS_FORMAT, "model.%s: expected true, false or null", key);
    *value = json_is_true(v);
    return STATUS_OK;
}

/* "a b" or ["a", "b"] */
static enum status merge_sides(const json_t *value, struct merge_text *m, struct error *err)
{
    if (json_is_string(value)) {
        const char *text = json_string_value(value), *end = text + json_string_length(value);
        const char *space = memchr(text, ' ', (size_t)(end - text));
        if (!space || memchr(space + 1, ' ', (size_t)(end - space - 1)))
            return fail(err, STATUS_FORMAT, "%s: \"%.80s\": expected two tokens with one space between them",
                        m->field, text);
        m->left = (struct text_ref){text, (uint32_t)(space - text)};
        m->right = (struct text_ref){space + 1, (uint32_t)(end - space - 1)};
        return STATUS_OK;
    }
    const json_t *l = json_array_get(value, 0), *r = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_string(l) || !json_is_string(r))
        return fail(err, STATUS_FORMAT, "%s: expected \"left right\" or [\"left\", \"right\"]", m->field);
    m->left = (struct text_ref){json_string_value(l), (uint32_t)json_string_length(l)};
    m->right = (struct text_ref){json_string_value(r), (uint32_t)json_string_length(r)};
    return STATUS_OK;
}

static enum status read_merges(struct tokenizer *t, const json_t *merges, struct error *err)
{
    enum status s = bpe_merges_init(t->bpe, t->arena, json_array_size(merges), err);
    uint32_t rank = 0;
    for (size_t i = 0; i < json_array_size(merges) && s == STATUS_OK; i++) {
        const json_t *value = json_array_get(merges, i);
        char field[FIELD_BYTES];
        struct merge_text m = {.rank = rank, .field = field};
        if (json_is_string(value) && strncmp(json_string_value(value), "#version", 8) == 0)
            continue;
        snprintf(field, sizeof field, "model.merges[%zu]", i);
        s = merge_sides(value, &m, err);
        if (s == STATUS_OK)
            s = bpe_add_merge(t->bpe, &t->vocab, &m, err);
        rank++;
    }
    return s == STATUS_OK ? bpe_finish(t->bpe, t->arena, err) : s;
}

static enum status read_bpe_settings(struct tokenizer *t, const json_t *model, struct error *err)
{
    struct bpe *b = t->bpe;
    struct text_ref unknown;
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0)
        return fail(err, STATUS_UNSUPPORTED, "model.dropout: it makes tokenisation random; set it to null");
    enum status s = get_bool(model, "fuse_unk", &b->fuse_unknown, err);
    if (s == STATUS_OK)
        s = get_bool(model, "byte_fallback", &b->byte_fallback, err);
    if (s == STATUS_OK)
        s = get_bool(model, "ignore_merges", &b->ignore_merges, err);
    if (s == STATUS_OK)
        s = get_text(t, model, "continuing_subword_prefix", 64, &b->prefix, err);
    if (s == STATUS_OK)
        s = get_text(t, model, "end_of_word_suffix", 64, &b->suffix, err);
    if (s == STATUS_OK)
        s = get_text(t, model, "unk_token", TOKEN_BYTES_MAX, &unknown, err);
    if (s != STATUS_OK)
        return s;
    b->unknown =
        unknown.text ? text_map_find(&t->vocab.map, t->vocab.texts, unknown.text, unknown.length) : -1;
    if (unknown.text && b->unknown < 0)
        return fail(err, STATUS_FORMAT, "model.unk_token: \"%.*s\" is not in model.vocab", SHOWN(unknown));
    return STATUS_OK;
}

/* With ByteLevel as the last pre-tokenizer, words stay bytes: the model's texts are turned round instead. */
static bool take_byte_level(struct splitter *s)
{
    if (s->n_steps == 0 || s->steps[s->n_steps - 1].kind != SPLIT_BYTE_LEVEL)
        return false;
    s->n_steps--;
    return true;
}

static enum status read_bpe(struct tokenizer *t, const json_t *model, struct error *err)
{
    const json_t *merges = json_object_get(model, "merges");
    t->bpe = arena_alloc(t->arena, sizeof *t->bpe);
    if (!t->bpe)
        return fail(err, STATUS_NO_MEMORY, "model: not enough memory");
    if (!json_is_array(merges))
        return fail(err, STATUS_FORMAT, "model.merges: expected a list");
    enum status s = read_vocab(t, json_object_get(model, "vocab"), err);
    if (s == STATUS_OK)
        s = read_bpe_settings(t, model, err);
    bool raw = s == STATUS_OK && t->bpe->prefix.length == 0 && t->bpe->suffix.length == 0 &&
               !t->bpe->byte_fallback && take_byte_level(&t->splitter);
    if (s == STATUS_OK)
        s = bpe_init(t->bpe, t->arena, &t->vocab, raw, err);
    return s == STATUS_OK ? read_merges(t, merges, err) : s;
}

/* ---- Unigram */

/* A score as the reference reads it (serde_json's quick way): the digits as one whole number, then one
 * multiplication or division by a power of ten. With 17 digits that may be off by one unit in the last place,
 * and where two ways to cut a text are equal but for that, it decides. */
static double score_value(const json_t *score)
{
    double exact = json_number_value(score);
    char text[40];
    int n_digits = 15;
    do
        snprintf(text, sizeof text, "%.*e", n_digits - 1, exact);
    while (strtod(text, NULL) != exact && n_digits++ < 17);
    uint64_t digits = 0;
    int exponent = 1 - n_digits;
    const char *c = text;
    for (; *c && *c != 'e'; c++)
        if (*c >= '0' && *c <= '9')
            digits = digits * 10 + (uint64_t)(*c - '0');
    if (*c)
        exponent += atoi(c + 1);
    for (; digits && digits % 10 == 0; digits /= 10)
        exponent++;
    if (exponent < -300 || exponent > 0) /* whole numbers, and what no score is */
        return exact;
    double value = (double)digits / pow(10, -exponent);
    return exact < 0 ? -value : value;
}

/* [["text", score], …], ids in order */
static enum status read_scores(struct tokenizer *t, const json_t *vocab, double *scores, struct error *err)
{
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        const json_t *pair = json_array_get(vocab, i), *text = json_array_get(pair, 0),
                     *score = json_array_get(pair, 1);
        char field[FIELD_BYTES];
        snprintf(field, sizeof field, "model.vocab[%zu]", i);
        if (json_array_size(pair) != 2 || !json_is_string(text) || !json_is_number(score))
            return fail(err, STATUS_FORMAT, "%s: expected [text, score]", field);
        size_t length = json_string_length(text);
        struct text_ref ref = {json_string_value(text),
                               length <= TOKEN_BYTES_MAX ? (uint32_t)length : TOKEN_BYTES_MAX + 1};
        enum status s = vocab_add(&t->vocab, (uint32_t)i, ref, field, err);
        if (s != STATUS_OK)
            return s;
        scores[i] = score_value(score);
    }
    return STATUS_OK;
}

static enum status read_unigram(struct tokenizer *t, const json_t *model, struct error *err)
{
    const json_t *vocab = json_object_get(model, "vocab"), *unknown = json_object_get(model, "unk_id");
    struct unigram *u = t->unigram = arena_alloc(t->arena, sizeof *u);
    double *scores = arena_array(t->arena, t->vocab.n_ids, sizeof *scores);
    if (!u || !scores)
        return fail(err, STATUS_NO_MEMORY, "model: not enough memory");
    u->vocab = &t->vocab;
    u->scores = scores;
    u->n_model_ids = (uint32_t)json_array_size(vocab);
    enum status s = read_scores(t, vocab, scores, err);
    if (s == STATUS_OK)
        s = get_bool(model, "byte_fallback", &u->byte_fallback, err);
    if (s == STATUS_OK && unknown && !json_is_null(unknown)) {
        uint32_t id = 0;
        s = check_id(unknown, "model.unk_id", &id, err);
        if (s == STATUS_OK && id >= u->n_model_ids)
            s = fail(err, STATUS_FORMAT, "model.unk_id: %u is no token; the vocabulary has %u", id,
                     u->n_model_ids);
        u->unknown = s == STATUS_OK ? (int32_t)id : -1;
    } else {
        u->unknown = -1;
    }
    return s == STATUS_OK ? unigram_finish(u, t->arena, err) : s;
}

/* ---- added tokens */

static enum status read_added(struct tokenizer *t, const json_t *added, struct error *err)
{
    size_t n = json_array_size(added);
    t->plain_added.tokens = arena_array(t->arena, n + 1, sizeof *t->plain_added.tokens);
    t->normal_added.tokens = arena_array(t->arena, n + 1, sizeof *t->normal_added.tokens);
    if (!t->plain_added.tokens || !t->normal_added.tokens)
        return fail(err, STATUS_NO_MEMORY, "added_tokens: not enough memory");
    for (size_t i = 0; i < n; i++) {
        const json_t *o = json_array_get(added, i), *content = json_object_get(o, "content");
        char field[FIELD_BYTES];
        snprintf(field, sizeof field, "added_tokens[%zu]", i);
        if (!json_is_string(content) || json_string_length(content) > TOKEN_BYTES_MAX)
            return fail(err, STATUS_FORMAT, "%s.content: expected a text of at most %u bytes", field,
                        TOKEN_BYTES_MAX);
        if (json_string_length(content) == 0)
            continue;
        bool special = json_is_true(json_object_get(o, "special"));
        const json_t *normalized = json_object_get(o, "normalized");
        struct added_spec spec = {
            .id = (uint32_t)json_integer_value(json_object_get(o, "id")),
            .content = {json_string_value(content), (uint32_t)json_string_length(content)},
            .single_word = json_is_true(json_object_get(o, "single_word")),
            .left_strip = json_is_true(json_object_get(o, "lstrip")),
            .right_strip = json_is_true(json_object_get(o, "rstrip")),
            .normalized = normalized ? json_is_true(normalized) : !special,
            .special = special};
        enum status s = tokenizer_add_token(t, &spec, field, err);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

/* ---- the file */

static enum status read_model(struct tokenizer *t, const json_t *model, struct error *err)
{
    const char *type = json_string_value(json_object_get(model, "type"));
    const json_t *vocab = json_object_get(model, "vocab");
    if (!type) /* files of early versions have none */
        type = json_is_array(vocab) ? "Unigram" : json_object_get(model, "merges") ? "BPE" : "unknown";
    if (strcmp(type, "BPE") == 0 && json_is_object(vocab))
        return read_bpe(t, model, err);
    if (strcmp(type, "Unigram") == 0 && json_is_array(vocab))
        return read_unigram(t, model, err);
    if (strcmp(type, "BPE") == 0 || strcmp(type, "Unigram") == 0)
        return fail(err, STATUS_FORMAT, "model.vocab: expected %s",
                    *type == 'B' ? "an object of texts and ids" : "a list of [text, score]");
    return fail(err, STATUS_UNSUPPORTED, "model.type: \"%.60s\" is not supported; BPE and Unigram are", type);
}

static enum status build(struct tokenizer *t, const json_t *root, struct error *err)
{
    const json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
    const char *version = json_string_value(json_object_get(root, "version"));
    uint32_t n_ids = 0;
    if (version && strcmp(version, "1.0") != 0)
        return fail(err, STATUS_UNSUPPORTED, "version: \"%.20s\" is not known; 1.0 is", version);
    if (!json_is_object(model))
        return fail(err, STATUS_FORMAT, "model: expected an object");
    if (added && !json_is_null(added) && !json_is_array(added))
        return fail(err, STATUS_FORMAT, "added_tokens: expected a list");
    enum status s = count_ids(json_object_get(model, "vocab"), added, &n_ids, err);
    if (s == STATUS_OK && !vocab_init(&t->vocab, t->arena, n_ids))
        s = fail(err, STATUS_NO_MEMORY, "not enough memory for a vocabulary of %u tokens", n_ids);
    if (s == STATUS_OK)
        s = json_normalizer(t, json_object_get(root, "normalizer"), err);
    if (s == STATUS_OK)
        s = json_pre_tokenizer(t, json_object_get(root, "pre_tokenizer"), err);
    if (s == STATUS_OK)
        s = json_decoder(t, json_object_get(root, "decoder"), err);
    if (s == STATUS_OK)
        s = read_model(t, model, err);
    if (s == STATUS_OK)
        s = read_added(t, added, err);
    if (s == STATUS_OK)
        s = json_post_processor(t, json_object_get(root, "post_processor"), err);
    return s == STATUS_OK ? tokenizer_finish(t, err) : s;
}

enum status tokenizer_from_json(const char *json, size_t length, const char *shown, struct tokenizer **out,
                                struct error *err)
{
    json_t *root = NULL;
    enum status s = json_parse(json, length, shown, JSON_DEPTH_MAX, &root, err);
    if (s != STATUS_OK)
        return s;
    struct tokenizer *t = tokenizer_create();
    s = t ? build(t, root, err) : fail(err, STATUS_NO_MEMORY, "not enough memory");
    json_decref(root);
    if (s != STATUS_OK) {
        fail_within(err, "%s", shown);
        tokenizer_destroy(t);
        return s;
    }
    *out = t;
    return STATUS_OK;
}
