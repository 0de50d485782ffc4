/* Answers in the form of OpenAI's Responses: a list of items (reasoning, message, function_call), whole or as
 * the numbered events that build them. */
#ifndef LK_RESPONSES_JSON_H
#define LK_RESPONSES_JSON_H

#include "completion.h"

enum item_kind { ITEM_REASONING, ITEM_MESSAGE, ITEM_CALL };

struct response_item {
    enum item_kind kind;
    bool closed;
    uint32_t call;        /* of the reply, for ITEM_CALL */
    char id[64];          /* "msg_…", "rs_…", "fc_…" */
    struct buf text;      /* all of it; a call's arguments */
    struct buf log_probs; /* of a message: JSON objects with commas */
};

#define RESPONSE_ID_BYTES 56U

/* A completion's `form`. */
struct responses_form {
    char id[RESPONSE_ID_BYTES]; /* "resp_" and 24 random bytes: whoever knows it may be asked for nothing more
                                 */
    json_t *asked;     /* the body as it came: an answer repeats much of it; of tools what the model has */
    json_t *functions; /* of its tools: [as the answer shows it, as the model has it], … */
    json_t *spaces;    /* functions in namespaces: the model's name → {"namespace", "name"} */
    json_t *input;     /* its items, behind those of the responses before; to be kept */
    bool stores;
    bool cuts;         /* truncation: auto */
    uint8_t owner[32]; /* of what is kept */
    struct response_item *items;
    uint32_t n_items, capacity;
    bool failed; /* memory was short */
    uint64_t sequence;
};

/* Zeroed and in the request's arena, which ends it; NULL: no memory. */
struct responses_form *responses_form_create(struct request *r);

/* As struct dialect has them. */
void responses_render(struct completion *c, struct buf *out);
void responses_start(struct completion *c, struct buf *out);
void responses_chunk(struct completion *c, struct choice *h, struct buf *out);
void responses_end(struct completion *c, struct buf *out);
void responses_fail(struct completion *c, struct buf *out);

#endif
