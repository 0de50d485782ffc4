/* Log-probabilities of a row of raw logits. Pure. Thread: any. */
#ifndef LK_ENGINE_LOGPROBS_H
#define LK_ENGINE_LOGPROBS_H

#include <stdint.h>

#include "engine.h"

/* log softmax(row)[token], and the n_top most probable tokens, descending, equals by lower id.
 * top: [n_top <= LOGPROBS_MAX]. Returns how many were written. */
uint32_t logprobs_row(const float *row, uint32_t n_vocab, int32_t token, float *logprob, uint32_t n_top,
                      struct token_logprob *top);

#endif
