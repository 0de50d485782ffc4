/* The feed-forward half of a sparse layer: a router picks a few experts for each row, and the row's result is
 * their weighted sum (Mixtral, arXiv 2401.04088, section 2.1; Qwen3, arXiv 2505.09388).
 *
 *   columns   route = W_r h
 *   rows      softmax over all experts; the n_experts_used largest, the lower index among equals
 *   one       pairs (row, expert) listed by expert, rows in the batch's order
 *   pairs     h copied to its pairs; rounded
 *   columns   gate, up = W_e h; act(gate) * up       expert by expert
 *   columns   W_e,down …
 *   rows      y = sum over the row's experts, ascending
 *
 * A row's picks, weights and sums depend on that row alone; its neighbours only decide where its pairs lie.
 * Nothing is allocated. */
#include <string.h>

#include "step.h"

/* ---- routing ---- */

static void route(const struct crew *c, uint32_t layer)
{
    const struct step_space *s = c->s;
    const struct packed *w = &c->m->layers[layer].w[LORA_SITE_ROUTER];
    struct acts h = acts_of(s->h, s->n_rows, c->m->config.hidden_size, s->in);
    struct lora_place p = place_in(c, layer, LORA_GROUP_ROUTER);
    p.own[0] = share_panels(c, w->rows);
    struct low_rank t = low_rank_begin(c, &p, &h);
    lora_linear(c, &p, LORA_SITE_ROUTER, w, &h, s->route);
    if (low_rank_ready(c, &t))
        lora_expand(c, &p, 0, w->rows, s->route);
}

/* The row's experts and their weights, ascending by expert. */
static void pick_row(const struct crew *c, uint32_t row)
{
    const struct model_config *config = &c->m->config;
    uint32_t n = config->n_experts, n_used = config->n_experts_used;
    float *p = c->s->route + (size_t)row * n, *weight = c->s->pick_weight + (size_t)row * n_used, sum = 0;
    uint32_t *pick = c->s->pick + (size_t)row * n_used;
    c->k->softmax(p, n);
    for (uint32_t i = 0; i < n_used; i++) {
        uint32_t expert = c->k->argmax(p, n), at = i;
        float w = p[expert];
        p[expert] = -1; /* below every probability */
        sum += w;
        for (; at > 0 && pick[at - 1] > expert; at--) {
            pick[at] = pick[at - 1];
            weight[at] = weight[at - 1];
        }
        pick[at] = expert;
        weight[at] = w;
    }
    for (uint32_t i = 0; i < n_used && config->norm_topk_prob; i++)
        weight[i] /= sum;
}

static void pick(const struct crew *c)
{
    uint32_t begin, end;
    share_rows(c, c->s->n_rows, &begin, &end);
    for (uint32_t row = begin; row < end; row++)
        pick_row(c, row);
}

/* Runs of pairs of one expert whose rows have one adapter. */
static void list_segments(struct step_space *s, uint32_t n_experts)
{
    uint32_t n = 0;
    for (uint32_t e = 0; e < n_experts; e++) {
        s->expert_segment[e] = n;
        for (uint32_t i = s->expert_begin[e]; i < s->expert_begin[e + 1]; i++) {
            const struct lora *lora = s->row_lora[s->pair_row[i]];
            if (n == s->expert_segment[e] || s->pair_segments[n - 1].lora != lora)
                s->pair_segments[n++] = (struct segment){.lora = lora, .row_begin = i};
            s->pair_segments[n - 1].row_end = i + 1;
        }
    }
    s->expert_segment[n_experts] = n;
}

/* Lists the pairs; one worker does it. */
static void list_pairs(struct step_space *s, const struct model_config *config)
{
    uint32_t n_pairs = s->n_rows * config->n_experts_used, begin = 0;
    memset(s->expert_next, 0, config->n_experts * sizeof *s->expert_next);
    for (uint32_t i = 0; i < n_pairs; i++)
        s->expert_next[s->pick[i]]++;
    for (uint32_t e = 0; e < config->n_experts; e++) {
        uint32_t n = s->expert_next[e];
        s->expert_begin[e] = s->expert_next[e] = begin;
        begin += n;
    }
    s->expert_begin[config->n_experts] = begin;
    for (uint32_t i = 0; i < n_pairs; i++) {
        s->pair_of[i] = s->expert_next[s->pick[i]]++;
        s->pair_row[s->pair_of[i]] = i / config->n_experts_used;
    }
    list_segments(s, config->n_experts);
}

/* ---- the experts ---- */

static uint32_t n_pairs(const struct crew *c)
{
    return c->s->n_rows * c->m->config.n_experts_used;
}

/* An expert's pairs as a place of adapters. */
static struct lora_place place_of(const struct crew *c, uint32_t layer, uint32_t expert,
                                  enum lora_group_id group)
{
    const struct model_config *config = &c->m->config;
    const uint32_t *at = &c->s->expert_segment[expert];
    uint32_t rows = group == LORA_GROUP_DOWN ? config->hidden_size : config->expert_intermediate_size;
    struct panels own = share_panels(c, rows);
    return (struct lora_place){
        c->s->pair_segments + at[0], at[1] - at[0], layer, (int32_t)expert, group, {own, own}, 0, n_pairs(c)};
}

/* low_rank_begin for all experts at once. */
static struct low_rank shrink_all(const struct crew *c, uint32_t layer, enum lora_group_id group,
                                  const struct acts *x)
{
    struct low_rank t = {0};
    for (uint32_t e = 0; e < c->m->config.n_experts; e++) {
        struct lora_place p = place_of(c, layer, e, group);
        if (!lora_any(&p))
            continue;
        t.any = true;
        lora_shrink(c, &p, x);
    }
    if (t.any)
        t.ticket = crew_arrive(c);
    return t;
}

static void gather(const struct crew *c, uint32_t layer)
{
    uint32_t begin, end, n = c->m->config.hidden_size;
    share_rows(c, n_pairs(c), &begin, &end);
    for (uint32_t i = begin; i < end; i++)
        memcpy(c->s->pair + (size_t)i * n, c->s->h + (size_t)c->s->pair_row[i] * n, n * sizeof(float));
    struct acts x = acts_of(c->s->pair, n_pairs(c), n, c->s->in);
    quantize_share(c, &x, c->m->layers[layer].experts, 3 * c->m->config.n_experts);
}

/* act(gate) * up into gate, in the columns that lora_linear gave this worker. */
static void activate_pairs(const struct crew *c)
{
    uint32_t begin, end, n = c->m->config.expert_intermediate_size;
    share_rows(c, (n + PANEL_ROWS - 1) / PANEL_ROWS, &begin, &end);
    begin *= PANEL_ROWS;
    end = end * PANEL_ROWS < n ? end * PANEL_ROWS : n;
    for (uint32_t i = 0; begin < end && i < n_pairs(c); i++) {
        float *gate = c->s->gate + (size_t)i * n + begin;
        act_mul(c, gate, c->s->up + (size_t)i * n + begin, end - begin, gate);
    }
}

static void experts_gate_up(const struct crew *c, uint32_t layer)
{
    uint32_t n_experts = c->m->config.n_experts, n = c->m->config.expert_intermediate_size;
    struct acts x = acts_of(c->s->pair, n_pairs(c), c->m->config.hidden_size, c->s->in);
    struct low_rank t = shrink_all(c, layer, LORA_GROUP_GATE_UP, &x);
    for (uint32_t e = 0; e < n_experts; e++) {
        const struct packed *w = c->m->layers[layer].experts + (size_t)3 * e;
        struct lora_place p = place_of(c, layer, e, LORA_GROUP_GATE_UP);
        lora_linear(c, &p, LORA_SITE_GATE, &w[0], &x, c->s->gate);
        lora_linear(c, &p, LORA_SITE_UP, &w[1], &x, c->s->up);
    }
    bool any = low_rank_ready(c, &t);
    for (uint32_t e = 0; any && e < n_experts; e++) {
        struct lora_place p = place_of(c, layer, e, LORA_GROUP_GATE_UP);
        lora_expand(c, &p, 0, n, c->s->gate);
        lora_expand(c, &p, 1, n, c->s->up);
    }
    activate_pairs(c);
}

/* The pairs' inputs have been read: their outputs take the place. */
static void experts_down(const struct crew *c, uint32_t layer)
{
    const struct packed *w = c->m->layers[layer].experts;
    uint32_t n_experts = c->m->config.n_experts;
    struct acts x = acts_of(c->s->gate, n_pairs(c), c->m->config.expert_intermediate_size, c->s->mid);
    if (wants_int8(c, w, 3 * n_experts)) {
        quantize_share(c, &x, w, 3 * n_experts);
        crew_barrier(c);
    }
    struct low_rank t = shrink_all(c, layer, LORA_GROUP_DOWN, &x);
    for (uint32_t e = 0; e < n_experts; e++) {
        struct lora_place p = place_of(c, layer, e, LORA_GROUP_DOWN);
        lora_linear(c, &p, LORA_SITE_DOWN, &w[(size_t)3 * e + 2], &x, c->s->pair);
    }
    bool any = low_rank_ready(c, &t);
    for (uint32_t e = 0; any && e < n_experts; e++) {
        struct lora_place p = place_of(c, layer, e, LORA_GROUP_DOWN);
        lora_expand(c, &p, 0, c->m->config.hidden_size, c->s->pair);
    }
}

void experts_run(const struct crew *c, uint32_t layer)
{
    route(c, layer);
    crew_barrier(c);
    pick(c);
    crew_barrier(c);
    if (c->worker == 0)
        list_pairs(c->s, &c->m->config);
    crew_barrier(c);
    gather(c, layer);
    crew_barrier(c);
    experts_gate_up(c, layer);
    crew_barrier(c);
    experts_down(c, layer);
}

void experts_sum(const struct crew *c, uint32_t row)
{
    uint32_t n = c->m->config.hidden_size, n_used = c->m->config.n_experts_used;
    float *y = c->s->y + (size_t)row * n;
    memset(y, 0, n * sizeof *y);
    for (uint32_t i = 0; i < n_used; i++) {
        size_t at = (size_t)row * n_used + i;
        float *part = c->s->pair + (size_t)c->s->pair_of[at] * n;
        c->k->scale(part, c->s->pick_weight[at], n, part);
        c->k->add(y, part, n, y);
    }
}
