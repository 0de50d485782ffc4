/* What a model said, taken apart: reasoning, content, calls of tools. Bytes go in as they are generated; what
 * they are is known as soon as it can be, and waits here until a dialect shows it. One for each choice.
 * Front thread; no clocks, no requests. */
#ifndef LK_REPLY_H
#define LK_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* A call of a tool. */
struct reply_call {
    char id[40];          /* "call_…" */
    struct buf name;      /* complete when the call appears */
    struct buf arguments; /* JSON text not shown yet; a stream's pieces add up to the whole */
    bool shown;           /* a stream has begun with it */
};

struct reply {
    struct buf content, reasoning; /* not shown yet */
    struct reply_call *calls;      /* in the order in which they came; the last one may still grow */
    uint32_t n_calls;
};

void reply_init(struct reply *p);
void reply_fini(struct reply *p);
/* The next bytes; complete UTF-8 characters. */
void reply_push(struct reply *p, const char *text, size_t length);
/* Nothing follows: what was undecided is content. */
void reply_end(struct reply *p);
/* Something waits to be shown. */
bool reply_has_news(const struct reply *p);
bool reply_failed(const struct reply *p); /* memory was short: what is here isn't whole */

#endif
