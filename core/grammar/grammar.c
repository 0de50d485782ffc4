/* The door: sources into a grammar, and a grammar's answers while tokens come.
 *
 * A matcher is only a number of one of the states and how many tokens it has read. When the states were
 * forgotten meanwhile (they have a fixed memory), it reads its tokens again from the first one on; so nothing
 * that a sequence keeps can become wrong, and what a mask says depends on the grammar and the tokens alone.
 */
#include "grammar.h"

#include <string.h>

#include "base/mem.h"
#include "grammar_inner.h"

/* ---- compile */

static bool has_special(const struct grammar_vocab *v, const char *text, size_t length)
{
    for (uint32_t id = 0; id < v->n_vocab; id++) {
        const uint8_t *bytes = v->bytes + v->offsets[id];
        uint32_t n = v->offsets[id + 1] - v->offsets[id];
        if (n == length + 1 && bytes[0] == SPECIAL_MARK && memcmp(bytes + 1, text, length) == 0)
            return true;
    }
    return false;
}

static const struct expr *token_expr(struct maker *m, const struct grammar_vocab *v, const char *text,
                                     size_t length)
{
    static const uint8_t mark = SPECIAL_MARK;
    const struct expr *plain = expr_bytes(m, text, length);
    return has_special(v, text, length) ? expr_seq2(m, expr_bytes(m, &mark, 1), plain) : plain;
}

static const struct expr *spec_expr(struct maker *m, const struct grammar_vocab *v,
                                    const struct grammar_spec *spec);

static const struct expr *part_expr(struct maker *m, const struct grammar_vocab *v,
                                    const struct grammar_part *part)
{
    static const struct regex_options whole = {.spelling = SPELL_UTF8, .name = "the regular expression"};
    if (part->kind == GRAMMAR_GROUP)
        return spec_expr(m, v, part->text);
    const char *text = part->text ? part->text : "";
    m->compact = part->kind == GRAMMAR_COMPACT_OBJECT || part->kind == GRAMMAR_COMPACT_SCHEMA;
    size_t length = part->text ? part->length : 0;
    switch (part->kind) {
    case GRAMMAR_LITERAL:
        return expr_bytes(m, text, length);
    case GRAMMAR_TOKEN:
        return token_expr(m, v, text, length);
    case GRAMMAR_JSON_OBJECT:
    case GRAMMAR_COMPACT_OBJECT:
        return json_object_expr(m);
    case GRAMMAR_JSON_SCHEMA:
    case GRAMMAR_COMPACT_SCHEMA:
        return schema_parse(m, text, length);
    case GRAMMAR_REGEX:
        return regex_parse(m, text, length, &whole, NULL, NULL);
    case GRAMMAR_CHOICE:
        return choice_parse(m, text, length);
    case GRAMMAR_GBNF:
        return gbnf_parse(m, text, length);
    case GRAMMAR_FREE_TEXT:
        return free_text_parse(m, text, length);
    case GRAMMAR_GROUP:
        break;
    }
    return expr_never();
}

/* `one`, as often as the spec says. */
static const struct expr *repeat_expr(struct maker *m, const struct grammar_spec *spec,
                                      const struct expr *one)
{
    uint32_t most = spec->n_max, least = spec->n_min;
    if (least > most || most <= 1)
        return most == 1 && least == 0 ? expr_repeat(m, one, 0, 1) : one;
    one = expr_call(m, rule_new(m, one));
    if (!spec->separator)
        return expr_repeat(m, one, least, most == GRAMMAR_FOREVER ? REPEAT_FOREVER : most);
    const struct expr *more = expr_seq2(m, expr_text(m, spec->separator), one);
    uint32_t further = most == GRAMMAR_FOREVER ? REPEAT_FOREVER : most - 1;
    const struct expr *all = expr_seq2(m, one, expr_repeat(m, more, least ? least - 1 : 0, further));
    return least ? all : expr_repeat(m, all, 0, 1);
}

static const struct expr *spec_expr(struct maker *m, const struct grammar_vocab *v,
                                    const struct grammar_spec *spec)
{
    struct expr_list ways = {0};
    bool fine = m->status == STATUS_OK;
    for (uint32_t i = 0; i < spec->n_alternatives && m->status == STATUS_OK; i++) {
        const struct grammar_sequence *q = &spec->alternatives[i];
        struct expr_list parts = {0};
        for (uint32_t k = 0; k < q->n_parts && m->status == STATUS_OK; k++)
            list_add(m, &parts, part_expr(m, v, &q->parts[k]));
        list_add(m, &ways, expr_seq(m, &parts));
    }
    if (fine && m->status != STATUS_OK && spec->name)
        (void)fail_within(m->err, "%s", spec->name);
    return repeat_expr(m, spec, expr_alt(m, &ways));
}

/* Bytes of all parts. */
static size_t source_bytes(const struct grammar_spec *spec, uint32_t depth)
{
    size_t n = 0;
    require(depth < GRAMMAR_GROUPS_MAX);
    for (uint32_t i = 0; i < spec->n_alternatives; i++)
        for (uint32_t k = 0; k < spec->alternatives[i].n_parts; k++) {
            const struct grammar_part *part = &spec->alternatives[i].parts[k];
            n += part->kind == GRAMMAR_GROUP ? source_bytes(part->text, depth + 1)
                 : part->text                ? part->length
                                             : 0;
        }
    return n;
}

static enum status check_sizes(const struct grammar_spec *spec, struct error *err)
{
    size_t n = source_bytes(spec, 0);
    return n <= GRAMMAR_SOURCE_BYTES_MAX
               ? STATUS_OK
               : fail(err, STATUS_TOO_LARGE, "it has %zu bytes, at most %u are taken", n,
                      GRAMMAR_SOURCE_BYTES_MAX);
}

/* A vocabulary that can't begin, and states that don't fit, are seen now. */
static enum status try_first(struct grammar *g, struct error *err)
{
    struct grammar_matcher matcher = {0};
    bool may_end = false;
    uint64_t *mask = mem_array(grammar_mask_words(g->vocab->n_vocab), sizeof *mask);
    if (!mask)
        return fail(err, STATUS_NO_MEMORY, "no memory for a grammar's mask");
    enum grammar_answer a = grammar_next(g, &matcher, NULL, 0, mask, &may_end);
    mem_free(mask);
    if (a == GRAMMAR_STUCK)
        return fail(err, STATUS_UNSUPPORTED, "no token of this model's vocabulary can begin such a text");
    if (a == GRAMMAR_TOO_LARGE)
        return fail(err, STATUS_TOO_LARGE,
                    "it is too ambiguous: its states need more than a grammar's memory or time");
    return STATUS_OK;
}

enum status grammar_compile(const struct grammar_vocab *vocab, const struct grammar_spec *spec,
                            struct grammar **out, struct error *err)
{
    struct maker m;
    *out = NULL;
    enum status s = check_sizes(spec, err);
    if (s != STATUS_OK)
        return s;
    struct grammar *g = mem_zalloc(sizeof *g);
    if (!g)
        return fail(err, STATUS_NO_MEMORY, "no memory for a grammar");
    atomic_init(&g->refs, 1);
    g->vocab = vocab;
    g->has_lock = pthread_mutex_init(&g->lock, NULL) == 0;
    s = maker_init(&m, err);
    if (s == STATUS_OK) {
        uint32_t root = rule_new(&m, spec_expr(&m, vocab, spec));
        s = maker_goes_on(&m) ? program_create(&m, root, &g->program) : m.status;
    }
    maker_fini(&m);
    if (s == STATUS_OK && !g->has_lock)
        s = fail(err, STATUS_NO_MEMORY, "no memory for a grammar");
    if (s == STATUS_OK)
        s = states_create(&g->program, vocab, &g->states, err);
    if (s == STATUS_OK)
        s = try_first(g, err);
    if (s == STATUS_OK)
        *out = g;
    else
        grammar_release(g);
    return s;
}

enum status grammar_compile_part(const struct grammar_vocab *vocab, enum grammar_kind kind, const char *text,
                                 size_t length, struct grammar **out, struct error *err)
{
    const struct grammar_part part = {kind, text, length};
    const struct grammar_sequence alone = {&part, 1};
    return grammar_compile(vocab, &(struct grammar_spec){.alternatives = &alone, .n_alternatives = 1}, out,
                           err);
}

/* ---- references */

struct grammar *grammar_acquire(struct grammar *g)
{
    if (g) /* relaxed: who acquires has a reference already */
        atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
    return g;
}

void grammar_release(struct grammar *g)
{
    /* acq_rel: the last one must see what all others did */
    if (!g || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1)
        return;
    states_destroy(g->states);
    program_fini(&g->program);
    if (g->has_lock)
        pthread_mutex_destroy(&g->lock);
    mem_free(g);
}

size_t grammar_bytes(struct grammar *g)
{
    pthread_mutex_lock(&g->lock);
    size_t n = sizeof *g + program_bytes(&g->program) + states_bytes(g->states);
    pthread_mutex_unlock(&g->lock);
    return n;
}

uint32_t grammar_n_vocab(const struct grammar *g)
{
    return g->vocab->n_vocab;
}

/* ---- answers */

/* STATE_FULL, STATE_DEAD, or the state behind the bytes. */
static uint32_t read_bytes(struct states *s, uint32_t state, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n && state != STATE_FULL && state != STATE_DEAD; i++)
        state = states_step(s, state, bytes[i]);
    return state;
}

static uint32_t read_token(struct grammar *g, uint32_t state, int32_t token, bool first)
{
    const struct grammar_vocab *v = g->vocab;
    if (token < 0 || (uint32_t)token >= v->n_vocab)
        return STATE_DEAD;
    uint32_t begin = v->offsets[token], end = v->offsets[token + 1];
    if (begin == end)
        return STATE_DEAD;
    if (first && (v->drops_space[token / 64] >> token % 64 & 1))
        begin++;
    return read_bytes(g->states, state, v->bytes + begin, end - begin);
}

/* Brings the matcher to the n-th token: its state, STATE_FULL or STATE_DEAD. */
static uint32_t catch_up(struct grammar *g, struct grammar_matcher *m, const int32_t *tokens, uint32_t n)
{
    uint32_t state = m->state, from = m->n_read;
    if (m->epoch != states_epoch(g->states) || !state || from > n) {
        state = states_start(g->states);
        from = 0;
    }
    for (uint32_t i = from; i < n && state != STATE_FULL && state != STATE_DEAD; i++)
        state = read_token(g, state, tokens[i], i == 0);
    if (state != STATE_FULL && state != STATE_DEAD)
        *m = (struct grammar_matcher){states_epoch(g->states), state, n};
    return state;
}

/* False: no room. */
static bool answer(struct grammar *g, struct grammar_matcher *m, const int32_t *tokens, uint32_t n,
                   uint64_t *mask, enum grammar_answer *out, bool *may_end)
{
    uint32_t state = catch_up(g, m, tokens, n), n_allowed = 1;
    *may_end = false;
    *out = GRAMMAR_STUCK;
    if (state == STATE_FULL || state == STATE_DEAD)
        return state == STATE_DEAD;
    *may_end = states_may_end(g->states, state);
    if (mask) {
        const uint64_t *found = states_mask(g->states, state, n == 0, &n_allowed);
        if (!found)
            return false;
        memcpy(mask, found, grammar_mask_words(g->vocab->n_vocab) * sizeof *mask);
    } else {
        n_allowed = states_goes_on(g->states, state);
    }
    *out = n_allowed ? GRAMMAR_GOES_ON : *may_end ? GRAMMAR_COMPLETE : GRAMMAR_STUCK;
    return true;
}

enum grammar_answer grammar_next(struct grammar *g, struct grammar_matcher *m, const int32_t *tokens,
                                 uint32_t n, uint64_t *mask, bool *may_end)
{
    enum grammar_answer a = GRAMMAR_TOO_LARGE;
    pthread_mutex_lock(&g->lock);
    bool fits = answer(g, m, tokens, n, mask, &a, may_end);
    if (!fits) { /* what others needed may have filled it: once more with all of it */
        states_reset(g->states);
        fits = answer(g, m, tokens, n, mask, &a, may_end);
    }
    pthread_mutex_unlock(&g->lock);
    return fits ? a : GRAMMAR_TOO_LARGE;
}

bool grammar_accepts(struct grammar *g, const char *text, size_t length)
{
    bool accepts = false;
    pthread_mutex_lock(&g->lock);
    for (int i = 0; i < 2; i++) {
        uint32_t state = read_bytes(g->states, states_start(g->states), (const uint8_t *)text, length);
        if (state != STATE_FULL) {
            accepts = state != STATE_DEAD && states_may_end(g->states, state);
            break;
        }
        states_reset(g->states);
    }
    pthread_mutex_unlock(&g->lock);
    return accepts;
}
