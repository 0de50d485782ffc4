/* Attention in 16 lanes; attention_scalar.c is the definition. Rows (token, head) are worked on in strips of
 * up to ATTEND_ROWS, which share each load of K and V: lanes are 16 positions while logits are made, and 16
 * values of a head while values are added up. Include a vec_*.h first, and define ATTEND_ROWS,
 * ATTEND_PAIRS(rows) (whether so few rows take two lines at once), ATTEND_CASES. */
#include "attention.h"
#include "kernels_inner.h"
#include "vec_body.h"

#define P_STRIDE (ATTN_SPLIT + 16) /* not a power of two: rows would meet in the cache's sets */

/* Some rows in a split. */
struct strip {
    const struct attention_args *a;
    const float *q; /* [head_dim][n_rows] */
    float *p;       /* [n_rows][P_STRIDE]: logits, then probabilities, by position in the split */
    float *part;    /* [n_rows][attention_part_floats] */
    uint32_t first_row, n_rows, split;
};

/* Constants where a function is made for them. */
struct shape {
    uint32_t rows, lines;
    uint32_t width; /* of the line: ATTN_LANES but in a narrow last one of values */
    enum dtype type;
    bool ahead; /* ask for memory before it's read */
};

VEC struct v16 kv_load(const uint8_t *p, enum dtype type)
{
    switch (type) {
    case DTYPE_F32:
        return v16_load((const float *)(const void *)p);
    case DTYPE_BF16:
        return v16_load_bf16(p);
    case DTYPE_I8:
        return v16_load_i8(p);
    default:
        return v16_load_f16(p);
    }
}

VEC struct v16 kv_load_n(const uint8_t *p, uint32_t n, enum dtype type)
{
    _Alignas(64) uint8_t line[ATTN_LANES * sizeof(float)] = {0};
    if (n == ATTN_LANES)
        return kv_load(p, type);
    memcpy(line, p, n * kv_value_bytes(type));
    return kv_load(line, type);
}

/* ---- logits ---- */

VEC struct v16 softcap(struct v16 x, float cap)
{
    struct v16 u = v16_div(x, v16_set1(cap)), one = v16_set1(1.0f);
    struct v16 e = v16_exp(v16_mul(v16_set1(-2.0f), v16_abs(u)));
    return v16_mul(v16_set1(cap), v16_copysign(v16_div(v16_sub(one, e), v16_add(one, e)), u));
}

/* What no hardware foresees, as blocks lie apart: the same place of the next page's keys and of this page's
 * values. */
struct ahead {
    const uint8_t *key, *value;
};

VEC struct ahead ahead_of(const struct strip *s, uint32_t at, const uint8_t *key)
{
    const struct attention_args *a = s->a;
    uint32_t next = at + a->page_tokens;
    size_t place = (size_t)(key - attention_block(a, a->k_offset, at));
    bool any = next < a->position + a->n_tokens;
    return (struct ahead){any ? attention_block(a, a->k_offset, next) + place : key,
                          attention_block(a, a->v_offset, at) + place};
}

/* Of k.lines * 16 positions from `at` on, which are in one page. */
VEC void lines_logits(const struct strip *s, uint32_t at, struct shape k)
{
    const struct attention_args *a = s->a;
    const uint8_t *block = attention_block(a, a->k_offset, at);
    uint32_t token = at % a->page_tokens, n = a->head_dim;
    size_t step = ATTN_LANES * kv_value_bytes(k.type), line = n * step;
    const uint8_t *key = block + token / ATTN_LANES * line;
    const float *q = s->q, *scales = kv_scales(block, n, a->page_tokens) + token;
    struct ahead next = k.ahead ? ahead_of(s, at, key) : (struct ahead){NULL, NULL};
    struct v16 sum[ATTEND_ROWS][2];
#pragma GCC unroll 8
    for (uint32_t r = 0; r < k.rows; r++)
        sum[r][0] = sum[r][1] = v16_set1(0);
    for (uint32_t i = 0; i < n; i++, key += step, q += k.rows) {
        if (k.ahead) {
            __builtin_prefetch(next.key + i * step);
            __builtin_prefetch(next.value + i * step);
        }
        if (k.ahead && k.lines == 2) {
            __builtin_prefetch(next.key + line + i * step);
            __builtin_prefetch(next.value + line + i * step);
        }
        struct v16 k0 = kv_load(key, k.type), k1 = k.lines == 2 ? kv_load(key + line, k.type) : k0;
#pragma GCC unroll 8
        for (uint32_t r = 0; r < k.rows; r++) {
            struct v16 x = v16_set1(q[r]);
            sum[r][0] = v16_fma(x, k0, sum[r][0]);
            if (k.lines == 2)
                sum[r][1] = v16_fma(x, k1, sum[r][1]);
        }
    }
#pragma GCC unroll 2
    for (uint32_t j = 0; j < k.lines; j++) {
#pragma GCC unroll 8
        for (uint32_t r = 0; r < k.rows; r++) {
            struct v16 x = sum[r][j];
            if (k.type == DTYPE_I8)
                x = v16_mul(x, v16_load(scales + j * ATTN_LANES));
            v16_store(s->p + r * P_STRIDE + at % ATTN_SPLIT + j * ATTN_LANES, v16_mul(v16_set1(a->scale), x));
        }
    }
}

/* Whole lines: positions before and behind are in the page, and what they give is not looked at. */
VEC void strip_logits(const struct strip *s, struct span t, struct shape k)
{
    uint32_t page_tokens = s->a->page_tokens;
    for (uint32_t at = t.from / ATTN_LANES * ATTN_LANES; at < t.to;) {
        bool two = k.lines == 2 && at + ATTN_LANES < t.to && at % page_tokens + ATTN_LANES < page_tokens;
        if (two)
            lines_logits(s, at, k);
        else
            lines_logits(s, at, (struct shape){k.rows, 1, ATTN_LANES, k.type, k.ahead});
        at += two ? 2 * ATTN_LANES : ATTN_LANES;
    }
}

/* ---- probabilities ---- */

VEC void scale_by_values(const struct strip *s, float *p, struct span t)
{
    const struct attention_args *a = s->a;
    for (uint32_t at = t.from / ATTN_LANES * ATTN_LANES; at < t.to; at += ATTN_LANES) {
        const uint8_t *block = attention_block(a, a->v_offset, at);
        const float *scales = kv_scales(block, a->head_dim, a->page_tokens) + at % a->page_tokens;
        float *line = p + at % ATTN_SPLIT;
        v16_store(line, v16_mul(v16_load(line), v16_load(scales)));
    }
}

/* A row's logits to probabilities, not yet divided by their sum; maximum and sum into its part. */
static void soften(const struct strip *s, uint32_t r)
{
    const struct attention_args *a = s->a;
    struct span t = attention_span(a, (s->first_row + r) / a->n_group, s->split);
    if (t.from >= t.to)
        return;
    uint32_t base = s->split * ATTN_SPLIT, from = t.from - base, to = t.to - base;
    float *p = s->p + r * P_STRIDE,
          *end = s->part + r * attention_part_floats(a->head_dim) + kv_padded(a->head_dim);
    struct v16 max = v16_set1(-INFINITY), sum = v16_set1(0);
    uint32_t first = from / ATTN_LANES * ATTN_LANES;
    for (uint32_t i = first; i < to && a->softcap > 0; i += ATTN_LANES)
        v16_store(p + i, softcap(v16_load(p + i), a->softcap));
    for (uint32_t i = first; i < from; i++)
        p[i] = -INFINITY;
    for (uint32_t i = to; i % ATTN_LANES != 0; i++)
        p[i] = -INFINITY;
    for (uint32_t i = first; i < to; i += ATTN_LANES)
        max = v16_max(max, v16_load(p + i));
    end[0] = v16_lanes_max(max);
    for (uint32_t i = first; i < to; i += ATTN_LANES) {
        struct v16 e = v16_exp(v16_sub(v16_load(p + i), v16_set1(end[0])));
        v16_store(p + i, e);
        sum = v16_add(sum, e);
    }
    end[1] = v16_sum(sum);
    if (a->kv_type == DTYPE_I8)
        scale_by_values(s, p, t);
}

/* ---- values ---- */

/* Some positions' values times p, onto k.lines * 16 values from line `line` on of k.rows rows from `row` on.
 */
struct addition {
    struct span t;
    uint32_t row, line;
};

VEC void lines_values(const struct strip *s, struct addition to, struct shape k)
{
    const struct attention_args *a = s->a;
    size_t step = k.width * kv_value_bytes(k.type), line = a->page_tokens * step;
    size_t size = attention_part_floats(a->head_dim), first = (size_t)to.line * ATTN_LANES;
    float *acc = s->part + to.row * size + first;
    struct v16 sum[ATTEND_ROWS][2];
#pragma GCC unroll 8
    for (uint32_t r = 0; r < k.rows; r++) {
        sum[r][0] = v16_load(acc + r * size);
        if (k.lines == 2)
            sum[r][1] = v16_load(acc + r * size + ATTN_LANES);
    }
    for (uint32_t at = to.t.from; at < to.t.to;) {
        uint32_t token = at % a->page_tokens, left = a->page_tokens - token;
        uint32_t n = to.t.to - at < left ? to.t.to - at : left;
        const uint8_t *value = attention_block(a, a->v_offset, at) +
                               first * a->page_tokens * kv_value_bytes(k.type) + token * step;
        const float *p = s->p + to.row * P_STRIDE + at % ATTN_SPLIT;
        for (uint32_t t = 0; t < n; t++, value += step, p++) {
            struct v16 v0 = kv_load_n(value, k.width, k.type);
            struct v16 v1 = k.lines == 2 ? kv_load(value + line, k.type) : v0;
#pragma GCC unroll 8
            for (uint32_t r = 0; r < k.rows; r++) {
                struct v16 x = v16_set1(p[r * P_STRIDE]);
                sum[r][0] = v16_fma(x, v0, sum[r][0]);
                if (k.lines == 2)
                    sum[r][1] = v16_fma(x, v1, sum[r][1]);
            }
        }
        at += n;
    }
#pragma GCC unroll 8
    for (uint32_t r = 0; r < k.rows; r++) {
        v16_store(acc + r * size, sum[r][0]);
        if (k.lines == 2)
            v16_store(acc + r * size + ATTN_LANES, sum[r][1]);
    }
}

VEC void strip_values(const struct strip *s, struct span t, uint32_t row, struct shape k)
{
    uint32_t n_lines = s->a->head_dim / ATTN_LANES, rest = s->a->head_dim % ATTN_LANES, i = 0;
    for (; k.lines == 2 && i + 1 < n_lines; i += 2)
        lines_values(s, (struct addition){t, row, i}, k);
    for (; i < n_lines; i++)
        lines_values(s, (struct addition){t, row, i}, (struct shape){k.rows, 1, ATTN_LANES, k.type, false});
    if (rest > 0)
        lines_values(s, (struct addition){t, row, i}, (struct shape){k.rows, 1, rest, k.type, false});
}

/* ---- strips ---- */

typedef void strip_logits_fn(const struct strip *s, struct span t);
typedef void strip_values_fn(const struct strip *s, struct span t, uint32_t row);

#define ATTEND_SHAPE(n, kv, ahead)                                                                           \
    (struct shape)                                                                                           \
    {                                                                                                        \
        n, ATTEND_PAIRS(n) ? 2 : 1, ATTN_LANES, DTYPE_##kv, ahead                                            \
    }
/* A token alone comes to memory that is far away; of several, all strips but the first find it near. */
#define ATTEND_ONE(n, kv)                                                                                    \
    static void logits_##kv##_##n(const struct strip *s, struct span t)                                      \
    {                                                                                                        \
        if (s->a->n_tokens == 1 && s->first_row == 0)                                                        \
            strip_logits(s, t, ATTEND_SHAPE(n, kv, true));                                                   \
        else                                                                                                 \
            strip_logits(s, t, ATTEND_SHAPE(n, kv, false));                                                  \
    }                                                                                                        \
    static void values_##kv##_##n(const struct strip *s, struct span t, uint32_t row)                        \
    {                                                                                                        \
        strip_values(s, t, row, ATTEND_SHAPE(n, kv, false));                                                 \
    }
#define ATTEND_TYPES(n) ATTEND_ONE(n, F32) ATTEND_ONE(n, F16) ATTEND_ONE(n, BF16) ATTEND_ONE(n, I8)
ATTEND_CASES(ATTEND_TYPES)

#define ATTEND_ENTRY(n, kv) {logits_##kv##_##n, values_##kv##_##n},
#define ATTEND_F32(n) ATTEND_ENTRY(n, F32)
#define ATTEND_F16(n) ATTEND_ENTRY(n, F16)
#define ATTEND_BF16(n) ATTEND_ENTRY(n, BF16)
#define ATTEND_I8(n) ATTEND_ENTRY(n, I8)
static const struct strip_fns {
    strip_logits_fn *logits;
    strip_values_fn *values;
} strip_fns[4][ATTEND_ROWS] = {{ATTEND_CASES(ATTEND_F32)},
                               {ATTEND_CASES(ATTEND_F16)},
                               {ATTEND_CASES(ATTEND_BF16)},
                               {ATTEND_CASES(ATTEND_I8)}};

static const struct strip_fns *fns_of(enum dtype type)
{
    return strip_fns[type == DTYPE_F32 ? 0 : type == DTYPE_F16 ? 1 : type == DTYPE_BF16 ? 2 : 3];
}

/* What all rows of a strip attend to, and what any of them does. */
static void strip_spans(const struct strip *s, struct span *all, struct span *common)
{
    uint32_t first = s->first_row / s->a->n_group, last = (s->first_row + s->n_rows - 1) / s->a->n_group;
    *all = (struct span){UINT32_MAX, 0};
    *common = (struct span){0, UINT32_MAX};
    for (uint32_t token = first; token <= last; token++) {
        struct span t = attention_span(s->a, token, s->split);
        bool none = t.from >= t.to;
        all->from = !none && t.from < all->from ? t.from : all->from;
        all->to = t.to > all->to ? t.to : all->to;
        common->from = t.from > common->from ? t.from : common->from;
        common->to = t.to < common->to ? t.to : common->to;
    }
}

/* Each row adds its own positions in ascending order: those before the common ones, the common ones with all
 * others, those behind. */
static void add_values(const struct strip *s, struct span common)
{
    const struct strip_fns *fns = fns_of(s->a->kv_type);
    bool any = common.from < common.to;
    for (uint32_t r = 0; r < s->n_rows; r++) {
        struct span t = attention_span(s->a, (s->first_row + r) / s->a->n_group, s->split);
        t.to = any ? common.from : t.to;
        if (t.from < t.to)
            fns[0].values(s, t, r);
    }
    if (!any)
        return;
    fns[s->n_rows - 1].values(s, common, 0);
    for (uint32_t r = 0; r < s->n_rows; r++) {
        struct span t = attention_span(s->a, (s->first_row + r) / s->a->n_group, s->split);
        if (common.to < t.to)
            fns[0].values(s, (struct span){common.to, t.to}, r);
    }
}

static void strip_run(const struct strip *s)
{
    struct span all, common;
    size_t size = attention_part_floats(s->a->head_dim);
    strip_spans(s, &all, &common);
    if (all.from >= all.to)
        return;
    fns_of(s->a->kv_type)[s->n_rows - 1].logits(s, all);
    for (uint32_t r = 0; r < s->n_rows; r++) {
        memset(s->part + r * size, 0, kv_padded(s->a->head_dim) * sizeof(float));
        soften(s, r);
    }
    add_values(s, common);
}

/* ---- all rows ---- */

/* Where they are in the scratch. */
struct rows {
    const struct attention_args *a;
    uint32_t n, n_strips;
    float *p, *q, *part, *total;
};

static uint32_t strip_begin(const struct rows *g, uint32_t i)
{
    return g->n * i / g->n_strips;
}

static struct rows rows_create(const struct attention_args *a)
{
    struct rows g = {.a = a, .n = a->n_tokens * a->n_group, .p = a->scratch};
    require(kv_block_has(a->kv_type) && a->page_tokens % ATTN_LANES == 0);
    g.n_strips = (g.n + ATTEND_ROWS - 1) / ATTEND_ROWS;
    g.part = g.p + (size_t)ATTEND_ROWS * P_STRIDE;
    g.total = g.part + g.n * attention_part_floats(a->head_dim);
    g.q = g.total + g.n * attention_part_floats(a->head_dim);
    return g;
}

/* Each strip's q to [head_dim][rows]. */
static void place_queries(const struct rows *g)
{
    const struct attention_args *a = g->a;
    for (uint32_t i = 0; i < g->n_strips; i++) {
        uint32_t begin = strip_begin(g, i), n = strip_begin(g, i + 1) - begin;
        float *to = g->q + (size_t)begin * a->head_dim;
        for (uint32_t r = 0; r < n; r++) {
            uint32_t row = begin + r;
            const float *q = a->q + row / a->n_group * a->stride + (size_t)(row % a->n_group) * a->head_dim;
            for (uint32_t d = 0; d < a->head_dim; d++)
                to[(size_t)d * n + r] = q[d];
        }
    }
}

static void split_run(const struct rows *g, uint32_t split, float *part)
{
    for (uint32_t i = 0; i < g->n_strips; i++) {
        uint32_t begin = strip_begin(g, i);
        strip_run(&(struct strip){.a = g->a,
                                  .q = g->q + (size_t)begin * g->a->head_dim,
                                  .p = g->p,
                                  .part = part + begin * attention_part_floats(g->a->head_dim),
                                  .first_row = begin,
                                  .n_rows = strip_begin(g, i + 1) - begin,
                                  .split = split});
    }
}

/* Adds a split's part to the row's total. exp(0) is exactly 1, so one side never loses bits. */
static void join_part(float *total, const float *part, uint32_t padded)
{
    float max = part[padded] > total[padded] ? part[padded] : total[padded];
    float old = exp_scalar(total[padded] - max), new = exp_scalar(part[padded] - max);
    for (uint32_t i = 0; i < padded; i += ATTN_LANES) {
        struct v16 before = v16_mul(v16_load(total + i), v16_set1(old));
        v16_store(total + i, v16_fma(v16_load(part + i), v16_set1(new), before));
    }
    total[padded] = max;
    total[padded + 1] = fmaf(part[padded + 1], new, total[padded + 1] * old);
}

/* Joins a split's parts of all rows to the totals. */
static void join_split(const struct rows *g, uint32_t split, const float *parts)
{
    size_t size = attention_part_floats(g->a->head_dim);
    uint32_t padded = kv_padded(g->a->head_dim);
    for (uint32_t row = 0; row < g->n; row++) {
        uint32_t token = row / g->a->n_group;
        if (!attention_has_part(g->a, token, split))
            continue;
        if (split == attention_begin(g->a, token) / ATTN_SPLIT)
            memcpy(g->total + row * size, parts + row * size, (padded + 2) * sizeof *parts);
        else
            join_part(g->total + row * size, parts + row * size, padded);
    }
}

static void put_out(const struct rows *g)
{
    const struct attention_args *a = g->a;
    uint32_t n = a->head_dim, padded = kv_padded(n);
    for (uint32_t row = 0; row < g->n; row++) {
        const float *total = g->total + row * attention_part_floats(n);
        float *out = a->out + row / a->n_group * a->stride + (size_t)(row % a->n_group) * n;
        struct v16 sum = v16_set1(total[padded + 1]);
        for (uint32_t i = 0; i < n; i += ATTN_LANES)
            v16_store_n(out + i, v16_div(v16_load(total + i), sum), kv_line_values(n, i));
    }
}

void ISA_NAME(attention)(const struct attention_args *a)
{
    struct rows g = rows_create(a);
    place_queries(&g);
    for (uint32_t split = attention_first_split(a); split <= attention_last_split(a); split++) {
        split_run(&g, split, g.part);
        join_split(&g, split, g.part);
    }
    put_out(&g);
}

void ISA_NAME(attention_parts)(const struct attention_args *a, uint32_t begin, uint32_t end, float *parts)
{
    struct rows g = rows_create(a);
    place_queries(&g);
    for (uint32_t split = begin; split < end; split++, parts += g.n * attention_part_floats(a->head_dim))
        split_run(&g, split, parts);
}

void ISA_NAME(attention_join)(const struct attention_args *a, const float *parts)
{
    struct rows g = rows_create(a);
    size_t size = g.n * attention_part_floats(a->head_dim);
    for (uint32_t split = attention_first_split(a); split <= attention_last_split(a); split++, parts += size)
        join_split(&g, split, parts);
    put_out(&g);
}

/* ---- blocks ---- */

/* n values from x, 1 to 16, as the block has them, and zeros behind. */
VEC void convert_line(const float *x, uint32_t n, enum dtype type, float factor, uint8_t *to)
{
    struct v16 v = v16_load_n(x, n);
    float f[ATTN_LANES];
    switch (type) {
    case DTYPE_F32:
        v16_store((float *)(void *)to, v);
        break;
    case DTYPE_F16:
        v16_store_f16((uint16_t *)(void *)to, v);
        break;
    case DTYPE_BF16:
        v16_store(f, v);
        for (uint32_t i = 0; i < ATTN_LANES; i++)
            ((uint16_t *)(void *)to)[i] = f32_to_bf16(f[i]);
        break;
    default: /* I8; a row that can't be scaled is all zeros, whatever it was */
        v = factor > 0 ? v16_round_away(v16_mul(v, v16_set1(factor))) : v16_set1(0);
        (void)v16_store_i8((int8_t *)to, v);
    }
}

/* What x's values are multiplied with before they are stored; sets an I8 row's scale. */
static float begin_row(const struct kv_row *r, const float *x)
{
    struct v16 largest = v16_set1(0);
    bool finite = true;
    if (r->type != DTYPE_I8)
        return 1;
    for (uint32_t i = 0; i < r->head_dim; i += ATTN_LANES) {
        uint32_t n = kv_line_values(r->head_dim, i);
        struct v16 magnitude = v16_abs(v16_load_n(x + i, n));
        finite = finite && v16_all_at_most(magnitude, FLT_MAX);
        largest = v16_max(largest, magnitude);
    }
    return kv_put_scale(r, finite ? v16_lanes_max(largest) : NAN);
}

VEC void scatter(const uint8_t *line, uint32_t n, size_t value_bytes, uint8_t *to)
{
    for (uint32_t i = 0; i < n; i++)
        memcpy(to + i * ATTN_LANES * value_bytes, line + i * value_bytes, value_bytes);
}

void ISA_NAME(put_keys)(const struct kv_row *r, const float *x)
{
    size_t value_bytes = kv_value_bytes(r->type), group = r->token / ATTN_LANES * (size_t)r->head_dim;
    uint8_t *to = r->block + (group * ATTN_LANES + r->token % ATTN_LANES) * value_bytes;
    float factor = begin_row(r, x);
    for (uint32_t i = 0; i < r->head_dim; i += ATTN_LANES) {
        uint32_t n = kv_line_values(r->head_dim, i);
        _Alignas(64) uint8_t line[ATTN_LANES * sizeof(float)];
        convert_line(x + i, n, r->type, factor, line);
        if (value_bytes == 2)
            scatter(line, n, 2, to);
        else if (value_bytes == 4)
            scatter(line, n, 4, to);
        else
            scatter(line, n, 1, to);
        to += ATTN_LANES * ATTN_LANES * value_bytes;
    }
}

void ISA_NAME(put_values)(const struct kv_row *r, const float *x)
{
    size_t value_bytes = kv_value_bytes(r->type);
    float factor = begin_row(r, x);
    for (uint32_t i = 0; i < r->head_dim; i += ATTN_LANES) {
        uint32_t n = kv_line_values(r->head_dim, i);
        _Alignas(64) uint8_t line[ATTN_LANES * sizeof(float)];
        convert_line(x + i, n, r->type, factor, line);
        memcpy(r->block + ((size_t)i * r->page_tokens + (size_t)r->token * n) * value_bytes, line,
               n * value_bytes);
    }
}
