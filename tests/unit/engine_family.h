/* The golden cases of a family on its tiny model, and generations of them through an engine. */
#ifndef LK_TESTS_ENGINE_FAMILY_H
#define LK_TESTS_ENGINE_FAMILY_H

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

struct golden_family {
    json_t *json;
    struct model *model;
    struct text_model text;
    struct adapter_version *adapters[N_ADAPTERS_MAX];
    uint32_t n_adapters, n_cases;
    struct golden_case cases[N_CASES_MAX];
};

static inline void expect_ok(enum status s, const struct error *err)
{
    if (s != STATUS_OK)
        fail_msg("%s", err->text);
}

static inline void open_model(struct golden_family *f, const char *dir, enum quant quant, enum act_mode mode)
{
    struct model_files *files;
    struct model_options o = {.quant = quant};
    struct error err;
    char path[300];
    struct buf json;
    expect_ok(model_files_open(dir, &files, &err), &err);
    expect_ok(kernels_select("auto", mode, &o.kernels, &err), &err);
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

static inline struct lora *open_adapter(struct golden_family *f, const char *name)
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

static inline void add_case(struct golden_family *f, const char *adapter, struct lora *lora, const char *name,
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

static inline struct golden_family *open_family_as(const char *name, enum quant quant, enum act_mode mode)
{
    struct golden_family *f = mem_zalloc(sizeof *f);
    char path[200];
    snprintf(path, sizeof path, DATA "models/%s/f32", name);
    open_model(f, path, quant, mode);
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

static inline struct golden_family *open_family(const char *name)
{
    return open_family_as(name, QUANT_AUTO, ACT_MODE_INT8);
}

static inline void close_family(struct golden_family *f)
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
    struct event last; /* the final event */
};

static inline struct generation generation_of(const struct golden_case *c, uint32_t max_tokens)
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

static inline void note(struct outcome *r, const struct event *v)
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
    if (v->kind == EVENT_DONE) {
        r->over = true;
        r->last = *v;
    }
}

static inline void gather(struct engine *e, struct outcome *r, uint32_t n)
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

static inline struct engine *engine_with(const struct golden_family *f, const struct engine_options *o)
{
    struct engine *e;
    struct error err;
    expect_ok(engine_create(f->model, &f->text, o, NULL, NULL, &e, &err), &err);
    return e;
}

static inline void submit(struct engine *e, const struct generation *g, struct outcome *r)
{
    struct error err;
    expect_ok(engine_submit(e, g, &r->id, &err), &err);
}

static inline void outcomes_free(struct outcome *r, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        buf_fini(&r[i].text);
    mem_free(r);
}

static inline void check_golden(const struct golden_case *c, const struct outcome *r)
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

#endif
