/* Log-probabilities of a row of raw logits. Pure. Thread: any. */
#ifndef LK_ENGINE_LOGPROBS_H
#define LK_ENGINE_LOGPROBS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"
#include "row_mass.h"

struct logprobs {
    float logprob; /* of the token */
    uint32_t rank; /* 1: no token is more probable; equals by lower id */
    uint32_t n_top;
    struct token_logprob top[LOGPROBS_MAX]; /* descending, equals by lower id */
};

/* log softmax(row)[token], and the n_top most probable tokens (fewer if not so many are possible). With
 * x->sums, those of factor 1, only parts of the row are read whose peaks say so; without, all of it is summed
 * up in double, from which the other way's numbers are a rounding away. Which of the two it is must be up to
 * the request alone. */
void logprobs_row(const struct logits *x, int32_t token, uint32_t n_top, struct logprobs *out);

/* Whether all n values are. */
bool row_is_finite(const float *row, uint32_t n);
/* KL(p || q) of the softmaxes of two rows of finite logits, in nats; never below 0. */
double logprobs_kl(const float *p, const float *q, uint32_t n);

#endif
