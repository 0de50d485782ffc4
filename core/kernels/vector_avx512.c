/* Element-wise work on AVX-512. */
#include "vec_avx512.h"

#include "vector_body.h"
