/* The rotary part of a config.json: three styles of writing it, one description.
 *
 *   transformers 5        "rope_parameters": {"rope_type", "rope_theta", …}
 *   … per layer type      "rope_parameters": {"full_attention": {…}, "sliding_attention": {…}}
 *   transformers 4        "rope_theta": …, "rope_scaling": {"rope_type" or "type", …} or null
 *
 * Names, defaults and their order of precedence: transformers 5.23, modeling_rope_utils.py. Types and keys
 * that we don't know are refused: a wrong rotation is fluent nonsense. */
#include <math.h>
#include <string.h>

#include "model_config.h"

void rope_config_init(struct rope_config *r, double theta)
{
    memset(r, 0, sizeof *r);
    r->type = ROPE_DEFAULT;
    r->theta = theta;
    r->factor = 1;
    r->beta_fast = 32;
    r->beta_slow = 1;
    r->truncate = true;
    r->partial_factor = 1;
}

static const struct {
    const char *name;
    enum rope_type type;
} types[] = {{"default", ROPE_DEFAULT}, {"linear", ROPE_LINEAR}, {"dynamic", ROPE_DYNAMIC},
             {"llama3", ROPE_LLAMA3},   {"yarn", ROPE_YARN},     {"longrope", ROPE_LONGROPE},
             {"su", ROPE_LONGROPE}};

static void read_type(struct fields *f, bool phi3, struct rope_config *r)
{
    const char *key = field_get(f, "rope_type") ? "rope_type" : "type";
    const char *name = field_text(f, key, "default");
    /* phi3's first configs call longrope "yarn". */
    if (phi3 && strcmp(name, "yarn") == 0)
        name = "longrope";
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, name) == 0) {
            r->type = types[i].type;
            return;
        }
    }
    field_fail(f, STATUS_UNSUPPORTED, key, "is '%.40s': this rotary scaling is not supported", name);
}

static void refuse_unknown_keys(struct fields *f)
{
    static const char *const known[] = {
        "rope_type", "type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor",
        "attention_factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale",
        "mscale_all_dim", "truncate", "partial_rotary_factor", "long_factor", "short_factor",
        /* no effect on the numbers: */
        "finetuned", "long_mscale", "short_mscale"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)f->object, key, value)
    {
        bool found = json_is_null(value);
        for (size_t i = 0; i < sizeof known / sizeof *known && !found; i++)
            found = strcmp(known[i], key) == 0;
        if (!found)
            field_fail(f, STATUS_UNSUPPORTED, key, "is not a rotary parameter that we know");
    }
}

static void read_factors(struct fields *f, const char *key, uint32_t n, float *out)
{
    const json_t *list = field_get(f, key);
    if (json_array_size(list) != n) {
        field_fail(f, STATUS_FORMAT, key, "has %zu numbers, expected %u (half the rotated dimensions)",
                   json_array_size(list), n);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        double v = json_number_value(json_array_get(list, i));
        if (!(v > 0) || v > 1e9)
            field_fail(f, STATUS_FORMAT, key, "[%u] is no positive number", i);
        out[i] = (float)v;
    }
}

static void need(struct fields *f, const char *key)
{
    if (!field_get(f, key))
        field_fail(f, STATUS_FORMAT, key, "is missing for this rope_type");
}

/* One rotary object over what `r` has already. */
static void read_one(struct fields *f, const struct model_config *c, double config_original,
                     struct rope_config *r)
{
    refuse_unknown_keys(f);
    read_type(f, strcmp(c->model_type, "phi3") == 0, r);
    r->theta = field_f64(f, "rope_theta", r->theta, 1e-3, 1e15);
    r->partial_factor = field_f64(f, "partial_rotary_factor", r->partial_factor, 1e-6, 1);
    r->low_freq_factor = field_f64(f, "low_freq_factor", 0, 1e-9, 1e9);
    r->high_freq_factor = field_f64(f, "high_freq_factor", 0, 1e-9, 1e9);
    r->attention_factor = field_f64(f, "attention_factor", 0, 0, 1e9);
    r->mscale = field_f64(f, "mscale", 0, 0, 1e9);
    r->mscale_all_dim = field_f64(f, "mscale_all_dim", 0, 0, 1e9);
    r->beta_fast = field_f64(f, "beta_fast", 32, 0, 1e9);
    r->beta_slow = field_f64(f, "beta_slow", 1, 0, 1e9);
    r->beta_fast = r->beta_fast > 0 ? r->beta_fast : 32; /* as transformers: 0 means the default */
    r->beta_slow = r->beta_slow > 0 ? r->beta_slow : 1;
    r->truncate = field_bool(f, "truncate", true);
    if (r->type == ROPE_LLAMA3 || r->type == ROPE_YARN || r->type == ROPE_LONGROPE) {
        r->original_max_position = field_f64(f, "original_max_position_embeddings", c->max_position, 1, 1e12);
        if (config_original > 0)
            r->original_max_position = config_original;
        r->factor = c->max_position / r->original_max_position;
    }
    r->factor = field_f64(f, "factor", r->factor, 1e-6, 1e9);
    if (r->type == ROPE_LINEAR || r->type == ROPE_DYNAMIC || r->type == ROPE_LLAMA3)
        need(f, "factor");
    if (r->type == ROPE_LLAMA3) {
        need(f, "low_freq_factor");
        need(f, "high_freq_factor");
        if (f->status == STATUS_OK && r->high_freq_factor <= r->low_freq_factor)
            field_fail(f, STATUS_FORMAT, "high_freq_factor", "is not above low_freq_factor");
    }
    if (r->type == ROPE_LONGROPE) {
        uint32_t n = (uint32_t)(c->head_dim * r->partial_factor) / 2;
        if (n == 0 || n > CONFIG_ROPE_FACTORS_MAX) {
            field_fail(f, STATUS_UNSUPPORTED, "long_factor",
                       "would have %u numbers, at most %d are supported", n, CONFIG_ROPE_FACTORS_MAX);
            return;
        }
        r->n_factors = n;
        read_factors(f, "long_factor", n, r->long_factors);
        read_factors(f, "short_factor", n, r->short_factors);
    }
}

static void read_section(struct fields *f, const json_t *object, const char *section,
                         const struct model_config *c, struct rope_config *r)
{
    struct fields inner = *f;
    inner.object = object;
    inner.section = section;
    double original = field_f64(f, "original_max_position_embeddings", 0, 1, 1e12);
    if (!json_is_object(object))
        field_fail(f, STATUS_FORMAT, section, "is not an object");
    else if (f->status == STATUS_OK) {
        read_one(&inner, c, original, r);
        f->status = inner.status;
    }
}

void model_config_read_rope(struct fields *f, double theta_default, struct model_config *out)
{
    const json_t *parameters = field_get(f, "rope_parameters"), *scaling = field_get(f, "rope_scaling");
    bool gemma3 = strcmp(out->model_type, "gemma3_text") == 0;
    rope_config_init(&out->rope, field_f64(f, "rope_theta", theta_default, 1e-3, 1e15));
    out->rope.partial_factor = field_f64(f, "partial_rotary_factor", 1, 1e-6, 1);
    const json_t *full = json_object_get(parameters, "full_attention"),
                 *local = json_object_get(parameters, "sliding_attention");
    bool nested = full || local;
    out->rope_local = out->rope;
    if (gemma3)
        out->rope_local.theta = field_f64(f, "rope_local_base_freq", 1e4, 1e-3, 1e15);
    if (nested) {
        if (full && !json_is_null(full))
            read_section(f, full, "rope_parameters.full_attention.", out, &out->rope);
        if (local && !json_is_null(local))
            read_section(f, local, "rope_parameters.sliding_attention.", out, &out->rope_local);
    }
    /* An empty rope_scaling says nothing; otherwise the old name wins over the new one. */
    if (scaling && json_object_size(scaling))
        read_section(f, scaling, "rope_scaling.", out, &out->rope);
    else if (scaling && !json_is_object(scaling))
        field_fail(f, STATUS_FORMAT, "rope_scaling", "is not an object");
    else if (parameters && !nested)
        read_section(f, parameters, "rope_parameters.", out, &out->rope);
    if (!gemma3 && !nested)
        out->rope_local = out->rope;
}
