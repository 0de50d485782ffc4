/* Stop strings over text that comes in pieces. Text that may be the beginning of a stop string is held back
 * until it is decided. Pure; where the pieces are cut makes no difference. */
#ifndef LK_ENGINE_STOP_H
#define LK_ENGINE_STOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine.h"

struct stop_strings {
    const char *const *strings; /* NUL-terminated UTF-8, 1 to STOP_STRING_BYTES_MAX bytes each */
    uint32_t n_strings;
    bool include; /* the match itself is passed on too */
};

/* What is held back: shorter than the longest stop string. Begins zeroed. */
struct stop_hold {
    uint32_t n_bytes;
    char bytes[STOP_STRING_BYTES_MAX];
};

struct stop_found {
    size_t n_shown; /* bytes of text that are safe to show */
    int32_t match;  /* the stop string that ended first (of several ending there the longest), or -1 */
};
/* Takes a piece of text and writes what is safe to show to dst (room for n_text + STOP_STRING_BYTES_MAX).
 * After a match nothing is held; text behind it is dropped. */
struct stop_found stop_push(struct stop_hold *h, const struct stop_strings *s, const char *text,
                            size_t n_text, char *dst);
/* The end of the text: what was held back. dst: STOP_STRING_BYTES_MAX bytes. */
size_t stop_end(struct stop_hold *h, char *dst);

#endif
