/* adapter_config.json: what it asks for, and what of it we don't do.
 *
 * PEFT writes some forty keys. Each is in exactly one of three classes: read, without effect at inference, or
 * refused unless it has the value that switches it off. A key that we have never seen is refused too, unless
 * it is plainly off: a new variant's switch must not be overlooked. Files of older versions lack keys: an
 * absent one has PEFT's default. (PEFT 0.21, tuners/lora/config.py.) */
#include "peft_config.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"

#define INVOCATION_MAX 4096U

/* What may stand in a key without changing anything. */
enum key_class {
    KEY_NO_EFFECT, /* training only, bookkeeping, or implied by the tensors that exist */
    KEY_READ,      /* by peft_config_parse below, or by peft_rules */
    KEY_OFF,       /* must be null, false, or empty */
    KEY_NULL,      /* must be null or false: an empty object switches it on */
};

static const struct {
    const char *key;
    enum key_class class;
    const char *advice; /* of KEY_OFF and KEY_NULL */
} keys[] = {
    {"peft_type", KEY_READ, NULL},
    {"r", KEY_READ, NULL},
    {"lora_alpha", KEY_READ, NULL},
    {"rank_pattern", KEY_READ, NULL},
    {"alpha_pattern", KEY_READ, NULL},
    {"use_rslora", KEY_READ, NULL},
    {"use_dora", KEY_READ, NULL},
    {"lora_bias", KEY_READ, NULL},
    {"bias", KEY_READ, NULL},
    {"base_model_name_or_path", KEY_READ, NULL},
    {"init_lora_weights", KEY_READ, NULL},
    {"ensure_weight_tying", KEY_READ, NULL},
    {"target_modules", KEY_READ, NULL},
    {"target_parameters", KEY_READ, NULL},
    {"exclude_modules", KEY_READ, NULL},
    {"layers_to_transform", KEY_READ, NULL},
    {"layers_pattern", KEY_READ, NULL},
    {"modules_to_save", KEY_READ, NULL},
    {"trainable_token_indices", KEY_READ, NULL},
    {"alora_invocation_tokens", KEY_READ, NULL},
    {"fan_in_fan_out", KEY_NO_EFFECT, NULL}, /* the tensors are [r, in] and [out, r] all the same */
    {"lora_dropout", KEY_NO_EFFECT, NULL},
    {"auto_mapping", KEY_NO_EFFECT, NULL},
    {"revision", KEY_NO_EFFECT, NULL},
    {"task_type", KEY_NO_EFFECT, NULL},
    {"inference_mode", KEY_NO_EFFECT, NULL},
    {"peft_version", KEY_NO_EFFECT, NULL},
    {"megatron_core", KEY_NO_EFFECT, NULL},
    {"qalora_group_size", KEY_NO_EFFECT, NULL},
    {"runtime_config", KEY_NO_EFFECT, NULL},
    {"loftq_config", KEY_NO_EFFECT, NULL}, /* what it and the next two did is told by init_lora_weights */
    {"corda_config", KEY_NO_EFFECT, NULL},
    {"lora_ga_config", KEY_NO_EFFECT, NULL},
    {"eva_config", KEY_NO_EFFECT, NULL},
    {"velora_config", KEY_NO_EFFECT, NULL},
    {"layer_replication", KEY_OFF, "it changes the base's layers; not supported"},
    {"megatron_config", KEY_OFF, "Megatron layers are not supported"},
    {"kasa_config", KEY_NULL, "KaSA changes the base's weights; not supported"},
    {"arrow_config", KEY_NULL, "Arrow routing is not supported"},
    {"monteclora_config", KEY_NULL, "MonteCLoRA is not supported"},
    {"use_bdlora", KEY_NULL, "block-diagonal LoRA is not supported"},
    {"use_qalora", KEY_OFF, "QALoRA is not supported"},
    {"invocation_string", KEY_OFF,
     "an activated LoRA of an older kind; write its token ids to alora_invocation_tokens"},
};

static bool is_null(const json_t *v)
{
    return !v || json_is_null(v) || json_is_false(v);
}

static bool is_off(const json_t *v)
{
    return is_null(v) || (json_is_object(v) && json_object_size(v) == 0) ||
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
        enum key_class class = known ? keys[i].class : KEY_OFF;
        if (class <= KEY_READ || (class == KEY_OFF && is_off(value)) || is_null(value))
            continue;
        return fail(err, STATUS_UNSUPPORTED, "%s: %.60s is set: %s", shown, key,
                    known ? keys[i].advice : "a field that we don't know and that could change the numbers");
    }
    return STATUS_OK;
}

/* Starts that leave the base as it is are fine. The others put a part of each weight into A and B and keep
 * the rest as the base: such a file is no difference to the original base. */
static enum status check_init(const json_t *config, const char *shown, struct error *err)
{
    static const char *const harmless[] = {"gaussian", "eva", "orthogonal", "mica"};
    const json_t *v = json_object_get(config, "init_lora_weights");
    if (!v || json_is_boolean(v) || json_is_null(v))
        return STATUS_OK;
    const char *text = json_string_value(v);
    for (size_t i = 0; text && i < sizeof harmless / sizeof *harmless; i++)
        if (strcasecmp(text, harmless[i]) == 0)
            return STATUS_OK;
    if (text && strcasecmp(text, "loftq") == 0)
        return fail(
            err, STATUS_UNSUPPORTED,
            "%s: init_lora_weights is 'loftq': this adapter belongs to the base that LoftQ rounded, not to "
            "the original; serve that base (save it with base.save_pretrained) and set init_lora_weights "
            "to true here",
            shown);
    return fail(
        err, STATUS_UNSUPPORTED,
        "%s: init_lora_weights is '%.40s': this start changes the base's weights, so the files alone are "
        "no LoRA; convert: save with save_pretrained(path, path_initial_model_for_weight_conversion=…), or "
        "serve "
        "the residual base and set init_lora_weights to true",
        shown, text ? text : "no name");
}

static enum status read_bias(const json_t *config, const char *shown, enum peft_bias *out, struct error *err)
{
    static const char *const names[] = {"none", "all", "lora_only"};
    const json_t *v = json_object_get(config, "bias");
    const char *text = json_string_value(v);
    *out = PEFT_BIAS_NONE;
    if (!v || json_is_null(v))
        return STATUS_OK;
    for (size_t i = 0; text && i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0) {
            *out = (enum peft_bias)i;
            return STATUS_OK;
        }
    return fail(err, STATUS_UNSUPPORTED, "%s: bias is '%.40s', expected none, all or lora_only", shown,
                text ? text : "no string");
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

static enum status read_flags(const json_t *config, const char *shown, struct peft_config *out,
                              struct error *err)
{
    const struct {
        const char *key;
        bool *out;
    } flags[] = {{"use_rslora", &out->rslora},
                 {"use_dora", &out->dora},
                 {"lora_bias", &out->lora_bias},
                 {"ensure_weight_tying", &out->ties_weights}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        enum status s = read_flag(config, flags[i].key, shown, flags[i].out, err);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

static enum status read_invocation(const json_t *config, const char *shown, struct peft_config *out,
                                   struct error *err)
{
    const json_t *v = json_object_get(config, "alora_invocation_tokens");
    size_t n = json_array_size(v);
    if (is_off(v))
        return STATUS_OK;
    if (!json_is_array(v) || n > INVOCATION_MAX)
        return fail(err, STATUS_FORMAT, "%s: alora_invocation_tokens is no list of 1 to %u token ids", shown,
                    INVOCATION_MAX);
    out->invocation = mem_array(n, sizeof *out->invocation);
    if (!out->invocation)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", shown);
    out->n_invocation = n;
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(v, i);
        json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id > INT32_MAX)
            return fail(err, STATUS_FORMAT, "%s: alora_invocation_tokens: item %zu is no token id", shown, i);
        out->invocation[i] = (int32_t)id;
    }
    return STATUS_OK;
}

static enum status read_tokens(const json_t *config, const char *shown, struct peft_config *out,
                               struct error *err)
{
    json_t *v = json_object_get(config, "trainable_token_indices");
    if (is_off(v))
        return STATUS_OK;
    if (!json_is_array(v) && !json_is_object(v))
        return fail(err, STATUS_FORMAT, "%s: trainable_token_indices is neither a list nor an object", shown);
    out->tokens = json_incref(v);
    return STATUS_OK;
}

static enum status read_values(const json_t *config, const char *shown, struct peft_config *out,
                               struct error *err)
{
    enum status s = read_number(config, "r", 8, shown, &out->rank, err);
    if (s == STATUS_OK)
        s = read_number(config, "lora_alpha", 8, shown, &out->alpha, err);
    if (s == STATUS_OK)
        s = read_bias(config, shown, &out->bias, err);
    if (s == STATUS_OK)
        s = read_flags(config, shown, out, err);
    if (s == STATUS_OK)
        s = read_invocation(config, shown, out, err);
    if (s == STATUS_OK)
        s = read_tokens(config, shown, out, err);
    return s;
}

enum status peft_config_parse(json_t *config, const char *shown, struct peft_config *out, struct error *err)
{
    memset(out, 0, sizeof *out);
    if (!json_is_object(config))
        return fail(err, STATUS_FORMAT, "%s: not a JSON object", shown);
    const char *type = json_string_value(json_object_get(config, "peft_type"));
    if (!type || strcmp(type, "LORA") != 0)
        return fail(err, STATUS_UNSUPPORTED, "%s: peft_type is '%.40s', expected LORA", shown,
                    type ? type : "missing");
    enum status s = check_init(config, shown, err);
    if (s == STATUS_OK)
        s = check_keys(config, shown, err);
    if (s == STATUS_OK)
        s = read_values(config, shown, out, err);
    if (s == STATUS_OK)
        s = peft_rules_create(config, shown, &out->rules, err);
    if (s != STATUS_OK)
        return s;
    if (out->dora && out->lora_bias)
        return fail(err, STATUS_UNSUPPORTED, "%s: use_dora and lora_bias are both set, which PEFT can't do",
                    shown);
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
    peft_rules_destroy(c->rules);
    json_decref(c->tokens);
    mem_free(c->invocation);
    c->rules = NULL;
    c->tokens = NULL;
    c->invocation = NULL;
}

enum status peft_scale(const struct peft_config *c, const char *path, double rank, double *out,
                       struct error *err)
{
    double alpha = c->alpha;
    enum status s = peft_pattern_alpha(c->rules, path, &alpha, err);
    *out = alpha / (c->rslora ? sqrt(rank) : rank);
    return s;
}

enum status peft_rank_fits(const struct peft_config *c, const char *path, double rank, bool *fits,
                           double *expected, struct error *err)
{
    struct peft_rank_found found;
    enum status s = peft_pattern_rank(c->rules, path, rank, &found, err);
    *expected = found.any ? found.first : c->rank;
    *fits = found.any ? found.fits : rank == c->rank;
    return s;
}
