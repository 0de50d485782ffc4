/* The forward pass, to be read from model_step downwards. The team runs it as one task, phase by phase;
 * between phases stands a barrier, and inside a phase each worker has rows, output columns or heads of its
 * own:
 *
 *   rows      x += what the last half layer gave; h = norm(x); quantise h
 *   columns   q, k, v = W h            and t = A h for the adapters
 *   columns   += scale * B t           only where an adapter of this batch has something
 *   heads     bias, q/k norm, rotation; K and V into their pages
 *   heads     attention: all rows read the pages, their own step's included: chunks change nothing
 *   columns   y = W_o att              (and the adapters' part likewise)
 *   rows      x += y; h = norm(x); quantise h
 *   columns   gate, up = W h; act(gate) * up          (layers with experts: experts.c)
 *   columns   y = W_down …
 *
 * A row's numbers are sums over that row alone, in an order that the kernels fix: no share, no neighbour and
 * no thread count changes them. Nothing is allocated. What this file doesn't do: sampling, scheduling, page
 * accounting. */
#include <math.h>
#include <string.h>

#include "step.h"

/* ---- shares ---- */

void share_rows(const struct crew *c, uint32_t n_rows, uint32_t *begin, uint32_t *end)
{
    uint64_t b, e;
    team_share(n_rows, 1, c->worker, c->n_workers, &b, &e);
    *begin = (uint32_t)b;
    *end = (uint32_t)e;
}

struct panels share_panels(const struct crew *c, uint32_t rows, uint32_t grain)
{
    uint64_t begin, end;
    team_share((rows + PANEL_ROWS - 1) / PANEL_ROWS, grain, c->worker, c->n_workers, &begin, &end);
    return (struct panels){(uint32_t)begin, (uint32_t)end};
}

void crew_barrier(const struct crew *c)
{
    team_barrier(c->s->team);
}

unsigned crew_arrive(const struct crew *c)
{
    return team_arrive(c->s->team);
}

void crew_wait(const struct crew *c, unsigned ticket)
{
    team_wait(c->s->team, ticket);
}

/* ---- activations ---- */

struct acts acts_of(const struct crew *c, const float *x, uint32_t n_rows, uint32_t cols)
{
    const struct step_space *s = c->s;
    return (struct acts){.x = x, .x_stride = cols, .n_rows = n_rows, .cols = cols, .blocks = s->act_blocks};
}

bool wants_int8(const struct crew *c, const struct packed *w, unsigned n)
{
    bool any = false;
    for (unsigned i = 0; i < n; i++)
        any = any || dtype_is_quantized(w[i].type);
    return any && c->k->act_mode == ACT_MODE_INT8;
}

void quantize_share(const struct crew *c, const struct acts *x, const struct packed *w, unsigned n)
{
    uint32_t begin, end;
    share_rows(c, x->n_rows, &begin, &end);
    if (begin != end && wants_int8(c, w, n))
        c->k->quantize_rows(x, begin, end);
}

/* y = norm(x) with the weight w and, for families of that kind, the bias; y may be x. */
static void norm_row(const struct crew *c, const float *w, const float *bias, uint32_t n, const float *x,
                     float *y)
{
    float eps = (float)c->m->config.norm_eps;
    if (c->m->family->layer_norm)
        c->k->layer_norm(x, w, bias, eps, n, y);
    else
        c->k->rms_norm(x, w, c->m->norm_offset, eps, n, y);
}

/* A norm of a layer over one row, with the weights of the row's adapter where it has some; a copy where the
 * family has no norm there. */
static void layer_norm(const struct crew *c, uint32_t layer, uint32_t row, enum norm_id norm, const float *x,
                       float *y)
{
    const struct model_layer *l = &c->m->layers[layer];
    uint32_t n = norm_length(c->m, norm);
    const float *w = lora_norm(c, row, layer, norm), *bias = lora_norm_bias(c, row, layer, norm);
    if (l->norm[norm])
        norm_row(c, w ? w : l->norm[norm], bias ? bias : l->norm_bias[norm], n, x, y);
    else if (x != y)
        memcpy(y, x, n * sizeof *y);
}

/* ---- rows between the matrix products ---- */

static void embed_row(const struct crew *c, uint32_t row)
{
    const struct model *m = c->m;
    uint32_t n = m->config.hidden_size;
    float *x = c->s->x + (size_t)row * n;
    lora_embed(c, row, x);
    if (m->embed_scale != 1)
        c->k->scale(x, m->embed_scale, n, x);
    if (m->position_embed.data) {
        float *learned = c->s->h + (size_t)row * n;
        packed_row_f32(&m->position_embed, c->s->position[row], learned);
        c->k->add(x, learned, n, x);
    }
    for (int i = 0; i < 2 && m->rope[i].n_half > 0; i++) {
        size_t at = (size_t)row * m->rope[i].n_half;
        rope_row(&m->rope[i], c->s->position[row], c->s->length[row], c->s->cos[i] + at, c->s->sin[i] + at);
    }
}

/* Where some of a row's values stand: a site of a layer, values [at, at + n). */
struct values {
    uint32_t layer, row;
    enum lora_site site;
    uint32_t at, n;
};

/* The site's bias, the adapter's where it has one, onto those values. */
static void add_bias(const struct crew *c, struct values v, float *y)
{
    const float *own = lora_bias(c, v.row, v.layer, v.site);
    const float *bias = own ? own : c->m->layers[v.layer].bias[v.site];
    if (bias)
        c->k->add(y, bias + v.at, v.n, y);
}

/* x += y, by way of the bias of the site that gave y, and the norm and multiplier that the family has there.
 */
static void add_row(const struct crew *c, uint32_t layer, uint32_t row, enum lora_site site,
                    enum norm_id post_norm)
{
    uint32_t n = c->m->config.hidden_size;
    float *x = c->s->x + (size_t)row * n, *y = c->s->y + (size_t)row * n;
    add_bias(c, (struct values){layer, row, site, 0, n}, y);
    layer_norm(c, layer, row, post_norm, y, y);
    if (c->m->residual_scale != 1)
        c->k->scale(y, c->m->residual_scale, n, y);
    c->k->add(x, y, n, x);
}

static void add_attention(const struct crew *c, uint32_t layer, uint32_t row)
{
    add_row(c, layer, row, LORA_SITE_O, NORM_ATTN_OUT);
}

static void add_feed_forward(const struct crew *c, uint32_t layer, uint32_t row)
{
    if (c->m->layers[layer].experts)
        experts_sum(c, row);
    add_row(c, layer, row, LORA_SITE_DOWN, NORM_FFN_OUT);
}

struct lora_place place_in(const struct crew *c, uint32_t layer, enum lora_group_id group, uint32_t rows)
{
    struct panels own = share_panels(c, rows, 1);
    return (struct lora_place){c->s->segments, c->s->n_segments, layer, -1, group, {own, own, own}};
}

struct low_rank low_rank_begin(const struct crew *c, const struct lora_place *p, const struct acts *x)
{
    struct low_rank t = {.any = lora_any(p)};
    if (!t.any)
        return t;
    lora_shrink(c, p, x);
    t.ticket = crew_arrive(c);
    return t;
}

bool low_rank_ready(const struct crew *c, struct low_rank t)
{
    if (t.any)
        crew_wait(c, t.ticket);
    return t.any;
}

/* ---- attention half ---- */

static void attention_in(const struct crew *c, uint32_t layer)
{
    const struct step_space *s = c->s;
    const struct model_layer *l = &c->m->layers[layer];
    uint32_t begin, end, n = c->m->config.hidden_size;
    share_rows(c, s->n_rows, &begin, &end);
    for (uint32_t row = begin; row < end; row++) {
        if (layer == 0)
            embed_row(c, row);
        else
            add_feed_forward(c, layer - 1, row);
        layer_norm(c, layer, row, NORM_ATTN_IN, s->x + (size_t)row * n, s->h + (size_t)row * n);
    }
    struct acts h = acts_of(c, s->h, s->n_rows, n);
    quantize_share(c, &h, &l->w[LORA_SITE_Q], 3);
}

static void project_qkv(const struct crew *c, uint32_t layer)
{
    const struct step_space *s = c->s;
    const struct model *m = c->m;
    const struct packed *w = m->layers[layer].w;
    struct acts h = acts_of(c, s->h, s->n_rows, m->config.hidden_size);
    struct lora_place p = place_in(c, layer, LORA_GROUP_QKV, m->q_dim);
    p.own[1] = p.own[2] = share_panels(c, m->kv_dim, 1);
    struct low_rank t = low_rank_begin(c, &p, &h);
    lora_linear(c, &p, LORA_SITE_Q, &w[LORA_SITE_Q], &h, s->q);
    lora_linear(c, &p, LORA_SITE_K, &w[LORA_SITE_K], &h, s->k);
    lora_linear(c, &p, LORA_SITE_V, &w[LORA_SITE_V], &h, s->v);
    if (!low_rank_ready(c, t))
        return;
    lora_expand(c, &p, 0, m->q_dim, s->q);
    lora_expand(c, &p, 1, m->kv_dim, s->k);
    lora_expand(c, &p, 2, m->kv_dim, s->v);
}

/* Norm and rotation of n_heads neighbouring heads of one row. */
static void finish_heads(const struct crew *c, uint32_t layer, uint32_t row, enum norm_id norm,
                         uint32_t n_heads, float *x)
{
    const struct model_layer *l = &c->m->layers[layer];
    uint32_t head_dim = c->m->config.head_dim, n_half = c->m->rope[l->rope].n_half;
    size_t at = (size_t)row * n_half;
    for (uint32_t i = 0; !c->m->family->wide_qk_norm && i < n_heads; i++)
        layer_norm(c, layer, row, norm, x + (size_t)i * head_dim, x + (size_t)i * head_dim);
    if (n_half > 0)
        c->k->rope(x, n_heads, head_dim, 2 * n_half, c->s->cos[l->rope] + at, c->s->sin[l->rope] + at);
}

/* One kv head of a row, with the query heads that share it; their biases are in. */
static void finish_group(const struct crew *c, uint32_t layer, uint32_t row, uint32_t kv_head)
{
    const struct step_space *s = c->s;
    const struct model *m = c->m;
    uint32_t head_dim = m->config.head_dim, n_group = m->config.n_heads / m->config.n_kv_heads;
    float *q = s->q + (size_t)row * m->q_dim + (size_t)kv_head * n_group * head_dim;
    float *k = s->k + (size_t)row * m->kv_dim + (size_t)kv_head * head_dim;
    const float *v = s->v + (size_t)row * m->kv_dim + (size_t)kv_head * head_dim;
    finish_heads(c, layer, row, NORM_Q, n_group, q);
    finish_heads(c, layer, row, NORM_K, 1, k);
    attend_store(c, (struct kv_place){layer, row, kv_head}, k, v);
}

/* n_kv kv heads of a row from kv_head on. */
static void finish_part(const struct crew *c, uint32_t layer, uint32_t row, uint32_t kv_head, uint32_t n_kv)
{
    const struct step_space *s = c->s;
    const struct model *m = c->m;
    uint32_t head_dim = m->config.head_dim, n_group = m->config.n_heads / m->config.n_kv_heads;
    uint32_t at_q = kv_head * n_group * head_dim, at_k = kv_head * head_dim;
    float *q = s->q + (size_t)row * m->q_dim + at_q, *k = s->k + (size_t)row * m->kv_dim + at_k;
    add_bias(c, (struct values){layer, row, LORA_SITE_Q, at_q, n_kv * n_group * head_dim}, q);
    add_bias(c, (struct values){layer, row, LORA_SITE_K, at_k, n_kv * head_dim}, k);
    add_bias(c, (struct values){layer, row, LORA_SITE_V, at_k, n_kv * head_dim},
             s->v + (size_t)row * m->kv_dim + at_k);
    if (m->family->wide_qk_norm) {
        layer_norm(c, layer, row, NORM_Q, q, q);
        layer_norm(c, layer, row, NORM_K, k, k);
    }
    for (uint32_t i = 0; i < n_kv; i++)
        finish_group(c, layer, row, kv_head + i);
}

/* A worker has (row, kv head) pairs, or whole rows where a norm spans the heads. */
static void finish_qkv(const struct crew *c, uint32_t layer)
{
    uint32_t n_kv_heads = c->m->config.n_kv_heads, n_parts = c->m->family->wide_qk_norm ? 1 : n_kv_heads;
    uint64_t begin, end;
    team_share((uint64_t)c->s->n_rows * n_parts, 1, c->worker, c->n_workers, &begin, &end);
    for (uint64_t i = begin; i < end; i++)
        finish_part(c, layer, (uint32_t)(i / n_parts), (uint32_t)(i % n_parts), n_kv_heads / n_parts);
}

/* y = W x with the adapters' part, behind the barrier that completed x. */
static void project_out(const struct crew *c, uint32_t layer, enum lora_site site, enum lora_group_id group,
                        const struct acts *x)
{
    const struct packed *w = &c->m->layers[layer].w[site];
    struct lora_place p = place_in(c, layer, group, w->rows);
    if (wants_int8(c, w, 1)) {
        quantize_share(c, x, w, 1);
        crew_barrier(c);
    }
    struct low_rank t = low_rank_begin(c, &p, x);
    lora_linear(c, &p, site, w, x, c->s->y);
    if (low_rank_ready(c, t))
        lora_expand(c, &p, 0, w->rows, c->s->y);
}

static void attention_half(const struct crew *c, uint32_t layer)
{
    attention_in(c, layer);
    crew_barrier(c);
    project_qkv(c, layer);
    crew_barrier(c);
    finish_qkv(c, layer);
    crew_barrier(c);
    attend(c, layer);
    crew_barrier(c);
    struct acts att = acts_of(c, c->s->att, c->s->n_rows, c->m->q_dim);
    project_out(c, layer, LORA_SITE_O, LORA_GROUP_O, &att);
    crew_barrier(c);
}

/* ---- feed-forward half ---- */

static void feed_forward_in(const struct crew *c, uint32_t layer)
{
    const struct step_space *s = c->s;
    const struct model_layer *l = &c->m->layers[layer];
    uint32_t begin, end, n = c->m->config.hidden_size;
    share_rows(c, s->n_rows, &begin, &end);
    for (uint32_t row = begin; row < end; row++) {
        add_attention(c, layer, row);
        layer_norm(c, layer, row, NORM_FFN_IN, s->x + (size_t)row * n, s->h + (size_t)row * n);
    }
    struct acts h = acts_of(c, s->h, s->n_rows, n);
    if (l->experts)
        quantize_share(c, &h, &l->w[LORA_SITE_ROUTER], 1);
    else
        quantize_share(c, &h, &l->w[LORA_SITE_GATE], 2);
}

void act_mul(const struct crew *c, const float *gate, const float *up, uint32_t n, float *y)
{
    switch (c->m->config.act) {
    case ACT_SILU:
        c->k->silu_mul(gate, up, n, y);
        break;
    case ACT_GELU:
        c->k->gelu_mul(gate, up, n, y);
        break;
    case ACT_GELU_TANH:
        c->k->gelu_tanh_mul(gate, up, n, y);
        break;
    case ACT_RELU:
        c->k->relu_mul(gate, up, n, y);
        break;
    }
}

/* act(gate) * up, or act(up), into gate, in the columns that lora_linear gave this worker. */
static void activate(const struct crew *c, uint32_t layer)
{
    uint32_t begin, end, n = c->m->config.intermediate_size;
    share_rows(c, c->m->layers[layer].w[LORA_SITE_UP].n_panels, &begin, &end);
    begin *= PANEL_ROWS;
    end = end * PANEL_ROWS < n ? end * PANEL_ROWS : n;
    for (uint32_t row = 0; begin < end && row < c->s->n_rows; row++) {
        float *gate = c->s->gate + (size_t)row * n + begin, *up = c->s->up + (size_t)row * n + begin;
        add_bias(c, (struct values){layer, row, LORA_SITE_UP, begin, end - begin}, up);
        if (c->m->family->no_gate) {
            act_mul(c, up, NULL, end - begin, gate);
            continue;
        }
        add_bias(c, (struct values){layer, row, LORA_SITE_GATE, begin, end - begin}, gate);
        act_mul(c, gate, up, end - begin, gate);
    }
}

static void project_gate_up(const struct crew *c, uint32_t layer)
{
    const struct step_space *s = c->s;
    const struct model_layer *l = &c->m->layers[layer];
    uint32_t n = c->m->config.intermediate_size;
    struct acts h = acts_of(c, s->h, s->n_rows, c->m->config.hidden_size);
    struct lora_place p = place_in(c, layer, LORA_GROUP_GATE_UP, n);
    struct low_rank t = low_rank_begin(c, &p, &h);
    if (!c->m->family->no_gate)
        lora_linear(c, &p, LORA_SITE_GATE, &l->w[LORA_SITE_GATE], &h, s->gate);
    lora_linear(c, &p, LORA_SITE_UP, &l->w[LORA_SITE_UP], &h, s->up);
    if (low_rank_ready(c, t)) {
        lora_expand(c, &p, 0, n, s->gate);
        lora_expand(c, &p, 1, n, s->up);
    }
    activate(c, layer);
}

static void feed_forward_half(const struct crew *c, uint32_t layer)
{
    feed_forward_in(c, layer);
    crew_barrier(c);
    if (c->m->layers[layer].experts) {
        experts_run(c, layer);
        crew_barrier(c);
        return;
    }
    project_gate_up(c, layer);
    crew_barrier(c);
    struct acts act = acts_of(c, c->s->gate, c->s->n_rows, c->m->config.intermediate_size);
    project_out(c, layer, LORA_SITE_DOWN, LORA_GROUP_DOWN, &act);
    crew_barrier(c);
}

/* ---- logits ---- */

static void cap_logits(const struct crew *c)
{
    const struct model_config *config = &c->m->config;
    float cap = (float)config->final_logit_softcap, scale = c->m->logit_scale;
    uint32_t begin, end, n = config->vocab_size;
    if (cap == 0 && scale == 1)
        return;
    share_rows(c, c->m->head.n_panels, &begin, &end);
    begin *= PANEL_ROWS;
    end = end * PANEL_ROWS < n ? end * PANEL_ROWS : n;
    for (uint32_t row = 0; row < c->s->n_logit_rows; row++) {
        float *y = c->s->out + (size_t)row * n;
        for (uint32_t i = begin; i < end; i++) {
            float z = y[i] * scale;
            y[i] = cap != 0 ? cap * tanhf(z / cap) : z;
        }
    }
}

static void head(const struct crew *c)
{
    const struct step_space *s = c->s;
    const struct model *m = c->m;
    uint32_t begin, end, n = m->config.hidden_size;
    struct acts x = acts_of(c, s->final, s->n_logit_rows, n);
    struct panels own = share_panels(c, m->head.rows, 1);
    struct lora_place p = {s->head_segments, s->n_head_segments, 0, -1, LORA_GROUP_COUNT, {own}};
    share_rows(c, s->n_logit_rows, &begin, &end);
    for (uint32_t i = begin; i < end; i++) {
        uint32_t row = s->logit_row[i];
        add_feed_forward(c, m->config.n_layers - 1, row);
        const float *w = lora_norm(c, row, 0, NORM_FINAL), *bias = lora_norm_bias(c, row, 0, NORM_FINAL);
        norm_row(c, w ? w : m->final_norm, bias ? bias : m->final_norm_bias, n, s->x + (size_t)row * n,
                 s->final + (size_t)i * n);
    }
    quantize_share(c, &x, &m->head, 1);
    crew_barrier(c);
    struct low_rank t = low_rank_begin(c, &p, &x);
    lora_linear(c, &p, LORA_SITE_LM_HEAD, &m->head, &x, s->out);
    lora_head_rows(c, &p, &x, m->config.vocab_size, s->out);
    if (low_rank_ready(c, t))
        lora_expand(c, &p, 0, m->config.vocab_size, s->out);
    cap_logits(c);
}

/* ---- the step ---- */

static void step_task(void *arg, unsigned worker, unsigned n_workers)
{
    struct step_space *s = arg;
    struct crew c = {.s = s, .m = s->now, .k = s->m->kernels, .worker = worker, .n_workers = n_workers};
    for (uint32_t layer = 0; layer < c.m->config.n_layers; layer++) {
        attention_half(&c, layer);
        feed_forward_half(&c, layer);
    }
    if (s->n_logit_rows > 0)
        head(&c);
}

void model_step(const struct model *m, struct step_space *s, struct kv_cache *kv, const struct batch *batch,
                float **logits)
{
    step_plan(s, m, kv, batch);
    team_run(s->team, step_task, s);
    *logits = s->out;
}
