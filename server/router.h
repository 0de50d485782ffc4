/* Which handler answers a path. One table; adding an endpoint is one line in it. */
#ifndef LK_ROUTER_H
#define LK_ROUTER_H

#include <stddef.h>

#include "request.h"

struct route {
    const char *method;
    const char *path; /* "{name}": one segment; a last '*': everything below, at least one character */
    unsigned planes;  /* PLANE_DATA | PLANE_ADMIN, and PLANE_OPEN */
    void (*handle)(struct request *r);
};

/* The route, or NULL; then *allow (allow_bytes) lists the path's methods, or is empty if the path is unknown.
 * HEAD is GET without a body. Pure. */
const struct route *router_find(const char *method, const char *path, enum plane plane, char *allow,
                                size_t allow_bytes);

/* The table, row by row; NULL past the end. */
const struct route *router_at(size_t index);

/* Whose errors this path's clients read. Pure. */
enum error_form router_error_form(const char *path);

/* Answers the request: by its handler, or 404, 405, OPTIONS. */
void router_dispatch(struct request *r);

#endif
