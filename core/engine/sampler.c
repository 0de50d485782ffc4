/* One token out of a row: logit bias and bans, the chain of samplers, a draw. The draw walks the candidates
 * that are left in rank order, so the token depends on row, history and generator alone.
 *
 * Owner of the scratch: the calling worker. It knows no sequence states, text or stop strings. */
#include "sampler.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernels.h"
#include "sampler_chain.h"

void rng_seed(struct rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15U;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
        r->s[i] = z ^ (z >> 31);
    }
}

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t rng_next(struct rng *r)
{
    uint64_t *s = r->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

double rng_unit(struct rng *r)
{
    return (double)(rng_next(r) >> 11) * 0x1p-53;
}

enum status sampler_scratch_init(struct sampler_scratch *s, uint32_t n_vocab,
                                 uint32_t (*argmax)(const float *x, uint32_t n), struct error *err)
{
    *s = (struct sampler_scratch){.n_vocab = n_vocab, .argmax = argmax};
    s->logits = mem_array(n_vocab, sizeof *s->logits);
    s->keys = mem_array(n_vocab, sizeof *s->keys);
    s->spare = mem_array(n_vocab, sizeof *s->spare);
    s->counts = mem_array(n_vocab, sizeof *s->counts);
    s->mask = mem_array(grammar_mask_words(n_vocab), sizeof *s->mask);
    if (s->logits && s->keys && s->spare && s->counts && s->mask)
        return STATUS_OK;
    sampler_scratch_fini(s);
    return fail(err, STATUS_NO_MEMORY, "no memory to sample from a vocabulary of %u tokens", n_vocab);
}

void sampler_scratch_fini(struct sampler_scratch *s)
{
    mem_free(s->logits);
    mem_free(s->keys);
    mem_free(s->spare);
    mem_free(s->counts);
    mem_free(s->mask);
    *s = (struct sampler_scratch){0};
}

/* Nothing but the mask and the largest logit decide. */
static bool is_plainly_greedy(const struct sampler_input *in)
{
    const struct sampling *p = in->sampling;
    bool biased = p->n_logit_bias || in->n_banned || p->n_bad_words || p->allowed || p->dry_multiplier > 0 ||
                  p->repetition_penalty != 1.0F || p->presence_penalty != 0.0F ||
                  p->frequency_penalty != 0.0F;
    return !biased && !p->order.is_set && !p->mirostat && p->temperature == 0 && !(p->dynatemp_range > 0);
}

/* ---- bias and bans: before the chain, whatever its order, so that a banned token stays banned */

/* All but these. */
static void keep_allowed(const struct sampling *p, float *row, uint32_t n)
{
    uint32_t next = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (next < p->n_allowed && (uint32_t)p->allowed[next] == i)
            next++;
        else
            row[i] = -INFINITY;
    }
}

/* The last id of each sequence whose others are the end of the output. */
static void ban_words(const struct sampler_input *in, float *row)
{
    const int32_t *ids = in->sampling->bad_words, *end = ids + in->sampling->n_bad_words;
    uint32_t n_output = in->n_tokens - in->n_prompt;
    for (uint32_t n; ids < end; ids += n + 1) {
        for (n = 0; ids[n] >= 0;)
            n++;
        if (n - 1 <= n_output && memcmp(ids, in->tokens + in->n_tokens - (n - 1), (n - 1) * sizeof *ids) == 0)
            row[ids[n - 1]] = -INFINITY;
    }
}

static void bias_and_ban(struct chain *c)
{
    const struct sampler_input *in = c->in;
    const struct sampling *p = in->sampling;
    if (!p->n_logit_bias && !in->n_banned && !p->n_bad_words && !p->allowed)
        return;
    float *row = chain_own_row(c);
    for (uint32_t i = 0; i < p->n_logit_bias; i++) {
        float *x = &row[p->logit_bias[i].token];
        *x = bounded_logit(*x + p->logit_bias[i].bias);
    }
    for (uint32_t i = 0; i < in->n_banned; i++)
        row[in->banned[i]] = -INFINITY;
    if (p->allowed)
        keep_allowed(p, row, c->ranking.n);
    ban_words(in, row);
}

int32_t chain_draw(struct chain *c, double u, double *weight)
{
    float logit;
    int32_t id, chosen = -1;
    *weight = 0;
    if (!rank_get(&c->ranking, c->begin, &logit, &chosen))
        return -1;
    double total = chain_total(c), sum = 0;
    for (uint32_t i = c->begin; i < c->end && rank_get(&c->ranking, i, &logit, &id); i++) {
        double w = chain_weight(c, logit);
        if (w > 0) { /* the last one catches what rounding leaves over */
            chosen = id;
            *weight = w;
        }
        sum += w;
        if (sum > u * total)
            break;
    }
    return chosen;
}

int32_t sampler_pick(const struct sampler_input *in, struct rng *r, struct sampler_scratch *s)
{
    struct chain c = {
        .in = in,
        .scratch = s,
        .rng = r,
        .ranking = {.row = in->logits,
                    .peaks = in->peaks,
                    .mask = in->mask,
                    .keys = s->keys,
                    .spare = s->spare,
                    .n = s->n_vocab},
        .end = s->n_vocab,
        .temperature = 1,
        .total = -1,
    };
    float logit;
    int32_t id;
    double weight;
    if (in->mask && is_plainly_greedy(in))
        return rank_best(&c.ranking);
    if (in->mask)
        rank_count_mask(&c.ranking);
    bias_and_ban(&c);
    if (in->sampling->mirostat)
        return mirostat_pick(&c);
    chain_run(&c);
    if (!c.greedy)
        return chain_draw(&c, rng_unit(r), &weight);
    return c.begin < c.end && rank_get(&c.ranking, c.begin, &logit, &id) ? id : -1;
}
