/* How a set of tensors is built by the format readers. Inner wall of core/format.
 *
 *     create → add_file → (add tensors, foreign ones, metadata) … → finish → immutable */
#ifndef LK_FORMAT_TENSORS_H
#define LK_FORMAT_TENSORS_H

#include "base/arena.h"
#include "format.h"
#include "source.h"

#define TENSOR_NAME_MAX 256
#define HEADER_BYTES_DEFAULT ((uint64_t)100 << 20)
#define N_TENSORS_DEFAULT 65536U
#define METADATA_MAX 1024

struct foreign {
    const char *name, *type;
    uint64_t offset, size_bytes; /* within its file, as with tensors: extents are checked for all */
    uint32_t file_index;
};

struct metadata {
    const char *key, *value;
};

struct tensors {
    struct arena *arena; /* names and tables */
    uint64_t header_bytes_max;
    uint32_t n_tensors_max; /* foreign ones included */

    struct source *sources;
    uint32_t n_sources, sources_capacity;
    struct tensor *items; /* file order */
    size_t n_items, items_capacity;
    struct foreign *foreign;
    size_t n_foreign, foreign_capacity;
    struct metadata *metadata;
    size_t n_metadata, metadata_capacity;
    const struct tensor **by_name; /* sorted; lookups by bisection, so no name can be chosen to collide */
};

struct tensors *tensors_create(const struct tensors_limits *limits); /* NULL: no memory */
LK_MUST_USE enum status tensors_add_file(struct tensors *t, int dir_fd, const char *shown_dir,
                                         const char *name, const struct private_copy *copy,
                                         uint32_t *file_index, struct error *err);
/* `item.name` is copied; everything else must be checked already. */
LK_MUST_USE enum status tensors_add(struct tensors *t, const struct tensor *item, struct error *err);
LK_MUST_USE enum status tensors_add_foreign(struct tensors *t, const struct foreign *item, struct error *err);
LK_MUST_USE enum status tensors_add_metadata(struct tensors *t, const char *key, const char *value,
                                             struct error *err);
/* Sorts names and refuses duplicates, foreign ones included. */
LK_MUST_USE enum status tensors_finish(struct tensors *t, struct error *err);

/* Extents of one file's data section, for tensors_check_extents. */
struct extent {
    uint64_t begin, end;
    const char *name;
};
/* Sorts `e` and checks that the extents, each end rounded up to `alignment`, cover [0, n_bytes) without holes
 * or overlaps. `n_bytes` may end anywhere in the last rounding. */
LK_MUST_USE enum status tensors_check_extents(struct extent *e, size_t n, uint64_t alignment,
                                              uint64_t n_bytes, const char *shown, struct error *err);

/* One safetensors file into an unfinished set. */
LK_MUST_USE enum status safetensors_add(struct tensors *t, int dir_fd, const char *shown_dir,
                                        const char *name, const struct private_copy *copy, struct error *err);

#endif
