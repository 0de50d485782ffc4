/* Candidates of a row of logits in order, as far as somebody looks.
 *
 * They are 64-bit keys whose ascending order is (logit descending, id ascending), so one comparison decides
 * and there are no ties. The best 64 are sorted first, then four times as many, until the wanted place is
 * reached. Each part is one scan over the row with a rising threshold, which for usual settings costs little
 * more than reading the row once; what goes further (a flat distribution) is a radix sort of the whole
 * vocabulary. */
#include "ranking.h"

#include <math.h>
#include <string.h>

#include "kernels.h"

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

/* Sorts all candidates behind those already sorted. */
static void rank_all(struct ranking *r)
{
    uint64_t *out = r->keys + r->n_sorted, after = r->last;
    size_t n = 0;
    for (uint32_t id = 0; id < r->n; id++) {
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

/* A value that less than `want` candidates can be below of while they are among the `want` best: the largest
 * float under the want-th largest peak. -INFINITY: not known. */
static float floor_of_best(struct ranking *r, uint32_t want)
{
    uint32_t n_peaks = n_peaks_of(r->n), n = 0;
    if (!r->peaks || r->n_sorted > 0 || want > n_peaks)
        return -INFINITY;
    for (uint32_t i = 0; i < n_peaks; i++)
        if (r->peaks[i] > -INFINITY)
            r->spare[n++] = key_of(r->peaks[i], i);
    if (n < want)
        return -INFINITY;
    select_smallest(r->spare, n, want);
    return nextafterf(key_logit(r->spare[want - 1]), -INFINITY);
}

void rank_more(struct ranking *r, uint32_t want)
{
    if (want > SORTED_IN_PARTS) {
        rank_all(r);
        return;
    }
    uint64_t *out = r->keys + r->n_sorted;
    size_t room = r->n - r->n_sorted, n = 0;
    if (want > room)
        want = (uint32_t)room;
    uint64_t after = r->last;
    float above = floor_of_best(r, want); /* at least -INFINITY: bans and NaN are no candidates */
    size_t limit = (size_t)want * 2 > FIRST_BEST * 4 ? (size_t)want * 2 : FIRST_BEST * 4;
    if (limit > room)
        limit = room;
    for (uint32_t id = 0; id < r->n && want; id++) {
        if (r->peaks && id % PEAK_VALUES == 0 && !(r->peaks[id / PEAK_VALUES] > above)) {
            id += PEAK_VALUES - 1;
            continue;
        }
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
    if (n)
        r->last = out[n - 1];
    r->n_sorted += (uint32_t)n;
    r->complete = n < want || r->n_sorted == r->n;
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

void rank_masked(struct ranking *r, const uint64_t *mask)
{
    uint32_t n = 0;
    for (uint32_t w = 0; w * 64 < r->n; w++)
        for (uint64_t left = mask[w]; left; left &= left - 1) {
            uint32_t id = w * 64 + (uint32_t)__builtin_ctzll(left);
            if (r->row[id] > -INFINITY)
                r->keys[n++] = key_of(r->row[id], id);
        }
    if (n > FIRST_BEST * 4)
        radix_sort(r->keys, r->spare, n);
    else
        sort_keys(r->keys, n);
    if (n)
        r->last = r->keys[n - 1];
    r->n_sorted = n;
    r->complete = true;
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
