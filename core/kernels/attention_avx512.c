/* Attention on AVX-512. */
#include "vec_avx512.h"

#include "attention_body.h"
