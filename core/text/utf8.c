/* UTF-8 decoding with exact treatment of ill-formed text, and the door's two questions about it.
 * The second byte's range depends on the first (no overlong forms, no surrogates, nothing above U+10FFFF);
 * all later bytes are 80..BF. No state. */
#include "utf8.h"

#include <string.h>

#include "text.h"

unsigned utf8_step(const char *s, size_t length, uint32_t *code_point)
{
    const unsigned char *b = (const unsigned char *)s;
    unsigned char lead = b[0];
    if (lead < 0x80) {
        *code_point = lead;
        return 1;
    }
    unsigned size = lead >= 0xC2 && lead <= 0xDF   ? 2
                    : lead >= 0xE0 && lead <= 0xEF ? 3
                    : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                   : 0;
    *code_point = UTF8_BAD;
    if (size == 0)
        return 1;
    unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    uint32_t value = lead & (0xFFU >> (size + 1));
    for (unsigned i = 1; i < size; i++) {
        if (i >= length) {
            *code_point = UTF8_CUT;
            return i;
        }
        if (b[i] < low || b[i] > high)
            return i;
        low = 0x80;
        high = 0xBF;
        value = value << 6 | (b[i] & 0x3FU);
    }
    *code_point = value;
    return size;
}

unsigned utf8_put(char dst[4], uint32_t c)
{
    if (c < 0x80) {
        dst[0] = (char)c;
        return 1;
    }
    unsigned size = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (unsigned i = size - 1; i > 0; i--) {
        dst[i] = (char)(0x80 | (c & 0x3F));
        c >>= 6;
    }
    dst[0] = (char)(c | (0xF00U >> size));
    return size;
}

size_t utf8_valid_prefix(const char *s, size_t length)
{
    size_t at = 0;
    while (at < length) {
        uint64_t eight;
        if (length - at >= 8 && (memcpy(&eight, s + at, 8), (eight & 0x8080808080808080U) == 0)) {
            at += 8;
            continue;
        }
        uint32_t c;
        unsigned n = utf8_step(s + at, length - at, &c);
        if (c >= UTF8_CUT)
            break;
        at += n;
    }
    return at;
}

bool utf8_is_valid(const char *s, size_t length)
{
    return utf8_valid_prefix(s, length) == length;
}

bool utf8_append_repaired(struct buf *out, const char *s, size_t length)
{
    while (length > 0) {
        size_t good = utf8_valid_prefix(s, length);
        if (!buf_append(out, s, good))
            return false;
        s += good;
        length -= good;
        if (length == 0)
            break;
        uint32_t c;
        unsigned n = utf8_step(s, length, &c);
        if (!buf_puts(out, UTF8_REPLACEMENT))
            return false;
        s += n;
        length -= n;
    }
    return !out->failed;
}
