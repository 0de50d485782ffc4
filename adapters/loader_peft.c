/* A PEFT folder: adapter_config.json and adapter_model.safetensors (one file, or an index and shards).
 *
 *     base_model.model.<module path>.lora_A.weight    [r, in]
 *     base_model.model.<module path>.lora_B.weight    [out, r]
 *
 * and what else `suffixes` lists. The tensors are the truth about which modules are adapted; the config says
 * how they are scaled, and must agree. PEFT itself shrugs at halves, surplus tensors and wrong prefixes (it
 * warns, or says nothing); we refuse each by its name, because the result would be another adapter than the
 * trained one. (PEFT 0.21: utils/save_and_load.py, tuners/lora/model.py, utils/other.py.) */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "loader.h"
#include "peft.h"

#define PATH_BYTES 512U

/* What a key's ending says; the first that fits. PART_COUNT: passed over, a copy that nothing was trained in.
 */
static const struct {
    const char *text;
    enum part part;
} suffixes[] = {
    {".lora_A.weight", PART_A},
    {".lora_B.weight", PART_B},
    {".lora_B.bias", PART_B_BIAS},
    {".lora_magnitude_vector", PART_MAGNITUDE},
    {".lora_magnitude_vector.weight", PART_MAGNITUDE}, /* its name in memory */
    {".lora_embedding_A", PART_EMBED_A},
    {".lora_embedding_B", PART_EMBED_B},
    {".token_adapter.trainable_tokens_delta", PART_ROWS},
    {".token_adapter.trainable_tokens_original", PART_COUNT},
    {".token_adapter.base_layer.weight", PART_BASE_COPY},
    {".base_layer.weight", PART_BASE_COPY}, /* PEFT adds it for embeddings and heads */
    {".base_layer.bias", PART_BIAS},
    {".original_module.weight", PART_COUNT},
    {".original_module.bias", PART_COUNT},
    {".modules_to_save.weight",
     PART_WEIGHT_AGAIN}, /* bias="all" and save_embedding_layers=True write these */
    {".modules_to_save.bias", PART_BIAS_AGAIN},
    {".weight", PART_WEIGHT},
    {".bias", PART_BIAS},
};

static const char prefix[] = "base_model.model.";

/* Some tools write a state_dict as it is in memory, where the adapter's name stands behind PEFT's own parts.
 */
static void drop_adapter_name(char *key)
{
    static const char *const before[] = {".lora_A",
                                         ".lora_B",
                                         ".lora_magnitude_vector",
                                         ".lora_embedding_A",
                                         ".lora_embedding_B",
                                         ".trainable_tokens_delta",
                                         ".modules_to_save",
                                         ".trainable_tokens_original"};
    static const char name[] = ".default";
    for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
        char *at = strstr(key, before[i]);
        char *end = at ? at + strlen(before[i]) : NULL;
        size_t n = sizeof name - 1;
        if (end && strncmp(end, name, n) == 0 && (end[n] == '.' || end[n] == '\0'))
            memmove(end, end + n, strlen(end + n) + 1);
    }
}

static enum status foreign_key(const struct content *c, const char *key, struct error *err)
{
    static const struct {
        const char *begin, *kind;
    } others[] = {{"lora_unet_", "kohya's"},      {"lora_te", "kohya's"},
                  {"unet.", "diffusers'"},        {"transformer.", "diffusers'"},
                  {"text_encoder", "diffusers'"}, {"diffusion_model", "ComfyUI's"}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strncmp(key, others[i].begin, strlen(others[i].begin)) == 0)
            return fail(
                err, STATUS_UNSUPPORTED,
                "%s: tensor '%s' has %s naming: a LoRA of an image model; expected names that begin with "
                "'%s'",
                c->shown, key, others[i].kind, prefix);
    return fail(
        err, STATUS_FORMAT,
        "%s: tensor '%s' does not begin with '%s': save it with PEFT's save_pretrained, or rename the "
        "tensors",
        c->shown, key, prefix);
}

static enum status place_tensor(struct content *c, const struct tensor *t, struct error *err)
{
    char key[PATH_BYTES];
    size_t k = sizeof prefix - 1;
    if (strncmp(t->name, prefix, k) != 0)
        return foreign_key(c, t->name, err);
    size_t n = strlen(t->name + k);
    if (n >= sizeof key)
        return fail(err, STATUS_FORMAT, "%s: tensor '%.60s…' has a name of %zu bytes, at most %u", c->shown,
                    t->name, n + k, PATH_BYTES - 1);
    memcpy(key, t->name + k, n + 1);
    drop_adapter_name(key);
    n = strlen(key);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t m = strlen(suffixes[i].text);
        if (n <= m || strcmp(key + n - m, suffixes[i].text) != 0)
            continue;
        key[n - m] = '\0';
        if (strstr(key, ".lora_"))
            break;
        return suffixes[i].part == PART_COUNT ? STATUS_OK : content_put(c, key, suffixes[i].part, t, err);
    }
    return fail(err, STATUS_UNSUPPORTED,
                "%s: tensor '%s' is of no kind that we know (lora_A.weight, lora_B.weight and so on)",
                c->shown, t->name);
}

/* ---- pairs */

enum status peft_pair_scale(const struct peft *p, const char *path, const char *tensor, uint64_t rank,
                            float *scale, struct error *err)
{
    bool fits;
    double expected, value = 0;
    if (rank == 0 || rank > ADAPTER_RANK_MAX)
        return fail(err, STATUS_FORMAT, "%s: tensor '%s' has rank %" PRIu64 ", expected 1 to %d", p->c->shown,
                    tensor, rank, ADAPTER_RANK_MAX);
    enum status s = peft_rank_fits(&p->config, path, (double)rank, &fits, &expected, err);
    if (s == STATUS_OK && !fits)
        return fail(err, STATUS_MISMATCH,
                    "%s: tensor '%s' has rank %" PRIu64 ", adapter_config.json says r = %g: files of two "
                    "adapters?",
                    p->c->shown, tensor, rank, expected);
    if (s == STATUS_OK)
        s = peft_scale(&p->config, path, (double)rank, &value, err);
    *scale = (float)value;
    return s == STATUS_OK ? s : fail_within(err, "%s", p->c->shown);
}

/* Parts that use_dora and lora_bias announce, neither missing nor surplus. */
static enum status check_extras(const struct peft *p, const struct entry *e, struct error *err)
{
    const struct tensor *m = e->part[PART_MAGNITUDE], *b = e->part[PART_B_BIAS];
    if (!m != !p->config.dora)
        return fail(err, STATUS_FORMAT, "%s: module '%s' has %s lora_magnitude_vector, but use_dora is %s",
                    p->c->shown, e->path, m ? "a" : "no", m ? "false" : "true");
    if (!b != !p->config.lora_bias)
        return fail(err, STATUS_FORMAT, "%s: module '%s' has %s lora_B.bias, but lora_bias is %s",
                    p->c->shown, e->path, b ? "a" : "no", b ? "false" : "true");
    if (e->part[PART_WEIGHT])
        return fail(err, STATUS_FORMAT, "%s: tensor '%s' replaces a module that has LoRA as well: '%s'",
                    p->c->shown, e->part[PART_WEIGHT]->name, entry_tensor_name(e));
    return STATUS_OK;
}

/* The configuration names this module. *pattern_path is what rank_pattern and alpha_pattern are matched with:
 * a module that was adapted as a bare parameter goes by the parameter's name. */
static enum status check_target(const struct peft *p, const struct entry *e, char *pattern_path,
                                struct error *err)
{
    bool targeted;
    snprintf(pattern_path, PATH_BYTES + 8, "%s.weight", e->path);
    if (peft_is_parameter(p->config.rules, pattern_path))
        return STATUS_OK;
    snprintf(pattern_path, PATH_BYTES + 8, "%s", e->path);
    bool head = strcmp(e->path, "lm_head") == 0;
    if (!peft_rules_have_targets(p->config.rules) || (head && p->config.ties_weights))
        return STATUS_OK;
    enum status s = peft_is_targeted(p->config.rules, e->path, head, &targeted, err);
    if (s != STATUS_OK)
        return fail_within(err, "%s", p->c->shown);
    if (targeted || (e->part[PART_EMBED_A] && p->config.ties_weights))
        return STATUS_OK;
    return fail(err, STATUS_MISMATCH,
                "%s: tensor '%s': adapter_config.json does not target module '%s' (target_modules, "
                "exclude_modules, layers_to_transform): PEFT would pass over it",
                p->c->shown, entry_tensor_name(e), e->path);
}

static bool is_conv1d(const struct content *c, const struct model_module *m)
{
    return strcmp(model_config(c->model)->model_type, "gpt2") == 0 && m->kind == MODULE_LINEAR &&
           m->site != LORA_SITE_LM_HEAD;
}

static enum status read_extras(struct peft *p, const struct entry *e, struct lora_pair *pair,
                               struct error *err)
{
    uint32_t n = p->c->model ? pair->module.out : 0;
    enum status s = content_vector(p->c, e->part[PART_B_BIAS], n, &pair->b_bias, err);
    if (s == STATUS_OK)
        s = content_vector(p->c, e->part[PART_MAGNITUDE], n, &pair->magnitude, err);
    return s;
}

/* A module's pair as it is read. */
struct pair_read {
    const struct tensor *a, *b;
    enum module_kind kind;     /* what the module must be */
    struct lora_pair pair;     /* module, scale, bias and magnitude */
    struct pair_values v;      /* A and B */
    char path[PATH_BYTES + 8]; /* what patterns are matched with */
};

static enum status read_values(struct peft *p, const struct entry *e, struct pair_read *r, struct error *err)
{
    struct content *c = p->c;
    r->v.a_name = r->a->name;
    r->v.b_name = r->b->name;
    content_count(c, e, r->a->shape[0]);
    enum status s = content_matrix(c, r->a, &r->v.a, err);
    if (s == STATUS_OK)
        s = content_matrix(c, r->b, &r->v.b, err);
    /* a B of the wrong height is told before its bias is */
    if (s == STATUS_OK && (!c->model || r->v.b.rows == r->pair.module.out))
        s = read_extras(p, e, &r->pair, err);
    return s;
}

static enum status read_pair(struct peft *p, const struct entry *e, struct pair_read *r, struct error *err)
{
    struct content *c = p->c;
    enum status s = content_check_halves(c, e, r->a, r->b, err);
    if (s != STATUS_OK)
        return s;
    require(r->a && r->b);
    s = check_extras(p, e, err);
    if (s == STATUS_OK)
        s = check_target(p, e, r->path, err);
    if (s == STATUS_OK)
        s = peft_pair_scale(p, r->path, r->a->name, r->a->shape[0], &r->pair.scale, err);
    if (s == STATUS_OK && c->model)
        s = content_module(c, e, &r->pair.module, err);
    if (s == STATUS_OK && c->model && r->pair.module.kind != r->kind)
        s = fail(err, STATUS_MISMATCH, "%s: tensor '%s': '%s' is no %s", c->shown, r->a->name, e->path,
                 r->kind == MODULE_EMBED ? "token embedding" : "linear module");
    return s == STATUS_OK ? read_values(p, e, r, err) : s;
}

static enum status keep_pair(struct content *c, const struct entry *e, const struct pair_read *r,
                             struct error *err)
{
    struct file_pair pair = {.path = r->path,
                             .kind = r->kind == MODULE_EMBED ? FILE_PAIR_EMBED : FILE_PAIR_LINEAR,
                             .a_tensor = r->a,
                             .b_tensor = r->b,
                             .bias_tensor = e->part[PART_B_BIAS],
                             .a = r->v.a,
                             .b = r->v.b,
                             .n = 1,
                             .rank = r->v.a.rows,
                             .scale = r->pair.scale,
                             .b_bias = r->pair.b_bias,
                             .magnitude = r->pair.magnitude};
    return content_keep_pair(c, &pair, err);
}

static enum status add_linear(struct peft *p, const struct entry *e, struct error *err)
{
    struct content *c = p->c;
    struct pair_read r = {.a = e->part[PART_A], .b = e->part[PART_B], .kind = MODULE_LINEAR};
    enum status s = read_pair(p, e, &r, err);
    if (s != STATUS_OK || !c->model)
        return s == STATUS_OK ? keep_pair(c, e, &r, err) : s;
    if (strcmp(r.path, e->path) != 0 && is_conv1d(c, &r.pair.module))
        return fail(err, STATUS_UNSUPPORTED,
                    "%s: target_parameters names the weight of '%s', which is stored [in, out]; train with "
                    "target_modules",
                    c->shown, e->path);
    return content_add_pair(c, &r.pair, &r.v, err);
}

static enum status add_embedding(struct peft *p, const struct entry *e, struct error *err)
{
    struct content *c = p->c;
    struct pair_read r = {.a = e->part[PART_EMBED_A], .b = e->part[PART_EMBED_B], .kind = MODULE_EMBED};
    content_kind(c, "embedding");
    enum status s = read_pair(p, e, &r, err);
    if (s != STATUS_OK || !c->model)
        return s == STATUS_OK ? keep_pair(c, e, &r, err) : s;
    s = content_transpose(c, &r.v.a, err);
    return s == STATUS_OK ? content_add_pair(c, &r.pair, &r.v, err) : s;
}

/* ---- whole tensors */

bool peft_is_end(const char *path)
{
    const char *dot = strrchr(path, '.');
    path = dot ? dot + 1 : path;
    return strcmp(path, "lm_head") == 0 || strcmp(path, "embed_tokens") == 0 || strcmp(path, "wte") == 0;
}

/* The weight of an embedding or head may stand there without being asked for: PEFT adds both when the
 * vocabulary was resized, or when it is told to (save_embedding_layers). */
static enum status check_weight(const struct peft *p, const struct entry *e, const struct tensor *t,
                                struct error *err)
{
    if (peft_is_saved(p->config.rules, e->path) || peft_is_end(e->path))
        return STATUS_OK;
    return fail(err, STATUS_MISMATCH,
                "%s: tensor '%s' is a whole weight, but modules_to_save does not name '%s'", p->c->shown,
                t->name, e->path);
}

static enum status check_bias(const struct peft *p, const struct entry *e, const struct tensor *t,
                              struct error *err)
{
    enum peft_bias bias = p->config.bias;
    if (bias == PEFT_BIAS_ALL ||
        (bias == PEFT_BIAS_LORA_ONLY && (e->part[PART_A] || e->part[PART_EMBED_A])) ||
        peft_is_saved(p->config.rules, e->path) || peft_is_end(e->path))
        return STATUS_OK;
    return fail(err, STATUS_MISMATCH,
                "%s: tensor '%s' is a trained bias, but adapter_config.json says bias = %s", p->c->shown,
                t->name, bias == PEFT_BIAS_NONE ? "none" : "lora_only, and its module has no LoRA");
}

static enum status add_vector(struct peft *p, const struct tensor *t, struct lora_tensor *out,
                              struct error *err)
{
    const float *values;
    enum status s = content_vector(p->c, t, 0, &values, err);
    if (s != STATUS_OK || !p->c->model)
        return s;
    out->type = DTYPE_F32;
    out->data = values;
    out->rows = (uint32_t)t->n_values;
    return content_add_tensor(p->c, out, t->name, err);
}

/* On a tied base a weight that was not trained as a module of its own is both: PEFT writes it into the one
 * parameter that embedding and head share. */
static enum status tie_weight(struct peft *p, const struct entry *e, const struct lora_tensor *t,
                              struct error *err)
{
    struct content *c = p->c;
    const struct entry *head = content_find(c, "lm_head");
    struct lora_tensor tied = *t;
    require(e->part[PART_WEIGHT] != NULL);
    if (t->module.kind != MODULE_EMBED || !model_config(c->model)->tie_word_embeddings ||
        peft_is_saved(p->config.rules, e->path) || (head && head->part[PART_WEIGHT]))
        return STATUS_OK;
    if (!model_module_parse(c->model, "lm_head", &tied.module))
        return STATUS_OK;
    return content_add_tensor(c, &tied, e->part[PART_WEIGHT]->name, err);
}

static enum status add_weight(struct peft *p, const struct entry *e, const struct tensor *t,
                              struct error *err)
{
    struct content *c = p->c;
    struct lora_tensor out = {.is_bias = false};
    struct matrix m;
    enum status s = check_weight(p, e, t, err);
    if (s == STATUS_OK && c->model)
        s = content_module(c, e, &out.module, err);
    if (s != STATUS_OK)
        return s;
    content_kind(c, "modules_to_save");
    if (t->n_dims == 1)
        return add_vector(p, t, &out, err);
    s = content_matrix(c, t, &m, err);
    if (s != STATUS_OK || !c->model)
        return s;
    if (is_conv1d(c, &out.module))
        s = content_transpose(c, &m, err);
    out.type = m.type;
    out.data = m.data;
    out.rows = m.rows;
    out.cols = m.cols;
    if (s == STATUS_OK)
        s = content_add_tensor(c, &out, t->name, err);
    return s == STATUS_OK ? tie_weight(p, e, &out, err) : s;
}

static enum status add_bias(struct peft *p, const struct entry *e, const struct tensor *t, struct error *err)
{
    struct lora_tensor out = {.is_bias = true};
    enum status s = check_bias(p, e, t, err);
    if (s == STATUS_OK && p->c->model)
        s = content_module(p->c, e, &out.module, err);
    if (s != STATUS_OK)
        return s;
    if (!peft_is_saved(p->config.rules, e->path))
        content_kind(p->c, "bias");
    return add_vector(p, t, &out, err);
}

/* ---- all of it */

static enum status add_lora(struct peft *p, const struct entry *e, struct error *err)
{
    bool linear = e->part[PART_A] || e->part[PART_B] || e->part[PART_B_BIAS];
    bool embed = e->part[PART_EMBED_A] || e->part[PART_EMBED_B];
    if (linear && embed)
        return fail(err, STATUS_FORMAT, "%s: module '%s' has lora_A or lora_B and lora_embedding_A or _B",
                    p->c->shown, e->path);
    if (!linear && !embed && e->part[PART_MAGNITUDE])
        return fail(err, STATUS_FORMAT, "%s: tensor '%s' is there, but its lora_A and lora_B are missing",
                    p->c->shown, e->part[PART_MAGNITUDE]->name);
    if (!linear && !embed)
        return STATUS_OK;
    if (linear && !e->part[PART_A] && !e->part[PART_B])
        return fail(err, STATUS_FORMAT, "%s: tensor '%s' is there, but its lora_A and lora_B are missing",
                    p->c->shown, e->part[PART_B_BIAS]->name);
    content_kind(p->c, p->config.dora ? "dora" : "lora");
    if (p->config.lora_bias)
        content_kind(p->c, "lora_bias");
    if (embed)
        return add_embedding(p, e, err);
    return peft_is_experts(p, e) ? peft_add_experts(p, e, err) : add_linear(p, e, err);
}

static enum status add_entry(struct peft *p, const struct entry *e, struct error *err)
{
    const struct tensor *weight = e->part[PART_WEIGHT], *bias = e->part[PART_BIAS];
    weight = weight ? weight : e->part[PART_WEIGHT_AGAIN];
    bias = bias ? bias : e->part[PART_BIAS_AGAIN];
    bool has_lora = e->part[PART_A] || e->part[PART_EMBED_A];
    enum status s = add_lora(p, e, err);
    if (s == STATUS_OK && weight)
        s = add_weight(p, e, weight, err);
    if (s == STATUS_OK && bias)
        s = add_bias(p, e, bias, err);
    if (s == STATUS_OK && e->part[PART_ROWS])
        s = peft_add_rows(p, e, err);
    if (s == STATUS_OK && e->part[PART_BASE_COPY])
        s = peft_check_base_copy(p, e, err);
    if (s == STATUS_OK && !has_lora && (weight || bias || e->part[PART_ROWS]))
        content_count(p->c, e, 0);
    return s;
}

/* ensure_weight_tying trains embedding and head of a tied base as one, and writes both. */
static enum status check_tied(struct peft *p, struct error *err)
{
    struct content *c = p->c;
    bool saved, targeted;
    char path[PATH_BYTES];
    if (!p->config.ties_weights || !c->model || !model_config(c->model)->tie_word_embeddings)
        return STATUS_OK;
    enum status s = peft_names_embedding(p->config.rules, &saved, &targeted, err);
    if (s != STATUS_OK || (!saved && !targeted))
        return s;
    model_module_path(c->model, &(struct model_module){.kind = MODULE_EMBED, .expert = -1}, path,
                      sizeof path);
    const struct entry *embed = content_find(c, path), *head = content_find(c, "lm_head");
    bool whole = embed && head &&
                 (saved ? embed->part[PART_WEIGHT] && head->part[PART_WEIGHT]
                        : embed->part[PART_EMBED_A] && head->part[PART_A]);
    return whole
               ? STATUS_OK
               : fail(err, STATUS_FORMAT,
                      "%s: ensure_weight_tying is set for embedding and head, but the tensors of '%s' or of "
                      "'lm_head' are missing: save it again with PEFT 0.18 or newer",
                      c->shown, path);
}

/* Replaced tensors and rows act on every token, an activated LoRA does not: PEFT mixes both, we don't. */
static enum status check_activated(const struct peft *p, struct error *err)
{
    const char *kinds = p->c->report->kinds;
    if (p->config.n_invocation == 0)
        return STATUS_OK;
    if (p->config.dora || strstr(kinds, "embedding") || strstr(kinds, "modules_to_save") ||
        strstr(kinds, "tokens") || strstr(kinds, " bias") || strncmp(kinds, "bias", 4) == 0)
        return fail(
            err, STATUS_UNSUPPORTED,
            "%s: alora_invocation_tokens together with %s is not supported: an activated LoRA is on linear "
            "modules only",
            p->c->shown, kinds);
    content_kind(p->c, "alora");
    return STATUS_OK;
}

static enum status open_tensors(const struct opened *o, struct content *c, struct tensors **keep,
                                struct error *err)
{
    enum status s = folder_tensors(o, "adapter_model", c, keep, err);
    if (s == STATUS_NOT_FOUND && file_exists_at(o->dir_fd, "adapter_model.bin"))
        return fail(
            err, STATUS_UNSUPPORTED,
            "%s: adapter_model.bin can run code when it is read; convert it: python -c \"import torch, "
            "safetensors.torch as s; s.save_file(torch.load('adapter_model.bin', weights_only=True), "
            "'adapter_model.safetensors')\"",
            o->folder);
    return s;
}

static enum status add_all(struct peft *p, struct error *err)
{
    struct content *c = p->c;
    enum status s = STATUS_OK;
    for (size_t i = 0; i < tensors_count(c->tensors) && s == STATUS_OK; i++)
        s = place_tensor(c, tensors_at(c->tensors, i), err);
    for (size_t i = 0; i < c->n_entries && s == STATUS_OK; i++)
        s = add_entry(p, &c->entries[i], err);
    if (s == STATUS_OK)
        s = peft_check_rows(p, err);
    if (s == STATUS_OK)
        s = check_tied(p, err);
    if (s == STATUS_OK)
        s = peft_check_whole(p, err);
    if (s == STATUS_OK)
        s = check_activated(p, err);
    if (s == STATUS_OK && c->report->n_modules == 0)
        s = fail(err, STATUS_FORMAT, "%s: no lora_A and lora_B in it", c->shown);
    return s;
}

static enum status keep_invocation(struct peft *p, struct error *err)
{
    size_t n = p->config.n_invocation;
    int32_t *ids = n ? arena_array(p->c->arena, n, sizeof *ids) : NULL;
    if (n && !ids)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", p->c->shown);
    if (n)
        memcpy(ids, p->config.invocation, n * sizeof *ids);
    p->c->spec.invocation = ids;
    p->c->spec.n_invocation = n;
    return STATUS_OK;
}

enum status peft_load(const struct opened *o, struct json_t *config, struct content *c, struct tensors **keep,
                      struct error *err)
{
    struct peft p = {.c = c};
    char shown[600];
    snprintf(shown, sizeof shown, "%s/adapter_config.json", o->folder);
    snprintf(c->report->format, sizeof c->report->format, "peft");
    enum status s = peft_config_parse(config, shown, &p.config, err);
    if (s == STATUS_OK)
        s = open_tensors(o, c, keep, err);
    if (s == STATUS_OK)
        s = add_all(&p, err);
    if (s == STATUS_OK)
        s = keep_invocation(&p, err);
    if (s == STATUS_OK) {
        c->report->alpha = p.config.alpha;
        c->report->rslora = p.config.rslora;
        memcpy(c->report->base_model, p.config.base_model, sizeof p.config.base_model);
    }
    peft_config_fini(&p.config);
    return s;
}
