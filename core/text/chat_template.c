/* The door of the chat template: compile once, render for each request. A compiled template is never written
 * again; all that a render makes lies in its own arena and buffer. */
#include <string.h>

#include <jansson.h>

#include "jinja.h"
#include "text.h"

#define COMPILED_LIMIT (256U << 20)
#define FIRST_OUTPUT 4096U
#define NESTING_PER_DEPTH 12U /* evaluation steps that one call may nest, at the least */

static const struct template_limits default_limits = {
    .n_steps = 2000000, .depth = 64, .output_bytes = 8U << 20, .memory_bytes = 64U << 20};

/* Line ends become \n, and one at the end goes. */
static char *normalise(struct arena *arena, const char *source, size_t *length)
{
    char *copy = arena_alloc(arena, *length + 1);
    size_t n = 0;
    for (size_t i = 0; copy && i < *length; i++) {
        copy[n++] = source[i] == '\r' ? '\n' : source[i];
        i += source[i] == '\r' && i + 1 < *length && source[i + 1] == '\n';
    }
    n -= copy && n && copy[n - 1] == '\n';
    if (copy)
        copy[n] = '\0';
    *length = n;
    return copy;
}

static enum status compile_source(struct chat_template *t, struct error *err)
{
    struct buf tokens;
    buf_init(&tokens, 0);
    enum status status = jinja_lex(t, &tokens, err);
    if (status == STATUS_OK)
        status = jinja_parse(t, (const struct token *)(void *)tokens.data,
                             tokens.length / sizeof(struct token), err);
    buf_fini(&tokens);
    if (status == STATUS_OK)
        status = jinja_scope(t, err);
    return status == STATUS_OK ? jinja_check(t, err) : status;
}

enum status chat_template_compile(const char *source, size_t length, const char *shown,
                                  struct chat_template **out, struct error *err)
{
    *out = NULL;
    if (length > JINJA_MAX_SOURCE)
        return fail(err, STATUS_TOO_LARGE, "%s: a chat template of %zu bytes; at most %u", shown, length,
                    JINJA_MAX_SOURCE);
    if (!utf8_is_valid(source, length))
        return fail(err, STATUS_FORMAT, "%s: byte %zu of the chat template is not UTF-8", shown,
                    utf8_valid_prefix(source, length));
    struct arena *arena = arena_create(COMPILED_LIMIT);
    struct chat_template *t = arena ? arena_alloc(arena, sizeof *t) : NULL;
    if (!t) {
        arena_destroy(arena);
        return fail(err, STATUS_NO_MEMORY, "%s: out of memory", shown);
    }
    *t = (struct chat_template){.arena = arena, .length = length};
    t->shown = arena_strdup(arena, shown);
    t->source = normalise(arena, source, &t->length);
    enum status status;
    if (t->shown && t->source)
        status = compile_source(t, err);
    else
        status = fail(err, STATUS_NO_MEMORY, "%s: out of memory", shown);
    if (status == STATUS_OK)
        *out = t;
    else
        chat_template_destroy(t);
    return status;
}

void chat_template_destroy(struct chat_template *t)
{
    if (t)
        arena_destroy(t->arena);
}

static bool is_name(const struct jstr *s, const char *name)
{
    return s->len == strlen(name) && memcmp(s->data, name, s->len) == 0;
}

/* A message's reasoning goes by three names; the first that has a value fills the others that templates read:
 * reasoning_content always, thinking where it is absent (transformers' _alias_reasoning_fields). */
static struct jv alias_reasoning(struct render *r, struct jv message)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    const struct jv *reasoning = NULL;
    for (size_t i = 0; i < 3 && (!reasoning || reasoning->tag == JV_NONE); i++)
        reasoning = jdict_get_text(r, message.dict, names[i]);
    if (!reasoning || reasoning->tag == JV_NONE)
        return message;
    struct jdict *d = jdict_new(r, message.dict->n + 2);
    bool ok = d && jdict_set(r, d, jv_of_str(jstr_literal(r, "thinking")), *reasoning);
    for (size_t i = 0; ok && i < message.dict->n; i++)
        ok = jdict_set(r, d, message.dict->entries[i].key, message.dict->entries[i].value);
    ok = ok && jdict_set(r, d, jv_of_str(jstr_literal(r, "reasoning_content")), *reasoning);
    return jv_of_dict(ok ? d : NULL);
}

static struct jv alias_messages(struct render *r, struct jv messages)
{
    for (size_t i = 0; messages.tag == JV_LIST && i < messages.seq->n; i++) {
        struct jv *message = &messages.seq->items[i];
        if (message->tag == JV_DICT)
            *message = alias_reasoning(r, *message);
        if (jv_is_error(*message))
            return *message;
    }
    return messages;
}

/* Each name that the template uses starts as the request's variable, a global function, or nothing. */
static bool load_variables(struct render *r, const json_t *variables)
{
    const struct name_table *names = &r->t->names;
    r->root = jv_alloc(r, names->n * sizeof *r->root);
    for (size_t i = 0; r->root && i < names->n; i++) {
        const struct jstr *name = names->names[i];
        const json_t *value = json_object_get(variables, name->data);
        const struct builtin *global = value ? NULL : global_find(name->data, name->len);
        if (is_name(name, "self"))
            r->root[i] = jv_tagged(JV_SELF);
        else if (value)
            r->root[i] = jv_from_json(r, value, 0);
        else if (global)
            r->root[i] = (struct jv){.tag = JV_BUILTIN, .builtin = global};
        if (is_name(name, "messages"))
            r->root[i] = alias_messages(r, r->root[i]);
        if (jv_is_error(r->root[i]))
            return false;
    }
    return r->root != NULL;
}

/* Messages are cut to the error's buffer: not inside a character. */
static enum status report(const struct render *r, struct error *err)
{
    struct error e = r->err;
    e.text[utf8_valid_prefix(e.text, strlen(e.text))] = '\0';
    return fail(err, e.status, "%s", e.text);
}

static enum status render(struct render *r, const json_t *variables, struct buf *out, struct error *err)
{
    if (!load_variables(r, variables) || jinja_exec(r, r->t->root) == FLOW_ERROR)
        return report(r, err);
    if (!buf_append(out, r->out.data, r->out.length))
        return fail(err, STATUS_NO_MEMORY, "no room for %zu bytes of rendered chat template", r->out.length);
    return STATUS_OK;
}

enum status chat_template_render(const struct chat_template *t, const struct json_t *variables,
                                 int64_t now_ms, const struct template_limits *limits, struct buf *out,
                                 struct error *err)
{
    struct template_limits l = limits ? *limits : default_limits;
    l.n_steps = l.n_steps ? l.n_steps : default_limits.n_steps;
    l.depth = l.depth ? l.depth : default_limits.depth;
    l.output_bytes = l.output_bytes ? l.output_bytes : default_limits.output_bytes;
    l.memory_bytes = l.memory_bytes ? l.memory_bytes : default_limits.memory_bytes;
    struct render r = {.t = t,
                       .memory_limit = l.memory_bytes,
                       .step_limit = l.n_steps,
                       .depth_limit = l.depth,
                       .nesting_limit = JINJA_MAX_HEIGHT + l.depth * NESTING_PER_DEPTH,
                       .now_ms = now_ms};
    r.arena = arena_create(l.memory_bytes);
    if (!r.arena)
        return fail(err, STATUS_NO_MEMORY, "%s: out of memory", t->shown);
    buf_init(&r.out, l.output_bytes);
    /* From here on the buffer has memory of its own, which cutting captures off its end writes to. */
    enum status status = buf_reserve(&r.out, l.output_bytes < FIRST_OUTPUT ? l.output_bytes : FIRST_OUTPUT)
                             ? render(&r, variables, out, err)
                             : fail(err, STATUS_NO_MEMORY, "%s: out of memory", t->shown);
    buf_fini(&r.out);
    arena_destroy(r.arena);
    return status;
}
