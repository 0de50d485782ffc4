/* Packed files: what was written is mapped, byte by byte the same; whatever is wrong with one, the model is
 * opened from its own files, and info.not_mapped says why. */
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "made_files.h"
#include "model_inner.h"

#define SOURCE "tests/golden/data/models/llama/f32"

struct rig {
    struct folder folder;
    char source[128], packed[128], temp[160];
    struct model *model; /* packed from the source */
    struct buf file;     /* the packed file as it was written */
};

static void copy_file(const char *from_dir, const char *to_dir, const char *name)
{
    char path[512];
    struct buf b;
    buf_init(&b, 0);
    assert_true(path_join(path, sizeof path, from_dir, name));
    assert_int_equal(file_read_all(path, (size_t)1 << 26, &b, NULL), STATUS_OK);
    put_file(to_dir, name, b.data, b.length);
    buf_fini(&b);
}

static struct model *open_quant(const char *source, const char *packed, enum quant quant, struct team *team)
{
    struct error err = {0};
    struct model_files *files;
    struct model_options o = {.quant = quant, .packed_path = packed, .team = team};
    struct model *m = NULL;
    assert_int_equal(kernels_select("scalar", ACT_MODE_INT8, &o.kernels, &err), STATUS_OK);
    if (model_files_open(source, &files, &err) != STATUS_OK || model_open(files, &o, &m, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    model_files_close(files);
    return m;
}

static struct model *open_packed(const struct rig *r)
{
    return open_quant(r->source, r->packed, QUANT_Q8_0, NULL);
}

static enum status write_packed(const struct model *m, const char *path, struct error *err)
{
    return model_write_packed(m, &(struct packed_write_options){.path = path}, err);
}

static void put_packed(const struct rig *r, const void *bytes, size_t n)
{
    FILE *out = fopen(r->packed, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, n, out), n);
    assert_int_equal(fclose(out), 0);
}

static void rig_init(struct rig *r)
{
    struct error err;
    *r = (struct rig){.folder = folder_make()};
    snprintf(r->source, sizeof r->source, "%s/model", r->folder.path);
    snprintf(r->packed, sizeof r->packed, "%s/kept.lkpack", r->folder.path);
    snprintf(r->temp, sizeof r->temp, "%s.tmp", r->packed);
    assert_int_equal(mkdir(r->source, 0700), 0);
    copy_file(SOURCE, r->source, "config.json");
    copy_file(SOURCE, r->source, "model.safetensors");
    r->model = open_quant(r->source, r->packed, QUANT_Q8_0, NULL);
    assert_int_equal(model_info(r->model)->source, WEIGHTS_PACKED);
    assert_string_equal(model_info(r->model)->not_mapped, "");
    if (write_packed(r->model, r->packed, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    buf_init(&r->file, 0);
    assert_int_equal(file_read_all(r->packed, (size_t)1 << 26, &r->file, NULL), STATUS_OK);
}

static void rig_fini(struct rig *r)
{
    model_close(r->model);
    buf_fini(&r->file);
    folder_remove(&r->folder);
}

static void expect_same_weights(const struct model *a, const struct model *b)
{
    const struct model_info *x = model_info(a), *y = model_info(b);
    assert_int_equal(a->parts.n, b->parts.n);
    for (uint32_t i = 0; i < a->parts.n; i++) {
        const struct packed_part *p = &a->parts.items[i], *q = &b->parts.items[i];
        assert_int_equal(p->size_bytes, q->size_bytes);
        assert_memory_equal(p->data, q->data, p->size_bytes);
        assert_int_equal((uintptr_t)q->data % (p->rows > 1 ? 64 : 4), 0); /* vectors are read as they lie */
    }
    assert_memory_equal(x->digest, y->digest, 32);
    assert_int_equal(x->size_bytes, y->size_bytes);
    assert_int_equal(x->n_parameters, y->n_parameters);
    assert_int_equal(x->weight_type, y->weight_type);
    assert_memory_equal(a->layers[0].norm[0], b->layers[0].norm[0], sizeof(float));
}

static bool comes_from_file(const struct model *m)
{
    return model_info(m)->source != WEIGHTS_PACKED;
}

/* The file is there, isn't used, and `why` is said; the weights are right all the same. */
static void expect_refused(const struct rig *r, const char *why)
{
    struct model *m = open_packed(r);
    if (comes_from_file(m) || !strstr(model_info(m)->not_mapped, why))
        fail_msg("expected \"%s\", found \"%s\"", why, model_info(m)->not_mapped);
    expect_same_weights(r->model, m);
    model_close(m);
}

static void test_written_is_mapped(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    struct team *team = team_create(3);
    for (int with = 0; with < 2; with++) {
        struct model *m = open_quant(r.source, r.packed, QUANT_Q8_0, with ? team : NULL);
        assert_true(comes_from_file(m));
        assert_string_equal(model_info(m)->not_mapped, "");
        expect_same_weights(r.model, m);
        model_close(m);
    }
    struct stat st;
    assert_int_equal(stat(r.packed, &st), 0);
    assert_int_equal(st.st_mode & 0022, 0);
    assert_int_not_equal(stat(r.temp, &st), 0);
    team_destroy(team);
    rig_fini(&r);
}

/* A mapped model is written as a packed one is: the same bytes. */
static void test_written_again(void **state)
{
    (void)state;
    struct rig r;
    struct buf again;
    struct error err;
    rig_init(&r);
    struct model *m = open_packed(&r);
    put_text(r.folder.path, "kept.lkpack.tmp", "what a killed process left");
    assert_int_equal(write_packed(m, r.packed, &err), STATUS_OK); /* over the one that is mapped */
    buf_init(&again, 0);
    assert_int_equal(file_read_all(r.packed, (size_t)1 << 26, &again, NULL), STATUS_OK);
    assert_int_equal(again.length, r.file.length);
    assert_memory_equal(again.data, r.file.data, again.length);
    expect_same_weights(r.model, m);
    buf_fini(&again);
    model_close(m);
    rig_fini(&r);
}

/* ---- what is wrong with a file ---- */

static void test_damaged_bytes(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    size_t n = r.file.length, header = sizeof(struct packed_header);
    struct packed_header h;
    memcpy(&h, r.file.data, sizeof h);
    for (size_t at = 0; at < n;) {
        r.file.data[at] ^= 0x10;
        put_packed(&r, r.file.data, n);
        /* what lies between header and tables is nobody's */
        if (at < header || at >= PACKED_HEADER_BYTES)
            expect_refused(&r, "kept.lkpack: ");
        r.file.data[at] ^= 0x10;
        at += at < header ? 1 : at < h.data_at ? 977 : n / 7;
    }
    r.file.data[n - 1] ^= 1;
    put_packed(&r, r.file.data, n);
    expect_refused(&r, "the sum of block 0 is wrong");
    rig_fini(&r);
}

static void test_other_sizes(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    size_t n = r.file.length;
    const size_t cuts[] = {0, 1, 8, 100, 167, 168, 4095, 4096, 5000, n / 2, n - 4096, n - 1};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        put_packed(&r, r.file.data, cuts[i]);
        expect_refused(&r, "kept.lkpack: ");
    }
    assert_true(buf_append(&r.file, "", 1));
    put_packed(&r, r.file.data, n + 1);
    expect_refused(&r, "bytes, expected");
    rig_fini(&r);
}

/* Right sums over wrong numbers: as another version, or somebody, may write them. */
struct forgery {
    void (*apply)(struct packed_header *h, struct packed_file_part *parts);
    const char *why;
};
static void no_magic(struct packed_header *h, struct packed_file_part *p)
{
    (void)p;
    h->magic[0] = 'l';
}
static void other_order(struct packed_header *h, struct packed_file_part *p)
{
    (void)p;
    h->byte_order = 0x04030201;
}
static void other_format(struct packed_header *h, struct packed_file_part *p)
{
    (void)p;
    h->format_version++;
}
static void other_layout(struct packed_header *h, struct packed_file_part *p)
{
    (void)p;
    h->layout_version--;
}
static void other_product(struct packed_header *h, struct packed_file_part *p)
{
    (void)p;
    memset(h->product, 'x', sizeof h->product); /* without an end */
}
static void other_table(struct packed_header *h, struct packed_file_part *p)
{
    (void)p;
    h->key.table[31] ^= 1;
}
static void other_content(struct packed_header *h, struct packed_file_part *p)
{
    (void)p;
    h->key.content++;
}
static void many_parts(struct packed_header *h, struct packed_file_part *p)
{
    (void)p;
    h->n_parts = UINT32_MAX;
}
static void one_part_less(struct packed_header *h, struct packed_file_part *p)
{
    (void)p;
    h->n_parts--;
}
static void data_nowhere(struct packed_header *h, struct packed_file_part *p)
{
    (void)p;
    h->data_at = UINT64_MAX - 4095;
}
static void huge_file(struct packed_header *h, struct packed_file_part *p)
{
    (void)p;
    h->file_bytes = UINT64_MAX;
}
static void part_outside(struct packed_header *h, struct packed_file_part *p)
{
    p[1].offset = h->file_bytes + 4096;
}
static void part_crooked(struct packed_header *h, struct packed_file_part *p)
{
    (void)h;
    p[1].offset += 64;
}
static void part_too_long(struct packed_header *h, struct packed_file_part *p)
{
    (void)h;
    p[1].size_bytes = UINT64_MAX - 10;
}
static void part_of_another_type(struct packed_header *h, struct packed_file_part *p)
{
    (void)h;
    p[0].type = DTYPE_F32;
}
static void part_of_another_shape(struct packed_header *h, struct packed_file_part *p)
{
    p[h->n_parts - 1].rows++; /* seen when all others have been taken */
}

static void test_forged(void **state)
{
    (void)state;
    static const struct forgery forgeries[] = {
        {no_magic, "is no packed file"},
        {other_order, "another byte order"},
        {other_format, "has format 2, this program writes 1"},
        {other_layout, "has layout"},
        {other_product, "was written by version xxx"},
        {other_table, "was made from other tensors"},
        {other_content, "files have changed"},
        {many_parts, "don't fit into it"},
        {one_part_less, "kept.lkpack: "},
        {data_nowhere, "don't fit into it"},
        {huge_file, "bytes, expected"},
        {part_outside, "part 1 lies outside"},
        {part_crooked, "part 1 lies outside"},
        {part_too_long, "part 1 lies outside"},
        {part_of_another_type, "part 0 is not a q8_0 matrix"},
        {part_of_another_shape, "is not a"},
    };
    struct rig r;
    rig_init(&r);
    for (size_t i = 0; i < sizeof forgeries / sizeof *forgeries; i++) {
        struct buf b;
        struct packed_header h;
        buf_init(&b, 0);
        assert_true(buf_append(&b, r.file.data, r.file.length));
        memcpy(&h, b.data, sizeof h);
        size_t tables = h.data_at - PACKED_HEADER_BYTES;
        forgeries[i].apply(&h, (void *)(b.data + PACKED_HEADER_BYTES));
        h.tables_sum = packed_sum(b.data + PACKED_HEADER_BYTES, tables);
        packed_header_seal(&h);
        memcpy(b.data, &h, sizeof h);
        put_packed(&r, b.data, b.length);
        expect_refused(&r, forgeries[i].why);
        buf_fini(&b);
    }
    rig_fini(&r);
}

static void test_others_may_write_it(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    assert_int_equal(chmod(r.packed, 0664), 0);
    expect_refused(&r, "others may write it");
    assert_int_equal(chmod(r.packed, 0646), 0);
    expect_refused(&r, "others may write it");
    assert_int_equal(unlink(r.packed), 0);
    assert_int_equal(mkdir(r.packed, 0700), 0);
    expect_refused(&r, "not a regular file");
    rig_fini(&r);
}

/* ---- another source ---- */

static void test_source_changes(void **state)
{
    (void)state;
    struct rig r;
    char path[256], other[512];
    struct stat st;
    rig_init(&r);
    struct model *m = open_quant(r.source, r.packed, QUANT_BF16, NULL);
    assert_false(comes_from_file(m));
    assert_non_null(strstr(model_info(m)->not_mapped, "another --quant"));
    model_close(m);

    /* Moved with its times: the digest finds that it is the same. */
    assert_true(path_join(path, sizeof path, r.source, "model.safetensors"));
    assert_int_equal(stat(path, &st), 0);
    const struct timespec times[2] = {st.st_atim, st.st_mtim};
    snprintf(other, sizeof other, "%s.before", path);
    assert_int_equal(rename(path, other), 0);
    copy_file(SOURCE, r.source, "model.safetensors");
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    m = open_packed(&r);
    assert_true(comes_from_file(m));
    expect_same_weights(r.model, m);
    model_close(m);

    /* Other bytes with the same size and time: the digest finds that, too. */
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "\x11\x22\x33\x3f", 4, st.st_size - 4), 4);
    close(fd);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    m = open_packed(&r);
    assert_false(comes_from_file(m));
    assert_non_null(strstr(model_info(m)->not_mapped, "was made from other tensors"));
    model_close(m);

    assert_int_equal(utimensat(AT_FDCWD, path, NULL, 0), 0);
    m = open_packed(&r);
    assert_non_null(strstr(model_info(m)->not_mapped, "files have changed"));
    model_close(m);
    rig_fini(&r);
}

/* ---- writing ---- */

static bool at_once(void *data)
{
    (void)data;
    return true;
}

static void test_nothing_is_kept(void **state)
{
    (void)state;
    struct rig r;
    char path[256];
    struct error err;
    struct stat st;
    rig_init(&r);
    assert_int_equal(unlink(r.packed), 0);
    const struct packed_write_options stopped = {.path = r.packed, .stop = at_once};
    assert_int_equal(model_write_packed(r.model, &stopped, &err), STATUS_CANCELLED);
    snprintf(path, sizeof path, "%s/no such folder/x.lkpack", r.folder.path);
    assert_int_equal(write_packed(r.model, path, &err), STATUS_IO);
    assert_non_null(strstr(err.text, path));

    int fd = open(r.temp, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(write_packed(r.model, r.packed, &err), STATUS_CONFLICT);
    assert_int_equal(stat(r.temp, &st), 0); /* the other's */
    close(fd);
    assert_int_equal(unlink(r.temp), 0);

    struct rlimit all, few;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &all), 0);
    few = (struct rlimit){.rlim_cur = 8192, .rlim_max = all.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &few), 0);
    enum status s = write_packed(r.model, r.packed, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
    assert_int_equal(s, STATUS_IO);

    assert_int_not_equal(stat(r.packed, &st), 0);
    assert_int_not_equal(stat(r.temp, &st), 0);
    rig_fini(&r);
}

static void test_short_memory(void **state)
{
    (void)state;
    struct rig r;
    struct error err;
    rig_init(&r);
    enum status s = STATUS_NO_MEMORY;
    for (uint64_t n = 1; s != STATUS_OK; n++) {
        mem_fail_at(n);
        s = write_packed(r.model, r.packed, &err);
        mem_fail_at(0);
        assert_true(s == STATUS_OK || (s == STATUS_NO_MEMORY && n < 20));
    }
    struct model_files *files;
    struct model_options o = {.quant = QUANT_Q8_0, .packed_path = r.packed};
    struct model *m = NULL;
    assert_int_equal(kernels_select("scalar", ACT_MODE_INT8, &o.kernels, &err), STATUS_OK);
    assert_int_equal(model_files_open(r.source, &files, &err), STATUS_OK);
    bool from_file = false;
    for (uint64_t n = 1; !from_file; n++) { /* some attempts pack instead */
        mem_fail_at(n);
        s = model_open(files, &o, &m, &err);
        mem_fail_at(0);
        assert_true((s == STATUS_OK || (s == STATUS_NO_MEMORY && !m)) && n < 1000);
        from_file = m && comes_from_file(m) && model_info(m)->source == WEIGHTS_MAPPED;
        if (m)
            expect_same_weights(r.model, m);
        if (n > 200)
            from_file = true; /* no leases here: the file is only read */
        model_close(m);
    }
    model_files_close(files);
    rig_fini(&r);
}

/* ---- while it is mapped ---- */

static void test_nobody_cuts_it(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    struct model *m = open_packed(&r);
    assert_true(comes_from_file(m));
    if (model_info(m)->source == WEIGHTS_MAPPED) {
        int fd = open(r.packed, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
        assert_true(fd < 0 && errno == EWOULDBLOCK); /* it has told us, though */
    }
    assert_int_equal(truncate(r.packed, 0), 0); /* waits for our private copy */
    expect_same_weights(r.model, m);
    model_close(m);
    expect_refused(&r, "kept.lkpack: ");
    rig_fini(&r);
}

static void test_removed_and_replaced(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    struct model *m = open_packed(&r);
    put_text(r.folder.path, "other", "no weights");
    char other[256];
    snprintf(other, sizeof other, "%s/other", r.folder.path);
    assert_int_equal(rename(other, r.packed), 0);
    expect_same_weights(r.model, m);
    assert_int_equal(unlink(r.packed), 0);
    expect_same_weights(r.model, m);
    model_close(m);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_is_mapped),
        cmocka_unit_test(test_written_again),
        cmocka_unit_test(test_damaged_bytes),
        cmocka_unit_test(test_other_sizes),
        cmocka_unit_test(test_forged),
        cmocka_unit_test(test_others_may_write_it),
        cmocka_unit_test(test_source_changes),
        cmocka_unit_test(test_nothing_is_kept),
        cmocka_unit_test(test_short_memory),
        cmocka_unit_test(test_nobody_cuts_it),
        cmocka_unit_test(test_removed_and_replaced),
    };
    return cmocka_run_group_tests_name("packed files", tests, NULL, NULL);
}
