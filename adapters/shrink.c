/* A smaller adapter with the best products of lower rank. Two passes over the products: singular values
 * alone, which say the ranks, then the vectors, which become A and B. One module's doubles are in memory at a
 * time. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kernels.h"
#include "loader.h"
#include "outgoing.h"
#include "rank.h"
#include "rank_tools.h"

/* As many different ranks as a configuration may name modules for (peft_rules.c); beyond, all get the
 * largest. */
#define PATTERNS_MAX 2048U

struct shrinking {
    struct shrink_report report; /* first: what the caller holds */
    struct arena *arena;
    const struct shrink_options *options;
    struct content *c;
    struct shrink_part *parts; /* [n_file_pairs] */
    uint32_t common_rank;      /* the configuration's r */
    struct outgoing out;
};

static enum status no_memory(const struct shrinking *s, struct error *err)
{
    return fail(err, STATUS_NO_MEMORY, "%s: no memory", s->c->shown);
}

static enum status ask_to_stop(const struct shrinking *s, struct error *err)
{
    bool stop = s->options->stop && s->options->stop();
    return stop ? fail(err, STATUS_CANCELLED, "interrupted, nothing was kept") : STATUS_OK;
}

/* ---- ranks ---- */

static enum status choose_rank(struct shrinking *s, size_t i, struct error *err)
{
    const struct file_pair *p = &s->c->file_pairs[i];
    struct shrink_part *part = &s->parts[i];
    double squares = 0;
    enum status st = ask_to_stop(s, err);
    *part = (struct shrink_part){
        .module = arena_strdup(s->arena, p->path), .rank_before = p->rank, .rank_after = 1};
    if (!part->module)
        return no_memory(s, err);
    for (uint32_t e = 0; e < p->n && st == STATUS_OK; e++) {
        struct low_rank x;
        struct low_rank_svd svd = {0};
        st = rank_product_init(p, e, &x, err);
        if (st == STATUS_OK)
            st = low_rank_svd(&x, false, &svd, err);
        uint32_t k =
            s->options->rank ? s->options->rank : rank_for_energy(svd.sigma, svd.n, s->options->energy);
        k = k < svd.n ? k : svd.n;
        part->rank_after = k > part->rank_after ? k : part->rank_after;
        for (uint32_t r = 0; r < svd.n && st == STATUS_OK; r++)
            squares += svd.sigma[r] * svd.sigma[r];
        low_rank_svd_fini(&svd);
        rank_product_fini(&x);
    }
    part->norm = sqrt(squares);
    return st;
}

/* The rank that most modules have; the configuration says it once, and names the others. */
static void choose_common(struct shrinking *s)
{
    uint32_t count[ADAPTER_RANK_MAX + 1] = {0}, largest = 0, n = (uint32_t)s->c->n_file_pairs;
    for (size_t i = 0; i < n; i++) {
        uint32_t rank = s->parts[i].rank_after;
        largest = rank > largest ? rank : largest;
        count[rank]++;
    }
    for (uint32_t r = 1; r <= largest; r++)
        s->common_rank = count[r] > count[s->common_rank] || s->common_rank == 0 ? r : s->common_rank;
    if (n - count[s->common_rank] <= PATTERNS_MAX)
        return;
    s->common_rank = largest;
    for (size_t i = 0; i < n; i++)
        s->parts[i].rank_after = largest; /* zeros where a product has fewer singular values */
}

/* ---- factors ---- */

/* A module's new tensors, as floats: experts' A one below another, B's columns by rank, then by expert. */
struct factors {
    float *a, *b; /* [n * k, in], [out, k * n] */
    uint32_t n, k, out, in;
};

/* sqrt(sigma) goes to both sides: values of like size, whatever type stores them. */
static void fill_factors(const struct low_rank_svd *svd, uint32_t expert, const struct factors *f)
{
    for (uint32_t r = 0; r < f->k && r < svd->n; r++) {
        double root = sqrt(svd->sigma[r]);
        float *a = f->a + ((size_t)expert * f->k + r) * f->in;
        for (size_t i = 0; i < f->in; i++)
            a[i] = (float)(root * svd->v[r * (size_t)f->in + i]);
        for (size_t i = 0; i < f->out; i++)
            f->b[(i * f->k + r) * f->n + expert] = (float)(root * svd->u[r * (size_t)f->out + i]);
    }
}

/* The type that a module's new tensors get. */
static enum dtype type_of(const struct shrinking *s, const struct file_pair *p)
{
    if (s->options->type != DTYPE_COUNT)
        return s->options->type;
    return s->options->rank == 0 && s->options->energy >= 1 ? DTYPE_F32 : p->a.type;
}

/* Rounded to the type and back, which is what the file will say. */
static enum status round_to(const struct shrinking *s, enum dtype type, float *values, size_t n,
                            void **stored, struct error *err)
{
    void *bytes = arena_array(s->arena, n, dtype_info(type)->block_bytes);
    if (!bytes)
        return no_memory(s, err);
    require(quantize_row(type, values, n, bytes));
    dequantize_row(type, bytes, n, values);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return fail(err, STATUS_UNSUPPORTED, "a value of %s is too large for %s: use --type f32",
                        s->c->shown, dtype_name(type));
    *stored = bytes;
    return STATUS_OK;
}

/* Adds the square of what is lost of one expert's product. */
static enum status add_error(const struct factors *f, const struct low_rank *x, uint32_t expert,
                             double *squares, struct error *err)
{
    double distance = 0;
    float *b = mem_array((size_t)f->out * f->k, sizeof *b);
    if (!b)
        return fail(err, STATUS_NO_MEMORY, "no memory for %u values", f->out);
    for (size_t i = 0; i < (size_t)f->out * f->k; i++)
        b[i] = f->b[i * f->n + expert];
    struct low_rank y = {.a = f->a + (size_t)expert * f->k * f->in,
                         .b = b,
                         .out = f->out,
                         .in = f->in,
                         .rank = f->k,
                         .scale = x->scale};
    enum status s = low_rank_distance(x, &y, &distance, err);
    *squares += distance * distance;
    mem_free(b);
    return s;
}

static enum status make_factors(const struct file_pair *p, const struct factors *f, struct error *err)
{
    enum status s = STATUS_OK;
    for (uint32_t e = 0; e < p->n && s == STATUS_OK; e++) {
        struct low_rank x;
        struct low_rank_svd svd = {0};
        s = rank_product_init(p, e, &x, err);
        x.scale = 1; /* the module's own stays what it is */
        if (s == STATUS_OK)
            s = low_rank_svd(&x, true, &svd, err);
        if (s == STATUS_OK)
            fill_factors(&svd, e, f);
        low_rank_svd_fini(&svd);
        rank_product_fini(&x);
    }
    return s;
}

static enum status measure_error(const struct file_pair *p, const struct factors *f, double *error,
                                 struct error *err)
{
    enum status s = STATUS_OK;
    double squares = 0;
    for (uint32_t e = 0; e < p->n && s == STATUS_OK; e++) {
        struct low_rank x;
        s = rank_product_init(p, e, &x, err);
        if (s == STATUS_OK)
            s = add_error(f, &x, e, &squares, err);
        rank_product_fini(&x);
    }
    *error = sqrt(squares);
    return s;
}

static enum status add_factors(struct shrinking *s, const struct file_pair *p, const struct factors *f,
                               struct error *err)
{
    void *a = NULL, *b = NULL;
    uint64_t rows = (uint64_t)f->n * f->k;
    enum dtype type = type_of(s, p);
    const struct outgoing_shape a_shape = {type, 2, {rows, f->in}}, b_shape = {type, 2, {f->out, rows}};
    enum status st = round_to(s, type, f->a, (size_t)rows * f->in, &a, err);
    if (st == STATUS_OK)
        st = round_to(s, type, f->b, (size_t)rows * f->out, &b, err);
    if (st == STATUS_OK)
        st = outgoing_add(&s->out, p->a_tensor->name, &a_shape, a, err);
    return st == STATUS_OK ? outgoing_add(&s->out, p->b_tensor->name, &b_shape, b, err) : st;
}

static bool stays(const struct shrinking *s, size_t i)
{
    const struct file_pair *p = &s->c->file_pairs[i];
    return s->parts[i].rank_after == p->rank &&
           (s->options->type == DTYPE_COUNT ||
            (s->options->type == p->a_tensor->dtype && s->options->type == p->b_tensor->dtype));
}

static enum status shrink_pair(struct shrinking *s, size_t i, struct error *err)
{
    const struct file_pair *p = &s->c->file_pairs[i];
    struct shrink_part *part = &s->parts[i];
    struct factors f = {.n = p->n, .k = part->rank_after, .out = p->b.rows / p->n, .in = p->a.cols};
    s->report.n_before += (uint64_t)p->rank * f.n * (f.in + (uint64_t)f.out);
    s->report.n_after += (uint64_t)f.k * f.n * (f.in + (uint64_t)f.out);
    s->report.dora = s->report.dora || p->magnitude;
    if (stays(s, i))
        return STATUS_OK;
    f.a = mem_array((size_t)f.n * f.k, f.in * sizeof *f.a);
    f.b = mem_array((size_t)f.n * f.k, f.out * sizeof *f.b);
    enum status st = f.a && f.b ? ask_to_stop(s, err) : no_memory(s, err);
    if (st == STATUS_OK)
        st = make_factors(p, &f, err);
    if (st == STATUS_OK)
        st = add_factors(s, p, &f, err);
    if (st == STATUS_OK)
        st = measure_error(p, &f, &part->error, err);
    mem_free(f.a);
    mem_free(f.b);
    return st;
}

/* ---- the whole ---- */

/* Every tensor that is no part of a smaller product, as it is. */
static enum status keep_others(struct shrinking *s, struct error *err)
{
    const struct content *c = s->c;
    size_t n = tensors_count(c->tensors);
    bool *done = mem_array(n ? n : 1, sizeof *done);
    enum status st = done ? STATUS_OK : no_memory(s, err);
    const struct tensor *first = n ? tensors_at(c->tensors, 0) : NULL;
    for (size_t i = 0; i < c->n_file_pairs && st == STATUS_OK; i++) {
        const struct file_pair *p = &c->file_pairs[i];
        done[p->a_tensor - first] = done[p->b_tensor - first] = !stays(s, i);
        s->report.n_kept -= stays(s, i) ? 2 : 0;
    }
    for (size_t i = 0; i < n && st == STATUS_OK; i++) {
        const struct tensor *t = tensors_at(c->tensors, i);
        s->report.bytes_before += t->size_bytes;
        if (done[i])
            continue;
        const struct outgoing_shape shape = {t->dtype, t->n_dims, {t->shape[0], t->shape[1], t->shape[2]}};
        st = t->n_dims > 3
                 ? fail(err, STATUS_UNSUPPORTED, "tensor '%s' has %u dimensions", t->name, t->n_dims)
                 : outgoing_add(&s->out, t->name, &shape, tensor_data(c->tensors, t), err);
        s->report.n_kept++;
    }
    for (size_t i = 0; i < s->out.n; i++)
        s->report.bytes_after += s->out.items[i].size_bytes;
    mem_free(done);
    return st;
}

/* scale = alpha / rank, so that the scale stays; to the digits that a float has. */
static double alpha_of(const struct shrinking *s, size_t i)
{
    return tidy_number((double)s->c->file_pairs[i].scale * s->parts[i].rank_after);
}

static enum status write_config(const struct shrinking *s, const struct out_place *place, struct error *err)
{
    json_t *config = json_copy(s->c->config), *ranks = json_object(), *alphas = json_object();
    size_t first = 0;
    while (s->parts[first].rank_after != s->common_rank)
        first++;
    double alpha = alpha_of(s, first);
    for (size_t i = 0; i < s->report.n_parts; i++) {
        if (s->parts[i].rank_after != s->common_rank)
            json_object_set_new(ranks, s->parts[i].module, json_integer(s->parts[i].rank_after));
        if (alpha_of(s, i) != alpha)
            json_object_set_new(alphas, s->parts[i].module, json_number(alpha_of(s, i)));
    }
    json_object_set_new(config, "r", json_integer(s->common_rank));
    json_object_set_new(config, "lora_alpha", json_number(alpha));
    json_object_set_new(config, "use_rslora", json_false());
    json_object_set_new(config, "rank_pattern", ranks);
    json_object_set_new(config, "alpha_pattern", alphas);
    enum status st = config ? out_put_json(place, "adapter_config.json", config, err) : no_memory(s, err);
    json_decref(config);
    return st;
}

static bool is_companion(const char *name)
{
    return strcmp(name, "adapter_config.json") != 0 && strncmp(name, "adapter_model.", 14) != 0;
}

static enum status write_folder(struct shrinking *s, const struct opened *from, struct out_place *place,
                                struct error *err)
{
    enum status st = outgoing_write_peft(&s->out, place, err);
    if (st == STATUS_OK)
        st = write_config(s, place, err);
    if (st == STATUS_OK)
        st = out_copy_texts(place, from->dir_fd, from->folder, is_companion, err);
    return st == STATUS_OK ? out_commit_folder(place, err) : st;
}

static enum status shrink_all(struct shrinking *s, struct error *err)
{
    size_t n = s->c->n_file_pairs;
    double norm = 0, error = 0;
    if (n == 0)
        return fail(err, STATUS_INVALID, "%s: no pair of lora_A and lora_B to make smaller", s->c->shown);
    s->parts = arena_array(s->arena, n, sizeof *s->parts);
    if (!s->parts)
        return no_memory(s, err);
    s->report.parts = s->parts;
    s->report.n_parts = n;
    enum status st = STATUS_OK;
    for (size_t i = 0; i < n && st == STATUS_OK; i++)
        st = choose_rank(s, i, err);
    if (st == STATUS_OK)
        choose_common(s);
    for (size_t i = 0; i < n && st == STATUS_OK; i++)
        st = shrink_pair(s, i, err);
    for (size_t i = 0; i < n; i++) {
        norm += s->parts[i].norm * s->parts[i].norm;
        error += s->parts[i].error * s->parts[i].error;
    }
    s->report.norm = sqrt(norm);
    s->report.error = sqrt(error);
    return st == STATUS_OK ? keep_others(s, err) : st;
}

static enum status check_options(const struct shrink_options *o, struct error *err)
{
    if (o->rank == 0 && !(o->energy > 0 && o->energy <= 1))
        return fail(err, STATUS_INVALID, "energy: found %g, expected above 0, up to 1", o->energy);
    return dtype_is_float(o->type) || o->type == DTYPE_COUNT
               ? STATUS_OK
               : fail(err, STATUS_INVALID, "type: found %s, expected f32, f16 or bf16", dtype_name(o->type));
}

static enum status run(struct shrinking *s, const char *path, struct out_place *place, struct error *err)
{
    struct loading l;
    struct adapter_report about = {0};
    struct adapter_source source = {.name = "shrunk", .path = path, .root_fd = -1, .scale = 1};
    enum status st = loading_begin(&l, &source, NULL, &about, err);
    s->c = l.content;
    if (st == STATUS_OK && strcmp(about.format, "peft") != 0)
        st = fail(err, STATUS_UNSUPPORTED,
                  "%s: a %s adapter; a PEFT folder is written and so must be read: lorikeet convert %s OUT "
                  "--to peft "
                  "--model BASE",
                  path, about.format, path);
    if (st == STATUS_OK)
        st = shrink_all(s, err);
    if (st == STATUS_OK)
        st = write_folder(s, &l.place, place, err);
    outgoing_fini(&s->out);
    loading_end(&l);
    s->c = NULL;
    return st;
}

enum status adapter_shrink(const char *path, const char *out, const struct shrink_options *o,
                           struct shrink_report **report, struct error *err)
{
    *report = NULL;
    enum status st = check_options(o, err);
    if (st != STATUS_OK)
        return st;
    struct shrinking *s = mem_zalloc(sizeof *s);
    if (!s || !(s->arena = arena_create(0))) {
        mem_free(s);
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", path);
    }
    s->options = o;
    s->out.arena = s->arena;
    struct out_place place = {.parent_fd = -1, .stop = o->stop};
    st = out_begin(&place, out, err);
    if (st == STATUS_OK)
        st = run(s, path, &place, err);
    out_abandon(&place);
    s->options = NULL;
    if (st == STATUS_OK)
        *report = &s->report;
    else
        shrink_report_destroy(&s->report);
    return st;
}

void shrink_report_destroy(struct shrink_report *r)
{
    struct shrinking *s = (struct shrinking *)(void *)r;
    if (!s)
        return;
    arena_destroy(s->arena);
    mem_free(s);
}
