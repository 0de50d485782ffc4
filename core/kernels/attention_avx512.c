/* Attention on AVX-512: a line is one of its 32 registers. */
#include "vec_avx512.h"

#define ATTEND_ROWS 8
#define ATTEND_PAIRS(rows) 1
#define ATTEND_CASES(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#include "attention_body.h"
