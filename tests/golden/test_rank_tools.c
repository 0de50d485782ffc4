/* rank_report.c and shrink.c: the numbers of every golden adapter, looked at without a base, against those of
 * the pairs that it puts into its base. */
#include "tests/test.h"

#include <math.h>

#include "golden_set.h"
#include "loader.h"
#include "outgoing.h"
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

/* ---- making smaller ---- */

/* Pairs, one by one: the squared distance of their products, and the squares of the first's. */
static void add_distance(const struct lora_pair *x, const struct lora_pair *y, double sums[2])
{
    struct lora_pair both = *x;
    uint32_t rank = x->rank + y->rank;
    float *a = calloc((size_t)rank * x->in, sizeof *a), *b = calloc((size_t)x->out * rank, sizeof *b);
    const struct lora_pair *pairs[2] = {x, y};
    for (int i = 0, at = 0; i < 2; at += (int)pairs[i++]->rank) {
        const struct lora_pair *p = pairs[i];
        float *pa = calloc((size_t)p->rank * p->in, sizeof *pa),
              *pb = calloc((size_t)p->out * p->rank, sizeof *pb);
        bool embed = p->module.kind == MODULE_EMBED;
        dequantize_row(p->a_type, p->a, (size_t)p->rank * p->in, pa);
        dequantize_row(p->b_type, p->b, (size_t)p->out * p->rank, pb);
        for (size_t k = 0; k < p->rank; k++) {
            for (size_t c = 0; c < p->in; c++)
                a[embed ? c * rank + (size_t)at + k : ((size_t)at + k) * p->in + c] =
                    pa[embed ? c * p->rank + k : k * p->in + c];
            for (size_t r = 0; r < p->out; r++)
                b[r * rank + (size_t)at + k] = pb[r * p->rank + k] * (i ? -p->scale : p->scale);
        }
        free(pa);
        free(pb);
    }
    both.a_type = both.b_type = DTYPE_F32;
    both.a = a;
    both.b = b;
    both.rank = rank;
    both.scale = 1;
    sums[0] += dense_squares(&both);
    sums[1] += dense_squares(x);
    free(a);
    free(b);
}

static void begin_loading(struct loading *l, const struct model *m, const char *path,
                          struct adapter_report *about)
{
    struct error err;
    struct adapter_source source = {.name = "x", .path = path, .root_fd = -1, .scale = 1};
    memset(about, 0, sizeof *about);
    if (loading_begin(l, &source, m, about, &err) != STATUS_OK)
        fail_msg("%s: %s", path, err.text);
}

/* Relative distance of two adapters' products in their base; all else must be equal. */
static double distance(const struct model *m, const char *path, const char *other)
{
    struct loading x, y;
    struct adapter_report about_x, about_y;
    double sums[2] = {0, 0};
    begin_loading(&x, m, path, &about_x);
    begin_loading(&y, m, other, &about_y);
    const struct lora_spec *s = &x.content->spec, *t = &y.content->spec;
    assert_int_equal(strlen(about_x.kinds),
                     strlen(about_y.kinds)); /* the words of another order of tensors */
    assert_string_equal(about_x.base_model, about_y.base_model);
    assert_true(s->n_pairs == t->n_pairs && s->n_tensors == t->n_tensors && s->n_rows == t->n_rows);
    assert_true(s->n_head_rows == t->n_head_rows && s->n_invocation == t->n_invocation);
    for (size_t i = 0; i < s->n_pairs; i++) {
        size_t k = 0; /* the writer has an order of its own */
        while (k < t->n_pairs &&
               memcmp(&s->pairs[i].module, &t->pairs[k].module, sizeof(struct model_module)) != 0)
            k++;
        assert_true(k < t->n_pairs);
        const struct lora_pair *p = &s->pairs[i], *q = &t->pairs[k];
        assert_true(!p->magnitude == !q->magnitude && !p->b_bias == !q->b_bias);
        if (p->magnitude)
            assert_memory_equal(p->magnitude, q->magnitude, p->out * sizeof *p->magnitude);
        for (uint32_t r = 0; p->b_bias && r < p->out; r++)
            assert_true(fabsf(p->scale * p->b_bias[r] - q->scale * q->b_bias[r]) <=
                        1e-6F * fabsf(p->b_bias[r]));
        add_distance(p, q, sums);
    }
    loading_end(&x);
    loading_end(&y);
    return sqrt(sums[0] / sums[1]);
}

static struct shrink_report *shrunk(const char *path, const char *out, const struct shrink_options *o)
{
    struct shrink_report *r;
    struct error err;
    if (adapter_shrink(path, out, o, &r, &err) != STATUS_OK)
        fail_msg("%s: %s", path, err.text);
    return r;
}

static void check_shrunk(const struct model *m, const char *path, const struct folder *f,
                         const struct shrink_options *o)
{
    char out[128];
    snprintf(out, sizeof out, "%s/out", f->path);
    struct shrink_report *r = shrunk(path, out, o);
    double found = distance(m, path, out), said = r->error / r->norm;
    if (fabs(found - said) > 1e-6 + 1e-4 * said || (o->energy == 1 && said > 1e-6) ||
        (o->energy > 0 && said > sqrt(1 - o->energy) + 1e-2))
        fail_msg("%s: relative error %g, said to be %g", path, found, said);
    for (size_t i = 0; i < r->n_parts; i++)
        assert_true(r->parts[i].rank_after >= 1 && r->parts[i].rank_after <= r->parts[i].rank_before &&
                    (o->rank == 0 || r->parts[i].rank_after <= o->rank));
    shrink_report_destroy(r);
    folder_empty(f->path);
}

/* Every adapter that four families have in the small set, which is every kind, each in one of three ways. */
static void every_kind_is_made_smaller(void **state)
{
    (void)state;
    static const char *const families[] = {"llama", "gemma3", "mixtral", "gpt2"};
    static const struct shrink_options options[] = {{.energy = 1, .type = DTYPE_COUNT},
                                                    {.energy = 0.9, .type = DTYPE_F32},
                                                    {.rank = 1, .type = DTYPE_BF16}};
    struct folder f = folder_make();
    char path[300], sub[64], *names[128];
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        snprintf(path, sizeof path, GOLDEN_OWN "/models/%s/f32", families[i]);
        struct model *m = open_model(path);
        snprintf(sub, sizeof sub, "adapters/%s", families[i]);
        size_t n = golden_list(GOLDEN_OWN, sub, "", names, 128);
        for (size_t a = 0; a < n; a++) {
            snprintf(path, sizeof path, GOLDEN_OWN "/%s/%s", sub, names[a]);
            if (strcmp(names[a], "wrong_base") != 0)
                check_shrunk(m, path, &f, &options[a % 3]);
            free(names[a]);
        }
        model_close(m);
    }
    folder_remove(&f);
}

/* A rank that isn't there goes without a loss: the rank-4 adapter as rank 8, its columns of B given twice at
 * half their size. */
static void finds_the_true_rank(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct loading l;
    struct adapter_report about;
    char wide[100], out[100];
    struct model *m = open_model(GOLDEN_OWN "/models/llama/f32");
    begin_loading(&l, NULL, GOLDEN_OWN "/adapters/llama/qv_r4", &about);
    struct content *c = l.content;
    struct outgoing o = {.arena = c->arena};
    struct out_place place = {.stop = NULL};
    for (size_t i = 0; i < c->n_file_pairs; i++) {
        const struct file_pair *p = &c->file_pairs[i];
        uint32_t r = p->rank, in = p->a.cols, rows = p->b.rows;
        float *a = arena_array(c->arena, 2UL * r * in, sizeof *a),
              *b = arena_array(c->arena, 2UL * r * rows, sizeof *b);
        for (size_t k = 0; k < 2UL * r * in; k++)
            a[k] = ((const float *)p->a.data)[k % ((size_t)r * in)];
        for (size_t k = 0; k < 2UL * r * rows; k++)
            b[k] = 0.5F * ((const float *)p->b.data)[k / (2 * r) * r + k % r];
        const struct outgoing_shape as = {DTYPE_F32, 2, {2 * r, in}}, bs = {DTYPE_F32, 2, {rows, 2 * r}};
        assert_int_equal(outgoing_add(&o, p->a_tensor->name, &as, a, NULL), STATUS_OK);
        assert_int_equal(outgoing_add(&o, p->b_tensor->name, &bs, b, NULL), STATUS_OK);
    }
    snprintf(wide, sizeof wide, "%s/wide", f.path);
    snprintf(out, sizeof out, "%s/out", f.path);
    json_object_set_new(c->config, "lora_alpha",
                        json_real(2 * json_number_value(json_object_get(c->config, "lora_alpha"))));
    json_object_set_new(c->config, "r", json_integer(8));
    assert_int_equal(out_begin(&place, wide, NULL), STATUS_OK);
    assert_int_equal(outgoing_write_peft(&o, &place, NULL), STATUS_OK);
    assert_int_equal(out_put_json(&place, "adapter_config.json", c->config, NULL), STATUS_OK);
    assert_int_equal(out_put(&place, "README.md", "hello", 5, NULL), STATUS_OK);
    assert_int_equal(out_put(&place, "optimizer.pt", "x", 1, NULL), STATUS_OK);
    assert_int_equal(out_commit_folder(&place, NULL), STATUS_OK);
    outgoing_fini(&o);
    loading_end(&l);
    assert_true(distance(m, GOLDEN_OWN "/adapters/llama/qv_r4", wide) < 1e-6);
    struct shrink_report *r = shrunk(wide, out, &(struct shrink_options){.energy = 1, .type = DTYPE_COUNT});
    for (size_t i = 0; i < r->n_parts; i++)
        assert_true(r->parts[i].rank_before == 8 && r->parts[i].rank_after == 4);
    assert_true(r->error / r->norm < 1e-6 && r->n_after * 2 == r->n_before && r->n_kept == 0);
    assert_true(distance(m, GOLDEN_OWN "/adapters/llama/qv_r4", out) < 1e-6);
    shrink_report_destroy(r);
    assert_true(file_exists_at(f.fd, "out/README.md") && !file_exists_at(f.fd, "out/optimizer.pt"));
    model_close(m);
    folder_remove(&f);
}

static bool stop_now(void)
{
    return true;
}

static void refused_leaves_nothing(void **state)
{
    (void)state;
    static const char *const from = GOLDEN_OWN "/adapters/llama/qv_r4";
    struct folder f = folder_make();
    struct shrink_report *r;
    struct error err;
    char out[100], *names[4];
    struct shrink_options o = {.rank = 2, .type = DTYPE_COUNT};
    snprintf(out, sizeof out, "%s/out", f.path);
    assert_int_equal(adapter_shrink("/nowhere", out, &o, &r, &err), STATUS_NOT_FOUND);
    assert_int_equal(adapter_shrink(from, f.path, &o, &r, &err), STATUS_EXISTS);
    assert_int_equal(adapter_shrink(from, out, &(struct shrink_options){.energy = 1.5}, &r, &err),
                     STATUS_INVALID);
    assert_int_equal(
        adapter_shrink(from, out, &(struct shrink_options){.rank = 1, .type = DTYPE_Q8_0}, &r, &err),
        STATUS_INVALID);
    o.stop = stop_now;
    assert_int_equal(adapter_shrink(from, out, &o, &r, &err), STATUS_CANCELLED);
    o.stop = NULL;
    enum status s = STATUS_NO_MEMORY;
    for (uint64_t n = 1; s != STATUS_OK && n < 3000; n++) {
        assert_int_equal(golden_list(f.path, "", "", names, 4), 0);
        mem_fail_at(n);
        s = adapter_shrink(from, out, &o, &r, &err);
        mem_fail_at(0);
        if (s != STATUS_OK && s != STATUS_NO_MEMORY && s != STATUS_TOO_LARGE)
            fail_msg("allocation %d: %s '%s'", (int)n, status_name(s), err.text);
    }
    assert_int_equal(s, STATUS_OK);
    shrink_report_destroy(r);
    folder_remove(&f);
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
        cmocka_unit_test(every_kind_is_made_smaller),     cmocka_unit_test(finds_the_true_rank),
        cmocka_unit_test(refused_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
