/* Sequences and the prefix cache. A sequence's pages are, from its beginning on, in the cache (n_cached_pages
 * of them), then its own. A full page goes into the cache as soon as it's computed, so those that run along
 * find it; and whoever is at a page's border looks whether others have computed what comes next. What is
 * taken is to the bit what would have been computed.
 *
 * A page's key has the adapter only where that acts: what comes before an activated adapter's invocation is
 * the base's, and shared with all. Pages that a merged copy has computed (or that stand behind such) round
 * differently, and nobody else gets them. */
#include <string.h>

#include "engine_inner.h"

static void page_key(const struct engine *e, const struct submission *s, uint32_t n_known, uint32_t index,
                     struct prefix_key *key)
{
    uint32_t from = index * KV_PAGE_TOKENS, to = from + KV_PAGE_TOKENS, begin = s->lora_begin;
    memset(key, 0, sizeof *key);
    memcpy(key->salt, s->g.cache_salt, sizeof key->salt);
    key->lengths = model_length_class(e->model, s->g.n_prompt, n_known);
    key->begin = KV_PAGE_TOKENS;
    if (s->g.lora && begin < to) {
        memcpy(key->adapter, s->g.lora->digest, sizeof key->adapter);
        key->begin = begin > from ? begin - from : 0;
    }
}

uint32_t engine_prefix_find(const struct engine *e, const struct prefix_want *w, uint32_t *pages, uint32_t n)
{
    if (e->prefix_off || w->submission->g.cache_off)
        return n;
    for (; (n + 1) * KV_PAGE_TOKENS <= w->n_most; n++) {
        struct prefix_key key;
        page_key(e, w->submission, w->n_known, n, &key);
        uint32_t parent = n ? pages[n - 1] : PREFIX_ROOT;
        if (!prefix_page_find(e->prefix, parent, &key, w->tokens + (size_t)n * KV_PAGE_TOKENS, &pages[n]))
            break;
    }
    return n;
}

struct prefix_want engine_prefix_want(const struct sequence *q)
{
    return (struct prefix_want){q->submission, q->tokens, q->n_tokens, sequence_logits_from(q)};
}

void engine_prefix_take(struct engine *e, struct sequence *q, uint32_t n)
{
    uint32_t before = q->n_computed, n_prompt = q->submission->g.n_prompt;
    require(q->n_pages == q->n_cached_pages && n >= q->n_pages);
    while (q->n_pages < n)
        prefix_page_use(e->prefix, q->pages[q->n_pages++]);
    q->n_cached_pages = n;
    q->n_computed = n * KV_PAGE_TOKENS;
    uint32_t reached = q->n_computed < n_prompt ? q->n_computed : n_prompt;
    if (reached <= q->n_counted)
        return; /* its own, from before a pause */
    uint32_t from = before > q->n_counted ? before : q->n_counted;
    counter_add(&e->counters.n_prefix_hits, q->n_cached == 0);
    counter_add(&e->counters.n_prefix_tokens, reached - from);
    q->n_cached += reached - from;
    q->n_counted = reached;
}

/* ---- what is being computed: many requests at once often begin alike ---- */

/* The page behind n pages that are in the cache; false if it isn't to be shared, or not filled by n_most. */
static bool next_page(const struct engine *e, const struct prefix_want *w, const uint32_t *pages, uint32_t n,
                      struct prefix_next *out)
{
    if (e->prefix_off || w->submission->g.cache_off || (n + 1) * KV_PAGE_TOKENS > w->n_most)
        return false;
    out->submission = w->submission;
    out->parent = n ? pages[n - 1] : PREFIX_ROOT;
    out->tokens = w->tokens + (size_t)n * KV_PAGE_TOKENS;
    page_key(e, w->submission, w->n_known, n, &out->key);
    return true;
}

static bool is_same(const struct prefix_next *a, const struct prefix_next *b)
{
    return a->parent == b->parent && memcmp(a->tokens, b->tokens, KV_PAGE_TOKENS * sizeof *a->tokens) == 0 &&
           memcmp(&a->key, &b->key, sizeof a->key) == 0;
}

void engine_prefix_look(struct engine *e)
{
    e->n_nexts = 0;
    for (uint32_t i = 0; i < e->n_slots; i++) {
        struct sequence *q = &e->sequences[i];
        if (q->state != SEQUENCE_RUNNING || q->keeps_pages)
            continue;
        struct prefix_want want = engine_prefix_want(q);
        uint32_t n = q->n_cached_pages;
        if (q->n_computed == n * KV_PAGE_TOKENS)
            n = engine_prefix_find(e, &want, q->pages, n);
        if (n > q->n_cached_pages)
            engine_prefix_take(e, q, n);
        want.n_most = sequence_n_known(q);
        e->n_nexts += next_page(e, &want, q->pages, n, &e->nexts[e->n_nexts]);
    }
    e->n_running_nexts = e->n_nexts;
}

bool engine_prefix_holds(const struct engine *e, const struct sequence *q)
{
    const struct prefix_want want = engine_prefix_want(q);
    struct prefix_next mine;
    if (q->keeps_pages || q->n_computed != q->n_cached_pages * KV_PAGE_TOKENS ||
        !next_page(e, &want, q->pages, q->n_cached_pages, &mine))
        return false;
    for (uint32_t i = 0; i < e->n_nexts; i++)
        if (submission_is_before(e->nexts[i].submission, q->submission) && is_same(&e->nexts[i], &mine))
            return true;
    return false;
}

uint32_t engine_prefix_next(struct engine *e, const struct prefix_want *w, const uint32_t *pages, uint32_t n)
{
    struct prefix_next *mine = &e->nexts[e->n_nexts];
    if (!next_page(e, w, pages, n, mine))
        return 0;
    uint32_t i = 0;
    while (i < e->n_nexts && !is_same(&e->nexts[i], mine))
        i++;
    e->n_nexts += i == e->n_nexts;
    return i + 1;
}

void engine_prefix_offer(struct engine *e, struct sequence *q)
{
    if (e->prefix_off || q->submission->g.cache_off || engine_step_is_merged(e))
        q->keeps_pages = true;
    while (!q->keeps_pages && (q->n_cached_pages + 1) * KV_PAGE_TOKENS <= q->n_computed) {
        uint32_t i = q->n_cached_pages++;
        struct prefix_key key;
        page_key(e, q->submission, q->n_tokens, i, &key);
        q->pages[i] = prefix_page_add(e->prefix, i ? q->pages[i - 1] : PREFIX_ROOT, &key,
                                      q->tokens + (size_t)i * KV_PAGE_TOKENS, q->pages[i]);
    }
}
