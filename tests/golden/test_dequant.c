/* Stored blocks with random bytes (odd scales, infinities) against the values that the reference reader gives
 * for them; and the same rows through packing.
 *
 *   data/quant/dequant.json   hashes of many blocks a type (make_quant.py)
 *   ../shared                 a few blocks with their values; skipped without it */
#include "tests/test.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

#define GOLDEN "../shared/goldens/goldens/dequant_blocks.json"
#define HASHES "tests/golden/data/quant/dequant.json"
#define MAX_VALUES 256U

struct fixture {
    json_t *root;
};

static void unhex(const char *hex, uint8_t *out, size_t n)
{
    assert_int_equal(strlen(hex), 2 * n);
    for (size_t i = 0; i < n; i++) {
        char byte[3] = {hex[2 * i], hex[2 * i + 1], 0};
        out[i] = (uint8_t)strtoul(byte, NULL, 16);
    }
}

/* The file prints 9 digits, so a float comes back exactly. Overflowed values are null or huge. */
static void assert_value(float got, const json_t *want, const char *type, size_t i)
{
    if (!json_is_number(want)) {
        assert_false(isfinite(got));
        return;
    }
    if (got != (float)json_number_value(want)) {
        print_error("%s value %zu: %.9g, expected %.9g\n", type, i, (double)got, json_number_value(want));
        assert_true(got == (float)json_number_value(want));
    }
}

static void check_block(enum dtype type, const json_t *block)
{
    uint8_t bytes[512];
    float y[MAX_VALUES], again[MAX_VALUES];
    const struct dtype_info *info = dtype_info(type);
    const json_t *want = json_object_get(block, "y");
    unhex(json_string_value(json_object_get(block, "hex")), bytes, info->block_bytes);
    assert_int_equal(json_array_size(want), info->block_size);
    dequantize_row(type, bytes, info->block_size, y);
    for (size_t i = 0; i < info->block_size; i++)
        assert_value(y[i], json_array_get(want, i), info->name, i);

    struct packed w;
    size_t size;
    assert_int_equal(packed_shape(type, 1, info->block_size, &w, &size, NULL), STATUS_OK);
    w.data = aligned_alloc(64, (size + 63) / 64 * 64);
    assert_non_null(w.data);
    packed_fill(&w, 0, 1, bytes);
    packed_row_f32(&w, 0, again);
    assert_memory_equal(y, again, info->block_size * sizeof *y);
    free(w.data);
}

static void test_golden_blocks(void **state)
{
    const struct fixture *f = *state;
    unsigned n_types = 0;
    const char *name;
    json_t *entry;
    if (!f->root) {
        print_message("skipped: no %s\n", GOLDEN);
        skip();
    }
    json_object_foreach(f->root, name, entry)
    {
        enum dtype type;
        size_t i;
        json_t *block;
        if (!dtype_from_ggml((uint32_t)json_integer_value(json_object_get(entry, "type_id")), &type))
            continue;
        n_types++;
        assert_int_equal(json_integer_value(json_object_get(entry, "block")), dtype_info(type)->block_size);
        assert_int_equal(json_integer_value(json_object_get(entry, "bytes")), dtype_info(type)->block_bytes);
        json_array_foreach(json_object_get(entry, "blocks"), i, block)
        {
            check_block(type, block);
        }
    }
    assert_true(n_types >= 14);
}

static uint64_t next_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

/* FNV-1a, 64 bits, a float's bits at a time; every NaN counts as one. */
static uint64_t hash_floats(uint64_t hash, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &y[i], sizeof bits);
        hash = (hash ^ (isnan(y[i]) ? 0x7fc00000U : bits)) * 0x100000001b3ULL;
    }
    return hash;
}

static void check_hash(enum dtype type, const json_t *entry)
{
    const struct dtype_info *info = dtype_info(type);
    uint64_t state = (uint64_t)json_integer_value(json_object_get(entry, "seed"));
    json_int_t n_blocks = json_integer_value(json_object_get(entry, "blocks"));
    uint64_t hash = 0xcbf29ce484222325ULL;
    char text[17];
    assert_true(n_blocks > 0);
    for (json_int_t b = 0; b < n_blocks; b++) {
        uint8_t bytes[256];
        float y[MAX_VALUES];
        for (uint32_t i = 0; i < info->block_bytes; i++)
            bytes[i] = (uint8_t)(next_random(&state) >> 56);
        dequantize_row(type, bytes, info->block_size, y);
        hash = hash_floats(hash, y, info->block_size);
    }
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    if (strcmp(text, json_string_value(json_object_get(entry, "fnv"))) != 0)
        print_error("%s: the values of %lld blocks are others than the reference's\n", info->name,
                    (long long)n_blocks);
    assert_string_equal(text, json_string_value(json_object_get(entry, "fnv")));
}

static void test_many_blocks(void **state)
{
    (void)state;
    const char *name;
    json_t *root = json_load_file(HASHES, 0, NULL), *entry;
    assert_non_null(root);
    json_object_foreach(root, name, entry)
    {
        enum dtype type;
        assert_true(dtype_from_name(name, &type));
        check_hash(type, entry);
    }
    assert_true(json_object_size(root) >= 14);
    json_decref(root);
}

static int setup(void **state)
{
    static struct fixture f;
    f.root = json_load_file(GOLDEN, 0, NULL);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    json_decref(((struct fixture *)*state)->root);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden_blocks),
                                       cmocka_unit_test(test_many_blocks)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
