/* POST /v1/messages and /v1/messages/count_tokens: Anthropic's body to OpenAI's. How the answer is shown is
 * in anthropic_json.c.
 *
 * Roles, blocks and tools are theirs: blocks of text become parts of a message, tool_use a call, tool_result
 * a message of the role tool. Turns of one role that follow each other are one turn, as with Anthropic. */
#include <string.h>

#include "anthropic_json.h"
#include "api.h"
#include "body_defaults.h"
#include "completion.h"
#include "sse.h"
#include "translate.h"

/* A mark for its sender's accounts, new with each request: as a part of the prompt it would leave the prefix
 * cache nothing to find. */
#define BILLING_MARK "x-anthropic-billing-header"

struct turns {
    struct translation *t;
    json_t *messages;   /* OpenAI's */
    json_t *tool_names; /* of the calls so far: id → name, for templates that show it with the result */
    size_t index;       /* of the message that is read */
    char where[64];     /* "messages[3].content[0]" */
};

static void add_text_part(struct translation *t, json_t *parts, const char *text)
{
    json_t *part = json_object();
    put_text(&t->in, part, "type", "text");
    put_text(&t->in, part, "text", text);
    push_new(&t->in, parts, part);
}

/* The type of a block, or NULL after a fault. */
static const char *block_type(struct reader *r, const json_t *block, const char *where)
{
    char text[96];
    const char *type = json_string_value(json_object_get(block, "type"));
    if (!type)
        read_fail(r, STATUS_INVALID, where, "%s: found %s, expected a block with a type", where,
                  describe_json(block, text, sizeof text));
    return type;
}

static const char *block_text(struct reader *r, const json_t *block, const char *key, const char *where)
{
    char text[96];
    const json_t *v = json_object_get(block, key);
    if (!json_is_string(v))
        read_fail(r, STATUS_INVALID, where, "%s.%s: found %s, expected a string", where, key,
                  describe_json(v, text, sizeof text));
    return json_is_string(v) ? json_string_value(v) : "";
}

static void refuse_block(struct reader *r, const char *where, const char *type, const char *expected)
{
    read_fail(r, STATUS_UNSUPPORTED, where, "%s: blocks of type \"%.40s\" are not supported, only %s", where,
              type, expected);
}

/* A string or blocks of text, as parts. `where` names it. */
static json_t *read_texts(struct translation *t, const json_t *v, const char *where)
{
    char text[96], at[96];
    json_t *parts = json_array();
    if (json_is_string(v)) {
        add_text_part(t, parts, json_string_value(v));
    } else if (!json_is_array(v)) {
        read_fail(&t->in, STATUS_INVALID, where, "%s: found %s, expected a string or an array of blocks",
                  where, describe_json(v, text, sizeof text));
    }
    for (size_t i = 0; i < json_array_size(v) && t->in.status == STATUS_OK; i++) {
        const json_t *block = json_array_get(v, i);
        snprintf(at, sizeof at, "%s[%zu]", where, i);
        const char *type = block_type(&t->in, block, at);
        if (type && strcmp(type, "text") != 0)
            refuse_block(&t->in, at, type, "text");
        const char *s = t->in.status == STATUS_OK ? block_text(&t->in, block, "text", at) : "";
        if (strncmp(s, BILLING_MARK, strlen(BILLING_MARK)) != 0)
            add_text_part(t, parts, s);
    }
    return parts;
}

/* ---- messages */

/* The message that a block of this role goes to: the last one if it has the role, else a new one. */
static json_t *turn_of(struct turns *u, const char *role)
{
    size_t n = json_array_size(u->messages);
    json_t *last = n ? json_array_get(u->messages, n - 1) : NULL;
    const char *was = json_string_value(json_object_get(last, "role"));
    if (was && strcmp(was, role) == 0)
        return last;
    return translate_message(u->t, u->messages, role, json_array());
}

static void add_text(struct turns *u, const char *role, const char *text)
{
    add_text_part(u->t, json_object_get(turn_of(u, role), "content"), text);
}

static void read_tool_use(struct turns *u, const json_t *block)
{
    struct reader *r = &u->t->in;
    const char *id = block_text(r, block, "id", u->where), *name = block_text(r, block, "name", u->where);
    const json_t *input = json_object_get(block, "input");
    if (!json_is_object(input))
        read_fail(r, STATUS_INVALID, u->where, "%s.input: expected an object", u->where);
    if (r->status != STATUS_OK)
        return;
    json_t *turn = turn_of(u, "assistant");
    if (!json_object_get(turn, "tool_calls"))
        put_new(r, turn, "tool_calls", json_array());
    push_new(r, json_object_get(turn, "tool_calls"), translate_call(r, id, name, input));
    put_text(r, u->tool_names, id, name);
}

static void read_tool_result(struct turns *u, const json_t *block)
{
    struct reader *r = &u->t->in;
    char where[96];
    const char *id = block_text(r, block, "tool_use_id", u->where);
    const json_t *content = json_object_get(block, "content");
    snprintf(where, sizeof where, "%s.content", u->where);
    json_t *parts = content && !json_is_null(content) ? read_texts(u->t, content, where) : json_array();
    json_t *m = translate_message(u->t, u->messages, "tool", parts);
    put_text(r, m, "tool_call_id", id);
    put_same(r, m, "name", json_object_get(u->tool_names, id));
}

/* What was thought before is shown to the template, which decides; several blocks are one text. */
static void read_thinking(struct turns *u, const json_t *block)
{
    struct reader *r = &u->t->in;
    const char *text = block_text(r, block, "thinking", u->where);
    json_t *turn = turn_of(u, "assistant");
    const char *before = json_string_value(json_object_get(turn, "reasoning_content"));
    put_new(r, turn, "reasoning_content",
            json_sprintf("%s%s%s", before ? before : "", before ? "\n" : "", text));
}

static void read_block(struct turns *u, const char *role, const json_t *block)
{
    struct reader *r = &u->t->in;
    bool user = strcmp(role, "user") == 0, model = strcmp(role, "assistant") == 0;
    const char *type = block_type(r, block, u->where);
    if (!type)
        return;
    if (strcmp(type, "text") == 0)
        add_text(u, role, block_text(r, block, "text", u->where));
    else if (user && strcmp(type, "tool_result") == 0)
        read_tool_result(u, block);
    else if (model && strcmp(type, "tool_use") == 0)
        read_tool_use(u, block);
    else if (model && strcmp(type, "thinking") == 0)
        read_thinking(u, block);
    else if (!model || strcmp(type, "redacted_thinking") != 0) /* which nobody but its maker can read */
        refuse_block(r, u->where, type,
                     user    ? "text and tool_result"
                     : model ? "text, tool_use and thinking"
                             : "text");
}

/* system: in the middle of a conversation, as Claude Code says what changes there; what stands before all of
 * it belongs into `system`. */
static bool is_role(const char *role, size_t index)
{
    return role && (strcmp(role, "user") == 0 || strcmp(role, "assistant") == 0 ||
                    (index > 0 && strcmp(role, "system") == 0));
}

static void read_turn(struct turns *u, const json_t *m)
{
    struct reader *r = &u->t->in;
    char text[96];
    const char *role = json_string_value(json_object_get(m, "role"));
    const json_t *content = json_object_get(m, "content");
    snprintf(u->where, sizeof u->where, "messages[%zu]", u->index);
    if (!is_role(role, u->index)) {
        read_fail(r, STATUS_INVALID, u->where, "%s.role: found %s, expected user%s", u->where,
                  describe_json(json_object_get(m, "role"), text, sizeof text),
                  u->index ? ", assistant or system" : " or assistant");
        return;
    }
    if (json_is_string(content)) {
        add_text(u, role, json_string_value(content));
        return;
    }
    if (!json_is_array(content) || json_array_size(content) == 0)
        read_fail(r, STATUS_INVALID, u->where,
                  "%s.content: found %s, expected a string or an array of blocks", u->where,
                  describe_json(content, text, sizeof text));
    for (size_t i = 0; i < json_array_size(content) && r->status == STATUS_OK; i++) {
        snprintf(u->where, sizeof u->where, "messages[%zu].content[%zu]", u->index, i);
        read_block(u, role, json_array_get(content, i));
    }
}

/* A last turn of the assistant is the beginning of the answer. */
static void continue_last(struct turns *u)
{
    const json_t *last = json_array_get(u->messages, json_array_size(u->messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    if (!role || strcmp(role, "assistant") != 0 || json_object_get(last, "tool_calls"))
        return;
    put_new(&u->t->in, u->t->out, "continue_final_message", json_true());
    put_new(&u->t->in, u->t->out, "add_generation_prompt", json_false());
}

static void read_messages(struct translation *t)
{
    struct turns u = {.t = t, .messages = json_array(), .tool_names = json_object()};
    const json_t *system = json_object_get(t->in.object, "system"), *messages = NULL;
    if (json_is_set(system))
        translate_message(t, u.messages, "system", read_texts(t, system, "system"));
    if (!read_array(&t->in, "messages", &messages))
        read_fail(&t->in, STATUS_INVALID, "messages", "messages: missing; expected an array of messages");
    else if (json_array_size(messages) == 0)
        read_fail(&t->in, STATUS_INVALID, "messages", "messages: found none, expected at least one");
    for (; u.index < json_array_size(messages) && t->in.status == STATUS_OK; u.index++)
        read_turn(&u, json_array_get(messages, u.index));
    continue_last(&u);
    json_decref(u.tool_names);
    put_new(&t->in, t->out, "messages", u.messages);
    json_object_del(t->out, "system");
}

/* ---- tools */

static void read_tool(struct translation *t, json_t *tools, const json_t *tool, size_t index)
{
    struct reader *r = &t->in;
    char where[32];
    snprintf(where, sizeof where, "tools[%zu]", index);
    const char *type = json_string_value(json_object_get(tool, "type"));
    if (type && strcmp(type, "custom") != 0)
        read_fail(r, STATUS_UNSUPPORTED, where,
                  "%s: the server has no tool of type \"%.60s\"; only the caller's own tools are supported",
                  where, type);
    const char *name = block_text(r, tool, "name", where);
    const json_t *schema = json_object_get(tool, "input_schema");
    if (!json_is_object(schema))
        read_fail(r, STATUS_INVALID, where, "%s.input_schema: expected an object", where);
    json_t *function = json_object(), *out = json_object();
    put_text(r, function, "name", name);
    put_same(r, function, "description", json_object_get(tool, "description"));
    put_same(r, function, "parameters", schema);
    put_same(r, function, "strict", json_object_get(tool, "strict"));
    put_text(r, out, "type", "function");
    put_new(r, out, "function", function);
    push_new(r, tools, out);
}

static void read_tool_choice(struct translation *t)
{
    static const char *const ours[][2] = {{"auto", "auto"}, {"any", "required"}, {"none", "none"}};
    struct reader *r = &t->in;
    const json_t *choice = NULL;
    json_object_del(t->out, "tool_choice");
    if (!read_object(r, "tool_choice", &choice))
        return;
    const char *type = block_text(r, choice, "type", "tool_choice");
    if (json_is_true(json_object_get(choice, "disable_parallel_tool_use")))
        put_new(r, t->out, "parallel_tool_calls", json_false());
    for (size_t i = 0; i < 3; i++)
        if (strcmp(type, ours[i][0]) == 0) {
            put_text(r, t->out, "tool_choice", ours[i][1]);
            return;
        }
    if (strcmp(type, "tool") != 0)
        read_fail(r, STATUS_INVALID, "tool_choice",
                  "tool_choice.type: found \"%.40s\", expected auto, any, tool or none", type);
    json_t *out = json_object(), *function = json_object();
    put_text(r, out, "type", "function");
    put_text(r, function, "name", block_text(r, choice, "name", "tool_choice"));
    put_new(r, out, "function", function);
    put_new(r, t->out, "tool_choice", out);
}

static void read_tools(struct translation *t)
{
    const json_t *tools = NULL;
    read_tool_choice(t);
    json_object_del(t->out, "tools");
    if (!read_array(&t->in, "tools", &tools) || json_array_size(tools) == 0)
        return;
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(tools) && t->in.status == STATUS_OK; i++)
        read_tool(t, out, json_array_get(tools, i), i);
    put_new(&t->in, t->out, "tools", out);
}

/* ---- the rest */

/* enabled and adaptive are the template's business; a budget of tokens for it is not kept apart. */
static void read_thinking_mode(struct translation *t)
{
    const json_t *thinking = NULL;
    if (!read_object(&t->in, "thinking", &thinking))
        return;
    const char *type = block_text(&t->in, thinking, "type", "thinking");
    if (strcmp(type, "enabled") != 0 && strcmp(type, "disabled") != 0 && strcmp(type, "adaptive") != 0)
        read_fail(&t->in, STATUS_INVALID, "thinking",
                  "thinking.type: found \"%.40s\", expected enabled, disabled or adaptive", type);
    translate_thinking(t, strcmp(type, "disabled") != 0);
    json_object_del(t->out, "thinking");
}

/* {"type": "json_schema", "schema": …}: in output_config.format, or output_format as it was called first. */
static void read_format(struct translation *t)
{
    const json_t *config = NULL, *format = json_object_get(t->in.object, "output_format");
    if (read_object(&t->in, "output_config", &config) && json_is_set(json_object_get(config, "format")))
        format = json_object_get(config, "format");
    if (!json_is_set(format))
        return;
    const char *type = block_text(&t->in, format, "type", "output_format");
    if (strcmp(type, "json_schema") != 0 || !json_is_object(json_object_get(format, "schema")))
        read_fail(&t->in, STATUS_INVALID, "output_format",
                  "output_format: expected {\"type\": \"json_schema\", \"schema\": an object}");
    translate_schema(t, json_object_get(format, "schema"));
}

/* What is wrong with them is said by their name here. */
static void read_stops(struct translation *t)
{
    const json_t *stops = json_object_get(t->in.object, "stop_sequences");
    bool good = !json_is_set(stops) || json_is_string(stops) || json_is_array(stops);
    char text[96];
    for (size_t i = 0; i < json_array_size(stops); i++)
        good = good && json_is_string(json_array_get(stops, i));
    if (!good)
        read_fail(&t->in, STATUS_INVALID, "stop_sequences",
                  "stop_sequences: found %s, expected an array of strings",
                  describe_json(stops, text, sizeof text));
    translate_rename(t, "stop_sequences", "stop");
}

static enum status translate_any(struct completion *c, bool counts)
{
    static const char *const refused[] = {"mcp_servers", "container", "logprobs", "top_logprobs"};
    static const char *const gone[] = {"max_tokens_to_sample", "stop",          "metadata",
                                       "output_config",        "output_format", "stream_options"};
    struct translation t;
    const json_t *metadata = NULL;
    int64_t n;
    translate_begin(&t, c);
    c->form = arena_alloc(c->r->arena, sizeof(struct anthropic_stream));
    if (!c->form)
        read_fail(&t.in, STATUS_NO_MEMORY, NULL, "no memory for the request");
    translate_refuse(&t, KEYS_OF(refused));
    translate_refuse_openai(&t);
    translate_drop(&t, KEYS_OF(gone));
    if (counts)
        json_object_del(t.out, "stream");
    else if (!read_int(&t.in, "max_tokens", 1, INT32_MAX, &n))
        read_fail(&t.in, STATUS_INVALID, "max_tokens", "max_tokens: missing; expected a whole number from 1");
    read_stops(&t);
    if (read_object(&t.in, "metadata", &metadata))
        put_same(&t.in, t.out, "user", json_object_get(metadata, "user_id"));
    read_thinking_mode(&t);
    read_format(&t);
    read_tools(&t);
    read_messages(&t);
    return translate_end(&t);
}

static enum status translate(struct completion *c)
{
    return translate_any(c, false);
}

static enum status translate_count(struct completion *c)
{
    return translate_any(c, true);
}

/* ---- templates that want one system message, at the beginning */

/* Later system messages become words of the user; turns of the user that meet by it are one. False: there are
 * none. */
static bool fold_system(json_t *messages)
{
    bool folded = false;
    for (size_t i = 1; i < json_array_size(messages); i++) {
        json_t *m = json_array_get(messages, i);
        if (message_has_role(m, "system"))
            folded = json_object_set_new(m, "role", json_string("user")) == 0;
    }
    for (size_t i = json_array_size(messages); folded && i-- > 1;) {
        json_t *m = json_array_get(messages, i), *before = json_array_get(messages, i - 1);
        if (!message_has_role(m, "user") || !message_has_role(before, "user"))
            continue;
        json_array_extend(json_object_get(before, "content"), json_object_get(m, "content"));
        json_array_remove(messages, i);
    }
    return folded;
}

static enum status parse(struct completion *c)
{
    enum status s = completion_parse_chat(c);
    if (s != STATUS_INVALID || !fold_system(json_object_get(c->body, "messages")))
        return s;
    c->fault = (struct fault){0};
    return completion_parse_chat(c);
}

static const struct dialect messages = {.name = "messages",
                                        .id_prefix = "msg_",
                                        .api = API_CHAT,
                                        .translate = translate,
                                        .parse = parse,
                                        .render = anthropic_render,
                                        .start = anthropic_start,
                                        .chunk = anthropic_chunk,
                                        .end = anthropic_end,
                                        .fail = anthropic_fail,
                                        .stream_type = SSE_TYPE,
                                        .ping = ANTHROPIC_PING};

static const struct dialect count = {.name = "count_tokens",
                                     .id_prefix = "msg_",
                                     .api = API_CHAT,
                                     .counts = true,
                                     .translate = translate_count,
                                     .parse = parse,
                                     .render = completion_render_count};

void api_messages(struct request *r)
{
    completion_begin(r, &messages);
}

void api_count_tokens(struct request *r)
{
    completion_begin(r, &count);
}
