/* The worker team: tasks are announced by a ticket, joined by a countdown; both are waited for by spinning
 * for a moment and then sleeping on a futex.
 *
 *   caller   task, arg written → next ticket (release) → wake sleepers → works as worker 0 → waits until
 *            pending is 0
 *   worker   waits for a new ticket (acquire) → works → pending-- (release; the last one wakes the caller)
 *
 * A ticket is a serial number and, in its lowest bits, how many workers it calls; a worker that it doesn't
 * call sleeps on another word, which changes when more are called than before, so tasks of few cost the
 * others nothing. A worker can't run a task twice: the caller goes on only when all who were called are
 * through.
 *
 * Owner: the thread that calls team_run. */
#include "base/team.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cpus.h"
#include "base/error.h"
#include "base/mem.h"

/* About 20-50 us of pauses: longer than the gap between two tasks of a step, shorter than a scheduler's
 * slice. */
#define SPINS 2000
#define CALLED_BITS 9U /* of a ticket: 1 to TEAM_THREADS_MAX */
#define CALLED_MASK ((1U << CALLED_BITS) - 1)

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
    atomic_int tid; /* 0: not running yet */
};

struct team {
    struct signal_word ticket;  /* changes with every task */
    struct signal_word grown;   /* changes when a ticket calls more than the one before */
    struct signal_word pending; /* workers that have not finished the task */
    struct signal_word phase;   /* changes with every completed barrier */
    _Alignas(64) atomic_uint n_arrived;
    team_task *task;
    void *arg;
    bool stop;
    unsigned n_workers; /* caller included */
    unsigned n_active;  /* that tasks run on; changed between tasks, published by the ticket */
    unsigned n_called;  /* by the last ticket */
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

static bool is_called(const struct worker *w, unsigned ticket)
{
    return w->index < (ticket & CALLED_MASK);
}

/* The next ticket behind `seen` that calls the worker. */
static unsigned wait_for_call(struct worker *w, unsigned seen)
{
    struct team *t = w->team;
    unsigned ticket = wait_while(&t->ticket, seen, t->spins);
    while (!is_called(w, ticket)) {
        /* acquire: a change that was seen has its ticket before it, one that wasn't ends the wait below */
        unsigned grown = atomic_load_explicit(&t->grown.value, memory_order_acquire);
        ticket = atomic_load_explicit(&t->ticket.value, memory_order_acquire);
        if (!is_called(w, ticket))
            wait_while(&t->grown, grown, 0);
    }
    return ticket;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct team *t = w->team;
    unsigned seen = 0;
    /* relaxed: nothing else is told by it */
    atomic_store_explicit(&w->tid, (int)syscall(SYS_gettid), memory_order_relaxed);
    for (;;) {
        seen = wait_for_call(w, seen);
        if (t->stop)
            return NULL;
        t->task(t->arg, w->index, t->n_active);
        finish_task(t);
    }
}

/* Publishes what was written before to the n first workers, and wakes them. */
static void call_workers(struct team *t, unsigned n)
{
    unsigned before = atomic_load_explicit(&t->ticket.value, memory_order_relaxed);
    bool more = n > t->n_called;
    t->n_called = n;
    change(&t->ticket, ((before >> CALLED_BITS) + 1) << CALLED_BITS | n);
    if (more)
        change(&t->grown, atomic_load_explicit(&t->grown.value, memory_order_relaxed) + 1);
}

struct team *team_create(unsigned n_threads)
{
    unsigned cores = cpus_usable();
    if (n_threads == 0)
        n_threads = cores;
    if (n_threads > TEAM_THREADS_MAX)
        n_threads = TEAM_THREADS_MAX;
    struct team *t = mem_aligned(64, sizeof *t);
    if (!t)
        return NULL;
    t->n_workers = t->n_active = t->n_called = n_threads;
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
    call_workers(t, t->n_workers);
    for (unsigned i = 0; i < t->n_started; i++)
        pthread_join(t->workers[i].thread, NULL);
    mem_free(t->workers);
    mem_free(t);
}

unsigned team_size(const struct team *t)
{
    return t->n_workers;
}

unsigned team_active(const struct team *t)
{
    return t->n_active;
}

void team_set_active(struct team *t, unsigned n)
{
    require(n >= 1 && n <= t->n_workers);
    t->n_active = n;
}

int team_tid(const struct team *t, unsigned worker)
{
    require(worker >= 1 && worker < t->n_workers);
    return atomic_load_explicit(&t->workers[worker - 1].tid, memory_order_relaxed);
}

void team_run(struct team *t, team_task *task, void *arg)
{
    if (t->n_active == 1) {
        task(arg, 0, 1);
        return;
    }
    t->task = task;
    t->arg = arg;
    /* relaxed: the ticket's change below publishes both. */
    atomic_store_explicit(&t->pending.value, t->n_active, memory_order_relaxed);
    call_workers(t, t->n_active);
    task(arg, 0, t->n_active);
    finish_task(t);
    unsigned left;
    while ((left = atomic_load_explicit(&t->pending.value, memory_order_acquire)) != 0)
        wait_while(&t->pending, left, t->spins);
}

unsigned team_arrive(struct team *t)
{
    unsigned phase = atomic_load_explicit(&t->phase.value, memory_order_relaxed);
    if (t->n_active == 1)
        return phase;
    /* acq_rel: the last to arrive has seen all others' writes, and hands them on with the phase. The phase
     * can't have changed since it was read: that takes our arrival. */
    if (atomic_fetch_add_explicit(&t->n_arrived, 1, memory_order_acq_rel) == t->n_active - 1) {
        atomic_store_explicit(&t->n_arrived, 0, memory_order_relaxed);
        change(&t->phase, phase + 1);
    }
    return phase;
}

void team_wait(struct team *t, unsigned ticket)
{
    if (t->n_active > 1)
        wait_while(&t->phase, ticket, t->spins);
}

void team_barrier(struct team *t)
{
    team_wait(t, team_arrive(t));
}
