/* The base model: packed weights and one forward pass over a batch of mixed sequences, each with its own
 * adapter or none. Immutable after loading, so any thread may read its description; model_step belongs to the
 * engine thread. */
#ifndef LK_MODEL_H
#define LK_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/team.h"
#include "format.h"
#include "kernels.h"
#include "kv_cache.h"
#include "lora.h"

struct model;

enum quant { QUANT_AUTO, QUANT_F32, QUANT_BF16, QUANT_Q8_0, QUANT_Q4_0 };

struct model_options {
    const struct kernels *kernels;
    enum quant
        quant; /* AUTO keeps what the file has; others convert the linear weights (and embeddings) at load */
    struct team *team; /* packs in parallel; only used during model_open */
    /* A file that model_write_packed wrote, or where there is none (yet); NULL: none is looked for. One that
     * fits is mapped in the place of reading and packing the source; of any other, info.not_mapped says why
     * it doesn't. */
    const char *packed_path;
};

/* Loads the weights; needs the memory that `info.size_bytes` shows. Every tensor's shape is checked; a
 * missing or surplus weight is refused by its name. `files` may be closed afterwards. */
LK_MUST_USE enum status model_open(const struct model_files *files, const struct model_options *options,
                                   struct model **out, struct error *err);
/* The same checks without reading weights, and a model that can be asked (configuration, modules, what
 * adapter files mean for it), but that no adapter is built for and no step runs on. */
LK_MUST_USE enum status model_describe(const struct model_files *files, struct model **out,
                                       struct error *err);
/* The same checks without reading weights: STATUS_OK if model_open would find family, options and tensors in
 * order. */
LK_MUST_USE enum status model_check(const struct model_files *files, struct error *err);
void model_close(struct model *m);

/* Where packed weights come from: the model's files; a packed file that is mapped; one that was read, since
 * it could change under a mapping. */
enum weights_source { WEIGHTS_PACKED, WEIGHTS_MAPPED, WEIGHTS_READ };

struct model_info {
    const char *family; /* row of the family table: "llama", "qwen2", "qwen3", "gemma3" … */
    uint64_t n_parameters;
    size_t size_bytes;      /* packed weights in memory */
    enum dtype weight_type; /* type of most linear weights */
    uint8_t digest[32];     /* of config and tensor table (names, shapes, types) and sampled weight bytes */
    enum weights_source source;
    char not_mapped[480]; /* why the packed file at packed_path isn't used; "": it is, or there is none */
};
const struct model_config *model_config(const struct model *m);
const struct model_info *model_info(const struct model *m);
const struct kernels *model_kernels(const struct model *m);
/* wanted: "auto" "f32" "f16" "bf16" "int8"; auto: f32 on an f32 base, else f16 */
enum dtype model_kv_type(const struct model *m, const char *wanted);
struct kv_shape model_kv_shape(const struct model *m, enum dtype kv_type);

/* How far before their turn a product asks the memory for weights (matmul_args.prefetch_bytes): by their type
 * and the rows that meet them. What serves best is the machine's: it is measured once, at the end of
 * model_open, on the model's own weights with the team that packed them, for each type that has enough of
 * them to matter; the others have what served well where it was measured. Speed only: no number depends on
 * it. A merged copy has its base's. Immutable. */
enum prefetch_rows { PREFETCH_ONE, PREFETCH_FEW, PREFETCH_MANY, PREFETCH_ROWS }; /* 1; 2 and 3; more */
#define PREFETCH_CHOICES                                                                                     \
    {                                                                                                        \
        0, 2304, 4608, 8704                                                                                  \
    }
#define N_PREFETCH_CHOICES 4U
struct prefetch_policy {
    uint16_t bytes[DTYPE_COUNT][PREFETCH_ROWS]; /* each one of the choices */
    bool has[DTYPE_COUNT];                      /* the model has products with weights of the type */
    bool measured[DTYPE_COUNT];
    int64_t spent_ns; /* on measuring */
};
const struct prefetch_policy *model_prefetch(const struct model *m);
/* The same for people, of the types that the model has, into dst: "q8_0 8704/8704/4608 bf16 0/0/8704". Gives
 * dst. */
const char *model_prefetch_text(const struct model *m, char *dst, size_t dst_bytes);

/* Keeps a model's packed weights for the next start, of the same program with the same source: written beside
 * `path` and renamed over what is there when all of it is on the disk. Immutable like the rest, so it may be
 * called while steps run. STATUS_FULL: the disk has no room that can be spared; STATUS_CONFLICT: another
 * process writes the same file; STATUS_CANCELLED: `stop` said so. Thread: any. */
struct packed_write_options {
    const char *path;
    bool (*stop)(void *data); /* asked before each 4 MiB; NULL: never */
    void *data;
};
LK_MUST_USE enum status model_write_packed(const struct model *m, const struct packed_write_options *o,
                                           struct error *err);

/* Shape of a site: [out, in]; false if this model has no such site (then an adapter for it doesn't fit). In a
 * model with experts GATE, UP and DOWN are those of its dense layers. */
bool model_site_shape(const struct model *m, enum lora_site site, uint32_t *out_rows, uint32_t *in_cols);
/* A Hugging Face module path ("model.layers.3.mlp.up_proj", "lm_head", "model.norm") to the module; false if
 * this model has none of that name. */
bool model_module_parse(const struct model *m, const char *path, struct model_module *out);
/* The module that holds a site of a layer (0 for LM_HEAD); false if there is none. */
bool model_module_of(const struct model *m, enum lora_site site, uint32_t layer, struct model_module *out);
/* The path of a module that one of these two gave, into dst; for messages. */
void model_module_path(const struct model *m, const struct model_module *module, char *dst, size_t dst_bytes);
/* A row of the stored weight of the embedding or of the head, into y: [hidden]. False for another module, or
 * if it is stored quantised, where the values are not the file's. */
bool model_weight_row(const struct model *m, const struct model_module *module, uint32_t row, float *y);

/* ---- merging ---- */

/* What a merged copy is. Norms are Frobenius', over all merged matrices together. */
struct merge_report {
    uint32_t n_matrices;
    size_t size_bytes; /* memory of its own: the merged matrices and vectors */
    double delta_norm; /* of what the adapter adds to W */
    double error_norm; /* of what storing W + delta in `type` rounds away */
};

/* A model with the adapter inside: W' = W + scale * B A (DoRA: m / norm * W + ..., lora_B's bias, embeddings,
 * replaced tensors, a composition's sum), each touched matrix stored anew as `type`; a step on it without an
 * adapter is the base's step with `l`, within rounding. What the adapter doesn't touch is the base's memory,
 * so `base` must outlive *out; replaced tensors are `l`'s, and *out keeps a reference to it. Rows are done in
 * slices: beside the merged matrices only a few are in memory.
 *
 * type: F32, BF16, or Q8_0 with scales of its own (rows that are no whole blocks of 32 keep the base's float
 * type). A stored weight differs from W' by at most: F32 the rounding of gemm_add_f32; BF16 2^-8 |W'|; Q8_0
 * half a step of its block and the rounding of the f16 scale, max |W'| * (1 / 254 + 2^-11) + 2^-18. Coarser
 * types are refused: steps as wide as the delta itself lose it (docs/EVAL.md has the measure). The result is
 * the same for any team.
 *
 * STATUS_UNSUPPORTED by name: an adapter with invocation tokens (it acts on a part of the positions only), a
 * bias of lora_B where the pass has no bias (lm_head). Thread: any; team (may be NULL) must be free. */
LK_MUST_USE enum status model_merge(const struct model *base, struct lora *l, enum dtype type,
                                    struct team *team, struct model **out, struct error *err);
/* NULL for a model that is no merged copy. model_info of a merged copy counts its own bytes; weight_type is
 * the base's. */
const struct merge_report *model_merge_report(const struct model *m);

/* ---- out of memory again: the tensors of a Hugging Face folder with this model in it ---- */

struct model_export;
struct export_tensor {
    const char *name;
    enum dtype type; /* of the base's file, if that is a plain float type; BF16 for what is quantised there */
    uint32_t n_dims; /* 1 to 3 */
    uint64_t shape[3];
};
/* What the folder's configuration must say otherwise than the base's. */
struct export_changes {
    bool untied; /* the head has become a matrix of its own: tie_word_embeddings is false */
    bool attention_bias,
        mlp_bias; /* biases have come: all modules of that kind have one now, zeros where new */
};
/* The tensors of m, a merged copy or a base, in names and layout of the base's files (fused as there; gpt2's
 * [in, out]); of a GGUF base in those of its family. Borrows m and files. STATUS_UNSUPPORTED for a bias for
 * which transformers' class has no place. Thread: any; reading too. */
LK_MUST_USE enum status model_export_create(const struct model *m, const struct model_files *files,
                                            struct model_export **out, struct error *err);
void model_export_destroy(struct model_export *e); /* NULL is fine */
size_t model_export_count(const struct model_export *e);
const struct export_tensor *model_export_at(const struct model_export *e, size_t index);
struct export_changes model_export_changes(const struct model_export *e);
/* n rows from row `begin` on, as floats: exactly the values that the pass uses. A row is the last dimension
 * (of a vector: one value); all dimensions before it are counted as one. */
LK_MUST_USE enum status model_export_rows(const struct model_export *e, size_t index, uint64_t begin,
                                          uint64_t n, float *y, struct error *err);

/* A merged copy that threads share by references: made on a worker, held by the front while it is wanted and
 * by the engine while a step may run on it. Immutable. The last release frees all of it, which takes
 * milliseconds: a front that doesn't want this on the engine thread keeps its reference until
 * merged_copy_refs says 1, and gives it back on a worker. Thread: any. */
struct merged_copy;
/* model_merge, and one reference to the result. */
LK_MUST_USE enum status merged_copy_create(const struct model *base, struct lora *l, enum dtype type,
                                           struct team *team, struct merged_copy **out, struct error *err);
struct merged_copy *merged_copy_acquire(struct merged_copy *c); /* returns c; NULL stays NULL */
void merged_copy_release(struct merged_copy *c);                /* NULL is fine */
/* How many hold it at this moment. Only 1 is sure to last: nobody else is left to add one. */
unsigned merged_copy_refs(const struct merged_copy *c);
const struct model *merged_copy_model(const struct merged_copy *c);
struct lora *merged_copy_lora(const struct merged_copy *c); /* the adapter inside; the copy has a reference */
enum dtype merged_copy_type(const struct merged_copy *c);   /* that its matrices are stored as */

/* ---- one step ---- */

#define STEP_SUMS 2U /* at most, of a row */

/* A sequence's part of a step: n_tokens consecutive tokens that start at position `position`; positions
 * before it are in its pages already, and pages for the new ones have been acquired. position + n_tokens is
 * at most the configuration's max_position. */
struct batch_seq {
    const struct lora *lora; /* or NULL: the base */
    const int32_t *tokens;   /* [n_tokens], checked to be < vocab_size by the caller */
    uint32_t n_tokens, position;
    const uint32_t *pages; /* [ceil((position + n_tokens) / KV_PAGE_TOKENS)] */
    uint32_t logits_begin; /* logits are wanted for tokens [logits_begin, n_tokens); n_tokens: for none */
    uint32_t lora_begin;   /* the adapter acts on positions >= this one (lora_begin()); 0: on all */
    /* Some rotary scalings depend on the sequence's length. Tokens of its prompt, and all tokens known so far
     * (prompt included), whatever part of them this step has; 0: no more than this step shows. */
    uint32_t n_prompt, n_known;
    /* Its rows' sums are made for these factors, while their logits are in the cache: see step_sums. 0: none.
     * They save work of who needs them and change no number. */
    float sum_factors[STEP_SUMS];
};

/* What a step gives for the tokens whose logits are wanted. */
enum step_rows {
    STEP_LOGITS,
    STEP_LOGITS_AND_HIDDEN, /* step_hidden has their final hidden states, too */
    STEP_HIDDEN,            /* those alone: no logits are computed */
};

struct batch {
    const struct batch_seq *seqs;
    uint32_t n_seqs;
    uint32_t logits_at; /* rows of logits go behind this many of earlier steps, which stay as they are */
    enum step_rows rows;
};

/* Scratch for steps of at most n_tokens_max tokens, n_seqs_max sequences, n_logit_rows_max rows of logits and
 * adapters with stacked rank up to t_max (grown by step_reserve_rank). Nothing is allocated in model_step.
 * Owner: engine. */
struct step_space;
LK_MUST_USE enum status step_space_create(const struct model *m, const struct kv_shape *kv,
                                          uint32_t n_tokens_max, uint32_t n_seqs_max,
                                          uint32_t n_logit_rows_max, struct team *team,
                                          struct step_space **out, struct error *err);
void step_space_destroy(struct step_space *s);
/* Makes room for adapters whose lora.t_max is `t_max`; call when a request is admitted, not in the step. */
LK_MUST_USE enum status step_reserve_rank(struct step_space *s, uint32_t t_max, struct error *err);
/* Makes room for steps on `m`, a merged copy of the space's model; not in the step either. */
LK_MUST_USE enum status step_reserve_model(struct step_space *s, const struct model *m, struct error *err);

/* The longest sequence whose K and V hold while it grows. With one token more they must all be computed
 * again, from position 0 with the new n_known: longrope then has its long factors for every position (as
 * transformers' Phi3 does in generate()). UINT32_MAX: no such length. */
static inline uint32_t model_length_limit(const struct model *m)
{
    const struct rope_config *r = &model_config(m)->rope;
    return r->type == ROPE_LONGROPE ? (uint32_t)r->original_max_position : UINT32_MAX;
}
/* The K and V of a position depend on its tokens, those before, the adapter, and on this: the same for all
 * sequences of a class. 0 for most; some rotary scalings look at a sequence's length. */
static inline uint32_t model_length_class(const struct model *m, uint32_t n_prompt, uint32_t n_known)
{
    const struct model_config *c = model_config(m);
    if (c->rope.type == ROPE_LONGROPE)
        return n_known > model_length_limit(m);
    bool dynamic = c->rope.type == ROPE_DYNAMIC || c->rope_local.type == ROPE_DYNAMIC;
    return dynamic && n_prompt > c->max_position ? n_prompt : 0;
}

/* Runs the batch: writes K and V into the pages and logits rows [n_logit_rows, vocab_size] in order of
 * sequences, then tokens; *logits points to the first of them in `s` until the next step. Each row's numbers
 * depend on that row's sequence alone; its own step's K and V are read from the pages too, so chunking a
 * prompt changes nothing. Caller's bugs (sizes above the space's) end in require().
 *
 * m: the space's model, or a merged copy of it for which step_reserve_model made room; then no sequence has
 * an adapter. The pages are the same, so a sequence may change from one to the other between two steps.
 * Thread: engine. */
void model_step(const struct model *m, struct step_space *s, struct kv_cache *kv, const struct batch *batch,
                float **logits);

/* The peaks (kernels.h) of the rows of logits in `s`: [rows, n_peaks_of(vocab_size)], made with them and
 * valid as long; row 0 is that of logits_at 0. NULL: not known. Thread: engine. */
const float *step_peaks(const struct step_space *s);
/* kernels.h's peak_sums of the same rows: [rows, STEP_SUMS, n_peaks_of(vocab_size)], those of a row's i-th
 * factor where its sequence asked for some, else what was there before. NULL: none. Thread: engine. */
const double *step_sums(const struct step_space *s);

/* The hidden states behind the last norm of the rows whose logits the last step gave, or stood for: [rows,
 * hidden_size], if its batch asked for them. Thread: engine. */
const float *step_hidden(const struct step_space *s);

/* Where a step's time goes, for benchmarks. */
#define STEP_PHASE_LIST(X)                                                                                   \
    X(NORM, "norm") /* embedding, residual, norm, rounding */                                                \
    X(QKV, "qkv")   /* products, adapters' part, q/k norm, rotation, pages */                                \
    X(ATTEND, "attention")                                                                                   \
    X(O, "o")                                                                                                \
    X(FEED_IN, "gate/up") /* with what follows on its columns; all of a sparse layer */                      \
    X(DOWN, "down")                                                                                          \
    X(HEAD, "lm_head")                                                                                       \
    X(WAIT, "wait") /* at barriers */
enum step_phase {
#define STEP_PHASE_ENUM(name, text) PHASE_##name,
    STEP_PHASE_LIST(STEP_PHASE_ENUM)
#undef STEP_PHASE_ENUM
        STEP_PHASES
};
struct step_times {
    int64_t ns[STEP_PHASES]; /* sums over all workers */
    uint64_t n_barriers;
};
const char *step_phase_name(enum step_phase phase);
/* Clocks run in the steps between the two, which costs a few reads of the clock a layer. Thread: engine. */
LK_MUST_USE enum status step_time_begin(struct step_space *s, struct error *err);
void step_time_end(struct step_space *s, struct step_times *out);

#endif
