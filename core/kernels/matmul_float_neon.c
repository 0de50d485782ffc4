/* Products with F32, F16 and BF16 weights on NEON. */
#include "vec_neon.h"

#include "matmul_float_body.h"
