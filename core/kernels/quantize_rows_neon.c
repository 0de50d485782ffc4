/* Rounding activations on NEON. */
#include "vec_neon.h"

#include "quantize_rows_body.h"
