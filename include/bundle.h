/* An adapter's behaviour beside its weights: adapter.yaml in its folder (of X.gguf: X.gguf.adapter.yaml). It
 * belongs to the version: it is read and hashed with the weights, swapped with them and rolled back with
 * them. Immutable. */
#ifndef LK_BUNDLE_H
#define LK_BUNDLE_H

#include <stdint.h>

#include "base/error.h"

#define BUNDLE_FILE "adapter.yaml"
#define BUNDLE_BYTES_MAX ((size_t)256 << 10)

struct chat_template;
struct json_t;

struct adapter_bundle {
    const char *description;        /* or NULL; texts are the JSON's */
    const struct json_t *languages; /* array of codes, or NULL */
    const char *system_prompt;      /* or NULL */
    struct json_t *defaults; /* fields of a request's body, by OpenAI's, vLLM's and llama-server's names */
    const struct json_t *locked;         /* array of names of these fields, and "system_prompt"; or NULL */
    struct chat_template *chat_template; /* in the place of the base's; NULL: that one */
    const char *chat_template_source;
    const char *tool_format; /* how it writes calls of tools; NULL: as the template says */
    uint32_t context;        /* tokens of a sequence; 0: the server's */
    struct json_t *json;     /* all of it, as it was given */
};

/* The text of an adapter.yaml. STATUS_FORMAT: not of the form; STATUS_INVALID: a value that no request could
 * have; both name `shown` and the field. Thread: any. */
LK_MUST_USE enum status bundle_parse(const char *text, size_t n_bytes, const char *shown,
                                     struct adapter_bundle **out, struct error *err);
void bundle_free(struct adapter_bundle *b); /* NULL is fine */

#endif
