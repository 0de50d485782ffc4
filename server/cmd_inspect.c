/* `lorikeet inspect PATH`: what a base or an adapter is, and what of it would not load. Of a base only
 * headers are read; an adapter's numbers are looked at in inspect_adapter.c. */
#include "cmd.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters.h"
#include "format.h"
#include "inspect.h"
#include "model.h"

void inspect_print_bytes(const char *label, uint64_t n)
{
    if (n >= 10000000)
        printf("%-14s %" PRIu64 " (%.1f MB)\n", label, n, (double)n / 1e6);
    else
        printf("%-14s %" PRIu64 "\n", label, n);
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
    inspect_print_bytes("bytes", total);
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

static void print_base(const struct model_files *files)
{
    const char *key;
    char value[100];
    printf("%-14s base (%s)\n", "kind", files->gguf ? "GGUF" : "Hugging Face folder");
    print_config(&files->config);
    print_types(files->tensors);
    for (size_t i = 0; files->gguf && gguf_describe(files->gguf, i, &key, value, sizeof value); i++)
        printf("  %s = %s\n", key, value);
}

static json_t *json_types(const struct tensors *tensors)
{
    json_t *types = json_object();
    for (int type = 0; type < DTYPE_COUNT; type++) {
        json_int_t n = 0, bytes = 0;
        for (size_t i = 0; i < tensors_count(tensors); i++) {
            const struct tensor *t = tensors_at(tensors, i);
            n += t->dtype == (enum dtype)type;
            bytes += t->dtype == (enum dtype)type ? (json_int_t)t->size_bytes : 0;
        }
        if (n)
            json_object_set_new(types, dtype_name((enum dtype)type),
                                json_pack("{s:I, s:I}", "tensors", n, "bytes", bytes));
    }
    return types;
}

static json_t *json_base(const struct model_files *files)
{
    const struct model_config *c = &files->config;
    json_int_t n_values = 0;
    for (size_t i = 0; i < tensors_count(files->tensors); i++)
        n_values += (json_int_t)tensors_at(files->tensors, i)->n_values;
    json_t *o = json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:o}", "kind", "base",
        "format", files->gguf ? "gguf" : "huggingface", "family", c->model_type, "name", c->name, "n_layers",
        (json_int_t)c->n_layers, "hidden_size", (json_int_t)c->hidden_size, "intermediate_size",
        (json_int_t)c->intermediate_size, "n_heads", (json_int_t)c->n_heads, "n_kv_heads",
        (json_int_t)c->n_kv_heads, "head_dim", (json_int_t)c->head_dim, "vocab_size",
        (json_int_t)c->vocab_size, "max_position", (json_int_t)c->max_position, "tie_word_embeddings",
        (int)c->tie_word_embeddings, "n_parameters", n_values, "types", json_types(files->tensors));
    if (c->n_experts)
        json_object_set_new(o, "n_experts", json_integer(c->n_experts));
    return o;
}

static int inspect_base(const char *path, bool json)
{
    struct model_files *files = NULL;
    struct error err;
    if (model_files_open(path, &files, &err) != STATUS_OK) {
        fprintf(stderr, "lorikeet: %s\n", err.text);
        return 1;
    }
    int code = model_check(files, &err) == STATUS_OK ? 0 : 1;
    if (json) {
        json_t *o = json_base(files);
        json_object_set_new(o, "would_not_load", code ? json_string(err.text) : json_null());
        code = inspect_print_json(o) ? code : 1;
    } else {
        print_base(files);
        if (code)
            printf("%-14s %s\n", "would not load", err.text);
    }
    model_files_close(files);
    return code;
}

bool inspect_print_json(json_t *o)
{
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    if (text)
        puts(text);
    else
        fprintf(stderr, "lorikeet: no memory for the JSON\n");
    free(text);
    json_decref(o);
    return text != NULL;
}

static int usage(FILE *to, int code)
{
    fprintf(to,
            "usage: lorikeet inspect PATH [--json]    (a model or adapter: folder or .gguf)\n"
            "An adapter is shown module by module: its parameters against the full matrix's, the norm and "
            "the\nsingular values of scale * B A, and the rank that keeps 99 %% of their energy.\n");
    return code;
}

int cmd_inspect(int argc, char **argv)
{
    const char *path = NULL;
    bool json = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0)
            return usage(stdout, 0);
        if (strcmp(argv[i], "--json") == 0)
            json = true;
        else if (argv[i][0] == '-' || path)
            return usage(stderr, 2);
        else
            path = argv[i];
    }
    if (!path)
        return usage(stderr, 2);
    return adapter_is_at(path) ? inspect_adapter(path, json) : inspect_base(path, json);
}
