/* One token out of a row: logit bias and bans, the chain of samplers, a draw. The draw walks the candidates
 * that are left in rank order, so the token depends on row, history and generator alone.
 *
 * Owner of the scratch: the calling worker. It knows no sequence states, text or stop strings. */
#include "sampler.h"

#include <math.h>

#include "base/mem.h"
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
    if (s->logits && s->keys && s->spare && s->counts)
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
    *s = (struct sampler_scratch){0};
}

/* Before the chain, whatever its order: a banned token stays banned. */
static void bias_and_ban(struct chain *c)
{
    const struct sampler_input *in = c->in;
    const struct sampling *p = in->sampling;
    if (!p->n_logit_bias && !in->n_banned)
        return;
    float *row = chain_own_row(c);
    for (uint32_t i = 0; i < p->n_logit_bias; i++) {
        float *x = &row[p->logit_bias[i].token];
        *x = bounded_logit(*x + p->logit_bias[i].bias);
    }
    for (uint32_t i = 0; i < in->n_banned; i++)
        row[in->banned[i]] = -INFINITY;
}

static int32_t draw(struct chain *c, double u)
{
    float logit;
    int32_t id, chosen = -1;
    if (!rank_get(&c->ranking, c->begin, &logit, &chosen))
        return -1;
    double total = chain_total(c), sum = 0;
    for (uint32_t i = c->begin; i < c->end && rank_get(&c->ranking, i, &logit, &id); i++) {
        double w = chain_weight(c, logit);
        if (w > 0)
            chosen = id; /* the last one catches what rounding leaves over */
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
        .ranking =
            {.row = in->logits, .peaks = in->peaks, .keys = s->keys, .spare = s->spare, .n = s->n_vocab},
        .end = s->n_vocab,
        .temperature = 1,
        .total = -1,
    };
    float logit;
    int32_t id;
    bias_and_ban(&c);
    chain_run(&c);
    if (!c.greedy)
        return draw(&c, rng_unit(r));
    return c.begin < c.end && rank_get(&c.ranking, c.begin, &logit, &id) ? id : -1;
}
