/* The tensors of a Hugging Face folder, out of a model in memory: in the names and layout that the base's
 * files have (or the family's own, for a GGUF base), with the values that the pass uses. What a file has one
 * tensor for (q, k and v; gate and up; all experts) is put together again from its parts, gpt2's matrices are
 * turned over. */
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/mem.h"
#include "model_inner.h"

/* Rows of a tensor: of a matrix, or values of a vector; both NULL: zeros. */
struct part {
    const struct packed *w;
    const float *vector;
    uint32_t n;
};

struct item {
    struct export_tensor tensor; /* what the caller sees */
    size_t first_part, n_parts;  /* in parts */
    bool turned;                 /* the file has [in, out] */
    float offset;                /* added to each value */
};

struct model_export {
    struct arena *arena; /* names */
    const struct model *m;
    const struct model_files *files;
    struct naming naming;
    struct export_changes changes;
    struct item *items;
    struct part *parts;
    size_t n_items, items_room, n_parts, parts_room;
};

static enum status no_memory(struct error *err)
{
    return fail(err, STATUS_NO_MEMORY, "the table of tensors to write");
}

static bool make_room(void **items, size_t n, size_t *room, size_t item_bytes)
{
    if (n < *room)
        return true;
    size_t wanted = *room ? *room * 2 : 128, bytes;
    void *p = size_mul(wanted, item_bytes, &bytes) ? mem_realloc(*items, bytes) : NULL;
    if (p) {
        *items = p;
        *room = wanted;
    }
    return p != NULL;
}

/* ---- building the table ---- */

/* The file's type where that is a plain float; else one that holds what the weights are worth. */
static enum dtype type_of(const struct model_export *e, const char *name, bool vector)
{
    bool gguf = e->m->config.from_gguf;
    const struct tensor *t = gguf ? NULL : tensors_find(e->files->tensors, name);
    enum dtype weights = dtype_is_float(e->m->info.weight_type) ? e->m->info.weight_type : DTYPE_BF16;
    if (t && dtype_is_float(t->dtype))
        return t->dtype;
    return vector && gguf ? DTYPE_F32 : weights;
}

/* A tensor of this name whose parts follow; NULL: no memory. Its shape is set by add_part. */
static struct item *add_item(struct model_export *e, const char *name, bool vector, struct error *err)
{
    if (!make_room((void **)&e->items, e->n_items, &e->items_room, sizeof *e->items)) {
        no_memory(err);
        return NULL;
    }
    struct item *item = &e->items[e->n_items];
    *item = (struct item){.first_part = e->n_parts,
                          .tensor = {.name = arena_strdup(e->arena, name), .type = type_of(e, name, vector)}};
    item->tensor.n_dims = vector ? 1 : 2;
    if (!item->tensor.name) {
        no_memory(err);
        return NULL;
    }
    e->n_items++;
    return item;
}

static enum status add_part(struct model_export *e, struct item *item, const struct part *part, uint32_t cols,
                            struct error *err)
{
    if (!make_room((void **)&e->parts, e->n_parts, &e->parts_room, sizeof *e->parts))
        return no_memory(err);
    e->parts[e->n_parts++] = *part;
    item->n_parts++;
    item->tensor.shape[0] += part->n;
    item->tensor.shape[1] = cols;
    return STATUS_OK;
}

static enum status add_matrix(struct model_export *e, const char *name, const struct packed *w,
                              struct error *err)
{
    struct item *item = add_item(e, name, false, err);
    return item ? add_part(e, item, &(struct part){.w = w, .n = w->rows}, w->cols, err) : STATUS_NO_MEMORY;
}

static enum status add_vector(struct model_export *e, const char *name, const float *values, uint32_t n,
                              float offset, struct error *err)
{
    struct item *item = add_item(e, name, true, err);
    if (!item)
        return STATUS_NO_MEMORY;
    item->offset = offset;
    return add_part(e, item, &(struct part){.vector = values, .n = n}, 1, err);
}

/* GGUF's norms have the family's offset inside. */
static float norm_offset(const struct model *m)
{
    return m->norm_offset - m->family->norm_offset;
}

static enum status add_norms(struct model_export *e, uint32_t layer, struct error *err)
{
    const struct model_layer *l = &e->m->layers[layer];
    enum status s = STATUS_OK;
    char name[NAME_BYTES];
    for (unsigned n = 0; n < NORM_LAYER_COUNT && s == STATUS_OK; n++) {
        uint32_t length = norm_length(e->m, (enum norm_id)n);
        if (!l->norm[n])
            continue;
        naming_layer(&e->naming, layer, e->naming.names->norm[n], "weight", name);
        s = add_vector(e, name, l->norm[n], length, norm_offset(e->m), err);
        naming_layer(&e->naming, layer, e->naming.names->norm[n], "bias", name);
        if (s == STATUS_OK && l->norm_bias[n])
            s = add_vector(e, name, l->norm_bias[n], length, 0, err);
    }
    return s;
}

static bool wants_bias(const struct model_export *e, const struct model_layer *l, enum lora_site site)
{
    return l->bias[site] || (site <= LORA_SITE_O ? e->changes.attention_bias : e->changes.mlp_bias);
}

static enum status add_module(struct model_export *e, uint32_t layer, const struct module_name *module,
                              struct error *err)
{
    const struct model_layer *l = &e->m->layers[layer];
    char name[NAME_BYTES];
    bool bias = false;
    naming_layer(&e->naming, layer, module->suffix, "weight", name);
    struct item *item = add_item(e, name, false, err);
    enum status s = item ? STATUS_OK : STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < module->n_sites && s == STATUS_OK; i++) {
        const struct packed *w = &l->w[module->site + i];
        bias = bias || wants_bias(e, l, module->site + i);
        s = add_part(e, item, &(struct part){.w = w, .n = w->rows}, w->cols, err);
    }
    if (s == STATUS_OK)
        item->turned = e->m->family->conv1d;
    if (s != STATUS_OK || !bias)
        return s;
    naming_layer(&e->naming, layer, module->suffix, "bias", name);
    item = add_item(e, name, true, err);
    s = item ? STATUS_OK : STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < module->n_sites && s == STATUS_OK; i++) {
        uint32_t site = module->site + i;
        s = add_part(e, item, &(struct part){.vector = l->bias[site], .n = l->w[site].rows}, 1, err);
    }
    return s;
}

static enum status add_sites(struct model_export *e, uint32_t layer, struct error *err)
{
    enum status s = STATUS_OK;
    for (unsigned site = LORA_SITE_Q; site <= LORA_SITE_DOWN && s == STATUS_OK;) {
        if (!layer_has_site(e->m, layer, (enum lora_site)site)) {
            site++;
            continue;
        }
        const struct module_name *module = naming_module(&e->naming, layer, (enum lora_site)site);
        require(module);
        s = add_module(e, layer, module, err);
        site += module->n_sites;
    }
    return s;
}

/* All experts' matrices of one kind as one tensor; gate and up in turn if `pair`. */
static enum status add_stack(struct model_export *e, uint32_t layer, const char *suffix, unsigned first,
                             bool pair, struct error *err)
{
    const struct packed *w = e->m->layers[layer].experts;
    uint32_t n = e->m->config.n_experts;
    char name[NAME_BYTES];
    require(n > 0);
    naming_layer(&e->naming, layer, suffix, "", name);
    struct item *item = add_item(e, name, false, err);
    enum status s = item ? STATUS_OK : STATUS_NO_MEMORY;
    for (uint32_t i = 0; i < n * (pair ? 2 : 1) && s == STATUS_OK; i++) {
        const struct packed *one = pair ? &w[3 * (i / 2) + i % 2] : &w[3 * i + first];
        s = add_part(e, item, &(struct part){.w = one, .n = one->rows}, one->cols, err);
    }
    if (s == STATUS_OK) {
        struct export_tensor *t = &item->tensor;
        t->n_dims = 3;
        t->shape[2] = t->shape[1];
        t->shape[1] = t->shape[0] / n;
        t->shape[0] = n;
    }
    return s;
}

static enum status add_each(struct model_export *e, uint32_t layer, const struct expert_names *names,
                            unsigned i, struct error *err)
{
    enum status s = STATUS_OK;
    char name[NAME_BYTES], module[NAME_BYTES];
    for (uint32_t x = 0; x < e->m->config.n_experts && s == STATUS_OK; x++) {
        snprintf(module, sizeof module, "%s%u%s", names->one[i], x, names->tail[i]);
        naming_layer(&e->naming, layer, module, "weight", name);
        s = add_matrix(e, name, &e->m->layers[layer].experts[3 * x + i], err);
    }
    return s;
}

static enum status add_experts(struct model_export *e, uint32_t layer, struct error *err)
{
    const struct expert_names *names = naming_experts(&e->naming, layer);
    char name[NAME_BYTES];
    naming_layer(&e->naming, layer, names->router, "weight", name);
    enum status s = add_matrix(e, name, &e->m->layers[layer].w[LORA_SITE_ROUTER], err);
    for (unsigned i = 0; i < 3 && s == STATUS_OK; i++) {
        if (names->stacked[i] && naming_layer_has(&e->naming, layer, names->stacked[i], ""))
            s = add_stack(e, layer, names->stacked[i], i, false, err);
        else if (i < 2 && naming_layer_has(&e->naming, layer, names->stacked_gate_up, ""))
            s = i == 0 ? add_stack(e, layer, names->stacked_gate_up, 0, true, err) : STATUS_OK;
        else
            s = add_each(e, layer, names, i, err);
    }
    return s;
}

static enum status add_ends(struct model_export *e, struct error *err)
{
    const struct model *m = e->m;
    const struct tensor_names *names = e->naming.names;
    char name[NAME_BYTES];
    naming_set(&e->naming, names->embed, "weight", name);
    enum status s = add_matrix(e, name, &m->embed, err);
    if (s == STATUS_OK && m->position_embed.data) {
        naming_set(&e->naming, names->position_embed, "weight", name);
        s = add_matrix(e, name, &m->position_embed, err);
    }
    naming_set(&e->naming, names->head, "weight", name);
    if (s == STATUS_OK && !m->tied)
        s = add_matrix(e, name, &m->head, err);
    naming_set(&e->naming, names->final_norm, "weight", name);
    if (s == STATUS_OK)
        s = add_vector(e, name, m->final_norm, m->config.hidden_size, norm_offset(m), err);
    naming_set(&e->naming, names->final_norm, "bias", name);
    if (s == STATUS_OK && m->final_norm_bias)
        s = add_vector(e, name, m->final_norm_bias, m->config.hidden_size, 0, err);
    return s;
}

/* ---- biases that the base doesn't have ---- */

/* Whether transformers' configuration of a family can say that a site has a bias. */
static bool may_have_bias(const struct family *f, enum lora_site site)
{
    static const char *const attention[] = {"llama",   "qwen3", "gemma2",   "gemma3_text",
                                            "granite", "olmo2", "qwen3_moe"};
    for (size_t i = 0; i < sizeof attention / sizeof attention[0]; i++)
        if (strcmp(f->model_type, attention[i]) == 0)
            return site <= LORA_SITE_O || strcmp(f->model_type, "llama") == 0 ||
                   strcmp(f->model_type, "granite") == 0;
    return false;
}

static bool base_has_bias(const struct model *m, enum lora_site site)
{
    const struct family *f = m->family;
    if (f->all_bias || (f->qkv_bias && site <= LORA_SITE_V))
        return true;
    return site <= LORA_SITE_O ? m->config.attention_bias && !f->qkv_bias : m->config.mlp_bias;
}

static enum status find_new_biases(struct model_export *e, struct error *err)
{
    const struct model *m = e->m;
    for (uint32_t layer = 0; layer < m->config.n_layers; layer++)
        for (unsigned i = 0; i < N_LAYER_SITES; i++) {
            enum lora_site site = (enum lora_site)i;
            if (!m->layers[layer].bias[site] || base_has_bias(m, site))
                continue;
            if (!may_have_bias(m->family, site))
                return fail(err, STATUS_UNSUPPORTED,
                            "%s: the adapter gives it a bias (lora_bias), for which a %s model has no place; "
                            "serve the "
                            "adapter unmerged",
                            lora_site_name(site), m->family->name);
            *(site <= LORA_SITE_O ? &e->changes.attention_bias : &e->changes.mlp_bias) = true;
        }
    return STATUS_OK;
}

static enum status fill(struct model_export *e, struct error *err)
{
    const struct model *m = e->m;
    e->changes.untied = m->config.tie_word_embeddings && !m->tied;
    enum status s = find_new_biases(e, err);
    if (s == STATUS_OK)
        s = add_ends(e, err);
    for (uint32_t layer = 0; layer < m->config.n_layers && s == STATUS_OK; layer++) {
        s = add_norms(e, layer, err);
        if (s == STATUS_OK)
            s = add_sites(e, layer, err);
        if (s == STATUS_OK && m->config.layer_is_sparse[layer])
            s = add_experts(e, layer, err);
    }
    return s;
}

enum status model_export_create(const struct model *m, const struct model_files *files,
                                struct model_export **out, struct error *err)
{
    *out = NULL;
    struct model_export *e = mem_zalloc(sizeof *e);
    if (!e || !(e->arena = arena_create(0))) {
        mem_free(e);
        return no_memory(err);
    }
    e->m = m;
    e->files = files;
    naming_init(&e->naming, m, m->config.from_gguf ? NULL : files->tensors, m->family->names);
    enum status s = fill(e, err);
    if (s == STATUS_OK)
        for (size_t i = 0; i < e->n_items; i++)
            if (e->items[i].turned) {
                struct export_tensor *t = &e->items[i].tensor;
                uint64_t rows = t->shape[0];
                t->shape[0] = t->shape[1];
                t->shape[1] = rows;
            }
    if (s == STATUS_OK)
        *out = e;
    else
        model_export_destroy(e);
    return s;
}

void model_export_destroy(struct model_export *e)
{
    if (!e)
        return;
    arena_destroy(e->arena);
    mem_free(e->items);
    mem_free(e->parts);
    mem_free(e);
}

/* ---- values ---- */

size_t model_export_count(const struct model_export *e)
{
    return e->n_items;
}

const struct export_tensor *model_export_at(const struct model_export *e, size_t index)
{
    require(index < e->n_items);
    return &e->items[index].tensor;
}

struct export_changes model_export_changes(const struct model_export *e)
{
    return e->changes;
}

/* Row `row` of the parts, one below another. */
static void read_row(const struct model_export *e, const struct item *item, uint64_t row, float *y)
{
    const struct part *p = &e->parts[item->first_part];
    while (row >= p->n) {
        row -= p->n;
        p++;
    }
    if (p->w)
        packed_row_f32(p->w, (uint32_t)row, y);
    else
        *y = p->vector ? p->vector[row] + item->offset : 0;
}

/* Columns [begin, begin + n) of the matrix, as rows. */
static enum status read_turned(const struct model_export *e, const struct item *item, uint64_t begin,
                               uint64_t n, float *y, struct error *err)
{
    uint64_t cols = item->tensor.shape[0], rows = item->tensor.shape[1];
    float *row = mem_array((size_t)cols, sizeof *row);
    if (!row)
        return no_memory(err);
    for (uint64_t r = 0; r < rows; r++) {
        read_row(e, item, r, row);
        for (uint64_t c = 0; c < n; c++)
            y[c * rows + r] = row[begin + c];
    }
    mem_free(row);
    return STATUS_OK;
}

enum status model_export_rows(const struct model_export *e, size_t index, uint64_t begin, uint64_t n,
                              float *y, struct error *err)
{
    require(index < e->n_items);
    const struct item *item = &e->items[index];
    const struct export_tensor *t = &item->tensor;
    uint64_t cols = t->n_dims == 1 ? 1 : t->shape[t->n_dims - 1];
    if (item->turned)
        return read_turned(e, item, begin, n, y, err);
    for (uint64_t i = 0; i < n; i++)
        read_row(e, item, begin + i, y + i * cols);
    return STATUS_OK;
}
