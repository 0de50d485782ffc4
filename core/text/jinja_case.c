/* Changing the case of text as Python's str does: Unicode's full mappings, final sigma included. The simple
 * mappings are utf8proc's; the table has the characters that become several. No state. */
#include <utf8proc.h>

#include "jinja.h"

struct special_case {
    uint32_t c, upper[3], title[3];
};

/* From Unicode's SpecialCasing.txt, the unconditional mappings; U+1F80 to U+1FAF follow a rule, below. */
static const struct special_case specials[] = {
    {0xdf, {0x53, 0x53}, {0x53, 0x73}},
    {0x149, {0x2bc, 0x4e}, {0x2bc, 0x4e}},
    {0x1f0, {0x4a, 0x30c}, {0x4a, 0x30c}},
    {0x390, {0x399, 0x308, 0x301}, {0x399, 0x308, 0x301}},
    {0x3b0, {0x3a5, 0x308, 0x301}, {0x3a5, 0x308, 0x301}},
    {0x587, {0x535, 0x552}, {0x535, 0x582}},
    {0x1e96, {0x48, 0x331}, {0x48, 0x331}},
    {0x1e97, {0x54, 0x308}, {0x54, 0x308}},
    {0x1e98, {0x57, 0x30a}, {0x57, 0x30a}},
    {0x1e99, {0x59, 0x30a}, {0x59, 0x30a}},
    {0x1e9a, {0x41, 0x2be}, {0x41, 0x2be}},
    {0x1f50, {0x3a5, 0x313}, {0x3a5, 0x313}},
    {0x1f52, {0x3a5, 0x313, 0x300}, {0x3a5, 0x313, 0x300}},
    {0x1f54, {0x3a5, 0x313, 0x301}, {0x3a5, 0x313, 0x301}},
    {0x1f56, {0x3a5, 0x313, 0x342}, {0x3a5, 0x313, 0x342}},
    {0x1fb2, {0x1fba, 0x399}, {0x1fba, 0x345}},
    {0x1fb3, {0x391, 0x399}, {0x1fbc}},
    {0x1fb4, {0x386, 0x399}, {0x386, 0x345}},
    {0x1fb6, {0x391, 0x342}, {0x391, 0x342}},
    {0x1fb7, {0x391, 0x342, 0x399}, {0x391, 0x342, 0x345}},
    {0x1fbc, {0x391, 0x399}, {0x1fbc}},
    {0x1fc2, {0x1fca, 0x399}, {0x1fca, 0x345}},
    {0x1fc3, {0x397, 0x399}, {0x1fcc}},
    {0x1fc4, {0x389, 0x399}, {0x389, 0x345}},
    {0x1fc6, {0x397, 0x342}, {0x397, 0x342}},
    {0x1fc7, {0x397, 0x342, 0x399}, {0x397, 0x342, 0x345}},
    {0x1fcc, {0x397, 0x399}, {0x1fcc}},
    {0x1fd2, {0x399, 0x308, 0x300}, {0x399, 0x308, 0x300}},
    {0x1fd3, {0x399, 0x308, 0x301}, {0x399, 0x308, 0x301}},
    {0x1fd6, {0x399, 0x342}, {0x399, 0x342}},
    {0x1fd7, {0x399, 0x308, 0x342}, {0x399, 0x308, 0x342}},
    {0x1fe2, {0x3a5, 0x308, 0x300}, {0x3a5, 0x308, 0x300}},
    {0x1fe3, {0x3a5, 0x308, 0x301}, {0x3a5, 0x308, 0x301}},
    {0x1fe4, {0x3a1, 0x313}, {0x3a1, 0x313}},
    {0x1fe6, {0x3a5, 0x342}, {0x3a5, 0x342}},
    {0x1fe7, {0x3a5, 0x308, 0x342}, {0x3a5, 0x308, 0x342}},
    {0x1ff2, {0x1ffa, 0x399}, {0x1ffa, 0x345}},
    {0x1ff3, {0x3a9, 0x399}, {0x1ffc}},
    {0x1ff4, {0x38f, 0x399}, {0x38f, 0x345}},
    {0x1ff6, {0x3a9, 0x342}, {0x3a9, 0x342}},
    {0x1ff7, {0x3a9, 0x342, 0x399}, {0x3a9, 0x342, 0x345}},
    {0x1ffc, {0x3a9, 0x399}, {0x1ffc}},
    {0xfb00, {0x46, 0x46}, {0x46, 0x66}},
    {0xfb01, {0x46, 0x49}, {0x46, 0x69}},
    {0xfb02, {0x46, 0x4c}, {0x46, 0x6c}},
    {0xfb03, {0x46, 0x46, 0x49}, {0x46, 0x66, 0x69}},
    {0xfb04, {0x46, 0x46, 0x4c}, {0x46, 0x66, 0x6c}},
    {0xfb05, {0x53, 0x54}, {0x53, 0x74}},
    {0xfb06, {0x53, 0x54}, {0x53, 0x74}},
    {0xfb13, {0x544, 0x546}, {0x544, 0x576}},
    {0xfb14, {0x544, 0x535}, {0x544, 0x565}},
    {0xfb15, {0x544, 0x53b}, {0x544, 0x56b}},
    {0xfb16, {0x54e, 0x546}, {0x54e, 0x576}},
    {0xfb17, {0x544, 0x53d}, {0x544, 0x56d}},
};

static const struct special_case *special_find(uint32_t c)
{
    if (c < 0xdf)
        return NULL;
    size_t low = 0, high = sizeof specials / sizeof specials[0];
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (specials[middle].c == c)
            return &specials[middle];
        if (specials[middle].c < c)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static size_t copy_mapping(const uint32_t from[3], uint32_t out[3])
{
    size_t n = 0;
    for (; n < 3 && from[n]; n++)
        out[n] = from[n];
    return n;
}

static size_t to_upper(uint32_t c, uint32_t out[3])
{
    const struct special_case *s = special_find(c);
    if (s)
        return copy_mapping(s->upper, out);
    if (c >= 0x1f80 && c <= 0x1faf) { /* Greek with iota below */
        uint32_t base = c < 0x1f90 ? 0x1f08 : c < 0x1fa0 ? 0x1f28 : 0x1f68;
        out[0] = base + (c & 7);
        out[1] = 0x399;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_toupper((utf8proc_int32_t)c);
    return 1;
}

static size_t to_title(uint32_t c, uint32_t out[3])
{
    const struct special_case *s = special_find(c);
    if (s)
        return copy_mapping(s->title, out);
    out[0] = (uint32_t)utf8proc_totitle((utf8proc_int32_t)c);
    return 1;
}

static size_t to_lower(uint32_t c, uint32_t out[3])
{
    if (c == 0x130) {
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    return 1;
}

static bool is_cased(uint32_t c)
{
    return jchar_is_upper(c) || jchar_is_lower(c) || jchar_is_title(c);
}

static bool is_case_ignorable(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
           k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK || c == '\'' || c == '.' || c == ':' ||
           c == 0xb7 || c == 0x387 || c == 0x55f || c == 0x5f4 || c == 0x2018 || c == 0x2019 || c == 0x2024 ||
           c == 0x2027 || c == 0xfe13 || c == 0xfe52 || c == 0xfe55 || c == 0xff07 || c == 0xff0e ||
           c == 0xff1a;
}

/* A capital sigma at the end of a word becomes the final form. */
static bool sigma_is_final(const struct jstr *s, size_t at, size_t end)
{
    size_t n, p = at;
    bool before = false;
    while (p > 0) {
        size_t start = p - 1;
        while (start > 0 && ((unsigned char)s->data[start] & 0xc0) == 0x80)
            start--;
        uint32_t c = jchar_decode(s->data + start, p - start, &n);
        p = start;
        if (is_case_ignorable(c))
            continue;
        before = is_cased(c);
        break;
    }
    if (!before)
        return false;
    for (p = end; p < s->len; p += n) {
        uint32_t c = jchar_decode(s->data + p, s->len - p, &n);
        if (!is_case_ignorable(c))
            return !is_cased(c);
    }
    return true;
}

static size_t fold(uint32_t c, uint32_t out[3])
{
    utf8proc_int32_t folded[4];
    int boundclass = 0;
    utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)c, folded, 4, UTF8PROC_CASEFOLD, &boundclass);
    if (n < 1 || n > 3) {
        out[0] = c;
        return 1;
    }
    for (utf8proc_ssize_t i = 0; i < n; i++)
        out[i] = (uint32_t)folded[i];
    return (size_t)n;
}

struct case_state {
    const struct jstr *s;
    size_t at, end; /* of this character */
    bool in_word;   /* the character before is cased */
};

static size_t lower_here(const struct case_state *k, uint32_t c, uint32_t out[3])
{
    if (c == 0x3a3) {
        out[0] = sigma_is_final(k->s, k->at, k->end) ? 0x3c2 : 0x3c3;
        return 1;
    }
    return to_lower(c, out);
}

static size_t map_char(struct case_state *k, uint32_t c, enum jcase how, uint32_t out[3])
{
    switch (how) {
    case JCASE_UPPER:
        return to_upper(c, out);
    case JCASE_FOLD:
        return fold(c, out);
    case JCASE_SWAP:
        if (jchar_is_upper(c))
            return lower_here(k, c, out);
        if (jchar_is_lower(c))
            return to_upper(c, out);
        out[0] = c;
        return 1;
    case JCASE_CAPITAL:
        return k->at == 0 ? to_title(c, out) : lower_here(k, c, out);
    case JCASE_TITLE: {
        bool was_in_word = k->in_word;
        k->in_word = is_cased(c);
        return was_in_word ? lower_here(k, c, out) : to_title(c, out);
    }
    case JCASE_LOWER:
        break;
    }
    return lower_here(k, c, out);
}

const struct jstr *jstr_case(struct render *r, const struct jstr *s, enum jcase how)
{
    size_t mark = r->out.length;
    struct case_state k = {.s = s};
    uint32_t mapped[3];
    char bytes[4];
    if (!jv_step_bytes(r, s->len))
        return NULL;
    while (k.at < s->len) {
        size_t n;
        uint32_t c = jchar_decode(s->data + k.at, s->len - k.at, &n);
        k.end = k.at + n;
        size_t n_mapped = map_char(&k, c, how, mapped);
        for (size_t i = 0; i < n_mapped; i++)
            if (!jv_put(r, bytes, jchar_encode(mapped[i], bytes)))
                return NULL;
        k.at = k.end;
    }
    const struct jstr *result = render_take(r, mark);
    return result && s->safe ? jstr_mark(r, result, true) : result;
}
