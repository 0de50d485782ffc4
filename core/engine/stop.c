/* Search by plain comparison: the window is a token's text and what was held, a few dozen bytes. Stop strings
 * and text are whole UTF-8 characters, so every cut falls between two characters.
 *
 * Owner of the hold: the sequence. */
#include "stop.h"

#include <string.h>

#include "base/error.h"

/* The stop string that ends right before text[end]; the longest one, -1 if none. */
static int32_t match_ending_at(const struct stop_strings *s, const char *text, size_t end, size_t *length)
{
    int32_t found = -1;
    *length = 0;
    for (uint32_t i = 0; i < s->n_strings; i++) {
        size_t n = strlen(s->strings[i]);
        if (n > *length && n <= end && memcmp(text + end - n, s->strings[i], n) == 0) {
            found = (int32_t)i;
            *length = n;
        }
    }
    return found;
}

/* Whether the last n bytes of the text begin some stop string. */
static bool begins_a_stop(const struct stop_strings *s, const char *tail, size_t n)
{
    for (uint32_t i = 0; i < s->n_strings; i++)
        if (strlen(s->strings[i]) > n && memcmp(s->strings[i], tail, n) == 0)
            return true;
    return false;
}

struct stop_found stop_push(struct stop_hold *h, const struct stop_strings *s, const char *text,
                            size_t n_text, char *dst)
{
    size_t n = h->n_bytes, length;
    memcpy(dst, h->bytes, n);
    memcpy(dst + n, text, n_text);
    n += n_text;
    for (size_t end = h->n_bytes + 1; end <= n; end++) {
        int32_t match = match_ending_at(s, dst, end, &length);
        if (match >= 0) {
            h->n_bytes = 0;
            return (struct stop_found){s->include ? end : end - length, match};
        }
    }
    size_t held = n < STOP_STRING_BYTES_MAX ? n : STOP_STRING_BYTES_MAX - 1;
    while (held && !begins_a_stop(s, dst + n - held, held))
        held--;
    memcpy(h->bytes, dst + n - held, held);
    h->n_bytes = (uint32_t)held;
    return (struct stop_found){n - held, -1};
}

size_t stop_end(struct stop_hold *h, char *dst)
{
    size_t n = h->n_bytes;
    require(n <= STOP_STRING_BYTES_MAX);
    memcpy(dst, h->bytes, n);
    h->n_bytes = 0;
    return n;
}
