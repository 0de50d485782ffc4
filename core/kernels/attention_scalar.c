/* Attention of neighbouring tokens' query heads over one kv head, the definition; and how K and V are stored.
 *
 * A logit is scale * (the products q k, added one after another, fused); with I8 keys the sum is times the
 * key's scale first. In a split: all logits, their maximum, p = exp(logit - maximum), the sum of p in 16
 * lanes by position (added as a tree), and the sums of p V, one fused multiply-add a position, with I8 values
 * of p times the value's scale. Parts are joined in ascending order. arXiv 1805.02867 (online softmax),
 * eq. 3. */
#include "attention.h"
#include "kernels_inner.h"

/* ---- blocks ---- */

/* Places of a value in a block of keys and of values, counted in values. */
static size_t key_at(uint32_t head_dim, uint32_t token, uint32_t i)
{
    return ((size_t)(token / ATTN_LANES) * head_dim + i) * ATTN_LANES + token % ATTN_LANES;
}

static size_t value_at(uint32_t head_dim, uint32_t page_tokens, uint32_t token, uint32_t i)
{
    uint32_t lane = i % ATTN_LANES, first = i - lane;
    return (size_t)first * page_tokens + (size_t)token * kv_line_values(head_dim, first) + lane;
}

static float block_get(enum dtype type, const uint8_t *block, size_t at)
{
    const uint8_t *p = block + at * kv_value_bytes(type);
    uint16_t h;
    float f;
    if (type == DTYPE_I8)
        return (int8_t)*p;
    if (type == DTYPE_F32) {
        memcpy(&f, p, sizeof f);
        return f;
    }
    memcpy(&h, p, sizeof h);
    return type == DTYPE_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

static void block_put(enum dtype type, uint8_t *block, size_t at, float x)
{
    uint8_t *p = block + at * kv_value_bytes(type);
    uint16_t h = type == DTYPE_F16 ? f32_to_f16(x) : f32_to_bf16(x);
    if (type == DTYPE_I8)
        *p = (uint8_t)(int8_t)roundf(x); /* ties away from zero */
    else if (type == DTYPE_F32)
        memcpy(p, &x, sizeof x);
    else
        memcpy(p, &h, sizeof h);
}

/* What x's values are multiplied with before they are stored; sets an I8 row's scale. */
static float begin_row(const struct kv_row *r, const float *x)
{
    float largest = 0;
    bool any_nan = false;
    if (r->type != DTYPE_I8)
        return 1;
    for (uint32_t i = 0; i < r->head_dim; i++) {
        largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
        any_nan = any_nan || x[i] != x[i];
    }
    return kv_put_scale(r, any_nan ? NAN : largest);
}

static float stored(const struct kv_row *r, float x, float factor)
{
    if (r->type != DTYPE_I8)
        return x;
    return factor > 0 ? x * factor : 0;
}

void put_keys_scalar(const struct kv_row *r, const float *x)
{
    float factor = begin_row(r, x);
    for (uint32_t i = 0; i < r->head_dim; i++)
        block_put(r->type, r->block, key_at(r->head_dim, r->token, i), stored(r, x[i], factor));
}

void put_values_scalar(const struct kv_row *r, const float *x)
{
    float factor = begin_row(r, x);
    for (uint32_t i = 0; i < r->head_dim; i++)
        block_put(r->type, r->block, value_at(r->head_dim, r->page_tokens, r->token, i),
                  stored(r, x[i], factor));
}

/* ---- attention ---- */

static float lanes_sum(float s[ATTN_LANES])
{
    for (uint32_t half = ATTN_LANES / 2; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; i++)
            s[i] += s[i + half];
    }
    return s[0];
}

static float logit(const struct attention_args *a, const float *q, uint32_t position)
{
    const uint8_t *block = attention_block(a, a->k_offset, position);
    uint32_t token = position % a->page_tokens;
    float sum = 0;
    for (uint32_t i = 0; i < a->head_dim; i++)
        sum = fmaf(q[i], block_get(a->kv_type, block, key_at(a->head_dim, token, i)), sum);
    if (a->kv_type == DTYPE_I8)
        sum *= kv_scales(block, a->head_dim, a->page_tokens)[token];
    float x = a->scale * sum;
    return a->softcap > 0 ? softcap_scalar(x, a->softcap) : x;
}

/* acc[i] += p V of one position. */
static void add_value(const struct attention_args *a, uint32_t position, float p, float *acc)
{
    const uint8_t *block = attention_block(a, a->v_offset, position);
    uint32_t token = position % a->page_tokens;
    if (a->kv_type == DTYPE_I8)
        p *= kv_scales(block, a->head_dim, a->page_tokens)[token];
    for (uint32_t i = 0; i < a->head_dim; i++)
        acc[i] =
            fmaf(p, block_get(a->kv_type, block, value_at(a->head_dim, a->page_tokens, token, i)), acc[i]);
}

static void split_part(const struct attention_args *a, uint32_t row, uint32_t split, float *part)
{
    uint32_t token = row / a->n_group, padded = kv_padded(a->head_dim);
    const float *q = a->q + token * a->stride + (size_t)(row % a->n_group) * a->head_dim;
    struct span s = attention_span(a, token, split);
    float p[ATTN_SPLIT], lanes[ATTN_LANES] = {0}, max = -INFINITY;
    if (!attention_has_part(a, token, split))
        return;
    for (uint32_t t = s.from; t < s.to; t++) {
        p[t - s.from] = logit(a, q, t);
        max = p[t - s.from] > max ? p[t - s.from] : max;
    }
    memset(part, 0, padded * sizeof *part);
    for (uint32_t t = s.from; t < s.to; t++) {
        p[t - s.from] = exp_scalar(p[t - s.from] - max);
        lanes[t % ATTN_LANES] += p[t - s.from];
        add_value(a, t, p[t - s.from], part);
    }
    part[padded] = max;
    part[padded + 1] = lanes_sum(lanes);
}

/* Adds a split's part to the row's total. exp(0) is exactly 1, so one side never loses bits. */
static void join_part(float *total, const float *part, uint32_t padded)
{
    float max = part[padded] > total[padded] ? part[padded] : total[padded];
    float old = exp_scalar(total[padded] - max), new = exp_scalar(part[padded] - max);
    for (uint32_t i = 0; i < padded; i++)
        total[i] = fmaf(part[i], new, total[i] * old);
    total[padded] = max;
    total[padded + 1] = fmaf(part[padded + 1], new, total[padded + 1] * old);
}

void attention_join_scalar(const struct attention_args *a, const float *parts)
{
    uint32_t n_rows = a->n_tokens * a->n_group, padded = kv_padded(a->head_dim);
    uint32_t first = attention_first_split(a), last = attention_last_split(a);
    size_t size = attention_part_floats(a->head_dim);
    float *total = a->scratch;
    for (uint32_t row = 0; row < n_rows; row++) {
        uint32_t token = row / a->n_group, own = attention_begin(a, token) / ATTN_SPLIT;
        float *out = a->out + token * a->stride + (size_t)(row % a->n_group) * a->head_dim;
        for (uint32_t split = own; split <= last && attention_has_part(a, token, split); split++) {
            const float *part = parts + ((size_t)(split - first) * n_rows + row) * size;
            if (split == own)
                memcpy(total, part, size * sizeof *part);
            else
                join_part(total, part, padded);
        }
        for (uint32_t i = 0; i < a->head_dim; i++)
            out[i] = total[i] / total[padded + 1];
    }
}

void attention_parts_scalar(const struct attention_args *a, uint32_t begin, uint32_t end, float *parts)
{
    size_t size = attention_part_floats(a->head_dim);
    require(kv_block_has(a->kv_type));
    for (uint32_t split = begin; split < end; split++) {
        for (uint32_t row = 0; row < a->n_tokens * a->n_group; row++, parts += size)
            split_part(a, row, split, parts);
    }
}

void attention_scalar(const struct attention_args *a)
{
    uint32_t n_rows = a->n_tokens * a->n_group, padded = kv_padded(a->head_dim);
    uint32_t first = attention_first_split(a), last = attention_last_split(a);
    float *part = a->scratch, *total = part + attention_part_floats(a->head_dim);
    require(kv_block_has(a->kv_type));
    for (uint32_t row = 0; row < n_rows; row++) {
        uint32_t token = row / a->n_group, own = attention_begin(a, token) / ATTN_SPLIT;
        float *out = a->out + token * a->stride + (size_t)(row % a->n_group) * a->head_dim;
        for (uint32_t split = first; split <= last; split++) {
            split_part(a, row, split, split == own ? total : part);
            if (split > own && attention_has_part(a, token, split))
                join_part(total, part, padded);
        }
        for (uint32_t i = 0; i < a->head_dim; i++)
            out[i] = total[i] / total[padded + 1];
    }
}
