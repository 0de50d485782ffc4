/* What the doors of core/kernels refuse, and packing in parts. The arithmetic is checked by tests/kernels. */
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "kernels.h"

static void test_shapes(void **state)
{
    (void)state;
    struct packed w;
    struct error err;
    size_t size;
    assert_int_equal(packed_shape(DTYPE_F32, 17, 5, &w, &size, &err), STATUS_OK);
    assert_int_equal(w.n_panels, 2);
    assert_int_equal(size, 2 * 16 * 5 * 4);
    assert_null(w.data);
    assert_int_equal(packed_shape(DTYPE_BF16, 16, 5, &w, &size, &err), STATUS_OK);
    assert_int_equal(size, 16 * 6 * 2); /* pairs of k */
    assert_int_equal(packed_shape(DTYPE_Q8_0, 16, 64, &w, &size, &err), STATUS_OK);
    assert_int_equal(size, 2 * 16 * 34); /* as many bytes as in the file */
    assert_int_equal(packed_shape(DTYPE_Q4_0, 16, 64, &w, &size, &err), STATUS_OK);
    assert_int_equal(size, 2 * 16 * 18);
    assert_int_equal(packed_shape(DTYPE_Q2_K, 16, 512, &w, &size, &err), STATUS_OK);
    assert_int_equal(size, 2 * 16 * 84);
    assert_int_equal(packed_shape(DTYPE_MXFP4, 16, 256, &w, &size, &err), STATUS_OK);
    assert_int_equal(size, 8 * 16 * 17);
    assert_int_equal(packed_shape(DTYPE_F8_E4M3, 16, 256, &w, &size, &err), STATUS_OK);
    assert_int_equal(size, 16 * 256 + 2 * 16 * 4); /* a scale for 128 values */
    assert_int_equal(packed_shape(DTYPE_Q4_K, 16, 250, &w, &size, &err), STATUS_MISMATCH);
    assert_non_null(strstr(err.text, "250"));
    assert_non_null(strstr(err.text, "q4_k"));
    assert_int_equal(packed_shape(DTYPE_I32, 16, 64, &w, &size, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "i32"));
    assert_int_equal(packed_shape(DTYPE_F32, 0, 64, &w, &size, &err), STATUS_MISMATCH);
    assert_int_equal(packed_shape(DTYPE_F32, UINT32_MAX, 64, &w, &size, &err), STATUS_MISMATCH);
}

/* Panels begun in another order, over dirty memory, hold the same bytes. */
static void test_fill_in_parts(void **state)
{
    (void)state;
    enum { ROWS = 40, COLS = 7 };
    float src[ROWS * COLS], row[COLS];
    struct packed whole, parts;
    size_t size;
    for (int i = 0; i < ROWS * COLS; i++)
        src[i] = (float)(i + 1);
    assert_int_equal(packed_shape(DTYPE_F32, ROWS, COLS, &whole, &size, NULL), STATUS_OK);
    parts = whole;
    whole.data = aligned_alloc(64, (size + 63) / 64 * 64);
    parts.data = aligned_alloc(64, (size + 63) / 64 * 64);
    assert_true(whole.data && parts.data);
    memset(whole.data, 0, size);
    memset(parts.data, 0xff, size);
    packed_fill(&whole, 0, ROWS, src);
    packed_fill(&parts, 32, ROWS, src + 32 * COLS);
    packed_fill(&parts, 0, 32, src);
    assert_memory_equal(whole.data, parts.data, size);
    for (uint32_t r = 0; r < ROWS; r++) {
        packed_row_f32(&parts, r, row);
        assert_memory_equal(row, src + r * COLS, sizeof row);
    }
    free(whole.data);
    free(parts.data);
}

static void put_value(enum dtype type, uint8_t *to, uint32_t i, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint16_t half = type == DTYPE_F16 ? f32_to_f16(x) : (uint16_t)(bits >> 16);
    if (type == DTYPE_F32)
        memcpy(to + (size_t)i * 4, &x, 4);
    else
        memcpy(to + (size_t)i * 2, &half, 2);
}

/* Whole panels take another way than rows: each width that splits into its steps differently, over dirty
 * memory. */
static void test_every_value_is_where_it_is_read(void **state)
{
    (void)state;
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (uint32_t cols = 1; cols < 80; cols++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++)
            for (uint32_t rows = 15; rows < 50; rows += 17) {
                struct packed w;
                size_t size;
                float row[80];
                assert_int_equal(packed_shape(types[t], rows, cols, &w, &size, NULL), STATUS_OK);
                uint8_t *stored = malloc((size_t)rows * cols * 4);
                w.data = malloc(size); /* its end is the last panel's: nothing is written behind it */
                assert_true(stored && w.data);
                memset(w.data, 0xff, size);
                for (uint32_t i = 0; i < rows * cols; i++)
                    put_value(types[t], stored, i, (float)(i % 251) - 100);
                packed_fill(&w, 0, rows, stored);
                for (uint32_t r = 0; r < rows; r++) {
                    packed_row_f32(&w, r, row);
                    for (uint32_t k = 0; k < cols; k++)
                        assert_true(row[k] == (float)((r * cols + k) % 251) - 100);
                }
                free(stored);
                free(w.data);
            }
}

static void test_select(void **state)
{
    (void)state;
    const struct kernels *k = NULL, *again = NULL;
    struct error err;
    char cpu[200], small[4];
    assert_int_equal(kernels_select("auto", ACT_MODE_F32, &k, &err), STATUS_OK);
    assert_int_equal(k->act_mode, ACT_MODE_F32);
    assert_int_equal(kernels_select(k->isa, ACT_MODE_F32, &again, &err), STATUS_OK);
    assert_ptr_equal(k, again);
    assert_int_equal(kernels_select("scalar", ACT_MODE_INT8, &k, &err), STATUS_OK);
    assert_string_equal(k->isa, "scalar");
    assert_non_null(k->matmul[DTYPE_Q6_K]);
    assert_non_null(k->matmul[DTYPE_I8]);
    assert_null(k->matmul[DTYPE_I32]);
    assert_int_equal(kernels_select("sse9", ACT_MODE_INT8, &k, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "sse9"));
#if defined(__x86_64__)
    assert_int_equal(kernels_select("neon", ACT_MODE_INT8, &k, &err), STATUS_UNSUPPORTED);
#endif
    cpu_describe(cpu, sizeof cpu);
    assert_true(strlen(cpu) > 0);
    cpu_describe(small, sizeof small);
    assert_true(strlen(small) < sizeof small);
}

/* FNV-1a. */
static uint64_t add_bytes(uint64_t h, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

static uint64_t hash_packed(enum dtype type, uint32_t cols)
{
    enum { ROWS = 40 };
    struct packed w;
    size_t size;
    uint64_t row_bytes, h = UINT64_C(0xcbf29ce484222325);
    uint32_t seed = 1;
    if (packed_shape(type, ROWS, cols, &w, &size, NULL) != STATUS_OK)
        return 0;
    assert_true(dtype_row_bytes(type, cols, &row_bytes));
    uint8_t *src = malloc(ROWS * row_bytes);
    w.data = aligned_alloc(64, (size + 63) / 64 * 64);
    assert_true(src && w.data);
    memset(w.data, 0xa5, size); /* dirty: every byte of a panel must be written */
    for (size_t i = 0; i < ROWS * row_bytes; i++) {
        seed = seed * 1664525 + 1013904223;
        src[i] = (uint8_t)(seed >> 24);
    }
    packed_fill(&w, 0, ROWS, src);
    h = add_bytes(h, w.data, size);
    free(src);
    free(w.data);
    return h;
}

/* Packed files of the last program are mapped by the next: a layout that changes must say so. If this fails
 * since you changed a layout or added a type: raise PACKED_LAYOUT_VERSION in kernels.h, and put both numbers
 * here. */
static void test_layout_has_its_version(void **state)
{
    (void)state;
    static const struct {
        uint32_t version;
        uint64_t hash;
    } expected = {1, UINT64_C(0x8aba41eadfcdf146)};
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (unsigned t = 0; t < DTYPE_COUNT; t++) {
        static const uint32_t cols[] = {7, 32, 320, 512};
        for (size_t i = 0; i < sizeof cols / sizeof *cols; i++) {
            uint64_t one = hash_packed((enum dtype)t, cols[i]);
            h = add_bytes(h, (const uint8_t *)&one, sizeof one);
        }
    }
    if (PACKED_LAYOUT_VERSION != expected.version || h != expected.hash)
        fail_msg("layout %u has hash 0x%llx here, expected layout %u and 0x%llx: see the comment above",
                 PACKED_LAYOUT_VERSION, (unsigned long long)h, expected.version,
                 (unsigned long long)expected.hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_fill_in_parts),
        cmocka_unit_test(test_every_value_is_where_it_is_read),
        cmocka_unit_test(test_layout_has_its_version),
        cmocka_unit_test(test_select),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
