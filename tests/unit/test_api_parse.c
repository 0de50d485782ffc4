/* Fields of requests: bounds to the last unit, aliases, and a message that names field, found and expected.
 */
#include "../test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api_parse.h"
#include "http_policy.h"
#include "voice_params.h"

static const struct parse_limits limits = {.n_max = 4, .n_vocab = 100};

struct parsed {
    struct arena *arena;
    json_t *body;
    struct voice_words w;
    struct gen_params p;
    struct fault f;
    enum status status;
};

static struct parsed parse(enum api api, const char *text)
{
    struct parsed r = {.arena = arena_create(0)};
    r.status = parse_body(text, strlen(text), &r.body, &r.f);
    if (r.status == STATUS_OK) {
        struct reader reader = {.object = r.body, .fault = &r.f};
        read_voice_words(&reader, r.arena, &r.w);
        r.status = reader.status;
    }
    if (r.status == STATUS_OK)
        r.status = parse_gen_params(r.body, api, &limits, r.arena, &r.p, &r.f);
    return r;
}

static void done(struct parsed *r)
{
    json_decref(r->body);
    arena_destroy(r->arena);
}

static void defaults(void **state)
{
    (void)state;
    struct parsed r = parse(API_CHAT, "{}");
    assert_int_equal(r.status, STATUS_OK);
    assert_true(r.p.sampling.temperature == 1 && r.p.sampling.top_p == 1 &&
                r.p.sampling.repetition_penalty == 1);
    assert_true(r.p.max_tokens == UINT32_MAX && r.p.n == 1 && r.p.n_logprobs == -1 &&
                r.p.skip_special_tokens);
    assert_false(r.p.stream || r.p.has_seed || r.p.ignore_eos || r.p.echo);
    done(&r);
    r = parse(API_COMPLETIONS,
              "{\"temperature\":null,\"stop\":null,\"logprobs\":null,\"unknown\":{\"a\":[1]}}");
    assert_int_equal(r.status, STATUS_OK);
    assert_int_equal(r.p.max_tokens, 16);
    done(&r);
}

static void everything(void **state)
{
    (void)state;
    struct parsed r = parse(
        API_COMPLETIONS,
        "{\"model\":\"pt\",\"temperature\":0.5,\"top_p\":0,\"top_k\":40.0,\"min_p\":0.1,\"repeat_penalty\":1."
        "2,"
        "\"repeat_last_n\":64,\"presence_penalty\":-2,\"frequency_penalty\":2,\"seed\":7,\"max_tokens\":9,"
        "\"min_tokens\":3,\"n\":4,\"best_of\":4,\"stop\":[\"a\",\"bc\"],\"stop_token_ids\":[0,99],"
        "\"logprobs\":5,"
        "\"logit_bias\":{\"3\":-100,\"99\":1.5},\"stream\":true,\"stream_options\":{\"include_usage\":true},"
        "\"ignore_eos\":true,\"include_stop_str_in_output\":true,\"skip_special_tokens\":false,\"echo\":true,"
        "\"return_token_ids\":true,\"priority\":-3,\"timings_per_token\":true,\"user\":\"u\",\"tools\":[],"
        "\"response_format\":{\"type\":\"text\"},\"typical_p\":0.9,\"min_keep\":2,\"store\":true,"
        "\"metadata\":{}}");
    if (r.status != STATUS_OK)
        fail_msg("%s", r.f.error.text);
    const struct sampling *s = &r.p.sampling;
    assert_string_equal(r.w.model, "pt");
    assert_true(s->temperature == 0.5F && s->top_p > 0 && s->top_p < 1e-6F && s->top_k == 40 &&
                s->min_p == 0.1F);
    assert_true(s->repetition_penalty == 1.2F && s->penalty_last_n == 64);
    assert_true(s->typical_p == 0.9F && s->min_keep == 2 && !s->order.is_set);
    assert_true(s->presence_penalty == -2 && s->frequency_penalty == 2 && r.p.has_seed && s->seed == 7);
    assert_true(r.p.max_tokens == 9 && r.p.min_tokens == 3 && r.p.n == 4 && r.p.n_logprobs == 5 &&
                r.p.priority == -3);
    assert_true(r.p.n_stop == 2 && strcmp(r.p.stop[1], "bc") == 0);
    assert_true(r.p.n_stop_tokens == 2 && r.p.stop_tokens[1] == 99);
    assert_true(s->n_logit_bias == 2 && s->logit_bias[0].bias + s->logit_bias[1].bias == -98.5F);
    assert_true(r.p.stream && r.p.include_usage && r.p.ignore_eos && r.p.include_stop && r.p.echo &&
                r.p.timings);
    assert_true(r.p.return_token_ids && !r.p.skip_special_tokens);
    done(&r);
}

static void check_order(const char *body, uint32_t n, const uint8_t *kinds)
{
    struct parsed r = parse(API_COMPLETIONS, body);
    if (r.status != STATUS_OK)
        fail_msg("%s: %s", body, r.f.error.text);
    assert_true(r.p.sampling.order.is_set && r.p.sampling.order.n == n);
    assert_memory_equal(r.p.sampling.order.kinds, kinds, n);
    done(&r);
}

static void sampler_orders(void **state)
{
    (void)state;
    const uint8_t llama[] = {SAMPLER_PENALTIES, SAMPLER_DRY,   SAMPLER_TOP_N_SIGMA,
                             SAMPLER_TOP_K,     SAMPLER_TYP_P, SAMPLER_TOP_P,
                             SAMPLER_MIN_P,     SAMPLER_XTC,   SAMPLER_TEMPERATURE};
    check_order(
        "{\"samplers\":[\"penalties\",\"dry\",\"top_n_sigma\",\"top_k\",\"typ_p\",\"top_p\",\"min_p\","
        "\"xtc\",\"temperature\"]}",
        9, llama);
    check_order("{\"samplers\":\"edskypmxt\"}", 9, llama); /* the same in llama-server's short form */
    check_order("{\"samplers\":[\"temp\",\"min-p\",\"typical_p\"]}", 3,
                (const uint8_t[]){SAMPLER_TEMPERATURE, SAMPLER_MIN_P, SAMPLER_TYP_P});
    check_order("{\"samplers\":[]}", 0, llama);
    check_order("{\"samplers\":\"\"}", 0, llama);
    struct parsed r =
        parse(API_CHAT, "{\"samplers\":null,\"penalty_last_n\":3,\"typical_p\":0,\"n_probs\":4}");
    assert_int_equal(r.status, STATUS_OK);
    assert_true(!r.p.sampling.order.is_set && r.p.sampling.penalty_last_n == 3 && r.p.n_logprobs == 4);
    assert_true(r.p.sampling.typical_p > 0 && r.p.sampling.typical_p < 1e-6F); /* 0 isn't off */
    done(&r);
}

static void aliases(void **state)
{
    (void)state;
    struct parsed r =
        parse(API_CHAT, "{\"max_tokens\":5,\"max_completion_tokens\":6,\"seed\":-1,\"stop\":\"x\","
                        "\"logprobs\":true,\"top_logprobs\":20,\"repetition_penalty\":1.5,"
                        "\"logit_bias\":[[5,false],[6,2]],\"tools\":[{}],\"tool_choice\":\"none\"}");
    if (r.status != STATUS_OK)
        fail_msg("%s", r.f.error.text);
    assert_true(r.p.max_tokens == 6 && !r.p.has_seed && r.p.n_stop == 1 && r.p.n_logprobs == 20);
    assert_true(isinf(r.p.sampling.logit_bias[0].bias) && r.p.sampling.logit_bias[0].bias < 0);
    assert_true(r.p.sampling.repetition_penalty == 1.5F && r.p.sampling.logit_bias[1].token == 6);
    done(&r);
    r = parse(API_CHAT, "{\"n_predict\":-1,\"logprobs\":true}");
    assert_true(r.status == STATUS_OK && r.p.max_tokens == UINT32_MAX && r.p.n_logprobs == 0);
    done(&r);
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        enum api api;
        const char *body, *param, *says;
    } cases[] = {
        {API_CHAT, "{\"temperature\":\"hot\"}", "temperature", "found the string \"hot\", expected a number"},
        {API_CHAT, "{\"temperature\":-0.001}", "temperature", "expected a number from 0"},
        {API_CHAT, "{\"top_p\":1.0001}", "top_p", "from 0 to 1"},
        {API_CHAT, "{\"min_p\":true}", "min_p", "found true"},
        {API_CHAT, "{\"presence_penalty\":2.1}", "presence_penalty", "from -2 to 2"},
        {API_CHAT, "{\"repetition_penalty\":0}", "repetition_penalty", "0.01"},
        {API_CHAT, "{\"top_k\":1.5}", "top_k", "whole number"},
        {API_CHAT, "{\"top_k\":-2}", "top_k", "from -1"},
        {API_CHAT, "{\"max_tokens\":0}", "max_tokens", "at least 1"},
        {API_CHAT, "{\"max_tokens\":4294967296}", "max_tokens", "found the number 4294967296"},
        {API_CHAT, "{\"max_tokens\":3,\"min_tokens\":4}", "min_tokens", "at most max_tokens"},
        {API_CHAT, "{\"n\":5}", "n", "from 1 to 4"},
        {API_CHAT, "{\"n\":0}", "n", "from 1 to 4"},
        {API_COMPLETIONS, "{\"n\":3,\"best_of\":2}", "best_of", "from 3 to 4"},
        {API_COMPLETIONS, "{\"best_of\":5}", "best_of", "from 1 to 4"},
        {API_COMPLETIONS, "{\"best_of\":2,\"stream\":true}", "best_of", "stream"},
        {API_COMPLETIONS, "{\"prompt_logprobs\":1,\"stream\":true}", "prompt_logprobs", "stream"},
        {API_CHAT, "{\"prompt_logprobs\":21}", "prompt_logprobs", "from 0 to 20"},
        {API_COMPLETIONS, "{\"logprobs\":21}", "logprobs", "from 0 to 20"},
        {API_CHAT, "{\"logprobs\":3}", "logprobs", "true or false"},
        {API_CHAT, "{\"top_logprobs\":3}", "top_logprobs", "needs logprobs"},
        {API_CHAT, "{\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs", "from 0 to 20"},
        {API_CHAT, "{\"stop\":\"\"}", "stop", "1 to 256 bytes"},
        {API_CHAT, "{\"stop\":[\"a\",3]}", "stop", "found the number 3"},
        {API_CHAT, "{\"stop\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}", "stop", "found 17 strings"},
        {API_CHAT, "{\"stop_token_ids\":[100]}", "stop_token_ids", "stop_token_ids[0]: found the number 100"},
        {API_CHAT, "{\"stop_token_ids\":[-1]}", "stop_token_ids", "from 0 to 99"},
        {API_CHAT, "{\"stop_token_ids\":5}", "stop_token_ids", "expected an array"},
        {API_CHAT, "{\"logit_bias\":{\"100\":1}}", "logit_bias", "token id 100"},
        {API_CHAT, "{\"logit_bias\":{\"-1\":1}}", "logit_bias", "the key \"-1\""},
        {API_CHAT, "{\"logit_bias\":{\"1\":\"x\"}}", "logit_bias", "found the string"},
        {API_CHAT, "{\"logit_bias\":[[1]]}", "logit_bias", "expected [token id or text, bias]"},
        {API_CHAT, "{\"logit_bias\":[[\"text\",1]]}", "logit_bias", "expected token ids"},
        {API_CHAT, "{\"logit_bias\":3}", "logit_bias", "an object or an array"},
        {API_CHAT, "{\"stream\":\"yes\"}", "stream", "true or false"},
        {API_CHAT, "{\"stream_options\":[]}", "stream_options", "expected an object"},
        {API_CHAT, "{\"stream_options\":{\"include_usage\":1}}", "include_usage", "true or false"},
        {API_CHAT, "{\"model\":7}", "model", "expected a string"},
        {API_CHAT, "{\"adapters\":\"pt\"}", "adapters", "expected an array"},
        {API_CHAT, "{\"adapters\":[7]}", "adapters", "adapters[0]: found the number 7, expected an object"},
        {API_CHAT, "{\"adapters\":[{\"name\":\"a\"},{}]}", "adapters", "adapters[1]: name: missing"},
        {API_CHAT, "{\"adapters\":[{\"name\":\"\"}]}", "adapters", "name: missing"},
        {API_CHAT, "{\"adapters\":[{\"name\":null}]}", "adapters", "name: missing"},
        {API_CHAT, "{\"adapters\":[{\"name\":\"a\",\"scale\":100.5}]}", "adapters",
         "adapters[0]: scale: found the number 100.5, expected a number from -100 to 100"},
        {API_CHAT, "{\"adapters\":[{\"name\":\"a\",\"weight\":1}]}", "adapters", "the field \"weight\""},
        {API_CHAT, "{\"lora\":{}}", "lora", "expected an array"},
        {API_CHAT, "{\"lora\":[{\"id\":0}]}", "lora", "lora[0]: scale: missing"},
        {API_CHAT, "{\"lora\":[{\"scale\":1}]}", "lora", "lora[0]: id: missing"},
        {API_CHAT, "{\"lora\":[{\"id\":0.5,\"scale\":1}]}", "lora", "whole number"},
        {API_CHAT, "{\"lora\":[{\"id\":1,\"scale\":1},{\"id\":1,\"scale\":0}]}", "lora",
         "the id 1 is given twice"},
        {API_CHAT, "{\"lora\":[{\"id\":0,\"scale\":1,\"path\":\"/x\"}]}", "lora", "the field \"path\""},
        {API_CHAT, "{\"lora_path\":\"pt\"}", "lora_path", "leave lora_path out"},
        {API_CHAT, "{\"adapter_id\":\"pt\"}", "adapter_id", "named by model"},
        {API_CHAT, "{\"response_format\":{\"type\":\"yaml\"}}", "response_format.type", "json_object"},
        {API_CHAT, "{\"grammar\":\"root ::= x\"}", "grammar", "not supported"},
        {API_CHAT, "{\"guided_choice\":\"a\"}", "guided_choice", "array of strings"},
        {API_CHAT, "{\"suffix\":\"x\"}", "suffix", "chats have none"},
        {API_CHAT, "{\"typical_p\":1.5}", "typical_p", "from 0 to 1"},
        {API_CHAT, "{\"min_keep\":-1}", "min_keep", "whole number from 0"},
        {API_CHAT, "{\"dry_multiplier\":-0.1}", "dry_multiplier", "from 0 to"},
        {API_CHAT, "{\"dry_sequence_breakers\":[\"\"]}", "dry_sequence_breakers", "a string of 1 to"},
        {API_CHAT, "{\"dry_sequence_breakers\":[3]}", "dry_sequence_breakers", "found the number 3"},
        {API_CHAT, "{\"mirostat\":3}", "mirostat", "from 0 to 2"},
        {API_CHAT, "{\"xtc_probability\":2}", "xtc_probability", "from 0 to 1"},
        {API_CHAT, "{\"allowed_token_ids\":[]}", "allowed_token_ids", "found 0, expected 1 to"},
        {API_CHAT, "{\"allowed_token_ids\":[-1]}", "allowed_token_ids", "-1"},
        {API_CHAT, "{\"bad_words\":[\"x\"]}", "bad_words", "no tokenizer"},
        {API_CHAT, "{\"bad_words\":\"x\"}", "bad_words", "expected an array"},
        {API_CHAT, "{\"post_sampling_probs\":true}", "post_sampling_probs", "not supported"},
        {API_CHAT, "{\"n_probs\":21}", "n_probs", "from 0 to 20"},
        {API_CHAT, "{\"samplers\":7}", "samplers",
         "found the number 7, expected an array of names or a string"},
        {API_CHAT, "{\"samplers\":[\"top_k\",\"best\"]}", "samplers",
         "samplers[1]: found the string \"best\", expected one of penalties (e), temperature (t), top_k (k)"},
        {API_CHAT, "{\"samplers\":[3]}", "samplers", "samplers[0]: found the number 3"},
        {API_CHAT, "{\"samplers\":[\"top_p\",\"min_p\",\"nucleus\"]}", "samplers",
         "found top_p twice, expected each of these at most once: penalties (e)"},
        {API_CHAT, "{\"samplers\":\"kz\"}", "samplers", "samplers[1]: found the string \"kz\""},
        {API_CHAT, "{\"samplers\":\"kpk\"}", "samplers", "found top_k twice"},
        {API_CHAT, "{\"seed\":1e30}", "seed", "whole number"},
        {API_CHAT, "{\"temperature\":1e999}", "", "body"},
        {API_CHAT, "{\"n\":1,\"n\":2}", "", "body"},
        {API_CHAT, "{\"a\":\"\\u0000\"}", "", "body"},
        {API_CHAT, "", "", "the body is empty"},
        {API_CHAT, "7", "", "body"},
        {API_CHAT, "[1,2]", "", "the body is an array of 2"},
        {API_CHAT, "{\"a\":1", "", "body"},
        {API_CHAT, "{\"a\":\"\xff\"}", "", "body"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct parsed r = parse(cases[i].api, cases[i].body);
        if (r.status == STATUS_OK || http_status_of(r.status) != 400)
            fail_msg("%s: status %s", cases[i].body, status_name(r.status));
        if (strcmp(r.f.param, cases[i].param) != 0 || !strstr(r.f.error.text, cases[i].says))
            fail_msg("%s: param \"%s\", text \"%s\"", cases[i].body, r.f.param, r.f.error.text);
        done(&r);
    }
}

static void depth(void **state)
{
    (void)state;
    for (int levels = 60; levels <= 3000; levels += 2940) {
        char text[8192] = "{\"a\":";
        for (int i = 0; i < levels; i++)
            strcat(text, "[");
        for (int i = 0; i < levels; i++)
            strcat(text, "]");
        strcat(text, "}");
        struct parsed r = parse(API_CHAT, text);
        assert_int_equal(r.status == STATUS_OK, levels == 60);
        done(&r);
    }
}

static void voices_in_words(void **state)
{
    (void)state;
    struct parsed r =
        parse(API_CHAT, "{\"adapters\":[{\"name\":\"pt@3\"},{\"scale\":-0.5,\"name\":\"safety\"}],"
                        "\"lora\":[{\"id\":7,\"scale\":0},{\"scale\":1e-3,\"id\":0}],"
                        "\"user\":\"u\",\"safety_identifier\":\"s\"}");
    const struct voice_words *w = &r.w;
    assert_int_equal(r.status, STATUS_OK);
    assert_null(w->model);
    assert_true(w->has_adapters && w->n_adapters == 2 && w->has_lora && w->n_lora == 2);
    assert_string_equal(w->adapters[0].name, "pt@3");
    assert_true(w->adapters[0].scale == 1 && w->adapters[1].scale == -0.5);
    assert_true(w->lora[0].id == 7 && w->lora[0].scale == 0 && w->lora[1].id == 0 &&
                w->lora[1].scale == 1e-3);
    assert_string_equal(w->user, "s");
    done(&r);
    r = parse(API_CHAT,
              "{\"adapters\":[],\"lora\":null,\"user\":\"u\",\"safety_identifier\":7,\"lora_path\":null}");
    assert_int_equal(r.status, STATUS_OK);
    assert_true(r.w.has_adapters && r.w.n_adapters == 0 && !r.w.has_lora);
    assert_string_equal(r.w.user, "u");
    done(&r);
}

static void too_many_voices(void **state)
{
    (void)state;
    static char text[80000];
    for (unsigned n = LORA_FIELD_MAX; n <= LORA_FIELD_MAX + 1; n++) {
        strcpy(text, "{\"lora\":[");
        size_t at = strlen(text);
        for (unsigned i = 0; i < n; i++)
            at += (size_t)sprintf(text + at, "%s{\"id\":%u,\"scale\":0}", i ? "," : "", i);
        strcpy(text + at, "]}");
        struct parsed r = parse(API_CHAT, text);
        assert_int_equal(r.status, n > LORA_FIELD_MAX ? STATUS_INVALID : STATUS_OK);
        done(&r);
    }
}

static void request_ids(void **state)
{
    (void)state;
    char longest[140];
    memset(longest, 'a', sizeof longest);
    longest[128] = '\0';
    assert_true(policy_request_id_ok("abc-DEF_123") && policy_request_id_ok(longest));
    longest[128] = 'a';
    longest[129] = '\0';
    assert_false(policy_request_id_ok(longest) || policy_request_id_ok("") || policy_request_id_ok("a b") ||
                 policy_request_id_ok("a\nb") || policy_request_id_ok("\xc3\xa9"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),        cmocka_unit_test(everything),
        cmocka_unit_test(sampler_orders),  cmocka_unit_test(aliases),
        cmocka_unit_test(refusals),        cmocka_unit_test(depth),
        cmocka_unit_test(voices_in_words), cmocka_unit_test(too_many_voices),
        cmocka_unit_test(request_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
