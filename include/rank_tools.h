/* Tools for the low-rank numbers of an adapter: what its products are made of. They read the adapter's files
 * as a server does (adapters.h), need no base where that is said, and block for as long as it takes. Thread:
 * any one at a time for each object. */
#ifndef LK_RANK_TOOLS_H
#define LK_RANK_TOOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapters.h"
#include "base/dtype.h"
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

/* ---- making smaller, without a base */

struct shrink_options {
    uint32_t rank; /* of every module, at most; 0: by energy */
    double
        energy; /* each module keeps the least rank with this share of the sum of sigma^2; 0 < energy <= 1 */
    enum dtype
        type; /* of the new A and B: F32, F16, BF16; DTYPE_COUNT: as the file has them, F32 with energy 1 */
    bool (*stop)(void); /* asked now and then: true ends it with STATUS_CANCELLED; or NULL */
};

/* A module of the result; experts of one module together. */
struct shrink_part {
    const char *module;
    uint32_t rank_before, rank_after;
    double norm;  /* Frobenius norm of scale * B A, before */
    double error; /* of the difference, rounding to `type` included */
};
struct shrink_report {
    size_t n_parts;
    const struct shrink_part *parts;
    double norm, error;                 /* of all modules together */
    uint64_t n_before, n_after;         /* values of A and B */
    uint64_t bytes_before, bytes_after; /* of all tensors */
    uint32_t n_kept;                    /* tensors that are no products, copied as they are */
    bool dora;                          /* magnitudes stay; the error is that of scale * B A */
};

/* Reads a PEFT folder and writes one at `out` whose products are the best of lower rank (Eckart and Young, by
 * the SVD of linalg.h), the singular values shared evenly by A and B. Modules whose rank stays are copied,
 * and each keeps its scale (alpha and patterns are set accordingly). Everything else stays: configuration,
 * biases, magnitudes, whole tensors, token rows, and small text files beside them. Whole or not at all
 * (base/out.h). STATUS_UNSUPPORTED for other formats; STATUS_EXISTS if something is at `out`. Owns: *report
 * until destroyed. */
LK_MUST_USE enum status adapter_shrink(const char *path, const char *out, const struct shrink_options *o,
                                       struct shrink_report **report, struct error *err);
void shrink_report_destroy(struct shrink_report *r); /* NULL is fine */

/* ---- from one format to another, for a base */

struct model;

struct convert_options {
    const struct model *base; /* model_describe is enough: names, shapes and the order of rows come from it */
    bool to_gguf;             /* a GGUF file at `out`; else a PEFT folder */
    enum dtype type;    /* of A and B: F32, F16, BF16; DTYPE_COUNT: as they are, F32 where they must change */
    bool (*stop)(void); /* as above */
};
struct convert_report {
    struct adapter_report from;
    uint32_t n_products; /* of the result: pairs of tensors */
    uint32_t n_folded;   /* whose scale is another than the file's one alpha gives: it is in B */
    double alpha;        /* of the result */
};

/* Writes the same adapter in the other format. To GGUF (what llama.cpp's convert_lora_to_gguf.py writes): q
 * and k rows in its order, experts stacked, one alpha, scales that differ from it folded into B; what the
 * format can't hold (DoRA, biases, modules_to_save, token rows) is refused by its name. To PEFT, from GGUF or
 * MLX: transformers' names, alpha and patterns so that each module keeps its scale. Whole or not at all.
 * STATUS_UNSUPPORTED, STATUS_MISMATCH (another base), STATUS_EXISTS. */
LK_MUST_USE enum status adapter_convert(const char *path, const char *out, const struct convert_options *o,
                                        struct convert_report *report, struct error *err);

/* ---- a model with adapters inside */

struct model_files;
struct lora;
struct team;

struct merge_options {
    const struct model *base; /* open, with its files */
    const struct model_files *files;
    struct lora *lora; /* an adapter, or a composition */
    enum dtype type;   /* of all tensors: F32, F16, BF16; DTYPE_COUNT: as the base's file has each, BF16 for
                          what is   quantised there */
    uint64_t shard_bytes; /* tensor data of one file; 0: 5 GB, as transformers has it */
    const char *like; /* folder whose config.json and tokenizer files the result gets; NULL: the base's own (a
                         folder). A GGUF base needs one. */
    struct team *team;  /* may be NULL */
    bool (*stop)(void); /* as above */
};
struct merge_folder_report {
    uint32_t n_matrices; /* that the adapter changes */
    uint32_t n_tensors, n_files;
    uint64_t n_bytes;    /* of tensors */
    double delta_norm;   /* Frobenius norm of what was added to them */
    double error_norm;   /* of what rounding to the files' types takes, over all tensors */
    bool untied, biases; /* the configuration says so now */
};

/* Writes a Hugging Face model folder with W + scale * B A (and whatever else the adapter does; model_merge)
 * in the base's names and layout: config.json, tokenizer files, model.safetensors or shards with their index.
 * The result is opened and checked before it appears. Whole or not at all. */
LK_MUST_USE enum status adapter_merge_folder(const char *out, const struct merge_options *o,
                                             struct merge_folder_report *report, struct error *err);

#endif
