/* Draws tokens for tests/sampling/chi_square.py: cases as JSON on standard input, counts on standard output.
 *
 *   [{"logits": [number or null for -inf, …], "prompt": [ids], "output": [ids], "banned": [ids],
 *     "request": {a completion request's parameters}, "draws": N}, …]   →   [[count of id 0, …], …]
 *
 * The parameters go through the server's parser and the engine's sampler, as a request's do. No token left
 * counts nothing. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api_parse.h"
#include "base/mem.h"
#include "kernels.h"
#include "sampler.h"

static void check(bool ok, const char *text)
{
    if (ok)
        return;
    fprintf(stderr, "draw: %s\n", text);
    exit(1);
}

struct draw_case {
    float *logits;
    int32_t *tokens, *banned; /* tokens: prompt, then output */
    uint32_t n_vocab, n_prompt, n_tokens, n_banned;
};

static uint32_t read_ids(const json_t *ids, uint32_t n_vocab, int32_t *out)
{
    for (size_t i = 0; i < json_array_size(ids); i++) {
        out[i] = (int32_t)json_integer_value(json_array_get(ids, i));
        check(out[i] >= 0 && (uint32_t)out[i] < n_vocab, "a token id outside the vocabulary");
    }
    return (uint32_t)json_array_size(ids);
}

static void read_case(const json_t *v, struct draw_case *c)
{
    const json_t *logits = json_object_get(v, "logits"), *prompt = json_object_get(v, "prompt");
    const json_t *output = json_object_get(v, "output"), *banned = json_object_get(v, "banned");
    c->n_vocab = (uint32_t)json_array_size(logits);
    c->logits = mem_array(c->n_vocab, sizeof *c->logits);
    c->tokens = mem_array(json_array_size(prompt) + json_array_size(output) + 1, sizeof *c->tokens);
    c->banned = mem_array(json_array_size(banned) + 1, sizeof *c->banned);
    check(c->n_vocab && c->logits && c->tokens && c->banned, "no logits, or no memory");
    for (uint32_t i = 0; i < c->n_vocab; i++) {
        const json_t *x = json_array_get(logits, i);
        c->logits[i] = json_is_null(x) ? -INFINITY : (float)json_number_value(x);
    }
    c->n_prompt = read_ids(prompt, c->n_vocab, c->tokens);
    c->n_tokens = c->n_prompt + read_ids(output, c->n_vocab, c->tokens + c->n_prompt);
    c->n_banned = read_ids(banned, c->n_vocab, c->banned);
}

static json_t *run(const json_t *v, const struct kernels *k)
{
    struct draw_case c;
    struct gen_params p;
    struct fault f;
    struct arena *arena = arena_create(1U << 20);
    struct sampler_scratch s;
    struct rng r;
    read_case(v, &c);
    struct parse_limits limits = {.n_max = 1, .n_vocab = c.n_vocab};
    if (!arena ||
        parse_gen_params(json_object_get(v, "request"), API_COMPLETIONS, &limits, arena, &p, &f) != STATUS_OK)
        check(false, f.error.text);
    check(sampler_scratch_init(&s, c.n_vocab, k->argmax, &f.error) == STATUS_OK, "no memory");
    const struct sampler_input in = {.sampling = &p.sampling,
                                     .logits = c.logits,
                                     .tokens = c.tokens,
                                     .n_tokens = c.n_tokens,
                                     .n_prompt = c.n_prompt,
                                     .banned = c.banned,
                                     .n_banned = c.n_banned};
    uint32_t *counts = mem_array(c.n_vocab, sizeof *counts);
    check(counts != NULL, "no memory");
    memset(counts, 0, c.n_vocab * sizeof *counts);
    rng_seed(&r, p.sampling.seed);
    for (json_int_t i = json_integer_value(json_object_get(v, "draws")); i > 0; i--) {
        int32_t t = sampler_pick(&in, &r, &s);
        if (t >= 0)
            counts[t]++;
    }
    json_t *out = json_array();
    for (uint32_t i = 0; i < c.n_vocab; i++)
        json_array_append_new(out, json_integer(counts[i]));
    sampler_scratch_fini(&s);
    arena_destroy(arena);
    mem_free(counts);
    mem_free(c.logits);
    mem_free(c.tokens);
    mem_free(c.banned);
    return out;
}

int main(void)
{
    struct error err;
    const struct kernels *k;
    json_t *cases = json_loadf(stdin, 0, NULL), *out = json_array();
    check(json_is_array(cases), "standard input is no JSON array");
    check(kernels_select("auto", ACT_MODE_INT8, &k, &err) == STATUS_OK, "no kernels");
    for (size_t i = 0; i < json_array_size(cases); i++)
        json_array_append_new(out, run(json_array_get(cases, i), k));
    json_dumpf(out, stdout, JSON_COMPACT);
    json_decref(out);
    json_decref(cases);
    return 0;
}
