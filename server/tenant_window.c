#include "tenant_window.h"

#include <string.h>

#define N_PARTS                                                                                              \
    (WINDOW_PARTS + 1) /* one more than the span has: the newest and the oldest are only in part in it */

void window_init(struct window *w, uint64_t limit, int64_t span_ns)
{
    *w = (struct window){.limit = limit, .part_ns = span_ns / WINDOW_PARTS};
}

static uint64_t *part(struct window *w, int64_t number)
{
    return &w->parts[number % N_PARTS];
}

/* Numbers are above 0 for times since two spans before the clock's beginning: a machine may have started just
 * now.
 */
static int64_t number_of(const struct window *w, int64_t ns)
{
    return (ns + 2 * N_PARTS * w->part_ns) / w->part_ns;
}

/* When part `number` is forgotten. */
static int64_t forgotten_ns(const struct window *w, int64_t number)
{
    return (number - N_PARTS) * w->part_ns;
}

static void roll(struct window *w, int64_t now_ns)
{
    int64_t now = number_of(w, now_ns);
    if (now - w->newest > N_PARTS) {
        memset(w->parts, 0, sizeof w->parts);
        w->sum = 0;
        w->newest = now;
    }
    while (w->newest < now) {
        uint64_t *oldest = part(w, ++w->newest);
        w->sum -= *oldest;
        *oldest = 0;
    }
}

uint64_t window_room(struct window *w, int64_t now_ns)
{
    roll(w, now_ns);
    return w->sum < w->limit ? w->limit - w->sum : 0;
}

void window_take(struct window *w, uint64_t n, int64_t now_ns)
{
    roll(w, now_ns);
    *part(w, w->newest) += n;
    w->sum += n;
}

void window_restore(struct window *w, uint64_t n, int64_t at_ns, int64_t now_ns)
{
    roll(w, now_ns);
    if (at_ns < now_ns - WINDOW_PARTS * w->part_ns || at_ns > now_ns)
        return;
    *part(w, number_of(w, at_ns)) += n;
    w->sum += n;
}

void window_give(struct window *w, uint64_t n, int64_t at_ns, int64_t now_ns)
{
    int64_t at = number_of(w, at_ns);
    roll(w, now_ns);
    if (at > w->newest || w->newest - at >= N_PARTS)
        return; /* forgotten meanwhile */
    uint64_t *p = part(w, at);
    n = n < *p ? n : *p;
    *p -= n;
    w->sum -= n;
}

int64_t window_wait_ns(struct window *w, uint64_t n, int64_t now_ns)
{
    uint64_t room = window_room(w, now_ns);
    if (n > w->limit)
        return -1;
    for (int64_t i = w->newest - WINDOW_PARTS; i <= w->newest && room < n; i++) {
        room += *part(w, i);
        if (room >= n)
            return forgotten_ns(w, i) - now_ns;
    }
    return 0;
}

int64_t window_reset_ns(struct window *w, int64_t now_ns)
{
    roll(w, now_ns);
    for (int64_t i = w->newest; i >= w->newest - WINDOW_PARTS; i--)
        if (*part(w, i))
            return forgotten_ns(w, i) - now_ns;
    return 0;
}
