/* Products of quantised weights with int8 activations on NEON. */
#include "vec_neon.h"

#include "matmul_q_int8_body.h"
