/* POST /v1/chat/completions and /apply-template: messages through the model's own template to a prompt, and
 * what the template says of how its model calls tools and thinks. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api.h"
#include "api_messages.h"
#include "api_parse.h"
#include "api_tools.h"
#include "base/clock.h"
#include "base/error.h"
#include "body_defaults.h"
#include "bundle.h"
#include "completion.h"
#include "prompt_cut.h"
#include "server.h"
#include "sse.h"
#include "tenant_gate.h"
#include "tool_grammar.h"

#define USUAL_STRICT_NS (2 * NS_PER_S) /* for a look at the schemas of tools that needn't be strict */

/* A chat on its way to a prompt. */
struct chat {
    const struct text_model *text;
    const struct adapter_bundle *bundle; /* of the voice, or NULL */
    const struct chat_template *template;
    const char *source;               /* of the template */
    const struct call_syntax *syntax; /* of its model's calls */
    struct tool_params tools;
};

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

/* reasoning_effort as templates know it: by its name, and "none" by what turns thinking off. */
static void add_effort(struct reader *r, json_t *variables)
{
    const char *effort = NULL;
    if (!read_text(r, "reasoning_effort", &effort))
        return;
    json_t *v = json_pack("{s:s}", "reasoning_effort", effort);
    if (strcmp(effort, "none") == 0) {
        json_object_set_new(v, "enable_thinking", json_false()); /* Qwen3 */
        json_object_set_new(v, "thinking", json_false());        /* Granite, DeepSeek */
    }
    json_object_update_missing(variables, v);
    json_decref(v);
}

/* Firefunction's template joins these to other texts, so it needs them without tools, too. */
static void add_functions_text(struct reader *r, const struct chat *c, json_t *variables)
{
    json_t *functions = json_array();
    char now[32];
    time_t seconds = (time_t)(clock_wall_ms() / 1000);
    struct tm tm;
    for (size_t i = 0; i < json_array_size(c->tools.tools); i++)
        json_array_append(functions, json_object_get(json_array_get(c->tools.tools, i), "function"));
    char *text = json_dumps(functions, JSON_INDENT(4));
    strftime(now, sizeof now, "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&seconds, &tm));
    json_t *v = json_pack("{s:s*, s:s}", "functions", text, "datetime", now);
    if (!text || json_object_update_missing(variables, v) != 0)
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the request");
    json_decref(v);
    json_decref(functions);
    free(text);
}

static json_t *make_variables(struct reader *r, const struct chat *c, bool add_generation_prompt)
{
    const struct text_model *text = c->text;
    const json_t *documents = NULL;
    json_t *v = json_object();
    struct message_style style = {.syntax = c->syntax,
                                  .null_content = strstr(c->source, "and message['content'] is none") ||
                                                  strstr(c->source, "and message.content is none")};
    json_object_set_new(v, "messages", read_messages(r, &style));
    json_object_set_new(v, "add_generation_prompt", json_boolean(add_generation_prompt));
    if (text->bos_text[0]) /* one that the model lacks is undefined, as in transformers */
        json_object_set_new(v, "bos_token", json_string(text->bos_text));
    if (text->eos_text[0])
        json_object_set_new(v, "eos_token", json_string(text->eos_text));
    if (c->tools.tools)
        json_object_set(v, "tools", (json_t *)(uintptr_t)c->tools.tools);
    else
        json_object_set_new(v, "tools", json_null());
    if (read_array(r, "documents", &documents) && json_array_size(documents) &&
        !strstr(c->source, "documents"))
        read_fail(r, STATUS_UNSUPPORTED, "documents",
                  "documents: this model's chat template has no use for them");
    if (documents)
        json_object_set(v, "documents", (json_t *)(uintptr_t)documents);
    else
        json_object_set_new(v, "documents", json_null());
    add_kwargs(r, v);
    add_effort(r, v);
    if (c->syntax->functions_text)
        add_functions_text(r, c, v);
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

/* ---- the template */

/* How tools get into the prompt, in the order in which it is tried. */
enum tool_way {
    TOOLS_AS_THEY_ARE,
    ARGUMENTS_AS_TEXT,  /* for templates that put them between other texts */
    ONE_CALL_A_MESSAGE, /* for templates that take no more */
    FLAT_IN_SYSTEM,     /* for templates that don't know tools */
    FLAT_IN_FIRST_USER, /* and that take no system message */
    NO_MORE_WAYS
};

/* The template looks for the tools in a message, as Phi-4-mini's does. */
static bool in_system(const char *source)
{
    return strstr(source, "message['tools']") || strstr(source, "message.tools") ||
           strstr(source, "[0]['tools']");
}

/* The messages as `way` has them; false: there is nothing that it changes, or no memory. */
static bool arrange(const struct chat *c, enum tool_way way, json_t *messages)
{
    if (way == ARGUMENTS_AS_TEXT)
        return arguments_to_text(messages);
    if (way == ONE_CALL_A_MESSAGE)
        return split_calls(messages);
    if (way == FLAT_IN_SYSTEM)
        return flatten_tools(messages, c->tools.tools, false);
    if (way == FLAT_IN_FIRST_USER)
        return c->tools.tools && flatten_tools(messages, c->tools.tools, true);
    return !c->tools.tools || !in_system(c->source) || put_tools_in_system(messages, c->tools.tools);
}

static enum status render(const struct chat *c, json_t *variables, struct buf *out, struct error *err)
{
    enum status s = fail(err, STATUS_NO_MEMORY, "no memory for the messages");
    json_t *read = json_incref(json_object_get(variables, "messages"));
    bool knows = c->syntax->functions_text || strstr(c->source, "tools") ||
                 (!c->tools.tools && strstr(c->source, "tool_calls"));
    for (int way = knows ? TOOLS_AS_THEY_ARE : FLAT_IN_SYSTEM; way < NO_MORE_WAYS; way++) {
        if (knows && way == FLAT_IN_SYSTEM)
            break;
        struct error more;
        json_t *messages = json_deep_copy(read);
        bool changed = messages && arrange(c, (enum tool_way)way, messages);
        json_object_set_new(variables, "messages", messages);
        if (!changed)
            continue;
        buf_clear(out);
        s = chat_template_render(c->template, variables, clock_wall_ms(), NULL, out, &more);
        if (s == STATUS_OK || way == TOOLS_AS_THEY_ARE || way == FLAT_IN_SYSTEM)
            *err = more; /* what the first way has to say is what the template's author meant */
        if (s != STATUS_INVALID)
            break;
    }
    json_decref(read);
    return s;
}

/* The voice's own goes before the model's. */
static void choose_template(struct reader *r, struct chat *c)
{
    const char *named = c->bundle ? c->bundle->tool_format : NULL;
    c->template = text_model_template(c->text, c->tools.tools != NULL);
    c->source =
        c->template == c->text->tool_template ? c->text->tool_template_source : c->text->chat_template_source;
    if (c->bundle && c->bundle->chat_template) {
        c->template = c->bundle->chat_template;
        c->source = c->bundle->chat_template_source;
    }
    c->syntax = named ? call_syntax_named(named) : call_syntax_of(c->source);
    if (c->syntax)
        return;
    c->syntax = call_syntax_of(c->source);
    if (c->tools.tools)
        read_fail(r, STATUS_UNSUPPORTED, "tools",
                  "tools: this voice's tool_format \"%.40s\" is not known here", named);
}

/* "FOLDER/tokenizer_config.json: line …" without the folder: a client hears no paths. */
static const char *without_folder(const char *text)
{
    const char *end = strstr(text, ": line "), *begin = text;
    for (const char *c = text; end && c < end; c++)
        if (*c == '/')
            begin = c + 1;
    return begin;
}

/* Messages of `body` to the prompt's text. Fills c, whose `text` and `bundle` are there. */
static enum status render_messages(struct chat *c, json_t *body, struct buf *out, struct fault *f)
{
    struct reader r = {.object = body, .fault = f};
    bool continue_last = false, generation_prompt = true;
    struct error err;
    if (!c->text->chat_template && !(c->bundle && c->bundle->chat_template))
        return fault_set(f, STATUS_UNSUPPORTED, "messages",
                         "this model has no chat template; use /v1/completions");
    read_bool(&r, "continue_final_message", &continue_last);
    generation_prompt = !continue_last;
    read_bool(&r, "add_generation_prompt", &generation_prompt);
    if (continue_last && generation_prompt)
        read_fail(&r, STATUS_INVALID, "continue_final_message",
                  "continue_final_message and add_generation_prompt can't both be true");
    read_tools(&r, body, &c->tools);
    choose_template(&r, c);
    json_t *variables = make_variables(&r, c, generation_prompt);
    if (r.status == STATUS_OK && render(c, variables, out, &err) != STATUS_OK)
        read_fail(&r, err.status == STATUS_NO_MEMORY ? STATUS_NO_MEMORY : STATUS_INVALID, "messages",
                  "chat template: %s", without_folder(err.text));
    if (r.status == STATUS_OK && continue_last)
        cut_after_last(&r, variables, out);
    json_decref(variables);
    return r.status;
}

/* The answer that is to be continued has begun with a thought, and not ended it. */
static bool continues_thought(const struct thought_syntax *t, const json_t *body)
{
    const json_t *messages = json_object_get(body, "messages");
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const char *text = json_string_value(json_object_get(last, "content"));
    const char *open = text ? strstr(text, t->open) : NULL;
    return json_is_true(json_object_get(body, "continue_final_message")) && open && !strstr(open, t->close);
}

static void release(void *grammar)
{
    grammar_release(grammar);
}

static void set_strict(const json_t *tool, bool strict, struct reader *r)
{
    if (json_object_set_new(json_object_get(tool, "function"), "strict", json_boolean(strict)) != 0)
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the request");
}

/* `strict` of tools that don't say it, behind the template, which has no word of it. Those that are now: in
 * `set`; false: none is. `named`: no other one is called, or NULL. Schemas that take long leave the rest as
 * they are. */
static bool set_usual_strict(const struct completion *c, const struct grammar_scope *scope, const char *named,
                             bool set[TOOLS_MAX], struct reader *r)
{
    const json_t *tools = json_object_get(c->body, "tools");
    int64_t begin_ns = clock_now_ns();
    bool any = false;
    for (size_t i = 0; i < json_array_size(tools) && i < TOOLS_MAX && r->status == STATUS_OK; i++) {
        const json_t *tool = json_array_get(tools, i), *function = json_object_get(tool, "function");
        bool may_come = !named || strcmp(json_string_value(json_object_get(function, "name")), named) == 0;
        if (!may_come || json_is_boolean(json_object_get(function, "strict")) ||
            clock_now_ns() - begin_ns > USUAL_STRICT_NS)
            continue;
        enum status s = tool_can_be_strict(scope, tool, c->r->arena);
        set[i] = s == STATUS_OK;
        any |= set[i];
        if (s == STATUS_NO_MEMORY)
            read_fail(r, s, NULL, "no memory for the request");
        else if (set[i])
            set_strict(tool, true, r);
    }
    return any;
}

static void take_back_strict(const struct completion *c, const bool set[TOOLS_MAX], struct reader *r)
{
    const json_t *tools = json_object_get(c->body, "tools");
    for (size_t i = 0; i < json_array_size(tools) && i < TOOLS_MAX; i++)
        if (set[i])
            set_strict(json_array_get(tools, i), false, r);
}

/* The caller's own constraint. */
struct asked_grammar {
    const char *field; /* or NULL: none */
    struct grammar_part part;
    bool raw; /* it is about all that the model says, markers too */
};

/* What the caller's own constraint and the tools' leave: a grammar of both, or the constraint's alone. */
static void make_tool_grammar(struct completion *c, const struct grammar_scope *scope,
                              const struct tool_params *tools, const struct asked_grammar *asked,
                              struct reader *r)
{
    struct tool_grammar g = {.scope = scope, .tools = tools, .format = &c->format};
    const char *field = tools->legacy ? "function_call" : "tool_choice";
    bool required = tools->choice == TOOL_REQUIRED;
    bool strict = tools->choice == TOOL_AUTO && tools_are_strict(tools->tools);
    bool opened = c->format.in_thought || c->format.in_block;
    struct grammar *made;
    struct error err;
    if (!required && !strict && (!c->params.grammar || (tools->choice == TOOL_NONE && !opened)))
        return;
    if (asked->raw && (required || strict))
        read_fail(r, STATUS_INVALID, asked->field, "%s: can't be kept to by a call that %s asks for",
                  asked->field, required ? field : "a tool's strict");
    if (asked->raw || r->status != STATUS_OK)
        return;
    if (!required) {
        field = asked->field ? asked->field : tools->legacy ? "functions" : "tools";
        g.answer = asked->field ? &asked->part : NULL;
    }
    enum status st = tool_grammar_create(&g, c->r->arena, &made, &err);
    if (st != STATUS_OK) {
        read_fail(r, st, field, "%s: %s", field, err.text);
    } else if (arena_on_end(c->r->arena, release, made) != 0) {
        grammar_release(made);
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the request");
    } else {
        c->params.grammar = made;
    }
}

/* A grammar for tool_choice "required" or a name, for an answer's form beside tools that may be called
 * instead, or behind a thought that the prompt has opened, and for tools with `strict`. Where that is only
 * usual it gives way to a grammar of the caller's, and to what all the tools together are too much for. */
static void force_calls(struct completion *c, const struct tool_params *tools, struct reader *r)
{
    const struct server *s = c->server;
    const struct grammar_scope scope = {s->grammars, s->base.text->tokenizer,
                                        model_config(s->base.model)->vocab_size, gate_name(c->r)};
    struct asked_grammar asked = {.field = NULL};
    bool set[TOOLS_MAX] = {false}, usual = c->strict_is_usual && !c->dialect->counts;
    asked.field = read_grammar_part(r, c->r->arena, &asked.part);
    asked.raw = asked.field && strcmp(asked.field, "response_format") != 0;
    if (asked.raw && c->format.in_block) { /* nor does it say for whom it is */
        c->format.calls = NULL;
        c->format.in_block = false;
    }
    usual = usual && !asked.raw && tools->choice != TOOL_NONE &&
            set_usual_strict(c, &scope, tools->named, set, r);
    if (r->status != STATUS_OK)
        return;
    make_tool_grammar(c, &scope, tools, &asked, r);
    if (!usual || r->status == STATUS_OK || r->status == STATUS_NO_MEMORY || tools->choice != TOOL_AUTO)
        return;
    *r->fault = (struct fault){0};
    r->status = STATUS_OK;
    take_back_strict(c, set, r);
    make_tool_grammar(c, &scope, tools, &asked, r);
}

/* What is to be looked for in the replies. */
static enum status choose_format(struct completion *c, const struct chat *chat, const struct buf *rendered)
{
    struct reader r = {.object = c->body, .fault = &c->fault};
    struct reply_format *f = &c->format;
    const char *how = "auto";
    bool shows = true, parses = true;
    if (read_text(&r, "reasoning_format", &how) && strcmp(how, "auto") != 0 && strcmp(how, "none") != 0 &&
        strcmp(how, "deepseek") != 0)
        read_fail(&r, STATUS_INVALID, "reasoning_format",
                  "reasoning_format: found \"%.40s\", expected auto, deepseek (the same) or none", how);
    if (read_bool(&r, "include_reasoning", &shows))
        c->hides_reasoning = !shows;
    if (r.status == STATUS_OK && strcmp(how, "none") != 0)
        f->thought = thought_syntax_of(chat->source, chat->text->tokenizer);
    f->in_thought = f->thought && (thought_is_open(f->thought, rendered->data, rendered->length) ||
                                   continues_thought(f->thought, c->body));
    f->tools = chat->tools.tools;
    f->one_call = chat->tools.one_call;
    require(chat->syntax != NULL); /* choose_template always finds one */
    f->only_text = chat->tools.choice == TOOL_NONE;
    if (!f->only_text || chat->syntax->to_all)
        f->calls = chat->syntax;
    f->in_block = f->calls && block_is_open(f->calls, rendered->data, rendered->length);
    c->legacy_calls = chat->tools.legacy;
    c->n_kept = reply_format_tokens(f, chat->text->tokenizer, c->kept);
    if (r.status == STATUS_OK)
        force_calls(c, &chat->tools, &r);
    read_bool(&r, "parse_tool_calls", &parses); /* llama-server's: else calls are text */
    f->only_text |= !parses;
    if (!parses && f->calls && !f->calls->to_all)
        f->calls = NULL;
    return r.status;
}

/* ---- prompts that are too long */

/* Renders the turns from `first` on, and whether that is short enough. */
static bool fits_from(struct completion *c, struct chat *chat, const json_t *all, size_t first,
                      struct buf *out)
{
    json_object_set_new(c->body, "messages", cut_messages(all, first));
    if (json_object_get(c->body, "functions")) /* of which tools are made each time */
        json_object_del(c->body, "tools");
    buf_clear(out);
    c->fault = (struct fault){0};
    return render_messages(chat, c->body, out, &c->fault) == STATUS_OK && prompt_fits(c, out);
}

/* The first of the places [from, to) that is late enough; `to`: none is. */
static size_t search_place(struct completion *c, struct chat *chat, const json_t *all,
                           const struct cut_places *p, size_t from, size_t to, struct buf *out)
{
    size_t end = to;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (fits_from(c, chat, all, p->at[middle], out))
            to = middle;
        else
            from = middle + 1;
    }
    return from < end ? from : end;
}

/* Leaves out as many of the oldest turns as must be. What is still too long then has one turn. */
static enum status cut_turns(struct completion *c, struct chat *chat, struct buf *out)
{
    struct cut_places p;
    json_t *all = json_incref(json_object_get(c->body, "messages"));
    enum status s = cut_places_find(c, all, &p);
    if (s == STATUS_OK && p.n) {
        size_t n = p.n_users ? p.n_users : 1, found = search_place(c, chat, all, &p, 0, n, out);
        if (found == n) /* answers may come first where the template takes that */
            found = search_place(c, chat, all, &p, n, p.n, out);
        (void)fits_from(c, chat, all, p.at[found < p.n ? found : n - 1], out);
        s = c->fault.error.status;
    }
    json_decref(all);
    return s;
}

/* vLLM's: where the assistant spoke last, the answer begins with that, as the template had it, whether it
 * goes on from it (continue_final_message) or is a turn of its own. */
static enum status echo_last(struct completion *c)
{
    struct reader r = {.object = c->body, .fault = &c->fault};
    struct prompt *p = &c->prompts[0];
    const json_t *messages = json_object_get(c->body, "messages");
    size_t at = json_array_size(messages) - 1;
    const json_t *last = json_array_get(messages, at);
    if (!message_has_role(last, "assistant"))
        return STATUS_OK;
    json_t *text = message_text(&r, last, at);
    if (text) {
        p->n_text = json_string_length(text);
        p->text = arena_strndup(c->r->arena, json_string_value(text), p->n_text);
        if (!p->text)
            read_fail(&r, STATUS_NO_MEMORY, NULL, "no memory for the echo");
    }
    json_decref(text);
    return r.status;
}

enum status completion_parse_chat(struct completion *c)
{
    struct chat chat = {.text = c->server->base.text, .bundle = c->bundle};
    struct buf rendered;
    buf_init(&rendered, 0);
    enum status s = render_messages(&chat, c->body, &rendered, &c->fault);
    if (s == STATUS_OK && c->cut.limit && !prompt_fits(c, &rendered))
        s = cut_turns(c, &chat, &rendered);
    if (s == STATUS_OK)
        s = choose_format(c, &chat, &rendered);
    if (s == STATUS_OK)
        s = completion_add_prompts(c, 1);
    bool echoes = c->params.echo;
    c->params.echo = false; /* what is shown isn't the prompt */
    if (s == STATUS_OK)
        s = completion_encode(c, 0, rendered.data, rendered.length, false);
    if (s == STATUS_OK && echoes)
        s = echo_last(c);
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

enum status render_chat(const struct server *s, json_t *body, struct buf *out, struct fault *f)
{
    struct chat chat = {.text = s->base.text};
    return render_messages(&chat, body, out, f);
}
