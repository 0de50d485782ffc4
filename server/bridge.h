/* Between the engine's thread and the loop: events come over by an async handle and go to the sink that waits
 * for their id. Owner: front thread. */
#ifndef LK_BRIDGE_H
#define LK_BRIDGE_H

#include <stdint.h>

#include "base/error.h"
#include "engine.h"

struct server;
struct bridge;

/* Something that waits for the events of one generation; embedded in its owner, which must keep it until the
 * final event (EVENT_DONE or EVENT_FAILED) has been handed over. */
struct sink {
    struct sink *next;
    uint64_t id;
    void (*on_event)(struct sink *sink, const struct event *e);
};

struct bridge *bridge_create(struct server *s);
/* For engine_create: wakes the loop. Thread: any. `data` is the bridge. */
void bridge_wake(void *data);
LK_MUST_USE enum status bridge_submit(struct bridge *b, const struct generation *g, struct sink *sink,
                                      struct error *err);
void bridge_cancel(struct bridge *b, const struct sink *sink);
/* Hands over what waits, or as much of it as fits into one turn of the loop. */
void bridge_drain(struct bridge *b);
size_t bridge_n_open(const struct bridge *b);
/* Closes the handle; the memory goes when the loop has closed it. */
void bridge_close(struct bridge *b);

#endif
