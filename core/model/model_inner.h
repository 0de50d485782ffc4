/* What the files of this room share: the model in memory, the family table and the loader's steps. */
#ifndef LK_MODEL_INNER_H
#define LK_MODEL_INNER_H

#include "model.h"
#include "packed_file.h"

#define N_LAYER_SITES ((unsigned)LORA_SITE_LM_HEAD) /* the sites before it live in layers */
#define ROPE_HALF_MAX 256U                          /* most rotated pairs of a head */

/* A linear module of a layer: the sites that its output rows are, one below another. */
struct module_name {
    const char *suffix;
    enum lora_site site;
    uint32_t n_sites;
};

/* How files call the tensors of a layer's experts. One of an expert: one[i] index tail[i]. All of them
 * stacked, [n_experts, out, in]: stacked[i], or gate and up below each other in stacked_gate_up. i: gate, up,
 * down. */
struct expert_names {
    const char *router;  /* module; NULL ends a list of these */
    const char *experts; /* module of them all; NULL: has no such name */
    const char *one[3], *tail[3];
    const char *stacked[3], *stacked_gate_up; /* whole names of tensors, or NULL */
};

/* How a file calls its tensors: MODULE ".weight" (or ".bias"), in layers PREFIX layer "." suffix. NULL: has
 * no such name. */
struct tensor_names {
    const char *root; /* what all paths begin with and some files leave out; "" */
    const char *embed, *position_embed, *head, *final_norm; /* paths of modules */
    const char *layer_prefix;
    const struct module_name *modules;  /* ends with suffix NULL */
    const struct module_name *also;     /* the same sites fused or apart, as other files have them */
    const struct expert_names *experts; /* NULL: the family has none */
    const char *norm[NORM_LAYER_COUNT];
};

/* A row of the family table: everything that differs between the architectures of the shared forward pass. */
struct family {
    const char *model_type; /* transformers' */
    const char *name;
    const struct tensor_names *names; /* of Hugging Face files */
    const struct tensor_names *gguf;  /* of GGUF files; NULL: the usual ones */
    unsigned norms;                   /* bits 1 << NORM_…: the norms of a layer */
    float norm_offset;                /* norms multiply by w + this; GGUF stores the sum already */
    bool layer_norm;                  /* norms are LayerNorm with a bias, not RMS norm */
    bool wide_qk_norm;                /* q and k norm over all heads together, not over each */
    bool qkv_bias, all_bias; /* q, k, v, or all linear modules, always have a bias; else the config says */
    bool no_gate;            /* feed-forward is down(act(up)), not down(act(gate) * up) */
    bool no_rope;            /* positions are learned embeddings */
    bool conv1d;             /* Hugging Face files have weights as [in, out] (transformers' Conv1D) */
    bool scale_embedding;    /* by sqrt(hidden_size) */
    bool gguf_permuted;      /* GGUF stores q and k rows for interleaved rotary pairs */
};
const struct family *family_find(const char *model_type); /* NULL if unknown */
void family_list(char *dst, size_t dst_bytes);            /* "llama, mistral, …" */

/* Rotary tables of one kind of layer (rope.c). */
struct rope {
    enum rope_type type;
    uint32_t n_half;                    /* rotated pairs: n_rot / 2 */
    float scale;                        /* yarn: cos and sin are multiplied by it */
    double theta, factor, max_position; /* dynamic; longrope: max_position of the short factors */
    float inv_freq[ROPE_HALF_MAX];
    float long_freq[ROPE_HALF_MAX]; /* longrope: beyond max_position */
};
/* What angles may depend on besides the position. */
struct rope_length {
    uint32_t n_prompt, n_known;
};
LK_MUST_USE enum status rope_init(struct rope *r, const struct rope_config *c, uint32_t head_dim,
                                  uint32_t max_position, struct error *err);
/* cos and sin of one position's angles: [n_half] each. */
void rope_row(const struct rope *r, uint32_t position, struct rope_length length, float *cos_out,
              float *sin_out);

/* How one file calls its tensors: naming.c. */
#define NAME_BYTES 160
struct naming {
    const struct model *m;
    const struct tensors *tensors; /* NULL: no file, the family's first choice of names */
    const struct tensor_names *names;
    bool bare; /* the file leaves out names->root */
};
void naming_init(struct naming *n, const struct model *m, const struct tensors *tensors,
                 const struct tensor_names *names);
/* kind: "weight", "bias", or "" for a tensor whose name is the path alone. */
void naming_set(const struct naming *n, const char *module, const char *kind, char name[NAME_BYTES]);
void naming_layer(const struct naming *n, uint32_t layer, const char *suffix, const char *kind,
                  char name[NAME_BYTES]);
bool naming_layer_has(const struct naming *n, uint32_t layer, const char *suffix, const char *kind);
/* The module that begins at this site as the file has it: fused or apart. NULL: there can be none. */
const struct module_name *naming_module(const struct naming *n, uint32_t layer, enum lora_site site);
/* The names that the file has for a layer's experts; the first ones if it has no router. */
const struct expert_names *naming_experts(const struct naming *n, uint32_t layer);

struct model_layer {
    struct packed w[LORA_SITE_LM_HEAD]; /* data NULL where a dense or sparse layer has no such site */
    struct packed *experts;             /* [n_experts, 3] gate, up, down; NULL: a dense layer */
    float *bias[LORA_SITE_LM_HEAD];     /* [rows] or NULL */
    float *norm[NORM_LAYER_COUNT];      /* [norm_length]; NULL where the family has none */
    float *norm_bias[NORM_LAYER_COUNT];
    float attn_scale; /* logits = attn_scale * q.k */
    uint32_t window;  /* 0: full attention */
    uint8_t rope;     /* index into model.rope */
};

/* Immutable after model_open. */
struct model {
    struct packed_key key;     /* what the weights were made from */
    struct packed_parts parts; /* all of them, in the order of loading; empty in a merged copy */
    struct packed_map *map;    /* the packed file that they come from; NULL: memory of their own */
    struct model_config config;
    struct model_info info;
    const struct kernels *kernels;
    const struct family *family;
    float norm_offset, embed_scale, residual_scale, logit_scale;
    uint32_t q_dim, kv_dim; /* n_heads * head_dim, n_kv_heads * head_dim */
    struct rope rope[2];    /* full and sliding layers */
    struct packed embed, head;
    struct packed position_embed; /* [max_position, hidden]; data NULL: none */
    bool tied;                    /* head is embed's memory */
    float *final_norm, *final_norm_bias;
    struct model_layer *layers; /* [n_layers] */
    struct prefetch_policy prefetch;
    struct merged *merged;    /* what a merged copy owns, all else is its base's; NULL: no merged copy */
    const struct model *base; /* of a merged copy; else NULL */
};
/* Whether a layer has a site: with experts it has a router in the place of gate, up and down. */
bool layer_has_site(const struct model *m, uint32_t layer, enum lora_site site);
/* Shape of an expert's matrix i (gate, up, down). */
void expert_shape(const struct model *m, unsigned i, uint32_t *out_rows, uint32_t *in_cols);
/* Values of a norm of this model: hidden_size, or for q and k norms head_dim or all heads. */
uint32_t norm_length(const struct model *m, enum norm_id norm);
/* The names that the tensors of the model's file have. */
const struct tensor_names *file_names(const struct model *m);

/* weights.c: fills embed, head, norms and layers, from m->map if there is one; on failure model_close frees
 * what is there. */
LK_MUST_USE enum status weights_load(struct model *m, const struct model_files *files,
                                     const struct model_options *options, struct error *err);
void weights_free(struct model *m); /* model.c: and the map that they come from */
/* prefetch_policy.c: fills m->prefetch, measuring with `team` (NULL: the caller alone). Weights are in place;
 * where memory or the budget is short, nothing is measured. */
void prefetch_policy_choose(struct model *m, struct team *team, int64_t budget_ns);
/* Which choice to take, from the time of each (0: out of the question) and the usual one, which is kept
 * unless another is clearly faster. */
unsigned prefetch_best(const double ns[N_PREFETCH_CHOICES], unsigned usual);
static inline uint32_t prefetch_bytes(const struct model *m, enum dtype type, uint32_t n_rows)
{
    return m->prefetch.bytes[type][n_rows < 2 ? PREFETCH_ONE : n_rows < 4 ? PREFETCH_FEW : PREFETCH_MANY];
}
/* digest.c */
LK_MUST_USE enum status model_digest(const struct model_files *files, enum quant quant, uint8_t digest[32],
                                     struct error *err);
/* The same without a look at the tensors' bytes. */
LK_MUST_USE enum status model_table_digest(const struct model_files *files, enum quant quant,
                                           uint8_t digest[32], struct error *err);
/* A composition's digest, from its members' digests and weights. */
LK_MUST_USE enum status members_digest(struct lora *l, struct error *err);

/* A merged copy's digest, from those of the base and the adapter, and the type. */
LK_MUST_USE enum status merged_digest(const struct model *base, const struct lora *l, enum dtype type,
                                      uint8_t digest[32], struct error *err);
/* merge.c: model_close of a merged copy. */
void merged_close(struct model *m);

#endif
