/* core/model/cost.c with constants made by hand: the sums over a model and an adapter, and what is chosen by
 * them; measuring gives a number for everything that is needed. No time is asserted. */
#include "tests/test.h"

#include <math.h>

#include "cost.h"
#include "engine_family.h"
#include "model_inner.h"

/* Every type costs `ns` a weight for a row, twice that for two and so on; low-rank parts `panel` each. */
static struct cost_model flat_costs(double ns, double panel)
{
    static const uint32_t rows[] = COST_ROWS_AT;
    struct cost_model c = {.n_workers = 2, .barrier_ns = 10};
    for (unsigned r = 0; r < COST_ROW_POINTS; r++) {
        for (int t = 0; t < DTYPE_COUNT; t++)
            c.weight_ns[t][r] = ns * rows[r];
        for (unsigned k = 0; k < COST_RANK_POINTS; k++)
            c.panel_ns[k][r] = panel * rows[r];
    }
    return c;
}

static void set_type(struct cost_model *c, enum dtype t, double ns)
{
    static const uint32_t rows[] = COST_ROWS_AT;
    for (unsigned r = 0; r < COST_ROW_POINTS; r++)
        c->weight_ns[t][r] = ns * rows[r];
}

static double padded(const struct packed *w)
{
    return w->data ? (double)w->n_panels * PANEL_ROWS * w->cols : 0;
}

static double all_weights(const struct model *m)
{
    double n = padded(&m->head);
    for (uint32_t i = 0; i < m->config.n_layers; i++)
        for (unsigned s = 0; s < N_LAYER_SITES; s++)
            n += padded(&m->layers[i].w[s]);
    return n;
}

static struct lora *adapter_of(const struct golden_family *f, const char *what)
{
    for (uint32_t i = 0; i < f->n_cases; i++)
        if (strcmp(f->cases[i].what, what) == 0)
            return f->cases[i].lora;
    fail_msg("no case %s", what);
    return NULL;
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fabs(b);
}

static void a_step_is_a_sum_over_matrices(void **state)
{
    (void)state;
    struct golden_family *f = open_family("llama");
    struct cost_model c = flat_costs(1, 0);
    struct lora *l = adapter_of(f, "adapters/llama/all_r8_bf16 p6");
    double n = all_weights(f->model), a = 0, n_groups = 0, b = 0, touched = 0;
    assert_true(near(cost_step_ns(&c, f->model, NULL, 1), n));
    assert_true(near(cost_step_ns(&c, f->model, NULL, 3), 3 * n));
    assert_true(near(cost_step_ns(&c, f->model, NULL, 200), 200 * n));
    for (uint32_t i = 0; i < l->n_layers; i++)
        for (int g = 0; g < LORA_GROUP_ROUTER; g++) {
            const struct lora_group *group = &l->layers[i].group[g];
            double units = group->a.n_panels; /* shared out whole among two workers */
            a += padded(&group->a) * ceil(units / 2) * 2 / units;
            n_groups += group->a.data != NULL;
            for (int p = 0; p < 3; p++)
                b += group->part[p].b.data ? group->part[p].b.n_panels : 0;
        }
    assert_true(n_groups == 4.0 * l->n_layers);
    assert_true(near(cost_step_ns(&c, f->model, l, 1), n + a + n_groups * c.barrier_ns));
    assert_true(near(cost_step_ns(&c, f->model, l, 8), 8 * n + 8 * a + n_groups * c.barrier_ns));
    c = flat_costs(1, 1000);
    assert_true(near(cost_step_ns(&c, f->model, l, 1), n + a + n_groups * c.barrier_ns + 1000 * b));
    /* inside: all linear modules of the layers are of the copy's type, the head stays */
    set_type(&c, DTYPE_BF16, 0.5);
    touched = n - padded(&f->model->head);
    assert_true(near(cost_merged_ns(&c, f->model, l, DTYPE_BF16, 1), n - 0.5 * touched));
    struct merged_copy *copy;
    struct error err;
    expect_ok(merged_copy_create(f->model, l, DTYPE_BF16, NULL, &copy, &err), &err);
    assert_true(near(cost_step_ns(&c, merged_copy_model(copy), NULL, 1), n - 0.5 * touched));
    merged_copy_release(copy);
    close_family(f);
}

/* Both ways see replaced tensors, and what isn't touched stays as it is: every adapter's copy costs what was
 * foretold of it. */
static void foretold_is_what_the_copy_costs(void **state)
{
    (void)state;
    static const char *const families[] = {"llama", "gemma3", "qwen2", "mixtral"};
    for (size_t i = 0; i < 4; i++) {
        struct golden_family *f = open_family(families[i]);
        struct cost_model c = flat_costs(1, 5);
        set_type(&c, DTYPE_BF16, 0.6);
        set_type(&c, DTYPE_Q8_0, 0.3);
        for (uint32_t k = 0; k < f->n_adapters; k++) {
            struct lora *l = f->adapters[k]->lora;
            const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_Q8_0};
            assert_true(l->replaces ||
                        cost_step_ns(&c, f->model, l, 2) > cost_step_ns(&c, f->model, NULL, 2));
            for (int t = 0; t < 3; t++) {
                struct merged_copy *copy;
                struct error err;
                if (merged_copy_create(f->model, l, types[t], NULL, &copy, &err) != STATUS_OK)
                    continue;
                assert_true(near(cost_merged_ns(&c, f->model, l, types[t], 2),
                                 cost_step_ns(&c, merged_copy_model(copy), NULL, 2)));
                merged_copy_release(copy);
            }
        }
        close_family(f);
    }
}

static void the_faster_way_is_chosen(void **state)
{
    (void)state;
    struct golden_family *f = open_family("llama");
    struct lora *l = adapter_of(f, "adapters/llama/rslora_r8 p6");
    struct model base = *f->model; /* as if quantised; only the kind of base is asked for */
    base.info.weight_type = DTYPE_Q4_0;
    struct cost_load load = {.share = 1, .n_rows = 1};
    struct cost_model c = flat_costs(1, 20);
    struct cost_choice choice;
    set_type(&c, DTYPE_BF16, 30);
    set_type(&c, DTYPE_Q8_0, 20);
    cost_choose(&c, &base, l, &load, 0, &choice); /* a copy streams more bytes */
    assert_true(!choice.merge && !choice.none && choice.type == DTYPE_Q8_0 && choice.ratio > 1 &&
                choice.gain < 0);
    set_type(&c, DTYPE_Q8_0, 1);
    cost_choose(&c, &base, l, &load, 0, &choice);
    assert_true(choice.merge && choice.type == DTYPE_Q8_0 && choice.ratio < 1);
    assert_true(near(choice.ratio, choice.merged_ns / choice.unmerged_ns) &&
                near(choice.gain, 1 - choice.ratio));
    cost_choose(&c, &base, l, &load, 1U << DTYPE_Q8_0, &choice); /* not faithful: the other one is too slow */
    assert_true(!choice.merge && choice.type == DTYPE_BF16);
    cost_choose(&c, &base, l, &load, 1U << DTYPE_Q8_0 | 1U << DTYPE_BF16, &choice);
    assert_true(!choice.merge && choice.none);
    set_type(&c, DTYPE_BF16, 1);
    cost_choose(&c, &base, l, &load, 0, &choice); /* equal: fewer bytes */
    assert_true(choice.merge && choice.type == DTYPE_Q8_0);
    set_type(&c, DTYPE_BF16, 0.9);
    cost_choose(&c, &base, l, &load, 0, &choice);
    assert_true(choice.merge && choice.type == DTYPE_BF16);
    load.share = 0.9 * MERGE_GAIN_MIN / (1 - choice.ratio); /* too rare to be worth the memory */
    cost_choose(&c, &base, l, &load, 0, &choice);
    assert_true(!choice.merge && choice.ratio < 1);
    load.share = 1;
    base.info.weight_type = DTYPE_F32; /* never Q8_0 there */
    set_type(&c, DTYPE_Q8_0, 0.1);
    set_type(&c, DTYPE_BF16, 0.5);
    cost_choose(&c, &base, l, &load, 0, &choice);
    assert_true(choice.merge && choice.type == DTYPE_BF16);
    cost_choose(&c, &base, l, &load, 1U << DTYPE_BF16, &choice);
    assert_true(choice.merge && choice.type == DTYPE_F32);
    close_family(f);
}

static void faithful_is_a_bound_on_what_is_lost(void **state)
{
    (void)state;
    struct merge_report r = {.delta_norm = 2, .error_norm = 2 * MERGE_ERROR_MAX};
    assert_true(cost_is_faithful(&r));
    r.error_norm *= 1.001;
    assert_false(cost_is_faithful(&r));
    r = (struct merge_report){0}; /* only vectors, or tensors replaced as they are */
    assert_true(cost_is_faithful(&r));
    r.error_norm = NAN;
    assert_false(cost_is_faithful(&r));
}

static void curves_are_lines_between_points(void **state)
{
    (void)state;
    const struct cost_curve c = {{10, 12, 20, 40, 60, 100}};
    const double at[][2] = {{0, 10}, {1, 10},  {1.5, 11}, {2, 12},  {3, 16},
                            {8, 40}, {24, 80}, {32, 100}, {64, 200}};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        assert_true(near(cost_curve_at(&c, at[i][0]), at[i][1]));
}

static void measuring_gives_all_constants(void **state)
{
    (void)state;
    struct golden_family *f = open_family("llama");
    struct error err;
    for (unsigned n_threads = 1; n_threads <= 2; n_threads++) {
        struct team *team = team_create(n_threads);
        struct cost_model c;
        expect_ok(cost_measure(f->model, team, 20 * NS_PER_MS, &c, &err), &err);
        assert_int_equal(c.n_workers, n_threads);
        assert_true(c.spent_ns > 0 && c.barrier_ns >= 0);
        const enum dtype needed[] = {DTYPE_F32, DTYPE_BF16, DTYPE_Q8_0};
        for (unsigned r = 0; r < COST_ROW_POINTS; r++) {
            for (size_t t = 0; t < 3; t++)
                assert_true(c.weight_ns[needed[t]][r] > 0 && isfinite(c.weight_ns[needed[t]][r]));
            for (unsigned k = 0; k < COST_RANK_POINTS; k++)
                assert_true(c.panel_ns[k][r] > 0 && isfinite(c.panel_ns[k][r]));
            for (size_t t = 0; t < 3 && r > 0; t++) /* more work never costs less */
                assert_true(c.weight_ns[needed[t]][r] >= c.weight_ns[needed[t]][r - 1]);
            assert_true(c.panel_ns[0][r] <= c.panel_ns[1][r] && c.panel_ns[1][r] <= c.panel_ns[2][r]);
        }
        assert_true(cost_step_ns(&c, f->model, f->adapters[0]->lora, 5) > 0);
        team_destroy(team);
    }
    struct team *team = team_create(1);
    struct cost_model c;
    enum status s = STATUS_NO_MEMORY;
    for (uint64_t n = 1; s != STATUS_OK; n++) {
        mem_fail_at(n);
        s = cost_measure(f->model, team, NS_PER_MS, &c, &err);
        mem_fail_at(0);
        assert_true((s == STATUS_OK || s == STATUS_NO_MEMORY) && n < 20);
    }
    team_destroy(team);
    close_family(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_is_a_sum_over_matrices),
        cmocka_unit_test(foretold_is_what_the_copy_costs),
        cmocka_unit_test(the_faster_way_is_chosen),
        cmocka_unit_test(faithful_is_a_bound_on_what_is_lost),
        cmocka_unit_test(curves_are_lines_between_points),
        cmocka_unit_test(measuring_gives_all_constants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
