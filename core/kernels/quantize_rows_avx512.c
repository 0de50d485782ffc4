/* Rounding activations on AVX-512. */
#include "vec_avx512.h"

#include "quantize_rows_body.h"
