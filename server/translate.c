/* Pieces that build one API's body out of another's. Memory that is short is met at each step and said once.
 */
#include "translate.h"

#include <stdlib.h>
#include <string.h>

#include "completion.h"

static void no_memory(struct reader *r)
{
    read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the request");
}

void translate_begin(struct translation *t, struct completion *c)
{
    *t = (struct translation){.c = c, .in = {.object = c->body, .fault = &c->fault}};
    t->out = json_copy(c->body);
    if (!t->out)
        no_memory(&t->in);
}

enum status translate_end(struct translation *t)
{
    if (t->in.status != STATUS_OK) {
        json_decref(t->out);
        return t->in.status;
    }
    json_decref(t->c->body);
    t->c->body = t->out;
    return STATUS_OK;
}

void put_new(struct reader *r, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0)
        no_memory(r);
}

void push_new(struct reader *r, json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) != 0)
        no_memory(r);
}

void put_text(struct reader *r, json_t *object, const char *key, const char *text)
{
    put_new(r, object, key, json_string(text));
}

void put_same(struct reader *r, json_t *object, const char *key, const json_t *value)
{
    if (value && !json_is_null(value))
        put_new(r, object, key, json_incref((json_t *)(uintptr_t)value));
}

void translate_rename(struct translation *t, const char *from, const char *to)
{
    put_same(&t->in, t->out, to, json_object_get(t->in.object, from));
    json_object_del(t->out, from);
}

void translate_drop(struct translation *t, const char *const *keys, size_t n)
{
    for (size_t i = 0; i < n; i++)
        json_object_del(t->out, keys[i]);
}

void translate_refuse(struct translation *t, const char *const *keys, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (json_is_set(json_object_get(t->in.object, keys[i])))
            read_fail(&t->in, STATUS_UNSUPPORTED, keys[i], "%s is not supported; leave it out", keys[i]);
}

void translate_refuse_openai(struct translation *t)
{
    static const char *const keys[] = {"echo", "return_token_ids", "prompt_logprobs"};
    static const char *const counts[] = {"n", "n_cmpl"};
    translate_refuse(t, KEYS_OF(keys));
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        int64_t n = 1;
        if (read_int(&t->in, counts[i], INT32_MIN, INT32_MAX, &n) && n != 1)
            read_fail(&t->in, STATUS_UNSUPPORTED, counts[i],
                      "%s: found %lld, an answer of this API has one choice", counts[i], (long long)n);
    }
}

void translate_template_value(struct translation *t, const char *key, json_t *value)
{
    json_t *kwargs = json_object_get(t->out, "chat_template_kwargs");
    if (kwargs && !json_is_object(kwargs)) { /* the parser says what is wrong with it */
        json_decref(value);
        return;
    }
    json_t *copy = kwargs ? json_copy(kwargs) : json_object();
    if (!json_object_get(copy, key))
        put_new(&t->in, copy, key, value);
    else
        json_decref(value);
    put_new(&t->in, t->out, "chat_template_kwargs", copy);
}

void translate_thinking(struct translation *t, bool thinks)
{
    translate_template_value(t, "enable_thinking", json_boolean(thinks));
    translate_template_value(t, "thinking", json_boolean(thinks));
}

void translate_schema(struct translation *t, const json_t *schema)
{
    json_t *format = json_object(), *inner = json_object();
    put_text(&t->in, format, "type", "json_schema");
    put_text(&t->in, inner, "name", "answer");
    put_same(&t->in, inner, "schema", schema);
    put_new(&t->in, inner, "strict", json_true());
    put_new(&t->in, format, "json_schema", inner);
    put_new(&t->in, t->out, "response_format", format);
}

json_t *translate_message(struct translation *t, json_t *messages, const char *role, json_t *content)
{
    json_t *m = json_object();
    put_text(&t->in, m, "role", role);
    put_new(&t->in, m, "content", content);
    push_new(&t->in, messages, m);
    return t->in.status == STATUS_OK ? m : NULL;
}

json_t *translate_call(struct reader *r, const char *id, const char *name, const json_t *arguments)
{
    json_t *call = json_object(), *function = json_object();
    char *text = json_is_string(arguments) ? NULL : json_dumps(arguments, JSON_COMPACT | JSON_ENCODE_ANY);
    put_text(r, call, "id", id);
    put_text(r, call, "type", "function");
    put_text(r, function, "name", name);
    put_text(r, function, "arguments", text ? text : json_string_value(arguments));
    put_new(r, call, "function", function);
    free(text);
    return call;
}
