/* core/model/lora.c: what an adapter is built from, what it looks like in memory, and what is refused by
 * name. */
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model_inner.h"

#define MODEL "tests/golden/data/models/llama/f32"

static struct model *m;
static struct model_files *files;
static const uint8_t digest[32] = {1, 2, 3};

static int open_model(void **state)
{
    (void)state;
    const struct kernels *k;
    struct error err;
    if (kernels_select("scalar", ACT_MODE_INT8, &k, &err) != STATUS_OK ||
        model_files_open(MODEL, &files, &err) != STATUS_OK ||
        model_open(files, &(struct model_options){.kernels = k}, &m, &err) != STATUS_OK)
        return -1;
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    model_close(m);
    model_files_close(files);
    return 0;
}

/* A pair of the right shape with values that tell row and column. */
static struct lora_pair pair(enum lora_site site, uint32_t layer, uint32_t rank, enum dtype type)
{
    struct lora_pair p = {.a_type = type, .b_type = type, .rank = rank, .scale = 2};
    assert_true(model_module_of(m, site, layer, &p.module));
    p.out = p.module.out;
    p.in = p.module.in;
    size_t n_a = (size_t)rank * p.in, n_b = (size_t)rank * p.out;
    float *values = malloc((n_a > n_b ? n_a : n_b) * sizeof *values);
    void *a = malloc(n_a * 4), *b = malloc(n_b * 4);
    assert_true(values && a && b);
    for (size_t i = 0; i < n_a; i++)
        values[i] = (float)((double)(i % 251) - 100 + site);
    assert_true(quantize_row(type, values, n_a, a));
    for (size_t i = 0; i < n_b; i++)
        values[i] = (float)((double)(i % 127) - 60 + layer);
    assert_true(quantize_row(type, values, n_b, b));
    free(values);
    p.a = a;
    p.b = b;
    return p;
}

static enum status build(const struct lora_pair *pairs, size_t n, struct lora **l, struct error *err)
{
    return lora_build(m, &(struct lora_spec){.pairs = pairs, .n_pairs = n}, digest, l, err);
}

static void pair_fini(struct lora_pair *p)
{
    free((void *)(uintptr_t)p->a);
    free((void *)(uintptr_t)p->b);
}

static void rows_equal(const struct packed *w, uint32_t row_begin, uint32_t n, enum dtype type,
                       const void *src)
{
    float *packed_row = malloc(w->cols * sizeof *packed_row), *row = malloc(w->cols * sizeof *row);
    uint64_t row_bytes;
    assert_true(packed_row && row && dtype_row_bytes(type, w->cols, &row_bytes));
    for (uint32_t r = 0; r < n; r++) {
        packed_row_f32(w, row_begin + r, packed_row);
        dequantize_row(type, (const uint8_t *)src + r * row_bytes, w->cols, row);
        assert_memory_equal(packed_row, row, w->cols * sizeof *row);
    }
    free(packed_row);
    free(row);
}

static void packs_what_it_is_given(void **state)
{
    (void)state;
    /* q and v of one layer with odd ranks and different types; the head */
    struct lora_pair p[3] = {pair(LORA_SITE_V, 1, 5, DTYPE_F16), pair(LORA_SITE_Q, 1, 3, DTYPE_BF16),
                             pair(LORA_SITE_LM_HEAD, 0, 4, DTYPE_F32)};
    struct lora *l;
    struct error err;
    assert_int_equal(build(p, 3, &l, &err), STATUS_OK);
    assert_int_equal(l->rank_max, 5);
    assert_int_equal(l->t_max, 12); /* 3 → 4, 5 → 8 */
    assert_int_equal(l->n_parameters, 5 * (32 + 16) + 3 * (32 + 32) + 4 * (32 + 384));
    assert_memory_equal(l->digest, digest, 32);
    const struct lora_group *g = &l->layers[1].group[LORA_GROUP_QKV];
    assert_int_equal(g->a.type, DTYPE_F32); /* two types side by side are widened */
    assert_int_equal(g->part[0].t_offset, 0);
    assert_int_equal(g->part[2].t_offset, 4);
    assert_null(g->part[1].b.data);
    assert_int_equal(g->part[0].b.type, DTYPE_BF16);
    assert_true(g->part[0].scale == 2);
    rows_equal(&g->a, 4, 5, DTYPE_F16, p[0].a);
    rows_equal(&g->a, 0, 3, DTYPE_BF16, p[1].a);
    rows_equal(&g->part[2].b, 0, p[0].out, DTYPE_F16, p[0].b);
    rows_equal(&l->lm_head.part[0].b, 0, 384, DTYPE_F32, p[2].b);
    float padding[32];
    packed_row_f32(&g->a, 3, padding);
    for (int i = 0; i < 32; i++)
        assert_true(padding[i] == 0);
    assert_null(l->layers[0].group[LORA_GROUP_QKV].a.data);
    assert_null(l->layers[1].group[LORA_GROUP_DOWN].a.data);
    assert_ptr_equal(lora_acquire(l), l);
    lora_release(l);
    assert_int_equal(l->rank_max, 5); /* still there: one reference is left */
    lora_release(l);
    lora_release(NULL);
    assert_null(lora_acquire(NULL));
    for (int i = 0; i < 3; i++)
        pair_fini(&p[i]);
}

static void refuses_by_name(void **state)
{
    (void)state;
    struct lora_pair good = pair(LORA_SITE_UP, 1, 4, DTYPE_F32), p[2] = {good, good};
    struct lora *l;
    struct error err;
    assert_int_equal(build(p, 0, &l, &err), STATUS_MISMATCH);
    assert_null(l);
    const struct {
        enum lora_site site;
        struct lora_pair pair;
        enum status status;
        const char *text;
    } bad[] = {
        {LORA_SITE_UP,
         {.rank = 4, .in = 96, .out = 48},
         STATUS_MISMATCH,
         "model.layers.1.mlp.up_proj: lora_A takes 96 inputs"},
        {LORA_SITE_Q, {.rank = 4, .in = 32, .out = 16}, STATUS_MISMATCH, "is [32, 32]"},
        {LORA_SITE_UP, {.rank = 0, .in = 32, .out = 48}, STATUS_MISMATCH, "rank is 0"},
        {LORA_SITE_UP, {.rank = 1U << 30, .in = 32, .out = 48}, STATUS_MISMATCH, "rank is"},
        {LORA_SITE_UP,
         {.rank = 4, .in = 32, .out = 48, .b_type = DTYPE_Q8_0},
         STATUS_UNSUPPORTED,
         "types f32 and q8_0"},
        {LORA_SITE_UP, {.rank = 4, .in = 32, .out = 48, .scale = NAN}, STATUS_INVALID, "scale"},
        {LORA_SITE_UP, {.rank = 4, .in = 32, .out = 48, .scale = INFINITY}, STATUS_INVALID, "scale"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct lora_pair pair_of_bad = bad[i].pair;
        assert_true(model_module_of(m, bad[i].site, 1, &pair_of_bad.module));
        assert_int_equal(build(&pair_of_bad, 1, &l, &err), bad[i].status);
        assert_non_null(strstr(err.text, bad[i].text));
        assert_null(l);
    }
    assert_int_equal(build(p, 2, &l, &err), STATUS_MISMATCH);
    assert_non_null(strstr(err.text, "model.layers.1.mlp.up_proj: two pairs"));
    pair_fini(&good);
}

static void sites_have_names_and_paths(void **state)
{
    (void)state;
    struct model_module module, parsed;
    for (unsigned s = 0; s < LORA_SITE_COUNT; s++) {
        enum lora_site site;
        char path[128];
        uint32_t layer = s == LORA_SITE_LM_HEAD ? 0 : 1;
        assert_true(lora_site_find(lora_site_name((enum lora_site)s), &site));
        assert_int_equal(site, s);
        assert_int_equal(model_module_of(m, site, layer, &module), s != LORA_SITE_ROUTER);
        if (s == LORA_SITE_ROUTER)
            continue;
        model_module_path(m, &module, path, sizeof path);
        assert_true(model_module_parse(m, path, &parsed));
        assert_memory_equal(&parsed, &module, sizeof module);
        assert_int_equal(parsed.layer, layer);
    }
    static const char *const others[] = {"model.embed_tokens", "model.norm",
                                         "model.layers.1.input_layernorm"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char path[128];
        assert_true(model_module_parse(m, others[i], &parsed));
        model_module_path(m, &parsed, path, sizeof path);
        assert_string_equal(path, others[i]);
    }
    assert_false(model_module_of(m, LORA_SITE_UP, 2, &module));
    assert_false(model_module_of(m, LORA_SITE_LM_HEAD, 1, &module));
    static const char *const bad[] = {"",
                                      "model.layers.",
                                      "model.layers.2.mlp.up_proj",
                                      "model.layers.-1.mlp.up_proj",
                                      "model.layers.01.mlp.up_proj",
                                      "model.layers.1.mlp.up_projx",
                                      "model.layers.1.up_proj",
                                      "model.layers.99999999999999999999.mlp.up_proj",
                                      "xmodel.layers.1.mlp.up_proj",
                                      "lm_head.weight",
                                      "model.layers. 1.mlp.up_proj",
                                      "model.layers.1.self_attn.q_norm"};
    enum lora_site site;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(model_module_parse(m, bad[i], &parsed));
    assert_false(lora_site_find("qkv_proj", &site));
    assert_string_equal(lora_site_name(LORA_SITE_COUNT), "?");
}

static double value_at(const struct lora_pair *p, bool of_a, uint32_t row, uint32_t col)
{
    uint32_t cols = of_a ? p->in : p->rank;
    enum dtype type = of_a ? p->a_type : p->b_type;
    float v;
    const uint8_t *rows = of_a ? p->a : p->b;
    dequantize_row(type, rows + ((size_t)row * cols + col) * dtype_info(type)->block_bytes, 1, &v);
    return v;
}

/* m / |W + s B A| of one row, in f64. */
static double factor(const struct lora_pair *p, const struct packed *w, uint32_t row)
{
    float *base = malloc(p->in * sizeof *base);
    double squares = 0;
    assert_non_null(base);
    packed_row_f32(w, row, base);
    for (uint32_t k = 0; k < p->in; k++) {
        double v = base[k];
        for (uint32_t r = 0; r < p->rank; r++)
            v += (double)p->scale * value_at(p, false, row, r) * value_at(p, true, r, k);
        squares += v * v;
    }
    free(base);
    return (double)p->magnitude[row] / sqrt(squares);
}

static void dora_factors_are_those_of_the_paper(void **state)
{
    (void)state;
    struct lora_pair p = pair(LORA_SITE_UP, 1, 3, DTYPE_BF16);
    float magnitude[48], bias[48], row[3];
    struct lora *l;
    struct error err;
    p.scale = 0.01F;
    for (uint32_t i = 0; i < 48; i++) {
        magnitude[i] = 0.5F + (float)i / 10;
        bias[i] = (float)i - 20;
    }
    p.magnitude = magnitude;
    p.b_bias = bias;
    assert_int_equal(build(&p, 1, &l, &err), STATUS_OK);
    const struct lora_part *part = &l->layers[1].group[LORA_GROUP_GATE_UP].part[1];
    for (uint32_t i = 0; i < 48; i++) {
        double f = factor(&p, &m->layers[1].w[LORA_SITE_UP], i);
        assert_true(fabs(part->magnitude[i] - f) <= 1e-5 * fabs(f));
        assert_true(fabs(part->bias[i] - f * 0.01 * bias[i]) <= 1e-5 * fabs(f));
        packed_row_f32(&part->b, i, row);
        for (uint32_t r = 0; r < 3; r++)
            assert_true(fabs(row[r] - f * value_at(&p, false, i, r)) <= 1e-5 * fabs(f) * 100);
    }
    lora_release(l);
    magnitude[7] = INFINITY;
    assert_int_equal(build(&p, 1, &l, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "model.layers.1.mlp.up_proj: DoRA: magnitude inf"));
    pair_fini(&p);
}

static struct model_module module_at(const char *path)
{
    struct model_module module;
    assert_true(model_module_parse(m, path, &module));
    return module;
}

static void replaced_tensors_are_kept_as_they_are(void **state)
{
    (void)state;
    static float norm[32], head[384 * 32], rows[3 * 32];
    const int32_t ids[3] = {300, 5, 17};
    for (int i = 0; i < 32; i++)
        norm[i] = (float)i;
    for (int i = 0; i < 384 * 32; i++)
        head[i] = (float)i / 7;
    for (int i = 0; i < 3 * 32; i++)
        rows[i] = (float)(i / 32 * 1000 + i % 32);
    struct lora_tensor tensors[3] = {
        {.module = module_at("model.norm"), .data = norm, .rows = 32},
        {.module = module_at("lm_head"), .data = head, .rows = 384, .cols = 32},
        {.module = module_at("model.layers.1.self_attn.q_proj"), .is_bias = true, .data = norm, .rows = 32}};
    struct lora_spec spec = {.tensors = tensors, .n_tensors = 3, .row_ids = ids, .rows = rows, .n_rows = 3};
    struct lora *l;
    struct error err;
    assert_int_equal(lora_build(m, &spec, digest, &l, &err), STATUS_OK);
    assert_true(l->replaces && l->n_parameters == 32 + 384 * 32 + 32 + 3 * 32);
    assert_memory_equal(l->ends->norm[NORM_FINAL], norm, sizeof norm);
    assert_memory_equal(l->layers[1].replaced->bias[LORA_SITE_Q], norm, sizeof norm);
    assert_null(l->layers[0].replaced);
    rows_equal(&l->ends->w[LORA_SITE_LM_HEAD], 0, 384, DTYPE_F32, head);
    const int32_t sorted[3] = {5, 17, 300};
    assert_memory_equal(l->embed.rows.ids, sorted, sizeof sorted);
    rows_equal(&l->embed.rows.w, 0, 1, DTYPE_F32, rows + 32);
    rows_equal(&l->embed.rows.w, 2, 1, DTYPE_F32, rows);
    assert_int_equal(l->head_rows.n, 0); /* llama's head is its own */
    lora_release(l);

    tensors[2] = tensors[1];
    assert_int_equal(lora_build(m, &spec, digest, &l, &err), STATUS_MISMATCH);
    assert_non_null(strstr(err.text, "lm_head: its weight is replaced and adapted, or replaced twice"));
    tensors[2].rows = 400;
    assert_int_equal(lora_build(m, &spec, digest, &l, &err), STATUS_MISMATCH);
    assert_non_null(
        strstr(err.text, "lm_head: its weight in the adapter is [400, 32], the base's is [384, 32]"));
    spec.n_tensors = 2;
    spec.row_ids = (const int32_t[3]){5, 384, 7};
    assert_int_equal(lora_build(m, &spec, digest, &l, &err), STATUS_MISMATCH);
    assert_non_null(strstr(err.text, "token row 384"));
    spec.row_ids = (const int32_t[3]){5, 7, 5};
    assert_int_equal(lora_build(m, &spec, digest, &l, &err), STATUS_MISMATCH);
    assert_non_null(strstr(err.text, "token row 5"));
}

static void begins_at_the_last_whole_invocation(void **state)
{
    (void)state;
    struct lora_pair p = pair(LORA_SITE_UP, 1, 2, DTYPE_F32);
    const int32_t invocation[3] = {7, 8, 7};
    struct lora_spec spec = {.pairs = &p, .n_pairs = 1, .invocation = invocation, .n_invocation = 3};
    struct lora *l, *plain;
    struct error err;
    assert_int_equal(lora_build(m, &spec, digest, &l, &err), STATUS_OK);
    const struct {
        int32_t prompt[8];
        uint32_t n, begin;
    } cases[] = {{{7, 8, 7, 1}, 4, 0},          {{1, 7, 8, 7, 2, 7, 8, 7}, 8, 5}, {{7, 8, 7, 8, 7}, 5, 2},
                 {{1, 2, 7, 8}, 4, UINT32_MAX}, {{7, 8}, 2, UINT32_MAX},          {{0}, 0, UINT32_MAX}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(lora_begin(l, cases[i].prompt, cases[i].n), cases[i].begin);
    assert_int_equal(build(&p, 1, &plain, &err), STATUS_OK);
    assert_int_equal(lora_begin(plain, cases[3].prompt, 4), 0);
    spec.invocation = (const int32_t[3]){7, 384, 7};
    struct lora *bad;
    assert_int_equal(lora_build(m, &spec, digest, &bad, &err), STATUS_MISMATCH);
    assert_non_null(strstr(err.text, "invocation token 384"));
    lora_release(l);
    lora_release(plain);
    pair_fini(&p);
}

static void compositions(void **state)
{
    (void)state;
    struct lora_pair p = pair(LORA_SITE_UP, 1, 2, DTYPE_F32), q = pair(LORA_SITE_DOWN, 0, 5, DTYPE_F32);
    float norm[32] = {0};
    struct lora_tensor tensor = {.module = module_at("model.norm"), .data = norm, .rows = 32};
    const int32_t invocation = 7;
    struct lora_spec with_norm = {.tensors = &tensor, .n_tensors = 1};
    struct lora_spec activated = {.pairs = &p, .n_pairs = 1, .invocation = &invocation, .n_invocation = 1};
    struct lora *one, *two, *replacing, *late, *sum;
    struct error err;
    assert_int_equal(build(&p, 1, &one, &err), STATUS_OK);
    assert_int_equal(build(&q, 1, &two, &err), STATUS_OK);
    assert_int_equal(lora_build(m, &with_norm, digest, &replacing, &err), STATUS_OK);
    assert_int_equal(lora_build(m, &activated, digest, &late, &err), STATUS_OK);

    assert_int_equal(lora_compose((struct lora *[2]){one, two}, (float[2]){1, -0.5F}, 2, &sum, &err),
                     STATUS_OK);
    assert_int_equal(sum->n_members, 2);
    assert_int_equal(sum->t_max, one->t_max + two->t_max);
    assert_int_equal(sum->rank_max, 5);
    assert_int_equal(one->refs, 2);
    struct lora *other;
    assert_int_equal(lora_compose((struct lora *[2]){one, two}, (float[2]){1, 0.5F}, 2, &other, &err),
                     STATUS_OK);
    assert_memory_not_equal(sum->digest, other->digest, 32); /* weights are part of what it is */
    lora_release(other);
    assert_int_equal(lora_compose((struct lora *[2]){sum, two}, (float[2]){1, 1}, 2, &other, &err),
                     STATUS_UNSUPPORTED);
    lora_release(sum);
    assert_int_equal(one->refs, 1);

    assert_int_equal(lora_compose(&late, (float[1]){2}, 1, &sum, &err), STATUS_OK);
    assert_int_equal(lora_begin(sum, (int32_t[3]){1, 7, 2}, 3), 1);
    lora_release(sum);
    assert_int_equal(lora_compose((struct lora *[2]){one, late}, (float[2]){1, 1}, 2, &sum, &err),
                     STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "invocation tokens"));
    assert_int_equal(lora_compose((struct lora *[2]){one, replacing}, (float[2]){1, 1}, 2, &sum, &err),
                     STATUS_UNSUPPORTED);
    assert_int_equal(lora_compose(&replacing, (float[1]){0.5F}, 1, &sum, &err), STATUS_UNSUPPORTED);
    assert_int_equal(lora_compose(&replacing, (float[1]){0}, 1, &sum, &err), STATUS_OK); /* adds nothing */
    lora_release(sum);
    assert_int_equal(lora_compose(&one, (float[1]){NAN}, 1, &sum, &err), STATUS_INVALID);
    assert_int_equal(lora_compose(&one, NULL, 0, &sum, &err), STATUS_INVALID);
    lora_release(one);
    lora_release(two);
    lora_release(replacing);
    lora_release(late);
    pair_fini(&p);
    pair_fini(&q);
}

static void survives_short_memory(void **state)
{
    (void)state;
    struct lora_pair p[2] = {pair(LORA_SITE_DOWN, 0, 2, DTYPE_F32), pair(LORA_SITE_Q, 1, 2, DTYPE_F16)};
    float magnitude[32], rows[32] = {0};
    for (int i = 0; i < 32; i++)
        magnitude[i] = 1;
    p[1].magnitude = magnitude;
    struct lora_tensor tensor = {
        .module = module_at("model.layers.0.input_layernorm"), .data = magnitude, .rows = 32};
    const int32_t id = 3;
    struct lora_spec spec = {.pairs = p,
                             .n_pairs = 2,
                             .tensors = &tensor,
                             .n_tensors = 1,
                             .row_ids = &id,
                             .rows = rows,
                             .n_rows = 1,
                             .invocation = &id,
                             .n_invocation = 1};
    struct lora *l;
    struct error err;
    enum status status = STATUS_NO_MEMORY;
    for (uint64_t n = 1; status != STATUS_OK; n++) {
        mem_fail_at(n);
        status = lora_build(m, &spec, digest, &l, &err);
        mem_fail_at(0);
        assert_true(status == STATUS_OK || (status == STATUS_NO_MEMORY && !l && n < 40));
    }
    lora_release(l);
    pair_fini(&p[0]);
    pair_fini(&p[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packs_what_it_is_given),
        cmocka_unit_test(refuses_by_name),
        cmocka_unit_test(sites_have_names_and_paths),
        cmocka_unit_test(dora_factors_are_those_of_the_paper),
        cmocka_unit_test(replaced_tensors_are_kept_as_they_are),
        cmocka_unit_test(begins_at_the_last_whole_invocation),
        cmocka_unit_test(compositions),
        cmocka_unit_test(survives_short_memory),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
