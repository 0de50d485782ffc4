/* Products of an adapter that was read without a base. Inner wall of adapters. */
#ifndef LK_ADAPTERS_RANK_H
#define LK_ADAPTERS_RANK_H

#include "content.h"
#include "linalg.h"

/* One expert's product (expert 0 of n = 1: the module's) as floats of its own. */
LK_MUST_USE enum status rank_product_init(const struct file_pair *p, uint32_t expert, struct low_rank *out,
                                          struct error *err);
void rank_product_fini(struct low_rank *x); /* fine on a zeroed one */

#endif
