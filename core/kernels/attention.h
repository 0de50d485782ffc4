/* What the attention files share: which positions a row has in a split, and where blocks and parts lie. */
#ifndef LK_KERNELS_ATTENTION_H
#define LK_KERNELS_ATTENTION_H

#include <float.h>
#include <math.h>

#include "kernels.h"
#include "vec_scalar.h"

struct span {
    uint32_t from, to; /* none when from >= to */
};

static inline uint32_t attention_begin(const struct attention_args *a, uint32_t token)
{
    uint32_t end = a->position + token + 1;
    return a->window && end > a->window ? end - a->window : 0;
}

/* A token that attends to nothing of a split has no part of it. */
static inline bool attention_has_part(const struct attention_args *a, uint32_t token, uint32_t split)
{
    return split >= attention_begin(a, token) / ATTN_SPLIT && split <= (a->position + token) / ATTN_SPLIT;
}

/* The positions of a split that a token attends to. */
static inline struct span attention_span(const struct attention_args *a, uint32_t token, uint32_t split)
{
    uint32_t begin = attention_begin(a, token), end = a->position + token + 1, from = split * ATTN_SPLIT;
    if (!attention_has_part(a, token, split))
        return (struct span){0, 0};
    return (struct span){begin > from ? begin : from, end - from < ATTN_SPLIT ? end : from + ATTN_SPLIT};
}

static inline const uint8_t *attention_block(const struct attention_args *a, size_t offset, uint32_t position)
{
    return a->pages[position / a->page_tokens] + offset;
}

/* Values of one line from value i on. */
static inline uint32_t kv_line_values(uint32_t head_dim, uint32_t i)
{
    return head_dim - i < ATTN_LANES ? head_dim - i : ATTN_LANES;
}

/* The scales behind an I8 block. */
static inline const float *kv_scales(const uint8_t *block, uint32_t head_dim, uint32_t page_tokens)
{
    return (const float *)(const void *)(block + (size_t)head_dim * page_tokens);
}

/* Sets the scale of an I8 row from its largest magnitude (NaN if one is NaN): 0 where that is too small to
 * divide by, NaN where it isn't finite. Returns what the values are multiplied with; 0: all of them are 0. */
static inline float kv_put_scale(const struct kv_row *r, float largest)
{
    float scale = largest / 127.0f;
    scale = !(largest <= FLT_MAX) ? NAN : scale >= FLT_MIN ? scale : 0;
    memcpy(r->block + (size_t)r->head_dim * r->page_tokens + r->token * sizeof scale, &scale, sizeof scale);
    return scale > 0 ? 1.0f / scale : 0;
}

#endif
