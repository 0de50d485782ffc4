/* Words that a text has had before. Most of a text is a few thousand words again and again, and looking one
 * up in a vocabulary of a hundred thousand misses the processor's caches three times; here it is one line of
 * a small table. It lives as long as one call of tokenizer_encode, so a tokenizer stays immutable; its size
 * goes with the text's. */
#include <string.h>

#include "base/mem.h"
#include "tokenizer_inner.h"

#define SLOTS_MAX 4096U     /* 128 kB: it is to stay in the second-level cache */
#define TEXT_BYTES_MIN 256U /* a shorter text is not worth the table */

bool word_cache_init(struct word_cache *c, size_t text_length)
{
    uint32_t n_slots = 64;
    if (text_length < TEXT_BYTES_MIN)
        return true;
    while (n_slots < SLOTS_MAX && n_slots < text_length / 8)
        n_slots *= 2;
    c->words = mem_array(n_slots, sizeof *c->words);
    c->mask = n_slots - 1;
    return c->words != NULL;
}

void word_cache_fini(struct word_cache *c)
{
    mem_free(c->words);
    c->words = NULL;
}

/* All bytes of a word of up to 16, in two numbers: of one length, equal numbers are equal words. */
static void load_word(struct text_ref word, uint64_t *head, uint64_t *tail)
{
    uint32_t n = word.length, low = 0, high = 0;
    if (n >= 8) {
        memcpy(head, word.text, 8);
        memcpy(tail, word.text + n - 8, 8);
        return;
    }
    if (n >= 4) {
        memcpy(&low, word.text, 4);
        memcpy(&high, word.text + n - 4, 4);
    } else if (n > 0) {
        low = (uint8_t)word.text[0];
        high = (uint32_t)(uint8_t)word.text[n / 2] << 8 | (uint8_t)word.text[n - 1];
    }
    *head = low;
    *tail = high;
}

struct cached_word *word_cache_find(struct word_cache *c, struct text_ref word, bool *found)
{
    uint64_t head, tail;
    *found = false;
    if (!c->words || word.length == 0 || word.length > CACHED_BYTES)
        return NULL;
    load_word(word, &head, &tail);
    uint64_t h = (head ^ tail << 13 ^ tail >> 51 ^ (uint64_t)word.length << 59) * 0x9E3779B97F4A7C15U;
    struct cached_word *w = &c->words[(h ^ h >> 29) >> 20 & c->mask];
    *found = w->head == head && w->tail == tail && w->length == word.length && w->n_ids > 0;
    if (!*found)
        *w = (struct cached_word){.head = head, .tail = tail, .length = (uint16_t)word.length};
    return w;
}
