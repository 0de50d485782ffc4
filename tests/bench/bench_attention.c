/* Speed of attention alone, as a step runs it: all workers over the rows of a batch, one layer after another.
 *
 *   bench_attention [--threads N] [--isa auto] [--kv-type f16] [--shape llama1b] [--rounds 5]
 *
 * Decode: 1, 8 and 16 sequences of one row at contexts of 64, 2048 and 8192. Prefill: chunks of 512 rows that
 * end at 512 and at 4096. Medians, as Markdown: microseconds a layer, GB/s of K and V read once by each
 * sequence, GFLOP/s, and tokens/s if attention were all of the model. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/team.h"
#include "step.h"

#define CONTEXT_MAX 8192U
#define ROWS_MAX 512U
#define SEQS_MAX 16U
#define LAYERS 2U
#define ROUNDS_MAX 32U

static const struct model_shape {
    const char *name;
    uint32_t n_layers, n_heads, n_kv_heads, head_dim;
} model_shapes[] = {{"llama1b", 16, 32, 8, 64}, {"qwen0.5b", 24, 14, 2, 64}, {"gemma270m", 18, 4, 1, 256}};
#define N_SHAPES (sizeof model_shapes / sizeof *model_shapes)

struct bench {
    const struct model_shape *shape;
    struct model model;
    struct model_layer layers[LAYERS];
    struct team *team;
    struct kv_cache *kv;
    struct step_space *space;
    uint32_t pages[SEQS_MAX][CONTEXT_MAX / KV_PAGE_TOKENS];
    enum dtype kv_type;
    unsigned n_rounds;
};

static void die(const struct error *err)
{
    fprintf(stderr, "bench_attention: %s\n", err->text);
    exit(1);
}

/* A model with nothing but the shape of its heads. */
static void bench_open(struct bench *b, const struct kernels *k)
{
    const struct model_shape *m = b->shape;
    struct model_config *c = &b->model.config;
    struct error err;
    b->model.kernels = k;
    b->model.layers = b->layers;
    b->model.q_dim = m->n_heads * m->head_dim;
    b->model.kv_dim = m->n_kv_heads * m->head_dim;
    *c = (struct model_config){.hidden_size = 64, .intermediate_size = 64, .vocab_size = 64};
    c->n_layers = LAYERS;
    c->n_heads = m->n_heads;
    c->n_kv_heads = m->n_kv_heads;
    c->head_dim = m->head_dim;
    c->max_position = CONTEXT_MAX;
    for (uint32_t i = 0; i < LAYERS; i++)
        b->layers[i] = (struct model_layer){.attn_scale = 0.125f};
    struct kv_shape shape = model_kv_shape(&b->model, b->kv_type);
    if (kv_cache_create(&shape, SEQS_MAX * CONTEXT_MAX / KV_PAGE_TOKENS, &b->kv, &err) != STATUS_OK ||
        step_space_create(&b->model, &shape, ROWS_MAX, SEQS_MAX, 1, b->team, &b->space, &err) != STATUS_OK)
        die(&err);
}

static void bench_close(struct bench *b)
{
    step_space_destroy(b->space);
    kv_cache_destroy(b->kv);
}

/* All tokens of all pages are alike; what they are doesn't matter for speed. */
static void fill(struct bench *b)
{
    const struct kv_shape *s = kv_cache_shape(b->kv);
    size_t size = kv_page_bytes(s);
    float x[256];
    for (uint32_t i = 0; i < 256; i++)
        x[i] = 0.01f * (float)(i * 37 % 101) - 0.5f;
    for (uint32_t seq = 0; seq < SEQS_MAX; seq++) {
        for (uint32_t i = 0; i < CONTEXT_MAX / KV_PAGE_TOKENS; i++)
            require(kv_page_acquire(b->kv, &b->pages[seq][i]));
    }
    uint8_t *first = kv_page_data(b->kv, b->pages[0][0]);
    for (uint32_t i = 0; i < 2 * s->n_layers * s->n_kv_heads * KV_PAGE_TOKENS; i++) {
        uint32_t token = i % KV_PAGE_TOKENS, head = i / KV_PAGE_TOKENS % s->n_kv_heads;
        uint32_t layer = i / KV_PAGE_TOKENS / s->n_kv_heads % s->n_layers;
        bool values = i / KV_PAGE_TOKENS / s->n_kv_heads / s->n_layers;
        struct kv_row r = {first, s->type, s->head_dim, KV_PAGE_TOKENS, token};
        r.block += values ? kv_v_offset(s, layer, head) : kv_k_offset(s, layer, head);
        (values ? b->model.kernels->put_values : b->model.kernels->put_keys)(&r, x);
    }
    for (uint32_t i = 1; i < kv_cache_n_pages(b->kv); i++)
        memcpy(kv_page_data(b->kv, b->pages[i % SEQS_MAX][i / SEQS_MAX]), first, size);
    for (size_t i = 0; i < (size_t)ROWS_MAX * b->model.q_dim; i++)
        b->space->q[i] = 0.01f * (float)(i * 29 % 101) - 0.5f;
}

static void attend_task(void *arg, unsigned worker, unsigned n_workers)
{
    struct step_space *s = arg;
    struct crew c = {.s = s, .m = s->now, .k = s->m->kernels, .worker = worker, .n_workers = n_workers};
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        attend(&c, layer);
        team_barrier(s->team);
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* n_seqs sequences of n_tokens rows each, whose last row sees `context` positions. */
static void measure(struct bench *b, uint32_t n_seqs, uint32_t n_tokens, uint32_t context)
{
    static int32_t tokens[ROWS_MAX];
    struct batch_seq seqs[SEQS_MAX];
    double t[ROUNDS_MAX];
    for (uint32_t i = 0; i < n_seqs; i++)
        seqs[i] = (struct batch_seq){.tokens = tokens,
                                     .n_tokens = n_tokens,
                                     .position = context - n_tokens,
                                     .pages = b->pages[i],
                                     .logits_begin = n_tokens};
    struct batch batch = {.seqs = seqs, .n_seqs = n_seqs};
    for (unsigned i = 0; i < b->n_rounds; i++) {
        step_plan(b->space, &b->model, b->kv, &batch);
        int64_t start = clock_now_ns();
        team_run(b->team, attend_task, b->space);
        t[i] = (double)(clock_now_ns() - start) * 1e-9 / LAYERS;
    }
    qsort(t, b->n_rounds, sizeof *t, by_size);
    double s = t[b->n_rounds / 2], n_rows = (double)n_seqs * n_tokens;
    double seen = n_rows * (context - (n_tokens - 1) / 2.0); /* (row, position) pairs */
    const struct kv_shape *shape = kv_cache_shape(b->kv);
    double bytes = (double)n_seqs * context * shape->n_kv_heads * 2 *
                   (double)kv_token_bytes(shape->type, shape->head_dim);
    printf("| %s | %s | %s %u x %u | %u | %.0f | %.1f | %.1f | %.0f |\n", b->shape->name,
           dtype_name(b->kv_type), n_tokens > 1 ? "prefill" : "decode", n_seqs, n_tokens, context, s * 1e6,
           bytes / s * 1e-9, seen * b->shape->n_heads * b->shape->head_dim * 4 / s * 1e-9,
           n_rows / (s * b->shape->n_layers));
    fflush(stdout);
}

static void run(struct bench *b, const struct kernels *k)
{
    static const uint32_t contexts[] = {64, 2048, 8192}, batches[] = {1, 8, 16};
    bench_open(b, k);
    fill(b);
    for (unsigned i = 0; i < 9; i++)
        measure(b, batches[i % 3], 1, contexts[i / 3]);
    measure(b, 1, 512, 512);
    measure(b, 1, 512, 4096);
    bench_close(b);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"threads", 1, NULL, 't'}, {"isa", 1, NULL, 'i'},
                                            {"kv-type", 1, NULL, 'k'}, {"shape", 1, NULL, 's'},
                                            {"rounds", 1, NULL, 'r'},  {NULL, 0, NULL, 0}};
    static struct bench b = {.kv_type = DTYPE_F16, .n_rounds = 5};
    const char *isa = "auto", *shape = "";
    unsigned n_threads = 0;
    const struct kernels *k;
    struct error err;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (o == 't')
            n_threads = (unsigned)strtoul(optarg, NULL, 10);
        else if (o == 'i')
            isa = optarg;
        else if (o == 's')
            shape = optarg;
        else if (o == 'r')
            b.n_rounds = (unsigned)strtoul(optarg, NULL, 10);
        else if (o != 'k' || !dtype_from_name(optarg, &b.kv_type) || !kv_block_has(b.kv_type))
            return 2;
    }
    if (kernels_select(isa, ACT_MODE_INT8, &k, &err) != STATUS_OK)
        die(&err);
    b.team = team_create(n_threads);
    if (!b.team || b.n_rounds == 0 || b.n_rounds > ROUNDS_MAX)
        return 2;
    printf("%u threads, %s\n\n| heads of | KV | rows | context | us a layer | GB/s | GFLOP/s | tokens/s |\n"
           "|---|---|---|---|---|---|---|---|\n",
           team_size(b.team), k->isa);
    for (size_t i = 0; i < N_SHAPES; i++) {
        b.shape = &model_shapes[i];
        if (!*shape || strcmp(shape, b.shape->name) == 0)
            run(&b, k);
    }
    team_destroy(b.team);
    return 0;
}
