/* GET /admin/v1/usage, /admin/v1/served and /admin/v1/audit: read from the state file by a worker, behind
 * what is being written. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin_reply.h"
#include "api.h"
#include "base/clock.h"
#include "server.h"
#include "tenant_keeper.h"

#define USAGE_LIMIT 100000U
#define AUDIT_LIMIT 1000U
#define SERVED_LIMIT 100000U
#define DAY_MS INT64_C(86400000)

/* One question. In the request's memory, which it holds. */
struct question {
    struct keep_job job; /* first */
    struct request *r;
    struct usage_query usage;
    struct served_query served;
    int64_t before; /* of the log of changes */
    int64_t last;   /* id of the last line that was written */
    uint32_t limit, n;
    bool csv;
    struct buf out;
    struct jw w;
};

/* A query's number of seconds since 1970, or a time as 2026-11-26T12:00:00Z or 2026-11-26, in milliseconds.
 * False: it was refused. */
static bool time_arg(struct request *r, const char *name, int64_t *out_ms)
{
    const char *text = request_arg(r, name), *end = NULL;
    struct tm tm = {0};
    char *stop;
    char message[160];
    if (!text)
        return true;
    long long seconds = strtoll(text, &stop, 10);
    if (text[0] && !*stop && llabs(seconds) < INT64_MAX / 2000) {
        *out_ms = seconds * 1000;
        return true;
    }
    if (!(end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm)) || *end) {
        tm = (struct tm){0};
        end = strptime(text, "%Y-%m-%d", &tm);
    }
    if (end && !*end) {
        *out_ms = (int64_t)timegm(&tm) * 1000;
        return true;
    }
    snprintf(message, sizeof message,
             "%s: found \"%.40s\", expected seconds since 1970, or a time as 2026-11-26T12:00:00Z", name,
             text);
    admin_fail(r, STATUS_INVALID, message, name, NULL);
    return false;
}

static void free_out(void *data)
{
    struct question *q = data;
    buf_fini(&q->out);
}

static struct question *make_question(struct request *r)
{
    struct question *q = arena_alloc(r->arena, sizeof *q);
    if (!q || arena_on_end(r->arena, free_out, q) != 0) {
        admin_fail(r, STATUS_NO_MEMORY, "no memory for the request", NULL, NULL);
        return NULL;
    }
    q->r = r;
    buf_init(&q->out, 64U << 20);
    q->w = (struct jw){.out = &q->out};
    return q;
}

static void answer(struct keep_job *j, const struct error *err)
{
    struct question *q = (struct question *)j;
    struct request *r = q->r;
    if (err)
        admin_fail(r, err->status, err->text, NULL, err->status == STATUS_UNSUPPORTED ? "no_state" : NULL);
    else if (q->out.failed)
        admin_fail(r, STATUS_TOO_LARGE, "the answer is too long; ask for less time at once", NULL, NULL);
    else
        reply_take(r, 200, q->csv ? "text/csv; charset=utf-8" : "application/json", &q->out);
    request_release(r);
}

static void begin(struct question *q,
                  enum status (*work)(struct keep_job *j, struct tenant_store *store, struct error *err))
{
    struct tenant_keeper *k = q->r->server->tenant_keeper;
    q->job = (struct keep_job){.work = work, .done = answer};
    request_hold(q->r);
    tenant_keeper_tick(k, clock_now_ns(), true); /* what was used until now is in the answer */
    tenant_keeper_do(k, &q->job);
}

/* ---- usage ---- */

static void put_time(char dst[32], int64_t ms)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    if (!gmtime_r(&seconds, &tm) || !strftime(dst, 32, "%Y-%m-%dT%H:%M:%SZ", &tm))
        dst[0] = '\0';
}

/* Names hold no commas and no quotes, but the file may be somebody's work. A field that a spreadsheet would
 * take for a formula begins with a quote. */
static void put_field(struct buf *out, const char *text)
{
    buf_puts(out, strchr("=+-@", text[0]) && text[0] ? "\"'" : "\"");
    for (; *text; text++) {
        if (*text == '"')
            buf_putc(out, '"');
        buf_putc(out, *text);
    }
    buf_puts(out, "\",");
}

static void put_row(const struct usage_row *u, void *data)
{
    struct question *q = data;
    struct jw *w = &q->w;
    char hour[32];
    put_time(hour, u->hour_ms);
    q->n++;
    if (q->csv) {
        buf_printf(&q->out, "%s,", hour);
        put_field(&q->out, u->tenant);
        put_field(&q->out, u->key);
        put_field(&q->out, u->voice);
        put_field(&q->out, u->version);
        buf_printf(&q->out, "%llu,%llu,%llu,%llu\r\n", (unsigned long long)u->n_requests,
                   (unsigned long long)u->n_in, (unsigned long long)u->n_out,
                   (unsigned long long)u->n_cached);
        return;
    }
    jw_begin(w, '{');
    jw_key_text(w, "hour", hour);
    jw_key_text(w, "tenant", u->tenant);
    jw_key_text(w, "key", u->key);
    jw_key_text(w, "voice", u->voice);
    jw_key_text(w, "version", u->version);
    jw_key_int(w, "requests", (int64_t)u->n_requests);
    jw_key_int(w, "tokens_in", (int64_t)u->n_in);
    jw_key_int(w, "tokens_out", (int64_t)u->n_out);
    jw_key_int(w, "tokens_cached", (int64_t)u->n_cached);
    jw_end(w, '}');
}

static void begin_list(struct question *q, const char *columns)
{
    buf_puts(&q->out, q->csv ? columns : "{\"object\":\"list\",\"data\":[");
}

static void end_list(struct question *q, uint32_t limit)
{
    if (!q->csv)
        buf_printf(&q->out, "],\"more\":%s}", q->n == limit ? "true" : "false");
}

static const char usage_columns[] =
    "hour,tenant,key,voice,version,requests,tokens_in,tokens_out,tokens_cached\r\n";

static enum status read_usage(struct keep_job *j, struct tenant_store *store, struct error *err)
{
    struct question *q = (struct question *)j;
    begin_list(q, usage_columns);
    enum status s = tenant_store_usage(store, &q->usage, put_row, q, err);
    end_list(q, q->usage.limit);
    return s;
}

/* Without a state file: what this server has counted since its start. */
static void answer_from_memory(struct question *q)
{
    struct error err;
    begin_list(q, usage_columns);
    enum status s = tenant_keeper_usage(q->r->server->tenant_keeper, &q->usage, put_row, q, &err);
    end_list(q, q->usage.limit);
    request_hold(q->r);
    answer(&q->job, s == STATUS_OK ? NULL : &err);
}

/* ?format=, or the header Accept. False: it was refused. */
static bool format_arg(struct question *q)
{
    const char *format = request_arg(q->r, "format"), *accept = q->r->accept;
    q->csv = format ? strcmp(format, "csv") == 0 : accept && strstr(accept, "text/csv");
    if (!format || q->csv || strcmp(format, "json") == 0)
        return true;
    admin_fail(q->r, STATUS_INVALID, "format: expected json or csv", "format", NULL);
    return false;
}

void api_usage(struct request *r)
{
    struct question *q = make_question(r);
    if (!q)
        return;
    q->usage = (struct usage_query){.tenant = request_arg(r, "tenant"),
                                    .from_ms = clock_wall_ms() - 31 * DAY_MS,
                                    .to_ms = INT64_MAX,
                                    .limit = USAGE_LIMIT};
    if (!time_arg(r, "from", &q->usage.from_ms) || !time_arg(r, "to", &q->usage.to_ms) || !format_arg(q))
        return;
    if (tenant_keeper_keeps(r->server->tenant_keeper))
        begin(q, read_usage);
    else
        answer_from_memory(q);
}

/* ---- what was served ---- */

static void put_served(const struct served_row *s, void *data)
{
    struct question *q = data;
    struct jw *w = &q->w;
    char at[32];
    const char *texts[] = {s->request, s->tenant, s->key, s->client, s->voice, s->version, s->digest};
    static const char *const names[] = {"request", "tenant", "key", "client", "voice", "version", "digest"};
    put_time(at, s->at_ms);
    q->n++;
    q->last = s->id;
    if (q->csv)
        buf_printf(&q->out, "%lld,%s,", (long long)s->id, at);
    for (int i = 0; i < 7 && q->csv; i++)
        put_field(&q->out, texts[i]);
    if (q->csv) {
        buf_printf(&q->out, "%lld,%llu,%llu\r\n", (long long)s->status, (unsigned long long)s->n_in,
                   (unsigned long long)s->n_out);
        return;
    }
    jw_begin(w, '{');
    jw_key_int(w, "id", s->id);
    jw_key_text(w, "at", at);
    for (int i = 0; i < 7; i++)
        jw_key_text(w, names[i], texts[i]);
    jw_key_int(w, "status", s->status);
    jw_key_int(w, "tokens_in", (int64_t)s->n_in);
    jw_key_int(w, "tokens_out", (int64_t)s->n_out);
    jw_end(w, '}');
}

static enum status read_served(struct keep_job *j, struct tenant_store *store, struct error *err)
{
    struct question *q = (struct question *)j;
    begin_list(q, "id,at,request,tenant,key,client,voice,version,digest,status,tokens_in,tokens_out\r\n");
    enum status s = tenant_store_served(store, &q->served, put_served, q, err);
    if (!q->csv)
        buf_printf(&q->out, "],\"more\":%s,\"before\":%lld}", q->n == q->served.limit ? "true" : "false",
                   (long long)q->last);
    return s;
}

/* A whole number from 1 to `most`. False: it was refused. */
static bool number_arg(struct request *r, const char *name, int64_t most, int64_t *out)
{
    const char *text = request_arg(r, name);
    char message[120], *end;
    if (!text)
        return true;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (errno == 0 && text[0] >= '0' && text[0] <= '9' && !*end && n >= 1 && n <= most) {
        *out = n;
        return true;
    }
    snprintf(message, sizeof message, "%s: found \"%.30s\", expected a whole number from 1 to %lld", name,
             text, (long long)most);
    admin_fail(r, STATUS_INVALID, message, name, NULL);
    return false;
}

void api_served(struct request *r)
{
    struct question *q = make_question(r);
    if (!q)
        return;
    q->served = (struct served_query){.tenant = request_arg(r, "tenant"),
                                      .key = request_arg(r, "key"),
                                      .voice = request_arg(r, "voice"),
                                      .version = request_arg(r, "version"),
                                      .request = request_arg(r, "request"),
                                      .to_ms = INT64_MAX,
                                      .before = INT64_MAX};
    if (!format_arg(q) || !time_arg(r, "from", &q->served.from_ms) || !time_arg(r, "to", &q->served.to_ms))
        return;
    int64_t limit = q->csv ? 10000 : 100;
    if (!number_arg(r, "before", INT64_MAX, &q->served.before) ||
        !number_arg(r, "limit", SERVED_LIMIT, &limit))
        return;
    q->served.limit = (uint32_t)limit;
    if (r->server->conf->served_rows)
        begin(q, read_served);
    else
        admin_fail(r, STATUS_UNSUPPORTED,
                   "what was served isn't kept: start the server with --served-log N and --state FILE", NULL,
                   "no_served_log");
}

/* ---- the log of changes ---- */

static void put_line(const struct change_line *l, void *data)
{
    struct question *q = data;
    struct jw *w = &q->w;
    char at[32];
    put_time(at, l->wall_ms);
    jw_begin(w, '{');
    jw_key_int(w, "id", l->id);
    jw_key_text(w, "at", at);
    jw_key_text(w, "operation", l->operation);
    jw_key_text(w, "object", l->object);
    jw_key_text(w, "outcome", l->outcome);
    jw_key_text(w, "by", l->by);
    jw_end(w, '}');
}

static enum status read_changes(struct keep_job *j, struct tenant_store *store, struct error *err)
{
    struct question *q = (struct question *)j;
    buf_puts(&q->out, "{\"object\":\"list\",\"data\":[");
    enum status s = tenant_store_changes(store, q->before, q->limit, put_line, q, err);
    buf_puts(&q->out, "]}");
    return s;
}

void api_audit(struct request *r)
{
    struct question *q = make_question(r);
    int64_t limit = 100;
    if (!q)
        return;
    q->before = INT64_MAX;
    if (!number_arg(r, "before", INT64_MAX, &q->before) || !number_arg(r, "limit", AUDIT_LIMIT, &limit))
        return;
    q->limit = (uint32_t)limit;
    begin(q, read_changes);
}
