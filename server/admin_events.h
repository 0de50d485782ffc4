/* GET /admin/v1/events: the registry's changes as server-sent events. Owner: front thread. */
#ifndef LK_ADMIN_EVENTS_H
#define LK_ADMIN_EVENTS_H

#include <stdint.h>

struct server;
struct admin_events;

struct admin_events *admin_events_create(struct server *s);
/* Ends the streams: their readers go on elsewhere, with Last-Event-ID. They would never end by themselves. */
void admin_events_end(struct admin_events *e);
void admin_events_close(struct admin_events *e);   /* ends the streams and closes its handle */
void admin_events_destroy(struct admin_events *e); /* when the loop has closed the handle; NULL is fine */
/* Something has changed; readers hear of it in the loop's next turn. */
void admin_events_notify(struct admin_events *e);
/* Once a second: keeps silent streams alive. */
void admin_events_tick(struct admin_events *e, int64_t now_ns);

#endif
