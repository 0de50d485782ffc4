/* How the files of the calls' grammars meet: tool_parts.c has the pieces, tool_fields.c arguments in
 * notations that aren't JSON, tool_grammar.c the whole. */
#ifndef LK_TOOL_GRAMMAR_INNER_H
#define LK_TOOL_GRAMMAR_INNER_H

#include "tool_grammar.h"

#define FIELD_PARTS_MAX 256U /* of the arguments of one tool */
#define SPACES "[ \\t\\n\\r]*"

struct builder {
    const struct tool_grammar *g;
    struct arena *arena;
    bool failed; /* no memory */
};

/* A sequence while it grows; its items are the arena's. */
struct parts {
    struct grammar_part *items; /* NULL: no memory, and b->failed */
    uint32_t n, most;
};
struct parts parts_new(struct builder *b, uint32_t most);
void put(struct parts *p, struct grammar_part part);
struct grammar_part part_of(enum grammar_kind kind, const char *text); /* text is borrowed */
/* A copy of the spec, as a part. */
struct grammar_part group_of(struct builder *b, struct grammar_spec spec);
/* One sequence, n_min to n_max times. */
struct grammar_part repeat(struct builder *b, struct parts p, uint32_t n_min, uint32_t n_max);
/* One of n sequences; those without items are empty texts. */
struct grammar_part either(struct builder *b, const struct parts *ways, uint32_t n);
/* JSON as text, the arena's; NULL: no memory, and b->failed. */
const char *json_text(struct builder *b, const json_t *v);
/* Free text up to `until`, that string with it; nothing of `without` (or NULL) in it. */
struct grammar_part text_until(struct builder *b, const char *until, const char *without, bool plain);

bool tool_grammar_forces(const struct tool_grammar *g); /* a call must come, or an answer of a form */
bool tool_is_strict(const json_t *tool);

/* tool_fields.c: the arguments of a tool in the notation of the format's style, each by its own schema.
 * False: they can't be written so, or the style has JSON. */
bool put_fields(struct builder *b, struct parts *out, const json_t *tool);

#endif
