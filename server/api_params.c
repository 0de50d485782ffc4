/* Generation parameters: OpenAI's, and the names that vLLM's and llama-server's clients use for more. What
 * would change the output and isn't done here is refused by name; what wouldn't is ignored, as clients send
 * plenty. */
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api_grammar.h"
#include "api_parse.h"
#include "text.h"

struct float_row {
    const char *key;
    double min, max;
    size_t offset; /* of a float in struct sampling */
};

/* An alias stands behind its main name; the later one wins. */
static const struct float_row float_rows[] = {
    {"temperature", 0, 100, offsetof(struct sampling, temperature)},
    {"top_p", 0, 1, offsetof(struct sampling, top_p)},
    {"min_p", 0, 1, offsetof(struct sampling, min_p)},
    {"typical_p", 0, 1, offsetof(struct sampling, typical_p)},
    {"repeat_penalty", 0.01, 100, offsetof(struct sampling, repetition_penalty)},
    {"repetition_penalty", 0.01, 100, offsetof(struct sampling, repetition_penalty)},
    {"presence_penalty", -2, 2, offsetof(struct sampling, presence_penalty)},
    {"frequency_penalty", -2, 2, offsetof(struct sampling, frequency_penalty)},
    {"top_n_sigma", -1e9, 1e9, offsetof(struct sampling, top_n_sigma)},
    {"xtc_probability", 0, 1, offsetof(struct sampling, xtc_probability)},
    {"xtc_threshold", 0, 1, offsetof(struct sampling, xtc_threshold)},
    {"dynatemp_range", 0, 100, offsetof(struct sampling, dynatemp_range)},
    {"dynatemp_exponent", 0, 100, offsetof(struct sampling, dynatemp_exponent)},
    {"mirostat_tau", 0, 1000, offsetof(struct sampling, mirostat_tau)},
    {"mirostat_eta", 0, 1000, offsetof(struct sampling, mirostat_eta)},
    {"dry_multiplier", 0, 1000, offsetof(struct sampling, dry_multiplier)},
    {"dry_base", 1, 1000, offsetof(struct sampling, dry_base)},
};

/* "penalties (e), temperature (t), …": for messages. */
static const char *list_samplers(char *dst, size_t dst_bytes)
{
    size_t n = 0;
    char letter;
    for (unsigned k = 0; k < SAMPLER_KINDS && n < dst_bytes; k++) {
        const char *name = sampler_name((enum sampler_kind)k, &letter);
        n += (size_t)snprintf(dst + n, dst_bytes - n, "%s%s (%c)", k ? ", " : "", name, letter);
    }
    return dst;
}

static void add_sampler(struct reader *r, struct sampler_order *o, enum sampler_kind kind)
{
    char letter, all[256];
    for (unsigned i = 0; i < o->n; i++)
        if (o->kinds[i] == kind)
            read_fail(r, STATUS_INVALID, "samplers",
                      "samplers: found %s twice, expected each of these at most once: %s",
                      sampler_name(kind, &letter), list_samplers(all, sizeof all));
    if (r->status == STATUS_OK)
        o->kinds[o->n++] = (uint8_t)kind;
}

/* llama-server's: an array of names, or a string with a letter for each. */
static void read_samplers(struct reader *r, struct sampler_order *o)
{
    const json_t *v = r->status == STATUS_OK ? json_object_get(r->object, "samplers") : NULL;
    char text[96], all[256];
    enum sampler_kind kind;
    if (!v || json_is_null(v))
        return;
    if (!json_is_array(v) && !json_is_string(v)) {
        read_fail(r, STATUS_INVALID, "samplers",
                  "samplers: found %s, expected an array of names or a string of letters: %s",
                  describe_json(v, text, sizeof text), list_samplers(all, sizeof all));
        return;
    }
    o->is_set = true;
    const char *letters = json_is_string(v) ? json_string_value(v) : "";
    size_t n = json_is_array(v) ? json_array_size(v) : json_string_length(v);
    for (size_t i = 0; i < n && r->status == STATUS_OK; i++) {
        const json_t *item = json_is_array(v) ? json_array_get(v, i) : v;
        bool known = json_is_array(v) ? json_is_string(item) && sampler_find(json_string_value(item), &kind)
                                      : sampler_find_letter(letters[i], &kind);
        if (known)
            add_sampler(r, o, kind);
        else
            read_fail(r, STATUS_INVALID, "samplers", "samplers[%zu]: found %s, expected one of %s", i,
                      describe_json(item, text, sizeof text), list_samplers(all, sizeof all));
    }
}

static void read_sampling(struct reader *r, struct sampling *s)
{
    double d;
    int64_t n;
    for (size_t i = 0; i < sizeof float_rows / sizeof float_rows[0]; i++) {
        const struct float_row *row = &float_rows[i];
        if (!read_float(r, row->key, row->min, row->max, &d))
            continue;
        float v = (float)d;
        memcpy((char *)s + row->offset, &v, sizeof v);
    }
    if (s->top_p == 0) /* OpenAI takes 0: the likeliest token alone */
        s->top_p = FLT_MIN;
    if (read_int(r, "top_k", -1, INT32_MAX, &n))
        s->top_k = (int32_t)n;
    if (s->typical_p == 0) /* as llama-server's: the most typical token alone */
        s->typical_p = FLT_MIN;
    if (read_int(r, "min_keep", 0, INT32_MAX, &n))
        s->min_keep = (uint32_t)n;
    if (read_int(r, "repeat_last_n", -1, INT32_MAX, &n))
        s->penalty_last_n = (int32_t)n;
    if (read_int(r, "penalty_last_n", -1, INT32_MAX, &n))
        s->penalty_last_n = (int32_t)n;
    if (read_int(r, "mirostat", 0, 2, &n))
        s->mirostat = (uint32_t)n;
    if (read_int(r, "dry_allowed_length", 1, INT32_MAX, &n))
        s->dry_allowed_length = (uint32_t)n;
    if (read_int(r, "dry_penalty_last_n", -1, INT32_MAX, &n))
        s->dry_last_n = (int32_t)n;
    read_samplers(r, &s->order);
}

static void read_max_tokens(struct reader *r, enum api api, struct gen_params *p)
{
    static const char *const keys[] = {"n_predict", "max_tokens", "max_completion_tokens"};
    const char *key = "max_tokens"; /* as the caller has it */
    int64_t n;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (read_int(r, keys[i], -1, INT32_MAX, &n)) {
            p->max_tokens = n < 0 ? UINT32_MAX : (uint32_t)n;
            key = keys[i];
        }
    if (api == API_CHAT && p->max_tokens == 0)
        read_fail(r, STATUS_INVALID, key, "%s: found 0, expected at least 1", key);
    if (read_int(r, "min_tokens", 0, INT32_MAX, &n))
        p->min_tokens = (uint32_t)n;
    if (read_int(r, "t_max_predict_ms", -1, INT32_MAX, &n)) /* llama-server's; below 1: no limit */
        p->max_decode_ms = n > 0 ? (uint32_t)n : 0;
    if (p->min_tokens > p->max_tokens)
        read_fail(r, STATUS_INVALID, "min_tokens", "min_tokens: found %u, expected at most %s (%u)",
                  p->min_tokens, key, p->max_tokens);
}

static void add_stop(struct reader *r, const json_t *v, struct gen_params *p)
{
    char text[96];
    size_t n = json_is_string(v) ? json_string_length(v) : 0;
    if (n == 0 || n > STOP_STRING_BYTES_MAX)
        read_fail(r, STATUS_INVALID, "stop", "stop: found %s, expected strings of 1 to %u bytes",
                  describe_json(v, text, sizeof text), STOP_STRING_BYTES_MAX);
    else
        p->stop[p->n_stop++] = json_string_value(v);
}

static void read_stop(struct reader *r, struct arena *arena, uint32_t n_vocab, struct gen_params *p)
{
    const json_t *stop = json_object_get(r->object, "stop"), *ids = NULL;
    if (r->status != STATUS_OK)
        return;
    size_t n = json_is_array(stop) ? json_array_size(stop) : 1;
    if (n > STOP_STRINGS_MAX) {
        read_fail(r, STATUS_INVALID, "stop", "stop: found %zu strings, at most %u are accepted", n,
                  STOP_STRINGS_MAX);
        return;
    }
    p->stop = arena_array(arena, STOP_STRINGS_MAX, sizeof *p->stop);
    p->stop_tokens = arena_array(arena, STOP_TOKENS_MAX, sizeof *p->stop_tokens);
    if (!p->stop || !p->stop_tokens) {
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the request");
        return;
    }
    if (json_is_array(stop))
        for (size_t i = 0; i < n; i++)
            add_stop(r, json_array_get(stop, i), p);
    else if (stop && !json_is_null(stop))
        add_stop(r, stop, p);
    if (!read_array(r, "stop_token_ids", &ids))
        return;
    if (json_array_size(ids) > STOP_TOKENS_MAX)
        read_fail(r, STATUS_INVALID, "stop_token_ids",
                  "stop_token_ids: found %zu ids, at most %u are accepted", json_array_size(ids),
                  STOP_TOKENS_MAX);
    for (size_t i = 0; i < json_array_size(ids) && r->status == STATUS_OK; i++)
        if (read_token_id(r, json_array_get(ids, i), "stop_token_ids", i, n_vocab, &p->stop_tokens[i]))
            p->n_stop_tokens++;
}

/* ---- logit_bias: {"ID": bias} or [[ID or "text", bias or false], …] */

struct bias_list {
    struct logit_bias *items;
    uint32_t n;
};

static bool read_bias(struct reader *r, const json_t *v, float *out)
{
    char text[96];
    double d = json_is_false(v) ? -INFINITY : json_is_number(v) ? json_number_value(v) : NAN;
    if (isnan(d) || (isfinite(d) && fabs(d) > 1e6))
        read_fail(r, STATUS_INVALID, "logit_bias",
                  "logit_bias: found %s, expected a number from -1e6 to 1e6, or false",
                  describe_json(v, text, sizeof text));
    *out = (float)d;
    return r->status == STATUS_OK;
}

static void add_bias(struct reader *r, struct bias_list *l, int64_t token, uint32_t n_vocab, float bias)
{
    if (token < 0 || token >= n_vocab)
        read_fail(r, STATUS_INVALID, "logit_bias", "logit_bias: found token id %lld, expected 0 to %u",
                  (long long)token, n_vocab - 1);
    else if (l->n == LOGIT_BIAS_MAX)
        read_fail(r, STATUS_INVALID, "logit_bias", "logit_bias: more than %u tokens", LOGIT_BIAS_MAX);
    if (r->status == STATUS_OK)
        l->items[l->n++] = (struct logit_bias){.token = (int32_t)token, .bias = bias};
}

static void add_bias_text(struct reader *r, struct bias_list *l, const struct parse_limits *limits,
                          const char *text, float bias)
{
    if (!limits->tokenizer) {
        read_fail(r, STATUS_INVALID, "logit_bias", "logit_bias: expected token ids, found a text");
        return;
    }
    struct token_list ids = {0};
    struct encode_options o = {.limit_ids = LOGIT_BIAS_MAX};
    struct error err;
    enum status s = tokenizer_encode(limits->tokenizer, text, strlen(text), &o, &ids, &err);
    if (s != STATUS_OK)
        read_fail(r, STATUS_INVALID, "logit_bias", "logit_bias: %s", err.text);
    for (size_t i = 0; i < ids.n_ids && r->status == STATUS_OK; i++)
        add_bias(r, l, ids.ids[i], limits->n_vocab, bias);
    token_list_fini(&ids);
}

static void bias_pair(struct reader *r, struct bias_list *l, const struct parse_limits *limits,
                      const json_t *pair)
{
    char text[96];
    float bias;
    const json_t *what = json_array_get(pair, 0);
    if (json_array_size(pair) != 2 || (!json_is_integer(what) && !json_is_string(what))) {
        read_fail(r, STATUS_INVALID, "logit_bias", "logit_bias: found %s, expected [token id or text, bias]",
                  describe_json(pair, text, sizeof text));
        return;
    }
    if (!read_bias(r, json_array_get(pair, 1), &bias))
        return;
    if (json_is_string(what))
        add_bias_text(r, l, limits, json_string_value(what), bias);
    else
        add_bias(r, l, json_integer_value(what), limits->n_vocab, bias);
}

static void bias_entry(struct reader *r, struct bias_list *l, uint32_t n_vocab, const char *key,
                       const json_t *value)
{
    float bias;
    size_t n = strlen(key);
    if (n == 0 || n > 9 || strspn(key, "0123456789") != n)
        read_fail(r, STATUS_INVALID, "logit_bias", "logit_bias: found the key \"%.40s\", expected a token id",
                  key);
    else if (read_bias(r, value, &bias))
        add_bias(r, l, strtol(key, NULL, 10), n_vocab, bias);
}

static void read_logit_bias(struct reader *r, const struct parse_limits *limits, struct arena *arena,
                            struct sampling *s)
{
    json_t *v = r->status == STATUS_OK ? json_object_get(r->object, "logit_bias") : NULL;
    if (!v || json_is_null(v))
        return;
    struct bias_list l = {.items = arena_array(arena, LOGIT_BIAS_MAX, sizeof *l.items)};
    char text[96];
    if (!l.items) {
        read_fail(r, STATUS_NO_MEMORY, NULL, "no memory for the request");
    } else if (json_is_object(v)) {
        const char *key;
        json_t *value;
        json_object_foreach(v, key, value) bias_entry(r, &l, limits->n_vocab, key, value);
    } else if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v); i++)
            bias_pair(r, &l, limits, json_array_get(v, i));
    } else {
        read_fail(r, STATUS_INVALID, "logit_bias", "logit_bias: found %s, expected an object or an array",
                  describe_json(v, text, sizeof text));
    }
    s->logit_bias = l.items;
    s->n_logit_bias = l.n;
}

/* ---- what would change the output and isn't done */

static bool is_text(const json_t *v, const char *text)
{
    return json_is_string(v) && strcmp(json_string_value(v), text) == 0;
}

static void refuse_unsupported(struct reader *r, enum api api)
{
    static const char *const keys[] = {"guided_whitespace_pattern",
                                       "audio",
                                       "use_beam_search",
                                       "chat_template",
                                       "truncate_prompt_tokens",
                                       "logits_processors",
                                       "prompt_embeds",
                                       "post_sampling_probs",
                                       "n_indent",
                                       "image_data",
                                       "multimodal_data",
                                       "logprob_token_ids",
                                       "repetition_detection",
                                       "stop_regex",
                                       "custom_logit_processor"};
    /* numbers that say nothing below zero */
    static const char *const limits[] = {"adaptive_target", "thinking_token_budget", "thinking_budget_tokens",
                                         "reasoning_budget_tokens", "reasoning_budget"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (json_is_set(json_object_get(r->object, keys[i])))
            read_fail(r, STATUS_UNSUPPORTED, keys[i], "%s is not supported yet; leave it out", keys[i]);
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        const json_t *v = json_object_get(r->object, limits[i]);
        if (v && !json_is_null(v) && !(json_is_number(v) && json_number_value(v) < 0))
            read_fail(r, STATUS_UNSUPPORTED, limits[i], "%s is not supported; leave it out", limits[i]);
    }
    if (api == API_CHAT && json_is_set(json_object_get(r->object, "suffix")))
        read_fail(r, STATUS_UNSUPPORTED, "suffix", "suffix: chats have none; use /v1/completions");
    const json_t *modalities = json_object_get(r->object, "modalities");
    if (json_is_set(modalities) &&
        (json_array_size(modalities) != 1 || !is_text(json_array_get(modalities, 0), "text")))
        read_fail(r, STATUS_UNSUPPORTED, "modalities", "modalities: only [\"text\"] is supported");
}

/* ---- all */

static void read_logprobs(struct reader *r, enum api api, struct gen_params *p)
{
    bool wanted = false;
    int64_t n;
    const json_t *v = json_object_get(r->object, "logprobs");
    p->n_logprobs = p->n_prompt_logprobs = -1;
    if (read_int(r, "prompt_logprobs", 0, LOGPROBS_MAX, &n))
        p->n_prompt_logprobs = (int32_t)n;
    if (read_int(r, "n_probs", 0, LOGPROBS_MAX, &n) && n > 0) /* llama-server's name in both of its APIs */
        p->n_logprobs = (int32_t)n;
    if (api == API_COMPLETIONS && !json_is_boolean(v)) {
        if (read_int(r, "logprobs", 0, LOGPROBS_MAX, &n))
            p->n_logprobs = (int32_t)n;
        return;
    }
    read_bool(r, "logprobs", &wanted);
    if (wanted && p->n_logprobs < 0)
        p->n_logprobs = 0;
    if (read_int(r, "top_logprobs", 0, LOGPROBS_MAX, &n) && n > 0) {
        if (!wanted)
            read_fail(r, STATUS_INVALID, "top_logprobs", "top_logprobs needs logprobs: true");
        p->n_logprobs = (int32_t)n;
    }
}

/* What is known only when everything is there. */
static void refuse_in_streams(struct reader *r, const struct gen_params *p)
{
    if (p->stream && p->n_made > p->n)
        read_fail(r, STATUS_INVALID, "best_of",
                  "best_of: a stream can't show the best of several; leave one of the two out");
    if (p->stream && p->n_prompt_logprobs >= 0)
        read_fail(r, STATUS_INVALID, "prompt_logprobs", "prompt_logprobs: not with stream");
}

/* llama-server's and vLLM's words for the prefix cache. */
static void read_caching(struct reader *r, struct gen_params *p)
{
    bool caches = true;
    if (read_bool(r, "cache_prompt", &caches))
        p->cache_off = !caches;
    if (read_text(r, "cache_salt", &p->cache_salt) && !p->cache_salt[0])
        read_fail(r, STATUS_INVALID, "cache_salt",
                  "cache_salt: found \"\", expected a text that isn't empty");
}

static void read_count(struct reader *r, const struct parse_limits *limits, struct gen_params *p)
{
    int64_t n;
    if (read_int(r, "n", 1, limits->n_max, &n))
        p->n = (uint32_t)n;
    if (read_int(r, "n_cmpl", 1, limits->n_max,
                 &n)) /* llama-server's name, which there has the last word too */
        p->n = (uint32_t)n;
    p->n_made = p->n;
    if (read_int(r, "best_of", p->n, limits->n_max, &n)) /* not below n */
        p->n_made = (uint32_t)n;
    if (read_int(r, "seed", INT64_MIN, INT64_MAX, &n) && n != -1) {
        p->has_seed = true;
        p->sampling.seed = (uint64_t)n;
    }
    if (read_int(r, "priority", INT32_MIN, INT32_MAX, &n))
        p->priority = (int32_t)n;
    read_caching(r, p);
}

static void read_flags(struct reader *r, struct gen_params *p)
{
    const json_t *options = NULL;
    bool timings = false;
    read_bool(r, "stream", &p->stream);
    if (read_object(r, "stream_options", &options)) {
        struct reader o = {.object = options, .fault = r->fault};
        read_bool(&o, "include_usage", &p->include_usage);
        read_bool(&o, "continuous_usage_stats", &p->continuous_usage);
        r->status = o.status;
    }
    read_bool(r, "ignore_eos", &p->ignore_eos);
    read_bool(r, "include_stop_str_in_output", &p->include_stop);
    read_bool(r, "skip_special_tokens", &p->skip_special_tokens);
    read_bool(r, "return_token_ids", &p->return_token_ids);
    read_bool(r, "return_tokens_as_token_ids", &p->tokens_as_ids);
    read_bool(r, "timings_per_token", &p->timings);
    read_bool(r, "timings", &timings);
    p->timings |= timings;
    read_bool(r, "echo", &p->echo);
    read_bool(r, "add_special_tokens", &p->add_special);
}

enum status parse_gen_params(const json_t *body, enum api api, const struct parse_limits *limits,
                             struct arena *arena, struct gen_params *out, struct fault *f)
{
    struct reader r = {.object = body, .fault = f};
    *out = (struct gen_params){
        .sampling = {.temperature = 1,
                     .top_p = 1,
                     .typical_p = 1,
                     .repetition_penalty = 1,
                     .penalty_last_n = -1,
                     .xtc_threshold = 0.1F,
                     .dynatemp_exponent = 1,
                     .mirostat_tau = 5,
                     .mirostat_eta = 0.1F,
                     .dry_base = 1.75F,
                     .dry_allowed_length = 2,
                     .dry_last_n = -1},
        .n = 1,
        .max_tokens = api == API_CHAT ? UINT32_MAX : 16, /* OpenAI's defaults */
        .skip_special_tokens = true,
        .add_special = true,
    };
    refuse_unsupported(&r, api);
    read_sampling(&r, &out->sampling);
    read_max_tokens(&r, api, out);
    read_count(&r, limits, out);
    read_flags(&r, out);
    read_stop(&r, arena, limits->n_vocab, out);
    read_logit_bias(&r, limits, arena, &out->sampling);
    read_word_params(&r, limits, arena, &out->sampling);
    read_logprobs(&r, api, out);
    const struct grammar_scope scope = {limits->grammars, limits->tokenizer, limits->n_vocab, limits->caller};
    read_grammar(&r, &scope, arena, &out->grammar);
    refuse_in_streams(&r, out);
    return r.status;
}
