/* The worker team: tasks are announced by a ticket number, joined by a countdown; both are waited for by
 * spinning for a moment and then sleeping on a futex.
 *
 *   caller:  task, arg written → ticket++ (release) → wake sleepers → works as worker 0 → waits for pending
 * == 0 worker:  waits for a new ticket (acquire) → works → pending-- (release; the last one wakes the caller)
 *
 * Owner: the thread that calls team_run. */
#include "base/team.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/mem.h"

/* About 20-50 us of pauses: longer than the gap between two tasks of a step, shorter than a scheduler's
 * slice. */
#define SPINS 2000
#define THREADS_MAX 256U

/* A number that threads wait on; sleepers are counted so that a change without sleepers costs no system call.
 */
struct signal_word {
    _Alignas(64) atomic_uint value;
    atomic_uint n_sleepers;
};

struct worker {
    struct team *team;
    pthread_t thread;
    unsigned index;
};

struct team {
    struct signal_word ticket;  /* changes with every task */
    struct signal_word pending; /* workers that have not finished the task */
    struct signal_word phase;   /* changes with every completed barrier */
    _Alignas(64) atomic_uint n_arrived;
    team_task *task;
    void *arg;
    bool stop;
    unsigned n_workers; /* caller included */
    unsigned
        spins; /* 0 when there are more workers than cores: spinning would take the core from who works */
    struct worker *workers; /* [n_workers - 1] */
    unsigned n_started;
};

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Call after the word was changed with seq_cst order, which pairs with wait_while: either the sleeper sees
 * the new value, or we see the sleeper. */
static void wake_sleepers(struct signal_word *w)
{
    if (atomic_load_explicit(&w->n_sleepers, memory_order_seq_cst))
        syscall(SYS_futex, &w->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void change(struct signal_word *w, unsigned value)
{
    atomic_store_explicit(&w->value, value, memory_order_seq_cst);
    wake_sleepers(w);
}

/* Waits until the word is not `old`; acquire: what was written before the change is seen. */
static unsigned wait_while(struct signal_word *w, unsigned old, unsigned spins)
{
    unsigned value;
    for (unsigned i = 0; i < spins; i++) {
        value = atomic_load_explicit(&w->value, memory_order_acquire);
        if (value != old)
            return value;
        pause_briefly();
    }
    atomic_fetch_add_explicit(&w->n_sleepers, 1, memory_order_seq_cst);
    while ((value = atomic_load_explicit(&w->value, memory_order_seq_cst)) == old)
        syscall(SYS_futex, &w->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub_explicit(&w->n_sleepers, 1, memory_order_relaxed); /* only a hint from here on */
    return value;
}

static void finish_task(struct team *t)
{
    /* seq_cst includes release (our writes reach the caller) and pairs with wait_while. The word isn't
     * touched again: the caller may have begun the next task already. */
    if (atomic_fetch_sub_explicit(&t->pending.value, 1, memory_order_seq_cst) == 1)
        wake_sleepers(&t->pending);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct team *t = w->team;
    unsigned seen = 0;
    for (;;) {
        seen = wait_while(&t->ticket, seen, t->spins);
        if (t->stop)
            return NULL;
        t->task(t->arg, w->index, t->n_workers);
        finish_task(t);
    }
}

/* Cores that the process may use: its affinity, cut to the cgroup v2 quota where one is set. */
static unsigned usable_cores(void)
{
    cpu_set_t set;
    unsigned n = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = (unsigned)CPU_COUNT(&set);
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    long long quota, period;
    if (f && fscanf(f, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0) {
        unsigned limit = (unsigned)((quota + period - 1) / period);
        if (limit < n)
            n = limit ? limit : 1;
    }
    if (f)
        fclose(f);
    return n ? n : 1;
}

struct team *team_create(unsigned n_threads)
{
    unsigned cores = usable_cores();
    if (n_threads == 0)
        n_threads = cores;
    if (n_threads > THREADS_MAX)
        n_threads = THREADS_MAX;
    struct team *t = mem_aligned(64, sizeof *t);
    if (!t)
        return NULL;
    t->n_workers = n_threads;
    t->spins = n_threads > cores ? 0 : SPINS;
    t->workers = mem_array(n_threads, sizeof *t->workers);
    if (!t->workers) {
        team_destroy(t);
        return NULL;
    }
    for (unsigned i = 1; i < n_threads; i++) {
        struct worker *w = &t->workers[i - 1];
        *w = (struct worker){.team = t, .index = i};
        if (pthread_create(&w->thread, NULL, worker_main, w) != 0) {
            team_destroy(t);
            return NULL;
        }
        t->n_started++;
    }
    return t;
}

void team_destroy(struct team *t)
{
    if (!t)
        return;
    t->stop = true; /* published by the ticket's change */
    change(&t->ticket, atomic_load_explicit(&t->ticket.value, memory_order_relaxed) + 1);
    for (unsigned i = 0; i < t->n_started; i++)
        pthread_join(t->workers[i].thread, NULL);
    mem_free(t->workers);
    mem_free(t);
}

unsigned team_size(const struct team *t)
{
    return t->n_workers;
}

void team_run(struct team *t, team_task *task, void *arg)
{
    if (t->n_workers == 1) {
        task(arg, 0, 1);
        return;
    }
    t->task = task;
    t->arg = arg;
    /* relaxed: the ticket's change below publishes both. */
    atomic_store_explicit(&t->pending.value, t->n_workers, memory_order_relaxed);
    change(&t->ticket, atomic_load_explicit(&t->ticket.value, memory_order_relaxed) + 1);
    task(arg, 0, t->n_workers);
    finish_task(t);
    unsigned left;
    while ((left = atomic_load_explicit(&t->pending.value, memory_order_acquire)) != 0)
        wait_while(&t->pending, left, t->spins);
}

unsigned team_arrive(struct team *t)
{
    unsigned phase = atomic_load_explicit(&t->phase.value, memory_order_relaxed);
    if (t->n_workers == 1)
        return phase;
    /* acq_rel: the last to arrive has seen all others' writes, and hands them on with the phase. The phase
     * can't have changed since it was read: that takes our arrival. */
    if (atomic_fetch_add_explicit(&t->n_arrived, 1, memory_order_acq_rel) == t->n_workers - 1) {
        atomic_store_explicit(&t->n_arrived, 0, memory_order_relaxed);
        change(&t->phase, phase + 1);
    }
    return phase;
}

void team_wait(struct team *t, unsigned ticket)
{
    if (t->n_workers > 1)
        wait_while(&t->phase, ticket, t->spins);
}

void team_barrier(struct team *t)
{
    team_wait(t, team_arrive(t));
}
