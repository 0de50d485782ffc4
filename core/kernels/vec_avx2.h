/* 16 floats, 16 int32 and a 64-byte line of weights in pairs of AVX2 registers; the names that the *_body.h
 * files are written in. Each function does in each lane what its scalar expression says, NaN included. */
#ifndef LK_KERNELS_VEC_AVX2_H
#define LK_KERNELS_VEC_AVX2_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define ISA_NAME(f) f##_avx2
#define VEC static inline __attribute__((always_inline))

/* Register tiles: rows of a batch and panels that are worked on at once. */
#define TILE_ROWS 6
#define TILE_PANELS(rows) ((rows) == 1 ? 4 : (rows) == 2 ? 2 : 1)
#define F32_PANELS 1 /* of a dequantising tile of 4 rows */
#define TILE_CASES(X) X(1) X(2) X(3) X(4) X(5) X(6)

struct v16 {
    __m256 a, b;
};
struct v16i {
    __m256i a, b;
};
struct line {
    __m256i a, b;
};

VEC struct v16 v16_set1(float x)
{
    return (struct v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
VEC struct v16 v16_load(const float *p)
{
    return (struct v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
VEC void v16_store(float *p, struct v16 v)
{
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}
VEC struct v16 v16_load_part(const float *p, uint32_t n)
{
    float whole[16] = {0};
    memcpy(whole, p, n * sizeof *p);
    return v16_load(whole);
}
/* Lanes whose bit is set; 0 in the others. */
VEC struct v16 v16_keep(struct v16 x, uint32_t bits)
{
    const __m256i lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i a = _mm256_and_si256(_mm256_set1_epi32((int)bits), lanes);
    __m256i b = _mm256_and_si256(_mm256_set1_epi32((int)(bits >> 8)), lanes);
    return (struct v16){_mm256_and_ps(x.a, _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, lanes))),
                        _mm256_and_ps(x.b, _mm256_castsi256_ps(_mm256_cmpeq_epi32(b, lanes)))};
}
VEC void v16_store_part(float *p, struct v16 v, uint32_t n)
{
    float whole[16];
    v16_store(whole, v);
    memcpy(p, whole, n * sizeof *p);
}
VEC struct v16 v16_add(struct v16 x, struct v16 y)
{
    return (struct v16){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
VEC struct v16 v16_sub(struct v16 x, struct v16 y)
{
    return (struct v16){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
VEC struct v16 v16_mul(struct v16 x, struct v16 y)
{
    return (struct v16){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
VEC struct v16 v16_div(struct v16 x, struct v16 y)
{
    return (struct v16){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
VEC struct v16 v16_fma(struct v16 x, struct v16 y, struct v16 z) /* x*y + z */
{
    return (struct v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
VEC struct v16 v16_abs(struct v16 x)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (struct v16){_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
VEC struct v16 v16_copysign(struct v16 x, struct v16 y) /* x >= 0 */
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (struct v16){_mm256_or_ps(x.a, _mm256_and_ps(y.a, sign)),
                        _mm256_or_ps(x.b, _mm256_and_ps(y.b, sign))};
}
VEC struct v16 v16_max(struct v16 m, struct v16 x) /* x > m ? x : m */
{
    return (struct v16){_mm256_max_ps(x.a, m.a), _mm256_max_ps(x.b, m.b)};
}
VEC struct v16 v16_min(struct v16 m, struct v16 x) /* m < x ? m : x */
{
    return (struct v16){_mm256_min_ps(m.a, x.a), _mm256_min_ps(m.b, x.b)};
}
VEC struct v16 v16_round_even(struct v16 x)
{
    return (struct v16){_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                        _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
VEC __m256 v8_round_away(__m256 x)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 t = _mm256_round_ps(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    __m256 rest = _mm256_andnot_ps(sign, _mm256_sub_ps(x, t));
    __m256 one = _mm256_or_ps(_mm256_set1_ps(1.0f), _mm256_and_ps(x, sign));
    return _mm256_add_ps(t, _mm256_and_ps(one, _mm256_cmp_ps(rest, _mm256_set1_ps(0.5f), _CMP_GE_OQ)));
}
VEC struct v16 v16_round_away(struct v16 x) /* ties away from zero: x - trunc(x) is exact */
{
    return (struct v16){v8_round_away(x.a), v8_round_away(x.b)};
}
VEC __m256 v8_scale2(__m256 p, __m256 n)
{
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    __m256i bias = _mm256_set1_epi32(127);
    __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
}
/* p * 2^(n>>1) * 2^(n - (n>>1)) for whole n in [-151, 129] */
VEC struct v16 v16_scale2(struct v16 p, struct v16 n)
{
    return (struct v16){v8_scale2(p.a, n.a), v8_scale2(p.b, n.b)};
}
/* Lanes added as a tree: i and i+8, then +4, +2, +1. */
VEC float v16_sum(struct v16 x)
{
    __m256 s8 = _mm256_add_ps(x.a, x.b);
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}
VEC float v16_lanes_max(struct v16 x)
{
    __m256 s8 = _mm256_max_ps(x.a, x.b);
    __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_max_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}
VEC uint32_t v16_first_equal(struct v16 v, float x) /* 16: none */
{
    __m256 wanted = _mm256_set1_ps(x);
    uint32_t low = (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(v.a, wanted, _CMP_EQ_OQ));
    uint32_t high = (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(v.b, wanted, _CMP_EQ_OQ));
    uint32_t mask = low | high << 8;
    return mask ? (uint32_t)__builtin_ctz(mask) : 16;
}
VEC bool v16_all_at_most(struct v16 v, float x)
{
    __m256 bound = _mm256_set1_ps(x);
    __m256 both = _mm256_and_ps(_mm256_cmp_ps(v.a, bound, _CMP_LE_OQ), _mm256_cmp_ps(v.b, bound, _CMP_LE_OQ));
    return _mm256_movemask_ps(both) == 0xff;
}

/* 16-bit floats: 16 halves; BF16 panels hold pairs of k, low half first */
VEC struct v16 v16_load_f16(const void *p)
{
    const __m128i *h = p;
    return (struct v16){_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}
VEC struct v16 v16_load_bf16(const void *p)
{
    const __m128i *h = p;
    __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128(h)), b = _mm256_cvtepu16_epi32(_mm_loadu_si128(h + 1));
    return (struct v16){_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
                        _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}
VEC struct v16 v16_load_f16_part(const uint16_t *p, uint32_t n)
{
    uint16_t whole[16] = {0};
    memcpy(whole, p, n * sizeof *p);
    return v16_load_f16(whole);
}
VEC void v16_store_f16(uint16_t *p, struct v16 v)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
VEC void v16_store_f16_part(uint16_t *p, struct v16 v, uint32_t n)
{
    uint16_t whole[16];
    v16_store_f16(whole, v);
    memcpy(p, whole, n * sizeof *p);
}
VEC struct v16 v16_bf16_even(const void *line)
{
    const __m256i *p = line;
    return (struct v16){_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(p), 16)),
                        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(p + 1), 16))};
}
VEC struct v16 v16_bf16_odd(const void *line)
{
    const __m256i *p = line;
    __m256i high = _mm256_set1_epi32((int)0xffff0000U);
    return (struct v16){_mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(p), high)),
                        _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(p + 1), high))};
}
VEC struct v16 v16_load_u8(const uint8_t *p)
{
    __m128i u = _mm_loadu_si128((const __m128i *)p);
    return (struct v16){_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(u)),
                        _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(u, 8)))};
}
VEC struct v16 v16_load_i8(const uint8_t *p)
{
    __m128i u = _mm_loadu_si128((const __m128i *)p);
    return (struct v16){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(u)),
                        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(u, 8)))};
}
VEC struct v16 v16_load_u4(const uint8_t *p, bool high) /* a nibble of each byte */
{
    __m128i u = _mm_loadu_si128((const __m128i *)p);
    u = _mm_and_si128(high ? _mm_srli_epi16(u, 4) : u, _mm_set1_epi8(15));
    return (struct v16){_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(u)),
                        _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(u, 8)))};
}
VEC __m256 v8_e8m0(__m128i u)
{
    __m256i x = _mm256_cvtepu8_epi32(u);
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(x, _mm256_set1_epi32(1)), 23);
    __m256i tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), x);
    __m256i is_normal = _mm256_cmpgt_epi32(x, _mm256_set1_epi32(1));
    return _mm256_castsi256_ps(_mm256_blendv_epi8(tiny, normal, is_normal));
}
VEC struct v16 v16_load_e8m0(const uint8_t *p) /* panel_e8m0 */
{
    __m128i u = _mm_loadu_si128((const __m128i *)p);
    return (struct v16){v8_e8m0(u), v8_e8m0(_mm_srli_si128(u, 8))};
}
VEC __m256 v8_f8(__m128i w) /* f8_e4m3_to_f32 of 8 bytes in 16-bit lanes: as halves they are 2^8 too small */
{
    __m128i magnitude = _mm_and_si128(w, _mm_set1_epi16(0x7f));
    __m128i sign = _mm_slli_epi16(_mm_andnot_si128(_mm_set1_epi16(0x7f), w), 8);
    __m128i nan = _mm_srli_epi16(_mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f)), 1);
    __m128i half = _mm_or_si128(_mm_or_si128(_mm_slli_epi16(magnitude, 7), nan), sign);
    return _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0f));
}
VEC struct v16 v16_load_f8(const uint8_t *p)
{
    __m256i w = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
    return (struct v16){v8_f8(_mm256_castsi256_si128(w)), v8_f8(_mm256_extracti128_si256(w, 1))};
}
VEC int32_t v16_store_i8(int8_t *p, struct v16 v) /* whole numbers in [-128, 127]; returns their sum */
{
    __m256i a = _mm256_cvtps_epi32(v.a), b = _mm256_cvtps_epi32(v.b);
    __m128i low = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    __m128i high = _mm_packs_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(low, high));
    __m128i pairs = _mm_madd_epi16(_mm_add_epi16(low, high), _mm_set1_epi16(1));
    pairs = _mm_add_epi32(pairs, _mm_shuffle_epi32(pairs, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(pairs, _mm_shuffle_epi32(pairs, 0xb1)));
}

/* integers */
VEC struct v16i v16i_set1(int32_t x)
{
    return (struct v16i){_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
VEC struct v16i v16i_add(struct v16i a, struct v16i b)
{
    return (struct v16i){_mm256_add_epi32(a.a, b.a), _mm256_add_epi32(a.b, b.b)};
}
VEC struct v16 v16i_float(struct v16i x)
{
    return (struct v16){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)};
}

/* lines of u8 weights [16 rows][4] */
VEC struct line line_load(const uint8_t *p)
{
    return (struct line){_mm256_loadu_si256((const __m256i *)p),
                         _mm256_loadu_si256((const __m256i *)(p + 32))};
}
/* x >> shift & mask, byte by byte; shift and mask are constants, mask << shift < 256 */
VEC struct line line_bits(struct line x, uint32_t shift, int8_t mask)
{
    __m256i bits = _mm256_set1_epi8(mask);
    if (shift == 0)
        return (struct line){_mm256_and_si256(x.a, bits), _mm256_and_si256(x.b, bits)};
    return (struct line){_mm256_and_si256(_mm256_srli_epi16(x.a, (int)shift), bits),
                         _mm256_and_si256(_mm256_srli_epi16(x.b, (int)shift), bits)};
}
/* low | high << shift, byte by byte; no bit of high leaves its byte */
VEC struct line line_with_high(struct line low, struct line high, uint32_t shift)
{
    return (struct line){_mm256_or_si256(low.a, _mm256_slli_epi16(high.a, (int)shift)),
                         _mm256_or_si256(low.b, _mm256_slli_epi16(high.b, (int)shift))};
}
VEC struct line line_lookup(struct line x, const uint8_t *book) /* book[each byte], bytes < 16 */
{
    __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)book));
    return (struct line){_mm256_shuffle_epi8(t, x.a), _mm256_shuffle_epi8(t, x.b)};
}
VEC struct v16 line_floats(struct line x, uint32_t j) /* byte j of each row's 4 */
{
    __m256i mask = _mm256_set1_epi32(255);
    __m256i a = _mm256_and_si256(_mm256_srli_epi32(x.a, (int)(8 * j)), mask);
    __m256i b = _mm256_and_si256(_mm256_srli_epi32(x.b, (int)(8 * j)), mask);
    return (struct v16){_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b)};
}

/* True: line_centre takes the offset off and dots are of signed weights. False: dots are of u, and the caller
 * starts them at -offset * sum(q). vpmaddubsw saturates its pair sums at 32767: u up to 63 is safe
 * (2*63*127), u of 8 bits is not, so those types go signed with |w| <= 128 (2*128*127 = 32512). */
VEC bool dot_is_signed(int32_t offset)
{
    return offset == 128;
}
VEC struct line line_centre(struct line x, int32_t offset)
{
    __m256i c = _mm256_set1_epi8((char)offset);
    if (!dot_is_signed(offset))
        return x;
    return (struct line){_mm256_sub_epi8(x.a, c), _mm256_sub_epi8(x.b, c)};
}
VEC __m256i dot4_half(__m256i sum, __m256i w, __m256i q, bool is_signed)
{
    __m256i u = is_signed ? _mm256_abs_epi8(w) : w;
    __m256i s = is_signed ? _mm256_sign_epi8(q, w) : q;
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1)));
}
VEC struct v16i dot4(struct v16i sum, struct line w, int32_t q4, bool is_signed)
{
    __m256i q = _mm256_set1_epi32(q4);
    return (struct v16i){dot4_half(sum.a, w.a, q, is_signed), dot4_half(sum.b, w.b, q, is_signed)};
}

#endif
