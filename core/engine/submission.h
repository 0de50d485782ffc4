/* A generation as the engine keeps it: checked, and copied into one block of memory. */
#ifndef LK_ENGINE_SUBMISSION_H
#define LK_ENGINE_SUBMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "engine.h"

/* Immutable; moves from the front to the engine thread with its message. */
struct submission {
    uint64_t id; /* rises with each: the order of arrival */
    int64_t submitted_ns;
    struct generation g; /* pointers go into this block; max_tokens fits the context; stop_tokens include the
                            model's eos unless ignore_eos; one reference of lora */
    uint32_t lora_begin; /* the position that lora acts from */
    uint32_t shadow_begin;
    bool shadow_refused; /* set by the engine thread: there is no scratch for it */
};

/* The order of service. */
static inline bool submission_is_before(const struct submission *a, const struct submission *b)
{
    return a->g.priority != b->g.priority ? a->g.priority < b->g.priority : a->id < b->id;
}

/* What a generation is checked against. */
struct submission_limits {
    const struct model *model;
    const struct text_model *text;
    uint32_t context;        /* tokens of a sequence: the smaller of */
    uint32_t wanted_context; /* what was configured, and */
    uint32_t kv_tokens;      /* what the KV memory holds */
};

/* STATUS_INVALID and STATUS_TOO_LARGE name the field. Thread: front. */
LK_MUST_USE enum status submission_create(const struct generation *g, const struct submission_limits *limits,
                                          struct submission **out, struct error *err);
void submission_destroy(struct submission *s); /* releases the adapter; NULL is fine */

#endif
