/* adapters: golden PEFT and GGUF adapters against their bases. Each loads, or is refused for its own reason;
 * scales are PEFT's; digests follow the content; paths stay below their root. The own set is always there,
 * ../shared/goldens may be absent. */
#include "tests/test.h"

#include <math.h>

#include "adapters.h"
#include "base/mem.h"
#include "format.h"
#include "golden_set.h"
#include "loader.h"
#include "model.h"
#include "tests/unit/made_files.h"
#include "tests/unit/plain_model.h"

#define OWN "tests/golden/data/"
#define SHARED "../shared/goldens/"

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
    assert_int_equal(strlen((*v)->digest_hex), 64);
    assert_string_equal((*v)->digest_hex, (*v)->report.digest_hex);
    assert_true((*v)->generation == 0 && (*v)->report.file_bytes > 0);
}

static bool present(const char *path)
{
    if (path_is_folder(path) || file_exists(path))
        return true;
    print_message("skip: %s is absent\n", path);
    return false;
}

/* ---- every kind of every family: the files' tensors all find their place in the specification */

static void check_numbers(const struct lora_spec *spec, const struct adapter_report *report, const char *path)
{
    uint64_t n = 0;
    for (size_t i = 0; i < spec->n_pairs; i++) {
        const struct lora_pair *p = &spec->pairs[i];
        assert_true(p->a && p->b && p->rank > 0 && isfinite(p->scale));
        assert_true(p->in == p->module.in && p->out == p->module.out);
        n += (uint64_t)p->rank * (p->in + p->out) + (p->b_bias ? p->out : 0) + (p->magnitude ? p->out : 0);
    }
    for (size_t i = 0; i < spec->n_tensors; i++)
        n += (uint64_t)spec->tensors[i].rows * (spec->tensors[i].cols ? spec->tensors[i].cols : 1);
    /* Rows are counted too, whose length the specification doesn't say. */
    if (spec->n_rows + spec->n_head_rows == 0 && n != report->n_parameters)
        fail_msg("%s: %d values in the specification, %d in the files", path, (int)n,
                 (int)report->n_parameters);
}

static void check_folder(const struct model *m, const char *path, bool fits)
{
    struct error err = {0};
    struct loading l;
    struct adapter_report report = {0}, alone;
    struct adapter_source source = {.name = "x", .path = path, .root_fd = -1, .scale = 1};
    enum status s = loading_begin(&l, &source, m, &report, &err);
    if (fits && s != STATUS_OK)
        fail_msg("%s: %s", path, err.text);
    if (!fits && (s != STATUS_MISMATCH || !strstr(err.text, "it was trained on another base")))
        fail_msg("%s: got %s '%s'", path, status_name(s), err.text);
    if (fits) {
        check_numbers(&l.content->spec, &report, path);
        assert_int_equal(adapter_inspect(path, &alone, &err), STATUS_OK);
        assert_memory_equal(&alone, &report, sizeof alone); /* looking without a base sees the same */
    }
    loading_end(&l);
}

static size_t check_family(const char *root, const char *family)
{
    char path[400], sub[100], *names[128];
    snprintf(path, sizeof path, "%s/models/%s/f32", root, family);
    if (!path_is_folder(path))
        return 0;
    struct model *m = open_model(path);
    snprintf(sub, sizeof sub, "adapters/%s", family);
    size_t n = golden_list(root, sub, "", names, 128);
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s/%s", root, sub, names[i]);
        check_folder(m, path, strcmp(names[i], "wrong_base") != 0);
        free(names[i]);
    }
    model_close(m);
    return n;
}

static void every_kind_finds_its_place(void **state)
{
    (void)state;
    const char *const roots[] = {GOLDEN_OWN, GOLDEN_SHARED, getenv("GOLDENS")};
    char *families[64];
    for (size_t r = 0; r < sizeof roots / sizeof *roots; r++) {
        if (!roots[r] || !present(roots[r]))
            continue;
        size_t n = golden_list(roots[r], "models", "", families, 64), n_adapters = 0;
        for (size_t i = 0; i < n; i++) {
            n_adapters += check_family(roots[r], families[i]);
            free(families[i]);
        }
        assert_true(n_adapters > 20);
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
                 {"gguf/llama-F16.gguf", "gguf/llama-lora-alora_r8.gguf", STATUS_OK, NULL},
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
    assert_memory_equal(a->lora->digest, b->lora->digest, 32);
    assert_memory_equal(a->digest, c->digest, 32); /* the files' alone, but not what keys KV */
    assert_memory_not_equal(a->lora->digest, c->lora->digest, 32);
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
        cmocka_unit_test(every_kind_finds_its_place), cmocka_unit_test(gguf_loras_fit_their_own_base_only),
        cmocka_unit_test(scales_are_those_of_peft),   cmocka_unit_test(digests_follow_the_content),
        cmocka_unit_test(sources_are_checked),        cmocka_unit_test(memory_may_fail_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
