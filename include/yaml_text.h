/* YAML files whose values are texts and lists of texts, by libcyaml's schemas: what all of our YAML is read
 * through. Values are checked by who knows them. Pure; thread: any. */
#ifndef LK_YAML_TEXT_H
#define LK_YAML_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct cyaml_schema_value;
struct json_t;

struct yaml_complaint {
    char text[256]; /* libcyaml's first message */
    unsigned line;  /* of its innermost backtrace entry; 0: none */
};

/* The struct that `schema` (a mapping by pointer) describes, in *out; NULL for an empty text. False: `why`
 * says why, and *out is NULL. */
bool yaml_text_load(const char *text, size_t length, const struct cyaml_schema_value *schema, void **out,
                    struct yaml_complaint *why);
void yaml_text_free(const struct cyaml_schema_value *schema, void *data); /* NULL is fine */

/* Into an object; what is NULL isn't there. */
void yaml_text_put(struct json_t *o, const char *key, const char *text);
void yaml_text_put_list(struct json_t *o, const char *key, char *const *items, unsigned n);

#endif
