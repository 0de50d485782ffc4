/* A private reading of prompts: one sequence at a time, by the calling thread alone, beside an engine that
 * goes on with the same weights. */
#include <string.h>

#include "base/mem.h"
#include "effect_inner.h"

enum status effect_pass_init(struct effect_pass *p, const struct model *m, uint32_t n_tokens, uint32_t t_max,
                             struct error *err)
{
    struct kv_shape shape = model_kv_shape(m, model_kv_type(m, "auto"));
    uint32_t n_pages = (n_tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
    *p = (struct effect_pass){.m = m, .n_tokens_max = n_tokens, .team = team_create(1)};
    if (!p->team)
        return fail(err, STATUS_NO_MEMORY, "no memory to read prompts");
    enum status s = kv_cache_create(&shape, n_pages, &p->kv, err);
    if (s == STATUS_OK)
        s = step_space_create(m, &shape, n_tokens, 1, effect_rows(n_tokens), p->team, &p->space, err);
    if (s == STATUS_OK && t_max)
        s = step_reserve_rank(p->space, t_max, err);
    return s;
}

void effect_pass_fini(struct effect_pass *p)
{
    step_space_destroy(p->space);
    kv_cache_destroy(p->kv);
    team_destroy(p->team);
    *p = (struct effect_pass){0};
}

enum status effect_pass_run(struct effect_pass *p, const struct lora *l, const struct effect_probe *prompt,
                            const float **logits, struct error *err)
{
    uint32_t n = prompt->n_tokens, n_pages = (n + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS, n_have = 0;
    uint32_t *pages = mem_array(n_pages, sizeof *pages);
    float *rows;
    require(n > 0 && n <= p->n_tokens_max);
    while (pages && n_have < n_pages && kv_page_acquire(p->kv, &pages[n_have]))
        n_have++;
    if (!pages || n_have < n_pages) {
        mem_free(pages);
        return fail(err, STATUS_NO_MEMORY, "no memory to read a prompt of %u tokens", n);
    }
    struct batch_seq seq = {.lora = l,
                            .tokens = prompt->tokens,
                            .n_tokens = n,
                            .pages = pages,
                            .logits_begin = n - effect_rows(n),
                            .lora_begin = l ? lora_begin(l, prompt->tokens, n) : 0,
                            .n_prompt = n,
                            .n_known = n};
    model_step(p->m, p->space, p->kv, &(struct batch){.seqs = &seq, .n_seqs = 1}, &rows);
    while (n_have)
        kv_page_release(p->kv, pages[--n_have]);
    mem_free(pages);
    *logits = rows;
    return STATUS_OK;
}
