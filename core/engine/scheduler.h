/* What the next step computes. Pure: a snapshot in, a plan out; no model, no threads, no memory of its own.
 */
#ifndef LK_ENGINE_SCHEDULER_H
#define LK_ENGINE_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

enum schedule_state { SCHEDULE_WAITING, SCHEDULE_PAUSED, SCHEDULE_RUNNING };

/* One generation as the scheduler sees it. Prompt and output are the same to it: known tokens, of which some
 * are in KV pages. One that lacks a single token is decoding. */
struct schedule_entry {
    enum schedule_state state;
    int32_t priority; /* lower is served first */
    uint32_t turn;    /* then this: 0, or of one that waits its place among callers */
    uint64_t arrival; /* then this; unique */
    uint32_t n_known, n_computed;
    uint32_t n_pages; /* held; of one that doesn't run: found in the cache, it holds them once it starts */
    const uint32_t *pages; /* [n_pages] which; not looked at without the schedule's users */
    uint32_t logits_from;  /* positions from here to the last known one need a row of logits */
    uint32_t index;        /* the caller's */
    bool hold;             /* runs, but is given no prompt's tokens; somebody before it runs and isn't held */
    bool due;  /* waits, and the pages that it needs are its caller's share: what is lent is taken back for it
                */
    bool lent; /* has, or would have, pages beyond its caller's share */
    bool owns; /* runs, and its pages are within a share of its caller's own: never taken for one that is
                * overdue
                */
    bool overdue; /* waits or is paused beyond the bound: others yield a place and pages to it */
    bool yields,
        yields_to_own;       /* runs, and may be paused for one of another crowd that is; of its own crowd */
    uint32_t caller, n_need; /* whose; pages that it may come to need */
    uint32_t n_lacks;        /* to start, it needs so many of these from others of its caller that yield */
    bool batch;              /* those that yield: batch ones first, */
    float load;              /* then whose caller has most running for its weight, */
    uint32_t crowd,
        n_crowd; /* then whose crowd does, which are those with the same number, then the youngest */
    bool leaves; /* the plan's own */
    bool aside;  /* paused and without a place to run: one must be free for it to go on */
    /* the plan */
    uint32_t n_tokens; /* to compute in this step; 0: none */
    bool start;        /* was waiting or paused, runs from now on */
    bool pause;        /* was running, gives its pages back; `aside`: and its place */
};

struct schedule {
    uint32_t step_tokens;  /* of all; at least the number of sequences that run at once */
    uint32_t chunk_tokens; /* of one prompt */
    uint32_t score_rows;   /* rows of logits for prompts whose logprobs are wanted */
    uint32_t page_tokens;
    uint32_t n_slots_free;          /* for those that wait or are aside; other paused ones have kept theirs */
    uint32_t n_pages_free;          /* the plan lowers it by what it hands out */
    struct schedule_entry *entries; /* [n_entries]; the plan sorts them into the order of service */
    uint32_t n_entries;
    uint32_t *users; /* of each page, as entries share them; the plan counts on it. A page without any is a
                        free one. NULL: nobody shares */
    uint32_t n_aside_most; /* so many more may be put aside */
};

/* Into the order of service, as the plan does first. */
void schedule_sort(struct schedule_entry *entries, uint32_t n);
/* Makes the plan. If there is any entry, some entry gets tokens, provided that each fits the cache alone. */
void schedule_plan(struct schedule *s);
/* Tokens that the plan has computed. */
uint32_t schedule_tokens(const struct schedule *s);

#endif
