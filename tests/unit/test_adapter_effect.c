/* adapters: the effect test. Golden adapters are seen, whatever their kind; zeros, a scale of 0 and
 * differences below rounding are none; infinities and explosions are refused; norms are those of the whole
 * product. */
#include "tests/test.h"

#include <dirent.h>
#include <math.h>

#include "adapters.h"
#include "base/mem.h"
#include "effect_inner.h"
#include "format.h"
#include "loader.h"
#include "model.h"
#include "tests/unit/made_adapters.h"
#include "tests/unit/plain_model.h"

#define DATA "tests/golden/data/"
#define LLAMA DATA "models/llama/f32"
#define Q PRE "model.layers.0.self_attn.q_proj"

static const int32_t first[] = {1, 17, 200, 33, 91, 4, 250, 101};
static const int32_t second[] = {1, 5};
static const struct effect_probe prompts[] = {{first, 8}, {second, 2}};

static uint32_t bytes_as_tokens(void *data, const char *text, size_t n, int32_t *tokens, uint32_t n_max)
{
    (void)data;
    for (size_t i = 0; i < n && i < n_max; i++)
        tokens[i] = (unsigned char)text[i];
    return (uint32_t)n;
}

static struct effect_probes *make_probes(const struct model *m)
{
    struct effect_probes *p = NULL;
    struct error err = {0};
    struct effect_probes_options o = {
        .base = m, .prompts = prompts, .n_prompts = 2, .tokenize = bytes_as_tokens};
    if (effect_probes_create(&o, &p, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return p;
}

struct trial {
    struct folder folder;
    struct model *m;
    struct effect_probes *probes;
    struct adapter_findings found;
    struct error err;
    double scale;
};

static void trial_begin(struct trial *t)
{
    *t = (struct trial){.folder = folder_make(), .m = open_model(LLAMA), .scale = 1};
    t->probes = make_probes(t->m);
}

static void trial_end(struct trial *t)
{
    effect_probes_destroy(t->probes);
    model_close(t->m);
    folder_remove(&t->folder);
}

static enum status load(struct trial *t, const char *path, enum effect_mode mode)
{
    struct adapter_version *v = NULL;
    struct adapter_source s = {.name = "x",
                               .path = path,
                               .root_fd = -1,
                               .scale = t->scale,
                               .effect = mode,
                               .probes = t->probes,
                               .findings = &t->found};
    t->err = (struct error){0};
    enum status st = adapter_load(&s, t->m, &v, &t->err);
    if (v)
        assert_memory_equal(&v->effect, &t->found.effect, sizeof v->effect);
    adapter_release(v);
    return st;
}

/* A pair on q_proj (or another module) of the first layer, all values of A and of B alike. */
static void put_pair(const struct trial *t, const char *module, uint32_t out, float a, float b)
{
    struct buf header, all;
    char name_a[100], name_b[100];
    uint32_t n_a = 2 * 32, n_b = out * 2;
    snprintf(name_a, sizeof name_a, PRE "%s.lora_A.weight", module);
    snprintf(name_b, sizeof name_b, PRE "%s.lora_B.weight", module);
    buf_init(&header, 0);
    buf_init(&all, 0);
    buf_printf(
        &header,
        "{\"%s\":{\"dtype\":\"F32\",\"shape\":[2,32],\"data_offsets\":[0,%u]},\"%s\":{\"dtype\":\"F32\","
        "\"shape\":[%u,2],\"data_offsets\":[%u,%u]}}",
        name_a, 4 * n_a, name_b, out, 4 * n_a, 4 * (n_a + n_b));
    put_u64(&all, header.length);
    buf_append(&all, header.data, header.length);
    for (uint32_t i = 0; i < n_a + n_b; i++)
        buf_append(&all, i < n_a ? &a : &b, sizeof a);
    put_text(t->folder.path, "adapter_config.json", "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":2}");
    put_file(t->folder.path, "adapter_model.safetensors", all.data, all.length);
    buf_fini(&header);
    buf_fini(&all);
}

static void expect(struct trial *t, enum effect_outcome outcome, const char *words)
{
    bool bad = effect_is_bad(outcome);
    assert_int_equal(load(t, t->folder.path, EFFECT_WARN), STATUS_OK);
    if (t->found.effect.outcome != outcome || !strstr(t->found.effect.what, words))
        fail_msg("found %s '%s', expected %s '%s'", effect_outcome_name(t->found.effect.outcome),
                 t->found.effect.what, effect_outcome_name(outcome), words);
    assert_int_equal(load(t, t->folder.path, EFFECT_ENFORCE), bad ? STATUS_INVALID : STATUS_OK);
    assert_int_equal(t->found.effect.outcome, outcome);
    assert_int_equal(t->found.fault, !bad                     ? ADAPTER_FAULT_NONE
                                     : outcome == EFFECT_NONE ? ADAPTER_FAULT_NO_EFFECT
                                                              : ADAPTER_FAULT_NON_FINITE);
    if (bad)
        assert_string_equal(t->err.text, t->found.effect.what);
    struct adapter_findings off = t->found;
    assert_int_equal(load(t, t->folder.path, EFFECT_OFF), STATUS_OK);
    off = t->found;
    assert_int_equal(off.effect.outcome, EFFECT_UNTESTED);
}

static void what_has_no_effect_is_refused(void **state)
{
    (void)state;
    struct trial t;
    trial_begin(&t);
    put_pair(&t, "model.layers.0.self_attn.q_proj", 32, 0.1F, 0);
    expect(&t, EFFECT_NONE, "no effect: scale * B A is zero in every module");
    put_pair(&t, "model.layers.0.self_attn.q_proj", 32, 0, 0.1F);
    expect(&t, EFFECT_NONE, "no effect: scale * B A is zero in every module");
    put_pair(&t, "model.layers.0.self_attn.q_proj", 32, 1e-18F, 1e-10F); /* drowns in rounding */
    expect(&t, EFFECT_NONE, "no effect: all logits at 10 positions are the base's, to the last bit");
    assert_true(t.found.report.digest_hex[0] && t.found.effect.n_positions == 0); /* off at last */
    put_pair(&t, "model.layers.0.self_attn.q_proj", 32, 0.1F, 0.1F);
    expect(&t, EFFECT_SEEN, "KL to the base");
    t.scale = 0;
    expect(&t, EFFECT_NONE, "no effect: ");
    assert_int_equal(load(&t, DATA "adapters/llama/dora_r3", EFFECT_ENFORCE), STATUS_INVALID);
    assert_non_null(strstr(t.err.text, "no effect: its scale is 0"));
    trial_end(&t);
}

static void broken_numbers_are_refused(void **state)
{
    (void)state;
    struct trial t;
    trial_begin(&t);
    put_pair(&t, "model.layers.0.self_attn.q_proj", 32, 1e30F, 1e30F);
    expect(&t, EFFECT_NON_FINITE, "non-finite logits");
    put_pair(&t, "lm_head", 384, 1e3F, 1e3F);
    expect(&t, EFFECT_EXPLODES, "exploding logits");
    put_pair(&t, "lm_head", 384, 0.1F, 0.1F);
    expect(&t, EFFECT_SEEN, "");
    trial_end(&t);
}

/* |s B A| of every pair that the files hold, by its definition. */
static void sum_norms(const struct lora_spec *spec, double sum[LORA_SITE_COUNT])
{
    for (size_t i = 0; i < spec->n_pairs; i++) {
        const struct lora_pair *p = &spec->pairs[i];
        require(p->module.n_sites == 1 && p->a_type == DTYPE_F32 && p->b_type == DTYPE_F32);
        const float *a = p->a, *b = p->b;
        for (uint32_t o = 0; o < p->out; o++)
            for (uint32_t k = 0; k < p->in; k++) {
                double v = 0;
                for (uint32_t r = 0; r < p->rank; r++)
                    v += (double)b[(size_t)o * p->rank + r] * a[(size_t)r * p->in + k];
                sum[p->module.site] += v * p->scale * v * p->scale;
            }
    }
}

static void norms_are_those_of_the_product(void **state)
{
    (void)state;
    struct trial t;
    struct loading l;
    struct adapter_report report = {.n_modules = 0};
    struct adapter_source s = {
        .name = "x", .path = DATA "adapters/llama/patterns", .root_fd = -1, .scale = 1};
    double sum[LORA_SITE_COUNT] = {0};
    trial_begin(&t);
    assert_int_equal(loading_begin(&l, &s, t.m, &report, &t.err), STATUS_OK);
    sum_norms(&l.content->spec, sum);
    loading_end(&l);
    t.scale = -0.5;
    assert_int_equal(load(&t, s.path, EFFECT_ENFORCE), STATUS_OK);
    unsigned n = 0;
    for (unsigned i = 0; i < LORA_SITE_COUNT; i++) {
        const struct effect_norm *norm = &t.found.effect.norm[i];
        double expected = 0.5 * sqrt(sum[i]);
        assert_true(fabs(norm->delta - expected) <= 1e-5 * expected);
        assert_true((norm->base > 0) == (expected > 0));
        n += expected > 0;
    }
    assert_true(n >= 2);
    /* 32 rows are all of q's, so the base's is exact here. */
    double q2 = 0;
    struct model_matrix x;
    float row[64];
    for (size_t i = 0; model_matrix_at(t.m, i, &x); i++)
        for (uint32_t r = 0; x.kind == MATRIX_LINEAR && x.site == LORA_SITE_Q && r < x.w->rows; r++) {
            packed_row_f32(x.w, r, row);
            for (uint32_t k = 0; k < x.w->cols; k++)
                q2 += (double)row[k] * row[k];
        }
    assert_true(fabs(t.found.effect.norm[LORA_SITE_Q].base - sqrt(q2)) < 1e-6 * sqrt(q2));
    trial_end(&t);
}

/* ---- every kind of the own set */

static unsigned check_family(const char *family)
{
    char path[200], models[200];
    unsigned n = 0;
    snprintf(models, sizeof models, DATA "models/%s/f32", family);
    snprintf(path, sizeof path, DATA "adapters/%s", family);
    DIR *d = path_is_folder(models) ? opendir(path) : NULL;
    if (!d)
        return 0;
    struct trial t = {.m = open_model(models), .scale = 1};
    t.probes = make_probes(t.m);
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, DATA "adapters/%s/%s", family, e->d_name);
        if (e->d_name[0] == '.' || !adapter_is_at(path))
            continue;
        enum status s = load(&t, path, EFFECT_ENFORCE);
        if (s != STATUS_OK && s != STATUS_INVALID) /* files of another base are among them */
            continue;
        const struct effect_report *r = &t.found.effect;
        if (s != STATUS_OK || r->outcome != EFFECT_SEEN)
            fail_msg("%s: %s: %s", path, effect_outcome_name(r->outcome),
                     s == STATUS_OK ? r->what : t.err.text);
        if (!(r->mean_kl > 0 && r->max_kl >= r->mean_kl && isfinite(r->max_kl) && r->agreement >= 0 &&
              r->agreement <= 1 && r->max_logit > 0 && r->base_max_logit > 0))
            fail_msg("%s: %s", path, r->what);
        n++;
    }
    closedir(d);
    effect_probes_destroy(t.probes);
    model_close(t.m);
    return n;
}

static void every_golden_adapter_is_seen(void **state)
{
    (void)state;
    static const char *const families[] = {"llama",   "mistral", "qwen2",    "qwen3",  "gemma2",
                                           "gemma3",  "phi3",    "gpt2",     "smollm", "olmo2",
                                           "granite", "mixtral", "qwen3_moe"};
    unsigned n = 0;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        n += check_family(families[i]);
    assert_true(n > 20);
    print_message("%u adapters\n", n);
}

/* ---- prompts of the adapter's own */

static void own_probes_take_the_place_of_the_built_in(void **state)
{
    (void)state;
    struct trial t;
    trial_begin(&t);
    put_pair(&t, "model.layers.0.self_attn.q_proj", 32, 0.1F, 0.1F);
    assert_int_equal(load(&t, t.folder.path, EFFECT_ENFORCE), STATUS_OK);
    double builtin = t.found.effect.mean_kl;
    char digest[65];
    memcpy(digest, t.found.report.digest_hex, sizeof digest);
    put_text(t.folder.path, "probes.jsonl", "{\"tokens\": [1, 2, 3]}\n\n  \n{\"prompt\": \"hallo\"}");
    assert_int_equal(load(&t, t.folder.path, EFFECT_ENFORCE), STATUS_OK);
    const struct effect_report *r = &t.found.effect;
    assert_true(r->own_probes && r->n_prompts == 2 && r->n_positions == 8);
    assert_true(r->mean_kl > 0 && r->mean_kl != builtin);
    assert_string_equal(t.found.report.digest_hex, digest); /* no part of what it is */
    /* A prompt of the same tokens is the same test. */
    put_text(t.folder.path, "probes.jsonl", "{\"tokens\":[1,17,200,33,91,4,250,101]}\n{\"tokens\":[1,5]}\n");
    assert_int_equal(load(&t, t.folder.path, EFFECT_ENFORCE), STATUS_OK);
    assert_true(t.found.effect.mean_kl == builtin);
    trial_end(&t);
}

static void malformed_probes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "no prompts in it"},
        {"\n \n", "no prompts in it"},
        {"{\"tokens\":[1]}\n{\"tokens\":[384]}", "probes.jsonl, line 2: tokens: item 1 is no token"},
        {"{\"tokens\":[-1]}", "item 1 is no token"},
        {"{\"tokens\":[1.5]}", "item 1 is no token"},
        {"{\"tokens\":[]}", "tokens has 0 items"},
        {"{\"tokens\":\"1\"}", "line 1: expected"},
        {"{\"prompt\":\"\"}", "no tokens can be made"},
        {"{\"prompt\":\"a\",\"tokens\":[1]}", "line 1: expected"},
        {"[1]", "line 1: expected"},
        {"{\"prompt\":\"a\"", "line 1"},
        {"{\"prompt\":[[[[1]]]]}", "line 1"},
        {"{\"tokens\":[1]}\n{\"tokens\":[1]}\n{\"tokens\":[1]}\n{\"tokens\":[1]}\n{\"tokens\":[1]}\n{"
         "\"tokens\":"
         "[1]}\n{\"tokens\":[1]}\n{\"tokens\":[1]}\n{\"tokens\":[1]}",
         "more than 8 prompts"},
    };
    struct trial t;
    trial_begin(&t);
    put_pair(&t, "model.layers.0.self_attn.q_proj", 32, 0.1F, 0.1F);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text(t.folder.path, "probes.jsonl", cases[i].text);
        enum status s = load(&t, t.folder.path, EFFECT_WARN);
        if ((s != STATUS_FORMAT && s != STATUS_TOO_LARGE) || !strstr(t.err.text, cases[i].words))
            fail_msg("'%s': %s '%s'", cases[i].text, status_name(s), t.err.text);
        assert_int_equal(load(&t, t.folder.path, EFFECT_OFF), STATUS_OK); /* not read then */
    }
    struct buf b;
    buf_init(&b, 0);
    buf_puts(&b, "{\"tokens\":[1");
    for (int i = 0; i < 64; i++)
        buf_puts(&b, ",1");
    buf_puts(&b, "]}");
    put_text(t.folder.path, "probes.jsonl", b.data);
    assert_int_equal(load(&t, t.folder.path, EFFECT_WARN), STATUS_FORMAT);
    assert_non_null(strstr(t.err.text, "65 items, expected 1 to 64"));
    while (b.length < 70000)
        buf_puts(&b, "                ");
    put_text(t.folder.path, "probes.jsonl", b.data);
    assert_int_equal(load(&t, t.folder.path, EFFECT_WARN), STATUS_TOO_LARGE);
    buf_fini(&b);

    struct effect_probes *p;
    struct effect_probes_options o = {.base = t.m, .prompts = prompts, .n_prompts = 0};
    assert_int_equal(effect_probes_create(&o, &p, &t.err), STATUS_INVALID);
    o.n_prompts = 1;
    o.prompts = &(struct effect_probe){(const int32_t[]){384}, 1};
    assert_int_equal(effect_probes_create(&o, &p, &t.err), STATUS_INVALID);
    assert_non_null(strstr(t.err.text, "token 384 is outside"));
    o.prompts = &(struct effect_probe){first, 0};
    assert_int_equal(effect_probes_create(&o, &p, &t.err), STATUS_INVALID);
    assert_null(p);
    trial_end(&t);
}

static void memory_may_fail_anywhere(void **state)
{
    (void)state;
    struct model *m = open_model(LLAMA);
    struct effect_probes *p = NULL;
    struct effect_probes_options o = {.base = m, .prompts = prompts, .n_prompts = 2};
    enum status s;
    uint64_t n = 0;
    struct error err;
    do {
        mem_fail_at(++n);
        s = effect_probes_create(&o, &p, &err);
        mem_fail_at(0);
        assert_true(s == STATUS_OK || s == STATUS_NO_MEMORY);
    } while (s != STATUS_OK && n < 500);
    assert_true(s == STATUS_OK && n > 5);
    struct adapter_source source = {
        .name = "x", .path = DATA "adapters/llama/qv_r4", .root_fd = -1, .scale = 1};
    struct adapter_version *v;
    assert_int_equal(adapter_load(&source, m, &v, &err), STATUS_OK);
    n = 0;
    struct effect_report r;
    do {
        mem_fail_at(++n);
        s = effect_check(v->lora, p, prompts, 2, &r, &err);
        mem_fail_at(0);
        assert_true(s == STATUS_OK || s == STATUS_NO_MEMORY);
    } while (s != STATUS_OK && n < 500);
    assert_true(s == STATUS_OK && n > 5 && r.outcome == EFFECT_SEEN);
    adapter_release(v);
    effect_probes_destroy(p);
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_has_no_effect_is_refused),
        cmocka_unit_test(broken_numbers_are_refused),
        cmocka_unit_test(norms_are_those_of_the_product),
        cmocka_unit_test(every_golden_adapter_is_seen),
        cmocka_unit_test(own_probes_take_the_place_of_the_built_in),
        cmocka_unit_test(malformed_probes_are_refused),
        cmocka_unit_test(memory_may_fail_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
