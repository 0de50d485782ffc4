/* Entries and schedules to try plans with. Pages of 4 tokens. */
#ifndef LK_TESTS_SCHEDULE_RIG_H
#define LK_TESTS_SCHEDULE_RIG_H

#include "scheduler.h"

/* Budgets that are no bound. */
static inline struct schedule plan_of(struct schedule_entry *entries, uint32_t n, uint32_t n_slots,
                                      uint32_t n_pages, uint32_t n_aside_most)
{
    return (struct schedule){.step_tokens = 64,
                             .chunk_tokens = 64,
                             .score_rows = 8,
                             .page_tokens = 4,
                             .n_slots_free = n_slots,
                             .n_pages_free = n_pages,
                             .n_aside_most = n_aside_most,
                             .entries = entries,
                             .n_entries = n};
}

/* Decodes. */
static inline struct schedule_entry runs(uint64_t arrival, uint32_t n_known, uint32_t n_pages, bool lent)
{
    return (struct schedule_entry){.state = SCHEDULE_RUNNING,
                                   .arrival = arrival,
                                   .n_known = n_known,
                                   .n_computed = n_known - 1,
                                   .n_pages = n_pages,
                                   .logits_from = n_known - 1,
                                   .lent = lent};
}

static inline struct schedule_entry waits(uint64_t arrival, uint32_t n_known, bool due)
{
    return (struct schedule_entry){.state = SCHEDULE_WAITING,
                                   .arrival = arrival,
                                   .turn = (uint32_t)arrival,
                                   .n_known = n_known,
                                   .logits_from = n_known - 1,
                                   .due = due,
                                   .lent = !due};
}

#endif
