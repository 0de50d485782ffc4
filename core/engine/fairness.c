#include "fairness.h"

#include "base/error.h"
#include "base/mem.h"
#include "kv_cache.h"

bool fair_init(struct fair *f, uint32_t n_callers, uint32_t n_places, int64_t bound_ns, uint32_t n_slots)
{
    uint32_t n_buckets = 16;
    while (n_buckets < n_places)
        n_buckets *= 2;
    *f = (struct fair){.callers = mem_array(n_callers, sizeof *f->callers),
                       .waiting = mem_array(n_callers, sizeof *f->waiting),
                       .voices = mem_array(n_places, sizeof *f->voices),
                       .used = mem_array(n_places, sizeof *f->used),
                       .buckets = mem_array(n_buckets, sizeof *f->buckets),
                       .behind = mem_array(n_places, sizeof *f->behind),
                       .taken = mem_array(n_places, sizeof *f->taken),
                       .n_callers = n_callers,
                       .n_places = n_places,
                       .n_buckets = n_buckets,
                       .n_since = FAIR_LATE_EVERY,
                       .n_slots = n_slots,
                       .bound_ns = bound_ns};
    if (!f->callers || !f->waiting || !f->voices || !f->used || !f->buckets || !f->behind || !f->taken)
        return false;
    for (uint32_t i = 0; i < n_buckets; i++)
        f->buckets[i] = FAIR_NONE;
    for (uint32_t i = 0; i < n_places; i++)
        f->voices[i].next = i + 1 < n_places ? i + 1 : FAIR_NONE;
    f->free_voice = n_places ? 0 : FAIR_NONE;
    return true;
}

void fair_fini(struct fair *f)
{
    mem_free(f->callers);
    mem_free(f->waiting);
    mem_free(f->voices);
    mem_free(f->used);
    mem_free(f->buckets);
    mem_free(f->behind);
    mem_free(f->taken);
}

static struct fair_caller *caller_of(const struct fair *f, const struct generation *g)
{
    require(g->caller.number < f->n_callers);
    return &f->callers[g->caller.number];
}

/* What n tokens of this generation cost. */
static double cost(const struct generation *g, double each, uint32_t n)
{
    double weight = g->caller.weight > 0 ? (double)g->caller.weight : 1;
    double factor = g->caller.cost > 0 ? (double)g->caller.cost : 1;
    return each * n * factor / weight;
}

/* Of the KV pages; 1: it has no share of its own. */
static double share_of(const struct generation *g)
{
    return g->caller.kv_share > 0 ? (double)g->caller.kv_share : 1;
}

/* ---- voices ---- */

/* The link that leads to the voice, or where it would be hung in. */
static uint32_t *link_of(const struct fair *f, uint32_t caller, const struct lora *lora)
{
    uint64_t mixed = ((uint64_t)(uintptr_t)lora ^ (uint64_t)caller << 48) * 0x9e3779b97f4a7c15U;
    uint32_t *link = &f->buckets[(mixed >> 32) & (f->n_buckets - 1)];
    while (*link != FAIR_NONE && (f->voices[*link].caller != caller || f->voices[*link].lora != lora))
        link = &f->voices[*link].next;
    return link;
}

static struct fair_voice *voice_of(const struct fair *f, const struct generation *g)
{
    uint32_t i = *link_of(f, g->caller.number, g->lora);
    require(i != FAIR_NONE);
    return &f->voices[i];
}

static void voice_arrives(struct fair *f, const struct generation *g, int64_t now_ns)
{
    uint32_t *link = link_of(f, g->caller.number, g->lora);
    if (*link == FAIR_NONE) {
        uint32_t new = f->free_voice;
        require(new != FAIR_NONE); /* there are as many as places in the queue */
        f->free_voice = f->voices[new].next;
        f->voices[new] = (struct fair_voice){.caller = g->caller.number,
                                             .lora = g->lora,
                                             .served_ns = now_ns,
                                             .first = FAIR_NONE,
                                             .next = FAIR_NONE,
                                             .at = f->n_used};
        f->used[f->n_used++] = new;
        *link = new;
    }
    f->voices[*link].n_waiting++;
}

static void voice_leaves(struct fair *f, const struct generation *g)
{
    uint32_t *link = link_of(f, g->caller.number, g->lora), i = *link;
    require(i != FAIR_NONE && f->voices[i].n_waiting > 0);
    struct fair_voice *v = &f->voices[i];
    if (--v->n_waiting)
        return;
    uint32_t last = f->used[--f->n_used];
    f->used[v->at] = last;
    f->voices[last].at = v->at;
    *link = v->next;
    v->next = f->free_voice;
    f->free_voice = i;
}

/* ---- arrival, start, end ---- */

void fair_arrives(struct fair *f, const struct generation *g, int64_t now_ns)
{
    struct fair_caller *c = caller_of(f, g);
    f->any |= g->caller.number != 0;
    c->batch = g->caller.batch;
    c->share = share_of(g);
    f->any_share |= c->share < 1;
    voice_arrives(f, g, now_ns);
    if (c->n_waiting++)
        return;
    double level = f->n_waiting ? f->callers[f->waiting[0]].counter : f->left;
    for (uint32_t i = 1; i < f->n_waiting; i++) {
        double other = f->callers[f->waiting[i]].counter;
        level = other < level ? other : level;
    }
    c->counter = c->counter > level ? c->counter : level;
    c->served_ns = now_ns;
    f->waiting[f->n_waiting++] = g->caller.number;
}

void fair_leaves(struct fair *f, const struct generation *g)
{
    struct fair_caller *c = caller_of(f, g);
    require(c->n_waiting > 0);
    voice_leaves(f, g);
    if (--c->n_waiting)
        return;
    uint32_t i = 0;
    while (f->waiting[i] != g->caller.number)
        i++;
    f->waiting[i] = f->waiting[--f->n_waiting];
    f->left = c->counter;
}

uint32_t fair_pages_of(const struct generation *g)
{
    uint64_t n = (uint64_t)g->n_prompt + g->max_tokens; /* submission.c has cut it to the context */
    return (uint32_t)((n + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS);
}

int64_t fair_starts(struct fair *f, const struct generation *g, uint32_t place, uint32_t n_tokens,
                    int64_t now_ns)
{
    struct fair_caller *c = caller_of(f, g);
    struct fair_voice *v = voice_of(f, g);
    int64_t waited_ns = now_ns - v->served_ns;
    v->served_ns = now_ns;
    if (f->decides && f->taken[place] == FAIR_TAKEN_LATE)
        f->n_since = 0;
    else if (f->n_since < FAIR_LATE_EVERY) /* more says nothing, and would come round in the end */
        f->n_since++;
    c->counter += cost(g, FAIR_COST_PROMPT, n_tokens);
    c->served_ns = now_ns;
    c->n_pages += fair_pages_of(g);
    fair_leaves(f, g);
    return waited_ns;
}

void fair_ends(struct fair *f, const struct generation *g)
{
    struct fair_caller *c = caller_of(f, g);
    require(c->n_pages >= fair_pages_of(g));
    c->n_pages -= fair_pages_of(g);
}

void fair_goes_on(struct fair *f, const struct generation *g)
{
    caller_of(f, g)->n_pages += fair_pages_of(g);
}

static uint32_t lacks(const struct generation *g, uint32_t has, uint32_t n_pages)
{
    double most = share_of(g) * n_pages;
    uint64_t wants = (uint64_t)has + fair_pages_of(g);
    if (share_of(g) >= 1 || has == 0 || (double)wants <= most)
        return 0;
    uint64_t rest = wants - (uint64_t)most;
    return rest < has ? (uint32_t)rest : has;
}

uint32_t fair_lacks(const struct fair *f, const struct generation *g, uint32_t n_pages)
{
    return lacks(g, caller_of(f, g)->n_pages, n_pages);
}

void fair_generates(struct fair *f, const struct generation *g, uint32_t n_tokens)
{
    caller_of(f, g)->counter += cost(g, FAIR_COST_OUTPUT, n_tokens);
}

/* ---- a plan ---- */

/* Slots become free n_slots a turn when others are paused. So of the voices whose time is over in k turns
 * k * n_slots can wait, and the rest can't. `planned`: of those that the plan starts nothing of and can. */
static uint32_t n_overdue(const struct fair *f, bool planned)
{
    uint64_t n_due[FAIR_TURNS] = {0}, sum = 0, most = 0; /* [k] within k turns, and not fewer */
    int64_t turn_ns = f->bound_ns / FAIR_TURNS + 1;
    for (uint32_t i = 0; i < f->n_used; i++) {
        const struct fair_voice *v = &f->voices[f->used[i]];
        int64_t left_ns = f->bound_ns - (f->now_ns - v->served_ns);
        int64_t k = left_ns <= 0 ? 0 : (left_ns + turn_ns - 1) / turn_ns;
        bool can_be = v->first != FAIR_NONE && !f->callers[v->caller].yields;
        if (k < (int64_t)FAIR_TURNS && (!planned || can_be))
            n_due[k]++;
    }
    for (uint32_t k = 0; k < FAIR_TURNS; k++) {
        sum += n_due[k];
        uint64_t can_wait = (uint64_t)k * f->n_slots, rest = sum > can_wait ? sum - can_wait : 0;
        most = rest > most ? rest : most;
    }
    return (uint32_t)most;
}

bool fair_plan(struct fair *f, int64_t now_ns)
{
    f->now_ns = now_ns;
    f->planned_since = f->n_since;
    for (uint32_t i = 0; i < f->n_waiting; i++) {
        struct fair_caller *c = &f->callers[f->waiting[i]];
        c->planned = 0;
        c->planned_pages = 0;
        c->first = FAIR_NONE;
        c->full = c->yields = false;
    }
    for (uint32_t i = 0; i < f->n_used; i++)
        f->voices[f->used[i]].first = FAIR_NONE;
    f->late = n_overdue(f, false) > 0;
    f->decides = f->any || f->late;
    return f->decides;
}

void fair_put(struct fair *f, const struct generation *g, uint32_t place)
{
    struct fair_caller *c = caller_of(f, g);
    require(place < f->n_places);
    f->behind[place] = c->first;
    f->taken[place] = FAIR_WAITS;
    c->first = place;
    if (f->late)
        voice_of(f, g)->first = place;
}

static bool is_late(const struct fair *f, const struct fair_caller *c)
{
    return f->planned_since + 1 >= FAIR_LATE_EVERY && c->planned <= 0 &&
           f->now_ns - c->served_ns >= f->bound_ns;
}

static bool stands_back(const struct fair *f, const struct fair_caller *c)
{
    return c->batch && f->now_ns - c->served_ns < ENGINE_PATIENCE_NS;
}

/* Who waited beyond the bound, then class, then counter, then who came first. */
static bool is_before(const struct fair *f, const struct fair_caller *a, const struct fair_caller *b)
{
    double x = a->counter + a->planned, y = b->counter + b->planned;
    bool late = is_late(f, a);
    if (late != is_late(f, b))
        return late;
    if (late && a->served_ns != b->served_ns)
        return a->served_ns < b->served_ns;
    if (a->batch != b->batch && stands_back(f, a) != stands_back(f, b))
        return stands_back(f, b);
    if (x < y || x > y)
        return x < y;
    return a->first < b->first;
}

/* Of a caller's voices that waited beyond the bound, the one that did longest; or NULL. */
static struct fair_voice *late_voice(const struct fair *f, uint32_t caller)
{
    struct fair_voice *best = NULL;
    for (uint32_t i = 0; f->late && i < f->n_used; i++) {
        struct fair_voice *v = &f->voices[f->used[i]];
        if (v->caller == caller && v->first != FAIR_NONE && f->now_ns - v->served_ns >= f->bound_ns &&
            (!best || v->served_ns < best->served_ns))
            best = v;
    }
    return best;
}

static uint32_t pick(struct fair *f, bool shared, bool *late)
{
    const struct fair_caller *best = NULL;
    for (uint32_t i = 0; i < f->n_waiting; i++) {
        struct fair_caller *c = &f->callers[f->waiting[i]];
        while (c->first != FAIR_NONE && f->taken[c->first] != FAIR_WAITS)
            c->first = f->behind[c->first];
        if (c->first != FAIR_NONE && !c->full && (!shared || c->share < 1) &&
            (!best || is_before(f, c, best)))
            best = c;
    }
    const struct fair_voice *v = best ? late_voice(f, (uint32_t)(best - f->callers)) : NULL;
    *late = v || (best && is_late(f, best));
    return v ? v->first : best ? best->first : FAIR_NONE;
}

uint32_t fair_pick(struct fair *f, bool *late)
{
    return pick(f, false, late);
}

uint32_t fair_n_overdue(const struct fair *f)
{
    return n_overdue(f, true);
}

uint32_t fair_pick_overdue(const struct fair *f, int64_t *waited_ns)
{
    const struct fair_voice *best = NULL;
    for (uint32_t i = 0; i < f->n_used; i++) {
        const struct fair_voice *v = &f->voices[f->used[i]];
        if (v->first != FAIR_NONE && !f->callers[v->caller].yields &&
            (!best || v->served_ns < best->served_ns))
            best = v;
    }
    *waited_ns = best && f->now_ns > best->served_ns ? f->now_ns - best->served_ns : 1;
    return best ? best->first : FAIR_NONE;
}

uint32_t fair_pick_shared(struct fair *f)
{
    bool late;
    return pick(f, true, &late);
}

static void take(struct fair *f, struct fair_caller *c, const struct generation *g, uint32_t place)
{
    f->taken[place] = is_late(f, c) ? FAIR_TAKEN_LATE : FAIR_TAKEN;
    f->planned_since = is_late(f, c) ? 0 : f->planned_since + 1;
    if (f->late)
        voice_of(f, g)->first = FAIR_NONE;
    c->planned_pages += fair_pages_of(g);
    c->planned += cost(g, FAIR_COST_PROMPT, g->n_prompt);
}

bool fair_take(struct fair *f, const struct generation *g, uint32_t place, uint32_t n_pages)
{
    struct fair_caller *c = caller_of(f, g);
    c->full = lacks(g, c->n_pages + c->planned_pages, n_pages) > 0;
    if (c->full)
        return false;
    take(f, c, g, place);
    return true;
}

uint32_t fair_take_overdue(struct fair *f, const struct generation *g, uint32_t place, uint32_t n_pages)
{
    struct fair_caller *c = caller_of(f, g);
    uint32_t n = lacks(g, c->n_pages + c->planned_pages, n_pages);
    take(f, c, g, place);
    c->full = c->yields = n > 0;
    return n;
}

/* ---- shares of the pages ---- */

bool fair_is_due(const struct fair *f, const struct generation *g, uint32_t n_pages)
{
    const struct fair_caller *c = caller_of(f, g);
    return share_of(g) < 1 && c->n_pages + c->planned_pages <= share_of(g) * n_pages;
}

bool fair_is_lent(const struct fair *f, const struct generation *g, uint32_t n_pages)
{
    double share = share_of(g) < 1 ? share_of(g) : 0;
    return f->any_share && caller_of(f, g)->n_pages > share * n_pages;
}
