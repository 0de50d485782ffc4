/* A growing byte buffer, always NUL-terminated behind its length, with an upper bound.
 * A failed append (memory or bound) sets `failed` and leaves the content as it was; callers may check once at
 * the end. */
#ifndef LK_BASE_BUF_H
#define LK_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *data; /* never NULL after buf_init; data[length] == 0 */
    size_t length;
    size_t capacity;
    size_t limit_bytes; /* 0: none */
    bool failed;
};

void buf_init(struct buf *b, size_t limit_bytes); /* allocates nothing */
void buf_fini(struct buf *b);
void buf_clear(struct buf *b); /* length 0, failed false, keeps the memory */

bool buf_reserve(struct buf *b, size_t extra_bytes);
bool buf_append(struct buf *b, const void *data, size_t length);
bool buf_puts(struct buf *b, const char *s);
bool buf_putc(struct buf *b, char c);
bool buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_drop_front(struct buf *b, size_t n_bytes); /* forgets the first n_bytes */
char *buf_take(struct buf *b,
               size_t *length); /* the memory becomes the caller's (mem_free); b is empty again */

#endif
