/* The base's weight matrices, one after another, for those who look at weights and not through them: how
 * large what an adapter adds is against them, and which base this is (sketches). Nothing here computes
 * tokens. Thread: any; a model is immutable. */
#ifndef LK_MATRICES_H
#define LK_MATRICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"
#include "lora.h"

struct model;

enum matrix_kind { MATRIX_EMBED, MATRIX_LINEAR, MATRIX_EXPERT, MATRIX_HEAD };
struct model_matrix {
    enum matrix_kind kind;
    uint32_t layer;         /* LINEAR, EXPERT */
    enum lora_site site;    /* LINEAR, EXPERT (gate, up, down), HEAD */
    uint32_t expert;        /* EXPERT */
    const struct packed *w; /* [out, in], rows in Hugging Face order; EMBED: [vocab, hidden]. The model's */
};
/* The embedding, then each layer's sites in their order and its experts', then the head unless it is the
 * embedding's memory. The order and number depend on the base's shape alone. False past the end. */
bool model_matrix_at(const struct model *m, size_t index, struct model_matrix *out);

/* Root of the sum of squares of a matrix, from at most n_rows of its rows, evenly spread (0: all of them);
 * row: scratch of [cols]. Stated for 32 rows: within a few percent, as rows are alike. */
double matrix_norm(const struct packed *w, uint32_t n_rows, float *row);

#endif
