/* Which pages may ask from a browser, and with what (the Fetch standard's CORS protocol): those of the
 * configured origins, on the clients' listeners. Owner: front thread. */
#ifndef LK_CORS_H
#define LK_CORS_H

#include "request.h"

/* The headers that any answer needs, whatever it is; before it begins. */
void cors_answer(struct request *r);
/* Those of an OPTIONS besides. `methods`: the path's, as "GET, HEAD". */
void cors_preflight(struct request *r, const char *methods);

#endif
