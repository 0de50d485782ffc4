/* core/model/model.c and weights.c: what a base must have to be loaded, conversions, and its description. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "model_inner.h"

#define OWN_MODELS "tests/golden/data/models/"
#define LLAMA "tests/golden/data/models/llama/f32"
#define GEMMA "tests/golden/data/models/gemma3/f32"

static const struct kernels *kernels(void)
{
    const struct kernels *k;
    struct error err;
    assert_int_equal(kernels_select("scalar", ACT_MODE_INT8, &k, &err), STATUS_OK);
    return k;
}

static struct model_files *open_files(const char *path)
{
    struct model_files *f;
    struct error err;
    assert_int_equal(model_files_open(path, &f, &err), STATUS_OK);
    return f;
}

/* A change to the configuration, and the error that it must give. */
struct change {
    void (*apply)(struct model_config *c);
    enum status status;
    const char *text;
};

static void family(struct model_config *c)
{
    strcpy(c->model_type, "mamba");
}
static void fewer_layers(struct model_config *c)
{
    c->n_layers--;
}
static void more_layers(struct model_config *c)
{
    c->n_layers++;
}
static void no_layers(struct model_config *c)
{
    c->n_layers = 0;
}
static void too_many_layers(struct model_config *c)
{
    c->n_layers = UINT32_MAX;
}
static void narrower(struct model_config *c)
{
    c->intermediate_size = 64;
}
static void other_heads(struct model_config *c)
{
    c->n_heads = 3;
}
static void huge_heads(struct model_config *c)
{
    c->head_dim = 1U << 31;
}
static void odd_heads(struct model_config *c)
{
    c->head_dim = 15;
}
static void other_vocabulary(struct model_config *c)
{
    c->vocab_size = 1000;
}
static void biased(struct model_config *c)
{
    c->attention_bias = true;
}
static void tied(struct model_config *c)
{
    c->tie_word_embeddings = true; /* then lm_head.weight is a harmless copy */
    c->n_layers = 1;
}
static void experts(struct model_config *c)
{
    c->n_experts = 8;
}
static void bad_eps(struct model_config *c)
{
    c->norm_eps = NAN;
}
static void no_context(struct model_config *c)
{
    c->max_position = 0;
}
static void bad_rope(struct model_config *c)
{
    c->rope.theta = -1;
}
static void qk_norms(struct model_config *c)
{
    strcpy(c->model_type, "qwen3");
}

static void refuses_by_name(void **state)
{
    (void)state;
    static const struct change changes[] = {
        {family, STATUS_UNSUPPORTED,
         "model_type \"mamba\" is not supported; known are llama, mistral, qwen2, qwen3"},
        {fewer_layers, STATUS_UNSUPPORTED, "model.layers.1."},
        {more_layers, STATUS_FORMAT,
         "model.layers.2.input_layernorm.weight: tensor is missing, expected [32]"},
        {no_layers, STATUS_INVALID, "num_hidden_layers is 0"},
        {too_many_layers, STATUS_INVALID, "num_hidden_layers is 4294967295"},
        {narrower, STATUS_FORMAT, "gate_proj.weight: shape [48, 32], expected [64, 32]"},
        {other_heads, STATUS_INVALID, "num_attention_heads 3 is no multiple of num_key_value_heads 2"},
        {huge_heads, STATUS_INVALID, "head_dim is 2147483648"},
        {odd_heads, STATUS_INVALID, "head_dim is 15, expected an even number"},
        {other_vocabulary, STATUS_FORMAT, "model.embed_tokens.weight: shape [384, 32], expected [1000, 32]"},
        {biased, STATUS_FORMAT, "model.layers.0.self_attn.q_proj.bias: tensor is missing"},
        {tied, STATUS_UNSUPPORTED, "model.layers.1."},
        {experts, STATUS_UNSUPPORTED, "llama models have no experts, but the configuration has 8"},
        {bad_eps, STATUS_INVALID, "rms_norm_eps"},
        {no_context, STATUS_INVALID, "max_position_embeddings is 0"},
        {bad_rope, STATUS_INVALID, "rope_theta is -1"},
        {qk_norms, STATUS_FORMAT, "self_attn.q_norm.weight: tensor is missing"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        struct model_files *f = open_files(LLAMA);
        struct model *m;
        struct error err;
        changes[i].apply(&f->config);
        enum status status = model_open(f, &(struct model_options){.kernels = kernels()}, &m, &err);
        if (status != changes[i].status || !strstr(err.text, changes[i].text))
            print_message("%d %s, expected: %s\n", (int)status, err.text, changes[i].text);
        assert_int_equal(status, changes[i].status);
        assert_non_null(strstr(err.text, changes[i].text));
        assert_non_null(strstr(err.text, LLAMA)); /* the text says which model */
        assert_null(m);
        model_files_close(f);
    }
}

/* Every allocation of loading fails once; nothing leaks and the last attempt loads. */
static void survives_short_memory(void **state)
{
    (void)state;
    struct model_files *f = open_files(GEMMA);
    struct model_options o = {.kernels = kernels(), .quant = QUANT_Q8_0};
    struct model *m;
    struct error err;
    struct step_space *s;
    struct team *team = team_create(1);
    enum status status = STATUS_NO_MEMORY;
    for (uint64_t n = 1; status != STATUS_OK; n++) {
        mem_fail_at(n);
        status = model_open(f, &o, &m, &err);
        mem_fail_at(0);
        assert_true(status == STATUS_OK || (status == STATUS_NO_MEMORY && !m && n < 1000));
    }
    struct kv_shape shape = model_kv_shape(m, DTYPE_F16);
    status = STATUS_NO_MEMORY;
    for (uint64_t n = 1; status != STATUS_OK; n++) {
        mem_fail_at(n);
        status = step_space_create(m, &shape, 8, 2, 2, team, &s, &err);
        mem_fail_at(0);
        assert_true(status == STATUS_OK || (status == STATUS_NO_MEMORY && !s && n < 100));
    }
    mem_fail_at(1);
    assert_int_equal(step_reserve_rank(s, 16, &err), STATUS_NO_MEMORY);
    mem_fail_at(0);
    assert_int_equal(step_reserve_rank(s, 16, &err), STATUS_OK);
    step_space_destroy(s);
    step_space_destroy(NULL);
    model_close(m);
    model_close(NULL);
    team_destroy(team);
    model_files_close(f);
}

static void quantises_as_asked(void **state)
{
    (void)state;
    static const struct {
        enum quant quant;
        enum dtype q, down, embed, kv; /* down has rows of 48 values: no whole blocks */
    } cases[] = {
        {QUANT_AUTO, DTYPE_F32, DTYPE_F32, DTYPE_F32, DTYPE_F32},
        {QUANT_F32, DTYPE_F32, DTYPE_F32, DTYPE_F32, DTYPE_F32},
        {QUANT_BF16, DTYPE_BF16, DTYPE_BF16, DTYPE_BF16, DTYPE_F16},
        {QUANT_Q8_0, DTYPE_Q8_0, DTYPE_F32, DTYPE_Q8_0, DTYPE_F16},
        {QUANT_Q4_0, DTYPE_Q4_0, DTYPE_F32, DTYPE_Q8_0, DTYPE_F16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct model_files *f = open_files(LLAMA);
        struct model *m;
        struct error err;
        struct model_options o = {.kernels = kernels(), .quant = cases[i].quant};
        assert_int_equal(model_open(f, &o, &m, &err), STATUS_OK);
        assert_int_equal(m->layers[1].w[LORA_SITE_Q].type, cases[i].q);
        assert_int_equal(m->layers[1].w[LORA_SITE_DOWN].type, cases[i].down);
        assert_int_equal(m->embed.type, cases[i].embed);
        assert_int_equal(model_kv_type(m, "auto"), cases[i].kv);
        assert_int_equal(model_kv_type(m, "f32"), DTYPE_F32);
        assert_int_equal(model_kv_type(m, "f16"), DTYPE_F16);
        assert_int_equal(model_kv_type(m, "bf16"), DTYPE_BF16);
        assert_int_equal(model_kv_type(m, "int8"), DTYPE_I8);
        model_close(m);
        model_files_close(f);
    }
}

static void describes_itself(void **state)
{
    (void)state;
    struct model_files *f = open_files(LLAMA);
    struct model_options o = {.kernels = kernels(), .team = team_create(2)};
    struct model *a, *b, *c;
    struct error err;
    assert_int_equal(model_open(f, &o, &a, &err), STATUS_OK);
    assert_int_equal(model_open(f, &o, &b, &err), STATUS_OK);
    f->config.rope.theta += 1;
    assert_int_equal(model_open(f, &o, &c, &err), STATUS_OK);
    const struct model_info *info = model_info(a);
    uint64_t n = 2 * 384 * 32 + 32 + 2 * (2 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32);
    assert_int_equal(info->n_parameters, n);
    assert_string_equal(info->family, "llama");
    assert_int_equal(info->weight_type, DTYPE_F32);
    assert_true(info->size_bytes >= 4 * n && info->size_bytes < 5 * n);
    assert_memory_equal(info->digest, model_info(b)->digest, 32);
    assert_memory_not_equal(info->digest, model_info(c)->digest, 32);
    assert_int_equal(model_kv_shape(a, DTYPE_F16).n_kv_heads, 2);
    model_close(a);
    model_close(b);
    model_close(c);
    team_destroy(o.team);
    model_files_close(f);
}

/* A path, and the module that it is: kind, layer, expert, site, n_sites, norm, out, in. */
struct named {
    const char *path;
    struct model_module module;
};

static void check_paths(const char *files, const struct named *good, size_t n_good, const char *const *bad,
                        size_t n_bad)
{
    struct model_files *f = open_files(files);
    struct model_options o = {.kernels = kernels()};
    struct model *m;
    struct error err;
    struct model_module got;
    assert_int_equal(model_open(f, &o, &m, &err), STATUS_OK);
    for (size_t i = 0; i < n_good; i++) {
        char path[128];
        if (!model_module_parse(m, good[i].path, &got))
            fail_msg("%s is unknown", good[i].path);
        if (memcmp(&got, &good[i].module, sizeof got) != 0)
            fail_msg("%s: layer %u expert %d site %d +%u norm %d [%u, %u]", good[i].path, got.layer,
                     (int)got.expert, (int)got.site, got.n_sites, (int)got.norm, got.out, got.in);
        model_module_path(m, &got, path, sizeof path);
        struct model_module again;
        assert_true(model_module_parse(m, path, &again));
        assert_memory_equal(&again, &got, sizeof got);
    }
    for (size_t i = 0; i < n_bad; i++)
        if (model_module_parse(m, bad[i], &got))
            fail_msg("%s is no module", bad[i]);
    model_close(m);
    model_files_close(f);
}

static void fused_modules_have_their_sites(void **state)
{
    (void)state;
    static const struct named gpt2[] = {
        {"transformer.h.1.attn.c_attn", {MODULE_LINEAR, 1, -1, LORA_SITE_Q, 3, 0, 90, 30}},
        {"transformer.h.0.mlp.c_proj", {MODULE_LINEAR, 0, -1, LORA_SITE_DOWN, 1, 0, 30, 44}},
        {"transformer.wte", {MODULE_EMBED, 0, -1, 0, 0, 0, 30, 275}},
        {"transformer.h.1.ln_2", {MODULE_NORM, 1, -1, 0, 0, NORM_FFN_IN, 30, 0}},
        {"transformer.ln_f", {MODULE_NORM, 0, -1, 0, 0, NORM_FINAL, 30, 0}},
    };
    static const char *const gpt2_bad[] = {"transformer.h.0.attn.q_proj", "transformer.h.0.mlp.gate_proj",
                                           "transformer.wpe", "transformer.h.2.ln_1",
                                           "transformer.h.0.mlp.experts"};
    check_paths(OWN_MODELS "gpt2/f32", gpt2, 5, gpt2_bad, 5);
    static const struct named olmo2[] = {
        {"model.layers.1.self_attn.q_norm", {MODULE_NORM, 1, -1, 0, 0, NORM_Q, 30, 0}},
        {"model.layers.1.self_attn.k_norm", {MODULE_NORM, 1, -1, 0, 0, NORM_K, 10, 0}},
        {"model.layers.0.post_attention_layernorm", {MODULE_NORM, 0, -1, 0, 0, NORM_ATTN_OUT, 30, 0}},
    };
    static const char *const olmo2_bad[] = {"model.layers.0.input_layernorm"};
    check_paths(OWN_MODELS "olmo2/f32", olmo2, 3, olmo2_bad, 1);
}

static void experts_are_modules_of_sparse_layers(void **state)
{
    (void)state;
    static const struct named mixtral[] = {
        {"model.layers.1.mlp.gate", {MODULE_LINEAR, 1, -1, LORA_SITE_ROUTER, 1, 0, 4, 28}},
        {"model.layers.1.block_sparse_moe.gate", {MODULE_LINEAR, 1, -1, LORA_SITE_ROUTER, 1, 0, 4, 28}},
        {"model.layers.0.block_sparse_moe.experts.2.w3", {MODULE_LINEAR, 0, 2, LORA_SITE_UP, 1, 0, 14, 28}},
        {"model.layers.0.mlp.experts.0.down_proj", {MODULE_LINEAR, 0, 0, LORA_SITE_DOWN, 1, 0, 28, 14}},
        {"model.layers.1.block_sparse_moe.experts", {MODULE_EXPERTS, 1, -1, 0, 0, 0, 14, 28}},
    };
    static const char *const mixtral_bad[] = {
        "model.layers.0.mlp.gate_proj",           "model.layers.0.mlp.experts.99.up_proj",
        "model.layers.0.mlp.experts.01.up_proj",  "model.layers.0.mlp.experts.1.w1",
        "model.layers.0.mlp.experts.1.up_proj.x", "model.layers.0.mlp.experts."};
    check_paths(OWN_MODELS "mixtral/f32", mixtral, 5, mixtral_bad, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_by_name),
        cmocka_unit_test(survives_short_memory),
        cmocka_unit_test(quantises_as_asked),
        cmocka_unit_test(describes_itself),
        cmocka_unit_test(fused_modules_have_their_sites),
        cmocka_unit_test(experts_are_modules_of_sparse_layers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
