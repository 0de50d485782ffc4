/* A safetensors file: length, header, data (see safetensors.c). The header is padded with spaces to eight
 * bytes, as the reference writer does, so that data begins aligned. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tensor_writer.h"

static const char *element_name(enum dtype type)
{
    static const struct {
        enum dtype type;
        const char *name;
    } names[] = {{DTYPE_F32, "F32"}, {DTYPE_F16, "F16"}, {DTYPE_BF16, "BF16"},      {DTYPE_I8, "I8"},
                 {DTYPE_I32, "I32"}, {DTYPE_I64, "I64"}, {DTYPE_F8_E4M3, "F8_E4M3"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].type == type)
            return names[i].name;
    return NULL;
}

static json_t *entry_of(const struct tensor *t, uint64_t begin, uint64_t end)
{
    json_t *shape = json_array();
    for (uint32_t i = 0; i < t->n_dims; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", element_name(t->dtype), "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)end);
}

static enum status fill_header(json_t *header, const struct tensor *items, size_t n, struct error *err)
{
    uint64_t begin = 0, end;
    for (size_t i = 0; i < n; i++, begin = end) {
        if (!element_name(items[i].dtype))
            return fail(err, STATUS_UNSUPPORTED, "tensor '%s': safetensors has no type %s", items[i].name,
                        dtype_name(items[i].dtype));
        if (json_object_get(header, items[i].name))
            return fail(err, STATUS_INVALID, "tensor '%s' is given twice", items[i].name);
        if (!u64_add(begin, items[i].size_bytes, &end) || end > INT64_MAX)
            return fail(err, STATUS_TOO_LARGE, "tensor '%s': the file would be too large", items[i].name);
        if (json_object_set_new(header, items[i].name, entry_of(&items[i], begin, end)) != 0)
            return fail(err, STATUS_INVALID, "tensor '%s': its name is no UTF-8 text, or memory is short",
                        items[i].name);
    }
    return STATUS_OK;
}

/* Length and header into `out`. */
static enum status render(json_t *header, struct buf *out, struct error *err)
{
    char *text = json_dumps(header, JSON_COMPACT);
    size_t n = text ? strlen(text) : 0, padded = (n + 7) / 8 * 8;
    unsigned char length[8];
    for (unsigned i = 0; i < sizeof length; i++)
        length[i] = (unsigned char)(padded >> 8 * i);
    if (text) {
        buf_append(out, length, sizeof length);
        buf_append(out, text, n);
        while (!out->failed && out->length < 8 + padded)
            buf_putc(out, ' ');
    }
    free(text);
    return text && !out->failed ? STATUS_OK
                                : fail(err, STATUS_TOO_LARGE, "a header of %zu bytes, or memory is short", n);
}

enum status safetensors_create(const struct out_place *o, const struct tensor_file *f,
                               struct tensor_writer **out, struct error *err)
{
    struct buf head;
    json_t *header = json_object(), *pairs = json_object();
    *out = NULL;
    buf_init(&head, WRITTEN_HEADER_MAX);
    for (size_t i = 0; i < f->n_metadata; i++)
        json_object_set_new(pairs, f->metadata[i].key, json_string(f->metadata[i].value));
    if (f->n_metadata)
        json_object_set(header, "__metadata__", pairs);
    json_decref(pairs);
    enum status s = fill_header(header, f->items, f->n_items, err);
    if (s == STATUS_OK)
        s = render(header, &head, err);
    json_decref(header);
    s = s != STATUS_OK ? fail_within(err, "%s/%s", o->path, f->name)
                       : tensor_writer_begin(&(struct tensor_writer_place){o, f, 1}, &head, out, err);
    buf_fini(&head);
    return s;
}
