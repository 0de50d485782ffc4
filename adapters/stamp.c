/* lorikeet_base.json: the sketch of the base that an adapter was trained on.
 *
 *     {"format": "lorikeet-base", "version": 1, "name": "gemma-3-270m", "digest": 64 hex digits,
 *      "weight_type": "bf16", "model_type": "gemma3_text", "n_layers": 18, "hidden_size": 640, ...,
 *      "spots": ["K EEEEEEEE values steps", ...]}
 *
 * A spot: the kind of its matrix (decimal), a bit for each value that is its block's end, each value's f32 as
 * 8 hex digits, each step's upper half, rounded up, as 4. A stranger's file: every length and range is
 * checked. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "content_hash.h"
#include "fingerprint.h"
#include "format.h"
#include "lora.h"

#define VERSION 1

static const char *const text_keys[] = {"format", "name", "digest", "weight_type", "model_type"};
static const char *const number_keys[] = {"n_layers",   "hidden_size", "intermediate_size", "n_heads",
                                          "n_kv_heads", "head_dim",    "vocab_size",        "n_experts"};
#define N_TEXTS (sizeof text_keys / sizeof *text_keys)
#define N_NUMBERS (sizeof number_keys / sizeof *number_keys)
#define N_KEYS (N_TEXTS + N_NUMBERS + 2) /* version, spots */

static uint32_t *number_at(struct base_shape *s, size_t i)
{
    uint32_t *const at[N_NUMBERS] = {&s->n_layers,   &s->hidden_size, &s->intermediate_size, &s->n_heads,
                                     &s->n_kv_heads, &s->head_dim,    &s->vocab_size,        &s->n_experts};
    return at[i];
}

/* ---- writing ---- */

static uint32_t bits_of(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return u;
}

static float from_bits(uint32_t u)
{
    float v;
    memcpy(&v, &u, sizeof v);
    return v;
}

static void put_spot(struct buf *out, const struct sketch_spot *s)
{
    const struct grid *g = &s->grid;
    uint32_t ends = 0;
    for (uint32_t k = 0; k < g->n; k++)
        ends |= (uint32_t)g->is_end[k] << k;
    buf_printf(out, "\"%u %08x ", s->kind, ends);
    for (uint32_t k = 0; k < g->n; k++)
        buf_printf(out, "%08x", bits_of(g->value[k]));
    buf_putc(out, ' ');
    for (uint32_t k = 0; k < g->n; k++)
        buf_printf(out, "%04x", (bits_of(g->step[k]) + 0xffff) >> 16);
    buf_putc(out, '"');
}

static bool put_text(struct buf *out, const char *key, const char *text)
{
    json_t *value = json_string(text); /* NULL if it is no UTF-8 */
    char *dumped = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    if (dumped)
        buf_printf(out, ",\n \"%s\": %s", key, dumped);
    free(dumped);
    json_decref(value);
    return dumped != NULL;
}

enum status stamp_render(const struct base_sketch *s, struct buf *out, struct error *err)
{
    char hex[65];
    struct base_shape shape = s->shape;
    hex_of(s->digest, 32, hex);
    buf_printf(out, "{\"format\": \"lorikeet-base\",\n \"version\": %d", VERSION);
    bool ok = put_text(out, "name", s->name) && put_text(out, "digest", hex) &&
              put_text(out, "weight_type", s->weight_type) && put_text(out, "model_type", shape.model_type);
    for (size_t i = 0; i < N_NUMBERS; i++)
        buf_printf(out, ",\n \"%s\": %u", number_keys[i], *number_at(&shape, i));
    buf_puts(out, ",\n \"spots\": [");
    for (uint32_t i = 0; i < s->n_spots; i++) {
        buf_puts(out, i ? ",\n  " : "\n  ");
        put_spot(out, &s->spots[i]);
    }
    buf_puts(out, "]}\n");
    return ok && !out->failed ? STATUS_OK
                              : fail(err, STATUS_NO_MEMORY, "no memory for the stamp of %s", s->name);
}

/* ---- reading ---- */

struct reading {
    const char *shown;
    json_t *root;
    struct base_sketch *out;
};

static enum status malformed(const struct reading *r, const char *key, const char *expected,
                             struct error *err)
{
    return fail(err, STATUS_FORMAT,
                "%s: %s: expected %s; write it anew with `lorikeet stamp`, or remove the file", r->shown, key,
                expected);
}

static enum status take_text(const struct reading *r, const char *key, char *dst, size_t dst_bytes,
                             struct error *err)
{
    const json_t *v = json_object_get(r->root, key);
    const char *text = json_string_value(v);
    if (!text || json_string_length(v) >= dst_bytes || strlen(text) != json_string_length(v))
        return malformed(r, key, "a text that is not too long", err);
    memcpy(dst, text, strlen(text) + 1);
    return STATUS_OK;
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* n_digits (at most 8) hex digits at *text. */
static bool take_hex(const char **text, unsigned n_digits, uint32_t *out)
{
    *out = 0;
    for (unsigned i = 0; i < n_digits; i++, ++*text) {
        int digit = hex_value(**text);
        if (digit < 0)
            return false;
        *out = *out << 4 | (uint32_t)digit;
    }
    return true;
}

static bool take_digest(const char *hex, uint8_t digest[32])
{
    uint32_t byte = 0;
    bool ok = strlen(hex) == 64;
    for (int i = 0; i < 32 && ok; i++) {
        ok = take_hex(&hex, 2, &byte);
        digest[i] = (uint8_t)byte;
    }
    return ok;
}

static bool take_values(const char **p, struct grid *g)
{
    uint32_t bits;
    for (uint32_t k = 0; k < g->n; k++) {
        if (!take_hex(p, 8, &bits) || !isfinite(from_bits(bits)))
            return false;
        g->value[k] = from_bits(bits);
    }
    if (*(*p)++ != ' ')
        return false;
    for (uint32_t k = 0; k < g->n; k++) {
        if (!take_hex(p, 4, &bits))
            return false;
        g->step[k] = from_bits(bits << 16);
        if (!(g->step[k] >= 0) || !isfinite(g->step[k]))
            return false;
    }
    return true;
}

static bool take_spot(const json_t *item, struct sketch_spot *s)
{
    const char *p = json_string_value(item);
    size_t n = json_string_length(item), head;
    uint32_t ends;
    if (!p || strlen(p) != n || p[0] < '0' || p[0] > '9')
        return false;
    unsigned kind = (unsigned)(p[0] - '0');
    p++;
    if (*p >= '0' && *p <= '9')
        kind = 10 * kind + (unsigned)(*p++ - '0');
    if (kind > LORA_SITE_COUNT || *p++ != ' ' || !take_hex(&p, 8, &ends) || *p++ != ' ')
        return false;
    head = n - strlen(p);
    if (n < head + 13 || (n - head - 1) % 12 || (n - head - 1) / 12 > GRID_VALUES)
        return false;
    s->kind = (uint8_t)kind;
    s->grid.n = (uint32_t)((n - head - 1) / 12);
    for (uint32_t k = 0; k < s->grid.n; k++)
        s->grid.is_end[k] = ends >> k & 1;
    return take_values(&p, &s->grid) && *p == '\0';
}

static enum status take_spots(const struct reading *r, struct error *err)
{
    const json_t *list = json_object_get(r->root, "spots");
    size_t n = json_array_size(list);
    if (n == 0 || n > SKETCH_SPOTS_MAX)
        return malformed(r, "spots", "a list of 1 to 1024", err);
    enum status s = sketch_alloc(r->out, (uint32_t)n, err);
    for (size_t i = 0; i < n && s == STATUS_OK; i++)
        if (!take_spot(json_array_get(list, i), &r->out->spots[i])) {
            char key[32];
            snprintf(key, sizeof key, "spots: item %zu", i + 1);
            s = malformed(r, key, "\"kind ends values steps\"", err);
        }
    return s;
}

static enum status take_numbers(const struct reading *r, struct error *err)
{
    const json_t *version = json_object_get(r->root, "version");
    if (!json_is_integer(version))
        return malformed(r, "version", "a whole number", err);
    if (json_integer_value(version) != VERSION)
        return fail(err, STATUS_UNSUPPORTED, "%s: version is %lld, expected %d: written by a newer lorikeet?",
                    r->shown, (long long)json_integer_value(version), VERSION);
    for (size_t i = 0; i < N_NUMBERS; i++) {
        const json_t *v = json_object_get(r->root, number_keys[i]);
        json_int_t n = json_is_integer(v) ? json_integer_value(v) : -1;
        if (n < 0 || n > UINT32_MAX)
            return malformed(r, number_keys[i], "a whole number", err);
        *number_at(&r->out->shape, i) = (uint32_t)n;
    }
    return STATUS_OK;
}

static enum status take_texts(const struct reading *r, struct error *err)
{
    char format[32], digest[80];
    struct base_sketch *s = r->out;
    char *const at[N_TEXTS] = {format, s->name, digest, s->weight_type, s->shape.model_type};
    const size_t room[N_TEXTS] = {sizeof format, sizeof s->name, sizeof digest, sizeof s->weight_type,
                                  sizeof s->shape.model_type};
    for (size_t i = 0; i < N_TEXTS; i++) {
        enum status st = take_text(r, text_keys[i], at[i], room[i], err);
        if (st != STATUS_OK)
            return st;
    }
    if (strcmp(format, "lorikeet-base") != 0)
        return malformed(r, "format", "\"lorikeet-base\"", err);
    return take_digest(digest, s->digest) ? STATUS_OK : malformed(r, "digest", "64 hexadecimal digits", err);
}

enum status stamp_parse(const char *text, size_t n_bytes, const char *shown, struct base_sketch *out,
                        struct error *err)
{
    struct reading r = {.shown = shown, .out = out};
    *out = (struct base_sketch){.n_spots = 0};
    enum status s = json_parse(text, n_bytes, shown, 4, &r.root, err);
    if (s == STATUS_OK &&
        json_object_size(r.root) != N_KEYS) /* each of ours is asked for: no other is there */
        s = malformed(&r, "its keys", "those of a stamp and no others", err);
    if (s == STATUS_OK)
        s = take_numbers(&r, err);
    if (s == STATUS_OK)
        s = take_texts(&r, err);
    if (s == STATUS_OK)
        s = take_spots(&r, err);
    json_decref(r.root);
    if (s != STATUS_OK)
        base_sketch_fini(out);
    return s;
}
