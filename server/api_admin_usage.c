/* GET /admin/v1/usage and /admin/v1/audit: read from the state file by a worker, behind what is being
 * written. */
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
#define DAY_MS INT64_C(86400000)

/* One question. In the request's memory, which it holds. */
struct question {
    struct keep_job job; /* first */
    struct request *r;
    struct usage_query usage;
    int64_t before; /* of the log of changes */
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

static enum status read_usage(struct keep_job *j, struct tenant_store *store, struct error *err)
{
    struct question *q = (struct question *)j;
    if (q->csv)
        buf_puts(&q->out, "hour,tenant,key,voice,version,requests,tokens_in,tokens_out,tokens_cached\r\n");
    else
        buf_puts(&q->out, "{\"object\":\"list\",\"data\":[");
    enum status s = tenant_store_usage(store, &q->usage, put_row, q, err);
    if (!q->csv)
        buf_printf(&q->out, "],\"more\":%s}", q->n == q->usage.limit ? "true" : "false");
    return s;
}

void api_usage(struct request *r)
{
    struct question *q = make_question(r);
    const char *format = request_arg(r, "format");
    if (!q)
        return;
    q->usage = (struct usage_query){.tenant = request_arg(r, "tenant"),
                                    .from_ms = clock_wall_ms() - 31 * DAY_MS,
                                    .to_ms = INT64_MAX,
                                    .limit = USAGE_LIMIT};
    if (!time_arg(r, "from", &q->usage.from_ms) || !time_arg(r, "to", &q->usage.to_ms))
        return;
    if (format && strcmp(format, "csv") != 0 && strcmp(format, "json") != 0) {
        admin_fail(r, STATUS_INVALID, "format: expected json or csv", "format", NULL);
        return;
    }
    q->csv = format ? strcmp(format, "csv") == 0 : r->accept && strstr(r->accept, "text/csv");
    begin(q, read_usage);
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
    const char *before = request_arg(r, "before"), *limit = request_arg(r, "limit");
    if (!q)
        return;
    q->before = before ? strtoll(before, NULL, 10) : INT64_MAX;
    long n = limit ? strtol(limit, NULL, 10) : 100;
    if (q->before < 1 || n < 1 || n > (long)AUDIT_LIMIT) {
        admin_fail(r, STATUS_INVALID, "before and limit: expected a line's id, and at most 1000 lines",
                   "limit", NULL);
        return;
    }
    q->limit = (uint32_t)n;
    begin(q, read_changes);
}
