/* Merged against unmerged: tokens/s of steps whose rows all want one adapter, and whether the cost model
 * knew.
 *
 *   bench_merged [--shape 0.5b|1b] [--layers 0] [--base f32,bf16,q8_0,q4_0] [--rank 8,64,256] [--batch 1,8]
 *                [--rounds 7] [--threads N] [--isa auto]
 *
 * Models of real shapes with few layers and random weights are written to a temporary folder, and opened with
 * the base's type; an adapter of bf16 on all linear modules, its delta 3 % of W, is made in memory. For each
 * batch size steps of decoding run on the base with the adapter beside it and on copies of both types on
 * offer, in turns; the least time of each counts, as in cost.c: other programs only add to it.
 *
 * The choice (cost_choose, share 1) is right if it is the faster of the adapter beside the base and the copy
 * that is offered; to stay unmerged, if no faithful copy is faster. */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cost.h"
#include "format.h"
#include "model.h"
#include "tests/bench/made_lora.h"

#define BATCH_MAX 64U
#define POSITION 40U /* of the decoded tokens: a short context, attention costs nearly nothing */
#define VOCAB 4096U
#define N_WAYS 3

struct shape {
    const char *name;
    uint32_t hidden, ffn, heads, kv_heads, head_dim, layers;
};
static const struct shape shapes[] = {{"0.5b", 896, 4864, 14, 2, 64, 5}, {"1b", 2048, 8192, 32, 8, 64, 2}};

struct bench {
    const struct shape *shape;
    const struct kernels *k;
    struct team *team;
    struct model *base;
    struct kv_cache *kv;
    struct step_space *space;
    struct cost_model costs;
    const char *base_name;
    uint32_t n_rounds, n_cases, n_right, n_right_or_tie;
};

static void die(const struct error *err)
{
    fprintf(stderr, "bench_merged: %s\n", err->text);
    exit(1);
}

/* ---- a model in a folder ---- */

static float random_unit(uint64_t *state) /* [-1, 1) */
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (float)(int32_t)(*state >> 32) / 2147483648.0F;
}

struct tensor_row {
    char name[80];
    uint32_t rows, cols; /* cols 0: a norm's vector */
};

static uint32_t list_tensors(const struct shape *s, struct tensor_row *t)
{
    const struct {
        const char *name;
        uint32_t rows, cols;
    } layer[] = {{"self_attn.q_proj", s->heads * s->head_dim, s->hidden},
                 {"self_attn.k_proj", s->kv_heads * s->head_dim, s->hidden},
                 {"self_attn.v_proj", s->kv_heads * s->head_dim, s->hidden},
                 {"self_attn.o_proj", s->hidden, s->heads * s->head_dim},
                 {"mlp.gate_proj", s->ffn, s->hidden},
                 {"mlp.up_proj", s->ffn, s->hidden},
                 {"mlp.down_proj", s->hidden, s->ffn},
                 {"input_layernorm", s->hidden, 0},
                 {"post_attention_layernorm", s->hidden, 0}};
    uint32_t n = 0;
    t[n++] = (struct tensor_row){"model.embed_tokens.weight", VOCAB, s->hidden};
    t[n++] = (struct tensor_row){"model.norm.weight", s->hidden, 0};
    for (uint32_t l = 0; l < s->layers; l++)
        for (size_t i = 0; i < sizeof layer / sizeof *layer; i++) {
            t[n] = (struct tensor_row){.rows = layer[i].rows, .cols = layer[i].cols};
            snprintf(t[n].name, sizeof t[n].name, "model.layers.%u.%s.weight", l, layer[i].name);
            n++;
        }
    return n;
}

static FILE *create(const char *dir, const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f) {
        perror(path);
        exit(1);
    }
    return f;
}

static void write_config(const char *dir, const struct shape *s, bool f32)
{
    FILE *f = create(dir, "config.json");
    fprintf(
        f,
        "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":%u,"
        "\"intermediate_size\":%u,\"num_hidden_layers\":%u,\"num_attention_heads\":%u,"
        "\"num_key_value_heads\":%u,\"head_dim\":%u,\"vocab_size\":%u,\"max_position_embeddings\":2048,"
        "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"hidden_act\":\"silu\",\"tie_word_embeddings\":true,"
        "\"torch_dtype\":\"%s\",\"bos_token_id\":1,\"eos_token_id\":2}",
        s->hidden, s->ffn, s->layers, s->heads, s->kv_heads, s->head_dim, VOCAB,
        f32 ? "float32" : "bfloat16");
    fclose(f);
}

static void write_values(FILE *f, const struct tensor_row *t, bool f32, uint64_t *state)
{
    float row[16384];
    uint16_t bf16[16384];
    uint32_t n = t->cols ? t->cols : t->rows;
    for (uint32_t r = 0; r < (t->cols ? t->rows : 1); r++) {
        for (uint32_t i = 0; i < n; i++) {
            row[i] = t->cols ? random_unit(state) * 0.03F : 1;
            bf16[i] = f32_to_bf16(row[i]);
        }
        fwrite(f32 ? (const void *)row : bf16, f32 ? 4 : 2, n, f);
    }
}

static void write_model(const char *dir, const struct shape *s, bool f32)
{
    struct tensor_row t[2 + 9 * 64];
    uint32_t n = list_tensors(s, t);
    char *header = mem_alloc((size_t)n * 300);
    size_t at = 0, bytes = 0;
    uint64_t state = 7;
    for (uint32_t i = 0; i < n; i++) {
        size_t size = (size_t)t[i].rows * (t[i].cols ? t[i].cols : 1) * (f32 ? 4 : 2);
        char dims[40];
        snprintf(dims, sizeof dims, t[i].cols ? "%u,%u" : "%u", t[i].rows, t[i].cols);
        at += (size_t)sprintf(header + at,
                              "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                              i ? "," : "{", t[i].name, f32 ? "F32" : "BF16", dims, bytes, bytes + size);
        bytes += size;
    }
    header[at++] = '}';
    while (at % 8)
        header[at++] = ' ';
    FILE *f = create(dir, "model.safetensors");
    uint64_t length = at;
    fwrite(&length, sizeof length, 1, f);
    fwrite(header, 1, at, f);
    for (uint32_t i = 0; i < n; i++)
        write_values(f, &t[i], f32, &state);
    if (fclose(f) != 0) {
        perror(dir);
        exit(1);
    }
    mem_free(header);
    write_config(dir, s, f32);
}

static void remove_model(const char *dir)
{
    char path[300];
    snprintf(path, sizeof path, "%s/config.json", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unlink(path);
    rmdir(dir);
}

/* The least of several measurements, as of the steps: a server measures once, when its machine is quiet. */
static void measure_costs(struct bench *b)
{
    struct error err;
    for (uint32_t round = 0; round < b->n_rounds; round++) {
        struct cost_model c;
        if (cost_measure(b->base, b->team, COST_BUDGET_NS, &c, &err) != STATUS_OK)
            die(&err);
        for (unsigned r = 0; r < COST_ROW_POINTS && round > 0; r++) {
            for (int t = 0; t < DTYPE_COUNT; t++)
                c.weight_ns[t][r] = fmin(c.weight_ns[t][r], b->costs.weight_ns[t][r]);
            for (unsigned k = 0; k < COST_RANK_POINTS; k++)
                c.panel_ns[k][r] = fmin(c.panel_ns[k][r], b->costs.panel_ns[k][r]);
        }
        if (round > 0)
            c.barrier_ns = fmin(c.barrier_ns, b->costs.barrier_ns);
        b->costs = c;
    }
}

static void open_base(struct bench *b, const char *type)
{
    static const char *const quants[] = {"auto", "f32", "bf16", "q8_0", "q4_0"};
    char dir[] = "/tmp/lk-bench-XXXXXX";
    struct model_options o = {.kernels = b->k, .team = b->team};
    struct model_files *files;
    struct error err;
    for (int i = 0; i < 5; i++)
        if (strcmp(quants[i], type) == 0)
            o.quant = (enum quant)i;
    if (!mkdtemp(dir)) {
        perror(dir);
        exit(1);
    }
    write_model(dir, b->shape, strcmp(type, "f32") == 0);
    enum status s = model_files_open(dir, &files, &err);
    if (s == STATUS_OK) {
        s = model_open(files, &o, &b->base, &err);
        model_files_close(files);
    }
    remove_model(dir);
    struct kv_shape shape = {0};
    if (s == STATUS_OK) {
        shape = model_kv_shape(b->base, DTYPE_F16);
        s = kv_cache_create(&shape, 2 * BATCH_MAX, &b->kv, &err);
    }
    if (s == STATUS_OK)
        s = step_space_create(b->base, &shape, BATCH_MAX, BATCH_MAX, BATCH_MAX, b->team, &b->space, &err);
    if (s != STATUS_OK)
        die(&err);
    measure_costs(b);
    b->base_name = type;
    for (uint32_t i = 0, page; i < 2 * BATCH_MAX; i++)
        if (!kv_page_acquire(b->kv, &page) || page >= 2 * BATCH_MAX)
            exit(1);
}

/* ---- an adapter in memory ---- */

static struct lora *make_adapter(const struct bench *b, uint32_t rank)
{
    /* uniform numbers: |s B A| / |W| = s |b| |a| sqrt(rank / 3) / 0.03 of their largest */
    struct lora *l =
        made_lora(b->base, &(struct made_lora){.rank = rank,
                                               .a = 0.1F,
                                               .b = 0.1F,
                                               .scale = 0.03F * 0.03F / (0.01F * sqrtf((float)rank / 3)),
                                               .seed = 99});
    struct error err;
    if (step_reserve_rank(b->space, l->t_max, &err) != STATUS_OK)
        die(&err);
    return l;
}

/* ---- measuring ---- */

struct way {
    const char *name;
    const struct model *model;
    const struct lora *lora;
    struct merged_copy *copy;
    enum dtype type;
    double least_ns;
    bool faithful;
};

static double now_ns(const struct bench *b)
{
    return (double)(team_size(b->team) > 1 ? clock_now_ns() : clock_thread_ns());
}

static double step_ns(struct bench *b, const struct way *w, uint32_t n_rows)
{
    struct batch_seq seqs[BATCH_MAX];
    uint32_t pages[BATCH_MAX][2];
    int32_t tokens[BATCH_MAX];
    float *logits;
    for (uint32_t i = 0; i < n_rows; i++) {
        pages[i][0] = 2 * i;
        pages[i][1] = 2 * i + 1;
        tokens[i] = (int32_t)(i * 131 % VOCAB);
        seqs[i] = (struct batch_seq){.lora = w->lora,
                                     .tokens = &tokens[i],
                                     .n_tokens = 1,
                                     .position = POSITION,
                                     .pages = pages[i],
                                     .n_prompt = POSITION};
    }
    double begin = now_ns(b);
    model_step(w->model, b->space, b->kv, &(struct batch){.seqs = seqs, .n_seqs = n_rows}, &logits);
    return now_ns(b) - begin;
}

/* Keeps the three least times. */
static void keep(double least[3], double ns)
{
    for (int i = 0; i < 3; i++)
        if (ns < least[i]) {
            double other = least[i];
            least[i] = ns;
            ns = other;
        }
}

static void measure(struct bench *b, struct way *ways, uint32_t n_rows)
{
    double least[N_WAYS][3];
    bool steady = false;
    for (int w = 0; w < N_WAYS; w++)
        least[w][0] = least[w][1] = least[w][2] = INFINITY;
    for (uint32_t round = 0; round < 20 * b->n_rounds && !steady; round++) {
        steady = round >= b->n_rounds;
        for (int w = 0; w < N_WAYS; w++) {
            keep(least[w], step_ns(b, &ways[w], n_rows));
            steady = steady && least[w][2] <= 1.03 * least[w][0];
        }
    }
    for (int w = 0; w < N_WAYS; w++)
        ways[w].least_ns = least[w][0];
}

static void print_case(struct bench *b, const struct way *ways, const struct cost_choice *c, uint32_t rank,
                       uint32_t n_rows)
{
    int offered = ways[1].type == c->type ? 1 : 2, chosen = c->merge ? offered : 0;
    double other = chosen ? ways[0].least_ns : INFINITY;
    for (int w = 1; w < N_WAYS && !chosen; w++)
        other = ways[w].faithful ? fmin(other, ways[w].least_ns) : other;
    bool right = ways[chosen].least_ns <= other, tie = ways[chosen].least_ns <= 1.02 * other;
    b->n_cases++;
    b->n_right += right;
    b->n_right_or_tie += tie;
    printf("| %s | %s | %u | %u |", b->shape->name, b->base_name, rank, n_rows);
    for (int w = 0; w < N_WAYS; w++)
        printf(" %.1f%s |", n_rows / ways[w].least_ns * 1e9, ways[w].faithful ? "" : " (too coarse)");
    printf(" %s | %.2f | %.2f | %s | %s |\n", dtype_name(c->type), ways[offered].least_ns / ways[0].least_ns,
           c->ratio, chosen ? "merged" : "unmerged",
           right ? "right"
           : tie ? "tie"
                 : "wrong");
    fflush(stdout);
}

static void run_rank(struct bench *b, uint32_t rank, const char *batches)
{
    struct lora *l = make_adapter(b, rank);
    bool f32 = strcmp(b->base_name, "f32") == 0;
    struct way ways[N_WAYS] = {{.name = "unmerged", .model = b->base, .lora = l, .faithful = true},
                               {.type = f32 ? DTYPE_F32 : DTYPE_BF16},
                               {.type = f32 ? DTYPE_BF16 : DTYPE_Q8_0}};
    unsigned refused = 0;
    struct error err;
    for (int w = 1; w < N_WAYS; w++) {
        if (merged_copy_create(b->base, l, ways[w].type, b->team, &ways[w].copy, &err) != STATUS_OK)
            die(&err);
        ways[w].name = dtype_name(ways[w].type);
        ways[w].model = merged_copy_model(ways[w].copy);
        ways[w].faithful = cost_is_faithful(model_merge_report(ways[w].model));
        refused |= ways[w].faithful ? 0 : 1U << ways[w].type;
        if (step_reserve_model(b->space, ways[w].model, &err) != STATUS_OK)
            die(&err);
    }
    for (const char *p = batches; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        uint32_t n_rows = (uint32_t)strtoul(p, NULL, 10);
        const struct cost_load load = {.share = 1, .n_rows = n_rows};
        struct cost_choice c;
        if (n_rows == 0 || n_rows > BATCH_MAX)
            exit(2);
        cost_choose(&b->costs, b->base, l, &load, refused, &c);
        measure(b, ways, n_rows);
        print_case(b, ways, &c, rank, n_rows);
    }
    for (int w = 1; w < N_WAYS; w++)
        merged_copy_release(ways[w].copy);
    lora_release(l);
}

static void run_base(struct bench *b, const char *type, const char *ranks, const char *batches)
{
    open_base(b, type);
    fprintf(stderr, "%s %s: %.0f MB, constants measured in %.0f ms on %u threads, barrier %.0f ns\n",
            b->shape->name, type, (double)model_info(b->base)->size_bytes / 1e6,
            (double)b->costs.spent_ns / 1e6, b->costs.n_workers, b->costs.barrier_ns);
    static const uint32_t rows[] = COST_ROWS_AT, at[] = COST_RANKS_AT;
    for (unsigned r = 0; r < COST_ROW_POINTS; r++) {
        fprintf(stderr, "  %u rows: ", rows[r]);
        for (int t = 0; t < DTYPE_COUNT; t++)
            if (b->costs.weight_ns[t][r] > 0)
                fprintf(stderr, "%s %.4f ns a weight, ", dtype_name((enum dtype)t), b->costs.weight_ns[t][r]);
        for (unsigned k = 0; k < COST_RANK_POINTS; k++)
            fprintf(stderr, "rank %u %.0f%s", at[k], b->costs.panel_ns[k][r],
                    k + 1 < COST_RANK_POINTS ? ", " : " ns a panel of B\n");
    }
    for (const char *p = ranks; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        run_rank(b, (uint32_t)strtoul(p, NULL, 10), batches);
    step_space_destroy(b->space);
    kv_cache_destroy(b->kv);
    model_close(b->base);
}

static int usage(void)
{
    fprintf(stderr, "usage: bench_merged [--shape 0.5b|1b] [--layers N] [--base f32,bf16,q8_0,q4_0] "
                    "[--rank 8,64,256] [--batch 1,8] [--rounds 7] [--threads N] [--isa auto]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"shape", required_argument, NULL, 's'},
                                            {"layers", required_argument, NULL, 'l'},
                                            {"base", required_argument, NULL, 'q'},
                                            {"rank", required_argument, NULL, 'r'},
                                            {"batch", required_argument, NULL, 'b'},
                                            {"rounds", required_argument, NULL, 'n'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"isa", required_argument, NULL, 'i'},
                                            {0}};
    struct bench b = {.n_rounds = 7};
    struct shape shape;
    const char *only = NULL, *bases = "f32,bf16,q8_0,q4_0", *ranks = "8,64,256", *batches = "1,8",
               *isa = "auto";
    unsigned n_threads = 0, n_layers = 0;
    struct error err;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (o) {
        case 's':
            only = optarg;
            break;
        case 'l':
            n_layers = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'q':
            bases = optarg;
            break;
        case 'r':
            ranks = optarg;
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
        default:
            return usage();
        }
    }
    if (optind != argc || b.n_rounds == 0 || n_layers > 64)
        return usage();
    b.team = team_create(n_threads);
    if (!b.team || kernels_select(isa, ACT_MODE_INT8, &b.k, &err) != STATUS_OK)
        die(&err);
    printf("| shape | base | rank | batch | unmerged, tokens/s | merged in bf16 (f32 base: f32) | in q8_0 "
           "(f32 base: "
           "bf16) | offered | ratio measured | predicted | choice | "
           "|\n|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (only && strcmp(only, shapes[i].name) != 0)
            continue;
        shape = shapes[i];
        shape.layers = n_layers ? n_layers : shape.layers;
        b.shape = &shape;
        char type[16];
        for (const char *p = bases; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
            snprintf(type, sizeof type, "%.*s", (int)strcspn(p, ","), p);
            run_base(&b, type, ranks, batches);
        }
    }
    printf("\nThe choice is the faster way in %u of %u cases (%.0f %%), and within 2 %% of it in %u.\n",
           b.n_right, b.n_cases, 100.0 * b.n_right / (b.n_cases ? b.n_cases : 1), b.n_right_or_tie);
    team_destroy(b.team);
    return 0;
}
