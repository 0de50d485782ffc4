/* Singular values of low-rank products, in double precision by LAPACK (which OpenBLAS brings along). Work for
 * tools, not for a step: it allocates and may take seconds.
 *
 * The product scale * B A is never formed. With the thin QR decompositions B = Q_b R_b and A^T = Q_a R_a it
 * is Q_b (scale R_b R_a^T) Q_a^T, whose middle is a small matrix of at most rank x rank with the same
 * singular values (Golub and Van Loan, Matrix Computations, 5.2 and 8.6). */
#ifndef LK_LINALG_H
#define LK_LINALG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* scale * B A, an [out, in] matrix. All borrowed; row-major without gaps, finite, sizes below 2^31. */
struct low_rank {
    const float *a; /* [rank, in] */
    const float *b; /* [out, rank] */
    uint32_t out, in, rank;
    double scale;
};

/* sum over i of sigma[i] * u[i] v[i]^T */
struct low_rank_svd {
    uint32_t n;    /* min(rank, out, in) */
    double *sigma; /* [n], descending, none negative */
    double *u;     /* [n, out], orthonormal rows; NULL: not asked for */
    double *v;     /* [n, in] */
};

/* Thread: any.  Owns: *out is filled for low_rank_svd_fini. STATUS_NO_MEMORY; STATUS_INTERNAL if LAPACK does
 * not converge. */
LK_MUST_USE enum status low_rank_svd(const struct low_rank *x, bool vectors, struct low_rank_svd *out,
                                     struct error *err);
void low_rank_svd_fini(struct low_rank_svd *s); /* fine on a zeroed or failed one */

/* Frobenius norm of x - y, two products of the same [out, in]; y NULL: of x. Accurate to about 2^-50 of the
 * larger norm. */
LK_MUST_USE enum status low_rank_distance(const struct low_rank *x, const struct low_rank *y, double *norm,
                                          struct error *err);

#endif
