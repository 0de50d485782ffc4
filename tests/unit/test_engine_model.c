/* The engine on real tiny models: all golden cases of a family, base and adapters, as one mixed crowd against
 * PEFT's greedy tokens and log-probabilities; and that crowd against itself, to the bit, for any number of
 * threads, any chunks, and a KV cache so small that sequences are paused. Run under ThreadSanitizer too. */
#include "tests/test.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "adapters.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine.h"
#include "format.h"

#define DATA "tests/golden/data/"
#define N_ADAPTERS_MAX 16U
#define N_CASES_MAX 64U
#define N_TOKENS_MAX 128U
#define N_TOP LOGPROBS_MAX

struct golden_case {
    char what[80];
    int32_t prompt[256];
    uint32_t n_prompt;
    struct lora *lora;
    const json_t *golden; /* borrowed from the family's json */
};

struct family {
    json_t *json;
    struct model *model;
    struct text_model text;
    struct adapter_version *adapters[N_ADAPTERS_MAX];
    uint32_t n_adapters, n_cases;
    struct golden_case cases[N_CASES_MAX];
};

static void expect_ok(enum status s, const struct error *err)
{
    if (s != STATUS_OK)
        fail_msg("%s", err->text);
}

static void open_model(struct family *f, const char *dir)
{
    struct model_files *files;
    struct model_options o = {0};
    struct error err;
    char path[300];
    struct buf json;
    expect_ok(model_files_open(dir, &files, &err), &err);
    expect_ok(kernels_select("auto", ACT_MODE_INT8, &o.kernels, &err), &err);
    o.team = team_create(1);
    expect_ok(model_open(files, &o, &f->model, &err), &err);
    team_destroy(o.team);
    model_files_close(files);
    buf_init(&json, 0);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    expect_ok(file_read_all(path, 1U << 24, &json, &err), &err);
    f->text = (struct text_model){.bos_token = -1, .eos_token = -1};
    expect_ok(tokenizer_from_json(json.data, json.length, path, &f->text.tokenizer, &err), &err);
    buf_fini(&json);
}

static struct lora *open_adapter(struct family *f, const char *name)
{
    char path[300];
    struct error err;
    if (!name)
        return NULL;
    assert_true(f->n_adapters < N_ADAPTERS_MAX);
    snprintf(path, sizeof path, DATA "%s", name);
    const struct adapter_source source = {.name = "tested", .path = path, .root_fd = -1, .scale = 1};
    expect_ok(adapter_load(&source, f->model, &f->adapters[f->n_adapters], &err), &err);
    return f->adapters[f->n_adapters++]->lora;
}

static void add_case(struct family *f, const char *adapter, struct lora *lora, const char *name,
                     const json_t *golden)
{
    const json_t *prompt = json_object_get(golden, "prompt");
    assert_true(f->n_cases < N_CASES_MAX && json_array_size(prompt) <= 256);
    struct golden_case *c = &f->cases[f->n_cases++];
    *c = (struct golden_case){.n_prompt = (uint32_t)json_array_size(prompt), .lora = lora, .golden = golden};
    for (uint32_t i = 0; i < c->n_prompt; i++)
        c->prompt[i] = (int32_t)json_integer_value(json_array_get(prompt, i));
    snprintf(c->what, sizeof c->what, "%s %s", adapter ? adapter : "base", name);
}

static struct family *open_family(const char *name)
{
    struct family *f = mem_zalloc(sizeof *f);
    char path[200];
    snprintf(path, sizeof path, DATA "models/%s/f32", name);
    open_model(f, path);
    snprintf(path, sizeof path, DATA "goldens/%s.json", name);
    f->json = json_load_file(path, 0, NULL);
    assert_non_null(f->json);
    size_t i;
    json_t *entry, *golden;
    const char *prompt;
    json_array_foreach(json_object_get(f->json, "entries"), i, entry)
    {
        const char *model = json_string_value(json_object_get(entry, "model"));
        if (!model || !strstr(model, "/f32") || json_object_get(entry, "skipped"))
            continue;
        const char *adapter = json_string_value(json_object_get(entry, "adapter"));
        struct lora *lora = open_adapter(f, adapter);
        json_object_foreach(json_object_get(entry, "cases"), prompt, golden)
            add_case(f, adapter, lora, prompt, golden);
    }
    assert_true(f->n_cases >= 8 && f->n_adapters >= 2);
    return f;
}

static void close_family(struct family *f)
{
    for (uint32_t i = 0; i < f->n_adapters; i++) {
        assert_int_equal(f->adapters[i]->lora->refs, 1); /* the engine has let go of all */
        adapter_release(f->adapters[i]);
    }
    tokenizer_destroy(f->text.tokenizer);
    model_close(f->model);
    json_decref(f->json);
    mem_free(f);
}

/* ---- running ---- */

struct outcome {
    uint64_t id;
    int32_t tokens[N_TOKENS_MAX];
    float logprobs[N_TOKENS_MAX], prompt_logprobs[256];
    struct token_logprob top[N_TOKENS_MAX][N_TOP];
    uint32_t n_tokens, n_prompt_logprobs;
    struct buf text;
    bool over;
};

static struct generation generation_of(const struct golden_case *c, uint32_t max_tokens)
{
    return (struct generation){.prompt = c->prompt,
                               .n_prompt = c->n_prompt,
                               .lora = c->lora,
                               .sampling = {.top_p = 1, .repetition_penalty = 1, .penalty_last_n = -1},
                               .max_tokens = max_tokens,
                               .ignore_eos = true,
                               .n_logprobs = N_TOP,
                               .n_prompt_logprobs = 0};
}

static void note(struct outcome *r, const struct event *v)
{
    if (v->kind == EVENT_FAILED)
        fail_msg("%s", v->error.text);
    if (v->kind == EVENT_PROMPT)
        r->prompt_logprobs[r->n_prompt_logprobs++] = v->logprob;
    if (v->kind == EVENT_TOKEN) {
        assert_true(r->n_tokens < N_TOKENS_MAX && v->n_top == N_TOP);
        r->tokens[r->n_tokens] = v->token;
        r->logprobs[r->n_tokens] = v->logprob;
        memcpy(r->top[r->n_tokens++], v->top, N_TOP * sizeof v->top[0]);
    }
    buf_append(&r->text, v->text, v->n_text);
    r->over |= v->kind == EVENT_DONE;
}

static void gather(struct engine *e, struct outcome *r, uint32_t n)
{
    struct event v;
    for (uint32_t n_over = 0; n_over < n;) {
        assert_true(engine_wait(e, &v, 120 * NS_PER_S));
        uint32_t i = 0;
        while (r[i].id != v.id)
            i++;
        note(&r[i], &v);
        n_over += r[i].over;
    }
}

static struct engine *engine_with(const struct family *f, const struct engine_options *o)
{
    struct engine *e;
    struct error err;
    expect_ok(engine_create(f->model, &f->text, o, NULL, NULL, &e, &err), &err);
    return e;
}

static void submit(struct engine *e, const struct generation *g, struct outcome *r)
{
    struct error err;
    expect_ok(engine_submit(e, g, &r->id, &err), &err);
}

static void outcomes_free(struct outcome *r, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        buf_fini(&r[i].text);
    mem_free(r);
}

/* ---- against PEFT ---- */

/* The golden logit of a token, NAN if it isn't among those listed. */
static double golden_logit(const json_t *last, int32_t token)
{
    const json_t *ids = json_object_get(last, "top_ids"), *values = json_object_get(last, "top_logits");
    for (size_t i = 0; i < json_array_size(ids); i++)
        if (json_integer_value(json_array_get(ids, i)) == token)
            return json_number_value(json_array_get(values, i));
    return NAN;
}

/* logit - logprob is the logarithm of the softmax' sum, the same for all alternatives, and it lies between
 * what the listed logits sum to and what they would if all others equalled the last of them. */
static void check_sum(const struct golden_case *c, const json_t *last, uint32_t n_vocab, double log_sum)
{
    const json_t *values = json_object_get(last, "top_logits");
    size_t n = json_array_size(values);
    double sum = 0, least = json_number_value(json_array_get(values, n - 1));
    for (size_t i = 0; i < n; i++)
        sum += exp(json_number_value(json_array_get(values, i)));
    if (log_sum < log(sum) - 1e-3 || log_sum > log(sum + (double)(n_vocab - n) * exp(least)) + 1e-3)
        fail_msg("%s: the softmax' sum is e^%g, the listed logits make e^%g", c->what, log_sum, log(sum));
}

/* The alternatives of the first generated token: golden order and differences; never rising; the chosen one's
 * number is its own entry's. */
static void check_top(const struct golden_case *c, const struct outcome *r, uint32_t n_vocab)
{
    const json_t *last = json_object_get(c->golden, "last");
    const struct token_logprob *top = r->top[0];
    double before = INFINITY, log_sum = golden_logit(last, top[0].token) - (double)top[0].logprob;
    for (uint32_t k = 0; k < N_TOP; k++) {
        double logit = golden_logit(last, top[k].token);
        if (!(logit <= before + 2e-3) || fabs(logit - (double)top[k].logprob - log_sum) > 2e-3)
            fail_msg("%s: alternative %u is token %d at %g, its logit %g", c->what, k, top[k].token,
                     (double)top[k].logprob, logit);
        assert_true(k == 0 || top[k].logprob <= top[k - 1].logprob);
        before = logit;
    }
    check_sum(c, last, n_vocab, log_sum);
    for (uint32_t i = 0; i < r->n_tokens; i++) /* greedy: always the first */
        assert_true(r->tokens[i] == r->top[i][0].token && r->logprobs[i] == r->top[i][0].logprob);
}

static void check_golden(const struct golden_case *c, const struct outcome *r)
{
    const json_t *greedy = json_object_get(c->golden, "greedy");
    const json_t *logprobs = json_object_get(c->golden, "prompt_logprobs");
    uint32_t n_safe = (uint32_t)json_integer_value(json_object_get(c->golden, "greedy_safe_len"));
    assert_int_equal(r->n_tokens, json_array_size(greedy));
    for (uint32_t i = 0; i < n_safe && i < r->n_tokens; i++)
        if (r->tokens[i] != json_integer_value(json_array_get(greedy, i)))
            fail_msg("%s: token %u is %d, expected %d", c->what, i, r->tokens[i],
                     (int)json_integer_value(json_array_get(greedy, i)));
    assert_int_equal(r->n_prompt_logprobs, c->n_prompt);
    for (uint32_t i = 1; i < c->n_prompt; i++) {
        double expected = json_number_value(json_array_get(logprobs, i - 1));
        if (fabs(expected - (double)r->prompt_logprobs[i]) > 1e-3)
            fail_msg("%s: log-probability of prompt token %u is %g, expected %g", c->what, i,
                     (double)r->prompt_logprobs[i], expected);
    }
}

static void check_family(const char *name)
{
    struct family *f = open_family(name);
    struct engine *e = engine_with(f, &(struct engine_options){.n_threads = 2, .context = 256});
    struct outcome *r = mem_array(f->n_cases, sizeof *r);
    for (uint32_t i = 0; i < f->n_cases; i++) {
        const json_t *greedy = json_object_get(f->cases[i].golden, "greedy");
        struct generation g = generation_of(&f->cases[i], (uint32_t)json_array_size(greedy));
        submit(e, &g, &r[i]);
    }
    gather(e, r, f->n_cases);
    for (uint32_t i = 0; i < f->n_cases; i++) {
        check_golden(&f->cases[i], &r[i]);
        check_top(&f->cases[i], &r[i], model_config(f->model)->vocab_size);
    }
    struct engine_stats s;
    engine_stats(e, &s);
    assert_int_equal(s.step_allocations, 0);
    engine_destroy(e);
    outcomes_free(r, f->n_cases);
    close_family(f);
}

static void llama_speaks_as_peft_in_one_crowd(void **state)
{
    (void)state;
    check_family("llama");
}

static void qwen2_speaks_as_peft_in_one_crowd(void **state)
{
    (void)state;
    check_family("qwen2");
}

static void qwen3_speaks_as_peft_in_one_crowd(void **state)
{
    (void)state;
    check_family("qwen3");
}

static void gemma3_speaks_as_peft_in_one_crowd(void **state)
{
    (void)state;
    check_family("gemma3");
}

/* ---- against itself ---- */

static struct generation sampled(const struct family *f, uint32_t i)
{
    struct generation g = generation_of(&f->cases[i], 40 + i * 11 % 80);
    g.sampling.temperature = i % 3 ? 0.3F * (float)(i % 4 + 1) : 0;
    g.sampling.seed = i;
    g.sampling.top_p = i % 4 == 1 ? 0.8F : 1;
    g.sampling.top_k = i % 4 == 2 ? 12 : 0;
    g.sampling.repetition_penalty = i % 5 == 3 ? 1.2F : 1;
    return g;
}

static void check_crowd(const struct family *f, struct outcome *alone, const struct engine_options *o,
                        bool pauses)
{
    struct engine *e = engine_with(f, o);
    struct outcome *r = mem_array(f->n_cases, sizeof *r);
    for (uint32_t i = 0; i < f->n_cases; i++) {
        struct generation g = sampled(f, i);
        submit(e, &g, &r[i]);
    }
    gather(e, r, f->n_cases);
    for (uint32_t i = 0; i < f->n_cases; i++) {
        assert_int_equal(r[i].n_tokens, alone[i].n_tokens);
        assert_memory_equal(r[i].tokens, alone[i].tokens, sizeof r[i].tokens);
        assert_memory_equal(r[i].logprobs, alone[i].logprobs, sizeof r[i].logprobs);
        assert_memory_equal(r[i].prompt_logprobs, alone[i].prompt_logprobs, sizeof r[i].prompt_logprobs);
        assert_memory_equal(r[i].top, alone[i].top, sizeof r[i].top);
        assert_int_equal(r[i].text.length, alone[i].text.length);
        if (r[i].text.length)
            assert_memory_equal(r[i].text.data, alone[i].text.data, r[i].text.length);
    }
    struct engine_stats s;
    engine_stats(e, &s);
    assert_true(!pauses || s.n_preemptions > 0);
    engine_destroy(e);
    outcomes_free(r, f->n_cases);
}

static void alone_equals_crowd_to_the_bit(void **state)
{
    (void)state;
    struct family *f = open_family("llama");
    struct kv_shape shape = model_kv_shape(f->model, model_kv_type(f->model, "auto"));
    uint64_t page = kv_page_bytes(&shape);
    struct outcome *alone = mem_array(f->n_cases, sizeof *alone);
    struct engine *e =
        engine_with(f, &(struct engine_options){.n_threads = 1, .n_sequences = 1, .context = 256});
    for (uint32_t i = 0; i < f->n_cases; i++) {
        struct generation g = sampled(f, i);
        submit(e, &g, &alone[i]);
        gather(e, &alone[i], 1);
    }
    engine_destroy(e);
    const struct engine_options ways[] = {
        {.n_threads = 1, .context = 256, .chunk_tokens = 7},
        {.n_threads = 2, .context = 256, .step_tokens = 512, .chunk_tokens = 512},
        {.n_threads = 2, .context = 256, .chunk_tokens = 1, .n_sequences = 6},
        {.n_threads = 2, .context = 256, .kv_bytes = 9 * page},
        {.n_threads = 1, .context = 256, .kv_bytes = 14 * page, .chunk_tokens = 7},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        check_crowd(f, alone, &ways[i], ways[i].kv_bytes > 0);
    outcomes_free(alone, f->n_cases);
    close_family(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_speaks_as_peft_in_one_crowd),
        cmocka_unit_test(qwen2_speaks_as_peft_in_one_crowd),
        cmocka_unit_test(qwen3_speaks_as_peft_in_one_crowd),
        cmocka_unit_test(gemma3_speaks_as_peft_in_one_crowd),
        cmocka_unit_test(alone_equals_crowd_to_the_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
