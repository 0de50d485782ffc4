/* Files made in a temporary folder for tests of readers: safetensors and GGUF, right or wrong on purpose. */
#ifndef LK_TESTS_MADE_FILES_H
#define LK_TESTS_MADE_FILES_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"

struct folder {
    char path[64];
    int fd;
};

static inline struct folder folder_make(void)
{
    struct folder f = {.path = "/tmp/lorikeet-test-XXXXXX", .fd = -1};
    assert_non_null(mkdtemp(f.path));
    assert_int_equal(folder_open(-1, f.path, &f.fd, NULL), 0);
    return f;
}

static inline void folder_empty(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        char inner[512];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        assert_true(path_join(inner, sizeof inner, path, e->d_name));
        if (unlink(inner) != 0) {
            folder_empty(inner);
            rmdir(inner);
        }
    }
    closedir(d);
}

static inline void folder_remove(struct folder *f)
{
    folder_empty(f->path);
    rmdir(f->path);
    close(f->fd);
}

static inline void put_file(const char *dir, const char *name, const void *bytes, size_t n)
{
    char path[512];
    assert_true(path_join(path, sizeof path, dir, name));
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, n, out), n);
    assert_int_equal(fclose(out), 0);
}

static inline void put_text(const char *dir, const char *name, const char *text)
{
    put_file(dir, name, text, strlen(text));
}

static inline void put_u32(struct buf *b, uint32_t v)
{
    assert_true(buf_append(b, &v, sizeof v));
}

static inline void put_u64(struct buf *b, uint64_t v)
{
    assert_true(buf_append(b, &v, sizeof v));
}

static inline void put_zeros(struct buf *b, size_t n)
{
    while (n--)
        assert_true(buf_putc(b, '\0'));
}

/* A safetensors file of this header and n_data bytes of zeros. */
static inline void put_safetensors(const char *dir, const char *name, const char *header, size_t n_data)
{
    struct buf b;
    buf_init(&b, 0);
    put_u64(&b, strlen(header));
    assert_true(buf_puts(&b, header));
    put_zeros(&b, n_data);
    put_file(dir, name, b.data, b.length);
    buf_fini(&b);
}

/* ---- GGUF pieces */

static inline void put_gguf_front(struct buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_pairs)
{
    assert_true(buf_puts(b, "GGUF"));
    put_u32(b, version);
    put_u64(b, n_tensors);
    put_u64(b, n_pairs);
}

static inline void put_gguf_string(struct buf *b, const char *s)
{
    put_u64(b, strlen(s));
    assert_true(buf_puts(b, s));
}

static inline void put_gguf_key(struct buf *b, const char *key, uint32_t type)
{
    put_gguf_string(b, key);
    put_u32(b, type);
}

static inline void put_gguf_u32(struct buf *b, const char *key, uint32_t v)
{
    put_gguf_key(b, key, 4);
    put_u32(b, v);
}

static inline void put_gguf_f32(struct buf *b, const char *key, float v)
{
    put_gguf_key(b, key, 6);
    assert_true(buf_append(b, &v, sizeof v));
}

static inline void put_gguf_text(struct buf *b, const char *key, const char *v)
{
    put_gguf_key(b, key, 8);
    put_gguf_string(b, v);
}

/* A two-dimensional tensor's table entry; `inner` is the row's length. */
static inline void put_gguf_tensor(struct buf *b, const char *name, uint64_t inner, uint64_t outer,
                                   uint32_t type, uint64_t offset)
{
    put_gguf_string(b, name);
    put_u32(b, 2);
    put_u64(b, inner);
    put_u64(b, outer);
    put_u32(b, type);
    put_u64(b, offset);
}

static inline void put_gguf_padding(struct buf *b, size_t alignment)
{
    while (b->length % alignment)
        assert_true(buf_putc(b, '\0'));
}

#endif
