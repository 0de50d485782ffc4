/* Tools in a chat's body: what may be called, and what was. Pure; any thread. */
#ifndef LK_API_TOOLS_H
#define LK_API_TOOLS_H

#include "api_parse.h"
#include "reply_format.h"

#define TOOLS_MAX 128U

enum tool_choice { TOOL_NONE, TOOL_AUTO, TOOL_REQUIRED };

/* What a request says of tools. */
struct tool_params {
    enum tool_choice choice; /* TOOL_NONE: none were given, or none may be called */
    const json_t *tools;     /* those that may be called, as OpenAI's array; NULL with TOOL_NONE */
    const char *named;       /* TOOL_REQUIRED: this one; NULL: any */
    bool one_call;           /* parallel_tool_calls: false */
    bool legacy;             /* `functions`: the answer has a function_call */
};

/* Reads tools, tool_choice, parallel_tool_calls, functions, function_call. What it makes of them lives in the
 * body. */
void read_tools(struct reader *r, json_t *body, struct tool_params *out);

/* Checks what a message says of tools, and brings the copy `m` (message number `index`) into the form that
 * templates know: arguments as objects, role "tool". `syntax` is the template's. */
void read_tool_message(struct reader *r, json_t *m, size_t index, const struct call_syntax *syntax);

/* Calls' arguments as JSON texts, for templates that want them so. False: there are none. */
bool arguments_to_text(json_t *messages);

/* For a template that takes one call a message: each call gets a message of its own, and its result behind
 * it. False: no message has more. */
bool split_calls(json_t *messages);

/* For a template that doesn't know tools: calls and results as plain text in messages of user and assistant,
 * and `tools` (or NULL) with how to call them in a system message, or with `in_user` in the first user's.
 * False: no memory. */
bool flatten_tools(json_t *messages, const json_t *tools, bool in_user);
/* Phi-4-mini's template looks for them in the system message. */
bool put_tools_in_system(json_t *messages, const json_t *tools);

#endif
