/* Where a base's packed weights are kept between starts. --pack-cache auto: beside the model, or in the
 * user's cache folder where that can't be written. Holds no state. */
#ifndef LK_PACK_CACHE_H
#define LK_PACK_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct conf;
struct model;

#define PACK_PATH_BYTES 560U

/* The file to look into: the newest where there are two, an old one may lie where nobody can write any more.
 * False: none, or --pack-cache off. */
bool pack_cache_find(const struct conf *c, char path[PACK_PATH_BYTES]);

struct pack_cache_result {
    char path[PACK_PATH_BYTES];
    uint64_t size_bytes; /* 0: nothing was written; err says why, if it isn't that nothing had to be */
    int64_t spent_ns;
    struct error err;
};
/* Keeps what was packed from the model's files, if that is wanted and worth it; `stop` as in
 * model_write_packed. Thread: any worker. */
void pack_cache_write(const struct conf *c, const struct model *m, bool (*stop)(void *data), void *data,
                      struct pack_cache_result *out);

#endif
