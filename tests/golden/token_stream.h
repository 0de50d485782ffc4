/* A text decoded token by token, and compared with what a golden says: what the tokenizer's golden programs
 * share. */
#ifndef LK_TESTS_TOKEN_STREAM_H
#define LK_TESTS_TOKEN_STREAM_H

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "text.h"

static inline bool same_text(const struct buf *got, const json_t *want)
{
    return got->length == json_string_length(want) &&
           memcmp(got->data, json_string_value(want), got->length) == 0;
}

static inline void stream(const struct tokenizer *t, const struct token_list *ids, bool skip, struct buf *out)
{
    struct detokenizer d;
    char *room = malloc(detokenizer_bound(t));
    detokenizer_init(&d, t, skip);
    for (size_t i = 0; i < ids->n_ids; i++)
        buf_append(out, room, detokenizer_push(&d, ids->ids[i], room));
    buf_append(out, room, detokenizer_end(&d, room));
    free(room);
}

#endif
