/* Mirostat (Basu et al., "Mirostat: a neural text decoding algorithm that directly controls perplexity",
 * arXiv 2007.14966): how far the candidates reach is steered by the surprise of what was drawn before.
 * Surprises are in bits. */
#include <math.h>

#include "sampler_chain.h"

#define ESTIMATE_TOKENS 100U /* m: ranks that the exponent of Zipf's law is estimated from */

/* Keeps candidates up to the surprise mu, one at least. */
static void cut_by_surprise(struct chain *c, double mu)
{
    double total = chain_total(c), sum = 0;
    uint32_t i = c->begin;
    float logit;
    int32_t id;
    for (; i < c->end && rank_get(&c->ranking, i, &logit, &id); i++) {
        double w = chain_weight(c, logit);
        if (i > c->begin && -log2(w / total) > mu)
            break;
        sum += w;
    }
    c->end = i;
    c->total = sum;
}

/* The exponent s of Zipf's law by minimum mean square error (eq. 7 of the paper). NaN: a single candidate. */
static double zipf_exponent(struct chain *c)
{
    double sum_tb = 0, sum_tt = 0;
    float logit, next;
    int32_t id;
    if (!rank_get(&c->ranking, c->begin, &logit, &id))
        return NAN;
    for (uint32_t i = 0; i + 1 < ESTIMATE_TOKENS && c->begin + i + 1 < c->end; i++) {
        if (!rank_get(&c->ranking, c->begin + i + 1, &next, &id))
            break;
        double t = log((i + 2.0) / (i + 1.0)), b = ((double)logit - (double)next) / c->temperature;
        sum_tb += t * b;
        sum_tt += t * t;
        logit = next;
    }
    return sum_tb / sum_tt;
}

/* Keeps the k best, k from the exponent and mu (eq. 9); all where there is no such law: equals, a single one.
 */
static void cut_by_rank(struct chain *c, double mu)
{
    double s = zipf_exponent(c), epsilon = s - 1;
    if (!(s > 0))
        return;
    double k = pow(epsilon * exp2(mu) / (1 - pow(c->ranking.n, -epsilon)), 1 / s);
    if (!(k < c->end - c->begin)) /* NaN too: s is 1 */
        return;
    c->end = c->begin + (k >= 1 ? (uint32_t)k : 1);
    c->total = -1;
}

int32_t mirostat_pick(struct chain *c)
{
    const struct sampling *p = c->in->sampling;
    double fresh = NAN, *mu = c->in->mirostat_mu ? c->in->mirostat_mu : &fresh, weight;
    float logit;
    int32_t id;
    sample_penalties(c);
    sample_temperature(c);
    if (c->greedy)
        return c->begin < c->end && rank_get(&c->ranking, c->begin, &logit, &id) ? id : -1;
    if (!chain_open(c))
        return -1;
    if (isnan(*mu))
        *mu = 2 * (double)p->mirostat_tau;
    if (p->mirostat == 1)
        cut_by_rank(c, *mu);
    else
        cut_by_surprise(c, *mu);
    id = chain_draw(c, rng_unit(c->rng), &weight);
    double error = -log2(weight / chain_total(c)) - (double)p->mirostat_tau;
    *mu -= (double)p->mirostat_eta * error;
    return id;
}
