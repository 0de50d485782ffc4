/* Decoders. What each id stands for is worked out once at load, with the decoder's steps, so decoding joins
 * ready pieces: as they are, as bytes that may be half a character (byte-level), or with runs of single bytes
 * in between (byte fallback). */
#include <string.h>

#include "base/mem.h"
#include "tokenizer_inner.h"
#include "utf8.h"

/* ---- pieces, at load */

static bool strip_characters(const struct decode_step *step, struct text_ref *text)
{
    uint32_t n = step->text.length, stop = 0;
    for (uint32_t i = 0; i < step->start; i++) {
        if (text->length < n || memcmp(text->text, step->text.text, n) != 0)
            break;
        text->text += n;
        text->length -= n;
    }
    for (; stop < step->stop; stop++) {
        if (text->length < n || memcmp(text->text + text->length - n, step->text.text, n) != 0)
            break;
        text->length -= n;
    }
    return true;
}

static bool replace_metaspace(const struct decode_step *step, struct text_ref *text, bool first,
                              struct buf *out)
{
    static const struct text_ref space = {" ", 1}, nothing = {"", 0};
    struct pattern p = {.literal = step->text};
    if (replace_all(&p, *text, first && step->drop_at_start ? nothing : space, out, NULL) != 0)
        return false;
    *text = (struct text_ref){out->data, (uint32_t)out->length};
    return true;
}

/* One token's text through all steps; the result lies in its old place or in one of the buffers. */
static bool run_steps(const struct decoder *d, struct text_ref *text, bool first, struct buf buffers[2],
                      struct regex_state *regex)
{
    int turn = 0;
    for (uint32_t i = 0; i < d->n_steps; i++) {
        const struct decode_step *step = &d->steps[i];
        struct buf *out = &buffers[turn];
        bool fine = true;
        if (step->kind == DECODE_STRIP) {
            fine = strip_characters(step, text);
        } else if (step->kind == DECODE_METASPACE) {
            fine = replace_metaspace(step, text, first, out);
            turn = !turn;
        } else {
            fine = replace_all(&step->pattern, *text, step->text, out, regex) == 0;
            *text = (struct text_ref){out->data, (uint32_t)out->length};
            turn = !turn;
        }
        if (!fine)
            return false;
    }
    return true;
}

/* "<0xNN>" with two hex digits: the byte, else -1. */
static int fallback_byte(struct text_ref text)
{
    int value = 0;
    if (text.length != 6 || memcmp(text.text, "<0x", 3) != 0 || text.text[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        char c = text.text[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

struct piece_maker {
    const struct decoder *d;
    struct arena *a;
    struct buf buffers[2];
    struct regex_state *regex;
    uint8_t *is_byte;
};

static bool make_piece(struct piece_maker *m, struct text_ref text, uint32_t id, bool first,
                       struct text_ref *piece)
{
    struct text_ref made = text;
    if (!run_steps(m->d, &made, first, m->buffers, m->regex))
        return false;
    int byte = m->d->bytes == BYTES_FALLBACK ? fallback_byte(made) : -1;
    if (byte < 0 && made.text == text.text && made.length == text.length && m->d->bytes != BYTES_LEVEL) {
        *piece = text; /* the vocabulary's own text will do */
        return true;
    }
    char *bytes = arena_alloc(m->a, made.length + 1);
    if (!bytes)
        return false;
    size_t n = made.length;
    if (byte >= 0) {
        bytes[0] = (char)byte;
        n = 1;
        m->is_byte[id] = 1;
    } else if (m->d->bytes != BYTES_LEVEL || !byte_level_decode(made.text, made.length, bytes, &n)) {
        memcpy(bytes, made.text, made.length);
        n = made.length;
    }
    *piece = (struct text_ref){bytes, (uint32_t)n};
    return true;
}

static bool make_both(struct piece_maker *m, struct text_ref text, uint32_t id, struct text_ref *piece,
                      struct text_ref *first)
{
    if (!make_piece(m, text, id, false, piece))
        return false;
    return first == piece || make_piece(m, text, id, true, first);
}

/* The reference asks for a token to skip by its text, which for a normalised added token is the normalised
 * one: a special token is shown if that is no special token's content. */
static void mark_hidden(struct tokenizer *t)
{
    struct vocab *v = &t->vocab;
    for (uint32_t id = 0; id < v->n_ids; id++)
        if (v->flags[id] & TOKEN_SPECIAL)
            v->flags[id] |= TOKEN_HIDDEN;
    for (uint32_t i = 0; i < t->normal_added.n_tokens; i++) {
        const struct added_token *token = &t->normal_added.tokens[i];
        int32_t same = text_map_find(&v->map, v->texts, token->pattern.text, token->pattern.length);
        v->flags[token->id] &= (uint8_t)~TOKEN_HIDDEN;
        if (same >= 0 && (v->flags[same] & TOKEN_SPECIAL))
            v->flags[token->id] |= TOKEN_HIDDEN;
    }
}

enum status decoder_finish(struct tokenizer *t, struct error *err)
{
    struct decoder *d = &t->decoder;
    const struct vocab *v = &t->vocab;
    const struct added_set *normal = &t->normal_added;
    struct piece_maker m = {.d = d, .a = t->arena, .regex = regex_state_create()};
    buf_init(&m.buffers[0], 1U << 24);
    buf_init(&m.buffers[1], 1U << 24);
    struct text_ref *pieces = arena_array(t->arena, (size_t)v->n_ids + 1, sizeof *pieces), *first = pieces;
    m.is_byte = arena_array(t->arena, (size_t)v->n_ids + 1, 1);
    for (uint32_t i = 0; i < d->n_steps && first == pieces; i++)
        if (d->steps[i].kind == DECODE_METASPACE && d->steps[i].drop_at_start)
            first = arena_array(t->arena, (size_t)v->n_ids + 1, sizeof *first);
    bool fine = pieces && first && m.is_byte && m.regex;
    if (m.regex)
        regex_state_expect_newer(m.regex);
    for (uint32_t id = 0; id < v->n_ids && fine; id++)
        fine = !v->texts[id].text || make_both(&m, v->texts[id], id, &pieces[id], &first[id]);
    /* A normalised added token is decoded from its normalised text, so that the decoder can undo that. */
    for (uint32_t i = 0; i < normal->n_tokens && fine; i++) {
        uint32_t id = normal->tokens[i].id;
        fine = make_both(&m, normal->tokens[i].pattern, id, &pieces[id], &first[id]);
    }
    for (uint32_t id = 0; id < v->n_ids && fine; id++)
        if (pieces[id].length > d->longest)
            d->longest = pieces[id].length;
    d->pieces = pieces;
    d->first_pieces = first;
    d->is_byte = m.is_byte;
    mark_hidden(t);
    buf_fini(&m.buffers[0]);
    buf_fini(&m.buffers[1]);
    regex_state_destroy(m.regex);
    return fine ? STATUS_OK
                : fail(err, STATUS_NO_MEMORY, "decoder: the tokens' texts need too much memory or time");
}

/* ---- decoding a list */

/* A run of byte tokens: the characters that they make, or a U+FFFD for each byte if they aren't all good. */
static bool flush_run(struct buf *out, size_t run_start)
{
    size_t n = out->length - run_start;
    if (n == 0 || utf8_is_valid(out->data + run_start, n))
        return true;
    out->length = run_start;
    for (size_t i = 0; i < n; i++)
        if (!buf_puts(out, UTF8_REPLACEMENT))
            return false;
    return true;
}

static bool append_pieces(const struct tokenizer *t, const int32_t *ids, size_t n_ids, bool skip_special,
                          struct buf *out)
{
    const struct decoder *d = &t->decoder;
    bool first = true, fine = true;
    size_t run_start = out->length;
    for (size_t i = 0; i < n_ids && fine; i++) {
        uint32_t id = (uint32_t)ids[i];
        if (!t->vocab.texts[id].text || (skip_special && (t->vocab.flags[id] & TOKEN_HIDDEN)))
            continue;
        const struct text_ref *piece = first ? &d->first_pieces[id] : &d->pieces[id];
        if (d->join_with_space && !first)
            fine = buf_putc(out, ' ');
        bool in_run = d->is_byte[id];
        if (!in_run && d->bytes == BYTES_FALLBACK)
            fine = fine && flush_run(out, run_start);
        fine = fine && buf_append(out, piece->text, piece->length);
        if (!in_run)
            run_start = out->length;
        first = false;
    }
    return fine && (d->bytes != BYTES_FALLBACK || flush_run(out, run_start));
}

enum status tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n_ids, bool skip_special,
                             struct buf *out, struct error *err)
{
    const struct decoder *d = &t->decoder;
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= t->vocab.n_ids)
            return fail(err, STATUS_INVALID, "token id %d is out of range; ids go from 0 to %u", ids[i],
                        t->vocab.n_ids - 1);
    struct buf made;
    buf_init(&made, out->limit_bytes);
    bool fine = append_pieces(t, ids, n_ids, skip_special, &made);
    size_t skip = 0;
    for (uint32_t i = 0; i < d->strip_count && made.length - skip >= d->strip.length &&
                         memcmp(made.data + skip, d->strip.text, d->strip.length) == 0;
         i++)
        skip += d->strip.length;
    fine = fine && utf8_append_repaired(out, made.data + skip, made.length - skip);
    bool full = made.failed && made.limit_bytes;
    buf_fini(&made);
    if (!fine)
        return fail(err, full ? STATUS_TOO_LARGE : STATUS_NO_MEMORY, "the text of %zu tokens does not fit",
                    n_ids);
    return STATUS_OK;
}
