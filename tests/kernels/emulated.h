/* Instruction sets that a machine lacks, put together from those it has: check.c runs their kernels anyway.
 */
#ifndef LK_TESTS_KERNELS_EMULATED_H
#define LK_TESTS_KERNELS_EMULATED_H

#include "kernels.h"

/* Puts AVX-VNNI's int8 products, which then need AVX2 alone, into a copy of AVX2's table. */
void emulate_avxvnni(struct kernels *k);

#endif
