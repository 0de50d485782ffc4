/* llama-server's /lora-adapters: the adapters by number, and the scales of the voice that requests get which
 * name none. Theirs loads nothing and neither does this; what they take silently (a path, an unknown id) is
 * refused. */
#include <string.h>

#include "adapter_ops.h"
#include "api.h"
#include "api_parse.h"
#include "server.h"
#include "tenant_gate.h"
#include "voices.h"

static void put_number(struct jw *w, const struct request *r, const struct voice_number *n)
{
    const struct adapter *a = registry_find(r->server->registry, n->name);
    bool shows_source = r->plane == PLANE_ADMIN && a && a->wish.source && a->wish.source[0];
    jw_begin(w, '{');
    jw_key_int(w, "id", n->id);
    jw_key_text(w, "name", n->name);
    jw_key_text(w, "path", shows_source ? a->wish.source : n->name);
    jw_key_float(w, "scale", (double)n->scale);
    jw_end(w, '}');
}

void api_lora_list(struct request *r)
{
    struct fault f = {0};
    if (server_serving(r->server, &f.error) != STATUS_OK) {
        reply_fault(r, &f);
        return;
    }
    struct buf out;
    buf_init(&out, 0);
    struct jw w = {.out = &out};
    struct voice_number n;
    jw_begin(&w, '[');
    for (size_t i = 0; voice_number_at(r->server, i, &n); i++)
        if (gate_may_use(r, n.name))
            put_number(&w, r, &n);
    jw_end(&w, ']');
    reply_json(r, 200, &out);
    buf_fini(&out);
}

/* Their body is an array, where all our others are objects. */
static enum status parse_array(struct request *r, json_t **out, struct fault *f)
{
    struct error err;
    char text[96];
    if (json_parse(r->body, r->n_body, "body", 8, out, &err) != STATUS_OK)
        return fault_set(f, STATUS_INVALID, NULL, "%s", err.text);
    if (json_is_array(*out))
        return STATUS_OK;
    return fault_set(f, STATUS_INVALID, NULL, "the body is %s, expected [{\"id\": 0, \"scale\": 0.5}, …]",
                     describe_json(*out, text, sizeof text));
}

static void noted(enum status s, const struct error *err, void *data)
{
    static const char done[] = "{\"success\":true}";
    struct request *r = data;
    if (s == STATUS_OK)
        reply_send(r, 200, "application/json", done, sizeof done - 1);
    else
        reply_error(r, 500, err->text, NULL, "not_persisted");
    request_release(r);
}

/* In force until the end of this run; the log of changes has it before it is answered. */
static void set_and_note(struct request *r)
{
    const char *voice = voices_default(r->server, r->arena);
    const struct keep_note note = {.operation = "default voice", .by = r->peer, .outcome = "ok"};
    LOG_EVENT(&r->server->log, LOG_INFO, "voice of requests that name none",
              LOG_TEXT("voice", voice ? voice : ""));
    request_hold(r);
    adapter_ops_keep(r->server->adapter_ops, voice ? voice : "", &note, noted, r);
}

void api_lora_set(struct request *r)
{
    struct fault f = {0};
    struct voice_words words = {0};
    json_t *body = NULL;
    enum status s = server_serving(r->server, &f.error);
    if (s == STATUS_OK)
        s = parse_array(r, &body, &f);
    if (s == STATUS_OK) {
        struct reader rd = {.fault = &f};
        read_numbered(&rd, body, "body", r->arena, &words);
        s = rd.status;
    }
    if (s == STATUS_OK)
        s = voices_set_default(r->server, &words, &f);
    json_decref(body);
    if (s == STATUS_OK)
        set_and_note(r);
    else
        reply_fault(r, &f);
}
