/* Characters as bytes: sets of code points become alternatives of byte sequences, in UTF-8 or as JSON strings
 * spell them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar_inner.h"

/* ---- sets of code points */

void ranges_add(struct maker *m, struct ranges *r, uint32_t lo, uint32_t hi)
{
    if (r->n == r->capacity) {
        uint32_t capacity = r->capacity ? 2 * r->capacity : 8;
        struct range *items = maker_alloc(m, capacity * sizeof *items);
        if (!items)
            return;
        if (r->n)
            memcpy(items, r->items, r->n * sizeof *items);
        r->items = items;
        r->capacity = capacity;
    }
    r->items[r->n++] = (struct range){lo, hi};
}

void ranges_add_all(struct maker *m, struct ranges *r, const struct ranges *more)
{
    for (uint32_t i = 0; i < more->n; i++)
        ranges_add(m, r, more->items[i].lo, more->items[i].hi);
}

static int compare_ranges(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

void ranges_tidy(struct ranges *r)
{
    uint32_t n = 0;
    if (r->n)
        qsort(r->items, r->n, sizeof *r->items, compare_ranges);
    for (uint32_t i = 0; i < r->n; i++) {
        if (n && r->items[i].lo <= r->items[n - 1].hi + 1) {
            if (r->items[i].hi > r->items[n - 1].hi)
                r->items[n - 1].hi = r->items[i].hi;
        } else {
            r->items[n++] = r->items[i];
        }
    }
    r->n = n;
}

void ranges_invert(struct maker *m, struct ranges *r)
{
    struct ranges out = {0};
    uint32_t next = 0;
    ranges_tidy(r);
    for (uint32_t i = 0; i < r->n; i++) {
        if (r->items[i].lo > next)
            ranges_add(m, &out, next, r->items[i].lo - 1);
        next = r->items[i].hi + 1;
    }
    if (next <= CODE_POINT_MAX)
        ranges_add(m, &out, next, CODE_POINT_MAX);
    *r = out;
}

/* ---- UTF-8 */

static unsigned put_utf8(uint8_t dst[4], uint32_t c)
{
    if (c < 0x80) {
        dst[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        dst[0] = (uint8_t)(0xC0 | c >> 6);
        dst[1] = (uint8_t)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        dst[0] = (uint8_t)(0xE0 | c >> 12);
        dst[1] = (uint8_t)(0x80 | (c >> 6 & 63));
        dst[2] = (uint8_t)(0x80 | (c & 63));
        return 3;
    }
    dst[0] = (uint8_t)(0xF0 | c >> 18);
    dst[1] = (uint8_t)(0x80 | (c >> 12 & 63));
    dst[2] = (uint8_t)(0x80 | (c >> 6 & 63));
    dst[3] = (uint8_t)(0x80 | (c & 63));
    return 4;
}

bool next_code_point(const char *text, size_t length, size_t *at, uint32_t *c)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *s = (const uint8_t *)text + *at;
    size_t left = length - *at;
    if (left == 0)
        return false;
    unsigned n = s[0] < 0x80 ? 1 : s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    uint32_t v = n == 1 ? s[0] : s[0] & (0xFFU >> (n + 1));
    if (n > left || (n > 1 && s[0] < 0xC2) || s[0] > 0xF4)
        return false;
    for (unsigned i = 1; i < n; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return false;
        v = v << 6 | (s[i] & 63);
    }
    if (v < least[n] || v > CODE_POINT_MAX || (v >= 0xD800 && v <= 0xDFFF))
        return false;
    *c = v;
    *at += n;
    return true;
}

/* Two code points of one length: their bytes, from number `i` on, span a product of ranges, or are split
 * where they don't. */
static void add_sequences(struct maker *m, struct expr_list *l, uint32_t lo, uint32_t hi)
{
    uint8_t a[4], b[4] = {0};
    unsigned n = put_utf8(a, lo);
    for (unsigned i = 1; i < n; i++) { /* the last i bytes must run from 80 to BF where one before differs */
        uint32_t mask = (1U << 6 * i) - 1;
        if ((lo & ~mask) == (hi & ~mask))
            continue;
        if (lo & mask) {
            add_sequences(m, l, lo, lo | mask);
            add_sequences(m, l, (lo | mask) + 1, hi);
            return;
        }
        if ((hi & mask) != mask) {
            add_sequences(m, l, lo, (hi & ~mask) - 1);
            add_sequences(m, l, hi & ~mask, hi);
            return;
        }
    }
    put_utf8(b, hi);
    struct expr_list bytes = {0};
    for (unsigned i = 0; i < n; i++) {
        struct byte_set set = {{0}};
        set_add_range(&set, a[i], b[i]);
        list_add(m, &bytes, expr_set(m, &set));
    }
    list_add(m, l, expr_seq(m, &bytes));
}

static void add_range(struct maker *m, struct expr_list *l, uint32_t lo, uint32_t hi)
{
    static const struct range lengths[] = {
        {0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, CODE_POINT_MAX}};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint32_t from = lo > lengths[i].lo ? lo : lengths[i].lo;
        uint32_t to = hi < lengths[i].hi ? hi : lengths[i].hi;
        if (from <= to)
            add_sequences(m, l, from, to);
    }
}

/* ---- JSON strings */

/* The one spelling of a character that can't stand for itself; NULL: it can, or U+0000: it has none. */
static const char *json_escape(uint32_t c, char dst[8])
{
    static const char letters[] = "\b\t\n\f\r\"\\", spelled[] = "btnfr\"\\";
    const char *found = c && c < 0x80 ? strchr(letters, (int)c) : NULL;
    if (found)
        snprintf(dst, 8, "\\%c", spelled[found - letters]);
    else if (c < 0x20)
        snprintf(dst, 8, "\\u%04x", c);
    return found || c < 0x20 ? dst : NULL;
}

static bool ranges_have(const struct ranges *r, uint32_t c)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (c >= r->items[i].lo && c <= r->items[i].hi)
            return true;
    return false;
}

const struct expr *expr_ranges(struct maker *m, struct ranges *r, enum spelling spelling)
{
    struct expr_list ways = {0};
    struct byte_set ascii = {{0}};
    char escaped[8];
    ranges_tidy(r);
    for (uint32_t c = 0; c < 0x80; c++) {
        const char *escape = spelling == SPELL_JSON ? json_escape(c, escaped) : NULL;
        if (!ranges_have(r, c))
            continue;
        if (!escape)
            set_add_range(&ascii, c, c);
        else if (c)
            list_add(m, &ways, expr_text(m, escape));
    }
    list_add(m, &ways, expr_set(m, &ascii));
    for (uint32_t i = 0; i < r->n; i++)
        if (r->items[i].hi >= 0x80)
            add_range(m, &ways, r->items[i].lo, r->items[i].hi);
    return expr_alt(m, &ways);
}

const struct expr *expr_code_point(struct maker *m, uint32_t c, enum spelling spelling)
{
    uint8_t bytes[4];
    char escaped[8];
    const char *escape = spelling == SPELL_JSON ? json_escape(c, escaped) : NULL;
    if ((spelling == SPELL_JSON && c == 0) || (c >= 0xD800 && c <= 0xDFFF))
        return expr_never();
    return escape ? expr_text(m, escape) : expr_bytes(m, bytes, put_utf8(bytes, c));
}

const struct expr *expr_spelled(struct maker *m, const char *text, size_t length, enum spelling spelling)
{
    if (spelling == SPELL_UTF8)
        return expr_bytes(m, text, length);
    uint8_t *spelled = maker_alloc(m, 6 * length + 8);
    size_t at = 0, n = 0;
    uint32_t c;
    char escaped[8];
    while (spelled && next_code_point(text, length, &at, &c)) {
        const char *escape = json_escape(c, escaped);
        if (c == 0)
            return expr_never();
        if (!escape) {
            n += put_utf8(spelled + n, c);
            continue;
        }
        while (*escape)
            spelled[n++] = *escape++;
    }
    return spelled && at == length ? expr_bytes(m, spelled, n) : expr_never();
}
