/* Products of quantised weights with int8 activations for AVX2 with AVX-VNNI. vpdpbusd multiplies bytes, u
 * unsigned, and adds four products up in 32 bits, so all types go one way; a dot begins at the offset's part,
 * taken off. tests/kernels builds this file with the instruction put together from others (DPBUSD, ISA_NAME),
 * for machines that lack it. */
#include "vec_avx2.h"

#ifndef DPBUSD
#define DPBUSD(sum, u, q) _mm256_dpbusd_avx_epi32(sum, u, q)
#undef ISA_NAME
#define ISA_NAME(f) f##_avxvnni
#endif

#include "matmul_q_int8_tile.h"

VEC bool dots_are_centred(const struct panel_layout *l)
{
    (void)l;
    return true;
}

VEC void block_dots(const struct panel_layout *l, const uint8_t *block, uint32_t begin, uint32_t end,
                    uint32_t side, struct tile t, __m256i *dot)
{
    UNROLL(8)
    for (uint32_t r = 0; r < t.n_rows; r++) {
        dot[r] = _mm256_setzero_si256();
        if (l->offset)
            dot[r] = offset_part(-l->offset, tile_row(&t, r), end - begin == 8, begin / 4);
    }
    UNROLL(8)
    for (uint32_t kq = begin; kq < end; kq++) {
        __m256i w = in_register(block_part(l, block, kq, side));
        UNROLL(8)
        for (uint32_t r = 0; r < t.n_rows; r++)
            dot[r] = in_register(DPBUSD(dot[r], w, four(tile_row(&t, r), kq)));
    }
}
