/* 16 floats, 16 int32 and a 64-byte line of weights in AVX-512 registers; the names that the *_body.h files
 * are written in. Each function does in each lane what its scalar expression says, NaN included. */
#ifndef LK_KERNELS_VEC_AVX512_H
#define LK_KERNELS_VEC_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#define ISA_NAME(f) f##_avx512
#define VEC static inline __attribute__((always_inline))

/* Register tiles: rows of a batch and panels that are worked on at once. */
#define TILE_ROWS 8
#define TILE_PANELS(rows) ((rows) <= 3 ? 4 : 2)
#define F32_PANELS 2 /* of a dequantising tile of 4 rows */
#define TILE_CASES(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)

struct v16 {
    __m512 f;
};
struct v16i {
    __m512i i;
};
struct line {
    __m512i u;
};

VEC __mmask16 v16_mask(uint32_t n)
{
    return (__mmask16)((1U << n) - 1);
}
VEC struct v16 v16_set1(float x)
{
    return (struct v16){_mm512_set1_ps(x)};
}
VEC struct v16 v16_load(const float *p)
{
    return (struct v16){_mm512_loadu_ps(p)};
}
VEC struct v16 v16_load_part(const float *p, uint32_t n)
{
    return (struct v16){_mm512_maskz_loadu_ps(v16_mask(n), p)};
}
/* Lanes whose bit is set; 0 in the others. */
VEC struct v16 v16_keep(struct v16 x, uint32_t bits)
{
    return (struct v16){_mm512_maskz_mov_ps((__mmask16)bits, x.f)};
}
VEC void v16_store(float *p, struct v16 a)
{
    _mm512_storeu_ps(p, a.f);
}
VEC void v16_store_part(float *p, struct v16 a, uint32_t n)
{
    _mm512_mask_storeu_ps(p, v16_mask(n), a.f);
}
VEC struct v16 v16_add(struct v16 a, struct v16 b)
{
    return (struct v16){_mm512_add_ps(a.f, b.f)};
}
VEC struct v16 v16_sub(struct v16 a, struct v16 b)
{
    return (struct v16){_mm512_sub_ps(a.f, b.f)};
}
VEC struct v16 v16_mul(struct v16 a, struct v16 b)
{
    return (struct v16){_mm512_mul_ps(a.f, b.f)};
}
VEC struct v16 v16_div(struct v16 a, struct v16 b)
{
    return (struct v16){_mm512_div_ps(a.f, b.f)};
}
VEC struct v16 v16_fma(struct v16 a, struct v16 b, struct v16 c) /* a*b + c */
{
    return (struct v16){_mm512_fmadd_ps(a.f, b.f, c.f)};
}
VEC struct v16 v16_abs(struct v16 a)
{
    return (struct v16){_mm512_abs_ps(a.f)};
}
VEC struct v16 v16_copysign(struct v16 a, struct v16 sign) /* a >= 0 */
{
    return (struct v16){_mm512_or_ps(a.f, _mm512_and_ps(sign.f, _mm512_set1_ps(-0.0f)))};
}
VEC struct v16 v16_max(struct v16 m, struct v16 x) /* x > m ? x : m */
{
    return (struct v16){_mm512_max_ps(x.f, m.f)};
}
VEC struct v16 v16_min(struct v16 m, struct v16 x) /* m < x ? m : x */
{
    return (struct v16){_mm512_min_ps(m.f, x.f)};
}
VEC struct v16 v16_round_even(struct v16 a)
{
    return (struct v16){_mm512_roundscale_ps(a.f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
VEC struct v16 v16_round_away(struct v16 a) /* ties away from zero: a - trunc(a) is exact */
{
    __m512 t = _mm512_roundscale_ps(a.f, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    __mmask16 up = _mm512_cmp_ps_mask(_mm512_abs_ps(_mm512_sub_ps(a.f, t)), _mm512_set1_ps(0.5f), _CMP_GE_OQ);
    struct v16 one = v16_copysign(v16_set1(1.0f), a);
    return (struct v16){_mm512_mask_add_ps(t, up, t, one.f)};
}
/* p * 2^(n>>1) * 2^(n - (n>>1)) for whole n in [-151, 129] */
VEC struct v16 v16_scale2(struct v16 p, struct v16 n)
{
    __m512i whole = _mm512_cvtps_epi32(n.f), half = _mm512_srai_epi32(whole, 1);
    __m512i bias = _mm512_set1_epi32(127);
    __m512i a = _mm512_slli_epi32(_mm512_add_epi32(half, bias), 23);
    __m512i b = _mm512_slli_epi32(_mm512_add_epi32(_mm512_sub_epi32(whole, half), bias), 23);
    return (struct v16){_mm512_mul_ps(_mm512_mul_ps(p.f, _mm512_castsi512_ps(a)), _mm512_castsi512_ps(b))};
}
/* Lanes added as a tree: i and i+8, then +4, +2, +1. */
VEC float v16_sum(struct v16 a)
{
    __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a.f), _mm512_extractf32x8_ps(a.f, 1));
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}
VEC float v16_lanes_max(struct v16 a)
{
    __m256 s8 = _mm256_max_ps(_mm512_castps512_ps256(a.f), _mm512_extractf32x8_ps(a.f, 1));
    __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_max_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}
VEC uint32_t v16_first_equal(struct v16 a, float x) /* 16: none */
{
    uint32_t mask = _mm512_cmp_ps_mask(a.f, _mm512_set1_ps(x), _CMP_EQ_OQ);
    return mask ? (uint32_t)__builtin_ctz(mask) : 16;
}
VEC bool v16_all_at_most(struct v16 a, float x)
{
    return _mm512_cmp_ps_mask(a.f, _mm512_set1_ps(x), _CMP_LE_OQ) == 0xffff;
}

/* 16-bit floats: 16 halves; BF16 panels hold pairs of k, low half first */
VEC struct v16 v16_load_f16(const void *p)
{
    return (struct v16){_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p))};
}
VEC struct v16 v16_load_bf16(const void *p)
{
    __m512i u = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return (struct v16){_mm512_castsi512_ps(_mm512_slli_epi32(u, 16))};
}
VEC struct v16 v16_load_f16_part(const uint16_t *p, uint32_t n)
{
    return (struct v16){_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(v16_mask(n), p))};
}
VEC void v16_store_f16(uint16_t *p, struct v16 a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a.f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
VEC void v16_store_f16_part(uint16_t *p, struct v16 a, uint32_t n)
{
    __m256i h = _mm512_cvtps_ph(a.f, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_mask_storeu_epi16(p, v16_mask(n), h);
}
VEC struct v16 v16_bf16_even(const void *line)
{
    return (struct v16){_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(line), 16))};
}
VEC struct v16 v16_bf16_odd(const void *line)
{
    __m512i high = _mm512_set1_epi32((int)0xffff0000U);
    return (struct v16){_mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(line), high))};
}
VEC struct v16 v16_load_u8(const uint8_t *p)
{
    return (struct v16){_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)))};
}
VEC struct v16 v16_load_i8(const uint8_t *p)
{
    return (struct v16){_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)))};
}
VEC struct v16 v16_load_u4(const uint8_t *p, bool high) /* a nibble of each byte */
{
    __m128i u = _mm_loadu_si128((const __m128i *)p);
    u = _mm_and_si128(high ? _mm_srli_epi16(u, 4) : u, _mm_set1_epi8(15));
    return (struct v16){_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(u))};
}
VEC struct v16 v16_load_e8m0(const uint8_t *p) /* panel_e8m0 */
{
    __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
    __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(x, _mm512_set1_epi32(1)), 23);
    __mmask16 is_tiny = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(2));
    __m512i bits = _mm512_mask_sllv_epi32(normal, is_tiny, _mm512_set1_epi32(0x00200000), x);
    return (struct v16){_mm512_castsi512_ps(bits)};
}
VEC struct v16 v16_load_f8(const uint8_t *p) /* f8_e4m3_to_f32: as halves they are 2^8 too small */
{
    __m256i w = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
    __m256i magnitude = _mm256_and_si256(w, _mm256_set1_epi16(0x7f));
    __m256i sign = _mm256_slli_epi16(_mm256_andnot_si256(_mm256_set1_epi16(0x7f), w), 8);
    __m256i nan = _mm256_srli_epi16(_mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x7f)), 1);
    __m256i half = _mm256_or_si256(_mm256_or_si256(_mm256_slli_epi16(magnitude, 7), nan), sign);
    return (struct v16){_mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f))};
}
VEC int32_t v16_store_i8(int8_t *p, struct v16 a) /* whole numbers in [-128, 127]; returns their sum */
{
    __m512i i = _mm512_cvtps_epi32(a.f);
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(i));
    return _mm512_reduce_add_epi32(i);
}

/* integers */
VEC struct v16i v16i_set1(int32_t x)
{
    return (struct v16i){_mm512_set1_epi32(x)};
}
VEC struct v16i v16i_add(struct v16i a, struct v16i b)
{
    return (struct v16i){_mm512_add_epi32(a.i, b.i)};
}
VEC struct v16 v16i_float(struct v16i a)
{
    return (struct v16){_mm512_cvtepi32_ps(a.i)};
}

/* lines of u8 weights [16 rows][4] */
VEC struct line line_load(const uint8_t *p)
{
    return (struct line){_mm512_loadu_si512((const void *)p)};
}
/* x >> shift & mask, byte by byte; shift and mask are constants, mask << shift < 256 */
VEC struct line line_bits(struct line a, uint32_t shift, int8_t mask)
{
    __m512i bits = _mm512_set1_epi8(mask);
    return (struct line){_mm512_and_si512(shift ? _mm512_srli_epi16(a.u, shift) : a.u, bits)};
}
/* low | high << shift, byte by byte; no bit of high leaves its byte */
VEC struct line line_with_high(struct line low, struct line high, uint32_t shift)
{
    return (struct line){_mm512_or_si512(low.u, _mm512_slli_epi16(high.u, shift))};
}
VEC struct line line_lookup(struct line a, const uint8_t *book) /* book[each byte], bytes < 16 */
{
    __m512i t = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)book));
    return (struct line){_mm512_shuffle_epi8(t, a.u)};
}
VEC struct v16 line_floats(struct line a, uint32_t j) /* byte j of each row's 4 */
{
    __m512i byte = _mm512_and_si512(_mm512_srli_epi32(a.u, 8 * j), _mm512_set1_epi32(255));
    return (struct v16){_mm512_cvtepi32_ps(byte)};
}

/* True: line_centre takes the offset off and dots are of signed weights. False: dots are of u, and the caller
 * starts them at -offset * sum(q). */
VEC bool dot_is_signed(int32_t offset)
{
    (void)offset;
    return false;
}
VEC struct line line_centre(struct line a, int32_t offset)
{
    (void)offset;
    return a;
}
VEC struct v16i dot4(struct v16i sum, struct line w, int32_t q4, bool is_signed)
{
    (void)is_signed;
    return (struct v16i){_mm512_dpbusd_epi32(sum.i, w.u, _mm512_set1_epi32(q4))};
}

#endif
