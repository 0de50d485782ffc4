/* Attention on AVX2. Twelve sums, a line of K or V and a value of q are 15 of its 16 registers. */
#include "vec_avx2.h"

#define ATTEND_ROWS 6
#define ATTEND_PAIRS(rows) ((rows) <= 3)
#define ATTEND_CASES(X) X(1) X(2) X(3) X(4) X(5) X(6)
#include "attention_body.h"
