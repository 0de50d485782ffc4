/* adapters/rank_*: the numbers of every golden adapter, looked at without a base, against those of the pairs
 * that it puts into its base. */
#include "tests/test.h"

#include <math.h>

#include "golden_set.h"
#include "loader.h"
#include "rank_tools.h"
#include "tests/unit/made_files.h"
#include "tests/unit/plain_model.h"

static struct rank_report *report_of(const char *path)
{
    struct rank_report *r;
    struct error err;
    if (rank_report_create(path, &r, &err) != STATUS_OK)
        fail_msg("%s: %s", path, err.text);
    return r;
}

/* ---- against the specification ---- */

static double dense_squares(const struct lora_pair *p)
{
    float *a = calloc((size_t)p->rank * p->in, sizeof *a), *b = calloc((size_t)p->out * p->rank, sizeof *b);
    double squares = 0;
    dequantize_row(p->a_type, p->a, (size_t)p->rank * p->in, a);
    dequantize_row(p->b_type, p->b, (size_t)p->out * p->rank, b);
    bool embed = p->module.kind == MODULE_EMBED; /* its A is [in, rank] */
    for (uint32_t o = 0; o < p->out; o++)
        for (uint32_t i = 0; i < p->in; i++) {
            double sum = 0;
            for (uint32_t k = 0; k < p->rank; k++)
                sum += (double)b[(size_t)o * p->rank + k] *
                       a[embed ? (size_t)i * p->rank + k : (size_t)k * p->in + i];
            squares += pow(sum * (double)p->scale, 2);
        }
    free(a);
    free(b);
    return squares;
}

static void check_part(const struct rank_part *p, const char *path)
{
    double squares = 0;
    assert_true(p->n_sigma > 0 && p->rank_kept <= p->n_sigma && p->n_sigma <= p->rank);
    for (uint32_t i = 0; i < p->n_sigma; i++) {
        assert_true(p->sigma[i] >= 0 && (i == 0 || p->sigma[i] <= p->sigma[i - 1]));
        squares += p->sigma[i] * p->sigma[i];
    }
    if (fabs(sqrt(squares) - p->norm) > 1e-12 * p->norm)
        fail_msg("%s: %s: norm %g of singular values with %g", path, p->module, p->norm, sqrt(squares));
    assert_int_equal(p->n_parameters, (uint64_t)p->rank * (p->in + p->out));
    assert_int_equal(p->n_full, (uint64_t)p->in * p->out);
}

static void check_adapter(const struct model *m, const char *path)
{
    struct error err;
    struct loading l;
    struct adapter_report about = {0};
    struct adapter_source source = {.name = "x", .path = path, .root_fd = -1, .scale = 1};
    double expected = 0, found = 0;
    if (loading_begin(&l, &source, m, &about, &err) != STATUS_OK)
        fail_msg("%s: %s", path, err.text);
    for (size_t i = 0; i < l.content->n_pairs; i++)
        expected += dense_squares(&l.content->pairs[i]);
    struct rank_report *r = report_of(path);
    assert_memory_equal(&r->about, &about, sizeof about);
    assert_int_equal(r->n_parts, l.content->n_pairs);
    for (size_t i = 0; i < r->n_parts; i++) {
        check_part(&r->parts[i], path);
        found += r->parts[i].norm * r->parts[i].norm;
    }
    if (fabs(found - expected) > 1e-9 * expected)
        fail_msg("%s: squares of norms are %g, expected %g", path, found, expected);
    rank_report_destroy(r);
    loading_end(&l);
}

static void numbers_are_those_of_the_pairs(void **state)
{
    (void)state;
    char *families[64], *names[128], path[400], sub[100];
    size_t n = golden_list(GOLDEN_OWN, "models", "", families, 64), n_adapters = 0;
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, GOLDEN_OWN "/models/%s/f32", families[i]);
        struct model *m = path_is_folder(path) ? open_model(path) : NULL;
        snprintf(sub, sizeof sub, "adapters/%s", families[i]);
        size_t k = m ? golden_list(GOLDEN_OWN, sub, "", names, 128) : 0;
        for (size_t a = 0; a < k; a++) {
            snprintf(path, sizeof path, GOLDEN_OWN "/%s/%s", sub, names[a]);
            if (strcmp(names[a], "wrong_base") != 0)
                check_adapter(m, path);
            free(names[a]);
            n_adapters++;
        }
        model_close(m);
        free(families[i]);
    }
    assert_true(n_adapters > 50);
}

/* ---- formats and kinds ---- */

static void names_what_is_no_product(void **state)
{
    (void)state;
    struct rank_report *r = report_of(GOLDEN_OWN "/adapters/llama/dora_embed_r3");
    assert_int_equal(r->others.n_magnitudes, r->n_parts);
    assert_true(r->parts[0].dora);
    assert_string_equal(r->parts[0].kind, "embed_tokens");
    rank_report_destroy(r);
    r = report_of(GOLDEN_OWN "/adapters/qwen2/bias_all_r2");
    assert_true(r->others.n_biases > 0 && r->others.n_weights == 0 && !r->parts[0].dora);
    rank_report_destroy(r);
    r = report_of(GOLDEN_OWN "/adapters/llama/tokens_r2");
    assert_int_equal(r->others.n_token_rows, 1);
    rank_report_destroy(r);
    r = report_of(GOLDEN_OWN "/adapters/llama/lora_bias_r3");
    assert_int_equal(r->others.n_lora_biases, r->n_parts);
    rank_report_destroy(r);
    r = report_of(GOLDEN_OWN "/adapters/llama/mts_norms_r2");
    assert_true(r->others.n_weights > 0);
    rank_report_destroy(r);
}

/* [in, r] = [3, 2] and [r, out] = [2, 4]: scale * (3 * 4) ones times sqrt(2 * 2). */
static void reads_mlx_turned_round(void **state)
{
    (void)state;
    struct folder f = folder_make();
    static const char header[] = "{\"model.layers.0.self_attn.q_proj.lora_a\":{\"dtype\":\"F32\",\"shape\":["
                                 "3,2],\"data_offsets\":[0,24]},"
                                 "\"model.layers.0.self_attn.q_proj.lora_b\":{\"dtype\":\"F32\",\"shape\":[2,"
                                 "4],\"data_offsets\":[24,56]}}";
    struct buf b;
    buf_init(&b, 0);
    put_u64(&b, strlen(header));
    assert_true(buf_puts(&b, header));
    for (int i = 0; i < 14; i++) {
        float one = 1;
        assert_true(buf_append(&b, &one, sizeof one));
    }
    put_file(f.path, "adapters.safetensors", b.data, b.length);
    buf_fini(&b);
    put_text(f.path, "adapter_config.json",
             "{\"fine_tune_type\":\"lora\",\"num_layers\":1,\"lora_parameters\":{\"rank\":2,\"scale\":0.5,"
             "\"dropout\":0.0}}");
    struct rank_report *r = report_of(f.path);
    assert_int_equal(r->n_parts, 1);
    const struct rank_part *p = &r->parts[0];
    assert_true(p->out == 4 && p->in == 3 && p->rank == 2 && p->scale == 0.5 && p->expert == -1);
    assert_true(fabs(p->norm - sqrt(12)) < 1e-12); /* 0.5 * 2 in each of 12 places */
    assert_true(p->rank_kept == 1 && p->n_sigma == 2);
    assert_string_equal(p->kind, "q_proj");
    rank_report_destroy(r);
    folder_remove(&f);
}

static void ranks_for_energies(void **state)
{
    (void)state;
    const double sigma[] = {3, 2, 1, 1e-9}, none[] = {0, 0};
    assert_int_equal(rank_for_energy(sigma, 4, 9.0 / 14 - 1e-9), 1);
    assert_int_equal(rank_for_energy(sigma, 4, 9.0 / 14 + 1e-9), 2);
    assert_int_equal(rank_for_energy(sigma, 4, 13.0 / 14 - 1e-9), 2);
    assert_int_equal(rank_for_energy(sigma, 4, 0.99), 3);
    assert_int_equal(rank_for_energy(sigma, 4, 1), 3); /* the last is below float's rounding */
    assert_int_equal(rank_for_energy(none, 2, 0.99), 0);
}

static void refusals_name_the_file(void **state)
{
    (void)state;
    struct rank_report *r = (void *)1;
    struct error err;
    assert_int_equal(rank_report_create("/nowhere/at/all", &r, &err), STATUS_NOT_FOUND);
    assert_null(r);
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
}

static void memory_may_fail_anywhere(void **state)
{
    (void)state;
    struct rank_report *r;
    struct error err;
    enum status s;
    uint64_t n = 0;
    do {
        mem_fail_at(++n);
        s = rank_report_create(GOLDEN_OWN "/adapters/llama/qv_r4", &r, &err);
        mem_fail_at(0);
        if (s != STATUS_OK && s != STATUS_NO_MEMORY)
            fail_msg("allocation %d: %s '%s'", (int)n, status_name(s), err.text);
    } while (s != STATUS_OK && n < 2000);
    assert_true(s == STATUS_OK && n > 30);
    rank_report_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_those_of_the_pairs), cmocka_unit_test(names_what_is_no_product),
        cmocka_unit_test(reads_mlx_turned_round),         cmocka_unit_test(ranks_for_energies),
        cmocka_unit_test(refusals_name_the_file),         cmocka_unit_test(memory_may_fail_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
