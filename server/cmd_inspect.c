/* `lorikeet inspect PATH`: what a base or an adapter is, and what of it would not load. Reads headers only.
 */
#include "cmd.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "adapters.h"
#include "format.h"
#include "model.h"

static void print_bytes(const char *label, uint64_t n)
{
    if (n >= 10000000)
        printf("%-14s %" PRIu64 " (%.1f MB)\n", label, n, (double)n / 1e6);
    else
        printf("%-14s %" PRIu64 "\n", label, n);
}

static int inspect_adapter(const char *path)
{
    struct adapter_report r;
    struct error err;
    if (adapter_inspect(path, &r, &err) != STATUS_OK) {
        fprintf(stderr, "lorikeet: %s\n", err.text);
        return 1;
    }
    printf("%-14s adapter (%s)\n", "kind", r.format);
    printf("%-14s %s\n", "made of", r.kinds);
    printf("%-14s %s\n", "base model", r.base_model[0] ? r.base_model : "(not said)");
    if (r.rank_min == r.rank_max)
        printf("%-14s %u\n", "rank", r.rank_max);
    else
        printf("%-14s %u to %u\n", "rank", r.rank_min, r.rank_max);
    printf("%-14s %g%s\n", "alpha", r.alpha, r.rslora ? " (rank-stabilised: alpha / sqrt(rank))" : "");
    printf("%-14s %u: %s\n", "modules", r.n_modules, r.modules);
    printf("%-14s %" PRIu64 "\n", "parameters", r.n_parameters);
    print_bytes("bytes", r.file_bytes);
    return 0;
}

/* Counts of tensors and bytes by element type. */
static void print_types(const struct tensors *tensors)
{
    uint64_t n_tensors[DTYPE_COUNT] = {0}, bytes[DTYPE_COUNT] = {0}, n_values = 0, total = 0;
    for (size_t i = 0; i < tensors_count(tensors); i++) {
        const struct tensor *t = tensors_at(tensors, i);
        n_tensors[t->dtype]++;
        bytes[t->dtype] += t->size_bytes;
        n_values += t->n_values;
        total += t->size_bytes;
    }
    printf("%-14s %" PRIu64 "\n", "parameters", n_values);
    print_bytes("bytes", total);
    printf("%-14s", "tensors");
    for (int t = 0; t < DTYPE_COUNT; t++)
        if (n_tensors[t])
            printf(" %s: %" PRIu64 " (%.1f MB)", dtype_name((enum dtype)t), n_tensors[t],
                   (double)bytes[t] / 1e6);
    printf("\n");
}

static void print_config(const struct model_config *c)
{
    static const char *const ropes[] = {"default", "linear", "dynamic", "llama3", "yarn", "longrope"};
    printf("%-14s %s\n", "family", c->model_type);
    if (c->name[0])
        printf("%-14s %s\n", "name", c->name);
    printf("%-14s %u layers, hidden %u, feed-forward %u\n", "shape", c->n_layers, c->hidden_size,
           c->intermediate_size);
    printf("%-14s %u heads of %u, %u for keys and values\n", "attention", c->n_heads, c->head_dim,
           c->n_kv_heads);
    if (c->sliding_window)
        printf("%-14s %u tokens\n", "window", c->sliding_window);
    printf("%-14s %u tokens%s\n", "vocabulary", c->vocab_size, c->tie_word_embeddings ? ", head tied" : "");
    printf("%-14s %u tokens\n", "context", c->max_position);
    if (c->n_experts)
        printf("%-14s %u of width %u, %u for each token\n", "experts", c->n_experts,
               c->expert_intermediate_size, c->n_experts_used);
    if (strcmp(c->model_type, "gpt2") == 0) {
        printf("%-14s learned\n", "positions");
        return;
    }
    printf("%-14s theta %g, %s", "rope", c->rope.theta, ropes[c->rope.type]);
    if (c->rope.factor != 1.0)
        printf(" x %g", c->rope.factor);
    printf("\n");
}

static int inspect_base(const char *path)
{
    struct model_files *files = NULL;
    struct error err;
    if (model_files_open(path, &files, &err) != STATUS_OK) {
        fprintf(stderr, "lorikeet: %s\n", err.text);
        return 1;
    }
    printf("%-14s base (%s)\n", "kind", files->gguf ? "GGUF" : "Hugging Face folder");
    print_config(&files->config);
    print_types(files->tensors);
    const char *key;
    char value[100];
    for (size_t i = 0; files->gguf && gguf_describe(files->gguf, i, &key, value, sizeof value); i++)
        printf("  %s = %s\n", key, value);
    int code = 0;
    if (model_check(files, &err) != STATUS_OK) {
        printf("%-14s %s\n", "would not load", err.text);
        code = 1;
    }
    model_files_close(files);
    return code;
}

int cmd_inspect(int argc, char **argv)
{
    if (argc != 2 || argv[1][0] == '-') {
        fprintf(stderr, "usage: lorikeet inspect PATH    (a model or adapter: folder or .gguf)\n");
        return argc == 2 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
    }
    return adapter_is_at(argv[1]) ? inspect_adapter(argv[1]) : inspect_base(argv[1]);
}
