/* POST /v1/chat/completions and /apply-template: messages through the model's own template to a prompt.
 *
 * A message's content may be a string or parts of type text, which are joined by line breaks as vLLM does.
 * Text that looks like a special token becomes one, as with transformers: templates and their models expect
 * that. */
#include <string.h>

#include "api.h"
#include "api_parse.h"
#include "base/clock.h"
#include "bundle.h"
#include "completion.h"
#include "server.h"
#include "sse.h"

#define MESSAGES_MAX 4096U

static bool is_role(const char *role)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", "function"};
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (strcmp(role, roles[i]) == 0)
            return true;
    return false;
}

/* The parts' texts as one string, new; NULL after a fault. */
static json_t *join_parts(struct reader *r, const json_t *parts, size_t message)
{
    char param[64];
    struct buf text;
    buf_init(&text, 0);
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i), *t = json_object_get(part, "text");
        const char *type = json_string_value(json_object_get(part, "type"));
        snprintf(param, sizeof param, "messages[%zu].content[%zu]", message, i);
        if (json_is_string(part))
            t = part;
        else if (!type || strcmp(type, "text") != 0)
            read_fail(r, STATUS_UNSUPPORTED, param, "%s: type \"%.40s\" is not supported, only \"text\" is",
                      param, type ? type : "");
        if (!json_is_string(t))
            read_fail(r, STATUS_INVALID, param, "%s.text: expected a string", param);
        else
            buf_printf(&text, "%s%s", i ? "\n" : "", json_string_value(t));
    }
    if (text.failed)
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the messages");
    json_t *joined = r->status == STATUS_OK ? json_stringn(text.data ? text.data : "", text.length) : NULL;
    buf_fini(&text);
    return joined;
}

/* A copy of the message with a plain text content. */
static json_t *read_message(struct reader *r, const json_t *m, size_t index)
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
    if (json_is_array(content))
        json_object_set_new(copy, "content", join_parts(r, content, index));
    else if (!content || json_is_null(content))
        json_object_set_new(copy, "content", json_string(""));
    return copy;
}

static json_t *read_messages(struct reader *r)
{
    const json_t *messages = NULL;
    if (!read_array(r, "messages", &messages))
        read_fail(r, STATUS_INVALID, "messages", "messages: missing; expected an array of messages");
    size_t n = json_array_size(messages);
    if (r->status == STATUS_OK && (n == 0 || n > MESSAGES_MAX))
        read_fail(r, STATUS_INVALID, "messages", "messages: found %zu, expected 1 to %u", n, MESSAGES_MAX);
    json_t *list = json_array();
    for (size_t i = 0; i < n && r->status == STATUS_OK; i++)
        json_array_append_new(list, read_message(r, json_array_get(messages, i), i));
    if (r->status == STATUS_OK && json_array_size(list) != n)
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the messages");
    return list;
}

/* The caller's own variables; those that we set are not theirs to change. */
static void add_kwargs(struct reader *r, json_t *variables)
{
    static const char *const ours[] = {
        "messages",  "tools",    "documents", "add_generation_prompt", "continue_final_message",
        "bos_token", "eos_token"};
    const json_t *kwargs = NULL;
    if (!read_object(r, "chat_template_kwargs", &kwargs))
        return;
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        if (json_object_get(kwargs, ours[i]))
            read_fail(r, STATUS_INVALID, "chat_template_kwargs",
                      "chat_template_kwargs: \"%s\" can't be set there", ours[i]);
    if (r->status == STATUS_OK)
        json_object_update_missing(variables, (json_t *)(uintptr_t)kwargs);
}

static json_t *make_variables(struct reader *r, const struct text_model *text, bool add_generation_prompt)
{
    json_t *v = json_object();
    json_object_set_new(v, "messages", read_messages(r));
    json_object_set_new(v, "add_generation_prompt", json_boolean(add_generation_prompt));
    if (text->bos_text[0]) /* one that the model lacks is undefined, as in transformers */
        json_object_set_new(v, "bos_token", json_string(text->bos_text));
    if (text->eos_text[0])
        json_object_set_new(v, "eos_token", json_string(text->eos_text));
    json_object_set_new(v, "tools", json_null());
    json_object_set_new(v, "documents", json_null());
    add_kwargs(r, v);
    return v;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Cuts the rendering behind the last message's text, so that the model goes on with it (as transformers'
 * continue_final_message: the text's last occurrence, and its own white space at the end if the template kept
 * it). */
static void cut_after_last(struct reader *r, const json_t *variables, struct buf *rendered)
{
    const json_t *messages = json_object_get(variables, "messages");
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const char *begin = json_string_value(json_object_get(last, "content"));
    while (begin && is_space(*begin))
        begin++;
    size_t whole = begin ? strlen(begin) : 0, n = whole;
    while (n && is_space(begin[n - 1]))
        n--;
    const char *found = NULL;
    for (size_t at = 0; n && at + n <= rendered->length; at++)
        if (memcmp(rendered->data + at, begin, n) == 0)
            found = rendered->data + at;
    if (!found) {
        read_fail(r, STATUS_INVALID, "continue_final_message",
                  "continue_final_message: the last message's text is not found in the template's output");
        return;
    }
    size_t end = (size_t)(found - rendered->data) + n;
    if (end + (whole - n) <= rendered->length && memcmp(rendered->data + end, begin + n, whole - n) == 0)
        end += whole - n;
    rendered->length = end;
    rendered->data[end] = '\0';
}

/* Messages of `body` to the prompt's text; `own`: the voice's template, or NULL. */
static enum status render_messages(const struct text_model *text, const struct chat_template *own,
                                   const json_t *body, struct buf *out, struct fault *f)
{
    struct reader r = {.object = body, .fault = f};
    bool continue_last = false, generation_prompt = true;
    struct error err;
    if (!text->chat_template && !own)
        return fault_set(f, STATUS_UNSUPPORTED, "messages",
                         "this model has no chat template; use /v1/completions");
    read_bool(&r, "continue_final_message", &continue_last);
    generation_prompt = !continue_last;
    read_bool(&r, "add_generation_prompt", &generation_prompt);
    if (continue_last && generation_prompt)
        read_fail(&r, STATUS_INVALID, "continue_final_message",
                  "continue_final_message and add_generation_prompt can't both be true");
    json_t *variables = make_variables(&r, text, generation_prompt);
    const struct chat_template *template =
        own ? own : text_model_template(text, json_is_array(json_object_get(variables, "tools")));
    if (r.status == STATUS_OK &&
        chat_template_render(template, variables, clock_wall_ms(), NULL, out, &err) != STATUS_OK)
        read_fail(&r, err.status == STATUS_NO_MEMORY ? STATUS_NO_MEMORY : STATUS_INVALID, "messages",
                  "chat template: %s", err.text);
    if (r.status == STATUS_OK && continue_last)
        cut_after_last(&r, variables, out);
    json_decref(variables);
    return r.status;
}

enum status completion_parse_chat(struct completion *c)
{
    struct buf rendered;
    buf_init(&rendered, 0);
    enum status s = render_messages(c->server->base.text, c->bundle ? c->bundle->chat_template : NULL,
                                    c->body, &rendered, &c->fault);
    if (s == STATUS_OK)
        s = completion_add_prompts(c, 1);
    c->params.echo = false; /* of completions only */
    if (s == STATUS_OK)
        s = completion_encode(c, 0, rendered.data ? rendered.data : "", rendered.length, false);
    if (s == STATUS_OK && c->prompts[0].ids.n_ids == 0)
        s = fault_set(&c->fault, STATUS_INVALID, "messages",
                      "messages: the template makes an empty prompt of them");
    buf_fini(&rendered);
    return s;
}

static const struct dialect dialect = {.name = "chat",
                                       .id_prefix = "chatcmpl-",
                                       .api = API_CHAT,
                                       .parse = completion_parse_chat,
                                       .render = completion_render,
                                       .chunk = completion_render_chunk,
                                       .end = completion_render_end,
                                       .fail = completion_render_fail,
                                       .stream_type = SSE_TYPE,
                                       .ping = SSE_PING};

void api_chat_completions(struct request *r)
{
    completion_begin(r, &dialect);
}

void api_apply_template(struct request *r)
{
    struct fault f = {0};
    struct buf prompt, out;
    json_t *body = NULL;
    buf_init(&prompt, 0);
    buf_init(&out, 0);
    enum status s = server_serving(r->server, &f.error);
    if (s == STATUS_OK)
        s = parse_body(r->body, r->n_body, &body, &f);
    if (s == STATUS_OK)
        s = render_messages(r->server->base.text, NULL, body, &prompt, &f);
    if (s == STATUS_OK) {
        struct jw w = {.out = &out};
        jw_begin(&w, '{');
        jw_key(&w, "prompt");
        jw_bytes(&w, prompt.data ? prompt.data : "", prompt.length);
        jw_end(&w, '}');
        reply_json(r, 200, &out);
    } else {
        reply_fault(r, &f);
    }
    json_decref(body);
    buf_fini(&prompt);
    buf_fini(&out);
}
