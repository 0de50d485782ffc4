/* 16 floats, 16 int32 and a 64-byte line of weights in four NEON registers each; the names that the *_body.h
 * files are written in. Each function does in each lane what its scalar expression says, NaN included. */
#ifndef LK_KERNELS_VEC_NEON_H
#define LK_KERNELS_VEC_NEON_H

#include <arm_neon.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define ISA_NAME(f) f##_neon
#define VEC static inline __attribute__((always_inline))

/* Register tiles: rows of a batch and panels that are worked on at once. */
#define TILE_ROWS 5
#define TILE_PANELS(rows) ((rows) == 1 ? 4 : (rows) == 2 ? 2 : 1)
#define F32_PANELS 1 /* of a dequantising tile of 4 rows */
#define TILE_CASES(X) X(1) X(2) X(3) X(4) X(5)

struct v16 {
    float32x4_t f[4];
};
struct v16i {
    int32x4_t i[4];
};
struct line {
    uint8x16_t u[4];
};

#define QUARTERS(type, expression)                                                                           \
    type r;                                                                                                  \
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) expression;                                          \
    return r

VEC struct v16 v16_set1(float x)
{
    QUARTERS(struct v16, r.f[i] = vdupq_n_f32(x));
}
VEC struct v16 v16_load(const float *p)
{
    QUARTERS(struct v16, r.f[i] = vld1q_f32(p + 4 * i));
}
VEC void v16_store(float *p, struct v16 a)
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        vst1q_f32(p + 4 * i, a.f[i]);
}
VEC struct v16 v16_load_part(const float *p, uint32_t n)
{
    float whole[16] = {0};
    memcpy(whole, p, n * sizeof *p);
    return v16_load(whole);
}
/* Lanes whose bit is set; 0 in the others. */
VEC struct v16 v16_keep(struct v16 a, uint32_t bits)
{
    static const uint32_t lanes[4] = {1, 2, 4, 8};
    uint32x4_t lane = vld1q_u32(lanes);
    QUARTERS(struct v16, r.f[i] = vreinterpretq_f32_u32(vandq_u32(
                             vreinterpretq_u32_f32(a.f[i]), vtstq_u32(vdupq_n_u32(bits >> 4 * i), lane))));
}
VEC void v16_store_part(float *p, struct v16 a, uint32_t n)
{
    float whole[16];
    v16_store(whole, a);
    memcpy(p, whole, n * sizeof *p);
}
VEC struct v16 v16_add(struct v16 a, struct v16 b)
{
    QUARTERS(struct v16, r.f[i] = vaddq_f32(a.f[i], b.f[i]));
}
VEC struct v16 v16_sub(struct v16 a, struct v16 b)
{
    QUARTERS(struct v16, r.f[i] = vsubq_f32(a.f[i], b.f[i]));
}
VEC struct v16 v16_mul(struct v16 a, struct v16 b)
{
    QUARTERS(struct v16, r.f[i] = vmulq_f32(a.f[i], b.f[i]));
}
VEC struct v16 v16_div(struct v16 a, struct v16 b)
{
    QUARTERS(struct v16, r.f[i] = vdivq_f32(a.f[i], b.f[i]));
}
VEC struct v16 v16_fma(struct v16 a, struct v16 b, struct v16 c) /* a*b + c */
{
    QUARTERS(struct v16, r.f[i] = vfmaq_f32(c.f[i], a.f[i], b.f[i]));
}
VEC struct v16 v16_abs(struct v16 a)
{
    QUARTERS(struct v16, r.f[i] = vabsq_f32(a.f[i]));
}
VEC struct v16 v16_copysign(struct v16 a, struct v16 sign) /* a >= 0 */
{
    QUARTERS(struct v16, r.f[i] = vbslq_f32(vdupq_n_u32(0x80000000U), sign.f[i], a.f[i]));
}
VEC struct v16 v16_max(struct v16 m, struct v16 x) /* x > m ? x : m */
{
    QUARTERS(struct v16, r.f[i] = vbslq_f32(vcgtq_f32(x.f[i], m.f[i]), x.f[i], m.f[i]));
}
VEC struct v16 v16_min(struct v16 m, struct v16 x) /* m < x ? m : x */
{
    QUARTERS(struct v16, r.f[i] = vbslq_f32(vcltq_f32(m.f[i], x.f[i]), m.f[i], x.f[i]));
}
VEC struct v16 v16_round_even(struct v16 a)
{
    QUARTERS(struct v16, r.f[i] = vrndnq_f32(a.f[i]));
}
VEC struct v16 v16_round_away(struct v16 a) /* ties away from zero */
{
    QUARTERS(struct v16, r.f[i] = vrndaq_f32(a.f[i]));
}
VEC float32x4_t v4_scale2(float32x4_t p, float32x4_t n)
{
    int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1), bias = vdupq_n_s32(127);
    int32x4_t a = vshlq_n_s32(vaddq_s32(half, bias), 23);
    int32x4_t b = vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23);
    return vmulq_f32(vmulq_f32(p, vreinterpretq_f32_s32(a)), vreinterpretq_f32_s32(b));
}
/* p * 2^(n>>1) * 2^(n - (n>>1)) for whole n in [-151, 129] */
VEC struct v16 v16_scale2(struct v16 p, struct v16 n)
{
    QUARTERS(struct v16, r.f[i] = v4_scale2(p.f[i], n.f[i]));
}
/* Lanes added as a tree: i and i+8, then +4, +2, +1. */
VEC float v16_sum(struct v16 a)
{
    float32x4_t s4 = vaddq_f32(vaddq_f32(a.f[0], a.f[2]), vaddq_f32(a.f[1], a.f[3]));
    float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
    return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}
VEC float v16_lanes_max(struct v16 a) /* no NaN among them */
{
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.f[0], a.f[2]), vmaxq_f32(a.f[1], a.f[3])));
}
VEC uint32_t v16_first_equal(struct v16 a, float x) /* 16: none */
{
    float lanes[16];
    v16_store(lanes, a);
    for (uint32_t i = 0; i < 16; i++) {
        if (lanes[i] == x)
            return i;
    }
    return 16;
}
VEC bool v16_all_at_most(struct v16 a, float x)
{
    float32x4_t bound = vdupq_n_f32(x);
    uint32x4_t low = vandq_u32(vcleq_f32(a.f[0], bound), vcleq_f32(a.f[1], bound));
    uint32x4_t high = vandq_u32(vcleq_f32(a.f[2], bound), vcleq_f32(a.f[3], bound));
    return vminvq_u32(vandq_u32(low, high)) != 0;
}

/* 16-bit floats: 16 halves; BF16 panels hold pairs of k, low half first */
VEC struct v16 v16_load_f16(const void *p)
{
    const uint16_t *h = p;
    QUARTERS(struct v16, r.f[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(h + 4 * i))));
}
VEC struct v16 v16_load_bf16(const void *p)
{
    const uint16_t *h = p;
    QUARTERS(struct v16, r.f[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(h + 4 * i), 16)));
}
VEC struct v16 v16_load_f16_part(const uint16_t *p, uint32_t n)
{
    uint16_t whole[16] = {0};
    memcpy(whole, p, n * sizeof *p);
    return v16_load_f16(whole);
}
VEC void v16_store_f16(uint16_t *p, struct v16 a)
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.f[i])));
}
VEC void v16_store_f16_part(uint16_t *p, struct v16 a, uint32_t n)
{
    uint16_t whole[16];
    v16_store_f16(whole, a);
    memcpy(p, whole, n * sizeof *p);
}
VEC struct v16 v16_bf16_even(const void *line)
{
    const uint32_t *p = line;
    QUARTERS(struct v16, r.f[i] = vreinterpretq_f32_u32(vshlq_n_u32(vld1q_u32(p + 4 * i), 16)));
}
VEC struct v16 v16_bf16_odd(const void *line)
{
    const uint32_t *p = line;
    uint32x4_t high = vdupq_n_u32(0xffff0000U);
    QUARTERS(struct v16, r.f[i] = vreinterpretq_f32_u32(vandq_u32(vld1q_u32(p + 4 * i), high)));
}
VEC struct v16 v16_of_u8(uint8x16_t u)
{
    uint16x8_t low = vmovl_u8(vget_low_u8(u)), high = vmovl_u8(vget_high_u8(u));
    return (struct v16){
        {vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(low))),
         vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(high)))}};
}
VEC struct v16 v16_load_u8(const uint8_t *p)
{
    return v16_of_u8(vld1q_u8(p));
}
VEC struct v16 v16_load_u4(const uint8_t *p, bool high) /* a nibble of each byte */
{
    uint8x16_t u = vld1q_u8(p);
    return v16_of_u8(high ? vshrq_n_u8(u, 4) : vandq_u8(u, vdupq_n_u8(15)));
}
VEC float32x4_t v4_e8m0(uint32x4_t x)
{
    uint32x4_t normal = vshlq_n_u32(vsubq_u32(x, vdupq_n_u32(1)), 23);
    uint32x4_t tiny = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(x));
    return vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(x, vdupq_n_u32(2)), tiny, normal));
}
VEC struct v16 v16_load_e8m0(const uint8_t *p) /* panel_e8m0 */
{
    uint8x16_t u = vld1q_u8(p);
    uint16x8_t low = vmovl_u8(vget_low_u8(u)), high = vmovl_u8(vget_high_u8(u));
    return (struct v16){{v4_e8m0(vmovl_u16(vget_low_u16(low))), v4_e8m0(vmovl_u16(vget_high_u16(low))),
                         v4_e8m0(vmovl_u16(vget_low_u16(high))), v4_e8m0(vmovl_u16(vget_high_u16(high)))}};
}
VEC uint16x8_t v8_f8(uint16x8_t w) /* as halves, 2^8 too small */
{
    uint16x8_t magnitude = vandq_u16(w, vdupq_n_u16(0x7f));
    uint16x8_t sign = vshlq_n_u16(vandq_u16(w, vdupq_n_u16(0x80)), 8);
    uint16x8_t nan = vshrq_n_u16(vceqq_u16(magnitude, vdupq_n_u16(0x7f)), 1);
    return vorrq_u16(vorrq_u16(vshlq_n_u16(magnitude, 7), nan), sign);
}
VEC float32x4_t v4_f8(uint16x4_t half)
{
    return vmulq_f32(vcvt_f32_f16(vreinterpret_f16_u16(half)), vdupq_n_f32(256.0f));
}
VEC struct v16 v16_load_f8(const uint8_t *p) /* f8_e4m3_to_f32 */
{
    uint8x16_t u = vld1q_u8(p);
    uint16x8_t low = v8_f8(vmovl_u8(vget_low_u8(u))), high = v8_f8(vmovl_u8(vget_high_u8(u)));
    return (struct v16){{v4_f8(vget_low_u16(low)), v4_f8(vget_high_u16(low)), v4_f8(vget_low_u16(high)),
                         v4_f8(vget_high_u16(high))}};
}
VEC struct v16 v16_load_i8(const uint8_t *p)
{
    int8x16_t s = vreinterpretq_s8_u8(vld1q_u8(p));
    int16x8_t low = vmovl_s8(vget_low_s8(s)), high = vmovl_s8(vget_high_s8(s));
    return (struct v16){
        {vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
         vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}
VEC int32_t v16_store_i8(int8_t *p, struct v16 a) /* whole numbers in [-128, 127]; returns their sum */
{
    int16x8_t low = vcombine_s16(vmovn_s32(vcvtq_s32_f32(a.f[0])), vmovn_s32(vcvtq_s32_f32(a.f[1])));
    int16x8_t high = vcombine_s16(vmovn_s32(vcvtq_s32_f32(a.f[2])), vmovn_s32(vcvtq_s32_f32(a.f[3])));
    vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
    return vaddlvq_s16(vaddq_s16(low, high));
}

/* integers */
VEC struct v16i v16i_set1(int32_t x)
{
    QUARTERS(struct v16i, r.i[i] = vdupq_n_s32(x));
}
VEC struct v16i v16i_add(struct v16i a, struct v16i b)
{
    QUARTERS(struct v16i, r.i[i] = vaddq_s32(a.i[i], b.i[i]));
}
VEC struct v16 v16i_float(struct v16i a)
{
    QUARTERS(struct v16, r.f[i] = vcvtq_f32_s32(a.i[i]));
}

/* lines of u8 weights [16 rows][4] */
VEC struct line line_load(const uint8_t *p)
{
    QUARTERS(struct line, r.u[i] = vld1q_u8(p + 16 * i));
}
/* x >> shift & mask, byte by byte; shift and mask are constants */
VEC struct line line_bits(struct line a, uint32_t shift, int8_t mask)
{
    int8x16_t right = vdupq_n_s8((int8_t) - (int32_t)shift);
    uint8x16_t bits = vdupq_n_u8((uint8_t)mask);
    if (shift == 0) {
        QUARTERS(struct line, r.u[i] = vandq_u8(a.u[i], bits));
    }
    if (shift == 4 && mask == 15) {
        QUARTERS(struct line, r.u[i] = vshrq_n_u8(a.u[i], 4));
    }
    QUARTERS(struct line, r.u[i] = vandq_u8(vshlq_u8(a.u[i], right), bits));
}
/* low | high << shift, byte by byte */
VEC struct line line_with_high(struct line low, struct line high, uint32_t shift)
{
    int8x16_t left = vdupq_n_s8((int8_t)shift);
    QUARTERS(struct line, r.u[i] = vorrq_u8(low.u[i], vshlq_u8(high.u[i], left)));
}
VEC struct line line_lookup(struct line a, const uint8_t *book) /* book[each byte], bytes < 16 */
{
    uint8x16_t t = vld1q_u8(book);
    QUARTERS(struct line, r.u[i] = vqtbl1q_u8(t, a.u[i]));
}
VEC struct v16 line_floats(struct line a, uint32_t j) /* byte j of each row's 4 */
{
    int32x4_t right = vdupq_n_s32(-8 * (int32_t)j);
    uint32x4_t mask = vdupq_n_u32(255);
    QUARTERS(struct v16,
             r.f[i] = vcvtq_f32_u32(vandq_u32(vshlq_u32(vreinterpretq_u32_u8(a.u[i]), right), mask)));
}

/* sdot multiplies signed by signed: line_centre takes the offset off. */
VEC bool dot_is_signed(int32_t offset)
{
    (void)offset;
    return true;
}
VEC struct line line_centre(struct line a, int32_t offset)
{
    uint8x16_t c = vdupq_n_u8((uint8_t)offset);
    QUARTERS(struct line, r.u[i] = vsubq_u8(a.u[i], c));
}
VEC struct v16i dot4(struct v16i sum, struct line w, int32_t q4, bool is_signed)
{
    int8x16_t q = vreinterpretq_s8_s32(vdupq_n_s32(q4));
    (void)is_signed;
    QUARTERS(struct v16i, r.i[i] = vdotq_s32(sum.i[i], vreinterpretq_s8_u8(w.u[i]), q));
}

#endif
