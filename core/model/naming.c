/* Names of tensors: the family's, as one file spells them. Files leave out the root ("model."), fuse modules
 * or have them apart, and call experts in three ways. */
#include <stdio.h>
#include <string.h>

#include "model_inner.h"

void naming_set(const struct naming *n, const char *module, const char *kind, char name[NAME_BYTES])
{
    size_t root = strlen(n->names->root);
    bool drops = n->bare && strncmp(module, n->names->root, root) == 0;
    snprintf(name, NAME_BYTES, "%s%s%s", module + (drops ? root : 0), *kind ? "." : "", kind);
}

void naming_layer(const struct naming *n, uint32_t layer, const char *suffix, const char *kind,
                  char name[NAME_BYTES])
{
    char module[NAME_BYTES];
    snprintf(module, sizeof module, "%s%u.%s", n->names->layer_prefix, layer, suffix);
    naming_set(n, module, kind, name);
}

bool naming_layer_has(const struct naming *n, uint32_t layer, const char *suffix, const char *kind)
{
    char name[NAME_BYTES];
    naming_layer(n, layer, suffix, kind, name);
    return n->tensors && tensors_find(n->tensors, name) != NULL;
}

void naming_init(struct naming *n, const struct model *m, const struct tensors *tensors,
                 const struct tensor_names *names)
{
    char name[NAME_BYTES];
    *n = (struct naming){.m = m, .tensors = tensors, .names = names};
    naming_set(n, names->embed, "weight", name);
    n->bare = tensors && !tensors_find(tensors, name) && tensors_find(tensors, name + strlen(names->root));
}

/* The first of a list that begins at this site; the file must have it unless `anyway`. */
static const struct module_name *find_module(const struct naming *n, uint32_t layer,
                                             const struct module_name *list, enum lora_site site, bool anyway)
{
    for (; list && list->suffix; list++)
        if (list->site == site && (anyway || naming_layer_has(n, layer, list->suffix, "weight")))
            return list;
    return NULL;
}

const struct module_name *naming_module(const struct naming *n, uint32_t layer, enum lora_site site)
{
    const struct module_name *module = find_module(n, layer, n->names->modules, site, false);
    if (!module)
        module = find_module(n, layer, n->names->also, site, false);
    if (!module)
        module = find_module(n, layer, n->names->modules, site, true);
    return module ? module : find_module(n, layer, n->names->also, site, true);
}

const struct expert_names *naming_experts(const struct naming *n, uint32_t layer)
{
    for (const struct expert_names *e = n->names->experts; e->router; e++)
        if (naming_layer_has(n, layer, e->router, "weight"))
            return e;
    return n->names->experts;
}
