/* The family table. A family is a row: which norms, biases and scales the shared forward pass has for it, and
 * how its files call the tensors. What a config.json says itself (sizes, windows, rope, soft-caps, tied head)
 * is not here. */
#include <stdio.h>
#include <string.h>

#include "model_inner.h"

#define END                                                                                                  \
    {                                                                                                        \
        NULL, LORA_SITE_COUNT, 0                                                                             \
    }

static const struct module_name hf_modules[] = {
    {"self_attn.q_proj", LORA_SITE_Q, 1}, {"self_attn.k_proj", LORA_SITE_K, 1},
    {"self_attn.v_proj", LORA_SITE_V, 1}, {"self_attn.o_proj", LORA_SITE_O, 1},
    {"mlp.gate_proj", LORA_SITE_GATE, 1}, {"mlp.up_proj", LORA_SITE_UP, 1},
    {"mlp.down_proj", LORA_SITE_DOWN, 1}, END};

static const struct module_name hf_fused[] = {{"self_attn.qkv_proj", LORA_SITE_Q, 3},
                                              {"self_attn.o_proj", LORA_SITE_O, 1},
                                              {"mlp.gate_up_proj", LORA_SITE_GATE, 2},
                                              {"mlp.down_proj", LORA_SITE_DOWN, 1},
                                              END};

static const struct module_name hf_gpt2_modules[] = {{"attn.c_attn", LORA_SITE_Q, 3},
                                                     {"attn.c_proj", LORA_SITE_O, 1},
                                                     {"mlp.c_fc", LORA_SITE_UP, 1},
                                                     {"mlp.c_proj", LORA_SITE_DOWN, 1},
                                                     END};

static const struct module_name gguf_modules[] = {
    {"attn_q", LORA_SITE_Q, 1},      {"attn_k", LORA_SITE_K, 1},
    {"attn_v", LORA_SITE_V, 1},      {"attn_output", LORA_SITE_O, 1},
    {"ffn_gate", LORA_SITE_GATE, 1}, {"ffn_up", LORA_SITE_UP, 1},
    {"ffn_down", LORA_SITE_DOWN, 1}, END};

static const struct module_name gguf_qkv[] = {{"attn_qkv", LORA_SITE_Q, 3}, END};

/* phi3's ffn_up holds the gate's rows first; gpt2 has no gate. */
static const struct module_name gguf_phi3_modules[] = {{"attn_qkv", LORA_SITE_Q, 3},
                                                       {"attn_output", LORA_SITE_O, 1},
                                                       {"ffn_up", LORA_SITE_GATE, 2},
                                                       {"ffn_down", LORA_SITE_DOWN, 1},
                                                       END};

static const struct module_name gguf_gpt2_modules[] = {{"attn_qkv", LORA_SITE_Q, 3},
                                                       {"attn_output", LORA_SITE_O, 1},
                                                       {"ffn_up", LORA_SITE_UP, 1},
                                                       {"ffn_down", LORA_SITE_DOWN, 1},
                                                       END};

static const struct expert_names hf_experts[] = {
    {"mlp.gate",
     "mlp.experts",
     {"mlp.experts.", "mlp.experts.", "mlp.experts."},
     {".gate_proj", ".up_proj", ".down_proj"},
     {NULL, NULL, "mlp.experts.down_proj"},
     "mlp.experts.gate_up_proj"},
    {"block_sparse_moe.gate",
     "block_sparse_moe.experts",
     {"block_sparse_moe.experts.", "block_sparse_moe.experts.", "block_sparse_moe.experts."},
     {".w1", ".w3", ".w2"},
     {NULL, NULL, "block_sparse_moe.experts.down_proj"},
     "block_sparse_moe.experts.gate_up_proj"},
    {0},
};

static const struct expert_names gguf_experts[] = {
    {"ffn_gate_inp",
     NULL,
     {"ffn_gate.", "ffn_up.", "ffn_down."},
     {"", "", ""},
     {"ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"},
     "ffn_gate_up_exps.weight"},
    {0},
};

#define HF_ENDS                                                                                              \
    .root = "model.", .embed = "model.embed_tokens", .head = "lm_head", .final_norm = "model.norm",          \
    .layer_prefix = "model.layers."

static const struct tensor_names hf_llama = {
    HF_ENDS,
    .modules = hf_modules,
    .also = hf_fused,
    .norm = {"input_layernorm", NULL, "post_attention_layernorm", NULL, "self_attn.q_norm",
             "self_attn.k_norm"},
};

static const struct tensor_names hf_moe = {
    HF_ENDS,
    .modules = hf_modules,
    .also = hf_fused,
    .experts = hf_experts,
    .norm = {"input_layernorm", NULL, "post_attention_layernorm", NULL, "self_attn.q_norm",
             "self_attn.k_norm"},
};

static const struct tensor_names hf_phi3 = {
    HF_ENDS,
    .modules = hf_fused,
    .also = hf_modules,
    .norm = {"input_layernorm", NULL, "post_attention_layernorm", NULL, NULL, NULL},
};

/* Gemma's post_attention_layernorm stands behind the attention, and so does OLMo 2's; llama's of the same
 * name before the feed-forward. */
static const struct tensor_names hf_gemma = {
    HF_ENDS,
    .modules = hf_modules,
    .also = hf_fused,
    .norm = {"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
             "post_feedforward_layernorm", "self_attn.q_norm", "self_attn.k_norm"},
};

static const struct tensor_names hf_gpt2 = {
    .root = "transformer.",
    .embed = "transformer.wte",
    .position_embed = "transformer.wpe",
    .head = "lm_head",
    .final_norm = "transformer.ln_f",
    .layer_prefix = "transformer.h.",
    .modules = hf_gpt2_modules,
    .norm = {"ln_1", NULL, "ln_2", NULL, NULL, NULL},
};

#define GGUF_NAMES                                                                                           \
    .root = "", .embed = "token_embd", .position_embed = "position_embd", .head = "output",                  \
    .final_norm = "output_norm", .layer_prefix = "blk.",                                                     \
    .norm = {"attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "attn_q_norm", "attn_k_norm"}

static const struct tensor_names gguf_usual = {GGUF_NAMES, .modules = gguf_modules, .also = gguf_qkv,
                                               .experts = gguf_experts};
static const struct tensor_names gguf_phi3 = {GGUF_NAMES, .modules = gguf_phi3_modules, .also = gguf_modules};
static const struct tensor_names gguf_gpt2 = {GGUF_NAMES, .modules = gguf_gpt2_modules, .also = gguf_modules};

#define PRE_NORMS (1U << NORM_ATTN_IN | 1U << NORM_FFN_IN)
#define POST_NORMS (1U << NORM_ATTN_OUT | 1U << NORM_FFN_OUT)
#define QK_NORMS (1U << NORM_Q | 1U << NORM_K)

/* clang-format off */
static const struct family families[] = {
    {.model_type = "llama", .name = "llama", .names = &hf_llama, .norms = PRE_NORMS, .gguf_permuted = true},
    {.model_type = "mistral", .name = "mistral", .names = &hf_llama, .norms = PRE_NORMS, .gguf_permuted = true},
    {.model_type = "qwen2", .name = "qwen2", .names = &hf_llama, .norms = PRE_NORMS, .qkv_bias = true},
    {.model_type = "qwen3", .name = "qwen3", .names = &hf_llama, .norms = PRE_NORMS | QK_NORMS},
    {.model_type = "gemma2", .name = "gemma2", .names = &hf_gemma, .norms = PRE_NORMS | POST_NORMS,
     .norm_offset = 1, .scale_embedding = true},
    {.model_type = "gemma3_text", .name = "gemma3", .names = &hf_gemma,
     .norms = PRE_NORMS | POST_NORMS | QK_NORMS, .norm_offset = 1, .scale_embedding = true},
    {.model_type = "phi3", .name = "phi3", .names = &hf_phi3, .gguf = &gguf_phi3, .norms = PRE_NORMS},
    {.model_type = "gpt2", .name = "gpt2", .names = &hf_gpt2, .gguf = &gguf_gpt2, .norms = PRE_NORMS,
     .layer_norm = true, .all_bias = true, .no_gate = true, .no_rope = true, .conv1d = true},
    {.model_type = "granite", .name = "granite", .names = &hf_llama, .norms = PRE_NORMS, .gguf_permuted = true},
    {.model_type = "olmo2", .name = "olmo2", .names = &hf_gemma, .norms = POST_NORMS | QK_NORMS,
     .wide_qk_norm = true},
    {.model_type = "mixtral", .name = "mixtral", .names = &hf_moe, .norms = PRE_NORMS, .gguf_permuted = true},
    {.model_type = "qwen3_moe", .name = "qwen3_moe", .names = &hf_moe, .norms = PRE_NORMS | QK_NORMS},
};
/* clang-format on */
#define N_FAMILIES (sizeof families / sizeof families[0])

const struct family *family_find(const char *model_type)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (strcmp(families[i].model_type, model_type) == 0)
            return &families[i];
    return NULL;
}

void family_list(char *dst, size_t dst_bytes)
{
    size_t at = 0;
    for (size_t i = 0; i < N_FAMILIES && at < dst_bytes; i++)
        at += (size_t)snprintf(dst + at, dst_bytes - at, "%s%s", i ? ", " : "", families[i].model_type);
}

const struct tensor_names *file_names(const struct model *m)
{
    if (!m->config.from_gguf)
        return m->family->names;
    return m->family->gguf ? m->family->gguf : &gguf_usual;
}

bool layer_has_site(const struct model *m, uint32_t layer, enum lora_site site)
{
    uint32_t rows, cols;
    bool sparse = m->config.layer_is_sparse[layer];
    if (site == LORA_SITE_LM_HEAD)
        return true;
    if (site == LORA_SITE_ROUTER)
        return sparse;
    if (site >= LORA_SITE_GATE && site <= LORA_SITE_DOWN && sparse)
        return false;
    return model_site_shape(m, site, &rows, &cols);
}

void expert_shape(const struct model *m, unsigned i, uint32_t *out_rows, uint32_t *in_cols)
{
    *out_rows = i == 2 ? m->config.hidden_size : m->config.expert_intermediate_size;
    *in_cols = i == 2 ? m->config.expert_intermediate_size : m->config.hidden_size;
}

uint32_t norm_length(const struct model *m, enum norm_id norm)
{
    if (norm != NORM_Q && norm != NORM_K)
        return m->config.hidden_size;
    if (!m->family->wide_qk_norm)
        return m->config.head_dim;
    return norm == NORM_Q ? m->q_dim : m->kv_dim;
}
