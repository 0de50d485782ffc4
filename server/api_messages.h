/* Messages of a chat. Pure; any thread. */
#ifndef LK_API_MESSAGES_H
#define LK_API_MESSAGES_H

#include "api_parse.h"
#include "reply_format.h"

/* What a template expects of messages. */
struct message_style {
    const struct call_syntax *syntax;
    bool null_content; /* an answer that has only calls has no content, not an empty one */
};

struct server;

/* api_chat.c: the prompt that a chat's body makes in the base's template. */
LK_MUST_USE enum status render_chat(const struct server *s, json_t *body, struct buf *out, struct fault *f);

/* The field `messages` of the reader's object: a new array of new objects, whose contents are texts. */
json_t *read_messages(struct reader *r, const struct message_style *style);
/* The content of messages[index] as one text, new; NULL where it has none, or after a fault. */
json_t *message_text(struct reader *r, const json_t *message, size_t index);

#endif
