/* The streaming detokeniser: ids come one by one, whole characters go out. Bytes of an unfinished character
 * wait in the struct; what can't become a character goes out as U+FFFD, one for each ill-formed piece of
 * byte-level text, one for each byte of byte-fallback tokens.
 *
 * The concatenation is what tokenizer_decode gives. One case differs on purpose: in a run of byte-fallback
 * tokens of which some are no UTF-8, tokenizer_decode (as its model does) replaces the good characters of the
 * run too; a stream has shown those already. */
#include <string.h>

#include "tokenizer_inner.h"
#include "utf8.h"

/* Where the text of one push goes. */
struct sink {
    struct detokenizer *d;
    char *dst;
    size_t n;
};

/* One whole character, but for those that the decoder strips at the start of a text. */
static void emit(struct sink *s, const char *c, size_t n)
{
    const struct decoder *decoder = &s->d->tokenizer->decoder;
    if (s->d->n_strip > 0) {
        if (n == decoder->strip.length && memcmp(c, decoder->strip.text, n) == 0) {
            s->d->n_strip--;
            return;
        }
        s->d->n_strip = 0;
    }
    memcpy(s->dst + s->n, c, n);
    s->n += n;
}

static void emit_replacements(struct sink *s, size_t count)
{
    for (size_t i = 0; i < count; i++)
        emit(s, UTF8_REPLACEMENT, sizeof UTF8_REPLACEMENT - 1);
}

/* Takes one byte of the stream; `each`: U+FFFD for each lost byte, not for each piece. */
static void take_byte(struct sink *s, uint8_t byte, bool each)
{
    struct detokenizer *d = s->d;
    d->pending[d->n_pending++] = byte;
    while (d->n_pending > 0) {
        char bytes[sizeof d->pending];
        uint32_t c;
        memcpy(bytes, d->pending, d->n_pending);
        unsigned n = utf8_step(bytes, d->n_pending, &c);
        if (c == UTF8_CUT)
            return;
        if (c == UTF8_BAD)
            emit_replacements(s, each ? n : 1);
        else
            emit(s, bytes, n);
        d->n_pending -= n;
        memmove(d->pending, d->pending + n, d->n_pending);
    }
}

static void flush_pending(struct sink *s, bool each)
{
    if (s->d->n_pending > 0)
        emit_replacements(s, each ? s->d->n_pending : 1);
    s->d->n_pending = 0;
}

void detokenizer_init(struct detokenizer *d, const struct tokenizer *t, bool skip_special)
{
    *d = (struct detokenizer){
        .tokenizer = t, .skip_special = skip_special, .at_start = true, .n_strip = t->decoder.strip_count};
}

static bool is_hidden(const struct detokenizer *d, int32_t id)
{
    if (!d->skip_special || !(d->tokenizer->vocab.flags[id] & TOKEN_HIDDEN))
        return false;
    for (uint32_t i = 0; i < d->n_kept; i++)
        if (d->kept[i] == id)
            return false;
    return true;
}

size_t detokenizer_push(struct detokenizer *d, int32_t id, char *dst)
{
    const struct tokenizer *t = d->tokenizer;
    const struct decoder *decoder = &t->decoder;
    struct sink s = {.d = d, .dst = dst};
    if (id < 0 || (uint32_t)id >= t->vocab.n_ids || !t->vocab.texts[id].text || is_hidden(d, id))
        return 0;
    struct text_ref piece = d->at_start ? decoder->first_pieces[id] : decoder->pieces[id];
    bool fallback = decoder->bytes == BYTES_FALLBACK;
    if (fallback && !decoder->is_byte[id])
        flush_pending(&s, true);
    if (decoder->join_with_space && !d->at_start)
        take_byte(&s, ' ', false);
    d->at_start = false;
    for (uint32_t i = 0; i < piece.length; i++)
        take_byte(&s, (uint8_t)piece.text[i], fallback);
    return s.n;
}

size_t detokenizer_end(struct detokenizer *d, char *dst)
{
    struct sink s = {.d = d, .dst = dst};
    flush_pending(&s, d->tokenizer->decoder.bytes == BYTES_FALLBACK);
    return s.n;
}

size_t detokenizer_bound(const struct tokenizer *t)
{
    /* each byte of a piece, a joining space and the waiting bytes may become a U+FFFD of 3 bytes */
    return ((size_t)t->decoder.longest + 1 + sizeof((struct detokenizer *)0)->pending) * 3;
}
