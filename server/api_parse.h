/* JSON in: typed access with bounds, and the generation parameters of both APIs. Pure; any thread. There is
 * no other way to read a number out of a request. */
#ifndef LK_API_PARSE_H
#define LK_API_PARSE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "api_render.h"
#include "base/arena.h"
#include "engine.h"

/* Reads one object's fields. The first failure stays in `fault` and makes all later reads do nothing, so a
 * caller may check once at the end. A field that is absent or null leaves its target untouched and answers
 * false. */
struct reader {
    const json_t *object;
    struct fault *fault;
    enum status status; /* STATUS_OK, or what `fault` says */
};
bool read_bool(struct reader *r, const char *key, bool *out);
bool read_int(struct reader *r, const char *key, int64_t min, int64_t max,
              int64_t *out); /* 3.0 counts as 3 */
bool read_float(struct reader *r, const char *key, double min, double max, double *out);
bool read_text(struct reader *r, const char *key, const char **out); /* borrowed from the object */
bool read_object(struct reader *r, const char *key, const json_t **out);
bool read_array(struct reader *r, const char *key, const json_t **out);
void read_fail(struct reader *r, enum status s, const char *param, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* "the string \"abc\"", "the number 3", "an array of 2" …: what was found, for messages. Returns dst. */
const char *describe_json(const json_t *v, char *dst, size_t dst_bytes);
/* It asks for something: it is there, and not null, false, 0, "", [], {}. */
bool json_is_set(const json_t *v);

/* A token id in [0, n_vocab) from an array's item; `where` names it in errors. */
bool read_token_id(struct reader *r, const json_t *item, const char *where, size_t index, uint32_t n_vocab,
                   int32_t *out);

enum api { API_CHAT, API_COMPLETIONS };

/* What a request asks of its generations, whichever dialect said it. Arrays live in the arena, texts in the
 * JSON. */
struct gen_params {
    struct sampling sampling;
    bool has_seed;
    uint32_t n, n_made;  /* choices of a prompt that are shown; of which they are the best (best_of) */
    uint32_t max_tokens; /* UINT32_MAX: to the context's end */
    uint32_t min_tokens;
    uint32_t max_decode_ms; /* from the first token, and to the next one behind a line break; 0: no limit */
    bool ignore_eos, include_stop, skip_special_tokens;
    const char **stop;
    uint32_t n_stop;
    int32_t *stop_tokens;
    uint32_t n_stop_tokens;
    int32_t n_logprobs, n_prompt_logprobs; /* -1: none */
    int32_t priority;
    bool cache_off;         /* cache_prompt: false */
    const char *cache_salt; /* or NULL */
    bool stream, include_usage, continuous_usage;
    bool return_token_ids, tokens_as_ids, timings, echo;
    bool add_special;        /* completions: bos before a text prompt */
    struct grammar *grammar; /* what the text must follow, or NULL; the arena's reference */
};

struct tokenizer;
struct grammar_store;

struct parse_limits {
    uint32_t n_max;                    /* of `n` */
    uint32_t n_vocab;                  /* token ids below */
    const struct tokenizer *tokenizer; /* for logit_bias of texts; NULL: those are refused */
    struct grammar_store *grammars;    /* NULL: grammars are refused */
    const char *caller;                /* Authorization, or NULL: whose grammars they are */
};

/* api_words.c: bad_words, allowed_token_ids, dry_sequence_breakers. */
void read_word_params(struct reader *r, const struct parse_limits *limits, struct arena *arena,
                      struct sampling *s);

LK_MUST_USE enum status parse_gen_params(const json_t *body, enum api api, const struct parse_limits *limits,
                                         struct arena *arena, struct gen_params *out, struct fault *f);

/* The body of a request as an object: nesting at most 64, no duplicate keys. Caller json_decref()s. */
LK_MUST_USE enum status parse_body(const char *body, size_t length, json_t **out, struct fault *f);

#endif
