/* adapter_config.json: what it asks for, and what of it we don't do.
 *
 * PEFT writes some forty keys. Each is in exactly one of three classes: read, without effect at inference, or
 * refused unless it has the value that switches it off. A key that we have never seen is refused too, unless
 * it is plainly off: a new variant's switch must not be overlooked. (PEFT 0.21, tuners/lora/config.py.) */
#include "peft_config.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/mem.h"

#define PATTERNS_MAX 2048
#define PATTERN_BYTES_MAX 1024
#define MATCH_STEPS_MAX 100000U
#define MATCH_HEAP_KIB 1024U

struct alpha_pattern {
    pcre2_code *code;
    const char *text;
    double alpha;
};
struct alpha_patterns {
    pcre2_match_context *match;
    struct json_t *names; /* keeps the patterns' texts alive */
    size_t n;
    struct alpha_pattern items[];
};

/* What may stand in a key without changing anything. */
enum key_class {
    KEY_NO_EFFECT, /* training only, bookkeeping, or implied by the tensors that exist */
    KEY_READ,      /* by peft_config_parse below */
    KEY_OFF,       /* must be null, false, or empty */
};

static const struct {
    const char *key;
    enum key_class class;
    const char *advice; /* of KEY_OFF */
} keys[] = {
    {"peft_type", KEY_READ, NULL},
    {"r", KEY_READ, NULL},
    {"lora_alpha", KEY_READ, NULL},
    {"rank_pattern", KEY_READ, NULL},
    {"alpha_pattern", KEY_READ, NULL},
    {"use_rslora", KEY_READ, NULL},
    {"base_model_name_or_path", KEY_READ, NULL},
    {"bias", KEY_READ, NULL},
    {"init_lora_weights", KEY_READ, NULL},
    {"ensure_weight_tying", KEY_READ, NULL},
    {"target_modules", KEY_NO_EFFECT, NULL},
    {"exclude_modules", KEY_NO_EFFECT, NULL},
    {"layers_to_transform", KEY_NO_EFFECT, NULL},
    {"layers_pattern", KEY_NO_EFFECT, NULL},
    {"fan_in_fan_out", KEY_NO_EFFECT, NULL},
    {"lora_dropout", KEY_NO_EFFECT, NULL},
    {"auto_mapping", KEY_NO_EFFECT, NULL},
    {"revision", KEY_NO_EFFECT, NULL},
    {"task_type", KEY_NO_EFFECT, NULL},
    {"inference_mode", KEY_NO_EFFECT, NULL},
    {"peft_version", KEY_NO_EFFECT, NULL},
    {"megatron_core", KEY_NO_EFFECT, NULL},
    {"qalora_group_size", KEY_NO_EFFECT, NULL},
    {"runtime_config", KEY_NO_EFFECT, NULL},
    {"loftq_config", KEY_NO_EFFECT, NULL},
    {"eva_config", KEY_NO_EFFECT, NULL},
    {"corda_config", KEY_NO_EFFECT, NULL},   /* what it did to the base is told by init_lora_weights */
    {"lora_ga_config", KEY_NO_EFFECT, NULL}, /* the same */
    {"velora_config", KEY_NO_EFFECT, NULL},
    {"use_dora", KEY_OFF, "DoRA is not supported yet; merge it, or train with use_dora=false"},
    {"lora_bias", KEY_OFF, "biases on lora_B are not supported yet; train with lora_bias=false"},
    {"modules_to_save", KEY_OFF,
     "whole replaced modules are not supported yet; train without modules_to_save"},
    {"trainable_token_indices", KEY_OFF, "replaced embedding rows are not supported yet; train without them"},
    {"target_parameters", KEY_OFF, "LoRA on bare parameters (experts) is not supported yet"},
    {"alora_invocation_tokens", KEY_OFF, "activated LoRA is not supported yet; train a plain LoRA"},
    {"layer_replication", KEY_OFF, "it changes the base's layers; not supported"},
    {"megatron_config", KEY_OFF, "Megatron layers are not supported"},
    {"kasa_config", KEY_OFF, "KaSA changes the base's weights; not supported"},
    {"arrow_config", KEY_OFF, "Arrow routing is not supported"},
    {"monteclora_config", KEY_OFF, "MonteCLoRA is not supported"},
    {"use_bdlora", KEY_OFF, "block-diagonal LoRA is not supported"},
    {"use_qalora", KEY_OFF, "QALoRA is not supported"},
};

static bool is_off(const json_t *v)
{
    return !v || json_is_null(v) || json_is_false(v) || (json_is_object(v) && json_object_size(v) == 0) ||
           (json_is_array(v) && json_array_size(v) == 0);
}

static enum status check_keys(const json_t *config, const char *shown, struct error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)config, key, value)
    {
        size_t i = 0;
        while (i < sizeof keys / sizeof *keys && strcmp(keys[i].key, key) != 0)
            i++;
        bool known = i < sizeof keys / sizeof *keys;
        if ((known && keys[i].class != KEY_OFF) || is_off(value))
            continue;
        return fail(err, STATUS_UNSUPPORTED, "%s: %.60s is set: %s", shown, key,
                    known ? keys[i].advice : "a field that we don't know and that could change the numbers");
    }
    return STATUS_OK;
}

static enum status check_init(const json_t *config, const char *shown, struct error *err)
{
    static const char *const harmless[] = {"gaussian", "eva", "orthogonal", "mica"};
    const json_t *v = json_object_get(config, "init_lora_weights");
    if (!v || json_is_boolean(v) || json_is_null(v))
        return STATUS_OK;
    const char *text = json_string_value(v);
    for (size_t i = 0; text && i < sizeof harmless / sizeof *harmless; i++)
        if (strcmp(text, harmless[i]) == 0)
            return STATUS_OK;
    return fail(
        err, STATUS_UNSUPPORTED,
        "%s: init_lora_weights is '%.40s': this start changes the base's weights, so the files alone are "
        "no LoRA; save with save_pretrained(path_initial_model_for_weight_conversion=…)",
        shown, text ? text : "no name");
}

static enum status check_fixed(const json_t *config, const char *shown, struct error *err)
{
    const char *type = json_string_value(json_object_get(config, "peft_type"));
    const json_t *bias = json_object_get(config, "bias");
    const char *bias_text = json_string_value(bias);
    if (!type || strcmp(type, "LORA") != 0)
        return fail(err, STATUS_UNSUPPORTED, "%s: peft_type is '%.40s', expected LORA", shown,
                    type ? type : "missing");
    if (bias && !json_is_null(bias) && (!bias_text || strcmp(bias_text, "none") != 0))
        return fail(err, STATUS_UNSUPPORTED,
                    "%s: bias is '%.40s': trained biases are not supported yet; train with "
                    "bias=\"none\"",
                    shown, bias_text ? bias_text : "no string");
    return check_init(config, shown, err);
}

static enum status read_number(const json_t *config, const char *key, double fallback, const char *shown,
                               double *out, struct error *err)
{
    const json_t *v = json_object_get(config, key);
    *out = fallback;
    if (!v || json_is_null(v))
        return STATUS_OK;
    *out = json_number_value(v);
    if (!json_is_number(v) || !isfinite(*out) || fabs(*out) > 1e6)
        return fail(err, STATUS_FORMAT, "%s: %s is not a sensible number", shown, key);
    return STATUS_OK;
}

static enum status read_flag(const json_t *config, const char *key, const char *shown, bool *out,
                             struct error *err)
{
    const json_t *v = json_object_get(config, key);
    if (v && !json_is_null(v) && !json_is_boolean(v))
        return fail(err, STATUS_FORMAT, "%s: %s is neither true nor false", shown, key);
    *out = json_is_true(v);
    return STATUS_OK;
}

/* `(.*\.)?(KEY)$`, to be matched from the beginning, with KEY in PEFT's (Python's) dialect; PCRE2's is a
 * superset in all that module patterns use. */
static enum status compile(const char *key, const char *shown, pcre2_code **out, struct error *err)
{
    char text[PATTERN_BYTES_MAX + 16];
    int code;
    PCRE2_SIZE at;
    size_t n = strlen(key);
    if (n > PATTERN_BYTES_MAX)
        return fail(err, STATUS_TOO_LARGE, "%s: alpha_pattern: a pattern of %zu bytes, at most %d", shown, n,
                    PATTERN_BYTES_MAX);
    snprintf(text, sizeof text, "(.*\\.)?(%s)$", key);
    *out = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
                         PCRE2_ANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    if (*out)
        return STATUS_OK;
    PCRE2_UCHAR why[120] = "";
    pcre2_get_error_message(code, why, sizeof why);
    return fail(err, STATUS_FORMAT, "%s: alpha_pattern '%.100s': %s", shown, key, (const char *)why);
}

static enum status read_patterns(const json_t *config, const char *shown, struct peft_config *out,
                                 struct error *err)
{
    json_t *object = json_object_get(config, "alpha_pattern"), *value;
    const char *key;
    if (is_off(object))
        return STATUS_OK;
    size_t n = json_object_size(object);
    if (!json_is_object(object))
        return fail(err, STATUS_FORMAT, "%s: alpha_pattern is not an object", shown);
    if (n > PATTERNS_MAX)
        return fail(err, STATUS_TOO_LARGE, "%s: alpha_pattern has %zu patterns, at most %d", shown, n,
                    PATTERNS_MAX);
    struct alpha_patterns *p = mem_zalloc(sizeof *p + n * sizeof p->items[0]);
    if (!p)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", shown);
    out->patterns = p;
    p->names = json_incref(object);
    p->match = pcre2_match_context_create(NULL);
    if (!p->match)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", shown);
    pcre2_set_match_limit(p->match, MATCH_STEPS_MAX);
    pcre2_set_depth_limit(p->match, MATCH_STEPS_MAX);
    pcre2_set_heap_limit(p->match, MATCH_HEAP_KIB);
    json_object_foreach(object, key, value) /* jansson keeps the file's order */
    {
        struct alpha_pattern *item = &p->items[p->n];
        item->text = key;
        item->alpha = json_number_value(value);
        if (!json_is_number(value) || !isfinite(item->alpha))
            return fail(err, STATUS_FORMAT, "%s: alpha_pattern: '%.100s' is not a number", shown, key);
        enum status s = compile(key, shown, &item->code, err);
        if (s != STATUS_OK)
            return s;
        p->n++;
    }
    return STATUS_OK;
}

enum status peft_config_parse(const json_t *config, const char *shown, struct peft_config *out,
                              struct error *err)
{
    memset(out, 0, sizeof *out);
    if (!json_is_object(config))
        return fail(err, STATUS_FORMAT, "%s: not a JSON object", shown);
    enum status s = check_fixed(config, shown, err);
    if (s == STATUS_OK)
        s = check_keys(config, shown, err);
    if (s == STATUS_OK)
        s = read_number(config, "r", 8, shown, &out->rank, err);
    if (s == STATUS_OK)
        s = read_number(config, "lora_alpha", 8, shown, &out->alpha, err);
    if (s == STATUS_OK)
        s = read_flag(config, "use_rslora", shown, &out->rslora, err);
    if (s == STATUS_OK)
        s = read_flag(config, "ensure_weight_tying", shown, &out->ties_weights, err);
    if (s == STATUS_OK)
        s = read_patterns(config, shown, out, err);
    if (s != STATUS_OK)
        return s;
    out->has_rank_pattern = !is_off(json_object_get(config, "rank_pattern"));
    const char *base = json_string_value(json_object_get(config, "base_model_name_or_path"));
    size_t n = base ? strlen(base) : 0;
    if (n >= sizeof out->base_model)
        n = sizeof out->base_model - 1;
    if (n)
        memcpy(out->base_model, base, n);
    return STATUS_OK;
}

void peft_config_fini(struct peft_config *c)
{
    struct alpha_patterns *p = c->patterns;
    c->patterns = NULL;
    if (!p)
        return;
    for (size_t i = 0; i < p->n; i++)
        pcre2_code_free(p->items[i].code);
    pcre2_match_context_free(p->match);
    json_decref(p->names);
    mem_free(p);
}

enum status peft_alpha(const struct peft_config *c, const char *path, double *out, struct error *err)
{
    *out = c->alpha;
    for (size_t i = 0; c->patterns && i < c->patterns->n; i++) {
        const struct alpha_pattern *item = &c->patterns->items[i];
        pcre2_match_data *found = pcre2_match_data_create(1, NULL);
        if (!found)
            return fail(err, STATUS_NO_MEMORY, "no memory to match alpha_pattern");
        int n =
            pcre2_match(item->code, (PCRE2_SPTR)path, PCRE2_ZERO_TERMINATED, 0, 0, found, c->patterns->match);
        pcre2_match_data_free(found);
        if (n >= 0) {
            *out = item->alpha;
            return STATUS_OK;
        }
        if (n != PCRE2_ERROR_NOMATCH)
            return fail(err, STATUS_UNSUPPORTED,
                        "alpha_pattern '%.100s' takes too long to match (or fails: %d)", item->text, n);
    }
    return STATUS_OK;
}
