/* One matrix of a merged copy (merge_matrix.c). Inner wall of core/model. */
#ifndef LK_MODEL_MERGE_H
#define LK_MODEL_MERGE_H

#include "model_inner.h"

/* Scratch for matrices up to these sizes, allocated once, shared out among the team's workers. */
struct merge_scratch {
    struct team *team;                     /* NULL: the caller works alone */
    uint32_t rows_max, cols_max, rank_max; /* of a matrix; rank: of all members together */
    float *right;                          /* [rank_max, cols_max] */
    float *row_factor;                     /* [rows_max] */
    float *col_factor;                     /* [cols_max] */
    uint8_t *slices;                       /* a part for each worker */
    size_t slice_bytes;
    double *squares; /* [workers, 2] of the delta and of what rounding took from it */
};
LK_MUST_USE enum status merge_scratch_init(struct merge_scratch *s, struct error *err);
void merge_scratch_fini(struct merge_scratch *s);

/* scale * left right, an addend of the matrix. */
struct merge_delta {
    const struct packed *left; /* [rows, rank] */
    const float *right;        /* [rank, cols] */
    uint32_t rank;
    float scale;
};

/* to = row_factor * from * col_factor + sum of deltas, in to's type. Token rows replace rows of `from` first.
 */
struct merge_matrix {
    const struct packed *from;
    const struct packed *to;              /* packed memory of the same shape */
    const struct lora_rows *token_rows;   /* or NULL */
    const float *row_factor, *col_factor; /* or NULL */
    struct merge_delta deltas[LORA_MEMBERS_MAX];
    uint32_t n_deltas;
};
/* Adds the sums of squares of to - from (before rounding) and of the rounding to squares[2]. */
void merge_matrix_run(const struct merge_matrix *m, const struct merge_scratch *s, double squares[2]);

#endif
