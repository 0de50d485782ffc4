/* Answers: what handlers write goes into the exchange's buffer, and the library pulls it out when the socket
 * has room. An empty buffer suspends the connection; a stream whose reader is too far behind is cut. */
#include <microhttpd.h>
#include <string.h>

#include "base/clock.h"
#include "http_exchange.h"

void reply_header(struct request *r, const char *name, const char *value)
{
    struct exchange *x = (struct exchange *)r;
    for (const char *p = value; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return;
    struct header *h = arena_alloc(r->arena, sizeof *h);
    if (!h)
        return;
    *h = (struct header){
        .next = x->headers, .name = arena_strdup(r->arena, name), .value = arena_strdup(r->arena, value)};
    if (h->name && h->value)
        x->headers = h;
}

static bool begin(struct exchange *x, int status, const char *type)
{
    require(!x->begun);
    x->begun = true;
    x->r.status = status;
    x->type = type;
    return !x->r.gone;
}

void reply_take(struct request *r, int status, const char *type, struct buf *body)
{
    struct exchange *x = (struct exchange *)r;
    bool wanted = begin(x, status, type);
    x->ended = true;
    if (!wanted)
        return;
    size_t n;
    if (body->length) {
        x->out.length = body->length;
        x->out.data = buf_take(body, &n);
        x->out.capacity = n + 1;
    }
    exchange_resume(x);
}

void reply_send(struct request *r, int status, const char *type, const char *body, size_t length)
{
    struct exchange *x = (struct exchange *)r;
    bool wanted = begin(x, status, type);
    x->ended = true;
    if (!wanted)
        return;
    if (length && !buf_append(&x->out, body, length))
        x->r.status = 503;
    exchange_resume(x);
}

void stream_begin(struct request *r, int status, const char *type)
{
    struct exchange *x = (struct exchange *)r;
    x->streaming = true;
    if (begin(x, status, type))
        exchange_resume(x);
}

size_t stream_backlog(const struct request *r)
{
    const struct exchange *x = (const struct exchange *)r;
    return x->out.length - x->out_begin;
}

bool stream_write(struct request *r, const void *data, size_t length)
{
    struct exchange *x = (struct exchange *)r;
    require(x->streaming && !x->ended);
    if (r->gone)
        return false;
    if (stream_backlog(r) == 0) {
        buf_clear(&x->out);
        x->out_begin = 0;
        x->progress_ns = clock_now_ns();
    }
    if (stream_backlog(r) + length > x->http->o.output_bytes_hard || !buf_append(&x->out, data, length)) {
        x->aborted = true;
        exchange_gone(x);
        exchange_resume(x);
        return false;
    }
    exchange_resume(x);
    return true;
}

void stream_end(struct request *r)
{
    struct exchange *x = (struct exchange *)r;
    x->ended = true;
    if (!r->gone)
        exchange_resume(x);
}

/* The library wants the next bytes of an answer. */
static ssize_t read_answer(void *cls, uint64_t pos, char *dst, size_t max)
{
    (void)pos;
    struct exchange *x = cls;
    if (x->aborted || (x->r.gone && !x->ended))
        return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t n = x->out.length - x->out_begin;
    x->progress_ns = clock_now_ns();
    if (n == 0) {
        if (x->ended)
            return MHD_CONTENT_READER_END_OF_STREAM;
        exchange_suspend(x);
        return 0;
    }
    if (n > max)
        n = max;
    memcpy(dst, x->out.data + x->out_begin, n);
    x->out_begin += n;
    if (x->streaming && x->out_begin > 16384) {
        buf_drop_front(&x->out, x->out_begin);
        x->out_begin = 0;
    }
    return (ssize_t)n;
}

static void add_headers(struct exchange *x, struct MHD_Response *response)
{
    if (x->type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, x->type);
    MHD_add_response_header(response, "X-Request-Id", x->r.id);
    for (const struct header *h = x->headers; h; h = h->next)
        MHD_add_response_header(response, h->name, h->value);
    if (x->http->closing || x->policy.close)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
}

/* Hands the begun answer to the library. Only inside the request callback. */
bool answer_queue(struct exchange *x)
{
    struct MHD_Response *response;
    uint64_t size = x->streaming ? MHD_SIZE_UNKNOWN : x->out.length;
    if (size == 0)
        response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    else
        response = MHD_create_response_from_callback(size, 16384, read_answer, x, NULL);
    if (!response)
        return false;
    add_headers(x, response);
    x->phase = PHASE_REPLYING;
    x->progress_ns = clock_now_ns();
    enum MHD_Result ok = MHD_queue_response(x->conn->mhd, (unsigned)x->r.status, response);
    MHD_destroy_response(response);
    return ok == MHD_YES;
}
