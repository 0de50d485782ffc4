/* GGUF metadata.
 *
 *     pair  = key (u64 length, bytes), type u32, value
 *     array = item type u32, count u64, items; an item is a number, a bool or a string, never an array
 *
 * Nothing is allocated for a count before the file has shown that it can hold that many of the smallest item.
 * Duplicate keys are refused: readers differ in which one they would believe. */
#include "gguf_meta.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define FETCH_BYTES ((uint64_t)1 << 20)

static const unsigned char type_bytes[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};
static const char *const type_names[GGUF_TYPE_COUNT] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                        "bool", "string", "array", "u64", "i64", "f64"};

/* ---- the reading position */

uint64_t cursor_left(const struct cursor *c)
{
    return c->source->file.size_bytes - c->position;
}

enum status cursor_need(struct cursor *c, uint64_t n_bytes, const char *what, struct error *err)
{
    uint64_t end;
    if (n_bytes > cursor_left(c) || !u64_add(c->position, n_bytes, &end))
        return fail(err, STATUS_FORMAT,
                    "%s: cut short: %s at byte %llu needs %llu bytes, the file has %llu more", c->shown, what,
                    (unsigned long long)c->position, (unsigned long long)n_bytes,
                    (unsigned long long)cursor_left(c));
    if (end > c->limit_bytes)
        return fail(err, STATUS_TOO_LARGE, "%s: metadata and tensor table exceed %llu bytes (at %s)",
                    c->shown, (unsigned long long)c->limit_bytes, what);
    if (end <= c->bytes.length)
        return STATUS_OK;
    uint64_t fetched = c->bytes.length, goal = fetched + FETCH_BYTES > end ? fetched + FETCH_BYTES : end;
    if (goal > c->source->file.size_bytes)
        goal = c->source->file.size_bytes;
    if (!buf_reserve(&c->bytes, (size_t)(goal - fetched)))
        return fail(err, STATUS_NO_MEMORY, "%s: no memory for the metadata", c->shown);
    enum status s = source_read(c->source, fetched, c->bytes.data + fetched, (size_t)(goal - fetched), err);
    if (s == STATUS_OK)
        c->bytes.length = (size_t)goal;
    return s;
}

static uint64_t little_endian(const unsigned char *p, unsigned n_bytes)
{
    uint64_t v = 0;
    for (unsigned i = n_bytes; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

static enum status cursor_number(struct cursor *c, unsigned n_bytes, const char *what, uint64_t *out,
                                 struct error *err)
{
    enum status s = cursor_need(c, n_bytes, what, err);
    if (s != STATUS_OK)
        return s;
    *out = little_endian((const unsigned char *)c->bytes.data + c->position, n_bytes);
    c->position += n_bytes;
    return STATUS_OK;
}

enum status cursor_u32(struct cursor *c, const char *what, uint32_t *out, struct error *err)
{
    uint64_t v = 0;
    enum status s = cursor_number(c, 4, what, &v, err);
    *out = (uint32_t)v;
    return s;
}

enum status cursor_u64(struct cursor *c, const char *what, uint64_t *out, struct error *err)
{
    *out = 0;
    return cursor_number(c, 8, what, out, err);
}

enum status cursor_name(struct cursor *c, struct arena *arena, uint64_t max_bytes, const char *what,
                        const char **out, struct error *err)
{
    uint64_t n;
    enum status s = cursor_u64(c, what, &n, err);
    if (s != STATUS_OK)
        return s;
    if (n == 0 || n > max_bytes)
        return fail(err, STATUS_FORMAT, "%s: %s at byte %llu has %llu bytes, expected 1 to %llu", c->shown,
                    what, (unsigned long long)c->position, (unsigned long long)n,
                    (unsigned long long)max_bytes);
    s = cursor_need(c, n, what, err);
    if (s != STATUS_OK)
        return s;
    const char *p = c->bytes.data + c->position;
    if (memchr(p, '\0', (size_t)n))
        return fail(err, STATUS_FORMAT, "%s: %s at byte %llu contains a NUL", c->shown, what,
                    (unsigned long long)c->position);
    *out = arena_strndup(arena, p, (size_t)n);
    c->position += n;
    return *out ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
}

/* ---- values */

static void set_number(struct gguf_value *v, uint64_t bits)
{
    union {
        uint32_t u;
        float f;
    } single = {.u = (uint32_t)bits};
    union {
        uint64_t u;
        double f;
    } twice = {.u = bits};
    switch (v->type) {
    case GGUF_I8:
        v->number.i = (int8_t)bits;
        break;
    case GGUF_I16:
        v->number.i = (int16_t)bits;
        break;
    case GGUF_I32:
        v->number.i = (int32_t)bits;
        break;
    case GGUF_F32:
        v->number.f = (double)single.f;
        break;
    case GGUF_F64:
        v->number.f = twice.f;
        break;
    default:
        v->number.u = bits;
        break;
    }
}

static enum status read_string(struct gguf_meta *m, struct cursor *c, struct gguf_value *v, struct error *err)
{
    enum status s = cursor_u64(c, v->key, &v->n, err);
    if (s == STATUS_OK)
        s = cursor_need(c, v->n, v->key, err);
    if (s != STATUS_OK)
        return s;
    v->text = arena_strndup(m->arena, c->bytes.data + c->position, (size_t)v->n);
    c->position += v->n;
    return v->text ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "%s: %s: no memory", c->shown, v->key);
}

/* Walks the items once to learn the total, then copies them: one block however many items there are. */
static enum status read_strings(struct gguf_meta *m, struct cursor *c, struct gguf_value *v,
                                struct error *err)
{
    uint64_t begin = c->position, length, total = 0;
    for (uint64_t i = 0; i < v->n; i++) {
        enum status s = cursor_u64(c, v->key, &length, err);
        if (s == STATUS_OK)
            s = cursor_need(c, length, v->key, err);
        if (s != STATUS_OK)
            return s;
        c->position += length;
        total += length + 1; /* each at most what was read, so no wrap */
    }
    uint64_t *begins = arena_array(m->arena, (size_t)v->n + 1, sizeof *begins);
    char *text = arena_alloc(m->arena, (size_t)total + 1);
    if (!begins || !text)
        return fail(err, STATUS_NO_MEMORY, "%s: %s: no memory for %llu strings", c->shown, v->key,
                    (unsigned long long)v->n);
    const char *p = c->bytes.data + begin;
    uint64_t at = 0;
    for (uint64_t i = 0; i < v->n; i++) {
        length = little_endian((const unsigned char *)p, 8);
        memcpy(text + at, p + 8, (size_t)length);
        begins[i] = at;
        at += length + 1;
        p += 8 + length;
    }
    begins[v->n] = at;
    v->begins = begins;
    v->text = text;
    return STATUS_OK;
}

static enum status read_array(struct gguf_meta *m, struct cursor *c, struct gguf_value *v, struct error *err)
{
    uint32_t type;
    enum status s = cursor_u32(c, v->key, &type, err);
    if (s == STATUS_OK)
        s = cursor_u64(c, v->key, &v->n, err);
    if (s != STATUS_OK)
        return s;
    if (type == GGUF_ARRAY)
        return fail(err, STATUS_UNSUPPORTED, "%s: %s: an array of arrays", c->shown, v->key);
    if (type >= GGUF_TYPE_COUNT)
        return fail(err, STATUS_FORMAT, "%s: %s: array item type %u is not known", c->shown, v->key, type);
    v->item_type = (enum gguf_type)type;
    uint64_t smallest = type == GGUF_STRING ? 8 : type_bytes[type];
    if (v->n > cursor_left(c) / smallest)
        return fail(err, STATUS_FORMAT, "%s: cut short: %s has %llu items, the file has %llu more bytes",
                    c->shown, v->key, (unsigned long long)v->n, (unsigned long long)cursor_left(c));
    if (type == GGUF_STRING)
        return read_strings(m, c, v, err);
    uint64_t size = v->n * smallest;
    s = cursor_need(c, size, v->key, err);
    if (s != STATUS_OK)
        return s;
    unsigned char *raw = arena_alloc(m->arena, (size_t)size);
    if (!raw)
        return fail(err, STATUS_NO_MEMORY, "%s: %s: no memory for %llu items", c->shown, v->key,
                    (unsigned long long)v->n);
    memcpy(raw, c->bytes.data + c->position, (size_t)size);
    for (uint64_t i = 0; type == GGUF_BOOL && i < v->n; i++)
        if (raw[i] > 1)
            return fail(err, STATUS_FORMAT, "%s: %s: item %llu is %u, expected a bool (0 or 1)", c->shown,
                        v->key, (unsigned long long)i, raw[i]);
    v->raw = raw;
    c->position += size;
    return STATUS_OK;
}

static enum status read_value(struct gguf_meta *m, struct cursor *c, struct gguf_value *v, struct error *err)
{
    uint32_t type;
    uint64_t bits;
    enum status s = cursor_name(c, m->arena, GGUF_KEY_MAX, "a metadata key", &v->key, err);
    if (s == STATUS_OK)
        s = cursor_u32(c, v->key, &type, err);
    if (s != STATUS_OK)
        return s;
    if (type >= GGUF_TYPE_COUNT)
        return fail(err, STATUS_FORMAT, "%s: %s: value type %u is not known", c->shown, v->key, type);
    v->type = (enum gguf_type)type;
    if (v->type == GGUF_STRING)
        return read_string(m, c, v, err);
    if (v->type == GGUF_ARRAY)
        return read_array(m, c, v, err);
    s = cursor_number(c, type_bytes[type], v->key, &bits, err);
    if (s != STATUS_OK)
        return s;
    if (v->type == GGUF_BOOL && bits > 1)
        return fail(err, STATUS_FORMAT, "%s: %s is %u, expected a bool (0 or 1)", c->shown, v->key,
                    (unsigned)bits);
    set_number(v, bits);
    return STATUS_OK;
}

static int compare_by_key(const void *a, const void *b)
{
    return strcmp((*(const struct gguf_value *const *)a)->key, (*(const struct gguf_value *const *)b)->key);
}

static int compare_key_with(const void *key, const void *item)
{
    return strcmp(key, (*(const struct gguf_value *const *)item)->key);
}

enum status gguf_meta_read(struct gguf_meta *m, struct cursor *c, uint64_t n_values, struct error *err)
{
    m->arena = arena_create(0);
    m->values = mem_array((size_t)n_values, sizeof *m->values);
    m->by_key = mem_array((size_t)n_values, sizeof *m->by_key);
    if (!m->arena || !m->values || !m->by_key)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory for %llu metadata pairs", c->shown,
                    (unsigned long long)n_values);
    for (uint64_t i = 0; i < n_values; i++) {
        enum status s = read_value(m, c, &m->values[i], err);
        if (s != STATUS_OK)
            return s;
        m->by_key[i] = &m->values[i];
    }
    m->n_values = (size_t)n_values;
    if (n_values)
        qsort(m->by_key, m->n_values, sizeof *m->by_key, compare_by_key);
    for (size_t i = 1; i < m->n_values; i++)
        if (strcmp(m->by_key[i - 1]->key, m->by_key[i]->key) == 0)
            return fail(err, STATUS_FORMAT, "%s: key '%s' is given twice", c->shown, m->by_key[i]->key);
    return STATUS_OK;
}

void gguf_meta_fini(struct gguf_meta *m)
{
    mem_free(m->values);
    mem_free(m->by_key);
    arena_destroy(m->arena);
}

const struct gguf_value *gguf_meta_find(const struct gguf_meta *m, const char *key)
{
    const struct gguf_value **found = NULL;
    if (m->n_values)
        found = bsearch(key, m->by_key, m->n_values, sizeof *m->by_key, compare_key_with);
    return found ? *found : NULL;
}

/* ---- typed access: the door */

static enum status find(const struct gguf *g, const char *key, const struct gguf_value **out,
                        struct error *err)
{
    *out = gguf_meta_find(&g->meta, key);
    return *out ? STATUS_OK : fail(err, STATUS_NOT_FOUND, "%s: no %s in the metadata", g->path, key);
}

static enum status wrong_type(const struct gguf *g, const struct gguf_value *v, const char *expected,
                              struct error *err)
{
    return fail(err, STATUS_FORMAT, "%s: %s is %s%s, expected %s", g->path, v->key,
                v->type == GGUF_ARRAY ? "an array of " : "of type ",
                type_names[v->type == GGUF_ARRAY ? v->item_type : v->type], expected);
}

static bool is_signed(enum gguf_type t)
{
    return t == GGUF_I8 || t == GGUF_I16 || t == GGUF_I32 || t == GGUF_I64;
}

static bool is_unsigned(enum gguf_type t)
{
    return t == GGUF_U8 || t == GGUF_U16 || t == GGUF_U32 || t == GGUF_U64;
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return gguf_meta_find(&g->meta, key) != NULL;
}

enum status gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct error *err)
{
    const struct gguf_value *v;
    enum status s = find(g, key, &v, err);
    if (s != STATUS_OK)
        return s;
    if (is_signed(v->type) && v->number.i < 0)
        return fail(err, STATUS_FORMAT, "%s: %s is %lld, expected no negative number", g->path, key,
                    (long long)v->number.i);
    if (!is_signed(v->type) && !is_unsigned(v->type))
        return wrong_type(g, v, "an integer", err);
    *out = v->number.u;
    return STATUS_OK;
}

enum status gguf_get_f64(const struct gguf *g, const char *key, double *out, struct error *err)
{
    const struct gguf_value *v;
    enum status s = find(g, key, &v, err);
    if (s != STATUS_OK)
        return s;
    if (is_signed(v->type))
        *out = (double)v->number.i;
    else if (is_unsigned(v->type))
        *out = (double)v->number.u;
    else if (v->type == GGUF_F32 || v->type == GGUF_F64)
        *out = v->number.f;
    else
        return wrong_type(g, v, "a number", err);
    return STATUS_OK;
}

enum status gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct error *err)
{
    const struct gguf_value *v;
    enum status s = find(g, key, &v, err);
    if (s != STATUS_OK)
        return s;
    if (v->type != GGUF_BOOL)
        return wrong_type(g, v, "a bool", err);
    *out = v->number.u != 0;
    return STATUS_OK;
}

enum status gguf_get_string(const struct gguf *g, const char *key, const char **out, size_t *length,
                            struct error *err)
{
    const struct gguf_value *v;
    enum status s = find(g, key, &v, err);
    if (s != STATUS_OK)
        return s;
    if (v->type != GGUF_STRING)
        return wrong_type(g, v, "a string", err);
    *out = v->text;
    if (length)
        *length = (size_t)v->n;
    return STATUS_OK;
}

static enum status find_array(const struct gguf *g, const char *key, const struct gguf_value **out,
                              struct error *err)
{
    enum status s = find(g, key, out, err);
    if (s != STATUS_OK || !*out)
        return s;
    return (*out)->type == GGUF_ARRAY ? STATUS_OK : wrong_type(g, *out, "an array", err);
}

enum status gguf_get_array(const struct gguf *g, const char *key, uint64_t *n_items, struct error *err)
{
    const struct gguf_value *v;
    enum status s = find_array(g, key, &v, err);
    if (s == STATUS_OK)
        *n_items = v->n;
    return s;
}

enum status gguf_array_string(const struct gguf *g, const char *key, uint64_t index, const char **out,
                              size_t *length, struct error *err)
{
    const struct gguf_value *v;
    enum status s = find_array(g, key, &v, err);
    if (s != STATUS_OK)
        return s;
    if (v->item_type != GGUF_STRING)
        return wrong_type(g, v, "an array of strings", err);
    require(index < v->n);
    *out = v->text + v->begins[index];
    if (length)
        *length = (size_t)(v->begins[index + 1] - v->begins[index] - 1);
    return STATUS_OK;
}

/* Item `index` of a numeric array as a scalar value. */
static struct gguf_value item_at(const struct gguf_value *v, uint64_t index)
{
    struct gguf_value item = {.type = v->item_type};
    unsigned size = type_bytes[v->item_type];
    set_number(&item, little_endian(v->raw + index * size, size));
    return item;
}

enum status gguf_array_f32(const struct gguf *g, const char *key, float *out, uint64_t n_items,
                           struct error *err)
{
    const struct gguf_value *v;
    enum status s = find_array(g, key, &v, err);
    if (s != STATUS_OK)
        return s;
    if (v->item_type != GGUF_F32 && v->item_type != GGUF_F64)
        return wrong_type(g, v, "an array of floats", err);
    require(n_items == v->n);
    for (uint64_t i = 0; i < n_items; i++)
        out[i] = (float)item_at(v, i).number.f;
    return STATUS_OK;
}

enum status gguf_array_i64(const struct gguf *g, const char *key, int64_t *out, uint64_t n_items,
                           struct error *err)
{
    const struct gguf_value *v;
    enum status s = find_array(g, key, &v, err);
    if (s != STATUS_OK)
        return s;
    if (!is_signed(v->item_type) && !is_unsigned(v->item_type) && v->item_type != GGUF_BOOL)
        return wrong_type(g, v, "an array of integers", err);
    require(n_items == v->n);
    for (uint64_t i = 0; i < n_items; i++) {
        struct gguf_value item = item_at(v, i);
        if (v->item_type == GGUF_U64 && item.number.u > INT64_MAX)
            return fail(err, STATUS_FORMAT, "%s: %s: item %llu is out of range", g->path, key,
                        (unsigned long long)i);
        out[i] = item.number.i;
    }
    return STATUS_OK;
}

bool gguf_describe(const struct gguf *g, size_t index, const char **key, char *value, size_t value_bytes)
{
    if (index >= g->meta.n_values)
        return false;
    const struct gguf_value *v = &g->meta.values[index];
    *key = v->key;
    if (v->type == GGUF_ARRAY)
        snprintf(value, value_bytes, "[%llu %s]", (unsigned long long)v->n, type_names[v->item_type]);
    else if (v->type == GGUF_STRING)
        snprintf(value, value_bytes, "%s", v->text);
    else if (v->type == GGUF_BOOL)
        snprintf(value, value_bytes, "%s", v->number.u ? "true" : "false");
    else if (is_signed(v->type))
        snprintf(value, value_bytes, "%lld", (long long)v->number.i);
    else if (is_unsigned(v->type))
        snprintf(value, value_bytes, "%llu", (unsigned long long)v->number.u);
    else
        snprintf(value, value_bytes, "%.9g", v->number.f);
    return true;
}
