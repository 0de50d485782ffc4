/* adapters: names, current versions, generations, references. */
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

#include "adapters.h"
#include "base/mem.h"

static struct adapter_version *make_version(const char *name, unsigned char content)
{
    struct adapter_version *v = mem_zalloc(sizeof *v);
    assert_non_null(v);
    atomic_init(&v->refs, 1);
    snprintf(v->name, sizeof v->name, "%s", name);
    v->digest[0] = content;
    return v;
}

static unsigned refs(struct adapter_version *v)
{
    return atomic_load(&v->refs);
}

static void publish(struct registry *r, const char *name, unsigned char content)
{
    struct error err;
    assert_int_equal(registry_publish(r, make_version(name, content), true, NULL, &err), STATUS_OK);
}

static void names_are_kept_in_order(void **state)
{
    (void)state;
    struct registry *r = registry_create(4);
    publish(r, "pt", 1);
    publish(r, "bikeshop", 2);
    publish(r, "safety", 3);
    publish(r, "de", 4);
    static const char *const names[] = {"bikeshop", "de", "pt", "safety"};
    assert_int_equal(registry_count(r), 4);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(registry_at(r, i)->name, names[i]);
    assert_null(registry_at(r, 4));
    assert_int_equal(registry_at(r, 0)->generation, 2); /* in order of publication */
    assert_int_equal(registry_at(r, 2)->generation, 1);
    registry_destroy(r);
    registry_destroy(NULL);
}

static void the_limit_refuses_new_names_only(void **state)
{
    (void)state;
    struct error err;
    bool replaced;
    struct registry *r = registry_create(2);
    publish(r, "a", 1);
    publish(r, "b", 2);
    struct adapter_version *c = make_version("c", 3), *b = make_version("b", 4);
    assert_int_equal(registry_publish(r, c, true, &replaced, &err), STATUS_FULL);
    assert_non_null(strstr(err.text, "2 adapters are loaded"));
    adapter_release(c); /* the refused one is still ours */
    assert_int_equal(registry_publish(r, b, true, &replaced, &err), STATUS_OK);
    assert_true(replaced);
    assert_int_equal(registry_remove(r, "a", &err), STATUS_OK);
    publish(r, "c", 5);
    registry_destroy(r);
}

static void a_replaced_version_lives_by_its_references(void **state)
{
    (void)state;
    struct error err;
    bool replaced = false;
    struct registry *r = registry_create(3);
    publish(r, "pt", 1);
    struct adapter_version *in_flight = registry_acquire(r, "pt");
    assert_int_equal(refs(in_flight), 2);
    struct adapter_version *second = make_version("pt", 2);
    assert_int_equal(registry_publish(r, second, false, &replaced, &err), STATUS_EXISTS);
    assert_non_null(strstr(err.text, "'pt' exists already"));
    assert_int_equal(registry_publish(r, second, true, &replaced, &err), STATUS_OK);
    assert_true(replaced);
    assert_int_equal(refs(in_flight), 1); /* ours alone */
    assert_int_equal(in_flight->generation, 1);
    struct adapter_version *now = registry_acquire(r, "pt");
    assert_ptr_equal(now, second);
    assert_int_equal(now->generation, 2);
    adapter_release(now);
    adapter_release(in_flight); /* frees it: LeakSanitizer watches */
    registry_destroy(r);
}

static void the_same_content_keeps_its_generation(void **state)
{
    (void)state;
    struct error err;
    bool replaced = true;
    struct registry *r = registry_create(3);
    publish(r, "pt", 7);
    publish(r, "de", 8);
    struct adapter_version *again = make_version("pt", 7);
    assert_int_equal(registry_publish(r, again, true, &replaced, &err), STATUS_OK);
    assert_false(replaced);
    assert_int_equal(again->generation, 1);
    assert_int_equal(registry_count(r), 2);
    publish(r, "pt", 9);
    struct adapter_version *v = registry_acquire(r, "pt");
    assert_int_equal(v->generation, 3);
    adapter_release(v);
    registry_destroy(r);
}

static void removal_lets_requests_finish(void **state)
{
    (void)state;
    struct error err;
    struct registry *r = registry_create(3);
    publish(r, "pt", 1);
    struct adapter_version *in_flight = registry_acquire(r, "pt");
    assert_int_equal(registry_remove(r, "pt", &err), STATUS_OK);
    assert_int_equal(registry_remove(r, "pt", &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, "'pt' does not exist"));
    assert_null(registry_acquire(r, "pt"));
    assert_int_equal(registry_count(r), 0);
    assert_int_equal(refs(in_flight), 1);
    publish(r, "pt", 1); /* published anew: a new number, although the content is known */
    assert_int_equal(registry_at(r, 0)->generation, 2);
    adapter_release(in_flight);
    registry_destroy(r);
}

static void names_have_a_grammar(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "Pt-BR_2.1", "0",
                                       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    static const char *const bad[] = {
        "",         ".a",  "-a",
        "_a",       "a/b", "a b",
        "\xc3\xa4", "a:b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(adapter_name_is_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(adapter_name_is_valid(bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_kept_in_order),
        cmocka_unit_test(the_limit_refuses_new_names_only),
        cmocka_unit_test(a_replaced_version_lives_by_its_references),
        cmocka_unit_test(the_same_content_keeps_its_generation),
        cmocka_unit_test(removal_lets_requests_finish),
        cmocka_unit_test(names_have_a_grammar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
