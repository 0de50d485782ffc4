/* Guesses of the next tokens without a model: what followed the same words before, in the sequence itself or
 * in what an adapter has said lately; and how many of them are worth computing. Pure: no engine, no threads;
 * memory only in draft_tables_create. A guess changes no output: the engine computes its rows beside the
 * sequence's own and keeps only what the sampler would have taken anyway. */
#ifndef LK_ENGINE_SPECULATION_H
#define LK_ENGINE_SPECULATION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "cost.h"

#define DRAFT_TOKENS_MAX 7U /* of a sequence in a step */
#define DRAFT_ROWS_MAX 32U  /* rows of a step, drafts included, up to which there are drafts */

/* What a guess rests on: tokens that the text before it has in common with its source, or how often a table
 * has seen it. Each has a rate of its own. */
enum draft_source {
    DRAFT_COPY_2,
    DRAFT_COPY_3,
    DRAFT_COPY_4, /* 4 to 7 */
    DRAFT_COPY_8, /* or more */
    DRAFT_TABLE_ONCE,
    DRAFT_TABLE_OFTEN,
    DRAFT_SOURCES
};

/* Guesses one behind the other. */
struct prediction {
    uint32_t n;
    int32_t tokens[DRAFT_TOKENS_MAX];
    uint8_t sources[DRAFT_TOKENS_MAX]; /* enum draft_source; token i's, given that those before are right */
};

/* How often a guess was right, as running averages. */
struct acceptance {
    float rates[DRAFT_SOURCES];
};
struct acceptance acceptance_prior(void);
/* Notes a guess: right or not. A sequence's averages go faster than a table's. */
void acceptance_note(struct acceptance *a, unsigned source, bool right, float speed);
#define ACCEPTANCE_SPEED_SEQUENCE 0.125F
#define ACCEPTANCE_SPEED_TABLE 0.02F

/* Looks for the last 2 to 8 of the tokens earlier among them (the longest match, of these the latest) and
 * guesses what stood behind, at most n_max tokens; a match that runs into the end goes on with the guesses
 * themselves, so a loop is guessed as a loop. Time: one pass over the tokens. */
void draft_copy(const int32_t *tokens, uint32_t n_tokens, uint32_t n_max, struct prediction *out);

/* ---- tables: three tokens and what followed them, by adapter and caller */

struct draft_key {
    uint8_t digest[32]; /* of the adapter; zeros: the base */
    uint8_t salt[32];   /* the caller's: what one was told is no guess for another */
};
#define DRAFT_TABLES 32U
#define DRAFT_TABLE_GRAMS 8192U /* of a table; a newer one takes an older one's place */

struct draft_tables;
struct draft_table;
LK_MUST_USE enum status draft_tables_create(struct draft_tables **out, struct error *err);
void draft_tables_destroy(struct draft_tables *t); /* NULL is fine */
/* The key's table, or NULL. */
struct draft_table *draft_tables_find(struct draft_tables *t, const struct draft_key *key);
/* The same; an empty one in the place of the least recently used where there was none. */
struct draft_table *draft_tables_take(struct draft_tables *t, const struct draft_key *key);
struct acceptance *draft_table_acceptance(struct draft_table *t);

/* Learns tokens [begin, n_tokens) as what followed those before them. */
void draft_table_learn(struct draft_table *t, const int32_t *tokens, uint32_t begin, uint32_t n_tokens);
/* Guesses at most n_max tokens behind the last one. */
void draft_table_predict(const struct draft_table *t, const int32_t *tokens, uint32_t n_tokens,
                         uint32_t n_max, struct prediction *out);

/* ---- the choice */

/* Time of a step by its rows: a curve's shape, and what steps without and with drafts took in its unit. */
struct draft_costs {
    struct cost_curve curve;
    double plain, drafting; /* 0: not seen yet */
};
/* The machine's costs, or NULL: a shape that suits most. */
void draft_costs_init(struct draft_costs *c, const struct cost_curve *curve);
/* A step of n_rows rows took so long, n_drafts of them drafts. */
void draft_costs_note(struct draft_costs *c, uint32_t n_rows, uint32_t n_drafts, double ns);

/* A sequence that might have a draft in this step. */
struct draft_option {
    const struct prediction *prediction; /* or NULL */
    const struct acceptance *acceptance; /* the sequence's */
    uint32_t n_max;                      /* that have room; at most prediction->n */
    uint32_t n;                          /* the choice */
    double n_expected;                   /* of them, to be right */
};
/* What a step without drafts has, and how many rows may be added. */
struct draft_step {
    uint32_t n_rows, n_sampled; /* rows; of them, those that give a token */
    uint32_t n_drafts_max;
};
/* The drafts that make the sequences fastest, as the geometric mean of their speeds: a longer step slows
 * those down that have nothing to guess, so one's gain must outweigh all others' loss (with a sum it could be
 * bought with them). None if they aren't at least this much faster. */
#define DRAFT_GAIN_MIN 1.03
void drafts_choose(const struct draft_costs *c, const struct draft_step *step, struct draft_option *options,
                   uint32_t n_options);
/* How likely the first n guesses are right together. */
double draft_chance(const struct prediction *p, const struct acceptance *a, uint32_t n);

#endif
