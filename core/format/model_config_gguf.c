/* Hyperparameters from GGUF metadata, in the same description that config.json gives.
 *
 * Key names: ggml docs/gguf.md and llama.cpp's gguf-py constants. Three things are not in the metadata and
 * are implied by the architecture: gemma3's local rotary base, its pattern of global layers, and llama 3's
 * frequency scaling, which is there as a tensor of divisors (rope_freqs.weight). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "gguf_meta.h"
#include "model_config.h"

struct arch {
    const char *name, *model_type;
    enum hidden_act act;
};

static const struct arch archs[] = {
    {"llama", "llama", ACT_SILU},
    {"qwen2", "qwen2", ACT_SILU},
    {"qwen3", "qwen3", ACT_SILU},
    {"gemma2", "gemma2", ACT_GELU_TANH},
    {"gemma3", "gemma3_text", ACT_GELU_TANH},
    {"phi3", "phi3", ACT_SILU},
    {"gpt2", "gpt2", ACT_GELU_TANH},
    {"granite", "granite", ACT_SILU},
    {"olmo2", "olmo2", ACT_SILU},
    {"qwen3moe", "qwen3_moe", ACT_SILU},
};

/* Reads "ARCH.key" and general keys; the first failure is kept, absence gives the fallback. */
struct meta {
    const struct gguf *g;
    const char *arch;
    enum status status;
    struct error *err;
};

static bool full_key(struct meta *m, const char *key, char *dst, size_t dst_bytes)
{
    if (strchr(key, ':')) /* "general:name" is no architecture's key */
        return snprintf(dst, dst_bytes, "%s", strchr(key, ':') + 1) < (int)dst_bytes && gguf_has(m->g, dst);
    return snprintf(dst, dst_bytes, "%s.%s", m->arch, key) < (int)dst_bytes && gguf_has(m->g, dst);
}

static void keep(struct meta *m, enum status s)
{
    if (m->status == STATUS_OK)
        m->status = s;
}

static double get_f64(struct meta *m, const char *key, double fallback, double min, double max)
{
    char full[GGUF_KEY_MAX];
    double v = fallback;
    if (m->status != STATUS_OK || !full_key(m, key, full, sizeof full))
        return fallback;
    enum status s = gguf_get_f64(m->g, full, &v, m->err);
    if (s == STATUS_OK && !(v >= min && v <= max))
        s = fail(m->err, STATUS_FORMAT, "%s: %s is %g, expected %g to %g", m->g->path, full, v, min, max);
    keep(m, s);
    return v;
}

static uint32_t get_u32(struct meta *m, const char *key, uint32_t fallback, uint32_t min, uint32_t max)
{
    char full[GGUF_KEY_MAX];
    uint64_t v = fallback;
    if (m->status != STATUS_OK || !full_key(m, key, full, sizeof full))
        return fallback;
    enum status s = gguf_get_u64(m->g, full, &v, m->err);
    if (s == STATUS_OK && (v < min || v > max))
        s = fail(m->err, STATUS_FORMAT, "%s: %s is %llu, expected %u to %u", m->g->path, full,
                 (unsigned long long)v, min, max);
    keep(m, s);
    return s == STATUS_OK ? (uint32_t)v : fallback;
}

static bool get_bool(struct meta *m, const char *key, bool fallback)
{
    char full[GGUF_KEY_MAX];
    bool v = fallback;
    if (m->status != STATUS_OK || !full_key(m, key, full, sizeof full))
        return fallback;
    keep(m, gguf_get_bool(m->g, full, &v, m->err));
    return v;
}

static const char *get_text(struct meta *m, const char *key, const char *fallback)
{
    char full[GGUF_KEY_MAX];
    const char *v = fallback;
    if (m->status != STATUS_OK || !full_key(m, key, full, sizeof full))
        return fallback;
    keep(m, gguf_get_string(m->g, full, &v, NULL, m->err));
    return m->status == STATUS_OK ? v : fallback;
}

/* A size that may be written once or once a layer; layers that differ are beyond us. */
static uint32_t get_per_layer(struct meta *m, const char *key, uint32_t fallback, uint32_t max)
{
    char full[GGUF_KEY_MAX];
    uint64_t n;
    int64_t items[CONFIG_LAYERS_MAX];
    if (m->status != STATUS_OK || !full_key(m, key, full, sizeof full))
        return fallback;
    const struct gguf_value *v = gguf_meta_find(&m->g->meta, full);
    if (v->type != GGUF_ARRAY)
        return get_u32(m, key, fallback, 1, max);
    enum status s = gguf_get_array(m->g, full, &n, m->err);
    if (s == STATUS_OK && (n == 0 || n > CONFIG_LAYERS_MAX))
        s = fail(m->err, STATUS_FORMAT, "%s: %s has %llu items", m->g->path, full, (unsigned long long)n);
    if (s == STATUS_OK)
        s = gguf_array_i64(m->g, full, items, n, m->err);
    for (uint64_t i = 0; s == STATUS_OK && i < n; i++)
        if (items[i] != items[0] || items[i] < 1 || items[i] > (int64_t)max)
            s = fail(m->err, STATUS_UNSUPPORTED, "%s: %s differs between layers: not supported", m->g->path,
                     full);
    keep(m, s);
    return s == STATUS_OK ? (uint32_t)items[0] : fallback;
}

static bool has_tensor(const struct meta *m, const char *name)
{
    return tensors_find(m->g->tensors, name) != NULL;
}

static void read_sizes(struct meta *m, struct model_config *c)
{
    const struct tensor *embd = tensors_find(m->g->tensors, "token_embd.weight");
    c->vocab_size = get_u32(m, "vocab_size", 0, 1, 1U << 24);
    if (embd && embd->n_dims == 2 && embd->shape[0] <= 1U << 24)
        c->vocab_size = (uint32_t)embd->shape[0]; /* what can be looked up, whatever was declared */
    c->hidden_size = get_u32(m, "embedding_length", 0, 1, 1U << 20);
    c->n_layers = get_u32(m, "block_count", 0, 1, CONFIG_LAYERS_MAX);
    c->intermediate_size = get_per_layer(m, "feed_forward_length", 0, 1U << 22);
    c->n_heads = get_per_layer(m, "attention.head_count", 0, 4096);
    c->n_kv_heads = get_per_layer(m, "attention.head_count_kv", c->n_heads, 4096);
    c->head_dim =
        get_u32(m, "attention.key_length", c->n_heads ? c->hidden_size / c->n_heads : 0, 1, 1U << 13);
    uint32_t value_length = get_u32(m, "attention.value_length", c->head_dim, 1, 1U << 13);
    if (m->status == STATUS_OK && value_length != c->head_dim)
        keep(m, fail(m->err, STATUS_UNSUPPORTED, "%s: heads of %u for keys and %u for values: not supported",
                     m->g->path, c->head_dim, value_length));
    c->max_position = get_u32(m, "context_length", 0, 1, INT32_MAX);
    c->norm_eps = get_f64(m, "attention.layer_norm_epsilon", 1e-5, 0, 1);
    c->norm_eps = get_f64(m, "attention.layer_norm_rms_epsilon", c->norm_eps, 0, 1);
    c->tie_word_embeddings = !has_tensor(m, "output.weight");
    c->attention_bias = has_tensor(m, "blk.0.attn_q.bias");
    c->mlp_bias = has_tensor(m, "blk.0.ffn_up.bias");
}

/* A tensor of frequency divisors into dst; *n stays 0 if there is none. */
static void read_divisors(struct meta *m, const char *name, uint32_t n_expected, uint32_t *n, float *dst)
{
    const struct tensor *t = tensors_find(m->g->tensors, name);
    if (!t || m->status != STATUS_OK)
        return;
    if (t->dtype != DTYPE_F32 || t->n_values != n_expected || n_expected > CONFIG_ROPE_FACTORS_MAX) {
        keep(m, fail(m->err, STATUS_FORMAT, "%s: tensor '%s' has %llu values of %s, expected %u of f32",
                     m->g->path, name, (unsigned long long)t->n_values, dtype_name(t->dtype), n_expected));
        return;
    }
    keep(m, tensor_read(m->g->tensors, t, 0, t->size_bytes, dst, m->err));
    for (uint32_t i = 0; m->status == STATUS_OK && i < n_expected; i++)
        if (!(dst[i] > 0 && dst[i] < 1e9F))
            keep(m, fail(m->err, STATUS_FORMAT, "%s: tensor '%s'[%u] is no positive number", m->g->path, name,
                         i));
    *n = n_expected;
}

static void read_rope_scaling(struct meta *m, struct rope_config *r)
{
    static const struct {
        const char *name;
        enum rope_type type;
    } types[] = {
        {"none", ROPE_DEFAULT}, {"linear", ROPE_LINEAR}, {"yarn", ROPE_YARN}, {"longrope", ROPE_LONGROPE}};
    double old_linear = get_f64(m, "rope.scale_linear", 1, 1e-6, 1e9);
    const char *name = get_text(m, "rope.scaling.type", old_linear == 1 ? "none" : "linear");
    size_t i = 0;
    while (i < sizeof types / sizeof *types && strcmp(types[i].name, name) != 0)
        i++;
    if (i == sizeof types / sizeof *types) {
        keep(m, fail(m->err, STATUS_UNSUPPORTED, "%s: %s.rope.scaling.type is '%.40s': not supported",
                     m->g->path, m->arch, name));
        return;
    }
    r->type = types[i].type;
    if (r->type == ROPE_DEFAULT)
        return;
    r->factor = get_f64(m, "rope.scaling.factor", old_linear, 1e-6, 1e9);
    r->original_max_position = get_f64(m, "rope.scaling.original_context_length", 0, 0, 1e12);
    r->attention_factor = get_f64(m, "rope.scaling.attn_factor", 0, 0, 1e9);
    r->beta_fast = get_f64(m, "rope.scaling.yarn_beta_fast", 32, 1e-9, 1e9);
    r->beta_slow = get_f64(m, "rope.scaling.yarn_beta_slow", 1, 1e-9, 1e9);
}

static void read_rope(struct meta *m, struct model_config *c)
{
    bool gemma3 = strcmp(m->arch, "gemma3") == 0;
    struct rope_config *r = &c->rope;
    rope_config_init(r, get_f64(m, "rope.freq_base", 1e4, 1e-3, 1e15));
    uint32_t n_rotated = get_u32(m, "rope.dimension_count", c->head_dim, 2, c->head_dim ? c->head_dim : 2);
    if (c->head_dim)
        r->partial_factor = (double)n_rotated / c->head_dim;
    c->rope_local = *r;
    if (gemma3)
        c->rope_local.theta = get_f64(m, "rope.freq_base_swa", 1e4, 1e-3, 1e15);
    read_rope_scaling(m, r);
    if ((r->type == ROPE_YARN || r->type == ROPE_LONGROPE) && !(r->original_max_position > 0))
        r->original_max_position = c->max_position;
    read_divisors(m, "rope_factors_short.weight", n_rotated / 2, &r->n_factors, r->short_factors);
    read_divisors(m, "rope_factors_long.weight", n_rotated / 2, &r->n_factors, r->long_factors);
    if (r->n_factors) { /* the tensors alone say it: there is no rope.scaling.type */
        r->type = ROPE_LONGROPE;
        r->original_max_position =
            get_f64(m, "rope.scaling.original_context_length", c->max_position, 1, 1e12);
        r->attention_factor = get_f64(m, "rope.scaling.attn_factor", 0, 0, 1e9);
        r->factor = c->max_position / r->original_max_position;
    }
    uint32_t n_freqs = 0;
    read_divisors(m, "rope_freqs.weight", n_rotated / 2, &n_freqs, r->long_factors);
    if (n_freqs) {
        r->type = ROPE_LLAMA3;
        r->n_factors = n_freqs;
        memcpy(r->short_factors, r->long_factors, n_freqs * sizeof *r->long_factors);
    }
    if (!gemma3)
        c->rope_local = *r;
}

static void read_pattern(struct meta *m, struct model_config *c)
{
    char full[GGUF_KEY_MAX];
    uint64_t n;
    int64_t items[CONFIG_LAYERS_MAX];
    bool gemma2 = strcmp(m->arch, "gemma2") == 0, gemma3 = strcmp(m->arch, "gemma3") == 0;
    c->sliding_window = get_u32(m, "attention.sliding_window", gemma2 ? 4096 : 0, 0, INT32_MAX);
    if (!c->sliding_window || m->status != STATUS_OK)
        return;
    if (full_key(m, "attention.sliding_window_pattern", full, sizeof full) &&
        gguf_meta_find(&m->g->meta, full)->type == GGUF_ARRAY) {
        enum status s = gguf_get_array(m->g, full, &n, m->err);
        if (s == STATUS_OK && n != c->n_layers)
            s = fail(m->err, STATUS_FORMAT, "%s: %s has %llu items, expected %u", m->g->path, full,
                     (unsigned long long)n, c->n_layers);
        if (s == STATUS_OK)
            s = gguf_array_i64(m->g, full, items, n, m->err);
        for (uint32_t i = 0; s == STATUS_OK && i < c->n_layers; i++)
            c->layer_is_sliding[i] = items[i] != 0;
        keep(m, s);
        return;
    }
    /* Every period-th layer is global; period 1 would be none sliding, so 0 stands for "all sliding". */
    uint32_t period = get_u32(m, "attention.sliding_window_pattern", gemma3 ? 6 : gemma2 ? 2 : 0, 0, 256);
    for (uint32_t i = 0; i < c->n_layers; i++)
        c->layer_is_sliding[i] = period == 0 || (i + 1) % period != 0;
}

static void read_multipliers(struct meta *m, struct model_config *c)
{
    bool gemma2 = strcmp(m->arch, "gemma2") == 0, gemma3 = strcmp(m->arch, "gemma3") == 0;
    c->attn_logit_softcap = get_f64(m, "attn_logit_softcapping", gemma2 ? 50 : 0, 0, 1e9);
    c->final_logit_softcap = get_f64(m, "final_logit_softcapping", gemma2 ? 30 : 0, 0, 1e9);
    /* The 27B models of gemma 2 and 3 scale by hidden/heads, all others by the head; llama.cpp knows the
     * former by their number of layers, and the file has nothing better. */
    if ((gemma2 && c->n_layers == 46) || (gemma3 && c->n_layers == 62))
        c->query_pre_attn_scalar = c->n_heads ? (double)c->hidden_size / c->n_heads : 0;
    double one = strcmp(m->arch, "granite") == 0 ? 1 : 0;
    c->embedding_multiplier = get_f64(m, "embedding_scale", one, -1e9, 1e9);
    c->residual_multiplier = get_f64(m, "residual_scale", one, -1e9, 1e9);
    c->attention_multiplier = get_f64(m, "attention.scale", one, -1e9, 1e9);
    c->logits_scaling = get_f64(m, "logit_scale", one, -1e9, 1e9);
}

/* Options of other architectures' experts, with what they must say here. */
static void refuse_expert_options(struct meta *m)
{
    static const struct {
        const char *key;
        double neutral[2];
    } options[] = {{"expert_shared_count", {0, 0}},
                   {"expert_shared_feed_forward_length", {0, 0}},
                   {"expert_group_count", {0, 1}},
                   {"expert_gating_func", {0, 1}}, /* 1: softmax over all experts */
                   {"expert_weights_scale", {0, 1}}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        double v = get_f64(m, options[i].key, options[i].neutral[0], -1e9, 1e9);
        if (m->status == STATUS_OK && v != options[i].neutral[0] && v != options[i].neutral[1])
            keep(m, fail(m->err, STATUS_UNSUPPORTED, "%s: %s.%s is %g: not supported", m->g->path, m->arch,
                         options[i].key, v));
    }
}

static void read_experts(struct meta *m, struct model_config *c)
{
    char name[64];
    c->n_experts = get_u32(m, "expert_count", 0, 0, 4096);
    if (!c->n_experts)
        return;
    c->n_experts_used = get_u32(m, "expert_used_count", 0, 1, c->n_experts);
    c->expert_intermediate_size = get_u32(m, "expert_feed_forward_length", c->intermediate_size, 1, 1U << 22);
    c->norm_topk_prob = get_bool(m, "expert_weights_norm", true);
    refuse_expert_options(m);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        snprintf(name, sizeof name, "blk.%u.ffn_gate_inp.weight", i);
        c->layer_is_sparse[i] = has_tensor(m, name);
    }
    if (strcmp(m->arch, "llama") == 0)
        snprintf(c->model_type, sizeof c->model_type, "mixtral");
}

static void read_tokens(struct meta *m, struct model_config *c)
{
    static const char *const ends[] = {"general:tokenizer.ggml.eos_token_id",
                                       "general:tokenizer.ggml.eot_token_id",
                                       "general:tokenizer.ggml.eom_token_id"};
    c->bos_token = (int32_t)get_u32(m, "general:tokenizer.ggml.bos_token_id", UINT32_MAX, 0, INT32_MAX);
    c->pad_token = (int32_t)get_u32(m, "general:tokenizer.ggml.padding_token_id", UINT32_MAX, 0, INT32_MAX);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        int32_t id = (int32_t)get_u32(m, ends[i], UINT32_MAX, 0, INT32_MAX);
        bool known = id < 0;
        for (uint32_t j = 0; j < c->n_eos && !known; j++)
            known = c->eos_tokens[j] == id;
        if (!known)
            c->eos_tokens[c->n_eos++] = id;
    }
}

static void read_names(struct meta *m, struct model_config *c)
{
    const char *name = get_text(m, "general:general.name", "");
    snprintf(c->name, sizeof c->name, "%s", name);
    snprintf(c->model_type, sizeof c->model_type, "%s", m->arch);
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        if (strcmp(archs[i].name, m->arch) == 0) {
            snprintf(c->model_type, sizeof c->model_type, "%s", archs[i].model_type);
            c->act = archs[i].act;
        }
    }
}

static enum status refuse_unknown(struct meta *m)
{
    if (get_u32(m, "general:split.count", 1, 0, UINT16_MAX) > 1)
        return fail(m->err, STATUS_UNSUPPORTED,
                    "%s: one of several split files: join them first (llama-gguf-split --merge)", m->g->path);
    if (!get_bool(m, "attention.causal", true))
        return fail(m->err, STATUS_UNSUPPORTED, "%s: %s.attention.causal is false: not supported", m->g->path,
                    m->arch);
    return m->status;
}

enum status model_config_from_gguf(const struct gguf *g, struct model_config *out, struct error *err)
{
    const char *type = "model", *arch = NULL;
    memset(out, 0, sizeof *out);
    out->from_gguf = true;
    enum status s = STATUS_OK;
    if (gguf_has(g, "general.type"))
        s = gguf_get_string(g, "general.type", &type, NULL, err);
    if (s == STATUS_OK && strcmp(type, "model") != 0)
        return fail(err, STATUS_INVALID, "%s: general.type is '%.40s', expected a model%s", g->path, type,
                    strcmp(type, "adapter") == 0 ? " (an adapter goes to --adapter)" : "");
    if (s == STATUS_OK)
        s = gguf_get_string(g, "general.architecture", &arch, NULL, err);
    if (s != STATUS_OK)
        return s == STATUS_NOT_FOUND ? fail(err, STATUS_FORMAT, "%s: no general.architecture", g->path) : s;
    if (strlen(arch) >= sizeof out->model_type)
        return fail(err, STATUS_FORMAT, "%s: general.architecture is %zu bytes long", g->path, strlen(arch));
    struct meta m = {.g = g, .arch = arch, .err = err};
    read_names(&m, out);
    s = refuse_unknown(&m);
    if (s != STATUS_OK)
        return s;
    read_sizes(&m, out);
    read_rope(&m, out);
    read_pattern(&m, out);
    read_multipliers(&m, out);
    read_experts(&m, out);
    read_tokens(&m, out);
    return m.status == STATUS_OK ? model_config_check(out, g->path, err) : m.status;
}
