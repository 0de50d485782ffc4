/* The states of a generation and its page table. A paused sequence keeps all but its pages: tokens,
 * generator, half a character and held text, so that it goes on as if nothing had happened. */
#include "sequence.h"

#include <math.h>
#include <string.h>

void sequence_begin(struct sequence *q, struct submission *s, const struct text_model *text, int64_t now_ns)
{
    const struct generation *g = &s->g;
    require(q->state == SEQUENCE_FREE && q->n_pages == 0);
    q->submission = s;
    q->state = SEQUENCE_RUNNING;
    memcpy(q->tokens, g->prompt, g->n_prompt * sizeof *q->tokens);
    q->n_tokens = g->n_prompt;
    q->n_generated = q->n_computed = q->n_scored = q->n_counted = 0;
    q->n_merged = q->n_unmerged = q->n_cached = 0;
    q->announced = false;
    q->follower.score = (struct shadow_score){0};
    rng_seed(&q->rng, g->sampling.seed);
    q->mirostat_mu = NAN;
    detokenizer_init(&q->detokenizer, text->tokenizer, g->skip_special_tokens);
    q->detokenizer.kept = g->kept_tokens;
    q->detokenizer.n_kept = g->n_kept_tokens;
    q->hold.n_bytes = 0;
    q->matcher = (struct grammar_matcher){0};
    q->started_ns = now_ns;
    q->first_token_ns = 0;
}

uint32_t sequence_n_known(const struct sequence *q)
{
    return generation_computes_all(&q->submission->g) ? q->n_tokens : q->n_tokens - 1;
}

uint32_t sequence_logits_from(const struct sequence *q)
{
    const struct generation *g = &q->submission->g;
    if (g->pooling == POOLING_MEAN && q->n_scored < g->n_prompt)
        return q->n_scored;
    if (g->n_prompt_logprobs >= 0 && q->n_scored + 1 < g->n_prompt)
        return q->n_scored;
    return sequence_n_known(q) - 1;
}

bool sequence_is_stop_token(const struct sequence *q, int32_t token)
{
    const struct generation *g = &q->submission->g;
    for (uint32_t i = 0; i < g->n_stop_tokens; i++)
        if (g->stop_tokens[i] == token)
            return true;
    return false;
}

bool sequence_breaks(const void *sequence, int32_t token)
{
    const struct sequence *q = sequence;
    const struct sampling *p = &q->submission->g.sampling;
    size_t n;
    const char *piece = tokenizer_piece(q->detokenizer.tokenizer, token, &n);
    for (uint32_t i = 0; piece && i < p->n_dry_breakers; i++)
        if (memmem(piece, n, p->dry_breakers[i], strlen(p->dry_breakers[i])))
            return true;
    return false;
}

void sequence_take_pages(struct sequence *q, struct prefix_cache *cache, uint32_t n_tokens)
{
    uint32_t need = n_tokens / KV_PAGE_TOKENS + (n_tokens % KV_PAGE_TOKENS != 0);
    while (q->n_pages < need) {
        bool acquired = prefix_page_acquire(cache, &q->pages[q->n_pages]);
        require(acquired);
        q->n_pages++;
    }
}

void sequence_give_pages(struct sequence *q, struct prefix_cache *cache)
{
    while (q->n_pages) /* from the last one on, as the cache wants it */
        prefix_page_release(cache, q->pages[--q->n_pages]);
    q->n_cached_pages = q->n_computed = 0;
    q->keeps_pages = false;
}
