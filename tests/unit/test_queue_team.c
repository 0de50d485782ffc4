/* The mailbox between threads, and the worker team. Run under ThreadSanitizer too. */
#include "tests/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/queue.h"
#include "base/team.h"

#define N_MESSAGES 20000

static void count_wake(void *data)
{
    atomic_fetch_add((atomic_int *)data, 1);
}

static void queue_refuses_beyond_its_limit(void **state)
{
    (void)state;
    atomic_int n_wakes = 0;
    struct queue *q = queue_create(sizeof(int), 3, count_wake, &n_wakes);
    for (int i = 0; i < 3; i++)
        assert_true(queue_put(q, &i));
    int x = 9;
    assert_false(queue_put(q, &x));
    assert_int_equal(n_wakes, 1); /* wake-ups coalesce */
    for (int i = 0; i < 3; i++) {
        assert_true(queue_get(q, &x));
        assert_int_equal(x, i);
    }
    assert_false(queue_get(q, &x));
    int64_t before = clock_now_ns();
    assert_false(queue_get_wait(q, &x, 5 * NS_PER_MS));
    assert_true(clock_now_ns() - before >= 4 * NS_PER_MS);
    queue_close(q);
    assert_false(queue_put(q, &x));
    assert_false(queue_get_wait(q, &x, -1));
    queue_destroy(q);
}

static void *put_many(void *arg)
{
    for (int i = 0; i < N_MESSAGES; i++)
        if (!queue_put_wait(arg, &i))
            return arg;
    return NULL;
}

static void queue_hands_over_everything_in_order(void **state)
{
    (void)state;
    struct queue *q = queue_create(sizeof(int), 8, NULL, NULL);
    pthread_t t;
    pthread_create(&t, NULL, put_many, q);
    for (int i = 0; i < N_MESSAGES; i++) {
        int x;
        assert_true(queue_get_wait(q, &x, -1));
        assert_int_equal(x, i);
    }
    pthread_join(t, NULL);
    queue_destroy(q);
}

struct sums {
    struct team *team;
    uint64_t cell[64], total[64], alone[64];
    unsigned n_rounds;
};

/* Each round writes the own cell, then, after a barrier, adds up everybody's. */
static void add_up(void *arg, unsigned worker, unsigned n_workers)
{
    struct sums *s = arg;
    for (unsigned round = 0; round < s->n_rounds; round++) {
        s->cell[worker] = round + worker;
        team_barrier(s->team);
        for (unsigned i = 0; i < n_workers; i++)
            s->total[worker] += s->cell[i];
        team_barrier(s->team);
    }
}

/* The same with the barrier in two halves, and work of one's own between them. */
static void add_up_in_halves(void *arg, unsigned worker, unsigned n_workers)
{
    struct sums *s = arg;
    for (unsigned round = 0; round < s->n_rounds; round++) {
        s->cell[worker] = round + worker;
        unsigned ticket = team_arrive(s->team);
        for (unsigned i = 0; i < (worker + round) % 3 * 500; i++)
            s->alone[worker] += i;
        team_wait(s->team, ticket);
        for (unsigned i = 0; i < n_workers; i++)
            s->total[worker] += s->cell[i];
        team_barrier(s->team);
    }
}

static void check_team(team_task *task)
{
    for (unsigned n = 1; n <= 5; n++) {
        struct team *t = team_create(n);
        assert_non_null(t);
        assert_int_equal(team_size(t), n);
        struct sums s = {.team = t, .n_rounds = 50};
        for (int i = 0; i < 40; i++)
            team_run(t, task, &s);
        uint64_t want = 0;
        for (unsigned round = 0; round < s.n_rounds; round++)
            want += (uint64_t)n * round + (uint64_t)n * (n - 1) / 2;
        for (unsigned i = 0; i < n; i++)
            assert_int_equal(s.total[i], want * 40);
        team_destroy(t);
    }
}

static void team_runs_on_all_and_barriers_hold(void **state)
{
    (void)state;
    check_team(add_up);
}

static void barriers_hold_in_two_halves(void **state)
{
    (void)state;
    check_team(add_up_in_halves);
}

/* Which workers ran, of how many they were told, and that a barrier is theirs alone. */
struct called {
    struct team *team;
    atomic_uint n_ran[8], n_told[8], n_before;
};

static void note_call(void *arg, unsigned worker, unsigned n_workers)
{
    struct called *c = arg;
    atomic_fetch_add(&c->n_ran[worker], 1);
    atomic_store(&c->n_told[worker], n_workers);
    atomic_fetch_add(&c->n_before, 1);
    team_barrier(c->team);
    if (atomic_load(&c->n_before) != n_workers)
        atomic_store(&c->n_told[worker], 99);
    team_barrier(c->team);
    if (worker == 0)
        atomic_store(&c->n_before, 0);
}

/* Fewer and more, one by one and in leaps, at once and after a rest in which all have gone to sleep. */
static void tasks_run_on_the_active_alone(void **state)
{
    (void)state;
    static const unsigned numbers[] = {8, 3, 3, 1, 1, 2, 8, 7, 5, 8, 1, 8, 4, 6, 1, 3};
    unsigned want[8] = {0};
    struct called c = {.team = team_create(8)};
    assert_int_equal(team_active(c.team), 8);
    for (unsigned i = 0; i < 200; i++) {
        unsigned n = numbers[i % 16];
        team_set_active(c.team, n);
        assert_int_equal(team_active(c.team), n);
        assert_int_equal(team_size(c.team), 8);
        for (unsigned k = 0; k <= i % 3; k++)
            team_run(c.team, note_call, &c);
        for (unsigned w = 0; w < 8; w++) {
            want[w] += w < n ? i % 3 + 1 : 0;
            assert_int_equal(c.n_ran[w], want[w]);
            assert_true(w >= n || c.n_told[w] == n);
        }
        if (i % 20 == 7)
            usleep(2000);
    }
    for (unsigned w = 1; w < 8; w++)
        assert_true(team_tid(c.team, w) > 0);
    team_set_active(c.team, 2); /* the sleeping ones are found at the end, too */
    team_run(c.team, note_call, &c);
    team_destroy(c.team);
}

static void shares_cover_everything_once(void **state)
{
    (void)state;
    for (uint64_t n = 0; n < 70; n += 3)
        for (unsigned workers = 1; workers < 9; workers++) {
            uint64_t at = 0, begin, end;
            for (unsigned w = 0; w < workers; w++) {
                team_share(n, 16, w, workers, &begin, &end);
                assert_int_equal(begin, at);
                assert_true(begin % 16 == 0 || begin == n);
                at = end;
            }
            assert_int_equal(at, n);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_refuses_beyond_its_limit),
        cmocka_unit_test(queue_hands_over_everything_in_order),
        cmocka_unit_test(team_runs_on_all_and_barriers_hold),
        cmocka_unit_test(barriers_hold_in_two_halves),
        cmocka_unit_test(tasks_run_on_the_active_alone),
        cmocka_unit_test(shares_cover_everything_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
