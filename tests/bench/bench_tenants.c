/* What tenants cost a request before it runs and behind it: its key, its voice, its limits. All of it is the
 * front thread's; nothing is added to a step but the choice among those that wait.
 *
 *   bench_tenants [TENANTS] [STEP_MS]      1000 tenants with two keys and voices of their own; a step of 10
 * ms */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "fairness.h"
#include "scheduler.h"
#include "tenants.h"

#define TIMES 20000
#define N_WAITING 1000U
#define N_PLACES 32U
#define N_RUNNING_MAX 4096U

static volatile uint64_t sink;
static char (*texts)[KEY_TEXT_LENGTH + 1];

static struct tenants *make(unsigned n)
{
    struct tenants *t = tenants_create();
    struct error err;
    texts = calloc(n, sizeof *texts);
    for (unsigned i = 0; t && texts && i < n; i++) {
        char name[20], json[100];
        struct tenant_spec *spec = NULL;
        struct fault f;
        snprintf(name, sizeof name, "tenant%u", i);
        snprintf(json, sizeof json, "{\"own_voices\":[\"%s-*\"],\"requests_per_minute\":1000000000}", name);
        json_t *settings = json_loads(json, 0, NULL);
        if (tenant_spec_parse(name, settings, &spec, &f) != STATUS_OK ||
            tenants_put(t, name, FROM_STATE, spec, 0, &err) != STATUS_OK)
            return NULL;
        json_decref(settings);
        for (int k = 0; k < 2; k++) {
            struct tenant_key key = {.name = "k"};
            if (!key_make(texts[i], key.id))
                return NULL;
            key_digest(texts[i], key.digest);
            snprintf(key.tenant, sizeof key.tenant, "%s", name);
            if (tenants_add_key(t, &key, &err) != STATUS_OK)
                return NULL;
        }
    }
    return t;
}

static double since_us(int64_t begin_ns, int times)
{
    return (double)(clock_now_ns() - begin_ns) / 1e3 / times;
}

static double time_keys(const struct tenants *t, unsigned n, bool right)
{
    struct tenant *who;
    int64_t begin = clock_now_ns();
    for (unsigned i = 0; i < TIMES; i++) {
        char text[KEY_TEXT_LENGTH + 1];
        snprintf(text, sizeof text, "%s", texts[i % n]);
        text[40] = right ? text[40] : 'x';
        sink += tenants_check(t, text, &who) != NULL;
    }
    return since_us(begin, TIMES);
}

static double time_voices(const struct tenants *t)
{
    const struct tenant_spec *spec = tenant_spec_of(tenants_at(t, 0));
    int64_t begin = clock_now_ns();
    for (unsigned i = 0; i < TIMES / 10; i++)
        sink += tenants_may_use(t, spec, i % 2 ? "pt" : "tenant7-x");
    return since_us(begin, TIMES / 10);
}

/* Four windows: room, take, what is left for the headers, give back. */
static double time_limits(struct tenants *t)
{
    struct tenant *one = tenants_at(t, 0);
    struct window *all[] = {&one->requests_minute, &one->requests_day, &one->tokens_minute, &one->tokens_day};
    int64_t begin = clock_now_ns();
    for (unsigned i = 0; i < TIMES; i++)
        for (int k = 0; k < 4; k++) {
            int64_t now = clock_now_ns();
            sink += window_room(all[k], now) > 100;
            window_take(all[k], 100, now);
            sink += (uint64_t)window_reset_ns(all[k], now);
            window_give(all[k], 60, now, now);
        }
    return since_us(begin, TIMES);
}

/* A step that fills N_PLACES from a full queue; most steps fill none. */
static double time_choice(int64_t now_ns)
{
    static struct generation g[N_WAITING];
    struct fair f;
    if (!fair_init(&f, ENGINE_CALLERS_MAX, N_WAITING, ENGINE_WAIT_BOUND_NS, 64))
        return 0;
    for (unsigned i = 0; i < N_WAITING; i++) {
        g[i] = (struct generation){
            .n_prompt = 100, .max_tokens = 100, .caller = {.number = 1 + i % 100, .weight = 1}};
        fair_arrives(&f, &g[i], 1);
    }
    int64_t begin = clock_now_ns();
    for (unsigned times = 0; times < 100; times++) {
        bool late;
        fair_plan(&f, now_ns);
        for (uint32_t i = N_WAITING; i-- > 0;)
            fair_put(&f, &g[i], i);
        for (unsigned k = 0; k < N_PLACES; k++) {
            uint32_t next = fair_pick(&f, &late);
            sink += fair_take(&f, &g[next], next, 1000);
        }
    }
    double us = since_us(begin, 100);
    fair_fini(&f);
    return us;
}

/* A plan for n that decode, in no order, and N_PLACES that wait with so many tokens: behind them, or overdue
 * and in their places, if these leave memory enough. */
static double time_plan(uint32_t n, bool overdue, uint32_t n_known)
{
    static struct schedule_entry known[N_RUNNING_MAX + N_PLACES], entries[N_RUNNING_MAX + N_PLACES];
    static const char voices[7];
    int64_t spent_ns = 0;
    for (uint32_t i = 0; i < n + N_PLACES; i++)
        known[i] = (struct schedule_entry){.state = i < n ? SCHEDULE_RUNNING : SCHEDULE_WAITING,
                                           .priority = i >= n && overdue ? INT32_MAX : 0,
                                           .turn = i < n ? 0 : i,
                                           .arrival = i * 2654435761U,
                                           .n_known = i < n ? 100 : n_known,
                                           .n_computed = i < n ? 99 : 0,
                                           .n_pages = i < n ? 4 : 0,
                                           .logits_from = (i < n ? 100 : n_known) - 1,
                                           .caller = i % 100,
                                           .voice = &voices[i % 7],
                                           .yields = i < n,
                                           .overdue = i >= n && overdue};
    for (unsigned times = 0; times < 20; times++) {
        struct schedule s = {.step_tokens = n + 64,
                             .chunk_tokens = 64,
                             .page_tokens = 32,
                             .n_pages_free = 100 * n,
                             .n_aside_most = n,
                             .entries = entries,
                             .n_entries = n + N_PLACES};
        memcpy(entries, known, s.n_entries * sizeof *entries);
        int64_t begin = clock_now_ns();
        schedule_plan(&s);
        spent_ns += clock_now_ns() - begin;
        sink += schedule_tokens(&s);
    }
    return (double)spent_ns / 1e3 / 20;
}

static void print_plans(double step_us)
{
    static const uint32_t places[] = {64, N_RUNNING_MAX};
    for (unsigned i = 0; i < 2; i++) {
        char what[64];
        double plain = time_plan(places[i], false, 100), overdue = time_plan(places[i], true, 100),
               short_of = time_plan(places[i], true, places[i] * 10000);
        snprintf(what, sizeof what, "a plan of %u that run and 32 that wait", places[i]);
        printf("%-44s %8.2f us = %.3f %%\n", what, plain, 100 * plain / step_us);
        printf("%-44s %8.2f us = %.3f %%\n", "the same, those that wait are overdue", overdue,
               100 * overdue / step_us);
        printf("%-44s %8.2f us = %.3f %%\n", "the same, they lack memory whoever yields", short_of,
               100 * short_of / step_us);
    }
}

int main(int argc, char **argv)
{
    unsigned n = argc > 1 ? (unsigned)atoi(argv[1]) : 1000;
    double step_us = (argc > 2 ? atof(argv[2]) : 10) * 1e3;
    struct tenants *t = n >= 10 && n <= TENANTS_MAX ? make(n) : NULL;
    if (!t) {
        fprintf(stderr, "usage: bench_tenants [TENANTS: 10 to %u] [STEP_MS]\n", TENANTS_MAX);
        return 2;
    }
    double right = time_keys(t, n, true), wrong = time_keys(t, n, false), voices = time_voices(t),
           limits = time_limits(t), choice = time_choice(2), late = time_choice(ENGINE_WAIT_BOUND_NS + 2),
           all = right + voices + limits;
    printf("%u tenants, %u keys\n", n, 2 * n);
    printf("%-44s %8.2f us\n", "a right key", right);
    printf("%-44s %8.2f us\n", "a wrong one", wrong);
    printf("%-44s %8.2f us\n", "whether a voice may be used", voices);
    printf("%-44s %8.2f us\n", "four limits, with what the headers say", limits);
    printf("%-44s %8.2f us = %.3f %% of a step of %g ms\n", "a request in all", all, 100 * all / step_us,
           step_us / 1e3);
    printf("%-44s %8.2f us = %.3f %%\n", "a step that fills 32 places from 1000 waiting", choice,
           100 * choice / step_us);
    printf("%-44s %8.2f us = %.3f %%\n", "the same, all of them beyond the bound", late,
           100 * late / step_us);
    print_plans(step_us);
    tenants_destroy(t);
    free(texts);
    return 0;
}
