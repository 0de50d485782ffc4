/* Rounding activations on AVX2. */
#include "vec_avx2.h"

#include "quantize_rows_body.h"
