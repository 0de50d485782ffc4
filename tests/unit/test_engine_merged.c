/* Merged copies in the engine on real tiny models: every adapter that can be merged speaks as PEFT on its
 * copy; a sequence that crosses between copy and base says the same; references are 0 at rest. Run under
 * ThreadSanitizer too. */
#include "tests/test.h"

#include <time.h>

#include "engine_family.h"

#define SEQUENCE_TOKENS 100U

/* Copies of all adapters of a family that can be merged. */
struct copies {
    struct merged_copy *copy[N_ADAPTERS_MAX];
    uint32_t n;
};

static struct merged_copy *copy_of(const struct copies *c, const struct lora *l)
{
    for (uint32_t i = 0; i < c->n; i++)
        if (merged_copy_lora(c->copy[i]) == l)
            return c->copy[i];
    return NULL;
}

static void copies_init(struct copies *c, const struct golden_family *f, enum dtype type)
{
    struct error err;
    c->n = 0;
    for (uint32_t i = 0; i < f->n_adapters; i++) {
        struct lora *l = f->adapters[i]->lora;
        enum status s = merged_copy_create(f->model, l, type, NULL, &c->copy[c->n], &err);
        assert_true(s == STATUS_OK || (s == STATUS_UNSUPPORTED && strstr(err.text, "unmerged")));
        c->n += s == STATUS_OK;
    }
    assert_true(c->n >= 5);
}

static void copies_fini(struct copies *c)
{
    for (uint32_t i = 0; i < c->n; i++) {
        assert_int_equal(merged_copy_refs(c->copy[i]), 1);
        merged_copy_release(c->copy[i]);
    }
}

static void set_copy(struct engine *e, struct merged_copy *copy)
{
    struct error err;
    expect_ok(engine_set_merged(e, copy, MERGED_ALWAYS, &err), &err);
}

static void set_all(struct engine *e, const struct copies *c)
{
    for (uint32_t i = 0; i < c->n; i++)
        set_copy(e, c->copy[i]);
}

/* Which way the tokens went: all on the copy, or none where there is none. */
static void check_path(const struct golden_case *c, const struct outcome *r, bool merged)
{
    uint32_t n = c->n_prompt + r->n_tokens - 1;
    if (r->last.n_merged_tokens != (merged ? n : 0) || r->last.n_unmerged_tokens != (merged ? 0 : n))
        fail_msg("%s: %u tokens merged, %u unmerged", c->what, r->last.n_merged_tokens,
                 r->last.n_unmerged_tokens);
}

/* Alone in the engine each case is a whole step of its adapter. */
static void check_family(const char *name)
{
    struct golden_family *f = open_family(name);
    struct copies c;
    copies_init(&c, f, DTYPE_F32);
    struct engine *e = engine_with(f, &(struct engine_options){.n_threads = 2, .context = 256});
    set_all(e, &c);
    for (uint32_t i = 0; i < f->n_cases; i++) {
        const struct golden_case *g = &f->cases[i];
        struct outcome *r = mem_array(1, sizeof *r);
        struct generation request =
            generation_of(g, (uint32_t)json_array_size(json_object_get(g->golden, "greedy")));
        submit(e, &request, r);
        gather(e, r, 1);
        check_golden(g, r);
        check_path(g, r, g->lora && copy_of(&c, g->lora));
        outcomes_free(r, 1);
    }
    struct engine_stats s;
    engine_stats(e, &s);
    assert_int_equal(s.step_allocations, 0);
    assert_true(s.n_merged_steps > 0);
    engine_destroy(e);
    copies_fini(&c);
    close_family(f);
}

static void llama_speaks_as_peft_on_copies(void **state)
{
    (void)state;
    check_family("llama");
}

static void qwen2_speaks_as_peft_on_copies(void **state)
{
    (void)state;
    check_family("qwen2");
}

static void gemma3_speaks_as_peft_on_copies(void **state)
{
    (void)state;
    check_family("gemma3");
}

/* ---- one family more closely ---- */

static const struct golden_case *case_of(const struct golden_family *f, const char *what)
{
    for (uint32_t i = 0; i < f->n_cases; i++)
        if (strcmp(f->cases[i].what, what) == 0)
            return &f->cases[i];
    fail_msg("no case %s", what);
    return NULL;
}

/* Greedy tokens are the same up to where two candidates lie within rounding. */
static void check_same_choice(const struct outcome *a, const struct outcome *b)
{
    for (uint32_t i = 0; i < a->n_tokens; i++) {
        if (a->tokens[i] != b->tokens[i]) {
            assert_true(a->top[i][0].logprob - a->top[i][1].logprob < 2e-3F);
            return;
        }
        assert_true(fabsf(a->logprobs[i] - b->logprobs[i]) < 1e-3F);
    }
}

/* The copy comes and goes, and so does another request, while events are read. */
static void run_crossing(struct engine *e, struct merged_copy *copy, struct generation *g,
                         const struct generation *other, struct outcome r[2])
{
    struct event v;
    uint32_t n = 0;
    bool has_other = false;
    submit(e, g, &r[0]);
    while (!r[0].over || has_other) {
        assert_true(engine_wait(e, &v, 120 * NS_PER_S));
        struct outcome *of = v.id == r[0].id ? &r[0] : &r[1];
        note(of, &v);
        has_other = has_other && !(of == &r[1] && of->over);
        if (n % 3 == 0)
            set_copy(e, copy);
        else if (n % 3 == 2)
            engine_drop_merged(e, merged_copy_lora(copy)->digest);
        if (n % 16 == 5 && !has_other && !r[0].over) {
            buf_fini(&r[1].text);
            memset(&r[1], 0, sizeof r[1]);
            submit(e, other, &r[1]);
            has_other = true;
        }
        n++;
    }
}

static void check_crossing(const struct golden_family *f, const char *what)
{
    const struct golden_case *c = case_of(f, what), *base = case_of(f, "base p6");
    struct outcome *r = mem_array(3, sizeof *r);
    struct generation g = generation_of(c, SEQUENCE_TOKENS), other = generation_of(base, 3);
    struct merged_copy *copy;
    struct error err;
    expect_ok(merged_copy_create(f->model, c->lora, DTYPE_F32, NULL, &copy, &err), &err);
    struct engine *e = engine_with(f, &(struct engine_options){.n_threads = 2, .context = 256});
    submit(e, &g, &r[0]);
    gather(e, r, 1);
    assert_int_equal(r[0].last.n_merged_tokens, 0);
    for (int i = 0; i < 20 && (r[1].last.n_merged_tokens == 0 || r[1].last.n_unmerged_tokens == 0); i++) {
        buf_fini(&r[1].text);
        memset(&r[1], 0, sizeof r[1]);
        run_crossing(e, copy, &g, &other, &r[1]);
        check_same_choice(&r[0], &r[1]);
    }
    assert_true(r[1].last.n_merged_tokens > 0 && r[1].last.n_unmerged_tokens > 0);
    engine_destroy(e);
    assert_int_equal(merged_copy_refs(copy), 1);
    merged_copy_release(copy);
    outcomes_free(r, 3);
}

static void a_sequence_crosses_at_any_step(void **state)
{
    (void)state;
    struct golden_family *f = open_family("llama");
    check_crossing(f, "adapters/llama/all_r8_bf16 p6");
    check_crossing(f, "adapters/llama/dora_r3 p6");
    check_crossing(f, "adapters/llama/mts_norms_r2 p6");
    close_family(f);
}

/* Copies of other types round, but say about the same; a quantised one on a base of floats has its own form
 * of activations. */
static void coarser_copies_stay_near(void **state)
{
    (void)state;
    struct golden_family *f = open_family("llama");
    const struct {
        enum dtype type;
        double bound;
    } types[] = {{DTYPE_F32, 1e-4}, {DTYPE_BF16, 0.05}, {DTYPE_Q8_0, 0.05}};
    const struct golden_case *c = case_of(f, "adapters/llama/all_r8_bf16 p70");
    struct engine *e = engine_with(f, &(struct engine_options){.n_threads = 2, .context = 256});
    for (size_t t = 0; t < 3; t++) {
        const json_t *logprobs = json_object_get(c->golden, "prompt_logprobs");
        struct outcome *r = mem_array(1, sizeof *r);
        struct generation g = generation_of(c, 2);
        struct merged_copy *copy;
        struct error err;
        double squares = 0;
        expect_ok(merged_copy_create(f->model, c->lora, types[t].type, NULL, &copy, &err), &err);
        assert_int_equal(merged_copy_type(copy), types[t].type);
        set_copy(e, copy); /* in the place of the one before, which the engine alone still holds */
        merged_copy_release(copy);
        submit(e, &g, r);
        gather(e, r, 1);
        check_path(c, r, true);
        for (uint32_t i = 1; i < c->n_prompt; i++) {
            double d = json_number_value(json_array_get(logprobs, i - 1)) - (double)r->prompt_logprobs[i];
            squares += d * d / (c->n_prompt - 1);
        }
        if (sqrt(squares) > types[t].bound || (types[t].type != DTYPE_F32 && squares == 0))
            fail_msg("%s: log-probabilities off by %g", dtype_name(types[t].type), sqrt(squares));
        outcomes_free(r, 1);
    }
    engine_destroy(e);
    close_family(f);
}

/* Root mean square of the difference of two outcomes' log-probabilities of one prompt. */
static double prompt_distance(const struct outcome *a, const struct outcome *b)
{
    double squares = 0;
    for (uint32_t i = 1; i < a->n_prompt_logprobs; i++) {
        double d = (double)a->prompt_logprobs[i] - (double)b->prompt_logprobs[i];
        squares += d * d / (a->n_prompt_logprobs - 1);
    }
    return sqrt(squares);
}

/* The engine lets go of what was taken away soon. */
static void await_release(const struct copies *c)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    for (uint32_t i = 0; i < c->n; i++)
        while (merged_copy_refs(c->copy[i]) > 1)
            nanosleep(&pause, NULL);
}

static void check_both_ways(struct engine *e, const struct golden_case *c, struct merged_copy *copy,
                            double bound)
{
    struct outcome *r = mem_array(2, sizeof *r);
    struct generation g = generation_of(c, 1);
    submit(e, &g, &r[0]);
    gather(e, &r[0], 1);
    set_copy(e, copy);
    submit(e, &g, &r[1]);
    gather(e, &r[1], 1);
    engine_drop_merged(e, c->lora->digest);
    check_path(c, &r[0], false);
    check_path(c, &r[1], true);
    if (prompt_distance(&r[0], &r[1]) > bound)
        fail_msg("%s in %s: log-probabilities off by %g", c->what, dtype_name(merged_copy_type(copy)),
                 prompt_distance(&r[0], &r[1]));
    outcomes_free(r, 2);
}

static void check_quantised_base(enum act_mode mode, const double bounds[3])
{
    const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_Q8_0};
    struct golden_family *f = open_family_as("llama", QUANT_Q4_0, mode);
    struct engine *e = engine_with(f, &(struct engine_options){.n_threads = 2, .context = 256});
    for (size_t t = 0; t < 3; t++) {
        struct copies copies;
        copies_init(&copies, f, types[t]);
        for (uint32_t i = 0; i < f->n_cases; i++) {
            const struct golden_case *c = &f->cases[i];
            struct merged_copy *copy = c->lora ? copy_of(&copies, c->lora) : NULL;
            if (copy && c->n_prompt >= 20)
                check_both_ways(e, c, copy, bounds[t]);
        }
        await_release(&copies);
        copies_fini(&copies);
    }
    engine_destroy(e);
    close_family(f);
}

/* Every adapter beside a base of 4 bits, and inside copies of finer types: the same but for rounding.
 * Activations and adapters of 8 bits are rounding of their own, which float copies don't have. */
static void copies_of_a_quantised_base_stay_near(void **state)
{
    (void)state;
    check_quantised_base(ACT_MODE_F32, (const double[]){1e-3, 0.05, 0.05});
    check_quantised_base(ACT_MODE_INT8, (const double[]){0.05, 0.05, 0.05});
}

/* A composition is one adapter by its digest, whatever object it is. */
static void a_composition_has_a_copy_too(void **state)
{
    (void)state;
    struct golden_family *f = open_family("llama");
    const struct golden_case *c = case_of(f, "adapters/llama/qv_r4 p23");
    struct lora *members[2] = {c->lora, case_of(f, "adapters/llama/all_r8_bf16 p6")->lora}, *sum[2];
    const float weights[2] = {0.5F, 1.25F};
    struct merged_copy *copy;
    struct error err;
    for (int i = 0; i < 2; i++)
        expect_ok(lora_compose(members, weights, 2, &sum[i], &err), &err);
    expect_ok(merged_copy_create(f->model, sum[0], DTYPE_F32, NULL, &copy, &err), &err);
    struct engine *e = engine_with(f, &(struct engine_options){.n_threads = 2, .context = 256});
    struct outcome *r = mem_array(2, sizeof *r);
    struct generation g = generation_of(c, 24);
    g.lora = sum[1];
    submit(e, &g, &r[0]);
    gather(e, r, 1);
    set_copy(e, copy);
    submit(e, &g, &r[1]);
    gather(e, &r[1], 1);
    check_path(c, &r[0], false);
    check_path(c, &r[1], true);
    check_same_choice(&r[0], &r[1]);
    engine_destroy(e);
    merged_copy_release(copy);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sum[i]->refs, 1);
        lora_release(sum[i]);
    }
    outcomes_free(r, 2);
    close_family(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_speaks_as_peft_on_copies),
        cmocka_unit_test(qwen2_speaks_as_peft_on_copies),
        cmocka_unit_test(gemma3_speaks_as_peft_on_copies),
        cmocka_unit_test(a_sequence_crosses_at_any_step),
        cmocka_unit_test(coarser_copies_stay_near),
        cmocka_unit_test(copies_of_a_quantised_base_stay_near),
        cmocka_unit_test(a_composition_has_a_copy_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
