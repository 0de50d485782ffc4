/* The tokenizer in a GGUF file's metadata (tokenizer.ggml.*), as the same pipeline that a tokenizer.json
 * gives.
 *
 * "gpt2": byte-level BPE with its merges; the pre-tokenizer is known by a name, and its patterns are here.
 * "llama": SentencePiece BPE: no merges but scores; of all neighbours that together are a token, the pair
 * whose token has the highest score goes first. All such pairs become merges here, ranked by score.
 *
 * Sources: GGUF specification; llama.cpp's vocabulary loader. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "format.h"
#include "tokenizer_inner.h"
#include "utf8.h"

#define KEY "tokenizer.ggml."
#define SPACE_MARK "\xE2\x96\x81"

enum token_type { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER_DEFINED, TYPE_UNUSED, TYPE_BYTE };

/* ---- what both kinds read */

struct source {
    const struct gguf *g;
    struct tokenizer *t;
    int64_t *types; /* [n_ids], enum token_type */
    float *scores;  /* [n_ids] */
    bool add_bos, add_eos, add_space_prefix;
    struct error *err;
};

static enum status get_bool(struct source *s, const char *key, bool *value)
{
    return gguf_has(s->g, key) ? gguf_get_bool(s->g, key, value, s->err) : STATUS_OK;
}

static enum status get_id(struct source *s, const char *key, int32_t *id)
{
    uint64_t value;
    if (!gguf_has(s->g, key))
        return STATUS_OK;
    enum status status = gguf_get_u64(s->g, key, &value, s->err);
    if (status == STATUS_OK && value >= s->t->vocab.n_ids)
        return fail(s->err, STATUS_FORMAT, "%s: id %llu is out of range; ids go from 0 to %u", key,
                    (unsigned long long)value, s->t->vocab.n_ids - 1);
    if (status == STATUS_OK)
        *id = (int32_t)value;
    return status;
}

/* A numeric array of one value a token. */
static enum status check_array(struct source *s, const char *key)
{
    uint64_t n = 0;
    enum status status = gguf_get_array(s->g, key, &n, s->err);
    if (status == STATUS_OK && n != s->t->vocab.n_ids)
        return fail(s->err, STATUS_FORMAT, "%s: %llu values for %u tokens; expected one each", key,
                    (unsigned long long)n, s->t->vocab.n_ids);
    return status;
}

static enum status read_types_and_scores(struct source *s, bool needs_scores)
{
    uint32_t n = s->t->vocab.n_ids;
    enum status status = STATUS_OK;
    s->types = mem_array(n, sizeof *s->types);
    s->scores = mem_array(n, sizeof *s->scores);
    if (!s->types || !s->scores)
        return fail(s->err, STATUS_NO_MEMORY, KEY "token_type: not enough memory");
    for (uint32_t i = 0; i < n; i++)
        s->types[i] = TYPE_NORMAL;
    if (gguf_has(s->g, KEY "token_type")) {
        status = check_array(s, KEY "token_type");
        if (status == STATUS_OK)
            status = gguf_array_i64(s->g, KEY "token_type", s->types, n, s->err);
    }
    if (status == STATUS_OK && needs_scores) {
        status = check_array(s, KEY "scores");
        if (status == STATUS_OK)
            status = gguf_array_f32(s->g, KEY "scores", s->scores, n, s->err);
        for (uint32_t i = 0; i < n && status == STATUS_OK; i++)
            if (!isfinite(s->scores[i]))
                status = fail(s->err, STATUS_FORMAT, KEY "scores[%u]: expected a finite number", i);
    }
    return status;
}

/* SentencePiece's user-defined runs of spaces are written with plain spaces in GGUF; the model knows them by
 * its own mark, and so does the tokenizer.json of the same model. */
static bool is_space_run(const char *text, size_t length)
{
    return length > 0 && strspn(text, " ") == length;
}

static enum status add_text(struct source *s, uint32_t id, const char *text, size_t length, bool marks)
{
    struct tokenizer *t = s->t;
    struct buf b;
    enum status status = STATUS_OK;
    buf_init(&b, 0);
    if (length == 0)
        buf_printf(&b, "[EMPTY_%u]", id);
    else if (marks && s->types[id] == TYPE_USER_DEFINED && is_space_run(text, length))
        for (size_t i = 0; i < length; i++)
            buf_puts(&b, SPACE_MARK);
    else
        buf_append(&b, text, length);
    if (b.failed)
        status = fail(s->err, STATUS_NO_MEMORY, KEY "tokens: not enough memory");
    else if (b.length > TOKEN_BYTES_MAX)
        status = fail(s->err, STATUS_TOO_LARGE, KEY "tokens[%u]: %zu bytes; at most %u are allowed", id,
                      b.length, TOKEN_BYTES_MAX);
    else if (!utf8_is_valid(b.data, b.length))
        status = fail(s->err, STATUS_FORMAT, KEY "tokens[%u]: it is not UTF-8", id);
    else
        status =
            vocab_add(&t->vocab, id, (struct text_ref){b.data, (uint32_t)b.length}, KEY "tokens", s->err);
    buf_fini(&b);
    return status;
}

static enum status read_tokens(struct source *s, bool sentencepiece)
{
    uint64_t n = 0;
    struct tokenizer *t = s->t;
    enum status status = gguf_get_array(s->g, KEY "tokens", &n, s->err);
    if (status != STATUS_OK)
        return status;
    if (n == 0 || n > TOKEN_IDS_MAX)
        return fail(s->err, STATUS_FORMAT, KEY "tokens: %llu tokens; expected 1 to %u", (unsigned long long)n,
                    TOKEN_IDS_MAX);
    if (!vocab_init(&t->vocab, t->arena, (uint32_t)n))
        return fail(s->err, STATUS_NO_MEMORY, KEY "tokens: not enough memory");
    status = read_types_and_scores(s, sentencepiece);
    for (uint32_t id = 0; id < n && status == STATUS_OK; id++) {
        const char *text;
        size_t length;
        status = gguf_array_string(s->g, KEY "tokens", id, &text, &length, s->err);
        if (status == STATUS_OK)
            status = add_text(s, id, text, length, sentencepiece);
    }
    return status;
}

static bool is_mark_run(struct text_ref text)
{
    for (uint32_t i = 0; i < text.length; i += 3)
        if (text.length - i < 3 || memcmp(text.text + i, SPACE_MARK, 3) != 0)
            return false;
    return text.length > 0;
}

/* Control and unknown tokens are special; user-defined ones are found in any text. */
static enum status add_tokens(struct source *s)
{
    require(s->types != NULL);
    struct tokenizer *t = s->t;
    const char *name = "";
    size_t length;
    if (gguf_has(s->g, "general.name")) {
        enum status status = gguf_get_string(s->g, "general.name", &name, &length, s->err);
        if (status != STATUS_OK)
            return status;
    }
    /* Phi-3's tokens swallow the white space behind them, which GGUF can't say. */
    bool phi3 = strcasestr(name, "phi-3") || strcasestr(name, "phi3");
    t->plain_added.tokens = arena_array(t->arena, (size_t)t->vocab.n_ids + 1, sizeof *t->plain_added.tokens);
    t->normal_added.tokens =
        arena_array(t->arena, (size_t)t->vocab.n_ids + 1, sizeof *t->normal_added.tokens);
    if (!t->plain_added.tokens || !t->normal_added.tokens)
        return fail(s->err, STATUS_NO_MEMORY, KEY "token_type: not enough memory");
    for (uint32_t id = 0; id < t->vocab.n_ids; id++) {
        bool special = s->types[id] == TYPE_CONTROL || s->types[id] == TYPE_UNKNOWN;
        const char *text = t->vocab.texts[id].text;
        if (!special && s->types[id] != TYPE_USER_DEFINED)
            continue;
        if (!special && is_mark_run(t->vocab.texts[id]))
            t->normal_added.tokens[t->normal_added.n_tokens++] =
                (struct added_token){.id = id, .pattern = t->vocab.texts[id]};
        struct added_spec spec = {.id = id, .content = t->vocab.texts[id], .special = special};
        spec.right_strip = phi3 && strcmp(text, "<unk>") != 0 && strcmp(text, "<s>") != 0 &&
                           strcmp(text, "<|endoftext|>") != 0;
        enum status status = tokenizer_add_token(t, &spec, KEY "token_type", s->err);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static enum status read_ends(struct source *s)
{
    struct tokenizer *t = s->t;
    enum status status = get_id(s, KEY "bos_token_id", &t->bos);
    if (status == STATUS_OK)
        status = get_id(s, KEY "eos_token_id", &t->eos);
    if (status == STATUS_OK)
        status = get_bool(s, KEY "add_bos_token", &s->add_bos);
    if (status == STATUS_OK)
        status = get_bool(s, KEY "add_eos_token", &s->add_eos);
    if (status != STATUS_OK)
        return status;
    if ((s->add_bos && t->bos < 0) || (s->add_eos && t->eos < 0))
        return fail(s->err, STATUS_FORMAT, KEY "%s_token_id: absent, but add_%s_token is set",
                    s->add_bos && t->bos < 0 ? "bos" : "eos", s->add_bos && t->bos < 0 ? "bos" : "eos");
    if (s->add_bos)
        t->before[t->n_before++] = (uint32_t)t->bos;
    if (s->add_eos)
        t->behind[t->n_behind++] = (uint32_t)t->eos;
    return STATUS_OK;
}

/* ---- gpt2 */

static enum status set_patterns(struct source *s, const struct pre_tokenizer *pre)
{
    struct tokenizer *t = s->t;
    enum status status = STATUS_OK;
    if (pre->nfc)
        t->normalizer.steps[t->normalizer.n_steps++] = (struct normal_step){.kind = NORMAL_NFC};
    for (size_t i = 0; i < 6 && pre->patterns[i] && status == STATUS_OK; i++) {
        struct split_step *step = splitter_add(&t->splitter, SPLIT_PATTERN);
        require(step != NULL);
        status = pattern_regex(&step->pattern, t->arena, pre->patterns[i], strlen(pre->patterns[i]), s->err);
    }
    return status;
}

static enum status read_merges(struct source *s)
{
    struct tokenizer *t = s->t;
    uint64_t n = 0;
    enum status status = gguf_get_array(s->g, KEY "merges", &n, s->err);
    if (status == STATUS_OK)
        status = bpe_merges_init(t->bpe, t->arena, n < SIZE_MAX ? (size_t)n : SIZE_MAX, s->err);
    for (uint64_t i = 0; i < n && status == STATUS_OK; i++) {
        const char *text;
        char field[64];
        size_t length;
        snprintf(field, sizeof field, KEY "merges[%llu]", (unsigned long long)i);
        status = gguf_array_string(s->g, KEY "merges", i, &text, &length, s->err);
        if (status != STATUS_OK)
            return status;
        const char *space = length > 1 ? memchr(text + 1, ' ', length - 1) : NULL;
        if (!space || length > TOKEN_BYTES_MAX)
            return fail(s->err, STATUS_FORMAT,
                        "%s: \"%.80s\": expected two tokens with one space between them", field, text);
        struct merge_text m = {.rank = (uint32_t)i, .field = field};
        m.left = (struct text_ref){text, (uint32_t)(space - text)};
        m.right = (struct text_ref){space + 1, (uint32_t)(length - m.left.length - 1)};
        status = bpe_add_merge(t->bpe, &t->vocab, &m, s->err);
    }
    return status == STATUS_OK ? bpe_finish(t->bpe, t->arena, s->err) : status;
}

static enum status unknown_pre_tokenizer(struct source *s, const char *name)
{
    char known[320];
    pre_tokenizer_names(known, sizeof known);
    return fail(
        s->err, STATUS_UNSUPPORTED,
        KEY
        "pre: the pre-tokenizer \"%.40s\" is not known; use the model as a Hugging Face folder. Known are, "
        "with their kin: %s",
        name, known);
}

static enum status read_byte_level(struct source *s)
{
    const char *name = "default";
    size_t length;
    enum status status =
        gguf_has(s->g, KEY "pre") ? gguf_get_string(s->g, KEY "pre", &name, &length, s->err) : STATUS_OK;
    if (status != STATUS_OK)
        return status;
    const struct pre_tokenizer *pre = pre_tokenizer_find(name);
    if (!pre)
        return unknown_pre_tokenizer(s, name);
    s->t->decoder.bytes = BYTES_LEVEL;
    s->t->bpe->ignore_merges = pre->ignore_merges;
    s->add_bos = pre->add_bos;
    status = set_patterns(s, pre);
    if (status == STATUS_OK)
        status = bpe_init(s->t->bpe, s->t->arena, &s->t->vocab, true, s->err);
    return status == STATUS_OK ? read_merges(s) : status;
}

/* ---- llama */

struct ranked {
    float score;
    uint32_t id;
};

static int by_score(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->score > y->score ? -1 : x->score < y->score ? 1 : x->id < y->id ? -1 : 1;
}

/* Is it a token that text can become? Control, unknown and byte tokens are not. */
static bool is_made_of_text(const struct source *s, int32_t id)
{
    return id >= 0 &&
           (s->types[id] == TYPE_NORMAL || s->types[id] == TYPE_USER_DEFINED || s->types[id] == TYPE_UNUSED);
}

/* Ranks by score, highest first; equal scores have equal ranks, and then the leftmost pair goes first. */
static uint32_t *rank_tokens(const struct source *s)
{
    require(s->scores != NULL);
    uint32_t n = s->t->vocab.n_ids, rank = 0;
    struct ranked *order = mem_array(n, sizeof *order);
    uint32_t *ranks = mem_array(n, sizeof *ranks);
    if (!order || !ranks) {
        mem_free(order);
        mem_free(ranks);
        return NULL;
    }
    for (uint32_t i = 0; i < n; i++)
        order[i] = (struct ranked){s->scores[i], i};
    qsort(order, n, sizeof *order, by_score);
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0 && order[i].score != order[i - 1].score)
            rank++;
        ranks[order[i].id] = rank;
    }
    mem_free(order);
    return ranks;
}

/* All ways to cut token `id` into two tokens; into merges if that is not NULL. Returns how many. */
static size_t split_token(const struct source *s, uint32_t id, const uint32_t *ranks, struct bpe *into)
{
    const struct vocab *v = &s->t->vocab;
    struct text_ref text = v->texts[id];
    size_t n = 0;
    if (!is_made_of_text(s, (int32_t)id))
        return 0;
    for (uint32_t at = utf8_size((unsigned char)text.text[0]); at < text.length;
         at += utf8_size((unsigned char)text.text[at])) {
        int32_t left = text_map_find(&v->map, v->texts, text.text, at);
        int32_t right = is_made_of_text(s, left)
                            ? text_map_find(&v->map, v->texts, text.text + at, text.length - at)
                            : -1;
        if (!is_made_of_text(s, right))
            continue;
        n++;
        if (into)
            bpe_put_merge(into, &(struct merge){(uint32_t)left, (uint32_t)right, ranks[id], id});
    }
    return n;
}

static enum status make_merges(struct source *s)
{
    struct tokenizer *t = s->t;
    size_t n = 0;
    uint32_t *ranks = rank_tokens(s);
    if (!ranks)
        return fail(s->err, STATUS_NO_MEMORY, KEY "scores: not enough memory");
    for (uint32_t id = 0; id < t->vocab.n_ids; id++)
        n += split_token(s, id, NULL, NULL);
    enum status status = bpe_merges_init(t->bpe, t->arena, n, s->err);
    for (uint32_t id = 0; id < t->vocab.n_ids && status == STATUS_OK; id++)
        split_token(s, id, ranks, t->bpe);
    mem_free(ranks);
    return status == STATUS_OK ? bpe_finish(t->bpe, t->arena, s->err) : status;
}

static void set_spaces(struct source *s)
{
    static const struct text_ref mark = {SPACE_MARK, 3}, space = {" ", 1};
    struct tokenizer *t = s->t;
    struct normalizer *n = &t->normalizer;
    if (s->add_space_prefix)
        n->steps[n->n_steps++] = (struct normal_step){.kind = NORMAL_PREPEND, .text = mark};
    n->steps[n->n_steps++] =
        (struct normal_step){.kind = NORMAL_REPLACE, .pattern = {.literal = space}, .text = mark};
    t->decoder.steps[t->decoder.n_steps++] =
        (struct decode_step){.kind = DECODE_REPLACE, .pattern = {.literal = mark}, .text = space};
    t->decoder.bytes = BYTES_FALLBACK;
    t->decoder.strip = space;
    t->decoder.strip_count = s->add_space_prefix ? 1 : 0;
}

static enum status read_sentencepiece(struct source *s)
{
    struct bpe *b = s->t->bpe;
    s->add_bos = s->add_space_prefix = true;
    enum status status = get_bool(s, KEY "add_space_prefix", &s->add_space_prefix);
    b->unknown = 0;
    if (status == STATUS_OK)
        status = get_id(s, KEY "unknown_token_id", &b->unknown);
    b->byte_fallback = b->fuse_unknown = true;
    set_spaces(s);
    s->t->bos = s->t->vocab.n_ids > 1 ? 1 : -1; /* SentencePiece's own places, if the file says nothing */
    s->t->eos = s->t->vocab.n_ids > 2 ? 2 : -1;
    if (status == STATUS_OK)
        status = bpe_init(b, s->t->arena, &s->t->vocab, false, s->err);
    return status == STATUS_OK ? make_merges(s) : status;
}

/* ---- the door */

static enum status build(struct source *s)
{
    const char *model = NULL;
    size_t length;
    enum status status = gguf_get_string(s->g, KEY "model", &model, &length, s->err);
    if (status != STATUS_OK)
        return status;
    bool level = strcmp(model, "gpt2") == 0;
    if (!level && strcmp(model, "llama") != 0)
        return fail(s->err, STATUS_UNSUPPORTED,
                    KEY
                    "model: \"%.60s\" is not supported; gpt2 (byte-level BPE) and llama (SentencePiece) are",
                    model);
    status = read_tokens(s, !level);
    s->t->bpe = arena_alloc(s->t->arena, sizeof *s->t->bpe);
    if (!s->t->bpe)
        return fail(s->err, STATUS_NO_MEMORY, KEY "model: not enough memory");
    s->t->bpe->unknown = -1;
    if (status == STATUS_OK)
        status = level ? read_byte_level(s) : read_sentencepiece(s);
    if (status == STATUS_OK)
        status = add_tokens(s);
    if (status == STATUS_OK)
        status = read_ends(s);
    return status == STATUS_OK ? tokenizer_finish(s->t, s->err) : status;
}

enum status tokenizer_from_gguf(const struct gguf *g, struct tokenizer **out, struct error *err)
{
    struct source s = {.g = g, .t = tokenizer_create(), .err = err};
    if (!s.t)
        return fail(err, STATUS_NO_MEMORY, "not enough memory");
    enum status status = build(&s);
    mem_free(s.types);
    mem_free(s.scores);
    if (status != STATUS_OK) {
        tokenizer_destroy(s.t);
        return status;
    }
    *out = s.t;
    return STATUS_OK;
}
