/* The store of responses. Two halves under one lock each: what waits to be written, a short list that the
 * front thread adds to, and the database, which workers use one at a time. Whoever needs both takes the
 * database first. */
#include "response_store.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/mem.h"
#include "server.h"

#define WAITING_BYTES_MAX ((size_t)32 << 20)
#define BUSY_MS 5000

struct entry {
    struct entry *next;
    uint8_t owner[32];
    char id[64];
    char *text;
    size_t length;
};

struct response_store {
    char *path; /* NULL: in memory */
    int64_t limit_bytes;
    struct server *server;
    uv_mutex_t waiting_lock; /* held for a few copied words */
    struct entry *waiting;   /* newest first */
    size_t waiting_bytes;
    bool scheduled; /* front thread: a worker will write */
    uv_mutex_t db_lock;
    sqlite3 *db; /* opened by its first use */
};

struct response_store *response_store_create(struct server *server, const char *path, int64_t limit_bytes)
{
    struct response_store *s = mem_zalloc(sizeof *s);
    if (!s)
        return NULL;
    s->server = server;
    s->limit_bytes = limit_bytes;
    s->path = path ? mem_strdup(path) : NULL;
    if ((path && !s->path) || uv_mutex_init(&s->waiting_lock) != 0) {
        mem_free(s->path);
        mem_free(s);
        return NULL;
    }
    if (uv_mutex_init(&s->db_lock) != 0) {
        uv_mutex_destroy(&s->waiting_lock);
        mem_free(s->path);
        mem_free(s);
        return NULL;
    }
    return s;
}

static void free_entry(struct entry *e)
{
    if (e)
        mem_free(e->text);
    mem_free(e);
}

void response_store_destroy(struct response_store *s)
{
    struct error err;
    if (!s)
        return;
    if (s->waiting && response_store_flush(s, &err) != STATUS_OK && s->server)
        LOG_EVENT(&s->server->log, LOG_WARN, "responses not kept", LOG_TEXT("why", err.text));
    for (struct entry *e = s->waiting, *next; e; e = next) {
        next = e->next;
        free_entry(e);
    }
    sqlite3_close(s->db);
    uv_mutex_destroy(&s->db_lock);
    uv_mutex_destroy(&s->waiting_lock);
    mem_free(s->path);
    mem_free(s);
}

/* ---- the database; db_lock is held */

static enum status complain(struct response_store *s, const char *what, struct error *err)
{
    return fail(err, STATUS_IO, "%s: %s: %s", s->path ? s->path : "responses in memory", what,
                s->db ? sqlite3_errmsg(s->db) : "no memory");
}

static enum status run(struct response_store *s, const char *sql, struct error *err)
{
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? STATUS_OK : complain(s, sql, err);
}

static enum status open_db(struct response_store *s, struct error *err)
{
    static const char *const texts[] = {
        "PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL",
        "CREATE TABLE IF NOT EXISTS responses (number INTEGER PRIMARY KEY AUTOINCREMENT, owner BLOB NOT "
        "NULL, "
        "id TEXT NOT NULL, text BLOB NOT NULL, bytes INTEGER NOT NULL, UNIQUE (owner, id))",
        "CREATE INDEX IF NOT EXISTS sizes ON responses (number, bytes)"};
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX;
    enum status st = STATUS_OK;
    if (s->db)
        return st;
    int fd = s->path ? open(s->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1; /* for no other eyes */
    if (fd >= 0)
        close(fd);
    if (sqlite3_open_v2(s->path ? s->path : ":memory:", &s->db, flags, NULL) != SQLITE_OK)
        st = complain(s, "can't be opened", err);
    if (st == STATUS_OK) {
        sqlite3_busy_timeout(s->db, BUSY_MS);
        sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        sqlite3_db_config(s->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0] && st == STATUS_OK; i++)
        st = run(s, texts[i], err);
    if (st != STATUS_OK) {
        sqlite3_close(s->db);
        s->db = NULL;
    }
    return st;
}

/* A statement with owner and id bound; NULL after a fault. */
static sqlite3_stmt *prepare(struct response_store *s, const char *sql, const uint8_t owner[32],
                             const char *id)
{
    sqlite3_stmt *q = NULL;
    if (sqlite3_prepare_v2(s->db, sql, -1, &q, NULL) != SQLITE_OK)
        return NULL;
    if (owner) {
        sqlite3_bind_blob(q, 1, owner, 32, SQLITE_STATIC);
        sqlite3_bind_text(q, 2, id, -1, SQLITE_STATIC);
    }
    return q;
}

static enum status write_entry(struct response_store *s, const struct entry *e, struct error *err)
{
    sqlite3_stmt *q =
        prepare(s, "INSERT OR REPLACE INTO responses (owner, id, text, bytes) VALUES (?1, ?2, ?3, ?4)",
                e->owner, e->id);
    if (!q)
        return complain(s, "insert", err);
    sqlite3_bind_blob64(q, 3, e->text, e->length, SQLITE_STATIC);
    sqlite3_bind_int64(q, 4, (sqlite3_int64)e->length);
    enum status st = sqlite3_step(q) == SQLITE_DONE ? STATUS_OK : complain(s, "insert", err);
    sqlite3_finalize(q);
    return st;
}

/* The oldest go until the rest fits. */
static enum status trim(struct response_store *s, struct error *err)
{
    sqlite3_stmt *q =
        prepare(s,
                "DELETE FROM responses WHERE number <= (SELECT max(number) FROM (SELECT number, "
                "sum(bytes) OVER (ORDER BY number DESC) AS kept FROM responses) WHERE kept > ?1)",
                NULL, NULL);
    if (!q)
        return complain(s, "trim", err);
    sqlite3_bind_int64(q, 1, s->limit_bytes);
    enum status st = sqlite3_step(q) == SQLITE_DONE ? STATUS_OK : complain(s, "trim", err);
    sqlite3_finalize(q);
    return st;
}

static enum status write_all(struct response_store *s, const struct entry *newest, struct error *err)
{
    enum status st = run(s, "BEGIN IMMEDIATE", err);
    for (const struct entry *e = newest; e && st == STATUS_OK; e = e->next)
        st = write_entry(s, e, err);
    if (st == STATUS_OK)
        st = trim(s, err);
    if (st == STATUS_OK)
        st = run(s, "COMMIT", err);
    if (st != STATUS_OK && !sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return st;
}

/* ---- what waits */

static struct entry *find_waiting(struct response_store *s, const uint8_t owner[32], const char *id)
{
    for (struct entry *e = s->waiting; e; e = e->next)
        if (memcmp(e->owner, owner, 32) == 0 && strcmp(e->id, id) == 0)
            return e;
    return NULL;
}

/* Those up to `newest` are written, or given up. */
static void drop_waiting(struct response_store *s, struct entry *newest)
{
    uv_mutex_lock(&s->waiting_lock);
    struct entry **at = &s->waiting;
    while (*at && *at != newest)
        at = &(*at)->next;
    struct entry *list = *at;
    *at = NULL;
    for (struct entry *e = list; e; e = e->next)
        s->waiting_bytes -= e->length;
    uv_mutex_unlock(&s->waiting_lock);
    for (struct entry *next; list; list = next) {
        next = list->next;
        free_entry(list);
    }
}

/* Entries are only taken off the list here, so it can be walked without its lock from where it began. */
enum status response_store_flush(struct response_store *s, struct error *err)
{
    uv_mutex_lock(&s->db_lock);
    uv_mutex_lock(&s->waiting_lock);
    struct entry *newest = s->waiting;
    uv_mutex_unlock(&s->waiting_lock);
    enum status st = newest ? open_db(s, err) : STATUS_OK;
    if (st == STATUS_OK && newest)
        st = write_all(s, newest, err);
    if (newest)
        drop_waiting(s, newest); /* a disk that fails now isn't asked again for these */
    uv_mutex_unlock(&s->db_lock);
    return st;
}

static void write_out(void *data)
{
    struct response_store *s = data;
    struct error err;
    if (response_store_flush(s, &err) != STATUS_OK)
        LOG_EVENT(&s->server->log, LOG_WARN, "responses not kept", LOG_TEXT("why", err.text));
}

static void schedule(struct response_store *s);

static void written(void *data)
{
    struct response_store *s = data;
    s->scheduled = false;
    uv_mutex_lock(&s->waiting_lock);
    bool more = s->waiting != NULL;
    uv_mutex_unlock(&s->waiting_lock);
    if (more)
        schedule(s);
}

static void schedule(struct response_store *s)
{
    if (!s->scheduled && s->server)
        s->scheduled = server_work(s->server, write_out, written, s);
}

void response_store_put(struct response_store *s, const uint8_t owner[32], const char *id, struct buf *text)
{
    struct entry *e = mem_zalloc(sizeof *e);
    bool fits = false;
    if (e) {
        memcpy(e->owner, owner, 32);
        snprintf(e->id, sizeof e->id, "%s", id);
        e->text = buf_take(text, &e->length);
        uv_mutex_lock(&s->waiting_lock);
        fits = s->waiting_bytes + e->length <= WAITING_BYTES_MAX;
        if (fits) {
            s->waiting_bytes += e->length;
            e->next = s->waiting;
            s->waiting = e;
        }
        uv_mutex_unlock(&s->waiting_lock);
    }
    if (fits) {
        schedule(s);
        return;
    }
    free_entry(e);
    if (s->server)
        LOG_EVENT(&s->server->log, LOG_WARN, "responses not kept",
                  LOG_TEXT("why", e ? "the disk is slower than they come" : "no memory"));
}

/* ---- asking */

static enum status not_found(const char *id, struct error *err)
{
    return fail(err, STATUS_NOT_FOUND, "no response \"%.60s\" is kept", id);
}

/* True if it waits: its text is appended then. */
static bool get_waiting(struct response_store *s, const uint8_t owner[32], const char *id, struct buf *out)
{
    uv_mutex_lock(&s->waiting_lock);
    const struct entry *e = find_waiting(s, owner, id);
    if (e)
        buf_append(out, e->text, e->length);
    uv_mutex_unlock(&s->waiting_lock);
    return e != NULL;
}

enum status response_store_get(struct response_store *s, const uint8_t owner[32], const char *id,
                               struct buf *out, struct error *err)
{
    if (get_waiting(s, owner, id, out))
        return out->failed ? fail(err, STATUS_NO_MEMORY, "no memory for a kept response") : STATUS_OK;
    uv_mutex_lock(&s->db_lock);
    enum status st = open_db(s, err);
    sqlite3_stmt *q = st == STATUS_OK
                          ? prepare(s, "SELECT text FROM responses WHERE owner = ?1 AND id = ?2", owner, id)
                          : NULL;
    if (st == STATUS_OK && !q)
        st = complain(s, "select", err);
    int code = q ? sqlite3_step(q) : SQLITE_DONE;
    if (code == SQLITE_ROW)
        buf_append(out, sqlite3_column_blob(q, 0), (size_t)sqlite3_column_bytes(q, 0));
    else if (st == STATUS_OK)
        st = code == SQLITE_DONE ? not_found(id, err) : complain(s, "select", err);
    sqlite3_finalize(q);
    uv_mutex_unlock(&s->db_lock);
    if (st == STATUS_OK && out->failed)
        st = fail(err, STATUS_NO_MEMORY, "no memory for a kept response");
    return st;
}

enum status response_store_delete(struct response_store *s, const uint8_t owner[32], const char *id,
                                  struct error *err)
{
    enum status st = response_store_flush(s, err); /* so that it is in one place */
    uv_mutex_lock(&s->db_lock);
    if (st == STATUS_OK)
        st = open_db(s, err);
    sqlite3_stmt *q =
        st == STATUS_OK ? prepare(s, "DELETE FROM responses WHERE owner = ?1 AND id = ?2", owner, id) : NULL;
    if (st == STATUS_OK && (!q || sqlite3_step(q) != SQLITE_DONE))
        st = complain(s, "delete", err);
    else if (st == STATUS_OK && sqlite3_changes(s->db) == 0)
        st = not_found(id, err);
    sqlite3_finalize(q);
    uv_mutex_unlock(&s->db_lock);
    return st;
}
