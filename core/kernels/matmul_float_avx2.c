/* Products with F32, F16 and BF16 weights on AVX2. */
#include "vec_avx2.h"

#include "matmul_float_body.h"
