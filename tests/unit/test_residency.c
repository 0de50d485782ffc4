/* adapters: what is in memory, who must leave for whom, and loads that fail. */
#include "registry_rig.h"

#include <stdio.h>
#include <string.h>

static void the_least_recently_used_leaves_first(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = create(300, 0);
    publish(r, "a", 1, 100, 0);
    publish(r, "b", 2, 100, 0);
    publish(r, "c", 3, 100, 0);
    assert_true(use(r, "a", 1) && use(r, "c", 2) && use(r, "b", 3));
    publish(r, "d", 4, 100, 4);
    assert_false(is_resident(r, "a"));
    publish(r, "e", 5, 150, 5);
    assert_false(is_resident(r, "b") || is_resident(r, "c"));
    assert_true(is_resident(r, "d") && is_resident(r, "e"));
    assert_int_equal(usage(r).n_evictions, 3);
    assert_int_equal(registry_reserve(r, name(r, "f"), 301, 0, 5, &err), STATUS_TOO_LARGE);
    assert_non_null(strstr(err.text, "--resident-memory"));
    assert_true(is_resident(r, "d") && is_resident(r, "e"));
    registry_destroy(r);
}

static void in_use_and_pinned_stay(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = create(300, 0);
    publish(r, "used", 1, 100, 0);
    publish(r, "pinned", 2, 100, 0);
    publish(r, "idle", 3, 50, 0);
    struct adapter_version *v = registry_acquire(r, name(r, "used"), 1, 0);
    registry_set_pinned(r, name(r, "pinned"), true);
    assert_int_equal(load(r, "big", 4, 150, 0, 1), STATUS_FULL);
    assert_true(is_resident(r, "idle")); /* it alone wouldn't do: all of it or none */
    assert_int_equal(load(r, "small", 4, 100, 0, 1), STATUS_OK);
    assert_false(is_resident(r, "idle"));
    assert_true(is_resident(r, "used") && is_resident(r, "pinned"));
    registry_set_pinned(r, name(r, "small"), true);
    assert_int_equal(registry_reserve(r, name(r, "idle"), 50, 0, 1, &err), STATUS_FULL);
    assert_non_null(
        strstr(err.text, "no room for adapter 'idle' now: it takes 50 bytes, 300 of 300 are taken"));
    registry_release(r, v, false);
    assert_int_equal(load(r, "idle", 3, 50, 0, 1), STATUS_OK);
    assert_false(is_resident(r, "used"));
    registry_set_pinned(r, name(r, "pinned"), false);
    assert_true(use(r, "idle", 2));
    assert_int_equal(load(r, "used", 1, 100, 0, 1), STATUS_OK);
    assert_false(is_resident(r, "pinned"));
    registry_destroy(r);
}

static void expired_ones_leave_first_and_last_good_ones_last(void **state)
{
    (void)state;
    struct registry *r = create(500, 10 * S);
    publish(r, "old", 1, 100, 0);
    publish(r, "old", 2, 100, 0); /* 1 is kept until 10 s */
    publish(r, "young", 3, 100, 5 * S);
    publish(r, "young", 4, 100, 5 * S);
    publish(r, "idle", 5, 100, 5 * S);
    assert_int_equal(load(r, "x", 6, 100, 0, 10 * S), STATUS_OK);
    assert_false(has_bytes(name(r, "old"), 1));
    assert_true(is_resident(r, "idle"));
    for (uint32_t i = 0; i < 4; i++) { /* old, young, idle, x: routed ones, longest unused first */
        char text[3] = {'y', (char)('0' + i), 0};
        assert_true(has_bytes(name(r, "young"), 3));
        assert_int_equal(load(r, text, 10 + i, 100, 0, 10 * S), STATUS_OK);
        registry_set_pinned(r, name(r, text), true);
    }
    assert_false(is_resident(r, "idle") || is_resident(r, "x"));
    assert_int_equal(load(r, "z", 20, 100, 0, 10 * S), STATUS_OK);
    assert_false(has_bytes(name(r, "young"), 3));
    registry_destroy(r);
}

/* Its files may be broken: what serves now must still be there if the load fails. */
static void a_reload_evicts_all_but_its_own_version(void **state)
{
    (void)state;
    struct registry *r = create(200, 10 * S);
    publish(r, "pt", 1, 100, 0);
    publish(r, "de", 2, 100, 0);
    struct error err;
    assert_int_equal(registry_reserve(r, name(r, "pt"), 101, 0, 1, &err), STATUS_FULL);
    assert_non_null(strstr(err.text, "it takes 101 bytes beside the 100 of the version in service"));
    assert_int_equal(registry_reserve(r, name(r, "pt"), 100, 0, 1, &err), STATUS_OK);
    assert_true(is_resident(r, "pt"));
    assert_false(is_resident(r, "de"));
    registry_destroy(r); /* a reservation is no reference */
}

static void versions_with_traffic_stay(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = create(300, 10 * S);
    struct adapter *a = name(r, "pt");
    publish(r, "pt", 1, 100, 0);
    struct publication p = {.as = PUBLISH_CANARY};
    publish_as(r, a, &p, 2, 100, 0, 0);
    assert_int_equal(registry_set_traffic(r, a, (struct traffic_split[]){{1, 50}, {2, 50}}, 2, &err),
                     STATUS_OK);
    assert_int_equal(load(r, "de", 3, 200, 0, 0), STATUS_FULL);
    assert_int_equal(registry_set_traffic(r, a, NULL, 0, &err), STATUS_OK);
    assert_int_equal(load(r, "de", 3, 200, 0, 0), STATUS_OK);
    registry_destroy(r);
}

/* A tenant that loads one voice after another evicts its own; the others keep theirs. */
static void a_tenant_does_not_thrash_the_others(void **state)
{
    (void)state;
    enum { GREEDY = 1, MODEST = 2 };
    struct registry *r = create(1000, 0);
    char text[16];
    for (uint32_t i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "modest-%u", i);
        assert_int_equal(load(r, text, i, 100, MODEST, 0), STATUS_OK);
    }
    for (uint32_t i = 0; i < 50; i++) {
        snprintf(text, sizeof text, "greedy-%u", i);
        assert_int_equal(load(r, text, 100 + i, 100, GREEDY, 1), STATUS_OK);
        for (uint32_t j = 0; j < 3; j++) {
            snprintf(text, sizeof text, "modest-%u", j);
            if (!is_resident(r, text))
                fail_msg("%s was evicted for the %u. voice of another", text, i + 1);
        }
    }
    /* the modest one grows to its half; beyond that it evicts its own, too */
    for (uint32_t i = 3; i < 20; i++) {
        snprintf(text, sizeof text, "modest-%u", i);
        assert_int_equal(load(r, text, i, 100, MODEST, 2), STATUS_OK);
    }
    uint32_t n_greedy = 0;
    for (uint32_t i = 0; i < 50; i++) {
        snprintf(text, sizeof text, "greedy-%u", i);
        n_greedy += is_resident(r, text);
    }
    assert_true(n_greedy == 4 || n_greedy == 5);
    /* a third one has nothing and may load, though all is taken */
    assert_int_equal(load(r, "third", 1000, 100, 3, 3), STATUS_OK);
    registry_destroy(r);
}

/* What is above its share and all in use waits; it doesn't take another's. */
static void above_its_share_a_tenant_waits(void **state)
{
    (void)state;
    struct registry *r = create(400, 0);
    struct adapter_version *held[3];
    char text[16];
    assert_int_equal(load(r, "other", 9, 100, 2, 0), STATUS_OK);
    for (uint32_t i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "mine-%u", i);
        assert_int_equal(load(r, text, i, 100, 1, 0), STATUS_OK);
        held[i] = registry_acquire(r, name(r, text), name(r, text)->stable, 0);
    }
    assert_int_equal(load(r, "mine-3", 3, 100, 1, 0), STATUS_FULL);
    assert_true(is_resident(r, "other"));
    assert_int_equal(load(r, "operators", 10, 100, 0, 0), STATUS_OK); /* the operator may */
    assert_false(is_resident(r, "other"));
    for (uint32_t i = 0; i < 3; i++)
        registry_release(r, held[i], false);
    assert_int_equal(load(r, "mine-3", 3, 100, 1, 0), STATUS_OK);
    registry_destroy(r);
}

static void what_is_dropped_in_use_counts_until_its_last_user(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = create(300, 0);
    publish(r, "pt", 1, 200, 0);
    struct adapter_version *one = registry_acquire(r, name(r, "pt"), 1, 0);
    struct adapter_version *two = registry_acquire(r, name(r, "pt"), 1, 0);
    registry_evict(r, name(r, "pt"));
    assert_false(is_resident(r, "pt"));
    assert_int_equal(usage(r).n_retired, 1);
    assert_int_equal(load(r, "pt", 1, 200, 0, 0), STATUS_FULL);
    registry_release(r, one, false);
    assert_int_equal(usage(r).resident_bytes, 200);
    assert_int_equal(registry_remove(r, "pt", &err), STATUS_OK);
    assert_int_equal(usage(r).resident_bytes, 200);
    assert_int_equal(load(r, "pt", 1, 100, 0, 0),
                     STATUS_OK); /* the name anew, with the old one still there */
    assert_int_equal(name(r, "pt")->stable, 2);
    registry_release(r, two, true);
    assert_int_equal(usage(r).resident_bytes, 100);
    assert_int_equal(registry_record(name(r, "pt"), 2)->n_failures, 0); /* it was another's fault */
    registry_destroy(r);
}

static void a_failed_load_changes_nothing(void **state)
{
    (void)state;
    struct error err, why;
    struct registry *r = create(1000, 10 * S);
    struct adapter *a = name(r, "pt");
    publish(r, "pt", 1, 400, 0);
    struct adapter before = *a;
    assert_int_equal(registry_reserve(r, a, 500, 0, 0, &err), STATUS_OK);
    assert_true(a->loading);
    assert_int_equal(usage(r).reserved_bytes, 500);
    assert_int_equal(registry_reserve(r, a, 500, 0, 0, &err), STATUS_EXISTS);
    assert_int_equal(registry_remove(r, "pt", &err), STATUS_EXISTS);
    fail(&why, STATUS_MISMATCH, "q_proj: 7 rows, expected 8");
    registry_load_failed(r, a, &why, 123);
    assert_int_equal(usage(r).reserved_bytes, 0);
    assert_int_equal(usage(r).n_failed_loads, 1);
    assert_int_equal(a->last_status, STATUS_MISMATCH);
    assert_string_equal(a->last_error, "q_proj: 7 rows, expected 8");
    assert_int_equal(a->last_error_wall_ms, 123);
    assert_int_equal(a->revision, before.revision);
    assert_int_equal(a->stable, before.stable);
    assert_true(use(r, "pt", 0));
    /* larger than its files promised, and there is no room: gone without a trace */
    assert_int_equal(registry_reserve(r, a, 100, 0, 0, &err), STATUS_OK);
    struct publication p = {.as = PUBLISH_STABLE};
    assert_int_equal(registry_publish(r, a, make_version(2, 700), &p, 0, &err), STATUS_FULL);
    assert_non_null(strstr(err.text, "700 bytes instead of the 100"));
    assert_int_equal(a->stable, 1);
    assert_int_equal(a->n_records, 1);
    assert_int_equal(usage(r).resident_bytes, 400);
    assert_int_equal(usage(r).reserved_bytes, 0);
    assert_int_equal(usage(r).n_failed_loads, 2);
    assert_int_equal(registry_reserve(r, a, 100, 0, 0, &err), STATUS_OK);
    assert_int_equal(registry_publish(r, a, make_version(2, 1001), &p, 0, &err), STATUS_TOO_LARGE);
    assert_int_equal(publish(r, "pt", 2, 600, 0), 2); /* the number wasn't used up */
    registry_destroy(r);
}

/* Allocations fail one after another: each time the load fails as a whole. */
static void short_memory_changes_nothing(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = create(1000, 10 * S);
    struct adapter *a = name(r, "pt");
    publish(r, "pt", 1, 100, 0);
    enum status s = STATUS_NO_MEMORY;
    for (uint64_t n = 1; s != STATUS_OK; n++) {
        struct publication p = {.as = PUBLISH_STABLE};
        struct adapter_version *v = make_version(2, 100);
        assert_true(n < 10);
        mem_fail_at(n);
        s = registry_reserve(r, a, 100, 5, 0, &err);
        if (s == STATUS_OK)
            s = registry_publish(r, a, v, &p, 0, &err);
        else
            adapter_release(v);
        mem_fail_at(0);
        if (s == STATUS_OK)
            break;
        assert_int_equal(s, STATUS_NO_MEMORY);
        assert_int_equal(a->stable, 1);
        assert_int_equal(a->n_records, 1);
        assert_false(a->loading);
        assert_int_equal(usage(r).resident_bytes, 100);
        assert_int_equal(usage(r).reserved_bytes, 0);
    }
    assert_int_equal(a->stable, 2);
    s = STATUS_NO_MEMORY;
    for (uint64_t n = 1; s != STATUS_OK; n++) {
        assert_true(n < 10);
        mem_fail_at(n);
        s = registry_register(r, &(struct adapter_wish){.name = "de", .source = "/de"}, NULL, &err);
        mem_fail_at(0);
        assert_int_equal(registry_count(r), s == STATUS_OK ? 2 : 1);
    }
    registry_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_recently_used_leaves_first),
        cmocka_unit_test(in_use_and_pinned_stay),
        cmocka_unit_test(expired_ones_leave_first_and_last_good_ones_last),
        cmocka_unit_test(a_reload_evicts_all_but_its_own_version),
        cmocka_unit_test(versions_with_traffic_stay),
        cmocka_unit_test(a_tenant_does_not_thrash_the_others),
        cmocka_unit_test(above_its_share_a_tenant_waits),
        cmocka_unit_test(what_is_dropped_in_use_counts_until_its_last_user),
        cmocka_unit_test(a_failed_load_changes_nothing),
        cmocka_unit_test(short_memory_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
