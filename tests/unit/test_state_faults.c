/* Kept state on a failing disk: the 1st, 2nd, 3rd … write, sync, truncation or opening fails, once or from
 * then on, until nothing fails any more. Whatever happens, the state says so, keeps what was acknowledged,
 * and has each change whole or not at all. */
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "state.h"

/* ---- a file system that fails on demand, before the real one */

struct faults {
    sqlite3_vfs vfs;
    sqlite3_vfs *real;
    int countdown; /* the operation that fails; 0: none */
    bool for_good; /* and all after it */
    bool happened;
};

struct faulty_file {
    sqlite3_file base;
    struct faults *faults;
    sqlite3_file *real; /* behind this struct */
};

static struct faults *faults_of(sqlite3_file *f)
{
    return ((struct faulty_file *)f)->faults;
}

static sqlite3_file *real_of(sqlite3_file *f)
{
    return ((struct faulty_file *)f)->real;
}

static bool strikes(struct faults *f)
{
    if (f->happened && f->for_good)
        return true;
    if (f->countdown == 0 || --f->countdown > 0)
        return false;
    f->happened = true;
    return true;
}

static int on_close(sqlite3_file *f)
{
    return real_of(f)->pMethods->xClose(real_of(f));
}
static int on_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at)
{
    return real_of(f)->pMethods->xRead(real_of(f), to, n, at);
}
static int on_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at)
{
    if (!strikes(faults_of(f)))
        return real_of(f)->pMethods->xWrite(real_of(f), from, n, at);
    (void)real_of(f)->pMethods->xWrite(real_of(f), from, n / 2, at); /* half of it may have arrived */
    return at % 2 ? SQLITE_FULL : SQLITE_IOERR_WRITE;
}
static int on_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    return strikes(faults_of(f)) ? SQLITE_IOERR_TRUNCATE : real_of(f)->pMethods->xTruncate(real_of(f), size);
}
static int on_sync(sqlite3_file *f, int flags)
{
    (void)flags; /* no power is cut here, so nothing is waited for */
    return strikes(faults_of(f)) ? SQLITE_IOERR_FSYNC : SQLITE_OK;
}
static int on_size(sqlite3_file *f, sqlite3_int64 *size)
{
    return real_of(f)->pMethods->xFileSize(real_of(f), size);
}
static int on_lock(sqlite3_file *f, int level)
{
    return real_of(f)->pMethods->xLock(real_of(f), level);
}
static int on_unlock(sqlite3_file *f, int level)
{
    return real_of(f)->pMethods->xUnlock(real_of(f), level);
}
static int on_check_lock(sqlite3_file *f, int *out)
{
    return real_of(f)->pMethods->xCheckReservedLock(real_of(f), out);
}
static int on_control(sqlite3_file *f, int what, void *arg)
{
    return real_of(f)->pMethods->xFileControl(real_of(f), what, arg);
}
static int on_sector(sqlite3_file *f)
{
    return real_of(f)->pMethods->xSectorSize(real_of(f));
}
static int on_traits(sqlite3_file *f)
{
    return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}
static int on_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out)
{
    return extend && strikes(faults_of(f))
               ? SQLITE_IOERR_SHMSIZE
               : real_of(f)->pMethods->xShmMap(real_of(f), page, size, extend, out);
}
static int on_shm_lock(sqlite3_file *f, int at, int n, int flags)
{
    return real_of(f)->pMethods->xShmLock(real_of(f), at, n, flags);
}
static void on_shm_barrier(sqlite3_file *f)
{
    real_of(f)->pMethods->xShmBarrier(real_of(f));
}
static int on_shm_unmap(sqlite3_file *f, int delete)
{
    return real_of(f)->pMethods->xShmUnmap(real_of(f), delete);
}

static const sqlite3_io_methods methods = {.iVersion = 2,
                                           .xClose = on_close,
                                           .xRead = on_read,
                                           .xWrite = on_write,
                                           .xTruncate = on_truncate,
                                           .xSync = on_sync,
                                           .xFileSize = on_size,
                                           .xLock = on_lock,
                                           .xUnlock = on_unlock,
                                           .xCheckReservedLock = on_check_lock,
                                           .xFileControl = on_control,
                                           .xSectorSize = on_sector,
                                           .xDeviceCharacteristics = on_traits,
                                           .xShmMap = on_shm_map,
                                           .xShmLock = on_shm_lock,
                                           .xShmBarrier = on_shm_barrier,
                                           .xShmUnmap = on_shm_unmap};

static int on_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    struct faults *faults = vfs->pAppData;
    struct faulty_file *f = (struct faulty_file *)file;
    *f = (struct faulty_file){.faults = faults, .real = (sqlite3_file *)(f + 1)};
    if (strikes(faults))
        return SQLITE_CANTOPEN;
    int code = faults->real->xOpen(faults->real, name, f->real, flags, out);
    if (code == SQLITE_OK)
        f->base.pMethods = &methods;
    return code;
}

static int on_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    struct faults *f = vfs->pAppData;
    (void)sync;
    return strikes(f) ? SQLITE_IOERR_DELETE : f->real->xDelete(f->real, name, 0);
}

static void faults_install(struct faults *f)
{
    f->real = sqlite3_vfs_find(NULL);
    f->vfs = *f->real; /* times, random numbers and names are the real ones */
    f->vfs.zName = "faulty";
    f->vfs.pNext = NULL;
    f->vfs.szOsFile = f->real->szOsFile + (int)sizeof(struct faulty_file);
    f->vfs.pAppData = f;
    f->vfs.xOpen = on_open;
    f->vfs.xDelete = on_delete;
    assert_int_equal(sqlite3_vfs_register(&f->vfs, 1), SQLITE_OK);
}

static void faults_remove(struct faults *f)
{
    assert_int_equal(sqlite3_vfs_unregister(&f->vfs), SQLITE_OK);
    assert_int_equal(sqlite3_vfs_register(f->real, 1), SQLITE_OK);
}

/* ---- the walk */

#define N_CHANGES 6

static enum status put(struct state *s, uint64_t generation, struct error *err)
{
    static const char *const names[] = {"a", "b", "c"};
    struct state_name one = {.wish = {.name = names[generation % 3], .source = "/x", .blend = "", .scale = 1},
                             .stable = generation,
                             .n_versions = 1,
                             .versions = {{.generation = generation, .source = "/x", .scale = 1}}};
    struct state_name both = one;
    both.wish.name = "both";
    const struct state_change changes[] = {{.name = one.wish.name, .put = &one},
                                           {.name = "both", .put = &both, .operation = "load"}};
    const struct state_counters counters = {.revision = generation, .generation = generation};
    return state_apply(s, changes, 2, &counters, err);
}

static bool is_of_the_disk(enum status s)
{
    return s == STATUS_OK || s == STATUS_IO;
}

/* Changes until the disk fails, and two more tries; the last acknowledged one. */
static uint64_t write_some(const char *path, uint64_t first)
{
    struct state *s;
    struct error err = {0};
    uint64_t acknowledged = first - 1;
    enum status st = state_open(path, &s, &err);
    assert_true(is_of_the_disk(st));
    if (st != STATUS_OK) {
        assert_non_null(strstr(err.text, path));
        return acknowledged;
    }
    for (uint64_t g = first; g < first + N_CHANGES; g++) {
        st = put(s, g, &err);
        if (!is_of_the_disk(st))
            fail_msg("%s: %s", status_name(st), err.text);
        if (st == STATUS_OK)
            acknowledged = g;
        else
            assert_non_null(strstr(err.text, path));
    }
    state_close(s);
    return acknowledged;
}

static enum status take_stable(const struct state_name *n, void *data, struct error *err)
{
    (void)err;
    assert_int_equal(n->n_versions, 1);
    assert_int_equal(n->versions[0].generation, n->stable);
    if (strcmp(n->wish.name, "both") == 0)
        *(uint64_t *)data = n->stable;
    return STATUS_OK;
}

static void take_line(const struct state_audit *a, void *data)
{
    *(uint64_t *)data = a->new_generation;
}

/* What a healthy disk shows afterwards. */
static uint64_t check_kept(const char *path, uint64_t acknowledged)
{
    struct state *s;
    struct state_counters c;
    struct error err = {0};
    uint64_t both = 0, line = 0;
    if (state_open(path, &s, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_int_equal(state_load(s, &c, take_stable, &both, &err), STATUS_OK);
    assert_int_equal(state_audit_each(s, 1, take_line, &line, &err), STATUS_OK);
    assert_true(c.generation >= acknowledged);
    assert_int_equal(both, c.generation);
    assert_int_equal(line, c.generation);
    state_close(s);
    return c.generation;
}

static void walk(bool for_good, bool fresh)
{
    struct faults f = {0};
    char dir[] = "/tmp/lorikeet-faults-XXXXXX", path[100], name[120];
    static const char *const tails[] = {"", "-wal", "-shm", "-journal", ".lock"};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/adapters.db", dir);
    faults_install(&f);
    uint64_t next = 1;
    bool failed = true;
    int n_struck = 0;
    for (int nth = 1; failed; nth++) {
        assert_true(nth < 2000);
        for (size_t i = 0; fresh && i < sizeof tails / sizeof tails[0]; i++) {
            snprintf(name, sizeof name, "%s%s", path, tails[i]);
            unlink(name);
            next = 1;
        }
        f.countdown = nth;
        f.for_good = for_good;
        f.happened = false;
        uint64_t acknowledged = write_some(path, next);
        failed = f.happened;
        n_struck += failed;
        f.countdown = 0;
        f.happened = false;
        next = check_kept(path, acknowledged) + 1;
    }
    faults_remove(&f);
    assert_true(n_struck > 20); /* it did fail at many places */
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        snprintf(name, sizeof name, "%s%s", path, tails[i]);
        unlink(name);
    }
    assert_int_equal(rmdir(dir), 0);
}

static void a_fresh_file_with_one_failure(void **state)
{
    (void)state;
    walk(false, true);
}

static void a_fresh_file_with_failures_from_then_on(void **state)
{
    (void)state;
    walk(true, true);
}

static void a_used_file_with_one_failure(void **state)
{
    (void)state;
    walk(false, false);
}

static void a_used_file_with_failures_from_then_on(void **state)
{
    (void)state;
    walk(true, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fresh_file_with_one_failure),
        cmocka_unit_test(a_fresh_file_with_failures_from_then_on),
        cmocka_unit_test(a_used_file_with_one_failure),
        cmocka_unit_test(a_used_file_with_failures_from_then_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
