/* A GGUF LoRA, as llama.cpp's convert_lora_to_gguf.py writes it.
 *
 *     general.type = adapter, adapter.type = lora, adapter.lora.alpha
 *     blk.N.attn_q.weight.lora_a  [r, in]      blk.N.attn_q.weight.lora_b  [out, r]
 *
 * scale = alpha / r; alpha 0 means scale 1, as llama.cpp has it. In llama-architecture files the rows of q's
 * and k's B are permuted like the base's: they are brought back into Hugging Face order here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loader.h"

/* Architectures by the base's model_type. `permuted`: q and k rows, see gguf_rope_row. */
static const struct {
    const char *model_type, *arch;
    bool permuted;
} archs[] = {{"llama", "llama", true},     {"mistral", "llama", true},       {"mixtral", "llama", true},
             {"qwen2", "qwen2", false},    {"qwen3", "qwen3", false},        {"qwen3_moe", "qwen3moe", false},
             {"gemma2", "gemma2", false},  {"gemma3_text", "gemma3", false}, {"phi3", "phi3", false},
             {"granite", "granite", true}, {"olmo2", "olmo2", false},        {"gpt2", "gpt2", false}};

static const struct {
    const char *name;
    enum lora_site site;
} names[] = {{"attn_q", LORA_SITE_Q},      {"attn_k", LORA_SITE_K},      {"attn_v", LORA_SITE_V},
             {"attn_output", LORA_SITE_O}, {"ffn_gate", LORA_SITE_GATE}, {"ffn_up", LORA_SITE_UP},
             {"ffn_down", LORA_SITE_DOWN}};

static enum status expect_text(const struct gguf *g, const char *shown, const char *key, const char *expected,
                               struct error *err)
{
    const char *found;
    enum status s = gguf_get_string(g, key, &found, NULL, err);
    if (s != STATUS_OK)
        return s;
    return strcmp(found, expected) == 0
               ? STATUS_OK
               : fail(err, STATUS_MISMATCH, "%s: %s is '%.40s', expected '%s'", shown, key, found, expected);
}

/* Keys of the adapter.* family that we know; any other could change the numbers. */
static enum status check_adapter_keys(const struct gguf *g, const char *shown, struct error *err)
{
    static const char *const known[] = {"adapter.type", "adapter.lora.alpha", "adapter.lora.task_name",
                                        "adapter.lora.prompt_prefix"};
    const char *key;
    char value[8];
    for (size_t i = 0; gguf_describe(g, i, &key, value, sizeof value); i++) {
        bool ok = strncmp(key, "adapter.", 8) != 0;
        for (size_t k = 0; k < sizeof known / sizeof *known && !ok; k++)
            ok = strcmp(key, known[k]) == 0;
        if (!ok)
            return fail(err, STATUS_UNSUPPORTED, "%s: %.80s is set: %s", shown, key,
                        strncmp(key, "adapter.alora.", 14) == 0
                            ? "activated LoRA is not supported yet; train a plain LoRA"
                            : "a field that we don't know and that could change the numbers");
    }
    return STATUS_OK;
}

static enum status check_metadata(const struct gguf *g, const struct content *c, bool *permuted,
                                  struct error *err)
{
    const char *arch;
    *permuted = false;
    enum status s = expect_text(g, c->shown, "general.type", "adapter", err);
    if (s == STATUS_OK)
        s = expect_text(g, c->shown, "adapter.type", "lora", err);
    if (s == STATUS_OK)
        s = check_adapter_keys(g, c->shown, err);
    if (s == STATUS_OK)
        s = gguf_get_string(g, "general.architecture", &arch, NULL, err);
    if (s != STATUS_OK || !c->model)
        return s;
    const char *model_type = model_config(c->model)->model_type;
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        if (strcmp(archs[i].model_type, model_type) != 0)
            continue;
        *permuted = archs[i].permuted;
        return strcmp(archs[i].arch, arch) == 0
                   ? STATUS_OK
                   : fail(err, STATUS_MISMATCH, "%s: general.architecture is '%.40s', this base is '%s'",
                          c->shown, arch, archs[i].arch);
    }
    return fail(err, STATUS_UNSUPPORTED, "%s: GGUF adapters for a %s base are not supported", c->shown,
                model_type);
}

/* "blk.3.attn_q" or "output" to a place. */
static bool parse_place(const char *path, enum lora_site *site, uint32_t *layer)
{
    char *end;
    *layer = 0;
    if (strcmp(path, "output") == 0) {
        *site = LORA_SITE_LM_HEAD;
        return true;
    }
    if (strncmp(path, "blk.", 4) != 0 || path[4] < '0' || path[4] > '9')
        return false;
    unsigned long n = strtoul(path + 4, &end, 10);
    if (n >= CONFIG_LAYERS_MAX || *end != '.')
        return false;
    *layer = (uint32_t)n;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i].name, end + 1) == 0) {
            *site = names[i].site;
            return true;
        }
    }
    return false;
}

static enum status place_tensor(struct content *c, const struct tensor *t, struct error *err)
{
    static const char suffix_a[] = ".weight.lora_a", suffix_b[] = ".weight.lora_b";
    size_t n = strlen(t->name), m = sizeof suffix_a - 1;
    char path[512];
    enum lora_site site;
    uint32_t layer;
    bool is_a = n > m && strcmp(t->name + n - m, suffix_a) == 0;
    bool is_b = n > m && strcmp(t->name + n - m, suffix_b) == 0;
    if (!is_a && !is_b)
        return fail(err, STATUS_UNSUPPORTED, "%s: tensor '%s' is no .weight.lora_a or .weight.lora_b",
                    c->shown, t->name);
    snprintf(path, sizeof path, "%.*s", (int)(n - m), t->name);
    if (strcmp(path, "token_embd") == 0)
        return fail(err, STATUS_UNSUPPORTED, "%s: tensor '%s': LoRA on embeddings is not supported yet",
                    c->shown, t->name);
    if (!parse_place(path, &site, &layer) || (c->model && layer >= model_config(c->model)->n_layers))
        return fail(err, STATUS_MISMATCH, "%s: tensor '%s': %s has no module '%s' that can be adapted",
                    c->shown, t->name, c->model ? "this base" : "a model of a known kind", path);
    struct slot *slot = content_slot(c, site, layer);
    return content_put(c, slot, path, is_a ? &slot->a : &slot->b, t, err);
}

/* Rows of the last pair's B, if it is q or k, into Hugging Face order. */
static enum status unpermute(struct content *c, struct error *err)
{
    struct lora_pair *p = &c->pairs[c->n_pairs - 1];
    const struct model_config *config = model_config(c->model);
    uint32_t n_heads = p->module.site == LORA_SITE_Q ? config->n_heads : config->n_kv_heads;
    if (p->module.site != LORA_SITE_Q && p->module.site != LORA_SITE_K)
        return STATUS_OK;
    size_t row_bytes = (size_t)p->rank * dtype_info(p->b_type)->block_bytes;
    char *rows = arena_array(c->arena, p->out, row_bytes);
    if (!rows)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    for (uint32_t r = 0; r < p->out; r++)
        memcpy(rows + r * row_bytes,
               (const char *)p->b + gguf_rope_row(r, n_heads, config->head_dim) * row_bytes, row_bytes);
    p->b = rows;
    return STATUS_OK;
}

static enum status add_pairs(struct content *c, double alpha, double user_scale, bool permuted,
                             struct error *err)
{
    for (size_t i = 0; i < SLOT_COUNT; i++) {
        const struct slot *slot = &c->slots[i];
        if (!slot->path)
            continue;
        double rank = slot->b ? (double)slot->b->shape[1] : 1;
        double scale = alpha != 0 ? user_scale * alpha / rank : user_scale;
        enum status s = content_add_pair(c, slot, (float)scale, err);
        if (s == STATUS_OK && permuted)
            s = unpermute(c, err);
        if (s != STATUS_OK)
            return s;
    }
    return c->n_pairs ? STATUS_OK : fail(err, STATUS_FORMAT, "%s: no lora_a and lora_b in it", c->shown);
}

static enum status load(const struct opened *o, double user_scale, struct content *c, void **keep,
                        struct error *err)
{
    struct tensors_limits limits = {
        .header_bytes = ADAPTER_HEADER_BYTES_MAX, .n_tensors = ADAPTER_TENSORS_MAX, .copy = &o->copy};
    struct gguf *g;
    bool permuted;
    double alpha;
    c->shown = o->shown;
    enum status s = gguf_open_at(o->dir_fd, o->folder, o->file, &limits, &g, err);
    if (s != STATUS_OK)
        return s;
    *keep = g;
    c->tensors = gguf_tensors(g);
    s = check_metadata(g, c, &permuted, err);
    if (s == STATUS_OK)
        s = gguf_get_f64(g, "adapter.lora.alpha", &alpha, err);
    if (s == STATUS_OK && !(alpha > -1e6 && alpha < 1e6))
        s = fail(err, STATUS_FORMAT, "%s: adapter.lora.alpha is not a sensible number", c->shown);
    for (size_t i = 0; s == STATUS_OK && i < tensors_count(c->tensors); i++)
        s = place_tensor(c, tensors_at(c->tensors, i), err);
    if (s == STATUS_OK)
        s = add_pairs(c, alpha, user_scale, permuted, err);
    if (s == STATUS_OK) {
        c->report->alpha = alpha;
        content_report(c);
    }
    /* A key that is absent is this file's fault; "not found" would tell the caller that there is no file. */
    if (s == STATUS_NOT_FOUND) {
        s = STATUS_FORMAT;
        if (err)
            err->status = s;
    }
    return s;
}

static void release(void *keep)
{
    gguf_close(keep);
}

const struct adapter_format adapter_format_gguf = {
    .name = "gguf", .of_file = true, .load = load, .release = release};
