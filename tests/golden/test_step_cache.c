/* What a step does while its results are in a cache changes none of them: B's part tile by tile behind the
 * product in long prompts, and the sums of the logits' peaks. On the demo model, which is large enough for
 * tiles.
 */
#include "tests/test.h"

#include "model_rig.h"
#include "tests/bench/made_lora.h"

#define MODEL "demo/model"
#define N_LINES 3U
#define LONGEST 420U

struct lines {
    struct rig r;
    struct lora *loras[2];
    int32_t prompt[LONGEST];
};

static void lines_open(struct lines *l, const struct rig_options *o, enum lora_store store)
{
    struct error err;
    if (!rig_open(&l->r, MODEL, o, &err))
        fail_msg("%s", err.text);
    for (uint32_t i = 0; i < 2; i++)
        l->loras[i] = made_lora(
            l->r.m,
            &(struct made_lora){
                .rank = 4 + 5 * i, .a = 0.05F, .b = 0.05F, .scale = 2, .seed = i + 1, .store = store});
    for (uint32_t i = 0; i < LONGEST; i++)
        l->prompt[i] = (int32_t)((i * 7919 + 17) % model_config(l->r.m)->vocab_size);
}

static void lines_close(struct lines *l)
{
    for (uint32_t i = 0; i < 2; i++)
        lora_release(l->loras[i]);
    rig_close(&l->r);
}

/* A long prompt on each adapter and one on the base. */
static void run(struct lines *l, struct rig_line *lines, uint32_t chunk)
{
    static const uint32_t lengths[N_LINES] = {LONGEST, 251, 97};
    for (uint32_t i = 0; i < N_LINES; i++)
        lines[i] = (struct rig_line){
            .lora = i < 2 ? l->loras[i] : NULL, .prompt = l->prompt, .n_prompt = lengths[i], .n_new = 1};
    assert_int_equal(rig_run(&l->r, lines, N_LINES, chunk, 0), 0);
}

static void same_lines(const struct lines *l, const struct rig_line *want, const struct rig_line *got)
{
    for (uint32_t i = 0; i < N_LINES; i++)
        assert_memory_equal(want[i].logits, got[i].logits,
                            (size_t)want[i].n_prompt * model_config(l->r.m)->vocab_size * sizeof(float));
}

/* Chunks of few tokens have no tiles: their y is small. */
static void check_tiles(struct rig_options o, enum lora_store store)
{
    struct lines one, more;
    struct rig_line few[N_LINES], many[N_LINES];
    o.n_threads = 1;
    lines_open(&one, &o, store);
    run(&one, few, 16);
    assert_memory_not_equal(few[0].logits, few[1].logits, (size_t)few[1].n_prompt * sizeof(float));
    o.n_threads = 2; /* pieces of other widths, too */
    lines_open(&more, &o, store);
    run(&more, many, 512);
    same_lines(&one, few, many);
    for (uint32_t i = 0; i < N_LINES; i++) {
        rig_line_fini(&few[i]);
        rig_line_fini(&many[i]);
    }
    lines_close(&more);
    lines_close(&one);
}

static bool has_isa(const char *isa)
{
    const struct kernels *k;
    return kernels_select(isa, ACT_MODE_INT8, &k, NULL) == STATUS_OK;
}

static void tiles_change_no_bit(void **state)
{
    (void)state;
    static const char *const isas[] = {"avx2", "avxvnni", "avx512", "neon"};
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
        if (has_isa(isas[i])) {
            check_tiles((struct rig_options){.isa = isas[i], .quant = QUANT_Q8_0}, LORA_STORE_INT8);
            check_tiles((struct rig_options){.isa = isas[i]}, LORA_STORE_FILE);
        }
    check_tiles((struct rig_options){.quant = QUANT_Q8_0}, LORA_STORE_FILE);
    check_tiles((struct rig_options){.quant = QUANT_Q4_0, .act_mode = ACT_MODE_F32}, LORA_STORE_INT8);
}

/* The sums that were asked for are those that the kernels make of the rows, whoever is beside them and
 * however many threads there are; others are left alone. */
static void check_sums(struct lines *l, const float factors[][STEP_SUMS], uint32_t n, uint32_t at)
{
    const struct kernels *k = model_kernels(l->r.m);
    uint32_t vocab = model_config(l->r.m)->vocab_size, n_peaks = n_peaks_of(vocab), pages[N_LINES],
             n_rows = 0;
    struct batch_seq seqs[N_LINES];
    double *sums = (double *)(uintptr_t)step_sums(l->r.space), want[64];
    float *logits;
    assert_true(n_peaks <= 64 && vocab % PEAK_VALUES == 0);
    for (size_t i = 0; i < (size_t)(at + 2 * N_LINES) * STEP_SUMS * n_peaks; i++)
        sums[i] = -1;
    for (uint32_t i = 0; i < n; i++) {
        assert_true(kv_page_acquire(l->r.kv, &pages[i]));
        seqs[i] = (struct batch_seq){.lora = i == 1 ? l->loras[0] : NULL,
                                     .tokens = l->prompt + 3 * i,
                                     .n_tokens = 9 + i,
                                     .pages = &pages[i],
                                     .logits_begin = 7 + i,
                                     .sum_factors = {factors[i][0], factors[i][1]}};
    }
    model_step(l->r.m, l->r.space, l->r.kv, &(struct batch){.seqs = seqs, .n_seqs = n, .logits_at = at},
               &logits);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t t = 0; t < 2; t++, n_rows++)
            for (uint32_t f = 0; f < STEP_SUMS; f++) {
                const float *peaks = step_peaks(l->r.space) + (size_t)(at + n_rows) * n_peaks;
                const double *got = sums + ((size_t)(at + n_rows) * STEP_SUMS + f) * n_peaks;
                k->peak_sums(logits + (size_t)n_rows * vocab, peaks, factors[i][f], vocab, want);
                for (uint32_t p = 0; p < n_peaks; p++)
                    assert_true(factors[i][f] > 0 ? got[p] == want[p] && got[p] >= 1 : got[p] == -1);
            }
    for (uint32_t i = 0; i < n; i++)
        kv_page_release(l->r.kv, pages[i]);
}

static void sums_are_those_of_the_rows(void **state)
{
    (void)state;
    static const float factors[N_LINES][STEP_SUMS] = {{1, 0}, {0, 1.25F}, {1, 0.5F}};
    for (unsigned n_threads = 1; n_threads <= 3; n_threads++) {
        struct lines l;
        struct error err;
        lines_open(&l, &(struct rig_options){.n_threads = n_threads, .quant = QUANT_Q8_0}, LORA_STORE_AUTO);
        assert_int_equal(step_reserve_rank(l.r.space, l.loras[0]->t_max, &err), STATUS_OK);
        check_sums(&l, factors, N_LINES, 0);
        check_sums(&l, factors + 2, 1, 0);
        check_sums(&l, factors, 2, 4);
        lines_close(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiles_change_no_bit),
        cmocka_unit_test(sums_are_those_of_the_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
