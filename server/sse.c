/* Server-sent events (WHATWG HTML, section 9.2): "data: VALUE", an empty line. JSON values hold no raw line
 * breaks, so one line is enough. */
#include "sse.h"

void sse_frame_begin(struct buf *b)
{
    buf_puts(b, "data: ");
}

void sse_event_begin(struct buf *b, const char *event)
{
    buf_printf(b, "event: %s\ndata: ", event);
}

void sse_frame_end(struct buf *b)
{
    buf_puts(b, "\n\n");
}

void sse_begin(struct request *r, const char *type)
{
    reply_header(r, "Cache-Control", "no-store");
    reply_header(r, "X-Accel-Buffering", "no"); /* nginx would hold the stream back */
    stream_begin(r, 200, type);
}

bool sse_send(struct request *r, const struct buf *frames)
{
    return stream_write(r, frames->data, frames->length);
}

bool sse_ping(struct request *r)
{
    return stream_write(r, SSE_PING, sizeof SSE_PING - 1);
}
