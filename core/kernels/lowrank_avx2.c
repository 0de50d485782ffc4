/* expand for avx2. */
#include "vec_avx2.h"

#include "lowrank_body.h"
