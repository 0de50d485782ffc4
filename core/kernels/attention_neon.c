/* Attention on NEON: a line is four of its 32 registers. */
#include "vec_neon.h"

#define ATTEND_ROWS 6
#define ATTEND_PAIRS(rows) ((rows) <= 3)
#define ATTEND_CASES(X) X(1) X(2) X(3) X(4) X(5) X(6)
#include "attention_body.h"
