/* A PEFT folder on its way in. Inner wall of adapters. */
#ifndef LK_ADAPTERS_PEFT_H
#define LK_ADAPTERS_PEFT_H

#include "content.h"
#include "peft_config.h"

struct peft {
    struct content *c;
    struct peft_config config;
};

/* Checks the rank against the configuration, by the path that patterns are matched with, and gives the scale.
 */
LK_MUST_USE enum status peft_pair_scale(const struct peft *p, const char *path, const char *tensor,
                                        uint64_t rank, float *scale, struct error *err);

/* The LoRA of a layer's experts with fused weights, which PEFT files as one pair for all of them. */
bool peft_is_experts(const struct peft *p, const struct entry *e);
LK_MUST_USE enum status peft_add_experts(struct peft *p, const struct entry *e, struct error *err);

/* Single token rows, of the embedding or of the head. */
LK_MUST_USE enum status peft_add_rows(struct peft *p, const struct entry *e, struct error *err);
LK_MUST_USE enum status peft_check_rows(struct peft *p, struct error *err);

/* The last part of a path is an embedding's or head's name. */
bool peft_is_end(const char *path);
/* A copy of the base's own weight must be of this base, but for rounding. */
LK_MUST_USE enum status peft_check_base_copy(const struct peft *p, const struct entry *e, struct error *err);
/* Every linear module that target_modules means has its LoRA. */
LK_MUST_USE enum status peft_check_whole(const struct peft *p, struct error *err);

#endif
