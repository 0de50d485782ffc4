/* Tools of a chat request: checks, and what templates want to see of them.
 *
 * A template that doesn't know tools gets them as text, in the words that most models with tools were trained
 * with (Hermes' tags), so that any model may try; docs/clients.md says so. */
#include "api_tools.h"

#include <ctype.h>
#include <string.h>

#include "body_defaults.h"
#include "reply.h"

#define LEGACY_ID                                                                                            \
    "function0" /* function_call has no id; some templates want one, of nine letters or digits */

/* ---- tools */

static bool is_name(const char *s)
{
    size_t n = strlen(s);
    for (const char *c = s; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("_-.:/", *c))
            return false;
    return n > 0 && n <= REPLY_NAME_MAX;
}

static void check_function(struct reader *r, const json_t *f, const char *where)
{
    char text[96];
    const json_t *name = json_object_get(f, "name"), *parameters = json_object_get(f, "parameters"),
                 *description = json_object_get(f, "description"), *strict = json_object_get(f, "strict");
    if (!json_is_object(f))
        read_fail(r, STATUS_INVALID, where, "%s: found %s, expected an object with name and parameters",
                  where, describe_json(f, text, sizeof text));
    else if (!json_is_string(name) || !is_name(json_string_value(name)))
        read_fail(r, STATUS_INVALID, where,
                  "%s.name: found %s, expected 1 to %u letters, digits and any of _-.:/", where,
                  describe_json(name, text, sizeof text), REPLY_NAME_MAX);
    else if (parameters && !json_is_object(parameters) && !json_is_null(parameters))
        read_fail(r, STATUS_INVALID, where, "%s.parameters: found %s, expected a JSON schema (an object)",
                  where, describe_json(parameters, text, sizeof text));
    else if (description && !json_is_string(description) && !json_is_null(description))
        read_fail(r, STATUS_INVALID, where, "%s.description: found %s, expected a string", where,
                  describe_json(description, text, sizeof text));
    else if (strict && !json_is_boolean(strict) && !json_is_null(strict))
        read_fail(r, STATUS_INVALID, where, "%s.strict: found %s, expected true or false", where,
                  describe_json(strict, text, sizeof text));
}

/* legacy: its function stands in `functions`. */
static void check_tool(struct reader *r, const json_t *tools, size_t i, bool legacy)
{
    char where[64];
    const json_t *tool = json_array_get(tools, i), *function = json_object_get(tool, "function");
    const char *type = json_string_value(json_object_get(tool, "type"));
    snprintf(where, sizeof where, "tools[%zu]", i);
    if (!type || strcmp(type, "function") != 0) {
        read_fail(r, type ? STATUS_UNSUPPORTED : STATUS_INVALID, where,
                  "%s.type: found \"%.40s\"; only \"function\" is supported", where, type ? type : "");
        return;
    }
    snprintf(where, sizeof where, legacy ? "functions[%zu]" : "tools[%zu].function", i);
    check_function(r, function, where);
    if (r->status != STATUS_OK)
        return;
    const json_t *name = json_object_get(function, "name");
    for (size_t k = 0; k < i; k++)
        if (json_equal(json_object_get(json_object_get(json_array_get(tools, k), "function"), "name"), name))
            read_fail(r, STATUS_INVALID, where, "%s.name: \"%.60s\" is there twice", where,
                      json_string_value(name));
}

/* The older `functions` as tools. */
static json_t *wrap_functions(struct reader *r, const json_t *functions)
{
    json_t *tools = json_array();
    for (size_t i = 0; i < json_array_size(functions); i++) {
        json_t *f = json_array_get(functions, i);
        json_array_append_new(tools, json_pack("{s:s, s:O}", "type", "function", "function", f));
    }
    if (json_array_size(tools) != json_array_size(functions))
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the functions");
    return tools;
}

/* ---- which of them */

static void choose_named(struct reader *r, const char *field, const json_t *name, struct tool_params *t)
{
    char text[96];
    bool known = false;
    if (json_is_string(name))
        (void)tool_parameters(t->tools, json_string_value(name), json_string_length(name), &known);
    if (!known)
        read_fail(r, STATUS_INVALID, field, "%s: found %s, expected the name of one of the tools", field,
                  describe_json(name, text, sizeof text));
    t->choice = TOOL_REQUIRED;
    t->named = json_string_value(name);
}

/* {"mode": "auto" | "required", "tools": [{"type": "function", "function": {"name"}}, …]}: only these. */
static void choose_allowed(struct reader *r, json_t *body, struct tool_params *t)
{
    const json_t *v = json_object_get(json_object_get(body, "tool_choice"), "allowed_tools"),
                 *names = json_object_get(v, "tools");
    const char *mode = json_string_value(json_object_get(v, "mode"));
    json_t *allowed = json_array();
    if (!mode || (strcmp(mode, "auto") != 0 && strcmp(mode, "required") != 0) || json_array_size(names) == 0)
        read_fail(r, STATUS_INVALID, "tool_choice",
                  "tool_choice.allowed_tools: expected mode \"auto\" or \"required\", and tools");
    for (size_t i = 0; i < json_array_size(names) && r->status == STATUS_OK; i++) {
        const json_t *name = json_object_get(json_object_get(json_array_get(names, i), "function"), "name");
        struct tool_params one = *t;
        choose_named(r, "tool_choice.allowed_tools", name, &one);
        for (size_t k = 0; k < json_array_size(t->tools) && r->status == STATUS_OK; k++) {
            json_t *tool = json_array_get(t->tools, k);
            if (json_equal(json_object_get(json_object_get(tool, "function"), "name"), name))
                json_array_append(allowed, tool);
        }
    }
    t->choice = mode && strcmp(mode, "required") == 0 ? TOOL_REQUIRED : TOOL_AUTO;
    json_object_set_new(body, "tools", allowed);
    t->tools = json_object_get(body, "tools");
}

static void read_choice(struct reader *r, json_t *body, struct tool_params *t)
{
    const char *field = t->legacy ? "function_call" : "tool_choice";
    const json_t *v = r->status == STATUS_OK ? json_object_get(r->object, field) : NULL;
    const char *word = json_string_value(v), *type = json_string_value(json_object_get(v, "type"));
    char text[96];
    if (!v || json_is_null(v) || (word && strcmp(word, "auto") == 0))
        return;
    if (word && strcmp(word, "none") == 0) {
        t->choice = TOOL_NONE;
        return;
    }
    if (json_array_size(t->tools) == 0)
        read_fail(r, STATUS_INVALID, field, "%s: found %s, but there are no tools to choose from", field,
                  describe_json(v, text, sizeof text));
    else if (word && strcmp(word, "required") == 0 && !t->legacy)
        t->choice = TOOL_REQUIRED;
    else if (t->legacy && json_is_object(v))
        choose_named(r, field, json_object_get(v, "name"), t);
    else if (type && strcmp(type, "allowed_tools") == 0)
        choose_allowed(r, body, t);
    else if (type && strcmp(type, "function") == 0)
        choose_named(r, field, json_object_get(json_object_get(v, "function"), "name"), t);
    else
        read_fail(r, type ? STATUS_UNSUPPORTED : STATUS_INVALID, field,
                  "%s: found %s, expected \"none\", \"auto\"%s or the name of a function in an object", field,
                  describe_json(v, text, sizeof text), t->legacy ? "" : ", \"required\"");
}

void read_tools(struct reader *r, json_t *body, struct tool_params *out)
{
    const json_t *tools = NULL, *functions = NULL;
    bool parallel = true;
    *out = (struct tool_params){.choice = TOOL_AUTO};
    read_array(r, "tools", &tools);
    read_array(r, "functions", &functions);
    read_bool(r, "parallel_tool_calls", &parallel);
    if (json_array_size(functions) > 0) {
        if (json_array_size(tools) > 0)
            read_fail(r, STATUS_INVALID, "functions", "functions: tools are there too; give one of the two");
        out->legacy = true;
        json_object_set_new(body, "tools", wrap_functions(r, functions));
        tools = json_object_get(body, "tools");
    }
    out->one_call = !parallel || out->legacy;
    out->tools = tools;
    if (json_array_size(tools) > TOOLS_MAX)
        read_fail(r, STATUS_INVALID, "tools", "tools: found %zu, at most %u are accepted",
                  json_array_size(tools), TOOLS_MAX);
    for (size_t i = 0; i < json_array_size(tools) && r->status == STATUS_OK; i++)
        check_tool(r, tools, i, out->legacy);
    read_choice(r, body, out);
    if (json_array_size(out->tools) == 0)
        out->choice = TOOL_NONE;
    if (out->choice == TOOL_NONE)
        out->tools = NULL;
}

/* ---- messages */

/* Arguments are JSON in a string on the wire, and an object in templates. What is no object stays as it is.
 */
static void objectify(json_t *function)
{
    const json_t *arguments = json_object_get(function, "arguments");
    json_t *object = NULL;
    if (json_string_length(arguments) == 0 && (json_is_string(arguments) || !arguments))
        object = json_object();
    else if (json_is_string(arguments))
        object =
            json_loadb(json_string_value(arguments), json_string_length(arguments), JSON_ALLOW_NUL, NULL);
    if (json_is_object(object))
        json_object_set(function, "arguments", object);
    json_decref(object);
}

/* The last nine letters and digits, where a template takes no other ids; the same for a call and its result.
 */
static void shorten_id(json_t *owner, const char *key)
{
    const json_t *v = json_object_get(owner, key);
    char id[10] = "000000000";
    size_t at = 9;
    for (size_t n = json_string_length(v); n && at; n--) {
        char c = json_string_value(v)[n - 1];
        if (isalnum((unsigned char)c))
            id[--at] = c;
    }
    if (json_is_string(v))
        json_object_set_new(owner, key, json_string(id));
}

/* A call of an assistant's message, copied, as templates want it. */
static json_t *read_call(struct reader *r, const json_t *call, const char *where)
{
    char text[96];
    const json_t *f = json_object_get(call, "function"), *name = json_object_get(f, "name"),
                 *arguments = json_object_get(f, "arguments"), *id = json_object_get(call, "id"),
                 *type = json_object_get(call, "type");
    bool is_function = !type || (json_is_string(type) && strcmp(json_string_value(type), "function") == 0);
    if (!json_is_object(call) || !json_is_object(f))
        read_fail(r, STATUS_INVALID, where, "%s: found %s, expected an object with a function", where,
                  describe_json(call, text, sizeof text));
    else if (!is_function)
        read_fail(r, STATUS_UNSUPPORTED, where, "%s.type: found %s; only \"function\" is supported", where,
                  describe_json(type, text, sizeof text));
    else if (!json_is_string(name))
        read_fail(r, STATUS_INVALID, where, "%s.function.name: found %s, expected a string", where,
                  describe_json(name, text, sizeof text));
    else if (arguments && !json_is_string(arguments) && !json_is_object(arguments))
        read_fail(r, STATUS_INVALID, where, "%s.function.arguments: found %s, expected JSON in a string",
                  where, describe_json(arguments, text, sizeof text));
    else if (id && !json_is_string(id) && !json_is_null(id))
        read_fail(r, STATUS_INVALID, where, "%s.id: found %s, expected a string", where,
                  describe_json(id, text, sizeof text));
    json_t *copy = r->status == STATUS_OK ? json_copy((json_t *)(uintptr_t)call) : NULL;
    if (copy && json_object_set_new(copy, "function", json_copy((json_t *)(uintptr_t)f)) == 0)
        objectify(json_object_get(copy, "function"));
    if (r->status == STATUS_OK && !copy)
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the messages");
    return copy;
}

static void read_calls(struct reader *r, json_t *m, size_t index, bool short_ids)
{
    char where[80], text[96];
    const json_t *calls = json_object_get(m, "tool_calls");
    snprintf(where, sizeof where, "messages[%zu].tool_calls", index);
    if (!json_is_array(calls) || json_array_size(calls) > TOOLS_MAX) {
        read_fail(r, STATUS_INVALID, where, "%s: found %s, expected an array of at most %u calls", where,
                  describe_json(calls, text, sizeof text), TOOLS_MAX);
        return;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(calls) && r->status == STATUS_OK; i++) {
        snprintf(where, sizeof where, "messages[%zu].tool_calls[%zu]", index, i);
        json_t *call = read_call(r, json_array_get(calls, i), where);
        if (call && short_ids)
            shorten_id(call, "id");
        json_array_append_new(list, call);
    }
    if (json_array_size(list))
        json_object_set(m, "tool_calls", list);
    else
        json_object_del(m, "tool_calls"); /* templates ask whether there is such a list */
    json_decref(list);
}

void read_tool_message(struct reader *r, json_t *m, size_t index, const struct call_syntax *syntax)
{
    char where[80], text[96];
    const char *role = json_string_value(json_object_get(m, "role"));
    const json_t *id = json_object_get(m, "tool_call_id"), *call = json_object_get(m, "function_call");
    snprintf(where, sizeof where, "messages[%zu].tool_call_id", index);
    if (strcmp(role, "assistant") == 0 && json_is_object(call) && !json_object_get(m, "tool_calls")) {
        json_object_set_new(
            m, "tool_calls",
            json_pack("[{s:s, s:s, s:O}]", "id", LEGACY_ID, "type", "function", "function", call));
        json_object_del(m, "function_call");
    }
    const json_t *calls = json_object_get(m, "tool_calls");
    if (json_is_null(calls))
        json_object_del(m, "tool_calls");
    else if (calls)
        read_calls(r, m, index, syntax->short_ids);
    if (id && !json_is_string(id) && !json_is_null(id))
        read_fail(r, STATUS_INVALID, where, "%s: found %s, expected a string", where,
                  describe_json(id, text, sizeof text));
    if (strcmp(role, "function") == 0) {
        json_object_set_new(m, "role", json_string("tool"));
        json_object_set_new(m, "tool_call_id", json_string(LEGACY_ID));
    }
    if (syntax->short_ids)
        shorten_id(m, "tool_call_id");
}

bool arguments_to_text(json_t *messages)
{
    bool any = false;
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *calls = json_object_get(json_array_get(messages, i), "tool_calls");
        for (size_t k = 0; k < json_array_size(calls); k++) {
            json_t *f = json_object_get(json_array_get(calls, k), "function");
            const json_t *arguments = json_object_get(f, "arguments");
            char *text = json_is_object(arguments) ? json_dumps(arguments, 0) : NULL;
            if (text)
                json_object_set_new(f, "arguments", json_string(text));
            any |= text != NULL;
            free(text);
        }
    }
    return any;
}

/* ---- templates that take one call a message */

/* Takes the result of a call out of those that stand from `at` on; the next one if none has its id. */
static json_t *take_result(json_t *messages, size_t at, const json_t *call)
{
    const json_t *id = json_object_get(call, "id");
    size_t found = at;
    for (size_t i = at; id && message_has_role(json_array_get(messages, i), "tool"); i++)
        if (json_equal(json_object_get(json_array_get(messages, i), "tool_call_id"), id)) {
            found = i;
            break;
        }
    json_t *m = json_array_get(messages, found);
    if (!message_has_role(m, "tool"))
        return NULL;
    json_incref(m);
    json_array_remove(messages, found);
    return m;
}

/* The calls of message `at` but the first, each with its result, behind the first one's. */
static bool split_message(json_t *messages, size_t at)
{
    json_t *first = json_array_get(messages, at), *calls = json_incref(json_object_get(first, "tool_calls"));
    json_t *done = json_array();
    for (size_t i = 0; i < json_array_size(calls); i++) {
        json_t *call = json_array_get(calls, i);
        json_t *m = i ? json_pack("{s:s, s:s}", "role", "assistant", "content", "") : json_incref(first);
        json_object_set_new(m, "tool_calls", json_pack("[O]", call));
        json_array_append_new(done, m);
        json_t *result = take_result(messages, at + 1, call);
        if (result)
            json_array_append_new(done, result);
    }
    json_array_remove(messages, at);
    bool ok = true;
    for (size_t i = 0; ok && i < json_array_size(done); i++)
        ok = json_array_insert(messages, at + i, json_array_get(done, i)) == 0;
    json_decref(done);
    json_decref(calls);
    return ok;
}

bool split_calls(json_t *messages)
{
    bool any = false;
    for (size_t i = 0; i < json_array_size(messages); i++)
        if (json_array_size(json_object_get(json_array_get(messages, i), "tool_calls")) > 1)
            any |= split_message(messages, i);
    return any;
}

/* ---- templates that don't know tools */

static void put_json(struct buf *b, const json_t *v, size_t flags)
{
    char *text = json_dumps(v, flags);
    if (text)
        buf_puts(b, text);
    else
        b->failed = true;
    free(text);
}

static bool set_content(json_t *m, const struct buf *b)
{
    return !b->failed && json_object_set_new(m, "content", json_stringn(b->data, b->length)) == 0;
}

/* An assistant's calls become part of what it said. */
static bool calls_to_text(json_t *m)
{
    const json_t *calls = json_object_get(m, "tool_calls");
    struct buf b;
    buf_init(&b, 0);
    const char *content = json_string_value(json_object_get(m, "content"));
    buf_puts(&b, content ? content : "");
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *f = json_object_get(json_array_get(calls, i), "function");
        json_t *call = json_pack("{s:O, s:O}", "name", json_object_get(f, "name"), "arguments",
                                 json_object_get(f, "arguments"));
        buf_puts(&b, b.length ? "\n<tool_call>\n" : "<tool_call>\n");
        put_json(&b, call, 0);
        buf_puts(&b, "\n</tool_call>");
        json_decref(call);
    }
    bool ok = set_content(m, &b) && json_object_del(m, "tool_calls") == 0;
    buf_fini(&b);
    return ok;
}

/* The message before goes on with this one's text, since these templates want turns to alternate. */
static bool join(json_t *messages, size_t at, const char *before, const char *behind)
{
    const json_t *m = json_array_get(messages, at);
    json_t *into = json_array_get(messages, at - 1);
    struct buf b;
    buf_init(&b, 0);
    buf_printf(&b, "%s\n%s%s%s", json_string_value(json_object_get(into, "content")), before,
               json_string_value(json_object_get(m, "content")), behind);
    bool ok = set_content(into, &b) && json_array_remove(messages, at) == 0;
    buf_fini(&b);
    return ok;
}

static bool results_to_text(json_t *messages)
{
    bool open = false; /* the message before is made of results */
    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_t *m = json_array_get(messages, i);
        bool result = message_has_role(m, "tool");
        if (json_object_get(m, "tool_calls") && !calls_to_text(m))
            return false;
        if (result && !open) {
            struct buf b;
            buf_init(&b, 0);
            buf_printf(&b, "<tool_response>\n%s\n</tool_response>",
                       json_string_value(json_object_get(m, "content")));
            bool ok = set_content(m, &b) && json_object_set_new(m, "role", json_string("user")) == 0;
            buf_fini(&b);
            if (!ok)
                return false;
            open = true;
        } else if (result || (open && message_has_role(m, "user"))) {
            bool ok = result ? join(messages, i, "<tool_response>\n", "\n</tool_response>")
                             : join(messages, i, "", "");
            if (!ok)
                return false;
            i--;
        } else {
            open = false;
        }
    }
    return true;
}

static void describe_tools(struct buf *b, const json_t *tools)
{
    buf_puts(b, "You can call these functions:\n");
    for (size_t i = 0; i < json_array_size(tools); i++) {
        put_json(b, json_object_get(json_array_get(tools, i), "function"), JSON_COMPACT);
        buf_putc(b, '\n');
    }
    buf_puts(
        b, "To call one, write\n<tool_call>\n{\"name\": NAME, \"arguments\": {...}}\n</tool_call>\nElse just "
           "answer.");
}

/* The first message of the role, or a new one at the beginning. */
static json_t *message_of(json_t *messages, const char *role)
{
    for (size_t i = 0; i < json_array_size(messages); i++)
        if (message_has_role(json_array_get(messages, i), role))
            return json_array_get(messages, i);
    json_array_insert_new(messages, 0, json_pack("{s:s, s:s}", "role", role, "content", ""));
    return json_array_get(messages, 0);
}

bool flatten_tools(json_t *messages, const json_t *tools, bool in_user)
{
    if (!results_to_text(messages))
        return false;
    if (!tools)
        return true;
    json_t *m = message_of(messages, in_user ? "user" : "system");
    const char *content = json_string_value(json_object_get(m, "content"));
    struct buf b;
    buf_init(&b, 0);
    if (in_user)
        describe_tools(&b, tools);
    if (content && content[0])
        buf_printf(&b, in_user ? "\n\n%s" : "%s\n\n", content);
    if (!in_user)
        describe_tools(&b, tools);
    bool ok = m && set_content(m, &b);
    buf_fini(&b);
    return ok;
}

bool put_tools_in_system(json_t *messages, const json_t *tools)
{
    struct buf b;
    buf_init(&b, 0);
    buf_putc(&b, '[');
    for (size_t i = 0; i < json_array_size(tools); i++) {
        buf_puts(&b, i ? ", " : "");
        put_json(&b, json_object_get(json_array_get(tools, i), "function"), 0);
    }
    buf_putc(&b, ']');
    bool ok = !b.failed && json_object_set_new(message_of(messages, "system"), "tools",
                                               json_stringn(b.data, b.length)) == 0;
    buf_fini(&b);
    return ok;
}
