/* The candidates of one row of logits, best first: by falling logit, equals by rising id. -INFINITY and NaN
 * are no candidates. Memory is the caller's. Thread: any, one at a time. */
#ifndef LK_ENGINE_RANKING_H
#define LK_ENGINE_RANKING_H

#include <stdbool.h>
#include <stdint.h>

struct ranking {
    const float *row;       /* [n] */
    const float *peaks;     /* largest of each PEAK_VALUES of row (kernels.h), or NULL: not known */
    uint64_t *keys, *spare; /* [n] each */
    uint32_t n, n_sorted;
    uint64_t last; /* the worst of the sorted ones: all others are behind it */
    bool complete; /* there are no others */
};

/* Sorts at least the next `want` best behind those already sorted. */
void rank_more(struct ranking *r, uint32_t want);
/* Candidate i, or false when there are not so many. */
bool rank_get(struct ranking *r, uint32_t i, float *logit, int32_t *id);
/* Makes a known best candidate (the argmax) the first, without a search; nothing was sorted before. */
void rank_only(struct ranking *r, uint32_t id);
/* Makes the tokens of a mask (bit i % 64 of word i / 64) the only candidates, all sorted; few of them,
 * nothing was sorted before. */
void rank_masked(struct ranking *r, const uint64_t *mask);
/* Moves the first n of the sorted candidates [begin, end), which are equals, behind the others of these. */
void rank_move_back(struct ranking *r, uint32_t begin, uint32_t end, uint32_t n);
float key_logit(uint64_t key);

#endif
