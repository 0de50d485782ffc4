/* Reads packed files: what is checked before a byte of them is believed. See packed_file.h for the layout;
 * packed_map.c brings the data into memory, packed_write.c writes. */
#include "packed_file.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/mem.h"
#include "model_inner.h"

_Static_assert(sizeof(struct packed_header) <= PACKED_HEADER_BYTES && sizeof(struct packed_header) == 168,
               "the header has no gaps");
_Static_assert(sizeof(struct packed_file_part) == 32, "a part has no gaps");

uint64_t packed_sum(const void *bytes, size_t n_bytes)
{
    return XXH3_64bits(bytes, n_bytes);
}

/* ---- parts ---- */

enum status packed_parts_add(struct packed_parts *p, const struct packed_part *part, struct error *err)
{
    if (p->n == p->room) {
        uint32_t room = p->room ? 2 * p->room : 256;
        struct packed_part *items =
            room <= PACKED_PARTS_MAX ? mem_realloc(p->items, room * sizeof *items) : NULL;
        if (!items)
            return fail(err, STATUS_NO_MEMORY, "a table of %u matrices", room);
        p->items = items;
        p->room = room;
    }
    p->items[p->n++] = *part;
    return STATUS_OK;
}

void packed_parts_fini(struct packed_parts *p)
{
    mem_free(p->items);
    *p = (struct packed_parts){0};
}

/* ---- what it was made from ---- */

enum status packed_key_init(struct packed_key *k, const struct model_files *files, enum quant quant,
                            struct error *err)
{
    struct copied_file f = {.size_bytes = 0};
    *k = (struct packed_key){.content = 0};
    for (uint32_t i = 0; i < tensors_n_files(files->tensors); i++) {
        if (!tensors_file_state(files->tensors, i, &f))
            return fail(err, STATUS_IO, "%s: can't be asked for its size and times",
                        tensors_file_name(files->tensors, i));
        const uint64_t inside[] = {k->content, f.size_bytes, (uint64_t)f.mtime_ns};
        const uint64_t outside[] = {k->place, f.device, f.inode, (uint64_t)f.ctime_ns};
        k->content = packed_sum(inside, sizeof inside);
        k->place = packed_sum(outside, sizeof outside);
    }
    return model_table_digest(files, quant, k->table, err);
}

/* ---- header and tables ---- */

void packed_header_seal(struct packed_header *h)
{
    h->header_sum = packed_sum(h, offsetof(struct packed_header, header_sum));
}

void packed_header_init(struct packed_header *h, const struct packed_key *key)
{
    *h = (struct packed_header){.byte_order = PACKED_BYTE_ORDER,
                                .format_version = PACKED_FORMAT_VERSION,
                                .layout_version = PACKED_LAYOUT_VERSION,
                                .product = LORIKEET_VERSION,
                                .key = *key};
    memcpy(h->magic, PACKED_MAGIC, sizeof h->magic);
}

static enum status check_version(const struct packed_header *h, const char *shown, struct error *err)
{
    struct packed_header ours;
    packed_header_init(&ours, &h->key);
    if (memcmp(h->magic, ours.magic, sizeof h->magic) != 0)
        return fail(err, STATUS_FORMAT, "%s: is no packed file", shown);
    if (h->byte_order != ours.byte_order)
        return fail(err, STATUS_MISMATCH, "%s: comes from a machine of another byte order", shown);
    if (h->format_version != ours.format_version)
        return fail(err, STATUS_MISMATCH, "%s: has format %u, this program writes %u", shown,
                    h->format_version, ours.format_version);
    if (h->header_sum != packed_sum(h, offsetof(struct packed_header, header_sum)))
        return fail(err, STATUS_FORMAT, "%s: the header's sum is wrong", shown);
    if (h->layout_version != ours.layout_version)
        return fail(err, STATUS_MISMATCH, "%s: has layout %u, this program's is %u", shown, h->layout_version,
                    ours.layout_version);
    if (memcmp(h->product, ours.product, sizeof h->product) != 0)
        return fail(err, STATUS_MISMATCH, "%s: was written by version %.31s", shown, h->product);
    return STATUS_OK;
}

static enum status check_key(const struct packed_map *m, const struct packed_key *key, struct error *err)
{
    const struct packed_key *k = &m->header.key;
    if (memcmp(k->table, key->table, sizeof k->table) != 0)
        return fail(err, STATUS_MISMATCH, "%s: was made from other tensors, or for another --quant",
                    m->file.path);
    if (k->content != key->content)
        return fail(err, STATUS_MISMATCH, "%s: the model's files have changed since it was written",
                    m->file.path);
    return STATUS_OK;
}

/* A file that others may write could hold any weights, with right sums. */
static enum status check_owner(const struct packed_map *m, struct error *err)
{
    struct stat st;
    if (fstat(m->file.fd, &st) != 0)
        return fail(err, STATUS_IO, "%s: can't be asked for its owner", m->file.path);
    if ((st.st_uid != geteuid() && st.st_uid != 0) || (st.st_mode & (S_IWGRP | S_IWOTH)))
        return fail(err, STATUS_INVALID,
                    "%s: others may write it: expected a file of ours or of root's, mode 0600", m->file.path);
    return STATUS_OK;
}

uint32_t packed_n_blocks(uint64_t data_bytes)
{
    return (uint32_t)((data_bytes + PACKED_BLOCK_BYTES - 1) / PACKED_BLOCK_BYTES);
}

uint64_t packed_data_at(uint32_t n_parts, uint32_t n_blocks)
{
    uint64_t end = PACKED_HEADER_BYTES + (uint64_t)n_parts * sizeof(struct packed_file_part) +
                   (uint64_t)n_blocks * sizeof(uint64_t);
    return (end + PACKED_ALIGNMENT - 1) / PACKED_ALIGNMENT * PACKED_ALIGNMENT;
}

/* Sizes agree with each other and with the file: nothing is read or allocated by a number that doesn't. */
static enum status check_sizes(struct packed_map *m, struct error *err)
{
    const struct packed_header *h = &m->header;
    if (h->file_bytes != m->file.size_bytes)
        return fail(err, STATUS_FORMAT, "%s: has %llu bytes, expected %llu", m->file.path,
                    (unsigned long long)m->file.size_bytes, (unsigned long long)h->file_bytes);
    if (h->n_parts > PACKED_PARTS_MAX || h->data_at >= h->file_bytes ||
        (h->file_bytes - h->data_at) / PACKED_BLOCK_BYTES >= PACKED_PARTS_MAX)
        return fail(err, STATUS_FORMAT, "%s: %u parts and data at %llu don't fit into it", m->file.path,
                    h->n_parts, (unsigned long long)h->data_at);
    m->n_bytes = (size_t)(h->file_bytes - h->data_at);
    m->n_blocks = packed_n_blocks(m->n_bytes);
    if (h->data_at != packed_data_at(h->n_parts, m->n_blocks))
        return fail(err, STATUS_FORMAT, "%s: data at %llu, expected at %llu", m->file.path,
                    (unsigned long long)h->data_at,
                    (unsigned long long)packed_data_at(h->n_parts, m->n_blocks));
    return STATUS_OK;
}

static enum status read_tables(struct packed_map *m, struct error *err)
{
    const struct packed_header *h = &m->header;
    size_t n = (size_t)(h->data_at - PACKED_HEADER_BYTES);
    m->tables = mem_alloc(n);
    if (!m->tables)
        return fail(err, STATUS_NO_MEMORY, "%s: tables of %zu bytes", m->file.path, n);
    enum status s = file_pread(&m->file, PACKED_HEADER_BYTES, m->tables, n, err);
    if (s != STATUS_OK)
        return s;
    if (packed_sum(m->tables, n) != h->tables_sum)
        return fail(err, STATUS_FORMAT, "%s: the tables' sum is wrong", m->file.path);
    m->parts = (const void *)m->tables;
    m->sums = (const void *)(m->tables + h->n_parts * sizeof *m->parts);
    for (uint32_t i = 0; i < h->n_parts; i++) {
        const struct packed_file_part *p = &m->parts[i];
        if (p->offset < h->data_at || p->offset > h->file_bytes || p->offset % PACKED_ALIGNMENT != 0 ||
            p->size_bytes > h->file_bytes - p->offset)
            return fail(err, STATUS_FORMAT, "%s: part %u lies outside of it", m->file.path, i);
    }
    return STATUS_OK;
}

static enum status open_map(struct packed_map *m, const struct packed_key *key, struct error *err)
{
    enum status s = check_owner(m, err);
    if (s == STATUS_OK)
        s = file_pread(&m->file, 0, &m->header, sizeof m->header, err);
    if (s == STATUS_OK)
        s = check_version(&m->header, m->file.path, err);
    if (s == STATUS_OK)
        s = check_key(m, key, err);
    if (s == STATUS_OK)
        s = check_sizes(m, err);
    if (s == STATUS_OK)
        s = read_tables(m, err);
    m->knows_place = m->header.key.place == key->place;
    return s;
}

enum status packed_map_open(const char *path, const struct packed_key *key, struct packed_map **out,
                            struct error *err)
{
    *out = NULL;
    struct packed_map *m = mem_zalloc(sizeof *m);
    if (!m)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", path);
    enum status s = file_open(&m->file, path, err);
    if (s == STATUS_OK)
        s = open_map(m, key, err);
    if (s == STATUS_OK)
        *out = m;
    else
        packed_map_close(m);
    return s;
}

void packed_map_close(struct packed_map *m)
{
    if (!m)
        return;
    packed_map_unload(m);
    file_close(&m->file);
    mem_free(m->tables);
    mem_free(m);
}

enum status packed_map_take(struct packed_map *m, struct packed_part *part, struct error *err)
{
    const struct packed_file_part *p = &m->parts[m->n_taken];
    require(m->data);
    if (m->n_taken == m->header.n_parts || p->type != (uint32_t)part->type || p->rows != part->rows ||
        p->cols != part->cols || p->size_bytes != part->size_bytes)
        return fail(err, STATUS_MISMATCH, "%s: part %u is not a %s matrix of %u x %u", m->file.path,
                    m->n_taken, dtype_name(part->type), part->rows, part->cols);
    m->n_taken++;
    part->data = m->data + (p->offset - m->header.data_at);
    return STATUS_OK;
}

bool packed_map_holds(const struct packed_map *m, const void *p)
{
    const uint8_t *at = p;
    return m && m->data && at >= m->data && at < m->data + m->n_bytes;
}
