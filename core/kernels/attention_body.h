/* Attention of one token's query heads in 16 lanes; attention_scalar.c is the definition. K and V rows are
 * read once for up to HEADS_AT_ONCE query heads. Include a vec_*.h first. */
#include "attention.h"
#include "kernels_inner.h"
#include "vec_body.h"

#define HEADS_AT_ONCE 4U

/* Walks a split's rows of K or V from page to page. */
struct row_walk {
    const struct attention_args *a;
    size_t offset, row_bytes;
    const uint8_t *row;
    uint32_t token, left_in_page;
};

VEC struct row_walk row_walk_start(const struct attention_args *a, size_t offset, uint32_t token, bool f16)
{
    return (struct row_walk){.a = a,
                             .offset = offset,
                             .row_bytes = (size_t)a->head_dim * (f16 ? 2 : 4),
                             .row = attention_rows(a, offset, token),
                             .token = token,
                             .left_in_page = a->page_tokens - token % a->page_tokens};
}

/* To the next token, which must be below `to`: pages behind the last token may not exist. */
VEC void row_walk_next(struct row_walk *w, uint32_t to)
{
    w->row += w->row_bytes;
    w->token++;
    if (--w->left_in_page == 0 && w->token < to) {
        w->row = attention_rows(w->a, w->offset, w->token);
        w->left_in_page = w->a->page_tokens;
    }
}

VEC struct v16 kv_load(const uint8_t *row, uint32_t i, bool f16)
{
    return f16 ? v16_load_f16(row + (size_t)i * 2) : v16_load((const float *)(const void *)row + i);
}

VEC struct v16 kv_load_part(const uint8_t *row, uint32_t i, uint32_t n, bool f16)
{
    return f16 ? v16_load_f16_part((const uint16_t *)(const void *)row + i, n)
               : v16_load_part((const float *)(const void *)row + i, n);
}

/* A few query heads that are worked on together. n and f16 are constants where this is instantiated. */
struct heads {
    const struct attention_args *a;
    uint32_t first, n;
    bool f16;
};

VEC struct v16 softcap(struct v16 x, float cap)
{
    struct v16 u = v16_div(x, v16_set1(cap)), one = v16_set1(1.0f);
    struct v16 e = v16_exp(v16_mul(v16_set1(-2.0f), v16_abs(u)));
    return v16_mul(v16_set1(cap), v16_copysign(v16_div(v16_sub(one, e), v16_add(one, e)), u));
}

/* logits[h * ATTN_SPLIT + t] for tokens from .. from + n_tokens. */
VEC void split_logits(struct heads g, uint32_t from, uint32_t to, float *logits)
{
    uint32_t n = g.a->head_dim, whole = n & ~15U;
    const float *q = g.a->q + (size_t)g.first * n;
    struct row_walk k = row_walk_start(g.a, g.a->k_offset, from, g.f16);
    for (uint32_t t = 0; t < to - from; t++, row_walk_next(&k, to)) {
        struct v16 sum[HEADS_AT_ONCE];
#pragma GCC unroll 4
        for (uint32_t h = 0; h < g.n; h++)
            sum[h] = v16_set1(0);
        for (uint32_t i = 0; i < whole; i += 16) {
            struct v16 key = kv_load(k.row, i, g.f16);
#pragma GCC unroll 4
            for (uint32_t h = 0; h < g.n; h++)
                sum[h] = v16_fma(v16_load(q + (size_t)h * n + i), key, sum[h]);
        }
        if (whole < n) {
            struct v16 key = kv_load_part(k.row, whole, n - whole, g.f16);
#pragma GCC unroll 4
            for (uint32_t h = 0; h < g.n; h++)
                sum[h] = v16_fma(v16_load_part(q + (size_t)h * n + whole, n - whole), key, sum[h]);
        }
#pragma GCC unroll 4
        for (uint32_t h = 0; h < g.n; h++)
            logits[(size_t)h * ATTN_SPLIT + t] = g.a->scale * v16_sum(sum[h]);
    }
}

/* Logits of one head to probabilities, not yet divided by their sum. */
static struct attention_split soften(float *p, uint32_t n, float cap)
{
    struct v16 max = v16_set1(-INFINITY), sum = v16_set1(0);
    struct attention_split s;
    for (uint32_t i = 0; i < n && cap > 0; i += 16) {
        uint32_t part = n - i < 16 ? n - i : 16;
        v16_store_n(p + i, softcap(v16_load_n(p + i, part), cap), part);
    }
    uint32_t whole = n & ~15U;
    for (uint32_t i = 0; i < whole; i += 16)
        max = v16_max(max, v16_load(p + i));
    s.max = v16_lanes_max(max);
    for (uint32_t i = whole; i < n; i++)
        s.max = p[i] > s.max ? p[i] : s.max;
    for (uint32_t i = 0; i < n; i += 16) {
        uint32_t part = n - i < 16 ? n - i : 16;
        v16_store_n(p + i, v16_exp(v16_sub(v16_load_n(p + i, part), v16_set1(s.max))), part);
        sum = v16_add(sum, v16_load_n(p + i, part)); /* lanes behind the end must count as zero */
    }
    s.sum = v16_sum(sum);
    return s;
}

/* acc[h, i .. i+part) = sum over the split's tokens of p V. */
VEC void split_values(struct heads g, uint32_t from, uint32_t to, const float *p, uint32_t i, uint32_t part,
                      float *acc)
{
    uint32_t n = g.a->head_dim;
    struct row_walk v = row_walk_start(g.a, g.a->v_offset, from, g.f16);
    struct v16 sum[HEADS_AT_ONCE];
#pragma GCC unroll 4
    for (uint32_t h = 0; h < g.n; h++)
        sum[h] = v16_set1(0);
    for (uint32_t t = 0; t < to - from; t++, row_walk_next(&v, to)) {
        struct v16 value = part == 16 ? kv_load(v.row, i, g.f16) : kv_load_part(v.row, i, part, g.f16);
#pragma GCC unroll 4
        for (uint32_t h = 0; h < g.n; h++)
            sum[h] = v16_fma(v16_set1(p[(size_t)h * ATTN_SPLIT + t]), value, sum[h]);
    }
#pragma GCC unroll 4
    for (uint32_t h = 0; h < g.n; h++)
        v16_store_n(acc + (size_t)h * n + i, sum[h], part);
}

VEC void attend_heads(struct heads g)
{
    const struct attention_args *a = g.a;
    uint32_t n = a->head_dim, whole = n & ~15U;
    float *logits = a->scratch, *acc = a->scratch + (size_t)g.n * ATTN_SPLIT;
    float *out = a->out + (size_t)g.first * n;
    struct attention_split total[HEADS_AT_ONCE] = {{0, 0}};
    for (uint32_t from = a->begin, to; from < a->end; from = to) {
        struct attention_split s[HEADS_AT_ONCE];
        to = attention_split_end(a, from);
        split_logits(g, from, to, logits);
        for (uint32_t h = 0; h < g.n; h++)
            s[h] = soften(logits + (size_t)h * ATTN_SPLIT, to - from, a->softcap);
        for (uint32_t i = 0; i < whole; i += 16)
            split_values(g, from, to, logits, i, 16, acc);
        if (whole < n)
            split_values(g, from, to, logits, whole, n - whole, acc);
        for (uint32_t h = 0; h < g.n; h++)
            attention_merge(&total[h], &s[h], from == a->begin, out + (size_t)h * n, acc + (size_t)h * n, n);
    }
    for (uint32_t h = 0; h < g.n; h++) {
        for (uint32_t i = 0; i < n; i++)
            out[(size_t)h * n + i] = a->begin < a->end ? out[(size_t)h * n + i] / total[h].sum : 0;
    }
}

#define ATTEND(count, is_f16)                                                                                \
    static void attend_##count##_##is_f16(const struct attention_args *a, uint32_t first)                    \
    {                                                                                                        \
        attend_heads((struct heads){a, first, count, is_f16});                                               \
    }
ATTEND(1, 0)
ATTEND(2, 0)
ATTEND(4, 0)
ATTEND(1, 1)
ATTEND(2, 1)
ATTEND(4, 1)

void ISA_NAME(attention)(const struct attention_args *a)
{
    bool f16 = a->kv_type == DTYPE_F16;
    require(f16 || a->kv_type == DTYPE_F32);
    for (uint32_t head = 0; head < a->n_group;) {
        uint32_t left = a->n_group - head, n = left >= 4 ? 4 : left >= 2 ? 2 : 1;
        if (n == 4)
            (f16 ? attend_4_1 : attend_4_0)(a, head);
        else if (n == 2)
            (f16 ? attend_2_1 : attend_2_0)(a, head);
        else
            (f16 ? attend_1_1 : attend_1_0)(a, head);
        head += n;
    }
}
