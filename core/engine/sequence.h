/* One running generation: a slot of a fixed table. Owner: engine thread. */
#ifndef LK_ENGINE_SEQUENCE_H
#define LK_ENGINE_SEQUENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"
#include "kv_cache.h"
#include "prefix_cache.h"
#include "sampler.h"
#include "speculation.h"
#include "stop.h"
#include "submission.h"

/*              begin            pages run out, or it yields
 *   FREE ───────────────▶ RUNNING ─────────────────────▶ PAUSED
 *     ▲                    │   ▲                            │
 *     └────────────────────┘   └────────────────────────────┘
 *            end          known tokens are computed again, or found in the prefix cache */
enum sequence_state { SEQUENCE_FREE, SEQUENCE_PAUSED, SEQUENCE_RUNNING };

/* The shadow of a sequence: its tokens with another adapter, in pages of its own. */
struct follower {
    bool active;
    uint32_t *pages; /* as the sequence's */
    uint32_t n_pages, n_computed;
    struct shadow_score score;
};

/* Guesses of the next tokens (engine_drafts.c). */
struct draft {
    struct prediction copied, learnt; /* of this step's token and those behind it */
    uint32_t n;                       /* tokens behind the known ones that this step computes too */
    uint32_t n_right; /* of these: sampled from the row before, so that their own row counts */
    struct acceptance acceptance;
    uint32_t n_all, n_all_right; /* over all steps */
};

struct sequence {
    enum sequence_state state;
    struct submission *submission; /* owned; NULL when free */
    int32_t *tokens; /* [context] prompt, then output, in a step drafts behind; memory of the table */
    uint32_t n_tokens, n_generated;
    uint32_t n_computed; /* tokens whose K and V are in the pages */
    uint32_t n_scored;  /* prompt positions whose logprobs were reported, or that were pooled; a pause doesn't
                           set them back */
    uint32_t n_counted; /* prompt tokens that the statistics have seen, computed or found */
    uint32_t n_merged, n_unmerged; /* tokens computed on a merged copy, or not */
    bool announced;                /* EVENT_STARTED was sent */
    uint32_t *pages;               /* [pages of a context] token p is in pages[p / KV_PAGE_TOKENS] */
    uint32_t n_pages;
    uint32_t n_cached_pages; /* the first ones of them are in the prefix cache: read-only */
    uint32_t n_cached;       /* prompt tokens that were found in it */
    bool keeps_pages;        /* those it computes aren't for others */
    struct rng rng;
    double mirostat_mu;
    struct detokenizer detokenizer;
    struct stop_hold hold;
    struct grammar_matcher matcher;     /* where its text stands in its grammar */
    int64_t started_ns, first_token_ns; /* 0: not yet */
    int64_t paused_ns;                  /* while it is paused: since when */
    bool aside;           /* paused without a place: it yielded its own to one that was overdue */
    uint32_t n_yields;    /* how often it was put aside */
    int64_t resumed_ns;   /* when it began or last went on, */
    uint32_t n_at_resume; /* and n_generated then */
    bool has_turn;        /* it was overdue then: until it has had its turn it is served before all others */
    bool keeps; /* it was paused beyond the bound: its pages aren't taken back as lent ones any more */
    struct follower follower;
    struct draft draft;
};

/* Whether the last token of a prompt is computed, too: it is not where it predicts nothing. */
static inline bool generation_computes_all(const struct generation *g)
{
    return g->max_tokens > 0 || g->pooling != POOLING_NONE;
}

/* Takes the submission. Everything but pages is ready for the first chunk. */
void sequence_begin(struct sequence *q, struct submission *s, const struct text_model *text, int64_t now_ns);

/* Tokens to be computed: all known ones, but the last of a prompt that is only scored predicts nothing. */
uint32_t sequence_n_known(const struct sequence *q);
/* The first position whose row of logits is wanted. */
uint32_t sequence_logits_from(const struct sequence *q);
bool sequence_is_stop_token(const struct sequence *q, int32_t token);
/* `token` has a breaker of dry in its text; `sequence` is a struct sequence. */
bool sequence_breaks(const void *sequence, int32_t token);

/* Pages for positions below n_tokens. The schedule has counted them: a cache without one is a bug. */
void sequence_take_pages(struct sequence *q, struct prefix_cache *cache, uint32_t n_tokens);
void sequence_give_pages(struct sequence *q, struct prefix_cache *cache); /* and forgets what was computed */

#endif
