/* core/model/model.c and weights.c: what a base must have to be loaded, conversions, and its description. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "model_inner.h"

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
        {experts, STATUS_UNSUPPORTED, "8 experts"},
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_by_name),
        cmocka_unit_test(survives_short_memory),
        cmocka_unit_test(quantises_as_asked),
        cmocka_unit_test(describes_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
