/* Checks tensors against places and turns them into pairs. The tensors' bytes are the private copy that the
 * loader made; only values that lie unaligned there are copied once more. */
#include "content.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

struct content *content_create(const struct model *m, struct adapter_report *report)
{
    struct content *c = mem_zalloc(sizeof *c);
    if (!c)
        return NULL;
    c->model = m;
    c->report = report;
    c->shown = "";
    c->arena = arena_create(0);
    c->pairs = mem_array(SLOT_COUNT, sizeof *c->pairs);
    if (!c->arena || !c->pairs) {
        content_destroy(c);
        return NULL;
    }
    return c;
}

void content_destroy(struct content *c)
{
    if (!c)
        return;
    arena_destroy(c->arena);
    mem_free(c->pairs);
    mem_free(c);
}

struct slot *content_slot(struct content *c, enum lora_site site, uint32_t layer)
{
    require((unsigned)site < LORA_SITE_COUNT && layer < CONFIG_LAYERS_MAX);
    return &c->slots[(size_t)site * CONFIG_LAYERS_MAX + layer];
}

enum status content_put(struct content *c, struct slot *slot, const char *path, const struct tensor **member,
                        const struct tensor *t, struct error *err)
{
    if (*member)
        return fail(err, STATUS_FORMAT, "%s: '%s' and '%s' are for the same module", c->shown,
                    (*member)->name, t->name);
    if (!slot->path) {
        slot->path = arena_strdup(c->arena, path);
        if (!slot->path)
            return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    }
    *member = t;
    return STATUS_OK;
}

static bool all_finite(enum dtype type, const unsigned char *p, uint64_t n)
{
    /* The exponent's bits all set: infinity or NaN. memcpy: the bytes are aligned to nothing. */
    uint32_t wide;
    uint16_t narrow;
    for (uint64_t i = 0; i < n; i++) {
        if (type == DTYPE_F32) {
            memcpy(&wide, p + 4 * i, sizeof wide);
            if ((wide & 0x7f800000U) == 0x7f800000U)
                return false;
        } else {
            uint16_t mask = type == DTYPE_F16 ? 0x7c00U : 0x7f80U;
            memcpy(&narrow, p + 2 * i, sizeof narrow);
            if ((narrow & mask) == mask)
                return false;
        }
    }
    return true;
}

/* Type and values; *data are the bytes, aligned for their type. */
static enum status take_values(struct content *c, const struct tensor *t, const void **data,
                               struct error *err)
{
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_BF16)
        return fail(err, STATUS_UNSUPPORTED, "%s: tensor '%s' is %s, expected f32, f16 or bf16", c->shown,
                    t->name, dtype_name(t->dtype));
    const void *p = tensor_data(c->tensors, t);
    require(p != NULL); /* loaders open with a private copy */
    if (!all_finite(t->dtype, p, t->n_values))
        return fail(err, STATUS_FORMAT, "%s: tensor '%s' has an infinite value or NaN", c->shown, t->name);
    if ((uintptr_t)p % dtype_info(t->dtype)->block_bytes) {
        void *aligned = arena_alloc(c->arena, (size_t)t->size_bytes);
        if (!aligned)
            return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
        memcpy(aligned, p, (size_t)t->size_bytes);
        p = aligned;
    }
    *data = p;
    return STATUS_OK;
}

static enum status check_shapes(const struct content *c, const struct slot *s, struct error *err)
{
    const struct tensor *a = s->a, *b = s->b;
    uint32_t out, in;
    if (a->n_dims != 2 || b->n_dims != 2)
        return fail(err, STATUS_FORMAT, "%s: tensor '%s' has %u dimensions, expected 2", c->shown,
                    a->n_dims != 2 ? a->name : b->name, a->n_dims != 2 ? a->n_dims : b->n_dims);
    if (a->shape[0] == 0 || a->shape[0] > ADAPTER_RANK_MAX)
        return fail(err, STATUS_FORMAT, "%s: tensor '%s' has rank %" PRIu64 ", expected 1 to %d", c->shown,
                    a->name, a->shape[0], ADAPTER_RANK_MAX);
    if (b->shape[1] != a->shape[0])
        return fail(err, STATUS_FORMAT,
                    "%s: tensor '%s' is [%" PRIu64 ", %" PRIu64 "], its partner has rank %" PRIu64, c->shown,
                    b->name, b->shape[0], b->shape[1], a->shape[0]);
    if (a->shape[1] == 0 || a->shape[1] > UINT32_MAX || b->shape[0] == 0 || b->shape[0] > UINT32_MAX)
        return fail(err, STATUS_FORMAT, "%s: tensor '%s': a dimension is zero or too large", c->shown,
                    a->name);
    if (!c->model)
        return STATUS_OK;
    if (!model_site_shape(c->model, slot_site(c, s), &out, &in))
        return fail(err, STATUS_MISMATCH, "%s: module '%s': this base has no such module", c->shown, s->path);
    if (a->shape[1] != in)
        return fail(err, STATUS_MISMATCH,
                    "%s: tensor '%s' is [%" PRIu64 ", %" PRIu64
                    "], this base needs [r, %u]: it was trained on "
                    "another base",
                    c->shown, a->name, a->shape[0], a->shape[1], in);
    if (b->shape[0] != out)
        return fail(err, STATUS_MISMATCH,
                    "%s: tensor '%s' is [%" PRIu64 ", %" PRIu64
                    "], this base needs [%u, r]: it was trained on "
                    "another base",
                    c->shown, b->name, b->shape[0], b->shape[1], out);
    return STATUS_OK;
}

enum status content_add_pair(struct content *c, const struct slot *slot, float scale, struct error *err)
{
    if (!slot->a || !slot->b)
        return fail(err, STATUS_FORMAT, "%s: module '%s' has %s, but the other half is missing", c->shown,
                    slot->path, slot->a ? slot->a->name : slot->b->name);
    enum status s = check_shapes(c, slot, err);
    if (s != STATUS_OK)
        return s;
    struct lora_pair p = {.module = {.site = slot_site(c, slot), .layer = slot_layer(c, slot)},
                          .a_type = slot->a->dtype,
                          .b_type = slot->b->dtype,
                          .rank = (uint32_t)slot->a->shape[0],
                          .in = (uint32_t)slot->a->shape[1],
                          .out = (uint32_t)slot->b->shape[0],
                          .scale = scale};
    if (c->model && !model_module_of(c->model, slot_site(c, slot), slot_layer(c, slot), &p.module))
        return fail(err, STATUS_MISMATCH, "%s: module '%s': this base has no such module", c->shown,
                    slot->path);
    s = take_values(c, slot->a, &p.a, err);
    if (s == STATUS_OK)
        s = take_values(c, slot->b, &p.b, err);
    if (s == STATUS_OK)
        c->pairs[c->n_pairs++] = p;
    return s;
}

void content_report(struct content *c)
{
    struct adapter_report *r = c->report;
    size_t used = 0;
    bool seen[LORA_SITE_COUNT] = {false};
    r->n_modules = (uint32_t)c->n_pairs;
    r->rank_min = c->n_pairs ? UINT32_MAX : 0;
    r->rank_max = 0;
    r->n_parameters = 0;
    r->modules[0] = '\0';
    for (size_t i = 0; i < c->n_pairs; i++) {
        const struct lora_pair *p = &c->pairs[i];
        r->rank_min = p->rank < r->rank_min ? p->rank : r->rank_min;
        r->rank_max = p->rank > r->rank_max ? p->rank : r->rank_max;
        r->n_parameters += (uint64_t)p->rank * ((uint64_t)p->in + p->out);
        if (!seen[p->module.site] && used < sizeof r->modules)
            used += (size_t)snprintf(r->modules + used, sizeof r->modules - used, "%s%s", used ? " " : "",
                                     lora_site_name(p->module.site));
        seen[p->module.site] = true;
    }
}
