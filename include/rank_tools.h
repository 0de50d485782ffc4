/* Tools for the low-rank numbers of an adapter: what its products are made of. They read the adapter's files
 * as a server does (adapters.h), need no base where that is said, and block for as long as it takes. Thread:
 * any one at a time for each object. */
#ifndef LK_RANK_TOOLS_H
#define LK_RANK_TOOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapters.h"
#include "base/error.h"

#define RANK_ENERGY 0.99 /* of which rank_part.rank_kept speaks */

/* ---- looking, without a base */

/* One product scale * B A: a module's, or that of one expert of it. */
struct rank_part {
    const char *module; /* as the adapter's files call it */
    const char *kind;   /* the last name of it: "q_proj" */
    int32_t expert;     /* -1: the module has none */
    uint32_t out, in, rank;
    double scale;
    uint64_t n_parameters; /* rank * (in + out) */
    uint64_t n_full;       /* in * out */
    double norm;           /* Frobenius norm of scale * B A */
    uint32_t n_sigma;      /* min(rank, in, out) */
    const double *sigma;   /* [n_sigma] singular values of scale * B A, descending */
    uint32_t rank_kept;    /* least rank that keeps RANK_ENERGY of the sum of sigma^2; 0: all are zero */
    bool dora;             /* a magnitude multiplies the adapted weight: not in these numbers */
};

/* Tensors that are no products, and so have no singular values. */
struct rank_others {
    uint32_t n_weights, n_biases, n_token_rows, n_magnitudes, n_lora_biases;
};

struct rank_report {
    struct adapter_report about;
    size_t n_parts;
    const struct rank_part *parts; /* [n_parts], in order of the file */
    struct rank_others others;
};

/* Of a PEFT or MLX folder or a GGUF LoRA. Owns: *out until rank_report_destroy. */
LK_MUST_USE enum status rank_report_create(const char *path, struct rank_report **out, struct error *err);
void rank_report_destroy(struct rank_report *r); /* NULL is fine */

/* The least k with sum of sigma[0..k)^2 >= energy * sum of all; 0 if all are zero. What is left must also
 * exceed float's own rounding, 2^-24 of the norm, to be worth a rank: energy 1 gives the true rank. */
uint32_t rank_for_energy(const double *sigma, uint32_t n, double energy);

#endif
