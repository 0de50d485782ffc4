/* A PEFT folder: adapter_config.json and adapter_model.safetensors (one file, or an index and shards).
 *
 *     base_model.model.<module path>.lora_A.weight    [r, in]
 *     base_model.model.<module path>.lora_B.weight    [out, r]
 *
 * The tensors are the truth about which modules are adapted; the config says only how they are scaled. PEFT
 * itself shrugs at halves, surplus tensors and wrong prefixes (it warns, or says nothing); we refuse each by
 * its name, because the result would be another adapter than the trained one. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "loader.h"
#include "peft_config.h"

#define CONFIG_BYTES_MAX ((size_t)1 << 20)
#define CONFIG_DEPTH 16

/* What a key's ending says. `refusal` NULL: we read it. */
static const struct kind {
    const char *suffix;
    const char *refusal;
} kinds[] = {
    {".lora_A.weight", NULL},
    {".lora_B.weight", NULL},
    {".base_layer.weight", NULL}, /* an untouched copy of the base that PEFT adds for heads and embeddings */
    {".lora_B.bias", "biases on lora_B are not supported yet"},
    {".lora_A.bias", "biases on lora_A are not supported"},
    {".lora_magnitude_vector", "DoRA is not supported yet"},
    {".lora_magnitude_vector.weight", "DoRA is not supported yet"},
    {".lora_embedding_A", "LoRA on embeddings is not supported yet"},
    {".lora_embedding_B", "LoRA on embeddings is not supported yet"},
    {".token_adapter.trainable_tokens_delta", "replaced embedding rows are not supported yet"},
    {".base_layer.bias", "trained biases are not supported yet"},
};
enum { KIND_A, KIND_B, KIND_BASE_COPY };

static const char prefix[] = "base_model.model.";

/* Splits a key into the module's path and the kind of tensor. */
static enum status split_key(const struct content *c, const char *key, char *path, size_t path_bytes,
                             size_t *kind, struct error *err)
{
    size_t n = strlen(key), k = sizeof prefix - 1;
    if (strncmp(key, prefix, k) != 0)
        return fail(err, STATUS_FORMAT,
                    "%s: tensor '%s' does not begin with '%s': was it saved with PEFT's "
                    "save_pretrained?",
                    c->shown, key, prefix);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t m = strlen(kinds[i].suffix);
        if (n < k + m || strcmp(key + n - m, kinds[i].suffix) != 0)
            continue;
        if (kinds[i].refusal)
            return fail(err, STATUS_UNSUPPORTED, "%s: tensor '%s': %s", c->shown, key, kinds[i].refusal);
        snprintf(path, path_bytes, "%.*s", (int)(n - m - k), key + k);
        *kind = i;
        return STATUS_OK;
    }
    return fail(err, STATUS_UNSUPPORTED,
                "%s: tensor '%s' is no lora_A.weight or lora_B.weight: whole replaced "
                "modules and other kinds are not supported yet",
                c->shown, key);
}

/* Without a base only the shape of the path can be read: …layers.N.….SITE, or lm_head. */
static bool parse_place_alone(const char *path, enum lora_site *site, uint32_t *layer)
{
    const char *dot = strrchr(path, '.');
    const char *layers = strstr(path, "layers.");
    *layer = 0;
    if (!lora_site_find(dot ? dot + 1 : path, site))
        return false;
    if (*site == LORA_SITE_LM_HEAD)
        return true;
    if (!layers || layers[7] < '0' || layers[7] > '9')
        return false;
    unsigned long n = strtoul(layers + 7, NULL, 10);
    *layer = n < CONFIG_LAYERS_MAX ? (uint32_t)n : 0;
    return n < CONFIG_LAYERS_MAX;
}

static enum status place_tensor(struct content *c, const struct tensor *t, struct error *err)
{
    char path[512];
    size_t kind = 0;
    enum lora_site site;
    uint32_t layer = 0;
    enum status s = split_key(c, t->name, path, sizeof path, &kind, err);
    if (s != STATUS_OK)
        return s;
    if (kind == KIND_BASE_COPY) {
        /* Only these two are known to be copies; elsewhere it would be a weight that something changed. */
        if (strcmp(path, "lm_head") == 0 || strcmp(path, "model.embed_tokens") == 0)
            return STATUS_OK;
        return fail(err, STATUS_UNSUPPORTED,
                    "%s: tensor '%s': a copy of a base weight is expected only of lm_head", c->shown,
                    t->name);
    }
    struct model_module module;
    bool found = c->model ? model_module_parse(c->model, path, &module) && module.kind == MODULE_LINEAR &&
                                module.n_sites == 1
                          : parse_place_alone(path, &site, &layer);
    if (c->model && found) {
        site = module.site;
        layer = module.layer;
    }
    if (!found)
        return fail(err, STATUS_MISMATCH, "%s: tensor '%s': %s has no module '%s' that can be adapted",
                    c->shown, t->name, c->model ? "this base" : "a model of a known kind", path);
    struct slot *slot = content_slot(c, site, layer);
    return content_put(c, slot, path, kind == KIND_A ? &slot->a : &slot->b, t, err);
}

static enum status add_pairs(struct content *c, const struct peft_config *config, double user_scale,
                             struct error *err)
{
    for (size_t i = 0; i < SLOT_COUNT; i++) {
        struct slot *slot = &c->slots[i];
        double alpha;
        if (!slot->path)
            continue;
        enum status s = peft_alpha(config, slot->path, &alpha, err);
        if (s != STATUS_OK)
            return fail_within(err, "%s", c->shown);
        if (slot_site(c, slot) == LORA_SITE_LM_HEAD && config->ties_weights)
            return fail(err, STATUS_UNSUPPORTED,
                        "%s: ensure_weight_tying with an adapted lm_head is not supported", c->shown);
        /* The rank is the tensor's; without patterns the config must agree, as PEFT demands too. */
        uint64_t rank = slot->a ? slot->a->shape[0] : slot->b->shape[1];
        if (!config->has_rank_pattern && (double)rank != config->rank)
            return fail(err, STATUS_MISMATCH,
                        "%s: tensor '%s' has rank %llu, adapter_config.json says r = %g", c->shown,
                        slot->a ? slot->a->name : slot->b->name, (unsigned long long)rank, config->rank);
        double scale = user_scale * alpha / (config->rslora ? sqrt((double)rank) : (double)rank);
        s = content_add_pair(c, slot, (float)scale, err);
        if (s != STATUS_OK)
            return s;
    }
    if (c->n_pairs == 0)
        return fail(err, STATUS_FORMAT, "%s: no lora_A and lora_B in it", c->shown);
    return STATUS_OK;
}

static enum status read_config(const struct opened *o, struct peft_config *out, struct error *err)
{
    struct private_copy copy = o->copy;
    char *text = NULL, shown[600];
    size_t n = 0;
    json_t *json = NULL;
    copy.limit_bytes = CONFIG_BYTES_MAX;
    memset(out, 0, sizeof *out);
    snprintf(shown, sizeof shown, "%s/adapter_config.json", o->folder);
    enum status s = private_copy_read(&copy, o->dir_fd, o->folder, "adapter_config.json", &text, &n, err);
    if (s == STATUS_NOT_FOUND)
        return fail(err, s, "%s: no adapter_config.json: expected a PEFT folder or a .gguf file", o->folder);
    if (s == STATUS_OK)
        s = json_parse(text, n, shown, CONFIG_DEPTH, &json, err);
    mem_free(text);
    if (s == STATUS_OK)
        s = peft_config_parse(json, shown, out, err);
    json_decref(json);
    return s;
}

static enum status open_tensors(const struct opened *o, struct tensors **out, struct error *err)
{
    struct tensors_limits limits = {
        .header_bytes = ADAPTER_HEADER_BYTES_MAX, .n_tensors = ADAPTER_TENSORS_MAX, .copy = &o->copy};
    enum status s = tensors_open_folder(o->dir_fd, o->folder, "adapter_model", &limits, out, err);
    if (s == STATUS_NOT_FOUND && file_exists_at(o->dir_fd, "adapter_model.bin"))
        return fail(
            err, STATUS_UNSUPPORTED,
            "%s: adapter_model.bin can run code when it is read; convert it: python -c \"import torch, "
            "safetensors.torch as s; s.save_file(torch.load('adapter_model.bin', weights_only=True), "
            "'adapter_model.safetensors')\"",
            o->folder);
    return s;
}

static enum status place_all(struct content *c, struct error *err)
{
    const char *name, *type;
    if (tensors_foreign_at(c->tensors, 0, &name, &type))
        return fail(err, STATUS_UNSUPPORTED, "%s: tensor '%s' is %s, expected F32, F16 or BF16", c->shown,
                    name, type);
    for (size_t i = 0; i < tensors_count(c->tensors); i++) {
        enum status s = place_tensor(c, tensors_at(c->tensors, i), err);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

static enum status load(const struct opened *o, double user_scale, struct content *c, void **keep,
                        struct error *err)
{
    struct peft_config config;
    struct tensors *tensors = NULL;
    c->shown = o->shown;
    enum status s = read_config(o, &config, err);
    if (s == STATUS_OK)
        s = open_tensors(o, &tensors, err);
    c->tensors = tensors;
    *keep = tensors;
    if (s == STATUS_OK)
        s = place_all(c, err);
    if (s == STATUS_OK)
        s = add_pairs(c, &config, user_scale, err);
    if (s == STATUS_OK) {
        c->report->alpha = config.alpha;
        c->report->rslora = config.rslora;
        memcpy(c->report->base_model, config.base_model, sizeof config.base_model);
        content_report(c);
    }
    peft_config_fini(&config);
    return s;
}

static void release(void *keep)
{
    tensors_close(keep);
}

const struct adapter_format adapter_format_peft = {.name = "peft", .load = load, .release = release};
