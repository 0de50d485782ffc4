/* The border of the engine: whatever passes here needs no further check. Numbers are checked for NaN and
 * range, tokens against the vocabulary, lengths against the context; then all of it is copied, so that the
 * front may forget the request at once.
 *
 * Owner: the front until the message is in the inbox, then the engine thread. */
#include "submission.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

static enum status check_finite(const char *name, float value, struct error *err)
{
    return isfinite(value)
               ? STATUS_OK
               : fail(err, STATUS_INVALID, "%s must be a finite number, got %g", name, (double)value);
}

static enum status check_tokens(const char *name, const int32_t *ids, uint32_t n, uint32_t n_vocab,
                                struct error *err)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= n_vocab)
            return fail(err, STATUS_INVALID, "%s[%u] is %d, but the model's token ids are 0 to %u", name, i,
                        ids[i], n_vocab - 1);
    return STATUS_OK;
}

static enum status check_bias(const struct sampling *p, uint32_t n_vocab, struct error *err)
{
    if (p->n_logit_bias > LOGIT_BIAS_MAX)
        return fail(err, STATUS_TOO_LARGE, "logit_bias has %u entries, at most %u are taken", p->n_logit_bias,
                    LOGIT_BIAS_MAX);
    for (uint32_t i = 0; i < p->n_logit_bias; i++) {
        const struct logit_bias *b = &p->logit_bias[i];
        enum status s = check_tokens("logit_bias", &b->token, 1, n_vocab, err);
        if (s != STATUS_OK)
            return s;
        if (!isfinite(b->bias) && !(b->bias < 0))
            return fail(err, STATUS_INVALID,
                        "logit_bias of token %d must be finite, or minus infinity to ban it, got %g",
                        b->token, (double)b->bias);
    }
    return STATUS_OK;
}

static enum status check_order(const struct sampler_order *o, struct error *err)
{
    unsigned seen = 0;
    char letter;
    if (o->is_set && o->n > SAMPLER_KINDS)
        return fail(err, STATUS_INVALID, "samplers has %u entries, there are %d samplers", o->n,
                    SAMPLER_KINDS);
    for (unsigned i = 0; o->is_set && i < o->n; i++) {
        if (o->kinds[i] >= SAMPLER_KINDS)
            return fail(err, STATUS_INVALID, "samplers[%u] is %u, there are only %d samplers", i, o->kinds[i],
                        SAMPLER_KINDS);
        if (seen & 1U << o->kinds[i])
            return fail(err, STATUS_INVALID, "samplers names %s twice", sampler_name(o->kinds[i], &letter));
        seen |= 1U << o->kinds[i];
    }
    return STATUS_OK;
}

struct range {
    const char *name;
    double value, min, max;
};

/* The samplers of llama-server's. */
static enum status check_newer(const struct sampling *p, struct error *err)
{
    const struct range ranges[] = {
        {"top_n_sigma", (double)p->top_n_sigma, -1e9, 1e9},
        {"xtc_probability", (double)p->xtc_probability, 0, 1},
        {"xtc_threshold", (double)p->xtc_threshold, 0, 1},
        {"dynatemp_range", (double)p->dynatemp_range, 0, 100},
        {"dynatemp_exponent", (double)p->dynatemp_exponent, 0, 100},
        {"mirostat", p->mirostat, 0, 2},
        {"mirostat_tau", (double)p->mirostat_tau, 0, 1000},
        {"mirostat_eta", (double)p->mirostat_eta, 0, 1000},
        {"dry_multiplier", (double)p->dry_multiplier, 0, 1000},
        {"dry_base", (double)p->dry_base, p->dry_multiplier > 0 ? 1 : 0, 1000},
        {"dry_allowed_length", p->dry_allowed_length, p->dry_multiplier > 0 ? 1 : 0, INT32_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (!(ranges[i].value >= ranges[i].min && ranges[i].value <= ranges[i].max)) /* NaN fails both */
            return fail(err, STATUS_INVALID, "%s must be between %g and %g, got %g", ranges[i].name,
                        ranges[i].min, ranges[i].max, ranges[i].value);
    if (p->n_dry_breakers > DRY_BREAKERS_MAX)
        return fail(err, STATUS_TOO_LARGE, "dry_sequence_breakers has %u strings, at most %u are taken",
                    p->n_dry_breakers, DRY_BREAKERS_MAX);
    for (uint32_t i = 0; i < p->n_dry_breakers; i++) {
        size_t n = strlen(p->dry_breakers[i]);
        if (n == 0 || n > STOP_STRING_BYTES_MAX)
            return fail(err, STATUS_INVALID, "dry_sequence_breakers[%u] has %zu bytes, 1 to %u are taken", i,
                        n, STOP_STRING_BYTES_MAX);
    }
    return STATUS_OK;
}

static enum status check_words(const struct sampling *p, uint32_t n_vocab, struct error *err)
{
    if (p->n_bad_words > BAD_WORD_IDS_MAX)
        return fail(err, STATUS_TOO_LARGE, "bad_words has %u tokens, at most %u are taken", p->n_bad_words,
                    BAD_WORD_IDS_MAX);
    for (uint32_t i = 0; i < p->n_bad_words; i++) {
        int32_t id = p->bad_words[i], before = i ? p->bad_words[i - 1] : -1;
        bool ends = id == -1 && before != -1;
        if (!ends && (id < 0 || (uint32_t)id >= n_vocab || i + 1 == p->n_bad_words))
            return fail(err, STATUS_INVALID,
                        "bad_words: %d at %u, expected sequences of ids, each with its end", id, i);
    }
    if (p->allowed && p->n_allowed == 0)
        return fail(err, STATUS_INVALID, "allowed_token_ids has no ids, at least 1 is needed");
    for (uint32_t i = 1; p->allowed && i < p->n_allowed; i++)
        if (p->allowed[i] <= p->allowed[i - 1])
            return fail(err, STATUS_INVALID, "allowed_token_ids[%u] is %d behind %d, expected rising ids", i,
                        p->allowed[i], p->allowed[i - 1]);
    return check_tokens("allowed_token_ids", p->allowed, p->n_allowed, n_vocab, err);
}

static enum status check_sampling(const struct sampling *p, uint32_t n_vocab, struct error *err)
{
    enum status s;
    if (!isfinite(p->temperature) || p->temperature < 0)
        return fail(err, STATUS_INVALID, "temperature must be 0 (greedy) or above and finite, got %g",
                    (double)p->temperature);
    if (!(p->top_p > 0 && p->top_p <= 1))
        return fail(err, STATUS_INVALID, "top_p must be above 0 and at most 1, got %g", (double)p->top_p);
    if (!(p->min_p >= 0 && p->min_p <= 1))
        return fail(err, STATUS_INVALID, "min_p must be between 0 and 1, got %g", (double)p->min_p);
    if (!(p->typical_p >= 0 && p->typical_p <= 1))
        return fail(err, STATUS_INVALID, "typical_p must be between 0 and 1, got %g", (double)p->typical_p);
    if (!isfinite(p->repetition_penalty) || !(p->repetition_penalty > 0))
        return fail(err, STATUS_INVALID, "repetition_penalty must be above 0 and finite, got %g",
                    (double)p->repetition_penalty);
    if ((s = check_finite("presence_penalty", p->presence_penalty, err)) != STATUS_OK ||
        (s = check_finite("frequency_penalty", p->frequency_penalty, err)) != STATUS_OK ||
        (s = check_order(&p->order, err)) != STATUS_OK || (s = check_newer(p, err)) != STATUS_OK ||
        (s = check_words(p, n_vocab, err)) != STATUS_OK)
        return s;
    return check_bias(p, n_vocab, err);
}

static enum status check_stops(const struct generation *g, uint32_t n_vocab, struct error *err)
{
    if (g->n_stop_tokens > STOP_TOKENS_MAX)
        return fail(err, STATUS_TOO_LARGE, "stop_token_ids has %u entries, at most %u are taken",
                    g->n_stop_tokens, STOP_TOKENS_MAX);
    if (g->n_stop_strings > STOP_STRINGS_MAX)
        return fail(err, STATUS_TOO_LARGE, "stop has %u strings, at most %u are taken", g->n_stop_strings,
                    STOP_STRINGS_MAX);
    for (uint32_t i = 0; i < g->n_stop_strings; i++) {
        size_t n = strlen(g->stop_strings[i]);
        if (n == 0 || n > STOP_STRING_BYTES_MAX)
            return fail(err, n ? STATUS_TOO_LARGE : STATUS_INVALID,
                        "stop[%u] has %zu bytes, 1 to %u are taken", i, n, STOP_STRING_BYTES_MAX);
        if (!utf8_is_valid(g->stop_strings[i], n))
            return fail(err, STATUS_INVALID, "stop[%u] is not valid UTF-8", i);
    }
    if (g->n_kept_tokens > KEPT_TOKENS_MAX)
        return fail(err, STATUS_TOO_LARGE, "%u special tokens to keep, at most %u are taken",
                    g->n_kept_tokens, KEPT_TOKENS_MAX);
    return check_tokens("stop_token_ids", g->stop_tokens, g->n_stop_tokens, n_vocab, err);
}

static enum status check_lengths(const struct generation *g, const struct submission_limits *l,
                                 struct error *err)
{
    if (g->n_prompt == 0)
        return fail(err, STATUS_INVALID, "the prompt has no tokens, at least 1 is needed");
    if (g->n_prompt >= l->context && l->kv_tokens < l->wanted_context)
        return fail(err, STATUS_TOO_LARGE,
                    "the prompt has %u tokens, but the KV memory holds %u, the first generated one included: "
                    "shorten the prompt or raise kv_bytes",
                    g->n_prompt, l->kv_tokens);
    if (g->n_prompt >= l->context)
        return fail(
            err, STATUS_TOO_LARGE,
            "the prompt has %u tokens, but the context length is %u, the first generated one included: "
            "shorten the prompt",
            g->n_prompt, l->context);
    if (g->min_tokens > g->max_tokens)
        return fail(err, STATUS_INVALID, "min_tokens is %u, above max_tokens, which is %u", g->min_tokens,
                    g->max_tokens);
    if (g->pooling != POOLING_NONE && (g->max_tokens || g->n_prompt_logprobs >= 0 || !g->pooled))
        return fail(err, STATUS_INVALID, "an embedding has no tokens of its own: max_tokens is %u",
                    g->max_tokens);
    if (g->n_logprobs < -1 || g->n_logprobs > (int32_t)LOGPROBS_MAX)
        return fail(err, STATUS_INVALID, "logprobs must be between 0 and %u, got %d", LOGPROBS_MAX,
                    g->n_logprobs);
    if (g->n_prompt_logprobs < -1 || g->n_prompt_logprobs > (int32_t)LOGPROBS_MAX)
        return fail(err, STATUS_INVALID, "prompt_logprobs must be between 0 and %u, got %d", LOGPROBS_MAX,
                    g->n_prompt_logprobs);
    return STATUS_OK;
}

static enum status check(const struct generation *g, const struct submission_limits *l, struct error *err)
{
    uint32_t n_vocab = model_config(l->model)->vocab_size;
    enum status s;
    if ((s = check_lengths(g, l, err)) != STATUS_OK ||
        (s = check_tokens("prompt", g->prompt, g->n_prompt, n_vocab, err)) != STATUS_OK ||
        (s = check_sampling(&g->sampling, n_vocab, err)) != STATUS_OK ||
        (s = check_stops(g, n_vocab, err)) != STATUS_OK)
        return s;
    if (g->grammar && grammar_n_vocab(g->grammar) != n_vocab)
        return fail(err, STATUS_MISMATCH,
                    "the grammar was made for a vocabulary of %u tokens, this one has %u",
                    grammar_n_vocab(g->grammar), n_vocab);
    const struct generation_caller *c = &g->caller;
    if (c->number >= ENGINE_CALLERS_MAX || !(c->weight >= 0 && isfinite(c->weight)) ||
        !(c->cost >= 0 && isfinite(c->cost)) || !(c->kv_share >= 0 && c->kv_share <= 1))
        return fail(err, STATUS_INVALID, "caller %u with weight %g, cost %g and share %g is out of range",
                    c->number, (double)c->weight, (double)c->cost, (double)c->kv_share);
    if ((g->lora && g->lora->model != l->model) || (g->shadow_lora && g->shadow_lora->model != l->model))
        return fail(err, STATUS_MISMATCH,
                    "the adapter was built for another base model than the one that runs");
    return STATUS_OK;
}

/* The model's ends: its generation configuration's, and the tokenizer's own. Returns how many. */
static uint32_t eos_tokens(const struct submission_limits *l, int32_t out[CONFIG_EOS_MAX + 1])
{
    const struct model_config *c = model_config(l->model);
    uint32_t n = 0;
    bool has_text_eos = false;
    for (uint32_t i = 0; i < c->n_eos && i < CONFIG_EOS_MAX; i++) {
        if (c->eos_tokens[i] < 0 || (uint32_t)c->eos_tokens[i] >= c->vocab_size)
            continue;
        out[n++] = c->eos_tokens[i];
        has_text_eos |= c->eos_tokens[i] == l->text->eos_token;
    }
    if (!has_text_eos && l->text->eos_token >= 0 && (uint32_t)l->text->eos_token < c->vocab_size)
        out[n++] = l->text->eos_token;
    return n;
}

/* The next part of the block; every part leaves the next one aligned. */
static void *carve(uint8_t **at, size_t size_bytes)
{
    void *part = *at;
    *at += (size_bytes + 7) & ~(size_t)7;
    return part;
}

static void *carve_copy(uint8_t **at, const void *from, size_t size_bytes)
{
    void *part = carve(at, size_bytes);
    if (size_bytes)
        memcpy(part, from, size_bytes);
    return part;
}

static const char *const *carve_strings(uint8_t **at, const char *const *from, uint32_t n)
{
    const char **strings = carve(at, n * sizeof *strings);
    for (uint32_t i = 0; i < n; i++)
        strings[i] = carve_copy(at, from[i], strlen(from[i]) + 1);
    return strings;
}

static void copy_words(struct sampling *p, uint8_t **at)
{
    p->dry_breakers = carve_strings(at, p->dry_breakers, p->n_dry_breakers);
    p->bad_words = carve_copy(at, p->bad_words, p->n_bad_words * sizeof *p->bad_words);
    if (p->allowed)
        p->allowed = carve_copy(at, p->allowed, p->n_allowed * sizeof *p->allowed);
}

/* All within bounds that check() has seen, so no sum can overflow. */
static size_t copy_bytes(const struct generation *g)
{
    size_t n = sizeof(struct submission) + (size_t)g->n_prompt * sizeof(int32_t) +
               (g->n_stop_tokens + g->n_kept_tokens + CONFIG_EOS_MAX + 1U) * sizeof(int32_t) +
               g->sampling.n_logit_bias * sizeof(struct logit_bias) + g->n_stop_strings * sizeof(char *);
    const struct sampling *p = &g->sampling;
    for (uint32_t i = 0; i < g->n_stop_strings; i++)
        n += strlen(g->stop_strings[i]) + 1;
    for (uint32_t i = 0; i < p->n_dry_breakers; i++)
        n += strlen(p->dry_breakers[i]) + 1;
    n += (p->n_bad_words + p->n_allowed) * sizeof(int32_t) + p->n_dry_breakers * sizeof(char *);
    return n + (g->n_stop_strings + p->n_dry_breakers + 8U) * 8; /* alignment */
}

static void copy(struct submission *s, const struct generation *g, const struct submission_limits *l)
{
    int32_t eos[CONFIG_EOS_MAX + 1];
    uint32_t n_eos = g->ignore_eos ? 0 : eos_tokens(l, eos);
    uint8_t *at = (uint8_t *)(s + 1);
    s->g = *g;
    s->g.prompt = carve_copy(&at, g->prompt, g->n_prompt * sizeof *g->prompt);
    s->g.sampling.logit_bias =
        carve_copy(&at, g->sampling.logit_bias, g->sampling.n_logit_bias * sizeof(struct logit_bias));
    int32_t *stops = carve(&at, (n_eos + g->n_stop_tokens) * sizeof *stops);
    if (n_eos)
        memcpy(stops, eos, n_eos * sizeof *stops);
    if (g->n_stop_tokens)
        memcpy(stops + n_eos, g->stop_tokens, g->n_stop_tokens * sizeof *stops);
    s->g.stop_tokens = stops;
    s->g.n_stop_tokens = n_eos + g->n_stop_tokens;
    s->g.kept_tokens = carve_copy(&at, g->kept_tokens, g->n_kept_tokens * sizeof *g->kept_tokens);
    s->g.stop_strings = carve_strings(&at, g->stop_strings, g->n_stop_strings);
    copy_words(&s->g.sampling, &at);
    uint32_t room = l->context - g->n_prompt;
    s->g.max_tokens = g->max_tokens < room ? g->max_tokens : room;
    s->g.min_tokens = g->min_tokens < room ? g->min_tokens : room;
    s->g.lora = lora_acquire(g->lora);
    s->lora_begin = g->lora ? lora_begin(g->lora, s->g.prompt, g->n_prompt) : 0;
    s->g.shadow_lora = lora_acquire(g->shadow_lora);
    s->g.grammar = grammar_acquire(g->grammar);
    s->shadow_begin = g->shadow_lora ? lora_begin(g->shadow_lora, s->g.prompt, g->n_prompt) : 0;
}

enum status submission_create(const struct generation *g, const struct submission_limits *limits,
                              struct submission **out, struct error *err)
{
    enum status s = check(g, limits, err);
    if (s != STATUS_OK)
        return s;
    struct submission *copied = mem_zalloc(copy_bytes(g));
    if (!copied)
        return fail(err, STATUS_NO_MEMORY, "no memory to keep a request with a prompt of %u tokens",
                    g->n_prompt);
    copy(copied, g, limits);
    *out = copied;
    return STATUS_OK;
}

void submission_destroy(struct submission *s)
{
    if (!s)
        return;
    lora_release(s->g.lora);
    lora_release(s->g.shadow_lora);
    grammar_release(s->g.grammar);
    mem_free(s);
}
