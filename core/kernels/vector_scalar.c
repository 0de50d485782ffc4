/* Element-wise work on one row, the definition. Sums run in 16 lanes (lane = index mod 16) that are added as
 * a tree, so that vectors of 4, 8 or 16 give the same bits. */
#include <math.h>

#include "kernels_inner.h"
#include "vec_scalar.h"

#define LANES 16U

static float lanes_sum(float s[LANES])
{
    for (uint32_t half = LANES / 2; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; i++)
            s[i] += s[i + half];
    }
    return s[0];
}

void rms_norm_scalar(const float *x, const float *w, float w_offset, float eps, uint32_t n, float *y)
{
    float squares[LANES] = {0};
    for (uint32_t i = 0; i < n; i++)
        squares[i % LANES] = fmaf(x[i], x[i], squares[i % LANES]);
    float inverse = 1.0f / sqrtf(lanes_sum(squares) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] * inverse * (w[i] + w_offset);
}

void layer_norm_scalar(const float *x, const float *w, const float *b, float eps, uint32_t n, float *y)
{
    float sums[LANES] = {0}, squares[LANES] = {0};
    for (uint32_t i = 0; i < n; i++)
        sums[i % LANES] += x[i];
    float mean = lanes_sum(sums) / (float)n;
    for (uint32_t i = 0; i < n; i++) {
        y[i] = x[i] - mean;
        squares[i % LANES] = fmaf(y[i], y[i], squares[i % LANES]);
    }
    float inverse = 1.0f / sqrtf(lanes_sum(squares) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++)
        y[i] = y[i] * inverse * w[i] + b[i];
}

void rope_scalar(float *x, uint32_t n_heads, uint32_t head_dim, uint32_t n_rot, const float *cos,
                 const float *sin)
{
    uint32_t half = n_rot / 2;
    for (uint32_t head = 0; head < n_heads; head++, x += head_dim) {
        for (uint32_t i = 0; i < half; i++) {
            float a = x[i], b = x[i + half];
            x[i] = a * cos[i] - b * sin[i];
            x[i + half] = b * cos[i] + a * sin[i];
        }
    }
}

void silu_mul_scalar(const float *gate, const float *up, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float a = gate[i] / (1.0f + exp_scalar(-gate[i]));
        y[i] = up ? a * up[i] : a;
    }
}

/* 0.5 x (1 + tanh u) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3); arXiv 1606.08415. */
void gelu_tanh_mul_scalar(const float *gate, const float *up, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float x = gate[i];
        float cubic = fmaf(0.044715f * x * x, x, x);
        float a = x / (1.0f + exp_scalar(-1.59576912160573071f * cubic));
        y[i] = up ? a * up[i] : a;
    }
}

/* The next three are so rare or so short that all instruction sets share them. */

/* x times the share of a normal distribution below x; arXiv 1606.08415 eq. 2. */
void gelu_mul_scalar(const float *gate, const float *up, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float a = gate[i] * 0.5f * (1.0f + erff(gate[i] * 0.70710678118654752f));
        y[i] = up ? a * up[i] : a;
    }
}

void relu_mul_scalar(const float *gate, const float *up, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float a = gate[i] > 0 ? gate[i] : 0;
        y[i] = up ? a * up[i] : a;
    }
}

void softmax_scalar(float *x, uint32_t n)
{
    float max = x[0], sum = 0;
    for (uint32_t i = 1; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (uint32_t i = 0; i < n; i++) {
        x[i] = exp_scalar(x[i] - max);
        sum += x[i];
    }
    for (uint32_t i = 0; i < n; i++)
        x[i] /= sum;
}

void add_scalar(const float *a, const float *b, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

void scale_scalar(const float *a, float s, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] = a[i] * s;
}

void to_f16_scalar(const float *x, uint32_t n, uint16_t *y)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] = f32_to_f16(x[i]);
}

uint32_t argmax_scalar(const float *x, uint32_t n)
{
    uint32_t best = n;
    for (uint32_t i = 0; i < n; i++) {
        if (x[i] == x[i] && (best == n || x[i] > x[best]))
            best = i;
    }
    return best == n ? 0 : best;
}

void peaks_scalar(const float *x, uint32_t n, float *y)
{
    for (uint32_t i = 0; i < n; i++) {
        float *peak = &y[i / PEAK_VALUES];
        if (i % PEAK_VALUES == 0)
            *peak = -INFINITY;
        *peak = x[i] > *peak ? x[i] : *peak;
    }
}

/* Two lines of sums: the second has what each addition to the first has lost (Knuth, The Art of Computer
 * Programming 2, 4.2.2 theorem B). */
static double peak_sum(const float *x, float peak, float factor, uint32_t n)
{
    float sums[LANES] = {0}, lost[LANES] = {0};
    double total = 0;
    for (uint32_t i = 0; i < n; i++) {
        float sum = sums[i % LANES], e = exp_scalar((x[i] - peak) * factor), next = sum + e;
        float added = next - sum, kept = next - added;
        lost[i % LANES] += (sum - kept) + (e - added);
        sums[i % LANES] = next;
    }
    for (uint32_t i = 0; i < LANES; i++)
        total += (double)sums[i] + (double)lost[i];
    return total;
}

void peak_sums_scalar(const float *x, const float *peaks, float factor, uint32_t n, double *y)
{
    for (uint32_t begin = 0; begin < n; begin += PEAK_VALUES) {
        uint32_t length = n - begin < PEAK_VALUES ? n - begin : PEAK_VALUES;
        float peak = peaks[begin / PEAK_VALUES];
        y[begin / PEAK_VALUES] = peak > -INFINITY ? peak_sum(x + begin, peak, factor, length) : 0;
    }
}

double sum_exp_masked_scalar(const float *x, const uint64_t *mask, float shift, float factor, uint32_t n)
{
    double sum = 0;
    for (uint32_t begin = 0; begin < n; begin += PEAK_VALUES) {
        float lanes[LANES] = {0};
        for (uint32_t i = begin; i < n && i < begin + PEAK_VALUES; i++)
            if (mask[i / 64] >> i % 64 & 1)
                lanes[i % LANES] += exp_scalar((x[i] - shift) * factor);
        sum += (double)lanes_sum(lanes);
    }
    return sum;
}
