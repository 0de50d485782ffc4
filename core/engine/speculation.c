/* Where guesses come from:
 *
 *   copy    … t u v A B C D …  … t u v │ A B C D      text says again what it has said: quotes, code, lists
 *                                       now
 *   table   t u v → A                                 an adapter says again what it says every time
 *
 * Whether they are worth their rows is judged by how often guesses of the same kind were right. Each guess is
 * compared with what was then sampled, whether it was computed or not, so the rates cost no rows to know, and
 * a sequence that begins to repeat itself is noticed without a trial. */
#include "speculation.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

#define GRAM_TOKENS 3U
#define MATCH_LEAST 2U
#define MATCH_MOST 8U

/* ---- how often they are right ---- */

struct acceptance acceptance_prior(void)
{
    return (struct acceptance){.rates = {[DRAFT_COPY_2] = 0.2F,
                                         [DRAFT_COPY_3] = 0.4F,
                                         [DRAFT_COPY_4] = 0.6F,
                                         [DRAFT_COPY_8] = 0.8F,
                                         [DRAFT_TABLE_ONCE] = 0.3F,
                                         [DRAFT_TABLE_OFTEN] = 0.5F}};
}

void acceptance_note(struct acceptance *a, unsigned source, bool right, float speed)
{
    a->rates[source] += ((right ? 1.0F : 0.0F) - a->rates[source]) * speed;
}

double draft_chance(const struct prediction *p, const struct acceptance *a, uint32_t n)
{
    double chance = 1;
    for (uint32_t i = 0; i < n; i++)
        chance *= (double)a->rates[p->sources[i]];
    return chance;
}

/* ---- copy ---- */

static uint8_t copy_source(uint32_t n_common)
{
    return n_common >= MATCH_MOST ? DRAFT_COPY_8
           : n_common >= 4        ? DRAFT_COPY_4
           : n_common == 3        ? DRAFT_COPY_3
                                  : DRAFT_COPY_2;
}

/* Tokens that the text before `at` and the end of the text have in common, up to MATCH_MOST. */
static uint32_t n_common_before(const int32_t *tokens, uint32_t n_tokens, uint32_t at)
{
    uint32_t n = 0;
    while (n < MATCH_MOST && n < at && tokens[at - 1 - n] == tokens[n_tokens - 1 - n])
        n++;
    return n;
}

void draft_copy(const int32_t *tokens, uint32_t n_tokens, uint32_t n_max, struct prediction *out)
{
    uint32_t best = 0, from = 0;
    out->n = 0;
    if (n_tokens < MATCH_LEAST + 1)
        return;
    int32_t last = tokens[n_tokens - 1], before = tokens[n_tokens - 2];
    for (uint32_t at = n_tokens - 1; at >= MATCH_LEAST && best < MATCH_MOST; at--) {
        if (tokens[at - 1] != last || tokens[at - 2] != before)
            continue;
        uint32_t n = n_common_before(tokens, n_tokens, at);
        if (n > best) {
            best = n;
            from = at;
        }
    }
    if (best < MATCH_LEAST)
        return;
    for (; out->n < n_max && out->n < DRAFT_TOKENS_MAX; out->n++) {
        uint32_t at = from + out->n;
        out->tokens[out->n] = at < n_tokens ? tokens[at] : out->tokens[at - n_tokens];
        out->sources[out->n] = copy_source(best + out->n);
    }
}

/* ---- tables ---- */

/* Empty: seen is 0. `check` is the part of the hash that isn't the place. */
struct gram {
    int32_t next;
    uint16_t check;
    uint16_t seen; /* how often `next` followed, less how often another did */
};

struct draft_table {
    struct draft_key key;
    uint64_t used; /* 0: never */
    struct acceptance acceptance;
    struct gram *grams; /* [DRAFT_TABLE_GRAMS] */
};

struct draft_tables {
    uint64_t clock;
    struct draft_table tables[DRAFT_TABLES];
};

enum status draft_tables_create(struct draft_tables **out, struct error *err)
{
    size_t n_bytes = sizeof(struct draft_tables) + sizeof(struct gram) * DRAFT_TABLES * DRAFT_TABLE_GRAMS;
    struct draft_tables *t = *out = mem_zalloc(n_bytes);
    if (!t)
        return fail(err, STATUS_NO_MEMORY, "no memory for tables of what adapters say");
    struct gram *grams = (struct gram *)(void *)(t + 1);
    for (uint32_t i = 0; i < DRAFT_TABLES; i++)
        t->tables[i].grams = grams + (size_t)i * DRAFT_TABLE_GRAMS;
    return STATUS_OK;
}

void draft_tables_destroy(struct draft_tables *t)
{
    mem_free(t);
}

struct draft_table *draft_tables_find(struct draft_tables *t, const struct draft_key *key)
{
    for (uint32_t i = 0; i < DRAFT_TABLES; i++) {
        struct draft_table *table = &t->tables[i];
        if (!table->used || memcmp(&table->key, key, sizeof *key) != 0)
            continue;
        table->used = ++t->clock;
        return table;
    }
    return NULL;
}

struct draft_table *draft_tables_take(struct draft_tables *t, const struct draft_key *key)
{
    struct draft_table *table = draft_tables_find(t, key);
    if (table)
        return table;
    table = &t->tables[0];
    for (uint32_t i = 1; i < DRAFT_TABLES; i++)
        if (t->tables[i].used < table->used)
            table = &t->tables[i];
    if (table->used)
        memset(table->grams, 0, DRAFT_TABLE_GRAMS * sizeof *table->grams);
    table->key = *key;
    table->used = ++t->clock;
    table->acceptance = acceptance_prior();
    return table;
}

struct acceptance *draft_table_acceptance(struct draft_table *t)
{
    return &t->acceptance;
}

static struct gram *gram_at(const struct draft_table *t, const int32_t before[GRAM_TOKENS], uint16_t *check)
{
    uint64_t h = 0;
    for (uint32_t i = 0; i < GRAM_TOKENS; i++) {
        h = (h ^ (uint32_t)before[i]) * 0x9e3779b97f4a7c15U;
        h ^= h >> 29;
    }
    *check = (uint16_t)(h >> 48);
    return &t->grams[h % DRAFT_TABLE_GRAMS];
}

void draft_table_learn(struct draft_table *t, const int32_t *tokens, uint32_t begin, uint32_t n_tokens)
{
    uint16_t check;
    for (uint32_t i = begin < GRAM_TOKENS ? GRAM_TOKENS : begin; i < n_tokens; i++) {
        struct gram *g = gram_at(t, tokens + i - GRAM_TOKENS, &check);
        bool known = g->seen && g->check == check;
        if (known && g->next == tokens[i])
            g->seen += g->seen < UINT16_MAX;
        else if (known && g->seen > 1)
            g->seen /= 2; /* a habit that has changed is forgotten soon */
        else
            *g = (struct gram){tokens[i], check, 1};
    }
}

void draft_table_predict(const struct draft_table *t, const int32_t *tokens, uint32_t n_tokens,
                         uint32_t n_max, struct prediction *out)
{
    int32_t before[GRAM_TOKENS];
    uint16_t check;
    out->n = 0;
    if (n_tokens < GRAM_TOKENS)
        return;
    memcpy(before, tokens + n_tokens - GRAM_TOKENS, sizeof before);
    while (out->n < n_max && out->n < DRAFT_TOKENS_MAX) {
        const struct gram *g = gram_at(t, before, &check);
        if (!g->seen || g->check != check)
            return;
        out->tokens[out->n] = g->next;
        out->sources[out->n++] = g->seen > 1 ? DRAFT_TABLE_OFTEN : DRAFT_TABLE_ONCE;
        memmove(before, before + 1, sizeof before - sizeof before[0]);
        before[GRAM_TOKENS - 1] = g->next;
    }
}

/* ---- the choice ---- */

#define COSTS_SPEED 0.1
/* Steps with drafts are taken to be this much dearer than the curve says until some were seen, and are again
 * a while after the last one: what was seen once in a bad moment must not count for ever. */
#define DRAFTING_UNSEEN 1.1
#define DRAFTING_FADES 0.002

void draft_costs_init(struct draft_costs *c, const struct cost_curve *curve)
{
    *c = (struct draft_costs){.curve = {{1, 1.15, 1.45, 2.1, 3.5, 6.5}}};
    if (curve && curve->ns[0] > 0)
        c->curve = *curve;
}

/* A single step that was interrupted says nothing about the next. */
static void average(double *mean, double x)
{
    if (*mean == 0)
        *mean = x;
    else
        *mean += ((x < 2 * *mean ? x : 2 * *mean) - *mean) * COSTS_SPEED;
}

void draft_costs_note(struct draft_costs *c, uint32_t n_rows, uint32_t n_drafts, double ns)
{
    double x = ns / cost_curve_at(&c->curve, n_rows);
    if (n_drafts) {
        average(&c->drafting, x);
        return;
    }
    average(&c->plain, x);
    if (c->drafting > 0)
        c->drafting += (DRAFTING_UNSEEN * c->plain - c->drafting) * DRAFTING_FADES;
}

/* With drafts a step takes no less time than without, whatever was seen. */
static double step_ns(const struct draft_costs *c, uint32_t n_rows, uint32_t n_drafts)
{
    double plain = c->plain > 0 ? c->plain : 1, ns = plain * cost_curve_at(&c->curve, n_rows);
    if (!n_drafts)
        return ns;
    double unit = c->drafting > 0 ? c->drafting : DRAFTING_UNSEEN * plain;
    double drafting = unit * cost_curve_at(&c->curve, n_rows + n_drafts);
    return drafting > ns ? drafting : ns;
}

/* What one more guess of the option adds to the logarithm of its sequence's speed. */
static double gain_of(const struct draft_option *o, double *chance)
{
    if (!o->prediction || o->n == o->n_max)
        return 0;
    *chance = draft_chance(o->prediction, o->acceptance, o->n + 1);
    return log1p(*chance / (1 + o->n_expected));
}

/* Adds the guess that gains most. Returns what it gains; 0: there is none. */
static double add_best(struct draft_option *options, uint32_t n_options)
{
    double best = 0, best_chance = 0, chance = 0;
    struct draft_option *o = NULL;
    for (uint32_t i = 0; i < n_options; i++) {
        double gain = gain_of(&options[i], &chance);
        if (gain > best) {
            best = gain;
            best_chance = chance;
            o = &options[i];
        }
    }
    if (o) {
        o->n++;
        o->n_expected += best_chance;
    }
    return best;
}

static void clear(struct draft_option *options, uint32_t n_options)
{
    for (uint32_t i = 0; i < n_options; i++) {
        options[i].n = 0;
        options[i].n_expected = 0;
    }
}

/* Guesses are added as they gain; of all these numbers of drafts the best is taken, for a step's time rises
 * in steps: where one more row doesn't pay, four more may. */
void drafts_choose(const struct draft_costs *c, const struct draft_step *step, struct draft_option *options,
                   uint32_t n_options)
{
    uint32_t n_max = step->n_rows < DRAFT_ROWS_MAX ? DRAFT_ROWS_MAX - step->n_rows : 0, n_best = 0;
    n_max = n_max < step->n_drafts_max ? n_max : step->n_drafts_max;
    double speed = 0, best = step->n_sampled * log(DRAFT_GAIN_MIN), gain;
    double plain = step_ns(c, step->n_rows, 0);
    clear(options, n_options);
    for (uint32_t n = 1; n <= n_max && (gain = add_best(options, n_options)) > 0; n++) {
        speed += gain;
        double all = speed - step->n_sampled * log(step_ns(c, step->n_rows, n) / plain);
        if (all > best) {
            best = all;
            n_best = n;
        }
    }
    clear(options, n_options);
    for (uint32_t n = 0; n < n_best; n++)
        add_best(options, n_options);
}
