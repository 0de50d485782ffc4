/* Pre-tokenizers: a text is cut into words, each step cutting the pieces of the step before. A step is a
 * pattern with a rule for what becomes of its matches, or a rewriting of the piece (Metaspace, ByteLevel).
 * The pieces of one step are handed on as they are found, so nothing is collected. */
#include <string.h>

#include "tokenizer_inner.h"
#include "utf8.h"

const char byte_level_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

struct split_step *splitter_add(struct splitter *s, enum split_kind kind)
{
    if (s->n_steps == STEPS_MAX)
        return NULL;
    struct split_step *step = &s->steps[s->n_steps++];
    *step = (struct split_step){.kind = kind};
    return step;
}

/* One step at work on one piece. */
struct cutter {
    struct encoder *e;
    const struct split_step *step;
    struct text_ref text;
    uint32_t next_step;
    bool at_start;
    bool has_held, last_was_match;
    struct span held; /* a piece that a neighbour may still join */
};

static enum status hand_on(const struct cutter *c, struct span piece)
{
    if (piece.start == piece.end)
        return STATUS_OK;
    struct text_ref word = {c->text.text + piece.start, (uint32_t)(piece.end - piece.start)};
    return splitter_run(c->e, c->next_step, word, c->at_start && piece.start == 0);
}

static enum status flush_held(struct cutter *c)
{
    if (!c->has_held)
        return STATUS_OK;
    c->has_held = false;
    return hand_on(c, c->held);
}

/* Matches and the stretches between them come in order. Sources: NormalizedString::split of tokenizers. */
static enum status take(struct cutter *c, struct span piece, bool is_match)
{
    bool last = c->last_was_match, join = false;
    c->last_was_match = is_match;
    switch (c->step->behavior) {
    case BEHAVIOR_ISOLATED:
        return hand_on(c, piece);
    case BEHAVIOR_REMOVED:
        return is_match ? STATUS_OK : hand_on(c, piece);
    case BEHAVIOR_CONTIGUOUS: /* neighbours of the same kind are one */
        join = c->has_held && is_match == last;
        break;
    case BEHAVIOR_MERGED_WITH_PREVIOUS: /* a match joins what is before it, unless that ends in a match */
        join = c->has_held && is_match && !last;
        break;
    case BEHAVIOR_MERGED_WITH_NEXT: /* a match joins what is behind it, unless that is a match */
        join = c->has_held && !is_match && last;
        break;
    }
    if (join) {
        c->held.end = piece.end;
        return STATUS_OK;
    }
    enum status s = flush_held(c);
    c->held = piece;
    c->has_held = true;
    return s;
}

static enum status walk_matches(struct cutter *c, struct matcher *m)
{
    const struct split_step *rule = c->step;
    struct span match;
    size_t done = 0;
    int found;
    while ((found = matcher_next(m, &match)) == 1) {
        enum status s = STATUS_OK;
        if (done < match.start)
            s = take(c, (struct span){done, match.start}, rule->invert);
        if (s == STATUS_OK)
            s = take(c, match, !rule->invert);
        if (s != STATUS_OK)
            return s;
        done = match.end;
    }
    if (found < 0)
        return fail(c->e->err, STATUS_TOO_LARGE,
                    "the tokenizer's pre-tokenizer pattern takes too long on this text");
    enum status s =
        done < c->text.length ? take(c, (struct span){done, c->text.length}, rule->invert) : STATUS_OK;
    return s == STATUS_OK ? flush_held(c) : s;
}

static enum status cut_by_pattern(struct encoder *e, uint32_t step, struct text_ref text, bool at_start)
{
    const struct split_step *rule = &e->t->splitter.steps[step];
    struct cutter c = {.e = e, .step = rule, .text = text, .next_step = step + 1, .at_start = at_start};
    struct matcher m;
    enum status s =
        matcher_init(&m, &rule->pattern, text, e->normal.regex) ? STATUS_OK : encoder_no_memory(e);
    if (s == STATUS_OK)
        s = walk_matches(&c, &m);
    matcher_fini(&m);
    return s;
}

static enum status cut_by_length(struct encoder *e, uint32_t step, struct text_ref text, bool at_start)
{
    uint32_t most = e->t->splitter.steps[step].n_characters;
    enum status s = STATUS_OK;
    for (uint32_t start = 0, end = 0; start < text.length && s == STATUS_OK; start = end) {
        for (uint32_t n = 0; n < most && end < text.length; n++)
            end += utf8_size((unsigned char)text.text[end]);
        s = splitter_run(e, step + 1, (struct text_ref){text.text + start, end - start},
                         at_start && start == 0);
    }
    return s;
}

static bool starts_with(struct text_ref text, struct text_ref with)
{
    return text.length >= with.length && memcmp(text.text, with.text, with.length) == 0;
}

/* Spaces become the replacement; one is put in front if there is none. */
static bool metaspace(const struct split_step *step, struct text_ref text, bool at_start, struct buf *out)
{
    static const struct text_ref space = {" ", 1};
    bool wanted = step->prepend == PREPEND_ALWAYS || (step->prepend == PREPEND_FIRST && at_start);
    if (wanted && !starts_with(text, space) && !starts_with(text, step->replacement))
        buf_append(out, step->replacement.text, step->replacement.length);
    for (uint32_t i = 0; i < text.length;) {
        const char *found = memchr(text.text + i, ' ', text.length - i);
        uint32_t end = found ? (uint32_t)(found - text.text) : text.length;
        buf_append(out, text.text + i, end - i);
        if (found)
            buf_append(out, step->replacement.text, step->replacement.length);
        i = end + 1;
    }
    return !out->failed;
}

static enum status rewrite(struct encoder *e, uint32_t step, struct text_ref text, bool at_start)
{
    const struct split_step *rule = &e->t->splitter.steps[step];
    struct buf *out = &e->split[step];
    bool fine = true;
    buf_clear(out);
    if (rule->kind == SPLIT_METASPACE)
        fine = metaspace(rule, text, at_start, out);
    else if (rule->kind == SPLIT_BYTE_LEVEL)
        fine = byte_level_encode(out, text.text, text.length);
    else if (text.text[0] == ' ')
        return splitter_run(e, step + 1, text, at_start);
    else
        fine = buf_putc(out, ' ') && buf_append(out, text.text, text.length);
    if (!fine)
        return encoder_no_memory(e);
    return splitter_run(e, step + 1, (struct text_ref){out->data, (uint32_t)out->length}, at_start);
}

enum status splitter_run(struct encoder *e, uint32_t step, struct text_ref text, bool at_start)
{
    if (text.length == 0)
        return STATUS_OK;
    if (step == e->t->splitter.n_steps)
        return encoder_word(e, text);
    switch (e->t->splitter.steps[step].kind) {
    case SPLIT_PATTERN:
        return cut_by_pattern(e, step, text, at_start);
    case SPLIT_FIXED_LENGTH:
        return cut_by_length(e, step, text, at_start);
    default:
        return rewrite(e, step, text, at_start);
    }
}
