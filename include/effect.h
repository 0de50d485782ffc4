/* The effect test: what an adapter does to its base's answers, seen on a few prompts before it is published.
 *
 * The base and the adapter each read the prompts once (a private small step space and cache, one thread); the
 * logits of each position are compared. An adapter that changes no bit of them is without effect: wrong keys,
 * zeros, a scale of 0. One whose logits are not finite, or explode, is broken. Between the two nothing is
 * judged: the numbers are kept for people to see. */
#ifndef LK_EFFECT_H
#define LK_EFFECT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "lora.h"

struct model;

enum effect_mode { EFFECT_OFF, EFFECT_WARN, EFFECT_ENFORCE };

enum effect_outcome {
    EFFECT_UNTESTED,
    EFFECT_SEEN,
    EFFECT_UNSEEN,     /* only experts are adapted, and the prompts reached none of them: not judged */
    EFFECT_NONE,       /* no difference at all */
    EFFECT_NON_FINITE, /* a logit is infinite or NaN */
    /* The largest |logit| is above 50 times the base's and above 10000. Trained adapters stay within a few
     * times the base's; a scale that is wrong by orders of magnitude does not. A family with soft-capped
     * logits (gemma2) can't explode. */
    EFFECT_EXPLODES,
    EFFECT_OUTCOME_COUNT
};
const char *effect_outcome_name(enum effect_outcome o); /* "untested" "seen" "unseen" "none" "non_finite" … */
/* None, not finite and exploding: what EFFECT_ENFORCE refuses. */
bool effect_is_bad(enum effect_outcome o);

/* Norms are Frobenius', over all adapted matrices of a kind together; base: estimated from 32 rows of each.
 * 0, 0: no such matrix is adapted. */
struct effect_norm {
    double delta; /* of scale * B A; without DoRA's change of magnitudes */
    double base;  /* of W */
};

struct effect_report {
    enum effect_outcome outcome;
    char what[240];  /* a sentence; of a bad outcome it begins with "no effect: ", "non-finite ..." or
                        "exploding ..." */
    bool own_probes; /* the adapter's, from its probes.jsonl */
    uint32_t n_prompts, n_positions;
    double mean_kl, max_kl;                   /* over positions: KL(base || adapter), nats */
    double agreement;                         /* share of positions with the same most likely token */
    double max_logit, base_max_logit;         /* largest |logit| */
    struct effect_norm norm[LORA_SITE_COUNT]; /* by enum lora_site; experts under gate, up and down */
    struct effect_norm embed;
};

/* A prompt as tokens, each below the vocabulary's size. */
struct effect_probe {
    const int32_t *tokens;
    uint32_t n_tokens;
};
#define EFFECT_PROMPTS_MAX 8U
#define EFFECT_TOKENS_MAX 64U /* of a prompt; what is longer is cut */
#define EFFECT_ROWS_MAX 16U   /* positions compared: the last ones of a prompt */

/* The texts that the built-in test reads, for the server to make tokens of (with its usual first token); NULL
 * past the end. Short: two prompts of at most EFFECT_BUILTIN_TOKENS. */
#define EFFECT_BUILTIN_TOKENS 12U
const char *effect_builtin_text(uint32_t index);

struct effect_probes_options {
    const struct model *base; /* outlives the probes */
    const struct effect_probe *prompts;
    uint32_t n_prompts; /* 1 to EFFECT_PROMPTS_MAX */
    /* Tokens of a text, for the prompts in probes.jsonl: writes up to n_max of them and returns how many
     * there are, or 0 if it can't. NULL: such prompts are refused. Thread: any, several at once. */
    uint32_t (*tokenize)(void *data, const char *text, size_t n_bytes, int32_t *tokens, uint32_t n_max);
    void *data;
};

/* The prompts with the base's own logits, made once for a base: [positions, vocab] floats are kept. Immutable
 * afterwards: loads on several workers share it. Takes a pass of the base over the prompts. STATUS_INVALID: a
 * token outside the vocabulary, an empty prompt. */
struct effect_probes;
LK_MUST_USE enum status effect_probes_create(const struct effect_probes_options *o,
                                             struct effect_probes **out, struct error *err);
void effect_probes_destroy(struct effect_probes *p); /* NULL is fine */
const struct model *effect_probes_model(const struct effect_probes *p);

/* Tests `l`, which was built for the probes' base. own: prompts in the place of the built-in ones, or NULL.
 * Invocation tokens and replaced token rows are put behind the prompts, or they would not be met. Zeros are
 * seen without a pass. The status tells whether the test could be made; *out what it found. Blocks for about
 * the time of reading the prompts once (own ones and activated adapters: twice) on one core. Thread: any. */
LK_MUST_USE enum status effect_check(const struct lora *l, const struct effect_probes *p,
                                     const struct effect_probe *own, uint32_t n_own,
                                     struct effect_report *out, struct error *err);

#endif
