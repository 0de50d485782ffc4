/* adapters: what the loaders make of files with a base at hand: places, layouts, scales, and what is refused.
 * The base is the own tiny llama (untied: 384 tokens, hidden 32, inner 48, 2 layers, 2 kv heads of 8) or
 * qwen2 (tied). */
#include "tests/test.h"

#include <math.h>

#include "adapters.h"
#include "base/mem.h"
#include "format.h"
#include "loader.h"
#include "model.h"
#include "tests/unit/made_adapters.h"
#include "tests/unit/made_files.h"
#include "tests/unit/plain_model.h"

#define LLAMA "tests/golden/data/models/llama/f32"
#define QWEN2 "tests/golden/data/models/qwen2/f32"
#define Q PRE "model.layers.0.self_attn.q_proj"
#define EMBED PRE "model.embed_tokens"

/* A folder with one adapter in it, read with a base. */
struct trial {
    struct folder folder;
    struct model *m;
    struct loading l;
    struct adapter_report report;
};

static void trial_begin(struct trial *t, const char *model)
{
    *t = (struct trial){.folder = folder_make(), .m = open_model(model), .l.place.dir_fd = -1};
}

static void trial_end(struct trial *t)
{
    loading_end(&t->l);
    model_close(t->m);
    folder_remove(&t->folder);
}

static enum status trial_read(struct trial *t, const char *path, struct error *err)
{
    struct adapter_source s = {.name = "x", .path = path, .root_fd = -1, .scale = 1};
    loading_end(&t->l);
    memset(&t->report, 0, sizeof t->report);
    memset(err, 0, sizeof *err);
    return loading_begin(&t->l, &s, t->m, &t->report, err);
}

static enum status trial_peft(struct trial *t, const char *more, const struct made *tensors,
                              struct error *err)
{
    char config[1000];
    snprintf(config, sizeof config, "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":6%s}", more);
    put_text(t->folder.path, "adapter_config.json", config);
    put_made(t->folder.path, "adapter_model.safetensors", tensors);
    return trial_read(t, t->folder.path, err);
}

static const struct lora_spec *must_read(struct trial *t, const char *more, const struct made *tensors)
{
    struct error err;
    if (trial_peft(t, more, tensors, &err) != STATUS_OK)
        fail_msg("%s: %s", more, err.text);
    return &t->l.content->spec;
}

static float value(const void *data, size_t i)
{
    return ((const float *)data)[i];
}

/* ---- PEFT */

static void pairs_have_place_scale_and_extras(void **state)
{
    (void)state;
    struct trial t;
    trial_begin(&t, LLAMA);
    const struct lora_spec *s =
        must_read(&t, ",\"target_modules\":[\"0.self_attn.q_proj\"],\"use_dora\":true",
                  (struct made[]){{Q ".lora_A.default.weight", {2, 32}, 0},
                                  {Q ".lora_B.default.weight", {32, 2}, 100},
                                  {Q ".lora_magnitude_vector.default.weight", {32}, 7},
                                  {NULL, {0}, 0}});
    assert_int_equal(s->n_pairs, 1);
    const struct lora_pair *p = s->pairs;
    assert_true(p->module.kind == MODULE_LINEAR && p->module.site == LORA_SITE_Q && p->module.layer == 0);
    assert_true(p->scale == 3 && p->rank == 2 && p->in == 32 && p->out == 32 && !p->b_bias);
    assert_true(value(p->a, 33) == 33 && value(p->b, 3) == 103 && p->magnitude[31] == 38);
    assert_string_equal(t.report.kinds, "dora");
    s = must_read(&t, ",\"lora_bias\":true,\"use_rslora\":true,\"alpha_pattern\":{\"q_proj\":8}",
                  (struct made[]){{Q ".lora_A.weight", {2, 32}, 0},
                                  {Q ".lora_B.weight", {32, 2}, 0},
                                  {Q ".lora_B.bias", {32}, 5},
                                  {NULL, {0}, 0}});
    assert_true(s->pairs[0].scale == (float)(8 / sqrt(2)) && s->pairs[0].b_bias[1] == 6);
    assert_string_equal(t.report.kinds, "lora lora_bias");
    s = must_read(
        &t, ",\"alora_invocation_tokens\":[9,8]",
        (struct made[]){{Q ".lora_A.weight", {2, 32}, 0}, {Q ".lora_B.weight", {32, 2}, 0}, {NULL, {0}, 0}});
    assert_true(s->n_invocation == 2 && s->invocation[0] == 9 && s->invocation[1] == 8);
    assert_string_equal(t.report.kinds, "lora alora");
    trial_end(&t);
}

static void embeddings_are_turned_over(void **state)
{
    (void)state;
    struct trial t;
    trial_begin(&t, LLAMA);
    const struct lora_spec *s = must_read(&t, ",\"target_modules\":[\"embed_tokens\"]",
                                          (struct made[]){{EMBED ".lora_embedding_A", {2, 384}, 0},
                                                          {EMBED ".lora_embedding_B", {32, 2}, 0},
                                                          {NULL, {0}, 0}});
    assert_int_equal(s->n_pairs, 1);
    const struct lora_pair *p = s->pairs;
    assert_true(p->module.kind == MODULE_EMBED && p->rank == 2 && p->in == 384 && p->out == 32);
    assert_true(value(p->a, 0) == 0 && value(p->a, 1) == 384 &&
                value(p->a, 2) == 1); /* a row for each token */
    assert_string_equal(t.report.kinds, "lora embedding");
    assert_string_equal(t.report.modules, "embed_tokens");
    trial_end(&t);
}

static void whole_tensors_replace(void **state)
{
    (void)state;
    struct trial t;
    trial_begin(&t, LLAMA);
    const struct lora_spec *s =
        must_read(&t, ",\"modules_to_save\":[\"norm\",\"mlp\"]",
                  (struct made[]){{PRE "model.norm.weight", {32}, 4},
                                  {PRE "model.norm.original_module.weight", {32}, 0},
                                  {PRE "model.norm.modules_to_save.default.weight", {32}, 4},
                                  {PRE "model.layers.1.mlp.up_proj.weight", {48, 32}, 0},
                                  {NULL, {0}, 0}});
    assert_int_equal(s->n_tensors, 2);
    assert_true(s->tensors[0].module.kind == MODULE_NORM && s->tensors[0].module.norm == NORM_FINAL);
    assert_true(s->tensors[0].rows == 32 && s->tensors[0].cols == 0 && value(s->tensors[0].data, 1) == 5);
    assert_true(s->tensors[1].module.site == LORA_SITE_UP && s->tensors[1].rows == 48 &&
                s->tensors[1].cols == 32);
    assert_int_equal(t.report.n_modules, 2);
    assert_int_equal(t.report.n_parameters, 32 + 48 * 32);
    assert_string_equal(t.report.kinds, "modules_to_save");
    /* bias="all" names every bias; its module needn't be adapted. */
    s = must_read(&t, ",\"bias\":\"all\"",
                  (struct made[]){{PRE "model.layers.0.self_attn.k_proj.bias", {16}, 0}, {NULL, {0}, 0}});
    assert_true(s->n_tensors == 1 && s->tensors[0].is_bias && s->tensors[0].rows == 16);
    s = must_read(&t, ",\"bias\":\"lora_only\"",
                  (struct made[]){{Q ".lora_A.weight", {2, 32}, 0},
                                  {Q ".lora_B.weight", {32, 2}, 0},
                                  {Q ".base_layer.bias", {32}, 1},
                                  {NULL, {0}, 0}});
    assert_true(s->n_tensors == 1 && s->n_pairs == 1 && s->tensors[0].module.site == LORA_SITE_Q);
    trial_end(&t);
}

static void an_embedding_saved_with_a_tied_base_is_the_head_too(void **state)
{
    (void)state;
    struct trial t;
    static const struct made tensors[] = {{EMBED ".weight", {384, 32}, 0}, {NULL, {0}, 0}};
    trial_begin(&t, QWEN2);
    const struct lora_spec *s = must_read(&t, "", tensors); /* PEFT loads it into the shared parameter */
    assert_int_equal(s->n_tensors, 2);
    assert_true(s->tensors[1].module.site == LORA_SITE_LM_HEAD && s->tensors[1].data == s->tensors[0].data);
    s = must_read(&t, ",\"modules_to_save\":[\"embed_tokens\"]", tensors); /* a module of its own */
    assert_int_equal(s->n_tensors, 1);
    assert_int_equal(s->tensors[0].module.kind, MODULE_EMBED);
    trial_end(&t);
}

static void token_rows_are_kept_in_order(void **state)
{
    (void)state;
    struct trial t;
    trial_begin(&t, LLAMA);
    const struct lora_spec *s =
        must_read(&t, ",\"trainable_token_indices\":[300,5]",
                  (struct made[]){{EMBED ".token_adapter.trainable_tokens_delta", {2, 32}, 1},
                                  {EMBED ".token_adapter.trainable_tokens_original", {2, 32}, 0},
                                  {NULL, {0}, 0}});
    assert_true(s->n_rows == 2 && s->row_ids[0] == 300 && s->row_ids[1] == 5 && s->rows[32] == 33);
    assert_true(s->n_head_rows == 0 && !s->rows_in_head);
    s = must_read(&t, ",\"trainable_token_indices\":{\"embed_tokens\":[3],\"lm_head\":[4,1]}",
                  (struct made[]){{EMBED ".token_adapter.trainable_tokens_delta", {1, 32}, 1},
                                  {PRE "lm_head.token_adapter.trainable_tokens_delta", {2, 32}, 9},
                                  {NULL, {0}, 0}});
    assert_true(s->n_rows == 1 && s->row_ids[0] == 3);
    assert_true(s->n_head_rows == 2 && s->head_row_ids[0] == 4 && s->head_rows[0] == 9);
    assert_string_equal(t.report.kinds, "tokens");
    trial_end(&t);
}

#define AB                                                                                                   \
    {Q ".lora_A.weight", {2, 32}, 0},                                                                        \
    {                                                                                                        \
        Q ".lora_B.weight", {32, 2}, 0                                                                       \
    }
#define END                                                                                                  \
    {                                                                                                        \
        NULL, {0}, 0                                                                                         \
    }
#define ROWS(n) EMBED ".token_adapter.trainable_tokens_delta", {n, 32}, 0
#define EMBED_AB                                                                                             \
    {EMBED ".lora_embedding_A", {2, 384}, 0},                                                                \
    {                                                                                                        \
        EMBED ".lora_embedding_B", {32, 2}, 0                                                                \
    }

static const struct {
    const char *more;
    struct made tensors[4];
    enum status status;
    const char *text;
} refused[] = {
    {"",
     {EMBED_AB, {EMBED ".base_layer.weight", {384, 32}, 0}, END},
     STATUS_MISMATCH,
     "but row 0 is not this base's"},
    {",\"target_modules\":[\"self_attn.q_proj\"]",
     {AB, END},
     STATUS_FORMAT,
     "targets module 'model.layers.1.self_attn.q_proj', but the file has no lora_A and lora_B for it"},
    {"",
     {{Q ".lora_A.weight", {2, 40}, 0}, {Q ".lora_B.weight", {32, 2}, 0}, END},
     STATUS_MISMATCH,
     "is [2, 40], this base needs [r, 32]: it was trained on another base"},
    {"",
     {{Q ".lora_A.weight", {2, 32}, 0}, {Q ".lora_B.weight", {40, 2}, 0}, END},
     STATUS_MISMATCH,
     "is [40, 2], this base needs [32, r]"},
    {"",
     {{PRE "model.layers.2.self_attn.q_proj.lora_A.weight", {2, 32}, 0},
      {PRE "model.layers.2.self_attn.q_proj.lora_B.weight", {32, 2}, 0},
      END},
     STATUS_MISMATCH,
     "this base has no module 'model.layers.2.self_attn.q_proj'"},
    {"",
     {{PRE "model.norm.lora_A.weight", {2, 32}, 0}, {PRE "model.norm.lora_B.weight", {32, 2}, 0}, END},
     STATUS_MISMATCH,
     "'model.norm' is no linear module"},
    {"",
     {{EMBED ".lora_A.weight", {2, 384}, 0}, {EMBED ".lora_B.weight", {32, 2}, 0}, END},
     STATUS_MISMATCH,
     "is no linear module"},
    {"",
     {{Q ".lora_embedding_A", {2, 32}, 0}, {Q ".lora_embedding_B", {32, 2}, 0}, END},
     STATUS_MISMATCH,
     "is no token embedding"},
    {"",
     {{EMBED ".lora_embedding_A", {2, 380}, 0}, {EMBED ".lora_embedding_B", {32, 2}, 0}, END},
     STATUS_MISMATCH,
     "this base needs [384, r]"},
    {"",
     {AB, {Q ".lora_embedding_A", {2, 32}, 0}, END},
     STATUS_FORMAT,
     "lora_A or lora_B and lora_embedding_A"},
    {",\"target_modules\":[\"v_proj\"]",
     {AB, END},
     STATUS_MISMATCH,
     "does not target module 'model.layers.0.self"},
    {",\"target_modules\":[\"q_proj\"],\"exclude_modules\":\".*layers\\\\.0.*\"",
     {AB, END},
     STATUS_MISMATCH,
     "does not target module"},
    {",\"target_modules\":[\"q_proj\"],\"layers_to_transform\":1",
     {AB, END},
     STATUS_MISMATCH,
     "does not target module"},
    {",\"use_dora\":true", {AB, END}, STATUS_FORMAT, "has no lora_magnitude_vector, but use_dora is true"},
    {",\"lora_bias\":true", {AB, END}, STATUS_FORMAT, "has no lora_B.bias, but lora_bias is true"},
    {",\"lora_bias\":true",
     {AB, {Q ".lora_B.bias", {31}, 0}, END},
     STATUS_MISMATCH,
     "has 31 values, its module has 32 outputs"},
    {",\"rank_pattern\":{\"q_proj\":4}",
     {AB, END},
     STATUS_MISMATCH,
     "has rank 2, adapter_config.json says r = 4"},
    {"",
     {EMBED_AB, {EMBED ".base_layer.weight", {390, 32}, 0}, END},
     STATUS_MISMATCH,
     "is the base's weight, [390, 32], but this base's is [384, 32]"},
    {"",
     {{EMBED ".weight", {390, 32}, 0}, END},
     STATUS_MISMATCH,
     "is [390, 32], this base's module is [384, 32]: it was trained on another base, or its vocabulary was "
     "resized"},
    {",\"modules_to_save\":[\"norm\"]",
     {{PRE "model.norm.weight", {31}, 0}, END},
     STATUS_MISMATCH,
     "is [31], this base's module is [32]"},
    {",\"modules_to_save\":[\"score\"]",
     {{PRE "score.weight", {2, 32}, 0}, END},
     STATUS_MISMATCH,
     "this base has no module 'score'"},
    {",\"bias\":\"lora_only\"",
     {{PRE "model.layers.0.self_attn.k_proj.bias", {16}, 0}, END},
     STATUS_MISMATCH,
     "says bias = lora_only, and its module has no LoRA"},
    {",\"trainable_token_indices\":[1,2,3]",
     {{ROWS(2)}, END},
     STATUS_FORMAT,
     "has 2 rows, trainable_token_indices has 3"},
    {",\"trainable_token_indices\":[1,1]", {{ROWS(2)}, END}, STATUS_FORMAT, "has token 1 twice"},
    {",\"trainable_token_indices\":[1,384]",
     {{ROWS(2)}, END},
     STATUS_MISMATCH,
     "item 1 is no token id of this base (0 to 383)"},
    {",\"trainable_token_indices\":[1]", {AB, END}, STATUS_FORMAT, "the file lacks rows"},
    {",\"trainable_token_indices\":{\"embed_tokens\":[1],\"lm_head\":[2]}",
     {{ROWS(1)}, END},
     STATUS_FORMAT,
     "the file lacks rows"},
    {",\"trainable_token_indices\":{\"q_proj\":[1]}",
     {{Q ".token_adapter.trainable_tokens_delta", {1, 32}, 0}, END},
     STATUS_UNSUPPORTED,
     "of the embedding and of lm_head only"},
    {",\"trainable_token_indices\":[1]",
     {{EMBED ".token_adapter.trainable_tokens_delta", {1, 30}, 0}, END},
     STATUS_MISMATCH,
     "has rows of 30, this base of 32"},
    {",\"alora_invocation_tokens\":[1],\"modules_to_save\":[\"norm\"]",
     {AB, {PRE "model.norm.weight", {32}, 0}, END},
     STATUS_UNSUPPORTED,
     "alora_invocation_tokens together with lora modules_to_save is not supported"},
    {",\"alora_invocation_tokens\":[1]", {EMBED_AB, END}, STATUS_UNSUPPORTED, "together with lora embedding"},
    {"",
     {{PRE "model.layers.0.mlp.experts.base_layer.lora_A.weight", {2, 32}, 0},
      {PRE "model.layers.0.mlp.experts.base_layer.lora_B.weight", {32, 2}, 0},
      END},
     STATUS_MISMATCH,
     "this base has no experts at 'model.layers.0.mlp.experts'"},
};

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct trial t;
    trial_begin(&t, LLAMA);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct error err;
        enum status s = trial_peft(&t, refused[i].more, refused[i].tensors, &err);
        if (s != refused[i].status || !strstr(err.text, refused[i].text))
            fail_msg("%s %s: got %s '%s', expected '%s'", refused[i].more, refused[i].tensors[0].name,
                     status_name(s), err.text, refused[i].text);
        if (!strstr(err.text, t.folder.path))
            fail_msg("the file is not named: %s", err.text);
    }
    trial_end(&t);
}

static void tied_adapters_are_whole(void **state)
{
    (void)state;
    struct trial t;
    struct error err;
    static const char more[] = ",\"ensure_weight_tying\":true,\"target_modules\":[\"embed_tokens\"]";
    trial_begin(&t, QWEN2);
    assert_int_equal(trial_peft(&t, more, (struct made[]){EMBED_AB, END}, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.text, "the tensors of 'model.embed_tokens' or of 'lm_head' are missing"));
    const struct lora_spec *s = must_read(&t, more,
                                          (struct made[]){EMBED_AB,
                                                          {PRE "lm_head.lora_A.weight", {2, 32}, 0},
                                                          {PRE "lm_head.lora_B.weight", {384, 2}, 0},
                                                          END});
    assert_true(s->n_pairs == 2 && s->pairs[1].module.site == LORA_SITE_LM_HEAD);
    trial_end(&t);
    trial_begin(&t, LLAMA); /* nothing is tied here: PEFT passes over the flag */
    s = must_read(&t, more, (struct made[]){EMBED_AB, END});
    assert_int_equal(s->n_pairs, 1);
    trial_end(&t);
}

/* ---- MLX */

static enum status trial_mlx(struct trial *t, const char *config, const struct made *tensors,
                             struct error *err)
{
    put_text(t->folder.path, "adapter_config.json", config);
    put_made(t->folder.path, "adapters.safetensors", tensors);
    return trial_read(t, t->folder.path, err);
}

#define MLX(kind, more)                                                                                      \
    "{\"fine_tune_type\":\"" kind                                                                            \
    "\",\"model\":\"m\",\"num_layers\":2,\"lora_parameters\":{\"rank\":2,\"scale\":20.0" more "}}"
#define MQ "model.layers.1.self_attn.v_proj"

static void mlx_folders_are_read(void **state)
{
    (void)state;
    struct trial t;
    struct error err;
    trial_begin(&t, LLAMA);
    static const struct made lora[] = {
        {MQ ".lora_a", {32, 2}, 0}, {MQ ".lora_b", {2, 16}, 0}, {NULL, {0}, 0}};
    if (trial_mlx(&t, MLX("lora", ""), lora, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    const struct lora_pair *p = t.l.content->spec.pairs;
    assert_true(p->module.site == LORA_SITE_V && p->module.layer == 1 && p->scale == 20);
    assert_true(p->rank == 2 && p->in == 32 && p->out == 16);
    assert_true(value(p->a, 1) == 2 && value(p->a, 32) == 1 && value(p->b, 1) == 16);
    assert_string_equal(t.report.format, "mlx");
    assert_string_equal(t.report.base_model, "m");
    assert_true(t.report.alpha == 40 && t.report.rank_max == 2);
    static const struct made dora[] = {
        {MQ ".lora_a", {32, 2}, 0}, {MQ ".lora_b", {2, 16}, 0}, {MQ ".m", {16}, 3}, {NULL, {0}, 0}};
    if (trial_mlx(&t, MLX("dora", ""), dora, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_true(t.l.content->spec.pairs[0].magnitude[1] == 4);
    trial_end(&t);
    trial_begin(&t, QWEN2);
    static const struct made embed[] = {{"model.embed_tokens.lora_a", {384, 2}, 0},
                                        {"model.embed_tokens.lora_b", {2, 32}, 0},
                                        {NULL, {0}, 0}};
    if (trial_mlx(&t, MLX("lora", ""), embed, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    p = t.l.content->spec.pairs;
    assert_int_equal(t.l.content->spec.n_pairs, 2);
    assert_true(p[0].module.kind == MODULE_EMBED && p[0].in == 384 && value(p[0].a, 3) == 3);
    assert_true(p[1].module.site == LORA_SITE_LM_HEAD && p[1].in == 32 && p[1].out == 384);
    assert_true(value(p[1].a, 33) == 33 && value(p[1].b, 3) == 3 && value(p[0].b, 1) == 32);
    trial_end(&t);
}

static void wrong_mlx_folders_get_their_error(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        struct made tensors[4];
        enum status status;
        const char *text;
    } cases[] = {
        {MLX("full", ""), {END}, STATUS_UNSUPPORTED, "fine_tune_type is 'full'"},
        {MLX("magic", ""), {END}, STATUS_UNSUPPORTED, "fine_tune_type is 'magic'"},
        {"{\"fine_tune_type\":\"lora\"}", {END}, STATUS_FORMAT, "lora_parameters has no number 'scale'"},
        {"{\"lora_parameters\":{\"scale\":1e300}}", {END}, STATUS_FORMAT, "not a sensible number"},
        {MLX("lora", ",\"alpha\":16"), {END}, STATUS_UNSUPPORTED, "lora_parameters has 'alpha'"},
        {MLX("lora", ""), {END}, STATUS_FORMAT, "no lora_a and lora_b in it"},
        {MLX("lora", ""), {{MQ ".lora_a", {32, 2}, 0}, END}, STATUS_FORMAT, "the other half is missing"},
        {MLX("lora", ""), {{MQ ".m", {32}, 0}, END}, STATUS_FORMAT, "its lora_a and lora_b are missing"},
        {MLX("lora", ""),
         {{MQ ".lora_a", {32, 2}, 0}, {MQ ".lora_b", {2, 16}, 0}, {MQ ".m", {16}, 0}, END},
         STATUS_FORMAT,
         "has a .m, but fine_tune_type is lora"},
        {MLX("dora", ""),
         {{MQ ".lora_a", {32, 2}, 0}, {MQ ".lora_b", {2, 16}, 0}, END},
         STATUS_FORMAT,
         "has no .m, but fine_tune_type is dora"},
        {MLX("dora", ""),
         {{MQ ".lora_a", {32, 2}, 0}, {MQ ".lora_b", {2, 16}, 0}, {MQ ".m", {15}, 0}, END},
         STATUS_MISMATCH,
         "has 15 values, its module has 16 outputs"},
        {MLX("lora", ""),
         {{MQ ".lora_a", {2, 32}, 0}, {MQ ".lora_b", {16, 2}, 0}, END},
         STATUS_FORMAT,
         "expected [in, r] and [r, out]"},
        {MLX("lora", ""),
         {{MQ ".lora_a", {32, 3}, 0}, {MQ ".lora_b", {3, 16}, 0}, END},
         STATUS_MISMATCH,
         "has rank 3, adapter_config.json says rank = 2"},
        {MLX("lora", ""),
         {{MQ ".lora_a", {40, 2}, 0}, {MQ ".lora_b", {2, 16}, 0}, END},
         STATUS_MISMATCH,
         "this base needs [r, 32]"},
        {MLX("lora", ""), {{MQ ".lora_a_scales", {32, 2}, 0}, END}, STATUS_UNSUPPORTED, "quantised LoRA"},
        {MLX("lora", ""),
         {{"model.norm.lora_a", {32, 2}, 0}, {"model.norm.lora_b", {2, 32}, 0}, END},
         STATUS_MISMATCH,
         "is no linear module"},
        {MLX("dora", ""),
         {{"model.embed_tokens.lora_a", {384, 2}, 0},
          {"model.embed_tokens.lora_b", {2, 32}, 0},
          {"model.embed_tokens.m", {384}, 0},
          END},
         STATUS_UNSUPPORTED,
         "DoRA on embeddings"},
        {MLX("lora", ""),
         {{"model.layers.0.mlp.switch_mlp.up_proj.lora_a", {4, 2, 32}, 0},
          {"model.layers.0.mlp.switch_mlp.up_proj.lora_b", {4, 48, 2}, 0},
          END},
         STATUS_MISMATCH,
         "this base has no 4 experts there"},
        {MLX("lora", ""),
         {{"model.layers.0.mlp.switch_mlp.up_proj.lora_a", {4, 3, 32}, 0},
          {"model.layers.0.mlp.switch_mlp.up_proj.lora_b", {4, 48, 2}, 0},
          END},
         STATUS_FORMAT,
         "expected [experts, r, in] and [experts, out, r]"},
    };
    struct trial t;
    trial_begin(&t, LLAMA);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err;
        enum status s = trial_mlx(&t, cases[i].config, cases[i].tensors, &err);
        if (s != cases[i].status || !strstr(err.text, cases[i].text))
            fail_msg("case %zu: got %s '%s', expected '%s'", i, status_name(s), err.text, cases[i].text);
    }
    trial_end(&t);
}

/* ---- GGUF */

static void put_lora_gguf(const char *dir, const char *a, const char *b, uint32_t type, uint32_t a_inner,
                          uint32_t a_outer, uint32_t b_inner, uint32_t b_outer, const void *bytes, size_t n_a,
                          size_t n_b)
{
    struct buf out;
    buf_init(&out, 0);
    put_gguf_front(&out, 3, 2, 5);
    put_gguf_text(&out, "general.architecture", "llama");
    put_gguf_text(&out, "general.type", "adapter");
    put_gguf_text(&out, "adapter.type", "lora");
    put_gguf_f32(&out, "adapter.lora.alpha", 16);
    put_gguf_key(&out, "adapter.alora.invocation_tokens", 9);
    put_u32(&out, 4);
    put_u64(&out, 2);
    put_u32(&out, 7);
    put_u32(&out, 9);
    put_gguf_tensor(&out, a, a_inner, a_outer, type, 0);
    put_gguf_tensor(&out, b, b_inner, b_outer, type, (n_a + 31) / 32 * 32);
    put_gguf_padding(&out, 32);
    buf_append(&out, bytes, n_a);
    put_gguf_padding(&out, 32);
    buf_append(&out, bytes, n_b);
    put_file(dir, "x.gguf", out.data, out.length);
    buf_fini(&out);
}

static void gguf_files_find_their_place(void **state)
{
    (void)state;
    struct trial t;
    struct error err;
    char path[100];
    static float counted[384 * 2];
    for (size_t i = 0; i < sizeof counted / sizeof *counted; i++)
        counted[i] = (float)i;
    trial_begin(&t, LLAMA);
    snprintf(path, sizeof path, "%s/x.gguf", t.folder.path);
    put_lora_gguf(t.folder.path, "token_embd.weight.lora_a", "token_embd.weight.lora_b", 0, 2, 384, 2, 32,
                  counted, 384 * 2 * 4, 32 * 2 * 4);
    if (trial_read(&t, path, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    const struct lora_spec *s = &t.l.content->spec;
    assert_true(s->n_pairs == 1 && s->pairs[0].module.kind == MODULE_EMBED && s->pairs[0].scale == 8);
    assert_true(s->pairs[0].in == 384 && s->pairs[0].rank == 2 && value(s->pairs[0].a, 3) == 3);
    assert_true(s->n_invocation == 2 && s->invocation[0] == 7 && s->invocation[1] == 9);
    assert_string_equal(t.report.kinds, "alora embedding");
    /* Q8_0: a block of 32 values is a half-precision scale (2) and 32 signed bytes. */
    unsigned char q8[32 * 34];
    for (size_t i = 0; i < sizeof q8; i++)
        q8[i] = i % 34 == 0 ? 0 : i % 34 == 1 ? 0x40 : (unsigned char)(i % 34 - 2);
    put_lora_gguf(t.folder.path, "blk.1.attn_output.weight.lora_a", "blk.1.attn_output.weight.lora_b", 8, 32,
                  32, 32, 32, q8, sizeof q8, sizeof q8);
    if (trial_read(&t, path, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    s = &t.l.content->spec;
    assert_true(s->pairs[0].module.site == LORA_SITE_O && s->pairs[0].module.layer == 1 &&
                s->pairs[0].rank == 32);
    assert_true(s->pairs[0].a_type == DTYPE_F32 && value(s->pairs[0].a, 5) == 10 &&
                value(s->pairs[0].b, 37) == 10);
    put_lora_gguf(t.folder.path, "blk.0.attn_qkv.weight.lora_a", "blk.0.attn_qkv.weight.lora_b", 0, 32, 2, 2,
                  32, counted, 256, 256);
    assert_int_equal(trial_read(&t, path, &err), STATUS_MISMATCH);
    assert_non_null(strstr(err.text, "this base has no module 'blk.0.attn_qkv'"));
    put_lora_gguf(t.folder.path, "blk.7.attn_q.weight.lora_a", "blk.7.attn_q.weight.lora_b", 0, 32, 2, 2, 32,
                  counted, 256, 256);
    assert_int_equal(trial_read(&t, path, &err), STATUS_MISMATCH);
    assert_non_null(strstr(err.text, "this base has no module 'blk.7.attn_q'"));
    trial_end(&t);
}

/* ---- the user's scale; failing memory */

static void the_users_scale_is_for_sums_only(void **state)
{
    (void)state;
    struct trial t;
    struct error err;
    struct adapter_version *v;
    trial_begin(&t, LLAMA);
    must_read(&t, ",\"modules_to_save\":[\"norm\"]",
              (struct made[]){AB, {PRE "model.norm.weight", {32}, 0}, END});
    struct adapter_source s = {.name = "x", .path = t.folder.path, .root_fd = -1, .scale = 0.5};
    assert_int_equal(adapter_load(&s, t.m, &v, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "scale 0.5"));
    must_read(&t, "", (struct made[]){AB, END});
    assert_int_equal(adapter_load(&s, t.m, &v, &err), STATUS_OK);
    assert_true(v->lora->layers[0].group[LORA_GROUP_QKV].part[0].scale == 1.5F);
    adapter_release(v);
    must_read(&t, ",\"use_dora\":true", (struct made[]){AB, {Q ".lora_magnitude_vector", {32}, 1}, END});
    assert_int_equal(adapter_load(&s, t.m, &v, &err), STATUS_OK);
    assert_true(v->lora->n_members == 1 && v->lora->members[0].weight == 0.5F);
    adapter_release(v);
    trial_end(&t);
}

static void memory_may_fail_anywhere(void **state)
{
    (void)state;
    struct trial t;
    struct error err;
    enum status s;
    uint64_t n = 0;
    trial_begin(&t, LLAMA);
    must_read(
        &t,
        ",\"modules_to_save\":[\"norm\"],\"trainable_token_indices\":[1],\"target_modules\":[\"q_proj\"],"
        "\"alpha_pattern\":{\"q_proj\":3},\"layers_to_transform\":[0]",
        (struct made[]){AB, {PRE "model.norm.weight", {32}, 0}, {ROWS(1)}, END});
    do {
        mem_fail_at(++n);
        s = trial_read(&t, t.folder.path, &err);
        mem_fail_at(0);
        if (s != STATUS_OK && s != STATUS_NO_MEMORY)
            fail_msg("allocation %d: %s '%s'", (int)n, status_name(s), err.text);
    } while (s != STATUS_OK && n < 2000);
    assert_int_equal(s, STATUS_OK);
    assert_true(n > 20);
    trial_end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_have_place_scale_and_extras),
        cmocka_unit_test(embeddings_are_turned_over),
        cmocka_unit_test(whole_tensors_replace),
        cmocka_unit_test(an_embedding_saved_with_a_tied_base_is_the_head_too),
        cmocka_unit_test(token_rows_are_kept_in_order),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(tied_adapters_are_whole),
        cmocka_unit_test(mlx_folders_are_read),
        cmocka_unit_test(wrong_mlx_folders_get_their_error),
        cmocka_unit_test(gguf_files_find_their_place),
        cmocka_unit_test(the_users_scale_is_for_sums_only),
        cmocka_unit_test(memory_may_fail_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
