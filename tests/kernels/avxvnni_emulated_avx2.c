/* matmul_q_int8_avxvnni.c for machines without AVX-VNNI: the very source, with its one instruction put
 * together from AVX2's. Built with AVX2's flags alone. */
#include "vec_avx2.h"

#include "emulated.h"
#include "kernels_inner.h"

#undef ISA_NAME
#define ISA_NAME(f) f##_avxvnni_emulated
#define DPBUSD emulated_dpbusd

DECLARE_INT8(avxvnni_emulated)

/* Even and odd bytes as 16 bits; vpmaddwd multiplies them and adds pairs in 32 bits, so nothing saturates. */
VEC __m256i emulated_dpbusd(__m256i sum, __m256i u, __m256i q)
{
    __m256i even_u = _mm256_and_si256(u, _mm256_set1_epi16(0xff)), odd_u = _mm256_srli_epi16(u, 8);
    __m256i even_q = _mm256_srai_epi16(_mm256_slli_epi16(q, 8), 8), odd_q = _mm256_srai_epi16(q, 8);
    __m256i even = _mm256_madd_epi16(even_u, even_q), odd = _mm256_madd_epi16(odd_u, odd_q);
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}

#include "matmul_q_int8_avxvnni.c"

void emulate_avxvnni(struct kernels *k)
{
    k->isa = "avxvnni (emulated)";
#define EMULATE(type, ...) k->matmul[DTYPE_##type] = ISA_NAME(matmul_##type##_int8);
    PANEL_LIST(EMULATE)
#undef EMULATE
}
