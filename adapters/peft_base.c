/* What a PEFT folder says of its base, held against the one that is served: copies of the base's weights, and
 * the modules that target_modules means. */
#include <inttypes.h>
#include <math.h>

#include "kernels.h"
#include "peft.h"

/* PEFT adds untouched copies of embedding and head when they are targeted, and loads them over the base's.
 * Equal but for rounding (2^-7: two roundings to bf16), they say nothing new. */
static bool same_row(const float *a, const float *b, uint32_t n)
{
    bool same = true;
    for (uint32_t i = 0; i < n && same; i++)
        same = fabsf(a[i] - b[i]) <= 0x1p-7F * fmaxf(fabsf(a[i]), fabsf(b[i])) + 1e-6F;
    return same;
}

static enum status compare_rows(const struct peft *p, const struct model_module *module,
                                const struct tensor *t, struct error *err)
{
    struct content *c = p->c;
    struct matrix m;
    enum status s = content_matrix(c, t, &m, err);
    if (s != STATUS_OK)
        return s;
    size_t row_bytes = (size_t)m.cols * dtype_info(m.type)->block_bytes;
    float *copy = arena_array(c->arena, m.cols, sizeof *copy),
          *base = arena_array(c->arena, m.cols, sizeof *base);
    if (!copy || !base)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    for (uint32_t r = 0; r < m.rows && model_weight_row(c->model, module, r, base); r++) {
        dequantize_row(m.type, (const char *)m.data + r * row_bytes, m.cols, copy);
        if (!same_row(copy, base, m.cols))
            return fail(
                err, STATUS_MISMATCH,
                "%s: tensor '%s' is a copy of the base's weight, but row %u is not this base's: another "
                "base, "
                "or trained along with the adapter; serve the base that it belongs to, or save it with "
                "modules_to_save",
                c->shown, t->name, r);
    }
    return STATUS_OK;
}

enum status peft_check_base_copy(const struct peft *p, const struct entry *e, struct error *err)
{
    const struct tensor *t = e->part[PART_BASE_COPY];
    struct content *c = p->c;
    struct model_module m;
    if (!peft_is_end(e->path))
        return fail(err, STATUS_UNSUPPORTED,
                    "%s: tensor '%s': a copy of a base weight is expected only of lm_head and embeddings",
                    c->shown, t->name);
    if (!c->model)
        return STATUS_OK;
    enum status s = content_module(c, e, &m, err);
    if (s != STATUS_OK)
        return s;
    uint64_t rows = m.kind == MODULE_EMBED ? m.in : m.out, cols = m.kind == MODULE_EMBED ? m.out : m.in;
    if (t->n_dims == 2 && t->shape[0] == rows && t->shape[1] == cols)
        return compare_rows(p, &m, t, err);
    return fail(err, STATUS_MISMATCH,
                "%s: tensor '%s' is the base's weight, [%" PRIu64 ", %" PRIu64
                "], but this base's is [%" PRIu64 ", %" PRIu64
                "]: another base, or its vocabulary was resized; serve the base that it belongs to",
                c->shown, t->name, t->shape[0], t->shape[1], rows, cols);
}

static enum status check_site(const struct peft *p, enum lora_site site, uint32_t layer, struct error *err)
{
    struct content *c = p->c;
    struct model_module m;
    char path[256];
    bool targeted;
    if (!model_module_of(c->model, site, layer, &m) || m.site != site)
        return STATUS_OK;
    model_module_path(c->model, &m, path, sizeof path);
    const struct entry *e = content_find(c, path);
    if (e && e->part[PART_A])
        return STATUS_OK;
    enum status s = peft_is_targeted(p->config.rules, path, site == LORA_SITE_LM_HEAD, &targeted, err);
    if (s != STATUS_OK)
        return fail_within(err, "%s", c->shown);
    return targeted
               ? fail(
                     err, STATUS_FORMAT,
                     "%s: adapter_config.json targets module '%s', but the file has no lora_A and lora_B for "
                     "it: an incomplete file",
                     c->shown, path)
               : STATUS_OK;
}

/* With experts PEFT turns names of modules into names of parameters as it loads: there the tensors alone
 * tell. */
enum status peft_check_whole(const struct peft *p, struct error *err)
{
    const struct content *c = p->c;
    if (!c->model || model_config(c->model)->n_experts || !peft_rules_have_targets(p->config.rules))
        return STATUS_OK;
    for (uint32_t layer = 0; layer < model_config(c->model)->n_layers; layer++)
        for (unsigned site = 0; site < LORA_SITE_COUNT; site++) {
            enum status s = check_site(p, (enum lora_site)site, layer, err);
            if (s != STATUS_OK)
                return s;
        }
    return STATUS_OK;
}
