/* The simulation's program: `sim pinned` runs a short, fixed set of seeds (make test), `sim run STEPS [SEED]`
 * many new ones (make sim), `sim seed N [STEPS]` one again. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

#define STEPS_OF_SEED 20000U

/* Seeds that found something stay here, with what it was. */
static const struct {
    uint64_t seed;
    const char *about;
} pinned[] = {
    {2, "numbers that no kept change had were given to other content after a kill"},
    {4, "tenants"},
    {6, "prefixes shared between requests"},
    {9, "few KV pages: sequences are paused"},
    {11, "rollbacks"},
    {13, "evictions"},
    {14, "rollbacks of names with a shadow"},
    {17, "traffic"},
    {18, "evictions"},
    {77005, "a tenant above its share needs room: with shares ignored it takes another's voice"},
};

static uint64_t current_seed; /* for the handler alone */

/* A broken promise inside: say which run it was. */
static void on_abort(int number)
{
    char text[64];
    int n = snprintf(text, sizeof text, "aborted in seed %llu\n", (unsigned long long)current_seed);
    (void)number;
    if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0)
        _exit(2);
    _exit(1);
}

static void pass_time(struct world *w)
{
    w->now_ns += (int64_t)(1 + sim_below(w, sim_chance(w, 5) ? 2000 : 20)) * MS;
    if (w->now_ns - w->swept_ns < 1000 * MS)
        return;
    w->swept_ns = w->now_ns;
    w->cause = CAUSE_SWEEP;
    registry_sweep(w->registry, w->now_ns);
    w->cause = CAUSE_OTHER;
    for (uint32_t i = 0; i < w->n_names; i++) {
        const struct adapter *a = sim_find(w, i);
        for (uint32_t j = 0; a && j < a->n_records; j++)
            CHECK(w,
                  !a->records[j].version || !a->records[j].keep_until_ns ||
                      a->records[j].keep_until_ns > w->now_ns,
                  "%s: generation %llu is kept beyond its time", sim_name(i),
                  (unsigned long long)a->records[j].generation);
    }
}

/* No new work; what there is comes to its end. */
static void come_to_rest(struct world *w)
{
    bool busy = true;
    for (uint32_t i = 0; busy; i++) {
        CHECK(w, i < 20000, "it doesn't come to rest");
        busy = false;
        pass_time(w);
        engine_step(w);
        front_events(w, EVENTS_MAX);
        front_loads(w);
        operator_writes(w);
        check_all(w);
        for (const struct request *r = w->requests; r < w->requests + REQUESTS_MAX; r++)
            busy |= r->state != REQUEST_NONE;
        for (const struct load *l = w->loads; l < w->loads + LOADS_MAX; l++)
            busy |= l->used;
        if (i > 100)
            front_hang_up(w); /* answers that are still being read */
    }
    check_rest(w);
}

static void step(struct world *w)
{
    uint64_t what = sim_below(w, 1000), arrivals = w->arrivals_percent * 10;
    if (what < arrivals)
        front_arrival(w);
    else if (what < arrivals + 30)
        front_hang_up(w);
    else if (what < arrivals + 70)
        operator_act(w);
    else if (what < arrivals + 85)
        operator_publisher(w);
    else if (what < arrivals + 160)
        front_events(w, 1 + (uint32_t)sim_below(w, 60));
    else if (what < arrivals + 240)
        front_loads(w);
    else if (what < arrivals + 250)
        operator_writes(w);
    else if (what < arrivals + 330)
        pass_time(w);
    else if (what == 999 && sim_chance(w, 20))
        operator_kill(w);
    else if (what == 998 && sim_chance(w, 20))
        come_to_rest(w);
    else
        for (uint64_t n = 1 + sim_below(w, 3); n; n--)
            engine_step(w);
    if (w->events_in - w->events_out > EVENTS_MAX / 2)
        front_events(w, EVENTS_MAX);
}

struct sums {
    uint64_t steps, tokens, finals, published, failed, full, evicted, rollbacks, kills, pages, loads, paused,
        rests, gone, waited, late, taken_back, yields, voice_wait_ms;
};

static void add_up(struct sums *s, const struct world *w)
{
    s->steps += w->step;
    s->tokens += w->n_tokens;
    s->finals += w->n_finals;
    s->published += w->n_published;
    s->failed += w->n_failed;
    s->full += w->n_full;
    s->evicted += w->n_evicted;
    s->rollbacks += w->n_rollbacks;
    s->kills += w->n_kills;
    s->pages += w->n_shared_pages;
    s->loads += w->n_shared_loads;
    s->paused += w->n_paused;
    s->rests += w->n_rests;
    s->gone += w->n_gone;
    s->waited += w->n_waited;
    s->late += w->n_late;
    s->taken_back += w->n_taken_back;
    s->yields += w->n_yields;
    uint64_t ms = (uint64_t)(w->voice_wait_max_ns / MS);
    s->voice_wait_ms = ms > s->voice_wait_ms ? ms : s->voice_wait_ms;
}

static bool run(uint64_t seed, uint32_t steps, struct sums *sums)
{
    struct world *w = calloc(1, sizeof *w);
    if (!w)
        return false;
    current_seed = seed;
    if (setjmp(w->failed)) {
        printf("FAIL seed %llu, step %llu: %s\n     again: build/release/tests/sim/sim seed %llu %u\n",
               (unsigned long long)seed, (unsigned long long)w->step, w->why, (unsigned long long)seed,
               steps);
        free(w); /* the rest is left as it was found */
        return false;
    }
    world_open(w, seed);
    for (; w->step < steps; w->step++) {
        step(w);
        check_all(w);
    }
    come_to_rest(w);
    add_up(sums, w);
    world_close(w);
    free(w);
    return true;
}

static void print_sums(const struct sums *s)
{
    printf(
        "%llu steps: %llu requests ended, %llu tokens, %llu publications, %llu failed loads, %llu without "
        "room "
        "(%llu waited), %llu evictions, %llu rollbacks, %llu kills, %llu requests shared a load, %llu pages "
        "shared, %llu pauses, %llu versions gone, %llu times at rest, "
        "%llu starts beyond the bound (the longest wait of a voice: %llu ms), %llu pauses of what was lent, "
        "%llu for the bound\n",
        (unsigned long long)s->steps, (unsigned long long)s->finals, (unsigned long long)s->tokens,
        (unsigned long long)s->published, (unsigned long long)s->failed, (unsigned long long)s->full,
        (unsigned long long)s->waited, (unsigned long long)s->evicted, (unsigned long long)s->rollbacks,
        (unsigned long long)s->kills, (unsigned long long)s->loads, (unsigned long long)s->pages,
        (unsigned long long)s->paused, (unsigned long long)s->gone, (unsigned long long)s->rests,
        (unsigned long long)s->late, (unsigned long long)s->voice_wait_ms, (unsigned long long)s->taken_back,
        (unsigned long long)s->yields);
}

static int run_pinned(void)
{
    struct sums sums = {0};
    uint32_t n_failed = 0, n = sizeof pinned / sizeof pinned[0];
    for (uint32_t i = 0; i < n; i++)
        if (run(pinned[i].seed, STEPS_OF_SEED, &sums))
            printf("ok   seed %llu: %s\n", (unsigned long long)pinned[i].seed, pinned[i].about);
        else
            n_failed++;
    print_sums(&sums);
    printf("%u passed, %u failed, 0 skipped\n", n - n_failed, n_failed);
    return n_failed > 0;
}

static int run_many(uint64_t steps, uint64_t seed)
{
    struct sums sums = {0};
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (; sums.steps < steps; seed++)
        if (!run(seed, STEPS_OF_SEED, &sums))
            return 1;
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    print_sums(&sums);
    printf("%.0f steps a second; the next seed is %llu\n", (double)sums.steps / seconds,
           (unsigned long long)seed);
    return 0;
}

int main(int argc, char **argv)
{
    struct sums sums = {0};
    const char *what = argc > 1 ? argv[1] : "pinned";
    uint64_t a = argc > 2 ? strtoull(argv[2], NULL, 10) : 0, b = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    signal(SIGABRT, on_abort);
    if (strcmp(what, "pinned") == 0)
        return run_pinned();
    if (strcmp(what, "run") == 0 && a)
        return run_many(a, argc > 3 ? b : (uint64_t)time(NULL) * 1000);
    if (strcmp(what, "seed") == 0 && argc > 2) {
        bool ok = run(a, b ? (uint32_t)b : STEPS_OF_SEED, &sums);
        print_sums(&sums);
        return !ok;
    }
    fprintf(stderr, "usage: sim pinned | sim run STEPS [SEED] | sim seed N [STEPS]\n");
    return 2;
}
