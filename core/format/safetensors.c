/* The safetensors container: 8 bytes of header length, a JSON header, then one data section.
 *
 *     [n: u64 LE] [header: n bytes of JSON] [data]
 *     header = { "__metadata__": {str: str}, NAME: {"dtype", "shape", "data_offsets": [begin, end]}, … }
 *
 * Refused is what the reference reader refuses (huggingface/safetensors): duplicate names, extents that leave
 * holes, overlap or don't cover the data section exactly, a size that shape and dtype don't give, overflow.
 * Element types that no linear algebra of ours reads are checked like the others and kept aside by name. */
#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "tensors.h"

#define HEADER_DEPTH 3 /* object → tensor → shape */

struct element {
    const char *name;
    uint32_t bytes;
    int dtype; /* enum dtype, or -1: foreign */
};

static const struct element elements[] = {
    {"F32", 4, DTYPE_F32},
    {"F16", 2, DTYPE_F16},
    {"BF16", 2, DTYPE_BF16},
    {"I8", 1, DTYPE_I8},
    {"I32", 4, DTYPE_I32},
    {"I64", 8, DTYPE_I64},
    {"F8_E4M3", 1, DTYPE_F8_E4M3},
    {"BOOL", 1, -1},
    {"U8", 1, -1},
    {"I16", 2, -1},
    {"U16", 2, -1},
    {"U32", 4, -1},
    {"U64", 8, -1},
    {"F64", 8, -1},
    {"F8_E5M2", 1, -1},
    {"F8_E8M0", 1, -1},
    {"F8_E4M3FNUZ", 1, -1},
    {"F8_E5M2FNUZ", 1, -1},
    {"C64", 8, -1},
};

static const struct element *find_element(const char *name)
{
    for (size_t i = 0; i < sizeof elements / sizeof *elements; i++)
        if (strcmp(elements[i].name, name) == 0)
            return &elements[i];
    return NULL;
}

/* One file's header on its way into the set. */
struct reading {
    struct tensors *t;
    const char *shown;
    uint32_t file_index;
    uint64_t data_begin, data_bytes;
    struct extent *extents; /* room for one a header entry */
    size_t n_extents;
};

static bool get_size(const json_t *v, uint64_t *out)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

static enum status read_shape(const struct reading *r, const char *name, const json_t *shape,
                              struct tensor *out, struct error *err)
{
    size_t n = json_array_size(shape);
    if (!json_is_array(shape))
        return fail(err, STATUS_FORMAT, "%s: tensor '%s': shape is not an array", r->shown, name);
    if (n > TENSOR_DIMS_MAX)
        return fail(err, STATUS_UNSUPPORTED, "%s: tensor '%s' has %zu dimensions, at most %d are supported",
                    r->shown, name, n, TENSOR_DIMS_MAX);
    out->n_dims = (uint32_t)n;
    out->n_values = 1;
    for (size_t i = 0; i < TENSOR_DIMS_MAX; i++) {
        out->shape[i] = 1;
        if (i >= n)
            continue;
        if (!get_size(json_array_get(shape, i), &out->shape[i]))
            return fail(err, STATUS_FORMAT, "%s: tensor '%s': shape[%zu] is not a size", r->shown, name, i);
        if (!u64_mul(out->n_values, out->shape[i], &out->n_values))
            return fail(err, STATUS_FORMAT, "%s: tensor '%s': the shape's product overflows", r->shown, name);
    }
    return STATUS_OK;
}

static enum status read_entry(struct reading *r, const char *name, const json_t *entry, struct error *err)
{
    const json_t *dtype = json_object_get(entry, "dtype"), *shape = json_object_get(entry, "shape"),
                 *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_object(entry) || !json_is_string(dtype) || !shape || !offsets)
        return fail(err, STATUS_FORMAT,
                    "%s: tensor '%.100s': expected an object with dtype, shape, data_offsets", r->shown,
                    name);
    if (json_object_size(entry) != 3)
        return fail(err, STATUS_FORMAT, "%s: tensor '%.100s' has fields besides dtype, shape, data_offsets",
                    r->shown, name);
    const struct element *e = find_element(json_string_value(dtype));
    if (!e)
        return fail(err, STATUS_UNSUPPORTED, "%s: tensor '%.100s' has dtype %.40s, which is not known",
                    r->shown, name, json_string_value(dtype));
    struct tensor item = {.name = name, .file_index = r->file_index};
    enum status s = read_shape(r, name, shape, &item, err);
    if (s != STATUS_OK)
        return s;
    uint64_t begin, end, size;
    if (json_array_size(offsets) != 2 || !get_size(json_array_get(offsets, 0), &begin) ||
        !get_size(json_array_get(offsets, 1), &end) || begin > end)
        return fail(err, STATUS_FORMAT, "%s: tensor '%.100s': data_offsets is not [begin, end]", r->shown,
                    name);
    if (!u64_mul(item.n_values, e->bytes, &size) || size != end - begin)
        return fail(err, STATUS_FORMAT,
                    "%s: tensor '%.100s': data_offsets span %llu bytes, shape and dtype need another number",
                    r->shown, name, (unsigned long long)(end - begin));
    if (end > r->data_bytes)
        return fail(err, STATUS_FORMAT,
                    "%s: cut short: tensor '%.100s' ends at data byte %llu, the file has %llu", r->shown,
                    name, (unsigned long long)end, (unsigned long long)r->data_bytes);
    r->extents[r->n_extents++] = (struct extent){.begin = begin, .end = end, .name = name};
    if (e->dtype < 0) {
        struct foreign f = {.name = name,
                            .type = e->name,
                            .offset = r->data_begin + begin,
                            .size_bytes = size,
                            .file_index = r->file_index};
        return tensors_add_foreign(r->t, &f, err);
    }
    item.dtype = (enum dtype)e->dtype;
    item.size_bytes = size;
    item.offset = r->data_begin + begin;
    return tensors_add(r->t, &item, err);
}

static enum status read_metadata(struct reading *r, const json_t *metadata, struct error *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return fail(err, STATUS_FORMAT, "%s: __metadata__ is not an object", r->shown);
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
    {
        if (!json_is_string(value))
            return fail(err, STATUS_FORMAT, "%s: __metadata__: '%.40s' is not a string", r->shown, key);
        enum status s = tensors_add_metadata(r->t, key, json_string_value(value), err);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

static enum status read_header(struct reading *r, json_t *header, struct error *err)
{
    const char *name;
    json_t *entry;
    enum status s = STATUS_OK;
    if (!json_is_object(header))
        return fail(err, STATUS_FORMAT, "%s: the header is not a JSON object", r->shown);
    r->extents = mem_array(json_object_size(header), sizeof *r->extents);
    if (!r->extents)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory for the header", r->shown);
    json_object_foreach(header, name, entry)
    {
        s = strcmp(name, "__metadata__") == 0 ? read_metadata(r, entry, err)
                                              : read_entry(r, name, entry, err);
        if (s != STATUS_OK)
            break;
    }
    if (s == STATUS_OK)
        s = tensors_check_extents(r->extents, r->n_extents, 1, r->data_bytes, r->shown, err);
    mem_free(r->extents);
    return s;
}

/* The header's length and place, checked against file and limit. */
static enum status read_length(const struct tensors *t, const struct source *src, uint64_t *header_bytes,
                               struct error *err)
{
    unsigned char le[8];
    uint64_t n = 0;
    if (src->file.size_bytes < sizeof le)
        return fail(err, STATUS_FORMAT, "%s: cut short: %llu bytes are no safetensors file", src->file.path,
                    (unsigned long long)src->file.size_bytes);
    enum status s = source_read(src, 0, le, sizeof le, err);
    if (s != STATUS_OK)
        return s;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | le[i];
    if (n > t->header_bytes_max)
        return fail(
            err, STATUS_TOO_LARGE,
            "%s: the header would have %llu bytes, at most %llu are allowed (is this a safetensors file?)",
            src->file.path, (unsigned long long)n, (unsigned long long)t->header_bytes_max);
    if (n > src->file.size_bytes - sizeof le)
        return fail(err, STATUS_FORMAT, "%s: cut short: the header would have %llu bytes, the file has %llu",
                    src->file.path, (unsigned long long)n, (unsigned long long)src->file.size_bytes);
    if (n < 2)
        return fail(err, STATUS_FORMAT, "%s: a header of %llu bytes", src->file.path, (unsigned long long)n);
    *header_bytes = n;
    return STATUS_OK;
}

enum status safetensors_add(struct tensors *t, int dir_fd, const char *shown_dir, const char *name,
                            const struct private_copy *copy, struct error *err)
{
    uint32_t file_index;
    uint64_t n = 0;
    json_t *header = NULL;
    enum status s = tensors_add_file(t, dir_fd, shown_dir, name, copy, &file_index, err);
    if (s != STATUS_OK)
        return s;
    const struct source *src = &t->sources[file_index];
    s = read_length(t, src, &n, err);
    if (s != STATUS_OK)
        return s;
    char *text = mem_alloc((size_t)n);
    if (!text)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory for the header", src->file.path);
    s = source_read(src, 8, text, (size_t)n, err);
    if (s == STATUS_OK && text[0] != '{')
        s = fail(err, STATUS_FORMAT, "%s: the header does not begin with '{'", src->file.path);
    if (s == STATUS_OK)
        s = json_parse(text, (size_t)n, src->file.path, HEADER_DEPTH, &header, err);
    mem_free(text);
    if (s == STATUS_OK) {
        struct reading r = {.t = t,
                            .shown = src->file.path,
                            .file_index = file_index,
                            .data_begin = 8 + n,
                            .data_bytes = src->file.size_bytes - 8 - n};
        s = read_header(&r, header, err);
    }
    json_decref(header);
    return s;
}

enum status tensors_open_safetensors(const char *path, const struct tensors_limits *limits,
                                     struct tensors **out, struct error *err)
{
    *out = NULL;
    struct tensors *t = tensors_create(limits);
    if (!t)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", path);
    enum status s = safetensors_add(t, -1, NULL, path, limits ? limits->copy : NULL, err);
    if (s == STATUS_OK)
        s = tensors_finish(t, err);
    if (s == STATUS_OK)
        *out = t;
    else
        tensors_close(t);
    return s;
}
