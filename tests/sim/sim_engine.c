/* The engine: the real scheduler and the real fairness decide, real KV pages are shared and released by the
 * real prefix cache; the model is fake. What a position's KV holds is a number that stands for all that it
 * was computed from: base, adapter's content and scale, tenant's salt, the tokens up to there. A page that
 * another key computed shows at once. */
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
    r->running = r->started = r->cancel = r->aside = r->has_turn = false;
    r->n_yields = 0;
    /* Tenant 0 is everybody; of the others one has a share of the pages, and one is a batch tenant. */
    r->g = (struct generation){.n_prompt = r->n_prompt,
                               .max_tokens = r->n_max - r->n_prompt,
                               .lora = r->lora,
                               .caller = {.number = (uint32_t)r->tenant,
                                          .weight = (float)(1 + r->tenant % 2),
                                          .batch = r->tenant % 4 == 3,
                                          .kv_share = r->tenant % 3 == 1 ? 0.5F : 0}};
    fair_arrives(&w->fair, &r->g, w->now_ns);
}

static void leave_fairness(struct world *w, const struct request *r)
{
    if (r->started && !r->aside)
        fair_ends(&w->fair, &r->g);
    else if (!r->started)
        fair_leaves(&w->fair, &r->g);
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
        prefix_page_release(w->prefix, r->pages[--r->n_pages]);
    r->n_computed = 0;
}

static void finish(struct world *w, struct request *r, enum event_type how)
{
    release_pages(w, r);
    leave_fairness(w, r);
    lora_release(r->lora);
    r->lora = NULL;
    r->in_engine = false;
    put_event(w, r, how, 0);
}

/* ---- the prefix cache: the real one */

void engine_flush_cache(struct world *w)
{
    prefix_cache_clear(w->prefix);
}

static struct prefix_key key_of(const struct request *r)
{
    struct prefix_key key;
    memset(&key, 0, sizeof key);
    memcpy(key.salt, &r->tenant, sizeof r->tenant);
    key.begin = r->lora ? 0 : KV_PAGE_TOKENS;
    if (r->lora)
        memcpy(key.adapter, &r->lora->n_parameters, sizeof r->lora->n_parameters);
    return key;
}

static const int32_t *page_tokens(const struct request *r, uint32_t index, int32_t tokens[KV_PAGE_TOKENS])
{
    for (uint32_t i = 0; i < KV_PAGE_TOKENS; i++)
        tokens[i] = r->tokens[index * KV_PAGE_TOKENS + i];
    return tokens;
}

/* A page has been filled: others may have it. */
static void offer(struct world *w, struct request *r, uint32_t index)
{
    int32_t tokens[KV_PAGE_TOKENS];
    const struct prefix_key key = key_of(r);
    uint32_t parent = index ? r->pages[index - 1] : PREFIX_ROOT;
    r->pages[index] =
        prefix_page_add(w->prefix, parent, &key, page_tokens(r, index, tokens), r->pages[index]);
}

/* What is there for one that doesn't run. The last known token is computed all the same: its logits are
 * needed. */
static uint32_t find_prefix(struct world *w, struct request *r)
{
    int32_t tokens[KV_PAGE_TOKENS];
    const struct prefix_key key = key_of(r);
    uint32_t n = 0;
    while (n < PAGES_MAX && (n + 1) * KV_PAGE_TOKENS < r->n_known &&
           prefix_page_find(w->prefix, n ? r->pages[n - 1] : PREFIX_ROOT, &key, page_tokens(r, n, tokens),
                            &r->pages[n]))
        n++;
    return n;
}

static void share_prefix(struct world *w, struct request *r, uint32_t n)
{
    while (r->n_pages < n)
        prefix_page_use(w->prefix, r->pages[r->n_pages++]);
    r->n_computed = n * KV_PAGE_TOKENS;
    w->n_shared_pages += n;
}

/* ---- a step */

static void check_context(struct world *w, const struct request *r)
{
    for (uint32_t i = 0; i < r->n_computed; i++)
        CHECK(w, *slot(w, r->pages[i / KV_PAGE_TOKENS], i) == r->marks[i],
              "request %llu attends at position %u to what another key computed",
              (unsigned long long)r->arrival, i);
}

static void compute_position(struct world *w, struct request *r)
{
    uint32_t at = r->n_computed, index = at / KV_PAGE_TOKENS;
    CHECK(w, index < PAGES_MAX, "a sequence outgrows its pages");
    if (index == r->n_pages) {
        CHECK(w, prefix_page_acquire(w->prefix, &r->pages[index]), "the schedule hands out what isn't there");
        r->n_pages++;
    }
    CHECK(w, kv_page_refs(w->kv, r->pages[index]) == 1, "a shared page is written");
    *slot(w, r->pages[index], at) = r->marks[at];
    r->n_computed++;
    if (r->n_computed % KV_PAGE_TOKENS == 0)
        offer(w, r, index);
}

static void compute(struct world *w, struct request *r, uint32_t n_tokens)
{
    uint32_t end = r->n_computed + n_tokens < r->n_known ? r->n_computed + n_tokens : r->n_known;
    check_context(w, r);
    while (r->n_computed < end)
        compute_position(w, r);
    if (r->n_computed < r->n_known)
        return;
    if (r->fails_at && r->n_known >= r->fails_at) {
        finish(w, r, SIM_FAILED);
        return;
    }
    uint64_t content = r->lora ? r->lora->n_parameters : 0;
    put_event(w, r, SIM_TOKEN, content);
    fair_generates(&w->fair, &r->g, 1);
    if (r->n_known + 1 >= r->n_max)
        finish(w, r, SIM_DONE);
    else
        add_token(r, (uint8_t)sim_mix(r->marks[r->n_known - 1], content));
}

static void apply_pause(struct world *w, const struct schedule_entry *e)
{
    struct request *r = &w->requests[e->index];
    CHECK(w, r->running && !e->n_tokens, "a pause that is none");
    release_pages(w, r);
    r->running = false;
    r->aside = e->aside;
    r->paused_ns = w->now_ns;
    r->n_yields += e->aside;
    if (e->aside)
        fair_ends(&w->fair, &r->g);
    CHECK(w, r->n_yields <= FAIR_YIELDS_MAX, "request %u yields too often", e->index);
    w->n_paused++;
    w->n_yields += e->aside;
}

static void apply_start(struct world *w, const struct schedule_entry *e)
{
    struct request *r = &w->requests[e->index];
    CHECK(w, !r->running && r->n_pages == 0, "a start that is none");
    if (!r->started) {
        int64_t gap_ns = fair_starts(&w->fair, &r->g, e->index, r->n_known - r->n_computed, w->now_ns);
        w->voice_wait_max_ns = gap_ns > w->voice_wait_max_ns ? gap_ns : w->voice_wait_max_ns;
        w->n_late += gap_ns >= w->bound_ns;
    }
    r->running = r->started = true;
    r->aside = false;
    r->has_turn = e->overdue;
    r->resumed_ns = w->now_ns;
    r->n_at_resume = r->n_known;
    share_prefix(w, r, e->n_pages);
}

static void apply_tokens(struct world *w, const struct schedule_entry *e)
{
    struct request *r = &w->requests[e->index];
    CHECK(w, r->running, "who doesn't run gets tokens");
    compute(w, r, e->n_tokens);
}

static struct schedule_entry entry_of(struct world *w, uint32_t index)
{
    struct request *r = &w->requests[index];
    uint32_t n_found = r->running ? 0 : find_prefix(w, r);
    struct schedule_entry e = {.state = r->running   ? SCHEDULE_RUNNING
                                        : r->started ? SCHEDULE_PAUSED
                                                     : SCHEDULE_WAITING,
                               .arrival = r->arrival,
                               .n_known = r->n_known,
                               .n_computed = r->running ? r->n_computed : n_found * KV_PAGE_TOKENS,
                               .n_pages = r->running ? r->n_pages : n_found,
                               .pages = r->pages,
                               .logits_from = r->n_known - 1,
                               .index = index};
    int64_t ran_ns = w->now_ns - r->resumed_ns;
    bool over = ran_ns >= w->bound_ns || (ran_ns >= w->bound_ns / FAIR_TURNS && r->n_known > r->n_at_resume);
    r->has_turn &= !over;
    e.priority = r->running && r->has_turn ? INT32_MIN : 0;
    e.aside = r->aside;
    e.overdue = e.state == SCHEDULE_PAUSED && w->now_ns - r->paused_ns >= w->bound_ns;
    e.yields = r->running && over && r->n_yields < FAIR_YIELDS_MAX;
    e.yields_to_own = e.yields && ran_ns >= w->bound_ns;
    e.batch = r->g.caller.batch;
    e.caller = (uint32_t)r->tenant;
    e.weight = r->g.caller.weight;
    e.voice = r->lora;
    e.n_need = fair_pages_of(&r->g);
    return e;
}

/* What its tenant's share says of one whose pages are counted. */
static void judge_share(struct world *w, struct schedule_entry *e)
{
    const struct request *r = &w->requests[e->index];
    bool has_share = r->g.caller.kv_share > 0;
    e->lent = fair_is_lent(&w->fair, &r->g, kv_cache_n_pages(w->kv));
    e->owns = has_share && !e->lent;
    e->due = e->state == SCHEDULE_PAUSED && has_share && !e->lent;
}

/* One that fairness has picked, if it may have the pages. */
static bool add_one(struct world *w, struct schedule *s, uint32_t place, bool late, int64_t overdue_ns)
{
    struct request *r = &w->requests[place];
    uint32_t n_pages = kv_cache_n_pages(w->kv);
    CHECK(w, r->in_engine && !r->started, "who doesn't wait is next");
    uint32_t n_lacks = overdue_ns ? fair_take_overdue(&w->fair, &r->g, place, n_pages) : 0;
    if (!overdue_ns && !fair_take(&w->fair, &r->g, place, n_pages))
        return false;
    struct schedule_entry e = entry_of(w, place);
    e.n_lacks = n_lacks;
    e.turn = overdue_ns ? UINT32_MAX - (uint32_t)(overdue_ns / MS) : s->n_entries + 1;
    e.priority = overdue_ns ? INT32_MAX : 0;
    e.overdue = late;
    e.due = fair_is_due(&w->fair, &r->g, n_pages);
    e.lent = w->fair.any_share && !e.due && !late;
    s->entries[s->n_entries++] = e;
    return true;
}

/* Nobody who waits beyond the bound stands behind one that does for less, or for no time at all. */
static void check_first(struct world *w, uint32_t first, bool is_late)
{
    int64_t oldest_ns = INT64_MAX;
    for (uint32_t i = 0; i < w->fair.n_waiting; i++) {
        const struct fair_caller *c = &w->fair.callers[w->fair.waiting[i]];
        oldest_ns = !c->full && c->served_ns < oldest_ns ? c->served_ns : oldest_ns;
    }
    if (w->fair.n_since + 1 < FAIR_LATE_EVERY || w->now_ns - oldest_ns < w->bound_ns)
        return;
    CHECK(w, is_late && w->fair.callers[w->requests[first].g.caller.number].served_ns <= oldest_ns,
          "request %u is next, another caller waits for %lld ms", first,
          (long long)(w->now_ns - oldest_ns) / MS);
}

/* Those that wait, in the order that fairness gives them: a place of its plan is a request's index. n of
 * them, and where others may yield the voices that are overdue. */
static void add_waiting(struct world *w, struct schedule *s, uint32_t n, bool others_yield)
{
    uint32_t place, first = UINT32_MAX, k = 0;
    bool late, is_first_late = false, due = !w->fair.any_share;
    int64_t waited_ns;
    (void)fair_plan(&w->fair, w->now_ns);
    for (uint32_t i = REQUESTS_MAX; i-- > 0;)
        if (w->requests[i].in_engine && !w->requests[i].started)
            fair_put(&w->fair, &w->requests[i].g, i);
    while (k < n && (place = fair_pick(&w->fair, &late)) != FAIR_NONE) {
        if (!add_one(w, s, place, late, 0))
            continue;
        due |= s->entries[s->n_entries - 1].due;
        is_first_late |= first == UINT32_MAX && late;
        first = first == UINT32_MAX ? place : first;
        k++;
    }
    if (first != UINT32_MAX)
        check_first(w, first, is_first_late);
    uint32_t n_overdue = w->fair.late && others_yield ? fair_n_overdue(&w->fair) : 0;
    while (n_overdue && (place = fair_pick_overdue(&w->fair, &waited_ns)) != FAIR_NONE) {
        (void)add_one(w, s, place, true, waited_ns);
        n_overdue = s->entries[s->n_entries - 1].n_lacks ? fair_n_overdue(&w->fair) : n_overdue - 1;
    }
    while (n && !due && (place = fair_pick_shared(&w->fair)) != FAIR_NONE)
        due = add_one(w, s, place, false, 0) && s->entries[s->n_entries - 1].due;
}

/* Who waits beyond the bound doesn't while others could have made place for it. */
static void check_bound(struct world *w, const struct schedule *s)
{
    uint32_t n_running = 0;
    for (uint32_t i = 0; i < s->n_entries; i++)
        n_running += s->entries[i].state == SCHEDULE_RUNNING;
    if (s->n_pages_free < PAGES_MAX * (n_running + 1))
        return;
    for (uint32_t i = 0; i < s->n_entries; i++)
        for (uint32_t k = 0; s->entries[i].overdue && !s->entries[i].start && k < s->n_entries; k++) {
            const struct schedule_entry *r = &s->entries[k];
            bool could = r->state == SCHEDULE_RUNNING && r->n_tokens && !r->start && r->yields &&
                         !s->entries[i].n_lacks && (s->n_aside_most > 0 || s->entries[i].aside);
            bool own = r->caller == s->entries[i].caller && r->voice == s->entries[i].voice;
            CHECK(w, !could || own, "request %u is overdue, and %u runs on", s->entries[i].index, r->index);
        }
}

/* Nobody's own pages are taken while others' are lent, and what is due isn't blocked by what is lent. */
static void check_pauses(struct world *w, const struct schedule *s)
{
    bool lent_runs = false;
    for (uint32_t i = 0; i < s->n_entries; i++)
        lent_runs |= s->entries[i].state == SCHEDULE_RUNNING && s->entries[i].lent && !s->entries[i].start;
    for (uint32_t i = 0; i < s->n_entries; i++) {
        const struct schedule_entry *e = &s->entries[i];
        w->n_taken_back += e->pause && e->lent && !e->aside;
        CHECK(w, !e->pause || e->lent || e->aside || !lent_runs,
              "a tenant's own pages are taken while others' are lent");
    }
}

/* Those that run or are paused; one that is aside only if it could go on. */
static void add_started(struct world *w, struct schedule *s)
{
    for (struct request *r = w->requests; r < w->requests + REQUESTS_MAX; r++) {
        if (r->in_engine && r->cancel)
            finish(w, r, SIM_CANCELLED);
        s->n_slots_free -= r->in_engine && r->started && !r->aside;
        s->n_aside_most -= r->in_engine && r->aside;
    }
    bool has_slot = s->n_slots_free > 0;
    for (uint32_t i = 0; i < REQUESTS_MAX; i++)
        if (w->requests[i].in_engine && w->requests[i].started && !w->requests[i].aside) {
            s->entries[s->n_entries] = entry_of(w, i);
            judge_share(w, &s->entries[s->n_entries++]);
        }
    uint32_t n_placed = s->n_entries, n = n_placed;
    for (uint32_t i = 0; i < REQUESTS_MAX; i++) {
        const struct request *r = &w->requests[i];
        if (!r->in_engine || !r->aside)
            continue;
        struct schedule_entry e = entry_of(w, i);
        if (!has_slot && !e.overdue)
            continue;
        e.priority = has_slot ? 0 : INT32_MAX;
        e.turn = has_slot ? 0 : UINT32_MAX - (uint32_t)((w->now_ns - r->paused_ns) / MS);
        s->entries[s->n_entries++] = e;
    }
    schedule_sort(s->entries + n_placed, s->n_entries - n_placed);
    for (uint32_t i = n_placed; i < s->n_entries; i++) {
        struct schedule_entry *e = &s->entries[i];
        const struct request *r = &w->requests[e->index];
        e->n_lacks = fair_lacks(&w->fair, &r->g, kv_cache_n_pages(w->kv));
        if (e->n_lacks && !e->overdue)
            continue;
        fair_goes_on(&w->fair, &r->g); /* reserved for the plan */
        judge_share(w, e);
        s->entries[n++] = *e;
    }
    s->n_entries = n;
}

/* What a tenant has running is within its share, or alone. */
static void check_shares(struct world *w)
{
    for (uint32_t tenant = 0; tenant <= TENANTS_MAX; tenant++) {
        uint32_t n = 0, n_need = 0;
        double share = 1;
        for (const struct request *r = w->requests; r < w->requests + REQUESTS_MAX; r++) {
            if (!r->in_engine || !r->started || r->aside || r->tenant != tenant)
                continue;
            n++;
            n_need += fair_pages_of(&r->g);
            share = r->g.caller.kv_share > 0 ? (double)r->g.caller.kv_share : 1;
        }
        CHECK(w, n < 2 || share >= 1 || n_need <= share * kv_cache_n_pages(w->kv),
              "tenant %u may need %u pages of %u", tenant, n_need, kv_cache_n_pages(w->kv));
        CHECK(w, w->fair.callers[tenant].n_pages == n_need, "%u pages of tenant %u are counted, it has %u",
              w->fair.callers[tenant].n_pages, tenant, n_need);
    }
}

void engine_step(struct world *w)
{
    struct schedule_entry entries[REQUESTS_MAX];
    uint32_t users[SIM_PAGES_MAX];
    struct schedule s = {.step_tokens = 24,
                         .chunk_tokens = 16,
                         .page_tokens = KV_PAGE_TOKENS,
                         .n_slots_free = w->n_slots,
                         .users = users,
                         .entries = entries};
    s.n_aside_most = w->n_slots > FAIR_ASIDE_MIN ? w->n_slots : FAIR_ASIDE_MIN;
    add_started(w, &s);
    uint32_t n_aside = 0;
    bool others_yield = false;
    for (uint32_t i = 0; i < s.n_entries; i++) {
        n_aside += entries[i].aside && entries[i].n_lacks == 0;
        others_yield |= entries[i].yields && s.n_aside_most > 0;
    }
    add_waiting(w, &s, s.n_slots_free - (n_aside < s.n_slots_free ? n_aside : s.n_slots_free), others_yield);
    s.n_pages_free = prefix_cache_n_free(w->prefix);
    memcpy(users, prefix_cache_users(w->prefix), kv_cache_n_pages(w->kv) * sizeof *users);
    schedule_plan(&s);
    for (uint32_t i = 0; i < s.n_entries; i++)
        if (w->requests[entries[i].index].aside && !entries[i].start)
            fair_ends(&w->fair, &w->requests[entries[i].index].g);
    check_pauses(w, &s);
    check_bound(w, &s);
    for (uint32_t i = 0; i < s.n_entries; i++) /* pauses first: others have their pages */
        if (s.entries[i].pause)
            apply_pause(w, &s.entries[i]);
    for (uint32_t i = 0; i < s.n_entries; i++) /* then what was found is used, before anyone makes room */
        if (s.entries[i].start)
            apply_start(w, &s.entries[i]);
    uint32_t n_tokens = 0;
    for (uint32_t i = 0; i < s.n_entries; i++) {
        n_tokens += s.entries[i].n_tokens;
        if (s.entries[i].n_tokens)
            apply_tokens(w, &s.entries[i]);
    }
    CHECK(w, n_tokens || s.n_entries == 0, "nobody gets on");
    check_shares(w);
    uint32_t n_started = 0;
    for (const struct request *r = w->requests; r < w->requests + REQUESTS_MAX; r++)
        n_started += r->in_engine && r->started && !r->aside;
    CHECK(w, n_started <= w->n_slots, "%u sequences in %u slots", n_started, w->n_slots);
}

void engine_drop_everything(struct world *w)
{
    for (struct request *r = w->requests; r < w->requests + REQUESTS_MAX; r++) {
        if (r->in_engine) {
            release_pages(w, r);
            leave_fairness(w, r);
            lora_release(r->lora);
        }
        *r = (struct request){0};
    }
    engine_flush_cache(w);
    w->events_out = w->events_in;
}
