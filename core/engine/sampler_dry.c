/* DRY ("don't repeat yourself"): whoever would go on with a repetition pays, the more the longer it is. The
 * rule is that of its author's proposal for text-generation-webui and of llama-server; it is in
 * include/engine.h. */
#include <math.h>

#include "sampler_chain.h"

#define LENGTH_BEYOND_MAX 50U /* above the allowed length: 1.75^50 is more than any logit */

/* Tokens at the end of the text that may be part of a repetition. */
static uint32_t n_unbroken(const struct sampler_input *in, uint32_t limit)
{
    uint32_t n = 0;
    while (n < limit && !(in->breaks && in->breaks(in->breaks_data, in->tokens[in->n_tokens - 1 - n])))
        n++;
    return n;
}

/* How many tokens before `i` equal those at the end. */
static uint32_t repeated(const struct sampler_input *in, uint32_t begin, uint32_t i, uint32_t limit)
{
    const int32_t *end = in->tokens + in->n_tokens;
    uint32_t n = 0;
    while (n < limit && i - n > begin && in->tokens[i - 1 - n] == end[-1 - (int64_t)n])
        n++;
    return n;
}

void sample_dry(struct chain *c)
{
    const struct sampler_input *in = c->in;
    const struct sampling *p = in->sampling;
    uint32_t *longest = c->scratch->counts, begin = 0;
    if (p->dry_multiplier <= 0)
        return;
    if (p->dry_last_n >= 0 && (uint32_t)p->dry_last_n < in->n_tokens)
        begin = in->n_tokens - (uint32_t)p->dry_last_n;
    uint32_t least = p->dry_allowed_length, limit = in->n_tokens - begin;
    limit = n_unbroken(in, limit < least + LENGTH_BEYOND_MAX ? limit : least + LENGTH_BEYOND_MAX);
    if (limit < least)
        return;
    float *row = chain_own_row(c);
    for (uint32_t i = begin + least; i < in->n_tokens; i++) {
        uint32_t n = repeated(in, begin, i, limit);
        if (n >= least && n > longest[in->tokens[i]])
            longest[in->tokens[i]] = n;
    }
    for (uint32_t i = begin + least; i < in->n_tokens; i++) {
        int32_t t = in->tokens[i];
        if (longest[t])
            row[t] -=
                (float)fmin(1e30, (double)p->dry_multiplier * pow((double)p->dry_base, longest[t] - least));
        longest[t] = 0;
    }
}
