/* adapter_config.json of PEFT. Inner wall of adapters. */
#ifndef LK_ADAPTERS_PEFT_CONFIG_H
#define LK_ADAPTERS_PEFT_CONFIG_H

#include "adapters.h"
#include "format.h"

struct peft_config {
    double rank, alpha; /* r and lora_alpha, before patterns */
    bool rslora;
    bool has_rank_pattern;
    bool ties_weights; /* ensure_weight_tying */
    char base_model[160];
    struct alpha_patterns *patterns; /* NULL: none */
};

/* Refuses by name everything that would change the numbers and that we don't do. `config` is borrowed for the
 * call. peft_config_fini takes a failed one too. */
LK_MUST_USE enum status peft_config_parse(const struct json_t *config, const char *shown,
                                          struct peft_config *out, struct error *err);
void peft_config_fini(struct peft_config *c);

/* alpha of the module at `path` (without base_model.model.): PEFT's rule, the first pattern in file order
 * that matches `(.*\.)?(PATTERN)$` from the path's beginning, else lora_alpha. */
LK_MUST_USE enum status peft_alpha(const struct peft_config *c, const char *path, double *out,
                                   struct error *err);

#endif
