/* KV pages: one block of memory, a reference count for each page and a stack of free ones. The block comes
 * from calloc, so the system gives real memory only to pages that have been written. Owner: engine thread. */
#include "kv_cache.h"

#include "base/mem.h"
#include "kernels.h"

#define ALIGNMENT 64U
#define HEAD_DIM_MAX (1U << 24) /* a block of such heads is far below what size_t counts */

struct kv_cache {
    struct kv_shape shape;
    uint32_t n_pages, n_free;
    size_t page_bytes;
    void *memory;
    uint8_t *pages;       /* in memory, aligned */
    uint32_t *refs;       /* [n_pages] */
    uint32_t *free_pages; /* [n_free] a stack */
};

static size_t block_bytes(const struct kv_shape *s)
{
    return KV_PAGE_TOKENS * kv_token_bytes(s->type, s->head_dim);
}

/* 0 when it overflows. */
static size_t page_size(const struct kv_shape *s)
{
    size_t bytes;
    if (s->head_dim > HEAD_DIM_MAX || !size_mul(2 * block_bytes(s), s->n_kv_heads, &bytes) ||
        !size_mul(bytes, s->n_layers, &bytes) || !size_add(bytes, ALIGNMENT - 1, &bytes))
        return 0;
    return bytes / ALIGNMENT * ALIGNMENT;
}

size_t kv_page_bytes(const struct kv_shape *s)
{
    return page_size(s);
}

enum status kv_cache_create(const struct kv_shape *s, uint32_t n_pages, struct kv_cache **out,
                            struct error *err)
{
    *out = NULL;
    if (!kv_block_has(s->type))
        return fail(err, STATUS_UNSUPPORTED, "KV cache of type %s, expected f32, f16, bf16 or i8",
                    dtype_name(s->type));
    size_t page_bytes = page_size(s), total;
    if (page_bytes == 0 || n_pages == 0)
        return fail(err, STATUS_INVALID, "KV cache of %u pages of %zu bytes", n_pages, page_bytes);
    if (!size_mul(page_bytes, n_pages, &total) || !size_add(total, ALIGNMENT, &total))
        return fail(err, STATUS_TOO_LARGE, "KV cache of %u pages of %zu bytes", n_pages, page_bytes);
    struct kv_cache *c = mem_zalloc(sizeof *c);
    if (!c)
        return fail(err, STATUS_NO_MEMORY, "KV cache");
    c->shape = *s;
    c->n_pages = c->n_free = n_pages;
    c->page_bytes = page_bytes;
    c->memory = mem_zalloc(total);
    c->refs = mem_array(n_pages, sizeof *c->refs);
    c->free_pages = mem_array(n_pages, sizeof *c->free_pages);
    if (!c->memory || !c->refs || !c->free_pages) {
        kv_cache_destroy(c);
        return fail(err, STATUS_NO_MEMORY, "KV cache: %zu bytes for %u pages", total, n_pages);
    }
    uint8_t *start = c->memory;
    c->pages = start + (ALIGNMENT - (uintptr_t)start % ALIGNMENT) % ALIGNMENT;
    for (uint32_t i = 0; i < n_pages; i++)
        c->free_pages[i] = n_pages - 1 - i; /* page 0 is handed out first */
    *out = c;
    return STATUS_OK;
}

void kv_cache_destroy(struct kv_cache *c)
{
    if (!c)
        return;
    mem_free(c->memory);
    mem_free(c->refs);
    mem_free(c->free_pages);
    mem_free(c);
}

const struct kv_shape *kv_cache_shape(const struct kv_cache *c)
{
    return &c->shape;
}

uint32_t kv_cache_n_pages(const struct kv_cache *c)
{
    return c->n_pages;
}

uint32_t kv_cache_n_free(const struct kv_cache *c)
{
    return c->n_free;
}

bool kv_page_acquire(struct kv_cache *c, uint32_t *page)
{
    if (c->n_free == 0)
        return false;
    *page = c->free_pages[--c->n_free];
    c->refs[*page] = 1;
    return true;
}

void kv_page_share(struct kv_cache *c, uint32_t page)
{
    require(page < c->n_pages && c->refs[page] > 0 && c->refs[page] < UINT32_MAX);
    c->refs[page]++;
}

void kv_page_release(struct kv_cache *c, uint32_t page)
{
    require(page < c->n_pages && c->refs[page] > 0);
    if (--c->refs[page] == 0)
        c->free_pages[c->n_free++] = page;
}

uint32_t kv_page_refs(const struct kv_cache *c, uint32_t page)
{
    require(page < c->n_pages);
    return c->refs[page];
}

uint8_t *kv_page_data(const struct kv_cache *c, uint32_t page)
{
    require(page < c->n_pages);
    return c->pages + (size_t)page * c->page_bytes;
}

size_t kv_k_offset(const struct kv_shape *s, uint32_t layer, uint32_t kv_head)
{
    return ((size_t)layer * 2 * s->n_kv_heads + kv_head) * block_bytes(s);
}

size_t kv_v_offset(const struct kv_shape *s, uint32_t layer, uint32_t kv_head)
{
    return ((size_t)layer * 2 * s->n_kv_heads + s->n_kv_heads + kv_head) * block_bytes(s);
}
