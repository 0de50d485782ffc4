/* LoRA on a layer's experts. transformers 5 has their weights as two bare parameters, gate_up_proj [experts,
 * 2 * inner, hidden] and down_proj [experts, hidden, inner]; PEFT wraps the module once for each targeted
 * parameter, the first one (gate_up_proj) innermost:
 *
 *     …mlp.experts.base_layer.lora_A, lora_B    gate_up_proj, if down_proj is targeted as well
 *     …mlp.experts.lora_A, lora_B               the last one: down_proj, or the only one
 *
 *     A [experts * r, in]     rows of one expert after another
 *     B [out, r * experts]    columns by rank, within a rank by expert
 *
 * (PEFT 0.21, tuners/lora/layer.py, ParamWrapper.get_delta_weight.) */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "peft.h"

static const char inner[] = ".base_layer";

/* The path without PEFT's inner name; true if it had one. */
static bool strip_inner(const char *path, char *out, size_t out_bytes)
{
    size_t n = strlen(path), m = sizeof inner - 1;
    bool has = n > m && strcmp(path + n - m, inner) == 0;
    snprintf(out, out_bytes, "%.*s", (int)(has ? n - m : n), path);
    return has;
}

bool peft_is_experts(const struct peft *p, const struct entry *e)
{
    char path[512];
    struct model_module m;
    if (strip_inner(e->path, path, sizeof path))
        return true;
    if (p->c->model)
        return model_module_parse(p->c->model, path, &m) && m.kind == MODULE_EXPERTS;
    const char *dot = strrchr(path, '.');
    return dot && strcmp(dot + 1, "experts") == 0;
}

/* What the experts of a base have, and which of their two weights a pair is for. */
struct stack {
    const char *path; /* of the experts' module */
    struct model_module module;
    uint32_t n_experts;
    bool is_down;
};

static const char *parameter_name(const struct stack *s)
{
    return s->is_down ? "down_proj" : "gate_up_proj";
}

static enum status find_stack(const struct peft *p, const struct entry *e, struct stack *out,
                              struct error *err)
{
    const struct model_module *m = &out->module;
    const struct tensor *a = e->part[PART_A], *b = e->part[PART_B];
    if (!model_module_parse(p->c->model, out->path, &out->module) || m->kind != MODULE_EXPERTS)
        return fail(err, STATUS_MISMATCH, "%s: tensor '%s': this base has no experts at '%s'", p->c->shown,
                    a->name, out->path);
    out->n_experts = model_config(p->c->model)->n_experts;
    out->is_down = a->shape[1] == m->out && b->shape[0] == m->in;
    bool is_gate_up = a->shape[1] == m->in && b->shape[0] == (uint64_t)m->out * 2;
    if ((out->is_down || is_gate_up) && a->shape[0] % out->n_experts == 0)
        return STATUS_OK;
    return fail(
        err, STATUS_MISMATCH,
        "%s: tensors '%s' [%" PRIu64 ", %" PRIu64 "] and lora_B [%" PRIu64 ", %" PRIu64
        "] fit neither gate_up_proj [%u, %u] nor down_proj [%u, %u] of this base's %u experts: trained on "
        "another base",
        p->c->shown, a->name, a->shape[0], a->shape[1], b->shape[0], b->shape[1], m->out * 2, m->in, m->in,
        m->out, out->n_experts);
}

/* Which parameter the nesting says it is; shapes can't lie when there is a base, but must agree. */
static enum status check_nesting(struct peft *p, const struct entry *e, struct stack *s, bool is_inner,
                                 struct error *err)
{
    char path[560];
    snprintf(path, sizeof path, "%s%s", s->path, inner);
    const struct entry *within = content_find(p->c, path);
    bool both = is_inner || (within && within->part[PART_A]);
    if (!p->c->model) {
        snprintf(path, sizeof path, "%s.gate_up_proj", s->path);
        s->is_down = both ? !is_inner : !peft_is_parameter(p->config.rules, path);
    }
    if (both && s->is_down == is_inner)
        return fail(
            err, STATUS_UNSUPPORTED,
            "%s: tensor '%s' is of %s: PEFT has gate_up_proj inside (base_layer) and down_proj outside",
            p->c->shown, e->part[PART_A]->name, parameter_name(s));
    snprintf(path, sizeof path, "%s.%s", s->path, parameter_name(s));
    if (peft_rules_have_parameters(p->config.rules) && !peft_is_parameter(p->config.rules, path))
        return fail(err, STATUS_MISMATCH, "%s: tensor '%s': target_parameters does not name '%s'",
                    p->c->shown, e->part[PART_A]->name, path);
    return STATUS_OK;
}

/* Columns of one expert, out of B. */
static enum status take_columns(struct content *c, const struct matrix *b, const struct stack *s,
                                uint32_t expert, struct matrix *out, struct error *err)
{
    size_t bytes = dtype_info(b->type)->block_bytes;
    uint32_t rank = b->cols / s->n_experts;
    char *to = arena_array(c->arena, (size_t)b->rows * rank, bytes);
    const char *from = b->data;
    if (!to)
        return fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    for (size_t r = 0; r < b->rows; r++)
        for (size_t k = 0; k < rank; k++)
            memcpy(to + (r * rank + k) * bytes, from + (r * b->cols + k * s->n_experts + expert) * bytes,
                   bytes);
    *out = (struct matrix){.type = b->type, .data = to, .rows = b->rows, .cols = rank};
    return STATUS_OK;
}

static enum status add_experts(struct content *c, const struct pair_values *all, const struct stack *s,
                               float scale, struct error *err)
{
    uint32_t rank = all->a.rows / s->n_experts;
    size_t a_bytes = (size_t)rank * all->a.cols * dtype_info(all->a.type)->block_bytes;
    struct lora_pair pair = {.scale = scale,
                             .module = s->is_down ? content_expert(&s->module, LORA_SITE_DOWN, 1)
                                                  : content_expert(&s->module, LORA_SITE_GATE, 2)};
    for (uint32_t e = 0; e < s->n_experts; e++) {
        struct pair_values one = *all;
        one.a.data = (const char *)all->a.data + e * a_bytes;
        one.a.rows = rank;
        pair.module.expert = (int32_t)e;
        enum status st = take_columns(c, &all->b, s, e, &one.b, err);
        if (st == STATUS_OK)
            st = content_add_pair(c, &pair, &one, err);
        if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}

/* B [out, rank * n] as [n * out, rank]. */
static enum status stack_columns(struct content *c, struct stack *s, struct matrix *b, struct error *err)
{
    size_t bytes = dtype_info(b->type)->block_bytes;
    uint32_t rank = b->cols / s->n_experts;
    size_t part = (size_t)b->rows * rank * bytes;
    char *all = arena_array(c->arena, s->n_experts, part);
    enum status st = all ? STATUS_OK : fail(err, STATUS_NO_MEMORY, "%s: no memory", c->shown);
    for (uint32_t e = 0; e < s->n_experts && st == STATUS_OK; e++) {
        struct matrix one;
        st = take_columns(c, b, s, e, &one, err);
        if (st == STATUS_OK)
            memcpy(all + e * part, one.data, part);
    }
    *b = (struct matrix){.type = b->type, .data = all, .rows = b->rows * s->n_experts, .cols = rank};
    return st;
}

/* Without a base the number of experts is what the configuration's rank leaves. */
static enum status keep_alone(struct peft *p, const struct entry *e, struct pair_values *v, struct stack *s,
                              struct error *err)
{
    struct content *c = p->c;
    char path[560];
    bool fits;
    double rank;
    struct file_pair pair = {
        .path = path, .kind = FILE_PAIR_EXPERTS, .a_tensor = e->part[PART_A], .b_tensor = e->part[PART_B]};
    snprintf(path, sizeof path, "%s.%s", s->path, parameter_name(s));
    enum status st = peft_rank_fits(&p->config, path, 0, &fits, &rank, err);
    if (st == STATUS_OK && !(rank >= 1 && rank <= ADAPTER_RANK_MAX && v->a.rows % (uint32_t)rank == 0))
        st = fail(err, STATUS_MISMATCH,
                  "%s: tensor '%s' has %u rows, no multiple of the rank that adapter_config.json says, %g",
                  c->shown, e->part[PART_A]->name, v->a.rows, rank);
    if (st != STATUS_OK)
        return st;
    pair.rank = (uint32_t)rank;
    pair.n = s->n_experts = v->a.rows / pair.rank;
    content_count(c, e, pair.rank);
    st = peft_pair_scale(p, path, e->part[PART_A]->name, pair.rank, &pair.scale, err);
    if (st == STATUS_OK)
        st = stack_columns(c, s, &v->b, err);
    pair.a = v->a;
    pair.b = v->b;
    return st == STATUS_OK ? content_keep_pair(c, &pair, err) : st;
}

enum status peft_add_experts(struct peft *p, const struct entry *e, struct error *err)
{
    const struct tensor *a = e->part[PART_A], *b = e->part[PART_B];
    struct content *c = p->c;
    struct pair_values v;
    struct stack stack = {0};
    char path[512], parameter[560];
    float scale;
    bool is_inner = strip_inner(e->path, path, sizeof path);
    stack.path = path;
    content_kind(c, "experts");
    enum status s = content_check_halves(c, e, a, b, err);
    if (s == STATUS_OK && (p->config.dora || p->config.lora_bias || p->config.n_invocation))
        s = fail(err, STATUS_UNSUPPORTED,
                 "%s: tensor '%s': DoRA, lora_bias and activated LoRA are not supported on experts", c->shown,
                 a->name);
    if (s == STATUS_OK && c->model)
        s = find_stack(p, e, &stack, err);
    if (s == STATUS_OK)
        s = check_nesting(p, e, &stack, is_inner, err);
    if (s == STATUS_OK)
        s = content_matrix(c, a, &v.a, err);
    if (s == STATUS_OK)
        s = content_matrix(c, b, &v.b, err);
    if (s != STATUS_OK)
        return s;
    snprintf(parameter, sizeof parameter, "%s.%s", path, parameter_name(&stack));
    if (!c->model)
        return keep_alone(p, e, &v, &stack, err);
    v.a_name = a->name;
    v.b_name = b->name;
    require(stack.n_experts > 0);
    s = peft_pair_scale(p, parameter, a->name, v.a.rows / stack.n_experts, &scale, err);
    content_count(c, e, v.a.rows / stack.n_experts);
    return s == STATUS_OK ? add_experts(c, &v, &stack, scale, err) : s;
}
