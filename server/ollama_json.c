/* Ollama's answers: what was said in pieces, then an object with "done": true that has the counts. A call of
 * a tool is shown when it is whole, since its arguments are an object there. */
#include "ollama_json.h"

#include <string.h>

#include "base/clock.h"
#include "server.h"

static void begin(const struct completion *c, struct jw *w)
{
    const struct ollama_form *form = c->form;
    jw_begin(w, '{');
    jw_key_text(w, "model", form->model ? form->model : c->voice.shown);
    jw_key_time(w, "created_at", clock_wall_ms());
}

static void put_buf(struct jw *w, const char *key, const struct buf *b)
{
    jw_key(w, key);
    jw_bytes(w, b->data ? b->data : "", b->length);
}

static void put_call(struct jw *w, const struct reply_call *call, uint32_t index)
{
    json_t *arguments = call->arguments.data
                            ? json_loadb(call->arguments.data, call->arguments.length, JSON_ALLOW_NUL, NULL)
                            : NULL;
    jw_begin(w, '{');
    jw_key_text(w, "id", call->id);
    jw_key(w, "function");
    jw_begin(w, '{');
    jw_key_int(w, "index", index);
    put_buf(w, "name", &call->name);
    jw_key(w, "arguments");
    if (json_is_object(arguments)) {
        jw_raw(w, call->arguments.data, call->arguments.length);
    } else { /* the limit of tokens has cut it */
        jw_begin(w, '{');
        jw_end(w, '}');
    }
    jw_end(w, '}');
    jw_end(w, '}');
    json_decref(arguments);
}

/* Nothing of the call follows. */
static bool is_whole(const struct choice *h, uint32_t index)
{
    return h->finish_reason || index + 1 < h->reply.n_calls;
}

static bool has_calls(const struct choice *h)
{
    for (uint32_t i = 0; i < h->reply.n_calls; i++)
        if (!h->reply.calls[i].shown && is_whole(h, i))
            return true;
    return false;
}

static void put_calls(struct choice *h, struct jw *w)
{
    if (!has_calls(h))
        return;
    jw_key(w, "tool_calls");
    jw_begin(w, '[');
    for (uint32_t i = 0; i < h->reply.n_calls; i++) {
        struct reply_call *call = &h->reply.calls[i];
        if (call->shown || !is_whole(h, i))
            continue;
        put_call(w, call, i);
        call->shown = true;
        buf_clear(&call->arguments);
    }
    jw_end(w, ']');
}

/* What waits to be shown; it is shown then. */
static void put_said(struct completion *c, struct choice *h, struct jw *w)
{
    const struct ollama_form *form = c->form;
    struct reply *p = &h->reply;
    if (!form->generates) {
        jw_key(w, "message");
        jw_begin(w, '{');
        jw_key_text(w, "role", "assistant");
    }
    put_buf(w, form->generates ? "response" : "content", &p->content);
    if (p->reasoning.length)
        put_buf(w, "thinking", &p->reasoning);
    put_calls(h, w);
    if (!form->generates)
        jw_end(w, '}');
    if (h->logprobs.items.length) {
        jw_key(w, "logprobs");
        jw_begin(w, '[');
        jw_raw(w, h->logprobs.items.data, h->logprobs.items.length);
        jw_end(w, ']');
    }
    buf_clear(&p->content);
    buf_clear(&p->reasoning);
    buf_clear(&h->logprobs.items);
}

static void put_done(const struct completion *c, const struct choice *h, struct jw *w)
{
    jw_key_bool(w, "done", true);
    jw_key_text(w, "done_reason", strcmp(h->finish_reason, "length") == 0 ? "length" : "stop");
    jw_key_int(w, "total_duration", clock_now_ns() - c->r->started_ns);
    jw_key_int(w, "load_duration", 0);
    jw_key_int(w, "prompt_eval_count", (int64_t)h->prompt->ids.n_ids);
    jw_key_int(w, "prompt_eval_duration", h->prefill_ns);
    jw_key_int(w, "eval_count", h->n_generated);
    jw_key_int(w, "eval_duration", h->decode_ns);
    jw_end(w, '}');
}

void ollama_render(struct completion *c, struct buf *out)
{
    struct choice *h = &c->choices[0];
    struct jw w = {.out = out};
    begin(c, &w);
    put_said(c, h, &w);
    put_done(c, h, &w);
}

void ollama_render_load(struct completion *c, struct buf *out)
{
    struct jw w = {.out = out};
    begin(c, &w);
    put_said(c, &c->choices[0], &w);
    jw_key_bool(&w, "done", true);
    jw_key_text(&w, "done_reason", ((const struct ollama_form *)c->form)->unloads ? "unload" : "load");
    jw_end(&w, '}');
}

void ollama_chunk(struct completion *c, struct choice *h, struct buf *out)
{
    const struct reply *p = &h->reply;
    h->begun = true;
    if (!p->content.length && !p->reasoning.length && !h->logprobs.items.length && !has_calls(h))
        return;
    struct jw w = {.out = out};
    begin(c, &w);
    put_said(c, h, &w);
    jw_key_bool(&w, "done", false);
    jw_end(&w, '}');
    buf_putc(out, '\n');
}

void ollama_end(struct completion *c, struct buf *out)
{
    struct choice *h = &c->choices[0];
    struct jw w = {.out = out};
    begin(c, &w);
    put_said(c, h, &w);
    put_done(c, h, &w);
    buf_putc(out, '\n');
}

void ollama_fail(struct completion *c, struct buf *out)
{
    render_fault(out, ERRORS_OLLAMA, http_status_of(c->fault.error.status), &c->fault);
    buf_putc(out, '\n');
}
