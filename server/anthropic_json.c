/* Anthropic's messages: whole, and as message_start, blocks with deltas, message_delta, message_stop. One
 * block is open at a time; what is said goes into blocks in the order in which it came. */
#include "anthropic_json.h"

#include <string.h>

#include "server.h"
#include "sse.h"

/* ---- parts of both */

static const char *stop_reason(const struct completion *c, const struct choice *h)
{
    if (strcmp(h->finish_reason, "length") == 0)
        return "max_tokens";
    if (h->reply.n_calls)
        return "tool_use";
    bool sequence = h->stop_string_index >= 0 && (uint32_t)h->stop_string_index < c->params.n_stop;
    return sequence ? "stop_sequence" : "end_turn";
}

static void put_stop(const struct completion *c, const struct choice *h, struct jw *w)
{
    const char *reason = h->finish_reason ? stop_reason(c, h) : NULL;
    bool sequence = reason && strcmp(reason, "stop_sequence") == 0;
    jw_key_text(w, "stop_reason", reason);
    jw_key_text(w, "stop_sequence", sequence ? c->params.stop[h->stop_string_index] : NULL);
}

/* What the cache had isn't counted as input, as Anthropic has it. */
static void put_usage(const struct choice *h, struct jw *w)
{
    jw_key(w, "usage");
    jw_begin(w, '{');
    jw_key_int(w, "input_tokens", (int64_t)h->prompt->ids.n_ids - h->n_cached);
    jw_key_int(w, "cache_creation_input_tokens", 0);
    jw_key_int(w, "cache_read_input_tokens", h->n_cached);
    jw_key_int(w, "output_tokens", h->n_generated);
    jw_end(w, '}');
}

static void begin_message(const struct completion *c, struct jw *w)
{
    jw_begin(w, '{');
    jw_key_text(w, "id", c->id);
    jw_key_text(w, "type", "message");
    jw_key_text(w, "role", "assistant");
    jw_key_text(w, "model", c->voice.shown);
    jw_key(w, "content");
}

static void put_text_block(struct jw *w, const char *type, const struct buf *text)
{
    jw_begin(w, '{');
    jw_key_text(w, "type", type);
    jw_key(w, type);
    jw_bytes(w, text && text->data ? text->data : "", text ? text->length : 0);
    if (strcmp(type, "thinking") == 0)
        jw_key_text(w, "signature", "");
    jw_end(w, '}');
}

/* input: the arguments if they are whole; a call that the limit of tokens has cut has none. */
static void put_tool_block(struct jw *w, const struct reply_call *call, bool with_input)
{
    json_t *input = with_input && call->arguments.data
                        ? json_loadb(call->arguments.data, call->arguments.length, JSON_ALLOW_NUL, NULL)
                        : NULL;
    jw_begin(w, '{');
    jw_key_text(w, "type", "tool_use");
    jw_key_text(w, "id", call->id);
    jw_key(w, "name");
    jw_bytes(w, call->name.data ? call->name.data : "", call->name.length);
    jw_key(w, "input");
    if (json_is_object(input)) {
        jw_raw(w, call->arguments.data, call->arguments.length);
    } else {
        jw_begin(w, '{');
        jw_end(w, '}');
    }
    jw_end(w, '}');
    json_decref(input);
}

/* ---- whole */

void anthropic_render(struct completion *c, struct buf *out)
{
    const struct choice *h = &c->choices[0];
    const struct reply *p = &h->reply;
    struct jw w = {.out = out};
    begin_message(c, &w);
    jw_begin(&w, '[');
    if (p->reasoning.length)
        put_text_block(&w, "thinking", &p->reasoning);
    if (p->content.length || (!p->n_calls && !p->reasoning.length)) /* clients read content[0] */
        put_text_block(&w, "text", &p->content);
    for (uint32_t i = 0; i < p->n_calls; i++)
        put_tool_block(&w, &p->calls[i], true);
    jw_end(&w, ']');
    put_stop(c, h, &w);
    put_usage(h, &w);
    jw_end(&w, '}');
}

/* ---- stream */

static void event_begin(struct buf *out, struct jw *w, const char *type)
{
    *w = (struct jw){.out = out};
    sse_event_begin(out, type);
    jw_begin(w, '{');
    jw_key_text(w, "type", type);
}

static void event_end(struct buf *out, struct jw *w)
{
    jw_end(w, '}');
    sse_frame_end(out);
}

static void put_message_start(const struct completion *c, const struct choice *h, struct buf *out)
{
    struct jw w;
    event_begin(out, &w, "message_start");
    jw_key(&w, "message");
    begin_message(c, &w);
    jw_begin(&w, '[');
    jw_end(&w, ']');
    jw_key_text(&w, "stop_reason", NULL);
    jw_key_text(&w, "stop_sequence", NULL);
    put_usage(h, &w);
    jw_end(&w, '}');
    event_end(out, &w);
}

static void close_block(struct anthropic_stream *s, struct buf *out)
{
    struct jw w;
    if (s->open == BLOCK_NONE)
        return;
    event_begin(out, &w, "content_block_stop");
    jw_key_int(&w, "index", s->n_blocks - 1);
    event_end(out, &w);
    s->open = BLOCK_NONE;
}

/* call: of a BLOCK_TOOL */
static void open_block(struct anthropic_stream *s, enum anthropic_block kind, const struct reply_call *call,
                       struct buf *out)
{
    struct jw w;
    close_block(s, out);
    event_begin(out, &w, "content_block_start");
    jw_key_int(&w, "index", s->n_blocks);
    jw_key(&w, "content_block");
    if (kind == BLOCK_TOOL)
        put_tool_block(&w, call, false);
    else
        put_text_block(&w, kind == BLOCK_TEXT ? "text" : "thinking", NULL);
    event_end(out, &w);
    s->open = kind;
    s->n_blocks++;
}

/* The bytes as a delta of the open block; they are shown then. */
static void put_delta(const struct anthropic_stream *s, struct buf *bytes, struct buf *out)
{
    static const char *const types[] = {NULL, "thinking_delta", "text_delta", "input_json_delta"};
    static const char *const keys[] = {NULL, "thinking", "text", "partial_json"};
    struct jw w;
    if (!bytes->length)
        return;
    event_begin(out, &w, "content_block_delta");
    jw_key_int(&w, "index", s->n_blocks - 1);
    jw_key(&w, "delta");
    jw_begin(&w, '{');
    jw_key_text(&w, "type", types[s->open]);
    jw_key(&w, keys[s->open]);
    jw_bytes(&w, bytes->data, bytes->length);
    jw_end(&w, '}');
    event_end(out, &w);
    buf_clear(bytes);
}

static void put_text(struct anthropic_stream *s, enum anthropic_block kind, struct buf *bytes,
                     struct buf *out)
{
    if (!bytes->length)
        return;
    if (s->open != kind)
        open_block(s, kind, NULL, out);
    put_delta(s, bytes, out);
}

static void put_calls(struct anthropic_stream *s, struct reply *p, struct buf *out)
{
    for (uint32_t i = 0; i < p->n_calls; i++) {
        struct reply_call *call = &p->calls[i];
        if (!call->shown) {
            open_block(s, BLOCK_TOOL, call, out);
            s->call = i;
            call->shown = true;
        }
        if (s->open == BLOCK_TOOL && s->call == i)
            put_delta(s, &call->arguments, out);
    }
}

void anthropic_start(struct completion *c, struct buf *out)
{
    struct choice *h = &c->choices[0];
    if (!h->begun)
        put_message_start(c, h, out);
    h->begun = true;
}

void anthropic_chunk(struct completion *c, struct choice *h, struct buf *out)
{
    struct anthropic_stream *s = c->form;
    struct reply *p = &h->reply;
    anthropic_start(c, out);
    if (s->open == BLOCK_TOOL) /* what belongs to a call that was begun came before what follows it */
        put_delta(s, &p->calls[s->call].arguments, out);
    put_text(s, BLOCK_THINKING, &p->reasoning, out);
    put_text(s, BLOCK_TEXT, &p->content, out);
    put_calls(s, p, out);
    if (h->finish_reason) {
        if (s->n_blocks == 0)
            open_block(s, BLOCK_TEXT, NULL, out);
        close_block(s, out);
    }
}

void anthropic_end(struct completion *c, struct buf *out)
{
    const struct choice *h = &c->choices[0];
    struct jw w;
    event_begin(out, &w, "message_delta");
    jw_key(&w, "delta");
    jw_begin(&w, '{');
    put_stop(c, h, &w);
    jw_end(&w, '}');
    put_usage(h, &w);
    event_end(out, &w);
    event_begin(out, &w, "message_stop");
    event_end(out, &w);
}

void anthropic_fail(struct completion *c, struct buf *out)
{
    sse_event_begin(out, "error");
    render_fault(out, ERRORS_ANTHROPIC, http_status_of(c->fault.error.status), &c->fault);
    sse_frame_end(out);
}
