/* What a model said (reasoning, content, calls of tools), shown by each API: whole, and as a stream that
 * builds the same. The reply is filled by hand, so nothing depends on how a model writes its calls. */
#include "../test.h"

#include <string.h>

#include "anthropic_json.h"
#include "base/arena.h"
#include "completion.h"
#include "ollama_json.h"
#include "request.h"
#include "responses_json.h"
#include "server.h"

struct rig {
    struct request r;
    struct server server;
    struct completion c;
    struct choice h;
    struct prompt prompt;
    struct reply_call calls[2];
    int32_t ids[3];
    struct buf out;
};

static void rig_begin(struct rig *t, const struct dialect *d)
{
    *t = (struct rig){0};
    t->r = (struct request){.arena = arena_create(0), .server = &t->server};
    t->prompt.ids = (struct token_list){.ids = t->ids, .n_ids = 3};
    t->h = (struct choice){.owner = &t->c, .prompt = &t->prompt, .stop_token = -1, .stop_string_index = -1};
    t->h.n_generated = 7;
    t->h.n_cached = 1;
    buf_init(&t->h.reply.content, 0);
    buf_init(&t->h.reply.reasoning, 0);
    logprob_list_init(&t->h.logprobs);
    for (size_t i = 0; i < 2; i++) {
        snprintf(t->calls[i].id, sizeof t->calls[i].id, "call_%zu", i);
        buf_init(&t->calls[i].name, 0);
        buf_init(&t->calls[i].arguments, 0);
    }
    t->h.reply.calls = t->calls;
    t->c =
        (struct completion){.r = &t->r, .server = &t->server, .dialect = d, .choices = &t->h, .n_choices = 1};
    t->c.id = "id1";
    t->c.voice.shown = "pt";
    t->c.params.n = 1;
    t->c.params.n_logprobs = -1;
    buf_init(&t->out, 0);
}

static void rig_end(struct rig *t)
{
    arena_destroy(t->r.arena);
    buf_fini(&t->h.reply.content);
    buf_fini(&t->h.reply.reasoning);
    logprob_list_fini(&t->h.logprobs);
    for (size_t i = 0; i < 2; i++) {
        buf_fini(&t->calls[i].name);
        buf_fini(&t->calls[i].arguments);
    }
    buf_fini(&t->out);
}

/* The steps of a reply, as they come. */
static void say(struct rig *t, int step)
{
    struct reply *p = &t->h.reply;
    switch (step) {
    case 0:
        buf_puts(&p->reasoning, "hm");
        break;
    case 1:
        buf_puts(&p->content, "I ");
        break;
    case 2:
        buf_puts(&p->content, "look");
        p->n_calls = 1;
        buf_puts(&t->calls[0].name, "look");
        buf_puts(&t->calls[0].arguments, "{\"at\":");
        break;
    case 3:
        buf_puts(&t->calls[0].arguments, "\"Rio\"}");
        p->n_calls = 2;
        buf_puts(&t->calls[1].name, "sing");
        break;
    case 4:
        buf_puts(&t->calls[1].arguments, "{}");
        t->h.finish_reason = "tool_calls";
        break;
    }
}

static json_t *parse_whole(struct rig *t)
{
    json_t *v = json_loadb(t->out.data, t->out.length, 0, NULL);
    if (!v)
        print_message("not JSON: %s\n", t->out.data);
    assert_non_null(v);
    return v;
}

static const char *text_at(const json_t *v, const char *key)
{
    const char *s = json_string_value(json_object_get(v, key));
    assert_non_null(s);
    return s;
}

/* The data of a stream's frames, in order. */
static json_t *parse_frames(struct rig *t)
{
    json_t *list = json_array();
    char *save = NULL;
    for (char *line = strtok_r(t->out.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        const char *data = strncmp(line, "data: ", 6) == 0 ? line + 6 : line[0] == '{' ? line : NULL;
        json_t *v = data ? json_loads(data, 0, NULL) : NULL;
        if (data) {
            assert_non_null(v);
            json_array_append_new(list, v);
        }
    }
    return list;
}

static size_t count_type(const json_t *events, const char *type)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(events); i++)
        n += strcmp(text_at(json_array_get(events, i), "type"), type) == 0;
    return n;
}

static const struct dialect chat = {.name = "test", .api = API_CHAT};

/* ---- Anthropic */

static void anthropic_whole(void **state)
{
    struct rig t;
    struct anthropic_stream s = {0};
    (void)state;
    rig_begin(&t, &chat);
    t.c.form = &s;
    for (int i = 0; i < 5; i++)
        say(&t, i);
    anthropic_render(&t.c, &t.out);
    json_t *m = parse_whole(&t), *content = json_object_get(m, "content");
    assert_int_equal(json_array_size(content), 4);
    assert_string_equal(text_at(json_array_get(content, 0), "thinking"), "hm");
    assert_string_equal(text_at(json_array_get(content, 1), "text"), "I look");
    const json_t *use = json_array_get(content, 2);
    assert_string_equal(text_at(use, "type"), "tool_use");
    assert_string_equal(text_at(use, "id"), "call_0");
    assert_string_equal(text_at(json_object_get(use, "input"), "at"), "Rio");
    assert_string_equal(text_at(m, "stop_reason"), "tool_use");
    const json_t *usage = json_object_get(m, "usage");
    assert_int_equal(json_integer_value(json_object_get(usage, "input_tokens")), 2);
    assert_int_equal(json_integer_value(json_object_get(usage, "cache_read_input_tokens")), 1);
    assert_int_equal(json_integer_value(json_object_get(usage, "output_tokens")), 7);
    json_decref(m);
    rig_end(&t);
}

/* A call that max_tokens has cut has no input, and says why. */
static void anthropic_cut_call(void **state)
{
    struct rig t;
    struct anthropic_stream s = {0};
    (void)state;
    rig_begin(&t, &chat);
    t.c.form = &s;
    say(&t, 2);
    t.h.finish_reason = "length";
    anthropic_render(&t.c, &t.out);
    json_t *m = parse_whole(&t);
    assert_string_equal(text_at(m, "stop_reason"), "max_tokens");
    assert_int_equal(
        json_object_size(json_object_get(json_array_get(json_object_get(m, "content"), 1), "input")), 0);
    json_decref(m);
    rig_end(&t);
}

/* Builds the blocks from the events, as a client does. */
static void anthropic_stream_builds_it(void **state)
{
    struct rig t;
    struct anthropic_stream s = {0};
    char built[4][64] = {"", "", "", ""};
    static const char *const types[] = {"thinking", "text", "tool_use", "tool_use"};
    static const char *const wanted[] = {"hm", "I look", "{\"at\":\"Rio\"}", "{}"};
    (void)state;
    rig_begin(&t, &chat);
    t.c.form = &s;
    for (int i = 0; i < 5; i++) {
        say(&t, i);
        anthropic_chunk(&t.c, &t.h, &t.out);
    }
    anthropic_end(&t.c, &t.out);
    json_t *events = parse_frames(&t);
    int64_t open = -1, n = 0;
    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *e = json_array_get(events, i), *delta = json_object_get(e, "delta");
        const char *type = text_at(e, "type");
        int64_t index = json_integer_value(json_object_get(e, "index"));
        if (strcmp(type, "content_block_start") == 0) {
            assert_int_equal(open, -1);
            assert_int_equal(index, n);
            assert_string_equal(text_at(json_object_get(e, "content_block"), "type"), types[n]);
            open = n++;
        } else if (strcmp(type, "content_block_stop") == 0) {
            assert_int_equal(open, index);
            open = -1;
        } else if (strcmp(type, "content_block_delta") == 0) {
            assert_int_equal(open, index);
            const char *key = index == 0 ? "thinking" : index == 1 ? "text" : "partial_json";
            strcat(built[index], text_at(delta, key));
        }
    }
    assert_int_equal(n, 4);
    assert_int_equal(open, -1);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(built[i], wanted[i]);
    assert_string_equal(text_at(json_array_get(events, 0), "type"), "message_start");
    const json_t *last = json_array_get(events, json_array_size(events) - 2);
    assert_string_equal(text_at(json_object_get(last, "delta"), "stop_reason"), "tool_use");
    json_decref(events);
    rig_end(&t);
}

/* ---- Ollama */

static void ollama_whole(void **state)
{
    struct rig t;
    struct ollama_form form = {.model = "pt:latest"};
    (void)state;
    rig_begin(&t, &chat);
    t.c.form = &form;
    for (int i = 0; i < 5; i++)
        say(&t, i);
    ollama_render(&t.c, &t.out);
    json_t *m = parse_whole(&t), *message = json_object_get(m, "message");
    assert_string_equal(text_at(message, "content"), "I look");
    assert_string_equal(text_at(message, "thinking"), "hm");
    const json_t *calls = json_object_get(message, "tool_calls");
    assert_int_equal(json_array_size(calls), 2);
    const json_t *f = json_object_get(json_array_get(calls, 0), "function");
    assert_string_equal(text_at(f, "name"), "look");
    assert_string_equal(text_at(json_object_get(f, "arguments"), "at"), "Rio");
    assert_string_equal(text_at(m, "done_reason"), "stop");
    assert_string_equal(text_at(m, "model"), "pt:latest");
    json_decref(m);
    rig_end(&t);
}

/* A call is shown when it is whole, and once. */
static void ollama_stream(void **state)
{
    struct rig t;
    struct ollama_form form = {0};
    size_t n_calls = 0;
    char content[32] = "";
    (void)state;
    rig_begin(&t, &chat);
    t.c.form = &form;
    for (int i = 0; i < 5; i++) {
        say(&t, i);
        ollama_chunk(&t.c, &t.h, &t.out);
    }
    ollama_end(&t.c, &t.out);
    json_t *lines = parse_frames(&t);
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *message = json_object_get(json_array_get(lines, i), "message");
        const json_t *calls = json_object_get(message, "tool_calls");
        for (size_t k = 0; k < json_array_size(calls); k++) {
            const json_t *f = json_object_get(json_array_get(calls, k), "function");
            assert_string_equal(text_at(f, "name"), n_calls == 0 ? "look" : "sing");
            assert_int_equal(json_object_size(json_object_get(f, "arguments")), n_calls == 0 ? 1 : 0);
            n_calls++;
        }
        strcat(content, text_at(message, "content"));
    }
    assert_int_equal(n_calls, 2);
    assert_string_equal(content, "I look");
    json_decref(lines);
    rig_end(&t);
}

/* ---- Responses */

static struct responses_form *begin_responses(struct rig *t)
{
    struct responses_form *f = responses_form_create(&t->r);
    assert_non_null(f);
    f->asked = json_object();
    f->input = json_array();
    t->c.form = f;
    return f;
}

static void check_output(const json_t *output)
{
    assert_int_equal(json_array_size(output), 4);
    const json_t *part = json_array_get(json_object_get(json_array_get(output, 0), "content"), 0);
    assert_string_equal(text_at(part, "text"), "hm");
    part = json_array_get(json_object_get(json_array_get(output, 1), "content"), 0);
    assert_string_equal(text_at(part, "text"), "I look");
    const json_t *call = json_array_get(output, 2);
    assert_string_equal(text_at(call, "type"), "function_call");
    assert_string_equal(text_at(call, "call_id"), "call_0");
    assert_string_equal(text_at(call, "name"), "look");
    assert_string_equal(text_at(call, "arguments"), "{\"at\":\"Rio\"}");
    assert_string_equal(text_at(json_array_get(output, 3), "arguments"), "{}");
}

static void responses_whole(void **state)
{
    struct rig t;
    (void)state;
    rig_begin(&t, &chat);
    begin_responses(&t);
    for (int i = 0; i < 5; i++)
        say(&t, i);
    responses_render(&t.c, &t.out);
    json_t *r = parse_whole(&t);
    assert_string_equal(text_at(r, "status"), "completed");
    check_output(json_object_get(r, "output"));
    json_decref(r);
    rig_end(&t);
}

static void responses_stream(void **state)
{
    struct rig t;
    (void)state;
    rig_begin(&t, &chat);
    begin_responses(&t);
    for (int i = 0; i < 5; i++) {
        say(&t, i);
        responses_chunk(&t.c, &t.h, &t.out);
    }
    responses_end(&t.c, &t.out);
    json_t *events = parse_frames(&t);
    size_t n = json_array_size(events);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(json_integer_value(json_object_get(json_array_get(events, i), "sequence_number")),
                         i);
    assert_int_equal(count_type(events, "response.output_item.added"), 4);
    assert_int_equal(count_type(events, "response.output_item.done"), 4);
    assert_int_equal(count_type(events, "response.content_part.added"), 2);
    assert_int_equal(count_type(events, "response.content_part.done"), 2);
    assert_int_equal(count_type(events, "response.reasoning_text.delta"), 1);
    assert_int_equal(count_type(events, "response.output_text.delta"), 2);
    assert_int_equal(count_type(events, "response.function_call_arguments.delta"), 3);
    assert_int_equal(count_type(events, "response.function_call_arguments.done"), 2);
    const json_t *last = json_array_get(events, n - 1);
    assert_string_equal(text_at(last, "type"), "response.completed");
    check_output(json_object_get(json_object_get(last, "response"), "output"));
    json_decref(events);
    rig_end(&t);
}

/* A stream that fails before it has said anything is a response all the same. */
static void responses_failure(void **state)
{
    struct rig t;
    (void)state;
    rig_begin(&t, &chat);
    begin_responses(&t);
    fault_set(&t.c.fault, STATUS_UNAVAILABLE, NULL, "the server is stopping");
    responses_fail(&t.c, &t.out);
    json_t *events = parse_frames(&t);
    assert_int_equal(json_array_size(events), 3);
    const json_t *r = json_object_get(json_array_get(events, 2), "response");
    assert_string_equal(text_at(r, "status"), "failed");
    assert_string_equal(text_at(json_object_get(r, "error"), "message"), "the server is stopping");
    json_decref(events);
    rig_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(anthropic_whole),
        cmocka_unit_test(anthropic_cut_call),
        cmocka_unit_test(anthropic_stream_builds_it),
        cmocka_unit_test(ollama_whole),
        cmocka_unit_test(ollama_stream),
        cmocka_unit_test(responses_whole),
        cmocka_unit_test(responses_stream),
        cmocka_unit_test(responses_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
