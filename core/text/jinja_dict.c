/* Python's equality, order and dict. Dicts keep the order of insertion; beyond a few entries an index of
 * open addressing finds keys, and long searches cost steps, so that crafted collisions hit a bound. */
#include <math.h>
#include <string.h>

#include "jinja.h"

#define SMALL_DICT 8U

/* ---- equality and order */

bool jstr_equal(const struct jstr *a, const struct jstr *b)
{
    return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

/* The order of UTF-8 bytes is the order of code points. */
int jstr_compare(const struct jstr *a, const struct jstr *b)
{
    size_t n = a->len < b->len ? a->len : b->len;
    int c = n ? memcmp(a->data, b->data, n) : 0;
    return c ? c : (a->len > b->len) - (a->len < b->len);
}

bool jv_same(struct jv a, struct jv b)
{
    if (a.tag != b.tag)
        return false;
    switch (a.tag) {
    case JV_NONE:
        return true;
    case JV_BOOL:
        return a.b == b.b;
    case JV_INT: /* small ints are the same object in CPython, others not; who asks means the value */
        return a.i == b.i;
    case JV_FLOAT:
        return a.f == b.f;
    case JV_STR:
        return a.s == b.s || jstr_equal(a.s, b.s);
    default:
        return a.seq == b.seq; /* any pointer */
    }
}

/* -1, 0, 1, or 2: not comparable (NaN). int64 and double are compared without rounding the int. */
static int compare_numbers(struct jv a, struct jv b)
{
    if (jv_is_int(a) && jv_is_int(b)) {
        int64_t x = jv_as_int(a), y = jv_as_int(b);
        return (x > y) - (x < y);
    }
    double x = jv_as_float(a), y = jv_as_float(b);
    if (isnan(x) || isnan(y))
        return 2;
    if (x != y || (jv_is_number(a) && a.tag == b.tag))
        return (x > y) - (x < y);
    /* Equal after rounding: compare as integers where the double is one of int64's range. */
    double d = a.tag == JV_FLOAT ? a.f : b.f;
    int64_t i = a.tag == JV_FLOAT ? jv_as_int(b) : jv_as_int(a);
    int order = d >= 9223372036854775808.0 ? -1 : (i > (int64_t)d) - (i < (int64_t)d);
    return a.tag == JV_FLOAT ? -order : order;
}

static struct jv equal_seqs(struct render *r, const struct jseq *a, const struct jseq *b)
{
    if (a->n != b->n)
        return jv_bool(false);
    for (size_t i = 0; i < a->n; i++) {
        struct jv e = jv_equal(r, a->items[i], b->items[i]);
        if (jv_is_error(e) || !e.b)
            return e;
    }
    return jv_bool(true);
}

static struct jv equal_dicts(struct render *r, const struct jdict *a, const struct jdict *b)
{
    if (a->n != b->n)
        return jv_bool(false);
    for (size_t i = 0; i < a->n; i++) {
        struct jv other;
        int found = jdict_get(r, b, a->entries[i].key, &other);
        if (found <= 0)
            return found < 0 ? jv_tagged(JV_ERROR) : jv_bool(false);
        struct jv e = jv_equal(r, a->entries[i].value, other);
        if (jv_is_error(e) || !e.b)
            return e;
    }
    return jv_bool(true);
}

struct jv jv_equal(struct render *r, struct jv a, struct jv b)
{
    if (jv_is_number(a) && jv_is_number(b))
        return jv_bool(compare_numbers(a, b) == 0);
    if (a.tag != b.tag)
        return jv_bool(false);
    struct jv result;
    switch (a.tag) {
    case JV_NONE:
    case JV_UNDEFINED:
        return jv_bool(true);
    case JV_STR:
        if (a.s->len > 256 && a.s->len == b.s->len && !jv_step_bytes(r, a.s->len))
            return jv_tagged(JV_ERROR);
        return jv_bool(jstr_equal(a.s, b.s));
    case JV_LIST:
    case JV_TUPLE:
    case JV_DICT:
        if (!jv_steps(r, 1) || !render_enter(r, "compared values"))
            return jv_tagged(JV_ERROR);
        result = a.tag == JV_DICT ? equal_dicts(r, a.dict, b.dict) : equal_seqs(r, a.seq, b.seq);
        r->depth--;
        return result;
    case JV_RANGE:
        return jv_bool(a.range->n == b.range->n &&
                       (!a.range->n || (a.range->start == b.range->start &&
                                        (a.range->n == 1 || a.range->step == b.range->step))));
    default:
        return jv_bool(a.seq == b.seq);
    }
}

static struct jv less_seqs(struct render *r, const struct jseq *a, const struct jseq *b, const char *op)
{
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        struct jv e = jv_equal(r, a->items[i], b->items[i]);
        if (jv_is_error(e))
            return e;
        if (!e.b)
            return jv_less(r, a->items[i], b->items[i], op);
    }
    return jv_bool(a->n < b->n);
}

struct jv jv_less(struct render *r, struct jv a, struct jv b, const char *op)
{
    if (jv_is_number(a) && jv_is_number(b))
        return jv_bool(compare_numbers(a, b) == -1);
    if (a.tag == JV_UNDEFINED || b.tag == JV_UNDEFINED)
        return jv_raise_undefined(r, a.tag == JV_UNDEFINED ? a : b);
    if (a.tag == JV_STR && b.tag == JV_STR)
        return jv_bool(jstr_compare(a.s, b.s) < 0);
    if (jv_is_seq(a) && a.tag == b.tag) {
        if (!jv_steps(r, 1) || !render_enter(r, "compared values"))
            return jv_tagged(JV_ERROR);
        struct jv result = less_seqs(r, a.seq, b.seq, op);
        r->depth--;
        return result;
    }
    return jv_raise(r, "TypeError", "'%s' not supported between instances of '%s' and '%s'", op,
                    jv_type_name(a), jv_type_name(b));
}

/* ---- dicts */

static uint64_t mix(uint64_t h)
{
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93U;
    h ^= h >> 32;
    return h;
}

static uint64_t hash_bytes(const char *data, size_t len)
{
    uint64_t h = 0x9e3779b97f4a7c15U ^ len;
    for (; len >= 8; data += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        h = mix(h ^ word) + 0x9e3779b97f4a7c15U;
    }
    uint64_t word = 0;
    memcpy(&word, data, len);
    return mix(h ^ word);
}

/* Equal keys have equal hashes: 1, 1.0 and true are one key. False: a type that can't be a key. */
static bool hash_value(struct render *r, struct jv v, uint64_t *hash)
{
    switch (v.tag) {
    case JV_FLOAT:
        if (v.f >= -9.2e18 && v.f <= 9.2e18 && v.f == (double)(int64_t)v.f)
            *hash = mix((uint64_t)(int64_t)v.f);
        else
            *hash = hash_bytes((const char *)&v.f, sizeof v.f);
        return true;
    case JV_INT:
    case JV_BOOL:
        *hash = mix((uint64_t)jv_as_int(v));
        return true;
    case JV_STR:
        *hash = hash_bytes(v.s->data, v.s->len);
        return true;
    case JV_NONE:
    case JV_UNDEFINED:
        *hash = (uint64_t)v.tag;
        return true;
    case JV_TUPLE:
        if (!render_enter(r, "keys"))
            return false;
        *hash = v.seq->n;
        for (size_t i = 0; i < v.seq->n; i++) {
            uint64_t h;
            if (!hash_value(r, v.seq->items[i], &h))
                return false;
            *hash = mix(*hash ^ h) + i;
        }
        r->depth--;
        return true;
    case JV_LIST:
    case JV_DICT:
    case JV_VIEW:
        jv_raise(r, "TypeError", "unhashable type: '%s'", jv_type_name(v));
        return false;
    default:
        *hash = mix((uint64_t)(uintptr_t)v.seq);
        return true;
    }
}

struct jdict *jdict_new(struct render *r, size_t capacity)
{
    struct jdict *d = jv_alloc(r, sizeof *d);
    if (!d || !jv_steps(r, 1 + capacity / 8))
        return NULL;
    size_t size;
    if (!size_mul(capacity, sizeof *d->entries, &size)) {
        jv_too_large(r, "a dict of %zu entries", capacity);
        return NULL;
    }
    d->entries = capacity ? jv_alloc(r, size) : NULL;
    d->capacity = capacity;
    return capacity && !d->entries ? NULL : d;
}

static bool keys_equal(struct render *r, struct jv a, struct jv b, bool *equal)
{
    struct jv e = jv_equal(r, a, b);
    *equal = !jv_is_error(e) && e.b;
    return !jv_is_error(e);
}

/* Looks for key; *entry is its number. Returns 1, 0 or -1. */
static int find_entry(struct render *r, const struct jdict *d, struct jv key, size_t *entry)
{
    uint64_t hash;
    bool equal;
    if (!hash_value(r, key, &hash))
        return -1;
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++) {
            if (!keys_equal(r, d->entries[i].key, key, &equal))
                return -1;
            *entry = i;
            if (equal)
                return 1;
        }
        return 0;
    }
    size_t at = hash & (d->index_size - 1);
    for (size_t probes = 0; d->index[at]; at = (at + 1) & (d->index_size - 1), probes++) {
        *entry = d->index[at] - 1;
        if (!keys_equal(r, d->entries[*entry].key, key, &equal) || (probes > 8 && !jv_steps(r, 1)))
            return -1;
        if (equal)
            return 1;
    }
    return 0;
}

int jdict_get(struct render *r, const struct jdict *d, struct jv key, struct jv *value)
{
    size_t entry;
    int found = find_entry(r, d, key, &entry);
    if (found == 1)
        *value = d->entries[entry].value;
    return found;
}

static bool index_add(struct render *r, struct jdict *d, size_t entry)
{
    uint64_t hash;
    if (!hash_value(r, d->entries[entry].key, &hash))
        return false;
    size_t at = hash & (d->index_size - 1);
    while (d->index[at])
        at = (at + 1) & (d->index_size - 1);
    d->index[at] = (uint32_t)entry + 1;
    return true;
}

static bool index_build(struct render *r, struct jdict *d)
{
    d->index_size = 32;
    while (d->index_size < d->capacity * 2)
        d->index_size *= 2;
    d->index = jv_alloc(r, d->index_size * sizeof *d->index);
    if (!d->index || !jv_steps(r, d->n / 4))
        return false;
    for (size_t i = 0; i < d->n; i++)
        if (!index_add(r, d, i))
            return false;
    return true;
}

static bool dict_grow(struct render *r, struct jdict *d)
{
    size_t capacity = d->capacity < 4 ? 4 : d->capacity * 2;
    if (capacity > UINT32_MAX / 64) {
        jv_too_large(r, "a dict of more than %zu entries", d->n);
        return false;
    }
    struct jentry *entries = jv_alloc(r, capacity * sizeof *entries);
    if (!entries)
        return false;
    if (d->n)
        memcpy(entries, d->entries, d->n * sizeof *entries);
    d->entries = entries;
    d->capacity = capacity;
    return !d->index || index_build(r, d);
}

bool jdict_set(struct render *r, struct jdict *d, struct jv key, struct jv value)
{
    size_t entry;
    int found = find_entry(r, d, key, &entry);
    if (found < 0)
        return false;
    if (found) {
        d->entries[entry].value = value;
        return true;
    }
    if (d->n == d->capacity && !dict_grow(r, d))
        return false;
    d->entries[d->n++] = (struct jentry){.key = key, .value = value};
    if (d->index)
        return index_add(r, d, d->n - 1);
    return d->n <= SMALL_DICT || index_build(r, d);
}

const struct jv *jdict_get_text(struct render *r, const struct jdict *d, const char *key)
{
    struct jstr s = {.data = key, .len = (uint32_t)strlen(key)};
    size_t entry;
    return find_entry(r, d, jv_of_str(&s), &entry) == 1 ? &d->entries[entry].value : NULL;
}
