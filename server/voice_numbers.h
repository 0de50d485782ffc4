/* llama-server's numbers for adapters: an id that a name keeps while it is registered and that no other name
 * gets while the server runs, so a client that remembers a number never meets another adapter under it.
 * Owner: front thread. */
#ifndef LK_VOICE_NUMBERS_H
#define LK_VOICE_NUMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "registry.h"

struct numbered {
    uint32_t id;
    char name[ADAPTER_NAME_MAX + 1];
};

/* Zeroed is empty. */
struct voice_numbers {
    struct numbered *items; /* [n], sorted by name */
    uint32_t *by_id;        /* [n], indices of items in the order of ids */
    size_t n;
    uint32_t next_id;
    uint64_t revision; /* of the registry, when they were last compared; 0: never */
};

void voice_numbers_fini(struct voice_numbers *v);
/* Gives ids to names that are new: first[n_first] in this order, the others by name; forgets those that are
 * gone. Without memory nothing changes. */
void voice_numbers_update(struct voice_numbers *v, const struct registry *r, const char *const *first,
                          size_t n_first);
const struct numbered *voice_numbers_at(const struct voice_numbers *v,
                                        size_t index);                     /* by id; NULL past the end */
const char *voice_numbers_name(const struct voice_numbers *v, int64_t id); /* or NULL */

#endif
