/* Normalisers: text to text, one step after the other, between two buffers. Normal forms come from utf8proc;
 * text that is already in form (all ASCII, for NFC all below U+0300) is passed on untouched. No state. */
#include <ctype.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "tokenizer_inner.h"
#include "utf8.h"

bool char_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

/* Alphabetic (letters, letter numbers, marks, enclosed letters), Nd, Pc, and the two joiners. */
bool char_is_word(uint32_t c)
{
    if ((c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
        (c >= 0x1F170 && c <= 0x1F189) || c == 0x200C || c == 0x200D)
        return true;
    uint32_t older = newer_stand_in(c);
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)(older ? older : c));
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC;
}

/* ASCII's, and category P as the reference's table has it: U+166D and U+111C9 have moved since. */
bool char_is_punctuation(uint32_t c)
{
    if (c < 0x80)
        return ispunct((int)c) != 0;
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    bool is = (k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO) || c == 0x166D || c == 0x111C9;
    return is && !punctuation_is_unknown(c);
}

/* Category N of Unicode 17. */
bool char_is_number(uint32_t c)
{
    uint32_t older = newer_stand_in(c);
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)(older ? older : c));
    return (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO) || (c >= 0x11DE0 && c <= 0x11DE9) ||
           (c >= 0x16FF4 && c <= 0x16FF6);
}

int replace_all(const struct pattern *p, struct text_ref text, struct text_ref with, struct buf *out,
                struct regex_state *regex)
{
    struct matcher m;
    struct span match;
    size_t done = 0;
    int found = -2;
    buf_clear(out);
    if (text.length == 0)
        return 0;
    if (matcher_init(&m, p, text, regex)) {
        while ((found = matcher_next(&m, &match)) == 1) {
            buf_append(out, text.text + done, match.start - done);
            buf_append(out, with.text, with.length);
            done = match.end;
        }
        buf_append(out, text.text + done, text.length - done);
    }
    matcher_fini(&m);
    return out->failed ? -2 : found;
}

/* Characters below `limit` are the same in the form that we want. */
static bool all_below(struct text_ref text, uint32_t limit)
{
    for (uint32_t i = 0; i < text.length;) {
        if ((unsigned char)text.text[i] < 0x80) {
            i++;
            continue;
        }
        uint32_t c;
        i += utf8_step(text.text + i, text.length - i, &c);
        if (c >= limit)
            return false;
    }
    return true;
}

static bool append_normal_form(enum normal_kind kind, const char *text, size_t length, struct buf *out)
{
    static const int forms[] = {
        [NORMAL_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [NORMAL_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [NORMAL_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [NORMAL_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    if (length == 0)
        return true;
    utf8proc_uint8_t *made = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, &made,
                                      (utf8proc_option_t)forms[kind]);
    bool fine = n >= 0 && buf_append(out, made, (size_t)n);
    free(made);
    return fine;
}

/* Inert characters take no part in a normal form: what is between them is brought into form on its own. */
static bool to_normal_form(enum normal_kind kind, struct text_ref *text, struct buf *out)
{
    uint32_t done = 0;
    if (all_below(*text, kind == NORMAL_NFC ? 0x300 : 0x80))
        return true;
    for (uint32_t i = 0, n; i < text->length; i += n) {
        uint32_t c;
        n = utf8_step(text->text + i, text->length - i, &c);
        if (c < 0x300 || !normal_is_inert(c))
            continue;
        if (!append_normal_form(kind, text->text + done, i - done, out) ||
            !buf_append(out, text->text + i, n))
            return false;
        done = i + n;
    }
    if (!append_normal_form(kind, text->text + done, text->length - done, out))
        return false;
    *text = (struct text_ref){out->data, (uint32_t)out->length};
    return true;
}

static uint32_t lower_case(uint32_t c)
{
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

static bool to_lower(struct text_ref *text, struct buf *out)
{
    for (uint32_t i = 0; i < text->length;) {
        uint32_t c;
        i += utf8_step(text->text + i, text->length - i, &c);
        char lower[4];
        uint32_t newer = newer_lower(c);
        /* The one character whose lower case is two: İ. */
        bool fine = c == 0x130 ? buf_puts(out, "i\xCC\x87")
                               : buf_append(out, lower, utf8_put(lower, newer ? newer : lower_case(c)));
        if (!fine)
            return false;
    }
    *text = (struct text_ref){out->data, (uint32_t)out->length};
    return true;
}

static bool is_stripped_mark(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME && !mark_is_unknown(c);
}

static bool without_marks(struct text_ref *text, struct buf *out)
{
    for (uint32_t i = 0; i < text->length;) {
        uint32_t c;
        unsigned n = utf8_step(text->text + i, text->length - i, &c);
        if (!is_stripped_mark(c) && !buf_append(out, text->text + i, n))
            return false;
        i += n;
    }
    *text = (struct text_ref){out->data, (uint32_t)out->length};
    return true;
}

/* SentencePiece's cleaning: control characters go, what counts as white space becomes a space. */
static bool is_nmt_dropped(uint32_t c)
{
    return (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
}

static bool is_nmt_space(uint32_t c)
{
    return c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
           c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
}

static bool to_nmt(struct text_ref *text, struct buf *out)
{
    for (uint32_t i = 0, n; i < text->length; i += n) {
        uint32_t c;
        n = utf8_step(text->text + i, text->length - i, &c);
        bool fine =
            is_nmt_dropped(c) || (is_nmt_space(c) ? buf_putc(out, ' ') : buf_append(out, text->text + i, n));
        if (!fine)
            return false;
    }
    *text = (struct text_ref){out->data, (uint32_t)out->length};
    return true;
}

static struct text_ref stripped(struct text_ref text, bool left, bool right)
{
    uint32_t c;
    while (left && text.length > 0) {
        unsigned n = utf8_step(text.text, text.length, &c);
        if (!char_is_space(c))
            break;
        text.text += n;
        text.length -= n;
    }
    while (right && text.length > 0) {
        uint32_t begin = text.length - 1;
        while (begin > 0 && ((unsigned char)text.text[begin] & 0xC0) == 0x80)
            begin--;
        utf8_step(text.text + begin, text.length - begin, &c);
        if (!char_is_space(c))
            break;
        text.length = begin;
    }
    return text;
}

/* Does this step change where the text begins? A replacement stands where the last character that it replaces
 * stood; Metaspace's "first" asks for that. */
static bool step_cuts(const struct normal_step *step, struct text_ref text, struct regex_state *regex)
{
    struct matcher m;
    struct span match;
    bool cuts = false;
    if (text.length == 0)
        return false;
    if (step->kind == NORMAL_STRIP_ACCENTS || step->kind == NORMAL_NMT) {
        uint32_t c;
        utf8_step(text.text, text.length, &c);
        return step->kind == NORMAL_NMT ? is_nmt_dropped(c) : is_stripped_mark(c);
    }
    if (step->kind != NORMAL_REPLACE)
        return false;
    if (matcher_init(&m, &step->pattern, text, regex) && matcher_next(&m, &match) == 1 && match.start == 0)
        cuts = match.end > (step->text.length ? utf8_size((unsigned char)text.text[0]) : 0);
    matcher_fini(&m);
    return cuts;
}

static enum status run_step(const struct normal_step *step, struct text_ref *text, struct buf *out,
                            struct regex_state *regex, struct error *err)
{
    bool fine = true;
    int rc;
    buf_clear(out);
    switch (step->kind) {
    case NORMAL_PREPEND:
        if (text->length == 0)
            break;
        fine =
            buf_append(out, step->text.text, step->text.length) && buf_append(out, text->text, text->length);
        *text = (struct text_ref){out->data, (uint32_t)out->length};
        break;
    case NORMAL_REPLACE:
        rc = replace_all(&step->pattern, *text, step->text, out, regex);
        if (rc == -1)
            return fail(err, STATUS_TOO_LARGE, "the tokenizer's normaliser takes too long on this text");
        fine = rc == 0;
        *text = (struct text_ref){out->data, (uint32_t)out->length};
        break;
    case NORMAL_NFC:
    case NORMAL_NFD:
    case NORMAL_NFKC:
    case NORMAL_NFKD:
        fine = to_normal_form(step->kind, text, out);
        break;
    case NORMAL_LOWERCASE:
        fine = to_lower(text, out);
        break;
    case NORMAL_STRIP:
        *text = stripped(*text, step->left, step->right);
        break;
    case NORMAL_STRIP_ACCENTS:
        fine = without_marks(text, out);
        break;
    case NORMAL_NMT:
        fine = to_nmt(text, out);
        break;
    case NORMAL_BYTE_LEVEL:
        fine = byte_level_encode(out, text->text, text->length);
        *text = (struct text_ref){out->data, (uint32_t)out->length};
        break;
    }
    if (!fine)
        return fail(err, STATUS_NO_MEMORY, "not enough memory to normalise a text of %u bytes", text->length);
    return STATUS_OK;
}

enum status normalizer_run(const struct normalizer *n, struct text_ref *text, struct normal_scratch *scratch,
                           struct error *err)
{
    int turn = 0;
    for (uint32_t i = 0; i < n->n_steps; i++) {
        /* A step may hand on its input (then its buffer stays free) or a part of it. */
        const struct buf *holder = &scratch->buffers[turn];
        const char *begin = text->text;
        if (holder->capacity > 0 && begin >= holder->data && begin <= holder->data + holder->length)
            turn = !turn;
        if (!scratch->cut)
            scratch->cut = step_cuts(&n->steps[i], *text, scratch->regex);
        enum status s = run_step(&n->steps[i], text, &scratch->buffers[turn], scratch->regex, err);
        if (s != STATUS_OK)
            return s;
        if (n->steps[i].kind == NORMAL_STRIP && text->text != begin)
            scratch->cut = true;
        if (text->length > UINT32_MAX / 8)
            return fail(err, STATUS_TOO_LARGE, "the text grows above 512 MiB while it is normalised");
    }
    return STATUS_OK;
}
