/* Speed of the engine with mixed adapters, as ratios taken in one run.
 *
 *   bench_engine MODEL [--rank 16] [--batch 1,4,16] [--rounds 5] [--threads N] [--isa auto] [--quant auto]
 *
 * For each batch size the same work runs base alone, all rows on one adapter, and every row on an adapter of
 * its own, interleaved A B C A B C; medians and ratios to base alone are printed as Markdown. Adapters are
 * random, on all seven linear modules. Decode: tokens/s of N sequences of 48 tokens, prompts' time taken off.
 * Prefill: N prompts of 256. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine.h"
#include "format.h"
#include "kernels.h"
#include "lora.h"
#include "model.h"
#include "text.h"

#define N_ADAPTERS 16U
#define ROUNDS_MAX 32U
#define PROMPT_TOKENS 256U
#define DECODE_TOKENS 48U

enum voices { BASE, ONE_ADAPTER, OWN_ADAPTER, N_VOICES };
static const char *const voice_names[] = {"base alone", "one adapter", "own adapter"};

struct bench {
    struct model_files *files;
    struct text_model *text;
    struct model *model;
    struct engine *engine;
    struct lora *adapters[N_ADAPTERS];
    uint32_t rank, n_rounds;
};

static void die(const struct error *err)
{
    fprintf(stderr, "bench_engine: %s\n", err->text);
    exit(1);
}

static uint16_t random_bf16(uint64_t *state)
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return f32_to_bf16(((float)(*state >> 40) / (float)(1 << 24) - 0.5f) * 0.02f);
}

static uint16_t *random_matrix(uint32_t rows, uint32_t cols, uint64_t *state)
{
    uint16_t *m = mem_alloc((size_t)rows * cols * sizeof *m);
    for (size_t i = 0; m && i < (size_t)rows * cols; i++)
        m[i] = random_bf16(state);
    return m;
}

static struct lora *make_adapter(struct bench *b, uint64_t seed)
{
    uint32_t n_layers = model_config(b->model)->n_layers, n = 0;
    struct lora_pair *pairs = mem_array((size_t)n_layers * LORA_SITE_LM_HEAD, sizeof *pairs);
    for (uint32_t layer = 0; layer < n_layers; layer++)
        for (int site = 0; site < LORA_SITE_LM_HEAD; site++) {
            struct model_module module;
            if (!model_module_of(b->model, (enum lora_site)site, layer, &module) ||
                module.site != (enum lora_site)site)
                continue;
            uint32_t out = module.out, in = module.in;
            pairs[n++] = (struct lora_pair){.module = module,
                                            .a_type = DTYPE_BF16,
                                            .b_type = DTYPE_BF16,
                                            .a = random_matrix(b->rank, in, &seed),
                                            .b = random_matrix(out, b->rank, &seed),
                                            .rank = b->rank,
                                            .in = in,
                                            .out = out,
                                            .scale = 1.0f};
        }
    uint8_t digest[32] = {0};
    memcpy(digest, &seed, sizeof seed);
    struct lora *l;
    struct error err;
    if (lora_build(b->model, &(struct lora_spec){.pairs = pairs, .n_pairs = n}, digest, &l, &err) !=
        STATUS_OK)
        die(&err);
    for (uint32_t i = 0; i < n; i++) {
        mem_free((void *)(uintptr_t)pairs[i].a);
        mem_free((void *)(uintptr_t)pairs[i].b);
    }
    mem_free(pairs);
    return l;
}

/* Seconds that n_rows generations of this shape take together. */
static double run(struct bench *b, enum voices voices, uint32_t n_rows, uint32_t n_prompt,
                  uint32_t max_tokens)
{
    int32_t prompt[PROMPT_TOKENS];
    uint32_t vocab = model_config(b->model)->vocab_size;
    int64_t start = clock_now_ns();
    for (uint32_t row = 0; row < n_rows; row++) {
        for (uint32_t i = 0; i < n_prompt; i++)
            prompt[i] = (int32_t)((row * 7919 + i * 104729 + 11) % vocab);
        struct generation g = {.prompt = prompt,
                               .n_prompt = n_prompt,
                               .max_tokens = max_tokens,
                               .ignore_eos = true,
                               .n_logprobs = -1,
                               .n_prompt_logprobs = -1,
                               .sampling = {.top_p = 1, .repetition_penalty = 1}};
        g.lora = voices == BASE ? NULL : b->adapters[voices == ONE_ADAPTER ? 0 : row % N_ADAPTERS];
        uint64_t id;
        struct error err;
        if (engine_submit(b->engine, &g, &id, &err) != STATUS_OK)
            die(&err);
    }
    struct event e;
    for (uint32_t n_done = 0; n_done < n_rows;) {
        if (!engine_wait(b->engine, &e, -1))
            continue;
        if (e.kind == EVENT_FAILED)
            die(&e.error);
        n_done += e.kind == EVENT_DONE;
    }
    return (double)(clock_now_ns() - start) / 1e9;
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

static void measure(struct bench *b, uint32_t n_rows, bool prefill)
{
    double rate[N_VOICES][ROUNDS_MAX], ratio[N_VOICES][ROUNDS_MAX];
    for (uint32_t round = 0; round < b->n_rounds; round++)
        for (int v = 0; v < N_VOICES; v++) {
            if (prefill) {
                rate[v][round] = n_rows * PROMPT_TOKENS / run(b, (enum voices)v, n_rows, PROMPT_TOKENS, 1);
            } else {
                double first = run(b, (enum voices)v, n_rows, 8, 1);
                double all = run(b, (enum voices)v, n_rows, 8, 1 + DECODE_TOKENS);
                rate[v][round] = n_rows * DECODE_TOKENS / (all > first ? all - first : all);
            }
            ratio[v][round] = rate[v][round] / rate[BASE][round];
        }
    for (int v = 0; v < N_VOICES; v++)
        printf("| %s | %u | %s | %.1f | %.3f |\n", prefill ? "prefill" : "decode", n_rows, voice_names[v],
               median(rate[v], b->n_rounds), median(ratio[v], b->n_rounds));
    fflush(stdout);
}

static void open_all(struct bench *b, const char *path, const char *isa, const char *quant,
                     unsigned n_threads)
{
    static const char *const quants[] = {"auto", "f32", "bf16", "q8_0", "q4_0"};
    struct error err;
    const struct kernels *k;
    struct team *team = team_create(n_threads);
    struct model_options mo = {.team = team};
    for (int i = 0; i < 5; i++)
        if (strcmp(quants[i], quant) == 0)
            mo.quant = (enum quant)i;
    if (kernels_select(isa, ACT_MODE_INT8, &k, &err) != STATUS_OK)
        die(&err);
    mo.kernels = k;
    if (!team || model_files_open(path, &b->files, &err) != STATUS_OK ||
        text_model_open(b->files, &b->text, &err) != STATUS_OK ||
        model_open(b->files, &mo, &b->model, &err) != STATUS_OK)
        die(&err);
    team_destroy(team);
    struct engine_options eo = {.n_sequences = N_ADAPTERS, .n_threads = n_threads};
    if (engine_create(b->model, b->text, &eo, NULL, NULL, &b->engine, &err) != STATUS_OK)
        die(&err);
    const struct model_info *info = model_info(b->model);
    printf(
        "%s: %s, %.1f M parameters, %s, %.1f MB; kernels %s; adapters of rank %u on all linear modules\n\n",
        path, info->family, (double)info->n_parameters / 1e6, dtype_name(info->weight_type),
        (double)info->size_bytes / 1e6, k->isa, b->rank);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"rank", required_argument, NULL, 'r'},
                                            {"batch", required_argument, NULL, 'b'},
                                            {"rounds", required_argument, NULL, 'n'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"isa", required_argument, NULL, 'i'},
                                            {"quant", required_argument, NULL, 'q'},
                                            {0}};
    struct bench b = {.rank = 16, .n_rounds = 5};
    const char *batches = "1,4,16", *isa = "auto", *quant = "auto";
    unsigned n_threads = 0;
    int o;
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (o) {
        case 'r':
            b.rank = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'b':
            batches = optarg;
            break;
        case 'n':
            b.n_rounds = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 't':
            n_threads = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'i':
            isa = optarg;
            break;
        case 'q':
            quant = optarg;
            break;
        default:
            return 2;
        }
    }
    if (optind + 1 != argc || b.rank == 0 || b.n_rounds == 0 || b.n_rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: bench_engine MODEL [--rank 16] [--batch 1,4,16] [--rounds 5] [--threads N] "
                        "[--isa auto] [--quant auto]\n");
        return 2;
    }
    open_all(&b, argv[optind], isa, quant, n_threads);
    for (uint32_t i = 0; i < N_ADAPTERS; i++)
        b.adapters[i] = make_adapter(&b, i + 1);
    run(&b, OWN_ADAPTER, 4, 8, 8); /* touches the memory once */
    printf("| phase | batch | voices | tokens/s | ratio to base |\n|---|---|---|---|---|\n");
    for (const char *p = batches; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        uint32_t n_rows = (uint32_t)strtoul(p, NULL, 10);
        measure(&b, n_rows, false);
        measure(&b, n_rows, true);
    }
    engine_destroy(b.engine);
    for (uint32_t i = 0; i < N_ADAPTERS; i++)
        lora_release(b.adapters[i]);
    model_close(b.model);
    text_model_close(b.text);
    model_files_close(b.files);
    return 0;
}
