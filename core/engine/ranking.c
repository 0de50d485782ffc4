/* Candidates of a row of logits in order, as far as somebody looks.
 *
 * They are 64-bit keys whose ascending order is (logit descending, id ascending), so one comparison decides
 * and there are no ties. The best 64 are sorted first, then four times as many, until the wanted place is
 * reached. Each part is one scan over the row with a rising threshold, which for usual settings costs little
 * more than reading the row once; a mask is asked only for those above it. What goes further (a flat
 * distribution) is a radix sort of the whole vocabulary. */
#include "ranking.h"

#include <math.h>
#include <string.h>

#define FIRST_BEST 64U
#define SORTED_IN_PARTS 4096U /* beyond that everything is sorted at once */

static uint64_t key_of(float logit, uint32_t id)
{
    uint32_t bits;
    logit += 0.0F; /* -0 and 0 are equals */
    memcpy(&bits, &logit, sizeof bits);
    uint32_t ascending = bits & 0x80000000U ? ~bits : bits | 0x80000000U;
    return (uint64_t)~ascending << 32 | id;
}

float key_logit(uint64_t key)
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

void rank_count_mask(struct ranking *r)
{
    uint64_t n = 0;
    for (uint32_t w = 0; w * 64 < r->n; w++) { /* the builtin would be a call where it isn't an instruction */
        uint64_t x = r->mask[w];
        x -= x >> 1 & 0x5555555555555555U;
        x = (x & 0x3333333333333333U) + (x >> 2 & 0x3333333333333333U);
        n += ((x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fU) * 0x0101010101010101U >> 56;
    }
    r->n_masked = (uint32_t)n;
}

/* Who of the 64 ids from `begin` on may be taken. */
static uint64_t taken(const struct ranking *r, uint32_t begin)
{
    if (r->mask)
        return r->mask[begin / 64];
    return r->n - begin < 64 ? ((uint64_t)1 << (r->n - begin)) - 1 : ~(uint64_t)0;
}

/* Sorts all candidates behind those already sorted. */
static void rank_all(struct ranking *r)
{
    uint64_t *out = r->keys + r->n_sorted, after = r->last;
    size_t n = 0;
    for (uint32_t begin = 0; begin < r->n; begin += 64)
        for (uint64_t left = taken(r, begin); left; left &= left - 1) {
            uint32_t id = begin + (uint32_t)__builtin_ctzll(left);
            uint64_t key = key_of(r->row[id], id);
            if (r->row[id] > -INFINITY && (r->n_sorted == 0 || key > after))
                out[n++] = key;
        }
    radix_sort(out, r->spare, n);
    if (n)
        r->last = out[n - 1];
    r->n_sorted += (uint32_t)n;
    r->complete = true;
}

/* The largest float under the k-th largest peak, or under the least where there are fewer: k candidates are
 * above it, unless a mask takes some away. -INFINITY: nothing is known. */
static float below_peaks(struct ranking *r, uint64_t k)
{
    uint32_t n_peaks = n_peaks_of(r->n), n = 0;
    for (uint32_t i = 0; i < n_peaks; i++)
        if (r->peaks[i] > -INFINITY)
            r->spare[n++] = key_of(r->peaks[i], i);
    if (n == 0)
        return -INFINITY;
    k = k < n ? k : n;
    select_smallest(r->spare, n, k);
    return nextafterf(key_logit(r->spare[k - 1]), -INFINITY);
}

/* The best so far of one scan. */
struct picks {
    uint64_t *keys;
    size_t n, limit, want;
    float above; /* who isn't above it, isn't among the best */
};

static void pick(const struct ranking *r, struct picks *p, uint32_t id)
{
    uint64_t key = key_of(r->row[id], id);
    if (r->n_sorted && key <= r->last)
        return;
    p->keys[p->n++] = key;
    if (p->n < p->limit || p->n <= p->want)
        return;
    select_smallest(p->keys, p->n, p->want);
    p->n = p->want;
    p->above = key_logit(p->keys[p->want - 1]); /* an equal logit further on has a higher id: it loses */
}

static void pick_word(const struct ranking *r, struct picks *p, uint32_t begin, uint64_t bits)
{
    const float *row = r->row + begin;
    if (r->n - begin < 64 || (r->mask && r->n_masked < r->n / FEW_OF_MASK)) {
        for (; bits; bits &= bits - 1)
            if (row[__builtin_ctzll(bits)] > p->above)
                pick(r, p, begin + (uint32_t)__builtin_ctzll(bits));
        return;
    }
    for (uint32_t i = 0; i < 64; i++)
        if (row[i] > p->above && bits >> i & 1)
            pick(r, p, begin + i);
}

static void pick_best(const struct ranking *r, struct picks *p)
{
    for (uint32_t begin = 0; begin < r->n; begin += 64) {
        if (r->peaks && begin % PEAK_VALUES == 0 && !(r->peaks[begin / PEAK_VALUES] > p->above)) {
            begin += PEAK_VALUES - 64;
            continue;
        }
        pick_word(r, p, begin, taken(r, begin));
    }
}

/* Scans with a threshold taken from the peaks, a lower one if that was too high, and in the end with none. */
static void scan(struct ranking *r, struct picks *p)
{
    bool few = r->mask && r->n_masked <= r->n / FEW_OF_MASK, guess = r->peaks && !few;
    uint64_t k = r->n_sorted + p->want;
    float floor;
    if (r->mask && guess) /* of the peaks a mask takes as many as of all */
        k = k * r->n / r->n_masked * 5 / 4 + 8;
    do {
        floor = guess ? below_peaks(r, k) : -INFINITY; /* at least that: bans and NaN are no candidates */
        p->n = 0;
        p->above = floor;
        pick_best(r, p);
        guess = guess && k < n_peaks_of(r->n);
        k *= 4;
    } while (p->n < p->want && floor > -INFINITY);
}

void rank_more(struct ranking *r, uint32_t want)
{
    if (want > SORTED_IN_PARTS) {
        rank_all(r);
        return;
    }
    size_t room = r->n - r->n_sorted;
    struct picks p = {.keys = r->keys + r->n_sorted, .want = want < room ? want : room};
    p.limit = p.want * 2 > FIRST_BEST * 4 ? p.want * 2 : FIRST_BEST * 4;
    p.limit = p.limit < room ? p.limit : room;
    if (p.want)
        scan(r, &p);
    if (p.n > p.want) {
        select_smallest(p.keys, p.n, p.want);
        p.n = p.want;
    }
    sort_keys(p.keys, p.n);
    if (p.n)
        r->last = p.keys[p.n - 1];
    r->n_sorted += (uint32_t)p.n;
    r->complete = p.n < p.want || r->n_sorted == r->n;
}

bool rank_get(struct ranking *r, uint32_t i, float *logit, int32_t *id)
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

void rank_only(struct ranking *r, uint32_t id)
{
    r->keys[0] = r->last = key_of(r->row[id], id);
    r->n_sorted = 1;
    r->complete = false;
}

int32_t rank_best(const struct ranking *r)
{
    float best = -INFINITY;
    int32_t id = -1;
    for (uint32_t begin = 0; begin < r->n; begin += 64) {
        if (r->peaks && begin % PEAK_VALUES == 0 && !(r->peaks[begin / PEAK_VALUES] > best)) {
            begin += PEAK_VALUES - 64;
            continue;
        }
        for (uint64_t left = r->mask[begin / 64]; left; left &= left - 1) {
            uint32_t i = begin + (uint32_t)__builtin_ctzll(left);
            if (r->row[i] > best) {
                best = r->row[i];
                id = (int32_t)i;
            }
        }
    }
    return id;
}

/* 64 logits, those whose bit is 0 as -INFINITY: four at a time, since single ones would take longer than to
 * read the row. */
static void blend(const float *row, uint64_t bits, float *own)
{
    typedef uint32_t four __attribute__((vector_size(16)));
#define ALL(b, i) ((b) >> (i)&1 ? UINT32_MAX : 0)
#define LANES(b)                                                                                             \
    {                                                                                                        \
        ALL(b, 0), ALL(b, 1), ALL(b, 2), ALL(b, 3)                                                           \
    }
    static const four lanes[16] = {LANES(0),  LANES(1),  LANES(2),  LANES(3), LANES(4),  LANES(5),
                                   LANES(6),  LANES(7),  LANES(8),  LANES(9), LANES(10), LANES(11),
                                   LANES(12), LANES(13), LANES(14), LANES(15)};
#undef LANES
#undef ALL
    const four none = {0xff800000U, 0xff800000U, 0xff800000U, 0xff800000U}; /* -INFINITY */
    for (uint32_t i = 0; i < 64; i += 4) {
        four x, keep = lanes[bits >> i & 15];
        memcpy(&x, row + i, sizeof x);
        x = (x & keep) | (none & ~keep);
        memcpy(own + i, &x, sizeof x);
    }
}

const float *rank_block(const struct ranking *r, uint32_t begin, float own[PEAK_VALUES])
{
    uint32_t n = rank_block_length(r, begin);
    const uint64_t *mask = r->mask ? r->mask + begin / 64 : NULL;
    uint64_t any = 0, all = ~(uint64_t)0;
    if (!mask)
        return r->row + begin;
    for (uint32_t w = 0; w * 64 < n; w++) {
        any |= mask[w];
        all &= mask[w];
    }
    if (!any || (!~all && n == PEAK_VALUES))
        return any ? r->row + begin : NULL;
    for (uint32_t i = 0; i < n; i += 64) {
        if (n - i >= 64)
            blend(r->row + begin + i, mask[i / 64], own + i);
        for (uint32_t k = i; n - i < 64 && k < n; k++)
            own[k] = mask[i / 64] >> (k - i) & 1 ? r->row[begin + k] : -INFINITY;
    }
    return own;
}

static void reverse(uint64_t *k, size_t n)
{
    for (size_t i = 0; i < n / 2; i++)
        swap(&k[i], &k[n - 1 - i]);
}

void rank_move_back(struct ranking *r, uint32_t begin, uint32_t end, uint32_t n)
{
    reverse(r->keys + begin, end - begin);
    reverse(r->keys + begin, end - begin - n);
    reverse(r->keys + end - n, n);
}
