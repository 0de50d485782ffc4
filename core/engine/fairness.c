#include "fairness.h"

#include "base/error.h"
#include "base/mem.h"
#include "kv_cache.h"

bool fair_init(struct fair *f, uint32_t n_callers)
{
    *f = (struct fair){.callers = mem_array(n_callers, sizeof *f->callers),
                       .waiting = mem_array(n_callers, sizeof *f->waiting),
                       .n_callers = n_callers};
    return f->callers && f->waiting;
}

void fair_fini(struct fair *f)
{
    mem_free(f->callers);
    mem_free(f->waiting);
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

void fair_arrives(struct fair *f, const struct generation *g, int64_t now_ns)
{
    struct fair_caller *c = caller_of(f, g);
    f->any |= g->caller.number != 0;
    c->batch = g->caller.batch;
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
    if (--c->n_waiting)
        return;
    uint32_t i = 0;
    while (f->waiting[i] != g->caller.number)
        i++;
    f->waiting[i] = f->waiting[--f->n_waiting];
    f->left = c->counter;
}

/* What it may come to need. */
static uint32_t pages_of(const struct generation *g)
{
    uint64_t n = (uint64_t)g->n_prompt + g->max_tokens; /* submission.c has cut it to the context */
    return (uint32_t)((n + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS);
}

void fair_starts(struct fair *f, const struct generation *g, uint32_t n_tokens, int64_t now_ns)
{
    struct fair_caller *c = caller_of(f, g);
    c->counter += cost(g, FAIR_COST_PROMPT, n_tokens);
    c->served_ns = now_ns;
    c->n_pages += pages_of(g);
    fair_leaves(f, g);
}

void fair_ends(struct fair *f, const struct generation *g)
{
    struct fair_caller *c = caller_of(f, g);
    require(c->n_pages >= pages_of(g));
    c->n_pages -= pages_of(g);
}

void fair_generates(struct fair *f, const struct generation *g, uint32_t n_tokens)
{
    caller_of(f, g)->counter += cost(g, FAIR_COST_OUTPUT, n_tokens);
}

void fair_plan(struct fair *f)
{
    for (uint32_t i = 0; i < f->n_waiting; i++) {
        struct fair_caller *c = &f->callers[f->waiting[i]];
        c->planned = 0;
        c->planned_pages = 0;
        c->first = FAIR_NONE;
        c->full = false;
    }
}

uint32_t fair_put(struct fair *f, const struct generation *g, uint32_t place)
{
    struct fair_caller *c = caller_of(f, g);
    uint32_t behind = c->first;
    c->first = place;
    return behind;
}

static bool stands_back(const struct fair_caller *c, int64_t now_ns)
{
    return c->batch && now_ns - c->served_ns < ENGINE_PATIENCE_NS;
}

/* Class, then counter, then who came first. */
static bool is_before(const struct fair_caller *a, const struct fair_caller *b, int64_t now_ns)
{
    double x = a->counter + a->planned, y = b->counter + b->planned;
    if (a->batch != b->batch && stands_back(a, now_ns) != stands_back(b, now_ns))
        return stands_back(b, now_ns);
    if (x < y || x > y)
        return x < y;
    return a->first < b->first;
}

uint32_t fair_pick(const struct fair *f, int64_t now_ns)
{
    const struct fair_caller *best = NULL;
    for (uint32_t i = 0; i < f->n_waiting; i++) {
        const struct fair_caller *c = &f->callers[f->waiting[i]];
        if (c->first != FAIR_NONE && !c->full && (!best || is_before(c, best, now_ns)))
            best = c;
    }
    return best ? best->first : FAIR_NONE;
}

bool fair_take(struct fair *f, const struct generation *g, uint32_t behind, uint32_t n_pages)
{
    struct fair_caller *c = caller_of(f, g);
    double share = g->caller.kv_share > 0 ? (double)g->caller.kv_share : 1;
    uint32_t has = c->n_pages + c->planned_pages;
    c->first = behind;
    c->full = share < 1 && has > 0 && has + pages_of(g) > share * n_pages;
    if (c->full)
        return false;
    c->planned_pages += pages_of(g);
    c->planned += cost(g, FAIR_COST_PROMPT, g->n_prompt);
    return true;
}
