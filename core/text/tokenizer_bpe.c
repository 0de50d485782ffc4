/* Byte pair encoding: a word's characters (or bytes) are symbols; of all neighbours that may merge, the pair
 * of the lowest rank, leftmost first, becomes one symbol, until none is left.
 *
 * What makes it fast without changing a result:
 * - a word that is in the vocabulary often encodes as itself. Whether it does is found out once and
 * remembered
 *   (`whole`), so most words cost one look-up.
 * - between two symbols where no merge can ever happen (`junctions`: no merge joins a token that ends in the
 * one to a token that begins with the other) a word is cut, and each part is a word of its own. So a text
 * without pre-tokenizer falls apart at its spaces all the same.
 * - short parts are merged by scanning, long ones with a heap: O(n log n) for a megabyte without a gap. */
#include <string.h>

#include "base/mem.h"
#include "tokenizer_inner.h"
#include "utf8.h"

#define SCAN_MAX 24 /* symbols; above, the heap is quicker */
#define NO_MERGE UINT32_MAX
#define NONE UINT32_MAX

/* ---- tables, made at load */

static uint32_t pair_hash(uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15U;
    return (uint32_t)(h >> 32 ^ h >> 15);
}

static const struct merge *find_merge(const struct bpe *b, uint32_t left, uint32_t right)
{
    for (uint32_t i = pair_hash(left, right) & b->merges_mask;; i = (i + 1) & b->merges_mask) {
        const struct merge *m = &b->merges[i];
        if (m->left == left && m->right == right)
            return m;
        if (m->left == NONE)
            return NULL;
    }
}

void bpe_put_merge(struct bpe *b, const struct merge *m)
{
    uint32_t i = pair_hash(m->left, m->right) & b->merges_mask;
    while (b->merges[i].left != NONE && (b->merges[i].left != m->left || b->merges[i].right != m->right))
        i = (i + 1) & b->merges_mask;
    b->merges[i] = *m;
}

/* What the model compares words with: the vocabulary's texts, or, byte-level, the bytes behind them. */
static bool words_init(struct bpe *b, struct arena *a, const struct vocab *v)
{
    if (!b->raw) {
        size_t n_slots = (size_t)v->map.mask + 1;
        b->words = v->texts;
        b->map = (struct text_map){v->map.mask, arena_array(a, n_slots, sizeof *b->map.slots)};
        if (b->map.slots) /* as it is now: added tokens that come later are none of the model's */
            memcpy(b->map.slots, v->map.slots, n_slots * sizeof *b->map.slots);
        return b->map.slots != NULL;
    }
    struct text_ref *words = arena_array(a, (size_t)v->n_ids + 1, sizeof *words);
    if (!words || !text_map_init(&b->map, a, v->n_ids))
        return false;
    b->words = words;
    for (uint32_t id = 0; id < v->n_ids; id++) {
        size_t n = 0;
        char *bytes = v->texts[id].text ? arena_alloc(a, v->texts[id].length) : NULL;
        if (v->texts[id].text && !bytes)
            return false;
        if (!bytes || !byte_level_decode(v->texts[id].text, v->texts[id].length, bytes, &n))
            continue; /* a token with a character that stands for no byte is never met in text */
        words[id] = (struct text_ref){bytes, (uint32_t)n};
        if (text_map_find(&b->map, words, bytes, n) < 0)
            text_map_add(&b->map, words, id);
    }
    return true;
}

static bool symbols_init(struct bpe *b, struct arena *a)
{
    for (unsigned i = 0; i < 256; i++) {
        static const char digits[] = "0123456789ABCDEF";
        char text[] = {'<', '0', 'x', digits[i >> 4], digits[i & 15], '>'};
        char byte = (char)i;
        b->bytes[i] = b->raw             ? text_map_find(&b->map, b->words, &byte, 1)
                      : b->byte_fallback ? text_map_find(&b->map, b->words, text, sizeof text)
                                         : -1;
    }
    if (b->raw)
        return true;
    b->bmp = arena_array(a, 65536, sizeof *b->bmp);
    if (!b->bmp)
        return false;
    for (uint32_t c = 0; c < 65536; c++) {
        char text[4];
        bool surrogate = c >= 0xD800 && c <= 0xDFFF;
        b->bmp[c] = surrogate ? -1 : text_map_find(&b->map, b->words, text, utf8_put(text, c));
    }
    return true;
}

enum status bpe_init(struct bpe *b, struct arena *a, const struct vocab *v, bool raw, struct error *err)
{
    b->raw = raw;
    b->n_ids = v->n_ids;
    b->whole = arena_array(a, (size_t)v->n_ids + 1, 1);
    if (!b->whole || !words_init(b, a, v) || !symbols_init(b, a))
        return fail(err, STATUS_NO_MEMORY, "not enough memory for a vocabulary of %u tokens", v->n_ids);
    for (uint32_t id = 0; id < v->n_ids; id++)
        if (b->words[id].length > b->longest)
            b->longest = b->words[id].length;
    return STATUS_OK;
}

enum status bpe_merges_init(struct bpe *b, struct arena *a, size_t n_merges, struct error *err)
{
    size_t n_slots = 16, n_bits = 4096;
    if (n_merges > (size_t)TOKEN_IDS_MAX * 8)
        return fail(err, STATUS_TOO_LARGE, "%zu merges; at most %u are allowed", n_merges, TOKEN_IDS_MAX * 8);
    while (n_slots < n_merges * 2)
        n_slots *= 2;
    while (n_bits < n_merges * 8 && n_bits < 1U << 22)
        n_bits *= 2;
    b->merges_mask = (uint32_t)(n_slots - 1);
    b->junctions_mask = (uint32_t)(n_bits - 1);
    b->merges = arena_array(a, n_slots, sizeof *b->merges);
    b->junctions = arena_array(a, n_bits / 64, sizeof *b->junctions);
    if (!b->merges || !b->junctions)
        return fail(err, STATUS_NO_MEMORY, "not enough memory for %zu merges", n_merges);
    for (size_t i = 0; i < n_slots; i++)
        b->merges[i].left = NONE;
    return STATUS_OK;
}

static int32_t merge_side(const struct vocab *v, struct text_ref text, const char *field, struct error *err)
{
    int32_t id = text_map_find(&v->map, v->texts, text.text, text.length);
    if (id < 0)
        fail(err, STATUS_FORMAT, "%s: the token \"%.*s\" is not in model.vocab", field, SHOWN(text));
    return id;
}

enum status bpe_add_merge(struct bpe *b, const struct vocab *v, const struct merge_text *merge,
                          struct error *err)
{
    struct text_ref right = merge->right;
    int32_t l = merge_side(v, merge->left, merge->field, err), r = -1, merged = -1;
    if (l >= 0)
        r = merge_side(v, right, merge->field, err);
    if (r < 0)
        return STATUS_FORMAT;
    if (right.length < b->prefix.length)
        return fail(err, STATUS_FORMAT, "%s: \"%s\" is shorter than continuing_subword_prefix", merge->field,
                    v->texts[r].text);
    right.text += b->prefix.length;
    right.length -= b->prefix.length;
    struct buf joined;
    buf_init(&joined, 0);
    bool fine = buf_append(&joined, merge->left.text, merge->left.length) &&
                buf_append(&joined, right.text, right.length);
    struct text_ref text = {joined.data, (uint32_t)joined.length};
    if (fine)
        merged = merge_side(v, text, merge->field, err);
    buf_fini(&joined);
    if (!fine)
        return fail(err, STATUS_NO_MEMORY, "%s: not enough memory", merge->field);
    if (merged < 0)
        return STATUS_FORMAT;
    bpe_put_merge(b, &(struct merge){(uint32_t)l, (uint32_t)r, merge->rank, (uint32_t)merged});
    return STATUS_OK;
}

/* The symbol that a token's text begins or ends with; the token itself if its text is no run of symbols. */
static uint32_t edge_symbol(const struct bpe *b, uint32_t id, bool last)
{
    struct text_ref w = b->words[id];
    if (w.length == 0)
        return id;
    uint32_t c;
    int32_t symbol;
    if (b->raw) {
        symbol = b->bytes[(uint8_t)w.text[last ? w.length - 1 : 0]];
    } else {
        uint32_t at = last ? w.length - 1 : 0;
        while (at > 0 && ((unsigned char)w.text[at] & 0xC0) == 0x80)
            at--;
        unsigned n = utf8_step(w.text + at, w.length - at, &c);
        symbol = text_map_find(&b->map, b->words, w.text + at, n);
    }
    return symbol < 0 ? id : (uint32_t)symbol;
}

/* Fills in the junctions. Where symbols and texts don't go together one to one (prefixes, suffixes, merges of
 * byte tokens or of the unknown token) words are not cut. */
enum status bpe_finish(struct bpe *b, struct arena *a, struct error *err)
{
    uint8_t *odd = arena_array(a, (size_t)b->n_ids + 1, 1);
    if (!odd)
        return fail(err, STATUS_NO_MEMORY, "not enough memory for the merges");
    b->cut = b->prefix.length == 0 && b->suffix.length == 0;
    for (unsigned i = 0; i < 256 && !b->raw; i++)
        if (b->bytes[i] >= 0)
            odd[b->bytes[i]] = 1;
    if (b->unknown >= 0)
        odd[b->unknown] = 1;
    for (uint32_t i = 0; i <= b->merges_mask && b->cut; i++) {
        const struct merge *m = &b->merges[i];
        if (m->left == NONE)
            continue;
        if (odd[m->left] || odd[m->right])
            b->cut = false;
        uint32_t bit =
            pair_hash(edge_symbol(b, m->left, true), edge_symbol(b, m->right, false)) & b->junctions_mask;
        b->junctions[bit / 64] |= 1ULL << bit % 64;
    }
    return STATUS_OK;
}

static bool may_join(const struct bpe *b, uint32_t left, uint32_t right)
{
    uint32_t bit = pair_hash(left, right) & b->junctions_mask;
    return b->junctions[bit / 64] >> bit % 64 & 1;
}

/* ---- merging the symbols of one part */

void bpe_scratch_fini(struct bpe_scratch *s)
{
    mem_free(s->symbols);
    mem_free(s->heap);
    *s = (struct bpe_scratch){.n_symbols = 0};
}

/* symbols, next and previous are one allocation. */
static bool grow_symbols(struct bpe_scratch *s)
{
    size_t capacity = s->capacity ? s->capacity * 2 : 256;
    uint32_t *symbols = mem_alloc(capacity * 3 * sizeof *symbols);
    if (!symbols)
        return false;
    if (s->n_symbols)
        memcpy(symbols, s->symbols, s->n_symbols * sizeof *symbols);
    mem_free(s->symbols);
    s->symbols = symbols;
    s->next = symbols + capacity;
    s->previous = s->next + capacity;
    s->capacity = capacity;
    return true;
}

/* Few symbols: look for the best pair again and again, closing the gap each time. */
static void merge_by_scanning(const struct bpe *b, struct bpe_scratch *s)
{
    uint32_t *symbols = s->symbols, rank[SCAN_MAX], merged[SCAN_MAX];
    size_t n = s->n_symbols;
    for (size_t i = 0; i + 1 < n; i++) {
        const struct merge *m = find_merge(b, symbols[i], symbols[i + 1]);
        rank[i] = m ? m->rank : NO_MERGE;
        merged[i] = m ? m->merged : 0;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == NO_MERGE)
            break;
        symbols[best] = merged[best];
        size_t moved = n - best - 2;
        memmove(symbols + best + 1, symbols + best + 2, moved * sizeof *symbols);
        if (moved) {
            memmove(rank + best + 1, rank + best + 2, (moved - 1) * sizeof *rank);
            memmove(merged + best + 1, merged + best + 2, (moved - 1) * sizeof *merged);
        }
        n--;
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const struct merge *m = find_merge(b, symbols[i], symbols[i + 1]);
            rank[i] = m ? m->rank : NO_MERGE;
            merged[i] = m ? m->merged : 0;
        }
    }
    s->n_symbols = n;
}

static bool goes_first(const struct heap_entry *x, const struct heap_entry *y)
{
    return x->rank < y->rank || (x->rank == y->rank && x->at < y->at);
}

static void sift_down(struct bpe_scratch *s, size_t at)
{
    struct heap_entry moving = s->heap[at];
    for (size_t child; (child = at * 2 + 1) < s->n_heap; at = child) {
        if (child + 1 < s->n_heap && goes_first(&s->heap[child + 1], &s->heap[child]))
            child++;
        if (!goes_first(&s->heap[child], &moving))
            break;
        s->heap[at] = s->heap[child];
    }
    s->heap[at] = moving;
}

static bool heap_append(struct bpe_scratch *s, struct heap_entry entry)
{
    if (s->n_heap == s->heap_capacity) {
        size_t capacity = s->heap_capacity ? s->heap_capacity * 2 : 256;
        struct heap_entry *heap = mem_realloc(s->heap, capacity * sizeof *heap);
        if (!heap)
            return false;
        s->heap = heap;
        s->heap_capacity = capacity;
    }
    s->heap[s->n_heap++] = entry;
    return true;
}

static bool heap_push(struct bpe_scratch *s, struct heap_entry entry)
{
    if (!heap_append(s, entry))
        return false;
    size_t at = s->n_heap - 1;
    while (at > 0 && goes_first(&entry, &s->heap[(at - 1) / 2])) {
        s->heap[at] = s->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    s->heap[at] = entry;
    return true;
}

/* Puts the pair that begins at `at` on the heap, if it may merge. */
static bool offer_pair(const struct bpe *b, struct bpe_scratch *s, uint32_t at, bool sorted)
{
    if (at == NONE || s->next[at] == NONE)
        return true;
    const struct merge *m = find_merge(b, s->symbols[at], s->symbols[s->next[at]]);
    if (!m)
        return true;
    struct heap_entry entry = {m->rank, at, m->merged};
    return sorted ? heap_push(s, entry) : heap_append(s, entry);
}

/* Many symbols: a linked list, and a heap of pairs. A pair that has changed since it was put there is known
 * by what it would become: a text that grows never becomes the same again. */
static bool merge_by_heap(const struct bpe *b, struct bpe_scratch *s)
{
    size_t n = s->n_symbols;
    s->n_heap = 0;
    for (size_t i = 0; i < n; i++) {
        s->next[i] = i + 1 < n ? (uint32_t)(i + 1) : NONE;
        s->previous[i] = i ? (uint32_t)(i - 1) : NONE;
    }
    for (size_t i = 0; i < n; i++)
        if (!offer_pair(b, s, (uint32_t)i, false))
            return false;
    for (size_t i = s->n_heap / 2; i-- > 0;)
        sift_down(s, i);
    while (s->n_heap > 0) {
        struct heap_entry top = s->heap[0];
        s->heap[0] = s->heap[--s->n_heap];
        if (s->n_heap)
            sift_down(s, 0);
        uint32_t right = s->next[top.at];
        if (s->symbols[top.at] == NONE || right == NONE)
            continue;
        const struct merge *m = find_merge(b, s->symbols[top.at], s->symbols[right]);
        if (!m || m->merged != top.merged)
            continue;
        s->symbols[top.at] = top.merged;
        s->symbols[right] = NONE;
        s->next[top.at] = s->next[right];
        if (s->next[right] != NONE)
            s->previous[s->next[right]] = top.at;
        if (!offer_pair(b, s, s->previous[top.at], true) || !offer_pair(b, s, top.at, true))
            return false;
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (s->symbols[i] != NONE)
            s->symbols[kept++] = s->symbols[i];
    s->n_symbols = kept;
    return true;
}

/* ---- a word */

/* A part of a word while its symbols come in. */
struct part {
    const struct bpe *b;
    struct encoder *e;
    const char *text; /* where it begins */
    bool plain;       /* symbols and text go together: the vocabulary may know it as a whole */
};

static enum status finish_part(struct part *p, const char *end)
{
    struct bpe_scratch *s = &p->e->bpe;
    size_t length = (size_t)(end - p->text);
    int32_t id = -1;
    enum status status = STATUS_OK;
    if (s->n_symbols > 1 && p->plain && length <= p->b->longest) {
        id = text_map_find(&p->b->map, p->b->words, p->text, length);
        /* relaxed: every thread would find out the same */
        if (id >= 0 && __atomic_load_n(&p->b->whole[id], __ATOMIC_RELAXED) == 1) {
            s->n_symbols = 0;
            return encoder_push(p->e, (uint32_t)id);
        }
    }
    if (s->n_symbols > SCAN_MAX) {
        if (!merge_by_heap(p->b, s))
            return encoder_no_memory(p->e);
    } else if (s->n_symbols > 1) {
        merge_by_scanning(p->b, s);
    }
    if (id >= 0)
        __atomic_store_n(&p->b->whole[id], s->n_symbols == 1 && s->symbols[0] == (uint32_t)id ? 1 : 2,
                         __ATOMIC_RELAXED); /* relaxed: as above */
    for (size_t i = 0; i < s->n_symbols && status == STATUS_OK; i++)
        status = encoder_push(p->e, s->symbols[i]);
    s->n_symbols = 0;
    return status;
}

/* The next symbol of the word, whose text begins at `at`. */
static enum status add_symbol(struct part *p, uint32_t id, const char *at)
{
    struct bpe_scratch *s = &p->e->bpe;
    if (s->n_symbols > 0 && p->b->cut && !may_join(p->b, s->symbols[s->n_symbols - 1], id)) {
        enum status status = finish_part(p, at);
        if (status != STATUS_OK)
            return status;
        p->text = at;
        p->plain = true;
    }
    if (s->n_symbols == s->capacity && !grow_symbols(s))
        return encoder_no_memory(p->e);
    s->symbols[s->n_symbols++] = id;
    return STATUS_OK;
}

/* A character with what the model puts before or behind it: what is looked up, and what falls back to bytes.
 */
struct dressed {
    const char *text;
    unsigned n;
    char room[2 * 64 + 4];
};

static void dress(const struct bpe *b, struct text_ref word, size_t at, unsigned n, struct dressed *d)
{
    bool prefixed = at > 0 && b->prefix.length > 0, suffixed = at + n == word.length && b->suffix.length > 0;
    d->text = word.text + at;
    d->n = n;
    if (!prefixed && !suffixed)
        return;
    unsigned made = 0;
    if (prefixed) {
        memcpy(d->room, b->prefix.text, b->prefix.length);
        made = b->prefix.length;
    }
    memcpy(d->room + made, word.text + at, n);
    made += n;
    if (suffixed) {
        memcpy(d->room + made, b->suffix.text, b->suffix.length);
        made += b->suffix.length;
    }
    d->text = d->room;
    d->n = made;
}

/* The symbol of the character c, dressed; -1: none. */
static int32_t character_symbol(const struct bpe *b, const struct dressed *d, uint32_t c)
{
    return d->text != d->room && c < 65536 ? b->bmp[c] : text_map_find(&b->map, b->words, d->text, d->n);
}

/* "<0xNN>" for each byte of an unknown character, if the vocabulary has them all. */
static bool has_bytes(const struct bpe *b, const char *text, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (b->bytes[(uint8_t)text[i]] < 0)
            return false;
    return b->byte_fallback && !b->raw;
}

/* A symbol that is not the one of the text at `at`: a byte, or the unknown token. */
static enum status add_foreign(struct part *p, int32_t id, const char *at)
{
    enum status s = add_symbol(p, (uint32_t)id, at);
    p->plain = false;
    return s;
}

static enum status encode_symbols(struct part *p, struct text_ref word)
{
    const struct bpe *b = p->b;
    bool unknown = false; /* an unknown token waits: the next unknown character may join it */
    enum status s = STATUS_OK;
    unsigned n = 1;
    for (size_t i = 0; i < word.length && s == STATUS_OK; i += n) {
        const char *at = word.text + i;
        uint32_t c = (uint8_t)*at;
        struct dressed d; /* its room is large: not cleared for each character */
        d.text = at;
        d.n = 1;
        if (!b->raw) {
            n = utf8_step(at, word.length - i, &c);
            dress(b, word, i, n, &d);
        }
        int32_t id = b->raw ? b->bytes[c] : character_symbol(b, &d, c);
        if (id >= 0) {
            if (unknown)
                s = add_foreign(p, b->unknown, at);
            unknown = false;
            if (s == STATUS_OK)
                s = add_symbol(p, (uint32_t)id, at);
        } else if (has_bytes(b, d.text, d.n)) {
            for (unsigned k = 0; k < d.n && s == STATUS_OK; k++)
                s = add_foreign(p, b->bytes[(uint8_t)d.text[k]], at);
        } else {
            if (unknown && !b->fuse_unknown)
                s = add_foreign(p, b->unknown, at);
            unknown = b->unknown >= 0;
            p->plain = false;
        }
    }
    if (unknown && s == STATUS_OK)
        s = add_foreign(p, b->unknown, word.text + word.length);
    return s;
}

static enum status encode_new_word(const struct bpe *b, struct encoder *e, struct text_ref word)
{
    bool bare = b->prefix.length == 0 && b->suffix.length == 0;
    int32_t id = word.length <= b->longest ? text_map_find(&b->map, b->words, word.text, word.length) : -1;
    /* relaxed: see finish_part */
    if (id >= 0 && (b->ignore_merges || (bare && __atomic_load_n(&b->whole[id], __ATOMIC_RELAXED) == 1)))
        return encoder_push(e, (uint32_t)id);
    struct part part = {.b = b, .e = e, .text = word.text, .plain = bare};
    e->bpe.n_symbols = 0;
    enum status s = encode_symbols(&part, word);
    return s == STATUS_OK ? finish_part(&part, word.text + word.length) : s;
}

enum status bpe_encode(const struct bpe *b, struct encoder *e, struct text_ref word)
{
    bool found;
    struct cached_word *known = word_cache_find(&e->words, word, &found);
    enum status s = STATUS_OK;
    if (found) {
        for (uint32_t i = 0; i < known->n_ids && s == STATUS_OK; i++)
            s = encoder_push(e, known->ids[i]);
        return s;
    }
    size_t before = e->out->n_ids;
    s = encode_new_word(b, e, word);
    size_t n_ids = e->out->n_ids - before;
    if (s == STATUS_OK && known && n_ids <= CACHED_IDS) {
        known->n_ids = (uint16_t)n_ids;
        for (size_t i = 0; i < n_ids; i++)
            known->ids[i] = (uint32_t)e->out->ids[before + i];
    }
    return s;
}
