/* Kept responses, as both files that speak of them need them. */
#ifndef LK_API_RESPONSES_H
#define LK_API_RESPONSES_H

#include "completion.h"

/* Whose responses a request may see. False: no memory. Thread: any. */
bool kept_owner(const struct request *r, uint8_t owner[32]);
/* {"response", "input"} of an id; the caller's. STATUS_NOT_FOUND, code as OpenAI has it. Waits for the disk.
 */
LK_MUST_USE enum status kept_response(struct server *s, const uint8_t owner[32], const char *id, json_t **out,
                                      struct fault *f);

#define INPUT_ITEM "_in" /* behind this in such an id stands its number */
/* The id of an item that a response has read, number `index` of them: its own, or one made of the response's.
 * New; NULL: no memory. */
json_t *read_item_id(const char *response, const json_t *item, size_t index);

#endif
