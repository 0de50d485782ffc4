/* Products of quantised weights with f32 activations on AVX2. */
#include "vec_avx2.h"

#include "matmul_q_f32_body.h"
