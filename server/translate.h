/* From another API's body to OpenAI's: what a dialect's `translate` is made of. The new body begins as a copy
 * of the one that came, so voices, sampling and all the additions of this server have the same names in every
 * API; a dialect moves what is called otherwise, writes anew what is built otherwise, and refuses what it
 * can't do. Pure; any thread. */
#ifndef LK_TRANSLATE_H
#define LK_TRANSLATE_H

#include "api_parse.h"

struct completion;

struct translation {
    struct completion *c;
    struct reader in; /* the body as it came; its fault is the completion's */
    json_t *out;      /* OpenAI's */
};

void translate_begin(struct translation *t, struct completion *c);
/* The new body takes the old one's place; what was borrowed from the old one lives on in it only if it was
 * put there. */
LK_MUST_USE enum status translate_end(struct translation *t);

/* Puts a new value (taken) into an object or at the end of an array; a NULL value is memory that was short.
 */
void put_new(struct reader *r, json_t *object, const char *key, json_t *value);
void push_new(struct reader *r, json_t *array, json_t *value);
void put_text(struct reader *r, json_t *object, const char *key, const char *text);
/* A borrowed value; NULL or JSON's null: nothing is put. */
void put_same(struct reader *r, json_t *object, const char *key, const json_t *value);

/* A field under its name there: out[to] = in[from], and out[from] goes. */
void translate_rename(struct translation *t, const char *from, const char *to);
void translate_drop(struct translation *t, const char *const *keys, size_t n);
/* STATUS_UNSUPPORTED, by name, for each of these that asks for something (null, false, 0, "", [], {} don't).
 */
void translate_refuse(struct translation *t, const char *const *keys, size_t n);
/* The same for what OpenAI's fields could ask and these APIs have no words for in an answer: n, echo … */
void translate_refuse_openai(struct translation *t);
/* chat_template_kwargs.KEY = value, unless the caller has set it. */
void translate_template_value(struct translation *t, const char *key, json_t *value);

/* Whether the model shall think, as templates call it: enable_thinking, thinking. */
void translate_thinking(struct translation *t, bool thinks);

/* {"type": "json_schema", "json_schema": {"name", "schema", "strict"}} as response_format. */
void translate_schema(struct translation *t, const json_t *schema);
/* A message of a role with a content (taken), at the end of `messages`; gives it, borrowed, or NULL after a
 * fault.
 */
json_t *translate_message(struct translation *t, json_t *messages, const char *role, json_t *content);
/* {"id", "type": "function", "function": {"name", "arguments"}}, new; arguments as text of JSON. */
json_t *translate_call(struct reader *r, const char *id, const char *name, const json_t *arguments);

#define KEYS_OF(list) (list), sizeof(list) / sizeof(list)[0]

#endif
