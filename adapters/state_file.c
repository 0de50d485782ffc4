/* The state file as a file: whose it is, that only one server has it, that it is whole, and its tables, all
 * of which are made here (what is in them is state.c's and server/tenant_store.c's).
 *
 * It may come from a stranger or from a broken disk: it is checked as a whole at the start. It is never
 * repaired or replaced here: losing what was wished is the operator's decision. */
#include "state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#define APPLICATION_ID 0x4c6f7269 /* "Lori", in the file's header */
#define BUSY_MS 2000              /* for a person who looks into the file at the same time */

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

enum status state_file_complain(const struct state_file *f, const char *what, struct error *err)
{
    int code = sqlite3_extended_errcode(f->db);
    enum status status = status_of(code);
    if (status == STATUS_OK)
        status = STATUS_INTERNAL;
    int number = sqlite3_system_errno(f->db);
    const char *reason = sqlite3_errmsg(f->db), *hint = "";
    if (status == STATUS_FORMAT)
        hint = "; restore a copy of the file, or move it away to begin anew";
    else if (status == STATUS_UNAVAILABLE)
        hint = "; another program holds the file, end it and try again";
    return number && status == STATUS_IO
               ? fail(err, status, "%s: %s: %s: %s", f->path, what, reason, strerror(number))
               : fail(err, status, "%s: %s: %s%s", f->path, what, reason, hint);
}

enum status state_file_run(struct state_file *f, const char *text, struct error *err)
{
    return sqlite3_exec(f->db, text, NULL, NULL, NULL) == SQLITE_OK
               ? STATUS_OK
               : state_file_complain(f, "writing it", err);
}

/* The first column of a statement's first row; *out keeps its value if there is none. */
static enum status ask_number(struct state_file *f, const char *text, int64_t *out, struct error *err)
{
    sqlite3_stmt *q = NULL;
    int code = sqlite3_prepare_v2(f->db, text, -1, &q, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(q);
    if (code == SQLITE_ROW)
        *out = sqlite3_column_int64(q, 0);
    enum status st =
        code == SQLITE_ROW || code == SQLITE_DONE ? STATUS_OK : state_file_complain(f, "reading it", err);
    sqlite3_finalize(q);
    return st;
}

/* ---- opening */

/* FILE.lock rather than a lock on FILE: a person may look into the file while the server runs. */
static enum status take_lock(struct state_file *f, const char *path, struct error *err)
{
    char name[sizeof f->path + 8];
    snprintf(name, sizeof name, "%s.lock", path);
    f->lock_fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f->lock_fd < 0)
        return fail(err, STATUS_IO, "%s: can't be opened: %s", name, strerror(errno));
    while (flock(f->lock_fd, LOCK_EX | LOCK_NB) != 0) {
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
static enum status identify(struct state_file *f, int64_t *version, struct error *err)
{
    int64_t application = 0, n_tables = 0;
    enum status st = ask_number(f, "PRAGMA application_id", &application, err);
    if (st == STATUS_OK)
        st = ask_number(f, "PRAGMA user_version", version, err);
    if (st == STATUS_OK)
        st = ask_number(f, "SELECT count(*) FROM sqlite_schema", &n_tables, err);
    if (st != STATUS_OK)
        return st;
    if (application == 0 && n_tables == 0) {
        *version = 0;
        return STATUS_OK;
    }
    if (application != APPLICATION_ID)
        return fail(err, STATUS_FORMAT,
                    "%s is a database of another program (application id %lld); give a file of its own",
                    f->path, (long long)application);
    if (*version < 1)
        return fail(err, STATUS_FORMAT, "%s: version %lld of the tables, expected 1 to %d", f->path,
                    (long long)*version, SCHEMA_VERSION);
    if (*version > SCHEMA_VERSION)
        return fail(err, STATUS_UNSUPPORTED,
                    "%s was written by a newer Lorikeet (version %lld of the tables, this one knows %d); run "
                    "that one, or give another file",
                    f->path, (long long)*version, SCHEMA_VERSION);
    return STATUS_OK;
}

static enum status migrate(struct state_file *f, int64_t version, struct error *err)
{
    enum status st = STATUS_OK;
    for (; version < SCHEMA_VERSION && st == STATUS_OK; version++) {
        char end[120];
        snprintf(end, sizeof end, "PRAGMA application_id=%d;PRAGMA user_version=%lld;COMMIT", APPLICATION_ID,
                 (long long)version + 1);
        st = state_file_run(f, "BEGIN IMMEDIATE", err);
        if (st == STATUS_OK)
            st = state_file_run(f, migrations[version], err);
        if (st == STATUS_OK)
            st = state_file_run(f, end, err);
        if (st != STATUS_OK && !sqlite3_get_autocommit(f->db))
            sqlite3_exec(f->db, "ROLLBACK", NULL, NULL, NULL);
    }
    return st;
}

static enum status check_whole(struct state_file *f, struct error *err)
{
    sqlite3_stmt *q = NULL;
    int code = sqlite3_prepare_v2(f->db, "PRAGMA quick_check(1)", -1, &q, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(q);
    const char *found = code == SQLITE_ROW ? (const char *)sqlite3_column_text(q, 0) : NULL;
    enum status st = STATUS_OK;
    if (!found)
        st = state_file_complain(f, "the check of the whole file", err);
    else if (strcmp(found, "ok") != 0)
        st = fail(err, STATUS_FORMAT,
                  "%s is damaged: %.200s; restore a copy of the file, or move it away to begin anew", f->path,
                  found);
    sqlite3_finalize(q);
    return st;
}

/* WAL and its sync belong together; an answer other than "wal" (a file system without shared memory) means
 * that the old journal stays, which is as safe. */
static const char settings[] = "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;PRAGMA foreign_keys=ON;"
                               "PRAGMA journal_size_limit=1048576;PRAGMA temp_store=MEMORY";

static enum status open_file(struct state_file *f, const char *path, struct error *err)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX | SQLITE_OPEN_EXRESCODE;
    if (sqlite3_open_v2(path, &f->db, flags, NULL) != SQLITE_OK)
        return f->db ? state_file_complain(f, "can't be opened", err)
                     : fail(err, STATUS_NO_MEMORY, "%s: no memory", path);
    sqlite3_busy_timeout(f->db, BUSY_MS);
    sqlite3_db_config(f->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(f->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(f->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(f->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    sqlite3_db_config(f->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL); /* it may be another's */
    int64_t version = 0;
    enum status st = state_file_run(f, "PRAGMA cell_size_check=ON", err);
    if (st == STATUS_OK)
        st = identify(f, &version, err);
    if (st == STATUS_OK)
        sqlite3_db_config(f->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    if (st == STATUS_OK && version > 0)
        st = check_whole(f, err);
    if (st == STATUS_OK)
        st = state_file_run(f, "PRAGMA synchronous=FULL", err);
    if (st == STATUS_OK)
        st = migrate(f, version, err);
    if (st == STATUS_OK)
        st = state_file_run(f, settings, err);
    return st;
}

enum status state_file_open(const char *path, struct state_file *f, struct error *err)
{
    *f = (struct state_file){.lock_fd = -1};
    /* "./" keeps ":memory:" and the like a file's name. */
    int n = snprintf(f->path, sizeof f->path, "%s%s", path[0] == ':' ? "./" : "", path);
    enum status st = STATUS_OK;
    if (n <= 0 || n >= (int)sizeof f->path)
        st = fail(err, STATUS_INVALID, "state file \"%.80s\": expected a path of 1 to %zu bytes", path,
                  sizeof f->path - 1);
    if (st == STATUS_OK)
        st = take_lock(f, f->path, err);
    if (st == STATUS_OK)
        st = make_file(f->path, err);
    return st == STATUS_OK ? open_file(f, f->path, err) : st;
}

void state_file_close(struct state_file *f)
{
    sqlite3_close(f->db);
    if (f->lock_fd >= 0)
        close(f->lock_fd); /* ends the lock; the file stays, since removing it would race with a newcomer */
}
