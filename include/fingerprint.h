/* What an adapter was trained on, and whether that is the base at hand: by a stamp beside the adapter where
 * there is one, by the base's name where not. */
#ifndef LK_FINGERPRINT_H
#define LK_FINGERPRINT_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/error.h"
#include "sketch.h"

struct model;

/* From the strongest on. */
enum base_outcome {
    BASE_UNCHECKED, /* not compared with a base */
    BASE_EXACT,     /* stamp: this very base, or all sampled weights are equal */
    BASE_QUANTISED, /* stamp: the same weights in another type */
    BASE_NAME,      /* no stamp: base_model_name_or_path names this base; a name proves nothing */
    BASE_SHAPES,    /* no more is known than that the shapes fit; a differing name is said */
    BASE_MISMATCH,  /* stamp: other weights; or the shapes don't fit */
    BASE_OUTCOME_COUNT
};
const char *
base_outcome_name(enum base_outcome o); /* "unchecked" "exact" "quantised" "name" "shapes" "mismatch" */

/* The least that is accepted. 0 is the default. */
enum base_policy {
    BASE_POLICY_SHAPES, /* all but a mismatch */
    BASE_POLICY_ANY,    /* a stamp of another base, or a malformed one, too, as long as the shapes fit */
    BASE_POLICY_NAME,   /* its name agrees, or a stamp proves it */
    BASE_POLICY_PROVEN, /* a stamp proves it, whatever the type of the weights */
    BASE_POLICY_EXACT,
    BASE_POLICY_COUNT
};
const char *base_policy_name(enum base_policy p); /* "shapes" "any" "name" "proven" "exact" */
bool base_policy_find(const char *name, enum base_policy *out);
bool base_policy_accepts(enum base_policy p, enum base_outcome o);

struct base_match {
    enum base_outcome outcome;
    bool stamped;
    double outside; /* of a stamp: share of sampled weights that rounding doesn't explain */
    char how[240];  /* a sentence; outcomes that an operator should look at begin with "warning: " */
};

/* ---- the stamp: lorikeet_base.json in the adapter's folder, X.gguf.lorikeet_base.json beside X.gguf */

#define STAMP_FILE "lorikeet_base.json"
#define STAMP_BYTES_MAX ((size_t)1 << 20)

/* JSON of a sketch, appended to `out`. */
LK_MUST_USE enum status stamp_render(const struct base_sketch *s, struct buf *out, struct error *err);
/* Strict: unknown, missing and malformed fields are refused. `shown` names the file. */
LK_MUST_USE enum status stamp_parse(const char *text, size_t n_bytes, const char *shown,
                                    struct base_sketch *out, struct error *err);

/* Writes the stamp beside the adapter at `path` (a folder or a .gguf file), whole or not at all. */
LK_MUST_USE enum status stamp_write(const char *path, const struct base_sketch *s, struct error *err);

/* How an adapter that fits the shapes of `m` belongs to it. stamp: or NULL; adapter_says: its
 * base_model_name_or_path, or ""; name: what the base is called here, or NULL. */
LK_MUST_USE enum status base_match_find(const struct model *m, const char *name,
                                        const struct base_sketch *stamp, const char *adapter_says,
                                        struct base_match *out, struct error *err);
/* Whether two names mean one model: without what stands before the last '/', case, '_' for '-', and the words
 * at the end that say how it is stored ("-gguf", "-bf16", "-q4_k_m"). Empty names agree with nothing. */
bool base_names_agree(const char *a, const char *b);

#endif
