/* A step's scratch and plan, and what one worker of it sees. Inner wall of core/model.
 *
 * Rows are the batch's tokens, sequences with the same adapter side by side: a segment is a run of rows of
 * one adapter. Logit rows are in the caller's order. */
#ifndef LK_MODEL_STEP_H
#define LK_MODEL_STEP_H

#include <stdatomic.h>

#include "model_inner.h"

#define STEP_BLOCKS_MAX 58U

struct segment {
    const struct lora *lora; /* or NULL */
    uint32_t row_begin, row_end;
};

/* Owner: engine thread; in a step, rows, columns and heads are shared out among the team. */
struct step_space {
    const struct model *m;
    const struct model *now; /* of this step: m, or a merged copy of it */
    struct team *team;
    struct kv_shape kv;
    uint32_t n_tokens_max, n_seqs_max, n_logit_rows_max, pages_per_seq_max;

    /* activations, [n_tokens_max, …] */
    float *x;               /* [hidden] the residual stream */
    float *h;               /* [hidden] normed */
    float *q, *k, *v;       /* [q_dim] [kv_dim] [kv_dim] */
    float *att;             /* [q_dim] */
    float *y;               /* [hidden] what a half layer adds to x */
    float *gate, *up;       /* [intermediate]; gate becomes act(gate) * up; of pairs in sparse layers */
    float *cos[2], *sin[2]; /* [n_half] of each rope */
    float *final;           /* [n_logit_rows_max, hidden] */
    float *logits;          /* [n_logit_rows_max, vocab] */
    float *out;             /* this step's rows of it */
    float *peaks;           /* [n_logit_rows_max, n_peaks_of(vocab)] of logits */
    double *sums;           /* [n_logit_rows_max, STEP_SUMS, n_peaks_of(vocab)] likewise: step_sums */
    /* int8 forms, NULL: no use for them: of what the half layers and the head read (h, final, pair), and of
     * what is made in them (att, gate) */
    struct act_block *in, *mid;
    float *t; /* [rows or pairs, t_max]: A x of each row's adapter */
    uint32_t t_max;
    struct attend_plan *attend; /* attend.c's own scratch and plan */
    /* [workers, STEP_ALONE_ROWS, hidden] each worker's own x, h and y in steps of few rows (crew.alone) */
    float *alone_x, *alone_h, *alone_y;
    struct act_block *alone_in;
    struct phase_clock *clocks; /* [workers] or NULL: nobody asks where the time goes */

    /* Sparse layers (NULL in a dense model). A pair is a row at one of its experts; pairs of an expert lie
     * side by side, in the order of rows, so pairs of one adapter at an expert do too. */
    float *route;                  /* [rows, n_experts] the router's logits, then probabilities */
    uint32_t *pick;                /* [rows, n_experts_used] the row's experts, ascending */
    float *pick_weight;            /* [rows, n_experts_used] */
    uint32_t *pair_of;             /* [rows, n_experts_used] the pair of each pick */
    uint32_t *pair_row;            /* [pairs] */
    uint32_t *expert_begin;        /* [n_experts + 1] first pair of each */
    uint32_t *expert_next;         /* [n_experts] */
    uint32_t *expert_segment;      /* [n_experts + 1] where each expert's begin in */
    struct segment *pair_segments; /* [pairs] over pairs */
    float *pair;                   /* [pairs, hidden] the experts' input, later their output */

    /* the plan */
    const struct batch *batch;
    uint32_t n_rows, n_logit_rows, n_segments, n_head_segments;
    int32_t *token;                    /* [rows] */
    uint32_t *position;                /* [rows] */
    struct rope_length *length;        /* [rows] of its sequence */
    uint8_t **row_page;                /* [rows] the page that takes the row's K and V */
    const uint8_t **pages;             /* page tables of all sequences, one after another */
    const uint8_t *const **seq_pages;  /* [seqs] where each one's begins */
    const uint8_t *const **context;    /* [rows] its sequence's part of pages */
    const struct lora **row_lora;      /* [rows] its adapter, or NULL: the base */
    const struct lora **row_replacing; /* [rows] lora_replacing of it */
    uint32_t *first_row; /* [2 * seqs] of a sequence's tokens before its adapter acts, and of those behind */
    bool *placed;        /* [2 * seqs] the same */
    uint32_t *logit_row; /* [logit rows] the row that they come from */
    const float **factors;         /* [logit rows] sum_factors of its sequence */
    struct segment *segments;      /* [2 * seqs] over rows */
    struct segment *head_segments; /* [2 * seqs] over logit rows */
    atomic_uint *claims;           /* [n_layers * N_LAYER_CLAIMS + 1] pieces that were taken: crew_claim */

    void *blocks[STEP_BLOCKS_MAX]; /* all of the above but t */
    uint32_t n_blocks;
};

/* Lays out the batch for a step on `m` in `s`; ends in require() where it breaks the door's promises. */
void step_plan(struct step_space *s, const struct model *m, const struct kv_cache *kv,
               const struct batch *batch);

/* ---- a worker's view (crew.c) ---- */

/* In a step of so few rows that norms cost less than a barrier every worker makes all rows' x and h for
 * itself. */
#define STEP_ALONE_ROWS 4U

struct crew {
    struct step_space *s;
    const struct model *m;
    const struct kernels *k;
    unsigned worker, n_workers;
    bool alone;               /* the following are the worker's own, and all of their rows; else the step's */
    float *x, *h, *y, *final; /* as in struct step_space */
    struct act_block *in;
};
struct crew crew_of(struct step_space *s, unsigned worker, unsigned n_workers);

void crew_barrier(const struct crew *c);
/* A barrier in two halves: what was written before anybody's crew_arrive is seen behind crew_wait. */
unsigned crew_arrive(const struct crew *c);
void crew_wait(const struct crew *c, unsigned ticket);
/* The clock of this phase runs from now on (the barriers' own while they wait); crew_begin: nothing ran. */
void crew_phase(const struct crew *c, enum step_phase phase);
void crew_begin(const struct crew *c, enum step_phase phase);

/* A worker's share of n rows; own_rows: all of them where the worker is alone. */
void share_rows(const struct crew *c, uint32_t n, uint32_t *begin, uint32_t *end);
void own_rows(const struct crew *c, uint32_t n, uint32_t *begin, uint32_t *end);
/* Panels of a matrix that are a worker's in one place of the pass: of W's products, of B's, and of what
 * follows on their columns. */
struct panels {
    uint32_t begin, end;
};
/* A worker's even share of a matrix of so many output rows. */
struct panels share_panels(const struct crew *c, uint32_t rows);
/* Work on n units that is taken piece by piece, large pieces first: a worker that is slower than another (its
 * core has other work, or the memory is nearer to the other) takes less, and all are through at about the
 * same time. Each counter is used up in one place of a step. False: nothing is left. */
bool crew_claim(const struct crew *c, uint32_t counter, uint32_t n, struct panels *out);
/* The counters: of the places in a layer, and of the head. */
enum step_claim { CLAIM_QKV, CLAIM_O, CLAIM_FEED_IN, CLAIM_DOWN, N_LAYER_CLAIMS };
static inline uint32_t claim_in(uint32_t layer, enum step_claim place)
{
    return layer * N_LAYER_CLAIMS + place;
}

/* x as the kernels read it, [n_rows, cols] without gaps, with its int8 form. */
struct acts acts_of(const float *x, uint32_t n_rows, uint32_t cols, struct act_block *rounded);
/* Whether one of the n matrices at w wants x rounded; and rounds a share of the rows, or own_rows, if so. */
bool wants_int8(const struct crew *c, const struct packed *w, unsigned n);
void quantize_share(const struct crew *c, const struct acts *x, const struct packed *w, unsigned n);
void quantize_own(const struct crew *c, const struct acts *x, const struct packed *w, unsigned n);
/* Rounds values [at, at + n) of a row, whole blocks. */
void quantize_part(const struct crew *c, const struct acts *x, uint32_t row, uint32_t at, uint32_t n);

/* ---- forward.c ---- */

/* y = act(gate) * up; up NULL: act(gate). */
void act_mul(const struct crew *c, const float *gate, const float *up, uint32_t n, float *y);

/* ---- attention (attend.c) ---- */

/* attend.c's part of s, allocated once: false when memory is short; destroy(NULL) is fine. */
bool attend_plan_create(struct step_space *s);
void attend_plan_destroy(struct attend_plan *p);
/* Who attends to what, from the rows of s: the last part of step_plan. */
void attend_plan_rows(struct step_space *s);

/* A row's place in a layer's pages: whose K and V of one kv head go there. */
struct kv_place {
    uint32_t layer, row, kv_head;
};
void attend_store_k(const struct crew *c, struct kv_place at, const float *k);
void attend_store_v(const struct crew *c, struct kv_place at, const float *v);
/* s->att of all rows from s->q and the pages: to be called by all workers between two barriers. */
void attend(const struct crew *c, uint32_t layer);
/* Called by it for every row and kv head whose part of s->att is finished (forward.c). */
void attended(const struct crew *c, uint32_t layer, uint32_t row, uint32_t kv_head);

/* ---- experts (experts.c) ---- */

/* s->y of this worker's rows for a sparse layer, from the normed rows in s->h: to be called by all workers,
 * behind a barrier; experts_sum gives a row's y behind the next one. */
void experts_run(const struct crew *c, uint32_t layer);
void experts_sum(const struct crew *c, uint32_t row);

/* ---- the adapters' part (lora_apply.c) ---- */

/* One place of the pass: the segments that are there, and the group in a layer (LORA_GROUP_COUNT: lm_head).
 */
struct lora_place {
    const struct segment *segments;
    uint32_t n_segments;
    uint32_t layer;
    int32_t expert; /* -1: not in an expert */
    unsigned group;
    struct panels own[3]; /* by part of the group: q k v, gate up, else the first alone; while a place's work
                             is claimed piece by piece, those of the piece */
    uint32_t row_begin, row_end; /* no others of the segments' rows are meant (lora_shrink: all are) */
};
/* That of the batch's rows in a layer, no panels yet (forward.c). */
struct lora_place place_in(const struct crew *c, uint32_t layer, enum lora_group_id group);
/* The adapter whose replaced tensors hold for a row of `l`: itself, a composition's only member (with weight
 * 1; its other weight is 0), or NULL for none. */
static inline const struct lora *lora_replacing(const struct lora *l)
{
    if (l && l->n_members == 1)
        l = l->members[0].weight == 1 ? l->members[0].lora : NULL;
    return l && l->replaces ? l : NULL;
}
/* y[:, own panels] = W x, W being the adapter's where it replaces the base's `w`. */
void lora_linear(const struct crew *c, const struct lora_place *p, enum lora_site site,
                 const struct packed *w, const struct acts *x, float *y);
/* Around lora_linear: begin computes this worker's share of t where an adapter has something here; ready
 * waits until all shares are there and says whether lora_expand has something to do. */
struct low_rank {
    bool any, is_complete;
    unsigned ticket;
};
struct low_rank low_rank_begin(const struct crew *c, const struct lora_place *p, const struct acts *x);
bool low_rank_ready(const struct crew *c, struct low_rank *t);
/* A product of a place: y: [rows, w->rows]. */
struct product {
    enum lora_site site;
    const struct packed *w;
    const struct acts *x;
    float *y;
};
/* y[:, own panels] = W x with the adapters' part, of n sites of the place; the same sums as lora_linear's and
 * lora_expand's behind it. */
void lora_project(const struct crew *c, const struct lora_place *p, const struct product *of, unsigned n,
                  struct low_rank *t);
/* True if any adapter of the batch has something here: the same answer for all workers. */
bool lora_any(const struct lora_place *p);
/* t = A x for this worker's share; read by lora_expand after a barrier. Called before lora_linear, so that
 * nobody waits at that barrier's second half. */
void lora_shrink(const struct crew *c, const struct lora_place *p, const struct acts *x);
/* y += scale * B t of one part, DoRA's factors and lora_B's bias, for the worker's own
 * panels. y: [rows, out]. */
void lora_expand(const struct crew *c, const struct lora_place *p, unsigned part, uint32_t out, float *y);
/* What a row's adapter puts in the place of the base's vector; NULL: nothing. layer is ignored for
 * NORM_FINAL. */
const float *lora_norm(const struct crew *c, uint32_t row, uint32_t layer, enum norm_id norm);
const float *lora_norm_bias(const struct crew *c, uint32_t row, uint32_t layer, enum norm_id norm);
const float *lora_bias(const struct crew *c, uint32_t row, uint32_t layer, enum lora_site site);
/* The embedding of a row's token with its adapter's part, before the family's scale. x: [hidden_size] */
void lora_embed(const struct crew *c, uint32_t row, float *x);
/* Logits of the token rows that adapters replace, in this worker's columns; behind lora_linear, before
 * lora_expand. */
void lora_head_rows(const struct crew *c, const struct lora_place *p, const struct acts *x, uint32_t out,
                    float *y);

#endif
