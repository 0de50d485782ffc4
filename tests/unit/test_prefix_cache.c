/* The prefix cache's bookkeeping: what is found, what is shared, what goes first; and random holders against
 * a plain list of what is known. */
#include "tests/test.h"

#include <string.h>

#include "base/mem.h"
#include "prefix_cache.h"

static const struct kv_shape shape = {.n_layers = 1, .n_kv_heads = 1, .head_dim = 4, .type = DTYPE_F32};

struct rig {
    struct kv_cache *kv;
    struct prefix_cache *cache;
};

static struct rig rig_open(uint32_t n_pages)
{
    struct rig r;
    struct error err;
    assert_int_equal(kv_cache_create(&shape, n_pages, &r.kv, &err), STATUS_OK);
    assert_int_equal(prefix_cache_create(r.kv, 42, &r.cache, &err), STATUS_OK);
    return r;
}

static void rig_close(struct rig *r)
{
    assert_int_equal(prefix_cache_n_free(r->cache), kv_cache_n_pages(r->kv));
    prefix_cache_clear(r->cache);
    assert_int_equal(prefix_cache_n_pages(r->cache), 0);
    assert_int_equal(kv_cache_n_free(r->kv), kv_cache_n_pages(r->kv));
    prefix_cache_destroy(r->cache);
    kv_cache_destroy(r->kv);
}

static struct prefix_key key_of(uint8_t salt, uint8_t adapter, uint32_t begin, uint32_t lengths)
{
    struct prefix_key k;
    memset(&k, 0, sizeof k);
    k.salt[31] = salt;
    k.adapter[31] = adapter;
    k.begin = begin;
    k.lengths = lengths;
    return k;
}

static const int32_t *text(int32_t first)
{
    static int32_t tokens[KV_PAGE_TOKENS];
    for (uint32_t i = 0; i < KV_PAGE_TOKENS; i++)
        tokens[i] = first + (int32_t)i;
    return tokens;
}

static uint32_t acquired(struct rig *r)
{
    uint32_t page;
    assert_true(prefix_page_acquire(r->cache, &page));
    return page;
}

static void every_part_of_a_key_counts(void **state)
{
    (void)state;
    struct rig r = rig_open(8);
    const struct prefix_key key = key_of(1, 2, 3, 4);
    const struct prefix_key others[] = {key_of(9, 2, 3, 4), key_of(1, 9, 3, 4), key_of(1, 2, 9, 4),
                                        key_of(1, 2, 3, 9)};
    uint32_t page, first = acquired(&r);
    assert_false(prefix_page_find(r.cache, PREFIX_ROOT, &key, text(5), &page));
    assert_int_equal(prefix_page_add(r.cache, PREFIX_ROOT, &key, text(5), first), first);
    assert_true(prefix_page_find(r.cache, PREFIX_ROOT, &key, text(5), &page));
    assert_int_equal(page, first);
    assert_false(prefix_page_find(r.cache, PREFIX_ROOT, &key, text(6), &page));
    assert_false(prefix_page_find(r.cache, first, &key, text(5), &page)); /* another parent */
    for (uint32_t i = 0; i < 4; i++)
        assert_false(prefix_page_find(r.cache, PREFIX_ROOT, &others[i], text(5), &page));
    for (uint32_t i = 0; i < KV_PAGE_TOKENS; i++) {
        int32_t tokens[KV_PAGE_TOKENS];
        memcpy(tokens, text(5), sizeof tokens);
        tokens[i]++;
        assert_false(prefix_page_find(r.cache, PREFIX_ROOT, &key, tokens, &page));
    }
    prefix_page_release(r.cache, first);
    rig_close(&r);
}

static void equal_pages_become_one(void **state)
{
    (void)state;
    struct rig r = rig_open(4);
    const struct prefix_key key = key_of(0, 0, KV_PAGE_TOKENS, 0);
    uint32_t a = acquired(&r), b = acquired(&r);
    assert_int_equal(prefix_page_add(r.cache, PREFIX_ROOT, &key, text(1), a), a);
    assert_int_equal(prefix_page_add(r.cache, PREFIX_ROOT, &key, text(1), b), a);
    assert_int_equal(prefix_cache_users(r.cache)[a], 2);
    assert_int_equal(prefix_cache_users(r.cache)[b], 0);
    assert_int_equal(kv_page_refs(r.kv, a), 3); /* two users and the cache */
    assert_int_equal(prefix_cache_n_free(r.cache), 3);
    prefix_page_release(r.cache, a);
    assert_int_equal(prefix_cache_n_free(r.cache), 3);
    prefix_page_release(r.cache, a);
    assert_int_equal(prefix_cache_n_free(r.cache), 4);
    assert_int_equal(prefix_cache_n_pages(r.cache), 1);
    rig_close(&r);
}

/* Runs of two pages behind one root page. */
static void what_rested_longest_goes_first_and_leaves_before_roots(void **state)
{
    (void)state;
    struct rig r = rig_open(3);
    const struct prefix_key key = key_of(0, 0, KV_PAGE_TOKENS, 0);
    uint32_t root = acquired(&r), a = acquired(&r), b = acquired(&r), page, none;
    prefix_page_add(r.cache, PREFIX_ROOT, &key, text(1), root);
    prefix_page_add(r.cache, root, &key, text(2), a);
    prefix_page_use(r.cache, root); /* the second run's */
    prefix_page_add(r.cache, root, &key, text(3), b);
    assert_false(prefix_page_acquire(r.cache, &none));
    prefix_page_release(r.cache, b); /* the second run ends, then the first */
    prefix_page_release(r.cache, root);
    prefix_page_release(r.cache, a);
    prefix_page_release(r.cache, root);
    assert_int_equal(prefix_cache_n_pages(r.cache), 3);
    assert_int_equal(acquired(&r), b);
    assert_true(prefix_page_find(r.cache, root, &key, text(2), &page) && page == a);
    prefix_page_use(r.cache, root); /* used again: it rests anew */
    prefix_page_use(r.cache, a);
    prefix_page_release(r.cache, a);
    prefix_page_release(r.cache, root);
    assert_int_equal(acquired(&r), a);
    assert_true(prefix_page_find(r.cache, PREFIX_ROOT, &key, text(1), &page));
    assert_int_equal(acquired(&r), root);
    assert_false(prefix_page_find(r.cache, PREFIX_ROOT, &key, text(1), &page));
    assert_int_equal(prefix_cache_n_evictions(r.cache), 3);
    prefix_page_release(r.cache, a);
    prefix_page_release(r.cache, b);
    prefix_page_release(r.cache, root);
    rig_close(&r);
}

/* ---- random holders ---- */

#define N_PAGES 24U
#define N_HOLDERS 5U
#define N_DEEP 4U

static uint32_t next_random(uint32_t *x)
{
    *x = *x * 1664525U + 1013904223U;
    return *x >> 8;
}

struct holder {
    uint32_t pages[N_DEEP], n, path[N_DEEP]; /* which text at each depth */
};

/* A page holds a number that stands for all that it was made of. */
static uint32_t mark_of(const struct holder *h, uint32_t depth)
{
    uint32_t mark = 1;
    for (uint32_t i = 0; i <= depth; i++)
        mark = mark * 7 + h->path[i] + 1;
    return mark;
}

static uint32_t *content(struct rig *r, uint32_t page)
{
    return (uint32_t *)(void *)kv_page_data(r->kv, page);
}

static void extend(struct rig *r, struct holder *h, uint32_t choice)
{
    const struct prefix_key key = key_of(choice % 2, 0, KV_PAGE_TOKENS, 0);
    uint32_t parent = h->n ? h->pages[h->n - 1] : PREFIX_ROOT, page;
    h->path[h->n] = choice;
    if (prefix_page_find(r->cache, parent, &key, text((int32_t)(choice / 2)), &page)) {
        prefix_page_use(r->cache, page);
    } else {
        if (!prefix_page_acquire(r->cache, &page))
            return;
        *content(r, page) = mark_of(h, h->n);
        page = prefix_page_add(r->cache, parent, &key, text((int32_t)(choice / 2)), page);
    }
    h->pages[h->n++] = page;
}

static void check_holders(struct rig *r, const struct holder *h)
{
    uint32_t users[N_PAGES] = {0}, n_used = 0;
    for (uint32_t i = 0; i < N_HOLDERS; i++)
        for (uint32_t d = 0; d < h[i].n; d++) {
            users[h[i].pages[d]]++;
            assert_int_equal(*content(r, h[i].pages[d]), mark_of(&h[i], d));
        }
    for (uint32_t i = 0; i < N_PAGES; i++)
        n_used += users[i] > 0;
    assert_memory_equal(users, prefix_cache_users(r->cache), sizeof users);
    assert_int_equal(prefix_cache_n_free(r->cache), N_PAGES - n_used);
    assert_in_range(prefix_cache_n_pages(r->cache), n_used, N_PAGES);
}

static void holders_find_what_they_would_have_made(void **state)
{
    (void)state;
    struct rig r = rig_open(N_PAGES);
    struct holder holders[N_HOLDERS] = {0};
    uint32_t x = 7;
    for (uint32_t step = 0; step < 200000; step++) {
        struct holder *h = &holders[next_random(&x) % N_HOLDERS];
        if (h->n == N_DEEP || next_random(&x) % 5 == 0)
            while (h->n)
                prefix_page_release(r.cache, h->pages[--h->n]);
        else
            extend(&r, h, next_random(&x) % 6);
        check_holders(&r, holders);
    }
    assert_true(prefix_cache_n_evictions(r.cache) > 1000);
    for (uint32_t i = 0; i < N_HOLDERS; i++)
        while (holders[i].n)
            prefix_page_release(r.cache, holders[i].pages[--holders[i].n]);
    rig_close(&r);
}

static void survives_short_memory(void **state)
{
    (void)state;
    struct kv_cache *kv;
    struct prefix_cache *c;
    struct error err;
    enum status status = STATUS_NO_MEMORY;
    assert_int_equal(kv_cache_create(&shape, 3, &kv, &err), STATUS_OK);
    for (uint64_t n = 1; status != STATUS_OK; n++) {
        mem_fail_at(n);
        status = prefix_cache_create(kv, 1, &c, &err);
        mem_fail_at(0);
        assert_true(status == STATUS_OK || (status == STATUS_NO_MEMORY && !c && n < 10));
    }
    prefix_cache_destroy(c);
    kv_cache_destroy(kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_of_a_key_counts),
        cmocka_unit_test(equal_pages_become_one),
        cmocka_unit_test(what_rested_longest_goes_first_and_leaves_before_roots),
        cmocka_unit_test(holders_find_what_they_would_have_made),
        cmocka_unit_test(survives_short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
