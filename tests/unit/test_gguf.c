/* core/format: GGUF files, sound and malformed. */
#include "tests/test.h"

#include <math.h>

#include "base/mem.h"
#include "format.h"
#include "tests/unit/made_files.h"

static char path[128];
static struct folder place;

static int make_place(void **state)
{
    (void)state;
    place = folder_make();
    snprintf(path, sizeof path, "%s/m.gguf", place.path);
    return 0;
}

static int remove_place(void **state)
{
    (void)state;
    folder_remove(&place);
    return 0;
}

static enum status open_bytes(struct buf *b, struct gguf **g, struct error *err)
{
    put_file(place.path, "m.gguf", b->data, b->length);
    buf_fini(b);
    return gguf_open(path, NULL, g, err);
}

/* Values of every type, and two tensors. */
static void put_sound(struct buf *b)
{
    buf_init(b, 0);
    put_gguf_front(b, 3, 2, 12);
    put_gguf_text(b, "general.architecture", "llama");
    put_gguf_u32(b, "a.u32", 7);
    put_gguf_f32(b, "a.f32", 0.5F);
    put_gguf_key(b, "a.i8", 1);
    buf_putc(b, -3);
    put_gguf_key(b, "a.u64", 10);
    put_u64(b, 1ULL << 40);
    put_gguf_key(b, "a.i64", 11);
    put_u64(b, (uint64_t)-5);
    put_gguf_key(b, "a.f64", 12);
    double d = 1e100;
    buf_append(b, &d, 8);
    put_gguf_key(b, "a.bool", 7);
    buf_putc(b, 1);
    put_gguf_key(b, "a.strings", 9);
    put_u32(b, 8);
    put_u64(b, 3);
    put_gguf_string(b, "one");
    put_u64(b, 3);
    buf_append(b, "t\0o", 3);
    put_gguf_string(b, "");
    put_gguf_key(b, "a.i16s", 9);
    put_u32(b, 3);
    put_u64(b, 2);
    buf_append(b, (const short[]){-2, 300}, 4);
    put_gguf_key(b, "a.f32s", 9);
    put_u32(b, 6);
    put_u64(b, 2);
    buf_append(b, (const float[]){1.5F, -2}, 8);
    put_gguf_text(b, "empty", "");
    put_gguf_tensor(b, "w", 32, 3, 8, 0); /* q8_0: 3 rows of 34 bytes */
    put_gguf_tensor(b, "v", 2, 5, 0, 128);
    put_gguf_padding(b, 32);
    for (int i = 0; i < 102; i++)
        buf_putc(b, (char)i);
    put_gguf_padding(b, 32);
    put_zeros(b, 40);
}

static void a_sound_file_is_read(void **state)
{
    (void)state;
    struct buf b;
    struct gguf *g;
    struct error err;
    put_sound(&b);
    assert_int_equal(open_bytes(&b, &g, &err), STATUS_OK);
    uint64_t u = 0, n = 0;
    double d = 0;
    bool flag = false;
    const char *text, *key;
    size_t length;
    assert_int_equal(gguf_get_u64(g, "a.u32", &u, &err), STATUS_OK);
    assert_int_equal(u, 7);
    assert_int_equal(gguf_get_u64(g, "a.u64", &u, &err), STATUS_OK);
    assert_true(u == 1ULL << 40);
    assert_int_equal(gguf_get_u64(g, "a.i8", &u, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.text, "a.i8 is -3"));
    assert_int_equal(gguf_get_u64(g, "a.f32", &u, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.text, "a.f32 is of type f32, expected an integer"));
    assert_int_equal(gguf_get_u64(g, "absent", &u, &err), STATUS_NOT_FOUND);
    assert_int_equal(gguf_get_f64(g, "a.f32", &d, &err), STATUS_OK);
    assert_true(d == 0.5);
    assert_int_equal(gguf_get_f64(g, "a.f64", &d, &err), STATUS_OK);
    assert_true(d == 1e100);
    assert_int_equal(gguf_get_f64(g, "a.i64", &d, &err), STATUS_OK);
    assert_true(d == -5);
    assert_int_equal(gguf_get_bool(g, "a.bool", &flag, &err), STATUS_OK);
    assert_true(flag);
    assert_int_equal(gguf_get_bool(g, "a.u32", &flag, &err), STATUS_FORMAT);
    assert_int_equal(gguf_get_string(g, "general.architecture", &text, &length, &err), STATUS_OK);
    assert_string_equal(text, "llama");
    assert_int_equal(length, 5);
    assert_int_equal(gguf_get_string(g, "a.u32", &text, &length, &err), STATUS_FORMAT);
    assert_int_equal(gguf_get_array(g, "a.strings", &n, &err), STATUS_OK);
    assert_int_equal(n, 3);
    assert_int_equal(gguf_array_string(g, "a.strings", 1, &text, &length, &err), STATUS_OK);
    assert_int_equal(length, 3);
    assert_memory_equal(text, "t\0o", 4);
    assert_int_equal(gguf_array_string(g, "a.strings", 2, &text, &length, &err), STATUS_OK);
    assert_int_equal(length, 0);
    int64_t ints[2];
    float floats[2];
    assert_int_equal(gguf_array_i64(g, "a.i16s", ints, 2, &err), STATUS_OK);
    assert_int_equal(ints[0], -2);
    assert_int_equal(ints[1], 300);
    assert_int_equal(gguf_array_f32(g, "a.f32s", floats, 2, &err), STATUS_OK);
    assert_true(floats[0] == 1.5F && floats[1] == -2);
    assert_int_equal(gguf_array_f32(g, "a.i16s", floats, 2, &err), STATUS_FORMAT);
    assert_int_equal(gguf_array_i64(g, "a.strings", ints, 3, &err), STATUS_FORMAT);
    assert_int_equal(gguf_get_array(g, "a.u32", &n, &err), STATUS_FORMAT);

    char value[32];
    assert_true(gguf_describe(g, 0, &key, value, sizeof value));
    assert_string_equal(key, "general.architecture");
    assert_string_equal(value, "llama");
    assert_true(gguf_describe(g, 8, &key, value, sizeof value));
    assert_string_equal(value, "[3 string]");
    assert_false(gguf_describe(g, 12, &key, value, sizeof value));

    const struct tensors *t = gguf_tensors(g);
    assert_int_equal(tensors_count(t), 2);
    const struct tensor *w = tensors_find(t, "w");
    assert_int_equal(w->dtype, DTYPE_Q8_0);
    assert_int_equal(w->shape[0], 3); /* outermost first */
    assert_int_equal(w->shape[1], 32);
    assert_int_equal(w->size_bytes, 102);
    unsigned char bytes[4];
    assert_int_equal(tensor_read(t, w, 34, 4, bytes, &err), STATUS_OK);
    assert_int_equal(bytes[0], 34);
    gguf_close(g);
    gguf_close(NULL);
}

/* A file with one wrong pair, or whatever `make` leaves in the buffer. */
static void not_gguf(struct buf *b)
{
    buf_puts(b, "GGML");
    put_zeros(b, 60);
}
static void empty(struct buf *b)
{
    (void)b;
}
static void version_1(struct buf *b)
{
    put_gguf_front(b, 1, 0, 0);
}
static void big_endian(struct buf *b)
{
    put_gguf_front(b, 0x03000000, 0, 0);
}
static void many_pairs(struct buf *b)
{
    put_gguf_front(b, 3, 0, UINT64_MAX);
}
static void many_tensors(struct buf *b)
{
    put_gguf_front(b, 3, 1ULL << 60, 0);
}
static void pairs_beyond_the_file(struct buf *b)
{
    put_gguf_front(b, 3, 0, 60000);
}
static void key_length(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_u64(b, UINT64_MAX);
    put_zeros(b, 30);
}
static void empty_key(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_gguf_u32(b, "", 1);
    put_zeros(b, 30);
}
static void nul_in_key(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_u64(b, 3);
    buf_append(b, "a\0b", 3);
    put_zeros(b, 30);
}
static void duplicate_key(struct buf *b)
{
    put_gguf_front(b, 3, 0, 2);
    put_gguf_u32(b, "k", 1);
    put_gguf_u32(b, "k", 2);
}
static void value_type(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_gguf_key(b, "k", 13);
    put_zeros(b, 30);
}
static void string_length(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_gguf_key(b, "k", 8);
    put_u64(b, UINT64_MAX - 3);
    put_zeros(b, 30);
}
static void bool_2(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_gguf_key(b, "k", 7);
    buf_putc(b, 2);
}
static void array_of_arrays(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_gguf_key(b, "k", 9);
    put_u32(b, 9);
    put_u64(b, 1);
    put_zeros(b, 30);
}
static void array_type(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_gguf_key(b, "k", 9);
    put_u32(b, 77);
    put_u64(b, 1);
    put_zeros(b, 30);
}
static void array_count(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_gguf_key(b, "k", 9);
    put_u32(b, 12);
    put_u64(b, (UINT64_MAX >> 3) + 2);
    put_zeros(b, 30);
}
static void string_array_count(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_gguf_key(b, "k", 9);
    put_u32(b, 8);
    put_u64(b, 4);
    put_zeros(b, 30);
}
static void string_array_item(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_gguf_key(b, "k", 9);
    put_u32(b, 8);
    put_u64(b, 1);
    put_u64(b, 1000);
    put_zeros(b, 30);
}
static void bool_array(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_gguf_key(b, "k", 9);
    put_u32(b, 7);
    put_u64(b, 2);
    buf_putc(b, 1);
    buf_putc(b, 9);
}
static void alignment_0(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_gguf_u32(b, "general.alignment", 0);
}
static void alignment_48(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_gguf_u32(b, "general.alignment", 48);
}
static void alignment_huge(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_gguf_u32(b, "general.alignment", 0x80000000U);
}
static void alignment_text(struct buf *b)
{
    put_gguf_front(b, 3, 0, 1);
    put_gguf_text(b, "general.alignment", "32");
}

/* One tensor of this table entry, then n_data bytes of data. */
static void one_tensor(struct buf *b, uint64_t inner, uint64_t outer, uint32_t type, uint64_t offset,
                       size_t n_data)
{
    put_gguf_front(b, 3, 1, 0);
    put_gguf_tensor(b, "w", inner, outer, type, offset);
    put_gguf_padding(b, 32);
    put_zeros(b, n_data);
}
static void cut_table(struct buf *b)
{
    put_gguf_front(b, 3, 1, 0);
    put_gguf_string(b, "w");
    put_u32(b, 4);
    for (int i = 0; i < 3; i++)
        put_u64(b, 1);
}
static void five_dims(struct buf *b)
{
    put_gguf_front(b, 3, 1, 0);
    put_gguf_string(b, "w");
    put_u32(b, 5);
    put_zeros(b, 100);
}
static void no_dims(struct buf *b)
{
    put_gguf_front(b, 3, 1, 0);
    put_gguf_string(b, "w");
    put_u32(b, 0);
    put_zeros(b, 100);
}
static void zero_dim(struct buf *b)
{
    one_tensor(b, 0, 4, 0, 0, 64);
}
static void dims_wrap(struct buf *b)
{
    one_tensor(b, 1ULL << 33, 1ULL << 33, 0, 0, 64);
}
static void bytes_wrap(struct buf *b)
{
    one_tensor(b, 1ULL << 31, 1ULL << 31, 0, 0, 64);
}
static void half_block(struct buf *b)
{
    one_tensor(b, 48, 1, 8, 0, 64);
}
static void unknown_type(struct buf *b)
{
    one_tensor(b, 256, 1, 21, 0, 64);
}
static void nonsense_type(struct buf *b)
{
    one_tensor(b, 32, 1, 4242, 0, 64);
}
static void odd_offset(struct buf *b)
{
    one_tensor(b, 4, 1, 0, 8, 64);
}
static void offset_wraps(struct buf *b)
{
    one_tensor(b, 4, 4, 0, UINT64_MAX - 31, 64);
}
static void data_cut(struct buf *b)
{
    one_tensor(b, 32, 2, 0, 0, 255);
}
static void no_data(struct buf *b)
{
    put_gguf_front(b, 3, 1, 0);
    put_gguf_tensor(b, "w", 4, 1, 0, 0);
}
static void data_left_over(struct buf *b)
{
    one_tensor(b, 32, 2, 0, 0, 256 + 32);
}
static void hole_in_front(struct buf *b)
{
    one_tensor(b, 8, 1, 0, 32, 64);
}
static void overlap(struct buf *b)
{
    put_gguf_front(b, 3, 2, 0);
    put_gguf_tensor(b, "v", 16, 1, 0, 0);
    put_gguf_tensor(b, "w", 16, 1, 0, 32);
    put_gguf_padding(b, 32);
    put_zeros(b, 96);
}
static void tensor_twice(struct buf *b)
{
    put_gguf_front(b, 3, 2, 0);
    put_gguf_tensor(b, "w", 8, 1, 0, 0);
    put_gguf_tensor(b, "w", 8, 1, 0, 32);
    put_gguf_padding(b, 32);
    put_zeros(b, 64);
}

#define BAD(make, status, text)                                                                              \
    {                                                                                                        \
#make, make, STATUS_##status, text                                                                   \
    }
static const struct {
    const char *what;
    void (*make)(struct buf *b);
    enum status status;
    const char *text;
} bad[] = {
    BAD(not_gguf, FORMAT, "not a GGUF file"),
    BAD(empty, FORMAT, "cut short: the magic"),
    BAD(version_1, UNSUPPORTED, "GGUF version 1, expected 2 or 3"),
    BAD(big_endian, UNSUPPORTED, "a big-endian file"),
    BAD(many_pairs, TOO_LARGE, "18446744073709551615 metadata pairs"),
    BAD(many_tensors, TOO_LARGE, "1152921504606846976 tensors"),
    BAD(pairs_beyond_the_file, FORMAT, "60000 metadata pairs and 0 tensors don't fit into 0 bytes"),
    BAD(key_length, FORMAT, "a metadata key at byte 32 has 18446744073709551615 bytes, expected 1 to 256"),
    BAD(empty_key, FORMAT, "has 0 bytes"),
    BAD(nul_in_key, FORMAT, "contains a NUL"),
    BAD(duplicate_key, FORMAT, "key 'k' is given twice"),
    BAD(value_type, FORMAT, "k: value type 13"),
    BAD(string_length, FORMAT, "cut short: k at byte"),
    BAD(bool_2, FORMAT, "k is 2, expected a bool"),
    BAD(array_of_arrays, UNSUPPORTED, "k: an array of arrays"),
    BAD(array_type, FORMAT, "k: array item type 77"),
    BAD(array_count, FORMAT, "k has 2305843009213693953 items"),
    BAD(string_array_count, FORMAT, "k has 4 items"),
    BAD(string_array_item, FORMAT, "cut short: k at byte"),
    BAD(bool_array, FORMAT, "k: item 1 is 9"),
    BAD(alignment_0, FORMAT, "general.alignment is 0"),
    BAD(alignment_48, FORMAT, "general.alignment is 48, expected a power of two"),
    BAD(alignment_huge, FORMAT, "general.alignment is 2147483648"),
    BAD(alignment_text, FORMAT, "general.alignment is of type string"),
    BAD(cut_table, FORMAT, "cut short: w at byte"),
    BAD(five_dims, FORMAT, "'w' has 5 dimensions"),
    BAD(no_dims, FORMAT, "'w' has 0 dimensions"),
    BAD(zero_dim, FORMAT, "'w': dimension 0 is 0"),
    BAD(dims_wrap, FORMAT, "'w': dimension 1 is 8589934592"),
    BAD(bytes_wrap, FORMAT, "'w': its size overflows"),
    BAD(half_block, FORMAT, "'w': rows of 48 values are not whole blocks of q8_0"),
    BAD(unknown_type, UNSUPPORTED, "'w' has type IQ3_S (21); supported are"),
    BAD(nonsense_type, UNSUPPORTED, "'w' has type unknown (4242)"),
    BAD(odd_offset, FORMAT, "'w': offset 8 is not a multiple of 32"),
    BAD(offset_wraps, FORMAT, "cut short: tensor 'w' wants"),
    BAD(data_cut, FORMAT, "cut short: tensor 'w' wants 256 bytes at data byte 0, the file has 255"),
    BAD(no_data, FORMAT, "cut short: the data would begin"),
    BAD(data_left_over, FORMAT, "32 bytes behind the last tensor"),
    BAD(hole_in_front, FORMAT, "a hole between tensors"),
    BAD(overlap, FORMAT, "tensors overlap"),
    BAD(tensor_twice, FORMAT, "tensor 'w' is given twice"),
};

static void malformed_files_get_their_error(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err = {0};
        struct gguf *g;
        struct buf b;
        buf_init(&b, 0);
        bad[i].make(&b);
        enum status s = open_bytes(&b, &g, &err);
        if (s != bad[i].status || !strstr(err.text, bad[i].text) || g)
            fail_msg("%s: got %s '%s', expected %s '%s'", bad[i].what, status_name(s), err.text,
                     status_name(bad[i].status), bad[i].text);
    }
}

static void every_cut_is_seen(void **state)
{
    (void)state;
    struct buf b;
    put_sound(&b);
    for (size_t n = 0; n < b.length; n++) {
        struct error err = {0};
        struct gguf *g;
        put_file(place.path, "m.gguf", b.data, n);
        enum status s = gguf_open(path, NULL, &g, &err);
        if (s != STATUS_FORMAT)
            fail_msg("cut to %zu bytes: %s '%s'", n, status_name(s), err.text);
    }
    buf_fini(&b);
}

/* Each byte of a sound file changed in turn: any outcome but a crash (the sanitizers watch). */
static void every_flipped_byte_is_survived(void **state)
{
    (void)state;
    struct buf b;
    put_sound(&b);
    for (size_t i = 0; i < b.length; i++) {
        static const unsigned char flips[] = {0x01, 0x80, 0xff};
        for (size_t k = 0; k < sizeof flips; k++) {
            struct error err = {0};
            struct gguf *g;
            b.data[i] = (char)(b.data[i] ^ flips[k]);
            put_file(place.path, "m.gguf", b.data, b.length);
            if (gguf_open(path, NULL, &g, &err) == STATUS_OK)
                gguf_close(g);
            b.data[i] = (char)(b.data[i] ^ flips[k]);
        }
    }
    buf_fini(&b);
}

static void memory_may_fail_anywhere(void **state)
{
    (void)state;
    struct buf b;
    struct gguf *g = NULL;
    put_sound(&b);
    put_file(place.path, "m.gguf", b.data, b.length);
    buf_fini(&b);
    enum status s;
    uint64_t n = 0;
    do {
        struct error err;
        mem_fail_at(++n);
        s = gguf_open(path, NULL, &g, &err);
        mem_fail_at(0);
        if (s != STATUS_OK)
            assert_int_equal(s, STATUS_NO_MEMORY);
    } while (s != STATUS_OK && n < 1000);
    assert_int_equal(s, STATUS_OK);
    assert_true(n > 5);
    gguf_close(g);
}

static void header_limit_holds(void **state)
{
    (void)state;
    struct buf b;
    struct gguf *g;
    struct error err;
    put_sound(&b);
    put_file(place.path, "m.gguf", b.data, b.length);
    buf_fini(&b);
    struct tensors_limits narrow = {.header_bytes = 100}, few = {.n_tensors = 1};
    assert_int_equal(gguf_open(path, &narrow, &g, &err), STATUS_TOO_LARGE);
    assert_non_null(strstr(err.text, "exceed 100 bytes"));
    assert_int_equal(gguf_open(path, &few, &g, &err), STATUS_TOO_LARGE);
}

static void rope_rows_are_a_permutation(void **state)
{
    (void)state;
    /* Hugging Face rows of one head of 8: halves 0-3 and 4-7; the GGUF order interleaves them. */
    static const uint64_t expected[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    for (uint64_t r = 0; r < 8; r++) {
        assert_int_equal(gguf_rope_row(r, 2, 8), expected[r]);
        assert_int_equal(gguf_rope_row(8 + r, 2, 8), 8 + expected[r]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_file_is_read),        cmocka_unit_test(malformed_files_get_their_error),
        cmocka_unit_test(every_cut_is_seen),           cmocka_unit_test(every_flipped_byte_is_survived),
        cmocka_unit_test(memory_may_fail_anywhere),    cmocka_unit_test(header_limit_holds),
        cmocka_unit_test(rope_rows_are_a_permutation),
    };
    return cmocka_run_group_tests(tests, make_place, remove_place);
}
