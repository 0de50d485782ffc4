/* What the scheduler sees of the sequences and of those that wait, in the order that fairness gives them, and
 * who among them is overdue. */
#include <string.h>

#include "base/clock.h"
#include "engine_inner.h"

/* A caller's word orders its own alone: fairness.h has done that when they were chosen. */
static int32_t priority_of(const struct generation *g)
{
    return g->caller.number ? 0 : g->priority;
}

/* Those that are overdue, and would take others' places, go last, whoever waited longest before the others.
 */
static uint32_t turn_of_overdue(int64_t waited_ns)
{
    int64_t ms = waited_ns / NS_PER_MS;
    return UINT32_MAX - (uint32_t)(ms < UINT32_MAX ? ms : UINT32_MAX - 1);
}

/* What runs has had a token since it began or went on, and some time; or the bound itself. */
static bool is_turn_over(const struct engine *e, const struct sequence *q, int64_t now_ns)
{
    int64_t ran_ns = now_ns - q->resumed_ns;
    return ran_ns >= e->wait_bound_ns ||
           (ran_ns >= e->wait_bound_ns / FAIR_TURNS && q->n_generated > q->n_at_resume);
}

static bool is_overdue(const struct engine *e, const struct sequence *q, int64_t now_ns)
{
    return q->state == SEQUENCE_PAUSED && now_ns - q->paused_ns >= e->wait_bound_ns;
}

/* All but what its caller's share of the pages says of it. */
static struct schedule_entry entry_of_sequence(struct engine *e, uint32_t index, bool has_slot,
                                               int64_t now_ns)
{
    struct sequence *q = &e->sequences[index];
    const struct generation *g = &q->submission->g;
    bool runs = q->state == SEQUENCE_RUNNING, over = is_turn_over(e, q, now_ns);
    bool yields = runs && over && q->n_yields < FAIR_YIELDS_MAX;
    q->keeps |= is_overdue(e, q, now_ns);
    q->has_turn &= !over;
    struct schedule_entry entry = {
        .state = runs ? SCHEDULE_RUNNING : SCHEDULE_PAUSED,
        .priority = runs && q->has_turn ? INT32_MIN : priority_of(g),
        .overdue = is_overdue(e, q, now_ns),
        .aside = q->aside,
        .caller = g->caller.number,
        .weight = g->caller.weight,
        .voice = g->lora,
        .n_need = fair_pages_of(g),
        .yields = yields,
        .yields_to_own = yields && now_ns - q->resumed_ns >= e->wait_bound_ns,
        .batch = g->caller.batch,
        .arrival = q->submission->id,
        .n_known = sequence_n_known(q),
        .n_computed = q->n_computed,
        .n_pages = q->n_pages,
        .pages = q->pages,
        .logits_from = sequence_logits_from(q),
        .index = index,
        .hold = runs && engine_prefix_holds(e, q),
    };
    if (entry.overdue && q->aside && !has_slot) {
        entry.priority = INT32_MAX;
        entry.turn = turn_of_overdue(now_ns - q->paused_ns);
    }
    if (!runs) {
        const struct prefix_want want = engine_prefix_want(q);
        entry.n_pages = engine_prefix_find(e, &want, q->pages, 0);
        entry.n_computed = entry.n_pages * KV_PAGE_TOKENS;
    }
    return entry;
}

/* One more in the plan, if its caller has room among its pages. */
static bool choose(struct engine *e, uint32_t place, bool late, int64_t overdue_ns)
{
    const struct generation *g = &e->waiting[place]->g;
    uint32_t n_lacks = overdue_ns ? fair_take_overdue(&e->fair, g, place, e->n_pages) : 0;
    if (!overdue_ns && !fair_take(&e->fair, g, place, e->n_pages))
        return false;
    bool due = fair_is_due(&e->fair, g, e->n_pages);
    require(e->n_chosen < CHOSEN_MAX);
    e->chosen[e->n_chosen++] = (struct chosen){place, late, due, overdue_ns, n_lacks};
    return true;
}

/* The first n (or fewer) of those that wait, in the order of service; where callers are told apart, in
 * theirs, and perhaps one more that pages are due to: those before it may lack them. And where others may
 * yield to them, the voices that are overdue otherwise: not only as many as yield, for not all yield to all.
 */
static void choose_waiting(struct engine *e, uint32_t n, bool others_yield, int64_t now_ns)
{
    uint32_t next;
    int64_t waited_ns;
    bool late, due = !e->fair.any_share;
    n = smaller(n, e->n_waiting);
    for (uint32_t i = 0; i < n; i++)
        e->chosen[i] = (struct chosen){.place = i};
    e->n_chosen = n;
    if ((n == 0 && !others_yield) || !fair_plan(&e->fair, now_ns) || (n == 0 && !e->fair.late))
        return;
    e->n_chosen = 0;
    for (uint32_t i = e->n_waiting; i-- > 0;)
        fair_put(&e->fair, &e->waiting[i]->g, i);
    while (e->n_chosen < n && (next = fair_pick(&e->fair, &late)) != FAIR_NONE)
        if (choose(e, next, late, 0))
            due |= e->chosen[e->n_chosen - 1].due;
    uint32_t n_overdue = e->fair.late && others_yield ? fair_n_overdue(&e->fair) : 0;
    while (n_overdue > 0 && e->n_chosen < STARTS_MAX &&
           (next = fair_pick_overdue(&e->fair, &waited_ns)) != FAIR_NONE) {
        choose(e, next, true, waited_ns);
        n_overdue = e->chosen[e->n_chosen - 1].n_lacks ? fair_n_overdue(&e->fair) : n_overdue - 1;
    }
    while (n > 0 && !due && (next = fair_pick_shared(&e->fair)) != FAIR_NONE) {
        if (!choose(e, next, false, 0))
            continue;
        due = e->chosen[e->n_chosen - 1].due;
        e->n_chosen -= !due; /* above its share: not that one more */
    }
}

/* Of number `k` of those chosen that wait; they follow behind the slots' indices. It doesn't start (`hold`)
 * where one that runs computes what it needs next. */
static struct schedule_entry entry_of_waiting(struct engine *e, uint32_t k)
{
    const struct chosen *c = &e->chosen[k];
    const struct submission *s = e->waiting[c->place];
    const struct generation *g = &s->g;
    uint32_t n_known = generation_computes_all(g) ? g->n_prompt : g->n_prompt - 1;
    bool all = g->pooling == POOLING_MEAN || (g->n_prompt_logprobs >= 0 && g->n_prompt > 1);
    uint32_t from = all ? 0 : n_known - 1;
    uint32_t *pages = e->found_table + (size_t)k * e->pages_of_context;
    const struct prefix_want want = {s, g->prompt, g->n_prompt, from};
    uint32_t n_pages = engine_prefix_find(e, &want, pages, 0);
    uint32_t next = engine_prefix_next(e, &want, pages, n_pages);
    int32_t priority = c->late && !g->caller.number ? INT32_MIN : priority_of(g);
    return (struct schedule_entry){.state = SCHEDULE_WAITING,
                                   .priority = c->overdue_ns ? INT32_MAX : priority,
                                   .turn = c->overdue_ns      ? turn_of_overdue(c->overdue_ns)
                                           : g->caller.number ? k + 1
                                                              : 0,
                                   .overdue = c->late,
                                   .caller = g->caller.number,
                                   .voice = g->lora,
                                   .n_lacks = c->n_lacks,
                                   .due = c->due,
                                   .lent = e->fair.any_share && !c->due && !c->late,
                                   .arrival = s->id,
                                   .n_known = n_known,
                                   .n_computed = n_pages * KV_PAGE_TOKENS,
                                   .n_pages = n_pages,
                                   .pages = pages,
                                   .logits_from = from,
                                   .index = e->n_slots + c->place,
                                   .next = next,
                                   .hold = next && next <= e->n_running_nexts};
}

/* What its caller's share says of an entry whose pages are counted. */
static void judge_share(const struct engine *e, struct schedule_entry *entry)
{
    const struct sequence *q = &e->sequences[entry->index];
    const struct generation *g = &q->submission->g;
    bool has_share = g->caller.kv_share > 0 && g->caller.kv_share < 1;
    bool above = fair_is_lent(&e->fair, g, e->n_pages);
    entry->owns = has_share && !above;
    entry->lent = above && !q->keeps;
    entry->due = has_share && !above && q->state == SEQUENCE_PAUSED;
}

/* Those that have a place are judged by what their callers have in places. Only then pages are reserved for
 * those that are aside and could go on, in the order of service, and each is judged with all before it. */
static void judge_shares(struct engine *e, struct schedule *s, uint32_t n_placed)
{
    for (uint32_t i = 0; i < n_placed; i++)
        judge_share(e, &s->entries[i]);
    schedule_sort(s->entries + n_placed, s->n_entries - n_placed);
    uint32_t n = n_placed;
    for (uint32_t i = n_placed; i < s->n_entries; i++) {
        struct schedule_entry *entry = &s->entries[i];
        const struct generation *g = &e->sequences[entry->index].submission->g;
        entry->n_lacks = fair_lacks(&e->fair, g, e->n_pages);
        if (entry->n_lacks && !entry->overdue)
            continue;
        fair_goes_on(&e->fair, g);
        judge_share(e, entry);
        s->entries[n++] = *entry;
    }
    s->n_entries = n;
}

/* Those that run or are paused; one that is aside only if it could go on: its caller's share of the pages is
 * reserved for it then. */
static void add_sequences(struct engine *e, struct schedule *s, int64_t now_ns)
{
    uint32_t n_aside = 0;
    s->n_slots_free = e->n_sequences;
    for (uint32_t i = 0; i < e->n_slots; i++) {
        const struct sequence *q = &e->sequences[i];
        n_aside += q->state != SEQUENCE_FREE && q->aside;
        if (q->state == SEQUENCE_FREE || q->aside)
            continue;
        s->n_slots_free--;
        s->entries[s->n_entries++] = entry_of_sequence(e, i, true, now_ns);
    }
    s->n_aside_most = e->n_slots - e->n_sequences - n_aside;
    uint32_t n_placed = s->n_entries;
    bool has_slot = s->n_slots_free > 0;
    for (uint32_t i = 0; i < e->n_slots; i++) {
        const struct sequence *q = &e->sequences[i];
        if (q->state != SEQUENCE_FREE && q->aside && (has_slot || is_overdue(e, q, now_ns)))
            s->entries[s->n_entries++] = entry_of_sequence(e, i, has_slot, now_ns);
    }
    judge_shares(e, s, n_placed);
}

/* Those that don't go on after all give back what was reserved. */
static void unreserve(struct engine *e, const struct schedule *s)
{
    for (uint32_t i = 0; i < s->n_entries; i++) {
        const struct schedule_entry *entry = &s->entries[i];
        const struct sequence *q = entry->index < e->n_slots ? &e->sequences[entry->index] : NULL;
        if (q && q->aside && !entry->start)
            fair_ends(&e->fair, &q->submission->g);
    }
}

struct schedule engine_plan(struct engine *e)
{
    engine_prefix_look(e);
    int64_t now_ns = clock_now_ns();
    uint32_t n_decoding = 0, n_aside = 0;
    bool others_yield = false;
    struct schedule s = {.chunk_tokens = e->chunk_tokens,
                         .score_rows = e->score_rows,
                         .page_tokens = KV_PAGE_TOKENS,
                         .n_pages_free = prefix_cache_n_free(e->prefix) + engine_shadow_pages(e),
                         .users = e->users,
                         .entries = e->entries};
    memcpy(e->users, prefix_cache_users(e->prefix), e->n_pages * sizeof *e->users);
    add_sequences(e, &s, now_ns);
    for (uint32_t i = 0; i < s.n_entries; i++) {
        n_decoding += s.entries[i].n_known - s.entries[i].n_computed == 1;
        n_aside += s.entries[i].aside && s.entries[i].n_lacks == 0;
        others_yield |= s.entries[i].yields && s.n_aside_most > 0;
    }
    s.step_tokens = smaller(n_decoding + e->prompt_tokens, e->step_tokens);
    uint32_t n = s.n_slots_free - smaller(n_aside, s.n_slots_free); /* those go first */
    choose_waiting(e, smaller(n, STARTS_MAX), others_yield, now_ns);
    for (uint32_t k = 0; k < e->n_chosen; k++) {
        s.entries[s.n_entries] = entry_of_waiting(e, k);
        s.n_entries += !s.entries[s.n_entries].hold;
    }
    schedule_plan(&s);
    unreserve(e, &s);
    return s;
}
