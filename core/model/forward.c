/* The forward pass, to be read from model_step downwards. The team runs it as one task, phase by phase;
 * between phases stands a barrier, and inside a phase each worker has rows of its own, or claims columns or
 * heads piece by piece (crew_claim) and does all that follows on them:
 *
 *   rows     x += what the last half layer gave; h = norm(x); quantise h
 *   heads    t = A h for the adapters, then q, k, v = W h, += scale * B t where an adapter has something: t
 *            was complete while W h was made (low_rank); bias, q/k norm, rotation; K and V into their pages
 *   heads    attention: all rows read the pages, their own step's included: chunks change nothing; quantise
 *   columns  y = W_o att, and the adapters' part likewise
 *   rows     x += y; h = norm(x); quantise h
 *   columns  gate, up = W h; act(gate) * up; quantise (layers with experts: experts.c)
 *   columns  y = W_down (act(gate) * up)
 *
 * Behind the five of heads and columns stands a barrier. Behind rows only where they are shared out: in steps
 * of very few rows every worker makes them for itself (crew.alone), with more that costs what the two
 * barriers would save, or more (docs/performance.md). Where q's and k's norm spans all heads, or heads are no
 * whole panels, or too few for the workers, they are finished behind one more.
 *
 * A row's numbers are sums over that row alone, in an order that the kernels fix: no share, no neighbour and
 * no thread count changes them. Nothing is allocated. What this file doesn't do: sampling, scheduling, page
 * accounting. */
#include <math.h>
#include <string.h>

#include "step.h"

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
 * A worker that is alone leaves the step's y to the others. */
static void add_row(const struct crew *c, uint32_t layer, uint32_t row, enum lora_site site,
                    enum norm_id post_norm)
{
    uint32_t n = c->m->config.hidden_size;
    float *x = c->x + (size_t)row * n, *y = c->y + (size_t)row * n;
    if (c->alone)
        memcpy(y, c->s->y + (size_t)row * n, n * sizeof *y);
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

struct lora_place place_in(const struct crew *c, uint32_t layer, enum lora_group_id group)
{
    return (struct lora_place){c->s->segments, c->s->n_segments, layer, -1, group, {{0, 0}}, 0, c->s->n_rows};
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

bool low_rank_ready(const struct crew *c, struct low_rank *t)
{
    if (t->any && !t->is_complete)
        crew_wait(c, t->ticket);
    t->is_complete = true;
    return t->any;
}

/* ---- attention half ---- */

/* The rows' x from the tokens; a worker that is alone takes its own copy of it. */
static void embed(const struct crew *c)
{
    uint32_t begin, end, n = c->m->config.hidden_size;
    share_rows(c, c->s->n_rows, &begin, &end);
    for (uint32_t row = begin; row < end; row++)
        embed_row(c, row);
    if (!c->alone)
        return;
    crew_barrier(c);
    memcpy(c->x, c->s->x, (size_t)c->s->n_rows * n * sizeof *c->x);
}

/* Behind the rows' part: who shared them out waits for the others. */
static void rows_ready(const struct crew *c)
{
    if (!c->alone)
        crew_barrier(c);
}

static void attention_in(const struct crew *c, uint32_t layer)
{
    uint32_t begin, end, n = c->m->config.hidden_size;
    own_rows(c, c->s->n_rows, &begin, &end);
    for (uint32_t row = begin; row < end; row++) {
        if (layer > 0)
            add_feed_forward(c, layer - 1, row);
        layer_norm(c, layer, row, NORM_ATTN_IN, c->x + (size_t)row * n, c->h + (size_t)row * n);
    }
    struct acts h = acts_of(c->h, c->s->n_rows, n, c->in);
    quantize_own(c, &h, &c->m->layers[layer].w[LORA_SITE_Q], 3);
    rows_ready(c);
}

/* ---- q, k, v and what follows on them ---- */

/* Heads of q, k and v that a worker finishes; numbers of heads. */
struct heads {
    struct panels q, k, v;
};

static struct panels part_of(struct panels all, uint32_t first, uint32_t n)
{
    uint32_t b = all.begin > first ? all.begin - first : 0, e = all.end > first ? all.end - first : 0;
    return (struct panels){b < n ? b : n, e < n ? e : n};
}

/* Whether shares of q, k and v are whole heads, so that a worker finishes what it began: heads are whole
 * panels, no norm spans them, and there are enough. Else columns are shared, and finished behind a barrier.
 */
static bool shares_heads(const struct crew *c)
{
    const struct model_config *config = &c->m->config;
    uint32_t n = config->n_heads + 2 * config->n_kv_heads, most = (n + c->n_workers - 1) / c->n_workers;
    return config->head_dim % PANEL_ROWS == 0 && !c->m->family->wide_qk_norm &&
           most * c->n_workers <= n + n / 8;
}

static void project_qkv(const struct crew *c, const struct lora_place *p, const struct acts *h,
                        struct low_rank *t)
{
    const struct step_space *s = c->s;
    const struct packed *w = c->m->layers[p->layer].w;
    const struct product of[] = {{LORA_SITE_Q, &w[LORA_SITE_Q], h, s->q},
                                 {LORA_SITE_K, &w[LORA_SITE_K], h, s->k},
                                 {LORA_SITE_V, &w[LORA_SITE_V], h, s->v}};
    lora_project(c, p, of, 3, t);
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

/* Bias, and q's and k's norm where it spans all heads. */
static void finish_row(const struct crew *c, uint32_t layer, uint32_t row, const struct heads *own)
{
    const struct model *m = c->m;
    uint32_t head_dim = m->config.head_dim;
    float *q = c->s->q + (size_t)row * m->q_dim, *k = c->s->k + (size_t)row * m->kv_dim;
    float *v = c->s->v + (size_t)row * m->kv_dim;
    uint32_t at_q = own->q.begin * head_dim, n_q = own->q.end * head_dim - at_q;
    uint32_t at_k = own->k.begin * head_dim, n_k = own->k.end * head_dim - at_k;
    uint32_t at_v = own->v.begin * head_dim, n_v = own->v.end * head_dim - at_v;
    add_bias(c, (struct values){layer, row, LORA_SITE_Q, at_q, n_q}, q + at_q);
    add_bias(c, (struct values){layer, row, LORA_SITE_K, at_k, n_k}, k + at_k);
    add_bias(c, (struct values){layer, row, LORA_SITE_V, at_v, n_v}, v + at_v);
    if (m->family->wide_qk_norm) {
        layer_norm(c, layer, row, NORM_Q, q, q);
        layer_norm(c, layer, row, NORM_K, k, k);
    }
    finish_heads(c, layer, row, NORM_Q, own->q.end - own->q.begin, q + at_q);
    finish_heads(c, layer, row, NORM_K, own->k.end - own->k.begin, k + at_k);
    for (uint32_t i = own->k.begin; i < own->k.end; i++)
        attend_store_k(c, (struct kv_place){layer, row, i}, k + (size_t)i * head_dim);
    for (uint32_t i = own->v.begin; i < own->v.end; i++)
        attend_store_v(c, (struct kv_place){layer, row, i}, v + (size_t)i * head_dim);
}

/* Behind shares of columns a worker has (row, kv head with its query heads) pairs, or whole rows where a norm
 * spans the heads. */
static void finish_shares(const struct crew *c, uint32_t layer)
{
    const struct model_config *config = &c->m->config;
    uint32_t n_kv = config->n_kv_heads, n_group = config->n_heads / n_kv;
    uint32_t n_parts = c->m->family->wide_qk_norm ? 1 : n_kv, n_each = n_kv / n_parts;
    uint64_t begin, end;
    team_share((uint64_t)c->s->n_rows * n_parts, 1, c->worker, c->n_workers, &begin, &end);
    for (uint64_t i = begin; i < end; i++) {
        uint32_t first = (uint32_t)(i % n_parts) * n_each;
        struct panels kv = {first, first + n_each};
        struct heads own = {{kv.begin * n_group, kv.end * n_group}, kv, kv};
        finish_row(c, layer, (uint32_t)(i / n_parts), &own);
    }
}

static struct panels panels_of(struct panels heads, uint32_t head_dim)
{
    uint32_t n = head_dim / PANEL_ROWS;
    return (struct panels){heads.begin * n, heads.end * n};
}

/* Pieces of the heads of q, k and v one behind another. */
static void make_heads(const struct crew *c, struct lora_place *p, const struct acts *h, struct low_rank *t)
{
    const struct model_config *config = &c->m->config;
    uint32_t n_q = config->n_heads, n_kv = config->n_kv_heads;
    struct panels all;
    while (crew_claim(c, claim_in(p->layer, CLAIM_QKV), n_q + 2 * n_kv, &all)) {
        const struct heads own = {part_of(all, 0, n_q), part_of(all, n_q, n_kv),
                                  part_of(all, n_q + n_kv, n_kv)};
        p->own[0] = panels_of(own.q, config->head_dim);
        p->own[1] = panels_of(own.k, config->head_dim);
        p->own[2] = panels_of(own.v, config->head_dim);
        project_qkv(c, p, h, t);
        for (uint32_t row = 0; row < c->s->n_rows; row++)
            finish_row(c, p->layer, row, &own);
    }
}

static void make_qkv(const struct crew *c, uint32_t layer)
{
    const struct model *m = c->m;
    struct acts h = acts_of(c->h, c->s->n_rows, m->config.hidden_size, c->in);
    struct lora_place p = place_in(c, layer, LORA_GROUP_QKV);
    struct low_rank t = low_rank_begin(c, &p, &h);
    if (shares_heads(c)) {
        make_heads(c, &p, &h, &t);
        low_rank_ready(c, &t); /* who got nothing waits too */
        return;
    }
    p.own[0] = share_panels(c, m->q_dim);
    p.own[1] = p.own[2] = share_panels(c, m->kv_dim);
    project_qkv(c, &p, &h, &t);
    crew_barrier(c);
    finish_shares(c, layer);
}

/* ---- the two ways back to the residual stream ---- */

/* A kv head's query heads are rounded by who computed them, where they are whole blocks. */
static bool rounds_heads(const struct crew *c)
{
    const struct model_config *config = &c->m->config;
    return config->n_heads / config->n_kv_heads * config->head_dim % ACT_BLOCK == 0;
}

void attended(const struct crew *c, uint32_t layer, uint32_t row, uint32_t kv_head)
{
    const struct model *m = c->m;
    uint32_t n = m->q_dim / m->config.n_kv_heads;
    struct acts att = acts_of(c->s->att, c->s->n_rows, m->q_dim, c->s->mid);
    if (rounds_heads(c) && wants_int8(c, &m->layers[layer].w[LORA_SITE_O], 1))
        quantize_part(c, &att, row, kv_head * n, n);
}

/* A piece of w's output rows, in units of `unit` rows. */
static bool claim_panels(const struct crew *c, uint32_t counter, const struct packed *w, uint32_t unit,
                         struct panels *out)
{
    uint32_t grain = unit / PANEL_ROWS;
    struct panels piece;
    if (!crew_claim(c, counter, (w->n_panels + grain - 1) / grain, &piece))
        return false;
    out->begin = piece.begin * grain;
    out->end = piece.end * grain < w->n_panels ? piece.end * grain : w->n_panels;
    return true;
}

/* y = W x with the adapters' part, behind the barrier that completed x and its int8 form. */
static void project_out(const struct crew *c, uint32_t layer, enum lora_site site, enum lora_group_id group,
                        const struct acts *x)
{
    const struct packed *w = &c->m->layers[layer].w[site];
    struct lora_place p = place_in(c, layer, group);
    struct low_rank t = low_rank_begin(c, &p, x);
    uint32_t counter = claim_in(layer, group == LORA_GROUP_O ? CLAIM_O : CLAIM_DOWN);
    while (claim_panels(c, counter, w, PANEL_ROWS, &p.own[0]))
        lora_project(c, &p, &(struct product){site, w, x, c->s->y}, 1, &t);
    low_rank_ready(c, &t);
}

static void attention_half(const struct crew *c, uint32_t layer)
{
    const struct packed *w = &c->m->layers[layer].w[LORA_SITE_O];
    struct acts att = acts_of(c->s->att, c->s->n_rows, c->m->q_dim, c->s->mid);
    crew_phase(c, PHASE_NORM);
    attention_in(c, layer);
    crew_phase(c, PHASE_QKV);
    make_qkv(c, layer);
    crew_barrier(c);
    crew_phase(c, PHASE_ATTEND);
    attend(c, layer);
    crew_barrier(c);
    crew_phase(c, PHASE_O);
    if (!rounds_heads(c) && wants_int8(c, w, 1)) {
        quantize_share(c, &att, w, 1);
        crew_barrier(c);
    }
    project_out(c, layer, LORA_SITE_O, LORA_GROUP_O, &att);
    crew_barrier(c);
}

/* ---- feed-forward half ---- */

static void feed_forward_in(const struct crew *c, uint32_t layer)
{
    const struct model_layer *l = &c->m->layers[layer];
    uint32_t begin, end, n = c->m->config.hidden_size;
    own_rows(c, c->s->n_rows, &begin, &end);
    for (uint32_t row = begin; row < end; row++) {
        add_attention(c, layer, row);
        layer_norm(c, layer, row, NORM_FFN_IN, c->x + (size_t)row * n, c->h + (size_t)row * n);
    }
    struct acts h = acts_of(c->h, c->s->n_rows, n, c->in);
    if (l->experts)
        quantize_own(c, &h, &l->w[LORA_SITE_ROUTER], 1);
    else
        quantize_own(c, &h, &l->w[LORA_SITE_GATE], 2);
    rows_ready(c);
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

/* act(gate) * up, or act(up), into gate, and rounded, in columns [begin, end) of a row. */
static void activate(const struct crew *c, uint32_t layer, uint32_t row, uint32_t begin, uint32_t end)
{
    uint32_t n = c->m->config.intermediate_size;
    float *gate = c->s->gate + (size_t)row * n + begin, *up = c->s->up + (size_t)row * n + begin;
    struct acts act = acts_of(c->s->gate, c->s->n_rows, n, c->s->mid);
    add_bias(c, (struct values){layer, row, LORA_SITE_UP, begin, end - begin}, up);
    if (c->m->family->no_gate) {
        act_mul(c, up, NULL, end - begin, gate);
    } else {
        add_bias(c, (struct values){layer, row, LORA_SITE_GATE, begin, end - begin}, gate);
        act_mul(c, gate, up, end - begin, gate);
    }
    if (wants_int8(c, &c->m->layers[layer].w[LORA_SITE_DOWN], 1))
        quantize_part(c, &act, row, begin, end - begin);
}

/* Columns of a piece: whole blocks of rounding, which are two panels. */
static void make_act(const struct crew *c, const struct lora_place *p, const struct acts *h,
                     struct low_rank *t)
{
    const struct step_space *s = c->s;
    const struct packed *w = c->m->layers[p->layer].w;
    uint32_t n = c->m->config.intermediate_size, begin = p->own[0].begin * PANEL_ROWS;
    uint32_t end = p->own[0].end * PANEL_ROWS < n ? p->own[0].end * PANEL_ROWS : n;
    const struct product of[] = {{LORA_SITE_GATE, &w[LORA_SITE_GATE], h, s->gate},
                                 {LORA_SITE_UP, &w[LORA_SITE_UP], h, s->up}};
    lora_project(c, p, c->m->family->no_gate ? of + 1 : of, c->m->family->no_gate ? 1 : 2, t);
    for (uint32_t row = 0; row < s->n_rows; row++)
        activate(c, p->layer, row, begin, end);
}

static void project_gate_up(const struct crew *c, uint32_t layer)
{
    const struct packed *w = &c->m->layers[layer].w[LORA_SITE_UP];
    struct acts h = acts_of(c->h, c->s->n_rows, c->m->config.hidden_size, c->in);
    struct lora_place p = place_in(c, layer, LORA_GROUP_GATE_UP);
    struct low_rank t = low_rank_begin(c, &p, &h);
    while (claim_panels(c, claim_in(layer, CLAIM_FEED_IN), w, ACT_BLOCK, &p.own[0])) {
        p.own[1] = p.own[0];
        make_act(c, &p, &h, &t);
    }
    low_rank_ready(c, &t);
}

static void feed_forward_half(const struct crew *c, uint32_t layer)
{
    struct acts act = acts_of(c->s->gate, c->s->n_rows, c->m->config.intermediate_size, c->s->mid);
    crew_phase(c, PHASE_NORM);
    feed_forward_in(c, layer);
    crew_phase(c, PHASE_FEED_IN);
    if (c->m->layers[layer].experts) {
        experts_run(c, layer);
        crew_barrier(c);
        return;
    }
    project_gate_up(c, layer);
    crew_barrier(c);
    crew_phase(c, PHASE_DOWN);
    project_out(c, layer, LORA_SITE_DOWN, LORA_GROUP_DOWN, &act);
    crew_barrier(c);
}

/* ---- logits ---- */

static void cap_logits(const struct crew *c, struct panels own)
{
    const struct model_config *config = &c->m->config;
    float cap = (float)config->final_logit_softcap, scale = c->m->logit_scale;
    uint32_t n = config->vocab_size, begin = own.begin * PANEL_ROWS;
    uint32_t end = own.end * PANEL_ROWS < n ? own.end * PANEL_ROWS : n;
    if (cap == 0 && scale == 1)
        return;
    for (uint32_t row = 0; row < c->s->n_logit_rows; row++) {
        float *y = c->s->out + (size_t)row * n;
        for (uint32_t i = begin; i < end; i++) {
            float z = y[i] * scale;
            y[i] = cap != 0 ? cap * tanhf(z / cap) : z;
        }
    }
}

/* Columns of whole peaks: the rows are chosen from and summed up by these, without being read again. */
static void find_peaks(const struct crew *c, struct panels own)
{
    const struct step_space *s = c->s;
    uint32_t n = c->m->config.vocab_size, n_peaks = n_peaks_of(n), begin = own.begin * PANEL_ROWS;
    uint32_t end = own.end * PANEL_ROWS < n ? own.end * PANEL_ROWS : n;
    for (size_t row = 0; row < s->n_logit_rows; row++) {
        size_t at = s->batch->logits_at + row, peak = begin / PEAK_VALUES;
        const float *x = s->out + row * n + begin, *factors = s->factors[row];
        c->k->peaks(x, end - begin, s->peaks + at * n_peaks + peak);
        for (size_t i = 0; i < STEP_SUMS; i++)
            if (factors[i] > 0)
                c->k->peak_sums(x, s->peaks + at * n_peaks + peak, factors[i], end - begin,
                                s->sums + (at * STEP_SUMS + i) * n_peaks + peak);
    }
}

static void head_in(const struct crew *c)
{
    const struct model *m = c->m;
    uint32_t begin, end, n = m->config.hidden_size;
    struct acts x = acts_of(c->final, c->s->n_logit_rows, n, c->in);
    own_rows(c, c->s->n_logit_rows, &begin, &end);
    for (uint32_t i = begin; i < end; i++) {
        uint32_t row = c->s->logit_row[i];
        add_feed_forward(c, m->config.n_layers - 1, row);
        const float *w = lora_norm(c, row, 0, NORM_FINAL), *bias = lora_norm_bias(c, row, 0, NORM_FINAL);
        norm_row(c, w ? w : m->final_norm, bias ? bias : m->final_norm_bias, n, c->x + (size_t)row * n,
                 c->final + (size_t)i * n);
    }
    if (c->alone && c->worker == 0 && c->s->batch->rows != STEP_LOGITS) /* the others have the same */
        memcpy(c->s->final, c->final, (size_t)c->s->n_logit_rows * n * sizeof *c->final);
    quantize_own(c, &x, &m->head, 1);
    rows_ready(c);
}

/* The logits of p's panels and what is made of them in the cache. */
static void head_tile(const struct crew *c, const struct lora_place *p, const struct acts *x,
                      struct low_rank *t)
{
    uint32_t vocab = c->m->config.vocab_size;
    lora_linear(c, p, LORA_SITE_LM_HEAD, &c->m->head, x, c->s->out);
    lora_head_rows(c, p, x, vocab, c->s->out);
    if (low_rank_ready(c, t))
        lora_expand(c, p, 0, vocab, c->s->out);
    cap_logits(c, p->own[0]);
    find_peaks(c, p->own[0]);
}

/* Panels of a tile whose logits stay in a core's second-level cache: those of one peak at least. */
#define TILE_LOGITS (32U * 1024U)
static uint32_t head_tile_panels(uint32_t n_rows)
{
    uint32_t n_peaks = n_rows ? TILE_LOGITS / PEAK_VALUES / n_rows : 0;
    return (n_peaks ? n_peaks : 1) * (PEAK_VALUES / PANEL_ROWS);
}

static void head(const struct crew *c)
{
    const struct step_space *s = c->s;
    const struct model *m = c->m;
    uint32_t n_panels = head_tile_panels(s->n_logit_rows);
    struct panels piece;
    struct lora_place p = {s->head_segments, s->n_head_segments, 0, -1,
                           LORA_GROUP_COUNT, {{0, 0}},           0, s->n_logit_rows};
    struct acts x = acts_of(c->final, s->n_logit_rows, m->config.hidden_size, c->in);
    crew_phase(c, PHASE_NORM);
    head_in(c);
    if (s->batch->rows == STEP_HIDDEN)
        return;
    crew_phase(c, PHASE_HEAD);
    struct low_rank t = low_rank_begin(c, &p, &x);
    while (claim_panels(c, m->config.n_layers * N_LAYER_CLAIMS, &m->head, PEAK_VALUES, &piece))
        for (uint32_t at = piece.begin; at < piece.end; at = p.own[0].end) {
            p.own[0] = (struct panels){at, piece.end - at < n_panels ? piece.end : at + n_panels};
            head_tile(c, &p, &x, &t);
        }
    low_rank_ready(c, &t);
}

/* ---- the step ---- */

static void step_task(void *arg, unsigned worker, unsigned n_workers)
{
    struct crew c = crew_of(arg, worker, n_workers);
    crew_begin(&c, PHASE_NORM);
    embed(&c);
    for (uint32_t layer = 0; layer < c.m->config.n_layers; layer++) {
        attention_half(&c, layer);
        feed_forward_half(&c, layer);
    }
    if (c.s->n_logit_rows > 0)
        head(&c);
    crew_phase(&c, PHASE_WAIT); /* for the end of the task: not counted */
}

void model_step(const struct model *m, struct step_space *s, struct kv_cache *kv, const struct batch *batch,
                float **logits)
{
    step_plan(s, m, kv, batch);
    team_run(s->team, step_task, s);
    *logits = s->out;
}

const float *step_hidden(const struct step_space *s)
{
    return s->final;
}

const float *step_peaks(const struct step_space *s)
{
    return s->peaks;
}

const double *step_sums(const struct step_space *s)
{
    return s->sums;
}
