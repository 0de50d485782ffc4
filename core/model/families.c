/* The family table. A family is a row: which norms, biases and scales the shared forward pass has for it, and
 * how its files call the tensors. What a config.json says itself (sizes, windows, rope, soft-caps, tied head)
 * is not here. */
#include <stdio.h>
#include <string.h>

#include "model_inner.h"

static const struct module_name hf_modules[] = {
    {"self_attn.q_proj", LORA_SITE_Q, 1}, {"self_attn.k_proj", LORA_SITE_K, 1},
    {"self_attn.v_proj", LORA_SITE_V, 1}, {"self_attn.o_proj", LORA_SITE_O, 1},
    {"mlp.gate_proj", LORA_SITE_GATE, 1}, {"mlp.up_proj", LORA_SITE_UP, 1},
    {"mlp.down_proj", LORA_SITE_DOWN, 1}, {NULL, LORA_SITE_COUNT, 0}};

static const struct module_name gguf_modules[] = {
    {"attn_q", LORA_SITE_Q, 1},      {"attn_k", LORA_SITE_K, 1},      {"attn_v", LORA_SITE_V, 1},
    {"attn_output", LORA_SITE_O, 1}, {"ffn_gate", LORA_SITE_GATE, 1}, {"ffn_up", LORA_SITE_UP, 1},
    {"ffn_down", LORA_SITE_DOWN, 1}, {NULL, LORA_SITE_COUNT, 0}};

static const struct tensor_names hf_llama = {
    "model.embed_tokens",
    "lm_head",
    "model.norm",
    "model.layers.",
    hf_modules,
    {"input_layernorm", NULL, "post_attention_layernorm", NULL, "self_attn.q_norm", "self_attn.k_norm"},
};

/* Gemma's post_attention_layernorm stands behind the attention; llama's of the same name before the
 * feed-forward. */
static const struct tensor_names hf_gemma = {
    "model.embed_tokens",
    "lm_head",
    "model.norm",
    "model.layers.",
    hf_modules,
    {"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
     "self_attn.q_norm", "self_attn.k_norm"},
};

const struct tensor_names gguf_names = {
    "token_embd",
    "output",
    "output_norm",
    "blk.",
    gguf_modules,
    {"attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "attn_q_norm", "attn_k_norm"},
};

/* clang-format off */
static const struct family families[] = {
    {.model_type = "llama", .name = "llama", .names = &hf_llama, .gguf_permuted = true},
    {.model_type = "mistral", .name = "mistral", .names = &hf_llama, .gguf_permuted = true},
    {.model_type = "qwen2", .name = "qwen2", .names = &hf_llama, .qkv_bias = true},
    {.model_type = "qwen3", .name = "qwen3", .names = &hf_llama, .qk_norm = true},
    {.model_type = "granite", .name = "granite", .names = &hf_llama, .gguf_permuted = true},
    {.model_type = "gemma2", .name = "gemma2", .names = &hf_gemma, .norm_offset = 1, .post_norms = true,
     .scale_embedding = true},
    {.model_type = "gemma3_text", .name = "gemma3", .names = &hf_gemma, .norm_offset = 1, .post_norms = true,
     .scale_embedding = true, .qk_norm = true},
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
