/* adapters/convert*.c: from PEFT to GGUF and back, every golden adapter gives the same logits in all three
 * forms, or is refused by the name of what GGUF can't hold. */
#include "tests/test.h"

#include "golden_set.h"
#include "rank_tools.h"
#include "tests/unit/made_files.h"
#include "tests/unit/plain_model.h"

/* Logits of a fixed prompt, freed by the caller. */
static float *logits_of(struct rig *r, const char *path, size_t *n)
{
    static const int32_t prompt[] = {5, 17, 33, 9, 2, 3, 4, 17, 8};
    struct adapter_version *v;
    struct error err;
    if (golden_adapter(path[0] == '/' ? "" : ".", path, r->m, 1, &v, &err) != STATUS_OK)
        fail_msg("%s: %s", path, err.text);
    struct rig_line l = {.lora = v->lora, .prompt = prompt, .n_prompt = 9, .n_new = 1};
    rig_run(r, &l, 1, 512, 0);
    *n = (size_t)9 * model_config(r->m)->vocab_size;
    float *logits = l.logits;
    l.logits = NULL;
    rig_line_fini(&l);
    adapter_release(v);
    return logits;
}

static void check_same(struct rig *r, const char *path, const char *other)
{
    size_t n;
    float *a = logits_of(r, path, &n), *b = logits_of(r, other, &n);
    double worst = 0, bound = 1e-5 * largest(a, n);
    for (size_t i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    if (worst > bound)
        fail_msg("%s: logits differ by %g, bound %g", path, worst, bound);
    free(a);
    free(b);
}

static size_t n_entries(const char *path)
{
    size_t n = 0;
    DIR *d = opendir(path);
    for (struct dirent *e = readdir(d); e; e = readdir(d))
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

/* True if it went there and back. */
static bool check_adapter(struct rig *r, const char *path, const struct folder *f)
{
    struct convert_options o = {.base = r->m, .to_gguf = true, .type = DTYPE_COUNT};
    struct convert_report there, back;
    struct error err;
    char gguf[100], peft[100];
    snprintf(gguf, sizeof gguf, "%s/x.gguf", f->path);
    snprintf(peft, sizeof peft, "%s/peft", f->path);
    enum status s = adapter_convert(path, gguf, &o, &there, &err);
    if (s != STATUS_OK) {
        if (s != STATUS_UNSUPPORTED || !strstr(err.text, "a GGUF LoRA has no place for it"))
            fail_msg("%s: %s '%s'", path, status_name(s), err.text);
        assert_int_equal(n_entries(f->path), 0);
        return false;
    }
    o.to_gguf = false;
    if (adapter_convert(gguf, peft, &o, &back, &err) != STATUS_OK)
        fail_msg("%s, back: %s", path, err.text);
    assert_string_equal(back.from.format, "gguf");
    check_same(r, path, gguf);
    check_same(r, path, peft);
    folder_empty(f->path);
    return true;
}

static void every_kind_goes_there_and_back(void **state)
{
    (void)state;
    static const char *const families[] = {"llama", "gpt2", "phi3", "mixtral", "qwen3_moe"};
    struct folder f = folder_make();
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        char path[300], sub[64], *names[128];
        struct rig r;
        struct error err;
        size_t n_there = 0;
        snprintf(path, sizeof path, GOLDEN_OWN "/models/%s/f32", families[i]);
        if (!rig_open(&r, path, &(struct rig_options){0}, &err))
            fail_msg("%s", err.text);
        snprintf(sub, sizeof sub, "adapters/%s", families[i]);
        size_t n = golden_list(GOLDEN_OWN, sub, "", names, 128);
        for (size_t a = 0; a < n; a++) {
            snprintf(path, sizeof path, GOLDEN_OWN "/%s/%s", sub, names[a]);
            n_there += strcmp(names[a], "wrong_base") != 0 && check_adapter(&r, path, &f);
            free(names[a]);
        }
        assert_true(n_there >= 3);
        rig_close(&r);
    }
    folder_remove(&f);
}

/* The base's weights are not needed; values may be narrowed. */
static void a_described_base_is_enough(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct model_files *files;
    struct model *m;
    struct error err;
    struct convert_report report;
    struct rig r;
    char gguf[100];
    assert_int_equal(model_files_open(GOLDEN_OWN "/models/llama/f32", &files, &err), STATUS_OK);
    assert_int_equal(model_describe(files, &m, &err), STATUS_OK);
    const struct convert_options o = {.base = m, .to_gguf = true, .type = DTYPE_F32};
    snprintf(gguf, sizeof gguf, "%s/x.gguf", f.path);
    if (adapter_convert(GOLDEN_OWN "/adapters/llama/patterns", gguf, &o, &report, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_true(report.n_folded > 0 && report.n_folded < report.n_products && report.alpha > 0);
    assert_true(rig_open(&r, GOLDEN_OWN "/models/llama/f32", &(struct rig_options){0}, &err));
    check_same(&r, GOLDEN_OWN "/adapters/llama/patterns", gguf);
    rig_close(&r);
    model_close(m);
    model_files_close(files);
    folder_remove(&f);
}

static void refusals_have_reasons(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct model *m = open_model(GOLDEN_OWN "/models/llama/f32");
    struct convert_options o = {.base = m, .type = DTYPE_COUNT};
    struct convert_report report;
    struct error err;
    char out[100];
    snprintf(out, sizeof out, "%s/x", f.path);
    assert_int_equal(adapter_convert(GOLDEN_OWN "/adapters/llama/qv_r4", out, &o, &report, &err),
                     STATUS_INVALID);
    assert_non_null(strstr(err.text, "is a peft adapter already"));
    o.to_gguf = true;
    assert_int_equal(adapter_convert(GOLDEN_OWN "/adapters/llama/wrong_base", out, &o, &report, &err),
                     STATUS_MISMATCH);
    assert_int_equal(adapter_convert(GOLDEN_OWN "/adapters/llama/dora_r3", out, &o, &report, &err),
                     STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "has a magnitude vector (DoRA)"));
    assert_int_equal(adapter_convert(GOLDEN_OWN "/adapters/llama/qv_r4", f.path, &o, &report, &err),
                     STATUS_EXISTS);
    o.type = DTYPE_Q8_0;
    assert_int_equal(adapter_convert(GOLDEN_OWN "/adapters/llama/qv_r4", out, &o, &report, &err),
                     STATUS_INVALID);
    assert_int_equal(n_entries(f.path), 0);
    model_close(m);
    folder_remove(&f);
}

static void memory_may_fail_anywhere(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct model *m = open_model(GOLDEN_OWN "/models/mixtral/f32");
    struct convert_options o = {.base = m, .to_gguf = true, .type = DTYPE_COUNT};
    struct convert_report report;
    struct error err;
    char gguf[100], peft[100];
    snprintf(gguf, sizeof gguf, "%s/x.gguf", f.path);
    snprintf(peft, sizeof peft, "%s/peft", f.path);
    for (int way = 0; way < 2; way++) {
        enum status s = STATUS_NO_MEMORY;
        o.to_gguf = way == 0;
        for (uint64_t n = 1; s != STATUS_OK && n < 3000; n++) {
            mem_fail_at(n);
            s = way == 0 ? adapter_convert(GOLDEN_OWN "/adapters/mixtral/experts_r2", gguf, &o, &report, &err)
                         : adapter_convert(gguf, peft, &o, &report, &err);
            mem_fail_at(0);
            if (s != STATUS_OK && s != STATUS_NO_MEMORY && s != STATUS_TOO_LARGE)
                fail_msg("allocation %d: %s '%s'", (int)n, status_name(s), err.text);
            assert_int_equal(n_entries(f.path), way + (s == STATUS_OK));
        }
        assert_int_equal(s, STATUS_OK);
    }
    model_close(m);
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_goes_there_and_back),
        cmocka_unit_test(a_described_base_is_enough),
        cmocka_unit_test(refusals_have_reasons),
        cmocka_unit_test(memory_may_fail_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
