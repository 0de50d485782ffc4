/* server/voice_numbers.c: an adapter keeps its number while it is registered, and nobody inherits it. */
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

#include "voice_numbers.h"

static struct registry *r;
static struct voice_numbers v;

static int begin(void **state)
{
    (void)state;
    r = registry_create(&(struct registry_options){.n_names_max = 4096});
    v = (struct voice_numbers){0};
    return r ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    voice_numbers_fini(&v);
    registry_destroy(r);
    return 0;
}

static void add(const char *name)
{
    struct adapter_wish w = {.name = name, .source = "x", .blend = "", .scale = 1};
    assert_int_equal(registry_register(r, &w, NULL, NULL), STATUS_OK);
}

static void take_away(const char *name)
{
    assert_int_equal(registry_remove(r, name, NULL), STATUS_OK);
}

/* "0:a 1:b": all in the order of ids, each found by its id. */
static void expect(const char *wanted)
{
    char text[256] = "";
    voice_numbers_update(&v, r, NULL, 0);
    const struct numbered *n;
    for (size_t i = 0; (n = voice_numbers_at(&v, i)); i++) {
        sprintf(text + strlen(text), "%s%u:%s", i ? " " : "", n->id, n->name);
        assert_string_equal(voice_numbers_name(&v, n->id), n->name);
    }
    assert_string_equal(text, wanted);
}

static void numbers_stay_with_names(void **state)
{
    (void)state;
    expect("");
    assert_null(voice_numbers_name(&v, 0));
    add("m");
    add("c");
    add("x");
    voice_numbers_update(&v, r, (const char *const[]){"x", "nobody", "m"}, 3);
    expect("0:x 1:m 2:c"); /* the command line's order, then names' */
    add("a");
    add("z");
    expect("0:x 1:m 2:c 3:a 4:z");
    take_away("m");
    take_away("z");
    expect("0:x 2:c 3:a");
    assert_null(voice_numbers_name(&v, 1));
    assert_null(voice_numbers_name(&v, 4));
    assert_null(voice_numbers_name(&v, -1));
    assert_null(voice_numbers_name(&v, INT64_MAX));
    add("b");
    add("m");
    expect("0:x 2:c 3:a 5:b 6:m"); /* a name that comes again is a new one */
    take_away("x");
    take_away("c");
    take_away("a");
    take_away("b");
    take_away("m");
    expect("");
    add("n");
    expect("7:n");
}

static void many_names(void **state)
{
    (void)state;
    char name[16];
    for (unsigned i = 0; i < 3000; i++) {
        sprintf(name, "a%u", i * 7919 % 3000);
        add(name);
        if (i % 100 == 0)
            voice_numbers_update(&v, r, NULL, 0);
    }
    voice_numbers_update(&v, r, NULL, 0);
    for (unsigned i = 0; i < 3000; i++) {
        assert_int_equal(voice_numbers_at(&v, i)->id, i);
        assert_string_equal(voice_numbers_name(&v, i), voice_numbers_at(&v, i)->name);
    }
    assert_null(voice_numbers_at(&v, 3000));
    assert_null(voice_numbers_name(&v, 3000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(numbers_stay_with_names, begin, end),
        cmocka_unit_test_setup_teardown(many_names, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
