/* Grammars without a model: reads cases as a JSON array from standard input, writes what came of each.
 *
 *   grammar_walk TOKENIZER.json
 *   {"kind": "json_schema", "source": "…", "texts": ["…"], "walks": 10, "tokens": 300, "seed": 1}
 *   {"status": "OK", "error": "", "accepts": [true], "walks": [{"text": "…", "whole": true, "stuck": false}]}
 *
 * A walk takes allowed tokens at random, as a model of equal logits would; now and then one that closes
 * something is preferred, or no text would ever end. kinds: json_object, json_schema, regex, choice, gbnf. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "grammar.h"
#include "sampler.h"
#include "text.h"

static const char *const kinds[] = {[GRAMMAR_JSON_OBJECT] = "json_object",
                                    [GRAMMAR_JSON_SCHEMA] = "json_schema",
                                    [GRAMMAR_REGEX] = "regex",
                                    [GRAMMAR_CHOICE] = "choice",
                                    [GRAMMAR_GBNF] = "gbnf"};

struct world {
    struct tokenizer *tokenizer;
    struct grammar_vocab *vocab;
    uint32_t n_vocab;
    uint64_t *mask;
    struct rng rng;
};

static void check(bool fine, const char *what)
{
    if (fine)
        return;
    fprintf(stderr, "grammar_walk: %s\n", what);
    exit(1);
}

static bool closes(const struct world *w, uint32_t token)
{
    size_t n;
    const char *piece = tokenizer_piece(w->tokenizer, (int32_t)token, &n);
    return piece && n && strchr("\"}]", piece[0]) && piece[0];
}

/* Of the allowed tokens one at random; `closing`: one that closes, if there is one. -1: none. */
static int32_t pick(struct world *w, bool closing)
{
    int32_t chosen = -1;
    uint32_t n = 0;
    for (uint32_t t = 0; t < w->n_vocab; t++)
        if ((w->mask[t / 64] >> t % 64 & 1) && (!closing || closes(w, t)) && rng_next(&w->rng) % ++n == 0)
            chosen = (int32_t)t;
    return chosen < 0 && closing ? pick(w, false) : chosen;
}

static json_t *walk(struct world *w, struct grammar *g, uint32_t n_most)
{
    struct detokenizer d;
    struct grammar_matcher m = {0};
    struct buf text;
    int32_t *tokens = mem_array(n_most + 1, sizeof *tokens);
    char *piece = mem_alloc(detokenizer_bound(w->tokenizer));
    bool may_end = false, whole = false, stuck = false;
    check(tokens && piece, "no memory");
    buf_init(&text, 0);
    detokenizer_init(&d, w->tokenizer, true);
    for (uint32_t n = 0; n < n_most && !whole; n++) {
        enum grammar_answer a = grammar_next(g, &m, tokens, n, w->mask, &may_end);
        whole = a == GRAMMAR_COMPLETE || (a == GRAMMAR_GOES_ON && may_end && rng_next(&w->rng) % 3 == 0);
        stuck = a == GRAMMAR_STUCK || a == GRAMMAR_TOO_LARGE;
        if (whole || stuck)
            break;
        tokens[n] = pick(w, rng_next(&w->rng) % 4 == 0);
        buf_append(&text, piece, detokenizer_push(&d, tokens[n], piece));
    }
    buf_append(&text, piece, detokenizer_end(&d, piece));
    json_t *out = json_pack("{s:s#, s:b, s:b}", "text", text.data ? text.data : "", (int)text.length, "whole",
                            whole, "stuck", stuck);
    buf_fini(&text);
    mem_free(tokens);
    mem_free(piece);
    return out;
}

static json_t *run(struct world *w, const json_t *v)
{
    const char *kind = json_string_value(json_object_get(v, "kind"));
    const json_t *source = json_object_get(v, "source"), *texts = json_object_get(v, "texts");
    json_t *accepts = json_array(), *walks = json_array();
    struct grammar *g = NULL;
    struct error err = {.text = ""};
    unsigned k = 0;
    while (k < sizeof kinds / sizeof *kinds && (!kind || !kinds[k] || strcmp(kind, kinds[k]) != 0))
        k++;
    check(k < sizeof kinds / sizeof *kinds, "an unknown kind");
    enum status s = grammar_compile_part(w->vocab, (enum grammar_kind)k, json_string_value(source),
                                         json_string_length(source), &g, &err);
    rng_seed(&w->rng, (uint64_t)json_integer_value(json_object_get(v, "seed")));
    for (size_t i = 0; g && i < json_array_size(texts); i++) {
        const json_t *t = json_array_get(texts, i);
        json_array_append_new(accepts,
                              json_boolean(grammar_accepts(g, json_string_value(t), json_string_length(t))));
    }
    for (json_int_t i = json_integer_value(json_object_get(v, "walks")); g && i > 0; i--)
        json_array_append_new(walks, walk(w, g, (uint32_t)json_integer_value(json_object_get(v, "tokens"))));
    grammar_release(g);
    return json_pack("{s:s, s:s, s:o, s:o}", "status", status_name(s), "error", err.text, "accepts", accepts,
                     "walks", walks);
}

int main(int argc, char **argv)
{
    struct world w = {0};
    struct error err = {.text = "usage: grammar_walk TOKENIZER.json"};
    struct buf json;
    buf_init(&json, 1U << 28);
    check(argc == 2 && file_read_all(argv[1], 1U << 28, &json, &err) == STATUS_OK &&
              tokenizer_from_json(json.data, json.length, argv[1], &w.tokenizer, &err) == STATUS_OK,
          err.text);
    w.n_vocab = tokenizer_n_tokens(w.tokenizer);
    w.mask = mem_array(grammar_mask_words(w.n_vocab), sizeof *w.mask);
    check(w.mask && grammar_vocab_create(w.tokenizer, w.n_vocab, &w.vocab, &err) == STATUS_OK, err.text);
    json_t *cases = json_loadf(stdin, 0, NULL), *out = json_array();
    check(json_is_array(cases), "standard input is no JSON array");
    for (size_t i = 0; i < json_array_size(cases); i++)
        json_array_append_new(out, run(&w, json_array_get(cases, i)));
    json_dumpf(out, stdout, JSON_COMPACT);
    json_decref(out);
    json_decref(cases);
    mem_free(w.mask);
    grammar_vocab_destroy(w.vocab);
    tokenizer_destroy(w.tokenizer);
    buf_fini(&json);
    return 0;
}
