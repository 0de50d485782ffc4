/* core/model/kv_cache.c: geometry, reference counts, exhaustion, short memory. */
#include "tests/test.h"

#include <string.h>

#include "base/mem.h"
#include "kv_cache.h"

static const struct kv_shape shape = {.n_layers = 3, .n_kv_heads = 2, .head_dim = 24, .type = DTYPE_F16};

/* Each (layer, K or V, head) block lies in the page, in order, without gap or overlap. */
static void blocks_tile_the_page(void **state)
{
    (void)state;
    struct kv_shape s = shape;
    static const struct {
        enum dtype type;
        size_t token_bytes; /* int8 has a scale */
    } cases[] = {{DTYPE_F32, 96}, {DTYPE_F16, 48}, {DTYPE_BF16, 48}, {DTYPE_I8, 28}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        s.type = cases[i].type;
        size_t block = KV_PAGE_TOKENS * cases[i].token_bytes, at = 0;
        for (uint32_t l = 0; l < s.n_layers; l++) {
            for (uint32_t h = 0; h < s.n_kv_heads; h++, at += block)
                assert_int_equal(kv_k_offset(&s, l, h), at);
            for (uint32_t h = 0; h < s.n_kv_heads; h++, at += block)
                assert_int_equal(kv_v_offset(&s, l, h), at);
        }
        assert_true(kv_page_bytes(&s) >= at && kv_page_bytes(&s) < at + 64);
    }
}

static void pages_are_apart_and_aligned(void **state)
{
    (void)state;
    struct kv_cache *c;
    struct error err;
    uint32_t page[5];
    assert_int_equal(kv_cache_create(&shape, 5, &c, &err), STATUS_OK);
    assert_int_equal(kv_cache_n_pages(c), 5);
    assert_int_equal(kv_cache_shape(c)->head_dim, 24);
    for (int i = 0; i < 5; i++) {
        assert_true(kv_page_acquire(c, &page[i]));
        assert_int_equal((uintptr_t)kv_page_data(c, page[i]) % 64, 0);
        memset(kv_page_data(c, page[i]), i + 1, kv_page_bytes(&shape)); /* ASan sees an overrun at the end */
    }
    for (int i = 0; i < 5; i++)
        for (size_t b = 0; b < kv_page_bytes(&shape); b++)
            assert_int_equal(kv_page_data(c, page[i])[b], i + 1);
    kv_cache_destroy(c);
}

static void references_are_counted(void **state)
{
    (void)state;
    struct kv_cache *c;
    struct error err;
    uint32_t a, b, x;
    assert_int_equal(kv_cache_create(&shape, 2, &c, &err), STATUS_OK);
    assert_true(kv_page_acquire(c, &a) && kv_page_acquire(c, &b));
    assert_int_not_equal(a, b);
    assert_false(kv_page_acquire(c, &x));
    assert_int_equal(kv_cache_n_free(c), 0);
    kv_page_share(c, a);
    assert_int_equal(kv_page_refs(c, a), 2);
    kv_page_release(c, a);
    assert_int_equal(kv_cache_n_free(c), 0);
    kv_page_release(c, a);
    assert_int_equal(kv_page_refs(c, a), 0);
    assert_int_equal(kv_cache_n_free(c), 1);
    assert_true(kv_page_acquire(c, &x));
    assert_int_equal(x, a);
    kv_cache_destroy(c);
    kv_cache_destroy(NULL);
}

static void refuses(void **state)
{
    (void)state;
    struct kv_cache *c;
    struct error err;
    struct kv_shape s = shape;
    assert_int_equal(kv_cache_create(&s, 0, &c, &err), STATUS_INVALID);
    s.type = DTYPE_Q8_0;
    assert_int_equal(kv_cache_create(&s, 1, &c, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "q8_0"));
    s = (struct kv_shape){UINT32_MAX, UINT32_MAX, UINT32_MAX, DTYPE_F32};
    assert_int_equal(kv_page_bytes(&s), 0);
    assert_int_equal(kv_cache_create(&s, 1, &c, &err), STATUS_INVALID);
    s = (struct kv_shape){1U << 15, 1U << 10, 1U << 10, DTYPE_F32};
    assert_int_equal(kv_cache_create(&s, UINT32_MAX, &c, &err), STATUS_TOO_LARGE);
    assert_null(c);
}

static void survives_short_memory(void **state)
{
    (void)state;
    struct kv_cache *c;
    struct error err;
    enum status status = STATUS_NO_MEMORY;
    for (uint64_t n = 1; status != STATUS_OK; n++) {
        mem_fail_at(n);
        status = kv_cache_create(&shape, 3, &c, &err);
        mem_fail_at(0);
        assert_true(status == STATUS_OK || (status == STATUS_NO_MEMORY && !c && n < 10));
    }
    kv_cache_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_tile_the_page),   cmocka_unit_test(pages_are_apart_and_aligned),
        cmocka_unit_test(references_are_counted), cmocka_unit_test(refuses),
        cmocka_unit_test(survives_short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
