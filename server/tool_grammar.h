/* Calls that must come, or may: a grammar of them in the model's own format. */
#ifndef LK_TOOL_GRAMMAR_H
#define LK_TOOL_GRAMMAR_H

#include "api_grammar.h"
#include "api_tools.h"

struct tool_grammar {
    const struct grammar_scope *scope;
    const struct tool_params *tools;
    const struct reply_format *format;
    const struct grammar_part *answer; /* or NULL: the answer that is allowed instead of a call */
};

/* The grammar of calls of g->tools. Temporary memory is the arena's; *out is the caller's reference.
 *
 * Where g->tools asks for a call or there is an answer: of the named tool or any of them, one or several as
 * the request and the format allow; their arguments follow the tools' schemas. If the prompt has opened a
 * thought its text and end come first.
 *
 * Else what the model says is free, but for calls: whatever the reply would take for one is one of a tool,
 * and the arguments of those with `strict` follow their schemas. Thread: a worker, as it may take long. */
LK_MUST_USE enum status tool_grammar_create(const struct tool_grammar *g, struct arena *arena,
                                            struct grammar **out, struct error *err);

/* STATUS_OK: grammars can do the schema of this tool; STATUS_NO_MEMORY; else they can't. Thread: a worker. */
LK_MUST_USE enum status tool_can_be_strict(const struct grammar_scope *scope, const json_t *tool,
                                           struct arena *arena);
/* One of the tools asks for arguments that follow its schema. */
bool tools_are_strict(const json_t *tools);

#endif
