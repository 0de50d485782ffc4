/* Arenas: many small allocations with one lifetime (an adapter version, a request, a parsed file).
 * Under AddressSanitizer each allocation has a poisoned gap behind it, so an overrun inside the arena is
 * seen. Owner: whoever created it; not thread-safe. */
#ifndef LK_BASE_ARENA_H
#define LK_BASE_ARENA_H

#include <stddef.h>

struct arena;

/* limit_bytes: allocations beyond this total answer NULL (0: no limit). NULL when memory is short. */
struct arena *arena_create(size_t limit_bytes);
void arena_destroy(struct arena *a); /* runs the clean-up handlers, last added first; NULL is fine */
void arena_reset(struct arena *a);   /* the same, but keeps the arena and its first block */

void *arena_alloc(struct arena *a, size_t size_bytes); /* zeroed, 16-byte aligned; NULL when short */
void *arena_array(struct arena *a, size_t count, size_t item_bytes); /* zeroed, product checked */
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t length);
char *arena_printf(struct arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Calls handler(data) when the arena ends. Returns 0, or -1 when memory is short (then the handler won't
 * run). */
int arena_on_end(struct arena *a, void (*handler)(void *data), void *data);

size_t arena_bytes(const struct arena *a); /* handed out so far */

#endif
