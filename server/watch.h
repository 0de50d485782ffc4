/* The watched folder: says that adapters in it have come, changed or gone, once they are whole.
 *
 * Changes are noticed by inotify on the folder and on each adapter's own, and by a look from time to time,
 * which is all that a network file system offers. A change is told when it has come to rest: nothing happened
 * for half a second (five at most, if something always happens), two looks saw the same files, and their
 * headers say that none is cut short. Something that stays incomplete for ten seconds is told too, so that
 * the load says what is wrong with it. Names that begin with '.' or end in .tmp, .part or ~ don't count.
 *
 * Owner: front thread. Looks run on a worker. */
#ifndef LK_WATCH_H
#define LK_WATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"

struct log;
struct watch;

struct watch_options {
    const char *dir; /* copied */
    const struct log *log;
    uint32_t poll_ms;              /* between looks without an event; 0: none */
    uint32_t quiet_ms;             /* 0: 500 */
    uint32_t patience_ms;          /* for what stays incomplete; 0: 10000 */
    uint32_t watches_max;          /* of adapters' own folders; 0: as many as the system gives */
    void (*on_change)(void *data); /* from the loop, never from inside watch_create */
    void *data;
};

/* What is there now counts as known, unless it changed within the last seconds. Create it before the first
 * scan, so that nothing falls between. */
LK_MUST_USE enum status watch_create(uv_loop_t *loop, const struct watch_options *o, struct watch **out,
                                     struct error *err);
/* No call follows; the memory goes once the loop has let go of the handles. NULL is fine. */
void watch_close(struct watch *w);

/* False: this entry ("pt", "pt.gguf") is being written; a scan leaves it for a later on_change. True for what
 * the watch doesn't know; NULL is fine. */
bool watch_is_settled(const struct watch *w, const char *entry);
/* Handles of adapters' own folders that are watched: for tests. */
size_t watch_n_watched(const struct watch *w);

#endif
