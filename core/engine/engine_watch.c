/* A thread that looks once a second, while the engine works, at what the kernel says of the team's threads
 * and of the machine, and decides (pace.h) how many of them the next steps have, and whether they stay on
 * their CPUs. The engine thread reads one number before a step; it never waits for this one.
 *
 * Workers are pinned from here: their affinity is the kernel's business, not the step's.
 *
 * While the engine is idle this thread sleeps, too. It takes no memory after its start (the engine counts).
 */
#include "engine_inner.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpus.h"
#include "base/mem.h"
#include "pace.h"

#define LOOK_NS NS_PER_S
#define STAT_BYTES (1U << 18) /* of /proc/stat, whose CPUs come first */

struct engine_watch {
    /* immutable */
    unsigned n_threads;
    void (*on_threads)(void *data, const struct engine_threads *now);
    void *data;

    /* between the threads; all relaxed but `asleep`: numbers that stand for themselves */
    atomic_uint n_active, limit;
    atomic_bool pinned;
    atomic_int engine_tid;
    atomic_bool asleep;   /* seq_cst: pairs with counters.n_live, see sleep_if_idle */
    pthread_mutex_t lock; /* a leaf */
    pthread_cond_t wake;
    bool stopping; /* under the lock */

    /* the watch's thread */
    pthread_t thread;
    bool has_thread;
    struct pace pace;
    struct cpu_sample sample;
    struct thread_times times[TEAM_THREADS_MAX];
    bool has_times;
    uint64_t step_ns;
    char stat[STAT_BYTES];
};

const char *thread_limit_name(enum thread_limit limit)
{
    static const char *const names[THREAD_LIMITS] = {
#define THREAD_LIMIT_NAME(id, name) name,
        THREAD_LIMIT_LIST(THREAD_LIMIT_NAME)
#undef THREAD_LIMIT_NAME
    };
    require(limit < THREAD_LIMITS);
    return names[limit];
}

/* ---- the engine's side ---- */

enum status engine_watch_create(struct engine *e, const struct engine_options *o, struct error *err)
{
    unsigned n = team_size(e->team);
    if (n == 1)
        return STATUS_OK;
    struct engine_watch *w = e->watch = mem_zalloc(sizeof *w);
    if (!w)
        return fail(err, STATUS_NO_MEMORY, "no memory to watch the threads");
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&w->lock, NULL);
    w->n_threads = n;
    w->on_threads = o->on_threads;
    w->data = o->on_threads_data;
    w->pace = pace_begin(n, o->n_threads != 0, !o->pin_off);
    atomic_init(&w->n_active, n);
    atomic_init(&w->asleep, true);
    return STATUS_OK;
}

void engine_watch_stop(struct engine *e)
{
    struct engine_watch *w = e->watch;
    if (!w || !w->has_thread)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    w->has_thread = false;
}

void engine_watch_destroy(struct engine_watch *w)
{
    if (!w)
        return;
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->wake);
    mem_free(w);
}

void engine_watch_joined(struct engine *e)
{
    if (e->watch)
        atomic_store_explicit(&e->watch->engine_tid, (int)syscall(SYS_gettid), memory_order_relaxed);
}

void engine_watch_busy(struct engine *e)
{
    struct engine_watch *w = e->watch;
    if (!w || !atomic_exchange(&w->asleep, false))
        return;
    pthread_mutex_lock(&w->lock);
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

void engine_watch_apply(struct engine *e)
{
    unsigned n = e->watch ? atomic_load_explicit(&e->watch->n_active, memory_order_relaxed) : 1;
    if (e->watch && n != team_active(e->team))
        team_set_active(e->team, n);
}

struct engine_threads engine_watch_threads(const struct engine *e)
{
    const struct engine_watch *w = e->watch;
    if (!w)
        return (struct engine_threads){.n = 1, .n_max = 1};
    return (struct engine_threads){
        .n = atomic_load_explicit(&w->n_active, memory_order_relaxed),
        .n_max = w->n_threads,
        .limit = (enum thread_limit)atomic_load_explicit(&w->limit, memory_order_relaxed),
        .pinned = atomic_load_explicit(&w->pinned, memory_order_relaxed)};
}

/* ---- pins ---- */

static int tid_of(const struct engine *e, unsigned worker)
{
    return worker ? team_tid(e->team, worker)
                  : atomic_load_explicit(&e->watch->engine_tid, memory_order_relaxed);
}

/* False: a thread could not be pinned, or has gone. */
static bool pin(const struct engine *e, const cpu_set_t *allowed)
{
    unsigned n = e->watch->n_threads;
    int now[TEAM_THREADS_MAX];
    uint16_t at[TEAM_THREADS_MAX];
    for (unsigned i = 0; i < n; i++)
        now[i] = cpus_thread_cpu("", tid_of(e, i));
    bool done = cpus_place("", allowed, now, n, at);
    for (unsigned i = 0; i < n && done; i++) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(at[i], &one);
        done = tid_of(e, i) != 0 && sched_setaffinity(tid_of(e, i), sizeof one, &one) == 0;
    }
    return done;
}

static void set_free(const struct engine *e, const cpu_set_t *allowed)
{
    for (unsigned i = 0; i < e->watch->n_threads; i++)
        if (tid_of(e, i))
            sched_setaffinity(tid_of(e, i), sizeof *allowed, allowed);
}

/* ---- a look ---- */

static double rate(uint64_t before, uint64_t after, double ns)
{
    return after > before && ns > 0 ? (double)(after - before) / ns : 0;
}

/* What the team's threads did since the last look. False: unknown. */
static bool look_at_threads(struct engine *e, struct thread_times *sum)
{
    struct engine_watch *w = e->watch;
    bool all = true;
    *sum = (struct thread_times){0};
    for (unsigned i = 0; i < w->n_threads; i++) {
        struct thread_times now, *before = &w->times[i];
        all = cpus_thread_times("", tid_of(e, i), &now) && all;
        sum->run_ns += now.run_ns - before->run_ns;
        sum->delay_ns += now.delay_ns - before->delay_ns;
        *before = now;
    }
    bool usable = all && w->has_times;
    w->has_times = all;
    if (!usable)
        *sum = (struct thread_times){0};
    return usable;
}

/* Time in steps so far, the one that is being made included. */
static uint64_t time_in_steps(const struct engine *e)
{
    uint64_t began_ns = atomic_load_explicit(&e->counters.step_began_ns, memory_order_relaxed);
    uint64_t ns = atomic_load_explicit(&e->counters.step_ns, memory_order_relaxed),
             now_ns = (uint64_t)clock_now_ns();
    return began_ns && began_ns < now_ns ? ns + now_ns - began_ns : ns;
}

/* Rates while the team worked. Throttled threads count as delayed by the kernel: that part is taken out. */
static struct pace_window look(struct engine *e, const cpu_set_t *allowed)
{
    struct engine_watch *w = e->watch;
    struct cpu_sample before = w->sample, *now = &w->sample;
    now->at_ns = clock_now_ns();
    cpus_sample("", allowed, w->stat, sizeof w->stat, now);
    double wall_ns = (double)(now->at_ns - before.at_ns);
    struct thread_times t;
    bool has_times = look_at_threads(e, &t);
    uint64_t step_ns = time_in_steps(e);
    double busy = rate(w->step_ns, step_ns, wall_ns);
    bool has_stat = now->has_stat && before.has_stat;
    unsigned n_allowed = (unsigned)CPU_COUNT(allowed), quota = cpus_quota("");
    struct pace_window out = {.at_ns = now->at_ns,
                              .busy = busy < 1 ? busy : 1,
                              .spare = -1,
                              .n_cpus = quota && quota < n_allowed ? quota : n_allowed,
                              .has_quota = quota && quota < n_allowed};
    w->step_ns = step_ns;
    double worked_ns = wall_ns * out.busy, n = w->pace.n_active;
    double throttled = rate(before.throttled_ns, now->throttled_ns, worked_ns);
    double delayed = rate(0, t.delay_ns, worked_ns) - throttled;
    out.ran = rate(0, t.run_ns, worked_ns);
    out.stopped = throttled / n < 1 ? throttled / n : 1;
    out.delayed = delayed > 0 ? delayed : 0;
    if (!has_stat)
        return out;
    double used_ns = (double)(now->busy_ns - before.busy_ns); /* by all: of what is stolen, a part is ours */
    double ours = has_times && (double)t.run_ns < used_ns ? (double)t.run_ns / used_ns : 1;
    out.stolen = rate(before.stolen_ns, now->stolen_ns, worked_ns) * ours;
    if (has_times) /* what our own workers leave idle is no room for more of them */
        out.spare = rate(before.idle_ns, now->idle_ns, wall_ns) - (n - (double)t.run_ns / wall_ns);
    return out;
}

static void decide(struct engine *e)
{
    struct engine_watch *w = e->watch;
    cpu_set_t allowed;
    cpus_allowed(&allowed);
    bool was_pinned = w->pace.pinned;
    struct pace_window window = look(e, &allowed);
    if (!pace_look(&w->pace, &window))
        return;
    if (w->pace.pinned && !was_pinned && !pin(e, &allowed)) {
        w->pace.pinned = w->pace.may_pin = false; /* it isn't ours to say here */
        set_free(e, &allowed);
    }
    if (was_pinned && !w->pace.pinned)
        set_free(e, &allowed);
    const struct engine_threads before = engine_watch_threads(e);
    atomic_store_explicit(&w->n_active, w->pace.n_active, memory_order_relaxed);
    atomic_store_explicit(&w->limit, w->pace.limit, memory_order_relaxed);
    atomic_store_explicit(&w->pinned, w->pace.pinned, memory_order_relaxed);
    const struct engine_threads now = engine_watch_threads(e);
    bool changed = now.n != before.n || now.limit != before.limit || now.pinned != before.pinned;
    if (changed && w->on_threads)
        w->on_threads(w->data, &now);
}

/* ---- the thread ---- */

/* The first numbers behind a sleep. */
static void begin(struct engine *e)
{
    struct engine_watch *w = e->watch;
    cpu_set_t allowed;
    struct thread_times ignored;
    cpus_allowed(&allowed);
    w->sample.at_ns = clock_now_ns();
    cpus_sample("", &allowed, w->stat, sizeof w->stat, &w->sample);
    w->step_ns = time_in_steps(e);
    look_at_threads(e, &ignored);
}

/* Who submits counts first, and later the engine thread looks whether we sleep; we lie down first and then
 * look at the count. The exchanges see each other's, so one of the two sees the other. */
static void sleep_if_idle(struct engine *e)
{
    atomic_exchange(&e->watch->asleep, true);
    if (atomic_load(&e->counters.n_live) > 0)
        atomic_store(&e->watch->asleep, false);
}

/* False: the end. */
static bool wait_for_look(struct engine_watch *w, bool *slept)
{
    int64_t at_ns = clock_now_ns() + LOOK_NS;
    struct timespec until = {.tv_sec = at_ns / NS_PER_S, .tv_nsec = at_ns % NS_PER_S};
    *slept = false;
    pthread_mutex_lock(&w->lock);
    int status = 0;
    while (!w->stopping && (atomic_load(&w->asleep) || status == 0)) {
        if (atomic_load(&w->asleep)) {
            *slept = true;
            pthread_cond_wait(&w->wake, &w->lock);
            status = ETIMEDOUT; /* what was measured before the sleep is old */
        } else {
            status = pthread_cond_timedwait(&w->wake, &w->lock, &until);
        }
    }
    bool goes_on = !w->stopping;
    pthread_mutex_unlock(&w->lock);
    return goes_on;
}

static void *watch_main(void *arg)
{
    struct engine *e = arg;
    bool slept;
    while (wait_for_look(e->watch, &slept)) {
        if (slept)
            begin(e);
        else
            decide(e);
        sleep_if_idle(e);
    }
    return NULL;
}

enum status engine_watch_start(struct engine *e, struct error *err)
{
    sigset_t all, before;
    struct engine_watch *w = e->watch;
    if (!w)
        return STATUS_OK;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    w->has_thread = pthread_create(&w->thread, NULL, watch_main, e) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return w->has_thread ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "the watch's thread can't be started");
}
