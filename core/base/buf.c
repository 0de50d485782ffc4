/* The growing byte buffer. Capacity doubles; one byte is always kept for the NUL. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

/* What an empty buffer's data points to, so that it is never NULL; never written. */
static char nothing[1];

void buf_init(struct buf *b, size_t limit_bytes)
{
    *b = (struct buf){.data = nothing, .limit_bytes = limit_bytes};
}

void buf_fini(struct buf *b)
{
    if (b->capacity)
        mem_free(b->data);
    buf_init(b, b->limit_bytes);
}

void buf_clear(struct buf *b)
{
    b->length = 0;
    b->failed = false;
    if (b->capacity)
        b->data[0] = '\0';
}

bool buf_reserve(struct buf *b, size_t extra_bytes)
{
    size_t need;
    if (!size_add(b->length, extra_bytes, &need) || need == SIZE_MAX ||
        (b->limit_bytes && need > b->limit_bytes)) {
        b->failed = true;
        return false;
    }
    if (need + 1 <= b->capacity)
        return true;
    size_t capacity = b->capacity < SIZE_MAX / 2 ? b->capacity * 2 : SIZE_MAX;
    if (capacity < need + 1)
        capacity = need + 1;
    if (capacity < 64)
        capacity = 64;
    char *data = mem_realloc(b->capacity ? b->data : NULL, capacity);
    if (!data) {
        b->failed = true;
        return false;
    }
    data[b->length] = '\0';
    b->data = data;
    b->capacity = capacity;
    return true;
}

bool buf_append(struct buf *b, const void *data, size_t length)
{
    if (!buf_reserve(b, length))
        return false;
    if (length)
        memcpy(b->data + b->length, data, length);
    b->length += length;
    b->data[b->length] = '\0';
    return true;
}

bool buf_puts(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

bool buf_putc(struct buf *b, char c)
{
    return buf_append(b, &c, 1);
}

bool buf_printf(struct buf *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    bool ok = n >= 0 && buf_reserve(b, (size_t)n);
    if (ok) {
        vsnprintf(b->data + b->length, (size_t)n + 1, format, again);
        b->length += (size_t)n;
    }
    va_end(again);
    return ok;
}

void buf_drop_front(struct buf *b, size_t n_bytes)
{
    if (n_bytes >= b->length) {
        buf_clear(b);
        return;
    }
    if (n_bytes == 0)
        return;
    b->length -= n_bytes;
    memmove(b->data, b->data + n_bytes, b->length + 1);
}

char *buf_take(struct buf *b, size_t *length)
{
    if (!buf_reserve(b, 0))
        return NULL;
    char *data = b->data;
    if (length)
        *length = b->length;
    buf_init(b, b->limit_bytes);
    return data;
}
