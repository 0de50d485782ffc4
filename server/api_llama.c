/* llama-server's own endpoints that clients of it call: POST /completion and /infill, GET /props, GET
 * /slots. Adapters are in api_lora.c, tokens in api_text.c. */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "body_defaults.h"
#include "completion.h"
#include "server.h"
#include "sse.h"
#include "tenant_gate.h"
#include "translate.h"

/* ---- POST /completion */

/* response_fields: paths of names. */
static void check_fields(struct translation *t)
{
    char text[96];
    const json_t *fields = NULL;
    read_array(&t->in, "response_fields", &fields);
    for (size_t i = 0; i < json_array_size(fields); i++)
        if (!json_is_string(json_array_get(fields, i)))
            read_fail(&t->in, STATUS_INVALID, "response_fields",
                      "response_fields[%zu]: found %s, expected a string such as \"content\"", i,
                      describe_json(json_array_get(fields, i), text, sizeof text));
}

static void begin(struct translation *t, struct completion *c)
{
    static const char *const refused[] = {"echo", "suffix", "return_progress"};
    int64_t n = -1;
    bool tokens = false;
    translate_begin(t, c);
    translate_refuse(t, KEYS_OF(refused));
    read_int(&t->in, "n_predict", -2, INT32_MAX, &n);
    if (n < 0 && !json_object_get(t->in.object, "max_tokens"))
        put_new(&t->in, t->out, "n_predict", json_integer(-1));
    read_bool(&t->in, "return_token_ids", &tokens);
    read_bool(&t->in, "return_tokens", &tokens);
    check_fields(t);
    if (tokens || json_is_true(json_object_get(t->in.object, "stream")))
        put_new(&t->in, t->out, "return_token_ids", json_true());
}

static enum status translate(struct completion *c)
{
    struct translation t;
    begin(&t, c);
    if (json_is_object(json_object_get(t.in.object, "prompt")))
        read_fail(&t.in, STATUS_UNSUPPORTED, "prompt",
                  "prompt: found an object, expected a string, token ids, or an array of either");
    return translate_end(&t);
}

/* Other files come first, as llama-server puts them where a model has no tokens for a repository. */
static void add_extra(struct translation *t, struct buf *prefix)
{
    const json_t *extra = NULL;
    read_array(&t->in, "input_extra", &extra);
    for (size_t i = 0; i < json_array_size(extra); i++) {
        const char *text = json_string_value(json_object_get(json_array_get(extra, i), "text"));
        if (!text)
            read_fail(&t->in, STATUS_INVALID, "input_extra", "input_extra[%zu].text: expected a string", i);
        else
            buf_printf(prefix, "\n\n--- snippet ---\n\n%s", text);
    }
    if (json_array_size(extra))
        buf_puts(prefix, "\n\n--- snippet ---\n\n");
}

/* The cursor stands behind input_prefix and `prompt`, which is the begun line, and before input_suffix. */
static enum status translate_infill(struct completion *c)
{
    struct translation t;
    struct buf prefix;
    const char *before = "", *line = "", *after = "";
    begin(&t, c);
    buf_init(&prefix, 0);
    if (!read_text(&t.in, "input_prefix", &before))
        read_fail(&t.in, STATUS_INVALID, "input_prefix", "input_prefix: missing; expected a string");
    if (!read_text(&t.in, "input_suffix", &after))
        read_fail(&t.in, STATUS_INVALID, "input_suffix", "input_suffix: missing; expected a string");
    read_text(&t.in, "prompt", &line);
    add_extra(&t, &prefix);
    if (t.in.status == STATUS_OK) {
        buf_printf(&prefix, "%s%s", before, line);
        /* A cursor at the end of a file is in the middle all the same: a line break is there. */
        put_text(&t.in, t.out, "suffix", after && after[0] ? after : "\n");
        put_new(&t.in, t.out, "prompt", prefix.failed ? NULL : json_stringn(prefix.data, prefix.length));
    }
    buf_fini(&prefix);
    return translate_end(&t);
}

/* llama-server's own, where nobody has said anything. */
#define USUAL_TEMPERATURE 0.8
#define USUAL_TOP_K 40
#define USUAL_TOP_P 0.95
#define USUAL_MIN_P 0.05
static const struct body_default defaults[] = {{"temperature", USUAL_TEMPERATURE},
                                               {"top_k", USUAL_TOP_K},
                                               {"top_p", USUAL_TOP_P},
                                               {"min_p", USUAL_MIN_P},
                                               {NULL, 0}};

static void put_bytes(struct jw *w, const char *key, const struct buf *b)
{
    jw_key(w, key);
    jw_bytes(w, b->data ? b->data : "", b->length);
}

/* What gathered since the last time; it is taken out. */
static void put_piece(struct completion *c, struct choice *h, struct jw *w)
{
    const struct buf *said = &h->reply.content;
    h->has_new_line |= said->length && memchr(said->data, '\n', said->length);
    jw_key_int(w, "index", h->index);
    put_bytes(w, "content", said);
    jw_key(w, "tokens");
    jw_begin(w, '[');
    jw_raw(w, h->ids.data, h->ids.length);
    jw_end(w, ']');
    if (c->params.n_logprobs >= 0) {
        jw_key(w, "completion_probabilities");
        jw_begin(w, '[');
        jw_raw(w, h->logprobs.items.data, h->logprobs.items.length);
        jw_end(w, ']');
    }
    jw_key_int(w, "id_slot", 0);
    jw_key_int(w, "tokens_predicted", h->n_generated);
    jw_key_int(w, "tokens_evaluated", (int64_t)h->prompt->ids.n_ids);
    buf_clear(&h->reply.content);
    buf_clear(&h->ids);
    buf_clear(&h->logprobs.items);
}

static void put_settings(const struct gen_params *p, const char *key, struct jw *w)
{
    const struct sampling *s = &p->sampling;
    jw_key(w, key);
    jw_begin(w, '{');
    jw_key_int(w, "n_predict", p->max_tokens == UINT32_MAX ? -1 : (int64_t)p->max_tokens);
    jw_key_float(w, "temperature", s->temperature);
    jw_key_int(w, "top_k", s->top_k);
    jw_key_float(w, "top_p", s->top_p == FLT_MIN ? 0 : s->top_p);
    jw_key_float(w, "min_p", s->min_p);
    jw_key_float(w, "typical_p", s->typical_p);
    jw_key_float(w, "repeat_penalty", s->repetition_penalty);
    jw_key_int(w, "repeat_last_n", s->penalty_last_n);
    jw_key_float(w, "presence_penalty", s->presence_penalty);
    jw_key_float(w, "frequency_penalty", s->frequency_penalty);
    jw_key_bool(w, "ignore_eos", p->ignore_eos);
    jw_key_bool(w, "stream", p->stream);
    jw_key(w, "stop");
    jw_begin(w, '[');
    for (uint32_t i = 0; i < p->n_stop; i++)
        jw_text(w, p->stop[i]);
    jw_end(w, ']');
    jw_end(w, '}');
}

/* What was read, in words: special tokens too. */
static void put_prompt(const struct completion *c, const struct choice *h, struct jw *w)
{
    struct buf text;
    struct error err;
    buf_init(&text, 0);
    if (tokenizer_decode(c->server->base.text->tokenizer, h->prompt->ids.ids, h->prompt->ids.n_ids, false,
                         &text, &err) == STATUS_OK)
        put_bytes(w, "prompt", &text);
    w->out->failed |= text.failed;
    buf_fini(&text);
}

/* What the last object has beside its piece. */
static void put_end(const struct completion *c, const struct choice *h, struct jw *w)
{
    bool word = h->stop_string_index >= 0 && (uint32_t)h->stop_string_index < c->params.n_stop;
    bool limit = strcmp(h->finish_reason, "length") == 0;
    jw_key_bool(w, "stop", true);
    jw_key_text(w, "model", c->voice.shown);
    put_settings(&c->params, "generation_settings", w);
    put_prompt(c, h, w);
    jw_key_bool(w, "has_new_line", h->has_new_line);
    jw_key_text(w, "stop_type", limit ? "limit" : word ? "word" : "eos");
    jw_key_text(w, "stopping_word", word ? c->params.stop[h->stop_string_index] : "");
    jw_key_bool(w, "truncated", false);
    jw_key_int(w, "tokens_cached", h->n_cached);
    completion_put_timings(h, w);
    jw_end(w, '}');
}

/* The value at a path such as "timings/prompt_n", or NULL; borrowed. */
static const json_t *value_at(const json_t *v, const char *path)
{
    for (size_t n; v && *path; path += n + (path[n] != '\0')) {
        n = strcspn(path, "/");
        v = json_object_getn(v, path, n);
    }
    return v;
}

/* A whole object; of it what response_fields names, under the names that they have there. What isn't there
 * is left out. */
static void put_whole(struct completion *c, struct choice *h, struct buf *out)
{
    const json_t *fields = json_object_get(c->body, "response_fields");
    struct buf all;
    struct jw w = {.out = &all};
    buf_init(&all, 0);
    jw_begin(&w, '{');
    put_piece(c, h, &w);
    put_end(c, h, &w);
    if (json_array_size(fields)) {
        json_t *whole = json_loadb(all.data ? all.data : "", all.length, JSON_ALLOW_NUL, NULL),
               *some = json_object();
        for (size_t i = 0; i < json_array_size(fields); i++) {
            const char *path = json_string_value(json_array_get(fields, i));
            json_object_set(some, path, (json_t *)(uintptr_t)value_at(whole, path));
        }
        char *text = whole ? json_dumps(some, JSON_COMPACT) : NULL;
        all.failed |= !text;
        buf_clear(&all);
        buf_puts(&all, text ? text : "");
        free(text);
        json_decref(whole);
        json_decref(some);
    }
    buf_append(out, all.data ? all.data : "", all.length);
    out->failed |= all.failed;
    buf_fini(&all);
}

static void render(struct completion *c, struct buf *out)
{
    if (c->n_choices > 1)
        buf_putc(out, '[');
    for (uint32_t i = 0; i < c->n_choices; i++) {
        if (i)
            buf_putc(out, ',');
        put_whole(c, &c->choices[i], out);
    }
    if (c->n_choices > 1)
        buf_putc(out, ']');
}

static void chunk(struct completion *c, struct choice *h, struct buf *out)
{
    struct jw w = {.out = out};
    h->begun = true;
    sse_frame_begin(out);
    if (h->finish_reason) {
        put_whole(c, h, out);
    } else {
        jw_begin(&w, '{');
        put_piece(c, h, &w);
        jw_key_bool(&w, "stop", false);
        if (c->params.timings)
            completion_put_timings(h, &w);
        jw_end(&w, '}');
    }
    sse_frame_end(out);
}

/* The last object of a choice has said it. */
static void end(struct completion *c, struct buf *out)
{
    (void)c;
    (void)out;
}

#define LLAMA_DIALECT(NAME, TRANSLATE)                                                                       \
    {                                                                                                        \
        .name = NAME, .id_prefix = "cmpl-", .api = API_COMPLETIONS, .chat_logprobs = true,                   \
        .translate = TRANSLATE, .defaults = defaults, .parse = completion_parse_prompts, .render = render,   \
        .chunk = chunk, .end = end, .fail = completion_render_fail, .stream_type = SSE_TYPE,                 \
        .ping = SSE_PING                                                                                     \
    }
static const struct dialect dialect = LLAMA_DIALECT("completion", translate);
static const struct dialect infill = LLAMA_DIALECT("infill", translate_infill);

void api_llama_completion(struct request *r)
{
    completion_begin(r, &dialect);
}

void api_llama_infill(struct request *r)
{
    completion_begin(r, &infill);
}

/* ---- GET /props, /slots */

/* How many generations may run at once. */
static uint32_t n_slots(const struct server *s)
{
    return s->conf->n_sequences ? s->conf->n_sequences : ENGINE_SEQUENCES;
}

void api_llama_props(struct request *r)
{
    const struct server *s = r->server;
    struct fault f = {0};
    struct buf out;
    struct jw w = {.out = &out};
    if (server_serving(s, &f.error) != STATUS_OK) {
        reply_fault(r, &f);
        return;
    }
    const struct text_model *text = s->base.text;
    const struct gen_params usual = {.max_tokens = UINT32_MAX,
                                     .sampling = {.temperature = (float)USUAL_TEMPERATURE,
                                                  .top_k = USUAL_TOP_K,
                                                  .top_p = (float)USUAL_TOP_P,
                                                  .min_p = (float)USUAL_MIN_P,
                                                  .typical_p = 1,
                                                  .repetition_penalty = 1,
                                                  .penalty_last_n = -1}};
    buf_init(&out, 0);
    jw_begin(&w, '{');
    jw_key(&w, "default_generation_settings");
    jw_begin(&w, '{');
    jw_key_int(&w, "n_ctx", s->context);
    put_settings(&usual, "params", &w);
    jw_end(&w, '}');
    jw_key_int(&w, "total_slots", n_slots(s));
    jw_key_text(&w, "model_alias", s->base.name);
    jw_key_text(&w, "model_path", s->base.name); /* no path is anybody's business */
    jw_key_text(&w, "chat_template", text->chat_template_source ? text->chat_template_source : "");
    jw_key_text(&w, "bos_token", text->bos_text);
    jw_key_text(&w, "eos_token", text->eos_text);
    jw_key(&w, "modalities");
    jw_begin(&w, '{');
    jw_key_bool(&w, "vision", false);
    jw_key_bool(&w, "audio", false);
    jw_end(&w, '}');
    jw_key_text(&w, "build_info", "lorikeet " LORIKEET_VERSION);
    jw_key_bool(&w, "is_sleeping", false);
    jw_end(&w, '}');
    reply_json(r, 200, &out);
    buf_fini(&out);
}

static void put_slot(struct jw *w, const struct server *s, uint32_t id, const struct choice *h)
{
    jw_begin(w, '{');
    jw_key_int(w, "id", id);
    jw_key_int(w, "n_ctx", s->context);
    jw_key_bool(w, "is_processing", h != NULL);
    if (h) {
        jw_key(w, "next_token");
        jw_begin(w, '[');
        jw_begin(w, '{');
        jw_key_bool(w, "has_next_token", true);
        jw_key_int(w, "n_decoded", h->n_generated);
        jw_end(w, '}');
        jw_end(w, ']');
    }
    jw_end(w, '}');
}

static bool is_for(const struct completion *c, const struct tenant *who)
{
    return !who ||
           (c->r->caller && c->r->caller->tenant == who); /* one may have begun before there were tenants */
}

/* Those that run, then those that are free: no slot is anybody's for longer than a generation. Of a tenant's
 * own alone. */
static uint32_t put_slots(struct jw *w, const struct request *r)
{
    const struct server *s = r->server;
    const struct tenant *who = r->caller ? r->caller->tenant : NULL;
    uint32_t n = n_slots(s), id = 0;
    for (const struct completion *c = s->completions; c; c = c->next)
        for (uint32_t i = 0; i < c->n_choices && id < n; i++)
            if (c->choices[i].open && c->choices[i].started && is_for(c, who))
                put_slot(w, s, id++, &c->choices[i]);
    uint32_t n_free = n - id;
    while (id < n)
        put_slot(w, s, id++, NULL);
    return n_free;
}

void api_llama_slots(struct request *r)
{
    struct fault f = {0};
    struct buf out;
    struct jw w = {.out = &out};
    if (server_serving(r->server, &f.error) != STATUS_OK) {
        reply_fault(r, &f);
        return;
    }
    buf_init(&out, 0);
    jw_begin(&w, '[');
    uint32_t n_free = put_slots(&w, r);
    jw_end(&w, ']');
    if (n_free == 0 && request_arg(r, "fail_on_no_slot"))
        reply_error(r, 503, "no slot available", NULL, "overloaded");
    else
        reply_json(r, 200, &out);
    buf_fini(&out);
}
