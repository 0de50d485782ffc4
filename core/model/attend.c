/* Attention in a step: keys and values into their pages, and the rows' walks over them. Owner: the team, in a
 * step. What this file doesn't do: the arithmetic (kernels.h), norms and rotation (forward.c), page
 * accounting. */
#include <string.h>

#include "step.h"

static void store_head(const struct crew *c, uint32_t row, size_t offset, const float *x)
{
    const struct step_space *s = c->s;
    uint32_t head_dim = s->kv.head_dim, slot = s->position[row] % KV_PAGE_TOKENS;
    uint8_t *block = s->row_page[row] + offset;
    if (s->kv.type == DTYPE_F16)
        c->k->to_f16(x, head_dim, (uint16_t *)(void *)block + (size_t)slot * head_dim);
    else
        memcpy((float *)(void *)block + (size_t)slot * head_dim, x, head_dim * sizeof *x);
}

void attend_store(const struct crew *c, struct kv_place at, const float *k, const float *v)
{
    store_head(c, at.row, kv_k_offset(&c->s->kv, at.layer, at.kv_head), k);
    store_head(c, at.row, kv_v_offset(&c->s->kv, at.layer, at.kv_head), v);
}

static void attend_one(const struct crew *c, uint32_t layer, uint32_t row, uint32_t kv_head)
{
    const struct step_space *s = c->s;
    const struct model *m = c->m;
    uint32_t n_group = m->config.n_heads / m->config.n_kv_heads, head_dim = m->config.head_dim;
    uint32_t position = s->position[row], window = m->layers[layer].window;
    size_t at = (size_t)row * m->q_dim + (size_t)kv_head * n_group * head_dim;
    c->k->attention(&(struct attention_args){
        .q = s->q + at,
        .n_group = n_group,
        .head_dim = head_dim,
        .scale = m->layers[layer].attn_scale,
        .softcap = (float)m->config.attn_logit_softcap,
        .pages = s->context[row],
        .page_tokens = KV_PAGE_TOKENS,
        .k_offset = kv_k_offset(&s->kv, layer, kv_head),
        .v_offset = kv_v_offset(&s->kv, layer, kv_head),
        .kv_type = s->kv.type,
        .begin = window && position + 1 > window ? position + 1 - window : 0,
        .end = position + 1,
        .out = s->att + at,
        .scratch = s->attention + c->worker * s->attention_floats,
    });
}

/* Contexts differ in length, so workers take (row, kv head) one by one; who takes which changes nothing. */
void attend(const struct crew *c, uint32_t layer)
{
    uint32_t n_kv_heads = c->m->config.n_kv_heads, n = c->s->n_rows * n_kv_heads, i;
    /* relaxed: only the number matters; the barriers around this phase order the data */
    while ((i = atomic_fetch_add_explicit(&c->s->attend_next[layer], 1, memory_order_relaxed)) < n)
        attend_one(c, layer, i / n_kv_heads, i % n_kv_heads);
}
