/* The model against PEFT and transformers: every case of the golden files, base and adapters. Logits within
 * 1e-4 of the largest (bf16 bases 2e-2), log-probabilities of the prompt, and greedy tokens up to
 * greedy_safe_len. The own set in tests/golden/data is always there; ../shared/goldens is larger and may be
 * absent. */
#include "tests/test.h"

#include <jansson.h>

#include "adapters.h"
#include "base/file.h"
#include "model_rig.h"

#define OWN "tests/golden/data/"
#define SHARED "../shared/goldens/"

struct tolerance {
    double logits; /* of the largest logit */
    bool greedy;
};

static const char *const must_load[] = {
    "qv_r4",     "qv_r8",    "all_r16",    "all_r8_bf16",      "second_r12",
    "rslora_r8", "patterns", "layers1_r8", "regex_exclude_r4", "head_r4"};

static bool loads(const char *adapter)
{
    const char *name = strrchr(adapter, '/');
    for (size_t i = 0; i < sizeof must_load / sizeof must_load[0]; i++)
        if (strcmp(name ? name + 1 : adapter, must_load[i]) == 0)
            return true;
    return strstr(adapter, ".gguf") && !strstr(adapter, "alora");
}

/* ---- one case ---- */

static double largest(const float *x, size_t n)
{
    double m = 0;
    for (size_t i = 0; i < n; i++)
        m = fmax(m, fabs((double)x[i]));
    return m;
}

static double log_prob(const float *row, uint32_t n, uint32_t id)
{
    double top = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        top = fmax(top, (double)row[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)row[i] - top);
    return (double)row[id] - top - log(sum);
}

static bool check_logits(const json_t *last, const float *row, uint32_t vocab, double tolerance,
                         const char *what)
{
    const json_t *ids = json_object_get(last, "top_ids"), *values = json_object_get(last, "top_logits");
    double bound = tolerance * largest(row, vocab), worst = 0, sum = 0;
    assert_true(json_array_size(ids) > 0);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        uint32_t id = (uint32_t)json_integer_value(json_array_get(ids, i));
        assert_true(id < vocab);
        worst = fmax(worst, fabs(row[id] - json_number_value(json_array_get(values, i))));
    }
    for (uint32_t i = 0; i < vocab; i++)
        sum += (double)row[i] * (double)row[i];
    const json_t *l2 = json_object_get(last, "l2");
    double l2_off = l2 ? fabs(sqrt(sum) - json_number_value(l2)) / json_number_value(l2) : 0;
    if (worst <= bound && l2_off <= tolerance)
        return true;
    printf("  %s: logits differ by %.3g, bound %.3g; l2 by %.3g\n", what, worst, bound, l2_off);
    return false;
}

static bool check_log_probs(const json_t *values, const struct rig_line *l, uint32_t vocab, double tolerance,
                            const char *what)
{
    double worst = 0, bound = 2 * tolerance * largest(l->logits, (size_t)l->n_prompt * vocab);
    for (size_t i = 0; i < json_array_size(values); i++) {
        double ours = log_prob(l->logits + i * vocab, vocab, (uint32_t)l->prompt[i + 1]);
        worst = fmax(worst, fabs(ours - json_number_value(json_array_get(values, i))));
    }
    if (worst <= bound)
        return true;
    printf("  %s: log-probabilities of the prompt differ by %.3g, bound %.3g\n", what, worst, bound);
    return false;
}

static bool check_greedy(const json_t *c, const struct rig_line *l, const char *what)
{
    const json_t *greedy = json_object_get(c, "greedy"), *safe = json_object_get(c, "greedy_safe_len");
    size_t n = safe ? (size_t)json_integer_value(safe) : json_array_size(greedy);
    for (size_t i = 0; i < n && i < l->n_new; i++)
        if (l->ids[l->n_prompt + i] != json_integer_value(json_array_get(greedy, i))) {
            printf("  %s: greedy token %zu of %zu is %d, expected %d\n", what, i, n, l->ids[l->n_prompt + i],
                   (int)json_integer_value(json_array_get(greedy, i)));
            return false;
        }
    return true;
}

static int32_t *ids_of(const json_t *array, uint32_t *n)
{
    *n = (uint32_t)json_array_size(array);
    int32_t *ids = calloc(*n, sizeof *ids);
    assert_true(*n > 0 && ids);
    for (uint32_t i = 0; i < *n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return ids;
}

static bool check_case(struct rig *r, struct lora *lora, const json_t *c, struct tolerance t,
                       const char *what)
{
    struct rig_line l = {.lora = lora, .n_new = (uint32_t)json_array_size(json_object_get(c, "greedy"))};
    uint32_t vocab = model_config(r->m)->vocab_size;
    int32_t *prompt = ids_of(json_object_get(c, "prompt"), &l.n_prompt);
    l.prompt = prompt;
    assert_int_equal(rig_run(r, &l, 1, 512, 0), 0); /* no allocation in steps */
    bool ok = check_logits(json_object_get(c, "last"), l.logits + (size_t)(l.n_prompt - 1) * vocab, vocab,
                           t.logits, what);
    ok = check_log_probs(json_object_get(c, "prompt_logprobs"), &l, vocab, t.logits, what) && ok;
    ok = (!t.greedy || check_greedy(c, &l, what)) && ok;
    rig_line_fini(&l);
    free(prompt);
    return ok;
}

/* ---- entries and files ---- */

static struct adapter_version *load_adapter(const char *root, const char *adapter, const struct model *m,
                                            struct error *err)
{
    struct adapter_version *v = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s%s", root, adapter);
    struct adapter_source source = {.name = "golden", .path = path, .root_fd = -1, .scale = 1};
    return adapter_load(&source, m, &v, err) == STATUS_OK ? v : NULL;
}

struct counts {
    int passed, failed, refused;
};

static void check_entry(struct rig *r, const char *root, const json_t *e, struct tolerance t,
                        struct counts *n)
{
    const char *adapter = json_string_value(json_object_get(e, "adapter")), *name;
    json_t *cases = json_object_get(e, "cases"), *c;
    struct adapter_version *v = NULL;
    struct error err;
    if (adapter && !(v = load_adapter(root, adapter, r->m, &err))) {
        n->refused++;
        if (loads(adapter)) {
            n->failed++;
            printf("  %s is refused: %s\n", adapter, err.text);
        }
        return;
    }
    json_object_foreach(cases, name, c)
    {
        char what[256];
        snprintf(what, sizeof what, "%s %s %s", json_string_value(json_object_get(e, "model")),
                 adapter ? adapter : "base", name);
        bool ok = check_case(r, v ? v->lora : NULL, c, t, what);
        ok ? n->passed++ : n->failed++;
    }
    adapter_release(v);
}

static json_t *golden_file(const char *root, const char *file)
{
    char path[512];
    json_error_t why;
    snprintf(path, sizeof path, "%sgoldens/%s.json", root, file);
    if (!file_exists(path)) {
        print_message("skip: %s is absent\n", path);
        skip();
    }
    json_t *all = json_load_file(path, 0, &why);
    assert_non_null(all);
    return all;
}

/* All entries of FILE whose model is `model`. */
static void check_file(const char *root, const char *file, const char *model, const struct rig_options *o,
                       struct tolerance t)
{
    json_t *all = golden_file(root, file), *e;
    struct counts n = {0};
    struct rig r;
    struct error err;
    char path[512];
    size_t i;
    snprintf(path, sizeof path, "%s%s", root, model);
    if (!rig_open(&r, path, o, &err)) {
        print_message("%s: %s\n", path, err.text);
        assert_true(false);
    }
    json_array_foreach(json_object_get(all, "entries"), i, e)
    {
        if (strcmp(json_string_value(json_object_get(e, "model")), model) == 0 && json_object_get(e, "cases"))
            check_entry(&r, root, e, t, &n);
    }
    rig_close(&r);
    json_decref(all);
    printf("  %s%s: %d cases hold, %d failed, %d adapters refused\n", root, model, n.passed, n.failed,
           n.refused);
    assert_int_equal(n.failed, 0);
    assert_true(n.passed > 0);
}

static const struct tolerance exact = {1e-4, true}, coarse = {2e-2, false};

static void f32_family(const char *family)
{
    char model[128];
    struct rig_options o = {.n_threads = 2};
    snprintf(model, sizeof model, "models/%s/f32", family);
    check_file(OWN, family, model, &o, exact);
}

static void own_llama(void **state)
{
    (void)state;
    f32_family("llama");
}
static void own_qwen2(void **state)
{
    (void)state;
    f32_family("qwen2");
}
static void own_qwen3(void **state)
{
    (void)state;
    f32_family("qwen3");
}
static void own_gemma3(void **state)
{
    (void)state;
    f32_family("gemma3");
}

static void shared_f32(void **state)
{
    (void)state;
    static const char *const families[] = {"llama",  "qwen2",      "qwen3",  "gemma3", "mistral",
                                           "smollm", "qwen2_yarn", "gemma2", "granite"};
    struct rig_options o = {.n_threads = 2};
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        char model[128];
        snprintf(model, sizeof model, "models/%s/f32", families[i]);
        check_file(SHARED, families[i], model, &o, exact);
    }
}

static void shared_half_precision(void **state)
{
    (void)state;
    static const char *const models[][2] = {
        {"llama", "models/llama/f16"},          {"llama", "models/llama/bf16"},
        {"llama", "models/llama/bf16_sharded"}, {"qwen2", "models/qwen2/bf16"},
        {"qwen3", "models/qwen3/bf16"},         {"gemma3", "models/gemma3/bf16"}};
    struct rig_options o = {.n_threads = 2};
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
        check_file(SHARED, models[i][0], models[i][1], &o, coarse);
}

static const char *const gguf_models[] = {
    "llama-F32",  "llama-F16", "llama-BF16", "llama-Q8_0", "llama-Q4_0", "llama-Q4_1", "llama-Q5_0",
    "llama-Q5_1", "qwen2-F16", "qwen2-Q8_0", "qwen2-Q4_0", "gemma3-F16", "gemma3-Q8_0"};

static void check_gguf(const struct rig_options *o, struct tolerance t)
{
    for (size_t i = 0; i < sizeof gguf_models / sizeof gguf_models[0]; i++) {
        char model[128];
        struct rig_options with = *o;
        snprintf(model, sizeof model, "gguf/%s.gguf", gguf_models[i]);
        /* The reference used the tiny gemma3's own query_pre_attn_scalar, which its GGUF file can't say. */
        with.query_scalar = strncmp(gguf_models[i], "gemma3", 6) == 0 ? 24 : 0;
        check_file(SHARED, "gguf", model, &with, t);
    }
}

static void shared_gguf_f32_activations(void **state)
{
    (void)state;
    check_gguf(&(struct rig_options){.n_threads = 2, .act_mode = ACT_MODE_F32, .kv = "f32"}, exact);
}

static void shared_gguf_int8_activations(void **state)
{
    (void)state;
    check_gguf(&(struct rig_options){.n_threads = 2, .act_mode = ACT_MODE_INT8},
               (struct tolerance){.logits = 5e-2, .greedy = false});
}

/* Rows of one batch, each with its own adapter, as PEFT computes them with adapter_names. */
static void shared_mixed_batch(void **state)
{
    (void)state;
    json_t *all = golden_file(SHARED, "mixed_batch"), *b, *row;
    struct rig_options o = {.n_threads = 2};
    size_t i, j;
    int n_checked = 0, n_failed = 0;
    json_array_foreach(all, i, b)
    {
        struct rig r;
        struct error err;
        struct rig_line lines[RIG_SEQS_MAX] = {{0}};
        struct adapter_version *versions[RIG_SEQS_MAX] = {0};
        const json_t *expected[RIG_SEQS_MAX];
        uint32_t n = 0;
        char path[512];
        snprintf(path, sizeof path, "%s%s", SHARED, json_string_value(json_object_get(b, "model")));
        assert_true(rig_open(&r, path, &o, &err));
        json_array_foreach(json_object_get(b, "rows"), j, row)
        {
            const char *adapter = json_string_value(json_object_get(row, "adapter"));
            if (adapter && !(versions[n] = load_adapter(SHARED, adapter, r.m, &err))) {
                assert_false(loads(adapter));
                continue;
            }
            lines[n].lora = versions[n] ? versions[n]->lora : NULL;
            lines[n].prompt = ids_of(json_object_get(row, "prompt"), &lines[n].n_prompt);
            lines[n].n_new = (uint32_t)json_array_size(json_object_get(row, "greedy"));
            expected[n++] = row;
        }
        uint32_t vocab = model_config(r.m)->vocab_size;
        rig_run(&r, lines, n, 512, 0);
        for (uint32_t l = 0; l < n; l++) {
            const float *last = lines[l].logits + (size_t)(lines[l].n_prompt - 1) * vocab;
            const char *what = json_string_value(json_object_get(expected[l], "adapter"));
            n_checked++;
            n_failed +=
                !check_logits(json_object_get(expected[l], "last"), last, vocab, 1e-4, what ? what : "base");
            n_failed += !check_greedy(expected[l], &lines[l], what ? what : "base");
            adapter_release(versions[l]);
            free((void *)(uintptr_t)lines[l].prompt);
            rig_line_fini(&lines[l]);
        }
        rig_close(&r);
    }
    json_decref(all);
    printf("  mixed batch: %d rows\n", n_checked);
    assert_int_equal(n_failed, 0);
    assert_true(n_checked >= 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_llama),
        cmocka_unit_test(own_qwen2),
        cmocka_unit_test(own_qwen3),
        cmocka_unit_test(own_gemma3),
        cmocka_unit_test(shared_f32),
        cmocka_unit_test(shared_half_precision),
        cmocka_unit_test(shared_gguf_f32_activations),
        cmocka_unit_test(shared_gguf_int8_activations),
        cmocka_unit_test(shared_mixed_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
