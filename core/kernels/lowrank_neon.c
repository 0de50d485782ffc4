/* expand for neon. */
#include "vec_neon.h"

#include "lowrank_body.h"
