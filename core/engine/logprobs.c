/* Log-softmax, summed in id order, so that a row's numbers depend on the row alone. */
#include "logprobs.h"

#include <math.h>

#include "base/error.h"
#include "kernels.h"

/* An impossible token's log-probability is shown as OpenAI's API does: JSON has no infinity. */
static float bounded(double logprob)
{
    return logprob > -9999.0 ? (float)logprob : -9999.0F;
}

static float largest_of(const float *row, uint32_t n)
{
    float largest = -INFINITY;
    for (uint32_t i = 0; i < n; i++)
        largest = row[i] > largest ? row[i] : largest;
    return largest;
}

/* Where the piece that begins at `begin` ends; it is empty where its peak says that no logit in it is above
 * `least`. */
static uint32_t piece_end(const struct logits *x, uint32_t begin, float least)
{
    uint32_t end = x->n - begin < PEAK_VALUES ? x->n : begin + PEAK_VALUES;
    return x->peaks && !(x->peaks[begin / PEAK_VALUES] > least) ? begin : end;
}

/* The n_top-th largest peak: so many logits are not below it. -INFINITY: not known. */
static float least_of_best(const struct logits *x, uint32_t n_top)
{
    float best[LOGPROBS_MAX];
    uint32_t n = 0, n_peaks = x->peaks ? n_peaks_of(x->n) : 0;
    for (uint32_t i = 0; i < n_peaks; i++) {
        float peak = x->peaks[i];
        if (!(peak > (n == n_top ? best[n - 1] : -INFINITY)))
            continue;
        uint32_t at = n < n_top ? n++ : n - 1;
        for (; at > 0 && peak > best[at - 1]; at--)
            best[at] = best[at - 1];
        best[at] = peak;
    }
    return n == n_top ? best[n - 1] : -INFINITY;
}

/* Scanning ids upwards and inserting only what is larger leaves equals in order of their ids. */
static uint32_t best_tokens(const struct logits *x, uint32_t n_top, struct token_logprob *top)
{
    uint32_t n = 0;
    float least = n_top ? least_of_best(x, n_top) : 0;
    for (uint32_t begin = 0; begin < x->n && n_top; begin += PEAK_VALUES) {
        uint32_t end = piece_end(x, begin, n == n_top ? top[n - 1].logprob : -INFINITY);
        if (x->peaks && x->peaks[begin / PEAK_VALUES] < least)
            continue;
        for (uint32_t id = begin; id < end; id++) {
            float logit = x->row[id];
            if (!(logit > (n == n_top ? top[n - 1].logprob : -INFINITY)))
                continue;
            uint32_t at = n < n_top ? n++ : n - 1;
            for (; at > 0 && logit > top[at - 1].logprob; at--)
                top[at] = top[at - 1];
            top[at] = (struct token_logprob){.token = (int32_t)id, .logprob = logit};
        }
    }
    return n;
}

static uint32_t rank_of(const struct logits *x, uint32_t token)
{
    float own = x->row[token];
    uint32_t n_better = 0;
    for (uint32_t begin = 0; begin < x->n; begin += PEAK_VALUES) {
        uint32_t end = x->n - begin < PEAK_VALUES ? x->n : begin + PEAK_VALUES;
        if (x->peaks && x->peaks[begin / PEAK_VALUES] < own)
            continue;
        for (uint32_t i = begin; i < end; i++)
            n_better += x->row[i] > own || (x->row[i] == own && i < token);
    }
    return n_better + 1;
}

/* NaN is no token; what else is left out is below the sum's last bit. */
static double sum_of(const struct logits *x, float largest)
{
    double sum = x->sums && x->peaks ? row_mass(x, largest, 1, NULL) : 0;
    if (sum >= 1 && sum < INFINITY)
        return sum;
    sum = 0;
    for (uint32_t i = 0; i < x->n; i++)
        if (x->row[i] - largest > -80.0F)
            sum += exp((double)x->row[i] - (double)largest);
    return sum;
}

void logprobs_row(const struct logits *x, int32_t token, uint32_t n_top, struct logprobs *out)
{
    require(token >= 0 && (uint32_t)token < x->n && n_top <= LOGPROBS_MAX);
    float largest = x->peaks ? largest_of(x->peaks, n_peaks_of(x->n)) : largest_of(x->row, x->n);
    out->rank = rank_of(x, (uint32_t)token);
    double log_sum = (double)largest + log(sum_of(x, largest));
    out->logprob = bounded((double)x->row[token] - log_sum);
    out->n_top = best_tokens(x, n_top, out->top);
    for (uint32_t i = 0; i < out->n_top; i++)
        out->top[i].logprob = bounded((double)out->top[i].logprob - log_sum);
}

bool row_is_finite(const float *row, uint32_t n)
{
    bool finite = true;
    for (uint32_t i = 0; i < n; i++)
        finite = finite && isfinite(row[i]);
    return finite;
}

/* With p = e^a / A and q = e^b / B the sum of p (log p - log q) is sum e^a (a - b) / A - (log A - log B);
 * both rows are shifted to a largest value of 0. */
double logprobs_kl(const float *p, const float *q, uint32_t n)
{
    double max_p = (double)largest_of(p, n), max_q = (double)largest_of(q, n), sum = 0, sum_p = 0, sum_q = 0;
    for (uint32_t i = 0; i < n; i++) {
        double a = (double)p[i] - max_p, b = (double)q[i] - max_q, e = exp(a);
        sum_p += e;
        sum_q += exp(b);
        sum += e * (a - b);
    }
    double kl = sum / sum_p - (log(sum_p) - log(sum_q));
    return kl > 0 ? kl : 0; /* what is below is rounding */
}
