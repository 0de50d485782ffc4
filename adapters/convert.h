/* A conversion in progress. Inner wall of adapters. */
#ifndef LK_ADAPTERS_CONVERT_H
#define LK_ADAPTERS_CONVERT_H

#include "loader.h"
#include "outgoing.h"
#include "rank_tools.h"

struct conversion {
    const struct convert_options *options;
    const char *shown;
    const struct lora_spec *spec;
    struct arena *arena;
    struct outgoing out;
    struct convert_report *report;
    double alpha; /* GGUF: of the file */
};

/* Tensors and metadata into the place, which the caller commits. */
LK_MUST_USE enum status convert_to_gguf(struct conversion *c, const struct out_place *place, const char *name,
                                        struct error *err);
LK_MUST_USE enum status convert_to_peft(struct conversion *c, const struct out_place *place,
                                        struct error *err);

/* n floats of a pair's A or B from value `begin` on. */
void convert_floats(enum dtype type, const void *data, size_t begin, size_t n, float *y);
/* Stores n floats as `type` in the arena. */
LK_MUST_USE enum status convert_store(struct conversion *c, enum dtype type, const float *values, size_t n,
                                      const void **out, struct error *err);

/* The pairs of a layer's experts at a site: [n_experts], NULL where one has none. False: no expert has one.
 */
LK_MUST_USE bool convert_find_experts(const struct conversion *c, uint32_t layer, enum lora_site site,
                                      const struct lora_pair **pairs);

#endif
