/* Which modules a PEFT configuration means: lists of names, regular expressions, patterns for rank and alpha.
 * Inner wall of adapters.
 *
 * Python's `re` dialect; PCRE2's is a superset in all that module patterns use. Each match is bounded in
 * steps and memory: a pattern made to take forever ends in an error. (PEFT 0.21: tuners/tuners_utils.py
 * check_target_module_exists, utils/other.py get_pattern_key.) */
#ifndef LK_ADAPTERS_PEFT_RULES_H
#define LK_ADAPTERS_PEFT_RULES_H

#include <stdbool.h>

#include "base/error.h"

struct json_t;
struct peft_rules;

/* Reads target_modules, exclude_modules, layers_to_transform, layers_pattern, modules_to_save,
 * target_parameters, rank_pattern and alpha_pattern of a configuration, which the rules keep alive. */
LK_MUST_USE enum status peft_rules_create(struct json_t *config, const char *shown, struct peft_rules **out,
                                          struct error *err);
void peft_rules_destroy(struct peft_rules *r); /* NULL is fine */

/* True if the configuration says which modules are targeted; without (hand-made files) the tensors say it. */
bool peft_rules_have_targets(const struct peft_rules *r);
bool peft_rules_have_parameters(const struct peft_rules *r); /* target_parameters is set */

/* *targeted: whether LoRA is on the linear or embedding module at `path` (without base_model.model.).
 * `is_head`: the module is the output head, which "all-linear" leaves out. */
LK_MUST_USE enum status peft_is_targeted(const struct peft_rules *r, const char *path, bool is_head,
                                         bool *targeted, struct error *err);
/* Whether target_parameters names the parameter at `key` ("model.layers.0.mlp.experts.down_proj"). */
bool peft_is_parameter(const struct peft_rules *r, const char *key);
/* Whether modules_to_save replaces the module at `path`, alone or within a bigger one. */
bool peft_is_saved(const struct peft_rules *r, const char *path);
/* Whether target_modules or modules_to_save names an embedding the way that ensure_weight_tying looks for it:
 * the last part is embed_tokens or lm_head. */
LK_MUST_USE enum status peft_names_embedding(const struct peft_rules *r, bool *saved, bool *targeted,
                                             struct error *err);

/* alpha of the module at `path`: the first pattern in file order that matches `(.*\.)?(PATTERN)$` from the
 * path's beginning, else *out stays what it is. */
LK_MUST_USE enum status peft_pattern_alpha(const struct peft_rules *r, const char *path, double *out,
                                           struct error *err);
/* Whether a pattern gives the module at `path` this rank. PEFT sorts the keys when it writes them, so the
 * first match of the file may not be the one that was in force: any match counts. *any: one matches at all;
 * *first: the value of the first. */
struct peft_rank_found {
    bool any, fits;
    double first;
};
LK_MUST_USE enum status peft_pattern_rank(const struct peft_rules *r, const char *path, double rank,
                                          struct peft_rank_found *out, struct error *err);

#endif
