/* Log-probabilities of a row of raw logits. Pure. Thread: any. */
#ifndef LK_ENGINE_LOGPROBS_H
#define LK_ENGINE_LOGPROBS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"

struct logprobs {
    float logprob; /* of the token */
    uint32_t rank; /* 1: no token is more probable; equals by lower id */
    uint32_t n_top;
    struct token_logprob top[LOGPROBS_MAX]; /* descending, equals by lower id */
};

struct logits {
    const float *row;   /* [n] */
    const float *peaks; /* largest of each PEAK_VALUES of row (kernels.h), or NULL: not known; they only save
                           work */
    uint32_t n;
};

/* log softmax(row)[token], and the n_top most probable tokens (fewer if not so many are possible). */
void logprobs_row(const struct logits *x, int32_t token, uint32_t n_top, struct logprobs *out);

/* Whether all n values are. */
bool row_is_finite(const float *row, uint32_t n);
/* KL(p || q) of the softmaxes of two rows of finite logits, in nats; never below 0. */
double logprobs_kl(const float *p, const float *q, uint32_t n);

#endif
