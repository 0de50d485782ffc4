/* The candidates of one row of logits, best first: by falling logit, equals by rising id. -INFINITY and NaN
 * are no candidates, nor is who isn't in the mask; the row stays as it is. Memory is the caller's. Thread:
 * any, one at a time. */
#ifndef LK_ENGINE_RANKING_H
#define LK_ENGINE_RANKING_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels.h"

struct ranking {
    const float *row;     /* [n] */
    const float *peaks;   /* largest of each PEAK_VALUES of row (kernels.h), masked or not; NULL: not known */
    const uint64_t *mask; /* bit i % 64 of word i / 64: i may be taken; bits from n on are 0; NULL: all */
    uint32_t n_masked;    /* bits in the mask */
    uint64_t *keys, *spare; /* [n] each */
    uint32_t n, n_sorted;
    uint64_t last; /* the worst of the sorted ones: all others are behind it */
    bool complete; /* there are no others */
};

/* Of a mask that has less than one of so many, the tokens themselves are looked at, else the row. */
#define FEW_OF_MASK 8U

/* n_masked, which must be there before anything is sorted with a mask. */
void rank_count_mask(struct ranking *r);
/* Sorts at least the next `want` best behind those already sorted. */
void rank_more(struct ranking *r, uint32_t want);
/* Candidate i, or false when there are not so many. */
bool rank_get(struct ranking *r, uint32_t i, float *logit, int32_t *id);
/* Makes a known best candidate (the argmax) the first, without a search; nothing was sorted before. */
void rank_only(struct ranking *r, uint32_t id);
/* The candidate with the largest logit, the lowest id among equals; -1: there is none. Only with a mask. */
int32_t rank_best(const struct ranking *r);
/* The logits of the ids from `begin` (a multiple of PEAK_VALUES) on, PEAK_VALUES of them or what is left of
 * the row; -INFINITY where the mask says no. Either in place or in `own`. NULL: the mask has none of them. */
const float *rank_block(const struct ranking *r, uint32_t begin, float own[PEAK_VALUES]);
static inline uint32_t rank_block_length(const struct ranking *r, uint32_t begin)
{
    return r->n - begin < PEAK_VALUES ? r->n - begin : PEAK_VALUES;
}
/* Moves the first n of the sorted candidates [begin, end), which are equals, behind the others of these. */
void rank_move_back(struct ranking *r, uint32_t begin, uint32_t end, uint32_t n);
float key_logit(uint64_t key);

#endif
