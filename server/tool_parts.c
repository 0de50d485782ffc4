/* Pieces of the calls' grammars; memory that is short is seen at the end. */
#include <string.h>

#include "base/error.h"
#include "tool_grammar_inner.h"

struct parts parts_new(struct builder *b, uint32_t most)
{
    struct parts p = {.items = arena_array(b->arena, most, sizeof *p.items), .most = most};
    b->failed |= !p.items;
    return p;
}

void put(struct parts *p, struct grammar_part part)
{
    require(!p->items || p->n < p->most);
    if (p->items)
        p->items[p->n++] = part;
}

struct grammar_part part_of(enum grammar_kind kind, const char *text)
{
    return (struct grammar_part){kind, text, text ? strlen(text) : 0};
}

struct grammar_part group_of(struct builder *b, struct grammar_spec spec)
{
    struct grammar_spec *copy = arena_alloc(b->arena, sizeof *copy);
    b->failed |= !copy;
    if (copy)
        *copy = spec;
    return (struct grammar_part){GRAMMAR_GROUP, copy, 0};
}

struct grammar_part repeat(struct builder *b, struct parts p, uint32_t n_min, uint32_t n_max)
{
    struct grammar_sequence *q = arena_alloc(b->arena, sizeof *q);
    b->failed |= !q;
    if (q)
        *q = (struct grammar_sequence){p.items, p.n};
    return group_of(
        b, (struct grammar_spec){.alternatives = q, .n_alternatives = 1, .n_min = n_min, .n_max = n_max});
}

struct grammar_part either(struct builder *b, const struct parts *ways, uint32_t n)
{
    struct grammar_sequence *q = arena_array(b->arena, n, sizeof *q);
    b->failed |= !q;
    for (uint32_t i = 0; q && i < n; i++)
        q[i] = (struct grammar_sequence){ways[i].items, ways[i].n};
    return group_of(b, (struct grammar_spec){.alternatives = q, .n_alternatives = n});
}

const char *json_text(struct builder *b, const json_t *v)
{
    size_t n = json_dumpb(v, NULL, 0, JSON_COMPACT);
    char *text = arena_alloc(b->arena, n + 1);
    if (!text || json_dumpb(v, text, n, JSON_COMPACT) != n) {
        b->failed = true;
        return NULL;
    }
    text[n] = '\0';
    return text;
}

struct grammar_part text_until(struct builder *b, const char *until, const char *without, bool plain)
{
    json_t *said = json_pack("{s:s, s:b}", "until", until, "plain", plain);
    if (without)
        json_object_set_new(said, "without", json_pack("[s]", without));
    struct grammar_part part = part_of(GRAMMAR_FREE_TEXT, json_text(b, said));
    json_decref(said);
    return part;
}

bool tool_grammar_forces(const struct tool_grammar *g)
{
    return g->tools->choice == TOOL_REQUIRED || g->answer;
}

bool tool_is_strict(const json_t *tool)
{
    return json_is_true(json_object_get(json_object_get(tool, "function"), "strict"));
}

bool tools_are_strict(const json_t *tools)
{
    bool any = false;
    for (size_t i = 0; i < json_array_size(tools); i++)
        any |= tool_is_strict(json_array_get(tools, i));
    return any;
}
