/* POST /api/chat and /api/generate: Ollama's body to OpenAI's. How the answer is shown is in ollama_json.c.
 *
 * A request without messages or without a prompt asks for nothing but that the model be loaded. */
#include <string.h>

#include "api.h"
#include "body_defaults.h"
#include "completion.h"
#include "ollama_json.h"
#include "prompt_cut.h"
#include "server.h"
#include "translate.h"

#define KEEP_DEFAULT 4 /* Ollama's num_keep */

static const struct dialect generate_raw, load;

/* ---- fields of both */

/* Options that are of the text; those of the runner (num_gpu …) have no meaning here. */
static void read_options(struct translation *t, struct ollama_form *form)
{
    static const char *const same[] = {"temperature",
                                       "top_k",
                                       "top_p",
                                       "min_p",
                                       "typical_p",
                                       "repeat_penalty",
                                       "repeat_last_n",
                                       "seed",
                                       "stop",
                                       "min_keep",
                                       "presence_penalty",
                                       "frequency_penalty",
                                       "mirostat",
                                       "mirostat_tau",
                                       "mirostat_eta",
                                       "dry_multiplier",
                                       "dry_base",
                                       "dry_allowed_length",
                                       "dry_penalty_last_n",
                                       "dry_sequence_breakers",
                                       "xtc_probability",
                                       "xtc_threshold",
                                       "logit_bias",
                                       "samplers"};
    const json_t *options = NULL;
    int64_t n = -1;
    if (read_object(&t->in, "options", &options)) {
        struct reader r = {.object = options, .fault = t->in.fault, .status = t->in.status};
        read_int(&r, "num_predict", INT32_MIN, INT32_MAX, &n);
        read_int(&r, "num_ctx", 0, INT32_MAX, &form->num_ctx); /* 0: no wish */
        read_int(&r, "num_keep", -1, INT32_MAX, &form->num_keep);
        t->in.status = r.status;
        for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
            put_same(&t->in, t->out, same[i], json_object_get(options, same[i]));
        const json_t *tail = json_object_get(options, "tfs_z");
        if (json_is_set(tail) && json_number_value(tail) != 1)
            read_fail(&t->in, STATUS_UNSUPPORTED, "tfs_z", "tfs_z is not supported; leave it out");
    }
    put_new(&t->in, t->out, "n_predict", json_integer(n > 0 ? n : -1)); /* 0, -1, -2: to the end */
    json_object_del(t->out, "options");
}

/* Ollama's own, where neither its client nor anybody else who may say so has said anything. */
static const struct body_default defaults[] = {
    {"temperature", 0.8}, {"top_k", 40}, {"top_p", 0.9}, {NULL, 0}};

static void read_format(struct translation *t)
{
    const json_t *format = json_object_get(t->in.object, "format");
    const char *word = json_string_value(format);
    char text[96];
    json_object_del(t->out, "format");
    if (json_is_object(format)) {
        translate_schema(t, format);
    } else if (word && strcmp(word, "json") == 0) {
        json_t *type = json_object();
        put_text(&t->in, type, "type", "json_object");
        put_new(&t->in, t->out, "response_format", type);
    } else if (json_is_set(format)) {
        read_fail(&t->in, STATUS_INVALID, "format", "format: found %s, expected \"json\" or a JSON schema",
                  describe_json(format, text, sizeof text));
    }
}

static void read_think(struct translation *t)
{
    const json_t *think = json_object_get(t->in.object, "think");
    char text[96];
    json_object_del(t->out, "think");
    if (!think || json_is_null(think))
        return;
    if (!json_is_boolean(think) && !json_is_string(think))
        read_fail(&t->in, STATUS_INVALID, "think",
                  "think: found %s, expected true, false, \"low\", \"medium\" or \"high\"",
                  describe_json(think, text, sizeof text));
    translate_thinking(t, !json_is_false(think));
    if (json_is_string(think))
        translate_template_value(t, "reasoning_effort", json_incref((json_t *)(uintptr_t)think));
}

static void read_model(struct translation *t, struct ollama_form *form)
{
    static const char tag[] = ":latest";
    const char *model = NULL;
    if (!read_text(&t->in, "model", &model) && !read_text(&t->in, "name", &model))
        return;
    form->model = arena_strdup(t->c->r->arena, model);
    size_t n = strlen(model), n_tag = sizeof tag - 1;
    if (n > n_tag && strcmp(model + n - n_tag, tag) == 0)
        n -= n_tag;
    put_new(&t->in, t->out, "model", json_stringn(model, n));
}

static void begin(struct translation *t, struct completion *c, bool generates)
{
    static const char *const refused[] = {"template", "images", "context"};
    static const char *const gone[] = {"name",     "keep_alive", "truncate", "shift",
                                       "template", "images",     "context"};
    bool stream = true;
    translate_begin(t, c);
    struct ollama_form *form = arena_alloc(c->r->arena, sizeof *form);
    if (!form) {
        read_fail(&t->in, STATUS_NO_MEMORY, NULL, "no memory for the request");
        return;
    }
    c->form = form;
    form->generates = generates;
    form->cuts = true;
    form->unloads = json_is_number(json_object_get(t->in.object, "keep_alive")) &&
                    json_number_value(json_object_get(t->in.object, "keep_alive")) == 0;
    form->num_ctx = 0;
    form->num_keep = KEEP_DEFAULT;
    read_bool(&t->in, "truncate", &form->cuts);
    translate_refuse(t, KEYS_OF(refused));
    translate_refuse_openai(t);
    read_model(t, form);
    translate_drop(t, KEYS_OF(gone));
    read_bool(&t->in, "stream", &stream);
    put_new(&t->in, t->out, "stream", json_boolean(stream));
    read_options(t, form);
    read_format(t);
    read_think(t);
}

/* Nothing is asked: an answer without words, when the voice is in memory. */
static void ask_nothing(struct translation *t)
{
    t->c->dialect = &load;
    put_new(&t->in, t->out, "stream", json_false());
}

/* ---- chat */

/* Calls of the last turn that have no result yet: ids are newer than Ollama's first clients. */
struct pending {
    const json_t *calls; /* OpenAI's; or NULL */
    size_t next;
};

static void read_calls(struct translation *t, json_t *m, const json_t *calls, size_t index)
{
    char id[48];
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(calls) && t->in.status == STATUS_OK; i++) {
        const json_t *call = json_array_get(calls, i), *function = json_object_get(call, "function");
        const json_t *arguments = json_object_get(function, "arguments");
        const char *name = json_string_value(json_object_get(function, "name"));
        const char *given = json_string_value(json_object_get(call, "id"));
        snprintf(id, sizeof id, "call_%zu_%zu", index, i);
        if (!name || !json_is_object(arguments))
            read_fail(&t->in, STATUS_INVALID, "messages",
                      "messages[%zu].tool_calls[%zu].function: expected a name and an object of arguments",
                      index, i);
        else
            push_new(&t->in, out, translate_call(&t->in, given ? given : id, name, arguments));
    }
    put_new(&t->in, m, "tool_calls", out);
}

static void read_result(struct translation *t, json_t *m, struct pending *p)
{
    const json_t *call = json_array_get(p->calls, p->next++);
    const json_t *name = json_object_get(m, "tool_name");
    if (!json_object_get(m, "tool_call_id"))
        put_same(&t->in, m, "tool_call_id", json_object_get(call, "id"));
    if (!json_is_string(name))
        name = json_object_get(json_object_get(call, "function"), "name");
    if (!json_object_get(m, "name"))
        put_same(&t->in, m, "name", name);
    json_object_del(m, "tool_name");
}

static void read_message(struct translation *t, json_t *m, size_t index, struct pending *p)
{
    char param[48];
    snprintf(param, sizeof param, "messages[%zu]", index);
    const char *role = json_string_value(json_object_get(m, "role"));
    const json_t *calls = json_object_get(m, "tool_calls");
    if (json_is_set(json_object_get(m, "images")))
        read_fail(&t->in, STATUS_UNSUPPORTED, param, "%s.images: images are not supported", param);
    json_object_del(m, "images");
    if (json_is_set(json_object_get(m, "thinking")))
        put_same(&t->in, m, "reasoning_content", json_object_get(m, "thinking"));
    json_object_del(m, "thinking");
    if (json_is_set(calls)) {
        read_calls(t, m, calls, index);
        *p = (struct pending){.calls = json_object_get(m, "tool_calls")};
    } else {
        json_object_del(m, "tool_calls");
    }
    if (role && strcmp(role, "tool") == 0)
        read_result(t, m, p);
}

static enum status translate_chat(struct completion *c)
{
    struct translation t;
    struct pending pending = {0};
    const json_t *messages = NULL;
    begin(&t, c, false);
    read_array(&t.in, "messages", &messages);
    if (json_array_size(messages) == 0)
        ask_nothing(&t);
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(messages) && t.in.status == STATUS_OK; i++) {
        const json_t *m = json_array_get(messages, i);
        push_new(&t.in, out, json_copy((json_t *)(uintptr_t)m));
        if (json_is_object(m)) /* what isn't one is refused with the others' faults, later */
            read_message(&t, json_array_get(out, i), i, &pending);
    }
    put_new(&t.in, t.out, "messages", out);
    return translate_end(&t);
}

/* ---- generate */

static enum status translate_generate(struct completion *c)
{
    struct translation t;
    const char *prompt = "", *system = NULL;
    bool raw = false;
    begin(&t, c, true);
    read_text(&t.in, "prompt", &prompt);
    read_text(&t.in, "system", &system);
    read_bool(&t.in, "raw", &raw);
    json_object_del(t.out, "system");
    json_object_del(t.out, "raw");
    if (!prompt[0]) {
        ask_nothing(&t);
    } else if (raw || json_is_set(json_object_get(t.in.object, "suffix")) ||
               (!c->server->base.text->chat_template && !(system && system[0]))) {
        c->dialect = &generate_raw;
        return translate_end(&t);
    }
    json_t *messages = json_array();
    if (system && system[0])
        translate_message(&t, messages, "system", json_string(system));
    translate_message(&t, messages, "user", json_string(prompt));
    put_new(&t.in, t.out, "messages", messages);
    json_object_del(t.out, "prompt");
    return translate_end(&t);
}

/* ---- prompts */

/* Ollama cuts what is longer than num_ctx; answers may go on beyond it. */
static void begin_cut(struct completion *c)
{
    const struct ollama_form *form = c->form;
    uint32_t limit = form->num_ctx > 0 ? (uint32_t)form->num_ctx : 0;
    if (form->cuts)
        prompt_cut_begin(c, limit, true, form->num_keep < 0 ? UINT32_MAX : (uint32_t)form->num_keep);
}

static enum status parse_chat(struct completion *c)
{
    begin_cut(c);
    return completion_parse_chat(c);
}

static enum status parse_raw(struct completion *c)
{
    begin_cut(c);
    return completion_parse_prompts(c);
}

static enum status no_prompt(struct completion *c)
{
    return completion_add_prompts(c, 1);
}

#define OLLAMA(FIELD_NAME, FIELD_API, FIELD_TRANSLATE, FIELD_PARSE)                                          \
    {                                                                                                        \
        .name = FIELD_NAME, .id_prefix = "", .api = FIELD_API, .translate = FIELD_TRANSLATE,                 \
        .defaults = defaults, .parse = FIELD_PARSE, .render = ollama_render, .chunk = ollama_chunk,          \
        .end = ollama_end, .fail = ollama_fail, .stream_type = NDJSON_TYPE, .chat_logprobs = true            \
    }
static const struct dialect chat = OLLAMA("ollama chat", API_CHAT, translate_chat, parse_chat);
static const struct dialect generate = OLLAMA("ollama generate", API_CHAT, translate_generate, parse_chat);
static const struct dialect generate_raw = OLLAMA("ollama generate", API_COMPLETIONS, NULL, parse_raw);
static const struct dialect load = {.name = "ollama load",
                                    .id_prefix = "",
                                    .api = API_CHAT,
                                    .counts = true,
                                    .parse = no_prompt,
                                    .render = ollama_render_load};

void api_ollama_chat(struct request *r)
{
    completion_begin(r, &chat);
}

void api_ollama_generate(struct request *r)
{
    completion_begin(r, &generate);
}
