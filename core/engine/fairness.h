/* Who is served next among those that wait, so that callers share the machine by their weights whatever each
 * has queued: a virtual token counter (Sheng et al., Fairness in Serving Large Language Models, arXiv
 * 2401.00588, algorithm 2, with weights). A caller's counter grows by the cost of what it was served, divided
 * by its weight; the lowest one among those that wait is next. One that comes back is lifted to the others'
 * level, so nobody saves up.
 *
 * Two classes: interactive callers are served before batch ones, but a batch caller that wasn't for
 * ENGINE_PATIENCE_NS while it waited counts as interactive until it is.
 *
 * Nobody waits for ever. A caller of which nothing was started for the bound, while it waited, is next
 * whatever its class and counter, those that waited longest first, one start in FAIR_LATE_EVERY; and when a
 * caller's turn has come, its voice (what it has waiting with one adapter) of which nothing was started for
 * as long goes before its others. Either is charged as ever. So the bound moves one start of a caller in its
 * length, few of all where there are more callers than starts in that time, and within a caller only the
 * order: weights hold.
 *
 * That orders those that can start. Where nothing can, the bound holds all the same: a voice of which nothing
 * was started for so long is overdue, and others that run are paused for it (scheduler.h). Each of them has
 * had a turn before, 1 / FAIR_TURNS of the bound; so where many voices wait some become overdue earlier, as
 * many turns as it takes to let those start that are due with them.
 *
 * A caller may have a share of the KV pages: more than that it never gets, and so much it can always have.
 * What it doesn't use is lent to callers without a share, and taken back from them (scheduler.h).
 *
 * Caller 0 is everybody where callers aren't told apart; its order is that of service, but for voices that
 * waited too long.
 *
 * Owner: engine thread. No memory is allocated but by fair_init. */
#ifndef LK_ENGINE_FAIRNESS_H
#define LK_ENGINE_FAIRNESS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"

#define FAIR_COST_PROMPT 1.0 /* of a prompt's token that is computed, and */
#define FAIR_COST_OUTPUT 2.0 /* of a generated one: the paper's (section 5.1) */

#define FAIR_LATE_EVERY 4U /* of so many starts one may be somebody's who waited beyond the bound */

#define FAIR_TURNS 8U /* in a bound: what was started or goes on isn't paused for others in its turn */

/* Paused for others that were overdue, and put aside: so many at once, or as many as run at once if these are
 * more; and each generation so often, then it runs to its end. */
#define FAIR_ASIDE_MIN 16U
#define FAIR_YIELDS_MAX 3U

#define FAIR_NONE UINT32_MAX

enum fair_taken { FAIR_WAITS, FAIR_TAKEN, FAIR_TAKEN_LATE };

struct fair_caller {
    double counter; /* cost served, over weight */
    double planned; /* the same, of what the plan that is being made would start */
    double share;   /* of the KV pages; 1: none was set */
    uint32_t n_waiting;
    uint32_t n_pages;       /* that what it has running may come to need */
    uint32_t planned_pages; /* the same of the plan */
    uint32_t first;         /* the place of its next one in the plan, or FAIR_NONE */
    bool full;              /* the plan has found its next one above its share of them: it is passed over */
    bool yields;            /* the plan has one that is overdue above it: others of its own make place */
    int64_t served_ns;      /* something of it was started last, or it began to wait */
    bool batch;
};

/* What waits of a caller with one adapter, or with none. */
struct fair_voice {
    uint32_t caller;
    const struct lora *lora; /* alive: what waits holds it */
    uint32_t n_waiting;
    int64_t served_ns; /* as a caller's */
    uint32_t first; /* the place of its first one in the plan; FAIR_NONE: the plan starts something of it */
    uint32_t next;  /* in its bucket, or of the free ones */
    uint32_t at;    /* its index in `used` */
};

struct fair {
    struct fair_caller *callers; /* [n_callers] */
    uint32_t n_callers;
    uint32_t *waiting; /* [n_waiting] callers with something in the queue */
    uint32_t n_waiting;
    struct fair_voice *voices; /* [n_places] */
    uint32_t *used;            /* [n_used] those with something in the queue */
    uint32_t n_used, free_voice;
    uint32_t *buckets; /* [n_buckets], a power of two */
    uint32_t n_buckets;
    uint32_t *behind;       /* [n_places] of a place in the plan: the same caller's next one */
    enum fair_taken *taken; /* [n_places] in the plan, perhaps before its turn in that list */
    uint32_t n_places;
    int64_t bound_ns, now_ns; /* the latter: of the plan */
    bool decides;             /* the plan's order is ours */
    bool late;                /* it has a voice that is overdue */
    uint32_t n_slots;         /* generations that run at once */
    uint32_t n_since;         /* starts since the last one out of turn, FAIR_LATE_EVERY at most; */
    uint32_t planned_since;   /* with the plan's */
    double left;              /* counter of the caller that last had nothing left to wait */
    bool any;                 /* a caller other than 0 was ever seen */
    bool any_share;           /* one with a share of the pages was */
};

/* n_places: of the queue. bound_ns: how long nothing of a caller or voice is started, at most. n_slots: how
 * many run at once. False: no memory. */
bool fair_init(struct fair *f, uint32_t n_callers, uint32_t n_places, int64_t bound_ns, uint32_t n_slots);
void fair_fini(struct fair *f);

/* A generation joins the queue, or leaves it (started or ended). */
void fair_arrives(struct fair *f, const struct generation *g, int64_t now_ns);
void fair_leaves(struct fair *f, const struct generation *g);
/* It was started, from this place of the plan and with so many tokens of its prompt to compute; returns for
 * how long nothing of its voice was. */
int64_t fair_starts(struct fair *f, const struct generation *g, uint32_t place, uint32_t n_tokens,
                    int64_t now_ns);
/* n tokens were generated. */
void fair_generates(struct fair *f, const struct generation *g, uint32_t n_tokens);
/* It is over or put aside, and needs no pages; it goes on. One that is over while it is aside doesn't end
 * once more. */
void fair_ends(struct fair *f, const struct generation *g);
void fair_goes_on(struct fair *f, const struct generation *g);
/* What it may come to need; and by how many of n_pages its caller, with what it has running, would then be
 * above its share. 0: it isn't, or it would run alone. */
uint32_t fair_pages_of(const struct generation *g);
uint32_t fair_lacks(const struct fair *f, const struct generation *g, uint32_t n_pages);

/* For a plan. fair_plan forgets what the one before supposed, and says whether there is anything to decide
 * beside the order of service. Then every generation that waits is put in front of its caller's others, so
 * the last first, by its place in the queue. fair_pick gives the place of the one that is served next, of a
 * caller that isn't full (*late: because it waited too long), FAIR_NONE for none; fair_take takes it away,
 * and says whether it has its caller's share of n_pages free: if so it is supposed to start, if not its
 * caller is full for this plan. */
bool fair_plan(struct fair *f, int64_t now_ns);
void fair_put(struct fair *f, const struct generation *g, uint32_t place);
uint32_t fair_pick(struct fair *f, bool *late);
bool fair_take(struct fair *f, const struct generation *g, uint32_t place, uint32_t n_pages);
/* When the turns are given: of the voices of which the plan starts nothing yet, how many are overdue. One
 * less with each that is picked as such, or fewer where fair_take_overdue has found pages to be given back.
 */
uint32_t fair_n_overdue(const struct fair *f);
/* As fair_pick, but of the voice that has waited longest, whoever's turn it is; and for how long, at the time
 * of the plan. */
uint32_t fair_pick_overdue(const struct fair *f, int64_t *waited_ns);
/* It is supposed to start. Returns how many pages of its caller's share must be given back by others of that
 * first. */
uint32_t fair_take_overdue(struct fair *f, const struct generation *g, uint32_t place, uint32_t n_pages);
/* The same as fair_pick among callers with a share of the pages. */
uint32_t fair_pick_shared(struct fair *f);

/* All that the caller has running and in the plan is within a share that was set for it: of one that was just
 * taken, that its pages are due to it. */
bool fair_is_due(const struct fair *f, const struct generation *g, uint32_t n_pages);
/* Of one that runs: its caller has more than its share, or none while others have one. */
bool fair_is_lent(const struct fair *f, const struct generation *g, uint32_t n_pages);

#endif
