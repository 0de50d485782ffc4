/* Who is served next among those that wait, so that callers share the machine by their weights whatever each
 * has queued: a virtual token counter (Sheng et al., Fairness in Serving Large Language Models, arXiv
 * 2401.00588, algorithm 2, with weights). A caller's counter grows by the cost of what it was served, divided
 * by its weight; the lowest one among those that wait is next. One that comes back is lifted to the others'
 * level, so nobody saves up.
 *
 * Two classes: interactive callers are served before batch ones, but a batch caller that wasn't for
 * ENGINE_PATIENCE_NS while it waited counts as interactive until it is. So nobody waits for ever, and how
 * long is in the engine's statistics. Caller 0 is everybody where callers aren't told apart; its order is
 * that of service.
 *
 * Owner: engine thread. No memory is allocated but by fair_init. */
#ifndef LK_ENGINE_FAIRNESS_H
#define LK_ENGINE_FAIRNESS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"

#define FAIR_COST_PROMPT 1.0 /* of a prompt's token that is computed, and */
#define FAIR_COST_OUTPUT 2.0 /* of a generated one: the paper's (section 5.1) */

struct fair_caller {
    double counter; /* cost served, over weight */
    double planned; /* the same, of what the plan that is being made would start */
    uint32_t n_waiting;
    uint32_t n_pages;       /* that what it has running may come to need */
    uint32_t planned_pages; /* the same of the plan */
    uint32_t first;         /* the place of its next one in the plan, or FAIR_NONE */
    bool full;              /* the plan has found its next one above its share of them: it is passed over */
    int64_t served_ns;      /* something of it was started last, or it began to wait */
    bool batch;
};

struct fair {
    struct fair_caller *callers; /* [n_callers] */
    uint32_t n_callers;
    uint32_t *waiting; /* [n_waiting] callers with something in the queue */
    uint32_t n_waiting;
    double left; /* counter of the caller that last had nothing left to wait */
    bool any;    /* a caller other than 0 was ever seen */
};

bool fair_init(struct fair *f, uint32_t n_callers); /* false: no memory */
void fair_fini(struct fair *f);

/* A generation joins the queue, or leaves it (started or ended). */
void fair_arrives(struct fair *f, const struct generation *g, int64_t now_ns);
void fair_leaves(struct fair *f, const struct generation *g);
/* It was started, with so many tokens of its prompt to compute; n tokens were generated; it is over. */
void fair_starts(struct fair *f, const struct generation *g, uint32_t n_tokens, int64_t now_ns);
void fair_generates(struct fair *f, const struct generation *g, uint32_t n_tokens);
void fair_ends(struct fair *f, const struct generation *g);

/* For a plan. fair_plan forgets what the one before supposed. Then every generation that waits is put in
 * front of its caller's others, so the last first; what fair_put answers is the place of the one behind it,
 * FAIR_NONE for none. fair_pick gives the place of the one that is served next, of a caller that isn't full;
 * fair_take takes it away (behind: as fair_put answered), and says whether it has its share of n_pages free:
 * if so it is supposed to start, if not its caller is full for this plan. */
#define FAIR_NONE UINT32_MAX
void fair_plan(struct fair *f);
uint32_t fair_put(struct fair *f, const struct generation *g, uint32_t place);
uint32_t fair_pick(const struct fair *f, int64_t now_ns);
bool fair_take(struct fair *f, const struct generation *g, uint32_t behind, uint32_t n_pages);

#endif
