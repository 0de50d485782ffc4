/* Log-probabilities in the two forms that OpenAI's APIs have. Pure but for growing buffers. */
#ifndef LK_LOGPROBS_JSON_H
#define LK_LOGPROBS_JSON_H

#include "api_parse.h"

struct tokenizer;

/* How tokens are shown. */
struct logprob_style {
    enum api api;
    const struct tokenizer *tokenizer;
    bool as_ids;       /* "token_id:N" instead of the text */
    bool skip_special; /* special tokens are no part of the text: text_offset leaves them out */
};

/* Entries gathered since the last write; each buffer holds JSON values with commas.
 * Chat: `items`. Completions: four parallel lists. */
struct logprob_list {
    struct buf items; /* chat: {"token","logprob","bytes","top_logprobs"}; completions: tokens */
    struct buf values, tops, offsets;
    uint32_t n_chars; /* characters of all tokens so far: text_offset */
};
void logprob_list_init(struct logprob_list *l);
void logprob_list_fini(struct logprob_list *l);
/* Adds the event's token. `known` false: nothing predicted it (a prompt's first token). */
void logprob_list_add(struct logprob_list *l, const struct logprob_style *style, const struct event *e,
                      bool known);
/* An entry of vLLM's prompt_logprobs: {"ID": {"logprob", "rank", "decoded_token"}, …} with the prompt's token
 * and the n_top best; null where nothing predicted it (`e` NULL). */
void prompt_logprobs_add(struct buf *out, const struct tokenizer *t, uint32_t n_top, const struct event *e);
/* The value of "logprobs"; forgets the entries. */
void logprob_list_write(struct logprob_list *l, enum api api, struct jw *w);

#endif
