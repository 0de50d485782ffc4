/* Attention on NEON. */
#include "vec_neon.h"

#include "attention_body.h"
