/* Events of the engine to whom they belong. Messages carry ids, never pointers; the table from id to sink is
 * here, on the front thread, so nothing is shared. */
#include "bridge.h"

#include "base/mem.h"
#include "server.h"

#define N_BUCKETS 1024U
#define EVENTS_A_TURN                                                                                        \
    512 /* an engine that is quicker than this thread must not keep it from its connections */

struct bridge {
    struct server *server;
    uv_async_t async;
    size_t n_open;
    struct sink *buckets[N_BUCKETS];
};

static void on_async(uv_async_t *a)
{
    bridge_drain(a->data);
}

struct bridge *bridge_create(struct server *s)
{
    struct bridge *b = mem_zalloc(sizeof *b);
    if (!b)
        return NULL;
    b->server = s;
    if (uv_async_init(&s->loop, &b->async, on_async) != 0) {
        mem_free(b);
        return NULL;
    }
    b->async.data = b;
    return b;
}

void bridge_wake(void *data)
{
    struct bridge *b = data;
    uv_async_send(&b->async);
}

enum status bridge_submit(struct bridge *b, const struct generation *g, struct sink *sink, struct error *err)
{
    if (!b->server->engine)
        return fail(err, STATUS_UNAVAILABLE, "the server is stopping");
    enum status s = engine_submit(b->server->engine, g, &sink->id, err);
    if (s != STATUS_OK)
        return s;
    struct sink **bucket = &b->buckets[sink->id % N_BUCKETS];
    sink->next = *bucket;
    *bucket = sink;
    b->n_open++;
    return STATUS_OK;
}

void bridge_cancel(struct bridge *b, const struct sink *sink)
{
    if (b->server->engine)
        engine_cancel(b->server->engine, sink->id);
}

static struct sink **find(struct bridge *b, uint64_t id)
{
    struct sink **at = &b->buckets[id % N_BUCKETS];
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

void bridge_drain(struct bridge *b)
{
    struct event e;
    int n = 0;
    while (n < EVENTS_A_TURN && b->server->engine && engine_poll(b->server->engine, &e)) {
        struct sink **at = find(b, e.id), *sink = *at;
        require(sink); /* the engine's contract: nothing comes after the final event */
        if (e.kind == EVENT_DONE || e.kind == EVENT_FAILED) {
            *at = sink->next;
            b->n_open--;
        }
        sink->on_event(sink, &e);
        n++;
    }
    if (n == EVENTS_A_TURN)
        bridge_wake(b);
}

size_t bridge_n_open(const struct bridge *b)
{
    return b->n_open;
}

static void on_closed(uv_handle_t *h)
{
    mem_free(h->data);
}

void bridge_close(struct bridge *b)
{
    if (b)
        uv_close((uv_handle_t *)&b->async, on_closed);
}
