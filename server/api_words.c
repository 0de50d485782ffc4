/* Generation parameters that are lists of words or tokens: bad_words and allowed_token_ids (vLLM),
 * dry_sequence_breakers (llama-server). */
#include <stdlib.h>
#include <string.h>

#include "api_parse.h"
#include "text.h"

/* ---- bad_words */

struct word_list {
    int32_t *ids;       /* BAD_WORD_IDS_MAX */
    uint32_t n, n_last; /* n_last: of the last sequence */
};

static void add_word(struct reader *r, struct word_list *l, const struct token_list *ids)
{
    if (l->n + ids->n_ids + 1 > BAD_WORD_IDS_MAX) {
        read_fail(r, STATUS_TOO_LARGE, "bad_words", "bad_words: more than %u tokens in all",
                  BAD_WORD_IDS_MAX);
        return;
    }
    memcpy(l->ids + l->n, ids->ids, ids->n_ids * sizeof *ids->ids);
    l->n += (uint32_t)ids->n_ids;
    l->ids[l->n++] = -1;
    l->n_last = (uint32_t)ids->n_ids;
}

static bool is_last(const struct word_list *l, const struct token_list *ids)
{
    return l->n && ids->n_ids == l->n_last &&
           memcmp(l->ids + l->n - 1 - l->n_last, ids->ids, ids->n_ids * sizeof *ids->ids) == 0;
}

/* A word is banned at the beginning of a text, and as one that follows a space, which may be other tokens,
 * and another number of them. */
static void read_word(struct reader *r, struct word_list *l, const struct tokenizer *t, const char *word)
{
    const struct encode_options o = {.limit_ids = BAD_WORD_IDS_MAX};
    char spaced[STOP_STRING_BYTES_MAX + 2] = " ";
    struct error err;
    word += strspn(word, " \t\r\n");
    size_t n = strlen(word);
    if (n == 0 || n > STOP_STRING_BYTES_MAX) {
        read_fail(r, STATUS_INVALID, "bad_words", "bad_words: a word has %zu bytes, 1 to %u are taken", n,
                  STOP_STRING_BYTES_MAX);
        return;
    }
    memcpy(spaced + 1, word, n + 1);
    for (int with_space = 0; with_space < 2; with_space++) {
        struct token_list ids = {0};
        const char *text = with_space ? spaced : word;
        if (tokenizer_encode(t, text, strlen(text), &o, &ids, &err) != STATUS_OK)
            read_fail(r, err.status, "bad_words", "bad_words: %s", err.text);
        else if (ids.n_ids && (!with_space || !is_last(l, &ids)))
            add_word(r, l, &ids);
        token_list_fini(&ids);
    }
}

static void read_bad_words(struct reader *r, const struct parse_limits *limits, struct arena *arena,
                           struct sampling *s)
{
    const json_t *v = NULL;
    if (!read_array(r, "bad_words", &v) || json_array_size(v) == 0)
        return;
    struct word_list l = {.ids = arena_array(arena, BAD_WORD_IDS_MAX, sizeof *l.ids)};
    char text[96];
    if (!l.ids) {
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the request");
        return;
    }
    if (!limits->tokenizer)
        read_fail(r, STATUS_UNSUPPORTED, "bad_words", "bad_words: there is no tokenizer to read them with");
    for (size_t i = 0; i < json_array_size(v) && r->status == STATUS_OK; i++) {
        const json_t *word = json_array_get(v, i);
        if (json_is_string(word))
            read_word(r, &l, limits->tokenizer, json_string_value(word));
        else
            read_fail(r, STATUS_INVALID, "bad_words", "bad_words[%zu]: found %s, expected a string", i,
                      describe_json(word, text, sizeof text));
    }
    s->bad_words = l.ids;
    s->n_bad_words = l.n;
}

/* ---- allowed_token_ids */

static int by_id(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static void read_allowed(struct reader *r, const struct parse_limits *limits, struct arena *arena,
                         struct sampling *s)
{
    const json_t *v = NULL;
    if (!read_array(r, "allowed_token_ids", &v))
        return;
    size_t n = json_array_size(v);
    if (n == 0 || n > limits->n_vocab) {
        read_fail(r, STATUS_INVALID, "allowed_token_ids",
                  "allowed_token_ids: found %zu, expected 1 to %u ids", n, limits->n_vocab);
        return;
    }
    int32_t *ids = arena_array(arena, n, sizeof *ids);
    if (!ids) {
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the request");
        return;
    }
    for (size_t i = 0; i < n && r->status == STATUS_OK; i++)
        read_token_id(r, json_array_get(v, i), "allowed_token_ids", i, limits->n_vocab, &ids[i]);
    if (r->status != STATUS_OK)
        return;
    qsort(ids, n, sizeof *ids, by_id);
    for (size_t i = 0; i < n; i++)
        if (s->n_allowed == 0 || ids[s->n_allowed - 1] != ids[i])
            ids[s->n_allowed++] = ids[i];
    s->allowed = ids;
}

/* ---- dry_sequence_breakers */

static void read_breakers(struct reader *r, struct arena *arena, struct sampling *s)
{
    static const char *const usual[] = {"\n", ":", "\"", "*"}; /* llama-server's */
    const json_t *v = NULL;
    char text[96];
    s->dry_breakers = usual;
    s->n_dry_breakers = s->dry_multiplier > 0 ? sizeof usual / sizeof usual[0] : 0;
    if (!read_array(r, "dry_sequence_breakers", &v))
        return;
    size_t n = json_array_size(v);
    const char **list = arena_array(arena, DRY_BREAKERS_MAX, sizeof *list);
    if (!list) {
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the request");
        return;
    }
    if (n > DRY_BREAKERS_MAX)
        read_fail(r, STATUS_INVALID, "dry_sequence_breakers",
                  "dry_sequence_breakers: found %zu, at most %u are taken", n, DRY_BREAKERS_MAX);
    for (size_t i = 0; i < n && r->status == STATUS_OK; i++) {
        list[i] = json_string_value(json_array_get(v, i));
        if (!list[i] || !list[i][0] || strlen(list[i]) > STOP_STRING_BYTES_MAX)
            read_fail(r, STATUS_INVALID, "dry_sequence_breakers",
                      "dry_sequence_breakers[%zu]: found %s, expected a string of 1 to %u bytes", i,
                      describe_json(json_array_get(v, i), text, sizeof text), STOP_STRING_BYTES_MAX);
    }
    s->dry_breakers = list;
    s->n_dry_breakers = (uint32_t)n;
}

void read_word_params(struct reader *r, const struct parse_limits *limits, struct arena *arena,
                      struct sampling *s)
{
    read_bad_words(r, limits, arena, s);
    read_allowed(r, limits, arena, s);
    read_breakers(r, arena, s);
}
