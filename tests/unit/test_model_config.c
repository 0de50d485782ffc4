/* core/format: hyperparameters from config.json and from GGUF, and models as a whole. */
#include "tests/test.h"

#include <jansson.h>
#include <math.h>

#include "base/mem.h"
#include "format.h"
#include "tests/unit/made_files.h"

static enum status parse(const char *config, const char *generation, struct model_config *c,
                         struct error *err)
{
    json_t *a = NULL, *b = NULL;
    assert_int_equal(json_parse(config, strlen(config), "config.json", 64, &a, err), STATUS_OK);
    if (generation)
        assert_int_equal(json_parse(generation, strlen(generation), "generation_config.json", 64, &b, err),
                         STATUS_OK);
    enum status s = model_config_from_json(a, b, "config.json", c, err);
    json_decref(a);
    json_decref(b);
    return s;
}

static void must(const char *config, const char *generation, struct model_config *c)
{
    struct error err = {0};
    if (parse(config, generation, c, &err) != STATUS_OK)
        fail_msg("%s: %s", config, err.text);
}

#define SMALL                                                                                                \
    "\"vocab_size\":512,\"hidden_size\":64,\"intermediate_size\":112,\"num_attention_heads\":4,"             \
    "\"num_key_value_heads\":2,\"num_hidden_layers\":8,\"max_position_embeddings\":512"

static void defaults_are_those_of_the_type(void **state)
{
    (void)state;
    struct model_config c;
    must("{\"model_type\":\"llama\"}", NULL, &c);
    assert_int_equal(c.vocab_size, 32000);
    assert_int_equal(c.n_kv_heads, 32);
    assert_int_equal(c.head_dim, 128);
    assert_int_equal(c.max_position, 2048);
    assert_false(c.tie_word_embeddings);
    assert_int_equal(c.bos_token, 1);
    assert_int_equal(c.pad_token, -1);
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos_tokens[0], 2);
    assert_true(c.rope.theta == 10000 && c.rope.type == ROPE_DEFAULT && c.rope.factor == 1);
    must("{\"model_type\":\"qwen3\"," SMALL "}", NULL, &c);
    assert_int_equal(c.head_dim, 128); /* not hidden_size / heads */
    assert_int_equal(c.n_eos, 0);
    must("{\"model_type\":\"gemma3_text\"," SMALL "}", NULL, &c);
    assert_true(c.tie_word_embeddings);
    assert_int_equal(c.act, ACT_GELU_TANH);
    assert_true(c.query_pre_attn_scalar == 256);
    assert_true(c.rope.theta == 1e6 && c.rope_local.theta == 1e4);
    must("{\"model_type\":\"gemma2\"," SMALL "}", NULL, &c);
    assert_true(c.attn_logit_softcap == 50 && c.final_logit_softcap == 30);
    must("{\"model_type\":\"gemma2\",\"attn_logit_softcapping\":null," SMALL "}", NULL, &c);
    assert_true(c.attn_logit_softcap == 0 && c.final_logit_softcap == 30);
    must("{\"model_type\":\"mixtral\"," SMALL "}", NULL, &c);
    assert_int_equal(c.n_experts, 8);
    assert_int_equal(c.n_experts_used, 2);
    assert_true(c.norm_topk_prob && c.rope.theta == 1e6);
    must("{\"model_type\":\"gpt2\",\"n_embd\":64,\"n_head\":4,\"n_layer\":2,\"activation_function\":\"gelu_"
         "new\"}",
         NULL, &c);
    assert_int_equal(c.intermediate_size, 256);
    assert_int_equal(c.act, ACT_GELU_TANH);
    must("{\"model_type\":\"granite\"," SMALL "}", NULL, &c);
    assert_true(c.embedding_multiplier == 1 && c.logits_scaling == 1);
}

/* Which layers slide, as a string of s and f. */
static void check_layers(const char *config, const char *layers, uint32_t window)
{
    struct model_config c;
    char found[CONFIG_LAYERS_MAX + 1] = "";
    must(config, NULL, &c);
    for (uint32_t i = 0; i < c.n_layers; i++)
        found[i] = c.layer_is_sliding[i] ? 's' : 'f';
    assert_string_equal(found, layers);
    assert_int_equal(c.sliding_window, window);
}

static void layers_slide_as_transformers_has_it(void **state)
{
    (void)state;
    check_layers("{\"model_type\":\"llama\",\"sliding_window\":9," SMALL "}", "ffffffff", 0);
    check_layers("{\"model_type\":\"mistral\",\"sliding_window\":9," SMALL "}", "ssssssss", 9);
    check_layers("{\"model_type\":\"mistral\"," SMALL "}", "ssssssss", 4096);
    check_layers("{\"model_type\":\"mistral\",\"sliding_window\":null," SMALL "}", "ffffffff", 0);
    check_layers("{\"model_type\":\"qwen2\",\"sliding_window\":9," SMALL "}", "ffffffff", 0);
    check_layers("{\"model_type\":\"qwen2\",\"use_sliding_window\":false,\"sliding_window\":9,"
                 "\"max_window_layers\":2," SMALL "}",
                 "ffffffff", 0);
    check_layers("{\"model_type\":\"qwen2\",\"use_sliding_window\":true,\"sliding_window\":9,"
                 "\"max_window_layers\":6," SMALL "}",
                 "ffffffss", 9);
    check_layers("{\"model_type\":\"gemma2\",\"sliding_window\":9," SMALL "}", "sfsfsfsf", 9);
    check_layers("{\"model_type\":\"gemma3_text\",\"sliding_window\":9," SMALL "}", "sssssfss", 9);
    check_layers("{\"model_type\":\"gemma3_text\",\"sliding_window_pattern\":3," SMALL "}", "ssfssfss", 4096);
    check_layers(
        "{\"model_type\":\"gemma3_text\",\"_sliding_window_pattern\":3,\"sliding_window\":9,\"layer_types\":["
        "\"full_attention\",\"sliding_attention\",\"full_attention\",\"full_attention\",\"full_attention\","
        "\"full_attention\",\"full_attention\",\"full_attention\"]," SMALL "}",
        "fsffffff", 9);
    check_layers("{\"model_type\":\"phi3\"," SMALL "}", "ffffffff", 0);
    check_layers("{\"model_type\":\"phi3\",\"sliding_window\":24," SMALL "}", "ssssssss", 24);
}

static void rotary_styles_say_the_same(void **state)
{
    (void)state;
    static const char *const styles[] = {
        "{\"model_type\":\"llama\"," SMALL ",\"rope_theta\":5e5,\"rope_scaling\":{\"rope_type\":\"llama3\","
        "\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":64}}",
        "{\"model_type\":\"llama\"," SMALL ",\"rope_theta\":500000.0,\"rope_scaling\":{\"type\":\"llama3\","
        "\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_"
        "embeddings\":64}}",
        "{\"model_type\":\"llama\"," SMALL
        ",\"rope_parameters\":{\"rope_theta\":500000,\"rope_type\":\"llama3\","
        "\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":64}"
        "}"};
    struct model_config c;
    for (size_t i = 0; i < sizeof styles / sizeof *styles; i++) {
        must(styles[i], NULL, &c);
        assert_int_equal(c.rope.type, ROPE_LLAMA3);
        assert_true(c.rope.theta == 5e5 && c.rope.factor == 8 && c.rope.low_freq_factor == 1);
        assert_true(c.rope.high_freq_factor == 4 && c.rope.original_max_position == 64);
        assert_memory_equal(&c.rope, &c.rope_local, sizeof c.rope);
    }
    must("{\"model_type\":\"gemma3_text\"," SMALL ",\"rope_theta\":1000000,\"rope_local_base_freq\":20000,"
         "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8}}",
         NULL, &c);
    assert_true(c.rope.type == ROPE_LINEAR && c.rope.factor == 8 && c.rope.theta == 1e6);
    assert_true(c.rope_local.type == ROPE_DEFAULT && c.rope_local.factor == 1 && c.rope_local.theta == 2e4);
    must("{\"model_type\":\"gemma3_text\"," SMALL
         ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\","
         "\"factor\":8,\"rope_theta\":1e6},\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":"
         "2e4}}}",
         NULL, &c);
    assert_true(c.rope.type == ROPE_LINEAR && c.rope.factor == 8 && c.rope.theta == 1e6);
    assert_true(c.rope_local.type == ROPE_DEFAULT && c.rope_local.factor == 1 && c.rope_local.theta == 2e4);
    must("{\"model_type\":\"qwen2\"," SMALL ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,"
         "\"original_max_position_embeddings\":32}}",
         NULL, &c);
    assert_true(c.rope.type == ROPE_YARN && c.rope.beta_fast == 32 && c.rope.beta_slow == 1 &&
                c.rope.truncate);
    must("{\"model_type\":\"qwen2\"," SMALL ",\"original_max_position_embeddings\":128,"
         "\"rope_scaling\":{\"type\":\"yarn\"}}",
         NULL, &c);
    assert_true(c.rope.factor == 4 && c.rope.original_max_position == 128); /* 512 / 128 */
    must("{\"model_type\":\"phi3\"," SMALL
         ",\"partial_rotary_factor\":0.5,\"original_max_position_embeddings\":256,"
         "\"rope_scaling\":{\"type\":\"su\",\"long_factor\":[1,2,3,4],\"short_factor\":[1,1,1,1.5]}}",
         NULL, &c);
    assert_true(c.rope.type == ROPE_LONGROPE && c.rope.n_factors == 4 && c.rope.partial_factor == 0.5);
    assert_true(c.rope.long_factors[3] == 4 && c.rope.short_factors[3] == 1.5F);
}

static void tokens_are_joined(void **state)
{
    (void)state;
    struct model_config c;
    must("{\"model_type\":\"llama\",\"eos_token_id\":[5,7],\"bos_token_id\":null,\"pad_token_id\":-1," SMALL
         "}",
         "{\"eos_token_id\":[9,5]}", &c);
    assert_int_equal(c.bos_token, -1);
    assert_int_equal(c.pad_token, -1);
    assert_int_equal(c.n_eos, 3);
    assert_int_equal(c.eos_tokens[0], 9);
    assert_int_equal(c.eos_tokens[1], 5);
    assert_int_equal(c.eos_tokens[2], 7);
}

static void a_text_config_is_found(void **state)
{
    (void)state;
    struct model_config c;
    must("{\"model_type\":\"gemma3\",\"eos_token_id\":[1,6],\"text_config\":{\"model_type\":\"gemma3_text\","
         "\"head_dim\":"
         "32," SMALL "},\"vision_config\":{}}",
         NULL, &c);
    assert_string_equal(c.model_type, "gemma3_text");
    assert_int_equal(c.hidden_size, 64);
    assert_int_equal(c.n_eos, 2);
}

#define QUANTIZED(q) "{\"model_type\":\"llama\"," SMALL ",\"quantization_config\":{" q "}}"
#define GROUPS(weights)                                                                                      \
    QUANTIZED("\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\",\"config_groups\":{"   \
              "\"group_0\":{\"targets\":[\"Linear\"],\"weights\":{" weights "}}}")

/* Which layers have experts, and switches that a family's configuration may carry but that mean nothing
 * there. */
static void families_read_their_own_switches(void **state)
{
    (void)state;
    struct model_config c;
    must("{\"model_type\":\"qwen3_moe\",\"num_hidden_layers\":6,\"decoder_sparse_step\":2,"
         "\"mlp_only_layers\":[3,99]}",
         NULL, &c);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(c.layer_is_sparse[i], i == 1 || i == 5);
    assert_false(c.norm_topk_prob);
    must("{\"model_type\":\"mixtral\",\"num_hidden_layers\":2,\"norm_topk_prob\":false,"
         "\"attention_bias\":true}",
         NULL, &c);
    assert_true(c.layer_is_sparse[0] && c.layer_is_sparse[1] && c.norm_topk_prob);
    assert_false(c.attention_bias);
    must("{\"model_type\":\"olmo2\",\"attention_bias\":true,\"mlp_bias\":true}", NULL, &c);
    assert_true(c.attention_bias && !c.mlp_bias);
    must("{\"model_type\":\"gpt2\",\"head_dim\":10,\"num_key_value_heads\":2,"
         "\"scale_attn_by_inverse_layer_idx\":true,\"scale_attn_weights\":false}",
         NULL, &c);
    assert_int_equal(c.head_dim, 64);
    assert_int_equal(c.n_kv_heads, 12);
    assert_true(c.attn_scale_by_layer && c.attention_multiplier == 1);
}

static void f8_weights_are_known(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        bool f8;
        uint32_t rows, cols;
    } good[] = {
        {"{\"model_type\":\"llama\"," SMALL "}", false, 0, 0},
        {"{\"model_type\":\"llama\"," SMALL ",\"quantization_config\":null}", false, 0, 0},
        {QUANTIZED("\"quant_method\":\"fp8\",\"fmt\":\"e4m3\",\"activation_scheme\":\"dynamic\","
                   "\"weight_block_size\":[128,128]"),
         true, 128, 128},
        {QUANTIZED(
             "\"quant_method\":\"fp8\",\"activation_scheme\":\"static\",\"ignored_layers\":[\"lm_head\"]"),
         true, 0, 0},
        {GROUPS("\"num_bits\":8,\"type\":\"float\",\"strategy\":\"channel\",\"symmetric\":true"), true, 0, 0},
        {GROUPS("\"num_bits\":8,\"type\":\"float\",\"strategy\":\"block\",\"block_structure\":[64,256]"),
         true, 64, 256},
        {QUANTIZED("\"quant_method\":\"modelopt\",\"quant_algo\":\"FP8\",\"kv_cache_quant_algo\":\"FP8\""),
         true, 0, 0},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct model_config c;
        must(good[i].config, NULL, &c);
        assert_int_equal(c.f8, good[i].f8);
        assert_int_equal(c.f8_block_rows, good[i].rows);
        assert_int_equal(c.f8_block_cols, good[i].cols);
    }
}

static const struct {
    const char *config;
    enum status status;
    const char *text;
} bad[] = {
    {"[]", STATUS_FORMAT, "not a JSON object"},
    {"{}", STATUS_FORMAT, "model_type is missing"},
    {"{\"model_type\":3}", STATUS_FORMAT, "model_type is not a string"},
    {"{\"model_type\":\"unheard-of\"}", STATUS_FORMAT, "vocab_size is missing (model_type unheard-of)"},
    {"{\"model_type\":\"llama\",\"hidden_size\":-1}", STATUS_FORMAT, "hidden_size is -1, expected 1 to"},
    {"{\"model_type\":\"llama\",\"partial_rotary_factor\":0.5}", STATUS_UNSUPPORTED,
     "partial_rotary_factor is not 1"},
    {"{\"model_type\":\"olmo2\",\"clip_qkv\":8}", STATUS_UNSUPPORTED, "clip_qkv is not supported"},
    {"{\"model_type\":\"llama\",\"rope_scaling\":{\"rope_type\":\"linear\"}}", STATUS_FORMAT,
     "rope_scaling.factor is missing for this rope_type"},
    {"{\"model_type\":\"qwen2\",\"use_mrope\":true}", STATUS_UNSUPPORTED, "use_mrope is true"},
    {"{\"model_type\":\"gpt2\",\"n_embd\":30,\"n_head\":4}", STATUS_FORMAT, "n_embd is 30, no multiple"},
    {"{\"model_type\":\"qwen3_moe\",\"mlp_only_layers\":1}", STATUS_FORMAT, "mlp_only_layers is not a list"},
    {"{\"model_type\":\"qwen3_moe\",\"mlp_only_layers\":[\"a\"]}", STATUS_FORMAT,
     "mlp_only_layers [0] is not a whole number"},
    {"{\"model_type\":\"qwen3_moe\",\"decoder_sparse_step\":0}", STATUS_FORMAT, "decoder_sparse_step is 0"},
    {"{\"model_type\":\"mixtral\",\"num_experts_per_tok\":9}", STATUS_FORMAT, "num_experts_per_tok is 9"},
    {"{\"model_type\":\"olmo2\",\"num_attention_heads\":[4,8]}", STATUS_FORMAT,
     "num_attention_heads is not a number"},
    {"{\"model_type\":\"llama\",\"hidden_size\":6.5}", STATUS_FORMAT,
     "hidden_size is 6.5, expected a whole number"},
    {"{\"model_type\":\"llama\",\"hidden_size\":\"64\"}", STATUS_FORMAT, "hidden_size is not a number"},
    {"{\"model_type\":\"llama\",\"num_hidden_layers\":257}", STATUS_FORMAT, "num_hidden_layers is 257"},
    {"{\"model_type\":\"llama\",\"num_hidden_layers\":1e300}", STATUS_FORMAT, "num_hidden_layers is 1e+300"},
    {"{\"model_type\":\"llama\",\"num_attention_heads\":0}", STATUS_FORMAT, "num_attention_heads is 0"},
    {"{\"model_type\":\"llama\",\"num_key_value_heads\":5}", STATUS_FORMAT, "can't share 5 key/value heads"},
    {"{\"model_type\":\"llama\",\"head_dim\":15}", STATUS_FORMAT, "head_dim is 15, expected an even number"},
    {"{\"model_type\":\"llama\",\"eos_token_id\":32000}", STATUS_FORMAT, "eos_token_id 32000 is outside"},
    {"{\"model_type\":\"llama\",\"eos_token_id\":\"</s>\"}", STATUS_FORMAT, "eos_token_id is neither"},
    {"{\"model_type\":\"llama\",\"tie_word_embeddings\":1}", STATUS_FORMAT, "neither true nor false"},
    {"{\"model_type\":\"llama\",\"hidden_act\":\"mish\"}", STATUS_UNSUPPORTED, "hidden_act is 'mish'"},
    {"{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"gptq\"}}", STATUS_UNSUPPORTED,
     "quantization_config (gptq) is not supported"},
    {QUANTIZED("\"bits\":4"), STATUS_UNSUPPORTED, "quantization_config (no quant_method) is not supported"},
    {QUANTIZED("\"quant_method\":\"fp8\",\"fmt\":\"e5m2\""), STATUS_UNSUPPORTED,
     "quantization_config.fmt is 'e5m2', expected e4m3"},
    {QUANTIZED("\"quant_method\":\"fp8\",\"weight_block_size\":[128,100]"), STATUS_UNSUPPORTED,
     "weight_block_size is [128, 100]: the columns must be a multiple of 128"},
    {QUANTIZED("\"quant_method\":\"fp8\",\"weight_block_size\":[0,128]"), STATUS_FORMAT,
     "weight_block_size is not a pair of sizes"},
    {QUANTIZED("\"quant_method\":\"fp8\",\"weight_block_size\":128"), STATUS_FORMAT,
     "is not a pair of sizes"},
    {QUANTIZED("\"quant_method\":\"modelopt\",\"quant_algo\":\"NVFP4\""), STATUS_UNSUPPORTED,
     "quantization_config.quant_algo is 'NVFP4', expected FP8"},
    {QUANTIZED("\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\""), STATUS_UNSUPPORTED,
     "format is 'pack-quantized', expected float-quantized"},
    {QUANTIZED("\"quant_method\":\"compressed-tensors\""), STATUS_FORMAT, "config_groups is missing"},
    {QUANTIZED(
         "\"quant_method\":\"compressed-tensors\",\"sparsity_config\":{\"format\":\"sparse-24-bitmask\"}"),
     STATUS_UNSUPPORTED, "sparsity_config is 'sparse-24-bitmask', expected dense"},
    {QUANTIZED("\"quant_method\":\"compressed-tensors\",\"transform_config\":{\"R1\":{}}"),
     STATUS_UNSUPPORTED, "transform_config is not supported"},
    {GROUPS("\"num_bits\":8,\"type\":\"int\""), STATUS_UNSUPPORTED,
     "type is 'int' of 8 bits, expected float"},
    {GROUPS("\"num_bits\":4,\"type\":\"float\""), STATUS_UNSUPPORTED, "type is 'float' of 4 bits"},
    {GROUPS("\"num_bits\":8,\"type\":\"float\",\"strategy\":\"group\""), STATUS_UNSUPPORTED,
     "strategy is 'group', expected tensor, channel or block"},
    {GROUPS("\"num_bits\":8,\"type\":\"float\",\"symmetric\":false"), STATUS_UNSUPPORTED,
     "symmetric is false"},
    {"{\"model_type\":\"llama\",\"is_encoder_decoder\":true}", STATUS_UNSUPPORTED,
     "is_encoder_decoder is true"},
    {"{\"model_type\":\"gemma3_text\",\"use_bidirectional_attention\":true}", STATUS_UNSUPPORTED,
     "use_bidirectional_attention is true"},
    {"{\"model_type\":\"gpt2\",\"scale_attn_weights\":0}", STATUS_FORMAT, "scale_attn_weights is neither"},
    {"{\"model_type\":\"qwen3\",\"layer_types\":[\"full_attention\"]}", STATUS_FORMAT,
     "layer_types has 1 entries, expected 32"},
    {"{\"model_type\":\"qwen3\",\"num_hidden_layers\":1,\"layer_types\":[\"linear_attention\"]}",
     STATUS_UNSUPPORTED, "layer_types has 'linear_attention'"},
    {"{\"model_type\":\"qwen3\",\"num_hidden_layers\":1,\"layer_types\":[\"sliding_attention\"]}",
     STATUS_FORMAT, "sliding_window is missing"},
    {"{\"model_type\":\"llama\",\"rope_scaling\":3}", STATUS_FORMAT, "rope_scaling is not an object"},
    {"{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"mrope\"}}", STATUS_UNSUPPORTED,
     "rope_scaling.type is 'mrope'"},
    {"{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"linear\",\"twist\":2}}", STATUS_UNSUPPORTED,
     "rope_scaling.twist is not a rotary parameter"},
    {"{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"linear\"}}", STATUS_FORMAT,
     "rope_scaling.factor is missing"},
    {"{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}", STATUS_FORMAT,
     "rope_scaling.factor is 0"},
    {"{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
     "\"high_freq_factor\":4}}",
     STATUS_FORMAT, "rope_scaling.high_freq_factor is not above"},
    {"{\"model_type\":\"llama\",\"rope_parameters\":{\"rope_type\":\"longrope\",\"long_factor\":[1],\"short_"
     "factor\":[1]}}",
     STATUS_FORMAT, "rope_parameters.long_factor has 1 numbers, expected 64"},
    {"{\"model_type\":\"llama\",\"rope_theta\":-1}", STATUS_FORMAT, "rope_theta is -1"},
};

static void wrong_configs_get_their_error(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err = {0};
        struct model_config c;
        enum status s = parse(bad[i].config, NULL, &c, &err);
        if (s != bad[i].status || !strstr(err.text, bad[i].text))
            fail_msg("%s: got %s '%s', expected %s '%s'", bad[i].config, status_name(s), err.text,
                     status_name(bad[i].status), bad[i].text);
    }
}

/* ---- GGUF */

struct pair {
    const char *key;
    double number;    /* written as u32, or as f32 if `is_float` */
    const char *text; /* a string instead */
    bool is_float;
};

static const struct pair base_pairs[] = {{"general.architecture", 0, "ARCH", false},
                                         {"embedding_length", 64, NULL, false},
                                         {"block_count", 7, NULL, false},
                                         {"feed_forward_length", 112, NULL, false},
                                         {"attention.head_count", 4, NULL, false},
                                         {"attention.head_count_kv", 2, NULL, false},
                                         {"context_length", 512, NULL, false},
                                         {"vocab_size", 99, NULL, false}};
#define N_BASE (sizeof base_pairs / sizeof *base_pairs)

static void put_pair(struct buf *b, const char *arch, const struct pair *p)
{
    char key[100];
    bool general =
        strchr(p->key, '.') && (strncmp(p->key, "general.", 8) == 0 ||
                                strncmp(p->key, "tokenizer.", 10) == 0 || strncmp(p->key, "split.", 6) == 0);
    snprintf(key, sizeof key, "%s%s%s", general ? "" : arch, general ? "" : ".", p->key);
    if (p->text)
        put_gguf_text(b, key, strcmp(p->text, "ARCH") == 0 ? arch : p->text);
    else if (p->is_float)
        put_gguf_f32(b, key, (float)p->number);
    else
        put_gguf_u32(b, key, (uint32_t)p->number);
}

/* The base pairs (but for those that `more` gives again), `more`, and rope_freqs of n_freqs values. */
static enum status parse_gguf(const char *arch, const struct pair *more, size_t n_more, uint32_t n_freqs,
                              struct model_config *c, struct error *err)
{
    struct folder f = folder_make();
    struct buf b, pairs;
    struct gguf *g;
    char path[100];
    uint64_t n = n_more;
    buf_init(&b, 0);
    buf_init(&pairs, 0);
    for (size_t i = 0; i < N_BASE; i++) {
        bool given = false;
        for (size_t k = 0; k < n_more; k++)
            given |= strcmp(more[k].key, base_pairs[i].key) == 0;
        if (!given) {
            put_pair(&pairs, arch, &base_pairs[i]);
            n++;
        }
    }
    for (size_t i = 0; i < n_more; i++)
        put_pair(&pairs, arch, &more[i]);
    put_gguf_front(&b, 3, n_freqs ? 1 : 0, n);
    buf_append(&b, pairs.data, pairs.length);
    if (n_freqs)
        put_gguf_tensor(&b, "rope_freqs.weight", n_freqs, 1, 0, 0);
    put_gguf_padding(&b, 32);
    for (uint32_t i = 0; i < n_freqs; i++) {
        float v = (float)(1 + i);
        buf_append(&b, &v, sizeof v);
    }
    put_file(f.path, "m.gguf", b.data, b.length);
    snprintf(path, sizeof path, "%s/m.gguf", f.path);
    assert_int_equal(gguf_open(path, NULL, &g, err), STATUS_OK);
    enum status s = model_config_from_gguf(g, c, err);
    gguf_close(g);
    buf_fini(&b);
    buf_fini(&pairs);
    folder_remove(&f);
    return s;
}

static void gguf_implies_what_it_does_not_say(void **state)
{
    (void)state;
    struct model_config c;
    struct error err;
    assert_int_equal(parse_gguf("llama", NULL, 0, 8, &c, &err), STATUS_OK);
    assert_string_equal(c.model_type, "llama");
    assert_true(c.from_gguf);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.vocab_size, 99);
    assert_true(c.tie_word_embeddings); /* no output.weight */
    assert_int_equal(c.bos_token, -1);
    assert_int_equal(c.rope.type, ROPE_LLAMA3);
    assert_int_equal(c.rope.n_factors, 8);
    assert_true(c.rope.long_factors[7] == 8 && c.rope.short_factors[7] == 8);

    static const struct pair gemma[] = {
        {"attention.sliding_window", 16, NULL, false},   {"attention.key_length", 32, NULL, false},
        {"attention.value_length", 32, NULL, false},     {"rope.freq_base", 1e6, NULL, true},
        {"rope.scaling.type", 0, "linear", false},       {"rope.scaling.factor", 8, NULL, true},
        {"tokenizer.ggml.eos_token_id", 1, NULL, false}, {"tokenizer.ggml.eot_token_id", 6, NULL, false}};
    assert_int_equal(parse_gguf("gemma3", gemma, sizeof gemma / sizeof *gemma, 0, &c, &err), STATUS_OK);
    assert_string_equal(c.model_type, "gemma3_text");
    static const uint8_t sliding[7] = {1, 1, 1, 1, 1, 0, 1};
    assert_memory_equal(c.layer_is_sliding, sliding, 7);
    assert_true(c.rope.type == ROPE_LINEAR && c.rope.theta == 1e6 && c.rope.factor == 8);
    assert_true(c.rope_local.type == ROPE_DEFAULT && c.rope_local.theta == 1e4 && c.rope_local.factor == 1);
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.act, ACT_GELU_TANH);
    assert_int_equal(c.head_dim, 32);

    static const struct pair experts[] = {{"expert_count", 4, NULL, false},
                                          {"expert_used_count", 2, NULL, false}};
    assert_int_equal(parse_gguf("llama", experts, 2, 0, &c, &err), STATUS_OK);
    assert_string_equal(c.model_type, "mixtral");
    assert_int_equal(parse_gguf("brandnew", NULL, 0, 0, &c, &err), STATUS_OK);
    assert_string_equal(c.model_type, "brandnew"); /* the model room refuses it by this name */
}

static const struct {
    struct pair pair;
    uint32_t n_freqs;
    enum status status;
    const char *text;
} bad_gguf[] = {
    {{"general.type", 0, "adapter", false}, 0, STATUS_INVALID, "an adapter goes to --adapter"},
    {{"general.type", 0, "mmproj", false}, 0, STATUS_INVALID, "general.type is 'mmproj'"},
    {{"general.architecture", 3, NULL, false}, 0, STATUS_FORMAT, "general.architecture is of type u32"},
    {{"split.count", 4, NULL, false}, 0, STATUS_UNSUPPORTED, "split files"},
    {{"block_count", 300, NULL, false}, 0, STATUS_FORMAT, "llama.block_count is 300"},
    {{"block_count", 2, NULL, true}, 0, STATUS_FORMAT, "llama.block_count is of type f32"},
    {{"attention.head_count", 0, NULL, false}, 0, STATUS_FORMAT, "llama.attention.head_count is 0"},
    {{"attention.value_length", 8, NULL, false},
     0,
     STATUS_UNSUPPORTED,
     "heads of 16 for keys and 8 for values"},
    {{"rope.scaling.type", 0, "spiral", false}, 0, STATUS_UNSUPPORTED, "llama.rope.scaling.type is 'spiral'"},
    {{"rope.freq_base", -1, NULL, true}, 0, STATUS_FORMAT, "llama.rope.freq_base is -1"},
    {{"rope.freq_base", NAN, NULL, true}, 0, STATUS_FORMAT, "llama.rope.freq_base is nan"},
    {{"general.name", 0, "x", false},
     5,
     STATUS_FORMAT,
     "'rope_freqs.weight' has 5 values of f32, expected 8"},
    {{"tokenizer.ggml.eos_token_id", 99, NULL, false}, 0, STATUS_FORMAT, "eos_token_id 99 is outside"},
};

static void wrong_gguf_metadata_gets_its_error(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_gguf / sizeof *bad_gguf; i++) {
        struct error err = {0};
        struct model_config c;
        enum status s = parse_gguf("llama", &bad_gguf[i].pair, 1, bad_gguf[i].n_freqs, &c, &err);
        if (s != bad_gguf[i].status || !strstr(err.text, bad_gguf[i].text))
            fail_msg("%s: got %s '%s', expected '%s'", bad_gguf[i].pair.key, status_name(s), err.text,
                     bad_gguf[i].text);
    }
}

/* ---- a model as a whole */

static void folders_say_what_is_missing(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct error err;
    struct model_files *m;
    assert_int_equal(model_files_open(f.path, &m, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, "no config.json"));
    put_text(f.path, "adapter_config.json", "{}");
    assert_int_equal(model_files_open(f.path, &m, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "this is an adapter"));
    put_text(f.path, "config.json", "{\"model_type\":\"llama\"," SMALL "}");
    assert_int_equal(model_files_open(f.path, &m, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, "neither model.safetensors nor"));
    put_text(f.path, "pytorch_model.bin", "x");
    assert_int_equal(model_files_open(f.path, &m, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "save_pretrained"));
    put_safetensors(f.path, "model.safetensors",
                    "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    put_text(f.path, "generation_config.json", "{\"eos_token_id\": oops}");
    assert_int_equal(model_files_open(f.path, &m, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.text, "generation_config.json:1:"));
    put_text(f.path, "generation_config.json", "{\"eos_token_id\": 5}");
    enum status s;
    uint64_t n = 0;
    do {
        mem_fail_at(++n);
        s = model_files_open(f.path, &m, &err);
        mem_fail_at(0);
        if (s != STATUS_OK)
            assert_int_equal(s, STATUS_NO_MEMORY);
    } while (s != STATUS_OK && n < 100);
    assert_int_equal(s, STATUS_OK);
    assert_string_equal(m->config.name, strrchr(f.path, '/') + 1);
    assert_int_equal(tensors_count(m->tensors), 1);
    assert_int_equal(m->config.eos_tokens[0], 5);
    assert_true(m->dir_fd >= 0);
    model_files_close(m);
    assert_int_equal(model_files_open("/nowhere/at/all", &m, &err), STATUS_NOT_FOUND);
    model_files_close(NULL);
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_type),
        cmocka_unit_test(layers_slide_as_transformers_has_it),
        cmocka_unit_test(rotary_styles_say_the_same),
        cmocka_unit_test(tokens_are_joined),
        cmocka_unit_test(a_text_config_is_found),
        cmocka_unit_test(families_read_their_own_switches),
        cmocka_unit_test(f8_weights_are_known),
        cmocka_unit_test(wrong_configs_get_their_error),
        cmocka_unit_test(gguf_implies_what_it_does_not_say),
        cmocka_unit_test(wrong_gguf_metadata_gets_its_error),
        cmocka_unit_test(folders_say_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
