/* The only file of this room that sees sqlite3.h. Values are checked again when they are read: the file may
 * have been in other hands. */
#include "tenant_store.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <sqlite3.h>

#include "base/mem.h"
#include "state.h"

#define BUSY_MS 5000 /* the adapters' transactions, and a person who looks */

struct tenant_store {
    sqlite3 *db;
    char path[512]; /* for messages */
};

static enum status complain(const struct tenant_store *s, const char *what, struct error *err)
{
    int code = sqlite3_errcode(s->db) & 0xff;
    enum status status = code == SQLITE_NOMEM                              ? STATUS_NO_MEMORY
                         : code == SQLITE_BUSY || code == SQLITE_LOCKED    ? STATUS_UNAVAILABLE
                         : code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? STATUS_FORMAT
                         : code == SQLITE_CONSTRAINT                       ? STATUS_EXISTS
                                                                           : STATUS_IO;
    return fail(err, status, "%s: %s: %s", s->path, what, sqlite3_errmsg(s->db));
}

static enum status run(struct tenant_store *s, const char *text, struct error *err)
{
    return sqlite3_exec(s->db, text, NULL, NULL, NULL) == SQLITE_OK ? STATUS_OK
                                                                    : complain(s, "writing it", err);
}

/* A statement with its values: t a text, i an int64_t, d a digest. NULL: it failed. */
static sqlite3_stmt *bind(struct tenant_store *s, const char *sql, const char *kinds, va_list args)
{
    sqlite3_stmt *q = NULL;
    if (sqlite3_prepare_v2(s->db, sql, -1, &q, NULL) != SQLITE_OK)
        return NULL;
    for (int i = 0; kinds[i]; i++) {
        if (kinds[i] == 't')
            sqlite3_bind_text(q, i + 1, va_arg(args, const char *), -1, SQLITE_STATIC);
        else if (kinds[i] == 'd')
            sqlite3_bind_blob(q, i + 1, va_arg(args, const void *), 32, SQLITE_STATIC);
        else
            sqlite3_bind_int64(q, i + 1, va_arg(args, int64_t));
    }
    return q;
}

static sqlite3_stmt *ask(struct tenant_store *s, const char *sql, const char *kinds, ...)
{
    va_list args;
    va_start(args, kinds);
    sqlite3_stmt *q = bind(s, sql, kinds, args);
    va_end(args);
    return q;
}

static enum status put(struct tenant_store *s, struct error *err, const char *sql, const char *kinds, ...)
{
    va_list args;
    va_start(args, kinds);
    sqlite3_stmt *q = bind(s, sql, kinds, args);
    va_end(args);
    enum status st = q && sqlite3_step(q) == SQLITE_DONE ? STATUS_OK : complain(s, "writing it", err);
    sqlite3_finalize(q);
    return st;
}

/* ---- opening ---- */

enum status tenant_store_open(const char *path, struct tenant_store **out, struct error *err)
{
    *out = NULL;
    struct tenant_store *s = mem_zalloc(sizeof *s);
    if (!s)
        return fail(err, STATUS_NO_MEMORY, "no memory for the tenants' state");
    snprintf(s->path, sizeof s->path, "%s%s", path[0] == ':' ? "./" : "", path);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX;
    enum status st = STATUS_OK;
    if (sqlite3_open_v2(s->path, &s->db, flags, NULL) != SQLITE_OK)
        st = s->db ? complain(s, "can't be opened", err) : fail(err, STATUS_NO_MEMORY, "%s: no memory", path);
    if (st == STATUS_OK) {
        sqlite3_busy_timeout(s->db, BUSY_MS);
        sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        sqlite3_db_config(s->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
        sqlite3_db_config(s->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
        sqlite3_db_config(s->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
        st = run(s, "PRAGMA synchronous=FULL;PRAGMA temp_store=MEMORY", err);
    }
    if (st != STATUS_OK) {
        tenant_store_close(s);
        return st;
    }
    *out = s;
    return STATUS_OK;
}

void tenant_store_close(struct tenant_store *s)
{
    if (!s)
        return;
    sqlite3_close(s->db);
    mem_free(s);
}

/* ---- reading ---- */

/* A column's text without a NUL inside; "" for anything else. */
static const char *text_at(sqlite3_stmt *q, int column)
{
    const char *text = (const char *)sqlite3_column_text(q, column);
    return text && strlen(text) == (size_t)sqlite3_column_bytes(q, column) ? text : "";
}

static uint64_t count_at(sqlite3_stmt *q, int column)
{
    int64_t n = sqlite3_column_int64(q, column);
    return n > 0 ? (uint64_t)n : 0;
}

static enum status load_tenants(struct tenant_store *s, const struct store_visitor *v, struct error *err)
{
    sqlite3_stmt *q = ask(s, "SELECT name,spec,created_ms FROM tenants ORDER BY name", "");
    enum status st = STATUS_OK;
    int code = SQLITE_DONE;
    while (q && st == STATUS_OK && (code = sqlite3_step(q)) == SQLITE_ROW)
        st = v->tenant(text_at(q, 0), text_at(q, 1), sqlite3_column_int64(q, 2), v->data, err);
    if (st == STATUS_OK && (!q || code != SQLITE_DONE))
        st = complain(s, "reading tenants", err);
    sqlite3_finalize(q);
    return st;
}

static enum status load_key(struct tenant_store *s, sqlite3_stmt *q, const struct store_visitor *v,
                            struct error *err)
{
    struct tenant_key k = {.origin = FROM_STATE,
                           .created_ms = sqlite3_column_int64(q, 4),
                           .revoked_ms = sqlite3_column_int64(q, 5)};
    if (sqlite3_column_bytes(q, 3) != 32 || strlen(text_at(q, 0)) != KEY_ID_LENGTH ||
        strlen(text_at(q, 1)) > TENANT_NAME_MAX || strlen(text_at(q, 2)) > TENANT_NAME_MAX)
        return fail(err, STATUS_FORMAT,
                    "%s: keys, \"%.40s\": id, tenant, name or digest is of no valid length", s->path,
                    text_at(q, 0));
    snprintf(k.id, sizeof k.id, "%s", text_at(q, 0));
    snprintf(k.tenant, sizeof k.tenant, "%s", text_at(q, 1));
    snprintf(k.name, sizeof k.name, "%s", text_at(q, 2));
    memcpy(k.digest, sqlite3_column_blob(q, 3), sizeof k.digest);
    return v->key(&k, v->data, err);
}

enum status tenant_store_load(struct tenant_store *s, const struct store_visitor *v, struct error *err)
{
    enum status st = load_tenants(s, v, err);
    sqlite3_stmt *q = ask(s, "SELECT id,tenant,name,digest,created_ms,revoked_ms FROM keys ORDER BY id", "");
    int code = SQLITE_DONE;
    while (q && st == STATUS_OK && (code = sqlite3_step(q)) == SQLITE_ROW)
        st = load_key(s, q, v, err);
    if (st == STATUS_OK && (!q || code != SQLITE_DONE))
        st = complain(s, "reading keys", err);
    sqlite3_finalize(q);
    return st;
}

/* ---- writing ---- */

/* Ends a transaction that `st` says how it went. */
static enum status end(struct tenant_store *s, enum status st, struct error *err)
{
    if (st == STATUS_OK)
        st = run(s, "COMMIT", err);
    if (st != STATUS_OK && !sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return st;
}

static enum status put_tenant(struct tenant_store *s, const struct store_change *c, struct error *err)
{
    if (c->spec)
        return put(
            s, err,
            "INSERT INTO tenants VALUES(?1,?2,?3,?3) ON CONFLICT(name) DO UPDATE SET spec=?2,changed_ms=?3",
            "tti", c->tenant, c->spec, c->wall_ms);
    enum status st = put(s, err, "DELETE FROM tenants WHERE name=?1", "t", c->tenant);
    return st == STATUS_OK ? put(s, err, "DELETE FROM keys WHERE tenant=?1", "t", c->tenant) : st;
}

static enum status put_all(struct tenant_store *s, const struct store_change *c, struct error *err)
{
    const struct tenant_key *k = c->key;
    enum status st = c->tenant ? put_tenant(s, c, err) : STATUS_OK;
    if (st == STATUS_OK && c->revoke)
        st = put(s, err, "UPDATE keys SET revoked_ms=?2 WHERE id=?1 AND revoked_ms=0", "ti", c->revoke,
                 c->wall_ms);
    if (st == STATUS_OK && k)
        st = put(s, err, "INSERT INTO keys VALUES(?1,?2,?3,?4,?5,0)", "tttdi", k->id, k->tenant, k->name,
                 k->digest, c->wall_ms);
    if (st == STATUS_OK && c->operation)
        st = put(
            s, err,
            "INSERT INTO audit(at_ms,operation,name,old_generation,new_generation,digest,outcome,by_whom) "
            "VALUES(?1,?2,?3,0,0,'','ok',?4)",
            "ittt", c->wall_ms, c->operation, c->object, c->by ? c->by : "");
    if (st == STATUS_OK && c->operation)
        st = put(s, err, "DELETE FROM audit WHERE id<=(SELECT max(id) FROM audit)-?1", "i",
                 (int64_t)STATE_AUDIT_MAX);
    return st;
}

enum status tenant_store_apply(struct tenant_store *s, const struct store_change *c, struct error *err)
{
    enum status st = run(s, "BEGIN IMMEDIATE", err);
    return end(s, st == STATUS_OK ? put_all(s, c, err) : st, err);
}

/* ---- usage ---- */

static enum status add_usage(struct tenant_store *s, const struct usage_row *u, struct error *err)
{
    return put(
        s, err,
        "INSERT INTO usage VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9) ON CONFLICT(hour_ms,tenant,key,voice,version) "
        "DO UPDATE SET requests=requests+?6,tokens_in=tokens_in+?7,tokens_out=tokens_out+?8,"
        "tokens_cached=tokens_cached+?9",
        "ittttiiii", u->hour_ms, u->tenant, u->key, u->voice, u->version, (int64_t)u->n_requests,
        (int64_t)u->n_in, (int64_t)u->n_out, (int64_t)u->n_cached);
}

/* There may be thousands of them: one statement for all. */
static enum status add_served(struct tenant_store *s, const struct store_batch *b, struct error *err)
{
    sqlite3_stmt *q = ask(s,
                          "INSERT INTO served(at_ms,request,tenant,key,client,voice,version,digest,status,"
                          "tokens_in,tokens_out) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)",
                          "");
    bool ok = q != NULL;
    for (size_t i = 0; i < b->n_served && ok; i++) {
        const struct served_row *r = &b->served[i];
        const char *texts[] = {r->request, r->tenant, r->key, r->client, r->voice, r->version, r->digest};
        sqlite3_bind_int64(q, 1, r->at_ms);
        for (int k = 0; k < 7; k++)
            sqlite3_bind_text(q, k + 2, texts[k], -1, SQLITE_STATIC);
        sqlite3_bind_int64(q, 9, r->status);
        sqlite3_bind_int64(q, 10, (int64_t)r->n_in);
        sqlite3_bind_int64(q, 11, (int64_t)r->n_out);
        ok = sqlite3_step(q) == SQLITE_DONE;
        sqlite3_reset(q);
    }
    enum status st = ok ? STATUS_OK : complain(s, "writing what was served", err);
    sqlite3_finalize(q);
    if (st == STATUS_OK)
        st = put(s, err, "DELETE FROM served WHERE id<=(SELECT max(id) FROM served)-?1", "i",
                 (int64_t)b->served_rows_max);
    if (st == STATUS_OK)
        st = put(s, err, "DELETE FROM served WHERE at_ms<?1", "i", b->served_from_ms);
    return st;
}

enum status tenant_store_add(struct tenant_store *s, const struct store_batch *b, struct error *err)
{
    enum status st = run(s, "BEGIN IMMEDIATE", err);
    for (size_t i = 0; i < b->n_usage && st == STATUS_OK; i++)
        st = add_usage(s, &b->usage[i], err);
    if (st == STATUS_OK && b->n_served)
        st = add_served(s, b, err);
    return end(s, st, err);
}

enum status tenant_store_forget_usage(struct tenant_store *s, int64_t before_ms, struct error *err)
{
    return put(s, err, "DELETE FROM usage WHERE hour_ms<?1", "i", before_ms);
}

enum status tenant_store_usage(struct tenant_store *s, const struct usage_query *query,
                               void (*each)(const struct usage_row *row, void *data), void *data,
                               struct error *err)
{
    sqlite3_stmt *q =
        ask(s,
            "SELECT hour_ms,tenant,key,voice,version,requests,tokens_in,tokens_out,tokens_cached "
            "FROM usage WHERE hour_ms>=?1 AND hour_ms<?2 AND (?3='' OR tenant=?3) "
            "ORDER BY hour_ms,tenant,key,voice,version LIMIT ?4",
            "iiti", query->from_ms, query->to_ms, query->tenant ? query->tenant : "", (int64_t)query->limit);
    int code = SQLITE_ERROR;
    while (q && (code = sqlite3_step(q)) == SQLITE_ROW) {
        struct usage_row u = {.hour_ms = sqlite3_column_int64(q, 0),
                              .n_requests = count_at(q, 5),
                              .n_in = count_at(q, 6),
                              .n_out = count_at(q, 7),
                              .n_cached = count_at(q, 8)};
        snprintf(u.tenant, sizeof u.tenant, "%s", text_at(q, 1));
        snprintf(u.key, sizeof u.key, "%s", text_at(q, 2));
        snprintf(u.voice, sizeof u.voice, "%s", text_at(q, 3));
        snprintf(u.version, sizeof u.version, "%s", text_at(q, 4));
        each(&u, data);
    }
    enum status st = code == SQLITE_DONE ? STATUS_OK : complain(s, "reading usage", err);
    sqlite3_finalize(q);
    return st;
}

/* ---- what was served ---- */

static void served_at(sqlite3_stmt *q, struct served_row *r)
{
    *r = (struct served_row){.id = sqlite3_column_int64(q, 0),
                             .at_ms = sqlite3_column_int64(q, 1),
                             .status = sqlite3_column_int64(q, 9),
                             .n_in = count_at(q, 10),
                             .n_out = count_at(q, 11)};
    snprintf(r->request, sizeof r->request, "%s", text_at(q, 2));
    snprintf(r->tenant, sizeof r->tenant, "%s", text_at(q, 3));
    snprintf(r->key, sizeof r->key, "%s", text_at(q, 4));
    snprintf(r->client, sizeof r->client, "%s", text_at(q, 5));
    snprintf(r->voice, sizeof r->voice, "%s", text_at(q, 6));
    snprintf(r->version, sizeof r->version, "%s", text_at(q, 7));
    snprintf(r->digest, sizeof r->digest, "%s", text_at(q, 8));
}

enum status tenant_store_served(struct tenant_store *s, const struct served_query *w,
                                void (*each)(const struct served_row *row, void *data), void *data,
                                struct error *err)
{
    static const char sql[] =
        "SELECT id,at_ms,request,tenant,key,client,voice,version,digest,status,tokens_in,tokens_out "
        "FROM served WHERE id<?1 AND at_ms>=?2 AND at_ms<?3 AND (?4 IS NULL OR tenant=?4) AND "
        "(?5 IS NULL OR key=?5) AND (?6 IS NULL OR voice=?6) AND (?7 IS NULL OR version=?7) AND "
        "(?8 IS NULL OR request=?8) ORDER BY id DESC LIMIT ?9";
    sqlite3_stmt *q = ask(s, sql, "iiittttti", w->before, w->from_ms, w->to_ms, w->tenant, w->key, w->voice,
                          w->version, w->request, (int64_t)w->limit);
    struct served_row row;
    int code = SQLITE_ERROR;
    while (q && (code = sqlite3_step(q)) == SQLITE_ROW) {
        served_at(q, &row);
        each(&row, data);
    }
    enum status st = code == SQLITE_DONE ? STATUS_OK : complain(s, "reading what was served", err);
    sqlite3_finalize(q);
    return st;
}

/* ---- the log of changes ---- */

enum status tenant_store_changes(struct tenant_store *s, int64_t before, uint32_t limit,
                                 void (*each)(const struct change_line *l, void *data), void *data,
                                 struct error *err)
{
    sqlite3_stmt *q = ask(s,
                          "SELECT id,at_ms,operation,name,outcome,by_whom FROM audit WHERE id<?1 "
                          "ORDER BY id DESC LIMIT ?2",
                          "ii", before, (int64_t)limit);
    int code = SQLITE_ERROR;
    while (q && (code = sqlite3_step(q)) == SQLITE_ROW) {
        struct change_line l = {.id = sqlite3_column_int64(q, 0),
                                .wall_ms = sqlite3_column_int64(q, 1),
                                .operation = text_at(q, 2),
                                .object = text_at(q, 3),
                                .outcome = text_at(q, 4),
                                .by = text_at(q, 5)};
        each(&l, data);
    }
    enum status st = code == SQLITE_DONE ? STATUS_OK : complain(s, "reading the log of changes", err);
    sqlite3_finalize(q);
    return st;
}
