/* The inside of a string literal: Python's unicode-escape rules. No state. */
#include <stdio.h>
#include <string.h>

#include "jinja.h"

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool put_code_point(struct buf *out, uint32_t c, const char **message)
{
    char bytes[4];
    if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) {
        *message = c > 0x10ffff ? "illegal Unicode character" : "an escape that is half a surrogate pair";
        return false;
    }
    if (!buf_append(out, bytes, jchar_encode(c, bytes))) {
        *message = "out of memory";
        return false;
    }
    return true;
}

/* \xHH, \uHHHH, \UHHHHHHHH; s[0] is the letter. Returns the bytes read, 0 on error. */
static size_t unescape_hex(const char *s, size_t len, struct buf *out, const char **message)
{
    size_t n_digits = s[0] == 'x' ? 2 : s[0] == 'u' ? 4 : 8;
    uint32_t c = 0;
    for (size_t i = 1; i <= n_digits; i++) {
        int digit = i < len ? hex_value(s[i]) : -1;
        if (digit < 0) {
            *message = s[0] == 'x'   ? "truncated \\xXX escape"
                       : s[0] == 'u' ? "truncated \\uXXXX escape"
                                     : "truncated \\UXXXXXXXX escape";
            return 0;
        }
        if (c >> 28) {
            *message = "illegal Unicode character";
            return 0;
        }
        c = c << 4 | (uint32_t)digit;
    }
    return put_code_point(out, c, message) ? 1 + n_digits : 0;
}

static size_t unescape_octal(const char *s, size_t len, struct buf *out, const char **message)
{
    uint32_t c = 0;
    size_t n = 0;
    while (n < 3 && n < len && s[n] >= '0' && s[n] <= '7')
        c = c * 8 + (uint32_t)(s[n++] - '0');
    return put_code_point(out, c, message) ? n : 0;
}

/* What follows a backslash; returns the bytes read, 0 on error. */
static size_t unescape_one(const char *s, size_t len, struct buf *out, const char **message)
{
    static const char letters[] = "abfnrtv\\'\"", values[] = "\a\b\f\n\r\t\v\\'\"";
    if (s[0] == '\n')
        return 1;
    if (s[0] == 'x' || s[0] == 'u' || s[0] == 'U')
        return unescape_hex(s, len, out, message);
    if (s[0] >= '0' && s[0] <= '7')
        return unescape_octal(s, len, out, message);
    if (s[0] == 'N') {
        *message = "\\N{...} escapes are not supported; write the character itself";
        return 0;
    }
    const char *found = s[0] ? strchr(letters, s[0]) : NULL;
    *message = "out of memory";
    if (found)
        return buf_append(out, values + (found - letters), 1);
    return buf_append(out, "\\", 1) && buf_append(out, s, 1); /* an unknown escape stays as it is */
}

bool jinja_unescape(const char *s, size_t len, struct buf *out, const char **message)
{
    for (size_t at = 0; at < len;) {
        const char *slash = memchr(s + at, '\\', len - at);
        size_t plain = slash ? (size_t)(slash - s) - at : len - at;
        if (!buf_append(out, s + at, plain)) {
            *message = "out of memory";
            return false;
        }
        at += plain;
        if (at >= len)
            break;
        if (++at >= len) {
            *message = "\\ at end of string";
            return false;
        }
        size_t n = unescape_one(s + at, len - at, out, message);
        if (!n)
            return false;
        at += n;
    }
    return true;
}
