/* What isn't the caller's in a request's body: defaults of its voice's bundle (bundle.h), put there before
 * anything of it is read, so that they go through the same checks and mean the same in every dialect. Thread:
 * any that alone has the body. */
#ifndef LK_BODY_DEFAULTS_H
#define LK_BODY_DEFAULTS_H

#include <jansson.h>

#include "api_render.h"

struct adapter_bundle;

/* What the body says under `key`, or under another name that means the same ("max_completion_tokens" for
 * "max_tokens", any of the fields that constrain an answer for "grammar"); NULL: nothing. */
const json_t *body_says(const json_t *body, const char *key);
/* Puts a copy of `value` there, in the place of what the body says under any of these names. False: no
 * memory. */
bool body_put(json_t *body, const char *key, const json_t *value);
/* A system message in front; into the caller's own one, before it, if there is one: many templates take a
 * single one. Messages that aren't of the right form stay as they are; their reader says what is wrong.
 * False: no memory. */
bool body_put_system(json_t *body, const char *text);
bool body_has_system(const json_t *body);
bool message_has_role(const json_t *message, const char *role);
bool message_is_system(const json_t *message); /* or the developer's, which is another word for it */

/* A number for a field; a list of them ends with a NULL. */
struct body_default {
    const char *key;
    double value;
};
/* Puts those in of which the body says nothing. False: no memory. */
bool body_apply_numbers(json_t *body, const struct body_default *list);

/* The bundle's fields where the caller says nothing, locked ones in any case, and its system prompt.
 * `overruled`: names of locked fields for which the caller said something else, with commas. */
LK_MUST_USE enum status body_apply_bundle(json_t *body, const struct adapter_bundle *bundle,
                                          struct buf *overruled, struct fault *f);

#endif
