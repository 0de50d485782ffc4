/* Responses that were asked to be kept (OpenAI's `store`): texts by owner and id, in a SQLite file beside the
 * state, or in memory without one; bounded in bytes, the oldest go first.
 *
 * What is put is found at once; it reaches the disk a moment later, by a worker. A crash may lose the last
 * moment's. Nothing is opened before the first use. */
#ifndef LK_RESPONSE_STORE_H
#define LK_RESPONSE_STORE_H

#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

struct server;
struct response_store;

#define RESPONSE_STORE_BYTES_MEMORY ((int64_t)64 << 20)
#define RESPONSE_STORE_BYTES_FILE ((int64_t)1 << 30)

/* path: a file, made if it isn't there; NULL: in memory. limit_bytes of texts. server: whose workers write;
 * NULL (in tests): nothing but response_store_flush does. NULL: no memory. Thread: front. */
struct response_store *response_store_create(struct server *server, const char *path, int64_t limit_bytes);
void response_store_destroy(struct response_store *s); /* writes what waits; NULL is fine */

/* Takes the text's memory. Dropped with a line in the log where it can't be kept. Thread: front. */
void response_store_put(struct response_store *s, const uint8_t owner[32], const char *id, struct buf *text);
/* Appends the text. STATUS_NOT_FOUND: no such id of this owner. Waits for the disk: not for the front thread.
 */
LK_MUST_USE enum status response_store_get(struct response_store *s, const uint8_t owner[32], const char *id,
                                           struct buf *out, struct error *err);
LK_MUST_USE enum status response_store_delete(struct response_store *s, const uint8_t owner[32],
                                              const char *id, struct error *err);
/* Writes what waits. Thread: any worker. */
LK_MUST_USE enum status response_store_flush(struct response_store *s, struct error *err);

#endif
