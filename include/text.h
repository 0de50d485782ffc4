/* Text: between the characters that people write and the token ids that the model reads.
 * A tokenizer, a streaming detokeniser that never emits half a character, and the model's own chat template.
 * Everything opened here is immutable and may be used by any number of threads; a detokeniser has one owner.
 */
#ifndef LK_TEXT_H
#define LK_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

struct model_files;
struct gguf;
struct json_t;

/* ---- tokenizer ---- */

struct tokenizer;

/* From the text of a tokenizer.json (Hugging Face tokenizers), or from GGUF's tokenizer.ggml.* metadata. */
LK_MUST_USE enum status tokenizer_from_json(const char *json, size_t length, const char *shown,
                                            struct tokenizer **out, struct error *err);
LK_MUST_USE enum status tokenizer_from_gguf(const struct gguf *g, struct tokenizer **out, struct error *err);
void tokenizer_destroy(struct tokenizer *t);

uint32_t tokenizer_n_tokens(const struct tokenizer *t); /* highest id + 1 */

/* A growing list of ids; fini frees. */
struct token_list {
    int32_t *ids;
    size_t n_ids, capacity;
};
void token_list_fini(struct token_list *l);
bool token_list_push(struct token_list *l, int32_t id);

struct encode_options {
    bool add_special;   /* the post-processor's bos/eos */
    bool parse_special; /* "<|im_end|>" in the text becomes that token (what transformers does); false: plain
                           text */
    size_t limit_ids;   /* STATUS_TOO_LARGE beyond; 0: no limit */
};

/* Appends the ids of `text` (UTF-8; invalid bytes are treated as U+FFFD as Python's errors="replace" would).
 */
LK_MUST_USE enum status tokenizer_encode(const struct tokenizer *t, const char *text, size_t length,
                                         const struct encode_options *options, struct token_list *out,
                                         struct error *err);

/* Appends the text of ids, with the tokenizer's decoder (leading-space rules included). Ids out of range are
 * refused. */
LK_MUST_USE enum status tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n_ids,
                                         bool skip_special, struct buf *out, struct error *err);

/* The raw bytes that a token stands for in the middle of a text (byte-level bytes decoded, U+2581 as space,
 * <0xNN> as that byte; special tokens: their content). Returned bytes live as long as t. NULL for an id
 * without a token. */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *length);
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);
/* The id of a token by its exact vocabulary text ("<|im_end|>"), or -1. */
int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t length);

/* ---- streaming detokeniser ---- */

/* Turns ids into text as they come. The concatenation of all output equals tokenizer_decode of all ids. One
 * exception: a run of byte-fallback tokens that is no UTF-8 as a whole is all U+FFFD in tokenizer_decode,
 * while the stream shows its good characters as soon as they are complete. A fixed-size struct: no
 * allocation. */
struct detokenizer {
    const struct tokenizer *tokenizer;
    bool skip_special;
    const int32_t *kept; /* special tokens that are shown all the same; borrowed */
    uint32_t n_kept;
    bool at_start;       /* no token yet: the first one may lose its leading space */
    uint8_t pending[16]; /* bytes of an unfinished character */
    uint32_t n_pending;
    uint32_t n_strip; /* characters that the decoder may still strip from the start of the text */
};
/* d->kept and d->n_kept may be set afterwards. */
void detokenizer_init(struct detokenizer *d, const struct tokenizer *t, bool skip_special);
/* Writes the newly completed text (valid UTF-8, no NUL added) to dst. dst must hold
 * detokenizer_bound(t) bytes. Returns the number of bytes written. */
size_t detokenizer_push(struct detokenizer *d, int32_t id, char *dst);
size_t detokenizer_end(struct detokenizer *d, char *dst); /* flushes an unfinished character as U+FFFD */
size_t detokenizer_bound(const struct tokenizer *t);      /* most bytes that one push can write */

/* ---- chat template ---- */

/* A Jinja template, compiled; the dialect is that of transformers' apply_chat_template
 * (ImmutableSandboxedEnvironment with trim_blocks and lstrip_blocks, loopcontrols, tojson, raise_exception,
 * strftime_now, generation blocks). */
struct chat_template;

struct template_limits {
    uint64_t n_steps;    /* interpreter steps; 0: 2,000,000 */
    uint32_t depth;      /* nesting of calls, loops and values; 0: 64 */
    size_t output_bytes; /* 0: 8 MiB */
    size_t memory_bytes; /* values made while rendering; 0: 64 MiB */
};

/* What the interpreter doesn't know is an error here, with line and column, not at the first request. */
LK_MUST_USE enum status chat_template_compile(const char *source, size_t length, const char *shown,
                                              struct chat_template **out, struct error *err);
void chat_template_destroy(struct chat_template *t);

/* Appends the rendering with the object `variables` as globals: messages, tools, add_generation_prompt,
 * bos_token, eos_token and whatever else the caller passes. A message's reasoning_content, thinking or
 * reasoning is seen under the other names too, as transformers' apply_chat_template does it. now_ms (wall
 * clock, UTC) is what strftime_now shows. raise_exception() in the template: STATUS_INVALID with its message;
 * a bound: STATUS_TOO_LARGE. */
LK_MUST_USE enum status chat_template_render(const struct chat_template *t, const struct json_t *variables,
                                             int64_t now_ms, const struct template_limits *limits,
                                             struct buf *out, struct error *err);

/* ---- all of a model's text, opened together ---- */

struct text_model {
    struct tokenizer *tokenizer;
    struct chat_template
        *chat_template; /* NULL: the model has none (then chat requests are refused, completions work) */
    struct chat_template *tool_template;               /* the one named "tool_use"; NULL: none of that name */
    char *chat_template_source, *tool_template_source; /* or NULL */
    char bos_text[64], eos_text[64]; /* bos_token / eos_token as templates see them; empty: none */
    int32_t bos_token, eos_token;    /* -1: none */
    bool add_bos; /* completions with a string prompt begin with bos (post-processor's rule) */
};

/* tokenizer.json + tokenizer_config.json (+ chat_template.jinja with additional_chat_templates/, or
 * chat_template.json) of a folder, or GGUF metadata. */
LK_MUST_USE enum status text_model_open(const struct model_files *files, struct text_model **out,
                                        struct error *err);
void text_model_close(struct text_model *t);
/* The template for a conversation: as transformers chooses, "tool_use" where the request has tools (an empty
 * list counts) and the model has one of that name. NULL: the model has none. Borrowed from t. */
const struct chat_template *text_model_template(const struct text_model *t, bool has_tools);

/* UTF-8: length of the longest valid prefix of s (never cutting a character). */
size_t utf8_valid_prefix(const char *s, size_t length);
bool utf8_is_valid(const char *s, size_t length);

#endif
