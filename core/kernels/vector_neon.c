/* Element-wise work on NEON. */
#include "vec_neon.h"

#include "vector_body.h"
