/* The KV cache: fixed-size pages of tokens, shared by reference counts. Owner: engine thread.
 *
 *   page = [layer][K | V][kv head] blocks; what is in a block is drawn in kernels.h (put_keys, put_values)
 *
 * A sequence's page table lists its pages in order; token p lives in page p / KV_PAGE_TOKENS. A page that
 * more than one holder refers to is read-only. */
#ifndef LK_KV_CACHE_H
#define LK_KV_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"

#define KV_PAGE_TOKENS 32U

struct kv_shape {
    uint32_t n_layers, n_kv_heads, head_dim;
    enum dtype type; /* F32, F16, BF16 or I8 */
};

struct kv_cache;

size_t kv_page_bytes(const struct kv_shape *s); /* a multiple of 64; 0 when it overflows */
/* n_pages pages; memory is reserved at once and touched as pages are first used. */
LK_MUST_USE enum status kv_cache_create(const struct kv_shape *s, uint32_t n_pages, struct kv_cache **out,
                                        struct error *err);
void kv_cache_destroy(struct kv_cache *c);

const struct kv_shape *kv_cache_shape(const struct kv_cache *c);
uint32_t kv_cache_n_pages(const struct kv_cache *c);
uint32_t kv_cache_n_free(const struct kv_cache *c);

bool kv_page_acquire(struct kv_cache *c,
                     uint32_t *page); /* a free page with one reference; false when none is left */
void kv_page_share(struct kv_cache *c, uint32_t page);   /* one more reference */
void kv_page_release(struct kv_cache *c, uint32_t page); /* the last one frees it */
uint32_t kv_page_refs(const struct kv_cache *c, uint32_t page);
uint8_t *kv_page_data(const struct kv_cache *c, uint32_t page);

/* Bytes from a page's start to the block of K (or V) of a layer's kv head. */
size_t kv_k_offset(const struct kv_shape *s, uint32_t layer, uint32_t kv_head);
size_t kv_v_offset(const struct kv_shape *s, uint32_t layer, uint32_t kv_head);

#endif
