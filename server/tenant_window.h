/* How much was taken in the last minute or day: a sliding window in parts. In no stretch of the span's length
 * is more than the limit taken; a part is forgotten when it is wholly older than that. What was reserved and
 * wasn't needed is given back to the part that it was taken in. Pure: the caller's clock. */
#ifndef LK_TENANT_WINDOW_H
#define LK_TENANT_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#define WINDOW_PARTS 60

struct window {
    uint64_t limit; /* LIMIT_NONE (tenant_spec.h): none */
    int64_t part_ns;
    int64_t newest; /* number of the newest part: its time / part_ns */
    uint64_t sum;
    uint64_t parts[WINDOW_PARTS + 1]; /* by number modulo their count */
};

void window_init(struct window *w, uint64_t limit, int64_t span_ns);
/* What may be taken at once. */
uint64_t window_room(struct window *w, int64_t now_ns);
/* Takes n, whether there is room or not. */
void window_take(struct window *w, uint64_t n, int64_t now_ns);
/* Counts n that was taken at at_ns, before this window was made; what is older than the span isn't counted.
 */
void window_restore(struct window *w, uint64_t n, int64_t at_ns, int64_t now_ns);
/* Gives n of what was taken at at_ns back. */
void window_give(struct window *w, uint64_t n, int64_t at_ns, int64_t now_ns);
/* How long until n may be taken if nobody else takes any; -1: never. */
int64_t window_wait_ns(struct window *w, uint64_t n, int64_t now_ns);
/* How long until all of the limit is there again. */
int64_t window_reset_ns(struct window *w, int64_t now_ns);

#endif
