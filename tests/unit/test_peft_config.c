/* adapters: adapter_config.json, PEFT folders and GGUF LoRAs looked at without a base. */
#include "tests/test.h"

#include <jansson.h>

#include "adapters.h"
#include "base/mem.h"
#include "peft_config.h"
#include "tests/unit/made_files.h"

static enum status parse(const char *text, struct peft_config *c, struct error *err)
{
    json_t *j;
    assert_int_equal(json_parse(text, strlen(text), "adapter_config.json", 16, &j, err), STATUS_OK);
    enum status s = peft_config_parse(j, "adapter_config.json", c, err);
    json_decref(j);
    return s;
}

static void what_can_not_matter_is_ignored(void **state)
{
    (void)state;
    struct peft_config c;
    struct error err = {0};
    static const char text[] =
        "{\"alora_invocation_tokens\":null,\"alpha_pattern\":{},\"arrow_config\":null,\"auto_mapping\":null,"
        "\"base_model_name_or_path\":\"tiny/"
        "llama\",\"bias\":\"none\",\"corda_config\":null,\"ensure_weight_tying\":"
        "false,\"eva_config\":{\"rho\":2},\"exclude_modules\":null,\"fan_in_fan_out\":true,\"inference_"
        "mode\":true,"
        "\"init_lora_weights\":\"gaussian\",\"layers_to_transform\":[1],\"loftq_config\":{\"loftq_bits\":4},"
        "\"lora_alpha\":2.5,\"lora_bias\":false,\"lora_dropout\":0.1,\"megatron_core\":\"megatron.core\","
        "\"modules_to_save\":[],\"peft_type\":\"LORA\",\"peft_version\":\"0.21.2\",\"r\":16,\"rank_pattern\":"
        "{\"a\":2},"
        "\"target_modules\":\"all-linear\",\"use_dora\":false,\"use_rslora\":true,\"a_future_key\":null,"
        "\"another_future_key\":false,\"qalora_group_size\":16}";
    assert_int_equal(parse(text, &c, &err), STATUS_OK);
    assert_true(c.rank == 16 && c.alpha == 2.5 && c.rslora && !c.ties_weights && !c.dora && !c.lora_bias);
    assert_string_equal(c.base_model, "tiny/llama");
    assert_true(!c.tokens && c.n_invocation == 0 && c.bias == PEFT_BIAS_NONE);
    peft_config_fini(&c);
    assert_int_equal(parse("{\"peft_type\":\"LORA\"}", &c, &err), STATUS_OK);
    assert_true(c.rank == 8 && c.alpha == 8 && !c.rslora); /* PEFT's defaults */
    assert_false(peft_rules_have_targets(c.rules));
    peft_config_fini(&c);
}

static void what_is_read_is_kept(void **state)
{
    (void)state;
    struct peft_config c;
    struct error err = {0};
    assert_int_equal(
        parse("{\"peft_type\":\"LORA\",\"use_dora\":true,\"bias\":\"lora_only\",\"ensure_weight_tying\":"
              "true,\"alora_invocation_tokens\":[7,5,7],\"trainable_token_indices\":{\"wte\":[1]},"
              "\"target_modules\":[\"q_proj\"]}",
              &c, &err),
        STATUS_OK);
    assert_true(c.dora && !c.lora_bias && c.ties_weights && c.bias == PEFT_BIAS_LORA_ONLY);
    assert_true(c.n_invocation == 3 && c.invocation[0] == 7 && c.invocation[1] == 5 && c.invocation[2] == 7);
    assert_true(json_is_object(c.tokens) && peft_rules_have_targets(c.rules));
    peft_config_fini(&c);
    assert_int_equal(parse("{\"peft_type\":\"LORA\",\"lora_bias\":true,\"bias\":\"all\"}", &c, &err),
                     STATUS_OK);
    assert_true(c.lora_bias && c.bias == PEFT_BIAS_ALL);
    peft_config_fini(&c);
}

static const struct {
    const char *config;
    enum status status;
    const char *text;
} bad[] = {
    {"[]", STATUS_FORMAT, "not a JSON object"},
    {"{}", STATUS_UNSUPPORTED, "peft_type is 'missing', expected LORA"},
    {"{\"peft_type\":\"LOHA\"}", STATUS_UNSUPPORTED, "peft_type is 'LOHA'"},
    {"{\"peft_type\":\"LORA\",\"use_dora\":true,\"lora_bias\":true}", STATUS_UNSUPPORTED,
     "use_dora and lora_bias are both set"},
    {"{\"peft_type\":\"LORA\",\"bias\":\"some\"}", STATUS_UNSUPPORTED,
     "bias is 'some', expected none, all or lora_only"},
    {"{\"peft_type\":\"LORA\",\"bias\":1}", STATUS_UNSUPPORTED, "bias is 'no string'"},
    {"{\"peft_type\":\"LORA\",\"modules_to_save\":\"lm_head\"}", STATUS_FORMAT,
     "modules_to_save is no list of names"},
    {"{\"peft_type\":\"LORA\",\"modules_to_save\":[1]}", STATUS_FORMAT,
     "modules_to_save: item 0 is no string"},
    {"{\"peft_type\":\"LORA\",\"target_modules\":7}", STATUS_FORMAT,
     "target_modules is neither a list nor a string"},
    {"{\"peft_type\":\"LORA\",\"target_modules\":\"(q\"}", STATUS_FORMAT,
     "target_modules '(q': no regular expression"},
    {"{\"peft_type\":\"LORA\",\"target_modules\":[\"q\",null]}", STATUS_FORMAT,
     "target_modules: item 1 is no string"},
    {"{\"peft_type\":\"LORA\",\"target_parameters\":\"x\"}", STATUS_FORMAT,
     "target_parameters is no list of names"},
    {"{\"peft_type\":\"LORA\",\"exclude_modules\":{}}", STATUS_FORMAT, "exclude_modules is neither"},
    {"{\"peft_type\":\"LORA\",\"layers_to_transform\":\"1\"}", STATUS_FORMAT,
     "layers_to_transform is neither a number nor a list"},
    {"{\"peft_type\":\"LORA\",\"layers_to_transform\":[1.5]}", STATUS_FORMAT,
     "layers_to_transform: item 0 is no whole number"},
    {"{\"peft_type\":\"LORA\",\"layers_to_transform\":1,\"layers_pattern\":7}", STATUS_FORMAT,
     "layers_pattern is neither a list nor a string"},
    {"{\"peft_type\":\"LORA\",\"rank_pattern\":[]}", STATUS_FORMAT, "rank_pattern is not an object"},
    {"{\"peft_type\":\"LORA\",\"rank_pattern\":{\"q\":\"8\"}}", STATUS_FORMAT,
     "rank_pattern: the value of 'q' is not a number"},
    {"{\"peft_type\":\"LORA\",\"trainable_token_indices\":\"1\"}", STATUS_FORMAT,
     "trainable_token_indices is neither a list nor an object"},
    {"{\"peft_type\":\"LORA\",\"alora_invocation_tokens\":\"x\"}", STATUS_FORMAT,
     "alora_invocation_tokens is no list"},
    {"{\"peft_type\":\"LORA\",\"alora_invocation_tokens\":[-1]}", STATUS_FORMAT,
     "alora_invocation_tokens: item 0 is no token id"},
    {"{\"peft_type\":\"LORA\",\"alora_invocation_tokens\":[1,2.5]}", STATUS_FORMAT,
     "alora_invocation_tokens: item 1 is no token id"},
    {"{\"peft_type\":\"LORA\",\"invocation_string\":\"go\"}", STATUS_UNSUPPORTED,
     "invocation_string is set: an activated LoRA of an older kind"},
    {"{\"peft_type\":\"LORA\",\"kasa_config\":{}}", STATUS_UNSUPPORTED, "kasa_config is set"},
    {"{\"peft_type\":\"LORA\",\"monteclora_config\":{\"a\":1}}", STATUS_UNSUPPORTED,
     "monteclora_config is set"},
    {"{\"peft_type\":\"LORA\",\"init_lora_weights\":\"lora_ga\"}", STATUS_UNSUPPORTED, "is 'lora_ga'"},
    {"{\"peft_type\":\"LORA\",\"init_lora_weights\":\"LoftQ\"}", STATUS_UNSUPPORTED,
     "belongs to the base that LoftQ rounded"},
    {"{\"peft_type\":\"LORA\",\"layer_replication\":[[0,1]]}", STATUS_UNSUPPORTED,
     "layer_replication is set"},
    {"{\"peft_type\":\"LORA\",\"megatron_config\":{\"a\":1}}", STATUS_UNSUPPORTED, "megatron_config is set"},
    {"{\"peft_type\":\"LORA\",\"kasa_config\":{\"a\":1}}", STATUS_UNSUPPORTED, "kasa_config is set"},
    {"{\"peft_type\":\"LORA\",\"arrow_config\":{\"a\":1}}", STATUS_UNSUPPORTED, "arrow_config is set"},
    {"{\"peft_type\":\"LORA\",\"use_bdlora\":{\"a\":1}}", STATUS_UNSUPPORTED, "use_bdlora is set"},
    {"{\"peft_type\":\"LORA\",\"use_qalora\":true}", STATUS_UNSUPPORTED, "use_qalora is set"},
    {"{\"peft_type\":\"LORA\",\"init_lora_weights\":\"pissa_niter_4\"}", STATUS_UNSUPPORTED,
     "init_lora_weights is 'pissa_niter_4'"},
    {"{\"peft_type\":\"LORA\",\"init_lora_weights\":\"olora\"}", STATUS_UNSUPPORTED, "is 'olora'"},
    {"{\"peft_type\":\"LORA\",\"init_lora_weights\":\"corda\"}", STATUS_UNSUPPORTED, "is 'corda'"},
    {"{\"peft_type\":\"LORA\",\"init_lora_weights\":7}", STATUS_UNSUPPORTED, "is 'no name'"},
    {"{\"peft_type\":\"LORA\",\"use_magic\":1}", STATUS_UNSUPPORTED,
     "use_magic is set: a field that we don't know"},
    {"{\"peft_type\":\"LORA\",\"lora_alpha\":\"8\"}", STATUS_FORMAT, "lora_alpha is not a sensible number"},
    {"{\"peft_type\":\"LORA\",\"lora_alpha\":1e300}", STATUS_FORMAT, "lora_alpha is not a sensible number"},
    {"{\"peft_type\":\"LORA\",\"use_rslora\":1}", STATUS_FORMAT, "use_rslora is neither"},
    {"{\"peft_type\":\"LORA\",\"alpha_pattern\":[1]}", STATUS_FORMAT, "alpha_pattern is not an object"},
    {"{\"peft_type\":\"LORA\",\"alpha_pattern\":{\"q\":\"x\"}}", STATUS_FORMAT, "'q' is not a number"},
    {"{\"peft_type\":\"LORA\",\"alpha_pattern\":{\"ok\":1,\"q(\":1}}", STATUS_FORMAT, "alpha_pattern 'q('"},
};

static void what_would_matter_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err = {0};
        struct peft_config c;
        enum status s = parse(bad[i].config, &c, &err);
        if (s != bad[i].status || !strstr(err.text, bad[i].text))
            fail_msg("%s: got %s '%s', expected '%s'", bad[i].config, status_name(s), err.text, bad[i].text);
        peft_config_fini(&c);
    }
}

/* Values by PEFT's get_pattern_key over these paths. */
static void alpha_patterns_match_as_peft_does(void **state)
{
    (void)state;
    struct peft_config c;
    struct error err = {0};
    static const char text[] =
        "{\"peft_type\":\"LORA\",\"lora_alpha\":8,\"alpha_pattern\":{\".*\\\\.0\\\\..*q_proj\":3,"
        "\"^no_such_prefix\\\\..*\":99,\"^model\\\\.layers\\\\.1\\\\.mlp\\\\.up_proj\":5,\"q_proj\":20,"
        "\"layers\\\\.2.*k\":7,"
        "\"v_proj|o_proj\":11,\"model.layers.0.self_attn.q_proj\":1000}}";
    static const struct {
        const char *path;
        double alpha;
    } cases[] = {{"model.layers.0.self_attn.q_proj", 3},
                 {"model.layers.1.self_attn.q_proj", 20},
                 {"model.layers.1.self_attn.xq_proj", 8}, /* a dotted suffix, not any suffix */
                 {"q_proj", 20},
                 {"model.layers.1.mlp.up_proj", 5},
                 {"model.layers.2.mlp.up_proj", 8},
                 {"model.layers.2.self_attn.k_proj", 8}, /* the end is anchored */
                 {"model.layers.2.self_attn.v_proj", 11},
                 {"model.layers.2.self_attn.o_proj", 11}};
    assert_int_equal(parse(text, &c, &err), STATUS_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double alpha = 0;
        assert_int_equal(peft_scale(&c, cases[i].path, 1, &alpha, &err), STATUS_OK);
        if (alpha != cases[i].alpha)
            fail_msg("%s: %g, expected %g", cases[i].path, alpha, cases[i].alpha);
    }
    peft_config_fini(&c);
    /* A pattern made to take forever ends in an error, not in a hang. */
    assert_int_equal(parse("{\"peft_type\":\"LORA\",\"alpha_pattern\":{\"((a+)+)+b\":1}}", &c, &err),
                     STATUS_OK);
    double alpha;
    assert_int_equal(peft_scale(&c, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabc", 1, &alpha, &err),
                     STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "takes too long"));
    peft_config_fini(&c);
}

/* ---- folders, without a base */

#define Q "base_model.model.model.layers.0.self_attn.q_proj"
#define A(name, r, in, begin, end)                                                                           \
    "\"" name ".lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[" #r "," #in "],\"data_offsets\":[" #begin     \
    "," #end "]}"
#define B(name, out, r, begin, end)                                                                          \
    "\"" name ".lora_B.weight\":{\"dtype\":\"F32\",\"shape\":[" #out "," #r "],\"data_offsets\":[" #begin    \
    "," #end "]}"
#define RAW(name, dtype, n, begin, end)                                                                      \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" #n "],\"data_offsets\":[" #begin "," #end "]}"
#define CONFIG "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4,\"base_model_name_or_path\":\"tiny\"}"

static const struct {
    const char *what, *header;
    size_t n_data;
    enum status status;
    const char *text;
} bad_folders[] = {
    {"nothing", "{}", 0, STATUS_FORMAT, "no lora_A and lora_B"},
    {"A alone", "{" A(Q, 2, 4, 0, 32) "}", 32, STATUS_FORMAT, "the other half is missing"},
    {"B alone", "{" B(Q, 4, 2, 0, 32) "}", 32, STATUS_FORMAT, "the other half is missing"},
    {"no prefix", "{" A("model.layers.0.self_attn.q_proj", 2, 4, 0, 32) "}", 32, STATUS_FORMAT,
     "does not begin with 'base_model.model.'"},
    {"ranks differ", "{" A(Q, 2, 4, 0, 32) "," B(Q, 4, 1, 32, 48) "}", 48, STATUS_FORMAT,
     "its partner has rank 2"},
    {"rank is not the config's", "{" A(Q, 1, 4, 0, 16) "," B(Q, 4, 1, 16, 32) "}", 32, STATUS_MISMATCH,
     "has rank 1, adapter_config.json says r = 2"},
    {"a magnitude alone", "{" RAW(Q ".lora_magnitude_vector", "F32", 4, 0, 16) "}", 16, STATUS_FORMAT,
     "lora_magnitude_vector' is there, but its lora_A and lora_B are missing"},
    {"a bias alone", "{" RAW(Q ".lora_B.bias", "F32", 4, 0, 16) "}", 16, STATUS_FORMAT,
     "lora_B.bias' is there, but its lora_A and lora_B are missing"},
    {"surplus magnitude",
     "{" A(Q, 2, 4, 0, 32) "," B(Q, 4, 2, 32, 64) "," RAW(Q ".lora_magnitude_vector", "F32", 4, 64, 80) "}",
     80, STATUS_FORMAT, "has a lora_magnitude_vector, but use_dora is false"},
    {"surplus bias",
     "{" A(Q, 2, 4, 0, 32) "," B(Q, 4, 2, 32, 64) "," RAW(Q ".lora_B.bias", "F32", 4, 64, 80) "}", 80,
     STATUS_FORMAT, "has a lora_B.bias, but lora_bias is false"},
    {"a trained bias",
     "{" A(Q, 2, 4, 0, 32) "," B(Q, 4, 2, 32, 64) "," RAW(Q ".base_layer.bias", "F32", 4, 64, 80) "}", 80,
     STATUS_MISMATCH, "is a trained bias, but adapter_config.json says bias = none"},
    {"a whole module", "{" RAW("base_model.model.model.norm.weight", "F32", 4, 0, 16) "}", 16,
     STATUS_MISMATCH,
     "'base_model.model.model.norm.weight' is a whole weight, but modules_to_save does not name "
     "'model.norm'"},
    {"LoRA on a replaced module",
     "{" A(Q, 2, 4, 0, 32) "," B(Q, 4, 2, 32, 64) "," RAW(Q ".weight", "F32", 4, 64, 80) "}", 80,
     STATUS_FORMAT, "replaces a module that has LoRA as well"},
    {"token rows unasked",
     "{" RAW("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta", "F32", 4, 0, 16) "}",
     16, STATUS_FORMAT, "trainable_token_indices has no list for it"},
    {"a part that nobody knows", "{" RAW(Q ".lora_A.bias", "F32", 4, 0, 16) "}", 16, STATUS_UNSUPPORTED,
     "lora_A.bias' is of no kind that we know"},
    {"another variant's part", "{" RAW(Q ".lora_diag", "F32", 4, 0, 16) "}", 16, STATUS_UNSUPPORTED,
     "lora_diag' is of no kind that we know"},
    {"kohya", "{" RAW("lora_unet_down_blocks_0.alpha", "F32", 4, 0, 16) "}", 16, STATUS_UNSUPPORTED,
     "kohya's naming"},
    {"diffusers", "{" RAW("unet.down.lora_A.weight", "F32", 4, 0, 16) "}", 16, STATUS_UNSUPPORTED,
     "diffusers' naming"},
    {"base copy elsewhere", "{" RAW(Q ".base_layer.weight", "F32", 4, 0, 16) "}", 16, STATUS_UNSUPPORTED,
     "expected only of lm_head"},
    {"half an embedding",
     "{\"base_model.model.model.embed_tokens.lora_embedding_A\":{\"dtype\":\"F32\",\"shape\":[2,"
     "4],\"data_offsets\":[0,32]}}",
     32, STATUS_FORMAT, "the other half is missing"},
    {"foreign type", "{" RAW(Q ".lora_A.weight", "F64", 2, 0, 16) "}", 16, STATUS_UNSUPPORTED,
     "is F64, expected F32"},
    {"integers",
     "{\"" Q
     ".lora_A.weight\":{\"dtype\":\"I32\",\"shape\":[2,4],\"data_offsets\":[0,32]}," B(Q, 4, 2, 32, 64) "}",
     64, STATUS_UNSUPPORTED, "is i32, expected f32, f16 or bf16"},
    {"one dimension", "{" RAW(Q ".lora_A.weight", "F32", 2, 0, 8) "," B(Q, 4, 2, 8, 40) "}", 40,
     STATUS_FORMAT, "has 1 dimensions, expected 2"},
    {"the same place twice", "{" A(Q, 2, 4, 0, 32) "," RAW(Q ".lora_A.default.weight", "F32", 8, 32, 64) "}",
     64, STATUS_FORMAT, "are for the same module"},
    {"rank 0",
     "{\"" Q ".lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[0,0]},\"" Q
     ".lora_B.weight\":{\"dtype\":\"F32\",\"shape\":[4,0],\"data_offsets\":[0,0]}}",
     0, STATUS_FORMAT, "has rank 0, expected 1 to 4096"},
};

static void wrong_folders_get_their_error(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct adapter_report report;
    struct error err = {0};
    assert_int_equal(adapter_inspect(f.path, &report, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, "no adapter_config.json"));
    assert_false(adapter_is_at(f.path));
    put_text(f.path, "adapter_config.json", CONFIG);
    assert_true(adapter_is_at(f.path));
    assert_int_equal(adapter_inspect(f.path, &report, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, "neither adapter_model.safetensors nor"));
    put_text(f.path, "adapter_model.bin", "x");
    assert_int_equal(adapter_inspect(f.path, &report, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.text, "safetensors.torch"));
    for (size_t i = 0; i < sizeof bad_folders / sizeof *bad_folders; i++) {
        put_safetensors(f.path, "adapter_model.safetensors", bad_folders[i].header, bad_folders[i].n_data);
        enum status s = adapter_inspect(f.path, &report, &err);
        if (s != bad_folders[i].status || !strstr(err.text, bad_folders[i].text))
            fail_msg("%s: got %s '%s', expected '%s'", bad_folders[i].what, status_name(s), err.text,
                     bad_folders[i].text);
    }
    put_text(f.path, "adapter_config.json", "{\"peft_type\":\"LORA\",\"peft_type\":\"LORA\"}");
    assert_int_equal(adapter_inspect(f.path, &report, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.text, "duplicate"));
    folder_remove(&f);
}

/* A pair of rank 2 whose B has `rows` rows; all values of B but the one at `place` are `most`. */
struct extreme {
    const char *dtype;
    size_t size;
    unsigned char most[4], infinite[4];
};

static enum status inspect_extreme(const char *dir, const struct extreme *e, size_t rows, size_t place,
                                   struct error *err)
{
    struct adapter_report report;
    char header[600];
    size_t n = 8 * e->size;
    struct buf b;
    snprintf(header, sizeof header,
             "{\"" Q ".lora_A.weight\":{\"dtype\":\"%s\",\"shape\":[2,4],\"data_offsets\":[0,%zu]},"
             "\"" Q ".lora_B.weight\":{\"dtype\":\"%s\",\"shape\":[%zu,2],\"data_offsets\":[%zu,%zu]}}",
             e->dtype, n, e->dtype, rows, n, n + 2 * rows * e->size);
    buf_init(&b, 0);
    put_u64(&b, strlen(header));
    buf_puts(&b, header);
    put_zeros(&b, n);
    for (size_t i = 0; i < 2 * rows; i++)
        buf_append(&b, i == place ? e->infinite : e->most, e->size);
    put_file(dir, "adapter_model.safetensors", b.data, b.length);
    buf_fini(&b);
    return adapter_inspect(dir, &report, err);
}

static void infinite_values_are_refused(void **state)
{
    (void)state;
    static const struct extreme cases[] = {
        {"F32", 4, {0xff, 0xff, 0x7f, 0x7f}, {0, 0, 0x80, 0x7f}},
        {"F32", 4, {0xff, 0xff, 0x7f, 0xff}, {1, 0, 0xc0, 0xff}},
        {"F16", 2, {0xff, 0x7b}, {0, 0x7c}},
        {"F16", 2, {0xff, 0xfb}, {1, 0xfc}},
        {"BF16", 2, {0x7f, 0x7f}, {0x80, 0x7f}},
        {"BF16", 2, {0x7f, 0xff}, {0xc0, 0xff}},
    };
    struct folder f = folder_make();
    put_text(f.path, "adapter_config.json", CONFIG);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t rows = 1; rows < 7; rows++)
            for (size_t place = 0; place <= 2 * rows; place++) {
                struct error err = {0};
                bool none = place == 2 * rows;
                enum status s = inspect_extreme(f.path, &cases[i], rows, place, &err);
                assert_int_equal(s, none ? STATUS_OK : STATUS_FORMAT);
                assert_true(none || strstr(err.text, ".lora_B.weight' has an infinite value or NaN"));
            }
    folder_remove(&f);
}

static void a_sound_folder_is_described(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct adapter_report report;
    struct error err = {0};
    put_text(f.path, "adapter_config.json", CONFIG);
    /* An odd header length leaves the values unaligned; the base's copy of lm_head is passed over. */
    put_safetensors(
        f.path, "adapter_model.safetensors",
        "{" A(Q, 2, 4, 0, 32) "," B(Q, 6, 2, 32, 80) "," A("base_model.model.lm_head", 2, 4, 80, 112) "," B(
            "base_model.model.lm_head", 3, 2, 112, 136) "," RAW("base_model.model.lm_head.base_layer.weight",
                                                                "F32", 2, 136, 144) "} ",
        144);
    enum status s;
    uint64_t n = 0;
    do {
        mem_fail_at(++n);
        s = adapter_inspect(f.path, &report, &err);
        mem_fail_at(0);
        if (s != STATUS_OK && s != STATUS_NO_MEMORY)
            fail_msg("allocation %d: %s", (int)n, err.text);
    } while (s != STATUS_OK && n < 1000);
    assert_int_equal(s, STATUS_OK);
    assert_string_equal(report.format, "peft");
    assert_string_equal(report.base_model, "tiny");
    assert_string_equal(report.modules, "q_proj lm_head");
    assert_int_equal(report.n_modules, 2);
    assert_int_equal(report.rank_min, 2);
    assert_int_equal(report.rank_max, 2);
    assert_true(report.alpha == 4 && !report.rslora);
    assert_int_equal(report.n_parameters, 2 * (4 + 6) + 2 * (4 + 3));
    assert_true(report.file_bytes > 144);
    folder_remove(&f);
}

/* ---- GGUF LoRA, without a base */

static void put_lora(struct buf *b, const char *type, const char *kind, const char *extra_key)
{
    buf_init(b, 0);
    put_gguf_front(b, 3, 2, extra_key ? 5 : 4);
    put_gguf_text(b, "general.architecture", "llama");
    put_gguf_text(b, "general.type", type);
    put_gguf_text(b, "adapter.type", kind);
    put_gguf_f32(b, "adapter.lora.alpha", 16);
    if (extra_key)
        put_gguf_u32(b, extra_key, 1);
}

static void put_lora_tensors(struct buf *b, const char *a, const char *bee, uint32_t type)
{
    put_gguf_tensor(b, a, 8, 4, type, 0);     /* A [4, 8] */
    put_gguf_tensor(b, bee, 4, 6, type, 128); /* B [6, 4] */
    put_gguf_padding(b, 32);
    put_zeros(b, 128 + 96);
}

static void gguf_loras_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *type, *kind, *key, *a, *b, *text;
        enum status status;
    } cases[] = {
        {"adapter", "lora", NULL, "blk.2.attn_q.weight.lora_a", "blk.2.attn_q.weight.lora_b", NULL,
         STATUS_OK},
        {"adapter", "lora", NULL, "output.weight.lora_a", "output.weight.lora_b", NULL, STATUS_OK},
        {"model", "lora", NULL, "a", "b", "general.type is 'model', expected 'adapter'", STATUS_MISMATCH},
        {"adapter", "cvec", NULL, "a", "b", "adapter.type is 'cvec', expected 'lora'", STATUS_MISMATCH},
        {"adapter", "lora", "adapter.alora.invocation_tokens", "a", "b", "invocation_tokens", STATUS_FORMAT},
        {"adapter", "lora", "adapter.lora.twist", "a", "b", "adapter.lora.twist is set", STATUS_UNSUPPORTED},
        {"adapter", "lora", NULL, "blk.0.attn_q.weight", "b", "is no .weight.lora_a", STATUS_UNSUPPORTED},
        {"adapter", "lora", NULL, "blk.0.attn_z.weight.lora_a", "b", "no module 'blk.0.attn_z'",
         STATUS_MISMATCH},
        {"adapter", "lora", NULL, "blk.999.attn_q.weight.lora_a", "b", "no module 'blk.999.attn_q'",
         STATUS_MISMATCH},
        {"adapter", "lora", NULL, "blk.-1.attn_q.weight.lora_a", "b", "no module 'blk.-1.attn_q'",
         STATUS_MISMATCH},
        {"adapter", "lora", NULL, "token_embd.weight.lora_a", "token_embd.weight.lora_b",
         "expected [vocabulary, r] and [hidden, r]", STATUS_FORMAT},
        {"adapter", "lora", NULL, "blk.0.ffn_up_exps.weight.lora_a", "blk.0.ffn_up_exps.weight.lora_b",
         "expected [experts, r, in] and [experts, out, r]", STATUS_FORMAT},
        {"adapter", "lora", NULL, "blk.0.ffn_up_exps.weight.lora_a", "blk.1.ffn_up_exps.weight.lora_b",
         "other half is missing", STATUS_FORMAT},
        {"adapter", "lora", NULL, "output.weight.lora_a", "output_norm.weight", "whole tensors (norms)",
         STATUS_UNSUPPORTED},
        {"adapter", "lora", NULL, "blk.0.attn_q.weight.lora_a", "blk.1.attn_q.weight.lora_b",
         "other half is missing", STATUS_FORMAT},
        {"adapter", "lora", NULL, "blk.0.attn_q.weight.lora_a", "blk.00.attn_q.weight.lora_a",
         "no module 'blk.00.attn_q'", STATUS_MISMATCH},
    };
    struct folder f = folder_make();
    char path[100];
    snprintf(path, sizeof path, "%s/x.gguf", f.path);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf b;
        struct error err = {0};
        struct adapter_report report;
        put_lora(&b, cases[i].type, cases[i].kind, cases[i].key);
        put_lora_tensors(&b, cases[i].a, cases[i].b, 0);
        put_file(f.path, "x.gguf", b.data, b.length);
        buf_fini(&b);
        enum status s = adapter_inspect(path, &report, &err);
        if (s != cases[i].status || (cases[i].text && !strstr(err.text, cases[i].text)))
            fail_msg("case %zu: got %s '%s', expected '%s'", i, status_name(s), err.text,
                     cases[i].text ? cases[i].text : "success");
        if (s == STATUS_OK) {
            assert_string_equal(report.format, "gguf");
            assert_int_equal(report.rank_max, 4);
            assert_true(report.alpha == 16);
        }
        assert_int_equal(adapter_is_at(path), strcmp(cases[i].type, "adapter") == 0);
    }
    folder_remove(&f);
}

/* ---- a directory */

static void note_found(const char *name, const char *path, void *data)
{
    (void)path;
    buf_printf(data, "+%s ", name);
}

static void note_skipped(const char *entry, const char *why, void *data)
{
    buf_printf(data, "-%s(%.12s) ", entry, why);
}

static void a_directory_is_scanned_in_order(void **state)
{
    (void)state;
    static const char *const folders[] = {"pt", "de", "no-adapter", "bad name", ".half-written"};
    struct folder f = folder_make();
    struct buf b, notes;
    struct error err;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", f.path, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
        if (i != 2)
            put_text(path, "adapter_config.json", CONFIG);
    }
    put_lora(&b, "adapter", "lora", NULL);
    put_lora_tensors(&b, "blk.2.attn_q.weight.lora_a", "blk.2.attn_q.weight.lora_b", 0);
    put_file(f.path, "bike.gguf", b.data, b.length);
    buf_fini(&b);
    put_text(f.path, "broken.gguf", "GGUF");
    put_text(f.path, "notes.txt", "x");
    buf_init(&notes, 0);
    assert_int_equal(adapters_scan(f.path, note_found, note_skipped, &notes, &err), STATUS_OK);
    assert_string_equal(notes.data, "-bad name(its name is ) +bike -broken.gguf(not a GGUF a) +de "
                                    "-no-adapter(no adapter_c) -notes.txt(neither a fo) +pt ");
    buf_fini(&notes);
    assert_int_equal(adapters_scan("/nowhere/at/all", note_found, NULL, NULL, &err), STATUS_NOT_FOUND);
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_can_not_matter_is_ignored),
        cmocka_unit_test(what_is_read_is_kept),
        cmocka_unit_test(what_would_matter_is_refused_by_name),
        cmocka_unit_test(alpha_patterns_match_as_peft_does),
        cmocka_unit_test(wrong_folders_get_their_error),
        cmocka_unit_test(infinite_values_are_refused),
        cmocka_unit_test(a_sound_folder_is_described),
        cmocka_unit_test(gguf_loras_are_checked),
        cmocka_unit_test(a_directory_is_scanned_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
