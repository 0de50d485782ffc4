/* Heap memory with checked sizes, counted so that a test can prove that the step loop allocates nothing.
 * Every function answers NULL when memory is short (or the fault walk says so); none aborts. */
#ifndef LK_BASE_MEM_H
#define LK_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t size_bytes);  /* uninitialised; size 0 gives a pointer that may be freed */
void *mem_zalloc(size_t size_bytes); /* zeroed */
void *mem_array(size_t count, size_t item_bytes); /* zeroed count*item_bytes; NULL if the product overflows */
void *mem_realloc(void *p, size_t size_bytes);    /* p stays valid when NULL is returned */
/* Like mem_aligned, but uninitialised: for memory that many threads fill, and touch first. */
void *mem_aligned_raw(size_t alignment, size_t size_bytes);
void *mem_aligned(size_t alignment, size_t size_bytes); /* zeroed, alignment a power of two >= 16; big blocks
                                                           ask for huge pages; free with mem_free */
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t length);
void mem_free(void *p); /* NULL is fine */

/* Allocations made through this header by the calling thread since it started (thread-local counter). */
uint64_t mem_count(void);

/* Test hook: the calling thread's n-th allocation from now fails (1 = the next); 0 switches it off. */
void mem_fail_at(uint64_t n);

/* *out = a*b, a+b; false when it overflows (then *out is not written). */
static inline bool size_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool size_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}
static inline bool u64_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool u64_add(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

#endif
