/* Who is served next, in a simulation with a clock of its own: places that come free one after the other, and
 * callers that always have something waiting. Weights hold, and nobody waits beyond the bound. */
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fairness.h"

#define N_PLACES 2048U
#define N_VOICES_MAX 128U
#define BOUND_NS (30 * INT64_C(1000000000))
#define SECOND_NS INT64_C(1000000000)

struct client {
    uint32_t number, n_requests; /* of each voice that wait at any time */
    uint32_t n_voices;
    float weight;
    bool batch;
};

struct served {
    uint64_t n, n_of_voice[N_VOICES_MAX];
    int64_t gap_ns; /* the longest for which nothing of one of its voices was started */
    int64_t caller_gap_ns, last_ns;
};

struct place {
    struct generation g;
    uint64_t order;
    uint32_t client, voice;
};

struct world {
    struct fair f;
    struct place *queue; /* [n] in order of arrival */
    uint32_t n;
    uint64_t n_ever;
    int64_t now_ns;
};

static char loras[N_VOICES_MAX]; /* an adapter is an address here */

static void arrive(struct world *w, const struct client *c, uint32_t client, uint32_t voice)
{
    assert_true(w->n < N_PLACES);
    struct place *p = &w->queue[w->n++];
    *p = (struct place){.order = w->n_ever++, .client = client, .voice = voice};
    p->g = (struct generation){.n_prompt = 10,
                               .max_tokens = 10,
                               .lora = (struct lora *)(void *)(voice ? &loras[voice] : NULL),
                               .caller = {.number = c->number, .weight = c->weight, .batch = c->batch}};
    fair_arrives(&w->f, &p->g, w->now_ns);
}

/* The next one that a free place gets. */
static uint32_t next_of(struct world *w)
{
    bool late = false;
    if (!fair_plan(&w->f, w->now_ns))
        return 0;
    for (uint32_t i = w->n; i-- > 0;)
        fair_put(&w->f, &w->queue[i].g, i);
    uint32_t i = fair_pick(&w->f, &late);
    assert_true(i < w->n);
    assert_true(fair_take(&w->f, &w->queue[i].g, i, 1000));
    return i;
}

/* A place comes free every start_ns; who was served asks again at once. */
static void simulate(const struct client *clients, uint32_t n_clients, int64_t start_ns, int64_t until_ns,
                     struct served *out)
{
    struct world w = {.queue = calloc(N_PLACES, sizeof *w.queue)};
    assert_true(w.queue && fair_init(&w.f, ENGINE_CALLERS_MAX, N_PLACES, BOUND_NS, 4));
    memset(out, 0, n_clients * sizeof *out);
    for (uint32_t i = 0; i < n_clients; i++)
        for (uint32_t k = 0; k < clients[i].n_requests * clients[i].n_voices; k++)
            arrive(&w, &clients[i], i, k % clients[i].n_voices);
    for (; w.now_ns < until_ns; w.now_ns += start_ns) {
        uint32_t at = next_of(&w), client = w.queue[at].client, voice = w.queue[at].voice;
        struct served *s = &out[client];
        struct generation g = w.queue[at].g;
        int64_t gap_ns = fair_starts(&w.f, &g, at, g.n_prompt, w.now_ns);
        assert_true(w.f.n_since <= FAIR_LATE_EVERY);
        fair_generates(&w.f, &g, 10);
        fair_ends(&w.f, &g);
        memmove(&w.queue[at], &w.queue[at + 1], (--w.n - at) * sizeof *w.queue);
        s->n++;
        s->n_of_voice[voice]++;
        s->gap_ns = gap_ns > s->gap_ns ? gap_ns : s->gap_ns;
        if (w.now_ns - s->last_ns > s->caller_gap_ns)
            s->caller_gap_ns = w.now_ns - s->last_ns;
        s->last_ns = w.now_ns;
        arrive(&w, &clients[client], client, voice);
    }
    for (uint32_t i = 0; i < n_clients; i++)
        if (w.now_ns - out[i].last_ns > out[i].caller_gap_ns)
            out[i].caller_gap_ns = w.now_ns - out[i].last_ns;
    fair_fini(&w.f);
    free(w.queue);
}

/* 100 requests of each, far more than are served within the bound: all of them wait longer than it, and the
 * shares are the weights'. */
static void weights_hold_when_everybody_waits(void **state)
{
    (void)state;
    static const struct client clients[] = {{1, 100, 1, 1, false}, {2, 100, 1, 3, false}};
    struct served s[2];
    simulate(clients, 2, SECOND_NS / 2, 600 * SECOND_NS, s);
    double ratio = (double)s[1].n / (double)s[0].n;
    if (fabs(ratio / 3 - 1) > 0.05)
        fail_msg("%llu to %llu", (unsigned long long)s[0].n, (unsigned long long)s[1].n);
    assert_true(s[0].gap_ns <= BOUND_NS);
}

/* One whose weight would let it wait for a quarter of an hour waits for the bound, and gets no more. */
static void the_least_weight_waits_for_the_bound(void **state)
{
    (void)state;
    for (int batch = 0; batch < 2; batch++) {
        const struct client clients[] = {{1, 10, 1, 0.001F, batch}, {2, 100, 1, 1, false}};
        struct served s[2];
        simulate(clients, 2, SECOND_NS, 3600 * SECOND_NS, s);
        assert_true(s[0].caller_gap_ns <= BOUND_NS + SECOND_NS);
        assert_in_range(s[0].n, 3600 / 31, 3600 / 30 + 4);
    }
}

/* Of a tenant with many voices each is served, whatever waits before it, and the tenant gets no more for it.
 */
static void voices_of_a_tenant_take_turns(void **state)
{
    (void)state;
    const struct client clients[] = {{1, 1, 100, 1, false}, {2, 100, 1, 3, false}};
    struct served s[2];
    simulate(clients, 2, SECOND_NS, 4000 * SECOND_NS, s);
    double ratio = (double)s[1].n / (double)s[0].n;
    assert_true(fabs(ratio / 3 - 1) < 0.05);
    for (uint32_t v = 0; v < 100; v++)
        assert_in_range(s[0].n_of_voice[v], 9, 11); /* 1000 starts, 100 voices */
}

/* Few requests of one voice behind a crowd of another's, of the same tenant and of everybody: the order of
 * arrival would let them wait for all of it. */
static void a_voice_behind_a_crowd(void **state)
{
    (void)state;
    for (uint32_t number = 0; number < 2; number++) {
        struct world w = {.queue = calloc(N_PLACES, sizeof *w.queue)};
        const struct client c = {number, 0, 0, 1, false};
        assert_true(w.queue && fair_init(&w.f, ENGINE_CALLERS_MAX, N_PLACES, BOUND_NS, 4));
        for (uint32_t i = 0; i < 1000; i++)
            arrive(&w, &c, 0, 0);
        arrive(&w, &c, 0, 7);
        uint32_t n = 0, voice = 0;
        for (; voice != 7; n++, w.now_ns += SECOND_NS) {
            uint32_t at = next_of(&w);
            struct generation g = w.queue[at].g;
            voice = w.queue[at].voice;
            fair_starts(&w.f, &g, at, 10, w.now_ns);
            fair_ends(&w.f, &g);
            memmove(&w.queue[at], &w.queue[at + 1], (--w.n - at) * sizeof *w.queue);
        }
        assert_in_range(n, 30, 32);
        fair_fini(&w.f);
        free(w.queue);
    }
}

/* More tenants than starts within the bound: all are late all the time. Each is served, and three starts of
 * four still go by weight. */
static void weights_count_where_the_bound_cannot_hold(void **state)
{
    (void)state;
    static struct client clients[200];
    static struct served s[200];
    for (uint32_t i = 0; i < 200; i++)
        clients[i] = (struct client){1 + i, 2, 1, i % 2 ? 3 : 1, false};
    simulate(clients, 200, SECOND_NS, 4000 * SECOND_NS, s);
    uint64_t n[2] = {0};
    for (uint32_t i = 0; i < 200; i++) {
        n[i % 2] += s[i].n;
        assert_true(s[i].caller_gap_ns <= 4 * 200 * SECOND_NS + BOUND_NS);
    }
    double ratio = (double)n[1] / (double)n[0];
    if (ratio < 2)
        fail_msg("%.2f", ratio);
}

/* Four places come free a turn, an eighth of the bound, when others are paused: of voices that came together
 * so many begin early that the last ones begin in time. */
static void overdue_in_time(void **state)
{
    (void)state;
    static const struct {
        uint32_t n_voices, turns_left, n_overdue;
    } cases[] = {{1, 1, 0}, {1, 0, 1},  {4, 1, 0},  {4, 0, 4},   {5, 2, 0}, {5, 1, 1},
                 {9, 2, 1}, {32, 8, 0}, {32, 7, 4}, {32, 0, 32}, {9, 1, 5}, {100, 8, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world w = {.queue = calloc(N_PLACES, sizeof *w.queue), .now_ns = 5};
        assert_true(w.queue && fair_init(&w.f, ENGINE_CALLERS_MAX, N_PLACES, BOUND_NS, 4));
        for (uint32_t v = 0; v < cases[i].n_voices; v++) {
            const struct client c = {v % 3, 0, 0, 1, false};
            arrive(&w, &c, 0, v);
            arrive(&w, &c, 0, v);
        }
        w.now_ns += BOUND_NS - cases[i].turns_left * (BOUND_NS / FAIR_TURNS);
        (void)fair_plan(&w.f, w.now_ns);
        assert_int_equal(fair_n_overdue(&w.f), 0); /* nothing is in the plan */
        assert_int_equal(w.f.late, cases[i].n_overdue > 0);
        for (uint32_t k = w.n; k-- > 0;)
            fair_put(&w.f, &w.queue[k].g, k);
        uint32_t n = fair_n_overdue(&w.f);
        if (n != cases[i].n_overdue)
            fail_msg("case %zu: %u", i, n);
        int64_t waited_ns;
        for (; n > 0; n--) { /* one less with each */
            uint32_t next = fair_pick_overdue(&w.f, &waited_ns);
            assert_int_equal(fair_take_overdue(&w.f, &w.queue[next].g, next, 1000), 0);
            assert_int_equal(fair_n_overdue(&w.f), n - 1);
        }
        fair_fini(&w.f);
        free(w.queue);
    }
}

/* The one that waited longest is picked, each voice once in a plan. */
static void the_longest_wait_is_picked(void **state)
{
    (void)state;
    struct world w = {.queue = calloc(N_PLACES, sizeof *w.queue)};
    assert_true(w.queue && fair_init(&w.f, ENGINE_CALLERS_MAX, N_PLACES, BOUND_NS, 4));
    static const uint32_t voices[] = {3, 1, 2, 1};
    for (uint32_t i = 0; i < 4; i++, w.now_ns += SECOND_NS) {
        const struct client c = {1 + voices[i] % 2, 0, 0, 1, i == 0};
        arrive(&w, &c, 0, voices[i]);
    }
    w.now_ns += BOUND_NS;
    assert_true(fair_plan(&w.f, w.now_ns));
    for (uint32_t i = w.n; i-- > 0;)
        fair_put(&w.f, &w.queue[i].g, i);
    for (uint32_t k = 0; k < 3; k++) {
        assert_int_equal(fair_n_overdue(&w.f), 3 - k);
        int64_t waited_ns;
        assert_int_equal(fair_pick_overdue(&w.f, &waited_ns), k);
        assert_true(waited_ns == BOUND_NS + (4 - k) * SECOND_NS);
        assert_true(fair_take(&w.f, &w.queue[k].g, k, 1000));
    }
    int64_t none_ns;
    assert_int_equal(fair_pick_overdue(&w.f, &none_ns), FAIR_NONE);
    fair_fini(&w.f);
    free(w.queue);
}

/* Voices come and go in any order: what is counted is what waits, and every place is free in the end. */
static void voices_are_forgotten(void **state)
{
    (void)state;
    struct world w = {.queue = calloc(N_PLACES, sizeof *w.queue)};
    uint32_t x = 1;
    assert_true(w.queue && fair_init(&w.f, ENGINE_CALLERS_MAX, N_PLACES, BOUND_NS, 4));
    for (uint32_t i = 0; i < 60000; i++) {
        x = x * 1664525U + 1013904223U;
        const struct client c = {(x >> 9) % 7, 0, 0, 1, false};
        if (w.n < N_PLACES && (x >> 8 & 1 || i < N_PLACES)) {
            arrive(&w, &c, 0, (x >> 16) % N_VOICES_MAX);
        } else if (w.n) {
            uint32_t at = (x >> 10) % w.n;
            fair_leaves(&w.f, &w.queue[at].g);
            w.queue[at] = w.queue[--w.n];
        }
        uint32_t sum = 0;
        for (uint32_t k = 0; i % 500 == 0 && k < w.f.n_used; k++)
            sum += w.f.voices[w.f.used[k]].n_waiting;
        assert_true(i % 500 || sum == w.n);
    }
    while (w.n)
        fair_leaves(&w.f, &w.queue[--w.n].g);
    assert_int_equal(w.f.n_used, 0);
    uint32_t n_free = 0;
    for (uint32_t i = w.f.free_voice; i != FAIR_NONE; i = w.f.voices[i].next)
        n_free++;
    assert_int_equal(n_free, N_PLACES);
    fair_fini(&w.f);
    free(w.queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_hold_when_everybody_waits),
        cmocka_unit_test(the_least_weight_waits_for_the_bound),
        cmocka_unit_test(voices_of_a_tenant_take_turns),
        cmocka_unit_test(a_voice_behind_a_crowd),
        cmocka_unit_test(weights_count_where_the_bound_cannot_hold),
        cmocka_unit_test(overdue_in_time),
        cmocka_unit_test(the_longest_wait_is_picked),
        cmocka_unit_test(voices_are_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
