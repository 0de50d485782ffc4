/* core/model/merge.c: a merged copy is the unmerged adapter within the stated error of its type, for every
 * kind of adapter on every family of the own goldens; what can't be merged is refused by name. */
#include "tests/test.h"

#include "golden_set.h"
#include "model_inner.h"

#define LLAMA GOLDEN_OWN "/models/llama/f32"
#define NAMES_MAX 64U
enum { N_PROMPT = 40 };

static int32_t prompt[N_PROMPT];

static int make_prompt(void **state)
{
    (void)state;
    for (int i = 0; i < N_PROMPT; i++)
        prompt[i] = 3 + (i * 37 + i * i) % 250;
    return 0;
}

/* Logits of the whole prompt, [N_PROMPT, vocab]; freed by the caller. The rig's scratch is another model's.
 */
static float *logits_of(const struct rig *r, const struct model *m, struct lora *lora)
{
    struct rig own = {.m = (struct model *)(uintptr_t)m, .team = r->team};
    struct kv_shape shape = model_kv_shape(m, DTYPE_F32);
    struct rig_line line = {.lora = lora, .prompt = prompt, .n_prompt = N_PROMPT, .n_new = 1};
    struct error err;
    assert_int_equal(kv_cache_create(&shape, 8, &own.kv, &err), STATUS_OK);
    assert_int_equal(step_space_create(m, &shape, N_PROMPT, 1, N_PROMPT, r->team, &own.space, &err),
                     STATUS_OK);
    rig_run(&own, &line, 1, N_PROMPT, 0);
    step_space_destroy(own.space);
    kv_cache_destroy(own.kv);
    free(line.ids);
    return line.logits;
}

static double distance(const struct model *m, const float *a, const float *b)
{
    size_t n = (size_t)N_PROMPT * model_config(m)->vocab_size;
    double worst = 0;
    for (size_t i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)a[i] - b[i]));
    return worst / largest(a, n);
}

/* The same as roots of mean squares: steadier where rounding alone is compared. */
static double rms_distance(const struct model *m, const float *a, const float *b)
{
    size_t n = (size_t)N_PROMPT * model_config(m)->vocab_size;
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)a[i] * a[i];
    }
    return sqrt(difference / size);
}

static struct model *must_merge(const struct model *m, struct lora *l, enum dtype type, struct team *team)
{
    struct model *merged;
    struct error err;
    if (model_merge(m, l, type, team, &merged, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return merged;
}

/* ---- stored weights ---- */

static double row_bound(enum dtype type, const float *fine, uint32_t block, uint32_t n)
{
    double max = largest(fine + block, n);
    return type == DTYPE_BF16 ? max * 0x1p-8 : max * (1.0 / 254 + 0x1p-11) + 0x1p-18;
}

/* Each weight within its type's bound of the f32 merge's; the sum of squares of the errors. */
static double compare_matrix(const struct packed *fine, const struct packed *stored)
{
    float *a = malloc(fine->cols * sizeof *a), *b = malloc(fine->cols * sizeof *b);
    uint32_t block = stored->type == DTYPE_Q8_0 ? 32 : 1;
    double squares = 0;
    for (uint32_t r = 0; fine->data != stored->data && r < fine->rows; r++) {
        packed_row_f32(fine, r, a);
        packed_row_f32(stored, r, b);
        for (uint32_t k = 0; k < fine->cols; k++) {
            double error = fabs((double)a[k] - b[k]);
            squares += error * error;
            if (stored->type != fine->type)
                assert_true(error <= row_bound(stored->type, a, k / block * block, block));
            else
                assert_true(error == 0);
        }
    }
    free(a);
    free(b);
    return squares;
}

static double compare_models(const struct model *fine, const struct model *stored)
{
    double squares = compare_matrix(&fine->head, &stored->head);
    if (fine->embed.data != fine->head.data)
        squares += compare_matrix(&fine->embed, &stored->embed);
    for (uint32_t i = 0; i < fine->config.n_layers; i++) {
        const struct model_layer *a = &fine->layers[i], *b = &stored->layers[i];
        for (unsigned s = 0; s < N_LAYER_SITES; s++)
            if (a->w[s].data)
                squares += compare_matrix(&a->w[s], &b->w[s]);
        for (uint32_t e = 0; a->experts && e < 3 * fine->config.n_experts; e++)
            squares += compare_matrix(&a->experts[e], &b->experts[e]);
    }
    return sqrt(squares);
}

/* ---- every kind ---- */

/* Storing rounds the touched weights as --quant rounds all of them, so what --quant does to the base's logits
 * measures what merging may do to the adapter's. */
#define N_STORED 2
static const struct {
    enum dtype type;
    enum quant quant;
} stored_types[N_STORED] = {{DTYPE_BF16, QUANT_BF16}, {DTYPE_Q8_0, QUANT_Q8_0}};

static void measure_noise(const struct rig *r, double noise[N_STORED])
{
    float *plain = logits_of(r, r->m, NULL);
    for (size_t i = 0; i < N_STORED; i++) {
        struct model *m;
        struct error err;
        struct model_options o = {.kernels = r->m->kernels, .quant = stored_types[i].quant};
        assert_int_equal(model_open(r->files, &o, &m, &err), STATUS_OK);
        float *rounded = logits_of(r, m, NULL);
        noise[i] = rms_distance(m, plain, rounded);
        free(rounded);
        model_close(m);
    }
    free(plain);
}

struct counts {
    unsigned merged, refused;
};

static bool can_merge(const struct lora *l)
{
    return l->n_invocation == 0 && !l->lm_head.part[0].bias;
}

static void check_merged(struct rig *r, struct lora *l, const double noise[N_STORED], const char *what)
{
    float *unmerged = logits_of(r, r->m, l);
    struct model *fine = must_merge(r->m, l, DTYPE_F32, r->team);
    const struct merge_report *report = model_merge_report(fine);
    float *logits = logits_of(r, fine, NULL);
    double d = distance(r->m, unmerged, logits);
    if (d > 2e-5)
        fail_msg("%s: merged in f32, logits differ by %.3g of the largest", what, d);
    assert_true(report->error_norm == 0 && report->size_bytes > 0);
    assert_memory_not_equal(fine->info.digest, r->m->info.digest, 32);
    free(logits);
    for (size_t i = 0; i < N_STORED; i++) {
        struct model *stored = must_merge(r->m, l, stored_types[i].type, r->team);
        double error = compare_models(fine, stored), told = model_merge_report(stored)->error_norm;
        assert_true(fabs(error - told) <= 1e-5 * error);
        assert_true(model_merge_report(stored)->delta_norm == report->delta_norm);
        logits = logits_of(r, stored, NULL);
        d = rms_distance(r->m, unmerged, logits);
        /* a router's choice is no continuous function: one that rounding turns leaves no bound */
        if (d > 2 * noise[i] + 2e-5 && r->m->config.n_experts == 0)
            fail_msg("%s: merged in %s, logits differ by %.3g of the largest; --quant's by %.3g", what,
                     dtype_name(stored_types[i].type), d, noise[i]);
        free(logits);
        model_close(stored);
    }
    model_close(fine);
    free(unmerged);
}

static void check_adapter(struct rig *r, const double noise[N_STORED], const char *path, struct counts *n)
{
    struct adapter_version *v;
    struct model *merged;
    struct error err;
    if (strstr(path, "/wrong_base"))
        return;
    if (golden_adapter(GOLDEN_OWN, path, r->m, 1, &v, &err) != STATUS_OK)
        fail_msg("%s: %s", path, err.text);
    if (can_merge(v->lora)) {
        check_merged(r, v->lora, noise, path);
        n->merged++;
    } else {
        assert_int_equal(model_merge(r->m, v->lora, DTYPE_F32, NULL, &merged, &err), STATUS_UNSUPPORTED);
        assert_non_null(strstr(err.text, "unmerged"));
        assert_null(merged);
        n->refused++;
    }
    adapter_release(v);
}

static void check_family(const char *family, struct counts *n)
{
    char *names[NAMES_MAX], path[200];
    double noise[N_STORED];
    struct rig r;
    struct error err;
    snprintf(path, sizeof path, GOLDEN_OWN "/models/%s/f32", family);
    if (!path_is_folder(path)) /* the F8 models have no adapters */
        return;
    if (!rig_open(&r, path, &(struct rig_options){.n_threads = 2}, &err))
        fail_msg("%s: %s", path, err.text);
    snprintf(path, sizeof path, "adapters/%s", family);
    size_t n_names = golden_list(GOLDEN_OWN, path, "", names, NAMES_MAX);
    measure_noise(&r, noise);
    for (size_t i = 0; i < n_names; i++) {
        snprintf(path, sizeof path, "adapters/%s/%s", family, names[i]);
        check_adapter(&r, noise, path, n);
        free(names[i]);
    }
    rig_close(&r);
}

static void every_kind_of_every_family(void **state)
{
    (void)state;
    char *families[NAMES_MAX];
    size_t n_families = golden_list(GOLDEN_OWN, "models", "", families, NAMES_MAX);
    struct counts n = {0};
    for (size_t f = 0; f < n_families; f++) {
        check_family(families[f], &n);
        free(families[f]);
    }
    printf("  %u adapters merged, %u can't be\n", n.merged, n.refused);
    assert_true(n.merged >= 75 && n.refused >= 2);
}

/* ---- one adapter more closely ---- */

struct fixture {
    struct rig r;
    struct adapter_version *v;
};

static void fixture_open(struct fixture *f, const char *adapter, double scale, enum quant quant)
{
    struct error err;
    struct rig_options o = {.n_threads = 2, .quant = quant, .act_mode = ACT_MODE_F32};
    if (!rig_open(&f->r, LLAMA, &o, &err) ||
        golden_adapter(GOLDEN_OWN, adapter, f->r.m, scale, &f->v, &err) != STATUS_OK)
        fail_msg("%s", err.text);
}

static void fixture_close(struct fixture *f)
{
    adapter_release(f->v);
    rig_close(&f->r);
}

/* The base stays as it is, and what is untouched is its memory; the merged copy outlives the adapter's other
 * references. */
static void shares_what_is_untouched(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "adapters/llama/qv_r4", 1, QUANT_AUTO);
    float *before = logits_of(&f.r, f.r.m, NULL), *with = logits_of(&f.r, f.r.m, f.v->lora);
    struct model *m = must_merge(f.r.m, f.v->lora, DTYPE_F32, f.r.team);
    adapter_release(f.v);
    f.v = NULL;
    float *after = logits_of(&f.r, f.r.m, NULL), *merged = logits_of(&f.r, m, NULL);
    assert_true(distance(m, before, after) == 0 && distance(m, with, merged) <= 2e-5);
    assert_true(distance(m, before, merged) > 1e-3); /* the adapter does something */
    const struct merge_report *report = model_merge_report(m);
    assert_int_equal(report->n_matrices, 4);
    assert_true(report->size_bytes < 4 * (32 * 32 + 16 * 32) * 2 + 2 * sizeof(struct model_layer) + 1);
    assert_true(report->delta_norm > 0);
    assert_int_equal(model_info(m)->size_bytes, report->size_bytes);
    assert_ptr_equal(m->layers[0].w[LORA_SITE_UP].data, f.r.m->layers[0].w[LORA_SITE_UP].data);
    assert_ptr_equal(m->head.data, f.r.m->head.data);
    assert_ptr_not_equal(m->layers[0].w[LORA_SITE_Q].data, f.r.m->layers[0].w[LORA_SITE_Q].data);
    assert_null(model_merge_report(f.r.m));
    model_close(m);
    free(before);
    free(with);
    free(after);
    free(merged);
    fixture_close(&f);
}

/* A tied head that is adapted becomes a matrix of its own; the embedding stays. */
static void a_tied_head_is_untied(void **state)
{
    (void)state;
    struct rig r;
    struct error err;
    struct adapter_version *v;
    assert_true(rig_open(&r, GOLDEN_OWN "/models/gemma3/f32", &(struct rig_options){.n_threads = 1}, &err));
    assert_int_equal(golden_adapter(GOLDEN_OWN, "adapters/gemma3/head_r4", r.m, 1, &v, &err), STATUS_OK);
    assert_true(r.m->tied);
    struct model *m = must_merge(r.m, v->lora, DTYPE_F32, r.team);
    assert_false(m->tied);
    assert_ptr_equal(m->embed.data, r.m->embed.data);
    assert_ptr_not_equal(m->head.data, r.m->head.data);
    model_close(m);
    adapter_release(v);
    rig_close(&r);
}

static void the_team_changes_nothing(void **state)
{
    (void)state;
    struct fixture f;
    struct team *three = team_create(3);
    fixture_open(&f, "adapters/llama/all_r8_bf16", 1, QUANT_AUTO);
    for (size_t i = 0; i < N_STORED; i++) {
        struct model *alone = must_merge(f.r.m, f.v->lora, stored_types[i].type, NULL);
        struct model *crowd = must_merge(f.r.m, f.v->lora, stored_types[i].type, three);
        assert_true(compare_models(alone, crowd) == 0);
        model_close(alone);
        model_close(crowd);
    }
    team_destroy(three);
    fixture_close(&f);
}

static void scale_zero_is_the_base(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, "adapters/llama/all_r8_bf16", 0, QUANT_AUTO);
    struct model *m = must_merge(f.r.m, f.v->lora, DTYPE_F32, f.r.team);
    assert_true(compare_models(f.r.m, m) == 0 && model_merge_report(m)->delta_norm == 0);
    model_close(m);
    fixture_close(&f);
}

/* On a quantised base the merged copies hold its values plus the delta. */
static void quantised_bases_merge_too(void **state)
{
    (void)state;
    static const enum quant quants[] = {QUANT_BF16, QUANT_Q8_0, QUANT_Q4_0};
    for (size_t i = 0; i < 3; i++) {
        struct fixture f;
        struct error err;
        fixture_open(&f, "adapters/llama/all_r8_bf16", 1, quants[i]);
        double noise[N_STORED];
        struct rig plain;
        assert_true(rig_open(&plain, LLAMA, &(struct rig_options){.n_threads = 1}, &err));
        measure_noise(&plain, noise);
        rig_close(&plain);
        check_merged(&f.r, f.v->lora, noise, "on a quantised base");
        struct model *m = must_merge(f.r.m, f.v->lora, DTYPE_Q8_0, NULL);
        assert_int_equal(m->layers[0].w[LORA_SITE_Q].type, DTYPE_Q8_0);
        /* rows of 48 values are no whole blocks: they stay what they were */
        assert_int_equal(m->layers[0].w[LORA_SITE_DOWN].type, f.r.m->layers[0].w[LORA_SITE_DOWN].type);
        model_close(m);
        fixture_close(&f);
    }
}

static void coarse_types_are_refused(void **state)
{
    (void)state;
    static const enum dtype types[] = {DTYPE_Q4_0, DTYPE_F16, DTYPE_Q4_K, DTYPE_I32};
    struct fixture f;
    struct model *m;
    struct error err;
    fixture_open(&f, "adapters/llama/qv_r4", 1, QUANT_AUTO);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        assert_int_equal(model_merge(f.r.m, f.v->lora, types[i], NULL, &m, &err), STATUS_UNSUPPORTED);
        assert_non_null(strstr(err.text, dtype_name(types[i])));
        assert_non_null(strstr(err.text, "expected f32, bf16 or q8_0"));
        assert_null(m);
    }
    fixture_close(&f);
}

static void survives_short_memory(void **state)
{
    (void)state;
    struct fixture f;
    struct model *m;
    struct error err;
    enum status s = STATUS_NO_MEMORY;
    fixture_open(&f, "adapters/llama/all_r8_bf16", 1, QUANT_AUTO);
    for (uint64_t n = 1; s != STATUS_OK; n++) {
        mem_fail_at(n);
        s = model_merge(f.r.m, f.v->lora, DTYPE_BF16, f.r.team, &m, &err);
        mem_fail_at(0);
        assert_true(s == STATUS_OK || (s == STATUS_NO_MEMORY && !m && n < 100));
        assert_int_equal(atomic_load(&f.v->lora->refs), s == STATUS_OK ? 2 : 1);
    }
    model_close(m);
    assert_int_equal(atomic_load(&f.v->lora->refs), 1);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_every_family), cmocka_unit_test(shares_what_is_untouched),
        cmocka_unit_test(a_tied_head_is_untied),      cmocka_unit_test(the_team_changes_nothing),
        cmocka_unit_test(scale_zero_is_the_base),     cmocka_unit_test(quantised_bases_merge_too),
        cmocka_unit_test(coarse_types_are_refused),   cmocka_unit_test(survives_short_memory),
    };
    return cmocka_run_group_tests(tests, make_prompt, NULL);
}
