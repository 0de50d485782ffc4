/* A packed file: the weights of one base as they lie in memory, written by us and mapped at the next start.
 *
 *     header, 4096 bytes | parts | sums | data: blocks of PACKED_BLOCK_BYTES
 *
 * A part is a matrix in panels or a vector of floats; parts stand in the order in which weights.c loads them,
 * each at a multiple of PACKED_ALIGNMENT. A sum is XXH3 of one block of the data, the last one cut short at
 * the file's end; header and tables have sums of their own. Numbers are the machine's own, and the header
 * says which: a file from another kind of machine is made anew, as is one of another layout, version or
 * source.
 *
 * Sums find accidents. Against malice the file must belong to us or to root, and nobody else may write it. */
#ifndef LK_PACKED_FILE_INNER_H
#define LK_PACKED_FILE_INNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/file.h"
#include "base/team.h"
#include "format.h"

enum quant;

#define PACKED_MAGIC "LKPACKED"
#define PACKED_FORMAT_VERSION 1U
#define PACKED_BYTE_ORDER UINT32_C(0x01020304)
#define PACKED_HEADER_BYTES 4096U
#define PACKED_ALIGNMENT 4096U
#define PACKED_BLOCK_BYTES ((uint64_t)4 << 20)
#define PACKED_PARTS_MAX (1U << 22)

/* What packed weights were made from. */
struct packed_key {
    uint8_t table[32]; /* SHA-256 of configuration, --quant, and all tensors' names, types and shapes */
    uint64_t content;  /* sum over the files' sizes and times of their last change */
    uint64_t place;    /* and over what else changes with them: inodes, devices, ctimes */
};

/* Is written as it lies here: no gaps. */
struct packed_header {
    char magic[8]; /* PACKED_MAGIC, without its end */
    uint32_t byte_order, format_version, layout_version, n_parts;
    char product[32]; /* version of the program, padded with zeros */
    struct packed_key key;
    uint8_t digest[32]; /* the model's, model_info.digest */
    uint64_t data_at, file_bytes;
    uint64_t tables_sum; /* of parts and sums */
    uint64_t header_sum; /* of what stands before it */
};

struct packed_file_part {
    uint64_t offset, size_bytes; /* in the file */
    uint32_t type, rows, cols, unused;
};

/* ---- what weights.c has loaded, in order ---- */

struct packed_part {
    void *data; /* of a map: read-only */
    uint64_t size_bytes;
    enum dtype type;
    uint32_t rows, cols;
};
struct packed_parts {
    struct packed_part *items;
    uint32_t n, room;
};
LK_MUST_USE enum status packed_parts_add(struct packed_parts *p, const struct packed_part *part,
                                         struct error *err);
void packed_parts_fini(struct packed_parts *p);

/* ---- the file ---- */

LK_MUST_USE enum status packed_key_init(struct packed_key *k, const struct model_files *files,
                                        enum quant quant, struct error *err);
/* What this program writes; digest, n_parts, sizes and sums are left to fill. */
void packed_header_init(struct packed_header *h, const struct packed_key *key);
void packed_header_seal(struct packed_header *h); /* its own sum */
/* Blocks of the data; where the data begins behind the tables of so many parts and blocks. */
uint32_t packed_n_blocks(uint64_t data_bytes);
uint64_t packed_data_at(uint32_t n_parts, uint32_t n_blocks);
uint64_t packed_sum(const void *bytes, size_t n_bytes);

/* Weights in memory that come from a packed file. Owner: the model. */
struct packed_map {
    struct file file; /* closed once nothing of it is mapped */
    struct packed_header header;
    uint8_t *tables; /* parts, then sums */
    const struct packed_file_part *parts;
    const uint64_t *sums; /* [n_blocks] */
    uint32_t n_blocks;
    uint32_t n_taken;
    bool knows_place; /* the source lies where it lay when this was written */
    uint8_t *data;    /* [n_bytes] from header.data_at on, read-only; NULL until it is loaded */
    size_t n_bytes;
    bool is_mapped;             /* and not read */
    struct packed_lease *lease; /* NULL: none */
};
/* Checks who may write the file, its header, its tables and what it was made from; the data isn't read yet.
 * STATUS_NOT_FOUND: there is none. Everything else that makes it unusable is an error that says why. */
LK_MUST_USE enum status packed_map_open(const char *path, const struct packed_key *key,
                                        struct packed_map **out, struct error *err);
/* The next part, which must be one of part's kind; sets its data. */
LK_MUST_USE enum status packed_map_take(struct packed_map *m, struct packed_part *part, struct error *err);
bool packed_map_holds(const struct packed_map *m, const void *p); /* m may be NULL */
void packed_map_close(struct packed_map *m);                      /* NULL is fine */

/* packed_map.c: brings all of the data into the address space, and compares its sums. The file is mapped if a
 * lease on it can be had, so that nobody changes it under us, and else read. team may be NULL. */
LK_MUST_USE enum status packed_map_load(struct packed_map *m, struct team *team, struct error *err);
void packed_map_unload(struct packed_map *m);

#endif
