/* A GGUF LoRA, as llama.cpp's convert_lora_to_gguf.py writes it.
 *
 *     general.type = adapter, adapter.type = lora, adapter.lora.alpha
 *     blk.N.attn_q.weight.lora_a         [r, in]         blk.N.attn_q.weight.lora_b         [out, r]
 *     blk.N.ffn_up_exps.weight.lora_a    [experts, r, in]    ….lora_b                       [experts, out, r]
 *     token_embd.weight.lora_a           [vocab, r]      token_embd.weight.lora_b           [hidden, r]
 *     adapter.alora.invocation_tokens    ids; acts from their last occurrence in the prompt on
 *
 * scale = alpha / r; alpha 0 means scale 1, as llama.cpp has it. In files of the llama architecture the rows
 * of q's and k's B are permuted like the base's: they are brought back into Hugging Face order here. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "loader.h"

#define INVOCATION_MAX 4096U

/* Architectures by the base's model_type. `permuted`: q and k rows, see gguf_rope_row. */
static const struct {
    const char *model_type, *arch;
    bool permuted;
} archs[] = {{"llama", "llama", true},     {"mistral", "llama", true},       {"mixtral", "llama", true},
             {"qwen2", "qwen2", false},    {"qwen3", "qwen3", false},        {"qwen3_moe", "qwen3moe", false},
             {"gemma2", "gemma2", false},  {"gemma3_text", "gemma3", false}, {"phi3", "phi3", false},
             {"granite", "granite", true}, {"olmo2", "olmo2", false},        {"gpt2", "gpt2", false}};

bool gguf_architecture(const char *model_type, const char **arch, bool *permuted)
{
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (strcmp(archs[i].model_type, model_type) == 0) {
            *arch = archs[i].arch;
            *permuted = archs[i].permuted;
            return true;
        }
    return false;
}

static enum status expect_text(const struct gguf *g, const char *shown, const char *key, const char *expected,
                               struct error *err)
{
    const char *found;
    enum status s = gguf_get_string(g, key, &found, NULL, err);
    if (s != STATUS_OK)
        return s;
    return strcmp(found, expected) == 0
               ? STATUS_OK
               : fail(err, STATUS_MISMATCH, "%s: %s is '%.40s', expected '%s'", shown, key, found, expected);
}

/* Keys of the adapter.* family that we know; any other could change the numbers. */
static enum status check_adapter_keys(const struct gguf *g, const char *shown, struct error *err)
{
    static const char *const known[] = {"adapter.type", "adapter.lora.alpha", "adapter.lora.task_name",
                                        "adapter.lora.prompt_prefix", "adapter.alora.invocation_tokens"};
    const char *key;
    char value[8];
    for (size_t i = 0; gguf_describe(g, i, &key, value, sizeof value); i++) {
        bool ok = strncmp(key, "adapter.", 8) != 0;
        for (size_t k = 0; k < sizeof known / sizeof *known && !ok; k++)
            ok = strcmp(key, known[k]) == 0;
        if (!ok)
            return fail(err, STATUS_UNSUPPORTED,
                        "%s: %.80s is set: a field that we don't know and that could change the numbers",
                        shown, key);
    }
    return STATUS_OK;
}

static enum status check_metadata(const struct gguf *g, const struct content *c, bool *permuted,
                                  struct error *err)
{
    const char *arch, *expected;
    *permuted = false;
    enum status s = expect_text(g, c->shown, "general.type", "adapter", err);
    if (s == STATUS_OK)
        s = expect_text(g, c->shown, "adapter.type", "lora", err);
    if (s == STATUS_OK)
        s = check_adapter_keys(g, c->shown, err);
    if (s == STATUS_OK)
        s = gguf_get_string(g, "general.architecture", &arch, NULL, err);
    if (s != STATUS_OK || !c->model)
        return s;
    const char *model_type = model_config(c->model)->model_type;
    if (!gguf_architecture(model_type, &expected, permuted))
        return fail(err, STATUS_UNSUPPORTED, "%s: GGUF adapters for a %s base are not supported", c->shown,
                    model_type);
    return strcmp(expected, arch) == 0
               ? STATUS_OK
               : fail(err, STATUS_MISMATCH, "%s: general.architecture is '%.40s', this base is '%s'",
                      c->shown, arch, expected);
}

/* What a tensor's name says of its module: its first place in the base, and how many it spans. */
struct gguf_name {
    const char *name;
    enum lora_site site;
    uint32_t n_sites; /* 0: the module decides (phi3's ffn_up holds gate and up) */
    bool experts;
};
static const struct gguf_name names[] = {{"attn_q", LORA_SITE_Q, 1, false},
                                         {"attn_k", LORA_SITE_K, 1, false},
                                         {"attn_v", LORA_SITE_V, 1, false},
                                         {"attn_qkv", LORA_SITE_Q, 3, false},
                                         {"attn_output", LORA_SITE_O, 1, false},
                                         {"ffn_gate", LORA_SITE_GATE, 1, false},
                                         {"ffn_up", LORA_SITE_UP, 0, false},
                                         {"ffn_down", LORA_SITE_DOWN, 1, false},
                                         {"ffn_gate_inp", LORA_SITE_ROUTER, 1, false},
                                         {"ffn_gate_exps", LORA_SITE_GATE, 1, true},
                                         {"ffn_up_exps", LORA_SITE_UP, 1, true},
                                         {"ffn_down_exps", LORA_SITE_DOWN, 1, true}};

bool gguf_module_name(const struct model_module *m, char *dst, size_t dst_bytes)
{
    bool experts = m->kind == MODULE_LINEAR && m->expert >= 0;
    if (m->kind == MODULE_EMBED || (m->kind == MODULE_LINEAR && m->site == LORA_SITE_LM_HEAD))
        return snprintf(dst, dst_bytes, "%s", m->kind == MODULE_EMBED ? "token_embd" : "output") > 0;
    /* phi3's gate and up together are its ffn_up. */
    enum lora_site site = m->site == LORA_SITE_GATE && m->n_sites == 2 ? LORA_SITE_UP : m->site;
    for (size_t i = 0; m->kind == MODULE_LINEAR && i < sizeof names / sizeof *names; i++)
        if (names[i].site == site && names[i].experts == experts &&
            (names[i].n_sites == m->n_sites || names[i].n_sites == 0))
            return snprintf(dst, dst_bytes, "blk.%u.%s", m->layer, names[i].name) > 0;
    return false;
}

struct gguf_place {
    enum { PLACE_MODULE, PLACE_HEAD, PLACE_EMBED } kind;
    const struct gguf_name *name;
    uint32_t layer;
};

static bool parse_place(const char *path, struct gguf_place *out)
{
    char *end;
    *out = (struct gguf_place){.kind = PLACE_HEAD};
    if (strcmp(path, "output") == 0)
        return true;
    out->kind = PLACE_EMBED;
    if (strcmp(path, "token_embd") == 0)
        return true;
    out->kind = PLACE_MODULE;
    /* One spelling only: no sign, no leading zero. */
    if (strncmp(path, "blk.", 4) != 0 || path[4] < '0' || path[4] > '9' || (path[4] == '0' && path[5] != '.'))
        return false;
    unsigned long n = strtoul(path + 4, &end, 10);
    if (n >= CONFIG_LAYERS_MAX || *end != '.')
        return false;
    out->layer = (uint32_t)n;
    for (size_t i = 0; i < sizeof names / sizeof *names && !out->name; i++)
        if (strcmp(names[i].name, end + 1) == 0)
            out->name = &names[i];
    return out->name != NULL;
}

static enum status no_module(const struct content *c, const char *tensor, const char *path, struct error *err)
{
    return fail(err, STATUS_MISMATCH, "%s: tensor '%s': %s has no module '%s' that can be adapted", c->shown,
                tensor, c->model ? "this base" : "a model of a known kind", path);
}

static enum status place_tensor(struct content *c, const struct tensor *t, struct error *err)
{
    static const char suffix_a[] = ".weight.lora_a", suffix_b[] = ".weight.lora_b";
    size_t n = strlen(t->name), m = sizeof suffix_a - 1;
    char path[512];
    struct gguf_place place;
    bool is_a = n > m && strcmp(t->name + n - m, suffix_a) == 0;
    bool is_b = n > m && strcmp(t->name + n - m, suffix_b) == 0;
    if (!is_a && !is_b)
        return fail(
            err, STATUS_UNSUPPORTED,
            "%s: tensor '%s' is no .weight.lora_a or .weight.lora_b: whole tensors (norms) of an adapter "
            "are not supported in GGUF; serve the PEFT folder",
            c->shown, t->name);
    snprintf(path, sizeof path, "%.*s", (int)(n - m), t->name);
    if (!parse_place(path, &place))
        return no_module(c, t->name, path, err);
    return content_put(c, path, is_a ? PART_A : PART_B, t, err);
}

/* ---- pairs */

static enum status find_module(const struct content *c, const struct entry *e, const struct gguf_place *place,
                               struct model_module *out, struct error *err)
{
    const struct model *m = c->model;
    char path[128];
    bool found;
    if (place->kind == PLACE_EMBED) {
        *out = (struct model_module){.kind = MODULE_EMBED, .expert = -1};
        model_module_path(m, out, path, sizeof path);
        found = model_module_parse(m, path, out);
    } else if (place->kind == PLACE_HEAD) {
        found = model_module_of(m, LORA_SITE_LM_HEAD, 0, out);
    } else {
        const struct gguf_name *name = place->name;
        require(name != NULL);
        found = model_module_of(m, name->site, place->layer, out) &&
                (name->n_sites == 0 || name->n_sites == out->n_sites);
    }
    return found ? STATUS_OK : no_module(c, entry_tensor_name(e), e->path, err);
}

/* Rows of B, if it is q or k, into Hugging Face order. */
static enum status unpermute(struct content *c, const struct model_module *module, struct matrix *b,
                             struct error *err)
{
    const struct model_config *config = model_config(c->model);
    uint32_t n_heads = module->site == LORA_SITE_Q ? config->n_heads : config->n_kv_heads;
    if (module->kind != MODULE_LINEAR || (module->site != LORA_SITE_Q && module->site != LORA_SITE_K) ||
        b->rows != module->out)
        return STATUS_OK;
    size_t row_bytes = (size_t)b->cols * dtype_info(b->type)->block_bytes;
    char *rows = arena_array(c->arena, b->rows, row_bytes);
    if (!rows)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    for (uint32_t r = 0; r < b->rows; r++)
        memcpy(rows + r * row_bytes,
               (const char *)b->data + gguf_rope_row(r, n_heads, config->head_dim) * row_bytes, row_bytes);
    b->data = rows;
    return STATUS_OK;
}

struct gguf_lora {
    struct content *c;
    double alpha;
    bool permuted;
};

static float scale_of(const struct gguf_lora *l, uint64_t rank)
{
    return (float)(l->alpha != 0 ? l->alpha / (double)rank : 1);
}

static enum status check_rank(const struct content *c, const struct tensor *t, uint64_t rank,
                              struct error *err)
{
    return rank >= 1 && rank <= ADAPTER_RANK_MAX
               ? STATUS_OK
               : fail(err, STATUS_FORMAT, "%s: tensor '%s' has rank %" PRIu64 ", expected 1 to %d", c->shown,
                      t->name, rank, ADAPTER_RANK_MAX);
}

/* Both tensors of an entry; token_embd's are [vocab, r] and [hidden, r], the others' [r, in] and [out, r]. */
static enum status read_pair(const struct gguf_lora *l, const struct entry *e, bool embed,
                             struct pair_values *v, struct error *err)
{
    const struct tensor *a = e->part[PART_A], *b = e->part[PART_B];
    struct content *c = l->c;
    enum status s = STATUS_OK;
    if (!a || !b)
        return fail(err, STATUS_FORMAT, "%s: module '%s' has %s, but the other half is missing", c->shown,
                    e->path, a ? a->name : b->name);
    if (!embed)
        s = content_check_halves(c, e, a, b, err);
    else if (a->n_dims != 2 || b->n_dims != 2 || a->shape[1] != b->shape[1])
        s = fail(err, STATUS_FORMAT, "%s: tensors '%s' and '%s': expected [vocabulary, r] and [hidden, r]",
                 c->shown, a->name, b->name);
    if (s == STATUS_OK)
        s = check_rank(c, a, b->shape[1], err);
    v->a_name = a->name;
    v->b_name = b->name;
    if (s == STATUS_OK)
        s = content_matrix(c, a, &v->a, err);
    if (s == STATUS_OK)
        s = content_matrix(c, b, &v->b, err);
    if (s == STATUS_OK)
        content_count(c, e, b->shape[1]);
    return s;
}

/* Both formats of tensors, as tools want them: A [n * rank, in]. */
static enum status keep_pair(const struct gguf_lora *l, const struct entry *e, const struct gguf_place *place,
                             const struct pair_values *v, struct error *err)
{
    bool embed = place->kind == PLACE_EMBED, experts = place->name && place->name->experts;
    struct file_pair pair = {.path = e->path,
                             .kind = embed     ? FILE_PAIR_EMBED
                                     : experts ? FILE_PAIR_EXPERTS
                                               : FILE_PAIR_LINEAR,
                             .a_tensor = e->part[PART_A],
                             .b_tensor = e->part[PART_B],
                             .a = v->a,
                             .b = v->b,
                             .n = experts ? (uint32_t)e->part[PART_A]->shape[0] : 1,
                             .rank = v->b.cols,
                             .scale = scale_of(l, v->b.cols)};
    enum status s = embed ? content_transpose(l->c, &pair.a, err) : STATUS_OK;
    return s == STATUS_OK ? content_keep_pair(l->c, &pair, err) : s;
}

static enum status add_module(const struct gguf_lora *l, const struct entry *e,
                              const struct gguf_place *place, struct error *err)
{
    struct pair_values v;
    struct lora_pair pair = {.scale = 0};
    struct content *c = l->c;
    enum status s = read_pair(l, e, place->kind == PLACE_EMBED, &v, err);
    if (s != STATUS_OK)
        return s;
    content_kind(c, place->kind == PLACE_EMBED ? "embedding" : "lora");
    pair.scale = scale_of(l, v.b.cols);
    if (!c->model)
        return keep_pair(l, e, place, &v, err);
    s = find_module(c, e, place, &pair.module, err);
    if (s == STATUS_OK && l->permuted)
        s = unpermute(c, &pair.module, &v.b, err);
    return s == STATUS_OK ? content_add_pair(c, &pair, &v, err) : s;
}

/* The experts' module of a layer, by the one path that the families with experts have for it. */
static bool find_experts(const struct content *c, uint32_t layer, struct model_module *out)
{
    char path[64];
    snprintf(path, sizeof path, "model.layers.%u.mlp.experts", layer);
    return model_module_parse(c->model, path, out) && out->kind == MODULE_EXPERTS;
}

static enum status add_experts(const struct gguf_lora *l, const struct entry *e,
                               const struct gguf_place *place, struct error *err)
{
    const struct tensor *a = e->part[PART_A], *b = e->part[PART_B];
    struct content *c = l->c;
    struct pair_values v;
    struct model_module module;
    if (!a || !b)
        return fail(err, STATUS_FORMAT, "%s: module '%s' has %s, but the other half is missing", c->shown,
                    e->path, a ? a->name : b->name);
    if (a->n_dims != 3 || b->n_dims != 3 || a->shape[0] != b->shape[0] || a->shape[1] != b->shape[2])
        return fail(err, STATUS_FORMAT,
                    "%s: tensors '%s' and '%s': expected [experts, r, in] and [experts, out, r]", c->shown,
                    a->name, b->name);
    v.a_name = a->name;
    v.b_name = b->name;
    content_kind(c, "lora");
    content_kind(c, "experts");
    content_count(c, e, a->shape[1]);
    enum status s = check_rank(c, a, a->shape[1], err);
    if (s == STATUS_OK)
        s = content_matrix(c, a, &v.a, err);
    if (s == STATUS_OK)
        s = content_matrix(c, b, &v.b, err);
    if (s != STATUS_OK || !c->model)
        return s == STATUS_OK ? keep_pair(l, e, place, &v, err) : s;
    uint32_t n = model_config(c->model)->n_experts;
    if (!find_experts(c, place->layer, &module) || a->shape[0] != n)
        return fail(err, STATUS_MISMATCH,
                    "%s: tensor '%s' is for %" PRIu64 " experts, this base has %u in its layer", c->shown,
                    a->name, a->shape[0], n);
    struct lora_pair pair = {.module = content_expert(&module, place->name->site, 1),
                             .scale = scale_of(l, v.b.cols)};
    return content_add_experts(c, &pair, &v, n, err);
}

static enum status add_all(const struct gguf_lora *l, struct error *err)
{
    struct content *c = l->c;
    enum status s = STATUS_OK;
    for (size_t i = 0; i < tensors_count(c->tensors) && s == STATUS_OK; i++)
        s = place_tensor(c, tensors_at(c->tensors, i), err);
    for (size_t i = 0; i < c->n_entries && s == STATUS_OK; i++) {
        struct gguf_place place;
        const struct entry *e = &c->entries[i];
        require(parse_place(e->path, &place)); /* or it would not have been put */
        s = place.name && place.name->experts ? add_experts(l, e, &place, err)
                                              : add_module(l, e, &place, err);
    }
    if (s == STATUS_OK && c->n_entries == 0)
        s = fail(err, STATUS_FORMAT, "%s: no lora_a and lora_b in it", c->shown);
    return s;
}

static enum status read_invocation(const struct gguf *g, struct content *c, struct error *err)
{
    static const char key[] = "adapter.alora.invocation_tokens";
    uint64_t n = 0;
    if (!gguf_has(g, key))
        return STATUS_OK;
    enum status s = gguf_get_array(g, key, &n, err);
    if (s == STATUS_OK && (n == 0 || n > INVOCATION_MAX))
        s = fail(err, STATUS_FORMAT, "%s: %s has %" PRIu64 " items, expected 1 to %u", c->shown, key, n,
                 INVOCATION_MAX);
    int64_t *wide = s == STATUS_OK ? arena_array(c->arena, n, sizeof *wide) : NULL;
    int32_t *ids = s == STATUS_OK ? arena_array(c->arena, n, sizeof *ids) : NULL;
    if (s == STATUS_OK && (!wide || !ids))
        s = fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    if (s == STATUS_OK)
        s = gguf_array_i64(g, key, wide, n, err);
    for (uint64_t i = 0; i < n && s == STATUS_OK; i++) {
        if (wide[i] < 0 || wide[i] > INT32_MAX)
            return fail(err, STATUS_FORMAT, "%s: %s: item %" PRIu64 " is no token id", c->shown, key, i);
        ids[i] = (int32_t)wide[i];
    }
    if (s != STATUS_OK)
        return s;
    content_kind(c, "alora");
    c->spec.invocation = ids;
    c->spec.n_invocation = n;
    return STATUS_OK;
}

static enum status read_file(const struct gguf *g, struct content *c, struct error *err)
{
    struct gguf_lora l = {.c = c};
    enum status s = check_metadata(g, c, &l.permuted, err);
    if (s == STATUS_OK)
        s = gguf_get_f64(g, "adapter.lora.alpha", &l.alpha, err);
    if (s == STATUS_OK && !(l.alpha > -1e6 && l.alpha < 1e6))
        s = fail(err, STATUS_FORMAT, "%s: adapter.lora.alpha is not a sensible number", c->shown);
    if (s == STATUS_OK)
        s = read_invocation(g, c, err);
    if (s == STATUS_OK)
        s = add_all(&l, err);
    c->report->alpha = l.alpha;
    return s;
}

static enum status load(const struct opened *o, struct content *c, void **keep, struct error *err)
{
    struct tensors_limits limits = {
        .header_bytes = ADAPTER_HEADER_BYTES_MAX, .n_tensors = ADAPTER_TENSORS_MAX, .copy = &o->copy};
    struct gguf *g;
    c->shown = o->shown;
    snprintf(c->report->format, sizeof c->report->format, "gguf");
    enum status s = gguf_open_at(o->dir_fd, o->folder, o->file, &limits, &g, err);
    if (s != STATUS_OK)
        return s;
    *keep = g;
    c->tensors = gguf_tensors(g);
    s = read_file(g, c, err);
    /* A key that is absent is this file's fault; "not found" would tell the caller that there is no file. */
    if (s == STATUS_NOT_FOUND) {
        s = STATUS_FORMAT;
        if (err)
            err->status = s;
    }
    return s;
}

static void release(void *keep)
{
    gguf_close(keep);
}

const struct adapter_format adapter_format_gguf = {.load = load, .release = release};
