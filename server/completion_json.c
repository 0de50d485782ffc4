/* Answers and chunks in OpenAI's form, for chat and for completions, with the additions that vLLM's and
 * llama-server's clients look for (token_ids, stop_reason, timings). Rendering only. */
#include "completion.h"

#include "server.h"
#include "sse.h"

static void put_head(const struct completion *c, struct jw *w, bool chunk)
{
    const char *object = c->dialect->api == API_COMPLETIONS ? "text_completion"
                         : chunk                            ? "chat.completion.chunk"
                                                            : "chat.completion";
    jw_key_text(w, "id", c->id);
    jw_key_text(w, "object", object);
    jw_key_int(w, "created", c->created_s);
    jw_key_text(w, "model", c->voice.shown);
    jw_key_text(w, "system_fingerprint", c->voice.fingerprint);
}

static void put_usage(const struct completion *c, struct jw *w)
{
    uint64_t n_prompt = 0, n_cached = 0, n_generated = 0, n_reasoning = 0;
    for (uint32_t i = 0; i < c->n_choices; i++) {
        const struct choice *h = &c->choices[i];
        n_generated += h->n_generated;
        n_reasoning += h->n_reasoning;
        if (i % c->params.n_made)
            continue; /* a prompt is counted once, however many choices it has */
        n_prompt += h->prompt->ids.n_ids;
        n_cached += h->n_cached;
    }
    jw_key(w, "usage");
    jw_begin(w, '{');
    jw_key_int(w, "prompt_tokens", (int64_t)n_prompt);
    jw_key_int(w, "completion_tokens", (int64_t)n_generated);
    jw_key_int(w, "total_tokens", (int64_t)(n_prompt + n_generated));
    jw_key(w, "prompt_tokens_details");
    jw_begin(w, '{');
    jw_key_int(w, "cached_tokens", (int64_t)n_cached);
    jw_end(w, '}');
    if (c->format.thought) {
        jw_key(w, "completion_tokens_details");
        jw_begin(w, '{');
        jw_key_int(w, "reasoning_tokens", (int64_t)n_reasoning);
        jw_end(w, '}');
    }
    jw_end(w, '}');
}

static void put_rate(struct jw *w, const char *prefix, uint32_t n, double ms)
{
    char key[48];
    static const char *const ends[] = {"_n", "_ms", "_per_token_ms", "_per_second"};
    double values[] = {n, ms, n ? ms / n : 0, ms > 0 ? n * 1000.0 / ms : 0};
    for (int i = 0; i < 4; i++) {
        snprintf(key, sizeof key, "%s%s", prefix, ends[i]);
        if (i == 0)
            jw_key_int(w, key, n);
        else
            jw_key_float(w, key, values[i]);
    }
}

/* llama-server's object. While a generation runs, its phases are taken from when its tokens came. */
void completion_put_timings(const struct choice *h, struct jw *w)
{
    bool done = h->finish_reason != NULL;
    int64_t prefill_ns = done ? h->prefill_ns : h->first_ns - h->owner->r->started_ns;
    int64_t decode_ns = done ? h->decode_ns : h->last_ns - h->first_ns;
    uint32_t n_prompt = (uint32_t)h->prompt->ids.n_ids - h->n_cached;
    jw_key(w, "timings");
    jw_begin(w, '{');
    jw_key_int(w, "cache_n", h->n_cached);
    put_rate(w, "prompt", n_prompt, (double)prefill_ns / 1e6);
    put_rate(w, "predicted", h->n_generated, (double)decode_ns / 1e6);
    if (h->n_drafted) {
        jw_key_int(w, "draft_n", h->n_drafted);
        jw_key_int(w, "draft_n_accepted", h->n_drafts_right);
    }
    jw_end(w, '}');
}

static void put_prompt_ids(const struct prompt *p, struct jw *w)
{
    jw_key(w, "prompt_token_ids");
    jw_begin(w, '[');
    for (size_t i = 0; i < p->ids.n_ids; i++)
        jw_int(w, p->ids.ids[i]);
    jw_end(w, ']');
}

/* vLLM's; of a chat they are the answer's, since all its choices have one prompt. */
static void put_prompt_logprobs(const struct completion *c, const struct choice *h, struct jw *w)
{
    if (c->params.n_prompt_logprobs < 0)
        return;
    jw_key(w, "prompt_logprobs");
    jw_begin(w, '[');
    jw_raw(w, h->prompt_logprobs.data, h->prompt_logprobs.length);
    jw_end(w, ']');
}

static void put_ids(const struct completion *c, struct choice *h, struct jw *w)
{
    if (!c->params.return_token_ids)
        return;
    jw_key(w, "token_ids");
    jw_begin(w, '[');
    jw_raw(w, h->ids.data, h->ids.length);
    jw_end(w, ']');
    buf_clear(&h->ids);
}

static void put_end(const struct completion *c, struct choice *h, struct jw *w)
{
    jw_key(w, "logprobs");
    if (c->params.n_logprobs >= 0 && h->logprobs.items.length)
        logprob_list_write(&h->logprobs, c->dialect->api, w);
    else
        jw_null(w);
    jw_key_text(w, "finish_reason", h->finish_reason);
    if (h->finish_reason) {
        jw_key(w, "stop_reason"); /* which stop string or token; null: end of text, or length */
        if (h->stop_string_index >= 0 && (uint32_t)h->stop_string_index < c->params.n_stop)
            jw_text(w, c->params.stop[h->stop_string_index]);
        else if (h->stop_token >= 0 && c->params.n_stop_tokens)
            jw_int(w, h->stop_token);
        else
            jw_null(w);
    }
    put_ids(c, h, w);
}

static void put_buf(struct jw *w, const char *key, const struct buf *b)
{
    jw_key(w, key);
    jw_bytes(w, b->data ? b->data : "", b->length);
}

/* {"name", "arguments"}; name NULL: more arguments of a call that is known. */
static void put_function(struct jw *w, const char *key, const char *name, const struct buf *arguments)
{
    jw_key(w, key);
    jw_begin(w, '{');
    if (name)
        jw_key_text(w, "name", name);
    if (arguments)
        put_buf(w, "arguments", arguments);
    else
        jw_key_text(w, "arguments", "");
    jw_end(w, '}');
}

static void put_calls(const struct completion *c, const struct reply *p, struct jw *w)
{
    if (c->legacy_calls) {
        put_function(w, "function_call", p->calls[0].name.data, &p->calls[0].arguments);
        return;
    }
    jw_key(w, "tool_calls");
    jw_begin(w, '[');
    for (uint32_t i = 0; i < p->n_calls; i++) {
        jw_begin(w, '{');
        jw_key_text(w, "id", p->calls[i].id);
        jw_key_text(w, "type", "function");
        put_function(w, "function", p->calls[i].name.data, &p->calls[i].arguments);
        jw_end(w, '}');
    }
    jw_end(w, ']');
}

static bool shows_reasoning(const struct completion *c, const struct reply *p)
{
    return p->reasoning.length && !c->hides_reasoning;
}

static void put_message(const struct completion *c, const struct reply *p, struct jw *w)
{
    jw_key(w, "message");
    jw_begin(w, '{');
    jw_key_text(w, "role", "assistant");
    if (p->content.length || (!p->n_calls && !p->reasoning.length)) {
        put_buf(w, "content", &p->content);
    } else {
        jw_key(w, "content");
        jw_null(w);
    }
    jw_key(w, "refusal");
    jw_null(w);
    if (shows_reasoning(c, p))
        put_buf(w, "reasoning_content", &p->reasoning);
    if (p->n_calls)
        put_calls(c, p, w);
    jw_end(w, '}');
}

static void put_choice(const struct completion *c, struct choice *h, struct jw *w)
{
    jw_begin(w, '{');
    jw_key_int(w, "index", h->index);
    if (c->dialect->api == API_CHAT)
        put_message(c, &h->reply, w);
    else
        put_buf(w, "text", &h->reply.content);
    put_end(c, h, w);
    if (c->dialect->api == API_COMPLETIONS)
        put_prompt_logprobs(c, h, w);
    if (c->params.return_token_ids)
        put_prompt_ids(h->prompt, w);
    jw_end(w, '}');
}

void completion_render(struct completion *c, struct buf *out)
{
    struct jw w = {.out = out};
    jw_begin(&w, '{');
    put_head(c, &w, false);
    jw_key(&w, "choices");
    jw_begin(&w, '[');
    for (uint32_t i = 0; i < c->n_choices; i++)
        if (!c->choices[i].hidden)
            put_choice(c, &c->choices[i], &w);
    jw_end(&w, ']');
    if (c->dialect->api == API_CHAT)
        put_prompt_logprobs(c, &c->choices[0], &w);
    if (c->dialect->api == API_CHAT && c->params.return_token_ids)
        put_prompt_ids(c->choices[0].prompt, &w); /* vLLM's clients look for them here */
    put_usage(c, &w);
    if (c->params.timings)
        completion_put_timings(&c->choices[0], &w);
    jw_end(&w, '}');
}

/* ---- streams: a chunk has one of these, as OpenAI sends them and its clients put them together */

enum delta {
    DELTA_ROLE, /* the choice's first */
    DELTA_TEXT, /* content and reasoning that gathered; with the choice's last token it may be empty */
    DELTA_CALL, /* a call begins */
    DELTA_ARGUMENTS,
    DELTA_END, /* nothing but finish_reason */
};

struct chunk {
    enum delta delta;
    struct reply_call *call; /* of DELTA_CALL and DELTA_ARGUMENTS */
};

static void put_call_delta(const struct completion *c, const struct choice *h, const struct chunk *k,
                           struct jw *w)
{
    bool begins = k->delta == DELTA_CALL;
    const struct buf *arguments = begins ? NULL : &k->call->arguments;
    if (c->legacy_calls) {
        put_function(w, "function_call", begins ? k->call->name.data : NULL, arguments);
        return;
    }
    jw_key(w, "tool_calls");
    jw_begin(w, '[');
    jw_begin(w, '{');
    jw_key_int(w, "index", k->call - h->reply.calls);
    if (begins) {
        jw_key_text(w, "id", k->call->id);
        jw_key_text(w, "type", "function");
    }
    put_function(w, "function", begins ? k->call->name.data : NULL, arguments);
    jw_end(w, '}');
    jw_end(w, ']');
}

static void put_delta(const struct completion *c, const struct choice *h, const struct chunk *k, struct jw *w)
{
    const struct reply *p = &h->reply;
    jw_key(w, "delta");
    jw_begin(w, '{');
    switch (k->delta) {
    case DELTA_ROLE:
        jw_key_text(w, "role", "assistant");
        jw_key_text(w, "content", p->n_calls && !p->content.length ? NULL : "");
        break;
    case DELTA_TEXT:
        if (shows_reasoning(c, p))
            put_buf(w, "reasoning_content", &p->reasoning);
        if (p->content.length || !p->reasoning.length)
            put_buf(w, "content", &p->content);
        break;
    case DELTA_CALL:
    case DELTA_ARGUMENTS:
        put_call_delta(c, h, k, w);
        break;
    case DELTA_END:
        break;
    }
    jw_end(w, '}');
}

static void put_chunk_choice(const struct completion *c, struct choice *h, const struct chunk *k,
                             struct jw *w)
{
    bool first = k->delta == DELTA_ROLE;
    jw_begin(w, '{');
    jw_key_int(w, "index", h->index);
    if (c->dialect->api == API_CHAT) {
        put_delta(c, h, k, w);
    } else {
        jw_key(w, "text");
        jw_bytes(w, h->reply.content.data, first ? 0 : h->reply.content.length);
    }
    if (first) {
        jw_key(w, "logprobs");
        jw_null(w);
        jw_key(w, "finish_reason");
        jw_null(w);
        if (c->params.return_token_ids)
            put_prompt_ids(h->prompt, w);
    } else {
        put_end(c, h, w);
    }
    jw_end(w, '}');
}

static void put_chunk(struct completion *c, struct choice *h, const struct chunk *k, struct buf *out)
{
    struct jw w = {.out = out};
    sse_frame_begin(out);
    jw_begin(&w, '{');
    put_head(c, &w, true);
    jw_key(&w, "choices");
    jw_begin(&w, '[');
    put_chunk_choice(c, h, k, &w);
    jw_end(&w, ']');
    if (k->delta == DELTA_ROLE && h->index == 0 && c->dialect->api == API_CHAT && c->params.return_token_ids)
        put_prompt_ids(h->prompt, &w);
    if (c->params.continuous_usage)
        put_usage(c, &w);
    else if (c->params.include_usage) {
        jw_key(&w, "usage");
        jw_null(&w);
    }
    if (c->params.timings && k->delta != DELTA_ROLE)
        completion_put_timings(h, &w);
    jw_end(&w, '}');
    sse_frame_end(out);
}

static void put_call_chunks(struct completion *c, struct choice *h, struct buf *out)
{
    for (uint32_t i = 0; i < h->reply.n_calls; i++) {
        struct reply_call *call = &h->reply.calls[i];
        if (!call->shown)
            put_chunk(c, h, &(struct chunk){DELTA_CALL, call}, out);
        call->shown = true;
        if (call->arguments.length)
            put_chunk(c, h, &(struct chunk){DELTA_ARGUMENTS, call}, out);
        buf_clear(&call->arguments);
    }
}

/* Text, then calls: each kind in chunks of its own. What came with the tokens goes along with the first. */
static void put_chat_chunks(struct completion *c, struct choice *h, struct buf *out)
{
    struct reply *p = &h->reply;
    bool text = p->content.length || shows_reasoning(c, p), calls = false;
    for (uint32_t i = 0; i < p->n_calls; i++)
        calls |= !p->calls[i].shown || p->calls[i].arguments.length;
    const char *reason =
        h->finish_reason; /* what ends a choice has an empty delta: all else goes before it */
    h->finish_reason = NULL;
    if (text || (!calls && (h->logprobs.items.length || h->ids.length)))
        put_chunk(c, h, &(struct chunk){.delta = DELTA_TEXT}, out);
    buf_clear(&p->content);
    buf_clear(&p->reasoning);
    put_call_chunks(c, h, out);
    h->finish_reason = reason;
    if (reason)
        put_chunk(c, h, &(struct chunk){.delta = DELTA_END}, out);
}

void completion_render_chunk(struct completion *c, struct choice *h, struct buf *out)
{
    bool chat = c->dialect->api == API_CHAT;
    if (!h->begun && (chat || c->params.return_token_ids))
        put_chunk(c, h, &(struct chunk){.delta = DELTA_ROLE}, out);
    h->begun = true;
    if (chat) {
        put_chat_chunks(c, h, out);
        return;
    }
    put_chunk(c, h, &(struct chunk){.delta = DELTA_TEXT}, out);
    buf_clear(&h->reply.content);
}

static void put_usage_chunk(struct completion *c, struct buf *out)
{
    struct jw w = {.out = out};
    sse_frame_begin(out);
    jw_begin(&w, '{');
    put_head(c, &w, true);
    jw_key(&w, "choices");
    jw_begin(&w, '[');
    jw_end(&w, ']');
    put_usage(c, &w);
    jw_end(&w, '}');
    sse_frame_end(out);
}

void completion_render_end(struct completion *c, struct buf *out)
{
    if (c->params.include_usage)
        put_usage_chunk(c, out);
    sse_frame_begin(out);
    buf_puts(out, "[DONE]");
    sse_frame_end(out);
}

void completion_render_fail(struct completion *c, struct buf *out)
{
    sse_frame_begin(out);
    render_fault(out, ERRORS_OPENAI, http_status_of(c->fault.error.status), &c->fault);
    sse_frame_end(out); /* without [DONE]: a reader can tell */
}
