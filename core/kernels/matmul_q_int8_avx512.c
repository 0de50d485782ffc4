/* Products of quantised weights with int8 activations on AVX-512 with VNNI; matmul_q_scalar.c is the
 * definition. The eight lines of a block stay in registers; each row is eight 4-wide dot products in two
 * chains, one of which begins at the offset's part. */
#include "vec_avx512.h"

#include "matmul_q_int8_chunk.h"

struct block512 {
    struct line w[8];
};

VEC struct v16i dot_of(const struct block512 *b, const int8_t *q, uint32_t begin, struct v16i start)
{
    UNROLL(4)
    for (uint32_t g = begin; g < begin + 4; g++)
        start = dot4(start, b->w[g], four(q + (size_t)4 * g), false);
    return start;
}

VEC struct v16i offset_part(const struct panel_layout *l, int32_t sum_q)
{
    return v16i_set1(l->offset ? -l->offset * sum_q : 0);
}

VEC struct v16 add_scaled(struct v16 sum, struct v16i dot, struct v16 scales, const struct act_block *x)
{
    return v16_fma(v16i_float(dot), v16_mul(scales, v16_set1(x->d)), sum);
}

VEC void add_plain(const struct panel_layout *l, const uint8_t *unit, uint32_t i, const struct block512 *w,
                   struct chunk c)
{
    struct v16 scales = block_scales(l, unit, i, 0), mins = scales;
    if (l->min_at)
        mins = block_mins(l, unit, i, 0);
    for (uint32_t r = 0; r < c.n_rows; r++, c.x += c.stride) {
        struct v16i dot = dot_of(w, c.x->q, 0, offset_part(l, c.x->sum));
        dot = v16i_add(dot, dot_of(w, c.x->q, 4, v16i_set1(0)));
        struct v16 sum = add_scaled(v16_load(c.sum[r]), dot, scales, c.x);
        if (l->min_at)
            sum = v16_fma(mins, v16_set1(c.x->d_sum), sum);
        v16_store(c.sum[r], sum);
    }
}

VEC void add_halves(const struct panel_layout *l, const uint8_t *unit, uint32_t i, const struct block512 *w,
                    struct chunk c)
{
    struct v16 scales[2], mins[2];
    UNROLL(2)
    for (uint32_t half = 0; half < 2; half++) {
        scales[half] = mins[half] = block_scales(l, unit, i, half);
        if (l->min_at)
            mins[half] = block_mins(l, unit, i, half);
    }
    for (uint32_t r = 0; r < c.n_rows; r++, c.x += c.stride) {
        struct v16 sum = v16_load(c.sum[r]);
        UNROLL(2)
        for (uint32_t half = 0; half < 2; half++) {
            struct v16i dot = dot_of(w, c.x->q, 4 * half, offset_part(l, c.x->half[half]));
            sum = add_scaled(sum, dot, scales[half], c.x);
            if (l->min_at)
                sum = v16_fma(mins[half], v16_set1(c.x->d * (float)c.x->half[half]), sum);
        }
        v16_store(c.sum[r], sum);
    }
}

VEC void add_block(const struct panel_layout *l, const uint8_t *unit, uint32_t i, struct chunk c)
{
    struct block512 w;
    UNROLL(8)
    for (uint32_t g = 0; g < 8; g++)
        w.w[g] = block_line(l, unit + (size_t)i * l->block_bytes, g % 4, g / 4);
    if (panel_has_halves(l))
        add_halves(l, unit, i, &w, c);
    else
        add_plain(l, unit, i, &w, c);
}
