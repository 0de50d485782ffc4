/* Repetition, presence and frequency penalty; the formulas and what they count are in include/engine.h. */
#include "sampler_chain.h"

static void repetition_penalty(const struct chain *c, float *row, uint32_t begin)
{
    const struct sampler_input *in = c->in;
    uint32_t *counts = c->scratch->counts;
    float penalty = in->sampling->repetition_penalty;
    for (uint32_t i = begin; i < in->n_tokens; i++) {
        int32_t t = in->tokens[i];
        if (!counts[t]++)
            row[t] = bounded_logit(row[t] > 0 ? row[t] / penalty : row[t] * penalty);
    }
    for (uint32_t i = begin; i < in->n_tokens; i++)
        counts[in->tokens[i]] = 0;
}

static void output_penalties(const struct chain *c, float *row, uint32_t begin)
{
    const struct sampler_input *in = c->in;
    const struct sampling *p = in->sampling;
    uint32_t *counts = c->scratch->counts;
    if (begin < in->n_prompt)
        begin = in->n_prompt;
    for (uint32_t i = begin; i < in->n_tokens; i++)
        counts[in->tokens[i]]++;
    for (uint32_t i = begin; i < in->n_tokens; i++) {
        int32_t t = in->tokens[i];
        if (counts[t])
            row[t] = bounded_logit(row[t] - (float)counts[t] * p->frequency_penalty - p->presence_penalty);
        counts[t] = 0;
    }
}

void sample_penalties(struct chain *c)
{
    const struct sampling *p = c->in->sampling;
    bool repetition = p->repetition_penalty != 1.0F;
    bool output = p->presence_penalty != 0.0F || p->frequency_penalty != 0.0F;
    uint32_t begin = 0;
    if (p->penalty_last_n >= 0 && (uint32_t)p->penalty_last_n < c->in->n_tokens)
        begin = c->in->n_tokens - (uint32_t)p->penalty_last_n;
    if ((!repetition && !output) || begin == c->in->n_tokens)
        return;
    float *row = chain_own_row(c);
    if (repetition)
        repetition_penalty(c, row, begin);
    if (output)
        output_penalties(c, row, begin);
}
