/* Parts of the configuration reader. Inner wall of core/format. */
#ifndef LK_FORMAT_MODEL_CONFIG_H
#define LK_FORMAT_MODEL_CONFIG_H

#include "fields.h"
#include "format.h"

/* A rotary description with nothing in it but transformers' neutral values. */
void rope_config_init(struct rope_config *r, double theta);
/* Fills out->rope and out->rope_local from rope_parameters, or rope_theta and rope_scaling; wants head_dim,
 * max_position and model_type to be known. Failures are recorded in `f`. */
void model_config_read_rope(struct fields *f, double theta_default, struct model_config *out);

/* quantization_config, if there is one: refuses what isn't F8 weights, else fills out->f8 and its block size.
 * Failures are recorded in `f`. */
void model_config_read_quantization(struct fields *f, struct model_config *out);

/* What must hold for any configuration, whichever file it came from. */
LK_MUST_USE enum status model_config_check(const struct model_config *c, const char *shown,
                                           struct error *err);

#endif
