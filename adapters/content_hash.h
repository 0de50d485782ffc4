/* The digest of an adapter's files. Inner wall of adapters. */
#ifndef LK_ADAPTERS_CONTENT_HASH_H
#define LK_ADAPTERS_CONTENT_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct file_hash {
    char name[256];
    uint8_t sha256[32];
};

/* Zeroed to begin with. */
struct content_hash {
    struct file_hash *files;
    size_t n, room;
    uint64_t n_bytes; /* of all files */
    bool failed;      /* memory or the library: said by content_hash_end */
};
void content_hash_fini(struct content_hash *h);

/* Adds a file; fits private_copy's `seen`, with a struct content_hash as its data. */
void content_hash_file(void *data, const char *name, const void *bytes, size_t n_bytes);

/* One file: its SHA-256. Several: that of the lines "hex  name\n" in order of names, so that
 *
 *     (cd FOLDER && LC_ALL=C sha256sum adapter_config.json adapter_model.safetensors | sha256sum)
 *
 * gives the same. */
LK_MUST_USE enum status content_hash_end(struct content_hash *h, uint8_t digest[32], struct error *err);

/* What the numbers depend on: the files, the user's scale, how the values are stored. Keys of batches and of
 * KV are made of it. */
LK_MUST_USE enum status content_key(const uint8_t digest[32], double scale, const char *store,
                                    uint8_t key[32], struct error *err);

void hex_of(const uint8_t *bytes, size_t n, char *hex); /* 2 n digits and a NUL */

#endif
