/* Answers in Ollama's form: one object, or a stream of them, a line each. */
#ifndef LK_OLLAMA_JSON_H
#define LK_OLLAMA_JSON_H

#include "completion.h"

#define NDJSON_TYPE "application/x-ndjson"

/* A completion's `form`. */
struct ollama_form {
    const char *model; /* as the client named it */
    bool generates;    /* /api/generate: "response" in the place of "message" */
    bool cuts;         /* prompts that are too long */
    bool unloads;      /* keep_alive: 0 */
    int64_t num_ctx, num_keep;
};

/* As struct dialect has them. */
void ollama_render(struct completion *c, struct buf *out);
void ollama_render_load(struct completion *c, struct buf *out); /* of a request that asks nothing */
void ollama_chunk(struct completion *c, struct choice *h, struct buf *out);
void ollama_end(struct completion *c, struct buf *out);
void ollama_fail(struct completion *c, struct buf *out);

#endif
