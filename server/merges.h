/* Merged copies: which adapters have one, built one at a time by a thread of low priority, within a budget of
 * their own. Owner: front thread. */
#ifndef LK_MERGES_H
#define LK_MERGES_H

#include "api_render.h"
#include "registry.h"

struct server;
struct merges;

struct merges *merges_create(struct server *s);
void merges_close(struct merges *m);   /* its handle */
void merges_destroy(struct merges *m); /* when no worker is at it, the engine is gone and the handle closed */
bool merges_busy(const struct merges *m);
/* Something about adapters has changed; looked at in the loop's next turn. */
void merges_notify(struct merges *m);
/* Once a second: copies that the engine has let go of are freed, and wishes are looked at again. */
void merges_tick(struct merges *m);
/* What GET shows of a name: null, or state, type, bytes, error. */
void merges_put(struct jw *w, const struct merges *m, const struct adapter *a);

/* A copy, or one that the cost model advised against. */
struct merge_shown {
    const char *name;
    bool is_ready;
    uint64_t bytes;
    double ratio; /* time of a step on it against beside the base, as predicted */
    double gain;  /* share of all step time that it saves, as predicted from the traffic */
    double error; /* rounded away, against what the adapter adds */
};
void merges_each(const struct merges *m, void (*each)(const struct merge_shown *c, void *data), void *data);

struct merges_usage {
    uint64_t bytes, budget_bytes;
    uint32_t n_ready, n_waiting;
    uint64_t n_built, n_failed, n_dropped;
};
void merges_usage(const struct merges *m, struct merges_usage *out);

#endif
