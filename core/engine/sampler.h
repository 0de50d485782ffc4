/* One token out of a row of logits. Pure: parameters, history and generator in, token out; no allocation.
 * Thread: any, with a scratch of its own. */
#ifndef LK_ENGINE_SAMPLER_H
#define LK_ENGINE_SAMPLER_H

#include <stdint.h>

#include "base/error.h"
#include "engine.h"
#include "kernels.h"

/* xoshiro256** (Blackman, Vigna, "Scrambled linear pseudorandom number generators", 2018), seeded through
 * splitmix64 as its authors advise. Its state is the sequence's, so a pause changes nothing. */
struct rng {
    uint64_t s[4];
};
void rng_seed(struct rng *r, uint64_t seed);
uint64_t rng_next(struct rng *r);
double rng_unit(struct rng *r); /* [0, 1), 53 bits */

/* Room for one row; one for each worker. */
struct sampler_scratch {
    uint32_t n_vocab;
    float *logits;    /* [n_vocab] a changed copy of the row */
    uint64_t *mask;   /* [grammar_mask_words(n_vocab)] for the caller */
    uint64_t *keys;   /* [n_vocab] candidates, best first */
    uint64_t *spare;  /* [n_vocab] while they are sorted */
    uint32_t *counts; /* [n_vocab] of the penalties, all 0 between calls */
    uint32_t (*argmax)(const float *x, uint32_t n);
    const struct kernels *kernels; /* for sums over rows, or NULL: the plain way, which picks the same */
};
LK_MUST_USE enum status sampler_scratch_init(struct sampler_scratch *s, uint32_t n_vocab,
                                             uint32_t (*argmax)(const float *x, uint32_t n),
                                             struct error *err);
void sampler_scratch_fini(struct sampler_scratch *s);

struct sampler_input {
    const struct sampling *sampling;
    const float *logits;   /* [n_vocab], left as they are */
    const float *peaks;    /* of the logits (kernels.h), or NULL */
    const double *sums;    /* [STEP_SUMS, n_peaks_of(n_vocab)] of logits and peaks (step_sums), or NULL */
    const float *factors;  /* [STEP_SUMS] that they were made for, 0: not made */
    const int32_t *tokens; /* [n_tokens]: prompt, then output */
    uint32_t n_tokens, n_prompt;
    const uint64_t *mask;  /* a bit a token: who may be taken at all; NULL: all */
    const int32_t *banned; /* the stop tokens while min_tokens isn't reached */
    uint32_t n_banned;
    bool (*breaks)(const void *data, int32_t token); /* a breaker of dry; NULL: none is */
    const void *breaks_data;
    double *mirostat_mu; /* the generation's, between tokens; NULL or NaN: not begun */
};
/* The factor that sampler_pick will want the sums of a row for, or 0: they would be no use. Only for speed:
 * it makes what it isn't given. */
float sampler_sum_factor(const struct sampling *p);
/* The next token, or -1 when no token has a finite logit left. Draws once from `r`, and once more with xtc;
 * not at all when greedy. */
int32_t sampler_pick(const struct sampler_input *in, struct rng *r, struct sampler_scratch *s);

#endif
