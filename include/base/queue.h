/* A bounded mailbox of fixed-size messages between threads: the only thing that threads share besides
 * immutable data. A put into a full queue is refused, never blocked; the caller maps that to "try later".
 * Wake-ups coalesce: the reader must drain the queue at each. Thread: any number of writers and readers. */
#ifndef LK_BASE_QUEUE_H
#define LK_BASE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct queue;

/* limit: messages that fit. wake (may be NULL) is called by the putting thread after a put into an empty
 * queue. */
struct queue *queue_create(size_t message_bytes, size_t limit, void (*wake)(void *data), void *data);
void queue_destroy(struct queue *q);

bool queue_put(struct queue *q, const void *message);      /* copies; false when full or closed */
bool queue_put_wait(struct queue *q, const void *message); /* waits for room; false only when closed */
bool queue_get(struct queue *q, void *message);            /* false when empty */
/* Waits until a message is there, the queue is closed, or timeout_ns passed (negative: no limit). */
bool queue_get_wait(struct queue *q, void *message, int64_t timeout_ns);
void queue_close(
    struct queue *q); /* later puts are refused, waiters return; what is inside can still be got */
size_t queue_length(struct queue *q);

#endif
