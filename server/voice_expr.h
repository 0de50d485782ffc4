/* A voice in words: a weighted sum of adapters, "pt", "pt@3", "0.5*pt+safety@1f2e3d4c", "base:pt", or
 * nothing, which is the base. Pure text and numbers: no registry, no memory, any thread.
 *
 *   voice   = [base ":"] [sum]        base: the base's name, or the word "base"
 *   sum     = term { "+" term }       spaces may stand around "+" and "*"
 *   term    = [weight "*"] name ["@" pin]   or base
 *   pin     = a generation (3), or the first 8 to 64 hex digits of a version's digest
 *   weight  = a decimal number from -100 to 100
 *
 * A name with its pin stands once: weights of repetitions are added. What ends with weight 0 says nothing. */
#ifndef LK_VOICE_EXPR_H
#define LK_VOICE_EXPR_H

#include <stdbool.h>
#include <stdint.h>

#include "adapters.h"
#include "base/buf.h"
#include "base/error.h"

#define VOICE_TERMS_MAX 32U /* that a request may name, those of weight 0 too */
#define VOICE_WEIGHT_MAX 100.0
#define VOICE_PIN_MAX 64U

struct voice_term {
    char name[ADAPTER_NAME_MAX + 1];
    char pin[VOICE_PIN_MAX + 1]; /* "": whatever is current; lower case */
    double weight;
};

/* Sorted by name, then pin; no two terms with the same of both. */
struct voice_expr {
    uint32_t n; /* 0: the base */
    struct voice_term terms[VOICE_TERMS_MAX];
};

/* The word "base" or the base's own name: no adapter may be called so. */
bool voice_is_base(const char *name, const char *base_name);

/* text NULL or "": no terms. STATUS_INVALID: not of the form above, with what is wrong and where.
 * STATUS_NOT_FOUND: a name that no adapter can have. */
LK_MUST_USE enum status voice_expr_parse(const char *text, const char *base_name, struct voice_expr *out,
                                         struct error *err);
/* Adds weight * NAME[@PIN]; the base's name adds nothing, and takes neither weight nor pin. */
LK_MUST_USE enum status voice_expr_add(struct voice_expr *e, const char *text, size_t length, double weight,
                                       const char *base_name, struct error *err);
/* Adds factor * what. */
LK_MUST_USE enum status voice_expr_add_all(struct voice_expr *e, const struct voice_expr *what, double factor,
                                           struct error *err);
/* Takes away what has weight 0; STATUS_INVALID if more than n_max terms stay. */
LK_MUST_USE enum status voice_expr_finish(struct voice_expr *e, uint32_t n_max, struct error *err);
/* The same terms with the same weights; weight 0 is as absent. */
bool voice_expr_equal(const struct voice_expr *a, const struct voice_expr *b);
/* The weight as the arithmetic has it. */
float voice_weight(double weight);
/* The canonical text: in order, weights as the shortest decimals of their floats, 1 and 0 left out; "" for
 * the base. voice_expr_parse reads it back. */
void voice_expr_print(const struct voice_expr *e, struct buf *out);

#endif
