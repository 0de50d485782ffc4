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
        if (!model_site_shape(m, name->site + i, &rows, &out->in))
            return false;
        out->out += rows;
    }
    return true;
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

/* The part of a path behind its layer, or NULL; one spelling only: no sign, no space, no leading zero. */
static const char *behind_layer(const struct model *m, const char *path, uint32_t *layer)
{
    const char *prefix = m->family->names->layer_prefix, *digits = path + strlen(prefix);
    if (strncmp(path, prefix, strlen(prefix)) != 0 || *digits < '0' || *digits > '9' ||
        (digits[0] == '0' && digits[1] != '.'))
        return NULL;
    char *end;
    unsigned long index = strtoul(digits, &end, 10);
    if (*end != '.' || index >= m->config.n_layers)
        return NULL;
    *layer = (uint32_t)index;
    return end + 1;
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
    return false;
}

bool model_module_of(const struct model *m, enum lora_site site, uint32_t layer, struct model_module *out)
{
    if (site == LORA_SITE_LM_HEAD)
        return layer == 0 && lm_head(m, out);
    for (const struct module_name *l = m->family->names->modules; l->suffix && layer < m->config.n_layers;
         l++)
        if (site >= l->site && (unsigned)site < (unsigned)l->site + l->n_sites)
            return linear(m, l, layer, out);
    return false;
}

static const char *linear_suffix(const struct tensor_names *n, const struct model_module *module)
{
    for (const struct module_name *l = n->modules; l->suffix; l++)
        if (l->site == module->site && l->n_sites == module->n_sites)
            return l->suffix;
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
    else
        snprintf(dst, dst_bytes, "%s%u.%s", n->layer_prefix, module->layer,
                 module->kind == MODULE_NORM ? n->norm[module->norm] : linear_suffix(n, module));
}
