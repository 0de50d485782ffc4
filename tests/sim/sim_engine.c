/* The engine: the real scheduler decides, real KV pages are shared and released; the model is fake. What a
 * position's KV holds is a number that stands for all that it was computed from: base, adapter's content and
 * scale, tenant's salt, the tokens up to there. A page that another key computed shows at once. */
#include <string.h>

#include "scheduler.h"
#include "sim.h"

static uint64_t *slot(struct world *w, uint32_t page, uint32_t position)
{
    size_t at = kv_k_offset(kv_cache_shape(w->kv), 0, 0) + position % KV_PAGE_TOKENS * sizeof(uint64_t);
    return (uint64_t *)(void *)(kv_page_data(w->kv, page) + at);
}

static void add_token(struct request *r, uint8_t token)
{
    uint64_t key = sim_mix(r->tenant, r->lora ? r->lora->n_parameters : 0);
    r->tokens[r->n_known] = token;
    r->marks[r->n_known] = sim_mix(r->n_known ? r->marks[r->n_known - 1] : key, token + 1U) | 1;
    r->n_known++;
}

void engine_submit_request(struct world *w, struct request *r)
{
    r->lora = r->version ? lora_acquire(r->version->lora) : NULL; /* as engine_submit does */
    uint32_t n = 1 + (uint32_t)sim_below(w, sim_chance(w, 60) ? 90 : 20);
    uint64_t text = sim_below(w, 3); /* few texts, so that many begin alike */
    r->n_known = r->n_computed = r->n_pages = 0;
    for (uint32_t i = 0; i < n; i++)
        add_token(r, (uint8_t)(i + 6 < n || i < 3 ? sim_mix(text, i) : sim_random(w)));
    r->n_prompt = n;
    r->n_max = n + 1 + (uint32_t)sim_below(w, 20);
    r->fails_at = sim_chance(w, 3) ? n + (uint32_t)sim_below(w, 5) : 0;
    r->in_engine = true;
    r->running = r->started = r->cancel = false;
}

static void put_event(struct world *w, const struct request *r, enum event_type type, uint64_t content)
{
    CHECK(w, w->events_in - w->events_out < EVENTS_MAX, "too many events");
    w->events[w->events_in++ % EVENTS_MAX] = (struct sim_event){
        .request = (uint32_t)(r - w->requests), .arrival = r->arrival, .type = type, .content = content};
}

static void release_pages(struct world *w, struct request *r)
{
    while (r->n_pages)
        kv_page_release(w->kv, r->pages[--r->n_pages]);
    r->n_computed = 0;
}

static void finish(struct world *w, struct request *r, enum event_type how)
{
    release_pages(w, r);
    lora_release(r->lora);
    r->lora = NULL;
    r->in_engine = false;
    put_event(w, r, how, 0);
}

/* ---- the prefix cache: whole pages, by what they hold */

static struct cached_page *oldest_unused(struct world *w)
{
    struct cached_page *oldest = NULL;
    for (struct cached_page *c = w->cache; c < w->cache + CACHE_MAX; c++)
        if (c->mark && kv_page_refs(w->kv, c->page) == 1 && (!oldest || c->used < oldest->used))
            oldest = c;
    return oldest;
}

static void forget(struct world *w, struct cached_page *c)
{
    kv_page_release(w->kv, c->page);
    c->mark = 0;
}

void engine_flush_cache(struct world *w)
{
    for (struct cached_page *c = w->cache; c < w->cache + CACHE_MAX; c++)
        if (c->mark)
            forget(w, c);
}

static uint32_t pages_free(struct world *w)
{
    uint32_t n = kv_cache_n_free(w->kv);
    for (struct cached_page *c = w->cache; c < w->cache + CACHE_MAX; c++)
        n += c->mark && kv_page_refs(w->kv, c->page) == 1;
    return n;
}

static bool take_page(struct world *w, uint32_t *page)
{
    if (kv_page_acquire(w->kv, page))
        return true;
    struct cached_page *c = oldest_unused(w);
    if (!c)
        return false;
    forget(w, c);
    return kv_page_acquire(w->kv, page);
}

static struct cached_page *find_cached(struct world *w, uint64_t mark)
{
    for (struct cached_page *c = w->cache; c < w->cache + CACHE_MAX; c++)
        if (c->mark == mark)
            return c;
    return NULL;
}

/* A page has been filled: others may have it. */
static void offer(struct world *w, const struct request *r, uint32_t index)
{
    uint64_t mark = r->marks[(index + 1) * KV_PAGE_TOKENS - 1];
    struct cached_page *c = find_cached(w, mark);
    if (c) {
        c->used = ++w->cache_clock;
        return;
    }
    c = find_cached(w, 0);
    if (!c && (c = oldest_unused(w)) != NULL)
        forget(w, c);
    if (!c)
        return;
    *c = (struct cached_page){.mark = mark, .page = r->pages[index], .used = ++w->cache_clock};
    kv_page_share(w->kv, c->page);
}

/* The last known token is computed all the same: its logits are needed. */
static void share_prefix(struct world *w, struct request *r)
{
    while (r->n_pages < PAGES_MAX && (r->n_pages + 1) * KV_PAGE_TOKENS < r->n_known) {
        struct cached_page *c = find_cached(w, r->marks[(r->n_pages + 1) * KV_PAGE_TOKENS - 1]);
        if (!c)
            return;
        kv_page_share(w->kv, c->page);
        c->used = ++w->cache_clock;
        r->pages[r->n_pages++] = c->page;
        r->n_computed = r->n_pages * KV_PAGE_TOKENS;
        w->n_shared_pages++;
    }
}

/* ---- a step */

static void check_context(struct world *w, const struct request *r)
{
    for (uint32_t i = 0; i < r->n_computed; i++)
        CHECK(w, *slot(w, r->pages[i / KV_PAGE_TOKENS], i) == r->marks[i],
              "request %llu attends at position %u to what another key computed",
              (unsigned long long)r->arrival, i);
}

static bool compute_position(struct world *w, struct request *r)
{
    uint32_t at = r->n_computed, index = at / KV_PAGE_TOKENS;
    CHECK(w, index < PAGES_MAX, "a sequence outgrows its pages");
    if (index == r->n_pages) {
        if (!take_page(w, &r->pages[index]))
            return false;
        r->n_pages++;
    }
    CHECK(w, kv_page_refs(w->kv, r->pages[index]) == 1, "a shared page is written");
    *slot(w, r->pages[index], at) = r->marks[at];
    r->n_computed++;
    if (r->n_computed % KV_PAGE_TOKENS == 0)
        offer(w, r, index);
    return true;
}

static void compute(struct world *w, struct request *r, uint32_t n_tokens)
{
    uint32_t end = r->n_computed + n_tokens < r->n_known ? r->n_computed + n_tokens : r->n_known;
    check_context(w, r);
    while (r->n_computed < end)
        if (!compute_position(w, r))
            return;
    if (r->n_computed < r->n_known)
        return;
    if (r->fails_at && r->n_known >= r->fails_at) {
        finish(w, r, SIM_FAILED);
        return;
    }
    uint64_t content = r->lora ? r->lora->n_parameters : 0;
    put_event(w, r, SIM_TOKEN, content);
    if (r->n_known + 1 >= r->n_max)
        finish(w, r, SIM_DONE);
    else
        add_token(r, (uint8_t)sim_mix(r->marks[r->n_known - 1], content));
}

static void apply(struct world *w, const struct schedule_entry *e)
{
    struct request *r = &w->requests[e->index];
    if (e->pause) {
        CHECK(w, r->running && !e->n_tokens, "a pause that is none");
        release_pages(w, r);
        r->running = false;
        w->n_paused++;
    }
    if (e->start) {
        CHECK(w, !r->running && r->n_pages == 0, "a start that is none");
        r->running = r->started = true;
        share_prefix(w, r);
    }
    if (e->n_tokens) {
        CHECK(w, r->running, "who doesn't run gets tokens");
        compute(w, r, e->n_tokens);
    }
}

void engine_step(struct world *w)
{
    struct schedule_entry entries[REQUESTS_MAX];
    struct schedule s = {.step_tokens = 24,
                         .chunk_tokens = 16,
                         .page_tokens = KV_PAGE_TOKENS,
                         .n_slots_free = w->n_slots,
                         .entries = entries};
    for (uint32_t i = 0; i < REQUESTS_MAX; i++) {
        struct request *r = &w->requests[i];
        if (r->in_engine && r->cancel)
            finish(w, r, SIM_CANCELLED);
        if (!r->in_engine)
            continue;
        s.n_slots_free -= r->started;
        entries[s.n_entries++] = (struct schedule_entry){.state = r->running   ? SCHEDULE_RUNNING
                                                                  : r->started ? SCHEDULE_PAUSED
                                                                               : SCHEDULE_WAITING,
                                                         .arrival = r->arrival,
                                                         .n_known = r->n_known,
                                                         .n_computed = r->n_computed,
                                                         .n_pages = r->n_pages,
                                                         .logits_from = r->n_known - 1,
                                                         .index = i};
    }
    s.n_pages_free = pages_free(w);
    schedule_plan(&s);
    for (uint32_t i = 0; i < s.n_entries; i++) /* pauses first: others have their pages */
        if (s.entries[i].pause)
            apply(w, &s.entries[i]);
    for (uint32_t i = 0; i < s.n_entries; i++)
        if (!s.entries[i].pause)
            apply(w, &s.entries[i]);
    uint32_t n_started = 0;
    for (const struct request *r = w->requests; r < w->requests + REQUESTS_MAX; r++)
        n_started += r->in_engine && r->started;
    CHECK(w, n_started <= w->n_slots, "%u sequences in %u slots", n_started, w->n_slots);
}

void engine_drop_everything(struct world *w)
{
    for (struct request *r = w->requests; r < w->requests + REQUESTS_MAX; r++) {
        if (r->in_engine) {
            release_pages(w, r);
            lora_release(r->lora);
        }
        *r = (struct request){0};
    }
    engine_flush_cache(w);
    w->events_out = w->events_in;
}
