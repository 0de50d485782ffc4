/* Desired state in an SQLite file. All of its tables are made here; those of tenants are read and written by
 * server/tenant_store.c, and nobody else sees sqlite3.h.
 *
 * A name is one row of `names` with its rows in `versions` and `traffic`; a change writes all of a name anew,
 * so that applying it twice is applying it once. Everything that belongs to one acknowledged operation is one
 * transaction; the write-ahead log is synced at its end. The file may come from a stranger or from a broken
 * disk: it is checked as a whole at the start, and each value again when it is read. It is never repaired or
 * replaced here: losing what was wished is the operator's decision. */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/mem.h"
#include "state_inner.h"

#define APPLICATION_ID 0x4c6f7269 /* "Lori", in the file's header */
#define BUSY_MS 2000              /* for a person who looks into the file at the same time */
#define AUDIT_TEXT_MAX 1000

/* Statements that are prepared once. */
enum sql {
    SQL_PUT_NAME,
    SQL_PUT_VERSION,
    SQL_PUT_SPLIT,
    SQL_MARK_VERSIONS,
    SQL_OLD_VERSIONS,
    SQL_OLD_SPLITS,
    SQL_REMOVE,
    SQL_STABLE,
    SQL_COUNTERS,
    SQL_SET_COUNTERS,
    SQL_NAMES,
    SQL_VERSIONS,
    SQL_SPLITS,
    SQL_AUDIT,
    SQL_AUDIT_TRIM,
    SQL_AUDIT_LIST,
    SQL_COUNT
};

static const char *const sql_texts[SQL_COUNT] = {
    [SQL_PUT_NAME] =
        "INSERT INTO names VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13) ON CONFLICT(name) DO "
        "UPDATE SET source=?2,blend=?3,scale=?4,pinned=?5,from_folder=?6,merge=?7,effect=?8,"
        "stable=?9,previous=?10,shadow=?11,revision=?12,start_source=?13",
    [SQL_PUT_VERSION] = "INSERT INTO versions VALUES(?1,?2,?3,?4,?5,?6,?7) ON CONFLICT(name,generation) DO "
                        "UPDATE SET position=?3,digest=?4,source=CASE ?5 WHEN '' THEN source ELSE ?5 END,"
                        "scale=?6,published_ms=?7",
    [SQL_PUT_SPLIT] = "INSERT INTO traffic VALUES(?1,?2,?3,?4)",
    /* All of a name's versions are marked, the wanted ones written, and what is marked still goes. */
    [SQL_MARK_VERSIONS] = "UPDATE versions SET position=-1 WHERE name=?1",
    [SQL_OLD_VERSIONS] = "DELETE FROM versions WHERE name=?1 AND position=-1",
    [SQL_OLD_SPLITS] = "DELETE FROM traffic WHERE name=?1",
    [SQL_REMOVE] = "DELETE FROM names WHERE name=?1",
    [SQL_STABLE] = "SELECT stable FROM names WHERE name=?1",
    [SQL_COUNTERS] = "SELECT revision,generation FROM counters WHERE id=1",
    [SQL_SET_COUNTERS] = "UPDATE counters SET revision=max(revision,?1),generation=max(generation,?2) "
                         "WHERE id=1",
    [SQL_NAMES] = "SELECT name,source,blend,scale,pinned,from_folder,merge,effect,stable,previous,shadow,"
                  "revision,start_source FROM names ORDER BY name",
    [SQL_VERSIONS] = "SELECT generation,digest,source,scale,published_ms FROM versions WHERE name=?1 ORDER "
                     "BY position",
    [SQL_SPLITS] = "SELECT generation,percent FROM traffic WHERE name=?1 ORDER BY position",
    [SQL_AUDIT] = "INSERT INTO audit(at_ms,operation,name,old_generation,new_generation,digest,outcome,"
                  "by_whom) VALUES(?1,?2,?3,?4,?5,?6,?7,?8)",
    [SQL_AUDIT_TRIM] = "DELETE FROM audit WHERE id<=(SELECT max(id) FROM audit)-?1",
    [SQL_AUDIT_LIST] = "SELECT at_ms,operation,name,old_generation,new_generation,digest,outcome,by_whom "
                       "FROM audit ORDER BY id DESC LIMIT ?1",
};

/* Row n leads from version n of the tables to version n + 1. Shipped rows never change; new ones follow. */
static const char *const migrations[] = {
    "CREATE TABLE counters(id INTEGER PRIMARY KEY CHECK(id=1),revision INTEGER NOT NULL,"
    "generation INTEGER NOT NULL) STRICT;"
    "INSERT INTO counters VALUES(1,0,0);"
    "CREATE TABLE names(name TEXT PRIMARY KEY NOT NULL,source TEXT NOT NULL,blend TEXT NOT NULL,"
    "scale REAL NOT NULL,pinned INTEGER NOT NULL,from_folder INTEGER NOT NULL,merge TEXT NOT NULL,"
    "effect TEXT NOT NULL,stable INTEGER NOT NULL,previous INTEGER NOT NULL,shadow INTEGER NOT NULL,"
    "revision INTEGER NOT NULL) STRICT,WITHOUT ROWID;"
    "CREATE TABLE versions(name TEXT NOT NULL REFERENCES names ON DELETE CASCADE,"
    "generation INTEGER NOT NULL,position INTEGER NOT NULL,digest BLOB NOT NULL CHECK(length(digest)=32),"
    "source TEXT NOT NULL,scale REAL NOT NULL,published_ms INTEGER NOT NULL,"
    "PRIMARY KEY(name,generation)) STRICT,WITHOUT ROWID;"
    "CREATE TABLE traffic(name TEXT NOT NULL REFERENCES names ON DELETE CASCADE,"
    "generation INTEGER NOT NULL,position INTEGER NOT NULL,percent INTEGER NOT NULL CHECK(percent>=0),"
    "PRIMARY KEY(name,generation)) STRICT,WITHOUT ROWID;"
    "CREATE TABLE audit(id INTEGER PRIMARY KEY AUTOINCREMENT,at_ms INTEGER NOT NULL,"
    "operation TEXT NOT NULL,name TEXT NOT NULL,old_generation INTEGER NOT NULL,"
    "new_generation INTEGER NOT NULL,digest TEXT NOT NULL,outcome TEXT NOT NULL,"
    "by_whom TEXT NOT NULL) STRICT;",
    "ALTER TABLE names ADD COLUMN start_source TEXT NOT NULL DEFAULT '';",
    /* Those of server/tenant_store.c. */
    "CREATE TABLE IF NOT EXISTS tenants(name TEXT PRIMARY KEY NOT NULL,spec TEXT NOT NULL,"
    "created_ms INTEGER NOT NULL,changed_ms INTEGER NOT NULL) STRICT,WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS keys(id TEXT PRIMARY KEY NOT NULL,tenant TEXT NOT NULL,name TEXT NOT NULL,"
    "digest BLOB NOT NULL UNIQUE CHECK(length(digest)=32),created_ms INTEGER NOT NULL,"
    "revoked_ms INTEGER NOT NULL) STRICT,WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS usage(hour_ms INTEGER NOT NULL,tenant TEXT NOT NULL,key TEXT NOT NULL,"
    "voice TEXT NOT NULL,version TEXT NOT NULL,requests INTEGER NOT NULL,tokens_in INTEGER NOT NULL,"
    "tokens_out INTEGER NOT NULL,tokens_cached INTEGER NOT NULL,"
    "PRIMARY KEY(hour_ms,tenant,key,voice,version)) STRICT,WITHOUT ROWID;",
    "CREATE TABLE IF NOT EXISTS served(id INTEGER PRIMARY KEY AUTOINCREMENT,at_ms INTEGER NOT NULL,"
    "request TEXT NOT NULL,tenant TEXT NOT NULL,key TEXT NOT NULL,client TEXT NOT NULL,voice TEXT NOT NULL,"
    "version TEXT NOT NULL,digest TEXT NOT NULL,status INTEGER NOT NULL,tokens_in INTEGER NOT NULL,"
    "tokens_out INTEGER NOT NULL) STRICT;"
    "CREATE INDEX IF NOT EXISTS served_at ON served(at_ms);",
};
#define SCHEMA_VERSION ((int)(sizeof migrations / sizeof migrations[0]))

static const char *const merge_words[] = {
    [MERGE_NEVER] = "never", [MERGE_AUTO] = "auto", [MERGE_ALWAYS] = "always", NULL};
static const char *const effect_words[] = {
    [EFFECT_OFF] = "off", [EFFECT_WARN] = "warn", [EFFECT_ENFORCE] = "enforce", NULL};

struct state {
    sqlite3 *db;
    sqlite3_stmt *sql[SQL_COUNT];
    int lock_fd;
    char path[512]; /* for messages */
};

/* ---- errors */

static enum status status_of(int code)
{
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return STATUS_OK;
    case SQLITE_NOMEM:
        return STATUS_NO_MEMORY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_SCHEMA:
        return STATUS_FORMAT;
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
        return STATUS_INVALID;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return STATUS_UNAVAILABLE;
    case SQLITE_TOOBIG:
        return STATUS_TOO_LARGE;
    default:
        return STATUS_IO; /* full disk, read-only file, failed write or sync … */
    }
}

static enum status complain(struct state *s, const char *what, struct error *err)
{
    int code = sqlite3_extended_errcode(s->db);
    enum status status = status_of(code);
    if (status == STATUS_OK)
        status = STATUS_INTERNAL;
    int number = sqlite3_system_errno(s->db);
    const char *reason = sqlite3_errmsg(s->db), *hint = "";
    if (status == STATUS_FORMAT)
        hint = "; restore a copy of the file, or move it away to begin anew";
    else if (status == STATUS_UNAVAILABLE)
        hint = "; another program holds the file, end it and try again";
    return number && status == STATUS_IO
               ? fail(err, status, "%s: %s: %s: %s", s->path, what, reason, strerror(number))
               : fail(err, status, "%s: %s: %s%s", s->path, what, reason, hint);
}

/* ---- small helpers */

static enum status run(struct state *s, const char *text, struct error *err)
{
    return sqlite3_exec(s->db, text, NULL, NULL, NULL) == SQLITE_OK ? STATUS_OK
                                                                    : complain(s, "writing it", err);
}

/* The first column of a statement's first row; *out keeps its value if there is none. */
static enum status ask_number(struct state *s, const char *text, int64_t *out, struct error *err)
{
    sqlite3_stmt *q = NULL;
    int code = sqlite3_prepare_v2(s->db, text, -1, &q, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(q);
    if (code == SQLITE_ROW)
        *out = sqlite3_column_int64(q, 0);
    enum status st = code == SQLITE_ROW || code == SQLITE_DONE ? STATUS_OK : complain(s, "reading it", err);
    sqlite3_finalize(q);
    return st;
}

/* Cut to limit_bytes, at the beginning of a character of UTF-8. The text is borrowed until the statement is
 * reset. */
static void bind_text(sqlite3_stmt *q, int at, const char *text, size_t limit_bytes)
{
    size_t n = text ? strnlen(text, limit_bytes) : 0;
    while (n == limit_bytes && n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
        limit_bytes = --n;
    sqlite3_bind_text(q, at, text ? text : "", (int)n, SQLITE_STATIC);
}

/* Runs a statement that gives no rows, and makes it ready for its next use. */
static enum status step(struct state *s, enum sql which, const char *what, struct error *err)
{
    sqlite3_stmt *q = s->sql[which];
    enum status st = sqlite3_step(q) == SQLITE_DONE ? STATUS_OK : complain(s, what, err);
    sqlite3_reset(q);
    sqlite3_clear_bindings(q);
    return st;
}

/* ---- opening */

/* FILE.lock rather than a lock on FILE: a person may look into the file while the server runs. */
static enum status take_lock(struct state *s, const char *path, struct error *err)
{
    char name[sizeof s->path + 8];
    snprintf(name, sizeof name, "%s.lock", path);
    s->lock_fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock_fd < 0)
        return fail(err, STATUS_IO, "%s: can't be opened: %s", name, strerror(errno));
    while (flock(s->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EINTR)
            continue;
        if (errno != EWOULDBLOCK)
            return fail(err, STATUS_IO, "%s: can't be locked: %s", name, strerror(errno));
        return fail(err, STATUS_CONFLICT,
                    "%s is in use by another server (it holds %s); each server needs a state file of its own",
                    path, name);
    }
    return STATUS_OK;
}

/* An absent file is made here, since SQLite would let everybody read it. */
static enum status make_file(const char *path, struct error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
    if (fd < 0)
        return fail(err, STATUS_IO, "%s: can't be opened for writing: %s", path, strerror(errno));
    struct stat about;
    bool regular = fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
    close(fd);
    return regular ? STATUS_OK : fail(err, STATUS_INVALID, "%s: no regular file", path);
}

/* Whose file it is, before anything is written: *version of our tables, 0 for a fresh file. */
static enum status identify(struct state *s, int64_t *version, struct error *err)
{
    int64_t application = 0, n_tables = 0;
    enum status st = ask_number(s, "PRAGMA application_id", &application, err);
    if (st == STATUS_OK)
        st = ask_number(s, "PRAGMA user_version", version, err);
    if (st == STATUS_OK)
        st = ask_number(s, "SELECT count(*) FROM sqlite_schema", &n_tables, err);
    if (st != STATUS_OK)
        return st;
    if (application == 0 && n_tables == 0) {
        *version = 0;
        return STATUS_OK;
    }
    if (application != APPLICATION_ID)
        return fail(err, STATUS_FORMAT,
                    "%s is a database of another program (application id %lld); give a file of its own",
                    s->path, (long long)application);
    if (*version < 1)
        return fail(err, STATUS_FORMAT, "%s: version %lld of the tables, expected 1 to %d", s->path,
                    (long long)*version, SCHEMA_VERSION);
    if (*version > SCHEMA_VERSION)
        return fail(err, STATUS_UNSUPPORTED,
                    "%s was written by a newer Lorikeet (version %lld of the tables, this one knows %d); run "
                    "that one, or give another file",
                    s->path, (long long)*version, SCHEMA_VERSION);
    return STATUS_OK;
}

static enum status migrate(struct state *s, int64_t version, struct error *err)
{
    enum status st = STATUS_OK;
    for (; version < SCHEMA_VERSION && st == STATUS_OK; version++) {
        char end[120];
        snprintf(end, sizeof end, "PRAGMA application_id=%d;PRAGMA user_version=%lld;COMMIT", APPLICATION_ID,
                 (long long)version + 1);
        st = run(s, "BEGIN IMMEDIATE", err);
        if (st == STATUS_OK)
            st = run(s, migrations[version], err);
        if (st == STATUS_OK)
            st = run(s, end, err);
        if (st != STATUS_OK && !sqlite3_get_autocommit(s->db))
            sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    }
    return st;
}

static enum status check_whole(struct state *s, struct error *err)
{
    sqlite3_stmt *q = NULL;
    int code = sqlite3_prepare_v2(s->db, "PRAGMA quick_check(1)", -1, &q, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(q);
    const char *found = code == SQLITE_ROW ? (const char *)sqlite3_column_text(q, 0) : NULL;
    enum status st = STATUS_OK;
    if (!found)
        st = complain(s, "the check of the whole file", err);
    else if (strcmp(found, "ok") != 0)
        st = fail(err, STATUS_FORMAT,
                  "%s is damaged: %.200s; restore a copy of the file, or move it away to begin anew", s->path,
                  found);
    sqlite3_finalize(q);
    return st;
}

/* WAL and its sync belong together; an answer other than "wal" (a file system without shared memory) means
 * that the old journal stays, which is as safe. */
static const char settings[] = "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;PRAGMA foreign_keys=ON;"
                               "PRAGMA journal_size_limit=1048576;PRAGMA temp_store=MEMORY";

static enum status open_file(struct state *s, const char *path, struct error *err)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX | SQLITE_OPEN_EXRESCODE;
    if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK)
        return s->db ? complain(s, "can't be opened", err)
                     : fail(err, STATUS_NO_MEMORY, "%s: no memory", path);
    sqlite3_busy_timeout(s->db, BUSY_MS);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL); /* it may be another's */
    int64_t version = 0;
    enum status st = run(s, "PRAGMA cell_size_check=ON", err);
    if (st == STATUS_OK)
        st = identify(s, &version, err);
    if (st == STATUS_OK)
        sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    if (st == STATUS_OK && version > 0)
        st = check_whole(s, err);
    if (st == STATUS_OK)
        st = run(s, "PRAGMA synchronous=FULL", err);
    if (st == STATUS_OK)
        st = migrate(s, version, err);
    if (st == STATUS_OK)
        st = run(s, settings, err);
    for (int i = 0; i < SQL_COUNT && st == STATUS_OK; i++)
        if (sqlite3_prepare_v3(s->db, sql_texts[i], -1, SQLITE_PREPARE_PERSISTENT, &s->sql[i], NULL) !=
            SQLITE_OK)
            st = complain(s, "its tables", err);
    return st;
}

enum status state_open(const char *path, struct state **out, struct error *err)
{
    *out = NULL;
    struct state *s = mem_zalloc(sizeof *s);
    if (!s)
        return fail(err, STATUS_NO_MEMORY, "no memory for the state");
    s->lock_fd = -1;
    /* "./" keeps ":memory:" and the like a file's name. */
    int n = snprintf(s->path, sizeof s->path, "%s%s", path[0] == ':' ? "./" : "", path);
    enum status st = STATUS_OK;
    if (n <= 0 || n >= (int)sizeof s->path)
        st = fail(err, STATUS_INVALID, "state file \"%.80s\": expected a path of 1 to %zu bytes", path,
                  sizeof s->path - 1);
    if (st == STATUS_OK)
        st = take_lock(s, s->path, err);
    if (st == STATUS_OK)
        st = make_file(s->path, err);
    if (st == STATUS_OK)
        st = open_file(s, s->path, err);
    if (st != STATUS_OK) {
        state_close(s);
        return st;
    }
    *out = s;
    return STATUS_OK;
}

void state_close(struct state *s)
{
    if (!s)
        return;
    for (int i = 0; i < SQL_COUNT; i++)
        sqlite3_finalize(s->sql[i]);
    sqlite3_close(s->db);
    if (s->lock_fd >= 0)
        close(s->lock_fd); /* ends the lock; the file stays, since removing it would race with a newcomer */
    mem_free(s);
}

/* ---- writing */

static enum status put_versions(struct state *s, const struct state_name *n, struct error *err)
{
    bind_text(s->sql[SQL_MARK_VERSIONS], 1, n->wish.name, ADAPTER_NAME_MAX);
    enum status st = step(s, SQL_MARK_VERSIONS, "writing versions", err);
    for (uint32_t i = 0; i < n->n_versions && st == STATUS_OK; i++) {
        sqlite3_stmt *q = s->sql[SQL_PUT_VERSION];
        const struct state_version *v = &n->versions[i];
        bind_text(q, 1, n->wish.name, ADAPTER_NAME_MAX);
        sqlite3_bind_int64(q, 2, (int64_t)v->generation);
        sqlite3_bind_int64(q, 3, i);
        sqlite3_bind_blob(q, 4, v->digest, sizeof v->digest, SQLITE_STATIC);
        bind_text(q, 5, v->source, STATE_SOURCE_MAX);
        sqlite3_bind_double(q, 6, v->scale);
        sqlite3_bind_int64(q, 7, v->published_wall_ms);
        st = step(s, SQL_PUT_VERSION, "writing versions", err);
    }
    bind_text(s->sql[SQL_OLD_VERSIONS], 1, n->wish.name, ADAPTER_NAME_MAX);
    return st == STATUS_OK ? step(s, SQL_OLD_VERSIONS, "writing versions", err) : st;
}

static enum status put_splits(struct state *s, const struct state_name *n, struct error *err)
{
    bind_text(s->sql[SQL_OLD_SPLITS], 1, n->wish.name, ADAPTER_NAME_MAX);
    enum status st = step(s, SQL_OLD_SPLITS, "writing traffic", err);
    for (uint32_t i = 0; i < n->n_splits && st == STATUS_OK; i++) {
        sqlite3_stmt *q = s->sql[SQL_PUT_SPLIT];
        bind_text(q, 1, n->wish.name, ADAPTER_NAME_MAX);
        sqlite3_bind_int64(q, 2, (int64_t)n->splits[i].generation);
        sqlite3_bind_int64(q, 3, i);
        sqlite3_bind_int64(q, 4, n->splits[i].percent);
        st = step(s, SQL_PUT_SPLIT, "writing traffic", err);
    }
    return st;
}

static enum status put_name(struct state *s, const struct state_name *n, struct error *err)
{
    const char *fault = state_name_fault(n);
    if (fault)
        return fail(err, STATUS_INVALID, "%s: adapter \"%.80s\" can't be kept: its %s is out of range",
                    s->path, n->wish.name ? n->wish.name : "", fault);
    sqlite3_stmt *q = s->sql[SQL_PUT_NAME];
    bind_text(q, 1, n->wish.name, ADAPTER_NAME_MAX);
    bind_text(q, 2, n->wish.source, STATE_SOURCE_MAX);
    bind_text(q, 3, n->wish.blend, STATE_SOURCE_MAX);
    sqlite3_bind_double(q, 4, n->wish.scale);
    sqlite3_bind_int(q, 5, n->wish.pinned);
    sqlite3_bind_int(q, 6, n->wish.from_folder);
    bind_text(q, 7, merge_words[n->wish.merge], 20);
    bind_text(q, 8, effect_words[n->wish.effect], 20);
    sqlite3_bind_int64(q, 9, (int64_t)n->stable);
    sqlite3_bind_int64(q, 10, (int64_t)n->previous);
    sqlite3_bind_int64(q, 11, (int64_t)n->shadow);
    sqlite3_bind_int64(q, 12, (int64_t)n->revision);
    bind_text(q, 13, n->start_source, STATE_SOURCE_MAX);
    enum status st = step(s, SQL_PUT_NAME, "writing a name", err);
    if (st == STATUS_OK)
        st = put_versions(s, n, err);
    return st == STATUS_OK ? put_splits(s, n, err) : st;
}

/* The generation that the table has as a name's stable one; 0: none. */
static enum status kept_stable(struct state *s, const char *name, uint64_t *stable, struct error *err)
{
    sqlite3_stmt *q = s->sql[SQL_STABLE];
    bind_text(q, 1, name, ADAPTER_NAME_MAX);
    int code = sqlite3_step(q);
    *stable = code == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(q, 0) : 0;
    enum status st =
        code == SQLITE_ROW || code == SQLITE_DONE ? STATUS_OK : complain(s, "reading a name", err);
    sqlite3_reset(q);
    return st;
}

/* Of a generation of the name that is put: 64 hex digits, or "". */
static void find_digest(const struct state_name *n, uint64_t generation, char hex[65])
{
    hex[0] = '\0';
    for (uint32_t i = 0; n && i < n->n_versions; i++)
        if (n->versions[i].generation == generation)
            for (size_t b = 0; b < sizeof n->versions[i].digest; b++)
                snprintf(hex + 2 * b, 3, "%02x", n->versions[i].digest[b]);
}

static enum status put_line(struct state *s, const struct state_change *c, uint64_t before, struct error *err)
{
    sqlite3_stmt *q = s->sql[SQL_AUDIT];
    uint64_t stable = c->put ? c->put->stable : c->remove ? 0 : before;
    uint64_t now = c->generation ? c->generation : stable;
    char digest[65];
    find_digest(c->put, now, digest);
    sqlite3_bind_int64(q, 1, clock_wall_ms());
    bind_text(q, 2, c->operation, AUDIT_TEXT_MAX);
    bind_text(q, 3, c->name, AUDIT_TEXT_MAX);
    sqlite3_bind_int64(q, 4, (int64_t)before);
    sqlite3_bind_int64(q, 5, (int64_t)now);
    bind_text(q, 6, digest, sizeof digest);
    bind_text(q, 7, c->outcome ? c->outcome : "ok", AUDIT_TEXT_MAX);
    bind_text(q, 8, c->by, AUDIT_TEXT_MAX);
    return step(s, SQL_AUDIT, "writing the log of changes", err);
}

static enum status write_change(struct state *s, const struct state_change *c, struct error *err)
{
    uint64_t before = 0;
    enum status st = c->operation ? kept_stable(s, c->name, &before, err) : STATUS_OK;
    if (st == STATUS_OK && c->put)
        st = put_name(s, c->put, err);
    if (st == STATUS_OK && c->remove) {
        bind_text(s->sql[SQL_REMOVE], 1, c->name, ADAPTER_NAME_MAX);
        st = step(s, SQL_REMOVE, "removing a name", err);
    }
    return st == STATUS_OK && c->operation ? put_line(s, c, before, err) : st;
}

static enum status write_all(struct state *s, const struct state_change *changes, size_t n,
                             const struct state_counters *counters, struct error *err)
{
    enum status st = STATUS_OK;
    bool lines = false;
    for (size_t i = 0; i < n && st == STATUS_OK; i++) {
        st = write_change(s, &changes[i], err);
        lines = lines || changes[i].operation;
    }
    if (st == STATUS_OK && lines) {
        sqlite3_bind_int64(s->sql[SQL_AUDIT_TRIM], 1, STATE_AUDIT_MAX);
        st = step(s, SQL_AUDIT_TRIM, "writing the log of changes", err);
    }
    if (st != STATUS_OK || !counters)
        return st;
    sqlite3_bind_int64(s->sql[SQL_SET_COUNTERS], 1, (int64_t)counters->revision);
    sqlite3_bind_int64(s->sql[SQL_SET_COUNTERS], 2, (int64_t)counters->generation);
    return step(s, SQL_SET_COUNTERS, "writing the counters", err);
}

enum status state_apply(struct state *s, const struct state_change *changes, size_t n,
                        const struct state_counters *counters, struct error *err)
{
    for (size_t i = 0; i < n; i++)
        require(changes[i].name && !(changes[i].put && changes[i].remove) &&
                (!changes[i].put || strcmp(changes[i].name, changes[i].put->wish.name) == 0));
    if (counters && (counters->revision > INT64_MAX || counters->generation > INT64_MAX))
        return fail(err, STATUS_INVALID, "%s: a counter is out of range", s->path);
    enum status st = run(s, "BEGIN IMMEDIATE", err);
    if (st == STATUS_OK)
        st = write_all(s, changes, n, counters, err);
    if (st == STATUS_OK)
        st = run(s, "COMMIT", err);
    if (st != STATUS_OK && !sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return st;
}

/* ---- reading */

static int word_index(const char *const *words, const char *text)
{
    for (int i = 0; words[i]; i++)
        if (text && strcmp(words[i], text) == 0)
            return i;
    return -1;
}

static const char *text_at(sqlite3_stmt *q, int column)
{
    const unsigned char *text = sqlite3_column_text(q, column);
    /* A text with a NUL inside would be cut unseen. */
    return text && strlen((const char *)text) == (size_t)sqlite3_column_bytes(q, column) ? (const char *)text
                                                                                         : NULL;
}

static uint64_t number_at(sqlite3_stmt *q, int column)
{
    int64_t v = sqlite3_column_int64(q, column);
    return v < 0 ? UINT64_MAX : (uint64_t)v; /* out of range for state_name_fault */
}

static enum status read_versions(struct state *s, struct state_name *n, struct arena *arena,
                                 struct error *err)
{
    sqlite3_stmt *q = s->sql[SQL_VERSIONS];
    int code;
    bind_text(q, 1, n->wish.name, ADAPTER_NAME_MAX);
    while ((code = sqlite3_step(q)) == SQLITE_ROW) {
        if (n->n_versions == REGISTRY_VERSIONS_MAX || sqlite3_column_bytes(q, 1) != 32 || !text_at(q, 2))
            return fail(err, STATUS_FORMAT, "%s: versions of \"%s\": too many, or no digest or source",
                        s->path, n->wish.name);
        struct state_version *v = &n->versions[n->n_versions++];
        *v = (struct state_version){.generation = number_at(q, 0),
                                    .scale = sqlite3_column_double(q, 3),
                                    .published_wall_ms = sqlite3_column_int64(q, 4)};
        memcpy(v->digest, sqlite3_column_blob(q, 1), sizeof v->digest);
        v->source = arena_strdup(arena, text_at(q, 2)); /* the row's text goes with the next step */
        if (!v->source)
            return fail(err, STATUS_NO_MEMORY, "%s: no memory for its versions", s->path);
    }
    return code == SQLITE_DONE ? STATUS_OK : complain(s, "reading versions", err);
}

static enum status read_splits(struct state *s, struct state_name *n, struct error *err)
{
    sqlite3_stmt *q = s->sql[SQL_SPLITS];
    int code;
    bind_text(q, 1, n->wish.name, ADAPTER_NAME_MAX);
    while ((code = sqlite3_step(q)) == SQLITE_ROW) {
        uint64_t percent = number_at(q, 1);
        if (n->n_splits == REGISTRY_SPLITS_MAX || percent > 100)
            return fail(err, STATUS_FORMAT, "%s: traffic of \"%s\": too many shares, or one above 100",
                        s->path, n->wish.name);
        n->splits[n->n_splits++] =
            (struct traffic_split){.generation = number_at(q, 0), .percent = (uint32_t)percent};
    }
    return code == SQLITE_DONE ? STATUS_OK : complain(s, "reading traffic", err);
}

/* The current row of SQL_NAMES; its texts live until the next step. */
static enum status read_name(struct state *s, struct state_name *n, struct arena *arena, struct error *err)
{
    sqlite3_stmt *q = s->sql[SQL_NAMES];
    int merge = word_index(merge_words, text_at(q, 6)), effect = word_index(effect_words, text_at(q, 7));
    *n = (struct state_name){.wish = {.name = text_at(q, 0),
                                      .source = text_at(q, 1),
                                      .blend = text_at(q, 2),
                                      .scale = sqlite3_column_double(q, 3),
                                      .pinned = sqlite3_column_int(q, 4) != 0,
                                      .from_folder = sqlite3_column_int(q, 5) != 0},
                             .stable = number_at(q, 8),
                             .previous = number_at(q, 9),
                             .shadow = number_at(q, 10),
                             .revision = number_at(q, 11),
                             .start_source = text_at(q, 12)};
    const char *shown = n->wish.name ? n->wish.name : "";
    if (merge < 0 || effect < 0)
        return fail(err, STATUS_FORMAT, "%s: names, \"%.80s\": merge or effect is no word of ours", s->path,
                    shown);
    n->wish.merge = (enum merge_mode)merge;
    n->wish.effect = (enum effect_mode)effect;
    const char *fault = state_name_fault(n);
    if (fault)
        return fail(err, STATUS_FORMAT, "%s: names, \"%.80s\": its %s is out of range", s->path, shown,
                    fault);
    enum status st = read_versions(s, n, arena, err);
    sqlite3_reset(s->sql[SQL_VERSIONS]);
    if (st == STATUS_OK)
        st = read_splits(s, n, err);
    sqlite3_reset(s->sql[SQL_SPLITS]);
    fault = st == STATUS_OK ? state_name_fault(n) : NULL;
    return fault ? fail(err, STATUS_FORMAT, "%s: \"%.80s\": its %s is out of range", s->path, shown, fault)
                 : st;
}

/* This run begins above every revision that an earlier one can have shown, and says so before it shows any.
 */
static enum status begin_run(struct state *s, struct state_counters *counters, struct error *err)
{
    sqlite3_stmt *q = s->sql[SQL_COUNTERS];
    *counters = (struct state_counters){0};
    enum status st = STATUS_OK;
    if (sqlite3_step(q) != SQLITE_ROW)
        st = fail(err, STATUS_FORMAT, "%s: the table of counters is empty", s->path);
    else
        *counters = (struct state_counters){.revision = number_at(q, 0), .generation = number_at(q, 1)};
    sqlite3_reset(q);
    if (st != STATUS_OK)
        return st;
    if (counters->revision > INT64_MAX - STATE_REVISIONS_A_RUN || counters->generation > INT64_MAX)
        return fail(err, STATUS_FORMAT, "%s: a counter is out of range", s->path);
    counters->revision = (counters->revision / STATE_REVISIONS_A_RUN + 1) * STATE_REVISIONS_A_RUN;
    return state_apply(s, NULL, 0, counters, err);
}

enum status state_load(struct state *s, struct state_counters *counters,
                       enum status (*each)(const struct state_name *n, void *data, struct error *err),
                       void *data, struct error *err)
{
    sqlite3_stmt *q = s->sql[SQL_NAMES];
    struct arena *arena = arena_create(0);
    if (!arena)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory for its names", s->path);
    enum status st = STATUS_OK;
    int code = SQLITE_DONE;
    while (st == STATUS_OK && (code = sqlite3_step(q)) == SQLITE_ROW) {
        struct state_name n;
        st = read_name(s, &n, arena, err);
        if (st == STATUS_OK && each)
            st = each(&n, data, err);
        arena_reset(arena);
    }
    arena_destroy(arena);
    if (st == STATUS_OK && code != SQLITE_DONE)
        st = complain(s, "reading names", err);
    sqlite3_reset(q);
    return st == STATUS_OK ? begin_run(s, counters, err) : st;
}

enum status state_audit_each(struct state *s, uint32_t limit,
                             void (*each)(const struct state_audit *a, void *data), void *data,
                             struct error *err)
{
    sqlite3_stmt *q = s->sql[SQL_AUDIT_LIST];
    int code;
    sqlite3_bind_int64(q, 1, limit);
    while ((code = sqlite3_step(q)) == SQLITE_ROW) {
        struct state_audit a = {.wall_ms = sqlite3_column_int64(q, 0),
                                .operation = text_at(q, 1),
                                .name = text_at(q, 2),
                                .old_generation = (uint64_t)sqlite3_column_int64(q, 3),
                                .new_generation = (uint64_t)sqlite3_column_int64(q, 4),
                                .digest = text_at(q, 5),
                                .outcome = text_at(q, 6),
                                .by = text_at(q, 7)};
        each(&a, data);
    }
    enum status st = code == SQLITE_DONE ? STATUS_OK : complain(s, "reading the log of changes", err);
    sqlite3_reset(q);
    return st;
}
