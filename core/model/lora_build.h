/* How an adapter is put together. Inner wall of core/model. */
#ifndef LK_MODEL_LORA_BUILD_H
#define LK_MODEL_LORA_BUILD_H

#include "model_inner.h"

/* The pairs of a group, NULL where a part is untouched; part i has the rows of pair[i]'s B from row[i] on. */
struct lora_slot {
    const struct lora_pair *pair[3];
    uint32_t row[3];
};

/* Everything is laid out twice by the same code: first without memory, to count bytes, then into one block.
 */
struct lora_builder {
    const struct model *m;
    const struct lora_spec *spec;
    struct lora *l;
    struct lora_slot *slots;   /* [n_layers * LORA_GROUP_COUNT + 1], the last one is the head's */
    struct lora_slot *experts; /* [n_layers, n_experts, 2], or NULL */
    const struct lora_pair *embed;
    uint8_t *memory; /* NULL in the first pass */
    size_t at;       /* bytes so far */
};

/* The next n_bytes of the block, 64-byte aligned; NULL in the first pass. */
void *lora_take(struct lora_builder *b, size_t n_bytes);

/* The base's matrix of a site: of a layer, an expert or the head. */
const struct packed *module_weights(const struct model *m, const struct model_module *module,
                                    enum lora_site site);
/* Output rows of one site of a module. */
uint32_t module_site_rows(const struct model *m, const struct model_module *module, enum lora_site site);

/* lora_round.c: fills w, f32, I8 or Q8_0, with the rows of `type` at `rows`, each times its factor (or NULL).
 * A block with a number in it that is none, or infinite, becomes all NaN. */
LK_MUST_USE enum status lora_fill_rows(const struct packed *w, enum dtype type, const void *rows,
                                       const float *factors, struct error *err);
/* Q8_0 keeps its scales as f16: A is stored times 2^shift, so that they are normal ones. */
int lora_a_shift(const struct lora_pair *p);

/* lora_dora.c: m / |W + scale B A| of n_rows rows of a site that begin at row `row` of the pair's B (arXiv
 * 2402.09353, eq. 5). Needs a few slices of memory meanwhile. */
LK_MUST_USE enum status dora_factors(const struct lora_pair *p, const struct packed *w, uint32_t row,
                                     uint32_t n_rows, float *factors, struct error *err);
/* The same per embedding dimension, over the vocabulary. */
LK_MUST_USE enum status dora_embedding_factors(const struct lora_pair *p, const struct packed *table,
                                               float *factors, struct error *err);

/* lora_replace.c: the tensors that stand in the place of the base's, and single token rows. */
LK_MUST_USE enum status lora_lay_replaced(struct lora_builder *b, struct error *err);

#endif
