/* config.json and generation_config.json, as transformers 4 and 5 write them, into one description.
 *
 * A field that is absent has transformers' default for its model_type: the table below, read off the
 * configuration classes (transformers 5.23, models/NAME/configuration_NAME.py). What we don't know and what
 * would change the numbers is refused by its name; what only concerns training is not looked at. */
#include <string.h>

#include "model_config.h"

/* How layers divide into sliding and full attention when layer_types doesn't say. */
enum layer_rule {
    LAYERS_FULL,       /* no window at all */
    LAYERS_ALL,        /* every layer has the window, if there is one */
    LAYERS_SWITCHED,   /* use_sliding_window: layers from max_window_layers on */
    LAYERS_SWITCH_ALL, /* use_sliding_window: every layer */
    LAYERS_EVERY_2ND,  /* gemma2: sliding, full, sliding … */
    LAYERS_PATTERN     /* gemma3: every sliding_window_pattern-th is full */
};

struct family_defaults {
    const char *model_type;
    uint32_t vocab, hidden, inter, layers, heads, kv_heads, head_dim, max_position; /* 0: see the reader */
    double eps, theta;
    enum hidden_act act;
    bool tied;
    uint32_t window;
    enum layer_rule layer_rule;
    int32_t bos, pad, eos; /* -1: none */
};

static const struct family_defaults families[] = {
    {"llama", 32000, 4096, 11008, 32, 32, 0, 0, 2048, 1e-6, 1e4, ACT_SILU, false, 0, LAYERS_FULL, 1, -1, 2},
    {"mistral", 32000, 4096, 14336, 32, 32, 8, 0, 131072, 1e-6, 1e4, ACT_SILU, false, 4096, LAYERS_ALL, 1, -1,
     2},
    {"qwen2", 151936, 4096, 22016, 32, 32, 32, 0, 32768, 1e-6, 1e4, ACT_SILU, false, 4096, LAYERS_SWITCHED,
     -1, -1, -1},
    {"qwen3", 151936, 4096, 22016, 32, 32, 32, 128, 32768, 1e-6, 1e4, ACT_SILU, false, 4096, LAYERS_SWITCHED,
     -1, -1, -1},
    {"gemma2", 256000, 2304, 9216, 26, 8, 4, 256, 8192, 1e-6, 1e4, ACT_GELU_TANH, true, 4096,
     LAYERS_EVERY_2ND, 2, 0, 1},
    {"gemma3_text", 262208, 2304, 9216, 26, 8, 4, 256, 131072, 1e-6, 1e6, ACT_GELU_TANH, true, 4096,
     LAYERS_PATTERN, 2, 0, 1},
    {"phi3", 32064, 3072, 8192, 32, 32, 0, 0, 4096, 1e-5, 1e4, ACT_SILU, false, 0, LAYERS_ALL, 1, 32000,
     32000},
    {"gpt2", 50257, 768, 0, 12, 12, 0, 0, 1024, 1e-5, 1e4, ACT_GELU_TANH, true, 0, LAYERS_FULL, 50256, -1,
     50256},
    {"granite", 32000, 4096, 11008, 32, 32, 0, 0, 2048, 1e-6, 1e4, ACT_SILU, false, 0, LAYERS_FULL, 1, -1, 2},
    {"olmo2", 50304, 4096, 11008, 32, 32, 0, 0, 2048, 1e-5, 1e4, ACT_SILU, false, 0, LAYERS_FULL, -1, 1,
     50279},
    {"mixtral", 32000, 4096, 14336, 32, 32, 8, 0, 131072, 1e-5, 1e6, ACT_SILU, false, 0, LAYERS_ALL, 1, -1,
     2},
    {"qwen3_moe", 151936, 2048, 6144, 24, 32, 4, 0, 32768, 1e-6, 1e4, ACT_SILU, false, 4096,
     LAYERS_SWITCH_ALL, -1, -1, -1},
};

/* For a model_type that we have no row for: nothing is assumed; the model room refuses it by name. */
static const struct family_defaults no_family = {.theta = 1e4, .bos = -1, .pad = -1, .eos = -1};

static const struct family_defaults *find_family(const char *model_type)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strcmp(families[i].model_type, model_type) == 0)
            return &families[i];
    return &no_family;
}

static void read_model_type(struct fields *f, struct model_config *c)
{
    const char *type = field_text(f, "model_type", NULL);
    if (!type)
        field_fail(f, STATUS_FORMAT, "model_type", "is missing: is this a model's config.json?");
    else if (strlen(type) >= sizeof c->model_type)
        field_fail(f, STATUS_FORMAT, "model_type", "is %zu bytes long", strlen(type));
    else
        memcpy(c->model_type, type, strlen(type) + 1);
    const char *name = field_text(f, "_name_or_path", "");
    const char *slash = strrchr(name, '/');
    name = slash ? slash + 1 : name;
    if (strlen(name) < sizeof c->name)
        memcpy(c->name, name, strlen(name) + 1);
}

static void read_activation(struct fields *f, const struct family_defaults *d, struct model_config *c)
{
    static const struct {
        const char *name;
        enum hidden_act act;
    } acts[] = {{"silu", ACT_SILU},
                {"swish", ACT_SILU},
                {"gelu", ACT_GELU},
                {"gelu_python", ACT_GELU},
                {"gelu_new", ACT_GELU_TANH},
                {"gelu_pytorch_tanh", ACT_GELU_TANH},
                {"gelu_python_tanh", ACT_GELU_TANH},
                {"gelu_accurate", ACT_GELU_TANH},
                {"relu", ACT_RELU}};
    /* gemma's configs carry both: hidden_act is an old mistake there, hidden_activation is what is meant. */
    const char *key = field_get(f, "hidden_activation")     ? "hidden_activation"
                      : field_get(f, "activation_function") ? "activation_function"
                                                            : "hidden_act";
    bool gemma = strncmp(c->model_type, "gemma", 5) == 0;
    const char *name = gemma && strcmp(key, "hidden_act") == 0 ? NULL : field_text(f, key, NULL);
    c->act = d->act;
    for (size_t i = 0; name && i < sizeof acts / sizeof *acts; i++) {
        if (strcmp(acts[i].name, name) == 0) {
            c->act = acts[i].act;
            return;
        }
    }
    if (name)
        field_fail(f, STATUS_UNSUPPORTED, key, "is '%.40s': this activation is not supported", name);
}

static void read_sizes(struct fields *f, const struct family_defaults *d, struct model_config *c)
{
    bool gpt2 = strcmp(c->model_type, "gpt2") == 0;
    c->vocab_size = field_u32(f, "vocab_size", d->vocab, 1, 1U << 24);
    c->hidden_size = field_u32(f, gpt2 ? "n_embd" : "hidden_size", d->hidden, 1, 1U << 20);
    c->n_layers = field_u32(f, gpt2 ? "n_layer" : "num_hidden_layers", d->layers, 1, CONFIG_LAYERS_MAX);
    c->n_heads = field_u32(f, gpt2 ? "n_head" : "num_attention_heads", d->heads, 1, 4096);
    c->intermediate_size = field_u32(f, gpt2 ? "n_inner" : "intermediate_size", d->inter, 1, 1U << 22);
    if (gpt2 && !c->intermediate_size)
        c->intermediate_size = 4 * c->hidden_size;
    uint32_t derived = c->n_heads ? c->hidden_size / c->n_heads : 0;
    c->n_kv_heads = c->n_heads;
    c->head_dim = derived;
    if (!gpt2) {
        c->n_kv_heads = field_u32(f, "num_key_value_heads", d->kv_heads ? d->kv_heads : c->n_heads, 1, 4096);
        c->head_dim = field_u32(f, "head_dim", d->head_dim ? d->head_dim : derived, 1, 1U << 13);
    } else if (derived * c->n_heads != c->hidden_size) {
        field_fail(f, STATUS_FORMAT, "n_embd", "is %u, no multiple of n_head %u", c->hidden_size, c->n_heads);
    }
    c->max_position =
        field_u32(f, gpt2 ? "n_positions" : "max_position_embeddings", d->max_position, 1, INT32_MAX);
    c->norm_eps = field_f64(f, gpt2 ? "layer_norm_epsilon" : "rms_norm_eps", d->eps, 0, 1);
}

/* Only some families look at these switches; others' configurations may carry them without meaning. */
static void read_biases(struct fields *f, struct model_config *c)
{
    static const char *const attention[] = {"llama",   "qwen3",       "qwen3_moe", "gemma2",
                                            "granite", "gemma3_text", "olmo2"};
    for (size_t i = 0; i < sizeof attention / sizeof *attention; i++)
        if (strcmp(c->model_type, attention[i]) == 0)
            c->attention_bias = field_bool(f, "attention_bias", false);
    if (strcmp(c->model_type, "llama") == 0 || strcmp(c->model_type, "granite") == 0)
        c->mlp_bias = field_bool(f, "mlp_bias", false);
}

static void read_multipliers(struct fields *f, struct model_config *c)
{
    bool gemma2 = strcmp(c->model_type, "gemma2") == 0, gemma3 = strcmp(c->model_type, "gemma3_text") == 0;
    double one = strcmp(c->model_type, "granite") == 0 ? 1 : 0;
    c->query_pre_attn_scalar = field_f64(f, "query_pre_attn_scalar", gemma2 || gemma3 ? 256 : 0, 0, 1e9);
    /* gemma2's caps are on unless the file says null, so absence and null differ here. */
    c->attn_logit_softcap = gemma2 && !json_object_get(f->object, "attn_logit_softcapping") ? 50 : 0;
    c->attn_logit_softcap = field_f64(f, "attn_logit_softcapping", c->attn_logit_softcap, 0, 1e9);
    c->final_logit_softcap = gemma2 && !json_object_get(f->object, "final_logit_softcapping") ? 30 : 0;
    c->final_logit_softcap = field_f64(f, "final_logit_softcapping", c->final_logit_softcap, 0, 1e9);
    c->embedding_multiplier = field_f64(f, "embedding_multiplier", one, -1e9, 1e9);
    c->residual_multiplier = field_f64(f, "residual_multiplier", one, -1e9, 1e9);
    c->attention_multiplier = field_f64(f, "attention_multiplier", one, -1e9, 1e9);
    c->logits_scaling = field_f64(f, "logits_scaling", one, -1e9, 1e9);
    if (strcmp(c->model_type, "gpt2") != 0)
        return;
    c->attn_scale_by_layer = field_bool(f, "scale_attn_by_inverse_layer_idx", false);
    if (!field_bool(f, "scale_attn_weights", true))
        c->attention_multiplier = 1;
}

/* qwen3_moe: which layers have experts. */
static void read_sparse_layers(struct fields *f, struct model_config *c)
{
    uint32_t step = field_u32(f, "decoder_sparse_step", 1, 1, INT32_MAX);
    const json_t *dense = field_get(f, "mlp_only_layers");
    if (dense && !json_is_array(dense))
        field_fail(f, STATUS_FORMAT, "mlp_only_layers", "is not a list");
    for (uint32_t i = 0; i < c->n_layers; i++)
        c->layer_is_sparse[i] = (i + 1) % step == 0;
    for (size_t i = 0; i < json_array_size(dense); i++) {
        const json_t *layer = json_array_get(dense, i);
        if (!json_is_integer(layer))
            field_fail(f, STATUS_FORMAT, "mlp_only_layers", "[%zu] is not a whole number", i);
        else if (json_integer_value(layer) >= 0 && json_integer_value(layer) < (json_int_t)c->n_layers)
            c->layer_is_sparse[json_integer_value(layer)] = 0;
    }
}

static void read_experts(struct fields *f, struct model_config *c)
{
    bool mixtral = strcmp(c->model_type, "mixtral") == 0, qwen = strcmp(c->model_type, "qwen3_moe") == 0;
    const char *key = field_get(f, "num_local_experts") ? "num_local_experts" : "num_experts";
    c->n_experts = field_u32(f, key, mixtral ? 8 : qwen ? 128 : 0, mixtral ? 1 : 0, 4096);
    if (!c->n_experts)
        return;
    c->n_experts_used = field_u32(f, "num_experts_per_tok", mixtral ? 2 : 8, 1, c->n_experts);
    c->expert_intermediate_size =
        mixtral ? c->intermediate_size
                : field_u32(f, "moe_intermediate_size", qwen ? 768 : c->intermediate_size, 1, 1U << 22);
    c->norm_topk_prob = mixtral || field_bool(f, "norm_topk_prob", false);
    if (qwen)
        read_sparse_layers(f, c);
    else
        memset(c->layer_is_sparse, 1, c->n_layers);
}

static void read_layer_types(struct fields *f, const json_t *types, struct model_config *c)
{
    if (json_array_size(types) != c->n_layers) {
        field_fail(f, STATUS_FORMAT, "layer_types", "has %zu entries, expected %u", json_array_size(types),
                   c->n_layers);
        return;
    }
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (type && strcmp(type, "sliding_attention") == 0)
            c->layer_is_sliding[i] = 1;
        else if (!type || strcmp(type, "full_attention") != 0)
            field_fail(f, STATUS_UNSUPPORTED, "layer_types",
                       "has '%.40s': only full_attention and "
                       "sliding_attention are supported",
                       type ? type : "(no string)");
    }
}

static void read_window(struct fields *f, const struct family_defaults *d, struct model_config *c)
{
    const json_t *types = field_get(f, "layer_types");
    enum layer_rule rule = d->layer_rule;
    bool on = true;
    if (rule == LAYERS_SWITCHED || rule == LAYERS_SWITCH_ALL)
        on = field_bool(f, "use_sliding_window", false);
    /* null is a statement ("no window"), absence is the default. */
    uint32_t fallback = json_object_get(f->object, "sliding_window") ? 0 : d->window;
    uint32_t window = field_u32(f, "sliding_window", fallback, 1, INT32_MAX);
    window = on ? window : 0;
    uint32_t period = field_u32(
        f, field_get(f, "sliding_window_pattern") ? "sliding_window_pattern" : "_sliding_window_pattern", 6,
        1, CONFIG_LAYERS_MAX);
    uint32_t first = field_u32(f, "max_window_layers", 28, 0, INT32_MAX);
    /* mistral and its like ignore layer_types: their window is everywhere or nowhere. */
    if (types && rule != LAYERS_ALL && rule != LAYERS_SWITCH_ALL)
        read_layer_types(f, types, c);
    else
        for (uint32_t i = 0; i < c->n_layers && window; i++)
            c->layer_is_sliding[i] =
                rule == LAYERS_ALL || rule == LAYERS_SWITCH_ALL || (rule == LAYERS_SWITCHED && i >= first) ||
                (rule == LAYERS_EVERY_2ND && i % 2 == 0) || (rule == LAYERS_PATTERN && (i + 1) % period != 0);
    bool any = false;
    for (uint32_t i = 0; i < c->n_layers; i++)
        any |= c->layer_is_sliding[i] != 0;
    if (any && !window)
        field_fail(f, STATUS_FORMAT, "sliding_window", "is missing, but layer_types has sliding layers");
    c->sliding_window = any ? window : 0;
}

static int32_t read_token(struct fields *f, const char *key, int32_t fallback)
{
    const json_t *v = json_object_get(f->object, key);
    /* null says "none", and so did -1 in early llama configs. */
    if (json_is_null(v) || json_integer_value(v) == -1)
        return -1;
    if (!v)
        return fallback;
    return (int32_t)field_u32(f, key, 0, 0, INT32_MAX);
}

static void add_eos(struct fields *f, const json_t *v, struct model_config *c)
{
    json_int_t id = json_integer_value(v);
    if (!json_is_integer(v) || id < 0 || id > INT32_MAX) {
        field_fail(f, STATUS_FORMAT, "eos_token_id", "is neither a token id nor a list of them");
        return;
    }
    for (uint32_t i = 0; i < c->n_eos; i++)
        if (c->eos_tokens[i] == (int32_t)id)
            return;
    if (c->n_eos == CONFIG_EOS_MAX)
        field_fail(f, STATUS_TOO_LARGE, "eos_token_id", "has more than %d ids", CONFIG_EOS_MAX);
    else
        c->eos_tokens[c->n_eos++] = (int32_t)id;
}

static void read_eos(struct fields *f, struct model_config *c)
{
    const json_t *v = field_get(f, "eos_token_id");
    if (!v)
        return;
    if (!json_is_array(v))
        add_eos(f, v, c);
    for (size_t i = 0; i < json_array_size(v); i++)
        add_eos(f, json_array_get(v, i), c);
}

/* Fields that would change the numbers, with the only value that we know to compute. */
static void refuse_unknown(struct fields *f)
{
    static const struct {
        const char *key;
        bool expected;
    } switches[] = {{"use_bidirectional_attention", false},
                    {"is_encoder_decoder", false},
                    {"add_cross_attention", false},
                    {"use_mrope", false}};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
        if (field_bool(f, switches[i].key, switches[i].expected) != switches[i].expected)
            field_fail(f, STATUS_UNSUPPORTED, switches[i].key, "is %s: not supported",
                       switches[i].expected ? "false" : "true");
    if (field_get(f, "clip_qkv"))
        field_fail(f, STATUS_UNSUPPORTED, "clip_qkv", "is not supported");
}

enum status model_config_check(const struct model_config *c, const char *shown, struct error *err)
{
    const struct {
        const char *name;
        uint32_t value;
    } sizes[] = {{"vocab_size", c->vocab_size},
                 {"hidden_size", c->hidden_size},
                 {"layers", c->n_layers},
                 {"attention heads", c->n_heads},
                 {"key/value heads", c->n_kv_heads},
                 {"head_dim", c->head_dim},
                 {"intermediate_size", c->intermediate_size},
                 {"context length", c->max_position}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value == 0)
            return fail(err, STATUS_FORMAT, "%s: %s is missing (model_type %s)", shown, sizes[i].name,
                        c->model_type);
    if (c->n_heads % c->n_kv_heads)
        return fail(err, STATUS_FORMAT, "%s: %u attention heads can't share %u key/value heads evenly", shown,
                    c->n_heads, c->n_kv_heads);
    if (c->head_dim % 2)
        return fail(err, STATUS_FORMAT, "%s: head_dim is %u, expected an even number", shown, c->head_dim);
    for (uint32_t i = 0; i < c->n_eos; i++)
        if ((uint32_t)c->eos_tokens[i] >= c->vocab_size)
            return fail(err, STATUS_FORMAT, "%s: eos_token_id %d is outside the vocabulary of %u", shown,
                        c->eos_tokens[i], c->vocab_size);
    return STATUS_OK;
}

enum status model_config_from_json(const json_t *config, const json_t *generation, const char *shown,
                                   struct model_config *out, struct error *err)
{
    memset(out, 0, sizeof *out);
    struct fields f = {.object = config, .shown = shown, .section = "", .err = err};
    struct fields outer = f,
                  g = {.object = generation, .shown = "generation_config.json", .section = "", .err = err};
    if (!json_is_object(config))
        return fail(err, STATUS_FORMAT, "%s: not a JSON object", shown);
    refuse_unknown(&f);
    model_config_read_quantization(&f, out);
    /* Models with pictures keep their language model's configuration one level down. */
    if (json_is_object(field_get(&f, "text_config"))) {
        f.object = field_get(&f, "text_config");
        f.section = "text_config.";
        refuse_unknown(&f);
        model_config_read_quantization(&f, out);
    }
    read_model_type(&f, out);
    const struct family_defaults *d = find_family(out->model_type);
    read_sizes(&f, d, out);
    read_activation(&f, d, out);
    out->tie_word_embeddings =
        field_bool(&f, "tie_word_embeddings", field_bool(&outer, "tie_word_embeddings", d->tied));
    read_biases(&f, out);
    read_multipliers(&f, out);
    read_experts(&f, out);
    if (f.status == STATUS_OK)
        read_window(&f, d, out);
    model_config_read_rope(&f, d->theta, out);
    /* transformers rotates a part of a head in phi3 alone of these families. */
    if (d != &no_family && strcmp(d->model_type, "phi3") != 0 &&
        (out->rope.partial_factor != 1 || out->rope_local.partial_factor != 1))
        field_fail(&f, STATUS_UNSUPPORTED, "partial_rotary_factor", "is not 1: supported for phi3 only");
    out->bos_token = read_token(&f, "bos_token_id", d->bos);
    out->pad_token = read_token(&f, "pad_token_id", d->pad);
    if (json_is_object(generation))
        read_eos(&g, out);
    read_eos(&f, out);
    if (f.object != outer.object)
        read_eos(&outer, out);
    if (!out->n_eos && !json_object_get(f.object, "eos_token_id") && d->eos >= 0 &&
        (uint32_t)d->eos < out->vocab_size)
        out->eos_tokens[out->n_eos++] = d->eos;
    enum status s = f.status != STATUS_OK ? f.status : outer.status != STATUS_OK ? outer.status : g.status;
    return s == STATUS_OK ? model_config_check(out, shown, err) : s;
}
