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

#define SLICE_BYTES ((uint64_t)1 << 20)
#define NAME_BYTES 160

struct loader {
    struct model *m;
    const struct tensors *tensors;
    const struct model_options *options; /* NULL: names, shapes and types are checked, nothing is read */
    const struct tensor_names *names;
    const struct tensor **bound; /* [n_bound] tensors that the model uses */
    size_t n_bound, bound_limit;
    uint64_t values_of_type[DTYPE_COUNT];
};

/* ---- one tensor ---- */

/* NULL: `err` says what is wrong with it. cols 0: a vector. */
static const struct tensor *find_tensor(struct loader *l, const char *name, uint32_t rows, uint32_t cols,
                                        struct error *err)
{
    const struct tensor *t = tensors_find(l->tensors, name);
    char wanted[48], found[96];
    uint32_t n_dims = cols ? 2 : 1;
    snprintf(wanted, sizeof wanted, cols ? "[%u, %u]" : "[%u]", rows, cols);
    if (!t) {
        fail(err, STATUS_FORMAT, "%s: tensor is missing, expected %s for a %s model", name, wanted,
             l->m->family->name);
        return NULL;
    }
    if (t->n_dims != n_dims || t->shape[0] != rows || (cols && t->shape[1] != cols)) {
        size_t at = 0;
        for (uint32_t i = 0; i < t->n_dims && i < TENSOR_DIMS_MAX; i++)
            at += (size_t)snprintf(found + at, sizeof found - at, "%s%llu", i ? ", " : "",
                                   (unsigned long long)t->shape[i]);
        found[at] = '\0'; /* no dimension at all: a scalar */
        fail(err, STATUS_FORMAT, "%s: shape [%s], expected %s by the configuration", name, found, wanted);
        return NULL;
    }
    require(l->n_bound < l->bound_limit);
    l->bound[l->n_bound++] = t;
    l->m->info.n_parameters += t->n_values;
    return t;
}

/* Where a Hugging Face row lies in the file. */
struct row_order {
    uint32_t n_heads, head_dim; /* n_heads 0: as it is */
};
static uint64_t file_row(struct row_order o, uint64_t row)
{
    return o.n_heads ? gguf_rope_row(row, o.n_heads, o.head_dim) : row;
}

/* A norm or a bias as floats. */
static enum status load_vector(struct loader *l, const char *name, uint32_t n, struct row_order order,
                               float **out, struct error *err)
{
    const struct tensor *t = find_tensor(l, name, n, 0, err);
    if (!t)
        return STATUS_FORMAT;
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_BF16)
        return fail(err, STATUS_UNSUPPORTED, "%s: type %s, expected f32, f16 or bf16", name,
                    dtype_name(t->dtype));
    void *raw = mem_alloc(t->size_bytes);
    float *in_order = mem_array(n, sizeof *in_order);
    enum status status = STATUS_NO_MEMORY;
    *out = mem_array(n, sizeof **out);
    if (!raw || !in_order || !*out) {
        fail(err, STATUS_NO_MEMORY, "%s: %u values", name, n);
        goto end;
    }
    status = tensor_read(l->tensors, t, 0, t->size_bytes, raw, err);
    if (status != STATUS_OK)
        goto end;
    dequantize_row(t->dtype, raw, n, in_order);
    for (uint32_t i = 0; i < n; i++)
        (*out)[i] = in_order[file_row(order, i)];
    l->m->info.size_bytes += n * sizeof **out;
end:
    mem_free(raw);
    mem_free(in_order);
    return status;
}

/* ---- packing a matrix with the team ---- */

struct fill_job {
    const struct tensors *tensors;
    const struct tensor *tensor;
    const struct packed *w;
    struct row_order order;
    uint64_t source_row_bytes, row_bytes; /* in the file; of w's type */
    atomic_flag failed;                   /* the first worker that fails writes `error` */
    struct error error;
    enum status status;
};

static enum status read_rows(const struct fill_job *j, uint64_t begin, uint64_t n, uint8_t *dst,
                             struct error *err)
{
    if (j->order.n_heads == 0)
        return tensor_read(j->tensors, j->tensor, begin * j->source_row_bytes, n * j->source_row_bytes, dst,
                           err);
    enum status status = STATUS_OK;
    for (uint64_t i = 0; i < n && status == STATUS_OK; i++)
        status = tensor_read(j->tensors, j->tensor, file_row(j->order, begin + i) * j->source_row_bytes,
                             j->source_row_bytes, dst + i * j->source_row_bytes, err);
    return status;
}

static enum status convert_rows(const struct fill_job *j, uint64_t n, const uint8_t *src, float *row,
                                uint8_t *dst, struct error *err)
{
    for (uint64_t i = 0; i < n; i++) {
        dequantize_row(j->tensor->dtype, src + i * j->source_row_bytes, j->w->cols, row);
        if (!quantize_row(j->w->type, row, j->w->cols, dst + i * j->row_bytes))
            return fail(err, STATUS_UNSUPPORTED, "%s: can't convert %s to %s", j->tensor->name,
                        dtype_name(j->tensor->dtype), dtype_name(j->w->type));
    }
    return STATUS_OK;
}

static enum status fill_rows(const struct fill_job *j, uint64_t begin, uint64_t end, struct error *err)
{
    bool converts = j->w->type != j->tensor->dtype;
    uint64_t widest = j->source_row_bytes > j->row_bytes ? j->source_row_bytes : j->row_bytes;
    uint64_t slice = SLICE_BYTES / widest / PANEL_ROWS * PANEL_ROWS;
    if (slice == 0)
        slice = PANEL_ROWS;
    if (slice > end - begin)
        slice = end - begin;
    uint8_t *raw = mem_alloc(slice * j->source_row_bytes);
    uint8_t *converted = converts ? mem_alloc(slice * j->row_bytes) : NULL;
    float *row = converts ? mem_array(j->w->cols, sizeof *row) : NULL;
    enum status status = STATUS_OK;
    if (!raw || (converts && (!converted || !row)))
        status = fail(err, STATUS_NO_MEMORY, "%s: a slice of %llu rows", j->tensor->name,
                      (unsigned long long)slice);
    for (uint64_t r = begin; r < end && status == STATUS_OK; r += slice) {
        uint64_t n = end - r < slice ? end - r : slice;
        status = read_rows(j, r, n, raw, err);
        if (status == STATUS_OK && converts)
            status = convert_rows(j, n, raw, row, converted, err);
        if (status == STATUS_OK)
            packed_fill(j->w, (uint32_t)r, (uint32_t)(r + n), converts ? converted : raw);
    }
    mem_free(raw);
    mem_free(converted);
    mem_free(row);
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

/* Types that --quant gives a matrix. A row length that is no multiple of 32 keeps the file's type, and with
 * q4_0 the embedding and the head are q8_0: they hurt most when coarse, and are read once a step. */
static enum dtype target_type(enum quant quant, enum dtype source, uint32_t cols, bool is_embedding)
{
    switch (quant) {
    case QUANT_F32:
        return DTYPE_F32;
    case QUANT_BF16:
        return DTYPE_BF16;
    case QUANT_Q8_0:
        return cols % ACT_BLOCK ? source : DTYPE_Q8_0;
    case QUANT_Q4_0:
        return cols % ACT_BLOCK ? source : is_embedding ? DTYPE_Q8_0 : DTYPE_Q4_0;
    case QUANT_AUTO:
        break;
    }
    return source;
}

static enum status load_matrix(struct loader *l, const char *name, struct row_order order, bool is_embedding,
                               struct packed *w, struct error *err)
{
    uint32_t rows = w->rows, cols = w->cols;
    const struct tensor *t = find_tensor(l, name, rows, cols, err);
    if (!t)
        return STATUS_FORMAT;
    struct fill_job job = {
        .tensors = l->tensors, .tensor = t, .w = w, .order = order, .failed = ATOMIC_FLAG_INIT};
    size_t size_bytes;
    enum dtype type = target_type(l->options ? l->options->quant : QUANT_AUTO, t->dtype, cols, is_embedding);
    if (!dtype_row_bytes(t->dtype, cols, &job.source_row_bytes) ||
        !dtype_row_bytes(type, cols, &job.row_bytes))
        return fail(err, STATUS_FORMAT, "%s: rows of %u values are no whole blocks of %s", name, cols,
                    dtype_name(t->dtype));
    enum status status = packed_shape(type, rows, cols, w, &size_bytes, err);
    if (status != STATUS_OK)
        return fail_within(err, "%s", name);
    if (!l->options)
        return STATUS_OK;
    w->data = mem_aligned(64, size_bytes);
    if (!w->data)
        return fail(err, STATUS_NO_MEMORY, "%s: %zu bytes of packed weights", name, size_bytes);
    if (l->options->team)
        team_run(l->options->team, fill_task, &job);
    else
        fill_task(&job, 0, 1);
    if (job.status != STATUS_OK) {
        if (err)
            *err = job.error;
        return job.status;
    }
    l->m->info.size_bytes += size_bytes;
    l->values_of_type[type] += t->n_values;
    return STATUS_OK;
}

/* ---- the model's tensors ---- */

static void layer_name(const struct loader *l, uint32_t layer, const char *suffix, const char *kind,
                       char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, "%s%u.%s.%s", l->names->layer_prefix, layer, suffix, kind);
}

static struct row_order site_order(const struct loader *l, enum lora_site site)
{
    const struct model_config *c = &l->m->config;
    if (!c->from_gguf || !l->m->family->gguf_permuted || (site != LORA_SITE_Q && site != LORA_SITE_K))
        return (struct row_order){0};
    return (struct row_order){site == LORA_SITE_Q ? c->n_heads : c->n_kv_heads, c->head_dim};
}

/* GGUF metadata doesn't mention biases: there the tensor's presence says it. */
static bool site_has_bias(const struct loader *l, enum lora_site site, const char *name)
{
    const struct model_config *c = &l->m->config;
    const struct family *f = l->m->family;
    if (site <= LORA_SITE_V && f->qkv_bias)
        return true;
    if (c->from_gguf)
        return tensors_find(l->tensors, name) != NULL;
    if (site <= LORA_SITE_O)
        return c->attention_bias && !f->qkv_bias;
    return c->mlp_bias;
}

static enum status load_module(struct loader *l, uint32_t layer, const struct module_name *module,
                               struct error *err)
{
    struct model_layer *to = &l->m->layers[layer];
    char name[NAME_BYTES];
    enum lora_site site = module->site;
    struct row_order order = site_order(l, site);
    struct packed *w = &to->w[site];
    require(model_site_shape(l->m, site, &w->rows, &w->cols));
    layer_name(l, layer, module->suffix, "weight", name);
    enum status status = load_matrix(l, name, order, false, w, err);
    if (status != STATUS_OK)
        return status;
    layer_name(l, layer, module->suffix, "bias", name);
    if (!site_has_bias(l, site, name))
        return STATUS_OK;
    return load_vector(l, name, w->rows, order, &to->bias[site], err);
}

static enum status load_norms(struct loader *l, uint32_t layer, struct error *err)
{
    const struct family *f = l->m->family;
    const struct model_config *c = &l->m->config;
    struct model_layer *to = &l->m->layers[layer];
    enum status status = STATUS_OK;
    char name[NAME_BYTES];
    for (unsigned n = 0; n < NORM_LAYER_COUNT && status == STATUS_OK; n++) {
        bool head = n == NORM_Q || n == NORM_K, post = n == NORM_ATTN_OUT || n == NORM_FFN_OUT;
        if ((head && !f->qk_norm) || (post && !f->post_norms))
            continue;
        layer_name(l, layer, l->names->norm[n], "weight", name);
        status = load_vector(l, name, head ? c->head_dim : c->hidden_size, (struct row_order){0},
                             &to->norm[n], err);
    }
    return status;
}

static enum status load_ends(struct loader *l, struct error *err)
{
    struct model *m = l->m;
    struct row_order as_it_is = {0};
    m->embed.rows = m->head.rows = m->config.vocab_size;
    m->embed.cols = m->head.cols = m->config.hidden_size;
    char embed[NAME_BYTES], head[NAME_BYTES], norm[NAME_BYTES];
    snprintf(embed, sizeof embed, "%s.weight", l->names->embed);
    snprintf(head, sizeof head, "%s.weight", l->names->head);
    snprintf(norm, sizeof norm, "%s.weight", l->names->final_norm);
    enum status status = load_matrix(l, embed, as_it_is, true, &m->embed, err);
    if (status != STATUS_OK)
        return status;
    if (m->config.from_gguf ? !tensors_find(l->tensors, head) : m->config.tie_word_embeddings) {
        m->head = m->embed;
        m->tied = true;
    } else if ((status = load_matrix(l, head, as_it_is, true, &m->head, err)) != STATUS_OK) {
        return status;
    }
    return load_vector(l, norm, m->config.hidden_size, as_it_is, &m->final_norm, err);
}

/* ---- what is left over ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* Tensors that hold nothing new: old rotary buffers, GGUF's frequency factors (the configuration has read
 * them), and the copy of a tied head that some tools save. */
static bool is_harmless(const struct loader *l, const char *name)
{
    size_t head = strlen(l->names->head);
    return ends_with(name, ".rotary_emb.inv_freq") ||
           (strcmp(name, "rope_freqs.weight") == 0 && l->m->config.rope.n_factors > 0) ||
           (l->m->tied && strncmp(name, l->names->head, head) == 0 && strcmp(name + head, ".weight") == 0);
}

static bool is_bound(const struct loader *l, const struct tensor *t)
{
    for (size_t i = 0; i < l->n_bound; i++)
        if (l->bound[i] == t)
            return true;
    return false;
}

static enum status refuse_surplus(const struct loader *l, struct error *err)
{
    size_t n = tensors_count(l->tensors);
    for (size_t i = 0; n != l->n_bound && i < n; i++) {
        const struct tensor *t = tensors_at(l->tensors, i);
        if (!is_harmless(l, t->name) && !is_bound(l, t))
            return fail(
                err, STATUS_UNSUPPORTED,
                "%s: a %s model of %u layers has no such tensor; its architecture may be another than "
                "the configuration says",
                t->name, l->m->family->name, l->m->config.n_layers);
    }
    return STATUS_OK;
}

static enum status load_all(struct loader *l, struct error *err)
{
    enum status status = load_ends(l, err);
    for (uint32_t layer = 0; layer < l->m->config.n_layers && status == STATUS_OK; layer++) {
        status = load_norms(l, layer, err);
        for (const struct module_name *n = l->names->modules; n->suffix && status == STATUS_OK; n++)
            status = load_module(l, layer, n, err);
    }
    return status == STATUS_OK ? refuse_surplus(l, err) : status;
}

enum status weights_load(struct model *m, const struct model_files *files,
                         const struct model_options *options, struct error *err)
{
    struct loader l = {.m = m,
                       .tensors = files->tensors,
                       .options = options,
                       .names = m->config.from_gguf ? &gguf_names : m->family->names,
                       .bound_limit =
                           3 + (size_t)m->config.n_layers * (NORM_LAYER_COUNT + 2 * N_LAYER_SITES)};
    l.bound = mem_array(l.bound_limit, sizeof *l.bound);
    m->layers = mem_array(m->config.n_layers, sizeof *m->layers);
    if (!l.bound || !m->layers) {
        mem_free(l.bound);
        return fail(err, STATUS_NO_MEMORY, "the table of %u layers", m->config.n_layers);
    }
    enum status status = load_all(&l, err);
    for (unsigned t = 0; t < DTYPE_COUNT; t++)
        if (l.values_of_type[t] > l.values_of_type[m->info.weight_type])
            m->info.weight_type = (enum dtype)t;
    mem_free(l.bound);
    return status;
}
