/* A model from its files: the family is looked up, the configuration checked, rotary tables made, weights
 * loaded. Afterwards everything is immutable. The adapters' view of the modules (shapes and paths) is here
 * too. */
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "model_inner.h"

#define DIM_MAX                                                                                              \
    (1U << 20) /* hidden, intermediate, heads * head_dim: far above any model, far below overflow */
#define VOCAB_MAX (1U << 24)
#define PREFETCH_BUDGET_NS (60 * NS_PER_MS) /* of a start */

static enum status check_size(const char *what, uint32_t value, uint32_t limit, struct error *err)
{
    if (value >= 1 && value <= limit)
        return STATUS_OK;
    return fail(err, STATUS_INVALID, "%s is %u, expected 1 to %u", what, value, limit);
}

static enum status check_sizes(const struct model_config *c, struct error *err)
{
    const struct {
        const char *what;
        uint32_t value, limit;
    } sizes[] = {
        {"vocab_size", c->vocab_size, VOCAB_MAX},
        {"hidden_size", c->hidden_size, DIM_MAX},
        {"intermediate_size", c->intermediate_size, DIM_MAX},
        {"num_hidden_layers", c->n_layers, CONFIG_LAYERS_MAX},
        {"num_attention_heads", c->n_heads, 1024},
        {"num_key_value_heads", c->n_kv_heads, 1024},
        {"head_dim", c->head_dim, 1024},
        {"expert feed-forward size", c->n_experts ? c->expert_intermediate_size : 1, DIM_MAX},
        {"num_experts_per_tok", c->n_experts ? c->n_experts_used : 1, c->n_experts ? c->n_experts : 1},
        {"max_position_embeddings", c->max_position, 1U << 26}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        enum status status = check_size(sizes[i].what, sizes[i].value, sizes[i].limit, err);
        if (status != STATUS_OK)
            return status;
    }
    if (c->n_heads % c->n_kv_heads != 0)
        return fail(err, STATUS_INVALID, "num_attention_heads %u is no multiple of num_key_value_heads %u",
                    c->n_heads, c->n_kv_heads);
    if (c->head_dim % 2 != 0)
        return fail(err, STATUS_INVALID, "head_dim is %u, expected an even number", c->head_dim);
    return STATUS_OK;
}

static enum status check_config(const struct model_config *c, const struct family *family, struct error *err)
{
    if (c->n_experts != 0 && !family->names->experts)
        return fail(err, STATUS_UNSUPPORTED, "%s models have no experts, but the configuration has %u",
                    family->name, c->n_experts);
    enum status status = check_sizes(c, err);
    if (status != STATUS_OK)
        return status;
    if (!(c->norm_eps >= 0 && c->norm_eps < 1))
        return fail(err, STATUS_INVALID, "rms_norm_eps is %g, expected 0 to 1", c->norm_eps);
    if (!(c->attn_logit_softcap >= 0) || !(c->final_logit_softcap >= 0) || !(c->query_pre_attn_scalar >= 0))
        return fail(err, STATUS_INVALID, "a soft-cap or query_pre_attn_scalar is negative or no number");
    return STATUS_OK;
}

/* What forward.c wants to know, from the configuration and the family. */
static enum status derive(struct model *m, struct error *err)
{
    const struct model_config *c = &m->config;
    m->q_dim = c->n_heads * c->head_dim;
    m->kv_dim = c->n_kv_heads * c->head_dim;
    m->norm_offset = c->from_gguf ? 0 : m->family->norm_offset;
    m->embed_scale = m->family->scale_embedding     ? sqrtf((float)c->hidden_size)
                     : c->embedding_multiplier != 0 ? (float)c->embedding_multiplier
                                                    : 1;
    m->residual_scale = c->residual_multiplier != 0 ? (float)c->residual_multiplier : 1;
    m->logit_scale = c->logits_scaling != 0 ? (float)(1 / c->logits_scaling) : 1;
    if (m->family->no_rope)
        return STATUS_OK;
    enum status status = rope_init(&m->rope[0], &c->rope, c->head_dim, c->max_position, err);
    if (status == STATUS_OK)
        status = rope_init(&m->rope[1], &c->rope_local, c->head_dim, c->max_position, err);
    return status;
}

static void describe_layers(struct model *m)
{
    const struct model_config *c = &m->config;
    double scalar = c->query_pre_attn_scalar > 0 ? c->query_pre_attn_scalar : c->head_dim;
    double scale = c->attention_multiplier != 0 ? c->attention_multiplier : 1 / sqrt(scalar);
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        m->layers[i].attn_scale = (float)(c->attn_scale_by_layer ? scale / (i + 1.0) : scale);
        bool sliding = m->config.layer_is_sliding[i] && m->config.sliding_window > 0;
        m->layers[i].window = sliding ? m->config.sliding_window : 0;
        m->layers[i].rope = m->config.layer_is_sliding[i] ? 1 : 0;
    }
}

/* The packed file at `path`, if all of it holds for these files; and the model's digest. */
static enum status map_packed(struct model *m, const struct model_files *files,
                              const struct model_options *options, struct error *err)
{
    enum status status = packed_map_open(options->packed_path, &m->key, &m->map, err);
    if (status != STATUS_OK)
        return status;
    const struct packed_header *h = &m->map->header;
    /* Files that lie where they lay, unchanged since, have the digest that they had. */
    if (m->map->knows_place)
        memcpy(m->info.digest, h->digest, sizeof h->digest);
    else
        status = model_digest(files, options->quant, m->info.digest, err);
    if (status == STATUS_OK && memcmp(m->info.digest, h->digest, sizeof h->digest) != 0)
        status = fail(err, STATUS_MISMATCH, "%s: was made from other tensors", m->map->file.path);
    return status == STATUS_OK ? packed_map_load(m->map, options->team, err) : status;
}

/* A packed file that can't be used is no failure: the source has the same weights. Why it can't is kept. */
static enum status open_packed(struct model *m, const struct model_files *files,
                               const struct model_options *options, struct error *err)
{
    struct error why;
    enum status status = packed_key_init(&m->key, files, options->quant, err);
    if (status != STATUS_OK)
        return status;
    enum status mapped = options->packed_path ? map_packed(m, files, options, &why) : STATUS_NOT_FOUND;
    if (mapped == STATUS_OK) {
        m->info.source = m->map->is_mapped ? WEIGHTS_MAPPED : WEIGHTS_READ;
        return STATUS_OK;
    }
    if (mapped != STATUS_NOT_FOUND)
        snprintf(m->info.not_mapped, sizeof m->info.not_mapped, "%s", why.text);
    packed_map_close(m->map);
    m->map = NULL;
    return model_digest(files, options->quant, m->info.digest, err);
}

/* options NULL: everything is checked, but no weight is read, and the model can't compute. */
static enum status build(const struct model_files *files, const struct model_options *options,
                         struct model **out, struct error *err)
{
    *out = NULL;
    const struct family *family = family_find(files->config.model_type);
    if (!family) {
        char known[256];
        family_list(known, sizeof known);
        return fail(err, STATUS_UNSUPPORTED, "%s: model_type \"%s\" is not supported; known are %s",
                    files->path, files->config.model_type, known);
    }
    struct model *m = mem_zalloc(sizeof *m);
    if (!m)
        return fail(err, STATUS_NO_MEMORY, "model");
    m->config = files->config;
    m->kernels = options ? options->kernels : NULL;
    m->family = family;
    m->info.family = family->name;
    enum status status = check_config(&m->config, family, err);
    if (status == STATUS_OK)
        status = derive(m, err);
    if (status == STATUS_OK && options)
        status = open_packed(m, files, options, err);
    if (status == STATUS_OK)
        status = weights_load(m, files, options, err);
    if (status != STATUS_OK) {
        model_close(m);
        return fail_within(err, "%s", files->path);
    }
    describe_layers(m);
    if (options)
        prefetch_policy_choose(m, options->team, PREFETCH_BUDGET_NS);
    *out = m;
    return STATUS_OK;
}

enum status model_open(const struct model_files *files, const struct model_options *options,
                       struct model **out, struct error *err)
{
    require(options && options->kernels);
    return build(files, options, out, err);
}

enum status model_describe(const struct model_files *files, struct model **out, struct error *err)
{
    return build(files, NULL, out, err);
}

enum status model_check(const struct model_files *files, struct error *err)
{
    struct model *m;
    enum status status = model_describe(files, &m, err);
    if (status == STATUS_OK)
        model_close(m);
    return status;
}

static void free_part(const struct model *m, void *p)
{
    if (!packed_map_holds(m->map, p))
        mem_free(p);
}

static void free_layer(const struct model *m, struct model_layer *l)
{
    for (unsigned s = 0; s < N_LAYER_SITES; s++) {
        free_part(m, l->w[s].data);
        free_part(m, l->bias[s]);
    }
    for (uint32_t e = 0; l->experts && e < 3 * m->config.n_experts; e++)
        free_part(m, l->experts[e].data);
    mem_free(l->experts);
    for (unsigned n = 0; n < NORM_LAYER_COUNT; n++) {
        free_part(m, l->norm[n]);
        free_part(m, l->norm_bias[n]);
    }
}

void weights_free(struct model *m)
{
    for (uint32_t i = 0; m->layers && i < m->config.n_layers; i++)
        free_layer(m, &m->layers[i]);
    mem_free(m->layers);
    if (!m->tied)
        free_part(m, m->head.data);
    free_part(m, m->embed.data);
    free_part(m, m->position_embed.data);
    free_part(m, m->final_norm);
    free_part(m, m->final_norm_bias);
    packed_parts_fini(&m->parts);
    packed_map_close(m->map);
    m->layers = NULL;
    m->map = NULL;
    m->head = m->embed = m->position_embed = (struct packed){.data = NULL};
    m->final_norm = m->final_norm_bias = NULL;
    m->tied = false;
    m->info.size_bytes = 0;
    m->info.n_parameters = 0;
}

void model_close(struct model *m)
{
    if (!m)
        return;
    if (m->merged) {
        merged_close(m);
        return;
    }
    weights_free(m);
    mem_free(m);
}

const struct model_config *model_config(const struct model *m)
{
    return &m->config;
}

const struct model_info *model_info(const struct model *m)
{
    return &m->info;
}

const struct kernels *model_kernels(const struct model *m)
{
    return m->kernels;
}

enum dtype model_kv_type(const struct model *m, const char *wanted)
{
    if (strcmp(wanted, "f32") == 0)
        return DTYPE_F32;
    if (strcmp(wanted, "f16") == 0)
        return DTYPE_F16;
    if (strcmp(wanted, "bf16") == 0)
        return DTYPE_BF16;
    if (strcmp(wanted, "int8") == 0)
        return DTYPE_I8;
    return m->info.weight_type == DTYPE_F32 ? DTYPE_F32 : DTYPE_F16;
}

struct kv_shape model_kv_shape(const struct model *m, enum dtype kv_type)
{
    return (struct kv_shape){.n_layers = m->config.n_layers,
                             .n_kv_heads = m->config.n_kv_heads,
                             .head_dim = m->config.head_dim,
                             .type = kv_type};
}

/* ---- modules ---- */

static bool all_sparse(const struct model_config *c)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n_layers; i++)
        n += c->layer_is_sparse[i];
    return n == c->n_layers;
}

bool model_site_shape(const struct model *m, enum lora_site site, uint32_t *out_rows, uint32_t *in_cols)
{
    const struct model_config *c = &m->config;
    const uint32_t shape[LORA_SITE_COUNT][2] = {
        [LORA_SITE_Q] = {m->q_dim, c->hidden_size},
        [LORA_SITE_K] = {m->kv_dim, c->hidden_size},
        [LORA_SITE_V] = {m->kv_dim, c->hidden_size},
        [LORA_SITE_O] = {c->hidden_size, m->q_dim},
        [LORA_SITE_GATE] = {c->intermediate_size, c->hidden_size},
        [LORA_SITE_UP] = {c->intermediate_size, c->hidden_size},
        [LORA_SITE_DOWN] = {c->hidden_size, c->intermediate_size},
        [LORA_SITE_ROUTER] = {c->n_experts, c->hidden_size},
        [LORA_SITE_LM_HEAD] = {c->vocab_size, c->hidden_size},
    };
    if ((unsigned)site >= LORA_SITE_COUNT || (site == LORA_SITE_GATE && m->family->no_gate) ||
        (site == LORA_SITE_ROUTER && c->n_experts == 0) ||
        (site >= LORA_SITE_GATE && site <= LORA_SITE_DOWN && all_sparse(c)))
        return false;
    *out_rows = shape[site][0];
    *in_cols = shape[site][1];
    return true;
}
