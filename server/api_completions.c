/* POST /v1/completions: a prompt as text, as token ids, or a list of either. */
#include <string.h>

#include "api.h"
#include "api_fim.h"
#include "api_parse.h"
#include "completion.h"
#include "server.h"
#include "sse.h"

#define PROMPTS_MAX 2048U /* the configuration has a limit of its own on choices */

/* Echo of a prompt that came as ids: its text. */
static enum status decode_for_echo(struct completion *c, struct prompt *p)
{
    struct buf text;
    struct error err;
    buf_init(&text, 0);
    enum status s = tokenizer_decode(c->server->base.text->tokenizer, p->ids.ids, p->ids.n_ids,
                                     c->params.skip_special_tokens, &text, &err);
    if (s == STATUS_OK) {
        p->n_text = text.length;
        p->text = arena_strndup(c->r->arena, text.data ? text.data : "", text.length);
        s = p->text ? s : STATUS_NO_MEMORY;
    }
    buf_fini(&text);
    return s == STATUS_OK ? s : fault_set(&c->fault, s, "prompt", "the prompt can't be echoed");
}

static enum status prompt_of_ids(struct completion *c, uint32_t index, const json_t *ids)
{
    struct reader r = {.object = c->body, .fault = &c->fault};
    struct prompt *p = &c->prompts[index];
    uint32_t n_vocab = model_config(c->server->base.model)->vocab_size;
    size_t n = json_array_size(ids);
    if (n >= c->context) {
        enum status s = fault_set(&c->fault, STATUS_TOO_LARGE, "prompt",
                                  "the prompt has %zu tokens, this model's context has %u", n, c->context);
        snprintf(c->fault.code, sizeof c->fault.code, "context_length_exceeded");
        return s;
    }
    for (size_t i = 0; i < n; i++) {
        int32_t id;
        if (!read_token_id(&r, json_array_get(ids, i), "prompt", i, n_vocab, &id))
            return r.status;
        if (!token_list_push(&p->ids, id))
            return fault_set(&c->fault, STATUS_NO_MEMORY, NULL, "no memory for the prompt");
    }
    return c->params.echo ? decode_for_echo(c, p) : STATUS_OK;
}

static enum status read_prompt(struct completion *c, uint32_t index, const json_t *v)
{
    char text[96];
    enum status s;
    const json_t *suffix = json_object_get(c->body, "suffix");
    bool fills = json_string_length(suffix) > 0;
    if (json_is_string(v))
        s = completion_encode(c, index, json_string_value(v), json_string_length(v),
                              c->params.add_special && !fills);
    else if (json_is_array(v))
        s = prompt_of_ids(c, index, v);
    else
        return fault_set(&c->fault, STATUS_INVALID, "prompt",
                         "prompt[%u]: found %s, expected a string or an array of token ids", index,
                         describe_json(v, text, sizeof text));
    if (s == STATUS_OK && fills)
        s = fill_in_middle(c, index, suffix);
    if (s == STATUS_OK && c->prompts[index].ids.n_ids == 0)
        return fault_set(&c->fault, STATUS_INVALID, "prompt", "prompt: has no tokens");
    return s;
}

enum status completion_parse_prompts(struct completion *c)
{
    const json_t *v = json_object_get(c->body, "prompt");
    const json_t *suffix = json_object_get(c->body, "suffix");
    char text[96];
    if (suffix && !json_is_string(suffix) && !json_is_null(suffix))
        return fault_set(&c->fault, STATUS_INVALID, "suffix", "suffix: found %s, expected a string",
                         describe_json(suffix, text, sizeof text));
    if (!v || json_is_null(v))
        return fault_set(&c->fault, STATUS_INVALID, "prompt",
                         "prompt: missing; expected a string, an array of token ids, or an array of either");
    size_t n = json_array_size(v);
    bool many = json_is_array(v) && n > 0 && !json_is_number(json_array_get(v, 0));
    if (json_is_array(v) && (n == 0 || (many && n > PROMPTS_MAX)))
        return fault_set(&c->fault, STATUS_INVALID, "prompt",
                         "prompt: found an array of %zu, expected 1 to %u prompts", n, PROMPTS_MAX);
    enum status s = completion_add_prompts(c, many ? (uint32_t)n : 1);
    for (uint32_t i = 0; s == STATUS_OK && i < c->n_prompts; i++)
        s = read_prompt(c, i, many ? json_array_get(v, i) : v);
    return s;
}

static const struct dialect dialect = {.name = "completion",
                                       .id_prefix = "cmpl-",
                                       .api = API_COMPLETIONS,
                                       .parse = completion_parse_prompts,
                                       .render = completion_render,
                                       .chunk = completion_render_chunk,
                                       .end = completion_render_end,
                                       .fail = completion_render_fail,
                                       .stream_type = SSE_TYPE,
                                       .ping = SSE_PING};

void api_completions(struct request *r)
{
    completion_begin(r, &dialect);
}
