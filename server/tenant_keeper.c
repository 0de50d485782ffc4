/* Usage gathers in memory, a row for each hour, key, voice and version, and is added to the state file every
 * few seconds in one transaction, with the lines of what was served: a crash loses those seconds, never a
 * row's half. */
#include "tenant_keeper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "server.h"
#include "tenant_file.h"
#include "tenants.h"

#define FLUSH_EVERY_NS (3 * NS_PER_S)
#define SERVED_LINES_MAX 16384U /* between two writings; more is lost, and the log says how much */
#define HOUR_MS INT64_C(3600000)
#define DAY_HOURS 24
#define KEPT_HOURS (400 * DAY_HOURS) /* of usage and of what was served */
#define ANY_VOICE "*"                /* counts what there is no row for any more */

struct usage_batch {
    struct usage_row *rows;
    size_t n, capacity;
    uint64_t n_lost; /* requests that the log is to tell of */
};

struct served_batch {
    struct served_row *rows;
    size_t n, capacity;
    uint64_t n_lost;
};

struct tenant_keeper {
    struct server *server;
    struct tenant_store *store; /* or NULL */
    struct keep_job *waiting, **last, *running;
    struct keep_job flush;
    bool flushing;
    int64_t flushed_ns;
    struct usage_batch gathering, writing;
    struct served_batch served, served_writing;
    uint64_t n_refused, n_refused_told; /* keys, and those that the log tells of */
    int64_t refused_ns;                 /* when it did last */
    /* the tenants file */
    bool reading, read_again;
    struct tenants_file file;
    enum status status;
    struct error err;
};

/* ---- jobs ---- */

static void next_job(struct tenant_keeper *k);

static void work(void *data)
{
    struct tenant_keeper *k = data;
    struct keep_job *j = k->running;
    j->status = j->work(j, k->store, &j->err);
}

static void worked(void *data)
{
    struct tenant_keeper *k = data;
    struct keep_job *j = k->running;
    k->running = NULL;
    j->done(j, j->status == STATUS_OK ? NULL : &j->err);
    next_job(k);
}

static enum status begin_job(struct tenant_keeper *k, struct keep_job *j)
{
    if (!k->store)
        return fail(
            &j->err, STATUS_UNSUPPORTED,
            "tenants and keys are kept in the state file, and this server has none: start it with --state "
            "FILE, or give tenants in --tenants FILE");
    enum status s = j->prepare ? j->prepare(j, &j->err) : STATUS_OK;
    if (s != STATUS_OK)
        return s;
    k->running = j;
    if (server_work(k->server, work, worked, k))
        return STATUS_OK;
    k->running = NULL;
    return fail(&j->err, STATUS_NO_MEMORY, "no memory for a worker's task");
}

static void next_job(struct tenant_keeper *k)
{
    while (!k->running && k->waiting) {
        struct keep_job *j = k->waiting;
        k->waiting = j->next;
        if (!k->waiting)
            k->last = &k->waiting;
        enum status s = begin_job(k, j); /* j->status is the worker's from here on */
        if (s != STATUS_OK)
            j->done(j, &j->err);
    }
}

void tenant_keeper_do(struct tenant_keeper *k, struct keep_job *j)
{
    j->next = NULL;
    *k->last = j;
    k->last = &j->next;
    next_job(k);
}

bool tenant_keeper_keeps(const struct tenant_keeper *k)
{
    return k->store != NULL;
}

bool tenant_keeper_busy(const struct tenant_keeper *k)
{
    return k->running || k->waiting || k->reading || (k->store && (k->gathering.n || k->served.n));
}

/* ---- usage ---- */

static bool same_row(const struct usage_row *a, const struct usage_row *b)
{
    return a->hour_ms == b->hour_ms && strcmp(a->key, b->key) == 0 && strcmp(a->tenant, b->tenant) == 0 &&
           strcmp(a->voice, b->voice) == 0 && strcmp(a->version, b->version) == 0;
}

/* The rows with room for one more, perhaps elsewhere now; NULL: there is none, and they stay. */
static void *grown_rows(void *rows, size_t row_bytes, size_t n, size_t *capacity, size_t most)
{
    if (n < *capacity)
        return rows;
    size_t more = *capacity ? 2 * *capacity : 64;
    more = more < most ? more : most;
    void *grown = n < most ? mem_realloc(rows, more * row_bytes) : NULL;
    if (grown)
        *capacity = more;
    return grown;
}

static struct usage_row *row_for(struct usage_batch *b, const struct usage_row *row, size_t most)
{
    for (size_t i = b->n; i-- > 0;)
        if (same_row(&b->rows[i], row))
            return &b->rows[i];
    struct usage_row *rows =
        b->n < most ? grown_rows(b->rows, sizeof *rows, b->n, &b->capacity, USAGE_ROWS_MAX + TENANTS_MAX)
                    : NULL;
    if (!rows)
        return NULL;
    b->rows = rows;
    b->rows[b->n] = *row;
    struct usage_row *new = &b->rows[b->n++];
    new->n_requests = new->n_in = new->n_out = new->n_cached = 0;
    return new;
}

/* Beyond the bound a tenant has one row for all its keys and voices. */
static void add_row(struct usage_batch *b, const struct usage_row *row)
{
    struct usage_row *to = row_for(b, row, USAGE_ROWS_MAX);
    if (!to) {
        struct usage_row any = {.hour_ms = row->hour_ms, .voice = ANY_VOICE};
        snprintf(any.tenant, sizeof any.tenant, "%s", row->tenant);
        to = row_for(b, &any, USAGE_ROWS_MAX + TENANTS_MAX);
    }
    if (!to) {
        b->n_lost += row->n_requests;
        return;
    }
    to->n_requests += row->n_requests;
    to->n_in += row->n_in;
    to->n_out += row->n_out;
    to->n_cached += row->n_cached;
}

/* The oldest quarter goes: rows are in the order of their hours. */
static void forget_oldest(struct usage_batch *b)
{
    size_t n = b->n / 4;
    memmove(b->rows, b->rows + n, (b->n - n) * sizeof *b->rows);
    b->n -= n;
}

void tenant_keeper_count(struct tenant_keeper *k, const struct usage_row *row)
{
    struct usage_row now = *row;
    now.hour_ms = clock_wall_ms() / HOUR_MS * HOUR_MS;
    if (!k->store && k->gathering.n >= USAGE_ROWS_MAX)
        forget_oldest(&k->gathering);
    add_row(&k->gathering, &now);
}

static int in_order(const void *a, const void *b)
{
    const struct usage_row *x = *(const struct usage_row *const *)a, *y = *(const struct usage_row *const *)b;
    int c = (x->hour_ms > y->hour_ms) - (x->hour_ms < y->hour_ms);
    c = c ? c : strcmp(x->tenant, y->tenant);
    c = c ? c : strcmp(x->key, y->key);
    c = c ? c : strcmp(x->voice, y->voice);
    return c ? c : strcmp(x->version, y->version);
}

enum status tenant_keeper_usage(const struct tenant_keeper *k, const struct usage_query *q,
                                void (*each)(const struct usage_row *row, void *data), void *data,
                                struct error *err)
{
    const struct usage_batch *b = &k->gathering;
    const struct usage_row **sorted = mem_array(b->n + 1, sizeof(struct usage_row *));
    size_t n = 0;
    if (!sorted)
        return fail(err, STATUS_NO_MEMORY, "no memory for %zu rows of usage; try again later", b->n);
    for (size_t i = 0; i < b->n; i++)
        if (b->rows[i].hour_ms >= q->from_ms && b->rows[i].hour_ms < q->to_ms &&
            (!q->tenant || strcmp(q->tenant, b->rows[i].tenant) == 0))
            sorted[n++] = &b->rows[i];
    if (n)
        qsort(sorted, n, sizeof(struct usage_row *), in_order);
    for (size_t i = 0; i < n && i < q->limit; i++)
        each(sorted[i], data);
    mem_free(sorted);
    return STATUS_OK;
}

/* ---- what was served ---- */

bool tenant_keeper_wants_served(const struct tenant_keeper *k)
{
    return k->store && k->server->conf->served_rows;
}

static void add_line(struct served_batch *b, const struct served_row *row)
{
    struct served_row *rows = grown_rows(b->rows, sizeof *rows, b->n, &b->capacity, SERVED_LINES_MAX);
    if (!rows) {
        b->n_lost++;
        return;
    }
    b->rows = rows;
    rows[b->n++] = *row;
}

void tenant_keeper_served(struct tenant_keeper *k, const struct served_row *row)
{
    struct served_row now = *row;
    now.at_ms = clock_wall_ms();
    if (tenant_keeper_wants_served(k))
        add_line(&k->served, &now);
}

/* ---- to the disk ---- */

static struct tenant_keeper *of_flush(struct keep_job *j)
{
    return (struct tenant_keeper *)((char *)j - offsetof(struct tenant_keeper, flush));
}

static enum status flush_prepare(struct keep_job *j, struct error *err)
{
    struct tenant_keeper *k = of_flush(j);
    (void)err;
    struct usage_batch empty = k->writing;
    empty.n = 0;
    k->writing = k->gathering;
    k->gathering = empty;
    struct served_batch none = k->served_writing;
    none.n = 0;
    none.n_lost = 0;
    k->served_writing = k->served;
    k->served = none;
    return STATUS_OK;
}

static enum status flush_work(struct keep_job *j, struct tenant_store *store, struct error *err)
{
    struct tenant_keeper *k = of_flush(j);
    const struct store_batch b = {.usage = k->writing.rows,
                                  .n_usage = k->writing.n,
                                  .served = k->served_writing.rows,
                                  .n_served = k->served_writing.n,
                                  .served_rows_max = k->server->conf->served_rows,
                                  .served_from_ms = clock_wall_ms() - KEPT_HOURS * HOUR_MS};
    return tenant_store_add(store, &b, err);
}

/* Lines that weren't written go before those that came meanwhile, as far as there is room. */
static void served_again(struct tenant_keeper *k)
{
    struct served_batch *w = &k->served_writing, *b = &k->served, both;
    w->n_lost += b->n_lost;
    for (size_t i = 0; i < b->n; i++)
        add_line(w, &b->rows[i]);
    both = *w;
    *w = *b;
    *b = both;
    w->n_lost = 0;
}

static void flush_done(struct keep_job *j, const struct error *err)
{
    struct tenant_keeper *k = of_flush(j);
    k->flushing = false;
    bool again = err && k->server->state != SERVER_STOPPING;
    if (err)
        LOG_EVENT(&k->server->log, LOG_ERROR, again ? "usage isn't kept yet" : "usage is lost",
                  LOG_TEXT("why", err->text));
    for (size_t i = 0; i < k->writing.n && again; i++) /* the next time, with what came meanwhile */
        add_row(&k->gathering, &k->writing.rows[i]);
    k->writing.n = 0;
    if (again)
        served_again(k);
    if (k->served_writing.n_lost)
        LOG_EVENT(&k->server->log, LOG_ERROR, "lines of what was served are lost",
                  LOG_NUMBER("lines", k->served_writing.n_lost));
    k->served_writing.n = 0;
    k->served_writing.n_lost = 0;
}

static void tell_lost(struct tenant_keeper *k)
{
    if (k->gathering.n_lost)
        LOG_EVENT(&k->server->log, LOG_ERROR, "usage is lost",
                  LOG_TEXT("why", "there is no memory for its rows, or too many wait to be written"),
                  LOG_NUMBER("requests", k->gathering.n_lost));
    k->gathering.n_lost = 0;
}

void tenant_keeper_tick(struct tenant_keeper *k, int64_t now_ns, bool last)
{
    tell_lost(k);
    bool due = last || k->served.n > SERVED_LINES_MAX / 2 || now_ns - k->flushed_ns >= FLUSH_EVERY_NS;
    if (!k->store || k->flushing || !due || (k->gathering.n == 0 && k->served.n == 0))
        return;
    k->flushed_ns = now_ns;
    k->flushing = true;
    k->flush = (struct keep_job){.prepare = flush_prepare, .work = flush_work, .done = flush_done};
    tenant_keeper_do(k, &k->flush);
}

/* ---- keys that aren't good ---- */

void tenant_keeper_refused(struct tenant_keeper *k, const char *client, int64_t now_ns)
{
    k->n_refused++;
    if (k->refused_ns && now_ns - k->refused_ns < NS_PER_S)
        return;
    LOG_EVENT(&k->server->log, LOG_WARN, "a key was refused", LOG_TEXT("client", client),
              LOG_NUMBER("since_last", k->n_refused - k->n_refused_told));
    k->refused_ns = now_ns;
    k->n_refused_told = k->n_refused;
}

uint64_t tenant_keeper_n_refused(const struct tenant_keeper *k)
{
    return k->n_refused;
}

/* ---- the tenants file ---- */

static void read_file(void *data)
{
    struct tenant_keeper *k = data;
    k->status = tenants_file_read(k->server->conf->tenants_file, &k->file, &k->err);
}

static void file_read(void *data)
{
    struct tenant_keeper *k = data;
    struct server *s = k->server;
    k->reading = false;
    if (k->status == STATUS_OK)
        k->status = tenants_file_apply(s->tenants, &k->file, s->conf->tenants_file, &k->err);
    if (k->status == STATUS_OK)
        LOG_EVENT(&s->log, LOG_INFO, "tenants file read", LOG_NUMBER("tenants", k->file.n),
                  LOG_NUMBER("keys", k->file.n_keys));
    else
        LOG_EVENT(&s->log, LOG_ERROR, "the tenants file is not taken; the one before stays in force",
                  LOG_TEXT("why", k->err.text));
    tenants_file_fini(&k->file);
    if (k->read_again)
        tenant_keeper_reload(k);
}

void tenant_keeper_reload(struct tenant_keeper *k)
{
    if (!k->server->conf->tenants_file)
        return;
    k->read_again = k->reading; /* it may have changed since */
    if (k->reading)
        return;
    k->reading = true;
    if (server_work(k->server, read_file, file_read, k))
        return;
    k->reading = false;
    log_line(&k->server->log, LOG_ERROR, "no memory to read the tenants file");
}

/* ---- start and end ---- */

static enum status load_tenant(const char *name, const char *text, int64_t created_ms, void *data,
                               struct error *err)
{
    struct tenant_keeper *k = data;
    struct tenant_spec *spec = NULL;
    struct fault f = {0};
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    enum status s = json
                        ? tenant_spec_parse(name, json, &spec, &f)
                        : fail(&f.error, STATUS_FORMAT, "tenants, \"%.80s\": its settings are no JSON", name);
    json_decref(json);
    if (s != STATUS_OK) {
        *err = f.error;
        return fail_within(err, "%s", k->server->conf->state);
    }
    s = tenants_put(k->server->tenants, name, FROM_STATE, spec, created_ms, err);
    if (s != STATUS_OK)
        tenant_spec_release(spec);
    return s;
}

static enum status load_key(const struct tenant_key *key, void *data, struct error *err)
{
    struct tenant_keeper *k = data;
    return tenants_add_key(k->server->tenants, key, err);
}

/* What was used in the last day counts against its limits, restart or not. */
static void restore_day(const struct usage_row *row, void *data)
{
    struct tenant_keeper *k = data;
    struct tenant *t = tenants_find(k->server->tenants, row->tenant);
    int64_t ago_ms = clock_wall_ms() - row->hour_ms - HOUR_MS, now_ns = clock_now_ns();
    if (!t)
        return;
    int64_t at_ns = now_ns - (ago_ms > 0 ? ago_ms : 0) * NS_PER_MS; /* the hour's end */
    window_restore(&t->requests_day, row->n_requests, at_ns, now_ns);
    window_restore(&t->tokens_day, row->n_in + row->n_out, at_ns, now_ns);
}

static enum status read_store(struct tenant_keeper *k, struct error *err)
{
    const struct store_visitor v = {.tenant = load_tenant, .key = load_key, .data = k};
    enum status s = tenant_store_open(k->server->conf->state, &k->store, err);
    if (s == STATUS_OK)
        s = tenant_store_load(k->store, &v, err);
    return s == STATUS_OK ? tenant_store_forget_usage(k->store, clock_wall_ms() - KEPT_HOURS * HOUR_MS, err)
                          : s;
}

/* Behind the state file, so that what doesn't go together is said as at SIGHUP. */
static enum status begin_file(struct tenant_keeper *k, struct error *err)
{
    struct server *s = k->server;
    tenants_close(s->tenants);
    enum status st = tenants_file_read(s->conf->tenants_file, &k->file, err);
    if (st == STATUS_OK)
        st = tenants_file_apply(s->tenants, &k->file, s->conf->tenants_file, err);
    tenants_file_fini(&k->file);
    return st;
}

enum status tenant_keeper_create(struct server *s, struct tenant_keeper **out, struct error *err)
{
    const struct usage_query day = {
        .from_ms = clock_wall_ms() - DAY_HOURS * HOUR_MS, .to_ms = INT64_MAX, .limit = INT32_MAX};
    struct tenant_keeper *k = mem_zalloc(sizeof *k);
    *out = k;
    if (!k)
        return fail(err, STATUS_NO_MEMORY, "no memory for the tenants");
    k->server = s;
    k->last = &k->waiting;
    enum status st = s->conf->state ? read_store(k, err) : STATUS_OK;
    if (st == STATUS_OK && s->conf->tenants_file)
        st = begin_file(k, err);
    if (st == STATUS_OK && k->store)
        st = tenant_store_usage(k->store, &day, restore_day, k, err);
    if (st == STATUS_OK && tenants_closed(s->tenants))
        LOG_EVENT(&s->log, LOG_INFO, "requests need a key", LOG_NUMBER("tenants", tenants_count(s->tenants)),
                  LOG_NUMBER("keys", tenants_n_keys(s->tenants)));
    return st;
}

void tenant_keeper_destroy(struct tenant_keeper *k)
{
    if (!k)
        return;
    tenant_store_close(k->store);
    tenants_file_fini(&k->file);
    mem_free(k->gathering.rows);
    mem_free(k->writing.rows);
    mem_free(k->served.rows);
    mem_free(k->served_writing.rows);
    mem_free(k);
}
