/* An adapter, for people and as JSON: what it is made of, and module by module its low-rank numbers
 * (rank_tools.h). Experts of one module share a line for people; JSON has each. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "inspect.h"
#include "rank_tools.h"

#define SIGMA_SHOWN 8U
#define KINDS_MAX 64U

/* Sums over parts: of a module with experts, of a kind, of all. */
struct sum {
    const char *name;
    uint64_t n_parts, n_modules, n_parameters, n_full;
    double squares; /* of norms */
    uint32_t rank_min, rank_max, kept_max;
};

static void sum_add(struct sum *s, const struct rank_part *p)
{
    s->n_modules += p->expert <= 0;
    s->n_parameters += p->n_parameters;
    s->n_full += p->n_full;
    s->squares += p->norm * p->norm;
    s->rank_min = s->n_parts == 0 || p->rank < s->rank_min ? p->rank : s->rank_min;
    s->rank_max = p->rank > s->rank_max ? p->rank : s->rank_max;
    s->kept_max = p->rank_kept > s->kept_max ? p->rank_kept : s->kept_max;
    s->n_parts++;
}

/* Kinds in order of appearance; those beyond KINDS_MAX share the last row, which no real adapter reaches. */
static size_t sum_kinds(const struct rank_report *r, struct sum kinds[KINDS_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < r->n_parts; i++) {
        size_t k = 0;
        while (k < n && strcmp(kinds[k].name, r->parts[i].kind) != 0)
            k++;
        if (k == KINDS_MAX)
            kinds[--k].name = "(others)";
        if (k == n)
            kinds[n++] = (struct sum){.name = r->parts[i].kind};
        sum_add(&kinds[k], &r->parts[i]);
    }
    return n;
}

static struct sum sum_all(const struct rank_report *r)
{
    struct sum all = {.name = "all"};
    for (size_t i = 0; i < r->n_parts; i++)
        sum_add(&all, &r->parts[i]);
    return all;
}

/* ---- for people ---- */

static void print_about(const struct adapter_report *r)
{
    printf("%-14s adapter (%s)\n", "kind", r->format);
    printf("%-14s %s\n", "made of", r->kinds);
    printf("%-14s %s\n", "base model", r->base_model[0] ? r->base_model : "(not said)");
    if (r->base.stamped)
        printf("%-14s %s\n", "stamp", r->base.how);
    if (r->rank_min == r->rank_max)
        printf("%-14s %u\n", "rank", r->rank_max);
    else
        printf("%-14s %u to %u\n", "rank", r->rank_min, r->rank_max);
    printf("%-14s %g%s\n", "alpha", r->alpha, r->rslora ? " (rank-stabilised: alpha / sqrt(rank))" : "");
    printf("%-14s %u: %s\n", "modules", r->n_modules, r->modules);
    printf("%-14s %" PRIu64 "\n", "parameters", r->n_parameters);
    inspect_print_bytes("bytes", r->file_bytes);
}

static void print_others(const struct rank_others *o)
{
    const struct {
        uint32_t n;
        const char *what;
    } rows[] = {{o->n_magnitudes, "DoRA magnitude vectors (the numbers are those of s BA alone)"},
                {o->n_lora_biases, "biases of lora_B"},
                {o->n_biases, "trained biases"},
                {o->n_weights, "whole tensors of modules_to_save"},
                {o->n_token_rows, "tables of trained token rows"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].n)
            printf("%-14s %u %s\n", "not shown", rows[i].n, rows[i].what);
}

static void print_sigma(const struct rank_part *p)
{
    for (uint32_t i = 0; i < p->n_sigma && i < SIGMA_SHOWN; i++)
        printf(" %.3g", p->sigma[i]);
    printf("%s\n", p->n_sigma > SIGMA_SHOWN ? " ..." : "");
}

/* "1280x1280", "8 x 1280x1280" for experts */
static void show_shape(char *dst, size_t dst_bytes, const struct rank_part *p, size_t n)
{
    if (p->expert < 0)
        snprintf(dst, dst_bytes, "%ux%u", p->out, p->in);
    else
        snprintf(dst, dst_bytes, "%zu x %ux%u", n, p->out, p->in);
}

/* The line of a module: n parts. */
static void print_module(const struct rank_part *p, size_t n, int width)
{
    struct sum s = {0};
    char shape[48];
    for (size_t i = 0; i < n; i++)
        sum_add(&s, &p[i]);
    show_shape(shape, sizeof shape, p, n);
    printf("%-*s  %15s %5u %10" PRIu64 " %12" PRIu64 " %9.4g %4u ", width, p->module, shape, p->rank,
           s.n_parameters, s.n_full, sqrt(s.squares), s.kept_max);
    if (p->expert < 0)
        print_sigma(p);
    else
        printf(" (of each expert: --json)\n");
}

static void print_modules(const struct rank_report *r)
{
    int width = 6;
    for (size_t i = 0; i < r->n_parts; i++)
        width = (int)strlen(r->parts[i].module) > width ? (int)strlen(r->parts[i].module) : width;
    printf("\n%-*s  %15s %5s %10s %12s %9s %4s  %s\n", width, "module", "shape", "rank", "parameters",
           "of matrix", "|s BA|", "99%", "singular values of s BA");
    for (size_t i = 0, n = 1; i < r->n_parts; i += n) {
        for (n = 1; i + n < r->n_parts && r->parts[i + n].expert > 0; n++)
            ;
        print_module(&r->parts[i], n, width);
    }
}

static void print_sum(const struct sum *s)
{
    char ranks[32];
    snprintf(ranks, sizeof ranks, s->rank_min == s->rank_max ? "%u" : "%u-%u", s->rank_min, s->rank_max);
    printf("%-16s %8" PRIu64 " %8s %12" PRIu64 " %14" PRIu64 " %7.3f %9.4g %4u\n", s->name, s->n_modules,
           ranks, s->n_parameters, s->n_full,
           s->n_full ? 100 * (double)s->n_parameters / (double)s->n_full : 0, sqrt(s->squares), s->kept_max);
}

static void print_sums(const struct rank_report *r)
{
    struct sum kinds[KINDS_MAX], all = sum_all(r);
    size_t n = sum_kinds(r, kinds);
    printf("\n%-16s %8s %8s %12s %14s %7s %9s %4s\n", "kind", "modules", "rank", "parameters", "of matrices",
           "%", "|s BA|", "99%");
    for (size_t i = 0; i < n; i++)
        print_sum(&kinds[i]);
    print_sum(&all);
    printf("99%%: the rank that keeps 99 %% of the sum of squared singular values; the largest of the "
           "modules.\n");
}

/* ---- as JSON ---- */

static json_t *json_words(const char *list)
{
    json_t *words = json_array();
    for (size_t n; *list; list += n + (list[n] == ' ')) {
        n = strcspn(list, " ");
        json_array_append_new(words, json_stringn(list, n));
    }
    return words;
}

/* A text that was cut to its buffer may end inside a character. */
static json_t *json_text(const char *text)
{
    size_t n = strlen(text);
    json_t *v = json_stringn(text, n);
    while (!v && n > 0)
        v = json_stringn(text, --n);
    return v;
}

static json_t *json_about(const struct adapter_report *r)
{
    return json_pack("{s:s, s:s, s:o, s:o, s:I, s:I, s:f, s:b, s:I, s:I, s:I}", "kind", "adapter", "format",
                     r->format, "made_of", json_words(r->kinds), "base_model", json_text(r->base_model),
                     "rank_min", (json_int_t)r->rank_min, "rank_max", (json_int_t)r->rank_max, "alpha",
                     r->alpha, "rslora", (int)r->rslora, "n_modules", (json_int_t)r->n_modules,
                     "n_parameters", (json_int_t)r->n_parameters, "file_bytes", (json_int_t)r->file_bytes);
}

static json_t *json_part(const struct rank_part *p)
{
    json_t *sigma = json_array();
    for (uint32_t i = 0; i < p->n_sigma; i++)
        json_array_append_new(sigma, json_real(p->sigma[i]));
    return json_pack("{s:s, s:s, s:o, s:I, s:I, s:I, s:f, s:I, s:I, s:f, s:I, s:b, s:o}", "module", p->module,
                     "kind", p->kind, "expert", p->expert < 0 ? json_null() : json_integer(p->expert), "out",
                     (json_int_t)p->out, "in", (json_int_t)p->in, "rank", (json_int_t)p->rank, "scale",
                     p->scale, "n_parameters", (json_int_t)p->n_parameters, "n_full", (json_int_t)p->n_full,
                     "norm", p->norm, "rank_99", (json_int_t)p->rank_kept, "dora", (int)p->dora,
                     "singular_values", sigma);
}

static json_t *json_sum(const struct sum *s)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:I}", "kind", s->name, "n_modules",
                     (json_int_t)s->n_modules, "rank_min", (json_int_t)s->rank_min, "rank_max",
                     (json_int_t)s->rank_max, "n_parameters", (json_int_t)s->n_parameters, "n_full",
                     (json_int_t)s->n_full, "norm", sqrt(s->squares), "rank_99", (json_int_t)s->kept_max);
}

static json_t *json_report(const struct rank_report *r)
{
    json_t *o = json_about(&r->about), *modules = json_array(), *kinds = json_array();
    struct sum sums[KINDS_MAX], all = sum_all(r);
    size_t n = sum_kinds(r, sums);
    for (size_t i = 0; i < r->n_parts; i++)
        json_array_append_new(modules, json_part(&r->parts[i]));
    for (size_t i = 0; i < n; i++)
        json_array_append_new(kinds, json_sum(&sums[i]));
    json_object_set_new(o, "stamp", r->about.base.stamped ? json_text(r->about.base.how) : json_null());
    json_object_set_new(o, "modules", modules);
    json_object_set_new(o, "kinds", kinds);
    json_object_set_new(o, "total", json_sum(&all));
    json_object_set_new(o, "not_shown",
                        json_pack("{s:I, s:I, s:I, s:I, s:I}", "magnitudes",
                                  (json_int_t)r->others.n_magnitudes, "lora_biases",
                                  (json_int_t)r->others.n_lora_biases, "biases",
                                  (json_int_t)r->others.n_biases, "weights", (json_int_t)r->others.n_weights,
                                  "token_rows", (json_int_t)r->others.n_token_rows));
    return o;
}

int inspect_adapter(const char *path, bool json)
{
    struct rank_report *r;
    struct error err;
    if (rank_report_create(path, &r, &err) != STATUS_OK) {
        fprintf(stderr, "lorikeet: %s\n", err.text);
        return 1;
    }
    int code = 0;
    if (json) {
        code = inspect_print_json(json_report(r)) ? 0 : 1;
    } else {
        print_about(&r->about);
        print_others(&r->others);
        if (r->n_parts) {
            print_modules(r);
            print_sums(r);
        }
    }
    rank_report_destroy(r);
    return code;
}
