/* Answers in Anthropic's form: a message of blocks, and the events that build one. */
#ifndef LK_ANTHROPIC_JSON_H
#define LK_ANTHROPIC_JSON_H

#include "completion.h"

enum anthropic_block { BLOCK_NONE, BLOCK_THINKING, BLOCK_TEXT, BLOCK_TOOL };

/* A completion's `form`: where its stream is. */
struct anthropic_stream {
    enum anthropic_block open;
    uint32_t n_blocks; /* begun */
    uint32_t call;     /* of an open BLOCK_TOOL */
};

#define ANTHROPIC_PING "event: ping\ndata: {\"type\": \"ping\"}\n\n"

/* As struct dialect has them. */
void anthropic_render(struct completion *c, struct buf *out);
void anthropic_start(struct completion *c, struct buf *out);
void anthropic_chunk(struct completion *c, struct choice *h, struct buf *out);
void anthropic_end(struct completion *c, struct buf *out);
void anthropic_fail(struct completion *c, struct buf *out);

#endif
