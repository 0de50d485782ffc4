/* A low-rank adapter in memory: for each place in the model that it touches, A [r, in] and B [out, r], so
 * that y = W x + scale * B (A x) (Hu et al., arXiv 2106.09685, eq. 3). Immutable after building and
 * reference-counted; the one thing on which adapters and engine meet. Core knows no adapter names. */
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

/* The linear modules that an adapter may touch. */
#define LORA_SITE_LIST(X)                                                                                    \
    X(Q, "q_proj")                                                                                           \
    X(K, "k_proj")                                                                                           \
    X(V, "v_proj")                                                                                           \
    X(O, "o_proj")                                                                                           \
    X(GATE, "gate_proj")                                                                                     \
    X(UP, "up_proj")                                                                                         \
    X(DOWN, "down_proj")                                                                                     \
    X(LM_HEAD, "lm_head")
enum lora_site {
#define LORA_SITE_ENUM(name, text) LORA_SITE_##name,
    LORA_SITE_LIST(LORA_SITE_ENUM)
#undef LORA_SITE_ENUM
        LORA_SITE_COUNT
};
const char *lora_site_name(enum lora_site s);
bool lora_site_find(const char *name, enum lora_site *out);

/* Sites that read the same input share one stacked A, so that t = A x is computed once for all of them. */
enum lora_group_id { LORA_GROUP_QKV, LORA_GROUP_O, LORA_GROUP_GATE_UP, LORA_GROUP_DOWN, LORA_GROUP_COUNT };

struct lora_part {
    struct packed b;   /* [out, rank]; b.data NULL: this site is untouched */
    uint32_t t_offset; /* first row of its A in the group's stacked A; a multiple of 4 */
    uint32_t rank;
    float scale;
};
struct lora_group {
    struct packed a; /* [sum of padded ranks, in]; a.data NULL: no part in this group */
    struct lora_part part[3];
};
struct lora_layer {
    struct lora_group group[LORA_GROUP_COUNT];
};

struct lora {
    atomic_uint refs; /* any thread */
    const struct model *model;
    uint8_t digest[32]; /* SHA-256 of the content that it was built from */
    uint32_t n_layers;
    uint32_t rank_max; /* largest rank of a part */
    uint32_t t_max;    /* most rows of a stacked A: scratch per batch row */
    uint64_t n_parameters;
    size_t size_bytes;         /* resident: struct and packed data */
    struct lora_layer *layers; /* [n_layers] */
    struct lora_group lm_head; /* part[0] only */
    void *memory;              /* packed data, one block in execution order */
};

/* One A/B pair as an adapter file has it, row-major. Borrowed during lora_build. */
struct lora_pair {
    enum lora_site site;
    uint32_t layer;            /* 0 for LM_HEAD */
    enum dtype a_type, b_type; /* F32 F16 BF16 */
    const void *a;             /* [rank, in] */
    const void *b;             /* [out, rank], rows in Hugging Face order */
    uint32_t rank, in, out;
    float scale; /* alpha / rank (rsLoRA: alpha / sqrt(rank)) times the user's scale */
};

/* Checks shapes against the model (site, layer, in, out), packs, and returns one reference. STATUS_MISMATCH
 * names the module. Thread: any (workers). A pair given twice is refused. */
LK_MUST_USE enum status lora_build(const struct model *m, const struct lora_pair *pairs, size_t n_pairs,
                                   const uint8_t digest[32], struct lora **out, struct error *err);
struct lora *lora_acquire(struct lora *l); /* returns l; NULL stays NULL */
void lora_release(struct lora *l);         /* the last one frees; NULL is fine. Thread: any */

#endif
