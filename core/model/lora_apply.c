/* Low-rank math for a mixed batch: y += scale * B (A x), each row with its own adapter (Punica, arXiv
 * 2310.18547; here by segments, as rows of one adapter stand side by side).
 *
 *   shrink   t = A x, one stacked A for all sites that read x     small matrices: shared by (row tile, panel)
 *   barrier
 *   expand   y += scale * B t                                     by output columns, like the base's product
 *
 * Each number of t and y is one dot product of a kernel, so shares move work between threads and change no
 * result. */
#include "step.h"

#define TILE_ROWS 32U
/* A panel's pass costs about as much as this many rows even for one row: its weights must be read. */
#define PANEL_COST_ROWS 4U

static const struct lora_group *group_in(const struct lora *l, const struct lora_place *p)
{
    if (!l)
        return NULL;
    const struct lora_group *g =
        p->group < LORA_GROUP_COUNT ? &l->layers[p->layer].group[p->group] : &l->lm_head;
    return g->a.data ? g : NULL;
}

bool lora_any(const struct lora_place *p)
{
    for (uint32_t i = 0; i < p->n_segments; i++)
        if (group_in(p->segments[i].lora, p))
            return true;
    return false;
}

static uint64_t tile_cost(uint32_t n_rows)
{
    return n_rows + PANEL_COST_ROWS;
}

static uint64_t total_cost(const struct lora_place *p)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < p->n_segments; i++) {
        const struct segment *s = &p->segments[i];
        const struct lora_group *g = group_in(s->lora, p);
        if (!g)
            continue;
        uint32_t n_rows = s->row_end - s->row_begin;
        total += (uint64_t)g->a.n_panels * (n_rows / TILE_ROWS * tile_cost(TILE_ROWS) +
                                            (n_rows % TILE_ROWS ? tile_cost(n_rows % TILE_ROWS) : 0));
    }
    return total;
}

/* The panels of a tile whose cost begins in [lo, hi) of the whole. */
static void shrink_tile(const struct crew *c, const struct lora_group *g, const struct acts *x, uint32_t row,
                        uint32_t n_rows, const uint64_t span[3])
{
    uint64_t at = span[0], lo = span[1], hi = span[2], cost = tile_cost(n_rows);
    uint64_t begin = lo > at ? (lo - at + cost - 1) / cost : 0;
    uint64_t end = hi > at ? (hi - at + cost - 1) / cost : 0;
    if (end > g->a.n_panels)
        end = g->a.n_panels;
    if (begin >= end)
        return;
    c->k->matmul[g->a.type](&(struct matmul_args){.w = &g->a,
                                                  .x = x,
                                                  .row_begin = row,
                                                  .row_end = row + n_rows,
                                                  .panel_begin = (uint32_t)begin,
                                                  .panel_end = (uint32_t)end,
                                                  .y = c->s->t,
                                                  .y_stride = c->s->t_max});
}

void lora_shrink(const struct crew *c, const struct lora_place *p, const struct acts *x)
{
    uint64_t total = total_cost(p);
    uint64_t span[3] = {0, total * c->worker / c->n_workers, total * (c->worker + 1) / c->n_workers};
    for (uint32_t i = 0; i < p->n_segments; i++) {
        const struct segment *s = &p->segments[i];
        const struct lora_group *g = group_in(s->lora, p);
        if (!g)
            continue;
        for (uint32_t row = s->row_begin; row < s->row_end; row += TILE_ROWS) {
            uint32_t n_rows = s->row_end - row < TILE_ROWS ? s->row_end - row : TILE_ROWS;
            shrink_tile(c, g, x, row, n_rows, span);
            span[0] += g->a.n_panels * tile_cost(n_rows);
        }
    }
}

void lora_expand(const struct crew *c, const struct lora_place *p, unsigned part, uint32_t out, float *y)
{
    uint64_t begin, end;
    team_share((out + PANEL_ROWS - 1) / PANEL_ROWS, 1, c->worker, c->n_workers, &begin, &end);
    if (begin == end)
        return;
    for (uint32_t i = 0; i < p->n_segments; i++) {
        const struct segment *s = &p->segments[i];
        const struct lora_group *g = group_in(s->lora, p);
        if (!g || !g->part[part].b.data)
            continue;
        const struct lora_part *b = &g->part[part];
        struct acts t = {
            .x = c->s->t + b->t_offset, .x_stride = c->s->t_max, .n_rows = s->row_end, .cols = b->rank};
        c->k->matmul[b->b.type](&(struct matmul_args){.w = &b->b,
                                                      .x = &t,
                                                      .row_begin = s->row_begin,
                                                      .row_end = s->row_end,
                                                      .panel_begin = (uint32_t)begin,
                                                      .panel_end = (uint32_t)end,
                                                      .y = y,
                                                      .y_stride = out,
                                                      .accumulate = true,
                                                      .scale = b->scale});
    }
}
