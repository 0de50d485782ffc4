/* Heap memory behind one counter, so that tests can count allocations and make the n-th one fail.
 * The counter is per thread: a step's allocations are those of the engine thread, whatever others do. */
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Test instrumentation, not program state: thread-local, read by nothing but the two functions below. */
static _Thread_local uint64_t n_allocations;
static _Thread_local uint64_t fail_countdown;

#define HUGE_PAGE_BYTES ((size_t)2 << 20)

static bool allocation_may_go_on(void)
{
    n_allocations++;
    return !(fail_countdown && --fail_countdown == 0);
}

/* Big blocks begin on a huge page and ask for them before the first touch: afterwards the kernel has already
 * given small pages, and clearing those one by one costs more than reading a file into them. */
static void *alloc_aligned(size_t alignment, size_t size_bytes)
{
    void *p = NULL;
    bool huge = size_bytes >= HUGE_PAGE_BYTES;
    if (huge && alignment < HUGE_PAGE_BYTES)
        alignment = HUGE_PAGE_BYTES;
    if (posix_memalign(&p, alignment, size_bytes ? size_bytes : 1) != 0)
        return NULL;
    if (huge)
        (void)madvise(p, size_bytes & ~(HUGE_PAGE_BYTES - 1), MADV_HUGEPAGE);
    return p;
}

void *mem_alloc(size_t size_bytes)
{
    if (!allocation_may_go_on())
        return NULL;
    return size_bytes >= HUGE_PAGE_BYTES ? alloc_aligned(HUGE_PAGE_BYTES, size_bytes)
                                         : malloc(size_bytes ? size_bytes : 1);
}

void *mem_zalloc(size_t size_bytes)
{
    return allocation_may_go_on() ? calloc(1, size_bytes ? size_bytes : 1) : NULL;
}

void *mem_array(size_t count, size_t item_bytes)
{
    size_t size;
    return size_mul(count, item_bytes, &size) ? mem_zalloc(size) : NULL;
}

void *mem_realloc(void *p, size_t size_bytes)
{
    return allocation_may_go_on() ? realloc(p, size_bytes ? size_bytes : 1) : NULL;
}

void *mem_aligned_raw(size_t alignment, size_t size_bytes)
{
    return allocation_may_go_on() ? alloc_aligned(alignment, size_bytes) : NULL;
}

void *mem_aligned(size_t alignment, size_t size_bytes)
{
    void *p = mem_aligned_raw(alignment, size_bytes);
    if (p)
        memset(p, 0, size_bytes);
    return p;
}

char *mem_strndup(const char *s, size_t length)
{
    char *copy = mem_alloc(length + 1);
    if (!copy)
        return NULL;
    memcpy(copy, s, length);
    copy[length] = '\0';
    return copy;
}

char *mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}

void mem_free(void *p)
{
    free(p);
}

uint64_t mem_count(void)
{
    return n_allocations;
}

void mem_fail_at(uint64_t n)
{
    fail_countdown = n;
}
