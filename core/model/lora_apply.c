/* Low-rank math for a mixed batch: y += scale * B (A x), each row with its own adapter (Punica, arXiv
 * 2310.18547; here by segments, as rows of one adapter stand side by side).
 *
 *   shrink   t = A x, one stacked A for all sites that read x; small: shared by (row tile, panel)
 *   linear   y = W x, W being the adapter's own where it replaces the base's; by output columns
 *   barrier  long after its first half, which stands before linear
 *   expand   y = factor * y + scale * (B t + bias); by output columns, like linear, and where many rows share
 *            an adapter, tile by tile behind it
 *
 * An adapter is one member with weight 1, a composition several: its deltas are added one after another. For
 * DoRA the delta of a column is (f - 1) W x + f scale B A x, so W x is multiplied by 1 + sum of weight * (f -
 * 1) before anything is added. Each number of t and y is one dot product of a kernel, so shares move work
 * between threads and change no result. */
#include <string.h>

#include "step.h"

#define TILE_ROWS 32U
/* A panel's pass costs about as much as this many rows even for one row: its weights must be read. */
#define PANEL_COST_ROWS 4U

/* ---- members and what they have at a place ---- */

struct member {
    const struct lora *lora;
    float weight;
    uint32_t t_at; /* where its t begins in the row's scratch */
};

/* The i-th member of an adapter; false past the end. `m` holds the one before. */
static bool member_at(const struct lora *l, uint32_t i, struct member *m)
{
    if (!l || i >= (l->n_members ? l->n_members : 1))
        return false;
    m->t_at = i == 0 ? 0 : m->t_at + m->lora->t_max;
    m->lora = l->n_members ? l->members[i].lora : l;
    m->weight = l->n_members ? l->members[i].weight : 1;
    return true;
}

static const struct lora_group *group_in(const struct lora *l, const struct lora_place *p)
{
    const struct lora_group *g;
    if (p->group == LORA_GROUP_COUNT)
        g = &l->lm_head;
    else if (p->expert < 0)
        g = &l->layers[p->layer].group[p->group];
    else if (l->layers[p->layer].experts)
        g = &l->layers[p->layer].experts[(size_t)p->expert * 2 + (p->group == LORA_GROUP_DOWN)];
    else
        return NULL;
    return g->a.data ? g : NULL;
}

bool lora_any(const struct lora_place *p)
{
    struct member m;
    for (uint32_t i = 0; i < p->n_segments; i++)
        for (uint32_t k = 0; member_at(p->segments[i].lora, k, &m); k++)
            if (group_in(m.lora, p))
                return true;
    return false;
}

static const struct lora_replaced *replaced_in(const struct lora *l, const struct lora_place *p)
{
    const struct lora *r = lora_replacing(l);
    if (!r)
        return NULL;
    return p->group == LORA_GROUP_COUNT ? r->ends : r->layers[p->layer].replaced;
}

/* ---- W x ---- */

/* Which part of its group a site is. */
static const uint8_t part_of_site[LORA_SITE_COUNT] = {
    [LORA_SITE_K] = 1, [LORA_SITE_V] = 2, [LORA_SITE_UP] = 1};

/* Rows [rows[0], rows[1]) of a product whose other ends stand in `a`. */
static void linear_rows(const struct crew *c, struct matmul_args a, const struct packed *w,
                        const uint32_t rows[2])
{
    if (a.panel_begin == a.panel_end || rows[0] == rows[1])
        return;
    a.w = w;
    a.row_begin = rows[0];
    a.row_end = rows[1];
    a.prefetch_bytes = prefetch_bytes(c->m, w->type, rows[1] - rows[0]);
    c->k->matmul[w->type](&a);
}

/* Those of a segment's rows that the place looks at; none: equals. */
static void rows_at(const struct lora_place *p, const struct segment *s, uint32_t rows[2])
{
    rows[0] = s->row_begin > p->row_begin ? s->row_begin : p->row_begin;
    rows[1] = s->row_end < p->row_end ? s->row_end : p->row_end;
    if (rows[1] < rows[0])
        rows[1] = rows[0];
}

void lora_linear(const struct crew *c, const struct lora_place *p, enum lora_site site,
                 const struct packed *w, const struct acts *x, float *y)
{
    uint32_t rows[2] = {0, 0}, at[2];
    struct panels own = p->own[part_of_site[site]];
    const struct matmul_args a = {
        .x = x, .panel_begin = own.begin, .panel_end = own.end, .y = y, .y_stride = w->rows};
    for (uint32_t i = 0; i < p->n_segments; i++) {
        const struct segment *s = &p->segments[i];
        const struct lora_replaced *r = p->expert < 0 ? replaced_in(s->lora, p) : NULL;
        rows_at(p, s, at);
        if (at[0] == at[1])
            continue;
        if (rows[0] == rows[1])
            rows[0] = at[0];
        rows[1] = at[1];
        if (!r || !r->w[site].data)
            continue; /* goes on with the run of rows on the base */
        linear_rows(c, a, w, (uint32_t[2]){rows[0], at[0]});
        linear_rows(c, a, &r->w[site], at);
        rows[0] = at[1];
    }
    linear_rows(c, a, w, rows);
}

/* ---- t = A x ---- */

static uint64_t tile_cost(uint32_t n_rows)
{
    return n_rows + PANEL_COST_ROWS;
}

static uint64_t total_cost(const struct lora_place *p)
{
    uint64_t total = 0;
    struct member m;
    for (uint32_t i = 0; i < p->n_segments; i++) {
        const struct segment *s = &p->segments[i];
        uint32_t n_rows = s->row_end - s->row_begin;
        uint64_t cost = n_rows / TILE_ROWS * tile_cost(TILE_ROWS) +
                        (n_rows % TILE_ROWS ? tile_cost(n_rows % TILE_ROWS) : 0);
        for (uint32_t k = 0; member_at(s->lora, k, &m); k++) {
            const struct lora_group *g = group_in(m.lora, p);
            total += g ? g->a.n_panels * cost : 0;
        }
    }
    return total;
}

/* The panels of a tile whose cost begins in [lo, hi) of the whole. */
static void shrink_tile(const struct crew *c, const struct lora_group *g, const struct acts *x,
                        const uint32_t rows[2], float *t, const uint64_t span[3])
{
    uint64_t at = span[0], lo = span[1], hi = span[2], cost = tile_cost(rows[1] - rows[0]);
    uint64_t begin = lo > at ? (lo - at + cost - 1) / cost : 0;
    uint64_t end = hi > at ? (hi - at + cost - 1) / cost : 0;
    if (end > g->a.n_panels)
        end = g->a.n_panels;
    if (begin >= end)
        return;
    c->k->matmul[g->a.type](
        &(struct matmul_args){.w = &g->a,
                              .x = x,
                              .row_begin = rows[0],
                              .row_end = rows[1],
                              .panel_begin = (uint32_t)begin,
                              .panel_end = (uint32_t)end,
                              .y = t,
                              .y_stride = c->s->t_max,
                              .prefetch_bytes = prefetch_bytes(c->m, g->a.type, rows[1] - rows[0])});
}

static void shrink_segment(const struct crew *c, const struct segment *s, const struct lora_group *g,
                           const struct acts *x, float *t, uint64_t span[3])
{
    for (uint32_t row = s->row_begin; row < s->row_end; row += TILE_ROWS) {
        uint32_t n_rows = s->row_end - row < TILE_ROWS ? s->row_end - row : TILE_ROWS;
        shrink_tile(c, g, x, (uint32_t[2]){row, row + n_rows}, t, span);
        span[0] += g->a.n_panels * tile_cost(n_rows);
    }
}

void lora_shrink(const struct crew *c, const struct lora_place *p, const struct acts *x)
{
    uint64_t total = total_cost(p);
    uint64_t span[3] = {0, total * c->worker / c->n_workers, total * (c->worker + 1) / c->n_workers};
    struct member m;
    for (uint32_t i = 0; i < p->n_segments; i++)
        for (uint32_t k = 0; member_at(p->segments[i].lora, k, &m); k++) {
            const struct lora_group *g = group_in(m.lora, p);
            if (g)
                shrink_segment(c, &p->segments[i], g, x, c->s->t + m.t_at, span);
        }
}

/* ---- y += scale * B t ---- */

/* A worker's part of y: columns [begin, end) of rows [row_begin, row_end). */
struct span {
    float *y;
    uint32_t stride, row_begin, row_end, begin, end;
};

static struct span own_span(const struct lora_place *p, unsigned part, uint32_t out, float *y)
{
    struct panels own = p->own[part];
    uint32_t begin = own.begin * PANEL_ROWS, end = own.end * PANEL_ROWS;
    return (struct span){.y = y, .stride = out, .begin = begin, .end = end < out ? end : out};
}

/* y *= 1 + sum of weight * (factor - 1) over the members with DoRA; a single one of weight 1 gives its factor
 * itself. */
static void multiply_factors(const struct span *s, const struct lora *l, const struct lora_place *p,
                             unsigned part)
{
    struct member m;
    bool any = false, plain = l->n_members == 0;
    for (uint32_t k = 0; member_at(l, k, &m); k++) {
        const struct lora_group *g = group_in(m.lora, p);
        any = any || (g && g->part[part].magnitude);
    }
    for (uint32_t column = s->begin; any && column < s->end; column++) {
        float factor = plain ? group_in(l, p)->part[part].magnitude[column] : 1;
        for (uint32_t k = 0; !plain && member_at(l, k, &m); k++) {
            const struct lora_group *g = group_in(m.lora, p);
            if (g && g->part[part].magnitude)
                factor += m.weight * (g->part[part].magnitude[column] - 1);
        }
        for (uint32_t row = s->row_begin; row < s->row_end; row++)
            s->y[(size_t)row * s->stride + column] *= factor;
    }
}

/* Memory that a worker reads next. */
struct slice {
    const uint8_t *data;
    size_t n_bytes;
};

/* This worker's panels of a part's B; none where it has no B or no panels. */
static struct slice own_slice(const struct lora *l, const struct lora_place *p, unsigned part)
{
    const struct lora_group *g = group_in(l, p);
    const struct packed *b = g ? &g->part[part].b : NULL;
    struct panels own = p->own[part];
    if (!b || !b->data || own.begin == own.end)
        return (struct slice){NULL, 0};
    return (struct slice){b->data + (size_t)own.begin * b->panel_bytes,
                          (size_t)(own.end - own.begin) * b->panel_bytes};
}

/* Those of the B that lora_expand comes to after the k-th member of segment i: the next member's, the next
 * segment's, or the next part's first. Most are one's own and a few kilobytes long: too short for the
 * processor to foresee where they begin. */
static struct slice next_slice(const struct lora_place *p, unsigned part, uint32_t i, uint32_t k)
{
    for (k++; part < 3; part++, i = 0)
        for (; i < p->n_segments; i++, k = 0) {
            struct member m = {NULL, 0, 0};
            for (uint32_t at = 0; member_at(p->segments[i].lora, at, &m); at++) {
                struct slice own = at < k ? (struct slice){NULL, 0} : own_slice(m.lora, p, part);
                if (own.data)
                    return own;
            }
        }
    return (struct slice){NULL, 0};
}

/* y += weight * scale * B t as floats, or with whole numbers. */
static void multiply_b(const struct crew *c, const struct span *s, const struct member *m,
                       const struct lora_part *part, struct slice next)
{
    if (part->rounds) {
        c->k->expand(&(struct expand_args){.b = &part->b,
                                           .t = c->s->t + m->t_at + part->t_offset,
                                           .t_stride = c->s->t_max,
                                           .row_begin = s->row_begin,
                                           .row_end = s->row_end,
                                           .panel_begin = s->begin / PANEL_ROWS,
                                           .panel_end = (s->end + PANEL_ROWS - 1) / PANEL_ROWS,
                                           .y = s->y,
                                           .y_stride = s->stride,
                                           .scale = m->weight * part->scale,
                                           .next = next.data,
                                           .next_bytes = next.n_bytes});
        return;
    }
    struct acts t = {.x = c->s->t + m->t_at + part->t_offset,
                     .x_stride = c->s->t_max,
                     .n_rows = s->row_end,
                     .cols = part->rank};
    c->k->matmul[part->b.type](&(struct matmul_args){
        .w = &part->b,
        .x = &t,
        .row_begin = s->row_begin,
        .row_end = s->row_end,
        .panel_begin = s->begin / PANEL_ROWS,
        .panel_end = (s->end + PANEL_ROWS - 1) / PANEL_ROWS,
        .y = s->y,
        .y_stride = s->stride,
        .accumulate = true,
        .scale = m->weight * part->scale,
        .prefetch_bytes = prefetch_bytes(c->m, part->b.type, s->row_end - s->row_begin)});
}

static void expand_member(const struct crew *c, const struct span *s, const struct member *m,
                          const struct lora_part *part, struct slice next)
{
    multiply_b(c, s, m, part, next);
    for (uint32_t row = s->row_begin; part->bias && row < s->row_end; row++)
        for (uint32_t column = s->begin; column < s->end; column++)
            s->y[(size_t)row * s->stride + column] += m->weight * part->bias[column];
}

void lora_expand(const struct crew *c, const struct lora_place *p, unsigned part, uint32_t out, float *y)
{
    struct member m;
    uint32_t rows[2];
    struct span s = own_span(p, part, out, y);
    if (s.begin == s.end)
        return;
    for (uint32_t i = 0; i < p->n_segments; i++) {
        const struct lora *l = p->segments[i].lora;
        rows_at(p, &p->segments[i], rows);
        if (!l || rows[0] == rows[1])
            continue;
        s.row_begin = rows[0];
        s.row_end = rows[1];
        multiply_factors(&s, l, p, part);
        for (uint32_t k = 0; member_at(l, k, &m); k++) {
            const struct lora_group *g = group_in(m.lora, p);
            if (g && g->part[part].b.data)
                expand_member(c, &s, &m, &g->part[part], next_slice(p, part, i, k));
        }
    }
}

/* ---- both ---- */

/* A part of y that is still in a core's second-level cache when its product is made. */
#define TILE_BYTES (128U * 1024U)
#define TILE_PANELS_MIN 4U
/* Mean rows of a segment from which its part of B is worth being read once for each tile. */
#define SHARED_ROWS 8U

/* Whether y's part is too large to stay in a cache; with adapters, only if rows mostly share one. */
static bool wants_tiles(const struct lora_place *p, struct panels own, bool any)
{
    uint64_t n_rows = p->row_end - p->row_begin, n_panels = own.end - own.begin;
    return n_rows * n_panels * PANEL_ROWS * sizeof(float) > TILE_BYTES &&
           (!any || n_rows >= (uint64_t)SHARED_ROWS * p->n_segments);
}

/* Tile by tile: y = W x, and B's part while the tile is in the cache. Rows are cut where the product cuts
 * them, so its order of work is the same but for the panels, of which some meet all rows of a chunk before
 * others come: that alone makes it a little faster. t was complete while the first tile was made. */
static void project_tiles(const struct crew *c, const struct lora_place *p, const struct product *of,
                          struct low_rank *t)
{
    unsigned part = part_of_site[of->site];
    struct panels own = p->own[part];
    struct lora_place at = *p;
    for (uint32_t row = p->row_begin; row < p->row_end; row = at.row_end) {
        uint32_t n_rows = p->row_end - row;
        if (wants_int8(c, of->w, 1)) /* else panels are the outer loop */
            n_rows = acts_chunk(of->x->cols, n_rows, UINT32_MAX, ACTS_CHUNK_BYTES);
        require(n_rows > 0);
        uint32_t n_panels = TILE_BYTES / (n_rows * PANEL_ROWS * (uint32_t)sizeof(float));
        n_panels = n_panels > TILE_PANELS_MIN ? n_panels : TILE_PANELS_MIN;
        at.row_begin = row;
        at.row_end = row + n_rows;
        for (uint32_t panel = own.begin; panel < own.end; panel = at.own[part].end) {
            at.own[part] = (struct panels){panel, own.end - panel < n_panels ? own.end : panel + n_panels};
            lora_linear(c, &at, of->site, of->w, of->x, of->y);
            if (low_rank_ready(c, t))
                lora_expand(c, &at, part, of->w->rows, of->y);
        }
    }
}

void lora_project(const struct crew *c, const struct lora_place *p, const struct product *of, unsigned n,
                  struct low_rank *t)
{
    bool tiles = false;
    for (unsigned i = 0; i < n; i++)
        tiles = tiles || wants_tiles(p, p->own[part_of_site[of[i].site]], t->any);
    for (unsigned i = 0; i < n; i++)
        if (tiles)
            project_tiles(c, p, &of[i], t);
        else
            lora_linear(c, p, of[i].site, of[i].w, of[i].x, of[i].y);
    for (unsigned i = 0; !tiles && i < n && low_rank_ready(c, t); i++)
        lora_expand(c, p, part_of_site[of[i].site], of[i].w->rows, of[i].y);
}

/* ---- replaced vectors of a row ---- */

static const struct lora_replaced *replaced_for(const struct crew *c, uint32_t row, uint32_t layer)
{
    const struct lora *l = c->s->row_replacing[row];
    return l ? l->layers[layer].replaced : NULL;
}

static const struct lora_replaced *replaced_norms(const struct crew *c, uint32_t row, uint32_t layer,
                                                  enum norm_id norm)
{
    const struct lora *l = c->s->row_replacing[row];
    return l && norm == NORM_FINAL ? l->ends : replaced_for(c, row, layer);
}

const float *lora_norm(const struct crew *c, uint32_t row, uint32_t layer, enum norm_id norm)
{
    const struct lora_replaced *r = replaced_norms(c, row, layer, norm);
    return r ? r->norm[norm] : NULL;
}

const float *lora_norm_bias(const struct crew *c, uint32_t row, uint32_t layer, enum norm_id norm)
{
    const struct lora_replaced *r = replaced_norms(c, row, layer, norm);
    return r ? r->norm_bias[norm] : NULL;
}

const float *lora_bias(const struct crew *c, uint32_t row, uint32_t layer, enum lora_site site)
{
    const struct lora_replaced *r = replaced_for(c, row, layer);
    return r ? r->bias[site] : NULL;
}

/* ---- the ends of the model ---- */

/* Index of a token's own row, or UINT32_MAX. */
static uint32_t row_of_token(const struct lora_rows *r, int32_t token)
{
    uint32_t low = 0, high = r->n;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (r->ids[mid] < token)
            low = mid + 1;
        else
            high = mid;
    }
    return low < r->n && r->ids[low] == token ? low : UINT32_MAX;
}

static void add_embedding_pair(const struct crew *c, const struct member *m, uint32_t row, float *x)
{
    const struct lora_embedding *e = &m->lora->embed;
    float *t = c->s->t + (size_t)row * c->s->t_max;
    packed_row_f32(&e->a, (uint32_t)c->s->token[row], t);
    struct acts a = {.x = t, .x_stride = e->a.cols, .n_rows = 1, .cols = e->a.cols};
    c->k->matmul[e->b.type](&(struct matmul_args){.w = &e->b,
                                                  .x = &a,
                                                  .row_end = 1,
                                                  .panel_end = e->b.n_panels,
                                                  .y = x,
                                                  .y_stride = e->b.rows,
                                                  .accumulate = true,
                                                  .scale = m->weight * e->scale,
                                                  .prefetch_bytes = prefetch_bytes(c->m, e->b.type, 1)});
}

/* x *= the members' DoRA factors, as in multiply_factors. */
static void multiply_embedding(const struct lora *l, uint32_t n, float *x)
{
    struct member m;
    bool any = false, plain = l->n_members == 0;
    for (uint32_t k = 0; member_at(l, k, &m); k++)
        any = any || m.lora->embed.magnitude;
    for (uint32_t i = 0; any && i < n; i++) {
        float factor = plain && l->embed.magnitude ? l->embed.magnitude[i] : 1;
        for (uint32_t k = 0; !plain && member_at(l, k, &m); k++)
            if (m.lora->embed.magnitude)
                factor += m.weight * (m.lora->embed.magnitude[i] - 1);
        x[i] *= factor;
    }
}

void lora_embed(const struct crew *c, uint32_t row, float *x)
{
    const struct lora *l = c->s->row_lora[row], *r = c->s->row_replacing[row];
    int32_t token = c->s->token[row];
    uint32_t own = r ? row_of_token(&r->embed.rows, token) : UINT32_MAX;
    struct member m;
    if (own != UINT32_MAX)
        packed_row_f32(&r->embed.rows.w, own, x);
    else if (r && r->embed.table.data)
        packed_row_f32(&r->embed.table, (uint32_t)token, x);
    else
        packed_row_f32(&c->m->embed, (uint32_t)token, x);
    if (!l)
        return;
    multiply_embedding(l, c->m->config.hidden_size, x);
    for (uint32_t k = 0; member_at(l, k, &m); k++)
        if (m.lora->embed.b.data)
            add_embedding_pair(c, &m, row, x);
}

/* One logit row's products with the panel `panel` of replaced token rows, to the columns of those tokens in
 * [begin, end). */
static void put_token_logits(const struct crew *c, const struct lora_rows *r, uint32_t panel,
                             const struct acts *x, const struct span *s)
{
    float values[PANEL_ROWS];
    uint32_t first = panel * PANEL_ROWS, n = r->n - first < PANEL_ROWS ? r->n - first : PANEL_ROWS;
    struct packed one = r->w;
    one.data += (size_t)panel * one.panel_bytes;
    one.rows = n;
    one.n_panels = 1;
    for (uint32_t row = s->row_begin; row < s->row_end; row++) {
        struct acts a = {
            .x = x->x + (size_t)row * x->x_stride, .x_stride = x->x_stride, .n_rows = 1, .cols = x->cols};
        c->k->matmul[one.type](&(struct matmul_args){.w = &one,
                                                     .x = &a,
                                                     .row_end = 1,
                                                     .panel_end = 1,
                                                     .y = values,
                                                     .y_stride = n,
                                                     .prefetch_bytes = prefetch_bytes(c->m, one.type, 1)});
        for (uint32_t i = 0; i < n; i++) {
            uint32_t column = (uint32_t)r->ids[first + i];
            if (column >= s->begin && column < s->end)
                s->y[(size_t)row * s->stride + column] = values[i];
        }
    }
}

void lora_head_rows(const struct crew *c, const struct lora_place *p, const struct acts *x, uint32_t out,
                    float *y)
{
    struct span s = own_span(p, 0, out, y);
    for (uint32_t i = 0; i < p->n_segments; i++) {
        const struct lora *l = lora_replacing(p->segments[i].lora);
        const struct lora_rows *r = l ? &l->head_rows : NULL;
        s.row_begin = p->segments[i].row_begin;
        s.row_end = p->segments[i].row_end;
        for (uint32_t panel = 0; r && panel < r->w.n_panels; panel++) {
            uint32_t first = panel * PANEL_ROWS, last = first + PANEL_ROWS < r->n ? first + PANEL_ROWS : r->n;
            if ((uint32_t)r->ids[last - 1] >= s.begin && (uint32_t)r->ids[first] < s.end)
                put_token_logits(c, r, panel, x, &s);
        }
    }
}
