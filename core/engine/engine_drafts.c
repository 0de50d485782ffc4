/* Drafts: guesses of a decoding sequence's next tokens (speculation.c), computed in the step of its own row.
 *
 *   batch    own token, draft 1, draft 2, draft 3        rows of one sequence, as a prompt's chunk has them
 *   sampled  A          B        ×                       row by row, while the token is the next row's
 *                                                        draft; the first that isn't is a token like any
 *   kept     A, B, and what row 2 gave                   K and V behind them are written anew later
 *
 * A row's numbers don't depend on what else is in the batch, and each is sampled with the history, the bans
 * and the generator that it would have met alone; so drafts change no byte of any output. They are guests:
 * the schedule is made without them, and they have what it leaves of tokens, rows and pages. */
#include "engine_inner.h"

#include <string.h>

enum status engine_drafts_init(struct engine *e, enum speculation use, struct error *err)
{
    struct cost_curve curve;
    e->drafts.use = use;
    if (use == SPECULATION_OFF)
        return STATUS_OK;
    if (e->has_costs)
        cost_curve(&e->costs, e->model, NULL, &curve);
    draft_costs_init(&e->drafts.costs, e->has_costs ? &curve : NULL);
    return draft_tables_create(&e->drafts.tables, err);
}

void engine_drafts_curve(struct engine *e, const struct cost_curve *curve)
{
    if (e->drafts.use != SPECULATION_OFF)
        draft_costs_init(&e->drafts.costs, curve);
}

void engine_drafts_fini(struct engine *e)
{
    draft_tables_destroy(e->drafts.tables);
}

/* What the sequence's adapter has said to its caller, or NULL. `take`: make one if there is none. */
static struct draft_table *table_of(struct engine *e, const struct sequence *q, bool take)
{
    const struct generation *g = &q->submission->g;
    struct draft_key key = {{0}, {0}};
    if (g->cache_off)
        return NULL;
    memcpy(key.salt, g->cache_salt, sizeof key.salt);
    if (g->lora)
        memcpy(key.digest, g->lora->digest, sizeof key.digest);
    return take ? draft_tables_take(e->drafts.tables, &key) : draft_tables_find(e->drafts.tables, &key);
}

void engine_drafts_begin(struct engine *e, struct sequence *q)
{
    q->draft = (struct draft){.acceptance = acceptance_prior()};
    if (e->drafts.use == SPECULATION_OFF)
        return;
    struct draft_table *t = table_of(e, q, true);
    if (t)
        q->draft.acceptance = *draft_table_acceptance(t);
}

void engine_drafts_end(struct engine *e, const struct sequence *q)
{
    if (e->drafts.use == SPECULATION_OFF || q->n_generated == 0)
        return;
    struct draft_table *t = table_of(e, q, true);
    if (t)
        draft_table_learn(t, q->tokens, q->submission->g.n_prompt, q->n_tokens);
}

/* ---- before a step ---- */

/* The entry's sequence if this step decodes it, one token and one row of logits; else NULL. */
static struct sequence *decoding(struct engine *e, const struct schedule_entry *p)
{
    struct sequence *q = p->index < e->n_slots ? &e->sequences[p->index] : NULL;
    bool decodes = q && p->n_tokens == 1 && !p->start && p->n_known - p->n_computed == 1 &&
                   p->logits_from == p->n_computed && q->submission->g.max_tokens > 0;
    return decodes ? q : NULL;
}

/* Positions that may be drafted behind the sequence's own token. */
static uint32_t room(const struct engine *e, const struct sequence *q, uint32_t *n_pages)
{
    uint32_t n = q->submission->g.max_tokens - q->n_generated - 1, limit = model_length_limit(e->model);
    n = n < DRAFT_TOKENS_MAX ? n : DRAFT_TOKENS_MAX;
    /* K and V change where a sequence becomes longer than this: not in the midst of a draft. */
    if (q->n_tokens <= limit && n > limit - q->n_tokens)
        n = limit - q->n_tokens;
    uint32_t own = q->n_tokens <= q->n_pages * KV_PAGE_TOKENS ? q->n_pages : q->n_pages + 1;
    uint32_t in_pages = own * KV_PAGE_TOKENS - q->n_tokens;
    if (n > in_pages && *n_pages > 0)
        --*n_pages;
    else if (n > in_pages)
        n = in_pages;
    return n;
}

static void guess(struct engine *e, struct sequence *q, uint32_t n_max)
{
    const struct draft_table *t = table_of(e, q, false);
    draft_copy(q->tokens, q->n_tokens, n_max, &q->draft.copied);
    q->draft.learnt.n = 0;
    if (t)
        draft_table_predict(t, q->tokens, q->n_tokens, n_max, &q->draft.learnt);
}

static struct draft_option option_of(const struct sequence *q, uint32_t n_max)
{
    const struct draft *d = &q->draft;
    struct draft_option o = {.acceptance = &d->acceptance};
    if (d->copied.n)
        o.prediction = &d->copied;
    if (d->learnt.n && (!d->copied.n || draft_chance(&d->learnt, &d->acceptance, 1) >
                                            draft_chance(&d->copied, &d->acceptance, 1)))
        o.prediction = &d->learnt;
    if (o.prediction)
        o.n_max = o.prediction->n < n_max ? o.prediction->n : n_max;
    return o;
}

static void choose_all(const struct draft_step *step, struct draft_option *options, uint32_t n_options)
{
    uint32_t n_left = step->n_drafts_max;
    for (uint32_t i = 0; i < n_options; i++) {
        struct draft_option *o = &options[i];
        o->n = o->n_max < n_left ? o->n_max : n_left;
        n_left -= o->n;
    }
}

/* Pages that neither the plan nor followers have, less one for each running sequence to grow. */
static uint32_t spare_pages(const struct engine *e, const struct schedule *s)
{
    uint32_t taken = engine_shadow_pages(e) + s->n_entries;
    return s->n_pages_free > taken ? s->n_pages_free - taken : 0;
}

uint32_t engine_drafts_plan(struct engine *e, const struct schedule *s, uint32_t n_tokens)
{
    struct draft_option options[DRAFT_ROWS_MAX];
    struct sequence *owners[DRAFT_ROWS_MAX];
    uint32_t n = 0, n_pages = spare_pages(e, s);
    struct draft_step step = {.n_rows = n_tokens,
                              .n_drafts_max = smaller(e->step_tokens - n_tokens, s->score_rows)};
    for (uint32_t i = 0; i < e->n_slots; i++)
        e->sequences[i].draft.n = e->sequences[i].draft.n_right = 0;
    e->drafts.n_step = 0;
    e->drafts.only_decodes = false;
    if (e->drafts.use == SPECULATION_OFF || n_tokens > DRAFT_ROWS_MAX)
        return 0;
    for (uint32_t i = 0; i < s->n_entries; i++) {
        struct sequence *q = decoding(e, &s->entries[i]);
        if (!q)
            continue;
        step.n_sampled++;
        guess(e, q, DRAFT_TOKENS_MAX);
        if (!q->follower.active) { /* which is fed what was served, token by token */
            options[n] = option_of(q, room(e, q, &n_pages));
            owners[n++] = q;
        }
    }
    e->drafts.only_decodes = step.n_sampled == n_tokens;
    if (e->drafts.use == SPECULATION_ALWAYS)
        choose_all(&step, options, n);
    else
        drafts_choose(&e->drafts.costs, &step, options, n);
    for (uint32_t i = 0; i < n; i++) {
        struct sequence *q = owners[i];
        q->draft.n = options[i].n;
        if (q->draft.n)
            memcpy(q->tokens + q->n_tokens, options[i].prediction->tokens, q->draft.n * sizeof *q->tokens);
        e->drafts.n_step += q->draft.n;
    }
    return e->drafts.n_step;
}

/* ---- after it ---- */

/* A copy's speed and a prompt's are other curves. */
void engine_drafts_timed(struct engine *e, uint32_t n_tokens, int64_t ns)
{
    struct drafts *d = &e->drafts;
    if (d->use == SPECULATION_AUTO && d->only_decodes && e->n_followers == 0 && !engine_step_is_merged(e))
        draft_costs_note(&d->costs, n_tokens, d->n_step, (double)ns);
}

static void compare(struct engine *e, struct sequence *q, const struct prediction *p, const struct row *rows)
{
    struct draft_table *t = table_of(e, q, false);
    bool right = true;
    for (uint32_t i = 0; i < p->n && i <= q->draft.n_right && right; i++) {
        right = p->tokens[i] == rows[i].token;
        acceptance_note(&q->draft.acceptance, p->sources[i], right, ACCEPTANCE_SPEED_SEQUENCE);
        if (t)
            acceptance_note(draft_table_acceptance(t), p->sources[i], right, ACCEPTANCE_SPEED_TABLE);
    }
}

void engine_drafts_note(struct engine *e, const struct row *rows)
{
    struct sequence *q = rows->sequence;
    struct draft *d = &q->draft;
    if (d->copied.n)
        compare(e, q, &d->copied, rows);
    if (d->learnt.n)
        compare(e, q, &d->learnt, rows);
    d->copied.n = d->learnt.n = 0;
    d->n_all += d->n;
    d->n_all_right += d->n_right;
    counter_add(&e->counters.n_drafted, d->n);
    counter_add(&e->counters.n_drafts_right, d->n_right);
}
