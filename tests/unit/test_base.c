/* core/base: errors, arena, buffer, files, log. */
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

static void errors_carry_status_and_text(void **state)
{
    (void)state;
    struct error err = {0};
    assert_int_equal(fail(&err, STATUS_FORMAT, "found %d", 3), STATUS_FORMAT);
    assert_string_equal(err.text, "found 3");
    assert_int_equal(fail_within(&err, "file %s", "x"), STATUS_FORMAT);
    assert_string_equal(err.text, "file x: found 3");
    assert_string_equal(status_name(STATUS_NOT_FOUND), "NOT_FOUND");
    assert_string_equal(status_text(STATUS_FORMAT), "malformed");
    char longer[2000];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    fail(&err, STATUS_IO, "%s", longer);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    fail_within(&err, "%s", longer);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_int_equal(fail(NULL, STATUS_IO, "nobody listens"), STATUS_IO);
}

static void count_one(void *data)
{
    ++*(int *)data;
}

static void arena_gives_zeroed_aligned_memory_within_its_limit(void **state)
{
    (void)state;
    struct arena *a = arena_create(100000);
    int n_ended = 0;
    assert_int_equal(arena_on_end(a, count_one, &n_ended), 0);
    for (int i = 1; i < 400; i++) {
        unsigned char *p = arena_alloc(a, (size_t)i);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (int j = 0; j < i; j++)
            assert_int_equal(p[j], 0);
        memset(p, 0xff, (size_t)i);
    }
    assert_null(arena_alloc(a, 100000));
    assert_null(arena_array(a, SIZE_MAX / 2, 4));
    assert_null(arena_alloc(a, SIZE_MAX));
    assert_string_equal(arena_printf(a, "%d-%s", 5, "x"), "5-x");
    assert_string_equal(arena_strndup(a, "hello", 4), "hell");
    arena_reset(a);
    assert_int_equal(n_ended, 1);
    assert_int_equal(arena_bytes(a), 0);
    assert_non_null(arena_alloc(a, 50000));
    assert_int_equal(arena_on_end(a, count_one, &n_ended), 0);
    arena_destroy(a);
    assert_int_equal(n_ended, 2);
}

static void buffer_grows_to_its_bound(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1000);
    assert_string_equal(b.data, "");
    for (int i = 0; i < 100; i++)
        assert_true(buf_printf(&b, "%09d\n", i));
    assert_int_equal(b.length, 1000);
    assert_false(buf_putc(&b, 'x'));
    assert_true(b.failed);
    assert_int_equal(b.length, 1000);
    buf_drop_front(&b, 990);
    assert_string_equal(b.data, "000000099\n");
    size_t n;
    char *s = buf_take(&b, &n);
    assert_int_equal(n, 10);
    assert_string_equal(b.data, "");
    mem_free(s);
    buf_fini(&b);
}

static void buffer_survives_each_failed_allocation(void **state)
{
    (void)state;
    for (uint64_t nth = 1;; nth++) {
        struct buf b;
        buf_init(&b, 0);
        mem_fail_at(nth);
        bool ok = true;
        for (int i = 0; i < 50 && ok; i++)
            ok = buf_puts(&b, "0123456789");
        mem_fail_at(0);
        assert_int_equal(b.length % 10, 0);
        buf_fini(&b);
        if (ok) {
            assert_true(nth > 1);
            return;
        }
    }
}

static void files_are_read_whole_or_refused(void **state)
{
    (void)state;
    char dir[] = "/tmp/lorikeet-test-XXXXXX", path[64], outside[64];
    assert_non_null(mkdtemp(dir));
    assert_true(path_join(path, sizeof path, dir, "f"));
    FILE *w = fopen(path, "w");
    fputs("0123456789", w);
    fclose(w);
    struct buf b;
    buf_init(&b, 0);
    struct error err;
    assert_int_equal(file_read_all(path, 10, &b, &err), STATUS_OK);
    assert_string_equal(b.data, "0123456789");
    assert_int_equal(file_read_all(path, 9, &b, &err), STATUS_TOO_LARGE);
    assert_int_equal(file_read_all(dir, 9, &b, &err), STATUS_INVALID);
    struct file f;
    assert_int_equal(file_open(&f, path, &err), STATUS_OK);
    char c[4];
    assert_int_equal(file_pread(&f, 8, c, 4, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.text, "cut short"));
    assert_int_equal(file_pread(&f, UINT64_MAX, c, 4, &err), STATUS_FORMAT);
    assert_int_equal(file_pread(&f, 6, c, 4, &err), STATUS_OK);
    assert_memory_equal(c, "6789", 4);
    assert_int_equal(truncate(path, 5), 0);
    assert_int_equal(file_pread(&f, 6, c, 4, &err), STATUS_FORMAT);
    file_close(&f);
    assert_int_equal(file_open(&f, "/nowhere/at/all", &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nowhere/at/all"));

    int root, sub;
    assert_int_equal(folder_open(-1, dir, &root, &err), STATUS_OK);
    assert_int_equal(mkdirat(root, "in", 0700), 0);
    assert_int_equal(folder_open(root, "in", &sub, &err), STATUS_OK);
    close(sub);
    assert_int_equal(folder_open(root, "in/../..", &sub, &err), STATUS_INVALID);
    assert_int_equal(folder_open(root, "/etc", &sub, &err), STATUS_INVALID);
    snprintf(outside, sizeof outside, "%s/link", dir);
    assert_int_equal(symlink("/etc", outside), 0);
    assert_int_equal(folder_open(root, "link", &sub, &err), STATUS_INVALID);
    assert_int_equal(file_open_at(&f, root, dir, "../f", &err), STATUS_INVALID);
    assert_int_equal(mkfifoat(root, "fifo", 0600), 0);
    assert_int_equal(file_open_at(&f, root, dir, "fifo", &err), STATUS_INVALID);
    unlinkat(root, "fifo", 0);
    unlinkat(root, "link", 0);
    unlinkat(root, "in", AT_REMOVEDIR);
    unlinkat(root, "f", 0);
    close(root);
    rmdir(dir);
    buf_fini(&b);
}

static void log_lines_cannot_be_faked(void **state)
{
    (void)state;
    int p[2];
    assert_int_equal(pipe(p), 0);
    struct log log = {.fd = p[1], .json = true, .level = LOG_INFO};
    LOG_EVENT(&log, LOG_DEBUG, "below the level", LOG_NUMBER("n", 1));
    LOG_EVENT(&log, LOG_WARN, "odd \"name\"", LOG_TEXT("name", "a\nb\\"), LOG_NUMBER("n", 2.5));
    log.json = false;
    LOG_EVENT(&log, LOG_INFO, "two\nlines", LOG_TEXT("name", "x\ny"));
    char text[2000];
    ssize_t n = read(p[0], text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_non_null(strstr(text, "\"message\":\"odd \\\"name\\\"\",\"name\":\"a\\u000ab\\\\\",\"n\":2.5}\n"));
    assert_non_null(strstr(text, "INFO two lines name=\"x\\u000ay\"\n"));
    assert_null(strstr(text, "below"));
    close(p[0]);
    close(p[1]);
}

static void log_lines_are_utf8(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\xa6\x9c\xf4\x8f\xbf\xbf",
         "\xc3\xa9\xe2\x82\xac\xf0\x9f\xa6\x9c\xf4\x8f\xbf\xbf"},
        {"a\xff"
         "b",
         "a?b"},
        {"cut \xe2\x82", "cut ??"},
        {"\xc0\xaf\xe0\x80\xaf", "?????"}, /* overlong */
        {"\xed\xa0\x80", "???"},           /* a surrogate */
        {"\xf4\x90\x80\x80", "????"},      /* above U+10FFFF */
        {"\xc3\"", "?\\\""},
    };
    int p[2];
    assert_int_equal(pipe(p), 0);
    struct log log = {.fd = p[1], .json = true, .level = LOG_INFO};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[400], wanted[100] = "\"name\":\"";
        for (const char *c = rows[i][1]; *c; c++)
            strcat(wanted, *c == '?' ? "\xef\xbf\xbd" : (char[]){*c, '\0'});
        strcat(wanted, "\"}\n");
        LOG_EVENT(&log, LOG_INFO, "odd", LOG_TEXT("name", rows[i][0]));
        ssize_t n = read(p[0], text, sizeof text - 1);
        assert_true(n > 0);
        text[n] = '\0';
        if (!strstr(text, wanted))
            fail_msg("row %zu: %s instead of %s", i, text, wanted);
    }
    close(p[0]);
    close(p[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_carry_status_and_text),
        cmocka_unit_test(arena_gives_zeroed_aligned_memory_within_its_limit),
        cmocka_unit_test(buffer_grows_to_its_bound),
        cmocka_unit_test(buffer_survives_each_failed_allocation),
        cmocka_unit_test(files_are_read_whole_or_refused),
        cmocka_unit_test(log_lines_cannot_be_faked),
        cmocka_unit_test(log_lines_are_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
