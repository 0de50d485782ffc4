/* Products of quantised weights with int8 activations on AVX-512. */
#include "vec_avx512.h"

#include "matmul_q_int8_body.h"
