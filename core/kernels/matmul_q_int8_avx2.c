/* Products of quantised weights with int8 activations for AVX2 without VNNI.
 *
 * vpmaddubsw multiplies bytes and adds pairs in 16 bits, which small weights don't fill: products of
 * unsigned weights u are added up in 16 bits as long as they fit (u <= 15: all 8 groups of a block; u <= 31:
 * 4 groups; u <= 63: 2), and only then widened. Weights of 8 bits don't fit even once (2*255*127), but their
 * sizes do (2*128*127): |w| meets the values with w's signs. */
#include "vec_avx2.h"

#include "matmul_q_int8_tile.h"

/* Groups of 4 values whose products fit 16 bits together. */
VEC uint32_t groups_at_once(const struct panel_layout *l)
{
    return l->book ? 4 : l->bits <= 4 ? 8 : l->bits == 5 ? 4 : 2;
}

/* dot[r] of groups [begin, end), all of which fit 16 bits together. */
VEC void dots_together(const struct panel_layout *l, const uint8_t *block, uint32_t begin, uint32_t end,
                       uint32_t side, struct tile t, __m256i *dot)
{
    UNROLL(8)
    for (uint32_t kq = begin; kq < end; kq++) {
        __m256i w = in_register(block_part(l, block, kq, side));
        UNROLL(8)
        for (uint32_t r = 0; r < t.n_rows; r++) {
            __m256i product = _mm256_maddubs_epi16(w, four(tile_row(&t, r), kq));
            dot[r] = in_register(kq == begin ? product : _mm256_add_epi16(dot[r], product));
        }
    }
    UNROLL(8)
    for (uint32_t r = 0; r < t.n_rows; r++)
        dot[r] = _mm256_madd_epi16(dot[r], _mm256_set1_epi16(1));
}

/* dot[r] of groups [begin, end), widened after every at_once of them. */
VEC void dots_apart(const struct panel_layout *l, const uint8_t *block, uint32_t begin, uint32_t end,
                    uint32_t side, struct tile t, __m256i *dot)
{
    uint32_t at_once = groups_at_once(l);
    UNROLL(4)
    for (uint32_t kq = begin; kq < end; kq += at_once) {
        __m256i w[4];
        UNROLL(4)
        for (uint32_t i = 0; i < at_once; i++)
            w[i] = in_register(block_part(l, block, kq + i, side));
        UNROLL(8)
        for (uint32_t r = 0; r < t.n_rows; r++) {
            __m256i sum = _mm256_maddubs_epi16(w[0], four(tile_row(&t, r), kq));
            UNROLL(4)
            for (uint32_t i = 1; i < at_once; i++)
                sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w[i], four(tile_row(&t, r), kq + i)));
            sum = _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
            dot[r] = in_register(kq == begin ? sum : _mm256_add_epi32(dot[r], sum));
        }
    }
}

/* dot[r] of a block of weights of 8 bits, their offset taken off. */
VEC void dots_signed(const struct panel_layout *l, const uint8_t *block, uint32_t side, struct tile t,
                     __m256i *dot)
{
    UNROLL(8)
    for (uint32_t kq = 0; kq < 8; kq++) {
        __m256i offset = _mm256_set1_epi8((char)l->offset);
        __m256i w = in_register(_mm256_sub_epi8(block_part(l, block, kq, side), offset));
        __m256i size = in_register(_mm256_abs_epi8(w));
        UNROLL(8)
        for (uint32_t r = 0; r < t.n_rows; r++) {
            __m256i q = _mm256_sign_epi8(four(tile_row(&t, r), kq), w);
            __m256i product = _mm256_madd_epi16(_mm256_maddubs_epi16(size, q), _mm256_set1_epi16(1));
            dot[r] = in_register(kq == 0 ? product : _mm256_add_epi32(dot[r], product));
        }
    }
}

VEC bool dots_are_centred(const struct panel_layout *l)
{
    return l->offset == 128;
}

VEC void block_dots(const struct panel_layout *l, const uint8_t *block, uint32_t begin, uint32_t end,
                    uint32_t side, struct tile t, __m256i *dot)
{
    if (dots_are_centred(l))
        dots_signed(l, block, side, t, dot);
    else if (groups_at_once(l) >= end - begin)
        dots_together(l, block, begin, end, side, t, dot);
    else
        dots_apart(l, block, begin, end, side, t, dot);
}
