/* The modules of a base by the paths that Hugging Face files and PEFT give them: what an adapter's tensors
 * are matched against, and what messages call a place. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_inner.h"

static bool linear(const struct model *m, const struct module_name *name, uint32_t layer,
                   struct model_module *out)
{
    *out = (struct model_module){
        .kind = MODULE_LINEAR, .layer = layer, .expert = -1, .site = name->site, .n_sites = name->n_sites};
    for (uint32_t i = 0; i < name->n_sites; i++) {
        uint32_t rows;
        if (!layer_has_site(m, layer, name->site + i) ||
            !model_site_shape(m, name->site + i, &rows, &out->in))
            return false;
        out->out += rows;
    }
    return true;
}

static bool router(const struct model *m, uint32_t layer, struct model_module *out)
{
    return linear(m, &(struct module_name){"", LORA_SITE_ROUTER, 1}, layer, out);
}

static bool lm_head(const struct model *m, struct model_module *out)
{
    return linear(m, &(struct module_name){"", LORA_SITE_LM_HEAD, 1}, 0, out);
}

static bool layer_norm(const struct model *m, enum norm_id norm, uint32_t layer, struct model_module *out)
{
    *out = (struct model_module){
        .kind = MODULE_NORM, .layer = layer, .expert = -1, .norm = norm, .out = norm_length(m, norm)};
    return norm == NORM_FINAL || m->layers[layer].norm[norm] != NULL;
}

/* One spelling of a number only: no sign, no space, no leading zero. NULL: there is none below the limit. */
static const char *behind_index(const char *digits, uint32_t limit, uint32_t *index)
{
    if (*digits < '0' || *digits > '9' || (digits[0] == '0' && digits[1] != '.'))
        return NULL;
    char *end;
    unsigned long i = strtoul(digits, &end, 10);
    if (*end != '.' || i >= limit)
        return NULL;
    *index = (uint32_t)i;
    return end;
}

/* The part of a path behind its layer, or NULL. */
static const char *behind_layer(const struct model *m, const char *path, uint32_t *layer)
{
    const char *prefix = m->family->names->layer_prefix, *end;
    if (strncmp(path, prefix, strlen(prefix)) != 0)
        return NULL;
    end = behind_index(path + strlen(prefix), m->config.n_layers, layer);
    return end ? end + 1 : NULL;
}

/* "mlp.experts.3.up_proj" */
static bool one_expert(const struct model *m, const struct expert_names *n, const char *suffix,
                       struct model_module *out)
{
    static const enum lora_site sites[3] = {LORA_SITE_GATE, LORA_SITE_UP, LORA_SITE_DOWN};
    uint32_t expert;
    for (unsigned i = 0; i < 3; i++) {
        const char *tail = strncmp(suffix, n->one[i], strlen(n->one[i])) == 0
                               ? behind_index(suffix + strlen(n->one[i]), m->config.n_experts, &expert)
                               : NULL;
        if (!tail || strcmp(tail, n->tail[i]) != 0)
            continue;
        out->kind = MODULE_LINEAR;
        out->expert = (int32_t)expert;
        out->site = sites[i];
        out->n_sites = 1;
        expert_shape(m, i, &out->out, &out->in);
        return true;
    }
    return false;
}

/* The router, an expert's linear module, or all experts, by any of their spellings. */
static bool sparse(const struct model *m, const char *suffix, uint32_t layer, struct model_module *out)
{
    for (const struct expert_names *n = m->family->names->experts; n && n->router; n++) {
        *out = (struct model_module){.kind = MODULE_EXPERTS, .layer = layer, .expert = -1};
        expert_shape(m, 0, &out->out, &out->in);
        if (strcmp(suffix, n->router) == 0)
            return router(m, layer, out);
        if (m->config.layer_is_sparse[layer] &&
            (strcmp(suffix, n->experts) == 0 || one_expert(m, n, suffix, out)))
            return true;
    }
    return false;
}

bool model_module_parse(const struct model *m, const char *path, struct model_module *out)
{
    const struct tensor_names *n = m->family->names;
    uint32_t layer;
    if (strcmp(path, "lm_head") == 0)
        return lm_head(m, out);
    if (strcmp(path, n->final_norm) == 0)
        return layer_norm(m, NORM_FINAL, 0, out);
    if (strcmp(path, n->embed) == 0) {
        *out = (struct model_module){
            .kind = MODULE_EMBED, .expert = -1, .out = m->config.hidden_size, .in = m->config.vocab_size};
        return true;
    }
    const char *suffix = behind_layer(m, path, &layer);
    for (const struct module_name *l = n->modules; suffix && l->suffix; l++)
        if (strcmp(suffix, l->suffix) == 0)
            return linear(m, l, layer, out);
    for (unsigned i = 0; suffix && i < NORM_LAYER_COUNT; i++)
        if (n->norm[i] && strcmp(suffix, n->norm[i]) == 0)
            return layer_norm(m, (enum norm_id)i, layer, out);
    return suffix && sparse(m, suffix, layer, out);
}

bool model_module_of(const struct model *m, enum lora_site site, uint32_t layer, struct model_module *out)
{
    if (site == LORA_SITE_LM_HEAD)
        return layer == 0 && lm_head(m, out);
    if (layer >= m->config.n_layers)
        return false;
    if (site == LORA_SITE_ROUTER)
        return router(m, layer, out);
    for (const struct module_name *l = m->family->names->modules; l->suffix; l++)
        if (site >= l->site && (unsigned)site < (unsigned)l->site + l->n_sites)
            return linear(m, l, layer, out);
    return false;
}

static const char *linear_suffix(const struct tensor_names *n, const struct model_module *module)
{
    if (n->experts && module->kind == MODULE_EXPERTS)
        return n->experts->experts;
    for (const struct module_name *l = n->modules; l->suffix; l++)
        if (l->site == module->site && l->n_sites == module->n_sites)
            return l->suffix;
    if (n->experts && module->site == LORA_SITE_ROUTER)
        return n->experts->router;
    return lora_site_name(module->site);
}

void model_module_path(const struct model *m, const struct model_module *module, char *dst, size_t dst_bytes)
{
    const struct tensor_names *n = m->family->names;
    if (module->kind == MODULE_EMBED)
        snprintf(dst, dst_bytes, "%s", n->embed);
    else if (module->kind == MODULE_NORM && module->norm == NORM_FINAL)
        snprintf(dst, dst_bytes, "%s", n->final_norm);
    else if (module->kind == MODULE_LINEAR && module->site == LORA_SITE_LM_HEAD)
        snprintf(dst, dst_bytes, "lm_head");
    else if (module->kind == MODULE_LINEAR && module->expert >= 0 && n->experts)
        snprintf(dst, dst_bytes, "%s%u.%s%d%s", n->layer_prefix, module->layer,
                 n->experts->one[module->site - LORA_SITE_GATE], (int)module->expert,
                 n->experts->tail[module->site - LORA_SITE_GATE]);
    else
        snprintf(dst, dst_bytes, "%s%u.%s", n->layer_prefix, module->layer,
                 module->kind == MODULE_NORM ? n->norm[module->norm] : linear_suffix(n, module));
}

bool model_weight_row(const struct model *m, const struct model_module *module, uint32_t row, float *y)
{
    bool head = module->kind == MODULE_LINEAR && module->site == LORA_SITE_LM_HEAD;
    const struct packed *w = head ? &m->head : &m->embed;
    if ((!head && module->kind != MODULE_EMBED) || !w->data || row >= w->rows || !dtype_is_float(w->type))
        return false;
    packed_row_f32(w, row, y);
    return true;
}
