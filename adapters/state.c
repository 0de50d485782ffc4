/* Desired state in an SQLite file (state_file.c opens it).
 *
 * A name is one row of `names` with its rows in `versions` and `traffic`; a change writes all of a name anew,
 * so that applying it twice is applying it once. Everything that belongs to one acknowledged operation is one
 * transaction; the write-ahead log is synced at its end. Each value is checked when it is read: the file may
 * come from a stranger or from a broken disk. */
#include "state.h"

#include <stdio.h>
#include <string.h>

#include <sqlite3.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/mem.h"
#include "state_file.h"
#include "state_inner.h"

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

static const char *const merge_words[] = {
    [MERGE_NEVER] = "never", [MERGE_AUTO] = "auto", [MERGE_ALWAYS] = "always", NULL};
static const char *const effect_words[] = {
    [EFFECT_OFF] = "off", [EFFECT_WARN] = "warn", [EFFECT_ENFORCE] = "enforce", NULL};

struct state {
    struct state_file file;
    sqlite3_stmt *sql[SQL_COUNT];
};

/* ---- small helpers */

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
    enum status st = sqlite3_step(q) == SQLITE_DONE ? STATUS_OK : state_file_complain(&s->file, what, err);
    sqlite3_reset(q);
    sqlite3_clear_bindings(q);
    return st;
}

/* ---- opening */

enum status state_open(const char *path, struct state **out, struct error *err)
{
    *out = NULL;
    struct state *s = mem_zalloc(sizeof *s);
    if (!s)
        return fail(err, STATUS_NO_MEMORY, "no memory for the state");
    enum status st = state_file_open(path, &s->file, err);
    for (int i = 0; i < SQL_COUNT && st == STATUS_OK; i++)
        if (sqlite3_prepare_v3(s->file.db, sql_texts[i], -1, SQLITE_PREPARE_PERSISTENT, &s->sql[i], NULL) !=
            SQLITE_OK)
            st = state_file_complain(&s->file, "its tables", err);
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
    state_file_close(&s->file);
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
                    s->file.path, n->wish.name ? n->wish.name : "", fault);
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
    enum status st = code == SQLITE_ROW || code == SQLITE_DONE
                         ? STATUS_OK
                         : state_file_complain(&s->file, "reading a name", err);
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
        return fail(err, STATUS_INVALID, "%s: a counter is out of range", s->file.path);
    enum status st = state_file_run(&s->file, "BEGIN IMMEDIATE", err);
    if (st == STATUS_OK)
        st = write_all(s, changes, n, counters, err);
    if (st == STATUS_OK)
        st = state_file_run(&s->file, "COMMIT", err);
    if (st != STATUS_OK && !sqlite3_get_autocommit(s->file.db))
        sqlite3_exec(s->file.db, "ROLLBACK", NULL, NULL, NULL);
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
                        s->file.path, n->wish.name);
        struct state_version *v = &n->versions[n->n_versions++];
        *v = (struct state_version){.generation = number_at(q, 0),
                                    .scale = sqlite3_column_double(q, 3),
                                    .published_wall_ms = sqlite3_column_int64(q, 4)};
        memcpy(v->digest, sqlite3_column_blob(q, 1), sizeof v->digest);
        v->source = arena_strdup(arena, text_at(q, 2)); /* the row's text goes with the next step */
        if (!v->source)
            return fail(err, STATUS_NO_MEMORY, "%s: no memory for its versions", s->file.path);
    }
    return code == SQLITE_DONE ? STATUS_OK : state_file_complain(&s->file, "reading versions", err);
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
                        s->file.path, n->wish.name);
        n->splits[n->n_splits++] =
            (struct traffic_split){.generation = number_at(q, 0), .percent = (uint32_t)percent};
    }
    return code == SQLITE_DONE ? STATUS_OK : state_file_complain(&s->file, "reading traffic", err);
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
        return fail(err, STATUS_FORMAT, "%s: names, \"%.80s\": merge or effect is no word of ours",
                    s->file.path, shown);
    n->wish.merge = (enum merge_mode)merge;
    n->wish.effect = (enum effect_mode)effect;
    const char *fault = state_name_fault(n);
    if (fault)
        return fail(err, STATUS_FORMAT, "%s: names, \"%.80s\": its %s is out of range", s->file.path, shown,
                    fault);
    enum status st = read_versions(s, n, arena, err);
    sqlite3_reset(s->sql[SQL_VERSIONS]);
    if (st == STATUS_OK)
        st = read_splits(s, n, err);
    sqlite3_reset(s->sql[SQL_SPLITS]);
    fault = st == STATUS_OK ? state_name_fault(n) : NULL;
    return fault
               ? fail(err, STATUS_FORMAT, "%s: \"%.80s\": its %s is out of range", s->file.path, shown, fault)
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
        st = fail(err, STATUS_FORMAT, "%s: the table of counters is empty", s->file.path);
    else
        *counters = (struct state_counters){.revision = number_at(q, 0), .generation = number_at(q, 1)};
    sqlite3_reset(q);
    if (st != STATUS_OK)
        return st;
    if (counters->revision > INT64_MAX - STATE_REVISIONS_A_RUN || counters->generation > INT64_MAX)
        return fail(err, STATUS_FORMAT, "%s: a counter is out of range", s->file.path);
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
        return fail(err, STATUS_NO_MEMORY, "%s: no memory for its names", s->file.path);
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
        st = state_file_complain(&s->file, "reading names", err);
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
    enum status st =
        code == SQLITE_DONE ? STATUS_OK : state_file_complain(&s->file, "reading the log of changes", err);
    sqlite3_reset(q);
    return st;
}
