/* From a model file to packed weights: each tensor is found by its name, its shape is checked, and it is read
 * in slices by the whole team, converted where --quant asks for it, and packed into panels. What the file has
 * beyond that is refused by name: an unknown tensor means an architecture that we would compute wrongly.
 *
 * The first failure wins; model_close frees what was loaded until then. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model_inner.h"
#include "weights_f8.h"

#define SLICE_BYTES ((uint64_t)1 << 20)

struct loader {
    struct model *m;
    const struct tensors *tensors;
    const struct model_options *options; /* NULL: names, shapes and types are checked, nothing is read */
    struct naming naming;
    bool *bound; /* [tensors_count] tensors that the model uses */
    uint64_t values_of_type[DTYPE_COUNT];
    bool map_is_wrong; /* the packed file hasn't the parts that the model has */
};

/* ---- one tensor ---- */

struct dims {
    uint32_t n, d[3]; /* outermost first */
};

static void print_dims(char *dst, size_t dst_bytes, const uint64_t *d, uint32_t n)
{
    size_t at = 0;
    dst[0] = '\0'; /* no dimension at all: a scalar */
    for (uint32_t i = 0; i < n && i < TENSOR_DIMS_MAX && at < dst_bytes; i++)
        at += (size_t)snprintf(dst + at, dst_bytes - at, "%s%llu", i ? ", " : "", (unsigned long long)d[i]);
}

/* The tensor that the model uses under this name; NULL: `err` says what is wrong with it. */
static const struct tensor *bind_tensor(struct loader *l, const char *name, struct dims wanted,
                                        struct error *err)
{
    const struct tensor *t = tensors_find(l->tensors, name);
    char expected[96], found[96];
    uint64_t d[3] = {wanted.d[0], wanted.d[1], wanted.d[2]};
    bool same = t && t->n_dims == wanted.n;
    const char *foreign = t ? NULL : foreign_type(l->tensors, name);
    print_dims(expected, sizeof expected, d, wanted.n);
    if (foreign) {
        fail(err, STATUS_UNSUPPORTED,
             "%s: type %s is not supported: convert the model to bf16, or use F8_E4M3", name, foreign);
        return NULL;
    }
    if (!t) {
        fail(err, STATUS_FORMAT, "%s: tensor is missing, expected [%s] for a %s model", name, expected,
             l->m->family->name);
        return NULL;
    }
    for (uint32_t i = 0; i < wanted.n; i++)
        same = same && t->shape[i] == d[i];
    if (!same) {
        print_dims(found, sizeof found, t->shape, t->n_dims);
        fail(err, STATUS_FORMAT, "%s: shape [%s], expected [%s] by the configuration", name, found, expected);
        return NULL;
    }
    bool *bound = &l->bound[t - tensors_at(l->tensors, 0)];
    l->m->info.n_parameters += *bound ? 0 : t->n_values;
    *bound = true;
    return t;
}

/* Where the rows of a matrix or the values of a vector lie in their tensor. */
struct source {
    const struct tensor *tensor;
    uint64_t begin;             /* of the tensor's rows */
    uint32_t n_heads, head_dim; /* n_heads > 0: rows of heads are in GGUF's order for interleaved pairs */
    bool transposed;            /* the tensor is [cols, rows] */
};

static uint64_t file_row(const struct source *s, uint64_t row)
{
    return s->begin + (s->n_heads ? gguf_rope_row(row, s->n_heads, s->head_dim) : row);
}

/* ---- parts of a packed file, of the one that we read or of one that is written later ---- */

/* The part's bytes out of the packed file. */
static enum status take_part(struct loader *l, struct packed_part *part, struct error *err)
{
    enum status s = packed_map_take(l->m->map, part, err);
    l->map_is_wrong = s != STATUS_OK;
    return s == STATUS_OK ? packed_parts_add(&l->m->parts, part, err) : s;
}

static enum status note_part(struct loader *l, const struct packed_part *part, enum status s,
                             struct error *err)
{
    return s == STATUS_OK && l->options ? packed_parts_add(&l->m->parts, part, err) : s;
}

static enum status read_vector(struct loader *l, const struct source *s, uint32_t n, float **out,
                               struct error *err)
{
    const struct tensor *t = s->tensor;
    void *raw = mem_alloc(t->size_bytes);
    float *in_order = mem_array(t->n_values, sizeof *in_order);
    enum status status = STATUS_NO_MEMORY;
    *out = mem_array(n, sizeof **out);
    if (!raw || !in_order || !*out) {
        fail(err, STATUS_NO_MEMORY, "%s: %u values", t->name, n);
        goto end;
    }
    status = tensor_read(l->tensors, t, 0, t->size_bytes, raw, err);
    if (status != STATUS_OK)
        goto end;
    dequantize_row(t->dtype, raw, t->n_values, in_order);
    for (uint32_t i = 0; i < n; i++)
        (*out)[i] = in_order[file_row(s, i)];
end:
    mem_free(raw);
    mem_free(in_order);
    return status;
}

/* n values of a tensor of norms or biases, as floats. */
static enum status load_vector(struct loader *l, const struct source *s, uint32_t n, float **out,
                               struct error *err)
{
    const struct tensor *t = s->tensor;
    struct packed_part part = {.size_bytes = n * sizeof **out, .type = DTYPE_F32, .rows = 1, .cols = n};
    if (!dtype_is_float(t->dtype))
        return fail(err, STATUS_UNSUPPORTED, "%s: type %s, expected f32, f16 or bf16", t->name,
                    dtype_name(t->dtype));
    l->m->info.size_bytes += part.size_bytes;
    if (l->m->map) {
        enum status status = take_part(l, &part, err);
        *out = part.data;
        return status;
    }
    enum status status = read_vector(l, s, n, out, err);
    part.data = *out;
    return note_part(l, &part, status, err);
}

static enum status load_named_vector(struct loader *l, const char *name, uint32_t n, float **out,
                                     struct error *err)
{
    struct source s = {.tensor = bind_tensor(l, name, (struct dims){1, {n}}, err)};
    return s.tensor ? load_vector(l, &s, n, out, err) : STATUS_FORMAT;
}

/* ---- packing a matrix with the team ---- */

struct fill_job {
    const struct tensors *tensors;
    struct source source;
    const struct packed *w;
    struct f8_scales scales;              /* of an F8 tensor */
    uint64_t source_row_bytes, row_bytes; /* of w->cols values in the file's type; in w's */
    atomic_flag failed;                   /* the first worker that fails writes `error` */
    struct error error;
    enum status status;
};

/* Rows of a [cols, rows] tensor: a run of each of its lines, spread over the rows. */
static enum status read_transposed(const struct fill_job *j, uint64_t begin, uint64_t n, uint8_t *dst,
                                   struct error *err)
{
    const struct tensor *t = j->source.tensor;
    uint64_t size = j->source_row_bytes / j->w->cols, n_rows = t->shape[1];
    uint8_t *run = mem_alloc(n * size);
    enum status status =
        run ? STATUS_OK
            : fail(err, STATUS_NO_MEMORY, "%s: a slice of %llu rows", t->name, (unsigned long long)n);
    for (uint64_t c = 0; c < j->w->cols && status == STATUS_OK; c++) {
        status =
            tensor_read(j->tensors, t, (c * n_rows + j->source.begin + begin) * size, n * size, run, err);
        for (uint64_t i = 0; i < n && status == STATUS_OK; i++)
            memcpy(dst + i * j->source_row_bytes + c * size, run + i * size, size);
    }
    mem_free(run);
    return status;
}

static enum status read_rows(const struct fill_job *j, uint64_t begin, uint64_t n, uint8_t *dst,
                             struct error *err)
{
    const struct source *s = &j->source;
    if (s->transposed)
        return read_transposed(j, begin, n, dst, err);
    if (s->n_heads == 0)
        return tensor_read(j->tensors, s->tensor, file_row(s, begin) * j->source_row_bytes,
                           n * j->source_row_bytes, dst, err);
    enum status status = STATUS_OK;
    for (uint64_t i = 0; i < n && status == STATUS_OK; i++)
        status = tensor_read(j->tensors, s->tensor, file_row(s, begin + i) * j->source_row_bytes,
                             j->source_row_bytes, dst + i * j->source_row_bytes, err);
    return status;
}

/* Rows on their way from the file to panels. */
struct slice {
    uint64_t begin, n;        /* rows of the matrix */
    uint8_t *raw, *converted; /* converted NULL: stays as it is */
    float *row;               /* [cols] */
};

static enum status convert_rows(const struct fill_job *j, const struct slice *s, struct error *err)
{
    const struct tensor *t = j->source.tensor;
    for (uint64_t i = 0; i < s->n; i++) {
        dequantize_row(t->dtype, s->raw + i * j->source_row_bytes, j->w->cols, s->row);
        f8_scales_multiply(&j->scales, file_row(&j->source, s->begin + i), j->w->cols, s->row);
        if (!quantize_row(j->w->type, s->row, j->w->cols, s->converted + i * j->row_bytes))
            return fail(err, STATUS_UNSUPPORTED, "%s: can't convert %s to %s", t->name, dtype_name(t->dtype),
                        dtype_name(j->w->type));
    }
    return STATUS_OK;
}

static enum status fill_slice(const struct fill_job *j, const struct slice *s, struct error *err)
{
    uint32_t begin = (uint32_t)s->begin, end = (uint32_t)(s->begin + s->n);
    enum status status = read_rows(j, s->begin, s->n, s->raw, err);
    if (status == STATUS_OK && s->converted)
        status = convert_rows(j, s, err);
    if (status != STATUS_OK)
        return status;
    packed_fill(j->w, begin, end, s->converted ? s->converted : s->raw);
    for (uint32_t row = begin; row < end && !s->converted; row++)
        f8_scales_pack(&j->scales, file_row(&j->source, row), j->w, row, s->row);
    return STATUS_OK;
}

static enum status fill_rows(const struct fill_job *j, uint64_t begin, uint64_t end, struct error *err)
{
    bool converts = j->w->type != j->source.tensor->dtype;
    uint64_t widest = j->source_row_bytes > j->row_bytes ? j->source_row_bytes : j->row_bytes;
    /* A transposed slice is read as many short runs: the longer, the better. */
    uint64_t slice_bytes = j->source.transposed ? 8 * SLICE_BYTES : SLICE_BYTES;
    uint64_t n = slice_bytes / widest / PANEL_ROWS * PANEL_ROWS;
    if (n == 0)
        n = PANEL_ROWS;
    if (n > end - begin)
        n = end - begin;
    struct slice s = {.raw = mem_alloc(n * j->source_row_bytes),
                      .converted = converts ? mem_alloc(n * j->row_bytes) : NULL,
                      .row = mem_array(j->w->cols, sizeof *s.row)};
    enum status status = STATUS_OK;
    if (!s.raw || !s.row || (converts && !s.converted))
        status = fail(err, STATUS_NO_MEMORY, "%s: a slice of %llu rows", j->source.tensor->name,
                      (unsigned long long)n);
    for (s.begin = begin; s.begin < end && status == STATUS_OK; s.begin += n) {
        s.n = end - s.begin < n ? end - s.begin : n;
        status = fill_slice(j, &s, err);
    }
    mem_free(s.raw);
    mem_free(s.converted);
    mem_free(s.row);
    return status;
}

static void fill_task(void *arg, unsigned worker, unsigned n_workers)
{
    struct fill_job *j = arg;
    struct error err;
    uint64_t begin, end;
    team_share(j->w->rows, PANEL_ROWS, worker, n_workers, &begin, &end);
    if (begin == end)
        return;
    enum status status = fill_rows(j, begin, end, &err);
    if (status != STATUS_OK && !atomic_flag_test_and_set(&j->failed)) {
        j->error = err;
        j->status = status;
    }
}

/* The whole matrix, by the team if there is one. */
static enum status fill(const struct loader *l, struct fill_job *job, struct error *err)
{
    enum status status = f8_scales_read(&job->scales, l->tensors, err);
    if (status == STATUS_OK) {
        if (l->options->team)
            team_run(l->options->team, fill_task, job);
        else
            fill_task(job, 0, 1);
        status = job->status;
        if (status != STATUS_OK && err)
            *err = job->error;
    }
    f8_scales_fini(&job->scales);
    return status;
}

/* Types that --quant gives a matrix. A row length that is no multiple of 32 keeps the file's type, and with
 * q4_0 the embedding and the head are q8_0: they hurt most when coarse, and are read once a step. */
enum use { USE_LINEAR, USE_EMBEDDING, USE_ROUTER };

static enum dtype target_type(enum quant quant, enum dtype source, uint32_t cols, enum use use)
{
    if (use == USE_ROUTER) /* small, and a rounded logit picks another expert */
        return source;
    switch (quant) {
    case QUANT_F32:
        return DTYPE_F32;
    case QUANT_BF16:
        return DTYPE_BF16;
    case QUANT_Q8_0:
        return cols % ACT_BLOCK ? source : DTYPE_Q8_0;
    case QUANT_Q4_0:
        return cols % ACT_BLOCK ? source : use == USE_EMBEDDING ? DTYPE_Q8_0 : DTYPE_Q4_0;
    case QUANT_AUTO:
        break;
    }
    return source;
}

static enum status load_matrix(struct loader *l, const struct source *source, enum use use, struct packed *w,
                               struct error *err)
{
    uint32_t rows = w->rows, cols = w->cols;
    const struct tensor *t = source->tensor;
    struct fill_job job = {.tensors = l->tensors, .source = *source, .w = w, .failed = ATOMIC_FLAG_INIT};
    size_t size_bytes;
    enum dtype type = target_type(l->options ? l->options->quant : QUANT_AUTO, t->dtype, cols, use);
    if (!dtype_row_bytes(t->dtype, cols, &job.source_row_bytes) ||
        !dtype_row_bytes(type, cols, &job.row_bytes))
        return fail(err, STATUS_FORMAT, "%s: rows of %u values are no whole blocks of %s", t->name, cols,
                    dtype_name(t->dtype));
    if (t->dtype == DTYPE_I8) /* packed, it would need scales */
        return fail(err, STATUS_UNSUPPORTED,
                    "%s: type i8 is not supported in a base: convert the model to bf16", t->name);
    if (source->transposed && (dtype_is_quantized(t->dtype) || t->dtype == DTYPE_F8_E4M3))
        return fail(err, STATUS_UNSUPPORTED, "%s: type %s, but a transposed matrix must have plain numbers",
                    t->name, dtype_name(t->dtype));
    enum status status = packed_shape(type, rows, cols, w, &size_bytes, err);
    if (status != STATUS_OK)
        return fail_within(err, "%s", t->name);
    status = f8_scales_find(&job.scales, &l->m->config, l->tensors, t, err);
    if (status != STATUS_OK || !l->options)
        return status;
    struct packed_part part = {.size_bytes = size_bytes, .type = type, .rows = rows, .cols = cols};
    l->m->info.size_bytes += size_bytes;
    l->values_of_type[type] += (uint64_t)rows * cols;
    if (l->m->map) {
        status = take_part(l, &part, err);
        w->data = part.data;
        return status;
    }
    part.data = w->data = mem_aligned_raw(64, size_bytes);
    if (!w->data)
        return fail(err, STATUS_NO_MEMORY, "%s: %zu bytes of packed weights", t->name, size_bytes);
    return note_part(l, &part, fill(l, &job, err), err);
}

/* ---- the model's tensors ---- */

/* GGUF metadata doesn't mention biases: there the tensor's presence says it. */
static bool site_has_bias(const struct loader *l, enum lora_site site, const char *name)
{
    const struct model_config *c = &l->m->config;
    const struct family *f = l->m->family;
    if (f->all_bias || (site <= LORA_SITE_V && f->qkv_bias))
        return true;
    if (c->from_gguf)
        return tensors_find(l->tensors, name) != NULL;
    if (site <= LORA_SITE_O)
        return c->attention_bias && !f->qkv_bias;
    return c->mlp_bias;
}

/* The part of a module's tensor that a site is: its rows begin at `begin`. */
static struct source site_source(const struct loader *l, const struct tensor *t, enum lora_site site,
                                 uint64_t begin)
{
    const struct model_config *c = &l->m->config;
    struct source s = {.tensor = t, .begin = begin, .head_dim = c->head_dim};
    s.transposed = l->m->family->conv1d && !c->from_gguf && t->n_dims == 2;
    if (c->from_gguf && l->m->family->gguf_permuted && site <= LORA_SITE_K)
        s.n_heads = site == LORA_SITE_Q ? c->n_heads : c->n_kv_heads;
    return s;
}

static enum status load_biases(struct loader *l, uint32_t layer, const struct module_name *module,
                               uint32_t n_rows, struct error *err)
{
    struct model_layer *to = &l->m->layers[layer];
    char name[NAME_BYTES];
    naming_layer(&l->naming, layer, module->suffix, "bias", name);
    if (!site_has_bias(l, module->site, name))
        return STATUS_OK;
    const struct tensor *t = bind_tensor(l, name, (struct dims){1, {n_rows}}, err);
    enum status status = t ? STATUS_OK : STATUS_FORMAT;
    uint64_t begin = 0;
    for (unsigned i = 0; i < module->n_sites && status == STATUS_OK; i++) {
        enum lora_site site = module->site + i;
        struct source s = site_source(l, t, site, begin);
        status = load_vector(l, &s, to->w[site].rows, &to->bias[site], err);
        begin += to->w[site].rows;
    }
    return status;
}

static enum status load_module(struct loader *l, uint32_t layer, const struct module_name *module,
                               struct error *err)
{
    struct model_layer *to = &l->m->layers[layer];
    char name[NAME_BYTES];
    uint32_t n_rows = 0, cols = 0;
    for (unsigned i = 0; i < module->n_sites; i++) {
        struct packed *w = &to->w[module->site + i];
        require(model_site_shape(l->m, module->site + i, &w->rows, &w->cols));
        n_rows += w->rows;
        cols = w->cols;
    }
    struct dims wanted = {2, {n_rows, cols}};
    if (l->m->family->conv1d && !l->m->config.from_gguf)
        wanted = (struct dims){2, {cols, n_rows}};
    naming_layer(&l->naming, layer, module->suffix, "weight", name);
    const struct tensor *t = bind_tensor(l, name, wanted, err);
    enum status status = t ? STATUS_OK : STATUS_FORMAT;
    uint64_t begin = 0;
    for (unsigned i = 0; i < module->n_sites && status == STATUS_OK; i++) {
        struct source s = site_source(l, t, module->site + i, begin);
        begin += to->w[module->site + i].rows;
        status = load_matrix(l, &s, USE_LINEAR, &to->w[module->site + i], err);
    }
    return status == STATUS_OK ? load_biases(l, layer, module, n_rows, err) : status;
}

/* Every site of a layer, from the tensors that this file has for it: fused or apart. */
static enum status load_sites(struct loader *l, uint32_t layer, struct error *err)
{
    enum status status = STATUS_OK;
    for (unsigned s = LORA_SITE_Q; s <= LORA_SITE_DOWN && status == STATUS_OK; s++) {
        enum lora_site site = (enum lora_site)s;
        if (!layer_has_site(l->m, layer, site) || l->m->layers[layer].w[site].rows)
            continue;
        const struct module_name *module = naming_module(&l->naming, layer, site);
        require(module);
        status = load_module(l, layer, module, err);
    }
    return status;
}

/* ---- experts ---- */

static enum status load_router(struct loader *l, uint32_t layer, const struct expert_names *names,
                               struct error *err)
{
    struct packed *w = &l->m->layers[layer].w[LORA_SITE_ROUTER];
    char name[NAME_BYTES];
    require(model_site_shape(l->m, LORA_SITE_ROUTER, &w->rows, &w->cols));
    naming_layer(&l->naming, layer, names->router, "weight", name);
    struct source s = {.tensor = bind_tensor(l, name, (struct dims){2, {w->rows, w->cols}}, err)};
    return s.tensor ? load_matrix(l, &s, USE_ROUTER, w, err) : STATUS_FORMAT;
}

/* Matrix i of an expert: a tensor of its own, or its rows of one that has them all. */
static enum status expert_source(struct loader *l, uint32_t layer, const struct expert_names *names,
                                 uint32_t at, struct source *s, struct error *err)
{
    uint32_t expert = at / 3, i = at % 3, n_experts = l->m->config.n_experts, rows, cols;
    char name[NAME_BYTES], module[NAME_BYTES];
    expert_shape(l->m, i, &rows, &cols);
    *s = (struct source){.begin = (uint64_t)expert * rows};
    struct dims wanted = {3, {n_experts, rows, cols}};
    if (names->stacked[i] && naming_layer_has(&l->naming, layer, names->stacked[i], "")) {
        naming_layer(&l->naming, layer, names->stacked[i], "", name);
    } else if (i < 2 && naming_layer_has(&l->naming, layer, names->stacked_gate_up, "")) {
        naming_layer(&l->naming, layer, names->stacked_gate_up, "", name);
        wanted.d[1] = 2 * rows;
        s->begin = (2 * (uint64_t)expert + i) * rows;
    } else {
        snprintf(module, sizeof module, "%s%u%s", names->one[i], expert, names->tail[i]);
        naming_layer(&l->naming, layer, module, "weight", name);
        wanted = (struct dims){2, {rows, cols}};
        s->begin = 0;
    }
    s->tensor = bind_tensor(l, name, wanted, err);
    return s->tensor ? STATUS_OK : STATUS_FORMAT;
}

static enum status load_experts(struct loader *l, uint32_t layer, struct error *err)
{
    struct model_layer *to = &l->m->layers[layer];
    const struct expert_names *names = naming_experts(&l->naming, layer);
    uint32_t n = 3 * l->m->config.n_experts;
    to->experts = mem_array(n, sizeof *to->experts);
    if (!to->experts)
        return fail(err, STATUS_NO_MEMORY, "the table of %u experts", n / 3);
    enum status status = load_router(l, layer, names, err);
    for (uint32_t i = 0; i < n && status == STATUS_OK; i++) {
        struct source s;
        expert_shape(l->m, i % 3, &to->experts[i].rows, &to->experts[i].cols);
        status = expert_source(l, layer, names, i, &s, err);
        if (status == STATUS_OK)
            status = load_matrix(l, &s, USE_LINEAR, &to->experts[i], err);
    }
    return status;
}

static enum status load_norms(struct loader *l, uint32_t layer, struct error *err)
{
    const struct family *f = l->m->family;
    struct model_layer *to = &l->m->layers[layer];
    enum status status = STATUS_OK;
    char name[NAME_BYTES];
    for (unsigned n = 0; n < NORM_LAYER_COUNT && status == STATUS_OK; n++) {
        uint32_t length = norm_length(l->m, (enum norm_id)n);
        if (!(f->norms & 1U << n))
            continue;
        naming_layer(&l->naming, layer, l->naming.names->norm[n], "weight", name);
        status = load_named_vector(l, name, length, &to->norm[n], err);
        naming_layer(&l->naming, layer, l->naming.names->norm[n], "bias", name);
        if (status == STATUS_OK && f->layer_norm)
            status = load_named_vector(l, name, length, &to->norm_bias[n], err);
    }
    return status;
}

static enum status load_table(struct loader *l, const char *module, uint32_t rows, struct packed *w,
                              struct error *err)
{
    char name[NAME_BYTES];
    w->rows = rows;
    w->cols = l->m->config.hidden_size;
    naming_set(&l->naming, module, "weight", name);
    struct source s = {.tensor = bind_tensor(l, name, (struct dims){2, {rows, w->cols}}, err)};
    return s.tensor ? load_matrix(l, &s, USE_EMBEDDING, w, err) : STATUS_FORMAT;
}

static enum status load_head(struct loader *l, struct error *err)
{
    struct model *m = l->m;
    char head[NAME_BYTES];
    naming_set(&l->naming, l->naming.names->head, "weight", head);
    if (m->config.from_gguf ? !tensors_find(l->tensors, head) : m->config.tie_word_embeddings) {
        m->head = m->embed;
        m->tied = true;
        return STATUS_OK;
    }
    return load_table(l, l->naming.names->head, m->config.vocab_size, &m->head, err);
}

static enum status load_ends(struct loader *l, struct error *err)
{
    struct model *m = l->m;
    const struct model_config *c = &m->config;
    char name[NAME_BYTES];
    enum status status = load_table(l, l->naming.names->embed, c->vocab_size, &m->embed, err);
    if (status == STATUS_OK && m->family->no_rope)
        status = load_table(l, l->naming.names->position_embed, c->max_position, &m->position_embed, err);
    if (status == STATUS_OK)
        status = load_head(l, err);
    naming_set(&l->naming, l->naming.names->final_norm, "weight", name);
    if (status == STATUS_OK)
        status = load_named_vector(l, name, c->hidden_size, &m->final_norm, err);
    naming_set(&l->naming, l->naming.names->final_norm, "bias", name);
    if (status == STATUS_OK && m->family->layer_norm)
        status = load_named_vector(l, name, c->hidden_size, &m->final_norm_bias, err);
    return status;
}

/* ---- what is left over ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* Tensors that hold nothing new: old rotary and mask buffers, GGUF's frequency factors (the configuration has
 * read them), and the copy of a tied head that some tools save. */
static bool is_harmless(const struct loader *l, const char *name)
{
    size_t head = strlen(l->naming.names->head);
    bool gpt2 =
        l->m->family->conv1d && (ends_with(name, ".attn.bias") || ends_with(name, ".attn.masked_bias"));
    bool factors = strcmp(name, "rope_freqs.weight") == 0 || strcmp(name, "rope_factors_long.weight") == 0 ||
                   strcmp(name, "rope_factors_short.weight") == 0;
    return ends_with(name, ".rotary_emb.inv_freq") || gpt2 || (factors && l->m->config.rope.n_factors > 0) ||
           (l->m->tied && strncmp(name, l->naming.names->head, head) == 0 &&
            strcmp(name + head, ".weight") == 0);
}

static enum status refuse_surplus(const struct loader *l, struct error *err)
{
    size_t n = tensors_count(l->tensors);
    for (size_t i = 0; i < n; i++) {
        const struct tensor *t = tensors_at(l->tensors, i);
        if (l->bound[i] || is_harmless(l, t->name))
            continue;
        enum status status = f8_check_companion(&l->m->config, l->tensors, t->name, err);
        if (status == STATUS_NOT_FOUND)
            return fail(
                err, STATUS_UNSUPPORTED,
                "%s: a %s model of %u layers has no such tensor; its architecture may be another than "
                "the configuration says",
                t->name, l->m->family->name, l->m->config.n_layers);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static enum status load_all(struct loader *l, struct error *err)
{
    enum status status = load_ends(l, err);
    for (uint32_t layer = 0; layer < l->m->config.n_layers && status == STATUS_OK; layer++) {
        status = load_norms(l, layer, err);
        if (status == STATUS_OK)
            status = load_sites(l, layer, err);
        if (status == STATUS_OK && l->m->config.layer_is_sparse[layer])
            status = load_experts(l, layer, err);
    }
    return status == STATUS_OK ? refuse_surplus(l, err) : status;
}

static enum status load_once(struct loader *l, struct error *err)
{
    struct model *m = l->m;
    size_t n_tensors = tensors_count(l->tensors);
    naming_init(&l->naming, m, l->tensors, file_names(m));
    memset(l->values_of_type, 0, sizeof l->values_of_type);
    l->bound = mem_array(n_tensors ? n_tensors : 1, sizeof *l->bound);
    m->layers = mem_array(m->config.n_layers, sizeof *m->layers);
    enum status status = l->bound && m->layers
                             ? load_all(l, err)
                             : fail(err, STATUS_NO_MEMORY, "the table of %u layers", m->config.n_layers);
    if (status == STATUS_OK && m->map && m->map->n_taken != m->map->header.n_parts) {
        l->map_is_wrong = true;
        status = fail(err, STATUS_MISMATCH, "%s: has %u parts, the model %u", m->map->file.path,
                      m->map->header.n_parts, m->map->n_taken);
    }
    mem_free(l->bound);
    l->bound = NULL;
    return status;
}

enum status weights_load(struct model *m, const struct model_files *files,
                         const struct model_options *options, struct error *err)
{
    struct loader l = {.m = m, .tensors = files->tensors, .options = options};
    struct error wrong;
    enum status status = load_once(&l, &wrong);
    if (status != STATUS_OK && l.map_is_wrong) { /* the source has all that is needed */
        weights_free(m);
        snprintf(m->info.not_mapped, sizeof m->info.not_mapped, "%s", wrong.text);
        m->info.source = WEIGHTS_PACKED;
        status = load_once(&l, &wrong);
    }
    if (status != STATUS_OK && err)
        *err = wrong;
    for (unsigned t = 0; t < DTYPE_COUNT; t++)
        if (l.values_of_type[t] > l.values_of_type[m->info.weight_type])
            m->info.weight_type = (enum dtype)t;
    return status;
}
