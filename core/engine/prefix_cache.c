/* The tree of cached pages: an entry for each page of the KV cache, a hash table of chains through them, and
 * a list of those that nobody uses, the one that rests longest in front. A parent is named by its page: it
 * can't be another's while it has children. */
#include "prefix_cache.h"

#include <string.h>

#include "base/mem.h"

#define NONE UINT32_MAX

struct entry {
    struct prefix_key key;
    int32_t tokens[KV_PAGE_TOKENS];
    uint32_t parent;
    uint32_t next;         /* of the bucket */
    uint32_t older, newer; /* of those that nobody uses; the ends' are the list's head */
    uint32_t n_children;
    bool cached;
};

struct prefix_cache {
    struct kv_cache *kv;
    struct entry *entries; /* [n_pages + 1]: one a page; behind them the head of the list */
    uint32_t *users;       /* [n_pages] */
    uint32_t *buckets;     /* [n_buckets] the first page of a chain, or NONE */
    uint32_t n_pages, n_buckets, n_cached, n_unused;
    uint64_t seed, n_evictions;
};

static uint32_t bucket_count(uint32_t n_pages)
{
    uint32_t n = 16;
    while (n < n_pages && n < 1U << 31)
        n *= 2;
    return n;
}

enum status prefix_cache_create(struct kv_cache *kv, uint64_t seed, struct prefix_cache **out,
                                struct error *err)
{
    uint32_t n = kv_cache_n_pages(kv);
    *out = NULL;
    struct prefix_cache *c = mem_zalloc(sizeof *c);
    if (!c)
        return fail(err, STATUS_NO_MEMORY, "prefix cache");
    *c = (struct prefix_cache){.kv = kv, .n_pages = n, .n_buckets = bucket_count(n), .seed = seed};
    c->entries = mem_array((size_t)n + 1, sizeof *c->entries);
    c->users = mem_array(n, sizeof *c->users);
    c->buckets = mem_array(c->n_buckets, sizeof *c->buckets);
    if (!c->entries || !c->users || !c->buckets) {
        prefix_cache_destroy(c);
        return fail(err, STATUS_NO_MEMORY, "prefix cache of %u pages", n);
    }
    for (uint32_t i = 0; i < c->n_buckets; i++)
        c->buckets[i] = NONE;
    c->entries[n].older = c->entries[n].newer = n;
    *out = c;
    return STATUS_OK;
}

void prefix_cache_destroy(struct prefix_cache *c)
{
    if (!c)
        return;
    mem_free(c->entries);
    mem_free(c->users);
    mem_free(c->buckets);
    mem_free(c);
}

uint32_t prefix_cache_n_free(const struct prefix_cache *c)
{
    return kv_cache_n_free(c->kv) + c->n_unused;
}

uint32_t prefix_cache_n_pages(const struct prefix_cache *c)
{
    return c->n_cached;
}

uint64_t prefix_cache_n_evictions(const struct prefix_cache *c)
{
    return c->n_evictions;
}

const uint32_t *prefix_cache_users(const struct prefix_cache *c)
{
    return c->users;
}

/* ---- those that nobody uses ---- */

static void rest_begin(struct prefix_cache *c, uint32_t page)
{
    struct entry *e = &c->entries[page], *head = &c->entries[c->n_pages];
    e->newer = c->n_pages;
    e->older = head->older; /* the ring closes in the head: its `older` rests shortest, its `newer` longest */
    c->entries[e->older].newer = page;
    head->older = page;
    c->n_unused++;
}

static void rest_end(struct prefix_cache *c, uint32_t page)
{
    struct entry *e = &c->entries[page];
    c->entries[e->older].newer = e->newer;
    c->entries[e->newer].older = e->older;
    c->n_unused--;
}

/* ---- the table ---- */

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15ULL;
    return h ^ h >> 32;
}

static uint64_t mix_bytes(uint64_t h, const void *data, size_t n_bytes)
{
    const uint8_t *at = data;
    for (uint64_t word; n_bytes >= sizeof word; at += sizeof word, n_bytes -= sizeof word) {
        memcpy(&word, at, sizeof word);
        h = mix(h, word);
    }
    return h;
}

_Static_assert(sizeof(struct prefix_key) % sizeof(uint64_t) == 0, "keys are hashed whole");

static uint32_t *bucket_of(const struct prefix_cache *c, uint32_t parent, const struct prefix_key *key,
                           const int32_t *tokens)
{
    uint64_t h = mix(c->seed, parent);
    h = mix_bytes(h, key, sizeof *key);
    h = mix_bytes(h, tokens, KV_PAGE_TOKENS * sizeof *tokens);
    return &c->buckets[mix(h, c->seed) % c->n_buckets];
}

bool prefix_page_find(const struct prefix_cache *c, uint32_t parent, const struct prefix_key *key,
                      const int32_t *tokens, uint32_t *page)
{
    for (uint32_t i = *bucket_of(c, parent, key, tokens); i != NONE; i = c->entries[i].next) {
        const struct entry *e = &c->entries[i];
        if (e->parent == parent && memcmp(e->tokens, tokens, sizeof e->tokens) == 0 &&
            memcmp(&e->key, key, sizeof *key) == 0) {
            *page = i;
            return true;
        }
    }
    return false;
}

static void forget(struct prefix_cache *c, uint32_t page)
{
    struct entry *e = &c->entries[page];
    require(e->cached && c->users[page] == 0 && e->n_children == 0);
    uint32_t *link = bucket_of(c, e->parent, &e->key, e->tokens);
    while (*link != page)
        link = &c->entries[*link].next;
    *link = e->next;
    rest_end(c, page);
    if (e->parent != PREFIX_ROOT)
        c->entries[e->parent].n_children--;
    e->cached = false;
    c->n_cached--;
    kv_page_release(c->kv, page);
}

/* ---- pages ---- */

bool prefix_page_acquire(struct prefix_cache *c, uint32_t *page)
{
    uint32_t longest = c->entries[c->n_pages].newer;
    if (kv_cache_n_free(c->kv) == 0 && longest != c->n_pages) {
        forget(c, longest);
        c->n_evictions++;
    }
    if (!kv_page_acquire(c->kv, page))
        return false;
    c->users[*page] = 1;
    return true;
}

void prefix_page_release(struct prefix_cache *c, uint32_t page)
{
    require(page < c->n_pages && c->users[page] > 0);
    kv_page_release(c->kv, page);
    if (--c->users[page] == 0 && c->entries[page].cached)
        rest_begin(c, page);
}

void prefix_page_use(struct prefix_cache *c, uint32_t page)
{
    require(page < c->n_pages && c->entries[page].cached);
    kv_page_share(c->kv, page);
    if (c->users[page]++ == 0)
        rest_end(c, page);
}

uint32_t prefix_page_add(struct prefix_cache *c, uint32_t parent, const struct prefix_key *key,
                         const int32_t *tokens, uint32_t page)
{
    struct entry *e = &c->entries[page];
    uint32_t same;
    require(page < c->n_pages && c->users[page] == 1 && !e->cached);
    require(parent == PREFIX_ROOT || (c->entries[parent].cached && c->users[parent] > 0));
    if (prefix_page_find(c, parent, key, tokens, &same)) {
        prefix_page_use(c, same);
        prefix_page_release(c, page);
        return same;
    }
    uint32_t *bucket = bucket_of(c, parent, key, tokens);
    e->key = *key;
    memcpy(e->tokens, tokens, sizeof e->tokens);
    e->parent = parent;
    e->next = *bucket;
    e->n_children = 0;
    e->cached = true;
    *bucket = page;
    if (parent != PREFIX_ROOT)
        c->entries[parent].n_children++;
    c->n_cached++;
    kv_page_share(c->kv, page); /* the cache's own reference */
    return page;
}

void prefix_cache_clear(struct prefix_cache *c)
{
    while (c->n_unused)
        forget(c, c->entries[c->n_pages].newer);
}
