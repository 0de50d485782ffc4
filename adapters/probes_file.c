/* probes.jsonl beside an adapter: the prompts that its own effect test reads. A stranger's file: lines,
 * lengths and ids are bounded.
 *
 *     {"prompt": "Wie repariere ich eine Kette?"}
 *     {"tokens": [1, 306, 4966]} */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "effect_inner.h"
#include "format.h"

static enum status take_tokens(const json_t *list, const char *shown, struct own_probes *out,
                               const struct probes_rules *p, struct error *err)
{
    size_t n = json_array_size(list);
    uint32_t vocab = p->vocab_size;
    if (n == 0 || n > EFFECT_TOKENS_MAX)
        return fail(err, STATUS_FORMAT, "%s: tokens has %zu items, expected 1 to %u", shown, n,
                    EFFECT_TOKENS_MAX);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(list, i);
        json_int_t id = json_is_integer(item) ? json_integer_value(item) : -1;
        if (id < 0 || (uint64_t)id >= vocab)
            return fail(err, STATUS_FORMAT, "%s: tokens: item %zu is no token of this base, expected 0 to %u",
                        shown, i + 1, vocab - 1);
        out->tokens[out->n][i] = (int32_t)id;
    }
    out->prompts[out->n].n_tokens = (uint32_t)n;
    return STATUS_OK;
}

static enum status take_text(const json_t *text, const char *shown, struct own_probes *out,
                             const struct probes_rules *p, struct error *err)
{
    uint32_t n = p->tokenize ? p->tokenize(p->data, json_string_value(text), json_string_length(text),
                                           out->tokens[out->n], EFFECT_TOKENS_MAX)
                             : 0;
    if (n == 0)
        return fail(err, STATUS_FORMAT,
                    "%s: prompt: no tokens can be made of it here; give {\"tokens\": [...]}", shown);
    /* The beginning of a long text is a prompt, too. */
    out->prompts[out->n].n_tokens = n < EFFECT_TOKENS_MAX ? n : EFFECT_TOKENS_MAX;
    return STATUS_OK;
}

static enum status take_line(const char *line, size_t n_bytes, const char *shown, struct own_probes *out,
                             const struct probes_rules *p, struct error *err)
{
    json_t *object;
    if (out->n == EFFECT_PROMPTS_MAX)
        return fail(err, STATUS_TOO_LARGE, "%s: more than %u prompts", shown, EFFECT_PROMPTS_MAX);
    enum status s = json_parse(line, n_bytes, shown, 3, &object, err);
    if (s != STATUS_OK)
        return s;
    const json_t *prompt = json_object_get(object, "prompt"), *tokens = json_object_get(object, "tokens");
    out->prompts[out->n].tokens = out->tokens[out->n];
    if (json_object_size(object) == 1 && json_is_string(prompt))
        s = take_text(prompt, shown, out, p, err);
    else if (json_object_size(object) == 1 && json_is_array(tokens))
        s = take_tokens(tokens, shown, out, p, err);
    else
        s = fail(err, STATUS_FORMAT, "%s: expected {\"prompt\": \"text\"} or {\"tokens\": [ids]}", shown);
    json_decref(object);
    out->n += s == STATUS_OK;
    return s;
}

enum status own_probes_parse(const char *text, size_t n_bytes, const char *shown,
                             const struct probes_rules *p, struct own_probes *out, struct error *err)
{
    enum status s = STATUS_OK;
    *out = (struct own_probes){0};
    for (size_t at = 0, line = 1; at < n_bytes && s == STATUS_OK; line++) {
        const char *end = memchr(text + at, '\n', n_bytes - at);
        size_t n = end ? (size_t)(end - text) - at : n_bytes - at;
        char where[560];
        snprintf(where, sizeof where, "%s, line %zu", shown, line);
        bool blank = strspn(text + at, " \t\r") >= n;
        if (!blank)
            s = take_line(text + at, n, where, out, p, err);
        at += n + 1;
    }
    if (s == STATUS_OK && out->n == 0)
        s = fail(err, STATUS_FORMAT, "%s: no prompts in it", shown);
    return s;
}
