/* adapter_config.json of PEFT. Inner wall of adapters. */
#ifndef LK_ADAPTERS_PEFT_CONFIG_H
#define LK_ADAPTERS_PEFT_CONFIG_H

#include "adapters.h"
#include "format.h"
#include "peft_rules.h"

enum peft_bias { PEFT_BIAS_NONE, PEFT_BIAS_ALL, PEFT_BIAS_LORA_ONLY };

struct peft_config {
    double rank, alpha; /* r and lora_alpha, before patterns */
    bool rslora;
    bool dora;
    bool lora_bias;
    enum peft_bias bias;
    bool ties_weights; /* ensure_weight_tying */
    char base_model[160];
    int32_t *invocation; /* [n_invocation] of alora_invocation_tokens */
    size_t n_invocation;
    struct json_t *tokens; /* trainable_token_indices: a list, or an object of lists; NULL: none */
    struct peft_rules *rules;
};

/* Refuses by name everything that would change the numbers and that we don't do. `config` is borrowed for the
 * call; the result keeps a reference. peft_config_fini takes a failed one too. */
LK_MUST_USE enum status peft_config_parse(struct json_t *config, const char *shown, struct peft_config *out,
                                          struct error *err);
void peft_config_fini(struct peft_config *c);

/* alpha / rank of the module at `path` (without base_model.model.), or alpha / sqrt(rank) with rsLoRA. */
LK_MUST_USE enum status peft_scale(const struct peft_config *c, const char *path, double rank, double *out,
                                   struct error *err);
/* *fits: r, or a pattern that matches the path, says this rank; *expected: what it says first. */
LK_MUST_USE enum status peft_rank_fits(const struct peft_config *c, const char *path, double rank, bool *fits,
                                       double *expected, struct error *err);

#endif
