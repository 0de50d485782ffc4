/* Data of tensors into a file, one behind another, each padded to an alignment. The formats' own writers put
 * what stands before it. Bounded like the readers: what they would refuse is not written. */
#include "tensor_writer.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct tensor_writer {
    struct out_file file;
    const struct tensor *items;
    size_t n_items, at; /* at: the tensor whose bytes come next */
    uint64_t n_missing; /* bytes of it */
    uint32_t alignment;
};

enum status tensor_describe(struct tensor *t, const char *name, enum dtype dtype, uint32_t n_dims,
                            const uint64_t *shape, struct error *err)
{
    size_t length = strlen(name);
    *t = (struct tensor){.name = name, .dtype = dtype, .n_dims = n_dims, .n_values = 1};
    if (length == 0 || length > WRITTEN_NAME_MAX)
        return fail(err, STATUS_INVALID, "tensor name '%.60s' has %zu bytes, expected 1 to %d", name, length,
                    WRITTEN_NAME_MAX);
    require(n_dims <= TENSOR_DIMS_MAX);
    for (uint32_t i = 0; i < TENSOR_DIMS_MAX; i++)
        t->shape[i] = i < n_dims ? shape[i] : 1;
    bool fits = true;
    for (uint32_t i = 0; i < n_dims; i++)
        fits = fits && shape[i] > 0 && u64_mul(t->n_values, shape[i], &t->n_values);
    uint64_t row = n_dims ? shape[n_dims - 1] : 1, row_bytes = 0;
    fits = fits && dtype_row_bytes(dtype, row, &row_bytes) &&
           u64_mul(row_bytes, t->n_values / row, &t->size_bytes) && t->size_bytes <= INT64_MAX;
    return fits ? STATUS_OK
                : fail(err, STATUS_INVALID, "tensor '%s': a dimension is zero, too large or no whole block",
                       name);
}

static int compare(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    uint32_t width_x = dtype_info(x->dtype)->block_bytes, width_y = dtype_info(y->dtype)->block_bytes;
    if (width_x != width_y)
        return width_x > width_y ? -1 : 1;
    return strcmp(x->name, y->name);
}

void tensors_order(struct tensor *items, size_t n)
{
    if (n)
        qsort(items, n, sizeof *items, compare);
}

static enum status create(const struct out_place *o, const struct tensor_file *f, uint32_t alignment,
                          struct tensor_writer **out, struct error *err)
{
    *out = NULL;
    if (f->n_items == 0 || f->n_items > WRITTEN_TENSORS_MAX)
        return fail(err, STATUS_TOO_LARGE, "%s/%s: %zu tensors, expected 1 to %u", o->path, f->name,
                    f->n_items, WRITTEN_TENSORS_MAX);
    struct tensor_writer *w = mem_zalloc(sizeof *w);
    if (!w)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", f->name);
    w->items = f->items;
    w->n_items = f->n_items;
    w->n_missing = f->items[0].size_bytes;
    w->alignment = alignment;
    enum status s = out_file_open(&w->file, o, f->name, err);
    if (s != STATUS_OK)
        tensor_writer_close(w);
    else
        *out = w;
    return s;
}

enum status tensor_writer_begin(const struct tensor_writer_place *p, const struct buf *head,
                                struct tensor_writer **out, struct error *err)
{
    enum status s = create(p->place, p->file, p->alignment, out, err);
    if (s == STATUS_OK)
        s = out_file_write(&(*out)->file, head->data, head->length, err);
    if (s != STATUS_OK) {
        tensor_writer_close(*out);
        *out = NULL;
    }
    return s;
}

static enum status pad(struct tensor_writer *w, struct error *err)
{
    static const char zeros[64];
    size_t n = (size_t)((w->alignment - w->file.n_bytes % w->alignment) % w->alignment);
    require(w->alignment <= sizeof zeros);
    return n ? out_file_write(&w->file, zeros, n, err) : STATUS_OK;
}

enum status tensor_writer_put(struct tensor_writer *w, const void *bytes, uint64_t n_bytes, struct error *err)
{
    const char *p = bytes;
    enum status s = STATUS_OK;
    while (n_bytes > 0 && s == STATUS_OK) {
        require(w->at < w->n_items);
        uint64_t n = n_bytes < w->n_missing ? n_bytes : w->n_missing;
        s = out_file_write(&w->file, p, (size_t)n, err);
        p += n;
        n_bytes -= n;
        w->n_missing -= n;
        if (w->n_missing > 0 || s != STATUS_OK)
            continue;
        s = pad(w, err);
        w->n_missing = ++w->at < w->n_items ? w->items[w->at].size_bytes : 0;
    }
    return s;
}

enum status tensor_writer_finish(struct tensor_writer *w, struct error *err)
{
    require(w->at == w->n_items);
    return out_file_finish(&w->file, err);
}

void tensor_writer_close(struct tensor_writer *w)
{
    if (!w)
        return;
    out_file_close(&w->file);
    mem_free(w);
}
