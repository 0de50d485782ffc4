/* core/base/out.c: whole or not at all, never over something, nothing left behind. */
#include "tests/test.h"

#include <sys/stat.h>

#include "base/out.h"
#include "made_files.h"

static size_t n_entries(const char *path)
{
    size_t n = 0;
    DIR *d = opendir(path);
    for (struct dirent *e = readdir(d); e; e = readdir(d))
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static void begin(struct out_place *o, const struct folder *f, const char *name)
{
    char path[200];
    struct error err;
    snprintf(path, sizeof path, "%s/%s", f->path, name);
    o->stop = NULL;
    if (out_begin(o, path, &err) != STATUS_OK)
        fail_msg("%s", err.text);
}

static void must(enum status s)
{
    assert_int_equal(s, STATUS_OK);
}

static void check_content(const struct folder *f, const char *name, const char *expected)
{
    struct buf b;
    buf_init(&b, 0);
    must(file_read_all_at(f->fd, f->path, name, 100, &b, NULL));
    assert_string_equal(b.data, expected);
    buf_fini(&b);
}

static void a_folder_appears_at_once(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct out_place o;
    struct stat st;
    begin(&o, &f, "result/");
    must(out_put(&o, "a.txt", "abc", 3, NULL));
    must(out_put(&o, "b.txt", "", 0, NULL));
    assert_int_equal(n_entries(f.path), 1); /* the temporary folder alone */
    assert_int_not_equal(fstatat(f.fd, "result", &st, 0), 0);
    must(out_commit_folder(&o, NULL));
    out_abandon(&o); /* nothing to do any more */
    assert_int_equal(n_entries(f.path), 1);
    check_content(&f, "result/a.txt", "abc");
    check_content(&f, "result/b.txt", "");
    mode_t mask = umask(0);
    umask(mask);
    assert_int_equal(fstatat(f.fd, "result", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0777 & ~mask);
    folder_remove(&f);
}

static void a_file_appears_at_once(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct out_place o;
    struct out_file file;
    begin(&o, &f, "x.gguf");
    must(out_file_open(&file, &o, "x.gguf", NULL));
    must(out_file_write(&file, "ab", 2, NULL));
    must(out_file_write(&file, "c", 1, NULL));
    assert_int_equal(file.n_bytes, 3);
    must(out_file_finish(&file, NULL));
    must(out_commit_file(&o, "x.gguf", NULL));
    assert_int_equal(n_entries(f.path), 1);
    check_content(&f, "x.gguf", "abc");
    folder_remove(&f);
}

static void what_is_there_stays(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct out_place o = {0}, other;
    struct error err;
    char path[200];
    snprintf(path, sizeof path, "%s/taken", f.path);
    put_text(f.path, "taken", "mine");
    assert_int_equal(out_begin(&o, path, &err), STATUS_EXISTS);
    assert_non_null(strstr(err.text, "is there already"));
    out_abandon(&o);
    begin(&o, &f, "late"); /* two writers: the second to end is refused */
    begin(&other, &f, "late");
    must(out_put(&o, "a", "1", 1, NULL));
    must(out_put(&other, "a", "2", 1, NULL));
    must(out_commit_folder(&other, NULL));
    assert_int_equal(out_commit_folder(&o, &err), STATUS_EXISTS);
    out_abandon(&o);
    check_content(&f, "late/a", "2");
    check_content(&f, "taken", "mine");
    assert_int_equal(n_entries(f.path), 2);
    begin(&o, &f, "file");
    must(out_put(&o, "a", "1", 1, NULL));
    put_text(f.path, "file", "first");
    assert_int_equal(out_commit_file(&o, "a", &err), STATUS_EXISTS);
    out_abandon(&o);
    check_content(&f, "file", "first");
    assert_int_equal(n_entries(f.path), 3);
    folder_remove(&f);
}

static bool stopped(void)
{
    return true;
}

static void nothing_is_left_behind(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct out_place o;
    struct out_file file;
    struct error err;
    begin(&o, &f, "result");
    must(out_put(&o, "a", "1", 1, NULL));
    must(out_file_open(&file, &o, "b", NULL));
    o.stop = stopped;
    assert_int_equal(out_file_write(&file, "x", 1, &err), STATUS_CANCELLED);
    assert_non_null(strstr(err.text, "interrupted"));
    out_file_close(&file);
    out_abandon(&o);
    out_abandon(&o);
    assert_int_equal(n_entries(f.path), 0);
    folder_remove(&f);
}

static void places_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        enum status status;
    } cases[] = {{"", STATUS_INVALID},
                 {"/", STATUS_INVALID},
                 {".", STATUS_INVALID},
                 {"..", STATUS_INVALID},
                 {"/nowhere/x", STATUS_NOT_FOUND},
                 {"/proc/x", STATUS_NOT_FOUND}};
    struct error err;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct out_place o = {0};
        enum status s = out_begin(&o, cases[i].path, &err);
        if (s != cases[i].status)
            fail_msg("'%s': %s '%s'", cases[i].path, status_name(s), err.text);
        out_abandon(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_appears_at_once), cmocka_unit_test(a_file_appears_at_once),
        cmocka_unit_test(what_is_there_stays),      cmocka_unit_test(nothing_is_left_behind),
        cmocka_unit_test(places_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
