/* vLLM's structural tags: text that is free but for tags, whose content follows a schema or another form. */
#ifndef LK_STRUCTURAL_TAG_H
#define LK_STRUCTURAL_TAG_H

#include "api_parse.h"
#include "grammar.h"

/* Reads {"structures": [{begin, schema, end}], "triggers": [text]}, or {"format": {type, …}} of xgrammar's
 * types (const_string, json_schema, regex, grammar, any_text, sequence, or, tag, triggered_tags,
 * tags_with_separator), into one part, which is the arena's and the value's. `field` is its name in errors.
 */
void read_structural_tag(struct reader *r, struct arena *arena, const char *field, const json_t *value,
                         struct grammar_part *out);

#endif
