/* Kept state: what was acknowledged is there again, whatever ended the process or filled the disk; files that
 * aren't ours, damaged or newer are refused and left as they are. */
#include "tests/test.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/buf.h"
#include "base/file.h"
#include "state.h"

struct place {
    char dir[64], path[100];
};

static int make_place(void **fixture)
{
    struct place *p = calloc(1, sizeof *p);
    snprintf(p->dir, sizeof p->dir, "/tmp/lorikeet-state-XXXXXX");
    if (!p || !mkdtemp(p->dir))
        return -1;
    snprintf(p->path, sizeof p->path, "%s/adapters.db", p->dir);
    *fixture = p;
    return 0;
}

static int remove_place(void **fixture)
{
    struct place *p = *fixture;
    static const char *const tails[] = {"", "-wal", "-shm", "-journal", ".lock"};
    char name[120];
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        snprintf(name, sizeof name, "%s%s", p->path, tails[i]);
        unlink(name);
    }
    int gone = rmdir(p->dir); /* nothing else may lie there */
    free(p);
    return gone;
}

static struct state *open_state(const char *path)
{
    struct state *s;
    struct error err = {0};
    if (state_open(path, &s, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return s;
}

static struct state_name make_name(const char *name, uint64_t generation)
{
    struct state_name n = {.wish = {.name = name, .source = "/a/pt", .blend = "", .scale = 1},
                           .stable = generation,
                           .revision = generation * 10,
                           .n_versions = 1};
    n.versions[0] = (struct state_version){
        .generation = generation, .source = "/a/pt", .scale = 1, .published_wall_ms = 5};
    memset(n.versions[0].digest, (int)(generation & 0xff), 32);
    return n;
}

static enum status put(struct state *s, const struct state_name *n, uint64_t revision, struct error *err)
{
    struct state_change c = {.name = n->wish.name, .put = n};
    struct state_counters counters = {.revision = revision, .generation = n->stable};
    return state_apply(s, &c, 1, &counters, err);
}

/* What state_load gave, as one text a name. */
static enum status describe(const struct state_name *n, void *data, struct error *err)
{
    struct buf *out = data;
    (void)err;
    buf_printf(out, "%s|%s|%s|%g|%d%d|%d%d|%llu,%llu,%llu|%llu", n->wish.name, n->wish.source, n->wish.blend,
               n->wish.scale, n->wish.pinned, n->wish.from_folder, (int)n->wish.merge, (int)n->wish.effect,
               (unsigned long long)n->stable, (unsigned long long)n->previous, (unsigned long long)n->shadow,
               (unsigned long long)n->revision);
    if (n->start_source && n->start_source[0])
        buf_printf(out, " from %s", n->start_source);
    for (uint32_t i = 0; i < n->n_versions; i++)
        buf_printf(out, " v%llu:%02x..%02x,%s,%g,%lld", (unsigned long long)n->versions[i].generation,
                   n->versions[i].digest[0], n->versions[i].digest[31], n->versions[i].source,
                   n->versions[i].scale, (long long)n->versions[i].published_wall_ms);
    for (uint32_t i = 0; i < n->n_splits; i++)
        buf_printf(out, " t%llu:%u", (unsigned long long)n->splits[i].generation, n->splits[i].percent);
    buf_puts(out, "\n");
    return STATUS_OK;
}

static struct state_counters load(struct state *s, struct buf *out)
{
    struct state_counters counters;
    struct error err = {0};
    buf_clear(out);
    if (state_load(s, &counters, describe, out, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return counters;
}

static void sql(const char *path, const char *text)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s: %s", text, sqlite3_errmsg(db));
    sqlite3_close(db);
}

static void everything_of_a_name_comes_back(void **fixture)
{
    struct place *p = *fixture;
    struct error err = {0};
    struct buf text;
    buf_init(&text, 0);
    struct state *s = open_state(p->path);
    struct state_name pt = make_name("pt", 7), mix = make_name("mix", 8);
    pt.wish = (struct adapter_wish){.name = "pt",
                                    .source = "https://h/é.gguf",
                                    .blend = "",
                                    .scale = -0.1,
                                    .pinned = true,
                                    .merge = MERGE_AUTO,
                                    .effect = EFFECT_ENFORCE};
    pt.previous = 5;
    pt.shadow = 9;
    pt.start_source = "/start";
    pt.n_versions = 3;
    pt.versions[1] = (struct state_version){.generation = 5, .digest = {1}, .source = "/old", .scale = 2};
    pt.versions[2] = (struct state_version){.generation = 9, .digest = {2}, .source = "/new", .scale = 1};
    pt.splits[0] = (struct traffic_split){.generation = 7, .percent = 90};
    pt.splits[1] = (struct traffic_split){.generation = 5, .percent = 10};
    pt.n_splits = 2;
    mix.wish = (struct adapter_wish){
        .name = "mix", .source = "", .blend = "pt+0.5*safety", .scale = 1, .from_folder = true};
    mix.n_versions = 0;
    mix.stable = 0;
    assert_int_equal(put(s, &pt, 70, &err), STATUS_OK);
    assert_int_equal(put(s, &mix, 71, &err), STATUS_OK);
    state_close(s);
    s = open_state(p->path);
    struct state_counters c = load(s, &text);
    assert_string_equal(text.data, "mix||pt+0.5*safety|1|01|00|0,0,0|80\n"
                                   "pt|https://h/é.gguf||-0.1|10|12|7,5,9|70 from /start v7:07..07,/a/pt,1,5 "
                                   "v5:01..00,/old,2,0 v9:02..00,/new,1,0 t7:90 t5:10\n");
    assert_int_equal(c.generation, 7);
    assert_int_equal(c.revision, STATE_REVISIONS_A_RUN);

    /* Written anew: what isn't in it any more is gone; a version's unknown source stays as it was. */
    pt.n_versions = 2;
    pt.versions[1].source = "";
    pt.versions[0].source = NULL;
    pt.n_splits = 0;
    assert_int_equal(put(s, &pt, 5, &err), STATUS_OK);
    assert_int_equal(put(s, &pt, 5, &err), STATUS_OK);
    struct state_change gone[] = {{.name = "mix", .remove = true}, {.name = "never_was", .remove = true}};
    assert_int_equal(state_apply(s, gone, 2, NULL, &err), STATUS_OK);
    state_close(s);
    s = open_state(p->path);
    c = load(s, &text);
    assert_string_equal(text.data, "pt|https://h/é.gguf||-0.1|10|12|7,5,9|70 from /start v7:07..07,/a/pt,1,5 "
                                   "v5:01..00,/old,2,0\n");
    assert_int_equal(c.revision, 2 * STATE_REVISIONS_A_RUN); /* never down */
    state_close(s);
    buf_fini(&text);
}

static void a_change_is_whole_or_not_at_all(void **fixture)
{
    struct place *p = *fixture;
    struct error err = {0};
    struct buf text;
    buf_init(&text, 0);
    struct state *s = open_state(p->path);
    struct state_name good = make_name("good", 1), bad = make_name("bad", 2), twice = make_name("twice", 3);
    twice.splits[0] = twice.splits[1] = (struct traffic_split){.generation = 3, .percent = 50};
    twice.n_splits = 2;
    struct state_counters counters = {.revision = 9, .generation = 9};
    const struct state_change with_twice[] = {{.name = "good", .put = &good, .operation = "load"},
                                              {.name = "twice", .put = &twice}};
    assert_int_equal(state_apply(s, with_twice, 2, &counters, &err), STATUS_INVALID);
    for (int i = 0; i < 9; i++) {
        bad = make_name(i == 0 ? "a/b" : "bad", 2);
        if (i == 1)
            bad.wish.scale = NAN;
        if (i == 2)
            bad.wish.source = NULL;
        if (i == 3)
            bad.wish.merge = (enum merge_mode)3;
        if (i == 4)
            bad.stable = UINT64_MAX;
        if (i == 5)
            bad.n_versions = REGISTRY_VERSIONS_MAX + 1;
        if (i == 6)
            bad.versions[0].generation = 0;
        if (i >= 7)
            bad.splits[bad.n_splits++] =
                (struct traffic_split){.generation = 2, .percent = i == 7 ? 99 : UINT32_MAX};
        const struct state_change both[] = {{.name = "good", .put = &good, .operation = "load"},
                                            {.name = bad.wish.name, .put = &bad}};
        err.text[0] = '\0';
        assert_int_equal(state_apply(s, both, 2, &counters, &err), STATUS_INVALID);
        assert_non_null(strstr(err.text, "out of range"));
    }
    struct state_counters c = load(s, &text);
    assert_string_equal(text.data, "");
    assert_int_equal(c.generation, 0);
    assert_int_equal(put(s, &good, 1, &err), STATUS_OK); /* and it goes on */
    load(s, &text);
    assert_non_null(strstr(text.data, "good|"));
    state_close(s);
    buf_fini(&text);
}

struct lines {
    struct buf text;
    unsigned n, n_shown;
};

static void take_line(const struct state_audit *a, void *data)
{
    struct lines *l = data;
    assert_true(a->wall_ms > 1600000000000);
    if (l->n++ < l->n_shown)
        buf_printf(&l->text, "%s %s %llu>%llu %.4s %s %s\n", a->operation, a->name,
                   (unsigned long long)a->old_generation, (unsigned long long)a->new_generation, a->digest,
                   a->outcome, a->by);
}

static void the_log_says_what_changed(void **fixture)
{
    struct place *p = *fixture;
    struct error err = {0};
    struct lines l = {.n_shown = 10};
    buf_init(&l.text, 0);
    struct state *s = open_state(p->path);
    struct state_name first = make_name("pt", 1), second = make_name("pt", 2), canary = make_name("pt", 2);
    canary.n_versions = 2;
    canary.versions[1] = (struct state_version){.generation = 3, .digest = {0xca}, .scale = 1};
    const struct state_change changes[] = {
        {.name = "pt", .put = &first, .operation = "load", .by = "uid 0"},
        {.name = "pt", .put = &second, .operation = "load", .by = "uid 1"},
        {.name = "pt", .put = &canary, .operation = "load", .by = "uid 2", .generation = 3},
        {.name = "pt", .put = &canary},
        {.name = "de", .operation = "load", .by = "uid 3", .outcome = "de: no such file"},
        {.name = "pt", .operation = "load", .outcome = "pt: mismatch"},
        {.name = "pt", .remove = true, .operation = "remove"},
    };
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(state_apply(s, &changes[i], 1, NULL, &err), STATUS_OK);
    assert_int_equal(state_apply(s, &changes[3], 4, NULL, &err), STATUS_OK);
    assert_int_equal(state_audit_each(s, 10, take_line, &l, &err), STATUS_OK);
    assert_string_equal(l.text.data, "remove pt 2>0  ok \n"
                                     "load pt 2>2  pt: mismatch \n"
                                     "load de 0>0  de: no such file uid 3\n"
                                     "load pt 2>3 ca00 ok uid 2\n"
                                     "load pt 1>2 0202 ok uid 1\n"
                                     "load pt 0>1 0101 ok uid 0\n");
    state_close(s);
    buf_fini(&l.text);
}

static void the_log_is_bounded(void **fixture)
{
    struct place *p = *fixture;
    struct error err = {0};
    struct lines l = {.n_shown = 1};
    buf_init(&l.text, 0);
    struct state *s = open_state(p->path);
    char outcome[1003];
    memset(outcome, 'x', sizeof outcome);
    memcpy(outcome + 999, "\xc3\xa9z", 4); /* a letter of two bytes across the limit */
    struct state_change c = {.name = "pt", .operation = "load", .outcome = outcome};
    assert_int_equal(state_apply(s, &c, 1, NULL, &err), STATUS_OK);
    assert_int_equal(state_audit_each(s, 10, take_line, &l, &err), STATUS_OK);
    outcome[999] = '\0';
    char wanted[1200];
    snprintf(wanted, sizeof wanted, "load pt 0>0  %s \n", outcome);
    assert_string_equal(l.text.data, wanted);
    sql(p->path, "UPDATE sqlite_sequence SET seq=20000; INSERT INTO audit SELECT "
                 "20000+value,1700000000000,'o','n',0,0,'','','' FROM (WITH RECURSIVE c(value) AS (SELECT 1 "
                 "UNION ALL SELECT value+1 FROM c WHERE value<12000) SELECT value FROM c)");
    assert_int_equal(state_apply(s, &c, 1, NULL, &err), STATUS_OK);
    l.n = 0;
    assert_int_equal(state_audit_each(s, 50000, take_line, &l, &err), STATUS_OK);
    assert_int_equal(l.n, STATE_AUDIT_MAX);
    state_close(s);
    buf_fini(&l.text);
}

static void one_server_a_file(void **fixture)
{
    struct place *p = *fixture;
    struct error err = {0};
    struct state *s = open_state(p->path), *other;
    assert_int_equal(state_open(p->path, &other, &err), STATUS_CONFLICT);
    assert_null(other);
    assert_non_null(strstr(err.text, p->path));
    struct state_name n = make_name("pt", 1);
    assert_int_equal(put(s, &n, 1, &err), STATUS_OK); /* the first isn't disturbed */
    state_close(s);
    s = open_state(p->path);
    struct stat about;
    assert_int_equal(stat(p->path, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0600);
    /* A person who looks into the file meanwhile sees what was acknowledged. */
    sqlite3 *reader;
    assert_int_equal(sqlite3_open_v2(p->path, &reader, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(reader, "SELECT count(*) FROM names", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(reader);
    state_close(s);
    state_close(NULL);
}

static void expect_refusal(const char *path, enum status wanted, const char *words)
{
    struct state *s;
    struct error err = {0};
    struct buf before, after;
    buf_init(&before, 0);
    buf_init(&after, 0);
    assert_int_equal(file_read_all(path, 1 << 24, &before, &err), STATUS_OK);
    enum status st = state_open(path, &s, &err);
    if (st != wanted || !strstr(err.text, words) || !strstr(err.text, path))
        fail_msg("%s \"%s\", wanted %s \"%s\"", status_name(st), err.text, status_name(wanted), words);
    assert_int_equal(file_read_all(path, 1 << 24, &after, &err), STATUS_OK);
    assert_int_equal(before.length, after.length);
    assert_memory_equal(before.data, after.data, before.length);
    buf_fini(&before);
    buf_fini(&after);
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void foreign_newer_and_damaged_files_are_left_alone(void **fixture)
{
    struct place *p = *fixture;
    struct error err = {0};
    write_file(p->path, "these are my notes, not a database; they are longer than a header of SQLite, which "
                        "has a hundred bytes, so that it is looked at");
    expect_refusal(p->path, STATUS_FORMAT, "not a database");
    unlink(p->path);
    sql(p->path, "CREATE TABLE notes(a); INSERT INTO notes VALUES(1)");
    expect_refusal(p->path, STATUS_FORMAT, "another program");
    sql(p->path, "PRAGMA journal_mode=WAL");
    expect_refusal(p->path, STATUS_FORMAT, "another program");
    unlink(p->path);

    struct state *s = open_state(p->path);
    for (uint64_t i = 1; i < 200; i++) {
        char name[20];
        snprintf(name, sizeof name, "name%llu", (unsigned long long)i);
        struct state_name n = make_name(name, i);
        assert_int_equal(put(s, &n, i, &err), STATUS_OK);
    }
    state_close(s);
    sql(p->path, "PRAGMA user_version=99");
    expect_refusal(p->path, STATUS_UNSUPPORTED, "newer Lorikeet");
    sql(p->path, "PRAGMA user_version=0");
    expect_refusal(p->path, STATUS_FORMAT, "version 0");
    sql(p->path, "PRAGMA user_version=3");

    /* Cut, and overwritten in the middle. */
    struct stat about;
    assert_int_equal(stat(p->path, &about), 0);
    struct buf whole;
    buf_init(&whole, 0);
    assert_int_equal(file_read_all(p->path, 1 << 24, &whole, &err), STATUS_OK);
    assert_int_equal(truncate(p->path, about.st_size / 4096 / 2 * 4096), 0);
    expect_refusal(p->path, STATUS_FORMAT, "restore a copy");
    for (size_t at = 4096; at < whole.length; at += 4096) {
        FILE *f = fopen(p->path, "w");
        fwrite(whole.data, 1, whole.length, f);
        fseek(f, (long)at, SEEK_SET);
        for (int i = 0; i < 64; i++)
            fputc(0xa5, f);
        fclose(f);
        expect_refusal(p->path, STATUS_FORMAT, "restore a copy");
    }
    FILE *f = fopen(p->path, "w");
    fwrite(whole.data, 1, whole.length, f);
    fclose(f);
    state_close(open_state(p->path));
    buf_fini(&whole);
}

/* The tables of version 1, as they were written; what they held is there afterwards. */
static void older_files_are_brought_up_to_date(void **fixture)
{
    struct place *p = *fixture;
    struct buf text;
    buf_init(&text, 0);
    sql(p->path,
        "CREATE TABLE counters(id INTEGER PRIMARY KEY CHECK(id=1),revision INTEGER NOT NULL,generation "
        "INTEGER "
        "NOT NULL) STRICT; INSERT INTO counters VALUES(1,5,7);"
        "CREATE TABLE names(name TEXT PRIMARY KEY NOT NULL,source TEXT NOT NULL,blend TEXT NOT NULL,scale "
        "REAL "
        "NOT NULL,pinned INTEGER NOT NULL,from_folder INTEGER NOT NULL,merge TEXT NOT NULL,effect TEXT NOT "
        "NULL,stable INTEGER NOT NULL,previous INTEGER NOT NULL,shadow INTEGER NOT NULL,revision INTEGER NOT "
        "NULL) STRICT,WITHOUT ROWID;"
        "CREATE TABLE versions(name TEXT NOT NULL REFERENCES names ON DELETE CASCADE,generation INTEGER NOT "
        "NULL,position INTEGER NOT NULL,digest BLOB NOT NULL CHECK(length(digest)=32),source TEXT NOT "
        "NULL,scale "
        "REAL NOT NULL,published_ms INTEGER NOT NULL,PRIMARY KEY(name,generation)) STRICT,WITHOUT ROWID;"
        "CREATE TABLE traffic(name TEXT NOT NULL REFERENCES names ON DELETE CASCADE,generation INTEGER NOT "
        "NULL,position INTEGER NOT NULL,percent INTEGER NOT NULL CHECK(percent>=0),PRIMARY KEY(name,"
        "generation)) STRICT,WITHOUT ROWID;"
        "CREATE TABLE audit(id INTEGER PRIMARY KEY AUTOINCREMENT,at_ms INTEGER NOT NULL,operation TEXT NOT "
        "NULL,name TEXT NOT NULL,old_generation INTEGER NOT NULL,new_generation INTEGER NOT NULL,digest TEXT "
        "NOT NULL,outcome TEXT NOT NULL,by_whom TEXT NOT NULL) STRICT;"
        "INSERT INTO names VALUES('pt','/a','',1,1,0,'auto','warn',7,0,0,5);"
        "INSERT INTO versions VALUES('pt',7,0,zeroblob(32),'/a',1,9);"
        "PRAGMA application_id=1282372201; PRAGMA user_version=1");
    for (int i = 0; i < 2; i++) { /* and stay so */
        struct state *s = open_state(p->path);
        assert_int_equal(load(s, &text).generation, 7);
        assert_string_equal(text.data, "pt|/a||1|10|11|7,0,0|5 v7:00..00,/a,1,9\n");
        state_close(s);
    }
    buf_fini(&text);
}

static void values_in_the_file_are_checked(void **fixture)
{
    struct place *p = *fixture;
    static const struct {
        const char *change, *words;
    } table[] = {
        {"UPDATE names SET merge='sometimes'", "merge"},
        {"UPDATE names SET effect=''", "effect"},
        {"UPDATE names SET scale=9e999", "scale"},
        {"UPDATE names SET stable=-1", "stable"},
        {"UPDATE names SET name='../x'", "name"},
        {"UPDATE names SET name='a'||char(0)||'b'", "name"},
        {"UPDATE names SET source=CAST(zeroblob(5000) AS TEXT)", "source"},
        {"UPDATE versions SET generation=-5", "generation"},
        {"UPDATE versions SET generation=0", "generation"},
        {"INSERT INTO versions SELECT 'pt',value,0,zeroblob(32),'',1,0 FROM (WITH RECURSIVE c(value) AS "
         "(SELECT 100 UNION ALL SELECT value+1 FROM c WHERE value<130) SELECT value FROM c)",
         "too many"},
        {"INSERT INTO traffic VALUES('pt',1,0,1000)", "traffic"},
        {"INSERT INTO traffic VALUES('pt',1,0,30)", "sum to 100"},
        {"DELETE FROM counters", "counters"},
        {"UPDATE counters SET revision=-1", "counter"},
        {"UPDATE counters SET revision=9223372036854775807", "counter"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct error err = {0};
        struct buf text;
        struct state_counters c;
        buf_init(&text, 0);
        unlink(p->path);
        struct state *s = open_state(p->path);
        struct state_name n = make_name("pt", 1);
        assert_int_equal(put(s, &n, 1, &err), STATUS_OK);
        state_close(s);
        sql(p->path, table[i].change);
        s = open_state(p->path);
        enum status st = state_load(s, &c, describe, &text, &err);
        if (st != STATUS_FORMAT || !strstr(err.text, table[i].words) || !strstr(err.text, p->path))
            fail_msg("%s: %s \"%s\"", table[i].change, status_name(st), err.text);
        state_close(s);
        buf_fini(&text);
    }
}

static enum status stop_at_b(const struct state_name *n, void *data, struct error *err)
{
    ++*(int *)data;
    return n->wish.name[0] == 'b' ? fail(err, STATUS_FULL, "enough") : STATUS_OK;
}

static void the_walk_ends_where_its_callback_says(void **fixture)
{
    struct place *p = *fixture;
    struct error err = {0};
    struct state_counters c;
    struct state *s = open_state(p->path);
    int n_seen = 0;
    static const char *const names[] = {"c", "a", "b"};
    for (uint64_t i = 0; i < 3; i++) {
        struct state_name n = make_name(names[i], i + 1);
        assert_int_equal(put(s, &n, i, &err), STATUS_OK);
    }
    assert_int_equal(state_load(s, &c, stop_at_b, &n_seen, &err), STATUS_FULL);
    assert_int_equal(n_seen, 2);
    assert_int_equal(state_load(s, &c, NULL, NULL, &err), STATUS_OK);
    assert_int_equal(c.generation, 3);
    state_close(s);
}

static void paths_that_cant_be(void **fixture)
{
    struct place *p = *fixture;
    struct state *s;
    struct error err = {0};
    char path[700];
    snprintf(path, sizeof path, "%s/no/such/folder.db", p->dir);
    assert_int_equal(state_open(path, &s, &err), STATUS_IO);
    assert_non_null(strstr(err.text, "no/such"));
    assert_int_equal(state_open("", &s, &err), STATUS_INVALID);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(state_open(path, &s, &err), STATUS_INVALID);
    assert_int_equal(mkfifo(p->path, 0600), 0);
    assert_int_equal(state_open(p->path, &s, &err), STATUS_INVALID);
    unlink(p->path);
    assert_int_equal(mkdir(p->path, 0700), 0);
    assert_int_equal(state_open(p->path, &s, &err), STATUS_IO);
    rmdir(p->path);
    /* Names that SQLite takes for something else are files here. */
    assert_int_equal(chdir(p->dir), 0);
    s = open_state(":memory:");
    state_close(s);
    assert_true(file_exists("./:memory:"));
    unlink("./:memory:");
    unlink("./:memory:.lock");
    assert_int_equal(chdir("/"), 0);
}

/* Runs `body` in a process of its own, which may lose its rights; the exit code. */
static int in_child(int (*body)(const struct place *p), const struct place *p)
{
    int status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(body(p));
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int write_without_rights(const struct place *p)
{
    struct state *s;
    struct error err = {0};
    if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
        return 10;
    if (state_open(p->path, &s, &err) != STATUS_IO)
        return 11;
    return strstr(err.text, p->path) && strstr(err.text, "denied") ? 0 : 12;
}

static void a_folder_without_rights(void **fixture)
{
    struct place *p = *fixture;
    struct error err = {0};
    struct state *s = open_state(p->path);
    struct state_name n = make_name("pt", 1);
    assert_int_equal(put(s, &n, 1, &err), STATUS_OK);
    state_close(s);
    assert_int_equal(chmod(p->dir, 0500), 0);
    assert_int_equal(in_child(write_without_rights, p), 0);
    assert_int_equal(chmod(p->dir, 0700), 0);
}

/* Files may not grow any more from some point on: what can't be written isn't acknowledged, and the state
 * goes on from what was, in this process and in the next. */
static int fill_the_disk(const struct place *p)
{
    struct error err = {0};
    struct state *s = open_state(p->path);
    struct rlimit limit = {.rlim_cur = 100000, .rlim_max = RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
        return 10;
    uint64_t n_kept = 0;
    int n_refused = 0;
    char name[20];
    for (uint64_t i = 1; i < 400 && n_refused < 5; i++) {
        snprintf(name, sizeof name, "n%04llu", (unsigned long long)i);
        struct state_name n = make_name(name, i);
        enum status st = put(s, &n, i, &err);
        if (st == STATUS_OK && n_refused == 0)
            n_kept = i;
        else if (st != STATUS_IO)
            return 11;
        else
            n_refused++;
    }
    if (n_refused == 0 || n_kept == 0 || !strstr(err.text, p->path))
        return 12;
    limit.rlim_cur = RLIM_INFINITY;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
        return 13;
    struct buf text;
    buf_init(&text, 0);
    struct state_counters c = load(s, &text);
    uint64_t n_lines = 0;
    for (const char *at = text.data; (at = strchr(at, '\n')); at++)
        n_lines++;
    if (c.generation != n_kept || n_lines != n_kept)
        return 14;
    struct state_name more = make_name("more", 500);
    if (put(s, &more, 500, &err) != STATUS_OK)
        return 15;
    state_close(s);
    s = open_state(p->path);
    c = load(s, &text);
    state_close(s);
    bool right = c.generation == 500 && strstr(text.data, "more|") && !strstr(text.data, "n0399");
    buf_fini(&text);
    return right ? 0 : 16;
}

static void a_full_disk_acknowledges_nothing(void **fixture)
{
    assert_int_equal(in_child(fill_the_disk, *fixture), 0);
}

/* ---- killed in the middle of writes */

#define ROUNDS 20

/* Writes generations one after another, of three names in turn, each change with two of them; says each
 * acknowledged one down the pipe. */
static void write_until_killed(const struct place *p, uint64_t first, int pipe_fd)
{
    static const char *const names[] = {"a", "b", "c"};
    struct error err;
    struct state *s = open_state(p->path);
    for (uint64_t g = first;; g++) {
        struct state_name one = make_name(names[g % 3], g), both = make_name("both", g);
        one.previous = g - 1;
        const struct state_change changes[] = {{.name = one.wish.name, .put = &one},
                                               {.name = "both", .put = &both, .operation = "load"}};
        struct state_counters counters = {.revision = g, .generation = g};
        if (state_apply(s, changes, 2, &counters, &err) != STATUS_OK ||
            write(pipe_fd, &g, sizeof g) != sizeof g)
            _exit(1);
    }
}

struct seen {
    uint64_t stable[4]; /* a, b, c, both */
};

static enum status take_stable(const struct state_name *n, void *data, struct error *err)
{
    struct seen *seen = data;
    (void)err;
    assert_int_equal(n->n_versions, 1);
    assert_int_equal(n->versions[0].generation, n->stable);
    assert_int_equal(n->versions[0].digest[31], n->stable & 0xff);
    seen->stable[strlen(n->wish.name) > 1 ? 3 : n->wish.name[0] - 'a'] = n->stable;
    return STATUS_OK;
}

static void take_last_line(const struct state_audit *a, void *data)
{
    *(uint64_t *)data = a->new_generation;
}

static uint64_t kill_one(const struct place *p, uint64_t first, useconds_t delay_us)
{
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(ends[0]);
        write_until_killed(p, first, ends[1]);
    }
    close(ends[1]);
    usleep(delay_us);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    uint64_t acknowledged = first - 1, g;
    while (read(ends[0], &g, sizeof g) == sizeof g)
        acknowledged = g;
    close(ends[0]);
    return acknowledged;
}

static void acknowledged_changes_survive_kills(void **fixture)
{
    struct place *p = *fixture;
    struct error err = {0};
    uint64_t next = 1, n_total = 0;
    unsigned seed = 20;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t acknowledged = kill_one(p, next, 1000 + (useconds_t)(rand_r(&seed) % 60000));
        struct state *s = open_state(p->path); /* with its check of the whole file */
        struct seen seen = {0};
        struct state_counters c;
        uint64_t last_line = 0;
        assert_int_equal(state_load(s, &c, take_stable, &seen, &err), STATUS_OK);
        assert_int_equal(state_audit_each(s, 1, take_last_line, &last_line, &err), STATUS_OK);
        /* The last change is there whole: counters, log and both names; it is the acknowledged one or the
         * one after it. */
        assert_true(c.generation == acknowledged || c.generation == acknowledged + 1);
        assert_int_equal(last_line, c.generation);
        assert_int_equal(seen.stable[3], c.generation);
        for (uint64_t back = 0; back < 3 && back < c.generation; back++)
            assert_int_equal(seen.stable[(c.generation - back) % 3], c.generation - back);
        n_total += acknowledged + 1 - next;
        next = c.generation + 1;
        state_close(s);
    }
    assert_true(n_total > 0);
}

static void a_registry_name_as_a_value(void **fixture)
{
    (void)fixture;
    char source[] = "/files/new";
    struct version_record records[] = {
        {.generation = 9, .digest = {9}, .published_wall_ms = 3, .source = source, .scale = 0.5},
        {.generation = 4, .digest = {4}, .scale = 2}};
    struct adapter a = {.wish = {.name = "pt", .source = "/files", .scale = 2, .pinned = true},
                        .records = records,
                        .n_records = 2,
                        .stable = 9,
                        .previous = 4,
                        .splits = {{9, 60}, {4, 40}},
                        .n_splits = 2,
                        .revision = 12};
    struct state_name *n = state_name_of(&a);
    assert_non_null(n);
    struct buf text;
    struct error err;
    buf_init(&text, 0);
    assert_int_equal(describe(n, &text, &err), STATUS_OK);
    assert_string_equal(text.data, "pt|/files||2|10|00|9,4,0|12 v9:09..00,/files/new,0.5,3 v4:04..00,,2,0 "
                                   "t9:60 t4:40\n");
    assert_ptr_not_equal(n->wish.name, a.wish.name);
    assert_ptr_not_equal(n->versions[0].source, source);
    state_name_destroy(n);
    state_name_destroy(NULL);
    buf_fini(&text);
}

#define IN_PLACE(test) cmocka_unit_test_setup_teardown(test, make_place, remove_place)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_PLACE(everything_of_a_name_comes_back),
        IN_PLACE(a_change_is_whole_or_not_at_all),
        IN_PLACE(the_log_says_what_changed),
        IN_PLACE(the_log_is_bounded),
        IN_PLACE(one_server_a_file),
        IN_PLACE(foreign_newer_and_damaged_files_are_left_alone),
        IN_PLACE(older_files_are_brought_up_to_date),
        IN_PLACE(values_in_the_file_are_checked),
        IN_PLACE(the_walk_ends_where_its_callback_says),
        IN_PLACE(paths_that_cant_be),
        IN_PLACE(a_folder_without_rights),
        IN_PLACE(a_full_disk_acknowledges_nothing),
        IN_PLACE(acknowledged_changes_survive_kills),
        cmocka_unit_test(a_registry_name_as_a_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
