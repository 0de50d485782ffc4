/* The sums of adapters that running requests speak with. Equal sums of the same versions are one object while
 * anyone uses it, whatever order they were named in, so that their rows stand side by side in a step and
 * share their KV. Nothing is kept for later: a sum costs a small block and one hash, and keeping it would
 * hold the memory of versions that have been replaced. Owner: front thread. */
#ifndef LK_BLENDS_H
#define LK_BLENDS_H

#include <stddef.h>

#include "lora.h"

struct blends;

struct blends *blends_create(void);    /* NULL: no memory */
void blends_destroy(struct blends *b); /* nothing is in use; NULL is fine */

/* The weighted sum of parts[n] (borrowed), as one adapter with a reference: members in the order of their
 * digests, those of scaled adapters in their place, so the order of `parts` changes neither bytes nor digest.
 * One part with weight 1 is that part itself; none, or only weights of 0: *out is NULL. n: any. Errors as
 * lora_compose. */
LK_MUST_USE enum status blends_acquire(struct blends *b, const struct lora_member *parts, uint32_t n,
                                       struct lora **out, struct error *err);
void blends_release(struct blends *b, struct lora *l); /* what blends_acquire gave; NULL is fine */
size_t blends_count(const struct blends *b);           /* sums in use */

#endif
