/* Where the time of a step goes: the forward pass alone, by its door, without engine and sampling.
 *
 *   bench_phases MODEL [--rows 1,2,4,8,16] [--context 64] [--steps 40] [--threads N] [--rank 0]
 *                [--quant auto]
 *
 * For each number of rows as many sequences, one token each at the end of their context, and with --rank an
 * adapter of its own for each (random, all linear modules). Printed: the median time of a step, and with the
 * clocks of the phases on, each phase's share of all workers' time; "wait" is what workers wait for another.
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/team.h"
#include "format.h"
#include "kernels.h"
#include "kv_cache.h"
#include "lora.h"
#include "model.h"
#include "tests/bench/made_lora.h"

#define ROWS_MAX 64U
#define STEPS_MAX 2000U
#define PAGES_MAX 512U

struct bench {
    struct model_files *files;
    struct model *model;
    struct team *team;
    struct kv_cache *kv;
    struct step_space *space;
    struct lora *adapters[ROWS_MAX];
    uint32_t pages[ROWS_MAX][PAGES_MAX];
    uint32_t context, n_steps, rank;
};

static void die(const struct error *err)
{
    fprintf(stderr, "bench_phases: %s\n", err->text);
    exit(1);
}

static struct lora *make_adapter(struct bench *b, uint64_t seed)
{
    struct lora *l = made_lora(
        b->model,
        &(struct made_lora){
            .rank = b->rank, .a = 0.01F, .b = 0.01F, .scale = 1, .seed = seed, .store = LORA_STORE_AUTO});
    struct error err;
    if (step_reserve_rank(b->space, l->t_max, &err) != STATUS_OK)
        die(&err);
    return l;
}

static void open_all(struct bench *b, const char *path, const char *quant, unsigned n_threads)
{
    static const char *const quants[] = {"auto", "f32", "bf16", "q8_0", "q4_0"};
    struct error err;
    const struct kernels *k;
    b->team = team_create(n_threads);
    struct model_options mo = {.team = b->team};
    for (int i = 0; i < 5; i++)
        if (strcmp(quants[i], quant) == 0)
            mo.quant = (enum quant)i;
    if (!b->team || kernels_select("auto", ACT_MODE_INT8, &k, &err) != STATUS_OK)
        die(&err);
    mo.kernels = k;
    if (model_files_open(path, &b->files, &err) != STATUS_OK ||
        model_open(b->files, &mo, &b->model, &err) != STATUS_OK)
        die(&err);
    struct kv_shape shape = model_kv_shape(b->model, model_kv_type(b->model, "auto"));
    uint32_t n_pages = (b->context + KV_PAGE_TOKENS) / KV_PAGE_TOKENS;
    require(n_pages <= PAGES_MAX);
    if (kv_cache_create(&shape, n_pages * ROWS_MAX, &b->kv, &err) != STATUS_OK ||
        step_space_create(b->model, &shape, 256, ROWS_MAX, ROWS_MAX, b->team, &b->space, &err) != STATUS_OK)
        die(&err);
    for (uint32_t i = 0; i < ROWS_MAX; i++) {
        for (uint32_t k2 = 0; k2 < n_pages; k2++)
            require(kv_page_acquire(b->kv, &b->pages[i][k2]));
        b->adapters[i] = b->rank && i < 16 ? make_adapter(b, i + 1) : NULL;
    }
}

static int32_t token_at(const struct bench *b, uint32_t row, uint32_t position)
{
    return (int32_t)((row * 7919 + position * 104729 + 11) % model_config(b->model)->vocab_size);
}

/* Sequences' contexts, each in one step or a few. */
static void fill(struct bench *b, uint32_t row)
{
    int32_t tokens[256];
    float *logits;
    for (uint32_t at = 0; at < b->context;) {
        uint32_t n = b->context - at < 256 ? b->context - at : 256;
        for (uint32_t i = 0; i < n; i++)
            tokens[i] = token_at(b, row, at + i);
        const struct batch_seq q = {.tokens = tokens,
                                    .n_tokens = n,
                                    .position = at,
                                    .pages = b->pages[row],
                                    .lora = b->adapters[row % 16],
                                    .logits_begin = n};
        model_step(b->model, b->space, b->kv, &(struct batch){.seqs = &q, .n_seqs = 1}, &logits);
        at += n;
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of a step of n_rows sequences. */
static double measure(struct bench *b, uint32_t n_rows, uint32_t n_steps)
{
    static double times[STEPS_MAX];
    struct batch_seq seqs[ROWS_MAX];
    int32_t tokens[ROWS_MAX];
    float *logits;
    for (uint32_t i = 0; i < n_rows; i++)
        seqs[i] = (struct batch_seq){.tokens = &tokens[i],
                                     .n_tokens = 1,
                                     .position = b->context,
                                     .pages = b->pages[i],
                                     .lora = b->adapters[i % 16]};
    for (uint32_t step = 0; step < n_steps; step++) {
        for (uint32_t i = 0; i < n_rows; i++)
            tokens[i] = token_at(b, i, b->context + step);
        int64_t begin = clock_now_ns();
        model_step(b->model, b->space, b->kv, &(struct batch){.seqs = seqs, .n_seqs = n_rows}, &logits);
        times[step] = (double)(clock_now_ns() - begin) / 1e9;
    }
    qsort(times, n_steps, sizeof *times, by_value);
    return times[n_steps / 2];
}

static void print_phases(struct bench *b, uint32_t n_rows)
{
    struct step_times t;
    double sum = 0;
    struct error err;
    if (step_time_begin(b->space, &err) != STATUS_OK)
        die(&err);
    measure(b, n_rows, b->n_steps);
    step_time_end(b->space, &t);
    for (unsigned i = 0; i < STEP_PHASES; i++)
        sum += (double)t.ns[i];
    for (unsigned i = 0; i < STEP_PHASES; i++)
        printf(" %s %.1f%%", step_phase_name((enum step_phase)i), 100 * (double)t.ns[i] / sum);
    printf(" | barriers %.0f |", (double)t.n_barriers / b->n_steps);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"rank", required_argument, NULL, 'r'},
                                            {"rows", required_argument, NULL, 'b'},
                                            {"steps", required_argument, NULL, 'n'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"context", required_argument, NULL, 'c'},
                                            {"quant", required_argument, NULL, 'q'},
                                            {0}};
    static struct bench b = {.context = 64, .n_steps = 40};
    const char *rows = "1,2,4,8,16", *quant = "auto";
    unsigned n_threads = 0;
    int o;
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o == 'r')
            b.rank = (uint32_t)strtoul(optarg, NULL, 10);
        else if (o == 'b')
            rows = optarg;
        else if (o == 'n')
            b.n_steps = (uint32_t)strtoul(optarg, NULL, 10);
        else if (o == 't')
            n_threads = (unsigned)strtoul(optarg, NULL, 10);
        else if (o == 'c')
            b.context = (uint32_t)strtoul(optarg, NULL, 10);
        else if (o == 'q')
            quant = optarg;
        else
            return 2;
    }
    if (optind + 1 != argc || b.n_steps == 0 || b.n_steps > STEPS_MAX) {
        fprintf(stderr, "usage: bench_phases MODEL [--rows 1,2,4,8,16] [--context 64] [--steps 40] "
                        "[--threads N] [--rank 0] [--quant auto]\n");
        return 2;
    }
    open_all(&b, argv[optind], quant, n_threads);
    char prefetch[256];
    model_prefetch_text(b.model, prefetch, sizeof prefetch);
    printf("prefetch: %s, chosen in %.1f ms\n", prefetch, (double)model_prefetch(b.model)->spent_ns / 1e6);
    uint32_t n_filled = 0;
    for (const char *p = rows; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        uint32_t n = (uint32_t)strtoul(p, NULL, 10);
        require(n > 0 && n <= ROWS_MAX);
        while (n_filled < n)
            fill(&b, n_filled++);
        measure(&b, n, 3);
        printf("| %u | %.3f ms |", n, 1e3 * measure(&b, n, b.n_steps));
        print_phases(&b, n);
        printf("\n");
        fflush(stdout);
    }
    step_space_destroy(b.space);
    kv_cache_destroy(b.kv);
    for (uint32_t i = 0; i < 16; i++)
        lora_release(b.adapters[i]);
    model_close(b.model);
    model_files_close(b.files);
    team_destroy(b.team);
    return 0;
}
