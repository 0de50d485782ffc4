/* How many threads a step should have while others use the machine too, and whether they may stay on their
 * CPUs. Pure: counters in, a decision out.
 *
 * A step's workers wait for each other at every barrier. If one of n is kept from its CPU, all stop, so n
 * workers that together wait w seconds in a second (behind other programs, or because the hypervisor runs
 * somebody else) go at the pace of n * (1 - w), while n - 1 that wait for nobody go at n - 1: a worker too
 * many costs more than it gives once w > 1 / n. A quota that is used up stops all at once: there n workers go
 * at n * (1 - stopped). A worker comes back when there is idle time for it: with what the CPU lacks to being
 * idle, n + 1 workers would still be faster, by a margin.
 *
 * That holds if those who go leave their CPU to the others of the team. Where many programs want it, they
 * take it, and the team only has a smaller share than before. With two or more others to a CPU, which workers
 * that are ready see as a third of the time or less, that is certain, and nothing is done. Else fewer workers
 * are on trial: the CPU time that the team has in a second, which is what its work is made of, decides.
 *
 *   fewer    two windows in a row say so; as many fewer as CPUs are missing, at least one. Taken back after
 *            five windows if the team has less CPU time than before; the next trial is 30 windows later, and
 *            twice as many after each that failed
 *   more     `patience` windows in a row say so (5; twice as many after each time that it was wrong)
 *
 * Pinned workers keep their caches and are spared a scheduler that moves them; but two programs that pin to
 * the same CPU halve each other while other CPUs are idle. So workers are pinned only while all of them run
 * and have waited for nobody for a while, each to the CPU on which the scheduler, who sees both programs, put
 * it; and the first waits set them free again, before anything else is tried. */
#ifndef LK_ENGINE_PACE_H
#define LK_ENGINE_PACE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"

/* What happened between two looks, a second or so apart. Rates are seconds of CPU time in a second in which
 * the team worked. */
struct pace_window {
    int64_t at_ns;   /* its end */
    double busy;     /* share of the time in which the team worked */
    double ran;      /* its workers had a CPU */
    double delayed;  /* they were ready, but others had it */
    double stolen;   /* the hypervisor took from them */
    double stopped;  /* share of the time in which the cgroup's quota was used up */
    double spare;    /* CPUs without work, beside the workers' own; below 0: unknown */
    uint32_t n_cpus; /* that the process may use, quota considered */
    bool has_quota;  /* and that the quota made fewer */
};

struct pace {
    /* the decision */
    uint32_t n_active;
    bool pinned;
    enum thread_limit limit; /* why n_active is less than n_max */
    /* what it is made of; all 0 at first but these */
    uint32_t n_max;
    bool is_fixed; /* their number was asked for: only pinned changes */
    bool may_pin;
    uint32_t n_bad, n_good, patience, since_more, n_calm, pin_patience;
    uint32_t n_before, n_trial, rest, trial_rest; /* windows of the trial; until the next, after a failure */
    double ran_bad, ran_trial;                    /* in the bad windows; in the trial's last ones */
    int64_t worked_ns;                            /* the last busy window */
};

struct pace pace_begin(uint32_t n_threads, bool is_fixed, bool may_pin);
/* True: the decision has changed. */
bool pace_look(struct pace *p, const struct pace_window *w);

#endif
