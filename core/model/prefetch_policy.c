/* How far ahead weights are asked for, measured on the model's own: slices of its largest matrix of a type
 * and of those of the same shape, another one in each try, so that no cache has it. All workers read at once,
 * as in a step. Choices take turns, so that what disturbs a while disturbs all of them, and medians meet, of
 * what was shorter in nearly all turns. A worker's processor time counts, as the tokenizer may be loading
 * beside it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "matrices.h"
#include "model_inner.h"

#define TYPE_BYTES_MIN ((size_t)8 << 20) /* of a type, and a share of the model: less saves nothing */
#define TYPE_SHARE_MIN 16U
#define SLICE_BYTES ((size_t)2 << 20) /* of a try; more if that is little for each worker */
#define WORKER_BYTES ((size_t)256 << 10)
#define N_ROUNDS 9
#define N_ROUNDS_MIN 5 /* fewer say nothing: the machine is too slow for the budget */
#define GAIN_MIN 0.04  /* what a choice must save to take the usual one's place */

static const uint16_t choices[N_PREFETCH_CHOICES] = PREFETCH_CHOICES;
static const uint32_t rows_at[PREFETCH_ROWS] = {1, 2, 6}; /* where each class is measured */
#define ROWS_MAX 6U

/* What served well where it was measured: long distances for whole-number products (where one row's are all
 * loads, as with AVX-512, the processor does it better by itself) and for halves that meet several rows. */
static unsigned usual_choice(const struct kernels *k, enum dtype type, unsigned rows)
{
    bool int8 = dtype_is_quantized(type) && k->act_mode == ACT_MODE_INT8;
    bool wide = strcmp(k->isa, "avx512") == 0;
    bool far = int8 ? !wide || rows == PREFETCH_MANY
                    : (type == DTYPE_F16 || type == DTYPE_BF16) && rows == PREFETCH_MANY;
    return far ? N_PREFETCH_CHOICES - 1 : 0;
}

unsigned prefetch_best(const double ns[N_PREFETCH_CHOICES], unsigned usual)
{
    unsigned best = usual;
    for (unsigned i = 0; i < N_PREFETCH_CHOICES; i++)
        if (ns[i] > 0 && ns[i] < ns[best])
            best = i;
    return ns[best] <= (1 - GAIN_MIN) * ns[usual] ? best : usual;
}

/* ---- the weights of a type ---- */

struct census {
    size_t n_bytes;               /* of all matrices */
    const struct packed *largest; /* NULL: none */
};

static size_t bytes_of(const struct packed *w)
{
    return w->n_panels * w->panel_bytes;
}

/* The matrices that products read: not an embedding that is no head. */
static bool matrix_at(const struct model *m, size_t index, struct model_matrix *out, bool *skip)
{
    bool found = model_matrix_at(m, index, out);
    *skip = !found || !out->w->data || (out->kind == MATRIX_EMBED && !m->tied);
    return found;
}

static void count_types(const struct model *m, struct census types[DTYPE_COUNT])
{
    struct model_matrix x;
    bool skip;
    memset(types, 0, DTYPE_COUNT * sizeof *types);
    for (size_t i = 0; matrix_at(m, i, &x, &skip); i++) {
        struct census *t = &types[x.w->type];
        if (skip)
            continue;
        t->n_bytes += bytes_of(x.w);
        if (!t->largest || bytes_of(x.w) > bytes_of(t->largest))
            t->largest = x.w;
    }
}

/* ---- measuring ---- */

struct tries {
    const struct model *m;
    struct team *team;
    unsigned n_workers;
    const struct packed *like; /* slices are from matrices of its type and shape */
    size_t matrix;             /* the next slice's */
    uint32_t panel, n_panels;  /* where it begins there; of a slice */
    struct acts x;
    float *x_values, *y;
    int64_t *worker_ns; /* [n_workers] */
    /* of the try at hand */
    struct packed slice;
    uint32_t n_rows, prefetch_bytes;
};

static void try_task(void *arg, unsigned worker, unsigned n_workers)
{
    const struct tries *t = arg;
    uint64_t begin, end;
    team_share(t->slice.n_panels, 1, worker, n_workers, &begin, &end);
    if (t->team)
        team_barrier(t->team); /* or who wakes first has the memory to himself */
    int64_t begin_ns = clock_thread_ns();
    if (begin < end)
        t->m->kernels->matmul[t->slice.type](&(struct matmul_args){.w = &t->slice,
                                                                   .x = &t->x,
                                                                   .row_end = t->n_rows,
                                                                   .panel_begin = (uint32_t)begin,
                                                                   .panel_end = (uint32_t)end,
                                                                   .y = t->y,
                                                                   .y_stride = t->slice.rows,
                                                                   .prefetch_bytes = t->prefetch_bytes});
    t->worker_ns[worker] = clock_thread_ns() - begin_ns;
}

static bool is_alike(const struct packed *a, const struct packed *b)
{
    return a->type == b->type && a->rows == b->rows && a->cols == b->cols;
}

/* Sets the next slice; behind the last matrix the first one follows. There is one: t->like. */
static void next_slice(struct tries *t)
{
    struct model_matrix x;
    bool skip;
    for (;; t->matrix++, t->panel = 0) {
        if (!matrix_at(t->m, t->matrix, &x, &skip)) {
            t->matrix = 0;
            (void)matrix_at(t->m, 0, &x, &skip);
        }
        if (!skip && is_alike(x.w, t->like) && x.w->n_panels - t->panel >= t->n_panels)
            break;
    }
    t->slice = *x.w;
    t->slice.data += t->panel * x.w->panel_bytes;
    t->slice.n_panels = t->n_panels;
    t->slice.rows = x.w->rows - t->panel * PANEL_ROWS;
    if (t->slice.rows > t->n_panels * PANEL_ROWS)
        t->slice.rows = t->n_panels * PANEL_ROWS;
    t->panel += t->n_panels;
}

static double try_one(struct tries *t, uint32_t n_rows, uint32_t prefetch_bytes)
{
    int64_t sum = 0;
    next_slice(t);
    t->n_rows = n_rows;
    t->prefetch_bytes = prefetch_bytes;
    if (t->team)
        team_run(t->team, try_task, t);
    else
        try_task(t, 0, 1);
    for (unsigned i = 0; i < t->n_workers; i++)
        sum += t->worker_ns[i];
    return (double)sum;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Whether the times of a choice were the shorter ones in nearly all rounds: by chance hardly any are. */
static bool is_steady(const double *times, const double *usual, unsigned n)
{
    unsigned n_shorter = 0;
    for (unsigned i = 0; i < n; i++)
        n_shorter += times[i] < usual[i];
    return n_shorter >= n - 1;
}

/* Medians, 0 of a choice that isn't steadily faster than the usual one. False: no time for enough tries. */
static bool measure(struct tries *t, int64_t deadline_ns, double ns[PREFETCH_ROWS][N_PREFETCH_CHOICES])
{
    double times[PREFETCH_ROWS][N_PREFETCH_CHOICES][N_ROUNDS];
    unsigned n = 0;
    for (; n < N_ROUNDS && clock_now_ns() < deadline_ns; n++)
        for (unsigned r = 0; r < PREFETCH_ROWS; r++)
            for (unsigned i = 0; i < N_PREFETCH_CHOICES; i++) {
                unsigned c = (i + n) % N_PREFETCH_CHOICES;
                times[r][c][n] = try_one(t, rows_at[r], choices[c]);
            }
    for (unsigned r = 0; r < PREFETCH_ROWS && n >= N_ROUNDS_MIN; r++) {
        bool steady[N_PREFETCH_CHOICES];
        unsigned usual = usual_choice(t->m->kernels, t->like->type, r);
        for (unsigned c = 0; c < N_PREFETCH_CHOICES; c++)
            steady[c] = c == usual || is_steady(times[r][c], times[r][usual], n);
        for (unsigned c = 0; c < N_PREFETCH_CHOICES; c++) {
            qsort(times[r][c], n, sizeof times[r][c][0], by_value);
            ns[r][c] = steady[c] ? times[r][c][n / 2] : 0;
        }
    }
    return n >= N_ROUNDS_MIN;
}

static bool tries_init(struct tries *t, const struct model *m, struct team *team, const struct packed *like)
{
    *t = (struct tries){.m = m, .team = team, .n_workers = team ? team_size(team) : 1, .like = like};
    size_t slice = t->n_workers * WORKER_BYTES, n_values = (size_t)ROWS_MAX * like->cols;
    slice = slice > SLICE_BYTES ? slice : SLICE_BYTES;
    slice = slice / like->panel_bytes + 1;
    t->n_panels = slice < like->n_panels ? (uint32_t)slice : like->n_panels;
    t->x_values = mem_array(n_values, sizeof *t->x_values);
    t->y = mem_array((size_t)ROWS_MAX * t->n_panels * PANEL_ROWS, sizeof *t->y);
    t->worker_ns = mem_array(t->n_workers, sizeof *t->worker_ns);
    t->x = (struct acts){.x = t->x_values, .x_stride = like->cols, .n_rows = ROWS_MAX, .cols = like->cols};
    t->x.blocks = mem_aligned(64, ROWS_MAX * acts_stride(like->cols) * sizeof *t->x.blocks);
    if (!t->x_values || !t->y || !t->worker_ns || !t->x.blocks)
        return false;
    for (size_t i = 0; i < n_values; i++)
        t->x_values[i] = (float)(i % 31) / 16 - 1;
    m->kernels->quantize_rows(&t->x, 0, ROWS_MAX);
    return true;
}

static void tries_fini(struct tries *t)
{
    mem_free(t->x_values);
    mem_free(t->y);
    mem_free(t->worker_ns);
    mem_free(t->x.blocks);
}

static void choose_for_type(struct model *m, struct team *team, const struct packed *like,
                            int64_t deadline_ns)
{
    struct tries t;
    double ns[PREFETCH_ROWS][N_PREFETCH_CHOICES];
    struct prefetch_policy *p = &m->prefetch;
    if (tries_init(&t, m, team, like) && measure(&t, deadline_ns, ns)) {
        p->measured[like->type] = true;
        for (unsigned r = 0; r < PREFETCH_ROWS; r++)
            p->bytes[like->type][r] = choices[prefetch_best(ns[r], usual_choice(m->kernels, like->type, r))];
    }
    tries_fini(&t);
}

void prefetch_policy_choose(struct model *m, struct team *team, int64_t budget_ns)
{
    struct census types[DTYPE_COUNT];
    struct prefetch_policy *p = &m->prefetch;
    int64_t begin = clock_now_ns();
    unsigned n_left = 0;
    bool wanted[DTYPE_COUNT];
    count_types(m, types);
    *p = (struct prefetch_policy){0};
    for (unsigned t = 0; t < DTYPE_COUNT; t++) {
        for (unsigned r = 0; r < PREFETCH_ROWS; r++)
            p->bytes[t][r] = choices[usual_choice(m->kernels, (enum dtype)t, r)];
        p->has[t] = types[t].largest;
        wanted[t] = types[t].n_bytes >= TYPE_BYTES_MIN &&
                    types[t].n_bytes >= m->info.size_bytes / TYPE_SHARE_MIN &&
                    strcmp(m->kernels->isa, "scalar") != 0; /* which never asks */
        n_left += wanted[t];
    }
    for (unsigned t = 0; t < DTYPE_COUNT; t++) {
        if (!wanted[t])
            continue;
        int64_t now = clock_now_ns(), left = begin + budget_ns - now;
        choose_for_type(m, team, types[t].largest, now + left / n_left--);
    }
    p->spent_ns = clock_now_ns() - begin;
}

/* ---- what it shows ---- */

const struct prefetch_policy *model_prefetch(const struct model *m)
{
    return &m->prefetch;
}

const char *model_prefetch_text(const struct model *m, char *dst, size_t dst_bytes)
{
    size_t n = 0;
    dst[0] = 0;
    for (unsigned t = 0; t < DTYPE_COUNT && n < dst_bytes; t++) {
        const uint16_t *b = m->prefetch.bytes[t];
        if (m->prefetch.has[t])
            n += (size_t)snprintf(dst + n, dst_bytes - n, "%s%s %u/%u/%u", n ? " " : "",
                                  dtype_name((enum dtype)t), b[PREFETCH_ONE], b[PREFETCH_FEW],
                                  b[PREFETCH_MANY]);
    }
    return dst;
}
