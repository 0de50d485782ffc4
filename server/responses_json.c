/* OpenAI's Responses, rendered. What a model said is moved from the reply into items, for a stream and for a
 * whole answer alike, since a stream's last event repeats all of them. */
#include "responses_json.h"

#include <gnutls/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "response_store.h"
#include "server.h"
#include "sse.h"

/* ---- the form */

static void free_form(void *data)
{
    struct responses_form *f = data;
    json_decref(f->asked);
    json_decref(f->input);
    json_decref(f->spaces);
    json_decref(f->functions);
    for (uint32_t i = 0; i < f->n_items; i++) {
        buf_fini(&f->items[i].text);
        buf_fini(&f->items[i].log_probs);
    }
    mem_free(f->items);
}

struct responses_form *responses_form_create(struct request *r)
{
    uint8_t bytes[24];
    struct responses_form *f = arena_alloc(r->arena, sizeof *f);
    if (!f || arena_on_end(r->arena, free_form, f) != 0 ||
        gnutls_rnd(GNUTLS_RND_NONCE, bytes, sizeof bytes) < 0)
        return NULL;
    size_t n = (size_t)snprintf(f->id, sizeof f->id, "resp_");
    for (size_t i = 0; i < sizeof bytes; i++)
        n += (size_t)snprintf(f->id + n, sizeof f->id - n, "%02x", bytes[i]);
    return f;
}

/* ---- values */

static void put_json(struct jw *w, const char *key, const json_t *v)
{
    char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    jw_key(w, key);
    if (text)
        jw_raw(w, text, strlen(text));
    else
        jw_null(w);
    free(text);
}

/* The caller's own word, or else a value as JSON. */
static void put_asked(struct jw *w, const struct responses_form *f, const char *key, const char *otherwise)
{
    const json_t *v = json_object_get(f->asked, key);
    if (v && !json_is_null(v)) {
        put_json(w, key, v);
        return;
    }
    jw_key(w, key);
    jw_raw(w, otherwise, strlen(otherwise));
}

static void put_buf(struct jw *w, const char *key, const struct buf *b)
{
    jw_key(w, key);
    jw_bytes(w, b->data ? b->data : "", b->length);
}

static void put_text_part(struct jw *w, const struct response_item *item, bool empty)
{
    bool message = item->kind == ITEM_MESSAGE;
    jw_begin(w, '{');
    jw_key_text(w, "type", message ? "output_text" : "reasoning_text");
    jw_key(w, "text");
    jw_bytes(w, item->text.data ? item->text.data : "", empty ? 0 : item->text.length);
    if (message) {
        jw_key(w, "annotations");
        jw_raw(w, "[]", 2);
        jw_key(w, "logprobs");
        jw_begin(w, '[');
        if (!empty)
            jw_raw(w, item->log_probs.data, item->log_probs.length);
        jw_end(w, ']');
    }
    jw_end(w, '}');
}

/* As the caller knows it. */
static void put_call_name(struct jw *w, const struct responses_form *f, const struct buf *name)
{
    const json_t *known = name->length ? json_object_getn(f->spaces, name->data, name->length) : NULL;
    if (!known) {
        put_buf(w, "name", name);
        return;
    }
    jw_key_text(w, "name", json_string_value(json_object_get(known, "name")));
    jw_key_text(w, "namespace", json_string_value(json_object_get(known, "namespace")));
}

/* status: "in_progress" shows an item that has nothing yet. */
static void put_item(struct jw *w, const struct choice *h, const struct response_item *item,
                     const char *status)
{
    static const char *const types[] = {"reasoning", "message", "function_call"};
    bool empty = strcmp(status, "in_progress") == 0;
    jw_begin(w, '{');
    jw_key_text(w, "id", item->id);
    jw_key_text(w, "type", types[item->kind]);
    jw_key_text(w, "status", status);
    if (item->kind == ITEM_CALL) {
        const struct reply_call *call = &h->reply.calls[item->call];
        jw_key_text(w, "call_id", call->id);
        put_call_name(w, h->owner->form, &call->name);
        jw_key(w, "arguments");
        jw_bytes(w, item->text.data ? item->text.data : "", empty ? 0 : item->text.length);
    } else {
        if (item->kind == ITEM_MESSAGE)
            jw_key_text(w, "role", "assistant");
        else {
            jw_key(w, "summary");
            jw_raw(w, "[]", 2);
        }
        jw_key(w, "content");
        jw_begin(w, '[');
        if (!empty)
            put_text_part(w, item, false);
        jw_end(w, ']');
    }
    jw_end(w, '}');
}

static bool was_cut(const struct choice *h)
{
    return h->finish_reason && strcmp(h->finish_reason, "length") == 0;
}

static void put_output(struct jw *w, const struct completion *c)
{
    const struct responses_form *f = c->form;
    const struct choice *h = &c->choices[0];
    jw_key(w, "output");
    jw_begin(w, '[');
    for (uint32_t i = 0; i < f->n_items; i++) {
        bool cut = i + 1 == f->n_items && (was_cut(h) || !h->finish_reason);
        put_item(w, h, &f->items[i], cut ? "incomplete" : "completed");
    }
    jw_end(w, ']');
}

static void put_usage(struct jw *w, const struct choice *h)
{
    jw_key(w, "usage");
    jw_begin(w, '{');
    jw_key_int(w, "input_tokens", (int64_t)h->prompt->ids.n_ids);
    jw_key(w, "input_tokens_details");
    jw_begin(w, '{');
    jw_key_int(w, "cached_tokens", h->n_cached);
    jw_key_int(w, "cache_write_tokens", 0);
    jw_end(w, '}');
    jw_key_int(w, "output_tokens", h->n_generated);
    jw_key(w, "output_tokens_details");
    jw_begin(w, '{');
    jw_key_int(w, "reasoning_tokens", h->n_reasoning);
    jw_end(w, '}');
    jw_key_int(w, "total_tokens", (int64_t)h->prompt->ids.n_ids + h->n_generated);
    jw_end(w, '}');
}

static void put_settings(struct jw *w, const struct responses_form *f)
{
    static const char *const rows[][2] = {{"instructions", "null"},
                                          {"metadata", "{}"},
                                          {"parallel_tool_calls", "true"},
                                          {"temperature", "1.0"},
                                          {"tool_choice", "\"auto\""},
                                          {"tools", "[]"},
                                          {"top_p", "1.0"},
                                          {"max_output_tokens", "null"},
                                          {"max_tool_calls", "null"},
                                          {"previous_response_id", "null"},
                                          {"reasoning", "{\"effort\":null,\"summary\":null}"},
                                          {"text", "{\"format\":{\"type\":\"text\"}}"},
                                          {"top_logprobs", "0"},
                                          {"truncation", "\"disabled\""},
                                          {"user", "null"},
                                          {"safety_identifier", "null"},
                                          {"prompt_cache_key", "null"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        put_asked(w, f, rows[i][0], rows[i][1]);
    jw_key_bool(w, "background", false);
    jw_key_text(w, "service_tier", "default");
    jw_key_bool(w, "store", f->stores);
}

/* error: of a response that failed, or NULL */
static void put_response(struct jw *w, const struct completion *c, const char *status,
                         const struct fault *error)
{
    const struct responses_form *f = c->form;
    const struct choice *h = &c->choices[0];
    bool done = strcmp(status, "in_progress") != 0;
    jw_begin(w, '{');
    jw_key_text(w, "id", f->id);
    jw_key_text(w, "object", "response");
    jw_key_int(w, "created_at", c->created_s);
    jw_key_text(w, "status", status);
    jw_key_text(w, "model", c->voice.shown);
    jw_key(w, "error");
    if (error) {
        jw_begin(w, '{');
        jw_key_text(w, "code", "server_error");
        jw_key_text(w, "message", error->error.text);
        jw_end(w, '}');
    } else {
        jw_null(w);
    }
    jw_key(w, "incomplete_details");
    if (strcmp(status, "incomplete") == 0)
        jw_raw(w, "{\"reason\":\"max_output_tokens\"}", strlen("{\"reason\":\"max_output_tokens\"}"));
    else
        jw_null(w);
    put_settings(w, f);
    put_output(w, c);
    if (done && !error) {
        put_usage(w, h);
    } else {
        jw_key(w, "usage");
        jw_null(w);
    }
    jw_end(w, '}');
}

/* ---- events */

static void event_begin(struct responses_form *f, struct jw *w, const char *type)
{
    sse_event_begin(w->out, type);
    w->comma = false;
    jw_begin(w, '{');
    jw_key_text(w, "type", type);
    jw_key_int(w, "sequence_number", (int64_t)f->sequence++);
}

static void event_end(struct jw *w)
{
    jw_end(w, '}');
    sse_frame_end(w->out);
}

static void put_response_event(struct completion *c, struct jw *w, const char *type, const char *status)
{
    bool failed = strcmp(status, "failed") == 0;
    event_begin(c->form, w, type);
    jw_key(w, "response");
    put_response(w, c, status, failed ? &c->fault : NULL);
    event_end(w);
}

static void begin_stream(struct completion *c, struct jw *w)
{
    struct choice *h = &c->choices[0];
    if (h->begun)
        return;
    h->begun = true;
    put_response_event(c, w, "response.created", "in_progress");
    put_response_event(c, w, "response.in_progress", "in_progress");
}

static void put_place(struct jw *w, const struct responses_form *f, const struct response_item *item)
{
    jw_key_text(w, "item_id", item->id);
    jw_key_int(w, "output_index", item - f->items);
    if (item->kind != ITEM_CALL)
        jw_key_int(w, "content_index", 0);
}

static void put_item_event(struct completion *c, struct jw *w, const char *type,
                           const struct response_item *item, const char *status)
{
    struct responses_form *f = c->form;
    event_begin(f, w, type);
    jw_key_int(w, "output_index", item - f->items);
    jw_key(w, "item");
    put_item(w, &c->choices[0], item, status);
    event_end(w);
}

static void put_part_event(struct completion *c, struct jw *w, const char *type,
                           const struct response_item *item, bool empty)
{
    if (item->kind == ITEM_CALL)
        return;
    event_begin(c->form, w, type);
    put_place(w, c->form, item);
    jw_key(w, "part");
    put_text_part(w, item, empty);
    event_end(w);
}

static const char *const delta_events[] = {"response.reasoning_text.delta", "response.output_text.delta",
                                           "response.function_call_arguments.delta"};
static const char *const done_events[] = {"response.reasoning_text.done", "response.output_text.done",
                                          "response.function_call_arguments.done"};

static void put_delta_event(struct completion *c, struct jw *w, const struct response_item *item,
                            const struct buf *text, const struct buf *log_probs)
{
    event_begin(c->form, w, delta_events[item->kind]);
    put_place(w, c->form, item);
    put_buf(w, "delta", text);
    if (item->kind == ITEM_MESSAGE) {
        jw_key(w, "logprobs");
        jw_begin(w, '[');
        jw_raw(w, log_probs->data, log_probs->length);
        jw_end(w, ']');
    }
    event_end(w);
}

static void put_done_event(struct completion *c, struct jw *w, const struct response_item *item)
{
    event_begin(c->form, w, done_events[item->kind]);
    put_place(w, c->form, item);
    put_buf(w, item->kind == ITEM_CALL ? "arguments" : "text", &item->text);
    if (item->kind == ITEM_CALL)
        put_call_name(w, c->form, &c->choices[0].reply.calls[item->call].name);
    if (item->kind == ITEM_MESSAGE) {
        jw_key(w, "logprobs");
        jw_begin(w, '[');
        jw_raw(w, item->log_probs.data, item->log_probs.length);
        jw_end(w, ']');
    }
    event_end(w);
}

/* ---- items; w NULL: nothing is streamed */

static void close_item(struct completion *c, struct jw *w)
{
    struct responses_form *f = c->form;
    struct response_item *item = f->n_items ? &f->items[f->n_items - 1] : NULL;
    if (!item || item->closed)
        return;
    item->closed = true;
    if (!w)
        return;
    put_done_event(c, w, item);
    put_part_event(c, w, "response.content_part.done", item, false);
    put_item_event(c, w, "response.output_item.done", item,
                   was_cut(&c->choices[0]) ? "incomplete" : "completed");
}

static struct response_item *open_item(struct completion *c, struct jw *w, enum item_kind kind, uint32_t call)
{
    static const char *const prefixes[] = {"rs", "msg", "fc"};
    struct responses_form *f = c->form;
    close_item(c, w);
    if (f->n_items == f->capacity) {
        uint32_t capacity = f->capacity ? 2 * f->capacity : 4;
        struct response_item *items = mem_realloc(f->items, capacity * sizeof *items);
        if (!items) {
            f->failed = true;
            return NULL;
        }
        f->items = items;
        f->capacity = capacity;
    }
    struct response_item *item = &f->items[f->n_items];
    *item = (struct response_item){.kind = kind, .call = call};
    snprintf(item->id, sizeof item->id, "%s_%.48s_%u", prefixes[kind], f->id + 5, f->n_items);
    buf_init(&item->text, 0);
    buf_init(&item->log_probs, 0);
    f->n_items++;
    if (w) {
        put_item_event(c, w, "response.output_item.added", item, "in_progress");
        put_part_event(c, w, "response.content_part.added", item, true);
    }
    return item;
}

static struct response_item *current(struct completion *c, enum item_kind kind)
{
    struct responses_form *f = c->form;
    struct response_item *item = f->n_items ? &f->items[f->n_items - 1] : NULL;
    return item && !item->closed && item->kind == kind ? item : NULL;
}

/* Moves bytes (and what was gathered of log-probabilities) to the end of an item. */
static void move(struct completion *c, struct jw *w, struct response_item *item, struct buf *from)
{
    struct responses_form *f = c->form;
    struct buf *probs = &c->choices[0].logprobs.items, none = {0};
    bool message = item && item->kind == ITEM_MESSAGE;
    if (!item || (!from->length && !(message && probs->length)))
        return;
    if (w)
        put_delta_event(c, w, item, from, message ? probs : &none);
    buf_append(&item->text, from->data ? from->data : "", from->length);
    if (message && probs->length) {
        if (item->log_probs.length)
            buf_putc(&item->log_probs, ',');
        buf_append(&item->log_probs, probs->data, probs->length);
        buf_clear(probs);
    }
    f->failed |= item->text.failed || item->log_probs.failed;
    buf_clear(from);
}

static void move_text(struct completion *c, struct jw *w, enum item_kind kind, struct buf *from)
{
    bool probs = kind == ITEM_MESSAGE && c->choices[0].logprobs.items.length;
    struct response_item *item = current(c, kind);
    if (!item && from->length)
        item = open_item(c, w, kind, 0);
    if (from->length || probs)
        move(c, w, item, from);
}

static void gather(struct completion *c, struct jw *w)
{
    struct choice *h = &c->choices[0];
    struct reply *p = &h->reply;
    struct response_item *item = current(c, ITEM_CALL);
    if (item) /* what belongs to a call that was begun came before what follows it */
        move(c, w, item, &p->calls[item->call].arguments);
    move_text(c, w, ITEM_REASONING, &p->reasoning);
    move_text(c, w, ITEM_MESSAGE, &p->content);
    for (uint32_t i = 0; i < p->n_calls; i++) {
        if (p->calls[i].shown)
            continue;
        p->calls[i].shown = true;
        item = open_item(c, w, ITEM_CALL, i);
        move(c, w, item, &p->calls[i].arguments);
    }
    const struct responses_form *f = c->form;
    if (h->finish_reason && f->n_items == 0)
        open_item(c, w, ITEM_MESSAGE, 0);
    if (h->finish_reason)
        close_item(c, w);
}

/* ---- the dialect's */

/* What GET and previous_response_id find: {"response", "input"}. */
static void store(struct completion *c)
{
    struct responses_form *f = c->form;
    struct buf text;
    struct jw w = {.out = &text};
    if (!f->stores)
        return;
    buf_init(&text, 0);
    jw_begin(&w, '{');
    jw_key(&w, "response");
    put_response(&w, c, was_cut(&c->choices[0]) ? "incomplete" : "completed", NULL);
    put_json(&w, "input", f->input);
    jw_end(&w, '}');
    if (!text.failed)
        response_store_put(c->server->response_store, f->owner, f->id, &text);
    buf_fini(&text);
}

void responses_render(struct completion *c, struct buf *out)
{
    struct responses_form *f = c->form;
    struct jw w = {.out = out};
    gather(c, NULL);
    put_response(&w, c, was_cut(&c->choices[0]) ? "incomplete" : "completed", NULL);
    out->failed |= f->failed;
    store(c);
}

void responses_start(struct completion *c, struct buf *out)
{
    struct jw w = {.out = out};
    begin_stream(c, &w);
}

void responses_chunk(struct completion *c, struct choice *h, struct buf *out)
{
    struct jw w = {.out = out};
    (void)h;
    begin_stream(c, &w);
    gather(c, &w);
}

void responses_end(struct completion *c, struct buf *out)
{
    struct jw w = {.out = out};
    bool cut = was_cut(&c->choices[0]);
    put_response_event(c, &w, cut ? "response.incomplete" : "response.completed",
                       cut ? "incomplete" : "completed");
    store(c);
}

void responses_fail(struct completion *c, struct buf *out)
{
    struct jw w = {.out = out};
    begin_stream(c, &w);
    put_response_event(c, &w, "response.failed", "failed");
}
