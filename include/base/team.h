/* The worker team: one thread a core, woken for a task, joined before team_run returns. Workers spin for a
 * short while and then sleep on a futex, so a busy step pays no system call and an idle server costs nothing.
 * The caller is worker 0. Owner: the thread that calls team_run (one at a time). */
#ifndef LK_BASE_TEAM_H
#define LK_BASE_TEAM_H

#include <stddef.h>
#include <stdint.h>

struct team;

typedef void team_task(void *arg, unsigned worker, unsigned n_workers);

#define TEAM_THREADS_MAX 256U

/* n_threads 0: one for each core that the process may run on (base/cpus.h). NULL: no memory or no threads. */
struct team *team_create(unsigned n_threads);
void team_destroy(struct team *t);
/* Its workers, busy or not: what is kept for each worker has so many places. */
unsigned team_size(const struct team *t);

/* How many of them tasks run on, at first all: workers 0 to n - 1; the others sleep and cost nothing. n is 1
 * to team_size. Thread: the owner, between two tasks. No memory is taken, and no answer may depend on it. */
unsigned team_active(const struct team *t);
void team_set_active(struct team *t, unsigned n);

/* The kernel's number of a worker's thread, 1 to team_size - 1; 0: it hasn't begun to run. Any thread. */
int team_tid(const struct team *t, unsigned worker);

/* Runs task(arg, worker, n_workers) on all active workers and returns when all have returned. */
void team_run(struct team *t, team_task *task, void *arg);

/* Inside a task: waits until all active workers are here. Everything written before is seen by all after. */
void team_barrier(struct team *t);
/* The same in two halves, with work that needs nobody between them: team_wait(t, team_arrive(t)) is
 * team_barrier(t). All workers go through the same sequence of barriers, whole or in halves. */
unsigned team_arrive(struct team *t);
void team_wait(struct team *t, unsigned ticket);

/* Worker `w`'s contiguous share [*begin, *end) of n items, in units of `grain` (the last share may be
 * shorter). */
static inline void team_share(uint64_t n, uint64_t grain, unsigned w, unsigned n_workers, uint64_t *begin,
                              uint64_t *end)
{
    uint64_t units = (n + grain - 1) / grain;
    uint64_t b = units * w / n_workers * grain, e = units * (w + 1) / n_workers * grain;
    *begin = b < n ? b : n;
    *end = e < n ? e : n;
}

#endif
