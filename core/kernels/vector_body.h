/* Element-wise work on one row in 16 lanes; vector_scalar.c is the definition. A tail is a vector whose other
 * lanes are zero, so no element's result depends on where it stands. Include a vec_*.h first. */
#include <math.h>

#include "kernels_inner.h"
#include "vec_body.h"

void ISA_NAME(rms_norm)(const float *x, const float *w, float w_offset, float eps, uint32_t n, float *y)
{
    struct v16 squares = v16_set1(0), offset = v16_set1(w_offset);
    uint32_t whole = n & ~15U, i = 0;
    for (; i < whole; i += 16)
        squares = v16_fma(v16_load(x + i), v16_load(x + i), squares);
    if (i < n) {
        struct v16 last = v16_load_part(x + i, n - i);
        squares = v16_fma(last, last, squares);
    }
    struct v16 inverse = v16_set1(1.0f / sqrtf(v16_sum(squares) / (float)n + eps));
    for (i = 0; i < whole; i += 16)
        v16_store(y + i, v16_mul(v16_mul(v16_load(x + i), inverse), v16_add(v16_load(w + i), offset)));
    if (i < n) {
        struct v16 last = v16_load_part(x + i, n - i), weight = v16_load_part(w + i, n - i);
        v16_store_part(y + i, v16_mul(v16_mul(last, inverse), v16_add(weight, offset)), n - i);
    }
}

void ISA_NAME(layer_norm)(const float *x, const float *w, const float *b, float eps, uint32_t n, float *y)
{
    struct v16 sums = v16_set1(0), squares = v16_set1(0);
    uint32_t whole = n & ~15U, rest = n - whole;
    for (uint32_t i = 0; i < whole; i += 16)
        sums = v16_add(sums, v16_load(x + i));
    if (rest > 0)
        sums = v16_add(sums, v16_load_part(x + whole, rest));
    struct v16 mean = v16_set1(v16_sum(sums) / (float)n);
    for (uint32_t i = 0; i < whole; i += 16) {
        struct v16 off = v16_sub(v16_load(x + i), mean);
        v16_store(y + i, off);
        squares = v16_fma(off, off, squares);
    }
    if (rest > 0) {
        /* by way of memory: the lanes behind the row are zero again */
        v16_store_part(y + whole, v16_sub(v16_load_part(x + whole, rest), mean), rest);
        struct v16 off = v16_load_part(y + whole, rest);
        squares = v16_fma(off, off, squares);
    }
    struct v16 inverse = v16_set1(1.0f / sqrtf(v16_sum(squares) / (float)n + eps));
    for (uint32_t i = 0; i < whole; i += 16) {
        struct v16 z = v16_mul(v16_mul(v16_load(y + i), inverse), v16_load(w + i));
        v16_store(y + i, v16_add(z, v16_load(b + i)));
    }
    if (rest > 0) {
        struct v16 z =
            v16_mul(v16_mul(v16_load_part(y + whole, rest), inverse), v16_load_part(w + whole, rest));
        v16_store_part(y + whole, v16_add(z, v16_load_part(b + whole, rest)), rest);
    }
}

VEC void rotate(struct v16 *a, struct v16 *b, struct v16 cos, struct v16 sin)
{
    struct v16 x = *a, y = *b;
    *a = v16_sub(v16_mul(x, cos), v16_mul(y, sin));
    *b = v16_add(v16_mul(y, cos), v16_mul(x, sin));
}

void ISA_NAME(rope)(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cos,
                    const float *sin)
{
    uint32_t half = n_rot / 2, whole = half & ~15U, rest = half - whole;
    for (uint32_t head = 0; head < n_heads; head++) {
        float *low = x + (size_t)head * head_dim, *high = low + half;
        for (uint32_t i = 0; i < whole; i += 16) {
            struct v16 a = v16_load(low + i), b = v16_load(high + i);
            rotate(&a, &b, v16_load(cos + i), v16_load(sin + i));
            v16_store(low + i, a);
            v16_store(high + i, b);
        }
        if (rest == 0)
            continue;
        struct v16 a = v16_load_part(low + whole, rest), b = v16_load_part(high + whole, rest);
        rotate(&a, &b, v16_load_part(cos + whole, rest), v16_load_part(sin + whole, rest));
        v16_store_part(low + whole, a, rest);
        v16_store_part(high + whole, b, rest);
    }
}

VEC struct v16 silu(struct v16 gate)
{
    struct v16 one = v16_set1(1.0f), e = v16_exp(v16_mul(gate, v16_set1(-1.0f)));
    return v16_div(gate, v16_add(one, e));
}

VEC struct v16 silu_mul(struct v16 gate, struct v16 up)
{
    return v16_mul(silu(gate), up);
}

VEC struct v16 gelu_tanh(struct v16 gate)
{
    struct v16 square = v16_mul(v16_mul(v16_set1(0.044715f), gate), gate);
    struct v16 cubic = v16_fma(square, gate, gate);
    struct v16 e = v16_exp(v16_mul(v16_set1(-1.59576912160573071f), cubic));
    return v16_div(gate, v16_add(v16_set1(1.0f), e));
}

VEC struct v16 gelu_tanh_mul(struct v16 gate, struct v16 up)
{
    return v16_mul(gelu_tanh(gate), up);
}

/* y[i] = f(a[i]) */
#define EACH_OF_ONE(f, a, n, y)                                                                              \
    do {                                                                                                     \
        uint32_t i_ = 0, whole_ = (n) & ~15U;                                                                \
        for (; i_ < whole_; i_ += 16)                                                                        \
            v16_store((y) + i_, f(v16_load((a) + i_)));                                                      \
        if (i_ < (n))                                                                                        \
            v16_store_part((y) + i_, f(v16_load_part((a) + i_, (n)-i_)), (n)-i_);                            \
    } while (0)

/* y[i] = f(a[i], b[i]) */
#define EACH_OF_TWO(f, a, b, n, y)                                                                           \
    do {                                                                                                     \
        uint32_t i_ = 0, whole_ = (n) & ~15U;                                                                \
        for (; i_ < whole_; i_ += 16)                                                                        \
            v16_store((y) + i_, f(v16_load((a) + i_), v16_load((b) + i_)));                                  \
        if (i_ < (n))                                                                                        \
            v16_store_part((y) + i_, f(v16_load_part((a) + i_, (n)-i_), v16_load_part((b) + i_, (n)-i_)),    \
                           (n)-i_);                                                                          \
    } while (0)

void ISA_NAME(silu_mul)(const float *gate, const float *up, uint32_t n, float *y)
{
    if (up)
        EACH_OF_TWO(silu_mul, gate, up, n, y);
    else
        EACH_OF_ONE(silu, gate, n, y);
}

void ISA_NAME(gelu_tanh_mul)(const float *gate, const float *up, uint32_t n, float *y)
{
    if (up)
        EACH_OF_TWO(gelu_tanh_mul, gate, up, n, y);
    else
        EACH_OF_ONE(gelu_tanh, gate, n, y);
}

void ISA_NAME(add)(const float *a, const float *b, uint32_t n, float *y)
{
    EACH_OF_TWO(v16_add, a, b, n, y);
}

void ISA_NAME(scale)(const float *a, float s, uint32_t n, float *y)
{
    uint32_t i = 0, whole = n & ~15U;
    struct v16 factor = v16_set1(s);
    for (; i < whole; i += 16)
        v16_store(y + i, v16_mul(v16_load(a + i), factor));
    if (i < n)
        v16_store_part(y + i, v16_mul(v16_load_part(a + i, n - i), factor), n - i);
}

void ISA_NAME(to_f16)(const float *x, uint32_t n, uint16_t *y)
{
    uint32_t i = 0, whole = n & ~15U;
    for (; i < whole; i += 16)
        v16_store_f16(y + i, v16_load(x + i));
    if (i < n)
        v16_store_f16_part(y + i, v16_load_part(x + i, n - i), n - i);
}

/* First the maximum, then the first place that has it. The tail is looked at one by one: padding with zeros
 * would join the contest. */
uint32_t ISA_NAME(argmax)(const float *x, uint32_t n)
{
    uint32_t whole = n & ~15U;
    struct v16 best = v16_set1(-INFINITY);
    for (uint32_t i = 0; i < whole; i += 16)
        best = v16_max(best, v16_load(x + i));
    float max = v16_lanes_max(best);
    for (uint32_t i = whole; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (uint32_t i = 0; i < whole; i += 16) {
        uint32_t lane = v16_first_equal(v16_load(x + i), max);
        if (lane < 16)
            return i + lane;
    }
    for (uint32_t i = whole; i < n; i++) {
        if (x[i] == max)
            return i;
    }
    return 0; /* nothing but NaN */
}

/* The last values of a row, filled up with -INFINITY: no peak, and e to that is 0. */
VEC struct v16 load_last(const float *x, uint32_t n)
{
    float whole[16];
    for (uint32_t i = 0; i < 16; i++)
        whole[i] = i < n ? x[i] : -INFINITY;
    return v16_load(whole);
}

void ISA_NAME(peaks)(const float *x, uint32_t n, float *y)
{
    for (uint32_t begin = 0; begin < n; begin += PEAK_VALUES) {
        uint32_t end = n - begin < PEAK_VALUES ? n : begin + PEAK_VALUES;
        struct v16 best = v16_set1(-INFINITY);
        for (uint32_t i = begin; i < end; i += 16)
            best = v16_max(best, end - i < 16 ? load_last(x + i, end - i) : v16_load(x + i));
        y[begin / PEAK_VALUES] = v16_lanes_max(best);
    }
}

/* One peak's, n values. Two lines of sums: the second has what each addition to the first has lost (Knuth,
 * The Art of Computer Programming 2, 4.2.2 theorem B). */
VEC double peak_sum(const float *x, float peak, float factor, uint32_t n)
{
    struct v16 from = v16_set1(peak), by = v16_set1(factor), sum = v16_set1(0), lost = sum;
    float sums[16], rest[16];
    double total = 0;
    for (uint32_t i = 0; i < n; i += 16) {
        struct v16 v = n - i < 16 ? load_last(x + i, n - i) : v16_load(x + i);
        struct v16 e = v16_exp(v16_mul(v16_sub(v, from), by)), next = v16_add(sum, e);
        struct v16 added = v16_sub(next, sum), kept = v16_sub(next, added);
        lost = v16_add(lost, v16_add(v16_sub(sum, kept), v16_sub(e, added)));
        sum = next;
    }
    v16_store(sums, sum);
    v16_store(rest, lost);
    for (uint32_t i = 0; i < 16; i++)
        total += (double)sums[i] + (double)rest[i];
    return total;
}

void ISA_NAME(peak_sums)(const float *x, const float *peaks, float factor, uint32_t n, double *y)
{
    for (uint32_t begin = 0; begin < n; begin += PEAK_VALUES) {
        uint32_t length = n - begin < PEAK_VALUES ? n - begin : PEAK_VALUES;
        float peak = peaks[begin / PEAK_VALUES];
        y[begin / PEAK_VALUES] = peak > -INFINITY ? peak_sum(x + begin, peak, factor, length) : 0;
    }
}

double ISA_NAME(sum_exp_masked)(const float *x, const uint64_t *mask, float shift, float factor, uint32_t n)
{
    struct v16 from = v16_set1(shift), by = v16_set1(factor);
    double sum = 0;
    for (uint32_t begin = 0; begin < n; begin += PEAK_VALUES) {
        uint32_t end = n - begin < PEAK_VALUES ? n : begin + PEAK_VALUES;
        struct v16 part = v16_set1(0);
        for (uint32_t i = begin; i < end; i += 16) {
            uint32_t bits = (uint32_t)(mask[i / 64] >> i % 64) & 0xFFFFU;
            if (!bits)
                continue;
            struct v16 v = end - i < 16 ? load_last(x + i, end - i) : v16_load(x + i);
            part = v16_add(part, v16_keep(v16_exp(v16_mul(v16_sub(v, from), by)), bits));
        }
        sum += (double)v16_sum(part);
    }
    return sum;
}
