/* The tokenizer's door: encoding from end to end, and what every loader needs to put one together. A
 * tokenizer is immutable after loading; all that encoding writes to belongs to the call. */
#include <string.h>

#include "base/mem.h"
#include "tokenizer_inner.h"
#include "utf8.h"

#define TEXT_BYTES_MAX (1U << 28) /* of one call; normalising may multiply it */

void token_list_fini(struct token_list *l)
{
    mem_free(l->ids);
    *l = (struct token_list){.ids = NULL};
}

bool token_list_push(struct token_list *l, int32_t id)
{
    if (l->n_ids == l->capacity) {
        size_t capacity = l->capacity ? l->capacity * 2 : 64;
        int32_t *ids = mem_realloc(l->ids, capacity * sizeof *ids);
        if (!ids)
            return false;
        l->ids = ids;
        l->capacity = capacity;
    }
    l->ids[l->n_ids++] = id;
    return true;
}

/* ---- encoding */

enum status encoder_no_memory(struct encoder *e)
{
    return fail(e->err, STATUS_NO_MEMORY, "not enough memory to tokenise this text");
}

enum status encoder_push(struct encoder *e, uint32_t id)
{
    if (e->out->n_ids >= e->limit_count)
        return fail(e->err, STATUS_TOO_LARGE, "the text has more than the %zu tokens that are allowed here",
                    e->limit_ids);
    return token_list_push(e->out, (int32_t)id) ? STATUS_OK : encoder_no_memory(e);
}

enum status encoder_word(struct encoder *e, struct text_ref word)
{
    return e->t->bpe ? bpe_encode(e->t->bpe, e, word)
                     : unigram_encode(e->t->unigram, e, word.text, word.length);
}

/* Text between added tokens: normalised, then cut at those that are found in normalised text. */
static enum status encode_rest(struct encoder *e, struct text_ref text, bool at_start, bool parse_special)
{
    const struct tokenizer *t = e->t;
    e->normal.cut = !at_start;
    enum status s = normalizer_run(&t->normalizer, &text, &e->normal, e->err);
    at_start = !e->normal.cut;
    struct added_cursor c = {.set = &t->normal_added, .text = text, .parse_special = parse_special};
    struct span piece;
    const struct added_token *token;
    while (s == STATUS_OK && added_next(&c, &piece, &token)) {
        struct text_ref part = {text.text + piece.start, (uint32_t)(piece.end - piece.start)};
        s = token ? encoder_push(e, token->id) : splitter_run(e, 0, part, at_start && piece.start == 0);
    }
    return s;
}

static enum status encode_text(struct encoder *e, struct text_ref text, bool parse_special)
{
    struct added_cursor c = {.set = &e->t->plain_added, .text = text, .parse_special = parse_special};
    struct span piece;
    const struct added_token *token;
    enum status s = STATUS_OK;
    while (s == STATUS_OK && added_next(&c, &piece, &token)) {
        struct text_ref part = {text.text + piece.start, (uint32_t)(piece.end - piece.start)};
        s = token ? encoder_push(e, token->id) : encode_rest(e, part, piece.start == 0, parse_special);
    }
    return s;
}

static enum status push_all(struct encoder *e, const uint32_t *ids, uint32_t n_ids)
{
    enum status s = STATUS_OK;
    for (uint32_t i = 0; i < n_ids && s == STATUS_OK; i++)
        s = encoder_push(e, ids[i]);
    return s;
}

static bool encoder_init(struct encoder *e, size_t length)
{
    for (int i = 0; i < 2; i++)
        buf_init(&e->normal.buffers[i], 1U << 30);
    for (int i = 0; i < STEPS_MAX; i++)
        buf_init(&e->split[i], 1U << 30);
    e->normal.regex = regex_state_create();
    return e->normal.regex != NULL && (!e->t->bpe || word_cache_init(&e->words, length));
}

static void encoder_fini(struct encoder *e)
{
    for (int i = 0; i < 2; i++)
        buf_fini(&e->normal.buffers[i]);
    for (int i = 0; i < STEPS_MAX; i++)
        buf_fini(&e->split[i]);
    regex_state_destroy(e->normal.regex);
    bpe_scratch_fini(&e->bpe);
    word_cache_fini(&e->words);
    mem_free(e->unigram.nodes);
}

enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t length,
                             const struct encode_options *options, struct token_list *out, struct error *err)
{
    size_t before = out->n_ids;
    struct encoder e = {
        .t = t, .out = out, .err = err, .limit_count = SIZE_MAX, .limit_ids = options->limit_ids};
    if (length > TEXT_BYTES_MAX)
        return fail(err, STATUS_TOO_LARGE, "the text has %zu bytes; at most %u can be tokenised at once",
                    length, TEXT_BYTES_MAX);
    if (options->limit_ids && !size_add(before, options->limit_ids, &e.limit_count))
        e.limit_count = SIZE_MAX;
    struct buf repaired;
    buf_init(&repaired, 0);
    enum status s = encoder_init(&e, length) ? STATUS_OK : encoder_no_memory(&e);
    if (s == STATUS_OK && !utf8_is_valid(text, length)) {
        if (!utf8_append_repaired(&repaired, text, length))
            s = encoder_no_memory(&e);
        text = repaired.data;
        length = repaired.length;
    }
    if (s == STATUS_OK && newer_found(text, length))
        regex_state_expect_newer(e.normal.regex);
    if (s == STATUS_OK && options->add_special)
        s = push_all(&e, t->before, t->n_before);
    if (s == STATUS_OK)
        s = encode_text(&e, (struct text_ref){text, (uint32_t)length}, options->parse_special);
    if (s == STATUS_OK && options->add_special)
        s = push_all(&e, t->behind, t->n_behind);
    buf_fini(&repaired);
    encoder_fini(&e);
    if (s != STATUS_OK)
        out->n_ids = before;
    return s;
}

/* ---- questions */

uint32_t tokenizer_n_tokens(const struct tokenizer *t)
{
    return t->vocab.n_ids;
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *length)
{
    if (id < 0 || (uint32_t)id >= t->vocab.n_ids || !t->vocab.texts[id].text) {
        *length = 0;
        return NULL;
    }
    *length = t->decoder.pieces[id].length;
    return t->decoder.pieces[id].text;
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab.n_ids && (t->vocab.flags[id] & TOKEN_SPECIAL);
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t length)
{
    return text_map_find(&t->vocab.map, t->vocab.texts, text, length);
}

/* ---- putting one together */

struct tokenizer *tokenizer_create(void)
{
    struct arena *a = arena_create(0);
    struct tokenizer *t = a ? arena_alloc(a, sizeof *t) : NULL;
    if (!t) {
        arena_destroy(a);
        return NULL;
    }
    t->arena = a;
    t->bos = t->eos = -1;
    return t;
}

void tokenizer_destroy(struct tokenizer *t)
{
    if (t)
        arena_destroy(t->arena);
}

/* What a normalised added token looks like in normalised text. */
static enum status normal_pattern(struct tokenizer *t, struct text_ref content, struct text_ref *pattern,
                                  struct error *err)
{
    struct normal_scratch scratch = {.regex = regex_state_create()};
    enum status s =
        scratch.regex ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "added_tokens: not enough memory");
    buf_init(&scratch.buffers[0], 1U << 24);
    buf_init(&scratch.buffers[1], 1U << 24);
    if (s == STATUS_OK)
        regex_state_expect_newer(scratch.regex);
    if (s == STATUS_OK)
        s = normalizer_run(&t->normalizer, &content, &scratch, err);
    if (s == STATUS_OK) {
        *pattern = (struct text_ref){arena_strndup(t->arena, content.text, content.length), content.length};
        if (!pattern->text)
            s = fail(err, STATUS_NO_MEMORY, "added_tokens: not enough memory");
    }
    buf_fini(&scratch.buffers[0]);
    buf_fini(&scratch.buffers[1]);
    regex_state_destroy(scratch.regex);
    return s;
}

enum status tokenizer_add_token(struct tokenizer *t, const struct added_spec *spec, const char *field,
                                struct error *err)
{
    /* A token that the model has keeps the model's id, as the reference does. */
    int32_t known = text_map_find(&t->vocab.map, t->vocab.texts, spec->content.text, spec->content.length);
    uint32_t id = known >= 0 ? (uint32_t)known : spec->id;
    enum status s = known >= 0 ? STATUS_OK : vocab_add(&t->vocab, id, spec->content, field, err);
    if (s != STATUS_OK)
        return s;
    if (t->vocab.flags[id] & TOKEN_ADDED)
        return fail(err, STATUS_FORMAT, "%s: \"%s\" is added twice", field, t->vocab.texts[id].text);
    t->vocab.flags[id] |= (uint8_t)(TOKEN_ADDED | (spec->special ? TOKEN_SPECIAL : 0));
    struct added_set *set = spec->normalized ? &t->normal_added : &t->plain_added;
    struct added_token *token = &set->tokens[set->n_tokens++];
    *token = (struct added_token){.id = id,
                                  .pattern = t->vocab.texts[id],
                                  .single_word = spec->single_word,
                                  .left_strip = spec->left_strip,
                                  .right_strip = spec->right_strip,
                                  .special = spec->special};
    return spec->normalized ? normal_pattern(t, token->pattern, &token->pattern, err) : STATUS_OK;
}

enum status tokenizer_finish(struct tokenizer *t, struct error *err)
{
    enum status s = added_set_finish(&t->plain_added, t->arena, err);
    if (s == STATUS_OK)
        s = added_set_finish(&t->normal_added, t->arena, err);
    if (s == STATUS_OK)
        s = decoder_finish(t, err);
    return s;
}
