/* Element-wise work on AVX2. */
#include "vec_avx2.h"

#include "vector_body.h"
