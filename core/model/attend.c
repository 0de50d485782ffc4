/* Attention in a step: keys and values into their pages, and who attends to what.
 *
 * Neighbouring rows of one sequence form a tile, which shares the loads of K and V. A worker takes (kv head,
 * tile) one by one. Where there are too few of them for all workers to have work to the end (one long
 * context), a tile is cut into pieces at multiples of ATTN_SPLIT positions; whoever finishes the last piece
 * joins their parts. Neither changes a bit: see struct attention_args. Owner: the engine thread; in a step,
 * the team. What this file doesn't do: the arithmetic (kernels.h), norms and rotation (forward.c), page
 * accounting. */
#include "step.h"

#include "base/mem.h"

#define TILE_ROWS_MAX 24U                  /* (token, head) rows of a tile, where a group has fewer heads */
#define PIECES_PER_WORKER 4U               /* a tile with more than this part of a worker's share is cut */
#define PARTS_FLOATS_MAX ((size_t)1 << 24) /* what has no room is not cut */

/* A tile, or some splits of one. */
struct piece {
    uint32_t row, n_tokens;
    uint32_t split_begin, split_end;
    uint32_t cut; /* which cut tile; NO_CUT: whole */
};
#define NO_CUT UINT32_MAX

/* A tile in pieces. */
struct cut {
    uint32_t n_pieces, n_splits;
    size_t parts_at; /* [n_kv_heads, n_splits, rows] parts */
};

struct attend_plan {
    uint32_t tile_tokens, n_kv_heads, n_group;
    size_t part_floats;
    atomic_uint *next; /* [n_layers] the next (kv head, piece) that a worker takes */
    float *scratch;    /* [workers, scratch_floats] */
    size_t scratch_floats;
    struct piece *pieces; /* [n_tokens_max + cuts_max pieces more] */
    uint32_t n_pieces, n_cuts, cuts_max;
    struct cut *cuts;  /* [cuts_max] */
    atomic_uint *done; /* [cuts_max, n_kv_heads] pieces that are through; 0 between layers */
    float *parts;      /* [parts_floats]; touched only as far as it is used */
    size_t parts_floats, parts_used;
};

/* ---- allocation ---- */

static size_t parts_floats(const struct step_space *s, const struct attend_plan *p)
{
    size_t n_splits = ((size_t)s->m->config.max_position + ATTN_SPLIT - 1) / ATTN_SPLIT;
    size_t n = p->part_floats * p->tile_tokens * p->n_group;
    if (team_size(s->team) == 1)
        return 0;
    if (!size_mul(n, p->n_kv_heads, &n) || !size_mul(n, n_splits, &n) || n > PARTS_FLOATS_MAX)
        return PARTS_FLOATS_MAX;
    return n;
}

bool attend_plan_create(struct step_space *s)
{
    const struct model_config *c = &s->m->config;
    struct attend_plan *p = s->attend = mem_zalloc(sizeof *p);
    if (!p)
        return false;
    unsigned n_workers = team_size(s->team);
    p->n_kv_heads = c->n_kv_heads;
    p->n_group = c->n_heads / c->n_kv_heads;
    p->tile_tokens = p->n_group < TILE_ROWS_MAX ? TILE_ROWS_MAX / p->n_group : 1;
    p->part_floats = attention_part_floats(c->head_dim);
    p->scratch_floats = (attention_scratch_floats(p->tile_tokens * p->n_group, c->head_dim) + 15) / 16 * 16;
    p->cuts_max = PIECES_PER_WORKER * n_workers;
    p->parts_floats = parts_floats(s, p);
    p->next = mem_array(c->n_layers, sizeof *p->next);
    p->scratch = mem_aligned(64, n_workers * p->scratch_floats * sizeof(float));
    p->pieces = mem_array((size_t)s->n_tokens_max + 2 * p->cuts_max, sizeof *p->pieces);
    p->cuts = mem_array(p->cuts_max, sizeof *p->cuts);
    p->done = mem_array((size_t)p->cuts_max * c->n_kv_heads, sizeof *p->done);
    p->parts = mem_alloc(p->parts_floats * sizeof(float));
    if (!p->next || !p->scratch || !p->pieces || !p->cuts || !p->done || !p->parts)
        return false;
    for (size_t i = 0; i < (size_t)p->cuts_max * c->n_kv_heads; i++)
        atomic_init(&p->done[i], 0);
    return true;
}

void attend_plan_destroy(struct attend_plan *p)
{
    if (!p)
        return;
    mem_free(p->next);
    mem_free(p->scratch);
    mem_free(p->pieces);
    mem_free(p->cuts);
    mem_free(p->done);
    mem_free(p->parts);
    mem_free(p);
}

/* ---- the plan ---- */

/* How many rows from `row` on are one tile: neighbours in one sequence. */
static uint32_t tile_tokens(const struct step_space *s, uint32_t row)
{
    uint32_t n = 1;
    while (n < s->attend->tile_tokens && row + n < s->n_rows && s->context[row + n] == s->context[row] &&
           s->position[row + n] == s->position[row] + n)
        n++;
    return n;
}

static uint32_t n_splits_of(const struct step_space *s, uint32_t row, uint32_t n_tokens)
{
    return (s->position[row] + n_tokens - 1) / ATTN_SPLIT + 1;
}

/* Work of all tiles over one kv head, in splits of one token. */
static uint64_t total_work(const struct step_space *s)
{
    uint64_t total = 0;
    for (uint32_t row = 0, n; row < s->n_rows; row += n) {
        n = tile_tokens(s, row);
        total += (uint64_t)n * n_splits_of(s, row, n);
    }
    return total;
}

/* Room for the parts of a tile in n_pieces; false where there is none. */
static bool add_cut(struct attend_plan *p, uint32_t n_tokens, uint32_t n_splits, uint32_t n_pieces)
{
    size_t n = p->part_floats * n_tokens * p->n_group * p->n_kv_heads; /* at most the scratch of a worker */
    if (p->n_cuts == p->cuts_max || !size_mul(n, n_splits, &n) || n > p->parts_floats - p->parts_used)
        return false;
    p->cuts[p->n_cuts++] = (struct cut){n_pieces, n_splits, p->parts_used};
    p->parts_used += n;
    return true;
}

static void plan_tile(const struct step_space *s, uint32_t row, uint32_t n_tokens, uint64_t share)
{
    struct attend_plan *p = s->attend;
    uint32_t n_splits = n_splits_of(s, row, n_tokens), n_pieces = 1;
    uint64_t wanted = ((uint64_t)n_tokens * n_splits + share - 1) / share;
    if (wanted > 1 && n_splits > 1)
        n_pieces = wanted < n_splits ? (uint32_t)wanted : n_splits;
    if (n_pieces > 1 && !add_cut(p, n_tokens, n_splits, n_pieces))
        n_pieces = 1;
    for (uint32_t i = 0; i < n_pieces; i++)
        p->pieces[p->n_pieces++] =
            (struct piece){.row = row,
                           .n_tokens = n_tokens,
                           .split_begin = (uint32_t)((uint64_t)n_splits * i / n_pieces),
                           .split_end = (uint32_t)((uint64_t)n_splits * (i + 1) / n_pieces),
                           .cut = n_pieces > 1 ? p->n_cuts - 1 : NO_CUT};
}

void attend_plan_rows(struct step_space *s)
{
    struct attend_plan *p = s->attend;
    unsigned n_workers = team_active(s->team);
    uint64_t all = total_work(s) * p->n_kv_heads, share = UINT64_MAX;
    if (n_workers > 1)
        share = all / (PIECES_PER_WORKER * n_workers) + 1;
    p->n_pieces = p->n_cuts = 0;
    p->parts_used = 0;
    for (uint32_t row = 0, n; row < s->n_rows; row += n) {
        n = tile_tokens(s, row);
        plan_tile(s, row, n, share);
    }
    for (uint32_t i = 0; i < s->m->config.n_layers; i++)
        atomic_init(&p->next[i], 0);
}

/* ---- in a step ---- */

static struct kv_row kv_row_of(const struct crew *c, const struct kv_place *at)
{
    const struct step_space *s = c->s;
    return (struct kv_row){.block = s->row_page[at->row],
                           .type = s->kv.type,
                           .head_dim = s->kv.head_dim,
                           .page_tokens = KV_PAGE_TOKENS,
                           .token = s->position[at->row] % KV_PAGE_TOKENS};
}

void attend_store_k(const struct crew *c, struct kv_place at, const float *k)
{
    struct kv_row r = kv_row_of(c, &at);
    r.block += kv_k_offset(&c->s->kv, at.layer, at.kv_head);
    c->k->put_keys(&r, k);
}

void attend_store_v(const struct crew *c, struct kv_place at, const float *v)
{
    struct kv_row r = kv_row_of(c, &at);
    r.block += kv_v_offset(&c->s->kv, at.layer, at.kv_head);
    c->k->put_values(&r, v);
}

static struct attention_args args_of(const struct crew *c, uint32_t layer, const struct piece *piece,
                                     uint32_t kv_head)
{
    const struct step_space *s = c->s;
    const struct attend_plan *p = s->attend;
    const struct model *m = c->m;
    uint32_t row = piece->row, head_dim = m->config.head_dim;
    size_t at = (size_t)row * m->q_dim + (size_t)kv_head * p->n_group * head_dim;
    return (struct attention_args){
        .q = s->q + at,
        .out = s->att + at,
        .stride = m->q_dim,
        .n_tokens = piece->n_tokens,
        .n_group = p->n_group,
        .head_dim = head_dim,
        .position = s->position[row],
        .window = m->layers[layer].window,
        .scale = m->layers[layer].attn_scale,
        .softcap = (float)m->config.attn_logit_softcap,
        .pages = s->context[row],
        .page_tokens = KV_PAGE_TOKENS,
        .k_offset = kv_k_offset(&s->kv, layer, kv_head),
        .v_offset = kv_v_offset(&s->kv, layer, kv_head),
        .kv_type = s->kv.type,
        .scratch = p->scratch + c->worker * p->scratch_floats,
    };
}

/* Some splits of a tile; the last worker that is through with a piece of it joins all parts: true. */
static bool attend_cut(const struct crew *c, const struct attention_args *a, const struct piece *piece,
                       uint32_t kv_head)
{
    struct attend_plan *p = c->s->attend;
    const struct cut *cut = &p->cuts[piece->cut];
    size_t split_floats = p->part_floats * a->n_tokens * a->n_group;
    float *parts = p->parts + cut->parts_at + kv_head * split_floats * cut->n_splits;
    uint32_t first = attention_first_split(a); /* with a window, pieces before it have nothing to do */
    uint32_t begin = piece->split_begin > first ? piece->split_begin : first;
    atomic_uint *done = &p->done[piece->cut * p->n_kv_heads + kv_head];
    if (begin < piece->split_end)
        c->k->attention_parts(a, begin, piece->split_end, parts + (begin - first) * split_floats);
    /* release: this worker's parts before its count; acquire: all parts behind the last count */
    if (atomic_fetch_add_explicit(done, 1, memory_order_acq_rel) + 1 < cut->n_pieces)
        return false;
    c->k->attention_join(a, parts);
    atomic_store_explicit(done, 0, memory_order_relaxed); /* the next layer is behind a barrier */
    return true;
}

/* The longest contexts of a prompt come first, so that the last to be taken are short. */
void attend(const struct crew *c, uint32_t layer)
{
    struct attend_plan *p = c->s->attend;
    uint32_t n = p->n_pieces * p->n_kv_heads, i;
    /* relaxed: only the number matters; the barriers around this phase order the data */
    while ((i = atomic_fetch_add_explicit(&p->next[layer], 1, memory_order_relaxed)) < n) {
        const struct piece *piece = &p->pieces[p->n_pieces - 1 - i % p->n_pieces];
        struct attention_args a = args_of(c, layer, piece, i / p->n_pieces);
        if (piece->cut == NO_CUT)
            c->k->attention(&a);
        else if (!attend_cut(c, &a, piece, i / p->n_pieces))
            continue;
        for (uint32_t row = piece->row; row < piece->row + piece->n_tokens; row++)
            attended(c, layer, row, i / p->n_pieces);
    }
}
