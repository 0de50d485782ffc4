#include "row_mass.h"

#include <math.h>

/* What a peak so far below the top stands for is less than the mass's last bit, with all others like it. */
#define LEAST_EXPONENT (-80.0)

double row_mass(const struct logits *x, float top, float factor, const struct kernels *k)
{
    double mass = 0, sum;
    for (uint32_t i = 0, n = n_peaks_of(x->n); i < n; i++) {
        const float *values = x->row + (size_t)i * PEAK_VALUES;
        uint32_t length = i + 1 < n ? PEAK_VALUES : x->n - i * PEAK_VALUES;
        float peak;
        if (x->peaks)
            peak = x->peaks[i];
        else
            k->peaks(values, length, &peak);
        double a = ((double)peak - (double)top) * (double)factor;
        if (!(a > LEAST_EXPONENT)) /* nor is one of -INFINITY */
            continue;
        if (x->sums)
            sum = x->sums[i];
        else
            k->peak_sums(values, &peak, factor, length, &sum);
        mass += sum * exp(a);
    }
    return mass;
}
