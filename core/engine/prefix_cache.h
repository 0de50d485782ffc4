/* Full KV pages that outlive their sequence, found again by what they were computed from. Pure bookkeeping
 * above the KV cache: no model, no threads.
 *
 * Pages form trees: a page's parent holds the tokens before its own. What identifies a page (parent, key,
 * tokens) is compared whole, so no collision of hashes can give anyone another's text. Whoever uses a page
 * uses its parent, too, and gives a run of pages back from its last page to its first: so among pages that
 * nobody uses children have always rested longer than their parents, and the one that rested longest, which
 * goes first when no page is free, has no child.
 *
 * Owner: engine thread. */
#ifndef LK_ENGINE_PREFIX_CACHE_H
#define LK_ENGINE_PREFIX_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "kv_cache.h"

#define PREFIX_ROOT UINT32_MAX /* the parent of a sequence's first page */

/* What K and V of a page depend on besides its tokens and the pages before it. Equal bytes: the same; so it
 * is zeroed before its fields are set. */
struct prefix_key {
    uint8_t salt[32];    /* callers with the same one share */
    uint8_t adapter[32]; /* its digest; zeros where none acts in this page */
    uint32_t begin;      /* the token of the page that the adapter acts from; KV_PAGE_TOKENS: none */
    uint32_t lengths;    /* model_length_class */
};

struct prefix_cache;

/* kv is borrowed; `seed`: anything that strangers can't know, so that they can't make lookups slow. */
LK_MUST_USE enum status prefix_cache_create(struct kv_cache *kv, uint64_t seed, struct prefix_cache **out,
                                            struct error *err);
void prefix_cache_destroy(struct prefix_cache *c); /* pages in use stay their users'; NULL is fine */

uint32_t prefix_cache_n_free(const struct prefix_cache *c);  /* pages that can be acquired: free or unused */
uint32_t prefix_cache_n_pages(const struct prefix_cache *c); /* in the cache, used or not */
uint64_t prefix_cache_n_evictions(const struct prefix_cache *c);
/* Users of every page, [pages of the KV cache]: 0 for one that can be acquired. */
const uint32_t *prefix_cache_users(const struct prefix_cache *c);

/* A page for the caller alone; where none is free the one that has rested longest is forgotten. False when
 * all are used. */
bool prefix_page_acquire(struct prefix_cache *c, uint32_t *page);
/* One user less. A page in the cache rests from now on, another one is free. */
void prefix_page_release(struct prefix_cache *c, uint32_t page);

/* The cached page behind `parent` with this key and these KV_PAGE_TOKENS tokens; false: there is none. It
 * stays only while nothing is acquired, or once it's used. */
bool prefix_page_find(const struct prefix_cache *c, uint32_t parent, const struct prefix_key *key,
                      const int32_t *tokens, uint32_t *page);
void prefix_page_use(struct prefix_cache *c, uint32_t page); /* one user more */
/* Puts a full page, its caller's alone until now, into the cache. Returns the page to use from now on:
 * `page`, or, if another holds the same already, that one, and `page` is free. `parent` is used by the
 * caller. */
uint32_t prefix_page_add(struct prefix_cache *c, uint32_t parent, const struct prefix_key *key,
                         const int32_t *tokens, uint32_t page);
/* Forgets all pages that nobody uses. */
void prefix_cache_clear(struct prefix_cache *c);

#endif
