/* core/format: safetensors files and folders of shards, sound and malformed; private copies. */
#include "tests/test.h"

#include "base/mem.h"
#include "format.h"
#include "tests/unit/made_files.h"

#define T(name, dtype, shape, begin, end)                                                                    \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void a_sound_file_is_read(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct error err;
    struct tensors *t;
    char path[128];
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"}," T("b", "F32", "[2,3]", 8, 32) "," T(
        "a", "BF16", "[4]", 0, 8) "," T("mask", "BOOL", "[2]", 32, 34) "," T("none", "F16", "[0,7]", 34,
                                                                             34) "," T("one", "I64", "[]", 34,
                                                                                       42) "}  ";
    struct buf b;
    buf_init(&b, 0);
    put_u64(&b, sizeof header - 1);
    buf_puts(&b, header);
    for (char c = 0; c < 42; c++)
        buf_putc(&b, c);
    put_file(f.path, "m.safetensors", b.data, b.length);
    buf_fini(&b);
    snprintf(path, sizeof path, "%s/m.safetensors", f.path);
    assert_int_equal(tensors_open_safetensors(path, NULL, &t, &err), STATUS_OK);
    assert_int_equal(tensors_count(t), 4);
    assert_string_equal(tensors_metadata(t, "format"), "pt");
    assert_null(tensors_metadata(t, "absent"));
    assert_null(tensors_find(t, "mask"));
    assert_null(tensors_find(t, "absent"));
    const char *name, *type;
    assert_true(tensors_foreign_at(t, 0, &name, &type));
    assert_string_equal(name, "mask");
    assert_string_equal(type, "BOOL");
    assert_false(tensors_foreign_at(t, 1, &name, &type));
    assert_string_equal(tensors_at(t, 0)->name, "b"); /* file order */
    const struct tensor *x = tensors_find(t, "b");
    assert_int_equal(x->dtype, DTYPE_F32);
    assert_int_equal(x->n_dims, 2);
    assert_int_equal(x->shape[0], 2);
    assert_int_equal(x->shape[1], 3);
    assert_int_equal(x->shape[2], 1);
    assert_int_equal(x->n_values, 6);
    assert_int_equal(x->size_bytes, 24);
    unsigned char slice[4];
    assert_int_equal(tensor_read(t, x, 12, 4, slice, &err), STATUS_OK);
    for (int i = 0; i < 4; i++)
        assert_int_equal(slice[i], 8 + 12 + i);
    assert_null(tensor_data(t, x)); /* read in place */
    assert_int_equal(tensors_find(t, "none")->n_values, 0);
    assert_int_equal(tensors_find(t, "one")->n_values, 1);
    assert_non_null(strstr(tensors_file_name(t, x->file_index), "m.safetensors"));
    tensors_close(t);
    tensors_close(NULL);
    folder_remove(&f);
}

static const struct {
    const char *what, *header;
    size_t n_data;
    enum status status;
    const char *text;
} bad[] = {
    {"no JSON", "{x", 0, STATUS_FORMAT, "m.safetensors:1:"},
    {"an array", "[1]", 0, STATUS_FORMAT, "does not begin with '{'"},
    {"space first", " {}", 0, STATUS_FORMAT, "does not begin with '{'"},
    {"name twice", "{" T("a", "U8", "[4]", 0, 4) "," T("a", "F32", "[1]", 0, 4) "}", 4, STATUS_FORMAT,
     "duplicate"},
    {"entry is no object", "{\"a\":3}", 0, STATUS_FORMAT, "'a': expected an object"},
    {"no dtype", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, STATUS_FORMAT,
     "'a': expected an object"},
    {"surplus field", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4,
     STATUS_FORMAT, "'a' has fields besides"},
    {"unknown dtype", "{" T("a", "F7", "[1]", 0, 4) "}", 4, STATUS_UNSUPPORTED, "'a' has dtype F7"},
    {"sub-byte dtype", "{" T("a", "F4", "[2]", 0, 1) "}", 1, STATUS_UNSUPPORTED, "'a' has dtype F4"},
    {"shape is no array", "{" T("a", "F32", "4", 0, 4) "}", 4, STATUS_FORMAT, "shape is not an array"},
    {"shape of reals", "{" T("a", "F32", "[1.0]", 0, 4) "}", 4, STATUS_FORMAT, "shape[0] is not a size"},
    {"negative shape", "{" T("a", "F32", "[-1]", 0, 4) "}", 4, STATUS_FORMAT, "shape[0] is not a size"},
    {"five dimensions", "{" T("a", "F32", "[1,1,1,1,1]", 0, 4) "}", 4, STATUS_UNSUPPORTED, "5 dimensions"},
    {"shape product wraps", "{" T("a", "F32", "[4294967296,4294967296,4]", 0, 4) "}", 4, STATUS_FORMAT,
     "product overflows"},
    {"byte size wraps", "{" T("a", "F32", "[4611686018427387905]", 0, 4) "}", 4, STATUS_FORMAT,
     "another number"},
    {"size is another", "{" T("a", "F32", "[2]", 0, 4) "}", 4, STATUS_FORMAT, "span 4 bytes"},
    {"offsets reversed", "{" T("a", "F32", "[1]", 4, 0) "}", 4, STATUS_FORMAT, "not [begin, end]"},
    {"three offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, STATUS_FORMAT,
     "not [begin, end]"},
    {"negative offset", "{" T("a", "F32", "[1]", -4, 0) "}", 4, STATUS_FORMAT, "not [begin, end]"},
    {"beyond the file", "{" T("a", "F32", "[2]", 0, 8) "}", 4, STATUS_FORMAT, "cut short: tensor 'a'"},
    {"overlap", "{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[1]", 4, 8) "}", 8, STATUS_FORMAT,
     "overlap"},
    {"same place", "{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 0, 4) "}", 4, STATUS_FORMAT,
     "overlap"},
    {"hole", "{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 8, 12) "}", 12, STATUS_FORMAT, "a hole"},
    {"hole at the front", "{" T("a", "F32", "[1]", 4, 8) "}", 8, STATUS_FORMAT, "a hole"},
    {"bytes left over", "{" T("a", "F32", "[1]", 0, 4) "}", 7, STATUS_FORMAT, "3 bytes behind"},
    {"foreign beyond the file", "{" T("a", "F64", "[2]", 0, 16) "}", 8, STATUS_FORMAT,
     "cut short: tensor 'a'"},
    {"metadata is no object", "{\"__metadata__\":[]}", 0, STATUS_FORMAT, "__metadata__ is not an object"},
    {"metadata is no string", "{\"__metadata__\":{\"k\":1}}", 0, STATUS_FORMAT, "'k' is not a string"},
    {"too deep", "{\"a\":{\"shape\":[[1]]}}", 0, STATUS_FORMAT, "nested deeper"},
    {"empty name", "{" T("", "F32", "[1]", 0, 4) "}", 4, STATUS_FORMAT, "has 0 bytes"},
    {"NUL in a name", "{" T("a\\u0000b", "F32", "[1]", 0, 4) "}", 4, STATUS_FORMAT, "m.safetensors:1:"},
};

static void malformed_files_get_their_error(void **state)
{
    (void)state;
    struct folder f = folder_make();
    char path[128];
    snprintf(path, sizeof path, "%s/m.safetensors", f.path);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err = {0};
        struct tensors *t;
        put_safetensors(f.path, "m.safetensors", bad[i].header, bad[i].n_data);
        enum status s = tensors_open_safetensors(path, NULL, &t, &err);
        if (s != bad[i].status || !strstr(err.text, bad[i].text) || t)
            fail_msg("%s: got %s '%s', expected %s '%s'", bad[i].what, status_name(s), err.text,
                     status_name(bad[i].status), bad[i].text);
    }
    folder_remove(&f);
}

static void header_lengths_are_checked(void **state)
{
    (void)state;
    static const struct {
        uint64_t length;
        size_t n_bytes; /* of the file */
        const char *text;
    } cases[] = {{0, 0, "cut short: 0 bytes"},
                 {2, 7, "cut short: 7 bytes"},
                 {0, 8, "a header of 0 bytes"},
                 {100, 50, "would have 100 bytes, the file has 50"},
                 {43, 50, "would have 43 bytes, the file has 50"},
                 {UINT64_MAX, 50, "18446744073709551615 bytes, at most"},
                 {(100ULL << 20) + 1, 50, "at most 104857600"}};
    struct folder f = folder_make();
    char path[128];
    snprintf(path, sizeof path, "%s/m.safetensors", f.path);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err = {0};
        struct tensors *t;
        unsigned char bytes[64] = {0};
        memcpy(bytes, &cases[i].length, 8);
        put_file(f.path, "m.safetensors", bytes, cases[i].n_bytes);
        assert_int_not_equal(tensors_open_safetensors(path, NULL, &t, &err), STATUS_OK);
        if (!strstr(err.text, cases[i].text))
            fail_msg("got '%s', expected '%s'", err.text, cases[i].text);
    }
    folder_remove(&f);
}

static void limits_hold(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct error err;
    struct tensors *t;
    char path[128], header[700], name[300];
    snprintf(path, sizeof path, "%s/m.safetensors", f.path);
    put_safetensors(f.path, "m.safetensors",
                    "{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 4, 8) "}", 8);
    struct tensors_limits one = {.n_tensors = 1};
    assert_int_equal(tensors_open_safetensors(path, &one, &t, &err), STATUS_TOO_LARGE);
    assert_non_null(strstr(err.text, "more than 1 tensors"));
    struct tensors_limits narrow = {.header_bytes = 20};
    assert_int_equal(tensors_open_safetensors(path, &narrow, &t, &err), STATUS_TOO_LARGE);
    memset(name, 'n', sizeof name - 1);
    name[257] = '\0';
    snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
             name);
    put_safetensors(f.path, "m.safetensors", header, 4);
    assert_int_equal(tensors_open_safetensors(path, NULL, &t, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.text, "has 257 bytes"));
    folder_remove(&f);
}

static void shards_follow_their_index(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct error err;
    struct tensors *t;
    put_safetensors(f.path, "m-1.safetensors", "{" T("a", "F32", "[1]", 0, 4) "}", 4);
    put_safetensors(f.path, "m-2.safetensors",
                    "{" T("b", "F32", "[2]", 0, 8) "," T("c", "U8", "[1]", 8, 9) "}", 9);
    put_text(f.path, "m.safetensors.index.json",
             "{\"metadata\":{\"total_size\":13},\"weight_map\":{\"a\":\"m-1.safetensors\","
             "\"b\":\"m-2.safetensors\",\"c\":\"m-2.safetensors\"}}");
    assert_int_equal(tensors_open_folder(f.fd, f.path, "m", NULL, &t, &err), STATUS_OK);
    assert_int_equal(tensors_count(t), 2);
    assert_int_not_equal(tensors_find(t, "a")->file_index, tensors_find(t, "b")->file_index);
    tensors_close(t);

    static const struct {
        const char *map, *text;
        enum status status;
    } cases[] = {
        {"\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"",
         "tensor 'c': the index says it is in no shard", STATUS_FORMAT},
        {"\"a\":\"m-2.safetensors\",\"b\":\"m-2.safetensors\",\"c\":\"m-1.safetensors\"",
         "tensor 'a': the index says it is in m-2", STATUS_FORMAT},
        {"\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\",\"c\":\"m-2.safetensors\",\"d\":\"m-2."
         "safetensors\"",
         "tensor 'd' is not in its shard", STATUS_FORMAT},
        {"\"a\":\"m-3.safetensors\"", "shard m-3.safetensors is listed but not there", STATUS_FORMAT},
        {"\"a\":\"../m-1.safetensors\"", "expected a plain file name", STATUS_FORMAT},
        {"\"a\":\"/etc/passwd\"", "expected a plain file name", STATUS_FORMAT},
        {"\"a\":\".safetensors\"", "expected a plain file name", STATUS_FORMAT},
        {"\"a\":7", "expected a plain file name", STATUS_FORMAT},
        {"", "no weight_map", STATUS_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char index[500];
        snprintf(index, sizeof index, "{\"weight_map\":{%s}}", cases[i].map);
        put_text(f.path, "m.safetensors.index.json", index);
        enum status s = tensors_open_folder(f.fd, f.path, "m", NULL, &t, &err);
        if (s != cases[i].status || !strstr(err.text, cases[i].text))
            fail_msg("%s: got %s '%s', expected '%s'", cases[i].map, status_name(s), err.text, cases[i].text);
    }
    /* The same name in two shards. */
    put_safetensors(f.path, "m-2.safetensors", "{" T("a", "F32", "[1]", 0, 4) "}", 4);
    put_text(f.path, "m.safetensors.index.json",
             "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}");
    assert_int_equal(tensors_open_folder(f.fd, f.path, "m", NULL, &t, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.text, "'a' is given twice"));
    assert_int_equal(tensors_open_folder(f.fd, f.path, "absent", NULL, &t, &err), STATUS_NOT_FOUND);
    folder_remove(&f);
}

struct seen {
    int n_files;
    size_t n_bytes;
};

static void count_seen(void *data, const char *name, const void *bytes, size_t n_bytes)
{
    struct seen *s = data;
    (void)name, (void)bytes;
    s->n_files++;
    s->n_bytes += n_bytes;
}

static void private_copies_survive_changes_and_stay_inside(void **state)
{
    (void)state;
    struct folder root = folder_make();
    struct error err;
    struct tensors *t;
    struct seen seen = {0};
    char dir[128], outside[] = "/tmp/lorikeet-outside-XXXXXX", link[200], blob[200];
    snprintf(dir, sizeof dir, "%s/pt", root.path);
    assert_int_equal(mkdir(dir, 0700), 0);
    put_safetensors(dir, "m.safetensors", "{" T("a", "F32", "[1]", 0, 4) "}", 4);
    int fd;
    assert_int_equal(folder_open(root.fd, "pt", &fd, &err), STATUS_OK);
    struct private_copy copy = {
        .limit_bytes = 1000, .root_fd = root.fd, .folder = "pt", .seen = count_seen, .data = &seen};
    struct tensors_limits limits = {.copy = &copy};
    assert_int_equal(tensors_open_folder(fd, "pt", "m", &limits, &t, &err), STATUS_OK);
    assert_int_equal(seen.n_files, 1);
    snprintf(link, sizeof link, "%s/m.safetensors", dir);
    assert_int_equal(truncate(link, 0), 0); /* the copy doesn't care */
    float value = 1;
    assert_int_equal(tensor_read(t, tensors_find(t, "a"), 0, 4, &value, &err), STATUS_OK);
    assert_true(value == 0);
    assert_non_null(tensor_data(t, tensors_find(t, "a")));
    tensors_close(t);

    /* A link to a blob below the root is followed, as in a Hugging Face cache; one that leaves is not. */
    assert_int_equal(unlink(link), 0);
    put_safetensors(root.path, "blob", "{" T("a", "F32", "[1]", 0, 4) "}", 4);
    assert_int_equal(symlink("../blob", link), 0);
    assert_int_equal(tensors_open_folder(fd, "pt", "m", &limits, &t, &err), STATUS_OK);
    tensors_close(t);
    int out = mkstemp(outside);
    close(out);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(symlink(outside, link), 0);
    assert_int_equal(tensors_open_folder(fd, "pt", "m", &limits, &t, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "outside the allowed folder"));
    unlink(outside);

    copy.limit_bytes = 10;
    copy.root_fd = -1;
    snprintf(blob, sizeof blob, "%s/blob", root.path);
    assert_int_equal(tensors_open_safetensors(blob, &limits, &t, &err), STATUS_TOO_LARGE);
    close(fd);
    folder_remove(&root);
}

static void memory_may_fail_anywhere(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct tensors *t = NULL;
    put_safetensors(f.path, "m-1.safetensors",
                    "{\"__metadata__\":{\"k\":\"v\"}," T("a", "F32", "[1]", 0, 4) "}", 4);
    put_safetensors(f.path, "m-2.safetensors",
                    "{" T("b", "F32", "[2]", 0, 8) "," T("c", "U8", "[1]", 8, 9) "}", 9);
    put_text(
        f.path, "m.safetensors.index.json",
        "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\",\"c\":\"m-2.safetensors\"}}");
    struct private_copy copy = {.limit_bytes = 1000, .root_fd = -1};
    struct tensors_limits limits = {.copy = &copy};
    enum status s;
    uint64_t n = 0;
    do {
        struct error err;
        mem_fail_at(++n);
        s = tensors_open_folder(f.fd, f.path, "m", &limits, &t, &err);
        mem_fail_at(0);
        if (s != STATUS_OK)
            assert_int_equal(s, STATUS_NO_MEMORY);
    } while (s != STATUS_OK && n < 1000);
    assert_int_equal(s, STATUS_OK);
    assert_true(n > 10);
    tensors_close(t);
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_file_is_read),
        cmocka_unit_test(malformed_files_get_their_error),
        cmocka_unit_test(header_lengths_are_checked),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(shards_follow_their_index),
        cmocka_unit_test(private_copies_survive_changes_and_stay_inside),
        cmocka_unit_test(memory_may_fail_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
