/* `lorikeet convert ADAPTER OUT`: between a PEFT folder and a GGUF LoRA file (rank_tools.h does the work). */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cmd.h"
#include "format.h"
#include "model.h"
#include "rank_tools.h"
#include "tool.h"

struct arguments {
    const char *from, *out, *to, *model;
    char named_model[sizeof((struct adapter_report *)0)->base_model]; /* by the adapter */
    struct convert_options options;
};

static int usage(FILE *to, int code)
{
    fprintf(to, "usage: lorikeet convert ADAPTER OUT [--to peft|gguf] [--model BASE] [--type f32|f16|bf16]\n"
                "  --to FORMAT      peft: a folder; gguf: a file (the other one of what ADAPTER is; MLX "
                "becomes PEFT)\n"
                "  --model BASE     the model that the adapter is for; without it the path in the adapter's\n"
                "                   base_model_name_or_path, if it is one here. Its weights are not read\n"
                "  --type TYPE      of A and B (as they are; f32 where a scale must be folded in)\n"
                "OUT must not exist. docs/TOOLS.md has an example and says what GGUF can't hold.\n");
    return code;
}

static enum status choose_format(struct arguments *a, const struct adapter_report *about, struct error *err)
{
    if (a->to && strcmp(a->to, "gguf") != 0 && strcmp(a->to, "peft") != 0)
        return fail(err, STATUS_INVALID, "--to: found \"%s\", expected peft or gguf", a->to);
    a->options.to_gguf = a->to ? strcmp(a->to, "gguf") == 0 : strcmp(about->format, "peft") == 0;
    if (a->model)
        return STATUS_OK;
    if (path_is_folder(about->base_model) || file_exists(about->base_model)) {
        snprintf(a->named_model, sizeof a->named_model, "%s", about->base_model);
        a->model = a->named_model;
        return STATUS_OK;
    }
    return fail(
        err, STATUS_INVALID,
        "%s: --model BASE is needed: names, shapes and the order of rows come from the model that the "
        "adapter is for ('%s' is no path here)",
        a->from, about->base_model[0] ? about->base_model : "its base model's name");
}

static enum status convert(struct arguments *a, struct convert_report *report, struct error *err)
{
    struct adapter_report about;
    struct model_files *files = NULL;
    struct model *base = NULL;
    enum status s = adapter_inspect(a->from, &about, err);
    if (s == STATUS_OK)
        s = choose_format(a, &about, err);
    if (s == STATUS_OK)
        s = model_files_open(a->model, &files, err);
    if (s == STATUS_OK)
        s = model_describe(files, &base, err);
    a->options.base = base;
    if (s == STATUS_OK)
        s = adapter_convert(a->from, a->out, &a->options, report, err);
    model_close(base);
    model_files_close(files);
    return s;
}

static void print_report(const struct arguments *a, const struct convert_report *r)
{
    const struct adapter_report *from = &r->from;
    printf("%-14s %s: %s, rank %u", "from", from->format, from->kinds, from->rank_min);
    if (from->rank_max != from->rank_min)
        printf(" to %u", from->rank_max);
    printf("\n%-14s %s: %u pairs of tensors, alpha %g\n", "to", a->options.to_gguf ? "gguf" : "peft",
           r->n_products, r->alpha);
    if (r->n_folded)
        printf("%-14s %u pairs whose scale is not alpha / rank: it is in their B now\n", "folded",
               r->n_folded);
    printf("%-14s %s\n", "written", a->out);
}

/* -1: go on; else an exit code. */
static int read_args(struct arguments *a, int argc, char **argv)
{
    static const struct option options[] = {{"to", required_argument, NULL, 'f'},
                                            {"model", required_argument, NULL, 'm'},
                                            {"type", required_argument, NULL, 't'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int o;
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o == 'f')
            a->to = optarg;
        else if (o == 'm')
            a->model = optarg;
        else if (o != 't')
            return o == 'h' ? usage(stdout, 0) : usage(stderr, 2);
        else if (!tool_float_type(optarg, &a->options.type)) {
            fprintf(stderr, "lorikeet: --type: found \"%s\", expected f32, f16 or bf16\n", optarg);
            return 2;
        }
    }
    if (argc - optind != 2)
        return usage(stderr, 2);
    a->from = argv[optind];
    a->out = argv[optind + 1];
    return -1;
}

int cmd_convert(int argc, char **argv)
{
    struct arguments a = {.options = {.type = DTYPE_COUNT, .stop = tool_stopped}};
    struct convert_report report;
    struct error err;
    int code = read_args(&a, argc, argv);
    if (code >= 0)
        return code;
    tool_hold_signals();
    code = 0;
    if (convert(&a, &report, &err) == STATUS_OK)
        print_report(&a, &report);
    else
        code = tool_fail(&err);
    tool_release_signals();
    return code;
}
