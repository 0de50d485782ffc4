/* A GGUF file, version 3, little-endian: front, pairs, table, padding, data (see gguf.c); the default
 * alignment. */
#include <string.h>

#include "base/mem.h"
#include "tensor_writer.h"

#define ALIGNMENT 32U

enum { TYPE_U32 = 4, TYPE_F32 = 6, TYPE_STRING = 8, TYPE_ARRAY = 9 }; /* of metadata values */

/* This program runs on little-endian machines only, as its readers do. */
static void put_u32(struct buf *b, uint32_t v)
{
    buf_append(b, &v, sizeof v);
}

static void put_u64(struct buf *b, uint64_t v)
{
    buf_append(b, &v, sizeof v);
}

static void put_text(struct buf *b, const char *text)
{
    put_u64(b, strlen(text));
    buf_puts(b, text);
}

static void put_pair(struct buf *b, const struct gguf_pair *p)
{
    static const uint32_t types[] = {[GGUF_PAIR_TEXT] = TYPE_STRING,
                                     [GGUF_PAIR_U32] = TYPE_U32,
                                     [GGUF_PAIR_F32] = TYPE_F32,
                                     [GGUF_PAIR_IDS] = TYPE_ARRAY};
    put_text(b, p->key);
    put_u32(b, types[p->type]);
    switch (p->type) {
    case GGUF_PAIR_TEXT:
        put_text(b, p->text);
        break;
    case GGUF_PAIR_U32:
        put_u32(b, p->u32);
        break;
    case GGUF_PAIR_F32:
        buf_append(b, &p->f32, sizeof p->f32);
        break;
    case GGUF_PAIR_IDS:
        put_u32(b, TYPE_U32);
        put_u64(b, p->n_ids);
        for (size_t i = 0; i < p->n_ids; i++)
            put_u32(b, (uint32_t)p->ids[i]);
        break;
    }
}

static enum status put_entry(struct buf *b, const struct tensor *t, uint64_t *offset, struct error *err)
{
    int type = dtype_info(t->dtype)->ggml_type;
    if (type < 0 || t->n_dims == 0)
        return fail(err, STATUS_UNSUPPORTED, "tensor '%s': GGUF has no %s of %u dimensions", t->name,
                    dtype_name(t->dtype), t->n_dims);
    put_text(b, t->name);
    put_u32(b, t->n_dims);
    for (uint32_t i = t->n_dims; i > 0; i--) /* innermost first */
        put_u64(b, t->shape[i - 1]);
    put_u32(b, (uint32_t)type);
    put_u64(b, *offset);
    uint64_t end;
    if (!u64_add(*offset, t->size_bytes, &end) || end > INT64_MAX)
        return fail(err, STATUS_TOO_LARGE, "tensor '%s': the file would be too large", t->name);
    *offset = (end + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return STATUS_OK;
}

enum status gguf_create(const struct out_place *o, const struct tensor_file *f, struct tensor_writer **out,
                        struct error *err)
{
    struct buf head;
    uint64_t offset = 0;
    enum status s = STATUS_OK;
    *out = NULL;
    buf_init(&head, WRITTEN_HEADER_MAX);
    buf_puts(&head, "GGUF");
    put_u32(&head, 3);
    put_u64(&head, f->n_items);
    put_u64(&head, f->n_pairs);
    for (size_t i = 0; i < f->n_pairs; i++)
        put_pair(&head, &f->pairs[i]);
    for (size_t i = 0; i < f->n_items && s == STATUS_OK; i++)
        s = put_entry(&head, &f->items[i], &offset, err);
    while (head.length % ALIGNMENT && !head.failed)
        buf_putc(&head, '\0');
    if (s == STATUS_OK && head.failed)
        s = fail(err, STATUS_TOO_LARGE, "metadata and table of more than %u bytes, or memory is short",
                 WRITTEN_HEADER_MAX);
    s = s != STATUS_OK ? fail_within(err, "%s/%s", o->path, f->name)
                       : tensor_writer_begin(&(struct tensor_writer_place){o, f, ALIGNMENT}, &head, out, err);
    buf_fini(&head);
    return s;
}
