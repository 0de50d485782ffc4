/* Continuous batching with chunked prompts, in the order of service: priority, then the turn that a caller
 * has (fairness.h), then arrival.
 *
 *   1  every decoding sequence gets its one token: running streams never wait for a prompt
 *   2  what is left of the token budget goes to prompts in chunks, and starts who waits or was paused
 *
 * KV pages are taken as they are needed; those that only the prefix cache holds count as free. When none is
 * left the youngest running sequence is paused: its pages go back, it will compute again what of its known
 * tokens the cache has lost by then. A paused or waiting one starts only when its known tokens
 * and one more fit beside what the running ones still need, with a page to grow for each of those: otherwise
 * it would be paused again at once. Who can't start blocks those behind it, so nobody is overtaken for ever;
 * a sequence alone always fits (the engine refuses longer ones), so the oldest always moves.
 *
 * Some pages may be due to somebody, whose share they are, and be lent to others meanwhile (the caller says
 * which entries are which). For one that is due those that are lent to are paused, the youngest first, as
 * many as make room for it, or none if all of them don't; it isn't blocked by them, and when pages run out
 * they are the first to be paused.
 *
 * One that is overdue isn't blocked either, and where it finds no place or no pages others yield them: they
 * are paused and put aside, without a place, as many as need be, or none if that isn't enough (who may and
 * who does first: scheduler.h). It comes last among those that start, so it takes nothing from others' turns.
 */
#include "scheduler.h"

#include "base/error.h"

#define NONE UINT32_MAX

static bool is_before(const struct schedule_entry *a, const struct schedule_entry *b)
{
    if (a->priority != b->priority)
        return a->priority < b->priority;
    return a->turn != b->turn ? a->turn < b->turn : a->arrival < b->arrival;
}

/* Shell's sort, with gaps of Gonnet and Baeza-Yates: where many run, they are in no order at all. */
void schedule_sort(struct schedule_entry *entries, uint32_t n)
{
    for (uint32_t gap = n; gap > 1;) {
        gap = gap < 5 ? 1 : (gap * 5 - 1) / 11;
        for (uint32_t i = gap; i < n; i++) {
            struct schedule_entry e = entries[i];
            uint32_t at = i;
            for (; at >= gap && is_before(&e, &entries[at - gap]); at -= gap)
                entries[at] = entries[at - gap];
            entries[at] = e;
        }
    }
}

static uint32_t pages_for(const struct schedule *s, uint32_t n_tokens)
{
    return n_tokens / s->page_tokens + (n_tokens % s->page_tokens != 0);
}

/* Pages that the entry lacks to have n more tokens computed. */
static uint32_t pages_lacking(const struct schedule *s, const struct schedule_entry *e, uint32_t n)
{
    uint32_t need = pages_for(s, e->n_computed + n);
    return need > e->n_pages ? need - e->n_pages : 0;
}

/* Rows of logits beyond the one that every sequence may have. */
static uint32_t rows_scored(const struct schedule_entry *e, uint32_t n)
{
    uint32_t end = e->n_computed + n, from = e->logits_from > e->n_computed ? e->logits_from : e->n_computed;
    uint32_t rows = end > from ? end - from : 0;
    return e->logits_from + 1 < e->n_known ? rows : 0;
}

/* Pages that are free when the entry lets go of them: others may go on using some. */
static uint32_t let_go(const struct schedule *s, const struct schedule_entry *e)
{
    uint32_t n = s->users ? 0 : e->n_pages;
    for (uint32_t i = 0; s->users && i < e->n_pages; i++)
        n += --s->users[e->pages[i]] == 0;
    return n;
}

/* It keeps them after all. */
static void keep_hold(const struct schedule *s, const struct schedule_entry *e)
{
    for (uint32_t i = 0; s->users && i < e->n_pages; i++)
        s->users[e->pages[i]]++;
}

/* One that starts holds those that were found, and how many of them are free now. */
static void take_hold(struct schedule *s, const struct schedule_entry *e)
{
    for (uint32_t i = 0; s->users && i < e->n_pages; i++)
        s->n_pages_free -= s->users[e->pages[i]]++ == 0;
}

static uint32_t pages_resting(const struct schedule *s, const struct schedule_entry *e)
{
    uint32_t n = 0;
    for (uint32_t i = 0; s->users && i < e->n_pages; i++)
        n += s->users[e->pages[i]] == 0;
    return n;
}

/* ---- who runs, by caller and by voice: looked at where somebody must yield, which is rare ---- */

static struct schedule_group *group_of(struct schedule_entry *e, bool by_voice)
{
    return by_voice ? &e->by_voice : &e->by_caller;
}

static bool is_alike(const struct schedule_entry *a, const struct schedule_entry *b, bool by_voice)
{
    return a->caller == b->caller && (!by_voice || a->voice == b->voice);
}

static uint32_t bucket_of(const struct schedule *s, const struct schedule_entry *e, bool by_voice)
{
    uint64_t key = (uint64_t)e->caller << 48 ^ (by_voice ? (uint64_t)(uintptr_t)e->voice : 0);
    return (uint32_t)((key * 0x9e3779b97f4a7c15U >> 32) % s->n_entries);
}

/* Every entry finds the first one that is alike, in a chain that hangs at the entry of its bucket. */
static void group_entries(struct schedule *s, bool by_voice)
{
    for (uint32_t i = 0; i < s->n_entries; i++)
        *group_of(&s->entries[i], by_voice) = (struct schedule_group){.head = NONE, .next = NONE};
    for (uint32_t i = 0; i < s->n_entries; i++) {
        struct schedule_entry *e = &s->entries[i];
        uint32_t *link = &group_of(&s->entries[bucket_of(s, e, by_voice)], by_voice)->head;
        while (*link != NONE && !is_alike(&s->entries[*link], e, by_voice))
            link = &group_of(&s->entries[*link], by_voice)->next;
        *link = *link == NONE ? i : *link;
        group_of(e, by_voice)->first = *link;
        group_of(&s->entries[*link], by_voice)->n_running += e->state == SCHEDULE_RUNNING;
    }
}

static uint32_t *n_running(struct schedule *s, const struct schedule_entry *e, bool by_voice)
{
    uint32_t first = by_voice ? e->by_voice.first : e->by_caller.first;
    return &group_of(&s->entries[first], by_voice)->n_running;
}

/* One more of its like runs, or (by -1) one less. */
static void count_running(struct schedule *s, const struct schedule_entry *e, int by)
{
    if (!s->grouped)
        return;
    *n_running(s, e, false) += (uint32_t)by;
    *n_running(s, e, true) += (uint32_t)by;
}

static float load_of(struct schedule *s, const struct schedule_entry *e)
{
    return (float)*n_running(s, e, false) / (e->weight > 0 ? e->weight : 1);
}

/* a yields before b. */
static bool is_softer(struct schedule *s, const struct schedule_entry *a, const struct schedule_entry *b)
{
    float x = load_of(s, a), y = load_of(s, b);
    uint32_t n = *n_running(s, a, true), m = *n_running(s, b, true);
    if (a->batch != b->batch)
        return a->batch;
    if (x < y || x > y)
        return x > y;
    return n != m ? n > m : a->arrival > b->arrival;
}

/* ---- pauses ---- */

/* What the plan gave it. */
static void take_back(struct schedule *s, struct schedule_entry *e, uint32_t *budget)
{
    s->n_pages_free += pages_lacking(s, e, e->n_tokens);
    s->score_rows += rows_scored(e, e->n_tokens);
    *budget += e->n_tokens;
    e->n_tokens = 0;
}

static void pause_entry(struct schedule *s, struct schedule_entry *e, uint32_t *budget)
{
    require(!e->start); /* pages_to_start left all that run what they may take: none of them makes room now */
    count_running(s, e, -1);
    take_back(s, e, budget);
    s->n_pages_free += let_go(s, e);
    e->n_pages = 0;
    e->pause = true;
    e->state = SCHEDULE_PAUSED;
}

/* Frees pages until `need` are there: of those that are lent to, which are paused for an entry that isn't
 * wherever they stand; then youngest running sequence first. False if that was entry i itself. */
static bool make_room(struct schedule *s, uint32_t i, uint32_t need, uint32_t *budget)
{
    bool lent = s->entries[i].lent;
    for (uint32_t j = s->n_entries; !lent && s->n_pages_free < need && j-- > 0;)
        if (s->entries[j].state == SCHEDULE_RUNNING && s->entries[j].lent)
            pause_entry(s, &s->entries[j], budget);
    for (uint32_t j = s->n_entries; s->n_pages_free < need && j-- > i;) {
        if (s->entries[j].state != SCHEDULE_RUNNING || (lent && !s->entries[j].lent))
            continue;
        pause_entry(s, &s->entries[j], budget);
        if (j == i)
            return false;
    }
    return s->n_pages_free >= need;
}

static void give(struct schedule *s, struct schedule_entry *e, uint32_t n, uint32_t *budget)
{
    s->n_pages_free -= pages_lacking(s, e, n);
    s->score_rows -= rows_scored(e, n);
    *budget -= n;
    e->n_tokens = n;
}

/* The longest chunk that budget and rows of logits allow. */
static uint32_t chunk_of(const struct schedule *s, const struct schedule_entry *e, uint32_t budget)
{
    uint32_t n = e->n_known - e->n_computed;
    n = n < s->chunk_tokens ? n : s->chunk_tokens;
    n = n < budget ? n : budget;
    uint32_t rows = rows_scored(e, n);
    if (rows > s->score_rows)
        n -= rows - s->score_rows;
    return n;
}

static void plan_prompt(struct schedule *s, uint32_t i, uint32_t *budget)
{
    struct schedule_entry *e = &s->entries[i];
    uint32_t n = chunk_of(s, e, *budget);
    if (n == 0 || !make_room(s, i, pages_lacking(s, e, 1), budget))
        return;
    /* A shorter chunk rather than another's pages. */
    uint64_t fits = (uint64_t)(e->n_pages + s->n_pages_free) * s->page_tokens - e->n_computed;
    give(s, e, n < fits ? n : (uint32_t)fits, budget);
}

/* Pages that one that runs may still take from the others. */
static uint32_t pages_ahead(const struct schedule *s, const struct schedule_entry *r)
{
    uint32_t held = r->n_pages + pages_lacking(s, r, r->n_tokens), all = pages_for(s, r->n_known + 1);
    return 1 + (all > held ? all - held : 0);
}

/* Pages that a waiting or paused entry needs free to start beside those that run. */
static uint64_t pages_to_start(const struct schedule *s, const struct schedule_entry *e)
{
    uint64_t need = pages_for(s, e->n_known + 1) - e->n_pages + pages_resting(s, e);
    for (uint32_t i = 0; i < s->n_entries; i++)
        if (s->entries[i].state == SCHEDULE_RUNNING)
            need += pages_ahead(s, &s->entries[i]);
    return need;
}

static bool needs_slot(const struct schedule_entry *e)
{
    return e->state == SCHEDULE_WAITING || (e->state == SCHEDULE_PAUSED && e->aside);
}

/* Whether r may be paused for e, which lacks pages, or the share of its caller. */
static bool yields_to(const struct schedule_entry *r, const struct schedule_entry *e, bool pages, bool share)
{
    bool same = r->caller == e->caller;
    return (is_alike(r, e, true) ? r->yields_to_own : r->yields) && (same || (!share && !(pages && r->owns)));
}

/* Whether it may be paused for e in this plan: as one that yields and is put aside, or as one that is lent
 * to. */
static bool may_pause(const struct schedule_entry *r, const struct schedule_entry *e, bool aside, bool pages,
                      bool share)
{
    bool free = r->state == SCHEDULE_RUNNING && !r->start && !r->leaves;
    return free && (aside ? yields_to(r, e, pages, share) : r->lent);
}

/* The next one, or NULL: who yields first, or the youngest of those that are lent to. */
static struct schedule_entry *next_to_pause(struct schedule *s, const struct schedule_entry *e, bool aside,
                                            bool pages, bool share)
{
    struct schedule_entry *best = NULL;
    for (uint32_t j = s->n_entries; j-- > 0;) {
        struct schedule_entry *r = &s->entries[j];
        if (may_pause(r, e, aside, pages, share) && (!best || (aside && is_softer(s, r, best))))
            best = r;
    }
    return best;
}

/* False: n_most of them wouldn't be enough. Where memory is short that is so in each step, for each that is
 * overdue. It is tried on the counts of users: what many share goes back only once, and not while others that
 * don't yield have it. */
static bool can_be_enough(struct schedule *s, const struct schedule_entry *e, bool aside, uint32_t n_most)
{
    uint64_t need = pages_to_start(s, e), n_pages = s->n_pages_free, n_given = 0, largest = 0;
    bool pages = need > n_pages;
    for (uint32_t i = 0; i < s->n_entries; i++) {
        const struct schedule_entry *r = &s->entries[i];
        if (!may_pause(r, e, aside, pages, false))
            continue;
        uint64_t others = pages_lacking(s, r, r->n_tokens) + pages_ahead(s, r), own = r->n_pages + others;
        largest = own > largest ? own : largest;
        n_pages += let_go(s, r) + others;
        n_given += r->caller == e->caller ? r->n_need : 0;
    }
    bool most = s->n_pages_free + n_most * largest >= need;
    bool enough = most && n_pages >= pages_to_start(s, e) && n_given >= e->n_lacks;
    for (uint32_t i = 0; i < s->n_entries; i++)
        if (may_pause(&s->entries[i], e, aside, pages, false))
            keep_hold(s, &s->entries[i]);
    return enough;
}

/* Pauses one after the other until e can start; false: all of them wouldn't be enough, and none is. Pages may
 * be shared, so it is tried on the counts of users first. */
static bool pause_for(struct schedule *s, const struct schedule_entry *e, bool aside, uint32_t *budget)
{
    uint64_t ahead = 0, freed = s->n_pages_free, n_tokens = *budget;
    uint32_t n_most = aside ? s->n_aside_most + e->aside : s->n_entries, lacks = e->n_lacks;
    bool slot = s->n_slots_free > 0 || !needs_slot(e), enough = false;
    struct schedule_entry *r = NULL;
    if (n_most == 0 || !can_be_enough(s, e, aside, n_most))
        return false;
    for (uint32_t k = 0; aside && !s->grouped && k < 2; k++)
        group_entries(s, k);
    s->grouped |= aside;
    for (uint32_t n = 0; !enough && n < n_most; n++) {
        r = next_to_pause(s, e, aside, pages_to_start(s, e) - ahead > freed, lacks > 0);
        if (!r)
            break;
        ahead += pages_ahead(s, r);
        freed += let_go(s, r) + pages_lacking(s, r, r->n_tokens);
        n_tokens += r->n_tokens;
        lacks -= r->n_need < lacks ? r->n_need : lacks;
        r->leaves = true;
        count_running(s, r, -1);
        slot |= aside;
        enough = slot && !lacks && n_tokens > 0 && pages_to_start(s, e) - ahead <= freed;
    }
    for (r = s->entries; r < s->entries + s->n_entries; r++) /* as it was */
        if (r->leaves) {
            keep_hold(s, r);
            count_running(s, r, 1);
        }
    for (r = s->entries; r < s->entries + s->n_entries; r++) {
        if (r->leaves && enough) {
            pause_entry(s, r, budget);
            r->aside = aside;
            s->n_slots_free += aside;
            s->n_aside_most -= aside; /* one below 0 where e, which starts now, leaves its own to another */
        }
        r->leaves = false;
    }
    return enough;
}

/* False when nobody behind it may start either. Who only lacks rows of logits holds up nobody. */
static bool try_start(struct schedule *s, struct schedule_entry *e, uint32_t *budget)
{
    bool slot = s->n_slots_free > 0 || !needs_slot(e), rows = chunk_of(s, e, *budget ? *budget : 1) > 0;
    bool fits = *budget > 0 && slot && e->n_lacks == 0 && pages_to_start(s, e) <= s->n_pages_free;
    if (!fits && rows && e->due && slot && *budget > 0 && e->n_lacks == 0)
        fits = pause_for(s, e, false, budget);
    if (!fits && rows && e->overdue)
        fits = pause_for(s, e, true, budget);
    if (!fits || !rows)
        return fits;
    take_hold(s, e);
    s->n_slots_free -= needs_slot(e);
    s->n_aside_most += e->aside;
    e->state = SCHEDULE_RUNNING;
    e->start = true;
    count_running(s, e, 1);
    return true;
}

/* What it needs next is computed by another one that starts: it's cheaper to wait for that. */
static bool is_coming(const struct schedule *s, const struct schedule_entry *e)
{
    bool found = false;
    for (uint32_t i = 0; e->next && i < s->n_entries && !found; i++)
        found = s->entries[i].start && s->entries[i].next == e->next;
    return found;
}

/* The same, if it is its turn. False: it blocks. */
static bool has_started(struct schedule *s, struct schedule_entry *e, bool barred, uint32_t *budget)
{
    bool no_slot = needs_slot(e) && s->n_slots_free == 0;
    if (e->state == SCHEDULE_RUNNING || e->pause || ((no_slot || barred) && !e->overdue) || is_coming(s, e))
        return true;
    return try_start(s, e, budget) || no_slot || e->n_lacks > 0; /* the last: its caller's own affair */
}

/* Prompts and starts in the order of service, with a token kept for each of the first n_kept that are
 * overdue. `again`: where tokens are left, because those didn't start; they aren't tried once more. */
static void serve(struct schedule *s, uint32_t n_kept, bool again, uint32_t *budget)
{
    bool blocked = false, lent_blocked = false;
    *budget -= n_kept;
    for (uint32_t i = 0; i < s->n_entries; i++) {
        struct schedule_entry *e = &s->entries[i];
        bool overdue = e->overdue && e->state != SCHEDULE_RUNNING, kept = n_kept > 0 && overdue;
        n_kept -= kept;
        *budget += kept;
        if (!again || !overdue)
            e->blocks = !has_started(s, e, blocked || (lent_blocked && !e->due), budget);
        blocked |= e->blocks && !e->lent;
        lent_blocked |= e->blocks;
        if (e->state != SCHEDULE_RUNNING || e->hold || e->n_computed + e->n_tokens == e->n_known)
            continue;
        take_back(s, e, budget);
        plan_prompt(s, i, budget);
    }
}

void schedule_plan(struct schedule *s)
{
    uint32_t budget = s->step_tokens, n_overdue = 0;
    s->grouped = false;
    schedule_sort(s->entries, s->n_entries);
    for (uint32_t i = 0; i < s->n_entries; i++) {
        struct schedule_entry *e = &s->entries[i];
        e->n_tokens = 0;
        e->start = e->pause = e->leaves = false;
        require(e->n_known > e->n_computed);
        n_overdue += e->overdue && e->state != SCHEDULE_RUNNING;
    }
    for (uint32_t i = 0; i < s->n_entries && budget; i++) {
        struct schedule_entry *e = &s->entries[i];
        if (e->state == SCHEDULE_RUNNING && e->n_known - e->n_computed == 1 &&
            rows_scored(e, 1) <= s->score_rows && make_room(s, i, pages_lacking(s, e, 1), &budget))
            give(s, e, 1, &budget);
    }
    serve(s, n_overdue < budget ? n_overdue : budget, false, &budget);
    if (n_overdue && budget)
        serve(s, 0, true, &budget);
    /* Whom those that are held wait for may have been lent to, and be paused now. */
    for (uint32_t i = 0; i < s->n_entries && schedule_tokens(s) == 0; i++)
        if (s->entries[i].state == SCHEDULE_RUNNING)
            plan_prompt(s, i, &budget);
}

uint32_t schedule_tokens(const struct schedule *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_entries; i++)
        n += s->entries[i].n_tokens;
    return n;
}
