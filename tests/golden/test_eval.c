/* server/eval.c and eval_file.c: the measured perplexity is what the goldens' log-probabilities say and what
 * a plain loop over the windows gives; divergences of equal things are 0; files of log-probabilities come
 * back as they were, and what doesn't belong to the text is refused by name. */
#include "tests/test.h"

#include <unistd.h>

#include "eval.h"
#include "golden_set.h"

#define LLAMA GOLDEN_OWN "/models/llama/f32"

/* ---- against the goldens ---- */

static struct eval_result must_run(const struct eval_job *j)
{
    struct eval_result r;
    struct error err;
    if (eval_run(j, &r, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return r;
}

static struct eval_result measure(struct rig *r, struct lora *lora, const struct eval_text *t)
{
    struct eval_side side = {0};
    struct error err;
    if (eval_side_init(&side, r->m, lora, "auto", t->window, r->team, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    struct eval_result result = must_run(&(struct eval_job){.text = t, .ours = &side, .team = r->team});
    eval_side_fini(&side);
    return result;
}

/* Once with the prompt as it is, once with its first token in bos's place: the same tokens are scored. */
static void check_prompt(struct rig *r, struct lora *lora, const json_t *c, const char *what)
{
    const json_t *expected = json_object_get(c, "prompt_logprobs");
    struct rig_line line = line_of(c, lora);
    size_t n = json_array_size(expected);
    double mean = 0;
    for (size_t i = 0; i < n; i++)
        mean -= json_number_value(json_array_get(expected, i)) / (double)n;
    if (n >= 2) {
        struct eval_text t = {line.prompt, line.n_prompt, -1, line.n_prompt, 1};
        struct eval_text with_bos = {line.prompt + 1, line.n_prompt - 1, line.prompt[0], line.n_prompt, 1};
        struct eval_result a = measure(r, lora, &t), b = measure(r, lora, &with_bos);
        assert_int_equal(a.n_scored, n);
        assert_int_equal(a.n_windows, 1);
        if (fabs(a.nll.mean - mean) > 2e-4 || fabs(a.ppl / exp(mean) - 1) > 2e-4)
            fail_msg("%s: mean -log p is %.6f, expected %.6f", what, a.nll.mean, mean);
        assert_true(a.nll.mean == b.nll.mean && a.ppl == b.ppl && a.nll.error == b.nll.error);
    }
    line_free(&line);
}

static void check_file(const char *file, int *n_entries)
{
    json_t *all = golden_file(GOLDEN_OWN, file), *entries = json_object_get(all, "entries"), *e, *c;
    size_t i;
    struct error err;
    json_array_foreach(entries, i, e)
    {
        char path[300];
        const char *adapter = text_of(e, "adapter"), *name;
        struct rig r;
        struct adapter_version *v = NULL;
        snprintf(path, sizeof path, GOLDEN_OWN "/%s", text_of(e, "model"));
        if (!json_object_get(e, "cases") || !strstr(path, "/f32"))
            continue;
        bool ready = rig_open(&r, path, &(struct rig_options){.n_threads = 1}, &err) &&
                     (!*adapter || golden_adapter(GOLDEN_OWN, adapter, r.m, 1, &v, &err) == STATUS_OK);
        json_object_foreach(json_object_get(e, "cases"), name, c)
        {
            if (ready)
                check_prompt(&r, v ? v->lora : NULL, c, *adapter ? adapter : path);
        }
        *n_entries += ready;
        adapter_release(v);
        rig_close(&r);
    }
    json_decref(all);
}

static void perplexity_is_that_of_the_goldens(void **state)
{
    (void)state;
    int n = 0;
    check_file("llama", &n);
    check_file("gemma3", &n);
    check_file("qwen2", &n);
    assert_true(n >= 15);
}

/* ---- windows ---- */

enum { TEXT = 75, WINDOW = 24 };
static int32_t ids[TEXT];

static int make_ids(void **state)
{
    (void)state;
    for (uint32_t i = 0, x = 7; i < TEXT; i++, x = x * 1103515245U + 12345U)
        ids[i] = (int32_t)(x >> 16 & 0xff) + 3;
    return 0;
}

/* The definition, written out: each window alone through the model. */
static double by_hand(struct rig *r, const struct eval_text *t)
{
    uint32_t vocab = model_config(r->m)->vocab_size, n_bos = t->bos >= 0 ? 1 : 0;
    double sum = 0;
    size_t n_scored = 0, scored_to = 0; /* text tokens before it are scored, or never will be */
    for (size_t begin = 0; scored_to < t->n_tokens; begin += t->stride) {
        int32_t context[WINDOW];
        uint32_t n = n_bos;
        context[0] = t->bos;
        while (n < t->window && begin + n - n_bos < t->n_tokens) {
            context[n] = t->tokens[begin + n - n_bos];
            n++;
        }
        struct rig_line line = {.prompt = context, .n_prompt = n, .n_new = 1};
        rig_run(r, &line, 1, 512, 0);
        for (uint32_t p = 1; p < n; p++) {
            size_t text_index = begin + p - n_bos;
            if (text_index < scored_to)
                continue;
            sum -= log_prob(line.logits + (size_t)(p - 1) * vocab, vocab, (uint32_t)context[p]);
            n_scored++;
        }
        scored_to = begin + n - n_bos;
        rig_line_fini(&line);
    }
    assert_int_equal(n_scored, eval_n_scored(t));
    return sum / (double)n_scored;
}

static void windows_are_what_the_definition_says(void **state)
{
    (void)state;
    static const struct {
        size_t n_tokens;
        int32_t bos;
        uint32_t window, stride;
        size_t n_windows;
    } cases[] = {{TEXT, -1, WINDOW, 12, 6}, {TEXT, 1, WINDOW, 23, 4},   {TEXT, 1, WINDOW, 7, 9},
                 {TEXT, -1, 2, 1, 74},      {WINDOW, -1, WINDOW, 1, 1}, {WINDOW, 1, WINDOW, 3, 2},
                 {3, -1, WINDOW, 12, 1},    {2, 1, WINDOW, 12, 1}};
    struct rig r;
    struct error err;
    assert_true(rig_open(&r, LLAMA, &(struct rig_options){.n_threads = 2}, &err));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct eval_text t = {ids, cases[i].n_tokens, cases[i].bos, cases[i].window, cases[i].stride};
        struct eval_result result = measure(&r, NULL, &t);
        assert_int_equal(result.n_windows, cases[i].n_windows);
        assert_true(fabs(result.nll.mean - by_hand(&r, &t)) < 1e-6);
        assert_true(result.ppl == exp(result.nll.mean) && result.nll.error > 0);
    }
    rig_close(&r);
}

/* ---- divergence ---- */

static const struct eval_text text = {ids, TEXT, 1, WINDOW, 12};

static struct eval_result against(const char *model, enum quant quant)
{
    struct rig a, b;
    struct eval_side ours = {0}, ref = {0};
    struct error err;
    assert_true(rig_open(&a, model, &(struct rig_options){.n_threads = 2, .quant = quant}, &err));
    assert_true(rig_open(&b, model, &(struct rig_options){.n_threads = 1}, &err));
    assert_int_equal(eval_side_init(&ours, a.m, NULL, "f32", WINDOW, a.team, &err), STATUS_OK);
    assert_int_equal(eval_side_init(&ref, b.m, NULL, "f32", WINDOW, b.team, &err), STATUS_OK);
    struct eval_result r =
        must_run(&(struct eval_job){.text = &text, .ours = &ours, .reference = &ref, .team = a.team});
    eval_side_fini(&ours);
    eval_side_fini(&ref);
    rig_close(&a);
    rig_close(&b);
    return r;
}

static void coarser_is_farther(void **state)
{
    (void)state;
    struct eval_result same = against(LLAMA, QUANT_F32), q8 = against(LLAMA, QUANT_Q8_0),
                       q4 = against(LLAMA, QUANT_Q4_0);
    assert_true(same.kl.mean == 0 && same.kl_max == 0 && same.kl_median == 0 && same.rms_dp == 0);
    assert_true(same.same_top.mean == 1 && same.ref_ppl == same.ppl);
    assert_true(q8.kl.mean > 0 && q4.kl.mean > 10 * q8.kl.mean);
    assert_true(q4.rms_dp > q8.rms_dp && q8.rms_dp > 0 && q4.same_top.mean < 1);
    assert_true(q4.kl_median <= q4.kl_99 && q4.kl_99 <= q4.kl_max && q4.kl.mean < q4.kl_max);
    assert_true(q4.ref_ppl == same.ppl);
}

/* ---- files of log-probabilities ---- */

#define SAVED "build/test_eval.lp"

static struct eval_result with_file(struct rig *r, bool f16)
{
    struct eval_side side = {0};
    struct eval_file save = {.f16 = f16}, back = {0};
    struct error err;
    assert_int_equal(eval_side_init(&side, r->m, NULL, "auto", WINDOW, r->team, &err), STATUS_OK);
    assert_int_equal(eval_file_create(&save, SAVED, &text, &side, &err), STATUS_OK);
    struct eval_job job = {.text = &text, .ours = &side, .save = &save, .team = r->team};
    must_run(&job);
    assert_int_equal(eval_file_finish(&save, &err), STATUS_OK);
    eval_file_fini(&save);
    uint32_t vocab = model_config(r->m)->vocab_size;
    assert_int_equal(eval_file_open(&back, SAVED, &text, vocab, &err), STATUS_OK);
    assert_memory_equal(back.model_digest, model_info(r->m)->digest, sizeof back.model_digest);
    job.save = NULL;
    job.reference_file = &back;
    struct eval_result result = must_run(&job);
    eval_file_fini(&back);
    eval_side_fini(&side);
    return result;
}

static void a_saved_run_is_itself(void **state)
{
    (void)state;
    struct rig r;
    struct error err;
    assert_true(rig_open(&r, LLAMA, &(struct rig_options){.n_threads = 2}, &err));
    struct eval_result f16 = with_file(&r, true), f32 = with_file(&r, false);
    assert_true(f32.kl.mean == 0 && f32.kl_max == 0 && f32.same_top.mean == 1 && f32.ref_ppl == f32.ppl);
    assert_true(fabs(f16.kl.mean) < 1e-3 && f16.kl_max < 1e-2 && f16.rms_dp < 1e-4);
    rig_close(&r);
}

/* The saved file with `n` bytes at `at` changed, or cut there. */
static void damage(long at, const void *bytes, size_t n)
{
    FILE *f = fopen(SAVED, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
    if (n == 0)
        assert_int_equal(truncate(SAVED, at), 0);
}

static void must_refuse(struct rig *r, const struct eval_text *t, enum status status, const char *why)
{
    struct eval_file f = {0};
    struct error err = {0};
    uint32_t vocab = model_config(r->m)->vocab_size;
    float *row = malloc(vocab * sizeof *row);
    enum status s = eval_file_open(&f, SAVED, t, vocab, &err);
    for (size_t i = 0; i < eval_n_scored(t) && s == STATUS_OK; i++)
        s = eval_file_read(&f, row, &err);
    eval_file_fini(&f);
    free(row);
    if (s != status || !strstr(err.text, why) || !strstr(err.text, SAVED))
        fail_msg("%s: %s, expected %s", status_name(s), err.text, why);
}

static void what_does_not_belong_is_refused(void **state)
{
    (void)state;
    static const uint8_t zero[8], two[4] = {2}, nan_bytes[4] = {0, 0, 0xc0, 0x7f};
    const struct {
        long at;
        const void *bytes;
        size_t n;
        enum status status;
        const char *why;
    } damages[] = {{0, zero, 1, STATUS_FORMAT, "LKLOGP1"},
                   {8, zero, 4, STATUS_FORMAT, "header of 0 bytes"},
                   {12, two, 4, STATUS_FORMAT, "type 2"},
                   {16, two, 4, STATUS_MISMATCH, "vocab_size is 2"},
                   {40, zero, 8, STATUS_FORMAT, "0 rows"},
                   {90, zero, 4, STATUS_FORMAT, "SHA-256"},
                   {128 + 4 * 5, zero, 4, STATUS_MISMATCH, "token 5 is 0"},
                   {128 + 4 * TEXT + 384 * 4 * 3, nan_bytes, 4, STATUS_FORMAT, "row 3"},
                   {128 + 4 * TEXT + 384 * 4 * 3, zero, 4, STATUS_FORMAT, "row 3"}, /* a second certainty */
                   {300, "", 0, STATUS_FORMAT, "bytes, expected"},
                   {60, "", 0, STATUS_FORMAT, "LKLOGP1"}};
    struct rig r;
    struct error err;
    struct eval_text other = text;
    assert_true(rig_open(&r, LLAMA, &(struct rig_options){.n_threads = 1}, &err));
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        with_file(&r, false);
        damage(damages[i].at, damages[i].bytes, damages[i].n);
        must_refuse(&r, &text, damages[i].status, damages[i].why);
    }
    with_file(&r, false);
    other.stride = 11;
    must_refuse(&r, &other, STATUS_MISMATCH, "--stride 12");
    other = text;
    other.bos = 2;
    must_refuse(&r, &other, STATUS_MISMATCH, "begin with token 1");
    other = text;
    other.n_tokens--;
    must_refuse(&r, &other, STATUS_MISMATCH, "75 tokens, this one has 74");
    unlink(SAVED);
    must_refuse(&r, &text, STATUS_IO, "can't open");
    rig_close(&r);
}

/* A run that fails leaves no file of the wanted name, nor its part. */
static void an_unfinished_file_vanishes(void **state)
{
    (void)state;
    struct rig r;
    struct eval_side side = {0};
    struct eval_file save = {0};
    struct error err;
    assert_true(rig_open(&r, LLAMA, &(struct rig_options){.n_threads = 1}, &err));
    assert_int_equal(eval_side_init(&side, r.m, NULL, "auto", WINDOW, r.team, &err), STATUS_OK);
    assert_int_equal(eval_file_create(&save, SAVED, &text, &side, &err), STATUS_OK);
    assert_true(file_exists(SAVED ".part"));
    eval_file_fini(&save);
    assert_false(file_exists(SAVED ".part") || file_exists(SAVED));
    assert_int_equal(eval_file_create(&save, "build/no/such/folder/x", &text, &side, &err), STATUS_IO);
    eval_file_fini(&save);
    eval_side_fini(&side);
    rig_close(&r);
}

static void survives_short_memory(void **state)
{
    (void)state;
    struct rig r;
    struct error err;
    enum status s = STATUS_NO_MEMORY;
    assert_true(rig_open(&r, LLAMA, &(struct rig_options){.n_threads = 1}, &err));
    for (uint64_t n = 1; s != STATUS_OK; n++) {
        struct eval_side side = {0};
        struct eval_result result;
        mem_fail_at(n);
        s = eval_side_init(&side, r.m, NULL, "auto", WINDOW, r.team, &err);
        if (s == STATUS_OK)
            s = eval_run(&(struct eval_job){.text = &text, .ours = &side, .team = r.team}, &result, &err);
        mem_fail_at(0);
        assert_true(s == STATUS_OK || (s == STATUS_NO_MEMORY && n < 100));
        eval_side_fini(&side);
    }
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(perplexity_is_that_of_the_goldens),
        cmocka_unit_test(windows_are_what_the_definition_says),
        cmocka_unit_test(coarser_is_farther),
        cmocka_unit_test(a_saved_run_is_itself),
        cmocka_unit_test(what_does_not_belong_is_refused),
        cmocka_unit_test(an_unfinished_file_vanishes),
        cmocka_unit_test(survives_short_memory),
    };
    return cmocka_run_group_tests(tests, make_ids, NULL);
}
