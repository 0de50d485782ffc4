/* Writers of core/format (safetensors_out.c, gguf_out.c): what is written is what the readers read, and what
 * they would refuse is not written. */
#include "tests/test.h"

#include "base/mem.h"
#include "base/out.h"
#include "format.h"
#include "made_files.h"

static const float floats[6] = {1, -2, 3.5F, 0, 1e-20F, 7};
static const uint16_t halves[3] = {0x3f80, 0xbf80, 0x4000};

/* A bf16 vector of an odd length, an f32 matrix, an i32 scalar. */
static void describe(struct tensor items[3])
{
    const uint64_t shapes[3][2] = {{3}, {2, 3}, {1}};
    assert_int_equal(tensor_describe(&items[0], "a.half", DTYPE_BF16, 1, shapes[0], NULL), STATUS_OK);
    assert_int_equal(tensor_describe(&items[1], "z \"w\"", DTYPE_F32, 2, shapes[1], NULL), STATUS_OK);
    assert_int_equal(tensor_describe(&items[2], "one", DTYPE_I32, 1, shapes[2], NULL), STATUS_OK);
    assert_true(items[1].n_values == 6 && items[1].size_bytes == 24 && items[2].size_bytes == 4);
    tensors_order(items, 3);
    assert_string_equal(items[0].name, "one");
    assert_string_equal(items[2].name, "a.half");
}

static enum status put_all(struct tensor_writer *w, struct error *err)
{
    static const int32_t one = 41;
    enum status s = tensor_writer_put(w, &one, 4, err);
    for (size_t i = 0; i < 6 && s == STATUS_OK; i++) /* in pieces */
        s = tensor_writer_put(w, &floats[i], 4, err);
    if (s == STATUS_OK)
        s = tensor_writer_put(w, halves, sizeof halves, err);
    return s == STATUS_OK ? tensor_writer_finish(w, err) : s;
}

static void check(const struct tensors *t)
{
    float f[6];
    uint16_t h[3];
    int32_t one;
    struct error err;
    assert_int_equal(tensors_count(t), 3);
    const struct tensor *w = tensors_find(t, "z \"w\""), *half = tensors_find(t, "a.half"),
                        *i = tensors_find(t, "one");
    assert_true(w && half && i && w->n_dims == 2 && w->shape[0] == 2 && w->shape[1] == 3);
    assert_true(half->dtype == DTYPE_BF16 && half->shape[0] == 3 && i->dtype == DTYPE_I32);
    assert_int_equal(tensor_read(t, w, 0, 24, f, &err), STATUS_OK);
    assert_int_equal(tensor_read(t, half, 0, 6, h, &err), STATUS_OK);
    assert_int_equal(tensor_read(t, i, 0, 4, &one, &err), STATUS_OK);
    assert_memory_equal(f, floats, sizeof f);
    assert_memory_equal(h, halves, sizeof h);
    assert_int_equal(one, 41);
    assert_true(w->offset % 4 == 0 && i->offset % 4 == 0);
}

static enum status write_file(const struct folder *f, bool gguf, struct error *err)
{
    static const int32_t ids[] = {5, 70000};
    const struct gguf_pair pairs[] = {{.key = "general.type", .type = GGUF_PAIR_TEXT, .text = "adapter"},
                                      {.key = "n", .type = GGUF_PAIR_U32, .u32 = 7},
                                      {.key = "alpha", .type = GGUF_PAIR_F32, .f32 = 2.5F},
                                      {.key = "ids", .type = GGUF_PAIR_IDS, .ids = ids, .n_ids = 2}};
    const struct text_pair metadata[] = {{"format", "pt"}};
    struct tensor items[3];
    struct tensor_writer *w = NULL;
    struct out_place o = {.stop = NULL};
    char path[200];
    describe(items);
    snprintf(path, sizeof path, "%s/written", f->path);
    enum status s = out_begin(&o, path, err);
    const struct tensor_file file = {.name = "f",
                                     .items = items,
                                     .n_items = 3,
                                     .metadata = metadata,
                                     .n_metadata = 1,
                                     .pairs = pairs,
                                     .n_pairs = 4};
    if (s == STATUS_OK)
        s = gguf ? gguf_create(&o, &file, &w, err) : safetensors_create(&o, &file, &w, err);
    if (s == STATUS_OK)
        s = put_all(w, err);
    tensor_writer_close(w);
    if (s == STATUS_OK)
        s = out_commit_file(&o, "f", err);
    out_abandon(&o);
    return s;
}

static void safetensors_is_read_back(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct error err;
    struct tensors *t;
    char path[200];
    assert_int_equal(write_file(&f, false, &err), STATUS_OK);
    snprintf(path, sizeof path, "%s/written", f.path);
    if (tensors_open_safetensors(path, NULL, &t, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    check(t);
    assert_int_equal(tensors_at(t, 0)->offset % 8, 0);
    assert_string_equal(tensors_metadata(t, "format"), "pt");
    tensors_close(t);
    folder_remove(&f);
}

static void gguf_is_read_back(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct error err;
    struct gguf *g;
    char path[200];
    const char *text;
    uint64_t n;
    double alpha;
    int64_t ids[2];
    assert_int_equal(write_file(&f, true, &err), STATUS_OK);
    snprintf(path, sizeof path, "%s/written", f.path);
    if (gguf_open(path, NULL, &g, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    check(gguf_tensors(g));
    assert_int_equal(gguf_get_string(g, "general.type", &text, NULL, &err), STATUS_OK);
    assert_string_equal(text, "adapter");
    assert_true(gguf_get_u64(g, "n", &n, &err) == STATUS_OK && n == 7);
    assert_true(gguf_get_f64(g, "alpha", &alpha, &err) == STATUS_OK && alpha == 2.5);
    assert_true(gguf_array_i64(g, "ids", ids, 2, &err) == STATUS_OK && ids[0] == 5 && ids[1] == 70000);
    gguf_close(g);
    folder_remove(&f);
}

static void memory_may_fail_anywhere(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct error err;
    for (int gguf = 0; gguf < 2; gguf++) {
        enum status s = STATUS_NO_MEMORY;
        for (uint64_t n = 1; s != STATUS_OK && n < 100; n++) {
            mem_fail_at(n);
            s = write_file(&f, gguf, &err);
            mem_fail_at(0);
            assert_true(s == STATUS_OK || s == STATUS_NO_MEMORY || s == STATUS_TOO_LARGE);
        }
        assert_int_equal(s, STATUS_OK);
        folder_empty(f.path);
    }
    folder_remove(&f);
}

static void bounds_are_kept(void **state)
{
    (void)state;
    struct tensor t, two[2];
    struct error err;
    struct tensor_writer *w;
    struct out_place o = {.parent_fd = -1, .path = "x"};
    char name[400];
    const uint64_t zero[] = {3, 0}, huge[] = {1ULL << 40, 1ULL << 40}, odd[] = {2, 33}, fine[] = {2};
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(tensor_describe(&t, name, DTYPE_F32, 1, fine, &err), STATUS_INVALID);
    assert_int_equal(tensor_describe(&t, "", DTYPE_F32, 1, fine, &err), STATUS_INVALID);
    assert_int_equal(tensor_describe(&t, "t", DTYPE_F32, 2, zero, &err), STATUS_INVALID);
    assert_int_equal(tensor_describe(&t, "t", DTYPE_F32, 2, huge, &err), STATUS_INVALID);
    assert_int_equal(tensor_describe(&t, "t", DTYPE_Q8_0, 2, odd, &err), STATUS_INVALID);
    assert_int_equal(tensor_describe(&two[0], "t", DTYPE_F32, 1, fine, &err), STATUS_OK);
    two[1] = two[0];
    struct tensor_file file = {.name = "f", .items = two, .n_items = 2};
    assert_int_equal(safetensors_create(&o, &file, &w, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "'t' is given twice"));
    two[0].dtype = DTYPE_Q4_0;
    file.n_items = 1;
    assert_int_equal(safetensors_create(&o, &file, &w, &err), STATUS_UNSUPPORTED);
    two[0].dtype = DTYPE_F8_E4M3;
    assert_int_equal(gguf_create(&o, &file, &w, &err), STATUS_UNSUPPORTED);
    file.n_items = 0;
    assert_int_equal(safetensors_create(&o, &file, &w, &err), STATUS_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_is_read_back),
        cmocka_unit_test(gguf_is_read_back),
        cmocka_unit_test(memory_may_fail_anywhere),
        cmocka_unit_test(bounds_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
