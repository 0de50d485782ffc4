/* The schemas of /openapi.json: what bodies have in them. */
#ifndef LK_OPENAPI_SCHEMAS_H
#define LK_OPENAPI_SCHEMAS_H

#include "api_render.h"

/* All of them by name, as members of an object that is open. */
void openapi_put_schemas(struct jw *w);

#endif
