/* POST /v1/responses and /v1/responses/input_tokens: the Responses' body to that of a chat. How the answer is
 * shown is in responses_json.c; what is kept of it in response_store.c, and asked for in
 * api_kept_responses.c. */
#include "api_responses.h"

#include <gnutls/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "body_defaults.h"
#include "prompt_cut.h"
#include "response_store.h"
#include "responses_json.h"
#include "server.h"
#include "sse.h"
#include "tenant_gate.h"
#include "translate.h"

#define REFERENCES_MAX 1000U /* of a request: each may be of another response, which is read */

struct items {
    struct translation *t;
    json_t *messages;
    json_t *reasoning; /* of the next turn of the assistant; or NULL */
    json_t *names;     /* of calls: call_id → name */
    char where[64];
};

/* ---- contents */

static const char *text_of(struct reader *r, const json_t *object, const char *key, const char *where)
{
    char text[96];
    const json_t *v = json_object_get(object, key);
    if (!json_is_string(v))
        read_fail(r, STATUS_INVALID, where, "%s.%s: found %s, expected a string", where, key,
                  describe_json(v, text, sizeof text));
    return json_is_string(v) ? json_string_value(v) : "";
}

static void push_part(struct reader *r, json_t *parts, const json_t *text)
{
    json_t *part = json_object();
    put_text(r, part, "type", "text");
    put_same(r, part, "text", text);
    push_new(r, parts, part);
}

/* A string, or parts that are text. */
static json_t *read_content(struct items *m, const json_t *v)
{
    struct reader *r = &m->t->in;
    char text[96];
    json_t *parts = json_array();
    if (json_is_string(v))
        push_part(r, parts, v);
    else if (!json_is_array(v))
        read_fail(r, STATUS_INVALID, m->where, "%s: found %s, expected a content of text", m->where,
                  describe_json(v, text, sizeof text));
    for (size_t i = 0; i < json_array_size(v) && r->status == STATUS_OK; i++) {
        const json_t *part = json_array_get(v, i);
        const char *type = text_of(r, part, "type", m->where);
        bool said =
            strcmp(type, "input_text") == 0 || strcmp(type, "output_text") == 0 || strcmp(type, "text") == 0;
        const char *key = said ? "text" : strcmp(type, "refusal") == 0 ? "refusal" : NULL;
        if (key)
            (void)text_of(r, part, key, m->where);
        if (key && r->status == STATUS_OK)
            push_part(r, parts, json_object_get(part, key));
        else
            read_fail(r, STATUS_UNSUPPORTED, m->where,
                      "%s.content[%zu]: parts of type \"%.40s\" are not supported, only text", m->where, i,
                      type);
    }
    return parts;
}

/* ---- items */

static void give_reasoning(struct items *m, json_t *turn)
{
    if (m->reasoning)
        put_new(&m->t->in, turn, "reasoning_content", m->reasoning);
    m->reasoning = NULL;
}

static void read_message(struct items *m, const json_t *item)
{
    static const char *const roles[] = {"user", "assistant", "system", "developer"};
    struct reader *r = &m->t->in;
    const char *role = text_of(r, item, "role", m->where);
    bool known = false;
    for (size_t i = 0; i < 4; i++)
        known |= strcmp(role, roles[i]) == 0;
    if (!known)
        read_fail(r, STATUS_INVALID, m->where,
                  "%s.role: found \"%.40s\", expected user, assistant, system or developer", m->where, role);
    if (r->status != STATUS_OK)
        return;
    json_t *message =
        translate_message(m->t, m->messages, role, read_content(m, json_object_get(item, "content")));
    if (strcmp(role, "assistant") == 0)
        give_reasoning(m, message);
}

/* A function in a namespace has one name for the model. New. */
static json_t *name_in(const char *space, const char *name)
{
    return json_sprintf("%s__%s", space, name);
}

/* Calls belong to the assistant's turn before them. */
static void read_call(struct items *m, const json_t *item)
{
    struct reader *r = &m->t->in;
    const char *id = text_of(r, item, "call_id", m->where), *name = text_of(r, item, "name", m->where);
    const char *space = json_string_value(json_object_get(item, "namespace"));
    const json_t *arguments = json_object_get(item, "arguments");
    (void)text_of(r, item, "arguments", m->where);
    if (r->status != STATUS_OK)
        return;
    json_t *turn = json_array_get(m->messages, json_array_size(m->messages) - 1);
    if (!message_has_role(turn, "assistant") || m->reasoning)
        turn = translate_message(m->t, m->messages, "assistant", json_array());
    give_reasoning(m, turn);
    if (!json_object_get(turn, "tool_calls"))
        put_new(r, turn, "tool_calls", json_array());
    json_t *full = space ? name_in(space, name) : json_string(name);
    const char *shown = full ? json_string_value(full) : name;
    push_new(r, json_object_get(turn, "tool_calls"), translate_call(r, id, shown, arguments));
    put_new(r, m->names, id, full);
}

static void read_output(struct items *m, const json_t *item)
{
    struct reader *r = &m->t->in;
    const char *id = text_of(r, item, "call_id", m->where);
    json_t *message =
        translate_message(m->t, m->messages, "tool", read_content(m, json_object_get(item, "output")));
    put_text(r, message, "tool_call_id", id);
    put_same(r, message, "name", json_object_get(m->names, id));
}

/* What was thought, where it came in the open; a summary stands for it. */
static void read_reasoning(struct items *m, const json_t *item)
{
    const json_t *parts = json_object_get(item, "content");
    struct buf text;
    buf_init(&text, 0);
    if (json_array_size(parts) == 0)
        parts = json_object_get(item, "summary");
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *s = json_object_get(json_array_get(parts, i), "text");
        buf_puts(&text, text.length ? "\n" : "");
        if (json_is_string(s))
            buf_append(&text, json_string_value(s), json_string_length(s));
    }
    json_decref(m->reasoning);
    m->reasoning = text.length ? json_stringn(text.data, text.length) : NULL;
    buf_fini(&text);
}

static void read_item(struct items *m, const json_t *item)
{
    struct reader *r = &m->t->in;
    char text[96];
    const json_t *v = json_object_get(item, "type");
    const char *type = json_is_string(v) ? json_string_value(v) : v ? "" : "message";
    if (!json_is_object(item))
        read_fail(r, STATUS_INVALID, m->where, "%s: found %s, expected an object", m->where,
                  describe_json(item, text, sizeof text));
    else if (strcmp(type, "message") == 0)
        read_message(m, item);
    else if (strcmp(type, "function_call") == 0)
        read_call(m, item);
    else if (strcmp(type, "function_call_output") == 0)
        read_output(m, item);
    else if (strcmp(type, "reasoning") == 0)
        read_reasoning(m, item);
    else
        read_fail(r, STATUS_UNSUPPORTED, m->where,
                  "%s: items of type \"%.40s\" are not supported, only message, function_call, "
                  "function_call_output and reasoning",
                  m->where, type);
}

/* ---- the responses before */

static bool has_id(const json_t *item, const char *id)
{
    const char *is = json_string_value(json_object_get(item, "id"));
    return is && strcmp(is, id) == 0;
}

/* An item of what a response has read, by the id that it was given; borrowed, or NULL. */
static json_t *read_item_of(const json_t *input, const char *response, const char *id)
{
    const char *in = strstr(id, INPUT_ITEM);
    size_t index = in ? strtoul(in + strlen(INPUT_ITEM), NULL, 10) : SIZE_MAX;
    json_t *item = json_array_get(input, index), *is = item ? read_item_id(response, item, index) : NULL;
    bool same = is && strcmp(json_string_value(is), id) == 0;
    json_decref(is);
    return same ? item : NULL;
}

/* The response that a reference meant, which the next one mostly means, too. */
struct known_response {
    char id[RESPONSE_ID_BYTES];
    json_t *kept;
};

static enum status know_response(struct translation *t, const struct responses_form *form, const char *id,
                                 struct known_response *k)
{
    if (k->kept && strcmp(k->id, id) == 0)
        return STATUS_OK;
    json_decref(k->kept);
    snprintf(k->id, sizeof k->id, "%s", id);
    return kept_response(t->c->server, form->owner, id, &k->kept, t->in.fault);
}

/* What {"type": "item_reference", "id"} stands for: an item that a kept response said, whose id is in its own
 * ("msg_RESPONSE_2"), or has read. New, or NULL after a fault. */
static json_t *find_item(struct translation *t, const struct responses_form *form, struct known_response *k,
                         const json_t *reference, const char *where)
{
    char response[RESPONSE_ID_BYTES];
    json_t *found = NULL;
    const char *id = text_of(&t->in, reference, "id", where), *begin = strchr(id, '_');
    size_t n = begin ? strcspn(begin + 1, "_") : 0;
    if (n == 0 || n >= sizeof response - strlen("resp_"))
        read_fail(&t->in, STATUS_INVALID, where,
                  "%s: item_reference: found the id \"%.80s\", expected that of an answer's item", where, id);
    if (t->in.status != STATUS_OK)
        return NULL;
    snprintf(response, sizeof response, "resp_%.*s", (int)n, begin + 1);
    enum status st = know_response(t, form, response, k);
    if (st == STATUS_OK) {
        const json_t *output = json_object_get(json_object_get(k->kept, "response"), "output");
        for (size_t i = 0; i < json_array_size(output) && !found; i++)
            if (has_id(json_array_get(output, i), id))
                found = json_array_get(output, i);
        if (!found)
            found = read_item_of(json_object_get(k->kept, "input"), response, id);
    }
    if (st != STATUS_OK && st != STATUS_NOT_FOUND)
        read_fail(&t->in, st, "input", "the item '%.80s' can't be read now", id);
    else if (!found)
        read_fail(&t->in, STATUS_NOT_FOUND, "input", "Item with id '%.80s' not found.", id);
    return json_incref(found);
}

/* Its type may be missing. */
static bool is_reference(const json_t *item)
{
    const char *type = json_string_value(json_object_get(item, "type"));
    return type ? strcmp(type, "item_reference") == 0
                : json_object_size(item) == 1 && json_object_get(item, "id") != NULL;
}

static void add_items(struct translation *t, struct responses_form *form, const json_t *input)
{
    char where[32];
    struct known_response known = {.kept = NULL};
    size_t n_references = 0;
    for (size_t i = 0; i < json_array_size(input); i++)
        n_references += is_reference(json_array_get(input, i));
    if (n_references > REFERENCES_MAX)
        read_fail(&t->in, STATUS_INVALID, "input",
                  "input: found %zu items of type item_reference, at most %u are taken", n_references,
                  REFERENCES_MAX);
    for (size_t i = 0; i < json_array_size(input) && t->in.status == STATUS_OK; i++) {
        json_t *item = json_array_get(input, i);
        snprintf(where, sizeof where, "input[%zu]", i);
        item = is_reference(item) ? find_item(t, form, &known, item, where) : json_incref(item);
        if (item)
            push_new(&t->in, form->input, item);
    }
    json_decref(known.kept);
}

/* Its items and what was said, before the new ones. */
static void read_previous(struct translation *t, struct responses_form *form)
{
    const char *id = NULL;
    json_t *kept = NULL;
    if (!read_text(&t->in, "previous_response_id", &id))
        return;
    enum status st = kept_response(t->c->server, form->owner, id, &kept, t->in.fault);
    if (st != STATUS_OK) {
        bool gone = st == STATUS_NOT_FOUND;
        read_fail(&t->in, st, "previous_response_id",
                  gone ? "Previous response with id '%.60s' not found."
                       : "the previous response '%.60s' can't be read now",
                  id);
        if (gone)
            snprintf(t->in.fault->code, sizeof t->in.fault->code, "previous_response_not_found");
        return;
    }
    if (json_array_extend(form->input, json_object_get(kept, "input")) != 0 ||
        json_array_extend(form->input, json_object_get(json_object_get(kept, "response"), "output")) != 0)
        read_fail(&t->in, STATUS_NO_MEMORY, NULL, "no memory for the request");
    json_decref(kept);
}

/* All items, old and new, into form->input. */
static size_t collect_items(struct translation *t, struct responses_form *form)
{
    const json_t *input = json_object_get(t->in.object, "input");
    char text[96];
    read_previous(t, form);
    size_t n_before = json_array_size(form->input);
    if (json_is_string(input)) {
        json_t *item = json_object();
        put_text(&t->in, item, "type", "message");
        put_text(&t->in, item, "role", "user");
        put_same(&t->in, item, "content", input);
        push_new(&t->in, form->input, item);
    } else if (json_is_array(input)) {
        add_items(t, form, input);
    } else {
        read_fail(&t->in, STATUS_INVALID, "input", "input: found %s, expected a string or an array of items",
                  describe_json(input, text, sizeof text));
    }
    if (t->in.status == STATUS_OK && json_array_size(form->input) == 0)
        read_fail(&t->in, STATUS_INVALID, "input", "input: found no items, expected at least one");
    return n_before;
}

static void read_items(struct translation *t, struct responses_form *form)
{
    struct items m = {.t = t, .messages = json_array(), .names = json_object()};
    const char *instructions = NULL;
    if (read_text(&t->in, "instructions", &instructions) && instructions[0])
        translate_message(t, m.messages, "system", json_string(instructions));
    size_t n_before = collect_items(t, form);
    for (size_t i = 0; i < json_array_size(form->input) && t->in.status == STATUS_OK; i++) {
        bool old = i < n_before;
        snprintf(m.where, sizeof m.where, old ? "previous[%zu]" : "input[%zu]", old ? i : i - n_before);
        read_item(&m, json_array_get(form->input, i));
    }
    json_decref(m.names);
    json_decref(m.reasoning);
    put_new(&t->in, t->out, "messages", m.messages);
}

/* ---- tools, format */

struct tools {
    struct translation *t;
    struct responses_form *form;
    json_t *out; /* OpenAI's of a chat */
    char where[64];
};

/* The tool is the answer's own copy. space: whose function it is, or NULL */
static void read_function(struct tools *u, json_t *tool, const char *space)
{
    static const char *const keys[] = {"name", "description", "parameters", "strict"};
    struct reader *r = &u->t->in;
    const char *type = text_of(r, tool, "type", u->where);
    if (strcmp(type, "function") != 0)
        read_fail(r, STATUS_UNSUPPORTED, u->where,
                  "%s: tools of type \"%.40s\" are not supported, only \"function\"", u->where, type);
    json_t *copy = json_object(), *function = json_object();
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        put_same(r, function, keys[i], json_object_get(tool, keys[i]));
    if (!json_object_get(tool, "parameters"))
        put_new(r, tool, "parameters", json_null());
    push_new(r, u->form->functions, json_pack("[O, O]", tool, function));
    if (space) {
        json_t *name = name_in(space, text_of(r, tool, "name", u->where)), *parts = json_object();
        put_text(r, parts, "namespace", space);
        put_same(r, parts, "name", json_object_get(tool, "name"));
        put_same(r, function, "name", name);
        put_new(r, u->form->spaces, name ? json_string_value(name) : "", parts);
        json_decref(name);
    }
    put_text(r, copy, "type", "function");
    put_new(r, copy, "function", function);
    push_new(r, u->out, copy);
}

/* Functions under one name, as Codex groups them. */
static void read_namespace(struct tools *u, const json_t *tool)
{
    struct reader in = {.object = tool, .fault = u->t->in.fault, .status = u->t->in.status};
    const json_t *tools = NULL;
    char where[sizeof u->where];
    const char *space = text_of(&in, tool, "name", u->where);
    snprintf(where, sizeof where, "%s", u->where);
    read_array(&in, "tools", &tools);
    u->t->in.status = in.status;
    for (size_t i = 0; i < json_array_size(tools) && u->t->in.status == STATUS_OK; i++) {
        snprintf(u->where, sizeof u->where, "%.32s.tools[%zu]", where, i);
        read_function(u, json_array_get(tools, i), space);
    }
}

/* What its owner would do for the model, if the model asked: Codex offers it beside its own tools. It can't
 * be asked for here, and the answer's `tools` don't have it. Alone it is wanted, and so refused. */
static bool is_left_out(const char *type, const json_t *tools)
{
    return strncmp(type, "web_search", strlen("web_search")) == 0 && json_array_size(tools) > 1;
}

/* {"type": "allowed_tools", "mode", "tools": [{"type": "function", "name"}, …]}: a chat has one more object
 * around it, and around each function. */
static void read_allowed(struct translation *t, const json_t *choice)
{
    struct reader in = {.object = choice, .fault = t->in.fault, .status = t->in.status};
    const json_t *names = NULL;
    json_t *all = json_array(), *inner = json_object(), *out = json_object();
    read_array(&in, "tools", &names);
    t->in.status = in.status;
    for (size_t i = 0; i < json_array_size(names) && t->in.status == STATUS_OK; i++) {
        const json_t *tool = json_array_get(names, i);
        json_t *function = json_object(), *one = json_object();
        put_text(&t->in, function, "name", text_of(&t->in, tool, "name", "tool_choice.tools"));
        put_text(&t->in, one, "type", text_of(&t->in, tool, "type", "tool_choice.tools"));
        put_new(&t->in, one, "function", function);
        push_new(&t->in, all, one);
    }
    put_same(&t->in, inner, "mode", json_object_get(choice, "mode"));
    put_new(&t->in, inner, "tools", all);
    put_text(&t->in, out, "type", "allowed_tools");
    put_new(&t->in, out, "allowed_tools", inner);
    put_new(&t->in, t->out, "tool_choice", out);
}

static void read_tool_choice(struct translation *t)
{
    const json_t *choice = json_object_get(t->in.object, "tool_choice");
    if (!json_is_object(choice))
        return; /* words are the same */
    const char *type = text_of(&t->in, choice, "type", "tool_choice");
    if (strcmp(type, "allowed_tools") == 0) {
        read_allowed(t, choice);
        return;
    }
    if (strcmp(type, "function") != 0)
        read_fail(&t->in, STATUS_UNSUPPORTED, "tool_choice",
                  "tool_choice: type \"%.40s\" is not supported, only auto, none, required, \"function\" and "
                  "\"allowed_tools\"",
                  type);
    json_t *out = json_object(), *function = json_object();
    put_text(&t->in, out, "type", "function");
    put_text(&t->in, function, "name", text_of(&t->in, choice, "name", "tool_choice"));
    put_new(&t->in, out, "function", function);
    put_new(&t->in, t->out, "tool_choice", out);
}

static void read_tools(struct translation *t, struct responses_form *form)
{
    struct tools u = {.t = t, .form = form, .out = json_array()};
    const json_t *tools = NULL;
    json_t *shown = json_array();
    t->c->strict_is_usual = true;
    read_tool_choice(t);
    read_array(&t->in, "tools", &tools);
    for (size_t i = 0; i < json_array_size(tools) && t->in.status == STATUS_OK; i++) {
        json_t *tool = json_array_get(tools, i);
        snprintf(u.where, sizeof u.where, "tools[%zu]", i);
        const char *type = text_of(&t->in, tool, "type", u.where);
        if (is_left_out(type, tools))
            continue;
        tool = json_deep_copy(tool);
        push_new(&t->in, shown, tool);
        if (strcmp(type, "namespace") == 0)
            read_namespace(&u, tool);
        else
            read_function(&u, tool, NULL);
    }
    put_new(&t->in, form->asked, "tools", shown);
    if (json_array_size(u.out)) {
        put_new(&t->in, t->out, "tools", u.out);
        return;
    }
    json_decref(u.out);
    json_object_del(t->out, "tools");
}

/* text.format is response_format, but that the schema's fields stand beside its type. */
static void read_format(struct translation *t)
{
    static const char *const keys[] = {"name", "description", "schema", "strict"};
    const json_t *text = NULL;
    json_object_del(t->out, "text");
    if (!read_object(&t->in, "text", &text) || !json_is_set(json_object_get(text, "format")))
        return;
    const json_t *format = json_object_get(text, "format");
    const char *type = text_of(&t->in, format, "type", "text.format");
    json_t *out = json_object();
    put_text(&t->in, out, "type", type);
    if (strcmp(type, "json_schema") == 0) {
        json_t *schema = json_object();
        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
            put_same(&t->in, schema, keys[i], json_object_get(format, keys[i]));
        put_new(&t->in, out, "json_schema", schema);
    }
    put_new(&t->in, t->out, "response_format", out);
}

/* ---- the rest */

static void read_reasoning_effort(struct translation *t)
{
    const json_t *reasoning = NULL;
    json_object_del(t->out, "reasoning");
    if (!read_object(&t->in, "reasoning", &reasoning))
        return;
    char found[96];
    const json_t *value = json_object_get(reasoning, "effort");
    const char *effort = json_string_value(value);
    if (json_is_set(value) && !effort)
        read_fail(&t->in, STATUS_INVALID, "reasoning", "reasoning.effort: found %s, expected a text or null",
                  describe_json(value, found, sizeof found));
    if (!effort)
        return;
    put_text(&t->in, t->out, "reasoning_effort", effort);
    translate_template_value(t, "reasoning_effort", json_string(effort));
    if (strcmp(effort, "none") == 0)
        translate_thinking(t, false);
}

static void read_logprobs(struct translation *t)
{
    const json_t *include = NULL;
    bool wanted = json_is_set(json_object_get(t->in.object, "top_logprobs"));
    read_array(&t->in, "include", &include);
    for (size_t i = 0; i < json_array_size(include); i++) {
        const char *what = json_string_value(json_array_get(include, i));
        wanted |= what && strcmp(what, "message.output_text.logprobs") == 0;
    }
    put_new(&t->in, t->out, "logprobs", json_boolean(wanted));
}

/* Whose it is: the caller's credentials, as they came. */
bool kept_owner(const struct request *r, uint8_t owner[32])
{
    gnutls_hash_hd_t hash;
    const char *texts[] = {r->caller ? "a tenant's responses" : "responses", gate_name(r)};
    if (gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) < 0)
        return false;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i])
            gnutls_hash(hash, texts[i], strlen(texts[i]) + 1);
    gnutls_hash_deinit(hash, owner);
    return true;
}

static void begin_form(struct translation *t, struct completion *c)
{
    struct responses_form *form = responses_form_create(c->r);
    c->form = form;
    if (form) {
        form->asked = json_copy(c->body);
        form->input = json_array();
        form->spaces = json_object();
        form->functions = json_array();
        form->stores = true;
    }
    if (!form || !form->asked || !form->input || !form->spaces || !form->functions ||
        !kept_owner(c->r, form->owner))
        read_fail(&t->in, STATUS_NO_MEMORY, NULL, "no memory for the request");
    else
        read_bool(&t->in, "store", &form->stores);
}

static void read_truncation(struct translation *t, struct responses_form *form)
{
    const char *word = "disabled";
    read_text(&t->in, "truncation", &word);
    if (strcmp(word, "auto") != 0 && strcmp(word, "disabled") != 0)
        read_fail(&t->in, STATUS_INVALID, "truncation",
                  "truncation: found \"%.40s\", expected auto or disabled", word);
    form->cuts = strcmp(word, "auto") == 0;
}

static enum status parse(struct completion *c)
{
    const struct responses_form *form = c->form;
    if (form->cuts)
        prompt_cut_begin(c, 0, false, 0);
    enum status st = completion_parse_chat(c);
    for (size_t i = 0; i < json_array_size(form->functions); i++) {
        const json_t *pair = json_array_get(form->functions, i);
        bool strict = json_is_true(json_object_get(json_array_get(pair, 1), "strict"));
        if (json_object_set_new(json_array_get(pair, 0), "strict", json_boolean(strict)) != 0 &&
            st == STATUS_OK)
            st = fault_set(&c->fault, STATUS_NO_MEMORY, NULL, "no memory for the request");
    }
    return st;
}

static enum status translate(struct completion *c)
{
    static const char *const refused[] = {"background", "conversation", "prompt", "modalities"};
    static const char *const gone[] = {"input",  "instructions", "previous_response_id",  "include",
                                       "store",  "metadata",     "stream_options",        "truncation",
                                       "prompt", "max_tokens",   "max_completion_tokens", "n_predict"};
    struct translation t;
    const json_t *repeated; /* in the answer, whose schema says the type */
    int64_t n;
    translate_begin(&t, c);
    begin_form(&t, c);
    read_object(&t.in, "metadata", &repeated);
    read_int(&t.in, "max_tool_calls", 0, INT32_MAX, &n);
    translate_refuse(&t, KEYS_OF(refused));
    translate_refuse_openai(&t);
    translate_drop(&t, KEYS_OF(gone));
    if (c->dialect->counts)
        json_object_del(t.out, "stream");
    if (read_int(&t.in, "max_output_tokens", -1, INT32_MAX, &n) && n == 0)
        read_fail(&t.in, STATUS_INVALID, "max_output_tokens",
                  "max_output_tokens: found 0, expected at least 1");
    translate_rename(&t, "max_output_tokens", "max_completion_tokens");
    read_format(&t);
    if (t.in.status == STATUS_OK)
        read_truncation(&t, c->form);
    if (t.in.status == STATUS_OK)
        read_tools(&t, c->form);
    read_reasoning_effort(&t);
    read_logprobs(&t);
    if (t.in.status == STATUS_OK)
        read_items(&t, c->form);
    return translate_end(&t);
}

static const struct dialect dialect = {.name = "responses",
                                       .id_prefix = "resp_",
                                       .api = API_CHAT,
                                       .waits = true,
                                       .translate = translate,
                                       .parse = parse,
                                       .render = responses_render,
                                       .start = responses_start,
                                       .chunk = responses_chunk,
                                       .end = responses_end,
                                       .fail = responses_fail,
                                       .stream_type = SSE_TYPE,
                                       .ping = SSE_PING};

static const struct dialect count = {.name = "count",
                                     .id_prefix = "",
                                     .api = API_CHAT,
                                     .counts = true,
                                     .waits = true,
                                     .translate = translate,
                                     .parse = parse,
                                     .render = completion_render_count};

void api_responses(struct request *r)
{
    completion_begin(r, &dialect);
}

void api_responses_count(struct request *r)
{
    completion_begin(r, &count);
}
