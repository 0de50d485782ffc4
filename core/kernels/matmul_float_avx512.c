/* Products with F32, F16 and BF16 weights on AVX-512. */
#include "vec_avx512.h"

#include "matmul_float_body.h"
