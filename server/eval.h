/* What `lorikeet eval` measures: the perplexity of a text, and how far two ways of computing it are apart.
 * docs/EVAL.md has the definitions.
 *
 * A text's tokens are cut into windows of `window` positions, each `stride` text tokens behind the one
 * before. Every window is a fresh context and begins with bos where the model's prompts do. A token is scored
 * once, in the first window that reaches it; a first token without anything before it is not scored. */
#ifndef LK_SERVER_EVAL_H
#define LK_SERVER_EVAL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/team.h"
#include "lora.h"
#include "model.h"

struct eval_text {
    const int32_t *tokens; /* [n_tokens], without bos; each below the model's vocab_size */
    size_t n_tokens;
    int32_t bos; /* first token of every window; -1: none */
    uint32_t window, stride;
};

/* The part of the text that a window covers, and the tokens in it that are scored. */
struct eval_window {
    size_t begin, score_begin, end;
};
/* The index-th window, false past the last one. */
bool eval_window_at(const struct eval_text *t, size_t index, struct eval_window *out);
/* Tokens that are scored. */
size_t eval_n_scored(const struct eval_text *t);

/* ---- one way of computing: a model, an adapter or none, pages and scratch for one window ---- */

struct eval_side {
    const struct model *model;
    const struct lora *lora;
    struct kv_cache *kv;
    struct step_space *space;
    uint32_t *pages; /* [pages of a window] */
    uint32_t n_step, n_logit_rows;
};
/* Zeroed before; keeps borrowing model, lora and team. kv_type: as --kv-type has it. */
LK_MUST_USE enum status eval_side_init(struct eval_side *s, const struct model *m, struct lora *lora,
                                       const char *kv_type, uint32_t window, struct team *team,
                                       struct error *err);
void eval_side_fini(struct eval_side *s);

/* ---- log-probabilities in a file ---- */

/* Rows of log-probabilities of the whole vocabulary, one for each scored token in order. All numbers are
 * little-endian:
 *
 *   0   "LKLOGP1\n"            24  u32 stride              80   SHA-256 of the tokens, i32 each, bos first if
 * any 8   u32 128, header bytes  28  i32 bos, -1: none       112  16 bytes: the model's digest, cut 12  u32
 * 0: f32, 1: f16     32  u64 tokens of the text  128  i32 tokens[], without bos 16  u32 vocab_size         40
 * u64 rows                     rows [rows, vocab_size] 20  u32 window             48  32 bytes: digest of the
 * adapters, zeros: none
 */
struct eval_file {
    FILE *stream;
    char path[512];
    bool f16, writes;
    uint32_t vocab;
    uint64_t n_rows, row; /* of the file; next one */
    uint8_t model_digest[16], adapter_digest[32];
    void *buffer; /* one row as stored */
};
/* Begins a file at PATH.part, which eval_file_finish gives its name. */
LK_MUST_USE enum status eval_file_create(struct eval_file *f, const char *path, const struct eval_text *t,
                                         const struct eval_side *s, struct error *err);
/* Checks every field against the text; refuses another vocabulary, other windows or other tokens by name. */
LK_MUST_USE enum status eval_file_open(struct eval_file *f, const char *path, const struct eval_text *t,
                                       uint32_t vocab, struct error *err);
LK_MUST_USE enum status eval_file_write(struct eval_file *f, const float *logprobs, struct error *err);
LK_MUST_USE enum status eval_file_read(struct eval_file *f, float *logprobs, struct error *err);
LK_MUST_USE enum status eval_file_finish(struct eval_file *f, struct error *err);
void eval_file_fini(struct eval_file *f); /* closes; what was not finished is removed */

/* ---- the measurement ---- */

struct eval_score { /* of one token */
    float logprob, ref_logprob;
    float kl; /* nats: sum over the vocabulary of p_ref (log p_ref - log p) */
    bool same_top;
};

struct eval_job {
    const struct eval_text *text;
    struct eval_side *ours;
    struct eval_side *reference;      /* or NULL */
    struct eval_file *reference_file; /* or NULL */
    struct eval_file *save;           /* or NULL */
    struct team *team;
    bool progress; /* a line on standard error now and then */
};

struct eval_mean {
    double mean, error; /* standard error of the mean */
};
struct eval_result {
    size_t n_scored, n_windows;
    double seconds;
    struct eval_mean nll, ref_nll; /* -log p of a token, nats */
    double ppl, ppl_error;         /* exp(mean nll), and times the error of the mean */
    double ref_ppl;
    struct eval_mean kl;
    double kl_median, kl_99, kl_max;
    struct eval_mean same_top; /* share of tokens */
    double rms_dp;             /* root of the mean of (p - p_ref)^2 of the scored token */
};
/* Memory: the scores of all tokens and a few rows of logits, whatever the text's length. */
LK_MUST_USE enum status eval_run(const struct eval_job *j, struct eval_result *out, struct error *err);

#endif
