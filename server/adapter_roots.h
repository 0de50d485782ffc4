/* Folders from which operators may load over the API. Owner: front thread; immutable after creation. */
#ifndef LK_ADAPTER_ROOTS_H
#define LK_ADAPTER_ROOTS_H

#include <stddef.h>

#include "base/error.h"

struct conf;
struct adapter_roots;

/* Opens the adapter roots of the configuration. */
LK_MUST_USE enum status adapter_roots_open(const struct conf *c, struct adapter_roots **out,
                                           struct error *err);
void adapter_roots_close(struct adapter_roots *roots); /* NULL is fine */

/* Finds the root that holds a path of the API's: absolute and inside a root, or relative to one. *relative
 * points into `path`. STATUS_INVALID if no root is configured or the path is in none of them. */
LK_MUST_USE enum status adapter_roots_find(const struct adapter_roots *roots, const char *path, int *root_fd,
                                           const char **relative, struct error *err);

#endif
