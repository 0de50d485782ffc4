/* `lorikeet shrink ADAPTER OUT`: a smaller adapter, and what that cost (rank_tools.h does the work). */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "inspect.h"
#include "rank_tools.h"
#include "tool.h"

#define RANK_MAX 4096UL

static int usage(FILE *to, int code)
{
    fprintf(
        to,
        "usage: lorikeet shrink ADAPTER OUT --rank R | --energy E [options]\n"
        "  --rank R         every module gets at most this rank\n"
        "  --energy E       each module keeps the least rank with this share of its energy, the sum of\n"
        "                   squared singular values: 0.99; 1 keeps the product as it is\n"
        "  --type TYPE      of the new A and B: f32, f16, bf16 (as the file has them;\n"
        "                   f32 with --energy 1)\n"
        "  --json           the result as JSON\n"
        "ADAPTER is a PEFT folder; OUT is a new one, which must not exist. docs/TOOLS.md has an example.\n");
    return code;
}

static double relative(double error, double norm)
{
    return norm > 0 ? error / norm : 0;
}

static void print_report(const struct shrink_report *r, const char *out)
{
    int width = 6;
    for (size_t i = 0; i < r->n_parts; i++)
        width = (int)strlen(r->parts[i].module) > width ? (int)strlen(r->parts[i].module) : width;
    printf("%-*s  %11s %10s %10s\n", width, "module", "rank", "|s BA|", "error");
    for (size_t i = 0; i < r->n_parts; i++) {
        const struct shrink_part *p = &r->parts[i];
        char ranks[32];
        snprintf(ranks, sizeof ranks, "%u -> %u", p->rank_before, p->rank_after);
        printf("%-*s  %11s %10.4g %9.2e\n", width, p->module, ranks, p->norm, relative(p->error, p->norm));
    }
    printf("\n%-14s %" PRIu64 " -> %" PRIu64 " (%.1f %%)\n", "parameters", r->n_before, r->n_after,
           100 * (double)r->n_after / (double)r->n_before);
    printf("%-14s %" PRIu64 " -> %" PRIu64 "\n", "bytes", r->bytes_before, r->bytes_after);
    printf("%-14s %.3e of the norm %.4g, over all modules (Frobenius)\n", "error",
           relative(r->error, r->norm), r->norm);
    if (r->n_kept)
        printf("%-14s %u other tensors as they were\n", "kept", r->n_kept);
    if (r->dora)
        printf("%-14s the magnitudes stay; the errors are those of s BA, which they multiply\n", "DoRA");
    printf("%-14s %s\n", "written", out);
}

static json_t *json_report(const struct shrink_report *r, const char *out)
{
    json_t *parts = json_array();
    for (size_t i = 0; i < r->n_parts; i++) {
        const struct shrink_part *p = &r->parts[i];
        json_array_append_new(parts,
                              json_pack("{s:s, s:I, s:I, s:f, s:f}", "module", p->module, "rank_before",
                                        (json_int_t)p->rank_before, "rank_after", (json_int_t)p->rank_after,
                                        "norm", p->norm, "relative_error", relative(p->error, p->norm)));
    }
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:b, s:o}", "written", out, "n_before",
                     (json_int_t)r->n_before, "n_after", (json_int_t)r->n_after, "bytes_before",
                     (json_int_t)r->bytes_before, "bytes_after", (json_int_t)r->bytes_after, "norm", r->norm,
                     "relative_error", relative(r->error, r->norm), "n_kept", (json_int_t)r->n_kept, "dora",
                     (int)r->dora, "modules", parts);
}

struct arguments {
    struct shrink_options options;
    bool json, help;
};

/* False: said on standard error. */
static bool set_option(struct arguments *a, int o)
{
    unsigned long rank;
    char *end;
    if (o == 'r' && tool_count(optarg, RANK_MAX, &rank)) {
        a->options.rank = (uint32_t)rank;
        return true;
    }
    if (o == 'r') {
        fprintf(stderr, "lorikeet: --rank: found \"%s\", expected a whole number from 1 to %lu\n", optarg,
                RANK_MAX);
        return false;
    }
    if (o == 'e') {
        a->options.energy = strtod(optarg, &end);
        if (end != optarg && *end == '\0' && a->options.energy > 0 && a->options.energy <= 1)
            return true;
        fprintf(stderr, "lorikeet: --energy: found \"%s\", expected a number above 0, up to 1\n", optarg);
        return false;
    }
    if (o == 't' && !tool_float_type(optarg, &a->options.type)) {
        fprintf(stderr, "lorikeet: --type: found \"%s\", expected f32, f16 or bf16\n", optarg);
        return false;
    }
    a->json = a->json || o == 'j';
    a->help = a->help || o == 'h';
    return o != '?';
}

int cmd_shrink(int argc, char **argv)
{
    static const struct option options[] = {
        {"rank", required_argument, NULL, 'r'}, {"energy", required_argument, NULL, 'e'},
        {"type", required_argument, NULL, 't'}, {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},       {0}};
    struct arguments a = {.options = {.type = DTYPE_COUNT, .stop = tool_stopped}};
    struct shrink_report *r;
    struct error err;
    int o;
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (!set_option(&a, o))
            return 2;
    if (a.help)
        return usage(stdout, 0);
    if (argc - optind != 2 || (a.options.rank != 0) == (a.options.energy > 0))
        return usage(stderr, 2);
    const char *from = argv[optind], *out = argv[optind + 1];
    tool_hold_signals();
    enum status s = adapter_shrink(from, out, &a.options, &r, &err);
    int code = 0;
    if (s != STATUS_OK)
        code = tool_fail(&err);
    else if (a.json)
        code = inspect_print_json(json_report(r, out)) ? 0 : 1;
    else
        print_report(r, out);
    shrink_report_destroy(r);
    tool_release_signals();
    return code;
}
