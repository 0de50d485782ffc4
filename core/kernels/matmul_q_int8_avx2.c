/* Products of quantised weights with int8 activations on AVX2. */
#include "vec_avx2.h"

#include "matmul_q_int8_body.h"
