/* Speed of the engine in this process, one JSON line a run.
 *
 *   bench_step MODEL [--rank 16] [--sites all|qv] [--rounds 1] [--threads N] [--isa auto] [--quant auto]
 *              [--activations int8] [--predict] [--no-pin] [--temperature 0] [--top-p 1] [--logprobs -1]
 *              RUN...
 *
 *   prefill:TOKENS[:ROWS]                   ROWS prompts of so many tokens
 *   decode:ROWS:ADAPTERS:TOKENS[:CONTEXT]   ROWS sequences that have CONTEXT tokens each (8) say TOKENS more,
 *                                           on so many different adapters (0: the base alone)
 *   pass:ROWS:ADAPTERS:TOKENS[:CONTEXT]     the same, but the forward pass alone: no engine, no sampling
 *
 * Threads that are left alone are pinned after some seconds (include/engine.h), but for --no-pin.
 * Runs are made in turns, --rounds times. A decode run's time is from the moment when all rows have begun to
 * the first one's end, so its steps all have ROWS rows. Adapters are random, and stored as the server does by
 * default. `bytes` is what a step must read (weights once, each adapter once, keys and values), `macs` what
 * it must multiply; with --predict, predicted_ms is what the cost model (include/cost.h), measured at the
 * beginning, says of such a step's matrices. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cost.h"
#include "engine.h"
#include "format.h"
#include "kernels.h"
#include "lora.h"
#include "model.h"
#include "tests/bench/made_lora.h"
#include "text.h"

#define N_ADAPTERS_MAX 64U
#define RUNS_MAX 32U
#define CONTEXT_LEAST 8U
#define CONTEXT_USUAL 512U /* KV memory for less than that leaves no page to grow, and rows would wait */
#define WARM_UP_TOKENS 8U
#define KV_FILL 0x2c /* plain numbers in every KV type */

struct run {
    bool prefill, pass;
    uint32_t n_rows, n_adapters, n_tokens, n_prompt;
};

struct bench {
    struct model_files *files;
    struct text_model *text;
    struct model *model;
    struct engine *engine;
    struct cost_model costs;
    bool predict, pin_off;
    float temperature, top_p;
    int32_t n_logprobs; /* of each token; -1: none */
    struct lora *adapters[N_ADAPTERS_MAX];
    int32_t *prompt;
    uint32_t rank, n_rounds, n_runs;
    bool only_qv;
    unsigned n_threads;
    uint64_t salt; /* no prompt comes twice */
    struct run runs[RUNS_MAX];
};

static void die(const char *text)
{
    fprintf(stderr, "bench_step: %s\n", text);
    exit(1);
}

static struct lora *make_adapter(struct bench *b, uint64_t seed)
{
    return made_lora(b->model, &(struct made_lora){.rank = b->rank,
                                                   .only_qv = b->only_qv,
                                                   .a = 0.01F,
                                                   .b = 0.01F,
                                                   .scale = 1,
                                                   .seed = seed,
                                                   .store = LORA_STORE_AUTO});
}

/* ---- a run ---- */

static void submit(struct bench *b, const struct run *r)
{
    uint32_t vocab = model_config(b->model)->vocab_size;
    for (uint32_t row = 0; row < r->n_rows; row++) {
        for (uint32_t i = 0; i < r->n_prompt; i++) {
            b->salt = b->salt * 6364136223846793005ULL + 1442695040888963407ULL;
            b->prompt[i] = (int32_t)((b->salt >> 33) % vocab);
        }
        struct generation g = {
            .prompt = b->prompt,
            .n_prompt = r->n_prompt,
            .max_tokens = r->prefill ? 1 : r->n_tokens + 1,
            .ignore_eos = true,
            .n_logprobs = b->n_logprobs,
            .n_prompt_logprobs = -1,
            .sampling = {
                .temperature = b->temperature, .top_p = b->top_p, .repetition_penalty = 1, .seed = b->salt}};
        g.lora = r->n_adapters ? b->adapters[row % r->n_adapters] : NULL;
        uint64_t id;
        struct error err;
        if (engine_submit(b->engine, &g, &id, &err) != STATUS_OK)
            die(err.text);
    }
}

/* Seconds, and the tokens that came in them. */
static double measure(struct bench *b, const struct run *r, uint32_t *n_tokens)
{
    int64_t begin = clock_now_ns(), end = 0;
    uint32_t n_begun = 0, n_done = 0, n = 0;
    struct event e;
    submit(b, r);
    uint64_t *ids = mem_array(r->n_rows, sizeof *ids);
    while (ids && n_done < r->n_rows) {
        if (!engine_wait(b->engine, &e, -1))
            continue;
        if (e.kind == EVENT_FAILED)
            die(e.error.text);
        if (e.kind == EVENT_DONE) {
            n_done++;
            end = end && !r->prefill ? end : clock_now_ns();
        }
        if (e.kind != EVENT_TOKEN)
            continue;
        uint32_t i = 0;
        while (i < n_begun && ids[i] != e.id)
            i++;
        if (i == n_begun) {
            ids[n_begun++] = e.id;
            begin = r->prefill || n_begun < r->n_rows ? begin : clock_now_ns();
        } else if (n_begun == r->n_rows && !end) {
            n++;
        }
    }
    mem_free(ids);
    *n_tokens = r->prefill ? r->n_rows * r->n_prompt : n;
    return (double)(end - begin) / 1e9;
}

/* One token for each row, n_tokens times, by model_step alone: seconds. */
static double measure_pass(struct bench *b, const struct run *r, uint32_t *n_tokens)
{
    struct kv_shape shape = model_kv_shape(b->model, model_kv_type(b->model, "auto"));
    uint32_t n_pages = (r->n_prompt + r->n_tokens) / KV_PAGE_TOKENS + 1, page;
    struct team *team = team_create(b->n_threads);
    struct kv_cache *kv = NULL;
    struct step_space *space = NULL;
    struct batch_seq *seqs = mem_array(r->n_rows, sizeof *seqs);
    uint32_t *pages = mem_array((size_t)r->n_rows * n_pages, sizeof *pages);
    int32_t *tokens = mem_array(r->n_rows, sizeof *tokens);
    float *logits;
    struct error err = {.text = "no memory"};
    if (!team || !seqs || !pages || !tokens ||
        kv_cache_create(&shape, r->n_rows * n_pages, &kv, &err) != STATUS_OK ||
        step_space_create(b->model, &shape, r->n_rows, r->n_rows, r->n_rows, team, &space, &err) !=
            STATUS_OK ||
        (r->n_adapters && step_reserve_rank(space, b->adapters[0]->t_max, &err) != STATUS_OK))
        die(err.text);
    for (uint32_t i = 0; i < r->n_rows * n_pages && kv_page_acquire(kv, &page); i++) {
        memset(kv_page_data(kv, page), KV_FILL, kv_page_bytes(&shape)); /* memory that is really there */
        pages[i] = page;
    }
    int64_t begin = 0;
    for (uint32_t at = 0; at <= r->n_tokens; at++) { /* the first one warms up */
        begin = at == 1 ? clock_now_ns() : begin;
        for (uint32_t i = 0; i < r->n_rows; i++) {
            tokens[i] = (int32_t)((at * 7919 + i * 104729 + 11) % model_config(b->model)->vocab_size);
            seqs[i] = (struct batch_seq){.lora = r->n_adapters ? b->adapters[i % r->n_adapters] : NULL,
                                         .tokens = &tokens[i],
                                         .n_tokens = 1,
                                         .position = r->n_prompt + at - (at > 0),
                                         .pages = pages + (size_t)i * n_pages,
                                         .n_prompt = r->n_prompt};
        }
        model_step(b->model, space, kv, &(struct batch){.seqs = seqs, .n_seqs = r->n_rows}, &logits);
    }
    double seconds = (double)(clock_now_ns() - begin) / 1e9;
    step_space_destroy(space);
    kv_cache_destroy(kv);
    team_destroy(team);
    mem_free(seqs);
    mem_free(pages);
    mem_free(tokens);
    *n_tokens = r->n_tokens * r->n_rows;
    return seconds;
}

struct demand {
    double bytes, macs;           /* of the whole step */
    double kv_bytes, attend_macs; /* attention's part */
};

/* What a step must read and multiply, from what the model and the adapters are. */
static struct demand demand_of(const struct bench *b, const struct run *r)
{
    const struct model_config *c = model_config(b->model);
    const struct model_info *info = model_info(b->model);
    double table = (double)c->vocab_size * c->hidden_size;
    double n_weights = (double)info->n_parameters - (c->tie_word_embeddings ? 0 : table);
    struct kv_shape kv = model_kv_shape(b->model, model_kv_type(b->model, "auto"));
    double n_known = r->n_rows * (r->n_prompt + r->n_tokens / 2.0); /* of all rows */
    struct demand d = {.kv_bytes = n_known * (double)kv_page_bytes(&kv) / KV_PAGE_TOKENS,
                       .attend_macs = n_known * 2.0 * c->n_layers * c->n_heads * c->head_dim};
    d.bytes = (double)info->size_bytes * n_weights / (double)info->n_parameters + d.kv_bytes;
    d.macs = n_weights * r->n_rows + d.attend_macs;
    for (uint32_t i = 0; i < r->n_adapters && i < r->n_rows; i++)
        d.bytes += (double)b->adapters[i]->size_bytes;
    if (r->n_adapters)
        d.macs += (double)b->adapters[0]->n_parameters * r->n_rows;
    return d;
}

static double predicted_ms(const struct bench *b, const struct run *r)
{
    double ns = cost_step_ns(&b->costs, b->model, NULL, r->n_rows);
    uint32_t n = r->n_adapters < r->n_rows ? r->n_adapters : r->n_rows;
    if (n == 0)
        return ns / 1e6;
    uint32_t share = (r->n_rows + n - 1) / n;
    double beside = cost_step_ns(&b->costs, b->model, b->adapters[0], share) -
                    cost_step_ns(&b->costs, b->model, NULL, share);
    return (ns + n * beside) / 1e6;
}

static void print(const struct bench *b, const struct run *r, double seconds, uint32_t n_tokens)
{
    if (n_tokens == 0 || seconds <= 0) { /* of a model so small that one row ends before another begins */
        fprintf(stderr, "bench_step: the rows of a run were never all there at once; it needs more tokens\n");
        return;
    }
    if (r->prefill) {
        printf("{\"run\": \"prefill\", \"tokens\": %u, \"rows\": %u, \"seconds\": %.4f, \"rate\": %.2f}\n",
               r->n_prompt, r->n_rows, seconds, n_tokens / seconds);
    } else {
        struct demand d = demand_of(b, r);
        double step = seconds / n_tokens * r->n_rows;
        printf("{\"run\": \"%s\", \"rows\": %u, \"adapters\": %u, \"context\": %u, \"rank\": %u, "
               "\"threads\": %u, \"tokens\": %u, \"seconds\": %.4f, \"rate\": %.2f, \"step_ms\": %.3f, "
               "\"bytes\": %.0f, \"macs\": %.0f, \"kv_bytes\": %.0f, \"attend_macs\": %.0f",
               r->pass ? "pass" : "decode", r->n_rows, r->n_adapters, r->n_prompt, b->rank, b->n_threads,
               n_tokens, seconds, n_tokens / seconds, step * 1e3, d.bytes, d.macs, d.kv_bytes, d.attend_macs);
        if (b->predict)
            printf(", \"predicted_ms\": %.3f", predicted_ms(b, r));
        printf("}\n");
    }
    fflush(stdout);
}

/* ---- the command line ---- */

static void add_run(struct bench *b, const char *text)
{
    unsigned v[4] = {0};
    struct run *r = &b->runs[b->n_runs];
    if (b->n_runs == RUNS_MAX)
        die("too many runs");
    bool pass = strncmp(text, "pass:", 5) == 0;
    if (sscanf(text, "prefill:%u:%u", &v[0], &v[1]) >= 1)
        *r = (struct run){.prefill = true, .n_prompt = v[0], .n_rows = v[1] ? v[1] : 1};
    else if (sscanf(text, pass ? "pass:%u:%u:%u:%u" : "decode:%u:%u:%u:%u", &v[0], &v[1], &v[2], &v[3]) >= 3)
        *r = (struct run){.pass = pass,
                          .n_rows = v[0],
                          .n_adapters = v[1],
                          .n_tokens = v[2],
                          .n_prompt = v[3] ? v[3] : CONTEXT_LEAST};
    if (r->n_rows == 0 || r->n_prompt == 0 || r->n_adapters > N_ADAPTERS_MAX ||
        (!r->prefill && r->n_tokens == 0))
        die("a run is prefill:TOKENS[:ROWS] or decode|pass:ROWS:ADAPTERS:TOKENS[:CONTEXT]");
    b->n_runs++;
}

struct options {
    const char *isa, *quant, *activations;
};

static void parse(struct bench *b, struct options *o, int argc, char **argv)
{
    static const struct option options[] = {{"rank", required_argument, NULL, 'r'},
                                            {"sites", required_argument, NULL, 's'},
                                            {"rounds", required_argument, NULL, 'n'},
                                            {"threads", required_argument, NULL, 't'},
                                            {"isa", required_argument, NULL, 'i'},
                                            {"quant", required_argument, NULL, 'q'},
                                            {"activations", required_argument, NULL, 'a'},
                                            {"predict", no_argument, NULL, 'p'},
                                            {"no-pin", no_argument, NULL, 'f'},
                                            {"temperature", required_argument, NULL, 'T'},
                                            {"top-p", required_argument, NULL, 'P'},
                                            {"logprobs", required_argument, NULL, 'l'},
                                            {0}};
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        uint32_t n = optarg ? (uint32_t)strtoul(optarg, NULL, 10) : 0;
        b->rank = c == 'r' ? n : b->rank;
        b->n_rounds = c == 'n' ? n : b->n_rounds;
        b->n_threads = c == 't' ? n : b->n_threads;
        b->only_qv = c == 's' ? strcmp(optarg, "qv") == 0 : b->only_qv;
        b->predict = c == 'p' ? true : b->predict;
        b->pin_off = c == 'f' ? true : b->pin_off;
        b->temperature = c == 'T' ? strtof(optarg, NULL) : b->temperature;
        b->top_p = c == 'P' ? strtof(optarg, NULL) : b->top_p;
        b->n_logprobs = c == 'l' ? atoi(optarg) : b->n_logprobs;
        o->isa = c == 'i' ? optarg : o->isa;
        o->quant = c == 'q' ? optarg : o->quant;
        o->activations = c == 'a' ? optarg : o->activations;
        if (c == '?')
            exit(2);
    }
    if (optind + 1 >= argc || b->rank == 0)
        die("MODEL and at least one RUN are needed, and a rank above 0");
    for (int i = optind + 1; i < argc; i++)
        add_run(b, argv[i]);
}

static enum quant quant_of(const char *name)
{
    static const char *const quants[] = {"auto", "f32", "bf16", "q8_0", "q4_0"};
    for (int i = 0; i < 5; i++)
        if (strcmp(quants[i], name) == 0)
            return (enum quant)i;
    die("--quant is auto, f32, bf16, q8_0 or q4_0");
    return QUANT_AUTO;
}

static void open_all(struct bench *b, const char *path, const struct options *o)
{
    struct error err = {.text = "no memory"};
    struct engine_options eo = {
        .n_sequences = 1, .n_threads = b->n_threads, .context = CONTEXT_USUAL, .pin_off = b->pin_off};
    struct team *team = team_create(b->n_threads);
    struct model_options mo = {.team = team, .quant = quant_of(o->quant)};
    enum act_mode act = strcmp(o->activations, "f32") == 0 ? ACT_MODE_F32 : ACT_MODE_INT8;
    if (!team || kernels_select(o->isa, act, &mo.kernels, &err) != STATUS_OK ||
        model_files_open(path, &b->files, &err) != STATUS_OK ||
        text_model_open(b->files, &b->text, &err) != STATUS_OK ||
        model_open(b->files, &mo, &b->model, &err) != STATUS_OK ||
        (b->predict && cost_measure(b->model, team, COST_BUDGET_NS, &b->costs, &err) != STATUS_OK))
        die(err.text);
    b->n_threads = team_size(team);
    team_destroy(team);
    uint32_t n_adapters = 0;
    for (uint32_t i = 0; i < b->n_runs; i++) {
        const struct run *r = &b->runs[i];
        eo.n_sequences = r->n_rows > eo.n_sequences ? r->n_rows : eo.n_sequences;
        uint32_t context = r->n_prompt + r->n_tokens + WARM_UP_TOKENS;
        eo.context = context > eo.context ? context : eo.context;
        n_adapters = r->n_adapters > n_adapters ? r->n_adapters : n_adapters;
    }
    b->prompt = mem_alloc(eo.context * sizeof *b->prompt);
    if (!b->prompt || engine_create(b->model, b->text, &eo, NULL, NULL, &b->engine, &err) != STATUS_OK)
        die(err.text);
    for (uint32_t i = 0; i < n_adapters; i++)
        b->adapters[i] = make_adapter(b, i + 1);
}

int main(int argc, char **argv)
{
    struct bench b = {.rank = 16, .n_rounds = 1, .salt = 1, .top_p = 1, .n_logprobs = -1};
    struct options o = {.isa = "auto", .quant = "auto", .activations = "int8"};
    uint32_t n;
    parse(&b, &o, argc, argv);
    open_all(&b, argv[optind], &o);
    for (uint32_t i = 0; i < b.n_runs; i++) { /* touches the memory once */
        struct run warm_up = b.runs[i];
        warm_up.prefill = false;
        warm_up.n_prompt = WARM_UP_TOKENS;
        warm_up.n_tokens = 1;
        measure(&b, &warm_up, &n);
    }
    for (uint32_t round = 0; round < b.n_rounds; round++)
        for (uint32_t i = 0; i < b.n_runs; i++) {
            double seconds = (b.runs[i].pass ? measure_pass : measure)(&b, &b.runs[i], &n);
            print(&b, &b.runs[i], seconds, n);
        }
    engine_destroy(b.engine);
    for (uint32_t i = 0; i < N_ADAPTERS_MAX; i++)
        lora_release(b.adapters[i]);
    model_close(b.model);
    text_model_close(b.text);
    model_files_close(b.files);
    mem_free(b.prompt);
    return 0;
}
