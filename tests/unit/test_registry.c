/* adapters: names, versions and their roles, the log of changes. */
#include "registry_rig.h"

#include <stdio.h>
#include <string.h>

#include "registry_inner.h"

/* ---- names */

static void names_are_kept_in_order(void **state)
{
    (void)state;
    struct registry *r = create(0, 0);
    static const char *const given[] = {"pt", "bikeshop", "safety", "de"};
    static const char *const names[] = {"bikeshop", "de", "pt", "safety"};
    for (size_t i = 0; i < 4; i++)
        name(r, given[i]);
    assert_int_equal(registry_count(r), 4);
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(registry_at(r, i)->wish.name, names[i]);
        assert_ptr_equal(registry_find(r, names[i]), registry_at(r, i));
    }
    assert_null(registry_at(r, 4));
    assert_null(registry_find(r, "d"));
    registry_destroy(r);
    registry_destroy(NULL);
}

static void bad_and_too_many_names_are_refused(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = registry_create(&(struct registry_options){.n_names_max = 2});
    name(r, "a");
    name(r, "b");
    assert_int_equal(registry_register(r, &(struct adapter_wish){.name = "c"}, NULL, &err), STATUS_FULL);
    assert_non_null(strstr(err.text, "2 adapters are registered"));
    assert_int_equal(registry_register(r, &(struct adapter_wish){.name = "a/b"}, NULL, &err), STATUS_INVALID);
    assert_int_equal(registry_remove(r, "a", &err), STATUS_OK);
    assert_int_equal(registry_remove(r, "a", &err), STATUS_NOT_FOUND);
    name(r, "c");
    registry_destroy(r);
}

static void wishes_change_and_equal_ones_are_no_change(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = create(0, 0);
    char source[] = "/adapters/pt";
    struct adapter_wish w = {.name = "pt", .source = source, .scale = 2, .merge = MERGE_AUTO};
    struct adapter *a = NULL, *again = NULL;
    assert_int_equal(registry_register(r, &w, &a, &err), STATUS_OK);
    memset(source, 'x', sizeof source - 1); /* it was copied */
    assert_string_equal(a->wish.source, "/adapters/pt");
    assert_string_equal(a->wish.blend, "");
    w.source = "/adapters/pt";
    assert_int_equal(registry_register(r, &w, &again, &err), STATUS_OK);
    assert_ptr_equal(a, again);
    assert_int_equal(registry_revision(r), 1);
    w.source = "/adapters/pt2";
    assert_int_equal(registry_register(r, &w, NULL, &err), STATUS_OK);
    assert_string_equal(a->wish.source, "/adapters/pt2");
    assert_int_equal(a->revision, 2);
    registry_set_pinned(r, a, true);
    registry_set_pinned(r, a, true);
    assert_int_equal(a->revision, 3);
    registry_destroy(r);
}

/* What the issue promises: a name that was never loaded costs at most 2 KiB, and thousands are quick. */
static void ten_thousand_names_are_cheap(void **state)
{
    (void)state;
    struct registry *r = registry_create(&(struct registry_options){.n_names_max = 100000});
    struct error err;
    char text[40], source[80];
    uint64_t before = mem_count();
    for (uint32_t i = 0; i < 10000; i++) { /* 7919 is prime to 10000: every name, out of order */
        snprintf(text, sizeof text, "adapter-%05u", i * 7919 % 10000);
        snprintf(source, sizeof source, "/srv/adapters/some/where/%s", text);
        assert_int_equal(registry_register(r,
                                           &(struct adapter_wish){.name = text, .source = source, .scale = 1},
                                           NULL, &err),
                         STATUS_OK);
    }
    assert_int_equal(registry_count(r), 10000);
    for (size_t i = 1; i < 10000; i++)
        assert_true(strcmp(registry_at(r, i - 1)->wish.name, registry_at(r, i)->wish.name) < 0);
    uint64_t n_blocks = mem_count() - before;
    assert_true(n_blocks <= 2 * 10000 + 10); /* the entry and its texts; the array doubles */
    size_t bytes =
        sizeof(struct entry) + 2 * sizeof(struct entry *) + 256 + 2 * 32; /* texts, the heap's own */
    assert_true(bytes <= 2048);
    registry_destroy(r);
}

/* ---- which version */

static void pins_name_one_version(void **state)
{
    (void)state;
    struct registry *r = create(0, 100 * S);
    struct adapter *a = name(r, "pt");
    struct publication canary = {.as = PUBLISH_CANARY};
    assert_int_equal(publish(r, "pt", 0x12345678, 1, 0), 1);
    assert_int_equal(publish(r, "pt", 0xabcdef01, 1, 0), 2);
    struct adapter_version *v = make_version(0xabcdef01, 1);
    v->digest[31] = 9; /* begins as the second's */
    struct error err;
    assert_int_equal(registry_publish(r, a, v, &canary, 0, &err), STATUS_OK);
    static const struct {
        const char *pin;
        enum status status;
        uint64_t generation;
    } rows[] = {
        {"", STATUS_OK, 2},
        {"1", STATUS_OK, 1},
        {"3", STATUS_OK, 3},
        {"4", STATUS_NOT_FOUND, 0},
        {"01", STATUS_INVALID, 0},  /* a generation has one way to be written */
        {"12345678", STATUS_OK, 1}, /* digits alone that are no known generation */
        {"123456780", STATUS_OK, 1},
        {"1234567", STATUS_NOT_FOUND, 0},
        {"123456781", STATUS_NOT_FOUND, 0},
        {"ABCDEF01", STATUS_INVALID, 0}, /* two of them */
        {"abcdef0100000000000000000000000000000000000000000000000000000000", STATUS_OK, 2},
        {"abcdef0100000000000000000000000000000000000000000000000000000009", STATUS_OK, 3},
        {"abcdef01000000000000000000000000000000000000000000000000000000090", STATUS_INVALID, 0},
        {"abcdef0", STATUS_INVALID, 0}, /* too short */
        {"latest", STATUS_INVALID, 0},
        {"-1", STATUS_INVALID, 0},
        {"99999999999999999999", STATUS_NOT_FOUND, 0},
        {"00000000", STATUS_NOT_FOUND, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t generation = 0;
        enum status s = registry_choose(a, rows[i].pin, 0, &generation, &err);
        if (s != rows[i].status || (s == STATUS_OK && generation != rows[i].generation))
            fail_msg("pin '%s': %s, generation %llu", rows[i].pin, status_name(s),
                     (unsigned long long)generation);
    }
    uint64_t generation = 1;
    assert_int_equal(registry_choose(name(r, "never"), "", 0, &generation, &err), STATUS_OK);
    assert_int_equal(generation, 0);
    registry_destroy(r);
}

static void traffic_is_sticky_and_follows_the_shares(void **state)
{
    (void)state;
    enum { N = 100000 };
    struct registry *r = create(0, 100 * S);
    struct adapter *a = name(r, "pt");
    struct error err;
    uint64_t g[3], n[3] = {0};
    g[0] = publish(r, "pt", 1, 1, 0);
    for (uint32_t i = 1; i < 3; i++) {
        struct publication p = {.as = PUBLISH_CANARY};
        g[i] = publish_as(r, a, &p, i + 1, 1, 0, 0);
        assert_int_equal(a->stable, g[0]);
        struct traffic_split some[] = {{g[0], 85}, {g[1], 10}, {g[2], 5}};
        if (i == 1)
            assert_int_equal(
                registry_set_traffic(r, a, (struct traffic_split[]){{g[0], 90}, {g[1], 10}}, 2, &err),
                STATUS_OK);
        else
            assert_int_equal(registry_set_traffic(r, a, some, 3, &err), STATUS_OK);
    }
    uint64_t x = 88172645463325252ULL;
    for (int i = 0; i < N; i++) {
        uint64_t one = 0, two = 0;
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        assert_int_equal(registry_choose(a, "", x, &one, &err), STATUS_OK);
        assert_int_equal(registry_choose(a, "", x, &two, &err), STATUS_OK);
        assert_int_equal(one, two);
        n[one - g[0]]++;
    }
    /* Pearson's chi-squared over three classes: above 20 once in 22,000 random seeds. */
    static const double share[] = {0.85, 0.10, 0.05};
    double chi = 0;
    for (int i = 0; i < 3; i++) {
        double d = (double)n[i] - share[i] * N;
        chi += d * d / (share[i] * N);
    }
    assert_true(chi < 20);
    struct traffic_split bad[] = {{g[0], 50}, {g[1], 49}}, twice[] = {{g[0], 50}, {g[0], 50}},
                         unknown[] = {{g[0], 50}, {99, 50}}, wraps[] = {{g[0], UINT32_MAX}, {g[1], 101}};
    uint64_t revision = a->revision;
    assert_int_equal(registry_set_traffic(r, a, bad, 2, &err), STATUS_INVALID);
    assert_int_equal(registry_set_traffic(r, a, twice, 2, &err), STATUS_INVALID);
    assert_int_equal(registry_set_traffic(r, a, wraps, 2, &err), STATUS_INVALID);
    assert_int_equal(registry_set_traffic(r, a, unknown, 2, &err), STATUS_NOT_FOUND);
    assert_int_equal(registry_set_traffic(r, a, bad, 5, &err), STATUS_INVALID);
    assert_int_equal(a->revision, revision);
    assert_int_equal(a->n_splits, 3);
    assert_int_equal(registry_set_traffic(r, a, NULL, 0, &err), STATUS_OK);
    for (uint64_t h = 0; h < 10000; h += 99) {
        uint64_t generation;
        assert_int_equal(registry_choose(a, "", h, &generation, &err), STATUS_OK);
        assert_int_equal(generation, g[0]);
    }
    registry_destroy(r);
}

/* ---- roles */

static void a_replaced_version_lives_by_its_references(void **state)
{
    (void)state;
    struct registry *r = create(0, 0);
    struct adapter *a = name(r, "pt");
    publish(r, "pt", 1, 100, 0);
    struct adapter_version *in_flight = registry_acquire(r, a, 1, 0);
    assert_int_equal(in_flight->generation, 1);
    assert_string_equal(in_flight->name, "pt");
    assert_int_equal(publish(r, "pt", 2, 100, 1), 2);
    registry_sweep(r, 1);
    assert_null(registry_acquire(r, a, 1, 1)); /* it is for those who have it */
    assert_int_equal(usage(r).n_retired, 1);
    assert_int_equal(usage(r).n_resident, 1);
    assert_int_equal(usage(r).resident_bytes, 200);
    assert_int_equal(in_flight->lora->size_bytes, 100);
    registry_release(r, in_flight, true);
    assert_int_equal(registry_record(a, 1)->n_failures, 1);
    assert_int_equal(registry_record(a, 1)->n_requests, 1);
    assert_int_equal(usage(r).n_retired, 0);
    assert_int_equal(usage(r).resident_bytes, 100);
    registry_destroy(r);
}

static void the_last_good_one_is_kept_for_its_time(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = create(0, 10 * S);
    struct adapter *a = name(r, "pt");
    for (uint32_t i = 1; i <= 3; i++)
        publish(r, "pt", i, 1, i * S);
    assert_int_equal(a->stable, 3);
    assert_int_equal(a->previous, 2);
    assert_true(has_bytes(a, 3) && has_bytes(a, 2));
    assert_false(has_bytes(a, 1)); /* one is kept, not all */
    registry_sweep(r, 12 * S);
    assert_true(has_bytes(a, 2));
    registry_sweep(r, 13 * S);
    assert_false(has_bytes(a, 2));
    assert_int_equal(registry_rollback(r, a, 13 * S, &err), STATUS_UNAVAILABLE);
    assert_int_equal(a->stable, 3);
    registry_sweep(r, 1000 * S);
    assert_true(has_bytes(a, 3));
    registry_destroy(r);
}

static void rollback_goes_back_and_forth(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = create(0, 10 * S);
    struct adapter *a = name(r, "pt");
    publish(r, "pt", 1, 1, 0);
    assert_int_equal(registry_rollback(r, a, 0, &err), STATUS_NOT_FOUND);
    publish(r, "pt", 2, 1, 0);
    struct publication p = {.as = PUBLISH_CANARY}, shadow = {.as = PUBLISH_SHADOW};
    uint64_t canary = publish_as(r, a, &p, 3, 1, 0, 0), scored = publish_as(r, a, &shadow, 4, 1, 0, 0);
    assert_int_equal(registry_set_traffic(r, a, (struct traffic_split[]){{2, 50}, {canary, 50}}, 2, &err),
                     STATUS_OK);
    assert_int_equal(a->shadow, scored);
    assert_int_equal(registry_rollback(r, a, S, &err), STATUS_OK);
    assert_int_equal(a->stable, 1);
    assert_int_equal(a->previous, 2);
    assert_int_equal(a->n_splits, 0);
    assert_int_equal(a->shadow, 0);
    registry_sweep(r, 10 * S); /* the time of the one gone back from began with the rollback */
    assert_true(has_bytes(a, 2));
    assert_int_equal(registry_rollback(r, a, 10 * S, &err), STATUS_OK);
    assert_int_equal(a->stable, 2);
    registry_sweep(r, 11 * S);
    assert_false(has_bytes(a, canary)); /* lost its role ten seconds ago */
    assert_true(has_bytes(a, 1));
    registry_destroy(r);
}

static void a_canary_is_promoted(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = create(0, 10 * S);
    struct adapter *a = name(r, "pt");
    publish(r, "pt", 1, 1, 0);
    struct publication p = {.as = PUBLISH_CANARY};
    uint64_t first = publish_as(r, a, &p, 2, 1, 0, 0);
    registry_sweep(r, 100 * S);
    assert_true(has_bytes(a, first)); /* waits for its traffic without end */
    uint64_t second = publish_as(r, a, &p, 3, 1, 0, 100 * S);
    assert_false(has_bytes(a, first)); /* but the next one takes its place */
    assert_int_equal(registry_promote(r, a, first, 100 * S, &err), STATUS_UNAVAILABLE);
    assert_int_equal(registry_promote(r, a, 77, 100 * S, &err), STATUS_NOT_FOUND);
    assert_int_equal(registry_set_traffic(r, a, (struct traffic_split[]){{1, 90}, {second, 10}}, 2, &err),
                     STATUS_OK);
    assert_int_equal(registry_promote(r, a, second, 100 * S, &err), STATUS_OK);
    assert_int_equal(a->stable, second);
    assert_int_equal(a->previous, 1);
    assert_int_equal(a->n_splits, 0);
    uint64_t revision = registry_revision(r);
    assert_int_equal(registry_promote(r, a, second, 100 * S, &err), STATUS_OK);
    assert_int_equal(registry_revision(r), revision);
    registry_destroy(r);
}

static void a_shadow_scores_until_it_ends(void **state)
{
    (void)state;
    struct registry *r = create(0, 0);
    struct adapter *a = name(r, "pt");
    publish(r, "pt", 1, 1, 0);
    struct publication p = {.as = PUBLISH_SHADOW};
    uint64_t shadow = publish_as(r, a, &p, 2, 1, 0, 0);
    assert_int_equal(a->shadow, shadow);
    assert_int_equal(a->stable, 1);
    registry_sweep(r, 100 * S);
    assert_true(has_bytes(a, shadow));
    publish_as(r, a, &p, 2, 1, 0, 0);
    assert_true(p.unchanged);
    registry_end_shadow(r, a);
    registry_end_shadow(r, a);
    assert_int_equal(a->shadow, 0);
    registry_sweep(r, 101 * S);
    assert_false(has_bytes(a, shadow));
    publish_as(r, a, &p, 1, 1, 0, 101 * S); /* the stable one's shadow: nothing to compare */
    assert_true(p.unchanged);
    assert_int_equal(a->shadow, 0);
    registry_destroy(r);
}

static void the_same_content_keeps_its_generation(void **state)
{
    (void)state;
    struct registry *r = create(0, 10 * S);
    struct adapter *a = name(r, "pt");
    publish(r, "pt", 7, 100, 0);
    const struct adapter_version *there = registry_record(a, 1)->version;
    uint64_t revision = registry_revision(r);
    struct publication p = {.as = PUBLISH_STABLE};
    assert_int_equal(publish_as(r, a, &p, 7, 100, 0, 0), 1);
    assert_true(p.unchanged);
    assert_ptr_equal(p.version, there);
    assert_int_equal(registry_revision(r), revision);
    assert_int_equal(usage(r).resident_bytes, 100);
    publish(r, "pt", 8, 100, 0);
    assert_int_equal(publish_as(r, a, &p, 7, 100, 0, 0), 1); /* the older bytes again: it goes back */
    assert_false(p.unchanged);
    assert_int_equal(a->stable, 1);
    assert_int_equal(a->previous, 2);
    assert_int_equal(publish(r, "de", 7, 100, 0), 3); /* another name's is another version */
    registry_destroy(r);
}

static void another_scale_makes_another_version(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = create(0, 10 * S);
    struct adapter *a = name(r, "pt");
    publish(r, "pt", 0x12345678, 100, 0);
    struct adapter_version *louder = make_version(0x12345678, 100);
    louder->user_scale = 2;
    struct publication p = {.as = PUBLISH_STABLE};
    assert_int_equal(registry_publish(r, a, louder, &p, 0, &err), STATUS_OK);
    assert_int_equal(p.generation, 2);
    uint64_t generation;
    assert_int_equal(registry_choose(a, "12345678", 0, &generation, &err), STATUS_OK);
    assert_int_equal(generation, 2); /* the one in force */
    assert_int_equal(registry_rollback(r, a, 0, &err), STATUS_OK);
    assert_int_equal(registry_choose(a, "12345678", 0, &generation, &err), STATUS_OK);
    assert_int_equal(generation, 1);
    registry_destroy(r);
}

static void bytes_come_back_as_what_they_were(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = create(0, 10 * S);
    struct adapter *a = name(r, "pt");
    assert_int_equal(load(r, "pt", 1, 10, 0, 0), STATUS_OK); /* the first */
    assert_int_equal(a->stable, 1);
    registry_evict(r, a);
    assert_false(use(r, "pt", 0));
    assert_int_equal(usage(r).resident_bytes, 0);
    uint64_t etag = a->revision;
    assert_int_equal(load(r, "pt", 1, 10, 0, 0), STATUS_OK);
    assert_int_equal(a->stable, 1);
    assert_int_equal(a->revision, etag); /* only where it is has changed */
    assert_true(use(r, "pt", 0));
    registry_evict(r, a);
    assert_int_equal(load(r, "pt", 2, 10, 0, 0), STATUS_OK); /* its files changed meanwhile */
    assert_int_equal(a->stable, 2);
    assert_int_equal(a->previous, 1);
    /* one that asks for generation 1 doesn't publish what is there now */
    struct publication p = {.as = PUBLISH_AGAIN, .generation = 1};
    assert_int_equal(registry_reserve(r, a, 10, 0, 0, &err), STATUS_OK);
    assert_int_equal(registry_publish(r, a, make_version(3, 10), &p, 0, &err), STATUS_UNAVAILABLE);
    assert_int_equal(a->stable, 2);
    assert_int_equal(a->n_records, 2);
    assert_false(a->loading);
    assert_non_null(strstr(a->last_error, "bytes of generation 1 are gone"));
    p = (struct publication){.as = PUBLISH_AGAIN, .generation = 1};
    assert_int_equal(publish_as(r, a, &p, 1, 10, 0, 20 * S), 1);
    assert_int_equal(a->stable, 2);
    assert_null(a->last_error);
    struct adapter_version *v = registry_acquire(r, a, 1, 25 * S);
    registry_release(r, v, false);
    registry_sweep(r, 34 * S);
    assert_true(has_bytes(a, 1)); /* ten seconds from its last request */
    registry_sweep(r, 35 * S);
    assert_false(has_bytes(a, 1));
    registry_destroy(r);
}

/* A server starts again while traffic is split, and both versions have one path: the canary's bytes are
 * there. */
static void asking_for_the_stable_one_makes_no_canary_of_it(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = create(0, 0);
    struct adapter *a = name(r, "pt");
    publish(r, "pt", 1, 1, 0);
    struct publication canary = {.as = PUBLISH_CANARY}, p = {.as = PUBLISH_AGAIN, .generation = 1};
    publish_as(r, a, &canary, 2, 1, 0, 0);
    assert_int_equal(registry_set_traffic(r, a, (struct traffic_split[]){{1, 90}, {2, 10}}, 2, &err),
                     STATUS_OK);
    registry_evict(r, a);
    assert_int_equal(registry_publish(r, a, make_version(2, 1), &p, 0, &err), STATUS_UNAVAILABLE);
    assert_int_equal(a->stable, 1);
    p.generation = 2;
    assert_int_equal(registry_publish(r, a, make_version(2, 1), &p, 0, &err), STATUS_OK);
    assert_int_equal(a->stable, 1);
    assert_int_equal(a->n_splits, 2);
    registry_destroy(r);
}

static void a_new_stable_version_ends_the_traffic(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = create(0, 10 * S);
    struct adapter *a = name(r, "pt");
    publish(r, "pt", 1, 1, 0);
    struct publication p = {.as = PUBLISH_CANARY};
    publish_as(r, a, &p, 2, 1, 0, 0);
    assert_int_equal(registry_set_traffic(r, a, (struct traffic_split[]){{1, 1}, {2, 99}}, 2, &err),
                     STATUS_OK);
    publish(r, "pt", 3, 1, 0);
    uint64_t generation;
    assert_int_equal(registry_choose(a, "", 9999, &generation, &err), STATUS_OK);
    assert_int_equal(generation, 3);
    assert_false(has_bytes(a, 2));
    registry_destroy(r);
}

static void the_first_version_is_stable_whatever_was_asked(void **state)
{
    (void)state;
    struct registry *r = create(0, 0);
    struct publication p = {.as = PUBLISH_CANARY};
    publish_as(r, name(r, "pt"), &p, 1, 1, 0, 0);
    assert_int_equal(name(r, "pt")->stable, 1);
    registry_destroy(r);
}

static void old_records_go_but_not_those_with_a_role(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = create(0, 1000 * S);
    struct adapter *a = name(r, "pt");
    publish(r, "pt", 1, 1, 0);
    struct publication p = {.as = PUBLISH_CANARY};
    publish_as(r, a, &p, 2, 1, 0, 0);
    assert_int_equal(registry_set_traffic(r, a, (struct traffic_split[]){{1, 50}, {2, 50}}, 2, &err),
                     STATUS_OK);
    for (uint32_t i = 3; i <= 60; i++)
        publish_as(r, a, &p, i, 1, 0, 0);
    assert_int_equal(a->n_records, REGISTRY_VERSIONS_MAX);
    assert_true(has_bytes(a, 1) && has_bytes(a, 2) && has_bytes(a, 60));
    assert_null(registry_record(a, 3));
    for (uint32_t i = 1; i < a->n_records; i++)
        assert_true(a->records[i].generation < a->records[i - 1].generation);
    assert_int_equal(usage(r).n_resident, 3);
    /* old ones that requests have brought back: bytes, but no role */
    for (uint32_t i = 0; i < a->n_records; i++) {
        struct publication again = {.as = PUBLISH_AGAIN, .generation = a->records[i].generation};
        publish_as(r, a, &again, (uint32_t)a->records[i].generation, 1, 0, 0);
    }
    assert_int_equal(usage(r).n_resident, 16);
    struct publication shadow = {.as = PUBLISH_SHADOW};
    publish_as(r, a, &shadow, 61, 1, 0, 0);
    assert_int_equal(a->n_records, REGISTRY_VERSIONS_MAX);
    assert_true(has_bytes(a, 1) && has_bytes(a, 2) && has_bytes(a, 61));
    assert_int_equal(usage(r).n_resident, 3);
    registry_destroy(r);
}

/* ---- the log of changes */

struct seen {
    uint32_t n;
    uint64_t last;
    char text[1000];
};
static void see(const struct registry_change *c, void *data)
{
    struct seen *s = data;
    size_t used = strlen(s->text);
    if (s->n++)
        assert_int_equal(c->revision, s->last + 1);
    s->last = c->revision;
    if (used < 900)
        snprintf(s->text + used, sizeof s->text - used, "%s %s %llu; ", change_name(c->kind), c->name,
                 (unsigned long long)c->generation);
}

static void changes_are_told_and_remembered(void **state)
{
    (void)state;
    struct error err, why;
    struct seen told = {0}, listed = {0}, few = {0};
    struct registry *r = registry_create(
        &(struct registry_options){.n_names_max = 10, .keep_ns = S, .changed = see, .data = &told});
    struct adapter *a = name(r, "pt");
    publish(r, "pt", 0x12345678, 1, 0);
    publish(r, "pt", 2, 1, 0);
    assert_int_equal(registry_rollback(r, a, 0, &err), STATUS_OK);
    fail(&why, STATUS_FORMAT, "bad");
    assert_int_equal(registry_reserve(r, a, 1, 0, 0, &err), STATUS_OK);
    registry_load_failed(r, a, &why, 0);
    registry_evict(r, a);
    assert_int_equal(load(r, "pt", 0x12345678, 1, 0, 0), STATUS_OK);
    assert_int_equal(registry_remove(r, "pt", &err), STATUS_OK);
    assert_true(registry_changes(r, 0, see, &listed));
    assert_string_equal(listed.text,
                        "registered pt 0; published pt 1; published pt 2; rolled_back pt 1; "
                        "failed pt 1; evicted pt 2; evicted pt 1; loaded_again pt 1; removed pt 1; ");
    assert_string_equal(told.text, listed.text);
    assert_true(registry_changes(r, 7, see, &few));
    assert_string_equal(few.text, "loaded_again pt 1; removed pt 1; ");
    assert_false(registry_changes(r, 10, see, &few)); /* not of this run */
    assert_int_equal(few.n, 2);
    for (uint32_t i = 0; i < REGISTRY_CHANGES_MAX; i++)
        registry_set_pinned(r, name(r, "de"), i % 2 == 0);
    struct seen rest = {0};
    assert_false(registry_changes(r, 5, see, &rest));
    assert_int_equal(rest.n, REGISTRY_CHANGES_MAX);
    assert_int_equal(rest.last, registry_revision(r));
    assert_true(registry_changes(r, registry_revision(r), see, &rest));
    registry_destroy(r);
}

/* ---- an earlier run's */

static void a_kept_state_comes_back(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = create(0, 10 * S);
    struct adapter *a = name(r, "pt");
    for (uint64_t i = 5; i <= 7; i++) {
        uint8_t digest[32] = {[3] = (uint8_t)i};
        const struct version_restored v = {
            .generation = 12 - i, .source = "/kept", .scale = 1, .published_wall_ms = 99};
        assert_int_equal(registry_restore(r, a, &v, digest, &err), STATUS_OK);
        assert_int_equal(registry_restore(r, a, &v, digest, &err), STATUS_EXISTS);
    }
    const struct version_restored none = {.generation = 0};
    assert_int_equal(registry_restore(r, a, &none, (uint8_t[32]){1}, &err), STATUS_INVALID);
    registry_restore_roles(a, 6, 5, 99);
    assert_int_equal(a->stable, 6);
    assert_int_equal(a->previous, 5);
    assert_int_equal(a->shadow, 0);
    assert_int_equal(a->records[0].generation, 7);
    assert_string_equal(registry_record(a, 6)->source, "/kept");
    assert_int_equal(registry_record(a, 6)->published_wall_ms, 99);
    uint64_t revision, generation;
    registry_counters(r, &revision, &generation);
    assert_int_equal(generation, 7);
    registry_set_counters(r, 1000, 20);
    assert_int_equal(a->revision, 1000);
    assert_false(registry_changes(r, 1, see, &(struct seen){0}));
    assert_true(registry_changes(r, 1000, see, &(struct seen){0}));
    assert_int_equal(registry_rollback(r, a, 0, &err), STATUS_UNAVAILABLE);
    assert_int_equal(load(r, "pt", 6, 1, 0, 0), STATUS_OK); /* digest of generation 6 = 12 - 6 */
    assert_int_equal(a->stable, 6);
    assert_int_equal(publish(r, "pt", 77, 1, 0), 21);
    registry_counters(r, &revision, &generation);
    assert_int_equal(generation, 21);
    assert_int_equal(revision, registry_revision(r));
    assert_true(revision > 1000);
    registry_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_kept_in_order),
        cmocka_unit_test(bad_and_too_many_names_are_refused),
        cmocka_unit_test(wishes_change_and_equal_ones_are_no_change),
        cmocka_unit_test(ten_thousand_names_are_cheap),
        cmocka_unit_test(pins_name_one_version),
        cmocka_unit_test(traffic_is_sticky_and_follows_the_shares),
        cmocka_unit_test(a_replaced_version_lives_by_its_references),
        cmocka_unit_test(the_last_good_one_is_kept_for_its_time),
        cmocka_unit_test(rollback_goes_back_and_forth),
        cmocka_unit_test(a_canary_is_promoted),
        cmocka_unit_test(a_shadow_scores_until_it_ends),
        cmocka_unit_test(the_same_content_keeps_its_generation),
        cmocka_unit_test(another_scale_makes_another_version),
        cmocka_unit_test(bytes_come_back_as_what_they_were),
        cmocka_unit_test(asking_for_the_stable_one_makes_no_canary_of_it),
        cmocka_unit_test(a_new_stable_version_ends_the_traffic),
        cmocka_unit_test(the_first_version_is_stable_whatever_was_asked),
        cmocka_unit_test(old_records_go_but_not_those_with_a_role),
        cmocka_unit_test(changes_are_told_and_remembered),
        cmocka_unit_test(a_kept_state_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
