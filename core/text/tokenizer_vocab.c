/* The vocabulary: ids to texts, texts to ids, and GPT-2's printable alphabet for bytes. Filled at load, then
 * only read. */
#include <string.h>

#include "tokenizer_inner.h"
#include "utf8.h"

/* Eight bytes at a time, multiply and fold; good enough for a table that is at most half full. */
static uint32_t text_hash(const char *text, size_t length)
{
    uint64_t h = 0x9E3779B97F4A7C15U ^ length;
    while (length >= 8) {
        uint64_t w;
        memcpy(&w, text, 8);
        h = (h ^ w) * 0xD6E8FEB86659FD93U;
        h ^= h >> 32;
        text += 8;
        length -= 8;
    }
    uint64_t w = 0;
    memcpy(&w, text, length);
    h = (h ^ w) * 0xD6E8FEB86659FD93U;
    h ^= h >> 29;
    return (uint32_t)(h ^ h >> 32);
}

bool text_map_init(struct text_map *m, struct arena *a, size_t n_texts)
{
    size_t n_slots = 16;
    while (n_slots < n_texts * 2)
        n_slots *= 2;
    m->mask = (uint32_t)(n_slots - 1);
    m->slots = arena_array(a, n_slots, sizeof *m->slots);
    return m->slots != NULL;
}

int32_t text_map_find(const struct text_map *m, const struct text_ref *texts, const char *text, size_t length)
{
    uint32_t hash = text_hash(text, length);
    for (uint32_t i = hash & m->mask;; i = (i + 1) & m->mask) {
        const struct text_slot *slot = &m->slots[i];
        if (slot->id_plus_1 == 0)
            return -1;
        const struct text_ref *have = &texts[slot->id_plus_1 - 1];
        if (slot->hash == hash && have->length == length && memcmp(have->text, text, length) == 0)
            return (int32_t)(slot->id_plus_1 - 1);
    }
}

void text_map_add(struct text_map *m, const struct text_ref *texts, uint32_t id)
{
    uint32_t hash = text_hash(texts[id].text, texts[id].length);
    uint32_t i = hash & m->mask;
    while (m->slots[i].id_plus_1 != 0)
        i = (i + 1) & m->mask;
    m->slots[i] = (struct text_slot){hash, id + 1};
}

bool vocab_init(struct vocab *v, struct arena *a, uint32_t n_ids)
{
    v->arena = a;
    v->n_ids = n_ids;
    v->texts = arena_array(a, (size_t)n_ids + 1, sizeof *v->texts);
    v->flags = arena_array(a, (size_t)n_ids + 1, 1);
    return v->texts && v->flags && text_map_init(&v->map, a, n_ids);
}

enum status vocab_add(struct vocab *v, uint32_t id, struct text_ref text, const char *field,
                      struct error *err)
{
    require(id < v->n_ids);
    if (text.length > TOKEN_BYTES_MAX)
        return fail(err, STATUS_TOO_LARGE, "%s: the token with id %u has %u bytes, at most %u are allowed",
                    field, id, text.length, TOKEN_BYTES_MAX);
    if (v->flags[id] & TOKEN_PRESENT)
        return fail(err, STATUS_FORMAT, "%s: id %u belongs to both \"%.60s\" and \"%.*s\"; ids must differ",
                    field, id, v->texts[id].text, SHOWN(text));
    int32_t other = text_map_find(&v->map, v->texts, text.text, text.length);
    if (other >= 0)
        return fail(err, STATUS_FORMAT, "%s: \"%.*s\" has two ids, %d and %u; a token must have one", field,
                    SHOWN(text), other, id);
    char *copy = arena_strndup(v->arena, text.text, text.length);
    if (!copy)
        return fail(err, STATUS_NO_MEMORY, "%s: not enough memory for the vocabulary", field);
    v->texts[id] = (struct text_ref){copy, text.length};
    v->flags[id] |= TOKEN_PRESENT;
    text_map_add(&v->map, v->texts, id);
    return STATUS_OK;
}

/* ! to ~, ¡ to ¬ and ® to ÿ stand for themselves; the other 68 bytes, in order, for U+0100 and on. */
static bool is_printable(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

uint32_t byte_level_char(uint8_t byte)
{
    if (is_printable(byte))
        return byte;
    return byte <= 0x20 ? 0x100U + byte : byte <= 0xA0 ? 0x121U + (byte - 0x7FU) : 0x143U;
}

int byte_level_byte(uint32_t c)
{
    if (c < 0x100)
        return is_printable(c) ? (int)c : -1;
    if (c <= 0x120)
        return (int)(c - 0x100);
    if (c <= 0x142)
        return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}

bool byte_level_decode(const char *text, size_t length, char *dst, size_t *n_bytes)
{
    size_t n = 0;
    while (length > 0) {
        uint32_t c;
        unsigned taken = utf8_step(text, length, &c);
        int byte = byte_level_byte(c);
        if (byte < 0)
            return false;
        dst[n++] = (char)byte;
        text += taken;
        length -= taken;
    }
    *n_bytes = n;
    return true;
}

bool byte_level_encode(struct buf *out, const char *text, size_t length)
{
    if (!buf_reserve(out, length * 2))
        return false;
    for (size_t i = 0; i < length; i++) {
        char c[4];
        unsigned n = utf8_put(c, byte_level_char((uint8_t)text[i]));
        if (!buf_append(out, c, n))
            return false;
    }
    return true;
}
