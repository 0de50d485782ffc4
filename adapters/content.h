/* What an adapter's files hold, on its way to a `struct lora_spec`. Inner wall of adapters.
 *
 * A format's loader knows names. It files each tensor under its module's path (content_put), then goes
 * through the modules and adds what they are to the specification: pairs, whole tensors, single rows. Values
 * are checked on the way (type, finite, shape) and brought into the layout that lora.h wants; all of it lives
 * as long as the content. Without a model (inspect) everything is checked but what depends on the base. */
#ifndef LK_ADAPTERS_CONTENT_H
#define LK_ADAPTERS_CONTENT_H

#include "adapters.h"
#include "base/arena.h"
#include "format.h"
#include "model.h"

#define ADAPTER_RANK_MAX 4096

/* The tensors that a module can have. */
enum part {
    PART_A,         /* [rank, in] */
    PART_B,         /* [out, rank] */
    PART_B_BIAS,    /* [out] */
    PART_MAGNITUDE, /* [out] */
    PART_EMBED_A,   /* [rank, vocab] */
    PART_EMBED_B,   /* [hidden, rank] */
    PART_WEIGHT,    /* replaced */
    PART_BIAS,
    PART_WEIGHT_AGAIN, /* the same under its name in memory, which PEFT sometimes writes as well */
    PART_BIAS_AGAIN,
    PART_ROWS,      /* [n, hidden] single rows of an embedding or head */
    PART_BASE_COPY, /* [out, in] the base's own weight */
    PART_COUNT
};

struct entry {
    const char *path; /* the module as the file calls it */
    const struct tensor *part[PART_COUNT];
};

/* A matrix in memory, row-major, values aligned. */
struct matrix {
    enum dtype type; /* F32 F16 BF16 */
    const void *data;
    uint32_t rows, cols;
};

/* A pair as the files have it, for tools that know no base: A [n * rank, in] and B [n * out, rank] of n
 * experts one below another (n is 1 elsewhere). EMBED: A is [rank, vocab]. */
struct file_pair {
    const char *path; /* of the module or parameter, as patterns of PEFT are matched with it */
    enum { FILE_PAIR_LINEAR, FILE_PAIR_EMBED, FILE_PAIR_EXPERTS } kind;
    const struct tensor *a_tensor, *b_tensor, *bias_tensor; /* bias: of B, or NULL */
    struct matrix a, b;
    uint32_t n, rank;
    float scale;
    const float *b_bias, *magnitude; /* or NULL */
};

struct content {
    const struct model *model; /* NULL: only looked at (inspect) */
    struct arena *arena;
    const struct tensors *tensors;
    const char *shown;
    struct entry *entries; /* in order of the file */
    size_t n_entries, entries_room;
    uint32_t *table; /* [table_size] index + 1 by hash of the path; 0: empty */
    size_t table_size;
    struct lora_pair *pairs;
    size_t n_pairs, pairs_room;
    struct lora_tensor *replaced;
    size_t n_replaced, replaced_room;
    struct file_pair *file_pairs; /* without a model, in order of the file */
    size_t n_file_pairs, file_pairs_room;
    struct json_t *config; /* a folder's adapter_config.json, or NULL */
    struct lora_spec spec; /* rows and invocation are written here by the loader; arrays by content_finish */
    struct adapter_report *report;
};

/* NULL when memory is short. */
struct content *content_create(const struct model *m, struct adapter_report *report);
void content_destroy(struct content *c); /* NULL is fine */

/* Files a tensor under a path; a second one for the same place is refused. May move the entries. */
LK_MUST_USE enum status content_put(struct content *c, const char *path, enum part part,
                                    const struct tensor *t, struct error *err);
/* NULL if no tensor was put under this path. */
struct entry *content_find(struct content *c, const char *path);
/* Some tensor of the entry, for messages. */
const char *entry_tensor_name(const struct entry *e);

/* A tensor's values. Dimensions beyond the second are folded into the rows. Quantised types are widened. */
LK_MUST_USE enum status content_matrix(struct content *c, const struct tensor *t, struct matrix *out,
                                       struct error *err);
/* The same turned over: [cols, rows]. */
LK_MUST_USE enum status content_transpose(struct content *c, struct matrix *m, struct error *err);
/* A vector of n values as floats; NULL for a NULL tensor. */
LK_MUST_USE enum status content_vector(struct content *c, const struct tensor *t, uint32_t n,
                                       const float **out, struct error *err);
/* A matrix's values as floats. */
LK_MUST_USE enum status content_floats(struct content *c, const struct matrix *m, const float **out,
                                       struct error *err);

/* The module of a path, or STATUS_MISMATCH. Needs a model. */
LK_MUST_USE enum status content_module(const struct content *c, const struct entry *e,
                                       struct model_module *out, struct error *err);
/* What lora_A and lora_B of a module must be to each other; *rank. */
LK_MUST_USE enum status content_check_halves(const struct content *c, const struct entry *e,
                                             const struct tensor *a, const struct tensor *b,
                                             struct error *err);

/* Appends a pair [rank, in] and [out, rank]; `p` has the module, scale, biases and magnitude already. */
struct pair_values {
    struct matrix a, b;
    const char *a_name, *b_name; /* of the tensors, for messages */
};
LK_MUST_USE enum status content_add_pair(struct content *c, const struct lora_pair *p,
                                         const struct pair_values *v, struct error *err);
/* The linear module that a site of an expert is, in the shapes of this base (MODULE_EXPERTS); n_sites 2: gate
 * and up, one below the other. Its expert is 0. */
struct model_module content_expert(const struct model_module *experts, enum lora_site site, uint32_t n_sites);
/* A pair for each of n experts, out of theirs one below another: a [n * rank, in], b [n * out, rank]. */
LK_MUST_USE enum status content_add_experts(struct content *c, const struct lora_pair *p,
                                            const struct pair_values *all, uint32_t n, struct error *err);
LK_MUST_USE enum status content_add_tensor(struct content *c, const struct lora_tensor *t, const char *name,
                                           struct error *err);

/* Keeps a pair that is only looked at; the path is copied. Its matrices must fit each other. */
LK_MUST_USE enum status content_keep_pair(struct content *c, const struct file_pair *p, struct error *err);

/* Notes for the report what an entry's LoRA is; rank 0: no LoRA, only replaced tensors. */
void content_count(struct content *c, const struct entry *e, uint64_t rank);
/* Adds a word to the report's kinds, once. */
void content_kind(struct content *c, const char *kind);
/* Completes spec and report. */
void content_finish(struct content *c);

#endif
