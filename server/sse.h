/* Server-sent events: how a stream of JSON values is framed. */
#ifndef LK_SSE_H
#define LK_SSE_H

#include "base/buf.h"
#include "request.h"

/* A frame around one JSON value in `b`: begin, write the value, end. Pure. */
void sse_frame_begin(struct buf *b);
void sse_frame_end(struct buf *b);
/* The same frame with an event's name before it. Pure. */
void sse_event_begin(struct buf *b, const char *event);

#define SSE_TYPE "text/event-stream"
#define SSE_PING ": ping\n\n" /* a comment: keeps proxies patient and finds dead peers */

/* Status 200 and the headers that proxies need; other streams than events have another type. */
void sse_begin(struct request *r, const char *type);
bool sse_send(struct request *r, const struct buf *frames);
bool sse_ping(struct request *r);

#endif
