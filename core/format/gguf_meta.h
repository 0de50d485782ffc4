/* GGUF metadata: typed values by key. Inner wall of core/format. */
#ifndef LK_FORMAT_GGUF_META_H
#define LK_FORMAT_GGUF_META_H

#include "base/arena.h"
#include "base/buf.h"
#include "tensors.h"

#define GGUF_KEY_MAX 256

/* Value types, numbers as in the file (ggml docs/gguf.md). */
enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT
};

/* A reading position in the front part of the file, which is fetched piece by piece as it turns out how long
 * it is. Offsets only: `bytes` moves when it grows. */
struct cursor {
    const struct source *source;
    const char *shown;
    uint64_t limit_bytes; /* of the front part */
    struct buf bytes;     /* [0, bytes.length) of the file */
    uint64_t position;
};

/* Makes n_bytes from the position available, or says that the file is cut short or the part is too large.
 * `what` names the thing wanted. */
LK_MUST_USE enum status cursor_need(struct cursor *c, uint64_t n_bytes, const char *what, struct error *err);
LK_MUST_USE enum status cursor_u32(struct cursor *c, const char *what, uint32_t *out, struct error *err);
LK_MUST_USE enum status cursor_u64(struct cursor *c, const char *what, uint64_t *out, struct error *err);
/* A length-prefixed string of 1 to max_bytes bytes without NUL, copied into the arena. */
LK_MUST_USE enum status cursor_name(struct cursor *c, struct arena *arena, uint64_t max_bytes,
                                    const char *what, const char **out, struct error *err);
/* Bytes of the file that lie behind the position: no count of things there can be larger. */
uint64_t cursor_left(const struct cursor *c);

/* One key and its value. Numbers of all widths are kept as 8 bytes plus type; arrays as a block. */
struct gguf_value {
    const char *key;
    enum gguf_type type, item_type; /* item_type: of arrays */
    union {
        uint64_t u;
        int64_t i;
        double f;
    } number;
    const char *text;         /* strings; arrays of strings: all items, each with a NUL behind */
    const uint64_t *begins;   /* arrays of strings: [n + 1] offsets into text, NULs included */
    const unsigned char *raw; /* arrays of numbers: the items as in the file, little-endian */
    uint64_t n;               /* length of a string, items of an array */
};

struct gguf_meta {
    struct arena *arena;
    struct gguf_value *values; /* file order */
    size_t n_values;
    const struct gguf_value **by_key; /* sorted */
};

/* Reads n_values pairs; refuses duplicate keys. `m` may be half filled on failure; gguf_meta_fini takes it.
 */
LK_MUST_USE enum status gguf_meta_read(struct gguf_meta *m, struct cursor *c, uint64_t n_values,
                                       struct error *err);
void gguf_meta_fini(struct gguf_meta *m);
const struct gguf_value *gguf_meta_find(const struct gguf_meta *m, const char *key); /* NULL if absent */

struct gguf {
    char path[512];
    struct gguf_meta meta;
    struct tensors *tensors;
    uint32_t version;
};

#endif
