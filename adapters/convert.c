/* An adapter from one format to another: read by the loader of its own, for a base, and written from the same
 * specification that would be packed. So whatever can be served can be converted, or is refused by name. */
#include "convert.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernels.h"

void convert_floats(enum dtype type, const void *data, size_t begin, size_t n, float *y)
{
    dequantize_row(type, (const char *)data + begin * dtype_info(type)->block_bytes, n, y);
}

enum status convert_store(struct conversion *c, enum dtype type, const float *values, size_t n,
                          const void **out, struct error *err)
{
    void *bytes = arena_array(c->arena, n, dtype_info(type)->block_bytes);
    if (!bytes)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    require(quantize_row(type, values, n, bytes));
    for (size_t i = 0; type == DTYPE_F16 && i < n; i++)
        if (!isfinite(f16_to_f32(((const uint16_t *)bytes)[i])))
            return fail(err, STATUS_UNSUPPORTED, "%s: a value of %g is too large for f16: use --type f32",
                        c->shown, (double)values[i]);
    *out = bytes;
    return STATUS_OK;
}

bool convert_find_experts(const struct conversion *c, uint32_t layer, enum lora_site site,
                          const struct lora_pair **pairs)
{
    uint32_t n = model_config(c->options->base)->n_experts;
    bool any = false;
    for (uint32_t e = 0; e < n; e++)
        pairs[e] = NULL;
    for (size_t i = 0; i < c->spec->n_pairs; i++) {
        const struct model_module *m = &c->spec->pairs[i].module;
        if (m->kind != MODULE_LINEAR || m->expert < 0 || m->layer != layer || site < m->site ||
            site >= m->site + m->n_sites || (uint32_t)m->expert >= n)
            continue;
        pairs[m->expert] = &c->spec->pairs[i];
        any = true;
    }
    return any;
}

static enum status write(struct conversion *c, struct out_place *place, struct error *err)
{
    enum status s;
    if (c->options->to_gguf) {
        s = convert_to_gguf(c, place, place->name, err);
        return s == STATUS_OK ? out_commit_file(place, place->name, err) : s;
    }
    s = convert_to_peft(c, place, err);
    return s == STATUS_OK ? out_commit_folder(place, err) : s;
}

static enum status run(const char *path, struct out_place *place, const struct convert_options *o,
                       struct convert_report *report, struct error *err)
{
    struct loading l;
    struct adapter_source source = {.name = "converted", .path = path, .root_fd = -1, .scale = 1};
    enum status s = loading_begin(&l, &source, o->base, &report->from, err);
    if (s == STATUS_OK && strcmp(report->from.format, o->to_gguf ? "gguf" : "peft") == 0)
        s = fail(err, STATUS_INVALID, "%s: is a %s adapter already", path, report->from.format);
    if (s == STATUS_OK) {
        struct conversion c = {.options = o,
                               .shown = path,
                               .spec = &l.content->spec,
                               .arena = l.content->arena,
                               .out.arena = l.content->arena,
                               .report = report};
        s = write(&c, place, err);
        outgoing_fini(&c.out);
    }
    loading_end(&l);
    return s;
}

enum status adapter_convert(const char *path, const char *out, const struct convert_options *o,
                            struct convert_report *report, struct error *err)
{
    struct out_place place = {.parent_fd = -1, .stop = o->stop};
    *report = (struct convert_report){.alpha = 0};
    if (o->type != DTYPE_COUNT && !dtype_is_float(o->type))
        return fail(err, STATUS_INVALID, "type: found %s, expected f32, f16 or bf16", dtype_name(o->type));
    enum status s = out_begin(&place, out, err);
    if (s == STATUS_OK)
        s = run(path, &place, o, report, err);
    out_abandon(&place);
    return s;
}
