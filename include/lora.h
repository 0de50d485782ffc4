/* An adapter in memory: what it adds to, or puts in the place of, the modules of a base. Mostly pairs A [r,
 * in] and B [out, r], so that y = W x + scale * B (A x) (Hu et al., arXiv 2106.09685, eq. 3). Immutable after
 * building and reference-counted; the one thing on which adapters and engine meet. Core knows no adapter
 * names. */
#ifndef LK_LORA_H
#define LK_LORA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"
#include "kernels.h"

struct model;

/* ---- places in a base ---- */

/* The matrix products of the pass. A family that stores some of them as one fused tensor (phi3's qkv_proj,
 * gpt2's c_attn) has them apart in memory: each output row is a sum of its own. */
#define LORA_SITE_LIST(X)                                                                                    \
    X(Q, "q_proj")                                                                                           \
    X(K, "k_proj")                                                                                           \
    X(V, "v_proj")                                                                                           \
    X(O, "o_proj")                                                                                           \
    X(GATE, "gate_proj")                                                                                     \
    X(UP, "up_proj")                                                                                         \
    X(DOWN, "down_proj")                                                                                     \
    X(ROUTER, "router")                                                                                      \
    X(LM_HEAD, "lm_head")
enum lora_site {
#define LORA_SITE_ENUM(name, text) LORA_SITE_##name,
    LORA_SITE_LIST(LORA_SITE_ENUM)
#undef LORA_SITE_ENUM
        LORA_SITE_COUNT
};
const char *lora_site_name(enum lora_site s);
bool lora_site_find(const char *name, enum lora_site *out);

/* The norms of a layer, and the one before the head. */
enum norm_id {
    NORM_ATTN_IN,
    NORM_ATTN_OUT,
    NORM_FFN_IN,
    NORM_FFN_OUT,
    NORM_Q,
    NORM_K,
    NORM_LAYER_COUNT,
    NORM_FINAL = NORM_LAYER_COUNT,
    NORM_COUNT
};

/* A module of the base, as Hugging Face files and PEFT call it by its path; model_module_parse makes one. */
enum module_kind {
    MODULE_LINEAR,  /* sites site … site + n_sites - 1, their output rows one below another */
    MODULE_EMBED,   /* the token embedding: out = hidden_size, in = vocab_size */
    MODULE_NORM,    /* out = its length, in = 0 */
    MODULE_EXPERTS, /* a layer's experts with their fused bare parameters; no linear module itself: out = an
                       expert's feed-forward size, in = hidden_size */
};
struct model_module {
    enum module_kind kind;
    uint32_t layer;      /* 0 outside layers */
    int32_t expert;      /* LINEAR: index of the expert that it belongs to, or -1 */
    enum lora_site site; /* LINEAR: the first */
    uint32_t n_sites;    /* LINEAR: 1 to 3 */
    enum norm_id norm;   /* NORM */
    uint32_t out,
        in; /* LINEAR: the whole weight is [out, in] (never transposed, even if the file has it so) */
};

/* ---- what an adapter is built from; borrowed during lora_build, rows in Hugging Face order ---- */

/* One A/B pair, row-major. EMBED: e += scale * B a, where `a` is [in, rank]: a row for each token (the
 * transpose of PEFT's lora_embedding_A). */
struct lora_pair {
    struct model_module module; /* LINEAR or EMBED */
    enum dtype a_type, b_type;  /* F32 F16 BF16 */
    const void *a;              /* [rank, in] */
    const void *b;              /* [out, rank] */
    uint32_t rank, in, out;     /* what the file has; checked against the base */
    float scale; /* alpha / rank (rsLoRA: alpha / sqrt(rank)); a user's own scale is a composition's weight */
    const float *b_bias; /* [out] or NULL; lora_bias: y += scale * (B A x + b_bias) */
    /* [out] or NULL. DoRA (arXiv 2402.09353, eq. 5): y = m / |W + scale B A| * (W x + scale B A x) + bias,
     * the norm over each output row; taken here from the base's stored weights. EMBED: per embedding
     * dimension, the norm over the vocabulary. */
    const float *magnitude;
};

/* A tensor that stands in the place of the base's (modules_to_save, trained biases). */
struct lora_tensor {
    struct model_module module; /* LINEAR, EMBED or NORM */
    bool is_bias;               /* of the module; else its weight */
    enum dtype type;            /* F32 F16 BF16 */
    const void *data;           /* weight of LINEAR: [out, in]; of EMBED: [vocab, hidden]; vectors: [out] */
    uint32_t rows, cols;        /* what the file has; cols 0: a vector */
};

/* How A and B are kept. */
enum lora_store {
    LORA_STORE_FILE, /* in the types that the pairs have; DoRA's B as f32 */
    /* As i8 with an f32 scale for each row and 128 values (for lora_B: each row, up to rank 128): scale =
     * largest / 127, so a value is off by at most half of that. DoRA's factors are in B before it is rounded.
     * Where lora_rounds is true, A is Q8_0 (an f16 scale for each row and 32 values) and meets the rounded
     * activations that the base's weights meet, and t = A x is rounded too before it meets B: as fast as it
     * gets.
     */
    LORA_STORE_INT8,
    /* As LORA_STORE_INT8 has it where lora_rounds is true, else as LORA_STORE_FILE. */
    LORA_STORE_AUTO,
};

struct lora_spec {
    enum lora_store store;
    const struct lora_pair *pairs;
    size_t n_pairs;
    const struct lora_tensor *tensors;
    size_t n_tensors;
    /* Single rows of the embedding that are replaced (PEFT's trainable_token_indices), before the family's
     * scale. With a tied head, or ids_in_head, its rows are replaced as well. */
    const int32_t *row_ids;
    const float *rows; /* [n_rows, hidden_size] */
    size_t n_rows;
    bool rows_in_head;
    /* The head's own replaced rows (token indices of lm_head); with them row_ids are the embedding's alone,
     * tied or not. */
    const int32_t *head_row_ids;
    const float *head_rows; /* [n_head_rows, hidden_size] */
    size_t n_head_rows;
    /* Activated LoRA (arXiv 2504.12397): acts from the last whole occurrence of these tokens in the prompt
     * on; without one the answer is the base's. 0: always active. */
    const int32_t *invocation;
    size_t n_invocation;
};

/* ---- in memory ---- */

/* Sites that read the same input share one stacked A, so that t = A x is computed once for all of them. */
enum lora_group_id {
    LORA_GROUP_QKV,
    LORA_GROUP_O,
    LORA_GROUP_GATE_UP,
    LORA_GROUP_DOWN,
    LORA_GROUP_ROUTER,
    LORA_GROUP_COUNT
};

struct lora_part {
    struct packed b;   /* [out, rank]; b.data NULL: this site is untouched */
    bool rounds;       /* A is Q8_0 and B is I8: x and t are met as whole numbers */
    uint32_t t_offset; /* first row of its A in the group's stacked A; a multiple of 4; parts of one fused
                          module share their A */
    uint32_t rank;
    float scale;            /* alpha / rank; with `rounds` times the power of two that A lacks */
    const float *bias;      /* [out]: is added to y (scale and DoRA's factor are in it); or NULL */
    const float *magnitude; /* [out] DoRA's m / norm: W x is multiplied by it (B has it inside); or NULL */
};
struct lora_group {
    struct packed a; /* [sum of padded ranks, in]; a.data NULL: no part in this group */
    struct lora_part part[3];
};

/* What stands in the place of a layer's weights and vectors; NULL or data NULL: the base's stays. */
struct lora_replaced {
    struct packed w[LORA_SITE_COUNT];
    const float *bias[LORA_SITE_COUNT];
    const float *norm[NORM_COUNT], *norm_bias[NORM_COUNT];
};
struct lora_layer {
    struct lora_group group[LORA_GROUP_COUNT];
    struct lora_group *experts;     /* [n_experts, 2]: GATE_UP and DOWN of each; NULL: untouched */
    struct lora_replaced *replaced; /* NULL: nothing */
};

/* Single token rows in the place of the base's. */
struct lora_rows {
    uint32_t n;
    const int32_t *ids; /* [n] ascending */
    struct packed w;    /* [n, hidden] */
};
/* The embedding's part. */
struct lora_embedding {
    struct packed table;    /* [vocab, hidden] in the place of the base's; data NULL: the base's */
    struct packed a, b;     /* [vocab, rank], [hidden, rank]; b.data NULL: no pair */
    float scale;            /* of the pair */
    const float *magnitude; /* [hidden] DoRA, or NULL */
    struct lora_rows rows;
};

#define LORA_MEMBERS_MAX 8U

struct lora {
    atomic_uint refs; /* any thread */
    const struct model *model;
    uint8_t digest[32]; /* SHA-256 of the content that it was built from */
    uint32_t n_layers;
    uint32_t rank_max; /* largest rank of a part */
    uint32_t t_max;    /* most rows of a stacked A: scratch per batch row */
    uint64_t n_parameters;
    size_t size_bytes; /* resident: structs and packed data; a composition's members are not counted */
    struct lora_layer *layers;  /* [n_layers] */
    struct lora_group lm_head;  /* part[0] only */
    struct lora_rows head_rows; /* of the head's matrix: the embedding's on a tied base, or its own */
    struct lora_replaced *ends; /* lm_head and the final norm; NULL: nothing */
    struct lora_embedding embed;
    int32_t *invocation; /* [n_invocation] */
    uint32_t n_invocation;
    bool replaces; /* tensors of the base: `ends`, a layer's `replaced`, the embedding's table or rows */
    void *memory;  /* packed data, one block in execution order */

    /* A composition: the weighted sum of its members' deltas; it has nothing of its own. */
    uint32_t n_members;
    struct lora_member {
        struct lora *lora;
        float weight;
    } members[LORA_MEMBERS_MAX];
};

/* Whether the base's weights of this module meet activations that are rounded to int8, so that an adapter's
 * may as well. Thread: any. */
bool lora_rounds(const struct model *m, const struct model_module *module);
/* Checks everything against the model (places, shapes, finite scales), packs, and returns one reference.
 * STATUS_MISMATCH names the module. A place given twice is refused. Thread: any (workers). */
LK_MUST_USE enum status lora_build(const struct model *m, const struct lora_spec *spec,
                                   const uint8_t digest[32], struct lora **out, struct error *err);
/* y = W x + sum of weights[i] * (what loras[i] alone adds): exactly the deltas' weighted sum, ranks side by
 * side, as PEFT's add_weighted_adapter("cat") has it. Takes references of its own; the digest is that of the
 * members' digests and weights. STATUS_UNSUPPORTED for a member that replaces tensors with a weight that is
 * neither 0 nor, alone, 1, and for one with invocation tokens beside others. n: 1 to LORA_MEMBERS_MAX.
 * Thread: any. */
LK_MUST_USE enum status lora_compose(struct lora *const *loras, const float *weights, uint32_t n,
                                     struct lora **out, struct error *err);
/* Position of the first token that the adapter acts on, given the whole prompt: 0 without invocation tokens,
 * else where their last whole occurrence begins; UINT32_MAX if there is none. */
uint32_t lora_begin(const struct lora *l, const int32_t *prompt, uint32_t n_prompt);
struct lora *lora_acquire(struct lora *l); /* returns l; NULL stays NULL */
void lora_release(struct lora *l);         /* the last one frees; NULL is fine. Thread: any */

#endif
