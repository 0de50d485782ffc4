/* GET /openapi.json: what this listener answers, as OpenAPI 3.1. Made from the table of routes, so that no
 * path is missing. */
#ifndef LK_OPENAPI_H
#define LK_OPENAPI_H

#include "base/buf.h"
#include "request.h"

void openapi_render(struct buf *out, enum plane plane);
/* Whether there are words for a route: a test asks for each. */
bool openapi_has(const char *method, const char *path);

#endif
