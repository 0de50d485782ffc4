/* A sketch of a base's weights: a few of them as they are, from places that its shape alone decides. Two
 * sketches tell whether two bases have the same weights, whatever types they store them in.
 *
 * A copy in another type has each weight rounded to the nearest value of its grid, so that the original lies
 * within half a step of it. A fine-tuned sibling's weights lie outside as often as what training changed is
 * large against the step: 0.2 % of the weights' size puts 0.3 % of them outside on a 4-bit grid and 6 % on
 * Q8_0 (docs/FINGERPRINT.md has the measurement). */
#ifndef LK_SKETCH_H
#define LK_SKETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "grid.h"

struct model;

#define SKETCH_SPOTS_MAX 1024U
#define SKETCH_KINDS 16U /* embedding, sites, head */

struct sketch_spot {
    uint8_t kind; /* of matrix: 0 embedding, 1 + enum lora_site */
    struct grid grid;
};
struct base_shape {
    char model_type[48];
    uint32_t n_layers, hidden_size, intermediate_size, n_heads, n_kv_heads, head_dim, vocab_size, n_experts;
};
struct base_sketch {
    struct base_shape shape;
    uint8_t digest[32];   /* model_info's */
    char name[160];       /* the base's own */
    char weight_type[16]; /* of most linear weights */
    uint32_t n_spots;
    struct sketch_spot *spots;
};
/* Reads some rows' blocks: milliseconds. */
LK_MUST_USE enum status model_sketch(const struct model *m, struct base_sketch *out, struct error *err);
/* Zeroed spots of the right number and kinds for the model's shape: what a kept sketch is read into. */
LK_MUST_USE enum status sketch_alloc(struct base_sketch *s, uint32_t n_spots, struct error *err);
void base_sketch_fini(struct base_sketch *s); /* zeroed is fine */

enum sketch_relation {
    SKETCH_EQUAL,   /* the same digest, or every value is the same */
    SKETCH_COPY,    /* the same weights, stored in another type */
    SKETCH_SIBLING, /* the same shape and weights close by: trained further, or merged */
    SKETCH_OTHER,   /* the same shape, other weights */
    SKETCH_SHAPES,  /* another shape */
};
struct sketch_distance {
    enum sketch_relation relation;
    uint32_t n_values;
    double outside;  /* share of values outside of what rounding explains, in the kind of matrix with most */
    double relative; /* root of sum (a - b)^2 / sum a^2; 1.4 for unrelated weights */
    char where[24];  /* that kind: "q_proj", "embedding" */
};
/* Whether `b` has `a`'s weights. Symmetric but for `relative`. Pure. */
void sketch_compare(const struct base_sketch *a, const struct base_sketch *b, struct sketch_distance *out);

#endif
