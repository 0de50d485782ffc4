/* Products of quantised weights with f32 activations on AVX-512. */
#include "vec_avx512.h"

#include "matmul_q_f32_body.h"
