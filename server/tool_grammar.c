/* Calls as a grammar: each tool is an alternative, made of the parts that its format has for a call.
 *
 *   forced   [the rest of a thought] block, block …
 *   strict   [a thought] free text, block, free text, block …
 *
 * Free text has nothing in it that the reply takes for a call's beginning, so behind each beginning that
 * comes there is a block. Where a format has no mark at a block's end nothing but another block may follow,
 * since the reply would go on looking for calls. */
#include <string.h>

#include "tool_grammar_inner.h"

#define CALLS_MAX 16U /* in one answer that is forced */
#define PARTS_MAX 24U /* of one sequence */

/* No parameters are an empty list of them, as OpenAI says. */
#define NO_PARAMETERS "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}"

/* ---- blocks of calls */

static struct grammar_part schema_of(struct builder *b, const json_t *tool)
{
    const json_t *parameters = json_object_get(json_object_get(tool, "function"), "parameters");
    return part_of(GRAMMAR_JSON_SCHEMA,
                   json_is_object(parameters) ? json_text(b, parameters) : NO_PARAMETERS);
}

static struct grammar_part arguments_of(struct builder *b, const json_t *tool)
{
    if (!tool_grammar_forces(b->g) && !tool_is_strict(tool))
        return part_of(GRAMMAR_JSON_OBJECT, NULL);
    return schema_of(b, tool);
}

enum status tool_can_be_strict(const struct grammar_scope *scope, const json_t *tool, struct arena *arena)
{
    struct builder b = {.arena = arena};
    struct grammar_part part = schema_of(&b, tool);
    const struct grammar_sequence one = {&part, 1};
    const struct grammar_spec spec = {.alternatives = &one, .n_alternatives = 1};
    struct grammar *g = NULL;
    struct error err;
    enum status s = b.failed ? STATUS_NO_MEMORY : grammar_store_get(scope, &spec, &g, &err);
    grammar_release(g);
    return s;
}

static struct grammar_part part_for(struct builder *b, const struct call_part *part, const json_t *tool)
{
    const json_t *name = json_object_get(json_object_get(tool, "function"), "name");
    switch (part->kind) {
    case CALL_PART_MARK:
        return part_of(GRAMMAR_TOKEN, part->text);
    case CALL_PART_SPACE:
        if (!tool_grammar_forces(b->g))
            return part_of(GRAMMAR_REGEX, "[ \\n]?");
        break;
    case CALL_PART_NAME:
        return part_of(GRAMMAR_LITERAL, json_string_value(name));
    case CALL_PART_ID:
        return part_of(GRAMMAR_REGEX, "[a-zA-Z0-9]{9}");
    case CALL_PART_JSON:
        return arguments_of(b, tool);
    case CALL_PART_FIELDS: /* put_call does these */
    case CALL_PART_TEXT:
    case CALL_PART_NONE:
        break;
    }
    return part_of(GRAMMAR_LITERAL, part->text);
}

static void put_parts(struct builder *b, struct parts *out, const struct call_part *parts, const json_t *tool)
{
    for (; parts->kind != CALL_PART_NONE; parts++)
        put(out, part_for(b, parts, tool));
}

/* A call in the format's own notation where its arguments can be written so, else with JSON. */
static struct grammar_sequence call_of(struct builder *b, const json_t *tool)
{
    const struct call_syntax *syntax = b->g->format->calls;
    struct parts fields = parts_new(b, FIELD_PARTS_MAX), call = parts_new(b, PARTS_MAX);
    bool native = syntax->native[0].kind != CALL_PART_NONE && put_fields(b, &fields, tool);
    for (const struct call_part *p = native ? syntax->native : syntax->parts; p->kind != CALL_PART_NONE; p++)
        put(&call, p->kind == CALL_PART_FIELDS ? repeat(b, fields, 1, 1) : part_for(b, p, tool));
    return (struct grammar_sequence){call.items, call.n};
}

/* What stands in front of a text for the caller, where the prompt has said the mark before it. */
static void put_to_all(struct builder *b, struct parts *out)
{
    const struct reply_format *f = b->g->format;
    if (!f->in_block)
        return;
    put(out, part_of(GRAMMAR_LITERAL, f->calls->to_all));
    put(out, part_of(GRAMMAR_LITERAL, "\n"));
}

/* A call of one of the tools, or several. */
static struct grammar_part calls_of(struct builder *b, bool one)
{
    const struct tool_params *t = b->g->tools;
    const struct call_syntax *syntax = b->g->format->calls;
    size_t n = json_array_size(t->tools);
    struct grammar_sequence *ways = arena_array(b->arena, n + 1, sizeof *ways);
    struct grammar_spec spec = {.alternatives = ways, .n_min = 1, .n_max = 1};
    b->failed |= !ways;
    for (size_t i = 0; ways && i < n; i++) {
        const json_t *tool = json_array_get(t->tools, i);
        const char *name = json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
        if (t->named && strcmp(name, t->named) != 0)
            continue;
        struct grammar_sequence *kept = arena_alloc(b->arena, sizeof *kept);
        struct grammar_part *named = arena_alloc(b->arena, sizeof *named);
        b->failed |= !kept || !named;
        if (!kept || !named)
            break;
        *kept = call_of(b, tool);
        *named = group_of(b, (struct grammar_spec){.alternatives = kept, .n_alternatives = 1, .name = name});
        ways[spec.n_alternatives++] = (struct grammar_sequence){named, 1};
    }
    if (!one && syntax->separator) {
        spec.n_max = CALLS_MAX;
        spec.separator = syntax->separator;
    }
    return group_of(b, spec);
}

/* `begun`: its first mark has come. */
static struct grammar_part block_of(struct builder *b, bool begun, bool one)
{
    const struct call_syntax *syntax = b->g->format->calls;
    struct parts p = parts_new(b, PARTS_MAX);
    put_parts(b, &p, syntax->begin + (begun && syntax->begin[0].kind == CALL_PART_MARK), NULL);
    put(&p, calls_of(b, one));
    put_parts(b, &p, syntax->end, NULL);
    return repeat(b, p, 1, 1);
}

/* ---- free text */

static json_t *strings_but(const char *const *list, const char *but)
{
    json_t *out = json_array();
    for (size_t i = 0; i < MARKERS_MAX && list[i]; i++)
        if (!but || strcmp(list[i], but) != 0)
            json_array_append_new(out, json_string(list[i]));
    return out;
}

/* What the reply takes for a call without a marker. */
static void add_bare(const struct tool_grammar *g, json_t *list)
{
    static const char *const keys[] = {"name",       "tool_name", "function", "arguments",
                                       "parameters", "type",      "id"};
    const json_t *tools = g->format->calls->style == CALLS_PYTHON ? g->tools->tools : NULL;
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        json_array_append_new(list,
                              json_sprintf("[%s(", json_string_value(json_object_get(function, "name"))));
    }
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        json_array_append_new(list, json_sprintf("{\"%s\"", keys[i]));
        json_array_append_new(list, json_sprintf("[{\"%s\"", keys[i]));
    }
}

/* The mark that begins a block, in the words of the format. */
static const char *trigger_of(const struct call_syntax *s)
{
    return s->begin[0].kind == CALL_PART_MARK ? s->begin[0].text : s->open[0];
}

/* Free text up to a block's beginning, which the model writes; or, with `ends`, without one. `first`: the
 * reply begins here. */
static struct grammar_part free_text(struct builder *b, bool ends, bool first)
{
    const struct reply_format *f = b->g->format;
    const char *trigger = trigger_of(f->calls);
    json_t *said = json_object(), *not_first = json_array();
    if (!ends)
        json_object_set_new(said, "until", json_string(trigger));
    json_object_set_new(said, "without", strings_but(f->calls->open, ends ? NULL : trigger));
    if (first && f->thought)
        json_array_append_new(not_first, json_string(f->thought->open));
    if (first && f->calls->bare)
        add_bare(b->g, not_first);
    json_object_set_new(said, "not_first", not_first);
    struct grammar_part part = part_of(GRAMMAR_FREE_TEXT, json_text(b, said));
    json_decref(said);
    return part;
}

/* Blocks behind one that has no mark at its end. */
static struct grammar_part further_blocks(struct builder *b, uint32_t most)
{
    struct parts p = parts_new(b, PARTS_MAX);
    put(&p, part_of(GRAMMAR_LITERAL, b->g->format->calls->block_separator));
    put(&p, block_of(b, false, false));
    return repeat(b, p, 0, most);
}

/* What may come behind a block. */
static void put_more(struct builder *b, struct parts *out)
{
    const struct call_syntax *s = b->g->format->calls;
    bool closes = false;
    struct parts again = parts_new(b, PARTS_MAX);
    for (uint32_t i = 0; s->end[i].kind != CALL_PART_NONE; i++)
        closes = s->end[i].kind == CALL_PART_MARK;
    if (b->g->tools->one_call)
        return;
    if (closes) {
        put(&again, free_text(b, false, false));
        put(&again, block_of(b, true, false));
        put(out, repeat(b, again, 0, GRAMMAR_FOREVER));
        put(out, free_text(b, true, false));
    } else if (s->block_separator) {
        put(out, further_blocks(b, GRAMMAR_FOREVER));
    }
}

/* ---- all */

static struct grammar_part strict_of(struct builder *b)
{
    const struct call_syntax *s = b->g->format->calls;
    bool one = b->g->tools->one_call, in_block = b->g->format->in_block;
    struct parts quiet = parts_new(b, PARTS_MAX), calls = parts_new(b, PARTS_MAX),
                 bare = parts_new(b, PARTS_MAX);
    put_to_all(b, &quiet);
    put_to_all(b, &calls);
    put(&quiet, free_text(b, true, true));
    put(&calls, free_text(b, false, true));
    put(&calls, block_of(b, true, one));
    put_more(b, &calls);
    if (!in_block)
        put(&bare, part_of(GRAMMAR_REGEX, SPACES));
    put(&bare, block_of(b, in_block, one));
    if (in_block)
        put_more(b, &bare);
    struct grammar_sequence *ways = arena_array(b->arena, 3, sizeof *ways);
    b->failed |= !ways;
    if (!ways)
        return quiet.items ? quiet.items[0] : (struct grammar_part){0};
    ways[0] = (struct grammar_sequence){quiet.items, quiet.n};
    ways[1] = (struct grammar_sequence){calls.items, calls.n};
    ways[2] = (struct grammar_sequence){bare.items, bare.n};
    bool may_be_bare = in_block || (s->bare && s->begin[0].kind != CALL_PART_MARK);
    return group_of(b, (struct grammar_spec){.alternatives = ways, .n_alternatives = may_be_bare ? 3 : 2});
}

/* A thought that the prompt has opened, or that the model may open. */
static void put_thought(struct builder *b, struct parts *out, bool forced)
{
    const struct reply_format *f = b->g->format;
    struct parts p = parts_new(b, PARTS_MAX);
    if (f->in_thought) {
        put(out, text_until(b, f->thought->close, NULL, forced));
        if (forced)
            put(out, part_of(GRAMMAR_REGEX, "\\n{0,2}"));
    } else if (f->thought && !forced) {
        put(&p, part_of(GRAMMAR_REGEX, SPACES));
        put(&p, part_of(GRAMMAR_TOKEN, f->thought->open));
        put(&p, text_until(b, f->thought->close, NULL, false));
        put(out, repeat(b, p, 0, 1));
    }
}

static struct grammar_part forced_of(struct builder *b)
{
    const struct tool_grammar *g = b->g;
    const struct call_syntax *calls =
        g->format->only_text ? NULL : g->format->calls; /* NULL: none may come */
    struct grammar_sequence *ways = arena_array(b->arena, 2, sizeof *ways);
    struct grammar_spec all = {.alternatives = ways, .n_min = 1, .n_max = 1};
    struct parts blocks = parts_new(b, PARTS_MAX), answer = parts_new(b, PARTS_MAX);
    bool one = g->tools->one_call || g->answer;
    b->failed |= !ways;
    if (calls)
        put(&blocks, block_of(b, g->format->in_block, one));
    if (calls && !one && calls->block_separator)
        put(&blocks, further_blocks(b, CALLS_MAX - 1));
    if (ways && calls)
        ways[all.n_alternatives++] = (struct grammar_sequence){blocks.items, blocks.n};
    if (ways && g->answer) {
        put_to_all(b, &answer);
        put(&answer, *g->answer);
        ways[all.n_alternatives++] = (struct grammar_sequence){answer.items, answer.n};
    }
    return group_of(b, all);
}

enum status tool_grammar_create(const struct tool_grammar *g, struct arena *arena, struct grammar **out,
                                struct error *err)
{
    struct builder b = {.g = g, .arena = arena};
    bool forced = tool_grammar_forces(g);
    struct parts all = parts_new(&b, PARTS_MAX);
    put_thought(&b, &all, forced);
    put(&all, forced ? forced_of(&b) : strict_of(&b));
    if (b.failed)
        return fail(err, STATUS_NO_MEMORY, "no memory for the request");
    const struct grammar_sequence one = {all.items, all.n};
    const struct grammar_spec spec = {.alternatives = &one, .n_alternatives = 1};
    return grammar_store_get(g->scope, &spec, out, err);
}
