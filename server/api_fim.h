/* Text between a beginning and an end: completions with a suffix. */
#ifndef LK_API_FIM_H
#define LK_API_FIM_H

#include "completion.h"

/* Makes prompt number `index`, whose ids are the beginning's, one that asks for what stands between it and
 * `suffix`, in the order that the model's tokens for it stand for; what ends such text becomes a stop token.
 * STATUS_UNSUPPORTED: its tokenizer has no such tokens. Thread: any. A fault goes to c->fault. */
LK_MUST_USE enum status fill_in_middle(struct completion *c, uint32_t index, const json_t *suffix);

#endif
