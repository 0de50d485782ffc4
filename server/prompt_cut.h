/* Prompts that are longer than they may be: the oldest turns go (Ollama's way, OpenAI's `truncation: auto`),
 * or the middle of the tokens. Pure; any thread. */
#ifndef LK_PROMPT_CUT_H
#define LK_PROMPT_CUT_H

#include "completion.h"

/* From now on c's prompts are cut: to `limit` tokens (0: no wish), and so far that an answer has room: what
 * it may have, up to a quarter of the context. tokens: even a last turn, of which the first n_keep tokens and
 * the last ones stay. The voice and the parameters are known. */
void prompt_cut_begin(struct completion *c, uint32_t limit, bool tokens, uint32_t n_keep);
/* Whether the text's prompt needn't be cut; STATUS_NO_MEMORY is in c->fault. */
bool prompt_fits(struct completion *c, const struct buf *rendered);

/* Where messages may begin when older ones are left out: at n_users turns of the user (the first is all there
 * is), then, behind the last of them, at answers. */
struct cut_places {
    size_t *at; /* in the arena */
    size_t n, n_users;
};
LK_MUST_USE enum status cut_places_find(struct completion *c, const json_t *messages, struct cut_places *out);
/* The messages from `first` on, behind all system messages before; new, or NULL. */
json_t *cut_messages(const json_t *messages, size_t first);

void prompt_cut_ids(const struct prompt_cut *cut, struct token_list *ids);

#endif
