/* What an adapter's products are made of: norms and singular values, module by module, from its files alone.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernels.h"
#include "loader.h"
#include "rank.h"
#include "rank_tools.h"
#include "sidecar.h"

/* ---- products ---- */

static enum status take_floats(const struct matrix *m, uint32_t expert, uint32_t n, const float **out,
                               struct error *err)
{
    size_t n_values = (size_t)(m->rows / n) * m->cols;
    size_t begin = (size_t)expert * n_values * dtype_info(m->type)->block_bytes;
    float *values = mem_array(n_values, sizeof *values);
    if (!values)
        return fail(err, STATUS_NO_MEMORY, "no memory for %zu values", n_values);
    dequantize_row(m->type, (const char *)m->data + begin, n_values, values);
    *out = values;
    return STATUS_OK;
}

enum status rank_product_init(const struct file_pair *p, uint32_t expert, struct low_rank *out,
                              struct error *err)
{
    *out = (struct low_rank){
        .out = p->b.rows / p->n, .in = p->a.cols, .rank = p->rank, .scale = (double)p->scale};
    if (out->out > INT32_MAX || out->in > INT32_MAX)
        return fail(err, STATUS_TOO_LARGE, "%s: [%u, %u] is larger than can be decomposed", p->path, out->out,
                    out->in);
    enum status s = take_floats(&p->a, expert, p->n, &out->a, err);
    return s == STATUS_OK ? take_floats(&p->b, expert, p->n, &out->b, err) : s;
}

void rank_product_fini(struct low_rank *x)
{
    mem_free((void *)(uintptr_t)x->a);
    mem_free((void *)(uintptr_t)x->b);
    *x = (struct low_rank){0};
}

uint32_t rank_for_energy(const double *sigma, uint32_t n, double energy)
{
    double total = 0, left = 0;
    for (uint32_t i = 0; i < n; i++)
        total += sigma[i] * sigma[i];
    double allowed = (1 - energy) * total;
    if (allowed < total * 0x1p-48)
        allowed = total * 0x1p-48;
    while (n > 0 && left + sigma[n - 1] * sigma[n - 1] <= allowed) {
        left += sigma[n - 1] * sigma[n - 1];
        n--;
    }
    return n;
}

/* ---- the report ---- */

struct making {
    struct rank_report report; /* first: what the caller holds */
    struct arena *arena;
    struct rank_part *parts;
};

/* "q_proj" of "model.layers.0.self_attn.q_proj"; a parameter's own ".weight" says nothing. */
static const char *kind_of(struct arena *arena, const char *path)
{
    static const char weight[] = ".weight";
    size_t n = strlen(path), m = sizeof weight - 1;
    if (n > m && strcmp(path + n - m, weight) == 0)
        n -= m;
    size_t begin = n;
    while (begin > 0 && path[begin - 1] != '.')
        begin--;
    return arena_strndup(arena, path + begin, n - begin);
}

static enum status measure(struct making *m, const struct file_pair *p, struct rank_part *part,
                           struct error *err)
{
    struct low_rank x;
    struct low_rank_svd svd = {0};
    enum status s = rank_product_init(p, part->expert < 0 ? 0 : (uint32_t)part->expert, &x, err);
    if (s == STATUS_OK)
        s = low_rank_svd(&x, false, &svd, err);
    double *sigma = s == STATUS_OK ? arena_array(m->arena, svd.n, sizeof *sigma) : NULL;
    if (s == STATUS_OK && !sigma)
        s = fail(err, STATUS_NO_MEMORY, "no memory for the singular values");
    if (s == STATUS_OK) {
        memcpy(sigma, svd.sigma, svd.n * sizeof *sigma);
        part->sigma = sigma;
        part->n_sigma = svd.n;
        for (uint32_t i = 0; i < svd.n; i++)
            part->norm += sigma[i] * sigma[i];
        part->norm = sqrt(part->norm);
        part->rank_kept = rank_for_energy(sigma, svd.n, RANK_ENERGY);
    }
    low_rank_svd_fini(&svd);
    rank_product_fini(&x);
    return s;
}

static enum status add_pair(struct making *m, const struct file_pair *p, struct error *err)
{
    enum status s = STATUS_OK;
    const char *module = arena_strdup(m->arena, p->path), *kind = kind_of(m->arena, p->path);
    if (!module || !kind)
        return fail(err, STATUS_NO_MEMORY, "no memory for the report");
    for (uint32_t e = 0; e < p->n && s == STATUS_OK; e++) {
        struct rank_part *part = &m->parts[m->report.n_parts++];
        uint64_t out = p->b.rows / p->n, in = p->a.cols;
        *part = (struct rank_part){.module = module,
                                   .kind = kind,
                                   .expert = p->kind == FILE_PAIR_EXPERTS ? (int32_t)e : -1,
                                   .out = (uint32_t)out,
                                   .in = (uint32_t)in,
                                   .rank = p->rank,
                                   .scale = (double)p->scale,
                                   .n_parameters = p->rank * (in + out),
                                   .n_full = in * out,
                                   .dora = p->magnitude != NULL};
        s = measure(m, p, part, err);
    }
    return s;
}

static void count_others(const struct content *c, struct rank_others *o)
{
    for (size_t i = 0; i < c->n_entries; i++) {
        const struct tensor *const *part = c->entries[i].part;
        o->n_weights += part[PART_WEIGHT] || part[PART_WEIGHT_AGAIN];
        o->n_biases += part[PART_BIAS] || part[PART_BIAS_AGAIN];
        o->n_token_rows += part[PART_ROWS] != NULL;
        o->n_magnitudes += part[PART_MAGNITUDE] != NULL;
        o->n_lora_biases += part[PART_B_BIAS] != NULL;
    }
}

static enum status fill(struct making *m, const struct content *c, struct error *err)
{
    uint64_t n = 0;
    for (size_t i = 0; i < c->n_file_pairs; i++)
        n += c->file_pairs[i].n;
    m->parts = arena_array(m->arena, n ? n : 1, sizeof *m->parts);
    m->report.parts = m->parts;
    enum status s = m->parts ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "no memory for the report");
    for (size_t i = 0; i < c->n_file_pairs && s == STATUS_OK; i++)
        s = add_pair(m, &c->file_pairs[i], err);
    count_others(c, &m->report.others);
    return s;
}

enum status rank_report_create(const char *path, struct rank_report **out, struct error *err)
{
    struct loading l;
    struct adapter_source source = {.name = "inspected", .path = path, .root_fd = -1, .scale = 1};
    *out = NULL;
    struct making *m = mem_zalloc(sizeof *m);
    if (!m || !(m->arena = arena_create(0))) {
        mem_free(m);
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", path);
    }
    enum status s = loading_begin(&l, &source, NULL, &m->report.about, err);
    if (s == STATUS_OK)
        s = sidecars_look(&l.place, &m->report.about, err);
    if (s == STATUS_OK) {
        s = fill(m, l.content, err);
        s = s == STATUS_OK ? s : fail_within(err, "%s", path);
    }
    loading_end(&l);
    *out = &m->report;
    if (s != STATUS_OK) {
        rank_report_destroy(*out);
        *out = NULL;
    }
    return s;
}

void rank_report_destroy(struct rank_report *r)
{
    struct making *m = (struct making *)(void *)r;
    if (!m)
        return;
    arena_destroy(m->arena);
    mem_free(m);
}
