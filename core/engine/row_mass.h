/* The mass of a row of logits, which makes weights probabilities: the sum of exp((logit - top) * factor), top
 * being the largest. It is added up from the sums of the row's peaks (kernels.h), so that no logit is read
 * again where those came with the step. Pure. Thread: any. */
#ifndef LK_ENGINE_ROW_MASS_H
#define LK_ENGINE_ROW_MASS_H

#include <stdint.h>

#include "kernels.h"

struct logits {
    const float *row;   /* [n] */
    const float *peaks; /* largest of each PEAK_VALUES of row (kernels.h), or NULL: not known; they only save
                           work */
    const double *sums; /* peak_sums of row and peaks, or NULL: not known, likewise */
    uint32_t n;
};

/* The mass; x->sums are of this factor, or NULL: then they are made by `k`, and the mass is the same. It is
 * right to about 1e-7 of what the others add to the best one's 1. Below 1, or no number: the row has what is
 * no number (NaN, plus infinity), or nothing that is. */
double row_mass(const struct logits *x, float top, float factor, const struct kernels *k);

#endif
