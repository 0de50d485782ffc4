/* adapters/merge_folder.c and core/model/export.c: a folder with an adapter inside, opened as a base, gives
 * the logits of base and adapter. */
#include "tests/test.h"

#include "base/out.h"
#include "golden_set.h"
#include "rank_tools.h"
#include "tests/unit/made_files.h"
#include "tests/unit/plain_model.h"

static const int32_t prompt[] = {5, 17, 33, 9, 2, 3, 4, 17, 8};
#define N_PROMPT 9U

static float *logits_of(struct rig *r, struct lora *lora)
{
    struct rig_line l = {.lora = lora, .prompt = prompt, .n_prompt = N_PROMPT, .n_new = 1};
    rig_run(r, &l, 1, 512, 0);
    float *logits = l.logits;
    l.logits = NULL;
    rig_line_fini(&l);
    return logits;
}

/* like: a folder of the same model, which knows gemma's query_pre_attn_scalar; or NULL. */
static void open_rig_like(struct rig *r, const char *path, const char *like)
{
    struct error err;
    struct model_files *files = NULL;
    struct rig_options o = {.act_mode = ACT_MODE_F32};
    if (like && model_files_open(like, &files, &err) == STATUS_OK)
        o.query_scalar = files->config.query_pre_attn_scalar;
    model_files_close(files);
    if (!rig_open(r, path, &o, &err))
        fail_msg("%s: %s", path, err.text);
}

static void open_rig(struct rig *r, const char *path)
{
    open_rig_like(r, path, NULL);
}

static struct adapter_version *load(const struct rig *r, const char *path)
{
    struct adapter_version *v;
    struct error err;
    if (golden_adapter(".", path, r->m, 1, &v, &err) != STATUS_OK)
        fail_msg("%s: %s", path, err.text);
    return v;
}

/* The folder's logits against those of base and adapter, relative to the largest. */
static double apart(struct rig *base, struct lora *lora, const char *folder)
{
    struct rig merged;
    open_rig(&merged, folder);
    size_t n = (size_t)N_PROMPT * model_config(base->m)->vocab_size;
    float *a = logits_of(base, lora), *b = logits_of(&merged, NULL);
    double worst = 0, most = largest(a, n);
    for (size_t i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    free(a);
    free(b);
    rig_close(&merged);
    return worst / most;
}

static struct merge_options options_of(const struct rig *r, struct lora *lora)
{
    return (struct merge_options){
        .base = r->m, .files = r->files, .lora = lora, .type = DTYPE_COUNT, .team = r->team};
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

/* False: refused for a reason that an adapter may have. */
static bool check_adapter(struct rig *r, const char *path, const struct folder *f)
{
    struct adapter_version *v = load(r, path);
    struct merge_options o = options_of(r, v->lora);
    struct merge_folder_report report;
    struct error err;
    char out[100];
    snprintf(out, sizeof out, "%s/merged", f->path);
    enum status s = adapter_merge_folder(out, &o, &report, &err);
    if (s == STATUS_OK) {
        double d = apart(r, v->lora, out);
        if (d > 1e-5)
            fail_msg("%s: logits of the merged folder are %g apart", path, d);
        assert_true(report.n_files == 1 && report.error_norm == 0);
    } else if (s != STATUS_UNSUPPORTED ||
               !(strstr(err.text, "unmerged") || strstr(err.text, "can't be merged"))) {
        fail_msg("%s: %s '%s'", path, status_name(s), err.text);
    } else {
        assert_int_equal(n_entries(f->path), 0);
    }
    folder_empty(f->path);
    adapter_release(v);
    return s == STATUS_OK;
}

/* Families that differ in how their files have things: fused, turned, tied, experts. Some of the
 * adapters of each: writing is what takes time. */
static void every_family_with_adapters_inside(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t step;
    } families[] = {{"llama", 2}, {"gpt2", 2},    {"phi3", 3},      {"gemma3", 4},
                    {"qwen2", 3}, {"mixtral", 3}, {"qwen3_moe", 3}, {"smollm", 2}};
    struct folder f = folder_make();
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        char path[300], sub[64], *names[128];
        struct rig r;
        size_t n_merged = 0;
        snprintf(path, sizeof path, GOLDEN_OWN "/models/%s/f32", families[i].name);
        open_rig(&r, path);
        snprintf(sub, sizeof sub, "adapters/%s", families[i].name);
        size_t n = golden_list(GOLDEN_OWN, sub, "", names, 128);
        for (size_t a = 0; a < n; a++) {
            snprintf(path, sizeof path, GOLDEN_OWN "/%s/%s", sub, names[a]);
            bool wanted = a % families[i].step == 0 && strcmp(names[a], "wrong_base") != 0 &&
                          strncmp(names[a], "shows", 5) != 0;
            n_merged += wanted && check_adapter(&r, path, &f);
            free(names[a]);
        }
        assert_true(n_merged >= 2);
        rig_close(&r);
    }
    folder_remove(&f);
}

static void sums_shards_and_types(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct rig r;
    struct error err;
    struct merge_folder_report report;
    char out[100];
    open_rig(&r, GOLDEN_OWN "/models/olmo2/bf16_sharded");
    char *names[64];
    size_t n = golden_list(GOLDEN_OWN, "adapters/olmo2", "", names, 64);
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    struct adapter_version *v[2] = {load(&r, GOLDEN_OWN "/adapters/olmo2/all_r3_bf16"),
                                    load(&r, GOLDEN_OWN "/adapters/olmo2/overlap_r3")};
    struct lora *sum, *loras[2] = {v[0]->lora, v[1]->lora};
    assert_int_equal(lora_compose(loras, (const float[]){0.5F, -1}, 2, &sum, &err), STATUS_OK);
    struct merge_options o = options_of(&r, sum);
    o.type = DTYPE_F32;
    o.shard_bytes = 20000;
    snprintf(out, sizeof out, "%s/f32", f.path);
    if (adapter_merge_folder(out, &o, &report, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_true(report.n_files > 2 && report.delta_norm > 0);
    assert_true(file_exists_at(f.fd, "f32/model.safetensors.index.json"));
    assert_true(file_exists_at(f.fd, "f32/model-00001-of-00002.safetensors") == (report.n_files == 2));
    /* a bf16 base keeps its K and V in f16: the folder's f32 doesn't */
    assert_true(apart(&r, sum, out) < 1e-2);
    o.type = DTYPE_COUNT; /* bf16, as the base */
    o.shard_bytes = 0;
    snprintf(out, sizeof out, "%s/bf16", f.path);
    assert_int_equal(adapter_merge_folder(out, &o, &report, &err), STATUS_OK);
    assert_true(report.n_files == 1 && report.error_norm > 0 && report.error_norm < 0.1 * report.delta_norm);
    assert_true(apart(&r, sum, out) < 3e-2);
    lora_release(sum);
    adapter_release(v[0]);
    adapter_release(v[1]);
    rig_close(&r);
    folder_remove(&f);
}

/* A LoRA of rank 2 on o_proj of the only layer of models/f8/channel. */
static void put_adapter(const char *dir)
{
    static const char header[] =
        "{\"base_model.model.model.layers.0.self_attn.o_proj.lora_A.weight\":{\"dtype\":\"F32\","
        "\"shape\":[2,32],\"data_offsets\":[0,256]},"
        "\"base_model.model.model.layers.0.self_attn.o_proj.lora_B.weight\":{\"dtype\":\"F32\","
        "\"shape\":[32,2],\"data_offsets\":[256,512]}}";
    struct buf b;
    buf_init(&b, 0);
    put_u64(&b, strlen(header));
    assert_true(buf_puts(&b, header));
    for (int i = 0; i < 128; i++) {
        float v = (float)(i * 37 % 11 - 5) / 8;
        assert_true(buf_append(&b, &v, sizeof v));
    }
    put_file(dir, "adapter_model.safetensors", b.data, b.length);
    buf_fini(&b);
    put_text(dir, "adapter_config.json",
             "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":2,\"target_modules\":[\"o_proj\"]}");
}

/* What was stored as F8 with scales becomes bf16 or f32, and the configuration says so. */
static void quantised_bases_are_widened(void **state)
{
    (void)state;
    struct folder f = folder_make(), adapter = folder_make();
    struct rig r;
    struct error err;
    struct merge_folder_report report;
    char out[100];
    put_adapter(adapter.path);
    open_rig(&r, GOLDEN_OWN "/models/f8/channel");
    struct adapter_version *v;
    if (golden_adapter("", adapter.path, r.m, 1, &v, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    for (int i = 0; i < 2; i++) {
        struct merge_options o = options_of(&r, v->lora);
        o.type = i ? DTYPE_F32 : DTYPE_COUNT;
        snprintf(out, sizeof out, "%s/%d", f.path, i);
        if (adapter_merge_folder(out, &o, &report, &err) != STATUS_OK)
            fail_msg("%s", err.text);
        double d = apart(&r, v->lora, out);
        if (d > 2e-2)
            fail_msg("%g apart", d);
    }
    adapter_release(v);
    rig_close(&r);
    folder_remove(&f);
    folder_remove(&adapter);
}

static void a_gguf_base_needs_a_folder_like_it(void **state)
{
    (void)state;
    static const char *const cases[][3] = {{"llama-F32.gguf", "llama", "all_r16"},
                                           {"gemma3-F16.gguf", "gemma3", "qv_r8"},
                                           {"qwen2-Q8_0.gguf", "qwen2", "qv_r8"}};
    struct folder f = folder_make();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rig r;
        struct error err;
        struct merge_folder_report report;
        char path[300], like[300], out[100];
        snprintf(path, sizeof path, GOLDEN_SHARED "/gguf/%s", cases[i][0]);
        if (!file_exists(path)) {
            print_message("skip: %s is absent\n", path);
            folder_remove(&f);
            skip();
        }
        snprintf(like, sizeof like, GOLDEN_SHARED "/models/%s/f32", cases[i][1]);
        open_rig_like(&r, path, like);
        snprintf(path, sizeof path, GOLDEN_SHARED "/adapters/%s/%s", cases[i][1], cases[i][2]);
        struct adapter_version *v = load(&r, path);
        struct merge_options o = options_of(&r, v->lora);
        snprintf(out, sizeof out, "%s/merged", f.path);
        assert_int_equal(adapter_merge_folder(out, &o, &report, &err), STATUS_UNSUPPORTED);
        assert_non_null(strstr(err.text, "--like FOLDER"));
        o.like = like;
        o.type = DTYPE_F32;
        if (adapter_merge_folder(out, &o, &report, &err) != STATUS_OK)
            fail_msg("%s: %s", cases[i][0], err.text);
        /* its K and V are f16, the folder's are not: coarse */
        double d = apart(&r, v->lora, out);
        if (d > 2e-2)
            fail_msg("%s: %g apart", cases[i][0], d);
        adapter_release(v);
        rig_close(&r);
        folder_empty(f.path);
    }
    folder_remove(&f);
}

static bool stop_now(void)
{
    return true;
}

static void refused_leaves_nothing(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct rig r;
    struct error err;
    struct merge_folder_report report;
    char out[100];
    open_rig(&r, GOLDEN_OWN "/models/llama/f32");
    struct adapter_version *v = load(&r, GOLDEN_OWN "/adapters/llama/qv_r4"),
                           *alora = load(&r, GOLDEN_OWN "/adapters/llama/alora_r4");
    struct merge_options o = options_of(&r, v->lora);
    snprintf(out, sizeof out, "%s/merged", f.path);
    assert_int_equal(adapter_merge_folder(f.path, &o, &report, &err), STATUS_EXISTS);
    o.lora = alora->lora;
    assert_int_equal(adapter_merge_folder(out, &o, &report, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "alora_invocation_tokens"));
    o.lora = v->lora;
    o.stop = stop_now;
    assert_int_equal(adapter_merge_folder(out, &o, &report, &err), STATUS_CANCELLED);
    o.stop = NULL;
    o.like = GOLDEN_OWN "/models/gpt2/f32"; /* another model's configuration */
    assert_int_not_equal(adapter_merge_folder(out, &o, &report, &err), STATUS_OK);
    assert_non_null(strstr(err.text, "would not load"));
    o.like = NULL;
    enum status s = STATUS_NO_MEMORY;
    for (uint64_t n = 1; s != STATUS_OK && n < 4000; n += 1 + n / 16) {
        assert_int_equal(n_entries(f.path), 0);
        mem_fail_at(n);
        s = adapter_merge_folder(out, &o, &report, &err);
        mem_fail_at(0);
        if (s != STATUS_OK && s != STATUS_NO_MEMORY && s != STATUS_TOO_LARGE)
            fail_msg("allocation %d: %s '%s'", (int)n, status_name(s), err.text);
    }
    assert_int_equal(s, STATUS_OK);
    adapter_release(v);
    adapter_release(alora);
    rig_close(&r);
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_with_adapters_inside),
        cmocka_unit_test(sums_shards_and_types),
        cmocka_unit_test(quantised_bases_are_widened),
        cmocka_unit_test(a_gguf_base_needs_a_folder_like_it),
        cmocka_unit_test(refused_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
