/* One JSON value, byte by byte, as it is generated: where it ends, and whether it is one. Keeps no text.
 * Pure. */
#ifndef LK_JSON_SCAN_H
#define LK_JSON_SCAN_H

#include <stdbool.h>
#include <stdint.h>

struct json_scan {
    uint64_t arrays;  /* a bit for each level: an array, else an object */
    const char *rest; /* of true, false, null */
    uint8_t depth, state, n_hex;
    bool in_key;
};

enum scan_result {
    SCAN_MORE,
    SCAN_END,  /* the value is complete with this byte */
    SCAN_PAST, /* it was complete before this byte, which isn't part of it (numbers) */
    SCAN_BAD
};

void json_scan_begin(struct json_scan *s);
/* Nesting up to 64. Control characters in a string are accepted: models write them, and whoever passes a
 * string on escapes them. */
enum scan_result json_scan_byte(struct json_scan *s, unsigned char c);
bool json_scan_in_string(const struct json_scan *s);

#endif
