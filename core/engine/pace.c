/* The rules of pace.h, one window after another. */
#include "pace.h"

#include "base/clock.h"

#define BUSY_LEAST 0.2          /* below it a window says too little */
#define IDLE_NS (60 * NS_PER_S) /* after so long without work what was seen before is forgotten */
#define BAD_WINDOWS 2U          /* in a row: one may be a program that starts */
#define PATIENCE 5U             /* windows before a worker comes back, or all are pinned */
#define PATIENCE_MAX 320U
#define TRIAL_WINDOWS 5U
#define TRIAL_SETTLES 2U /* of them, until others have noticed */
#define TRIAL_REST 30U
#define NEAR_ENOUGH 0.95 /* as much as before: then with fewer */
#define CALM 0.05        /* delayed less than that: nobody is there but our own other threads */
#define DISTURBED 0.1    /* pinned and delayed more than that: somebody is */

struct pace pace_begin(uint32_t n_threads, bool is_fixed, bool may_pin)
{
    return (struct pace){.n_active = n_threads,
                         .n_max = n_threads,
                         .is_fixed = is_fixed,
                         .may_pin = may_pin,
                         .patience = PATIENCE,
                         .trial_rest = TRIAL_REST,
                         .pin_patience = PATIENCE};
}

static uint32_t twice(uint32_t patience)
{
    return patience < PATIENCE_MAX ? 2 * patience : PATIENCE_MAX;
}

/* Workers behind others, or stolen from: one at a time. A quota's stop is everybody's. */
static double waits(const struct pace_window *w)
{
    double sum = w->delayed + w->stolen;
    return sum < 1 ? sum : 1;
}

static bool too_many(const struct pace *p, const struct pace_window *w)
{
    double n = p->n_active;
    return p->n_active > 1 && n * (1 - waits(w)) * (1 - w->stopped) < n - 1;
}

/* Of a CPU that is shared fairly a worker gets a third or less: another would take its place. */
static bool outnumbered(const struct pace_window *w)
{
    return w->ran > 0 && w->ran < w->delayed / 2;
}

static bool has_room(const struct pace *p, const struct pace_window *w)
{
    double missing = w->spare < 0 ? 0 : 1 - w->spare;
    return missing < 0.5 / (p->n_active + 1) && w->delayed + w->stolen + w->stopped < 0.25 / p->n_active;
}

static enum thread_limit reason(const struct pace_window *w)
{
    if (w->stopped > w->delayed && w->stopped > w->stolen)
        return THREADS_THROTTLED;
    return w->stolen > w->delayed ? THREADS_STOLEN : THREADS_DELAYED;
}

/* What the process may use now. */
static uint32_t most_of(const struct pace *p, const struct pace_window *w)
{
    return w->n_cpus < p->n_max && w->n_cpus > 0 ? w->n_cpus : p->n_max;
}

static void cut(struct pace *p, const struct pace_window *w)
{
    uint32_t most = most_of(p, w);
    p->n_active = p->n_active < most ? p->n_active : most;
    if (p->n_active == p->n_max)
        p->limit = THREADS_ALL;
    else if (p->n_active == most)
        p->limit = w->has_quota ? THREADS_QUOTA : THREADS_AFFINITY;
}

static void fewer(struct pace *p, const struct pace_window *w)
{
    double missing = w->delayed + w->stolen;
    uint32_t n = missing < 2 ? 1 : missing < p->n_active ? (uint32_t)missing : p->n_active;
    p->n_before = p->n_active;
    p->n_active = p->n_active > n ? p->n_active - n : 1;
    p->limit = reason(w);
    p->patience = p->since_more ? twice(p->patience) : PATIENCE; /* it had just come back */
    p->since_more = p->n_good = 0;
    p->n_trial = 1;
    p->ran_trial = 0;
}

/* Behind the trial's last window. */
static void judge(struct pace *p)
{
    double before = p->ran_bad / BAD_WINDOWS, now = p->ran_trial / (TRIAL_WINDOWS - TRIAL_SETTLES);
    p->n_trial = p->n_bad = 0;
    if (now >= before * NEAR_ENOUGH) {
        p->trial_rest = TRIAL_REST;
        return;
    }
    p->n_active = p->n_before;
    p->rest = p->trial_rest;
    p->trial_rest = twice(p->trial_rest);
}

/* True: it goes on. */
static bool is_tried(struct pace *p, const struct pace_window *w)
{
    if (p->n_trial == 0)
        return false;
    if (p->n_trial > TRIAL_SETTLES)
        p->ran_trial += w->ran - w->stolen;
    if (p->n_trial++ < TRIAL_WINDOWS)
        return true;
    judge(p);
    return false;
}

static void more(struct pace *p, const struct pace_window *w)
{
    uint32_t room = most_of(p, w) - p->n_active;
    uint32_t n = w->spare < 2 ? 1 : w->spare < room ? (uint32_t)w->spare : room;
    p->n_active += n;
    p->since_more = 1;
    p->n_good = 0;
}

static void look_at_number(struct pace *p, const struct pace_window *w)
{
    if (p->since_more && ++p->since_more > 2 * p->patience) {
        p->since_more = 0; /* it was right to come back */
        p->patience = PATIENCE;
    }
    bool tried = is_tried(p, w), bad = !tried && p->rest == 0 && too_many(p, w) && !outnumbered(w);
    p->rest -= p->rest > 0;
    p->ran_bad = !bad ? p->ran_bad : p->n_bad ? p->ran_bad + w->ran - w->stolen : w->ran - w->stolen;
    p->n_bad = bad ? p->n_bad + 1 : 0;
    if (p->n_bad >= BAD_WINDOWS) {
        fewer(p, w);
        return;
    }
    bool room = p->n_active < most_of(p, w) && has_room(p, w);
    p->n_good = room ? p->n_good + 1 : 0;
    if (p->n_good >= p->patience && !tried)
        more(p, w);
}

/* True: they were set free, which may be all that is needed. */
static bool look_at_pins(struct pace *p, const struct pace_window *w)
{
    bool may = p->may_pin && p->n_active == p->n_max && p->n_max <= w->n_cpus && !w->has_quota;
    bool disturbed = w->delayed > DISTURBED || w->stopped > DISTURBED;
    if (p->pinned && (!may || disturbed)) {
        p->pinned = false;
        p->pin_patience = twice(p->pin_patience);
        p->n_calm = p->n_bad = 0;
        return may;
    }
    p->n_calm = may && w->delayed < CALM ? p->n_calm + 1 : 0;
    if (!p->pinned && p->n_calm >= p->pin_patience)
        p->pinned = true;
    return false;
}

/* What was seen so long ago says nothing of now. */
static void forget(struct pace *p)
{
    p->n_active = p->n_max;
    p->n_bad = p->n_good = p->since_more = p->n_trial = p->rest = 0;
    p->trial_rest = TRIAL_REST;
}

bool pace_look(struct pace *p, const struct pace_window *w)
{
    const struct pace before = *p;
    if (w->at_ns - p->worked_ns > IDLE_NS && !p->is_fixed)
        forget(p);
    if (w->busy < BUSY_LEAST) {
        p->n_bad = 0;
    } else {
        p->worked_ns = w->at_ns;
        if (!look_at_pins(p, w) && !p->is_fixed)
            look_at_number(p, w);
    }
    if (!p->is_fixed)
        cut(p, w);
    p->pinned = p->pinned && p->n_active == p->n_max;
    return p->n_active != before.n_active || p->pinned != before.pinned || p->limit != before.limit;
}
