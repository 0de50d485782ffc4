/* Log-softmax in double, summed in id order, so that a row's numbers depend on the row alone. */
#include "logprobs.h"

#include <math.h>

#include "base/error.h"

/* An impossible token's log-probability is shown as OpenAI's API does: JSON has no infinity. */
static float bounded(double logprob)
{
    return logprob > -9999.0 ? (float)logprob : -9999.0F;
}

/* Scanning ids upwards and inserting only what is larger leaves equals in order of their ids. */
static uint32_t best_tokens(const float *row, uint32_t n_vocab, uint32_t n_top, struct token_logprob *top)
{
    uint32_t n = 0;
    for (uint32_t id = 0; id < n_vocab && n_top; id++) {
        if (n == n_top ? !(row[id] > top[n - 1].logprob) : !(row[id] > -INFINITY))
            continue;
        uint32_t at = n < n_top ? n++ : n - 1;
        for (; at > 0 && row[id] > top[at - 1].logprob; at--)
            top[at] = top[at - 1];
        top[at] = (struct token_logprob){.token = (int32_t)id, .logprob = row[id]};
    }
    return n;
}

void logprobs_row(const float *row, uint32_t n_vocab, int32_t token, uint32_t n_top, struct logprobs *out)
{
    require(token >= 0 && (uint32_t)token < n_vocab && n_top <= LOGPROBS_MAX);
    float largest = -INFINITY;
    for (uint32_t i = 0; i < n_vocab; i++)
        largest = row[i] > largest ? row[i] : largest;
    double sum = 0;
    for (uint32_t i = 0; i < n_vocab; i++)
        if (row[i] - largest > -80.0F) /* what is left out is below the sum's last bit; NaN is no token */
            sum += exp((double)row[i] - (double)largest);
    double log_sum = (double)largest + log(sum);
    out->logprob = bounded((double)row[token] - log_sum);
    out->n_top = best_tokens(row, n_vocab, n_top, out->top);
    for (uint32_t i = 0; i < out->n_top; i++)
        out->top[i].logprob = bounded((double)out->top[i].logprob - log_sum);
}
