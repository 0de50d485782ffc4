/* What the next step computes. Pure: a snapshot in, a plan out; no model, no threads, no memory of its own.
 */
#ifndef LK_ENGINE_SCHEDULER_H
#define LK_ENGINE_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

enum schedule_state { SCHEDULE_WAITING, SCHEDULE_PAUSED, SCHEDULE_RUNNING };

/* Entries that are alike: of one caller, or of one caller with one voice. */
struct schedule_group {
    uint32_t head, next; /* chains of a hash table that lies in the entries themselves */
    uint32_t first;      /* the entry that stands for all of them; what follows is there alone */
    uint32_t n_running;
};

/* One generation as the scheduler sees it. Prompt and output are the same to it: known tokens, of which some
 * are in KV pages. One that lacks a single token is decoding. */
struct schedule_entry {
    enum schedule_state state;
    /* The order of service: */
    int32_t priority; /* lower is first, */
    uint32_t turn;    /* then this: of one that waits, its place among callers; else 0 */
    uint64_t arrival; /* then this; unique */
    uint32_t n_known, n_computed;
    uint32_t n_pages; /* held; of one that doesn't run: found in the cache, it holds them once it starts */
    const uint32_t *pages; /* [n_pages] which; not looked at without the schedule's users */
    uint32_t logits_from;  /* positions from here to the last known one need a row of logits */
    uint32_t index;        /* the caller's, for itself */
    bool hold;             /* runs, but is given no prompt's tokens; somebody before it runs and isn't held */
    /* Of one that waits: of those with the same number one starts in a plan, and the others find its pages
     * later. 0: it needs no page that another one would compute. */
    uint32_t next;
    /* Shares of the pages */
    bool due; /* doesn't run, and what it needs is within its caller's share: what is lent goes back for it */
    bool lent; /* has, or would have, pages beyond its caller's share */
    bool owns; /* runs, within its caller's share: not paused for the pages that an overdue one lacks */
    /* The bound on waiting */
    bool overdue; /* waits or is paused beyond it: others yield a place and pages */
    bool aside;  /* is paused without a place, and needs a free one to go on; the plan sets it with `pause` */
    bool yields; /* runs, and may be paused for one of another group that is overdue, */
    bool yields_to_own; /* and for one of its own caller and voice */
    /* Who yields first: batch ones, then whose caller has most running for its weight, then whose caller and
     * voice have, then the youngest. */
    bool batch;
    float weight; /* 0 counts as 1 */
    uint32_t caller;
    const void *voice; /* the same pointer: the same one */
    uint32_t n_need;   /* pages that it may come to need */
    uint32_t n_lacks;  /* of its caller's share: others of that caller must yield so many before it starts */
    /* The plan's own */
    bool leaves, blocks;
    struct schedule_group by_caller, by_voice;
    /* The plan */
    uint32_t n_tokens; /* to compute in this step; 0: none */
    bool start;        /* was waiting or paused, runs from now on */
    bool pause;        /* was running, gives its pages back; if aside, its place too */
};

struct schedule {
    uint32_t step_tokens;  /* of all; at least the number of sequences that run at once */
    uint32_t chunk_tokens; /* of one prompt */
    uint32_t score_rows;   /* rows of logits for prompts whose logprobs are wanted */
    uint32_t page_tokens;
    uint32_t n_slots_free;          /* for those that wait or are aside; other paused ones have kept theirs */
    uint32_t n_pages_free;          /* the plan lowers it by what it hands out */
    uint32_t n_aside_most;          /* so many more may be put aside */
    struct schedule_entry *entries; /* [n_entries]; the plan sorts them into the order of service */
    uint32_t n_entries;
    /* Of each page, as entries share them; the plan counts on it. A page without any is a free one. NULL:
     * nobody shares. */
    uint32_t *users;
    bool grouped; /* the plan's own: it has counted who runs by caller and voice */
};

/* Into the order of service, as the plan does first. */
void schedule_sort(struct schedule_entry *entries, uint32_t n);
/* Makes the plan. If there is any entry, some entry gets tokens, provided that each fits the cache alone. */
void schedule_plan(struct schedule *s);
/* Tokens that the plan has computed. */
uint32_t schedule_tokens(const struct schedule *s);

#endif
