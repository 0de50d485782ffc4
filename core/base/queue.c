/* The bounded mailbox: a ring under one mutex. A step sends a handful of messages, so a lock costs nothing
 * that can be measured, and its memory order needs no proof.
 *
 * Owner: both sides. Lock order: the queue's mutex is a leaf; `wake` is called after it is released. */
#include "base/queue.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/mem.h"

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t not_empty, not_full;
    unsigned char *ring;
    size_t message_bytes, limit, first, length;
    bool closed;
    void (*wake)(void *data);
    void *data;
};

struct queue *queue_create(size_t message_bytes, size_t limit, void (*wake)(void *data), void *data)
{
    require(message_bytes > 0 && limit > 0);
    struct queue *q = mem_zalloc(sizeof *q);
    if (!q)
        return NULL;
    *q = (struct queue){.message_bytes = message_bytes, .limit = limit, .wake = wake, .data = data};
    q->ring = mem_array(limit, message_bytes);
    pthread_condattr_t monotonic;
    if (!q->ring || pthread_condattr_init(&monotonic) != 0) {
        mem_free(q->ring);
        mem_free(q);
        return NULL;
    }
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->not_empty, &monotonic);
    pthread_cond_init(&q->not_full, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return q;
}

void queue_destroy(struct queue *q)
{
    if (!q)
        return;
    pthread_cond_destroy(&q->not_full);
    pthread_cond_destroy(&q->not_empty);
    pthread_mutex_destroy(&q->lock);
    mem_free(q->ring);
    mem_free(q);
}

static bool put(struct queue *q, const void *message, bool wait)
{
    pthread_mutex_lock(&q->lock);
    while (wait && q->length == q->limit && !q->closed)
        pthread_cond_wait(&q->not_full, &q->lock);
    bool ok = !q->closed && q->length < q->limit;
    bool was_empty = q->length == 0;
    if (ok) {
        size_t slot = (q->first + q->length) % q->limit;
        memcpy(q->ring + slot * q->message_bytes, message, q->message_bytes);
        q->length++;
        pthread_cond_signal(&q->not_empty);
    }
    pthread_mutex_unlock(&q->lock);
    if (ok && was_empty && q->wake)
        q->wake(q->data);
    return ok;
}

bool queue_put(struct queue *q, const void *message)
{
    return put(q, message, false);
}

bool queue_put_wait(struct queue *q, const void *message)
{
    return put(q, message, true);
}

/* Call with the lock held and something inside. */
static void take_first(struct queue *q, void *message)
{
    memcpy(message, q->ring + q->first * q->message_bytes, q->message_bytes);
    q->first = (q->first + 1) % q->limit;
    q->length--;
    pthread_cond_signal(&q->not_full);
}

bool queue_get(struct queue *q, void *message)
{
    return queue_get_wait(q, message, 0);
}

bool queue_get_wait(struct queue *q, void *message, int64_t timeout_ns)
{
    int64_t deadline_ns = timeout_ns > 0 ? clock_now_ns() + timeout_ns : 0;
    struct timespec deadline = {.tv_sec = deadline_ns / NS_PER_S, .tv_nsec = deadline_ns % NS_PER_S};
    pthread_mutex_lock(&q->lock);
    int waited = 0;
    while (q->length == 0 && !q->closed && timeout_ns != 0 && waited == 0) {
        if (timeout_ns < 0)
            pthread_cond_wait(&q->not_empty, &q->lock);
        else
            waited = pthread_cond_timedwait(&q->not_empty, &q->lock, &deadline);
    }
    bool ok = q->length > 0;
    if (ok)
        take_first(q, message);
    pthread_mutex_unlock(&q->lock);
    return ok;
}

void queue_close(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_cond_broadcast(&q->not_empty);
    pthread_cond_broadcast(&q->not_full);
    pthread_mutex_unlock(&q->lock);
}

size_t queue_length(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    size_t n = q->length;
    pthread_mutex_unlock(&q->lock);
    return n;
}
