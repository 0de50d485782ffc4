/* What the attention files share: where rows lie, where splits end, and how two of them become one. */
#ifndef LK_KERNELS_ATTENTION_H
#define LK_KERNELS_ATTENTION_H

#include <math.h>

#include "kernels.h"
#include "vec_scalar.h"

struct attention_split {
    float max, sum;
};

/* Token's row of head_dim values; offset: k_offset or v_offset. */
static inline const uint8_t *attention_rows(const struct attention_args *a, size_t offset, uint32_t token)
{
    size_t value_bytes = a->kv_type == DTYPE_F16 ? 2 : 4;
    return a->pages[token / a->page_tokens] + offset +
           (size_t)(token % a->page_tokens) * a->head_dim * value_bytes;
}

static inline uint32_t attention_split_end(const struct attention_args *a, uint32_t from)
{
    uint32_t left = ATTN_SPLIT - from % ATTN_SPLIT;
    return a->end - from < left ? a->end : from + left;
}

/* Adds a split's (max, sum, acc) to (total, out). exp(0) is exactly 1, so one side never loses bits. */
static inline void attention_merge(struct attention_split *total, const struct attention_split *s, bool first,
                                   float *out, const float *acc, uint32_t head_dim)
{
    if (first) {
        *total = *s;
        memcpy(out, acc, head_dim * sizeof *out);
        return;
    }
    float max = s->max > total->max ? s->max : total->max;
    float old = exp_scalar(total->max - max), new = exp_scalar(s->max - max);
    total->max = max;
    total->sum = fmaf(s->sum, new, total->sum * old);
    for (uint32_t i = 0; i < head_dim; i++)
        out[i] = fmaf(acc[i], new, out[i] * old);
}

#endif
