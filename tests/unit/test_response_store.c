/* The store of responses: found at once, kept in a file, each owner's own, bounded. */
#include "../test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "response_store.h"

static const uint8_t one[32] = {1}, two[32] = {2};

static void put(struct response_store *s, const uint8_t owner[32], const char *id, const char *text)
{
    struct buf b;
    buf_init(&b, 0);
    buf_puts(&b, text);
    response_store_put(s, owner, id, &b);
    buf_fini(&b);
}

/* "": it isn't there. */
static const char *get(struct response_store *s, const uint8_t owner[32], const char *id)
{
    static char text[64];
    struct buf b;
    struct error err;
    buf_init(&b, 0);
    enum status st = response_store_get(s, owner, id, &b, &err);
    snprintf(text, sizeof text, "%s", st == STATUS_OK ? b.data : "");
    assert_true(st == STATUS_OK || st == STATUS_NOT_FOUND);
    buf_fini(&b);
    return text;
}

static void keeps_in_memory(void **state)
{
    struct error err;
    struct response_store *s = response_store_create(NULL, NULL, 1000);
    (void)state;
    put(s, one, "a", "hello");
    put(s, two, "a", "other");
    for (int i = 0; i < 2; i++) { /* waiting, then written */
        assert_string_equal(get(s, one, "a"), "hello");
        assert_string_equal(get(s, two, "a"), "other");
        assert_string_equal(get(s, one, "b"), "");
        assert_int_equal(response_store_flush(s, &err), STATUS_OK);
    }
    assert_int_equal(response_store_delete(s, two, "a", &err), STATUS_OK);
    assert_int_equal(response_store_delete(s, two, "a", &err), STATUS_NOT_FOUND);
    assert_string_equal(get(s, two, "a"), "");
    assert_string_equal(get(s, one, "a"), "hello");
    put(s, one, "c", "gone at once");
    assert_int_equal(response_store_delete(s, one, "c", &err), STATUS_OK);
    assert_string_equal(get(s, one, "c"), "");
    response_store_destroy(s);
}

static void the_oldest_go(void **state)
{
    struct error err;
    struct response_store *s = response_store_create(NULL, NULL, 20);
    char id[8];
    (void)state;
    for (int i = 0; i < 5; i++) {
        snprintf(id, sizeof id, "r%d", i);
        put(s, one, id, "12345678");
        assert_int_equal(response_store_flush(s, &err), STATUS_OK);
    }
    assert_string_equal(get(s, one, "r2"), "");
    assert_string_equal(get(s, one, "r3"), "12345678");
    assert_string_equal(get(s, one, "r4"), "12345678");
    put(s, one, "long", "this one is longer than all that is allowed");
    assert_int_equal(response_store_flush(s, &err), STATUS_OK);
    assert_string_equal(get(s, one, "long"), "");
    response_store_destroy(s);
}

static void a_file_outlives_it(void **state)
{
    char folder[] = "/tmp/lorikeet-responses-XXXXXX", path[64], more[80];
    struct error err;
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/kept", folder);
    struct response_store *s = response_store_create(NULL, path, 1000);
    put(s, one, "a", "hello");
    response_store_destroy(s); /* writes what waits */
    s = response_store_create(NULL, path, 1000);
    assert_string_equal(get(s, one, "a"), "hello");
    assert_int_equal(response_store_delete(s, one, "a", &err), STATUS_OK);
    response_store_destroy(s);
    for (size_t i = 0; i < 3; i++) {
        snprintf(more, sizeof more, "%s%s", path, i == 0 ? "" : i == 1 ? "-wal" : "-shm");
        unlink(more);
    }
    rmdir(folder);
}

/* A file that is none of ours is an error that says so, and nothing is lost but what was to be kept. */
static void a_strange_file_is_said(void **state)
{
    char path[] = "/tmp/lorikeet-responses-XXXXXX";
    struct error err;
    struct buf b;
    (void)state;
    int fd = mkstemp(path);
    assert_true(
        fd >= 0 &&
        write(
            fd,
            "this is no database, but long enough for a header of one ......................................",
            96) > 0);
    close(fd);
    struct response_store *s = response_store_create(NULL, path, 1000);
    put(s, one, "a", "hello");
    assert_string_equal(get(s, one, "a"), "hello");
    assert_int_equal(response_store_flush(s, &err), STATUS_IO);
    assert_non_null(strstr(err.text, path));
    buf_init(&b, 0);
    assert_int_equal(response_store_get(s, one, "a", &b, &err), STATUS_IO);
    buf_fini(&b);
    response_store_destroy(s);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_in_memory),
        cmocka_unit_test(the_oldest_go),
        cmocka_unit_test(a_file_outlives_it),
        cmocka_unit_test(a_strange_file_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
