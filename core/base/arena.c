/* Arenas: a chain of blocks, bump allocation, one end.
 *
 *   arena → block (newest) → block → … → first block
 *           [header | used … | free …]
 *
 * Under AddressSanitizer the free part is poisoned and each allocation is followed by a poisoned gap. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define GAP_BYTES 16U
#define POISON(p, n) ASAN_POISON_MEMORY_REGION((p), (n))
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))
#else
#define GAP_BYTES 0U
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

#define ALIGNMENT 16U
#define FIRST_BLOCK_BYTES 4096U
#define LARGEST_BLOCK_BYTES (1U << 20)

struct block {
    struct block *next;
    size_t capacity, used;
    _Alignas(ALIGNMENT) unsigned char data[];
};

struct cleanup {
    struct cleanup *next;
    void (*handler)(void *data);
    void *data;
};

struct arena {
    struct block *blocks; /* newest first */
    struct cleanup *cleanups;
    size_t limit_bytes, handed_out;
};

static struct block *block_create(size_t capacity)
{
    size_t size;
    if (!size_add(sizeof(struct block), capacity, &size))
        return NULL;
    struct block *b = mem_alloc(size);
    if (!b)
        return NULL;
    *b = (struct block){.capacity = capacity};
    POISON(b->data, capacity);
    return b;
}

static void block_destroy(struct block *b)
{
    UNPOISON(b->data, b->capacity);
    mem_free(b);
}

struct arena *arena_create(size_t limit_bytes)
{
    struct arena *a = mem_zalloc(sizeof *a);
    if (!a)
        return NULL;
    a->limit_bytes = limit_bytes;
    a->blocks = block_create(FIRST_BLOCK_BYTES);
    if (!a->blocks) {
        mem_free(a);
        return NULL;
    }
    return a;
}

static void run_cleanups(struct arena *a)
{
    /* A handler may use the arena's memory, so all run before any block goes. */
    while (a->cleanups) {
        struct cleanup *c = a->cleanups;
        a->cleanups = c->next;
        c->handler(c->data);
    }
}

void arena_reset(struct arena *a)
{
    run_cleanups(a);
    while (a->blocks->next) {
        struct block *b = a->blocks;
        a->blocks = b->next;
        block_destroy(b);
    }
    POISON(a->blocks->data, a->blocks->capacity);
    a->blocks->used = 0;
    a->handed_out = 0;
}

void arena_destroy(struct arena *a)
{
    if (!a)
        return;
    run_cleanups(a);
    while (a->blocks) {
        struct block *b = a->blocks;
        a->blocks = b->next;
        block_destroy(b);
    }
    mem_free(a);
}

void *arena_alloc(struct arena *a, size_t size_bytes)
{
    size_t room, total;
    if (!size_add(size_bytes, ALIGNMENT - 1 + GAP_BYTES, &room) ||
        !size_add(a->handed_out, size_bytes, &total))
        return NULL;
    room &= ~(size_t)(ALIGNMENT - 1);
    if (a->limit_bytes && total > a->limit_bytes)
        return NULL;
    struct block *b = a->blocks;
    if (room > b->capacity - b->used) {
        size_t capacity = b->capacity < LARGEST_BLOCK_BYTES ? b->capacity * 2 : LARGEST_BLOCK_BYTES;
        b = block_create(room > capacity ? room : capacity);
        if (!b)
            return NULL;
        b->next = a->blocks;
        a->blocks = b;
    }
    void *p = b->data + b->used;
    b->used += room;
    a->handed_out = total;
    UNPOISON(p, size_bytes);
    memset(p, 0, size_bytes);
    return p;
}

void *arena_array(struct arena *a, size_t count, size_t item_bytes)
{
    size_t size;
    return size_mul(count, item_bytes, &size) ? arena_alloc(a, size) : NULL;
}

char *arena_strndup(struct arena *a, const char *s, size_t length)
{
    char *copy = length < SIZE_MAX ? arena_alloc(a, length + 1) : NULL;
    if (copy)
        memcpy(copy, s, length);
    return copy;
}

char *arena_strdup(struct arena *a, const char *s)
{
    return arena_strndup(a, s, strlen(s));
}

char *arena_printf(struct arena *a, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *s = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
    if (s)
        vsnprintf(s, (size_t)n + 1, format, again);
    va_end(again);
    return s;
}

int arena_on_end(struct arena *a, void (*handler)(void *data), void *data)
{
    struct cleanup *c = arena_alloc(a, sizeof *c);
    if (!c)
        return -1;
    *c = (struct cleanup){.next = a->cleanups, .handler = handler, .data = data};
    a->cleanups = c;
    return 0;
}

size_t arena_bytes(const struct arena *a)
{
    return a->handed_out;
}
