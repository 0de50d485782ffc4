/* The GGUF container, versions 2 and 3, little-endian (ggml docs/gguf.md).
 *
 *     "GGUF" version u32, n_tensors u64, n_pairs u64 | pairs | tensor table | padding | data
 *     table entry = name, n_dims u32, dims u64 (innermost first), type u32, offset u64 (in the data)
 *
 * Tensors must lie one behind the other, each begin aligned, up to the end of the file: the writer everyone
 * uses does that, and anything else is a file that was cut or made to be read two ways. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "gguf_meta.h"

#define PAIR_BYTES_MIN 14  /* key length 8, key 1, type 4, value 1 */
#define ENTRY_BYTES_MIN 33 /* name length 8, name 1, n_dims 4, one dim 8, type 4, offset 8 */
#define PAIRS_MAX 65536
#define ALIGNMENT_DEFAULT 32
#define ALIGNMENT_MAX 65536

/* Names of ggml's types that we don't read, for messages. */
static const char *ggml_type_name(uint32_t type)
{
    static const char *const names[] = {
        [9] = "Q8_1",   [15] = "Q8_K",  [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS",
        [19] = "IQ1_S", [21] = "IQ3_S", [22] = "IQ2_S",   [25] = "I16",    [28] = "F64",
        [29] = "IQ1_M", [34] = "TQ1_0", [35] = "TQ2_0",   [40] = "NVFP4",  [41] = "Q1_0",
    };
    const char *name = type < sizeof names / sizeof *names ? names[type] : NULL;
    return name ? name : "unknown";
}

static enum status read_front(struct cursor *c, uint32_t *version, uint64_t *n_tensors, uint64_t *n_pairs,
                              struct error *err)
{
    enum status s = cursor_need(c, 4, "the magic", err);
    if (s != STATUS_OK)
        return s;
    if (memcmp(c->bytes.data, "GGUF", 4) != 0)
        return fail(err, STATUS_FORMAT, "%s: not a GGUF file: it does not begin with 'GGUF'", c->shown);
    c->position = 4;
    s = cursor_u32(c, "the version", version, err);
    if (s != STATUS_OK)
        return s;
    if (*version != 2 && *version != 3)
        return fail(err, STATUS_UNSUPPORTED, "%s: GGUF version %u%s, expected 2 or 3", c->shown, *version,
                    *version && !(*version & 0xffff) ? " (a big-endian file)" : "");
    s = cursor_u64(c, "the number of tensors", n_tensors, err);
    return s == STATUS_OK ? cursor_u64(c, "the number of metadata pairs", n_pairs, err) : s;
}

static enum status check_counts(const struct cursor *c, const struct tensors *t, uint64_t n_tensors,
                                uint64_t n_pairs, struct error *err)
{
    if (n_pairs > PAIRS_MAX || n_tensors > t->n_tensors_max)
        return fail(err, STATUS_TOO_LARGE,
                    "%s: %llu metadata pairs and %llu tensors, at most %d and %u are supported", c->shown,
                    (unsigned long long)n_pairs, (unsigned long long)n_tensors, PAIRS_MAX, t->n_tensors_max);
    if (n_pairs * PAIR_BYTES_MIN + n_tensors * ENTRY_BYTES_MIN > cursor_left(c))
        return fail(err, STATUS_FORMAT,
                    "%s: cut short: %llu metadata pairs and %llu tensors don't fit into %llu bytes", c->shown,
                    (unsigned long long)n_pairs, (unsigned long long)n_tensors,
                    (unsigned long long)cursor_left(c));
    return STATUS_OK;
}

static enum status read_dims(struct cursor *c, struct tensor *item, struct error *err)
{
    enum status s = cursor_u32(c, item->name, &item->n_dims, err);
    if (s != STATUS_OK)
        return s;
    if (item->n_dims == 0 || item->n_dims > TENSOR_DIMS_MAX)
        return fail(err, STATUS_FORMAT, "%s: tensor '%s' has %u dimensions, expected 1 to %d", c->shown,
                    item->name, item->n_dims, TENSOR_DIMS_MAX);
    for (uint32_t i = 0; i < TENSOR_DIMS_MAX; i++)
        item->shape[i] = 1;
    item->n_values = 1;
    for (uint32_t i = 0; i < item->n_dims; i++) {
        uint64_t *dim = &item->shape[item->n_dims - 1 - i]; /* the file has the innermost first */
        s = cursor_u64(c, item->name, dim, err);
        if (s != STATUS_OK)
            return s;
        if (*dim == 0 || *dim > INT64_MAX || !u64_mul(item->n_values, *dim, &item->n_values))
            return fail(err, STATUS_FORMAT, "%s: tensor '%s': dimension %u is %llu: zero or too large",
                        c->shown, item->name, i, (unsigned long long)*dim);
    }
    return STATUS_OK;
}

static enum status read_entry(struct cursor *c, struct arena *names, uint64_t alignment, struct tensor *item,
                              struct error *err)
{
    uint32_t type = 0;
    enum status s = cursor_name(c, names, TENSOR_NAME_MAX, "a tensor's name", &item->name, err);
    if (s == STATUS_OK)
        s = read_dims(c, item, err);
    if (s == STATUS_OK)
        s = cursor_u32(c, item->name, &type, err);
    if (s == STATUS_OK)
        s = cursor_u64(c, item->name, &item->offset, err);
    if (s != STATUS_OK)
        return s;
    if (!dtype_from_ggml(type, &item->dtype))
        return fail(
            err, STATUS_UNSUPPORTED,
            "%s: tensor '%s' has type %s (%u); supported are F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K "
            "Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4: quantise the model to one of these",
            c->shown, item->name, ggml_type_name(type), type);
    uint64_t row = item->shape[item->n_dims - 1], row_bytes;
    if (!dtype_row_bytes(item->dtype, row, &row_bytes))
        return fail(err, STATUS_FORMAT, "%s: tensor '%s': rows of %llu values are not whole blocks of %s",
                    c->shown, item->name, (unsigned long long)row, dtype_name(item->dtype));
    if (!u64_mul(row_bytes, item->n_values / row, &item->size_bytes))
        return fail(err, STATUS_FORMAT, "%s: tensor '%s': its size overflows", c->shown, item->name);
    if (item->offset % alignment)
        return fail(err, STATUS_FORMAT, "%s: tensor '%s': offset %llu is not a multiple of %llu", c->shown,
                    item->name, (unsigned long long)item->offset, (unsigned long long)alignment);
    return STATUS_OK;
}

static enum status read_alignment(const struct gguf *g, uint64_t *alignment, struct error *err)
{
    *alignment = ALIGNMENT_DEFAULT;
    if (!gguf_has(g, "general.alignment"))
        return STATUS_OK;
    enum status s = gguf_get_u64(g, "general.alignment", alignment, err);
    if (s != STATUS_OK)
        return s;
    if (*alignment == 0 || *alignment > ALIGNMENT_MAX || (*alignment & (*alignment - 1)))
        return fail(err, STATUS_FORMAT, "%s: general.alignment is %llu, expected a power of two up to %d",
                    g->path, (unsigned long long)*alignment, ALIGNMENT_MAX);
    return STATUS_OK;
}

/* The data section begins behind the table, which ends at the cursor; now offsets can be made absolute. */
static enum status place_tensors(struct gguf *g, const struct cursor *c, uint64_t alignment,
                                 struct error *err)
{
    struct tensors *t = g->tensors;
    uint64_t file_bytes = c->source->file.size_bytes;
    uint64_t data_begin = (c->position + alignment - 1) / alignment * alignment;
    if (t->n_items == 0)
        return STATUS_OK;
    if (data_begin > file_bytes)
        return fail(err, STATUS_FORMAT, "%s: cut short: the data would begin at byte %llu, the file has %llu",
                    c->shown, (unsigned long long)data_begin, (unsigned long long)file_bytes);
    struct extent *extents = mem_array(t->n_items, sizeof *extents);
    if (!extents)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    enum status s = STATUS_OK;
    for (size_t i = 0; i < t->n_items && s == STATUS_OK; i++) {
        struct tensor *item = &t->items[i];
        extents[i] = (struct extent){.begin = item->offset, .name = item->name};
        if (!u64_add(item->offset, item->size_bytes, &extents[i].end) ||
            extents[i].end > file_bytes - data_begin)
            s = fail(err, STATUS_FORMAT,
                     "%s: cut short: tensor '%s' wants %llu bytes at data byte %llu, the file has %llu",
                     c->shown, item->name, (unsigned long long)item->size_bytes,
                     (unsigned long long)item->offset, (unsigned long long)(file_bytes - data_begin));
        item->offset += data_begin; /* wraps only where the check above has failed */
    }
    if (s == STATUS_OK)
        s = tensors_check_extents(extents, t->n_items, alignment, file_bytes - data_begin, c->shown, err);
    mem_free(extents);
    return s;
}

static enum status read_all(struct gguf *g, struct cursor *c, struct error *err)
{
    uint64_t n_tensors = 0, n_pairs = 0, alignment = ALIGNMENT_DEFAULT;
    enum status s = read_front(c, &g->version, &n_tensors, &n_pairs, err);
    if (s == STATUS_OK)
        s = check_counts(c, g->tensors, n_tensors, n_pairs, err);
    if (s == STATUS_OK)
        s = gguf_meta_read(&g->meta, c, n_pairs, err);
    if (s == STATUS_OK)
        s = read_alignment(g, &alignment, err);
    for (uint64_t i = 0; s == STATUS_OK && i < n_tensors; i++) {
        struct tensor item = {0};
        s = read_entry(c, g->meta.arena, alignment, &item, err);
        if (s == STATUS_OK)
            s = tensors_add(g->tensors, &item, err);
    }
    if (s == STATUS_OK)
        s = place_tensors(g, c, alignment, err);
    return s == STATUS_OK ? tensors_finish(g->tensors, err) : s;
}

enum status gguf_open_at(int dir_fd, const char *shown_dir, const char *name,
                         const struct tensors_limits *limits, struct gguf **out, struct error *err)
{
    uint32_t file_index;
    *out = NULL;
    struct gguf *g = mem_zalloc(sizeof *g);
    if (!g || !(g->tensors = tensors_create(limits))) {
        mem_free(g);
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", name);
    }
    enum status s =
        tensors_add_file(g->tensors, dir_fd, shown_dir, name, limits ? limits->copy : NULL, &file_index, err);
    if (s == STATUS_OK) {
        snprintf(g->path, sizeof g->path, "%s", tensors_file_name(g->tensors, file_index));
        struct cursor c = {.source = &g->tensors->sources[file_index],
                           .shown = g->path,
                           .limit_bytes = g->tensors->header_bytes_max};
        buf_init(&c.bytes, 0);
        s = read_all(g, &c, err);
        buf_fini(&c.bytes);
    }
    if (s == STATUS_OK)
        *out = g;
    else
        gguf_close(g);
    return s;
}

enum status gguf_open(const char *path, const struct tensors_limits *limits, struct gguf **out,
                      struct error *err)
{
    return gguf_open_at(-1, NULL, path, limits, out, err);
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    tensors_close(g->tensors);
    gguf_meta_fini(&g->meta);
    mem_free(g);
}

const struct tensors *gguf_tensors(const struct gguf *g)
{
    return g->tensors;
}

uint64_t gguf_rope_row(uint64_t hf_row, uint32_t n_heads, uint32_t head_dim)
{
    /* Hugging Face: first half of a head's rows, then second half; llama's GGUF: pairs side by side. */
    uint64_t head = hf_row / head_dim, r = hf_row % head_dim, half = head_dim / 2;
    require(head < n_heads);
    return head * head_dim + (r < half ? 2 * r : 2 * (r - half) + 1);
}
