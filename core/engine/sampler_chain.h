/* What a sampler of the chain works on: the candidates that the ones before it have left. A new sampler is a
 * function here, its row in sampler_chain.c, and its parameters in struct sampling.
 *
 * Candidates are a window of the ranking: every cut (top_k, top_p, min_p, and typ_p too, whose set is a range
 * of logits around the mean) takes from its ends. Temperature changes only the weights. What changes single
 * logits (penalties) first makes a row of its own, in which who was cut is -INFINITY. */
#ifndef LK_ENGINE_SAMPLER_CHAIN_H
#define LK_ENGINE_SAMPLER_CHAIN_H

#include "ranking.h"
#include "sampler.h"

struct chain {
    const struct sampler_input *in;
    struct sampler_scratch *scratch;
    struct rng *rng;
    struct ranking ranking;
    uint32_t begin, end; /* the window; end may lie behind the last candidate */
    double temperature;  /* a candidate's weight is exp((logit - top) / temperature) */
    float top;           /* logit of the window's first */
    bool has_top;
    double total; /* of the window's weights; < 0: not known */
    bool greedy;  /* decided: the window's first, without a draw */
};

/* Ready for weights: false when no candidate is left. */
bool chain_open(struct chain *c);
double chain_weight(const struct chain *c, float logit);
/* Sum of the window's weights. */
double chain_total(struct chain *c);
/* The candidates as a row that may be written, temperature applied; the window is whole again, and nothing is
 * sorted. */
float *chain_own_row(struct chain *c);
/* Keeps a logit that grew finite: an infinity would make 0 * inf of the softmax. */
float bounded_logit(float x);

/* The samplers; each does nothing where its parameters say so. */
void sample_penalties(struct chain *c);
void sample_temperature(struct chain *c);
void sample_top_k(struct chain *c);
void sample_top_p(struct chain *c);
void sample_min_p(struct chain *c);
void sample_typ_p(struct chain *c);
void sample_top_n_sigma(struct chain *c);
void sample_xtc(struct chain *c);
void sample_dry(struct chain *c);

/* Runs the samplers of the request's order. */
void chain_run(struct chain *c);
/* Instead of chain_run, and the draw: the token, or -1. */
int32_t mirostat_pick(struct chain *c);
/* The id drawn by `u` in [0, 1) among the window's candidates, and its weight; -1: there is none. */
int32_t chain_draw(struct chain *c, double u, double *weight);

#endif
