/* What the files of this room share: the model in memory, the family table and the loader's steps. */
#ifndef LK_MODEL_INNER_H
#define LK_MODEL_INNER_H

#include "model.h"

#define N_LAYER_SITES ((unsigned)LORA_SITE_LM_HEAD) /* the sites before it live in layers */
#define ROPE_HALF_MAX 256U                          /* most rotated pairs of a head */

/* A linear module of a layer: the sites that its output rows are, one below another. */
struct module_name {
    const char *suffix;
    enum lora_site site;
    uint32_t n_sites;
};

/* How a file calls its tensors: MODULE ".weight" (or ".bias"), in layers PREFIX layer "." suffix. NULL: has
 * no such name. */
struct tensor_names {
    const char *embed, *head, *final_norm; /* paths of modules */
    const char *layer_prefix;
    const struct module_name *modules; /* ends with suffix NULL */
    const char *norm[NORM_LAYER_COUNT];
};

/* A row of the family table: everything that differs between the architectures of the shared forward pass. */
struct family {
    const char *model_type; /* transformers' */
    const char *name;
    const struct tensor_names *names; /* of Hugging Face files; GGUF files have one set for all */
    float norm_offset;                /* norms multiply by w + this; GGUF stores the sum already */
    bool qkv_bias;                    /* q, k, v always have a bias; else the config's attention_bias says */
    bool qk_norm;                     /* RMS norm of each q and k head before the rotation */
    bool post_norms;                  /* norms behind attention and feed-forward, before the residual */
    bool scale_embedding;             /* by sqrt(hidden_size) */
    bool gguf_permuted;               /* GGUF stores q and k rows for interleaved rotary pairs */
};
const struct family *family_find(const char *model_type); /* NULL if unknown */
void family_list(char *dst, size_t dst_bytes);            /* "llama, mistral, …" */
extern const struct tensor_names gguf_names;

/* Rotary tables of one kind of layer (rope.c). */
struct rope {
    enum rope_type type;
    uint32_t n_half;                    /* rotated pairs: n_rot / 2 */
    float scale;                        /* yarn: cos and sin are multiplied by it */
    double theta, factor, max_position; /* dynamic */
    float inv_freq[ROPE_HALF_MAX];
};
LK_MUST_USE enum status rope_init(struct rope *r, const struct rope_config *c, uint32_t head_dim,
                                  uint32_t max_position, struct error *err);
/* cos and sin of one position's angles: [n_half] each. */
void rope_row(const struct rope *r, uint32_t position, float *cos_out, float *sin_out);

struct model_layer {
    struct packed w[LORA_SITE_LM_HEAD];
    float *bias[LORA_SITE_LM_HEAD]; /* [rows] or NULL */
    float *norm[NORM_LAYER_COUNT];  /* [hidden] or [head_dim]; NULL where the family has none */
    uint32_t window;                /* 0: full attention */
    uint8_t rope;                   /* index into model.rope */
};

/* Immutable after model_open. */
struct model {
    struct model_config config;
    struct model_info info;
    const struct kernels *kernels;
    const struct family *family;
    float norm_offset, embed_scale, attn_scale, residual_scale, logit_scale;
    uint32_t q_dim, kv_dim; /* n_heads * head_dim, n_kv_heads * head_dim */
    struct rope rope[2];    /* full and sliding layers */
    struct packed embed, head;
    bool tied; /* head is embed's memory */
    float *final_norm;
    struct model_layer *layers; /* [n_layers] */
};

/* weights.c: fills embed, head, norms and layers; on failure model_close frees what is there. */
LK_MUST_USE enum status weights_load(struct model *m, const struct model_files *files,
                                     const struct model_options *options, struct error *err);
/* digest.c */
LK_MUST_USE enum status model_digest(const struct model_files *files, enum quant quant, uint8_t digest[32],
                                     struct error *err);

#endif
