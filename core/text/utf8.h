/* UTF-8, one character at a time. Ill-formed bytes are taken in the pieces that Python's errors="replace" and
 * Rust's from_utf8_lossy replace by one U+FFFD each (Unicode 15.0, 3.9, "maximal subpart"). */
#ifndef LK_TEXT_UTF8_H
#define LK_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define UTF8_BAD 0xFFFFFFFFU /* these bytes never become a character */
#define UTF8_CUT 0xFFFFFFFEU /* a good beginning, but the text ends here */
#define UTF8_REPLACEMENT "\xEF\xBF\xBD"

/* Bytes taken (1 to 4; at least 1 when length > 0) and what they are: a code point, UTF8_BAD or UTF8_CUT. */
unsigned utf8_step(const char *s, size_t length, uint32_t *code_point);
/* Writes one code point (not a surrogate, <= 0x10FFFF); returns 1 to 4. */
unsigned utf8_put(char dst[4], uint32_t code_point);
/* Appends s with U+FFFD for what is ill-formed. */
bool utf8_append_repaired(struct buf *out, const char *s, size_t length);

/* Bytes of the character that `lead` begins, in text that is known to be valid. */
static inline unsigned utf8_size(unsigned char lead)
{
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

#endif
