/* The sampling chain: logit bias, penalties, bans; then argmax, or temperature, top_k, top_p, min_p and a
 * draw.
 *
 * Candidates are 64-bit keys whose ascending order is (logit descending, id ascending), so one comparison
 * decides and there are no ties. They are sorted only as far as they are needed: the best 64 first, then four
 * times as many, until the kept ones end or the draw is found. Each part is one scan over the row with a
 * rising threshold, which for usual settings costs little more than reading the row once; what goes further
 * (a flat distribution) is a radix sort of the whole vocabulary. A draw walks the candidates in that order,
 * so the token depends on row, history and generator alone.
 *
 * Owner of the scratch: the calling worker. It knows no sequence states, text or stop strings. */
#include "sampler.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"

#define FIRST_BEST 64U
#define SORTED_IN_PARTS 4096U /* beyond that everything is sorted at once */

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

/* ---- bias, penalties, bans ---- */

/* Keeps a sum with a huge bias finite: an infinity would make 0 * inf of the softmax. */
static float bounded_logit(float x)
{
    return x > FLT_MAX ? FLT_MAX : x;
}

static void repetition_penalty(const struct sampler_input *in, struct sampler_scratch *s)
{
    const struct sampling *p = in->sampling;
    uint32_t begin = 0;
    if (p->penalty_last_n >= 0 && (uint32_t)p->penalty_last_n < in->n_tokens)
        begin = in->n_tokens - (uint32_t)p->penalty_last_n;
    for (uint32_t i = begin; i < in->n_tokens; i++) {
        int32_t t = in->tokens[i];
        if (s->counts[t]++)
            continue;
        float x = s->logits[t];
        s->logits[t] = bounded_logit(x > 0 ? x / p->repetition_penalty : x * p->repetition_penalty);
    }
    for (uint32_t i = begin; i < in->n_tokens; i++)
        s->counts[in->tokens[i]] = 0;
}

static void output_penalties(const struct sampler_input *in, struct sampler_scratch *s)
{
    const struct sampling *p = in->sampling;
    for (uint32_t i = in->n_prompt; i < in->n_tokens; i++)
        s->counts[in->tokens[i]]++;
    for (uint32_t i = in->n_prompt; i < in->n_tokens; i++) {
        int32_t t = in->tokens[i];
        if (!s->counts[t])
            continue;
        s->logits[t] =
            bounded_logit(s->logits[t] - (float)s->counts[t] * p->frequency_penalty - p->presence_penalty);
        s->counts[t] = 0;
    }
}

/* The row to choose from: the model's own when nothing changes it, else a changed copy. */
static const float *adjusted(const struct sampler_input *in, struct sampler_scratch *s)
{
    const struct sampling *p = in->sampling;
    bool repetition = p->repetition_penalty != 1.0F;
    bool output = p->presence_penalty != 0.0F || p->frequency_penalty != 0.0F;
    if (!repetition && !output && !p->n_logit_bias && !in->n_banned)
        return in->logits;
    memcpy(s->logits, in->logits, s->n_vocab * sizeof *s->logits);
    for (uint32_t i = 0; i < p->n_logit_bias; i++) {
        float *x = &s->logits[p->logit_bias[i].token];
        *x = bounded_logit(*x + p->logit_bias[i].bias);
    }
    if (repetition)
        repetition_penalty(in, s);
    if (output)
        output_penalties(in, s);
    for (uint32_t i = 0; i < in->n_banned; i++)
        s->logits[in->banned[i]] = -INFINITY;
    return s->logits;
}

/* ---- candidates in order ---- */

static uint64_t key_of(float logit, uint32_t id)
{
    uint32_t bits;
    logit += 0.0F; /* -0 and 0 are equals */
    memcpy(&bits, &logit, sizeof bits);
    uint32_t ascending = bits & 0x80000000U ? ~bits : bits | 0x80000000U;
    return (uint64_t)~ascending << 32 | id;
}

static float key_logit(uint64_t key)
{
    uint32_t ascending = ~(uint32_t)(key >> 32);
    uint32_t bits = ascending & 0x80000000U ? ascending & 0x7fffffffU : ~ascending;
    float logit;
    memcpy(&logit, &bits, sizeof logit);
    return logit;
}

static void swap(uint64_t *a, uint64_t *b)
{
    uint64_t t = *a;
    *a = *b;
    *b = t;
}

/* Brings the m smallest of n keys to the front, the largest of them to place m - 1 (Hoare's quickselect). */
static void select_smallest(uint64_t *k, size_t n, size_t m)
{
    size_t lo = 0, hi = n - 1, want = m - 1;
    while (lo < hi) {
        uint64_t pivot = k[lo + (hi - lo) / 2];
        size_t i = lo, j = hi;
        for (;;) {
            while (k[i] < pivot)
                i++;
            while (k[j] > pivot)
                j--;
            if (i >= j)
                break;
            swap(&k[i], &k[j]);
            i++;
            j--;
        }
        /* [lo, j] <= pivot <= [j + 1, hi], and the pivot itself may sit at j when i == j. */
        if (want <= j)
            hi = j;
        else
            lo = j + 1;
    }
}

static void sift_down(uint64_t *k, size_t root, size_t n)
{
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && k[child] < k[child + 1])
            child++;
        if (k[root] >= k[child])
            return;
        swap(&k[root], &k[child]);
    }
}

/* Heapsort: in place, n log n whatever the logits are (the C library's qsort may allocate). */
static void sort_keys(uint64_t *k, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(k, i, n);
    for (size_t end = n; end-- > 1;) {
        swap(&k[0], &k[end]);
        sift_down(k, 0, end);
    }
}

/* Least digit first, on the logit's half of the keys: they come in order of ids, and every pass keeps that
 * among equals. The result is in `k`; `spare` is as long. */
static void radix_sort(uint64_t *k, uint64_t *spare, size_t n)
{
    for (unsigned shift = 32; shift < 64; shift += 8) {
        size_t begin[256] = {0}, sum = 0;
        for (size_t i = 0; i < n; i++)
            begin[k[i] >> shift & 255U]++;
        for (unsigned digit = 0; digit < 256; digit++) {
            size_t count = begin[digit];
            begin[digit] = sum;
            sum += count;
        }
        for (size_t i = 0; i < n; i++)
            spare[begin[k[i] >> shift & 255U]++] = k[i];
        uint64_t *sorted = spare; /* four passes: the last one ends where the first began */
        spare = k;
        k = sorted;
    }
}

/* The candidates of one row, sorted as far as somebody looked. */
struct ranking {
    const float *row;
    uint64_t *keys, *spare;
    uint32_t n, n_sorted;
    bool complete; /* no candidate behind keys[n_sorted - 1] */
};

/* Sorts all candidates behind those already sorted. */
static void rank_all(struct ranking *r)
{
    uint64_t *out = r->keys + r->n_sorted, after = r->n_sorted ? out[-1] : 0;
    size_t n = 0;
    for (uint32_t id = 0; id < r->n; id++) {
        uint64_t key = key_of(r->row[id], id);
        if (r->row[id] > -INFINITY && (r->n_sorted == 0 || key > after))
            out[n++] = key;
    }
    radix_sort(out, r->spare, n);
    r->n_sorted += (uint32_t)n;
    r->complete = true;
}

/* Sorts at least the next `want` best behind those already sorted. */
static void rank_more(struct ranking *r, uint32_t want)
{
    if (want > SORTED_IN_PARTS) {
        rank_all(r);
        return;
    }
    uint64_t *out = r->keys + r->n_sorted;
    size_t room = r->n - r->n_sorted, n = 0;
    if (want > room)
        want = (uint32_t)room;
    uint64_t after = r->n_sorted ? r->keys[r->n_sorted - 1] : 0;
    float above = -INFINITY; /* bans and NaN are no candidates */
    size_t limit = (size_t)want * 2 > FIRST_BEST * 4 ? (size_t)want * 2 : FIRST_BEST * 4;
    if (limit > room)
        limit = room;
    for (uint32_t id = 0; id < r->n && want; id++) {
        if (!(r->row[id] > above))
            continue;
        uint64_t key = key_of(r->row[id], id);
        if (r->n_sorted && key <= after)
            continue;
        out[n++] = key;
        if (n == limit && n > want) {
            select_smallest(out, n, want);
            n = want;
            above = key_logit(out[want - 1]); /* an equal logit further on has a higher id: it loses */
        }
    }
    if (n > want) {
        select_smallest(out, n, want);
        n = want;
    }
    sort_keys(out, n);
    r->n_sorted += (uint32_t)n;
    r->complete = n < want || r->n_sorted == r->n;
}

/* Candidate i, or false when there are not so many. */
static bool rank_get(struct ranking *r, uint32_t i, float *logit, int32_t *id)
{
    while (i >= r->n_sorted) {
        if (r->complete)
            return false;
        rank_more(r, r->n_sorted ? 3 * r->n_sorted : FIRST_BEST);
    }
    *logit = key_logit(r->keys[i]);
    *id = (int32_t)(uint32_t)r->keys[i];
    return true;
}

/* ---- the draw ---- */

struct softmax {
    double temperature;
    float top; /* largest logit; its weight is 1 */
};

static double weight(const struct softmax *m, float logit)
{
    return exp(((double)logit - (double)m->top) / m->temperature);
}

/* Sum of all weights; in id order, so it depends on the row alone. Below e^-80 a whole vocabulary adds less
 * than one unit of the generator's last bit. */
static double weight_sum(const struct softmax *m, const float *row, uint32_t n)
{
    double sum = 0, least = (double)m->top - 80.0 * m->temperature;
    for (uint32_t i = 0; i < n; i++)
        if ((double)row[i] >= least)
            sum += weight(m, row[i]);
    return sum;
}

/* How many candidates top_k, top_p and min_p leave, and the sum of their weights. Each works on what the one
 * before has left: top_p's share is of the top_k candidates' mass. */
static uint32_t truncate(const struct sampling *p, const struct softmax *m, struct ranking *r, double *total)
{
    float logit;
    int32_t id;
    double mass = 0, sum = 0;
    uint32_t limit = p->top_k > 0 && (uint32_t)p->top_k < r->n ? (uint32_t)p->top_k : r->n, kept = 0;
    if (p->top_p < 1.0F && limit == r->n)
        mass = weight_sum(m, r->row, r->n);
    for (uint32_t i = 0; p->top_p < 1.0F && limit < r->n && i < limit && rank_get(r, i, &logit, &id); i++)
        mass += weight(m, logit);
    while (kept < limit && rank_get(r, kept, &logit, &id)) {
        double w = weight(m, logit);
        bool enough = p->top_p < 1.0F && sum >= (double)p->top_p * mass;
        if (kept && (enough || w < (double)p->min_p))
            break;
        sum += w;
        kept++;
    }
    *total = sum;
    return kept;
}

static int32_t draw(const struct sampling *p, struct ranking *r, double u)
{
    float logit;
    int32_t id, chosen = -1;
    if (!rank_get(r, 0, &logit, &chosen))
        return -1;
    struct softmax m = {.temperature = (double)p->temperature, .top = logit};
    bool truncated = (p->top_k > 0 && (uint32_t)p->top_k < r->n) || p->top_p < 1.0F || p->min_p > 0.0F;
    double total, sum = 0;
    uint32_t kept = r->n;
    if (truncated)
        kept = truncate(p, &m, r, &total);
    else
        total = weight_sum(&m, r->row, r->n);
    for (uint32_t i = 0; i < kept && rank_get(r, i, &logit, &id); i++) {
        double w = weight(&m, logit);
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
    const struct sampling *p = in->sampling;
    const float *row = adjusted(in, s);
    if (p->temperature == 0.0F) {
        uint32_t best = s->argmax(row, s->n_vocab);
        return best < s->n_vocab && row[best] > -INFINITY ? (int32_t)best : -1;
    }
    struct ranking ranking = {.row = row, .keys = s->keys, .spare = s->spare, .n = s->n_vocab};
    if (p->top_k > 0)
        rank_more(&ranking, (uint32_t)p->top_k < s->n_vocab ? (uint32_t)p->top_k : s->n_vocab);
    return draw(p, &ranking, rng_unit(r));
}
