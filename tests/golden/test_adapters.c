/* adapters: golden PEFT and GGUF adapters against their bases. Each loads, or is refused for its own reason;
 * scales are PEFT's; digests follow the content; paths stay below their root. The own set is always there,
 * ../shared/goldens may be absent. */
#include "tests/test.h"

#include <math.h>

#include "adapters.h"
#include "base/mem.h"
#include "format.h"
#include "model.h"
#include "tests/unit/made_files.h"

#define OWN "tests/golden/data/"
#define SHARED "../shared/goldens/"

static struct model *open_model(const char *path)
{
    struct error err = {0};
    struct model_files *files;
    struct model_options options = {0};
    struct model *m = NULL;
    assert_int_equal(kernels_select("scalar", ACT_MODE_F32, &options.kernels, &err), STATUS_OK);
    if (model_files_open(path, &files, &err) != STATUS_OK ||
        model_open(files, &options, &m, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    model_files_close(files);
    return m;
}

static enum status load(const struct model *m, const char *path, double scale, struct adapter_version **v,
                        struct error *err)
{
    struct adapter_source s = {.name = "x", .path = path, .root_fd = -1, .scale = scale};
    return adapter_load(&s, m, v, err);
}

static void must_load(const struct model *m, const char *path, struct adapter_version **v)
{
    struct error err = {0};
    if (load(m, path, 1, v, &err) != STATUS_OK)
        fail_msg("%s: %s", path, err.text);
    assert_non_null((*v)->lora);
    assert_int_equal((*v)->lora->n_parameters, (*v)->report.n_parameters);
    assert_int_equal((*v)->lora->rank_max, (*v)->report.rank_max);
    assert_memory_equal((*v)->lora->digest, (*v)->digest, 32);
    assert_int_equal(strlen((*v)->digest_hex), 16);
    assert_true((*v)->generation == 0 && (*v)->report.file_bytes > 0);
}

static bool present(const char *path)
{
    if (path_is_folder(path) || file_exists(path))
        return true;
    print_message("skip: %s is absent\n", path);
    return false;
}

/* ---- every kind, in four families */

static const struct {
    const char *name;
    enum status status;
    const char *text; /* of the refusal */
} kinds[] = {
    {"qv_r8", STATUS_OK, NULL},
    {"all_r16", STATUS_OK, NULL},
    {"second_r12", STATUS_OK, NULL},
    {"rslora_r8", STATUS_OK, NULL},
    {"patterns", STATUS_OK, NULL},
    {"layers1_r8", STATUS_OK, NULL},
    {"regex_exclude_r4", STATUS_OK, NULL},
    {"head_r4", STATUS_OK, NULL},
    {"alora_r8", STATUS_UNSUPPORTED, "adapter_config.json: alora_invocation_tokens is set"},
    {"dora_r4", STATUS_UNSUPPORTED, "use_dora is set"},
    {"dora_rslora_r4", STATUS_UNSUPPORTED, "use_dora is set"},
    {"lora_bias_r4", STATUS_UNSUPPORTED, "lora_bias is set"},
    {"mts_embed_r4", STATUS_UNSUPPORTED, "modules_to_save is set"},
    {"mts_head_r4", STATUS_UNSUPPORTED, "modules_to_save is set"},
    {"embed_r4", STATUS_UNSUPPORTED, "LoRA on embeddings is not supported yet"},
    {"tokens_r4", STATUS_UNSUPPORTED, "trainable_token_indices is set"},
    {"bias_lora_only_r4", STATUS_UNSUPPORTED, "bias is 'lora_only'"},
    {"wrong_base", STATUS_MISMATCH, "is [8, 96], this base needs [r, 64]"},
};

static void check_kind(const struct model *m, const char *path, size_t kind)
{
    struct error err = {0};
    struct adapter_version *v = NULL;
    enum status s = load(m, path, 1, &v, &err);
    if (s != kinds[kind].status || (kinds[kind].text && !strstr(err.text, kinds[kind].text)))
        fail_msg("%s: got %s '%s', expected %s '%s'", path, status_name(s), err.text,
                 status_name(kinds[kind].status), kinds[kind].text ? kinds[kind].text : "");
    if (s == STATUS_OK) {
        struct adapter_report alone;
        assert_int_equal(adapter_inspect(path, &alone, &err), STATUS_OK);
        assert_memory_equal(&alone, &v->report, sizeof alone); /* looking without a base sees the same */
    } else {
        assert_null(v);
    }
    adapter_release(v);
}

static void every_kind_loads_or_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const families[] = {"llama", "qwen2", "qwen3", "gemma3"};
    if (!present(SHARED))
        skip();
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        char path[300];
        size_t n = 0;
        snprintf(path, sizeof path, SHARED "models/%s/f32", families[f]);
        struct model *m = open_model(path);
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            snprintf(path, sizeof path, SHARED "adapters/%s/%s", families[f], kinds[k].name);
            if (!path_is_folder(path))
                continue;
            check_kind(m, path, k);
            n++;
        }
        assert_true(n >= 15);
        model_close(m);
    }
}

static void gguf_loras_fit_their_own_base_only(void **state)
{
    (void)state;
    static const struct {
        const char *model, *adapter;
        enum status status;
        const char *text;
    } cases[] = {{"gguf/llama-F16.gguf", "gguf/llama-lora-qv_r8.gguf", STATUS_OK, NULL},
                 {"gguf/llama-F16.gguf", "gguf/llama-lora-all_r16.gguf", STATUS_OK, NULL},
                 {"gguf/llama-F16.gguf", "gguf/llama-lora-second_r12.gguf", STATUS_OK, NULL},
                 {"models/llama/f32", "gguf/llama-lora-all_r16.gguf", STATUS_OK, NULL},
                 {"gguf/llama-F16.gguf", "adapters/llama/all_r16", STATUS_OK, NULL},
                 {"gguf/gemma3-F16.gguf", "gguf/gemma3-lora-all_r16.gguf", STATUS_OK, NULL},
                 {"gguf/qwen2-F16.gguf", "gguf/qwen2-lora-all_r16.gguf", STATUS_OK, NULL},
                 {"gguf/llama-F16.gguf", "gguf/llama-lora-alora_r8.gguf", STATUS_UNSUPPORTED,
                  "adapter.alora.invocation_tokens is set"},
                 {"gguf/llama-F16.gguf", "gguf/qwen2-lora-all_r16.gguf", STATUS_MISMATCH,
                  "general.architecture is 'qwen2', this base is 'llama'"},
                 {"gguf/llama-F16.gguf", "gguf/qwen2-F16.gguf", STATUS_FORMAT, "no general.type"}};
    if (!present(SHARED "gguf"))
        skip();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char model[300], adapter[300];
        struct error err = {0};
        struct adapter_version *v;
        snprintf(model, sizeof model, SHARED "%s", cases[i].model);
        snprintf(adapter, sizeof adapter, SHARED "%s", cases[i].adapter);
        struct model *m = open_model(model);
        enum status s = load(m, adapter, 1, &v, &err);
        if (s != cases[i].status || (cases[i].text && !strstr(err.text, cases[i].text)))
            fail_msg("%s on %s: got %s '%s', expected '%s'", adapter, model, status_name(s), err.text,
                     cases[i].text ? cases[i].text : "success");
        adapter_release(v);
        model_close(m);
    }
}

/* ---- scales */

static float q_scale(const struct adapter_version *v, uint32_t layer)
{
    return v->lora->layers[layer].group[LORA_GROUP_QKV].part[0].scale;
}

static void scales_are_those_of_peft(void **state)
{
    (void)state;
    struct adapter_version *v;
    struct error err;
    if (!present(SHARED))
        skip();
    struct model *m = open_model(SHARED "models/llama/f32");
    must_load(m, SHARED "adapters/llama/rslora_r8", &v);
    assert_true(v->report.rslora);
    assert_true(q_scale(v, 0) == (float)(5 / sqrt(8)));
    adapter_release(v);
    /* alpha: ".*\.0\..*q_proj" 3, "q_proj" 20, else 8; rank: "layers\.1\..*q_proj" 6, "o_proj" 2, else 4. */
    must_load(m, SHARED "adapters/llama/patterns", &v);
    assert_true(q_scale(v, 0) == (float)(3.0 / 4));
    assert_true(q_scale(v, 1) == (float)(20.0 / 6));
    assert_true(q_scale(v, 2) == (float)(20.0 / 4));
    assert_true(v->lora->layers[0].group[LORA_GROUP_O].part[0].scale == 4.0F);
    assert_int_equal(v->report.rank_min, 2);
    adapter_release(v);
    assert_int_equal(load(m, SHARED "adapters/llama/second_r12", -0.5, &v, &err), STATUS_OK);
    assert_true(q_scale(v, 0) == -0.25F); /* alpha/r 0.5, times the user's */
    adapter_release(v);
    model_close(m);
}

/* ---- content, names, roots, failing memory: on the project's own small set */

#define OWN_ADAPTER OWN "adapters/llama/qv_r4"

static void digests_follow_the_content(void **state)
{
    (void)state;
    struct adapter_version *a, *b, *c, *d;
    struct error err;
    struct model *m = open_model(OWN "models/llama/f32");
    must_load(m, OWN_ADAPTER, &a);
    must_load(m, OWN_ADAPTER "/", &b);
    assert_memory_equal(a->digest, b->digest, 32);
    assert_int_equal(load(m, OWN_ADAPTER, 0.5, &c, &err), STATUS_OK);
    assert_memory_not_equal(a->digest, c->digest, 32);
    must_load(m, OWN "adapters/llama/head_r4", &d);
    assert_memory_not_equal(a->digest, d->digest, 32);
    assert_string_equal(a->source, OWN_ADAPTER);
    assert_string_equal(a->report.modules, "q_proj v_proj");
    adapter_release(a);
    adapter_release(b);
    adapter_release(c);
    adapter_release(d);
    model_close(m);
}

static void sources_are_checked(void **state)
{
    (void)state;
    struct adapter_version *v;
    struct error err = {0};
    struct model *m = open_model(OWN "models/llama/f32");
    int root;
    assert_int_equal(folder_open(-1, OWN "adapters", &root, &err), STATUS_OK);
    struct adapter_source s = {.name = "pt", .path = "llama/qv_r4", .root_fd = root, .scale = 1};
    assert_int_equal(adapter_load(&s, m, &v, &err), STATUS_OK);
    adapter_release(v);
    s.path = "../adapters/llama/qv_r4";
    assert_int_equal(adapter_load(&s, m, &v, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "outside the allowed folder"));
    s.path = "/etc";
    assert_int_equal(adapter_load(&s, m, &v, &err), STATUS_INVALID);
    s.path = "../../x.gguf";
    assert_int_equal(adapter_load(&s, m, &v, &err), STATUS_INVALID);
    s.path = "llama/absent";
    assert_int_equal(adapter_load(&s, m, &v, &err), STATUS_NOT_FOUND);
    s.path = "llama/absent.gguf";
    assert_int_equal(adapter_load(&s, m, &v, &err), STATUS_NOT_FOUND);
    close(root);
    s = (struct adapter_source){.name = "a/b", .path = OWN_ADAPTER, .root_fd = -1, .scale = 1};
    assert_int_equal(adapter_load(&s, m, &v, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "'a/b' is no adapter name"));
    s.name = "ab";
    s.scale = NAN;
    assert_int_equal(adapter_load(&s, m, &v, &err), STATUS_INVALID);
    s.scale = 1;
    s.path = OWN_ADAPTER "/adapter_config.json";
    assert_int_equal(adapter_load(&s, m, &v, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.text, "not a GGUF file"));
    s.path = "/nowhere/at/all";
    assert_int_equal(adapter_load(&s, m, &v, &err), STATUS_NOT_FOUND);
    assert_null(v);
    model_close(m);
}

static void memory_may_fail_anywhere(void **state)
{
    (void)state;
    struct adapter_version *v = NULL;
    struct model *m = open_model(OWN "models/llama/f32");
    enum status s;
    uint64_t n = 0;
    do {
        struct error err;
        mem_fail_at(++n);
        s = load(m, OWN_ADAPTER, 1, &v, &err);
        mem_fail_at(0);
        if (s != STATUS_OK && s != STATUS_NO_MEMORY)
            fail_msg("allocation %d: %s '%s'", (int)n, status_name(s), err.text);
    } while (s != STATUS_OK && n < 2000);
    assert_int_equal(s, STATUS_OK);
    assert_true(n > 20);
    adapter_release(v);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_loads_or_is_refused_by_name),
        cmocka_unit_test(gguf_loras_fit_their_own_base_only),
        cmocka_unit_test(scales_are_those_of_peft),
        cmocka_unit_test(digests_follow_the_content),
        cmocka_unit_test(sources_are_checked),
        cmocka_unit_test(memory_may_fail_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
