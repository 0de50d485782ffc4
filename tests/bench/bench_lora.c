/* What different adapters in one batch cost: steps of decoding with every row on an adapter of its own, and
 * with one adapter for all rows, against the base alone.
 *
 *   bench_lora MODEL [--rank 16] [--batch 1,4,8,16] [--store auto|file|int8] [--tokens 1] [--position 64]
 *              [--rounds 9] [--threads N] [--isa auto]
 *
 * Adapters are random bf16 ones on all linear modules of the layers, made in memory. Each round runs the
 * three ways in turns, a few steps each; medians of the step's time and of the rounds' ratios are printed.
 * --tokens: tokens a sequence has in the step (more than 1: prefill). */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "format.h"
#include "lora.h"
#include "model.h"
#include "tests/bench/made_lora.h"

#define SEQS_MAX 64U
#define ROUNDS_MAX 64U

enum way { BASE, ONE, OWN, N_WAYS };
static const char *const way_names[N_WAYS] = {"base alone", "one adapter", "own adapters"};

struct bench {
    struct model *model;
    struct kv_cache *kv;
    struct step_space *space;
    struct team *team;
    struct lora *loras[SEQS_MAX];
    uint32_t n_loras, rank, n_rounds, n_tokens, position, pages_each;
    enum lora_store store;
};

static void die(const struct error *err)
{
    fprintf(stderr, "bench_lora: %s\n", err->text);
    exit(1);
}

static struct lora *make_adapter(const struct bench *b, uint64_t seed)
{
    int64_t start = clock_now_ns();
    struct lora *l = made_lora(
        b->model, &(struct made_lora){
                      .rank = b->rank, .a = 0.015F, .b = 0.01F, .scale = 1, .seed = seed, .store = b->store});
    if (b->n_loras == 0)
        fprintf(stderr, "an adapter: %.1f MB, made and built in %.0f ms\n", (double)l->size_bytes / 1e6,
                (double)(clock_now_ns() - start) / 1e6);
    return l;
}

static void open_all(struct bench *b, const char *path, const char *isa, unsigned n_threads)
{
    struct model_files *files;
    struct model_options o = {0};
    struct error err;
    b->team = o.team = team_create(n_threads);
    if (!b->team || kernels_select(isa, ACT_MODE_INT8, &o.kernels, &err) != STATUS_OK ||
        model_files_open(path, &files, &err) != STATUS_OK)
        die(&err);
    if (model_open(files, &o, &b->model, &err) != STATUS_OK)
        die(&err);
    model_files_close(files);
    struct kv_shape shape = model_kv_shape(b->model, DTYPE_F16);
    b->pages_each = (b->position + b->n_tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
    if (kv_cache_create(&shape, SEQS_MAX * b->pages_each, &b->kv, &err) != STATUS_OK ||
        step_space_create(b->model, &shape, SEQS_MAX * b->n_tokens, SEQS_MAX, SEQS_MAX, b->team, &b->space,
                          &err) != STATUS_OK)
        die(&err);
    for (uint32_t i = 0, page; i < SEQS_MAX * b->pages_each; i++)
        if (!kv_page_acquire(b->kv, &page))
            exit(1);
}

static void step(struct bench *b, uint32_t n, enum way way)
{
    static int32_t tokens[4096];
    struct batch_seq seqs[SEQS_MAX];
    uint32_t pages[SEQS_MAX][64];
    float *logits;
    uint32_t vocab = model_config(b->model)->vocab_size;
    for (uint32_t i = 0; i < b->n_tokens; i++)
        tokens[i] = (int32_t)((i * 7919 + 17) % vocab);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < b->pages_each; k++)
            pages[i][k] = i * b->pages_each + k;
        seqs[i] = (struct batch_seq){.lora = way == BASE  ? NULL
                                             : way == ONE ? b->loras[0]
                                                          : b->loras[i],
                                     .tokens = tokens,
                                     .n_tokens = b->n_tokens,
                                     .position = b->position,
                                     .pages = pages[i],
                                     .logits_begin = b->n_tokens - 1};
    }
    model_step(b->model, b->space, b->kv, &(struct batch){.seqs = seqs, .n_seqs = n}, &logits);
}

static double time_steps(struct bench *b, uint32_t n, enum way way, uint32_t n_steps)
{
    int64_t start = clock_now_ns();
    for (uint32_t i = 0; i < n_steps; i++)
        step(b, n, way);
    return (double)(clock_now_ns() - start) / 1e6 / n_steps;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, uint32_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void measure(struct bench *b, uint32_t n)
{
    double ms[N_WAYS][ROUNDS_MAX], ratio[N_WAYS][ROUNDS_MAX];
    for (; b->n_loras < n; b->n_loras++)
        b->loras[b->n_loras] = make_adapter(b, b->n_loras + 1);
    struct error err;
    if (step_reserve_rank(b->space, b->loras[0]->t_max, &err) != STATUS_OK)
        die(&err);
    double once = time_steps(b, n, OWN, 1);
    uint32_t n_steps = once > 40 ? 1 : (uint32_t)(40 / once) + 1;
    for (uint32_t round = 0; round < b->n_rounds; round++)
        for (int w = 0; w < N_WAYS; w++) {
            ms[w][round] = time_steps(b, n, (enum way)w, n_steps);
            ratio[w][round] = ms[BASE][round] / ms[w][round];
        }
    for (int w = 0; w < N_WAYS; w++)
        printf("| %u | %u | %s | %.2f | %.1f | %.3f |\n", b->rank, n, way_names[w],
               median(ms[w], b->n_rounds), n * b->n_tokens / median(ms[w], b->n_rounds) * 1e3,
               median(ratio[w], b->n_rounds));
    fflush(stdout);
}

static void close_all(struct bench *b)
{
    for (uint32_t i = 0; i < b->n_loras; i++)
        lora_release(b->loras[i]);
    step_space_destroy(b->space);
    kv_cache_destroy(b->kv);
    model_close(b->model);
    team_destroy(b->team);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"rank", required_argument, NULL, 'r'},
                                            {"batch", required_argument, NULL, 'b'},
                                            {"rounds", required_argument, NULL, 'n'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"isa", required_argument, NULL, 'i'},
                                            {"store", required_argument, NULL, 's'},
                                            {"position", required_argument, NULL, 'p'},
                                            {"tokens", required_argument, NULL, 'k'},
                                            {0}};
    struct bench b = {.rank = 16, .n_rounds = 9, .n_tokens = 1, .position = 64};
    const char *isa = "auto", *batch = "1,4,8,16", *store = "auto";
    unsigned n_threads = 0;
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'r':
            b.rank = (uint32_t)atoi(optarg);
            break;
        case 'b':
            batch = optarg;
            break;
        case 'n':
            b.n_rounds = (uint32_t)atoi(optarg);
            break;
        case 't':
            n_threads = (unsigned)atoi(optarg);
            break;
        case 'i':
            isa = optarg;
            break;
        case 's':
            store = optarg;
            break;
        case 'p':
            b.position = (uint32_t)atoi(optarg);
            break;
        case 'k':
            b.n_tokens = (uint32_t)atoi(optarg);
            break;
        default:
            return 2;
        }
    }
    if (optind + 1 != argc || b.n_rounds > ROUNDS_MAX || b.n_tokens > 4096) {
        fprintf(stderr, "usage: bench_lora MODEL [options], see the head of tests/bench/bench_lora.c\n");
        return 2;
    }
    b.store = strcmp(store, "file") == 0   ? LORA_STORE_FILE
              : strcmp(store, "int8") == 0 ? LORA_STORE_INT8
                                           : LORA_STORE_AUTO;
    open_all(&b, argv[optind], isa, n_threads);
    printf("| rank | N | adapters | ms a step | tokens/s | over base alone |\n|---|---|---|---|---|---|\n");
    for (const char *at = batch; *at; at += strcspn(at, ","), at += *at == ',')
        measure(&b, (uint32_t)atoi(at) < SEQS_MAX ? (uint32_t)atoi(at) : SEQS_MAX);
    close_all(&b);
    return 0;
}
