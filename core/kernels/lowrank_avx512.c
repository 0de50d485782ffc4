/* expand for avx512. */
#include "vec_avx512.h"

#include "lowrank_body.h"
