/* Readers of changes. Each has the revision that it has seen; what is newer is read from the registry's
 * memory of changes, so nothing is queued for a reader, and one that comes back with Last-Event-ID goes on
 * where it was. One that was away too long is told to list everything again ("reset"). */
#include "admin_events.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "admin_reply.h"
#include "api.h"
#include "base/clock.h"
#include "base/mem.h"
#include "server.h"
#include "sse.h"

struct reader_stream {
    struct reader_stream *next;
    struct request *r;
    struct admin_events *events;
    uint64_t seen; /* revision */
    int64_t written_ns;
};

struct admin_events {
    struct server *server;
    struct reader_stream *readers;
    uv_timer_t soon;
};

static void on_soon(uv_timer_t *soon);

struct admin_events *admin_events_create(struct server *s)
{
    struct admin_events *e = mem_zalloc(sizeof *e);
    if (!e)
        return NULL;
    e->server = s;
    uv_timer_init(&s->loop, &e->soon);
    e->soon.data = e;
    return e;
}

static void drop(struct reader_stream *m)
{
    struct reader_stream **at = &m->events->readers;
    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    m->r->on_gone = NULL;
    request_release(m->r);
}

void admin_events_end(struct admin_events *e)
{
    while (e->readers) {
        struct reader_stream *m = e->readers;
        stream_end(m->r);
        drop(m);
    }
}

void admin_events_close(struct admin_events *e)
{
    if (!e)
        return;
    admin_events_end(e);
    uv_close((uv_handle_t *)&e->soon, NULL);
}

void admin_events_destroy(struct admin_events *e)
{
    mem_free(e);
}

static void each_change(const struct registry_change *c, void *data)
{
    struct buf *b = data;
    struct jw w = {.out = b};
    buf_printf(b, "event: %s\nid: %llu\ndata: ", change_name(c->kind), (unsigned long long)c->revision);
    put_change(&w, c);
    buf_puts(b, "\n\n");
}

/* False when the reader is gone. */
static bool send_new(struct reader_stream *m)
{
    struct registry *registry = m->events->server->registry;
    struct buf b;
    buf_init(&b, 0);
    if (!registry_changes(registry, m->seen, each_change, &b)) {
        buf_clear(&b);
        buf_printf(&b, "event: reset\nid: %llu\ndata: {\"revision\":%llu}\n\n",
                   (unsigned long long)registry_revision(registry),
                   (unsigned long long)registry_revision(registry));
    }
    m->seen = registry_revision(registry);
    m->written_ns = clock_now_ns();
    bool ok = b.length == 0 || sse_send(m->r, &b);
    buf_fini(&b);
    return ok;
}

static void on_soon(uv_timer_t *soon)
{
    struct admin_events *e = soon->data;
    for (struct reader_stream *m = e->readers, *next; m; m = next) {
        next = m->next;
        (void)send_new(m); /* one that is too slow has been cut off, and on_gone drops it */
    }
}

void admin_events_notify(struct admin_events *e)
{
    if (e->readers && !uv_is_closing((uv_handle_t *)&e->soon))
        uv_timer_start(&e->soon, on_soon, 0, 0);
}

void admin_events_tick(struct admin_events *e, int64_t now_ns)
{
    int64_t interval_ns = e->server->conf->ping_interval_ms * NS_PER_MS;
    for (struct reader_stream *m = e->readers, *next; m; m = next) {
        next = m->next;
        if (now_ns - m->written_ns < interval_ns)
            continue;
        m->written_ns = now_ns;
        (void)sse_ping(m->r);
    }
}

static void on_gone(struct request *r)
{
    drop(r->state);
}

void api_admin_events(struct request *r)
{
    struct server *s = r->server;
    const char *since = request_arg(r, "since");
    struct error err;
    char *end = NULL;
    if (server_serving(s, &err) != STATUS_OK) {
        admin_fail(r, err.status, err.text, NULL, NULL);
        return;
    }
    since = r->last_event_id ? r->last_event_id : since;
    struct reader_stream *m = arena_alloc(r->arena, sizeof *m);
    if (!m) {
        admin_fail(r, STATUS_NO_MEMORY, "no memory for the stream", NULL, NULL);
        return;
    }
    *m = (struct reader_stream){.r = r, .events = s->events, .seen = registry_revision(s->registry)};
    if (since)
        m->seen = strtoull(since, &end, 10);
    if (since && (end == since || *end)) {
        admin_fail(r, STATUS_INVALID, "since: expected a revision", "since", NULL);
        return;
    }
    request_hold(r);
    r->state = m;
    r->on_gone = on_gone;
    m->next = s->events->readers;
    s->events->readers = m;
    sse_begin(r, SSE_TYPE);
    if (sse_ping(r))
        (void)send_new(m);
}
