/* What the files of the engine share. */
#ifndef LK_ENGINE_INNER_H
#define LK_ENGINE_INNER_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/queue.h"
#include "base/team.h"
#include "engine.h"
#include "fairness.h"
#include "logprobs.h"
#include "prefix_cache.h"
#include "scheduler.h"
#include "sequence.h"
#include "speculation.h"

/* Events that fit into the outbox; a front that is slower makes the engine wait. */
#define OUTBOX_LIMIT 1024U

/* An id is a serial number above the index of its live slot. */
#define ID_SLOT_BITS 20U
#define ID_SLOT_MASK ((1U << ID_SLOT_BITS) - 1)

/* Front to engine. */
struct message {
    uint64_t id;                   /* 0: the box of merged copies has changed */
    struct submission *submission; /* moves with the message; NULL: cancel `id` */
};

/* A page that a sequence computes next. */
struct prefix_next {
    const struct submission *submission;
    struct prefix_key key;
    uint32_t parent;
    const int32_t *tokens;
};

/* A merged copy that may be used. The digest is its adapter's. */
struct merged_entry {
    uint8_t digest[32];
    struct merged_copy *copy; /* a reference */
    enum merged_use use;
    struct cost_curve merged, unmerged; /* AUTO with costs */
};
struct merged_table {
    struct merged_entry entries[MERGED_COPIES_MAX];
    uint32_t n;
};
/* What steps wanted as a whole, as running averages; an entry falls behind until its next step. */
struct traffic_entry {
    uint8_t digest[32];
    uint64_t step; /* up to which `share` is */
    double share, n_rows;
};
struct traffic {
    struct traffic_entry entries[MERGED_COPIES_MAX];
    uint32_t n;
    uint64_t n_steps;
};

/* What the front wants; the engine thread takes it over between two steps. Under a lock and not in messages,
 * because taking away must not find a full queue; whoever holds it copies a few pointers. */
struct merged_box {
    pthread_mutex_t lock; /* a leaf */
    bool has_lock;
    struct merged_table wanted;
    struct traffic traffic;  /* written by the engine thread */
    struct cost_curve curve; /* of the base, once its costs are known; ns[0] 0: not yet, or taken over */
    atomic_uint version;     /* of `wanted` and `curve` */
    atomic_bool told;        /* a message is on its way */
};

static inline uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Written by the engine thread (n_live also by the front), read by any; only counters, so all orders are
 * relaxed: nothing else is published through them. */
struct counters {
    atomic_uint n_live; /* submitted, not ended */
    atomic_uint n_running, n_paused, kv_pages_free, prefix_pages;
    atomic_uint_fast64_t n_steps, n_prompt_tokens, n_generated_tokens, n_preemptions;
    atomic_uint_fast64_t batch_rows, sum_batch_rows, step_ns, step_allocations;
    atomic_uint_fast64_t step_began_ns; /* 0: none is being made */
    atomic_uint_fast64_t n_prefix_hits, n_prefix_tokens, n_prefix_evictions;
    atomic_uint_fast64_t n_merged_steps, n_merged_tokens, n_shadow_rows, n_shadow_drops;
    atomic_uint_fast64_t n_drafted, n_drafts_right;
    atomic_uint_fast64_t wait_max_ns,
        oldest_ns; /* the latter: when the oldest came of those that wait; 0: none */
    atomic_uint_fast64_t class_wait_max_ns[2], voice_wait_max_ns[2]; /* by class: interactive, batch */
    atomic_uint_fast64_t n_late, n_yields;
};
static inline void counter_add(atomic_uint_fast64_t *c, uint64_t n)
{
    atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

/* Owner: front. An id from submit until its final event has been polled. */
struct live_slot {
    uint64_t id; /* 0: free */
    bool cancelled;
    uint32_t next_free;
};

/* Of those that wait, the first so many can start in a step; and one that pages are due to. */
#define STARTS_MAX 32U
#define CHOSEN_MAX (STARTS_MAX + 1U)
struct chosen {
    uint32_t place;     /* index of `waiting` */
    bool late, due;     /* it waited beyond the bound; it has a share of the pages, and they are within it */
    int64_t overdue_ns; /* it isn't its turn, but so long its voice has waited; 0: it is */
    uint32_t n_lacks;   /* pages of its caller's share that others must give back first: overdue ones alone */
};

#define ROW_NONE UINT32_MAX

/* One row of logits of a step and what is made of it. */
struct row {
    struct sequence *sequence;
    int32_t scored;              /* the prompt token that came next, or -1: sample one */
    int32_t token;               /* the result */
    uint32_t depth;              /* drafts of this step that stand before it */
    uint32_t shadow;             /* the step's row of logits that the shadow gave, or ROW_NONE */
    bool non_finite;             /* no token, and the model is at fault */
    float factors[STEP_SUMS];    /* of the sums that came with it: logprobs' and sampling's */
    enum grammar_answer grammar; /* GOES_ON without one; no token at the others */
    struct logprobs logprobs;
};

struct drafts {
    enum speculation use; /* immutable */
    struct draft_tables *tables;
    struct draft_costs costs;
    uint32_t n_step;   /* tokens of this step's drafts */
    bool only_decodes; /* this step does */
};

struct engine_watch; /* engine_watch.c */

struct engine {
    /* immutable after engine_create */
    const struct model *model;
    const struct text_model *text;
    struct submission_limits limits;
    uint32_t n_sequences, queue_limit, step_tokens, chunk_tokens, score_rows;
    uint32_t prompt_tokens; /* in a step that step_tokens has room for, beside those who decode */
    /* Of `sequences`: n_sequences that run or are paused in their place, and beside them those put aside,
     * as many or FAIR_ASIDE_MIN, whichever is more. */
    uint32_t n_slots;
    uint32_t n_pages; /* of the cache */
    size_t page_bytes;
    int64_t wait_bound_ns;

    struct cost_model costs; /* the front's */
    bool has_costs, prefix_off;

    /* between front and engine thread */
    struct queue *inbox;  /* struct message; has room for every live id's submission and cancellation */
    struct queue *outbox; /* struct event */
    atomic_bool stopping;
    struct counters counters;
    struct merged_box merged_box;

    /* front */
    struct live_slot *live; /* [n_live_slots] */
    uint32_t n_live_slots, first_free;
    uint64_t serial;
    pthread_t thread;
    bool has_thread;
    struct engine_watch *watch; /* NULL: one thread, nothing to decide */

    /* engine thread */
    struct team *team;
    struct kv_cache *kv;
    struct prefix_cache *prefix; /* hands out kv's pages */
    uint32_t *users;             /* [n_pages] the schedule's */
    struct step_space *space;
    struct drafts drafts;
    struct merged_table merged; /* in force */
    unsigned merged_version;
    const struct model *step_model; /* that the step runs on: the base or a copy */
    struct sequence *sequences;     /* [n_slots] at most n_sequences run, or are paused in their place */
    int32_t *token_table;           /* [n_slots, context] */
    /* [2 * n_slots + CHOSEN_MAX, pages of a context]: sequences, their followers, and what is found for
     * those that wait */
    uint32_t *page_table, *found_table; /* the latter a part of it */
    uint32_t pages_of_context;
    struct prefix_next *nexts;         /* [n_nexts] the plan's; room for n_sequences + CHOSEN_MAX */
    uint32_t n_nexts, n_running_nexts; /* the latter: of those that run, which are the first ones */
    struct submission **waiting; /* [n_waiting] in order of service; room for n_sequences + queue_limit */
    uint32_t n_waiting;
    struct fair fair;
    struct chosen chosen[CHOSEN_MAX]; /* [n_chosen] */
    uint32_t n_chosen;
    struct schedule_entry *entries; /* [n_slots + CHOSEN_MAX] */
    struct batch_seq *batch;        /* [n_sequences + SHADOWS_MAX] sequences, behind them followers */
    struct sequence **batch_owner;  /* [n_sequences + SHADOWS_MAX] */
    uint32_t n_batch, n_followers;
    struct row *rows; /* [n_sequences + score_rows] */
    uint32_t n_rows;
    float *logits;                   /* of the step, [n_rows, vocab_size] */
    struct sampler_scratch *scratch; /* [team_size] */
    char *text_in, *text_out;        /* a token's text before and after the search for stop strings */
};

/* engine_loop.c: the thread's function */
void *engine_main(void *engine);

/* engine_plan.c: what the next step does; it is not done yet */
struct schedule engine_plan(struct engine *e);

/* engine_events.c: results of a step into events, and the ends of generations */
void engine_publish(struct engine *e); /* counts for engine_stats */
void engine_emit_started(struct engine *e, const struct submission *s, bool merged);
/* The step that is being made or delivered runs on a merged copy. */
static inline bool engine_step_is_merged(const struct engine *e)
{
    return e->step_model != e->model;
}
void engine_score_row(struct engine *e, const struct row *r);
void engine_accept_row(struct engine *e, const struct row *r);

/* engine_grammar.c: what a sequence's grammar says of the next token, if it has one. Into `mask`: who may be
 * taken, the stop tokens where the text may end among them unless `early`. `depth`: of drafts behind the
 * known tokens, which were all sampled. Thread: a worker, one for each sequence at a time. */
enum grammar_answer engine_grammar_mask(struct sequence *q, uint32_t depth, bool early, uint64_t *mask);
/* Its text is whole: nothing but the end may come. */
bool engine_grammar_ends(struct sequence *q);
/* Why no token could be taken. */
void engine_grammar_error(const struct sequence *q, enum grammar_answer answer, struct error *err);
/* The final event; the submission or sequence is gone afterwards. `err` not NULL: EVENT_FAILED. */
void engine_end_waiting(struct engine *e, struct submission *s, enum finish_reason reason,
                        const struct error *err);
void engine_end_sequence(struct engine *e, struct sequence *q, enum finish_reason reason,
                         const struct error *err);

/* engine_watch.c: how many threads a step has, and whether they are pinned */
LK_MUST_USE enum status engine_watch_create(struct engine *e, const struct engine_options *o,
                                            struct error *err);
LK_MUST_USE enum status engine_watch_start(struct engine *e, struct error *err); /* its thread */
void engine_watch_stop(struct engine *e); /* before the engine thread ends */
void engine_watch_destroy(struct engine_watch *w);
/* The engine thread: it is the team's first worker; there is work again; and before a step. */
void engine_watch_joined(struct engine *e);
void engine_watch_busy(struct engine *e);
void engine_watch_apply(struct engine *e);
struct engine_threads engine_watch_threads(const struct engine *e); /* any thread */

/* engine_pool.c: embeddings */
/* What the batch that is made needs of the model. */
enum step_rows engine_pooling(const struct engine *e);
void engine_pool(struct engine *e); /* adds up what the step gave */
/* Counts a row of it; the end, if it was the last one. */
void engine_end_pooled(struct engine *e, struct sequence *q);

/* engine_merged.c: merged copies between the front and the thread */
LK_MUST_USE enum status engine_merged_init(struct engine *e, struct error *err);
void engine_merged_fini(struct engine *e);
/* Take over what the front has changed, when its message is there and before a step; they may allocate, so
 * not in one. */
void engine_merged_told(struct engine *e);
void engine_merged_sync(struct engine *e);
/* The model that the batch of n_rows runs on. With a copy, the sequences' adapters are taken out of the
 * batch.
 */
const struct model *engine_merged_choose(struct engine *e, uint32_t n_rows);

/* engine_prefix.c: sequences and the prefix cache */
struct prefix_want {
    const struct submission *submission;
    const int32_t *tokens;
    uint32_t n_known; /* of the sequence */
    uint32_t n_most;  /* tokens that may be taken: those behind need a row of logits */
};
struct prefix_want engine_prefix_want(const struct sequence *q);
/* The cached pages for these tokens into `pages`, of which the first n are known. Returns how many they are
 * now; they are not used yet. */
uint32_t engine_prefix_find(const struct engine *e, const struct prefix_want *w, uint32_t *pages, uint32_t n);
/* Uses the n first pages of q->pages, which were found, and counts their tokens as computed. */
void engine_prefix_take(struct engine *e, struct sequence *q, uint32_t n);
/* Sequences that run, and have only cached pages so far, take what others have computed meanwhile. Begins a
 * plan. */
void engine_prefix_look(struct engine *e);
/* Whether one that is served before `q` computes the page that q needs next: it's cheaper to wait for it. */
bool engine_prefix_holds(const struct engine *e, const struct sequence *q);
/* For one that waits, and of which n pages were found: the number, from 1, of the page that it needs next
 * among those that the plan's sequences compute next; n_running_nexts or below: one that runs does. 0: none
 * that is shared. */
uint32_t engine_prefix_next(struct engine *e, const struct prefix_want *w, const uint32_t *pages, uint32_t n);
/* Pages that the step has filled go into the cache. */
void engine_prefix_offer(struct engine *e, struct sequence *q);

/* engine_shadow.c: followers, which have only what the schedule leaves */
void engine_shadow_begin(struct engine *e, struct sequence *q);
/* Gives the follower's pages back; `drop`: before its time, which is counted. */
void engine_shadow_end(struct engine *e, struct sequence *q, bool drop);
/* Pages that followers hold: the schedule counts them as free, */
uint32_t engine_shadow_pages(const struct engine *e);
/* and they go, youngest first, until n pages are free. */
void engine_shadow_make_room(struct engine *e, uint32_t n_pages);
/* Adds to the batch what followers compute in this step, at most n_tokens. */
void engine_shadow_add(struct engine *e, uint32_t n_tokens);
/* Compares a sampled row with the follower's. Thread: a worker. */
void engine_shadow_score(const struct row *r, const float *row, const float *shadow,
                         const struct sampler_scratch *scratch);

/* engine_drafts.c: guesses that are computed behind a decoding sequence's own token */
LK_MUST_USE enum status engine_drafts_init(struct engine *e, enum speculation use, struct error *err);
void engine_drafts_fini(struct engine *e);
void engine_drafts_curve(struct engine *e, const struct cost_curve *curve); /* known only now */
void engine_drafts_begin(struct engine *e, struct sequence *q);
void engine_drafts_end(struct engine *e, const struct sequence *q); /* its table learns the output */
/* Gives sequences drafts out of what the plan of n_tokens has left: draft.n tokens behind the known ones, to
 * be computed with the planned one. Returns how many in all. */
uint32_t engine_drafts_plan(struct engine *e, const struct schedule *s, uint32_t n_tokens);
/* A step of n_tokens, its drafts among them, took so long. */
void engine_drafts_timed(struct engine *e, uint32_t n_tokens, int64_t ns);
/* Looks how good the guesses were; rows: the sequence's sampled one and its drafts'. Before they are
 * accepted. */
void engine_drafts_note(struct engine *e, const struct row *rows);

#endif
