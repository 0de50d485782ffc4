/* The messages of a chat, checked, in the form that templates know.
 *
 * A message's content may be a string or parts that are text, which are joined by line breaks as vLLM does.
 * Text that looks like a special token becomes one, as with transformers: templates and their models expect
 * that. */
#include "api_messages.h"

#include <string.h>

#include "api_tools.h"

#define MESSAGES_MAX 4096U

static bool is_role(const char *role)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", "function"};
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (strcmp(role, roles[i]) == 0)
            return true;
    return false;
}

/* Where a part of this type has its text: as a chat, its history and the Responses name them; NULL: it is no
 * text. */
static const char *text_key(const char *type)
{
    static const char *const types[][2] = {
        {"text", "text"}, {"refusal", "refusal"}, {"input_text", "text"}, {"output_text", "text"}};
    for (size_t i = 0; type && i < sizeof types / sizeof types[0]; i++)
        if (strcmp(type, types[i][0]) == 0)
            return types[i][1];
    return NULL;
}

/* The parts' texts as one string, new; NULL after a fault. */
static json_t *join_parts(struct reader *r, const json_t *parts, size_t message)
{
    char param[64];
    struct buf text;
    buf_init(&text, 0);
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        const char *type = json_string_value(json_object_get(part, "type")), *key = text_key(type);
        const json_t *t = json_object_get(part, key ? key : "text");
        snprintf(param, sizeof param, "messages[%zu].content[%zu]", message, i);
        if (json_is_string(part))
            t = part;
        else if (!key)
            read_fail(r, STATUS_UNSUPPORTED, param, "%s: type \"%.40s\" is not supported, only \"text\" is",
                      param, type ? type : "");
        if (!json_is_string(t))
            read_fail(r, STATUS_INVALID, param, "%s.%s: expected a string", param, key ? key : "text");
        if (i)
            buf_putc(&text, '\n');
        buf_append(&text, json_string_value(t), json_string_length(t));
    }
    if (text.failed)
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the messages");
    json_t *joined = r->status == STATUS_OK ? json_stringn(text.data ? text.data : "", text.length) : NULL;
    buf_fini(&text);
    return joined;
}

json_t *message_text(struct reader *r, const json_t *message, size_t index)
{
    json_t *content = json_object_get(message, "content");
    if (json_is_array(content))
        return join_parts(r, content, index);
    return json_is_string(content) ? json_incref(content) : NULL;
}

/* Which of two empty things a template calls an answer that has calls and no text. */
static json_t *no_content(const json_t *m, const struct message_style *style)
{
    return style->null_content && json_array_size(json_object_get(m, "tool_calls")) ? json_null()
                                                                                    : json_string("");
}

/* A copy of the message with a plain text content. */
static json_t *read_message(struct reader *r, const json_t *m, size_t index,
                            const struct message_style *style)
{
    char text[96], param[64];
    snprintf(param, sizeof param, "messages[%zu]", index);
    const char *role = json_string_value(json_object_get(m, "role"));
    json_t *content = json_object_get(m, "content");
    if (!json_is_object(m))
        read_fail(r, STATUS_INVALID, param, "%s: found %s, expected an object", param,
                  describe_json(m, text, sizeof text));
    else if (!role || !is_role(role))
        read_fail(r, STATUS_INVALID, param,
                  "%s.role: found %s, expected system, developer, user, assistant or tool", param,
                  role ? describe_json(json_object_get(m, "role"), text, sizeof text) : "none");
    else if (content && !json_is_string(content) && !json_is_array(content) && !json_is_null(content))
        read_fail(r, STATUS_INVALID, param, "%s.content: found %s, expected a string or an array of parts",
                  param, describe_json(content, text, sizeof text));
    else if ((!content || json_is_null(content)) && strcmp(role, "assistant") != 0)
        read_fail(r, STATUS_INVALID, param, "%s.content: missing", param);
    json_t *copy = r->status == STATUS_OK && role ? json_copy((json_t *)(uintptr_t)m) : NULL;
    if (!copy)
        return NULL;
    if (strcmp(role, "developer") == 0) /* templates know it as system */
        json_object_set_new(copy, "role", json_string("system"));
    if (json_is_string(json_object_get(m, "reasoning")) && !json_object_get(m, "reasoning_content"))
        json_object_set(copy, "reasoning_content", json_object_get(m, "reasoning")); /* newer vLLM's name */
    if (json_is_array(content))
        json_object_set_new(copy, "content", message_text(r, m, index));
    read_tool_message(r, copy, index, style->syntax);
    if (!content || json_is_null(content))
        json_object_set_new(copy, "content", no_content(copy, style));
    return copy;
}

json_t *read_messages(struct reader *r, const struct message_style *style)
{
    const json_t *messages = NULL;
    if (!read_array(r, "messages", &messages))
        read_fail(r, STATUS_INVALID, "messages", "messages: missing; expected an array of messages");
    size_t n = json_array_size(messages);
    if (r->status == STATUS_OK && (n == 0 || n > MESSAGES_MAX))
        read_fail(r, STATUS_INVALID, "messages", "messages: found %zu, expected 1 to %u", n, MESSAGES_MAX);
    json_t *list = json_array();
    for (size_t i = 0; i < n && r->status == STATUS_OK; i++)
        json_array_append_new(list, read_message(r, json_array_get(messages, i), i, style));
    if (r->status == STATUS_OK && json_array_size(list) != n)
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the messages");
    return list;
}
