/* What is read of the machine's processors, from a folder that stands for / ; and the number of threads that
 * is decided from it, window by window. */
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpus.h"
#include "core/engine/pace.h"

/* ---- a made-up machine ---- */

static char root[64];

static int make_root(void **state)
{
    (void)state;
    strcpy(root, "/tmp/lorikeet-cpus-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", root);
    return system(command);
}

static void put(const char *path, const char *text)
{
    char whole[256];
    snprintf(whole, sizeof whole, "%s%s", root, path);
    for (char *p = whole + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = 0;
        mkdir(whole, 0700);
        *p = '/';
    }
    FILE *f = fopen(whole, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void quotas_of_all_groups_hold(void **state)
{
    (void)state;
    assert_int_equal(cpus_quota(root), 0); /* no such files */
    put("/sys/fs/cgroup/cpu.max", "max 100000\n");
    assert_int_equal(cpus_quota(root), 0);
    put("/sys/fs/cgroup/cpu.max", "150000 100000\n");
    assert_int_equal(cpus_quota(root), 2);
    put("/proc/self/cgroup", "4:memory:/x\n0::/system.slice/our.service\n");
    assert_int_equal(cpus_quota(root), 2); /* a path that isn't below the mount */
    put("/sys/fs/cgroup/system.slice/our.service/cpu.max", "50000 100000\n");
    assert_int_equal(cpus_quota(root), 1);
    put("/sys/fs/cgroup/system.slice/our.service/cpu.max", "900000 100000\n");
    assert_int_equal(cpus_quota(root), 2); /* the one above is less */
    put("/sys/fs/cgroup/system.slice/cpu.max", "100000 100000\n");
    assert_int_equal(cpus_quota(root), 1);
    put("/sys/fs/cgroup/system.slice/cpu.max", "0 0\n");
    put("/sys/fs/cgroup/cpu.max", "rubbish\n");
    assert_int_equal(cpus_quota(root), 9);
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpus_quota(root), 9);
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n");
    assert_int_equal(cpus_quota(root), 3);
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "0\n");
    assert_int_equal(cpus_quota(root), 9);
}

static void threads_get_cores_of_their_own(void **state)
{
    (void)state;
    cpu_set_t allowed;
    uint16_t got[9];
    CPU_ZERO(&allowed);
    for (unsigned cpu = 0; cpu < 8; cpu++)
        CPU_SET(cpu, &allowed);
    static const int where[9] = {7, 4, 4, 0, -1, 99, 1, 2, 3};
    assert_true(cpus_place(root, &allowed, where, 3, got)); /* no topology: each CPU is a core */
    assert_memory_equal(got, ((uint16_t[]){7, 4, 0}), 3 * sizeof *got);
    for (unsigned cpu = 0; cpu < 8; cpu++) { /* 0 and 4, 1 and 5; 2 and 3, 6 and 7 */
        static const char *const lists[8] = {"0,4\n", "1,5\n", "2-3\n", "2-3\n",
                                             "0,4\n", "1,5\n", "6-7\n", "6-7\n"};
        char path[128];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", cpu);
        put(path, lists[cpu]);
    }
    assert_true(cpus_place(root, &allowed, where, 4, got)); /* 7 and 4 stay; 4 again and its sibling 0 go */
    assert_memory_equal(got, ((uint16_t[]){7, 4, 1, 2}), 4 * sizeof *got);
    assert_true(
        cpus_place(root, &allowed, where, 8, got)); /* two on each; who can't have a core stays, if free */
    assert_memory_equal(got, ((uint16_t[]){7, 4, 3, 0, 5, 6, 1, 2}), 8 * sizeof *got);
    assert_false(cpus_place(root, &allowed, where, 9, got));
    CPU_CLR(0, &allowed);
    CPU_CLR(2, &allowed);
    assert_true(cpus_place(root, &allowed, (int[]){0, 2, 3}, 3, got)); /* where they may not be */
    assert_memory_equal(got, ((uint16_t[]){1, 4, 3}), 3 * sizeof *got);
    put("/sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "99999999999999999999999,x");
    put("/sys/devices/system/cpu/cpu5/topology/thread_siblings_list", "");
    assert_true(cpus_place(root, &allowed, where, 6, got));
}

static void samples_count_the_allowed_cpus(void **state)
{
    (void)state;
    char buf[4096];
    cpu_set_t allowed;
    struct cpu_sample s = {.at_ns = 5};
    uint64_t tick_ns = (uint64_t)NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK);
    CPU_ZERO(&allowed);
    CPU_SET(1, &allowed);
    CPU_SET(10, &allowed);
    cpus_sample(root, &allowed, buf, sizeof buf, &s);
    assert_false(s.has_stat || s.has_throttled);
    assert_int_equal(s.at_ns, 5);
    put("/proc/stat", "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 7 7 7 7 7 7 7 7 7 7\ncpu1 1 2 3 40 5 6 7 80 0 0\n"
                      "cpu10 1000 0 0 0 0 0 0 1 0 0\ncpu11 5 5 5\nintr 1 2 3\nctxt 1\n");
    put("/sys/fs/cgroup/cpu.stat", "usage_usec 9\nnr_periods 5\nnr_throttled 2\nthrottled_usec 1234\n");
    cpus_sample(root, &allowed, buf, sizeof buf, &s);
    assert_true(s.has_stat && s.has_throttled);
    assert_int_equal(s.busy_ns, (1 + 2 + 3 + 6 + 7 + 1000) * tick_ns);
    assert_int_equal(s.idle_ns, 45 * tick_ns);
    assert_int_equal(s.stolen_ns, 81 * tick_ns);
    assert_int_equal(s.throttled_ns, 1234000);
    cpus_sample(root, &allowed, buf, 60, &s); /* a machine with more CPUs than the buffer holds */
    assert_true(s.busy_ns < 1000 * tick_ns);
}

static void threads_have_times(void **state)
{
    (void)state;
    struct thread_times t;
    assert_false(cpus_thread_times(root, 77, &t));
    assert_int_equal(cpus_thread_cpu(root, 77), -1);
    put("/proc/self/task/77/schedstat", "1000000 2500 17\n");
    put("/proc/self/task/78/schedstat", "0 0 0\n");
    put("/proc/self/task/77/stat",
        "77 (a) b c) R 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 9 0 0 0 0 0 0 0 0 0 0 0 "
        "0 0 0 0 17 12 0 0 0\n");
    assert_true(cpus_thread_times(root, 77, &t));
    assert_int_equal(t.run_ns, 1000000);
    assert_int_equal(t.delay_ns, 2500);
    assert_false(cpus_thread_times(root, 78, &t)); /* a kernel that doesn't count */
    assert_int_equal(cpus_thread_cpu(root, 77), 12);
    put("/proc/self/task/77/stat", "77 (a) R 1");
    assert_int_equal(cpus_thread_cpu(root, 77), -1);
}

static void this_machine_is_read(void **state)
{
    (void)state;
    static char buf[1 << 18];
    cpu_set_t allowed;
    uint16_t at[CPU_SETSIZE];
    int now[CPU_SETSIZE];
    struct cpu_sample s = {0};
    cpus_allowed(&allowed);
    unsigned n = (unsigned)CPU_COUNT(&allowed);
    assert_in_range(cpus_usable(), 1, n);
    for (unsigned i = 0; i < n; i++)
        now[i] = (int)(n - i);
    assert_true(cpus_place("", &allowed, now, n, at));
    for (unsigned i = 0; i < n; i++) {
        assert_true(CPU_ISSET(at[i], &allowed));
        CPU_CLR(at[i], &allowed);
    }
    assert_int_equal(CPU_COUNT(&allowed), 0);
    cpus_allowed(&allowed);
    cpus_sample("", &allowed, buf, sizeof buf, &s);
    assert_true(!s.has_stat || s.busy_ns + s.idle_ns + s.stolen_ns > 0);
    int cpu = cpus_thread_cpu("", getpid());
    assert_true(cpu < 0 || CPU_ISSET(cpu, &allowed));
}

/* ---- decisions ---- */

static int64_t now_ns;

/* n windows like this one, a second each; whether anything changed. What the team ran, unless it is said, is
 * what workers do who all stop with each. */
static bool look(struct pace *p, struct pace_window w, unsigned n)
{
    bool changed = false;
    w.busy = w.busy > 0 ? w.busy : 1;
    w.n_cpus = w.n_cpus ? w.n_cpus : 8;
    double ran = w.ran, waits = w.delayed + w.stolen < 1 ? w.delayed + w.stolen : 1;
    for (unsigned i = 0; i < n; i++) {
        w.at_ns = now_ns += NS_PER_S;
        w.ran = ran > 0 ? ran : p->n_active * (1 - waits) * (1 - w.stopped) + w.stolen;
        changed = pace_look(p, &w) || changed;
    }
    return changed;
}

static const struct pace_window alone = {.spare = 0}, freed = {.spare = 1};

static void one_busy_cpu_costs_one_worker(void **state)
{
    (void)state;
    struct pace p = pace_begin(8, false, true);
    const struct pace_window shared = {.delayed = 0.5};
    assert_false(look(&p, alone, 3));
    assert_false(look(&p, shared, 1)); /* a program that only starts */
    assert_false(look(&p, alone, 1));
    assert_true(look(&p, shared, 2));
    assert_int_equal(p.n_active, 7);
    assert_int_equal(p.limit, THREADS_DELAYED);
    assert_false(look(&p, alone, 30)); /* its CPU is busy: no room */
    assert_false(look(&p, freed, 4));
    assert_true(look(&p, freed, 1));
    assert_int_equal(p.n_active, 8);
    assert_int_equal(p.limit, THREADS_ALL);
}

static void two_of_two_wait_for_each_other(void **state)
{
    (void)state;
    struct pace p = pace_begin(2, false, true);
    assert_false(look(&p, (struct pace_window){.n_cpus = 2, .delayed = 0.45}, 20)); /* 1.1 of 1 */
    assert_int_equal(p.n_active, 2);
    assert_true(look(&p, (struct pace_window){.n_cpus = 2, .delayed = 1}, 2)); /* another server */
    assert_int_equal(p.n_active, 1);
    assert_false(look(&p, (struct pace_window){.n_cpus = 2, .delayed = 0.9}, 50)); /* one remains */
    assert_int_equal(p.n_active, 1);
    assert_false(look(&p, (struct pace_window){.n_cpus = 2, .spare = 0.7}, 20)); /* 3 windows in 4 */
    assert_true(look(&p, (struct pace_window){.n_cpus = 2, .spare = 0.8}, 5));
    assert_int_equal(p.n_active, 2);
}

static void many_go_at_once(void **state)
{
    (void)state;
    struct pace p = pace_begin(64, false, true);
    look(&p, (struct pace_window){.n_cpus = 64, .delayed = 16.3}, 2);
    assert_int_equal(p.n_active, 48);
    look(&p, (struct pace_window){.n_cpus = 64, .delayed = 500}, 4);
    assert_int_equal(p.n_active, 48); /* a trial */
    look(&p, (struct pace_window){.n_cpus = 64, .delayed = 500}, 3);
    assert_int_equal(p.n_active, 1);
    look(&p, (struct pace_window){.n_cpus = 64, .spare = 30.5}, 5);
    assert_int_equal(p.n_active, 31);
    look(&p, (struct pace_window){.n_cpus = 40, .spare = 900}, 5);
    assert_int_equal(p.n_active, 40);
    assert_int_equal(p.limit, THREADS_AFFINITY);
}

/* A few programs on two CPUs: who goes, goes for nothing. With ten of them it isn't even tried. */
static void others_may_take_what_is_given_up(void **state)
{
    (void)state;
    struct pace p = pace_begin(2, false, true);
    const struct pace_window two = {.n_cpus = 2, .delayed = 1.1, .ran = 0.8};
    const struct pace_window one = {.n_cpus = 2, .delayed = 0.6, .ran = 0.5};
    const struct pace_window freed_late = {.n_cpus = 2, .ran = 0.9}, at_once = {.n_cpus = 2, .ran = 0.1};
    for (unsigned rest = 30; rest < 320; rest *= 2) {
        assert_true(look(&p, two, 2));
        assert_int_equal(p.n_active, 1);
        assert_false(look(&p, one, 4));
        assert_true(look(&p, one, 1));
        assert_int_equal(p.n_active, 2);
        assert_int_equal(p.limit, THREADS_ALL);
        assert_false(look(&p, two, rest - 1));
    }
    assert_false(look(&p, (struct pace_window){.n_cpus = 2, .delayed = 1.6, .ran = 0.4}, 50));
    assert_true(look(&p, two, 2));
    assert_false(look(&p, at_once, 2)); /* the other one hasn't noticed yet */
    assert_false(look(&p, freed_late, 100));
    assert_int_equal(p.n_active, 1);
}

/* The stolen time is gone with the worker, and back with it: each time it comes back later. */
static void who_errs_waits_longer(void **state)
{
    (void)state;
    struct pace p = pace_begin(2, false, true);
    const struct pace_window stolen = {.n_cpus = 2, .stolen = 0.8}, idle = {.n_cpus = 2, .spare = 1};
    for (unsigned patience = 5; patience < 320; patience *= 2) {
        assert_true(look(&p, stolen, 2));
        assert_int_equal(p.n_active, 1);
        assert_int_equal(p.limit, THREADS_STOLEN);
        assert_false(look(&p, idle, patience - 1));
        assert_true(look(&p, idle, 1));
        assert_int_equal(p.n_active, 2);
    }
    look(&p, (struct pace_window){.n_cpus = 2}, 700); /* right at last */
    look(&p, stolen, 2);
    assert_true(look(&p, idle, 5));
    assert_int_equal(p.n_active, 2);
}

static void a_quota_stops_all_at_once(void **state)
{
    (void)state;
    struct pace p = pace_begin(4, false, true);
    const struct pace_window cut = {.n_cpus = 2, .has_quota = true};
    assert_true(look(&p, cut, 1)); /* somebody set it */
    assert_int_equal(p.n_active, 2);
    assert_int_equal(p.limit, THREADS_QUOTA);
    assert_false(look(&p, (struct pace_window){.n_cpus = 2, .has_quota = true, .stopped = 0.45}, 20));
    assert_true(look(&p, (struct pace_window){.n_cpus = 2, .has_quota = true, .stopped = 0.6}, 2));
    assert_int_equal(p.n_active, 1); /* a group that shares it uses most of it */
    assert_int_equal(p.limit, THREADS_THROTTLED);
    assert_true(look(&p, (struct pace_window){.n_cpus = 4, .spare = 3}, 5));
    assert_int_equal(p.n_active, 4);
    assert_int_equal(p.limit, THREADS_ALL);
}

static void who_is_idle_learns_nothing_and_forgets(void **state)
{
    (void)state;
    struct pace p = pace_begin(8, false, true);
    assert_false(look(&p, (struct pace_window){.busy = 0.1, .delayed = 4}, 10));
    look(&p, (struct pace_window){.delayed = 4}, 2);
    assert_int_equal(p.n_active, 4);
    assert_false(look(&p, (struct pace_window){.busy = 0.01}, 59));
    now_ns += 2 * NS_PER_S; /* asleep */
    assert_true(look(&p, alone, 1));
    assert_int_equal(p.n_active, 8);
}

static void a_number_that_was_asked_for_stays(void **state)
{
    (void)state;
    struct pace p = pace_begin(4, true, false);
    assert_false(look(&p, (struct pace_window){.n_cpus = 2, .delayed = 3, .stolen = 1}, 20));
    assert_int_equal(p.n_active, 4);
}

static void who_is_alone_is_pinned(void **state)
{
    (void)state;
    struct pace p = pace_begin(4, true, true);
    assert_false(look(&p, (struct pace_window){.delayed = 0.07}, 20)); /* not quite alone */
    assert_false(look(&p, alone, 4));
    assert_true(look(&p, alone, 1));
    assert_true(p.pinned);
    assert_false(look(&p, (struct pace_window){.delayed = 0.07}, 9)); /* nor disturbed */
    assert_true(look(&p, (struct pace_window){.delayed = 0.5}, 1));
    assert_false(p.pinned);
    assert_false(look(&p, alone, 9)); /* twice as long as before */
    assert_true(look(&p, alone, 1));
    assert_true(p.pinned);
    assert_true(look(&p, (struct pace_window){.n_cpus = 3}, 1)); /* one for each is no more */
    assert_false(p.pinned);
    assert_false(look(&p, (struct pace_window){.has_quota = true, .n_cpus = 4}, 100));
    p = pace_begin(4, true, false);
    assert_false(look(&p, alone, 400));
}

/* Freed first; with fewer workers only if they still wait then. */
static void pins_go_before_workers(void **state)
{
    (void)state;
    struct pace p = pace_begin(4, false, true);
    look(&p, alone, 5);
    assert_true(p.pinned);
    assert_true(look(&p, (struct pace_window){.delayed = 2}, 1));
    assert_false(p.pinned);
    assert_int_equal(p.n_active, 4);
    assert_true(look(&p, (struct pace_window){.delayed = 2}, 2));
    assert_int_equal(p.n_active, 2);
    look(&p, alone, 700);
    assert_false(p.pinned); /* only all of them are */
}

int main(void)
{
#define AT_ROOT(test) cmocka_unit_test_setup_teardown(test, make_root, remove_root)
    const struct CMUnitTest tests[] = {
        AT_ROOT(quotas_of_all_groups_hold),
        AT_ROOT(threads_get_cores_of_their_own),
        AT_ROOT(samples_count_the_allowed_cpus),
        AT_ROOT(threads_have_times),
        cmocka_unit_test(this_machine_is_read),
        cmocka_unit_test(one_busy_cpu_costs_one_worker),
        cmocka_unit_test(two_of_two_wait_for_each_other),
        cmocka_unit_test(many_go_at_once),
        cmocka_unit_test(others_may_take_what_is_given_up),
        cmocka_unit_test(who_errs_waits_longer),
        cmocka_unit_test(a_quota_stops_all_at_once),
        cmocka_unit_test(who_is_idle_learns_nothing_and_forgets),
        cmocka_unit_test(a_number_that_was_asked_for_stays),
        cmocka_unit_test(who_is_alone_is_pinned),
        cmocka_unit_test(pins_go_before_workers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
