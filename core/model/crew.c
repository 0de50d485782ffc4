/* A worker's view of a step: its shares, the barriers, the int8 forms of activations, and the clocks of the
 * phases. What this file doesn't do: anything of the model. */
#include "step.h"

#include "base/clock.h"
#include "base/mem.h"

/* Above so many values norms of a few rows cost more than the barrier that sharing them out needs. */
#define ALONE_VALUES 4096U
#define CLAIM_PIECES 32U

/* ---- clocks ---- */

/* A worker's; time goes to the phase that it is in. */
struct phase_clock {
    _Alignas(64) int64_t since;
    enum step_phase now;
    uint64_t n_barriers;
    int64_t ns[STEP_PHASES];
};

const char *step_phase_name(enum step_phase phase)
{
    static const char *const names[STEP_PHASES] = {
#define STEP_PHASE_NAME(name, text) text,
        STEP_PHASE_LIST(STEP_PHASE_NAME)
#undef STEP_PHASE_NAME
    };
    require(phase < STEP_PHASES);
    return names[phase];
}

enum status step_time_begin(struct step_space *s, struct error *err)
{
    unsigned n = team_size(s->team);
    mem_free(s->clocks);
    s->clocks = mem_aligned(64, n * sizeof *s->clocks);
    if (!s->clocks)
        return fail(err, STATUS_NO_MEMORY, "clocks of a step's phases");
    for (unsigned i = 0; i < n; i++)
        s->clocks[i] = (struct phase_clock){0};
    return STATUS_OK;
}

void step_time_end(struct step_space *s, struct step_times *out)
{
    *out = (struct step_times){0};
    for (unsigned i = 0; s->clocks && i < team_size(s->team); i++) {
        for (unsigned p = 0; p < STEP_PHASES; p++)
            out->ns[p] += s->clocks[i].ns[p];
        if (s->clocks[i].n_barriers > out->n_barriers) /* the same for all that were active */
            out->n_barriers = s->clocks[i].n_barriers;
    }
    mem_free(s->clocks);
    s->clocks = NULL;
}

static enum step_phase enter(struct phase_clock *k, enum step_phase phase)
{
    enum step_phase before = k->now;
    int64_t now = clock_now_ns();
    k->ns[before] += now - k->since;
    k->since = now;
    k->now = phase;
    return before;
}

void crew_phase(const struct crew *c, enum step_phase phase)
{
    if (c->s->clocks)
        enter(&c->s->clocks[c->worker], phase);
}

void crew_begin(const struct crew *c, enum step_phase phase)
{
    if (!c->s->clocks)
        return;
    c->s->clocks[c->worker].since = clock_now_ns();
    c->s->clocks[c->worker].now = phase;
}

/* ---- barriers ---- */

unsigned crew_arrive(const struct crew *c)
{
    return team_arrive(c->s->team);
}

void crew_wait(const struct crew *c, unsigned ticket)
{
    struct phase_clock *k = c->s->clocks ? &c->s->clocks[c->worker] : NULL;
    enum step_phase phase = k ? enter(k, PHASE_WAIT) : PHASE_WAIT;
    team_wait(c->s->team, ticket);
    if (!k)
        return;
    enter(k, phase);
    k->n_barriers++;
}

void crew_barrier(const struct crew *c)
{
    crew_wait(c, crew_arrive(c));
}

/* ---- shares ---- */

void share_rows(const struct crew *c, uint32_t n_rows, uint32_t *begin, uint32_t *end)
{
    uint64_t b, e;
    team_share(n_rows, 1, c->worker, c->n_workers, &b, &e);
    *begin = (uint32_t)b;
    *end = (uint32_t)e;
}

void own_rows(const struct crew *c, uint32_t n_rows, uint32_t *begin, uint32_t *end)
{
    share_rows(c, n_rows, begin, end);
    if (!c->alone)
        return;
    *begin = 0;
    *end = n_rows;
}

struct panels share_panels(const struct crew *c, uint32_t rows)
{
    uint64_t begin, end;
    team_share((rows + PANEL_ROWS - 1) / PANEL_ROWS, 1, c->worker, c->n_workers, &begin, &end);
    return (struct panels){(uint32_t)begin, (uint32_t)end};
}

/* Pieces come in rounds of one for each worker, each round half of what is left, down to pieces of which
 * CLAIM_PIECES make a worker's even share. */
bool crew_claim(const struct crew *c, uint32_t counter, uint32_t n, struct panels *out)
{
    /* relaxed: only the number matters; the barriers around this phase order the data */
    uint32_t i = atomic_fetch_add_explicit(&c->s->claims[counter], 1, memory_order_relaxed);
    uint32_t n_workers = c->n_workers, least = n / (n_workers * CLAIM_PIECES), begin = 0, piece = 0;
    if (n_workers == 1) {
        *out = (struct panels){0, n};
        return i == 0 && n > 0;
    }
    for (uint32_t round = 0; round <= i / n_workers && begin < n; round++) {
        piece = (n - begin) / (2 * n_workers);
        piece = piece > least ? piece : least;
        piece = piece > 0 ? piece : 1;
        begin += round < i / n_workers ? piece * n_workers : piece * (i % n_workers);
    }
    *out = (struct panels){begin < n ? begin : n, begin + piece < n ? begin + piece : n};
    return begin < n;
}

/* The rows above a worker's even share are what it costs to do all of them; experts list their pairs by all
 * rows, so they are the team's. */
static bool works_alone(const struct crew *c)
{
    uint32_t n = c->s->n_rows, even = (n + c->n_workers - 1) / c->n_workers;
    return c->n_workers > 1 && n <= STEP_ALONE_ROWS && !c->m->config.n_experts &&
           (n - even) * c->m->config.hidden_size <= ALONE_VALUES;
}

struct crew crew_of(struct step_space *s, unsigned worker, unsigned n_workers)
{
    struct crew c = {.s = s,
                     .m = s->now,
                     .k = s->m->kernels,
                     .worker = worker,
                     .n_workers = n_workers,
                     .x = s->x,
                     .h = s->h,
                     .y = s->y,
                     .final = s->final,
                     .in = s->in};
    if (!works_alone(&c))
        return c;
    uint32_t hidden = c.m->config.hidden_size;
    size_t at = (size_t)worker * STEP_ALONE_ROWS * hidden;
    c.alone = true;
    c.x = s->alone_x + at;
    c.y = s->alone_y + at;
    c.h = c.final = s->alone_h + at;
    if (s->in)
        c.in = s->alone_in + worker * STEP_ALONE_ROWS * acts_stride(hidden);
    return c;
}

/* ---- activations ---- */

struct acts acts_of(const float *x, uint32_t n_rows, uint32_t cols, struct act_block *rounded)
{
    return (struct acts){.x = x, .x_stride = cols, .n_rows = n_rows, .cols = cols, .blocks = rounded};
}

bool wants_int8(const struct crew *c, const struct packed *w, unsigned n)
{
    bool any = false;
    for (unsigned i = 0; i < n; i++)
        any = any || dtype_is_quantized(w[i].type);
    return any && c->k->act_mode == ACT_MODE_INT8;
}

void quantize_share(const struct crew *c, const struct acts *x, const struct packed *w, unsigned n)
{
    uint32_t begin, end;
    share_rows(c, x->n_rows, &begin, &end);
    if (begin != end && wants_int8(c, w, n))
        c->k->quantize_rows(x, begin, end);
}

void quantize_own(const struct crew *c, const struct acts *x, const struct packed *w, unsigned n)
{
    uint32_t begin, end;
    own_rows(c, x->n_rows, &begin, &end);
    if (begin != end && wants_int8(c, w, n))
        c->k->quantize_rows(x, begin, end);
}

void quantize_part(const struct crew *c, const struct acts *x, uint32_t row, uint32_t at, uint32_t n)
{
    require(at % ACT_BLOCK == 0 && (n % ACT_BLOCK == 0 || at + n == x->cols));
    struct acts part = acts_of(x->x + row * x->x_stride + at, 1, n, acts_row(x, row) + at / ACT_BLOCK);
    if (n)
        c->k->quantize_rows(&part, 0, 1);
}
