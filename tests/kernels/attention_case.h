/* Cases of attention for check.c: keys and values in pages, and softmax in double. */
#ifndef LK_TESTS_KERNELS_ATTENTION_CASE_H
#define LK_TESTS_KERNELS_ATTENTION_CASE_H

#include <math.h>

#include "lab.h"

#define MAX_PAGES 64U

struct attention_case {
    uint32_t n_group, head_dim, page_tokens, begin, end;
    float cap;
    enum dtype type;
};

/* Softmax over all positions at once, in double. */
static inline void attention_reference(const struct attention_args *a, const float *const *kv, double *out)
{
    for (uint32_t h = 0; h < a->n_group; h++) {
        double max = -INFINITY, sum = 0, logits[2048];
        const float *q = a->q + (size_t)h * a->head_dim;
        for (uint32_t t = a->begin; t < a->end; t++) {
            double dot = 0;
            for (uint32_t i = 0; i < a->head_dim; i++)
                dot += (double)q[i] * (double)kv[0][(size_t)t * a->head_dim + i];
            dot *= (double)a->scale;
            logits[t] = a->softcap > 0 ? (double)a->softcap * tanh(dot / (double)a->softcap) : dot;
            max = logits[t] > max ? logits[t] : max;
        }
        for (uint32_t i = 0; i < a->head_dim; i++)
            out[h * a->head_dim + i] = 0;
        for (uint32_t t = a->begin; t < a->end; t++) {
            double p = exp(logits[t] - max);
            sum += p;
            for (uint32_t i = 0; i < a->head_dim; i++)
                out[h * a->head_dim + i] += p * (double)kv[1][(size_t)t * a->head_dim + i];
        }
        for (uint32_t i = 0; i < a->head_dim; i++)
            out[h * a->head_dim + i] /= sum;
    }
}

/* Fills pages (K block, then V block each) and their plain copies kv[0], kv[1]. */
static inline void make_pages(struct lab *lab, const struct attention_case *c, uint8_t *const *pages,
                              float *const *kv)
{
    size_t value_bytes = c->type == DTYPE_F16 ? 2 : 4;
    for (uint32_t t = 0; t < c->end; t++) {
        for (uint32_t i = 0; i < 2 * c->head_dim; i++) {
            uint32_t which = i / c->head_dim, at = i % c->head_dim;
            float v = 2 * random_float(lab);
            uint16_t half = f32_to_f16(v);
            size_t index = ((size_t)which * c->page_tokens + t % c->page_tokens) * c->head_dim + at;
            memcpy(pages[t / c->page_tokens] + index * value_bytes,
                   c->type == DTYPE_F16 ? (const void *)&half : &v, value_bytes);
            kv[which][(size_t)t * c->head_dim + at] = c->type == DTYPE_F16 ? f16_to_f32(half) : v;
        }
    }
}

#endif
