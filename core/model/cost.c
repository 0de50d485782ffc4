/* The cost model. A step streams the weights: each matrix costs its weights times a constant of its type and
 * of the number of rows, which the kernels' tiles, the caches and the memory's speed make; no formula of ours
 * would. So that is measured, with the kernels themselves on stand-in weights: a block of memory larger than
 * the caches (or as large as the base, if that is smaller), read as matrices of one type after another, each
 * worker its share of the panels, as in the step. The low-rank part has little else: A is read like any
 * matrix, B has rows so short that they have constants of their own, and the two are parted by a barrier.
 *
 * All times are the least of a few samples, since other programs can only add to them, and a worker's
 * processor time where it has work, so that one that has lost its core for a while doesn't count. Nothing is
 * kept: the constants are the caller's. */
#include "cost.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "model_inner.h"

#define BLOCK_BYTES ((size_t)32 << 20) /* at least, for a base that is as large */
#define BLOCK_BYTES_MIN ((size_t)1 << 20)
#define BLOCK_BYTES_MAX ((size_t)128 << 20)
#define N_SAMPLES 3
#define N_ROUNDS 2      /* apart in time: what disturbs a whole round may leave the other alone */
#define PANELS_MAX 512U /* of a product: its rows of y stay in the cache, as a matrix' do */
#define TILE_ROWS 32U   /* of lora_apply.c's shares of A */
#define FILL 0x3c       /* floats near 0.01 to 1, small integers: no special values in any type */

static const uint32_t rows_at[COST_ROW_POINTS] = COST_ROWS_AT;
static const uint32_t ranks_at[COST_RANK_POINTS] = COST_RANKS_AT;

/* ---- measuring ---- */

struct probe {
    const struct model *base;
    const struct kernels *k;
    struct team *team;
    uint8_t *block;
    size_t block_bytes;
    uint32_t cols_max;
    float *x, *y; /* [rows, cols_max], [rows, 2 * PANELS_MAX * 16] */
    struct acts acts;
    int64_t sample_ns;   /* that a sample should take */
    int64_t deadline_ns; /* behind it one sample must do: the machine is slower than its budget */
    int64_t *worker_ns;  /* [workers] */
    /* of the task at hand */
    struct packed w;
    uint32_t n_rows, at, window, n_calls; /* products with n_calls times `window` panels of w, from `at` on */
    bool accumulate;
};

static void probe_task(void *arg, unsigned worker, unsigned n_workers)
{
    const struct probe *p = arg;
    uint64_t begin, end;
    int64_t begin_ns = clock_thread_ns();
    team_share(p->window, 1, worker, n_workers, &begin, &end);
    struct packed w = p->w;
    w.n_panels = p->window;
    w.rows = p->window * PANEL_ROWS;
    for (uint32_t i = 0; i < p->n_calls; i++) {
        w.data = p->block + (p->at + (size_t)i * p->window) * w.panel_bytes;
        p->k->matmul[w.type](
            &(struct matmul_args){.w = &w,
                                  .x = &p->acts,
                                  .row_end = p->n_rows,
                                  .panel_begin = (uint32_t)begin,
                                  .panel_end = (uint32_t)end,
                                  .y = p->y,
                                  .y_stride = w.rows,
                                  .accumulate = p->accumulate,
                                  .scale = 1e-3F,
                                  .prefetch_bytes = prefetch_bytes(p->base, w.type, p->n_rows)});
    }
    p->worker_ns[worker] = clock_thread_ns() - begin_ns;
}

static int64_t sample(struct probe *p)
{
    uint32_t n = p->n_calls * p->window;
    if (p->at + n > p->w.n_panels)
        p->at = 0;
    team_run(p->team, probe_task, p);
    p->at += n;
    int64_t most = 0;
    for (unsigned i = 0; i < team_size(p->team); i++)
        most = p->worker_ns[i] > most ? p->worker_ns[i] : most;
    return most;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Twice the work for a sample: larger products, then more of them. False: the block holds no more. */
static bool grow(struct probe *p)
{
    if (2 * p->n_calls * p->window > p->w.n_panels)
        return false;
    *(p->window < PANELS_MAX ? &p->window : &p->n_calls) *= 2;
    return true;
}

/* Panels of [16, cols] of `type` with p->n_rows rows of x: the least time of one. */
static double panel_time(struct probe *p, enum dtype type, uint32_t cols)
{
    size_t size_bytes;
    struct error err;
    if (packed_shape(type, PANEL_ROWS, cols, &p->w, &size_bytes, &err) != STATUS_OK || !p->k->matmul[type])
        return 0;
    p->w.data = p->block;
    p->w.n_panels = (uint32_t)(p->block_bytes / p->w.panel_bytes);
    p->window = smaller(2 * team_size(p->team), p->w.n_panels);
    p->n_calls = 1;
    p->acts.n_rows = p->n_rows;
    p->acts.cols = cols;
    double least;
    sample(p); /* warms the code up */
    do
        least = (double)sample(p);
    while (least < (double)p->sample_ns / 2 && clock_now_ns() < p->deadline_ns && grow(p));
    for (int i = 1; i < N_SAMPLES && clock_now_ns() < p->deadline_ns; i++)
        least = fmin(least, (double)sample(p));
    return least / ((double)p->n_calls * p->window);
}

#define N_BARRIERS 64

/* Each by itself: the least is one at which all workers were there. */
static void barrier_task(void *arg, unsigned worker, unsigned n_workers)
{
    const struct probe *p = arg;
    int64_t least = INT64_MAX;
    (void)n_workers;
    for (int i = 0; i < N_BARRIERS; i++) {
        int64_t begin = clock_now_ns();
        team_barrier(p->team);
        int64_t ns = clock_now_ns() - begin;
        least = i > 0 && ns < least ? ns : least;
    }
    p->worker_ns[worker] = least;
}

/* The worker that comes last has the barrier's own cost, one that comes early waits: the largest of the
 * least. */
static double barrier_time(struct probe *p)
{
    int64_t most = 0;
    team_run(p->team, barrier_task, p);
    for (unsigned i = 0; i < team_size(p->team); i++)
        most = p->worker_ns[i] > most ? p->worker_ns[i] : most;
    return (double)most;
}

/* The types that the base's matrices have, and those that copies and adapters may. */
static void types_of(const struct model *m, bool used[DTYPE_COUNT])
{
    memset(used, 0, DTYPE_COUNT * sizeof *used);
    used[DTYPE_BF16] = used[DTYPE_Q8_0] = used[m->head.type] = true;
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        const struct model_layer *l = &m->layers[i];
        for (unsigned s = 0; s < N_LAYER_SITES; s++)
            used[l->w[s].type] = used[l->w[s].type] || l->w[s].data;
        for (uint32_t e = 0; l->experts && e < 3; e++)
            used[l->experts[e].type] = true;
    }
    used[DTYPE_F32] = true;
}

/* Twice the last cache, or a copy of the base in bf16 if that is smaller. */
static size_t block_bytes(const struct model *m)
{
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t bytes = cache > 0 ? 2 * (size_t)cache : 0;
    bytes = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
    bytes = bytes < BLOCK_BYTES_MAX ? bytes : BLOCK_BYTES_MAX;
    bytes = m->info.n_parameters < bytes / 2 ? 2 * (size_t)m->info.n_parameters : bytes;
    return bytes > BLOCK_BYTES_MIN ? bytes : BLOCK_BYTES_MIN;
}

/* The length of a row of the first layer's matrices, on average over their weights, in whole blocks of any
 * type: rows of x that are longer than the first caches cost more. */
static uint32_t usual_cols(const struct model *m)
{
    double sum = 0, n = 0;
    for (unsigned s = 0; s < N_LAYER_SITES; s++) {
        const struct packed *w = &m->layers[0].w[s];
        double weights = w->data ? (double)w->rows * w->cols : 0;
        sum += weights * w->cols;
        n += weights;
    }
    double cols = n > 0 ? sum / n : m->config.hidden_size;
    return cols > 8192 ? 8192 : ((uint32_t)cols + 255) / 256 * 256;
}

static enum status probe_init(struct probe *p, const struct model *m, struct team *team, struct error *err)
{
    uint32_t n = rows_at[COST_ROW_POINTS - 1];
    *p = (struct probe){.base = m, .k = m->kernels, .team = team};
    p->block_bytes = block_bytes(m);
    p->cols_max = usual_cols(m);
    p->block = mem_aligned(64, p->block_bytes);
    p->x = mem_aligned(64, (size_t)n * p->cols_max * sizeof *p->x);
    p->y = mem_aligned(64, (size_t)n * 2 * PANELS_MAX * PANEL_ROWS * sizeof *p->y);
    p->acts = (struct acts){.x = p->x, .x_stride = p->cols_max};
    p->acts.blocks = mem_aligned(64, n * acts_stride(p->cols_max) * sizeof *p->acts.blocks);
    p->worker_ns = mem_array(team_size(team), sizeof *p->worker_ns);
    if (!p->worker_ns || !p->block || !p->x || !p->y || !p->acts.blocks)
        return fail(err, STATUS_NO_MEMORY, "cost model: no room for %zu bytes of stand-in weights",
                    p->block_bytes);
    memset(p->block, FILL, p->block_bytes);
    for (size_t i = 0; i < (size_t)n * p->cols_max; i++)
        p->x[i] = (float)(i % 31) / 16 - 1;
    p->acts.n_rows = n;
    p->acts.cols = p->cols_max;
    m->kernels->quantize_rows(&p->acts, 0, n);
    return STATUS_OK;
}

static void probe_fini(struct probe *p)
{
    mem_free(p->block);
    mem_free(p->x);
    mem_free(p->y);
    mem_free(p->acts.blocks);
    mem_free(p->worker_ns);
}

static void keep_least(double *at, double ns)
{
    if (*at == 0 || ns < *at)
        *at = ns;
}

static void measure_all(struct probe *p, const bool used[DTYPE_COUNT], struct cost_model *out)
{
    for (unsigned r = 0; r < COST_ROW_POINTS; r++) {
        p->n_rows = rows_at[r];
        p->accumulate = false;
        for (int t = 0; t < DTYPE_COUNT; t++)
            if (used[t])
                keep_least(&out->weight_ns[t][r],
                           panel_time(p, (enum dtype)t, p->cols_max) / (PANEL_ROWS * p->cols_max));
        p->accumulate = true;
        for (unsigned k = 0; k < COST_RANK_POINTS; k++)
            keep_least(&out->panel_ns[k][r], panel_time(p, DTYPE_BF16, ranks_at[k]));
    }
}

/* More rows or a higher rank never cost less, and disturbances only add: what is dearer than the next larger
 * was disturbed. */
static void take_out_disturbances(struct cost_model *c)
{
    for (unsigned r = COST_ROW_POINTS - 1; r-- > 0;) {
        for (int t = 0; t < DTYPE_COUNT; t++)
            c->weight_ns[t][r] = fmin(c->weight_ns[t][r], c->weight_ns[t][r + 1]);
        for (unsigned k = 0; k < COST_RANK_POINTS; k++)
            c->panel_ns[k][r] = fmin(c->panel_ns[k][r], c->panel_ns[k][r + 1]);
    }
    for (unsigned r = 0; r < COST_ROW_POINTS; r++)
        for (unsigned k = COST_RANK_POINTS - 1; k-- > 0;)
            c->panel_ns[k][r] = fmin(c->panel_ns[k][r], c->panel_ns[k + 1][r]);
}

/* Steps of a small base are short, whichever way they go: an eighth of the time will do. */
static int64_t budget_of(int64_t most, size_t n_bytes)
{
    double share = fmin((double)n_bytes / (double)BLOCK_BYTES, 1);
    return (int64_t)((double)most * fmax(share, 0.125));
}

enum status cost_measure(const struct model *base, struct team *team, int64_t budget_ns,
                         struct cost_model *out, struct error *err)
{
    int64_t begin = clock_now_ns();
    bool used[DTYPE_COUNT];
    struct probe p;
    unsigned n_probes = COST_RANK_POINTS;
    *out = (struct cost_model){.n_workers = team_size(team)};
    types_of(base, used);
    for (int t = 0; t < DTYPE_COUNT; t++)
        n_probes += used[t];
    enum status s = probe_init(&p, base, team, err);
    if (s == STATUS_OK) {
        /* a probe takes its samples, and about two more to find how much is one */
        int64_t budget = budget_of(budget_ns, p.block_bytes), left = budget - (clock_now_ns() - begin);
        p.deadline_ns = begin + budget;
        p.sample_ns = left / (n_probes * COST_ROW_POINTS * N_ROUNDS * (N_SAMPLES + 2));
        out->barrier_ns = barrier_time(&p);
        for (int i = 0; i < N_ROUNDS && (i == 0 || clock_now_ns() < p.deadline_ns); i++)
            measure_all(&p, used, out);
        take_out_disturbances(out);
    }
    probe_fini(&p);
    out->spent_ns = clock_now_ns() - begin;
    return s;
}

/* ---- constants ---- */

/* Where n lies among `at`: the point before it and how far it is to the next; beyond the last one 1 and more.
 */
static unsigned locate(const uint32_t *at, unsigned n_at, double n, double *part)
{
    unsigned i = 0;
    while (i + 2 < n_at && n > at[i + 1])
        i++;
    *part = (n - at[i]) / (at[i + 1] - at[i]);
    return i;
}

/* A constant that was measured at rows_at, for a tile of n rows (fewer than one are as dear as one). */
static double at_rows(const double ns[COST_ROW_POINTS], double n)
{
    double part;
    if (n >= rows_at[COST_ROW_POINTS - 1])
        return ns[COST_ROW_POINTS - 1] * n / rows_at[COST_ROW_POINTS - 1];
    unsigned i = locate(rows_at, COST_ROW_POINTS, n > 1 ? n : 1, &part);
    return ns[i] + part * (ns[i + 1] - ns[i]);
}

static double bytes_of(enum dtype t)
{
    return (double)dtype_info(t)->block_bytes / dtype_info(t)->block_size;
}

/* A type that wasn't measured costs by its bytes. */
static double weight_ns(const struct cost_model *c, enum dtype t, double n_rows)
{
    double ns = at_rows(c->weight_ns[t], n_rows);
    return ns > 0 ? ns : at_rows(c->weight_ns[DTYPE_BF16], n_rows) * bytes_of(t) / bytes_of(DTYPE_BF16);
}

static double matrix_ns(const struct cost_model *c, enum dtype type, const struct packed *w, double n_rows)
{
    return weight_ns(c, type, n_rows) * w->n_panels * PANEL_ROWS * w->cols;
}

/* t = A x: (tile, panel) units are shared out whole. */
static double shrink_ns(const struct cost_model *c, const struct packed *a, double n_rows)
{
    double n_tiles = ceil(n_rows / TILE_ROWS), units = a->n_panels * n_tiles;
    double uneven = ceil(units / c->n_workers) * c->n_workers / units;
    return n_tiles * uneven * matrix_ns(c, a->type, a, n_rows / n_tiles);
}

static double expand_ns(const struct cost_model *c, const struct packed *b, double n_rows)
{
    double part, ns[COST_ROW_POINTS];
    unsigned k = locate(ranks_at, COST_RANK_POINTS, b->cols, &part);
    for (unsigned r = 0; r < COST_ROW_POINTS; r++)
        ns[r] = fmax(c->panel_ns[k][r] + part * (c->panel_ns[k + 1][r] - c->panel_ns[k][r]), 0);
    double type = weight_ns(c, b->type, n_rows) / weight_ns(c, DTYPE_BF16, n_rows);
    return type * b->n_panels * at_rows(ns, n_rows);
}

/* ---- a step ---- */

/* A way to walk over a model: as it is, with the adapter beside it, or as a copy that is to be made. */
struct walk {
    const struct cost_model *c;
    const struct model *m;
    const struct lora *l; /* or NULL */
    bool inside;          /* the adapter, in matrices of `type` */
    enum dtype type;
    double n_rows, ns;
};

static uint32_t n_members(const struct lora *l)
{
    return !l ? 0 : l->n_members ? l->n_members : 1;
}

static const struct lora *member(const struct lora *l, uint32_t i)
{
    return l->n_members ? l->members[i].lora : l;
}

/* The adapter whose tensors stand in the place of the base's, or NULL. */
static const struct lora *replacing(const struct lora *l)
{
    const struct lora *alone = n_members(l) == 1 ? member(l, 0) : NULL;
    return alone && alone->replaces ? alone : NULL;
}

static void add_matrix(struct walk *k, const struct packed *w, bool touched, double n_rows)
{
    bool blocks = w->cols % dtype_info(k->type)->block_size == 0;
    if (w->data)
        k->ns += matrix_ns(k->c, k->inside && touched && blocks ? k->type : w->type, w, n_rows);
}

/* What the members add beside the matrices of a group. */
static void add_groups(struct walk *k, const struct lora_group *const *groups, uint32_t n, double n_rows)
{
    bool any = false;
    for (uint32_t i = 0; i < n && !k->inside; i++) {
        const struct lora_group *g = groups[i];
        if (!g || !g->a.data)
            continue;
        any = true;
        k->ns += shrink_ns(k->c, &g->a, n_rows);
        for (int part = 0; part < 3; part++)
            if (g->part[part].b.data)
                k->ns += expand_ns(k->c, &g->part[part].b, n_rows);
    }
    k->ns += any ? k->c->barrier_ns : 0;
}

static bool any_part(const struct lora_group *const *groups, uint32_t n, unsigned part)
{
    bool any = false;
    for (uint32_t i = 0; i < n; i++)
        any = any || (groups[i] && groups[i]->part[part].b.data);
    return any;
}

/* The sites that read one input. */
static const struct {
    enum lora_group_id group;
    enum lora_site site;
    unsigned n;
} group_sites[] = {{LORA_GROUP_QKV, LORA_SITE_Q, 3},
                   {LORA_GROUP_O, LORA_SITE_O, 1},
                   {LORA_GROUP_GATE_UP, LORA_SITE_GATE, 2},
                   {LORA_GROUP_DOWN, LORA_SITE_DOWN, 1},
                   {LORA_GROUP_ROUTER, LORA_SITE_ROUTER, 1}};

static void add_layer(struct walk *k, uint32_t layer)
{
    const struct lora_group *groups[LORA_MEMBERS_MAX];
    const struct lora *own = replacing(k->l);
    const struct lora_replaced *r = own ? own->layers[layer].replaced : NULL;
    uint32_t n = n_members(k->l);
    for (size_t i = 0; i < sizeof group_sites / sizeof *group_sites; i++) {
        for (uint32_t j = 0; j < n; j++)
            groups[j] = &member(k->l, j)->layers[layer].group[group_sites[i].group];
        for (unsigned s = 0; s < group_sites[i].n; s++) {
            enum lora_site site = group_sites[i].site + s;
            const struct packed *w = &k->m->layers[layer].w[site];
            add_matrix(k, r && r->w[site].data ? &r->w[site] : w, any_part(groups, n, s), k->n_rows);
        }
        add_groups(k, groups, n, k->n_rows);
    }
}

/* Rows pick experts about evenly: of n experts each is read with probability 1 - (1 - used / n)^rows. */
static void add_experts(struct walk *k, uint32_t layer)
{
    const struct model_config *config = &k->m->config;
    const struct packed *w = k->m->layers[layer].experts;
    const struct lora_group *groups[LORA_MEMBERS_MAX];
    uint32_t n = n_members(k->l);
    if (!w)
        return;
    double used = (double)config->n_experts_used / config->n_experts, before = k->ns;
    double read = 1 - pow(1 - used, k->n_rows), n_rows = k->n_rows * used / read;
    for (uint32_t e = 0; e < config->n_experts; e++)
        for (unsigned half = 0; half < 2; half++) { /* gate and up, then down */
            for (uint32_t j = 0; j < n; j++) {
                const struct lora_group *all = member(k->l, j)->layers[layer].experts;
                groups[j] = all ? &all[2 * e + half] : NULL;
            }
            for (unsigned s = 0; s < 2 - half; s++)
                add_matrix(k, &w[3 * e + 2 * half + s], any_part(groups, n, s), n_rows);
            add_groups(k, groups, n, n_rows);
        }
    k->ns = before + read * (k->ns - before);
}

static void add_head(struct walk *k)
{
    const struct lora_group *groups[LORA_MEMBERS_MAX];
    const struct lora *own = replacing(k->l);
    const struct packed *w = &k->m->head;
    uint32_t n = n_members(k->l);
    for (uint32_t j = 0; j < n; j++)
        groups[j] = &member(k->l, j)->lm_head;
    if (own && own->ends && own->ends->w[LORA_SITE_LM_HEAD].data)
        w = &own->ends->w[LORA_SITE_LM_HEAD];
    add_matrix(k, w, any_part(groups, n, 0) || (own && own->head_rows.n), k->n_rows);
    add_groups(k, groups, n, k->n_rows);
}

static double walk(struct walk k)
{
    for (uint32_t layer = 0; layer < k.m->config.n_layers; layer++) {
        add_layer(&k, layer);
        add_experts(&k, layer);
    }
    add_head(&k);
    return k.ns;
}

double cost_step_ns(const struct cost_model *c, const struct model *m, const struct lora *l, uint32_t n_rows)
{
    return walk((struct walk){.c = c, .m = m, .l = l, .type = DTYPE_F32, .n_rows = n_rows});
}

double cost_merged_ns(const struct cost_model *c, const struct model *base, const struct lora *l,
                      enum dtype type, uint32_t n_rows)
{
    return walk((struct walk){.c = c, .m = base, .l = l, .inside = true, .type = type, .n_rows = n_rows});
}

void cost_curve(const struct cost_model *c, const struct model *m, const struct lora *l,
                struct cost_curve *out)
{
    for (unsigned r = 0; r < COST_ROW_POINTS; r++)
        out->ns[r] = cost_step_ns(c, m, l, rows_at[r]);
}

/* ---- the choice ---- */

bool cost_is_faithful(const struct merge_report *r)
{
    return r->error_norm <= MERGE_ERROR_MAX * r->delta_norm;
}

static double merged_at(const struct cost_model *c, const struct model *base, const struct lora *l,
                        enum dtype type, double n_rows)
{
    struct cost_curve curve;
    for (unsigned r = 0; r < COST_ROW_POINTS; r++)
        curve.ns[r] = cost_merged_ns(c, base, l, type, rows_at[r]);
    return cost_curve_at(&curve, n_rows);
}

/* Fewer bytes first: they leave memory, and its speed, to others. One of more bytes must be faster by this.
 */
#define LARGER_GAIN_MIN 0.05

void cost_choose(const struct cost_model *c, const struct model *base, const struct lora *l,
                 const struct cost_load *load, unsigned refused, struct cost_choice *out)
{
    static const enum dtype offers[2][2] = {{DTYPE_Q8_0, DTYPE_BF16}, {DTYPE_BF16, DTYPE_F32}};
    const enum dtype *offer = offers[base->info.weight_type == DTYPE_F32];
    struct cost_curve unmerged;
    double n_rows = load->n_rows > 1 ? load->n_rows : 1;
    cost_curve(c, base, l, &unmerged);
    *out = (struct cost_choice){.none = true, .unmerged_ns = cost_curve_at(&unmerged, n_rows)};
    for (int i = 0; i < 2; i++) {
        double ns = merged_at(c, base, l, offer[i], n_rows);
        if ((refused >> offer[i] & 1U) || (!out->none && ns >= (1 - LARGER_GAIN_MIN) * out->merged_ns))
            continue;
        out->none = false;
        out->type = offer[i];
        out->merged_ns = ns;
    }
    out->ratio = out->none || !(out->unmerged_ns > 0) ? 1 : out->merged_ns / out->unmerged_ns;
    out->gain = load->share * (1 - out->ratio);
    out->merge = !out->none && out->gain >= MERGE_GAIN_MIN;
}
