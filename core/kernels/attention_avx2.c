/* Attention on AVX2. */
#include "vec_avx2.h"

#include "attention_body.h"
