/* Tensors that an adapter puts in the place of the base's: whole matrices (modules_to_save), norms, biases,
 * and single rows of the embedding. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "lora_build.h"

#define TOKEN_ROWS_MAX 65536U

static enum status check_tensor(const struct lora_builder *b, const struct lora_tensor *t, struct error *err)
{
    char path[128];
    bool vector = t->is_bias || t->module.kind == MODULE_NORM;
    uint32_t cols = vector ? 0 : t->module.kind == MODULE_EMBED ? t->module.out : t->module.in;
    uint32_t rows = !vector && t->module.kind == MODULE_EMBED ? t->module.in : t->module.out;
    model_module_path(b->m, &t->module, path, sizeof path);
    if (t->module.kind == MODULE_EXPERTS || t->module.expert >= 0 ||
        (t->is_bias && t->module.kind == MODULE_EMBED))
        return fail(err, STATUS_UNSUPPORTED, "%s: replacing its %s is not supported", path,
                    t->is_bias ? "bias" : "weights");
    if (t->rows != rows || t->cols != cols)
        return fail(err, STATUS_MISMATCH,
                    "%s: its %s in the adapter is [%u, %u], the base's is [%u, %u] (0: a vector): made for "
                    "another base, "
                    "or for one with more tokens?",
                    path, t->is_bias ? "bias" : "weight", t->rows, t->cols, rows, cols);
    if (!dtype_is_float(t->type))
        return fail(err, STATUS_UNSUPPORTED, "%s: type %s, expected f32, f16 or bf16", path,
                    dtype_name(t->type));
    return STATUS_OK;
}

/* The place's table of replaced tensors, made when it is first wanted. */
static struct lora_replaced *replaced_of(struct lora *l, const struct model_module *module)
{
    bool end = module->kind == MODULE_NORM ? module->norm == NORM_FINAL : module->site == LORA_SITE_LM_HEAD;
    struct lora_replaced **at = end ? &l->ends : &l->layers[module->layer].replaced;
    if (!*at && (*at = mem_zalloc(sizeof **at)))
        l->size_bytes += sizeof **at;
    return *at;
}

/* n floats into the block; norms of a GGUF base have the family's offset inside. */
static void lay_vector(struct lora_builder *b, const struct lora_tensor *t, uint32_t row, uint32_t n,
                       const float **place)
{
    float *values = lora_take(b, n * sizeof *values);
    *place = values;
    if (!b->memory)
        return;
    float offset =
        t->module.kind == MODULE_NORM && !t->is_bias ? b->m->family->norm_offset - b->m->norm_offset : 0;
    const uint8_t *src = (const uint8_t *)t->data + (size_t)row * dtype_info(t->type)->block_bytes;
    dequantize_row(t->type, src, n, values);
    for (uint32_t i = 0; i < n; i++)
        values[i] += offset;
}

static enum status lay_matrix(struct lora_builder *b, const struct lora_tensor *t, uint32_t row, uint32_t n,
                              struct packed *place, struct error *err)
{
    size_t size_bytes;
    enum status status = packed_shape(t->type, n, t->cols, place, &size_bytes, err);
    if (status != STATUS_OK)
        return status;
    place->data = lora_take(b, size_bytes);
    if (b->memory)
        packed_fill(place, 0, n,
                    (const uint8_t *)t->data + (size_t)row * t->cols * dtype_info(t->type)->block_bytes);
    return STATUS_OK;
}

/* A linear module's weight or bias, cut into its sites. */
static enum status lay_linear(struct lora_builder *b, const struct lora_tensor *t, struct lora_replaced *r,
                              struct error *err)
{
    enum status status = STATUS_OK;
    uint32_t row = 0;
    for (uint32_t i = 0; i < t->module.n_sites && status == STATUS_OK; i++) {
        enum lora_site site = t->module.site + i;
        uint32_t n = module_site_rows(b->m, &t->module, site);
        if (t->is_bias)
            lay_vector(b, t, row, n, &r->bias[site]);
        else
            status = lay_matrix(b, t, row, n, &r->w[site], err);
        row += n;
    }
    return status;
}

static enum status lay_tensor(struct lora_builder *b, const struct lora_tensor *t, struct error *err)
{
    if (t->module.kind == MODULE_EMBED)
        return lay_matrix(b, t, 0, t->rows, &b->l->embed.table, err);
    struct lora_replaced *r = replaced_of(b->l, &t->module);
    if (!r)
        return fail(err, STATUS_NO_MEMORY, "adapter's table of replaced tensors");
    if (t->module.kind == MODULE_NORM) {
        lay_vector(b, t, 0, t->rows, t->is_bias ? &r->norm_bias[t->module.norm] : &r->norm[t->module.norm]);
        return STATUS_OK;
    }
    return lay_linear(b, t, r, err);
}

/* ---- single rows of the embedding ---- */

struct id_at {
    int32_t id;
    uint32_t at;
};

static int by_id(const void *a, const void *b)
{
    const struct id_at *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* Rows as a spec has them. */
struct given_rows {
    const char *what;
    const int32_t *ids;
    const float *values; /* [n, hidden] */
    size_t n;
};

static enum status fill_rows(const struct lora_builder *b, const struct given_rows *given,
                             struct lora_rows *rows, int32_t *ids, struct error *err)
{
    uint32_t n = rows->n, hidden = b->m->config.hidden_size;
    struct id_at *order = mem_array(n, sizeof *order);
    float *panel = mem_array((size_t)PANEL_ROWS * hidden, sizeof *panel);
    enum status status = order && panel ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "%u token rows", n);
    for (uint32_t i = 0; i < n && status == STATUS_OK; i++)
        order[i] = (struct id_at){given->ids[i], i};
    if (status == STATUS_OK)
        qsort(order, n, sizeof *order, by_id);
    for (uint32_t i = 0; i < n && status == STATUS_OK; i++) {
        ids[i] = order[i].id;
        if (ids[i] < 0 || (uint32_t)ids[i] >= b->m->config.vocab_size || (i > 0 && ids[i] == ids[i - 1]))
            status = fail(err, STATUS_MISMATCH,
                          "%s: token row %d is named twice or outside the base's vocabulary of %u",
                          given->what, ids[i], b->m->config.vocab_size);
        memcpy(panel + (size_t)(i % PANEL_ROWS) * hidden, given->values + (size_t)order[i].at * hidden,
               hidden * sizeof *panel);
        if (i % PANEL_ROWS == PANEL_ROWS - 1 || i + 1 == n)
            packed_fill(&rows->w, i / PANEL_ROWS * PANEL_ROWS, i + 1, panel);
    }
    mem_free(order);
    mem_free(panel);
    return status;
}

static enum status lay_rows(struct lora_builder *b, const struct given_rows *given, struct lora_rows *rows,
                            struct error *err)
{
    size_t size_bytes;
    if (given->n == 0)
        return STATUS_OK;
    if (given->n > TOKEN_ROWS_MAX)
        return fail(err, STATUS_TOO_LARGE, "%s: %zu token rows, at most %u", given->what, given->n,
                    TOKEN_ROWS_MAX);
    enum status status =
        packed_shape(DTYPE_F32, (uint32_t)given->n, b->m->config.hidden_size, &rows->w, &size_bytes, err);
    if (status != STATUS_OK)
        return status;
    rows->w.data = lora_take(b, size_bytes);
    int32_t *ids = lora_take(b, given->n * sizeof *ids);
    rows->ids = ids;
    rows->n = (uint32_t)given->n;
    if (!b->memory)
        b->l->n_parameters += (uint64_t)given->n * b->m->config.hidden_size;
    return b->memory ? fill_rows(b, given, rows, ids, err) : STATUS_OK;
}

static enum status lay_all_rows(struct lora_builder *b, struct error *err)
{
    const struct lora_spec *spec = b->spec;
    const struct given_rows embed = {"embedding", spec->row_ids, spec->rows, spec->n_rows},
                            head = {"lm_head", spec->head_row_ids, spec->head_rows, spec->n_head_rows};
    enum status status = lay_rows(b, &embed, &b->l->embed.rows, err);
    if (status == STATUS_OK)
        status = lay_rows(b, &head, &b->l->head_rows, err);
    if (spec->n_head_rows == 0 && (spec->rows_in_head || b->m->tied))
        b->l->head_rows = b->l->embed.rows;
    return status;
}

/* ---- the whole ---- */

/* True if a pair or an earlier tensor has the place. */
static bool is_taken(const struct lora_builder *b, const struct lora_tensor *t)
{
    const struct lora *l = b->l;
    const struct model_module *module = &t->module;
    if (module->kind == MODULE_EMBED)
        return l->embed.table.rows > 0 || l->embed.b.rows > 0;
    for (size_t i = 0; !t->is_bias && module->kind == MODULE_LINEAR && i < b->spec->n_pairs; i++) {
        const struct model_module *other = &b->spec->pairs[i].module;
        if (other->kind == MODULE_LINEAR && other->site == module->site && other->layer == module->layer &&
            other->expert < 0)
            return true;
    }
    for (const struct lora_tensor *s = b->spec->tensors; s < t; s++)
        if (s->is_bias == t->is_bias && s->module.kind == module->kind && s->module.layer == module->layer &&
            (module->kind == MODULE_NORM ? s->module.norm == module->norm : s->module.site == module->site))
            return true;
    return false;
}

enum status lora_lay_replaced(struct lora_builder *b, struct error *err)
{
    b->l->replaces = b->spec->n_tensors > 0 || b->spec->n_rows > 0 || b->spec->n_head_rows > 0;
    for (size_t i = 0; i < b->spec->n_tensors; i++) {
        const struct lora_tensor *t = &b->spec->tensors[i];
        enum status status = check_tensor(b, t, err);
        if (status == STATUS_OK && !b->memory && is_taken(b, t)) {
            char path[128];
            model_module_path(b->m, &t->module, path, sizeof path);
            status =
                fail(err, STATUS_MISMATCH, "%s: its weight is replaced and adapted, or replaced twice", path);
        }
        if (status == STATUS_OK)
            status = lay_tensor(b, t, err);
        if (status != STATUS_OK)
            return status;
        if (!b->memory)
            b->l->n_parameters += (uint64_t)t->rows * (t->cols ? t->cols : 1);
    }
    return lay_all_rows(b, err);
}
