/* Attention of one token's query heads over one kv head, the definition.
 *
 * Positions are cut at multiples of ATTN_SPLIT. In a split: all logits (dot products in 16 lanes, added as a
 * tree), their maximum, p = exp(logit - maximum), the sum of p (16 lanes by position in the split), and
 * acc = sum of p V, one fused multiply-add a position. Splits are merged in ascending order. So a result
 * depends on q, K, V and (begin, end) alone. arXiv 1805.02867 (online softmax), eq. 3. */
#include <math.h>

#include "attention.h"
#include "kernels_inner.h"
#include "vec_scalar.h"

#define LANES 16U

static float value_at(const struct attention_args *a, size_t offset, uint32_t token, uint32_t i)
{
    const uint8_t *block = attention_rows(a, offset, token);
    if (a->kv_type == DTYPE_F16) {
        uint16_t h;
        memcpy(&h, block + (size_t)i * 2, sizeof h);
        return f16_to_f32(h);
    }
    float f;
    memcpy(&f, block + (size_t)i * 4, sizeof f);
    return f;
}

static float lanes_sum(float s[LANES])
{
    for (uint32_t half = LANES / 2; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; i++)
            s[i] += s[i + half];
    }
    return s[0];
}

static float logit(const struct attention_args *a, const float *q, uint32_t token)
{
    float lanes[LANES] = {0};
    for (uint32_t i = 0; i < a->head_dim; i++)
        lanes[i % LANES] = fmaf(q[i], value_at(a, a->k_offset, token, i), lanes[i % LANES]);
    float x = a->scale * lanes_sum(lanes);
    return a->softcap > 0 ? softcap_scalar(x, a->softcap) : x;
}

/* Logits of the split to probabilities, not yet divided by their sum. */
static void soften(float *p, uint32_t n, struct attention_split *s)
{
    float lanes[LANES] = {0};
    s->max = p[0];
    for (uint32_t i = 1; i < n; i++)
        s->max = p[i] > s->max ? p[i] : s->max;
    for (uint32_t i = 0; i < n; i++) {
        p[i] = exp_scalar(p[i] - s->max);
        lanes[i % LANES] += p[i];
    }
    s->sum = lanes_sum(lanes);
}

static void attend_head(const struct attention_args *a, uint32_t head)
{
    const float *q = a->q + (size_t)head * a->head_dim;
    float *out = a->out + (size_t)head * a->head_dim;
    float *p = a->scratch, *acc = a->scratch + ATTN_SPLIT;
    struct attention_split total = {0};
    for (uint32_t from = a->begin; from < a->end;) {
        uint32_t to = attention_split_end(a, from);
        struct attention_split s;
        for (uint32_t t = from; t < to; t++)
            p[t - from] = logit(a, q, t);
        soften(p, to - from, &s);
        for (uint32_t i = 0; i < a->head_dim; i++) {
            acc[i] = 0;
            for (uint32_t t = from; t < to; t++)
                acc[i] = fmaf(p[t - from], value_at(a, a->v_offset, t, i), acc[i]);
        }
        attention_merge(&total, &s, from == a->begin, out, acc, a->head_dim);
        from = to;
    }
    for (uint32_t i = 0; i < a->head_dim; i++)
        out[i] = a->begin < a->end ? out[i] / total.sum : 0;
}

void attention_scalar(const struct attention_args *a)
{
    require(a->kv_type == DTYPE_F32 || a->kv_type == DTYPE_F16);
    for (uint32_t head = 0; head < a->n_group; head++)
        attend_head(a, head);
}
