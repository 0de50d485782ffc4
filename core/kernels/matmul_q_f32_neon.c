/* Products of quantised weights with f32 activations on NEON. */
#include "vec_neon.h"

#include "matmul_q_f32_body.h"
