/* `lorikeet merge --model BASE ADAPTER[:SCALE]... OUT`: a Hugging Face folder with the adapters inside the
 * weights (rank_tools.h does the work). */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/team.h"
#include "cmd.h"
#include "format.h"
#include "model.h"
#include "rank_tools.h"
#include "tool.h"

#define THREADS_MAX 256UL
#define SHARD_MB_MAX 1000000UL

struct arguments {
    const char *model, *out, *like;
    char **adapters;
    uint32_t n_adapters;
    unsigned long n_threads, shard_mb;
    enum dtype type;
};

/* What is opened on the way. */
struct opened_base {
    struct model_files *files;
    struct model *model;
    struct team *team;
    struct adapter_version *versions[LORA_MEMBERS_MAX];
    float weights[LORA_MEMBERS_MAX];
    struct lora *lora;
};

static int usage(FILE *to, int code)
{
    fprintf(to, "usage: lorikeet merge --model BASE ADAPTER[:SCALE]... OUT [options]\n"
                "  --type TYPE      of all tensors: f32, f16, bf16 (each as the base's file has it; bf16 for "
                "what is\n"
                "                   quantised there)\n"
                "  --like FOLDER    config.json and tokenizer files come from here; needed for a GGUF base\n"
                "  --shard-mb N     tensor data of one file, in MB (5000)\n"
                "  --threads N      (one a core)\n"
                "Several adapters: the sum of what they add, each times its scale. OUT is a new folder, "
                "which must not\n"
                "exist. docs/TOOLS.md has an example.\n");
    return code;
}

/* "PATH:0.5" into a path and a scale; a path that exists as it stands has no scale. */
static void split_scale(const char *text, char *path, size_t path_bytes, double *scale)
{
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    snprintf(path, path_bytes, "%s", text);
    *scale = 1;
    if (!colon || colon == text || path_is_folder(text) || file_exists(text))
        return;
    double v = strtod(colon + 1, &end);
    if (end == colon + 1 || *end != '\0')
        return;
    *scale = v;
    path[colon - text < (ptrdiff_t)path_bytes ? colon - text : (ptrdiff_t)path_bytes - 1] = '\0';
}

static enum status load_adapter(const char *text, struct opened_base *b, uint32_t i, struct error *err)
{
    char path[512], name[24];
    double scale;
    split_scale(text, path, sizeof path, &scale);
    if (!(scale >= -1e4 && scale <= 1e4))
        return fail(err, STATUS_INVALID, "%s: scale %g is not a number within 10000", text, scale);
    snprintf(name, sizeof name, "adapter%u", i + 1);
    struct adapter_source source = {.name = name, .path = path, .root_fd = -1, .scale = 1};
    b->weights[i] = (float)scale;
    return adapter_load(&source, b->model, &b->versions[i], err);
}

static enum status load_all(const struct arguments *a, struct opened_base *b, struct error *err)
{
    struct model_options options = {.quant = QUANT_AUTO};
    struct lora *loras[LORA_MEMBERS_MAX];
    enum status s = STATUS_OK;
    if (path_is_folder(a->out) || file_exists(a->out)) /* before the work, too */
        s = fail(err, STATUS_EXISTS, "%s: is there already: remove it, or name another place", a->out);
    if (s == STATUS_OK)
        s = model_files_open(a->model, &b->files, err);
    if (s == STATUS_OK)
        s = kernels_select("auto", ACT_MODE_F32, &options.kernels, err);
    b->team = options.team = s == STATUS_OK ? team_create((unsigned)a->n_threads) : NULL;
    if (s == STATUS_OK && !b->team)
        s = fail(err, STATUS_NO_MEMORY, "can't start %lu threads", a->n_threads);
    if (s == STATUS_OK)
        s = model_open(b->files, &options, &b->model, err);
    for (uint32_t i = 0; i < a->n_adapters && s == STATUS_OK; i++) {
        s = load_adapter(a->adapters[i], b, i, err);
        loras[i] = s == STATUS_OK ? b->versions[i]->lora : NULL;
    }
    return s == STATUS_OK ? lora_compose(loras, b->weights, a->n_adapters, &b->lora, err) : s;
}

static void close_all(struct opened_base *b)
{
    lora_release(b->lora);
    for (uint32_t i = 0; i < LORA_MEMBERS_MAX; i++)
        adapter_release(b->versions[i]);
    model_close(b->model);
    team_destroy(b->team);
    model_files_close(b->files);
}

static void print_report(const struct arguments *a, const struct merge_folder_report *r)
{
    printf("%-14s %u matrices changed, by a norm of %.4g\n", "merged", r->n_matrices, r->delta_norm);
    printf("%-14s rounding to the files' types took a norm of %.3g, over all tensors\n", "error",
           r->error_norm);
    printf("%-14s %u tensors, %" PRIu64 " bytes, %u file%s\n", "tensors", r->n_tensors, r->n_bytes,
           r->n_files, r->n_files == 1 ? "" : "s");
    if (r->untied)
        printf("%-14s the head is a matrix of its own now (tie_word_embeddings: false)\n", "config.json");
    if (r->biases)
        printf("%-14s modules have biases now (attention_bias, mlp_bias)\n", "config.json");
    printf("%-14s %s\n", "written", a->out);
}

/* False: said on standard error. */
static bool set_option(struct arguments *a, int o)
{
    if (o == 'm')
        a->model = optarg;
    else if (o == 'l')
        a->like = optarg;
    else if (o == 't' && !tool_float_type(optarg, &a->type))
        fprintf(stderr, "lorikeet: --type: found \"%s\", expected f32, f16 or bf16\n", optarg);
    else if (o == 'n' && !tool_count(optarg, THREADS_MAX, &a->n_threads))
        fprintf(stderr, "lorikeet: --threads: found \"%s\", expected 1 to %lu\n", optarg, THREADS_MAX);
    else if (o == 's' && !tool_count(optarg, SHARD_MB_MAX, &a->shard_mb))
        fprintf(stderr, "lorikeet: --shard-mb: found \"%s\", expected 1 to %lu\n", optarg, SHARD_MB_MAX);
    else
        return true;
    return o == 'm' || o == 'l';
}

/* -1: go on; else an exit code. */
static int read_args(struct arguments *a, int argc, char **argv)
{
    static const struct option options[] = {{"model", required_argument, NULL, 'm'},
                                            {"type", required_argument, NULL, 't'},
                                            {"like", required_argument, NULL, 'l'},
                                            {"shard-mb", required_argument, NULL, 's'},
                                            {"threads", required_argument, NULL, 'n'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int o;
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o == 'h' || o == '?')
            return o == 'h' ? usage(stdout, 0) : usage(stderr, 2);
        if (!set_option(a, o))
            return 2;
    }
    int n = argc - optind;
    if (n < 2 || !a->model)
        return usage(stderr, 2);
    if (n - 1 > (int)LORA_MEMBERS_MAX) {
        fprintf(stderr, "lorikeet: %d adapters, expected at most %u\n", n - 1, LORA_MEMBERS_MAX);
        return 2;
    }
    a->adapters = argv + optind;
    a->n_adapters = (uint32_t)n - 1;
    a->out = argv[argc - 1];
    return -1;
}

int cmd_merge(int argc, char **argv)
{
    struct arguments a = {.type = DTYPE_COUNT};
    struct opened_base b = {.files = NULL};
    struct merge_folder_report report;
    struct error err;
    int code = read_args(&a, argc, argv);
    if (code >= 0)
        return code;
    tool_hold_signals();
    code = 0;
    enum status s = load_all(&a, &b, &err);
    struct merge_options o = {.base = b.model,
                              .files = b.files,
                              .lora = b.lora,
                              .type = a.type,
                              .shard_bytes = a.shard_mb * 1000000,
                              .like = a.like,
                              .team = b.team,
                              .stop = tool_stopped};
    if (s == STATUS_OK)
        s = adapter_merge_folder(a.out, &o, &report, &err);
    if (s == STATUS_OK)
        print_report(&a, &report);
    else
        code = tool_fail(&err);
    close_all(&b);
    tool_release_signals();
    return code;
}
