/* Followers: a sequence's tokens once more with another adapter, to see what that would have said. They are
 * guests. The schedule is made as if they were not there: it counts their pages as free, and where it hands
 * those out the youngest followers go. What a step's token budget has left over they share in the order of
 * service. So a follower may begin late and catch up; a token is compared only when the follower has reached
 * the sequence in the very step that the token is sampled in. */
#include "engine_inner.h"

void engine_shadow_begin(struct engine *e, struct sequence *q)
{
    const struct generation *g = &q->submission->g;
    uint32_t n_active = 0;
    if (!g->shadow_lora || g->max_tokens == 0)
        return;
    for (uint32_t i = 0; i < e->n_slots; i++)
        n_active += e->sequences[i].follower.active;
    if (n_active < SHADOWS_MAX && !q->submission->shadow_refused)
        q->follower.active = true;
    else
        engine_shadow_end(e, q, true);
}

void engine_shadow_end(struct engine *e, struct sequence *q, bool drop)
{
    struct follower *f = &q->follower;
    for (uint32_t i = 0; i < f->n_pages; i++)
        prefix_page_release(e->prefix, f->pages[i]);
    f->n_pages = f->n_computed = 0;
    f->active = false;
    if (drop) {
        f->score.dropped = true;
        counter_add(&e->counters.n_shadow_drops, 1);
    }
}

uint32_t engine_shadow_pages(const struct engine *e)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < e->n_slots; i++)
        n += e->sequences[i].follower.n_pages;
    return n;
}

void engine_shadow_make_room(struct engine *e, uint32_t n_pages)
{
    while (prefix_cache_n_free(e->prefix) < n_pages) {
        struct sequence *youngest = NULL;
        for (uint32_t i = 0; i < e->n_slots; i++) {
            struct sequence *q = &e->sequences[i];
            if (q->follower.n_pages && (!youngest || q->submission->id > youngest->submission->id))
                youngest = q;
        }
        require(youngest); /* the schedule hands out no more than there is */
        engine_shadow_end(e, youngest, true);
    }
}

/* Pages for positions below n_tokens; false when there are none left. */
static bool take_pages(struct engine *e, struct follower *f, uint32_t n_tokens)
{
    while (f->n_pages * KV_PAGE_TOKENS < n_tokens) {
        if (!prefix_page_acquire(e->prefix, &f->pages[f->n_pages]))
            return false;
        f->n_pages++;
    }
    return true;
}

/* The row that the sequence samples from in this step, or NULL. */
static struct row *sampled_row(struct engine *e, const struct sequence *q)
{
    for (uint32_t i = 0; i < e->n_rows; i++)
        if (e->rows[i].sequence == q && e->rows[i].scored < 0)
            return &e->rows[i];
    return NULL;
}

/* Puts n tokens of q's follower behind the batch; `r`: the row that its last one is compared with, or NULL.
 */
static void add_tokens(struct engine *e, struct sequence *q, uint32_t n, const struct row *r)
{
    struct follower *f = &q->follower;
    const struct generation *g = &q->submission->g;
    uint32_t at = e->n_batch + e->n_followers++;
    e->batch_owner[at] = q;
    e->batch[at] = (struct batch_seq){.lora = g->shadow_lora,
                                      .tokens = q->tokens + f->n_computed,
                                      .n_tokens = n,
                                      .position = f->n_computed,
                                      .pages = f->pages,
                                      .n_prompt = g->n_prompt,
                                      .n_known = q->n_tokens,
                                      .logits_begin = r ? n - 1 : n,
                                      .lora_begin = q->submission->shadow_begin};
}

void engine_shadow_add(struct engine *e, uint32_t n_tokens)
{
    uint32_t n_rows = e->n_rows, n_left = n_tokens;
    for (uint32_t i = 0; i < e->n_batch; i++) {
        struct sequence *q = e->batch_owner[i];
        struct follower *f = &q->follower;
        uint32_t reached = q->n_computed + e->batch[i].n_tokens;
        uint32_t n = f->active ? smaller(smaller(reached - f->n_computed, n_left), e->chunk_tokens) : 0;
        if (n == 0)
            continue;
        if (!take_pages(e, f, f->n_computed + n)) {
            engine_shadow_end(e, q, true);
            continue;
        }
        struct row *r = f->n_computed + n == reached ? sampled_row(e, q) : NULL;
        if (r)
            r->shadow = n_rows++;
        add_tokens(e, q, n, r);
        n_left -= n;
    }
    counter_add(&e->counters.n_shadow_rows, n_tokens - n_left);
}

void engine_shadow_score(const struct row *r, const float *row, const float *shadow,
                         const struct sampler_scratch *scratch)
{
    struct shadow_score *s = &r->sequence->follower.score;
    uint32_t n = scratch->n_vocab;
    if (!row_is_finite(shadow, n)) {
        s->n_failed++;
        return;
    }
    if (r->token < 0 || !row_is_finite(row, n))
        return;
    uint32_t best = scratch->argmax(shadow, n);
    s->n_tokens++;
    s->n_agree += best == scratch->argmax(row, n);
    s->n_served += best == (uint32_t)r->token;
    s->kl_sum += logprobs_kl(row, shadow, n);
}
