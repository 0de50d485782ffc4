/* core/model/weights_f8.c: the scales of F8 weights: what their shapes mean, what is refused, conversions. A
 * tiny llama whose q_proj is 1.0 in F8 everywhere, so that the loaded weights are the scales. */
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "made_files.h"
#include "model_inner.h"

#define Q "model.layers.0.self_attn.q_proj.weight"
#define ROWS 32U
#define COLS 160U /* hidden: one group of 128 and a part of one */
#define CHANNEL_F8 "tests/golden/data/models/f8/channel"

/* A tensor beside the base's. */
struct extra {
    const char *name, *dtype, *shape;
    uint32_t n; /* values */
    float value, step;
};

struct writer {
    struct buf header, data;
};

static void put_tensor(struct writer *w, const char *name, const char *dtype, const char *shape,
                       const void *bytes, size_t n)
{
    size_t begin = w->data.length;
    buf_printf(&w->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
               w->header.length > 1 ? "," : "", name, dtype, shape, begin, begin + n);
    if (bytes)
        assert_true(buf_append(&w->data, bytes, n));
    else
        put_zeros(&w->data, n);
}

static void put_matrix(struct writer *w, const char *module, uint32_t rows, uint32_t cols)
{
    char name[100], shape[40];
    snprintf(name, sizeof name, "model.%s.weight", module);
    snprintf(shape, sizeof shape, cols ? "[%u,%u]" : "[%u]", rows, cols);
    put_tensor(w, name, "BF16", shape, NULL, (size_t)rows * (cols ? cols : 1) * 2);
}

static void put_extra(struct writer *w, const struct extra *e)
{
    uint8_t bytes[4096];
    size_t each = strcmp(e->dtype, "F32") == 0      ? 4
                  : strcmp(e->dtype, "BF16") == 0   ? 2
                  : strncmp(e->dtype, "F8", 2) == 0 ? 1
                                                    : 8;
    assert_true(e->n * each <= sizeof bytes);
    memset(bytes, 0x7f, sizeof bytes);
    for (uint32_t i = 0; i < e->n; i++) {
        float f = e->value + e->step * (float)i;
        uint16_t half = f32_to_bf16(f);
        if (each == 4 || each == 2)
            memcpy(bytes + i * each, each == 4 ? (const void *)&f : &half, each);
    }
    put_tensor(w, e->name, e->dtype, e->shape, bytes, e->n * each);
}

/* The model with these tensors more, and this quantization_config (NULL: none). */
static void put_model(const char *dir, const char *q_dtype, const struct extra *extra, size_t n_extra,
                      const char *quantization)
{
    static const struct {
        const char *module;
        uint32_t rows, cols;
    } matrices[] = {
        {"embed_tokens", 16, COLS},
        {"norm", COLS, 0},
        {"layers.0.input_layernorm", COLS, 0},
        {"layers.0.post_attention_layernorm", COLS, 0},
        {"layers.0.self_attn.k_proj", 16, COLS},
        {"layers.0.self_attn.v_proj", 16, COLS},
        {"layers.0.self_attn.o_proj", COLS, ROWS},
        {"layers.0.mlp.gate_proj", 16, COLS},
        {"layers.0.mlp.up_proj", 16, COLS},
        {"layers.0.mlp.down_proj", COLS, 16},
    };
    struct writer w;
    struct buf file, config;
    uint8_t one[ROWS * COLS * 2];
    memset(one, 0x38, sizeof one);
    buf_init(&w.header, 0);
    buf_init(&w.data, 0);
    buf_init(&file, 0);
    buf_init(&config, 0);
    assert_true(buf_puts(&w.header, "{"));
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
        put_matrix(&w, matrices[i].module, matrices[i].rows, matrices[i].cols);
    if (q_dtype)
        put_tensor(&w, Q, q_dtype, "[32,160]", one, strncmp(q_dtype, "F8", 2) ? sizeof one : sizeof one / 2);
    for (size_t i = 0; i < n_extra && extra[i].name; i++)
        put_extra(&w, &extra[i]);
    assert_true(buf_puts(&w.header, "}"));
    put_u64(&file, w.header.length);
    assert_true(buf_append(&file, w.header.data, w.header.length));
    assert_true(buf_append(&file, w.data.data, w.data.length));
    put_file(dir, "model.safetensors", file.data, file.length);
    buf_printf(&config,
               "{\"model_type\":\"llama\",\"vocab_size\":16,\"hidden_size\":%u,\"intermediate_size\":16,"
               "\"num_hidden_layers\":1,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":16,"
               "\"max_position_embeddings\":64,\"eos_token_id\":1,\"bos_token_id\":1,"
               "\"tie_word_embeddings\":true%s%s}",
               COLS, quantization ? ",\"quantization_config\":" : "", quantization ? quantization : "");
    put_file(dir, "config.json", config.data, config.length);
    buf_fini(&w.header);
    buf_fini(&w.data);
    buf_fini(&file);
    buf_fini(&config);
}

static enum status open_model(const char *dir, enum quant quant, struct model **m, struct error *err)
{
    struct model_files *f;
    struct model_options o = {.quant = quant, .team = team_create(2)};
    *m = NULL;
    assert_int_equal(kernels_select("scalar", ACT_MODE_F32, &o.kernels, err), STATUS_OK);
    enum status s = model_files_open(dir, &f, err);
    if (s == STATUS_OK) {
        enum status checked = model_check(f, err);
        s = model_open(f, &o, m, err);
        assert_true(s == checked || s == STATUS_FORMAT); /* values are read by opening alone */
    }
    model_files_close(f);
    team_destroy(o.team);
    return s;
}

#define FP8_BLOCKS "{\"quant_method\":\"fp8\",\"weight_block_size\":[16,128]}"
#define FP8 "{\"quant_method\":\"fp8\"}"

/* Scales, and what two rows' weights must then be: in the first columns and in those from 128 on. */
static void shapes_say_who_is_scaled(void **state)
{
    (void)state;
    static const struct {
        struct extra e;
        const char *quantization;
        float first[2], last[2]; /* row 0 and row 31: columns 0 and 159 */
    } cases[] = {
        {{NULL, NULL, NULL, 0, 0, 0}, NULL, {1, 1}, {1, 1}},
        {{Q "_scale", "F32", "[]", 1, 0.5f, 0}, NULL, {0.5f, 0.5f}, {0.5f, 0.5f}},
        {{Q "_scale", "BF16", "[1]", 1, 0.25f, 0}, FP8, {0.25f, 0.25f}, {0.25f, 0.25f}},
        {{Q "_scale_inv", "F32", "[]", 1, 3, 0}, FP8, {3, 3}, {3, 3}},
        {{Q "_scale", "F32", "[32]", 32, 1, 0.5f}, FP8, {1, 1}, {16.5f, 16.5f}},
        {{Q "_scale", "BF16", "[32,1]", 32, 1, 1}, FP8, {1, 1}, {32, 32}},
        {{Q "_scale_inv", "F32", "[2,2]", 4, 1, 1}, FP8_BLOCKS, {1, 2}, {3, 4}},
        {{Q "_scale_inv", "F32", "[1,2]", 2, 7, 1}, FP8, {7, 8}, {7, 8}},
        {{Q "_scale", "BF16", "[2,2]", 4, 1, 1}, FP8_BLOCKS, {1, 2}, {3, 4}},
    };
    struct folder dir = folder_make();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static const enum quant quants[] = {QUANT_AUTO, QUANT_F32, QUANT_Q8_0};
        put_model(dir.path, "F8_E4M3", &cases[i].e, 1, cases[i].quantization);
        for (size_t q = 0; q < 3; q++) {
            struct model *m;
            struct error err = {0};
            float row[COLS];
            if (open_model(dir.path, quants[q], &m, &err) != STATUS_OK)
                fail_msg("case %zu: %s", i, err.text);
            const struct packed *w = &m->layers[0].w[LORA_SITE_Q];
            assert_int_equal(w->type, q == 0 ? DTYPE_F8_E4M3 : q == 1 ? DTYPE_F32 : DTYPE_Q8_0);
            float off = q == 2 ? 0.02f : 0; /* Q8_0's step keeps its scale as f16 */
            for (uint32_t r = 0; r < ROWS; r += ROWS - 1) {
                const float *want = r ? cases[i].last : cases[i].first;
                packed_row_f32(w, r, row);
                assert_true(fabsf(row[0] - want[0]) <= off && fabsf(row[127] - want[0]) <= off);
                assert_true(fabsf(row[128] - want[1]) <= off && fabsf(row[COLS - 1] - want[1]) <= off);
            }
            model_close(m);
        }
    }
    folder_remove(&dir);
}

static void refuses_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *q_dtype;
        struct extra e[2];
        const char *quantization;
        enum status status;
        const char *text;
    } cases[] = {
        {"F8_E4M3",
         {{Q "_scale", "F32", "[3]", 3, 1, 0}},
         FP8,
         STATUS_FORMAT,
         "_scale: shape [3] fits no scales"},
        {"F8_E4M3",
         {{Q "_scale", "F32", "[32,2]", 64, 1, 0}},
         FP8,
         STATUS_FORMAT,
         "shape [32, 2] fits no scales of a weight [32, 160], expected one value, [32, 1]"},
        {"F8_E4M3",
         {{Q "_scale_inv", "F32", "[2,1]", 2, 1, 0}},
         FP8_BLOCKS,
         STATUS_FORMAT,
         "[2, 2] (blocks of 16 x 128)"},
        {"F8_E4M3", {{Q "_scale", "F32", "[32]", 32, -5, 1}}, FP8, STATUS_FORMAT, "_scale: scale 0 is -5"},
        {"F8_E4M3",
         {{Q "_scale", "F32", "[]", 1, 0, 0}},
         FP8,
         STATUS_FORMAT,
         "scale 0 is 0, expected a positive"},
        {"F8_E4M3", {{Q "_scale", "F32", "[]", 1, NAN, 0}}, FP8, STATUS_FORMAT, "scale 0 is nan"},
        {"F8_E4M3", {{Q "_scale", "F32", "[]", 1, INFINITY, 0}}, FP8, STATUS_FORMAT, "scale 0 is inf"},
        {"F8_E4M3",
         {{Q "_scale", "I64", "[]", 1, 1, 0}},
         FP8,
         STATUS_UNSUPPORTED,
         "_scale: type i64, expected f32"},
        {"F8_E4M3",
         {{Q "_scale", "F8_E8M0", "[]", 1, 1, 0}},
         FP8,
         STATUS_UNSUPPORTED,
         Q "_scale: type F8_E8M0, expected f32"},
        {"F8_E4M3",
         {{Q "_scale", "F32", "[]", 1, 1, 0}, {Q "_scale_inv", "F32", "[]", 1, 1, 0}},
         FP8,
         STATUS_FORMAT,
         "which one scales it?"},
        {"F8_E4M3",
         {{"model.layers.0.self_attn.k_proj.weight_scale", "F32", "[]", 1, 1, 0}},
         FP8,
         STATUS_UNSUPPORTED,
         "the file has no model.layers.0.self_attn.k_proj.weight of type F8_E4M3"},
        {"F8_E4M3",
         {{"model.layers.7.mlp.up_proj.weight_scale_inv", "F32", "[]", 1, 1, 0}},
         FP8,
         STATUS_UNSUPPORTED,
         "the file has no model.layers.7.mlp.up_proj.weight"},
        {"BF16",
         {{"model.layers.0.self_attn.k_scale", "F32", "[]", 1, 1, 0}},
         NULL,
         STATUS_UNSUPPORTED,
         "model.layers.0.self_attn.k_scale: a llama model of 1 layers has no such tensor"},
        {"F8_E5M2",
         {{NULL, NULL, NULL, 0, 0, 0}},
         FP8,
         STATUS_UNSUPPORTED,
         Q ": type F8_E5M2 is not supported"},
    };
    struct folder dir = folder_make();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model *m;
        struct error err = {0};
        put_model(dir.path, cases[i].q_dtype, cases[i].e, 2, cases[i].quantization);
        enum status s = open_model(dir.path, QUANT_AUTO, &m, &err);
        if (s != cases[i].status || !strstr(err.text, cases[i].text))
            print_error("case %zu: %d %s\n", i, (int)s, err.text);
        assert_int_equal(s, cases[i].status);
        assert_non_null(strstr(err.text, cases[i].text));
        assert_null(m);
    }
    folder_remove(&dir);
}

/* Scales of what we don't round are no reason to refuse. */
static void ignores_activation_scales(void **state)
{
    (void)state;
    static const struct extra extra[] = {
        {"model.layers.0.self_attn.q_proj.input_scale", "F32", "[]", 1, 2, 0},
        {"model.layers.0.self_attn.k_proj.output_scale", "F32", "[]", 1, 2, 0},
        {"model.layers.0.self_attn.k_scale", "F32", "[]", 1, 2, 0},
        {"model.layers.0.self_attn.v_proj.v_scale", "F32", "[1]", 1, 2, 0},
    };
    struct folder dir = folder_make();
    struct model *m;
    struct error err;
    for (int said = 0; said < 2; said++) { /* modelopt's first files don't say it in config.json */
        put_model(dir.path, "F8_E4M3", extra, 4, said ? FP8 : NULL);
        if (open_model(dir.path, QUANT_AUTO, &m, &err) != STATUS_OK)
            fail_msg("%s", err.text);
        model_close(m);
    }
    folder_remove(&dir);
}

/* Every allocation of loading fails once; nothing leaks and the last attempt loads. */
static void survives_short_memory(void **state)
{
    (void)state;
    struct model_files *f;
    struct model_options o = {0};
    struct model *m;
    struct error err;
    assert_int_equal(kernels_select("scalar", ACT_MODE_F32, &o.kernels, &err), STATUS_OK);
    assert_int_equal(model_files_open(CHANNEL_F8, &f, &err), STATUS_OK);
    enum status status = STATUS_NO_MEMORY;
    for (uint64_t n = 1; status != STATUS_OK; n++) {
        mem_fail_at(n);
        status = model_open(f, &o, &m, &err);
        mem_fail_at(0);
        assert_true(status == STATUS_OK || (status == STATUS_NO_MEMORY && !m && n < 1000));
    }
    assert_int_equal(model_info(m)->weight_type, DTYPE_F8_E4M3);
    model_close(m);
    model_files_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_say_who_is_scaled),
        cmocka_unit_test(refuses_by_name),
        cmocka_unit_test(ignores_activation_scales),
        cmocka_unit_test(survives_short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
