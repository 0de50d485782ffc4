/* adapters: the types in which A and B are kept: bytes, the error of each within its bound, what auto
 * chooses, and that a step computes with them. */
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters.h"
#include "base/mem.h"
#include "effect_inner.h"
#include "format.h"
#include "model.h"
#include "tests/unit/plain_model.h"

#define DATA "tests/golden/data/"

static struct adapter_version *load(const struct model *m, const char *path, enum adapter_store store)
{
    struct adapter_version *v = NULL;
    struct adapter_source s = {.name = "x", .path = path, .root_fd = -1, .scale = 1, .store = store};
    struct error err = {0};
    if (adapter_load(&s, m, &v, &err) != STATUS_OK)
        fail_msg("%s: %s", path, err.text);
    return v;
}

/* Adds what differs between two matrices of the same values, row by row within the bound of `type`. */
static void compare(const struct packed *fine, const struct packed *kept, double sums[2])
{
    float *x = malloc(fine->cols * sizeof *x), *y = malloc(fine->cols * sizeof *y);
    assert_true(fine->rows == kept->rows && fine->cols == kept->cols);
    for (uint32_t r = 0; r < fine->rows; r++) {
        packed_row_f32(fine, r, x);
        packed_row_f32(kept, r, y);
        for (uint32_t at = 0; at < fine->cols; at += 128) {
            double most = 0;
            uint32_t end = at + 128 < fine->cols ? at + 128 : fine->cols;
            for (uint32_t k = at; k < end; k++)
                most = fmax(most, fabs((double)x[k]));
            for (uint32_t k = at; k < end; k++) {
                double bound = kept->type == DTYPE_I8     ? most / 254 * 1.00001
                               : kept->type == DTYPE_BF16 ? fabs((double)x[k]) * 0x1p-8
                                                          : 0;
                double error = fabs((double)x[k] - y[k]);
                if (error > bound)
                    fail_msg("%s: %g for %g", dtype_name(kept->type), (double)y[k], (double)x[k]);
                sums[0] += error * error;
                sums[1] += (double)x[k] * x[k];
            }
        }
    }
    free(x);
    free(y);
}

static double error_of(const struct lora *fine, const struct lora *kept)
{
    double sums[2] = {0, 0};
    for (uint32_t i = 0; i < fine->n_layers; i++)
        for (unsigned g = 0; g < LORA_GROUP_COUNT; g++) {
            const struct lora_group *a = &fine->layers[i].group[g], *b = &kept->layers[i].group[g];
            if (a->a.data)
                compare(&a->a, &b->a, sums);
            for (unsigned k = 0; k < 3; k++)
                if (a->part[k].b.data)
                    compare(&a->part[k].b, &b->part[k].b, sums);
        }
    if (fine->embed.b.data) {
        compare(&fine->embed.a, &kept->embed.a, sums);
        compare(&fine->embed.b, &kept->embed.b, sums);
    }
    return sqrt(sums[0] / sums[1]);
}

static bool is_bf16(const struct lora *l)
{
    for (unsigned g = 0; g < LORA_GROUP_COUNT; g++)
        if (l->layers[0].group[g].a.data)
            return l->layers[0].group[g].a.type == DTYPE_BF16;
    return false;
}

static void values_are_within_their_types_bound(void **state)
{
    (void)state;
    static const char *const adapters[] = {"llama/patterns", "llama/embed_r3", "llama/qv_r4",
                                           "llama/rslora_r8"};
    struct model *m = open_as(DATA "models/llama/f32", QUANT_AUTO);
    for (size_t i = 0; i < sizeof adapters / sizeof *adapters; i++) {
        char path[200];
        snprintf(path, sizeof path, DATA "adapters/%s", adapters[i]);
        struct adapter_version *fine = load(m, path, ADAPTER_STORE_FILE);
        for (int store = ADAPTER_STORE_BF16; store < ADAPTER_STORE_COUNT; store++) {
            struct adapter_version *kept = load(m, path, (enum adapter_store)store);
            double error = error_of(fine->lora, kept->lora);
            assert_true(error < (store == ADAPTER_STORE_BF16 ? 0.003 : 0.01));
            bool same = store == ADAPTER_STORE_BF16 && is_bf16(fine->lora);
            assert_string_equal(kept->report.stored, same                          ? "file"
                                                     : store == ADAPTER_STORE_BF16 ? "bf16"
                                                                                   : "int8");
            assert_memory_equal(fine->digest, kept->digest, 32);
            /* other numbers, another key */
            assert_true((memcmp(fine->lora->digest, kept->lora->digest, 32) == 0) == same);
            adapter_release(kept);
        }
        adapter_release(fine);
    }
    model_close(m);
}

static void auto_follows_the_base(void **state)
{
    (void)state;
    static const char path[] = DATA "adapters/llama/patterns"; /* f32 */
    struct model *f32 = open_as(DATA "models/llama/f32", QUANT_AUTO);
    struct model *bf16 = open_as(DATA "models/llama/f32", QUANT_BF16);
    struct adapter_version *a = load(f32, path, ADAPTER_STORE_AUTO),
                           *b = load(bf16, path, ADAPTER_STORE_AUTO);
    struct adapter_version *file = load(bf16, path, ADAPTER_STORE_FILE);
    struct adapter_version *half = load(bf16, DATA "adapters/llama/all_r8_bf16", ADAPTER_STORE_AUTO);
    assert_string_equal(a->report.stored, "file");
    assert_string_equal(b->report.stored, "bf16");
    assert_string_equal(file->report.stored, "file");
    assert_string_equal(half->report.stored, "file"); /* is bf16 already */
    assert_true(b->lora->size_bytes < file->lora->size_bytes);
    assert_true(a->lora->size_bytes == file->lora->size_bytes);
    adapter_release(a);
    adapter_release(b);
    adapter_release(file);
    adapter_release(half);
    model_close(f32);
    model_close(bf16);
}

static void auto_is_int8_where_activations_are(void **state)
{
    (void)state;
    static const char path[] = DATA "adapters/llama/patterns";
    struct model *rounding = open_as(DATA "models/llama/f32", QUANT_Q8_0);
    struct model *exact = open_with(DATA "models/llama/f32", "auto", ACT_MODE_F32, QUANT_Q8_0);
    struct adapter_version *a = load(rounding, path, ADAPTER_STORE_AUTO),
                           *b = load(exact, path, ADAPTER_STORE_AUTO),
                           *file = load(rounding, path, ADAPTER_STORE_FILE);
    assert_string_equal(a->report.stored, "int8");
    assert_string_equal(b->report.stored, "bf16");
    assert_string_equal(file->report.stored, "file");
    assert_true(memcmp(a->lora->digest, b->lora->digest, 32) != 0);
    for (unsigned g = 0; g < LORA_GROUP_COUNT; g++)
        for (unsigned part = 0; part < 3; part++) {
            const struct lora_group *group = &a->lora->layers[0].group[g];
            if (!group->part[part].b.data)
                continue;
            assert_false(b->lora->layers[0].group[g].part[part].rounds);
            bool rounds =
                group->part[part].rounds; /* not where rows are no whole blocks: the base's aren't either */
            assert_true(rounds || g != LORA_GROUP_QKV);
            assert_true(rounds == (group->a.type == DTYPE_Q8_0) &&
                        rounds == (group->part[part].b.type == DTYPE_I8));
        }
    adapter_release(a);
    adapter_release(b);
    adapter_release(file);
    model_close(rounding);
    model_close(exact);
}

/* One pair on q_proj of layer 0, its A filled with `size` times numbers in [-1, 1] and `odd` as its last one.
 */
static struct lora *build_one(const struct model *m, float size, float odd, float *a)
{
    struct model_module module;
    assert_true(model_module_of(m, LORA_SITE_Q, 0, &module));
    const uint32_t rank = 4;
    size_t n = (size_t)rank * module.in;
    float *b = calloc((size_t)module.out * rank, sizeof *b);
    for (size_t i = 0; i < n; i++)
        a[i] = size * sinf((float)i * 1.7f);
    a[n - 1] = odd;
    for (size_t i = 0; i < (size_t)module.out * rank; i++)
        b[i] = cosf((float)i);
    struct lora_pair pair = {.module = module,
                             .a_type = DTYPE_F32,
                             .b_type = DTYPE_F32,
                             .a = a,
                             .b = b,
                             .rank = rank,
                             .in = module.in,
                             .out = module.out,
                             .scale = 2};
    struct lora *l;
    struct error err;
    uint8_t digest[32] = {1};
    struct lora_spec spec = {.store = LORA_STORE_AUTO, .pairs = &pair, .n_pairs = 1};
    assert_int_equal(lora_build(m, &spec, digest, &l, &err), STATUS_OK);
    free(b);
    return l;
}

/* Whatever A's size, its numbers (times the part's scale) are within half a step of their 32; and what is no
 * number stays none, so that it is found. */
static void rounded_a_keeps_its_size_and_its_faults(void **state)
{
    (void)state;
    static const float sizes[] = {1e-12f, 1e-5f, 0.02f, 1, 3e4f, 1e20f};
    struct model *m = open_as(DATA "models/llama/f32", QUANT_Q8_0);
    uint32_t in = model_config(m)->hidden_size;
    float *a = calloc((size_t)4 * in, sizeof *a), *row = calloc(in, sizeof *row);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct lora *l = build_one(m, sizes[i], sizes[i], a);
        const struct lora_group *g = &l->layers[0].group[LORA_GROUP_QKV];
        assert_int_equal(g->a.type, DTYPE_Q8_0);
        for (uint32_t r = 0; r < 4; r++) {
            packed_row_f32(&g->a, r, row);
            for (uint32_t k = 0; k < in; k++)
                assert_true(fabs((double)row[k] * (double)g->part[0].scale / 2 - (double)a[r * in + k]) <=
                            (double)sizes[i] * 0.0045);
        }
        lora_release(l);
    }
    static const float faults[] = {NAN, INFINITY};
    for (size_t i = 0; i < 2; i++) {
        struct lora *l = build_one(m, 0.02f, faults[i], a);
        packed_row_f32(&l->layers[0].group[LORA_GROUP_QKV].a, 3, row);
        assert_true(isnan(row[in - 1]));
        lora_release(l);
    }
    free(a);
    free(row);
    model_close(m);
}

static const int32_t tokens[] = {1, 17, 200, 33, 91, 4, 250, 101};

/* Logits of the prompt with an adapter, from each store, against those of the file's types. */
static void check_step(const struct model *m, const char *path, double limit)
{
    struct effect_pass pass;
    struct error err;
    struct effect_probe prompt = {tokens, 8};
    size_t n = (size_t)8 * model_config(m)->vocab_size;
    float *fine = malloc(n * sizeof *fine);
    for (int store = ADAPTER_STORE_FILE; store < ADAPTER_STORE_COUNT; store++) {
        struct adapter_version *v = load(m, path, (enum adapter_store)store);
        const float *logits;
        double most = 0, apart = 0;
        assert_int_equal(effect_pass_init(&pass, m, 8, v->lora->t_max, &err), STATUS_OK);
        assert_int_equal(effect_pass_run(&pass, v->lora, &prompt, &logits, &err), STATUS_OK);
        if (store == ADAPTER_STORE_FILE)
            memcpy(fine, logits, n * sizeof *fine);
        for (size_t i = 0; i < n; i++) {
            most = fmax(most, fabs((double)fine[i]));
            apart = fmax(apart, fabs((double)fine[i] - logits[i]));
        }
        if (!(apart <= limit * most))
            fail_msg("%s: %s: %g of %g", path, v->report.stored, apart, most);
        effect_pass_fini(&pass);
        adapter_release(v);
    }
    free(fine);
}

static void steps_compute_with_every_store(void **state)
{
    (void)state;
    static const char *const kinds[] = {"patterns", "dora_r3", "dora_embed_r3",
                                        "embed_r3", "head_r4", "lora_bias_r3"};
    struct model *m = open_as(DATA "models/llama/f32", QUANT_AUTO);
    struct model *q8 = open_as(DATA "models/llama/f32", QUANT_Q8_0);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char path[200];
        snprintf(path, sizeof path, DATA "adapters/llama/%s", kinds[i]);
        check_step(m, path, 0.03);
        check_step(q8, path, 0.05);
    }
    model_close(m);
    model_close(q8);
    m = open_as(DATA "models/mixtral/f32", QUANT_AUTO);
    check_step(m, DATA "adapters/mixtral/experts_r2", 0.05);
    model_close(m);
    m = open_as(DATA "models/phi3/f32", QUANT_AUTO);
    check_step(m, DATA "adapters/phi3/rslora_r5", 0.05);
    model_close(m);
}

/* Logits of a prompt's first tokens are the same bits, however many follow in the step. */
static void check_company(const struct model *m, const char *path)
{
    struct effect_pass pass;
    struct error err;
    struct adapter_version *v = load(m, path, ADAPTER_STORE_AUTO);
    size_t n_vocab = model_config(m)->vocab_size;
    float *whole = malloc(8 * n_vocab * sizeof *whole);
    const float *logits;
    assert_string_equal(v->report.stored, "int8");
    assert_int_equal(effect_pass_init(&pass, m, 8, v->lora->t_max, &err), STATUS_OK);
    assert_int_equal(effect_pass_run(&pass, v->lora, &(struct effect_probe){tokens, 8}, &logits, &err),
                     STATUS_OK);
    memcpy(whole, logits, 8 * n_vocab * sizeof *whole);
    for (uint32_t n = 1; n < 8; n++) {
        assert_int_equal(effect_pass_run(&pass, v->lora, &(struct effect_probe){tokens, n}, &logits, &err),
                         STATUS_OK);
        assert_memory_equal(logits, whole, n * n_vocab * sizeof *whole);
    }
    effect_pass_fini(&pass);
    adapter_release(v);
    free(whole);
}

static void rounded_rows_do_not_depend_on_company(void **state)
{
    (void)state;
    struct model *m = open_as(DATA "models/llama/f32", QUANT_Q8_0);
    check_company(m, DATA "adapters/llama/patterns");
    check_company(m, DATA "adapters/llama/dora_r3");
    model_close(m);
}

static void bytes_and_errors_of_a_real_shape(void **state)
{
    (void)state;
    struct model *m = open_as("demo/model", QUANT_F32);
    struct adapter_version *fine = load(m, "demo/adapters/pt", ADAPTER_STORE_FILE);
    size_t file_bytes = fine->lora->size_bytes;
    struct adapter_version *kept = load(m, "demo/adapters/pt", ADAPTER_STORE_INT8);
    print_message("rank 8: file %zu bytes, int8 %zu bytes, error %.4f\n", file_bytes, kept->lora->size_bytes,
                  error_of(fine->lora, kept->lora));
    assert_true(kept->lora->size_bytes < file_bytes * 0.8);
    adapter_release(fine);
    adapter_release(kept);
    model_close(m);
}

static void memory_may_fail_anywhere(void **state)
{
    (void)state;
    struct model *m = open_as(DATA "models/llama/f32", QUANT_BF16);
    for (int store = 0; store < ADAPTER_STORE_COUNT; store++) {
        struct adapter_version *v = NULL;
        struct adapter_source s = {.name = "x",
                                   .path = DATA "adapters/llama/dora_embed_r3",
                                   .root_fd = -1,
                                   .scale = 1,
                                   .store = (enum adapter_store)store};
        enum status st;
        uint64_t n = 0;
        do {
            struct error err;
            mem_fail_at(++n);
            st = adapter_load(&s, m, &v, &err);
            mem_fail_at(0);
            if (st != STATUS_OK && st != STATUS_NO_MEMORY)
                fail_msg("allocation %d: %s '%s'", (int)n, status_name(st), err.text);
        } while (st != STATUS_OK && n < 2000);
        assert_true(st == STATUS_OK && n > 20);
        adapter_release(v);
    }
    model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_within_their_types_bound),
        cmocka_unit_test(auto_follows_the_base),
        cmocka_unit_test(auto_is_int8_where_activations_are),
        cmocka_unit_test(rounded_a_keeps_its_size_and_its_faults),
        cmocka_unit_test(rounded_rows_do_not_depend_on_company),
        cmocka_unit_test(steps_compute_with_every_store),
        cmocka_unit_test(bytes_and_errors_of_a_real_shape),
        cmocka_unit_test(memory_may_fail_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
