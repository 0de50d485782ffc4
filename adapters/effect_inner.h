/* What the effect test's files share. Inner wall of adapters. */
#ifndef LK_ADAPTERS_EFFECT_INNER_H
#define LK_ADAPTERS_EFFECT_INNER_H

#include "effect.h"
#include "matrices.h"
#include "model.h"

/* Squares of the base's norms, [n_layers, LORA_SITE_COUNT] (the head's in layer 0), and of one expert's
 * matrix on average. */
struct base_norms {
    double *site2, *expert2;
    double embed2;
};
LK_MUST_USE enum status base_norms_init(struct base_norms *n, const struct model *m, struct error *err);
void base_norms_fini(struct base_norms *n);

/* Fills norm and embed of the report. */
LK_MUST_USE enum status effect_norms(const struct lora *l, const struct model *m, const struct base_norms *n,
                                     struct effect_report *out, struct error *err);

/* What a probes.jsonl is read by. */
struct probes_rules {
    uint32_t vocab_size;
    uint32_t (*tokenize)(void *data, const char *text, size_t n_bytes, int32_t *tokens, uint32_t n_max);
    void *data;
};
struct probes_rules effect_probes_rules(const struct effect_probes *p);

/* The prompts of a probes.jsonl (docs/ADAPTERS.md): text is what the file holds. */
struct own_probes {
    uint32_t n;
    struct effect_probe prompts[EFFECT_PROMPTS_MAX]; /* into tokens */
    int32_t tokens[EFFECT_PROMPTS_MAX][EFFECT_TOKENS_MAX];
};
#define PROBES_FILE "probes.jsonl"
#define PROBES_BYTES_MAX ((size_t)64 << 10)
LK_MUST_USE enum status own_probes_parse(const char *text, size_t n_bytes, const char *shown,
                                         const struct probes_rules *p, struct own_probes *out,
                                         struct error *err);

/* The adapter itself and its weight, of a composition of one. */
const struct lora *effect_single(const struct lora *l, float *weight);

/* Prompts read by a model with or without an adapter. */
struct effect_pass {
    const struct model *m;
    struct team *team;
    struct kv_cache *kv;
    struct step_space *space;
    uint32_t n_tokens_max;
};
/* For prompts of at most n_tokens, and adapters up to t_max. */
LK_MUST_USE enum status effect_pass_init(struct effect_pass *p, const struct model *m, uint32_t n_tokens,
                                         uint32_t t_max, struct error *err);
void effect_pass_fini(struct effect_pass *p);
/* The last rows' logits, [effect_rows(n_tokens), vocab], until the next run. */
LK_MUST_USE enum status effect_pass_run(struct effect_pass *p, const struct lora *l,
                                        const struct effect_probe *prompt, const float **logits,
                                        struct error *err);
static inline uint32_t effect_rows(uint32_t n_tokens)
{
    return n_tokens < EFFECT_ROWS_MAX ? n_tokens : EFFECT_ROWS_MAX;
}

#endif
