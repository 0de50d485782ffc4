/* tool_choice as a grammar: each tool is an alternative, made of the parts that its format has for a call. */
#include "tool_grammar.h"

#include <string.h>

#define PARTS_MAX (CALL_PARTS_MAX + 3U) /* with a thought in front */
#define CALLS_MAX 16U                   /* in one answer */

/* No parameters are an empty list of them, as OpenAI says. */
#define NO_PARAMETERS "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}"

static struct grammar_part part_of(enum grammar_kind kind, const char *text)
{
    return (struct grammar_part){kind, text, strlen(text)};
}

static const char *schema_text(const json_t *parameters, struct arena *arena)
{
    if (!json_is_object(parameters))
        return NO_PARAMETERS;
    size_t n = json_dumpb(parameters, NULL, 0, JSON_COMPACT);
    char *text = arena_alloc(arena, n + 1);
    if (!text || json_dumpb(parameters, text, n, JSON_COMPACT) != n)
        return NULL;
    text[n] = '\0';
    return text;
}

/* The rest of a thought: whatever has no end marker in it, that marker, line breaks. */
static uint32_t put_thought(const struct thought_syntax *t, struct grammar_part *parts)
{
    parts[0] = part_of(GRAMMAR_REGEX, t->close[0] == '[' ? "([^\\[]|\\[[^/])*" : "([^<]|<[^/])*");
    parts[1] = part_of(GRAMMAR_TOKEN, t->close);
    parts[2] = part_of(GRAMMAR_REGEX, "\\n{0,2}");
    return 3;
}

static enum status put_call(const struct tool_grammar *g, const json_t *tool, struct arena *arena,
                            struct grammar_sequence *out)
{
    const json_t *function = json_object_get(tool, "function");
    const char *name = json_string_value(json_object_get(function, "name"));
    const char *schema = schema_text(json_object_get(function, "parameters"), arena);
    struct grammar_part *parts = arena_array(arena, PARTS_MAX, sizeof *parts);
    if (!parts || !schema)
        return STATUS_NO_MEMORY;
    uint32_t n = g->format->in_thought ? put_thought(g->format->thought, parts) : 0;
    for (uint32_t i = 0; i < CALL_PARTS_MAX && g->format->calls->parts[i].kind != CALL_PART_NONE; i++) {
        const struct call_part *p = &g->format->calls->parts[i];
        parts[n++] = p->kind == CALL_PART_MARK   ? part_of(GRAMMAR_TOKEN, p->text)
                     : p->kind == CALL_PART_NAME ? part_of(GRAMMAR_LITERAL, name)
                     : p->kind == CALL_PART_JSON ? part_of(GRAMMAR_JSON_SCHEMA, schema)
                                                 : part_of(GRAMMAR_LITERAL, p->text);
    }
    *out = (struct grammar_sequence){parts, n};
    return STATUS_OK;
}

static enum status put_answer(const struct tool_grammar *g, struct arena *arena, struct grammar_sequence *out)
{
    struct grammar_part *parts = arena_array(arena, PARTS_MAX, sizeof *parts);
    if (!parts)
        return STATUS_NO_MEMORY;
    uint32_t n = g->format->in_thought ? put_thought(g->format->thought, parts) : 0;
    parts[n++] = *g->answer;
    *out = (struct grammar_sequence){parts, n};
    return STATUS_OK;
}

enum status tool_grammar_create(const struct tool_grammar *g, struct arena *arena, struct grammar **out,
                                struct error *err)
{
    const struct tool_params *t = g->tools;
    struct grammar_sequence *ways = arena_array(arena, json_array_size(t->tools) + 1, sizeof *ways);
    struct grammar_spec spec = {.alternatives = ways, .n_min = 1, .n_max = 1};
    enum status s = ways ? STATUS_OK : STATUS_NO_MEMORY;
    for (size_t i = 0; i < json_array_size(t->tools) && s == STATUS_OK; i++) {
        const json_t *tool = json_array_get(t->tools, i);
        const json_t *name = json_object_get(json_object_get(tool, "function"), "name");
        if (!t->named || strcmp(json_string_value(name), t->named) == 0)
            s = put_call(g, tool, arena, &ways[spec.n_alternatives++]);
    }
    if (s == STATUS_OK && g->answer)
        s = put_answer(g, arena, &ways[spec.n_alternatives++]);
    if (s != STATUS_OK)
        return fail(err, s, "no memory for the request");
    if (!t->one_call && !g->answer && !g->format->in_thought && g->format->calls->separator) {
        spec.n_max = CALLS_MAX;
        spec.separator = g->format->calls->separator;
    }
    return grammar_store_get(g->scope, &spec, out, err);
}
