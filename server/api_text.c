/* POST /tokenize, /detokenize, /apply-template: text, token ids and prompts of this model, with the fields of
 * llama-server's and of vLLM's endpoints of these names together. Long texts and templates go to a worker. */
#include "api.h"
#include "api_messages.h"
#include "api_parse.h"
#include "reply_job.h"
#include "server.h"

static void begin(struct request *r, void (*work)(struct reply_job *job))
{
    struct reply_job *job = reply_job_create(r, sizeof *job, work);
    if (!job)
        return;
    job->fault.error.status = server_serving(r->server, &job->fault.error); /* what it says is the answer */
    reply_job_run(job, r->n_body > r->server->conf->worker_text_bytes);
}

/* ---- tokenize */

/* A text; part of a character is a list of bytes, as llama-server has it. */
static void put_piece(struct jw *w, const char *piece, size_t n)
{
    if (utf8_valid_prefix(piece, n) == n) {
        jw_bytes(w, piece, n);
        return;
    }
    jw_begin(w, '[');
    for (size_t i = 0; i < n; i++)
        jw_int(w, (unsigned char)piece[i]);
    jw_end(w, ']');
}

static void put_pieces(struct jw *w, const struct tokenizer *t, const struct token_list *ids,
                       bool with_pieces)
{
    jw_key(w, "tokens");
    jw_begin(w, '[');
    for (size_t i = 0; i < ids->n_ids; i++) {
        if (!with_pieces) {
            jw_int(w, ids->ids[i]);
            continue;
        }
        size_t n = 0;
        const char *piece = tokenizer_piece(t, ids->ids[i], &n);
        jw_begin(w, '{');
        jw_key_int(w, "id", ids->ids[i]);
        jw_key(w, "piece");
        put_piece(w, piece ? piece : "", piece ? n : 0);
        jw_end(w, '}');
    }
    jw_end(w, ']');
}

static void put_strings(struct jw *w, const struct tokenizer *t, const struct token_list *ids)
{
    jw_key(w, "token_strs");
    jw_begin(w, '[');
    for (size_t i = 0; i < ids->n_ids; i++) {
        size_t n = 0;
        const char *piece = tokenizer_piece(t, ids->ids[i], &n);
        jw_bytes(w, piece ? piece : "", piece ? n : 0);
    }
    jw_end(w, ']');
}

/* What is to be cut into tokens: llama-server's content, vLLM's prompt, or a chat's. *adds: the model's
 * special tokens by default, as vLLM does for a prompt; a chat's template has put them there. */
static void read_subject(struct reply_job *job, json_t *body, struct reader *r, struct buf *out, bool *adds)
{
    const char *text = NULL;
    *adds = false;
    if (json_is_array(json_object_get(body, "messages"))) {
        r->status = render_chat(job->r->server, body, out, &job->fault);
        return;
    }
    if (!read_text(r, "content", &text) && read_text(r, "prompt", &text))
        *adds = true;
    if (!text)
        read_fail(r, STATUS_INVALID, "content",
                  "content: missing; expected a string (or prompt: a string, or messages)");
    else if (!buf_puts(out, text))
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the text");
}

static enum status tokenize_body(struct reply_job *job, json_t *body)
{
    struct reader r = {.object = body, .fault = &job->fault};
    const struct server *s = job->r->server;
    const struct tokenizer *t = s->base.text->tokenizer;
    bool with_pieces = false, strings = false;
    struct encode_options o = {.parse_special = true};
    struct token_list ids = {0};
    struct error err;
    struct buf text;
    buf_init(&text, 0);
    read_subject(job, body, &r, &text, &o.add_special);
    read_bool(&r, "add_special", &o.add_special);
    read_bool(&r, "add_special_tokens", &o.add_special);
    read_bool(&r, "parse_special", &o.parse_special);
    read_bool(&r, "with_pieces", &with_pieces);
    read_bool(&r, "return_token_strs", &strings);
    if (r.status == STATUS_OK &&
        tokenizer_encode(t, text.data ? text.data : "", text.length, &o, &ids, &err) != STATUS_OK)
        read_fail(&r, err.status, "content", "%s", err.text);
    if (r.status == STATUS_OK) {
        struct jw w = {.out = &job->out};
        jw_begin(&w, '{');
        jw_key_int(&w, "count", (int64_t)ids.n_ids);
        jw_key_int(&w, "max_model_len", s->context);
        put_pieces(&w, t, &ids, with_pieces);
        if (strings)
            put_strings(&w, t, &ids);
        jw_end(&w, '}');
    }
    token_list_fini(&ids);
    buf_fini(&text);
    return r.status;
}

static enum status detokenize_body(struct reply_job *job, json_t *body)
{
    struct reader r = {.object = body, .fault = &job->fault};
    const struct server *s = job->r->server;
    const json_t *tokens = NULL;
    struct token_list ids = {0};
    struct buf text;
    struct error err;
    buf_init(&text, 0);
    if (!read_array(&r, "tokens", &tokens))
        read_fail(&r, STATUS_INVALID, "tokens", "tokens: missing; expected an array of token ids");
    for (size_t i = 0; i < json_array_size(tokens) && r.status == STATUS_OK; i++) {
        int32_t id;
        if (read_token_id(&r, json_array_get(tokens, i), "tokens", i,
                          tokenizer_n_tokens(s->base.text->tokenizer), &id) &&
            !token_list_push(&ids, id))
            read_fail(&r, STATUS_NO_MEMORY, NULL, "no memory for the tokens");
    }
    if (r.status == STATUS_OK &&
        tokenizer_decode(s->base.text->tokenizer, ids.ids, ids.n_ids, false, &text, &err) != STATUS_OK)
        read_fail(&r, err.status, "tokens", "%s", err.text);
    if (r.status == STATUS_OK) {
        struct jw w = {.out = &job->out};
        jw_begin(&w, '{');
        jw_key(&w, "content");
        jw_bytes(&w, text.data ? text.data : "", text.length);
        jw_key(&w, "prompt");
        jw_bytes(&w, text.data ? text.data : "", text.length);
        jw_end(&w, '}');
    }
    token_list_fini(&ids);
    buf_fini(&text);
    return r.status;
}

static enum status template_body(struct reply_job *job, json_t *body)
{
    struct buf prompt;
    buf_init(&prompt, 0);
    enum status s = render_chat(job->r->server, body, &prompt, &job->fault);
    if (s == STATUS_OK) {
        struct jw w = {.out = &job->out};
        jw_begin(&w, '{');
        jw_key(&w, "prompt");
        jw_bytes(&w, prompt.data ? prompt.data : "", prompt.length);
        jw_end(&w, '}');
    }
    buf_fini(&prompt);
    return s;
}

static void with_body(struct reply_job *job, enum status (*what)(struct reply_job *job, json_t *body))
{
    json_t *body = NULL;
    enum status s = parse_body(job->r->body, job->r->n_body, &body, &job->fault);
    if (s == STATUS_OK)
        s = what(job, body);
    job->fault.error.status = s;
    json_decref(body);
}

static void tokenize(struct reply_job *job)
{
    with_body(job, tokenize_body);
}

static void detokenize(struct reply_job *job)
{
    with_body(job, detokenize_body);
}

static void apply_template(struct reply_job *job)
{
    with_body(job, template_body);
}

void api_apply_template(struct request *r)
{
    begin(r, apply_template);
}

void api_tokenize(struct request *r)
{
    begin(r, tokenize);
}

void api_detokenize(struct request *r)
{
    begin(r, detokenize);
}
